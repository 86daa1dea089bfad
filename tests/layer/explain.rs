//! `EuidLayer::explain`: the reason for the visitor's state, in `Server-Timing` and in the request's extensions.
//!
//! 1. Each reason is reached through the layer, and `src/docs/explain.md` lists it.
//! 2. A header has words of this crate alone, in the grammar of `Server-Timing`.
//! 3. A response that explains is not shared by caches.
//! 4. By default there is nothing of that.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{CACHE_CONTROL, COOKIE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::error::ErrorKind;
use tower_euid::store::StoreMode;
use tower_euid::{
    Consent, CookieConfig, EuidLayer, EuidUpdate, HeaderConfig, Reason, RefreshMode, Refreshed, Scope, refresh_fn, tcf,
};

use crate::support::keeper::{IDENTITY_HEADER, Keeper, LOGIN_HEADER};
use crate::support::sdk::sdk_value;
use crate::support::stores::{Fault, TestStore};
use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, IDENTITY_EXPIRES, Jar, NOTHING, Operator, REFRESH_EXPIRES, SCOPE, SDK, Site, User,
    Visit, failure, identity, identity_until, new_pair, ring, scope, store_secret, with_method,
};

const GUIDE: &str = include_str!("../../src/docs/explain.md");

const IMAGE: [(&str, &str); 1] = [("sec-fetch-dest", "image")];
const CONDITIONAL: [(&str, &str); 1] = [("if-none-match", "x")];
const OPT_OUT_REMEMBERED: i64 = 3 * 86_400_000;

fn explaining(site: Site) -> Site {
    site.configured(|layer| layer.explain(true))
}

/// Returns the text of a response's one explanation. Fails unless it has the form and the words of an explanation.
pub(super) fn text(visit: &Visit) -> String {
    let mut values = visit.response.headers().get_all("server-timing").iter();
    let value = values.next().unwrap().to_str().unwrap();
    assert_eq!(values.next(), None);
    assert!(visit.header(CACHE_CONTROL.as_str()).unwrap().starts_with("private, no-"), "{:?}", visit.response);
    checked(value)
}

/// Returns the text of an explanation. Fails if it has words that the guide does not list.
fn checked(value: &str) -> String {
    let text = value.strip_prefix(&format!("{SCOPE};desc=\"")).and_then(|rest| rest.strip_suffix('"')).unwrap();
    // Of a quoted string, what needs no escape.
    assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'), "{text}");
    let mut parts = text.split("; ");
    let states = ["absent", "active", "opted_out", "unavailable", "withheld"];
    assert!(states.contains(&parts.next().unwrap()), "{text}");
    for part in parts {
        assert!(GUIDE.contains(&format!("| `{part}` |")), "the guide does not list `{part}`");
    }
    text.to_owned()
}

async fn look(site: Site) -> String {
    text(&explaining(site).look().await)
}

async fn send(site: Site, request: Request<()>) -> String {
    text(&explaining(site).send(request, NOTHING).await)
}

#[tokio::test]
async fn request_without_an_explanation_has_no_header_and_no_extension() {
    let found = Arc::new(Mutex::new(Vec::new()));
    let page = {
        let found = Arc::clone(&found);
        service_fn(move |request: Request<()>| {
            found.lock().unwrap().push(request.extensions().get::<Reason>().copied());
            ready(Ok::<_, Infallible>(Response::new(())))
        })
    };
    let site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    for layer in
        [site.layer.clone(), site.layer.clone().explain(false), site.layer.clone().explain(true).explain(false)]
    {
        for request in [Request::new(()), site.jar.request()] {
            let response = layer.clone().layer(page.clone()).oneshot(request).await.unwrap();
            assert!(!response.headers().contains_key("server-timing"));
        }
    }
    assert_eq!(*found.lock().unwrap(), [None; 6]);
    let explaining = site.layer.clone().explain(true).layer(page);
    for request in [Request::new(()), site.jar.request()] {
        explaining.clone().oneshot(request).await.unwrap();
    }
    assert_eq!(found.lock().unwrap()[6..], [Some(Reason::NoLogin), Some(Reason::Refreshed)]);
}

