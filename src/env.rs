//! What differs between deployments, from environment variables. [`from_env`] has the table.
//!
//! 1. Every complaint names its variable, and none repeats a value.
//! 2. All that is missing is named at once.
//! 3. Only what differs between deployments is a variable; what belongs to the application is set
//!    in its code, on what [`from_env`] gives back.

use std::ffi::OsString;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::client::{Credentials, Environment, EuidClient, EuidClientBuilder, Given};
use crate::error::ConfigError;
use crate::layer::EuidLayer;

/// Client and layer, as the environment variables say.
///
/// | variable | value |
/// | --- | --- |
/// | `EUID_OPERATOR_URL` | `production`, `integration`, or the base URL of another operator |
/// | `EUID_API_KEY` | the API key that the operator gave out |
/// | `EUID_CLIENT_SECRET` | the client secret that came with it: standard base64 of 32 bytes |
/// | `EUID_COOKIE_KEYS` | [cookie keys](crate::KeyRing::from_env), newest first, separated by commas |
/// | `EUID_MAX_WAIT_MS` | optional: how many milliseconds a page waits for a refresh at most; [500](EuidLayer::DEFAULT_MAX_WAIT) |
///
/// White space around a value is ignored, and a variable that is empty counts as not set. The
/// layer's other settings go on top: `layer.expiry_margin(…)`; for the client's, start with
/// [`EuidClientBuilder::from_env`]. To change keys while running, [`reload`](crate::KeyRing::reload) the
/// layer's [`keys`](EuidLayer::keys).
///
/// ```no_run
/// let (client, layer) = tower_euid::from_env()?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// # Errors
///
/// If a variable is missing, or its value can't be used; the text names the variable, never the
/// value. Also as [`EuidClientBuilder::build`], if the machine has no CA certificates.
pub fn from_env() -> Result<(EuidClient, EuidLayer), ConfigError> {
    client_and_layer(&|name| std::env::var_os(name))
}

impl EuidClientBuilder {
    /// A builder with operator and credentials from the first three variables of
    /// [`from_env`](crate::from_env), for what else there is to set.
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
    /// If a variable is missing or not UTF-8, or `EUID_OPERATOR_URL` is neither of its words nor a URL.
    /// What else a value can't be, [`build`](Self::build) says, and names the variable too.
    pub fn from_env() -> Result<Self, ConfigError> {
        builder(required(&|name| std::env::var_os(name), [OPERATOR_URL, API_KEY, CLIENT_SECRET])?)
    }
}

fn client_and_layer(lookup: Lookup<'_>) -> Result<(EuidClient, EuidLayer), ConfigError> {
    let [url, api_key, secret, keys] = required(lookup, [OPERATOR_URL, API_KEY, CLIENT_SECRET, COOKIE_KEYS])?;
    let client = builder([url, api_key, secret])?.build()?;
    let layer = EuidLayer::new(keys.check(|keys| keys.parse())?, client.clone());
    let layer = match optional(lookup, MAX_WAIT_MS)? {
        Some(max_wait) => layer.max_wait(max_wait.check(|text| milliseconds(text))?),
        None => layer,
    };
    Ok((client, layer))
}

fn builder([url, api_key, client_secret]: [Given<Text>; 3]) -> Result<EuidClientBuilder, ConfigError> {
    let environment = Given::in_variable(OPERATOR_URL, url.check(|text| environment(text))?);
    Ok(EuidClientBuilder::new(environment, Some(Credentials { api_key, client_secret })))
}

fn environment(text: &str) -> Result<Environment, ConfigError> {
    match text {
        "production" => Ok(Environment::Production),
        "integration" => Ok(Environment::Integration),
        url if url.contains("://") => Ok(Environment::Url(url.to_owned())),
        _ => Err(ConfigError::new("neither `production`, `integration` nor a URL, which begins with https://")),
    }
}

fn milliseconds(text: &str) -> Result<Duration, ConfigError> {
    text.parse().map(Duration::from_millis).map_err(|_| ConfigError::new("not a whole number of milliseconds"))
}

/// All of `names`, or which of them are missing.
fn required<const N: usize>(lookup: Lookup<'_>, names: [&'static str; N]) -> Result<[Given<Text>; N], ConfigError> {
    let (mut values, mut missing) = (Vec::with_capacity(N), Vec::new());
    for name in names {
        match optional(lookup, name)? {
            Some(value) => values.push(value),
            None => missing.push(name),
        }
    }
    values.try_into().map_err(|_| ConfigError::new(format!("not set: {}", missing.join(", "))))
}

