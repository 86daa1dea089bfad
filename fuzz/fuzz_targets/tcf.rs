//! Fuzzes TC strings: the reader's verdict equals that of a slow model.
//!
//! Input: one byte for the kind; then the text, or the bytes of segments, which are encoded and joined by dots.

#![no_main]

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use euid_core::tcf::judge;
use libfuzzer_sys::{Corpus, fuzz_target};

#[path = "../../crates/euid-core/tests/tcf/model.rs"]
mod model;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&kind, rest)) = data.split_first() else { return Corpus::Reject };
    let text = if kind % 2 == 0 {
        rest.to_vec()
    } else {
        let segments = rest.split(|byte| *byte == b'.').map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes));
        segments.collect::<Vec<_>>().join(".").into_bytes()
    };
    assert_eq!(judge(&text), model::judge(&text));
    Corpus::Keep
});
