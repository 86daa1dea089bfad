//! A request's body as the operator reads it: by the content type, as bytes or as text.
//!
//! 1. Any `Content-Type` that is exactly `application/octet-stream` means bytes; everything else is text.
//! 2. Text is decoded by the parameter `charset` of the first `Content-Type`. The operator's server fails
//!    at one that it does not know.
//! 3. A body of `multipart/form-data` is dropped: it counts as missing.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, HeaderMap};

use super::answer::{Answer, BINARY, Form};

pub(crate) struct RequestBody<'a> {
    pub(crate) bytes: &'a [u8],
    /// How the sender writes envelopes.
    pub(crate) form: Form,
    charset: Charset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charset {
    Utf8,
    /// A superset of ASCII with one byte per character.
    OneByte,
    /// A character has at least this many bytes, so that base64 in ASCII is no text of it.
    Wide(usize),
    Unknown,
}

impl<'a> RequestBody<'a> {
    pub(crate) fn new(headers: &HeaderMap, bytes: &'a [u8]) -> Self {
        let content_types = headers.get_all(CONTENT_TYPE);
        let is_binary = |kind: &&[u8]| kind.eq_ignore_ascii_case(BINARY.as_bytes());
        let form = match content_types.iter().map(|value| value.as_bytes().trim_ascii()).find(is_binary) {
            Some(_) => Form::Binary,
            None => Form::Text,
        };
        let first = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).map(String::from_utf8_lossy);
        let first = first.unwrap_or_default();
        let is_form = first.to_ascii_lowercase().starts_with("multipart/form-data");
        Self { bytes: if is_form { &[] } else { bytes }, form, charset: Charset::of(&first) }
    }

    pub(crate) fn text(&self) -> Result<Cow<'a, str>, Answer> {
        match self.charset {
            _ if self.bytes.is_empty() => Ok(Cow::Borrowed("")),
            Charset::Utf8 => Ok(String::from_utf8_lossy(self.bytes)),
            Charset::OneByte => Ok(self.bytes.iter().map(|&byte| char::from(byte)).collect()),
            Charset::Wide(width) => Ok("\u{fffd}".repeat(self.bytes.len().div_ceil(width)).into()),
            Charset::Unknown => Err(Answer::crash()),
        }
    }
}

impl Charset {
    /// The charset of the last parameter `charset`, whose name is in lower case. Of the many charsets that the operator
    /// knows these are the likely ones.
    fn of(content_type: &str) -> Self {
        let parameters = content_type.split(';').skip(1).map(str::trim);
        let parameters = parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
        let Some((_, name)) = parameters.filter(|(name, _)| *name == "charset").last() else { return Self::Utf8 };
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name).to_ascii_lowercase();
        match name.as_str() {
            "utf-8" | "utf8" => Self::Utf8,
            "utf-16" | "utf-16be" | "utf-16le" | "unicode" => Self::Wide(2),
            "utf-32" | "utf-32be" | "utf-32le" => Self::Wide(4),
            "us-ascii" | "ascii" | "iso8859_1" | "latin1" | "koi8-r" => Self::OneByte,
            name if name.starts_with("iso-8859-") || name.starts_with("windows-125") => Self::OneByte,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn charset(content_type: &str) -> Charset {
        let headers = [(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap())].into_iter().collect();
        RequestBody::new(&headers, b"body").charset
    }

    /// The charset that the real operator reads from each content type.
    #[test]
    fn body_charset_is_the_last_one_of_the_content_type() {
        for utf8 in [
            "",
            "text/plain",
            "text/plain; charset=utf-8",
            "text/plain;charset=UTF8;",
            "text/plain; charset=\"utf-8\"",
            "text/plain; CHARSET=bogus",
            "text/plain;charset = bogus",
            "text/plain; charsetx=bogus",
            "text/plain; xcharset=bogus",
            "text/plain charset=bogus",
            "charset=bogus",
            "text/plain; charset=bogus; charset=utf-8",
            "application/octet-stream;",
            "application/octet-stream;foo=bar",
        ] {
            assert_eq!(charset(utf8), Charset::Utf8, "{utf8}");
        }
        for unknown in [
            "text/plain; charset=bogus",
            "text/plain; charset=bogus;",
            "text/plain; charset=\"bogus\"",
            "text/plain; charset='utf-8'",
            "text/plain; charset=",
            "text/plain; charset",
            "text/plain; charset=utf-8,bogus",
            "text/plain; charset=utf-8; charset=bogus",
            "text/plain; foo=bar; charset=none",
            ";charset=bogus",
            "application/x-www-form-urlencoded; charset=bogus",
            "application/octet-stream; charset=binary",
        ] {
            assert_eq!(charset(unknown), Charset::Unknown, "{unknown}");
        }
        assert_eq!(charset("text/plain; charset=us-ascii; x"), Charset::OneByte);
        assert_eq!(charset("text/plain; charset=Latin1"), Charset::OneByte);
        assert_eq!(charset("text/plain;charset=UTF-16LE"), Charset::Wide(2));
    }

    #[test]
    fn multipart_body_counts_as_missing() {
        let bytes = |content_type| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(content_type))].into_iter().collect();
            RequestBody::new(&headers, b"body").bytes
        };
        for form in ["multipart/form-data", "Multipart/Form-Data; boundary=x", "multipart/form-datax"] {
            assert_eq!(bytes(form), b"", "{form}");
        }
        assert_eq!(bytes("multipart/mixed; boundary=x"), b"body");
        assert_eq!(bytes("application/x-www-form-urlencoded"), b"body");
    }

    #[test]
    fn empty_body_is_text_in_every_charset() {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=bogus"))].into_iter().collect();
        assert!(RequestBody::new(&headers, b"").text().is_ok_and(|text| text.is_empty()));
        assert!(RequestBody::new(&headers, b"body").text().is_err());
    }
}
