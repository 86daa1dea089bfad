//! How an [`EuidClient`] is configured.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::skew::SkewCheck;
use super::tls::Tls;
use super::transport::{Settings, Transport};
use super::{Environment, EuidClient, Inner};
use euid_core::clock::{Clock, SystemClock};
use euid_core::error::ConfigError;
use euid_core::operator::credentials::{Credentials, Given};
use euid_core::operator::endpoint::BaseUrl;

/// Configures an [`EuidClient`]; see [`EuidClient::builder`].
///
/// ```
/// use std::time::Duration;
/// use tower_euid::{Environment, EuidClient, EuidClientBuilder};
///
/// /// What is the same in production and in tests.
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
    environment: Given<Environment>,
    credentials: Option<Credentials>,
    clock: Arc<dyn Clock>,
    connect_timeout: Duration,
    timeout: Duration,
    optout_check: bool,
    insecure_http: bool,
    tls: Tls,
}

impl EuidClientBuilder {
    pub(crate) fn new(environment: Given<Environment>, credentials: Option<Credentials>) -> Self {
        Self {
            environment,
            credentials,
            clock: Arc::new(SystemClock),
            connect_timeout: EuidClient::DEFAULT_CONNECT_TIMEOUT,
            timeout: EuidClient::DEFAULT_TIMEOUT,
            optout_check: false,
            insecure_http: false,
            tls: Tls::default(),
        }
    }

    /// The API key and the client secret (standard base64 of 32 bytes) that belongs to it. Without
    /// them the client can only refresh.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient};
    /// let builder = EuidClient::builder(Environment::Url("http://localhost:3000".to_owned()));
    /// let (key, secret) = ("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=");
    /// assert!(builder.clone().credentials(key, secret).build().is_ok());
    /// assert!(builder.credentials(secret, key).build().is_err()); // the one for the other
    /// ```
    pub fn credentials(mut self, api_key: impl Into<String>, client_secret: impl Into<String>) -> Self {
        self.credentials = Some(Credentials {
            api_key: Given::in_code(Zeroizing::new(api_key.into())),
            client_secret: Given::in_code(Zeroizing::new(client_secret.into())),
        });
        self
    }

    /// The clock that requests are stamped with. Default: [`SystemClock`].
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::{Dii, ErrorKind, ManualClock, UnixMillis};
    /// # use tower_euid::sandbox::Sandbox;
    /// # let sandbox = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// let slow = ManualClock::at(UnixMillis::from_millis(0)); // it is 1970
    /// let client = sandbox.client_builder().clock(slow).build()?;
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

    /// How long connecting may take. Default: [`EuidClient::DEFAULT_CONNECT_TIMEOUT`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::{Environment, EuidClient};
    /// # let builder = EuidClient::builder(Environment::Url("http://localhost:3000".to_owned()));
    /// // An operator in the same building: who can't be reached by then can't be reached.
    /// let client = builder.connect_timeout(Duration::from_millis(100)).build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a whole call may take, connecting and reading included. Default:
    /// [`EuidClient::DEFAULT_TIMEOUT`].
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use std::time::Duration;
    /// # use tower_euid::{Dii, ErrorKind};
    /// # use tower_euid::sandbox::{Fault, Sandbox};
    /// # let sandbox = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// let client = sandbox.client_builder().timeout(Duration::from_millis(20)).build()?;
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

