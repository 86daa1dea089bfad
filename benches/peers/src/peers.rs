//! The alternatives to the layer. Each keeps a [`TokenPair`] as JSON, in one encrypted cookie or in the store that a
//! session cookie names, and its handler takes the token out of it. None of them refreshes an expired token.

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::Pin;

use axum_extra::extract::PrivateCookieJar;
use biscotti::config::{CryptoAlgorithm, CryptoRule};
use biscotti::{Processor, ProcessorConfig, RequestCookies, ResponseCookies};
use cookie::{Cookie, CookieJar};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Request, Response};
use tower::{Layer, service_fn};
use tower_cookies::{CookieManagerLayer, Cookies};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

use crate::pair::TokenPair;
use crate::{Case, Measured, call, no_op, request};

pub(crate) const CASES: &[Case] = &[
    Case { name: "tower-sessions, MemoryStore", set_up: tower_sessions },
    Case { name: "biscotti", set_up: biscotti },
    Case { name: "cookie, PrivateJar", set_up: cookie_private_jar },
    Case { name: "tower-cookies, private", set_up: tower_cookies_private },
    Case { name: "axum-extra, PrivateCookieJar", set_up: axum_extra_private },
];

fn tower_sessions() -> Measured {
    type Answer = Pin<Box<dyn Future<Output = Result<Response<()>, Infallible>> + Send>>;
    fn write(request: Request<()>) -> Answer {
        Box::pin(async move {
            request.extensions().get::<Session>().unwrap().insert(NAME, TokenPair::fresh()).await.unwrap();
            Ok(Response::new(()))
        })
    }
    fn read(request: Request<()>) -> Answer {
        Box::pin(async move {
            used(request.extensions().get::<Session>().unwrap().get(NAME).await.unwrap().unwrap());
            Ok(Response::new(()))
        })
    }
    let layer = SessionManagerLayer::new(MemoryStore::default());
    let written = call(layer.layer(service_fn(write)))(request(&[]));
    of_a_cookie(layer.layer(service_fn(read)), cookie_of(&written))
}

fn biscotti() -> Measured {
    let mut config = ProcessorConfig::default();
    config.crypto_rules.push(CryptoRule {
        cookie_names: vec![NAME.to_owned()],
        algorithm: CryptoAlgorithm::Encryption,
        key: biscotti::Key::from(KEY.to_vec()),
        fallbacks: Vec::new(),
    });
    let processor = Processor::from(config);
    let mut cookies = ResponseCookies::new();
    cookies.insert((NAME, TokenPair::fresh().to_json()));
    let cookie = cookies.header_values(&processor).next().unwrap();
    let read = move |request: Request<()>| {
        let cookies = RequestCookies::parse_header(header(&request), &processor).unwrap();
        used_json(cookies.get(NAME).unwrap().value());
        drop(cookies);
        no_op(request)
    };
    of_a_cookie(service_fn(read), cookie)
}

fn cookie_private_jar() -> Measured {
    let key = cookie::Key::from(&KEY);
    let mut jar = CookieJar::new();
    jar.private_mut(&key).add((NAME, TokenPair::fresh().to_json()));
    let cookie = jar.get(NAME).unwrap().to_string();
    let read = move |request: Request<()>| {
        let mut jar = CookieJar::new();
        for cookie in Cookie::split_parse(header(&request)) {
            jar.add_original(cookie.unwrap().into_owned());
        }
        used_json(jar.private(&key).get(NAME).unwrap().value());
        drop(jar);
        no_op(request)
    };
    of_a_cookie(service_fn(read), cookie)
}

fn tower_cookies_private() -> Measured {
    let key = tower_cookies::Key::from(&KEY);
    let (writing, layer) = (key.clone(), CookieManagerLayer::new());
    let write = move |request: Request<()>| {
        request
            .extensions()
            .get::<Cookies>()
            .unwrap()
            .private(&writing)
            .add(Cookie::new(NAME, TokenPair::fresh().to_json()));
        no_op(request)
    };
    let read = move |request: Request<()>| {
        used_json(request.extensions().get::<Cookies>().unwrap().private(&key).get(NAME).unwrap().value());
        no_op(request)
    };
    let written = call(layer.layer(service_fn(write)))(request(&[]));
    of_a_cookie(layer.layer(service_fn(read)), cookie_of(&written))
}

fn axum_extra_private() -> Measured {
    let key = axum_extra::extract::cookie::Key::from(&KEY);
    let jar: PrivateCookieJar = PrivateCookieJar::new(key.clone()).add((NAME, TokenPair::fresh().to_json()));
    let written = axum_core_response(jar);
    let read = move |request: Request<()>| {
        let jar: PrivateCookieJar = PrivateCookieJar::from_headers(request.headers(), key.clone());
        used_json(jar.get(NAME).unwrap().value());
        drop(jar);
        no_op(request)
    };
    of_a_cookie(service_fn(read), cookie_of(&written))
}

fn axum_core_response(jar: PrivateCookieJar) -> Response<()> {
    axum_core::response::IntoResponse::into_response(jar).map(drop)
}

fn of_a_cookie<S>(service: S, cookie: String) -> Measured
where
    S: tower::Service<Request<()>, Response = Response<()>, Error = Infallible> + 'static,
{
    let cookies = [cookie.split(';').next().unwrap().to_owned()];
    Measured::new(service, service_fn(no_op), move || request(&cookies))
}

fn used_json(text: &str) {
    used(TokenPair::from_json(text).unwrap());
}

/// Checks that the handler has its token.
fn used(pair: TokenPair) {
    assert!(black_box(pair.usable_token()).is_some());
}

fn header(request: &Request<()>) -> &str {
    request.headers()[COOKIE].to_str().unwrap()
}

fn cookie_of<B>(response: &Response<B>) -> String {
    let headers: &HeaderMap = response.headers();
    headers[SET_COOKIE].to_str().unwrap().to_owned()
}

const NAME: &str = "identity";
const KEY: [u8; 64] = *b"0f9b1c46a8d2e37c5b60e9417a3d8f2c6e05b7194dc2a8f3b16e7d905a4c823f";
