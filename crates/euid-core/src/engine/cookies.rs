//! How an identity travels: two first-party cookies, a third after an opt-out, and the only door to them.
//!
//! 1. The *identity* cookie holds the sealed identity; a refresh rewrites it.
//! 2. The *anchor* cookie holds, in the clear, the lineage of the login that counts. Only a login, a
//!    logout, a withdrawal or a stated opt-out writes it; a refresh never does, whatever it brings. An
//!    identity is usable only if the anchor names its lineage, so a late answer may bring back an old
//!    identity cookie, but not the anchor that it needs.
//! 3. An opt-out that a refresh has found is *recorded* in a cookie of its own, sealed, of the same
//!    lineage: it says nothing of any other login, and no late answer of this one removes it.
//! 4. A value that no browser would keep whole is not sent at all.
//!
//! [`header`] finds and renders, as [`config`] wants it, [`seal`] encrypts under a [`key`], [`format`] is
//! the plaintext and [`login`] whose it is. [`scripts`] are the cookies of others. Nothing here knows
//! tower, tokio or a clock.

use std::time::Duration;

use http::header::{COOKIE, GetAll, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::clock::UnixMillis;
use crate::identity::{Identity, IdentityTimes};
use crate::random;
use crate::sealed::KeyRing;
use crate::sealed::aead::{self, Head, Purpose, SealNonce, Unopened};
use crate::sealed::keys::Keys;
use crate::sealed::login::{LineageText, Login};
use crate::sealed::payload::{self, OptOut, Payload};
use crate::token::AdvertisingToken;
use crate::transport::CookieConfig;
use crate::transport::cookie::{
    self, ANCHOR_MAX_AGE, AtMostOne, Hits, IDENTITY_MAX_AGE, MAX_NAME_AND_VALUE, Names, Readers,
};
use crate::transport::js_sdk::{self, JsSdk};

/// The cookies of one configuration, ready to be read and written.
#[derive(Clone, Debug)]
pub struct Cookies {
    pub(super) names: Names,
    config: CookieConfig,
    removed_identity: Option<HeaderValue>,
    removed_anchor: Option<HeaderValue>,
    removed_record: Option<HeaderValue>,
}

/// What a request brought.
#[derive(Debug)]
pub struct Found<T> {
    pub identity: FoundIdentity<T>,
    pub anchor: Anchor,
}

/// The identity cookie of a request. Of several, the first usable one.
#[derive(Debug, PartialEq, Eq)]
pub enum FoundIdentity<T> {
    None,
    /// Of a version or key that this node does not know.
    UnknownKey,
    /// Under a known key, but it can't be used.
    Unusable(Unusable),
    /// It opened and the anchor names its lineage; what the reader made of it.
    Usable(T),
}

/// What a sealed cookie holds, of the login that the anchor names.
#[derive(Debug)]
pub enum Sealed<'a> {
    Identity {
        payload: &'a Payload<'a>,
        /// Under a key that is not the newest any more.
        old_key: bool,
    },
    OptOut {
        record: &'a OptOut,
        /// Whether an identity came beside it.
        identity_came: bool,
    },
}

/// Why an identity cookie under a known key can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not the text of a sealed identity.
    Undecodable,
    /// It does not open.
    Forged,
    /// The anchor does not name its lineage: its login has ended.
    Anchor,
}

/// The anchor cookie of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    None,
    /// It names a login, if any.
    Login(LineageText),
    OptedOut {
        until: UnixMillis,
    },
    /// Garbled, or two that differ.
    Unusable,
}

