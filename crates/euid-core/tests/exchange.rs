//! Tests of exchanges between a visitor and the engine. They use only the public API, as a host does.
//!
//! The tests write the names of EUID's cookies. If the variable `TEST_SCOPE` is `uid2`, the engine is of UID2, and
//! [`Visit`] replaces the names in requests and responses.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::env::VarError;
use std::sync::Arc;
use std::time::Duration;

use euid_core::clock::UnixMillis;
use euid_core::engine::{
    Change, Decision, Engine, Findings, NewLogin, Pending, RefreshCandidate, RejectReason, Report, RequestContext,
    SignedIn, Step, UserCheck, Watch, WriteError,
};
use euid_core::error::{ErrorKind, EuidError};
use euid_core::identity::{Identity, IdentityTimes};
use euid_core::{AdvertisingToken, Consent, CookieConfig, CookieKey, Euid, HeaderConfig, KeyRing, Refreshed, Scope};
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

const START: UnixMillis = UnixMillis::from_millis(1_795_371_587_000);
/// Past `refresh_from` and its jitter.
const DUE: Duration = Duration::from_secs(2_000);
const EXPIRED: Duration = Duration::from_secs(4_000);

const IDENTITY: &str = "__Host-euid";
const LOGIN: &str = "__Host-euid-login";
const OPT_OUT: &str = "__Host-euid-optout";
const MIGRATED: &str = "__Host-euid.sdk";
const SCRIPTS: &str = "__euid_advertising_token";
const SDK: &str = "__euid";

const GRANTED: RequestContext<'static> = RequestContext::UNRESTRICTED;
const WITHHELD: RequestContext<'static> = RequestContext { consent: Consent::Withheld, ..GRANTED };
const WITHDRAWN: RequestContext<'static> = RequestContext { consent: Consent::Withdrawn, ..GRANTED };

fn identity_of(token: &str, issued: UnixMillis) -> Identity {
    let at = |seconds| issued.saturating_add(Duration::from_secs(seconds));
    let times = IdentityTimes { refresh_from: at(900), identity_expires: at(3_600), refresh_expires: at(86_400) };
    Identity::new(token, "refresh".to_owned().into(), [5; 32].into(), times).unwrap()
}

fn failure(kind: ErrorKind) -> Result<Refreshed, EuidError> {
    Err(EuidError::new(kind, "as the test wants it"))
}

fn new_engine() -> Engine {
    engine_with(CookieKey::generate().unwrap().into())
}

fn engine_with(keys: KeyRing) -> Engine {
    Engine::new(keys).with_scope(scope())
}

/// Returns the scope that the tests run in.
fn scope() -> Scope {
    match std::env::var("TEST_SCOPE").as_deref() {
        Ok("euid") | Err(VarError::NotPresent) => Scope::Euid,
        Ok("uid2") => Scope::Uid2,
        other => panic!("TEST_SCOPE must be `euid` or `uid2`, or not set; it is {other:?}"),
    }
}

/// What differs in the names of the cookies: in EUID, and in UID2.
const NAMES: [(&str, &str); 3] =
    [("__Host-euid", "__Host-uid2"), (SCRIPTS, "__uid2_advertising_token"), (SDK, "__uid_2")];

/// Returns the name in the tests' scope of a cookie of EUID. Leaves other cookies alone.
fn in_scope(name: &str) -> String {
    let replaced = NAMES.iter().find_map(|(euid, uid2)| Some(format!("{uid2}{}", name.strip_prefix(euid)?)));
    replaced.filter(|_| scope() == Scope::Uid2).unwrap_or_else(|| name.to_owned())
}

/// Returns the name in EUID of a cookie in the tests' scope. Fails for a name of the other scope.
fn in_euid(name: &str) -> String {
    let of = |own: fn(&(&'static str, &'static str)) -> &'static str| {
        NAMES.iter().find_map(|names| Some(format!("{}{}", names.0, name.strip_prefix(own(names))?)))
    };
    let found = match scope() {
        Scope::Euid => of(|names| names.0),
        Scope::Uid2 => of(|names| names.1),
    };
    found.unwrap_or_else(|| panic!("{name} is no cookie of {}", scope()))
}

/// A browser, and the engine of the site that it visits.
#[derive(Clone)]
struct Visit {
    engine: Engine,
    cookies: BTreeMap<String, String>,
    now: UnixMillis,
}

impl Visit {
    fn new(engine: Engine) -> Self {
        Self { engine, cookies: BTreeMap::new(), now: START }
    }

    /// Returns a browser that logged in at [`START`], with the token `old`.
    fn logged_in(engine: Engine) -> Self {
        let mut visit = Self::new(engine);
        visit.page(&GRANTED, Some(&Change::login(identity_of("old", START))));
        visit
    }

    /// Returns a browser that logged in at [`START`] as the application's user 17.
    fn bound(engine: Engine) -> Self {
        let mut visit = Self::new(engine);
        let identity = Arc::new(identity_of("old", START));
        let login = Change::Begin(Arc::new(NewLogin { identity, subject: Some(b"17"[..].into()) }));
        visit.page(&GRANTED, Some(&login));
        visit
    }

    fn wait(mut self, time: Duration) -> Self {
        self.now = self.now.saturating_add(time);
        self
    }

