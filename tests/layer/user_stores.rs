//! `EuidLayer::store_by_subject`: one identity for each user, for all their devices.
//!
//! 1. A device has no state but an opt-out that it was told of.
//! 2. A login, a logout and an opt-out hold for all devices, and none of them undoes a later one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::Notify;
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::{Consent, Euid, EuidUpdate, HeaderConfig, KeyRing, Refresh, Refreshed, Scope, StoreSecret};

use crate::support::keeper::{Keeper, header_writes};
use crate::support::stores::{Fault, TestStore};
use crate::support::{
    DUE, Jar, LOGIN_REMOVED, Log, Operator, Site, User, Visit, expect, identity, identity_until, new_pair, outcome,
    ring, scope, store_secret, writes,
};

/// A site with a store that is keyed by the user, and devices of its visitors.
struct Shop {
    keys: KeyRing,
    secret: StoreSecret,
    site: Site,
    store: TestStore,
}

/// A browser, with the user who is signed in.
#[derive(Clone)]
struct Device {
    site: Site,
    user: Option<&'static str>,
}

impl Shop {
    fn new(refresh: impl Refresh) -> Self {
        let (keys, secret) = (ring(), store_secret());
        let site = Site::with_keys(keys.clone(), refresh).with_subject();
        let store = TestStore::new(&site.clock);
        let site = site.configured(|layer| layer.store_by_subject(store.clone(), secret.clone()));
        Self { keys, secret, site, store }
    }

    fn device(&self, user: Option<&'static str>) -> Device {
        Device { site: Site { jar: Jar::default(), ..self.site.clone() }, user }
    }

    /// A device whose requests come to another node.
    fn device_elsewhere(&self, user: Option<&'static str>, refresh: impl Refresh) -> Device {
        let site = Site::with_keys(self.keys.clone(), refresh).with_subject();
        let (clock, store) = (self.site.clock.clone(), self.store.clone());
        let layer = site.layer.clock(clock.clone()).store_by_subject(store, self.secret.clone());
        Device { site: Site { clock, layer, jar: Jar::default(), is_offline: false }, user }
    }
}

impl Device {
    fn request(&self) -> Request<()> {
        let mut request = self.site.jar.request();
        if let Some(user) = self.user {
            request.extensions_mut().insert(User(user));
        }
        request
    }

    async fn visit(&mut self, handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static) -> Visit {
        let visit = self.site.send(self.request(), handler).await;
        self.site.jar.apply(visit.response.headers());
        visit
    }

    async fn look(&mut self) -> (String, String) {
        outcome(&self.visit(|_, _| ()).await)
    }

    async fn update(&mut self, update: EuidUpdate) -> (String, String) {
        outcome(&self.visit(move |_, response| update.clone().attach(response)).await)
    }

    /// Logs the user in. The application has no session before that.
    async fn login(&mut self, user: &'static str, name: &str) -> (String, String) {
        self.user = None;
        let outcome = self.update(EuidUpdate::login(identity(name)).subject(user)).await;
        self.user = Some(user);
        outcome
    }
}

#[tokio::test]
async fn login_is_seen_on_all_devices_of_the_user_and_no_device_has_state() {
    let shop = Shop::new(Operator::never());
    let (mut phone, mut laptop) = (shop.device(None), shop.device_elsewhere(Some("17"), Operator::never()));
    assert_eq!(laptop.look().await, expect("absent", ""));
    assert_eq!(phone.login("17", "old").await, expect("absent", ""));
    assert_eq!(phone.look().await, expect("active(old)", ""));
    assert_eq!(laptop.look().await, expect("active(old)", ""));
    assert_eq!(shop.device(Some("18")).look().await, expect("absent", ""));
    assert_eq!(shop.device(None).look().await, expect("absent", ""));
    assert!(phone.site.jar.names().is_empty() && laptop.site.jar.names().is_empty());
}

