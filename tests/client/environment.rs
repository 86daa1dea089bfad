//! Tests of environment variables that the client reads: proxies, certificates and keys.
//!
//! A test starts itself again as a child process that has the variables. [`is_child`] tells the two apart.

#![expect(clippy::expect_used, reason = "what a test needs is there, or the test fails")]

use std::env;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use tower_euid::clock::UnixMillis;
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{Environment, EuidClient, KeyRing};

use crate::support::scope;
use crate::support::server::{client, client_builder_at, generate, sandbox, serve, user};
use crate::support::tls::{CA, Clients, TlsOperator};

/// The variable that marks the child process.
const CHILD: &str = "TOWER_EUID_TEST_CHILD";

/// Runs `test` of this file as a child process with `variables`. Returns its output.
fn run_child(test: &str, variables: &[(&str, &str)]) -> String {
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

async fn call_loopback_operator() {
    let server = serve(sandbox()).await;
    let generated = generate(&client(&server), user()).await;
    assert!(generated.is_ok(), "{generated:?}");
}

#[tokio::test]
async fn proxy_gets_no_calls_to_a_loopback_operator() {
    if is_child() {
        call_loopback_operator().await;
        // This call must reach the proxy: it shows that the child uses it.
        let elsewhere = EuidClient::builder(Environment::Url("https://operator.invalid".to_owned())).build();
        println!("elsewhere: {}", refresh_at(&elsewhere.expect("CA certificates")).await);
        return;
    }
    let proxy = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = format!("http://{}", proxy.local_addr().expect("bound"));
    let connections = std::thread::spawn(move || {
        let mut received = Vec::new();
        // The test ends this loop with its last connection.
        while let Ok((mut socket, _)) = proxy.accept() {
            let mut bytes = [0; 512];
            let length = std::io::Read::read(&mut socket, &mut bytes).unwrap_or(0);
            let line = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
            if line == "end" {
                break;
            }
            received.push(line);
        }
        received
    });
    let proxies = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    run_child("proxy_gets_no_calls_to_a_loopback_operator", &proxies.map(|name| (name, address.as_str())));
    let mut last = TcpStream::connect(address.trim_start_matches("http://")).expect("the proxy listens");
    std::io::Write::write_all(&mut last, b"end").expect("the proxy reads");
    let received = connections.join().expect("the proxy's thread");
    assert!(
        received.len() == 1 && received.iter().all(|line| line.starts_with("CONNECT operator.invalid")),
        "{received:?}"
    );
}

#[tokio::test]
async fn client_without_ca_certificates_names_them_and_works_with_loopback() {
    if is_child() {
        call_loopback_operator().await;
        let error = EuidClient::builder(Environment::Production(scope())).build().expect_err("no certificates");
        println!("error: {error}");
        return;
    }
    let missing = "/nowhere/at/all";
    let printed = run_child(
        "client_without_ca_certificates_names_them_and_works_with_loopback",
        &[("SSL_CERT_FILE", missing), ("SSL_CERT_DIR", missing)],
    );
    assert!(printed.contains("error: no HTTPS client can be made (are the system's CA certificates"), "{printed}");
}

#[tokio::test]
async fn https_proxy_is_used_except_for_the_hosts_of_no_proxy() {
    let sandbox = sandbox();
    let operator = TlsOperator::start(sandbox.clone(), Clients::Any).await;
    let builder = client_builder_at(operator.base_url(), &sandbox).root_certificates_pem(CA);
    if is_child() {
        let client = builder.build().expect("a client");
        let generated = generate(&client, user()).await;
        assert_eq!(generated.is_ok(), env::var_os("NO_PROXY").is_some(), "{generated:?}");
        return;
    }
    // The port of the proxy is closed: it is bound, but does not listen.
    let proxy = tokio::net::TcpSocket::new_v4().expect("a socket");
    proxy.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = format!("http://{}", proxy.local_addr().expect("bound"));
    let test = "https_proxy_is_used_except_for_the_hosts_of_no_proxy";
    run_child(test, &[("HTTPS_PROXY", &address)]);
    run_child(test, &[("ALL_PROXY", &address)]);
    run_child(test, &[("HTTPS_PROXY", &address), ("NO_PROXY", "127.0.0.1")]);
}

/// The variable can name a private CA. A client with configured roots does not need the variable.
#[tokio::test]
async fn ssl_cert_file_names_the_tls_roots_unless_the_client_has_its_own() {
    let sandbox = sandbox();
    let operator = TlsOperator::start(sandbox.clone(), Clients::Any).await;
    let builder = client_builder_at(operator.base_url(), &sandbox);
    if is_child() {
        let builder = match env::var("TOWER_EUID_TEST_ROOTS") {
            Ok(_) => builder.root_certificates_pem(CA),
            Err(_) => builder,
        };
        let client = builder.build().expect("a client");
        let generated = generate(&client, user()).await;
        assert!(generated.is_ok(), "{generated:?}");
        return;
    }
    let test = "ssl_cert_file_names_the_tls_roots_unless_the_client_has_its_own";
    run_child(test, &[("SSL_CERT_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/ca.pem"))]);
    let missing = "/nowhere/at/all";
    run_child(test, &[("SSL_CERT_FILE", missing), ("SSL_CERT_DIR", missing), ("TOWER_EUID_TEST_ROOTS", "1")]);
}

#[test]
fn key_ring_from_the_environment_refuses_the_client_secret_as_a_key() {
    if is_child() {
        let ring = KeyRing::from_env("EUID_COOKIE_KEYS");
        println!("ring: {:?}", ring.map(|_| ()).map_err(|error| error.to_string()));
        return;
    }
    let (key, secret) =
        ("oNRd4zcxu4Q2A4XFMs7eUTcQjmN8fNuNYVY3DAtTJZ4=", "1R2lOoBqUbGbOQsDFDMKZc5VvbTSEp0LZgVVZ1M7Rmo=");
    let list = format!("{key}, {secret}");
    for variable in ["EUID_CLIENT_SECRET", "UID2_CLIENT_SECRET"] {
        for (keys, expected) in [
            (key, "ring: Ok(())"),
            (secret, "EUID_COOKIE_KEYS: cookie key 1 is the client secret"),
            (&list, "EUID_COOKIE_KEYS: cookie key 2 is the client secret"),
        ] {
            let test = "key_ring_from_the_environment_refuses_the_client_secret_as_a_key";
            let printed = run_child(test, &[("EUID_COOKIE_KEYS", keys), (variable, &format!("{secret}\n"))]);
            assert!(printed.contains(expected), "{variable}: {printed}");
        }
    }
}

/// Makes a call that can't succeed. A proxy on the way sees it. Returns the error.
async fn refresh_at(client: &EuidClient) -> String {
    let at = UnixMillis::from_millis;
    let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    let identity = Identity::new("a", "r".to_owned().into(), [0; 32].into(), times).expect("an identity");
    client.refresh(&identity).await.map_or_else(|error| error.to_string(), |_| "answered".to_owned())
}
