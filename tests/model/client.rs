//! A client of the explorations: the cookies of a browser, or the headers that an app keeps instead, by what they are.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use euid_core::clock::UnixMillis;
use euid_core::identity::{Identity, IdentityTimes};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::support::keeper::{IDENTITY_HEADER, Keeper, LOGIN_HEADER, OPT_OUT_HEADER};
use crate::support::{ANCHOR, IDENTITY, Literal, OPT_OUT, SDK};

/// Whom a cookie belongs to: a login by its number, or the migrated identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Person {
    Login(u8),
    Migrated,
}

/// A cookie, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Slot {
    Anchor,
    Identity(Person),
    OptOut(Person),
    Sdk,
}

/// What a response tells the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Told {
    Login(u8),
    OptOut(u8),
    Logout,
    Migration,
    FoundOptOut(Person),
    /// The identity is removed: the operator refused it, or it is another user's.
    Removed(Person),
}

/// One `Set-Cookie`, or one header of an app.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) slot: Slot,
    pub(super) name: Rc<str>,
    /// Without a value, it is a removal.
    pub(super) value: Option<Rc<str>>,
    /// The login that an anchor names.
    pub(super) names: Option<Person>,
}

impl Effect {
    /// The effect, for comparison.
    pub(super) fn cookie(&self) -> Cookie {
        (self.slot, self.value.is_some(), self.names, self.key())
    }

    /// The beginning of a sealed value, which names its key.
    fn key(&self) -> Option<String> {
        let is_sealed = matches!(self.slot, Slot::Identity(_) | Slot::OptOut(_));
        self.value.as_deref().filter(|_| is_sealed).and_then(|value| value.get(..8)).map(str::to_owned)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) effects: Vec<Effect>,
    pub(super) told: Option<Told>,
}

impl Response {
    /// Takes what the client applies next: all changes, or the first one alone. Returns also what that tells.
    pub(super) fn take(&mut self, singly: bool) -> (Vec<Effect>, Option<Told>) {
        if !singly || self.effects.len() < 2 {
            return (std::mem::take(&mut self.effects), self.told.take());
        }
        let first = self.effects.remove(0);
        let mut told = self.told;
        // What a response tells counts once the cookie that says it is there; a logout can say it twice.
        if says(&first, told) {
            self.told = told.filter(|_| self.effects.iter().any(|effect| says(effect, told)));
        } else {
            told = None;
        }
        (vec![first], told)
    }

    /// The response, for comparison.
    pub(super) fn key(&self) -> (Vec<Cookie>, Option<Told>) {
        (self.effects.iter().map(Effect::cookie).collect(), self.told)
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:", self.told)?;
        self.effects.iter().try_for_each(|effect| {
            let what = if effect.value.is_some() { "set" } else { "removed" };
            write!(f, " {:?} {what},", effect.slot)
        })
    }
}

/// How cookies name a login.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) tag: Rc<str>,
    /// The value of its anchor.
    pub(super) anchor: Rc<str>,
}

/// Returns whether two logins have the same tag. Those that have no names yet don't count.
pub(super) fn has_equal_tags(logins: &[Names]) -> bool {
    let mut tags: Vec<_> = logins.iter().map(|names| &names.tag).filter(|tag| !tag.is_empty()).collect();
    tags.sort_unstable();
    tags.windows(2).any(|pair| pair[0] == pair[1])
}

/// A cookie, for comparison: whether it is set, the login that an anchor names, and the key that seals it.
pub(super) type Cookie = (Slot, bool, Option<Person>, Option<String>);

/// What a client keeps.
pub(super) type Kept = BTreeMap<Slot, Effect>;

/// Returns the headers of a request with all that a client keeps.
pub(super) fn request(kept: &Kept, app: bool) -> HeaderMap {
    let lines = kept.values().map(|effect| (&*effect.name, effect.value.as_deref().unwrap_or_default()));
    if app {
        return lines.collect::<Keeper>().request().into_parts().0.headers;
    }
    let mut headers = HeaderMap::new();
    if !kept.is_empty() {
        let pairs: Vec<String> = lines.map(|(name, value)| format!("{name}={value}")).collect();
        headers.insert(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap());
    }
    headers
}

