//! The person that a call is about, as the operator reads it, and the people that exist for tests.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use euid_core::Dii;
use euid_core::dii::{DiiKind, parse_hex};
use euid_core::protocol::decode_base64;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The operator's first-level hash of an email address or phone number: what a refresh token holds
/// and opt-outs are kept by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Person {
    kind: DiiKind,
    first_level_hash: [u8; 32],
}

/// The reason why a payload names no person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PersonError {
    /// None of the four members, or more than one.
    NotExactlyOne,
    /// Not an address, number or hash.
    Invalid,
}

/// The special behaviour of a test identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Active, even if opted out.
    Active,
    /// Opted out when an identity is generated.
    OptedOut,
    /// Opted out when the first token is refreshed.
    OptsOutLater,
}

impl Person {
    /// Finds the person by the one identity member of a generate or validate payload. `null` counts as missing; any
    /// other value that is not a string is read as its JSON text, as the operator does.
    pub(crate) fn named_in(payload: &Map<String, Value>) -> Result<Self, PersonError> {
        let named = MEMBERS.iter().filter_map(|(name, read)| Some((payload.get(*name)?, read)));
        let mut named = named.filter(|(value, _)| !value.is_null());
        let (Some((value, read)), None) = (named.next(), named.next()) else {
            return Err(PersonError::NotExactlyOne);
        };
        let person = match value {
            Value::String(text) => read(text),
            other => read(&other.to_string()),
        };
        person.ok_or(PersonError::Invalid)
    }

    pub(crate) fn from_parts(kind: DiiKind, first_level_hash: [u8; 32]) -> Self {
        Self { kind, first_level_hash }
    }

    pub(crate) fn kind(&self) -> DiiKind {
        self.kind
    }

    pub(crate) fn first_level_hash(&self) -> &[u8; 32] {
        &self.first_level_hash
    }

    /// `hash` is of any length: the operator does not check.
    fn hashed(kind: DiiKind, hash: &[u8]) -> Self {
        let salted = BASE64_STANDARD.encode(hash) + FIRST_LEVEL_SALT;
        Self { kind, first_level_hash: Sha256::digest(salted).into() }
    }
}

impl From<Dii> for Person {
    fn from(dii: Dii) -> Self {
        Self::hashed(dii.kind(), dii.hash())
    }
}

/// The operator's test identities, and the two of the 2023 guide that the operator no longer has.
pub(crate) fn test_identities() -> HashMap<Person, Script> {
    let person = |(kind, address, script)| (Person::hashed(kind, &Sha256::digest(address)), script);
    TEST_IDENTITIES.map(person).into()
}

const TEST_IDENTITIES: [(DiiKind, &str, Script); 8] = [
    (DiiKind::Email, "validate@example.com", Script::Active),
    (DiiKind::Email, "optout@example.com", Script::OptedOut),
    (DiiKind::Email, "refresh-optout@example.com", Script::OptsOutLater),
    (DiiKind::Phone, "+12345678901", Script::Active),
    (DiiKind::Phone, "+00000000000", Script::OptedOut),
    (DiiKind::Phone, "+00000000002", Script::OptsOutLater),
    (DiiKind::Email, "validate@email.com", Script::Active),
    (DiiKind::Email, "optout@email.com", Script::OptsOutLater),
];

type Read = fn(&str) -> Option<Person>;

const MEMBERS: [(&str, Read); 4] = [
    ("email", |address| Dii::email(address).ok().map(Person::from)),
    ("email_hash", |hash| loose_hash(DiiKind::Email, hash)),
    ("phone", |number| Dii::phone(number).ok().map(Person::from)),
    ("phone_hash", |hash| loose_hash(DiiKind::Phone, hash)),
];

/// Looser than [`Dii::email_hash`]: 44 characters of base64 may be 31 or 33 bytes, a useless id.
fn loose_hash(kind: DiiKind, text: &str) -> Option<Person> {
    match text.len() {
        44 => decode_base64(text).map(|hash| Person::hashed(kind, &hash)),
        64 => parse_hex(text).map(|hash| Person::hashed(kind, &hash)),
        _ => None,
    }
}

const FIRST_LEVEL_SALT: &str = "tower-euid sandbox: first level";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(payload: Value) -> Result<Person, PersonError> {
        let Value::Object(payload) = payload else { panic!("not an object") };
        Person::named_in(&payload)
    }

    #[test]
    fn person_of_every_normalization_vector_is_the_operators() {
        let file: Value = serde_json::from_str(include_str!("../tests/vectors/normalization.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 144);
        for vector in vectors {
            let member = vector["kind"].as_str().unwrap();
            let person = named(json!({ member: vector["input"] }));
            if vector["valid"] == true {
                let hash = BASE64_STANDARD.decode(vector["hash_base64"].as_str().unwrap()).unwrap();
                let kind = if member.starts_with("email") { DiiKind::Email } else { DiiKind::Phone };
                assert!(person == Ok(Person::hashed(kind, &hash)), "{}", vector["id"]);
            } else {
                assert!(person == Err(PersonError::Invalid), "{}", vector["id"]);
            }
        }
    }

    #[test]
    fn person_member_counts_as_missing_only_if_null() {
        assert!(named(json!({ "email": "a@b", "phone": null })).is_ok());
        assert!(named(json!({ "email": null })) == Err(PersonError::NotExactlyOne));
        assert!(named(json!({ "email": 5 })) == Err(PersonError::Invalid));
        assert!(named(json!({ "email": "a@b", "phone": 5 })) == Err(PersonError::NotExactlyOne));
    }

    #[test]
    fn email_and_phone_with_the_same_hash_are_two_people() {
        assert!(Person::hashed(DiiKind::Email, &[7; 32]) != Person::hashed(DiiKind::Phone, &[7; 32]));
    }
}
