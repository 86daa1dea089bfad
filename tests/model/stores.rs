//! Explores exhaustively what a client sees of a site whose identities are in a store, by handle: two nodes, one store,
//! and answers of both that arrive late.
//!
//! 1. A *state* is what the client keeps, the store, what each node owes and remembers, and all that is under way: the
//!    calls of refreshes and responses, writes whose answer was lost, and responses to the client.
//! 2. The engine is the real one. The host, the store, the operator and the client are models. Between two calls
//!    everything else can happen. A lost write takes effect at once, at any later time, or never.
//! 3. Random bytes are compared by their origin: a login by its number, a version by the request that wrote it.
//! 4. In each state the next page is asked for what it sees, on each node. See [`What`] for what is wrong, and
//!    [`What::is_known`] for what may be.
//! 5. With a rule switched off, by a host that does not keep it, the same exploration finds what the rule is there for.
//!
//! `EXPLORE_STORES=2,4,2,1 cargo test --release --test model stores -- --nocapture` explores every set-up with that
//! many logins, requests, requests or responses under way, and faults.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash};
use std::rc::Rc;
use std::time::Duration;

use euid_core::clock::UnixMillis;
use euid_core::engine::{
    Change, Decision, Engine, Finish, Loaded, NewLogin, RefreshCandidate, RequestContext, Save, SignedIn, Step,
    StoreAnswer, StoreCall, StoreWrite, StoredRefresh, Unavailable,
};
use euid_core::error::{ErrorKind, EuidError};
use euid_core::identity::{Identity, IdentityTimes};
use euid_core::store::{Put, StoreKey, StoreMode, Stored, When};
use euid_core::{Consent, CookieKey, Euid, HeaderConfig, KeyRing, Refreshed};
use http::{HeaderMap, Method, StatusCode};

use crate::client::{
    Cookie, Effect, Kept, Names, Person, Response, Slot, Told, effects, has_equal_tags, request, user,
};
use crate::search::{self, Findings, Model};
use crate::support::keeper::{LOGIN_HEADER, cookie_tag, hex_tag};
use crate::support::{ANCHOR, START, scope};

/// What is explored: bounds, features of the site, and the rule that is switched off.
#[derive(Clone, Copy, Debug)]
struct Setup {
    logins: usize,
    requests: u8,
    under_way: usize,
    /// Calls to the store, and with `lost_answers` answers to the client, that are lost.
    faults: usize,
    /// How often a refresh becomes due.
    periods: u8,
    /// How many logins opt out at the operator.
    opt_outs: usize,
    /// The first login was made without a store.
    sealed: bool,
    /// The client is an app, which keeps headers instead of cookies. It is killed once, and then has what it saved.
    app: bool,
    /// A response to the client may never arrive.
    lost_answers: bool,
    /// Once, a replica is promoted that lacks the last writes.
    fail_over: bool,
    /// Identities are bound to users, and others sign in.
    bound: bool,
    /// Nodes remember records.
    remembers: bool,
    /// The store's calls that read may fail, too.
    failing_reads: bool,
    roll: Roll,
    off: Option<Rule>,
}

/// How a site begins to use its store, or stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roll {
    No,
    Out,
    Back,
}

/// A rule that a host can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A write takes place on its condition only.
    Conditions,
    /// The end of a login is a record.
    EndIsRecord,
    /// A login does not end the record of the one that it replaces.
    LateEnd,
    /// A refresh begins with the lease.
    Lease,
    /// The end of a login that the store did not confirm is kept.
    Owed,
    /// An opt-out is kept at the client.
    OptOutAtClient,
    /// A page of another user leaves the record.
    OthersPages,
    /// All nodes read the store before one of them writes it, and still when none writes it.
    TwoSteps,
    /// Nodes read the store until the refreshes have moved what is there to the client.
    MovedOut,
    /// An app saves before it reports a logout.
    LogoutSaved,
    /// A node whose write of a login was not confirmed seals the identity.
    FallBack,
}

/// How a node uses the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Mode {
    Without,
    Reads,
    Writes,
}

/// Something wrong in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A token of a login that does not count.
    WrongToken,
    /// A token of a login whose opt-out was told.
    TokenAfterOptOut,
    /// The login that counts has no pair, though nothing has begun to end it.
    LostPair,
    /// An opt-out that was told is not told any more.
    ForgottenOptOut,
    /// A page shows an opt-out that is not that of the login that counts.
    WrongOptOut,
    /// A copy of the handle of a login whose logout was told shows its token.
    EndedShown,
    /// The operator was called more than once for one identity and period, and once more for each broken lease.
    TooManyCalls,
    /// It was called once more, as a lease broke.
    CallsOfBrokenLease,
    /// A record that no request can end any more, until its time.
    Orphan,
    /// The same of a login whose response was never made.
    Unissued,
}

impl What {
    /// Whether the design admits it: two logins at once from one client, or a client that never sends a handle again,
    /// leave records in the store.
    fn is_known(self) -> bool {
        matches!(self, Self::CallsOfBrokenLease | Self::Orphan | Self::Unissued)
    }
}

