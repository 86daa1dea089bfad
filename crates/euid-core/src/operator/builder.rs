//! The settings of an [`Operator`].

use std::fmt;

use http::HeaderValue;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::endpoint::BaseUrl;
use super::scope::Sign;
use super::{Operator, headers};
use crate::error::{ConfigError, Setting};
use crate::scope::{Scope, Uid2Region};

/// Which operator to call.
///
/// ```
/// use euid_core::{Environment, Operator, Scope};
///
/// let production = Operator::builder(Environment::Production(Scope::Uid2)).build()?;
/// assert_eq!(production.base_url(), "https://prod.uidapi.com/");
/// let gateway = Environment::Url("https://gateway.example/euid/".to_owned());
/// assert_eq!(Operator::builder(gateway).build()?.base_url(), "https://gateway.example/euid");
/// # Ok::<_, euid_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Environment {
    /// `https://prod.euid.eu` or `https://prod.uidapi.com`
    Production(Scope),
    /// `https://integ.euid.eu` or `https://operator-integ.uidapi.com`: its own keys and ids, short lifetimes.
    Integration(Scope),
    /// UID2's production in one region, such as `https://jp.prod.uidapi.com`.
    Uid2Region(Uid2Region),
    /// A private operator, a gateway or the sandbox: its base URL, without `/v2/…`.
    /// [`OperatorBuilder::build`] lists what can't be one. If host and API key do not tell the scope, say it:
    /// [`OperatorBuilder::scope`].
    Url(String),
}

impl Environment {
    /// Reads a setting of a deployment: the name of a public operator of `scope`, in upper or lower case, or a base
    /// URL.
    ///
    /// | text | operator |
    /// | --- | --- |
    /// | `production`, `prod` | [`Production`](Self::Production) |
    /// | `integration`, `integ` | [`Integration`](Self::Integration) |
    /// | `usw`, `au`, `jp`, `sg`, `global`, for UID2 only | [`Uid2Region`](Self::Uid2Region) |
    /// | a text with `://` in it | [`Url`](Self::Url); [`OperatorBuilder::build`] checks it |
    ///
    /// ```
    /// use euid_core::{Environment, Scope};
    ///
    /// assert_eq!(Environment::parse(Scope::Euid, "Production")?, Environment::Production(Scope::Euid));
    /// assert!(Environment::parse(Scope::Uid2, "jp").is_ok() && Environment::parse(Scope::Euid, "jp").is_err());
    /// # Ok::<_, euid_core::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the text is none of these. The error does not repeat it.
    pub fn parse(scope: Scope, text: &str) -> Result<Self, ConfigError> {
        let word = text.to_ascii_lowercase();
        let regions: &[Uid2Region] = if scope == Scope::Uid2 { &Uid2Region::ALL } else { &[] };
        match &*word {
            "production" | "prod" => return Ok(Self::Production(scope)),
            "integration" | "integ" => return Ok(Self::Integration(scope)),
            url if url.contains("://") => return Ok(Self::Url(text.to_owned())),
            _ => {}
        }
        if regions.is_empty() && Uid2Region::ALL.iter().any(|region| region.literals().word == word) {
            return Err(
                ConfigError::new("a region of UID2, and this is the operator of EUID").about(Setting::OperatorUrl)
            );
        }
        let region = regions.iter().find(|region| region.literals().word == word);
        region.map(|region| Self::Uid2Region(*region)).ok_or_else(|| {
            let words: String = regions.iter().map(|region| format!(", `{}`", region.literals().word)).collect();
            ConfigError::new(format!(
                "neither `production`, `integration`{words} nor a URL, which begins with https://"
            ))
            .about(Setting::OperatorUrl)
        })
    }

    fn base_url(&self) -> &str {
        match self {
            Self::Production(scope) => scope.literals().production,
            Self::Integration(scope) => scope.literals().integration,
            Self::Uid2Region(region) => region.literals().production,
            Self::Url(url) => url,
        }
    }

    /// The scope of a public operator.
    fn scope(&self) -> Option<Scope> {
        match self {
            Self::Production(scope) | Self::Integration(scope) => Some(*scope),
            Self::Uid2Region(_) => Some(Scope::Uid2),
            Self::Url(_) => None,
        }
    }
}

/// Configures an [`Operator`]; see [`Operator::builder`].
///
/// ```
/// use euid_core::{Environment, Operator, Scope};
///
/// let operator = Operator::builder(Environment::Integration(Scope::Euid))
///     .credentials("EUID-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=")
///     .build()?;
/// # Ok::<_, euid_core::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder makes no operator until `build` is called"]
pub struct OperatorBuilder {
    environment: Environment,
    scope: Option<Scope>,
    credentials: Option<Credentials>,
    client_version: String,
    pub(super) optout_check: bool,
    insecure_http: bool,
}

impl OperatorBuilder {
    pub(super) fn new(environment: Environment) -> Self {
        Self {
            environment,
            scope: None,
            credentials: None,
            client_version: concat!("euid-core-", env!("CARGO_PKG_VERSION")).to_owned(),
            optout_check: false,
            insecure_http: false,
        }
    }

