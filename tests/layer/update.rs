//! Login, logout, opt-out: what handlers say, and that logout wins.
//!
//! 1. A login replaces whatever was there; a logout ends it, readable or not.
//! 2. An answer that comes after the logout brings nobody back; one that comes after another login
//!    shows nobody the wrong token.
//! 3. Of two layers, one inside the other, only the outer one works.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::{Euid, EuidUpdate, Refreshed};

use crate::support::{
    ANCHOR, BOTH_CLEARED, BOTH_SET, DUE, EXPIRED, IDENTITY, Jar, Log, Operator, Seen, Site, identity, identity_until,
    new_pair, page, ring, set_cookies, writes,
};

const OPTED_OUT: &str = "identity cleared, anchor opted out";

async fn logged_in(name: &str) -> Site {
    let mut site = Site::offline();
    site.login(name).await;
    site
}

#[tokio::test]
async fn a_login_sets_both_cookies() {
    assert_eq!(Site::offline().login("one").await.writes(), BOTH_SET);
}

#[tokio::test]
async fn the_page_after_a_login_sees_its_token() {
    let mut site = logged_in("one").await;
    assert_eq!(site.look().await.saw(), "active(one)");
}

#[tokio::test]
async fn the_login_of_another_person_replaces_the_first() {
    let mut site = logged_in("one").await;
    let visit = site.login("another").await;
    assert_eq!((visit.saw(), visit.writes()), ("active(one)".into(), BOTH_SET.into()));
    assert_eq!(site.look().await.saw(), "active(another)");
}

#[tokio::test]
async fn a_login_during_a_due_refresh_writes_the_login() {
    let mut site = Site::new(Operator::answering(new_pair("new")));
    site.login("one").await;
    site.wait_until(DUE);
    let visit = site.update(EuidUpdate::login(identity_until("another", [DUE + 1, EXPIRED, EXPIRED]))).await;
    assert_eq!((visit.saw(), visit.writes()), ("active(new)".into(), BOTH_SET.into()));
    assert_eq!(site.look().await.saw(), "active(another)");
}

#[tokio::test]
async fn a_logout_clears_both_whatever_came() {
    let site = logged_in("one").await;
    let foreign = logged_in("foreign").await.jar;
    let readable = site.jar.clone();
    let jars = [
        ("nothing", Jar::default()),
        ("readable", readable.clone()),
        ("identity only", readable.clone().without(ANCHOR)),
        ("anchor only", readable.clone().without(IDENTITY)),
        ("garbage", Jar::default().with(IDENTITY, "garbage").with(ANCHOR, "garbage")),
        ("unknown key", foreign),
    ];
    for (what, jar) in jars {
        let visit = site.send(jar.request(), |_, response| EuidUpdate::logout().attach(response)).await;
        assert_eq!(visit.writes(), BOTH_CLEARED, "{what}");
    }
}

#[tokio::test]
async fn a_logout_beats_what_its_own_refresh_says() {
    for answer in [new_pair("new"), Ok(Refreshed::OptedOut)] {
        let mut site = Site::new(Operator::answering(answer));
        site.login("one").await;
        site.wait_until(DUE);
        assert_eq!(site.update(EuidUpdate::logout()).await.writes(), BOTH_CLEARED);
    }
}

#[tokio::test]
async fn an_opt_out_clears_the_identity_and_is_seen_afterwards() {
    let mut site = logged_in("one").await;
    assert_eq!(site.update(EuidUpdate::opt_out()).await.writes(), OPTED_OUT);
    assert_eq!(site.look().await.saw(), "opted_out");
}

#[tokio::test]
async fn a_login_ends_a_remembered_opt_out() {
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    site.login("one").await;
    assert_eq!(site.look().await.saw(), "active(one)");
}

#[tokio::test]
async fn a_logout_ends_a_remembered_opt_out() {
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    site.update(EuidUpdate::logout()).await;
    assert_eq!(site.look().await.saw(), "absent");
}

