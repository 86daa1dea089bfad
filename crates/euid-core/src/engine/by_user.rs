//! A store that is keyed by the signed-in user: one identity for all their devices.
//!
//! 1. The key is a hash of the user's id under a secret that never changes. A client has no handle, and nothing but an
//!    opt-out that it was told of.
//! 2. Every write takes place only if the record is as it was read. If not, it is read again, a few times: a logout ends
//!    the login that it has read and never a later one; a login replaces every other, but not an opt-out that may be newer.
//! 3. A login that the store does not confirm is not kept. Nothing is sealed at the client.
//! 4. A device that was told of an opt-out carries that until 72 h after it was noted: its sealed record is bound to the
//!    user, and counts against a login that began before, and where the store has forgotten it. A login that began later
//!    counts, also if the device learns of the opt-out only then.

use std::sync::Arc;

use super::exchange::Exchange;
use super::load::Load;
use super::routes::Served;
use super::source::Source;
use super::stored_refresh::StoredRefresh;
use super::{Change, Findings, RejectReason, SignedIn, Step, Unavailable};
use crate::policy::{self, Action, Credential, Evaluation, SubjectMatch, Verdict, Visibility};
use crate::reason::Reason;
use crate::sealed::payload::OptOut;
use crate::sealed::record::{self, Record, StoredIdentity};
use crate::store::StoreKey;
use crate::transport::slots::{Brought, Held, HeldRecord, Hits, Slot};

