//! `EuidLayer::scope`: one layer serves EUID to some visitors and UID2 to others.
//!
//! 1. Each scope has its own cookies, refreshes and breaker.
//! 2. A page leaves the state of the other scope alone; a logout and withdrawn consent end the logins of both.
//! 3. A token of the wrong scope is refused where it enters.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::{
    Consent, CookieConfig, EuidLayer, EuidLogoutHandle, EuidUpdate, Identity, Refreshed, Scope, refresh_fn,
};

use crate::support::sdk::sdk_value;
use crate::support::{
    DUE, IDENTITY_EXPIRES, Jar, Log, NOTHING, Operator, REFRESH_EXPIRES, REFRESH_FROM, Seen, Site, User, Visit,
    failure, identity_until, page, ring, set_cookies, with_method,
};

/// A token of a scope, as its operator begins it.
fn token(scope: Scope, name: &str) -> String {
    let beginning = match scope {
        Scope::Euid => "E4",
        Scope::Uid2 => "A4",
    };
    format!("{beginning}{name}")
}

fn identity(scope: Scope, name: &str) -> Identity {
    identity_until(&token(scope, name), [REFRESH_FROM, IDENTITY_EXPIRES, REFRESH_EXPIRES])
}

fn new_pair(scope: Scope) -> Result<Refreshed, EuidError> {
    let [from, token_expires, refresh_expires] = [1, 2, 10].map(|days| days * 86_400_000);
    Ok(Refreshed::Identity(identity_until(&token(scope, "new"), [from, token_expires, refresh_expires])))
}

/// The region of a visitor: `eu`, `us`, or one that no scope serves.
#[derive(Clone, Copy)]
struct Region(&'static str);

fn scope_of(request: &http::request::Parts) -> Option<Scope> {
    match request.extensions.get::<Region>()?.0 {
        "eu" => Some(Scope::Euid),
        "us" => Some(Scope::Uid2),
        _ => None,
    }
}

/// A site with both scopes, and one browser that travels.
struct Both {
    site: Site,
    euid: Operator,
    uid2: Operator,
}

impl Both {
    /// A site whose own scope is EUID, with these operators.
    fn new(euid: Operator, uid2: Operator) -> Self {
        let site = Site::new(euid.clone().of_scope(Scope::Euid));
        let other = uid2.clone().of_scope(Scope::Uid2);
        let site = site.configured(|layer| layer.scope(other, scope_of).unwrap());
        Self { site, euid, uid2 }
    }

    fn refreshing() -> Self {
        Self::new(Operator::answering(new_pair(Scope::Euid)), Operator::answering(new_pair(Scope::Uid2)))
    }

    fn configured(self, configure: impl FnOnce(EuidLayer) -> EuidLayer) -> Self {
        Self { site: self.site.configured(configure), ..self }
    }

    fn request(&self, region: &'static str) -> Request<()> {
        let mut request = self.site.jar.request();
        request.extensions_mut().insert(Region(region));
        request
    }

    async fn send(&mut self, request: Request<()>, update: Option<EuidUpdate>) -> Visit {
        let visit = self
            .site
            .send(request, move |_, response| update.iter().for_each(|update| update.clone().attach(response)));
        let visit = visit.await;
        self.site.jar.apply(visit.response.headers());
        visit
    }

    async fn look(&mut self, region: &'static str) -> String {
        let request = self.request(region);
        self.send(request, None).await.saw()
    }

    async fn update(&mut self, region: &'static str, update: EuidUpdate) -> Visit {
        let request = with_method(self.request(region), Method::POST);
        self.send(request, Some(update)).await
    }

    /// The browser with a login in each scope: `E4old` and `A4old`.
    async fn with_both_logins(mut self) -> Self {
        self.update("eu", EuidUpdate::login(identity(Scope::Euid, "old"))).await;
        self.update("us", EuidUpdate::login(identity(Scope::Uid2, "old"))).await;
        self
    }
}

/// The names of the cookies that a response removes, and of those that it sets.
fn changes(headers: &HeaderMap) -> (Vec<String>, Vec<String>) {
    let lines = headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap().to_owned());
    let (removed, set): (Vec<_>, Vec<_>) = lines.partition(|line| line.ends_with("; Max-Age=0"));
    let names = |lines: Vec<String>| lines.iter().map(|line| line.split('=').next().unwrap().to_owned()).collect();
    (names(removed), names(set))
}