/// The login, or the opt-out, that counts for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Current {
    Login(u8),
    OptedOut(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Fault {
    Write,
    Read,
    Answer,
}

/// The request that made a write, and the number of the write in it.
type Version = (u8, u8);

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Says {
    Ended,
    Identity {
        /// When it was issued.
        period: u8,
        /// The moment in which it was leased.
        leased: Option<u32>,
        previous: Option<u8>,
    },
}

#[derive(Clone, Debug)]
struct Record {
    stored: Stored,
    login: u8,
    version: Version,
    says: Says,
}

#[derive(Clone, Debug)]
struct Write {
    when: When,
    record: Record,
}

type Records = BTreeMap<u8, Record>;

#[derive(Clone, Debug)]
struct Node {
    mode: Mode,
    owed: Vec<Write>,
    remembered: Option<Record>,
}

/// A request under way.
#[derive(Clone)]
struct Request {
    number: u8,
    node: usize,
    /// The node's, when the request came.
    mode: Mode,
    begun: (u8, u32),
    user: Option<u8>,
    /// What it brought.
    brought: Vec<Value>,
    read: Option<RecordKey>,
    /// The answers to its calls.
    answers: Vec<Said>,
    writes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Said {
    Got(Option<RecordKey>),
    Done,
    Refused,
    Unavailable,
    Waited,
    NewPair(u8),
    OptedOut,
}

#[expect(clippy::large_enum_variant, reason = "few are kept, and each step clones them")]
#[derive(Clone)]
enum UnderWay {
    Refresh {
        request: Request,
        login: u8,
        candidate: Rc<RefreshCandidate>,
        stored: Option<StoredRefresh>,
        call: StoreCall,
    },
    Save {
        request: Request,
        save: Box<Save>,
        /// More calls, of a host that breaks a rule.
        more: Vec<StoreCall>,
        told: Option<Told>,
    },
    Response {
        response: Response,
        /// The login whose record the response ends.
        ends: Option<u8>,
        is_partial: bool,
    },
}

#[derive(Clone)]
struct World {
    kept: Kept,
    saved: Kept,
    restarted: bool,
    under_way: Vec<UnderWay>,
    store: Records,
    replica: Records,
    failed_over: bool,
    /// Writes whose answer was lost, and which may still take effect.
    late: Vec<Write>,
    nodes: [Node; 2],
    current: Option<Current>,
    /// Whose opt-out was told.
    opted_out: BTreeSet<u8>,
    /// Who has opted out at the operator.
    out_at_operator: BTreeSet<u8>,
    /// What a request has begun to end.
    ending: BTreeSet<u8>,
    /// Whose identity was removed from the client, as another user was signed in.
    removed: BTreeSet<u8>,
    /// Whose logout was told.
    ended: BTreeSet<u8>,
    issued: BTreeSet<u8>,
    logins: Vec<Names>,
    keys: Vec<StoreKey>,
    requests: u8,
    period: u8,
    /// How often all leases have expired.
    leases: u32,
    faults: Vec<Fault>,
    calls: BTreeMap<(u8, u8), u8>,
    /// How often a lease may have expired under its holder.
    broke: u8,
    user: Option<u8>,
}

/// A record, for comparison: its login, its version, the pair with its lease and the login before; `None` if it is an
/// end.
type RecordKey = (u8, Version, Option<(u8, bool, Option<u8>)>);

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
enum UnderWayKey {
    Request(RequestKey, Option<Told>, bool),
    Response(Vec<Value>, Option<Told>, Option<u8>, bool),
}

type RequestKey = (u8, usize, Mode, (u8, bool), Option<u8>, Vec<Value>, Option<RecordKey>, Vec<Said>, u8);

/// What the client keeps in a slot, for comparison, and when a sealed pair was issued.
type Value = (Cookie, Option<u8>);

struct Explorer {
    setup: Setup,
    engines: [Engine; 3],
    /// The name of each version.
    versions: RefCell<HashMap<[u8; 16], Version>>,
    /// When the pair in each sealed value was issued.
    issued: RefCell<HashMap<Rc<str>, u8>>,
}

impl Model for Explorer {
    type State = World;
    type Key = u128;
    type Violation = (What, Vec<Fault>, bool);

    fn next(&self, world: &World) -> Vec<(String, World)> {
        let mut all = Vec::new();
        if world.requests < self.setup.requests && world.under_way.len() < self.setup.under_way {
            for node in 0..world.nodes.len() {
                self.begin_all(world, node, &mut all);
            }
        }
        for number in 0..world.under_way.len() {
            self.go_on(world, number, &mut all);
        }
        self.store_steps(world, &mut all);
        self.client_steps(world, &mut all);
        self.node_steps(world, &mut all);
        all
    }

    fn has_equal_tags(&self, world: &World) -> bool {
        has_equal_tags(&world.logins)
    }

    /// The nodes are alike, so two states that differ by their order alone are equal.
    fn key(&self, world: &World) -> u128 {
        self.key_in_order(world, [0, 1]).min(self.key_in_order(world, [1, 0]))
    }

    fn judge(&self, world: &World) -> Vec<Self::Violation> {
        let mut all = BTreeSet::new();
        for node in 0..world.nodes.len() {
            all.extend(self.judge_page(world, node));
            if self.shows_ended(world, node) {
                all.insert(What::EndedShown);
            }
        }
        let calls = world.calls.values().max().filter(|calls| **calls > 1);
        let all_stored = self.setup.roll == Roll::No && !world.failed_over && world.faults.is_empty();
        if let Some(calls) = calls.filter(|_| all_stored) {
            all.insert(if *calls > world.broke + 1 { What::TooManyCalls } else { What::CallsOfBrokenLease });
        }
        all.extend(orphans(world));
        all.into_iter().map(|what| (what, world.faults.clone(), world.broke > 0)).collect()
    }
}

impl Explorer {
    fn new(setup: Setup) -> Self {
        let ring = KeyRing::new([CookieKey::generate().unwrap()]).unwrap();
        let engine = Engine::new(ring).with_scope(scope()).with_refresh_jitter(Duration::ZERO);
        let engine = if setup.app { engine.with_headers(HeaderConfig::default()) } else { engine };
        let engines =
            [engine.clone(), engine.clone().with_store(StoreMode::ReadOnly), engine.with_store(StoreMode::ReadWrite)];
        Self { setup, engines, versions: RefCell::default(), issued: RefCell::default() }
    }

    fn engine(&self, mode: Mode) -> &Engine {
        &self.engines[mode as usize]
    }

    fn start(&self) -> World {
        let mode = if self.setup.roll == Roll::Out { Mode::Without } else { Mode::Writes };
        let node = || Node { mode, owed: Vec::new(), remembered: None };
        let mut world = World {
            kept: Kept::new(),
            saved: Kept::new(),
            restarted: false,
            under_way: Vec::new(),
            store: Records::new(),
            replica: Records::new(),
            failed_over: false,
            late: Vec::new(),
            nodes: [node(), node()],
            current: None,
            opted_out: BTreeSet::new(),
            out_at_operator: BTreeSet::new(),
            ending: BTreeSet::new(),
            removed: BTreeSet::new(),
            ended: BTreeSet::new(),
            issued: BTreeSet::new(),
            logins: Vec::new(),
            keys: Vec::new(),
            requests: 0,
            period: 0,
            leases: 0,
            faults: Vec::new(),
            calls: BTreeMap::new(),
            broke: 0,
            user: None,
        };
        if self.setup.sealed {
            let [node, _] = &mut world.nodes;
            let mode = std::mem::replace(&mut node.mode, Mode::Without);
            let mut all = Vec::new();
            self.begin_login(&world, 0, &mut all);
            let (_, mut logged_in) = all.swap_remove(0);
            while !logged_in.under_way.is_empty() {
                logged_in = self.arrive(&logged_in, 0);
            }
            logged_in.nodes[0].mode = mode;
            logged_in.requests = 0;
            world = logged_in;
        }
        world
    }

    // Requests

    /// Everything that a client can request of a node.
    fn begin_all(&self, world: &World, node: usize, all: &mut Vec<(String, World)>) {
        self.begin_page(world, node, all);
        self.begin_logout(world, node, all);
        if world.logins.len() < self.setup.logins {
            self.begin_login(world, node, all);
        }
    }

    fn begin_page(&self, world: &World, node: usize, all: &mut Vec<(String, World)>) {
        let mut next = world.clone();
        let request = self.request(&mut next, node);
        let label = |what: &str| format!("{}: page on {node} {:?}: {what}", request.number, request.mode);
        match self.begin(world, node, &self.context(world)) {
            Step::Load(load) => panic!("{load:?} again"),
            Step::Ready(decision) => {
                let others = self.setup.bound && world.user != named(world);
                if others && self.setup.off == Some(Rule::OthersPages) {
                    self.respond(&mut next, request.clone(), decision, Some(&Change::EndLogin), None);
                } else {
                    self.respond(&mut next, request.clone(), decision, None, None);
                }
                // A page that writes nothing makes no other state.
                if next.under_way.len() > world.under_way.len() {
                    all.push((label("ready"), next));
                }
            }
            Step::Refresh(candidate) => {
                let login = login_of(candidate.identity());
                let is_joined = world.under_way.iter().any(|under_way| match under_way {
                    UnderWay::Refresh { request: earlier, login: own, .. } => earlier.node == node && *own == login,
                    _ => false,
                });
                if is_joined {
                    self.respond(&mut next, request.clone(), candidate.postpone(now(world)), None, None);
                    if next.under_way.len() > world.under_way.len() {
                        all.push((label("joins a refresh"), next));
                    }
                    return;
                }
                let mut stored = candidate.stored().cloned();
                let call = match &mut stored {
                    Some(stored) => stored.start(self.engine(request.mode), leased_until(world), now(world)),
                    None => Ok(StoreCall::Refresh(candidate.identity().clone())),
                };
                let what = label("due");
                self.go_on_refresh(&mut next, request, login, &Rc::new(*candidate), stored, call);
                all.push((what, next));
            }
        }
    }

    fn begin_logout(&self, world: &World, node: usize, all: &mut Vec<(String, World)>) {
        let mut next = world.clone();
        next.ending.extend(named(world));
        let request = self.request(&mut next, node);
        let label = format!("{}: logout on {node} {:?}", request.number, request.mode);
        let decision = self.settled(world, node);
        self.respond(&mut next, request, decision, Some(&Change::EndLogin), Some(Told::Logout));
        all.push((label, next));
        if let Some(mut next) = self.read_fails(world, node) {
            let request = self.request(&mut next, node);
            next.ending.extend(named(world));
            let Some(decision) = self.unread(world, node) else { return };
            self.respond(&mut next, request, decision, Some(&Change::EndLogin), Some(Told::Logout));
            all.push((format!("logout on {node}, nothing read"), next));
        }
    }

    fn begin_login(&self, world: &World, node: usize, all: &mut Vec<(String, World)>) {
        let login = u8::try_from(world.logins.len() + 1).unwrap();
        let identity = pair(login, world.period).into();
        let begin = Change::Begin(NewLogin { identity, subject: None }.into());
        let opted_out = (Change::opt_out(), Told::OptOut(login));
        let kinds = [Some((begin, Told::Login(login))), Some(opted_out).filter(|_| self.setup.opt_outs > 0)];
        for (change, told) in kinds.into_iter().flatten() {
            let change = if self.setup.bound { change.subject(user(login)) } else { change };
            let mut decisions = vec![(world.clone(), self.settled(world, node))];
            if let Some(next) = self.read_fails(world, node)
                && let Some(decision) = self.unread(world, node)
            {
                decisions.push((next, decision));
            }
            for (mut next, decision) in decisions {
                let request = self.request(&mut next, node);
                let label = format!("{}: {told:?} on {node} {:?}", request.number, request.mode);
                // Its names are not known yet.
                next.logins.push(Names::default());
                next.keys.push(StoreKey::new([login; 32]));
                if matches!(told, Told::OptOut(_)) {
                    next.ending.extend(named(world));
                }
                self.respond(&mut next, request, decision, Some(&change), Some(told));
                all.push((label, next));
            }
        }
    }

    /// The request, which is counted.
    fn request(&self, world: &mut World, node: usize) -> Request {
        world.requests += 1;
        let Node { mode, .. } = world.nodes[node];
        let read = named(world).filter(|_| mode != Mode::Without);
        let read = read.and_then(|login| record_at(world, node, login)).map(|record| key_of(world, record));
        Request {
            number: world.requests,
            node,
            mode,
            begun: (world.period, world.leases),
            user: world.user,
            brought: self.values(world.kept.values()),
            read,
            answers: Vec::new(),
            writes: 0,
        }
    }

    /// What the application knows of the client's user.
    fn context(&self, world: &World) -> RequestContext<'static> {
        let user = match world.user {
            _ if !self.setup.bound => SignedIn::Unchecked,
            Some(login) => SignedIn::User(user(login)),
            None => SignedIn::NoUser,
        };
        RequestContext { consent: Consent::Granted, user, scope: None }
    }

    fn unloaded(&self, world: &World, node: usize, context: &RequestContext<'_>) -> Step {
        let headers = request(&world.kept, self.setup.app);
        self.engine(world.nodes[node].mode).begin(&Method::GET, &headers, context, || now(world))
    }

    fn begin(&self, world: &World, node: usize, context: &RequestContext<'_>) -> Step {
        let step = self.unloaded(world, node, context);
        let Step::Load(load) = step else { return step };
        let stored = login_of_key(world, load.key()).and_then(|login| record_at(world, node, login));
        let loaded = Ok(stored.map(|record| record.stored.clone()));
        self.resume(world, node, load.key(), &loaded, context)
    }

    fn resume(
        &self,
        world: &World,
        node: usize,
        key: &StoreKey,
        loaded: &Loaded,
        context: &RequestContext<'_>,
    ) -> Step {
        let headers = request(&world.kept, self.setup.app);
        self.engine(world.nodes[node].mode).resume(key, loaded, &Method::GET, &headers, context, || now(world))
    }

    /// The decision on a request whose record can't be read; `None` if it needs none.
    fn unread(&self, world: &World, node: usize) -> Option<Decision> {
        let context = self.context(world);
        let Step::Load(load) = self.unloaded(world, node, &context) else { return None };
        match self.resume(world, node, load.key(), &Err(Unavailable), &context) {
            Step::Ready(decision) => Some(decision),
            step => panic!("{step:?} without a record"),
        }
    }

    /// The decision on a request whose refresh is left to a later page.
    fn settled(&self, world: &World, node: usize) -> Decision {
        match self.begin(world, node, &self.context(world)) {
            Step::Ready(decision) => decision,
            Step::Refresh(candidate) => candidate.postpone(now(world)),
            Step::Load(load) => panic!("{load:?} again"),
        }
    }

    /// The state after a read has failed, if one may.
    fn read_fails(&self, world: &World, node: usize) -> Option<World> {
        let may_fail = self.setup.failing_reads && world.nodes[node].mode != Mode::Without && named(world).is_some();
        may_fail.then(|| self.fails(world, Fault::Read)).flatten()
    }

    /// The state after this fault, if there may be one more.
    fn fails(&self, world: &World, fault: Fault) -> Option<World> {
        let mut next = world.clone();
        next.faults.push(fault);
        next.faults.sort();
        (next.faults.len() <= self.setup.faults).then_some(next)
    }

    /// Writes the response, or begins to save what it needs.
    fn respond(
        &self,
        world: &mut World,
        request: Request,
        decision: Decision,
        asked: Option<&Change>,
        told: Option<Told>,
    ) {
        let engine = self.engine(request.mode);
        let (_, pending) = decision.start();
        let mut headers = HeaderMap::new();
        match engine.finish(pending, asked, StatusCode::OK, &mut headers, || now(world)) {
            Finish::Done(_) => self.send(world, &request, &headers, told),
            Finish::Save(save) => {
                if let Some(Told::Login(login)) = told {
                    let mut done = save.clone();
                    while done.call().is_some() {
                        done.answer(StoreAnswer::Put(Ok(Put::Done)));
                    }
                    engine.saved(done, &mut headers, || now(world));
                    self.learn_names(world, &headers, login);
                }
                let mut more = Vec::new();
                if self.setup.off == Some(Rule::LateEnd) && matches!(told, Some(Told::Login(_))) {
                    let (_, pending) = self.settled(world, request.node).start();
                    let asked = Some(&Change::EndLogin);
                    let end = engine.finish(pending, asked, StatusCode::OK, &mut HeaderMap::new(), || now(world));
                    if let Finish::Save(mut ends) = end {
                        while let Some(call) = ends.call().cloned() {
                            more.push(call);
                            ends.answer(StoreAnswer::Put(Ok(Put::Done)));
                        }
                    }
                }
                world.under_way.push(UnderWay::Save { request, save, more, told });
            }
        }
    }

    /// Learns from a response how its new login is named.
    fn learn_names(&self, world: &mut World, headers: &HeaderMap, login: u8) {
        let all = effects(&world.logins, headers, self.setup.app);
        let set = all.into_iter().find(|effect| effect.slot == Slot::Anchor).and_then(|effect| effect.value);
        let anchor = set.unwrap();
        let tag = hex_tag(&anchor);
        let tag = if self.setup.app { tag } else { cookie_tag(&tag) };
        let Step::Load(load) = self.with_handle(&anchor, world) else { panic!("a handle alone needs its record") };
        let number = usize::from(login) - 1;
        world.keys[number] = load.key().clone();
        world.logins[number] = Names { tag: tag.into(), anchor };
    }

    /// The step of a page that brings a handle alone, on a node that writes the store.
    fn with_handle(&self, anchor: &str, world: &World) -> Step {
        let headers = self.handle(anchor);
        let context = RequestContext::UNRESTRICTED;
        self.engine(Mode::Writes).begin(&Method::GET, &headers, &context, || now(world))
    }

    fn handle(&self, anchor: &str) -> HeaderMap {
        request(&Kept::from([(Slot::Anchor, self.handle_effect(anchor))]), self.setup.app)
    }

    fn handle_effect(&self, anchor: &str) -> Effect {
        let name = if self.setup.app { LOGIN_HEADER } else { ANCHOR };
        Effect { slot: Slot::Anchor, name: (*name).into(), value: Some(anchor.into()), names: None }
    }

    /// Puts a response under way, if it has anything in it.
    fn send(&self, world: &mut World, request: &Request, headers: &HeaderMap, mut told: Option<Told>) {
        if let Some(Told::Login(login) | Told::OptOut(login)) = told
            && world.logins[usize::from(login) - 1].anchor.is_empty()
        {
            self.learn_names(world, headers, login);
        }
        let mut effects = effects(&world.logins, headers, self.setup.app);
        effects.iter().for_each(|effect| self.learn_issued(world, effect));
        if self.setup.off == Some(Rule::OptOutAtClient) {
            effects.retain(|effect| !matches!(effect.slot, Slot::OptOut(_)) || effect.value.is_none());
        }
        if self.setup.off == Some(Rule::FallBack) && matches!(told, Some(Told::Login(_))) {
            effects.retain(|effect| !matches!(effect.slot, Slot::Identity(_)) || effect.value.is_none());
        }
        if self.setup.bound && told.is_none() {
            // Another user's.
            let is_removal = |effect: &&Effect| matches!(effect.slot, Slot::Identity(_)) && effect.value.is_none();
            let removal = effects.iter().find(is_removal).filter(|_| request.user != named_by(&request.brought));
            if let Some(Slot::Identity(person)) = removal.map(|effect| effect.slot) {
                told = Some(Told::Removed(person));
            }
        }
        if effects.is_empty() && told.is_none() {
            return;
        }
        if let Some(Told::Login(login) | Told::OptOut(login)) = told {
            world.issued.insert(login);
        }
        let ends = named_by(&request.brought).filter(|_| told == Some(Told::Logout) && request.mode != Mode::Without);
        world.under_way.push(UnderWay::Response { response: Response { effects, told }, ends, is_partial: false });
    }

    // What is under way

    fn go_on(&self, world: &World, number: usize, all: &mut Vec<(String, World)>) {
        let mut rest = world.clone();
        match rest.under_way.remove(number) {
            UnderWay::Response { response, .. } => {
                all.push((format!("arrives: {response}"), self.arrive(world, number)));
                if self.setup.lost_answers
                    && response.told.is_some()
                    && let Some(next) = self.fails(&rest, Fault::Answer)
                {
                    all.push((format!("is lost: {response}"), next));
                }
            }
            UnderWay::Refresh { request, login, candidate, stored, call } => {
                for (answer, said, mut next, writes) in self.answers(&rest, &request, login, &call) {
                    let mut stored = stored.clone();
                    let mut request = request.clone();
                    request.answers.push(said);
                    request.writes += writes;
                    let label = format!("{}: {call:?} -> {said:?}", request.number);
                    let call = match (&mut stored, answer) {
                        (Some(stored), answer) => stored.next(self.engine(request.mode), answer, now(world)),
                        (None, StoreAnswer::Refreshed(outcome)) => Err(Some(outcome)),
                        (None, answer) => panic!("{answer:?} without a store"),
                    };
                    self.go_on_refresh(&mut next, request, login, &candidate, stored, call);
                    all.push((label, next));
                }
            }
            UnderWay::Save { request, save, more, told } => {
                let call = save.call().or_else(|| more.last()).unwrap().clone();
                for (answer, said, mut next, writes) in self.answers(&rest, &request, 0, &call) {
                    let (mut request, mut save, mut more) = (request.clone(), save.clone(), more.clone());
                    request.answers.push(said);
                    request.writes += writes;
                    let label = format!("{}: {call:?} -> {said:?}", request.number);
                    if save.call().is_some() {
                        save.answer(answer);
                    } else {
                        more.pop();
                    }
                    if save.call().is_some() || !more.is_empty() {
                        next.under_way.push(UnderWay::Save { request, save, more, told });
                    } else {
                        let mut headers = HeaderMap::new();
                        self.engine(request.mode).saved(save, &mut headers, || now(world));
                        self.send(&mut next, &request, &headers, told);
                    }
                    all.push((label, next));
                }
            }
        }
    }

    fn go_on_refresh(
        &self,
        world: &mut World,
        request: Request,
        login: u8,
        candidate: &Rc<RefreshCandidate>,
        stored: Option<StoredRefresh>,
        call: Result<StoreCall, Option<Result<Refreshed, EuidError>>>,
    ) {
        let outcome = match call {
            Ok(call) => {
                let candidate = Rc::clone(candidate);
                return world.under_way.push(UnderWay::Refresh { request, login, candidate, stored, call });
            }
            Err(outcome) => outcome.unwrap_or_else(|| Err(EuidError::new(ErrorKind::Transient, "not made"))),
        };
        let told = matches!(outcome, Ok(Refreshed::OptedOut)).then_some(Told::FoundOptOut(Person::Login(login)));
        let decision = candidate.settle(&outcome, now(world));
        self.respond(world, request, decision, None, told);
    }

    /// The answers to a call: with what is noted of each, the state, and the number of writes.
    fn answers(
        &self,
        world: &World,
        request: &Request,
        login: u8,
        call: &StoreCall,
    ) -> Vec<(StoreAnswer, Said, World, u8)> {
        match call {
            StoreCall::Get(key) => {
                let login = login_of_key(world, key).unwrap();
                let is_owed = world.nodes[request.node].owed.iter().any(|write| write.record.login == login);
                let record = world.store.get(&login).filter(|_| !is_owed);
                let said = Said::Got(record.map(|record| key_of(world, record)));
                let loaded: Loaded = Ok(record.map(|record| record.stored.clone()));
                let mut all = vec![(StoreAnswer::Got(loaded), said, world.clone(), 0)];
                if self.setup.failing_reads {
                    let failed = |next| (StoreAnswer::Got(Err(Unavailable)), Said::Unavailable, next, 0);
                    all.extend(self.fails(world, Fault::Read).map(failed));
                }
                all
            }
            StoreCall::Put(write) => {
                let written = self.writes(world, request, write);
                written.into_iter().map(|(put, said, next)| (StoreAnswer::Put(put), said, next, 1)).collect()
            }
            StoreCall::Wait(_) => vec![(StoreAnswer::Waited, Said::Waited, world.clone(), 0)],
            StoreCall::Refresh(_) => {
                let mut next = world.clone();
                *next.calls.entry((login, world.period)).or_default() += 1;
                let (outcome, said) = if world.out_at_operator.contains(&login) {
                    (Refreshed::OptedOut, Said::OptedOut)
                } else {
                    (Refreshed::Identity(pair(login, world.period)), Said::NewPair(world.period))
                };
                vec![(StoreAnswer::Refreshed(Ok(outcome)), said, next, 0)]
            }
        }
    }

    /// Every outcome of a write.
    fn writes(
        &self,
        world: &World,
        request: &Request,
        write: &StoreWrite,
    ) -> Vec<(Result<Put, Unavailable>, Said, World)> {
        let record = self.record(world, (request.number, request.writes), write);
        let when = if self.setup.off == Some(Rule::Conditions) { When::Always } else { write.when };
        if self.setup.off == Some(Rule::Lease) && matches!(record.says, Says::Identity { leased: Some(_), .. }) {
            return vec![(Ok(Put::Done), Said::Done, world.clone())];
        }
        // As a node that owes an end tries it.
        let when_owed = write.again(None).map_or(when, |again| again.when);
        let write = Write { when, record };
        let mut world = world.clone();
        let remembered = &mut world.nodes[request.node].remembered;
        if remembered.as_ref().is_some_and(|remembered| remembered.login == write.record.login) {
            *remembered = None;
        }
        let mut all = Vec::new();
        if let Some(mut lost) = self.fails(&world, Fault::Write) {
            if write.record.says == Says::Ended && self.setup.off != Some(Rule::Owed) {
                lost.nodes[request.node].owed.push(Write { when: when_owed, ..write.clone() });
            }
            let mut late = lost.clone();
            late.late.push(write.clone());
            all.extend([lost, late].map(|next| (Err(Unavailable), Said::Unavailable, next)));
        }
        let put = self.apply(&mut world.store, &write);
        let said = if put == Put::Done { Said::Done } else { Said::Refused };
        all.push((Ok(put), said, world));
        all
    }

    fn apply(&self, store: &mut Records, write: &Write) -> Put {
        let Write { when, record } = write;
        let there = store.get(&record.login).map(|there| there.stored.version);
        let holds = match *when {
            When::Always => true,
            When::Absent => there.is_none(),
            When::Is(version) => there == Some(version),
        };
        if !holds {
            return Put::Refused;
        }
        if record.says == Says::Ended && self.setup.off == Some(Rule::EndIsRecord) {
            store.remove(&record.login);
        } else {
            store.insert(record.login, record.clone());
        }
        Put::Done
    }

    /// What the engine writes, as the engine reads it.
    fn record(&self, world: &World, version: Version, write: &StoreWrite) -> Record {
        let login = login_of_key(world, &write.key).unwrap();
        let stored = write.stored.clone();
        self.versions.borrow_mut().insert(stored.version, version);
        if write.ends_login {
            return Record { stored, login, version, says: Says::Ended };
        }
        let engine = self.engine(Mode::Writes);
        let headers = self.handle(&world.logins[usize::from(login) - 1].anchor);
        let context = RequestContext::UNRESTRICTED;
        let step =
            engine.resume(&write.key, &Ok(Some(stored.clone())), &Method::GET, &headers, &context, || now(world));
        let is_due = matches!(step, Step::Refresh(_));
        let decision = match step {
            Step::Ready(decision) => decision,
            Step::Refresh(candidate) => candidate.postpone(now(world)),
            Step::Load(load) => panic!("{load:?} again"),
        };
        let (euid, pending) = decision.start();
        let Euid::Active(token) = euid else { panic!("{euid:?} of a stored identity") };
        let period = issued_in(token.as_str());
        let leased = (period < world.period && !is_due).then_some(world.leases);
        let asked = Some(&Change::EndLogin);
        let end = engine.finish(pending, asked, StatusCode::OK, &mut HeaderMap::new(), || now(world));
        let Finish::Save(mut save) = end else { panic!("a logout ends the record") };
        let mut previous = None;
        while let Some(StoreCall::Put(end)) = save.call() {
            previous = login_of_key(world, &end.key).filter(|other| *other != login).or(previous);
            save.answer(StoreAnswer::Put(Ok(Put::Done)));
        }
        Record { stored, login, version, says: Says::Identity { period, leased, previous } }
    }

    // What happens beside the requests

    fn arrive(&self, world: &World, number: usize) -> World {
        let mut world = world.clone();
        let UnderWay::Response { mut response, ends, .. } = world.under_way.remove(number) else {
            panic!("no response has number {number}");
        };
        let (effects, told) = response.take(!self.setup.app);
        for effect in effects {
            world.kept.remove(&effect.slot);
            if effect.value.is_some() {
                world.kept.insert(effect.slot, effect);
            }
        }
        if !response.effects.is_empty() {
            world.under_way.push(UnderWay::Response { response, ends, is_partial: true });
        }
        match told {
            Some(Told::Login(login)) => (world.current, world.user) = (Some(Current::Login(login)), Some(login)),
            Some(Told::OptOut(login)) => (world.current, world.user) = (Some(Current::OptedOut(login)), Some(login)),
            Some(Told::Logout) => {
                (world.current, world.user) = (None, None);
                world.ended.extend(ends);
            }
            Some(Told::FoundOptOut(Person::Login(login))) if world.current == Some(Current::Login(login)) => {
                world.opted_out.insert(login);
            }
            Some(Told::Removed(Person::Login(login))) => _ = world.removed.insert(login),
            _ => {}
        }
        let keeps = told != Some(Told::Logout) || self.setup.off != Some(Rule::LogoutSaved);
        if told.is_some() && keeps && self.setup.app && !world.restarted {
            world.saved = world.kept.clone();
        }
        world
    }

    fn client_steps(&self, world: &World, all: &mut Vec<(String, World)>) {
        if let Some(Current::Login(login)) = world.current
            && world.out_at_operator.len() < self.setup.opt_outs
            && !world.out_at_operator.contains(&login)
        {
            let mut next = world.clone();
            next.out_at_operator.insert(login);
            all.push((format!("{login} opts out at the operator"), next));
        }
        if self.setup.app && !world.restarted {
            all.push(("saved".to_owned(), World { saved: world.kept.clone(), ..world.clone() }));
            let (kept, saved) = (world.saved.clone(), Kept::new());
            all.push(("restart".to_owned(), World { kept, saved, restarted: true, ..world.clone() }));
        }
        if self.setup.bound && world.requests < self.setup.requests {
            for login in (1..=u8::try_from(world.logins.len()).unwrap()).filter(|login| world.user != Some(*login)) {
                let next = World { user: Some(login), requests: world.requests + 1, ..world.clone() };
                all.push((format!("{login} signs in, nothing is generated"), next));
            }
        }
    }

    fn store_steps(&self, world: &World, all: &mut Vec<(String, World)>) {
        for number in 0..world.late.len() {
            let mut next = world.clone();
            let write = next.late.remove(number);
            let _ = self.apply(&mut next.store, &write);
            all.push((format!("late: {:?} {:?}", write.when, write.record), next));
        }
        // What a refresh leases later than the others expire has expired, too.
        let refreshing = |under_way: &UnderWay| match under_way {
            UnderWay::Refresh { request, stored: Some(_), .. } => request.begun.1 == world.leases,
            _ => false,
        };
        let refreshes = u8::try_from(world.under_way.iter().filter(|under_way| refreshing(under_way)).count()).unwrap();
        let broke = world.broke + refreshes;
        let is_leased = |record: &Record| key_of(world, record).2.is_some_and(|(_, leased, _)| leased);
        if refreshes > 0 || world.store.values().any(is_leased) {
            all.push(("leases expire".to_owned(), World { leases: world.leases + 1, broke, ..world.clone() }));
        }
        if world.period < self.setup.periods && !world.logins.is_empty() {
            let (period, leases) = (world.period + 1, world.leases + 1);
            all.push(("an hour passes".to_owned(), World { period, leases, broke, ..world.clone() }));
        }
        let versions = |records: &Records| records.values().map(|record| record.version).collect::<Vec<_>>();
        if self.setup.fail_over && !world.failed_over && versions(&world.store) != versions(&world.replica) {
            all.push(("replicated".to_owned(), World { replica: world.store.clone(), ..world.clone() }));
            let (store, replica) = (world.replica.clone(), Records::new());
            all.push(("fail-over".to_owned(), World { store, replica, failed_over: true, ..world.clone() }));
        }
    }

    fn node_steps(&self, world: &World, all: &mut Vec<(String, World)>) {
        for (number, node) in world.nodes.iter().enumerate() {
            for owed in 0..node.owed.len() {
                let mut next = world.clone();
                let write = next.nodes[number].owed.remove(owed);
                let _ = self.apply(&mut next.store, &write);
                all.push((format!("node {number} ends {} again", write.record.login), next));
            }
            if self.setup.remembers {
                let mut next = world.clone();
                next.nodes[number].remembered = named(world).and_then(|login| world.store.get(&login)).cloned();
                all.push((format!("node {number} reads and remembers"), next));
                if node.remembered.is_some() {
                    let mut next = world.clone();
                    next.nodes[number].remembered = None;
                    all.push((format!("node {number} forgets"), next));
                }
            }
            let one_step = self.setup.off == Some(Rule::TwoSteps);
            let mode = match (self.setup.roll, node.mode) {
                (Roll::Out, Mode::Without) if !one_step => Mode::Reads,
                (Roll::Out, Mode::Reads | Mode::Without) => Mode::Writes,
                (Roll::Back, Mode::Writes) if !one_step => Mode::Reads,
                (Roll::Back, Mode::Reads | Mode::Writes) => Mode::Without,
                _ => continue,
            };
            let other = world.nodes[1 - number].mode;
            let drops = self.setup.roll == Roll::Back && mode == Mode::Without;
            if drops && self.setup.off != Some(Rule::MovedOut) && !has_moved_out(world) {
                continue;
            }
            if one_step || (mode as u8).abs_diff(other as u8) < 2 {
                let mut next = world.clone();
                next.nodes[number].mode = mode;
                all.push((format!("node {number} becomes {mode:?}"), next));
            }
        }
    }

    // Judgement

    /// What is wrong with what the next page sees on a node.
    fn judge_page(&self, world: &World, node: usize) -> Option<What> {
        let (token, shows_opt_out) = match self.begin(world, node, &self.context(world)) {
            Step::Refresh(candidate) => (Some(login_of(candidate.identity())), false),
            Step::Ready(decision) => match decision.euid() {
                Euid::Active(token) => (Some(login_in(token.as_str())), false),
                euid => (None, matches!(euid, Euid::OptedOut)),
            },
            Step::Load(load) => panic!("{load:?} again"),
        };
        if let Some(login) = token {
            let counts = world.current == Some(Current::Login(login));
            return match (counts, world.opted_out.contains(&login)) {
                (false, _) => Some(What::WrongToken),
                (true, true) => Some(What::TokenAfterOptOut),
                (true, false) => None,
            };
        }
        // Between the cookies of one response something may be missing.
        if world.under_way.iter().any(|under_way| matches!(under_way, UnderWay::Response { is_partial: true, .. })) {
            return None;
        }
        let Some(Current::Login(login) | Current::OptedOut(login)) = world.current else {
            return shows_opt_out.then_some(What::WrongOptOut);
        };
        let other_user = self.setup.bound && world.user != Some(login);
        let may_end = world.ending.contains(&login) || other_user;
        match (world.current, world.opted_out.contains(&login)) {
            // The store may know it before a response tells it.
            (Some(Current::Login(_)), false) if shows_opt_out && world.out_at_operator.contains(&login) => None,
            (Some(Current::Login(_)), false) if shows_opt_out => Some(What::WrongOptOut),
            (Some(Current::Login(_)), false) => {
                let may_miss = may_end || world.out_at_operator.contains(&login) || world.removed.contains(&login);
                (!may_miss).then_some(What::LostPair)
            }
            _ => (!shows_opt_out && !may_end).then_some(What::ForgottenOptOut),
        }
    }

    /// Whether a copy of the handle of a login that has ended shows its token on a node.
    fn shows_ended(&self, world: &World, node: usize) -> bool {
        let Node { mode, remembered, .. } = &world.nodes[node];
        // What a node remembers, and what the other owes, is seen for some time.
        let other = &world.nodes[1 - node];
        let is_bounded =
            |login: &u8| remembered.is_some() || other.owed.iter().any(|write| write.record.login == *login);
        if *mode == Mode::Without || world.failed_over {
            return false;
        }
        world.ended.iter().filter(|login| !is_bounded(login)).any(|login| {
            let Some(record) = record_at(world, node, *login) else { return false };
            let headers = self.handle(&world.logins[usize::from(*login) - 1].anchor);
            let context = RequestContext::UNRESTRICTED;
            let engine = self.engine(*mode);
            let mut step = engine.begin(&Method::GET, &headers, &context, || now(world));
            if let Step::Load(load) = step {
                let loaded = Ok(Some(record.stored.clone()));
                step = engine.resume(load.key(), &loaded, &Method::GET, &headers, &context, || now(world));
            }
            !matches!(step, Step::Ready(decision) if matches!(decision.euid(), Euid::Absent))
        })
    }

    fn key_in_order(&self, world: &World, order: [usize; 2]) -> u128 {
        search::digest(|hasher| self.hash(world, order, hasher))
    }

    fn hash(&self, world: &World, order: [usize; 2], hasher: &mut DefaultHasher) {
        let records = |records: &Records| records.values().map(|record| key_of(world, record)).collect::<Vec<_>>();
        (self.values(world.kept.values()), self.values(world.saved.values()), world.restarted).hash(hasher);
        (records(&world.store), records(&world.replica), world.failed_over).hash(hasher);
        let writes = |writes: &[Write]| {
            let mut all: Vec<_> =
                writes.iter().map(|write| (self.condition(write.when), key_of(world, &write.record))).collect();
            all.sort_unstable();
            all
        };
        writes(&world.late).hash(hasher);
        for number in order {
            let Node { mode, owed, remembered } = &world.nodes[number];
            let remembered = remembered.as_ref().map(|record| key_of(world, record));
            (mode, writes(owed), remembered).hash(hasher);
        }
        let request = |request: &Request| {
            let Request { number, node, mode, begun: (period, leases), user, brought, read, answers, writes } =
                request.clone();
            (number, order[node], mode, (period, leases == world.leases), user, brought, read, answers, writes)
        };
        let under_way = |under_way: &UnderWay| match under_way {
            UnderWay::Refresh { request: own, .. } => UnderWayKey::Request(request(own), None, true),
            UnderWay::Save { request: own, told, .. } => UnderWayKey::Request(request(own), *told, false),
            UnderWay::Response { response, ends, is_partial } => {
                UnderWayKey::Response(self.values(&response.effects), response.told, *ends, *is_partial)
            }
        };
        let mut all: Vec<_> = world.under_way.iter().map(under_way).collect();
        all.sort_unstable();
        all.hash(hasher);
        (world.current, &world.opted_out, &world.out_at_operator, &world.ending, &world.removed).hash(hasher);
        (&world.ended, &world.issued, world.logins.len(), world.requests, world.period).hash(hasher);
        (&world.faults, &world.calls, world.broke, world.user).hash(hasher);
    }

    fn values<'a>(&self, effects: impl IntoIterator<Item = &'a Effect>) -> Vec<Value> {
        let issued = self.issued.borrow();
        let issued = |effect: &Effect| effect.value.as_ref().and_then(|value| issued.get(value).copied());
        effects.into_iter().map(|effect| (effect.cookie(), issued(effect))).collect()
    }

    /// Notes when the pair that a response seals was issued.
    fn learn_issued(&self, world: &World, effect: &Effect) {
        let (Slot::Identity(Person::Login(login)), Some(value)) = (effect.slot, &effect.value) else { return };
        let anchor = self.handle_effect(&world.logins[usize::from(login) - 1].anchor);
        let kept = Kept::from([(Slot::Anchor, anchor), (effect.slot, effect.clone())]);
        let headers = request(&kept, self.setup.app);
        let context = RequestContext::UNRESTRICTED;
        let step = self.engine(Mode::Without).begin(&Method::GET, &headers, &context, || now(world));
        let period = match step {
            Step::Ready(decision) => issued_in(decision.euid().advertising_token().unwrap().as_str()),
            Step::Refresh(candidate) => issued_in(candidate.identity().advertising_token()),
            Step::Load(load) => panic!("{load:?} without a store"),
        };
        self.issued.borrow_mut().insert(value.clone(), period);
    }

    /// A condition, for comparison.
    fn condition(&self, when: When) -> (u8, Option<Version>) {
        match when {
            When::Always => (0, None),
            When::Absent => (1, None),
            When::Is(version) => (2, Some(self.versions.borrow()[&version])),
        }
    }
}

