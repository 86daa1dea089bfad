//! Explores exhaustively what a client makes of the engine's responses, in every order in which they can arrive.
//!
//! 1. A *state* is the client's cookies, the responses under way, and what the client was last told. From each state
//!    the exploration sends every request and applies every response under way; equal states are visited once.
//! 2. Requests and responses are those of the real engine. States are compared by what the cookies are (which login's
//!    identity, record or anchor, sealed under which key), not by their random values.
//! 3. In each state the next page is asked for what it sees. Five things must never happen: see [`Violation`].
//! 4. With a rule switched off, the same exploration finds what the rule is there for.
//! 5. The client is a browser, or an app that keeps headers as a browser keeps cookies. It may restart once, and then has
//!    what it saved at some moment. Headers do not expire by themselves, so in one set-up five days pass.
//!
//! `EXPLORE=3,7,3 cargo test --release --test model exploration -- --nocapture` explores every set-up with that many
//! logins, requests, and responses under way, and prints the number of states.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use euid_core::engine::{Change, Decision, Engine, NewLogin, RequestContext, SignedIn, Step};
use euid_core::error::{ErrorKind, EuidError};
use euid_core::{Consent, CookieConfig, CookieKey, Euid, HeaderConfig, KeyRing, Refreshed};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::client::{
    Cookie, Effect, Kept, Names, Person, Response, Slot, TAGGED, Told, effects, has_equal_tags, identity, person_of,
    request, tag_of, token, user,
};
use crate::search::{self, Findings, Model};
use crate::support::{SDK, START, scope};

/// What is explored: bounds, features of the site, and the rule that is switched off.
#[derive(Clone, Copy, Debug, Default)]
struct Setup {
    logins: usize,
    requests: usize,
    under_way: usize,
    /// The site migrates the cookie of the JS SDK, and the browser has one.
    sdk: bool,
    /// The `Set-Cookie`s of a response are applied one by one, between those of others.
    singly: bool,
    /// Three nodes are at different steps of a key change: the first seals under the old key, the second under the new
    /// one, the third has the new one alone.
    nodes: bool,
    /// Identities are bound to users; another user comes with each login, and one more in between.
    subject: bool,
    /// Pages whose visitor withholds or has withdrawn consent.
    consent: bool,
    /// The client is an app, which keeps headers instead of cookies.
    app: bool,
    /// The app is killed once, and then has what it saved at some moment.
    restart: bool,
    /// Once, five days pass.
    wait: bool,
    off: Option<Rule>,
}

/// A rule that a set-up can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Names carry the tag of their login.
    Tags,
    /// A logout of a site that migrates leaves an anchor that names nothing.
    EndedAnchor,
    /// The anchor of a login is set before the state that it ends is removed.
    AnchorFirst,
    /// An app saves before it reports a logout.
    LogoutSaved,
    /// An app saves before it reports a login or an opt-out.
    LoginSaved,
}

/// The login, or the opt-out, that counts for the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Current {
    Login(Person),
    OptedOut(u8),
}

#[derive(Clone)]
struct World {
    jar: Kept,
    under_way: Vec<Response>,
    current: Option<Current>,
    /// A login or a logout was told, so that nothing is migrated any more.
    decided: bool,
    /// Whose opt-out was told.
    opted_out: BTreeSet<Person>,
    /// Whose identity was removed, because it is refused or another user's.
    removed: BTreeSet<Person>,
    /// The names of each login, by its number less one.
    logins: Vec<Names>,
    requests: usize,
    /// The number of logins that had begun before five days passed.
    waited: Option<usize>,
    /// What an app has saved; at first it has nothing.
    saved: Kept,
    /// The app was killed.
    restarted: bool,
}

/// The state, for comparison.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    jar: Vec<Cookie>,
    under_way: Vec<(Vec<Cookie>, Option<Told>)>,
    current: Option<Current>,
    decided: bool,
    opted_out: Vec<Person>,
    removed: Vec<Person>,
    logins: usize,
    requests: usize,
    waited: Option<usize>,
    saved: Vec<Cookie>,
    restarted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Violation {
    /// A token of a login that does not count.
    WrongToken,
    /// A token of a login whose opt-out was told.
    TokenAfterOptOut,
    /// The login that counts has no token, though no response removed its pair.
    LostPair,
    /// An opt-out that was told is not told any more.
    ForgottenOptOut,
    /// An opt-out is told that is not that of the login that counts.
    WrongOptOut,
}