impl<T: Served> Exchange<'_, T> {
    /// The step of a request in an engine whose store is keyed by the user.
    #[cold]
    pub(super) fn begin_by_user(&self) -> Step {
        let (Some(held), SignedIn::User(user)) = (self.held, self.context.user) else {
            let verdict = policy::without_identity(Credential::Nothing, Reason::NoUser, false, self.context.consent);
            return self.without_token(verdict, true, &Brought::NOTHING, Findings::NONE);
        };
        let Some(loaded) = self.loaded else { return Step::Load(Load::of_user(held.key.clone())) };
        let client = self.own_opt_out(user);
        match loaded {
            Err(Unavailable) => self.without_store(&client),
            Ok(None) => self.knowing(held, HeldRecord::Nothing, |knowing| {
                knowing.without_login(&client, Reason::NoRecord, Findings::NONE)
            }),
            Ok(Some(stored)) => {
                let keys = self.engine.keys.keys();
                let step = |record: Record<'_>| self.with_user_record(record, stored.version, held, &client);
                let opened = record::open(&keys, &held.key, stored, step);
                opened.unwrap_or_else(|error| self.with_rejected(&client, error.into()))
            }
        }
    }

    /// The opt-out of this user that the device was told of.
    fn own_opt_out(&self, user: &[u8]) -> Client {
        let (values, now) = (T::values(self.headers), (self.now)());
        let mut hits = Hits::default();
        self.transport.find(&values, &mut hits);
        let mut client = Client { opt_out: None, brought: Brought::NOTHING };
        self.transport.for_each_tagged(&values, &hits, |hit| {
            if hit.slot.has_valid_tag() && matches!(hit.slot, Slot::Identity(_)) {
                // From before the site used this store: a logout removes it.
                client.brought.note(hit.slot);
            }
            let Some(record) = self.engine.open_opt_out(self.transport, &hit).filter(|_| hit.slot.has_valid_tag())
            else {
                return;
            };
            if !T::EXPIRES && policy::has_outlived(record.until, now) {
                client.brought.end_leftover(hit.slot);
            } else if now < record.until && record.login.is_bound_to(user) {
                let newest = client.opt_out.map_or(record.until, |other: OptOut| other.until.max(record.until));
                client.opt_out = Some(OptOut { until: newest, ..record });
            }
        });
        client
    }

    fn with_user_record(&self, record: Record<'_>, version: [u8; 16], held: &Held, client: &Client) -> Step {
        match record {
            Record::Ended => self.knowing(held, HeldRecord::Ended { version }, |knowing| {
                // The store has the end of a later login, so it has lost nothing: the opt-out of the device is older.
                let client = Client { opt_out: None, ..client.clone() };
                knowing.without_login(&client, Reason::LoginEnded, Findings::NONE)
            }),
            Record::OptedOut(opt_out) => {
                let read = HeldRecord::OptedOut { version };
                self.knowing(held, read, |knowing| knowing.with_user_opt_out(&opt_out, client))
            }
            Record::Identity(record) => {
                let lineage = *record.payload.login.lineage.as_bytes();
                let read = HeldRecord::Login { version, lineage };
                self.knowing(held, read, |knowing| knowing.with_user_identity(&record, version, &held.key, client))
            }
        }
    }

    /// The step if the store does not answer. What the device itself knows of an opt-out counts.
    fn without_store(&self, client: &Client) -> Step {
        let verdict = match client.opt_out {
            Some(opt_out) => self.opted_out(&opt_out),
            None => policy::store_unavailable(self.context.consent),
        };
        self.without_token(verdict, true, &client.brought, Findings::NONE)
    }

    /// The step of a request whose record can't be used.
    fn with_rejected(&self, client: &Client, reason: RejectReason) -> Step {
        self.without_login(client, reason.into(), Findings::rejected(reason))
    }

    fn without_login(&self, client: &Client, why: Reason, findings: Findings) -> Step {
        let verdict = match client.opt_out {
            Some(opt_out) => self.opted_out(&opt_out),
            None => policy::without_identity(Credential::Nothing, why, true, self.context.consent),
        };
        self.without_token(verdict, true, &client.brought, findings)
    }

    fn opted_out(&self, opt_out: &OptOut) -> Verdict {
        policy::opted_out(opt_out.until, false, SubjectMatch::Same, self.context.consent, (self.now)())
    }

    fn with_user_opt_out(&self, opt_out: &OptOut, client: &Client) -> Step {
        let verdict = self.opted_out(opt_out);
        let tells = verdict.sees == Visibility::OptedOut && client.opt_out.is_none();
        // The device learns of it now and keeps it, as of when it was noted: a login may begin meanwhile.
        let change = if tells { Change::RecordOptOut(Box::new(*opt_out)) } else { verdict.action.into() };
        Step::Ready(self.decide(verdict, None, change, true, &client.brought, Findings::NONE))
    }

    fn with_user_identity(
        &self,
        record: &StoredIdentity<'_>,
        version: [u8; 16],
        key: &StoreKey,
        client: &Client,
    ) -> Step {
        let StoredIdentity { asked_until, since, ref payload, old_key, .. } = *record;
        if client.opt_out.is_some_and(|opt_out| since <= opt_out.noted_at()) {
            return self.without_login(client, Reason::OptedOut, Findings::NONE);
        }
        let login = payload.login;
        let (subject, rejected) = self.context.compare_user(&login);
        let findings = Findings { old_key, rejected };
        let (evaluation, times, now) = self.evaluate(subject, &payload.times, login.lineage.chance());
        let Evaluation::Proceed(verdict) = evaluation else {
            let Some(identity) = payload.identity().map(Arc::new) else {
                return self.with_rejected(client, RejectReason::Undecodable);
            };
            let refresh = StoredRefresh::of_record(key.clone(), login, Arc::clone(&identity), version, since).by_user();
            let source = Source::Stored(login);
            let step = self.candidate(source, &client.brought, identity, times, now, findings);
            return refresh.asked_until(asked_until).of_candidate(step, now);
        };
        let token = (verdict.sees == Visibility::Active).then(|| payload.advertising_token(self.transport.scope()));
        let change = if verdict.action == Action::EndLogin { Change::EndLogin } else { Change::Keep };
        Step::Ready(self.decide(verdict, token, change, true, &client.brought, findings))
    }
}

/// What a client brought.
#[derive(Clone)]
struct Client {
    /// The opt-out that it was told of, with the latest end.
    opt_out: Option<OptOut>,
    brought: Brought,
}
