//! A client whose calls go through an HTTP service that the application brings.

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
use tower_euid::{Dii, Environment, EuidClientBuilder, Generated, Operator, Refreshed, from_service};

type Sent = Request<Full<Bytes>>;

fn user() -> Dii {
    Dii::email("user@example.com").unwrap()
}

fn builder() -> EuidClientBuilder {
    let sandbox = Sandbox::builder().build().unwrap();
    EuidClientBuilder::from_operator(sandbox.operator()).clock(sandbox.clock())
}

async fn failure(builder: EuidClientBuilder) -> EuidError {
    builder.build().unwrap().generate(user()).await.unwrap_err()
}

#[tokio::test]
async fn a_router_can_carry_the_calls() {
    let sandbox = Sandbox::builder().build().unwrap();
    let router = Router::new().nest_service("/euid", Router::new().fallback_service(sandbox.clone()));
    let operator = Operator::builder(Environment::Url("https://gateway.example/euid/".to_owned()))
        .credentials(sandbox.api_key(), sandbox.client_secret())
        .build()
        .unwrap();
    let (client, _) = from_service(operator, router, sandbox.clock()).unwrap();
    let Generated::Identity(identity) = client.generate(user()).await.unwrap() else { unreachable!() };
    assert!(client.validate(identity.advertising_token(), user()).await.unwrap());
    assert!(matches!(client.refresh(&identity).await.unwrap(), Refreshed::Identity(_)));
    assert_eq!((sandbox.calls().generate, sandbox.calls().validate, sandbox.calls().refresh), (1, 1, 1));
}

/// As in an application that has such a client already.
#[tokio::test]
async fn clients_of_other_crates_can_carry_the_calls() {
    let server = Sandbox::builder().build().unwrap().serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    let builder = || EuidClientBuilder::from_operator(server.operator()).clock(server.sandbox().clock());

    let hyper = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let client = builder().http_service::<_, hyper::body::Incoming>(hyper).build().unwrap();
    assert!(matches!(client.generate(user()).await.unwrap(), Generated::Identity(_)));

    let reqwest = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let reqwest = ServiceBuilder::new()
        .map_request(|request: Sent| reqwest::Request::try_from(request.map(reqwest::Body::wrap)).unwrap())
        .map_response(Response::<reqwest::Body>::from)
        .service(reqwest);
    let client = builder().http_service(reqwest).build().unwrap();
    assert!(matches!(client.generate(user()).await.unwrap(), Generated::Identity(_)));
    assert_eq!(server.sandbox().calls().generate, 2);
}

/// Needs polling until it is ready, as a service with a limit does.
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
async fn a_service_is_called_when_it_is_ready() {
    let sandbox = Sandbox::builder().build().unwrap();
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
async fn a_failure_of_the_service_is_transient_and_the_cause() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let fails = service_fn(move |_: Sent| {
        counted.fetch_add(1, Ordering::Relaxed);
        ready(Err::<Response<Full<Bytes>>, _>(Unreachable))
    });
    let error = failure(builder().http_service(fails)).await;
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Transient, "the call to the operator failed"));
    assert_eq!(error.source().unwrap().to_string(), "no route to host");
    assert_eq!(calls.load(Ordering::Relaxed), 1, "it is not tried again");

    let breaks = service_fn(|_: Sent| ready(Ok::<_, Infallible>(Response::new(Chunks::new(vec![1024], true)))));
    let error = failure(builder().http_service(breaks)).await;
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Transient, "the call to the operator failed"));
    assert_eq!(error.source().unwrap().to_string(), "no route to host");
}

/// A body of so many bytes each time; then it breaks, or not.
struct Chunks {
    lengths: std::vec::IntoIter<usize>,
    breaks: bool,
    read: Arc<AtomicUsize>,
}

impl Chunks {
    fn new(lengths: Vec<usize>, breaks: bool) -> Self {
        Self { lengths: lengths.into_iter(), breaks, read: Arc::default() }
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
        self.read.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(match next {
            Some(length) => Some(Ok(http_body::Frame::data(vec![b'A'; length].into()))),
            None => std::mem::take(&mut self.breaks).then_some(Err(Unreachable)),
        })
    }
}

#[tokio::test]
async fn of_an_answer_that_is_too_long_no_more_is_read() {
    let body = Chunks::new(vec![40 << 10; 4], false);
    let read = body.read.clone();
    let body = Arc::new(Mutex::new(Some(body)));
    let long =
        service_fn(move |_: Sent| ready(Ok::<_, Infallible>(Response::new(body.lock().unwrap().take().unwrap()))));
    let error = failure(builder().http_service(long)).await;
    assert_eq!(
        (error.kind(), &*error.to_string()),
        (ErrorKind::Malformed, "the operator's answer is larger than 64 KiB")
    );
    assert_eq!(read.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_costs_a_call_its_timeout() {
    let hangs = service_fn(|_: Sent| pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let error = failure(builder().http_service(hangs).timeout(Duration::from_secs(3))).await;
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Transient, "the operator did not answer in time"));
}

/// A body that is always ready and brings nothing.
struct Barren {
    trailers: bool,
}

impl http_body::Body for Barren {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = if self.trailers { Frame::trailers(HeaderMap::new()) } else { Frame::data(Bytes::new()) };
        Poll::Ready(Some(Ok(frame)))
    }
}

#[test]
fn body_that_brings_nothing_for_ever_costs_a_call_its_timeout() {
    for trailers in [false, true] {
        let (send, ended) = mpsc::channel();
        // A thread of its own: a call that blocks its runtime would block the test as well.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let service = service_fn(move |_: Sent| ready(Ok::<_, Infallible>(Response::new(Barren { trailers }))));
            let client = builder().timeout(Duration::from_millis(20)).http_service(service);
            let _ = send.send(runtime.block_on(failure(client)).kind());
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(ErrorKind::Transient), "trailers: {trailers}");
    }
}
