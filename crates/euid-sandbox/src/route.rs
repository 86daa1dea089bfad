//! Routes a request: the operator's limits on its head, its path, its endpoint and its method.

use std::borrow::Cow;

use euid_core::protocol::{CLIENT_VERSION, GENERATE, REFRESH, VALIDATE};
use http::header::{ALLOW, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Uri};

use super::answer::Answer;

/// The endpoint of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Generate,
    Refresh,
    Validate,
    /// Exists, but no publisher's key has the role for it.
    WithoutRole,
    Health,
    Unknown,
}

impl Endpoint {
    /// The endpoint of a request; `None` if its path has a `%` without two hexadecimal digits.
    pub(crate) fn at(uri: &Uri) -> Option<Self> {
        let path = normalized(uri.path())?;
        Some(match path.strip_suffix('/').unwrap_or(&path) {
            GENERATE => Self::Generate,
            REFRESH => Self::Refresh,
            VALIDATE => Self::Validate,
            path if WITHOUT_ROLE.contains(&path) => Self::WithoutRole,
            HEALTH => Self::Health,
            _ => Self::Unknown,
        })
    }

    /// Refuses unknown paths, and known ones with another method than theirs.
    pub(crate) fn check_method(self, method: &Method) -> Result<(), Answer> {
        let allowed = match self {
            Self::Unknown if method == Method::HEAD => return Err(Answer::empty(StatusCode::NOT_FOUND)),
            Self::Unknown => return Err(Answer::not_found()),
            Self::Health => Method::GET,
            Self::Generate | Self::Refresh | Self::Validate | Self::WithoutRole => Method::POST,
        };
        if *method == allowed {
            return Ok(());
        }
        let refusal = Answer::empty(StatusCode::METHOD_NOT_ALLOWED);
        let allow = HeaderValue::from_static(if allowed == Method::GET { "GET" } else { "POST" });
        Err(if method == Method::HEAD { refusal } else { refusal.with(ALLOW, allow) })
    }
}

/// Refuses what the operator's HTTP server refuses before it looks at a path: a request line longer than
/// [`MAX_REQUEST_LINE`], headers longer than [`MAX_HEADERS`].
pub(crate) fn check_lengths(parts: &Parts) -> Result<(), Answer> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if parts.method.as_str().len() + " ".len() + target + " HTTP/1.1".len() > MAX_REQUEST_LINE {
        return Err(Answer::empty(StatusCode::URI_TOO_LONG));
    }
    let headers = parts.headers.iter().map(|(name, value)| name.as_str().len() + ": ".len() + value.len());
    if headers.sum::<usize>() > MAX_HEADERS {
        return Err(Answer::empty(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    Ok(())
}

/// Refuses a query with a `%` without two hexadecimal digits. The operator looks for the client's version
/// there, unless a header names it.
pub(crate) fn check_query(parts: &Parts) -> Result<(), Answer> {
    match parts.uri.query() {
        Some(query) if !parts.headers.contains_key(&CLIENT_VERSION) && !is_escaped(query) => Err(Answer::bad_request()),
        _ => Ok(()),
    }
}

/// A path as the operator's router compares it: unreserved characters are not escaped, `//` is one slash,
/// and there is no segment `.` or `..`.
fn normalized(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains(['%', '.']) && !path.contains("//") {
        return Some(Cow::Borrowed(path));
    }
    if !is_escaped(path) {
        return None;
    }
    let path = unescaped(path);
    let mut segments: Vec<&str> = Vec::new();
    // `/a/.` and `/a/..` end with a slash, as `/a/` does.
    let mut is_folder = false;
    for segment in path.split('/') {
        is_folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => _ = segments.pop(),
            name => segments.push(name),
        }
    }
    let end = if is_folder && !segments.is_empty() { "/" } else { "" };
    Some(Cow::Owned(format!("/{}{end}", segments.join("/"))))
}

/// Decodes the escapes of unreserved characters, and leaves all others.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escaped = part.split_at_checked(2).and_then(|(digits, rest)| Some((escaped_character(digits)?, rest)));
        match escaped {
            Some((character, rest)) => {
                text.push(character);
                text.push_str(rest);
            }
            None => {
                text.push('%');
                text.push_str(part);
            }
        }
    }
    text
}

