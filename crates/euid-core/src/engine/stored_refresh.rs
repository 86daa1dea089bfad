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

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::decision::Decision;
use super::opt_out::opted_out_until;
use super::store_calls::{Ended, Loaded, StoreAnswer, StoreCall, StoreWrite, Unavailable};
use super::{Engine, Step};
use crate::clock::UnixMillis;
use crate::error::{ErrorKind, EuidError};
use crate::identity::Identity;
use crate::outcome::Refreshed;
use crate::reason::Reason;
use crate::sealed::login::Login;
use crate::sealed::payload::OptOut;
use crate::sealed::record::{self, NewRecord, Record};
use crate::store::{Put, StoreKey, Stored, When};

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

    fn lease(&mut self, engine: &Engine, now: UnixMillis) -> Next {
        self.tries += 1;
        if self.tries > MOST_TRIES {
            return Err(None);
        }
        let when = self.version.map_or(When::Absent, When::Is);
        let (asked_until, previous) = (self.lease_until, self.previous.as_ref());
        let record = NewRecord { asked_until, previous, ..self.record(&self.identity) };
        let write = engine.put_identity(&self.key, when, &record, now).ok_or(None)?;
        self.state = State::Lease { written: write.stored.version };
        Ok(StoreCall::Put(write))
    }

    fn leased(&mut self, put: Result<Put, Unavailable>, written: [u8; 16]) -> Next {
        match put {
            Ok(Put::Done) => {
                self.version = Some(written);
                Ok(self.refresh())
            }
            Ok(Put::Refused) => self.read_again(0),
            // A record can't have a new pair without the lease; the client can.
            Err(Unavailable) if self.version.is_none() => Ok(self.refresh()),
            Err(Unavailable) => Err(None),
        }
    }

    fn refresh(&mut self) -> StoreCall {
        self.state = State::Refresh;
        StoreCall::Refresh(Arc::clone(&self.identity))
    }

    fn wait(&mut self, waits: usize) -> Next {
        let wait = WAITS.get(waits).filter(|_| self.is_awaited).ok_or(None)?;
        self.state = State::Wait(waits);
        Ok(StoreCall::Wait(*wait))
    }

    fn read_again(&mut self, waits: usize) -> Next {
        self.state = State::ReadAgain(waits);
        Ok(StoreCall::Get(self.key.clone()))
    }

    /// The record as it is now, after the lease was refused or while another node has it.
    fn have_read(&mut self, engine: &Engine, loaded: &Loaded, waits: usize, now: UnixMillis) -> Next {
        let there = match loaded {
            Err(Unavailable) => return Err(None),
            // The client still has a sealed identity, which a later page moves.
            Ok(None) if self.version.is_none() => return Err(None),
            Ok(None) => return Err(Some(ended())),
            Ok(Some(stored)) => match self.read(engine, stored).ok_or(None)? {
                There::Ended => return Err(Some(ended())),
                There::OptedOut => return Err(Some(Ok(Refreshed::OptedOut))),
                // A later page has the token of that login.
                There::OtherLogin => return Err(None),
                There::Pair(there) => there,
            },
        };
        if there.is_newer_than(&self.identity) {
            return Err(Some(Ok(Refreshed::Identity(there.identity))));
        }
        if is_leased(there.asked_until, now) {
            return self.wait(waits);
        }
        self.version = Some(there.version);
        self.previous = there.previous;
        self.identity = Arc::new(there.identity);
        self.lease(engine, now)
    }

    fn refreshed(&mut self, engine: &Engine, outcome: Result<Refreshed, EuidError>, now: UnixMillis) -> Next {
        let end = match &outcome {
            Ok(Refreshed::Identity(pair)) => return self.put_pair(engine, pair.clone(), false, now),
            Ok(Refreshed::OptedOut) => {
                let opt_out = OptOut { login: self.login, until: opted_out_until(now) };
                // A logout that came meanwhile stays.
                let when = self.version.map_or(When::Absent, When::Is);
                if self.is_of_user {
                    engine.put_user_opt_out(&self.key, when, &opt_out, Ended::Login(self.login.lineage))
                } else {
                    engine.put_opt_out(&self.key, when, &opt_out)
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::RejectedToken | ErrorKind::LoginEnded) => {
                // Of this pair only: another node may have put a newer one.
                self.version.and_then(|version| engine.put_end(&self.key, When::Is(version)))
            }
            Err(_) => return Err(Some(outcome)),
        };
        self.end(end, outcome)
    }

    /// Ends a login, which does not change the outcome.
    fn end(&mut self, write: Option<StoreWrite>, outcome: Result<Refreshed, EuidError>) -> Next {
        let Some(write) = write else { return Err(Some(outcome)) };
        self.state = State::End { outcome, write: write.clone(), tries: 0 };
        Ok(StoreCall::Put(write))
    }

    fn put_pair(&mut self, engine: &Engine, pair: Identity, again: bool, now: UnixMillis) -> Next {
        // Without the lease, as after an outage, the client keeps the new pair.
        let Some(version) = self.version else { return Err(Some(Ok(Refreshed::Identity(pair)))) };
        let write = engine.put_identity(&self.key, When::Is(version), &self.record(&pair), now);
        let Some(write) = write else { return Err(Some(Ok(Refreshed::Identity(pair)))) };
        self.state = State::NewPair { pair, again };
        Ok(StoreCall::Put(write))
    }

    fn have_read_for_pair(&mut self, engine: &Engine, pair: Identity, loaded: &Loaded, now: UnixMillis) -> Next {
        let there = match loaded {
            Ok(Some(stored)) => self.read(engine, stored),
            Ok(None) => Some(There::Ended),
            Err(Unavailable) => None,
        };
        match there {
            Some(There::Pair(there)) if there.is_older_than(&pair) => {
                self.version = Some(there.version);
                self.put_pair(engine, pair, true, now)
            }
            // The login has ended meanwhile.
            Some(There::Ended) => Err(Some(ended())),
            Some(There::OptedOut) => Err(Some(Ok(Refreshed::OptedOut))),
            Some(There::Pair(_) | There::OtherLogin) | None => Err(Some(Ok(Refreshed::Identity(pair)))),
        }
    }

    fn end_previous(
        &mut self,
        engine: &Engine,
        put: Result<Put, Unavailable>,
        outcome: Result<Refreshed, EuidError>,
    ) -> Next {
        let previous = self.previous.take().filter(|_| put == Ok(Put::Done));
        self.end(previous.and_then(|key| engine.put_end(&key, When::Always)), outcome)
    }

    /// A pair as it is put, without a lease.
    fn record<'a>(&'a self, identity: &'a Identity) -> NewRecord<'a> {
        let no_lease = UnixMillis::from_millis(0);
        NewRecord { login: &self.login, identity, since: self.since, asked_until: no_lease, previous: None }
    }

    /// What the store has now; `None` if this node can't read it.
    fn read(&self, engine: &Engine, stored: &Stored) -> Option<There> {
        let there = record::open(&engine.keys().keys(), &self.key, stored, |record| match record {
            Record::Ended => Some(There::Ended),
            Record::OptedOut(_) => Some(There::OptedOut),
            Record::Identity(record) if record.payload.login.lineage != self.login.lineage => Some(There::OtherLogin),
            Record::Identity(record) => Some(There::Pair(Pair {
                version: stored.version,
                asked_until: record.asked_until,
                previous: record.previous.clone(),
                identity: record.payload.identity()?,
            })),
        });
        there.ok().flatten()
    }
}

