//! Why a visitor is in their state: one reason for each row of the policy, and for each cause that a row sums up.

use std::fmt;

use crate::consent::Consent;
use crate::error::ErrorKind;

/// Why a visitor is in the state that a handler sees, as [`Decision::reason`](crate::engine::Decision::reason) returns it.
///
/// It is for developers: code decides by [`Euid`](crate::Euid), logs and metrics have the findings. The texts are fixed
/// words: none holds a token, a key, an address or anything else of the request. More reasons may be added.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use http::{HeaderMap, Method};
/// use tower_euid::Reason;
/// use tower_euid::engine::{RequestContext, SignedIn, Step};
///
/// let reason = |request: &HeaderMap, user, now| {
///     let context = RequestContext { user, ..RequestContext::UNRESTRICTED };
///     match engine.begin(&Method::GET, request, &context, || at(now)) {
///         Step::Ready(decision) => decision.reason(),
///         Step::Refresh(candidate) => candidate.postpone(at(now)).reason(),
///         Step::Load(_) => unreachable!("only with a store"),
///     }
/// };
/// let no_state = HeaderMap::new();
/// assert_eq!(reason(&no_state, SignedIn::Unchecked, 5_000), Reason::NoLogin);
/// // A request with an identity that is bound to the user 17.
/// assert_eq!(reason(&request, SignedIn::User(b"17"), 5_000), Reason::Fresh);
/// assert_eq!(reason(&request, SignedIn::User(b"18"), 5_000).to_string(), "another user is signed in");
/// assert_eq!(reason(&request, SignedIn::Unchecked, 15_000), Reason::RefreshPostponed);
/// assert_eq!(reason(&request, SignedIn::Unchecked, 30_000).to_string(), "refresh token expired");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The token is valid, and no refresh is due.
    Fresh,
    /// A refresh has brought the token: for this request, or for another one a short time ago.
    Refreshed,
    /// The identity is one from the cookie of the JavaScript SDK, which the response takes over. It is valid, and no
    /// refresh is due.
    Migrated,

    /// A refresh is due and under way; this request does not wait for it.
    RefreshUnderWay,
    /// A refresh is due and under way; this request has waited for it as long as it may.
    WaitedTooLong,
    /// A refresh is due, but the request is for no page: a prefetch, an image, an upgrade.
    NotAPage,
    /// A refresh is due, but the request is conditional, and its token is still valid.
    Conditional,
    /// A refresh is due, but the application's hook `refresh_when` excludes this request.
    RefreshDeclined,
    /// A refresh is due, and the host leaves it to a later request.
    RefreshPostponed,
    /// A refresh failed: at this request, or a short time ago, so that it is not tried again yet.
    RefreshFailed(ErrorKind),
    /// A refresh brought a token that has expired by this machine's clock, or will within the expiry margin.
    NewTokenExpired,
    /// A refresh is due, but calls have failed, and no other is made for a few seconds.
    OperatorDown,
    /// A refresh is due, but too many are under way.
    TooManyRefreshes,
    /// A refresh of a migrated identity is due, but too many of these are under way.
    TooManyMigrations,
    /// A refresh is under way, for longer than a page waits.
    RefreshSlow,
    /// A refresh is due, but one for another token of the same login is under way, or has just failed.
    LoginBusy,
    /// A refresh is due, but there is no asynchronous runtime to make it on.
    NoRuntime,
    /// A refresh is due, but the timer of the runtime is off.
    NoTimer,

    /// The request brought no cookie that names a login.
    NoLogin,
    /// The request is one of an app, and its headers name no login.
    NoLoginHeader,
    /// The request names a login, but brought no identity of it.
    NoIdentity,
    /// The request says that the login has ended.
    LoggedOut,
    /// The request brought an identity of a login that has ended: the value that names the login does not name this one.
    /// Or the store has the end of the login.
    LoginEnded,
    /// The value that names the login can't be read, or two came that differ.
    UnreadableLogin,
    /// The identity has a version or a key that this node does not know.
    UnknownKey,
    /// The identity is not the text of a sealed identity.
    Undecodable,
    /// The identity does not open under its key.
    Forged,
    /// The identity is bound to another user than the signed-in one.
    OtherUser,
    /// The identity is bound to a user, and no user is signed in. In a store by user: no user is signed in.
    NoUser,
    /// The cookie of the JavaScript SDK holds an identity of another scope.
    WrongScope,
    /// The engine serves both scopes, and the host chose neither for this request.
    NoScope,
    /// The identity's refresh token has expired.
    RefreshTokenExpired,
    /// The operator rejected the refresh token. The visitor must log in again.
    RefreshRejected,
    /// The person opted out, so long ago that it is no longer remembered.
    OptOutForgotten,
    /// The store has nothing for the login, or for the user.
    NoRecord,
    /// The store does not answer.
    StoreUnavailable,
    /// The layer inside another can't tell whether the identity is one of the signed-in user.
    UnreadableInside,

    /// The person opted out.
    OptedOut,

    /// The host says: consent is unknown, or not now.
    ConsentWithheld,
    /// The host says: consent is withdrawn.
    ConsentWithdrawn,
    /// The request brought no consent string.
    NoConsentString,
    /// The request brought two consent strings that differ.
    ConsentStringsDiffer,
    /// The consent string does not name the vendor, or a purpose.
    InsufficientConsent,
    /// The consent string is one of TCF version 1.
    ConsentStringVersion1,
    /// The consent string can't be read.
    InvalidConsentString,
}

