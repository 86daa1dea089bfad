//! The three calls to the operator, without I/O: requests out, responses in.
//!
//! 1. [`Operator`] makes each call as an `http::Request` and reads its `http::Response`. Sending is the host's: with
//!    whichever HTTP client it has, within a deadline, without following redirects.
//! 2. All calls may be repeated: the operator answers a repeated call as the first.
//! 3. Time is an argument. Random bytes come from the operating system.
//! 4. No error repeats what was sent, and no `Debug` shows it.

mod builder;
mod call;
mod credentials;
mod endpoint;

use std::fmt;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use cookie::Cookie;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use zeroize::Zeroizing;

pub use self::builder::{Environment, OperatorBuilder};
pub use self::call::{Answered, Call, ClockSkew};
use self::endpoint::BaseUrl;
use crate::clock::UnixMillis;
use crate::dii::Dii;
use crate::error::{ErrorKind, EuidError};
use crate::identity::Identity;
use crate::outcome::{GenerateRequest, Generated, Refreshed};
use crate::protocol::answer::{self, Answer, Question, Sent};
use crate::protocol::envelope::{BASE64, Key, seal_request};
use crate::protocol::{CLIENT_VERSION, GENERATE, REFRESH, VALIDATE};
use crate::random;

/// An EUID operator, as one publisher calls it.
///
/// A call has two halves: the first makes a request, which the host sends, and the second reads the response.
/// The host bounds the time; it need not read more of a body than [`MAX_ANSWER`](Self::MAX_ANSWER)` + 1` bytes.
/// If no response came, the outcome is an error of kind [`Transient`](ErrorKind::Transient), which the host makes.
///
/// ```
/// use bytes::Bytes;
/// use euid_core::{Dii, Environment, EuidError, Generated, Operator};
/// use euid_core::error::ErrorKind;
/// use euid_core::clock::UnixMillis;
/// use http::{Request, Response};
///
/// /// The host's own HTTP client.
/// fn send(request: Request<Bytes>) -> std::io::Result<Response<Vec<u8>>> {
///     assert_eq!(request.uri(), "https://integ.euid.eu/v2/token/generate");
///     Ok(Response::builder().status(503).header("retry-after", "20").body(Vec::new()).unwrap())
/// }
///
/// fn generate(operator: &Operator, dii: Dii, now: UnixMillis) -> Result<Generated, EuidError> {
///     let call = operator.generate(dii, now)?;
///     let failed = |error| EuidError::new(ErrorKind::Transient, "the operator can't be reached").with_source(error);
///     operator.generated(&call, &send(call.request()).map_err(failed)?, now)
/// }
///
/// let operator = Operator::builder(Environment::Integration)
///     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
///     .build()?;
/// let now = UnixMillis::from_millis(1_795_371_587_000);
/// let error = generate(&operator, Dii::email("user@example.com")?, now).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Transient);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Secrets in memory
///
/// The client secret, an opened answer, the refresh token in the body of a request and what a [`Call`] keeps are
/// wiped when dropped. Not wiped is the API key, which is a header of every request.
#[derive(Clone)]
pub struct Operator {
    /// What it was made from, for [`to_builder`](Self::to_builder).
    settings: OperatorBuilder,
    base_url: BaseUrl,
    /// Of every request.
    headers: HeaderMap,
    secret: Option<Zeroizing<Key>>,
}

impl Operator {
    /// How long the body of an answer may be, in bytes: 64 KiB. A longer one is
    /// [`Malformed`](ErrorKind::Malformed), so a host need not read further than one byte beyond.
    ///
    /// ```
    /// use std::io::Read;
    /// use euid_core::Operator;
    ///
    /// fn read(body: impl Read) -> std::io::Result<Vec<u8>> {
    ///     let mut bytes = Vec::new();
    ///     body.take(Operator::MAX_ANSWER as u64 + 1).read_to_end(&mut bytes)?;
    ///     Ok(bytes)
    /// }
    /// assert_eq!(read(std::io::repeat(b'A'))?.len(), Operator::MAX_ANSWER + 1);
    /// # Ok::<_, std::io::Error>(())
    /// ```
    pub const MAX_ANSWER: usize = 64 * 1024;

