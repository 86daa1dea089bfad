//! The settings of a [`Sandbox`].

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use euid_core::clock::ManualClock;
use euid_core::protocol::parse_client_secret;
use euid_core::{ConfigError, Environment, OperatorBuilder, Scope};
use zeroize::Zeroizing;

use super::calls::Counters;
use super::operator::Operator;
use super::token::Issuer;
use super::{Inner, Sandbox};

/// Configures a [`Sandbox`]; see [`Sandbox::builder`].
///
/// ```
/// use tower_euid::clock::ManualClock;
/// use euid_sandbox::{Lifetimes, Sandbox};
///
/// let builder = Sandbox::builder().clock(ManualClock::running()).lifetimes(Lifetimes::default());
/// let (one, other) = (builder.clone().build()?, builder.build()?); // two operators, one time
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder makes no sandbox until `build` is called"]
pub struct SandboxBuilder {
    scope: Scope,
    /// `None` is the default of the scope.
    api_key: Option<Zeroizing<String>>,
    client_secret: Zeroizing<String>,
    clock: ManualClock,
    lifetimes: Lifetimes,
    /// `None` is the default of the scope.
    identity_v3: Option<bool>,
    wants_optout_check: bool,
}

impl SandboxBuilder {
    pub(crate) fn new() -> Self {
        Self {
            scope: Scope::default(),
            api_key: None,
            client_secret: Zeroizing::new(Sandbox::DEFAULT_CLIENT_SECRET.to_owned()),
            clock: ManualClock::running(),
            lifetimes: Lifetimes::default(),
            identity_v3: None,
            wants_optout_check: false,
        }
    }

