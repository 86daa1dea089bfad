//! Fuzzes what a site commands the sidecar's proxy: a login counts only with the nonce of its request, and names the user
//! that a slow model finds.
//!
//! Input: one byte for the kind; then a header value, or the fields of a login whose nonce is right.

#![no_main]
#![allow(dead_code, reason = "the rest of the sidecar uses what this does not")]

use axum::http::{HeaderMap, HeaderValue};
use libfuzzer_sys::{Corpus, fuzz_target};
use percent_encoding::percent_decode;

use self::command::Command;

#[path = "../../crates/euid-sidecar/src/api"]
mod api {
    pub(crate) mod form;
}
#[path = "../../crates/euid-sidecar/src/proxy/command.rs"]
mod command;

const NONCE: &str = "0123456789abcdef";

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&kind, rest)) = data.split_first() else { return Corpus::Reject };
    let start = if kind % 2 == 0 { String::new() } else { format!("login?nonce={NONCE}&") };
    let Ok(value) = HeaderValue::from_bytes(&[start.as_bytes(), rest].concat()) else { return Corpus::Reject };
    let mut headers = HeaderMap::new();
    headers.insert("euid-command", value.clone());
    let command = Command::read(&headers.get_all("euid-command"), Some(NONCE)).expect("there is one");

    let value = value.as_bytes().trim_ascii();
    let fields: Option<Vec<&[u8]>> =
        value.strip_prefix(b"login?").map(|fields| fields.split(|&byte| byte == b'&').collect());
    let nonces = fields.iter().flatten().filter(|field| field.starts_with(b"nonce="));
    let nonces: Vec<&[u8]> = nonces.map(|field| &field[6..]).collect();
    assert_eq!(matches!(command, Command::Login(_) | Command::Failed(_)), nonces == [NONCE.as_bytes()]);
    if let Command::Login(login) = command {
        let decoded = |text: &[u8]| percent_decode(text).collect::<Vec<u8>>();
        let mut pairs = fields.iter().flatten().filter_map(|field| {
            let at = field.iter().position(|&byte| byte == b'=')?;
            Some((decoded(&field[..at]), decoded(&field[at + 1..])))
        });
        let subject = pairs.find(|(name, _)| name == b"subject").map(|(_, value)| value);
        assert_eq!(login.subject.map(String::into_bytes), subject);
    }
    Corpus::Keep
});
