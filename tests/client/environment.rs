//! What the process's environment does to the client, seen from a process that has that environment.
//!
//! Each test runs itself again as a child with other variables; `child` is what the child does.

#![expect(clippy::expect_used, reason = "what a test needs is there, or the test fails")]

use std::env;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use euid_sandbox::Sandbox;
use tower_euid::clock::UnixMillis;
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{Dii, Environment, EuidClient, Generated, KeyRing};

use crate::support::server::client_builder;

/// Marks the child.
const CHILD: &str = "TOWER_EUID_TEST_CHILD";

/// Runs `test` of this file again with `variables`; gives back what it printed.
fn again(test: &str, variables: &[(&str, &str)]) -> String {
    let output = Command::new(env::current_exe().expect("this test"))
        .args([&format!("environment::{test}"), "--exact", "--nocapture"])
        .env(CHILD, "1")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .envs(variables.iter().copied())
        .output()
        .expect("the child runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let passed = output.status.success() && printed.contains("1 passed");
    assert!(passed, "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

async fn child_talks_to_a_loopback_operator() {
    let sandbox = Sandbox::builder().build().expect("defaults");
    let sandbox = sandbox.serve(([127, 0, 0, 1], 0).into()).await.expect("a port");
    let client = client_builder(&sandbox).build().expect("a client");
    let generated = client.generate(Dii::email("user@example.com").expect("an address")).await;
    assert!(matches!(generated, Ok(Generated::Identity(_))), "{generated:?}");
}

#[tokio::test]
async fn nothing_for_a_loopback_operator_goes_to_a_proxy() {
    if is_child() {
        child_talks_to_a_loopback_operator().await;
        // So that the proxy is known to be one that is used where it may be.
        let elsewhere = EuidClient::builder(Environment::Url("https://operator.invalid".to_owned())).build();
        println!("elsewhere: {}", refresh_at(&elsewhere.expect("CA certificates")).await);
        return;
    }
    let proxy = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = format!("http://{}", proxy.local_addr().expect("bound"));
    let connections = std::thread::spawn(move || {
        let mut heard = Vec::new();
        // Ends with the connection that the test makes last.
        while let Ok((mut socket, _)) = proxy.accept() {
            let mut bytes = [0; 512];
            let length = std::io::Read::read(&mut socket, &mut bytes).unwrap_or(0);
            let line = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
            if line == "end" {
                break;
            }
            heard.push(line);
        }
        heard
    });
    let proxies = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    again("nothing_for_a_loopback_operator_goes_to_a_proxy", &proxies.map(|name| (name, address.as_str())));
    let mut last = TcpStream::connect(address.trim_start_matches("http://")).expect("the proxy listens");
    std::io::Write::write_all(&mut last, b"end").expect("the proxy reads");
    let heard = connections.join().expect("the proxy's thread");
    assert!(heard.len() == 1 && heard.iter().all(|line| line.starts_with("CONNECT operator.invalid")), "{heard:?}");
}

#[tokio::test]
async fn without_ca_certificates_https_is_refused_with_a_word_about_them_and_loopback_works() {
    if is_child() {
        child_talks_to_a_loopback_operator().await;
        let error = EuidClient::builder(Environment::Production).build().expect_err("no certificates");
        println!("refused: {error}");
        return;
    }
    let nowhere = "/nowhere/at/all";
    let printed = again(
        "without_ca_certificates_https_is_refused_with_a_word_about_them_and_loopback_works",
        &[("SSL_CERT_FILE", nowhere), ("SSL_CERT_DIR", nowhere)],
    );
    assert!(printed.contains("refused: no HTTPS client can be made (are the system's CA certificates"), "{printed}");
}

#[tokio::test]
async fn https_proxy_is_used_except_for_the_hosts_of_no_proxy() {
    let sandbox = Sandbox::builder().build().expect("defaults");
    let operator = crate::support::tls::TlsOperator::start(sandbox.clone(), crate::support::tls::Clients::Any).await;
    let builder = EuidClient::builder(Environment::Url(operator.base_url()))
        .credentials(sandbox.api_key(), sandbox.client_secret())
        .root_certificates_pem(crate::support::tls::CA);
    if is_child() {
        let client = builder.build().expect("a client");
        let generated = client.generate(Dii::email("user@example.com").expect("an address")).await;
        assert_eq!(generated.is_ok(), env::var_os("NO_PROXY").is_some(), "{generated:?}");
        return;
    }
    // A proxy that is a closed port: bound, and not listened on.
    let proxy = tokio::net::TcpSocket::new_v4().expect("a socket");
    proxy.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = format!("http://{}", proxy.local_addr().expect("bound"));
    let test = "https_proxy_is_used_except_for_the_hosts_of_no_proxy";
    again(test, &[("HTTPS_PROXY", &address)]);
    again(test, &[("ALL_PROXY", &address)]);
    again(test, &[("HTTPS_PROXY", &address), ("NO_PROXY", "127.0.0.1")]);
}

/// A private CA can be given by the environment as well, and a client with roots of its own needs no others.
#[tokio::test]
async fn ssl_cert_file_names_the_roots_unless_the_client_has_its_own() {
    let sandbox = Sandbox::builder().build().expect("defaults");
    let operator = crate::support::tls::TlsOperator::start(sandbox.clone(), crate::support::tls::Clients::Any).await;
    let builder = EuidClient::builder(Environment::Url(operator.base_url()))
        .credentials(sandbox.api_key(), sandbox.client_secret());
    if is_child() {
        let builder = match env::var("TOWER_EUID_TEST_ROOTS") {
            Ok(_) => builder.root_certificates_pem(crate::support::tls::CA),
            Err(_) => builder,
        };
        let client = builder.build().expect("a client");
        let generated = client.generate(Dii::email("user@example.com").expect("an address")).await;
        assert!(matches!(generated, Ok(Generated::Identity(_))), "{generated:?}");
        return;
    }
    let test = "ssl_cert_file_names_the_roots_unless_the_client_has_its_own";
    again(test, &[("SSL_CERT_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/ca.pem"))]);
    let nowhere = "/nowhere/at/all";
    again(test, &[("SSL_CERT_FILE", nowhere), ("SSL_CERT_DIR", nowhere), ("TOWER_EUID_TEST_ROOTS", "1")]);
}

#[test]
fn client_secret_is_refused_as_a_cookie_key_of_a_ring_from_the_environment() {
    if is_child() {
        let ring = KeyRing::from_env("EUID_COOKIE_KEYS");
        println!("ring: {:?}", ring.map(|_| ()).map_err(|error| error.to_string()));
        return;
    }
    let (key, secret) =
        ("oNRd4zcxu4Q2A4XFMs7eUTcQjmN8fNuNYVY3DAtTJZ4=", "1R2lOoBqUbGbOQsDFDMKZc5VvbTSEp0LZgVVZ1M7Rmo=");
    let list = format!("{key}, {secret}");
    for (keys, expected) in [
        (key, "ring: Ok(())"),
        (secret, "EUID_COOKIE_KEYS: cookie key 1 is the client secret"),
        (&list, "EUID_COOKIE_KEYS: cookie key 2 is the client secret"),
    ] {
        let test = "client_secret_is_refused_as_a_cookie_key_of_a_ring_from_the_environment";
        let printed = again(test, &[("EUID_COOKIE_KEYS", keys), ("EUID_CLIENT_SECRET", &format!("{secret}\n"))]);
        assert!(printed.contains(expected), "{printed}");
    }
}

/// A call that can't succeed, for who listens on the way.
async fn refresh_at(client: &EuidClient) -> String {
    let at = UnixMillis::from_millis;
    let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    let identity = Identity::new("a", "r".to_owned().into(), [0; 32].into(), times).expect("an identity");
    client.refresh(&identity).await.map_or_else(|error| error.to_string(), |_| "answered".to_owned())
}
