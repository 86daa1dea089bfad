//! One refresh of an identity that is in the store, or moves there: so that of all nodes one asks the operator.
//!
//! ```text
//! lease ──► refresh ──► put the new pair ──► end the login that this one replaced ──► done
//!   │ refused             │ refused
//!   └─► read again        └─► read again: put once more over an older pair of this login, else drop it
//! ```
//!
//! 1. The lease is a write of the record itself, with the time until which the operator's answer is awaited. It takes place
//!    only if the record is the one that was read, so it also proves that the login has not ended meanwhile.
//! 2. A node without the lease makes no call. If the page's token has expired, it reads again for a short time.
//! 3. A sealed identity is put where nothing is, with the lease. If something is there, that counts.
//! 4. In a store that is keyed by the user, the record may be of a later login: that stays as it is.
//! 5. Without an answer of the store, an identity in the store is not refreshed: the page goes on with its token. A sealed
//!    one is, and its response seals the new pair.

mod steps;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::decision::Decision;
use super::store_calls::{StoreAnswer, StoreCall, StoreWrite};
use super::{Engine, Step};
use crate::clock::UnixMillis;
use crate::error::EuidError;
use crate::identity::Identity;
use crate::outcome::Refreshed;
use crate::reason::Reason;
use crate::sealed::login::Login;
use crate::store::{Put, StoreKey};

/// The refresh of an identity with a store: the calls that a host makes in place of the single call to the operator.
/// [`RefreshCandidate::stored`](super::RefreshCandidate::stored) returns it.
///
/// A host makes the calls in a task of its own, so that a page that waits no longer does not end them. It begins with
/// [`start`](Self::start) and passes each answer to [`next`](Self::next), until that returns an outcome for
/// [`settle`](super::RefreshCandidate::settle).
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::clock::UnixMillis;
/// use tower_euid::engine::{Engine, StoreAnswer, StoreCall, StoredRefresh};
/// use tower_euid::error::EuidError;
/// use tower_euid::Refreshed;
///
/// /// Makes the calls. `None`: the operator was not asked, as another node does.
/// fn run(
///     engine: &Engine,
///     mut refresh: StoredRefresh,
///     asked_until: UnixMillis,
///     now: impl Fn() -> UnixMillis,
///     mut call: impl FnMut(StoreCall) -> StoreAnswer,
/// ) -> Option<Result<Refreshed, EuidError>> {
///     let mut next = refresh.start(engine, asked_until, now());
///     loop {
///         match next {
///             Ok(step) => next = refresh.next(engine, call(step), now()),
///             Err(outcome) => return outcome,
///         }
///     }
/// }
/// ```
#[derive(Clone)]
#[must_use = "without it the identity is not refreshed"]
pub struct StoredRefresh {
    key: StoreKey,
    /// The key is of a user, not of a login.
    is_of_user: bool,
    login: Login,
    /// When the login began. For a sealed identity that moves, when the request arrived that moves it.
    since: UnixMillis,
    identity: Arc<Identity>,
    /// The version of the record, as it was read or written last; `None` if nothing is there.
    version: Option<[u8; 16]>,
    /// The login that this one replaced.
    previous: Option<StoreKey>,
    /// Another node waits for the operator's answer until then.
    asked_until: UnixMillis,
    /// This node's own lease ends then.
    lease_until: UnixMillis,
    /// The page has no usable token: it waits for another node's refresh.
    is_awaited: bool,
    /// How many leases this node has tried to get.
    tries: u8,
    state: State,
}

/// What has been asked for.
#[derive(Clone, Debug)]
enum State {
    Lease {
        written: [u8; 16],
    },
    /// To read again, as the lease was refused or another node has it. The number of earlier waits.
    ReadAgain(usize),
    Wait(usize),
    Refresh,
    NewPair {
        pair: Identity,
        again: bool,
    },
    /// The new pair was refused.
    ReadForPair(Identity),
    /// Nothing more can change the outcome.
    End {
        outcome: Result<Refreshed, EuidError>,
        write: StoreWrite,
        tries: u8,
    },
    /// The end was refused.
    ReadForEnd {
        outcome: Result<Refreshed, EuidError>,
        write: StoreWrite,
        tries: u8,
    },
    Done,
}

/// `Ok`: make this call. `Err`: all is done, which need not be a failure. Then `Some` is the outcome for `settle`, and `None`
/// says that the operator was not asked.
type Next = Result<StoreCall, Option<Result<Refreshed, EuidError>>>;

impl StoredRefresh {
    /// The refresh of an identity that was read in the store.
    pub(super) fn of_record(
        key: StoreKey,
        login: Login,
        identity: Arc<Identity>,
        version: [u8; 16],
        since: UnixMillis,
    ) -> Self {
        Self { version: Some(version), ..Self::of_sealed(key, login, identity, since) }
    }

    /// The same refresh, in a store that is keyed by the user.
    pub(super) fn by_user(self) -> Self {
        Self { is_of_user: true, ..self }
    }

    /// The refresh of an identity that came from the client, and moves into the store.
    pub(super) fn of_sealed(key: StoreKey, login: Login, identity: Arc<Identity>, since: UnixMillis) -> Self {
        let never = UnixMillis::from_millis(i64::MIN);
        Self {
            key,
            is_of_user: false,
            login,
            since,
            identity,
            version: None,
            previous: None,
            asked_until: never,
            lease_until: never,
            is_awaited: false,
            tries: 0,
            state: State::Done,
        }
    }

    pub(super) fn replacing(self, previous: Option<StoreKey>) -> Self {
        Self { previous, ..self }
    }

    pub(super) fn asked_until(self, asked_until: UnixMillis) -> Self {
        Self { asked_until, ..self }
    }