    /// The scope to play: an operator of EUID or of UID2. Default: EUID.
    ///
    /// As with the real operators, these differ: what tokens and API keys begin with, the length of advertising tokens (see
    /// [`identity_v3`](Self::identity_v3)), and the links in error texts. UID2 ignores `tcf_consent_string`. Neither operator
    /// refreshes the tokens of the other scope.
    ///
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// use tower_euid::Scope;
    ///
    /// let sandbox = Sandbox::builder().scope(Scope::Uid2).build()?;
    /// assert_eq!(sandbox.scope(), Scope::Uid2);
    /// assert!(sandbox.api_key().starts_with("UID2-"));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// The API key to take, and the client secret (standard base64 of 32 bytes) that belongs to it.
    /// Default: [`Sandbox::default_api_key`] and [`Sandbox::DEFAULT_CLIENT_SECRET`].
    ///
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// let secret = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM="; // as the tests of the site have it
    /// let sandbox = Sandbox::builder().credentials("EUID-C-T-124-ours", secret).build()?;
    /// assert_eq!((sandbox.api_key(), sandbox.client_secret()), ("EUID-C-T-124-ours", secret));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn credentials(mut self, api_key: impl Into<String>, client_secret: impl Into<String>) -> Self {
        self.api_key = Some(Zeroizing::new(api_key.into()));
        self.client_secret = Zeroizing::new(client_secret.into());
        self
    }

    /// The clock of the sandbox. Default: [`ManualClock::running`], one of its own.
    ///
    /// Before March 2021 every refresh answers that the person opted out: the operator no longer refreshes tokens that
    /// old.
    ///
    /// ```
    /// # use tower_euid::clock::{Clock, ManualClock, UnixMillis};
    /// # use euid_sandbox::Sandbox;
    /// let new_year = UnixMillis::from_millis(1_735_689_600_000);
    /// let sandbox = Sandbox::builder().clock(ManualClock::at(new_year)).build()?;
    /// assert_eq!(sandbox.clock().now(), new_year); // and stays so until `advance`
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.clock = clock;
        self
    }

    /// How long identities last. Default: [`Lifetimes::default`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use euid_sandbox::{Lifetimes, Sandbox};
    /// // Due as soon as issued: each page that comes with an identity refreshes.
    /// let lifetimes = Lifetimes { refresh_from: Duration::ZERO, ..Lifetimes::default() };
    /// let sandbox = Sandbox::builder().lifetimes(lifetimes).build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// Whether the raw id in an advertising token has 33 bytes or 32. The token has 219 characters or 218. The real operator
    /// has a setting of the same name. Default: 33 bytes for EUID, 32 for UID2, as in production.
    ///
    /// ```
    /// # use tower_euid::{Dii, Generated};
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let sandbox = Sandbox::builder().identity_v3(false).build()?;
    /// # let client = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?.0;
    /// let generated = client.generate(Dii::email("user@example.com")?).await?;
    /// let Generated::Identity(identity) = generated else { unreachable!() };
    /// assert_eq!(identity.advertising_token().len(), 218);
    /// # Ok(())
    /// # }
    /// ```
    pub fn identity_v3(mut self, has_33_bytes: bool) -> Self {
        self.identity_v3 = Some(has_33_bytes);
        self
    }

    /// Whether generate is refused without `optout_check: 1`, as by private operators up to 5.65; see
    /// [`OperatorBuilder::optout_check`](euid_core::OperatorBuilder::optout_check). Default: no, as by today's
    /// operators.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::Dii;
    /// # use tower_euid::error::ErrorKind;
    /// # use euid_sandbox::Sandbox;
    /// let sandbox = Sandbox::builder().wants_optout_check(true).build()?;
    /// let error = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?.0.generate(Dii::email("user@example.com")?).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::RejectedInput);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn wants_optout_check(mut self, wants: bool) -> Self {
        self.wants_optout_check = wants;
        self
    }

    /// Makes the sandbox.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use euid_sandbox::{Lifetimes, Sandbox};
    /// let short = Lifetimes { refresh_expires: Duration::from_secs(60), ..Lifetimes::default() };
    /// let error = Sandbox::builder().lifetimes(short).build().unwrap_err();
    /// assert_eq!(error.to_string(), "identity_expires is after refresh_expires");
    /// ```
    ///
    /// # Errors
    ///
    /// If the API key can't be one or begins as those of the other scope do, the secret is not base64 of 32 bytes, or the
    /// lifetimes are not `refresh_from ≤ identity_expires ≤ refresh_expires`.
    pub fn build(self) -> Result<Sandbox, ConfigError> {
        let scope = self.scope;
        let api_key = self.api_key.unwrap_or_else(|| Zeroizing::new(Sandbox::default_api_key(scope)));
        let caller = caller(scope, IN_PROCESS.to_owned(), &api_key, &self.client_secret).build()?;
        let secret = parse_client_secret(&self.client_secret)?;
        let Lifetimes { refresh_from, identity_expires, refresh_expires } = self.lifetimes;
        if refresh_from > identity_expires {
            return Err(ConfigError::new("refresh_from is after identity_expires"));
        }
        if identity_expires > refresh_expires {
            return Err(ConfigError::new("identity_expires is after refresh_expires"));
        }
        let issuer = Issuer { scope, identity_v3: self.identity_v3.unwrap_or(scope == Scope::Euid) };
        let mut operator = Operator::new(api_key, secret, self.lifetimes, issuer);
        operator.wants_optout_check = self.wants_optout_check;
        Ok(Sandbox(Arc::new(Inner {
            operator,
            caller,
            client_secret: self.client_secret,
            clock: self.clock,
            opted_out: Mutex::default(),
            fault: Mutex::default(),
            calls: Counters::default(),
        })))
    }
}

/// An operator of this scope at `base_url`, as a publisher calls it.
pub(crate) fn caller(scope: Scope, base_url: String, api_key: &str, client_secret: &str) -> OperatorBuilder {
    euid_core::Operator::builder(Environment::Url(base_url)).scope(scope).credentials(api_key, client_secret)
}

/// The base URL of a sandbox without a port. It reaches nothing.
const IN_PROCESS: &str = "http://localhost";

