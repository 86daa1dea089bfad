//! Consent from a TCF v2 string, as a consent banner leaves it in the cookie `euconsent-v2`.
//!
//! ```console
//! $ cargo run --example consent            # the sample strings of EUID
//! $ cargo run --example consent CPehNtW…   # one of yours
//! ```
//!
//! The crate `iab_gpp` decodes the string; the rule is the one by which EUID's operator judges it:
//! purposes 1, 2, 3, 4, 7 and 10 for vendor 21, by consent or legitimate interest. That a visitor also
//! agreed to an EUID being made of their address no string says: ask them when they log in.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::time::Duration;

use cookie::Cookie;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Request, Response, request};
use iab_gpp::sections::tcfeuv2::TcfEuV2;
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::{
    Clock, Consent, CookieConfig, CookieKey, ErrorKind, Euid, EuidError, EuidLayer, EuidUpdate, Identity,
    IdentityTimes, SystemClock, refresh_fn,
};

/// The hook: what this visitor allows.
fn consent_of(request: &request::Parts) -> Consent {
    let cookies = request.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(Cookie::split_parse).flatten();
    cookies
        .find(|cookie| cookie.name() == "euconsent-v2")
        .map_or(Consent::Withheld, |cookie| consent_in(cookie.value()))
}

fn consent_in(tc_string: &str) -> Consent {
    let Ok(TcfEuV2 { core, .. }) = tc_string.parse() else {
        // Nobody can say what they want: use nothing, end nothing.
        return Consent::Withheld;
    };
    let mut purposes = BTreeSet::new();
    if core.vendor_consents.contains(&VENDOR) {
        purposes.extend(core.purpose_consents);
    }
    if core.vendor_legitimate_interests.contains(&VENDOR) {
        purposes.extend(core.purpose_legitimate_interests);
    }
    if PURPOSES.iter().all(|purpose| purposes.contains(purpose)) { Consent::Granted } else { Consent::Withdrawn }
}

/// The Trade Desk, who runs EUID's operator.
const VENDOR: u16 = 21;
const PURPOSES: [u16; 6] = [1, 2, 3, 4, 7, 10];

const SAMPLES: [(&str, &str); 4] = [
    ("all that is needed", "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA"),
    ("the same, another day", "CPhJRpMPhJRpMABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA"),
    ("purpose 1 refused", "CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA"),
    ("no TCF string", "invalid_consent_string"),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = env::args().skip(1).collect();
    let strings: Vec<(&str, &str)> = match given.as_slice() {
        [] => SAMPLES.to_vec(),
        given => given.iter().map(|string| ("given", string.as_str())).collect(),
    };
    for (what, tc_string) in strings {
        let (state, cookies_left) = page_of_a_visitor_with(tc_string).await?;
        let consent = format!("{:?}", consent_in(tc_string));
        println!("{what:22} {consent:10} the page sees {state:9} cookies kept: {cookies_left}");
    }
    Ok(())
}

/// What a page sees of a visitor who is logged in, and how many of our two cookies stay.
async fn page_of_a_visitor_with(tc_string: &str) -> Result<(&'static str, usize), Box<dyn Error>> {
    let nobody = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "nobody is asked here")) });
    let layer = EuidLayer::new(CookieKey::generate()?.into(), nobody).consent(consent_of);

    let update = EuidUpdate::login(an_identity()?);
    let login = service_fn(move |_: Request<()>| {
        let mut response = Response::new(());
        update.clone().attach(&mut response);
        async { Ok::<_, Infallible>(response) }
    });
    let Ok(login) = layer.layer(login).oneshot(Request::new(())).await;
    let mut cookies: Vec<String> =
        cookies_of(login.headers()).map(|cookie| format!("{}={}", cookie.name(), cookie.value())).collect();
    cookies.push(format!("euconsent-v2={tc_string}"));

    let page = service_fn(|request: Request<()>| {
        let state = request.extensions().get::<Euid>().map_or("no layer", Euid::state);
        async move { Ok::<_, Infallible>(Response::new(state)) }
    });
    let request = Request::builder().header(COOKIE, cookies.join("; ")).body(())?;
    let Ok(page) = layer.layer(page).oneshot(request).await;
    let is_cleared =
        |name: &&str| cookies_of(page.headers()).any(|cookie| cookie.name() == *name && cookie.value().is_empty());
    let config = CookieConfig::default();
    let cleared = [config.identity_name(), config.anchor_name()].iter().filter(|name| is_cleared(name)).count();
    Ok((page.body(), 2 - cleared))
}

fn cookies_of(headers: &HeaderMap) -> impl Iterator<Item = Cookie<'_>> {
    headers.get_all(SET_COOKIE).iter().filter_map(|value| Cookie::parse(value.to_str().ok()?).ok())
}

/// In place of one that the operator generated.
fn an_identity() -> Result<Identity, Box<dyn Error>> {
    let [refresh_from, identity_expires, refresh_expires] =
        [1, 72, 720].map(|hours| SystemClock.now().saturating_add(Duration::from_secs(hours * 3600)));
    let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
    Ok(Identity::new("an-advertising-token", "a-refresh-token".to_owned().into(), [7; 32].into(), times)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_sample_strings_come_to_what_the_operator_makes_of_them() {
        let expected = [("active", 2), ("active", 2), ("withheld", 0), ("withheld", 2)];
        for ((what, tc_string), expected) in SAMPLES.into_iter().zip(expected) {
            assert_eq!(page_of_a_visitor_with(tc_string).await.unwrap(), expected, "{what}");
        }
    }

    #[tokio::test]
    async fn without_a_string_the_identity_is_kept_and_not_shown() {
        assert_eq!(page_of_a_visitor_with("").await.unwrap(), ("withheld", 2));
    }
}