struct Explorer {
    setup: Setup,
    nodes: Vec<Engine>,
    /// How many tagged cookies the client held, at most.
    most_cookies: Cell<usize>,
}

impl Model for Explorer {
    type State = World;
    type Key = Key;
    type Violation = Violation;

    fn next(&self, world: &World) -> Vec<(String, World)> {
        let mut all = Vec::new();
        if world.requests < self.setup.requests && world.under_way.len() < self.setup.under_way {
            for (node, engine) in self.nodes.iter().enumerate() {
                for (what, response, names) in self.requests(world, engine) {
                    let mut next = world.clone();
                    next.requests += 1;
                    next.logins.extend(names);
                    let step = format!("node {node}: {what} -> {response}");
                    next.under_way.push(response);
                    all.push((step, next));
                }
            }
        }
        for number in 0..world.under_way.len() {
            let mut next = world.clone();
            let response = next.under_way.remove(number);
            let step = self.apply(&mut next, response);
            all.push((format!("apply {step}"), next));
        }
        if self.setup.wait && world.waited.is_none() {
            all.push(("five days pass".to_owned(), World { waited: Some(world.logins.len()), ..world.clone() }));
        }
        if self.setup.restart && !world.restarted {
            all.push(("save".to_owned(), World { saved: world.jar.clone(), ..world.clone() }));
            let (jar, saved) = (world.saved.clone(), BTreeMap::new());
            all.push(("restart".to_owned(), World { jar, saved, restarted: true, ..world.clone() }));
        }
        all
    }

    fn has_equal_tags(&self, world: &World) -> bool {
        has_equal_tags(&world.logins)
    }

    fn key(&self, world: &World) -> Key {
        let mut under_way: Vec<_> = world.under_way.iter().map(Response::key).collect();
        under_way.sort();
        Key {
            jar: world.jar.values().map(Effect::cookie).collect(),
            under_way,
            current: world.current,
            decided: world.decided,
            opted_out: world.opted_out.iter().copied().collect(),
            removed: world.removed.iter().copied().collect(),
            logins: world.logins.len(),
            requests: world.requests,
            waited: world.waited,
            saved: world.saved.values().map(Effect::cookie).collect(),
            restarted: world.restarted,
        }
    }

    /// What is wrong with what the next page sees, on any node.
    fn judge(&self, world: &World) -> Vec<Violation> {
        let tagged = world.jar.keys().filter(|slot| matches!(slot, Slot::Identity(_) | Slot::OptOut(_)));
        self.most_cookies.set(self.most_cookies.get().max(tagged.count()));
        (0..self.nodes.len()).find_map(|node| self.judge_on(world, node)).into_iter().collect()
    }
}

impl Explorer {
    fn new(setup: Setup) -> Self {
        let [old, new] = [(); 2].map(|()| CookieKey::generate().unwrap());
        let config = CookieConfig::default();
        let config = if setup.sdk { config.migrate_js_sdk_cookie(None).unwrap() } else { config };
        let rings = [vec![old.clone(), new.clone()], vec![new.clone(), old], vec![new]];
        let rings = rings.map(|keys| KeyRing::new(keys).unwrap());
        let node = |ring| {
            let engine = Engine::new(ring).with_scope(scope()).with_cookie(config.clone());
            let engine = engine.with_refresh_jitter(Duration::ZERO);
            if setup.app { engine.with_headers(HeaderConfig::default()) } else { engine }
        };
        let nodes = rings.into_iter().map(node).take(if setup.nodes { 3 } else { 1 }).collect();
        Self { setup, nodes, most_cookies: Cell::default() }
    }

    fn start(&self) -> World {
        let mut jar = BTreeMap::new();
        if self.setup.sdk {
            let [from, token, refresh] = [0, 1, 2].map(|days| (START.as_millis() + days * 86_400_000).to_string());
            let json = format!(
                r#"{{"advertising_token":"sdk","refresh_token":"r","refresh_response_key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","refresh_from":{from},"identity_expires":{token},"refresh_expires":{refresh}}}"#
            );
            let effect = Effect { slot: Slot::Sdk, name: (*SDK).into(), value: Some(json.into()), names: None };
            jar.insert(Slot::Sdk, effect);
        }
        World {
            jar,
            under_way: Vec::new(),
            current: None,
            decided: false,
            opted_out: BTreeSet::new(),
            removed: BTreeSet::new(),
            logins: Vec::new(),
            requests: 0,
            waited: None,
            saved: BTreeMap::new(),
            restarted: false,
        }
    }