    /// Starts configuring an operator.
    ///
    /// ```
    /// use euid_core::{Dii, Environment, Operator};
    /// use euid_core::error::ErrorKind;
    /// use euid_core::clock::UnixMillis;
    ///
    /// // Without credentials it can refresh only.
    /// let operator = Operator::builder(Environment::Integration).build()?;
    /// let call = operator.generate(Dii::email("user@example.com")?, UnixMillis::from_millis(0));
    /// assert_eq!(call.unwrap_err().kind(), ErrorKind::Unauthorized);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(environment: Environment) -> OperatorBuilder {
        OperatorBuilder::new(environment)
    }

    /// A builder with the settings of this operator, to change some of them.
    ///
    /// ```
    /// use euid_core::{Environment, Operator};
    ///
    /// let operator = Operator::builder(Environment::Integration).build()?;
    /// let secret = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
    /// let known = operator.to_builder().credentials("EUID-C-T-124-example", secret).build()?;
    /// assert!(known.has_credentials() && !operator.has_credentials());
    /// # Ok::<_, euid_core::ConfigError>(())
    /// ```
    pub fn to_builder(&self) -> OperatorBuilder {
        self.settings.clone()
    }

    /// Scheme, host and port, and the path of a gateway if there is one.
    ///
    /// ```
    /// use euid_core::{Environment, Operator};
    ///
    /// let operator = Operator::builder(Environment::Production).build()?;
    /// assert_eq!(operator.base_url(), "https://prod.euid.eu/");
    /// # Ok::<_, euid_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn base_url(&self) -> &Uri {
        self.base_url.uri()
    }

    /// Whether it has an API key and a client secret, which [`generate`](Self::generate) and
    /// [`validate`](Self::validate) need.
    ///
    /// ```
    /// use euid_core::{Environment, Operator};
    ///
    /// let operator = Operator::builder(Environment::Production).build()?;
    /// assert!(!operator.has_credentials());
    /// # Ok::<_, euid_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.secret.is_some()
    }

    /// Makes the call for an identity: `POST /v2/token/generate`. For when a visitor has logged in and has
    /// consented to it.
    ///
    /// ```
    /// use euid_core::{Dii, Environment, Operator};
    /// use euid_core::clock::UnixMillis;
    ///
    /// let operator = Operator::builder(Environment::Integration)
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

    /// Reads the response to a call of [`generate`](Self::generate), which came `now`.
    ///
    /// ```
    /// use euid_core::{Dii, Environment, Operator};
    /// use euid_core::error::ErrorKind;
    /// use euid_core::clock::UnixMillis;
    ///
    /// # let operator = Operator::builder(Environment::Integration)
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

    /// Makes the call that asks whether `advertising_token` is one that this publisher got for this person:
    /// `POST /v2/token/validate`. For tests of an integration; the operator does not look at the token's expiry.
    ///
    /// ```
    /// # use euid_core::{Dii, Environment, Operator};
    /// # use euid_core::clock::UnixMillis;
    /// # let operator = Operator::builder(Environment::Integration)
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

    /// Reads the response to a call of [`validate`](Self::validate), which came `now`.
    ///
    /// ```
    /// # use euid_core::{Dii, Environment, Operator};
    /// # use euid_core::error::ErrorKind;
    /// # use euid_core::clock::UnixMillis;
    /// # let operator = Operator::builder(Environment::Integration)
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

    /// Opens the response to either call, which came `now`, for its outcome and for the operator's time.
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
        Ok(Answered::new(call.asked_at, stamp, now, json))
    }

    /// Makes the call for the successor of an identity: `POST /v2/token/refresh`. It needs no credentials, but
    /// the operator says more about a failure with them.
    ///
    /// ```
    /// use euid_core::{Environment, Identity, Operator};
    /// use euid_core::identity::IdentityTimes;
    /// use euid_core::clock::UnixMillis;
    ///
    /// let at = UnixMillis::from_millis;
    /// let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// let identity = Identity::new("A4AAAABl", "AAAAAG".to_owned().into(), [7; 32].into(), times)?;
    ///
    /// let operator = Operator::builder(Environment::Integration).build()?;
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

    /// Reads the response to [`refresh`](Self::refresh) of `identity`, which came `now`.
    ///
    /// ```
    /// # use euid_core::{Environment, Identity, Operator};
    /// # use euid_core::identity::IdentityTimes;
    /// # use euid_core::clock::UnixMillis;
    /// use euid_core::error::ErrorKind;
    ///
    /// # let at = UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("A4AAAABl", "AAAAAG".to_owned().into(), [7; 32].into(), times)?;
    /// # let operator = Operator::builder(Environment::Integration).build()?;
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
    /// token's; and [`Transient`](ErrorKind::Transient) or [`Malformed`](ErrorKind::Malformed).
    pub fn refreshed<B: AsRef<[u8]>>(
        &self,
        identity: &Identity,
        response: &Response<B>,
        now: UnixMillis,
    ) -> Result<Refreshed, EuidError> {
        let token = identity.refresh_token().expose_secret();
        let values = [Some(token), None, None, None];
        let sent = Sent { noun: "the refresh token", values, api_key: self.api_key() };
        answer::refreshed(read(response, sent, now)?, identity.response_key())
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

    fn post(&self, path: &'static str, body: Bytes) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.base_url.join(path);
        request.headers_mut().clone_from(&self.headers);
        request
    }

    fn secret(&self) -> Result<&Key, EuidError> {
        let none = || EuidError::new(ErrorKind::Unauthorized, "this client was built without credentials");
        self.secret.as_deref().ok_or_else(none)
    }

    fn api_key(&self) -> Option<&str> {
        self.headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix(BEARER)
    }
}

