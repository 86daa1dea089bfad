//! Caching: nothing that is one visitor's is kept for another.
//!
//! 1. A response that writes our cookie is `private, no-store`.
//! 2. One whose handler read the token is `private, no-cache` and varies on `Cookie`, however it was read.
//! 3. One whose handler only looked at what is known is left as it is.

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use tower_euid::error::ErrorKind;
use tower_euid::{AdvertisingToken, Euid, EuidUpdate, Refreshed};

use crate::support::{DUE, EXPIRED, NOTHING, Operator, Site, failure, new_pair};

/// `Cache-Control` of a page `millis` after the login that itself says `said`.
async fn cache_control(
    operator: Operator,
    millis: i64,
    said: Option<&'static str>,
    handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static,
) -> Option<String> {
    let mut site = Site::new(operator);
    site.login("old").await;
    site.wait_until(millis);
    let visit = site
        .visit(move |euid, response| {
            if let Some(said) = said {
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(said));
            }
            handler(euid, response);
        })
        .await;
    visit.header("cache-control").map(str::to_owned)
}

fn read(euid: &Euid, how: impl Fn(&AdvertisingToken)) {
    if let Some(token) = euid.advertising_token() {
        how(token);
    }
}

#[tokio::test]
async fn a_response_that_writes_our_cookie_is_private_and_not_stored() {
    for (answer, millis) in [
        (new_pair("new"), DUE),
        (new_pair("new"), EXPIRED),
        (Ok(Refreshed::OptedOut), DUE),
        (failure(ErrorKind::RejectedToken), DUE),
    ] {
        for said in [None, Some("public, max-age=600")] {
            let got = cache_control(Operator::answering(answer.clone()), millis, said, NOTHING).await;
            assert_eq!(got.as_deref(), Some("private, no-store"), "{answer:?} {millis} {said:?}");
        }
    }
}

#[tokio::test]
async fn a_login_an_opt_out_and_a_logout_are_private_and_not_stored() {
    for update in [EuidUpdate::login(crate::support::identity("x")), EuidUpdate::opt_out(), EuidUpdate::logout()] {
        let visit = Site::offline().update(update).await;
        assert_eq!(visit.header("cache-control"), Some("private, no-store"));
    }
}

#[tokio::test]
async fn a_response_whose_token_was_read_is_private_however_it_was_read() {
    let reads: [fn(&AdvertisingToken); 3] = [
        |token| assert_eq!(token.as_str(), "old"),
        |token| assert_eq!(token.to_string(), "old"),
        |token| assert_eq!(serde_json::json!(token), "old"),
    ];
    for how in reads {
        let got = cache_control(Operator::never(), 0, None, move |euid, _| read(euid, how)).await;
        assert_eq!(got.as_deref(), Some("private, no-cache"));
        let public = Some("public, max-age=600");
        let got = cache_control(Operator::never(), 0, public, move |euid, _| read(euid, how)).await;
        assert_eq!(got.as_deref(), Some("private, no-cache"));
    }
}

#[tokio::test]
async fn a_clone_of_the_token_that_was_read_counts() {
    let handler = |euid: &Euid, _: &mut Response<()>| read(euid, |token| drop(token.clone().to_string()));
    assert_eq!(cache_control(Operator::never(), 0, None, handler).await.as_deref(), Some("private, no-cache"));
}

#[tokio::test(start_paused = true)]
async fn an_old_token_read_after_a_failed_refresh_counts() {
    let handler = |euid: &Euid, _: &mut Response<()>| read(euid, |token| drop(token.to_string()));
    assert_eq!(cache_control(Operator::never(), DUE, None, handler).await.as_deref(), Some("private, no-cache"));
}

#[tokio::test]
async fn a_token_read_on_a_page_that_postpones_its_cookie_counts() {
    let handler = |euid: &Euid, response: &mut Response<()>| {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        read(euid, |token| drop(token.to_string()));
    };
    let got = cache_control(Operator::answering(new_pair("new")), DUE, None, handler).await;
    assert_eq!(got.as_deref(), Some("private, no-cache"));
}

#[tokio::test]
async fn looking_at_the_state_and_the_times_changes_nothing() {
    let handler = |euid: &Euid, _: &mut Response<()>| {
        assert_eq!((euid.state(), format!("{euid:?}").contains("old")), ("active", false));
        read(euid, |token| assert!(token.times().is_usable(crate::support::START)));
    };
    for said in [None, Some("public, max-age=600"), Some("max-age=5")] {
        assert_eq!(cache_control(Operator::never(), 0, said, handler).await.as_deref(), said);
    }
}

#[tokio::test]
async fn a_page_without_a_visitor_is_left_as_it_is() {
    let mut site = Site::offline();
    let visit = site.visit(|_, response| {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=600"));
    });
    assert_eq!(visit.await.header("cache-control"), Some("public, max-age=600"));
}

#[tokio::test]
async fn what_the_application_says_more_strictly_is_kept() {
    let handler = |euid: &Euid, _: &mut Response<()>| read(euid, |token| drop(token.to_string()));
    for (said, expected) in [
        ("no-store", "private, no-cache, no-store"),
        ("private, no-cache", "private, no-cache"),
        ("private, max-age=0, must-revalidate", "private, no-cache, max-age=0, must-revalidate"),
    ] {
        let got = cache_control(Operator::never(), 0, Some(said), handler).await;
        assert_eq!(got.as_deref(), Some(expected), "{said}");
    }
    let got = cache_control(Operator::answering(new_pair("new")), DUE, Some("private, no-store, no-cache"), NOTHING);
    let got = got.await.unwrap();
    assert!(["private", "no-store", "no-cache"].iter().all(|directive| got.contains(directive)), "{got}");
}

#[tokio::test]
async fn page_whose_token_was_read_is_not_shown_from_the_browsers_cache_to_another_visitor() {
    let mut site = Site::offline();
    site.login("old").await;
    let visit = site.visit(|euid, response| {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=600, stale-while-revalidate=60"));
        headers.insert("last-modified", HeaderValue::from_static("Mon, 23 Nov 2026 00:00:00 GMT"));
        headers.insert("vary", HeaderValue::from_static("accept-encoding"));
        read(euid, |token| drop(token.to_string()));
    });
    let visit = visit.await;
    assert_eq!(visit.header("cache-control"), Some("private, no-cache"));
    let vary: Vec<_> = visit.response.headers().get_all("vary").iter().collect();
    assert_eq!(vary, ["accept-encoding", "Cookie"]);
}

#[tokio::test]
async fn headers_that_steer_caches_do_not_let_a_page_be_stored_that_reads_the_token_or_writes_a_cookie() {
    const STEERING: [(&str, &str); 3] =
        [("x-accel-expires", "600"), ("edge-control", "!no-store, max-age=600"), ("cdn-cache-control", "max-age=600")];
    for millis in [0, DUE] {
        let mut site = Site::new(Operator::answering(new_pair("new")));
        site.login("old").await;
        site.wait_until(millis);
        let visit = site.visit(|euid, response| {
            for (name, value) in STEERING {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            read(euid, |token| drop(token.to_string()));
        });
        let visit = visit.await;
        let steering = STEERING.map(|(name, _)| visit.header(name).unwrap_or_default());
        assert_eq!(steering, ["0", "no-store", "no-store"], "{millis}");
    }
}
