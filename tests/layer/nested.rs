//! A layer inside another layer: only the outer one refreshes and writes cookies.
//!
//! 1. An inner clone passes requests through.
//! 2. The hooks of a different inner layer count only where they are stricter; the layer warns once.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::{
    AdvertisingToken, Consent, CookieConfig, Euid, EuidLayer, EuidLogoutHandle, EuidUpdate, KeyRing, Refreshed,
};

use crate::support::{
    DUE, EXPIRED, IDENTITY, InScope, LOGIN_REMOVED, LOGIN_REPLACED, LOGIN_WRITTEN, Log, NOTHING, OPTED_OUT, Operator,
    SCRIPT_TOKEN, Seen, Site, User, Visit, consent_page, expect, identity, identity_until, new_pair, outcome, page,
    ring, with_method, writes,
};

const WARNING: &str = "WARN tower_euid: an EuidLayer is inside another one that is not its clone: only its hooks \
                       count, and only where they are stricter";

/// Returns a site whose visitor has a login bound to `subject`, or to no user.
async fn logged_in_as(keys: &KeyRing, subject: Option<&str>) -> Site {
    let mut site = Site::with_keys(keys.clone(), Operator::answering(new_pair("new")));
    let login = EuidUpdate::login(identity("old"));
    site.update(subject.iter().fold(login, |login, subject| login.subject(subject))).await;
    site
}

/// Returns another layer with the same keys and clock.
fn another_layer(site: &Site, keys: &KeyRing, configure: impl FnOnce(EuidLayer) -> EuidLayer) -> EuidLayer {
    configure(EuidLayer::new(keys.clone(), InScope(Operator::never())).clock(site.clock.clone()))
}

/// Returns the outcome of a request through both layers.
async fn outcome_through(
    outer: &EuidLayer,
    inner: &EuidLayer,
    request: Request<()>,
    handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static,
) -> (String, String) {
    let seen = Seen::default();
    let service = outer.layer(inner.layer(page(Arc::clone(&seen), handler)));
    let response = service.oneshot(request).await.unwrap();
    outcome(&Visit::of(&seen, response))
}

/// A handler that logs another person in.
fn log_in_another(_: &Euid, response: &mut Response<()>) {
    EuidUpdate::login(identity("another")).attach(response);
}

#[tokio::test]
async fn inner_consent_counts_where_it_is_stricter() {
    let keys = ring();
    let site = logged_in_as(&keys, None).await;
    for (outside, inside, expected) in [
        (Consent::Granted, Consent::Granted, expect("active(old)", "")),
        (Consent::Granted, Consent::Withheld, expect("withheld", "")),
        (Consent::Granted, Consent::Withdrawn, expect("withheld", LOGIN_REMOVED)),
        (Consent::Withheld, Consent::Granted, expect("withheld", "")),
        (Consent::Withheld, Consent::Withdrawn, expect("withheld", LOGIN_REMOVED)),
        (Consent::Withdrawn, Consent::Granted, expect("withheld", LOGIN_REMOVED)),
    ] {
        let inner = another_layer(&site, &keys, |layer| layer.consent(move |_| inside));
        let with_hook = site.layer.clone().consent(move |_| outside);
        let got = outcome_through(&with_hook, &inner, site.jar.request(), NOTHING).await;
        assert_eq!(got, expected, "{outside:?} {inside:?}");
        if outside == Consent::Granted {
            let got = outcome_through(&site.layer, &inner, site.jar.request(), NOTHING).await;
            assert_eq!(got, expected, "no outer hook, {inside:?}");
        }
    }
}

#[tokio::test]
async fn inner_consent_counts_without_cookies_and_after_an_opt_out() {
    let keys = ring();
    let mut site = logged_in_as(&keys, None).await;
    for (consent, opted_out) in [(Consent::Withheld, "opted_out"), (Consent::Withdrawn, "withheld")] {
        let inner = another_layer(&site, &keys, |layer| layer.consent(move |_| consent));
        let got = outcome_through(&site.layer, &inner, Request::new(()), NOTHING).await;
        assert_eq!(got, expect("withheld", ""));
        site.update(EuidUpdate::opt_out()).await;
        let (saw, _) = outcome_through(&site.layer, &inner, site.jar.request(), NOTHING).await;
        assert_eq!(saw, opted_out);
    }
}

