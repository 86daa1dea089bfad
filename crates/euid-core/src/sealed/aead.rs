//! Seals and opens a cookie value: XAES-256-GCM (C2SP) under a key of the ring.
//!
//! ```text
//! value = base64url without padding of
//!   version(1) = 1 · purpose(1) · key id(4) · nonce(24) · ciphertext · tag(16)
//! associated data = those first six bytes · the exact cookie name
//! ```
//!
//! A random nonce of 192 bits is safe for 2^80 messages. The 96 bits of plain GCM are safe for 2^32, four days of a
//! large publisher. Version, purpose, key and name are authenticated: a value under another name, or made for another
//! purpose, does not open.
//!
//! A value in a store is sealed in the same way, but its bytes are not encoded, and its name is the store's key.

use arrayvec::ArrayVec;
use base64::Engine;
use xaes_256_gcm::aead::AeadInOut;
use xaes_256_gcm::{Nonce, Tag};
use zeroize::Zeroize;

use super::cookie_key::KeyId;
use super::keys::{Keys, RingKey};
pub(crate) use super::text::{BASE64_STANDARD, BASE64URL};

/// The head in base64url.
pub(crate) type HeadText = [u8; HEAD_TEXT];

/// The name of a cookie, in two parts.
pub(crate) type Name<'a> = [&'a [u8]; 2];

/// Random bytes for one message.
pub(crate) type SealNonce = [u8; NONCE];

/// The purpose of a sealed value. A value of another purpose does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    Identity = 1,
    /// The record of an opt-out.
    OptOut = 2,
    /// An identity in a store.
    StoredIdentity = 3,
    /// The end of a login, in a store.
    StoredEnd = 4,
    /// The opt-out of a user, in a store.
    StoredOptOut = 5,
}

/// Why a value under a known key does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The value does not have the text and length of a sealed value.
    Undecodable,
    /// The key does not authenticate the value.
    Forged,
}

/// The characters that an identity sealed under the key of this id begins with.
pub(crate) fn identity_head([a, b, c, d]: KeyId) -> HeadText {
    let mut text = HeadText::default();
    // Six bytes are these eight characters; if not, no value would begin with it.
    let _ = BASE64URL.encode_slice([VERSION, Purpose::Identity as u8, a, b, c, d], &mut text);
    text
}

/// Seals `plain` under the first key; `None` only if there is no key, which can't be, or the message is
/// larger than any cookie.
pub(crate) fn seal(keys: &Keys, purpose: Purpose, name: Name<'_>, nonce: SealNonce, plain: &[u8]) -> Option<String> {
    Some(BASE64URL.encode(&seal_bytes(keys, purpose, name, nonce, plain)?))
}

/// Does the same, without the encoding.
pub(crate) fn seal_bytes(
    keys: &Keys,
    purpose: Purpose,
    name: Name<'_>,
    nonce: SealNonce,
    plain: &[u8],
) -> Option<Vec<u8>> {
    let key = keys.first()?;
    let [a, b, c, d] = key.id;
    let head = [VERSION, purpose as u8, a, b, c, d];
    let mut bytes = Vec::with_capacity(OVERHEAD + plain.len());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(plain);
    let (_, message) = bytes.split_at_mut_checked(HEAD + NONCE)?;
    let aad = associated_data(head, name)?;
    let tag = key.cipher.encrypt_inout_detached(&Nonce::from(nonce), &aad, message.into()).ok()?;
    bytes.extend_from_slice(&tag);
    Some(bytes)
}

/// The first six bytes of a value: its purpose, and the known key that it claims.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    purpose: u8,
    key: &'a RingKey,
}

