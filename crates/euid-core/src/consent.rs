//! The visitor's consent to EUID.

/// The visitor's consent, as the site has looked it up. In tower-euid the hook `EuidLayer::consent` returns it.
///
/// A site that looks consent up finds it in the extensions of each request; in axum `Option<Consent>`
/// extracts it. For the TC string of a consent banner there is [`tcf`](crate::tcf).
///
/// Exhaustive: a fourth answer would need a policy of its own, which every site would have to think about.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Consent;
///
/// /// `choice` is what the visitor chose, if they have been asked.
/// fn consent(choice: Option<bool>) -> Consent {
///     match choice {
///         Some(true) => Consent::Granted,
///         Some(false) => Consent::Withdrawn,
///         None => Consent::Withheld,
///     }
/// }
/// assert_eq!(consent(None), Consent::Withheld);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The identity may be used, and one may be generated.
    Granted,
    /// Unknown, or not now: an identity is kept, but neither refreshed nor handed out. A handler's login is still
    /// written, for later. Handlers see [`Euid::Withheld`](crate::Euid::Withheld), or
    /// [`Euid::OptedOut`](crate::Euid::OptedOut) if the person opted out.
    Withheld,
    /// No longer given: the identity ends, and no login is written. Handlers see
    /// [`Euid::Withheld`](crate::Euid::Withheld).
    Withdrawn,
}
