//! A call that is under way, and its opened answer.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use zeroize::Zeroizing;

#[cfg(doc)]
use super::Operator;
use super::scope::OperatorScope;
use crate::clock::UnixMillis;
use crate::error::EuidError;
use crate::outcome::Generated;
use crate::protocol::answer::{self, Question};
use crate::protocol::envelope::RequestNonce;

/// A call of [`Operator::generate`] or [`Operator::validate`]: the request to send, and what is needed to read its
/// response.
///
/// ```
/// use euid_core::{Dii, Environment, Operator, Scope};
/// use euid_core::clock::UnixMillis;
///
/// let operator = Operator::builder(Environment::Integration(Scope::Euid))
///     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
///     .build()?;
/// let now = UnixMillis::from_millis(1_795_371_587_000);
/// let call = operator.generate(Dii::email("user@example.com")?, now)?;
/// assert_eq!(call.request().method(), "POST");
/// assert_eq!(format!("{call:?}"), r#"Call { path: "/v2/token/generate", .. }"#);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the operator gets no call until its request is sent"]
pub struct Call {
    request: Request<Bytes>,
    pub(super) nonce: RequestNonce,
    pub(super) asked_at: UnixMillis,
    /// The values that were sent, so that an error never repeats them.
    values: [Option<Zeroizing<String>>; 4],
}

impl Call {
    pub(super) fn new(
        request: Request<Bytes>,
        nonce: RequestNonce,
        asked_at: UnixMillis,
        question: &Question<'_>,
    ) -> Self {
        let values = question.values().map(|value| value.map(|value| Zeroizing::new(value.to_owned())));
        Self { request, nonce, asked_at, values }
    }

    /// The request: a POST to an absolute URI, with an encrypted body. It may be sent more than once.
    ///
    /// ```
    /// # use euid_core::{Dii, Environment, Operator, Scope};
    /// # use euid_core::clock::UnixMillis;
    /// # let operator = Operator::builder(Environment::Integration(Scope::Euid))
    /// #     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
    /// #     .build()?;
    /// # let now = UnixMillis::from_millis(1_795_371_587_000);
    /// let call = operator.generate(Dii::email("user@example.com")?, now)?;
    /// let request = call.request();
    /// assert_eq!(request.uri(), "https://integ.euid.eu/v2/token/generate");
    /// assert_eq!(request.headers()["content-type"], "text/plain");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "the request is to be sent"]
    pub fn request(&self) -> Request<Bytes> {
        self.request.clone()
    }

    pub(super) fn values(&self) -> [Option<&str>; 4] {
        self.values.each_ref().map(|value| value.as_ref().map(|value| value.as_str()))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A gateway's path in front of it may be a secret.
        let path = self.request.uri().path();
        let path = path.rfind("/v2/").and_then(|start| path.get(start..)).unwrap_or_default();
        f.debug_struct("Call").field("path", &path).finish_non_exhaustive()
    }
}

/// An opened answer to a [`Call`], from [`Operator::answered`].
///
/// ```
/// # use euid_core::{EuidError, Generated, Operator};
/// # use euid_core::clock::UnixMillis;
/// use euid_core::operator::Call;
///
/// # fn read(operator: &Operator, call: &Call, response: &http::Response<Vec<u8>>, now: UnixMillis) -> Result<(), EuidError> {
/// let answered = operator.answered(call, response, now)?;
/// println!("{:?}: the clocks differ by {:?}", answered.generated()?, answered.clock_skew());
/// # Ok(())
/// # }
/// ```
#[must_use = "an answer has an outcome"]
pub struct Answered {
    pub(super) skew: Option<ClockSkew>,
    pub(super) json: Zeroizing<Vec<u8>>,
    /// The scope of the operator that answered.
    pub(super) scope: OperatorScope,
}