impl<'a> Head<'a> {
    /// Reads the first eight characters alone. `None` if this node can't judge the value: another version, an
    /// unknown key, or nothing that has a version and a key. A node that knows more may be able to read it.
    pub(crate) fn read(keys: &'a Keys, value: &[u8]) -> Option<Self> {
        let text = value.first_chunk::<HEAD_TEXT>()?;
        // Usually the text of the head is that of an identity under a known key, which needs no decoding.
        if let Some(key) = keys.find_by_head(text) {
            return Some(Self { purpose: Purpose::Identity as u8, key });
        }
        let mut head = [0; HEAD];
        (BASE64URL.decode_slice(text, &mut head) == Ok(HEAD)).then_some(())?;
        let [version, purpose, id @ ..] = head;
        (version == VERSION).then(|| keys.find(id))?.map(|key| Self { purpose, key })
    }

    /// Reads the first six bytes of a value that is not encoded; `None` as [`read`](Self::read).
    pub(crate) fn read_bytes(keys: &'a Keys, value: &[u8]) -> Option<Self> {
        let &[version, purpose, ref id @ ..] = value.first_chunk::<HEAD>()?;
        (version == VERSION).then(|| keys.find(*id))?.map(|key| Self { purpose, key })
    }

    /// Whether the value claims this purpose.
    pub(crate) fn is_for(self, purpose: Purpose) -> bool {
        self.purpose == purpose as u8
    }

    pub(crate) fn key_id(self) -> KeyId {
        self.key.id
    }

