//! The browser's cookies of the layer, with the origin of each value. The model notes an origin when the layer writes
//! the value.
//!
//! An app's headers stand in the jar as cookies of the same login that do not expire. Only its requests have headers.

use std::collections::BTreeMap;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tower_euid::clock::UnixMillis;

use super::MIGRATED_LOGIN;
use super::operator::{Login, Pair, User};
use super::steps::Setup;
use crate::support::keeper::{IDENTITY_HEADER, Keeper, LOGIN_HEADER, OPT_OUT_HEADER, cookie_tag, hex_tag};
use crate::support::{ANCHOR, IDENTITY, Jar, Literal, OPT_OUT, SDK};

/// The browser, and what is known of its cookies.
#[derive(Default)]
pub(super) struct Browser {
    pub(super) jar: Jar,
    identities: BTreeMap<String, IdentityOrigin>,
    records: BTreeMap<String, RecordOrigin>,
    /// The login that each anchor names.
    anchors: BTreeMap<String, Login>,
}

/// The origin of a sealed identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdentityOrigin {
    pub(super) login: Login,
    /// The user of the login. For the migrated identity, the user who was signed in at its migration.
    pub(super) user: User,
    pub(super) pair: Pair,
    pub(super) key: usize,
}

/// The origin of a record of an opt-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordOrigin {
    pub(super) login: Login,
    pub(super) user: User,
    pub(super) until: UnixMillis,
    pub(super) key: usize,
}

/// The layer's cookies in a request, with the names of the tagged ones.
pub(super) struct Cookies {
    pub(super) anchor: Option<String>,
    /// The login that the anchor names. Without an anchor, the migrated login if the site migrates.
    pub(super) login: Option<Login>,
    /// The request brings the SDK's cookie to a site that migrates it.
    pub(super) sdk: bool,
    identities: Vec<(String, IdentityOrigin)>,
    records: Vec<(String, RecordOrigin)>,
}

/// The changes of a response, by the names and origins of its tagged cookies.
#[derive(Default)]
pub(super) struct Writes {
    pub(super) identity: Option<IdentityOrigin>,
    pub(super) record: Option<RecordOrigin>,
    pub(super) anchor: Option<String>,
    /// The names of the cookies that it sets.
    pub(super) set: Vec<String>,
    /// The names of the cookies that it removes.
    pub(super) removed: Vec<String>,
}

impl Browser {
    /// Returns the cookies that a request brings. Without the comparison of anchor and identity, its anchor is that of
    /// its newest identity.
    pub(super) fn cookies(&self, setup: Setup) -> Cookies {
        let named = |prefix: Literal| self.jar.names().into_iter().filter(move |name| name.starts_with(&*prefix));
        let value = |name| self.jar.value(name).unwrap();
        let identities: Vec<_> = named(IDENTITY).map(|name| (name.to_owned(), self.identities[value(name)])).collect();
        let records = named(OPT_OUT).map(|name| (name.to_owned(), self.records[value(name)])).collect();
        let mut anchor = self.jar.value(ANCHOR).map(str::to_owned);
        if setup == Setup::MatchingAnchor
            && let Some((_, newest)) = identities.last()
        {
            anchor = self.anchors.iter().find(|(_, login)| **login == newest.login).map(|(anchor, _)| anchor.clone());
        }
        let login = match &anchor {
            Some(anchor) if anchor == "none" => None,
            Some(anchor) => Some(self.anchors[anchor]),
            None => setup.migrates().then_some(MIGRATED_LOGIN),
        };
        let sdk = setup.migrates() && self.jar.value(SDK).is_some();
        Cookies { anchor, login, sdk, identities, records }
    }

    /// Returns a request with these cookies.
    pub(super) fn request(&self, cookies: &Cookies, setup: Setup) -> Request<()> {
        let jar = match &cookies.anchor {
            Some(anchor) => &self.jar.clone().with(ANCHOR, anchor),
            None => &self.jar,
        };
        if setup != Setup::App {
            return jar.request();
        }
        let as_header = |name: &str| match (name.strip_prefix(&*IDENTITY), name.strip_prefix(&*OPT_OUT)) {
            (Some(tag), _) => format!("{IDENTITY_HEADER}{}", hex_tag(tag)),
            (_, Some(tag)) => format!("{OPT_OUT_HEADER}{}", hex_tag(tag)),
            _ => LOGIN_HEADER.to_string(),
        };
        let keep = |keeper: Keeper, name: &str| keeper.with(as_header(name), jar.value(name).unwrap());
        jar.names().into_iter().fold(Keeper::default(), keep).request()
    }

    /// Returns whether two logins have the same tag.
    pub(super) fn has_equal_tags(&self) -> bool {
        // The anchors are in order, so those with the same tag are neighbours.
        let anchors: Vec<_> = self.anchors.keys().map(String::as_str).collect();
        let has_equal = anchors.windows(2).any(|pair| tag(pair[0]) == tag(pair[1]));
        has_equal || anchors.iter().any(|anchor| tag(anchor) == tag(FOREIGN_ANCHOR))
    }

