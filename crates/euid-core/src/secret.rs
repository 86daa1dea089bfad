//! Reads a configured key of 32 bytes, a client secret or a cookie key, from standard base64.
//!
//! An error names the usual mistakes and never repeats the text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::error::ConfigError;

/// The 32 bytes that `text` encodes. `noun` is the subject of an error: "the client secret".
pub(crate) fn key_from_base64(text: &str, noun: &str) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    let refused = |why: &str| Err(ConfigError::new(format!("{noun} {why}")));
    if text.is_empty() {
        return refused("is empty");
    }
    if text.contains(['"', '\'', '`']) {
        return refused("has quotes in it: give it without them");
    }
    if text.contains(|character: char| character.is_whitespace()) {
        return refused("has a blank or a line end in it");
    }
    if text.contains(['-', '_']) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte)) {
        return refused("is URL-safe base64, with `-` and `_`: give standard base64, with `+` and `/`");
    }
    let Ok(bytes) = BASE64_STANDARD.decode(text).map(Zeroizing::new) else {
        return refused("is not standard base64");
    };
    match <[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(key) => Ok(Zeroizing::new(key)),
        Err(_) => refused(&format!("is not 32 bytes (44 characters of base64): it has {}", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_errors_name_the_usual_mistakes_and_not_the_text() {
        let key = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
        assert!(key_from_base64(key, "the key").is_ok());
        for (text, complaint) in [
            (String::new(), "the key is empty"),
            (format!("\"{key}\""), "the key has quotes in it"),
            (format!("'{key}'"), "the key has quotes in it"),
            (format!("{key} {key}"), "the key has a blank or a line end in it"),
            (format!("{key}\n{key}"), "the key has a blank or a line end in it"),
            (key.replace('/', "_"), "the key is URL-safe base64, with `-` and `_`"),
            (key.replace('/', "-").replace('=', ""), "the key is URL-safe base64, with `-` and `_`"),
            (key.replace('=', ""), "the key is not standard base64"),
            ("EUID-C-T-124.a+b".to_owned(), "the key is not standard base64"),
            ("aHVudGVyMg==".to_owned(), "the key is not 32 bytes (44 characters of base64): it has 7"),
        ] {
            let error = key_from_base64(&text, "the key").unwrap_err().to_string();
            assert!(error.starts_with(complaint), "{error}");
            assert!(!error.contains("4/NJ") && !error.contains("aHVud"), "{error}");
        }
    }
}
