//! The cost of a due refresh for a request, beside the bare service.
//!
//! ```console
//! $ cargo bench --bench refresh
//! ```
//!
//! Compare only rows of one run; times of different runs or machines can't be compared.

#![expect(clippy::unwrap_used, reason = "a bench that can't be set up has nothing to measure")]

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use divan::{Bencher, black_box};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request, Response};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::clock::{Clock, ManualClock, UnixMillis};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{AdvertisingToken, CookieKey, EuidLayer, EuidUpdate, Refresh, Refreshed, refresh_fn};

fn main() {
    divan::main();
}

const LOGIN: UnixMillis = UnixMillis::from_millis(1_795_371_587_000);
const DUE: Duration = Duration::from_secs(1800);

fn identity(visitor: usize, from: UnixMillis) -> Identity {
    let at = |seconds| from.saturating_add(Duration::from_secs(seconds));
    let times = IdentityTimes { refresh_from: at(900), identity_expires: at(3600), refresh_expires: at(86_400) };
    let refresh_token = format!("{visitor:04}{}", "Ab3/".repeat(96));
    Identity::new("Ab3_".repeat(54) + "Abc", refresh_token.into(), [7; 32].into(), times).unwrap()
}

/// Returns a page that reads the token.
fn page() -> impl Service<Request<()>, Response = Response<()>, Error = Infallible> + Clone {
    service_fn(|request: Request<()>| {
        black_box(request.extensions().get::<AdvertisingToken>().map(|token| token.as_str().len()));
        ready(Ok::<_, Infallible>(Response::new(())))
    })
}

struct Site {
    layer: EuidLayer,
    clock: ManualClock,
    runtime: Runtime,
}

impl Site {
    fn new(refresh: impl Refresh) -> Self {
        let clock = ManualClock::at(LOGIN);
        let layer = EuidLayer::new(CookieKey::generate().unwrap().into(), refresh).clock(clock.clone());
        Self { layer, clock, runtime: Builder::new_current_thread().enable_all().build().unwrap() }
    }

    /// Returns the cookies of a visitor who logs in now.
    fn login(&self, visitor: usize) -> String {
        let login = service_fn(move |_: Request<()>| {
            let mut response = Response::new(());
            EuidUpdate::login(identity(visitor, LOGIN)).attach(&mut response);
            ready(Ok::<_, Infallible>(response))
        });
        let response = self.runtime.block_on(self.layer.layer(login).oneshot(Request::new(()))).unwrap();
        let lines = response.headers().get_all(SET_COOKIE).iter();
        let pairs = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned());
        pairs.collect::<Vec<_>>().join("; ")
    }

    fn visit(&self, cookies: &str) -> Response<()> {
        self.runtime.block_on(self.layer.layer(page()).oneshot(request(cookies))).unwrap()
    }

    fn bench(&self, bencher: Bencher<'_, '_>, cookies: &str) {
        let service = self.layer.layer(page());
        bencher
            .with_inputs(|| request(cookies))
            .bench_local_values(|request| self.runtime.block_on(service.clone().oneshot(request)).unwrap());
    }
}

fn request(cookies: &str) -> Request<()> {
    let mut request = Request::new(());
    request.headers_mut().insert(COOKIE, HeaderValue::try_from(cookies).unwrap());
    request
}

fn instant(clock: &ManualClock) -> Result<Refreshed, EuidError> {
    Ok(Refreshed::Identity(identity(9999, clock.now())))
}

#[divan::bench]
fn a_bare_service(bencher: Bencher<'_, '_>) {
    let site = Site::new(refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "not asked")) }));
    let cookies = site.login(1);
    bencher
        .with_inputs(|| request(&cookies))
        .bench_local_values(|request| site.runtime.block_on(page().oneshot(request)).unwrap());
}

#[divan::bench]
fn b_fresh(bencher: Bencher<'_, '_>) {
    let site = Site::new(refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "not asked")) }));
    let cookies = site.login(1);
    site.bench(bencher, &cookies);
}

/// Measures a task, a call and a cookie for each request: the memory is too small for any answer.
#[divan::bench]
fn c_due_with_an_instant_operator(bencher: Bencher<'_, '_>) {
    let clock = ManualClock::at(LOGIN.saturating_add(DUE));
    let site = Site::new(refresh_fn(move |_| ready(instant(&clock))));
    let site = Site { layer: site.layer.memo_entries(1).memo_bytes(0), ..site };
    let cookies = site.login(1);
    site.clock.advance(DUE);
    assert!(site.visit(&cookies).headers().contains_key(SET_COOKIE));
    site.bench(bencher, &cookies);
}

#[divan::bench]
fn d_due_with_the_answer_remembered(bencher: Bencher<'_, '_>) {
    let clock = ManualClock::at(LOGIN.saturating_add(DUE));
    let site = Site::new(refresh_fn(move |_| ready(instant(&clock))));
    let cookies = site.login(1);
    site.clock.advance(DUE);
    assert!(site.visit(&cookies).headers().contains_key(SET_COOKIE));
    site.bench(bencher, &cookies);
}

#[divan::bench]
fn e_due_with_the_breaker_open(bencher: Bencher<'_, '_>) {
    let site = Site::new(refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "down")) }));
    let visitors: Vec<String> = (0..6).map(|visitor| site.login(visitor)).collect();
    site.clock.advance(DUE);
    for cookies in &visitors {
        site.visit(cookies);
    }
    site.bench(bencher, visitors.last().unwrap());
}
