//! The requests of a browser, and their answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::COOKIE;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use tower_euid::clock::UnixMillis;

use crate::rules::{Page, Token};

/// A request that a browser is about to send.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Page { status: u16, word: u64 },
    Login { address: String },
    Logout,
}

impl Order {
    /// Returns the request to a node, with these cookies.
    pub(crate) fn request(&self, node: &str, jar: &BTreeMap<String, String>) -> Request<Full<Bytes>> {
        let (method, path, body) = match self {
            Self::Page { status, word } => (Method::GET, format!("/?status={status}&word={word}"), String::new()),
            Self::Login { address } => (Method::POST, "/login".to_owned(), address.clone()),
            Self::Logout => (Method::POST, "/logout".to_owned(), String::new()),
        };
        let request = Request::builder().method(method).uri(format!("http://{node}{path}"));
        let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = if cookies.is_empty() { request } else { request.header(COOKIE, cookies.join("; ")) };
        request.body(Full::from(body)).unwrap()
    }
}

/// The answer that a browser got, and its knowledge at the time of the request.
pub(crate) struct Answer {
    pub(crate) order: Order,
    pub(crate) node: usize,
    pub(crate) changes: u64,
    pub(crate) told: bool,
    pub(crate) lives_until: Option<UnixMillis>,
    pub(crate) asked_at: UnixMillis,
    pub(crate) came_at: UnixMillis,
    pub(crate) response: Result<Response<Bytes>, String>,
}

impl Answer {
    /// Parses a page of [`site`](crate::site); `None` if it is no such page.
    pub(crate) fn page<'a>(&self, headers: &'a HeaderMap, body: &'a str, word: u64) -> Option<Page<'a>> {
        let (said, seen) = body.split_once('\n')?;
        let mut seen = seen.split(' ');
        let (state, shown_at) = (seen.next()?, moment(seen.next()?)?);
        let token = match (seen.next(), seen.next()) {
            (Some(ends), Some(text)) => Some(Token { shown_at, ends: moment(ends)?, text }),
            _ => None,
        };
        let Self { asked_at, came_at, told, lives_until, .. } = *self;
        let page = Page { asked_at, came_at, asked_told: told, lives_until, headers, state, token };
        (said == word.to_string()).then_some(page)
    }
}

fn moment(text: &str) -> Option<UnixMillis> {
    text.parse().ok().map(UnixMillis::from_millis)
}
