//! Tests of a client that calls the operator through an HTTP service of the application.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{pending, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use euid_sandbox::Sandbox;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::Full;
use tower::{Service, ServiceBuilder, service_fn};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::{Environment, EuidClientBuilder, Operator, Refreshed, from_service};

use crate::support::server::{client_builder, generate, sandbox, serve, user};

type Sent = Request<Full<Bytes>>;

/// Configures a client of a sandbox that has no port: only an HTTP service can carry its calls.
fn builder() -> EuidClientBuilder {
    let sandbox = sandbox();
    EuidClientBuilder::from_operator(sandbox.operator()).clock(sandbox.clock())
}

async fn failure(builder: EuidClientBuilder) -> EuidError {
    builder.build().unwrap().generate(user()).await.unwrap_err()
}

#[tokio::test]
async fn http_service_may_be_a_router() {
    let sandbox = sandbox();
    let router = Router::new().nest_service("/euid", Router::new().fallback_service(sandbox.clone()));
    let operator = Operator::builder(Environment::Url("https://gateway.example/euid/".to_owned()))
        .credentials(sandbox.api_key(), sandbox.client_secret())
        .build()
        .unwrap();
    let (client, _) = from_service(operator, router, sandbox.clock()).unwrap();
    let identity = generate(&client, user()).await.unwrap();
    assert!(client.validate(identity.advertising_token(), user()).await.unwrap());
    assert!(matches!(client.refresh(&identity).await.unwrap(), Refreshed::Identity(_)));
    assert_eq!((sandbox.calls().generate, sandbox.calls().validate, sandbox.calls().refresh), (1, 1, 1));
}

/// An application may already have such a client.
#[tokio::test]
async fn http_service_may_be_a_client_of_another_crate() {
    let server = serve(sandbox()).await;

    let hyper = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let client = client_builder(&server).http_service::<_, hyper::body::Incoming>(hyper).build().unwrap();
    generate(&client, user()).await.unwrap();

    let reqwest = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let reqwest = ServiceBuilder::new()
        .map_request(|request: Sent| reqwest::Request::try_from(request.map(reqwest::Body::wrap)).unwrap())
        .map_response(Response::<reqwest::Body>::from)
        .service(reqwest);
    let client = client_builder(&server).http_service(reqwest).build().unwrap();
    generate(&client, user()).await.unwrap();
    assert_eq!(server.sandbox().calls().generate, 2);
}

/// A service that must be polled until it is ready, such as one with a limit. The flag says that it is ready.
#[derive(Clone)]
struct Limited(Sandbox, bool);

impl Service<Sent> for Limited {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = <Sandbox as Service<Sent>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.1 = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Sent) -> Self::Future {
        assert!(std::mem::take(&mut self.1), "called before it was ready");
        self.0.call(request)
    }
}

#[tokio::test]
async fn http_service_is_called_only_when_ready() {
    let sandbox = sandbox();
    let (client, _) = from_service(sandbox.operator(), Limited(sandbox.clone(), false), sandbox.clock()).unwrap();
    for _ in 0..2 {
        assert!(client.generate(user()).await.is_ok());
    }
}

#[derive(Debug)]
struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no route to host")
    }
}

impl Error for Unreachable {}

#[tokio::test]
async fn http_service_error_is_transient_and_the_source_of_the_error() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let fails = service_fn(move |_: Sent| {
        counter.fetch_add(1, Ordering::Relaxed);
        ready(Err::<Response<Full<Bytes>>, _>(Unreachable))
    });
    let error = failure(builder().http_service(fails)).await;
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Transient, "the call to the operator failed"));
    assert_eq!(error.source().unwrap().to_string(), "no route to host");
    assert_eq!(calls.load(Ordering::Relaxed), 1, "the call is not repeated");

    let broken = service_fn(|_: Sent| ready(Ok::<_, Infallible>(Response::new(Chunks::new(vec![1024], true)))));
    let error = failure(builder().http_service(broken)).await;
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Transient, "the call to the operator failed"));
    assert_eq!(error.source().unwrap().to_string(), "no route to host");
}

/// A body of chunks with these lengths, which may end with an error. It counts its polls.
struct Chunks {
    lengths: std::vec::IntoIter<usize>,
    fails_at_end: bool,
    polls: Arc<AtomicUsize>,
}

impl Chunks {
    fn new(lengths: Vec<usize>, fails_at_end: bool) -> Self {
        Self { lengths: lengths.into_iter(), fails_at_end, polls: Arc::default() }
    }
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Unreachable;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Unreachable>>> {
        let next = self.lengths.next();
        self.polls.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(match next {
            Some(length) => Some(Ok(http_body::Frame::data(vec![b'A'; length].into()))),
            None => std::mem::take(&mut self.fails_at_end).then_some(Err(Unreachable)),
        })
    }
}

#[tokio::test]
async fn http_service_answer_above_the_size_limit_is_not_read_further() {
    let body = Chunks::new(vec![40 << 10; 4], false);
    let polls = body.polls.clone();
    let body = Arc::new(Mutex::new(Some(body)));
    let long =
        service_fn(move |_: Sent| ready(Ok::<_, Infallible>(Response::new(body.lock().unwrap().take().unwrap()))));
    let error = failure(builder().http_service(long)).await;
    assert_eq!(
        (error.kind(), &*error.to_string()),
        (ErrorKind::Malformed, "the operator's answer is larger than 64 KiB")
    );
    assert_eq!(polls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn timeout_ends_a_call_of_a_stalled_http_service() {
    let stalled = service_fn(|_: Sent| pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let error = failure(builder().http_service(stalled).timeout(Duration::from_secs(3))).await;
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Transient, "the operator did not answer in time"));
}

/// A body that is always ready with an empty frame, and never ends.
struct Endless {
    trailers: bool,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = if self.trailers { Frame::trailers(HeaderMap::new()) } else { Frame::data(Bytes::new()) };
        Poll::Ready(Some(Ok(frame)))
    }
}

#[test]
fn timeout_ends_a_call_whose_body_never_ends() {
    for trailers in [false, true] {
        let (send, ended) = mpsc::channel();
        // The call has its own thread, because a call that blocks its runtime would also block the test.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let service = service_fn(move |_: Sent| ready(Ok::<_, Infallible>(Response::new(Endless { trailers }))));
            let client = builder().timeout(Duration::from_millis(20)).http_service(service);
            let _ = send.send(runtime.block_on(failure(client)).kind());
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(ErrorKind::Transient), "trailers: {trailers}");
    }
}
