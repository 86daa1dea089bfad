//! Reads the parts of an HTTP response before the answer is opened.

use std::time::Duration;

use cookie::Cookie;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response};

use super::Operator;
use crate::clock::UnixMillis;
use crate::error::{ErrorKind, EuidError};
use crate::protocol::answer::{Answer, Sent};

/// The parts of a response that matter, with the values that were `sent` for it; an error if the body is too long.
pub(super) fn read<'a, B: AsRef<[u8]>>(
    response: &'a Response<B>,
    sent: Sent<'a>,
    now: UnixMillis,
) -> Result<Answer<'a>, EuidError> {
    let body = response.body().as_ref();
    if body.len() > Operator::MAX_ANSWER {
        return Err(EuidError::new(ErrorKind::Malformed, "the operator's answer is larger than 64 KiB"));
    }
    let text = |name: HeaderName| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    Ok(Answer {
        status: response.status().as_u16(),
        content_type: text(CONTENT_TYPE),
        retry_after: text(RETRY_AFTER).and_then(|text| retry_after(text, now)),
        body,
        sent,
    })
}

/// Reads a `Retry-After` header: seconds, or a date. `None` if it is neither.
fn retry_after(text: &str, now: UnixMillis) -> Option<Duration> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    // A date of HTTP has the forms of a cookie's `Expires`, whose parser is here already. It does not compare the weekday.
    if text.contains([';', '=']) {
        return None;
    }
    let date = Cookie::parse(format!("date=; Expires={text}")).ok()?.expires_datetime()?;
    Some(UnixMillis::from_millis(date.unix_timestamp().saturating_mul(1000)).saturating_since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UnixMillis::from_millis(784_111_777_000);
        for (text, wait) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("99999999999999999999", None),
            ("Sun, 31 Feb 1994 08:50:37 GMT", None),
            ("x; Expires=Sun, 06 Nov 1994 08:50:37 GMT", None),
            ("Sun, 06 Nov 1994 08:50:37 GMT; Secure", None),
        ] {
            assert_eq!(retry_after(text, now), wait.map(Duration::from_secs), "{text}");
        }
    }
}
