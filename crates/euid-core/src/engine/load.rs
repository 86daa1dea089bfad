//! A request whose identity is in the store: the record that it needs, and the rest of its exchange once the record has
//! come.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::exchange::Exchange;
use super::read::{Found, FoundAnchor};
use super::routes::Served;
use super::source::Source;
use super::stored_refresh::StoredRefresh;
use super::{Change, Engine, Findings, Loaded, RejectReason, RequestContext, Step, Unavailable};
use crate::clock::UnixMillis;
use crate::policy::{self, Action, Credential, Evaluation, Visibility};
use crate::reason::Reason;
use crate::sealed::login::LineageText;
use crate::sealed::payload::OptOut;
use crate::sealed::record::{self, Record, RecordError, StoredIdentity};
use crate::store::{StoreKey, StoreMode, Stored};
use crate::transport::slots::{Brought, Held, HeldRecord};

/// A read of a record that the host must make before the engine can decide. [`Engine::resume`] goes on with what it found.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use http::{HeaderMap, Method};
/// use tower_euid::engine::{Engine, Loaded, RequestContext, Step};
/// use tower_euid::store::{StoreKey, StoreMode};
///
/// /// The step of a request, with the record from the store if it needs one.
/// fn begin(engine: &Engine, request: &HeaderMap, get: impl FnOnce(&StoreKey) -> Loaded) -> Step {
///     # let now = || tower_euid::clock::UnixMillis::from_millis(5_000);
///     let context = RequestContext::UNRESTRICTED;
///     match engine.begin(&Method::GET, request, &context, now) {
///         Step::Load(load) => engine.resume(load.key(), &get(load.key()), &Method::GET, request, &context, now),
///         step => step,
///     }
/// }
/// # let mut request = request;
/// # let anchor = request.get_all("cookie").iter().next().unwrap().clone();
/// # request.insert("cookie", anchor);
/// let engine = engine.with_store(StoreMode::ReadWrite);
/// let Step::Ready(decision) = begin(&engine, &request, |_| Ok(None)) else { unreachable!() };
/// assert_eq!(decision.euid().state(), "absent"); // the store has no such login
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Load {
    key: StoreKey,
    is_of_user: bool,
}

impl Load {
    /// The key of the record in the store.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use std::collections::HashMap;
    /// use tower_euid::engine::{Load, Loaded};
    /// use tower_euid::store::{StoreKey, Stored};
    ///
    /// fn look_up(load: &Load, records: &HashMap<StoreKey, Stored>) -> Loaded {
    ///     Ok(records.get(load.key()).cloned())
    /// }
    /// ```
    #[must_use]
    pub fn key(&self) -> &StoreKey {
        &self.key
    }

    /// The load of a user's record.
    pub(super) fn of_user(key: StoreKey) -> Self {
        Self { key, is_of_user: true }
    }

    /// Whether the host may share one read among the requests that come meanwhile, and remember what it has found for a
    /// short time. A record that is keyed by the user is read for each request: a logout on one device holds for the others.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let anchor = request.get_all("cookie").iter().next().unwrap().clone();
    /// # let request = http::HeaderMap::from_iter([(http::header::COOKIE, anchor)]);
    /// use http::Method;
    /// use tower_euid::engine::{RequestContext, Step};
    /// use tower_euid::store::StoreMode;
    ///
    /// let by_handle = engine.with_store(StoreMode::ReadWrite);
    /// let step = by_handle.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(5_000));
    /// assert!(matches!(step, Step::Load(load) if load.may_be_shared()));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn may_be_shared(&self) -> bool {
        !self.is_of_user
    }
}

impl Engine {
    /// Goes on with a request that needs a record: `key` is that of the load, and `loaded` the store's answer. Pass the same
    /// method, headers and context as to [`begin`](Self::begin); the step is not [`Step::Load`] again.
    ///
    /// `Ok(None)` means that there is no such login. If the store did not answer, or the host does not ask it, pass
    /// [`Unavailable`]: the step is a decision, the handler sees [`Euid::Unavailable`](crate::Euid::Unavailable), and all
    /// state stays.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let anchor = request.get_all("cookie").iter().next().unwrap().clone();
    /// # let request = http::HeaderMap::from_iter([(http::header::COOKIE, anchor)]);
    /// use http::Method;
    /// use tower_euid::engine::{RequestContext, Step, Unavailable};
    /// use tower_euid::store::StoreMode;
    ///
    /// let (engine, all) = (engine.with_store(StoreMode::ReadWrite), RequestContext::UNRESTRICTED);
    /// let Step::Load(load) = engine.begin(&Method::GET, &request, &all, || at(5_000)) else { unreachable!() };
    /// for (loaded, state) in [(Ok(None), "absent"), (Err(Unavailable), "unavailable")] {
    ///     let step = engine.resume(load.key(), &loaded, &Method::GET, &request, &all, || at(5_000));
    ///     assert!(matches!(step, Step::Ready(decision) if decision.euid().state() == state));
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(
        &self,
        key: &StoreKey,
        loaded: &Loaded,
        method: &Method,
        headers: &HeaderMap,
        context: &RequestContext<'_>,
        now: impl Fn() -> UnixMillis,
    ) -> Step {
        self.begin_on_route(method, headers, context, Some((key, loaded)), &now)
    }
}

