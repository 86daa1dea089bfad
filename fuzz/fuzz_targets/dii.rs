//! Fuzzes email addresses, phone numbers and hashes, and compares the result with a slow implementation of the rules.
//!
//! Input: one byte for the kind, then the text.

#![no_main]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use euid_core::Dii;
use euid_core::error::InvalidDii;
use libfuzzer_sys::{Corpus, fuzz_target};
use sha2::{Digest, Sha256};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&kind, text)) = data.split_first() else { return Corpus::Reject };
    let Ok(text) = std::str::from_utf8(text) else { return Corpus::Reject };
    match kind % 4 {
        0 => email(text),
        1 => phone(text),
        2 => hash(text, Dii::email_hash),
        _ => hash(text, Dii::phone_hash),
    }
    Corpus::Keep
});

fn email(text: &str) {
    let expected = normalized(text);
    assert_eq!(Dii::email(text).ok(), expected.as_deref().map(|text| Dii::email_hash(&sha256(text)).unwrap()));
    if let Some(normal) = expected {
        assert_eq!(Dii::email(&normal), Dii::email(text), "normal is normal");
    }
}

/// Normalizes character by character, as the operator does.
fn normalized(text: &str) -> Option<String> {
    let (mut local, mut of_gmail, mut domain, mut spaces) = (String::new(), String::new(), String::new(), 0);
    let (mut past_at, mut past_plus) = (false, false);
    for character in text.chars() {
        let character = if character.is_ascii_uppercase() { character.to_ascii_lowercase() } else { character };
        match (past_at, character) {
            (false, '@') => past_at = true,
            (true, '@') => return None,
            (false, ' ') => {}
            (true, ' ') => spaces += 1,
            (false, other) => {
                past_plus |= other == '+';
                local.push(other);
                if !past_plus && other != '.' {
                    of_gmail.push(other);
                }
            }
            (true, other) => {
                domain.extend(std::iter::repeat_n(' ', spaces));
                spaces = 0;
                domain.push(other);
            }
        }
    }
    let local = if domain == "gmail.com" { of_gmail } else { local };
    (!local.is_empty() && !domain.is_empty()).then(|| format!("{local}@{domain}"))
}

fn phone(text: &str) {
    let digits = text.chars().skip(1).filter(|character| ('0'..='9').contains(character)).count();
    let is_phone = text.starts_with('+') && digits + 1 == text.chars().count() && (10..=15).contains(&digits);
    assert_eq!(Dii::phone(text).ok(), is_phone.then(|| Dii::phone_hash(&sha256(text)).unwrap()));
}

/// A hash is accepted if decoding and encoding, in base64 or hex, returns the same text. Both forms give the same `Dii`.
fn hash(text: &str, parse: fn(&str) -> Result<Dii, InvalidDii>) {
    let of_base64 = BASE64_STANDARD.decode(text).ok().filter(|bytes| BASE64_STANDARD.encode(bytes) == text);
    let of_hex = || {
        let digits = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<Vec<_>>>()?;
        Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect())
    };
    let bytes = if text.len() == 64 { of_hex() } else { of_base64 };
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes: Vec<u8>| bytes.try_into().ok());
    let dii = parse(text).ok();
    assert_eq!(dii.is_some(), bytes.is_some());
    if let Some(bytes) = bytes {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(dii, parse(&BASE64_STANDARD.encode(bytes)).ok());
        assert_eq!(dii, parse(&hex).ok());
    }
}

fn sha256(text: &str) -> String {
    BASE64_STANDARD.encode(Sha256::digest(text))
}
