//! The cookie of EUID's JavaScript SDK, which the layer can migrate.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tower_euid::CookieConfig;
use tower_euid::clock::UnixMillis;
use tower_euid::identity::{Identity, IdentityTimes};

use super::{DUE, IDENTITY_EXPIRES, Jar, REFRESH_EXPIRES, REFRESH_FROM, SDK, Site, at};

/// Returns an SDK's identity, as JSON.
pub(crate) fn sdk_json(advertising_token: &str, refresh_token: &str) -> String {
    json(advertising_token, refresh_token, [REFRESH_FROM, IDENTITY_EXPIRES, REFRESH_EXPIRES].map(at))
}

/// Returns the SDK's cookie value for an identity whose response key is 32 bytes of 7.
pub(crate) fn sdk_value(identity: &Identity) -> String {
    let IdentityTimes { refresh_from, identity_expires, refresh_expires } = identity.times();
    let times = [refresh_from, identity_expires, refresh_expires];
    encoded(&json(identity.advertising_token(), identity.refresh_token().expose_secret(), times))
}

fn json(advertising_token: &str, refresh_token: &str, times: [UnixMillis; 3]) -> String {
    let [from, expires, refresh] = times.map(UnixMillis::as_millis);
    let key = BASE64_STANDARD.encode([7; 32]);
    format!(
        r#"{{"advertising_token":"{advertising_token}","refresh_token":"{refresh_token}","refresh_response_key":"{key}","refresh_from":{from},"identity_expires":{expires},"refresh_expires":{refresh}}}"#
    )
}

/// Encodes like JavaScript's `encodeURIComponent`.
pub(crate) fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

impl Site {
    /// Lets the site migrate the SDK's cookie.
    pub(crate) fn migrating(self) -> Self {
        self.configured(|layer| layer.cookie(CookieConfig::default().migrate_js_sdk_cookie(None).unwrap()))
    }

    /// Returns a browser whose only cookie is the SDK's, with the token `name`, on this site.
    pub(crate) fn with_sdk_token(&self, name: &str) -> Self {
        let json = sdk_json(name, &format!("refresh-of-{name}"));
        Self { jar: Jar::default().with(SDK, &encoded(&json)), ..self.clone() }
    }

    /// Returns `count` browsers with the SDK's tokens `forged-0`, `forged-1` and so on. Moves the clock to [`DUE`].
    pub(crate) fn due_sdk_visitors(&self, count: usize) -> Vec<Self> {
        self.wait_until(DUE);
        (0..count).map(|number| self.with_sdk_token(&format!("forged-{number}"))).collect()
    }
}