#[tokio::test]
async fn explanation_does_not_change_what_the_layer_does() {
    let mut plain = Site::new(Operator::answering(new_pair("new")));
    let mut explained = explaining(plain.clone());
    for site in [&mut plain, &mut explained] {
        site.login("old").await;
        assert_eq!(site.look().await.saw(), "active(old)");
    }
    plain.wait_until(DUE);
    for site in [&mut plain, &mut explained] {
        let visit = site.look().await;
        assert_eq!((visit.saw(), visit.writes()), ("active(new)".to_owned(), "identity set".to_owned()));
        assert_eq!(site.update(EuidUpdate::logout()).await.writes(), "identity cleared, anchor cleared");
    }
}

#[tokio::test]
async fn reason_of_a_request_without_a_usable_login() {
    let site = Site::offline().logged_in(0).await;
    let other = Site { jar: Jar::default(), ..site.clone() }.logged_in(0).await;
    let own = site.jar.clone();
    let identity = own.name(IDENTITY);
    let value = own.value(&identity).unwrap();
    let (head, tail) = value.split_at(value.len() - 20);
    let garbled = format!("{head}!{}", &tail[1..]);
    let forged = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
    for (jar, expected) in [
        (Jar::default(), "absent; no login cookie"),
        (own.clone().without(IDENTITY), "absent; login without identity"),
        (own.clone().without(ANCHOR), "absent; login ended"),
        (other.jar.clone().without(IDENTITY).with_from(&own, IDENTITY), "absent; login ended"),
        (own.clone().with(ANCHOR, "made-up"), "absent; login unreadable"),
        (own.clone().without(IDENTITY).with(ANCHOR, "made-up"), "absent; login unreadable"),
        (Jar::default().with(ANCHOR, "none"), "absent; logged out"),
        (own.clone().with(&identity, &garbled), "absent; identity malformed; removal"),
        (own.clone().with(&identity, &forged), "absent; identity not authentic; removal"),
    ] {
        assert_eq!(look(Site { jar, ..site.clone() }).await, expected);
    }
    let other_keys = Site { jar: own.clone(), ..Site::offline() };
    assert_eq!(look(other_keys).await, "absent; unknown key");
}

#[tokio::test]
async fn reason_of_a_request_with_an_identity_follows_its_three_times() {
    for (millis, expected) in [
        (0, "active; token fresh"),
        (DUE, "active; refresh failed: no answer"),
        (EXPIRED, "unavailable; refresh failed: no answer"),
        (REFRESH_EXPIRES, "absent; refresh token expired"),
    ] {
        let site = Site::new(Operator::answering(failure(ErrorKind::Transient))).logged_in(millis).await;
        assert_eq!(look(site).await, expected, "{millis}");
    }
}

#[tokio::test]
async fn reason_of_a_due_request_names_the_outcome_of_the_refresh() {
    let expired_pair = Ok(Refreshed::Identity(identity_until("new", [1, 2, 3])));
    for (answer, millis, expected) in [
        (new_pair("new"), DUE, "active; token refreshed; renewal"),
        (Ok(Refreshed::OptedOut), DUE, "opted_out; opted out; opt-out"),
        (failure(ErrorKind::RejectedToken), DUE, "absent; refresh token rejected; removal"),
        (failure(ErrorKind::RejectedInput), DUE, "active; refresh failed: refused"),
        (failure(ErrorKind::RejectedInput), EXPIRED, "absent; refresh token rejected; removal"),
        (failure(ErrorKind::Unauthorized), DUE, "active; refresh failed: unauthorized"),
        (failure(ErrorKind::ClockDrift), DUE, "active; refresh failed: clock drift"),
        (failure(ErrorKind::Undecryptable), DUE, "active; refresh failed: undecryptable"),
        (failure(ErrorKind::WrongScope), DUE, "active; refresh failed: wrong scope"),
        (failure(ErrorKind::Malformed), EXPIRED, "unavailable; refresh failed: malformed answer"),
        (failure(ErrorKind::UnknownStatus), EXPIRED, "unavailable; refresh failed: unknown status"),
        (expired_pair, DUE, "active; refresh failed: clock drift"),
    ] {
        let site = Site::new(Operator::answering(answer.clone())).logged_in(millis).await;
        assert_eq!(look(site).await, expected, "{answer:?}");
    }
    let short = identity_until("new", [DUE + 1, DUE + 30_000, REFRESH_EXPIRES]);
    let site = Site::new(Operator::answering(Ok(Refreshed::Identity(short)))).logged_in(DUE).await;
    let site = site.configured(|layer| layer.expiry_margin(Duration::from_secs(60)));
    assert_eq!(look(site).await, "active; refresh failed: new token already expired");
}

