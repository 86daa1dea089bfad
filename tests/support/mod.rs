//! The shared parts of the integration tests: a site with its layer, a browser's cookie jar, a scripted operator.
//!
//! 1. Time is [`START`] plus milliseconds; only the [`ManualClock`] of the site moves it.
//! 2. Cookies are made as for browsers: by a login through the layer.
//! 3. The scope is that of [`scope`](scope::scope), so the tests run in either.
//! 4. [`Visit`] holds the visible results: the state that the handler saw, and the cookies that the response writes.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[cfg(feature = "client")]
pub(crate) mod faulty;
pub(crate) mod issuer;
pub(crate) mod jar;
pub(crate) mod keeper;
#[cfg(feature = "client")]
pub(crate) mod peer;
pub(crate) mod requests;
pub(crate) mod scope;
pub(crate) mod sdk;
#[cfg(feature = "client")]
pub(crate) mod server;
pub(crate) mod stores;
#[cfg(feature = "client")]
pub(crate) mod tls;

use std::convert::Infallible;
use std::future::{pending, ready};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
pub(crate) use jar::Jar;
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use scope::{InScope, Literal, scope};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::clock::{ManualClock, UnixMillis};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{
    AdvertisingToken, Consent, CookieKey, Euid, EuidLayer, EuidUpdate, KeyRing, Refresh, Refreshed, Scope, StoreSecret,
};
use tracing_subscriber::fmt::MakeWriter;

/// The time at which every site starts; a whole second.
pub(crate) const START: UnixMillis = UnixMillis::from_millis(1_795_371_587_000);
/// The three clocks of [`identity`], in milliseconds after [`START`].
pub(crate) const REFRESH_FROM: i64 = 900_000;
pub(crate) const IDENTITY_EXPIRES: i64 = 3_600_000;
pub(crate) const REFRESH_EXPIRES: i64 = 86_400_000;
/// The identity is due for certain, and the token is still valid.
pub(crate) const DUE: i64 = 1_800_000;
/// The token has expired, the refresh token has not.
pub(crate) const EXPIRED: i64 = 7_200_000;

/// What the name of an identity begins with; the tag of its login follows.
pub(crate) const IDENTITY: Literal = Literal { euid: "__Host-euid.", uid2: "__Host-uid2." };
pub(crate) const ANCHOR: Literal = Literal { euid: "__Host-euid-login", uid2: "__Host-uid2-login" };
/// What the name of an opt-out record begins with; the tag of its login follows.
pub(crate) const OPT_OUT: Literal = Literal { euid: "__Host-euid-optout.", uid2: "__Host-uid2-optout." };
/// The part of these names between the prefix and the use.
pub(crate) const STEM: Literal = Literal { euid: "euid", uid2: "uid2" };
/// The cookie of the JavaScript SDK.
pub(crate) const SDK: Literal = Literal { euid: "__euid", uid2: "__uid_2" };
/// The identity that was migrated from it.
pub(crate) const MIGRATED: Literal = Literal { euid: "__Host-euid.sdk", uid2: "__Host-uid2.sdk" };
/// The record of an opt-out of the migrated identity.
pub(crate) const MIGRATED_OPT_OUT: Literal = Literal { euid: "__Host-euid-optout.sdk", uid2: "__Host-uid2-optout.sdk" };
/// The token that scripts may read.
pub(crate) const SCRIPT_TOKEN: Literal = Literal { euid: "__euid_advertising_token", uid2: "__uid2_advertising_token" };
/// The scope in metrics and events.
pub(crate) const SCOPE: Literal = Literal { euid: "euid", uid2: "uid2" };

/// A first login, a logout, and a login that replaces another, in the words of [`writes`].
pub(crate) const LOGIN_WRITTEN: &str = "identity set, anchor set";
pub(crate) const LOGIN_REMOVED: &str = "identity cleared, anchor cleared";
pub(crate) const LOGIN_REPLACED: &str = "identity set, identity cleared, anchor set";
/// An opt-out by the site, in the words of [`writes`].
pub(crate) const OPTED_OUT: &str = "identity cleared, anchor set, opt-out set";

/// Returns the moment that is `millis` after [`START`].
pub(crate) fn at(millis: i64) -> UnixMillis {
    UnixMillis::from_millis(START.as_millis() + millis)
}

/// Returns the identity of a login at [`START`]; `name` is its advertising token.
pub(crate) fn identity(name: &str) -> Identity {
    identity_until(name, [REFRESH_FROM, IDENTITY_EXPIRES, REFRESH_EXPIRES])
}