/// Whether the client needs nothing of what is in the store any more.
fn has_moved_out(world: &World) -> bool {
    world.under_way.is_empty()
        && match world.current {
            Some(Current::Login(login)) => {
                let person = Person::Login(login);
                [Slot::Identity(person), Slot::OptOut(person)].iter().any(|slot| world.kept.contains_key(slot))
            }
            Some(Current::OptedOut(_)) | None => true,
        }
}

/// The record that a node finds for a page.
fn record_at(world: &World, node: usize, login: u8) -> Option<&Record> {
    let Node { owed, remembered, .. } = &world.nodes[node];
    if owed.iter().any(|write| write.record.login == login) {
        return None;
    }
    let remembered = remembered.as_ref().filter(|record| record.login == login);
    remembered.or_else(|| world.store.get(&login))
}

fn orphans(world: &World) -> Vec<What> {
    let owes = world.nodes.iter().any(|node| !node.owed.is_empty());
    if !world.under_way.is_empty() || !world.late.is_empty() || owes {
        return Vec::new();
    }
    let counting = match world.current {
        Some(Current::Login(login) | Current::OptedOut(login)) => world.store.get(&login),
        None => None,
    };
    let previous = counting.and_then(|record| key_of(world, record).2).and_then(|(_, _, previous)| previous);
    let left = world.store.values().filter(|record| {
        record.says != Says::Ended
            && world.current != Some(Current::Login(record.login))
            && previous != Some(record.login)
    });
    left.map(|record| if world.issued.contains(&record.login) { What::Orphan } else { What::Unissued }).collect()
}

