//! The settings of an [`Operator`].

use std::fmt;

use http::HeaderValue;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::endpoint::BaseUrl;
use super::{Operator, headers};
use crate::error::{ConfigError, Setting};

/// Which operator to call.
///
/// ```
/// use euid_core::{Environment, Operator};
///
/// let gateway = Environment::Url("https://gateway.example/euid/".to_owned());
/// assert_eq!(Operator::builder(gateway).build()?.base_url(), "https://gateway.example/euid");
/// # Ok::<_, euid_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Environment {
    /// `https://prod.euid.eu`
    Production,
    /// `https://integ.euid.eu`: its own keys and ids, short lifetimes.
    Integration,
    /// A private operator, a gateway or the sandbox: its base URL, without `/v2/…`.
    /// [`OperatorBuilder::build`] lists what can't be one.
    Url(String),
}

impl Environment {
    fn base_url(&self) -> &str {
        match self {
            Self::Production => "https://prod.euid.eu",
            Self::Integration => "https://integ.euid.eu",
            Self::Url(url) => url,
        }
    }
}

/// Configures an [`Operator`]; see [`Operator::builder`].
///
/// ```
/// use euid_core::{Environment, Operator};
///
/// let operator = Operator::builder(Environment::Integration)
///     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
///     .build()?;
/// # Ok::<_, euid_core::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder makes no operator until `build` is called"]
pub struct OperatorBuilder {
    environment: Environment,
    credentials: Option<Credentials>,
    client_version: String,
    pub(super) optout_check: bool,
    insecure_http: bool,
}

impl OperatorBuilder {
    pub(super) fn new(environment: Environment) -> Self {
        Self {
            environment,
            credentials: None,
            client_version: concat!("euid-core-", env!("CARGO_PKG_VERSION")).to_owned(),
            optout_check: false,
            insecure_http: false,
        }
    }

    /// The API key and the client secret (standard base64 of 32 bytes) that belongs to it. Without them the operator
    /// can only refresh.
    ///
    /// ```
    /// # use euid_core::{Environment, Operator};
    /// let builder = Operator::builder(Environment::Integration);
    /// let (key, secret) = ("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=");
    /// assert!(builder.clone().credentials(key, secret).build().is_ok());
    /// assert!(builder.credentials(secret, key).build().is_err()); // swapped
    /// ```
    pub fn credentials(mut self, api_key: impl Into<String>, client_secret: impl Into<String>) -> Self {
        self.credentials = Some(Credentials {
            api_key: Zeroizing::new(api_key.into()),
            client_secret: Zeroizing::new(client_secret.into()),
        });
        self
    }

    /// Sends `optout_check: 1` with generate. Private operators up to 5.65 require it, current ones always check and
    /// ignore it. Default: off.
    ///
    /// ```
    /// # use euid_core::{Environment, Operator};
    /// let private = Environment::Url("http://localhost:3000".to_owned()); // of last year
    /// let operator = Operator::builder(private).optout_check(true).build()?;
    /// # Ok::<_, euid_core::ConfigError>(())
    /// ```
    pub fn optout_check(mut self, send: bool) -> Self {
        self.optout_check = send;
        self
    }

    /// Allows plain http to other machines, for an operator inside a private network. API key and refresh tokens
    /// then cross that network in clear. Loopback needs no permission.
    ///
    /// ```
    /// # use euid_core::{Environment, Operator};
    /// let builder = Operator::builder(Environment::Url("http://10.0.0.7:8080".to_owned()));
    /// assert!(builder.clone().build().is_err());
    /// assert!(builder.insecure_http().build().is_ok());
    /// ```
    pub fn insecure_http(mut self) -> Self {
        self.insecure_http = true;
        self
    }

