//! Fuzzes the bytes of `Cookie` headers: the reader finds what a plain split at `;` and `=` finds, and other cookies do not
//! change the result.
//!
//! Input: one byte for the configuration, then headers, one per line.

#![no_main]

use euid_core::fuzzing::{Scan, Site};
use euid_core::{CookieConfig, Scope};
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
    let anchor = &*config.anchor_name(Scope::Euid);
    let tagged_names = [config.identity_prefix(Scope::Euid), config.opt_out_prefix(Scope::Euid)];
    let site = Site::new(config.migrate_js_sdk_cookie(None).unwrap().expose_token_to_scripts());

    let pairs: Vec<_> = headers.get_all(COOKIE).iter().flat_map(|header| pairs(header.as_bytes())).collect();
    let of = |name: &str| pairs.iter().filter(|(n, _)| *n == name.as_bytes()).map(|(_, v)| *v).collect::<Vec<_>>();
    let is_tagged =
        |name: &[u8]| tagged_names.iter().any(|before| name.strip_prefix(before.as_bytes()).is_some_and(is_tag));
    let all_tagged: Vec<_> = pairs.iter().filter(|(name, _)| is_tagged(name)).collect();
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let tagged = all_tagged.iter().take(8).map(|(name, value)| (text(name), *value)).collect();
    let anchors = of(anchor);
    let conflict = anchors.windows(2).any(|two| two[0] != two[1]);
    let expected = Scan { tagged, anchor: anchors.first().copied().filter(|_| !conflict), conflict };
    assert_eq!(site.scan(&headers), expected);

    let (mut sdk, token) = (of("__euid"), of("__euid_advertising_token"));
    // Only the first counts, readable or not.
    sdk.truncate(1);
    let mut alone = HeaderMap::new();
    for (name, value) in all_tagged {
        alone.append(COOKIE, HeaderValue::from_bytes(&[name, &b"="[..], value].concat()).unwrap());
    }
    let others = [(anchor, &anchors), ("__euid", &sdk), ("__euid_advertising_token", &token)];
    for (name, values) in others {
        for value in values {
            let line = [name.as_bytes(), b"=", *value].concat();
            alone.append(COOKIE, HeaderValue::from_bytes(&line).unwrap());
        }
    }
    assert_eq!(site.read(&headers), site.read(&alone));
    assert_eq!(site.read_scripts(&headers, "AB"), site.read_scripts(&alone, "AB"));
    Corpus::Keep
});

/// Whether the end of a name is as long as the tag of a login, or is that of what was migrated.
fn is_tag(end: &[u8]) -> bool {
    end == b"sdk" || end.len() == 4
}

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
