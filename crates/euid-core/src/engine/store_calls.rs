//! The calls that an engine asks its host to make in the store, and their answers.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixMillis;
use crate::error::EuidError;
use crate::identity::Identity;
use crate::outcome::Refreshed;
use crate::random;
use crate::sealed::KeyRing;
use crate::sealed::login::Lineage;
use crate::sealed::record::{self, Record, StoredIdentity};
use crate::store::{Put, StoreKey, Stored, When};

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
    pub(super) retry: Option<Retry>,
}

/// How a write is tried again. In a store that is keyed by the user, another login of the user may be there by then.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    pub(super) keys: KeyRing,
    pub(super) what: Retried,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Retried {
    /// A login that began then replaces every other, but no opt-out that may be newer.
    Login(UnixMillis),
    /// The end of a login.
    End(Ended),
    /// The opt-out of a user: one that a handler states, or one that a refresh of a login has found.
    OptOut(Ended),
    /// By handle: the end of a login of which nothing is known. Refused, it is known, as something is there. Not confirmed,
    /// it may be. Then it takes place on no condition.
    Unknown,
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
        self.retry.as_ref().is_some_and(|retry| !matches!(retry.what, Retried::Unknown))
    }

    /// The same write, as it must be now that the store has `stored`: after [`Put::Refused`], or to try an end again that was
    /// not confirmed. `None` if there is nothing to write any more, or no randomness.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::engine::{StoreAnswer, StoreCall, StoreWrite};
    /// use tower_euid::store::Put;
    ///
    /// /// Tries an end once more. Returns what is still owed.
    /// fn retry(owed: StoreWrite, mut call: impl FnMut(&StoreCall) -> StoreAnswer) -> Option<StoreWrite> {
    ///     let stored = match owed.must_read().then(|| call(&StoreCall::Get(owed.key.clone()))) {
    ///         Some(StoreAnswer::Got(Ok(stored))) => stored,
    ///         Some(_) => return Some(owed),
    ///         None => None,
    ///     };
    ///     let write = owed.again(stored.as_ref())?;
    ///     let is_done = matches!(call(&StoreCall::Put(write)), StoreAnswer::Put(Ok(Put::Done)));
    ///     (!is_done).then_some(owed)
    /// }
    /// ```
    #[must_use]
    pub fn again(&self, stored: Option<&Stored>) -> Option<Self> {
        let Some(Retry { keys, what }) = &self.retry else { return Some(self.clone()) };
        if let Retried::Unknown = what {
            return Some(Self { keep: END_REMEMBERED, retry: None, ..self.when(When::Always)? });
        }
        let Some(stored) = stored else {
            return match what {
                Retried::Login(_) | Retried::OptOut(_) => self.when(When::Absent),
                // What is not there needs no end.
                Retried::End(_) | Retried::Unknown => None,
            };
        };
        let replaces = |record: Record<'_>| match (what, record) {
            (Retried::Login(began), Record::OptedOut(opt_out)) => {
                opt_out.noted_at() < began.saturating_sub(OPT_OUT_WINS_FOR)
            }
            (Retried::Login(_) | Retried::Unknown, _) => true,
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

/// An opt-out of this age or less may be newer than a login that is only now written: the login was generated before.
const OPT_OUT_WINS_FOR: Duration = Duration::from_secs(60);
/// How long a store remembers that a login has ended: longer than any write of it can be late.
pub(super) const END_REMEMBERED: Duration = Duration::from_secs(3600);
