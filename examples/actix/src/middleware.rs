//! The middleware: one request and its response, driven through the engine.
//!
//! 1. Before the handler it reads the cookies, and refreshes an identity that is due.
//! 2. The handler finds an [`Euid`] and, where there is a login to end, an [`EuidLogoutHandle`] in the extensions of the request:
//!    `web::ReqData<Euid>` extracts it.
//! 3. The handler asks for a change of the login with [`ask`].
//! 4. After the handler it writes the cookies, and keeps caches from showing one visitor's page to another.
//!
//! A failure of the operator never fails a page. The response of a handler that failed gets cookies like any other. Only an
//! error of a middleware between this one and the handler passes unchanged.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};
use euid_core::clock::UnixMillis;
use euid_core::engine::{Change, Decision, Engine, Pending, RequestContext, Site, Step};
#[cfg(doc)]
use euid_core::{Euid, EuidLogoutHandle};

use crate::client::Client;
use crate::headers;

/// The shared state of the middleware and the handlers, as `web::Data`.
#[derive(Clone, Debug)]
pub struct Host {
    engine: Engine,
    client: Client,
}

/// The middleware, for `App::wrap(from_fn(euid))` in an app that has a `web::Data<Host>`.
///
/// # Errors
///
/// The errors of the services further in.
pub async fn euid(
    host: web::Data<Host>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let (euid, pending) = host.decide(&request).await.start();
    if let Some(logout) = pending.logout() {
        request.extensions_mut().insert(logout);
    }
    request.extensions_mut().insert(euid);
    let mut response = next.call(request).await?;
    host.finish(pending, response.response_mut());
    Ok(response)
}

/// Adds to a response that it changes the visitor's login.
pub fn ask<B>(mut response: HttpResponse<B>, change: Change) -> HttpResponse<B> {
    response.extensions_mut().insert(change);
    response
}

impl Host {
    /// A host that reads and writes with `engine`, and refreshes with `client`.
    #[must_use]
    pub fn new(engine: Engine, client: Client) -> Self {
        Self { engine, client }
    }

    /// The client, for logins.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Decides what the handler sees and what the response writes. Refreshes first if a refresh is due.
    async fn decide(&self, request: &ServiceRequest) -> Decision {
        let (method, headers) =
            (headers::method(request.method()), headers::of_request(&self.engine, request.headers()));
        // A site with a consent banner or with sessions of its own passes here what it knows of the visitor.
        let context = RequestContext::UNRESTRICTED;
        let candidate = match self.engine.begin(&method, &headers, &context, || self.now()) {
            Step::Ready(decision) => return decision,
            Step::Refresh(candidate) => candidate,
            Step::Load(_) => unreachable!("this host has no store"),
        };
        if !candidate.may_refresh() || !candidate.may_wait() {
            return candidate.postpone(self.now());
        }
        let outcome = self.client.refresh(&candidate).await;
        candidate.settle(&outcome, self.now())
    }

    fn finish<B>(&self, pending: Pending, response: &mut HttpResponse<B>) {
        let asked = response.extensions_mut().remove::<Change>();
        let status = headers::status(response.status());
        let mut headers = headers::of_response(response.headers());
        let report = self.engine.finish(pending, asked.as_ref(), status, &mut headers, || self.now()).report();
        headers::put_back(&headers, response.headers_mut());
        if let Some(reason) = report.unwritten {
            eprintln!("the login was not written: {reason:?}");
        }
    }
}

/// For tools that make visitors for tests.
impl Site for Host {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn now(&self) -> UnixMillis {
        self.client.now()
    }
}
