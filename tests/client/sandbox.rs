//! Tests of the sandbox, mostly with the client over a real socket.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use euid_sandbox::{Fault, Lifetimes, Sandbox, SandboxServer};
use http::{HeaderMap, Method, Request};
use http_body_util::{Empty, Full};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tower::ServiceExt;
use tower_euid::clock::{Clock, ManualClock, UnixMillis};
use tower_euid::error::ErrorKind;
use tower_euid::identity::{Identity, RefreshToken};
use tower_euid::{Dii, EuidClient, EuidClientBuilder, GenerateRequest, Generated, Refreshed, Scope};

use crate::support::scope;
use crate::support::server::{client, client_builder, email, sandbox, serve, user};

/// Returns a sandbox of EUID, whose operator reads consent strings of the TCF. That of UID2 ignores them.
fn sandbox_of_euid() -> Sandbox {
    Sandbox::builder().scope(Scope::Euid).build().unwrap()
}

async fn generate(client: &EuidClient, person: Dii) -> Identity {
    crate::support::server::generate(client, person).await.unwrap()
}

async fn refresh(client: &EuidClient, identity: &Identity) -> Identity {
    match client.refresh(identity).await.unwrap() {
        Refreshed::Identity(identity) => identity,
        Refreshed::OptedOut => panic!("opted out"),
    }
}

async fn generate_error_kind(builder: EuidClientBuilder) -> ErrorKind {
    builder.build().unwrap().generate(user()).await.unwrap_err().kind()
}

#[tokio::test]
async fn sandbox_generates_refreshes_and_validates_an_identity() {
    let server = serve(sandbox()).await;
    let client = client(&server);
    let first = generate(&client, user()).await;
    let second = refresh(&client, &first).await;
    let again = refresh(&client, &first).await;
    let third = refresh(&client, &second).await;
    for identity in [&first, &second, &again, &third] {
        assert!(client.validate(identity.advertising_token(), user()).await.unwrap());
        assert!(!client.validate(identity.advertising_token(), email("other@example.com")).await.unwrap());
        assert_eq!(identity.advertising_token().len(), if scope() == Scope::Euid { 219 } else { 218 });
        assert_eq!(identity.refresh_token().expose_secret().len(), 388);
    }
    let calls = server.sandbox().calls();
    assert_eq!((calls.generate, calls.refresh, calls.validate, calls.other), (1, 3, 8, 0));
}

#[tokio::test]
async fn sandbox_opt_out_ends_the_identities_of_that_person_only() {
    let server = serve(sandbox()).await;
    let client = client(&server);
    let phone = Dii::phone("+12345678999").unwrap();
    let (opted_out, other) = (generate(&client, user()).await, generate(&client, phone).await);
    server.opt_out(user());
    assert_eq!(client.refresh(&opted_out).await.unwrap(), Refreshed::OptedOut);
    assert_eq!(client.generate(user()).await.unwrap(), Generated::OptedOut);
    refresh(&client, &other).await;
}

#[tokio::test]
async fn sandbox_refresh_token_is_valid_through_its_last_millisecond() {
    let start = UnixMillis::from_millis(1_800_000_000_000);
    let seconds = Duration::from_secs;
    let lifetimes = Lifetimes { refresh_from: seconds(1), identity_expires: seconds(2), refresh_expires: seconds(3) };
    let sandbox = Sandbox::builder().scope(scope()).clock(ManualClock::at(start)).lifetimes(lifetimes).build().unwrap();
    let server = serve(sandbox).await;
    let client = client(&server);
    let identity = generate(&client, user()).await;
    assert_eq!(identity.times().refresh_from, start.saturating_add(seconds(1)));
    assert_eq!(identity.times().identity_expires, start.saturating_add(seconds(2)));
    assert_eq!(identity.times().refresh_expires, start.saturating_add(seconds(3)));

    server.advance(seconds(3));
    let renewed = refresh(&client, &identity).await;
    assert_eq!(renewed.times().refresh_expires, start.saturating_add(seconds(6)));
    server.advance(Duration::from_millis(1));
    assert_eq!(client.refresh(&identity).await.unwrap_err().kind(), ErrorKind::RejectedToken);

    let anonymous = EuidClient::builder(tower_euid::Environment::Url(server.base_url())).build().unwrap();
    assert_eq!(anonymous.refresh(&identity).await.unwrap_err().kind(), ErrorKind::UnknownStatus);
    refresh(&anonymous, &renewed).await;
}

