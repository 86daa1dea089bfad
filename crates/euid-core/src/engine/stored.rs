//! What an engine with a store and its host exchange: keys, records, and the calls that the host makes.
//!
//! 1. The login slot is the handle: it names the lineage, whose hash is the key in the store. The client has nothing else.
//! 2. A record is an identity, or says that its login has *ended*. A missing record, and one that has ended, mean that
//!    there is no such login, and nothing is written because of them.
//! 3. A login is put only where nothing is, under its new lineage. It does not end the record of the login that it
//!    replaces, because its own response may never arrive. It notes that key, and the first refresh, login or logout
//!    that brings the new handle ends it.
//! 4. An opt-out lives at the client, in every mode. The record has it only until a page has told the client: the response
//!    of the page whose refresh found it may be on its way already.
//! 5. [`by_user`](super::by_user) has no handle: the key is of the signed-in user.
//! 6. Nothing ends because the store failed. A login that the store did not confirm is sealed at the client, under the same
//!    lineage. A sealed identity is used without the store; its next refresh moves it there.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::opt_out::OPT_OUT_REMEMBERED;
use super::read::FoundAnchor;
use super::source::Source;
use super::stored_refresh::StoredRefresh;
use super::{Engine, RequestContext, SignedIn, Step};
use crate::clock::UnixMillis;
use crate::error::EuidError;
use crate::identity::Identity;
use crate::outcome::Refreshed;
use crate::random;
use crate::scope::Scope;
use crate::sealed::KeyRing;
use crate::sealed::aead::Purpose;
use crate::sealed::login::{self, Lineage};
use crate::sealed::payload::OptOut;
use crate::sealed::record::{self, NewRecord, Record, StoredIdentity};
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
/// let no_record: tower_euid::engine::Loaded = Ok(None);
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
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreWrite {
    /// The key to write to.
    pub key: StoreKey,
    /// The condition of the write.
    pub when: When,
    /// The value, and its version.
    pub stored: Stored,
    /// How long the store keeps the value, from 1 s to 400 days.
    pub keep: Duration,
    /// It ends a login. If the store does not confirm it, the host must [show nothing](Self::hides) of what it ends any
    /// more, and try [again](Self::again) until the store does.
    pub ends_login: bool,
    retry: Option<Retry>,
}

/// How a refused write is tried again, in a store that is keyed by the user: another login of the user may be there now.
#[derive(Clone, Debug)]
struct Retry {
    keys: KeyRing,
    what: Retried,
}

#[derive(Clone, Copy, Debug)]
enum Retried {
    /// A login that began then replaces every other, but no opt-out that may be newer.
    Login(UnixMillis),
    /// The end of a login.
    End(Ended),
    /// The opt-out of a user: one that a handler states, or one that a refresh of a login has found.
    OptOut(Ended),
}

/// Which login a write ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    /// That of this lineage.
    Login(Lineage),
    /// Every one that began until then.
    Until(UnixMillis),
}

impl StoreWrite {
    /// Whether the store must be read before the write is tried again.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::engine::{Loaded, StoreWrite, Unavailable};
    ///
    /// /// The write to try now: `None` if there is nothing to do any more.
    /// fn retry(write: &StoreWrite, get: impl FnOnce() -> Loaded) -> Result<Option<StoreWrite>, Unavailable> {
    ///     let stored = if write.must_read() { get()? } else { None };
    ///     Ok(write.again(stored.as_ref()))
    /// }
    /// ```
    #[must_use]
    pub fn must_read(&self) -> bool {
        self.retry.is_some()
    }

