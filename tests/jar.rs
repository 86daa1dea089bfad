//! What browsers make of our cookies: whatever happens in whatever order, nobody sees a login that is
//! over.
//!
//! 1. A model plays logins, logouts, refreshes, opt-outs, changes of user and of consent, nodes whose
//!    keys rotate, evictions and time against the real layer, and lets every answer reach the browser
//!    at any later moment, or never.
//! 2. With the comparison of anchor and identity made useless, the same model fails; so it does for
//!    pages that generate again without [`subject`](tower_euid::EuidLayer::subject).
//! 3. The jar itself keeps the rules of RFC 6265bis.
//!
//! `PROPTEST_CASES=100000 cargo test --release --test jar -- --nocapture` plays that many cases of either
//! setup that must hold, and prints what happened in them; `PROPTEST_RNG_SEED` picks others.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a model that breaks down fails its test"
)]

#[path = "jar/model.rs"]
mod model;
mod support;

use std::cell::RefCell;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::{Model, Setup, Step, Tally, steps};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use support::jar::{HOME, Place, Refused};
use support::{Jar, Site, at};
use tower_euid::{CookieConfig, EuidUpdate};

/// Plays cases, the same every time unless told otherwise: what happened in them, or the first that
/// failed, made as short as it gets, and how it fails.
fn play(setup: Setup) -> Result<Tally, (Vec<Step>, String)> {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    if config.rng_seed == RngSeed::Random || !setup.must_hold() {
        config.rng_seed = RngSeed::Fixed(6265);
    }
    if !setup.must_hold() {
        config.cases = 10_000;
    }
    let tally = RefCell::default();
    match TestRunner::new(config).run(&steps(), |steps| Model::play(&steps, setup, &tally)) {
        Ok(()) => Ok(tally.into_inner()),
        Err(TestError::Fail(_, steps)) => Err(Model::shortest(steps, setup)),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[track_caller]
fn holds(setup: Setup) {
    let tally = play(setup).unwrap_or_else(|(steps, why)| panic!("{why}\n{steps:#?}"));
    println!("{setup:?}\n{tally}");
    let missed: Vec<_> = MET.iter().filter(|what| tally.of(what) == 0).collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
}

/// What a run is worth nothing without.
const MET: [&str; 22] = [
    "applied late: asked before what counts was told",
    "applied: change of user",
    "applied: Clear-Site-Data",
    "applied: login",
    "applied: login by generating again",
    "applied: logout",
    "applied: opt-out found by a refresh",
    "applied: opt-out stated at a login",
    "applied: withdrawal",
    "evictions",
    "lost pair, by a late refresh",
    "lost pair: healed by generating again",
    "requests whose identity the node can't open",
    "requests with two anchors",
    "seen: absent",
    "seen: absent, for a pair lost to a late answer",
    "seen: active",
    "seen: opted out",
    "seen: unavailable",
    "seen: withheld",
    "steps of a key rotation, by deploy",
    "steps of a key rotation, by reload",
];

#[test]
fn nobody_sees_what_is_over_where_identities_are_bound() {
    holds(Setup::Bound);
}

#[test]
fn nobody_sees_what_is_over_where_every_change_is_told() {
    holds(Setup::Unbound);
}

#[test]
fn with_the_comparison_made_useless_a_late_answer_brings_an_ended_login_back() {
    let (steps, why) = play(Setup::Uncompared).unwrap_err();
    println!("{why}\n{steps:#?}");
    assert!(why.contains("is seen while"), "{why}");
    assert!(steps.len() <= 6, "{steps:#?}");
}

#[test]
fn a_page_that_generates_again_unbound_can_give_the_next_user_the_last_ones_login() {
    let (steps, why) = play(Setup::Careless).unwrap_err();
    println!("{why}\n{steps:#?}");
    assert!(why.contains("is seen while"), "{why}");
    assert!(steps.len() <= 6, "{steps:#?}");
}

/// What became of one line from `place`: why it was refused, or all that is sent there afterwards.
fn stored(place: Place<'_>, line: &str) -> Result<Option<String>, Refused> {
    let mut jar = Jar::default();
    match jar.apply_from(place, &answer([line])).first() {
        Some(refused) => Err(*refused),
        None => Ok(jar.cookies_for(place)),
    }
}

fn answer<const N: usize>(lines: [&str; N]) -> HeaderMap {
    lines.into_iter().map(|line| (SET_COOKIE, HeaderValue::from_str(line).unwrap())).collect()
}

const PLAIN: Place<'_> = Place { https: false, ..HOME };
const SHOP: Place<'_> = Place { host: "shop.publisher.example", ..HOME };

#[test]
fn a_host_cookie_is_secure_and_of_the_root_path_and_has_no_domain_or_is_not_stored() {
    assert_eq!(stored(HOME, "__Host-a=1; Secure; Path=/"), Ok(Some("__Host-a=1".into())));
    for attributes in ["Secure", "Path=/", "Secure; Path=/a", "Secure; Path=/; Domain=publisher.example"] {
        for name in ["__Host-a=1", "__hoST-a=1", "__Host-=1", "__Host-a", "=__Host-a"] {
            assert_eq!(stored(HOME, &format!("{name}; {attributes}")), Err(Refused::Prefix), "{name}; {attributes}");
        }
    }
}

#[test]
fn a_cookie_with_the_secure_prefix_is_secure_or_is_not_stored() {
    assert_eq!(stored(HOME, "__Secure-a=1; Secure; Domain=publisher.example").map(|sent| sent.is_some()), Ok(true));
    assert_eq!(stored(HOME, "__Secure-a=1; Path=/"), Err(Refused::Prefix));
    assert_eq!(stored(HOME, "__SECURE-a=1; Path=/"), Err(Refused::Prefix));
}

#[test]
fn a_cookie_of_more_than_4096_bytes_is_not_stored() {
    let fits = format!("name={}", "v".repeat(4092));
    assert_eq!(stored(HOME, &fits), Ok(Some(fits.clone())));
    assert_eq!(stored(HOME, &format!("{fits}v; Path=/")), Err(Refused::TooLarge));
}

#[test]
fn what_is_no_cookie_is_not_stored() {
    for (line, refused) in [("", Refused::Empty), ("; Secure", Refused::Empty), ("=", Refused::Empty)] {
        assert_eq!(stored(HOME, line), Err(refused), "{line}");
    }
    assert_eq!(stored(HOME, " a \t=\t b=c ;x"), Ok(Some("a=b=c".into())));
}

#[test]
fn max_age_ends_a_cookie_on_the_clock_of_the_jar() {
    for (max_age, lasts) in [("60", 60), ("9".repeat(30).as_str(), 400 * 86_400), ("0", 0), ("-5", 0)] {
        let mut jar = Jar::default();
        jar.apply(&answer([&format!("a=1; max-age={max_age}")]));
        for (seconds, kept) in [(lasts - 1, lasts > 0), (lasts, false)] {
            jar.wait_until(at(seconds * 1000));
            assert_eq!(jar.value("a").is_some(), kept, "{max_age} after {seconds} s");
        }
    }
    for no_number in ["", "x", "1x", "+1", "-"] {
        let kept = stored(HOME, &format!("a=1; Max-Age={no_number}"));
        assert_eq!(kept, Ok(Some("a=1".into())), "{no_number}: it ends with the session");
    }
}

#[test]
fn a_cookie_is_replaced_or_removed_by_its_twin_alone() {
    let mut jar = Jar::default();
    jar.apply(&answer(["a=1; Path=/", "b=1; Path=/", "a=2; Path=/; Domain=publisher.example", "a=3; Path=/x"]));
    jar.apply(&answer(["a=4; Path=/"]));
    let place = Place { path: "/x/y", ..HOME };
    assert_eq!(jar.cookies_for(place).unwrap(), "a=3; a=4; b=1; a=2");
    for (line, left) in [
        ("a=; Path=/; Max-Age=0", "a=3; b=1; a=2"),
        ("a=; Path=/; Domain=.Publisher.Example; Max-Age=0", "a=3; b=1"),
        ("a=; Path=/y; Max-Age=0", "a=3; b=1"),
        ("a=; Path=/x; Max-Age=0", "b=1"),
    ] {
        jar.apply(&answer([line]));
        assert_eq!(jar.cookies_for(place).unwrap(), left, "{line}");
    }
}

#[test]
fn a_cookie_goes_to_its_own_host_or_with_a_domain_to_all_below() {
    let mut jar = Jar::default();
    jar.apply(&answer(["host=1", "domain=1; Domain=publisher.example"]));
    assert_eq!(jar.cookies_for(HOME).unwrap(), "host=1; domain=1");
    assert_eq!(jar.cookies_for(SHOP).unwrap(), "domain=1");
    assert_eq!(jar.cookies_for(Place { host: "notpublisher.example", ..HOME }), None);
    for foreign in ["shop.publisher.example", "example", "other.example", "lisher.example"] {
        assert_eq!(stored(HOME, &format!("a=1; Domain={foreign}")), Err(Refused::ForeignDomain), "{foreign}");
    }
    assert_eq!(stored(SHOP, "a=1; Domain=publisher.example"), Ok(Some("a=1".into())));
}

#[test]
fn a_cookie_goes_to_its_path_and_below() {
    for (from, said, to, sent) in [
        ("/", "; Path=/a", "/a", true),
        ("/", "; Path=/a", "/a/b", true),
        ("/", "; Path=/a/", "/a/b", true),
        ("/", "; Path=/a", "/ab", false),
        ("/a/b", "", "/a/c", true),
        ("/a/b", "", "/c", false),
        ("/a/b", "; Path=relative", "/a", true),
        ("/a", "", "/c", true),
    ] {
        let mut jar = Jar::default();
        assert!(jar.apply_from(Place { path: from, ..HOME }, &answer([&format!("n=1{said}")])).is_empty());
        assert_eq!(jar.cookies_for(Place { path: to, ..HOME }).is_some(), sent, "{from} {said} {to}");
    }
}

#[test]
fn a_cookie_for_the_frames_of_other_sites_is_secure_or_is_not_stored() {
    for attribute in ["SameSite=None", "samesite=none", "Partitioned"] {
        assert_eq!(stored(HOME, &format!("a=1; {attribute}")), Err(Refused::Insecure), "{attribute}");
        assert_eq!(stored(HOME, &format!("a=1; {attribute}; Secure")), Ok(Some("a=1".into())), "{attribute}");
    }
    assert_eq!(stored(HOME, "a=1; SameSite=Lax"), Ok(Some("a=1".into())));
}

#[test]
fn plain_http_neither_gets_nor_sets_nor_shadows_a_secure_cookie() {
    assert_eq!(stored(PLAIN, "a=1; Secure"), Err(Refused::Insecure));
    assert_eq!(stored(PLAIN, "a=1"), Ok(Some("a=1".into())));
    let mut jar = Jar::default();
    jar.apply(&answer(["a=1; Secure; Path=/"]));
    assert_eq!(jar.cookies_for(PLAIN), None);
    for line in ["a=2", "a=2; Path=/x", "a=2; Domain=publisher.example", "a=; Max-Age=0"] {
        assert_eq!(jar.apply_from(PLAIN, &answer([line])), [Refused::Insecure], "{line}");
    }
    assert_eq!(jar.apply_from(PLAIN, &answer(["b=2"])), []);
    assert_eq!(jar.cookies_for(HOME).unwrap(), "a=1; b=2");
}

#[test]
fn clear_site_data_empties_the_jar_of_the_whole_site() {
    for (value, empties) in
        [("\"cookies\"", true), ("\"cache\", \"*\"", true), ("\"cache\"", false), ("cookies", false)]
    {
        for https in [true, false] {
            let mut jar = Jar::default();
            jar.apply(&answer(["a=1", "b=1; Domain=publisher.example"]));
            let clear = HeaderMap::from_iter([(CLEAR_SITE_DATA, HeaderValue::from_static(value))]);
            assert_eq!(jar.apply_from(Place { https, ..SHOP }, &clear), []);
            assert_eq!(jar.cookies_for(HOME).is_none(), empties && https, "{value}, https: {https}");
        }
    }
}

#[tokio::test]
async fn what_the_layer_sets_for_a_domain_goes_to_the_sub_domain_and_is_removed_from_there() {
    let config = CookieConfig::default().domain("publisher.example").unwrap();
    let mut site = Site::asking_nobody().configured(|layer| layer.cookie(config));
    site.login("one").await;
    let names = ["__Secure-euid=", "__Secure-euid-login="];
    let sent = site.jar.cookies_for(SHOP).unwrap();
    assert!(names.iter().all(|name| sent.contains(name)), "{sent}");
    let logout = site.send(site.jar.request(), |_, response| EuidUpdate::logout().attach(response)).await;
    assert_eq!(site.jar.apply_from(SHOP, logout.response.headers()), []);
    assert_eq!(site.jar.cookies_for(HOME), None);
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