fn key_of(world: &World, record: &Record) -> RecordKey {
    let says = match record.says {
        Says::Ended => None,
        Says::Identity { period, leased, previous } => Some((period, leased == Some(world.leases), previous)),
    };
    (record.login, record.version, says)
}

/// The login that the client's handle names.
fn named(world: &World) -> Option<u8> {
    world.kept.get(&Slot::Anchor).and_then(|effect| login_named(effect.names))
}

fn named_by(brought: &[Value]) -> Option<u8> {
    brought.iter().find_map(|&((slot, _, names, _), _)| login_named(names).filter(|_| slot == Slot::Anchor))
}

fn login_named(names: Option<Person>) -> Option<u8> {
    match names {
        Some(Person::Login(login)) => Some(login),
        Some(Person::Migrated) | None => None,
    }
}

fn login_of_key(world: &World, key: &StoreKey) -> Option<u8> {
    world.keys.iter().position(|known| known == key).map(|number| u8::try_from(number + 1).unwrap())
}

fn login_of(identity: &Identity) -> u8 {
    login_in(identity.advertising_token())
}

/// The login whose token this is.
fn login_in(token: &str) -> u8 {
    token.split_once('.').unwrap().0.parse().unwrap()
}

/// The period in which it was issued.
fn issued_in(token: &str) -> u8 {
    token.split_once('.').unwrap().1.parse().unwrap()
}

