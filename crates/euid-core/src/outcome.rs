//! The request for an identity at a login, and the outcomes of the operator's calls.

use std::fmt;
use std::time::Duration;

use crate::clock::UnixMillis;
use crate::dii::{Dii, DiiKind};
use crate::error::{ErrorKind, EuidError};
use crate::identity::Identity;
#[cfg(doc)]
use crate::operator::Operator;
use crate::policy;
use crate::protocol::answer::Question;

/// The request for an identity, as [`Operator::generate`] takes it; a [`Dii`] alone is enough.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::{Dii, GenerateRequest};
///
/// let request = GenerateRequest::from(Dii::phone("+442345678901")?)
///     .tcf_consent_string("CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA");
/// # Ok::<_, tower_euid::error::InvalidDii>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "no call is made until it is given to `generate`"]
pub struct GenerateRequest {
    pub(crate) dii: Dii,
    pub(crate) tcf_consent_string: Option<String>,
}

impl GenerateRequest {
    /// The visitor's TCF v2 consent string. The operator then checks it and may answer
    /// [`Generated::InsufficientConsent`]; a string that it can't read is [`RejectedInput`](ErrorKind::RejectedInput).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::{Dii, GenerateRequest};
    ///
    /// fn request(dii: Dii, cookie: Option<&str>) -> GenerateRequest {
    ///     match cookie {
    ///         Some(consent) => GenerateRequest::from(dii).tcf_consent_string(consent),
    ///         None => dii.into(),
    ///     }
    /// }
    /// # request(Dii::email("user@example.com")?, None);
    /// # Ok::<_, tower_euid::error::InvalidDii>(())
    /// ```
    pub fn tcf_consent_string(mut self, consent: impl Into<String>) -> Self {
        self.tcf_consent_string = Some(consent.into());
        self
    }
}

impl From<Dii> for GenerateRequest {
    fn from(dii: Dii) -> Self {
        Self { dii, tcf_consent_string: None }
    }
}

impl fmt::Debug for GenerateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateRequest").field("dii", &self.dii).finish_non_exhaustive()
    }
}

/// The outcome of [`Operator::generate`].
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Generated;
///
/// fn describe(outcome: &Generated) -> &'static str {
///     match outcome {
///         Generated::Identity(_) => "is logged in",
///         Generated::OptedOut => "opted out: do not ask again soon",
///         _ => "without consent",
///     }
/// }
/// assert_eq!(describe(&Generated::InsufficientConsent), "without consent");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Generated {
    /// An identity, to log the visitor in with.
    Identity(Identity),
    /// The person opted out of EUID: no token, and no reason to ask again soon.
    OptedOut,
    /// The consent string does not allow it. Only for a request with a consent string.
    InsufficientConsent,
}

/// The outcome of [`Operator::refresh`].
///
/// There will be no third variant: every other status of the operator is an error.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Refreshed;
///
/// fn describe(outcome: &Refreshed) -> &'static str {
///     match outcome {
///         Refreshed::Identity(_) => "has a new token",
///         Refreshed::OptedOut => "opted out",
///     }
/// }
/// assert_eq!(describe(&Refreshed::OptedOut), "opted out");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The successor of the identity.
    Identity(Identity),
    /// The person opted out: there is no successor.
    OptedOut,
}

impl Refreshed {
    /// Adjusts an outcome that arrives at `now`, on this machine's clock. A new pair that is due already becomes due a
    /// little later, so that a clock ahead of the operator's does not refresh on every page; the second value is how
    /// long it had been due. [`RefreshCandidate::settle`](crate::engine::RefreshCandidate::settle) does the same by
    /// itself: this is for a host that remembers outcomes, or that warns of its clock.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::{Identity, IdentityTimes};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(10_000), identity_expires: at(20_000), refresh_expires: at(30_000) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// use std::time::Duration;
    /// use tower_euid::Refreshed;
    /// use tower_euid::error::ErrorKind;
    ///
    /// let outcome = Refreshed::Identity(identity); // its `refresh_from` is 10 s, its token expires at 20 s
    /// assert_eq!(outcome.clone().received(at(5_000))?, (outcome.clone(), None));
    ///
    /// let (later, due_by) = outcome.clone().received(at(12_000))?; // this clock is ahead
    /// assert_eq!(due_by, Some(Duration::from_secs(2)));
    /// assert!(matches!(later, Refreshed::Identity(identity) if !identity.times().is_due(at(12_000))));
    ///
    /// assert_eq!(outcome.received(at(20_000)).unwrap_err().kind(), ErrorKind::ClockDrift);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClockDrift`](ErrorKind::ClockDrift) if the new token has expired.
    pub fn received(self, now: UnixMillis) -> Result<(Self, Option<Duration>), EuidError> {
        let Self::Identity(identity) = self else { return Ok((self, None)) };
        let times = identity.times();
        if !times.is_usable(now) {
            let seconds = now.saturating_since(times.identity_expires).as_secs();
            let what = format!("the new token expired {seconds} s ago by this machine's clock: is it ahead?");
            return Err(EuidError::new(ErrorKind::ClockDrift, what));
        }
        let due_by = times.is_due(now).then(|| now.saturating_since(times.refresh_from));
        let identity = identity.with_refresh_from(policy::refresh_again_from(&times, now));
        Ok((Self::Identity(identity), due_by))
    }
}

impl Question<'_> {
    pub(crate) fn about(dii: &Dii) -> Self {
        let hash = Some(dii.to_base64());
        let (email_hash, phone_hash) = match dii.kind() {
            DiiKind::Email => (hash, None),
            DiiKind::Phone => (None, hash),
        };
        Self { email_hash, phone_hash, token: None, tcf_consent_string: None, optout_check: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_holds_the_dii_and_only_the_options_that_are_set() {
        let mut question = Question::about(&Dii::email("USER@example.com").unwrap());
        let json = |question: &Question<'_>| String::from_utf8(question.to_json().unwrap().to_vec()).unwrap();
        assert_eq!(json(&question), r#"{"email_hash":"tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="}"#);
        question.optout_check = Some(1);
        assert!(json(&question).ends_with(r#","optout_check":1}"#));
        let question = Question::about(&Dii::phone("+12345678901").unwrap());
        assert_eq!(json(&question), r#"{"phone_hash":"EObwtHBUqDNZR33LNSMdtt5cafsYFuGmuY4ZLenlue4="}"#);
    }
}