/// The value without white space around it, if any is left.
fn optional(lookup: Lookup<'_>, name: &'static str) -> Result<Option<Given<Text>>, ConfigError> {
    let Some(value) = lookup(name) else { return Ok(None) };
    let value = value.into_string().map(Text::new);
    let value = value.map_err(|_| ConfigError::new(format!("{name} is not UTF-8")))?;
    let value = Text::new(value.trim().to_owned());
    Ok((!value.is_empty()).then(|| Given::in_variable(name, value)))
}

/// Where values come from: the process, or a test.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;
/// Most of them are secrets.
type Text = Zeroizing<String>;

const OPERATOR_URL: &str = "EUID_OPERATOR_URL";
const API_KEY: &str = "EUID_API_KEY";
const CLIENT_SECRET: &str = "EUID_CLIENT_SECRET";
const COOKIE_KEYS: &str = "EUID_COOKIE_KEYS";
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

    /// With `changes` to what is good; what is good is an environment that works.
    fn configured(changes: &[(&str, &str)]) -> Result<EuidLayer, String> {
        let lookup = |name: &str| {
            let mut variables = changes.iter().chain(&GOOD);
            variables.find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        };
        client_and_layer(&lookup).map(|(_, layer)| layer).map_err(|error| error.to_string())
    }

    #[test]
    fn four_variables_are_enough() {
        assert!(configured(&[]).is_ok());
    }

    #[test]
    fn white_space_around_values_is_ignored() {
        for (name, value) in GOOD {
            assert!(configured(&[(name, &format!(" {value}\n"))]).is_ok(), "{name}");
        }
    }

    #[test]
    fn all_that_is_missing_or_empty_is_named_at_once() {
        let all = client_and_layer(&|_| None).unwrap_err().to_string();
        assert_eq!(all, "not set: EUID_OPERATOR_URL, EUID_API_KEY, EUID_CLIENT_SECRET, EUID_COOKIE_KEYS");
        let some = configured(&[("EUID_API_KEY", ""), ("EUID_COOKIE_KEYS", " \n")]).unwrap_err();
        assert_eq!(some, "not set: EUID_API_KEY, EUID_COOKIE_KEYS");
    }

    #[test]
    fn a_value_that_can_not_work_is_told_by_its_variable_and_not_repeated() {
        for (name, value, complaint) in [
            ("EUID_OPERATOR_URL", "hunter2", ": neither `production`, `integration` nor a URL"),
            ("EUID_OPERATOR_URL", "ftp://hunter2", ": the operator's URL starts with https"),
            ("EUID_OPERATOR_URL", "http://hunter2", ": the operator's URL is plain http"),
            ("EUID_API_KEY", "hunter2 hunter2", ": the API key"),
            ("EUID_CLIENT_SECRET", "hunter2", ": the client secret is not standard base64"),
            ("EUID_COOKIE_KEYS", "hunter2", ": cookie key 1"),
            ("EUID_MAX_WAIT_MS", "hunter2", ": not a whole number of milliseconds"),
        ] {
            let error = configured(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}{complaint}")) && !error.contains("hunter2"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf_8_is_told_by_its_variable() {
        use std::os::unix::ffi::OsStringExt;
        let error = client_and_layer(&|_| Some(OsString::from_vec(vec![0xff]))).unwrap_err().to_string();
        assert!(error.starts_with("EUID_") && error.ends_with(" is not UTF-8"), "{error}");
    }

    #[test]
    fn the_public_operators_have_names() {
        assert_eq!(environment("production"), Ok(Environment::Production));
        assert_eq!(environment("integration"), Ok(Environment::Integration));
    }

    #[test]
    fn the_wait_is_optional() {
        let max_wait = |layer: EuidLayer| format!("{layer:?}").split_once("max_wait: ").unwrap().1[..5].to_owned();
        assert_eq!(max_wait(configured(&[("EUID_MAX_WAIT_MS", "")]).unwrap()), "500ms");
        assert_eq!(max_wait(configured(&[("EUID_MAX_WAIT_MS", "123")]).unwrap()), "123ms");
    }
}
