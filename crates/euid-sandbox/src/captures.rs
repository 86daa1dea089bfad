//! Replays recorded requests to the real operator against the sandbox.
//!
//! 1. A request is rebuilt: the recorded payload with a new IV, nonce and time, and with the recorded damage. A
//!    recorded token is replaced by the token that the sandbox issued to the same person.
//! 2. The answer must be the recorded one, character by character. Before the comparison the six members of an identity
//!    are replaced by the recorded ones, which must have the same length and beginning.
//! 3. The recorded operator is one of EUID. For a sandbox of UID2 the recorded literals are mapped to those of UID2, and
//!    captures with a consent string are left out, because UID2 ignores it.

use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};
use bytes::Bytes;
use euid_core::Scope;
use euid_core::clock::{Clock, ManualClock, UnixMillis};
use euid_core::protocol::{Key, RequestNonce, api_key_prefix, documents, open, open_request_text, seal_request};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, ORIGIN, VARY};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;

use super::{Lifetimes, Sandbox};
use super::{opened_response, random};

#[tokio::test]
async fn sandbox_gives_the_recorded_answer_to_every_recorded_request() {
    for (scope, replayed) in [(Scope::Euid, 110), (Scope::Uid2, 106)] {
        let file = include_str!("../tests/vectors/operator-captures.json");
        let file = file.replace(documents(Scope::Euid), documents(scope));
        let file = file.replace(api_key_prefix(Scope::Euid), api_key_prefix(scope));
        let file: Value = serde_json::from_str(&file).unwrap();
        let has_consent = |capture: &Value| !capture["payload"]["tcf_consent_string"].is_null();
        let mut replay = Replay::new(&file, scope);
        for capture in file["captures"].as_array().unwrap() {
            if scope == Scope::Euid || !has_consent(capture) {
                replay.replay(capture).await;
            }
        }
        assert_eq!(replay.replayed, replayed);
    }
}

struct Replay {
    clock: ManualClock,
    sandbox: Sandbox,
    short_lived: Sandbox,
    secret: Key,
    /// When the previous capture was sent.
    sent: Option<i64>,
    /// The body that was sent for the previous capture.
    last_body: Vec<u8>,
    /// The recorded tokens, with the sandbox's counterparts.
    tokens: Vec<Counterpart>,
    replayed: usize,
}

#[derive(Clone)]
struct Counterpart {
    recorded: String,
    issued_token: String,
    response_key: Option<Key>,
}

/// A rebuilt request, with what opens its answer.
struct Rebuilt {
    body: Vec<u8>,
    nonce: RequestNonce,
    response_key: Option<Key>,
}

impl Replay {
    fn new(file: &Value, scope: Scope) -> Self {
        // This is not the recorded time, because only differences of times may matter.
        let clock = ManualClock::at(UnixMillis::from_millis(1_700_000_000_000));
        let api_key = file["api_key"].as_str().unwrap();
        let secret = file["secret_b64"].as_str().unwrap();
        let sandbox = |lifetimes: &Value| {
            let seconds = |name: &str| Duration::from_secs(lifetimes[name].as_u64().unwrap());
            let lifetimes = Lifetimes {
                refresh_from: seconds("refresh_from"),
                identity_expires: seconds("identity"),
                refresh_expires: seconds("refresh"),
            };
            // The recorded operator has raw ids of 33 bytes.
            let builder = Sandbox::builder().scope(scope).identity_v3(true).clock(clock.clone());
            builder.credentials(api_key, secret).lifetimes(lifetimes).build().unwrap()
        };
        Self {
            sandbox: sandbox(&file["lifetimes_s"]["default"]),
            short_lived: sandbox(&file["lifetimes_s"]["generate/short-lifetimes"]),
            clock,
            secret: BASE64_STANDARD.decode(secret).unwrap().try_into().unwrap(),
            sent: None,
            last_body: Vec::new(),
            tokens: Vec::new(),
            replayed: 0,
        }
    }

