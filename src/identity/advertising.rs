//! The advertising token, as a handler gets it.
//!
//! 1. It knows whether it has been read, so that the response can be kept out of caches.
//! 2. Out of a cookie it comes packed, and is put together when it is first read.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use serde::{Serialize, Serializer};

use super::{Identity, IdentityTimes};

/// The current advertising token of a visitor: what goes into the bid request, as it is.
///
/// Opaque: any length, case-sensitive, never parsed, never compared to tell people apart (one
/// person gets many). Reading it, through [`as_str`](Self::as_str), `Display` or `Serialize`, makes
/// the response at least `Cache-Control: private` if it happens before the response head is made.
///
/// `Debug` does not show the token, so that it does not end in logs by accident.
///
/// ```
/// # use tower_euid::{AdvertisingToken, Identity};
/// # fn page(token: &AdvertisingToken) -> String {
/// format!("let the bidders know {token}")
/// # }
/// ```
#[derive(Clone)]
pub struct AdvertisingToken(Arc<Token>);

/// One allocation for the token of a request, until somebody reads it: text, times, whether anybody looked
/// and whether the visitor's login has been ended meanwhile.
struct Token {
    /// Made from `packed` when it is first read, as many handlers never do.
    text: OnceLock<Box<str>>,
    packed: Packed,
    times: IdentityTimes,
    read: AtomicBool,
    logged_out: AtomicBool,
}

/// A text as the bytes that it encodes.
struct Packed {
    bytes: [u8; PACKED],
    length: usize,
    encode: Encode,
}

/// The encoding.
type Encode = fn(&[u8]) -> String;

impl AdvertisingToken {
    pub(crate) fn new(text: impl Into<Box<str>>, times: IdentityTimes) -> Self {
        Self::of(
            OnceLock::from(text.into()),
            Packed { bytes: [0; PACKED], length: 0, encode: |_| String::new() },
            times,
        )
    }

    /// The one whose text `encode` makes of `bytes`.
    pub(crate) fn packed(bytes: &[u8], encode: Encode, times: IdentityTimes) -> Self {
        let (mut packed, length) = ([0; PACKED], bytes.len());
        let Some(room) = packed.get_mut(..length) else { return Self::new(encode(bytes), times) };
        room.copy_from_slice(bytes);
        Self::of(OnceLock::new(), Packed { bytes: packed, length, encode }, times)
    }

    fn of(text: OnceLock<Box<str>>, packed: Packed, times: IdentityTimes) -> Self {
        let (read, logged_out) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Token { text, packed, times, read, logged_out }))
    }

    /// The token, to be passed on verbatim.
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use http::{Request, Response};
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::AdvertisingToken;
    /// # use tower_euid::sandbox::{Sandbox, VisitorState};
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = sandbox.client_and_layer()?;
    /// # let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    /// let page = service_fn(async |request: Request<()>| {
    ///     let token = request.extensions().get::<AdvertisingToken>();
    ///     Ok::<_, std::convert::Infallible>(Response::new(token.map(|token| token.as_str().to_owned())))
    /// });
    /// let response = visitor.send(&layer.layer(page), Request::new(())).await?;
    /// assert!(response.body().is_some());
    /// assert_eq!(response.headers()["cache-control"], "private"); // the token has been read
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.read.store(true, Ordering::Relaxed);
        self.peek()
    }

    /// When it falls due and when it ends. Looking at the times does not count as reading.
    ///
    /// ```
    /// # use tower_euid::{AdvertisingToken, Identity, IdentityTimes};
    /// # let at = tower_euid::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// let token = AdvertisingToken::from(&identity);
    /// assert!(token.times().is_usable(at(1)) && !token.times().is_usable(at(2)));
    /// # Ok::<_, tower_euid::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn times(&self) -> IdentityTimes {
        self.0.times
    }

    /// The token for our own eyes: does not count as reading.
    pub(crate) fn peek(&self) -> &str {
        self.0.text.get_or_init(|| self.0.packed.text())
    }

    /// Whether this token, or a clone of it, has been read.
    pub(crate) fn was_read(&self) -> bool {
        self.0.read.load(Ordering::Relaxed)
    }

    /// Whether nobody has read this token, or a clone of it, or ended the login through it.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.was_read() && !self.logged_out().load(Ordering::Relaxed)
    }

    /// Where it is noted that the login has been ended, with no other allocation than the token's.
    pub(crate) fn logged_out(&self) -> &AtomicBool {
        &self.0.logged_out
    }
}

impl Packed {
    fn text(&self) -> Box<str> {
        (self.encode)(self.bytes.get(..self.length).unwrap_or_default()).into()
    }
}

/// For the response that logs in, whose handler was given no token, and for tests of handlers that
/// are. The layer does not see it being read; what logs in is cached by nobody anyway.
impl From<&Identity> for AdvertisingToken {
    fn from(identity: &Identity) -> Self {
        Self::new(identity.advertising_token(), identity.times())
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

impl Serialize for AdvertisingToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Room for the bytes of a token as the operator gives it, 164.
const PACKED: usize = 168;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    #[test]
    fn every_way_of_reading_a_token_is_noticed_and_nothing_else_is() {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        let reads: [fn(&AdvertisingToken); 3] = [
            |token| assert_eq!(token.as_str(), "t"),
            |token| drop(token.to_string()),
            |token| drop(serde_json::to_string(token).unwrap()),
        ];
        for read in reads {
            let token = AdvertisingToken::new("t", times);
            let _ = (format!("{token:?}"), token.times(), token.clone());
            assert!(!token.was_read());
            read(&token.clone());
            assert!(token.was_read());
        }
    }
}
