//! Secrets stay where they are: nothing printed, nothing logged holds one.
//!
//! Searched for are the tokens, the response key, the cookie keys, the credentials, the address and
//! the cookies' values, as text, base64, hex and as lists of bytes.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use tower::{Layer, Service};
use tower_euid::error::ErrorKind;
use tower_euid::identity::{Identity, RefreshToken, ResponseKey};
use tower_euid::{AdvertisingToken, CookieKey, Euid, EuidUpdate, KeyRing, Refreshed};

use crate::support::{ANCHOR, DUE, EXPIRED, IDENTITY, Log, Operator, Site, failure, identity_until};

const ADVERTISING: &str = "advertising-secret-of-one-visitor";
/// What [`identity_until`] makes of it.
const REFRESH: &str = "refresh-of-advertising-secret-of-one-visitor";

fn identity() -> Identity {
    identity_until(ADVERTISING, [900_000, 3_600_000, 86_400_000])
}

/// Fails if `shown` holds any of the secrets, which are compared without blanks so that a list of
/// bytes is found in both forms of `Debug`.
fn assert_holds_none(shown: &str, secrets: &[String]) {
    let squeezed = |text: &str| text.split_whitespace().collect::<String>().to_lowercase();
    let haystack = squeezed(shown);
    for secret in secrets {
        assert!(!haystack.contains(&squeezed(secret)), "{secret:?} is in {shown}");
    }
}

/// A key's bytes in the forms that they could be printed in.
fn forms(bytes: &[u8]) -> Vec<String> {
    use base64::Engine;
    use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
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

/// The secrets of [`identity`].
fn secrets() -> Vec<String> {
    let mut secrets = forms(&[7; 32]);
    secrets.extend([ADVERTISING, REFRESH].map(str::to_owned));
    secrets
}

/// Both forms of `Debug` of each.
fn shown(all: &[&dyn Debug]) -> String {
    all.iter().map(|one| format!("{one:?}\n{one:#?}\n")).collect()
}

/// A site with a visitor whose refresh is due, and the token that they had before.
async fn site_with_token() -> (Site, AdvertisingToken) {
    let mut site = Site::new(Operator::answering(Ok(Refreshed::Identity(identity()))));
    site.update(EuidUpdate::login(identity())).await;
    let kept = Arc::new(Mutex::new(None));
    let keeps = Arc::clone(&kept);
    site.visit(move |euid, _| *keeps.lock().unwrap() = euid.advertising_token().cloned()).await;
    let token = kept.lock().unwrap().take();
    (site, token.unwrap())
}

#[tokio::test]
async fn debug_of_an_identity_and_its_parts_holds_no_secret() {
    let (_, token) = site_with_token().await;
    assert_eq!(token.as_str(), ADVERTISING, "what is searched for is there");
    let identity = identity();
    let refresh_token = RefreshToken::from(REFRESH.to_owned());
    let response_key = ResponseKey::from([7; 32]);
    let shown = shown(&[&identity, &identity.times(), &token, &refresh_token, &response_key]);
    assert_holds_none(&shown, &secrets());
}

#[tokio::test]
async fn debug_of_what_handlers_read_and_say_holds_no_secret() {
    let (_, token) = site_with_token().await;
    let login = EuidUpdate::login(identity());
    let refreshed = Refreshed::Identity(identity());
    assert_holds_none(&shown(&[&Euid::Active(token), &login, &refreshed]), &secrets());
}

#[test]
fn debug_of_keys_holds_no_key() {
    let key = CookieKey::generate().unwrap();
    let text = key.expose_base64().to_string();
    let bytes = ResponseKey::from_base64(&text).unwrap();
    let ring = KeyRing::from(key.clone());
    assert_holds_none(&shown(&[&key, &ring]), &forms(bytes.expose_secret()));
}

#[test]
fn errors_about_keys_do_not_repeat_them() {
    let key = CookieKey::generate().unwrap();
    let text = key.expose_base64().to_string();
    let short = &text[..40];
    let twice = KeyRing::new([key.clone(), key]).unwrap_err();
    let listed = format!("{text},{text}").parse::<KeyRing>().unwrap_err();
    let garbled = format!("{text},{short}").parse::<KeyRing>().unwrap_err();
    let cookie_key = CookieKey::from_base64(short).unwrap_err();
    let response_key = ResponseKey::from_base64(short).unwrap_err();
    let said = format!("{twice} {listed} {garbled} {cookie_key} {response_key}");
    let shown = said + &shown(&[&twice, &listed, &garbled, &cookie_key, &response_key]);
    assert_holds_none(&shown, &[short.to_owned()]);
}

#[test]
fn errors_about_identities_do_not_repeat_them() {
    let wire = format!(
        r#"{{"advertising_token":"{ADVERTISING}","refresh_token":"{REFRESH}","refresh_response_key":"hunter2",
            "refresh_from":1,"identity_expires":2,"refresh_expires":3}}"#
    );
    let error = serde_json::from_str::<Identity>(&wire).unwrap_err();
    let mut secrets = secrets();
    secrets.push("hunter2".to_owned());
    assert_holds_none(&(error.to_string() + &shown(&[&error])), &secrets);
}

