//! The calls of an [`Operator`]: a request each, and how its response reads.

use base64::Engine;
use bytes::Bytes;
use http::{Request, Response};
use zeroize::Zeroizing;

use super::response::read;
use super::{Answered, Call, ClockSkew, Operator};
use crate::clock::UnixMillis;
use crate::dii::Dii;
use crate::error::{ErrorKind, EuidError};
use crate::identity::Identity;
use crate::outcome::{GenerateRequest, Generated, Refreshed};
use crate::protocol::answer::{self, Question, Sent};
use crate::protocol::envelope::{BASE64, seal_request};
use crate::protocol::{GENERATE, REFRESH, VALIDATE};
use crate::random;

impl Operator {
    /// Makes the call for an identity: `POST /v2/token/generate`. For a visitor who has logged in and has consented to
    /// it.
    ///
    /// ```
    /// use euid_core::{Dii, Environment, Operator, Scope};
    /// use euid_core::clock::UnixMillis;
    ///
    /// let operator = Operator::builder(Environment::Integration(Scope::Euid))
    ///     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
    ///     .build()?;
    /// let now = UnixMillis::from_millis(1_795_371_587_000);
    /// let call = operator.generate(Dii::email("user@example.com")?, now)?;
    /// assert_eq!(call.request().headers()["authorization"], "Bearer EUID-C-T-124-example");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unauthorized`](ErrorKind::Unauthorized) without credentials; [`Transient`](ErrorKind::Transient) if the
    /// operating system gives no random bytes.
    pub fn generate(&self, request: impl Into<GenerateRequest>, now: UnixMillis) -> Result<Call, EuidError> {
        let request = request.into();
        let mut question = Question::about(&request.dii);
        question.tcf_consent_string = request.tcf_consent_string.as_deref();
        question.optout_check = self.settings.optout_check.then_some(1);
        self.ask(GENERATE, &question, now)
    }

    /// Reads the response to a call of [`generate`](Self::generate), which arrived at `now`.
    ///
    /// ```
    /// use euid_core::{Dii, Environment, Operator, Scope};
    /// use euid_core::error::ErrorKind;
    /// use euid_core::clock::UnixMillis;
    ///
    /// # let operator = Operator::builder(Environment::Integration(Scope::Euid))
    /// #     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
    /// #     .build()?;
    /// # let now = UnixMillis::from_millis(1_795_371_587_000);
    /// let call = operator.generate(Dii::email("user@example.com")?, now)?;
    /// let response = http::Response::builder().status(401).body(r#"{"status":"unauthorized"}"#)?;
    /// let error = operator.generated(&call, &response, now).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unauthorized);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RejectedInput`](ErrorKind::RejectedInput) for an address that the operator does not take, and every
    /// other [`ErrorKind`] but [`RejectedToken`](ErrorKind::RejectedToken).
    pub fn generated<B: AsRef<[u8]>>(
        &self,
        call: &Call,
        response: &Response<B>,
        now: UnixMillis,
    ) -> Result<Generated, EuidError> {
        self.answered(call, response, now)?.generated()
    }

    /// Makes the call that checks whether this publisher got `advertising_token` for this person:
    /// `POST /v2/token/validate`. For tests of an integration; the operator does not look at the token's expiry.
    ///
    /// ```
    /// # use euid_core::{Dii, Environment, Operator, Scope};
    /// # use euid_core::clock::UnixMillis;
    /// # let operator = Operator::builder(Environment::Integration(Scope::Euid))
    /// #     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
    /// #     .build()?;
    /// # let now = UnixMillis::from_millis(1_795_371_587_000);
    /// let call = operator.validate("E4AAAABl", Dii::email("validate@example.com")?, now)?;
    /// assert_eq!(call.request().uri().path(), "/v2/token/validate");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate).
    pub fn validate(&self, advertising_token: &str, dii: Dii, now: UnixMillis) -> Result<Call, EuidError> {
        let mut question = Question::about(&dii);
        question.token = Some(advertising_token);
        self.ask(VALIDATE, &question, now)
    }

