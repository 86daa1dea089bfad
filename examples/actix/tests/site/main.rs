//! Tests of the site with the sandbox and its clock.

mod support;
mod waiting;

use std::time::Duration;

use euid_actix_site::client::{Client, over_http};
use euid_sandbox::{Fault, Sandbox, VisitorState};
use support::*;

/// What the names of an identity and of a record begin with; the tag of their login follows.
const IDENTITY: &str = "__Host-euid.";
const LOGIN: &str = "__Host-euid-login";
const OPT_OUT: &str = "__Host-euid-optout.";

#[actix_web::test]
async fn login_sets_both_cookies_and_the_next_page_shows_the_token() -> Tested {
    let (sandbox, host) = host()?;
    let app = app(&host).await;
    let mut visitor = sandbox.visitor(&host, VisitorState::Absent)?;
    let login = send(&app, &mut visitor, login("user@example.com")).await?;
    assert_eq!((login.status, login.header("location")), (303, "/"));
    let cookies = login.cookies();
    assert!(cookies.contains(&IDENTITY) && cookies.contains(&LOGIN), "{cookies:?}");
    assert_eq!(login.header("cache-control"), "private, no-store");

    let page = send(&app, &mut visitor, get("/")).await?;
    assert!(page.text.contains("<b>active</b>") && page.text.contains("<code>E4"), "{}", page.text);
    assert_eq!((page.header("cache-control"), page.header("vary")), ("private, no-cache", "Cookie"));
    assert_eq!((page.cookies().len(), sandbox.refresh_calls()), (0, 0));
    Ok(())
}

#[actix_web::test]
async fn page_that_does_not_read_the_token_stays_cacheable() -> Tested {
    let (sandbox, host) = host()?;
    let app = app(&host).await;
    let mut visitor = sandbox.visitor(&host, VisitorState::Fresh)?;
    let page = send(&app, &mut visitor, get("/plain")).await?;
    assert_eq!((page.text.as_str(), page.header("cache-control"), page.header("vary")), ("the same for all", "", ""));
    Ok(())
}

#[actix_web::test]
async fn refresh_of_a_due_page_writes_only_the_identity() -> Tested {
    let (sandbox, host) = host()?;
    let app = app(&host).await;
    let mut visitor = sandbox.visitor(&host, VisitorState::Absent)?;
    send(&app, &mut visitor, login("user@example.com")).await?;
    let before = send(&app, &mut visitor, get("/")).await?;
    sandbox.advance(Duration::from_secs(20 * 60));
    let due = send(&app, &mut visitor, get("/")).await?;
    assert!(due.text.contains("<b>active</b>") && due.text != before.text);
    assert_eq!((due.cookies(), due.header("cache-control")), (vec![IDENTITY], "private, no-store"));
    let next = send(&app, &mut visitor, get("/")).await?;
    assert_eq!((next.text, sandbox.refresh_calls()), (due.text, 1));
    Ok(())
}

#[actix_web::test]
async fn page_keeps_its_valid_token_while_the_operator_is_down() -> Tested {
    for fault in [Fault::Status(503), Fault::Garbage, Fault::Redirect, Fault::LargeBody(100_000)] {
        let (sandbox, host) = host()?;
        let app = app(&host).await;
        sandbox.fault(fault);
        for (state, sees) in [(VisitorState::Due, "active"), (VisitorState::Expired, "unavailable")] {
            let mut visitor = sandbox.visitor(&host, state)?;
            let page = send(&app, &mut visitor, get("/")).await?;
            assert!(page.text.contains(&format!("<b>{sees}</b>")), "{fault:?} {}", page.text);
            assert_eq!((page.status, page.cookies().len()), (200, 0));
            sandbox.fault(None);
            assert_eq!(send(&app, &mut visitor, get("/")).await?.cookies(), [IDENTITY], "the next page refreshes");
            sandbox.fault(fault);
        }
    }
    Ok(())
}