impl<T: Served> Exchange<'_, T> {
    /// The step of a request whose login has nothing at the client but its handle.
    #[cold]
    pub(super) fn with_handle(&self, held: &Held, found: &Found<'_, Step>) -> Option<Step> {
        let FoundAnchor::Login(lineage) = found.anchor else { return None };
        if found.brought.identity || found.brought.opt_out {
            return None;
        }
        let brought = &found.brought;
        Some(match self.loaded {
            None => Step::Load(Load { key: held.key.clone(), is_of_user: false }),
            Some(Err(Unavailable)) => {
                let verdict = policy::store_unavailable(self.context.consent);
                self.without_token(verdict, true, brought, Findings::NONE)
            }
            Some(Ok(None)) => self.knowing(held, HeldRecord::Nothing, |knowing| {
                knowing.without_record(Reason::NoRecord, brought, Findings::NONE)
            }),
            Some(Ok(Some(stored))) => self.with_stored(stored, held, lineage, brought),
        })
    }

    /// The step of a request for whose login the store has something.
    fn with_stored(&self, stored: &Stored, held: &Held, lineage: &LineageText, brought: &Brought) -> Step {
        let keys = self.engine.keys.keys();
        let opened = record::open(&keys, &held.key, stored, |record| match record {
            Record::OptedOut(opt_out) if opt_out.login.lineage_text() == *lineage => {
                Ok(self.knowing(held, HeldRecord::Known, |knowing| knowing.with_stored_opt_out(&opt_out, brought)))
            }
            Record::Ended | Record::OptedOut(_) => Err(RejectReason::LoginEnded),
            Record::Identity(record) => {
                self.with_record(&record, held, lineage, stored.version, brought).ok_or(RejectReason::Undecodable)
            }
        });
        opened.unwrap_or_else(|error| Err(error.into())).unwrap_or_else(|reason| {
            let findings = Findings::rejected(reason);
            self.knowing(held, HeldRecord::Known, |knowing| knowing.without_record(reason.into(), brought, findings))
        })
    }

    /// Goes on with what is known of the record: the response writes to the store by that.
    #[cold]
    pub(super) fn knowing<R>(&self, held: &Held, read: HeldRecord, go_on: impl FnOnce(&Exchange<'_, T>) -> R) -> R {
        let held = Held { read: Some(read), ..held.clone() };
        go_on(&Exchange { held: Some(&held), ..*self })
    }

    /// An opt-out that a refresh has found, of which the client has not been told.
    fn with_stored_opt_out(&self, opt_out: &OptOut, brought: &Brought) -> Step {
        let (subject, rejected) = self.context.compare_user(&opt_out.login);
        let verdict = policy::opted_out(opt_out.until, false, subject, self.context.consent, (self.now)());
        let tells = verdict.sees == Visibility::OptedOut;
        let change = if tells { Change::RecordOptOut(Box::new(*opt_out)) } else { verdict.action.into() };
        let findings = Findings { rejected, ..Findings::NONE };
        Step::Ready(self.decide(verdict, None, change, true, brought, findings))
    }

    /// No usable record: nothing but withdrawn consent changes state because of it.
    fn without_record(&self, why: Reason, brought: &Brought, findings: Findings) -> Step {
        let verdict = policy::without_identity(Credential::Nothing, why, true, self.context.consent);
        self.without_token(verdict, true, brought, findings)
    }

    /// Judges an identity in the store; `None` if the record is not of the login that asks for it.
    fn with_record(
        &self,
        record: &StoredIdentity<'_>,
        held: &Held,
        lineage: &LineageText,
        version: [u8; 16],
        brought: &Brought,
    ) -> Option<Step> {
        let StoredIdentity { asked_until, since, ref previous, ref payload, old_key } = *record;
        let login = payload.login;
        if login.lineage_text() != *lineage {
            return None;
        }
        // The response must know which login this one replaced.
        let known = Held { key: held.key.clone(), previous: previous.clone(), read: Some(HeldRecord::Known) };
        let exchange = Exchange { held: Some(&known), ..*self };
        let (subject, rejected) = self.context.compare_user(&login);
        let findings = Findings { old_key, rejected };
        let (evaluation, times, now) = self.evaluate(subject, &payload.times, login.lineage.chance());
        let Evaluation::Proceed(verdict) = evaluation else {
            let identity = Arc::new(payload.identity()?);
            if self.engine.store() == Some(StoreMode::ReadOnly) {
                // The response seals the new pair at the client.
                return Some(exchange.candidate(Source::OwnState(login), brought, identity, times, now, findings));
            }
            let key = held.key.clone();
            let refresh = StoredRefresh::of_record(key, login, Arc::clone(&identity), version, since);
            let refresh = refresh.replacing(previous.clone()).asked_until(asked_until);
            let step = exchange.candidate(Source::Stored(login), brought, identity, times, now, findings);
            return Some(refresh.of_candidate(step, now));
        };
        let token = (verdict.sees == Visibility::Active).then(|| payload.advertising_token(self.transport.scope()));
        // What has expired, and what is another user's, stays in the store until its time.
        let change = if verdict.action == Action::EndLogin { Change::EndLogin } else { Change::Keep };
        Some(Step::Ready(exchange.decide(verdict, token, change, true, brought, findings)))
    }
}

impl From<RecordError> for RejectReason {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::UnknownKey => Self::UnknownKey,
            RecordError::Forged => Self::Forged,
            RecordError::Undecodable => Self::Undecodable,
        }
    }
}
