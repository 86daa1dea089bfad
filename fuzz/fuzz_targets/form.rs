//! Fuzzes the forms and queries of the sidecar's API: the fields are those that a slow model finds, and an error shows no
//! value.
//!
//! Input: a form.

#![no_main]
#![allow(dead_code, reason = "the rest of the sidecar uses what this does not")]

use libfuzzer_sys::fuzz_target;

use self::form::{Form, LOGIN};

#[path = "../../crates/euid-sidecar/src/api/form.rs"]
mod form;

fuzz_target!(|data: &[u8]| {
    let expected = model(data);
    match Form::parse(data, &LOGIN, &[]) {
        Ok(mut form) => {
            let found: Vec<_> = LOGIN.iter().filter_map(|name| Some((*name, form.take(name)?.into_owned()))).collect();
            assert_eq!(Some(found), expected);
        }
        Err(refusal) => {
            assert_eq!(expected, None, "{refusal}");
            shows_no_value(&refusal);
        }
    }
    if let Ok(mut form) = Form::parse(data, &LOGIN, &[])
        && let Err(refusal) = form.take_person()
    {
        shows_no_value(&refusal);
    }
});

/// Returns the fields in the order of [`LOGIN`]; `None` if one is unknown, empty, not UTF-8, or comes twice.
fn model(data: &[u8]) -> Option<Vec<(&'static str, String)>> {
    let mut fields = Vec::new();
    for pair in data.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        let mut parts = pair.splitn(2, |&byte| byte == b'=');
        let (name, value) = (decoded(parts.next()?)?, decoded(parts.next().unwrap_or_default())?);
        let place = LOGIN.iter().position(|known| *known == name)?;
        fields.push((place, value));
    }
    fields.sort();
    let is_repeated = fields.windows(2).any(|two| two[0].0 == two[1].0);
    let is_empty = fields.iter().any(|(_, value)| value.is_empty());
    (!is_repeated && !is_empty).then(|| fields.into_iter().map(|(place, value)| (LOGIN[place], value)).collect())
}

/// Decodes a byte at a time.
fn decoded(text: &[u8]) -> Option<String> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut bytes, mut at) = (Vec::new(), 0);
    while let Some(&byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap());
                at += 3;
            }
            _ => {
                bytes.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// No error has one of these letters of its own, and a name that is shown has small ones.
fn shows_no_value(refusal: &str) {
    assert!(!refusal.contains(['J', 'Q', 'Z']), "{refusal}");
}
