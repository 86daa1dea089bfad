//! The API key and the client secret by which an operator knows a publisher.

use http::HeaderValue;
use zeroize::Zeroizing;

use super::BEARER;
use crate::error::{ConfigError, Setting};
use crate::protocol::SANDBOX_API_KEY;
use crate::protocol::envelope::Key;
use crate::scope::Scope;
use crate::secret::key_from_base64;

/// The API key and the client secret that belongs to it.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) api_key: Zeroizing<String>,
    pub(super) client_secret: Zeroizing<String>,
}

impl Credentials {
    /// The `Authorization` header and the key that requests are sealed under.
    pub(super) fn check(&self) -> Result<(HeaderValue, Zeroizing<Key>), ConfigError> {
        let Self { api_key, client_secret } = self;
        let parsed = parse_secret(client_secret).map_err(|error| error.about(Setting::ClientSecret));
        // Old API keys are base64 too, and may have 32 bytes: beside a good secret such a key is fine.
        if parse_secret(api_key).is_ok() && (parsed.is_err() || api_key == client_secret) {
            let also = if Scope::of_api_key(client_secret).is_some() { ", and the secret like an API key" } else { "" };
            let what = format!("the API key looks like a client secret{also}: are the two swapped?");
            return Err(ConfigError::new(what).about(Setting::ApiKey));
        }
        Ok((bearer(api_key).map_err(|error| error.about(Setting::ApiKey))?, parsed?))
    }

    /// Whether they are those of the sandbox, which no real operator accepts.
    pub(super) fn are_of_sandbox(&self) -> bool {
        self.api_key.ends_with(SANDBOX_API_KEY)
    }
}

/// The `Authorization` header for an API key.
fn bearer(api_key: &str) -> Result<HeaderValue, ConfigError> {
    if api_key.is_empty() || !api_key.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'')) {
        return Err(ConfigError::new("the API key is empty, or has characters that no API key has (quotes?)"));
    }
    let mut value = HeaderValue::try_from(format!("{BEARER}{api_key}"))
        .map_err(|_| ConfigError::new("the API key does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn parse_secret(text: &str) -> Result<Zeroizing<Key>, ConfigError> {
    if Scope::of_api_key(text).is_some() {
        return Err(ConfigError::new("the client secret looks like an API key: are the two swapped?"));
    }
    key_from_base64(text, "the client secret")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "EUID-C-T-124-twrEUD.uA4nxeWY3BjqFGbHjkUF8n3r5rL/ppK2StQxul";
    const UID2_KEY: &str = "UID2-C-T-124-twrEUD.uA4nxeWY3BjqFGbHjkUF8n3r5rL/ppK2StQxul";
    const SECRET: &str = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
    /// An API key of the old form. It has the form of a client secret, too.
    const OLD_KEY: &str = "QDEJAFMOjilp4oh2hYyy1WWQJdvBEn81Wcaa32DTrbY=";

    fn check(api_key: &str, secret: &str) -> Result<(), String> {
        let given = |text: &str| Zeroizing::new(text.to_owned());
        let credentials = Credentials { api_key: given(api_key), client_secret: given(secret) };
        credentials.check().map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn credential_errors_name_the_broken_rule_and_not_the_credential() {
        for (api_key, secret) in [(KEY, SECRET), (UID2_KEY, SECRET), (OLD_KEY, SECRET), ("k", SECRET)] {
            assert_eq!(check(api_key, secret), Ok(()));
        }
        let quoted = format!("\"{SECRET}\"");
        let url_safe = SECRET.replace('/', "_");
        for (api_key, secret, complaint) in [
            ("", SECRET, "the API key is empty"),
            ("hunter2\r\nX: y", SECRET, "the API key is empty, or has characters"),
            ("hunter2 ", SECRET, "the API key is empty, or has characters"),
            ("\"hunter2\"", SECRET, "the API key is empty, or has characters that no API key has (quotes?)"),
            ("'hunter2'", SECRET, "the API key is empty, or has characters that no API key has (quotes?)"),
            (
                SECRET,
                KEY,
                "the API key looks like a client secret, and the secret like an API key: are the two swapped",
            ),
            (SECRET, "UID2-hunter2", "the API key looks like a client secret, and the secret like an API key"),
            (SECRET, SECRET, "the API key looks like a client secret: are the two swapped"),
            (SECRET, "hunter2", "the API key looks like a client secret: are the two swapped"),
            (KEY, KEY, "the client secret looks like an API key: are the two swapped"),
            ("k", &quoted, "the client secret has quotes in it"),
            ("k", &url_safe, "the client secret is URL-safe base64, with `-` and `_`"),
            ("k", "hunter2", "the client secret is not standard base64"),
            ("k", "aHVudGVyMg==", "the client secret is not 32 bytes"),
        ] {
            let error = check(api_key, secret).unwrap_err();
            assert!(error.starts_with(complaint), "{complaint}: {error}");
            assert!(!["hunter2", "4/NJL", "twrEUD"].iter().any(|text| error.contains(text)), "{error}");
        }
    }
}
