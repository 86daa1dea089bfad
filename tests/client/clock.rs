//! The client's clock, held against the operator's time in an answer.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::net::Ipv4Addr;
use std::time::Duration;

use euid_sandbox::{Sandbox, SandboxServer};
use tower_euid::clock::{ManualClock, UnixMillis};
use tower_euid::{Dii, EuidClient};

use crate::support::server::client_builder;
use crate::support::{Log, START};

async fn operator() -> SandboxServer {
    let sandbox = Sandbox::builder().clock(ManualClock::at(START)).build().unwrap();
    sandbox.serve((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap()
}

/// A client whose clock is ahead of the operator's by `millis`.
fn client(operator: &SandboxServer, millis: i64) -> EuidClient {
    let clock = ManualClock::at(UnixMillis::from_millis(START.as_millis() + millis));
    client_builder(operator).clock(clock).build().unwrap()
}

async fn login(client: &EuidClient) {
    client.generate(Dii::email("user@example.com").unwrap()).await.unwrap();
}

/// What `calls` has logged of clocks.
async fn logged(calls: impl AsyncFnOnce()) -> Vec<String> {
    let log = Log::default();
    let logging = log.start();
    calls().await;
    drop(logging);
    log.take().into_iter().filter(|line| line.contains("clock")).collect()
}

#[tokio::test]
async fn a_clock_that_differs_by_more_than_thirty_seconds_is_warned_of_by_seconds_and_direction() {
    let operator = operator().await;
    for (millis, expected) in [
        (0, None),
        (30_000, None),
        (-30_000, None),
        (30_001, Some((30, "ahead"))),
        (-30_001, Some((30, "behind"))),
        (118_999, Some((118, "ahead"))),
        (-118_000, Some((118, "behind"))),
    ] {
        let client = client(&operator, millis);
        let expected = expected.map(|(seconds, direction)| {
            format!(
                "WARN tower_euid: this machine's clock differs from the operator's \
                 seconds={seconds} direction=\"{direction}\""
            )
        });
        assert_eq!(logged(async || login(&client).await).await, expected.into_iter().collect::<Vec<_>>(), "{millis}");
    }
}

#[tokio::test]
async fn a_client_warns_of_its_clock_once() {
    let operator = operator().await;
    let client = client(&operator, 60_000);
    let calls = async || {
        login(&client).await;
        login(&client.clone()).await;
        client.validate("none", Dii::email("user@example.com").unwrap()).await.unwrap_err();
    };
    assert_eq!(logged(calls).await.len(), 1);
}

#[tokio::test]
async fn the_time_that_a_call_takes_is_no_difference_of_clocks() {
    /// Moves on by a minute whenever it is read.
    struct Slow(ManualClock);
    impl tower_euid::clock::Clock for Slow {
        fn now(&self) -> UnixMillis {
            let now = self.0.now();
            self.0.advance(Duration::from_secs(60));
            now
        }
    }
    let operator = operator().await;
    let clock = Slow(ManualClock::at(UnixMillis::from_millis(START.as_millis() - 30_000)));
    let client = client_builder(&operator).clock(clock).build().unwrap();
    assert_eq!(logged(async || login(&client).await).await, Vec::<String>::new());
}