    /// Opens `value`, from which this was read, and passes the plaintext to `read`. The plaintext lives on the stack
    /// and is wiped afterwards.
    pub(crate) fn open<T>(
        self,
        purpose: Purpose,
        name: Name<'_>,
        value: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, OpenError> {
        if self.purpose != purpose as u8 {
            return Err(OpenError::Forged);
        }
        // A buffer is zeroed before it is filled, so the usual cookie gets one of its size.
        if value.len() <= USUAL_TEXT {
            self.open_in(&mut [0; USUAL_BYTES], name, value, read)
        } else {
            self.open_in(&mut [0; MAX_BYTES], name, value, read)
        }
    }

    fn open_in<T>(
        self,
        buffer: &mut [u8],
        name: Name<'_>,
        value: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, OpenError> {
        let length = BASE64URL.decode_slice(value, buffer).map_err(|_| OpenError::Undecodable)?;
        let bytes = buffer.get_mut(..length).ok_or(OpenError::Undecodable)?;
        self.open_bytes(bytes, name, read)
    }

    /// Opens a value that is not encoded, in its own place. Its plaintext is wiped afterwards. The caller has checked its
    /// [purpose](Self::is_for).
    #[inline]
    pub(crate) fn open_bytes<T>(
        self,
        bytes: &mut [u8],
        name: Name<'_>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, OpenError> {
        let (head, rest) = bytes.split_first_chunk_mut::<HEAD>().ok_or(OpenError::Undecodable)?;
        let (nonce, rest) = rest.split_first_chunk_mut::<NONCE>().ok_or(OpenError::Undecodable)?;
        let (message, tag) = rest.split_last_chunk_mut::<TAG>().ok_or(OpenError::Undecodable)?;
        let aad = associated_data(*head, name).ok_or(OpenError::Undecodable)?;
        let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
        self.key
            .cipher
            .decrypt_inout_detached(&nonce, &aad, (&mut *message).into(), &tag)
            .map_err(|_| OpenError::Forged)?;
        let result = read(message);
        message.zeroize();
        Ok(result)
    }
}

/// The head and the name, on the stack; `None` for a name that is longer than any of this crate.
#[inline]
fn associated_data(head: [u8; HEAD], [first, last]: Name<'_>) -> Option<ArrayVec<u8, { HEAD + MAX_NAME }>> {
    let mut bytes = ArrayVec::new();
    bytes.try_extend_from_slice(&head).ok()?;
    bytes.try_extend_from_slice(first).ok()?;
    bytes.try_extend_from_slice(last).ok()?;
    Some(bytes)
}

const VERSION: u8 = 1;
const HEAD: usize = 6;
/// The head in base64url: six bytes are eight characters, so it can be read alone.
const HEAD_TEXT: usize = 8;
const NONCE: usize = 24;
const TAG: usize = 16;
const OVERHEAD: usize = HEAD + NONCE + TAG;
const MAX_NAME: usize = 32;
/// Of 4096 characters of base64url.
const MAX_BYTES: usize = 3072;
/// The length that a real pair's cookie stays below, and what it decodes to at most.
const USUAL_TEXT: usize = 1024;
const USUAL_BYTES: usize = USUAL_TEXT / 4 * 3;

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use shake::digest::{ExtendableOutput, Update, XofReader};
    use xaes_256_gcm::Xaes256Gcm;
    use xaes_256_gcm::aead::KeyInit;

    use super::*;
    use crate::sealed::{CookieKey, KeyRing};

    const NAME: Name<'static> = [b"na", b"me"];

    fn ring() -> KeyRing {
        CookieKey::of(std::array::from_fn(|i| i as u8 ^ 0x5a)).into()
    }

    fn sealed(plain: &[u8]) -> String {
        seal(&ring().keys(), Purpose::Identity, NAME, [9; 24], plain).unwrap()
    }

    /// Opens `value`; `None` if the ring does not have the key of its head.
    fn opened_by(ring: &KeyRing, purpose: Purpose, name: &str, value: &[u8]) -> Option<Result<Vec<u8>, OpenError>> {
        let keys = ring.keys();
        Some(Head::read(&keys, value)?.open(purpose, [b"", name.as_bytes()], value, <[u8]>::to_vec))
    }

    fn opened(name: &str, value: &str) -> Option<Result<Vec<u8>, OpenError>> {
        opened_by(&ring(), Purpose::Identity, name, value.as_bytes())
    }

    #[test]
    fn sealed_value_opens() {
        for length in [0, 1, 500, 3026] {
            let plain = vec![0xa5; length];
            assert_eq!(opened("name", &sealed(&plain)), Some(Ok(plain)));
        }
    }

    #[test]
    fn buffer_constants_match_the_sealed_and_decoded_lengths() {
        let sealed = BASE64URL.decode(sealed(&[0; 500])).unwrap();
        assert_eq!(sealed.len(), OVERHEAD + 500);
        for (bytes, text) in [(USUAL_BYTES, USUAL_TEXT), (MAX_BYTES, 4096)] {
            assert_eq!(BASE64URL.encode(vec![0; bytes]).len(), text);
        }
    }

    #[test]
    fn key_ring_finds_new_and_old_keys_by_the_first_characters_of_an_identity() {
        let older = CookieKey::generate().unwrap();
        let ring = KeyRing::new([CookieKey::generate().unwrap(), older.clone()]).unwrap();
        for sealing in [ring.clone(), older.into()] {
            let value = seal(&sealing.keys(), Purpose::Identity, NAME, [9; 24], b"x").unwrap();
            let keys = ring.keys();
            let found = keys.find_by_head(value.as_bytes().first_chunk().unwrap());
            assert_eq!(found.map(|key| key.id), sealing.keys().first().map(|key| key.id));
        }
    }

    #[test]
    fn value_sealed_for_one_purpose_does_not_open_for_another() {
        for (purpose, other) in [(Purpose::Identity, Purpose::OptOut), (Purpose::OptOut, Purpose::Identity)] {
            let value = seal(&ring().keys(), purpose, NAME, [9; 24], b"x").unwrap();
            let opened = |purpose, value: &str| opened_by(&ring(), purpose, "name", value.as_bytes());
            assert_eq!(opened(purpose, &value), Some(Ok(b"x".to_vec())));
            assert_eq!(opened(other, &value), Some(Err(OpenError::Forged)));
            let mut bytes = BASE64URL.decode(&value).unwrap();
            bytes[1] = other as u8;
            for requested in [purpose, other] {
                assert_eq!(opened(requested, &BASE64URL.encode(&bytes)), Some(Err(OpenError::Forged)));
            }
        }
    }

    #[test]
    fn value_with_a_flipped_bit_does_not_open() {
        let value = sealed(b"some plaintext");
        let bytes = BASE64URL.decode(&value).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let outcome = opened("name", &BASE64URL.encode(&flipped));
            let head_names_no_key = bit < 8 || (16..48).contains(&bit);
            let expected = if head_names_no_key { None } else { Some(Err(OpenError::Forged)) };
            assert_eq!(outcome, expected, "bit {bit}");
        }
    }

