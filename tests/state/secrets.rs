//! Secrets: no `Debug` output, no error and no log holds one.
//!
//! The tests search for tokens, the response key, cookie keys, credentials, the operator's address and cookie values,
//! as text, base64, hex and lists of bytes.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fmt::Debug;
use std::future::{Ready, ready};
#[cfg(feature = "client")]
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
#[cfg(feature = "client")]
use euid_sandbox::{Fault, Sandbox};
use http::{Request, Response};
use tower::{Layer, Service};
use tower_euid::error::ErrorKind;
use tower_euid::identity::{Identity, RefreshToken, ResponseKey};
use tower_euid::{AdvertisingToken, CookieKey, Euid, EuidUpdate, HeaderConfig, KeyRing, Refreshed};
#[cfg(feature = "client")]
use tower_euid::{Dii, Environment, EuidClient, EuidError, GenerateRequest, Generated};

use crate::support::keeper::{Keeper, LOGIN_HEADER};
use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, IDENTITY_EXPIRES, Log, OPT_OUT, Operator, REFRESH_EXPIRES, REFRESH_FROM, Site,
    failure, identity_until,
};
#[cfg(feature = "client")]
use crate::support::{scope, server::client_builder};

const ADVERTISING: &str = "advertising-secret-of-one-visitor";
/// The refresh token of [`identity_until`] for it.
const REFRESH: &str = "refresh-of-advertising-secret-of-one-visitor";

fn identity() -> Identity {
    identity_until(ADVERTISING, [REFRESH_FROM, IDENTITY_EXPIRES, REFRESH_EXPIRES])
}

/// Asserts that `text` holds none of the secrets. Ignores blanks, as the two forms of `Debug` differ in them for a list
/// of bytes.
fn assert_holds_none(text: &str, secrets: &[String]) {
    let without_blanks = |text: &str| text.split_whitespace().collect::<String>().to_lowercase();
    let haystack = without_blanks(text);
    for secret in secrets {
        assert!(!haystack.contains(&without_blanks(secret)), "{secret:?} is in {text}");
    }
}

/// Returns the bytes of a key in all forms that output could have.
fn forms(bytes: &[u8]) -> Vec<String> {
    let list = |byte: &u8| byte.to_string();
    let start = bytes.get(..8).unwrap_or(bytes);
    vec![
        BASE64_STANDARD_NO_PAD.encode(bytes),
        BASE64_URL_SAFE_NO_PAD.encode(bytes),
        start.iter().map(|byte| format!("{byte:02x}")).collect(),
        start.iter().map(list).collect::<Vec<_>>().join(","),
        start.iter().map(|byte| format!("{byte:#x}")).collect::<Vec<_>>().join(","),
        start.escape_ascii().to_string(),
        String::from_utf8_lossy(start).into_owned(),
    ]
}

/// Returns the secrets of [`identity`].
fn secrets() -> Vec<String> {
    let mut secrets = forms(&[7; 32]);
    secrets.extend([ADVERTISING, REFRESH].map(str::to_owned));
    secrets
}

/// Returns the values of the cookies that the browser has.
fn cookie_values(site: &Site) -> impl Iterator<Item = String> {
    [IDENTITY, ANCHOR, OPT_OUT].into_iter().filter_map(|name| site.jar.value(name)).map(str::to_owned)
}

/// Returns the forms of a key, which is base64.
fn forms_of_key(base64: &str) -> Vec<String> {
    forms(ResponseKey::from_base64(base64).unwrap().expose_secret())
}

/// Returns both forms of the `Debug` output of each value.
fn debug(values: &[&dyn Debug]) -> String {
    values.iter().map(|value| format!("{value:?}\n{value:#?}\n")).collect()
}