    /// Reads the response to a call of [`validate`](Self::validate), which arrived at `now`.
    ///
    /// ```
    /// # use euid_core::{Dii, Environment, Operator, Scope};
    /// # use euid_core::error::ErrorKind;
    /// # use euid_core::clock::UnixMillis;
    /// # let operator = Operator::builder(Environment::Integration(Scope::Euid))
    /// #     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
    /// #     .build()?;
    /// # let now = UnixMillis::from_millis(1_795_371_587_000);
    /// let call = operator.validate("E4AAAABl", Dii::email("validate@example.com")?, now)?;
    /// let response = http::Response::builder().status(400);
    /// let response = response.body(r#"{"status":"client_error","message":"Invalid token"}"#)?;
    /// let error = operator.validated(&call, &response, now).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::RejectedInput);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`generated`](Self::generated); [`RejectedInput`](ErrorKind::RejectedInput) also for a token that the
    /// operator can't decode or that belongs to another publisher.
    pub fn validated<B: AsRef<[u8]>>(
        &self,
        call: &Call,
        response: &Response<B>,
        now: UnixMillis,
    ) -> Result<bool, EuidError> {
        self.answered(call, response, now)?.validated()
    }

    /// Opens the response to either call, which arrived at `now`, for its outcome and for the operator's time.
    ///
    /// ```
    /// # use euid_core::{Dii, Environment, EuidError, Generated, Operator};
    /// # use euid_core::clock::UnixMillis;
    /// # use http::Response;
    /// use euid_core::operator::Call;
    ///
    /// fn read(operator: &Operator, call: &Call, response: &Response<Vec<u8>>, now: UnixMillis) -> Result<Generated, EuidError> {
    ///     let answered = operator.answered(call, response, now)?;
    ///     if let Some(skew) = answered.clock_skew() {
    ///         eprintln!("is the clock of this machine right? {skew:?}");
    ///     }
    ///     answered.generated()
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`generated`](Self::generated), for a response that is no encrypted answer to this call.
    pub fn answered<B: AsRef<[u8]>>(
        &self,
        call: &Call,
        response: &Response<B>,
        now: UnixMillis,
    ) -> Result<Answered, EuidError> {
        let secret = self.secret()?;
        let sent = Sent { noun: "the input", values: call.values(), api_key: self.api_key() };
        let (stamp, json) = answer::open(read(response, sent, now)?, secret, call.nonce)?;
        let skew = ClockSkew::between(call.asked_at, stamp, now);
        Ok(Answered { skew, json, scope: self.scope.clone() })
    }

    /// Makes the call for the successor of an identity: `POST /v2/token/refresh`. It needs no credentials, but
    /// the operator says more about a failure with them.
    ///
    /// ```
    /// use euid_core::{Environment, Identity, Operator, Scope};
    /// use euid_core::identity::IdentityTimes;
    /// use euid_core::clock::UnixMillis;
    ///
    /// let at = UnixMillis::from_millis;
    /// let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// let identity = Identity::new("A4AAAABl", "AAAAAG".to_owned().into(), [7; 32].into(), times)?;
    ///
    /// let operator = Operator::builder(Environment::Integration(Scope::Euid)).build()?;
    /// let request = operator.refresh(&identity);
    /// assert_eq!(request.uri(), "https://integ.euid.eu/v2/token/refresh");
    /// assert_eq!(request.body(), "AAAAAG"); // a secret, which is wiped when the request is dropped
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "the request is to be sent"]
    pub fn refresh(&self, identity: &Identity) -> Request<Bytes> {
        let token = identity.refresh_token().expose_secret();
        self.post(REFRESH, Bytes::from_owner(Zeroizing::new(token.as_bytes().to_vec())))
    }

    /// Reads the response to [`refresh`](Self::refresh) of `identity`, which arrived at `now`. It does not compare the
    /// outcome with this machine's clock: [`settle`](crate::engine::RefreshCandidate::settle) does that.
    ///
    /// ```
    /// # use euid_core::{Environment, Identity, Operator, Scope};
    /// # use euid_core::identity::IdentityTimes;
    /// # use euid_core::clock::UnixMillis;
    /// use euid_core::error::ErrorKind;
    ///
    /// # let at = UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("A4AAAABl", "AAAAAG".to_owned().into(), [7; 32].into(), times)?;
    /// # let operator = Operator::builder(Environment::Integration(Scope::Euid)).build()?;
    /// let response = http::Response::builder().status(400).body(r#"{"status":"expired_token"}"#)?;
    /// let error = operator.refreshed(&identity, &response, at(4)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::RejectedToken); // only a new login helps
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RejectedToken`](ErrorKind::RejectedToken) for a refresh token at its end. Without an API key, or with a
    /// wrong one, the operator does not tell that from other failures:
    /// [`UnknownStatus`](ErrorKind::UnknownStatus). [`RejectedInput`](ErrorKind::RejectedInput) for what it can't
    /// read as a refresh token, [`Undecryptable`](ErrorKind::Undecryptable) if the response key is another
    /// token's, [`WrongScope`](ErrorKind::WrongScope) if the new pair is of the other scope than the operator; and
    /// [`Transient`](ErrorKind::Transient) or [`Malformed`](ErrorKind::Malformed).
    pub fn refreshed<B: AsRef<[u8]>>(
        &self,
        identity: &Identity,
        response: &Response<B>,
        now: UnixMillis,
    ) -> Result<Refreshed, EuidError> {
        let token = identity.refresh_token().expose_secret();
        let values = [Some(token), None, None, None];
        let sent = Sent { noun: "the refresh token", values, api_key: self.api_key() };
        let refreshed = answer::refreshed(read(response, sent, now)?, identity.response_key())?;
        if let Refreshed::Identity(successor) = &refreshed {
            self.scope.check(successor)?;
        }
        Ok(refreshed)
    }

    /// Seals a question for the endpoint at `path`.
    fn ask(&self, path: &'static str, question: &Question<'_>, now: UnixMillis) -> Result<Call, EuidError> {
        let secret = self.secret()?;
        let no_randomness = |error| EuidError::new(ErrorKind::Transient, "no randomness for an IV").with_source(error);
        let iv = random::bytes().map_err(no_randomness)?;
        let nonce = random::bytes().map_err(no_randomness)?;
        let envelope = seal_request(secret, iv, now, nonce, &question.to_json()?);
        Ok(Call::new(self.post(path, BASE64.encode(envelope).into()), nonce, now, question))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};

    use super::*;
    use crate::identity::IdentityTimes;
    use crate::operator::{ClockSkew, Environment};
    use crate::protocol::envelope::gcm_seal;
    use crate::protocol::operator::{open_request_text, parse_client_secret, seal_response};
    use crate::scope::Scope;

    const SECRET: &str = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
    const NOW: UnixMillis = UnixMillis::from_millis(1_795_371_587_000);

    fn operator() -> Operator {
        Operator::builder(Environment::Integration(Scope::Euid))
            .credentials("EUID-C-T-124-key", SECRET)
            .build()
            .unwrap()
    }

    fn user() -> Dii {
        Dii::email("user@example.com").unwrap()
    }

    fn identity() -> Identity {
        let [refresh_from, identity_expires, refresh_expires] = [1, 2, 3].map(UnixMillis::from_millis);
        let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
        Identity::new("A4AAAABl", "AAAAAG".to_owned().into(), [7; 32].into(), times).unwrap()
    }

    /// Returns the answer of an operator whose clock is `ahead` of this machine's.
    fn answer(call: &Call, ahead: Duration, json: &str) -> Response<Vec<u8>> {
        let key = parse_client_secret(SECRET).unwrap();
        let opened = open_request_text(&key, NOW, call.request().body()).unwrap();
        let body = seal_response(&key, [2; 12], NOW.saturating_add(ahead), opened.nonce, json.as_bytes());
        Response::builder().header(CONTENT_TYPE, "application/octet-stream").body(body).unwrap()
    }

    #[test]
    fn operator_calls_are_sealed_and_their_answers_opened() {
        let operator = operator().to_builder().optout_check(true).build().unwrap();
        let request = GenerateRequest::from(user()).tcf_consent_string("consent");
        let generate = operator.generate(request, NOW).unwrap();
        let validate = operator.validate("token", user(), NOW).unwrap();
        for (call, path, members) in [
            (&generate, GENERATE, "email_hash optout_check tcf_consent_string"),
            (&validate, VALIDATE, "email_hash token"),
        ] {
            let request = call.request();
            assert_eq!((request.method(), request.uri().path()), (&Method::POST, path));
            let opened = open_request_text(&parse_client_secret(SECRET).unwrap(), NOW, request.body()).unwrap();
            let mut names: Vec<_> = opened.payload.unwrap().keys().cloned().collect();
            names.sort_unstable();
            assert_eq!(names.join(" "), members);
        }
        let opted_out = answer(&generate, Duration::ZERO, r#"{"status":"optout"}"#);
        assert_eq!(operator.generated(&generate, &opted_out, NOW).unwrap(), Generated::OptedOut);
        let matches = answer(&validate, Duration::ZERO, r#"{"status":"success","body":true}"#);
        assert!(operator.validated(&validate, &matches, NOW).unwrap());
        // Each answer belongs to its call.
        let error = operator.generated(&generate, &matches, NOW).unwrap_err();
        assert_eq!(error.to_string(), "the operator's answer belongs to another request");
        let error = operator.generated(&validate, &matches, NOW).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
    }

    #[test]
    fn clock_skew_is_read_from_an_authentic_answer() {
        let operator = operator();
        let call = operator.generate(user(), NOW).unwrap();
        let minute = Duration::from_secs(60);
        let answered = operator.answered(&call, &answer(&call, minute, r#"{"status":"new_word"}"#), NOW).unwrap();
        assert_eq!(answered.clock_skew(), Some(ClockSkew::Behind(minute)));
        assert_eq!(answered.generated().unwrap_err().kind(), ErrorKind::UnknownStatus);
        assert_eq!(format!("{answered:?}"), "Answered { clock_skew: Some(Behind(60s)), .. }");
    }

    #[test]
    fn refresh_token_is_sent_unsealed_and_answered_under_the_response_key() {
        let operator = Operator::builder(Environment::Production(Scope::Euid)).build().unwrap();
        let request = operator.refresh(&identity());
        assert_eq!(request.uri(), "https://prod.euid.eu/v2/token/refresh");
        assert_eq!(request.body(), "AAAAAG");
        assert!(!request.headers().contains_key(AUTHORIZATION));
        let body = BASE64.encode(gcm_seal(&[7; 32], [2; 12], br#"{"status":"optout"}"#));
        assert_eq!(operator.refreshed(&identity(), &Response::new(body), NOW).unwrap(), Refreshed::OptedOut);
    }

    #[test]
    fn token_of_the_other_scope_is_refused_where_it_enters() {
        for (scope, own, other) in [(Scope::Euid, "F4A", "A4A"), (Scope::Uid2, "B4A", "E4A")] {
            let operator =
                Operator::builder(Environment::Integration(scope)).credentials("key", SECRET).build().unwrap();
            let json = |token: &str| {
                format!(
                    r#"{{"status":"success","body":{{"advertising_token":"{token}","refresh_token":"r",
                    "refresh_response_key":"{SECRET}","refresh_from":1,"identity_expires":2,"refresh_expires":3}}}}"#
                )
            };
            let generated = |token| {
                let call = operator.generate(user(), NOW).unwrap();
                let generated = operator.generated(&call, &answer(&call, Duration::ZERO, &json(token)), NOW);
                generated.map(|_| ()).map_err(|error| error.kind())
            };
            let refreshed = |token| {
                let body = BASE64.encode(gcm_seal(&[7; 32], [2; 12], json(token).as_bytes()));
                let refreshed = operator.refreshed(&identity(), &Response::new(body), NOW);
                refreshed.map(|_| ()).map_err(|error| error.kind())
            };
            assert_eq!([generated(own), refreshed(own)], [Ok(()); 2]);
            assert_eq!([generated(other), refreshed(other)], [Err(ErrorKind::WrongScope); 2]);
        }
    }

    #[test]
    fn retry_after_counts_from_the_arrival_of_the_answer() {
        let wait = |value: &str| {
            let response = Response::builder().status(503).header(RETRY_AFTER, value).body("").unwrap();
            operator().refreshed(&identity(), &response, NOW).unwrap_err().retry_after()
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 22 Nov 2026 18:20:47 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 22 Nov 2026 18:19:40 GMT"), None);
    }

    #[test]
    fn answer_above_the_size_limit_is_malformed_at_any_status() {
        for status in [200, 503] {
            let kind = |length: usize| {
                let response = Response::builder().status(status).body(vec![b'A'; length]).unwrap();
                let error = operator().refreshed(&identity(), &response, NOW).unwrap_err();
                (error.kind(), error.to_string().ends_with("is larger than 64 KiB"))
            };
            assert_eq!(kind(Operator::MAX_ANSWER + 1), (ErrorKind::Malformed, true));
            assert!(!kind(Operator::MAX_ANSWER).1);
        }
    }

    #[test]
    fn operator_errors_repeat_nothing_that_was_sent() {
        let operator = operator();
        let hash = user().to_base64();
        let body = |text: &str| format!(r#"{{"status":"client_error","message":"no: {text}"}}"#);
        let call = operator.validate("advertising-token", user(), NOW).unwrap();
        for sent in [&*hash, "advertising-token", "EUID-C-T-124-key"] {
            let response = Response::builder().status(400).body(body(sent)).unwrap();
            let error = operator.validated(&call, &response, NOW).unwrap_err();
            assert_eq!(error.to_string(), "the operator refused the input (client_error)");
        }
        let response = Response::builder().status(400).body(body("AAAAAG")).unwrap();
        let error = operator.refreshed(&identity(), &response, NOW).unwrap_err();
        assert_eq!(error.to_string(), "the operator refused the refresh token (client_error)");
    }
}
