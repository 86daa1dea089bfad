//! What a store of visitors' states holds: keys, values with a version, and the conditions of a write.
//!
//! A site can keep the states of its visitors in a store on its side instead of in cookies. This module has the types
//! that the engine and a store exchange. It does no I/O: the trait `Store` and the stores are in tower-euid.
//!
//! 1. A store maps a [`StoreKey`] to a [`Stored`] value. It must not interpret either.
//! 2. Each write has a [version](Stored::version) of its own, 16 random bytes. Two writes never share one.
//! 3. A write has a condition, [`When`]. Its outcome is a [`Put`]. A write that is [`Put::Refused`] changes nothing.
//!
//! ```
//! # use euid_core as tower_euid;
//! use bytes::Bytes;
//! use tower_euid::store::{StoreKey, Stored, When};
//!
//! let key = StoreKey::new([7; 32]);
//! let read = Stored { version: [1; 16], bytes: Bytes::from_static(b"sealed") };
//! // This write happens only if nothing else has written to the key since.
//! let when = When::Is(read.version);
//! # assert_eq!((key.as_bytes().len(), when), (32, When::Is([1; 16])));
//! ```

use std::fmt;

use bytes::Bytes;

use crate::hex::hex;

/// The key of a visitor's state in a store: 32 bytes of a hash. Every bit counts.
///
/// The bytes look random, and no token, login or user can be found from them. Still, a key names the state of one
/// visitor, so its `Debug` shows only its first two bytes.
///
/// ```
/// # use euid_core as tower_euid;
/// use std::collections::HashMap;
/// use tower_euid::store::StoreKey;
///
/// let key = StoreKey::new([0xab; 32]);
/// assert_eq!(format!("{key:?}"), "StoreKey(abab…)");
/// let texts = HashMap::from([(key.clone(), "a store of your own may use it as a key")]);
/// assert!(texts.contains_key(&key));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StoreKey([u8; 32]);

impl StoreKey {
    /// A key of these bytes. The engine makes the keys of visitors; this function is for tests of stores.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::store::StoreKey;
    ///
    /// assert_ne!(StoreKey::new([0; 32]), StoreKey::new([1; 32]));
    /// ```
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes, for a store whose keys are binary.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::store::StoreKey;
    ///
    /// assert_eq!(StoreKey::new([7; 32]).as_bytes(), &[7; 32]);
    /// ```
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the bytes as 64 lower-case hexadecimal digits, for a store whose keys are text.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::store::StoreKey;
    ///
    /// assert_eq!(StoreKey::new([0x0f; 32]).to_hex(), "0f".repeat(32));
    /// ```
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "StoreKey({first:02x}{second:02x}…)")
    }
}

/// A value in a store, with the version of the write that wrote it.
///
/// The value is the sealed (encrypted) state of one visitor: about 600 bytes, at most [`MAX_BYTES`](Self::MAX_BYTES).
/// `Debug` shows the version and the length, not the bytes.
///
/// ```
/// # use euid_core as tower_euid;
/// use bytes::Bytes;
/// use tower_euid::store::Stored;
///
/// let stored = Stored { version: [0xab; 16], bytes: Bytes::from_static(b"sealed") };
/// assert_eq!(format!("{stored:?}"), format!("Stored {{ version: {}, bytes: 6 }}", "ab".repeat(16)));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// 16 random bytes, other ones for each write.
    pub version: [u8; 16],
    /// The value. It can hold every byte, and it can be empty.
    pub bytes: Bytes,
}

impl Stored {
    /// The longest value that a store must accept, in bytes: 4 KiB.
    pub const MAX_BYTES: usize = 4096;
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = hex(&self.version);
        f.debug_struct("Stored").field("version", &format_args!("{version}")).field("bytes", &self.bytes.len()).finish()
    }
}

/// The condition of a write.
///
/// The enum is exhaustive: a store must obey each condition, so a new one must not compile without it.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::store::When;
///
/// /// Whether a write may happen, where `there` is the version of the value in the store.
/// fn holds(when: When, there: Option<[u8; 16]>) -> bool {
///     match when {
///         When::Always => true,
///         When::Absent => there.is_none(),
///         When::Is(version) => there == Some(version),
///     }
/// }
/// assert!(holds(When::Absent, None) && !holds(When::Is([1; 16]), Some([2; 16])));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The write always happens.
    Always,
    /// Only if the store has no value for the key. An expired value counts as none.
    Absent,
    /// Only if the store has a value for the key, of this version.
    Is([u8; 16]),
}

/// The outcome of a write.
///
/// The enum is exhaustive: a writer must know whether the value is in the store, and there is no third outcome. A store
/// that does not know it returns an error.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::store::Put;
///
/// /// What a writer does next.
/// fn next(put: Put) -> &'static str {
///     match put {
///         Put::Done => "go on",
///         Put::Refused => "read again", // something else has written
///     }
/// }
/// assert_eq!(next(Put::Refused), "read again");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a refused write has not happened"]
pub enum Put {
    /// The value is in the store.
    Done,
    /// The condition did not hold, and the store is as it was.
    Refused,
}

/// How an engine uses its host's store. A site of many nodes begins to use a store, or stops, in two steps, as with a
/// new key: first all nodes only read it, then they change to the other end.
///
/// Exhaustive: there is nothing between reading and writing.
///
/// ```
/// # use euid_core as tower_euid;
/// # use tower_euid::{CookieKey, engine::Engine};
/// use tower_euid::store::StoreMode;
///
/// # let keys = || CookieKey::generate().map(Into::into);
/// let [old, both, new] = [
///     Engine::new(keys()?), // sealed cookies
///     Engine::new(keys()?).with_store(StoreMode::ReadOnly), // both are read; sealed cookies are written
///     Engine::new(keys()?).with_store(StoreMode::ReadWrite), // both are read; the store is written
/// ];
/// # let _ = (old, both, new);
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    /// Records are read, and end at a logout. Identities are sealed at the client; a refresh moves a record there.
    ReadOnly,
    /// Identities are kept in the store. A refresh moves a sealed one there.
    ReadWrite,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_has_two_digits_for_each_byte() {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(0..).for_each(|(byte, number)| *byte = number * 8 + 1);
        let hex = StoreKey::new(bytes).to_hex();
        assert_eq!(hex, "0109111921293139414951596169717981899199a1a9b1b9c1c9d1d9e1e9f1f9");
    }

    #[test]
    fn debug_of_a_key_and_a_value_shows_no_more_than_it_must() {
        let mut bytes = [0x11; 32];
        bytes[0] = 0xaa;
        assert_eq!(format!("{:?}", StoreKey::new(bytes)), "StoreKey(aa11…)");
        let stored = Stored { version: [0; 16], bytes: Bytes::from_static(b"hunter2") };
        assert!(!format!("{stored:?}").contains("hunter2") && !format!("{stored:#?}").contains("104"));
    }
}
