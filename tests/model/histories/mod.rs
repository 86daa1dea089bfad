//! One browser, three nodes, an operator and a clock, moved by steps in any order.
//!
//! 1. A request is served when it is sent, with the cookies of that moment. Its answer comes at once,
//!    or waits with its tab until a step applies it to the jar, or never does.
//! 2. What counts is what the browser was told last, by the last login, logout, withdrawal or opt-out
//!    whose answer was applied: [`Current`], kept without a look at our cookies. What a handler sees is
//!    held against that.
//! 3. Where each value of our cookies came from is noted when it is minted. By that it is known when a
//!    token *must* be seen, so showing nothing is no way to pass, and what a late answer has cost.

mod judge;
mod operator;
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

use self::operator::{Generated, Line, Login, MINUTES, Mode, Operator, Pair, Process, SLOWLY, User};
use self::steps::{NODES, Page, TABS, When};
pub(crate) use self::steps::{Setup, Step, steps};
pub(crate) use self::tally::Tally;
use crate::support::{ANCHOR, IDENTITY, Jar, OPT_OUT, START, Site};

/// What the browser was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Current {
    Nobody,
    Login(Login),
    /// Stated at a login; the anchor that says so.
    OptedOut {
        until: UnixMillis,
        anchor: String,
    },
}

/// What an answer says of who is there.
#[derive(Clone, Debug, Default)]
struct Told {
    current: Option<Current>,
    session: Session,
}

/// What an answer makes of the site's own session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Session {
    #[default]
    Kept,
    Begun(User),
    Ended,
}

/// A request and its answer, which may be on its way still.
struct Exchange {
    number: usize,
    page: Page,
    node: usize,
    brought: Brought,
    /// What the handler saw.
    saw: String,
    told: Told,
    /// What the answer does to our cookies, in words.
    writes: String,
    headers: HeaderMap,
}

/// Where a value of the identity cookie came from.
#[derive(Clone, Debug)]
struct Minted {
    login: Login,
    pair: Pair,
    key: usize,
    /// The anchor that names its lineage.
    anchor: String,
}

/// Where a record of an opt-out came from.
#[derive(Clone, Debug)]
struct Recorded {
    login: Login,
    until: UnixMillis,
    key: usize,
}

/// What the browser's cookies of a moment are.
struct Brought {
    identity: Option<Minted>,
    record: Option<Recorded>,
    anchor: Option<String>,
    /// The login that the anchor names.
    names: Option<Login>,
}

struct Node {
    process: Process,
    /// How far it is in the rotation of its keys.
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
    /// The answers that tabs wait for.
    tabs: [Option<Exchange>; TABS],
    /// How many requests have been sent.
    sent: usize,
    current: Current,
    signed_in: Option<User>,
    /// How many requests had been sent when the browser was told what counts.
    told_at: usize,
    /// The login whose opt-out the browser has been told.
    opted_out: Option<Login>,
    /// A late answer has cost the visitor their pair.
    lost: bool,
    minted: BTreeMap<String, Minted>,
    recorded: BTreeMap<String, Recorded>,
    anchors: BTreeMap<String, Login>,
    tally: Tally,
}

