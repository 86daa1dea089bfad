//! The advertising token, as a handler gets it, and the note of what the handler did.
//!
//! 1. The token records whether it has been read, so that the response can be kept out of caches.
//! 2. A token from a cookie is packed. The first read unpacks it.
//! 3. Token and note share one allocation, so that the response needs one pointer for both.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use serde::{Serialize, Serializer};

use crate::clock::UnixMillis;
use crate::identity::{Identity, IdentityTimes};
use crate::scope::Scope;
use crate::sealed::aead::BASE64URL;
use crate::transport::route::Route;
use crate::transport::slots::Brought;

/// The current advertising token of a visitor: it goes into the bid request as it is.
///
/// It is opaque: any length, case-sensitive. Do not parse it, and do not compare two to tell people apart,
/// for one person gets many. A read, through [`as_str`](Self::as_str), `Display` or `Serialize`, makes the
/// response `Cache-Control: private, no-cache` with `Vary: Cookie` (or stricter), if it happens before
/// the response head is made. For an app with its state in headers, it is `Vary: Euid-Login` or `Vary: Uid2-Login`.
///
/// `Debug` does not show the token, so that no log holds it by accident.
///
/// ```
/// # use euid_core as tower_euid;
/// # use tower_euid::{AdvertisingToken, Identity};
/// # fn page(token: &AdvertisingToken) -> String {
/// format!("let the bidders know {token}")
/// # }
/// ```
#[derive(Clone)]
pub struct AdvertisingToken(Arc<Noted>);

/// The note of a handler's actions that the response must obey: whether it read the token, and whether it ended the
/// login.
#[derive(Clone)]
pub(crate) struct Note(Arc<Noted>);

/// The allocation that a token and its note share.
struct Noted {
    /// Made from `packed` when it is first read, as many handlers never do. Empty where there is no token.
    text: OnceLock<Box<str>>,
    packed: Packed,
    times: IdentityTimes,
    /// What the response must obey, one bit each.
    marks: AtomicU8,
    /// A number of the host's.
    host_id: AtomicUsize,
    /// What the request brought: the response may remove some of it.
    brought: Brought,
    route: Route,
}

/// The bytes that a text has in base64url, padded with zeros.
struct Packed {
    bytes: [u8; PACKED],
    length: usize,
}

impl AdvertisingToken {
    /// The token whose text is `text`.
    pub(crate) fn new(text: impl Into<Box<str>>, times: IdentityTimes, scope: Scope) -> Self {
        let noted = Noted::new(times, Brought::NOTHING, Route::by_cookies(scope));
        Self(Arc::new(Noted { text: OnceLock::from(text.into()), ..noted }))
    }

    /// The token of an identity in the scope that serves the request.
    pub(crate) fn of(identity: &Identity, scope: Scope) -> Self {
        Self::new(identity.advertising_token(), identity.times(), scope)
    }

    /// The token whose text is `bytes` in base64url; `None` if there are too many of them.
    pub(crate) fn packed(bytes: &[u8], times: IdentityTimes, scope: Scope) -> Option<Self> {
        let mut noted = Arc::new(Noted::new(times, Brought::NOTHING, Route::by_cookies(scope)));
        // Written in their final place, because each move would copy them once more.
        let packed = &mut Arc::get_mut(&mut noted)?.packed;
        packed.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        packed.length = bytes.len();
        Some(Self(noted))
    }

    /// The note in the token's allocation.
    #[inline]
    pub(crate) fn note(&self) -> Note {
        Note(Arc::clone(&self.0))
    }

    /// Notes what the request brought, for the response. Only before a handler has the token.
    #[inline]
    pub(crate) fn set_brought(&mut self, brought: Brought, route: Route) {
        if let Some(noted) = Arc::get_mut(&mut self.0) {
            noted.brought = brought;
            noted.route = route;
        }
    }

    /// The token, to be passed on verbatim. This counts as a read.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{AdvertisingToken, Identity};
    /// # use tower_euid::identity::IdentityTimes;
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// # let mut request = http::Request::new(());
    /// # request.extensions_mut().insert(AdvertisingToken::from(&identity));
    /// let token = request.extensions().get::<AdvertisingToken>(); // of a visitor who is logged in
    /// assert_eq!(token.map(AdvertisingToken::as_str), Some("E4AAAABl"));
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.mark(READ);
        self.peek()
    }

    /// When the refresh is due and when each token expires. This does not count as a read.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{AdvertisingToken, Identity};
    /// # use tower_euid::identity::IdentityTimes;
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// let token = AdvertisingToken::from(&identity);
    /// assert!(token.times().is_usable(at(1)) && !token.times().is_usable(at(2)));
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn times(&self) -> IdentityTimes {
        self.0.times
    }

    /// The scope of the token, which decides the `source` of its [`Eid`](crate::openrtb::Eid).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::{AdvertisingToken, Scope};
    ///
    /// /// The deals that this token's buyers know.
    /// fn deals(token: &AdvertisingToken) -> &'static [&'static str] {
    ///     match token.scope() {
    ///         Scope::Euid => &["eu-1"],
    ///         Scope::Uid2 => &["us-1", "us-2"],
    ///     }
    /// }
    /// # let identity = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs")).1;
    /// # assert_eq!(deals(&AdvertisingToken::from(&identity)), ["eu-1"]);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.0.route.scope().unwrap_or_default()
    }

    /// The token, without a mark that it has been read: for a host that hands it on and learns only from the response
    /// whether it was used. Such a host must then call [`as_str`](Self::as_str), or the response may be cached.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let identity = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs")).1;
    /// use http::{HeaderMap, HeaderValue};
    /// use tower_euid::AdvertisingToken;
    ///
    /// # let mut response = HeaderMap::new();
    /// let token = AdvertisingToken::from(&identity);
    /// let handed_on = HeaderValue::try_from(token.peek())?;
    /// // A server in another process has answered:
    /// if !response.contains_key("x-token-unused") {
    ///     token.as_str();
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn peek(&self) -> &str {
        self.0.text()
    }
}

