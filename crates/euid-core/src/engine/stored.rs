//! What an engine with a store and its host exchange: keys, records, and the calls that the host makes.
//!
//! 1. The login slot is the handle: it names the lineage, whose hash is the key in the store. The client has nothing else.
//! 2. A record is an identity, or says that its login has *ended*. A missing record, and one that has ended, mean that
//!    nobody is logged in, and nothing is written because of them.
//! 3. A login is put only where nothing is, under its new lineage. It does not end the record of the login that it
//!    replaces, because its own response may never arrive. It notes that key, and the first refresh, login or logout
//!    that brings the new handle ends it.
//! 4. What an opt-out means lives at the client, in every mode.
//! 5. Nothing ends because the store failed. A login that the store did not confirm is sealed at the client, under the same
//!    lineage. A sealed identity is used without the store; its next refresh moves it there.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::read::FoundAnchor;
use super::source::Source;
use super::stored_refresh::StoredRefresh;
use super::{Engine, Step};
use crate::clock::UnixMillis;
use crate::error::EuidError;
use crate::identity::Identity;
use crate::outcome::Refreshed;
use crate::random;
use crate::scope::Scope;
use crate::sealed::aead::Purpose;
use crate::sealed::login::{self, Lineage, Login};
use crate::sealed::record;
use crate::store::{Put, StoreKey, StoreMode, Stored, When};
use crate::transport::Transport;
use crate::transport::slots::{Held, Hits};

/// The store did not answer, or not in time. What was asked for may have happened.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::engine::{Loaded, Unavailable};
///
/// fn loaded<E>(answer: Result<Option<tower_euid::store::Stored>, E>) -> Loaded {
///     answer.map_err(|_| Unavailable) // the host has logged why
/// }
/// assert_eq!(loaded(Err("timed out")), Err(Unavailable));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// The store's answer to a get.
///
/// ```
/// # use euid_core as tower_euid;
/// let nobody: tower_euid::engine::Loaded = Ok(None);
/// ```
pub type Loaded = Result<Option<Stored>, Unavailable>;

/// A write that the host makes in its store.
///
/// ```
/// # use euid_core as tower_euid;
/// use std::collections::HashMap;
/// use tower_euid::engine::StoreWrite;
/// use tower_euid::store::{Put, StoreKey, Stored, When};
///
/// /// A store that keeps everything for ever.
/// fn put(store: &mut HashMap<StoreKey, Stored>, write: &StoreWrite) -> Put {
///     let there = store.get(&write.key).map(|stored| stored.version);
///     let holds = match write.when {
///         When::Always => true,
///         When::Absent => there.is_none(),
///         When::Is(version) => there == Some(version),
///     };
///     if holds {
///         store.insert(write.key.clone(), write.stored.clone());
///     }
///     if holds { Put::Done } else { Put::Refused }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreWrite {
    /// Where.
    pub key: StoreKey,
    /// On which condition.
    pub when: When,
    /// What.
    pub stored: Stored,
    /// How long the store keeps it.
    pub keep: Duration,
    /// It ends a login. If the store does not confirm it, the host must show nothing of this record any more, and try
    /// again until the store does.
    pub ends_login: bool,
}

/// A call that the host makes, on behalf of a refresh or a response.
///
/// Exhaustive: a host must make each call.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::engine::StoreCall;
///
/// /// What a log may say of it.
/// fn event(call: &StoreCall) -> &'static str {
///     match call {
///         StoreCall::Get(_) => "get",
///         StoreCall::Put(write) if write.ends_login => "end",
///         StoreCall::Put(_) => "put",
///         StoreCall::Wait(_) => "wait",
///         StoreCall::Refresh(_) => "refresh",
///     }
/// }
/// # let _ = event;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum StoreCall {
    /// Get a record.
    Get(StoreKey),
    /// Write a record.
    Put(StoreWrite),
    /// Wait this long: another node is refreshing.
    Wait(Duration),
    /// Ask the operator for the successor of this identity.
    Refresh(Arc<Identity>),
}

