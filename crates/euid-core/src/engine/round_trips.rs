//! Tests that the right engine reads written state back, and that no other engine does.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use super::opt_out::opted_out_until;
use super::read::{Found, FoundAnchor, Opened, ReadOutcome};
use super::write::{Removals, ScriptWrite, Writing};
use super::{Change, Engine, NewLogin, RejectReason, Renewal, WriteError};
use crate::clock::UnixMillis;
use crate::identity::{Identity, IdentityTimes, RefreshToken};
use crate::scope::Scope;
use crate::sealed::CookieKey;
use crate::sealed::aead::BASE64URL;
use crate::sealed::login::{Lineage, Login};
use crate::sealed::payload::OptOut;
use crate::transport::route::{Carrier, Route};
use crate::transport::slots::{Brought, Hits};
use crate::transport::{CookieConfig, HeaderConfig, SameSite, Transport};

const NOW: UnixMillis = UnixMillis::from_millis(1_795_371_587_000);

fn identity(name: &str) -> Identity {
    let at = |seconds| NOW.saturating_add(Duration::from_secs(seconds));
    let times = IdentityTimes { refresh_from: at(900), identity_expires: at(3600), refresh_expires: at(86_400) };
    Identity::new(name, RefreshToken::from("refresh".to_owned()), [5; 32].into(), times).unwrap()
}

fn found_opt_out(login: Login) -> Change {
    Change::RecordOptOut(Box::new(OptOut { login, until: opted_out_until(NOW) }))
}

fn writing<'a>(change: &'a Change, removals: Removals<'a>, scripts: ScriptWrite<'a>) -> Writing<'a> {
    Writing { change, removals, scripts, saved: None }
}

struct Site(Engine);

impl Site {
    fn new() -> Self {
        Self::with(CookieConfig::default())
    }

    fn with(config: CookieConfig) -> Self {
        Self(Engine::new(CookieKey::generate().unwrap().into()).with_cookie(config))
    }

    /// The `Set-Cookie` values of a change, for a request without cookies.
    fn write(&self, change: &Change) -> Vec<String> {
        self.write_with_scripts(change, ScriptWrite::Keep)
    }

    fn write_with_scripts(&self, change: &Change, scripts: ScriptWrite<'_>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        self.0.write(writing(change, NO_REMOVALS, scripts), &|| NOW, &mut headers).unwrap();
        headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    /// `name=value` of each `Set-Cookie`.
    fn pairs(&self, change: &Change) -> Vec<String> {
        self.write(change).iter().map(|line| line.split(';').next().unwrap().to_owned()).collect()
    }

    fn read(&self, pairs: &[&str]) -> (ReadOutcome<String>, FoundAnchor<'static>) {
        let found = self.find(pairs);
        (found.outcome, found.anchor)
    }

    fn find(&self, pairs: &[&str]) -> Found<'static, String> {
        // Leaked, as the anchor that is found borrows from it.
        let headers = Box::leak(Box::new(HeaderMap::new()));
        headers.insert(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap());
        let migrates = self.0.cookies.config().js_sdk_cookie().is_some();
        let cookies = headers.get_all(COOKIE);
        let mut hits = Hits::default();
        self.0.cookies.find(&cookies, &mut hits);
        self.0.read(&self.0.cookies, &cookies, &hits, migrates, |opened, _| {
            Some(match opened {
                Opened::Identity { payload, .. } => payload.advertising_token(Scope::Euid).to_string(),
                Opened::OptOut(record) => format!("opted out until {}", record.until.as_millis()),
            })
        })
    }

    /// The names that the response of a page removes.
    fn removed_by_page(&self, pairs: &[&str]) -> Vec<String> {
        let brought = self.find(pairs).brought;
        let removals =
            Removals { route: Route::by_cookies(Scope::Euid), brought: &brought, leftovers: brought.ends_leftovers };
        let mut headers = HeaderMap::new();
        self.0.write(writing(&Change::Keep, removals, ScriptWrite::Keep), &|| NOW, &mut headers).unwrap();
        let name = |line: &HeaderValue| {
            let line = line.to_str().unwrap();
            assert!(line.ends_with("; Max-Age=0"), "{line}");
            line.split('=').next().unwrap().to_owned()
        };
        headers.get_all(SET_COOKIE).iter().map(name).collect()
    }
}

