//! Fuzzes the bytes of `Cookie` headers: the reader finds what a plain split at `;` and `=` finds, and other cookies do not
//! change the result.
//!
//! Input: one byte for the configuration, then headers, one per line.

#![no_main]

use euid_core::CookieConfig;
use euid_core::fuzzing::{Scan, Site};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&selector, lines)) = data.split_first() else { return Corpus::Reject };
    let config = match selector % 3 {
        0 => CookieConfig::default(),
        1 => CookieConfig::default().domain("example.com").unwrap(),
        _ => CookieConfig::insecure(),
    };
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { return Corpus::Reject };
        headers.append(COOKIE, value);
    }
    let (identity, anchor, opt_out) = (config.identity_name(), config.anchor_name(), config.opt_out_name());
    let site = Site::new(config.migrate_js_sdk_cookie(None).unwrap().expose_token_to_scripts());

    let pairs: Vec<_> = headers.get_all(COOKIE).iter().flat_map(|header| pairs(header.as_bytes())).collect();
    let of = |name: &str| pairs.iter().filter(|(n, _)| *n == name.as_bytes()).map(|(_, v)| *v).collect::<Vec<_>>();
    let (mut identities, anchors, mut opt_outs) = (of(identity), of(anchor), of(opt_out));
    identities.truncate(4);
    opt_outs.truncate(4);
    let conflict = anchors.windows(2).any(|two| two[0] != two[1]);
    let expected = Scan { anchor: anchors.first().copied().filter(|_| !conflict), identities, opt_outs, conflict };
    let scan = site.scan(&headers);
    assert_eq!(scan, expected);

    let (mut sdk, token) = (of("__euid"), of("__euid_advertising_token"));
    // Only the first counts, readable or not.
    sdk.truncate(1);
    let mut alone = HeaderMap::new();
    let all = [
        (identity, &scan.identities),
        (anchor, &anchors),
        (opt_out, &scan.opt_outs),
        ("__euid", &sdk),
        ("__euid_advertising_token", &token),
    ];
    for (name, values) in all {
        for value in values {
            let line = [name.as_bytes(), b"=", *value].concat();
            alone.append(COOKIE, HeaderValue::from_bytes(&line).unwrap());
        }
    }
    assert_eq!(site.read(&headers), site.read(&alone));
    assert_eq!(site.read_scripts(&headers, "AB"), site.read_scripts(&alone, "AB"));
    Corpus::Keep
});

/// Name and value of each cookie of a header.
fn pairs(header: &[u8]) -> Vec<(&[u8], &[u8])> {
    let pairs = header.split(|byte| *byte == b';').filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        Some((trim(&pair[..equals]), trim(&pair[equals + 1..])))
    });
    pairs.collect()
}

fn trim(bytes: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}
