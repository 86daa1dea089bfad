//! The service inside the layer: the site, as the layer sees it. It never fails.
//!
//! 1. The site gets the visitor's token, state and nonce in headers that no visitor can write, and none of the cookies
//!    that hold the state.
//! 2. A site that got the token has read it, unless its response says `unused`. So no shared cache keeps such a page.
//! 3. An image, a style sheet or a font gets no token: caches keep these, and no bid request is made of them.
//! 4. A login or a logout that the site commands becomes the layer's update.
//! 5. If the site can't be reached, the 502 is made here, so that the layer still writes what it has to.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tower::Service;
use tower_euid::engine::Site as _;
use tower_euid::{AdvertisingToken, Consent, Euid, EuidLayer, EuidUpdate};

use super::body::{RequestBody, ResponseBody};
use super::command::{Command, Login};
use super::hop;
use super::login::Logins;
use super::names;
use super::send::{SendError, Sender};
use super::tunnel::Tunnel;

/// The site behind the proxy. Clones share the connections to it.
#[derive(Clone)]
pub(super) struct Forward(Arc<Inner>);

struct Inner {
    layer: EuidLayer,
    logins: Logins,
    sender: Sender,
    nonces: Nonces,
}

/// Random numbers, each for one request. One call of the operating system brings many: a call for each would take 2 % of
/// a request's time.
#[derive(Default)]
struct Nonces(Mutex<Vec<[u8; 16]>>);

/// The address of the visitor, in a request's extensions.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What is kept of a request until its response.
struct Kept {
    /// `None`: no login counts.
    nonce: Option<String>,
    /// The token that the site has got.
    token: Option<AdvertisingToken>,
    consent: Consent,
}

impl Forward {
    pub(super) fn new(layer: EuidLayer, logins: Logins, sender: Sender) -> Self {
        Self(Arc::new(Inner { layer, logins, sender, nonces: Nonces::default() }))
    }
}

impl Service<Request<Incoming>> for Forward {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(inner.forward(request).await) })
    }
}

impl Inner {
    async fn forward(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        let is_upgrade = hop::is_upgrade(request.headers());
        let visitor = is_upgrade.then(|| hyper::upgrade::on(&mut request));
        let kept = self.prepare(&mut request);
        let (mut parts, body) = request.into_parts();
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let mut response = match self.sender.send(Request::from_parts(parts, RequestBody::new(body))).await {
            Ok(response) => response,
            Err(error) => {
                self.sender.numbers.failed(&error);
                return match error {
                    SendError::Visitor => own(StatusCode::BAD_REQUEST, "the body of the request is broken\n"),
                    _ => own(StatusCode::BAD_GATEWAY, "the site does not answer\n"),
                };
            }
        };
        // The visitor's connection need not end because the site speaks HTTP/1.0.
        *response.version_mut() = Version::HTTP_11;
        let tunnel = visitor.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS);
        if tunnel.is_none() && response.status().is_informational() {
            return own(StatusCode::BAD_GATEWAY, "the site switches protocols unasked\n");
        }
        hop::strip_response(response.headers_mut(), tunnel.is_some());
        if let Some(visitor) = tunnel {
            let site = hyper::upgrade::on(&mut response);
            response.extensions_mut().insert(Tunnel { visitor, site });
        }
        self.obey(kept, &mut response).await;
        response
    }

    /// Writes the headers that the site gets.
    fn prepare(&self, request: &mut Request<Incoming>) -> Kept {
        let euid = request.extensions().get::<Euid>().cloned().unwrap_or_default();
        let consent = request.extensions().get().copied().unwrap_or(Consent::Granted);
        let peer = request.extensions().get::<Peer>().copied();
        let nonce = self.nonces.take();
        let headers = request.headers_mut();
        names::drop_reserved(headers);
        names::take_cookies(self.layer.engine(), headers);
        let token = euid.advertising_token().filter(|_| !is_asset(headers)).cloned();
        let token_value = token.as_ref().map(|token| HeaderValue::from_str(token.peek()));
        if let Some(Ok(mut value)) = token_value {
            value.set_sensitive(true);
            headers.insert(names::TOKEN, value);
        }
        headers.insert(names::STATE, HeaderValue::from_static(euid.state()));
        if let Some(Ok(nonce)) = nonce.as_deref().map(HeaderValue::from_str) {
            headers.insert(names::NONCE, nonce);
        }
        forwarded(headers, peer);
        Kept { nonce, token, consent }
    }

    /// Takes the command out of a response, and does what it says.
    async fn obey(&self, kept: Kept, response: &mut Response<ResponseBody>) {
        let command = Command::read(&response.headers().get_all(names::COMMAND), kept.nonce.as_deref());
        response.headers_mut().remove(names::COMMAND);
        if let (Some(token), false) = (&kept.token, matches!(command, Some(Command::Unused))) {
            // A read of the token, in the site's name.
            let _: &str = token.as_str();
        }
        let update = match command {
            None | Some(Command::Unused) => return,
            Some(Command::Ignored(why)) => return tracing::warn!(why, "a command of the site is ignored"),
            Some(Command::Logout) => EuidUpdate::logout(),
            Some(Command::Login(login)) => self.log_in(&login, kept.consent).await,
            Some(Command::Failed(why)) => {
                tracing::error!(%why, "a login of the site can't be read");
                EuidUpdate::logout()
            }
        };
        update.attach(response);
    }

    /// Returns the update of a login. One that fails is a logout: a new person was logging in, so the previous identity
    /// must not stand for them.
    async fn log_in(&self, login: &Login, consent: Consent) -> EuidUpdate {
        if consent != Consent::Granted {
            return EuidUpdate::logout();
        }
        match self.logins.generate(&login.person).await {
            Ok(generated) => {
                let update = EuidUpdate::from(generated);
                login.subject.iter().fold(update, |update, id| update.subject(id))
            }
            Err(error) => {
                tracing::warn!(error, "a login of the site failed");
                EuidUpdate::logout()
            }
        }
    }
}

/// Returns a response of the sidecar's own.
pub(super) fn own(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::text(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Appends the visitor's address to those that proxies in front have written, and says how they came, unless a proxy in
/// front has.
fn forwarded(headers: &mut HeaderMap, peer: Option<Peer>) {
    if let Some(Peer(address)) = peer {
        let mut addresses: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
        let address = address.to_canonical().to_string();
        addresses.push(address.as_bytes());
        if let Ok(addresses) = HeaderValue::from_bytes(&addresses.join(&b", "[..])) {
            headers.insert(FORWARDED_FOR, addresses);
        }
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

impl Nonces {
    /// Returns a number as text, each only once; `None` if the operating system has no random numbers.
    fn take(&self) -> Option<String> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if left.is_empty() {
            let mut bytes = [0; 256 * 16];
            getrandom::fill(&mut bytes).ok()?;
            left.extend(bytes.as_chunks().0);
        }
        left.pop().map(|number| format!("{:032x}", u128::from_ne_bytes(number)))
    }
}

/// Whether the browser asks for a part of a page that caches keep.
fn is_asset(headers: &HeaderMap) -> bool {
    headers.get_all("sec-fetch-dest").iter().any(|value| ["image", "style", "font"].iter().any(|asset| value == asset))
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nonces_differ_over_several_calls_of_the_operating_system() {
        let nonces = Nonces::default();
        let taken: HashSet<_> = (0..600).filter_map(|_| nonces.take()).collect();
        assert_eq!(taken.len(), 600);
        assert!(taken.iter().all(|nonce| nonce.len() == 32));
    }
}