#[cfg(feature = "client")]
#[tokio::test]
async fn whatever_generate_says_ends_the_identity_that_was_there() {
    use tower_euid::Generated;

    for (generated, writes, then) in [
        (Generated::Identity(identity("another")), BOTH_SET, "active(another)"),
        (Generated::OptedOut, OPTED_OUT, "opted_out"),
        (Generated::InsufficientConsent, BOTH_CLEARED, "absent"),
    ] {
        let mut site = logged_in("one").await;
        assert_eq!(site.update(generated.into()).await.writes(), writes);
        assert_eq!(site.look().await.saw(), then);
    }
}

#[tokio::test]
async fn of_two_updates_the_stronger_one_wins_in_either_order() {
    let (login, opt_out, logout) = (EuidUpdate::login(identity("one")), EuidUpdate::opt_out(), EuidUpdate::logout());
    for (weaker, stronger, expected) in
        [(&login, &logout, BOTH_CLEARED), (&opt_out, &logout, BOTH_CLEARED), (&login, &opt_out, OPTED_OUT)]
    {
        for updates in [[weaker.clone(), stronger.clone()], [stronger.clone(), weaker.clone()]] {
            let handler = move |_: &Euid, response: &mut Response<()>| {
                updates.iter().cloned().for_each(|update| update.attach(response));
            };
            assert_eq!(Site::offline().visit(handler).await.writes(), expected);
        }
    }
}

#[tokio::test]
async fn of_two_logins_on_one_response_the_later_counts() {
    let mut site = Site::offline();
    site.visit(|_, response| {
        EuidUpdate::login(identity("first")).attach(response);
        EuidUpdate::login(identity("second")).attach(response);
    })
    .await;
    assert_eq!(site.look().await.saw(), "active(second)");
}

/// A page whose slow refresh ends after another response has come; both are applied to the jar in
/// that order.
async fn late_refresh(update: EuidUpdate) -> Site {
    let slow = Operator::answering(new_pair("late")).after(Duration::from_millis(200));
    let mut site = Site::new(slow);
    site.login("one").await;
    site.wait_until(DUE);
    // The other response is of a page that had no identity to refresh: it comes first.
    let anchor_only = site.jar.clone().without(IDENTITY);
    let (late, update) = tokio::join!(
        site.send(site.jar.request(), |_, _| ()),
        site.send(anchor_only.request(), move |_, response| update.clone().attach(response)),
    );
    assert_eq!((late.saw(), late.writes()), ("active(late)".into(), "identity set".into()));
    site.jar.apply(update.response.headers());
    site.jar.apply(late.response.headers());
    site
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_ends_after_the_logout_brings_nobody_back() {
    let mut site = late_refresh(EuidUpdate::logout()).await;
    assert!(site.jar.value(IDENTITY).is_some(), "the browser took it");
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), ("absent".into(), "identity cleared".into()));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_ends_after_the_opt_out_brings_nobody_back() {
    let mut site = late_refresh(EuidUpdate::opt_out()).await;
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), ("opted_out".into(), "identity cleared".into()));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_ends_after_anothers_login_shows_nobody_the_wrong_token() {
    let other = identity_until("other", [EXPIRED, 2 * EXPIRED, 3 * EXPIRED]);
    let mut site = late_refresh(EuidUpdate::login(other)).await;
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), ("absent".into(), "identity cleared".into()));
}

#[tokio::test]
async fn an_identity_from_before_the_logout_put_back_by_hand_is_not_usable() {
    let mut site = logged_in("one").await;
    let before = site.jar.clone();
    site.update(EuidUpdate::logout()).await;
    site.jar.put(IDENTITY, before.value(IDENTITY).unwrap());
    assert_eq!(site.look().await.saw(), "absent");
}