#[tokio::test(start_paused = true)]
async fn reason_of_a_due_request_that_has_no_outcome_says_why() {
    let hanging = || Site::unanswered().logged_in(DUE);
    assert_eq!(look(hanging().await).await, "active; waited too long for the refresh");
    let concurrent = hanging().await.configured(|layer| layer.refresh_mode(RefreshMode::Concurrent));
    assert_eq!(look(concurrent).await, "active; refresh under way");
    let site = hanging().await;
    let post = site.jar.request_of(Method::POST);
    assert_eq!(send(site, post).await, "active; refresh under way");

    let site = explaining(hanging().await);
    site.look_once().await;
    assert_eq!(text(&site.look_once().await), "active; no refresh: the one under way takes long");

    for (headers, expected) in
        [(IMAGE, "active; no refresh: not a page"), (CONDITIONAL, "active; no refresh: conditional request")]
    {
        let site = Site::offline().logged_in(DUE).await;
        let request = site.jar.request_with(&headers);
        assert_eq!(send(site, request).await, expected);
    }
    let declined = Site::offline().logged_in(DUE).await.configured(|layer| layer.refresh_when(|_| false));
    assert_eq!(look(declined).await, "active; no refresh: declined by the hook");
}

#[tokio::test]
async fn reason_names_the_limits_of_refreshes() {
    let site = explaining(Site::new(Operator::answering(failure(ErrorKind::Transient))));
    let visitors = site.due_visitors(6).await;
    let mut texts = Vec::new();
    for mut visitor in visitors {
        texts.push(text(&visitor.look().await));
    }
    assert_eq!(texts[4..], ["active; refresh failed: no answer", "active; no refresh: operator down"]);

    let full = Site::unanswered().configured(|layer| layer.max_concurrent_refreshes(1).max_wait(Duration::ZERO));
    let mut texts = Vec::new();
    for visitor in explaining(full.migrating()).due_sdk_visitors(2) {
        texts.push(text(&visitor.look_once().await));
    }
    assert_eq!(texts[1], "active; no refresh: too many migrations under way; renewal");

    let full = Site::unanswered().configured(|layer| layer.memo_entries(1).max_wait(Duration::ZERO));
    let mut texts = Vec::new();
    for visitor in explaining(full).due_visitors(2).await {
        texts.push(text(&visitor.look_once().await));
    }
    assert_eq!(texts[1], "active; no refresh: too many under way");
}

#[tokio::test]
async fn reason_names_the_refresh_of_another_token_of_the_login() {
    let calls = AtomicUsize::new(0);
    let refresh = refresh_fn(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move {
            match call {
                0 => Ok(Refreshed::Identity(identity_until("new", [EXPIRED, REFRESH_EXPIRES, REFRESH_EXPIRES]))),
                _ => pending().await,
            }
        }
    });
    let layer = |layer: EuidLayer| layer.refresh_mode(RefreshMode::Concurrent).explain(true);
    let mut site = Site::new(refresh).logged_in(IDENTITY_EXPIRES - 1).await;
    let old = site.clone();
    site.look().await;
    site.layer = layer(site.layer);
    site.wait_until(EXPIRED);
    assert_eq!(text(&site.look_once().await), "active; refresh under way");
    let old = Site { layer: site.layer.clone(), ..old };
    assert_eq!(text(&old.look_once().await), "unavailable; no refresh: another token of this login has one");
}

#[tokio::test]
async fn reason_of_the_sdk_cookie() {
    let site = Site::offline().migrating();
    assert_eq!(look(site.with_sdk_token("old")).await, "active; migrated from the SDK; renewal");
    let other = match scope() {
        Scope::Euid => "A4",
        Scope::Uid2 => "E4",
    };
    let jar = Jar::default().with(SDK, &sdk_value(&identity(&format!("{other}old"))));
    assert_eq!(look(Site { jar, ..site }).await, "absent; SDK identity of the other scope");
}

