//! Tests of TC strings: each gets the operator's verdict, and their cookie is found among all others.
//!
//! 1. `tests/vectors/consent.json` has 600 strings with the operator's answers.
//! 2. A slow model reads random strings. The reader must agree with it.
//!    `PROPTEST_CASES=100000 cargo test --release --package euid-core --test tcf` tries more of them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper that fails fails its test")]

mod model;

use std::collections::HashMap;

use euid_core::Consent;
use euid_core::tcf::{self, MAX_LENGTH, Verdict, judge};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use serde_json::Value;

const SUFFICIENT: &str = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";
const INSUFFICIENT: &str = "CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA";

fn vectors() -> Vec<(String, Verdict)> {
    let file: Value = serde_json::from_str(include_str!("../vectors/consent.json")).unwrap();
    let verdict = |answer: &Value| match answer.as_str() {
        Some("success") => Verdict::Sufficient,
        Some("insufficient_user_consent") => Verdict::Insufficient,
        None if answer == 400 => Verdict::Invalid,
        _ => {
            assert_eq!(answer, 500);
            Verdict::Version1
        }
    };
    let cases = file["cases"].as_array().unwrap().iter();
    cases.map(|case| (case["text"].as_str().unwrap().to_owned(), verdict(&case["operator"]))).collect()
}

#[test]
fn reader_and_model_judge_every_recorded_tc_string_like_the_operator() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 600);
    for (tc_string, expected) in vectors {
        assert_eq!(judge(&tc_string), expected, "{tc_string}");
        assert_eq!(model::judge(tc_string.as_bytes()), expected, "{tc_string}");
    }
}

/// IAB's own encoder made this string.
#[test]
fn tc_string_with_publisher_restrictions_is_valid() {
    let restricted = "CQuPXIAQuPXIAAfABBENBkEgAPLAAELAAAYgF5wBYAAgAEAAqACgALAAyAXmBecAMABQAFQF5gBBIAMAAQAKHQAgAFQAyAvM\
        .YAAAAAAAAAAA";
    assert_eq!(judge(restricted), Verdict::Sufficient);
}

#[test]
fn reader_is_as_strict_as_the_operator_about_text_around_the_core() {
    let publisher = ".YAAAAAAAAAA";
    for after in
        [".", "..", publisher, ".YAAAAAAAAAA.YA", ".gAAA", &format!(".{SUFFICIENT}"), ".IAAA.QAAA.YAAAAAAAAAA..A="]
    {
        let expected = if after.ends_with('=') { Verdict::Invalid } else { Verdict::Sufficient };
        assert_eq!(judge(format!("{SUFFICIENT}{after}")), expected, "{after}");
    }
    // An empty segment is invalid only while a segment type is still missing.
    assert_eq!(judge(format!("{SUFFICIENT}.IAAA.QAAA{publisher}..{INSUFFICIENT}")), Verdict::Sufficient);
    assert_eq!(judge(format!("{SUFFICIENT}..IAAA.QAAA{publisher}")), Verdict::Invalid);
    for after in [" ", "\n", ";", "'", "%3D", "=", "===", ".A", ".YA", ".IA", "\u{e9}", "\0"] {
        assert_eq!(judge(format!("{SUFFICIENT}{after}")), Verdict::Invalid, "{after:?}");
    }
    assert_eq!(judge(format!("{SUFFICIENT}==")), Verdict::Sufficient);
    for before in [" ", ".", "=", "\u{feff}", "A", "\""] {
        assert_eq!(judge(format!("{before}{SUFFICIENT}")), Verdict::Invalid, "{before:?}");
    }
    for text in ["", ".", "...", "C", "CA", "B", "DA"] {
        assert_eq!(judge(text), Verdict::Invalid, "{text}");
    }
    assert_eq!(judge("BA.this is not looked at"), Verdict::Version1);
    assert_eq!(judge(&SUFFICIENT[..SUFFICIENT.len() - 1]), Verdict::Invalid);
}

#[test]
fn tc_string_is_read_up_to_4_kib() {
    let longest = format!("{SUFFICIENT:.<MAX_LENGTH$}");
    assert_eq!((longest.len(), judge(&longest)), (4096, Verdict::Sufficient));
    assert_eq!(judge(longest + "."), Verdict::Invalid);
}

/// A field: its width in bits and its value.
type Field = (usize, u64);

