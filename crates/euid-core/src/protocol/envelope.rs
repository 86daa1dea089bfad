//! The three envelopes, byte by byte.
//!
//! ```text
//! request           01 · IV(12) · AES-256-GCM{ unix ms(8) · nonce(8) · JSON }        client secret
//! response               IV(12) · AES-256-GCM{ unix ms(8) · nonce(8) · JSON }        client secret
//! refresh response       IV(12) · AES-256-GCM{ JSON }                                response key
//! ```
//!
//! 96-bit IV, 128-bit tag, no associated data, integers big-endian. A request carries a version byte,
//! a response none. Time and randomness are arguments. This is the client's half: it seals requests
//! and opens responses. The reverse is in `operator`.

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::clock::UnixMillis;

/// As the operator reads base64: standard alphabet, padding may be missing, no line breaks, stray
/// bits in the last symbol are ignored.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An AES-256 key: a client secret, a response key.
///
/// ```
/// # #[cfg(feature = "operator")] {
/// let key: euid_core::protocol::Key = [1; 32];
/// # }
/// ```
pub type Key = [u8; 32];
/// A GCM initialization vector: fresh random bytes for every message.
///
/// ```
/// # #[cfg(feature = "operator")] {
/// let iv: euid_core::protocol::Iv = [2; 12];
/// # }
/// ```
pub type Iv = [u8; IV];
/// The nonce that ties a response to its request.
///
/// ```
/// # #[cfg(feature = "operator")] {
/// let nonce: euid_core::protocol::RequestNonce = [3; 8];
/// # }
/// ```
pub type RequestNonce = [u8; NONCE];

/// Why an answer does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// A `success` without a body.
    MissingBody,
    /// Not standard base64.
    BadBase64,
    /// Below the minimum length.
    TooShort,
    /// GCM authentication failed.
    Aead,
    /// The response answers another request.
    NonceMismatch,
    /// Authentic, but not the expected JSON object.
    BadJson,
}

/// Seals a request with any JSON, as a client does, for tests of a stand-in operator. Base64 of the result is the body;
/// `iv` is fresh random bytes.
///
/// ```
/// # #[cfg(feature = "operator")] {
/// use euid_core::clock::UnixMillis;
/// use euid_core::protocol::seal_request;
///
/// let request = seal_request(&[1; 32], [2; 12], UnixMillis::from_millis(0), [3; 8], b"{}");
/// assert_eq!(request.len(), 1 + 12 + 16 + 2 + 16);
/// # }
/// ```
#[must_use]
pub fn seal_request(secret: &Key, iv: Iv, sent: UnixMillis, nonce: RequestNonce, json: &[u8]) -> Vec<u8> {
    let sealed = gcm_seal(secret, iv, &stamped(sent, nonce, json));
    let mut envelope = Vec::with_capacity(1 + sealed.len());
    envelope.push(VERSION);
    envelope.extend_from_slice(&sealed);
    envelope
}

/// Opens the response to the request that carried `nonce`: the operator's time, and the JSON. The time
/// is authentic, but decides nothing: no SDK rejects a response for it.
pub fn open_response(
    secret: &Key,
    nonce: RequestNonce,
    envelope: &[u8],
) -> Result<(UnixMillis, Zeroizing<Vec<u8>>), EnvelopeError> {
    let plain = gcm_open(secret, envelope)?;
    let (stamp, answered, json) = unstamped(&plain)?;
    if answered != nonce {
        return Err(EnvelopeError::NonceMismatch);
    }
    Ok((stamp, Zeroizing::new(json.to_vec())))
}

/// `IV · ciphertext · tag`: a refresh response as it is, and the core of the other envelopes.
pub fn gcm_seal(key: &Key, iv: Iv, plain: &[u8]) -> Vec<u8> {
    let ciphertext = Aes256Gcm::new(key.into()).encrypt(&Nonce::from(iv), plain);
    // GCM fails on more than 64 GiB only; an empty message opens nowhere.
    let ciphertext = ciphertext.unwrap_or_default();
    let mut sealed = Vec::with_capacity(IV + ciphertext.len());
    sealed.extend_from_slice(&iv);
    sealed.extend_from_slice(&ciphertext);
    sealed
}

/// The reverse of [`gcm_seal`].
pub fn gcm_open(key: &Key, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let Some((iv, ciphertext)) = sealed.split_first_chunk::<IV>() else {
        return Err(EnvelopeError::TooShort);
    };
    if ciphertext.len() < TAG {
        return Err(EnvelopeError::TooShort);
    }
    let plain = Aes256Gcm::new(key.into()).decrypt(&Nonce::from(*iv), ciphertext);
    plain.map(Zeroizing::new).map_err(|_| EnvelopeError::Aead)
}

pub fn stamped(sent: UnixMillis, nonce: RequestNonce, json: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(STAMP + json.len()));
    plain.extend_from_slice(&sent.as_millis().to_be_bytes());
    plain.extend_from_slice(&nonce);
    plain.extend_from_slice(json);
    plain
}

pub fn unstamped(plain: &[u8]) -> Result<(UnixMillis, RequestNonce, &[u8]), EnvelopeError> {
    let (sent, rest) = plain.split_first_chunk().ok_or(EnvelopeError::TooShort)?;
    let (nonce, json) = rest.split_first_chunk().ok_or(EnvelopeError::TooShort)?;
    Ok((UnixMillis::from_millis(i64::from_be_bytes(*sent)), *nonce, json))
}

pub const VERSION: u8 = 1;
pub const IV: usize = 12;
const NONCE: usize = 8;
/// Time and nonce.
pub const STAMP: usize = 8 + NONCE;
pub const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelope_of_an_empty_message_opens_and_a_shorter_one_does_not() {
        let sealed = gcm_seal(&[1; 32], [2; 12], b"");
        assert_eq!(gcm_open(&[1; 32], &sealed).unwrap().as_slice(), b"");
        for length in 0..sealed.len() {
            assert_eq!(gcm_open(&[1; 32], &sealed[..length]), Err(EnvelopeError::TooShort), "{length}");
        }
    }
}
