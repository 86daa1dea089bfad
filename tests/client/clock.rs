//! Tests that the client compares its clock with the operator's time in an answer, and warns of a difference.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::time::Duration;

use euid_sandbox::SandboxServer;
use tower_euid::EuidClient;
use tower_euid::clock::{ManualClock, UnixMillis};

use crate::support::server::{client_builder, generate, sandbox_at_start, serve, user};
use crate::support::{Log, START};

/// Returns a client whose clock is `millis` ahead of the operator's.
fn client(operator: &SandboxServer, millis: i64) -> EuidClient {
    let clock = ManualClock::at(UnixMillis::from_millis(START.as_millis() + millis));
    client_builder(operator).clock(clock).build().unwrap()
}

/// Returns the log lines about clocks while `calls` runs.
async fn clock_log(calls: impl AsyncFnOnce()) -> Vec<String> {
    let log = Log::default();
    let logging = log.start();
    calls().await;
    drop(logging);
    log.take().into_iter().filter(|line| line.contains("clock")).collect()
}

#[tokio::test]
async fn clock_drift_above_thirty_seconds_is_logged_with_seconds_and_direction() {
    let operator = serve(sandbox_at_start()).await;
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
        assert_eq!(
            clock_log(async || _ = generate(&client, user()).await.unwrap()).await,
            expected.into_iter().collect::<Vec<_>>(),
            "{millis}"
        );
    }
}

#[tokio::test]
async fn clock_drift_is_logged_once_per_client() {
    let operator = serve(sandbox_at_start()).await;
    let client = client(&operator, 60_000);
    let calls = async || {
        generate(&client, user()).await.unwrap();
        generate(&client.clone(), user()).await.unwrap();
        client.validate("none", user()).await.unwrap_err();
    };
    assert_eq!(clock_log(calls).await.len(), 1);
}

#[tokio::test]
async fn clock_drift_excludes_the_time_that_the_call_takes() {
    /// A clock that moves forward by a minute at each read.
    struct SteppingClock(ManualClock);
    impl tower_euid::clock::Clock for SteppingClock {
        fn now(&self) -> UnixMillis {
            let now = self.0.now();
            self.0.advance(Duration::from_secs(60));
            now
        }
    }
    let operator = serve(sandbox_at_start()).await;
    let clock = SteppingClock(ManualClock::at(UnixMillis::from_millis(START.as_millis() - 30_000)));
    let client = client_builder(&operator).clock(clock).build().unwrap();
    assert_eq!(clock_log(async || _ = generate(&client, user()).await.unwrap()).await, Vec::<String>::new());
}
