//! Configuration from environment variables. [`from_env`] has the table.
//!
//! 1. Every error names its variable, and none repeats a value.
//! 2. One error names all missing variables.
//! 3. Only settings that differ between deployments are variables. The application's code sets all others, on the
//!    client's builder or on the layer.

use std::ffi::OsString;
use std::time::Duration;

use euid_core::error::ConfigError;
use euid_core::{Environment, KeyRing};
use zeroize::Zeroizing;

use crate::client::{EuidClient, EuidClientBuilder, Variables};
use crate::layer::EuidLayer;

/// Returns the client and the layer, configured by environment variables.
///
/// | variable | value |
/// | --- | --- |
/// | `EUID_OPERATOR_URL` | `production` (or `prod`), `integration` (or `integ`), in upper or lower case, or the base URL of another operator |
/// | `EUID_API_KEY` | the API key from the operator |
/// | `EUID_CLIENT_SECRET` | the client secret of that API key: standard base64 of 32 bytes |
/// | `EUID_COOKIE_KEYS` | [cookie keys](crate::KeyRing::from_env), newest first, separated by commas |
/// | `EUID_OPTOUT_CHECK` | optional: `1` (or `true`) for a private operator up to version 5.65, which requires [`optout_check`](EuidClientBuilder::optout_check); otherwise `0` (or `false`), the default |
/// | `EUID_MAX_WAIT_MS` | optional: how many milliseconds a page waits for a refresh at most; default: [500](EuidLayer::DEFAULT_MAX_WAIT) |
///
/// White space around a value is ignored, and an empty variable counts as not set. For other settings of the layer,
/// call its methods: `layer.expiry_margin(…)`. For other settings of the client, start with
/// [`EuidClientBuilder::from_env`]. To change keys while the server runs, [`reload`](crate::KeyRing::reload) the
/// layer's [`keys`](EuidLayer::keys).
///
/// ```no_run
/// let (client, layer) = tower_euid::from_env()?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// # Errors
///
/// If a variable is missing, or its value can't be used: for example an API key of UID2, a weak cookie key, or the
/// client secret as a cookie key. The error's text names the variable, never the value. Also if the machine has no CA
/// certificates, as for [`EuidClientBuilder::build`].
pub fn from_env() -> Result<(EuidClient, EuidLayer), ConfigError> {
    client_and_layer(&|name| std::env::var_os(name))
}

impl EuidClientBuilder {
    /// Returns a builder with operator, credentials and [`optout_check`](Self::optout_check) from the variables of
    /// [`from_env`](crate::from_env), for further settings.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use tower_euid::EuidClientBuilder;
    ///
    /// let client = EuidClientBuilder::from_env()?.timeout(Duration::from_secs(2)).build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a variable is missing or not UTF-8, or if `EUID_OPERATOR_URL` or `EUID_OPTOUT_CHECK` has none of the values
    /// in the table. [`build`](Self::build) checks the values further, and its errors name the variable too.
    pub fn from_env() -> Result<Self, ConfigError> {
        let lookup = |name: &str| std::env::var_os(name);
        builder(&lookup, required(&lookup, [OPERATOR_URL, API_KEY, CLIENT_SECRET])?)
    }
}

fn client_and_layer(lookup: Lookup<'_>) -> Result<(EuidClient, EuidLayer), ConfigError> {
    let [url, api_key, secret, keys] = required(lookup, [OPERATOR_URL, API_KEY, CLIENT_SECRET, COOKIE_KEYS])?;
    let keys = keys.check(|keys| KeyRing::parse_beside(keys, &secret.value))?;
    let client = builder(lookup, [url, api_key, secret])?.build()?;
    let layer = EuidLayer::new(keys, client.clone());
    let layer = match optional(lookup, MAX_WAIT_MS)? {
        Some(max_wait) => layer.max_wait(max_wait.check(milliseconds)?),
        None => layer,
    };
    Ok((client, layer))
}

fn builder(lookup: Lookup<'_>, [url, api_key, client_secret]: [Variable; 3]) -> Result<EuidClientBuilder, ConfigError> {
    let builder = EuidClientBuilder::new(url.check(environment)?);
    let builder = builder.credentials(&**api_key.value, &**client_secret.value).read_from(Variables {
        operator_url: Some(url.name),
        api_key: Some(api_key.name),
        client_secret: Some(client_secret.name),
    });
    Ok(match optional(lookup, OPTOUT_CHECK)? {
        Some(send) => builder.optout_check(send.check(switch)?),
        None => builder,
    })
}

fn environment(text: &str) -> Result<Environment, ConfigError> {
    match &*text.to_ascii_lowercase() {
        "production" | "prod" => Ok(Environment::Production),
        "integration" | "integ" => Ok(Environment::Integration),
        url if url.contains("://") => Ok(Environment::Url(text.to_owned())),
        _ => Err(ConfigError::new("neither `production`, `integration` nor a URL, which begins with https://")),
    }
}