    async fn replay(&mut self, capture: &Value) {
        let name = capture["name"].as_str().unwrap();
        if name == "generate/short-lifetimes" {
            self.sandbox = self.short_lived.clone();
        }
        if let Some(sent) = capture["sent_at_ms"].as_i64() {
            let since = sent - self.sent.replace(sent).unwrap_or(sent);
            self.clock.advance(Duration::from_millis(since.try_into().unwrap()));
        }
        let rebuilt = self.rebuild(name, capture);
        self.last_body.clone_from(&rebuilt.body);

        let mut request = Request::post(capture["path"].as_str().unwrap_or("/v2/token/generate"));
        request = match name {
            "generate/GET" => request.method(Method::GET),
            "generate/OPTIONS" => {
                let preflight = request.method(Method::OPTIONS).header(ORIGIN, "https://publisher.example");
                preflight.header(ACCESS_CONTROL_REQUEST_METHOD, "POST")
            }
            _ => request,
        };
        let key = self.sandbox.api_key();
        request = match capture["authorization"].as_str() {
            Some("valid") => request.header(AUTHORIZATION, format!("Bearer {key}")),
            Some("valid, scheme in lower case") => request.header(AUTHORIZATION, format!("bearer {key}")),
            Some("other") => {
                let prefix = api_key_prefix(self.sandbox.scope());
                request.header(AUTHORIZATION, format!("Bearer {prefix}C-T-124-nobody.knows"))
            }
            Some("none") | None => request,
            Some(other) => panic!("{name}: {other}"),
        };
        if let Some(content_type) = capture["content_type"].as_str() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request =
            request.header("X-Amzn-Trace-Id", "Root=1").body(Full::new(Bytes::from(rebuilt.body.clone()))).unwrap();
        let response = self.sandbox.clone().oneshot(request).await.unwrap();

        assert_eq!(u64::from(response.status().as_u16()), capture["status"].as_u64().unwrap(), "{name}");
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap());
        assert_eq!(content_type, capture["response_content_type"].as_str(), "{name}");
        let is_preflight = name == "generate/OPTIONS";
        assert_eq!(response.headers().get(VARY).is_some_and(|vary| vary == "origin"), !is_preflight, "{name}");
        // The answer repeats the trace id if the operator reads the API key.
        let reads_key = !matches!(response.status().as_u16(), 204 | 404 | 405 | 413);
        assert_eq!(response.headers().contains_key("x-amzn-trace-id"), reads_key, "{name}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        self.compare(name, capture, &rebuilt, &body);
        self.replayed += 1;
    }

    /// Rebuilds the request of a capture, with the present time and the sandbox's tokens.
    fn rebuild(&self, name: &str, capture: &Value) -> Rebuilt {
        let recorded = capture["request_body"].as_str();
        if capture["path"] == "/v2/token/refresh" {
            let (body, response_key) = self.counterpart(recorded.unwrap());
            return Rebuilt { body: body.into(), nonce: [0; 8], response_key };
        }
        let verbatim = |body: Vec<u8>| Rebuilt { body, nonce: [0; 8], response_key: None };
        let payload = match &capture["payload"] {
            Value::String(text) => text.clone(),
            Value::Object(payload) => {
                let mut payload = payload.clone();
                if let Some(Value::String(token)) = payload.get_mut("token") {
                    *token = self.counterpart(token).0;
                }
                Value::Object(payload).to_string()
            }
            _ => match name {
                "generate/replay-1" => self.recorded_payload(capture),
                "generate/replay-2" => {
                    return Rebuilt { nonce: self.last_nonce(), ..verbatim(self.last_body.clone()) };
                }
                "generate/body-over-1MiB" => return verbatim(vec![b'A'; 1_048_580]),
                _ => return verbatim(recorded.unwrap_or_default().into()),
            },
        };
        let nonce = random().unwrap();
        let mut body = self.envelope(name, nonce, payload.as_bytes());
        while name == "generate/url-safe-base64" && !body.iter().any(|byte| b"-_".contains(byte)) {
            body = self.envelope(name, nonce, payload.as_bytes());
        }
        if capture["request_body_b64_of_bytes"].is_string() {
            body = BASE64_STANDARD.decode(body).unwrap();
        }
        Rebuilt { body, nonce, response_key: None }
    }

    /// Seals, dates, damages and encodes an envelope as the capture's name demands.
    fn envelope(&self, name: &str, nonce: RequestNonce, payload: &[u8]) -> Vec<u8> {
        let now = self.clock.now();
        let sent = match name {
            "generate/118s-old" => now.saturating_sub(Duration::from_secs(118)),
            "generate/121s-old" => now.saturating_sub(Duration::from_secs(121)),
            "generate/118s-ahead" => now.saturating_add(Duration::from_secs(118)),
            "generate/121s-ahead" => now.saturating_add(Duration::from_secs(121)),
            _ => now,
        };
        let secret = if name == "generate/wrong-secret" { [7; 32] } else { self.secret };
        let mut envelope = seal_request(&secret, random().unwrap(), sent, nonce, payload);
        match name {
            "generate/version-2" => envelope[0] = 2,
            "generate/one-bit-of-the-tag" => *envelope.last_mut().unwrap() ^= 1,
            "generate/too-short" => envelope.truncate(44),
            _ => {}
        }
        let body = match name {
            "generate/unpadded-base64" => BASE64_STANDARD_NO_PAD.encode(envelope),
            "generate/url-safe-base64" => BASE64_URL_SAFE.encode(envelope),
            "generate/trailing-newline" => BASE64_STANDARD.encode(envelope) + "\n",
            _ => BASE64_STANDARD.encode(envelope),
        };
        body.into()
    }

