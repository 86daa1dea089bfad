//! The failures of the operator and of the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tower_euid_wire::{Redis, RedisFault};

use crate::operator::{Operator, Trouble};
use crate::tally::{Counter, Tally};

/// A service that can fail.
pub(crate) trait Fails: Send {
    type Trouble: Copy + Send + 'static;

    /// All failures, in their order.
    const TROUBLES: &'static [Self::Trouble];
    /// The longest time for a failure and the healthy period before it.
    const LONGEST_TURN: Duration;

    fn begin(&mut self, trouble: Self::Trouble) -> impl Future<Output = ()> + Send;
    fn end(&mut self, trouble: Self::Trouble) -> impl Future<Output = ()> + Send;
    fn counter(tally: &Tally) -> &Counter;
}

/// Runs one failure after another, each at least once, with healthy periods between them.
pub(crate) async fn weather<S: Fails>(mut service: S, tally: Arc<Tally>, lasts: Duration) {
    let turn = (lasts / u32::try_from(S::TROUBLES.len()).unwrap()).min(S::LONGEST_TURN);
    for &trouble in S::TROUBLES.iter().cycle() {
        sleep(turn.mul_f64(0.6)).await;
        S::counter(&tally).one_more();
        service.begin(trouble).await;
        sleep(turn.mul_f64(0.35)).await;
        service.end(trouble).await;
    }
}

impl Fails for Arc<Operator> {
    type Trouble = Trouble;

    const TROUBLES: &'static [Trouble] = &Trouble::ALL;
    /// Long enough for the breaker to close again.
    const LONGEST_TURN: Duration = Duration::from_secs(15);

    async fn begin(&mut self, trouble: Trouble) {
        Operator::begin(self, trouble);
    }

    async fn end(&mut self, trouble: Trouble) {
        Operator::end(self, trouble).await;
    }

    fn counter(tally: &Tally) -> &Counter {
        &tally.faults
    }
}

impl Fails for Redis {
    type Trouble = RedisFault;

    /// The kill is last: by then, even in a short run, the operator has refused the tokens of all logins. That excuses a loss.
    const TROUBLES: &'static [RedisFault] = &[
        RedisFault::Stopped,
        RedisFault::Replica,
        RedisFault::TooFewReplicas,
        RedisFault::NoMemory,
        RedisFault::Killed,
    ];
    /// Not the operator's length, so that the two sometimes fail together and sometimes alone.
    const LONGEST_TURN: Duration = Duration::from_secs(11);

    async fn begin(&mut self, trouble: RedisFault) {
        Redis::begin(self, trouble).await;
    }

    async fn end(&mut self, trouble: RedisFault) {
        Redis::end(self, trouble).await;
    }

    fn counter(tally: &Tally) -> &Counter {
        &tally.store_faults
    }
}
