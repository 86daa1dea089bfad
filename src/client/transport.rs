//! The transport of calls: sends one request, bounded in time and size. It knows HTTP and nothing of EUID.
//!
//! 1. A call has a deadline. Time in which the process was frozen does not count.
//! 2. Reading an answer's body stops as soon as the body is longer than the limit.
//! 3. A transport is the default HTTP client or a service of the application.

use std::error::Error;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use euid_core::Operator;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::task::yield_now;
use tower::{Service, ServiceExt};

use super::failure::Failure;
use super::network::Network;
use crate::deadline;

/// How a call reaches the operator.
pub(super) enum Transport {
    Network(Network),
    Service(HttpService),
}

impl Transport {
    /// Returns the response to a request, if it arrives within the timeout.
    pub(super) async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, Failure> {
        let call = async {
            match self {
                Self::Network(network) => network.send(request).await,
                Self::Service(service) => service.send(request).await,
            }
        };
        let answer = deadline::before(deadline::moment_after(timeout), pin!(call)).await;
        answer.unwrap_or_else(|| Err(Failure::timed_out()))
    }
}

/// An application's HTTP service, its type erased.
#[derive(Clone)]
pub(super) struct HttpService(Arc<dyn Fn(Request<Bytes>) -> Answering + Send + Sync>);

type Answering = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Failure>> + Send>>;

impl HttpService {
    pub(super) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        Self(Arc::new(move |request| {
            let answer = service.clone().oneshot(request.map(Full::new));
            Box::pin(async move {
                let (parts, body) = answer.await.map_err(|error| failed(error.into()))?.into_parts();
                let mut received = BoundedBody::default();
                let mut body = pin!(body);
                while received.wants_more() {
                    let length = received.0.len();
                    let Some(frame) = body.frame().await.transpose().map_err(|error| failed(error.into()))? else {
                        break;
                    };
                    if let Ok(data) = frame.into_data() {
                        received.push(data);
                    }
                    // A body may be ready for ever without data, so the deadline must get a turn.
                    if received.0.len() == length {
                        yield_now().await;
                    }
                }
                Ok(Response::from_parts(parts, received.into()))
            })
        }))
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        (self.0)(request).await
    }
}

/// The beginning of an answer's body.
#[derive(Default)]
pub(super) struct BoundedBody(Vec<u8>);

impl BoundedBody {
    /// Returns whether the body may still be an answer. It is none once it is longer than the limit.
    pub(super) fn wants_more(&self) -> bool {
        self.0.len() <= Operator::MAX_ANSWER
    }

    pub(super) fn push(&mut self, chunk: impl Buf) {
        let room = (Operator::MAX_ANSWER + 1).saturating_sub(self.0.len());
        let mut chunk = chunk.take(room);
        while chunk.has_remaining() {
            let part = chunk.chunk();
            let length = part.len();
            self.0.extend_from_slice(part);
            chunk.advance(length);
        }
    }
}

impl From<BoundedBody> for Bytes {
    fn from(received: BoundedBody) -> Self {
        received.0.into()
    }
}

fn failed(error: Box<dyn Error + Send + Sync>) -> Failure {
    // OpenTelemetry's word for an error that has none.
    let failure = Failure::new("_OTHER", "the call to the operator failed");
    Failure { error: failure.error.with_source(ServiceError(error)), ..failure }
}

/// An error of an application's service, as the cause of an [`EuidError`].
#[derive(Debug)]
struct ServiceError(Box<dyn Error + Send + Sync>);

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_read_up_to_one_byte_beyond_the_limit() {
        let mut received = BoundedBody::default();
        for (chunk, length, wants_more) in [
            (Operator::MAX_ANSWER - 1, Operator::MAX_ANSWER - 1, true),
            (1, Operator::MAX_ANSWER, true),
            (1 << 20, Operator::MAX_ANSWER + 1, false),
            (1, Operator::MAX_ANSWER + 1, false),
        ] {
            received.push(vec![b'A'; chunk].as_slice());
            assert_eq!((received.0.len(), received.wants_more()), (length, wants_more));
        }
    }
}
