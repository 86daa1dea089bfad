//! The configuration that a layer builds and its requests read.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use euid_core::clock::{Clock, UnixMillis};
use euid_core::engine::Engine;
use euid_core::{Consent, Scope};
use http::{request, response};

use crate::mistakes::Mistakes;
use crate::records::Records;
use crate::refresh::Coordinator;
use crate::telemetry::series;

/// The state that all requests share. Read-only once the layer is built.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) engine: Engine,
    /// Whether the cookies have a `Domain`, so that sub-domains can replace them.
    pub(crate) has_domain: bool,
    /// Whether headers carry the state of apps.
    pub(crate) has_headers: bool,
    pub(crate) clock: Arc<dyn Clock>,
    /// Of the layer's own scope.
    pub(crate) coordinator: Arc<Coordinator>,
    /// The other scope, if the layer serves both.
    pub(crate) other_scope: Option<OtherScope>,
    /// The store, if the layer uses one.
    pub(crate) records: Option<Arc<Records>>,
    pub(crate) refresh_mode: RefreshMode,
    pub(crate) refresh_when: Option<Arc<RefreshWhen>>,
    pub(crate) consent: Option<Arc<ConsentOf>>,
    pub(crate) subject: Option<Arc<UserOf>>,
    pub(crate) logout_when: Option<Arc<LogoutWhen>>,
    /// Whether `consent` is that of the TCF's cookie.
    pub(crate) obeys_tcf_cookie: bool,
    /// Whether responses explain the visitor's state.
    pub(crate) explains: bool,
    /// Whether a request has hooks to call: `consent`, `subject` or `scope`.
    pub(crate) has_request_hooks: bool,
    /// Whether a request has neither hooks to call nor a state to explain. Kept, as each request asks.
    pub(crate) is_plain: bool,
    pub(crate) mistakes: Mistakes,
    pub(crate) series: series::Added,
}

/// The other scope of a layer that serves both.
#[derive(Clone)]
pub(crate) struct OtherScope {
    pub(crate) coordinator: Arc<Coordinator>,
    /// Which scope serves a request.
    pub(crate) choose: Arc<ScopeOf>,
}

pub(crate) type ScopeOf = dyn Fn(&request::Parts) -> Option<Scope> + Send + Sync;
pub(crate) type RefreshWhen = dyn Fn(&request::Parts) -> bool + Send + Sync;
pub(crate) type ConsentOf = dyn Fn(&request::Parts) -> Consent + Send + Sync;
pub(crate) type UserOf = dyn Fn(&request::Parts) -> Option<Box<[u8]>> + Send + Sync;
pub(crate) type LogoutWhen = dyn Fn(&response::Parts) -> bool + Send + Sync;

/// When the handler runs if a refresh is due.
///
/// The mode is for requests with a safe method (`GET`, `HEAD`). A request that may change something, such as the `POST`
/// of a login or a logout, waits for no refresh: its handler runs at once, with the token if that is still valid, else
/// with [`Euid::Unavailable`](crate::Euid::Unavailable). A login or logout in its response takes precedence over the
/// refresh.
///
/// ```
/// # #[cfg(feature = "client")]
/// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?.block_on(async {
/// # use std::time::Duration;
/// # use tokio::time::timeout;
/// # use tower::{Layer, service_fn};
/// # use tower_euid::RefreshMode;
/// # use euid_sandbox::{Fault, Sandbox, VisitorState};
/// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
/// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
/// # let sandbox = Sandbox::builder().build()?;
/// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
/// sandbox.fault(Fault::Delay(Duration::from_millis(200))); // the operator takes its time
/// for (mode, at_once) in [(RefreshMode::Blocking, false), (RefreshMode::Concurrent, true)] {
///     let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
///     let app = layer.clone().refresh_mode(mode).layer(page);
///     let sent = timeout(Duration::from_millis(100), visitor.send(&app, http::Request::new(()))).await;
///     assert_eq!(sent.is_ok_and(|page| page.is_ok_and(|page| *page.body() == "active")), at_once);
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshMode {
    /// After the refresh, or after [`max_wait`](crate::EuidLayer::max_wait) with the old token if it is still valid.
    /// The token is refreshed before it is used, as the EUID guide requires.
    #[default]
    Blocking,
    /// At once, as long as the token is valid. If the answer arrives before the response head is ready, the response
    /// sets the new cookie. Otherwise the next response to this visitor from this node sets it, unless the new pair
    /// itself is due by then. If the token has expired, the handler waits as in [`Blocking`](Self::Blocking).
    Concurrent,
}

impl Config {
    /// The coordinator for identities of this scope.
    #[inline]
    pub(crate) fn coordinator(&self, scope: Scope) -> &Arc<Coordinator> {
        match &self.other_scope {
            Some(other) if other.coordinator.scope() == scope => &other.coordinator,
            _ => &self.coordinator,
        }
    }

    /// Adds the series of its metrics, once.
    pub(crate) fn add_series(&self) {
        self.series.once(|| {
            let others = self.other_scope.iter().map(|other| other.coordinator.scope());
            let scopes = Vec::from_iter(others.chain([self.coordinator.scope()]));
            series::add_layer(&scopes, self.has_headers);
            if self.records.is_some() {
                series::add_store();
            }
        });
    }

    /// Distinguishes this layer, and its clones with equal settings, from others.
    pub(crate) fn layer_id(&self) -> usize {
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
            .field("coordinator", &self.coordinator)
            .field("other_scope", &self.other_scope.as_ref().map(|other| &other.coordinator))
            .field("records", &self.records)
            .field("consent", &self.consent.is_some())
            .field("subject", &self.subject.is_some())
            .field("logout_when", &self.logout_when.is_some())
            .field("explains", &self.explains)
            .finish_non_exhaustive()
    }
}
