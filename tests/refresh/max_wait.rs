//! `max_wait`: how long a page waits for a refresh. The call itself continues, and a later page uses its answer.

#![expect(clippy::disallowed_methods, reason = "measures tokio's paused time")]

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};
use tower_euid::{EuidLayer, refresh_fn};

use crate::support::{DUE, Jar, Operator, Site, new_pair};

#[tokio::test(start_paused = true)]
async fn max_wait_ends_the_wait_of_pages_that_queue_for_a_permit() {
    let operator = Operator::never();
    let site = Site::new(operator.clone()).configured(|layer| layer.max_concurrent_refreshes(1));
    let visitors = site.due_visitors(2).await;
    let start = Instant::now();
    let (first, second) = tokio::join!(visitors[0].look_once(), visitors[1].look_once());
    assert_eq!([first.saw(), second.saw()], ["active(visitor-0)", "active(visitor-1)"]);
    assert_eq!(start.elapsed(), EuidLayer::DEFAULT_MAX_WAIT);
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn max_wait_passes_once_per_hanging_call_whose_late_answer_is_used() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(800));
    let mut site = Site::new(operator.clone()).logged_in(DUE).await;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        assert_eq!(site.look().await.saw(), "active(old)");
        waits.push(start.elapsed());
        // The limits of the page and of the call end at the same moment.
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(waits.remove(0), EuidLayer::DEFAULT_MAX_WAIT);
    assert!(waits.iter().all(Duration::is_zero), "{waits:?}");
    sleep(Duration::from_millis(400)).await;
    assert_eq!(site.look().await.saw(), "active(new)");
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn max_wait_passes_once_per_queued_call() {
    let operator = Operator::never();
    let first = Site::new(operator.clone()).configured(|layer| layer.max_concurrent_refreshes(1));
    let mut first = first.logged_in(DUE).await;
    first.look().await;
    let mut site = Site { jar: Jar::default(), ..first.clone() };
    site.login("second").await;
    let mut slow_pages = 0;
    for _ in 0..10 {
        let start = Instant::now();
        assert_eq!(site.look().await.saw(), "active(second)");
        slow_pages += usize::from(!start.elapsed().is_zero());
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(slow_pages, 1);
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn max_wait_does_not_discard_an_answer_that_arrived_while_the_process_was_frozen() {
    for frozen in [Duration::from_secs(7), Duration::from_secs(70)] {
        let (answer, answered) = watch::channel(false);
        let operator = refresh_fn(move |_| {
            let mut answered = answered.clone();
            async move {
                answered.wait_for(|&answered| answered).await.unwrap();
                new_pair("new")
            }
        });
        let mut site = Site::new(operator).logged_in(DUE).await;
        let page = tokio::spawn(async move { site.look().await.saw() });
        for _ in 0..3 {
            yield_now().await;
        }
        // The clock advances while no task runs. Afterwards the timers fire first.
        advance(frozen).await;
        for _ in 0..5 {
            yield_now().await;
        }
        answer.send(true).unwrap();
        assert_eq!(page.await.unwrap(), "active(new)", "{frozen:?}");
    }
}
