//! A layer inside another layer: a clone lets requests pass, a different one is at most stricter.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response};
use tower::{Layer, ServiceExt};
use tower_euid::{
    AdvertisingToken, Consent, CookieConfig, Euid, EuidLayer, EuidLogoutHandle, EuidUpdate, KeyRing, Refreshed,
};

use crate::support::{
    BOTH_CLEARED, BOTH_SET, DUE, IDENTITY, Log, NOTHING, Operator, SCRIPT_TOKEN, Seen, Site, expect, identity,
    new_pair, page, ring, writes,
};

const WARNING: &str = "WARN tower_euid: an EuidLayer is inside another one that is not its clone: only its hooks \
                       count, and only where they are stricter";

/// A visitor whose login is bound to Ann, or not bound.
async fn visitor(keys: &KeyRing, subject: Option<&str>) -> Site {
    let mut site = Site::with_keys(keys.clone(), Operator::answering(new_pair("new")));
    let login = EuidUpdate::login(identity("old"));
    site.update(subject.iter().fold(login, |login, subject| login.subject(subject))).await;
    site
}

/// Another layer of the same keys and clock.
fn another(site: &Site, keys: &KeyRing, configure: impl FnOnce(EuidLayer) -> EuidLayer) -> EuidLayer {
    configure(EuidLayer::new(keys.clone(), Operator::never()).clock(site.clock.clone()))
}

/// What the handler saw, and what the browser was told.
async fn through(
    outer: &EuidLayer,
    inner: &EuidLayer,
    request: Request<()>,
    handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static,
) -> (String, String) {
    let seen = Seen::default();
    let service = outer.layer(inner.layer(page(Arc::clone(&seen), handler)));
    let response = service.oneshot(request).await.unwrap();
    let (euid, token) = seen.lock().unwrap().clone();
    let euid = euid.unwrap();
    let shown = euid.advertising_token().map(|token| token.as_str().to_owned());
    assert_eq!(token.map(|token| token.as_str().to_owned()), shown, "the token is there exactly if active");
    let saw = shown.map_or(euid.state().to_owned(), |token| format!("active({token})"));
    (saw, writes(response.headers()))
}

#[tokio::test]
async fn inner_consent_counts_where_it_is_stricter() {
    let keys = ring();
    let site = visitor(&keys, None).await;
    for (outside, inside, expected) in [
        (Consent::Granted, Consent::Granted, expect("active(old)", "")),
        (Consent::Granted, Consent::Withheld, expect("withheld", "")),
        (Consent::Granted, Consent::Withdrawn, expect("withheld", BOTH_CLEARED)),
        (Consent::Withheld, Consent::Granted, expect("withheld", "")),
        (Consent::Withheld, Consent::Withdrawn, expect("withheld", BOTH_CLEARED)),
        (Consent::Withdrawn, Consent::Granted, expect("withheld", BOTH_CLEARED)),
    ] {
        let inner = another(&site, &keys, |layer| layer.consent(move |_| inside));
        let with_hook = site.layer.clone().consent(move |_| outside);
        let got = through(&with_hook, &inner, site.jar.request(), NOTHING).await;
        assert_eq!(got, expected, "{outside:?} {inside:?}");
        if outside == Consent::Granted {
            let got = through(&site.layer, &inner, site.jar.request(), NOTHING).await;
            assert_eq!(got, expected, "no hook outside, {inside:?}");
        }
    }
}

#[tokio::test]
async fn inner_consent_reaches_a_visitor_without_cookies_and_one_who_opted_out() {
    let keys = ring();
    let mut site = visitor(&keys, None).await;
    for (consent, opted_out) in [(Consent::Withheld, "opted_out"), (Consent::Withdrawn, "withheld")] {
        let inner = another(&site, &keys, |layer| layer.consent(move |_| consent));
        let got = through(&site.layer, &inner, Request::new(()), NOTHING).await;
        assert_eq!(got, expect("withheld", ""));
        site.update(EuidUpdate::opt_out()).await;
        let (saw, _) = through(&site.layer, &inner, site.jar.request(), NOTHING).await;
        assert_eq!(saw, opted_out);
    }
}