fn switch(text: &str) -> Result<bool, ConfigError> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(ConfigError::new("neither `1` nor `0`")),
    }
}

fn milliseconds(text: &str) -> Result<Duration, ConfigError> {
    text.parse().map(Duration::from_millis).map_err(|_| ConfigError::new("not a whole number of milliseconds"))
}

/// Returns the values of all `names`, or an error with those that are missing.
fn required<const N: usize>(lookup: Lookup<'_>, names: [&'static str; N]) -> Result<[Variable; N], ConfigError> {
    let (mut values, mut missing) = (Vec::with_capacity(N), Vec::new());
    for name in names {
        match optional(lookup, name)? {
            Some(value) => values.push(value),
            None => missing.push(name),
        }
    }
    values.try_into().map_err(|_| {
        let error = ConfigError::new(format!("not set: {}", missing.join(", ")));
        match missing.first() {
            Some(&name) => error.with_variable(name),
            None => error,
        }
    })
}

/// Returns the value without white space around it, if any is left.
fn optional(lookup: Lookup<'_>, name: &'static str) -> Result<Option<Variable>, ConfigError> {
    let Some(value) = lookup(name) else { return Ok(None) };
    let value = value.into_string().map(Text::new);
    let value = value.map_err(|_| ConfigError::new(format!("{name} is not UTF-8")).with_variable(name))?;
    let value = Text::new(value.trim().to_owned());
    Ok((!value.is_empty()).then_some(Variable { name, value }))
}

/// An environment variable that is set.
struct Variable {
    name: &'static str,
    value: Text,
}

impl Variable {
    /// Returns the result of `parse`; an error names the variable.
    fn check<T>(&self, parse: impl FnOnce(&str) -> Result<T, ConfigError>) -> Result<T, ConfigError> {
        parse(&self.value).map_err(|error| error.in_variable(self.name))
    }
}

/// The source of values: the process, or a test.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;
/// Most values are secrets.
type Text = Zeroizing<String>;