#[tokio::test]
async fn refresh_holds_for_all_devices() {
    let operator = Operator::answering(new_pair("new"));
    let shop = Shop::new(operator.clone());
    let (mut phone, mut laptop) = (shop.device(None), shop.device_elsewhere(Some("17"), Operator::never()));
    phone.login("17", "old").await;
    shop.site.wait_until(DUE);
    assert_eq!(phone.look().await, expect("active(new)", ""));
    assert_eq!(laptop.look().await, expect("active(new)", ""));
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn logout_and_withdrawn_consent_end_the_login_on_all_devices() {
    for withdraws in [false, true] {
        let mut shop = Shop::new(Operator::never());
        let (mut phone, mut laptop) = (shop.device(None), shop.device_elsewhere(Some("17"), Operator::never()));
        phone.login("17", "old").await;
        if withdraws {
            shop.site = shop.site.configured(|layer| layer.consent(|_| Consent::Withdrawn));
            assert_eq!(shop.device(Some("17")).look().await, expect("withheld", ""));
        } else {
            assert_eq!(phone.update(EuidUpdate::logout()).await, expect("active(old)", ""));
        }
        assert_eq!(laptop.look().await, expect("absent", ""));
        laptop.login("17", "next").await;
        assert_eq!(laptop.look().await, expect("active(next)", ""));
    }
}

#[tokio::test]
async fn opt_out_is_told_to_each_device_and_carried_by_it() {
    let shop = Shop::new(Operator::answering(Ok(Refreshed::OptedOut)));
    let (mut phone, mut laptop) = (shop.device(None), shop.device_elsewhere(Some("17"), Operator::never()));
    phone.login("17", "old").await;
    shop.site.wait_until(DUE);
    for device in [&mut phone, &mut laptop] {
        assert_eq!(device.look().await, expect("opted_out", "opt-out set"));
        assert_eq!(device.look().await, expect("opted_out", ""));
    }
    // A store that has lost the opt-out, as after a fail-over.
    let empty = TestStore::new(&shop.site.clock);
    let mut phone =
        Device { site: phone.site.configured(|layer| layer.store_by_subject(empty, shop.secret.clone())), ..phone };
    assert_eq!(phone.look().await, expect("opted_out", ""));
    phone.user = Some("18");
    assert_eq!(phone.look().await, expect("absent", ""), "another user has not opted out");
    // A login after it counts: the person has opted in again.
    shop.site.wait_until(DUE + 1);
    let again = identity_until("again", [2 * DUE, 3 * DUE, 4 * DUE]);
    phone.update(EuidUpdate::login(again).subject("17")).await;
    phone.user = Some("17");
    assert_eq!(phone.look().await, expect("active(again)", ""));
}

#[tokio::test]
async fn opt_out_that_a_login_states_replaces_the_login() {
    let shop = Shop::new(Operator::never());
    let (mut phone, mut laptop) = (shop.device(None), shop.device_elsewhere(Some("17"), Operator::never()));
    phone.login("17", "old").await;
    assert_eq!(phone.update(EuidUpdate::opt_out().subject("17")).await, expect("active(old)", "opt-out set"));
    assert_eq!(phone.look().await, expect("opted_out", ""));
    assert_eq!(laptop.look().await, expect("opted_out", "opt-out set"));
    assert_eq!(laptop.update(EuidUpdate::logout()).await, expect("opted_out", ""), "a logout leaves an opt-out alone");
    assert_eq!(shop.device(Some("17")).look().await, expect("opted_out", "opt-out set"));
}

#[tokio::test]
async fn page_that_tells_of_an_opt_out_hides_no_login_that_began_while_its_handler_ran() {
    let shop = Shop::new(Operator::answering(Ok(Refreshed::OptedOut)));
    let (mut phone, mut laptop) = (shop.device(None), shop.device_elsewhere(Some("17"), Operator::never()));
    phone.login("17", "old").await;
    shop.site.wait_until(DUE);
    assert_eq!(phone.look().await, expect("opted_out", "opt-out set"));
    let (layer, request) = (laptop.site.layer.clone(), laptop.request());
    let (entered, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = service_fn({
        let (entered, goes_on) = (Arc::clone(&entered), Arc::clone(&goes_on));
        move |_: Request<()>| {
            let (entered, goes_on) = (Arc::clone(&entered), Arc::clone(&goes_on));
            async move {
                entered.notify_one();
                goes_on.notified().await;
                Ok::<_, std::convert::Infallible>(Response::new(()))
            }
        }
    });
    let page = tokio::spawn(layer.layer(slow).oneshot(request));
    entered.notified().await;
    shop.site.wait_until(DUE + 1);
    let again = identity_until("again", [2 * DUE, 3 * DUE, 4 * DUE]);
    phone.update(EuidUpdate::login(again).subject("17")).await;
    shop.site.wait_until(DUE + 2);
    goes_on.notify_one();
    let response = page.await.unwrap().unwrap();
    assert_eq!(writes(response.headers()), "opt-out set");
    laptop.site.jar.apply(response.headers());
    for device in [&mut phone, &mut laptop] {
        assert_eq!(device.look().await, expect("active(again)", ""));
    }
}

#[tokio::test(start_paused = true)]
async fn login_that_the_store_does_not_confirm_is_not_kept() {
    for fault in [Fault::Down, Fault::Hangs, Fault::ReadOnly] {
        let shop = Shop::new(Operator::never());
        let mut phone = shop.device(None);
        shop.store.fault(fault);
        assert_eq!(phone.login("17", "old").await, expect("absent", ""), "{fault:?}");
        shop.store.fault(Fault::None);
        assert_eq!(phone.look().await, expect("absent", ""), "{fault:?}");
    }
    let unbound = Shop::new(Operator::never());
    let mut phone = unbound.device(Some("17"));
    assert_eq!(phone.update(EuidUpdate::login(identity("old"))).await, expect("absent", ""));
    assert_eq!(phone.look().await, expect("absent", ""), "a login without a subject");
}

#[tokio::test(start_paused = true)]
async fn logout_that_the_store_does_not_confirm_is_owed_and_spares_a_later_login() {
    for logs_in_again in [false, true] {
        let shop = Shop::new(Operator::never());
        let (mut phone, mut laptop) = (shop.device(None), shop.device_elsewhere(Some("17"), Operator::never()));
        phone.login("17", "old").await;
        shop.store.fault(Fault::ReadOnly);
        phone.update(EuidUpdate::logout()).await;
        assert_eq!(phone.look().await, expect("absent", ""), "this node knows");
        assert_eq!(laptop.look().await, expect("active(old)", ""), "another does not, yet");
        shop.store.fault(Fault::None);
        if logs_in_again {
            laptop.login("17", "next").await;
            assert_eq!(phone.look().await, expect("active(next)", ""));
        }
        tokio::time::sleep(Duration::from_millis(1001)).await;
        let expected = if logs_in_again { "active(next)" } else { "absent" };
        assert_eq!(laptop.look().await, expect(expected, ""));
    }
}

#[tokio::test]
async fn logout_ends_the_login_that_its_request_found_and_no_later_one() {
    let shop = Shop::new(Operator::never());
    let (mut phone, mut laptop) = (shop.device(None), shop.device(None));
    phone.login("17", "old").await;
    let (entered, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = service_fn({
        let (entered, goes_on) = (Arc::clone(&entered), Arc::clone(&goes_on));
        move |_: Request<()>| {
            let (entered, goes_on) = (Arc::clone(&entered), Arc::clone(&goes_on));
            async move {
                entered.notify_one();
                goes_on.notified().await;
                let mut response = Response::new(());
                EuidUpdate::logout().attach(&mut response);
                Ok::<_, std::convert::Infallible>(response)
            }
        }
    });
    let logout = tokio::spawn(phone.site.layer.layer(slow).oneshot(phone.request()));
    entered.notified().await;
    laptop.login("17", "next").await;
    goes_on.notify_one();
    logout.await.unwrap().unwrap();
    assert_eq!(phone.look().await, expect("active(next)", ""));
}

#[tokio::test(start_paused = true)]
async fn sessions_end_the_login_of_a_user_and_say_whether_the_store_knows() {
    let shop = Shop::new(Operator::never());
    let sessions = shop.site.layer.sessions().unwrap();
    let mut phone = shop.device(None);
    assert!(sessions.end("17").await.is_ok(), "there is no login");
    phone.login("17", "old").await;
    assert!(sessions.end("18").await.is_ok());
    assert_eq!(phone.look().await, expect("active(old)", ""));
    shop.store.fault(Fault::ReadOnly);
    assert!(sessions.end("17").await.is_err());
    shop.store.fault(Fault::None);
    assert_eq!(phone.look().await, expect("absent", ""));
    assert!(sessions.end("17").await.is_ok());
    let mut elsewhere = shop.device_elsewhere(Some("17"), Operator::never());
    assert_eq!(elsewhere.look().await, expect("absent", ""));
}

#[tokio::test(start_paused = true)]
async fn end_that_is_dropped_while_the_store_is_slow_is_owed_in_every_scope() {
    let mut shop = Shop::new(Operator::never().of_scope(Scope::Euid));
    let other = Operator::never().of_scope(Scope::Uid2);
    shop.site = shop.site.configured(|layer| layer.scope(other, |_| Some(scope())).unwrap());
    let sessions = shop.site.layer.sessions().unwrap();
    let (mut phone, mut laptop) = (shop.device(None), shop.device_elsewhere(Some("17"), Operator::never()));
    phone.login("17", "old").await;
    shop.store.fault(Fault::Hangs);
    assert!(tokio::time::timeout(Duration::from_millis(10), sessions.end("17")).await.is_err(), "dropped");
    shop.store.fault(Fault::None);
    assert_eq!(phone.look().await, expect("absent", ""), "this node knows");
    assert_eq!(laptop.look().await, expect("active(old)", ""), "another does not, yet");
    let reads = shop.store.calls().0;
    tokio::time::sleep(Duration::from_millis(1001)).await;
    assert_eq!(shop.store.calls().0 - reads, 2, "each scope is read for its end");
    assert_eq!(laptop.look().await, expect("absent", ""));
}

#[tokio::test(start_paused = true)]
async fn opt_out_that_a_refresh_cannot_put_over_a_newer_pair_is_owed() {
    let shop = Shop::new(Operator::answering(Ok(Refreshed::OptedOut)).after(Duration::from_millis(60)));
    let (mut phone, mut laptop) =
        (shop.device(None), shop.device_elsewhere(Some("17"), Operator::answering(new_pair("new"))));
    phone.login("17", "old").await;
    shop.site.wait_until(DUE);
    let page = tokio::spawn(async move { phone.look().await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    // The lease ends before the operator answers, and another node refreshes.
    shop.site.wait_until(DUE + 12_000);
    assert_eq!(laptop.look().await, expect("active(new)", ""));
    // The store refuses the opt-out, and fails when its record is read again.
    shop.store.delay(Duration::from_millis(20));
    tokio::time::sleep(Duration::from_millis(60)).await;
    shop.store.fault(Fault::Down);
    assert_eq!(page.await.unwrap(), expect("opted_out", "opt-out set"));
    shop.store.fault(Fault::None);
    shop.store.delay(Duration::ZERO);
    let never = || shop.device_elsewhere(Some("17"), Operator::never());
    assert_eq!(never().look().await, expect("active(new)", ""));
    tokio::time::sleep(Duration::from_millis(1001)).await;
    assert_eq!(never().look().await, expect("opted_out", "opt-out set"));
}

/// A shop whose user 17 is logged in, and whose store has lost the keys of 100 others, whose logins end.
#[expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
async fn shop_that_owes_a_hundred_ends() -> (Shop, Device) {
    let shop = Shop::new(Operator::never());
    let mut phone = shop.device(None);
    phone.login("17", "old").await;
    shop.store.fault(Fault::LosesKey);
    let sessions = shop.site.layer.sessions().unwrap();
    for user in 100..200 {
        assert!(sessions.end(user.to_string()).await.is_err());
    }
    shop.store.fault(Fault::None);
    (shop, phone)
}

#[tokio::test(start_paused = true)]
async fn owed_ends_that_always_fail_do_not_keep_another_from_its_turn() {
    let (shop, _) = shop_that_owes_a_hundred_ends().await;
    shop.store.fault(Fault::Down);
    assert!(shop.site.layer.sessions().unwrap().end("17").await.is_err());
    shop.store.fault(Fault::None);
    // Three fail each second.
    tokio::time::sleep(Duration::from_secs(35)).await;
    let mut laptop = shop.device_elsewhere(Some("17"), Operator::never());
    assert_eq!(laptop.look().await, expect("absent", ""));
}

#[tokio::test(start_paused = true)]
async fn owed_ends_that_fail_keep_no_page_from_the_store() {
    let (_shop, mut phone) = shop_that_owes_a_hundred_ends().await;
    assert_eq!(phone.look().await, expect("active(old)", ""));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(phone.look().await, expect("active(old)", ""));
}

#[tokio::test(start_paused = true)]
async fn ends_that_cannot_be_kept_are_logged_once_a_minute() {
    let log = Log::default();
    let _guard = log.start();
    let shop = Shop::new(Operator::never());
    shop.store.fault(Fault::Down);
    let sessions = shop.site.layer.sessions().unwrap();
    let logged_after = async |users: std::ops::Range<u32>| {
        log.take();
        for user in users {
            assert!(sessions.end(user.to_string()).await.is_err());
        }
        log.take().into_iter().filter(|line| line.contains("too many such ends")).collect::<Vec<_>>()
    };
    assert!(logged_after(0..10_000).await.is_empty());
    let lines = logged_after(10_000..10_005).await;
    assert!(lines.len() == 1 && lines[0].contains("left_out=0"), "{lines:?}");
    shop.site.wait_until(60_000);
    let lines = logged_after(10_005..10_007).await;
    assert!(lines.len() == 1 && lines[0].contains("left_out=4"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn store_that_is_down_shows_no_token_and_ends_nothing() {
    let shop = Shop::new(Operator::never());
    let mut phone = shop.device(None);
    phone.login("17", "old").await;
    shop.store.fault(Fault::Hangs);
    assert_eq!(phone.look().await, expect("unavailable", ""));
    shop.store.fault(Fault::None);
    assert_eq!(phone.look().await, expect("active(old)", ""));
}

#[tokio::test]
async fn app_has_no_state_either_and_removes_an_old_opt_out() {
    let shop = Shop::new(Operator::never());
    let site = shop.site.clone().configured(|layer| layer.headers(HeaderConfig::default()));
    let mut keeper = Keeper::default();
    let request = |keeper: &Keeper| {
        let mut request = keeper.request();
        request.extensions_mut().insert(User("17"));
        request
    };
    let pair = identity_until("old", [DUE, 20 * DUE, 9_000_000_000]);
    for (update, writes) in
        [(EuidUpdate::login(pair).subject("17"), ""), (EuidUpdate::opt_out().subject("17"), "opt-out set")]
    {
        let visit = site.send(request(&keeper), move |_, response| update.clone().attach(response)).await;
        assert_eq!(header_writes(visit.response.headers()), writes);
        keeper.apply(visit.response.headers());
    }
    let look = async |keeper: &mut Keeper| {
        let visit = site.send(request(keeper), |_, _| ()).await;
        keeper.apply(visit.response.headers());
        (visit.saw(), header_writes(visit.response.headers()))
    };
    assert_eq!(look(&mut keeper).await, expect("opted_out", ""));
    site.wait_until(5 * 86_400_000);
    assert_eq!(look(&mut keeper).await, expect("absent", "opt-out cleared"));
}

#[tokio::test]
async fn opt_out_without_a_subject_ends_the_login_of_who_is_signed_in() {
    let shop = Shop::new(Operator::never());
    let (mut phone, mut laptop) = (shop.device(None), shop.device_elsewhere(Some("17"), Operator::never()));
    phone.login("17", "old").await;
    assert_eq!(phone.update(EuidUpdate::opt_out()).await, expect("active(old)", ""));
    assert_eq!(laptop.look().await, expect("absent", ""));
}

#[tokio::test]
async fn record_that_a_node_cannot_read_keeps_no_user_from_logging_in() {
    let shop = Shop::new(Operator::never());
    let mut phone = shop.device(None);
    phone.login("17", "old").await;
    let site = Site::with_keys(ring(), Operator::never()).with_subject();
    let site = site.configured(|layer| layer.store_by_subject(shop.store.clone(), shop.secret.clone()));
    let mut after_a_leak = Device { site, user: Some("17") };
    assert_eq!(after_a_leak.look().await, expect("absent", ""));
    after_a_leak.login("17", "new").await;
    assert_eq!(after_a_leak.look().await, expect("active(new)", ""));
}

#[tokio::test]
async fn logout_removes_what_was_sealed_before_the_store() {
    let shop = Shop::new(Operator::never());
    let before = Site::with_keys(shop.keys.clone(), Operator::never()).logged_in(0).await;
    let mut phone = shop.device(Some("17"));
    phone.site.jar = before.jar;
    assert_eq!(phone.look().await, expect("absent", ""));
    assert_eq!(phone.update(EuidUpdate::logout()).await, expect("absent", LOGIN_REMOVED));
}

/// Whether a page runs at all is not the store's business.
#[tokio::test]
async fn page_without_a_user_asks_the_store_nothing() {
    let shop = Shop::new(Operator::never());
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    shop.device(None).visit(move |_, _| seen.store(true, Ordering::SeqCst)).await;
    assert!(ran.load(Ordering::SeqCst));
    assert_eq!(shop.store.calls(), (0, 0));
}

#[tokio::test]
async fn store_by_user_without_the_hook_subject_is_warned_of_once() {
    let log = Log::default();
    let _guard = log.start();
    let site = Site::with_keys(ring(), Operator::never());
    let store = TestStore::new(&site.clock);
    let by_user = site.configured(|layer| layer.store_by_subject(store, store_secret()));
    let warnings =
        |lines: Vec<String>| lines.iter().filter(|line| line.contains("the store is by user, and the hook")).count();
    for _ in 0..2 {
        let _ = by_user.layer.layer(());
    }
    assert_eq!(warnings(log.take()), 1);
    let _ = by_user.with_subject().layer.layer(());
    assert_eq!(warnings(log.take()), 0);
}

#[tokio::test]
async fn logout_without_a_user_and_login_without_a_subject_are_logged() {
    let log = Log::default();
    let _guard = log.start();
    let shop = Shop::new(Operator::never());
    let mut phone = shop.device(None);
    phone.login("17", "old").await;
    phone.user = None;
    log.take();
    phone.update(EuidUpdate::logout()).await;
    let lines = log.take();
    assert!(
        lines.iter().any(|line| line.starts_with("DEBUG") && line.contains("found no signed-in user")),
        "{lines:?}"
    );
    phone.update(EuidUpdate::login(identity("new"))).await;
    let lines = log.take();
    assert!(lines.iter().any(|line| line.contains("reason=\"no_subject\"")), "{lines:?}");
    // A user whose login has ended already is one, too.
    phone.user = Some("17");
    for _ in 0..2 {
        phone.update(EuidUpdate::logout()).await;
        let lines = log.take();
        assert!(!lines.iter().any(|line| line.contains("found no signed-in user")), "{lines:?}");
    }
}
