//! The pages: the front page, login and logout.

use actix_web::http::header::LOCATION;
use actix_web::web::{self, Data, Form, ReqData, ServiceConfig};
use actix_web::{HttpResponse, HttpResponseBuilder};
use euid_core::engine::Change;
use euid_core::{Dii, Euid};
use serde::Deserialize;

use crate::middleware::{Host, ask};

/// Adds the pages to an app that is wrapped in [`euid`](crate::middleware::euid).
pub fn routes(config: &mut ServiceConfig) {
    config
        .route("/", web::get().to(front))
        .route("/login", web::post().to(login))
        .route("/logout", web::post().to(logout));
}

/// The token, which a real site puts into its bid requests.
async fn front(euid: ReqData<Euid>) -> HttpResponse {
    let euid = euid.into_inner();
    let token = euid.advertising_token().map_or("none", |token| token.as_str());
    page(
        HttpResponse::Ok(),
        &format!("<p>You are <b>{}</b>. Your token: <code>{}</code></p>{FORMS}", euid.state(), escaped(token)),
    )
}

#[derive(Deserialize)]
struct Login {
    email: String,
}

/// A real site authenticates the person first; this one trusts the address. The previous identity ends even if there is no
/// new one, because it may be another person's.
async fn login(host: Data<Host>, Form(Login { email }): Form<Login>) -> HttpResponse {
    let Ok(user) = Dii::email(&email) else {
        let response = page(HttpResponse::BadRequest(), "<p>Please check the address.</p>");
        return ask(response, Change::EndLogin);
    };
    match host.client().generate(user).await {
        Ok(generated) => ask(to_front(), Change::from(generated)),
        Err(error) => {
            eprintln!("no EUID: {:?}: {error}", error.kind());
            // The person is still logged in to the site, but without an EUID.
            ask(to_front(), Change::EndLogin)
        }
    }
}

async fn logout() -> HttpResponse {
    ask(to_front(), Change::EndLogin)
}

fn to_front() -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, "/")).finish()
}

fn page(mut response: HttpResponseBuilder, content: &str) -> HttpResponse {
    let html = format!("<!doctype html><title>A site on actix-web</title>{content}<p><a href=/>Front page</a></p>");
    response.content_type("text/html; charset=utf-8").body(html)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const FORMS: &str = "\
    <form method=post action=/login><input name=email type=email value=user@example.com> <button>Log in</button></form>\
    <form method=post action=/logout><button>Log out</button></form>";
