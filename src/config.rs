//! What a layer builds and its requests read.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use euid_core::Consent;
use euid_core::clock::{Clock, UnixMillis};
use euid_core::engine::Engine;
use http::{request, response};

use crate::layer::RefreshMode;
use crate::mistakes::Mistakes;
use crate::refresh::Desk;

/// All that requests share. Read-only once the layer has been put together.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) refresh_mode: RefreshMode,
    pub(crate) refresh_when: Option<Arc<RefreshWhen>>,
    pub(crate) consent: Option<Arc<ConsentOf>>,
    pub(crate) bind: Option<Arc<SignedInUser>>,
    pub(crate) logout_when: Option<Arc<LogoutWhen>>,
    pub(crate) mistakes: Mistakes,
}

pub(crate) type RefreshWhen = dyn Fn(&request::Parts) -> bool + Send + Sync;
pub(crate) type ConsentOf = dyn Fn(&request::Parts) -> Consent + Send + Sync;
pub(crate) type SignedInUser = dyn Fn(&request::Parts) -> Option<Box<[u8]>> + Send + Sync;
pub(crate) type LogoutWhen = dyn Fn(&response::Parts) -> bool + Send + Sync;

impl Config {
    /// Tells this layer, and its clones with equal settings, from others.
    pub(crate) fn id(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("engine", &self.engine)
            .field("refresh_mode", &self.refresh_mode)
            .field("refresh_when", &self.refresh_when.is_some())
            .field("desk", &self.desk)
            .field("consent", &self.consent.is_some())
            .field("bind", &self.bind.is_some())
            .field("logout_when", &self.logout_when.is_some())
            .finish_non_exhaustive()
    }
}
