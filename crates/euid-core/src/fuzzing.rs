//! The interface of the fuzz targets in `fuzz/`: private functions behind public types. It exists under `--cfg fuzzing`
//! alone.

use serde_json::{Map, Value};

use crate::clock::UnixMillis;
pub use crate::engine::fuzzing::{Opened, Scan, Site, Write, rewrite};
use crate::error::EuidError;
use crate::identity::Identity;
use crate::outcome::{Generated, Refreshed};
use crate::protocol::answer::{self, Answer, Sent};
use crate::protocol::envelope::{gcm_seal, seal_request};
use crate::protocol::operator::{OpenedRequest, RequestError, open_request, open_request_text, seal_response};

/// A call to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Generate,
    Refresh,
    Validate,
}

/// The outcome of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Identity(Identity),
    OptedOut,
    InsufficientConsent,
    Valid(bool),
}

/// Reads an answer of the operator.
pub fn understand(
    endpoint: Endpoint,
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Outcome, EuidError> {
    let sent = Sent { noun: "the input", values: [None; 4], api_key: None };
    let answer = Answer { status, content_type, retry_after: None, body, sent };
    let open = || answer::open(answer, &KEY, NONCE).map(|(_, json)| json);
    match endpoint {
        Endpoint::Generate => answer::generated(&open()?).map(|generated| match generated {
            Generated::Identity(identity) => Outcome::Identity(identity),
            Generated::OptedOut => Outcome::OptedOut,
            Generated::InsufficientConsent => Outcome::InsufficientConsent,
        }),
        Endpoint::Refresh => answer::refreshed(answer, &KEY.into()).map(|refreshed| match refreshed {
            Refreshed::Identity(identity) => Outcome::Identity(identity),
            Refreshed::OptedOut => Outcome::OptedOut,
        }),
        Endpoint::Validate => answer::validated(&open()?).map(Outcome::Valid),
    }
}

/// The envelope in which the operator answers `json`.
#[must_use]
pub fn seal_answer(endpoint: Endpoint, json: &[u8]) -> Vec<u8> {
    match endpoint {
        Endpoint::Refresh => gcm_seal(&KEY, IV, json),
        Endpoint::Generate | Endpoint::Validate => seal_response(&KEY, IV, NOW, NONCE, json),
    }
}

/// The body of a request with `json`.
#[must_use]
pub fn ask(json: &[u8]) -> Vec<u8> {
    seal_request(&KEY, IV, NOW, NONCE, json)
}

/// Reads a body of bytes, as the operator does.
pub fn receive(body: &[u8]) -> Result<Option<Map<String, Value>>, Refused> {
    open_request(&KEY, NOW, body).map(payload).map_err(Refused)
}

/// Reads a body of text, as the operator does.
pub fn receive_text(body: &[u8]) -> Result<Option<Map<String, Value>>, Refused> {
    open_request_text(&KEY, NOW, body).map(payload).map_err(Refused)
}

fn payload(opened: OpenedRequest) -> Option<Map<String, Value>> {
    assert_eq!(opened.nonce, NONCE);
    opened.payload
}

/// Why a request was not read.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(RequestError);

impl Refused {
    /// Whether it opened, but holds no JSON object.
    #[must_use]
    pub fn is_bad_json(&self) -> bool {
        self.0 == RequestError::BadJson
    }
}

const KEY: [u8; 32] = [0x5a; 32];
const IV: [u8; 12] = [7; 12];
const NONCE: [u8; 8] = [9; 8];
const NOW: UnixMillis = UnixMillis::from_millis(1_735_689_600_000);
