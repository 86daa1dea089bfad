//! Leftovers: cookies of logins that no longer count, which a late response has brought back.
//!
//! 1. The response of a page removes them, unopened, up to eight at once. That of an image or a prefetch does not.
//! 2. An anchor that can't be read, or two that differ, remove nothing: any of the cookies may be of the login that
//!    counts.
//! 3. A name whose tag is not one of the layer is neither read nor removed.

use http::{HeaderValue, Request};
use tower_euid::{Consent, EuidUpdate, Refreshed};

use crate::support::{
    ANCHOR, DUE, IDENTITY, Jar, LOGIN_REMOVED, LOGIN_REPLACED, LOGIN_WRITTEN, MIGRATED, NOTHING, OPT_OUT, Operator,
    Site, expect, identity, new_pair, outcome, set_cookies,
};

/// Returns the browser of another login on the same site.
async fn another_login(site: &Site) -> Jar {
    let mut other = Site { jar: Jar::default(), ..site.clone() };
    other.login("other").await;
    other.jar
}

/// Returns the browser of an opt-out on the same site.
async fn another_opt_out(site: &Site) -> Jar {
    let mut other = Site { jar: Jar::default(), ..site.clone() };
    other.update(EuidUpdate::opt_out()).await;
    other.jar
}

/// Returns a site with a login, and with the identity of another login beside it.
async fn with_leftover(site: Site) -> Site {
    let site = site.logged_in(0).await;
    let jar = site.jar.clone().with_from(&another_login(&site).await, IDENTITY);
    Site { jar, ..site }
}

/// Puts cookies of `count` other logins, which hold garbage, in front of those of the jar.
fn behind_leftovers(jar: &Jar, count: usize) -> Jar {
    let leftovers =
        (0..count).fold(Jar::default(), |jar, number| jar.with(format!("{IDENTITY}{number:04}"), "garbage"));
    jar.names().into_iter().fold(leftovers, |leftovers, name| leftovers.with_from(jar, name))
}

