//! The model: one browser, the three nodes of a site with the real layer, an operator and a clock. The steps of a
//! history act on them in any order.
//!
//! 1. A node serves a request when it is sent, with the cookies of that moment. The response reaches the browser at
//!    once, at a later step, or never.
//! 2. [`Current`] is the state that must count: that of the last login, logout or withdrawal whose response has reached
//!    the browser. An opt-out that the operator states at a login is a login without a pair. The model keeps the state
//!    without reading the layer's cookies. `rules.rs` compares it with the state that a handler sees.
//! 3. [`Held`] is what the browser must have of the current login: the pair and the opt-out that the last response of
//!    *this* login has brought. A late response of another login must not change it. A response of the same login can
//!    end the pair, even a later one: the operator has ended the pair that the request brought, or another user was
//!    signed in.
//! 4. A record of an opt-out lives for 72 h in the browser. A response that arrives after that can bring a pair of the
//!    same login back. The login then counts as before the opt-out, and its next refresh finds an opt-out that the
//!    operator still knows.
//! 5. On a site that migrates, the identity of the JS SDK's cookie counts while the browser has no anchor: before the
//!    first login or logout, and after the anchor has expired or was evicted. All its cookies have the same names, so
//!    the last response decides what the browser has of it.
//! 6. Two logins have the same tag once in 2^24, and the later one then overwrites cookies of the earlier one. Such a
//!    history is left out.

mod browser;
mod operator;
mod rules;
mod steps;
mod tally;

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Request, Response, request};
use proptest::prelude::*;
use tower_euid::clock::{Clock, ManualClock, UnixMillis};
use tower_euid::{Consent, CookieKey, Euid, EuidUpdate, HeaderConfig, KeyRing, RefreshMode};

use self::browser::{Browser, Cookies, FOREIGN_ANCHOR, IdentityOrigin, RecordOrigin, Writes, as_cookies};
pub(crate) use self::operator::User;
use self::operator::{Generated, Login, MINUTES, Mode, Operator, OperatorConnection, Pair, Process, SLOW_DELAY};
pub(crate) use self::steps::{Arrival, Page, Setup, Step, steps};
use self::steps::{NODES, TABS};
pub(crate) use self::tally::Tally;
use crate::support::keeper::LOGIN_HEADER;
use crate::support::sdk::sdk_value;
use crate::support::{ANCHOR, IDENTITY, MIGRATED, MIGRATED_OPT_OUT, OPT_OUT, SDK, START, Site, writes as in_words};

/// The state that counts for the visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    NoLogin,
    Login(Login),
}

/// What the browser must have of the current login, unless it evicts the cookies.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// The time when the anchor expires.
    anchor_until: Option<UnixMillis>,
    identity: Option<IdentityOrigin>,
    record: Option<RecordOrigin>,
    /// The time when the cookie of the record expires: 72 h after its arrival.
    record_until: Option<UnixMillis>,
}

