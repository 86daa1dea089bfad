//! Finds the layer's cookies in a request, and renders them for a response. Bytes only, no meaning.
//!
//! Reading: the bytes of all `Cookie` headers are searched for the name, and only the surroundings of a hit are
//! parsed. Other cookies are not parsed, so no byte of theirs can hide a cookie of the layer. Blanks around a name or
//! value are stripped: SP and HTAB, as a header holds no others.
//!
//! Writing: setting and clearing go through one template and can't differ in an attribute.

use std::fmt::{self, Write};
use std::time::Duration;

use cookie::{Cookie, time};
use http::HeaderValue;
use memchr::memmem::Finder;

use super::config::{CookieConfig, SameSite};
use super::slots::{Hits, Slot, Tag, Tagged};
use crate::scope::Scope;

/// The names of the layer's cookies, and how to find them. One search finds them, as they begin alike.
#[derive(Clone)]
pub(crate) struct Names {
    /// What the name of an identity begins with; its login's tag follows.
    pub identity: Box<str>,
    pub anchor: Box<str>,
    /// What the name of the record of an opt-out begins with; its login's tag follows.
    pub opt_out: Box<str>,
    finder: Finder<'static>,
}

impl Names {
    pub(crate) fn new(config: &CookieConfig, scope: Scope) -> Self {
        let [identity, anchor, opt_out] =
            [config.identity_prefix(scope), config.anchor_name(scope), config.opt_out_prefix(scope)].map(Box::from);
        let common: &str = &identity;
        let finder = Finder::new(common.strip_suffix('.').unwrap_or(common)).into_owned();
        Self { identity, anchor, opt_out, finder }
    }

    pub(crate) fn find<'a>(&self, headers: impl IntoIterator<Item = &'a HeaderValue>, hits: &mut Hits<'a>) {
        hits.length = for_each(&self.finder, headers, |rest_of_name, value| {
            if rest_of_name == ANCHOR {
                hits.anchor.push(value);
            } else if let Some(slot) = tagged(rest_of_name) {
                hits.overflow |= hits.tagged.try_push(Tagged { slot, value }).is_err();
            }
        });
    }

    /// Whether this is one of the names.
    pub(crate) fn contain(&self, name: &[u8]) -> bool {
        name.strip_prefix(self.finder.needle()).is_some_and(|rest| rest == ANCHOR || tagged(rest).is_some())
    }

    /// Calls `found` with every cookie that has a tag.
    #[cold]
    pub(crate) fn for_each_tagged<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a HeaderValue>,
        mut found: impl FnMut(Tagged<'a>),
    ) {
        for_each(&self.finder, headers, |rest_of_name, value| {
            tagged(rest_of_name).into_iter().for_each(|slot| found(Tagged { slot, value }));
        });
    }
}

/// The slot of a cookie with a tag, by the rest of its name.
#[inline]
fn tagged(rest_of_name: &[u8]) -> Option<Slot> {
    match rest_of_name {
        [b'.', tag @ ..] => Tag::parse(tag).map(Slot::Identity),
        _ => rest_of_name.strip_prefix(OPT_OUT).and_then(Tag::parse).map(Slot::OptOut),
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries([&self.identity, &self.anchor, &self.opt_out]).finish()
    }
}

/// Calls `found` for each cookie whose name begins with what `finder` looks for, in up to [`MAX_SCANNED`] bytes
/// of `Cookie` headers: with the rest of the name, and the value. Returns their length, up to the first one that was not
/// searched.
pub(crate) fn for_each<'a>(
    finder: &Finder<'_>,
    headers: impl IntoIterator<Item = &'a HeaderValue>,
    mut found: impl FnMut(&'a [u8], &'a [u8]),
) -> usize {
    let beginning = finder.needle();
    let mut scanned = 0;
    for header in headers {
        let header = header.as_bytes();
        scanned += header.len();
        if scanned > MAX_SCANNED {
            break;
        }
        let mut from = 0;
        while let Some(rest) = header.get(from..).filter(|rest| rest.len() > beginning.len()) {
            // The layer's cookies often stand side by side, where a comparison is quicker than a search. At the
            // start of a header there is no neighbour yet.
            let is_next = from > 0 && rest.strip_prefix(b"; ").is_some_and(|next| next.starts_with(beginning));
            let at = if is_next { Some(2) } else { finder.find(rest) };
            let Some(start) = at.map(|at| from + at) else { break };
            from = match pair_at(header, start, beginning.len()) {
                Some((rest_of_name, value, end)) => {
                    found(rest_of_name, value);
                    // No cookie begins within another, and this one may be long.
                    end
                }
                None => start + beginning.len(),
            };
        }
    }
    scanned
}