/// Returns the token of [`identity`], as a handler gets it.
async fn token() -> AdvertisingToken {
    let mut site = Site::offline();
    site.update(EuidUpdate::login(identity())).await;
    let token = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&token);
    site.visit(move |euid, _| *seen.lock().unwrap() = euid.advertising_token().cloned()).await;
    token.lock().unwrap().take().unwrap()
}

#[tokio::test]
async fn debug_of_an_identity_and_its_parts_holds_no_secret() {
    let token = token().await;
    assert_eq!(token.as_str(), ADVERTISING, "the token is the one to search for");
    let identity = identity();
    let refresh_token = RefreshToken::from(REFRESH.to_owned());
    let response_key = ResponseKey::from([7; 32]);
    let debug = debug(&[&identity, &identity.times(), &token, &refresh_token, &response_key]);
    assert_holds_none(&debug, &secrets());
}

#[tokio::test]
async fn debug_of_states_updates_and_answers_holds_no_secret() {
    let token = token().await;
    let login = EuidUpdate::login(identity());
    let refreshed = Refreshed::Identity(identity());
    assert_holds_none(&debug(&[&Euid::Active(token), &login, &refreshed]), &secrets());
}

#[tokio::test]
async fn debug_of_a_response_to_an_app_and_of_its_layer_holds_no_value() {
    let site = Site::new(Operator::answering(Ok(Refreshed::OptedOut)));
    let site = site.configured(|layer| layer.headers(HeaderConfig::default()));
    let mut keeper = Keeper::default();
    for (update, millis) in [(Some(EuidUpdate::login(identity())), 0), (None, DUE), (Some(EuidUpdate::logout()), DUE)] {
        site.wait_until(millis);
        let handler =
            move |_: &Euid, response: &mut Response<()>| update.iter().for_each(|new| new.clone().attach(response));
        let visit = site.send(keeper.request(), handler).await;
        keeper.apply(visit.response.headers());
        let debug = debug(&[&visit.response, &visit, &site.layer]);
        assert!(debug.contains(&*LOGIN_HEADER) || millis > 0, "{debug}");
        assert_holds_none(&debug, &secrets());
        let values: Vec<String> = keeper.names().into_iter().map(|name| keeper.value(name).to_owned()).collect();
        assert_holds_none(&debug, &values);
    }
}

#[test]
fn debug_of_keys_holds_no_key() {
    let key = CookieKey::generate().unwrap();
    let ring = KeyRing::from(key.clone());
    assert_holds_none(&debug(&[&key, &ring]), &forms_of_key(&key.expose_base64()));
}

#[test]
fn errors_about_keys_hold_no_key() {
    let key = CookieKey::generate().unwrap();
    let base64 = key.expose_base64().to_string();
    let short = &base64[..40];
    let twice = KeyRing::new([key.clone(), key]).unwrap_err();
    let listed = format!("{base64},{base64}").parse::<KeyRing>().unwrap_err();
    let garbled = format!("{base64},{short}").parse::<KeyRing>().unwrap_err();
    let cookie_key = CookieKey::from_base64(short).unwrap_err();
    let response_key = ResponseKey::from_base64(short).unwrap_err();
    let text = format!("{twice} {listed} {garbled} {cookie_key} {response_key}");
    let text = text + &debug(&[&twice, &listed, &garbled, &cookie_key, &response_key]);
    assert_holds_none(&text, &[short.to_owned()]);
}

#[test]
fn errors_about_identities_hold_no_secret() {
    let wire = format!(
        r#"{{"advertising_token":"{ADVERTISING}","refresh_token":"{REFRESH}","refresh_response_key":"hunter2",
            "refresh_from":1,"identity_expires":2,"refresh_expires":3}}"#
    );
    let error = serde_json::from_str::<Identity>(&wire).unwrap_err();
    let mut secrets = secrets();
    secrets.push("hunter2".to_owned());
    assert_holds_none(&(error.to_string() + &debug(&[&error])), &secrets);
}