/// Returns a segment of these fields, in base64url.
fn encode(fields: &[Field]) -> String {
    use base64::Engine;
    let bits: String = fields.iter().map(|&(width, value)| format!("{value:0width$b}")).collect();
    let byte = |bits: &[u8]| u8::from_str_radix(&format!("{:0<8}", std::str::from_utf8(bits).unwrap()), 2).unwrap();
    let bytes: Vec<u8> = bits.as_bytes().chunks(8).map(byte).collect();
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn tc_string_segments_must_hold_every_bit_of_their_fields() {
    let with = |segment: &[Field]| judge(format!("{SUFFICIENT}.{}", encode(segment)));
    // 32 bits; six characters have room for four more.
    let vendors = |last| [(3, 1), (16, last), (1, 0), (12, 0)];
    assert_eq!((with(&vendors(12)), with(&vendors(13))), (Verdict::Sufficient, Verdict::Invalid));
    // 64 bits: type, purposes, number of custom purposes, and two lists of custom purposes.
    let publisher = |custom| [(3, 3), (48, 0), (6, custom), (7, 0)];
    assert_eq!((with(&publisher(3)), with(&publisher(4))), (Verdict::Sufficient, Verdict::Invalid));
    assert_eq!(judge(format!("{SUFFICIENT}.IAAA.QAAA.YA")), Verdict::Invalid);
}

#[test]
fn restriction_range_may_name_any_vendors_but_not_in_reverse() {
    let restricted = |from, to| {
        let no_vendors = [(16, 0), (1, 0)];
        let restriction = [(12, 1), (8, 0), (12, 1), (1, 1), (16, from), (16, to)];
        judge(encode(
            &[&[(6, 2), (64, 0), (64, 0), (18, 0), (48, 0), (13, 0)], &no_vendors[..], &no_vendors, &restriction]
                .concat(),
        ))
    };
    assert_eq!(restricted(0, 65_535), Verdict::Insufficient);
    assert_eq!(restricted(7, 7), Verdict::Insufficient);
    assert_eq!(restricted(7, 6), Verdict::Invalid);
}

/// Vendor 21, its neighbours and any others.
fn vendor() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(21), 3 => 18..25_u64, 2 => 0..2_u64, 1 => Just(65_535), 2 => 0..=65_535_u64]
}

/// Lists of ranges, most of them well-formed and up to `last`.
fn ranges(last: u64) -> impl Strategy<Value = Vec<Field>> {
    let entry = (vendor(), vendor(), any::<bool>(), 0..20_u8).prop_map(move |(a, b, is_range, broken)| match broken {
        0 => vec![(1, 1), (16, a), (16, b)],
        _ if is_range => vec![(1, 1), (16, a.min(b).min(last)), (16, a.max(b).min(last))],
        _ => vec![(1, 0), (16, a)],
    });
    let entries = vec(entry, 0..6);
    entries.prop_map(|entries| [vec![(12, entries.len() as u64)], entries.concat()].concat())
}

fn vendors() -> impl Strategy<Value = Vec<Field>> {
    let field = (0..200_u64, any::<[u64; 4]>()).prop_map(|(last, random)| {
        let bits = (0..last as usize).map(|bit| (1, random[bit / 64] >> (bit % 64) & 1));
        [(16, last), (1, 0)].into_iter().chain(bits).collect()
    });
    let ranges =
        vendor().prop_flat_map(|last| ranges(last).prop_map(move |ranges| [vec![(16, last), (1, 1)], ranges].concat()));
    prop_oneof![field, ranges]
}

fn purposes() -> impl Strategy<Value = Field> {
    let all: u64 = 0b1111_0010_0100_0000_0000_0000;
    prop_oneof![3 => Just(all), 1 => (0..24_u32).prop_map(move |bit| all ^ 1 << bit), 1 => 0..1_u64 << 24]
        .prop_map(|purposes| (24, purposes))
}

fn core() -> impl Strategy<Value = Vec<Field>> {
    let version = prop_oneof![30 => Just(2), 1 => Just(1), 1 => 0..64_u64];
    let restriction = (0..256_u64, ranges(65_535)).prop_map(|(kind, ranges)| [vec![(8, kind)], ranges].concat());
    let lists = (vendors(), vendors(), vec(restriction, 0..5));
    (version, purposes(), purposes(), lists).prop_map(
        |(version, consents, interests, (consent, interest, restrictions))| {
            let head = vec![(6, version), (64, 0x123_4567_89ab_cdef), (64, 7), (18, 0), consents, interests, (13, 5)];
            [head, consent, interest, vec![(12, restrictions.len() as u64)], restrictions.concat()].concat()
        },
    )
}

fn other_segment() -> impl Strategy<Value = Vec<Field>> {
    let of_vendors = (1..3_u64, vendors()).prop_map(|(kind, vendors)| [vec![(3, kind)], vendors].concat());
    let publisher = (0..64_u64).prop_map(|custom| vec![(3, 3), (48, 1), (6, custom), (2 * custom as usize, 0)]);
    let unknown = (0..8_u64).prop_map(|kind| vec![(3, kind)]);
    prop_oneof![3 => of_vendors, 2 => publisher, 1 => unknown, 1 => Just(Vec::new())]
}

/// Strings of all kinds: cores with other segments. Some are truncated, some have inserted or changed characters.
fn tc_string() -> impl Strategy<Value = String> {
    let segments = (core(), vec(other_segment(), 0..4)).prop_map(|(core, others)| {
        let segments = [core].into_iter().chain(others).map(|fields| encode(&fields));
        segments.collect::<Vec<_>>().join(".")
    });
    let cut = (segments, prop_oneof![2 => Just(0), 1 => 1..6_usize]).prop_map(|(text, cut)| {
        let left = text.len().saturating_sub(cut);
        text[..left].to_owned()
    });
    let change = (any::<Index>(), select(&["", "A", "_", ".", "=", "==", "..", "+", " ", "\u{e9}"][..]), 0..3_usize);
    (cut, prop_oneof![2 => Just(Vec::new()), 1 => vec(change, 0..3)]).prop_map(|(mut text, changes)| {
        for (at, inserted, removed) in changes {
            let mut characters: Vec<char> = text.chars().collect();
            let at = at.index(characters.len() + 1);
            let end = (at + removed).min(characters.len());
            characters.splice(at..end, inserted.chars());
            text = characters.into_iter().collect();
        }
        text
    })
}