    /// The name and version of the program that calls, for the header `x-uid2-client-version`. Default:
    /// `euid-core-` and the version of this crate.
    ///
    /// ```
    /// # use euid_core::{Environment, Operator};
    /// let operator = Operator::builder(Environment::Integration).client_version("our-edge-7").build()?;
    /// # let at = euid_core::clock::UnixMillis::from_millis;
    /// # let times = euid_core::identity::IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = euid_core::Identity::new("A4AAAABl", "AAAAAG".to_owned().into(), [7; 32].into(), times)?;
    /// assert_eq!(operator.refresh(&identity).headers()["x-uid2-client-version"], "our-edge-7");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn client_version(mut self, version: impl Into<String>) -> Self {
        self.client_version = version.into();
        self
    }

    /// Makes the operator.
    ///
    /// ```
    /// # use euid_core::{Environment, Operator};
    /// let error = Operator::builder(Environment::Url("ftp://localhost".to_owned())).build().unwrap_err();
    /// assert_eq!(error.to_string(), "the operator's URL starts with https://");
    /// ```
    ///
    /// # Errors
    ///
    /// If the URL can't be used, the API key can't be one or belongs to UID2, the secret is not base64 of 32 bytes,
    /// the two are swapped, or the version fits into no header.
    ///
    /// The URL can't be used if
    ///
    /// 1. its scheme is neither https nor http, or it is plain http to another machine;
    /// 2. it has a user, query, fragment or endpoint in it, or its host is one of UID2;
    /// 3. a URL library would have to repair it first. It is taken as it stands, so refused are: white space, `\`
    ///    and characters outside of ASCII anywhere (a host goes by its form with `xn--`); a host with `%`, or with
    ///    anything else but letters, digits, `.`, `-` and `_`, unless it is an IPv6 address in brackets, which has
    ///    no zone; an empty port, or one that is not a number; a path with a segment `.` or `..`.
    ///
    /// An IPv4 address is recognized as loopback only in its usual form of four decimal numbers.
    pub fn build(self) -> Result<Operator, ConfigError> {
        let url = BaseUrl::parse(self.environment.base_url(), self.insecure_http);
        let base_url = url.map_err(|error| error.about(Setting::OperatorUrl))?;
        let (authorization, secret) = self.credentials.as_ref().map(Credentials::check).transpose()?.unzip();
        let client_version = HeaderValue::try_from(&self.client_version).map_err(|_| {
            ConfigError::new("the version of the client fits into no header").about(Setting::ClientVersion)
        })?;
        Ok(Operator { base_url, headers: headers(authorization, client_version), secret, settings: self })
    }
}

/// Shows no credentials and no URL.
impl fmt::Debug for OperatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorBuilder")
            .field("credentials", &self.credentials.is_some())
            .field("client_version", &self.client_version)
            .field("optout_check", &self.optout_check)
            .field("insecure_http", &self.insecure_http)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";

    #[test]
    fn debug_of_an_operator_shows_no_credentials() {
        let builder = Operator::builder(Environment::Url("https://gateway.example/hunter2".to_owned()));
        let builder = builder.credentials("the-key", SECRET);
        let operator = builder.clone().build().unwrap();
        let call =
            operator.generate(crate::Dii::email("user@example.com").unwrap(), crate::clock::UnixMillis::from_millis(0));
        let shown = format!("{builder:?} {operator:?} {call:?}");
        assert!(!["the-key", SECRET, "hunter2", "tMmii"].iter().any(|secret| shown.contains(secret)), "{shown}");
    }

    #[test]
    fn operator_builder_errors_name_their_setting() {
        let setting = |builder: OperatorBuilder| builder.build().unwrap_err().setting();
        let good = || Operator::builder(Environment::Integration);
        for (builder, expected) in [
            (Operator::builder(Environment::Url("ftp://localhost".to_owned())), Setting::OperatorUrl),
            (good().credentials("", SECRET), Setting::ApiKey),
            (good().credentials(SECRET, "EUID-key"), Setting::ApiKey),
            (good().credentials("EUID-key", "short"), Setting::ClientSecret),
            (good().client_version("a\nb"), Setting::ClientVersion),
        ] {
            assert_eq!(setting(builder), Some(expected));
        }
    }
}