/// Returns an identity whose three clocks are `millis` after [`START`].
pub(crate) fn identity_until(name: &str, millis: [i64; 3]) -> Identity {
    let [refresh_from, identity_expires, refresh_expires] = millis.map(at);
    let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
    Identity::new(name, format!("refresh-of-{name}").into(), [7; 32].into(), times).unwrap()
}

/// Returns a new pair that is valid for ten days.
pub(crate) fn new_pair(name: &str) -> Result<Refreshed, EuidError> {
    let [from, token, refresh] = [1, 2, 10].map(|days| days * 86_400_000);
    Ok(Refreshed::Identity(identity_until(name, [from, token, refresh])))
}

pub(crate) fn failure(kind: ErrorKind) -> Result<Refreshed, EuidError> {
    Err(EuidError::new(kind, "as the test wants it"))
}

pub(crate) fn ring() -> KeyRing {
    CookieKey::generate().unwrap().into()
}

pub(crate) fn store_secret() -> StoreSecret {
    StoreSecret::generate().unwrap()
}

/// An operator with one answer for every call, or with none. It counts its calls; clones share the counts.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    answer: Option<Result<Refreshed, EuidError>>,
    delay: Duration,
    scope: Option<Scope>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    started: AtomicUsize,
    answered: AtomicUsize,
    given_up: AtomicUsize,
}

impl Operator {
    pub(crate) fn answering(answer: Result<Refreshed, EuidError>) -> Self {
        Self { answer: Some(answer), delay: Duration::ZERO, scope: None, counts: Arc::default() }
    }

    pub(crate) fn never() -> Self {
        Self { answer: None, delay: Duration::ZERO, scope: None, counts: Arc::default() }
    }

    /// Says that its identities are of this scope.
    pub(crate) fn of_scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Delays each answer by `delay` of tokio's time.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) fn calls(&self) -> usize {
        self.counts.started.load(Ordering::SeqCst)
    }

    /// Returns how many calls ended.
    pub(crate) fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::SeqCst)
    }

    /// Returns how many calls were dropped before their end.
    pub(crate) fn given_up(&self) -> usize {
        self.counts.given_up.load(Ordering::SeqCst)
    }
}

impl Refresh for Operator {
    async fn refresh(&self, _: &Identity) -> Result<Refreshed, EuidError> {
        self.counts.started.fetch_add(1, Ordering::SeqCst);
        let call = Call { counts: &self.counts, ended: false };
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        match &self.answer {
            None => pending().await,
            Some(answer) => {
                call.end();
                answer.clone()
            }
        }
    }

    fn scope(&self) -> Option<Scope> {
        self.scope
    }
}

/// The operator of a site that must make no call. After a call, the test fails.
#[derive(Debug, Default)]
struct NoOperator {
    calls: AtomicUsize,
}

impl Refresh for NoOperator {
    async fn refresh(&self, _: &Identity) -> Result<Refreshed, EuidError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        failure(ErrorKind::Transient)
    }
}

/// A panic in the call would not fail the test, as the layer handles it. So the panic is here: the last clone of the
/// layer ends with its test.
impl Drop for NoOperator {
    fn drop(&mut self) {
        let calls = *self.calls.get_mut();
        assert!(calls == 0 || std::thread::panicking(), "a site that must make no call has made {calls}");
    }
}

/// Notes how a call ends.
struct Call<'a> {
    counts: &'a Counts,
    ended: bool,
}

impl Call<'_> {
    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let count = if self.ended { &self.counts.answered } else { &self.counts.given_up };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// The result of one request.
#[derive(Debug)]
pub(crate) struct Visit {
    euid: Option<Euid>,
    token: Option<AdvertisingToken>,
    pub(crate) response: Response<()>,
}

impl Visit {
    /// Returns the state that the handler saw, with the token if there is one. Fails if the token extension differs
    /// from [`Euid`].
    pub(crate) fn saw(&self) -> String {
        let euid = self.euid.as_ref().unwrap();
        let token = euid.advertising_token().map(AdvertisingToken::as_str);
        assert_eq!(self.token.as_ref().map(AdvertisingToken::as_str), token, "the token is there exactly if active");
        match token {
            Some(token) => format!("{}({token})", euid.state()),
            None => euid.state().to_owned(),
        }
    }

    /// Returns the response's changes of the layer's cookies, in words.
    pub(crate) fn writes(&self) -> String {
        writes(self.response.headers())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).map(|value| value.to_str().unwrap())
    }
}

