//! Tests that the cookie jar of the tests keeps the rules of RFC 6265bis.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use tower_euid::{CookieConfig, EuidUpdate};

use crate::support::jar::{HOME, Place, Refused};
use crate::support::{Jar, STEM, Site, at};

/// Stores one line from `place`. Returns the cookies that are then sent to `place`.
fn stored(place: Place<'_>, line: &str) -> Result<Option<String>, Refused> {
    let mut jar = Jar::default();
    match jar.apply_from(place, &response([line])).first() {
        Some(refused) => Err(*refused),
        None => Ok(jar.cookies_for(place)),
    }
}

fn response<const N: usize>(lines: [&str; N]) -> HeaderMap {
    lines.into_iter().map(|line| (SET_COOKIE, HeaderValue::from_str(line).unwrap())).collect()
}

const PLAIN: Place<'_> = Place { https: false, ..HOME };
const SHOP: Place<'_> = Place { host: "shop.publisher.example", ..HOME };

#[test]
fn jar_refuses_a_host_cookie_that_is_not_secure_or_has_a_path_or_domain() {
    assert_eq!(stored(HOME, "__Host-a=1; Secure; Path=/"), Ok(Some("__Host-a=1".into())));
    for attributes in ["Secure", "Path=/", "Secure; Path=/a", "Secure; Path=/; Domain=publisher.example"] {
        for name in ["__Host-a=1", "__hoST-a=1", "__Host-=1", "__Host-a", "=__Host-a"] {
            assert_eq!(stored(HOME, &format!("{name}; {attributes}")), Err(Refused::Prefix), "{name}; {attributes}");
        }
    }
}

#[test]
fn jar_refuses_a_cookie_with_the_secure_prefix_that_is_not_secure() {
    assert_eq!(stored(HOME, "__Secure-a=1; Secure; Domain=publisher.example").map(|sent| sent.is_some()), Ok(true));
    assert_eq!(stored(HOME, "__Secure-a=1; Path=/"), Err(Refused::Prefix));
    assert_eq!(stored(HOME, "__SECURE-a=1; Path=/"), Err(Refused::Prefix));
}

#[test]
fn jar_refuses_a_cookie_above_4096_bytes() {
    let fits = format!("name={}", "v".repeat(4092));
    assert_eq!(stored(HOME, &fits), Ok(Some(fits.clone())));
    assert_eq!(stored(HOME, &format!("{fits}v; Path=/")), Err(Refused::TooLarge));
}

#[test]
fn jar_refuses_an_empty_cookie() {
    for (line, refused) in [("", Refused::Empty), ("; Secure", Refused::Empty), ("=", Refused::Empty)] {
        assert_eq!(stored(HOME, line), Err(refused), "{line}");
    }
    assert_eq!(stored(HOME, " a \t=\t b=c ;x"), Ok(Some("a=b=c".into())));
}

#[test]
fn jar_expires_a_cookie_by_max_age_and_its_own_clock() {
    for (max_age, lifetime) in [("60", 60), ("9".repeat(30).as_str(), 400 * 86_400), ("0", 0), ("-5", 0)] {
        let mut jar = Jar::default();
        jar.apply(&response([&format!("a=1; max-age={max_age}")]));
        for (seconds, kept) in [(lifetime - 1, lifetime > 0), (lifetime, false)] {
            jar.wait_until(at(seconds * 1000));
            assert_eq!(jar.value("a").is_some(), kept, "{max_age} after {seconds} s");
        }
    }
    for not_a_number in ["", "x", "1x", "+1", "-"] {
        let kept = stored(HOME, &format!("a=1; Max-Age={not_a_number}"));
        assert_eq!(kept, Ok(Some("a=1".into())), "{not_a_number}: a session cookie");
    }
}

#[test]
fn jar_replaces_or_removes_only_the_cookie_of_the_same_name_domain_and_path() {
    let mut jar = Jar::default();
    jar.apply(&response(["a=1; Path=/", "b=1; Path=/", "a=2; Path=/; Domain=publisher.example", "a=3; Path=/x"]));
    jar.apply(&response(["a=4; Path=/"]));
    let place = Place { path: "/x/y", ..HOME };
    assert_eq!(jar.cookies_for(place).unwrap(), "a=3; a=4; b=1; a=2");
    for (line, left) in [
        ("a=; Path=/; Max-Age=0", "a=3; b=1; a=2"),
        ("a=; Path=/; Domain=.Publisher.Example; Max-Age=0", "a=3; b=1"),
        ("a=; Path=/y; Max-Age=0", "a=3; b=1"),
        ("a=; Path=/x; Max-Age=0", "b=1"),
    ] {
        jar.apply(&response([line]));
        assert_eq!(jar.cookies_for(place).unwrap(), left, "{line}");
    }
}

