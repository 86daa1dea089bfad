//! Tests that the right engine reads written state back, and that no other engine does.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use super::read::{FoundAnchor, Opened, Outcome};
use super::write::ScriptWrite;
use super::{Change, Engine, NewLogin, RejectReason, Renewal, WriteError};
use crate::clock::UnixMillis;
use crate::identity::{Identity, IdentityTimes, RefreshToken};
use crate::sealed::CookieKey;
use crate::sealed::aead::{self, BASE64URL, Purpose};
use crate::sealed::login::{Lineage, Login};
use crate::sealed::payload;
use crate::transport::{CookieConfig, SameSite};

const NOW: UnixMillis = UnixMillis::from_millis(1_795_371_587_000);

fn identity(name: &str) -> Identity {
    let at = |seconds| NOW.saturating_add(Duration::from_secs(seconds));
    let times = IdentityTimes { refresh_from: at(900), identity_expires: at(3600), refresh_expires: at(86_400) };
    Identity::new(name, RefreshToken::from("refresh".to_owned()), [5; 32].into(), times).unwrap()
}

struct Site(Engine);

impl Site {
    fn new() -> Self {
        Self::with(CookieConfig::default())
    }

    fn with(config: CookieConfig) -> Self {
        Self(Engine::new(CookieKey::generate().unwrap().into()).with_cookie(config))
    }

    /// Returns the `Set-Cookie` values of a change.
    fn write(&self, change: &Change) -> Vec<String> {
        self.write_with_scripts(change, ScriptWrite::Keep)
    }

    fn write_with_scripts(&self, change: &Change, scripts: ScriptWrite<'_>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        self.0.write(change, scripts, NOW, &mut headers).unwrap();
        headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    /// Returns `name=value` of each `Set-Cookie`.
    fn pairs(&self, change: &Change) -> Vec<String> {
        self.write(change).iter().map(|line| line.split(';').next().unwrap().to_owned()).collect()
    }

    fn read(&self, pairs: &[&str]) -> (Outcome<String>, FoundAnchor) {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap());
        let found = self.0.read(headers.get_all(COOKIE), |opened| {
            Some(match opened {
                Opened::Identity { payload, .. } => payload.advertising_token().to_string(),
                Opened::OptOut { record, .. } => format!("opted out until {}", record.until.as_millis()),
            })
        });
        (found.outcome, found.anchor)
    }
}

fn begin(identity: Identity) -> Change {
    Change::login(identity)
}

fn renewed(login: Login, identity: Identity) -> Change {
    Change::Renew(Box::new(Renewal { login, identity: Arc::new(identity) }))
}

fn usable(name: &str) -> Outcome<String> {
    Outcome::Judged(name.to_owned())
}

#[test]
fn login_is_read_back_and_a_refresh_keeps_its_lineage() {
    let site = Site::new();
    let login = site.pairs(&begin(identity("one")));
    let (found, anchor) = site.read(&[&login[0], &login[1]]);
    assert_eq!(found, usable("one"));
    let FoundAnchor::Login(lineage) = anchor else { panic!("{anchor:?}") };

    let lineage = Lineage::from_bytes(BASE64URL.decode(lineage).unwrap().try_into().unwrap());
    let origin = Login { lineage, subject: None };
    let refreshed = site.pairs(&renewed(origin, identity("two")));
    assert_eq!(refreshed.len(), 1, "a refresh never writes the anchor");
    assert_eq!(site.read(&[&refreshed[0], &login[1]]).0, usable("two"));

    let recorded = site.pairs(&Change::RecordOptOut(Box::new(origin)));
    assert_eq!(
        (recorded[0].as_str(), recorded.len()),
        ("__Host-euid=", 2),
        "an opt-out found by a refresh doesn't write it either"
    );
    let until = NOW.as_millis() + 72 * 3_600_000;
    let opted_out = usable(&format!("opted out until {until}"));
    assert_eq!(site.read(&[&recorded[1], &login[1]]).0, opted_out);
    assert_eq!(
        site.read(&[&refreshed[0], &recorded[1], &login[1]]).0,
        opted_out,
        "the record beats an identity that arrives late"
    );
    let other = site.pairs(&begin(identity("other")));
    assert_eq!(site.read(&[&recorded[1], &other[1]]).0, Outcome::None);
    assert_eq!(site.read(&[&other[0], &recorded[1], &other[1]]).0, usable("other"));
}

