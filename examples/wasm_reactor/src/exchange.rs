//! Drives the engine: one function for each message.
//!
//! ```text
//! begin ──┬─────────────────────────────────► Handling ──┬──────────────────────────────► finish
//!         └─► Refreshing ──► answered ──────►            └─► login ──► answered ────────►
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;

use euid_core::clock::UnixMillis;
use euid_core::engine::{Change, Decision, Engine, Pending, RefreshCandidate, RequestContext, Step as Begun};
use euid_core::error::{ErrorKind, EuidError};
use euid_core::operator::Call;
use euid_core::{AdvertisingToken, Dii, Environment, Generated, KeyRing, Operator};
use http::{Method, Response, StatusCode};

use crate::messages::{
    Answered, Asked, Begin, Configure, Configured, Fetch, Finish, Finished, Headers, Login, Reply, Step,
};

pub(crate) type Failure = Box<dyn Error>;

thread_local! {
    static REACTOR: RefCell<Option<Reactor>> = const { RefCell::new(None) };
}

struct Reactor {
    engine: Engine,
    operator: Operator,
    /// The exchanges that have begun and not finished.
    exchanges: HashMap<u64, Exchange>,
    /// The number of exchanges so far.
    count: u64,
}

/// A request that has no response yet.
enum Exchange {
    /// The operator is refreshing its identity. The page waits.
    Refreshing(Box<RefreshCandidate>),
    /// The page is being made.
    Handling { pending: Pending, login: LoginState },
}

enum LoginState {
    None,
    /// A call to the operator for an identity is under way.
    Asked(Box<Call>),
    /// The call has an outcome, or has failed.
    Done(Change),
}

pub(crate) fn configure(message: Configure) -> Result<Configured, Failure> {
    let keys: KeyRing = message.cookie_keys.parse()?;
    let operator = Operator::builder(Environment::Url(message.operator_url))
        .credentials(message.api_key, message.client_secret)
        .build()?;
    let reactor = Reactor { engine: Engine::new(keys), operator, exchanges: HashMap::new(), count: 0 };
    REACTOR.set(Some(reactor));
    Ok(Configured { max_answer: Operator::MAX_ANSWER })
}

pub(crate) fn begin(message: Begin) -> Result<Reply, Failure> {
    with_reactor(|reactor| {
        let (method, now) = (Method::from_bytes(message.method.as_bytes())?, UnixMillis::from_millis(message.now));
        // This site has no consent banner and binds no identity to its users. A site that does sets them in the context.
        let context = RequestContext::UNRESTRICTED;
        let (exchange, step) = match reactor.engine.begin(&method, &message.headers.0, &context, || now) {
            Begun::Ready(decision) => handle(decision),
            Begun::Refresh(candidate) if candidate.may_refresh() && candidate.may_wait() => {
                let fetch = Fetch::from(reactor.operator.refresh(candidate.identity()));
                (Exchange::Refreshing(candidate), Step::Fetch(fetch))
            }
            // An image, a prefetch, a POST: the next page brings the refresh.
            Begun::Refresh(candidate) => handle(candidate.postpone(now)),
            Begun::Load(_) => return Err("this host has no store".into()),
        };
        reactor.count += 1;
        reactor.exchanges.insert(reactor.count, exchange);
        Ok(Reply { exchange: reactor.count, step })
    })
}

pub(crate) fn login(message: Login) -> Result<Reply, Failure> {
    with_reactor(|reactor| {
        let Some(Exchange::Handling { login, .. }) = reactor.exchanges.get_mut(&message.exchange) else {
            return Err("there is no such exchange, or the operator's answer is missing".into());
        };
        let step = match Dii::email(&message.email) {
            Ok(email) => {
                let call = reactor.operator.generate(email, UnixMillis::from_millis(message.now))?;
                let fetch = Fetch::from(call.request());
                *login = LoginState::Asked(Box::new(call));
                Step::Fetch(fetch)
            }
            Err(error) => {
                *login = LoginState::Done(Change::EndLogin);
                Step::Login { outcome: "invalid", error: Some(error.to_string()) }
            }
        };
        Ok(Reply { exchange: message.exchange, step })
    })
}