/// An hour for each period, and a quarter of a minute for each time that all leases expired.
fn now(world: &World) -> UnixMillis {
    START.saturating_add(HOUR * u32::from(world.period)).saturating_add(MOMENT * world.leases)
}

fn leased_until(world: &World) -> UnixMillis {
    now(world).saturating_add(MOMENT - Duration::from_secs(1))
}

/// The pair that the operator issues in a period; it is due in the next one.
fn pair(login: u8, period: u8) -> Identity {
    let issued = START.saturating_add(HOUR * u32::from(period));
    let times = IdentityTimes {
        refresh_from: issued.saturating_add(HOUR),
        identity_expires: issued.saturating_add(24 * HOUR),
        refresh_expires: issued.saturating_add(48 * HOUR),
    };
    Identity::new(format!("{login}.{period}"), "r".to_owned().into(), [7; 32].into(), times).unwrap()
}

const HOUR: Duration = Duration::from_secs(3_600);
const MOMENT: Duration = Duration::from_secs(15);

/// The bounds of a test: what `EXPLORE_STORES` says, or these.
fn bounded(logins: usize, requests: u8, under_way: usize, faults: usize) -> Setup {
    let mut setup = Setup {
        logins,
        requests,
        under_way,
        faults,
        periods: 1,
        opt_outs: 1,
        sealed: false,
        app: false,
        lost_answers: false,
        fail_over: false,
        bound: false,
        remembers: false,
        failing_reads: false,
        roll: Roll::No,
        off: None,
    };
    if let Ok(bounds) = std::env::var("EXPLORE_STORES") {
        let bounds: Vec<usize> = bounds.split(',').map(|bound| bound.parse().unwrap()).collect();
        let [logins, requests, under_way, faults] = bounds[..] else {
            panic!("EXPLORE_STORES=LOGINS,REQUESTS,UNDER_WAY,FAULTS, not {bounds:?}");
        };
        let requests = u8::try_from(requests).unwrap();
        setup = Setup { logins, requests, under_way, faults, ..setup };
    }
    setup
}