#[tokio::test]
async fn sandbox_tokens_are_valid_in_other_sandboxes() {
    let identity = generate(&client(&serve(sandbox()).await), user()).await;
    let server = serve(sandbox()).await;
    let renewed = refresh(&client(&server), &identity).await;
    assert!(client(&server).validate(renewed.advertising_token(), user()).await.unwrap());
}

#[tokio::test]
async fn sandbox_test_identities_opt_out_at_login_later_or_never() {
    let server = serve(sandbox()).await;
    let client = client(&server);
    let phone = |number| Dii::phone(number).unwrap();
    for opted_out in [email("optout@example.com"), phone("+00000000000")] {
        assert_eq!(client.generate(opted_out).await.unwrap(), Generated::OptedOut);
    }
    let later = [email("refresh-optout@example.com"), phone("+00000000002"), email("optout@email.com")];
    for opts_out_later in later {
        let identity = generate(&client, opts_out_later).await;
        assert!(client.validate(identity.advertising_token(), opts_out_later).await.unwrap());
        assert_eq!(client.refresh(&identity).await.unwrap(), Refreshed::OptedOut);
    }
    for active in [email("validate@example.com"), phone("+12345678901"), email("validate@email.com")] {
        server.opt_out(active);
        let identity = refresh(&client, &generate(&client, active).await).await;
        assert!(client.validate(identity.advertising_token(), active).await.unwrap());
    }
}

#[tokio::test]
async fn sandbox_of_an_old_version_requires_the_optout_check() {
    let server = serve(Sandbox::builder().scope(scope()).wants_optout_check(true).build().unwrap()).await;
    let error = client(&server).generate(user()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RejectedInput);
    assert!(error.to_string().contains("EuidClientBuilder::optout_check"), "{error}");
    generate(&client_builder(&server).optout_check(true).build().unwrap(), user()).await;
    let current = serve(sandbox()).await;
    generate(&client_builder(&current).optout_check(true).build().unwrap(), user()).await;
}

#[tokio::test]
async fn sandbox_checks_a_consent_string_if_present() {
    let server = serve(sandbox_of_euid()).await;
    let client = client(&server);
    let with = |consent: &str| GenerateRequest::from(user()).tcf_consent_string(consent);
    let generated = client.generate(with("CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA")).await.unwrap();
    assert!(matches!(generated, Generated::Identity(_)));
    let generated = client.generate(with("CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA")).await.unwrap();
    assert_eq!(generated, Generated::InsufficientConsent);
    let error = client.generate(with("CPeh")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RejectedInput);
}

#[tokio::test]
async fn sandbox_distinguishes_a_wrong_api_key_from_a_wrong_secret() {
    let server = serve(sandbox()).await;
    let secret = server.sandbox().client_secret();
    let other_key = client_builder(&server).credentials(format!("{}-C-T-124-unknown.key", scope()), secret);
    assert_eq!(generate_error_kind(other_key).await, ErrorKind::Unauthorized);

    let other_secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let other_secret = client_builder(&server).credentials(server.sandbox().api_key(), other_secret);
    assert_eq!(generate_error_kind(other_secret).await, ErrorKind::Undecryptable);
}

#[tokio::test]
async fn clock_drift_is_refused_from_the_exact_millisecond() {
    let now = UnixMillis::from_millis(1_800_000_000_000);
    let sandbox = Sandbox::builder().scope(scope()).clock(ManualClock::at(now)).build().unwrap();
    let server = serve(sandbox).await;
    let outcome = |offset: i64| {
        let clock = ManualClock::at(UnixMillis::from_millis(now.as_millis() + offset));
        let client = client_builder(&server).clock(clock).build().unwrap();
        async move { client.generate(user()).await.map_err(|error| error.kind()) }
    };
    for accepted in [-119_999, 0, 119_000] {
        assert!(matches!(outcome(accepted).await, Ok(Generated::Identity(_))), "{accepted}");
    }
    for refused in [-120_000, 119_001] {
        assert_eq!(outcome(refused).await, Err(ErrorKind::ClockDrift), "{refused}");
    }
}