/// The effect of a response, once it reaches the browser.
#[derive(Clone, Copy, Debug, Default)]
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
    /// The response's changes of the layer's cookies, by name.
    writes: Writes,
    /// The same in words.
    written: String,
    headers: HeaderMap,
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
    browser: Browser,
    consent: Consent,
    /// For each tab, the response that it waits for.
    tabs: [Option<Exchange>; TABS],
    /// The number of requests so far.
    requests: usize,
    current: Current,
    signed_in: Option<User>,
    /// The number of requests when `current` last changed.
    changed_at: usize,
    held: Held,
    /// What the browser must have of the migrated identity.
    migrated: Held,
    /// The value of the SDK's cookie.
    sdk_value: String,
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
    pub(crate) fn minimize(mut steps: Vec<Step>, mut failure: String, setup: Setup) -> (Vec<Step>, String) {
        let fails = |steps: Vec<Step>| match Self::play(&steps, setup, &RefCell::default()) {
            Err(TestCaseError::Fail(failure)) => Some((steps, failure.to_string())),
            _ => None,
        };
        while let Some(shorter) =
            (0..steps.len()).map(|left_out| [&steps[..left_out], &steps[left_out + 1..]].concat()).find_map(fails)
        {
            (steps, failure) = shorter;
        }
        (steps, failure)
    }

    fn new(setup: Setup, tally: Tally) -> Self {
        let clock = ManualClock::at(START);
        let mut model = Self {
            setup,
            operator: Arc::new(Mutex::new(Operator::new(clock.clone()))),
            clock,
            processes: 0,
            nodes: Vec::new(),
            browser: Browser::default(),
            consent: Consent::Granted,
            tabs: Default::default(),
            requests: 0,
            current: Current::NoLogin,
            signed_in: None,
            changed_at: 0,
            held: Held::default(),
            migrated: Held::default(),
            sdk_value: String::new(),
            tally,
        };
        if setup.migrates() {
            let generated = model.operator().generate(User::Anna);
            if let Generated::Identity(_, identity) = generated {
                model.sdk_value = sdk_value(&identity);
            }
            model.browser.jar.put(SDK, &model.sdk_value);
            model.signed_in = Some(User::Anna);
        }
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
            let layer = if self.setup == Setup::App { layer.headers(HeaderConfig::default()) } else { layer };
            if self.setup.is_bound() { layer.subject(signed_in_user) } else { layer }
        });
        let site = if self.setup.migrates() { site.migrating() } else { site };
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
                    Arrival::AtOnce => self.apply(&exchange),
                    Arrival::Later => {
                        if self.tabs[tab].replace(exchange).is_some() {
                            self.tally.note("responses lost");
                        }
                    }
                }
            }
            Step::Apply(tab) => {
                if let Some(exchange) = self.tabs[tab].take() {
                    self.apply(&exchange);
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
                self.browser.jar.evict(name);
                match name {
                    IDENTITY => (self.held.identity, self.migrated.identity) = (None, None),
                    OPT_OUT => {
                        (self.held.record, self.held.record_until) = (None, None);
                        (self.migrated.record, self.migrated.record_until) = (None, None);
                    }
                    _ => self.held = Held::default(),
                }
                self.tally.note("evictions");
            }
            Step::SetConsent(consent) => self.consent = consent,
            Step::OptOut(user) => self.operator().opt_out(user),
            Step::OptIn(user) => self.operator().opt_in(user),
            Step::SetMode(mode) => self.operator().mode = mode,
            Step::PutBackSdk => {
                self.browser.jar.put(SDK, &self.sdk_value);
                self.tally.note(match self.current() {
                    Current::Login(MIGRATED_LOGIN) => "SDK's cookie put back",
                    Current::Login(_) => "SDK's cookie put back after a login",
                    Current::NoLogin => "SDK's cookie put back after a logout",
                });
            }
        }
        Ok(())
    }

    async fn wait(&mut self, duration: Duration) {
        self.clock.advance(duration);
        self.browser.jar.wait_until(self.clock.now());
        // Slow answers of the operator arrive now.
        tokio::time::advance(SLOW_DELAY).await;
        run_tasks().await;
    }

    /// Sends a request and checks the rules. The response does not change the jar.
    async fn send(&mut self, page: Page, node: usize) -> Result<Exchange, TestCaseError> {
        self.requests += 1;
        let page = self.setup.page(page);
        let mut cookies = self.browser.cookies(self.setup);
        if page == Page::TwoAnchors && cookies.anchor.is_none() {
            // The request's only anchor is foreign.
            cookies.login = None;
        }
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
        let visit = self.nodes[node].site.send(self.request(page, &cookies), handler).await;
        run_tasks().await;

        let saw = visit.saw();
        if page == Page::GenerateAgain && saw != "absent" {
            effect = Effect::default();
        }
        if self.consent == Consent::Withdrawn {
            // Any login ends, also the one that the page begins. Without cookies and without an update nothing changes.
            let ends = cookies.has_state() || page == Page::TwoAnchors || effect.current.is_some();
            effect.current = ends.then_some(Current::NoLogin);
        }
        let headers = visit.response.headers();
        let headers = if self.setup == Setup::App { as_cookies(headers) } else { headers.clone() };
        let writes = self.note_origins(&headers, node, &cookies, &saw, effect);
        if self.browser.has_equal_tags() {
            return Err(TestCaseError::reject("two logins have the same tag"));
        }
        let (number, written) = (self.requests, in_words(&headers));
        let exchange = Exchange { number, page, node, cookies, saw, effect, writes, written, headers };
        self.count(&exchange);
        let may_call = self.consent == Consent::Granted || self.operator().refresh_calls == calls;
        prop_assert!(may_call, "a refresh call without consent");
        self.check(&exchange)?;
        Ok(exchange)
    }

    fn request(&self, page: Page, cookies: &Cookies) -> Request<()> {
        let mut request = self.browser.request(cookies, self.setup);
        let headers = request.headers_mut();
        if page == Page::TwoAnchors {
            let other = FOREIGN_ANCHOR;
            if self.setup == Setup::App {
                headers.append(LOGIN_HEADER.as_str(), HeaderValue::from_static(other));
            } else {
                headers.append(COOKIE, HeaderValue::try_from(format!("{ANCHOR}={other}")).unwrap());
            }
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
            // Without an anchor, what is migrated later would count.
            Page::ClearSiteData => {
                return (self.setup.migrates().then(EuidUpdate::logout), Effect::logout());
            }
            Page::SignIn(user) => return (None, Effect { current: None, session: Session::Begun(user) }),
            Page::SignOut => return (None, Effect { current: None, session: Session::Ended }),
            Page::Login(user) => (user, Session::Begun(user)),
            Page::GenerateAgain => match self.signed_in {
                Some(user) if self.setup.generating_again_signs_in() => (user, Session::Begun(user)),
                Some(user) => (user, Session::Kept),
                None => return (None, Effect::default()),
            },
        };
        let (login, update) = match self.operator().generate(user) {
            Generated::Identity(login, identity) => (login, EuidUpdate::login(identity)),
            Generated::OptedOut(login) => (login, EuidUpdate::opt_out()),
        };
        let update = if self.setup.is_bound() { update.subject(user.id()) } else { update };
        (Some(update), Effect { current: Some(Current::Login(login)), session })
    }

    /// Notes the origins of the cookie values that a response sets. Returns its changes.
    fn note_origins(
        &mut self,
        headers: &HeaderMap,
        node: usize,
        cookies: &Cookies,
        saw: &str,
        effect: Effect,
    ) -> Writes {
        let mut writes = Writes::of(headers);
        let key = self.nodes[node].seals_under();
        let begun = match effect.current {
            Some(Current::Login(login)) => Some(login),
            Some(Current::NoLogin) | None => None,
        };
        for name in &writes.set {
            if name.starts_with(&*IDENTITY) {
                // A page writes the pair that its handler saw, or migrates one that is unavailable.
                let first = |login: Login| self.operator().login(login).first;
                let seen = || self.pair_in(saw).or_else(|| first(MIGRATED_LOGIN).filter(|_| *name == MIGRATED));
                let pair = begun.and_then(first).or_else(seen).unwrap();
                let login = self.operator().pair(pair).login;
                let user = self.bound_to(name, login, cookies);
                writes.identity = Some(IdentityOrigin { login, user, pair, key });
            } else {
                let until = self.clock.now().saturating_add(OPT_OUT_REMEMBERED);
                let login = begun.or(cookies.login).unwrap();
                let user = self.bound_to(name, login, cookies);
                writes.record = Some(RecordOrigin { login, user, until, key });
            }
        }
        self.browser.note(headers, &writes, begun);
        writes
    }

    /// Returns the user of a cookie that a response sets. A refresh keeps the user of the migrated identity.
    fn bound_to(&self, name: &str, login: Login, cookies: &Cookies) -> User {
        if name == MIGRATED || name == MIGRATED_OPT_OUT {
            cookies.identity().map(|identity| identity.user).or(self.signed_in).unwrap()
        } else {
            self.operator().login(login).user
        }
    }

    /// Returns the pair whose token a handler saw.
    fn pair_in(&self, saw: &str) -> Option<Pair> {
        let token = saw.strip_prefix("active(")?.strip_suffix(')')?;
        Some(self.operator().pair_of(token).0)
    }

    /// Lets a response reach the browser.
    fn apply(&mut self, exchange: &Exchange) {
        let Exchange { number, page, cookies, effect, writes, headers, .. } = exchange;
        self.browser.apply(headers, writes, self.setup);
        self.tally.note("applied");
        match effect.session {
            Session::Kept => {}
            Session::Ended => self.signed_in = None,
            Session::Begun(user) => {
                if self.signed_in.replace(user).is_some_and(|before| before != user) {
                    self.tally.note("applied: change of user");
                }
            }
        }
        let is_late = *number <= self.changed_at;
        if is_late {
            self.tally.note("applied late: sent before the current state began");
        }
        let now = self.clock.now();
        let lasts = |lifetime| if self.setup == Setup::App { Duration::MAX } else { lifetime };
        let record_until = writes.record.map(|_| now.saturating_add(lasts(OPT_OUT_REMEMBERED)));
        let login = cookies.login.filter(|_| *page != Page::TwoAnchors);
        if let Some(current) = effect.current {
            (self.current, self.changed_at) = (current, self.requests);
            let lifetime = if writes.record.is_some() { OPT_OUT_REMEMBERED } else { ANCHOR_LIFETIME };
            // On a site that migrates, the anchor `none` stays after a logout.
            let has_anchor = writes.anchor.is_some() || self.setup.migrates();
            let anchor_until = has_anchor.then(|| now.saturating_add(lasts(lifetime)));
            self.held = Held { anchor_until, identity: writes.identity, record: writes.record, record_until };
            self.tally.note(match (current, page) {
                (Current::Login(_), _) if writes.record.is_some() => "applied: opt-out stated at a login",
                (Current::Login(_), Page::GenerateAgain) => "applied: login by generating again",
                (Current::Login(_), _) => "applied: login",
                (Current::NoLogin, Page::Logout) => "applied: logout",
                (Current::NoLogin, Page::ClearSiteData) => "applied: Clear-Site-Data",
                (Current::NoLogin, _) => "applied: withdrawal",
            });
        } else if let (Some(login), Current::Login(current)) = (login, self.current)
            && login == current
        {
            self.hold(exchange, record_until);
        } else if is_late {
            self.count_late(exchange);
        }
        self.hold_migrated(exchange, record_until);
    }

    /// Notes what a response has changed of the migrated identity.
    fn hold_migrated(&mut self, exchange: &Exchange, record_until: Option<UnixMillis>) {
        let Exchange { page, writes, .. } = exchange;
        if *page == Page::ClearSiteData {
            self.migrated = Held::default();
        }
        if writes.sets(&MIGRATED) {
            self.migrated.identity = writes.identity;
            self.count_migration(exchange);
        } else if writes.removes(Some(&MIGRATED)) {
            self.migrated.identity = None;
        }
        if writes.sets(&MIGRATED_OPT_OUT) {
            (self.migrated.record, self.migrated.record_until) = (writes.record, record_until);
            self.tally.note("applied: opt-out found for the migrated identity");
        } else if writes.removes(Some(&MIGRATED_OPT_OUT)) {
            (self.migrated.record, self.migrated.record_until) = (None, None);
        }
    }

    /// Notes what a response of the current login has changed.
    fn hold(&mut self, exchange: &Exchange, record_until: Option<UnixMillis>) {
        let Exchange { cookies, writes, .. } = exchange;
        let is_renewed = self.held.identity.map(|held| held.pair) != cookies.identity().map(|sent| sent.pair);
        if writes.identity.is_some() {
            if is_renewed {
                self.tally.note("applied: older pair of the current login");
            }
            if self.held.record.is_some() {
                self.tally.note(if self.held.record_until <= Some(self.clock.now()) {
                    "applied: pair of the current login, after the record of its opt-out expired"
                } else {
                    "applied: pair of the current login, beside the record of its opt-out"
                });
            }
            self.held.identity = writes.identity;
        } else if writes.removes(cookies.own_name(IDENTITY).as_deref()) {
            if is_renewed && self.held.identity.is_some() {
                self.tally.note("applied: removal, by an older answer for the current login");
            }
            let ends = self.held.identity.map(|held| self.operator().pair(held.pair).times.refresh_expires);
            if ends.is_some_and(|ends| ends < self.clock.now()) {
                self.tally.note("applied: removal of an identity that ended");
            }
            self.held.identity = None;
        }
        if writes.record.is_some() {
            self.tally.note(match self.held.record {
                Some(_) => "applied: opt-out found by a refresh again",
                None => "applied: opt-out found by a refresh",
            });
            (self.held.record, self.held.record_until) = (writes.record, record_until);
        } else if writes.removes(cookies.own_name(OPT_OUT).as_deref()) {
            self.tally.note("applied: removal of a record that ended");
            (self.held.record, self.held.record_until) = (None, None);
        }
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
                self.apply(&exchange);
            }
            let recovered = self.held().identity.is_some() || self.has_record();
            prop_assert!(recovered || self.signed_in.is_none(), "not recovered: {:?}", self.current());
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

/// The login of the identity in the SDK's cookie: the first, on a site that migrates.
const MIGRATED_LOGIN: Login = 0;
pub(crate) const OPT_OUT_REMEMBERED: Duration = Duration::from_secs(72 * 3600);
const ANCHOR_LIFETIME: Duration = Duration::from_secs(400 * 86_400);
const KEYS: [&str; 3] = [
    "gHQfqxmZxOfkd2oHczx9ZwNYfSQtoMFhSrbxXmG0eA4=",
    "4b6Dy3mqEQl6uoWNsl4dVoFvp4ZV0xkOIC8bVG6m1qM=",
    "Q0LGcPqUkGHRkl0FQ3XKDYzfvwnuoIwOKd5rTwrFG2E=",
];
