//! The jar of the tests keeps the rules of RFC 6265bis.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use tower_euid::{CookieConfig, EuidUpdate};

use crate::support::jar::{HOME, Place, Refused};
use crate::support::{Jar, Site, at};

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
    let mut site = Site::offline().configured(|layer| layer.cookie(config));
    site.login("one").await;
    let names = ["__Secure-euid=", "__Secure-euid-login="];
    let sent = site.jar.cookies_for(SHOP).unwrap();
    assert!(names.iter().all(|name| sent.contains(name)), "{sent}");
    let logout = site.send(site.jar.request(), |_, response| EuidUpdate::logout().attach(response)).await;
    assert_eq!(site.jar.apply_from(SHOP, logout.response.headers()), []);
    assert_eq!(site.jar.cookies_for(HOME), None);
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