#[tokio::test]
async fn stricter_consent_of_both_layers_reaches_handlers() {
    let keys = ring();
    let site = logged_in_as(&keys, None).await;
    for (outside, inside, expected) in [
        (Consent::Withheld, Consent::Granted, Consent::Withheld),
        (Consent::Granted, Consent::Withdrawn, Consent::Withdrawn),
    ] {
        let outer = site.layer.clone().consent(move |_| outside);
        let inner = another_layer(&site, &keys, |layer| layer.consent(move |_| inside));
        let found = Arc::default();
        let service = outer.layer(inner.layer(consent_page(Arc::clone(&found))));
        let Ok(_) = service.oneshot(site.jar.request()).await;
        assert_eq!(*found.lock().unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn inner_consent_withdrawn_turns_a_login_into_a_logout() {
    let keys = ring();
    let site = logged_in_as(&keys, None).await;
    let inner = another_layer(&site, &keys, |layer| layer.consent(|_| Consent::Withdrawn));
    for (request, expected) in [(site.jar.request(), LOGIN_REMOVED), (Request::new(()), "anchor cleared")] {
        let got = outcome_through(&site.layer, &inner, request, log_in_another).await;
        assert_eq!(got, expect("withheld", expected));
    }
}

#[tokio::test]
async fn inner_consent_withheld_keeps_a_login_and_hides_the_token_from_scripts() {
    let keys = ring();
    let scripts = |layer: EuidLayer| layer.cookie(CookieConfig::default().expose_token_to_scripts());
    let mut site = logged_in_as(&keys, None).await.configured(scripts);
    site.login("old").await;
    assert_eq!(site.jar.value(SCRIPT_TOKEN), Some("old"));
    let inner = another_layer(&site, &keys, |layer| layer.consent(|_| Consent::Withheld));
    let got = outcome_through(&site.layer, &inner, site.jar.request(), NOTHING).await;
    assert_eq!(got, expect("withheld", "token cleared"));
    for (request, expected) in [(site.jar.request(), LOGIN_REPLACED), (Request::new(()), LOGIN_WRITTEN)] {
        let got = outcome_through(&site.layer, &inner, request, log_in_another).await;
        assert_eq!(got, expect("withheld", &format!("{expected}, token cleared")));
    }
    site.wait_until(DUE);
    let got = outcome_through(&site.layer, &inner, site.jar.request(), NOTHING).await;
    assert_eq!(got, expect("withheld", "identity set, token cleared"));
}

#[tokio::test]
async fn inner_subject_shows_an_identity_to_its_own_user_alone() {
    let keys = ring();
    for (subject, user, expected) in [
        (Some("ann"), Some("ann"), "active(old)"),
        (Some("ann"), Some("bob"), "absent"),
        (Some("ann"), None, "absent"),
        (None, Some("bob"), "active(old)"),
        (None, None, "active(old)"),
    ] {
        let site = logged_in_as(&keys, subject).await;
        let inner = another_layer(&site, &keys, |layer| layer.subject(move |_| user));
        let got = outcome_through(&site.layer, &inner, site.jar.request(), NOTHING).await;
        assert_eq!(got, expect(expected, ""), "{subject:?} {user:?}");
        let unreadable = another_layer(&site, &ring(), |layer| layer.subject(move |_| user));
        let (saw, _) = outcome_through(&site.layer, &unreadable, site.jar.request(), NOTHING).await;
        assert_eq!(saw, "absent", "an unreadable identity may be bound to another user");
    }
}

#[tokio::test]
async fn inner_subject_shows_a_bound_opt_out_to_its_user_and_an_unbound_one_to_all() {
    let keys = ring();
    let mut opted_out_by_refresh = logged_in_as(&keys, Some("ann")).await;
    let refresh = Operator::answering(Ok(Refreshed::OptedOut));
    opted_out_by_refresh.layer = Site::with_keys(keys.clone(), refresh).layer.clock(opted_out_by_refresh.clock.clone());
    opted_out_by_refresh.wait_until(DUE);
    opted_out_by_refresh.look().await;
    let mut opted_out_by_site = logged_in_as(&keys, Some("ann")).await;
    opted_out_by_site.update(EuidUpdate::opt_out()).await;
    let mut bound = logged_in_as(&keys, Some("ann")).await;
    bound.update(EuidUpdate::opt_out().subject("ann")).await;
    for (site, of_bob) in [(opted_out_by_refresh, "absent"), (bound, "absent"), (opted_out_by_site, "opted_out")] {
        for (user, expected) in [("ann", "opted_out"), ("bob", of_bob)] {
            let inner = another_layer(&site, &keys, |layer| layer.subject(move |_| Some(user)));
            let (saw, _) = outcome_through(&site.layer, &inner, site.jar.request(), NOTHING).await;
            assert_eq!(saw, expected, "{user}");
            let unreadable = another_layer(&site, &ring(), |layer| layer.subject(move |_| Some(user)));
            let (saw, _) = outcome_through(&site.layer, &unreadable, site.jar.request(), NOTHING).await;
            assert_eq!(saw, "absent", "an unreadable opt-out may be bound to another user");
        }
    }
}

#[tokio::test]
async fn inner_subject_knows_the_user_of_a_migrated_identity_and_of_its_opt_out() {
    let keys = ring();
    for refreshed in [new_pair("new"), Ok(Refreshed::OptedOut)] {
        let migrating = Site::with_keys(keys.clone(), Operator::answering(refreshed)).migrating().with_subject();
        let mut site = migrating.with_sdk_token("sdk");
        site.look_as(Some("ann")).await;
        site.wait_until(DUE);
        let saw = site.look_as(Some("ann")).await.saw();
        for (user, expected) in [("ann", saw.as_str()), ("bob", "absent")] {
            let inner = another_layer(&site, &keys, |layer| layer.subject(move |_| Some(user)));
            let mut request = site.jar.request();
            request.extensions_mut().insert(User("ann"));
            assert_eq!(outcome_through(&site.layer, &inner, request, NOTHING).await.0, expected, "{user}");
        }
    }
}

#[tokio::test]
async fn inner_logout_when_is_obeyed() {
    let keys = ring();
    let site = logged_in_as(&keys, None).await;
    let inner =
        another_layer(&site, &keys, |layer| layer.logout_when(|response| response.headers.contains_key("x-ended")));
    let end_session = |_: &Euid, response: &mut Response<()>| {
        response.headers_mut().insert("x-ended", HeaderValue::from_static("1"));
    };
    for (request, expected) in [(site.jar.request(), LOGIN_REMOVED), (Request::new(()), "anchor cleared")] {
        assert_eq!(outcome_through(&site.layer, &inner, request, end_session).await.1, expected);
    }
    assert_eq!(outcome_through(&site.layer, &inner, site.jar.request(), NOTHING).await.1, "");
}

#[tokio::test]
async fn logout_handle_inside_a_stricter_layer_reaches_the_outer_one() {
    let keys = ring();
    let site = logged_in_as(&keys, None).await;
    let inner = another_layer(&site, &keys, |layer| layer.consent(|_| Consent::Withheld));
    let handler = service_fn(|request: Request<()>| {
        assert!(request.extensions().get::<AdvertisingToken>().is_none());
        EuidLogoutHandle::of(request.extensions()).unwrap().logout();
        ready(Ok::<_, Infallible>(Response::new(())))
    });
    let replaced = inner.layer(handler).map_response(|_| Response::new(()));
    let Ok(response) = site.layer.layer(replaced).oneshot(site.jar.request()).await;
    assert_eq!(writes(response.headers()), LOGIN_REMOVED);
}

#[tokio::test]
async fn inner_clone_with_equal_settings_passes_requests_through_and_calls_no_hook_again() {
    let keys = ring();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let site = logged_in_as(&keys, Some("ann")).await.configured(|layer| {
        layer.subject(|_| Some("ann")).consent(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Consent::Granted
        })
    });
    let log = Log::default();
    let _logging = log.start();
    let post = with_method(Request::new(()), Method::POST);
    for (request, saw) in [(site.jar.request(), "active(old)"), (Request::new(()), "absent"), (post, "absent")] {
        let before = calls.load(Ordering::SeqCst);
        assert_eq!(outcome_through(&site.layer, &site.layer.clone(), request, NOTHING).await, expect(saw, ""));
        assert_eq!(calls.load(Ordering::SeqCst) - before, 1);
    }
    assert!(!log.take().contains(&WARNING.to_owned()));
}

#[tokio::test]
async fn different_inner_layer_is_warned_about_once() {
    let keys = ring();
    let site = logged_in_as(&keys, None).await;
    let bare = site.clone();
    let hooked = site.clone().configured(|layer| layer.consent(|_| Consent::Granted));
    let patient = |layer: EuidLayer| layer.max_wait(Duration::from_millis(7));
    let cookieless = Request::new(());
    for (difference, outer, inner, request) in [
        ("other settings", &bare, bare.layer.clone().max_wait(Duration::ZERO), site.jar.request()),
        ("another layer", &bare, another_layer(&site, &keys, patient), site.jar.request()),
        ("inner hook", &bare, hooked.layer.clone(), cookieless.clone()),
        ("outer hook", &hooked, bare.layer.clone(), cookieless.clone()),
        ("hooks on both layers", &hooked, hooked.layer.clone().max_wait(Duration::ZERO), cookieless.clone()),
    ] {
        let log = Log::default();
        let _logging = log.start();
        for _ in 0..3 {
            outcome_through(&outer.layer, &inner, request.clone(), NOTHING).await;
        }
        assert_eq!(log.take(), [WARNING], "{difference}");
    }
}

#[tokio::test]
async fn inner_layer_writes_no_cookie_itself() {
    let keys = ring();
    let mut site = logged_in_as(&keys, None).await;
    site.jar.put(IDENTITY, "garbage");
    let inner = another_layer(&site, &keys, |layer| layer.consent(|_| Consent::Granted));
    assert_eq!(
        outcome_through(&site.layer, &inner, site.jar.request(), log_in_another).await,
        expect("absent", LOGIN_REPLACED)
    );
}

/// Two nested layers, and the operator of each.
struct Nested {
    outer: Site,
    inner: Site,
    operators: [Operator; 2],
}

/// Returns a layer inside itself, as two `.layer(..)` calls of one application make it.
async fn nested_clones() -> Nested {
    let nested = nested_layers().await;
    Nested { inner: nested.outer.clone(), ..nested }
}

/// Returns a layer inside another one with the same keys.
async fn nested_layers() -> Nested {
    let keys = ring();
    let operators = [Operator::answering(new_pair("new")), Operator::answering(new_pair("inner"))];
    let outer = Site::with_keys(keys.clone(), operators[0].clone()).logged_in(DUE).await;
    let inner = Site::with_keys(keys, operators[1].clone());
    inner.wait_until(DUE);
    Nested { outer, inner, operators }
}

#[tokio::test]
async fn outer_layer_alone_refreshes_and_writes() {
    for Nested { outer, inner, operators } in [nested_clones().await, nested_layers().await] {
        let got = outcome_through(&outer.layer, &inner.layer, outer.jar.request(), NOTHING).await;
        assert_eq!(got, expect("active(new)", "identity set"));
        assert_eq!(operators.map(|operator| operator.calls()), [1, 0]);
    }
}

#[tokio::test]
async fn update_attached_inside_both_layers_reaches_the_outer_one() {
    for Nested { outer, inner, .. } in [nested_clones().await, nested_layers().await] {
        for (update, expected) in [
            (EuidUpdate::login(identity_until("x", [EXPIRED; 3])), LOGIN_REPLACED),
            (EuidUpdate::logout(), LOGIN_REMOVED),
            (EuidUpdate::opt_out(), OPTED_OUT),
        ] {
            let handler = move |_: &Euid, response: &mut Response<()>| update.clone().attach(response);
            let (_, written) = outcome_through(&outer.layer, &inner.layer, outer.jar.request(), handler).await;
            assert_eq!(written, expected);
        }
    }
}

#[tokio::test]
async fn logout_attached_inside_overrides_a_login_attached_between_the_layers() {
    let Nested { outer, inner, .. } = nested_clones().await;
    let page = page(Seen::default(), |_, response| EuidUpdate::logout().attach(response));
    let between = inner.layer.layer(page).map_response(|mut response: Response<()>| {
        EuidUpdate::login(identity("x")).attach(&mut response);
        response
    });
    let Ok(response) = outer.layer.layer(between).oneshot(outer.jar.request()).await;
    assert_eq!(writes(response.headers()), LOGIN_REMOVED);
}