#[tokio::test]
async fn an_identity_from_before_the_logout_is_not_usable_after_the_next_login_either() {
    let mut site = logged_in("one").await;
    let before = site.jar.clone();
    site.update(EuidUpdate::logout()).await;
    site.login("one").await;
    site.jar.put(IDENTITY, before.value(IDENTITY).unwrap());
    assert_eq!(site.look().await.saw(), "absent");
}

#[tokio::test]
async fn clear_site_data_for_cookies_is_a_logout() {
    for (value, expected) in [
        ("\"cookies\"", BOTH_CLEARED),
        ("\"*\"", BOTH_CLEARED),
        ("\"cache\", \"cookies\"", BOTH_CLEARED),
        ("\"cache\",\"cookies\",\"storage\"", BOTH_CLEARED),
        ("\"storage\"", ""),
        ("\"cache\"", ""),
        ("cookies", ""),
    ] {
        let mut site = logged_in("one").await;
        let header = HeaderValue::from_static(value);
        let visit = site
            .visit(move |_, response| {
                response.headers_mut().insert("clear-site-data", header.clone());
            })
            .await;
        assert_eq!(visit.writes(), expected, "{value}");
    }
}

#[tokio::test]
async fn clear_site_data_beats_a_login() {
    let mut site = Site::offline();
    let visit = site.visit(|_, response| {
        response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cookies\""));
        EuidUpdate::login(identity("one")).attach(response);
    });
    assert_eq!(visit.await.writes(), BOTH_CLEARED);
}

#[tokio::test]
async fn a_response_that_logout_when_names_is_a_logout() {
    for (ended, expected) in [(true, BOTH_CLEARED), (false, "")] {
        let mut site = logged_in("one")
            .await
            .configured(|layer| layer.logout_when(|response| response.headers.contains_key("x-session-ended")));
        let visit = site.visit(move |_, response| {
            if ended {
                response.headers_mut().insert("x-session-ended", HeaderValue::from_static("1"));
            }
        });
        assert_eq!(visit.await.writes(), expected);
    }
}

#[tokio::test]
async fn a_login_too_large_for_a_cookie_ends_the_old_one() {
    let mut site = logged_in("one").await;
    assert_eq!(site.login(&"!".repeat(4000)).await.writes(), BOTH_CLEARED);
}

#[tokio::test]
async fn a_login_that_is_over_already_ends_the_old_one() {
    let mut site = logged_in("one").await;
    let over = EuidUpdate::login(identity_until("over", [-3, -2, -1]));
    assert_eq!(site.update(over).await.writes(), BOTH_CLEARED);
}

#[tokio::test]
async fn a_refreshed_pair_too_large_for_a_cookie_is_shown_and_the_old_one_kept() {
    let large = "!".repeat(4000);
    let mut site = Site::new(Operator::answering(new_pair(&large)));
    site.login("one").await;
    site.wait_until(DUE);
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), (format!("active({large})"), String::new()));
}

#[tokio::test]
async fn the_update_is_taken_out_of_the_response() {
    let mut site = Site::offline();
    for update in [EuidUpdate::login(identity("one")), EuidUpdate::opt_out(), EuidUpdate::logout()] {
        assert!(site.update(update).await.response.extensions().is_empty());
    }
}

/// Two layers, one inside the other, around a page; both operators.
struct Nested {
    outer: Site,
    inner: Site,
    operators: [Operator; 2],
}

/// `same`: two of one layer, as by two `.layer(..)` calls in one application.
async fn nested(same: bool) -> Nested {
    let keys = ring();
    let operators = [Operator::answering(new_pair("new")), Operator::answering(new_pair("inner"))];
    let mut outer = Site::with_keys(keys.clone(), operators[0].clone());
    outer.login("one").await;
    outer.wait_until(DUE);
    let inner = if same { outer.clone() } else { Site::with_keys(keys, operators[1].clone()) };
    inner.wait_until(DUE);
    Nested { outer, inner, operators }
}