    fn request(&self, more: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{}={value}", in_scope(name))).collect();
        if !cookies.is_empty() {
            headers.insert(COOKIE, HeaderValue::try_from(cookies.join("; ")).unwrap());
        }
        for (name, value) in more {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn begin(&self, context: &RequestContext<'_>) -> Step {
        self.engine.begin(&Method::GET, &self.request(&[]), context, || self.now)
    }

    fn begin_with(&self, more: &[(&'static str, &str)]) -> Step {
        self.engine.begin(&Method::GET, &self.request(more), &GRANTED, || self.now)
    }

    /// Writes a response and keeps its cookies.
    fn finish(&mut self, pending: Pending, requested: Option<&Change>, status: StatusCode) -> (Report, Vec<String>) {
        let mut headers = HeaderMap::new();
        let finish = self.engine.finish(pending, requested, status, &mut headers, || self.now).report();
        (finish, self.keep(&headers))
    }

    /// Keeps the cookies of a response. Returns the names of those that it sets and removes, without tags.
    fn keep(&mut self, headers: &HeaderMap) -> Vec<String> {
        let mut names: Vec<_> = headers.get_all(SET_COOKIE).iter().map(|line| self.keep_cookie(line)).collect();
        names.sort();
        names
    }

    fn keep_cookie(&mut self, line: &HeaderValue) -> String {
        let line = line.to_str().unwrap();
        let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
        let name = in_euid(name);
        let without_tag = match name.split_once('.') {
            Some((without_tag, tag)) if tag != "sdk" => without_tag,
            _ => &name,
        };
        if line.contains("Max-Age=0") {
            self.cookies.remove(&name);
            format!("{without_tag} removed")
        } else {
            self.cookies.insert(name.clone(), value.to_owned());
            without_tag.to_owned()
        }
    }

    /// Visits a page that needs no refresh. Returns the state that its handler sees, and the cookies that it writes.
    fn page(&mut self, context: &RequestContext<'_>, requested: Option<&Change>) -> (&'static str, Vec<String>) {
        let (euid, pending) = ready(self.begin(context)).start();
        (euid.state(), self.finish(pending, requested, StatusCode::OK).1)
    }

    /// Visits a page whose refresh has this outcome. Returns the state with its token, and the cookies that it writes.
    fn refreshed(&mut self, outcome: &Result<Refreshed, EuidError>) -> (String, Vec<String>) {
        let (euid, pending) = due(self.begin(&GRANTED)).settle(outcome, self.now).start();
        let token = euid.advertising_token().map(|token| format!("({token})"));
        let saw = format!("{}{}", euid.state(), token.unwrap_or_default());
        (saw, self.finish(pending, None, StatusCode::OK).1)
    }
}

fn ready(step: Step) -> Decision {
    match step {
        Step::Ready(decision) => decision,
        step => panic!("{step:?} is not ready"),
    }
}

fn due(step: Step) -> Box<RefreshCandidate> {
    match step {
        Step::Refresh(candidate) => candidate,
        step => panic!("{step:?} is not due"),
    }
}

/// Returns the expected names of the cookies that a response sets and removes.
fn written<const S: usize, const R: usize>(set: [&str; S], removed: [&str; R]) -> Vec<String> {
    let removed = removed.into_iter().map(|name| format!("{name} removed"));
    let mut names: Vec<_> = set.into_iter().map(str::to_owned).chain(removed).collect();
    names.sort();
    names
}

fn nothing() -> Vec<String> {
    Vec::new()
}

fn logged_out() -> Vec<String> {
    written([], [IDENTITY, LOGIN])
}

#[test]
fn login_is_seen_by_the_next_page_which_writes_nothing() {
    let mut visit = Visit::new(new_engine());
    let login = Change::login(identity_of("old", START));
    assert_eq!(visit.page(&GRANTED, Some(&login)), ("absent", written([IDENTITY, LOGIN], [])));
    let decision = ready(visit.begin(&GRANTED));
    assert!(matches!(decision.change(), Change::Keep) && decision.findings().is_empty() && !decision.stores_identity());
    assert_eq!(decision.euid().advertising_token().map(AdvertisingToken::as_str), Some("old"));
    assert_eq!(visit.page(&GRANTED, None), ("active", nothing()));
}

#[test]
fn page_that_reads_the_token_is_private_and_one_that_writes_is_no_store() {
    let visit = Visit::logged_in(new_engine());
    for (reads, requested, expected) in [
        (false, None, None),
        (true, None, Some("private, no-cache")),
        (false, Some(Change::EndLogin), Some("private, no-store")),
    ] {
        let (euid, pending) = ready(visit.begin(&GRANTED)).start();
        if reads {
            assert_eq!(euid.advertising_token().unwrap().as_str(), "old");
        }
        let mut headers = HeaderMap::new();
        let finish =
            visit.engine.finish(pending, requested.as_ref(), StatusCode::OK, &mut headers, || visit.now).report();
        let cache = headers.get(CACHE_CONTROL).map(|value| value.to_str().unwrap());
        assert_eq!((cache, finish.unguarded), (expected, false));
        assert_eq!(headers.get(VARY).is_some_and(|vary| vary == "cookie" || vary == "Cookie"), reads);
    }
}

#[test]
fn login_reports_its_size_and_whether_it_has_no_user() {
    let mut visit = Visit::new(new_engine());
    let identity = Arc::new(identity_of("new", START));
    for subject in [None, Some(Box::from(&b"17"[..]))] {
        let unbound = subject.is_none();
        let login = Change::Begin(Arc::new(NewLogin { identity: Arc::clone(&identity), subject }));
        visit.cookies.clear();
        let (_, pending) = ready(visit.begin(&GRANTED)).start();
        let finish = visit.finish(pending, Some(&login), StatusCode::OK).0;
        let identity = visit.cookies.iter().find(|(name, _)| name.starts_with("__Host-euid.")).unwrap();
        let size = identity.0.len() + identity.1.len();
        assert_eq!((finish.identity_bytes, finish.login_without_subject), (Some(size), unbound));
        assert!(finish.unwritten.is_none() && finish.renewed.is_none());
    }
}

#[test]
fn too_large_or_expired_login_is_not_written_and_ends_the_previous_one() {
    let too_large = identity_of(&"x".repeat(4_000), START);
    let expired = identity_of("x", START.saturating_sub(Duration::from_secs(86_400)));
    for (identity, reason) in [(too_large, WriteError::TooLarge), (expired, WriteError::Expired)] {
        let mut visit = Visit::logged_in(new_engine());
        let (_, pending) = ready(visit.begin(&GRANTED)).start();
        let (finish, wrote) = visit.finish(pending, Some(&Change::login(identity)), StatusCode::OK);
        assert_eq!((finish.unwritten, wrote), (Some(reason), logged_out()));
    }
}

#[test]
fn refresh_writes_a_new_pair_of_the_same_login() {
    let mut visit = Visit::logged_in(new_engine()).wait(DUE);
    let candidate = due(visit.begin(&GRANTED));
    assert_eq!(**candidate.identity(), identity_of("old", START));
    assert!(candidate.is_usable() && candidate.may_write() && candidate.may_refresh() && candidate.may_wait());
    assert_eq!(candidate.arrived(), visit.now);
    let lineage = candidate.lineage().unwrap();

    let new = identity_of("new", visit.now);
    let decision = candidate.settle(&Ok(Refreshed::Identity(new.clone())), visit.now);
    assert!(matches!(decision.change(), Change::Renew(_)) && decision.stores_identity());
    let (euid, pending) = decision.start();
    assert_eq!(euid.advertising_token().unwrap().as_str(), "new");
    let (finish, wrote) = visit.finish(pending, None, StatusCode::OK);
    assert_eq!(wrote, written([IDENTITY], []));
    let renewal = finish.renewed.unwrap();
    assert_eq!((renewal.login.lineage(), &*renewal.identity), (lineage, &new));

    visit = visit.wait(DUE);
    assert_eq!(due(visit.begin(&GRANTED)).lineage(), Some(lineage));
}

#[test]
fn new_pair_that_is_already_due_is_written_as_due_later() {
    let mut visit = Visit::logged_in(new_engine()).wait(DUE);
    let candidate = due(visit.begin(&GRANTED));
    // The operator's clock is behind: it issues the pair as of the time of the login.
    let decision = candidate.settle(&Ok(Refreshed::Identity(identity_of("new", START))), visit.now);
    let (_, pending) = decision.start();
    visit.finish(pending, None, StatusCode::OK);
    assert_eq!(ready(visit.begin(&GRANTED)).euid().state(), "active", "the next page does not refresh");
}

#[test]
fn withdrawn_consent_removes_an_opt_out_record_without_a_login() {
    let mut visit = Visit::new(new_engine());
    visit.cookies.insert(format!("{OPT_OUT}.abcd"), "any".to_owned());
    assert_eq!(visit.clone().page(&WITHDRAWN, None).1, written([], [LOGIN, OPT_OUT]));
    assert_eq!(visit.page(&GRANTED, None).1, written([], [OPT_OUT]), "no anchor names it");
}

#[test]
fn failed_refresh_keeps_the_state_and_a_refused_one_ends_the_identity() {
    let due_visit = Visit::logged_in(new_engine()).wait(DUE);
    let expired_visit = Visit::logged_in(new_engine()).wait(EXPIRED);
    let forgotten = written([], [IDENTITY]);
    for (visit, kind, saw, wrote) in [
        (&due_visit, ErrorKind::Transient, "active(old)", nothing()),
        (&due_visit, ErrorKind::RejectedInput, "active(old)", nothing()),
        (&due_visit, ErrorKind::RejectedToken, "absent", forgotten.clone()),
        (&expired_visit, ErrorKind::Transient, "unavailable", nothing()),
        (&expired_visit, ErrorKind::RejectedInput, "absent", forgotten.clone()),
        (&expired_visit, ErrorKind::RejectedToken, "absent", forgotten),
    ] {
        assert_eq!(visit.clone().refreshed(&failure(kind)), (saw.to_owned(), wrote), "{kind:?}");
    }
    assert!(!due(expired_visit.begin(&GRANTED)).is_usable());
}

#[test]
fn opt_out_found_by_a_refresh_is_remembered_for_its_login() {
    let mut visit = Visit::logged_in(new_engine()).wait(DUE);
    let wrote = visit.refreshed(&Ok(Refreshed::OptedOut));
    assert_eq!(wrote, ("opted_out".to_owned(), written([OPT_OUT], [IDENTITY])));
    assert_eq!(visit.page(&GRANTED, None), ("opted_out", nothing()));
    let mut later = visit.clone().wait(Duration::from_secs(72 * 3_600));
    assert_eq!(later.page(&GRANTED, None), ("absent", nothing()));
    let login = Change::login(identity_of("new", visit.now));
    assert_eq!(visit.page(&GRANTED, Some(&login)).0, "opted_out");
    assert_eq!(visit.page(&GRANTED, None), ("active", nothing()));
}

#[test]
fn identity_under_an_old_key_is_resealed_unless_the_host_defers_it() {
    let [old, new] = [(); 2].map(|()| CookieKey::generate().unwrap());
    let mut visit = Visit::logged_in(engine_with(old.clone().into()));
    visit.engine = engine_with(KeyRing::new([new, old]).unwrap());
    assert_eq!(visit.page(&GRANTED, None), ("active", nothing()), "reseal is off by default");

    visit.engine = visit.engine.clone().with_reseal(true);
    let mut decision = ready(visit.begin(&GRANTED));
    assert!(decision.findings().old_key && decision.stores_identity());
    decision.defer();
    assert!(!decision.stores_identity() && decision.euid().advertising_token().is_some());
    assert_eq!(visit.finish(decision.start().1, None, StatusCode::OK).1, nothing());

    assert_eq!(visit.page(&GRANTED, None), ("active", written([IDENTITY], [])));
    let decision = ready(visit.begin(&GRANTED));
    assert_eq!(decision.findings(), Findings::default());
}

#[test]
fn logout_ends_the_login_by_change_handle_or_header() {
    let login = Change::login(identity_of("new", START));
    let clears = |value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("clear-site-data", HeaderValue::from_static(value));
        headers
    };
    for (requested, calls_handle, headers, expected) in [
        (Some(&Change::EndLogin), false, HeaderMap::new(), logged_out()),
        (None, true, HeaderMap::new(), logged_out()),
        (Some(&login), true, HeaderMap::new(), logged_out()),
        (None, false, clears("\"cache\", \"cookies\""), logged_out()),
        (Some(&login), false, clears("\"*\""), logged_out()),
        (None, false, clears("\"cache\""), nothing()),
    ] {
        let mut visit = Visit::logged_in(new_engine());
        let (_, pending) = ready(visit.begin(&GRANTED)).start();
        if calls_handle {
            pending.logout().unwrap().logout();
        }
        let mut response = headers.clone();
        assert_eq!(Engine::may_be_logout(&response), !response.is_empty());
        visit.engine.finish(pending, requested, StatusCode::INTERNAL_SERVER_ERROR, &mut response, || visit.now);
        assert_eq!(visit.keep(&response), expected, "{requested:?} {headers:?}");
    }
}

#[test]
fn logout_beats_the_new_pair_of_a_refresh() {
    let mut visit = Visit::logged_in(new_engine()).wait(DUE);
    let new = Refreshed::Identity(identity_of("new", visit.now));
    let (_, pending) = due(visit.begin(&GRANTED)).settle(&Ok(new), visit.now).start();
    let (finish, wrote) = visit.finish(pending, Some(&Change::EndLogin), StatusCode::OK);
    assert_eq!(wrote, logged_out());
    assert!(finish.renewed.is_none());
    assert_eq!(visit.page(&GRANTED, None), ("absent", nothing()));
}

#[test]
fn logout_handle_exists_for_cookies_or_an_unsafe_method() {
    let handle = |visit: &Visit, method: &Method| {
        let step = visit.engine.begin(method, &visit.request(&[]), &GRANTED, || visit.now);
        ready(step).start().1.logout().is_some()
    };
    let (new, logged_in) = (Visit::new(new_engine()), Visit::logged_in(new_engine()));
    assert!(!handle(&new, &Method::GET) && handle(&new, &Method::POST) && handle(&logged_in, &Method::GET));
}

#[test]
fn withheld_consent_keeps_the_login_and_withdrawn_consent_ends_it() {
    for age in [Duration::ZERO, DUE, EXPIRED] {
        let mut visit = Visit::logged_in(new_engine()).wait(age);
        assert_eq!(visit.page(&WITHHELD, None), ("withheld", nothing()), "{age:?}");
        assert_eq!(visit.page(&WITHDRAWN, None), ("withheld", logged_out()), "{age:?}");
        assert_eq!(visit.page(&WITHDRAWN, None), ("withheld", nothing()), "{age:?}");
    }
}

#[test]
fn login_is_written_if_consent_is_withheld_and_not_if_it_is_withdrawn() {
    let login = Change::login(identity_of("new", START));
    let mut visit = Visit::new(new_engine());
    assert_eq!(visit.page(&WITHHELD, Some(&login)).1, written([IDENTITY, LOGIN], []));
    let (_, pending) = ready(visit.begin(&WITHDRAWN)).start();
    let (finish, wrote) = visit.finish(pending, Some(&login), StatusCode::OK);
    assert!(finish.login_without_consent);
    assert_eq!(wrote, logged_out());
}

#[test]
fn withdrawn_consent_cannot_be_deferred() {
    let visit = Visit::logged_in(new_engine());
    let mut decision = ready(visit.begin(&WITHDRAWN));
    decision.defer();
    assert!(matches!(decision.change(), Change::EndLogin));
    let image = visit.request(&[("sec-fetch-dest", "image")]);
    let decision = ready(visit.engine.begin(&Method::GET, &image, &WITHDRAWN, || visit.now));
    assert!(matches!(decision.change(), Change::EndLogin), "an image doesn't defer it either");
}

#[test]
fn bound_login_is_visible_to_its_user_only() {
    let visit = Visit::bound(new_engine());
    for (user, state, wrote, rejected) in [
        (SignedIn::User(b"17"), "active", nothing(), None),
        (SignedIn::Unchecked, "active", nothing(), None),
        (SignedIn::NoUser, "absent", nothing(), Some(RejectReason::NoUser)),
        (SignedIn::User(b"18"), "absent", written([], [IDENTITY]), Some(RejectReason::OtherUser)),
    ] {
        let context = RequestContext { user, ..GRANTED };
        let findings = ready(visit.begin(&context)).findings();
        assert_eq!((findings.rejected, findings.old_key), (rejected, false), "{user:?}");
        let check = rejected.map_or(UserCheck::Same, UserCheck::Rejected);
        assert_eq!(visit.engine.check_user(&visit.request(&[]), &context), check, "{user:?}");
        assert_eq!(visit.clone().page(&context, None), (state, wrote), "{user:?}");
    }
    let other_site = Visit { engine: new_engine(), ..visit };
    assert_eq!(other_site.engine.check_user(&other_site.request(&[]), &GRANTED), UserCheck::Unreadable);
    assert_eq!(ready(other_site.begin(&GRANTED)).findings().rejected, Some(RejectReason::UnknownKey));
}

#[test]
fn refresh_keeps_a_login_bound_or_unbound() {
    for (visit, bound) in [(Visit::bound(new_engine()), true), (Visit::logged_in(new_engine()), false)] {
        let mut visit = visit.wait(DUE);
        let new = Ok(Refreshed::Identity(identity_of("new", visit.now)));
        let (_, pending) = due(visit.begin(&GRANTED)).settle(&new, visit.now).start();
        let record = visit.finish(pending, None, StatusCode::OK).0.renewed.unwrap();
        assert_eq!(record.login.is_bound(), bound);
    }
}

/// Returns a browser with the cookie of the JavaScript SDK, on a site that migrates it.
fn sdk_visit() -> Visit {
    let config = CookieConfig::default().migrate_js_sdk_cookie(None).unwrap();
    let mut visit = Visit::new(new_engine().with_cookie(config));
    let [from, token, refresh] =
        [900, 3_600, 86_400].map(|seconds| START.saturating_add(Duration::from_secs(seconds)).as_millis());
    let json = format!(
        r#"{{"advertising_token":"sdk","refresh_token":"r","refresh_response_key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","refresh_from":{from},"identity_expires":{token},"refresh_expires":{refresh}}}"#
    );
    visit.cookies.insert(SDK.to_owned(), json);
    visit
}

#[test]
fn js_sdk_cookie_is_migrated_without_an_anchor() {
    let mut visit = sdk_visit();
    let migrated = written([MIGRATED], [SDK]);
    assert_eq!(visit.page(&GRANTED, None), ("active", migrated.clone()));
    assert_eq!(visit.page(&GRANTED, None), ("active", nothing()));

    let visit = sdk_visit().wait(DUE);
    assert_eq!(due(visit.begin(&GRANTED)).lineage(), None);
    let new = Ok(Refreshed::Identity(identity_of("new", visit.now)));
    for (outcome, saw, wrote) in [
        (new, "active(new)", migrated.clone()),
        (failure(ErrorKind::Transient), "active(sdk)", migrated),
        (failure(ErrorKind::RejectedToken), "absent", written([], [SDK])),
        (Ok(Refreshed::OptedOut), "opted_out", written(["__Host-euid-optout.sdk"], [SDK])),
    ] {
        assert_eq!(visit.clone().refreshed(&outcome), (saw.to_owned(), wrote), "{outcome:?}");
    }
}

#[test]
fn clock_is_read_only_if_the_state_depends_on_it() {
    let calls = |visit: &Visit| {
        let calls = Cell::new(0);
        let now = || {
            calls.set(calls.get() + 1);
            visit.now
        };
        let (_, pending) = ready(visit.engine.begin(&Method::GET, &visit.request(&[]), &GRANTED, now)).start();
        visit.engine.finish(pending, None, StatusCode::OK, &mut HeaderMap::new(), now);
        calls.get()
    };
    assert_eq!(calls(&Visit::new(new_engine())), 0);
    assert_eq!(calls(&foreign_cookies()), 0);
    assert_eq!(calls(&Visit::logged_in(new_engine())), 1);
}

/// Returns a browser with forty cookies of other programs.
fn foreign_cookies() -> Visit {
    let mut visit = Visit::new(new_engine());
    visit.cookies = (0..40).map(|number| (format!("other{number}"), "x".repeat(60))).collect();
    visit
}

#[test]
fn pending_without_a_plan_becomes_a_watch() {
    for visit in [Visit::new(new_engine()), foreign_cookies(), Visit::logged_in(new_engine())] {
        let (_, pending) = ready(visit.begin(&GRANTED)).start();
        assert!(pending.into_watch().unwrap().is_blank());
    }
    assert!(Watch::default().is_blank());
    assert_eq!(size_of::<Watch>(), size_of::<usize>());
}

#[test]
fn watch_notes_a_read_of_the_token_and_a_logout() {
    let mut visit = Visit::logged_in(new_engine());
    for (act, expected) in [
        ((|euid, _| _ = euid.advertising_token().unwrap().as_str()) as fn(&Euid, &Pending), nothing()),
        (|_, pending| pending.logout().unwrap().logout(), logged_out()),
    ] {
        let (euid, pending) = ready(visit.begin(&GRANTED)).start();
        act(&euid, &pending);
        let watch = pending.into_watch().unwrap();
        assert!(!watch.is_blank());
        assert_eq!(visit.finish(watch.into(), None, StatusCode::OK).1, expected);
    }
}

#[test]
fn watch_holds_the_removal_of_an_identity() {
    let mut visit = Visit::logged_in(new_engine());
    for (_, value) in visit.cookies.iter_mut().filter(|(name, _)| name.starts_with("__Host-euid.")) {
        value.truncate(value.len() - 4);
    }
    let (euid, pending) = ready(visit.begin(&GRANTED)).start();
    assert_eq!(euid.state(), "absent");
    let watch = pending.into_watch().unwrap();
    assert!(!watch.is_blank());
    assert_eq!(visit.finish(watch.into(), None, StatusCode::OK).1, written([], [IDENTITY]));
}

#[test]
fn pending_with_a_plan_does_not_become_a_watch() {
    let visit = Visit::logged_in(new_engine()).wait(DUE);
    let new = Ok(Refreshed::Identity(identity_of("new", visit.now)));
    let renews = due(visit.begin(&GRANTED)).settle(&new, visit.now).start().1;
    let ends = ready(visit.begin(&WITHDRAWN)).start().1;
    let without_state = ready(Visit::new(new_engine()).begin(&WITHDRAWN)).start().1;
    let mut withholds = ready(Visit::logged_in(new_engine()).begin(&GRANTED)).start().1;
    withholds.withhold_token();
    for pending in [renews, ends, without_state, withholds] {
        assert!(pending.into_watch().is_err());
    }
    let pending = due(visit.begin(&GRANTED)).settle(&new, visit.now).start().1.into_watch().unwrap_err();
    assert_eq!(
        visit.clone().finish(pending, None, StatusCode::OK).1,
        written([IDENTITY], []),
        "the pending is returned unchanged"
    );
}

#[test]
fn refresh_that_ends_during_the_handler_is_written_by_its_response() {
    let mut visit = Visit::logged_in(new_engine()).wait(DUE);
    let candidate = due(visit.begin(&GRANTED));
    let (euid, mut pending) = candidate.settle(&failure(ErrorKind::Transient), visit.now).start();
    let new = Ok(Refreshed::Identity(identity_of("new", visit.now)));
    pending.adopt(candidate.settle(&new, visit.now));
    assert_eq!(euid.advertising_token().unwrap().as_str(), "old");
    let (finish, wrote) = visit.finish(pending, None, StatusCode::OK);
    assert_eq!(wrote, written([IDENTITY], []));
    assert_eq!(finish.renewed.unwrap().identity.advertising_token(), "new");
}

#[test]
fn post_request_leaves_the_refresh_to_the_next_page() {
    for (age, state) in [(DUE, "active"), (EXPIRED, "unavailable")] {
        let mut visit = Visit::logged_in(new_engine()).wait(age);
        let step = visit.engine.begin(&Method::POST, &visit.request(&[]), &GRANTED, || visit.now);
        let candidate = due(step);
        assert!(!candidate.may_wait(), "the POST may be a logout");
        let (euid, pending) = candidate.postpone(visit.now).start();
        assert_eq!(euid.state(), state);
        assert_eq!(visit.finish(pending, None, StatusCode::OK).1, nothing());
        assert!(due(visit.begin(&GRANTED)).may_wait());
    }
}

#[test]
fn subresource_or_prefetch_writes_only_the_change_of_its_handler() {
    for header in [("sec-fetch-dest", "image"), ("sec-purpose", "prefetch"), ("next-router-prefetch", "1")] {
        let visit = Visit::logged_in(new_engine()).wait(DUE);
        let candidate = due(visit.begin_with(&[header]));
        assert!(!candidate.may_write() && !candidate.may_refresh(), "{header:?}");
        let decision = ready(sdk_visit().begin_with(&[header]));
        assert!(decision.euid().advertising_token().is_some() && !decision.stores_identity(), "{header:?}");
    }
    let mut visit = Visit::logged_in(new_engine());
    let (_, pending) = ready(visit.begin_with(&[("sec-fetch-dest", "image")])).start();
    assert_eq!(visit.finish(pending, Some(&Change::EndLogin), StatusCode::OK).1, logged_out(), "the requested logout");
}

#[test]
fn response_304_writes_a_logout_or_opt_out_but_no_new_pair() {
    let visit = Visit::logged_in(new_engine()).wait(DUE);
    assert!(!due(visit.begin_with(&[("if-none-match", "\"1\"")])).may_refresh());
    let new = Ok(Refreshed::Identity(identity_of("new", visit.now)));
    for (outcome, requested, expected) in [
        (&new, None, nothing()),
        (&new, Some(&Change::EndLogin), logged_out()),
        (&Ok(Refreshed::OptedOut), None, written([OPT_OUT], [IDENTITY])),
    ] {
        let mut visit = visit.clone();
        let (_, pending) = due(visit.begin(&GRANTED)).settle(outcome, visit.now).start();
        let (finish, wrote) = visit.finish(pending, requested, StatusCode::NOT_MODIFIED);
        assert_eq!(wrote, expected);
        assert!(finish.renewed.is_none());
    }
}

#[test]
fn script_cookie_follows_the_token_that_the_handler_sees() {
    let config = CookieConfig::default().expose_token_to_scripts();
    let mut visit = Visit::new(new_engine().with_cookie(config));
    let login = Change::login(identity_of("old", START));
    assert_eq!(visit.page(&GRANTED, Some(&login)).1, written([IDENTITY, LOGIN, SCRIPTS], []));
    assert_eq!(visit.page(&GRANTED, None), ("active", nothing()));
    visit.cookies.remove(SCRIPTS);
    assert_eq!(visit.page(&GRANTED, None), ("active", written([SCRIPTS], [])));
    assert_eq!(visit.page(&WITHHELD, None), ("withheld", written([], [SCRIPTS])));

    let (_, mut pending) = ready(visit.begin(&GRANTED)).start();
    pending.withhold_token();
    let wrote = visit.finish(pending, Some(&login), StatusCode::OK).1;
    assert_eq!(wrote, written([IDENTITY, LOGIN], [IDENTITY, SCRIPTS]), "the previous identity is removed");
}

#[test]
fn logout_handle_has_the_id_that_the_host_set() {
    let (_, pending) = ready(Visit::logged_in(new_engine()).begin(&GRANTED)).start();
    pending.set_host_id(7);
    assert_eq!(pending.logout().unwrap().host_id(), Some(7));
}

/// Returns all that a host can see of a step, and the cookies that its response writes.
fn outcome(visit: &Visit, step: Step) -> String {
    let mut visit = visit.clone();
    let (facts, decision) = match step {
        Step::Ready(decision) => (format!("{:?} {}", decision.findings(), decision.stores_identity()), decision),
        Step::Refresh(candidate) => {
            let facts = [candidate.may_write(), candidate.may_refresh(), candidate.may_wait(), candidate.is_usable()];
            let new = Refreshed::Identity(identity_of("new", visit.now));
            (format!("{facts:?} {:?}", candidate.lineage().is_some()), candidate.settle(&Ok(new), visit.now))
        }
        Step::Load(load) => panic!("{load:?} of an engine without a store"),
    };
    let (euid, pending) = decision.start();
    let token = euid.advertising_token().map(AdvertisingToken::as_str);
    let seen = format!("{} {token:?} {}", euid.state(), pending.logout().is_some());
    format!("{facts} {seen} {:?}", visit.finish(pending, None, StatusCode::OK).1)
}

/// The outcome with all headers of a request, and with those that `reads` admits.
fn compare(visit: &Visit, method: &Method, headers: &HeaderMap, reads: impl Fn(&HeaderName) -> bool) -> [String; 2] {
    let mut copy = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| reads(name)) {
        copy.append(name, value.clone());
    }
    [headers, &copy].map(|headers| outcome(visit, visit.engine.begin(method, headers, &GRANTED, || visit.now)))
}

/// For each header that the engine reads except `Cookie`, headers with an effect on the decision.
const VALUES: &[(&str, &[(&str, &str)])] = &[
    ("connection", &[("connection", "upgrade"), ("upgrade", "websocket")]),
    ("upgrade", &[("connection", "upgrade"), ("upgrade", "websocket")]),
    ("if-none-match", &[("if-none-match", "\"1\"")]),
    ("if-modified-since", &[("if-modified-since", "Thu, 26 Nov 2026 10:00:00 GMT")]),
    ("sec-fetch-dest", &[("sec-fetch-dest", "image")]),
    ("sec-purpose", &[("sec-purpose", "prefetch;prerender")]),
    ("purpose", &[("purpose", "prefetch")]),
    ("x-purpose", &[("x-purpose", "preview")]),
    ("x-sec-purpose", &[("x-sec-purpose", "prefetch")]),
    ("x-moz", &[("x-moz", "prefetch")]),
    ("next-router-prefetch", &[("next-router-prefetch", "1")]),
    ("x-middleware-prefetch", &[("x-middleware-prefetch", "1")]),
];

#[test]
fn each_request_header_changes_a_decision() {
    let visit = Visit::logged_in(new_engine()).wait(DUE);
    let names = VALUES.iter().map(|(name, _)| HeaderName::from_static(name)).chain([COOKIE]);
    for name in names {
        let more = VALUES.iter().find(|(of, _)| name == *of).map_or(&[][..], |(_, headers)| headers);
        let headers = visit.request(more);
        let reads = |other: &HeaderName| visit.engine.reads(other);
        assert!(reads(&name), "{name}");
        let [all, named] = compare(&visit, &Method::GET, &headers, reads);
        assert_eq!(all, named, "{name}");
        let [all, fewer] = compare(&visit, &Method::GET, &headers, |other| reads(other) && *other != name);
        assert_ne!(all, fewer, "{name}");
    }
}

/// Returns the headers with which an app logs in, and then has the record of an opt-out beside its identity.
fn app_headers(visit: &Visit) -> HeaderMap {
    let stem = if scope() == Scope::Uid2 { "uid2" } else { "euid" };
    let mut request = HeaderMap::new();
    request.insert(HeaderName::try_from(format!("{stem}-login")).unwrap(), HeaderValue::from_static(""));
    let step = visit.engine.begin(&Method::POST, &request, &GRANTED, || visit.now);
    let login = Change::login(identity_of("old", visit.now));
    visit.engine.finish(ready(step).start().1, Some(&login), StatusCode::OK, &mut request, || visit.now);
    request.remove(CACHE_CONTROL);
    let due = due(visit.engine.begin(&Method::GET, &request, &GRANTED, || visit.now.saturating_add(DUE)));
    let found = due.settle(&Ok(Refreshed::OptedOut), visit.now);
    let mut response = HeaderMap::new();
    visit.engine.finish(found.start().1, None, StatusCode::OK, &mut response, || visit.now);
    request.extend(response.into_iter().filter(|(_, value)| !value.is_empty()));
    request.remove(CACHE_CONTROL);
    assert_eq!(request.len(), 3, "login, identity, record: {request:?}");
    request
}

#[test]
fn each_header_of_an_app_changes_a_decision() {
    let visit = Visit::new(new_engine().with_headers(HeaderConfig::default()));
    let headers = app_headers(&visit);
    let plain = new_engine();
    // What the handler sees, and the names of the headers that the response writes.
    let outcome = |without: Option<&HeaderName>| {
        let named = headers.iter().filter(|(name, _)| Some(*name) != without && visit.engine.reads(name));
        let request = named.map(|(name, value)| (name.clone(), value.clone())).collect();
        let (euid, pending) = ready(visit.engine.begin(&Method::GET, &request, &GRANTED, || visit.now)).start();
        let mut response = HeaderMap::new();
        visit.engine.finish(pending, None, StatusCode::OK, &mut response, || visit.now);
        format!("{} {:?}", euid.state(), response.keys().collect::<Vec<_>>())
    };
    let all = outcome(None);
    assert!(all.starts_with("opted_out"), "{all}");
    for name in headers.keys() {
        assert!(visit.engine.reads(name) && !plain.reads(name), "{name}");
        assert_ne!(outcome(Some(name)), all, "{name}");
    }
    let browser = HeaderName::from_static("sec-fetch-site");
    assert!(visit.engine.reads(&browser) && !plain.reads(&browser));
}

proptest! {
    #[test]
    fn begin_reads_only_the_named_request_headers(
        kind in 0..5_usize,
        method in prop::sample::select(vec![Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::CONNECT]),
        picks in prop::collection::vec(0..VALUES.len(), 0..4),
        others in prop::collection::vec(
            (prop::sample::select(vec![
                "accept", "accept-encoding", "authorization", "cache-control", "dnt", "host", "if-match", "if-range",
                "origin", "pragma", "range", "referer", "sec-ch-ua", "sec-fetch-mode", "sec-fetch-site", "sec-gpc",
                "te", "user-agent", "via", "x-forwarded-for", "x-requested-with",
            ]), "[a-z;, =\"-]{0,12}|prefetch|websocket|image|navigate"),
            0..4,
        ),
        foreign in any::<bool>(),
    ) {
        let config = CookieConfig::default().expose_token_to_scripts();
        let mut visit = match kind {
            0 => Visit::new(new_engine()),
            1 => Visit::logged_in(new_engine()),
            2 => Visit::logged_in(new_engine()).wait(DUE),
            3 => sdk_visit(),
            _ => Visit::logged_in(new_engine().with_cookie(config)),
        };
        if foreign {
            visit.cookies.extend(foreign_cookies().cookies);
        }
        let more: Vec<_> = picks.iter().filter_map(|&pick| VALUES.get(pick)).flat_map(|(_, headers)| headers.iter().copied()).collect();
        let mut headers = visit.request(&more);
        for (name, value) in others {
            headers.append(HeaderName::from_static(name), HeaderValue::try_from(value).unwrap());
        }
        let [all, named] = compare(&visit, &method, &headers, |name| visit.engine.reads(name));
        prop_assert_eq!(all, named);
    }
}

#[test]
fn debug_of_an_exchange_shows_no_user() {
    let json = r#"{"advertising_token":"a","refresh_token":"r","refresh_response_key":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","refresh_from":1,"identity_expires":2000000000000,"refresh_expires":2000000000001}"#;
    let engine = new_engine().with_cookie(CookieConfig::default().migrate_js_sdk_cookie(None).unwrap());
    let mut visit = Visit::new(engine);
    visit.cookies.insert(SDK.to_owned(), json.bytes().map(|byte| format!("%{byte:02X}")).collect());
    let context = RequestContext { user: SignedIn::User(b"user@example.com"), ..GRANTED };
    let step = visit.begin(&context);
    assert!(matches!(step, Step::Refresh(_)), "{step:?}");
    let shown = format!("{context:?} {step:?}");
    assert!(!shown.contains("117, 115, 101, 114") && !shown.contains("user@"), "{shown}");
}

#[test]
fn stated_opt_out_is_bound_to_its_user_and_ends_the_previous_login() {
    let mut visit = Visit::bound(new_engine());
    let user = |id| RequestContext { user: SignedIn::User(id), ..GRANTED };
    let opt_out = Change::opt_out().subject("17");
    let (saw, wrote) = visit.page(&user(b"17"), Some(&opt_out));
    assert_eq!((saw, wrote), ("active", written([LOGIN, OPT_OUT], [IDENTITY])));
    assert_eq!(visit.page(&user(b"17"), None), ("opted_out", nothing()));
    assert_eq!(visit.page(&user(b"18"), None), ("absent", nothing()));
    let later = visit.clone().wait(Duration::from_secs(72 * 3_600));
    assert_eq!(ready(later.begin(&user(b"17"))).euid().state(), "absent");
    let login = Change::login(identity_of("new", visit.now));
    assert_eq!(visit.page(&GRANTED, Some(&login)).1, written([IDENTITY, LOGIN], [OPT_OUT]));
}

#[test]
fn migrated_identity_does_not_return_after_a_login_or_a_logout() {
    let mut visit = sdk_visit();
    // The response of a page that migrates arrives after that of the logout.
    let (_, late) = ready(visit.begin(&GRANTED)).start();
    assert_eq!(visit.page(&GRANTED, Some(&Change::EndLogin)).1, written([LOGIN], [SDK]));
    visit.finish(late, None, StatusCode::OK);
    assert!(visit.cookies.contains_key(MIGRATED));
    assert_eq!(visit.page(&GRANTED, None), ("absent", written([], [MIGRATED])));
    // Nor does the cookie of the SDK, which a script sets again.
    visit.cookies.extend(sdk_visit().cookies);
    assert_eq!(visit.page(&GRANTED, None), ("absent", nothing()));
    let login = Change::login(identity_of("new", visit.now));
    assert_eq!(visit.page(&GRANTED, Some(&login)).1, written([IDENTITY, LOGIN], [SDK]));
    assert_eq!(visit.page(&GRANTED, None), ("active", nothing()));
}