#[tokio::test]
async fn debug_of_layer_service_and_futures_holds_no_secret() {
    #[derive(Clone, Debug)]
    struct Page;
    impl Service<Request<()>> for Page {
        type Response = Response<()>;
        type Error = &'static str;
        type Future = Ready<Result<Response<()>, &'static str>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            ready(Err("no test polls this future"))
        }
    }
    let key = CookieKey::generate().unwrap();
    let mut secrets = secrets();
    secrets.extend(forms_of_key(&key.expose_base64()));
    let mut site = Site::with_keys(key.into(), Operator::answering(Ok(Refreshed::Identity(identity()))));
    site.update(EuidUpdate::login(identity())).await;
    secrets.extend([IDENTITY, ANCHOR].map(|name| site.jar.value(name).unwrap().to_owned()));

    let mut service = site.layer.layer(Page);
    let hot = service.call(site.jar.request());
    site.wait_until(DUE);
    let refreshing = service.call(site.jar.request());
    site.wait_until(EXPIRED * 100);
    let calling = service.call(site.jar.request());
    assert_holds_none(&debug(&[&site.layer, &service, &hot, &refreshing, &calling]), &secrets);
}

#[cfg(feature = "client")]
#[test]
fn debug_of_the_client_and_its_requests_holds_no_secret() {
    let secret = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
    let url = "http://127.0.0.1:9/private-path";
    let builder = EuidClient::builder(Environment::Url(url.to_owned())).credentials("the-api-key", secret);
    let client = builder.clone().build().unwrap();
    let dii = Dii::email("jane.saoirse@example.com").unwrap();
    let hash = "ku4mBX7Z3qJTXWyLFB1INzkyR2WZGW4ANSJUiW21iI8=";
    let hashed = Dii::email_hash(hash).unwrap();
    let request = GenerateRequest::from(hashed).tcf_consent_string("CPehNtWPehNtWABAMBFRACBo");
    let generated = Generated::Identity(identity());
    let bad_address = Dii::email("jane.saoirse.example.com").unwrap_err();
    let as_error = EuidError::from(bad_address);
    let bad_secret =
        EuidClient::builder(Environment::Integration(scope())).credentials("the-api-key", "hunter2").build();
    let bad_secret = bad_secret.unwrap_err();

    let mut secrets = secrets();
    secrets.extend(forms_of_key(secret));
    secrets.extend(forms_of_key(hash));
    secrets.extend(["the-api-key", "jane.saoirse", "CPehNtWP", "hunter2"].map(str::to_owned));
    let text = format!("{bad_address} {as_error} {bad_secret}");
    let values: [&dyn Debug; 9] =
        [&builder, &client, &dii, &hashed, &request, &generated, &bad_address, &as_error, &bad_secret];
    assert_holds_none(&(text + &debug(&values)), &secrets);
}

