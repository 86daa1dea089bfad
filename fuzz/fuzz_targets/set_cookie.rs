//! Fuzzes `Set-Cookie` in any configuration: a browser understands each line as intended, and the layer reads back what it
//! wrote.
//!
//! Input: one byte for the configuration, one for the change to write, four times of eight bytes each (now, and the
//! identity's three), then texts separated by 0xFF: the layer's domain, the SDK's domain, advertising token, refresh token,
//! subject.

#![no_main]

use std::time::Duration;

use euid_core::clock::UnixMillis;
use euid_core::fuzzing::{Opened, Site, Write};
use euid_core::identity::{Identity, IdentityTimes};
use euid_core::{CookieConfig, SameSite, Scope};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus { fuzz(data).map_or(Corpus::Reject, |()| Corpus::Keep) });

fn fuzz(data: &[u8]) -> Option<()> {
    let (&[how, what], rest) = data.split_first_chunk()?;
    let (now, rest) = millis(rest)?;
    let (refresh_from, rest) = millis(rest)?;
    let (identity_expires, rest) = millis(rest)?;
    let (refresh_expires, rest) = millis(rest)?;
    let mut texts = rest.splitn(5, |byte| *byte == 0xff).map(std::str::from_utf8);
    let mut text = || texts.next()?.ok();
    let (domain, sdk_domain, token, refresh_token, subject) = (text()?, text()?, text()?, text()?, text()?);

    let config = config(how, domain, sdk_domain)?;
    let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
    let identity = Identity::new(token, refresh_token.to_owned().into(), [5; 32].into(), times).ok()?;
    let subject = (what & 0x80 != 0).then_some(subject.as_bytes());
    let write = match what & 7 {
        0 => Write::Login(&identity, subject),
        1 => Write::Refreshed(&identity),
        2 => Write::ClearIdentity,
        3 => Write::ClearBoth,
        4 => Write::OptOut,
        5 => Write::RecordOptOut,
        6 => Write::ExposeToken(Some(&identity)),
        _ => Write::ExposeToken(None),
    };

    let site = Site::new(config.clone());
    let mut headers = HeaderMap::new();
    let written = site.write(write, now, &mut headers);
    let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().map(|line| check(&config, line)).collect();
    assert!(written || headers.is_empty());
    let rest = refresh_expires.saturating_since(now).as_millis();
    let has_identity = matches!(write, Write::Login(..) | Write::Refreshed(_));
    if has_identity && token.len() + refresh_token.len() < 2800 {
        // The site serves EUID: it refuses a login with tokens of UID2.
        let is_refused = matches!(write, Write::Login(..)) && identity.scope() == Some(Scope::Uid2);
        assert_eq!(written, rest >= 1000 && !is_refused);
    }

    let expected = match write {
        Write::Login(..) if written => Some(Opened::Identity { bound: subject.is_some(), identity: identity.clone() }),
        Write::OptOut => Some(Opened::OptOut(now.saturating_add(OPT_OUT_REMEMBERED))),
        _ => None,
    };
    let mut jar = HeaderMap::new();
    for (name, value) in &cookies {
        jar.append(COOKIE, HeaderValue::try_from(format!("{name}={value}")).unwrap());
    }
    assert_eq!(site.read(&jar).0, expected);
    let wrote = |is_one: &dyn Fn(&str) -> bool| cookies.iter().any(|(name, _)| is_one(name));
    let writes_anchor = matches!(write, Write::Login(..) | Write::ClearBoth | Write::OptOut);
    assert_eq!(wrote(&|name| name == config.anchor_name(Scope::Euid)), written && writes_anchor);
    let writes_record = matches!(write, Write::OptOut | Write::RecordOptOut);
    assert_eq!(wrote(&|name| has_tag(name, &config.opt_out_prefix(Scope::Euid))), written && writes_record);
    assert_eq!(wrote(&|name| has_tag(name, &config.identity_prefix(Scope::Euid))), written && has_identity);
    Some(())
}

