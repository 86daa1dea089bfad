//! The steps of a [`StoredRefresh`]: each turns an answer into the next call or the outcome.

use std::sync::Arc;
use std::time::Duration;

use super::{MOST_TRIES, Next, State, StoredRefresh, is_leased};
use crate::clock::UnixMillis;
use crate::engine::Engine;
use crate::engine::opt_out::opted_out_until;
use crate::engine::settle::not_due_at;
use crate::engine::store_calls::{Ended, Loaded, StoreCall, StoreWrite, Unavailable};
use crate::error::{ErrorKind, EuidError};
use crate::identity::Identity;
use crate::outcome::Refreshed;
use crate::sealed::payload::OptOut;
use crate::sealed::record::{self, NewRecord, Record};
use crate::store::{Put, StoreKey, Stored, When};

impl StoredRefresh {
    pub(super) fn lease(&mut self, engine: &Engine, now: UnixMillis) -> Next {
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

    pub(super) fn leased(&mut self, put: Result<Put, Unavailable>, written: [u8; 16]) -> Next {
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

    pub(super) fn wait(&mut self, waits: usize) -> Next {
        let wait = WAITS.get(waits).filter(|_| self.is_awaited).ok_or(None)?;
        self.state = State::Wait(waits);
        Ok(StoreCall::Wait(*wait))
    }

    pub(super) fn read_again(&mut self, waits: usize) -> Next {
        self.state = State::ReadAgain(waits);
        Ok(StoreCall::Get(self.key.clone()))
    }

    /// The record as it is now, after the lease was refused or while another node has it.
    pub(super) fn have_read(&mut self, engine: &Engine, loaded: &Loaded, waits: usize, now: UnixMillis) -> Next {
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

    pub(super) fn refreshed(
        &mut self,
        engine: &Engine,
        outcome: Result<Refreshed, EuidError>,
        now: UnixMillis,
    ) -> Next {
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
        // The outcome keeps the operator's times: the host tells by them that this node's clock is ahead.
        let kept = not_due_at(now, &pair, engine.refresh_ahead);
        let write = engine.put_identity(&self.key, When::Is(version), &self.record(&kept), now);
        let Some(write) = write else { return Err(Some(Ok(Refreshed::Identity(pair)))) };
        self.state = State::NewPair { pair, again };
        Ok(StoreCall::Put(write))
    }

    pub(super) fn have_read_for_pair(
        &mut self,
        engine: &Engine,
        pair: Identity,
        loaded: &Loaded,
        now: UnixMillis,
    ) -> Next {
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

    pub(super) fn end_previous(
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

fn ended() -> Result<Refreshed, EuidError> {
    Err(EuidError::new(ErrorKind::LoginEnded, "the login has ended, as the store says"))
}

/// How long a page without a usable token waits for another node's refresh, before it reads again.
const WAITS: [Duration; 3] = [Duration::from_millis(25), Duration::from_millis(50), Duration::from_millis(100)];
