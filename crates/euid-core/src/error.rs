//! The error types.
//!
//! | error | what failed | when |
//! | --- | --- | --- |
//! | [`ConfigError`] | a key, a secret, a URL, an environment variable | while the application is put together |
//! | [`EuidError`] | a call to the operator; [`ErrorKind`] says how | at a login or a refresh |
//! | [`InvalidDii`] | an email address, a phone number or a hash of one | at a login |
//! | [`InvalidIdentity`] | the parts of an identity do not belong together | when it is made or read |
//!
//! 1. Errors are opaque and cheap to clone. Code decides by [`EuidError::kind`]; the text is for people.
//! 2. No error holds a token, a key, an address, the body of an answer or a URL.
//! 3. No error reaches a page: tower-euid's layer logs it and goes on without a new token.

mod config;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use self::config::{ConfigError, Setting};
pub use crate::dii::InvalidDii;

/// The parts do not make an [`Identity`](crate::Identity): one is missing, malformed or out of order.
/// The text names the part and the rule, never a value.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::identity::ResponseKey;
///
/// let error = ResponseKey::from_base64("aHVudGVyMg==").unwrap_err();
/// assert_eq!(error.to_string(), "not an identity: refresh_response_key is not 32 bytes");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidIdentity(&'static str);

impl InvalidIdentity {
    /// `rule` names the part and its fault.
    pub(crate) const fn new(rule: &'static str) -> Self {
        Self(rule)
    }
}

impl fmt::Display for InvalidIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an identity: {}", self.0)
    }
}

impl Error for InvalidIdentity {}

/// A call to the operator failed: there is no outcome.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::error::{ErrorKind, EuidError};
///
/// # fn show(error: EuidError) -> &'static str {
/// match error.kind() {
///     ErrorKind::RejectedInput => "please check the address",
///     ErrorKind::Transient => "please try again later",
///     _ => "we will repair it", // see the log
/// }
/// # }
/// # assert_eq!(show(EuidError::new(ErrorKind::Transient, "no answer")), "please try again later");
/// ```
#[derive(Clone)]
pub struct EuidError {
    kind: ErrorKind,
    /// Milliseconds; beside `kind` it takes no room of its own.
    retry_after: Option<NonZeroU32>,
    what: Cow<'static, str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Why a call failed. Each kind demands a different reaction from the caller.
///
/// More kinds may be added: treat one that you do not know as [`Transient`](Self::Transient).
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::error::ErrorKind;
///
/// /// Whether the site's own configuration is wrong.
/// fn is_misconfigured(kind: ErrorKind) -> bool {
///     use ErrorKind::{ClockDrift, Unauthorized, Undecryptable, WrongScope};
///     matches!(kind, ClockDrift | Undecryptable | Unauthorized | WrongScope)
/// }
/// assert!(is_misconfigured(ErrorKind::ClockDrift) && !is_misconfigured(ErrorKind::Transient));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operator refused what was sent, with status `client_error`, or this crate refused to send it.
    /// On refresh: a refresh token that no operator can read. The same input fails again.
    RejectedInput,
    /// The API key is unknown, is disabled or lacks the role, or the client has no API key: status
    /// `unauthorized`.
    Unauthorized,
    /// This machine's clock and the operator's are two minutes or more apart.
    ClockDrift,
    /// One side can't decrypt what the other sent: the client secret does not belong to the API key, or
    /// (on refresh) the response key does not belong to the refresh token.
    Undecryptable,
    /// The refresh token has expired or was revoked: status `invalid_token` or `expired_token`. The
    /// visitor must log in again.
    RejectedToken,
    /// No operator refused the refresh token: the login has ended meanwhile, as the store says, on another device or node
    /// for example.
    LoginEnded,
    /// The operator issued a token of the other scope, [EUID or UID2](crate::Scope), than the client is for: the
    /// operator's URL or the API key is wrong, or a private operator is. The token is not used.
    WrongScope,
    /// The operator did not answer, or asked to try later: network, deadline, HTTP 408, 429 and 5xx.
    Transient,
    /// An answer that breaks the protocol: no envelope, no JSON, an identity that does not fit, a
    /// redirect, a page of HTML, more than 64 KiB.
    Malformed,
    /// A refusal whose status gives no reason: `error` (which a caller without an API key gets for a dead
    /// refresh token), or a status that this crate does not know.
    UnknownStatus,
}