fn escaped_character(digits: &str) -> Option<char> {
    let character = char::from(u8::from_str_radix(digits, 16).ok()?);
    (character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_' | '~')).then_some(character)
}

fn is_escaped(text: &str) -> bool {
    text.split('%').skip(1).all(|part| part.len() >= 2 && part.bytes().take(2).all(|digit| digit.is_ascii_hexdigit()))
}

/// In bytes, with method, spaces and version.
const MAX_REQUEST_LINE: usize = 4096;
/// In bytes, of all headers with their names.
const MAX_HEADERS: usize = 8192;

const HEALTH: &str = "/ops/healthcheck";
const WITHOUT_ROLE: [&str; 8] = [
    "/v2/token/logout",
    "/v2/optout/status",
    "/v2/identity/map",
    "/v3/identity/map",
    "/v2/identity/buckets",
    "/v2/key/latest",
    "/v2/key/sharing",
    "/v2/key/bidstream",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The real operator answers each path in this way.
    #[test]
    fn path_is_normalized_before_it_is_compared() {
        for path in [
            "/v2/token/generate",
            "/v2/token/generate/",
            "/v2/token/generate//",
            "//v2/token/generate",
            "/v2//token/generate",
            "/x/../v2/token/generate",
            "/../v2/token/generate",
            "/./v2/./token/generate",
            "/v2/token/generate/.",
            "/v2/token/generate/./",
            "/v2/token/generate/x/..",
            "/v2/token/generate/x/../",
            "/v2/token/generate/../generate/.",
            "/v2/token/%67enerate",
            "/v2/token/%67%65nerate/",
            "/v2/token/%2e%2E/token/generate",
            "/v2/token/generate/%2e",
            "/v2/token/generate?a=/../",
            "http://operator//v2/token/generate",
        ] {
            assert_eq!(Endpoint::at(&path.parse().unwrap()), Some(Endpoint::Generate), "{path}");
        }
        for path in [
            "/",
            "/v2/token/generate/..",
            "/v2/token/generate/x",
            "/v2/token/generate/x/.",
            "/v2/token/.../generate",
            "/v2/token/generate.",
            "/v2/token/.generate",
            "/v2%2Ftoken/generate",
            "/v2/token/generate%20",
            "/v2/token/generate%7E",
            "/v2/token/generate%2B",
            "/v2/token/%c3%a9",
            "/v2/token/%25",
            "/V2/token/generate",
            "/v2/token/%47enerate",
        ] {
            assert_eq!(Endpoint::at(&path.parse().unwrap()), Some(Endpoint::Unknown), "{path}");
        }
        for path in
            ["/%", "/v2/token/generate%", "/v2/token/generate%6", "/v2/token/generate%zz", "/v2/token/%%", "/%-1"]
        {
            assert_eq!(Endpoint::at(&path.parse().unwrap()), None, "{path}");
        }
    }

    #[test]
    fn query_must_be_escaped_unless_a_header_names_the_client() {
        let check = |target: &str, header: &str| {
            let request = http::Request::post(target).header(header, "euid-sdk-4.0.66").body(()).unwrap();
            check_query(&request.into_parts().0).is_ok()
        };
        for query in ["", "?", "?client=euid-sdk-4.0.66", "?a=%ff", "?a=100%25"] {
            assert!(check(&format!("{REFRESH}{query}"), "x-other"), "{query}");
        }
        for query in ["?%", "?client=%", "?client=%zz", "?a=b&c=%4", "?a=%+7"] {
            assert!(!check(&format!("{REFRESH}{query}"), "x-other"), "{query}");
            assert!(check(&format!("{REFRESH}{query}"), "X-UID2-Client-Version"), "{query}");
        }
    }

    #[test]
    fn request_line_and_headers_have_the_operators_limits() {
        let check = |target: usize, headers: usize| {
            let target = format!("/{}", "a".repeat(target - 1));
            let request = http::Request::post(target).header("x", "a".repeat(headers - "x: ".len()));
            check_lengths(&request.body(()).unwrap().into_parts().0).err().map(|answer| answer.status().as_u16())
        };
        assert_eq!(check(4096 - "POST  HTTP/1.1".len(), 8192), None);
        assert_eq!(check(4096 - "POST HTTP/1.1".len(), 8192), Some(414));
        assert_eq!(check(1, 8193), Some(431));
    }
}