const OPERATOR_URL: &str = "EUID_OPERATOR_URL";
const API_KEY: &str = "EUID_API_KEY";
const CLIENT_SECRET: &str = "EUID_CLIENT_SECRET";
const COOKIE_KEYS: &str = "EUID_COOKIE_KEYS";
const OPTOUT_CHECK: &str = "EUID_OPTOUT_CHECK";
const MAX_WAIT_MS: &str = "EUID_MAX_WAIT_MS";

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("EUID_OPERATOR_URL", "http://127.0.0.1:9"),
        ("EUID_API_KEY", "EUID-C-T-124-key"),
        ("EUID_CLIENT_SECRET", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM="),
        ("EUID_COOKIE_KEYS", "gHQfqxmZxOfkd2oHczx9ZwNYfSQtoMFhSrbxXmG0eA4="),
    ];

    /// Looks variables up in [`GOOD`] with `changes`.
    fn lookup(changes: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| {
            let mut variables = changes.iter().chain(&GOOD);
            variables.find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        }
    }

    /// Returns the layer that is configured by [`GOOD`] with `changes`.
    fn configured(changes: &[(&str, &str)]) -> Result<EuidLayer, String> {
        client_and_layer(&lookup(changes)).map(|(_, layer)| layer).map_err(|error| error.to_string())
    }

    #[test]
    fn layer_needs_only_four_variables() {
        assert!(configured(&[]).is_ok());
    }

    #[test]
    fn white_space_around_values_is_ignored() {
        for (name, value) in GOOD {
            assert!(configured(&[(name, &format!(" {value}\n"))]).is_ok(), "{name}");
        }
    }

    #[test]
    fn error_names_all_missing_and_empty_variables() {
        let all = client_and_layer(&|_| None).unwrap_err().to_string();
        assert_eq!(all, "not set: EUID_OPERATOR_URL, EUID_API_KEY, EUID_CLIENT_SECRET, EUID_COOKIE_KEYS");
        let some = configured(&[("EUID_API_KEY", ""), ("EUID_COOKIE_KEYS", " \n")]).unwrap_err();
        assert_eq!(some, "not set: EUID_API_KEY, EUID_COOKIE_KEYS");
    }

    #[test]
    fn error_of_an_invalid_value_names_the_variable_and_not_the_value() {
        for (name, value, complaint) in [
            ("EUID_OPERATOR_URL", "hunter2", ": neither `production`, `integration` nor a URL"),
            ("EUID_OPERATOR_URL", "ftp://hunter2", ": the operator's URL starts with https"),
            ("EUID_OPERATOR_URL", "http://hunter2", ": the operator's URL is plain http"),
            ("EUID_API_KEY", "hunter2 hunter2", ": the API key"),
            ("EUID_CLIENT_SECRET", "hunter2", ": the client secret is not standard base64"),
            ("EUID_COOKIE_KEYS", "hunter2", ": cookie key 1"),
            ("EUID_COOKIE_KEYS", "hunter2hunter2;hunter2", ": cookie key 1 has a `;`"),
            ("EUID_OPERATOR_URL", "https://hunter2/v2/token/generate", ": the operator's URL has an endpoint in it"),
            ("EUID_OPERATOR_URL", "https://hunter2.uidapi.com", ": the operator's URL belongs to UID2"),
            ("EUID_API_KEY", "UID2-C-T-124-hunter2", ": the API key belongs to UID2"),
            ("EUID_CLIENT_SECRET", "EUID-C-T-124-hunter2", ": the client secret looks like an API key"),
            ("EUID_CLIENT_SECRET", "'hunter2'", ": the client secret has quotes in it"),
            ("EUID_OPTOUT_CHECK", "hunter2", ": neither `1` nor `0`"),
            ("EUID_OPTOUT_CHECK", "TRUE", ": neither `1` nor `0`"),
            ("EUID_MAX_WAIT_MS", "hunter2", ": not a whole number of milliseconds"),
        ] {
            let error = configured(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}{complaint}")) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn error_returns_its_variable() {
        for (name, _) in GOOD.into_iter().chain([("EUID_OPTOUT_CHECK", ""), ("EUID_MAX_WAIT_MS", "")]) {
            assert_eq!(client_and_layer(&lookup(&[(name, "hunter2 hunter2")])).unwrap_err().variable(), Some(name));
        }
        assert_eq!(client_and_layer(&|_| None).unwrap_err().variable(), Some("EUID_OPERATOR_URL"));
        // A setting from the application's code has no variable.
        let builder = builder(&lookup(&[]), required(&lookup(&[]), [OPERATOR_URL, API_KEY, CLIENT_SECRET]).unwrap());
        let error = builder.unwrap().credentials("hunter2 hunter2", GOOD[2].1).build().unwrap_err();
        assert_eq!((error.variable(), error.to_string().starts_with("the API key")), (None, true));
    }

    #[cfg(unix)]
    #[test]
    fn error_of_a_value_that_is_not_utf_8_names_the_variable() {
        use std::os::unix::ffi::OsStringExt;
        let error = client_and_layer(&|_| Some(OsString::from_vec(vec![0xff]))).unwrap_err().to_string();
        assert!(error.starts_with("EUID_") && error.ends_with(" is not UTF-8"), "{error}");
    }

    #[test]
    fn error_of_swapped_credentials_names_both_variables() {
        let (key, secret) = (GOOD[1].1, GOOD[2].1);
        let error = configured(&[("EUID_API_KEY", secret), ("EUID_CLIENT_SECRET", key)]).unwrap_err();
        assert_eq!(
            error,
            "EUID_API_KEY: the API key looks like a client secret, and the secret like an API key: are the two swapped?"
        );
    }

    #[test]
    fn client_secret_is_refused_as_a_cookie_key() {
        let (secret, key) = (GOOD[2].1, GOOD[3].1);
        for (keys, position) in [(secret.to_owned(), 1), (format!("{key}, {secret}"), 2)] {
            let error = configured(&[("EUID_COOKIE_KEYS", &keys)]).unwrap_err();
            assert!(
                error.starts_with(&format!("EUID_COOKIE_KEYS: cookie key {position} is the client secret")),
                "{error}"
            );
            assert!(!error.contains(secret), "{error}");
        }
    }

    #[test]
    fn public_operators_have_names_in_any_case() {
        for name in ["production", "prod", "Production", "PROD"] {
            assert_eq!(environment(name), Ok(Environment::Production), "{name}");
        }
        for name in ["integration", "integ", "Integration", "INTEG"] {
            assert_eq!(environment(name), Ok(Environment::Integration), "{name}");
        }
        let url = "HTTPS://Operator.Example/Path";
        assert_eq!(environment(url), Ok(Environment::Url(url.to_owned())));
    }

    #[test]
    fn optout_check_is_off_unless_switched_on() {
        let shown = |value: &'static str| {
            let changes = [("EUID_OPTOUT_CHECK", value)];
            let lookup = lookup(&changes);
            let required = required(&lookup, [OPERATOR_URL, API_KEY, CLIENT_SECRET]).unwrap();
            format!("{:?}", builder(&lookup, required).unwrap())
        };
        for (value, expected) in [("", false), ("0", false), ("false", false), ("1", true), (" true ", true)] {
            assert!(shown(value).contains(&format!("optout_check: {expected}")), "{value:?}");
        }
    }

    #[test]
    fn max_wait_is_optional() {
        let max_wait = |layer: EuidLayer| format!("{layer:?}").split_once("max_wait: ").unwrap().1[..5].to_owned();
        assert_eq!(max_wait(configured(&[("EUID_MAX_WAIT_MS", "")]).unwrap()), "500ms");
        assert_eq!(max_wait(configured(&[("EUID_MAX_WAIT_MS", "123")]).unwrap()), "123ms");
    }
}
