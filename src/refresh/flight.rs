//! One call to the operator, and the requests that wait for it.
//!
//! 1. A [`Flight`] completes once; a waiter that arrives later gets the outcome at once.
//! 2. A [`Waiter`] may leave at any time, without an effect on others.
//! 3. All waiters get the same outcome: one allocation, one error source.
//!
//! A flight is a mutex and wakers. The lock is never held while other code runs. The module `interleavings` explores
//! the orders in which these steps can happen.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use euid_core::Refreshed;
use euid_core::error::EuidError;
use euid_core::identity::Identity;

use super::sync::{Mutex, MutexGuard, lock};

/// The outcome of a call: the operator's answer or an error. All waiters share it.
pub(crate) type Outcome = Arc<Result<Refreshed, EuidError>>;

/// A call under way.
#[derive(Debug, Default)]
pub(crate) struct Flight(Mutex<FlightState>);

#[derive(Debug, Default)]
struct FlightState {
    /// The identity to be refreshed, held once for all waiters.
    identity: Option<Arc<Identity>>,
    outcome: Option<Outcome>,
    /// A slot for each waiter that has been polled; empty once the waiter is dropped.
    wakers: Vec<Option<Waker>>,
}

impl Flight {
    /// Returns the flight's own identity if `copy` equals it, so that all waiters share one. Otherwise returns `copy`,
    /// which has another advertising token or other times, though the same refresh token.
    pub(crate) fn share(&self, copy: &Arc<Identity>) -> Arc<Identity> {
        let mut state = self.state();
        let first = state.identity.get_or_insert_with(|| Arc::clone(copy));
        Arc::clone(if *first == *copy { first } else { copy })
    }

    /// Completes the flight and wakes all waiters. Only the first outcome counts.
    pub(crate) fn complete(&self, outcome: Outcome) {
        let mut state = self.state();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let wakers = mem::take(&mut state.wakers);
        // A waker may poll its waiter at once, which needs the lock.
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Returns the outcome, if the flight has completed.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.state().outcome.clone()
    }

    /// Returns a waiter for the outcome.
    pub(crate) fn wait(self: Arc<Self>) -> Waiter {
        Waiter { flight: self, slot: None }
    }

    fn state(&self) -> MutexGuard<'_, FlightState> {
        lock(&self.0)
    }
}

/// A future of the outcome of a [`Flight`]. It may be dropped at any time.
#[derive(Debug)]
pub(crate) struct Waiter {
    flight: Arc<Flight>,
    slot: Option<usize>,
}

impl Waiter {
    /// Returns the outcome without waiting, if the flight has completed.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.flight.outcome()
    }
}

impl Future for Waiter {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let flight = Arc::clone(&self.flight);
        let mut state = flight.state();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(Arc::clone(outcome));
        }
        let waker = cx.waker();
        let replaced = match self.slot.and_then(|slot| state.wakers.get_mut(slot)) {
            Some(Some(present)) if present.will_wake(waker) => None,
            Some(slot) => slot.replace(waker.clone()),
            None => {
                self.slot = Some(state.wakers.len());
                state.wakers.push(Some(waker.clone()));
                None
            }
        };
        // The lock must be free, as in `drop`.
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.flight.state();
        let waker = self.slot.and_then(|slot| state.wakers.get_mut(slot)).and_then(Option::take);
        // Dropping a waker may run the executor's code, which must not find the lock taken.
        drop(state);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::super::fixtures::opted_out;
    use super::*;
    use euid_core::identity::IdentityTimes;

    /// A waker that counts its calls.
    #[derive(Default)]
    struct WakeCounter(AtomicUsize);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl WakeCounter {
        fn poll(self: &Arc<Self>, waiter: Pin<&mut Waiter>) -> Poll<Outcome> {
            waiter.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
        }

        fn wakes(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn dropped_waiter_is_not_woken_and_drops_its_waker_at_once() {
        let (flight, dropped, kept) =
            (Arc::new(Flight::default()), Arc::<WakeCounter>::default(), Arc::<WakeCounter>::default());
        let mut waiter = pin!(Arc::clone(&flight).wait());
        assert!(kept.poll(waiter.as_mut()).is_pending());
        assert!(dropped.poll(pin!(Arc::clone(&flight).wait())).is_pending());
        assert_eq!(Arc::strong_count(&dropped), 1);
        flight.complete(opted_out());
        assert_eq!((dropped.wakes(), kept.wakes()), (0, 1));
    }

    #[test]
    fn waiter_that_moved_to_another_task_is_woken_once_and_there() {
        let (flight, before, after) =
            (Arc::new(Flight::default()), Arc::<WakeCounter>::default(), Arc::<WakeCounter>::default());
        let mut waiter = pin!(Arc::clone(&flight).wait());
        for counter in [&before, &before, &after] {
            assert!(counter.poll(waiter.as_mut()).is_pending());
        }
        flight.complete(opted_out());
        assert_eq!((before.wakes(), after.wakes()), (0, 1));
        assert!(after.poll(waiter).is_ready());
    }

    /// A task that holds a waiter of its own, until it is dropped with its last waker.
    struct Holder {
        _waiter: Waiter,
    }

    impl Wake for Holder {
        fn wake(self: Arc<Self>) {}
    }

    /// This test would not end if the lock were held.
    #[test]
    fn waker_that_holds_another_waiter_of_the_call_may_be_replaced() {
        let flight = Arc::new(Flight::default());
        let mut waiter = pin!(Arc::clone(&flight).wait());
        let holder = Arc::new(Holder { _waiter: Arc::clone(&flight).wait() });
        let (dropped, waker) = (Arc::downgrade(&holder), Waker::from(holder));
        assert!(waiter.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert!(Arc::<WakeCounter>::default().poll(waiter).is_pending());
        assert!(dropped.upgrade().is_none());
    }

    #[test]
    fn equal_identities_share_one_copy_among_all_waiters() {
        let at = euid_core::clock::UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        let named = |name: &str| Arc::new(Identity::new(name, "r".to_owned().into(), [5; 32].into(), times).unwrap());
        let flight = Flight::default();
        let (first, second, other) = (named("a"), named("a"), named("b"));
        for identity in [&first, &second, &first] {
            assert!(Arc::ptr_eq(&flight.share(identity), &first));
        }
        assert_eq!(Arc::strong_count(&second), 1);
        assert!(Arc::ptr_eq(&flight.share(&other), &other), "another advertising token with the same refresh token");
    }

    #[test]
    fn flight_keeps_its_first_outcome() {
        let flight = Arc::new(Flight::default());
        let first = opted_out();
        flight.complete(Arc::clone(&first));
        flight.complete(opted_out());
        assert!(flight.outcome().is_some_and(|outcome| Arc::ptr_eq(&outcome, &first)));
    }
}