#[tokio::test]
async fn reason_of_a_bound_identity_names_the_user() {
    let mut site = explaining(Site::offline().with_subject());
    site.update(EuidUpdate::login(identity("old")).subject("17")).await;
    assert_eq!(text(&site.look_as(Some("17")).await), "active; token fresh");
    assert_eq!(text(&site.look_as(None).await), "absent; no user is signed in");
    assert_eq!(text(&site.look_as(Some("18")).await), "absent; another user is signed in; removal");
}

#[tokio::test]
async fn reason_of_a_recorded_opt_out() {
    let mut site = explaining(Site::offline());
    assert_eq!(text(&site.update(EuidUpdate::opt_out()).await), "absent; no login cookie; opt-out");
    assert_eq!(text(&site.look().await), "opted_out; opted out");
    site.wait_until(OPT_OUT_REMEMBERED);
    assert_eq!(text(&site.look().await), "absent; opt-out no longer remembered");
}

#[tokio::test]
async fn reason_without_consent_is_consent_and_not_the_state_behind_it() {
    for (consent, expected) in
        [(Consent::Withheld, "withheld; consent withheld"), (Consent::Withdrawn, "withheld; consent withdrawn; logout")]
    {
        for millis in [0, DUE, EXPIRED] {
            let site = Site::offline().logged_in(millis).await.configured(|layer| layer.consent(move |_| consent));
            assert_eq!(look(site).await, expected, "{millis}");
        }
    }
    let site = Site::offline().configured(|layer| layer.consent(|_| Consent::Withheld));
    assert_eq!(look(site).await, "withheld; consent withheld");
    let mut site = explaining(Site::offline().configured(|layer| layer.consent(|_| Consent::Withdrawn)));
    assert_eq!(text(&site.login("old").await), "withheld; consent withdrawn; login not written: consent withdrawn");
}

#[tokio::test]
async fn reason_without_consent_names_the_fault_of_the_consent_string() {
    let site = Site::new(Operator::never().of_scope(Scope::Euid));
    let site = explaining(site.configured(EuidLayer::consent_from_tcf_cookie));
    for (cookies, reason) in [
        ("", "no consent string"),
        ("euconsent-v2=CPehNtW", "consent string invalid"),
        ("euconsent-v2=C1; euconsent-v2=C2", "consent strings differ"),
        ("euconsent-v2=BA.this is not looked at", "consent string of TCF 1"),
        ("euconsent-v2=CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA", "consent string insufficient"),
    ] {
        let mut request = Request::new(());
        request.headers_mut().insert(COOKIE, HeaderValue::from_static(cookies));
        let value = site.send(request, NOTHING).await.header("server-timing").unwrap().to_owned();
        assert_eq!(value, format!("euid;desc=\"withheld; {reason}\""));
        assert!(GUIDE.contains(&format!("| `{reason}` |")));
    }
    // A hook that is set later counts.
    let own = site.configured(|layer| layer.consent(|request| tcf::consent(&request.headers)));
    let value = own.send(Request::new(()), NOTHING).await.header("server-timing").unwrap().to_owned();
    assert_eq!(value, "euid;desc=\"withheld; consent withheld\"");
}

#[tokio::test]
async fn reason_of_an_app_names_its_headers() {
    let mut site = explaining(Site::offline().configured(|layer| layer.headers(HeaderConfig::default())));
    let mut keeper = Keeper::default();
    let visit = site.send(keeper.request(), |_, response| EuidUpdate::login(identity("old")).attach(response)).await;
    assert_eq!(text(&visit), "absent; no login header; login");
    keeper.apply(visit.response.headers());
    assert_eq!(text(&site.send(keeper.request(), NOTHING).await), "active; token fresh");
    let alone = Keeper::default().with_from(&keeper, IDENTITY_HEADER);
    assert_eq!(text(&site.send(alone.request(), NOTHING).await), "absent; login ended");
    let alone = Keeper::default().with_from(&keeper, LOGIN_HEADER);
    assert_eq!(text(&site.send(alone.request(), NOTHING).await), "absent; login without identity");
    assert_eq!(text(&site.look().await), "absent; no login cookie", "not even an empty header");
}

