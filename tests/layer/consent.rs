//! `EuidLayer::consent`: withheld, nobody is asked and nothing is handed out; withdrawn, nothing is left.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::{Arc, Mutex};

use http::header::COOKIE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::{Consent, Euid, EuidLayer, EuidLogoutHandle, EuidUpdate, Refreshed};

use crate::support::{
    ANCHOR, BOTH_CLEARED, BOTH_SET, DUE, EXPIRED, IDENTITY, Jar, Log, Operator, REFRESH_EXPIRES, Site, expect,
    identity, new_pair, outcome,
};

fn consenting(site: &Site, consent: Consent) -> Site {
    site.clone().configured(|layer| layer.consent(move |_| consent))
}

/// A browser that is logged in, `millis` later.
async fn logged_in(operator: Operator, millis: i64) -> Site {
    let mut site = Site::new(operator);
    site.login("old").await;
    site.wait_until(millis);
    site
}

#[tokio::test]
async fn withheld_the_identity_rests_and_nobody_is_asked() {
    let operator = Operator::answering(new_pair("new"));
    for (millis, expected) in [
        (0, expect("withheld", "")),
        (DUE, expect("withheld", "")),
        (EXPIRED, expect("withheld", "")),
        (REFRESH_EXPIRES, expect("withheld", "")),
    ] {
        let mut site = consenting(&logged_in(operator.clone(), millis).await, Consent::Withheld);
        assert_eq!(outcome(&site.look().await), expected, "{millis}");
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn granted_again_the_identity_goes_on() {
    let site = logged_in(Operator::answering(new_pair("new")), DUE).await;
    let mut withholding = consenting(&site, Consent::Withheld);
    withholding.look().await;
    let mut granting = Site { jar: withholding.jar, ..consenting(&site, Consent::Granted) };
    assert_eq!(outcome(&granting.look().await), expect("active(new)", "identity set"));
}

#[tokio::test]
async fn withheld_a_login_is_stored_all_the_same() {
    let mut site = consenting(&Site::offline(), Consent::Withheld);
    assert_eq!(outcome(&site.login("new").await), expect("withheld", BOTH_SET));
    assert_eq!(outcome(&site.look().await), expect("withheld", ""));
}

#[tokio::test]
async fn withheld_an_opt_out_is_told_and_a_logout_clears() {
    let mut site = logged_in(Operator::answering(Ok(Refreshed::OptedOut)), DUE).await;
    site.look().await;
    let mut recorded = consenting(&site, Consent::Withheld);
    assert_eq!(outcome(&recorded.look().await), expect("opted_out", ""));
    assert_eq!(recorded.update(EuidUpdate::logout()).await.writes(), BOTH_CLEARED);
    recorded.update(EuidUpdate::opt_out()).await;
    assert_eq!(outcome(&recorded.look().await), expect("opted_out", ""));
}

#[tokio::test]
async fn withdrawn_whatever_came_is_cleared_and_nobody_is_asked() {
    let operator = Operator::answering(new_pair("new"));
    let active = logged_in(operator.clone(), 0).await;
    let mut stated = active.clone();
    stated.update(EuidUpdate::opt_out()).await;
    let mut recorded = logged_in(Operator::answering(Ok(Refreshed::OptedOut)), DUE).await;
    recorded.look().await;
    let mut of_ann = active.clone();
    of_ann.update(EuidUpdate::login(identity("anns")).subject("ann")).await;
    let of_ann = of_ann.configured(|layer| layer.subject(|_| Some("bob")));
    let jar = |jar| Site { jar, ..active.clone() };
    for (what, site) in [
        ("due", logged_in(operator.clone(), DUE).await),
        ("expired", logged_in(operator.clone(), EXPIRED).await),
        ("over", logged_in(operator.clone(), REFRESH_EXPIRES).await),
        ("of an unknown key", Site { jar: active.jar.clone(), ..Site::offline() }),
        ("identity alone", jar(active.jar.clone().without(ANCHOR))),
        ("anchor alone", jar(active.jar.clone().without(IDENTITY))),
        ("garbage", jar(Jar::default().with(IDENTITY, "x").with(ANCHOR, "x"))),
        ("opt-out, stated", stated),
        ("opt-out, found", recorded),
        ("bound to another", of_ann),
        ("active", active),
    ] {
        let mut site = consenting(&site, Consent::Withdrawn);
        assert_eq!(outcome(&site.look().await), expect("withheld", BOTH_CLEARED), "{what}");
        assert_eq!(outcome(&site.look().await), expect("withheld", ""), "{what}: nothing is left");
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn without_consent_a_visitor_without_cookies_is_not_absent_which_would_read_as_generate() {
    for consent in [Consent::Withheld, Consent::Withdrawn] {
        let visit = consenting(&Site::offline(), consent).look().await;
        assert_eq!(visit.saw(), "withheld", "{consent:?}");
        assert!(visit.response.headers().is_empty());
    }
}

#[tokio::test]
async fn withdrawn_a_login_is_not_written_and_warned_about() {
    let warning = "WARN tower_euid: a login was not written: the visitor has withdrawn consent";
    let logged_in = logged_in(Operator::never(), 0).await;
    for site in [logged_in, Site::offline()] {
        let mut site = consenting(&site, Consent::Withdrawn).configured(|layer| layer.subject(|_| Some("ann")));
        let log = Log::default();
        let _logging = log.start();
        // Somebody has come all the same, so whoever was there before has gone.
        assert_eq!(outcome(&site.login("new").await), expect("withheld", BOTH_CLEARED));
        assert_eq!(log.take(), [warning]);
    }
}

#[tokio::test]
async fn withdrawn_a_logout_still_clears_however_it_is_said() {
    let said: [fn(&mut Response<()>); 4] = [
        |response| EuidUpdate::logout().attach(response),
        |response| EuidUpdate::opt_out().attach(response),
        |response| drop(response.headers_mut().insert("clear-site-data", "\"cookies\"".parse().unwrap())),
        |response| {
            EuidUpdate::login(identity("x")).attach(response);
            EuidUpdate::logout().attach(response);
        },
    ];
    for say in said {
        let mut site = consenting(&Site::offline(), Consent::Withdrawn);
        assert_eq!(site.visit(move |_, response| say(response)).await.writes(), BOTH_CLEARED);
        assert_eq!(site.look().await.saw(), "withheld", "no opt-out is remembered");
    }
}

#[tokio::test]
async fn withdrawn_a_page_that_has_not_changed_clears_too() {
    let mut site = consenting(&logged_in(Operator::never(), 0).await, Consent::Withdrawn);
    let visit = site.visit(|_, response| *response.status_mut() = StatusCode::NOT_MODIFIED).await;
    assert_eq!(visit.writes(), BOTH_CLEARED);
}

/// The consent that a handler finds in its request.
async fn found_consent(site: &Site, request: Request<()>) -> Option<Consent> {
    let found = Arc::new(Mutex::new(None));
    let finds = Arc::clone(&found);
    let handler = service_fn(move |request: Request<()>| {
        *finds.lock().unwrap() = request.extensions().get::<Consent>().copied();
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(())))
    });
    let Ok(_) = site.layer.layer(handler).oneshot(request).await;
    *found.lock().unwrap()
}

#[tokio::test]
async fn handlers_find_the_answer_of_the_hook_also_after_an_opt_out() {
    let mut opted_out = Site::offline();
    opted_out.update(EuidUpdate::opt_out()).await;
    let due = logged_in(Operator::answering(new_pair("new")), DUE).await;
    for consent in [Consent::Granted, Consent::Withheld, Consent::Withdrawn] {
        for site in [&opted_out, &due] {
            let site = consenting(site, consent);
            assert_eq!(found_consent(&site, site.jar.request()).await, Some(consent));
            assert_eq!(found_consent(&site, Request::new(())).await, Some(consent));
        }
    }
    let opted_out = consenting(&opted_out, Consent::Withheld).look().await;
    assert_eq!(opted_out.saw(), "opted_out", "which says nothing of consent");
}

#[tokio::test]
async fn handlers_find_no_consent_where_no_hook_is_set() {
    let site = logged_in(Operator::never(), 0).await;
    let binding = site.clone().configured(|layer| layer.subject(|_| Some("ann")));
    for site in [site, binding] {
        assert_eq!(found_consent(&site, site.jar.request()).await, None);
    }
}

#[derive(Clone)]
struct User(&'static str);

#[tokio::test]
async fn the_hooks_see_the_request_and_leave_it_whole() {
    let site = Site::offline().configured(|layer| {
        layer.subject(|request| request.extensions.get::<User>().map(|user| user.0)).consent(|request| {
            let asked = request.method == Method::POST && request.uri.path() == "/here";
            if asked && request.headers.contains_key("x") { Consent::Withdrawn } else { Consent::Granted }
        })
    });
    let request = Request::post("/here").header("x", "y").extension(User("ann")).body("the body").unwrap();
    let handler = service_fn(|request: Request<&'static str>| async move {
        let whole = request.method() == Method::POST && request.uri() == "/here" && request.headers()["x"] == "y";
        assert!(whole && request.extensions().get::<User>().unwrap().0 == "ann" && *request.body() == "the body");
        assert!(matches!(request.extensions().get(), Some(Euid::Withheld)));
        EuidLogoutHandle::of(request.extensions()).unwrap().logout();
        Ok::<_, std::convert::Infallible>(Response::new(()))
    });
    let Ok(response) = site.layer.layer(handler).oneshot(request).await;
    assert_eq!(crate::support::writes(response.headers()), BOTH_CLEARED);
}

/// A string that allows enough, and one without purpose 1.
const SUFFICIENT: &str = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";
const INSUFFICIENT: &str = "CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA";

#[tokio::test]
async fn tcf_cookie_stops_use_and_refresh_and_only_a_refusal_ends_the_identity() {
    let operator = Operator::answering(new_pair("new"));
    let site = logged_in(operator.clone(), DUE).await.configured(EuidLayer::consent_from_tcf_cookie);
    for (cookies, expected) in [
        (&[][..], expect("withheld", "")),
        (&["euconsent-v2=CPehNtW"], expect("withheld", "")),
        (&["euconsent-v2="], expect("withheld", "")),
        (&["euconsent-v2=SUFFICIENT;euconsent-v2=INSUFFICIENT"], expect("withheld", "")),
        (&["euconsent-v2=INSUFFICIENT", "euconsent-v2=SUFFICIENT"], expect("withheld", "")),
        (&["a=b;euconsent-v2=INSUFFICIENT"], expect("withheld", BOTH_CLEARED)),
    ] {
        let mut request = site.jar.request();
        for cookie in cookies {
            let cookie = cookie.replace("INSUFFICIENT", INSUFFICIENT).replace("SUFFICIENT", SUFFICIENT);
            request.headers_mut().append(COOKIE, cookie.parse().unwrap());
        }
        assert_eq!(outcome(&site.send(request, |_, _| ()).await), expected, "{cookies:?}");
    }
    assert_eq!(operator.calls(), 0);

    let mut request = site.jar.request();
    let beside = [b"city=K\xf6ln;euconsent-v2=", SUFFICIENT.as_bytes()].concat();
    request.headers_mut().append(COOKIE, HeaderValue::from_bytes(&beside).unwrap());
    assert_eq!(outcome(&site.send(request, |_, _| ()).await), expect("active(new)", "identity set"));
}