impl Model {
    /// Plays `steps` from the beginning, and then heals what can be healed.
    pub(crate) fn play(steps: &[Step], setup: Setup, tally: &RefCell<Tally>) -> Result<(), TestCaseError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut model = Self::new(setup, tally.take());
        let outcome = runtime.block_on(async {
            model.tally.note("cases");
            for step in steps {
                model.step(*step).await?;
            }
            if setup.must_hold() { model.heal().await } else { Ok(()) }
        });
        tally.replace(model.tally);
        outcome
    }

    /// The failing case without the steps that it fails without, and how it fails. Proptest leaves those
    /// that became idle when others were shortened.
    pub(crate) fn shortest(mut steps: Vec<Step>, setup: Setup) -> (Vec<Step>, String) {
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
            sent: 0,
            current: Current::Nobody,
            signed_in: None,
            told_at: 0,
            opted_out: None,
            lost: false,
            minted: BTreeMap::new(),
            recorded: BTreeMap::new(),
            anchors: BTreeMap::new(),
            tally,
        };
        model.nodes = (0..NODES).map(|number| model.start(number, 0)).collect();
        model
    }

    /// A new process for a node. The second seals anew what is under an old key, the last refreshes
    /// beside its pages.
    fn start(&mut self, number: usize, stage: usize) -> Node {
        let process = self.processes;
        self.processes += 1;
        let keys = keys(stage);
        let line = Line { process, operator: Arc::clone(&self.operator) };
        let mode = if number == 2 { RefreshMode::Concurrent } else { RefreshMode::Blocking };
        let site = Site::with_keys(keys.clone(), line).configured(|layer| {
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
            Step::Send { tab, page, node, answer } => {
                let answered = self.send(page, node).await?;
                match answer {
                    When::AtOnce => self.apply(answered),
                    When::Later => {
                        if self.tabs[tab].replace(answered).is_some() {
                            self.tally.note("answers lost");
                        }
                    }
                }
            }
            Step::Apply(tab) => {
                if let Some(answer) = self.tabs[tab].take() {
                    self.apply(answer);
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
            Step::Choose(consent) => self.consent = consent,
            Step::OptOut(user) => self.operator().opt_out(user),
            Step::OptIn(user) => self.operator().opt_in(user),
            Step::OperatorIs(mode) => self.operator().mode = mode,
        }
        Ok(())
    }

    async fn wait(&mut self, duration: Duration) {
        self.clock.advance(duration);
        self.jar.wait_until(self.clock.now());
        // What the operator is slow with comes now.
        tokio::time::advance(SLOWLY).await;
        settle().await;
    }

    /// A request and its answer; the jar stays as it is.
    async fn send(&mut self, page: Page, node: usize) -> Result<Exchange, TestCaseError> {
        self.sent += 1;
        let page = self.setup.page(page);
        let brought = self.brought();
        let (update, mut told) = self.says(page);
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
        let asked = self.operator().asked;
        let visit = self.nodes[node].site.send(self.request(page), handler).await;
        settle().await;

        let saw = visit.saw();
        if page == Page::GenerateAgain && saw != "absent" {
            told = Told::default();
        }
        if self.consent == Consent::Withdrawn {
            // A login is not written then; whoever was there before has gone all the same. Where nothing
            // came and nothing is said, nothing ends.
            let came = brought.identity.is_some() || brought.anchor.is_some() || page == Page::TwoAnchors;
            told.current = (came || told.current.is_some()).then_some(Current::Nobody);
        }
        let (writes, headers) = (visit.writes(), visit.response.headers().clone());
        let mut exchange = Exchange { number: self.sent, page, node, brought, saw, told, writes, headers };
        self.mint(&mut exchange);
        self.count(&exchange);
        let silent = self.consent == Consent::Granted || self.operator().asked == asked;
        prop_assert!(silent, "the operator was asked without consent");
        self.judge(&exchange)?;
        Ok(exchange)
    }

    fn request(&self, page: Page) -> Request<()> {
        let mut jar = self.jar.clone();
        if self.setup == Setup::Uncompared
            && let Some(minted) = self.jar.value(IDENTITY).and_then(|value| self.minted.get(value))
        {
            jar.put(ANCHOR, &minted.anchor);
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

    /// What a page says to the layer, and what that comes to for the browser.
    fn says(&self, page: Page) -> (Option<EuidUpdate>, Told) {
        let (user, session) = match page {
            Page::Look | Page::TwoAnchors => return (None, Told::default()),
            Page::Logout => return (Some(EuidUpdate::logout()), Told::nobody()),
            Page::ClearSiteData => return (None, Told::nobody()),
            Page::SignIn(user) => return (None, Told { current: None, session: Session::Begun(user) }),
            Page::SignOut => return (None, Told { current: None, session: Session::Ended }),
            Page::Login(user) => (user, Session::Begun(user)),
            Page::GenerateAgain => match self.signed_in {
                Some(user) if self.setup.generating_again_signs_in() => (user, Session::Begun(user)),
                Some(user) => (user, Session::Kept),
                None => return (None, Told::default()),
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
        (Some(update), Told { current: Some(current), session })
    }

    /// Notes where the values come from that an answer sets.
    fn mint(&mut self, exchange: &mut Exchange) {
        let Exchange { node, brought, saw, told, headers, .. } = exchange;
        let mut answered = Jar::default();
        answered.apply(headers);
        let (identity, anchor) = (answered.value(IDENTITY), answered.value(ANCHOR).map(str::to_owned));
        let key = self.nodes[*node].seals_under();
        let minted = match (&mut told.current, &brought.identity) {
            (Some(Current::Login(login)), _) => {
                let anchor = anchor.unwrap();
                self.anchors.insert(anchor.clone(), *login);
                Minted { login: *login, pair: self.operator().login(*login).first, key, anchor }
            }
            (Some(Current::OptedOut { anchor: stated, .. }), _) => return *stated = anchor.unwrap(),
            (None, Some(old)) => {
                if let Some(record) = answered.value(OPT_OUT) {
                    let until = self.clock.now().saturating_add(OPT_OUT_REMEMBERED);
                    self.recorded.insert(record.to_owned(), Recorded { login: old.login, until, key });
                }
                // What a page writes it has shown; an identity that is removed has no value.
                Minted { pair: self.pair_in(saw).unwrap_or(old.pair), key, ..old.clone() }
            }
            (Some(Current::Nobody), _) | (None, None) => return,
        };
        if let Some(identity) = identity {
            self.minted.insert(identity.to_owned(), minted);
        }
    }

    /// The pair whose token a handler saw.
    fn pair_in(&self, saw: &str) -> Option<Pair> {
        let token = saw.strip_prefix("active(")?.strip_suffix(')')?;
        Some(self.operator().pair_of(token).0)
    }

    /// An answer reaches the browser.
    fn apply(&mut self, exchange: Exchange) {
        let (was_whole, was_lost) = (self.is_whole(), self.lost);
        let Exchange { number, page, brought, saw, told, headers, .. } = exchange;
        let found_opted_out = brought.names.filter(|_| told.current.is_none() && saw == "opted_out");
        self.jar.apply(&headers);
        let late = number <= self.told_at;
        self.tally.note("applied");
        if late {
            self.tally.note("applied late: asked before what counts was told");
        }
        match told.session {
            Session::Kept => {}
            Session::Ended => self.signed_in = None,
            Session::Begun(user) => {
                if self.signed_in.replace(user).is_some_and(|before| before != user) {
                    self.tally.note("applied: change of user");
                }
            }
        }
        if let Some(current) = told.current {
            (self.current, self.told_at, self.opted_out, self.lost) = (current, self.sent, None, false);
            self.tally.note(match (&self.current, page) {
                (Current::Login(_), Page::GenerateAgain) => "applied: login by generating again",
                (Current::Login(_), _) => "applied: login",
                (Current::OptedOut { .. }, _) => "applied: opt-out stated at a login",
                (Current::Nobody, Page::Logout) => "applied: logout",
                (Current::Nobody, Page::ClearSiteData) => "applied: Clear-Site-Data",
                (Current::Nobody, _) => "applied: withdrawal",
            });
            if was_lost {
                self.tally.note(match (self.is_whole(), page) {
                    (true, Page::GenerateAgain) => "lost pair: healed by generating again",
                    (true, _) => "lost pair: healed by another login",
                    (false, _) => "lost pair: not missed, its login ended",
                });
            }
        }
        if was_whole && !self.is_whole() && late && told.session == Session::Kept {
            self.lost = true;
            self.tally.note(match (&self.current, self.jar.value(IDENTITY)) {
                (Current::Login(login), _) if self.login() != Some(*login) => {
                    "lost pair, by a late answer that generated for who had left"
                }
                (Current::Login(_), None) if found_opted_out.is_some() => {
                    "lost pair, by a late opt-out that a refresh had found"
                }
                (Current::Login(_), Some(_)) => "lost pair, by a late refresh",
                (Current::Login(_), None) => "lost pair, by a late removal",
                _ => "lost pair, by a late opt-out or withdrawal that was stated",
            });
        }
        if let (Some(found), Current::Login(login)) = (found_opted_out, &self.current)
            && found == *login
        {
            self.opted_out = Some(found);
            self.tally.note("applied: opt-out found by a refresh");
        }
    }

    /// Whether the jar holds identity and anchor of the login that counts for who is signed in.
    fn is_whole(&self) -> bool {
        let Brought { identity, names, .. } = self.brought();
        self.login().is_some() && names == self.login() && identity.map(|identity| identity.login) == names
    }

    fn brought(&self) -> Brought {
        let anchor = self.jar.value(ANCHOR).map(str::to_owned);
        let names = anchor.as_ref().and_then(|anchor| self.anchors.get(anchor)).copied();
        let identity = self.jar.value(IDENTITY).and_then(|value| self.minted.get(value)).cloned();
        let record = self.jar.value(OPT_OUT).and_then(|value| self.recorded.get(value)).cloned();
        Brought { identity, record, anchor, names }
    }

    /// No answer waits any more, the operator works, the visitor consents: whoever is signed in is
    /// `Active` or has opted out, once a page has generated again where they were `Absent`.
    async fn heal(&mut self) -> Result<(), TestCaseError> {
        self.tabs = Default::default();
        self.consent = Consent::Granted;
        self.operator().mode = Mode::Works;
        self.wait(5 * MINUTES).await;
        for node in 0..NODES {
            for page in [Page::GenerateAgain, Page::Look] {
                let answer = self.send(page, node).await?;
                self.apply(answer);
            }
            let nobody = self.signed_in.is_none();
            let out = self.opted_out.is_some() || matches!(self.current, Current::OptedOut { .. });
            prop_assert!(self.is_whole() || nobody || out, "not healed: {:?}", self.current);
        }
        Ok(())
    }
}

impl Told {
    fn nobody() -> Self {
        Self { current: Some(Current::Nobody), session: Session::Ended }
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

/// Lets what runs beside come to an end, on a clock that stands.
async fn settle() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

/// The keys of a stage of their rotation, by number, newest first: old, then old and new, then new and
/// old, then new, and so on round three keys.
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
