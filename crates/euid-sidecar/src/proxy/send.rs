//! Sends a request to the site, and a second time if the connection turned out to be closed.
//!
//! 1. A server may close an idle connection at any moment. If nothing of a request was sent, it is sent again, whatever
//!    it is.
//! 2. If the request was sent, it is sent again only if it is a `GET` or `HEAD` without a body, as the site may have
//!    seen it.
//! 3. The second time it has a connection of its own, so there is no third.

use std::io;
use std::sync::Arc;

use axum::http::{Method, Request, Response};
use hyper::body::Body;

use super::body::{RequestBody, ResponseBody};
use super::numbers::Numbers;
use super::pool::Pool;
use super::upstream::Upstream;

/// The site's server, as one worker reaches it.
pub(super) struct Sender {
    pub(super) upstream: Upstream,
    pub(super) pool: Pool,
    pub(super) numbers: Arc<Numbers>,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// The visitor's own body is broken.
    Visitor,
    Connect(io::Error),
    Exchange(hyper::Error),
}

impl Sender {
    pub(super) async fn send(&self, request: Request<RequestBody>) -> Result<Response<ResponseBody>, SendError> {
        let failed = request.body().failed();
        let sent = self.send_twice(request).await;
        sent.map_err(|error| if failed.has() { SendError::Visitor } else { error })
    }

    async fn send_twice(&self, request: Request<RequestBody>) -> Result<Response<ResponseBody>, SendError> {
        let Some(mut pooled) = self.pool.take() else { return self.send_anew(request).await };
        let copy = copied(&request);
        let mut error = match pooled.try_send_request(request).await {
            Ok(response) => {
                return Ok(response.map(|body| ResponseBody::of_site(body, self.pool.lease(pooled))));
            }
            Err(error) => error,
        };
        let again = error.take_message().or(copy.filter(|_| is_closed(error.error())));
        let Some(request) = again else { return Err(SendError::Exchange(error.into_error())) };
        self.numbers.retried.increment(1);
        self.send_anew(request).await
    }

    /// Sends a request on a new connection.
    async fn send_anew(&self, request: Request<RequestBody>) -> Result<Response<ResponseBody>, SendError> {
        let connected = self.upstream.connect(self.numbers.connections.clone()).await;
        let mut sender = connected.map_err(SendError::Connect)?;
        let response = sender.send_request(request).await.map_err(SendError::Exchange)?;
        Ok(response.map(|body| ResponseBody::of_site(body, self.pool.lease(sender))))
    }
}

/// Returns a copy of a request that may be sent twice.
fn copied(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let may_be_sent_twice = [Method::GET, Method::HEAD].contains(request.method()) && request.body().is_end_stream();
    may_be_sent_twice.then(|| {
        let mut copy = Request::new(RequestBody::empty());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        copy
    })
}

/// Whether the connection was closed, and no response began.
fn is_closed(error: &hyper::Error) -> bool {
    let is_broken =
        |error: &hyper::Error| std::error::Error::source(error).is_some_and(|source| source.is::<io::Error>());
    error.is_canceled() || error.is_closed() || error.is_incomplete_message() || is_broken(error)
}