#[test]
fn identity_without_its_anchor_is_not_usable() {
    let site = Site::new();
    let own = site.pairs(&begin(identity("own")));
    let other = site.pairs(&begin(identity("other")));
    let out = site.pairs(&Change::OptOut);
    let orphan = Outcome::Rejected(RejectReason::LoginEnded);
    assert_eq!(site.read(&[&own[0]]).0, orphan);
    assert_eq!(site.read(&[&own[0], &other[1]]).0, orphan);
    assert_eq!(site.read(&[&own[0], &own[1], &other[1]]), (orphan, FoundAnchor::Unusable));
    let (found, anchor) = site.read(&[&own[0], &out[1]]);
    assert_eq!(found, Outcome::Rejected(RejectReason::LoginEnded));
    let until = UnixMillis::from_millis(NOW.as_millis() + 72 * 3_600_000);
    assert_eq!(anchor, FoundAnchor::OptedOut { until });
}

#[test]
fn usable_identity_wins_among_duplicates() {
    let site = Site::new();
    let login = site.pairs(&begin(identity("usable")));
    let other = site.pairs(&begin(identity("other")));
    let foreign = Site::new().pairs(&begin(identity("foreign")));
    assert_eq!(site.read(&[&other[0], &foreign[0], &login[0], &login[1]]).0, usable("usable"));
    let (found, _) = site.read(&[&foreign[0], &other[0], &foreign[0], &login[1]]);
    assert_eq!(found, Outcome::Rejected(RejectReason::LoginEnded));
    assert_eq!(site.read(&[&foreign[0], &login[1]]).0, Outcome::Rejected(RejectReason::UnknownKey));
}

#[test]
fn garbled_anchor_names_no_login() {
    let site = Site::new();
    for value in [
        "",
        "x",
        "out.",
        "out.-1",
        "out.+1",
        "out.99999999999999999999",
        "out.1 ",
        "out.123456789012345678x",
        "AAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        let (_, anchor) = site.read(&[&format!("__Host-euid-login={value}")]);
        let expected = if value == "out.1 " {
            FoundAnchor::OptedOut { until: UnixMillis::from_millis(1000) }
        } else {
            FoundAnchor::Unusable
        };
        assert_eq!(anchor, expected, "{value:?}");
    }
}

#[test]
fn lineage_has_exactly_one_text() {
    let site = Site::new();
    let plain =
        payload::write(&Login { lineage: Lineage::from_bytes([0; 16]), subject: None }, &identity("x")).unwrap();
    let sealed = aead::seal(&site.0.keys().keys(), Purpose::Identity, "__Host-euid", [9; 24], &plain).unwrap();
    let read = |anchor: &str| site.read(&[&format!("__Host-euid={sealed}"), &format!("__Host-euid-login={anchor}")]).0;
    assert_eq!(read("AAAAAAAAAAAAAAAAAAAAAA"), usable("x"));
    // The last four bits of the text are not part of the lineage; a text with other bits there is not valid.
    assert_eq!(read("AAAAAAAAAAAAAAAAAAAAAB"), Outcome::Rejected(RejectReason::LoginEnded));
}

#[test]
fn removal_cookie_repeats_the_attributes() {
    let framed = CookieConfig::default().domain("example.com").unwrap().same_site(SameSite::Partitioned).unwrap();
    for config in [CookieConfig::default(), CookieConfig::insecure(), framed] {
        let site = Site::with(config.clone());
        let attributes = |line: &String| {
            let (pair, attributes) = line.split_once("; ").unwrap();
            let kept: Vec<_> = attributes.split("; ").filter(|a| !a.starts_with("Max-Age")).collect();
            (pair.split('=').next().unwrap().to_owned(), kept.join("; "))
        };
        let mut set: Vec<_> = site.write(&begin(identity("x"))).iter().map(attributes).collect();
        let mut removed: Vec<_> = site.write(&Change::EndLogin).iter().map(attributes).collect();
        set.sort();
        removed.sort();
        assert_eq!(set, removed);
        assert_eq!(set[0].1.contains("Secure"), config != CookieConfig::insecure());
    }
}

