//! The measured cases: a service, and its request.

mod ours;
mod pair;
mod peers;

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::header::COOKIE;
use http::{HeaderValue, Request, Response};
use tower::Service;

/// A named case.
pub struct Case {
    pub name: &'static str,
    set_up: fn() -> Measured,
}

/// A service, the same service without the layer, and the request for both.
pub struct Measured {
    pub layered: Call,
    pub bare: Call,
    pub request: Box<dyn Fn() -> Request<()>>,
}

/// One call from the request to the response. It never waits.
pub type Call = Box<dyn FnMut(Request<()>) -> Response<()>>;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Case {
    /// Sets the case up and calls it a few times, so that one-time work is done.
    pub fn set_up(&self) -> Measured {
        let mut measured = (self.set_up)();
        for _ in 0..3 {
            (measured.bare)((measured.request)());
            (measured.layered)((measured.request)());
        }
        measured
    }
}

/// Returns all cases: the layer's, then those of its peers.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    ours::CASES.iter().chain(peers::CASES)
}

impl Measured {
    fn new<S, H>(layered: S, bare: H, request: impl Fn() -> Request<()> + 'static) -> Self
    where
        S: Service<Request<()>, Response = Response<()>, Error = Infallible> + 'static,
        H: Service<Request<()>, Response = Response<()>, Error = Infallible> + 'static,
    {
        Self { layered: call(layered), bare: call(bare), request: Box::new(request) }
    }
}

fn call<S>(mut service: S) -> Call
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible> + 'static,
{
    Box::new(move |request| now(service.call(request)).unwrap_or_else(|never| match never {}))
}

/// Returns the output of a future that never waits.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("nothing here waits"),
    }
}

type Answer = Ready<Result<Response<()>, Infallible>>;

/// The handler that does nothing.
fn no_op(_: Request<()>) -> Answer {
    ready(Ok(Response::new(())))
}

/// Returns a request with these `Cookie` headers.
fn request(cookies: &[String]) -> Request<()> {
    let mut request = Request::new(());
    for cookie in cookies {
        request.headers_mut().append(COOKIE, HeaderValue::try_from(cookie).unwrap());
    }
    request
}
