//! One exchange with a visitor, without I/O: what a request's state says, what the handler may see, what the response
//! must write.
//!
//! A *host* (a middleware, an edge program, a sidecar) owns sockets and clocks and drives the engine:
//!
//! ```text
//!  begin(request) ──┬─ Ready(decision) ─────────────────────────────────┐
//!                   └─ Refresh(candidate) ─► the operator ─► settle ────┴─► decision
//!  decision.start() ──► Euid for the handler, Pending for the response
//!  finish(pending, what the handler asks for, response headers) ──► Finish: what was written, for logs and metrics
//! ```
//!
//! 1. [`Engine::begin`] reads the request's headers; nothing reads them again later.
//! 2. [`RefreshCandidate::settle`] takes the outcome of the operator's call, as [`Refreshed::received`] returns it, or a
//!    failure if the page waits no longer.
//! 3. [`Decision::start`] splits what the handler sees from what the response does. A host may [defer](Decision::defer)
//!    what can wait for the next page.
//! 4. [`Engine::finish`] writes `Set-Cookie` and makes the response strict enough for caches.
//! 5. Time is an argument: a closure where it is rarely needed. Randomness comes from the operating system.
//! 6. Nothing is logged. What a host may want to log or to count is in the values: [`Findings`], [`Finish`].

mod begin;
mod candidate;
mod change;
mod decision;
mod finish;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod navigation;
mod read;
mod report;
#[cfg(test)]
mod round_trips;
mod write;

use std::time::Duration;

use http::header::{CONNECTION, COOKIE, IF_MODIFIED_SINCE, IF_NONE_MATCH, UPGRADE};
use http::{HeaderMap, HeaderName, Method};

pub use self::begin::Step;
pub use self::candidate::RefreshCandidate;
pub use self::change::{Change, NewLogin, Record};
pub use self::decision::{Decision, Pending, Watch};
pub use self::finish::Finish;
pub use self::report::{Findings, Rejected, Unwritten, UserCheck};
use crate::clock::UnixMillis;
#[cfg(doc)]
use crate::outcome::Refreshed;
use crate::policy::Consent;
use crate::sealed::KeyRing;
pub use crate::sealed::login::{Lineage, Login};
use crate::transport::CookieConfig;
use crate::transport::slots::Cookies;

/// Reads and writes the state of one site's visitors. Cheap to clone; clones share the keys.
///
/// It is its own builder; every setting has a default.
#[derive(Clone, Debug)]
pub struct Engine {
    keys: KeyRing,
    cookies: Cookies,
    expiry_margin: Duration,
    refresh_jitter: Duration,
    reseal: bool,
}

/// What the host knows of a request's visitor. Borrows the user's id.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// What the visitor allows.
    pub consent: Consent,
    /// Who is signed in to the application.
    pub user: SignedIn<'a>,
}

/// Who is signed in to the application.
///
/// Exhaustive: whatever else a host knows of its users, the comparison with a login's user has these three cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedIn<'a> {
    /// The host does not bind identities to its users.
    Unchecked,
    /// It does, and no user is signed in.
    Nobody,
    /// It does, and this is the user's id.
    User(&'a [u8]),
}

/// What has an engine and a clock: a configured middleware, for tools that make visitors for its tests.
pub trait Site {
    /// The engine.
    fn engine(&self) -> &Engine;
    /// The present moment on the clock that the site goes by.
    fn now(&self) -> UnixMillis;
}

impl RequestContext<'_> {
    /// Consent is given, and identities are not bound to users.
    pub const UNRESTRICTED: Self = Self { consent: Consent::Granted, user: SignedIn::Unchecked };
}

impl Engine {
    /// How long before its end a token is no longer handed out, unless set otherwise: 1 s.
    pub const DEFAULT_EXPIRY_MARGIN: Duration = Duration::from_secs(1);
    /// The most that a refresh is delayed at random, unless set otherwise: 10 min.
    pub const DEFAULT_REFRESH_JITTER: Duration = Duration::from_secs(600);
    /// The names of the request headers that [`begin`](Self::begin) reads. A host with other header types copies these.
    pub const REQUEST_HEADERS: [HeaderName; 13] = [
        COOKIE,
        CONNECTION,
        UPGRADE,
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        HeaderName::from_static("sec-fetch-dest"),
        HeaderName::from_static("sec-purpose"),
        HeaderName::from_static("purpose"),
        HeaderName::from_static("x-purpose"),
        HeaderName::from_static("x-sec-purpose"),
        HeaderName::from_static("x-moz"),
        HeaderName::from_static("next-router-prefetch"),
        HeaderName::from_static("x-middleware-prefetch"),
    ];

    /// An engine that seals under `keys`, with defaults for everything else.
    #[must_use]
    pub fn new(keys: KeyRing) -> Self {
        Self {
            keys,
            cookies: Cookies::new(CookieConfig::default()),
            expiry_margin: Self::DEFAULT_EXPIRY_MARGIN,
            refresh_jitter: Self::DEFAULT_REFRESH_JITTER,
            reseal: false,
        }
    }

    /// Names and attributes of the cookies. Default: [`CookieConfig::default`].
    #[must_use]
    pub fn with_cookie(self, config: CookieConfig) -> Self {
        Self { cookies: Cookies::new(config), ..self }
    }

    /// How long before its end a token is no longer handed out. Default: [`Self::DEFAULT_EXPIRY_MARGIN`].
    #[must_use]
    pub fn with_expiry_margin(self, margin: Duration) -> Self {
        Self { expiry_margin: margin, ..self }
    }

    /// The most that a refresh is delayed at random, so that identities of one moment do not fall due together.
    /// Default: [`Self::DEFAULT_REFRESH_JITTER`].
    #[must_use]
    pub fn with_refresh_jitter(self, most: Duration) -> Self {
        Self { refresh_jitter: most, ..self }
    }

    /// Whether an identity under a key that is not the newest is written anew at once. Default: no.
    #[must_use]
    pub fn with_reseal(self, at_once: bool) -> Self {
        Self { reseal: at_once, ..self }
    }

    /// The keys, to [reload](KeyRing::reload): clones of a ring share its keys.
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// How long before its end a token is no longer handed out.
    #[must_use]
    pub fn expiry_margin(&self) -> Duration {
        self.expiry_margin
    }

    /// Reads the state that a request brought and decides what the handler may see, or that a refresh is due. `now` is
    /// called only where the state is judged by the time.
    #[inline]
    #[must_use]
    pub fn begin(
        &self,
        method: &Method,
        headers: &HeaderMap,
        context: &RequestContext<'_>,
        now: impl Fn() -> UnixMillis,
    ) -> Step {
        let cookies = headers.get_all(COOKIE);
        if cookies.iter().next().is_none() {
            return Step::Ready(Decision::without_state(context.consent, method, self.withholds(context.consent)));
        }
        self.begin_with_cookies(method, headers, cookies, context, &now)
    }

    /// Whether scripts must not get the token of a visitor with this consent, where they would get it.
    #[inline]
    fn withholds(&self, consent: Consent) -> bool {
        consent != Consent::Granted && self.cookies.config().hands_over()
    }
}
