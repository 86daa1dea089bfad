//! The keys that cookies are sealed under.
//!
//! 1. The first key seals, every key opens. A cookie holds the id of its key, so exactly one key is
//!    tried.
//! 2. A weak key is refused when it is read (`weak.rs` has the rules). A ring that holds the same key, or
//!    key id, twice is refused when it is made.
//! 3. A ring can be reloaded while it is in use; a request takes the keys once, without a lock.
//! 4. Keys are wiped when dropped and redacted in `Debug`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::KeyInit;
use zeroize::Zeroizing;

use super::aead::{self, HeadText};
use super::cookie_key::{CookieKey, KeyId, refused};
use crate::error::ConfigError;
use crate::hex::hex;
use crate::scope::Scope;

/// The keys of a site: the first seals, all open. A clone is cheap and shares the keys: after
/// a [`reload`](Self::reload) of one, all have the new keys.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::{CookieKey, KeyRing};
///
/// let (new, old) = (CookieKey::generate()?, CookieKey::generate()?);
/// // As in an environment variable or a mounted file:
/// let text = format!("{},{}", new.expose_base64().as_str(), old.expose_base64().as_str());
/// let ring: KeyRing = text.parse()?;
/// // The same from keys:
/// let ring = KeyRing::new([new, old])?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// # Changing keys
///
/// In three steps, each on all nodes before the next; no visitor is logged out, whichever node answers:
///
/// | step | ring | what it is for |
/// | --- | --- | --- |
/// | 1 | `old,new` | every node can open cookies under the new key |
/// | 2 | `new,old` | new cookies, and each that a refresh rewrites, are under the new key |
/// | 3 | `new` | the cookies under the old key have expired |
///
/// A node that has not reached a step yet, or that is rolled back to the one before, opens all cookies that
/// the others seal. It leaves a cookie under a key that it does not have alone.
///
/// Between 2 and 3 wait for as long as a refresh token lives, 30 days on EUID's production: a visitor
/// who stays away for longer has no identity to lose. After a leak do all three at once: every visitor's
/// identity is gone, and the leaked ones with them.
#[derive(Clone)]
pub struct KeyRing(Arc<ArcSwap<Keys>>);

/// The keys of a ring, as they are at one moment.
#[derive(Debug)]
pub(crate) struct Keys(Vec<RingKey>);

/// A key that is ready for use: its schedule is computed once.
pub(crate) struct RingKey {
    /// The id by which a cookie names it.
    pub id: KeyId,
    /// Seals and opens.
    pub cipher: Xaes256Gcm,
    identity_head: HeadText,
}

impl KeyRing {
    /// A ring of `keys`. The first one seals.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, KeyRing};
    /// let key = CookieKey::generate()?;
    /// assert!(KeyRing::new([CookieKey::generate()?, key.clone()]).is_ok());
    /// assert!(KeyRing::new([key.clone(), key]).is_err() && KeyRing::new([]).is_err());
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no key, or if two have the same key id (as the same key given twice has).
    pub fn new(keys: impl IntoIterator<Item = CookieKey>) -> Result<Self, ConfigError> {
        let mut ring: Vec<RingKey> = Vec::new();
        for (position, key) in keys.into_iter().enumerate() {
            let key = RingKey::from(key);
            if let Some(twin) = ring.iter().position(|other| other.id == key.id) {
                let (first, second) = (twin + 1, position + 1);
                return Err(refused(format!(
                    "cookie keys {first} and {second} have the same key id: is it one key, twice?"
                )));
            }
            ring.push(key);
        }
        if ring.is_empty() {
            return Err(refused("there is no cookie key"));
        }
        Ok(Self::of(ring))
    }

