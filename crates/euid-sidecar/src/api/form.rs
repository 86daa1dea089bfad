//! Forms and queries: `name=value` pairs that are percent-encoded, joined by `&`.
//!
//! 1. Each field comes at most once and has a value. An unknown field is an error that names it.
//! 2. An error never shows a value. It shows a name only if that is a word: the body may be an address, without a name.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use tower_euid::{Dii, GenerateRequest, Scope};

/// The fields of a form or a query. Each is taken out once.
#[derive(Debug)]
pub(crate) struct Form<'a>(Vec<(&'static str, Cow<'a, str>)>);

/// Why a form can't be used, as a text for the site's developer.
pub(crate) type Refusal = Cow<'static, str>;

impl<'a> Form<'a> {
    /// Returns the fields of `text`, which may have these `names`. Those in `may_be_empty` need no value.
    pub(crate) fn parse(text: &'a [u8], names: &[&'static str], may_be_empty: &[&str]) -> Result<Self, Refusal> {
        let mut fields: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
        for pair in text.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.iter().position(|&byte| byte == b'=') {
                Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
                None => (pair, &b""[..]),
            };
            let Some(name) = decoded(name).and_then(|name| names.iter().find(|known| name == **known)).copied() else {
                return Err(unknown(name, names));
            };
            if fields.iter().any(|(other, _)| *other == name) {
                return Err(format!("{name}: given twice").into());
            }
            let value = decoded(value).ok_or_else(|| format!("{name}: not UTF-8"))?;
            if value.is_empty() && !may_be_empty.contains(&name) {
                return Err(format!("{name}: empty; leave it out if there is none").into());
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(other, _)| *other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes out the scope, which must be one of those `served`. If only one is, it need not be named.
    pub(crate) fn take_scope(&mut self, served: &[Scope]) -> Result<Scope, Refusal> {
        match (self.take("scope"), served) {
            (None, [only]) => Ok(*only),
            (None, _) => Err("scope: missing, as this sidecar serves both: say which one serves the request".into()),
            (Some(word), _) => {
                let scope: Scope = word.parse().map_err(|error| format!("scope: {error}"))?;
                let is_served = served.contains(&scope);
                is_served
                    .then_some(scope)
                    .ok_or_else(|| format!("scope: this sidecar has no operator of {scope}").into())
            }
        }
    }

    /// Takes out the person who logs in, and the TC string.
    pub(crate) fn take_person(&mut self) -> Result<GenerateRequest, Refusal> {
        let mut person: Option<(&str, Dii)> = None;
        for (name, parse) in PERSON {
            let Some(value) = self.take(name) else { continue };
            if let Some((other, _)) = person {
                return Err(format!("{other} and {name}: give one of them").into());
            }
            // Anywhere else, it may be a plus sign.
            let value = if name == "email" { value.trim_end() } else { &value };
            if value.contains(' ') {
                return Err(format!("{name}: has a space; a plus sign in a form is written %2B").into());
            }
            person = Some((name, parse(value).map_err(|error| format!("{name}: {error}"))?));
        }
        let (_, dii) = person.ok_or("email, email_hash, phone or phone_hash: one of them is needed")?;
        let request = GenerateRequest::from(dii);
        Ok(match self.take("consent") {
            Some(tc_string) => request.tcf_consent_string(tc_string),
            None => request,
        })
    }
}

fn decoded(text: &[u8]) -> Option<Cow<'_, str>> {
    if !text.contains(&b'+') {
        return percent_decode(text).decode_utf8().ok();
    }
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok().map(Cow::Owned)
}

fn unknown(name: &[u8], names: &[&str]) -> Refusal {
    let is_word =
        |name: &&str| name.len() <= LONGEST_NAME && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let known =
        if names.is_empty() { "there are none here".to_owned() } else { format!("known are {}", names.join(", ")) };
    match str::from_utf8(name).ok().filter(is_word).filter(|name| !name.is_empty()) {
        Some(name) => format!("{name}: unknown field; {known}").into(),
        None => format!("a field whose name is not a word; {known}").into(),
    }
}

/// The fields that name a person.
const PERSON: [(&str, fn(&str) -> Result<Dii, tower_euid::error::InvalidDii>); 4] =
    [("email", Dii::email), ("email_hash", Dii::email_hash), ("phone", Dii::phone), ("phone_hash", Dii::phone_hash)];