impl EuidError {
    /// An error of `kind`; `what` says in words what happened and must hold no secret.
    ///
    /// For a client of your own that calls the operator (in tower-euid: an implementation of `Refresh`).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::error::{ErrorKind, EuidError};
    ///
    /// let error = EuidError::new(ErrorKind::Transient, "our gateway is closed at night");
    /// assert_eq!(error.to_string(), "our gateway is closed at night"); // this is what gets into the log
    /// ```
    #[must_use]
    pub fn new(kind: ErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, retry_after: None, what: what.into(), source: None }
    }

    /// The same error with its cause, shown by [`Error::source`].
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use std::error::Error;
    /// use tower_euid::error::{ErrorKind, EuidError};
    ///
    /// let cause = std::io::Error::from(std::io::ErrorKind::TimedOut);
    /// let error = EuidError::new(ErrorKind::Transient, "our gateway did not answer").with_source(cause);
    /// assert_eq!(error.source().map(ToString::to_string), Some("timed out".to_owned()));
    /// ```
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same error with the time to wait before the next call, as [`retry_after`](Self::retry_after)
    /// returns it: in whole milliseconds, rounded up, at most 49 days. Zero means that none is known.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use std::time::Duration;
    /// use tower_euid::error::{ErrorKind, EuidError};
    ///
    /// let error = EuidError::new(ErrorKind::Transient, "our gateway allows no more calls this minute");
    /// let error = error.with_retry_after(Duration::from_secs(20));
    /// assert_eq!(error.retry_after(), Some(Duration::from_secs(20)));
    /// ```
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        let millis = u32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
        self.retry_after = NonZeroU32::new(millis);
        self
    }

    /// How long to wait before the next call, if the operator said so: the `Retry-After` header of an
    /// HTTP 429 or 503, counted from the arrival of the answer.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::error::{ErrorKind, EuidError};
    /// assert_eq!(EuidError::new(ErrorKind::Transient, "no answer").retry_after(), None);
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after.map(|millis| Duration::from_millis(millis.get().into()))
    }

    /// The kind of failure, which decides what the caller should do.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::error::{ErrorKind, EuidError};
    /// let error = EuidError::new(ErrorKind::RejectedToken, "our gateway knows no such token");
    /// assert_eq!(error.clone().kind(), ErrorKind::RejectedToken);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Debug for EuidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("EuidError");
        debug.field("kind", &self.kind).field("what", &self.what);
        if let Some(wait) = self.retry_after() {
            debug.field("retry_after", &wait);
        }
        if let Some(source) = &self.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl fmt::Display for EuidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for EuidError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_bounded() {
        let error = || EuidError::new(ErrorKind::Transient, "busy");
        for (given, kept) in [
            (Duration::ZERO, None),
            (Duration::from_nanos(1), Some(Duration::from_millis(1))),
            (Duration::from_secs(120), Some(Duration::from_secs(120))),
            (Duration::MAX, Some(Duration::from_millis(u32::MAX.into()))),
        ] {
            assert_eq!(error().with_retry_after(given).retry_after(), kept, "{given:?}");
        }
        assert!(format!("{:?}", error().with_retry_after(Duration::from_secs(9))).contains("retry_after: 9s"));
    }

    /// On 32-bit targets the other fields leave no padding for it.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn retry_after_does_not_enlarge_the_error() {
        let without = size_of::<(ErrorKind, Cow<'static, str>, Option<Arc<dyn Error + Send + Sync>>)>();
        assert_eq!(size_of::<EuidError>(), without);
    }

    #[test]
    fn error_source_survives_a_clone() {
        let error = EuidError::new(ErrorKind::Malformed, "no identity").with_source(InvalidIdentity::new("x"));
        let clone = error.clone();
        assert_eq!(clone.kind(), ErrorKind::Malformed);
        assert_eq!(clone.source().unwrap().to_string(), "not an identity: x");
        assert_eq!(format!("{clone}"), "no identity");
    }
}