    /// The same write, as it must be now that the store has `stored`: after [`Put::Refused`], or to try an end again that was
    /// not confirmed. `None` if there is nothing to write any more, or no randomness.
    ///
    /// See [`must_read`](Self::must_read) for an example.
    #[must_use]
    pub fn again(&self, stored: Option<&Stored>) -> Option<Self> {
        let Some(Retry { keys, what }) = &self.retry else { return Some(self.clone()) };
        let Some(stored) = stored else {
            return match what {
                // What is not there needs no end.
                Retried::End(_) => None,
                Retried::Login(_) | Retried::OptOut(_) => self.when(When::Absent),
            };
        };
        let replaces = |record: Record<'_>| match (what, record) {
            (Retried::Login(began), Record::OptedOut(opt_out)) => {
                opt_out.noted_at() < began.saturating_sub(OPT_OUT_WINS_FOR)
            }
            (Retried::Login(_), _) => true,
            (Retried::End(ended) | Retried::OptOut(ended), Record::Identity(record)) => ended.is(&record),
            (Retried::OptOut(Ended::Until(_)), Record::Ended | Record::OptedOut(_)) => true,
            (Retried::End(_) | Retried::OptOut(_), Record::Ended | Record::OptedOut(_)) => false,
        };
        // A value that this node can't read is no reason to keep a user from logging in or out.
        let replaces = record::open(&keys.keys(), &self.key, stored, replaces).unwrap_or(true);
        replaces.then(|| self.when(When::Is(stored.version))).flatten()
    }

    /// Whether nothing of what the store has may be shown, because this write ends it.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::engine::{Loaded, StoreWrite};
    ///
    /// /// What a host that owes this end passes on of what it has read.
    /// fn shown(owed: &StoreWrite, loaded: Loaded) -> Loaded {
    ///     loaded.map(|stored| stored.filter(|stored| !owed.hides(stored)))
    /// }
    /// ```
    #[must_use]
    pub fn hides(&self, stored: &Stored) -> bool {
        let Some(Retry { keys, what: Retried::End(ended) | Retried::OptOut(ended) }) = &self.retry else {
            return self.ends_login;
        };
        let is_it = |record: Record<'_>| matches!(record, Record::Identity(record) if ended.is(&record));
        record::open(&keys.keys(), &self.key, stored, is_it).unwrap_or(false)
    }

    /// The same write on another condition; `None` if there is no randomness for its version.
    fn when(&self, when: When) -> Option<Self> {
        let stored = Stored { version: random::bytes().ok()?, ..self.stored.clone() };
        Some(Self { when, stored, ..self.clone() })
    }
}

impl Ended {
    fn is(self, record: &StoredIdentity<'_>) -> bool {
        match self {
            Self::Login(lineage) => record.payload.login.lineage == lineage,
            Self::Until(time) => record.since <= time,
        }
    }
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
#[derive(Clone, Debug)]
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
    /// Whether the engine has a store whose handle is the login slot.
    #[must_use]
    pub fn has_store_by_handle(&self) -> bool {
        self.store().is_some()
    }

    /// Whether the engine has a store that is keyed by the user.
    #[must_use]
    pub fn has_store_by_user(&self) -> bool {
        self.user_store().is_some()
    }

    /// The write that ends every login of a user that has begun by now, on behalf of no request. `None` if the engine has no
    /// store that is keyed by the user, or if there is no randomness. The store must be [read](StoreWrite::must_read)
    /// first.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, Scope, engine::Engine};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::StoreSecret;
    ///
    /// let engine = Engine::new(CookieKey::generate()?.into()).with_user_store(StoreSecret::generate()?);
    /// let end = engine.end_of_user(Scope::Euid, b"17", at(5_000)).ok_or("no randomness")?;
    /// assert!(end.must_read());
    /// assert!(end.again(None).is_none()); // there is no login
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn end_of_user(&self, scope: Scope, user: &[u8], now: UnixMillis) -> Option<StoreWrite> {
        let key = self.user_store()?.key_of(scope, user);
        self.put_user_end(&key, When::Absent, Ended::Until(now))
    }

    /// The place in the store of a request's login, if the engine uses a store: the login that its anchor names, or that of
    /// its user.
    pub(super) fn held_of<T: Transport>(
        &self,
        transport: &T,
        headers: &HeaderMap,
        context: &RequestContext<'_>,
    ) -> Option<Held> {
        if let Some(secret) = self.user_store() {
            let SignedIn::User(id) = context.user else { return None };
            return Some(Held::of(secret.key_of(transport.scope(), id)));
        }
        self.store()?;
        let mut hits = Hits::default();
        transport.find(&T::values(headers), &mut hits);
        let FoundAnchor::Login(text) = FoundAnchor::of(&hits) else { return None };
        Some(Held::of(StoreKey::of_login(transport.scope(), &login::parse_lineage(text)?)))
    }

