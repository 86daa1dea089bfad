//! TC strings of any bytes: the reader's verdict is the one of a slow model.
//!
//! Input: one byte that says whether text or bits follow; then the text, or bytes that are encoded
//! between dots.

#![no_main]

// The model is one of the layer's tests too, and names the layer.
extern crate euid_core as tower_euid;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use euid_core::tcf::judge;
use libfuzzer_sys::{Corpus, fuzz_target};

#[path = "../../tests/tcf/model.rs"]
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