#[tokio::test]
async fn reason_names_the_store() {
    let site = explaining(Site::unanswered());
    let store = TestStore::new(&site.clock);
    let mut site = site.configured(|layer| layer.store(store.clone()).remember_for(Duration::ZERO));
    assert_eq!(text(&site.login("old").await), "absent; no login cookie; login");
    assert_eq!(text(&site.look().await), "active; token fresh");
    store.fault(Fault::Down);
    assert_eq!(text(&site.look().await), "unavailable; store unavailable");
    store.fault(Fault::None);
    let elsewhere = TestStore::new(&site.clock);
    let empty = site.clone().configured(|layer| layer.store(elsewhere));
    assert_eq!(text(&empty.look_once().await), "absent; no record in the store");
    let read_only = site.clone().configured(|layer| layer.store_mode(StoreMode::ReadOnly));
    assert_eq!(text(&read_only.look_once().await), "active; token fresh");
    let copied = site.clone();
    assert_eq!(text(&site.update(EuidUpdate::logout()).await), "active; token fresh; logout");
    assert_eq!(text(&copied.look_once().await), "absent; login ended");
}

#[tokio::test]
async fn reason_names_the_store_by_user() {
    let site = explaining(Site::unanswered().with_subject());
    let store = TestStore::new(&site.clock);
    let mut site = site.configured(|layer| layer.store_by_subject(store.clone(), store_secret()));
    assert_eq!(text(&site.look().await), "absent; no user is signed in");
    assert_eq!(text(&site.look_as(Some("17")).await), "absent; no record in the store");
    let unbound = text(&site.login("old").await);
    assert_eq!(unbound, "absent; no user is signed in; login not written: no_subject");
    assert_eq!(text(&site.update(EuidUpdate::logout()).await), "absent; no user is signed in; logout without a user");
    let visit = site.update(EuidUpdate::login(identity("old")).subject("17")).await;
    assert_eq!(text(&visit), "absent; no user is signed in; login");
    assert_eq!(text(&site.look_as(Some("17")).await), "active; token fresh");
    store.fault(Fault::Down);
    assert_eq!(text(&site.look_as(Some("17")).await), "unavailable; store unavailable");
}

#[tokio::test]
async fn change_of_the_response_follows_the_reason_of_the_request() {
    let mut site = explaining(Site::offline());
    assert_eq!(text(&site.login("old").await), "absent; no login cookie; login");
    assert_eq!(text(&site.login("another").await), "active; token fresh; login");
    let late = EuidUpdate::login(identity_until("late", [-3, -2, -1]));
    assert_eq!(text(&site.update(late).await), "active; token fresh; login not written: expired");
    site.login("old").await;
    assert_eq!(text(&site.update(EuidUpdate::logout()).await), "active; token fresh; logout");

    // A refresh beside the handler.
    let concurrent = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let concurrent = explaining(concurrent.configured(|layer| layer.refresh_mode(RefreshMode::Concurrent)));
    let visit = concurrent.send_slowly(concurrent.jar.request(), Duration::from_millis(1), NOTHING).await;
    assert_eq!(text(&visit), "active; refresh under way; renewal");

    // A 304 does not write the new pair.
    let site = explaining(Site::new(Operator::answering(new_pair("new"))).logged_in(EXPIRED).await);
    let not_modified = site.send(site.jar.request(), |_, response| *response.status_mut() = StatusCode::NOT_MODIFIED);
    assert_eq!(text(&not_modified.await), "active; token refreshed");
}