#[tokio::test]
async fn sandbox_fault_gives_its_error_kind_until_it_ends() {
    let server = serve(sandbox()).await;
    let client = client(&server);
    let identity = generate(&client, user()).await;
    for (fault, kind) in [
        (Fault::Status(503), ErrorKind::Transient),
        (Fault::Status(404), ErrorKind::Malformed),
        (Fault::Status(99), ErrorKind::Transient),
        (Fault::Garbage, ErrorKind::Malformed),
        (Fault::Refuse("invalid_token"), ErrorKind::RejectedToken),
        (Fault::Refuse("expired_token"), ErrorKind::RejectedToken),
        (Fault::Refuse("client_error"), ErrorKind::RejectedInput),
        (Fault::Refuse("error"), ErrorKind::UnknownStatus),
        (Fault::Redirect, ErrorKind::Malformed),
        (Fault::LargeBody(64 * 1024), ErrorKind::Undecryptable),
        (Fault::LargeBody(64 * 1024 + 4), ErrorKind::Malformed),
        (Fault::WrongNonce, ErrorKind::Malformed),
        (Fault::WrongKey, ErrorKind::Undecryptable),
    ] {
        server.fault(fault);
        assert_eq!(client.generate(user()).await.unwrap_err().kind(), kind, "{fault:?}");
        let refreshed = client.refresh(&identity).await;
        match fault {
            Fault::WrongNonce => assert!(refreshed.is_ok(), "the answer to a refresh has no nonce"),
            _ => assert_eq!(refreshed.unwrap_err().kind(), kind, "{fault:?}"),
        }
        server.fault(None);
        refresh(&client, &identity).await;
    }
    let calls = server.sandbox().calls();
    assert_eq!(calls.refresh, 2 * (calls.generate - 1), "a redirect is not followed");
}

#[tokio::test]
async fn sandbox_delay_beyond_the_clients_timeout_is_transient() {
    let server = serve(sandbox()).await;
    let client = client_builder(&server).timeout(Duration::from_millis(40)).build().unwrap();
    server.fault(Fault::Delay(Duration::from_secs(60)));
    assert_eq!(client.generate(user()).await.unwrap_err().kind(), ErrorKind::Transient);
    server.fault(Fault::Delay(Duration::from_millis(1)));
    generate(&self::client(&server), user()).await;
}

#[tokio::test]
async fn sandbox_server_stops_when_dropped() {
    let server = serve(sandbox()).await;
    let client = client(&server);
    generate(&client, user()).await;
    drop(server);
    assert_eq!(client.generate(user()).await.unwrap_err().kind(), ErrorKind::Transient);
}

#[tokio::test]
async fn sandbox_serves_only_loopback_unless_insecure() {
    let all_addresses = SocketAddr::from(([0, 0, 0, 0], 0));
    let sandbox = sandbox();
    let error = sandbox.clone().serve(all_addresses).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let server = sandbox.serve_insecure(all_addresses).await.unwrap();
    assert!(server.base_url().starts_with("http://127.0.0.1:"), "{}", server.base_url());
    generate(&client(&server), user()).await;
}

#[tokio::test]
async fn sandbox_treats_a_refresh_token_of_the_old_format_as_opted_out() {
    let last_millisecond = ManualClock::at(UnixMillis::from_millis(1_615_222_799_999));
    let server = serve(Sandbox::builder().scope(scope()).clock(last_millisecond).build().unwrap()).await;
    let client = client(&server);
    let old_format = generate(&client, user()).await;
    server.advance(Duration::from_millis(1));
    let current_format = generate(&client, user()).await;
    assert_eq!(client.refresh(&old_format).await.unwrap(), Refreshed::OptedOut);
    refresh(&client, &current_format).await;
}

#[tokio::test]
async fn sandbox_rejects_invalid_tokens() {
    let server = serve(sandbox()).await;
    let client = client(&server);
    let identity = generate(&client, user()).await;
    let other = RefreshToken::from("not-a-token".to_owned());
    let other = Identity::new("E4", other, identity.response_key().clone(), identity.times()).unwrap();
    assert_eq!(client.refresh(&other).await.unwrap_err().kind(), ErrorKind::RejectedToken);
    assert_eq!(client.validate("E4", user()).await.unwrap_err().kind(), ErrorKind::RejectedInput);
}

