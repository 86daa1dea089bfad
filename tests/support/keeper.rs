//! The headers that an app keeps instead of cookies, by the contract of `HeaderConfig`.
//!
//! 1. It keeps every response header whose name begins with `Euid-` or `Uid2-` under its name, and deletes it if the
//!    value is empty. The headers of a response apply at once.
//! 2. It sends all of them with every request, and always the login header, which is empty while it has none.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::{Literal, in_words};

/// The header that names the login that counts.
pub(crate) const LOGIN_HEADER: Literal = Literal { euid: "euid-login", uid2: "uid2-login" };
/// What the name of an identity begins with; the tag of its login follows.
pub(crate) const IDENTITY_HEADER: Literal = Literal { euid: "euid-identity-", uid2: "uid2-identity-" };
/// What the name of an opt-out record begins with; the tag of its login follows.
pub(crate) const OPT_OUT_HEADER: Literal = Literal { euid: "euid-opt-out-", uid2: "uid2-opt-out-" };

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keeper {
    kept: BTreeMap<String, String>,
}

impl Keeper {
    /// Returns the headers of a response that an app keeps or deletes. Fails if one has two values.
    pub(crate) fn lines(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &str)> {
        let is_kept = |name: &HeaderName| ["euid-", "uid2-"].iter().any(|stem| name.as_str().starts_with(stem));
        headers.keys().filter(move |name| is_kept(name)).map(|name| {
            assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
            (name, headers[name].to_str().unwrap())
        })
    }

    /// Keeps the headers of a response.
    pub(crate) fn apply(&mut self, headers: &HeaderMap) {
        for (name, value) in Self::lines(headers) {
            self.put(name.as_str(), value);
        }
    }

    /// Keeps a header, or deletes it if the value is empty. A prefix names the header that is there.
    pub(crate) fn put(&mut self, name: impl AsRef<str>, value: &str) {
        let name = name.as_ref();
        let name = if name.ends_with('-') { self.name(name) } else { name.to_owned() };
        if value.is_empty() {
            self.kept.remove(&name);
        } else {
            self.kept.insert(name, value.to_owned());
        }
    }

    pub(crate) fn with(mut self, name: impl AsRef<str>, value: &str) -> Self {
        self.put(name, value);
        self
    }

    pub(crate) fn without(self, name: impl AsRef<str>) -> Self {
        self.with(name, "")
    }

    /// Returns the whole name of a header. A name that ends with a hyphen is a prefix, which the tag of a login follows.
    pub(crate) fn name(&self, name: impl AsRef<str>) -> String {
        let name = name.as_ref();
        let mut found = self.names().into_iter().filter(|kept| *kept == name || is_prefix(name, kept));
        let first = found.next().unwrap().to_owned();
        assert_eq!(found.next(), None, "several headers begin with {name}");
        first
    }

    pub(crate) fn value(&self, name: impl AsRef<str>) -> &str {
        self.kept.get(&self.name(name)).unwrap()
    }

    /// Returns all names, in alphabetical order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.kept.keys().map(String::as_str).collect()
    }

    /// Takes a header over from another app.
    pub(crate) fn with_from(self, other: &Self, name: impl AsRef<str>) -> Self {
        let name = other.name(name);
        let value = other.value(&name).to_owned();
        self.with(name, &value)
    }

    /// Returns a request to the site, with all headers that are kept.
    pub(crate) fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        request.headers_mut().insert(HeaderName::from_static(LOGIN_HEADER.as_str()), HeaderValue::from_static(""));
        for (name, value) in &self.kept {
            request.headers_mut().insert(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        request
    }

    /// Returns a request to the site, with all headers that are kept, and with these.
    pub(crate) fn request_with(&self, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = self.request();
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            request.headers_mut().append(name, HeaderValue::try_from(*value).unwrap());
        }
        request
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Keeper {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(kept: I) -> Self {
        kept.into_iter().fold(Self::default(), |keeper, (name, value)| keeper.with(name, value))
    }
}

/// Returns the tag of a login in the names of headers: the first 24 bits of its lineage, as hexadecimal digits.
pub(crate) fn hex_tag(lineage: &str) -> String {
    let digits = lineage[..4].chars().map(|character| ALPHABET.find(character).unwrap());
    format!("{:06x}", digits.fold(0, |bits, digit| bits << 6 | digit))
}

/// Returns the tag of a login in the names of cookies.
pub(crate) fn cookie_tag(hex: &str) -> String {
    let bits = usize::from_str_radix(hex, 16).unwrap();
    [18, 12, 6, 0].iter().filter_map(|shift| ALPHABET.chars().nth(bits >> shift & 63)).collect()
}

/// The digits of base64url.
const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn is_prefix(prefix: &str, name: &str) -> bool {
    prefix.ends_with('-') && name.starts_with(prefix)
}

/// Returns a response's changes of what an app keeps, in the words of [`writes`](super::writes).
pub(crate) fn header_writes(headers: &HeaderMap) -> String {
    in_words(Keeper::lines(headers).map(|(name, value)| {
        let which = match name.as_str() {
            name if name == LOGIN_HEADER => "anchor",
            name if name.starts_with(&*IDENTITY_HEADER) => "identity",
            name if name.starts_with(&*OPT_OUT_HEADER) => "opt-out",
            other => other,
        };
        format!("{which} {}", if value.is_empty() { "cleared" } else { "set" })
    }))
}