/// What to write into a response.
#[derive(Clone, Copy, Debug)]
pub enum Writing<'a> {
    /// Remove the identity.
    ClearIdentity,
    /// Remove identity and anchor.
    ClearBoth,
    /// Remove the identity; the anchor says so until it ends.
    OptOut,
    /// Remove the identity, record the opt-out.
    RecordOptOut(&'a Login),
    /// A refreshed identity of the same login.
    Store(&'a Login, &'a Identity),
    /// An identity of a new login, bound to a subject or not.
    Login(&'a Identity, Option<&'a [u8]>),
    /// The cookie for scripts alone: the token and its times, or nothing.
    HandOver(Option<(&'a str, IdentityTimes)>),
}

/// Why an identity was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// Name and value are more than browsers keep.
    TooLarge,
    /// Its refresh token has expired already.
    Expired,
    /// The operating system gave no random bytes.
    NoRandomness,
    /// The response has so many headers that there may be no room.
    HeadersFull,
}

impl Cookies {
    pub fn new(config: CookieConfig) -> Self {
        let names = Names::new(&config);
        // Rendered once: a forged cookie must not cost more than a good one.
        let removed = |name| cookie::set_cookie(&config, Readers::ServerOnly, name, "", Duration::ZERO);
        let (removed_identity, removed_anchor) = (removed(names.identity), removed(names.anchor));
        let removed_record = removed(names.opt_out);
        Self { names, config, removed_identity, removed_anchor, removed_record }
    }

    /// Finds and opens the layer's cookies. `read` gets the first record of an opt-out that opens and whose
    /// lineage the anchor names, then each such identity; the first value that it returns is the outcome.
    pub fn read<T>(
        &self,
        headers: GetAll<'_, HeaderValue>,
        keys: &KeyRing,
        mut read: impl FnMut(&Sealed<'_>) -> Option<T>,
    ) -> Found<T> {
        let mut hits = Hits::default();
        self.names.find(headers, &mut hits);
        let Hits { identities, anchor, opt_outs } = &hits;
        let anchor = parse_anchor(*anchor);
        let mut identity = FoundIdentity::None;
        let identity_came = !identities.is_empty();
        if !identity_came && opt_outs.is_empty() {
            return Found { identity, anchor };
        }
        let keys = keys.keys();
        if let Anchor::Login(lineage) = anchor {
            let record = opt_outs.iter().find_map(|value| self.open_record(&keys, value, lineage));
            let usable = record.and_then(|record| read(&Sealed::OptOut { record: &record, identity_came }));
            if let Some(usable) = usable {
                return Found { identity: FoundIdentity::Usable(usable), anchor };
            }
        }
        for value in identities {
            let found = match (Head::read(&keys, value), anchor) {
                (None, _) => FoundIdentity::UnknownKey,
                // No lineage is named, so none can match; there is no need to open it.
                (Some(_), Anchor::None | Anchor::OptedOut { .. } | Anchor::Unusable) => {
                    FoundIdentity::Unusable(Unusable::Anchor)
                }
                (Some(head), Anchor::Login(lineage)) => {
                    self.open(head, keys.is_old(head.key_id()), value, lineage, &mut read)
                }
            };
            match (&found, &identity) {
                (FoundIdentity::Usable(_), _) => return Found { identity: found, anchor },
                // A reason of a cookie under a known key takes precedence over an unknown key.
                (_, FoundIdentity::None | FoundIdentity::UnknownKey) => identity = found,
                _ => {}
            }
        }
        Found { identity, anchor }
    }

    fn open<T>(
        &self,
        head: Head<'_>,
        old_key: bool,
        value: &[u8],
        lineage: LineageText,
        read: impl FnOnce(&Sealed<'_>) -> Option<T>,
    ) -> FoundIdentity<T> {
        let opened = head.open(Purpose::Identity, self.names.identity, value, |plain| {
            let payload = Payload::parse(plain).ok_or(Unusable::Undecodable)?;
            if payload.login.lineage_text() != lineage {
                return Err(Unusable::Anchor);
            }
            read(&Sealed::Identity { payload: &payload, old_key }).ok_or(Unusable::Undecodable)
        });
        match opened {
            Ok(Ok(usable)) => FoundIdentity::Usable(usable),
            Ok(Err(unusable)) => FoundIdentity::Unusable(unusable),
            Err(Unopened::Forged) => FoundIdentity::Unusable(Unusable::Forged),
            Err(Unopened::Undecodable) => FoundIdentity::Unusable(Unusable::Undecodable),
        }
    }

    /// The record of an opt-out, if it is one of this login.
    fn open_record(&self, keys: &Keys, value: &[u8], lineage: LineageText) -> Option<OptOut> {
        let head = Head::read(keys, value)?;
        let record = head.open(Purpose::OptOut, self.names.opt_out, value, OptOut::parse).ok()??;
        (record.login.lineage_text() == lineage).then_some(record)
    }

    /// What EUID's JavaScript SDK left behind, where it is to be taken over.
    pub fn read_js_sdk(&self, headers: &HeaderMap) -> Option<JsSdk> {
        self.config.js_sdk_cookie().and_then(|_| js_sdk::read_js_sdk(headers.get_all(COOKIE)))
    }

    /// Whether there is to be a cookie for scripts.
    pub fn hands_over(&self) -> bool {
        self.config.hands_over()
    }

    /// Whether the cookie for scripts, where there is to be one, has to be put right.
    pub fn handed_over_other_than(&self, token: Option<&AdvertisingToken>, headers: &HeaderMap) -> bool {
        self.hands_over() && js_sdk::disagrees(headers.get_all(COOKIE), token.map(AdvertisingToken::peek))
    }

    /// Appends the `Set-Cookie` headers; `to_scripts` says whether these may have the token. On an error
    /// nothing was written. Returns the size of the identity's name and value, if one was written.
    pub fn write(
        &self,
        writing: Writing<'_>,
        to_scripts: bool,
        keys: &KeyRing,
        now: UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, Unwritten> {
        if headers.keys_len() > MANY_HEADERS {
            return Err(Unwritten::HeadersFull);
        }
        let keys = keys.keys();
        let removed = |cookie: &Option<HeaderValue>| cookie.clone().ok_or(Unwritten::TooLarge);
        let Names { anchor, opt_out, .. } = self.names;
        let (mut record, mut size) = (None, None);
        let mut sized = |(cookie, bytes)| {
            size = Some(bytes);
            cookie
        };
        let (identity, anchor) = match writing {
            Writing::ClearIdentity => (Some(removed(&self.removed_identity)?), None),
            Writing::ClearBoth => (Some(removed(&self.removed_identity)?), Some(removed(&self.removed_anchor)?)),
            Writing::OptOut => {
                let until = opted_out_until(now).as_millis().max(0) / 1000;
                let anchor = self.render(anchor, &format!("{OPTED_OUT}{until}"), OPT_OUT_REMEMBERED)?;
                (Some(removed(&self.removed_identity)?), Some(anchor))
            }
            Writing::RecordOptOut(&login) => {
                let plain = OptOut { login, until: opted_out_until(now) }.write();
                let (cookie, _) = self.sealed(Purpose::OptOut, opt_out, &plain, IDENTITY_MAX_AGE, &keys)?;
                record = Some(cookie);
                (Some(removed(&self.removed_identity)?), None)
            }
            Writing::Store(login, identity) => (Some(sized(self.identity(login, identity, &keys, now)?)), None),
            Writing::Login(identity, subject) => {
                let login = Login::new(subject).map_err(|_| Unwritten::NoRandomness)?;
                let lineage = login.lineage_text();
                let lineage = std::str::from_utf8(&lineage).unwrap_or_default();
                let anchor = self.render(anchor, lineage, ANCHOR_MAX_AGE)?;
                (Some(sized(self.identity(&login, identity, &keys, now)?)), Some(anchor))
            }
            Writing::HandOver(_) => (None, None),
        };
        let token = writing.token().filter(|_| to_scripts);
        let scripts = self.hands_over().then(|| js_sdk::hand_over(&self.config, token, now));
        let scripts = scripts.map(|cookie| cookie.ok_or(Unwritten::TooLarge)).transpose()?;
        // To write or remove the anchor ends the previous login, and with it the record of its opt-out.
        if anchor.is_some() {
            record = Some(removed(&self.removed_record)?);
        }
        let sdk = self.config.js_sdk_cookie().filter(|_| anchor.is_some());
        let sdk = sdk.into_iter().flat_map(|sdk| js_sdk::delete_js_sdk(&self.config, sdk));
        // The anchor's removal comes last: curl's jar file forgets all removals but the last.
        let (first, last) = if matches!(writing, Writing::ClearBoth) { (None, anchor) } else { (anchor, None) };
        let mut append = |cookie| _ = headers.try_append(SET_COOKIE, cookie);
        [identity, first, record, scripts].into_iter().flatten().for_each(&mut append);
        sdk.chain(last).for_each(append);
        Ok(size)
    }

    fn identity(
        &self,
        login: &Login,
        identity: &Identity,
        keys: &Keys,
        now: UnixMillis,
    ) -> Result<(HeaderValue, usize), Unwritten> {
        let rest = identity.times().refresh_expires.saturating_since(now);
        if rest < Duration::from_secs(1) {
            // A Max-Age of zero would remove the cookie.
            return Err(Unwritten::Expired);
        }
        let plain = payload::write(login, identity).ok_or(Unwritten::TooLarge)?;
        let max_age = rest.min(IDENTITY_MAX_AGE);
        let (cookie, size) = self.sealed(Purpose::Identity, self.names.identity, &plain, max_age, keys)?;
        Ok((cookie, size))
    }

    /// The cookie `name` with `plain` sealed in it, and the size of its name and value.
    fn sealed(
        &self,
        purpose: Purpose,
        name: &str,
        plain: &[u8],
        max_age: Duration,
        keys: &Keys,
    ) -> Result<(HeaderValue, usize), Unwritten> {
        let nonce: SealNonce = random::bytes().map_err(|_| Unwritten::NoRandomness)?;
        let value = aead::seal(keys, purpose, name, nonce, plain).ok_or(Unwritten::TooLarge)?;
        let size = name.len() + value.len();
        if size > MAX_NAME_AND_VALUE {
            return Err(Unwritten::TooLarge);
        }
        Ok((self.render(name, &value, max_age)?, size))
    }

    fn render(&self, name: &str, value: &str, max_age: Duration) -> Result<HeaderValue, Unwritten> {
        cookie::set_cookie(&self.config, Readers::ServerOnly, name, value, max_age).ok_or(Unwritten::TooLarge)
    }
}

impl Writing<'_> {
    pub fn brings_a_token(&self) -> bool {
        self.token().is_some()
    }

    /// The token that the browser has once this is written, and when it expires.
    fn token(&self) -> Option<(&str, UnixMillis)> {
        match self {
            Self::Store(_, identity) | Self::Login(identity, _) => {
                Some((identity.advertising_token(), identity.times().identity_expires))
            }
            Self::HandOver(token) => token.map(|(token, times)| (token, times.identity_expires)),
            Self::ClearIdentity | Self::ClearBoth | Self::OptOut | Self::RecordOptOut(_) => None,
        }
    }
}

fn opted_out_until(now: UnixMillis) -> UnixMillis {
    now.saturating_add(OPT_OUT_REMEMBERED)
}

fn parse_anchor(hit: AtMostOne<'_>) -> Anchor {
    let value = match hit {
        AtMostOne::None => return Anchor::None,
        AtMostOne::Conflict => return Anchor::Unusable,
        AtMostOne::One(value) => value,
    };
    if let Some(seconds) = value.strip_prefix(OPTED_OUT.as_bytes()) {
        let digits = std::str::from_utf8(seconds).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
        return match digits.and_then(|digits| digits.parse::<i64>().ok()) {
            Some(seconds) => Anchor::OptedOut { until: UnixMillis::from_millis(seconds.saturating_mul(1000)) },
            None => Anchor::Unusable,
        };
    }
    value.try_into().map_or(Anchor::Unusable, Anchor::Login)
}

/// How long an opt-out is remembered.
const OPT_OUT_REMEMBERED: Duration = Duration::from_secs(72 * 3600);
/// Of an anchor that remembers an opt-out; seconds since the Unix epoch follow.
const OPTED_OUT: &str = "out.";
/// A [`HeaderMap`] of this many names has room for more, however their hashes collide. One with more may
/// refuse any cookie, and half a logout would be none.
const MANY_HEADERS: usize = 6_000;

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;
    use crate::identity::{IdentityTimes, RefreshToken, ResponseKey};
    use crate::sealed::CookieKey;
    use crate::sealed::aead::BASE64URL;
    use crate::transport::SameSite;

    const NOW: UnixMillis = UnixMillis::from_millis(1_795_371_587_000);

    fn identity(name: &str) -> Identity {
        let at = |seconds| NOW.saturating_add(Duration::from_secs(seconds));
        let times = IdentityTimes { refresh_from: at(900), identity_expires: at(3600), refresh_expires: at(86_400) };
        Identity::new(name, RefreshToken::from("refresh".to_owned()), [5; 32].into(), times).unwrap()
    }

    struct Site {
        cookies: Cookies,
        keys: KeyRing,
    }

    impl Site {
        fn new() -> Self {
            Self { cookies: Cookies::new(CookieConfig::default()), keys: CookieKey::generate().unwrap().into() }
        }

        /// The `Set-Cookie` values of a writing.
        fn write(&self, writing: Writing<'_>) -> Vec<String> {
            let mut headers = HeaderMap::new();
            self.cookies.write(writing, true, &self.keys, NOW, &mut headers).unwrap();
            headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        }

        /// `name=value` of each `Set-Cookie`.
        fn pairs(&self, writing: Writing<'_>) -> Vec<String> {
            self.write(writing).iter().map(|line| line.split(';').next().unwrap().to_owned()).collect()
        }

        fn read(&self, pairs: &[&str]) -> (FoundIdentity<String>, Anchor) {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap());
            let found = self.cookies.read(headers.get_all(COOKIE), &self.keys, |sealed| {
                Some(match sealed {
                    Sealed::Identity { payload, .. } => payload.advertising_token().to_string(),
                    Sealed::OptOut { record, .. } => format!("opted out until {}", record.until.as_millis()),
                })
            });
            (found.identity, found.anchor)
        }
    }

    fn usable(name: &str) -> FoundIdentity<String> {
        FoundIdentity::Usable(name.to_owned())
    }

    #[test]
    fn a_login_is_read_back_and_a_refresh_keeps_its_lineage() {
        let site = Site::new();
        let login = site.pairs(Writing::Login(&identity("one"), None));
        let (found, anchor) = site.read(&[&login[0], &login[1]]);
        assert_eq!(found, usable("one"));
        let Anchor::Login(lineage) = anchor else { panic!("{anchor:?}") };

        let lineage = BASE64URL.decode(lineage).unwrap().try_into().unwrap();
        let origin = Login { lineage, subject: None };
        let refreshed = site.pairs(Writing::Store(&origin, &identity("two")));
        assert_eq!(refreshed.len(), 1, "a refresh never writes the anchor");
        assert_eq!(site.read(&[&refreshed[0], &login[1]]).0, usable("two"));

        let recorded = site.pairs(Writing::RecordOptOut(&origin));
        assert_eq!((recorded[0].as_str(), recorded.len()), ("__Host-euid=", 2), "nor if it finds an opt-out");
        let until = NOW.as_millis() + 72 * 3_600_000;
        let opted_out = usable(&format!("opted out until {until}"));
        assert_eq!(site.read(&[&recorded[1], &login[1]]).0, opted_out);
        assert_eq!(site.read(&[&refreshed[0], &recorded[1], &login[1]]).0, opted_out, "whatever comes late");
        let other = site.pairs(Writing::Login(&identity("other"), None));
        assert_eq!(site.read(&[&recorded[1], &other[1]]).0, FoundIdentity::None);
        assert_eq!(site.read(&[&other[0], &recorded[1], &other[1]]).0, usable("other"));
    }

    #[test]
    fn an_identity_without_its_anchor_is_not_usable() {
        let site = Site::new();
        let mine = site.pairs(Writing::Login(&identity("mine"), None));
        let other = site.pairs(Writing::Login(&identity("other"), None));
        let out = site.pairs(Writing::OptOut);
        let orphan = FoundIdentity::Unusable(Unusable::Anchor);
        assert_eq!(site.read(&[&mine[0]]).0, orphan);
        assert_eq!(site.read(&[&mine[0], &other[1]]).0, orphan);
        assert_eq!(site.read(&[&mine[0], &mine[1], &other[1]]), (orphan, Anchor::Unusable));
        let (found, anchor) = site.read(&[&mine[0], &out[1]]);
        assert_eq!(found, FoundIdentity::Unusable(Unusable::Anchor));
        let until = UnixMillis::from_millis(NOW.as_millis() + 72 * 3_600_000);
        assert_eq!(anchor, Anchor::OptedOut { until });
    }

    #[test]
    fn of_duplicates_the_usable_one_counts() {
        let site = Site::new();
        let login = site.pairs(Writing::Login(&identity("usable"), None));
        let other = site.pairs(Writing::Login(&identity("other"), None));
        let foreign = Site::new().pairs(Writing::Login(&identity("foreign"), None));
        assert_eq!(site.read(&[&other[0], &foreign[0], &login[0], &login[1]]).0, usable("usable"));
        let (found, _) = site.read(&[&foreign[0], &other[0], &foreign[0], &login[1]]);
        assert_eq!(found, FoundIdentity::Unusable(Unusable::Anchor));
        assert_eq!(site.read(&[&foreign[0], &login[1]]).0, FoundIdentity::UnknownKey);
    }

    #[test]
    fn a_garbled_anchor_names_nothing() {
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
                Anchor::OptedOut { until: UnixMillis::from_millis(1000) }
            } else {
                Anchor::Unusable
            };
            assert_eq!(anchor, expected, "{value:?}");
        }
    }

    #[test]
    fn a_lineage_has_one_text_only() {
        let site = Site::new();
        let plain = payload::write(&Login { lineage: [0; 16], subject: None }, &identity("x")).unwrap();
        let sealed = aead::seal(&site.keys.keys(), Purpose::Identity, "__Host-euid", [9; 24], &plain).unwrap();
        let read =
            |anchor: &str| site.read(&[&format!("__Host-euid={sealed}"), &format!("__Host-euid-login={anchor}")]).0;
        assert_eq!(read("AAAAAAAAAAAAAAAAAAAAAA"), usable("x"));
        // Its last four bits are no part of the lineage, and no other text of it names it.
        assert_eq!(read("AAAAAAAAAAAAAAAAAAAAAB"), FoundIdentity::Unusable(Unusable::Anchor));
    }

    #[test]
    fn removal_repeats_the_attributes_of_setting() {
        let framed = CookieConfig::default().domain("example.com").unwrap().same_site(SameSite::Partitioned).unwrap();
        for config in [CookieConfig::default(), CookieConfig::insecure(), framed] {
            let site = Site { cookies: Cookies::new(config.clone()), ..Site::new() };
            let attributes = |line: &String| {
                let (pair, attributes) = line.split_once("; ").unwrap();
                let kept: Vec<_> = attributes.split("; ").filter(|a| !a.starts_with("Max-Age")).collect();
                (pair.split('=').next().unwrap().to_owned(), kept.join("; "))
            };
            let mut set: Vec<_> = site.write(Writing::Login(&identity("x"), None)).iter().map(attributes).collect();
            let mut removed: Vec<_> = site.write(Writing::ClearBoth).iter().map(attributes).collect();
            set.sort();
            removed.sort();
            assert_eq!(set, removed);
            assert_eq!(set[0].1.contains("Secure"), config != CookieConfig::insecure());
        }
    }

    #[test]
    fn max_age_is_what_the_refresh_token_has_left_and_never_above_the_cap() {
        let site = Site::new();
        let login = site.write(Writing::Login(&identity("x"), None));
        assert!(login[0].ends_with("; Max-Age=86400"), "{}", login[0]);
        assert!(login[1].ends_with("; Max-Age=34560000"), "{}", login[1]);
        let mut times = identity("x").times();
        times.refresh_expires = UnixMillis::from_millis(i64::MAX);
        let long = Identity::new("x", "r".to_owned().into(), [5; 32].into(), times).unwrap();
        let login = Login { lineage: [0; 16], subject: None };
        assert!(site.write(Writing::Store(&login, &long))[0].ends_with("; Max-Age=33696000"));
        assert!(site.write(Writing::OptOut)[1].ends_with("; Max-Age=259200"));
        assert!(site.write(Writing::RecordOptOut(&login))[1].ends_with("; Max-Age=33696000"));
    }

    #[test]
    fn a_token_for_scripts_lasts_as_long_as_it_can_be_used_and_no_longer_than_the_identity_cookie() {
        let config = CookieConfig::default().expose_token_to_scripts();
        let site = Site { cookies: Cookies::new(config), ..Site::new() };
        let hand_over = |times| site.write(Writing::HandOver(Some(("token", times)))).pop().unwrap();
        let mut times = identity("x").times();
        assert!(hand_over(times).ends_with("; Max-Age=3600"));
        times.identity_expires = UnixMillis::from_millis(i64::MAX);
        assert!(hand_over(times).ends_with("; Max-Age=33696000"));
    }

    #[test]
    fn what_a_browser_would_not_keep_is_not_written() {
        let write = |site: &Site, identity: &Identity, now| {
            let mut headers = HeaderMap::new();
            let outcome = site.cookies.write(Writing::Login(identity, None), true, &site.keys, now, &mut headers);
            assert_eq!(headers.is_empty(), outcome.is_err());
            outcome
        };
        // Name and 4/3 of (46 + 77 + token + 7): with a name of 11 the sums are 4095 and 4097, with one of
        // 13 they are 4096 and 4097.
        let wide = CookieConfig::default().domain("example.com").unwrap();
        for (config, longest) in [(CookieConfig::default(), 2933), (wide, 2932)] {
            let site = Site { cookies: Cookies::new(config), ..Site::new() };
            assert_eq!(write(&site, &identity(&"!".repeat(longest)), NOW).map(|_| ()), Ok(()));
            assert_eq!(write(&site, &identity(&"!".repeat(longest + 1)), NOW), Err(Unwritten::TooLarge));
        }
    }

    #[test]
    fn what_would_be_removed_by_its_max_age_is_not_written() {
        let site = Site::new();
        let write = |now| {
            site.cookies.write(Writing::Login(&identity("x"), None), true, &site.keys, now, &mut HeaderMap::new())
        };
        let last_second = NOW.saturating_add(Duration::from_secs(86_399));
        assert_eq!(write(last_second).map(|_| ()), Ok(()));
        assert_eq!(write(last_second.saturating_add(Duration::from_millis(1))), Err(Unwritten::Expired));
    }

    #[test]
    fn a_real_pair_is_at_most_780_characters_and_800_if_bound() {
        let site = Site::new();
        let advertising = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode([0x13; 164]);
        let refresh = base64::prelude::BASE64_STANDARD.encode([0x10; 291]);
        let real = Identity::new(advertising, refresh.into(), [5; 32].into(), identity("x").times()).unwrap();
        for (subject, expected) in [(None, 771), (Some(&b"17"[..]), 792)] {
            let value_length = site.pairs(Writing::Login(&real, subject))[0].len() - "__Host-euid=".len();
            assert_eq!(value_length, expected);
        }
    }

    /// The vectors are made by the independent implementation in `tests/interop`.
    #[test]
    fn every_vector_of_the_format_opens_or_fails_as_named() {
        use serde_json::Value;
        let file: Value = serde_json::from_str(include_str!("../../tests/vectors/cookie-format.json")).unwrap();
        let bytes = base64::prelude::BASE64_STANDARD.decode(file["key_b64"].as_str().unwrap()).unwrap();
        let key = CookieKey::of(bytes.try_into().unwrap());
        assert_eq!(key.id(), file["key_id_hex"].as_str().unwrap());
        let keys = KeyRing::from(key);
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 19);
        for vector in vectors {
            let value = vector["value"].as_str().unwrap();
            let keys = keys.keys();
            let name = vector["name"].as_str().unwrap();
            let purpose = if name.ends_with("-optout") { Purpose::OptOut } else { Purpose::Identity };
            let opened = Head::read(&keys, value.as_bytes()).map(|head| {
                head.open(purpose, name, value.as_bytes(), |plain| match purpose {
                    Purpose::Identity => Payload::parse(plain).map(|payload| (payload.login, payload.identity(), None)),
                    Purpose::OptOut => OptOut::parse(plain).map(|record| (record.login, None, Some(record))),
                })
            });
            if let Some(outcome) = vector["fails"].as_str() {
                let got = match opened {
                    None => "unknown",
                    Some(Err(Unopened::Forged)) => "forged",
                    Some(Ok(None) | Err(Unopened::Undecodable)) => "undecodable",
                    Some(Ok(Some(_))) => "nothing",
                };
                assert_eq!(got, outcome, "{}", vector["note"]);
                continue;
            }
            let (login, identity, record) = opened.unwrap().unwrap().unwrap();
            let holds = if record.is_some() { &vector["opt_out"] } else { &vector["identity"] };
            assert_eq!(BASE64URL.encode(login.lineage), holds["lineage"].as_str().unwrap());
            match holds["subject_of"].as_str() {
                Some(id) => assert!(login.is_bound_to(id.as_bytes()), "{}", vector["note"]),
                None => assert!(!login.is_bound(), "{}", vector["note"]),
            }
            let (purpose, plain) = match (identity, record) {
                (Some(identity), None) => {
                    let expected = |member: &str| holds[member].as_str().unwrap().to_owned();
                    let millis = |member: &str| UnixMillis::from_millis(holds[member].as_i64().unwrap());
                    let times = IdentityTimes {
                        refresh_from: millis("refresh_from"),
                        identity_expires: millis("identity_expires"),
                        refresh_expires: millis("refresh_expires"),
                    };
                    let key = ResponseKey::from_base64(&expected("refresh_response_key")).unwrap();
                    let refresh_token = expected("refresh_token").into();
                    let expected = Identity::unsealed(expected("advertising_token").into(), refresh_token, key, times);
                    assert_eq!(Ok(&identity), expected.as_ref(), "{}", vector["note"]);
                    (Purpose::Identity, payload::write(&login, &identity).unwrap().to_vec())
                }
                (None, Some(record)) => {
                    assert_eq!(record.until.as_millis(), holds["until"].as_i64().unwrap());
                    (Purpose::OptOut, record.write())
                }
                other => panic!("{other:?}"),
            };

            let digits = vector["nonce_hex"].as_str().unwrap();
            let nonce = std::array::from_fn(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap());
            assert_eq!(aead::seal(&keys, purpose, name, nonce, &plain).as_deref(), Some(value));
        }
    }
}
