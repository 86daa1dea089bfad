//! The values in a store: an identity with what its refreshes need, the end of a login, and the opt-out of a user.
//!
//! ```text
//! identity: asked until(8), 0 for no lease · since(8) · count(1) of previous keys, 0 or 1 · [previous key(32)] · payload
//! end:      nothing
//! opt-out:  as at the client
//! ```
//!
//! Times are in milliseconds since the Unix epoch, big-endian. Each value is sealed, with the store's key in the associated data: a value under another key does not open.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::aead::{self, Head, OpenError, Purpose, SealNonce};
use super::keys::Keys;
use super::login::Login;
use super::payload::{self, OptOut, Payload};
use crate::clock::UnixMillis;
use crate::identity::Identity;
use crate::store::{StoreKey, Stored};

/// What a value in a store says.
#[derive(Debug)]
pub(crate) enum Record<'a> {
    Identity(StoredIdentity<'a>),
    /// The login has ended.
    Ended,
    /// The user has opted out. Only in a store that is keyed by the user.
    OptedOut(OptOut),
}

/// An identity to put into a store.
#[derive(Clone, Copy)]
pub(crate) struct NewRecord<'a> {
    pub login: &'a Login,
    pub identity: &'a Identity,
    /// When the login began.
    pub since: UnixMillis,
    pub asked_until: UnixMillis,
    pub previous: Option<&'a StoreKey>,
}

/// An identity in a store, read in place.
#[derive(Debug)]
pub(crate) struct StoredIdentity<'a> {
    /// A node has asked the operator for its successor, and waits for the answer until then.
    pub asked_until: UnixMillis,
    /// When the login began.
    pub since: UnixMillis,
    /// The key of the login that this one replaced. That login ends as soon as a request brings this one.
    pub previous: Option<StoreKey>,
    pub payload: Payload<'a>,
    /// Under a key that is not the first any more.
    pub old_key: bool,
}

/// Why a value in a store can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    /// It has a version or a key that this node does not know.
    UnknownKey,
    /// It does not open: it was changed, or is in the place of another value.
    Forged,
    /// What it holds is no record.
    Undecodable,
}

/// The plaintext of an identity; `None` if a token is too long for any store.
pub(crate) fn write(record: &NewRecord<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let payload = payload::write(record.login, record.identity)?;
    let previous: &[[u8; 32]] = record.previous.map_or(&[], |key| std::slice::from_ref(key.as_bytes()));
    let mut plain = Zeroizing::new(Vec::with_capacity(8 + 8 + 1 + 32 + payload.len()));
    plain.extend_from_slice(&record.asked_until.as_millis().to_be_bytes());
    plain.extend_from_slice(&record.since.as_millis().to_be_bytes());
    plain.push(u8::from(!previous.is_empty()));
    previous.iter().for_each(|key| plain.extend_from_slice(key));
    plain.extend_from_slice(&payload);
    Some(plain)
}

/// Seals a plaintext under the first key; `None` if it is larger than a store takes.
pub(crate) fn seal(keys: &Keys, key: &StoreKey, purpose: Purpose, nonce: SealNonce, plain: &[u8]) -> Option<Bytes> {
    let sealed = aead::seal_bytes(keys, purpose, [key.as_bytes(), &[]], nonce, plain)?;
    (sealed.len() <= Stored::MAX_BYTES).then(|| sealed.into())
}

