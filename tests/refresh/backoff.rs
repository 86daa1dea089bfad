//! Backoff: after a failed refresh, a refresh token waits before its next call. Its pages continue without a call.

use std::time::Duration;

use tower_euid::Refreshed;
use tower_euid::error::{ErrorKind, EuidError};

use crate::support::{DUE, EXPIRED, Operator, REFRESH_EXPIRES, Site, expect, failure, identity_until, outcome};

const SECOND: i64 = 1000;

#[tokio::test]
async fn backoff_is_at_most_5_seconds_at_first_and_then_at_least_5() {
    for (kind, due, saw) in [
        (ErrorKind::Transient, DUE, "active(old)"),
        (ErrorKind::RejectedInput, DUE, "active(old)"),
        (ErrorKind::Transient, EXPIRED, "unavailable"),
    ] {
        let operator = Operator::answering(failure(kind));
        let site = Site::new(operator.clone()).logged_in(due).await;
        for seconds in [0, 1, 2] {
            site.wait_until(due + seconds * SECOND);
            assert_eq!(outcome(&site.look_once().await), expect(saw, ""), "{kind:?}");
        }
        assert_eq!(operator.calls(), 1);
        // The first backoff is at most 5 s, the second one at least 5 s.
        site.wait_until(due + 5 * SECOND);
        site.look_once().await;
        site.wait_until(due + 10 * SECOND - 1);
        site.look_once().await;
        assert_eq!(operator.calls(), 2);
        site.wait_until(due + 15 * SECOND);
        site.look_once().await;
        assert_eq!(operator.calls(), 3);
    }
}

#[tokio::test]
async fn backoff_is_as_long_as_the_retry_after_of_the_failure() {
    let error = EuidError::new(ErrorKind::Transient, "busy").with_retry_after(Duration::from_secs(60));
    let operator = Operator::answering(Err(error));
    let mut site = Site::new(operator.clone()).logged_in(DUE).await;
    for (seconds, calls) in [(0, 1), (5, 1), (59, 1), (60, 2)] {
        site.wait_until(DUE + seconds * SECOND);
        site.look().await;
        assert_eq!(operator.calls(), calls, "{seconds} s");
    }
}

#[tokio::test]
async fn backoff_follows_a_new_pair_that_has_already_expired() {
    let expired = identity_until("expired", [0, 1, REFRESH_EXPIRES]);
    let operator = Operator::answering(Ok(Refreshed::Identity(expired)));
    let site = Site::new(operator.clone()).logged_in(DUE).await;
    for _ in 0..3 {
        assert_eq!(outcome(&site.look_once().await), expect("active(old)", ""));
    }
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn backoff_holds_for_the_token_of_a_forged_sdk_cookie() {
    let operator = Operator::answering(failure(ErrorKind::Transient));
    let site = Site::new(operator.clone()).migrating();
    let forged = site.due_sdk_visitors(1);
    for (seconds, calls) in [(0, 1), (2, 1), (5, 2)] {
        site.wait_until(DUE + seconds * SECOND);
        forged[0].look_once().await;
        assert_eq!(operator.calls(), calls, "{seconds}");
    }
}
