//! What the layer adds to a request, next to the bare service.
//!
//! ```console
//! $ cargo bench --bench layer
//! ```
//!
//! Compare rows of one run; times of different runs or machines say nothing.

#![expect(clippy::unwrap_used, reason = "a bench that can't be set up has nothing to measure")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use divan::{Bencher, black_box};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request, Response};
use tower::{Layer, Service, service_fn};
use tower_euid::{
    AdvertisingToken, CookieKey, ErrorKind, EuidError, EuidLayer, EuidService, EuidUpdate, Identity, IdentityTimes,
    ManualClock, UnixMillis, refresh_fn,
};

fn main() {
    divan::main();
}

const NOW: UnixMillis = UnixMillis::from_millis(1_795_371_587_000);

type Answer = Ready<Result<Response<()>, Infallible>>;
type Handler = fn(Request<()>) -> Answer;

/// Reads the token, as a handler would that puts it into a bid request.
fn handler(request: Request<()>) -> Answer {
    black_box(request.extensions().get::<AdvertisingToken>().map(|token| token.as_str().len()));
    ready(Ok(Response::new(())))
}

fn layer() -> EuidLayer {
    let nobody = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "not asked")) });
    EuidLayer::new(CookieKey::generate().unwrap().into(), nobody).clock(ManualClock::at(NOW))
}

/// The layer, and the cookies of a login of real size.
fn site() -> (EuidService<tower::util::ServiceFn<Handler>>, String) {
    let layer = layer();
    let mut login = layer.layer(service_fn(|_: Request<()>| {
        let mut response = Response::new(());
        EuidUpdate::login(identity()).attach(&mut response);
        ready(Ok::<_, Infallible>(response))
    }));
    let response = call(&mut login, Request::new(()));
    let pairs =
        response.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap().split(';').next().unwrap());
    let cookies = pairs.collect::<Vec<_>>().join("; ");
    (layer.layer(service_fn(handler as Handler)), cookies)
}

fn identity() -> Identity {
    let at = |seconds| NOW.saturating_add(Duration::from_secs(seconds));
    let times = IdentityTimes { refresh_from: at(900), identity_expires: at(3600), refresh_expires: at(86_400) };
    Identity::new("Ab3_".repeat(54) + "Abc", "Ab3/".repeat(97).into(), [7; 32].into(), times).unwrap()
}

fn request(cookies: &str) -> Request<()> {
    let mut request = Request::new(());
    if !cookies.is_empty() {
        request.headers_mut().insert(COOKIE, HeaderValue::try_from(cookies).unwrap());
    }
    request
}

/// Nothing here ever waits, so one poll is the whole call.
fn call<S: Service<Request<()>, Error = Infallible>>(service: &mut S, request: Request<()>) -> S::Response {
    match pin!(service.call(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => unreachable!("nothing is asked for"),
    }
}

fn foreign(count: usize) -> String {
    (0..count).map(|i| format!("_ga_{i:03}=GS1.1.{i}.1795371587.60.0.0")).collect::<Vec<_>>().join("; ")
}

#[divan::bench]
fn a_bare_service(bencher: Bencher<'_, '_>) {
    let (_, cookies) = site();
    let mut bare = service_fn(handler as Handler);
    bencher.with_inputs(|| request(&cookies)).bench_local_values(|request| call(&mut bare, request));
}

#[divan::bench(args = ["none", "40 foreign", "fresh", "fresh among 40", "forged"])]
fn b_layer(bencher: Bencher<'_, '_>, which: &str) {
    let (mut service, ours) = site();
    let cookies = match which {
        "none" => String::new(),
        "40 foreign" => foreign(40),
        "fresh" => ours,
        "fresh among 40" => format!("{}; {ours}; {}", foreign(20), foreign(20)),
        _ => {
            let (before, after) = ours.split_at(300);
            let other = if after.starts_with('A') { 'B' } else { 'A' };
            format!("{before}{other}{}", after.get(1..).unwrap())
        }
    };
    bencher.with_inputs(|| request(&cookies)).bench_local_values(|request| call(&mut service, request));
}

#[divan::bench]
fn c_login(bencher: Bencher<'_, '_>) {
    let mut service = layer().layer(service_fn(|_: Request<()>| {
        let mut response = Response::new(());
        EuidUpdate::login(identity()).attach(&mut response);
        ready(Ok::<_, Infallible>(response))
    }));
    bencher.with_inputs(|| request("")).bench_local_values(|request| call(&mut service, request));
}