    /// The scope of a private operator: whether it issues tokens of EUID or of UID2. Default: that of the environment,
    /// else of the host (in `euid.eu` or `uidapi.com`), else of the API key (`EUID-…` or `UID2-…`); else unknown until
    /// the first token shows it. The operator's tokens must be of this scope:
    /// [`WrongScope`](crate::error::ErrorKind::WrongScope).
    ///
    /// ```
    /// # use euid_core::{Environment, Operator, Scope};
    /// let private = || Operator::builder(Environment::Url("https://operator.internal".to_owned()));
    /// assert_eq!(private().build()?.scope(), None);
    /// assert_eq!(private().scope(Scope::Uid2).build()?.scope(), Some(Scope::Uid2));
    /// # Ok::<_, euid_core::ConfigError>(())
    /// ```
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// The API key and the client secret (standard base64 of 32 bytes) that belongs to it. Without them the operator
    /// can only refresh.
    ///
    /// ```
    /// # use euid_core::{Environment, Operator, Scope};
    /// let builder = Operator::builder(Environment::Integration(Scope::Euid));
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
    /// # use euid_core::{Environment, Operator, Scope};
    /// let operator = Operator::builder(Environment::Integration(Scope::Euid)).client_version("our-edge-7").build()?;
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
    /// If the URL can't be used, the API key can't be one, the secret is not base64 of 32 bytes, the two are swapped,
    /// or the version fits into no header. Also if one of [scope](Self::scope), environment, host and API key belongs
    /// to EUID and another to UID2, or if the API key is that of euid-sandbox and the host is in `euid.eu` or
    /// `uidapi.com`.
    ///
    /// The URL can't be used if
    ///
    /// 1. its scheme is neither https nor http, or it is plain http to another machine;
    /// 2. it has a user, query, fragment or endpoint in it;
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
        let scope_of_host = base_url.uri().host().and_then(Scope::of_host);
        if scope_of_host.is_some() && self.credentials.as_ref().is_some_and(Credentials::are_of_sandbox) {
            let what = "the API key is that of the sandbox, and the URL that of a real operator: one of them is wrong";
            return Err(ConfigError::new(what).about(Setting::ApiKey));
        }
        let scope = Sign::agree([
            (Sign::Setting, self.scope),
            (Sign::Environment, self.environment.scope()),
            (Sign::Host, scope_of_host),
            (Sign::ApiKey, self.credentials.as_ref().and_then(|credentials| Scope::of_api_key(&credentials.api_key))),
        ])?;
        let headers = headers(authorization, client_version);
        Ok(Operator { base_url, headers, secret, scope: scope.into(), settings: self })
    }
}

/// Shows no credentials and no URL.
impl fmt::Debug for OperatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorBuilder")
            .field("scope", &self.scope)
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
        let good = || Operator::builder(Environment::Integration(Scope::Euid));
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

    #[test]
    fn api_key_of_the_sandbox_is_refused_beside_a_real_operator() {
        for scope in Scope::ALL {
            let api_key = format!("{}{}", scope.literals().api_key, crate::protocol::SANDBOX_API_KEY);
            let error = |environment| {
                let operator = Operator::builder(environment).scope(scope).credentials(api_key.as_str(), SECRET);
                operator.build().err().map(|error| (error.setting(), error.to_string()))
            };
            for real in [
                Environment::Production(scope),
                Environment::Integration(scope),
                Environment::Url(format!("https://test.{}", scope.literals().operator_domain)),
            ] {
                let (setting, text) = error(real).unwrap();
                assert_eq!(setting, Some(Setting::ApiKey));
                assert!(text.starts_with("the API key is that of the sandbox") && !text.contains("Sandbx"), "{text}");
            }
            assert_eq!(error(Environment::Url("http://127.0.0.1:8000".to_owned())), None);
        }
    }

    #[test]
    fn environment_is_a_public_operator_by_name_in_any_case_or_a_url() {
        for scope in Scope::ALL {
            for name in ["production", "prod", "Production", "PROD"] {
                assert_eq!(Environment::parse(scope, name), Ok(Environment::Production(scope)), "{name}");
            }
            for name in ["integration", "integ", "Integration", "INTEG"] {
                assert_eq!(Environment::parse(scope, name), Ok(Environment::Integration(scope)), "{name}");
            }
            let url = "HTTPS://Operator.Example/Path";
            assert_eq!(Environment::parse(scope, url), Ok(Environment::Url(url.to_owned())));
            let error = Environment::parse(scope, "hunter2").unwrap_err();
            assert_eq!(error.setting(), Some(Setting::OperatorUrl));
            assert!(error.to_string().starts_with("neither `production`, `integration`"), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn regions_are_names_of_uid2_only() {
        for (name, region, url) in [
            ("usw", Uid2Region::UsWest, "https://usw.prod.uidapi.com/"),
            ("AU", Uid2Region::Australia, "https://au.prod.uidapi.com/"),
            ("jp", Uid2Region::Japan, "https://jp.prod.uidapi.com/"),
            ("sg", Uid2Region::Singapore, "https://sg.prod.uidapi.com/"),
            ("Global", Uid2Region::Global, "https://global.prod.uidapi.com/"),
        ] {
            let environment = Environment::parse(Scope::Uid2, name).unwrap();
            assert_eq!(environment, Environment::Uid2Region(region));
            let operator = Operator::builder(environment).build().unwrap();
            assert_eq!((operator.base_url().to_string().as_str(), operator.scope()), (url, Some(Scope::Uid2)));
            let error = Environment::parse(Scope::Euid, name).unwrap_err().to_string();
            assert_eq!(error, "a region of UID2, and this is the operator of EUID");
        }
        let error = Environment::parse(Scope::Uid2, "nowhere").unwrap_err().to_string();
        assert!(error.contains(", `usw`, `au`, `jp`, `sg`, `global` nor a URL"), "{error}");
    }
}
