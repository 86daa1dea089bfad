//! The error of a wrong setting, which names the setting.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// A setting that can't work: a key, a secret, a URL, an environment variable.
///
/// It is raised while the application is put together, never while it serves. The text names the fault, and repeats no
/// key, secret or URL. [`setting`](Self::setting) and [`variable`](Self::variable) name the place. `Debug` shows only
/// the text, because a `main` that returns the error prints its `Debug`.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::KeyRing;
///
/// let error = "aHVudGVyMg==".parse::<KeyRing>().unwrap_err();
/// assert_eq!(error.to_string(), "cookie key 1 is not 32 bytes (44 characters of base64): it has 7");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    what: Cow<'static, str>,
    setting: Option<Setting>,
    variable: Option<Cow<'static, str>>,
}

/// The setting that a [`ConfigError`] is about.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::error::Setting;
/// use tower_euid::{Environment, Operator, Scope};
///
/// let operator = Operator::builder(Environment::Integration(Scope::Euid));
/// let operator = operator.credentials("EUID-C-T-124-key", "no base64");
/// assert_eq!(operator.build().unwrap_err().setting(), Some(Setting::ClientSecret));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Setting {
    /// The operator's base URL.
    OperatorUrl,
    /// The API key.
    ApiKey,
    /// The client secret.
    ClientSecret,
    /// The version of the client, as it is sent to the operator.
    ClientVersion,
    /// A key that cookies are sealed under, or the list of them.
    CookieKeys,
    /// An attribute of the cookies.
    Cookies,
    /// Certificates for TLS.
    Certificates,
    /// The store of visitors' states.
    Store,
}

impl ConfigError {
    /// An error whose text is `what`, which must repeat no secret.
    ///
    /// For programs that have settings of their own beside those of this crate.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::ConfigError;
    ///
    /// let error = ConfigError::new("the port is not a number");
    /// assert_eq!(error.to_string(), "the port is not a number");
    /// ```
    #[must_use]
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), setting: None, variable: None }
    }

    /// The same error, about this setting.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::ConfigError;
    /// use tower_euid::error::Setting;
    ///
    /// let error = ConfigError::new("the CA's certificate has no PEM in it").about(Setting::Certificates);
    /// assert_eq!(error.setting(), Some(Setting::Certificates));
    /// ```
    #[must_use]
    pub fn about(mut self, setting: Setting) -> Self {
        self.setting = Some(setting);
        self
    }

    /// The same error, about a value that was read from this environment variable. The text gets the name in
    /// front, unless the error has a variable already.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::ConfigError;
    ///
    /// let error = ConfigError::new("not a number").in_variable("PORT");
    /// assert_eq!(error.to_string(), "PORT: not a number");
    /// assert_eq!(error.in_variable("OTHER").variable(), Some("PORT"));
    /// ```
    #[must_use]
    pub fn in_variable(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        if self.variable.is_none() {
            let name = name.into();
            self.what = format!("{name}: {}", self.what).into();
            self.variable = Some(name);
        }
        self
    }

    /// The same error, about an environment variable that its text names already.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::ConfigError;
    ///
    /// let error = ConfigError::new("PORT is not set").with_variable("PORT");
    /// assert_eq!(error.variable(), Some("PORT"));
    /// assert_eq!(error.to_string(), "PORT is not set");
    /// ```
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.variable = Some(name.into());
        self
    }

    /// The setting that is wrong; `None` if the error does not say.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::error::Setting;
    /// use tower_euid::{Environment, Operator};
    ///
    /// let operator = Operator::builder(Environment::Url("ftp://localhost".to_owned()));
    /// assert_eq!(operator.build().unwrap_err().setting(), Some(Setting::OperatorUrl));
    /// ```
    #[must_use]
    pub fn setting(&self) -> Option<Setting> {
        self.setting
    }

    /// The environment variable whose value is wrong or missing, the first if several are; `None` if the value came
    /// from code.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::{Environment, Operator};
    ///
    /// let operator = Operator::builder(Environment::Url("ftp://localhost".to_owned()));
    /// assert_eq!(operator.build().unwrap_err().variable(), None);
    /// ```
    #[must_use]
    pub fn variable(&self) -> Option<&str> {
        self.variable.as_deref()
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_that_returns_the_error_prints_its_text() {
        let error = ConfigError::new("not a number").about(Setting::OperatorUrl).in_variable("PORT");
        assert_eq!(format!("{error:?}"), "PORT: not a number");
    }
}
