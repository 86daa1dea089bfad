//! The part of a response that goes to the store, before the headers are written.
//!
//! 1. A login is put where nothing is. If the store does not confirm that, the response seals the identity.
//! 2. A logout, withdrawn consent and a stated opt-out end the record, and that of the login before it. So does a login
//!    with the one before the login that it replaces. The end of a handle of which nothing is known is remembered for a
//!    short time only, as anyone can make one up.
//! 3. A sealed identity that a refresh has moved is removed once the store has it; if not, the response seals the new pair.

use http::{HeaderMap, StatusCode};

use super::finish::Report;
use super::opt_out::opted_out_until;
use super::store_calls::{Ended, Loaded, StoreAnswer, StoreCall, StoreWrite, Unavailable};
use super::write::Removals;
use super::{Change, Engine, Pending, Renewal};
use crate::clock::UnixMillis;
use crate::identity::Identity;
use crate::sealed::StoreSecret;
use crate::sealed::login::{Lineage, Login};
use crate::sealed::payload::OptOut;
use crate::sealed::record::{self, NewRecord, Record};
use crate::store::{Put, StoreKey, StoreMode, When};
use crate::transport::slots::{Brought, Held, HeldRecord};

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
///     owed.extend(save.open_ends().cloned());
///     owed
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "the response is written by `Engine::saved`"]
pub struct Save {
    pending: Pending,
    asked: Option<Change>,
    status: StatusCode,
    /// In the order in which they are made, the last one first.
    calls: Vec<StoreCall>,
    /// Writes for which a record must be read first.
    unread: Vec<StoreWrite>,
    /// The write that waits for such a read, and how often it was refused.
    waiting: Option<(StoreWrite, u8)>,
    /// Ends that other writes came before, too often.
    given_up: Vec<StoreWrite>,
    outcome: Saved,
}

/// The calls of a save.
#[derive(Debug)]
pub(super) struct SavePlan {
    calls: Vec<StoreCall>,
    /// Writes for which a record must be read first.
    unread: Vec<StoreWrite>,
    outcome: Saved,
}

/// What the response must know of the store.
#[derive(Clone, Debug)]
pub(super) enum Saved {
    /// Nothing.
    Nothing,
    /// A login that was to be put, under this name, and whether it was.
    Login { login: Login, is_stored: bool },
    /// An opt-out that was to be put, and that the response tells of whether it was or not.
    OptOut(OptOut),
    /// The record of a login whose sealed identity is to move, if it has been read.
    Move { key: StoreKey, loaded: Loaded },
}

impl Save {
    pub(super) fn new(plan: SavePlan, pending: Pending, asked: Option<&Change>, status: StatusCode) -> Self {
        let SavePlan { calls, unread, outcome } = plan;
        let mut save = Self {
            pending,
            asked: asked.cloned(),
            status,
            calls,
            unread,
            waiting: None,
            given_up: Vec::new(),
            outcome,
        };
        save.read_next();
        save
    }

    /// Turns to the next write for which a record must be read, if no call is left.
    fn read_next(&mut self) {
        if self.calls.is_empty()
            && let Some(write) = self.unread.pop()
        {
            self.read_for(write, 0);
        }
    }

    fn read_for(&mut self, write: StoreWrite, refusals: u8) {
        self.calls.push(StoreCall::Get(write.key.clone()));
        self.waiting = Some((write, refusals));
    }

    /// The next call; `None` once the headers can be written.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (_, save) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/save.rs"));
    /// use tower_euid::engine::StoreCall;
    ///
    /// assert!(matches!(save.call(), Some(StoreCall::Put(_)))); // a login
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn call(&self) -> Option<&StoreCall> {
        self.calls.last()
    }

    /// The ends of logins that have not been made: those whose call is still to come, and those that other writes came
    /// before, too often. The host tries them again, like those that the store did not confirm.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (_, save) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/save.rs"));
    /// assert_eq!(save.open_ends().count(), 0); // a login that replaces none ends none
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_ends(&self) -> impl Iterator<Item = &StoreWrite> {
        let puts =
            self.calls.iter().filter_map(|call| if let StoreCall::Put(write) = call { Some(write) } else { None });
        let waiting =
            self.waiting.iter().map(|(write, _)| write).filter(|_| matches!(self.call(), Some(StoreCall::Get(_))));
        let all = puts.chain(&self.unread).chain(waiting).chain(&self.given_up);
        all.filter(|write| write.ends_login)
    }