#[test]
fn jar_sends_a_cookie_to_its_host_or_with_a_domain_to_sub_domains_too() {
    let mut jar = Jar::default();
    jar.apply(&response(["host=1", "domain=1; Domain=publisher.example"]));
    assert_eq!(jar.cookies_for(HOME).unwrap(), "host=1; domain=1");
    assert_eq!(jar.cookies_for(SHOP).unwrap(), "domain=1");
    assert_eq!(jar.cookies_for(Place { host: "notpublisher.example", ..HOME }), None);
    for foreign in ["shop.publisher.example", "example", "other.example", "lisher.example"] {
        assert_eq!(stored(HOME, &format!("a=1; Domain={foreign}")), Err(Refused::ForeignDomain), "{foreign}");
    }
    assert_eq!(stored(SHOP, "a=1; Domain=publisher.example"), Ok(Some("a=1".into())));
}

#[test]
fn jar_sends_a_cookie_to_its_path_and_below() {
    for (from, attributes, to, sent) in [
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
        assert!(jar.apply_from(Place { path: from, ..HOME }, &response([&format!("n=1{attributes}")])).is_empty());
        assert_eq!(jar.cookies_for(Place { path: to, ..HOME }).is_some(), sent, "{from} {attributes} {to}");
    }
}

#[test]
fn jar_refuses_a_cookie_for_cross_site_frames_that_is_not_secure() {
    for attribute in ["SameSite=None", "samesite=none", "Partitioned"] {
        assert_eq!(stored(HOME, &format!("a=1; {attribute}")), Err(Refused::Insecure), "{attribute}");
        assert_eq!(stored(HOME, &format!("a=1; {attribute}; Secure")), Ok(Some("a=1".into())), "{attribute}");
    }
    assert_eq!(stored(HOME, "a=1; SameSite=Lax"), Ok(Some("a=1".into())));
}

#[test]
fn jar_keeps_secure_cookies_from_plain_http() {
    assert_eq!(stored(PLAIN, "a=1; Secure"), Err(Refused::Insecure));
    assert_eq!(stored(PLAIN, "a=1"), Ok(Some("a=1".into())));
    let mut jar = Jar::default();
    jar.apply(&response(["a=1; Secure; Path=/"]));
    assert_eq!(jar.cookies_for(PLAIN), None);
    for line in ["a=2", "a=2; Path=/x", "a=2; Domain=publisher.example", "a=; Max-Age=0"] {
        assert_eq!(jar.apply_from(PLAIN, &response([line])), [Refused::Insecure], "{line}");
    }
    assert_eq!(jar.apply_from(PLAIN, &response(["b=2"])), []);
    assert_eq!(jar.cookies_for(HOME).unwrap(), "a=1; b=2");
}

#[test]
fn jar_is_emptied_for_the_whole_site_by_clear_site_data() {
    for (value, clears) in [("\"cookies\"", true), ("\"cache\", \"*\"", true), ("\"cache\"", false), ("cookies", false)]
    {
        for https in [true, false] {
            let mut jar = Jar::default();
            jar.apply(&response(["a=1", "b=1; Domain=publisher.example"]));
            let clear = HeaderMap::from_iter([(CLEAR_SITE_DATA, HeaderValue::from_static(value))]);
            assert_eq!(jar.apply_from(Place { https, ..SHOP }, &clear), []);
            assert_eq!(jar.cookies_for(HOME).is_none(), clears && https, "{value}, https: {https}");
        }
    }
}

#[tokio::test]
async fn jar_sends_cookies_with_a_domain_to_a_sub_domain_whose_logout_removes_them() {
    let config = CookieConfig::default().domain("publisher.example").unwrap();
    let mut site = Site::offline().configured(|layer| layer.cookie(config));
    site.login("one").await;
    let names = ["__Secure-X.", "__Secure-X-login="].map(|name| name.replace('X', &STEM));
    let sent = site.jar.cookies_for(SHOP).unwrap();
    assert!(names.iter().all(|name| sent.contains(&**name)), "{sent}");
    let logout = site.send(site.jar.request(), |_, response| EuidUpdate::logout().attach(response)).await;
    assert_eq!(site.jar.apply_from(SHOP, logout.response.headers()), []);
    assert_eq!(site.jar.cookies_for(HOME), None);
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
