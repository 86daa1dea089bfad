//! The model: one browser, the three nodes of a site with the real layer, an operator and a clock. The steps of a
//! history act on them in any order.
//!
//! 1. A node serves a request when it is sent, with the cookies of that moment. The response reaches the browser at
//!    once, at a later step, or never.
//! 2. [`Current`] is the state that must count: that of the last login, logout, withdrawal or opt-out whose response
//!    has reached the browser. The model keeps it without reading the layer's cookies. `rules.rs` compares it with
//!    the state that a handler sees.
//! 3. The model notes the origin of each cookie value when the layer writes it. So it knows when a handler *must* see a
//!    token, and when a late response has cost the visitor their pair.

mod operator;
mod rules;
mod steps;
mod tally;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Request, Response, request};
use proptest::prelude::*;
use tower_euid::clock::{Clock, ManualClock, UnixMillis};
use tower_euid::{Consent, CookieKey, Euid, EuidUpdate, KeyRing, RefreshMode};

use self::operator::{Generated, Login, MINUTES, Mode, Operator, OperatorConnection, Pair, Process, SLOW_DELAY, User};
use self::steps::{Arrival, NODES, Page, TABS};
pub(crate) use self::steps::{Setup, Step, steps};
pub(crate) use self::tally::Tally;
use crate::support::{ANCHOR, IDENTITY, Jar, OPT_OUT, START, Site};

/// The state that counts for the visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Current {
    NoLogin,
    Login(Login),
    /// The operator answered a login with an opt-out. `anchor` is the cookie value that records it.
    OptedOut {
        until: UnixMillis,
        anchor: String,
    },
}

/// The effect of a response, once it reaches the browser.
#[derive(Clone, Debug, Default)]
struct Effect {
    /// The new state, if it changes.
    current: Option<Current>,
    session: Session,
}

/// The effect of a response on the site's own session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Session {
    #[default]
    Kept,
    Begun(User),
    Ended,
}

/// A request and its response. The response may not have reached the browser yet.
struct Exchange {
    number: usize,
    page: Page,
    node: usize,
    /// The cookies of the request.
    cookies: Cookies,
    /// The state that the handler saw.
    saw: String,
    effect: Effect,
    /// The response's changes of the layer's cookies, in words.
    writes: String,
    headers: HeaderMap,
}

/// The origin of a value of the identity cookie.
#[derive(Clone, Debug)]
struct IdentityOrigin {
    login: Login,
    pair: Pair,
    key: usize,
    /// The anchor of its login.
    anchor: String,
}

/// The origin of a record of an opt-out.
#[derive(Clone, Debug)]
struct RecordOrigin {
    login: Login,
    until: UnixMillis,
    key: usize,
}

/// The layer's cookies in the browser, with their origins.
struct Cookies {
    identity: Option<IdentityOrigin>,
    record: Option<RecordOrigin>,
    anchor: Option<String>,
    /// The login that the anchor names.
    anchored_login: Option<Login>,
}

/// A node of the site, with its running process.
struct Node {
    process: Process,
    /// The number of steps of its key rotation so far.
    stage: usize,
    keys: KeyRing,
    site: Site,
}

impl Node {
    fn opens(&self, key: usize) -> bool {
        ring(self.stage).contains(&key)
    }

    fn seals_under(&self) -> usize {
        ring(self.stage)[0]
    }
}

pub(crate) struct Model {
    setup: Setup,
    clock: ManualClock,
    operator: Arc<Mutex<Operator>>,
    processes: usize,
    nodes: Vec<Node>,
    jar: Jar,
    consent: Consent,
    /// For each tab, the response that it waits for.
    tabs: [Option<Exchange>; TABS],
    /// The number of requests so far.
    requests: usize,
    current: Current,
    signed_in: Option<User>,
    /// The number of requests when `current` last changed.
    changed_at: usize,
    /// The login whose opt-out a refresh has found, if the browser has that response.
    opted_out: Option<Login>,
    /// Whether a late response has cost the visitor their pair.
    pair_lost: bool,
    /// The origin of each value of the identity cookie.
    identities: BTreeMap<String, IdentityOrigin>,
    /// The origin of each record of an opt-out.
    records: BTreeMap<String, RecordOrigin>,
    /// The login that each anchor names.
    anchors: BTreeMap<String, Login>,
    tally: Tally,
}