    /// Sends `optout_check: 1` with generate. Private operators up to 5.65 insist on it, current
    /// ones always check and ignore it. Default: off.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient};
    /// let operator = Environment::Url("http://localhost:3000".to_owned()); // a private one of last year
    /// let client = EuidClient::builder(operator).optout_check(true).build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn optout_check(mut self, send: bool) -> Self {
        self.optout_check = send;
        self
    }

    /// Allows plain http to other machines, for an operator inside a private network. API key and
    /// refresh tokens then cross that network in clear. Loopback needs no permission.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient};
    /// let builder = EuidClient::builder(Environment::Url("http://10.0.0.7:8080".to_owned()));
    /// assert!(builder.clone().build().is_err());
    /// assert!(builder.insecure_http().build().is_ok());
    /// ```
    pub fn insecure_http(mut self) -> Self {
        self.insecure_http = true;
        self
    }

    /// The certificate authorities to trust for https, and no others: one or more certificates in PEM. For
    /// a private operator whose certificate a private CA has signed.
    ///
    /// Without this, the operating system's are trusted; on Linux, those in the file that the environment
    /// variable `SSL_CERT_FILE` names, or in the directories of `SSL_CERT_DIR`, if one of them is set.
    ///
    /// ```no_run
    /// # fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_euid::{Environment, EuidClient};
    /// let operator = Environment::Url("https://euid-operator.internal".to_owned());
    /// let client = EuidClient::builder(operator)
    ///     .root_certificates_pem(std::fs::read("/etc/ssl/internal-ca.pem")?)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn root_certificates_pem(mut self, certificates: impl Into<Vec<u8>>) -> Self {
        self.tls.roots = Some(certificates.into());
        self
    }

    /// The certificate that the client shows a private operator (mutual TLS): certificate, intermediate
    /// certificates if any, and the private key, all in PEM.
    ///
    /// ```no_run
    /// # fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_euid::{Environment, EuidClient};
    /// let operator = Environment::Url("https://euid-operator.internal".to_owned());
    /// let mut identity = std::fs::read("/run/secrets/client.pem")?;
    /// identity.extend(std::fs::read("/run/secrets/client-key.pem")?);
    /// let client = EuidClient::builder(operator).client_certificate_pem(identity).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn client_certificate_pem(mut self, certificate_and_key: impl Into<Vec<u8>>) -> Self {
        self.tls.client_certificate = Some(Zeroizing::new(certificate_and_key.into()));
        self
    }

    /// Makes the client.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient};
    /// let error = EuidClient::builder(Environment::Url("ftp://localhost".to_owned())).build().unwrap_err();
    /// assert_eq!(error.to_string(), "the operator's URL starts with https://");
    /// ```
    ///
    /// # Errors
    ///
    /// If the URL can't be used (no http or https, plain http to another machine, a user, query, fragment
    /// or endpoint in it, a host of UID2), the API key can't be one or belongs to UID2, the secret is not
    /// base64 of 32 bytes, the two are swapped, a certificate or key in PEM can't be read, or the machine
    /// has no CA certificates for https and none were given.
    pub fn build(self) -> Result<EuidClient, ConfigError> {
        let url = self.environment.check(|environment| BaseUrl::parse(environment.base_url(), self.insecure_http))?;
        let (authorization, secret) = self.credentials.as_ref().map(Credentials::check).transpose()?.unzip();
        let transport = Transport::new(Settings {
            url,
            authorization,
            connect_timeout: self.connect_timeout,
            timeout: self.timeout,
            tls: self.tls,
        })?;
        Ok(EuidClient(Arc::new(Inner {
            transport,
            secret,
            clock: self.clock,
            optout_check: self.optout_check,
            skew: SkewCheck::default(),
        })))
    }
}

impl fmt::Debug for EuidClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidClientBuilder")
            .field("credentials", &self.credentials.is_some())
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .field("optout_check", &self.optout_check)
            .field("insecure_http", &self.insecure_http)
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
    fn debug_shows_no_credentials() {
        let builder = EuidClient::builder(Environment::Url("http://127.0.0.1:9".to_owned()));
        let builder = builder.credentials("the-key", SECRET).client_certificate_pem("the-pem");
        let shown = format!("{builder:?} {:?}", builder.clone().build());
        assert!(!["the-key", SECRET, "the-pem", "116, 104"].iter().any(|secret| shown.contains(secret)), "{shown}");
    }
}