    /// Takes the answer to the [call](Self::call).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (_, mut save) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/save.rs"));
    /// use tower_euid::engine::StoreAnswer;
    /// use tower_euid::store::Put;
    ///
    /// save.answer(StoreAnswer::Put(Ok(Put::Done)));
    /// assert!(save.call().is_none());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn answer(&mut self, answer: StoreAnswer) {
        match (self.calls.pop(), answer) {
            (Some(StoreCall::Put(write)), StoreAnswer::Put(answer)) => self.have_put(write, answer),
            (Some(StoreCall::Get(_)), StoreAnswer::Got(answer)) => self.have_got(answer),
            // No answer to what was asked: as if the store had not answered.
            _ => {}
        }
        self.read_next();
    }

    fn have_put(&mut self, write: StoreWrite, answer: Result<Put, Unavailable>) {
        let waited = self.waiting.take();
        match answer {
            Ok(Put::Done) => {
                if let Saved::Login { is_stored, .. } = &mut self.outcome {
                    *is_stored |= !write.ends_login;
                }
            }
            Ok(Put::Refused) if write.must_read() => {
                let refusals = waited.map_or(0, |(_, refusals)| refusals) + 1;
                if refusals <= MOST_TRIES {
                    self.read_for(write, refusals);
                } else if write.ends_login {
                    self.given_up.push(write);
                }
            }
            Ok(Put::Refused) if write.ends_login && write.when == When::Absent => {
                self.calls.extend(write.again(None).map(StoreCall::Put));
            }
            Ok(Put::Refused) | Err(Unavailable) => {}
        }
    }

    fn have_got(&mut self, answer: Loaded) {
        if let Saved::Move { loaded, .. } = &mut self.outcome {
            *loaded = answer;
            return;
        }
        let Some((write, refusals)) = self.waiting.take() else { return };
        let next = match answer {
            Ok(stored) => write.again(stored.as_ref()),
            // The host owes an end, so it must fail as a write.
            Err(Unavailable) => Some(write).filter(|write| write.ends_login),
        };
        if let Some(write) = next {
            self.calls.push(StoreCall::Put(write.clone()));
            self.waiting = Some((write, refusals));
        }
    }
}

impl Engine {
    /// Writes the headers after the store's answers, as [`finish`](Self::finish) does without a store.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, mut save) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/save.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::engine::{StoreAnswer, Unavailable};
    ///
    /// save.answer(StoreAnswer::Put(Err(Unavailable)));
    /// let mut headers = http::HeaderMap::new();
    /// let report = engine.saved(save, &mut headers, || at(0));
    /// assert_eq!(report.unwritten, None);
    /// assert!(headers.contains_key("set-cookie")); // the client keeps the identity, as the store does not
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn saved(&self, save: Box<Save>, headers: &mut HeaderMap, now: impl Fn() -> UnixMillis) -> Report {
        let Save { mut pending, asked, status, outcome, .. } = *save;
        if let (Saved::Move { key, loaded }, Change::Renew(renewal)) = (&outcome, &pending.change)
            && self.is_there(key, loaded, renewal)
        {
            pending.change = Change::ForgetIdentity;
        }
        let mut report = Report::default();
        // With an outcome there is no other plan.
        let _ = self.finish_with(&mut pending, asked.as_ref(), status, headers, &now, Some(&outcome), &mut report);
        report
    }

    /// The calls that a change needs; `None` if it needs none.
    pub(super) fn plan_save(
        &self,
        change: &Change,
        removals: &Removals<'_>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Option<SavePlan> {
        if let Some(secret) = self.user_store() {
            // Without a call, the response says what could not be written.
            return self.plan_user_save(secret, change, removals, now());
        }
        let mode = self.store()?;
        let brought = removals.brought;
        let mut plan = SavePlan { calls: Vec::new(), unread: Vec::new(), outcome: Saved::Nothing };
        match change {
            Change::Keep | Change::ForgetIdentity | Change::RecordOptOut(_) => return None,
            Change::Renew(renewal) if mode == StoreMode::ReadWrite && !renewal.login.migrated => {
                let key = StoreKey::of_login(removals.route.scope()?, &renewal.login.lineage);
                plan.calls.push(StoreCall::Get(key.clone()));
                plan.outcome = Saved::Move { key, loaded: Err(Unavailable) };
            }
            Change::Renew(_) => return None,
            Change::Begin(new) => {
                if mode == StoreMode::ReadWrite
                    && let Some(scope) = removals.route.scope()
                    && new.identity.scope().is_none_or(|own| own == scope)
                    && let Ok(login) = Login::new(new.subject.as_deref())
                {
                    let key = StoreKey::of_login(scope, &login.lineage);
                    let replaced = brought.held().filter(|held| held.read != Some(HeldRecord::Nothing));
                    let now = now();
                    let record = NewRecord {
                        previous: replaced.map(|held| &held.key),
                        ..new_record(&login, &new.identity, now)
                    };
                    if let Some(put) = self.put_identity(&key, When::Absent, &record, now) {
                        plan.calls.extend(replaced.and_then(|held| self.end(held.previous.as_ref()?)));
                        // After the ends, as the last call is made first.
                        plan.calls.push(StoreCall::Put(put));
                        plan.outcome = Saved::Login { login, is_stored: false };
                    }
                }
            }
            Change::EndLogin => {
                self.plan_ends(brought, &mut plan);
                brought.idle().iter().for_each(|idle| self.plan_ends(&idle.brought, &mut plan));
            }
            Change::OptOut(_) => self.plan_ends(brought, &mut plan),
        }
        plan.has_calls().then_some(plan)
    }