/// Returns the state that the handler saw, and the cookies that the response writes.
pub(crate) fn outcome(visit: &Visit) -> (String, String) {
    (visit.saw(), visit.writes())
}

/// Returns the expected [`outcome`].
pub(crate) fn expect(saw: &str, writes: &str) -> (String, String) {
    (saw.to_owned(), writes.to_owned())
}

/// A handler that does nothing.
pub(crate) const NOTHING: fn(&Euid, &mut Response<()>) = |_, _| ();

/// Returns a response's changes of the layer's cookies, in words, each once. They do not say which login's cookies
/// these are.
pub(crate) fn writes(headers: &HeaderMap) -> String {
    in_words(headers.get_all(SET_COOKIE).iter().filter_map(|line| {
        let line = line.to_str().unwrap();
        let (name, rest) = line.split_once('=').unwrap();
        let which = match name {
            _ if name == ANCHOR => "anchor",
            _ if name == SDK => "sdk",
            _ if name == SCRIPT_TOKEN => "token",
            _ if name == MIGRATED => "migrated",
            _ if name.starts_with(&*IDENTITY) => "identity",
            _ if name.starts_with(&*OPT_OUT) => "opt-out",
            _ => return None,
        };
        let what = match rest.split(';').next().unwrap() {
            "" if line.ends_with("; Max-Age=0") => "cleared",
            "none" => "ended",
            _ => "set",
        };
        Some(format!("{which} {what}"))
    }))
}

/// Returns changes in a fixed order, each once.
fn in_words(said: impl Iterator<Item = String>) -> String {
    let mut said: Vec<String> = said.collect();
    let order = ["identity set", "identity cleared", "migrated", "anchor", "opt-out", "token", "sdk"];
    said.sort_by_key(|said| order.iter().position(|which| said.starts_with(which)));
    said.dedup();
    said.join(", ")
}

/// A site behind the layer, and one browser that visits it. The browser's clock stands still, so that it sends expired
/// cookies too.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) clock: ManualClock,
    pub(crate) layer: EuidLayer,
    pub(crate) jar: Jar,
    pub(crate) is_offline: bool,
}

impl Site {
    /// Returns a site at [`START`], with a key of its own and no expiry margin.
    pub(crate) fn new(refresh: impl Refresh) -> Self {
        Self::with_keys(ring(), refresh)
    }

    pub(crate) fn with_keys(keys: KeyRing, refresh: impl Refresh) -> Self {
        let clock = ManualClock::at(START);
        let layer = EuidLayer::new(keys, InScope(refresh)).clock(clock.clone());
        // Times are exact to the millisecond: no margin, no jitter.
        let layer = layer.expiry_margin(Duration::ZERO).refresh_jitter(Duration::ZERO);
        Self { clock, layer, jar: Jar::default(), is_offline: false }
    }

    /// Returns a site that must make no call: a call fails the test.
    pub(crate) fn offline() -> Self {
        Self { is_offline: true, ..Self::new(NoOperator::default()) }
    }

    /// Returns a site whose operator answers no call.
    pub(crate) fn unanswered() -> Self {
        Self::new(Operator::never())
    }

    pub(crate) fn configured(mut self, configure: impl FnOnce(EuidLayer) -> EuidLayer) -> Self {
        self.layer = configure(self.layer);
        self
    }

    /// Moves the clock to `millis` after [`START`].
    pub(crate) fn wait_until(&self, millis: i64) {
        let now = tower_euid::clock::Clock::now(&self.clock);
        self.clock.advance(at(millis).saturating_since(now));
    }

    /// Visits a page that answers with `handler`, as a browser that keeps the cookies of the response.
    pub(crate) async fn visit(&mut self, handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static) -> Visit {
        let visit = self.send(self.jar.request(), handler).await;
        self.jar.apply(visit.response.headers());
        visit
    }

    /// Visits a page that does nothing.
    pub(crate) async fn look(&mut self) -> Visit {
        self.visit(|_, _| ()).await
    }

    pub(crate) async fn update(&mut self, update: EuidUpdate) -> Visit {
        self.visit(move |_, response| update.clone().attach(response)).await
    }

    pub(crate) async fn login(&mut self, name: &str) -> Visit {
        self.update(EuidUpdate::login(identity(name))).await
    }

    /// Logs the visitor in with the token `old`, and moves the clock to `millis` after [`START`].
    pub(crate) async fn logged_in(mut self, millis: i64) -> Self {
        self.login("old").await;
        self.wait_until(millis);
        self
    }

