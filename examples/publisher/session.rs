//! The site's own login: which visitor a browser belongs to. A site of yours has this already.
//!
//! With both scopes the layer needs it, for its hook `subject`: if another visitor has logged in meanwhile in the other
//! region, the identity that the first one left in this region does not count.

use std::collections::HashMap;

use axum::extract::{Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response;
use cookie::{Cookie, SameSite};
use tower_euid::{Dii, Scope};

use crate::{Site, region};

/// The visitor who is logged in, in the extensions of their requests.
#[derive(Clone)]
pub(crate) struct Visitor {
    /// The email address or phone number, as it was given.
    pub(crate) address: String,
    pub(crate) dii: Dii,
    /// The scopes for which the visitor pressed the sandbox's button.
    pub(crate) opted_out: Vec<Scope>,
}

/// The visitors who are logged in, by the value of the session cookie. A restart forgets them.
#[derive(Default)]
pub(crate) struct Sessions(HashMap<String, Visitor>);

/// The header `Set-Cookie` of the session cookie.
pub(crate) type SessionCookie = [(HeaderName, String); 1];

impl Sessions {
    /// Returns the header that sets the cookie.
    pub(crate) fn begin(&mut self, visitor: Visitor) -> Result<SessionCookie, getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let id = format!("{:032x}", u128::from_ne_bytes(random));
        self.0.insert(id.clone(), visitor);
        Ok(set_cookie(Cookie::new(SESSION, id)))
    }

    /// Returns the header that removes the cookie.
    pub(crate) fn end(&mut self, request: &HeaderMap) -> SessionCookie {
        ids(request).for_each(|id| drop(self.0.remove(&id)));
        let mut cookie = Cookie::new(SESSION, "");
        cookie.set_max_age(cookie::time::Duration::ZERO);
        set_cookie(cookie)
    }

    pub(crate) fn visitor(&mut self, request: &HeaderMap) -> Option<&mut Visitor> {
        let id = ids(request).find(|id| self.0.contains_key(id))?;
        self.0.get_mut(&id)
    }
}

/// A middleware around the layer, which finds the visitor in the request's extensions.
pub(crate) async fn find(State(site): State<Site>, mut request: Request, next: Next) -> Response {
    let visitor = site.notes().sessions.visitor(request.headers()).cloned();
    if let Some(visitor) = visitor {
        request.extensions_mut().insert(visitor);
    }
    next.run(request).await
}

fn ids(request: &HeaderMap) -> impl Iterator<Item = String> {
    region::cookies(request).filter(|cookie| cookie.name() == SESSION).map(|cookie| cookie.value().to_owned())
}

/// Because of the prefix `__Host-`, other hosts and plain http cannot set the cookie.
fn set_cookie(mut cookie: Cookie<'static>) -> SessionCookie {
    cookie.set_secure(true);
    cookie.set_http_only(true);
    cookie.set_same_site(SameSite::Lax);
    cookie.set_path("/");
    [(SET_COOKIE, cookie.to_string())]
}

const SESSION: &str = "__Host-session";