/// Explores a set-up until this is found, if anything is looked for.
fn explore(setup: Setup, wanted: Option<What>) -> Findings<(What, Vec<Fault>, bool)> {
    let explorer = Explorer::new(setup);
    println!("{setup:?}");
    let findings = search::explore(&explorer, explorer.start(), |(what, ..)| Some(*what) == wanted);
    findings.print();
    findings
}

/// Asserts that a set-up leads to these, and to nothing else but what is known.
#[track_caller]
fn assert_leads_to(expected: &[What], setup: Setup) {
    let met: BTreeSet<What> = explore(setup, None).met().into_iter().map(|(what, ..)| what).collect();
    let wrong: Vec<What> = met.into_iter().filter(|what| !what.is_known()).collect();
    assert_eq!(wrong, expected, "{setup:?}");
}

/// Asserts that a host that breaks a rule leads to this.
#[track_caller]
fn assert_breaks(rule: Rule, what: What, setup: Setup) {
    let setup = Setup { off: Some(rule), ..setup };
    assert!(explore(setup, Some(what)).met().iter().any(|(met, ..)| *met == what), "{setup:?}");
}

/// How many requests there are, without optimization and with.
const REQUESTS: u8 = if cfg!(debug_assertions) { 2 } else { 3 };

#[test]
fn no_order_of_answers_breaks_a_promise() {
    assert_leads_to(&[], bounded(2, REQUESTS, 2, 1));
    assert_leads_to(&[], Setup { lost_answers: true, bound: true, failing_reads: true, ..bounded(2, REQUESTS, 2, 1) });
    assert_leads_to(&[], Setup { periods: 2, opt_outs: 0, ..bounded(1, REQUESTS + 1, 2, 0) });
}