    /// The ring in the environment variable `name`: keys in standard base64 of 32 bytes each, separated by commas. The
    /// first one seals.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::KeyRing;
    /// let error = KeyRing::from_env("EUID_COOKIE_KEY").unwrap_err(); // without the `S`
    /// assert_eq!(error.to_string(), "EUID_COOKIE_KEY is not set (or is not UTF-8)");
    /// ```
    ///
    /// # Errors
    ///
    /// If the variable is not set, or as for [`new`](Self::new) and [`CookieKey::from_base64`], or if a key is also the
    /// value of `EUID_CLIENT_SECRET` or `UID2_CLIENT_SECRET`. The text names the variable and the position of the key,
    /// never a value.
    pub fn from_env(name: &str) -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).map(Zeroizing::new);
        let not_set = || refused(format!("{name} is not set (or is not UTF-8)")).with_variable(name.to_owned());
        let value = variable(name).map_err(|_| not_set())?;
        let secrets = Scope::ALL.map(|scope| format!("{}CLIENT_SECRET", scope.env_prefix()));
        let secrets = secrets.map(|name| variable(&name).unwrap_or_default());
        Self::parse_beside(&value, &secrets.each_ref().map(|secret| secret.as_str()))
            .map_err(|error| error.in_variable(name.to_owned()))
    }

    /// The ring that `keys` lists, as in [`from_env`](Self::from_env). None of them may be one of the client secrets,
    /// as of EUID and of UID2: the operator knows its own, so it could open cookies.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, KeyRing};
    /// let (key, secret) = (CookieKey::generate()?.expose_base64(), CookieKey::generate()?.expose_base64());
    /// assert!(KeyRing::parse_beside(&key, &[&secret]).is_ok());
    /// let error = KeyRing::parse_beside(&secret, &[&secret]).unwrap_err();
    /// assert!(error.to_string().starts_with("cookie key 1 is the client secret"));
    /// # Ok::<_, tower_euid::error::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new) and [`CookieKey::from_base64`], or if a key is a client secret.
    pub fn parse_beside(keys: &str, client_secrets: &[&str]) -> Result<Self, ConfigError> {
        let is_secret = |key: &str| client_secrets.iter().any(|secret| !key.is_empty() && secret.trim() == key);
        match keys.split(',').position(|key| is_secret(key.trim())) {
            Some(position) => Err(refused(format!(
                "cookie key {} is the client secret; make one of your own, as with `openssl rand -base64 32`",
                position + 1
            ))),
            None => keys.parse(),
        }
    }

    /// Replaces the keys with those of `newer`, in every clone, also in the layers that were made with one.
    /// Requests under way finish with the old keys or with the new ones.
    /// See [changing keys](Self#changing-keys).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{ConfigError, CookieKey, KeyRing};
    /// # fn reread(path: &str, keys: &KeyRing) -> Result<(), Box<dyn std::error::Error>> {
    /// // On a signal, or when the file of a mounted secret has changed; an error leaves all as it was:
    /// keys.reload(std::fs::read_to_string(path)?.parse()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reload(&self, newer: Self) {
        self.0.store(newer.0.load_full());
    }

    /// The keys at this moment.
    pub(crate) fn keys(&self) -> Guard<Arc<Keys>> {
        self.0.load()
    }

    fn of(keys: Vec<RingKey>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Keys(keys))))
    }
}

impl Keys {
    /// The one key that may open a cookie with this key id.
    #[must_use]
    pub(crate) fn find(&self, id: KeyId) -> Option<&RingKey> {
        self.0.iter().find(|key| key.id == id)
    }

    /// The key of an identity cookie that begins with this text.
    #[must_use]
    pub(crate) fn find_by_head(&self, head: &HeadText) -> Option<&RingKey> {
        self.0.iter().find(|key| key.identity_head == *head)
    }

    /// The key that seals.
    #[must_use]
    pub(crate) fn first(&self) -> Option<&RingKey> {
        self.0.first()
    }

    /// Whether a cookie with this key id would be sealed under another key today.
    #[must_use]
    pub(crate) fn is_old(&self, id: KeyId) -> bool {
        self.first().is_some_and(|first| first.id != id)
    }
}

/// Shows the id only.
impl fmt::Debug for RingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingKey").field("id", &hex(&self.id)).finish_non_exhaustive()
    }
}

impl From<CookieKey> for RingKey {
    fn from(key: CookieKey) -> Self {
        let id = key.key_id();
        Self { id, cipher: Xaes256Gcm::new((&*key.0).into()), identity_head: aead::identity_head(id) }
    }
}

impl FromStr for KeyRing {
    type Err = ConfigError;

    /// Keys in standard base64 of 32 bytes each, separated by commas; spaces around them are ignored. The first one
    /// seals.
    fn from_str(keys: &str) -> Result<Self, ConfigError> {
        Self::new(CookieKey::parse_list(keys)?)
    }
}

impl From<CookieKey> for KeyRing {
    fn from(key: CookieKey) -> Self {
        Self::of(vec![key.into()])
    }
}