#[tokio::test(start_paused = true)]
async fn log_of_visits_from_login_to_logout_holds_no_secret() {
    let log = Log::default();
    let logging = log.start();
    let mut secrets = secrets();
    let mut remember = |site: &Site| secrets.extend(cookie_values(site));

    let key = CookieKey::generate().unwrap();
    let renewed = identity_until("renewed-secret", [1_900_000, 3_700_000, 86_400_000]);
    let mut site = Site::with_keys(key.clone().into(), Operator::answering(Ok(Refreshed::Identity(renewed))));
    site.update(EuidUpdate::login(identity())).await;
    remember(&site);
    site.wait_until(DUE);
    site.look().await;
    remember(&site);

    for operator in [
        Operator::answering(failure(ErrorKind::Transient)),
        Operator::answering(failure(ErrorKind::RejectedInput)),
        Operator::answering(failure(ErrorKind::RejectedToken)),
        Operator::answering(Ok(Refreshed::OptedOut)),
        Operator::never(),
    ] {
        let mut failing = Site::with_keys(key.clone().into(), operator);
        failing.jar = site.jar.clone();
        failing.wait_until(EXPIRED);
        failing.look().await;
        remember(&failing);
    }
    let garbled = format!("{}garbled", site.jar.value(IDENTITY).unwrap());
    site.jar.put(IDENTITY, &garbled);
    site.look().await;
    site.login(&"too-large".repeat(500)).await;
    site.update(EuidUpdate::logout()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(logging);

    secrets.extend(forms_of_key(&key.expose_base64()));
    secrets.extend(["renewed-secret", "too-large"].map(str::to_owned));
    let text = log.text();
    assert!(
        text.contains("could not be refreshed") && text.contains("can't be used"),
        "the log has these events: {text}"
    );
    assert_holds_none(&text, &secrets);
}

#[cfg(feature = "client")]
#[tokio::test]
async fn log_of_an_unreachable_operator_holds_no_secret() {
    let log = Log::default();
    let logging = log.start();
    // The listener is dropped, so the port is closed.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let secret = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
    let environment = Environment::Url(format!("http://{address}/private-path"));
    let client = EuidClient::builder(environment).credentials("the-api-key", secret).build().unwrap();
    let mut site = Site::new(client).configured(|layer| layer.max_wait(Duration::from_secs(60)));
    site.update(EuidUpdate::login(identity())).await;
    site.wait_until(DUE);
    site.look_once().await;
    drop(logging);

    let mut secrets = secrets();
    secrets.extend(forms_of_key(secret));
    secrets.extend(["the-api-key", "private-path"].map(str::to_owned));
    secrets.extend([IDENTITY, ANCHOR].map(|name| site.jar.value(name).unwrap().to_owned()));
    let text = log.text();
    assert!(text.contains("could not be refreshed"), "the log has this event: {text}");
    assert_holds_none(&text, &secrets);
}

/// The log also has the events of the libraries below the client.
#[cfg(feature = "client")]
#[tokio::test]
async fn log_of_the_client_and_its_libraries_holds_no_address_and_no_secret() {
    const EMAIL: &str = "jane.saoirse@example.com";
    let loopback = (Ipv4Addr::LOCALHOST, 0).into();
    let server = Sandbox::builder().scope(scope()).build().unwrap().serve(loopback).await.unwrap();
    let client = client_builder(&server).build().unwrap();
    let clock = server.sandbox().clock();
    let key = CookieKey::generate().unwrap();
    let site = Site::with_keys(key.clone().into(), client.clone());
    let mut site = site.configured(|layer| layer.clock(clock).max_wait(Duration::from_secs(60)));
    let log = Log::default();
    let logging = log.start();

    let Generated::Identity(identity) = client.generate(Dii::email(EMAIL).unwrap()).await.unwrap() else {
        panic!("this person has not opted out");
    };
    let mut secrets = vec![EMAIL.to_owned(), server.sandbox().api_key().to_owned()];
    secrets.extend([identity.advertising_token(), identity.refresh_token().expose_secret()].map(str::to_owned));
    let hours = Duration::from_secs(2 * 3600);
    site.update(EuidUpdate::login(identity)).await;
    let mut remember = |site: &Site| secrets.extend(cookie_values(site));
    remember(&site);
    server.advance(hours);
    let renewed = site.look().await.saw();
    remember(&site);
    server.advance(hours);
    server.fault(Fault::Status(503));
    assert_eq!(site.look().await.saw(), "unavailable");
    remember(&site);
    site.update(EuidUpdate::logout()).await;
    drop(logging);

    secrets.push(renewed.strip_prefix("active(").unwrap().trim_end_matches(')').to_owned());
    for key in [&*key.expose_base64(), server.sandbox().client_secret()] {
        secrets.extend(forms_of_key(key));
    }
    let text = log.text();
    assert!(text.contains("an identity was refreshed") && text.contains("could not be refreshed"), "{text}");
    assert_holds_none(&text, &secrets);
}
