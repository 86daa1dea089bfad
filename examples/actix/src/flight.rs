//! One call for all requests of a login that are due at the same time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use euid_core::engine::Lineage;
use euid_core::{EuidError, Identity, Refreshed};
use tokio::sync::OnceCell;

/// The refreshes under way, by the login of their identity. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<Lineage, Weak<Flight>>>>);

/// One refresh. It exists as long as requests wait for it.
struct Flight {
    identity: Arc<Identity>,
    outcome: OnceCell<Result<Refreshed, EuidError>>,
}

impl Flights {
    /// Returns the outcome of the refresh of `identity`: joins the call under way, or makes `call`. If the request that makes
    /// the call gives up, the next waiting request makes it again.
    pub(crate) async fn join<F>(
        &self,
        lineage: Lineage,
        identity: &Arc<Identity>,
        call: impl FnOnce() -> F,
    ) -> Result<Refreshed, EuidError>
    where
        F: Future<Output = Result<Refreshed, EuidError>>,
    {
        let flight = self.flight(lineage, identity);
        flight.outcome.get_or_init(call).await.clone()
    }

    fn flight(&self, lineage: Lineage, identity: &Arc<Identity>) -> Arc<Flight> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        let known = flights.get(&lineage).and_then(Weak::upgrade);
        // Another browser may hold an older identity of the same login.
        known.filter(|flight| flight.identity == *identity).unwrap_or_else(|| {
            let flight = Arc::new(Flight { identity: Arc::clone(identity), outcome: OnceCell::new() });
            flights.insert(lineage, Arc::downgrade(&flight));
            flight
        })
    }
}