    #[test]
    fn truncated_value_or_other_cookie_name_does_not_open() {
        let value = sealed(b"some plaintext");
        for length in 0..value.len() {
            let outcome = opened("name", &value[..length]);
            assert!(!matches!(outcome, Some(Ok(_))), "{length}");
            assert_eq!(outcome.is_none(), length < HEAD_TEXT, "{length}");
        }
        assert_eq!(opened("other", &value), Some(Err(OpenError::Forged)));
        assert_eq!(opened("name", &format!("{value}AAAA")), Some(Err(OpenError::Forged)));
        assert_eq!(opened("name", &format!("{value}=")), Some(Err(OpenError::Undecodable)));
    }

    #[test]
    fn value_larger_than_a_cookie_is_not_decoded() {
        let value = sealed(b"") + &"A".repeat(5000);
        assert_eq!(opened("name", &value), Some(Err(OpenError::Undecodable)));
    }

    #[test]
    fn key_ring_without_the_key_makes_no_judgement() {
        let other = KeyRing::from(CookieKey::generate().unwrap());
        assert_eq!(opened_by(&other, Purpose::Identity, "name", sealed(b"x").as_bytes()), None);
    }

    fn xaes(key: &[u8], nonce: &[u8], aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let cipher = Xaes256Gcm::new(key.try_into().unwrap());
        let nonce = Nonce::try_from(nonce).unwrap();
        let mut message = plain.to_vec();
        let tag = cipher.encrypt_inout_detached(&nonce, aad, message.as_mut_slice().into()).unwrap();
        let mut back = message.clone();
        cipher.decrypt_inout_detached(&nonce, aad, back.as_mut_slice().into(), &tag).unwrap();
        assert_eq!(back, plain);
        message.extend_from_slice(&tag);
        message
    }

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn cipher_gives_the_vectors_of_the_specification() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        assert_eq!(
            xaes(&[1; 32], nonce, b"", b"XAES-256-GCM"),
            hex("ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271")
        );
        assert_eq!(
            xaes(&[3; 32], nonce, b"c2sp.org/XAES-256-GCM", b"XAES-256-GCM"),
            hex("986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d")
        );
    }

    #[test]
    fn cipher_gives_the_64_recorded_messages() {
        let file: Value = serde_json::from_str(include_str!("../../tests/vectors/xaes-256-gcm.json")).unwrap();
        let records = file["vectors"].as_array().unwrap();
        assert_eq!(records.len(), 64);
        for record in records {
            let field = |name: &str| hex(record[name].as_str().unwrap());
            let sealed = xaes(&field("key"), &field("nonce"), &field("aad"), &field("plaintext"));
            assert_eq!(sealed, field("ciphertext_and_tag"), "{}", record["i"]);
        }
    }

    #[test]
    fn cipher_gives_the_accumulated_hash_of_ten_thousand_messages() {
        let mut stream = shake::Shake128::default().finalize_xof();
        let mut take = |length: usize| {
            let mut bytes = vec![0; length];
            stream.read(&mut bytes);
            bytes
        };
        let mut accumulated = shake::Shake128::default();
        for _ in 0..10_000 {
            let (key, nonce) = (take(32), take(24));
            let length = take(1)[0];
            let plain = take(length.into());
            let length = take(1)[0];
            let aad = take(length.into());
            accumulated.update(&xaes(&key, &nonce, &aad, &plain));
        }
        let mut hash = [0; 32];
        accumulated.finalize_xof().read(&mut hash);
        assert_eq!(hash.to_vec(), hex("e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"));
    }
}