/// Opens a value that the store has under `key`, and passes what it says to `read`.
pub(crate) fn open<T>(
    keys: &Keys,
    key: &StoreKey,
    stored: &Stored,
    read: impl FnOnce(Record<'_>) -> T,
) -> Result<T, RecordError> {
    let head = Head::read_bytes(keys, &stored.bytes).ok_or(RecordError::UnknownKey)?;
    // The plaintext in it is wiped when it has been read.
    let mut bytes = stored.bytes.to_vec();
    let opened = head.open_bytes(&mut bytes, [key.as_bytes(), &[]], |plain| {
        let record = if head.is_for(Purpose::StoredIdentity) {
            Record::Identity(StoredIdentity::parse(plain, keys.is_old(head.key_id()))?)
        } else if head.is_for(Purpose::StoredEnd) {
            plain.is_empty().then_some(Record::Ended)?
        } else if head.is_for(Purpose::StoredOptOut) {
            Record::OptedOut(OptOut::parse(plain)?)
        } else {
            return None;
        };
        Some(read(record))
    });
    match opened {
        Ok(read) => read.ok_or(RecordError::Undecodable),
        Err(OpenError::Forged) => Err(RecordError::Forged),
        Err(OpenError::Undecodable) => Err(RecordError::Undecodable),
    }
}

impl<'a> StoredIdentity<'a> {
    fn parse(plain: &'a [u8], old_key: bool) -> Option<Self> {
        let (asked_until, rest) = plain.split_first_chunk()?;
        let (since, rest) = rest.split_first_chunk()?;
        let (previous, rest) = match rest.split_first()? {
            (0, rest) => (None, rest),
            (1, rest) => rest.split_first_chunk().map(|(key, rest)| (Some(StoreKey::new(*key)), rest))?,
            _ => return None,
        };
        let [asked_until, since] = [asked_until, since].map(|at| UnixMillis::from_millis(i64::from_be_bytes(*at)));
        Some(Self { asked_until, since, previous, payload: Payload::parse(rest)?, old_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityTimes;
    use crate::sealed::login::Lineage;
    use crate::sealed::{CookieKey, KeyRing};

    const KEY: StoreKey = StoreKey::new([7; 32]);

    fn identity() -> Identity {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        Identity::new("a", "r".to_owned().into(), [5; 32].into(), times).unwrap()
    }

    fn login() -> Login {
        Login { lineage: Lineage::from_bytes([9; 16]), subject: Some([8; 16]), migrated: false }
    }

    fn plain(previous: Option<&StoreKey>) -> Zeroizing<Vec<u8>> {
        let [asked_until, since] = [77, 66].map(UnixMillis::from_millis);
        let (login, identity) = (&login(), &identity());
        write(&NewRecord { login, identity, since, asked_until, previous }).unwrap()
    }

    fn stored(ring: &KeyRing, key: &StoreKey, purpose: Purpose, plain: &[u8]) -> Stored {
        Stored { version: [1; 16], bytes: seal(&ring.keys(), key, purpose, [3; 24], plain).unwrap() }
    }

    #[test]
    fn record_opens_as_what_was_written() {
        let keys = KeyRing::from(CookieKey::generate().unwrap());
        for previous in [None, Some(StoreKey::new([4; 32]))] {
            let plain = plain(previous.as_ref());
            let stored = stored(&keys, &KEY, Purpose::StoredIdentity, &plain);
            let read = open(&keys.keys(), &KEY, &stored, |record| match record {
                Record::Identity(read) => {
                    let [at, since] = [read.asked_until, read.since].map(UnixMillis::as_millis);
                    (at, since, read.previous, read.payload.login, read.payload.identity(), read.old_key)
                }
                record => panic!("an identity was written: {record:?}"),
            });
            assert_eq!(read, Ok((77, 66, previous, login(), Some(identity()), false)));
        }
        let ended = stored(&keys, &KEY, Purpose::StoredEnd, &[]);
        assert_eq!(open(&keys.keys(), &KEY, &ended, |record| matches!(record, Record::Ended)), Ok(true));
        let opt_out = OptOut { login: login(), until: UnixMillis::from_millis(5) };
        let stored = stored(&keys, &KEY, Purpose::StoredOptOut, &opt_out.write());
        let is_same = |record: Record<'_>| matches!(record, Record::OptedOut(read) if read == opt_out);
        assert_eq!(open(&keys.keys(), &KEY, &stored, is_same), Ok(true));
    }

    #[test]
    fn record_under_another_key_purpose_or_ring_does_not_open() {
        let keys = KeyRing::from(CookieKey::generate().unwrap());
        let plain = plain(None);
        let right = stored(&keys, &KEY, Purpose::StoredIdentity, &plain);
        let fails = |keys: &KeyRing, key: &StoreKey, stored: &Stored| open(&keys.keys(), key, stored, |_| ()).err();
        assert_eq!(fails(&keys, &KEY, &right), None);
        assert_eq!(fails(&keys, &StoreKey::new([8; 32]), &right), Some(RecordError::Forged));
        assert_eq!(fails(&CookieKey::generate().unwrap().into(), &KEY, &right), Some(RecordError::UnknownKey));
        for (purpose, plain) in [
            (Purpose::Identity, &plain[..]),
            (Purpose::StoredEnd, &plain[..]),
            (Purpose::StoredIdentity, &[]),
            (Purpose::StoredIdentity, &plain[..plain.len() - 1]),
        ] {
            let wrong = stored(&keys, &KEY, purpose, plain);
            assert_eq!(fails(&keys, &KEY, &wrong), Some(RecordError::Undecodable), "{purpose:?}");
        }
        for at in 0..right.bytes.len() {
            let mut bytes = right.bytes.to_vec();
            bytes[at] ^= 1;
            let bent = Stored { bytes: bytes.into(), ..right.clone() };
            assert!(fails(&keys, &KEY, &bent).is_some(), "{at}");
        }
        let empty = Stored { bytes: Bytes::new(), ..right };
        assert_eq!(fails(&keys, &KEY, &empty), Some(RecordError::UnknownKey));
    }

    #[test]
    fn record_with_an_unknown_count_of_previous_keys_is_refused() {
        let keys = KeyRing::from(CookieKey::generate().unwrap());
        let mut plain = plain(None);
        plain[16] = 2;
        let stored = stored(&keys, &KEY, Purpose::StoredIdentity, &plain);
        assert_eq!(open(&keys.keys(), &KEY, &stored, |_| ()), Err(RecordError::Undecodable));
    }
}