const NO_REMOVALS: Removals<'static> =
    Removals { route: Route::by_cookies(Scope::Euid), brought: &Brought::NOTHING, leftovers: false };

/// The name in `name=value`.
fn name(pair: &str) -> &str {
    pair.split('=').next().unwrap()
}

fn opted_out() -> ReadOutcome<String> {
    usable(&format!("opted out until {}", NOW.as_millis() + 72 * 3_600_000))
}

fn begin(identity: Identity) -> Change {
    Change::login(identity)
}

fn renewed(login: Login, identity: Identity) -> Change {
    Change::Renew(Box::new(Renewal { login, identity: Arc::new(identity) }))
}

fn usable(name: &str) -> ReadOutcome<String> {
    ReadOutcome::Judged(name.to_owned())
}

#[test]
fn login_is_read_back_and_a_refresh_keeps_its_lineage() {
    let site = Site::new();
    let login = site.pairs(&begin(identity("one")));
    let (found, anchor) = site.read(&[&login[0], &login[1]]);
    assert_eq!(found, usable("one"));
    let FoundAnchor::Login(lineage) = anchor else { panic!("{anchor:?}") };
    let tag = std::str::from_utf8(&lineage[..4]).unwrap();
    assert_eq!((name(&login[0]), name(&login[1])), ("__Host-euid-login", &*format!("__Host-euid.{tag}")));

    let lineage = Lineage::from_bytes(BASE64URL.decode(lineage).unwrap().try_into().unwrap());
    let origin = Login { lineage, subject: None, migrated: false };
    let refreshed = site.pairs(&renewed(origin, identity("two")));
    assert_eq!((name(&refreshed[0]), refreshed.len()), (name(&login[1]), 1), "a refresh never writes the anchor");
    assert_eq!(site.read(&[&login[0], &refreshed[0]]).0, usable("two"));

    let recorded = site.pairs(&found_opt_out(origin));
    assert_eq!((name(&recorded[0]), recorded.len()), (&*format!("__Host-euid-optout.{tag}"), 1));
    assert_eq!(site.read(&[&login[0], &recorded[0]]).0, opted_out());
    let late = site.read(&[&login[0], &refreshed[0], &recorded[0]]).0;
    assert_eq!(late, opted_out(), "the record beats an identity that arrives late");
    let other = site.pairs(&begin(identity("other")));
    let ended = ReadOutcome::Rejected(RejectReason::LoginEnded);
    assert_eq!(site.read(&[&other[0], &recorded[0]]).0, ended);
    assert_eq!(site.read(&[&other[0], &other[1], &recorded[0]]).0, usable("other"));
}

#[test]
fn stated_opt_out_is_a_login_with_a_record_and_without_an_identity() {
    let site = Site::new();
    let stated = site.pairs(&Change::opt_out());
    assert_eq!(stated.len(), 2);
    assert_eq!(site.read(&[&stated[0], &stated[1]]).0, opted_out());
    assert_eq!(site.read(&[&stated[0]]).0, ReadOutcome::None);
}

#[test]
fn identity_without_its_anchor_is_not_usable() {
    let site = Site::new();
    let own = site.pairs(&begin(identity("own")));
    let other = site.pairs(&begin(identity("other")));
    let ended = ReadOutcome::Rejected(RejectReason::LoginEnded);
    assert_eq!(site.read(&[&own[1]]).0, ended);
    assert_eq!(site.read(&[&own[1], &other[0]]).0, ended);
    assert_eq!(site.removed_by_page(&[&own[1]]), [name(&own[1])]);
    assert_eq!(site.removed_by_page(&[&own[1], &other[0], &other[1]]), [name(&own[1])]);
}

