//! `Cache-Control`: caches must not show one visitor's response to another.
//!
//! 1. A response that writes a cookie of the layer is `private, no-store`.
//! 2. A response whose handler read the token is `private, no-cache` and varies on `Cookie`.
//! 3. A response whose handler only looked at the state or the times stays as it is.

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use tower_euid::error::ErrorKind;
use tower_euid::{AdvertisingToken, Euid, EuidUpdate, Refreshed};

use crate::support::{DUE, EXPIRED, NOTHING, Operator, START, Site, failure, identity, new_pair};

/// The `Cache-Control` of many applications, which would let shared caches store the response.
const PUBLIC: &str = "public, max-age=600";

/// Returns the `Cache-Control` of a response `millis` after the login, for a handler that itself sets `own`.
async fn cache_control(
    operator: Operator,
    millis: i64,
    own: Option<&'static str>,
    handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static,
) -> Option<String> {
    let mut site = Site::new(operator).logged_in(millis).await;
    let visit = site.visit(move |euid, response| {
        if let Some(own) = own {
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(own));
        }
        handler(euid, response);
    });
    visit.await.header("cache-control").map(str::to_owned)
}

fn with_token(euid: &Euid, read: impl Fn(&AdvertisingToken)) {
    if let Some(token) = euid.advertising_token() {
        read(token);
    }
}

/// A handler that reads the token.
fn read_token(euid: &Euid, _: &mut Response<()>) {
    with_token(euid, |token| drop(token.to_string()));
}

#[tokio::test]
async fn response_that_writes_a_cookie_is_private_and_not_stored() {
    for (answer, millis) in [
        (new_pair("new"), DUE),
        (new_pair("new"), EXPIRED),
        (Ok(Refreshed::OptedOut), DUE),
        (failure(ErrorKind::RejectedToken), DUE),
    ] {
        for own in [None, Some(PUBLIC)] {
            let got = cache_control(Operator::answering(answer.clone()), millis, own, NOTHING).await;
            assert_eq!(got.as_deref(), Some("private, no-store"), "{answer:?} {millis} {own:?}");
        }
    }
}

#[tokio::test]
async fn login_opt_out_and_logout_are_private_and_not_stored() {
    for update in [EuidUpdate::login(identity("x")), EuidUpdate::opt_out(), EuidUpdate::logout()] {
        let visit = Site::offline().update(update).await;
        assert_eq!(visit.header("cache-control"), Some("private, no-store"));
    }
}

#[tokio::test]
async fn token_read_in_any_way_makes_the_response_private() {
    let reads: [fn(&AdvertisingToken); 3] = [
        |token| assert_eq!(token.as_str(), "old"),
        |token| assert_eq!(token.to_string(), "old"),
        |token| assert_eq!(serde_json::json!(token), "old"),
    ];
    for read in reads {
        for own in [None, Some(PUBLIC)] {
            let got = cache_control(Operator::never(), 0, own, move |euid, _| with_token(euid, read)).await;
            assert_eq!(got.as_deref(), Some("private, no-cache"), "{own:?}");
        }
    }
}

#[tokio::test]
async fn token_read_through_a_clone_makes_the_response_private() {
    let handler = |euid: &Euid, _: &mut Response<()>| with_token(euid, |token| drop(token.clone().to_string()));
    assert_eq!(cache_control(Operator::never(), 0, None, handler).await.as_deref(), Some("private, no-cache"));
}

#[tokio::test(start_paused = true)]
async fn old_token_read_after_a_failed_refresh_makes_the_response_private() {
    assert_eq!(cache_control(Operator::never(), DUE, None, read_token).await.as_deref(), Some("private, no-cache"));
}

#[tokio::test]
async fn token_read_for_a_304_that_postpones_its_cookie_makes_the_response_private() {
    let handler = |euid: &Euid, response: &mut Response<()>| {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        read_token(euid, response);
    };
    let got = cache_control(Operator::answering(new_pair("new")), DUE, None, handler).await;
    assert_eq!(got.as_deref(), Some("private, no-cache"));
}

#[tokio::test]
async fn handler_that_only_looks_at_state_and_times_leaves_cache_control_alone() {
    let handler = |euid: &Euid, _: &mut Response<()>| {
        assert_eq!((euid.state(), format!("{euid:?}").contains("old")), ("active", false));
        with_token(euid, |token| assert!(token.times().is_usable(START)));
    };
    for own in [None, Some(PUBLIC), Some("max-age=5")] {
        assert_eq!(cache_control(Operator::never(), 0, own, handler).await.as_deref(), own);
    }
}

#[tokio::test]
async fn response_to_a_visitor_without_cookies_stays_cacheable() {
    let mut site = Site::offline();
    let visit = site.visit(|_, response| {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(PUBLIC));
    });
    assert_eq!(visit.await.header("cache-control"), Some(PUBLIC));
}

#[tokio::test]
async fn stricter_directives_of_the_application_are_kept() {
    for (own, expected) in [
        ("no-store", "private, no-cache, no-store"),
        ("private, no-cache", "private, no-cache"),
        ("private, max-age=0, must-revalidate", "private, no-cache, max-age=0, must-revalidate"),
    ] {
        let got = cache_control(Operator::never(), 0, Some(own), read_token).await;
        assert_eq!(got.as_deref(), Some(expected), "{own}");
    }
    let got = cache_control(Operator::answering(new_pair("new")), DUE, Some("private, no-store, no-cache"), NOTHING);
    let got = got.await.unwrap();
    assert!(["private", "no-store", "no-cache"].iter().all(|directive| got.contains(directive)), "{got}");
}

/// Another visitor of the same browser must not see it either.
#[tokio::test]
async fn response_whose_token_was_read_is_revalidated_by_the_browser_and_varies_on_cookie() {
    let mut site = Site::offline().logged_in(0).await;
    let visit = site.visit(|euid, response| {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=600, stale-while-revalidate=60"));
        headers.insert("last-modified", HeaderValue::from_static("Mon, 23 Nov 2026 00:00:00 GMT"));
        headers.insert("vary", HeaderValue::from_static("accept-encoding"));
        read_token(euid, response);
    });
    let visit = visit.await;
    assert_eq!(visit.header("cache-control"), Some("private, no-cache"));
    let vary: Vec<_> = visit.response.headers().get_all("vary").iter().collect();
    assert_eq!(vary, ["accept-encoding", "Cookie"]);
}

#[tokio::test]
async fn headers_that_steer_caches_are_made_strict_with_cache_control() {
    const STEERING: [(&str, &str); 3] =
        [("x-accel-expires", "600"), ("edge-control", "!no-store, max-age=600"), ("cdn-cache-control", "max-age=600")];
    // At 0 the handler only reads the token; at `DUE` the response writes a cookie, too.
    for millis in [0, DUE] {
        let mut site = Site::new(Operator::answering(new_pair("new"))).logged_in(millis).await;
        let visit = site.visit(|euid, response| {
            for (name, value) in STEERING {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            read_token(euid, response);
        });
        let visit = visit.await;
        let steering = STEERING.map(|(name, _)| visit.header(name).unwrap_or_default());
        assert_eq!(steering, ["0", "no-store", "no-store"], "{millis}");
    }
}