proptest! {
    #[test]
    fn reader_judges_tc_strings_like_the_model(tc_string in tc_string()) {
        prop_assert_eq!(judge(&tc_string), model::judge(tc_string.as_bytes()), "{}", tc_string);
    }

    #[test]
    fn reader_judges_bytes_like_the_model(bytes in vec(any::<u8>(), 0..5000), start in select(&["", "C", "B"][..])) {
        let bytes = [start.as_bytes(), &bytes].concat();
        prop_assert_eq!(judge(&bytes), model::judge(&bytes));
    }
}

/// If all strings were invalid, the properties above would hold trivially.
#[test]
fn generated_tc_strings_get_every_verdict() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut verdicts = HashMap::new();
    for _ in 0..1000 {
        let verdict = judge(tc_string().new_tree(&mut runner).unwrap().current());
        *verdicts.entry(format!("{verdict:?}")).or_insert(0) += 1;
    }
    for (verdict, at_least) in [("Sufficient", 150), ("Insufficient", 150), ("Invalid", 150), ("Version1", 1)] {
        assert!(verdicts[verdict] >= at_least, "{verdicts:?}");
    }
}

fn headers<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> HeaderMap {
    values.into_iter().map(|value| (COOKIE, HeaderValue::from_bytes(value).unwrap())).collect()
}

#[test]
fn tcf_cookie_is_found_byte_for_byte_at_any_position() {
    for header in [
        &b"euconsent-v2=CP"[..],
        b"a=b; euconsent-v2=CP; c=d",
        b"a=b;euconsent-v2=CP;c=d",
        b" a=b ;\t euconsent-v2 = CP\t",
        b"city=K\xf6ln; euconsent-v2=CP; \xff\xfe",
        b"a=\"; euconsent-v2=CP; b=\"",
        b"euconsent-v2=\"CP\"",
        b"euconsent-v2=CP; euconsent-v2=CP",
        b"euconsent-v2=CP; euconsent-v2=\"CP\"; euconsent-v2-addtl=1",
        b"euconsent-v2; euconsent-v2=CP",
    ] {
        assert_eq!(tcf::cookie(&headers([header])), Ok(Some(&b"CP"[..])), "{}", header.escape_ascii());
        assert_eq!(tcf::cookie(&headers([b"x=y", header, b"\xe9=z"])), Ok(Some(&b"CP"[..])));
    }
    for header in ["", "Euconsent-v2=CP", "xeuconsent-v2=CP", "euconsent-v2x=CP", "a=euconsent-v2=CP", "euconsent-v2"] {
        assert_eq!(tcf::cookie(&headers([header.as_bytes()])), Ok(None), "{header}");
    }
}

#[test]
fn tcf_cookie_quotes_are_removed_only_in_pairs() {
    for (value, expected) in [("\"", "\""), ("\"\"", ""), ("\"CP", "\"CP"), ("CP\"", "CP\""), ("\"\"CP\"\"", "\"CP\"")]
    {
        let headers = headers([format!("euconsent-v2={value}").as_bytes()]);
        assert_eq!(tcf::cookie(&headers), Ok(Some(expected.as_bytes())), "{value}");
    }
}

#[test]
fn differing_tcf_cookies_withhold_consent() {
    let [granted, refused] = [SUFFICIENT, INSUFFICIENT].map(|tc_string| format!("euconsent-v2={tc_string}"));
    for pair in [[&granted, &refused], [&refused, &granted]] {
        let [one, other] = pair.map(String::as_bytes);
        for headers in [headers([one, other]), headers([[one, b"; ", other].concat().as_slice()])] {
            assert!(tcf::cookie(&headers).is_err());
            assert_eq!(tcf::consent(&headers), Consent::Withheld);
        }
    }
    assert_eq!(tcf::consent(&headers([granted.as_bytes(), granted.as_bytes()])), Consent::Granted);
}

#[test]
fn unreadable_tc_string_withholds_consent_and_does_not_withdraw_it() {
    for (tc_string, expected) in [
        (SUFFICIENT, Consent::Granted),
        (INSUFFICIENT, Consent::Withdrawn),
        ("", Consent::Withheld),
        ("CPehNtW", Consent::Withheld),
        ("BPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA", Consent::Withheld),
        (&"C".repeat(MAX_LENGTH + 1), Consent::Withheld),
    ] {
        assert_eq!(tcf::consent(&headers([format!("euconsent-v2={tc_string}").as_bytes()])), expected, "{tc_string}");
    }
    assert_eq!(tcf::consent(&HeaderMap::new()), Consent::Withheld);
}
