//! What handlers read: [`Euid`], in the request's extensions.

use crate::identity::AdvertisingToken;

/// What is known of the visitor's EUID. The layer puts one into every request's extensions, so its
/// absence means that the layer is missing.
///
/// Where there is a token to use, the [`AdvertisingToken`] is in the extensions by itself too.
///
/// ```
/// use tower_euid::Euid;
///
/// fn bid_request(euid: &Euid) -> serde_json::Value {
///     serde_json::json!({ "imp": [], "user": euid.eids() }) // nothing usable: no eid at all
/// }
/// assert_eq!(bid_request(&Euid::Absent).to_string(), r#"{"imp":[],"user":{}}"#);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Euid {
    /// No identity. If the visitor is signed in, a login may be generated again.
    #[default]
    Absent,
    /// The current advertising token.
    Active(AdvertisingToken),
    /// The person opted out of EUID; do not ask for them again soon.
    OptedOut,
    /// There is an identity, but no usable token now: the operator did not give one in time. It may
    /// be back with the next request.
    Unavailable,
    /// There is an identity, and no consent to use it.
    Withheld,
}

impl Euid {
    /// The token for the bid request, if there is one to use.
    #[must_use]
    pub fn advertising_token(&self) -> Option<&AdvertisingToken> {
        match self {
            Self::Active(token) => Some(token),
            Self::Absent | Self::OptedOut | Self::Unavailable | Self::Withheld => None,
        }
    }

    /// The state in one word: `absent`, `active`, `opted_out`, `unavailable` or `withheld`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Active(_) => "active",
            Self::OptedOut => "opted_out",
            Self::Unavailable => "unavailable",
            Self::Withheld => "withheld",
        }
    }
}