#[tokio::test]
async fn of_two_layers_only_the_outer_one_works() {
    for same in [true, false] {
        let Nested { outer, inner, operators } = nested(same).await;
        let seen = Seen::default();
        let service = outer.layer.layer(inner.layer.layer(page(Arc::clone(&seen), |_, _| ())));
        let Ok(response) = service.oneshot(outer.jar.request()).await;
        let (euid, _) = seen.lock().unwrap().clone();
        assert_eq!(euid.unwrap().advertising_token().unwrap().as_str(), "new");
        assert_eq!(writes(response.headers()), "identity set");
        assert_eq!(operators.map(|operator| operator.calls()), [1, 0]);
    }
}

#[tokio::test]
async fn an_update_attached_inside_both_layers_reaches_the_outer_one() {
    for same in [true, false] {
        let Nested { outer, inner, .. } = nested(same).await;
        for (update, expected) in [
            (EuidUpdate::login(identity_until("x", [EXPIRED; 3])), BOTH_SET),
            (EuidUpdate::logout(), BOTH_CLEARED),
            (EuidUpdate::opt_out(), OPTED_OUT),
        ] {
            let handler = move |_: &Euid, response: &mut Response<()>| update.clone().attach(response);
            let service = outer.layer.layer(inner.layer.layer(page(Seen::default(), handler)));
            let Ok(response) = service.oneshot(outer.jar.request()).await;
            assert_eq!(writes(response.headers()), expected);
        }
    }
}

#[tokio::test]
async fn an_update_attached_between_two_layers_counts_with_the_one_inside() {
    let Nested { outer, inner, .. } = nested(true).await;
    let page = page(Seen::default(), |_, response| EuidUpdate::logout().attach(response));
    let between = inner.layer.layer(page).map_response(|mut response: Response<()>| {
        EuidUpdate::login(identity("x")).attach(&mut response);
        response
    });
    let Ok(response) = outer.layer.layer(between).oneshot(outer.jar.request()).await;
    assert_eq!(writes(response.headers()), BOTH_CLEARED);
}

#[tokio::test]
async fn an_update_that_reaches_no_layer_is_warned_about_and_no_other() {
    let log = Log::default();
    let _logging = log.start();
    let said = |updates: &[fn() -> EuidUpdate]| {
        let mut response = Response::new(());
        updates.iter().for_each(|update| update().attach(&mut response));
        response
    };
    drop(said(&[EuidUpdate::logout, EuidUpdate::opt_out]));
    assert_eq!(log.take(), ["WARN tower_euid: an EuidUpdate was lost: its response did not reach an EuidLayer"]);

    drop(EuidUpdate::logout());
    let mut site = Site::offline();
    site.visit(move |_, response| *response = said(&[EuidUpdate::logout])).await;
    site.visit(move |_, response| *response = said(&[EuidUpdate::opt_out, EuidUpdate::logout, EuidUpdate::opt_out]))
        .await;
    site.login("x").await;
    assert_eq!(log.take(), [""; 0]);
}

const REPLAYED: &str = "WARN tower_euid: an EuidUpdate arrived a second time: a cache inside the EuidLayer replays \
                        responses, or a handler attaches clones of one update";

/// The cookies that browsers without cookies get, one after the other, from a cache inside the layer that replays the
/// first response.
async fn replayed(update: EuidUpdate) -> Vec<String> {
    let mut stored = Response::new(());
    update.attach(&mut stored);
    let mut told = Vec::new();
    for _ in 0..3 {
        let cache = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(stored.clone())));
        let Ok(response) = Site::offline().layer.layer(cache).oneshot(Request::new(())).await;
        told.push(writes(response.headers()));
    }
    told
}

#[tokio::test]
async fn replayed_login_logs_no_stranger_in_and_is_warned_of_once() {
    let log = Log::default();
    let _logging = log.start();
    assert_eq!(replayed(EuidUpdate::login(identity("x"))).await, [BOTH_SET, "", ""]);
    assert_eq!(log.take(), [REPLAYED]);
}

