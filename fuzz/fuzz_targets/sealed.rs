//! Fuzzes a sealed value, and the plaintext in it.
//!
//! Input: one byte for the kind. After 0, a sealed value follows. After 1 or 2, two bytes for the bit to flip follow, then
//! the plaintext of an identity (1) or of the record of an opt-out (2).

#![no_main]

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use euid_core::CookieConfig;
use euid_core::fuzzing::{Opened, Site, rewrite};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus {
    match data {
        [0, value @ ..] => any_value(value),
        [opt_out @ (1 | 2), a, b, plain @ ..] => any_plaintext(*opt_out == 2, u16::from_be_bytes([*a, *b]), plain),
        _ => Corpus::Reject,
    }
});

/// Any value: reading does not panic, and a value that opens is canonical base64url.
fn any_value(value: &[u8]) -> Corpus {
    let Ok(value) = std::str::from_utf8(value) else { return Corpus::Reject };
    if value.contains(';') || value.trim() != value {
        return Corpus::Reject;
    }
    let Some(opened) = read(false, value, LINEAGE) else { return Corpus::Reject };
    let encodes = |bytes: Vec<u8>| BASE64_URL_SAFE_NO_PAD.encode(bytes) == value;
    assert!(opened.is_none() || BASE64_URL_SAFE_NO_PAD.decode(value).is_ok_and(encodes));
    Corpus::Keep
}

/// Any plaintext: one that is read round-trips through the writer, in at most as many bytes, and does not open with a bit
/// flipped.
fn any_plaintext(opt_out: bool, bit: u16, plain: &[u8]) -> Corpus {
    let mut plain = plain.to_vec();
    // The first three bytes of a lineage are its tag, with which the value is sealed.
    if let Some(tag) = plain.get_mut(1..4) {
        tag.copy_from_slice(&SEALED_TAG);
    }
    let plain = &plain[..];
    let Some(value) = site().seal(opt_out, [9; 24], plain) else { return Corpus::Reject };
    let Some((lineage, written)) = rewrite(opt_out, plain) else {
        // The plaintext has no valid lineage, so try the bytes at the lineage's place.
        let lineage = plain.get(1..17).map_or([0; 16], |bytes| bytes.try_into().unwrap());
        assert_eq!(read(opt_out, &value, lineage).flatten(), None);
        return Corpus::Keep;
    };
    assert!(written.len() <= plain.len());
    assert_eq!(rewrite(opt_out, &written), Some((lineage, written.clone())));
    assert_eq!(rewrite(opt_out, &[plain, &[0]].concat()), None, "a byte too many");
    assert_eq!(rewrite(opt_out, &plain[..plain.len() - 1]), None, "a byte too few");

    // A value larger than a cookie does not open.
    let Some(opened) = read(opt_out, &value, lineage).flatten() else {
        assert!(value.len() > 4096);
        return Corpus::Keep;
    };
    let again = site().seal(opt_out, [9; 24], &written).unwrap();
    assert_eq!(read(opt_out, &again, lineage).flatten().as_ref(), Some(&opened));
    if let Opened::Identity { identity, .. } = &opened {
        let times = identity.times();
        assert!(times.refresh_from <= times.identity_expires && times.identity_expires <= times.refresh_expires);
        assert!(!identity.advertising_token().is_empty() && !identity.refresh_token().expose_secret().is_empty());
    }

    for byte in [0, 15] {
        let mut other = lineage;
        other[byte] ^= 1;
        assert_eq!(read(opt_out, &value, other), Some(None), "another login, with another tag or the same");
    }
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&value).unwrap();
    let bit = usize::from(bit) % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(read(opt_out, &BASE64_URL_SAFE_NO_PAD.encode(&bytes), lineage), Some(None), "bit {bit}");
    Corpus::Keep
}

/// `None` if no header can hold the value.
fn read(opt_out: bool, value: &str, lineage: [u8; 16]) -> Option<Option<Opened>> {
    let anchor = BASE64_URL_SAFE_NO_PAD.encode(lineage);
    let mut headers = HeaderMap::new();
    let name = if opt_out { "__Host-euid-optout" } else { "__Host-euid" };
    let header = format!("{name}.{}={value}; __Host-euid-login={anchor}", &anchor[..4]);
    headers.append(COOKIE, HeaderValue::try_from(header).ok()?);
    Some(site().read(&headers).0)
}

fn site() -> Site {
    Site::new(CookieConfig::default())
}

/// The lineage of the identities in `tests/vectors/cookie-format.json`.
const LINEAGE: [u8; 16] = *b"\x1e\x52\xeb\x97\x74\x9b\x83\x8c\x39\xa6\xf1\x6e\xeb\xca\x6a\x8b";
/// The beginning of the lineage whose tag [`Site::seal`] uses.
const SEALED_TAG: [u8; 3] = [7; 3];
