//! Nothing opens but what was sealed: real-size cookies, changed in every way that there is.
//!
//! Whatever came, the page sees `absent`, and the browser is told nothing but to drop the identity.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use tower_euid::{CookieConfig, CookieKey, EuidUpdate, Identity, KeyRing, Refreshed};

use crate::support::{ANCHOR, DUE, IDENTITY, Jar, OPT_OUT, Operator, Site, identity};

/// As large as those of today's operator: tokens of 219 and 388 characters.
fn real_size() -> Identity {
    let advertising = BASE64_URL_SAFE_NO_PAD.encode([0x13; 164]);
    let refresh = BASE64_STANDARD.encode([0x10; 291]);
    assert_eq!((advertising.len(), refresh.len()), (219, 388));
    Identity::new(advertising, refresh.into(), [5; 32].into(), identity("x").times()).unwrap()
}

/// A browser with a real-size identity that opens.
async fn logged_in() -> Site {
    let mut site = Site::offline();
    site.update(EuidUpdate::login(real_size())).await;
    assert!(site.look().await.saw().starts_with("active("));
    site
}

/// A browser with the record of an opt-out that opens.
async fn opted_out(site: Site) -> Site {
    let mut site = site;
    site.login("old").await;
    site.wait_until(DUE);
    assert_eq!(site.look().await.saw(), "opted_out");
    site
}

fn decoded(value: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(value).unwrap()
}

/// Asserts that the site makes nothing of a cookie with these bytes.
async fn does_not_open(site: &Site, name: &str, bytes: &[u8], what: &str) {
    as_if_absent(site, &site.jar.clone().with(name, &BASE64_URL_SAFE_NO_PAD.encode(bytes)), what).await;
}

/// An identity, and the record of an opt-out, each in a browser that has nothing else to show.
async fn both_kinds() -> [(Site, &'static str); 2] {
    let record = opted_out(Site::new(Operator::answering(Ok(Refreshed::OptedOut)))).await;
    [(logged_in().await, IDENTITY), (record, OPT_OUT)]
}

async fn as_if_absent(site: &Site, jar: &Jar, what: &str) {
    let visit = site.send(jar.request(), |_, _| ()).await;
    assert_eq!(visit.saw(), "absent", "{what}");
    assert!(["", "identity cleared"].contains(&visit.writes().as_str()), "{what}: {}", visit.writes());
}

#[tokio::test]
async fn with_any_bit_flipped_an_identity_does_not_open() {
    let site = logged_in().await;
    let value = site.jar.value(IDENTITY).unwrap();
    assert_eq!(value.len(), 771);
    let bytes = decoded(value);
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        does_not_open(&site, IDENTITY, &flipped, &format!("bit {bit}")).await;
    }
}

#[tokio::test]
async fn with_any_bit_flipped_the_record_of_an_opt_out_does_not_open() {
    let site = opted_out(Site::new(Operator::answering(Ok(Refreshed::OptedOut)))).await;
    let bytes = decoded(site.jar.value(OPT_OUT).unwrap());
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        does_not_open(&site, OPT_OUT, &flipped, &format!("bit {bit}")).await;
    }
}

#[tokio::test]
async fn with_any_bit_flipped_the_anchor_names_nobody() {
    for site in [logged_in().await, opted_out(Site::new(Operator::answering(Ok(Refreshed::OptedOut)))).await] {
        let bytes = decoded(site.jar.value(ANCHOR).unwrap());
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let jar = site.jar.clone().with(ANCHOR, &BASE64_URL_SAFE_NO_PAD.encode(flipped));
            as_if_absent(&site, &jar, &format!("bit {bit}")).await;
        }
    }
}

#[tokio::test]
async fn cut_short_or_made_longer_by_characters_or_bytes_nothing_opens() {
    for (site, name) in both_kinds().await {
        let value = site.jar.value(name).unwrap();
        for length in 0..value.len() {
            for cut in [&value[..length], &value[value.len() - length..]] {
                as_if_absent(&site, &site.jar.clone().with(name, cut), &format!("{length} characters")).await;
            }
        }
        let bytes = decoded(value);
        for length in 0..bytes.len() {
            does_not_open(&site, name, &bytes[..length], &format!("{length} bytes")).await;
        }
        for more in ["A", "AA", "AAAA", "=", "==", "%3D", "\u{20}x", value] {
            as_if_absent(&site, &site.jar.clone().with(name, &format!("{value}{more}")), more).await;
        }
    }
}

