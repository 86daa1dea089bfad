//! Tests of the API as a site's server calls it, on an embedded sandbox.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE};
use axum::http::{Method, Request, StatusCode};
use euid_sandbox::{Fault, Sandbox};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_euid::{CookieConfig, CookieKey, EuidClientBuilder, EuidLayer, HeaderConfig, RefreshMode, StoreSecret};

use super::*;

pub(super) const TOO_LITTLE: &str = "CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA";
pub(super) const ENOUGH: &str = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";

/// A site's server with one visitor, whose cookies it keeps.
pub(super) struct Caller {
    pub(super) api: Router,
    pub(super) sandbox: Sandbox,
    pub(super) cookies: Vec<(String, String)>,
}

pub(super) struct Answer {
    status: StatusCode,
    body: Value,
}

impl Answer {
    pub(super) fn state(&self) -> &str {
        self.body["state"].as_str().unwrap()
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.body["advertising_token"].as_str()
    }

    fn error(&self) -> &str {
        self.body["error"].as_str().unwrap()
    }
}

impl Caller {
    pub(super) fn new() -> Self {
        Self::configured(|layer| layer)
    }

    /// Returns a caller of an API with the defaults of `serve`, and what `configure` changes.
    pub(super) fn configured(configure: impl FnOnce(EuidLayer) -> EuidLayer) -> Self {
        let sandbox = Sandbox::builder().build().unwrap();
        let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
        let layer = configure(layer.refresh_mode(RefreshMode::Concurrent).max_wait(Duration::from_millis(30)));
        let site = Site { layer, clients: vec![(Scope::Euid, client)] };
        Self { api: router(site, None), sandbox, cookies: Vec::new() }
    }

    /// From now on the API needs this token.
    pub(super) fn require_token(&mut self, token: &str) {
        let (operator, clock) = (self.sandbox.operator(), self.sandbox.clock());
        let (client, layer) = tower_euid::from_service(operator, self.sandbox.clone(), clock).unwrap();
        self.api = router(Site { layer, clients: vec![(Scope::Euid, client)] }, Some(token.parse().unwrap()));
    }

    async fn send(&mut self, request: Request<Body>) -> Answer {
        let response = self.api.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert!(!response.headers().contains_key("set-cookie"));
        let status = response.status();
        let body: Value = serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap();
        for line in body["set_cookie"].as_array().into_iter().flatten() {
            self.keep(line.as_str().unwrap());
        }
        Answer { status, body }
    }

    /// Does as the line of a `Set-Cookie` says.
    pub(super) fn keep(&mut self, line: &str) {
        let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
        self.cookies.retain(|(other, _)| other != name);
        self.cookies.extend((!value.is_empty()).then(|| (name.to_owned(), value.to_owned())));
    }

    pub(super) fn request(&self, method: Method, uri: &str) -> axum::http::request::Builder {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Request::builder().method(method).uri(uri).header(COOKIE, cookies.join("; "))
    }

    pub(super) async fn page(&mut self) -> Answer {
        self.page_of("").await
    }