    /// The responses of one node to everything that a client can request: what it was, and the names of a new login.
    fn requests(&self, world: &World, engine: &Engine) -> Vec<(&'static str, Response, Option<Names>)> {
        let context = self.context(world);
        let mut all = Vec::new();
        let mut add = |what, response| all.push((what, response, None));
        for response in self.pages(world, engine, &context) {
            add("page", response);
        }
        if self.setup.app {
            self.assert_images_write_nothing(world, engine, &context);
        }
        // The SDK's cookie names no user: it would count for this one, if they came first.
        if self.setup.subject && !world.jar.contains_key(&Slot::Sdk) {
            let another = RequestContext { user: SignedIn::User(user(ANOTHER_USER)), ..context };
            let counting = world.jar.get(&Slot::Anchor).map_or(Some(Person::Migrated), |anchor| anchor.names);
            let decision = self.settled(world, engine, &another);
            let mut response = self.finish(world, engine, decision, None, None);
            let removes = |slot| response.effects.iter().any(|effect| effect.slot == slot && effect.value.is_none());
            let removed = counting.filter(|person| removes(Slot::Identity(*person)));
            response.told = removed.map(Told::Removed);
            if !response.effects.is_empty() {
                add("page of another user", response);
            }
        }
        if self.setup.consent {
            let withheld = RequestContext { consent: Consent::Withheld, ..context };
            let response = self.finish(world, engine, ready(self.begin(world, engine, &withheld)), None, None);
            if !response.effects.is_empty() {
                add("page, consent withheld", response);
            }
            let withdrawn = RequestContext { consent: Consent::Withdrawn, ..context };
            let decision = ready(self.begin(world, engine, &withdrawn));
            let response = self.finish(world, engine, decision, None, Some(Told::Logout));
            if !response.effects.is_empty() {
                add("page, consent withdrawn", response);
            }
        }
        let decision = self.settled(world, engine, &context);
        add("logout", self.finish(world, engine, decision, Some(&Change::EndLogin), Some(Told::Logout)));
        if world.logins.len() < self.setup.logins {
            let login = u8::try_from(world.logins.len() + 1).unwrap();
            let subject = self.setup.subject.then(|| user(login));
            let begin = Change::Begin(
                NewLogin { identity: identity(&token(Person::Login(login)), now(world)).into(), subject: None }.into(),
            );
            for (what, change, told) in
                [("login", begin, Told::Login(login)), ("login, opted out", Change::opt_out(), Told::OptOut(login))]
            {
                let change = subject.iter().fold(change, |change, subject| change.subject(subject));
                let mut world = world.clone();
                // Its names are not known before the response.
                world.logins.push(Names::default());
                let decision = self.settled(&world, engine, &context);
                let response = self.finish(&world, engine, decision, Some(&change), Some(told));
                let set = response.effects.iter().filter(|effect| effect.value.is_some());
                let (anchor, tagged): (Vec<_>, Vec<_>) = set.partition(|effect| effect.slot == Slot::Anchor);
                let tag = tagged.iter().find_map(|effect| tag_of(&effect.name, TAGGED)).unwrap().into();
                let names = Names { tag, anchor: anchor[0].value.clone().unwrap() };
                all.push((what, response, Some(names)));
            }
        }
        all
    }

    /// The response to an image writes nothing, whatever its refresh finds: only withdrawn consent ends a login there.
    fn assert_images_write_nothing(&self, world: &World, engine: &Engine, context: &RequestContext<'_>) {
        let mut image = request(&world.jar, self.setup.app);
        image.insert("sec-fetch-dest", HeaderValue::from_static("image"));
        let decisions = match engine.begin(&Method::GET, &image, context, || now(world)) {
            Step::Ready(decision) => vec![decision],
            Step::Refresh(candidate) => {
                vec![candidate.settle(&Ok(Refreshed::OptedOut), now(world)), candidate.postpone(now(world))]
            }
            Step::Load(load) => panic!("{load:?} without a store"),
        };
        for decision in decisions {
            let response = self.finish(world, engine, decision, None, None);
            assert!(response.effects.is_empty(), "{response}");
        }
    }