#[tokio::test]
async fn in_another_text_of_the_same_bytes_nothing_opens() {
    let site = logged_in().await;
    let value = site.jar.value(IDENTITY).unwrap();
    let last = value.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 771 characters hold two bits more than 578 bytes: four texts of one value, if bits may be stray.
    for other in alphabet.chars().filter(|other| *other != last) {
        let other = format!("{}{other}", &value[..value.len() - 1]);
        as_if_absent(&site, &site.jar.clone().with(IDENTITY, &other), &other).await;
    }
    let padded = BASE64_STANDARD.encode(decoded(value));
    as_if_absent(&site, &site.jar.clone().with(IDENTITY, &padded), "standard base64").await;
    as_if_absent(&site, &site.jar.clone().with(IDENTITY, &format!("\"{value}\"")), "quoted").await;
}

#[tokio::test]
async fn any_two_parts_swapped_between_two_cookies_do_not_open() {
    let mut site = logged_in().await;
    let one = decoded(site.jar.value(IDENTITY).unwrap());
    site.update(EuidUpdate::login(real_size())).await;
    let other = decoded(site.jar.value(IDENTITY).unwrap());
    // Version, purpose and key are the same; nonce, ciphertext and tag are not.
    for range in [6..30, 30..one.len() - 16, one.len() - 16..one.len(), 6..one.len() - 16, 30..one.len()] {
        let mut mixed = other.clone();
        mixed[range.clone()].copy_from_slice(&one[range.clone()]);
        does_not_open(&site, IDENTITY, &mixed, &format!("{range:?}")).await;
    }
    does_not_open(&site, IDENTITY, &one, "of a login that is over").await;
}

#[tokio::test]
async fn under_another_name_nothing_opens() {
    let keys = crate::support::ring();
    let configs = [
        CookieConfig::default(),
        CookieConfig::default().domain("publisher.example").unwrap(),
        CookieConfig::insecure(),
    ];
    for record in [false, true] {
        for from in &configs {
            let operator = Operator::answering(Ok(Refreshed::OptedOut));
            let mut site = Site::with_keys(keys.clone(), operator).configured(|layer| layer.cookie(from.clone()));
            if record {
                site = opted_out(site).await;
            } else {
                site.update(EuidUpdate::login(real_size())).await;
            }
            let sealed = |config: &CookieConfig| if record { config.opt_out_name() } else { config.identity_name() };
            let [value, anchor] = [sealed(from), from.anchor_name()].map(|name| site.jar.value(name).unwrap());
            for to in configs.iter().filter(|to| *to != from) {
                let jar = Jar::default().with(sealed(to), value).with(to.anchor_name(), anchor);
                let other = site.clone().configured(|layer| layer.cookie(to.clone()));
                assert_eq!(other.send(jar.request(), |_, _| ()).await.saw(), "absent", "{record} {to:?}");
            }
            let swapped = Jar::default().with(sealed(from), anchor).with(from.anchor_name(), value);
            assert_eq!(site.send(swapped.request(), |_, _| ()).await.saw(), "absent");
            let [other] = [from.identity_name(), from.opt_out_name()]
                .into_iter()
                .filter(|name| *name != sealed(from))
                .collect::<Vec<_>>()[..]
            else {
                panic!("two names")
            };
            let swapped = Jar::default().with(other, value).with(from.anchor_name(), anchor);
            assert_eq!(site.send(swapped.request(), |_, _| ()).await.saw(), "absent");
        }
    }
}

#[tokio::test]
async fn for_another_purpose_nothing_opens() {
    for ((site, name), own) in both_kinds().await.into_iter().zip([1, 2]) {
        let mut bytes = decoded(site.jar.value(name).unwrap());
        assert_eq!(bytes[1], own);
        for purpose in (0..=u8::MAX).filter(|purpose| *purpose != own) {
            bytes[1] = purpose;
            does_not_open(&site, name, &bytes, &format!("purpose {purpose}")).await;
        }
    }
}

#[tokio::test]
async fn under_another_key_nothing_opens() {
    let [one, other] = [(); 2].map(|()| CookieKey::generate().unwrap());
    let keys = KeyRing::new([one.clone(), other.clone()]).unwrap();
    let mut site = Site::with_keys(keys, Operator::never());
    site.update(EuidUpdate::login(real_size())).await;
    let mut bytes = decoded(site.jar.value(IDENTITY).unwrap());
    let id: Vec<u8> = (0..4).map(|at| u8::from_str_radix(&other.id()[2 * at..2 * at + 2], 16).unwrap()).collect();
    bytes[2..6].copy_from_slice(&id);
    does_not_open(&site, IDENTITY, &bytes, "said to be under the other key of the ring").await;
    let strange = Site::with_keys(other.into(), Operator::never());
    as_if_absent(&strange, &site.jar, "on a node with another key").await;
}
