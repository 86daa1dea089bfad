//! The settings of an [`EuidClient`].

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use euid_core::clock::{Clock, SystemClock};
use euid_core::error::ConfigError;
use euid_core::{Environment, Operator, OperatorBuilder, Scope};
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::Service;

use super::network::{Network, Settings};
use super::tls::Tls;
use super::transport::{HttpService, Transport};
use super::variables::Variables;
use super::{EuidClient, Inner};
use crate::refresh::Mutex;
use crate::telemetry::series;

/// A builder of an [`EuidClient`]; see [`EuidClient::builder`].
///
/// ```
/// use std::time::Duration;
/// use tower_euid::{Environment, EuidClient, EuidClientBuilder};
///
/// /// The settings that production and tests share.
/// fn configured(builder: EuidClientBuilder) -> EuidClientBuilder {
///     builder.connect_timeout(Duration::from_millis(500)).timeout(Duration::from_secs(2))
/// }
/// let sandbox = Environment::Url("http://localhost:3000".to_owned());
/// let client = configured(EuidClient::builder(sandbox)).build()?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder makes no client until `build` is called"]
pub struct EuidClientBuilder {
    operator: OperatorBuilder,
    /// The environment variables of its settings, for errors to name.
    variables: Variables,
    http: Option<HttpService>,
    clock: Arc<dyn Clock>,
    connect_timeout: Duration,
    timeout: Duration,
    pub(super) tls: Tls,
}

impl EuidClientBuilder {
    pub(crate) fn new(environment: Environment) -> Self {
        let version = concat!("tower-euid-", env!("CARGO_PKG_VERSION"));
        Self::with(Operator::builder(environment).client_version(version))
    }