#[tokio::test]
async fn sandbox_checks_body_length_then_api_key_then_envelope() {
    let sandbox = sandbox();
    let key = sandbox.api_key().to_owned();
    let post = |path: &str, authorization: String, body: Vec<u8>| {
        let request = Request::post(path).header("authorization", authorization).body(Full::new(Bytes::from(body)));
        let sandbox = sandbox.clone();
        async move { sandbox.oneshot(request.unwrap()).await.unwrap().status().as_u16() }
    };
    let longest = || vec![b'A'; 1024 * 1024];
    let too_long = || vec![b'A'; 1024 * 1024 + 1];
    for path in ["/v2/token/generate", "/v2/token/validate/", "/v2/token/logout", "/v3/identity/map"] {
        assert_eq!(post(path, "Bearer unknown".to_owned(), too_long()).await, 413, "{path}");
        assert_eq!(post(path, "Bearer unknown".to_owned(), longest()).await, 401, "{path}");
        assert_eq!(post(path, format!("Bearer  {key}"), longest()).await, 401, "{path}");
    }
    assert_eq!(post("/v2/token/generate", format!(" bEARER {key} "), too_long()).await, 413);
    assert_eq!(post("/v2/token/generate", format!("Bearer {key}"), longest()).await, 400);
    assert_eq!(post("/v2/token/refresh", "Bearer unknown".to_owned(), too_long()).await, 413);
    assert_eq!(post("/v2/token/generate//", format!("Bearer {key}"), Vec::new()).await, 400);
    assert_eq!(post("/v2/token/generate/x", format!("Bearer {key}"), Vec::new()).await, 404);
    assert_eq!(sandbox.calls().other, 7);
}

