//! Counts the calls of a sandbox.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(doc)]
use super::Sandbox;
use super::route::Endpoint;

/// The number of calls that have arrived at a [`Sandbox`], by path.
///
/// ```
/// use euid_sandbox::{Calls, Sandbox};
///
/// let sandbox = Sandbox::builder().build()?;
/// assert_eq!(sandbox.calls(), Calls::default()); // no call has arrived
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Calls {
    /// `/v2/token/generate`
    pub generate: u64,
    /// `/v2/token/refresh`
    pub refresh: u64,
    /// `/v2/token/validate`
    pub validate: u64,
    /// Anything else.
    pub other: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    generate: AtomicU64,
    refresh: AtomicU64,
    validate: AtomicU64,
    other: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Calls {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Self { generate, refresh, validate, other } = self;
        Calls { generate: read(generate), refresh: read(refresh), validate: read(validate), other: read(other) }
    }

    pub(crate) fn count(&self, endpoint: Option<Endpoint>) {
        let counter = match endpoint {
            Some(Endpoint::Generate) => &self.generate,
            Some(Endpoint::Refresh) => &self.refresh,
            Some(Endpoint::Validate) => &self.validate,
            Some(Endpoint::WithoutRole | Endpoint::Health | Endpoint::Unknown) | None => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