/// Shows neither API key nor secret, and no URL: a gateway's path may hold one.
impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("credentials", &self.has_credentials()).finish_non_exhaustive()
    }
}

/// What a response says and what was `sent` for it; an error if it is too long.
fn read<'a, B: AsRef<[u8]>>(
    response: &'a Response<B>,
    sent: Sent<'a>,
    now: UnixMillis,
) -> Result<Answer<'a>, EuidError> {
    let body = response.body().as_ref();
    if body.len() > Operator::MAX_ANSWER {
        return Err(EuidError::new(ErrorKind::Malformed, "the operator's answer is larger than 64 KiB"));
    }
    let text = |name: HeaderName| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    Ok(Answer {
        status: response.status().as_u16(),
        content_type: text(CONTENT_TYPE),
        retry_after: text(RETRY_AFTER).and_then(|text| retry_after(text, now)),
        body,
        sent,
    })
}

/// Reads a `Retry-After` header: seconds, or a date. `None` if it is neither.
fn retry_after(text: &str, now: UnixMillis) -> Option<Duration> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    // A date of HTTP has the forms of a cookie's `Expires`, whose parser is here already.
    let date = Cookie::parse(format!("date=; Expires={text}")).ok()?.expires_datetime()?;
    Some(UnixMillis::from_millis(date.unix_timestamp().saturating_mul(1000)).saturating_since(now))
}

/// The headers of every request.
fn headers(authorization: Option<HeaderValue>, client_version: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CLIENT_VERSION, client_version);
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization);
    }
    headers
}

/// In front of the API key in `Authorization`.
const BEARER: &str = "Bearer ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityTimes;
    use crate::protocol::envelope::gcm_seal;
    use crate::protocol::operator::{open_request_text, parse_client_secret, seal_response};

    const SECRET: &str = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
    const NOW: UnixMillis = UnixMillis::from_millis(1_795_371_587_000);

    fn operator() -> Operator {
        Operator::builder(Environment::Integration).credentials("EUID-C-T-124-key", SECRET).build().unwrap()
    }

    fn user() -> Dii {
        Dii::email("user@example.com").unwrap()
    }

    fn identity() -> Identity {
        let [refresh_from, identity_expires, refresh_expires] = [1, 2, 3].map(UnixMillis::from_millis);
        let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
        Identity::new("A4AAAABl", "AAAAAG".to_owned().into(), [7; 32].into(), times).unwrap()
    }

    /// As an operator answers whose clock is ahead of ours by `ahead`.
    fn answer(call: &Call, ahead: Duration, json: &str) -> Response<Vec<u8>> {
        let key = parse_client_secret(SECRET).unwrap();
        let opened = open_request_text(&key, NOW, call.request().body()).unwrap();
        let body = seal_response(&key, [2; 12], NOW.saturating_add(ahead), opened.nonce, json.as_bytes());
        Response::builder().header(CONTENT_TYPE, "application/octet-stream").body(body).unwrap()
    }

    #[test]
    fn calls_are_sealed_and_their_answers_opened() {
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
    fn refresh_is_sent_as_it_is_and_answered_under_the_response_key() {
        let operator = Operator::builder(Environment::Production).build().unwrap();
        let request = operator.refresh(&identity());
        assert_eq!(request.uri(), "https://prod.euid.eu/v2/token/refresh");
        assert_eq!(request.body(), "AAAAAG");
        assert!(!request.headers().contains_key(AUTHORIZATION));
        let body = BASE64.encode(gcm_seal(&[7; 32], [2; 12], br#"{"status":"optout"}"#));
        assert_eq!(operator.refreshed(&identity(), &Response::new(body), NOW).unwrap(), Refreshed::OptedOut);
    }

    #[test]
    fn retry_after_is_counted_from_the_arrival() {
        let wait = |value: &str| {
            let response = Response::builder().status(503).header(RETRY_AFTER, value).body("").unwrap();
            operator().refreshed(&identity(), &response, NOW).unwrap_err().retry_after()
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 22 Nov 2026 18:20:47 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 22 Nov 2026 18:19:40 GMT"), None);
    }

    #[test]
    fn body_above_the_limit_is_malformed_whatever_its_status() {
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
    fn errors_repeat_nothing_that_was_sent() {
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

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UnixMillis::from_millis(784_111_777_000);
        for (text, wait) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("99999999999999999999", None),
            ("Sun, 31 Feb 1994 08:50:37 GMT", None),
        ] {
            assert_eq!(retry_after(text, now), wait.map(Duration::from_secs), "{text}");
        }
    }
}
