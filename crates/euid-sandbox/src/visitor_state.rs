//! The states in which a visitor begins.

use std::time::Duration;

use euid_core::ConfigError;

use super::Lifetimes;
#[cfg(doc)]
use super::{Sandbox, Visitor};

/// The state in which a [`Visitor`] begins, see [`Sandbox::visitor`], by what handlers see of it.
///
/// ```
/// # use tower::{Layer, service_fn};
/// use euid_sandbox::{Sandbox, VisitorState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
/// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
/// # let sandbox = Sandbox::builder().build()?;
/// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
/// # let app = layer.layer(page);
/// for (visitor, sees) in [
///     (VisitorState::Absent, "absent"),
///     (VisitorState::Fresh, "active"),
///     (VisitorState::Due, "active"),
///     (VisitorState::Expired, "active"),
///     (VisitorState::OptedOut, "opted_out"),
/// ] {
///     let mut visitor = sandbox.visitor(&layer, visitor)?;
///     assert_eq!(visitor.send(&app, http::Request::new(())).await?.into_body(), sees);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VisitorState {
    /// No cookies: [`Absent`](euid_core::Euid::Absent).
    Absent,
    /// Has just logged in: [`Active`](euid_core::Euid::Active).
    Fresh,
    /// The token is good, and due for a refresh: [`Active`](euid_core::Euid::Active) with the new one or, if the
    /// operator fails, the old one.
    Due,
    /// The token has expired, and can be refreshed: [`Active`](euid_core::Euid::Active) or, if the operator
    /// fails, [`Unavailable`](euid_core::Euid::Unavailable).
    Expired,
    /// Opted out, according to the cookies of the login and to the sandbox: [`OptedOut`](euid_core::Euid::OptedOut).
    /// For a person who opts out later, take another state and [`Sandbox::opt_out`] with the visitor's
    /// [`dii`](Visitor::dii): the next refresh finds the opt-out.
    OptedOut,
}

impl VisitorState {
    /// How long ago the identity of this state was issued, if it has one.
    pub(crate) fn age(self, lifetimes: &Lifetimes, margin: Duration) -> Result<Option<Duration>, ConfigError> {
        let Lifetimes { refresh_from, identity_expires, refresh_expires } = *lifetimes;
        let usable = identity_expires.saturating_sub(margin);
        let (from, until) = match self {
            Self::Absent | Self::OptedOut => return Ok(None),
            Self::Fresh => (Duration::ZERO, refresh_from.min(usable)),
            Self::Due => (refresh_from, usable),
            Self::Expired => (identity_expires, refresh_expires),
        };
        if from >= until {
            return Err(ConfigError::new(format!("with the sandbox's lifetimes no identity is ever {self:?}")));
        }
        // The middle is behind any jitter, and has time left on both sides.
        Ok(Some(if self == Self::Fresh { from } else { from + (until - from) / 2 }))
    }
}