impl Model {
    /// Plays a history. If all rules must hold, the visitor must recover at its end.
    pub(crate) fn play(steps: &[Step], setup: Setup, tally: &RefCell<Tally>) -> Result<(), TestCaseError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut model = Self::new(setup, tally.take());
        let outcome = runtime.block_on(async {
            model.tally.note("cases");
            for step in steps {
                model.step(*step).await?;
            }
            if setup.must_hold() { model.recover().await } else { Ok(()) }
        });
        tally.replace(model.tally);
        outcome
    }

    /// Removes the steps that a failing history does not need. Returns the rest, with the failure. Proptest alone
    /// leaves steps that lost their effect while it simplified others.
    pub(crate) fn minimize(mut steps: Vec<Step>, setup: Setup) -> (Vec<Step>, String) {
        let failure = |steps: &[Step]| Self::play(steps, setup, &RefCell::default()).err();
        while let Some(shorter) = (0..steps.len())
            .map(|left_out| [&steps[..left_out], &steps[left_out + 1..]].concat())
            .find(|shorter| failure(shorter).is_some())
        {
            steps = shorter;
        }
        let why = failure(&steps).map(|failure| failure.to_string());
        (steps, why.unwrap_or_default())
    }

    fn new(setup: Setup, tally: Tally) -> Self {
        let clock = ManualClock::at(START);
        let mut model = Self {
            setup,
            operator: Arc::new(Mutex::new(Operator::new(clock.clone()))),
            clock,
            processes: 0,
            nodes: Vec::new(),
            jar: Jar::default(),
            consent: Consent::Granted,
            tabs: Default::default(),
            requests: 0,
            current: Current::NoLogin,
            signed_in: None,
            changed_at: 0,
            opted_out: None,
            pair_lost: false,
            identities: BTreeMap::new(),
            records: BTreeMap::new(),
            anchors: BTreeMap::new(),
            tally,
        };
        model.nodes = (0..NODES).map(|number| model.start(number, 0)).collect();
        model
    }

    /// Starts a new process of a node. The second node reseals identities under the newest key, and the third refreshes
    /// concurrently with its pages.
    fn start(&mut self, number: usize, stage: usize) -> Node {
        let process = self.processes;
        self.processes += 1;
        let keys = keys(stage);
        let connection = OperatorConnection { process, operator: Arc::clone(&self.operator) };
        let mode = if number == 2 { RefreshMode::Concurrent } else { RefreshMode::Blocking };
        let site = Site::with_keys(keys.clone(), connection).configured(|layer| {
            let layer = layer.clock(self.clock.clone()).refresh_mode(mode).reseal(number == 1).consent(consent_of);
            if self.setup == Setup::Bound { layer.subject(signed_in_user) } else { layer }
        });
        Node { process, stage, keys, site }
    }

    fn operator(&self) -> MutexGuard<'_, Operator> {
        self.operator.lock().unwrap()
    }

    async fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send { tab, page, node, arrival } => {
                let exchange = self.send(page, node).await?;
                match arrival {
                    Arrival::AtOnce => self.apply(exchange),
                    Arrival::Later => {
                        if self.tabs[tab].replace(exchange).is_some() {
                            self.tally.note("responses lost");
                        }
                    }
                }
            }
            Step::Apply(tab) => {
                if let Some(exchange) = self.tabs[tab].take() {
                    self.apply(exchange);
                }
            }
            Step::Wait(duration) => self.wait(duration).await,
            Step::Deploy(number) => {
                let stage = self.nodes[number].stage + 1;
                self.nodes[number] = self.start(number, stage);
                self.tally.note("steps of a key rotation, by deploy");
            }
            Step::Reload(number) => {
                let node = &mut self.nodes[number];
                node.stage += 1;
                node.keys.reload(keys(node.stage));
                self.tally.note("steps of a key rotation, by reload");
            }
            Step::Evict(name) => {
                self.jar.evict(name);
                self.tally.note("evictions");
            }
            Step::SetConsent(consent) => self.consent = consent,
            Step::OptOut(user) => self.operator().opt_out(user),
            Step::OptIn(user) => self.operator().opt_in(user),
            Step::SetMode(mode) => self.operator().mode = mode,
        }
        Ok(())
    }

    async fn wait(&mut self, duration: Duration) {
        self.clock.advance(duration);
        self.jar.wait_until(self.clock.now());
        // Slow answers of the operator arrive now.
        tokio::time::advance(SLOW_DELAY).await;
        run_tasks().await;
    }

    /// Sends a request and checks the rules. The response does not change the jar.
    async fn send(&mut self, page: Page, node: usize) -> Result<Exchange, TestCaseError> {
        self.requests += 1;
        let page = self.setup.page(page);
        let cookies = self.cookies();
        let (update, mut effect) = self.update_of(page);
        let clears = page == Page::ClearSiteData;
        let handler = move |euid: &Euid, response: &mut Response<()>| {
            if clears {
                response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cookies\""));
            }
            if let Some(update) = &update
                && (page != Page::GenerateAgain || matches!(euid, Euid::Absent))
            {
                update.clone().attach(response);
            }
        };
        let calls = self.operator().refresh_calls;
        let visit = self.nodes[node].site.send(self.request(page), handler).await;
        run_tasks().await;

        let saw = visit.saw();
        if page == Page::GenerateAgain && saw != "absent" {
            effect = Effect::default();
        }
        if self.consent == Consent::Withdrawn {
            // Any login ends, also the one that the page begins. Without cookies and without an update nothing changes.
            let has_cookies = cookies.identity.is_some() || cookies.anchor.is_some() || page == Page::TwoAnchors;
            effect.current = (has_cookies || effect.current.is_some()).then_some(Current::NoLogin);
        }
        let (writes, headers) = (visit.writes(), visit.response.headers().clone());
        let mut exchange = Exchange { number: self.requests, page, node, cookies, saw, effect, writes, headers };
        self.note_origins(&mut exchange);
        self.count(&exchange);
        let may_call = self.consent == Consent::Granted || self.operator().refresh_calls == calls;
        prop_assert!(may_call, "a refresh call without consent");
        self.check(&exchange)?;
        Ok(exchange)
    }

    fn request(&self, page: Page) -> Request<()> {
        let mut jar = self.jar.clone();
        if self.setup == Setup::MatchingAnchor
            && let Some(origin) = self.jar.value(IDENTITY).and_then(|value| self.identities.get(value))
        {
            jar.put(ANCHOR, &origin.anchor);
        }
        let mut request = jar.request();
        let headers = request.headers_mut();
        if page == Page::TwoAnchors {
            let other = HeaderValue::try_from(format!("{ANCHOR}=AAAAAAAAAAAAAAAAAAAAAA")).unwrap();
            headers.append(COOKIE, other);
        }
        if let Some(user) = self.signed_in {
            headers.insert("x-user", HeaderValue::from_static(user.id()));
        }
        let consent = match self.consent {
            Consent::Granted => "granted",
            Consent::Withheld => "withheld",
            Consent::Withdrawn => "withdrawn",
        };
        headers.insert("x-consent", HeaderValue::from_static(consent));
        request
    }

    /// Returns a page's update of the layer, and the effect of its response.
    fn update_of(&self, page: Page) -> (Option<EuidUpdate>, Effect) {
        let (user, session) = match page {
            Page::Look | Page::TwoAnchors => return (None, Effect::default()),
            Page::Logout => return (Some(EuidUpdate::logout()), Effect::logout()),
            Page::ClearSiteData => return (None, Effect::logout()),
            Page::SignIn(user) => return (None, Effect { current: None, session: Session::Begun(user) }),
            Page::SignOut => return (None, Effect { current: None, session: Session::Ended }),
            Page::Login(user) => (user, Session::Begun(user)),
            Page::GenerateAgain => match self.signed_in {
                Some(user) if self.setup.generating_again_signs_in() => (user, Session::Begun(user)),
                Some(user) => (user, Session::Kept),
                None => return (None, Effect::default()),
            },
        };
        let (update, current) = match self.operator().generate(user) {
            Generated::Identity(login, update) => (update, Current::Login(login)),
            Generated::OptedOut => {
                let until = self.clock.now().saturating_add(OPT_OUT_REMEMBERED);
                (EuidUpdate::opt_out(), Current::OptedOut { until, anchor: String::new() })
            }
        };
        let update = if self.setup == Setup::Bound { update.subject(user.id()) } else { update };
        (Some(update), Effect { current: Some(current), session })
    }

    /// Notes the origins of the cookie values that a response sets.
    fn note_origins(&mut self, exchange: &mut Exchange) {
        let Exchange { node, cookies, saw, effect, headers, .. } = exchange;
        let mut set = Jar::default();
        set.apply(headers);
        let (identity, anchor) = (set.value(IDENTITY), set.value(ANCHOR).map(str::to_owned));
        let key = self.nodes[*node].seals_under();
        let origin = match (&mut effect.current, &cookies.identity) {
            (Some(Current::Login(login)), _) => {
                let anchor = anchor.unwrap();
                self.anchors.insert(anchor.clone(), *login);
                IdentityOrigin { login: *login, pair: self.operator().login(*login).first, key, anchor }
            }
            (Some(Current::OptedOut { anchor: stated, .. }), _) => return *stated = anchor.unwrap(),
            (None, Some(old)) => {
                if let Some(record) = set.value(OPT_OUT) {
                    let until = self.clock.now().saturating_add(OPT_OUT_REMEMBERED);
                    self.records.insert(record.to_owned(), RecordOrigin { login: old.login, until, key });
                }
                // A page writes the pair that its handler saw. A removed identity has no value.
                IdentityOrigin { pair: self.pair_in(saw).unwrap_or(old.pair), key, ..old.clone() }
            }
            (Some(Current::NoLogin), _) | (None, None) => return,
        };
        if let Some(identity) = identity {
            self.identities.insert(identity.to_owned(), origin);
        }
    }

    /// Returns the pair whose token a handler saw.
    fn pair_in(&self, saw: &str) -> Option<Pair> {
        let token = saw.strip_prefix("active(")?.strip_suffix(')')?;
        Some(self.operator().pair_of(token).0)
    }

    /// Lets a response reach the browser.
    fn apply(&mut self, exchange: Exchange) {
        let (had_pair, was_lost) = (self.has_current_pair(), self.pair_lost);
        let Exchange { number, page, cookies, saw, effect, headers, .. } = exchange;
        let opted_out = cookies.anchored_login.filter(|_| effect.current.is_none() && saw == "opted_out");
        self.jar.apply(&headers);
        let late = number <= self.changed_at;
        self.tally.note("applied");
        if late {
            self.tally.note("applied late: sent before the current state began");
        }
        match effect.session {
            Session::Kept => {}
            Session::Ended => self.signed_in = None,
            Session::Begun(user) => {
                if self.signed_in.replace(user).is_some_and(|before| before != user) {
                    self.tally.note("applied: change of user");
                }
            }
        }
        if let Some(current) = effect.current {
            (self.current, self.changed_at, self.opted_out, self.pair_lost) = (current, self.requests, None, false);
            self.tally.note(match (&self.current, page) {
                (Current::Login(_), Page::GenerateAgain) => "applied: login by generating again",
                (Current::Login(_), _) => "applied: login",
                (Current::OptedOut { .. }, _) => "applied: opt-out stated at a login",
                (Current::NoLogin, Page::Logout) => "applied: logout",
                (Current::NoLogin, Page::ClearSiteData) => "applied: Clear-Site-Data",
                (Current::NoLogin, _) => "applied: withdrawal",
            });
            if was_lost {
                self.tally.note(match (self.has_current_pair(), page) {
                    (true, Page::GenerateAgain) => "lost pair: recovered by generating again",
                    (true, _) => "lost pair: recovered by another login",
                    (false, _) => "lost pair: its login ended",
                });
            }
        }
        if had_pair && !self.has_current_pair() && late && effect.session == Session::Kept {
            self.pair_lost = true;
            self.tally.note(match (&self.current, self.jar.value(IDENTITY)) {
                (Current::Login(login), _) if self.login() != Some(*login) => {
                    "lost pair, by a late response that generated for a previous user"
                }
                (Current::Login(_), None) if opted_out.is_some() => "lost pair, by a late opt-out found by a refresh",
                (Current::Login(_), Some(_)) => "lost pair, by a late refresh",
                (Current::Login(_), None) => "lost pair, by a late removal",
                _ => "lost pair, by a late stated opt-out or withdrawal",
            });
        }
        if let (Some(opted_out), Current::Login(login)) = (opted_out, &self.current)
            && opted_out == *login
        {
            self.opted_out = Some(opted_out);
            self.tally.note("applied: opt-out found by a refresh");
        }
    }

    /// Returns whether the jar has the identity and the anchor of the signed-in user's current login.
    fn has_current_pair(&self) -> bool {
        let Cookies { identity, anchored_login, .. } = self.cookies();
        self.login().is_some()
            && anchored_login == self.login()
            && identity.map(|identity| identity.login) == anchored_login
    }

    /// Returns the layer's cookies in the jar.
    fn cookies(&self) -> Cookies {
        let anchor = self.jar.value(ANCHOR).map(str::to_owned);
        let anchored_login = anchor.as_ref().and_then(|anchor| self.anchors.get(anchor)).copied();
        let identity = self.jar.value(IDENTITY).and_then(|value| self.identities.get(value)).cloned();
        let record = self.jar.value(OPT_OUT).and_then(|value| self.records.get(value)).cloned();
        Cookies { identity, record, anchor, anchored_login }
    }

    /// Discards late responses, repairs the operator and grants consent. The signed-in user must then be active or
    /// opted out, after a page has generated again if they were `Absent`.
    async fn recover(&mut self) -> Result<(), TestCaseError> {
        self.tabs = Default::default();
        self.consent = Consent::Granted;
        self.operator().mode = Mode::Works;
        self.wait(5 * MINUTES).await;
        for node in 0..NODES {
            for page in [Page::GenerateAgain, Page::Look] {
                let exchange = self.send(page, node).await?;
                self.apply(exchange);
            }
            let signed_out = self.signed_in.is_none();
            let opted_out = self.opted_out.is_some() || matches!(self.current, Current::OptedOut { .. });
            prop_assert!(self.has_current_pair() || signed_out || opted_out, "not recovered: {:?}", self.current);
        }
        Ok(())
    }
}

