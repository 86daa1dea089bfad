//! Tokens with the operator's sizes, layouts and encryption.
//!
//! ```text
//! advertising token   id(1) · 80 · master key id(4) · GCM{ expires(8) · created(8) · operator(13)
//!                       · site key id(4) · GCM{ publisher(16) · privacy bits(4) · established(8)
//!                       · refreshed(8) · raw id(33) } }                     219 characters, base64url
//!                                           with a raw id of 32 bytes       218 characters
//! refresh token       scope(1) · refresh key id(4) · GCM{ JSON of response key and inner token }
//!                                                                           388 characters, base64
//!   inner token       id(1) · 70 · refresh key id(4) · GCM{ expires(8) · created(8) · operator(13)
//!                       · publisher(16) · privacy bits(4) · established(8) · id(1) · first-level hash(32) }
//!                                                                           168 characters, base64
//! ```
//!
//! The first byte of each token, and of a raw id of 33 bytes, has the operator's scope in it. Both scopes have the same keys:
//! an operator can open a token of the other scope, and then refuses it.
//!
//! Nothing about an issued token is remembered, and the keys are constants: a token outlives the
//! sandbox that issued it.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use euid_core::Scope;
use euid_core::clock::UnixMillis;
use euid_core::dii::DiiKind;
use euid_core::protocol::{Key, decode_base64, decode_base64_url, open, seal, token_bits};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::person::Person;
use super::random;

/// Issues and opens the tokens of one operator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Issuer {
    pub(crate) scope: Scope,
    /// Raw ids have 33 bytes, not 32: scope and kind come before the hash.
    pub(crate) identity_v3: bool,
}

/// A refresh token and what comes with it.
pub(crate) struct IssuedRefreshToken {
    pub(crate) token: String,
    /// Standard base64.
    pub(crate) response_key: String,
}

/// The content of an inner refresh token.
pub(crate) struct Grant {
    pub(crate) person: Person,
    /// When the person first logged in.
    pub(crate) established: UnixMillis,
    pub(crate) expires: UnixMillis,
}

/// The content of a refresh token.
pub(crate) struct OpenedEnvelope {
    pub(crate) response_key: Key,
    pub(crate) inner_token: String,
}

/// The reason why a refresh token of the right length does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SealedShut {
    BadBase64,
    UnknownKey(i32),
    Aead,
    BadJson,
}

/// A person's id in the bid stream, inside an advertising token.
#[derive(PartialEq, Eq)]
pub(crate) struct RawId(Vec<u8>);

impl Issuer {
    pub(crate) fn raw_id(self, person: &Person) -> RawId {
        // The salts of the two scopes differ.
        let salted = Sha256::new().chain_update(person.first_level_hash()).chain_update(RAW_ID_SALT);
        let hash = salted.chain_update([token_bits(self.scope)]).finalize();
        let scope_and_kind = [self.scope_and_kind(person.kind())];
        RawId([if self.identity_v3 { &scope_and_kind[..] } else { &[] }, &hash].concat())
    }

    pub(crate) fn issue_advertising_token(self, grant: &Grant, now: UnixMillis) -> Result<String, getrandom::Error> {
        let Grant { person, established, expires } = grant;
        let RawId(raw_id) = self.raw_id(person);
        let site_part = [&PUBLISHER[..], &PRIVACY_BITS, &bytes(*established), &bytes(now), &raw_id].concat();
        let site_part = seal(&SITE_KEY.secret, random()?, &site_part);
        let master_part =
            [&bytes(*expires)[..], &bytes(now), &OPERATOR, &SITE_KEY.id.to_be_bytes(), &site_part].concat();
        let master_part = seal(&MASTER_KEY.secret, random()?, &master_part);
        let token = [&[self.id_byte(person.kind()), V4][..], &MASTER_KEY.id.to_be_bytes(), &master_part].concat();
        Ok(BASE64_URL_SAFE_NO_PAD.encode(token))
    }