#[actix_web::test]
async fn opt_out_found_by_a_refresh_ends_the_identity_and_is_remembered() -> Tested {
    let (sandbox, host) = host()?;
    let app = app(&host).await;
    let mut visitor = sandbox.visitor(&host, VisitorState::Due)?;
    sandbox.opt_out(visitor.dii());
    for page in 0..2 {
        let seen = send(&app, &mut visitor, get("/")).await?;
        assert!(seen.text.contains("<b>opted_out</b>"), "page {page}: {}", seen.text);
    }
    assert_eq!(sandbox.refresh_calls(), 1);
    let kept = visitor.cookie_header();
    assert!(!kept.contains(IDENTITY) && kept.contains(OPT_OUT), "{kept}");
    Ok(())
}

#[actix_web::test]
async fn logout_removes_all_cookies_in_every_state_and_during_an_outage() -> Tested {
    for path in ["/logout", "/close-account"] {
        for state in [VisitorState::Fresh, VisitorState::Due, VisitorState::Expired, VisitorState::OptedOut] {
            for fault in [None, Some(Fault::Status(503))] {
                let (sandbox, host) = host()?;
                let app = app(&host).await;
                let mut visitor = sandbox.visitor(&host, state)?;
                sandbox.fault(fault);
                let seen = send(&app, &mut visitor, post(path)).await?;
                assert_eq!(seen.status, if path == "/logout" { 303 } else { 500 });
                assert_eq!((visitor.cookie_header().as_str(), sandbox.refresh_calls()), ("", 0), "{path} {state:?}");
            }
        }
    }
    Ok(())
}

#[actix_web::test]
async fn failed_login_ends_the_previous_identity() -> Tested {
    for (email, fault, status) in [("bob", None, 400), ("bob@example.com", Some(Fault::Status(503)), 303)] {
        let (sandbox, host) = host()?;
        let app = app(&host).await;
        let mut visitor = sandbox.visitor(&host, VisitorState::Fresh)?;
        sandbox.fault(fault);
        assert_eq!(send(&app, &mut visitor, login(email)).await?.status, status);
        assert_eq!(visitor.cookie_header(), "");
    }
    Ok(())
}

#[actix_web::test]
async fn image_request_makes_no_call_and_writes_nothing() -> Tested {
    let (sandbox, host) = host()?;
    let app = app(&host).await;
    let mut visitor = sandbox.visitor(&host, VisitorState::Due)?;
    let image = send(&app, &mut visitor, get("/plain").insert_header(("sec-fetch-dest", "image"))).await?;
    assert_eq!((image.status, image.cookies().len(), sandbox.refresh_calls()), (200, 0, 0));
    Ok(())
}

#[actix_web::test]
async fn application_cookie_is_kept_beside_the_identity() -> Tested {
    let (sandbox, host) = host()?;
    let app = app(&host).await;
    let mut visitor = sandbox.visitor(&host, VisitorState::Due)?;
    assert_eq!(send(&app, &mut visitor, get("/theme")).await?.cookies(), ["theme", IDENTITY]);
    Ok(())
}

#[actix_web::test]
async fn calls_go_over_http_and_an_unreachable_operator_fails_no_page() -> Tested {
    let server = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    let sandbox = server.sandbox().clone();
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
    let send_to = move |request| over_http(http.clone(), request);
    let host = with_client(Client::new(server.operator(), sandbox.clock(), send_to))?;
    let app = app(&host).await;
    let mut visitor = sandbox.visitor(&host, VisitorState::Absent)?;
    send(&app, &mut visitor, login("user@example.com")).await?;
    sandbox.advance(Duration::from_secs(20 * 60));
    assert_eq!(send(&app, &mut visitor, get("/")).await?.cookies(), [IDENTITY]);
    assert_eq!((sandbox.calls().generate, sandbox.refresh_calls()), (1, 1));

    sandbox.advance(Duration::from_secs(20 * 60));
    drop(server);
    let page = send(&app, &mut visitor, get("/")).await?;
    assert!(page.text.contains("<b>active</b>"), "{}", page.text);
    Ok(())
}