impl Reason {
    /// The text: a few plain words, which do not change after a release.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::Reason;
    /// use tower_euid::error::ErrorKind;
    ///
    /// assert_eq!(Reason::UnknownKey.as_str(), "unknown key");
    /// assert_eq!(Reason::RefreshFailed(ErrorKind::Transient).as_str(), "refresh failed: no answer");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "token fresh",
            Self::Refreshed => "token refreshed",
            Self::Migrated => "migrated from the SDK",
            Self::RefreshUnderWay => "refresh under way",
            Self::WaitedTooLong => "waited too long for the refresh",
            Self::NotAPage => "no refresh: not a page",
            Self::Conditional => "no refresh: conditional request",
            Self::RefreshDeclined => "no refresh: declined by the hook",
            Self::RefreshPostponed => "no refresh: left to a later request",
            Self::RefreshFailed(kind) => of_failure(kind),
            Self::NewTokenExpired => "refresh failed: new token already expired",
            Self::OperatorDown => "no refresh: operator down",
            Self::TooManyRefreshes => "no refresh: too many under way",
            Self::TooManyMigrations => "no refresh: too many migrations under way",
            Self::RefreshSlow => "no refresh: the one under way takes long",
            Self::LoginBusy => "no refresh: another token of this login has one",
            Self::NoRuntime => "no refresh: no runtime",
            Self::NoTimer => "no refresh: no timer",
            Self::NoLogin => "no login cookie",
            Self::NoLoginHeader => "no login header",
            Self::NoIdentity => "login without identity",
            Self::LoggedOut => "logged out",
            Self::LoginEnded => "login ended",
            Self::UnreadableLogin => "login unreadable",
            Self::UnknownKey => "unknown key",
            Self::Undecodable => "identity malformed",
            Self::Forged => "identity not authentic",
            Self::OtherUser => "another user is signed in",
            Self::NoUser => "no user is signed in",
            Self::WrongScope => "SDK identity of the other scope",
            Self::NoScope => "no scope chosen",
            Self::RefreshTokenExpired => "refresh token expired",
            Self::RefreshRejected => "refresh token rejected",
            Self::OptOutForgotten => "opt-out no longer remembered",
            Self::NoRecord => "no record in the store",
            Self::StoreUnavailable => "store unavailable",
            Self::UnreadableInside => "unreadable for the inner layer",
            Self::OptedOut => "opted out",
            Self::ConsentWithheld => "consent withheld",
            Self::ConsentWithdrawn => "consent withdrawn",
            Self::NoConsentString => "no consent string",
            Self::ConsentStringsDiffer => "consent strings differ",
            Self::InsufficientConsent => "consent string insufficient",
            Self::ConsentStringVersion1 => "consent string of TCF 1",
            Self::InvalidConsentString => "consent string invalid",
        }
    }

    /// The reason for `Withheld`.
    pub(crate) const fn of_consent(consent: Consent) -> Self {
        match consent {
            Consent::Withdrawn => Self::ConsentWithdrawn,
            Consent::Granted | Consent::Withheld => Self::ConsentWithheld,
        }
    }
}