#[tokio::test]
async fn page_removes_a_leftover_and_an_image_or_a_prefetch_does_not() {
    let mut site = with_leftover(Site::offline()).await;
    let own = site.jar.names()[..2].join(" ");
    for header in [("sec-fetch-dest", "image"), ("sec-purpose", "prefetch"), ("next-router-prefetch", "1")] {
        let visit = site.send(site.jar.request_with(&[header]), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(old)", ""), "{header:?}");
        assert!(visit.response.headers().is_empty(), "{header:?}");
    }
    assert_eq!(outcome(&site.look().await), expect("active(old)", "identity cleared"));
    assert_eq!(site.jar.names().join(" "), own);
    assert_eq!(outcome(&site.look().await), expect("active(old)", ""));
}

#[tokio::test]
async fn response_that_removes_a_leftover_is_private_and_not_stored() {
    let mut site = with_leftover(Site::offline()).await;
    let visit = site.visit(|_, response| {
        response.headers_mut().insert("cache-control", "public, max-age=600".parse().unwrap());
    });
    assert_eq!(visit.await.header("cache-control"), Some("private, no-store"));
    assert_eq!(site.look().await.header("cache-control"), None, "nothing is left");
}

#[tokio::test]
async fn refresh_removes_a_leftover_beside_the_change_that_it_writes() {
    for (answer, expected) in [
        (new_pair("new"), expect("active(new)", "identity set, identity cleared")),
        (Ok(Refreshed::OptedOut), expect("opted_out", "identity cleared, opt-out set")),
    ] {
        let mut site = with_leftover(Site::new(Operator::answering(answer))).await;
        site.wait_until(DUE);
        assert_eq!(outcome(&site.look().await), expected);
        let sees = expected.0;
        assert_eq!(outcome(&site.look().await), expect(&sees, ""));
        assert_eq!(site.jar.names().len(), 2);
    }
}

#[tokio::test]
async fn record_of_another_login_is_a_leftover_and_no_opt_out() {
    let mut site = Site::offline().logged_in(0).await;
    site.jar = site.jar.clone().with_from(&another_opt_out(&site).await, OPT_OUT);
    assert_eq!(outcome(&site.look().await), expect("active(old)", "opt-out cleared"));
}

#[tokio::test]
async fn cookies_without_an_anchor_are_leftovers() {
    let login = Site::offline().logged_in(0).await;
    let opted_out = another_opt_out(&login).await;
    let jar = login.jar.clone().without(ANCHOR).with_from(&opted_out, OPT_OUT);
    let mut site = Site { jar, ..login };
    assert_eq!(outcome(&site.look().await), expect("absent", "identity cleared, opt-out cleared"));
    assert_eq!(site.jar, Jar::default());
}

#[tokio::test]
async fn identity_from_the_js_sdk_is_a_leftover_on_a_site_that_does_not_migrate() {
    let mut site = Site::offline().logged_in(0).await;
    site.jar.put(MIGRATED, "garbage");
    assert_eq!(outcome(&site.look().await), expect("active(old)", "migrated cleared"));
}

#[tokio::test]
async fn page_removes_seven_leftovers_at_once_and_finds_its_own_identity_behind_any_number() {
    let mut site = Site::offline().logged_in(0).await;
    let own = site.jar.clone();
    for count in [1, 3, 7] {
        site.jar = behind_leftovers(&own, count);
        let visit = site.look().await;
        assert_eq!((visit.saw().as_str(), set_cookies(visit.response.headers()).len()), ("active(old)", count));
        assert_eq!(site.jar.names(), own.names(), "{count}");
    }
    site.jar = behind_leftovers(&own, 20);
    for page in 0..3 {
        assert_eq!(site.look().await.saw(), "active(old)", "{page}");
    }
    assert_eq!(site.jar.names(), own.names());
}

#[tokio::test]
async fn login_opt_out_logout_and_withdrawal_remove_all_that_came_even_from_an_image() {
    let image = [("sec-fetch-dest", "image")];
    let mut site = Site::offline().logged_in(0).await;
    site.jar = behind_leftovers(&site.jar, 3).with_from(&another_opt_out(&site).await, OPT_OUT);
    for (update, writes, left) in [
        (EuidUpdate::login(identity("new")), "identity set, identity cleared, anchor set, opt-out cleared", 2),
        (EuidUpdate::opt_out(), "identity cleared, anchor set, opt-out set, opt-out cleared", 2),
        (EuidUpdate::logout(), "identity cleared, anchor cleared, opt-out cleared", 0),
    ] {
        let handler = move |_: &_, response: &mut _| update.clone().attach(response);
        let visit = site.send(site.jar.request_with(&image), handler).await;
        let mut jar = site.jar.clone();
        jar.apply(visit.response.headers());
        assert_eq!((sorted(&visit.writes()), jar.names().len()), (sorted(writes), left));
    }
    let withdrawn = site.clone().configured(|layer| layer.consent(|_| Consent::Withdrawn));
    let visit = withdrawn.send(site.jar.request_with(&image), NOTHING).await;
    site.jar.apply(visit.response.headers());
    assert_eq!(site.jar, Jar::default());
}

/// Returns the words of a list in a fixed order.
fn sorted(list: &str) -> Vec<&str> {
    let mut words: Vec<&str> = list.split(", ").collect();
    words.sort_unstable();
    words
}

#[tokio::test]
async fn two_anchors_that_differ_keep_all() {
    let mut site = with_leftover(Site::offline()).await;
    let other = another_login(&site).await;
    site.jar = site.jar.clone().with_from(&another_opt_out(&site).await, OPT_OUT);
    for anchors in [[&site.jar, &other], [&other, &site.jar]] {
        let pairs = anchors.map(|jar| jar.pair(ANCHOR)).join("; ");
        let mut request = site.jar.clone().without(ANCHOR).request();
        request.headers_mut().append("cookie", pairs.parse().unwrap());
        let visit = site.send(request, NOTHING).await;
        assert_eq!(outcome(&visit), expect("absent", ""));
        assert!(visit.response.headers().is_empty());
    }
    let mut twice = site.jar.request();
    twice.headers_mut().append("cookie", site.jar.pair(ANCHOR).parse().unwrap());
    let visit = site.send(twice, NOTHING).await;
    assert_eq!(outcome(&visit), expect("active(old)", "identity cleared, opt-out cleared"), "the same anchor twice");
}

#[tokio::test]
async fn unreadable_anchor_keeps_all() {
    let site = with_leftover(Site::offline()).await;
    let anchor = site.jar.value(ANCHOR).unwrap();
    for garbled in ["", "x", &format!("{anchor}A"), &anchor[..21], "!!!!!!!!!!!!!!!!!!!!!!"] {
        let garbled = Site { jar: site.jar.clone().with(ANCHOR, garbled), ..site.clone() };
        assert_eq!(outcome(&garbled.look_once().await), expect("absent", ""), "{:?}", garbled.jar.value(ANCHOR));
    }
}

/// Such an anchor names no login, though it begins with the tag of one.
#[tokio::test]
async fn unreadable_anchor_that_begins_with_a_tag_keeps_all() {
    let site = with_leftover(Site::offline()).await;
    let garbled = format!("{}!!!!!!!!!!!!!!!!!!", &site.jar.value(ANCHOR).unwrap()[..4]);
    let garbled = Site { jar: site.jar.clone().with(ANCHOR, &garbled), ..site.clone() };
    assert_eq!(outcome(&garbled.look_once().await), expect("absent", ""));
}

#[tokio::test]
async fn state_of_the_login_under_an_unknown_key_keeps_all() {
    let site = with_leftover(Site::offline()).await;
    let foreign = Site { jar: site.jar.clone(), ..Site::offline() };
    assert_eq!(outcome(&foreign.look_once().await), expect("absent", ""));
    let opted_out = another_opt_out(&site).await.with_from(&another_login(&site).await, IDENTITY);
    let foreign = Site { jar: opted_out, ..Site::offline() };
    assert_eq!(outcome(&foreign.look_once().await), expect("absent", ""));
}

#[tokio::test]
async fn name_with_another_tag_is_neither_read_nor_removed() {
    let mut site = Site::offline().logged_in(0).await;
    let value = site.jar.value(IDENTITY).unwrap().to_owned();
    let tag = site.jar.name(IDENTITY).split_off(IDENTITY.len());
    let names = [IDENTITY.trim_end_matches('.'), OPT_OUT.trim_end_matches('.'), &IDENTITY, &OPT_OUT].map(str::to_owned);
    let tags = ["abc", "abcde", "ab!d", "SDK", &format!("{tag}x"), &tag[..3]].map(|tag| format!("{IDENTITY}{tag}"));
    let pairs: Vec<String> = names.iter().chain(&tags).map(|name| format!("{name}={value}")).collect();
    let with_others = |jar: &Jar| {
        let mut request = jar.request();
        request.headers_mut().append("cookie", pairs.join("; ").parse().unwrap());
        request
    };
    let own_alone = [
        (site.jar.clone(), EuidUpdate::logout(), "active(old)", LOGIN_REMOVED),
        (site.jar.clone(), EuidUpdate::login(identity("new")), "active(old)", LOGIN_REPLACED),
        (Jar::default(), EuidUpdate::logout(), "absent", "anchor cleared"),
        (Jar::default(), EuidUpdate::login(identity("new")), "absent", LOGIN_WRITTEN),
    ];
    for (jar, update, saw, writes) in own_alone {
        assert_eq!(outcome(&site.send(with_others(&jar), NOTHING).await), expect(saw, ""));
        let handler = move |_: &_, response: &mut _| update.clone().attach(response);
        let visit = site.send(with_others(&jar), handler).await;
        assert_eq!(outcome(&visit), expect(saw, writes));
        let removed =
            set_cookies(visit.response.headers()).iter().filter(|set| set.as_bytes().ends_with(b"Max-Age=0")).count();
        assert!(removed <= 2, "{removed}");
    }
    site.jar = site.jar.without(IDENTITY);
    assert_eq!(outcome(&site.send(with_others(&site.jar), NOTHING).await), expect("absent", ""));
}

/// Tags that are not of the layer, among them bytes that are no text.
const ODD_TAGS: [&[u8]; 4] = [b"ab,d", b"a\"cd", b"ab\tc", b"\xffbcd"];

/// Returns a request with these cookies, each of which is a name and a value.
#[expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
fn request_of(cookies: &[(&[u8], &[u8])]) -> Request<()> {
    let pairs: Vec<Vec<u8>> = cookies.iter().map(|(name, value)| [name, &b"="[..], value].concat()).collect();
    let mut request = Request::new(());
    request.headers_mut().insert("cookie", HeaderValue::from_bytes(&pairs.join(&b"; "[..])).unwrap());
    request
}

#[tokio::test]
async fn name_with_an_odd_tag_is_not_removed_even_if_the_anchor_begins_with_it() {
    for tag in ODD_TAGS {
        let anchor = [tag, &[b'A'; 18]].concat();
        let names = [IDENTITY, OPT_OUT].map(|prefix| [prefix.as_bytes(), tag].concat());
        for cookies in [
            &[(&names[0][..], &b"x"[..]), (ANCHOR.as_bytes(), &anchor)][..],
            &[(&names[0][..], b"x"), (&names[1][..], b"x"), (ANCHOR.as_bytes(), &anchor)],
        ] {
            for (update, lines) in
                [(EuidUpdate::logout(), 1), (EuidUpdate::login(identity("new")), 2), (EuidUpdate::opt_out(), 2)]
            {
                let handler = move |_: &_, response: &mut _| update.clone().attach(response);
                let visit = Site::offline().send(request_of(cookies), handler).await;
                assert_eq!(set_cookies(visit.response.headers()).len(), lines, "{tag:?}");
            }
        }
    }
}

#[tokio::test]
async fn anchor_beyond_64_kib_of_cookies_keeps_all() {
    let site = Site::offline().logged_in(0).await;
    let migrated = Jar::default().with(MIGRATED, "garbage");
    let migrating = site.clone().migrating();
    for (jar, site) in [(&site.jar, &site), (&migrated, &migrating), (&site.jar, &migrating)] {
        let mut request = jar.clone().without(ANCHOR).request();
        let more = [format!("theme={}", "x".repeat(65_530)), format!("{ANCHOR}={}", "A".repeat(22))];
        for header in more {
            request.headers_mut().append("cookie", header.parse().unwrap());
        }
        assert_eq!(outcome(&site.send(request, NOTHING).await), expect("absent", ""));
    }
}