    /// The calls that a change needs in a store that is keyed by the user.
    fn plan_user_save(
        &self,
        secret: &StoreSecret,
        change: &Change,
        removals: &Removals<'_>,
        now: UnixMillis,
    ) -> Option<SavePlan> {
        let held = removals.brought.held();
        // A login may be of another user than the one who was signed in when the request came.
        let place = |subject: &Option<Box<[u8]>>| {
            let (scope, subject) = (removals.route.scope()?, subject.as_deref()?);
            let key = secret.key_of(scope, subject);
            let read = held.filter(|held| held.key == key).and_then(|held| held.read);
            Some((key, read, Login::new(Some(subject)).ok()?, scope))
        };
        let mut plan = SavePlan { calls: Vec::new(), unread: Vec::new(), outcome: Saved::Nothing };
        match change {
            // Without a subject nothing can be kept. It ends the login of the user who is signed in.
            Change::Begin(new) if new.subject.is_none() => self.plan_user_ends(removals.brought, &mut plan, now),
            Change::OptOut(new) if new.subject.is_none() => self.plan_user_ends(removals.brought, &mut plan, now),
            Change::Begin(new) => {
                let (key, read, login, scope) = place(&new.subject)?;
                if new.identity.scope().is_some_and(|own| own != scope) {
                    return None;
                }
                let (when, record) = (when_as_read(read), new_record(&login, &new.identity, now));
                plan.add(self.put_user_login(&key, when, &record, now), read);
                plan.outcome = Saved::Login { login, is_stored: false };
            }
            Change::OptOut(new) => {
                let (key, read, login, _) = place(&new.subject)?;
                let opt_out = OptOut { login, until: opted_out_until(now) };
                plan.add(self.put_user_opt_out(&key, when_as_read(read), &opt_out, Ended::Until(now)), read);
                plan.outcome = Saved::OptOut(opt_out);
            }
            Change::EndLogin => self.plan_user_ends(removals.brought, &mut plan, now),
            _ => return None,
        }
        plan.has_calls().then_some(plan)
    }

    /// Adds the ends of the logins of a request's user.
    fn plan_user_ends(&self, brought: &Brought, plan: &mut SavePlan, now: UnixMillis) {
        let idle = brought.idle().iter().filter_map(|idle| idle.brought.held());
        for held in brought.held().into_iter().chain(idle) {
            let ended = match held.read {
                // An opt-out stays, and what has ended has ended.
                Some(HeldRecord::OptedOut { .. } | HeldRecord::Ended { .. }) => continue,
                Some(HeldRecord::Login { lineage, .. }) => Ended::Login(Lineage::from_bytes(lineage)),
                Some(HeldRecord::Nothing | HeldRecord::Known) | None => Ended::Until(now),
            };
            plan.add(self.put_end_if_there(&held.key, when_as_read(held.read), ended), held.read);
        }
    }

    /// Adds the ends of the login that a request named, and of the one before it.
    fn plan_ends(&self, brought: &Brought, plan: &mut SavePlan) {
        let Some(Held { key, previous, read }) = brought.held() else { return };
        match read {
            Some(HeldRecord::Known) => plan.calls.extend(previous.iter().chain([key]).filter_map(|key| self.end(key))),
            _ => plan.calls.extend(self.put_unknown_end(key).map(StoreCall::Put)),
        }
    }

    fn end(&self, key: &StoreKey) -> Option<StoreCall> {
        self.put_end(key, When::Always).map(StoreCall::Put)
    }

    /// Whether the store has this pair of the login, or a newer one.
    fn is_there(&self, key: &StoreKey, loaded: &Loaded, renewal: &Renewal) -> bool {
        let Ok(Some(stored)) = loaded else { return false };
        let expires = |record: Record<'_>| match record {
            Record::Identity(record) => Some(record.payload.times.identity_expires),
            Record::Ended | Record::OptedOut(_) => None,
        };
        let there = record::open(&self.keys.keys(), key, stored, expires).ok().flatten();
        there.is_some_and(|there| there >= renewal.identity.times().identity_expires)
    }
}

impl SavePlan {
    /// Adds a write, which takes place only if the record is as it was read.
    fn add(&mut self, write: Option<StoreWrite>, read: Option<HeldRecord>) {
        match read {
            Some(_) => self.calls.extend(write.map(StoreCall::Put)),
            None => self.unread.extend(write),
        }
    }

    fn has_calls(&self) -> bool {
        !self.calls.is_empty() || !self.unread.is_empty()
    }
}

fn when_as_read(read: Option<HeldRecord>) -> When {
    match read {
        None | Some(HeldRecord::Nothing | HeldRecord::Known) => When::Absent,
        Some(HeldRecord::Login { version, .. } | HeldRecord::Ended { version } | HeldRecord::OptedOut { version }) => {
            When::Is(version)
        }
    }
}

/// A login that begins now.
fn new_record<'a>(login: &'a Login, identity: &'a Identity, now: UnixMillis) -> NewRecord<'a> {
    NewRecord { login, identity, since: now, asked_until: UnixMillis::from_millis(0), previous: None }
}

/// How often a refused write is tried again.
const MOST_TRIES: u8 = 2;