#[tokio::test]
async fn debug_of_layer_service_and_futures_holds_no_secret() {
    #[derive(Clone, Debug)]
    struct Page;
    impl Service<Request<()>> for Page {
        type Response = Response<()>;
        type Error = &'static str;
        type Future = std::future::Ready<Result<Response<()>, &'static str>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), &'static str>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            std::future::ready(Err("not asked"))
        }
    }
    let key = CookieKey::generate().unwrap();
    let mut secrets = secrets();
    secrets.extend(forms(ResponseKey::from_base64(&key.expose_base64()).unwrap().expose_secret()));
    let mut site = Site::with_keys(key.into(), Operator::answering(Ok(Refreshed::Identity(identity()))));
    site.update(EuidUpdate::login(identity())).await;
    secrets.extend([IDENTITY, ANCHOR].map(|name| site.jar.value(name).unwrap().to_owned()));

    let mut service = site.layer.layer(Page);
    let hot = service.call(site.jar.request());
    site.wait_until(DUE);
    let refreshing = service.call(site.jar.request());
    site.wait_until(EXPIRED * 100);
    let calling = service.call(site.jar.request());
    assert_holds_none(&shown(&[&site.layer, &service, &hot, &refreshing, &calling]), &secrets);
}

#[cfg(feature = "client")]
#[test]
fn debug_of_the_client_and_what_it_asks_holds_no_secret() {
    use tower_euid::{Dii, Environment, EuidClient, EuidError, GenerateRequest, Generated};

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
    let bad_secret = EuidClient::builder(Environment::Integration).credentials("the-api-key", "hunter2").build();
    let bad_secret = bad_secret.unwrap_err();

    let mut secrets = secrets();
    secrets.extend(forms(ResponseKey::from_base64(secret).unwrap().expose_secret()));
    secrets.extend(forms(ResponseKey::from_base64(hash).unwrap().expose_secret()));
    secrets.extend(["the-api-key", "jane.saoirse", "CPehNtWP", "hunter2"].map(str::to_owned));
    let said = format!("{bad_address} {as_error} {bad_secret}");
    let all: [&dyn Debug; 9] =
        [&builder, &client, &dii, &hashed, &request, &generated, &bad_address, &as_error, &bad_secret];
    assert_holds_none(&(said + &shown(&all)), &secrets);
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_visit_from_login_to_logout_holds_no_secret() {
    let log = Log::default();
    let logging = log.start();
    let mut secrets = secrets();
    let mut remember = |site: &Site| {
        secrets.extend([IDENTITY, ANCHOR].iter().filter_map(|name| site.jar.value(name)).map(str::to_owned));
    };

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
    let garbled = site.jar.pair(IDENTITY) + "garbled";
    site.jar.put(IDENTITY, garbled.trim_start_matches("__Host-euid="));
    site.look().await;
    site.login(&"too-large".repeat(500)).await;
    site.update(EuidUpdate::logout()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(logging);

    secrets.extend(forms(ResponseKey::from_base64(&key.expose_base64()).unwrap().expose_secret()));
    secrets.extend(["renewed-secret", "too-large"].map(str::to_owned));
    let text = log.text();
    assert!(text.contains("could not be refreshed") && text.contains("can't be used"), "it is a log: {text}");
    assert_holds_none(&text, &secrets);
}

#[cfg(feature = "client")]
#[tokio::test]
async fn the_log_of_an_operator_that_cannot_be_reached_holds_no_secret() {
    use tower_euid::{Environment, EuidClient};

    let log = Log::default();
    let logging = log.start();
    // A port that was just free: nobody answers there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let secret = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
    let environment = Environment::Url(format!("http://{address}/private-path"));
    let client = EuidClient::builder(environment).credentials("the-api-key", secret).build().unwrap();
    let mut site = Site::new(client).configured(|layer| layer.max_wait(Duration::from_secs(60)));
    site.update(EuidUpdate::login(identity())).await;
    site.wait_until(DUE);
    let page = tower::service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(())));
    tower::ServiceExt::oneshot(site.layer.layer(page), site.jar.request()).await.unwrap();
    drop(logging);

    let mut secrets = secrets();
    secrets.extend(forms(ResponseKey::from_base64(secret).unwrap().expose_secret()));
    secrets.extend(["the-api-key", "private-path"].map(str::to_owned));
    secrets.extend([IDENTITY, ANCHOR].map(|name| site.jar.value(name).unwrap().to_owned()));
    let text = log.text();
    assert!(text.contains("could not be refreshed"), "it is a log: {text}");
    assert_holds_none(&text, &secrets);
}

/// With all that is below us logging too.
#[cfg(feature = "client")]
#[tokio::test]
async fn the_log_of_a_visitor_of_a_real_operator_holds_no_address_and_no_secret() {
    use crate::support::server::client_builder;
    use euid_sandbox::{Fault, Sandbox};
    use tower_euid::{Dii, Generated};

    const EMAIL: &str = "jane.saoirse@example.com";
    let loopback = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let server = Sandbox::builder().build().unwrap().serve(loopback).await.unwrap();
    let client = client_builder(&server).build().unwrap();
    let clock = server.sandbox().clock();
    let key = CookieKey::generate().unwrap();
    let site = Site::with_keys(key.clone().into(), client.clone());
    let mut site = site.configured(|layer| layer.clock(clock).max_wait(Duration::from_secs(60)));
    let log = Log::default();
    let logging = log.start();

    let Generated::Identity(identity) = client.generate(Dii::email(EMAIL).unwrap()).await.unwrap() else {
        panic!("nobody has opted out");
    };
    let mut secrets = vec![EMAIL.to_owned(), server.sandbox().api_key().to_owned()];
    secrets.extend([identity.advertising_token(), identity.refresh_token().expose_secret()].map(str::to_owned));
    let hours = Duration::from_secs(2 * 3600);
    site.update(EuidUpdate::login(identity)).await;
    let mut remember = |site: &Site| {
        secrets.extend([IDENTITY, ANCHOR].iter().filter_map(|name| site.jar.value(name)).map(str::to_owned));
    };
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
        secrets.extend(forms(ResponseKey::from_base64(key).unwrap().expose_secret()));
    }
    let text = log.text();
    assert!(text.contains("an identity was refreshed") && text.contains("could not be refreshed"), "{text}");
    assert_holds_none(&text, &secrets);
}
