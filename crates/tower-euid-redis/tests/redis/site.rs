//! A site whose layer keeps identities on a server.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use euid_sandbox::{Sandbox, Visitor, VisitorState};
use http::{Request, Response};
use tokio::sync::Mutex;
use tower::{Layer, service_fn};
use tower_euid::clock::{Clock, ManualClock};
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{CookieKey, Euid, EuidLayer, EuidUpdate, KeyRing, Refreshed, refresh_fn};
use tower_euid_redis::RedisStore;

use crate::PATIENT;

pub(crate) struct Site {
    pub(crate) clock: ManualClock,
    /// A refresh waits while a test holds it.
    pub(crate) operator: Arc<Mutex<()>>,
    keys: KeyRing,
    sandbox: Sandbox,
    /// A layer of the site without a store.
    plain: EuidLayer,
    /// How many identities there are so far.
    issued: Arc<AtomicU8>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::builder().build().unwrap();
        let keys = KeyRing::from(CookieKey::generate().unwrap());
        let plain = EuidLayer::new(keys.clone(), refresh_fn(|_| pending())).clock(sandbox.clock());
        Self { clock: sandbox.clock(), operator: Arc::default(), keys, sandbox, plain, issued: Arc::default() }
    }

    /// A node that waits long for its store.
    pub(crate) fn node(&self, store: RedisStore) -> EuidLayer {
        let (clock, issued, operator) = (self.clock.clone(), Arc::clone(&self.issued), Arc::clone(&self.operator));
        let refresh = refresh_fn(move |_| {
            let identity = identity(issued.fetch_add(1, Ordering::Relaxed), &clock);
            let operator = Arc::clone(&operator);
            async move {
                let _ = operator.lock().await;
                Ok(Refreshed::Identity(identity))
            }
        });
        let layer = EuidLayer::new(self.keys.clone(), refresh).clock(self.clock.clone()).refresh_jitter(Duration::ZERO);
        layer.max_wait(PATIENT).store(store).store_timeout(PATIENT).remember_for(Duration::ZERO)
    }

    /// A login with the next identity.
    pub(crate) fn login(&self) -> EuidUpdate {
        EuidUpdate::login(identity(self.issued.fetch_add(1, Ordering::Relaxed), &self.clock))
    }

    /// Makes all identities due for a refresh.
    pub(crate) fn wait_until_due(&self) {
        self.clock.advance(Duration::from_secs(1800));
    }

    /// A browser without cookies.
    pub(crate) fn browser(&self) -> Visitor {
        self.sandbox.visitor(&self.plain, VisitorState::Absent).unwrap()
    }

    /// The numbers of the identities that there are.
    pub(crate) fn issued(&self) -> std::ops::Range<u8> {
        0..self.issued.load(Ordering::Relaxed)
    }
}

/// Requests a page. Returns the state that its handler sees, with the number of the identity whose token that has, and
/// whether the response sets or removes a cookie.
pub(crate) async fn visit(node: &EuidLayer, browser: &mut Visitor, update: Option<EuidUpdate>) -> (String, bool) {
    let page = service_fn(async |request: Request<Option<EuidUpdate>>| {
        let euid = request.extensions().get::<Euid>().cloned();
        let token = euid.as_ref().and_then(Euid::advertising_token).map(|token| token.as_str().to_owned());
        let number = token.and_then(|token| (0..u8::MAX).find(|number| token == advertising_token(*number)));
        let state = euid.as_ref().map_or("no layer", Euid::state);
        let text = number.map_or(state.to_owned(), |number| format!("{state}({number})"));
        let mut response = Response::new(text);
        if let Some(update) = request.into_body() {
            update.attach(&mut response);
        }
        Ok::<_, Infallible>(response)
    });
    let response = browser.send(&node.layer(page), Request::new(update)).await.unwrap();
    let writes = response.headers().contains_key("set-cookie");
    (response.into_body(), writes)
}

pub(crate) async fn look(node: &EuidLayer, browser: &mut Visitor) -> String {
    visit(node, browser, None).await.0
}

/// The identity of this number, with tokens as long as those of the operator.
fn identity(number: u8, clock: &ManualClock) -> Identity {
    let [refresh_from, identity_expires, refresh_expires] =
        [900, 3600, 86_400].map(|seconds| clock.now().saturating_add(Duration::from_secs(seconds)));
    let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
    let refresh_token = BASE64_STANDARD.encode(refresh_token(number));
    Identity::new(advertising_token(number), refresh_token.into(), response_key(number).into(), times).unwrap()
}

pub(crate) fn advertising_token(number: u8) -> String {
    BASE64_STANDARD.encode(bytes::<164>(number, 1))
}

pub(crate) fn refresh_token(number: u8) -> [u8; 291] {
    bytes(number, 2)
}

pub(crate) fn response_key(number: u8) -> [u8; 32] {
    bytes(number, 3)
}

/// Bytes that look random and differ for each number and kind.
fn bytes<const N: usize>(number: u8, kind: u8) -> [u8; N] {
    let mut state = u64::from(number) * 256 + u64::from(kind);
    std::array::from_fn(|_| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()[0]
    })
}
