//! Before the handler: chooses the scope and the transport of a request, and begins its [`exchange`](super::exchange).

use http::header::GetAll;
use http::{HeaderMap, HeaderValue, Method};

use super::decision::Decision;
use super::exchange::Exchange;
use super::read::{Opened, ReadOutcome};
use super::routes::Served;
use super::{Engine, Load, Loaded, RefreshCandidate, RequestContext, UserCheck};
use crate::clock::UnixMillis;
use crate::euid::EuidLogoutHandle;
use crate::store::StoreKey;
use crate::transport::Transport;
use crate::transport::cookies::Cookies;
use crate::transport::headers::Headers;
use crate::transport::route::Carrier;
use crate::transport::slots::{Held, Hits, Idle};

/// The next step of a host.
///
/// Exhaustive: a host must handle every variant.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
/// # let step = engine.begin(&http::Method::GET, &request, &all, || at(15_000));
/// use tower_euid::engine::{Decision, Step};
/// use tower_euid::error::EuidError;
/// use tower_euid::{Identity, Refreshed};
///
/// /// The decision on a request, with a call to the operator if one is due.
/// fn decide(step: Step, call: impl FnOnce(&Identity) -> Result<Refreshed, EuidError>) -> Decision {
///     match step {
///         Step::Ready(decision) => decision,
///         Step::Refresh(candidate) => candidate.settle(&call(candidate.identity()), candidate.arrived()),
///         Step::Load(_) => unreachable!("only for an engine with a store"),
///     }
/// }
/// # let decision = decide(step, |_| Ok(Refreshed::OptedOut));
/// # assert_eq!(decision.euid().state(), "opted_out");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub enum Step {
    /// The handler can be called.
    Ready(Decision),
    /// A refresh is due. The host calls the operator, or not, and [settles](RefreshCandidate::settle) the outcome.
    Refresh(Box<RefreshCandidate>),
    /// A record in the store is needed first. The host gets it, and [resumes](Engine::resume). Only for an engine
    /// [with a store](Engine::with_store).
    Load(Load),
}

impl Engine {
    /// Begins a request that may have brought state.
    pub(super) fn begin_exchange(
        &self,
        method: &Method,
        headers: &HeaderMap,
        cookies: GetAll<'_, HeaderValue>,
        context: &RequestContext<'_>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Step {
        if self.extras.is_some() {
            return self.begin_on_route(method, headers, context, None, now);
        }
        let transport = &self.cookies;
        Exchange { engine: self, transport, idle: &[], held: None, loaded: None, method, headers, context, now }
            .begin(cookies)
    }

    /// Begins a request of an engine with both scopes, with headers or with a store; or goes on with one whose record has
    /// been loaded.
    #[cold]
    pub(super) fn begin_on_route(
        &self,
        method: &Method,
        headers: &HeaderMap,
        context: &RequestContext<'_>,
        loaded: Option<(&StoreKey, &Loaded)>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Step {
        match self.carrier(headers) {
            Carrier::Cookies => self.begin_in_scope::<Cookies>(method, headers, context, loaded, now),
            Carrier::Headers => self.begin_in_scope::<Headers>(method, headers, context, loaded, now),
        }
    }

    fn begin_in_scope<T: Served>(
        &self,
        method: &Method,
        headers: &HeaderMap,
        context: &RequestContext<'_>,
        loaded: Option<(&StoreKey, &Loaded)>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Step {
        let own = self.cookies.scope();
        let scope = self.serving(context);
        let transport = T::of(self, scope.unwrap_or(own));
        let idle = if self.serves_both() { self.find_idle::<T>(headers, context, scope) } else { Idle::default() };
        let held = match loaded {
            Some((key, _)) => Some(Held::of(key.clone())),
            None => transport.filter(|_| scope.is_some()).and_then(|own| self.held_of(own, headers, context)),
        };
        let exchange = transport.map(|transport| Exchange {
            engine: self,
            transport,
            idle: &idle,
            held: held.as_ref(),
            loaded: loaded.map(|(_, loaded)| loaded),
            method,
            headers,
            context,
            now,
        });
        match exchange {
            Some(exchange) if scope.is_some() && self.user_store().is_some() => exchange.begin_by_user(),
            Some(exchange) if scope.is_some() => self.moving(exchange.begin(T::values(headers))),
            Some(exchange) => exchange.unserved(),
            // Never: an engine with a carrier has it in every scope.
            None => Step::Ready(Decision::without_state(own, context.consent, method, false)),
        }
    }

    /// Compares the user that a request's state is bound to with the signed-in user, and checks nothing else. For a
    /// host inside another host that does the rest.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::engine::{RejectReason, RequestContext, SignedIn, UserCheck};
    ///
    /// let check = |user| engine.check_user(&request, &RequestContext { user, ..RequestContext::UNRESTRICTED });
    /// assert_eq!(check(SignedIn::User(b"17")), UserCheck::Same);
    /// assert_eq!(check(SignedIn::User(b"18")), UserCheck::Rejected(RejectReason::OtherUser));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn check_user(&self, headers: &HeaderMap, context: &RequestContext<'_>) -> UserCheck {
        match self.carrier(headers) {
            Carrier::Cookies => self.check_user_in::<Cookies>(headers, context),
            Carrier::Headers => self.check_user_in::<Headers>(headers, context),
        }
    }

    /// Whether this engine looks for a request's state where the host outside found it: in cookies, or in headers. If not,
    /// [`check_user`](Self::check_user) says nothing about the state that is shown. `logout` is the handle of that host.
    #[doc(hidden)]
    #[must_use]
    pub fn looks_where_state_was(&self, headers: &HeaderMap, logout: &EuidLogoutHandle) -> bool {
        logout.note().is_none_or(|note| note.route().carrier() == self.carrier(headers))
    }

    fn check_user_in<T: Served>(&self, headers: &HeaderMap, context: &RequestContext<'_>) -> UserCheck {
        let Some(transport) = self.serving(context).and_then(|scope| T::of(self, scope)) else {
            return UserCheck::NoState;
        };
        let values = T::values(headers);
        let mut hits = Hits::default();
        transport.find(&values, &mut hits);
        // The other host may migrate, even if this one does not.
        let found = self.read(transport, &values, &hits, true, |opened, _| {
            let login = match opened {
                Opened::Identity { payload, .. } => &payload.login,
                Opened::OptOut(record) => &record.login,
            };
            Some(match context.compare_user(login) {
                (_, Some(rejected)) => UserCheck::Rejected(rejected),
                (_, None) => UserCheck::Same,
            })
        });
        match found.outcome {
            ReadOutcome::Judged(check) => check,
            ReadOutcome::None => UserCheck::NoState,
            ReadOutcome::Rejected(_) => UserCheck::Unreadable,
        }
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    /// A load needs no box.
    #[test]
    fn step_is_as_large_as_its_decision() {
        assert_eq!(size_of::<Step>(), size_of::<Decision>());
    }
}