    /// What the application knows of the browser's user.
    fn context(&self, world: &World) -> RequestContext<'static> {
        let user = match world.current {
            _ if !self.setup.subject => SignedIn::Unchecked,
            Some(Current::Login(Person::Login(login)) | Current::OptedOut(login)) => SignedIn::User(user(login)),
            // Before any login, the user whom the SDK's cookie is from.
            Some(Current::Login(Person::Migrated)) => SignedIn::User(user(0)),
            None if !world.decided => SignedIn::User(user(0)),
            None => SignedIn::NoUser,
        };
        RequestContext { consent: Consent::Granted, user, scope: None }
    }

    /// The responses of a page: without a refresh, or with each outcome of one.
    fn pages(&self, world: &World, engine: &Engine, context: &RequestContext<'_>) -> Vec<Response> {
        let migrates = |response: &Response| {
            let migrated = |effect: &Effect| effect.slot == Slot::Identity(Person::Migrated) && effect.value.is_some();
            let is_new = !world.jar.contains_key(&Slot::Identity(Person::Migrated));
            (is_new && response.effects.iter().any(migrated)).then_some(Told::Migration)
        };
        match self.begin(world, engine, context) {
            Step::Ready(decision) => {
                let mut response = self.finish(world, engine, decision, None, None);
                response.told = migrates(&response);
                if response.effects.is_empty() { Vec::new() } else { vec![response] }
            }
            Step::Refresh(candidate) => {
                let person = person_of(candidate.identity().advertising_token());
                let pair = identity(&token(person), now(world));
                let renewed = candidate.settle(&Ok(Refreshed::Identity(pair)), now(world));
                let mut renewed = self.finish(world, engine, renewed, None, None);
                renewed.told = migrates(&renewed);
                let found = candidate.settle(&Ok(Refreshed::OptedOut), now(world));
                let found = self.finish(world, engine, found, None, Some(Told::FoundOptOut(person)));
                let refused = Err(EuidError::new(ErrorKind::RejectedToken, "as the exploration wants it"));
                let refused = candidate.settle(&refused, now(world));
                vec![renewed, found, self.finish(world, engine, refused, None, Some(Told::Removed(person)))]
            }
            Step::Load(load) => panic!("{load:?} without a store"),
        }
    }

    fn finish(
        &self,
        world: &World,
        engine: &Engine,
        decision: Decision,
        requested: Option<&Change>,
        told: Option<Told>,
    ) -> Response {
        let mut headers = HeaderMap::new();
        let (_, pending) = decision.start();
        engine.finish(pending, requested, StatusCode::OK, &mut headers, || now(world));
        let mut effects = effects(&world.logins, &headers, self.setup.app);
        if self.setup.off == Some(Rule::EndedAnchor) {
            for effect in &mut effects {
                if effect.value.as_deref() == Some("none") {
                    effect.value = None;
                }
            }
        }
        if self.setup.off == Some(Rule::AnchorFirst) {
            effects.reverse();
        }
        if self.setup.off == Some(Rule::Tags) {
            // What is set under the one name replaces the old value, and nothing removes it.
            let kind = |effect: &Effect| std::mem::discriminant(&effect.slot);
            let set: Vec<_> = effects.iter().filter(|effect| effect.value.is_some()).map(kind).collect();
            effects.retain(|effect| effect.value.is_some() || !set.contains(&kind(effect)));
        }
        Response { effects, told }
    }

    /// Applies a response, or its first `Set-Cookie` alone.
    fn apply(&self, world: &mut World, mut response: Response) -> String {
        let step = response.to_string();
        let (effects, told) = response.take(self.setup.singly);
        for effect in effects {
            self.set(world, effect);
        }
        if !response.effects.is_empty() {
            world.under_way.push(response);
        }
        match told {
            Some(Told::Login(login)) => {
                (world.current, world.decided) = (Some(Current::Login(Person::Login(login))), true);
            }
            Some(Told::OptOut(login)) => (world.current, world.decided) = (Some(Current::OptedOut(login)), true),
            Some(Told::Logout) => (world.current, world.decided) = (None, true),
            Some(Told::Migration) if !world.decided => world.current = Some(Current::Login(Person::Migrated)),
            Some(Told::FoundOptOut(person)) => {
                // A page that migrates can find the opt-out with its own refresh.
                if person == Person::Migrated && !world.decided {
                    world.current = Some(Current::Login(person));
                }
                world.opted_out.insert(person);
            }
            Some(Told::Removed(person)) => _ = world.removed.insert(person),
            Some(Told::Migration) | None => {}
        }
        let saves = match told {
            Some(Told::Logout) => self.setup.off != Some(Rule::LogoutSaved),
            Some(Told::Login(_) | Told::OptOut(_) | Told::FoundOptOut(_)) => self.setup.off != Some(Rule::LoginSaved),
            Some(Told::Migration | Told::Removed(_)) | None => false,
        };
        if saves && self.setup.restart && !world.restarted {
            world.saved = world.jar.clone();
        }
        step
    }

    fn set(&self, world: &mut World, effect: Effect) {
        let is_same = |kept: &Slot| match (kept, effect.slot) {
            _ if self.setup.off != Some(Rule::Tags) => *kept == effect.slot,
            (Slot::Identity(_), Slot::Identity(_)) | (Slot::OptOut(_), Slot::OptOut(_)) => true,
            (kept, slot) => *kept == slot,
        };
        world.jar.retain(|kept, _| !is_same(kept));
        if effect.value.is_some() {
            world.jar.insert(effect.slot, effect);
        }
    }

    fn judge_on(&self, world: &World, node: usize) -> Option<Violation> {
        let (shows_opt_out, token) = match self.begin(world, &self.nodes[node], &self.context(world)) {
            Step::Refresh(candidate) => (false, Some(person_of(candidate.identity().advertising_token()))),
            Step::Load(load) => panic!("{load:?} without a store"),
            Step::Ready(decision) => match decision.euid() {
                Euid::Active(token) => (false, Some(person_of(token.as_str()))),
                Euid::OptedOut => (true, None),
                _ => (false, None),
            },
        };
        if let Some(person) = token {
            return match world.current {
                Some(Current::Login(current)) if current == person => {
                    world.opted_out.contains(&person).then_some(Violation::TokenAfterOptOut)
                }
                // The SDK's own cookie, which no response has migrated yet.
                None if person == Person::Migrated && !world.decided => None,
                _ => Some(Violation::WrongToken),
            };
        }
        // Between the cookies of one response, and on a node without the key, something may be missing.
        let may_miss = (self.setup.singly && !world.under_way.is_empty()) || node == LACKS_A_KEY;
        match (world.current, shows_opt_out) {
            (Some(Current::Login(person)), true) => {
                (!world.opted_out.contains(&person)).then_some(Violation::WrongOptOut)
            }
            (Some(Current::OptedOut(_)), true) => None,
            (None, true) => (!may_miss).then_some(Violation::WrongOptOut),
            _ if may_miss => None,
            (Some(current), false) if has_ended(world, current) => None,
            (Some(Current::Login(person)), false) if world.opted_out.contains(&person) => {
                Some(Violation::ForgottenOptOut)
            }
            (Some(Current::Login(person)), false) => (!world.removed.contains(&person)).then_some(Violation::LostPair),
            (Some(Current::OptedOut(_)), false) => Some(Violation::ForgottenOptOut),
            (None, false) => None,
        }
    }

    /// The decision on a page whose refresh has no outcome.
    fn settled(&self, world: &World, engine: &Engine, context: &RequestContext<'_>) -> Decision {
        match self.begin(world, engine, context) {
            Step::Ready(decision) => decision,
            Step::Refresh(candidate) => candidate.postpone(now(world)),
            Step::Load(load) => panic!("{load:?} without a store"),
        }
    }

    fn begin(&self, world: &World, engine: &Engine, context: &RequestContext<'_>) -> Step {
        engine.begin(&Method::GET, &request(&world.jar, self.setup.app), context, || now(world))
    }
}

