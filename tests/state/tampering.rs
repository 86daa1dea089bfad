//! Tampering: a cookie value that differs in any way from a sealed one does not open.
//!
//! The response passes unchanged, the handler sees `absent`, and at most the cookie of the value is cleared.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::future::ready;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::{CookieConfig, CookieKey, Euid, EuidUpdate, Identity, KeyRing, Refreshed, Scope};

use crate::support::{
    ANCHOR, IDENTITY, Jar, Literal, NOTHING, OPT_OUT, Operator, Site, expect, identity, outcome, ring, scope,
    set_cookies, writes,
};

/// Returns an identity as large as those of the real operator: its tokens have 219 and 388 characters.
fn real_size() -> Identity {
    let advertising = BASE64_URL_SAFE_NO_PAD.encode([0x13; 164]);
    let refresh = BASE64_STANDARD.encode([0x10; 291]);
    assert_eq!((advertising.len(), refresh.len()), (219, 388));
    Identity::new(advertising, refresh.into(), [5; 32].into(), identity("x").times()).unwrap()
}

/// Returns a browser with a real-size identity that opens.
async fn with_identity() -> Site {
    let mut site = Site::offline();
    site.update(EuidUpdate::login(real_size())).await;
    assert!(site.look().await.saw().starts_with("active("));
    site
}

/// Returns a browser with a record of an opt-out that opens.
async fn with_record() -> Site {
    Site::new(Operator::answering(Ok(Refreshed::OptedOut))).opted_out().await
}

/// Returns a browser with an identity and one with a record, each with the name of that cookie.
async fn with_each_kind() -> [(Site, Literal); 2] {
    [(with_identity().await, IDENTITY), (with_record().await, OPT_OUT)]
}

fn decoded(value: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(value).unwrap()
}

/// Returns `bytes` with one bit flipped, for each of their bits.
fn with_flipped_bits(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..8 * bytes.len()).map(|bit| {
        let mut flipped = bytes.to_vec();
        *flipped.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
        flipped
    })
}

/// Asserts that the handler sees `absent`, that its response passes, and that at most an identity or a record is cleared.
async fn assert_absent(site: &Site, jar: &Jar, case: &str) {
    let page = service_fn(|request: Request<()>| {
        let state = request.extensions().get::<Euid>().map(Euid::state);
        let response = Response::builder().status(StatusCode::ACCEPTED).body(("the body", state));
        ready(Ok::<_, Infallible>(response.unwrap()))
    });
    let Ok(response) = site.layer.layer(page).oneshot(jar.request()).await;
    assert_eq!((response.status(), *response.body()), (StatusCode::ACCEPTED, ("the body", Some("absent"))), "{case}");
    let writes = writes(response.headers());
    assert!(["", "identity cleared", "opt-out cleared"].contains(&writes.as_str()), "{case}: {writes}");
}

/// Asserts that a cookie does not open with these bytes as its value.
async fn assert_does_not_open(site: &Site, name: Literal, bytes: &[u8], case: &str) {
    assert_absent(site, &site.jar.clone().with(name, &BASE64_URL_SAFE_NO_PAD.encode(bytes)), case).await;
}

#[tokio::test]
async fn identity_with_any_flipped_bit_does_not_open() {
    let site = with_identity().await;
    let value = site.jar.value(IDENTITY).unwrap();
    assert_eq!(value.len(), 771);
    for (bit, flipped) in with_flipped_bits(&decoded(value)).enumerate() {
        assert_does_not_open(&site, IDENTITY, &flipped, &format!("bit {bit}")).await;
    }
}

#[tokio::test]
async fn opt_out_record_with_any_flipped_bit_does_not_open() {
    let site = with_record().await;
    for (bit, flipped) in with_flipped_bits(&decoded(site.jar.value(OPT_OUT).unwrap())).enumerate() {
        assert_does_not_open(&site, OPT_OUT, &flipped, &format!("bit {bit}")).await;
    }
}

#[tokio::test]
async fn anchor_with_any_flipped_bit_names_no_login() {
    for (site, _) in with_each_kind().await {
        for (bit, flipped) in with_flipped_bits(&decoded(site.jar.value(ANCHOR).unwrap())).enumerate() {
            assert_does_not_open(&site, ANCHOR, &flipped, &format!("bit {bit}")).await;
        }
    }
}

