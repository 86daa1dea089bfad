//! Response headers that make a response a logout.

use http::HeaderMap;
use http::header::HeaderName;

use super::Engine;

impl Engine {
    /// Whether a response has a header that may make it a logout, even if the handler asks for no change. For a host
    /// that calls [`finish`](Self::finish) only when it is needed: see [`Watch`](super::Watch).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use http::HeaderMap;
    /// use tower_euid::engine::Engine;
    ///
    /// let mut response = HeaderMap::new();
    /// assert!(!Engine::may_be_logout(&response));
    /// response.insert("clear-site-data", "\"cookies\"".parse()?); // a logout too
    /// assert!(Engine::may_be_logout(&response));
    /// # Ok::<_, http::header::InvalidHeaderValue>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn may_be_logout(headers: &HeaderMap) -> bool {
        headers.contains_key(CLEAR_SITE_DATA)
    }
}

/// Whether the headers of a response tell the browser to end the login.
#[inline]
pub(super) fn is_logout(headers: &HeaderMap) -> bool {
    Engine::may_be_logout(headers) && clears_cookies(headers)
}

/// Whether `Clear-Site-Data` tells the browser to drop all cookies.
fn clears_cookies(headers: &HeaderMap) -> bool {
    headers.get_all(CLEAR_SITE_DATA).iter().any(|value| {
        let mut types = value.as_bytes().split(|&byte| byte == b',');
        types.any(|kind| matches!(kind.trim_ascii(), b"\"cookies\"" | b"\"*\""))
    })
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