#[tokio::test]
async fn traveller_has_each_identity_again() {
    let mut both = Both::refreshing().with_both_logins().await;
    let before = both.site.jar.clone();
    for (region, saw) in [("eu", "active(E4old)"), ("us", "active(A4old)"), ("eu", "active(E4old)")] {
        assert_eq!(both.look(region).await, saw);
    }
    assert_eq!(both.site.jar.names(), before.names());
    assert_eq!((both.euid.calls(), both.uid2.calls()), (0, 0));
}

#[tokio::test]
async fn token_knows_its_scope_and_bid_requests_its_source() {
    let both = Both::refreshing().with_both_logins().await;
    for (region, scope, source) in [("eu", Scope::Euid, "euid.eu"), ("us", Scope::Uid2, "uidapi.com")] {
        let request = both.request(region);
        let seen = Arc::new(Mutex::new(None));
        let found = Arc::clone(&seen);
        let visit = both.site.send(request, move |euid, _| {
            let token = euid.advertising_token().unwrap();
            *found.lock().unwrap() = Some((token.scope(), serde_json::to_value(euid.eids()).unwrap()));
        });
        visit.await;
        let (token_scope, eids) = seen.lock().unwrap().take().unwrap();
        assert_eq!(token_scope, scope);
        assert_eq!(eids["eids"][0]["source"], source);
    }
}