#[tokio::test]
async fn identity_and_opt_out_record_do_not_open_when_shortened_or_extended() {
    for (site, name) in with_each_kind().await {
        let value = site.jar.value(name).unwrap();
        for length in 0..value.len() {
            for part in [&value[..length], &value[value.len() - length..]] {
                assert_absent(&site, &site.jar.clone().with(name, part), &format!("{length} characters")).await;
            }
        }
        let bytes = decoded(value);
        for length in 0..bytes.len() {
            assert_does_not_open(&site, name, &bytes[..length], &format!("{length} bytes")).await;
        }
        for suffix in ["A", "AA", "AAAA", "=", "==", "%3D", "\u{20}x", value] {
            assert_absent(&site, &site.jar.clone().with(name, &format!("{value}{suffix}")), suffix).await;
        }
    }
}

#[tokio::test]
async fn identity_and_anchor_do_not_open_when_replaced_by_five_kilobytes() {
    let site = with_identity().await;
    let value = site.jar.value(IDENTITY).unwrap();
    for garbage in ["A".repeat(5000), "%".repeat(5000), format!("{}{}", &value[..40], "A".repeat(5000))] {
        for name in [IDENTITY, ANCHOR] {
            assert_absent(&site, &site.jar.clone().with(name, &garbage), &name).await;
        }
    }
}

#[tokio::test]
async fn identity_in_another_encoding_of_the_same_bytes_does_not_open() {
    let site = with_identity().await;
    let value = site.jar.value(IDENTITY).unwrap();
    let last = value.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 771 characters hold two bits more than 578 bytes, so a lenient decoder would accept four encodings.
    for other in alphabet.chars().filter(|other| *other != last) {
        let other = format!("{}{other}", &value[..value.len() - 1]);
        assert_absent(&site, &site.jar.clone().with(IDENTITY, &other), &other).await;
    }
    let padded = BASE64_STANDARD.encode(decoded(value));
    assert_absent(&site, &site.jar.clone().with(IDENTITY, &padded), "standard base64").await;
    assert_absent(&site, &site.jar.clone().with(IDENTITY, &format!("\"{value}\"")), "quoted").await;
}

#[tokio::test]
async fn identity_with_a_part_of_another_identity_does_not_open() {
    let mut site = with_identity().await;
    let previous = decoded(site.jar.value(IDENTITY).unwrap());
    site.update(EuidUpdate::login(real_size())).await;
    let current = decoded(site.jar.value(IDENTITY).unwrap());
    let length = current.len();
    // Version, purpose and key are the same in both; nonce, ciphertext and tag are not.
    for range in [6..30, 30..length - 16, length - 16..length, 6..length - 16, 30..length] {
        let mut mixed = current.clone();
        mixed[range.clone()].copy_from_slice(&previous[range.clone()]);
        assert_does_not_open(&site, IDENTITY, &mixed, &format!("{range:?}")).await;
    }
    assert_does_not_open(&site, IDENTITY, &previous, "the whole identity of the previous login").await;
}

/// A browser with a sealed cookie, and the function that returns the prefix of that cookie's name under a configuration.
type Sealed = (Site, fn(&CookieConfig, Scope) -> String);

/// Returns a browser with an identity and one with a record, both under `config`.
async fn under(config: &CookieConfig, keys: &KeyRing) -> [Sealed; 2] {
    let site = |operator| Site::with_keys(keys.clone(), operator).configured(|layer| layer.cookie(config.clone()));
    let mut identity = site(Operator::never());
    identity.update(EuidUpdate::login(real_size())).await;
    let record = site(Operator::answering(Ok(Refreshed::OptedOut))).opted_out().await;
    [(identity, CookieConfig::identity_prefix), (record, CookieConfig::opt_out_prefix)]
}

fn configs() -> [CookieConfig; 3] {
    let domain = CookieConfig::default().domain("publisher.example").unwrap();
    [CookieConfig::default(), domain, CookieConfig::insecure()]
}

#[tokio::test]
async fn identity_and_opt_out_record_do_not_open_under_the_names_of_another_configuration() {
    let keys = ring();
    for from in &configs() {
        for (site, prefix) in under(from, &keys).await {
            let names = [prefix(from, scope()), from.anchor_name(scope())];
            let [value, anchor] = names.map(|name| site.jar.value(&name).unwrap());
            for to in configs().iter().filter(|to| *to != from) {
                let name = format!("{}{}", prefix(to, scope()), &anchor[..4]);
                let renamed = Jar::default().with(&name, value).with(to.anchor_name(scope()), anchor);
                let other = site.clone().configured(|layer| layer.cookie(to.clone()));
                assert_absent(&other, &renamed, &format!("{from:?} {to:?}")).await;
            }
        }
    }
}