/// The answer to a [`StoreCall`].
///
/// Exhaustive, as the calls are.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::engine::{StoreAnswer, StoreCall, Unavailable};
///
/// /// A host whose store is down. `None` if it is not the store that is asked.
/// fn down(call: &StoreCall) -> Option<StoreAnswer> {
///     match call {
///         StoreCall::Get(_) => Some(StoreAnswer::Got(Err(Unavailable))),
///         StoreCall::Put(_) => Some(StoreAnswer::Put(Err(Unavailable))),
///         StoreCall::Wait(_) | StoreCall::Refresh(_) => None,
///     }
/// }
/// # let _ = down;
/// ```
#[derive(Clone, Debug)]
pub enum StoreAnswer {
    /// To [`StoreCall::Get`].
    Got(Loaded),
    /// To [`StoreCall::Put`].
    Put(Result<Put, Unavailable>),
    /// To [`StoreCall::Wait`].
    Waited,
    /// To [`StoreCall::Refresh`].
    Refreshed(Result<Refreshed, EuidError>),
}

impl StoreKey {
    /// The key of a login's record.
    pub(super) fn of_login(scope: Scope, lineage: &Lineage) -> Self {
        let hash = Sha256::new().chain_update(KEY_LABEL).chain_update([scope as u8]).chain_update(lineage.as_bytes());
        Self::new(hash.finalize().into())
    }
}

impl Engine {
    /// The place in the store of the login that a request's anchor names, if the engine uses a store.
    pub(super) fn held_of<T: Transport>(&self, transport: &T, headers: &HeaderMap) -> Option<Held> {
        self.store()?;
        let mut hits = Hits::default();
        transport.find(&T::values(headers), &mut hits);
        let FoundAnchor::Login(text) = FoundAnchor::of(&hits) else { return None };
        let key = StoreKey::of_login(transport.scope(), &login::parse_lineage(&text)?);
        Some(Held { key, previous: None })
    }

    /// The step, if it is the refresh of a sealed identity, with the move of that into the store.
    pub(super) fn moving(&self, mut step: Step) -> Step {
        if self.store() == Some(StoreMode::ReadWrite)
            && let Step::Refresh(candidate) = &mut step
            && let Source::OwnState(login) = candidate.source
            && !login.migrated
        {
            let refresh = StoredRefresh::of_sealed(candidate.scope(), login, Arc::clone(candidate.identity()));
            candidate.stored = Some(Box::new(refresh.awaited(!candidate.is_usable())));
        }
        step
    }

    /// The write of an identity; `None` if there is no randomness, it has expired, or it is too large for a store.
    pub(super) fn put_identity(
        &self,
        (key, when): (&StoreKey, When),
        (login, identity): (&Login, &Identity),
        previous: Option<&StoreKey>,
        asked_until: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Option<StoreWrite> {
        let keep = identity.times().refresh_expires.saturating_since(now);
        let asked_until = asked_until.unwrap_or(UnixMillis::from_millis(0));
        let plain = record::write(login, identity, asked_until, previous)?;
        let stored = self.seal_record(key, Purpose::StoredIdentity, &plain)?;
        let keep = keep.min(LONGEST_KEEP);
        (keep >= SHORTEST_KEEP).then(|| StoreWrite { key: key.clone(), when, stored, keep, ends_login: false })
    }

    /// The write that ends a login; `None` if there is no randomness.
    pub(super) fn put_end(&self, key: &StoreKey, when: When) -> Option<StoreWrite> {
        let stored = self.seal_record(key, Purpose::StoredEnd, &[])?;
        Some(StoreWrite { key: key.clone(), when, stored, keep: END_REMEMBERED, ends_login: true })
    }

    fn seal_record(&self, key: &StoreKey, purpose: Purpose, plain: &[u8]) -> Option<Stored> {
        let (version, nonce) = (random::bytes().ok()?, random::bytes().ok()?);
        let bytes = record::seal(&self.keys.keys(), key, purpose, nonce, plain)?;
        Some(Stored { version, bytes })
    }
}

const KEY_LABEL: &[u8] = b"tower-euid login";
/// How long a store remembers that a login has ended: longer than any write of it can be late.
const END_REMEMBERED: Duration = Duration::from_secs(3600);
/// What a store takes at least, and at most.
const SHORTEST_KEEP: Duration = Duration::from_secs(1);
const LONGEST_KEEP: Duration = Duration::from_secs(400 * 86_400);