#[tokio::test]
async fn replayed_logout_and_opt_out_are_obeyed_and_warned_of_once() {
    for (update, writes) in [(EuidUpdate::logout(), BOTH_CLEARED), (EuidUpdate::opt_out(), OPTED_OUT)] {
        let log = Log::default();
        let _logging = log.start();
        assert_eq!(replayed(update).await, [writes; 3]);
        assert_eq!(log.take(), [REPLAYED]);
    }
}

#[tokio::test]
async fn replayed_login_that_a_handler_binds_anew_is_an_update_of_its_own() {
    let update = EuidUpdate::login(identity("x"));
    for _ in 0..2 {
        let visit = Site::offline().update(update.clone().subject("ann")).await;
        assert_eq!(visit.writes(), BOTH_SET);
    }
}

/// A response with as many headers as a map takes.
fn full() -> Response<()> {
    let mut response = Response::new(());
    for number in 0.. {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        if response.headers_mut().try_append(name, HeaderValue::from_static("x")).is_err() {
            break;
        }
    }
    response
}

#[tokio::test]
async fn response_with_a_full_header_map_passes_as_it_is_and_an_event_says_so() {
    let full = full();
    let names = full.headers().keys_len();
    let unwritten = "WARN tower_euid: a response could not write its cookies reason=\"headers_full\"";
    let updates: [fn() -> EuidUpdate; 3] =
        [|| EuidUpdate::login(identity("x")), EuidUpdate::logout, EuidUpdate::opt_out];
    for update in updates {
        let mut site = logged_in("one").await;
        let log = Log::default();
        let _logging = log.start();
        let full = full.clone();
        let handler = move |_: &Euid, response: &mut Response<()>| {
            *response = full.clone();
            update().attach(response);
        };
        let visit = site.visit(handler).await;
        assert_eq!((visit.writes(), visit.response.headers().keys_len()), (String::new(), names));
        assert_eq!(log.take(), [unwritten]);
    }
}

#[tokio::test]
async fn full_header_map_of_a_page_that_read_the_token_is_made_private_if_it_says_anything_of_caches() {
    let mut site = logged_in("one").await;
    let (log, mut full) = (Log::default(), full());
    let _logging = log.start();
    let read = |full: Response<()>| {
        move |euid: &Euid, response: &mut Response<()>| {
            drop(euid.advertising_token().unwrap().to_string());
            *response = full.clone();
        }
    };
    let unguarded = "WARN tower_euid: a response has too many headers: caches may store it";
    site.visit(read(full.clone())).await;
    assert_eq!(log.take(), [unguarded]);
    full.headers_mut().remove("x-0");
    full.headers_mut().insert("cache-control", HeaderValue::from_static("public"));
    let visit = site.visit(read(full)).await;
    assert_eq!(visit.header("cache-control"), Some("private, no-cache"));
    assert_eq!(log.take(), [unguarded], "there is no room for `Vary`");
}

#[tokio::test]
async fn a_page_without_cookies_and_without_updates_is_told_nothing() {
    let visit = Site::offline().look().await;
    assert!(set_cookies(visit.response.headers()).is_empty() && visit.response.headers().is_empty());
}

#[tokio::test]
async fn the_page_is_called_once_however_it_goes() {
    for millis in [0, DUE, EXPIRED] {
        let mut site = Site::new(Operator::answering(new_pair("new")));
        site.login("one").await;
        site.wait_until(millis);
        let calls = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&calls);
        let page = service_fn(move |_: Request<()>| {
            counts.fetch_add(1, Ordering::SeqCst);
            ready(Ok::<_, Infallible>(Response::new(())))
        });
        let Ok(_) = site.layer.layer(page).oneshot(site.jar.request()).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{millis}");
    }
}
