//! The state that a publisher without the layer keeps: the operator's answer, unchanged.

use serde::{Deserialize, Serialize};
use tower_euid::clock::{Clock, SystemClock};

#[derive(Deserialize, Serialize)]
pub struct TokenPair {
    advertising_token: String,
    refresh_token: String,
    refresh_response_key: String,
    refresh_from: i64,
    identity_expires: i64,
    refresh_expires: i64,
}

impl TokenPair {
    /// Returns a fresh pair with tokens of the operator's sizes.
    pub fn fresh() -> Self {
        let now = SystemClock.now().as_millis();
        Self {
            advertising_token: "Ab3_".repeat(54) + "Abc",
            refresh_token: "Ab3/".repeat(97),
            refresh_response_key: "Ab3/".repeat(10) + "AbA=",
            refresh_from: now + 900_000,
            identity_expires: now + 3_600_000,
            refresh_expires: now + 86_400_000,
        }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap()
    }

    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns the token for the bid request, unless it has expired.
    pub fn usable_token(self) -> Option<String> {
        (SystemClock.now().as_millis() < self.identity_expires).then_some(self.advertising_token)
    }
}