    /// Visits a page that does nothing, without a change of the jar: several such requests can run at once.
    pub(crate) async fn look_once(&self) -> Visit {
        self.send(self.jar.request(), |_, _| ()).await
    }

    /// Binds identities to the user of [`look_as`](Self::look_as).
    pub(crate) fn with_subject(self) -> Self {
        self.configured(|layer| layer.subject(|request| request.extensions.get::<User>().map(|user| user.0)))
    }

    /// Visits a page that does nothing, while `user` is signed in.
    pub(crate) async fn look_as(&mut self, user: Option<&'static str>) -> Visit {
        let mut request = self.jar.request();
        if let Some(user) = user {
            request.extensions_mut().insert(User(user));
        }
        let visit = self.send(request, |_, _| ()).await;
        self.jar.apply(visit.response.headers());
        visit
    }

    /// Sends a request without a change of the jar.
    pub(crate) async fn send(
        &self,
        request: Request<()>,
        handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static,
    ) -> Visit {
        let seen = Arc::new(Mutex::new((None, None)));
        let page = page(Arc::clone(&seen), handler);
        let response = self.layer.layer(page).oneshot(request).await.unwrap();
        if self.is_offline {
            // Lets the task of a refresh begin, so that a call fails the test although the response has not waited.
            tokio::task::yield_now().await;
        }
        let (euid, token) = seen.lock().unwrap().clone();
        Visit { euid, token, response }
    }
}

/// The signed-in user, in the extensions of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User(pub(crate) &'static str);

/// The state and token that a handler found in its request.
pub(crate) type Seen = Arc<Mutex<(Option<Euid>, Option<AdvertisingToken>)>>;

/// Returns a page that records the state and token of its request.
pub(crate) fn page(
    seen: Seen,
    handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static,
) -> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send> + Clone + Send + 'static {
    service_fn(move |request: Request<()>| {
        let euid = request.extensions().get::<Euid>().cloned();
        let token = request.extensions().get::<AdvertisingToken>().cloned();
        let mut response = Response::new(());
        handler(euid.as_ref().unwrap(), &mut response);
        *seen.lock().unwrap() = (euid, token);
        ready(Ok(response))
    })
}

impl Visit {
    /// Returns the result of a request that a [`page`] has recorded in `seen`.
    pub(crate) fn of(seen: &Seen, response: Response<()>) -> Self {
        let (euid, token) = seen.lock().unwrap().clone();
        Self { euid, token, response }
    }
}

/// Returns a page that records the consent in the extensions of its request.
pub(crate) fn consent_page(
    found: Arc<Mutex<Option<Consent>>>,
) -> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send> + Clone + Send + 'static {
    service_fn(move |request: Request<()>| {
        *found.lock().unwrap() = request.extensions().get::<Consent>().copied();
        ready(Ok(Response::new(())))
    })
}

/// Returns the request with another method.
pub(crate) fn with_method(mut request: Request<()>, method: Method) -> Request<()> {
    *request.method_mut() = method;
    request
}

/// Returns the text of a body.
#[cfg(feature = "axum")]
pub(crate) async fn text(response: Response<axum::body::Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Returns the `Set-Cookie` values, unchanged.
pub(crate) fn set_cookies(headers: &HeaderMap) -> Vec<&HeaderValue> {
    headers.get_all(SET_COOKIE).iter().collect()
}

/// The logged lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().map_err(|_| io::ErrorKind::Other)?.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Records all events on this thread from now on.
    pub(crate) fn start(&self) -> tracing::subscriber::DefaultGuard {
        // `tracing` caches per event, for all threads, whether any subscriber wants it. Without this global
        // subscriber, a test on a thread without a log could fill that cache with "none".
        static GLOBAL_SUBSCRIBER: Once = Once::new();
        GLOBAL_SUBSCRIBER.call_once(|| {
            let sink = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(io::sink);
            tracing::subscriber::set_global_default(sink.finish()).unwrap();
        });
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).without_time();
        tracing::subscriber::set_default(subscriber.with_writer(self.clone()).finish())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Returns the events of this crate since the last call, one per line: level, target, words and fields, without spans.
    pub(crate) fn take(&self) -> Vec<String> {
        let text = self.text();
        self.0.lock().unwrap().clear();
        let events = text.lines().filter_map(|line| {
            let (level, _) = line.trim().split_once(' ')?;
            line.find(" tower_euid: ").map(|start| format!("{level}{}", &line[start..]))
        });
        events.collect()
    }
}