const fn of_failure(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::RejectedInput => "refresh failed: refused",
        ErrorKind::Unauthorized => "refresh failed: unauthorized",
        ErrorKind::ClockDrift => "refresh failed: clock drift",
        ErrorKind::Undecryptable => "refresh failed: undecryptable",
        ErrorKind::RejectedToken => "refresh failed: token rejected",
        ErrorKind::LoginEnded => "refresh failed: login ended",
        ErrorKind::WrongScope => "refresh failed: wrong scope",
        ErrorKind::Transient => "refresh failed: no answer",
        ErrorKind::Malformed => "refresh failed: malformed answer",
        ErrorKind::UnknownStatus => "refresh failed: unknown status",
    }
}

/// The words of [`Reason::as_str`].
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ALL: [Reason; 44] = [
        Reason::Fresh,
        Reason::Refreshed,
        Reason::Migrated,
        Reason::RefreshUnderWay,
        Reason::WaitedTooLong,
        Reason::NotAPage,
        Reason::Conditional,
        Reason::RefreshDeclined,
        Reason::RefreshPostponed,
        Reason::RefreshFailed(ErrorKind::Transient),
        Reason::NewTokenExpired,
        Reason::OperatorDown,
        Reason::TooManyRefreshes,
        Reason::TooManyMigrations,
        Reason::RefreshSlow,
        Reason::LoginBusy,
        Reason::NoRuntime,
        Reason::NoTimer,
        Reason::NoLogin,
        Reason::NoLoginHeader,
        Reason::NoIdentity,
        Reason::LoggedOut,
        Reason::LoginEnded,
        Reason::UnreadableLogin,
        Reason::UnknownKey,
        Reason::Undecodable,
        Reason::Forged,
        Reason::OtherUser,
        Reason::NoUser,
        Reason::WrongScope,
        Reason::NoScope,
        Reason::RefreshTokenExpired,
        Reason::RefreshRejected,
        Reason::OptOutForgotten,
        Reason::NoRecord,
        Reason::StoreUnavailable,
        Reason::UnreadableInside,
        Reason::OptedOut,
        Reason::ConsentWithheld,
        Reason::ConsentWithdrawn,
        Reason::NoConsentString,
        Reason::ConsentStringsDiffer,
        Reason::InsufficientConsent,
        Reason::InvalidConsentString,
    ];
    const FAILURES: [ErrorKind; 9] = [
        ErrorKind::RejectedInput,
        ErrorKind::Unauthorized,
        ErrorKind::ClockDrift,
        ErrorKind::Undecryptable,
        ErrorKind::RejectedToken,
        ErrorKind::LoginEnded,
        ErrorKind::WrongScope,
        ErrorKind::Malformed,
        ErrorKind::UnknownStatus,
    ];

    #[test]
    fn text_of_each_reason_is_its_own_and_needs_no_escape_in_a_header() {
        let mut texts = HashSet::new();
        let failures = FAILURES.map(Reason::RefreshFailed);
        for reason in ALL.into_iter().chain(failures).chain([Reason::ConsentStringVersion1]) {
            let text = reason.to_string();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" :-_".contains(&byte);
            assert!(text.bytes().all(is_plain) && text.trim() == text, "{text}");
            assert!(texts.insert(text), "{reason:?}");
        }
    }

    #[test]
    fn display_of_a_reason_pads() {
        assert_eq!(format!("{:>12}", Reason::Fresh), " token fresh");
    }
}