#[tokio::test]
async fn due_identity_is_refreshed_by_the_operator_of_its_scope() {
    let mut both = Both::refreshing().with_both_logins().await;
    both.site.wait_until(DUE);
    assert_eq!(both.look("us").await, "active(A4new)");
    assert_eq!((both.euid.calls(), both.uid2.calls()), (0, 1));
    assert_eq!(both.look("eu").await, "active(E4new)");
    assert_eq!((both.euid.calls(), both.uid2.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn operator_that_is_down_opens_the_breaker_of_its_scope_only() {
    let down = Operator::answering(failure(ErrorKind::Transient));
    let mut both = Both::new(down, Operator::answering(new_pair(Scope::Uid2)));
    for number in 0..10 {
        both.site.jar = Jar::default();
        both.update("eu", EuidUpdate::login(identity(Scope::Euid, &format!("{number}")))).await;
        both.site.wait_until(DUE);
        both.look("eu").await;
    }
    let calls = both.euid.calls();
    assert!(calls < 10, "the breaker of EUID is open");
    both.update("us", EuidUpdate::login(identity(Scope::Uid2, "old"))).await;
    assert_eq!(both.look("us").await, "active(A4new)");
    assert_eq!(both.euid.calls(), calls);
}

#[tokio::test]
async fn logout_in_either_region_ends_both_logins() {
    for region in ["eu", "us", "elsewhere"] {
        let mut both = Both::refreshing().with_both_logins().await;
        let kept = both.site.jar.clone();
        let visit = both.update(region, EuidUpdate::logout()).await;
        assert_eq!(both.site.jar.names(), Vec::<&str>::new(), "{region}");
        for late in kept.names().into_iter().filter(|name| !name.ends_with("-login")) {
            both.site.jar.put(late, kept.value(late).unwrap());
        }
        for region in ["eu", "us"] {
            assert_eq!(both.look(region).await, "absent", "a late response brings back no login: {visit:?}");
        }
    }
}

/// A logout's own anchor goes last: curl's jar file forgets all removals of a response but the last.
#[tokio::test]
async fn last_line_of_a_logout_is_the_anchor_of_the_scope_that_serves() {
    for (region, anchor) in [("eu", "__Host-euid-login"), ("us", "__Host-uid2-login")] {
        let mut both = Both::refreshing().with_both_logins().await;
        let visit = both.update(region, EuidUpdate::logout()).await;
        let (removed, _) = changes(visit.response.headers());
        assert_eq!(removed.last().unwrap(), anchor);
    }
}

#[tokio::test]
async fn every_kind_of_logout_ends_both_logins() {
    let clear_site_data = |response: &mut Response<()>| {
        response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cookies\""));
    };
    for kind in ["header", "handle", "hook"] {
        let both = Both::refreshing().with_both_logins().await;
        let mut both = both.configured(|layer| layer.logout_when(|response| response.headers.contains_key("x-logout")));
        let request = both.request("eu");
        let page = service_fn(move |request: Request<()>| {
            let mut response = Response::new(());
            match kind {
                "header" => clear_site_data(&mut response),
                "handle" => EuidLogoutHandle::of(request.extensions()).unwrap().logout(),
                _ => _ = response.headers_mut().insert("x-logout", HeaderValue::from_static("1")),
            }
            ready(Ok::<_, Infallible>(response))
        });
        let response = both.site.layer.layer(page).oneshot(request).await.unwrap();
        both.site.jar.apply(response.headers());
        assert_eq!(both.site.jar.names(), Vec::<&str>::new(), "{kind}");
    }
}

#[tokio::test]
async fn withdrawn_consent_ends_both_logins_also_that_of_the_other_scope_alone() {
    for login in ["both", "eu", "us"] {
        for region in ["eu", "us", "elsewhere"] {
            let mut both = Both::refreshing();
            if login != "us" {
                both.update("eu", EuidUpdate::login(identity(Scope::Euid, "old"))).await;
            }
            if login != "eu" {
                both.update("us", EuidUpdate::login(identity(Scope::Uid2, "old"))).await;
            }
            let mut both = both.configured(|layer| layer.consent(|_| Consent::Withdrawn));
            assert_eq!(both.look(region).await, "withheld", "{login} {region}");
            assert_eq!(both.site.jar.names(), Vec::<&str>::new(), "{login} {region}");
        }
    }
}

#[tokio::test]
async fn consent_that_is_withheld_changes_no_cookie() {
    let mut both = Both::refreshing().with_both_logins().await.configured(|layer| layer.consent(|_| Consent::Withheld));
    let before = both.site.jar.clone();
    for region in ["eu", "us", "elsewhere"] {
        assert_eq!(both.look(region).await, "withheld");
    }
    assert_eq!(both.site.jar.names(), before.names());
}

#[tokio::test]
async fn opt_out_counts_in_its_scope_only() {
    for opt_out in [false, true] {
        let mut both =
            Both::new(Operator::answering(Ok(Refreshed::OptedOut)), Operator::answering(new_pair(Scope::Uid2)));
        both = both.with_both_logins().await;
        if opt_out {
            both.update("eu", EuidUpdate::opt_out()).await;
        } else {
            both.site.wait_until(DUE);
        }
        assert_eq!(both.look("eu").await, "opted_out");
        assert!(both.look("us").await.starts_with("active(A4"));
        assert_eq!(both.look("eu").await, "opted_out");
    }
}

#[tokio::test]
async fn login_of_another_user_shows_no_login_of_the_first_in_the_other_scope() {
    let subject = |layer: EuidLayer| layer.subject(|request| request.extensions.get::<User>().map(|user| user.0));
    let mut both = Both::refreshing().configured(subject);
    both.update("eu", EuidUpdate::login(identity(Scope::Euid, "ann")).subject("ann")).await;
    both.update("us", EuidUpdate::login(identity(Scope::Uid2, "bob")).subject("bob")).await;
    for (region, user, saw) in [
        ("us", "bob", "active(A4bob)"),
        ("eu", "ann", "active(E4ann)"),
        ("eu", "bob", "absent"),
        ("us", "ann", "absent"),
    ] {
        let mut request = both.request(region);
        request.extensions_mut().insert(User(user));
        assert_eq!(both.site.send(request, NOTHING).await.saw(), saw, "{region} {user}");
    }
}

#[tokio::test]
async fn request_that_no_scope_serves_sees_nothing_and_keeps_both_logins() {
    let mut both = Both::refreshing().with_both_logins().await;
    both.site.wait_until(DUE);
    let before = both.site.jar.clone();
    assert_eq!(both.look("elsewhere").await, "absent");
    assert_eq!(both.site.jar.names(), before.names());
    assert_eq!((both.euid.calls(), both.uid2.calls()), (0, 0));
}

#[tokio::test]
async fn login_that_no_scope_serves_is_not_written_and_ends_the_logins() {
    let log = Log::default();
    let mut both = Both::refreshing().with_both_logins().await;
    let _guard = log.start();
    let visit = both.update("elsewhere", EuidUpdate::login(identity(Scope::Euid, "new"))).await;
    assert_eq!(changes(visit.response.headers()).1, Vec::<String>::new());
    assert_eq!(both.site.jar.names(), Vec::<&str>::new(), "another person may have logged in");
    let lines = log.take();
    assert!(
        lines.iter().any(|line| line.contains("chose no scope") && line.contains("reason=\"no_scope\"")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn login_with_tokens_of_the_other_scope_is_refused() {
    for (region, wrong) in [("eu", Scope::Uid2), ("us", Scope::Euid)] {
        let log = Log::default();
        let mut both = Both::refreshing().with_both_logins().await;
        let _guard = log.start();
        let visit = both.update(region, EuidUpdate::login(identity(wrong, "secret"))).await;
        assert_eq!(changes(visit.response.headers()).1, Vec::<String>::new(), "{region}");
        let lines = log.take();
        let error = lines.iter().find(|line| line.starts_with("ERROR")).unwrap();
        assert!(
            error.contains("reason=\"wrong_scope\"") && error.contains("its tokens are of the other scope"),
            "{error}"
        );
        assert!(!log.text().contains("secret") && !error.contains("secret"));
    }
}

#[tokio::test]
async fn layer_of_one_scope_refuses_a_login_of_the_other() {
    for (own, wrong) in [(Scope::Euid, Scope::Uid2), (Scope::Uid2, Scope::Euid)] {
        let mut site = Site::new(Operator::never().of_scope(own));
        let visit = site.update(EuidUpdate::login(identity(wrong, "old"))).await;
        assert_eq!(changes(visit.response.headers()).1, Vec::<String>::new(), "{own}");
        site.update(EuidUpdate::login(identity(own, "old"))).await;
        assert_eq!(site.look().await.saw(), format!("active({})", token(own, "old")));
        // Tokens are opaque: one that does not tell its scope is one of this layer's.
        site.update(EuidUpdate::login(identity_until("opaque", [REFRESH_FROM, IDENTITY_EXPIRES, REFRESH_EXPIRES])))
            .await;
        assert_eq!(site.look().await.saw(), "active(opaque)");
    }
}

#[tokio::test]
async fn refreshed_pair_of_the_other_scope_is_refused() {
    let log = Log::default();
    let wrong = Operator::answering(new_pair(Scope::Uid2));
    let mut both = Both::new(wrong, Operator::never()).with_both_logins().await;
    both.site.wait_until(DUE);
    let _guard = log.start();
    assert_eq!(both.look("eu").await, "active(E4old)", "the old token is still usable");
    let lines = log.take();
    assert!(lines.iter().any(|line| line.starts_with("WARN") && line.contains("kind=WrongScope")), "{lines:?}");
}

#[tokio::test]
async fn hooks_and_handlers_find_the_scope_in_the_request() {
    let both = Both::refreshing();
    let in_hook = Arc::new(Mutex::new(Vec::new()));
    let found = Arc::clone(&in_hook);
    let both = both.configured(|layer| {
        layer.consent(move |request| {
            found.lock().unwrap().push(request.extensions.get::<Scope>().copied());
            Consent::Granted
        })
    });
    for (region, scope) in [("eu", Some(Scope::Euid)), ("us", Some(Scope::Uid2)), ("elsewhere", None)] {
        let page = service_fn(move |request: Request<()>| {
            assert_eq!(request.extensions().get::<Scope>().copied(), scope);
            ready(Ok::<_, Infallible>(Response::new(())))
        });
        // Whatever scope a middleware outside has put there.
        for outside in [None, Some(Scope::Euid), Some(Scope::Uid2)] {
            let mut request = both.request(region);
            outside.map(|scope| request.extensions_mut().insert(scope));
            both.site.layer.layer(page).oneshot(request).await.unwrap();
            assert_eq!(in_hook.lock().unwrap().pop(), Some(scope));
        }
    }
}

#[tokio::test]
async fn two_clients_of_one_scope_are_refused() {
    for scope in Scope::ALL {
        let layer = EuidLayer::new(ring(), Operator::never().of_scope(scope));
        let error = layer.scope(Operator::never().of_scope(scope), |_| None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("both clients are of {scope}")), "{error}");
    }
    // A `Refresh` that does not say its scope gets the one that is left.
    let silent = || refresh_fn(async |_: Identity| Ok(Refreshed::OptedOut));
    assert!(EuidLayer::new(ring(), silent()).scope(silent(), |_| None).is_ok());
    assert!(EuidLayer::new(ring(), Operator::never().of_scope(Scope::Uid2)).scope(silent(), |_| None).is_ok());
}

#[tokio::test]
async fn layer_whose_own_scope_is_uid2_serves_both() {
    let site = Site::new(Operator::answering(new_pair(Scope::Uid2)).of_scope(Scope::Uid2));
    let other = Operator::answering(new_pair(Scope::Euid)).of_scope(Scope::Euid);
    let site = site.configured(|layer| layer.scope(other, scope_of).unwrap());
    let mut both = Both { site, euid: Operator::never(), uid2: Operator::never() }.with_both_logins().await;
    both.site.wait_until(DUE);
    for (region, saw) in [("eu", "active(E4new)"), ("us", "active(A4new)")] {
        assert_eq!(both.look(region).await, saw);
    }
}

#[tokio::test]
async fn settings_of_refreshes_hold_in_both_scopes_in_any_order() {
    let uid2 = || Operator::answering(new_pair(Scope::Uid2)).of_scope(Scope::Uid2).after(Duration::from_secs(5));
    let euid = || Operator::never().of_scope(Scope::Euid);
    let plain = |layer: EuidLayer| layer.expiry_margin(Duration::ZERO).refresh_jitter(Duration::ZERO);
    for scope_first in [false, true] {
        let site = Site::new(euid());
        let clock = site.clock.clone();
        let settings = |layer: EuidLayer| plain(layer).clock(clock).max_wait(Duration::ZERO);
        let layer = EuidLayer::new(ring(), euid());
        let layer = if scope_first {
            settings(layer.scope(uid2(), scope_of).unwrap())
        } else {
            settings(layer).scope(uid2(), scope_of).unwrap()
        };
        let mut both = Both { site: site.configured(|_| layer), euid: Operator::never(), uid2: Operator::never() };
        both.update("us", EuidUpdate::login(identity(Scope::Uid2, "old"))).await;
        both.site.wait_until(DUE);
        assert_eq!(both.look("us").await, "active(A4old)", "the page does not wait");
    }
}

#[tokio::test]
async fn both_scopes_without_a_subject_are_warned_of_once() {
    let log = Log::default();
    let _guard = log.start();
    let both = Both::refreshing();
    let warnings = |lines: Vec<String>| lines.iter().filter(|line| line.contains("serves both scopes")).count();
    for _ in 0..2 {
        let _ = both.site.layer.layer(());
    }
    assert_eq!(warnings(log.take()), 1);
    let bound = both.configured(|layer| layer.subject(|_| None::<&str>));
    let _ = bound.site.layer.layer(());
    assert_eq!(warnings(log.take()), 0);
}

/// The TC string of a visitor who has agreed to nothing.
const REFUSED: &str = "euconsent-v2=CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA";

#[tokio::test]
async fn tcf_string_decides_for_euid_only() {
    let mut both = Both::refreshing().with_both_logins().await.configured(EuidLayer::consent_from_tcf_cookie);
    let mut request = both.request("us");
    request.headers_mut().append(COOKIE, HeaderValue::from_static(REFUSED));
    assert_eq!(both.send(request, None).await.saw(), "active(A4old)");
    let mut request = both.request("eu");
    request.headers_mut().append(COOKIE, HeaderValue::from_static(REFUSED));
    assert_eq!(both.send(request, None).await.saw(), "withheld");
    assert_eq!(both.site.jar.names(), Vec::<&str>::new(), "the visitor has withdrawn consent");

    let mut site = Site::new(Operator::never().of_scope(Scope::Uid2)).configured(EuidLayer::consent_from_tcf_cookie);
    site.update(EuidUpdate::login(identity(Scope::Uid2, "old"))).await;
    let mut request = site.jar.request();
    request.headers_mut().append(COOKIE, HeaderValue::from_static(REFUSED));
    assert_eq!(site.send(request, NOTHING).await.saw(), "active(A4old)");
}

#[tokio::test]
async fn uid2_identity_beside_a_tcf_string_is_warned_of_once() {
    let log = Log::default();
    let mut both = Both::refreshing().with_both_logins().await;
    let _guard = log.start();
    let warnings = |lines: Vec<String>| lines.iter().filter(|line| line.contains("TCF consent string")).count();
    both.look("us").await;
    for (region, expected) in [("eu", 0), ("us", 1), ("us", 0)] {
        let mut request = both.request(region);
        request.headers_mut().append(COOKIE, HeaderValue::from_static(REFUSED));
        both.send(request, None).await;
        assert_eq!(warnings(log.take()), expected, "{region}");
    }
}

const SCRIPT_TOKENS: [&str; 2] = ["__euid_advertising_token", "__uid2_advertising_token"];

#[tokio::test]
async fn scripts_get_the_token_of_the_scope_that_serves_the_page() {
    let both = Both::refreshing().configured(|layer| layer.cookie(CookieConfig::default().expose_token_to_scripts()));
    let mut both = both.with_both_logins().await;
    for (region, tokens) in [
        ("us", [None, Some("A4old")]),
        ("eu", [Some("E4old"), None]),
        ("eu", [Some("E4old"), None]),
        ("us", [None, Some("A4old")]),
        ("elsewhere", [None, None]),
        ("eu", [Some("E4old"), None]),
    ] {
        both.look(region).await;
        assert_eq!(SCRIPT_TOKENS.map(|name| both.site.jar.value(name)), tokens, "{region}");
    }
    both.update("us", EuidUpdate::logout()).await;
    assert_eq!(both.site.jar.names(), Vec::<&str>::new());
}

#[tokio::test]
async fn image_takes_no_token_back_from_scripts() {
    let both = Both::refreshing().configured(|layer| layer.cookie(CookieConfig::default().expose_token_to_scripts()));
    let mut both = both.with_both_logins().await;
    let mut request = both.request("eu");
    request.headers_mut().insert("sec-fetch-dest", HeaderValue::from_static("image"));
    let visit = both.send(request, None).await;
    assert!(set_cookies(visit.response.headers()).is_empty(), "{visit:?}");
}

#[tokio::test]
async fn cookie_of_the_sdk_of_each_scope_is_migrated_in_its_scope() {
    let migrating = CookieConfig::default().migrate_js_sdk_cookie(None).unwrap();
    let mut both = Both::refreshing().configured(|layer| layer.cookie(migrating));
    both.site.jar.put("__euid", &sdk_value(&identity(Scope::Euid, "sdk")));
    both.site.jar.put("__uid_2", &sdk_value(&identity(Scope::Uid2, "sdk")));
    assert_eq!(both.look("elsewhere").await, "absent");
    assert_eq!(both.look("us").await, "active(A4sdk)");
    assert_eq!(both.site.jar.names(), ["__euid", "__Host-uid2.sdk"]);
    assert_eq!(both.look("eu").await, "active(E4sdk)");
    assert_eq!(both.site.jar.names(), ["__Host-uid2.sdk", "__Host-euid.sdk"]);
    both.site.jar.put("__uid_2", &sdk_value(&identity(Scope::Uid2, "again")));
    both.update("eu", EuidUpdate::logout()).await;
    assert_eq!(both.site.jar.names(), ["__Host-uid2-login", "__Host-euid-login"]);
    both.site.jar.put("__uid_2", &sdk_value(&identity(Scope::Uid2, "late")));
    for region in ["eu", "us"] {
        assert_eq!(both.look(region).await, "absent");
    }
}

/// The SDK's cookie names no user: it may be of another person than the one who logs in.
#[tokio::test]
async fn login_ends_what_was_migrated_in_the_other_scope() {
    let migrating = CookieConfig::default().migrate_js_sdk_cookie(None).unwrap();
    for (taken_over, update) in [
        (false, EuidUpdate::login(identity(Scope::Euid, "bob"))),
        (true, EuidUpdate::login(identity(Scope::Euid, "bob"))),
        (false, EuidUpdate::opt_out()),
    ] {
        let mut both = Both::refreshing().configured(|layer| layer.cookie(migrating.clone()));
        both.site.jar.put("__uid_2", &sdk_value(&identity(Scope::Uid2, "ann")));
        if taken_over {
            assert_eq!(both.look("us").await, "active(A4ann)");
        }
        let before = both.site.jar.clone();
        both.update("eu", update).await;
        assert_eq!(both.look("us").await, "absent");
        // A late response of Ann's page brings nothing back.
        for name in before.names().into_iter().filter(|name| name.contains("uid2") || name.contains("uid_2")) {
            both.site.jar.put(name, before.value(name).unwrap());
        }
        assert_eq!(both.look("us").await, "absent");
    }
}

#[tokio::test]
async fn login_keeps_a_login_of_the_other_scope_on_a_site_that_migrates() {
    let migrating = CookieConfig::default().migrate_js_sdk_cookie(None).unwrap();
    let mut both = Both::refreshing().configured(|layer| layer.cookie(migrating)).with_both_logins().await;
    both.update("eu", EuidUpdate::login(identity(Scope::Euid, "again"))).await;
    assert_eq!(both.look("us").await, "active(A4old)");
}

#[tokio::test]
async fn identity_of_the_other_scope_in_the_cookie_of_the_sdk_is_ignored() {
    let log = Log::default();
    let migrating = CookieConfig::default().migrate_js_sdk_cookie(None).unwrap();
    let mut both = Both::refreshing().configured(|layer| layer.cookie(migrating));
    both.site.jar.put("__uid_2", &sdk_value(&identity(Scope::Euid, "sdk")));
    let _guard = log.start();
    assert_eq!(both.look("us").await, "absent");
    assert_eq!(both.site.jar.names(), ["__uid_2"]);
    let lines = log.take();
    assert!(lines.iter().any(|line| line.contains("scope=\"uid2\" reason=\"wrong_scope\"")), "{lines:?}");
}

#[tokio::test]
async fn withdrawn_consent_ends_the_cookie_of_the_sdk_in_every_scope() {
    let cookies = [("__euid", Scope::Euid), ("__uid_2", Scope::Uid2)];
    for (region, (name, scope)) in
        ["eu", "us", "elsewhere"].iter().flat_map(|region| cookies.map(|cookie| (region, cookie)))
    {
        let migrating = CookieConfig::default().migrate_js_sdk_cookie(None).unwrap();
        let mut both = Both::refreshing().configured(|layer| layer.cookie(migrating));
        let consenting = both.site.layer.clone();
        let sdk = sdk_value(&identity(scope, "sdk"));
        both.site.jar.put(name, &sdk);
        both = both.configured(|layer| layer.consent(|_| Consent::Withdrawn));
        assert_eq!(both.look(region).await, "withheld");
        // A late page may bring it back.
        both.site.jar.put(name, &sdk);
        both.site.layer = consenting;
        for region in ["eu", "us"] {
            assert_eq!(both.look(region).await, "absent", "{name} {region}");
        }
    }
}

/// Neither would a page of its own scope take it over.
#[tokio::test]
async fn withdrawn_consent_leaves_a_cookie_of_the_sdk_that_is_not_migrated() {
    let other = sdk_value(&identity(Scope::Euid, "sdk"));
    for (name, value, migrates) in
        [("__uid_2", &*other, true), ("__uid_2", "garbled", true), ("__euid", &*other, false)]
    {
        let mut both = Both::refreshing().configured(|layer| layer.consent(|_| Consent::Withdrawn));
        if migrates {
            both = both.configured(|layer| layer.cookie(CookieConfig::default().migrate_js_sdk_cookie(None).unwrap()));
        }
        both.site.jar.put(name, value);
        assert_eq!(both.look("elsewhere").await, "withheld");
        assert_eq!(both.site.jar.names(), [name], "{migrates}");
    }
}

/// A logout removes at most eight other cookies of a scope, and always those of the login that counts.
#[tokio::test]
async fn logout_removes_a_login_behind_many_cookies_of_the_other_scope() {
    let mut both = Both::refreshing().with_both_logins().await;
    let logins = std::mem::take(&mut both.site.jar);
    (0..8).for_each(|number| both.site.jar.put(format!("__Host-uid2.old{number}"), "x"));
    for name in logins.names() {
        both.site.jar.put(name, logins.value(name).unwrap());
    }
    both.update("eu", EuidUpdate::logout()).await;
    assert_eq!(both.site.jar.names(), Vec::<&str>::new());
}

/// A node that does not migrate keeps the logout for those that do.
#[tokio::test]
async fn logout_ends_a_migrated_identity_behind_many_cookies_of_the_other_scope() {
    let migrating = CookieConfig::default().migrate_js_sdk_cookie(None).unwrap();
    let mut both = Both::refreshing();
    let not_migrating = both.site.layer.clone();
    both = both.configured(|layer| layer.cookie(migrating));
    both.site.jar.put("__uid_2", &sdk_value(&identity(Scope::Uid2, "sdk")));
    both.look("us").await;
    let migrated = both.site.jar.value("__Host-uid2.sdk").unwrap().to_owned();
    (0..8).for_each(|number| both.site.jar.put(format!("__Host-uid2.old{number}"), "x"));
    both.site.jar.put("__Host-uid2.sdk", &migrated);
    let migrating = std::mem::replace(&mut both.site.layer, not_migrating);
    both.update("eu", EuidUpdate::logout()).await;
    both.site.layer = migrating;
    assert_eq!(both.look("us").await, "absent");
}

/// The browser may send a request between two lines of a response.
#[tokio::test]
async fn no_line_of_a_logout_lets_an_identity_count_without_its_record_in_either_scope() {
    for region in ["eu", "us", "elsewhere"] {
        let opted_out = || Operator::answering(Ok(Refreshed::OptedOut));
        let mut both = Both::new(opted_out(), opted_out()).with_both_logins().await;
        let down = |scope| Operator::answering(failure(ErrorKind::Transient)).of_scope(scope);
        let another_node = EuidLayer::new(both.site.layer.keys(), down(Scope::Euid)).clock(both.site.clock.clone());
        let another_node = another_node.scope(down(Scope::Uid2), scope_of).unwrap();
        let late = both.site.jar.clone();
        both.site.wait_until(DUE);
        for region in ["eu", "us"] {
            assert_eq!(both.look(region).await, "opted_out");
        }
        let before = both.site.jar.clone();
        let logout = both.update(region, EuidUpdate::logout()).await;
        both.site.layer = another_node;
        let lines: Vec<_> = logout.response.headers().get_all(SET_COOKIE).iter().collect();
        for stored in 0..=lines.len() {
            both.site.jar = before.clone();
            for name in late.names().into_iter().filter(|name| !name.ends_with("-login")) {
                both.site.jar.put(name, late.value(name).unwrap());
            }
            for line in lines.iter().take(stored) {
                both.site.jar.apply(&HeaderMap::from_iter([(SET_COOKIE, (*line).clone())]));
            }
            for scope in ["eu", "us"] {
                let saw = both.site.send(both.request(scope), NOTHING).await.saw();
                assert!(!saw.starts_with("active"), "{region}, after {stored} lines: {saw} in {scope}");
            }
        }
    }
}

/// A response that can't write a new pair writes nothing at all: it is not kept from caches.
#[tokio::test]
async fn pair_that_fits_into_no_cookie_takes_no_token_back_from_scripts() {
    let too_long = identity(Scope::Euid, &"x".repeat(5000));
    let both = Both::new(Operator::answering(Ok(Refreshed::Identity(too_long))), Operator::never());
    let both = both.configured(|layer| layer.cookie(CookieConfig::default().expose_token_to_scripts()));
    let both = both.with_both_logins().await;
    both.site.wait_until(DUE);
    let request = both.request("eu");
    let page = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(()))));
    let response = both.site.layer.layer(page).oneshot(request).await.unwrap();
    assert!(response.headers().is_empty(), "{:?}", response.headers());
}

