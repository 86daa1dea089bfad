//! Tests of every value in `tests/vectors/cookie-format.json`. A vector that opens must seal to the same value.

use base64::Engine;
use serde_json::Value;

use super::aead::{self, BASE64URL, Head, OpenError, Purpose};
use super::login::{self, Anchor};
use super::payload::{self, OptOut, Payload};
use super::{CookieKey, KeyRing};
use crate::clock::UnixMillis;
use crate::identity::{Identity, IdentityTimes, ResponseKey};

/// The independent implementation in `tests/interop` makes the vectors.
#[test]
fn cookie_format_vectors_open_or_fail_as_recorded() {
    let file: Value = serde_json::from_str(include_str!("../../tests/vectors/cookie-format.json")).unwrap();
    let bytes = base64::prelude::BASE64_STANDARD.decode(file["key_b64"].as_str().unwrap()).unwrap();
    let key = CookieKey::of(bytes.try_into().unwrap());
    assert_eq!(key.id(), file["key_id_hex"].as_str().unwrap());
    let keys = KeyRing::from(key);
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 30);
    for vector in vectors {
        let value = vector["value"].as_str().unwrap();
        let keys = keys.keys();
        let name = vector["name"].as_str().unwrap();
        let purpose = if name.contains("-optout.") { Purpose::OptOut } else { Purpose::Identity };
        let opened = Head::read(&keys, value.as_bytes()).map(|head| {
            head.open(purpose, [name.as_bytes(), b""], value.as_bytes(), |plain| match purpose {
                Purpose::OptOut => OptOut::parse(plain).map(|record| (record.login, None, Some(record))),
                _ => Payload::parse(plain).map(|payload| (payload.login, payload.identity(), None)),
            })
        });
        if let Some(outcome) = vector["fails"].as_str() {
            let got = match opened {
                None => "unknown",
                Some(Err(OpenError::Forged)) => "forged",
                Some(Ok(None) | Err(OpenError::Undecodable)) => "undecodable",
                Some(Ok(Some(_))) => "nothing",
            };
            assert_eq!(got, outcome, "{}", vector["note"]);
            continue;
        }
        let (login, identity, record) = opened.unwrap().unwrap().unwrap();
        let holds = if record.is_some() { &vector["opt_out"] } else { &vector["identity"] };
        assert_eq!(BASE64URL.encode(login.lineage.as_bytes()), holds["lineage"].as_str().unwrap());
        match holds["subject_of"].as_str() {
            Some(id) => assert!(login.is_bound_to(id.as_bytes()), "{}", vector["note"]),
            None => assert!(!login.is_bound(), "{}", vector["note"]),
        }
        let (purpose, plain) = match (identity, record) {
            (Some(identity), None) => {
                let expected = |member: &str| holds[member].as_str().unwrap().to_owned();
                let millis = |member: &str| UnixMillis::from_millis(holds[member].as_i64().unwrap());
                let times = IdentityTimes {
                    refresh_from: millis("refresh_from"),
                    identity_expires: millis("identity_expires"),
                    refresh_expires: millis("refresh_expires"),
                };
                let key = ResponseKey::from_base64(&expected("refresh_response_key")).unwrap();
                let refresh_token = expected("refresh_token").into();
                let expected = Identity::unsealed(expected("advertising_token").into(), refresh_token, key, times);
                assert_eq!(Ok(&identity), expected.as_ref(), "{}", vector["note"]);
                (Purpose::Identity, payload::write(&login, &identity).unwrap().to_vec())
            }
            (None, Some(record)) => {
                assert_eq!(record.until.as_millis(), holds["until"].as_i64().unwrap());
                (Purpose::OptOut, record.write())
            }
            other => panic!("{other:?}"),
        };

        let digits = vector["nonce_hex"].as_str().unwrap();
        let nonce = std::array::from_fn(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap());
        assert_eq!(aead::seal(&keys, purpose, [name.as_bytes(), b""], nonce, &plain).as_deref(), Some(value));
    }
}

#[test]
fn anchor_vectors_name_a_login_or_none_as_recorded() {
    let file: Value = serde_json::from_str(include_str!("../../tests/vectors/cookie-format.json")).unwrap();
    let vectors = file["anchors"].as_array().unwrap();
    assert_eq!(vectors.len(), 8);
    for vector in vectors {
        let value = vector["value"].as_str().unwrap();
        let named = match login::parse_anchor(value.as_bytes()) {
            Some(Anchor::Login(lineage)) => {
                login::is_lineage(lineage).then(|| Some(String::from_utf8(lineage.into()).unwrap()))
            }
            Some(Anchor::Ended) => Some(None),
            None => None,
        };
        assert_eq!(named.is_some(), vector["readable"].as_bool().unwrap(), "{value}");
        assert_eq!(named.flatten().as_deref(), vector["lineage"].as_str(), "{value}");
    }
}