/// Name, but for its first `beginning` bytes, and value of the cookie at `start`, if one begins there,
/// and where it ends.
fn pair_at(header: &[u8], start: usize, beginning: usize) -> Option<(&[u8], &[u8], usize)> {
    let (before, here) = header.split_at_checked(start)?;
    if !matches!(before.trim_ascii_end(), [] | [.., b';']) {
        return None;
    }
    let here = here.get(beginning..)?;
    // The rest of a name is short: a search would not be quicker.
    let (name, rest) = here.split_at_checked(here.iter().take_while(|&&byte| !matches!(byte, b'=' | b';')).count())?;
    let rest = rest.strip_prefix(b"=")?;
    let length = memchr::memchr(b';', rest).unwrap_or(rest.len());
    let value = rest.get(..length)?;
    Some((name.trim_ascii_end(), value.trim_ascii(), start + beginning + name.len() + 1 + length))
}

/// The readers of a cookie in the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// No script: `HttpOnly`.
    ServerOnly,
    Scripts,
}

/// The one template of a `Set-Cookie`; a zero `max_age` removes. `None` for a value that no header takes; this crate's
/// values all fit.
pub(crate) fn set_cookie(
    config: &CookieConfig,
    readers: Readers,
    name: &str,
    value: &str,
    max_age: Duration,
) -> Option<HeaderValue> {
    let max_age = time::Duration::try_from(max_age).unwrap_or(time::Duration::MAX);
    let (same_site, partitioned) = match config.same_site_attribute() {
        SameSite::Strict => (cookie::SameSite::Strict, false),
        SameSite::Lax => (cookie::SameSite::Lax, false),
        SameSite::None => (cookie::SameSite::None, false),
        SameSite::Partitioned => (cookie::SameSite::None, true),
    };
    let mut cookie = Cookie::build((name, value))
        .http_only(readers == Readers::ServerOnly)
        .secure(config.is_secure())
        .same_site(same_site)
        .partitioned(partitioned)
        .path("/")
        .max_age(max_age);
    if let Some(domain) = config.domain_attribute() {
        cookie = cookie.domain(domain);
    }
    let cookie = cookie.build();
    // With room for the attributes, so that it does not grow in steps.
    let mut text = String::with_capacity(name.len() + value.len() + 128);
    write!(text, "{cookie}").ok()?;
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// What follows the beginning that all names share, in those of the anchor and of a record.
const ANCHOR: &[u8] = b"-login";
const OPT_OUT: &[u8] = b"-optout.";
/// The longest `Max-Age` that browsers accept. The anchor is never sent again, so no login lasts longer.
pub(crate) const ANCHOR_MAX_AGE: Duration = Duration::from_secs(400 * 86_400);
/// Shorter than the anchor's. If a refresh late in a login sets more than the anchor has left, the anchor still ends
/// the login.
pub(crate) const IDENTITY_MAX_AGE: Duration = Duration::from_secs(390 * 86_400);
/// The most bytes that browsers keep of one cookie (RFC 6265bis §5.6), attributes apart.
pub(crate) const MAX_NAME_AND_VALUE: usize = 4096;
/// The most bytes of `Cookie` headers that are searched. Servers cap a request's head far below.
pub(super) const MAX_SCANNED: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::COOKIE;
    use proptest::prelude::*;

    use super::*;
    use crate::transport::slots::{AtMostOne, MAX_TAGGED};

    fn find(headers: &[&[u8]]) -> (Vec<Vec<u8>>, String) {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(COOKIE, HeaderValue::from_bytes(header).unwrap());
        }
        let mut hits = Hits::default();
        Names::new(&CookieConfig::default(), Scope::Euid).find(map.get_all(COOKIE), &mut hits);
        let anchor = match hits.anchor {
            AtMostOne::None => "none".to_owned(),
            AtMostOne::One(value) => format!("one: {}", std::str::from_utf8(value).unwrap()),
            AtMostOne::Conflict => "conflict".to_owned(),
        };
        (hits.tagged.iter().map(|hit| hit.value.to_vec()).collect(), anchor)
    }

    fn identities(headers: &[&[u8]]) -> Vec<String> {
        find(headers).0.into_iter().map(|value| String::from_utf8(value).unwrap()).collect()
    }

    #[test]
    fn all_names_begin_as_the_scan_assumes() {
        let domain = CookieConfig::default().domain("example.com").unwrap();
        for config in [CookieConfig::default(), domain, CookieConfig::insecure()] {
            for scope in Scope::ALL {
                let names = Names::new(&config, scope);
                let Names { identity, anchor, opt_out, .. } = &names;
                assert_eq!(format!("{names:?}"), format!("{:?}", [identity, anchor, opt_out]));
                let common = identity.strip_suffix('.').unwrap();
                assert_eq!(anchor.strip_prefix(common).map(str::as_bytes), Some(ANCHOR));
                assert_eq!(opt_out.strip_prefix(common).map(str::as_bytes), Some(OPT_OUT));
            }
        }
    }

    #[test]
    fn identity_cookie_is_found_at_any_position() {
        for header in [
            "__Host-euid.abcd=v",
            "a=b; __Host-euid.abcd=v",
            "a=b;__Host-euid.abcd=v; c=d",
            "a=b; \t __Host-euid.abcd \t= v\t ; c",
            ";;__Host-euid.abcd=v;",
            "a=__Host-euid.abcd; __Host-euid.abcd=v",
            "__Host-euid.abcd; __Host-euid.abcd=v",
        ] {
            assert_eq!(identities(&[header.as_bytes()]), ["v"], "{header}");
        }
    }

    #[test]
    fn cookies_with_similar_names_are_ignored() {
        for header in [
            "x__Host-euid.abcd=v",
            "a=__Host-euid.abcd=v",
            "a=b __Host-euid.abcd=v",
            "__Host-euid2.abcd=v",
            "__host-euid=v",
            "__Host-euid",
            "a=\"; \"__Host-euid.abcd=v",
            "\u{a0}__Host-euid.abcd=v",
            "__Host-euid-login2=v",
        ] {
            let found = find(&[header.as_bytes()]);
            assert_eq!(found, (Vec::new(), "none".to_owned()), "{header}");
        }
    }

    #[test]
    fn cookie_value_may_hold_an_equals_sign_or_be_empty() {
        assert_eq!(identities(&[b"__Host-euid.abcd=a=b=; c=d"]), ["a=b="]);
        assert_eq!(identities(&[b"__Host-euid.abcd="]), [""]);
    }

    #[test]
    fn identity_cookie_is_found_beside_values_that_are_not_text() {
        assert_eq!(identities(&[b"a=\xff\xfe; __Host-euid.abcd=v; \x80=\"x"]), ["v"]);
        assert_eq!(identities(&[b"a=\"; __Host-euid.abcd=v; b=\""]), ["v"]);
    }

    /// Parts of a header that often look like the layer's cookies and rarely are.
    fn header() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => proptest::sample::select(&["__Host-euid.abcd", "__Host-euid-login", "=", ";", "; ", " ", "\t", "\"", "x"][..])
                .prop_map(str::to_owned),
            // Only SP and HTAB as blanks, as in HTTP. The `cookie` crate also strips other blanks.
            1 => any::<char>()
                .prop_filter("a blank", |character| !character.is_whitespace() && !character.is_control())
                .prop_map(String::from),
        ];
        proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn scan_finds_what_the_cookie_crate_parses(header in header()) {
            let cookies: Vec<_> = Cookie::split_parse(&header).filter_map(Result::ok).collect();
            let values = |name| cookies.iter().filter(move |cookie| cookie.name() == name).map(Cookie::value);
            let mut anchors: Vec<_> = values("__Host-euid-login").collect();
            anchors.dedup();
            let anchor = match anchors[..] {
                [] => "none".to_owned(),
                [anchor] => format!("one: {anchor}"),
                [..] => "conflict".to_owned(),
            };
            let identities = values("__Host-euid.abcd").take(MAX_TAGGED).map(|value| value.as_bytes().to_vec());
            prop_assert_eq!(find(&[header.as_bytes()]), (identities.collect(), anchor));
        }
    }

    #[test]
    fn cookie_headers_are_all_searched_in_order() {
        let found = find(&[b"__Host-euid.abcd=1; a=b", b"__Host-euid-login=x", b"__Host-euid.abcd=2"]);
        assert_eq!(found, (vec![b"1".to_vec(), b"2".to_vec()], "one: x".to_owned()));
    }

    #[test]
    fn first_eight_tagged_cookies_are_kept_and_all_can_be_visited() {
        let cookies: Vec<String> = (0..10).map(|number| format!("__Host-euid.tag{number}={number}")).collect();
        let header = cookies.join("; ");
        assert_eq!(identities(&[header.as_bytes()]), ["0", "1", "2", "3", "4", "5", "6", "7"]);
        let header = HeaderValue::try_from(header).unwrap();
        let mut visited = Vec::new();
        Names::new(&CookieConfig::default(), Scope::Euid).for_each_tagged([&header], |hit| visited.push(hit.value));
        assert_eq!(visited.len(), 10);
    }

    #[test]
    fn differing_anchors_conflict_and_equal_ones_do_not() {
        assert_eq!(find(&[b"__Host-euid-login=x; __Host-euid-login=x"]).1, "one: x");
        assert_eq!(find(&[b"__Host-euid-login=x; __Host-euid-login=y; __Host-euid-login=x"]).1, "conflict");
    }

    #[test]
    fn cookie_headers_beyond_64_kib_are_ignored() {
        let filler = format!("a={}", "x".repeat(60 * 1024));
        assert_eq!(identities(&[filler.as_bytes(), b"__Host-euid.abcd=1"]), ["1"]);
        assert_eq!(identities(&[filler.as_bytes(), &[b'x'; 8 * 1024], b"__Host-euid.abcd=1"]), Vec::<String>::new());
        let mut header = format!("__Host-euid.abcd=1; a={}", "x".repeat(64 * 1024 - 22));
        assert_eq!((header.len(), identities(&[header.as_bytes()])), (64 * 1024, vec!["1".to_owned()]));
        header.push('x');
        assert_eq!(identities(&[header.as_bytes()]), Vec::<String>::new());
    }

    #[test]
    fn set_cookie_template_writes_every_attribute() {
        let template = |config: &CookieConfig, readers, value, seconds| {
            let header = set_cookie(
                config,
                readers,
                &format!("{}abcd", config.identity_prefix(Scope::Euid)),
                value,
                Duration::from_secs(seconds),
            )
            .unwrap();
            assert!(header.is_sensitive());
            header.to_str().unwrap().to_owned()
        };
        let host = CookieConfig::default();
        let domain = host.clone().domain("example.com").unwrap();
        let [none, partitioned] =
            [SameSite::None, SameSite::Partitioned].map(|same| domain.clone().same_site(same).unwrap());
        let strict = CookieConfig::insecure().same_site(SameSite::Strict).unwrap();
        for (config, expected) in [
            (&host, "__Host-euid.abcd=v; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=90"),
            (&domain, "__Secure-euid.abcd=v; HttpOnly; SameSite=Lax; Secure; Path=/; Domain=example.com; Max-Age=90"),
            (&none, "__Secure-euid.abcd=v; HttpOnly; SameSite=None; Secure; Path=/; Domain=example.com; Max-Age=90"),
            (
                &partitioned,
                "__Secure-euid.abcd=v; HttpOnly; SameSite=None; Partitioned; Secure; Path=/; Domain=example.com; Max-Age=90",
            ),
            (&strict, "euid.abcd=v; HttpOnly; SameSite=Strict; Path=/; Max-Age=90"),
        ] {
            assert_eq!(template(config, Readers::ServerOnly, "v", 90), expected);
            let removal = expected.replace("=v;", "=;").replace("Max-Age=90", "Max-Age=0");
            assert_eq!(template(config, Readers::ServerOnly, "", 0), removal);
            let script = expected.replace("HttpOnly; ", "");
            assert_eq!(template(config, Readers::Scripts, "v", 90), script);
        }
    }
}