#[tokio::test]
async fn handlers_find_the_stricter_consent() {
    let keys = ring();
    let site = visitor(&keys, None).await;
    for (outside, inside, expected) in [
        (Consent::Withheld, Consent::Granted, Consent::Withheld),
        (Consent::Granted, Consent::Withdrawn, Consent::Withdrawn),
    ] {
        let outer = site.layer.clone().consent(move |_| outside);
        let inner = another(&site, &keys, |layer| layer.consent(move |_| inside));
        let found = Arc::new(Mutex::new(None));
        let finds = Arc::clone(&found);
        let handler = tower::service_fn(move |request: Request<()>| {
            *finds.lock().unwrap() = request.extensions().get::<Consent>().copied();
            std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(())))
        });
        let Ok(_) = outer.layer(inner.layer(handler)).oneshot(site.jar.request()).await;
        assert_eq!(*found.lock().unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn login_under_inner_withdrawal_is_a_logout() {
    let keys = ring();
    let site = visitor(&keys, None).await;
    let inner = another(&site, &keys, |layer| layer.consent(|_| Consent::Withdrawn));
    let login = |_: &Euid, response: &mut Response<()>| EuidUpdate::login(identity("another")).attach(response);
    for request in [site.jar.request(), Request::new(())] {
        let got = through(&site.layer, &inner, request, login).await;
        assert_eq!(got, expect("withheld", BOTH_CLEARED));
    }
}

#[tokio::test]
async fn under_inner_withheld_consent_a_login_is_kept_and_scripts_get_no_token() {
    let keys = ring();
    let scripts = |layer: EuidLayer| layer.cookie(CookieConfig::default().expose_token_to_scripts());
    let mut site = visitor(&keys, None).await.configured(scripts);
    site.login("old").await;
    assert_eq!(site.jar.value(SCRIPT_TOKEN), Some("old"));
    let inner = another(&site, &keys, |layer| layer.consent(|_| Consent::Withheld));
    let got = through(&site.layer, &inner, site.jar.request(), NOTHING).await;
    assert_eq!(got, expect("withheld", "token cleared"));
    let login = |_: &Euid, response: &mut Response<()>| EuidUpdate::login(identity("another")).attach(response);
    for request in [site.jar.request(), Request::new(())] {
        let got = through(&site.layer, &inner, request, login).await;
        assert_eq!(got, expect("withheld", &format!("{BOTH_SET}, token cleared")));
    }
    site.wait_until(DUE);
    let got = through(&site.layer, &inner, site.jar.request(), NOTHING).await;
    assert_eq!(got, expect("withheld", "identity set, token cleared"));
}

#[tokio::test]
async fn inner_bind_shows_an_identity_to_its_own_user_alone() {
    let keys = ring();
    for (subject, user, expected) in [
        (Some("ann"), Some("ann"), "active(old)"),
        (Some("ann"), Some("bob"), "absent"),
        (Some("ann"), None, "absent"),
        (None, Some("bob"), "active(old)"),
        (None, None, "active(old)"),
    ] {
        let site = visitor(&keys, subject).await;
        let inner = another(&site, &keys, |layer| layer.subject(move |_| user));
        let got = through(&site.layer, &inner, site.jar.request(), NOTHING).await;
        assert_eq!(got, expect(expected, ""), "{subject:?} {user:?}");
        let unreadable = another(&site, &ring(), |layer| layer.subject(move |_| user));
        let (saw, _) = through(&site.layer, &unreadable, site.jar.request(), NOTHING).await;
        assert_eq!(saw, "absent", "it may be bound to another user");
    }
}

#[tokio::test]
async fn inner_bind_shows_a_found_opt_out_to_its_own_user_and_a_stated_one_to_all() {
    let keys = ring();
    let mut found = visitor(&keys, Some("ann")).await;
    let refresh = Operator::answering(Ok(Refreshed::OptedOut));
    found.layer = Site::with_keys(keys.clone(), refresh).layer.clock(found.clock.clone());
    found.wait_until(DUE);
    found.look().await;
    let mut stated = visitor(&keys, Some("ann")).await;
    stated.update(EuidUpdate::opt_out()).await;
    for (site, of_bob) in [(found, "absent"), (stated, "opted_out")] {
        for (user, expected) in [("ann", "opted_out"), ("bob", of_bob)] {
            let inner = another(&site, &keys, |layer| layer.subject(move |_| Some(user)));
            let (saw, _) = through(&site.layer, &inner, site.jar.request(), NOTHING).await;
            assert_eq!(saw, expected, "{user}");
        }
    }
}

#[tokio::test]
async fn inner_logout_when_is_obeyed() {
    let keys = ring();
    let site = visitor(&keys, None).await;
    let inner = another(&site, &keys, |layer| layer.logout_when(|response| response.headers.contains_key("x-ended")));
    let ends = |_: &Euid, response: &mut Response<()>| {
        response.headers_mut().insert("x-ended", http::HeaderValue::from_static("1"));
    };
    for request in [site.jar.request(), Request::new(())] {
        assert_eq!(through(&site.layer, &inner, request, ends).await.1, BOTH_CLEARED);
    }
    assert_eq!(through(&site.layer, &inner, site.jar.request(), NOTHING).await.1, "");
}

#[tokio::test]
async fn logout_said_inside_a_stricter_layer_reaches_the_outer_one() {
    let keys = ring();
    let site = visitor(&keys, None).await;
    let inner = another(&site, &keys, |layer| layer.consent(|_| Consent::Withheld));
    let handler = tower::service_fn(|request: Request<()>| {
        assert!(request.extensions().get::<AdvertisingToken>().is_none());
        EuidLogoutHandle::of(request.extensions()).unwrap().logout();
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(())))
    });
    let thrown_away = inner.layer(handler).map_response(|_| Response::new(()));
    let Ok(response) = site.layer.layer(thrown_away).oneshot(site.jar.request()).await;
    assert_eq!(writes(response.headers()), BOTH_CLEARED);
}