fn config(how: u8, domain: &str, sdk_domain: &str) -> Option<CookieConfig> {
    let mut config = if how & 1 == 0 { CookieConfig::default() } else { CookieConfig::insecure() };
    if how & 2 != 0 {
        config = config.domain(domain).ok()?;
    }
    let same_site = [SameSite::Strict, SameSite::Lax, SameSite::None, SameSite::Partitioned];
    config = config.same_site(same_site[usize::from(how >> 2 & 3)]).ok()?;
    if how & 0x10 != 0 {
        config = config.expose_token_to_scripts();
    }
    match how >> 5 & 3 {
        0 => Some(config),
        1 => config.migrate_js_sdk_cookie(None).ok(),
        _ => config.migrate_js_sdk_cookie(Some(sdk_domain)).ok(),
    }
}

/// Checks that a browser understands the line as intended (RFC 6265bis, sections 5.6 and 5.7). Returns name and value.
fn check(config: &CookieConfig, line: &HeaderValue) -> (String, String) {
    assert!(line.is_sensitive());
    let line = line.to_str().expect("visible characters");
    let mut parts = line.split(';').map(|part| part.strip_prefix(' ').unwrap_or(part));
    let (name, value) = parts.next().unwrap().split_once('=').unwrap();
    let attributes: Vec<(&str, &str)> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    let attribute = |name| {
        let mut values = attributes.iter().filter(|(other, _)| *other == name).map(|(_, value)| *value);
        let value = values.next();
        assert_eq!(values.next(), None, "twice in {line}");
        value
    };
    let known = ["HttpOnly", "SameSite", "Partitioned", "Secure", "Path", "Domain", "Max-Age"];
    assert!(attributes.iter().all(|(name, value)| known.contains(name) && value.len() <= 1024), "{line}");

    let is_octet = |byte| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
    assert!(value.bytes().all(is_octet), "{line}");
    assert!(name.len() + value.len() <= 4096);
    let is_tagged =
        has_tag(name, &config.identity_prefix(Scope::Euid)) || has_tag(name, &config.opt_out_prefix(Scope::Euid));
    let is_ours = name == config.anchor_name(Scope::Euid) || is_tagged;
    assert!(is_ours || ["__euid", "__euid_advertising_token"].contains(&name), "{line}");

    let (secure, domain, path) = (attribute("Secure"), attribute("Domain"), attribute("Path"));
    assert_eq!(attribute("HttpOnly").is_some(), is_ours, "{line}");
    assert_eq!(path, Some("/"), "{line}");
    assert!(!name.starts_with("__Host-") || (secure.is_some() && domain.is_none()), "{line}");
    assert!(!name.starts_with("__Secure-") || secure.is_some(), "{line}");
    let frames = attribute("SameSite") == Some("None");
    assert!(!frames || secure.is_some(), "{line}");
    assert!(attribute("Partitioned").is_none() || frames, "{line}");
    if let Some(domain) = domain {
        let is_label = |label: &str| !label.is_empty() && label.len() < 64;
        assert!(domain.len() < 254 && domain.split('.').all(is_label) && domain.contains('.'), "{line}");
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        assert!(domain.bytes().all(is_plain) && domain.parse::<std::net::IpAddr>().is_err(), "{line}");
    }
    let max_age: u64 = attribute("Max-Age").unwrap().parse().unwrap();
    assert!(max_age <= 400 * 86_400, "{line}");
    assert_eq!(max_age == 0, value.is_empty(), "{line}");
    (name.to_owned(), value.to_owned())
}

/// Whether the name is `beginning` and the tag of a login.
fn has_tag(name: &str, beginning: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    name.strip_prefix(beginning).is_some_and(|tag| tag.len() == 4 && tag.bytes().all(is_base64url))
}

fn millis(data: &[u8]) -> Option<(UnixMillis, &[u8])> {
    let (millis, rest) = data.split_first_chunk()?;
    Some((UnixMillis::from_millis(i64::from_be_bytes(*millis)), rest))
}

const OPT_OUT_REMEMBERED: Duration = Duration::from_secs(72 * 3600);