    pub(super) async fn page_of(&mut self, query: &str) -> Answer {
        let request = self.request(Method::GET, &format!("/v1/page{query}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&mut self, path: &str, form: impl Into<Body>) -> Answer {
        let request =
            self.request(Method::POST, path).header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8");
        self.send(request.body(form.into()).unwrap()).await
    }

    pub(super) async fn login(&mut self, form: &str) -> Answer {
        self.post("/v1/login", form.to_owned()).await
    }
}

#[tokio::test]
async fn visitor_without_state_is_absent_and_their_page_stays_as_it_is() {
    let answer = Caller::new().page().await;
    let absent = json!({ "state": "absent", "reason": null, "advertising_token": null, "eids": [], "set_cookie": [], "headers": {} });
    assert_eq!((answer.status, answer.body), (StatusCode::OK, absent));
}

#[tokio::test]
async fn login_answers_with_the_state_that_the_next_page_shows() {
    let mut caller = Caller::new();
    for form in ["email=user%40example.com", "phone=%2B12345678901", "email=other%40example.com&subject=17"] {
        let login = caller.login(form).await;
        assert_eq!((login.status, login.state()), (StatusCode::OK, "active"), "{form}");
        assert_eq!(login.body["headers"], json!({ "cache-control": "private, no-store" }));
        let token = login.token().unwrap().to_owned();
        assert_eq!(login.body["eids"], json!([{ "source": "euid.eu", "uids": [{ "id": token, "atype": 3 }] }]));
        let page = caller.page().await;
        assert_eq!((page.state(), page.token()), ("active", Some(&*token)));
        assert_eq!(page.body["headers"], json!({ "cache-control": "private, no-cache", "vary": "Cookie" }));
        assert_eq!(page.body["set_cookie"], json!([]));
    }
}

#[tokio::test]
async fn logout_ends_the_login_and_says_so() {
    let mut caller = Caller::new();
    caller.login("email=user%40example.com").await;
    let logout = caller.post("/v1/logout", "").await;
    assert_eq!((logout.status, logout.state(), logout.token()), (StatusCode::OK, "absent", None));
    assert_eq!(logout.body["headers"]["cache-control"], "private, no-store");
    assert!(caller.cookies.is_empty(), "{:?}", caller.cookies);
    assert_eq!(caller.page().await.state(), "absent");
}

#[tokio::test]
async fn login_of_a_person_who_has_opted_out_answers_so() {
    let mut caller = Caller::new();
    caller.login("email=user%40example.com").await;
    let login = caller.login("email=optout%40example.com&subject=17").await;
    assert_eq!((login.status, login.state(), login.token()), (StatusCode::OK, "opted_out", None));
    assert_eq!(caller.page().await.state(), "opted_out");
    assert_eq!(caller.page_of("?subject=17").await.state(), "opted_out");
    assert_eq!(caller.page_of("?subject=18").await.state(), "absent");
}

#[tokio::test]
async fn login_with_too_little_consent_in_its_form_is_absent() {
    let mut caller = Caller::new();
    caller.login("email=user%40example.com").await;
    let login = caller.login(&format!("email=user%40example.com&consent={TOO_LITTLE}")).await;
    assert_eq!((login.status, login.state()), (StatusCode::OK, "absent"));
    assert_eq!(caller.page().await.state(), "absent");
}

#[tokio::test]
async fn without_the_tcf_cookies_consent_nothing_is_shown_and_no_identity_made() {
    let mut caller = Caller::configured(EuidLayer::consent_from_tcf_cookie);
    let login = caller.login("email=user%40example.com").await;
    assert_eq!((login.status, login.state(), login.token()), (StatusCode::OK, "withheld", None));
    assert_eq!(caller.sandbox.calls().generate, 0);
    assert_eq!(caller.page().await.state(), "withheld");
    caller.cookies.push(("euconsent-v2".to_owned(), ENOUGH.to_owned()));
    assert_eq!(caller.login("email=user%40example.com").await.state(), "active");
    assert_eq!(caller.post("/v1/logout", "").await.state(), "absent");
}

#[tokio::test]
async fn failed_login_ends_the_previous_identity_and_says_so() {
    for (form, fault, status) in [
        ("email=user", None, StatusCode::BAD_REQUEST),
        ("email=user+tag%40example.com", None, StatusCode::BAD_REQUEST),
        ("mail=user%40example.com", None, StatusCode::BAD_REQUEST),
        ("email=user%40example.com", Some(Fault::Status(503)), StatusCode::SERVICE_UNAVAILABLE),
        ("email=user%40example.com", Some(Fault::Status(401)), StatusCode::BAD_GATEWAY),
    ] {
        let mut caller = Caller::new();
        caller.login("email=previous%40example.com").await;
        caller.sandbox.fault(fault);
        let login = caller.login(form).await;
        assert_eq!((login.status, login.state(), login.token()), (status, "absent", None), "{form}");
        assert!(!login.error().is_empty() && !login.error().contains("example.com"), "{}", login.error());
        assert_eq!(caller.page().await.state(), "absent", "{form}");
    }
}

#[tokio::test]
async fn page_that_names_the_user_sees_no_other_users_identity() {
    let mut caller = Caller::new();
    caller.login("email=user%40example.com&subject=17").await;
    assert_eq!(caller.page_of("?subject=17").await.state(), "active");
    assert_eq!(caller.page_of("?subject=").await.state(), "absent", "no user is signed in");
    assert_eq!(caller.page().await.state(), "active", "users are not compared");
    assert_eq!(caller.page_of("?subject=18").await.state(), "absent");
    assert_eq!(caller.page_of("?subject=17").await.state(), "absent", "it has been removed");
}

#[tokio::test(start_paused = true)]
async fn page_that_is_due_has_its_valid_token_at_once_and_the_next_the_new_one() {
    let mut caller = Caller::new();
    let login = caller.login("email=user%40example.com").await;
    caller.sandbox.advance(Duration::from_secs(900));
    caller.sandbox.fault(Fault::Delay(Duration::from_millis(150)));
    let due = timeout(Duration::from_millis(1), caller.page()).await.unwrap();
    assert_eq!((due.state(), due.token()), ("active", login.token()));
    // On the runtime's paused clock.
    tokio::time::sleep(Duration::from_millis(160)).await;
    let next = caller.page().await;
    assert_eq!(next.state(), "active");
    assert_ne!(next.token(), login.token());
    assert!(!next.body["set_cookie"].as_array().unwrap().is_empty());
    assert_eq!(caller.sandbox.refresh_calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn page_whose_token_has_expired_waits_at_most_30_ms() {
    let mut caller = Caller::new();
    caller.login("email=user%40example.com").await;
    caller.sandbox.advance(Duration::from_secs(3600));
    caller.sandbox.fault(Fault::Delay(Duration::from_secs(5)));
    assert!(timeout(Duration::from_millis(29), caller.page()).await.is_err());
    let page = timeout(Duration::from_millis(31), caller.page()).await.unwrap();
    assert_eq!(page.state(), "unavailable");
}

#[tokio::test]
async fn person_who_opts_out_is_shown_as_such_once_a_refresh_has_found_it() {
    let mut caller = Caller::configured(|layer| layer.refresh_mode(RefreshMode::Blocking));
    caller.login("email=refresh-optout%40example.com").await;
    caller.sandbox.advance(Duration::from_secs(900));
    let page = caller.page().await;
    assert_eq!((page.state(), page.token()), ("opted_out", None));
}

#[tokio::test]
async fn app_has_its_state_in_headers() {
    let mut caller = Caller::configured(|layer| layer.headers(HeaderConfig::default()));
    let request = caller.request(Method::POST, "/v1/login").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let request = request.header("euid-login", "").body("email=user%40example.com".into()).unwrap();
    let login = caller.send(request).await;
    assert_eq!((login.state(), &login.body["set_cookie"]), ("active", &json!([])));
    let mut request = caller.request(Method::GET, "/v1/page");
    for (name, value) in login.body["headers"].as_object().unwrap().iter().filter(|(name, _)| name.starts_with("euid-"))
    {
        request = request.header(name, value.as_str().unwrap());
    }
    let page = caller.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((page.state(), page.token()), ("active", login.token()));
}

#[tokio::test]
async fn cookie_for_scripts_is_set_too() {
    let mut caller = Caller::configured(|layer| layer.cookie(CookieConfig::default().expose_token_to_scripts()));
    let login = caller.login("email=user%40example.com").await;
    assert_eq!(login.state(), "active");
    assert!(
        caller
            .cookies
            .iter()
            .any(|(name, value)| name == "__euid_advertising_token" && Some(&**value) == login.token())
    );
}

/// Adds the store that these values of `EUID_STORE_URL` and `EUID_STORE_SECRET` name.
pub(super) fn stored(layer: EuidLayer, url: &str, secret: Option<&StoreSecret>) -> EuidLayer {
    let value = |name: &str| match name {
        "EUID_STORE_URL" => Some(url.into()),
        "EUID_STORE_SECRET" => secret.map(|secret| secret.expose_base64().as_str().into()),
        _ => None,
    };
    tower_euid_redis::from_variables(layer, value).unwrap()
}

#[tokio::test]
async fn with_a_store_by_login_the_client_has_a_handle_and_the_answers_the_state() {
    let mut caller = Caller::configured(|layer| stored(layer, "memory:", None));
    let login = caller.login("email=user%40example.com").await;
    assert_eq!((login.status, login.state()), (StatusCode::OK, "active"));
    assert_eq!(caller.cookies.iter().map(|(_, value)| value.len()).collect::<Vec<_>>(), [22]);
    let page = caller.page().await;
    assert_eq!((page.state(), page.token()), ("active", login.token()));
    let handle = caller.cookies.clone();
    let logout = caller.post("/v1/logout", "").await;
    assert_eq!((logout.state(), logout.token(), caller.cookies.len()), ("absent", None, 0));
    caller.cookies = handle;
    assert_eq!(caller.page().await.state(), "absent", "a copy of the handle");
    assert_eq!(caller.login("email=optout%40example.com").await.state(), "opted_out");
}

#[tokio::test]
async fn with_a_store_by_user_the_user_is_named_and_has_one_login_on_all_devices() {
    let secret = StoreSecret::generate().unwrap();
    let mut caller = Caller::configured(|layer| stored(layer, "memory:", Some(&secret)));
    assert_eq!(caller.login("email=user%40example.com").await.state(), "absent", "it names no user");
    let login = caller.login("email=user%40example.com&subject=17").await;
    assert_eq!((login.state(), caller.cookies.len()), ("active", 0));
    let page = caller.page_of("?subject=17").await;
    assert_eq!((page.state(), page.token()), ("active", login.token()));
    for query in ["", "?subject=", "?subject=18"] {
        assert_eq!(caller.page_of(query).await.state(), "absent", "{query}");
    }
    let failed = caller.login("email=user&subject=17").await;
    assert_eq!((failed.status, failed.state()), (StatusCode::BAD_REQUEST, "active"), "it is the user's own");
    assert_eq!(caller.post("/v1/logout", "").await.state(), "absent");
    assert_eq!(caller.page_of("?subject=17").await.state(), "active", "the logout named no user");
    let logout = caller.post("/v1/logout?subject=17", "").await;
    assert_eq!((logout.status, logout.state()), (StatusCode::OK, "absent"));
    assert_eq!(caller.page_of("?subject=17").await.state(), "absent");
}

#[tokio::test]
async fn login_is_sealed_at_the_client_or_not_kept_if_the_store_is_down() {
    // On this port of the loopback address there is no program.
    let down = "redis://127.0.0.1:1";
    let mut caller = Caller::configured(|layer| stored(layer, down, None));
    let login = caller.login("email=user%40example.com").await;
    assert_eq!((login.status, login.state()), (StatusCode::OK, "active"));
    assert_eq!(caller.page().await.token(), login.token());
    let secret = StoreSecret::generate().unwrap();
    let mut caller = Caller::configured(|layer| stored(layer, down, Some(&secret)));
    let login = caller.login("email=user%40example.com&subject=17").await;
    assert_eq!((login.status, login.state(), login.token()), (StatusCode::OK, "unavailable", None));
    assert_eq!(caller.page_of("?subject=17").await.state(), "unavailable");
}

#[tokio::test]
async fn each_of_both_scopes_has_its_own_login_and_a_logout_ends_both() {
    let sandboxes = Scope::ALL.map(|scope| Sandbox::builder().scope(scope).build().unwrap());
    let [euid, uid2] = sandboxes.each_ref().map(|sandbox| {
        EuidClientBuilder::from_operator(sandbox.operator())
            .http_service(sandbox.clone())
            .clock(sandbox.clock())
            .build()
            .unwrap()
    });
    let chosen = |request: &Parts| Some(request.extensions.get::<Asked>()?.scope);
    let layer =
        EuidLayer::new(CookieKey::generate().unwrap().into(), euid.clone()).scope(uid2.clone(), chosen).unwrap();
    let site = Site { layer, clients: vec![(Scope::Euid, euid), (Scope::Uid2, uid2)] };
    let [sandbox, _] = sandboxes;
    let mut caller = Caller { api: router(site, None), sandbox, cookies: Vec::new() };
    for (scope, source) in [("euid", "euid.eu"), ("uid2", "uidapi.com")] {
        let login = caller.post(&format!("/v1/login?scope={scope}"), "email=user%40example.com&subject=17").await;
        assert_eq!(login.body["eids"][0]["source"], source);
    }
    for scope in ["euid", "uid2"] {
        assert_eq!(caller.page_of(&format!("?subject=17&scope={scope}")).await.state(), "active");
    }
    let unclear = caller.page().await;
    assert_eq!((unclear.status, unclear.error().starts_with("scope: ")), (StatusCode::BAD_REQUEST, true));
    caller.post("/v1/logout?scope=euid", "").await;
    assert_eq!(caller.page_of("?scope=uid2").await.state(), "absent");
}

#[tokio::test]
async fn query_and_form_that_are_wrong_are_refused_by_name() {
    let mut caller = Caller::new();
    for query in ["?scope=uid2", "?scope=x", "?user=17", "?subject=1&subject=2"] {
        let answer = caller.page_of(query).await;
        assert_eq!((answer.status, answer.body.as_object().unwrap().len()), (StatusCode::BAD_REQUEST, 1), "{query}");
        assert!(answer.error().starts_with(query[1..].split('=').next().unwrap()), "{}", answer.error());
    }
    let logout = caller.post("/v1/logout", "all=1").await;
    assert_eq!((logout.status, logout.error()), (StatusCode::BAD_REQUEST, "all: unknown field; there are none here"));
    let large = caller.post("/v1/login", vec![b'a'; LARGEST_FORM + 1]).await;
    assert_eq!((large.status, large.state()), (StatusCode::PAYLOAD_TOO_LARGE, "absent"));
    assert_eq!(caller.post("/v1/login", vec![b'a'; LARGEST_FORM]).await.status, StatusCode::BAD_REQUEST);
    let request = caller.request(Method::POST, "/v1/login").header(CONTENT_TYPE, "application/json");
    let json = caller.send(request.body("{}".into()).unwrap()).await;
    assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_as_json() {
    let mut caller = Caller::new();
    for (method, uri, status) in [
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::GET, "/v1/page/", StatusCode::NOT_FOUND),
        (Method::POST, "/v1/page", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/v1/login", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/v1/logout", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = caller.send(Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{uri}");
        assert!(!answer.error().is_empty());
    }
}

#[tokio::test]
async fn caller_without_the_token_is_refused_and_changes_nothing() {
    let mut caller = Caller::new();
    caller.require_token("0123456789abcdef");
    for authorization in
        [None, Some(""), Some("Bearer "), Some("Bearer 0123456789abcdeF"), Some("Basic 0123456789abcdef")]
    {
        let request = Request::post("/v1/login").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = authorization.into_iter().fold(request, |request, value| request.header(AUTHORIZATION, value));
        let answer = caller.send(request.body("email=user%40example.com".into()).unwrap()).await;
        assert_eq!((answer.status, answer.body.as_object().unwrap().len()), (StatusCode::UNAUTHORIZED, 1));
    }
    assert_eq!(caller.sandbox.calls().generate, 0);
    let request = Request::get("/v1/page").header(AUTHORIZATION, "bearer 0123456789abcdef");
    assert_eq!(caller.send(request.body(Body::empty()).unwrap()).await.state(), "absent");
}

/// Returns the object that a `$ref` of the document leads to.
fn followed<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    value["$ref"].as_str().map_or(value, |path| document.pointer(path.strip_prefix('#').unwrap()).unwrap())
}

/// Returns the members that each alternative of a schema requires. It must allow no others.
fn members<'a>(document: &'a Value, schema: &'a Value) -> Vec<BTreeSet<&'a str>> {
    let schema = followed(document, schema);
    if let Some(alternatives) = schema["oneOf"].as_array() {
        return alternatives.iter().flat_map(|alternative| members(document, alternative)).collect();
    }
    let is_closed = ["additionalProperties", "unevaluatedProperties"].iter().any(|name| schema[*name] == false);
    assert!(is_closed, "{schema}");
    let parts = schema["allOf"].as_array().into_iter().flatten().map(|part| followed(document, part)).chain([schema]);
    let mut all = BTreeSet::new();
    for part in parts {
        let required: BTreeSet<&str> =
            part["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()).collect();
        let allowed: BTreeSet<&str> =
            part["properties"].as_object().into_iter().flat_map(|all| all.keys()).map(String::as_str).collect();
        assert_eq!(required, allowed);
        all.extend(allowed);
    }
    vec![all]
}

#[tokio::test]
async fn document_describes_every_answer() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let form = &document["components"]["schemas"]["Login"];
    let fields: BTreeSet<&str> = form["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(LOGIN));

    let mut seen = BTreeSet::new();
    let mut caller = Caller::new();
    let large = "a".repeat(LARGEST_FORM + 1);
    for (method, path, query, form, fault) in [
        ("get", "/v1/page", "", "", None),
        ("get", "/v1/page", "?subject=1&scope=euid", "", None),
        ("get", "/v1/page", "?user=1", "", None),
        ("post", "/v1/login", "", "email=user%40example.com", None),
        ("get", "/v1/page", "", "", None),
        ("post", "/v1/login", "", "email=user", None),
        ("post", "/v1/login", "", "email=user%40example.com", Some(Fault::Status(503))),
        ("post", "/v1/login", "", "email=user%40example.com", Some(Fault::Status(401))),
        ("post", "/v1/login", "", &large, None),
        ("post", "/v1/logout", "", &large, None),
        ("post", "/v1/logout", "", "", None),
        ("post", "/v1/logout", "", "x=1", None),
        ("post", "/v1/logout", "?x=1", "", None),
    ] {
        caller.sandbox.fault(fault);
        let answer = match method {
            "get" => caller.page_of(query).await,
            _ => caller.post(&format!("{path}{query}"), form.to_owned()).await,
        };
        let described = &document["paths"][path][method]["responses"][answer.status.as_str()];
        let schema = &followed(&document, described)["content"]["application/json"]["schema"];
        let got: BTreeSet<&str> = answer.body.as_object().unwrap().keys().map(String::as_str).collect();
        let alternatives = members(&document, schema);
        assert!(alternatives.contains(&got), "{method} {path} {}: {got:?} {alternatives:?}", answer.status);
        if let Some(state) = answer.body.get("state") {
            let states = document["components"]["schemas"]["State"]["enum"].as_array().unwrap();
            assert!(states.contains(state), "{state}");
        }
        seen.insert((path, method));
    }
    let auth = caller.request(Method::GET, "/auth").body(Body::empty()).unwrap();
    let auth = caller.api.clone().oneshot(auth).await.unwrap();
    let described = &document["paths"]["/auth"]["get"]["responses"][auth.status().as_str()]["headers"];
    assert!(auth.headers().contains_key("euid-state") && described["Euid-State"].is_object(), "{described}");
    seen.insert(("/auth", "get"));
    seen.insert(("/openapi.json", "get"));
    let paths = document["paths"].as_object().unwrap().iter();
    let described: BTreeSet<_> = paths
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| (&**path, &**method)))
        .collect();
    assert_eq!(described, seen);
}

#[tokio::test]
async fn answer_has_the_reason_if_states_are_explained() {
    let mut caller = Caller::new();
    assert_eq!(caller.page().await.body["reason"], Value::Null);
    let mut caller = Caller::configured(|layer| layer.explain(true));
    assert_eq!(caller.page().await.body["reason"], "no login cookie");
    let login = caller.login("email=user%40example.com").await;
    assert_eq!((login.state(), &login.body["reason"]), ("active", &json!("token fresh")), "of the state after it");
    let page = caller.page().await;
    assert_eq!(page.body["reason"], "token fresh");
    assert_eq!(page.body["headers"]["server-timing"], "euid;desc=\"active; token fresh\"");
    assert_eq!(caller.login("email=none").await.body["reason"], "no login cookie");
}