    /// Wraps the inner token together with the key for the answer to its refresh.
    pub(crate) fn issue_refresh_token(
        self,
        grant: &Grant,
        now: UnixMillis,
    ) -> Result<IssuedRefreshToken, getrandom::Error> {
        let inner_token = self.issue_inner_token(grant, now)?;
        let response_key = BASE64_STANDARD.encode(random::<32>()?);
        let envelope = Envelope { refresh_response_key: &response_key, refresh_token: &inner_token };
        // A struct of two strings has no way to fail.
        let envelope = serde_json::to_vec(&envelope).unwrap_or_default();
        let sealed = seal(&REFRESH_KEY.secret, random()?, &envelope);
        let token =
            BASE64_STANDARD.encode([&[token_bits(self.scope)][..], &REFRESH_KEY.id.to_be_bytes(), &sealed].concat());
        Ok(IssuedRefreshToken { token, response_key })
    }

    fn issue_inner_token(self, grant: &Grant, now: UnixMillis) -> Result<String, getrandom::Error> {
        let Grant { person, established, expires } = grant;
        let plain = [
            &bytes(*expires)[..],
            &bytes(now),
            &OPERATOR,
            &PUBLISHER,
            &PRIVACY_BITS,
            &bytes(*established),
            &[self.id_byte(person.kind())],
            person.first_level_hash(),
        ]
        .concat();
        let sealed = seal(&REFRESH_KEY.secret, random()?, &plain);
        let token = [&[self.id_byte(person.kind()), V3][..], &REFRESH_KEY.id.to_be_bytes(), &sealed].concat();
        Ok(BASE64_STANDARD.encode(token))
    }

    /// `None` if it is not an inner token of this operator, in this scope.
    pub(crate) fn open_inner_token(self, token: &str) -> Option<Grant> {
        let token = decode_base64(token)?;
        let mut token = Fields(&token);
        let [id, version] = token.take()?;
        if version != V3 || token.take()? != REFRESH_KEY.id.to_be_bytes() {
            return None;
        }
        let plain = open(&REFRESH_KEY.secret, token.0)?;
        let mut plain = Fields(&plain);
        let (expires, _created) = (plain.moment()?, plain.moment()?);
        let _operator: [u8; OPERATOR.len()] = plain.take()?;
        let _publisher: [u8; PUBLISHER.len()] = plain.take()?;
        let _privacy_bits: [u8; PRIVACY_BITS.len()] = plain.take()?;
        let established = plain.moment()?;
        // The first byte of the token is outside the encryption.
        if plain.take()? != [id] {
            return None;
        }
        let person = Person::from_parts(self.kind_of(id)?, plain.take()?);
        Some(Grant { person, established, expires })
    }

    fn scope_and_kind(self, kind: DiiKind) -> u8 {
        let kind = match kind {
            DiiKind::Email => 0,
            DiiKind::Phone => 1,
        };
        token_bits(self.scope) | kind << 2
    }

    /// The first byte of V3 and V4 tokens.
    fn id_byte(self, kind: DiiKind) -> u8 {
        self.scope_and_kind(kind) | 3
    }

    /// The kind in a token's first byte; `None` if the token is of the other scope, or not a token.
    fn kind_of(self, id: u8) -> Option<DiiKind> {
        [DiiKind::Email, DiiKind::Phone].into_iter().find(|&kind| self.id_byte(kind) == id)
    }
}

/// `None` if it is not an advertising token of this operator, or of one of the other scope.
pub(crate) fn open_advertising_token(token: &str) -> Option<RawId> {
    let token = decode_base64_url(token)?;
    let mut token = Fields(&token);
    let [id, version] = token.take()?;
    if version != V4 || token.take()? != MASTER_KEY.id.to_be_bytes() {
        return None;
    }
    let master_part = open(&MASTER_KEY.secret, token.0)?;
    let mut master_part = Fields(&master_part);
    let (_expires, _created) = (master_part.moment()?, master_part.moment()?);
    let _operator: [u8; OPERATOR.len()] = master_part.take()?;
    if master_part.take()? != SITE_KEY.id.to_be_bytes() {
        return None;
    }
    let site_part = open(&SITE_KEY.secret, master_part.0)?;
    let mut site_part = Fields(&site_part);
    let _publisher: [u8; PUBLISHER.len()] = site_part.take()?;
    let _privacy_bits: [u8; PRIVACY_BITS.len()] = site_part.take()?;
    let (_established, _refreshed) = (site_part.moment()?, site_part.moment()?);
    // The first byte of the token is outside the encryption. Only a raw id of 33 bytes repeats it.
    match site_part.0 {
        [scope_and_kind, hash @ ..] if hash.len() == HASH && scope_and_kind | 3 != id => None,
        raw_id => Some(RawId(raw_id.to_vec())),
    }
}