/// The layer inside knows the user. It compares the user with the login of the scope that the page sees.
#[tokio::test]
async fn layer_inside_shows_no_token_of_another_user_in_a_scope_that_it_does_not_choose() {
    let mut both = Both::refreshing();
    both.update("eu", EuidUpdate::login(identity(Scope::Euid, "ann")).subject("ann")).await;
    both.update("us", EuidUpdate::login(identity(Scope::Uid2, "bob")).subject("bob")).await;
    let keys = both.site.layer.keys();
    for user in ["ann", "bob"] {
        let layer =
            |scope| EuidLayer::new(keys.clone(), Operator::never().of_scope(scope)).clock(both.site.clock.clone());
        let [euid, uid2] = Scope::ALL.map(|scope| layer(scope).subject(move |_| Some(user)));
        let chooses = |scope| euid.clone().scope(Operator::never().of_scope(Scope::Uid2), move |_| scope).unwrap();
        let (ann, bob) = match user {
            "ann" => ("active(E4ann)", "absent"),
            _ => ("absent", "active(A4bob)"),
        };
        for (inner, sees_euid, sees_uid2) in [
            (&euid, ann, "absent"),
            (&uid2, "absent", bob),
            (&chooses(Some(Scope::Euid)), ann, bob),
            (&chooses(Some(Scope::Uid2)), ann, bob),
            (&chooses(None), ann, bob),
        ] {
            for (region, expected) in [("eu", sees_euid), ("us", sees_uid2)] {
                let seen = Seen::default();
                let service = both.site.layer.layer(inner.layer(page(Arc::clone(&seen), NOTHING)));
                let response = service.oneshot(both.request(region)).await.unwrap();
                assert_eq!(Visit::of(&seen, response).saw(), expected, "{user} {region} {inner:?}");
            }
        }
    }
}

/// The anchors are in the part that was searched, and there is nothing to end.
#[tokio::test]
async fn withdrawn_consent_writes_nothing_beside_ended_logins_and_64_kib_of_cookies() {
    let both = Both::refreshing().configured(|layer| layer.consent(|_| Consent::Withdrawn));
    for region in ["eu", "us", "elsewhere"] {
        let mut request = both.request(region);
        for cookies in
            ["__Host-euid-login=none; __Host-uid2-login=none".to_owned(), format!("a={}", "x".repeat(65_536))]
        {
            request.headers_mut().append(COOKIE, HeaderValue::try_from(cookies).unwrap());
        }
        let visit = both.site.send(request, NOTHING).await;
        assert!(set_cookies(visit.response.headers()).is_empty(), "{region}: {visit:?}");
    }
}