#[test]
fn unreadable_anchor_and_two_anchors_remove_nothing() {
    let site = Site::new();
    let own = site.pairs(&begin(identity("own")));
    let other = site.pairs(&begin(identity("other")));
    let unreadable = (ReadOutcome::Rejected(RejectReason::UnreadableAnchor), FoundAnchor::Unreadable);
    assert_eq!(site.read(&[&own[0], &own[1], &other[0]]), unreadable);
    assert!(site.removed_by_page(&[&own[0], &own[1], &other[0], &other[1]]).is_empty());
    for value in ["", "x", "none ", "NONE", "nonex", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAA"] {
        let anchor = format!("__Host-euid-login={value}");
        if value == "none " {
            assert_eq!(site.read(&[&anchor]).1, FoundAnchor::Ended);
            assert_eq!(site.removed_by_page(&[&anchor, &own[1]]), [name(&own[1])]);
        } else {
            assert_eq!(site.read(&[&anchor, &own[1]]), unreadable, "{value:?}");
            assert!(site.removed_by_page(&[&anchor, &own[1]]).is_empty(), "{value:?}");
        }
    }
    // As long as a lineage, but not the text of one: other characters, or bits beyond its last byte.
    for value in ["!!!!!!!!!!!!!!!!!!!!!!", "AAAAAAAAAAAAAAAAAAAAAB"] {
        let anchor = format!("__Host-euid-login={value}");
        assert!(site.removed_by_page(&[&anchor, &own[1]]).is_empty(), "{value:?}");
    }
}

#[test]
fn state_that_the_node_can_not_judge_hides_and_keeps_everything() {
    let site = Site::new();
    let own = site.pairs(&begin(identity("own")));
    let leftover = site.pairs(&begin(identity("leftover")));
    let unknown = ReadOutcome::Rejected(RejectReason::UnknownKey);
    let foreign = Site::new().pairs(&begin(identity("foreign")));
    let foreign = foreign[1].split_once('=').unwrap().1;
    let tag = name(&own[1]).strip_prefix("__Host-euid.").unwrap();
    for value in [foreign, "AgAAAAAA", ""] {
        let record = format!("__Host-euid-optout.{tag}={value}");
        assert_eq!(site.read(&[&own[0], &own[1], &record]).0, unknown, "the record may be of an opt-out");
        assert!(site.removed_by_page(&[&own[0], &own[1], &record, &leftover[1]]).is_empty());
        let identity = format!("__Host-euid.{tag}={value}");
        assert_eq!(site.read(&[&own[0], &identity]).0, unknown);
        assert!(site.removed_by_page(&[&own[0], &identity, &leftover[1]]).is_empty());
        let forged = format!("__Host-euid-optout.{tag}={}", own[1].split_once('=').unwrap().1);
        assert_eq!(site.read(&[&own[0], &identity, &forged]).0, unknown, "beside a record that does not open");
        assert_eq!(site.read(&[&own[0], &identity, &own[1]]).0, usable("own"), "one of two opens");
    }
}

#[test]
fn page_removes_eight_leftovers_and_finds_its_own_state_behind_more() {
    let site = Site::new();
    let own = site.pairs(&begin(identity("own")));
    let leftovers: Vec<_> = (0..10).map(|_| site.pairs(&begin(identity("leftover"))).swap_remove(1)).collect();
    let mut pairs: Vec<&str> = leftovers.iter().map(String::as_str).collect();
    pairs.extend([&*own[0], &*own[1]]);
    assert_eq!(site.read(&pairs).0, usable("own"));
    let removed = site.removed_by_page(&pairs);
    assert_eq!(removed, leftovers[..8].iter().map(|pair| name(pair)).collect::<Vec<_>>());
    // The same name twice is removed once.
    assert_eq!(site.removed_by_page(&[&leftovers[0], &leftovers[0], &own[0]]), [name(&leftovers[0])]);
}

#[test]
fn name_without_a_valid_tag_is_neither_read_nor_removed() {
    let site = Site::new();
    for name in
        ["__Host-euid", "__Host-euid.", "__Host-euid.abc", "__Host-euid.abcde", "__Host-euid.ab;d", "__Host-euid.ab d"]
    {
        assert!(site.removed_by_page(&[&format!("{name}=x")]).is_empty(), "{name}");
    }
    let invalid: Vec<String> = (0..9).map(|number| format!("__Host-euid.ab!{number}=x")).collect();
    let mut pairs: Vec<&str> = invalid.iter().map(String::as_str).collect();
    assert_eq!(site.read(&pairs).0, ReadOutcome::None);
    pairs.push("__Host-euid.aZ-_=x");
    assert_eq!(site.removed_by_page(&pairs), ["__Host-euid.aZ-_"], "they take no place of a valid name");
    assert_eq!(site.removed_by_page(&["__Host-euid.aZ-_=x"]), ["__Host-euid.aZ-_"]);
    assert_eq!(site.removed_by_page(&["__Host-euid-optout.aZ-_=x"]), ["__Host-euid-optout.aZ-_"]);
}

