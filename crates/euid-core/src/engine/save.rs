//! The part of a response that goes to the store, before the headers are written.
//!
//! 1. A login is put where nothing is. If the store does not confirm that, the response seals the identity.
//! 2. A logout, withdrawn consent and a stated opt-out end the record, and that of the login before it. So does a login
//!    with the one before the login that it replaces.
//! 3. A sealed identity that a refresh has moved is removed once the store has it; if not, the response seals the new pair.

use http::{HeaderMap, StatusCode};

use super::finish::Report;
use super::stored::{Loaded, StoreAnswer, StoreCall, Unavailable};
use super::write::Removals;
use super::{Change, Engine, Pending, Renewal};
use crate::clock::UnixMillis;
use crate::sealed::login::Login;
use crate::sealed::record::{self, Record};
use crate::store::{Put, StoreKey, StoreMode, When};
use crate::transport::slots::{Brought, IdleScope};

/// The calls to the store that a response needs before its headers are written.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::engine::{Save, StoreAnswer, StoreCall, StoreWrite};
///
/// /// Makes the calls. Returns the ends of logins that the store did not confirm: the host tries them again.
/// fn save(save: &mut Save, mut call: impl FnMut(&StoreCall) -> StoreAnswer) -> Vec<StoreWrite> {
///     let mut owed = Vec::new();
///     while let Some(next) = save.call() {
///         let answer = call(next);
///         if let (StoreCall::Put(write), StoreAnswer::Put(Err(_))) = (next, &answer)
///             && write.ends_login
///         {
///             owed.push(write.clone());
///         }
///         save.answer(answer);
///     }
///     owed
/// }
/// # let _ = save;
/// ```
#[derive(Clone, Debug)]
#[must_use = "the response is written by `Engine::saved`"]
pub struct Save {
    pending: Pending,
    asked: Option<Change>,
    status: StatusCode,
    /// In the order in which they are made, the last one first.
    calls: Vec<StoreCall>,
    outcome: Saved,
}

/// The calls of a save.
#[derive(Debug)]
pub(super) struct SavePlan {
    calls: Vec<StoreCall>,
    outcome: Saved,
}

/// What the response must know of the store.
#[derive(Clone, Debug)]
pub(super) enum Saved {
    /// Nothing.
    Nothing,
    /// A login that was to be put, under this name, and whether it was.
    Login { login: Login, is_stored: bool },
    /// The record of a login whose sealed identity is to move, if it has been read.
    Move { key: StoreKey, loaded: Loaded },
}

impl Save {
    pub(super) fn new(plan: SavePlan, pending: Pending, asked: Option<&Change>, status: StatusCode) -> Self {
        let SavePlan { calls, outcome } = plan;
        Self { pending, asked: asked.cloned(), status, calls, outcome }
    }

    /// The next call; `None` once the headers can be written.
    #[must_use]
    pub fn call(&self) -> Option<&StoreCall> {
        self.calls.last()
    }

    /// Takes the answer to the [call](Self::call).
    pub fn answer(&mut self, answer: StoreAnswer) {
        self.calls.pop();
        match (&mut self.outcome, answer) {
            (Saved::Login { is_stored, .. }, StoreAnswer::Put(Ok(Put::Done))) => *is_stored = true,
            (Saved::Move { loaded, .. }, StoreAnswer::Got(answer)) => *loaded = answer,
            _ => {}
        }
    }
}

impl Engine {
    /// Writes the headers after the store's answers, as [`finish`](Self::finish) does without a store.
    pub fn saved(&self, save: Box<Save>, headers: &mut HeaderMap, now: impl Fn() -> UnixMillis) -> Report {
        let Save { mut pending, asked, status, outcome, .. } = *save;
        if let (Saved::Move { key, loaded }, Change::Renew(renewal)) = (&outcome, &pending.change)
            && self.is_there(key, loaded, renewal)
        {
            pending.change = Change::ForgetIdentity;
        }
        // With an outcome there is no other plan.
        self.finish_with(&mut pending, asked.as_ref(), status, headers, &now, Some(&outcome)).unwrap_or_default()
    }

    /// The calls that a change needs; `None` if it needs none.
    pub(super) fn plan_save(&self, change: &Change, removals: &Removals<'_>, now: UnixMillis) -> Option<SavePlan> {
        let mode = self.store()?;
        let brought = removals.brought;
        let mut calls = Vec::new();
        let mut outcome = Saved::Nothing;
        match change {
            Change::Keep | Change::ForgetIdentity | Change::RecordOptOut(_) => return None,
            Change::Renew(renewal) if mode == StoreMode::ReadWrite && !renewal.login.migrated => {
                let key = StoreKey::of_login(removals.route.scope()?, &renewal.login.lineage);
                calls.push(StoreCall::Get(key.clone()));
                outcome = Saved::Move { key, loaded: Err(Unavailable) };
            }
            Change::Renew(_) => return None,
            Change::Begin(new) => {
                if mode == StoreMode::ReadWrite
                    && let Some(scope) = removals.route.scope()
                    && new.identity.scope().is_none_or(|own| own == scope)
                    && let Ok(login) = Login::new(new.subject.as_deref())
                {
                    let key = StoreKey::of_login(scope, &login.lineage);
                    let replaced = brought.held().map(|held| &held.key);
                    let put = self.put_identity((&key, When::Absent), (&login, &new.identity), replaced, None, now);
                    if let Some(put) = put {
                        calls.extend(brought.held().and_then(|held| self.end(held.previous.as_ref()?)));
                        // After the ends, as the last call is made first.
                        calls.push(StoreCall::Put(put));
                        outcome = Saved::Login { login, is_stored: false };
                    }
                }
            }
            Change::EndLogin => calls.extend(self.ends(brought).chain(self.idle_ends(brought))),
            Change::OptOut(_) => calls.extend(self.ends(brought)),
        }
        (!calls.is_empty()).then_some(SavePlan { calls, outcome })
    }

    /// The ends of the login that the request named, and of the one before it.
    fn ends(&self, brought: &Brought) -> impl Iterator<Item = StoreCall> {
        let keys = brought.held().into_iter().flat_map(|held| held.previous.iter().chain([&held.key]));
        keys.filter_map(|key| self.end(key))
    }

    /// The ends of the logins of scopes that do not serve the request.
    fn idle_ends(&self, brought: &Brought) -> impl Iterator<Item = StoreCall> {
        brought.idle().iter().flat_map(|IdleScope { brought, .. }| self.ends(brought))
    }

    fn end(&self, key: &StoreKey) -> Option<StoreCall> {
        self.put_end(key, When::Always).map(StoreCall::Put)
    }

    /// Whether the store has this pair of the login, or a newer one.
    fn is_there(&self, key: &StoreKey, loaded: &Loaded, renewal: &Renewal) -> bool {
        let Ok(Some(stored)) = loaded else { return false };
        let expires = |record: Record<'_>| match record {
            Record::Identity(record) => Some(record.payload.times.identity_expires),
            Record::Ended => None,
        };
        let there = record::open(&self.keys.keys(), key, stored, expires).ok().flatten();
        there.is_some_and(|there| there >= renewal.identity.times().identity_expires)
    }
}
