//! The cases of the layer, each compared with the same handler without it.

use std::hint::black_box;
use std::time::Duration;

use http::header::SET_COOKIE;
use http::{Request, Response};
use tower::{Layer, service_fn};
use tower_euid::clock::{Clock, SystemClock};
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{AdvertisingToken, CookieKey, EuidError, EuidLayer, EuidUpdate, KeyRing, Refreshed, refresh_fn};

use crate::{Answer, Case, Measured, call, no_op, request};

pub(crate) const CASES: &[Case] = &[
    Case { name: "no cookie", set_up: || with_cookies(|_| Vec::new()) },
    Case { name: "40 foreign cookies", set_up: || with_cookies(|_| vec![foreign(40).join("; ")]) },
    Case { name: "fresh", set_up: || with_cookies(|ours| vec![ours.join("; ")]) },
    Case { name: "fresh, used extensions", set_up: fresh_in_used_extensions },
    Case { name: "fresh, token read", set_up: fresh_and_read },
    Case { name: "ours among 40", set_up: || with_cookies(|ours| vec![among_40(ours).join("; ")]) },
    Case { name: "ours among 40, HTTP/2", set_up: || with_cookies(among_40) },
    Case { name: "forged", set_up: || with_cookies(|ours| vec![forged(ours).join("; ")]) },
    Case { name: "forged, 4 KB", set_up: || with_cookies(|ours| vec![forged_4_kb(ours).join("; ")]) },
    Case { name: "due, answer remembered", set_up: due_and_remembered },
    Case { name: "login", set_up: || says(|| EuidUpdate::login(identity(FRESH))) },
    Case { name: "logout", set_up: || says(EuidUpdate::logout) },
];

type Handler = fn(Request<()>) -> Answer;

/// Measures the handler that does nothing, behind the layer and without it.
fn with_cookies(cookies: impl FnOnce(&[String]) -> Vec<String>) -> Measured {
    let layer = layer();
    let cookies = cookies(&logged_in(&layer, FRESH));
    Measured::new(layer.layer(service_fn(no_op)), service_fn(no_op), move || request(&cookies))
}

/// Measures a request whose extensions already hold another value.
fn fresh_in_used_extensions() -> Measured {
    let mut measured = with_cookies(|ours| vec![ours.join("; ")]);
    let plain = measured.request;
    measured.request = Box::new(move || {
        let mut request = plain();
        request.extensions_mut().insert("somebody else's");
        request
    });
    measured
}

/// Measures a handler that reads the token, so that the response becomes `private`.
fn fresh_and_read() -> Measured {
    fn handler(request: Request<()>) -> Answer {
        black_box(request.extensions().get::<AdvertisingToken>().map(|token| token.as_str().len()));
        no_op(request)
    }
    let layer = layer();
    let cookies = [logged_in(&layer, FRESH).join("; ")];
    Measured::new(layer.layer(service_fn(handler)), service_fn(no_op), move || request(&cookies))
}

fn due_and_remembered() -> Measured {
    let layer = layer();
    let cookies = [logged_in(&layer, DUE).join("; ")];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut service = layer.layer(service_fn(no_op as Handler));
    let first = runtime.block_on(async { tower::Service::call(&mut service, request(&cookies)).await }).unwrap();
    assert!(first.headers().contains_key(SET_COOKIE), "the operator has answered");
    Measured::new(service, service_fn(no_op), move || request(&cookies))
}

/// Measures a handler that returns `update` to a visitor without cookies.
fn says(update: fn() -> EuidUpdate) -> Measured {
    let handler = move |_: Request<()>| {
        let mut response = Response::new(());
        update().attach(&mut response);
        std::future::ready(Ok(response))
    };
    Measured::new(layer().layer(service_fn(handler)), service_fn(handler), || request(&[]))
}

fn layer() -> EuidLayer {
    let key = CookieKey::from_base64("nCq3Yv4rO0k2tB8o7pLxW1sZfE6uGhJdAaRmQyTi5D0=").unwrap();
    let operator = refresh_fn(|_| async { Ok::<_, EuidError>(Refreshed::Identity(identity(FRESH))) });
    EuidLayer::new(KeyRing::from(key), operator)
}

/// Returns the cookies of a login: an identity of real size, and then the anchor.
fn logged_in(layer: &EuidLayer, ages: Ages) -> Vec<String> {
    let login = service_fn(move |_: Request<()>| {
        let mut response = Response::new(());
        EuidUpdate::login(identity(ages)).attach(&mut response);
        std::future::ready(Ok(response))
    });
    let response = call(layer.layer(login))(request(&[]));
    let lines = response.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap());
    // A browser sends back the cookies that it keeps.
    let kept = lines.filter(|line| !line.ends_with("; Max-Age=0"));
    let mut pairs: Vec<_> = kept.map(|line| line.split(';').next().unwrap().to_owned()).collect();
    assert_eq!(pairs.len(), 2, "anchor and identity");
    pairs.reverse();
    assert_eq!(pairs[0].len(), "__Host-euid.abcd=".len() + 771, "the size of a real one");
    pairs
}

/// When an identity is due, and when its token expires, in seconds from now.
type Ages = (i64, u64);
const FRESH: Ages = (900, 3600);
const DUE: Ages = (-3600, 3600);

/// Returns an identity with tokens of the operator's sizes.
fn identity((due, expires): Ages) -> Identity {
    let now = SystemClock.now();
    let at = |seconds| now.saturating_add(Duration::from_secs(seconds));
    let ago = |seconds| now.saturating_sub(Duration::from_secs(seconds));
    let refresh_from = if due < 0 { ago(due.unsigned_abs()) } else { at(due.unsigned_abs()) };
    let times = IdentityTimes { refresh_from, identity_expires: at(expires), refresh_expires: at(86_400) };
    Identity::new("Ab3_".repeat(54) + "Abc", "Ab3/".repeat(97).into(), [7; 32].into(), times).unwrap()
}

fn foreign(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("_ga_{i:03}=GS1.1.{i}.1795371587.60.0.0")).collect()
}

fn among_40(ours: &[String]) -> Vec<String> {
    let foreign = foreign(40);
    let (before, after) = foreign.split_at(20);
    [before, ours, after].concat()
}

/// Forges an identity cookie: the usual length, a key id of the layer, and one changed character.
fn forged(ours: &[String]) -> Vec<String> {
    let (before, after) = ours[0].split_at(300);
    let other = if after.starts_with('A') { 'B' } else { 'A' };
    vec![format!("{before}{other}{}", &after[1..]), ours[1].clone()]
}

/// Forges an identity cookie of the largest size that a browser sends.
fn forged_4_kb(ours: &[String]) -> Vec<String> {
    let filler = "A".repeat(4096 - ours[0].len());
    vec![format!("{}{filler}", ours[0]), ours[1].clone()]
}