#[test]
fn no_order_of_answers_to_an_app_breaks_a_promise() {
    assert_leads_to(&[], Setup { app: true, ..bounded(2, REQUESTS, 2, 1) });
}

#[test]
fn no_order_of_answers_breaks_a_promise_for_a_sealed_identity_that_moves() {
    assert_leads_to(&[], Setup { sealed: true, failing_reads: true, ..bounded(2, REQUESTS - 1, 2, 1) });
    assert_leads_to(&[], Setup { sealed: true, ..bounded(2, REQUESTS, 2, 0) });
}

#[test]
fn no_order_of_answers_breaks_a_promise_where_nodes_remember_records() {
    assert_leads_to(&[], Setup { remembers: true, ..bounded(2, REQUESTS, 2, 0) });
}

#[test]
fn no_order_of_answers_breaks_a_promise_while_a_site_begins_or_stops_to_use_its_store() {
    assert_leads_to(&[], Setup { roll: Roll::Out, ..bounded(1, REQUESTS, 2, 1) });
    assert_leads_to(&[], Setup { roll: Roll::Back, ..bounded(1, REQUESTS, 2, 1) });
}

#[test]
fn promoted_replica_that_lags_loses_a_login_and_nothing_else() {
    assert_leads_to(&[What::LostPair], Setup { fail_over: true, ..bounded(2, REQUESTS, 2, 0) });
}