    /// Returns a builder of a client for this operator, with its URL, credentials and other settings.
    ///
    /// ```
    /// use euid_sandbox::Sandbox;
    /// use tower_euid::{Dii, EuidClientBuilder, Generated};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// let builder = EuidClientBuilder::from_operator(server.operator()).clock(server.sandbox().clock());
    /// let client = builder.build()?;
    /// assert!(matches!(client.generate(Dii::email("user@example.com")?).await?, Generated::Identity(_)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_operator(operator: Operator) -> Self {
        Self::with(operator.to_builder())
    }

    fn with(operator: OperatorBuilder) -> Self {
        Self {
            operator,
            variables: Variables::default(),
            http: None,
            clock: Arc::new(SystemClock),
            connect_timeout: EuidClient::DEFAULT_CONNECT_TIMEOUT,
            timeout: EuidClient::DEFAULT_TIMEOUT,
            tls: Tls::default(),
        }
    }

    pub(crate) fn read_from(mut self, variables: Variables) -> Self {
        self.variables = variables;
        self
    }

    /// Sets the scope of a private operator: EUID or UID2. [`OperatorBuilder::scope`] has the default.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient, Scope};
    /// let operator = Environment::Url("http://localhost:3000".to_owned()); // private
    /// let client = EuidClient::builder(operator).scope(Scope::Uid2).build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn scope(mut self, scope: Scope) -> Self {
        self.operator = self.operator.scope(scope);
        self
    }

    /// Sets the API key and its client secret (standard base64 of 32 bytes). Without them the client can only refresh.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient};
    /// let builder = EuidClient::builder(Environment::Url("http://localhost:3000".to_owned()));
    /// let (key, secret) = ("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=");
    /// assert!(builder.clone().credentials(key, secret).build().is_ok());
    /// assert!(builder.credentials(secret, key).build().is_err()); // swapped
    /// ```
    pub fn credentials(mut self, api_key: impl Into<String>, client_secret: impl Into<String>) -> Self {
        self.operator = self.operator.credentials(api_key, client_secret);
        self.variables = Variables { api_key: None, client_secret: None, ..self.variables };
        self
    }

    /// Sets the clock for the timestamps of requests to the operator. Default: [`SystemClock`].
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::Dii;
    /// # use tower_euid::clock::{ManualClock, UnixMillis};
    /// # use tower_euid::error::ErrorKind;
    /// # use euid_sandbox::Sandbox;
    /// # let sandbox = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// let slow = ManualClock::at(UnixMillis::from_millis(0)); // it is 1970
    /// let client = tower_euid::EuidClientBuilder::from_operator(sandbox.operator()).clock(sandbox.sandbox().clock()).clock(slow).build()?;
    /// let error = client.generate(Dii::email("user@example.com")?).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::ClockDrift);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how long a connection to the operator may take to open. Default: [`EuidClient::DEFAULT_CONNECT_TIMEOUT`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::{Environment, EuidClient};
    /// # let builder = EuidClient::builder(Environment::Url("http://localhost:3000".to_owned()));
    /// // The operator is in the same building.
    /// let client = builder.connect_timeout(Duration::from_millis(100)).build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long a whole call may take, from the connection to the end of the answer. Default:
    /// [`EuidClient::DEFAULT_TIMEOUT`].
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use std::time::Duration;
    /// # use tower_euid::Dii;
    /// # use tower_euid::error::ErrorKind;
    /// # use euid_sandbox::{Fault, Sandbox};
    /// # let sandbox = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// let client = tower_euid::EuidClientBuilder::from_operator(sandbox.operator()).clock(sandbox.sandbox().clock()).timeout(Duration::from_millis(20)).build()?;
    /// sandbox.fault(Fault::Delay(Duration::from_secs(60)));
    /// let error = client.generate(Dii::email("user@example.com")?).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Transient);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets whether [`generate`](EuidClient::generate) sends `optout_check: 1`. Private operators up to version 5.65
    /// require it. Newer ones ignore it, because they always check for an opt-out. Default: no.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient};
    /// let operator = Environment::Url("http://localhost:3000".to_owned()); // a private operator, version 5.65 or older
    /// let client = EuidClient::builder(operator).optout_check(true).build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn optout_check(mut self, send: bool) -> Self {
        self.operator = self.operator.optout_check(send);
        self
    }

    /// Allows plain http to other machines, for an operator inside a private network. The API key and refresh tokens
    /// then cross that network unencrypted. Loopback needs no permission.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient};
    /// let builder = EuidClient::builder(Environment::Url("http://10.0.0.7:8080".to_owned()));
    /// assert!(builder.clone().build().is_err());
    /// assert!(builder.insecure_http().build().is_ok());
    /// ```
    pub fn insecure_http(mut self) -> Self {
        self.operator = self.operator.insecure_http();
        self
    }

    /// Sets the HTTP service that makes the calls, instead of the default client on reqwest: a client of hyper-util,
    /// a router in a test, a sandbox. The request has an absolute URI.
    ///
    /// The [`timeout`](Self::timeout) still applies, and the client reads no more than 64 KiB of an answer. The service
    /// is responsible for everything else: certificates, proxies, the timeout for connecting, retries on a closed
    /// connection. It should not follow redirects. The log shows its errors as the causes of the client's errors, so
    /// they should hold no secret.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower_euid::{Dii, Environment, EuidClient, Scope};
    /// use tower_euid::error::ErrorKind;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let closed = tower::service_fn(async |request: Request<Full<Bytes>>| {
    ///     assert_eq!(request.uri(), "https://integ.euid.eu/v2/token/generate");
    ///     Response::builder().status(503).body(Full::new(Bytes::new()))
    /// });
    /// let client = EuidClient::builder(Environment::Integration(Scope::Euid))
    ///     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
    ///     .http_service(closed)
    ///     .build()?;
    /// let error = client.generate(Dii::email("user@example.com")?).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Transient);
    /// # Ok(())
    /// # }
    /// ```
    pub fn http_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.http = Some(HttpService::new(service));
        self
    }

    /// Returns the configured client.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient};
    /// let error = EuidClient::builder(Environment::Url("ftp://localhost".to_owned())).build().unwrap_err();
    /// assert_eq!(error.to_string(), "the operator's URL starts with https://");
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`OperatorBuilder::build`], if
    ///
    /// * the URL can't be used: it is neither http nor https; it is plain http to another machine; or it has a user, a
    ///   query, a fragment or an endpoint;
    /// * the API key is malformed, the client secret is not base64 of 32 bytes, or the two are swapped;
    /// * one of [scope](Self::scope), environment, host and API key belongs to EUID and another to UID2;
    /// * the API key is that of euid-sandbox, and the operator is EUID's or UID2's own.
    ///
    /// Also if a certificate or key in PEM can't be read. Also if https needs CA certificates and there are none:
    /// neither on the machine nor in the settings, and no [`http_service`](Self::http_service) is set.
    pub fn build(self) -> Result<EuidClient, ConfigError> {
        let operator = self.operator.build().map_err(|error| self.variables.name(error))?;
        let transport = match self.http {
            Some(service) => Transport::Service(service),
            None => Transport::Network(Network::new(&Settings {
                https: operator.base_url().scheme_str() == Some("https"),
                base_url: operator.base_url().to_string(),
                connect_timeout: self.connect_timeout,
                tls: self.tls,
            })?),
        };
        if operator.has_credentials() {
            series::add_client(operator.scope());
        }
        let (timeout, clock) = (self.timeout, self.clock);
        Ok(EuidClient(Arc::new(Inner {
            operator,
            transport,
            timeout,
            clock,
            has_warned: AtomicBool::new(false),
            failures: Mutex::default(),
        })))
    }
}

impl fmt::Debug for EuidClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidClientBuilder")
            .field("operator", &self.operator)
            .field("http_service", &self.http.is_some())
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .field("root_certificates_pem", &self.tls.roots.is_some())
            .field("client_certificate_pem", &self.tls.client_certificate.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";

    #[test]
    fn host_that_the_default_client_cannot_call_is_refused_by_build() {
        for host in ["xn--a.example", "xn--.example", "xn--zzzzzzz99999.example"] {
            let error =
                EuidClient::builder(Environment::Url(format!("https://{host}"))).build().unwrap_err().to_string();
            assert!(error.starts_with("the operator's URL is not one"), "{host}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_credentials() {
        let builder = EuidClient::builder(Environment::Url("http://127.0.0.1:9".to_owned()));
        let builder = builder.credentials("the-key", SECRET).client_certificate_pem("the-pem");
        let shown = format!("{builder:?} {:?}", builder.clone().build());
        assert!(!["the-key", SECRET, "the-pem", "116, 104"].iter().any(|secret| shown.contains(secret)), "{shown}");
    }
}