#[test]
fn migrated_identity_counts_only_without_any_anchor() {
    let migrating = CookieConfig::default().migrate_js_sdk_cookie(None).unwrap();
    let site = Site::with(migrating);
    let login = Login { lineage: Lineage::from_bytes([7; 16]), subject: None, migrated: true };
    let migrated = site.pairs(&renewed(login, identity("migrated")));
    assert_eq!(name(&migrated[0]), "__Host-euid.sdk");
    assert_eq!(site.read(&[&migrated[0]]).0, usable("migrated"));
    let recorded = site.pairs(&found_opt_out(login));
    assert_eq!(site.read(&[&migrated[0], &recorded[0]]).0, opted_out());
    let own = site.pairs(&begin(identity("own")));
    let ended = ReadOutcome::Rejected(RejectReason::LoginEnded);
    for anchor in [&own[0], "__Host-euid-login=none"] {
        assert_eq!(site.read(&[&migrated[0], anchor]).0, ended);
        assert_eq!(site.removed_by_page(&[&migrated[0], anchor]), ["__Host-euid.sdk"]);
    }
    assert_eq!(site.pairs(&Change::EndLogin)[0], "__Host-euid-login=none");
    // A node that does not migrate yet leaves it to the nodes that do.
    let other = Site(site.0.clone().with_cookie(CookieConfig::default()));
    assert_eq!(other.read(&[&migrated[0]]).0, ended);
    assert!(other.removed_by_page(&[&migrated[0]]).is_empty());
    assert_eq!(other.removed_by_page(&[&migrated[0], &own[1]]), [name(&own[1])]);
    assert_eq!(other.removed_by_page(&[&migrated[0], &own[0]]), ["__Host-euid.sdk"], "a login has ended it");
}

#[test]
fn first_usable_of_duplicate_identities_counts() {
    let site = Site::new();
    let login = site.pairs(&begin(identity("usable")));
    let other = site.pairs(&begin(identity("other")));
    let as_own = |pair: &str| format!("{}={}", name(&login[1]), pair.split_once('=').unwrap().1);
    let foreign = as_own(&Site::new().pairs(&begin(identity("foreign")))[1]);
    let renamed = as_own(&other[1]);
    assert_eq!(site.read(&[&renamed, &foreign, &login[1], &login[0]]).0, usable("usable"));
    let (found, _) = site.read(&[&renamed, &renamed, &login[0]]);
    assert_eq!(found, ReadOutcome::Rejected(RejectReason::Forged), "a name is part of what is sealed");
    for pairs in [[&foreign, &renamed], [&renamed, &foreign]] {
        let found = site.read(&[pairs[0], pairs[1], &login[0]]).0;
        assert_eq!(found, ReadOutcome::Rejected(RejectReason::UnknownKey), "one may be readable elsewhere");
    }
}

#[test]
fn lineage_has_exactly_one_text() {
    let site = Site::new();
    let login = Login { lineage: Lineage::from_bytes([0; 16]), subject: None, migrated: false };
    let identity = &site.pairs(&renewed(login, identity("x")))[0];
    let read = |anchor: &str| site.read(&[identity, &format!("__Host-euid-login={anchor}")]).0;
    assert_eq!(read("AAAAAAAAAAAAAAAAAAAAAA"), usable("x"));
    // The last four bits of the text are not part of the lineage; a text with other bits there is not valid.
    assert_eq!(read("AAAAAAAAAAAAAAAAAAAAAB"), ReadOutcome::Rejected(RejectReason::UnreadableAnchor));
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
        let lines = site.write(&begin(identity("x")));
        let mut set: Vec<_> = lines.iter().map(attributes).collect();
        let pairs: Vec<_> = lines.iter().map(|line| line.split(';').next().unwrap()).collect();
        let brought = site.find(&pairs).brought;
        let mut headers = HeaderMap::new();
        let removals = Removals { route: Route::by_cookies(Scope::Euid), brought: &brought, leftovers: false };
        site.0.write(writing(&Change::EndLogin, removals, ScriptWrite::Keep), &|| NOW, &mut headers).unwrap();
        let removed = headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap().to_owned());
        let removed: Vec<_> = removed.map(|line| attributes(&line)).collect();
        assert_eq!(removed.last().unwrap().0, config.anchor_name(Scope::Euid), "curl keeps the last removal only");
        set.reverse();
        assert_eq!(set, removed);
        assert_eq!(set[0].1.contains("Secure"), config != CookieConfig::insecure());
    }
}

