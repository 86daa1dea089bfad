//! `EuidLayer::consent`: the hook decides what the layer may do with an identity.
//!
//! 1. Consent withheld: handlers see no token, the operator gets no call, and the cookies stay.
//! 2. Consent withdrawn: the response clears the cookies, too.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::{Consent, Euid, EuidLayer, EuidLogoutHandle, EuidUpdate, Refreshed, Scope};

use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, Jar, LOGIN_REMOVED, LOGIN_WRITTEN, Log, NOTHING, Operator, REFRESH_EXPIRES, Site,
    User, consent_page, expect, identity, new_pair, outcome, scope, writes,
};

/// Returns a copy of the site whose hook returns `consent`.
fn with_consent(site: &Site, consent: Consent) -> Site {
    site.clone().configured(|layer| layer.consent(move |_| consent))
}

#[tokio::test]
async fn consent_withheld_keeps_the_cookies_hides_the_token_and_makes_no_call() {
    let operator = Operator::answering(new_pair("new"));
    for millis in [0, DUE, EXPIRED, REFRESH_EXPIRES] {
        let mut site = with_consent(&Site::new(operator.clone()).logged_in(millis).await, Consent::Withheld);
        assert_eq!(outcome(&site.look().await), expect("withheld", ""), "{millis}");
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn consent_granted_after_withheld_refreshes_the_kept_identity() {
    let site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let mut withheld = with_consent(&site, Consent::Withheld);
    withheld.look().await;
    let mut granted = Site { jar: withheld.jar, ..with_consent(&site, Consent::Granted) };
    assert_eq!(outcome(&granted.look().await), expect("active(new)", "identity set"));
}

#[tokio::test]
async fn consent_withheld_still_stores_a_login() {
    let mut site = with_consent(&Site::offline(), Consent::Withheld);
    assert_eq!(outcome(&site.login("new").await), expect("withheld", LOGIN_WRITTEN));
    assert_eq!(outcome(&site.look().await), expect("withheld", ""));
}

#[tokio::test]
async fn consent_withheld_shows_an_opt_out_and_lets_a_logout_clear() {
    let mut site = Site::new(Operator::answering(Ok(Refreshed::OptedOut))).logged_in(DUE).await;
    site.look().await;
    let mut opted_out_by_refresh = with_consent(&site, Consent::Withheld);
    assert_eq!(outcome(&opted_out_by_refresh.look().await), expect("opted_out", ""));
    assert_eq!(opted_out_by_refresh.update(EuidUpdate::logout()).await.writes(), "anchor cleared, opt-out cleared");
    opted_out_by_refresh.update(EuidUpdate::opt_out()).await;
    assert_eq!(outcome(&opted_out_by_refresh.look().await), expect("opted_out", ""));
}

#[tokio::test]
async fn consent_withdrawn_clears_every_state_and_makes_no_call() {
    let operator = Operator::answering(new_pair("new"));
    let active = Site::new(operator.clone()).logged_in(0).await;
    let mut opted_out_by_site = active.clone();
    opted_out_by_site.update(EuidUpdate::opt_out()).await;
    let mut opted_out_by_refresh = Site::new(Operator::answering(Ok(Refreshed::OptedOut))).logged_in(DUE).await;
    opted_out_by_refresh.look().await;
    let mut of_ann = active.clone();
    of_ann.update(EuidUpdate::login(identity("anns")).subject("ann")).await;
    let of_ann = of_ann.configured(|layer| layer.subject(|_| Some("bob")));
    let jar = |jar| Site { jar, ..active.clone() };
    let record = "anchor cleared, opt-out cleared";
    for (state, site, expected) in [
        ("due", Site::new(operator.clone()).logged_in(DUE).await, LOGIN_REMOVED),
        ("expired", Site::new(operator.clone()).logged_in(EXPIRED).await, LOGIN_REMOVED),
        ("refresh token expired", Site::new(operator.clone()).logged_in(REFRESH_EXPIRES).await, LOGIN_REMOVED),
        ("unknown key", Site { jar: active.jar.clone(), ..Site::offline() }, LOGIN_REMOVED),
        ("identity alone", jar(active.jar.clone().without(ANCHOR)), LOGIN_REMOVED),
        ("anchor alone", jar(active.jar.clone().without(IDENTITY)), "anchor cleared"),
        ("garbage", jar(Jar::default().with(format!("{IDENTITY}abcd"), "x").with(ANCHOR, "x")), LOGIN_REMOVED),
        ("opt-out by the site", opted_out_by_site, record),
        ("opt-out found by a refresh", opted_out_by_refresh, record),
        ("bound to another user", of_ann, LOGIN_REMOVED),
        ("active", active, LOGIN_REMOVED),
    ] {
        let mut site = with_consent(&site, Consent::Withdrawn);
        assert_eq!(outcome(&site.look().await), expect("withheld", expected), "{state}");
        assert_eq!(outcome(&site.look().await), expect("withheld", ""), "{state}, next request");
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn visitor_without_cookies_and_consent_is_withheld_and_not_absent() {
    // Handlers may take "absent" as "generate a token".
    for consent in [Consent::Withheld, Consent::Withdrawn] {
        let visit = with_consent(&Site::offline(), consent).look().await;
        assert_eq!(visit.saw(), "withheld", "{consent:?}");
        assert!(visit.response.headers().is_empty());
    }
}

#[tokio::test]
async fn consent_withdrawn_turns_a_login_into_a_logout_with_a_warning() {
    let warning = "WARN tower_euid: a login was not written: the visitor has withdrawn consent";
    let logged_in = Site::offline().logged_in(0).await;
    for (site, expected) in [(logged_in, LOGIN_REMOVED), (Site::offline(), "anchor cleared")] {
        let mut site = with_consent(&site, Consent::Withdrawn).configured(|layer| layer.subject(|_| Some("ann")));
        let log = Log::default();
        let _logging = log.start();
        // A new person is logging in, so the previous identity ends even though there is no new one.
        assert_eq!(outcome(&site.login("new").await), expect("withheld", expected));
        assert_eq!(log.take(), [warning]);
    }
}

#[tokio::test]
async fn consent_withdrawn_clears_for_every_form_of_logout() {
    let logouts: [fn(&mut Response<()>); 4] = [
        |response| EuidUpdate::logout().attach(response),
        |response| EuidUpdate::opt_out().attach(response),
        |response| drop(response.headers_mut().insert("clear-site-data", "\"cookies\"".parse().unwrap())),
        |response| {
            EuidUpdate::login(identity("x")).attach(response);
            EuidUpdate::logout().attach(response);
        },
    ];
    for logout in logouts {
        let mut site = with_consent(&Site::offline(), Consent::Withdrawn);
        assert_eq!(site.visit(move |_, response| logout(response)).await.writes(), "anchor cleared");
        assert_eq!(site.look().await.saw(), "withheld", "the opt-out is not remembered");
    }
}

#[tokio::test]
async fn consent_withdrawn_clears_on_a_304_too() {
    let mut site = with_consent(&Site::offline().logged_in(0).await, Consent::Withdrawn);
    let visit = site.visit(|_, response| *response.status_mut() = StatusCode::NOT_MODIFIED).await;
    assert_eq!(visit.writes(), LOGIN_REMOVED);
}

/// Returns the consent that a handler finds in its request.
async fn found_consent(site: &Site, request: Request<()>) -> Option<Consent> {
    let found = Arc::default();
    let Ok(_) = site.layer.layer(consent_page(Arc::clone(&found))).oneshot(request).await;
    *found.lock().unwrap()
}

#[tokio::test]
async fn consent_of_the_hook_reaches_handlers_in_every_state() {
    let mut opted_out = Site::offline();
    opted_out.update(EuidUpdate::opt_out()).await;
    let due = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    for consent in [Consent::Granted, Consent::Withheld, Consent::Withdrawn] {
        for site in [&opted_out, &due] {
            let site = with_consent(site, consent);
            assert_eq!(found_consent(&site, site.jar.request()).await, Some(consent));
            assert_eq!(found_consent(&site, Request::new(())).await, Some(consent));
        }
    }
    let opted_out = with_consent(&opted_out, Consent::Withheld).look().await;
    assert_eq!(opted_out.saw(), "opted_out", "an opt-out hides the consent");
}

#[tokio::test]
async fn consent_is_missing_without_a_hook() {
    let site = Site::offline().logged_in(0).await;
    let bound = site.clone().configured(|layer| layer.subject(|_| Some("ann")));
    for site in [site, bound] {
        assert_eq!(found_consent(&site, site.jar.request()).await, None);
    }
}

#[tokio::test]
async fn hooks_see_the_request_and_leave_it_unchanged() {
    let site = Site::offline().with_subject().configured(|layer| {
        layer.consent(|request| {
            let is_the_request = request.method == Method::POST && request.uri.path() == "/here";
            if is_the_request && request.headers.contains_key("x") { Consent::Withdrawn } else { Consent::Granted }
        })
    });
    let request = Request::post("/here").header("x", "y").extension(User("ann")).body("the body").unwrap();
    let handler = service_fn(|request: Request<&'static str>| async move {
        let unchanged = request.method() == Method::POST && request.uri() == "/here" && request.headers()["x"] == "y";
        assert!(unchanged && request.extensions().get::<User>().unwrap().0 == "ann" && *request.body() == "the body");
        assert!(matches!(request.extensions().get(), Some(Euid::Withheld)));
        EuidLogoutHandle::of(request.extensions()).unwrap().logout();
        Ok::<_, Infallible>(Response::new(()))
    });
    let Ok(response) = site.layer.layer(handler).oneshot(request).await;
    assert_eq!(writes(response.headers()), "anchor cleared");
}

/// A TCF string that allows enough, and one without purpose 1.
const SUFFICIENT: &str = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";
const INSUFFICIENT: &str = "CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA";

/// In UID2 consent is granted, whatever the cookie says.
#[tokio::test]
async fn tcf_cookie_that_is_missing_or_unclear_withholds_and_one_that_refuses_withdraws() {
    let operator = Operator::answering(new_pair("new"));
    let site = Site::new(operator.clone()).logged_in(DUE).await.configured(EuidLayer::consent_from_tcf_cookie);
    for (cookies, expected) in [
        (&[][..], expect("withheld", "")),
        (&["euconsent-v2=CPehNtW"], expect("withheld", "")),
        (&["euconsent-v2="], expect("withheld", "")),
        (&["euconsent-v2=SUFFICIENT;euconsent-v2=INSUFFICIENT"], expect("withheld", "")),
        (&["euconsent-v2=INSUFFICIENT", "euconsent-v2=SUFFICIENT"], expect("withheld", "")),
        (&["a=b;euconsent-v2=INSUFFICIENT"], expect("withheld", LOGIN_REMOVED)),
    ] {
        let mut request = site.jar.request();
        for cookie in cookies {
            let cookie = cookie.replace("INSUFFICIENT", INSUFFICIENT).replace("SUFFICIENT", SUFFICIENT);
            request.headers_mut().append(COOKIE, cookie.parse().unwrap());
        }
        let expected = match scope() {
            Scope::Euid => expected,
            Scope::Uid2 => expect("active(new)", "identity set"),
        };
        assert_eq!(outcome(&site.send(request, NOTHING).await), expected, "{cookies:?}");
    }
    assert_eq!(operator.calls() > 0, scope() == Scope::Uid2);

    // A cookie that is not UTF-8 does not hide the one beside it.
    let mut request = site.jar.request();
    let beside = [b"city=K\xf6ln;euconsent-v2=", SUFFICIENT.as_bytes()].concat();
    request.headers_mut().append(COOKIE, HeaderValue::from_bytes(&beside).unwrap());
    assert_eq!(outcome(&site.send(request, NOTHING).await), expect("active(new)", "identity set"));
}
