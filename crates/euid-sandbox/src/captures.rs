//! Recorded requests to the real operator, sent again here.
//!
//! Each recorded request is made anew: the same payload with fresh IV, nonce and time, damaged in the
//! same way; the same token, as issued here to the same person. The answer must be the recorded one,
//! to the last character once the six members of an identity are put back, and those must have the
//! recorded form.

use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};
use bytes::Bytes;
use euid_core::clock::{Clock, ManualClock, UnixMillis};
use euid_core::protocol::{Key, RequestNonce, open, open_request_text, seal_request};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, ORIGIN, VARY};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;

use super::{Lifetimes, Sandbox};
use super::{opened_response, random};

#[tokio::test]
async fn every_recorded_request_gets_the_recorded_answer() {
    let file: Value = serde_json::from_str(include_str!("../tests/vectors/operator-captures.json")).unwrap();
    let captures = file["captures"].as_array().unwrap();
    let mut replay = Replay::new(&file);
    for capture in captures {
        replay.ask_again(capture).await;
    }
    assert_eq!(replay.asked, 110);
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
    /// Recorded tokens, and their counterparts here.
    tokens: Vec<Counterpart>,
    asked: usize,
}

#[derive(Clone)]
struct Counterpart {
    recorded: String,
    ours: String,
    response_key: Option<Key>,
}

/// A request ready to be sent, and how its answer opens.
struct Remade {
    body: Vec<u8>,
    nonce: RequestNonce,
    response_key: Option<Key>,
}

impl Replay {
    fn new(file: &Value) -> Self {
        // Another time than the recorded one: only distances may matter.
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
            let builder = Sandbox::builder().clock(clock.clone()).credentials(api_key, secret);
            builder.lifetimes(lifetimes).build().unwrap()
        };
        Self {
            sandbox: sandbox(&file["lifetimes_s"]["default"]),
            short_lived: sandbox(&file["lifetimes_s"]["generate/short-lifetimes"]),
            clock,
            secret: BASE64_STANDARD.decode(secret).unwrap().try_into().unwrap(),
            sent: None,
            last_body: Vec::new(),
            tokens: Vec::new(),
            asked: 0,
        }
    }

    async fn ask_again(&mut self, capture: &Value) {
        let name = capture["name"].as_str().unwrap();
        if name == "generate/short-lifetimes" {
            self.sandbox = self.short_lived.clone();
        }
        if let Some(sent) = capture["sent_at_ms"].as_i64() {
            let since = sent - self.sent.replace(sent).unwrap_or(sent);
            self.clock.advance(Duration::from_millis(since.try_into().unwrap()));
        }
        let remade = self.remake(name, capture);
        self.last_body.clone_from(&remade.body);

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
            Some("other") => request.header(AUTHORIZATION, "Bearer EUID-C-T-124-nobody.knows"),
            Some("none") | None => request,
            Some(other) => panic!("{name}: {other}"),
        };
        if let Some(content_type) = capture["content_type"].as_str() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request =
            request.header("X-Amzn-Trace-Id", "Root=1").body(Full::new(Bytes::from(remade.body.clone()))).unwrap();
        let response = self.sandbox.clone().oneshot(request).await.unwrap();

        assert_eq!(u64::from(response.status().as_u16()), capture["status"].as_u64().unwrap(), "{name}");
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap());
        assert_eq!(content_type, capture["response_content_type"].as_str(), "{name}");
        let is_preflight = name == "generate/OPTIONS";
        assert_eq!(response.headers().get(VARY).is_some_and(|vary| vary == "origin"), !is_preflight, "{name}");
        // The trace id is repeated where the API key is looked at.
        let is_looked_at = !matches!(response.status().as_u16(), 204 | 404 | 405 | 413);
        assert_eq!(response.headers().contains_key("x-amzn-trace-id"), is_looked_at, "{name}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        self.compare(name, capture, &remade, &body);
        self.asked += 1;
    }

    /// The request of a capture, with the present time and this sandbox's tokens.
    fn remake(&self, name: &str, capture: &Value) -> Remade {
        let recorded = capture["request_body"].as_str();
        if capture["path"] == "/v2/token/refresh" {
            let (body, response_key) = self.counterpart(recorded.unwrap());
            return Remade { body: body.into(), nonce: [0; 8], response_key };
        }
        let verbatim = |body: Vec<u8>| Remade { body, nonce: [0; 8], response_key: None };
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
                    return Remade { nonce: self.nonce_of_last(), ..verbatim(self.last_body.clone()) };
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
        Remade { body, nonce, response_key: None }
    }

    /// Seals, ages, damages and encodes as the capture's name says.
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

    fn nonce_of_last(&self) -> RequestNonce {
        open_request_text(&self.secret, self.clock.now(), &self.last_body).unwrap().nonce
    }

    /// `recorded` with each recorded token replaced by its counterpart here and the same damage done; and the key of
    /// the answer, if it was a refresh token.
    fn counterpart(&self, recorded: &str) -> (String, Option<Key>) {
        for Counterpart { recorded: token, ours, response_key } in &self.tokens {
            if recorded.contains(token) {
                return (recorded.replace(token, ours), *response_key);
            }
            if recorded.len() > 8 && token.starts_with(recorded) {
                return (ours[..recorded.len()].to_owned(), *response_key);
            }
            let changed = |(_, (a, b)): &(usize, (u8, u8))| a != b;
            let pairs = recorded.bytes().zip(token.bytes()).enumerate().filter(changed);
            if recorded.len() == token.len() && pairs.clone().count() <= 4 {
                let mut damaged = ours.clone().into_bytes();
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

    fn compare(&mut self, name: &str, capture: &Value, remade: &Remade, body: &[u8]) {
        let Some(recorded) = capture["response_json"].as_str() else {
            assert_eq!(std::str::from_utf8(body).unwrap(), capture["response_body"].as_str().unwrap(), "{name}");
            return;
        };
        let envelope = match capture["response_content_type"].as_str() {
            Some("application/octet-stream") => body.to_vec(),
            _ => BASE64_STANDARD.decode(body).unwrap_or_else(|error| panic!("{name}: {error}")),
        };
        let opened = match remade.response_key {
            Some(key) => open(&key, &envelope).unwrap().to_vec(),
            None => opened_response(&self.secret, remade.nonce, &envelope),
        };
        let mut ours = String::from_utf8(opened).unwrap();
        let issued: Value = serde_json::from_str(&ours).unwrap();
        let expected: Value = serde_json::from_str(recorded).unwrap();
        if expected["body"].is_object() {
            self.compare_times(name, &issued["body"]);
            for member in expected["body"].as_object().unwrap().keys() {
                let [issued, expected] = [&issued, &expected].map(|json| json["body"][member].to_string());
                assert_eq!(issued.len(), expected.len(), "{name}: {member}");
                ours = ours.replace(&issued, &expected);
            }
            self.remember(&issued["body"], &expected["body"]);
        }
        assert_eq!(ours, recorded, "{name}");
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
            let [ours, recorded] = [issued, expected].map(|identity| identity[member].as_str().unwrap().to_owned());
            assert_eq!(ours[..prefix], recorded[..prefix]);
            self.tokens.push(Counterpart { recorded, ours, response_key });
        }
    }
}