impl Note {
    /// The note of a request without a token.
    pub(crate) fn without_token(brought: Brought, route: Route) -> Self {
        let never = UnixMillis::from_millis(i64::MIN);
        let times = IdentityTimes { refresh_from: never, identity_expires: never, refresh_expires: never };
        Self(Arc::new(Noted::new(times, brought, route)))
    }

    /// Which scope serves the request, and what carries its state.
    pub(crate) fn route(&self) -> Route {
        self.0.route
    }

    /// What the request brought.
    pub(crate) fn brought(&self) -> &Brought {
        &self.0.brought
    }

    /// The token and its times, if there is one. This does not count as a read.
    pub(crate) fn token(&self) -> Option<(&str, IdentityTimes)> {
        let text = self.0.text();
        (!text.is_empty()).then_some((text, self.0.times))
    }

    /// Whether the token has been read.
    #[inline]
    pub(crate) fn was_read(&self) -> bool {
        self.0.has(READ)
    }

    /// Notes that the visitor's login has ended.
    pub(crate) fn log_out(&self) {
        self.0.mark(LOGGED_OUT);
    }

    #[inline]
    pub(crate) fn was_logged_out(&self) -> bool {
        self.0.has(LOGGED_OUT)
    }

    /// Notes that a layer further in keeps the token from the handler.
    pub(crate) fn withhold(&self) {
        self.0.mark(WITHHELD);
    }

    #[inline]
    pub(crate) fn was_withheld(&self) -> bool {
        self.0.has(WITHHELD)
    }

    /// Notes that the response removes the identity.
    #[inline]
    pub(crate) fn forget_identity(&self) {
        self.0.mark(FORGETS);
    }

    #[inline]
    pub(crate) fn forgets_identity(&self) -> bool {
        self.0.has(FORGETS)
    }

    /// Whether nothing has been noted that the response must follow.
    #[inline]
    pub(crate) fn is_blank(&self) -> bool {
        self.0.marks.load(Ordering::Relaxed) == 0
    }

    /// Sets the host's number.
    #[inline]
    pub(crate) fn set_host_id(&self, number: usize) {
        self.0.host_id.store(number, Ordering::Relaxed);
    }

    pub(crate) fn host_id(&self) -> usize {
        self.0.host_id.load(Ordering::Relaxed)
    }
}

impl Noted {
    /// The note of a request without a token.
    fn new(times: IdentityTimes, brought: Brought, route: Route) -> Self {
        Self {
            text: OnceLock::new(),
            packed: Packed { bytes: [0; PACKED], length: 0 },
            times,
            marks: AtomicU8::new(0),
            host_id: AtomicUsize::new(0),
            brought,
            route,
        }
    }

    fn mark(&self, mark: u8) {
        // A load is cheaper than a write that other threads notice.
        if !self.has(mark) {
            self.marks.fetch_or(mark, Ordering::Relaxed);
        }
    }

    #[inline]
    fn has(&self, mark: u8) -> bool {
        self.marks.load(Ordering::Relaxed) & mark != 0
    }

    fn text(&self) -> &str {
        self.text.get_or_init(|| self.packed.text())
    }
}

impl Packed {
    fn text(&self) -> Box<str> {
        let mut text = [0; PACKED.div_ceil(3) * 4];
        // Encodes the zeros too: the last bytes of a text take slower code.
        let encoded = BASE64URL.encode_slice(self.bytes, &mut text).ok();
        let text = encoded.and_then(|_| text.get(..(self.length * 4).div_ceil(3)));
        text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default().into()
    }
}

/// For the response of a login, whose handler got no token, and for tests of handlers that get one. A
/// read of it has no effect on the response; no cache stores the response of a login anyway. Its scope is
/// [that of the identity](Identity::scope), or EUID if the identity does not tell.
impl From<&Identity> for AdvertisingToken {
    fn from(identity: &Identity) -> Self {
        Self::of(identity, identity.scope().unwrap_or_default())
    }
}

impl fmt::Display for AdvertisingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for AdvertisingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdvertisingToken").field("times", &self.0.times).finish_non_exhaustive()
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Note").field("logged_out", &self.was_logged_out()).finish_non_exhaustive()
    }
}

impl Serialize for AdvertisingToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The handler has read the token.
const READ: u8 = 1;
/// The visitor's login has ended.
const LOGGED_OUT: u8 = 2;
/// A layer further in keeps the token from the handler.
const WITHHELD: u8 = 4;
/// The response removes the identity, whatever the handler does.
const FORGETS: u8 = 8;
/// Room for the 164 bytes of a token as the operator issues it. base64 takes 24 bytes at once, if 8 more follow: 7 × 24 + 8.
const PACKED: usize = 176;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_notes_every_kind_of_read_and_nothing_else() {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        let reads: [fn(&AdvertisingToken); 3] = [
            |token| assert_eq!(token.as_str(), "t"),
            |token| drop(token.to_string()),
            |token| drop(serde_json::to_string(token).unwrap()),
        ];
        for read in reads {
            let token = AdvertisingToken::new("t", times, Scope::Euid);
            let note = token.note();
            let _ = (format!("{token:?} {note:?}"), token.times(), token.clone());
            assert_eq!(note.token(), Some(("t", times)));
            assert!(note.is_blank());
            read(&token.clone());
            assert!(note.was_read() && !note.is_blank());
        }
        assert_eq!(Note::without_token(Brought::NOTHING, Route::by_cookies(Scope::Euid)).token(), None);
    }
}
