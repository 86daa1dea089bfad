//! The three calls to the operator, without I/O: requests out, responses in.
//!
//! 1. [`Operator`] makes each call as an `http::Request` and reads its `http::Response`. The host sends the request
//!    with its own HTTP client, within a deadline, and must not follow redirects.
//! 2. A host may repeat any call: the operator answers a repeated call like the first.
//! 3. Time is an argument. Random bytes come from the operating system.
//! 4. An operator belongs to one scope, EUID or UID2. A token of the other is refused.
//! 5. No error repeats what was sent, and no `Debug` shows it.

mod builder;
mod call;
mod calls;
mod credentials;
mod endpoint;
mod response;
mod scope;

use std::fmt;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use zeroize::Zeroizing;

pub use self::builder::{Environment, OperatorBuilder};
pub use self::call::{Answered, Call, ClockSkew};
use self::endpoint::BaseUrl;
use self::scope::OperatorScope;
use crate::error::{ErrorKind, EuidError};
use crate::protocol::CLIENT_VERSION;
use crate::protocol::envelope::Key;
use crate::scope::Scope;
pub use crate::scope::Uid2Region;

/// An operator of EUID or UID2, as one publisher calls it.
///
/// A call has two halves: the first makes a request, which the host sends, and the second reads the response. The host
/// must set a deadline; it need not read more of a body than [`MAX_ANSWER`](Self::MAX_ANSWER)` + 1` bytes. If no
/// response came, the outcome is an error of kind [`Transient`](ErrorKind::Transient), which the host makes.
///
/// ```
/// use bytes::Bytes;
/// use euid_core::{Dii, Environment, EuidError, Generated, Operator, Scope};
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
/// let operator = Operator::builder(Environment::Integration(Scope::Euid))
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
/// The client secret, an opened answer, the refresh token in the body of a request and the content of a [`Call`] are
/// wiped when dropped. The API key, which is a header of every request, is not wiped.
#[derive(Clone)]
pub struct Operator {
    /// The settings that it was made from, for [`to_builder`](Self::to_builder).
    settings: OperatorBuilder,
    base_url: BaseUrl,
    /// The headers of every request.
    headers: HeaderMap,
    secret: Option<Zeroizing<Key>>,
    scope: OperatorScope,
}

impl Operator {
    /// The longest body of an answer, in bytes: 64 KiB. A longer one is [`Malformed`](ErrorKind::Malformed), so a host
    /// need not read further than one byte beyond.
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
    /// use euid_core::{Dii, Environment, Operator, Scope};
    /// use euid_core::error::ErrorKind;
    /// use euid_core::clock::UnixMillis;
    ///
    /// // Without credentials it can refresh only.
    /// let operator = Operator::builder(Environment::Integration(Scope::Euid)).build()?;
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
    /// use euid_core::{Environment, Operator, Scope};
    ///
    /// let operator = Operator::builder(Environment::Integration(Scope::Euid)).build()?;
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
    /// use euid_core::{Environment, Operator, Scope};
    ///
    /// let operator = Operator::builder(Environment::Production(Scope::Euid)).build()?;
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
    /// use euid_core::{Environment, Operator, Scope};
    ///
    /// let operator = Operator::builder(Environment::Production(Scope::Euid)).build()?;
    /// assert!(!operator.has_credentials());
    /// # Ok::<_, euid_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.secret.is_some()
    }

    /// Whether it is an operator of EUID or of UID2; `None` while that is unknown. [`OperatorBuilder::scope`] says what
    /// tells it. An operator of which nothing does has the scope of its first token from then on, and so have its
    /// clones.
    ///
    /// ```
    /// use euid_core::{Environment, Operator, Scope};
    ///
    /// let private = Operator::builder(Environment::Url("https://operator.internal".to_owned()));
    /// let (key, secret) = ("UID2-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=");
    /// assert_eq!(private.credentials(key, secret).build()?.scope(), Some(Scope::Uid2));
    /// # Ok::<_, euid_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        self.scope.known()
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
        f.debug_struct("Operator")
            .field("scope", &self.scope())
            .field("credentials", &self.has_credentials())
            .finish_non_exhaustive()
    }
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

/// The word before the API key in `Authorization`.
const BEARER: &str = "Bearer ";