#[tokio::test]
async fn identity_and_opt_out_record_do_not_open_under_the_name_of_another_cookie() {
    let keys = ring();
    for config in &configs() {
        for (site, prefix) in under(config, &keys).await {
            let (prefix, anchor_name) = (prefix(config, scope()), &*config.anchor_name(scope()));
            let [value, anchor] = [&prefix, anchor_name].map(|name| site.jar.value(name).unwrap());
            let prefixes = [config.identity_prefix(scope()), config.opt_out_prefix(scope())];
            let other_prefix = prefixes.iter().find(|other| **other != prefix).unwrap();
            let [name, other_name] = [&prefix, other_prefix].map(|prefix| format!("{prefix}{}", &anchor[..4]));
            assert_eq!(name, site.jar.name(&prefix), "the tag is the beginning of the anchor");
            for (jar, case) in [
                (Jar::default().with(&name, anchor).with(anchor_name, anchor), "anchor under both names"),
                (Jar::default().with(&name, value).with(anchor_name, value), "value under both names"),
                (Jar::default().with(&name, anchor).with(anchor_name, value), "swapped"),
                (Jar::default().with(&other_name, value).with(anchor_name, anchor), "identity as record or reverse"),
            ] {
                assert_absent(&site, &jar, &format!("{case}: {config:?}")).await;
            }
        }
    }
}

#[tokio::test]
async fn identity_and_opt_out_record_do_not_open_under_another_tag() {
    for (site, prefix) in with_each_kind().await {
        let value = site.jar.value(prefix).unwrap();
        let mut other = site.clone();
        other.update(EuidUpdate::login(real_size())).await;
        let anchor = other.jar.value(ANCHOR).unwrap();
        let renamed = Jar::default().with(format!("{prefix}{}", &anchor[..4]), value).with(ANCHOR, anchor);
        assert_absent(&site, &renamed, "the tag of another login").await;
        // What was migrated has no anchor, so no other comparison finds this.
        let renamed = Jar::default().with(format!("{prefix}sdk"), value);
        let migrating = site.clone().migrating();
        let visit = migrating.send(renamed.request(), NOTHING).await;
        assert_eq!(visit.saw(), "absent", "the tag of a migrated login: {prefix}");
    }
}

#[tokio::test]
async fn name_whose_tag_is_invalid_is_neither_read_nor_removed() {
    for (site, prefix) in with_each_kind().await {
        let (value, anchor) = (site.jar.value(prefix).unwrap(), site.jar.value(ANCHOR).unwrap());
        let (tag, without_dot) = (&anchor[..4], prefix.trim_end_matches('.'));
        let invalid = ["", "abc", "SDK", "sdk.", "a+bc", "a.bc", "ab c", "a%2B", &anchor[..3], &anchor[..5], anchor];
        let mut names = invalid.map(|invalid| format!("{prefix}{invalid}")).to_vec();
        names.extend([without_dot.to_owned(), format!("{without_dot}{tag}"), format!("{prefix}.{tag}")]);
        for name in names {
            let request = || {
                let cookies = format!("{name}={value}; {ANCHOR}={anchor}");
                Request::builder().header("cookie", cookies).body(()).unwrap()
            };
            assert_eq!(outcome(&site.send(request(), NOTHING).await), expect("absent", ""), "{name:?}");
            let logout = site.send(request(), |_, response| EuidUpdate::logout().attach(response)).await;
            let lines = set_cookies(logout.response.headers());
            assert!(lines.len() == 1 && logout.writes() == "anchor cleared", "{name:?}: {lines:?}");
        }
    }
}

#[tokio::test]
async fn identity_and_opt_out_record_do_not_open_with_another_purpose() {
    for ((site, name), own) in with_each_kind().await.into_iter().zip([1, 2]) {
        let mut bytes = decoded(site.jar.value(name).unwrap());
        assert_eq!(bytes[1], own);
        for purpose in (0..=u8::MAX).filter(|purpose| *purpose != own) {
            bytes[1] = purpose;
            assert_does_not_open(&site, name, &bytes, &format!("purpose {purpose}")).await;
        }
    }
}

#[tokio::test]
async fn identity_does_not_open_under_another_key() {
    let [newest, other] = [(); 2].map(|()| CookieKey::generate().unwrap());
    let keys = KeyRing::new([newest, other.clone()]).unwrap();
    let mut site = Site::with_keys(keys, Operator::never());
    site.update(EuidUpdate::login(real_size())).await;
    let mut bytes = decoded(site.jar.value(IDENTITY).unwrap());
    let id: Vec<u8> = (0..4).map(|at| u8::from_str_radix(&other.id()[2 * at..2 * at + 2], 16).unwrap()).collect();
    bytes[2..6].copy_from_slice(&id);
    assert_does_not_open(&site, IDENTITY, &bytes, "with the id of the ring's other key").await;
    let other_node = Site::with_keys(other.into(), Operator::never());
    assert_absent(&other_node, &site.jar, "on a node with another key").await;
}
