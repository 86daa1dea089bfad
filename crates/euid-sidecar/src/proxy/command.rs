//! `Euid-Command`: what the site asks for, in a header of its response.
//!
//! ```text
//! Euid-Command: login?nonce=NONCE&email=user%40example.com&subject=17
//! Euid-Command: logout
//! Euid-Command: unused
//! ```
//!
//! 1. The fields of a login are percent-encoded, and a plus sign is a plus sign. They are those of the API's login, and
//!    the nonce.
//! 2. A login counts only with the nonce of its own request. A cache between the sidecar and the site may replay the
//!    response to another visitor, and that nonce is then another request's.
//! 3. A login with the right nonce that can't be read is a logout: a new person was logging in.

use axum::http::HeaderValue;
use axum::http::header::GetAll;
use tower_euid::GenerateRequest;

use crate::api::form::{Form, LOGIN, Refusal};

/// What the site asks for.
pub(super) enum Command {
    /// It has not used the token.
    Unused,
    Logout,
    Login(Box<Login>),
    /// A login that can't be read, and why.
    Failed(Refusal),
    /// A command that is not obeyed, and why.
    Ignored(&'static str),
}

/// A person who has logged in at the site.
pub(super) struct Login {
    pub(super) person: GenerateRequest,
    pub(super) subject: Option<String>,
}

impl Command {
    /// Reads the command in a response; `None` if there is none. `nonce` is that of its request, if it has one.
    pub(super) fn read(values: &GetAll<'_, HeaderValue>, nonce: Option<&str>) -> Option<Self> {
        let mut values = values.iter();
        let value = values.next()?.as_bytes().trim_ascii();
        if values.next().is_some() {
            return Some(Self::Ignored("there are two commands"));
        }
        Some(match value {
            b"unused" => Self::Unused,
            b"logout" => Self::Logout,
            _ => match value.strip_prefix(b"login?") {
                Some(fields) => Self::login(fields, nonce),
                None => Self::Ignored("neither `login?` and fields, nor `logout`, nor `unused`"),
            },
        })
    }

    fn login(fields: &[u8], nonce: Option<&str>) -> Self {
        let (nonces, person): (Vec<&[u8]>, Vec<&[u8]>) =
            fields.split(|&byte| byte == b'&').partition(|field| field.starts_with(NONCE));
        let brought = nonces.iter().find_map(|field| field.strip_prefix(NONCE));
        if nonces.len() != 1 || nonce.is_none() || brought != nonce.map(str::as_bytes) {
            return Self::Ignored("a login without the nonce of its request: does a cache replay it?");
        }
        let login = |person: &[&[u8]]| {
            // In a form, a plus sign would be a space.
            let text = str::from_utf8(&person.join(&b'&'))
                .map_err(|_| "a field is neither ASCII nor percent-encoded")?
                .replace('+', "%2B");
            let mut form = Form::parse(text.as_bytes(), &LOGIN, &[])?;
            Ok::<_, Refusal>(Box::new(Login {
                person: form.take_person()?,
                subject: form.take("subject").map(Into::into),
            }))
        };
        login(&person).map_or_else(Self::Failed, Self::Login)
    }
}

const NONCE: &[u8] = b"nonce=";

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&str]) -> Option<Command> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("euid-command", HeaderValue::from_str(value).unwrap());
        }
        Command::read(&headers.get_all("euid-command"), Some("n1"))
    }

    fn login(value: &str) -> Box<Login> {
        match read(&[value]) {
            Some(Command::Login(login)) => login,
            _ => panic!("{value} is no login"),
        }
    }

    #[test]
    fn command_is_one_of_three_words() {
        assert!(read(&[]).is_none());
        assert!(matches!(read(&["unused"]), Some(Command::Unused)));
        assert!(matches!(read(&["logout "]), Some(Command::Logout)));
        for value in ["", "login", "Logout", "logout?", "logout, logout", "login?", "login?email=a@example.com", "x"] {
            assert!(matches!(read(&[value]), Some(Command::Ignored(_))), "{value}");
        }
        assert!(matches!(read(&["logout", "logout"]), Some(Command::Ignored(_))));
    }

    #[test]
    fn plus_sign_is_a_plus_sign_and_the_subject_is_read() {
        let plain = login("login?nonce=n1&email=user+tag@example.com&subject=a%20b");
        let encoded = login("login?subject=a+b&email=user%2Btag%40example.com&nonce=n1");
        assert_eq!(plain.subject.as_deref(), Some("a b"));
        assert_eq!(encoded.subject.as_deref(), Some("a+b"));
        assert!(plain.person == encoded.person);
    }

    #[test]
    fn login_without_the_nonce_of_its_request_is_ignored() {
        for fields in [
            "email=a@example.com",
            "nonce=n2&email=a@example.com",
            "nonce=&email=x",
            "nonce=n1&nonce=n1&email=x",
            "nonce=n1",
        ] {
            let command = read(&[&format!("login?{fields}")]);
            let is_failed = matches!(command, Some(Command::Failed(_)));
            assert_eq!(is_failed, fields == "nonce=n1", "{fields}");
            assert!(is_failed || matches!(command, Some(Command::Ignored(_))), "{fields}");
        }
    }

    #[test]
    fn no_login_counts_if_the_request_has_no_nonce() {
        let headers = HeaderMap::from_iter([(
            "euid-command".parse().unwrap(),
            HeaderValue::from_static("login?nonce=&email=a@example.com"),
        )]);
        for nonce in [None, Some("n1")] {
            let command = Command::read(&headers.get_all("euid-command"), nonce);
            assert!(matches!(command, Some(Command::Ignored(_))), "{nonce:?}");
        }
    }

    #[test]
    fn login_with_the_nonce_that_can_not_be_read_has_failed_and_shows_no_value() {
        for fields in
            ["", "&email=hunter2", "&mail=hunter2", "&email=a@example.com&phone=1", "&email=a%20b@example.com"]
        {
            let Some(Command::Failed(refusal)) = read(&[&format!("login?nonce=n1{fields}")]) else {
                panic!("{fields}")
            };
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read_and_is_a_login_only_with_the_nonce(bytes in vec(32..=255u8, 0..120), has_nonce: bool) {
            let mut headers = HeaderMap::new();
            let start: &[u8] = if has_nonce { b"login?nonce=n1&email=" } else { b"login?email=" };
            let Ok(value) = HeaderValue::from_bytes(&[start, &bytes].concat()) else { return Ok(()) };
            headers.append("euid-command", value);
            let command = Command::read(&headers.get_all("euid-command"), Some("n1"));
            let is_obeyed = matches!(command, Some(Command::Login(_) | Command::Failed(_)));
            prop_assert_eq!(is_obeyed && !has_nonce, false);
        }
    }
}
