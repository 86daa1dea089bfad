//! The sandbox as a service: reads a request's body, and answers.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use euid_core::clock::Clock;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::Service;

use super::fault::Fault;
use super::operator::{Call, MAX_BODY};
use super::route::Endpoint;
use super::{Sandbox, lock};

impl Sandbox {
    async fn answer<B: Body>(self, request: Request<B>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let endpoint = Endpoint::at(&parts.uri);
        // A browser's preflight is not a call of the endpoint; it counts as `other`.
        self.0.calls.count(endpoint.filter(|_| parts.method != Method::OPTIONS));
        let fault = *lock(&self.0.fault);
        let body = read(body).await;
        if let Some(Fault::Delay(delay)) = fault {
            tokio::time::sleep(delay).await;
        }
        self.0.operator.answer(&Call {
            parts: &parts,
            endpoint,
            body: body.as_deref(),
            now: self.0.clock.now(),
            opted_out: &lock(&self.0.opted_out),
            fault,
        })
    }
}

impl<B> Service<Request<B>> for Sandbox
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async { Ok(answer.await) })
    }
}

/// The whole body, or `None` if it is longer than the operator reads. A body that breaks off ends there.
async fn read<B: Body>(body: B) -> Option<Vec<u8>> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return None;
    }
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.remaining() > MAX_BODY {
            return None;
        }
        bytes.put(data);
    }
    Some(bytes)
}