#[tokio::test]
async fn clone_with_equal_settings_lets_requests_pass_and_asks_no_hook_again() {
    let keys = ring();
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let site = visitor(&keys, Some("ann")).await.configured(|layer| {
        layer.subject(|_| Some("ann")).consent(move |_| {
            counts.fetch_add(1, Ordering::SeqCst);
            Consent::Granted
        })
    });
    let log = Log::default();
    let _logging = log.start();
    let mut post = Request::new(());
    *post.method_mut() = Method::POST;
    for (request, saw) in [(site.jar.request(), "active(old)"), (Request::new(()), "absent"), (post, "absent")] {
        let before = asked.load(Ordering::SeqCst);
        assert_eq!(through(&site.layer, &site.layer.clone(), request, NOTHING).await, expect(saw, ""));
        assert_eq!(asked.load(Ordering::SeqCst) - before, 1);
    }
    assert!(!log.take().contains(&WARNING.to_owned()));
}

#[tokio::test]
async fn different_layer_inside_is_warned_of_once() {
    let keys = ring();
    let site = visitor(&keys, None).await;
    let bare = site.clone();
    let hooked = site.clone().configured(|layer| layer.consent(|_| Consent::Granted));
    let patient = |layer: EuidLayer| layer.max_wait(Duration::from_millis(7));
    let cookieless = Request::new(());
    for (what, outer, inner, request) in [
        ("other settings", &bare, bare.layer.clone().max_wait(Duration::ZERO), site.jar.request()),
        ("another layer", &bare, another(&site, &keys, patient), site.jar.request()),
        ("a hook inside", &bare, hooked.layer.clone(), cookieless.clone()),
        ("a hook outside", &hooked, bare.layer.clone(), cookieless.clone()),
        ("hooks on both", &hooked, hooked.layer.clone().max_wait(Duration::ZERO), cookieless.clone()),
    ] {
        let log = Log::default();
        let _logging = log.start();
        for _ in 0..3 {
            through(&outer.layer, &inner, request.clone(), NOTHING).await;
        }
        assert_eq!(log.take(), [WARNING], "{what}");
    }
}

#[tokio::test]
async fn inner_layer_writes_no_cookie_itself() {
    let keys = ring();
    let mut site = visitor(&keys, None).await;
    site.jar.put(IDENTITY, "garbage");
    let inner = another(&site, &keys, |layer| layer.consent(|_| Consent::Granted));
    let login = |_: &Euid, response: &mut Response<()>| EuidUpdate::login(identity("another")).attach(response);
    assert_eq!(through(&site.layer, &inner, site.jar.request(), login).await, expect("absent", BOTH_SET));
}