#[test]
fn max_age_is_the_remaining_life_of_the_refresh_token_up_to_the_cap() {
    let site = Site::new();
    let login = site.write(&begin(identity("x")));
    assert!(login[0].ends_with("; Max-Age=86400"), "{}", login[0]);
    assert!(login[1].ends_with("; Max-Age=34560000"), "{}", login[1]);
    let mut times = identity("x").times();
    times.refresh_expires = UnixMillis::from_millis(i64::MAX);
    let long = Identity::new("x", "r".to_owned().into(), [5; 32].into(), times).unwrap();
    let login = Login { lineage: Lineage::from_bytes([0; 16]), subject: None };
    assert!(site.write(&renewed(login, long))[0].ends_with("; Max-Age=33696000"));
    assert!(site.write(&Change::OptOut)[1].ends_with("; Max-Age=259200"));
    assert!(site.write(&Change::RecordOptOut(Box::new(login)))[1].ends_with("; Max-Age=33696000"));
}

#[test]
fn script_cookie_lasts_as_long_as_its_token_and_no_longer_than_the_identity_cookie() {
    let config = CookieConfig::default().expose_token_to_scripts();
    let site = Site::with(config);
    let expose_token = |times: IdentityTimes| {
        let scripts = ScriptWrite::Token("token", times.identity_expires);
        site.write_with_scripts(&Change::Keep, scripts).pop().unwrap()
    };
    let mut times = identity("x").times();
    assert!(expose_token(times).ends_with("; Max-Age=3600"));
    times.identity_expires = UnixMillis::from_millis(i64::MAX);
    assert!(expose_token(times).ends_with("; Max-Age=33696000"));
}

#[test]
fn identity_too_large_for_a_cookie_is_not_written() {
    let write = |site: &Site, identity: &Identity, now| {
        let mut headers = HeaderMap::new();
        let outcome = site.0.write(&begin(identity.clone()), ScriptWrite::Keep, now, &mut headers);
        assert_eq!(headers.is_empty(), outcome.is_err());
        outcome
    };
    // Name and 4/3 of (46 + 77 + token + 7): with a name of 11 the sums are 4095 and 4097, with one of
    // 13 they are 4096 and 4097.
    let wide = CookieConfig::default().domain("example.com").unwrap();
    for (config, longest) in [(CookieConfig::default(), 2933), (wide, 2932)] {
        let site = Site::with(config);
        assert_eq!(write(&site, &identity(&"!".repeat(longest)), NOW).map(|_| ()), Ok(()));
        assert_eq!(write(&site, &identity(&"!".repeat(longest + 1)), NOW), Err(WriteError::TooLarge));
    }
}

#[test]
fn identity_with_less_than_a_second_left_is_not_written() {
    let site = Site::new();
    let write = |now| site.0.write(&begin(identity("x")), ScriptWrite::Keep, now, &mut HeaderMap::new());
    let last_second = NOW.saturating_add(Duration::from_secs(86_399));
    assert_eq!(write(last_second).map(|_| ()), Ok(()));
    assert_eq!(write(last_second.saturating_add(Duration::from_millis(1))), Err(WriteError::Expired));
}

#[test]
fn real_identity_cookie_has_771_characters_and_792_if_bound() {
    let site = Site::new();
    let advertising = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode([0x13; 164]);
    let refresh = base64::prelude::BASE64_STANDARD.encode([0x10; 291]);
    let real = Arc::new(Identity::new(advertising, refresh.into(), [5; 32].into(), identity("x").times()).unwrap());
    for (subject, expected) in [(None, 771), (Some(&b"17"[..]), 792)] {
        let value_length = site.pairs(&Change::Begin(Arc::new(NewLogin {
            identity: Arc::clone(&real),
            subject: subject.map(Into::into),
        })))[0]
            .len()
            - "__Host-euid=".len();
        assert_eq!(value_length, expected);
    }
}