    fn recorded_payload(&self, capture: &Value) -> String {
        let sent = UnixMillis::from_millis(capture["sent_at_ms"].as_i64().unwrap());
        let opened = open_request_text(&self.secret, sent, capture["request_body"].as_str().unwrap().as_bytes());
        Value::Object(opened.unwrap().payload.unwrap()).to_string()
    }

    fn last_nonce(&self) -> RequestNonce {
        open_request_text(&self.secret, self.clock.now(), &self.last_body).unwrap().nonce
    }

    /// Replaces each recorded token in `recorded` by its counterpart, with the same damage. Also returns the key of the
    /// answer if the token is a refresh token.
    fn counterpart(&self, recorded: &str) -> (String, Option<Key>) {
        for Counterpart { recorded: token, issued_token, response_key } in &self.tokens {
            if recorded.contains(token) {
                return (recorded.replace(token, issued_token), *response_key);
            }
            if recorded.len() > 8 && token.starts_with(recorded) {
                return (issued_token[..recorded.len()].to_owned(), *response_key);
            }
            let changed = |(_, (a, b)): &(usize, (u8, u8))| a != b;
            let pairs = recorded.bytes().zip(token.bytes()).enumerate().filter(changed);
            if recorded.len() == token.len() && pairs.clone().count() <= 4 {
                let mut damaged = issued_token.clone().into_bytes();
                for (position, (byte, _)) in pairs {
                    // The character at this position must change.
                    damaged[position] = if damaged[position] == byte { b'B' } else { byte };
                }
                return (String::from_utf8(damaged).unwrap(), *response_key);
            }
        }
        assert!(recorded.len() < 100, "an unknown token: {recorded}");
        (recorded.to_owned(), None)
    }

    fn compare(&mut self, name: &str, capture: &Value, rebuilt: &Rebuilt, body: &[u8]) {
        let Some(recorded) = capture["response_json"].as_str() else {
            assert_eq!(std::str::from_utf8(body).unwrap(), capture["response_body"].as_str().unwrap(), "{name}");
            return;
        };
        let envelope = match capture["response_content_type"].as_str() {
            Some("application/octet-stream") => body.to_vec(),
            _ => BASE64_STANDARD.decode(body).unwrap_or_else(|error| panic!("{name}: {error}")),
        };
        let opened = match rebuilt.response_key {
            Some(key) => open(&key, &envelope).unwrap().to_vec(),
            None => opened_response(&self.secret, rebuilt.nonce, &envelope),
        };
        let mut answer = String::from_utf8(opened).unwrap();
        let issued: Value = serde_json::from_str(&answer).unwrap();
        let expected: Value = serde_json::from_str(recorded).unwrap();
        if expected["body"].is_object() {
            self.compare_times(name, &issued["body"]);
            for member in expected["body"].as_object().unwrap().keys() {
                let [issued, expected] = [&issued, &expected].map(|json| json["body"][member].to_string());
                assert_eq!(issued.len(), expected.len(), "{name}: {member}");
                answer = answer.replace(&issued, &expected);
            }
            self.remember(&issued["body"], &expected["body"]);
        }
        assert_eq!(answer, recorded, "{name}");
    }

    fn compare_times(&self, name: &str, identity: &Value) {
        let lifetimes = self.sandbox.0.operator.lifetimes;
        for (member, lifetime) in [
            ("refresh_from", lifetimes.refresh_from),
            ("identity_expires", lifetimes.identity_expires),
            ("refresh_expires", lifetimes.refresh_expires),
        ] {
            let expected = self.clock.now().saturating_add(lifetime).as_millis();
            assert_eq!(identity[member].as_i64(), Some(expected), "{name}: {member}");
        }
    }

    fn remember(&mut self, issued: &Value, expected: &Value) {
        let key = BASE64_STANDARD.decode(issued["refresh_response_key"].as_str().unwrap()).unwrap().try_into().unwrap();
        for (member, prefix, response_key) in [("advertising_token", 8, None), ("refresh_token", 6, Some(key))] {
            let [issued_token, recorded] =
                [issued, expected].map(|identity| identity[member].as_str().unwrap().to_owned());
            let begins = match self.sandbox.scope() {
                Scope::Euid => recorded[..prefix].to_owned(),
                Scope::Uid2 => recorded[..prefix].replace('E', "A").replace('F', "B"),
            };
            assert_eq!(issued_token[..prefix], begins);
            self.tokens.push(Counterpart { recorded, issued_token, response_key });
        }
    }
}
