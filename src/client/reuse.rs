//! Finds out whether a call used a connection from the pool, which reqwest does not report.
//!
//! The connector runs within the call that needs a new connection. So a call for which it did not run used an idle one.
//! The reverse is not certain: a call may start a connection and then get one that another call has finished with. It
//! then counts as fresh.

use std::cell::Cell;

tokio::task_local! {
    /// Whether the connector ran for the call that is being polled.
    static CONNECTED: Cell<bool>;
}

/// Awaits `call`, and returns whether it certainly used an idle connection.
pub(super) async fn observed<F: Future>(call: F) -> (F::Output, bool) {
    let call = async {
        let outcome = call.await;
        (outcome, !CONNECTED.with(Cell::get))
    };
    CONNECTED.scope(Cell::new(false), call).await
}

/// Passes a request on to the connector, and notes the request. Outside of [`observed`] there is nothing to note: a
/// connection that is finished in the background belongs to no call.
pub(super) fn note<R>(request: R) -> R {
    let _ = CONNECTED.try_with(|connected| connected.set(true));
    request
}