    /// The step of a request that is due: its candidate, with this refresh.
    pub(super) fn of_candidate(self, step: Step, now: UnixMillis) -> Step {
        let Step::Refresh(mut candidate) = step else { return step };
        let is_usable = candidate.is_usable();
        if is_leased(self.asked_until, now) && is_usable {
            // Another node is refreshing it.
            return Step::Ready(Decision {
                findings: candidate.findings,
                ..candidate.proceed(Reason::RefreshUnderWay, now)
            });
        }
        candidate.stored = Some(Box::new(self.awaited(!is_usable)));
        Step::Refresh(candidate)
    }

    pub(super) fn awaited(self, is_awaited: bool) -> Self {
        Self { is_awaited, ..self }
    }

    /// The key of the record: every node has the same for one login.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, refresh) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/stored_refresh.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::engine::StoreCall;
    ///
    /// let first = refresh.clone().start(&engine, at(17_000), at(11_000));
    /// assert!(matches!(first, Ok(StoreCall::Put(lease)) if lease.key == *refresh.key()));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn key(&self) -> &StoreKey {
        &self.key
    }

    /// Returns the first call. `asked_until` is when this node's lease ends: set it one second after the host's deadline for
    /// the operator's answer, so that the new pair can still be written under the lease.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, mut refresh) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/stored_refresh.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::engine::StoreCall;
    ///
    /// let first = refresh.start(&engine, at(17_000), at(11_000));
    /// assert!(matches!(first, Ok(StoreCall::Put(_)))); // the lease
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The outcome, as [`next`](Self::next).
    pub fn start(&mut self, engine: &Engine, asked_until: UnixMillis, now: UnixMillis) -> Next {
        self.lease_until = asked_until;
        if is_leased(self.asked_until, now) {
            return self.wait(0);
        }
        self.lease(engine, now)
    }

    /// Returns the call after this answer.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, mut refresh) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/stored_refresh.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::engine::{StoreAnswer, StoreCall, Unavailable};
    ///
    /// let _lease = refresh.start(&engine, at(17_000), at(11_000));
    /// let next = refresh.next(&engine, StoreAnswer::Put(Err(Unavailable)), at(11_000));
    /// assert!(matches!(next, Ok(StoreCall::Refresh(_)))); // the client has the identity: it needs no lease
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The outcome, when there is nothing more to do: the operator's answer, or the pair that another node has put.
    /// `None` if there is neither, as another node is asking or the store is unavailable. For
    /// [`settle`](super::RefreshCandidate::settle) that is a transient failure; it says nothing about the operator.
    pub fn next(&mut self, engine: &Engine, answer: StoreAnswer, now: UnixMillis) -> Next {
        match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Lease { written }, StoreAnswer::Put(put)) => self.leased(put, written),
            (State::Wait(waits), StoreAnswer::Waited) => self.read_again(waits + 1),
            (State::ReadAgain(waits), StoreAnswer::Got(loaded)) => self.have_read(engine, &loaded, waits, now),
            (State::Refresh, StoreAnswer::Refreshed(outcome)) => self.refreshed(engine, outcome, now),
            (State::NewPair { pair, again: false }, StoreAnswer::Put(Ok(Put::Refused))) => {
                self.state = State::ReadForPair(pair);
                Ok(StoreCall::Get(self.key.clone()))
            }
            (State::NewPair { pair, .. }, StoreAnswer::Put(put)) => {
                self.end_previous(engine, put, Ok(Refreshed::Identity(pair)))
            }
            (State::ReadForPair(pair), StoreAnswer::Got(loaded)) => self.have_read_for_pair(engine, pair, &loaded, now),
            (State::End { outcome, write, tries }, StoreAnswer::Put(Ok(Put::Refused))) if write.must_read() => {
                if tries >= MOST_TRIES {
                    return Err(Some(outcome));
                }
                self.state = State::ReadForEnd { outcome, write, tries };
                Ok(StoreCall::Get(self.key.clone()))
            }
            (State::ReadForEnd { outcome, write, tries }, StoreAnswer::Got(Ok(stored))) => {
                match write.again(stored.as_ref()) {
                    Some(write) => {
                        self.state = State::End { outcome, write: write.clone(), tries: tries + 1 };
                        Ok(StoreCall::Put(write))
                    }
                    None => Err(Some(outcome)),
                }
            }
            (State::End { outcome, .. } | State::ReadForEnd { outcome, .. }, _) => Err(Some(outcome)),
            // The answer is not one to what was asked.
            _ => Err(None),
        }
    }
}

impl fmt::Debug for StoredRefresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRefresh").field("key", &self.key).field("state", &self.state).finish_non_exhaustive()
    }
}

/// Whether another node waits for the operator's answer. A lease that ends much later is of a node whose clock is ahead, or
/// was: it counts no more than a call can take.
fn is_leased(asked_until: UnixMillis, now: UnixMillis) -> bool {
    now < asked_until && asked_until <= now.saturating_add(LONGEST_LEASE)
}

/// Longer than a call and the differences between clocks that are kept right.
const LONGEST_LEASE: Duration = Duration::from_secs(60);
/// How many leases one refresh tries to get, and how often it tries an end that other writes come before.
const MOST_TRIES: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_counts_until_its_end_but_not_one_of_a_clock_that_is_ahead() {
        let now = UnixMillis::from_millis(1_000_000);
        let is_leased_for = |millis: i64| is_leased(UnixMillis::from_millis(1_000_000 + millis), now);
        assert_eq!([-1, 0, 1, 11_000, 60_000].map(is_leased_for), [false, false, true, true, true]);
        assert_eq!([60_001, 7_200_000].map(is_leased_for), [false, false]);
    }
}