#[tokio::test]
async fn layer_inside_another_adds_its_own_explanation_where_it_is_stricter() {
    let keys = ring();
    let mut site = explaining(Site::with_keys(keys.clone(), Operator::never()));
    site.update(EuidUpdate::login(identity("old")).subject("17")).await;
    let through = async |outer: &EuidLayer, inner: EuidLayer, user| {
        let reason = Arc::new(Mutex::new(None));
        let page = {
            let reason = Arc::clone(&reason);
            service_fn(move |request: Request<()>| {
                *reason.lock().unwrap() = request.extensions().get::<Reason>().copied();
                ready(Ok::<_, Infallible>(Response::new(())))
            })
        };
        let mut request = site.jar.request();
        request.extensions_mut().insert(User(user));
        let response = outer.layer(inner.layer(page)).oneshot(request).await.unwrap();
        let values = response.headers().get_all("server-timing").iter();
        let texts: Vec<String> = values.map(|value| checked(value.to_str().unwrap())).collect();
        (texts, *reason.lock().unwrap())
    };
    let user = |request: &http::request::Parts| request.extensions.get::<User>().map(|user| user.0);
    let inner = |keys| EuidLayer::new(keys, crate::support::InScope(Operator::never())).clock(site.clock.clone());
    let outside = "active; token fresh";
    for (layer, inside, reason) in [
        (inner(keys.clone()), None, Reason::Fresh),
        (inner(keys.clone()).consent(|_| Consent::Granted), None, Reason::Fresh),
        (inner(keys.clone()).subject(user), Some("absent; another user is signed in; inner layer"), Reason::OtherUser),
        (
            inner(ring()).subject(user),
            Some("absent; unreadable for the inner layer; inner layer"),
            Reason::UnreadableInside,
        ),
        (
            inner(keys.clone()).consent(|_| Consent::Withheld),
            Some("withheld; consent withheld; inner layer"),
            Reason::ConsentWithheld,
        ),
    ] {
        let (texts, shown) = through(&site.layer, layer.clone(), "18").await;
        let expected: Vec<&str> = inside.into_iter().chain([outside]).collect();
        assert_eq!((texts, shown), (expected.into_iter().map(str::to_owned).collect(), Some(reason)));
        // The layer outside decides whether to explain.
        let silent = site.layer.clone().explain(false);
        assert_eq!(through(&silent, layer.explain(true), "18").await, (Vec::new(), None));
    }
    let withdrawn = inner(keys).consent(|_| Consent::Withdrawn);
    let (texts, _) = through(&site.layer, withdrawn, "17").await;
    assert_eq!(texts, ["withheld; consent withdrawn; inner layer", "active; token fresh; logout"]);
}

#[tokio::test]
async fn scope_names_the_metric_in_a_layer_with_both() {
    let site = Site::new(Operator::never().of_scope(Scope::Euid));
    let chosen = |request: &http::request::Parts| request.extensions.get::<Scope>().copied();
    let other = Operator::never().of_scope(Scope::Uid2);
    let site = explaining(site.configured(|layer| layer.scope(other, chosen).unwrap()));
    for (scope, expected) in [
        (Some(Scope::Euid), "euid;desc=\"absent; no login cookie\""),
        (Some(Scope::Uid2), "uid2;desc=\"absent; no login cookie\""),
        (None, "euid;desc=\"absent; no scope chosen\""),
    ] {
        let mut request = Request::new(());
        scope.map(|scope| request.extensions_mut().insert(scope));
        let visit = site.send(request, NOTHING).await;
        assert_eq!(visit.header("server-timing"), Some(expected));
    }
    assert!(GUIDE.contains("| `no scope chosen` |"));
}

#[tokio::test]
async fn server_timing_of_the_application_stays() {
    let site = explaining(Site::offline());
    let visit = site.send(Request::new(()), |_, response| {
        response.headers_mut().insert("server-timing", HeaderValue::from_static("db;dur=53"));
    });
    let visit = visit.await;
    let values: Vec<_> = visit.response.headers().get_all("server-timing").iter().collect();
    assert_eq!(values.len(), 2);
    assert_eq!(values[0], "db;dur=53");
    assert_eq!(checked(values[1].to_str().unwrap()), "absent; no login cookie");
}

#[tokio::test]
async fn explained_response_is_private_whether_or_not_it_has_state() {
    let mut site = explaining(Site::offline());
    for _ in 0..2 {
        let visit = site.visit(|_, response| {
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
            response.headers_mut().insert("cdn-cache-control", HeaderValue::from_static("max-age=60"));
        });
        let visit = visit.await;
        let cached = visit.header("cache-control").unwrap();
        assert!(cached.contains("private") && cached.contains("no-cache") && !cached.contains("public"), "{cached}");
        assert_eq!(visit.header("vary").map(str::to_ascii_lowercase).as_deref(), Some("cookie"));
        assert!(!visit.header("cdn-cache-control").unwrap().contains("max-age"));
        site.login("old").await;
    }
    let exposing =
        explaining(Site::offline().configured(|layer| layer.cookie(CookieConfig::default().expose_token_to_scripts())));
    assert_eq!(text(&exposing.look_once().await), "absent; no login cookie");
    // What writes state stays stricter.
    let visit = with_method(site.jar.request(), Method::POST);
    let visit = site.send(visit, |_, response| EuidUpdate::logout().attach(response)).await;
    assert_eq!(visit.header("cache-control"), Some("private, no-store"));
}