/// Opens what [`REFRESH_TOKEN`] characters hold. The first byte, the scope, is not looked at.
pub(crate) fn open_refresh_token(token: &str) -> Result<OpenedEnvelope, SealedShut> {
    let bytes = decode_base64(token).ok_or(SealedShut::BadBase64)?;
    let mut fields = Fields(&bytes);
    let (Some([_scope]), Some(key_id)) = (fields.take(), fields.take()) else {
        return Err(SealedShut::BadBase64);
    };
    let key_id = i32::from_be_bytes(key_id);
    let key = [REFRESH_KEY, MASTER_KEY, SITE_KEY].into_iter().find(|key| key.id == key_id);
    let key = key.ok_or(SealedShut::UnknownKey(key_id))?;
    let json = open(&key.secret, fields.0).ok_or(SealedShut::Aead)?;
    let envelope: Envelope<'_> = serde_json::from_slice(&json).map_err(|_| SealedShut::BadJson)?;
    let response_key = decode_base64(envelope.refresh_response_key).and_then(|key| key.try_into().ok());
    let response_key = response_key.ok_or(SealedShut::BadJson)?;
    Ok(OpenedEnvelope { response_key, inner_token: envelope.refresh_token.to_owned() })
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    refresh_response_key: &'a str,
    refresh_token: &'a str,
}

struct OperatorKey {
    id: i32,
    secret: Key,
}

/// Reads fields of fixed size from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn moment(&mut self) -> Option<UnixMillis> {
        self.take().map(i64::from_be_bytes).map(UnixMillis::from_millis)
    }
}

fn bytes(moment: UnixMillis) -> [u8; 8] {
    moment.as_millis().to_be_bytes()
}

/// The length of every refresh token, in characters.
pub(crate) const REFRESH_TOKEN: usize = 388;

/// The length of a hash, in bytes.
const HASH: usize = 32;

const V3: u8 = 112;
const V4: u8 = 128;

const MASTER_KEY: OperatorKey = OperatorKey { id: 101, secret: *b"tower-euid sandbox: master key 1" };
const REFRESH_KEY: OperatorKey = OperatorKey { id: 102, secret: *b"tower-euid sandbox: refresh key1" };
const SITE_KEY: OperatorKey = OperatorKey { id: 103, secret: *b"tower-euid sandbox: site key 001" };
const RAW_ID_SALT: &[u8] = b"tower-euid sandbox: raw id";

