//! Identities in a store: where they are, and the writes of them.
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
use super::store_calls::{END_REMEMBERED, Ended, Retried, Retry, StoreWrite};
use super::stored_refresh::StoredRefresh;
use super::{Engine, RequestContext, SignedIn, Step};
use crate::clock::UnixMillis;
use crate::random;
use crate::scope::Scope;
use crate::sealed::aead::Purpose;
use crate::sealed::login::{self, Lineage};
use crate::sealed::payload::OptOut;
use crate::sealed::record::{self, NewRecord};
use crate::store::{StoreKey, StoreMode, Stored, When};
use crate::transport::Transport;
use crate::transport::slots::{Held, Hits};

impl StoreKey {
    /// The key of a login's record.
    pub(super) fn of_login(scope: Scope, lineage: &Lineage) -> Self {
        let hash = Sha256::new().chain_update(KEY_LABEL).chain_update([scope as u8]).chain_update(lineage.as_bytes());
        Self::new(hash.finalize().into())
    }
}

impl Engine {
    /// Whether the engine has a store whose handle is the login slot.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, engine::Engine};
    /// use tower_euid::store::StoreMode;
    ///
    /// let engine = Engine::new(CookieKey::generate()?.into()).with_store(StoreMode::ReadWrite);
    /// assert!(engine.has_store_by_handle());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn has_store_by_handle(&self) -> bool {
        self.store().is_some()
    }

    /// Whether the engine has a store that is keyed by the user.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, engine::Engine};
    /// use tower_euid::StoreSecret;
    ///
    /// let engine = Engine::new(CookieKey::generate()?.into()).with_user_store(StoreSecret::generate()?);
    /// assert!(engine.has_store_by_user());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
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
        self.put_end_if_there(&key, When::Absent, Ended::Until(now))
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

    /// The write that ends a login, if the store has it.
    pub(super) fn put_end_if_there(&self, key: &StoreKey, when: When, ended: Ended) -> Option<StoreWrite> {
        Some(self.with_retry(self.put_end(key, when)?, Retried::End(ended)))
    }

    /// The write that ends the login of a handle of which nothing is known: it may be made up, or the write of its login may
    /// be on its way.
    pub(super) fn put_unknown_end(&self, key: &StoreKey) -> Option<StoreWrite> {
        let write = self.with_retry(self.put_end(key, When::Absent)?, Retried::Unknown);
        Some(StoreWrite { keep: UNKNOWN_END_REMEMBERED, ..write })
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

const KEY_LABEL: &[u8] = b"tower-euid login";
/// The same for a handle that may be made up: a store must not fill up with these.
const UNKNOWN_END_REMEMBERED: Duration = Duration::from_secs(60);
/// What a store takes at least, and at most.
const SHORTEST_KEEP: Duration = Duration::from_secs(1);
const LONGEST_KEEP: Duration = Duration::from_secs(400 * 86_400);