#[test]
fn max_age_is_the_remaining_life_of_the_refresh_token_up_to_the_cap() {
    let site = Site::new();
    let login = site.write(&begin(identity("x")));
    assert!(login[0].ends_with("; Max-Age=34560000"), "{}", login[0]);
    assert!(login[1].ends_with("; Max-Age=86400"), "{}", login[1]);
    let mut times = identity("x").times();
    times.refresh_expires = UnixMillis::from_millis(i64::MAX);
    let long = Identity::new("x", "r".to_owned().into(), [5; 32].into(), times).unwrap();
    let login = Login { lineage: Lineage::from_bytes([0; 16]), subject: None, migrated: false };
    assert!(site.write(&renewed(login, long))[0].ends_with("; Max-Age=33696000"));
    let opted_out = site.write(&Change::opt_out());
    assert!(opted_out.len() == 2 && opted_out.iter().all(|line| line.ends_with("; Max-Age=259200")), "{opted_out:?}");
    assert!(site.write(&found_opt_out(login))[0].ends_with("; Max-Age=259200"));
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
    let write = |site: &Site, identity: &Identity, now: UnixMillis| {
        let mut headers = HeaderMap::new();
        let outcome =
            site.0.write(writing(&begin(identity.clone()), NO_REMOVALS, ScriptWrite::Keep), &|| now, &mut headers);
        assert_eq!(headers.is_empty(), outcome.is_err());
        outcome
    };
    // Name and 4/3 of (46 + 77 + token + 7): with a name of 16 the sums are 4095 and 4096, with one of 18 they are 4096
    // and 4097.
    let wide = CookieConfig::default().domain("example.com").unwrap();
    for (config, longest) in [(CookieConfig::default(), 2930), (wide, 2928)] {
        let site = Site::with(config);
        assert_eq!(write(&site, &identity(&"!".repeat(longest)), NOW).map(|_| ()), Ok(()));
        assert_eq!(write(&site, &identity(&"!".repeat(longest + 1)), NOW), Err(WriteError::TooLarge));
    }
}

#[test]
fn identity_with_less_than_a_second_left_is_not_written() {
    let site = Site::new();
    let write = |now: UnixMillis| {
        site.0.write(writing(&begin(identity("x")), NO_REMOVALS, ScriptWrite::Keep), &|| now, &mut HeaderMap::new())
    };
    let last_second = NOW.saturating_add(Duration::from_secs(86_399));
    assert_eq!(write(last_second).map(|_| ()), Ok(()));
    assert_eq!(write(last_second.saturating_add(Duration::from_millis(1))), Err(WriteError::Expired));
}

/// An identity as long as the operator's.
fn real() -> Identity {
    let advertising = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode([0x13; 164]);
    let refresh = base64::prelude::BASE64_STANDARD.encode([0x10; 291]);
    Identity::new(advertising, refresh.into(), [5; 32].into(), identity("x").times()).unwrap()
}

#[test]
fn real_identity_cookie_has_771_characters_and_792_if_bound() {
    let site = Site::new();
    let real = Arc::new(real());
    for (subject, expected) in [(None, 771), (Some(&b"17"[..]), 792)] {
        let value_length = site.pairs(&Change::Begin(Arc::new(NewLogin {
            identity: Arc::clone(&real),
            subject: subject.map(Into::into),
        })))[1]
            .len()
            - "__Host-euid.abcd=".len();
        assert_eq!(value_length, expected);
    }
}

#[test]
fn header_of_an_identity_is_named_by_its_lineage_and_has_771_characters() {
    let route = Route::new(Some(Scope::Euid), Carrier::Headers);
    let removals = Removals { route, ..NO_REMOVALS };
    let engine = Site::new().0.with_headers(HeaderConfig::default());
    for _ in 0..100 {
        let mut headers = HeaderMap::new();
        let size = engine.write(writing(&begin(real()), removals, ScriptWrite::Keep), &|| NOW, &mut headers).unwrap();
        let lineage = BASE64URL.decode(&headers["euid-login"]).unwrap();
        let digits: String = lineage[..3].iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("euid-identity-{digits}");
        assert_eq!((headers.len(), headers[&name].len()), (2, 771), "{headers:?}");
        assert_eq!(size, Some(name.len() + 771));
    }
}