    /// The step, if it is the refresh of a sealed identity, with the move of that into the store.
    pub(super) fn moving(&self, mut step: Step) -> Step {
        if self.store() == Some(StoreMode::ReadWrite)
            && let Step::Refresh(candidate) = &mut step
            && let Source::OwnState(login) = candidate.source
            && !login.migrated
        {
            let key = StoreKey::of_login(candidate.scope(), &login.lineage);
            let (identity, since) = (Arc::clone(candidate.identity()), candidate.arrived());
            let refresh = StoredRefresh::of_sealed(key, login, identity, since);
            candidate.stored = Some(Box::new(refresh.awaited(!candidate.is_usable())));
        }
        step
    }

    /// The write of an identity; `None` if there is no randomness, it has expired, or it is too large for a store.
    pub(super) fn put_identity(
        &self,
        key: &StoreKey,
        when: When,
        record: &NewRecord<'_>,
        now: UnixMillis,
    ) -> Option<StoreWrite> {
        let keep = record.identity.times().refresh_expires.saturating_since(now).min(LONGEST_KEEP);
        let stored = self.seal_record(key, Purpose::StoredIdentity, &record::write(record)?)?;
        let write = StoreWrite { key: key.clone(), when, stored, keep, ends_login: false, retry: None };
        (keep >= SHORTEST_KEEP).then_some(write)
    }

    /// The write that ends a login; `None` if there is no randomness.
    pub(super) fn put_end(&self, key: &StoreKey, when: When) -> Option<StoreWrite> {
        let stored = self.seal_record(key, Purpose::StoredEnd, &[])?;
        let key = key.clone();
        Some(StoreWrite { key, when, stored, keep: END_REMEMBERED, ends_login: true, retry: None })
    }

    /// The write that puts a login of a user in place of any other.
    pub(super) fn put_user_login(
        &self,
        key: &StoreKey,
        when: When,
        record: &NewRecord<'_>,
        now: UnixMillis,
    ) -> Option<StoreWrite> {
        let write = self.put_identity(key, when, record, now)?;
        Some(self.with_retry(write, Retried::Login(record.since)))
    }

    /// The write that ends a login of a user.
    pub(super) fn put_user_end(&self, key: &StoreKey, when: When, ended: Ended) -> Option<StoreWrite> {
        Some(self.with_retry(self.put_end(key, when)?, Retried::End(ended)))
    }

    /// The write that remembers the opt-out of a user.
    pub(super) fn put_user_opt_out(
        &self,
        key: &StoreKey,
        when: When,
        opt_out: &OptOut,
        ended: Ended,
    ) -> Option<StoreWrite> {
        Some(self.with_retry(self.put_opt_out(key, when, opt_out)?, Retried::OptOut(ended)))
    }

    /// The write that remembers the opt-out of a login, until a page has told the client of it.
    pub(super) fn put_opt_out(&self, key: &StoreKey, when: When, opt_out: &OptOut) -> Option<StoreWrite> {
        let stored = self.seal_record(key, Purpose::StoredOptOut, &opt_out.write())?;
        let (key, keep) = (key.clone(), OPT_OUT_REMEMBERED);
        Some(StoreWrite { key, when, stored, keep, ends_login: true, retry: None })
    }

    fn with_retry(&self, write: StoreWrite, what: Retried) -> StoreWrite {
        StoreWrite { retry: Some(Retry { keys: self.keys.clone(), what }), ..write }
    }

    fn seal_record(&self, key: &StoreKey, purpose: Purpose, plain: &[u8]) -> Option<Stored> {
        let (version, nonce) = (random::bytes().ok()?, random::bytes().ok()?);
        let bytes = record::seal(&self.keys.keys(), key, purpose, nonce, plain)?;
        Some(Stored { version, bytes })
    }
}

/// An opt-out of this age or less may be newer than a login that is only now written: the login was generated before.
const OPT_OUT_WINS_FOR: Duration = Duration::from_secs(60);
const KEY_LABEL: &[u8] = b"tower-euid login";
/// How long a store remembers that a login has ended: longer than any write of it can be late.
const END_REMEMBERED: Duration = Duration::from_secs(3600);
/// What a store takes at least, and at most.
const SHORTEST_KEEP: Duration = Duration::from_secs(1);
const LONGEST_KEEP: Duration = Duration::from_secs(400 * 86_400);