/// Returns the changes of a response, to cookies or to headers.
pub(super) fn effects(logins: &[Names], headers: &HeaderMap, app: bool) -> Vec<Effect> {
    if app {
        // They apply at once, so their order makes no other state.
        let mut all: Vec<_> =
            Keeper::lines(headers).map(|(name, value)| effect(logins, name.as_str(), value)).collect();
        all.sort_by_key(|effect| effect.slot);
        return all;
    }
    let line = |line: &HeaderValue| {
        let line = line.to_str().unwrap();
        let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
        assert_eq!(value.is_empty(), line.ends_with("; Max-Age=0"), "{line}");
        effect(logins, name, value)
    };
    headers.get_all(SET_COOKIE).iter().map(line).collect()
}

/// A change, which without a value is a removal.
pub(super) fn effect(logins: &[Names], name: &str, value: &str) -> Effect {
    let [identity, opt_out] = [&TAGGED[..2], &TAGGED[2..]].map(|prefixes| tag_of(name, prefixes));
    let slot = match (identity, opt_out) {
        (Some(tag), _) => Slot::Identity(of_tag(logins, tag)),
        (_, Some(tag)) => Slot::OptOut(of_tag(logins, tag)),
        _ if name == ANCHOR || name == LOGIN_HEADER => Slot::Anchor,
        _ if name == SDK => Slot::Sdk,
        _ => panic!("{name}"),
    };
    let value = Some(value).filter(|value| !value.is_empty());
    let names = value.filter(|value| slot == Slot::Anchor && *value != "none");
    let names = names.map(|anchor| login_of(logins, |known| *known.anchor == *anchor));
    Effect { slot, name: name.into(), value: value.map(Rc::from), names }
}

/// The tag in a name that begins with one of these.
pub(super) fn tag_of<'a>(name: &'a str, prefixes: &[Literal]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| name.strip_prefix(&**prefix))
}

/// What the names with a tag begin with: those of identities, then those of records.
pub(super) const TAGGED: &[Literal] = &[IDENTITY, IDENTITY_HEADER, OPT_OUT, OPT_OUT_HEADER];

pub(super) fn of_tag(logins: &[Names], tag: &str) -> Person {
    if tag == "sdk" { Person::Migrated } else { login_of(logins, |known| *known.tag == *tag) }
}

/// The login that has these names, or else the one that begins now.
pub(super) fn login_of(logins: &[Names], has: impl FnMut(&Names) -> bool) -> Person {
    let number = logins.iter().position(has).map_or(logins.len(), |position| position + 1);
    Person::Login(u8::try_from(number).unwrap())
}

/// Whether it is this cookie that tells what the response tells.
pub(super) fn says(effect: &Effect, told: Option<Told>) -> bool {
    match told {
        Some(Told::Login(_) | Told::OptOut(_) | Told::Logout) => effect.slot == Slot::Anchor,
        Some(Told::FoundOptOut(_)) => matches!(effect.slot, Slot::OptOut(_)) && effect.value.is_some(),
        Some(Told::Removed(person)) => effect.slot == Slot::Identity(person) || effect.slot == Slot::Sdk,
        Some(Told::Migration) => effect.slot == Slot::Identity(Person::Migrated),
        None => false,
    }
}

pub(super) fn identity(token: &str, now: UnixMillis) -> Identity {
    let day = Duration::from_secs(86_400);
    let times = IdentityTimes {
        refresh_from: now,
        identity_expires: now.saturating_add(day),
        refresh_expires: now.saturating_add(2 * day),
    };
    Identity::new(token, "r".to_owned().into(), [7; 32].into(), times).unwrap()
}

pub(super) fn token(person: Person) -> String {
    match person {
        Person::Login(login) => login.to_string(),
        Person::Migrated => "sdk".to_owned(),
    }
}

pub(super) fn person_of(token: &str) -> Person {
    token.parse().map_or(Person::Migrated, Person::Login)
}

pub(super) fn user(login: u8) -> &'static [u8] {
    const USERS: [&[u8]; 5] = [b"0", b"1", b"2", b"3", b"4"];
    USERS[usize::from(login)]
}