impl Answered {
    /// The outcome of [`Operator::generate`].
    ///
    /// ```
    /// # use euid_core::{EuidError, Operator};
    /// # use euid_core::clock::UnixMillis;
    /// # use euid_core::operator::Call;
    /// # fn read(operator: &Operator, call: &Call, response: &http::Response<Vec<u8>>, now: UnixMillis) -> Result<(), EuidError> {
    /// let generated = operator.answered(call, response, now)?.generated()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Malformed`](crate::error::ErrorKind::Malformed) if it is no identity and no known status, as the answer to
    /// another call; [`UnknownStatus`](crate::error::ErrorKind::UnknownStatus) for a status that this version does not
    /// know; [`WrongScope`](crate::error::ErrorKind::WrongScope) for an identity of the other scope than the
    /// operator's.
    pub fn generated(&self) -> Result<Generated, EuidError> {
        let generated = answer::generated(&self.json)?;
        if let Generated::Identity(identity) = &generated {
            self.scope.check(identity)?;
        }
        Ok(generated)
    }

    /// The outcome of [`Operator::validate`].
    ///
    /// ```
    /// # use euid_core::{EuidError, Operator};
    /// # use euid_core::clock::UnixMillis;
    /// # use euid_core::operator::Call;
    /// # fn read(operator: &Operator, call: &Call, response: &http::Response<Vec<u8>>, now: UnixMillis) -> Result<(), EuidError> {
    /// let is_theirs = operator.answered(call, response, now)?.validated()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`generated`](Self::generated), except for `WrongScope`.
    pub fn validated(&self) -> Result<bool, EuidError> {
        answer::validated(&self.json)
    }

    /// The distance between this machine's clock and the operator's, if it is more than 30 seconds. This crate refuses
    /// nothing because of it; the operator refuses calls from two minutes on.
    ///
    /// The operator's time is authentic. The time that the call took is not counted.
    ///
    /// ```
    /// # use euid_core::{EuidError, Operator};
    /// # use euid_core::clock::UnixMillis;
    /// # use euid_core::operator::Call;
    /// # fn read(operator: &Operator, call: &Call, response: &http::Response<Vec<u8>>, now: UnixMillis) -> Result<(), EuidError> {
    /// if let Some(skew) = operator.answered(call, response, now)?.clock_skew() {
    ///     eprintln!("this machine's clock differs from the operator's: {skew:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn clock_skew(&self) -> Option<ClockSkew> {
        self.skew
    }
}

/// Shows no content of the answer.
impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").field("clock_skew", &self.skew).finish_non_exhaustive()
    }
}

/// How this machine's clock differs from the operator's, from [`Answered::clock_skew`].
///
/// A clock can be wrong in two directions only, so there will be no third variant.
///
/// ```
/// use std::time::Duration;
/// use euid_core::operator::ClockSkew;
///
/// fn describe(skew: ClockSkew) -> String {
///     match skew {
///         ClockSkew::Ahead(by) => format!("{} s ahead", by.as_secs()),
///         ClockSkew::Behind(by) => format!("{} s behind", by.as_secs()),
///     }
/// }
/// assert_eq!(describe(ClockSkew::Ahead(Duration::from_secs(40))), "40 s ahead");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockSkew {
    /// This machine's clock is ahead of the operator's by this much.
    Ahead(Duration),
    /// This machine's clock is behind the operator's by this much.
    Behind(Duration),
}

impl ClockSkew {
    /// The skew of a call that was sent at `sent` and answered at `received`, by the operator's clock at `operator`.
    pub(super) fn between(sent: UnixMillis, operator: UnixMillis, received: UnixMillis) -> Option<Self> {
        let (ahead, behind) = (sent.saturating_since(operator), operator.saturating_since(received));
        let (skew, by) = if ahead > behind { (Self::Ahead(ahead), ahead) } else { (Self::Behind(behind), behind) };
        (by > TOLERATED).then_some(skew)
    }
}

/// Below the two minutes from which the operator refuses requests.
const TOLERATED: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_skew_counts_above_thirty_seconds_and_excludes_the_time_of_the_call() {
        let at = UnixMillis::from_millis;
        let millis = Duration::from_millis;
        for (sent, operator, received, skew) in [
            (0, 0, 0, None),
            (30_000, 0, 30_000, None),
            (30_001, 0, 30_001, Some(ClockSkew::Ahead(millis(30_001)))),
            (0, 30_000, 0, None),
            (0, 30_001, 0, Some(ClockSkew::Behind(millis(30_001)))),
            (0, 45_000, 90_000, None),
            (0, 121_000, 90_000, Some(ClockSkew::Behind(millis(31_000)))),
        ] {
            assert_eq!(ClockSkew::between(at(sent), at(operator), at(received)), skew, "{sent} {operator} {received}");
        }
    }
}