pub(crate) fn answered(message: Answered) -> Result<Reply, Failure> {
    with_reactor(|reactor| {
        let (operator, now) = (&reactor.operator, UnixMillis::from_millis(message.now));
        let answer = message.answer.map(Response::try_from).transpose()?;
        let answer = answer.ok_or_else(|| EuidError::new(ErrorKind::Transient, "the operator did not answer"));
        let exchange = reactor.exchanges.get_mut(&message.exchange).ok_or("there is no such exchange")?;
        let step = match exchange {
            Exchange::Refreshing(candidate) => {
                let outcome = answer.and_then(|answer| operator.refreshed(candidate.identity(), &answer, now));
                let (handling, step) = handle(candidate.settle(&outcome, now));
                *exchange = handling;
                step
            }
            Exchange::Handling { login, .. } => {
                let LoginState::Asked(call) = &*login else { return Err("no call is under way".into()) };
                let generated = answer.and_then(|answer| operator.generated(call, &answer, now));
                let (outcome, error) = describe(&generated);
                // A new person is logging in: the previous login ends even if there is no new one.
                *login = LoginState::Done(generated.map_or(Change::EndLogin, Change::from));
                Step::Login { outcome, error }
            }
        };
        Ok(Reply { exchange: message.exchange, step })
    })
}

pub(crate) fn finish(message: Finish) -> Result<Finished, Failure> {
    with_reactor(|reactor| {
        let (status, now) = (StatusCode::from_u16(message.status)?, UnixMillis::from_millis(message.now));
        let (pending, login) = match reactor.exchanges.remove(&message.exchange) {
            Some(Exchange::Handling { pending, login }) => (pending, login),
            // The host has stopped waiting.
            Some(Exchange::Refreshing(candidate)) => (candidate.postpone(now).start().1, LoginState::None),
            None => return Err("there is no such exchange".into()),
        };
        let asked = match (message.change, login) {
            (Asked::None, _) => None,
            (Asked::Login, LoginState::Done(change)) => Some(change),
            (Asked::Login, LoginState::Asked(_) | LoginState::None) => Some(Change::EndLogin),
            (Asked::Logout, _) => Some(Change::EndLogin),
            (Asked::OptOut, _) => Some(Change::opt_out()),
        };
        let Headers(mut headers) = message.headers;
        let report = reactor.engine.finish(pending, asked.as_ref(), status, &mut headers, || now).report();
        let unwritten = report.unwritten.map(|reason| format!("the state was not written: {reason:?}"));
        let unguarded = report.unguarded.then(|| "a cache may store this response: it has too many headers".to_owned());
        Ok(Finished { headers: Headers(headers), log: unwritten.into_iter().chain(unguarded).collect() })
    })
}

fn with_reactor<R>(function: impl FnOnce(&mut Reactor) -> Result<R, Failure>) -> Result<R, Failure> {
    REACTOR.with_borrow_mut(|reactor| function(reactor.as_mut().ok_or("`configure` comes first")?))
}

/// Splits a decision into what the page sees and what its response does.
fn handle(decision: Decision) -> (Exchange, Step) {
    let (euid, pending) = decision.start();
    // The token leaves the engine here, so it counts as read: the response becomes private.
    let token = euid.advertising_token().map(AdvertisingToken::to_string);
    (Exchange::Handling { pending, login: LoginState::None }, Step::Euid { state: euid.state(), token })
}

/// The outcome of a login in a word, and its error.
fn describe(generated: &Result<Generated, EuidError>) -> (&'static str, Option<String>) {
    match generated {
        Ok(Generated::Identity(_)) => ("identity", None),
        Ok(Generated::OptedOut) => ("opted_out", None),
        Ok(Generated::InsufficientConsent) => ("insufficient_consent", None),
        Ok(_) => ("unknown", None),
        Err(error) => ("failed", Some(error.to_string())),
    }
}