/// What the store has now.
enum There {
    Pair(Pair),
    /// A later login of the same user.
    OtherLogin,
    Ended,
    OptedOut,
}

/// A pair of this login in the store.
struct Pair {
    version: [u8; 16],
    asked_until: UnixMillis,
    previous: Option<StoreKey>,
    identity: Identity,
}

impl Pair {
    fn is_newer_than(&self, identity: &Identity) -> bool {
        self.identity.times().identity_expires > identity.times().identity_expires
    }

    fn is_older_than(&self, identity: &Identity) -> bool {
        self.identity.times().identity_expires < identity.times().identity_expires
    }
}

/// Whether another node waits for the operator's answer. A lease that ends much later is of a node whose clock is ahead, or
/// was: it counts no more than a call can take.
fn is_leased(asked_until: UnixMillis, now: UnixMillis) -> bool {
    now < asked_until && asked_until <= now.saturating_add(LONGEST_LEASE)
}

fn ended() -> Result<Refreshed, EuidError> {
    Err(EuidError::new(ErrorKind::LoginEnded, "the login has ended, as the store says"))
}

/// Longer than a call and the differences between clocks that are kept right.
const LONGEST_LEASE: Duration = Duration::from_secs(60);
/// How many leases one refresh tries to get, and how often it tries an end that other writes come before.
const MOST_TRIES: u8 = 3;
/// How long a page without a usable token waits for another node's refresh, before it reads again.
const WAITS: [Duration; 3] = [Duration::from_millis(25), Duration::from_millis(50), Duration::from_millis(100)];

impl fmt::Debug for StoredRefresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRefresh").field("key", &self.key).field("state", &self.state).finish_non_exhaustive()
    }
}

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