/// Shows the [ids](CookieKey::id) of the keys, in their order.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.keys().0.iter().map(|key| hex(&key.id)).collect();
        f.debug_struct("KeyRing").field("keys", &ids).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;
    use crate::error::Setting;

    #[test]
    fn key_ring_errors_name_the_setting_and_the_variable() {
        let published = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for error in [
            KeyRing::new([]).unwrap_err(),
            KeyRing::from_env("EUID_NO_SUCH_VARIABLE").unwrap_err(),
            "short".parse::<KeyRing>().unwrap_err(),
            ",".parse::<KeyRing>().unwrap_err(),
            CookieKey::from_base64(published).unwrap_err(),
            KeyRing::parse_beside(published, &[published]).unwrap_err(),
        ] {
            assert_eq!(error.setting(), Some(Setting::CookieKeys), "{error}");
        }
        assert_eq!(KeyRing::from_env("EUID_NO_SUCH_VARIABLE").unwrap_err().variable(), Some("EUID_NO_SUCH_VARIABLE"));
    }

    use zeroize::ZeroizeOnDrop;

    fn text() -> String {
        CookieKey::generate().unwrap().expose_base64().to_string()
    }

    #[test]
    fn key_ring_errors_name_position_and_rule_but_no_key() {
        let (a, b) = (text(), text());
        let published = BASE64_STANDARD.encode(std::array::from_fn::<u8, 32, _>(|i| i as u8));
        for (keys, complaint) in [
            (String::new(), "cookie key 1 is empty"),
            (format!("{a},"), "cookie key 2 is empty: is there a comma too many?"),
            (format!("{a},{a}"), "cookie keys 1 and 2 have the same"),
            (format!("{a}, {b} ,{a}"), "cookie keys 1 and 3 have the same"),
            (format!("{a};{b}"), "cookie key 1 has a `;`, a blank or a line end in it: cookie keys are separated by"),
            (format!("{a} {b}"), "cookie key 1 has a `;`, a blank or a line end in it: cookie keys are separated by"),
            (format!("{a},{b}\n{a}"), "cookie key 2 has a `;`, a blank or a line end in it: cookie keys are separated"),
            (format!("\"{a},{b}\""), "cookie key 1 has quotes in it"),
            (format!("{a},c2hvcnQ="), "cookie key 2 is not 32 bytes (44 characters of base64): it has 5"),
            (format!("hunter2!,{a}"), "cookie key 1 is not standard base64"),
            (
                BASE64_STANDARD.encode([0xfb; 32]).replace('+', "-").replace('/', "_"),
                "cookie key 1 is URL-safe base64, with `-` and `_`",
            ),
            (BASE64_STANDARD.encode([7; 32]), "cookie key 1 is not random"),
            (format!("{a},{published}"), "cookie key 2 is printed in documents"),
        ] {
            let error = keys.parse::<KeyRing>().unwrap_err().to_string();
            assert!(error.starts_with(complaint), "{error}");
            assert!(![&a, &b, &published, "hunter2"].iter().any(|key| error.contains(*key)), "{error}");
        }
        let ring = format!(" {a} , {b} \n").parse::<KeyRing>().unwrap();
        assert_eq!(ring.keys().first().map(|key| key.id), Some(CookieKey::from_base64(&a).unwrap().key_id()));
    }

    #[test]
    fn key_ring_error_names_the_missing_variable() {
        let error = KeyRing::from_env("TOWER_EUID_TEST_NOT_SET").unwrap_err().to_string();
        assert_eq!(error, "TOWER_EUID_TEST_NOT_SET is not set (or is not UTF-8)");
    }

    #[test]
    fn key_ring_reload_reaches_every_clone_but_not_the_source_ring() {
        let [old, new] = [(); 2].map(|()| CookieKey::generate().unwrap());
        let ring = KeyRing::from(old.clone());
        let (clone, newer) = (ring.clone(), KeyRing::from(new.clone()));
        ring.reload(newer.clone());
        assert!(clone.keys().find(new.key_id()).is_some() && clone.keys().find(old.key_id()).is_none());
        newer.reload(old.clone().into());
        assert!(clone.keys().find(new.key_id()).is_some(), "the two rings stay separate");
    }

    #[test]
    fn cookie_keys_are_zeroized_on_drop() {
        fn zeroized<T: ZeroizeOnDrop>() {}
        zeroized::<Xaes256Gcm>();
        zeroized::<Zeroizing<[u8; 32]>>();
    }

    #[test]
    fn debug_of_a_key_ring_shows_no_key() {
        let key = CookieKey::of([0x80; 32]);
        let shown = format!("{key:?} {:?}", KeyRing::from(key.clone()));
        let id = key.id();
        assert_eq!(shown, format!("CookieKey {{ id: {id:?}, .. }} KeyRing {{ keys: [{id:?}], .. }}"));
        assert!(!shown.contains("0x80") && !shown.contains("128") && !shown.contains("gICA"), "{shown}");
    }

    #[test]
    fn debug_of_a_key_ring_shows_the_ids_in_order_after_a_reload_too() {
        let [old, new] = [(); 2].map(|()| CookieKey::generate().unwrap());
        let ring = KeyRing::from(old.clone());
        ring.reload(KeyRing::new([new.clone(), old.clone()]).unwrap());
        assert_eq!(format!("{ring:?}"), format!("KeyRing {{ keys: [{:?}, {:?}], .. }}", new.id(), old.id()));
    }

    #[test]
    fn cookie_key_survives_its_text_form() {
        let key = CookieKey::generate().unwrap();
        let again = CookieKey::from_base64(&key.expose_base64()).unwrap();
        assert_eq!(key.0, again.0);
        assert_eq!(key.id().len(), 8);
    }
}