/// Whether all state of a login has expired.
fn has_ended(world: &World, current: Current) -> bool {
    match current {
        Current::Login(Person::Login(login)) | Current::OptedOut(login) => {
            world.waited.is_some_and(|before| usize::from(login) <= before)
        }
        Current::Login(Person::Migrated) => world.waited.is_some(),
    }
}

fn ready(step: Step) -> Decision {
    match step {
        Step::Ready(decision) => decision,
        step => panic!("{step:?} without consent"),
    }
}

/// Each request comes an hour after the one before, so that every pair is due.
fn now(world: &World) -> euid_core::clock::UnixMillis {
    let hours = u32::try_from(world.requests).unwrap() + if world.waited.is_some() { 5 * 24 } else { 0 };
    START.saturating_add(Duration::from_secs(3_600) * hours)
}

/// No login is of this user.
const ANOTHER_USER: u8 = 4;
/// The node that can't open what the first one seals.
const LACKS_A_KEY: usize = 2;

fn explore(setup: Setup) -> Findings<Violation> {
    let explorer = Explorer::new(setup);
    let findings = search::explore(&explorer, explorer.start(), |_| false);
    println!("{setup:?}\n  at most {} tagged cookies", explorer.most_cookies.get());
    findings.print();
    findings
}

/// The bounds of a test: what `EXPLORE` says, or these.
fn bounded(logins: usize, requests: usize, under_way: usize) -> Setup {
    let asked = std::env::var("EXPLORE").ok();
    let asked = asked.map(|bounds| bounds.split(',').map(|bound| bound.parse().unwrap()).collect::<Vec<usize>>());
    match asked.as_deref() {
        Some(&[logins, requests, under_way]) => Setup { logins, requests, under_way, ..Setup::default() },
        Some(other) => panic!("EXPLORE=LOGINS,REQUESTS,UNDER_WAY, not {other:?}"),
        None => Setup { logins, requests, under_way, ..Setup::default() },
    }
}