/// All fields of a login.
pub(crate) const LOGIN: [&str; 6] = ["email", "email_hash", "phone", "phone_hash", "subject", "consent"];

/// A longer name in a form is not shown.
const LONGEST_NAME: usize = 32;

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn person(form: &str) -> Result<GenerateRequest, Refusal> {
        Form::parse(form.as_bytes(), &LOGIN, &[]).and_then(|mut form| form.take_person())
    }

    fn refusal(form: &str) -> String {
        person(form).unwrap_err().into_owned()
    }

    #[test]
    fn login_names_one_person_in_one_of_four_ways() {
        for form in [
            "email=user%40example.com",
            "email=user%2Btag@example.com&subject=17",
            "email=user@example.com%20",
            "email_hash=tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf%2FF5HVRQ%3D",
            "phone=%2B12345678901",
            "phone_hash=EObwtHBUqDNZR33LNSMdtt5cafsYFuGmuY4ZLenlue4%3D&consent=CPeh",
        ] {
            assert!(person(form).is_ok(), "{form}");
        }
        assert_eq!(refusal("subject=17"), "email, email_hash, phone or phone_hash: one of them is needed");
        assert_eq!(refusal("email=a@example.com&phone=%2B12345678901"), "email and phone: give one of them");
    }

    #[test]
    fn error_names_the_field_and_never_shows_a_value() {
        for (form, beginning) in [
            ("email=hunter2+tag@example.com", "email: has a space; a plus sign in a form is written %2B"),
            ("phone=+12345678901", "phone: has a space"),
            ("email_hash=hunter2+", "email_hash: has a space"),
            ("email=hunter2", "email: an email address has an @"),
            ("email=%FFhunter2", "email: not UTF-8"),
            ("email=", "email: empty"),
            ("email", "email: empty"),
            ("email=hunter2@example.com&consent=", "consent: empty"),
            ("email=hunter2&email=hunter2", "email: given twice"),
            (
                "email=a@example.com&mail=hunter2",
                "mail: unknown field; known are email, email_hash, phone, phone_hash, subject, consent",
            ),
            ("hunter2@example.com", "a field whose name is not a word"),
            ("Hunter2=x", "a field whose name is not a word"),
            ("=hunter2", "a field whose name is not a word"),
        ] {
            let refusal = refusal(form);
            assert!(refusal.starts_with(beginning), "{form}: {refusal}");
            assert!(!refusal.to_lowercase().contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn scope_is_named_if_both_are_served() {
        let scope = |query: &'static str, served: &[Scope]| {
            Form::parse(query.as_bytes(), &["scope"], &[]).unwrap().take_scope(served)
        };
        for only in Scope::ALL {
            assert_eq!(scope("", &[only]), Ok(only));
        }
        assert_eq!(scope("scope=uid2", &Scope::ALL), Ok(Scope::Uid2));
        assert_eq!(scope("scope=euid", &[Scope::Euid]), Ok(Scope::Euid));
        for (query, served) in [("", &Scope::ALL[..]), ("scope=uid2", &[Scope::Euid]), ("scope=x", &Scope::ALL)] {
            assert!(scope(query, served).unwrap_err().starts_with("scope: "), "{query}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_form_or_an_error_that_is_no_copy_of_them(bytes in vec(any::<u8>(), 0..200)) {
            if let Err(refusal) = Form::parse(&bytes, &LOGIN, &[]) {
                let shows = |text: &str| text.len() > LONGEST_NAME && refusal.contains(text);
                let is_shown = str::from_utf8(&bytes).is_ok_and(shows);
                prop_assert!(!is_shown, "{}", refusal);
            }
        }

        #[test]
        fn encoded_fields_are_read_as_they_were(values in vec(".{1,20}", 2)) {
            let encoded = |text: &str| percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
            let text = format!("subject={}&consent={}", encoded(&values[0]), encoded(&values[1]));
            let mut form = Form::parse(text.as_bytes(), &LOGIN, &[]).unwrap();
            prop_assert_eq!(form.take("subject").unwrap().into_owned(), values[0].clone());
            prop_assert_eq!(form.take("consent").unwrap().into_owned(), values[1].clone());
        }
    }
}