    /// Notes the origins of a response's values.
    pub(super) fn note(&mut self, headers: &HeaderMap, writes: &Writes, login: Option<Login>) {
        let mut set = Jar::default();
        set.apply(headers);
        let value = |prefix: Literal| set.value(prefix).map(str::to_owned);
        self.identities.extend(value(IDENTITY).zip(writes.identity));
        self.records.extend(value(OPT_OUT).zip(writes.record));
        self.anchors.extend(value(ANCHOR).zip(login));
    }

    /// Stores the cookies of a response. Without tags, the browser keeps one identity and one record.
    pub(super) fn apply(&mut self, headers: &HeaderMap, writes: &Writes, setup: Setup) {
        if setup != Setup::Untagged {
            self.jar.apply(headers);
            if setup == Setup::EndedAnchorRemoved && self.jar.value(ANCHOR) == Some("none") {
                self.jar.evict(ANCHOR);
            }
            return;
        }
        let mut untagged = headers.clone();
        untagged.remove(SET_COOKIE);
        self.jar.apply(&untagged);
        for line in headers.get_all(SET_COOKIE) {
            let (name, _) = line.to_str().unwrap().split_once('=').unwrap();
            if let Some(kind) = [IDENTITY, OPT_OUT].into_iter().find(|kind| name.starts_with(&**kind)) {
                // Under one name, the value that a response sets is the only change.
                if writes.removed.iter().any(|removed| removed == name)
                    && writes.set.iter().any(|set| set.starts_with(&*kind))
                {
                    continue;
                }
                self.jar.evict(kind);
            }
            self.jar.apply(&HeaderMap::from_iter([(SET_COOKIE, HeaderValue::clone(line))]));
        }
    }
}

/// Returns the tag of the cookies of the login that an anchor names.
fn tag(anchor: &str) -> &str {
    &anchor[..4]
}

/// Returns the headers of a response to an app as `Set-Cookie`s.
pub(super) fn as_cookies(headers: &HeaderMap) -> HeaderMap {
    let line = |(name, value): (&HeaderName, &str)| {
        let name = match (name.as_str().strip_prefix(&*IDENTITY_HEADER), name.as_str().strip_prefix(&*OPT_OUT_HEADER)) {
            (Some(hex), _) => format!("{IDENTITY}{}", cookie_tag(hex)),
            (_, Some(hex)) => format!("{OPT_OUT}{}", cookie_tag(hex)),
            _ => ANCHOR.to_string(),
        };
        let end = if value.is_empty() { "; Max-Age=0" } else { "" };
        (SET_COOKIE, HeaderValue::try_from(format!("{name}={value}; Path=/; Secure{end}")).unwrap())
    };
    Keeper::lines(headers).map(line).collect()
}

impl Cookies {
    /// Returns the identity of the request's login.
    pub(super) fn identity(&self) -> Option<&IdentityOrigin> {
        let own = |identity: &&IdentityOrigin| Some(identity.login) == self.login;
        self.identities.iter().map(|(_, identity)| identity).find(own)
    }

    /// Returns the record of the request's login.
    pub(super) fn record(&self) -> Option<&RecordOrigin> {
        let own = |record: &&RecordOrigin| Some(record.login) == self.login;
        self.records.iter().map(|(_, record)| record).find(own)
    }

    /// Returns the name of each tagged cookie, and whether it belongs to the request's login.
    pub(super) fn tagged(&self) -> impl Iterator<Item = (&str, bool)> {
        let identities = self.identities.iter().map(|(name, origin)| (name, origin.login));
        let records = self.records.iter().map(|(name, origin)| (name, origin.login));
        identities.chain(records).map(|(name, login)| (name.as_str(), Some(login) == self.login))
    }

    pub(super) fn leftovers(&self) -> impl Iterator<Item = &str> {
        self.tagged().filter(|(_, own)| !own).map(|(name, _)| name)
    }

    /// Returns whether a withdrawal ends anything.
    pub(super) fn has_state(&self) -> bool {
        let has_login = self.anchor.as_ref().map_or(self.sdk, |anchor| anchor != "none");
        has_login || self.tagged().next().is_some()
    }

    /// Returns the name of an identity, or a record, of the request's login.
    pub(super) fn own_name(&self, kind: Literal) -> Option<String> {
        let tag = self.anchor.as_deref().map_or("sdk", tag);
        self.login.map(|_| format!("{kind}{tag}"))
    }
}

impl Writes {
    /// Returns the changes without their origins.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut writes = Self::default();
        for line in headers.get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            let is_tagged = name.starts_with(&*IDENTITY) || name.starts_with(&*OPT_OUT);
            match value {
                "" if is_tagged => writes.removed.push(name.to_owned()),
                value if name == ANCHOR && !value.is_empty() => writes.anchor = Some(value.to_owned()),
                _ if is_tagged => writes.set.push(name.to_owned()),
                _ => {}
            }
        }
        writes
    }

    pub(super) fn sets(&self, name: &str) -> bool {
        self.set.iter().any(|set| set == name)
    }

    pub(super) fn removes(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.removed.iter().any(|removed| removed == name))
    }
}

/// An anchor of no login.
pub(super) const FOREIGN_ANCHOR: &str = "AAAAAAAAAAAAAAAAAAAAAA";
