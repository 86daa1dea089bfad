//! `EuidLayer::store`: identities on the site's side, and the login slot as the handle.
//!
//! 1. A refresh writes no cookie but the record of an opt-out and the removal of an identity that has moved.
//! 2. Nothing ends because the store failed.
//! 3. Of all nodes one asks the operator.

use std::time::Duration;

use tower_euid::clock::ManualClock;
use tower_euid::error::ErrorKind;
use tower_euid::store::StoreMode;
use tower_euid::{CookieConfig, EuidUpdate, HeaderConfig, KeyRing, Refresh, RefreshMode, Refreshed};

use crate::support::keeper::{Keeper, header_writes};
use crate::support::stores::{Fault, TestStore};
use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, IDENTITY_EXPIRES, LOGIN_WRITTEN, Log, NOTHING, Operator, REFRESH_EXPIRES,
    REFRESH_FROM, SCRIPT_TOKEN, Site, Visit, at, expect, failure, identity, identity_until, new_pair, outcome, ring,
};

/// Nodes of one site, with one store.
struct Nodes {
    keys: KeyRing,
    first: Site,
    store: TestStore,
}

impl Nodes {
    fn new(refresh: impl Refresh) -> Self {
        let keys = ring();
        let site = Site::with_keys(keys.clone(), refresh);
        let store = TestStore::new(&site.clock);
        let first = site.configured(|layer| layer.store(store.clone()).remember_for(Duration::ZERO));
        Self { keys, first, store }
    }

    /// Another node, with the browser of the first.
    fn another(&self, refresh: impl Refresh) -> Site {
        let site = Site::with_keys(self.keys.clone(), refresh);
        let clock = self.first.clock.clone();
        let layer = site.layer.clock(clock.clone()).store(self.store.clone()).remember_for(Duration::ZERO);
        Site { clock, layer, jar: self.first.jar.clone(), is_offline: false }
    }

    async fn logged_in(mut self, millis: i64) -> Self {
        self.first = self.first.logged_in(millis).await;
        self
    }
}

const HANDLE_WRITTEN: &str = "anchor set";
const HANDLE_REMOVED: &str = "anchor cleared";

fn renewing(name: &str) -> Operator {
    Operator::answering(new_pair(name))
}

#[tokio::test]
async fn login_is_put_in_the_store_and_the_browser_has_its_handle_alone() {
    let mut nodes = Nodes::new(Operator::never());
    assert_eq!(outcome(&nodes.first.login("old").await), expect("absent", HANDLE_WRITTEN));
    assert_eq!(nodes.store.calls(), (0, 1));
    assert_eq!(outcome(&nodes.first.look().await), expect("active(old)", ""));
    let mut other = nodes.another(Operator::never());
    assert_eq!(outcome(&other.look().await), expect("active(old)", ""));
    assert_eq!(nodes.store.calls(), (2, 1));
}

