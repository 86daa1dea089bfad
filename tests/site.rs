//! A site, and its tests with virtual visitors.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Form, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, Response, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use euid_sandbox::{Fault, Sandbox, Visitor, VisitorState};
use serde::Deserialize;
use tower_euid::{Dii, Euid, EuidClient, EuidLayer, EuidUpdate};

// The site. Yours is in `src/`. In production: `let (client, layer) = tower_euid::from_env()?`.

fn app(client: EuidClient, layer: EuidLayer) -> Router {
    let routes = Router::new().route("/", get(page)).route("/login", post(login)).route("/logout", post(logout));
    routes.layer(layer).with_state(client)
}

async fn page(euid: Euid) -> String {
    euid.state().to_owned()
}

#[derive(Deserialize)]
struct Login {
    email: String,
}

async fn login(State(client): State<EuidClient>, Form(form): Form<Login>) -> impl IntoResponse {
    // A new person is logging in: end the previous identity even if there is no new one.
    let failed = |status, text| (status, EuidUpdate::logout(), text).into_response();
    let Ok(dii) = Dii::email(&form.email) else {
        return failed(StatusCode::BAD_REQUEST, "please check the address");
    };
    match client.generate(dii).await {
        Ok(generated) => (EuidUpdate::from(generated), Redirect::to("/")).into_response(),
        Err(_) => failed(StatusCode::SERVICE_UNAVAILABLE, "please try later"),
    }
}

async fn logout() -> (EuidUpdate, Redirect) {
    (EuidUpdate::logout(), Redirect::to("/"))
}

// Helpers: the site with a sandbox as its operator, and two kinds of request.

type Tested<T = ()> = Result<T, Box<dyn Error>>;

fn site() -> Tested<(Sandbox, EuidLayer, Router)> {
    let sandbox = Sandbox::builder().build()?;
    let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    Ok((sandbox, layer.clone(), app(client, layer)))
}

/// Visits the front page. Returns its text.
async fn look(app: &Router, visitor: &mut Visitor) -> Tested<String> {
    let response = visitor.send(app, Request::get("/").body(Body::empty())?).await?;
    Ok(String::from_utf8(to_bytes(response.into_body(), 1024).await?.into())?)
}

async fn submit(app: &Router, visitor: &mut Visitor, path: &str, form: &'static str) -> Tested<Response<Body>> {
    let request = Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    Ok(visitor.send(app, request.body(Body::from(form))?).await?)
}

// The tests.

#[tokio::test]
async fn visitor_has_a_token_from_login_to_logout() -> Tested {
    let (sandbox, layer, app) = site()?;
    let mut visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
    submit(&app, &mut visitor, "/login", "email=user@example.com").await?;
    assert_eq!(look(&app, &mut visitor).await?, "active");
    submit(&app, &mut visitor, "/logout", "").await?;
    assert_eq!((look(&app, &mut visitor).await?, visitor.cookie_header()), ("absent".into(), "".into()));
    Ok(())
}

#[tokio::test]
async fn fresh_token_is_used_without_a_refresh() -> Tested {
    let (sandbox, layer, app) = site()?;
    let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    assert_eq!(look(&app, &mut visitor).await?, "active");
    assert_eq!(sandbox.refresh_calls(), 0);
    Ok(())
}

#[tokio::test]
async fn due_token_is_refreshed_once() -> Tested {
    let (sandbox, layer, app) = site()?;
    let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
    assert_eq!(look(&app, &mut visitor).await?, "active");
    assert_eq!(look(&app, &mut visitor).await?, "active");
    assert_eq!(sandbox.refresh_calls(), 1);
    Ok(())
}

#[tokio::test]
async fn token_is_used_until_it_expires_while_the_operator_is_down() -> Tested {
    let (sandbox, layer, app) = site()?;
    let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
    sandbox.fault(Fault::Status(503));
    assert_eq!(look(&app, &mut visitor).await?, "active");
    sandbox.advance(Duration::from_secs(3600));
    assert_eq!(look(&app, &mut visitor).await?, "unavailable");

    sandbox.fault(None);
    sandbox.advance(Duration::from_secs(60)); // after a failure the layer pauses its calls
    assert_eq!(look(&app, &mut visitor).await?, "active");
    Ok(())
}

/// The paused clock jumps to the next timer, so the test needs no real time: tokio's feature `test-util`.
#[tokio::test(start_paused = true)]
async fn page_waits_for_a_stalled_operator_up_to_max_wait() -> Tested {
    let (sandbox, layer, app) = site()?;
    let mut visitor = sandbox.visitor(&layer, VisitorState::Expired)?;
    sandbox.fault(Fault::Delay(Duration::from_secs(3600)));
    let page = tokio::time::timeout(Duration::from_millis(501), look(&app, &mut visitor));
    assert_eq!(page.await??, "unavailable");
    Ok(())
}

#[tokio::test]
async fn login_after_an_opt_out_brings_no_token() -> Tested {
    let (sandbox, layer, app) = site()?;
    let mut visitor = sandbox.visitor(&layer, VisitorState::OptedOut)?;
    assert_eq!(look(&app, &mut visitor).await?, "opted_out");
    sandbox.opt_out(Dii::email("user@example.com")?);
    submit(&app, &mut visitor, "/login", "email=user@example.com").await?;
    assert_eq!(look(&app, &mut visitor).await?, "opted_out");
    Ok(())
}

#[tokio::test]
async fn opt_out_after_the_login_counts_from_the_next_refresh() -> Tested {
    let (sandbox, layer, app) = site()?;
    let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
    sandbox.opt_out(visitor.dii());
    assert_eq!(look(&app, &mut visitor).await?, "opted_out");
    Ok(())
}

#[tokio::test]
async fn failed_login_ends_the_previous_identity() -> Tested {
    for (form, status) in [("email=other@example.com", 503), ("email=other.example.com", 400)] {
        let (sandbox, layer, app) = site()?;
        let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
        sandbox.fault(Fault::Status(503));
        let response = submit(&app, &mut visitor, "/login", form).await?;
        assert_eq!(response.status(), status);
        assert_eq!(look(&app, &mut visitor).await?, "absent");
    }
    Ok(())
}