#[tokio::test]
async fn sandbox_refuses_a_too_long_body_by_its_content_length() {
    let server = serve(sandbox()).await;
    let head = "POST /v2/token/generate HTTP/1.1\r\nhost: sandbox\r\ncontent-length: 1048577\r\n\r\n";
    assert!(exchange(&server, head).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn sandbox_refuses_too_long_request_lines_and_headers() {
    let server = serve(sandbox()).await;
    let long = |length| "a".repeat(length);
    for (target, header, status) in [(3000, 4000, "405"), (5000, 10, "414"), (10, 9 * 1024, "431")] {
        let head =
            format!("GET /v2/token/refresh?{} HTTP/1.1\r\nhost: sandbox\r\nx: {}\r\n\r\n", long(target), long(header));
        let answer = exchange(&server, &head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {header}: {answer}");
    }
}

/// Sends raw bytes. Returns the first line of the answer.
async fn exchange(server: &SandboxServer, request: &str) -> String {
    let address = server.base_url();
    let mut connection = TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer).await.unwrap();
    answer
}

/// Sends a request without a body. Returns status and headers of the answer.
async fn head(sandbox: &Sandbox, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
    let request = headers
        .iter()
        .fold(Request::builder().method(method).uri(path), |request, (name, value)| request.header(*name, *value));
    let response = sandbox.clone().oneshot(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    (response.status().as_u16(), response.headers().clone())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn sandbox_answers_other_methods_like_the_operator() {
    let sandbox = sandbox();
    for (method, path, status, allow) in [
        (Method::GET, "/ops/healthcheck", 200, None),
        (Method::POST, "/ops/healthcheck", 405, Some("GET")),
        (Method::PUT, "/v2/token/refresh", 405, Some("POST")),
        (Method::HEAD, "/v2/token/refresh", 405, None),
        (Method::GET, "/nothing", 404, None),
        (Method::OPTIONS, "/v2/token/refresh", 405, Some("POST")),
        (Method::OPTIONS, "/ops/healthcheck", 405, Some("GET")),
        (Method::OPTIONS, "/nothing", 404, None),
    ] {
        let (answered, headers) = head(&sandbox, method.clone(), path, &[]).await;
        assert_eq!((answered, text(&headers, "allow")), (status, allow), "{method} {path}");
        assert_eq!(text(&headers, "vary"), Some("origin"), "{method} {path}");
        assert_eq!(text(&headers, "access-control-allow-origin"), None, "{method} {path}");
    }
}

#[tokio::test]
async fn sandbox_allows_the_origin_of_every_request() {
    let sandbox = sandbox();
    for origin in ["https://publisher.example", "null", "*"] {
        for (method, path, status) in [
            (Method::POST, "/v2/token/generate", 401),
            (Method::POST, "/v2/token/refresh", 400),
            (Method::GET, "/v2/token/refresh", 405),
            (Method::OPTIONS, "/v2/token/refresh", 405),
            (Method::GET, "/ops/healthcheck", 200),
            (Method::GET, "/nothing", 404),
        ] {
            let (answered, headers) = head(&sandbox, method.clone(), path, &[("origin", origin)]).await;
            assert_eq!(answered, status, "{method} {path}");
            assert_eq!(text(&headers, "access-control-allow-origin"), Some(origin), "{method} {path}");
            assert_eq!(text(&headers, "vary"), Some("origin"), "{method} {path}");
        }
    }
    sandbox.fault(Fault::Status(503));
    let (status, headers) = head(&sandbox, Method::POST, "/v2/token/refresh", &[("origin", "https://a.example")]).await;
    assert_eq!((status, text(&headers, "access-control-allow-origin")), (503, Some("https://a.example")));
}

#[tokio::test]
async fn sandbox_allows_a_preflight_on_every_path_and_counts_no_call() {
    let sandbox = sandbox();
    let preflight = [("origin", "https://publisher.example"), ("access-control-request-method", "POST")];
    for path in ["/v2/token/refresh", "/v2/token/validate", "/ops/healthcheck", "/nothing"] {
        let (status, headers) = head(&sandbox, Method::OPTIONS, path, &preflight).await;
        assert_eq!(status, 204, "{path}");
        assert_eq!(text(&headers, "access-control-allow-origin"), Some("https://publisher.example"), "{path}");
        assert_eq!(text(&headers, "access-control-allow-methods"), Some("GET,POST,OPTIONS"), "{path}");
        assert_eq!(text(&headers, "vary"), None, "{path}");
        let allowed = text(&headers, "access-control-allow-headers").unwrap();
        assert!(
            allowed.starts_with("X-UID2-Client-Version,") && allowed.contains(",Content-Type"),
            "{path}: {allowed}"
        );
        assert_eq!(allowed.ends_with(",Authorization"), path == "/v2/token/validate", "{path}: {allowed}");
    }
    let calls = sandbox.calls();
    assert_eq!((calls.refresh, calls.validate, calls.other), (0, 0, 4));
    for not_preflight in [&preflight[..1], &preflight[1..]] {
        assert_eq!(head(&sandbox, Method::OPTIONS, "/v2/token/refresh", not_preflight).await.0, 405);
    }
}

#[tokio::test]
async fn sandbox_refuses_an_empty_origin() {
    let sandbox = sandbox();
    for (method, path) in
        [(Method::POST, "/v2/token/refresh"), (Method::OPTIONS, "/v2/token/refresh"), (Method::GET, "/ops/healthcheck")]
    {
        let headers = [("origin", ""), ("access-control-request-method", "POST")];
        let (status, headers) = head(&sandbox, method.clone(), path, &headers).await;
        assert_eq!(status, 403, "{method} {path}");
        assert!(headers.is_empty(), "{method} {path}: {headers:?}");
    }
}

#[tokio::test]
async fn sandbox_reads_a_path_like_the_operators_router() {
    let sandbox = sandbox();
    for (path, status) in [
        ("//v2/token/refresh", 405),
        ("/v2//token/refresh", 405),
        ("/v2/token/refresh/", 405),
        ("/x/../v2/token/refresh", 405),
        ("/v2/token/%72efresh", 405),
        ("/v2%2Ftoken/refresh", 404),
        ("/v2/token/refresh%", 400),
        ("/v2/token/refresh?client=%", 400),
        ("/ops/%68ealthcheck", 200),
    ] {
        assert_eq!(head(&sandbox, Method::GET, path, &[]).await.0, status, "{path}");
    }
}

#[test]
fn sandbox_shares_its_clock() {
    let sandbox = Sandbox::builder().scope(scope()).clock(ManualClock::at(UnixMillis::from_millis(0))).build().unwrap();
    let clock = sandbox.clock();
    sandbox.clone().advance(Duration::from_secs(1));
    assert_eq!(clock.now(), UnixMillis::from_millis(1000));
}

#[tokio::test]
async fn sandbox_gives_the_operators_recorded_answers_to_tc_strings() {
    let file: Value = serde_json::from_str(include_str!("../vectors/consent.json")).unwrap();
    let sandbox = sandbox_of_euid();
    let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let tc_string = case["text"].as_str().unwrap();
        let answer = match client.generate(GenerateRequest::from(user()).tcf_consent_string(tc_string)).await {
            Ok(Generated::Identity(_)) => json!("success"),
            Ok(Generated::InsufficientConsent) => json!("insufficient_user_consent"),
            Err(error) if error.kind() == ErrorKind::RejectedInput => json!(400),
            Err(error) if error.kind() == ErrorKind::Transient => json!(500),
            other => panic!("{tc_string}: {other:?}"),
        };
        assert_eq!(answer, case["operator"], "{tc_string}");
    }
}