#[tokio::test]
async fn refresh_writes_no_cookie_and_every_node_sees_the_new_token() {
    let operator = renewing("new");
    let mut nodes = Nodes::new(operator.clone()).logged_in(DUE).await;
    assert_eq!(outcome(&nodes.first.look().await), expect("active(new)", ""));
    assert_eq!(outcome(&nodes.another(Operator::never()).look().await), expect("active(new)", ""));
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn logout_ends_the_record_for_every_node() {
    let mut nodes = Nodes::new(Operator::never()).logged_in(0).await;
    let mut copied = nodes.another(Operator::never());
    assert_eq!(outcome(&nodes.first.update(EuidUpdate::logout()).await), expect("active(old)", HANDLE_REMOVED));
    assert!(nodes.first.jar.names().is_empty());
    assert_eq!(outcome(&copied.look().await), expect("absent", ""));
}

#[tokio::test]
async fn opt_out_that_a_refresh_finds_is_recorded_at_the_client() {
    let mut nodes = Nodes::new(Operator::answering(Ok(Refreshed::OptedOut))).logged_in(DUE).await;
    let mut copied = nodes.another(Operator::never());
    assert_eq!(outcome(&nodes.first.look().await), expect("opted_out", "opt-out set"));
    assert_eq!(outcome(&nodes.first.look().await), expect("opted_out", ""));
    assert_eq!(outcome(&copied.look().await), expect("opted_out", "opt-out set"), "the store has it, too");
}

#[tokio::test(start_paused = true)]
async fn opt_out_that_comes_after_its_page_is_told_by_the_next_page() {
    let operator = Operator::answering(Ok(Refreshed::OptedOut)).after(Duration::from_millis(50));
    let mut nodes = Nodes::new(operator).logged_in(DUE).await;
    nodes.first = nodes.first.configured(|layer| layer.refresh_mode(RefreshMode::Concurrent));
    assert_eq!(outcome(&nodes.first.look().await), expect("active(old)", ""));
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(outcome(&nodes.another(Operator::never()).look().await), expect("opted_out", "opt-out set"));
    assert_eq!(outcome(&nodes.first.look().await), expect("opted_out", "opt-out set"));
    assert_eq!(outcome(&nodes.first.look().await), expect("opted_out", ""));
}

#[tokio::test(start_paused = true)]
async fn probe_of_the_store_that_is_dropped_is_followed_by_another() {
    let mut nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.store.fault(Fault::Down);
    for _ in 0..5 {
        nodes.first.look().await;
    }
    nodes.store.fault(Fault::Hangs);
    nodes.first.wait_until(1_000);
    assert!(tokio::time::timeout(Duration::from_millis(10), nodes.first.look()).await.is_err(), "the probe");
    nodes.store.fault(Fault::None);
    assert_eq!(nodes.first.look().await.saw(), "active(old)", "at once, as nothing was learnt of the store");
}

#[tokio::test(start_paused = true)]
async fn logout_with_a_handle_that_names_no_login_fills_no_store() {
    let forged = [(ANCHOR.to_string(), "AAAAAAAAAAAAAAAAAAAAAA"), (format!("{}AAAA", &*IDENTITY), "forged")];
    // After an outage, the login may be there.
    for (cookies, fault, kept) in [(1, Fault::None, 60), (2, Fault::None, 60), (1, Fault::Down, 3600)] {
        let mut nodes = Nodes::new(Operator::never());
        forged[..cookies].iter().for_each(|(name, value)| nodes.first.jar.put(name, value));
        nodes.store.fault(fault);
        assert_ne!(outcome(&nodes.first.update(EuidUpdate::logout()).await).1, "", "the cookies came");
        nodes.store.fault(Fault::None);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(nodes.store.kept(), [Duration::from_secs(kept)], "{cookies} {fault:?}");
    }
}

#[tokio::test]
async fn logout_remembers_the_end_of_a_login_for_an_hour() {
    let mut nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.first.update(EuidUpdate::logout()).await;
    assert_eq!(nodes.store.kept().last(), Some(&Duration::from_secs(3600)));
}

#[tokio::test(start_paused = true)]
async fn clients_that_go_away_do_not_open_the_breaker_of_the_store() {
    let nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.store.delay(Duration::from_millis(20));
    for _ in 0..10 {
        assert!(tokio::time::timeout(Duration::from_millis(10), nodes.first.look_once()).await.is_err(), "dropped");
    }
    assert_eq!(nodes.first.look_once().await.saw(), "active(old)");
}

#[tokio::test(start_paused = true)]
async fn calls_that_clients_wait_for_in_vain_open_the_breaker() {
    let nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.store.fault(Fault::Hangs);
    for _ in 0..5 {
        // Shorter than the store's timeout of 40 ms.
        assert!(tokio::time::timeout(Duration::from_millis(30), nodes.first.look_once()).await.is_err(), "dropped");
    }
    assert_eq!(nodes.first.look_once().await.saw(), "unavailable");
    assert_eq!(nodes.store.calls().0, 5);
}

#[tokio::test]
async fn store_that_refuses_to_write_is_still_read() {
    let mut nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.store.fault(Fault::ReadOnly);
    for _ in 0..6 {
        nodes.another(Operator::never()).login("other").await;
        { nodes.first.clone() }.login("other").await;
    }
    assert_eq!(nodes.first.look().await.saw(), "active(old)");
}

#[tokio::test]
async fn store_that_panics_fails_no_page() {
    let mut nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.store.fault(Fault::Panics);
    assert_eq!(outcome(&nodes.first.look().await), expect("unavailable", ""));
    assert_eq!(outcome(&nodes.first.update(EuidUpdate::logout()).await), expect("unavailable", HANDLE_REMOVED));
}

#[tokio::test]
async fn identity_that_moves_keeps_the_token_for_scripts() {
    let mut nodes = Nodes::new(renewing("new"));
    nodes.first = nodes.first.configured(|layer| layer.cookie(CookieConfig::default().expose_token_to_scripts()));
    nodes.store.fault(Fault::Down);
    nodes.first.login("old").await;
    nodes.store.fault(Fault::None);
    nodes.first.wait_until(DUE);
    assert_eq!(outcome(&nodes.first.look().await), expect("active(new)", "identity cleared, token set"));
    assert_eq!(nodes.first.jar.value(SCRIPT_TOKEN), Some("new"));
}

#[tokio::test]
async fn pair_that_has_expired_by_one_nodes_clock_is_refreshed_in_time_by_another() {
    let times = [REFRESH_FROM, IDENTITY_EXPIRES, REFRESH_EXPIRES];
    let pair = identity_until("new", times.map(|millis| DUE + millis));
    let mut nodes = Nodes::new(renewing("newer")).logged_in(DUE).await;
    let operator = Operator::answering(Ok(Refreshed::Identity(pair)));
    let clock = ManualClock::at(at(DUE + IDENTITY_EXPIRES));
    let ahead = nodes.another(operator.clone()).configured(|layer| layer.clock(clock).store(nodes.store.clone()));
    assert_eq!((ahead.look_once().await.saw(), operator.calls()), ("unavailable".to_owned(), 1));
    for (millis, token) in [(DUE, "new"), (DUE + REFRESH_FROM - 1, "new"), (DUE + REFRESH_FROM, "newer")] {
        nodes.first.wait_until(millis);
        assert_eq!(nodes.first.look().await.saw(), format!("active({token})"), "{millis}");
    }
}

#[tokio::test]
async fn rejected_token_ends_the_record_and_writes_nothing() {
    let operator = Operator::answering(failure(ErrorKind::RejectedToken));
    let mut nodes = Nodes::new(operator.clone()).logged_in(DUE).await;
    assert_eq!(outcome(&nodes.first.look().await), expect("absent", ""));
    assert_eq!(outcome(&nodes.another(operator.clone()).look().await), expect("absent", ""));
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn end_that_the_deadline_of_a_refresh_cuts_off_is_owed() {
    for answer in [failure(ErrorKind::RejectedToken), Ok(Refreshed::OptedOut)] {
        let ends_with = if answer.is_ok() { expect("opted_out", "opt-out set") } else { expect("absent", "") };
        let mut nodes = Nodes::new(Operator::answering(answer).after(Duration::from_millis(50))).logged_in(DUE).await;
        nodes.first = nodes.first.configured(|layer| layer.refresh_deadline(Duration::from_millis(80)));
        // The lease is put after 20 ms, the operator answers after 70 ms, and the end would be put after 90 ms.
        nodes.store.delay(Duration::from_millis(20));
        assert_eq!(nodes.first.look_once().await.saw(), "active(old)");
        nodes.store.delay(Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(1001)).await;
        assert_eq!(outcome(&nodes.another(Operator::never()).look().await), ends_with);
    }
}

/// Visitors of a node who log in now.
async fn visitors(node: &Site, count: usize) -> Vec<Site> {
    let mut visitors = vec![node.clone(); count];
    for (number, visitor) in visitors.iter_mut().enumerate() {
        visitor.login(&format!("visitor-{number}")).await;
    }
    visitors
}

#[tokio::test(start_paused = true)]
async fn outcome_that_the_store_has_says_nothing_of_the_operator() {
    let mut nodes = Nodes::new(renewing("new").after(Duration::from_millis(60)));
    let down = Operator::answering(failure(ErrorKind::Transient));
    let other = nodes.another(down.clone());
    let mut failing = visitors(&other, 6).await;
    nodes = nodes.logged_in(EXPIRED).await;
    for visitor in &mut failing[..4] {
        visitor.look().await;
    }
    let other = Site { jar: nodes.first.jar.clone(), ..other };
    let saw: Vec<String> = futures([&nodes.first, &other].map(Site::look_once)).await.iter().map(Visit::saw).collect();
    assert_eq!(saw, ["active(new)", "active(new)"], "one node asked, the other found the pair in the store");
    for visitor in &mut failing[4..] {
        visitor.look().await;
    }
    assert_eq!(down.calls(), 5, "five failures in a row open the breaker");
}

#[tokio::test]
async fn store_that_fails_now_and_then_warns_twice_a_minute() {
    let mut nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.first = nodes.first.configured(|layer| layer.remember_for(Duration::ZERO));
    let log = Log::default();
    let _guard = log.start();
    let warnings = || log.take().into_iter().filter(|line| line.starts_with("WARN")).collect::<Vec<_>>();
    for second in 0..20 {
        // The breaker lets a probe pass after a second.
        nodes.first.wait_until(second * 1_500);
        nodes.store.fault(Fault::None);
        assert_eq!(nodes.first.look_once().await.saw(), "active(old)");
        nodes.store.fault(Fault::Down);
        for _ in 0..5 {
            assert_eq!(nodes.first.look_once().await.saw(), "unavailable");
        }
    }
    let lines = warnings();
    assert_eq!(lines.len(), 2, "a failure, and the breaker: {lines:?}");
    nodes.first.wait_until(90_000);
    nodes.first.look_once().await;
    let lines = warnings();
    assert!(lines.len() == 1 && lines[0].contains("left_out=99"), "{lines:?}");
}

#[tokio::test]
async fn probe_that_did_not_ask_the_operator_is_followed_by_another_at_once() {
    let operator = Operator::answering(failure(ErrorKind::Transient));
    let nodes = Nodes::new(operator.clone());
    let mut failing = visitors(&nodes.first, 7).await;
    nodes.first.wait_until(DUE);
    for visitor in &mut failing[..5] {
        visitor.look().await;
    }
    nodes.first.wait_until(DUE + 5_000);
    nodes.store.fault(Fault::ReadOnly);
    failing[5].look().await;
    assert_eq!(operator.calls(), 5, "without a lease there is no call");
    nodes.store.fault(Fault::None);
    failing[6].look().await;
    assert_eq!(operator.calls(), 6, "the probe");
}

#[tokio::test(start_paused = true)]
async fn store_that_fails_or_hangs_ends_nothing() {
    for fault in [Fault::Down, Fault::Hangs] {
        let mut nodes = Nodes::new(Operator::never()).logged_in(0).await;
        nodes.store.fault(fault);
        assert_eq!(outcome(&nodes.first.look().await), expect("unavailable", ""));
        nodes.store.fault(Fault::None);
        assert_eq!(outcome(&nodes.first.look().await), expect("active(old)", ""));
    }
}

#[tokio::test(start_paused = true)]
async fn login_that_the_store_does_not_confirm_is_sealed_and_moves_with_its_refresh() {
    for fault in [Fault::Down, Fault::Hangs, Fault::AnswerLost, Fault::ReadOnly] {
        let operator = renewing("new");
        let mut nodes = Nodes::new(operator.clone());
        nodes.store.fault(fault);
        assert_eq!(outcome(&nodes.first.login("old").await), expect("absent", LOGIN_WRITTEN), "{fault:?}");
        assert_eq!(outcome(&nodes.first.look().await), expect("active(old)", ""), "{fault:?}");
        nodes.store.fault(Fault::None);
        nodes.first.wait_until(DUE);
        assert_eq!(outcome(&nodes.first.look().await), expect("active(new)", "identity cleared"), "{fault:?}");
        assert_eq!(outcome(&nodes.first.look().await), expect("active(new)", ""), "{fault:?}");
        assert_eq!(outcome(&nodes.another(Operator::never()).look().await), expect("active(new)", ""), "{fault:?}");
        assert_eq!(operator.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn sealed_identity_is_refreshed_and_stays_sealed_while_the_store_is_down() {
    let mut nodes = Nodes::new(renewing("new"));
    nodes.store.fault(Fault::Down);
    nodes.first.login("old").await;
    nodes.first.wait_until(DUE);
    assert_eq!(outcome(&nodes.first.look().await), expect("active(new)", "identity set"));
    assert_eq!(outcome(&nodes.first.look().await), expect("active(new)", ""));
}

#[tokio::test(start_paused = true)]
async fn logout_that_the_store_does_not_confirm_is_owed() {
    let mut nodes = Nodes::new(Operator::never()).logged_in(0).await;
    let (mut copied, mut copied_here) = (nodes.another(Operator::never()), nodes.first.clone());
    nodes.store.fault(Fault::Down);
    assert_eq!(outcome(&nodes.first.update(EuidUpdate::logout()).await), expect("unavailable", HANDLE_REMOVED));
    nodes.store.fault(Fault::None);
    assert_eq!(outcome(&copied_here.look().await), expect("absent", ""), "this node knows that it has ended");
    assert_eq!(outcome(&copied.look().await), expect("active(old)", ""), "another node does not know it yet");
    tokio::time::sleep(Duration::from_millis(1001)).await;
    assert_eq!(outcome(&copied.look().await), expect("absent", ""));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_find_a_login_due_make_one_call() {
    let operator = renewing("new").after(Duration::from_millis(300));
    let nodes = Nodes::new(operator.clone()).logged_in(DUE).await;
    let others = [(); 3].map(|()| nodes.another(operator.clone()));
    let looks = others.iter().chain([&nodes.first]).map(Site::look_once);
    let mut saw: Vec<String> = futures(looks).await.iter().map(Visit::saw).collect();
    saw.sort();
    assert_eq!(saw, ["active(new)", "active(old)", "active(old)", "active(old)"]);
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn page_without_a_usable_token_waits_for_the_refresh_of_another_node() {
    let operator = renewing("new").after(Duration::from_millis(60));
    let nodes = Nodes::new(operator.clone()).logged_in(EXPIRED).await;
    let other = nodes.another(operator.clone());
    let saw: Vec<String> = futures([&nodes.first, &other].map(Site::look_once)).await.iter().map(Visit::saw).collect();
    assert_eq!(saw, ["active(new)", "active(new)"]);
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn node_that_ends_during_a_refresh_keeps_others_from_it_for_a_while_only() {
    let nodes = Nodes::new(Operator::never()).logged_in(DUE).await;
    assert_eq!(nodes.first.look_once().await.saw(), "active(old)");
    let operator = renewing("new");
    let mut other = nodes.another(operator.clone());
    assert_eq!(outcome(&other.look().await), expect("active(old)", ""));
    assert_eq!(operator.calls(), 0);
    nodes.first.wait_until(DUE + 12_000);
    assert_eq!(outcome(&other.look().await), expect("active(new)", ""));
}

#[tokio::test]
async fn record_of_another_user_or_none_is_absent_and_nothing_is_written() {
    let mut nodes = Nodes::new(Operator::never());
    nodes.first = nodes.first.with_subject();
    nodes.first.update(EuidUpdate::login(identity("old")).subject("17")).await;
    for (user, saw) in
        [(Some("17"), "active(old)"), (Some("18"), "absent"), (None, "absent"), (Some("17"), "active(old)")]
    {
        assert_eq!(outcome(&nodes.first.look_as(user).await), expect(saw, ""), "{user:?}");
    }
    let elsewhere = TestStore::new(&nodes.first.clock);
    let mut empty = nodes.first.clone().configured(|layer| layer.store(elsewhere));
    assert_eq!(outcome(&empty.look_as(Some("17")).await), expect("absent", ""));
}

#[tokio::test(start_paused = true)]
async fn store_that_is_down_is_asked_five_times_and_again_after_a_second() {
    let mut nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.store.fault(Fault::Down);
    for _ in 0..8 {
        assert_eq!(nodes.first.look().await.saw(), "unavailable");
    }
    assert_eq!(nodes.store.calls().0, 5);
    nodes.store.fault(Fault::None);
    assert_eq!(nodes.first.look().await.saw(), "unavailable");
    nodes.first.wait_until(1_000);
    assert_eq!(nodes.first.look().await.saw(), "active(old)");
}

#[tokio::test]
async fn record_is_remembered_until_this_node_writes_it_or_its_time_is_up() {
    let mut nodes = Nodes::new(renewing("new")).logged_in(0).await;
    nodes.first = nodes.first.configured(|layer| layer.remember_for(Duration::from_secs(1)));
    for (millis, gets) in [(0, 1), (999, 1), (1_000, 2), (DUE, 3)] {
        nodes.first.wait_until(millis);
        nodes.first.look().await;
        assert_eq!(nodes.store.calls().0, gets, "{millis}");
    }
    assert_eq!(outcome(&nodes.first.look().await), expect("active(new)", ""));
    nodes.first.update(EuidUpdate::logout()).await;
    assert_eq!(nodes.first.look().await.saw(), "absent");
}

#[tokio::test(start_paused = true)]
async fn pages_that_come_together_share_one_read_if_the_node_remembers_records() {
    for (time, reads) in [(Duration::from_millis(1), 1), (Duration::ZERO, 20)] {
        let nodes = Nodes::new(Operator::never()).logged_in(0).await;
        let node = nodes.first.configured(|layer| layer.remember_for(time));
        nodes.store.delay(Duration::from_millis(10));
        for visit in futures((0..20).map(|_| node.look_once())).await {
            assert_eq!(visit.saw(), "active(old)");
        }
        assert_eq!(nodes.store.calls().0, reads, "{time:?}");
    }
}

#[tokio::test]
async fn login_that_replaces_another_ends_it_once_its_handle_comes_back() {
    let logout = |site: Site| async move { { site }.update(EuidUpdate::logout()).await };
    let refresh = |site: Site| async move {
        site.wait_until(DUE);
        { site }.look().await
    };
    let login = |site: Site| async move { { site }.login("third").await };
    for way in 0..3 {
        let mut nodes = Nodes::new(renewing("new")).logged_in(0).await;
        let before = nodes.first.jar.clone();
        nodes.first.login("second").await;
        let mut old = nodes.another(Operator::never());
        old.jar = before;
        assert_eq!(old.look().await.saw(), "active(old)", "the response with the new handle may never have arrived");
        match way {
            0 => logout(nodes.first.clone()).await,
            1 => refresh(nodes.first.clone()).await,
            _ => login(nodes.first.clone()).await,
        };
        assert_eq!(old.look().await.saw(), "absent", "{way}");
    }
}

#[tokio::test]
async fn node_that_only_reads_uses_records_and_seals_identities() {
    let mut nodes = Nodes::new(renewing("new")).logged_in(0).await;
    nodes.first = nodes.first.configured(|layer| layer.store_mode(StoreMode::ReadOnly));
    assert_eq!(outcome(&nodes.first.look().await), expect("active(old)", ""));
    nodes.first.wait_until(DUE);
    assert_eq!(outcome(&nodes.first.look().await), expect("active(new)", "identity set"));
    assert_eq!(
        outcome(&nodes.first.login("other").await),
        expect("active(new)", "identity set, identity cleared, anchor set")
    );
}

#[tokio::test]
async fn app_keeps_its_handle_in_a_header() {
    let nodes = Nodes::new(renewing("new"));
    let site = nodes.first.configured(|layer| layer.headers(HeaderConfig::default()));
    let mut keeper = Keeper::default();
    let login = site.send(keeper.request(), |_, response| EuidUpdate::login(identity("old")).attach(response)).await;
    assert_eq!(header_writes(login.response.headers()), "anchor set");
    keeper.apply(login.response.headers());
    let look = site.send(keeper.request(), NOTHING).await;
    assert_eq!((look.saw(), header_writes(look.response.headers())), expect("active(old)", ""));
    site.wait_until(DUE);
    let look = site.send(keeper.request(), NOTHING).await;
    assert_eq!((look.saw(), header_writes(look.response.headers())), expect("active(new)", ""));
}

#[tokio::test(start_paused = true)]
async fn visitor_who_hangs_up_during_a_logout_is_logged_out() {
    let nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.store.delay(Duration::from_millis(20));
    let logout = nodes.first.send(nodes.first.jar.request(), |_, response| EuidUpdate::logout().attach(response));
    assert!(tokio::time::timeout(Duration::from_millis(30), logout).await.is_err());
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(nodes.first.look_once().await.saw(), "absent");
}

#[tokio::test(start_paused = true)]
async fn page_whose_read_is_dropped_leaves_the_others_theirs() {
    let nodes = Nodes::new(Operator::never()).logged_in(0).await;
    nodes.store.delay(Duration::from_millis(10));
    let first = tokio::spawn({
        let site = nodes.first.clone();
        async move { site.look_once().await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let second = nodes.first.look_once();
    tokio::pin!(second);
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut second).await.is_err());
    first.abort();
    assert_eq!(second.await.saw(), "active(old)");
    assert_eq!(nodes.store.calls().0, 2);
}

/// Awaits all at once.
async fn futures<F: Future>(all: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut all {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        if all.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    all.into_iter().filter_map(|(_, output)| output).collect()
}