#[test]
fn no_order_of_responses_breaks_a_promise() {
    for setup in [
        bounded(2, 4, 3),
        Setup { sdk: true, ..bounded(2, 4, 2) },
        Setup { singly: true, ..bounded(2, 4, 2) },
        Setup { sdk: true, singly: true, ..bounded(1, 4, 2) },
        Setup { nodes: true, ..bounded(2, 3, 2) },
        Setup { subject: true, sdk: true, ..bounded(2, 4, 2) },
        Setup { consent: true, sdk: true, ..bounded(2, 3, 2) },
        Setup { sdk: true, singly: true, nodes: true, subject: true, consent: true, ..bounded(1, 3, 2) },
    ] {
        assert_eq!(explore(setup).met(), [], "{setup:?}");
    }
}

#[test]
fn no_order_of_responses_to_an_app_breaks_a_promise() {
    for setup in [
        Setup { app: true, ..bounded(2, 4, 3) },
        Setup { app: true, restart: true, ..bounded(2, 4, 2) },
        Setup { app: true, wait: true, ..bounded(2, 4, 2) },
        Setup { app: true, nodes: true, ..bounded(2, 3, 2) },
        Setup { app: true, subject: true, ..bounded(2, 4, 2) },
        Setup { app: true, consent: true, wait: true, ..bounded(2, 3, 2) },
        Setup { app: true, restart: true, wait: true, nodes: true, subject: true, consent: true, ..bounded(1, 3, 2) },
    ] {
        assert_eq!(explore(setup).met(), [], "{setup:?}");
    }
}

#[test]
fn without_tags_a_pair_is_lost_and_opt_outs_are_forgotten() {
    for app in [false, true] {
        let setup = Setup { off: Some(Rule::Tags), app, logins: 2, requests: 5, under_way: 3, ..Setup::default() };
        let met = explore(setup).met();
        assert_eq!(met, [Violation::TokenAfterOptOut, Violation::LostPair, Violation::ForgottenOptOut], "{app}");
    }
}

#[test]
fn logout_that_an_app_has_not_saved_is_undone_by_a_restart() {
    let setup = Setup { off: Some(Rule::LogoutSaved), app: true, restart: true, ..bounded(1, 3, 2) };
    let met = explore(setup).met();
    assert_eq!(met, [Violation::WrongToken, Violation::WrongOptOut]);
}

#[test]
fn login_or_opt_out_that_an_app_has_not_saved_is_undone_by_a_restart() {
    let setup = Setup { off: Some(Rule::LoginSaved), app: true, restart: true, ..bounded(2, 3, 2) };
    let met = explore(setup).met();
    for violation in [Violation::WrongToken, Violation::TokenAfterOptOut, Violation::ForgottenOptOut] {
        assert!(met.contains(&violation), "{violation:?} {met:?}");
    }
}

#[test]
fn without_an_anchor_after_a_logout_a_migrated_identity_comes_back() {
    let setup =
        Setup { off: Some(Rule::EndedAnchor), sdk: true, logins: 1, requests: 3, under_way: 2, ..Setup::default() };
    assert!(explore(setup).violations.contains_key(&Violation::WrongToken));
}

#[test]
fn with_removals_before_the_anchor_a_token_is_seen_after_its_opt_out() {
    let setup = Setup { off: Some(Rule::AnchorFirst), singly: true, ..bounded(2, 4, 2) };
    let met = explore(setup).met();
    assert!(met.contains(&Violation::TokenAfterOptOut), "{met:?}");
}