#[test]
fn host_that_ignores_conditions_brings_back_an_ended_login() {
    assert_breaks(Rule::Conditions, What::EndedShown, bounded(1, 3, 2, 1));
}

#[test]
fn host_that_removes_the_record_at_a_logout_lets_a_late_login_come_back() {
    assert_breaks(Rule::EndIsRecord, What::EndedShown, bounded(1, 3, 2, 1));
}

#[test]
fn host_whose_login_ends_the_one_before_loses_that_one_if_its_response_is_late() {
    assert_breaks(Rule::LateEnd, What::LostPair, bounded(2, 3, 2, 0));
}

#[test]
fn host_without_a_lease_calls_the_operator_from_every_node() {
    assert_breaks(Rule::Lease, What::TooManyCalls, bounded(1, 3, 2, 0));
}

#[test]
fn host_that_forgets_the_ends_that_it_owes_shows_an_ended_login() {
    assert_breaks(Rule::Owed, What::EndedShown, bounded(1, 3, 2, 1));
}

#[test]
fn host_without_a_record_at_the_client_forgets_an_opt_out() {
    assert_breaks(Rule::OptOutAtClient, What::ForgottenOptOut, bounded(1, 3, 2, 0));
}

#[test]
fn host_that_ends_a_login_at_a_page_of_another_user_loses_its_pair() {
    assert_breaks(Rule::OthersPages, What::LostPair, Setup { bound: true, ..bounded(2, 4, 2, 0) });
}

#[test]
fn site_that_begins_or_stops_in_one_step_loses_pairs() {
    assert_breaks(Rule::TwoSteps, What::LostPair, Setup { roll: Roll::Out, ..bounded(1, 3, 2, 0) });
    assert_breaks(Rule::TwoSteps, What::LostPair, Setup { roll: Roll::Back, ..bounded(1, 3, 2, 0) });
    assert_breaks(Rule::MovedOut, What::LostPair, Setup { roll: Roll::Back, ..bounded(1, 3, 2, 0) });
}

#[test]
fn app_that_has_not_saved_a_logout_is_logged_in_after_a_restart() {
    assert_breaks(Rule::LogoutSaved, What::WrongToken, Setup { app: true, ..bounded(1, 3, 2, 0) });
}

#[test]
fn login_that_is_neither_in_the_store_nor_sealed_is_lost() {
    assert_breaks(Rule::FallBack, What::LostPair, bounded(1, 3, 2, 1));
}