impl Effect {
    fn logout() -> Self {
        Self { current: Some(Current::NoLogin), session: Session::Ended }
    }
}

fn consent_of(request: &request::Parts) -> Consent {
    match request.headers.get("x-consent").map(HeaderValue::as_bytes) {
        Some(b"granted") => Consent::Granted,
        Some(b"withdrawn") => Consent::Withdrawn,
        _ => Consent::Withheld,
    }
}

fn signed_in_user(request: &request::Parts) -> Option<String> {
    Some(request.headers.get("x-user")?.to_str().ok()?.to_owned())
}

/// Lets the other tasks run, while the clock stands still.
async fn run_tasks() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

/// Returns the numbers of the keys at a stage of the rotation, newest first. The stages are: old; old and new; new and
/// old; new. They repeat over three keys.
fn ring(stage: usize) -> &'static [usize] {
    const RINGS: [&[usize]; 9] = [&[0], &[0, 1], &[1, 0], &[1], &[1, 2], &[2, 1], &[2], &[2, 0], &[0, 2]];
    RINGS[stage % RINGS.len()]
}

fn keys(stage: usize) -> KeyRing {
    KeyRing::new(ring(stage).iter().map(|key| CookieKey::from_base64(KEYS[*key]).unwrap())).unwrap()
}

const OPT_OUT_REMEMBERED: Duration = Duration::from_secs(72 * 3600);
const KEYS: [&str; 3] = [
    "gHQfqxmZxOfkd2oHczx9ZwNYfSQtoMFhSrbxXmG0eA4=",
    "4b6Dy3mqEQl6uoWNsl4dVoFvp4ZV0xkOIC8bVG6m1qM=",
    "Q0LGcPqUkGHRkl0FQ3XKDYzfvwnuoIwOKd5rTwrFG2E=",
];