impl fmt::Debug for SandboxBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxBuilder")
            .field("scope", &self.scope)
            .field("clock", &self.clock)
            .field("lifetimes", &self.lifetimes)
            .field("identity_v3", &self.identity_v3)
            .field("wants_optout_check", &self.wants_optout_check)
            .finish_non_exhaustive()
    }
}

/// The lifetimes of an identity, counted from its issue. They are sent in whole milliseconds.
///
/// ```
/// use std::time::Duration;
/// use euid_sandbox::{Lifetimes, Sandbox};
///
/// let hours = |hours: u64| Duration::from_secs(3600 * hours);
/// let as_in_production =
///     Lifetimes { refresh_from: hours(1), identity_expires: hours(72), refresh_expires: hours(720) };
/// let sandbox = Sandbox::builder().lifetimes(as_in_production).build()?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Until a refresh is due.
    pub refresh_from: Duration,
    /// Until the advertising token ends.
    pub identity_expires: Duration,
    /// Until the refresh token ends.
    pub refresh_expires: Duration,
}

impl Default for Lifetimes {
    /// 15 minutes, an hour, a day: the lifetimes in the operator's own tests.
    fn default() -> Self {
        Self {
            refresh_from: Duration::from_secs(900),
            identity_expires: Duration::from_secs(3600),
            refresh_expires: Duration::from_secs(86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use euid_core::error::Setting;

    use super::*;

    #[test]
    fn sandbox_builder_refuses_invalid_lifetimes_and_credentials() {
        let second = Duration::from_secs(1);
        let lifetimes = |refresh_from, identity_expires, refresh_expires| {
            let lifetimes = Lifetimes { refresh_from, identity_expires, refresh_expires };
            Sandbox::builder().lifetimes(lifetimes).build().map_err(|error| error.to_string())
        };
        assert!(lifetimes(second, second, second).is_ok());
        assert!(lifetimes(2 * second, second, 2 * second).unwrap_err().contains("refresh_from"));
        assert!(lifetimes(second, 2 * second, second).unwrap_err().contains("refresh_expires"));
        assert!(Sandbox::builder().credentials("key", "c2hvcnQ=").build().is_err());
    }

    #[test]
    fn sandbox_takes_the_default_api_key_of_its_scope_unless_it_is_given_one() {
        let api_key = |builder: SandboxBuilder| builder.build().unwrap().api_key().to_owned();
        for (scope, prefix) in [(Scope::Euid, "EUID-C-T-124-"), (Scope::Uid2, "UID2-C-T-124-")] {
            let builder = Sandbox::builder().scope(scope);
            assert!(api_key(builder.clone()).starts_with(prefix));
            let given = builder.credentials("key", Sandbox::DEFAULT_CLIENT_SECRET);
            assert_eq!(api_key(given.clone()), "key");
            assert_eq!(given.clone().build().unwrap().operator().scope(), Some(scope));
            assert_eq!(api_key(given.scope(scope.other())), "key");
            let others = Sandbox::default_api_key(scope.other());
            let others = Sandbox::builder().scope(scope).credentials(others, Sandbox::DEFAULT_CLIENT_SECRET);
            assert_eq!(others.build().unwrap_err().setting(), Some(Setting::ApiKey));
        }
    }

    #[test]
    fn debug_of_a_sandbox_shows_no_credentials() {
        for scope in Scope::ALL {
            let builder = Sandbox::builder().scope(scope);
            let custom = builder.clone().credentials(Sandbox::default_api_key(scope), Sandbox::DEFAULT_CLIENT_SECRET);
            let shown = format!("{builder:?} {custom:?} {:?}", builder.clone().build().unwrap());
            assert!(!shown.contains("C-T-124") && !shown.contains(Sandbox::DEFAULT_CLIENT_SECRET), "{shown}");
        }
    }

    #[test]
    fn sandbox_default_secret_counts_as_published() {
        let error = euid_core::CookieKey::from_base64(Sandbox::DEFAULT_CLIENT_SECRET).unwrap_err().to_string();
        assert!(error.contains("is printed in documents or test data"), "{error}");
    }
}