/// Operator's site(4) · type(1) · version(4) · key(4).
const OPERATOR: [u8; 13] = [0; 13];
/// Site id(4), 124 as in the default API key · publisher id(8) · client key id(4).
const PUBLISHER: [u8; 16] = [0, 0, 0, 124, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const PRIVACY_BITS: [u8; 4] = [0, 0, 0, 1];

#[cfg(test)]
mod tests {
    use super::*;
    use euid_core::Dii;

    fn grant(dii: Dii) -> Grant {
        let at = UnixMillis::from_millis;
        Grant { person: dii.into(), established: at(1), expires: at(1_795_371_587_000) }
    }

    fn email() -> Dii {
        Dii::email("user@example.com").unwrap()
    }

    fn phone() -> Dii {
        Dii::phone("+12345678999").unwrap()
    }

    const NOW: UnixMillis = UnixMillis::from_millis(1_795_371_586_000);
    const EUID: Issuer = Issuer { scope: Scope::Euid, identity_v3: true };
    const UID2: Issuer = Issuer { scope: Scope::Uid2, identity_v3: false };

    #[test]
    fn advertising_token_holds_the_raw_id() {
        for (scope, dii, prefix) in [
            (Scope::Euid, email(), "E4AAAABl"),
            (Scope::Euid, phone(), "F4AAAABl"),
            (Scope::Uid2, email(), "A4AAAABl"),
            (Scope::Uid2, phone(), "B4AAAABl"),
        ] {
            for (identity_v3, length) in [(true, 219), (false, 218)] {
                let issuer = Issuer { scope, identity_v3 };
                let token = issuer.issue_advertising_token(&grant(dii), NOW).unwrap();
                assert_eq!(token.len(), length);
                assert!(token.starts_with(prefix), "{token}");
                assert!(open_advertising_token(&token) == Some(issuer.raw_id(&dii.into())));
            }
        }
    }

    #[test]
    fn raw_ids_of_two_people_two_scopes_or_two_lengths_differ() {
        let issuers = Scope::ALL.map(|scope| [true, false].map(|identity_v3| Issuer { scope, identity_v3 }));
        let people: [Person; 2] = [email().into(), phone().into()];
        let of = |issuer: &Issuer| people.map(|person| issuer.raw_id(&person));
        let ids: Vec<RawId> = issuers.as_flattened().iter().flat_map(of).collect();
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(ids.iter().position(|other| other == id), Some(number));
        }
    }

    #[test]
    fn refresh_token_holds_the_inner_token_and_the_response_key() {
        for (issuer, dii, prefix, inner_prefix) in [
            (EUID, email(), "EAAAAG", "E3AAAABm"),
            (EUID, phone(), "EAAAAG", "F3AAAABm"),
            (UID2, email(), "AAAAAG", "A3AAAABm"),
            (UID2, phone(), "AAAAAG", "B3AAAABm"),
        ] {
            let issued = issuer.issue_refresh_token(&grant(dii), NOW).unwrap();
            assert_eq!(issued.token.len(), REFRESH_TOKEN);
            assert!(issued.token.starts_with(prefix), "{}", issued.token);

            let envelope = open_refresh_token(&issued.token).unwrap_or_else(|error| panic!("{error:?}"));
            assert_eq!(BASE64_STANDARD.encode(envelope.response_key), issued.response_key);
            assert_eq!(envelope.inner_token.len(), 168);
            assert!(envelope.inner_token.starts_with(inner_prefix), "{}", envelope.inner_token);

            let opened = issuer.open_inner_token(&envelope.inner_token).unwrap();
            assert!(opened.person == dii.into());
            assert_eq!((opened.established, opened.expires), (grant(dii).established, grant(dii).expires));
        }
    }

    #[test]
    fn refresh_token_with_a_changed_byte_is_refused_unless_it_is_the_scope() {
        let token = BASE64_STANDARD.decode(EUID.issue_refresh_token(&grant(email()), NOW).unwrap().token).unwrap();
        for position in 0..token.len() {
            let mut changed = token.clone();
            changed[position] ^= 1;
            let opened = open_refresh_token(&BASE64_STANDARD.encode(changed)).err();
            match position {
                0 => assert_eq!(opened, None),
                // 102 ^ 1 is the id of another key.
                4 => assert_eq!(opened, Some(SealedShut::Aead)),
                1..4 => assert!(matches!(opened, Some(SealedShut::UnknownKey(_))), "{position}: {opened:?}"),
                _ => assert_eq!(opened, Some(SealedShut::Aead), "{position}"),
            }
        }
    }

    #[test]
    fn token_of_one_kind_does_not_open_as_another() {
        for issuer in [EUID, UID2] {
            let advertising = issuer.issue_advertising_token(&grant(email()), NOW).unwrap();
            let refresh = issuer.issue_refresh_token(&grant(email()), NOW).unwrap().token;
            assert!(open_advertising_token(&refresh).is_none());
            assert!(issuer.open_inner_token(&refresh).is_none());
            assert!(issuer.open_inner_token(&advertising).is_none());
            assert!(issuer.open_inner_token("").is_none() && open_advertising_token("").is_none());
        }
    }

    #[test]
    fn inner_token_does_not_open_in_another_scope_or_as_another_kind() {
        for (issuer, other) in [(EUID, UID2), (UID2, EUID)] {
            let token = issuer.issue_inner_token(&grant(email()), NOW).unwrap();
            assert!(issuer.open_inner_token(&token).is_some());
            assert!(other.open_inner_token(&token).is_none());
            let mut bytes = BASE64_STANDARD.decode(token).unwrap();
            for first in [issuer.id_byte(DiiKind::Phone), other.id_byte(DiiKind::Email)] {
                bytes[0] = first;
                let changed = BASE64_STANDARD.encode(&bytes);
                assert!(issuer.open_inner_token(&changed).is_none());
                assert!(other.open_inner_token(&changed).is_none());
            }
        }
    }
}
