//! Configuration from environment variables. [`from_env`] has the table.
//!
//! 1. Each scope has variables of its own: `EUID_…` and `UID2_…`.
//! 2. Every error names its variable, and none repeats a value.
//! 3. One error names all missing variables.
//! 4. Only settings that differ between deployments are variables. The application's code sets all others, on the
//!    client's builder or on the layer.

mod variable;

use std::ffi::OsString;
use std::time::Duration;

use euid_core::error::ConfigError;
use euid_core::{Environment, KeyRing, Scope};

use self::variable::{Lookup, Setting, Variable, name_of, optional, process, required};
use crate::client::{EuidClient, EuidClientBuilder, EuidClients, Variables};
use crate::layer::EuidLayer;

/// Returns the client and the layer, configured by environment variables: for EUID if the variables that are set begin
/// with `EUID_`, for UID2 if they begin with `UID2_`.
///
/// | variable | value |
/// | --- | --- |
/// | `…_OPERATOR_URL` | `production` (or `prod`), `integration` (or `integ`), in UID2 also a region (`usw`, `au`, `jp`, `sg` or `global`), in upper or lower case; or the base URL of another operator, of this scope |
/// | `…_API_KEY` | the API key from the operator |
/// | `…_CLIENT_SECRET` | the client secret of that API key: standard base64 of 32 bytes |
/// | `…_COOKIE_KEYS` | [cookie keys](crate::KeyRing::from_env), separated by commas; the first one seals |
/// | `…_OPTOUT_CHECK` | optional: `1` (or `true`) for a private operator up to version 5.65, which requires [`optout_check`](EuidClientBuilder::optout_check); otherwise `0` (or `false`), the default |
/// | `…_MAX_WAIT_MS` | optional: how many milliseconds a page waits for a refresh at most; default: [500](EuidLayer::DEFAULT_MAX_WAIT) |
/// | `…_EXPLAIN` | optional: `1` (or `true`) for a layer that [explains](EuidLayer::explain) each visitor's state, in development and staging; otherwise `0` (or `false`), the default |
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
/// If a variable is missing, or its value can't be used: for example an API key of the other scope, a weak cookie key,
/// or the client secret as a cookie key. The error's text names the variable, never the value. Also if variables of
/// both scopes are set, which [`both_from_env`] reads. Also if the machine has no CA certificates, as for
/// [`EuidClientBuilder::build`].
pub fn from_env() -> Result<(EuidClient, EuidLayer), ConfigError> {
    client_and_layer(&process)
}

/// As [`from_env`], with the values that `variable` returns for the names of variables: from a configuration file, for
/// example, or from the files of mounted secrets.
///
/// ```no_run
/// // The value of `EUID_API_KEY` is in the file `/run/secrets/EUID_API_KEY`, and so on.
/// let (client, layer) = tower_euid::from_variables(|name| {
///     std::fs::read_to_string(format!("/run/secrets/{name}")).ok().map(Into::into)
/// })?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// # Errors
///
/// As for [`from_env`].
pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<(EuidClient, EuidLayer), ConfigError> {
    client_and_layer(&variable)
}

/// Returns a client for each scope and a layer for both, configured by the variables of [`from_env`]: those that begin
/// with `EUID_` and those that begin with `UID2_`. For each request `choose` names the scope.
///
/// The layer has one setting for both scopes: `EUID_COOKIE_KEYS`, `EUID_MAX_WAIT_MS` and `EUID_EXPLAIN`.
///
/// ```no_run
/// use tower_euid::Scope;
///
/// let (clients, layer) = tower_euid::both_from_env(|request| {
///     match request.headers.get("cloudfront-viewer-country")?.as_bytes() {
///         b"DE" | b"FR" | b"GB" => Some(Scope::Euid), // and so on
///         _ => Some(Scope::Uid2),
///     }
/// })?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// # Errors
///
/// As for [`from_env`]; one error names all missing variables of both scopes. Either client secret is refused as a
/// cookie key. Also if `UID2_COOKIE_KEYS`, `UID2_MAX_WAIT_MS` or `UID2_EXPLAIN` is set and has not the value of the same
/// setting of EUID.
pub fn both_from_env(
    choose: impl Fn(&http::request::Parts) -> Option<Scope> + Send + Sync + 'static,
) -> Result<(EuidClients, EuidLayer), ConfigError> {
    both_from_variables(process, choose)
}

/// As [`both_from_env`], with the values that `variable` returns for the names of variables: see [`from_variables`].
///
/// ```no_run
/// # let choose = |_: &http::request::Parts| Some(tower_euid::Scope::Euid);
/// let (clients, layer) = tower_euid::both_from_variables(
///     |name| std::fs::read_to_string(format!("/run/secrets/{name}")).ok().map(Into::into),
///     choose,
/// )?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// # Errors
///
/// As for [`both_from_env`].
pub fn both_from_variables(
    variable: impl Fn(&str) -> Option<OsString>,
    choose: impl Fn(&http::request::Parts) -> Option<Scope> + Send + Sync + 'static,
) -> Result<(EuidClients, EuidLayer), ConfigError> {
    let (clients, layer) = both(&variable)?;
    let layer = layer.scope(clients.uid2.clone(), choose)?;
    Ok((clients, layer))
}

impl EuidClientBuilder {
    /// Returns a builder with operator, credentials and [`optout_check`](Self::optout_check) from the variables of
    /// [`from_env`](crate::from_env), for further settings. Its scope is the one whose variables are set.
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
    /// If these variables are set for both scopes, and as for [`from_env_of`](Self::from_env_of).
    pub fn from_env() -> Result<Self, ConfigError> {
        let scope = chosen(&process, &OF_CLIENT, "`EuidClientBuilder::from_env_of` reads those of one")?;
        Self::from_env_of(scope)
    }

    /// As [`from_env`](Self::from_env), from the variables of this scope. Those of the other scope may be set, too.
    ///
    /// ```no_run
    /// use tower_euid::{EuidClientBuilder, Scope};
    ///
    /// let client = EuidClientBuilder::from_env_of(Scope::Uid2)?.build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a variable is missing or not UTF-8, or if `…_OPERATOR_URL` or `…_OPTOUT_CHECK` has none of the values in the
    /// table. [`build`](Self::build) checks the values further, and its errors name the variable too.
    pub fn from_env_of(scope: Scope) -> Result<Self, ConfigError> {
        builder(&process, scope, required(&process, OPERATOR.map(|setting| (scope, setting)))?)
    }
}

impl EuidClients {
    /// Returns a client for each scope, from the variables of [`from_env`](crate::from_env): those that begin with
    /// `EUID_` and those that begin with `UID2_`.
    ///
    /// ```no_run
    /// use tower_euid::EuidClients;
    ///
    /// let EuidClients { euid, uid2 } = EuidClients::from_env()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a variable is missing, or its value can't be used. One error names all missing variables of both scopes.
    pub fn from_env() -> Result<Self, ConfigError> {
        clients(&process, required(&process, OPERATORS)?)
    }
}

fn client_and_layer(lookup: Lookup<'_>) -> Result<(EuidClient, EuidLayer), ConfigError> {
    let scope = chosen(lookup, &OF_LAYER, "`both_from_env` reads both")?;
    let [url, api_key, secret] = OPERATOR.map(|setting| (scope, setting));
    let [url, api_key, secret, keys] = required(lookup, [url, api_key, secret, (scope, COOKIE_KEYS)])?;
    let keys = keys.check(|keys| KeyRing::parse_beside(keys, &[&secret.value]))?;
    let client = builder(lookup, scope, [url, api_key, secret])?.build()?;
    let layer = layer(lookup, scope, keys, client.clone())?;
    Ok((client, layer))
}

/// Returns the clients, and a layer for EUID alone.
fn both(lookup: Lookup<'_>) -> Result<(EuidClients, EuidLayer), ConfigError> {
    let [a, b, c, d, e, f] = OPERATORS;
    let [a, b, euid_secret, d, e, uid2_secret, keys] =
        required(lookup, [a, b, c, d, e, f, (Scope::Euid, COOKIE_KEYS)])?;
    for setting in [COOKIE_KEYS, MAX_WAIT_MS, EXPLAIN] {
        let [ours, theirs] = [Scope::Euid, Scope::Uid2].map(|scope| optional(lookup, (scope, setting)));
        if let (ours, Some(theirs)) = (ours?, theirs?)
            && ours.is_none_or(|ours| *ours.value != *theirs.value)
        {
            let ours = name_of((Scope::Euid, setting));
            return Err(
                ConfigError::new(format!("not the value of {ours}, which is for both scopes")).in_variable(theirs.name)
            );
        }
    }
    let keys = keys.check(|keys| KeyRing::parse_beside(keys, &[&euid_secret.value, &uid2_secret.value]))?;
    let clients = clients(lookup, [a, b, euid_secret, d, e, uid2_secret])?;
    let layer = layer(lookup, Scope::Euid, keys, clients.euid.clone())?;
    Ok((clients, layer))
}

fn clients(lookup: Lookup<'_>, [a, b, c, d, e, f]: [Variable; 6]) -> Result<EuidClients, ConfigError> {
    let euid = builder(lookup, Scope::Euid, [a, b, c])?.build()?;
    let uid2 = builder(lookup, Scope::Uid2, [d, e, f])?.build()?;
    Ok(EuidClients { euid, uid2 })
}

fn layer(lookup: Lookup<'_>, scope: Scope, keys: KeyRing, client: EuidClient) -> Result<EuidLayer, ConfigError> {
    let layer = EuidLayer::new(keys, client);
    let layer = match optional(lookup, (scope, MAX_WAIT_MS))? {
        Some(max_wait) => layer.max_wait(max_wait.check(milliseconds)?),
        None => layer,
    };
    Ok(match optional(lookup, (scope, EXPLAIN))? {
        Some(explains) => layer.explain(explains.check(switch)?),
        None => layer,
    })
}

fn builder(
    lookup: Lookup<'_>,
    scope: Scope,
    [url, api_key, client_secret]: [Variable; 3],
) -> Result<EuidClientBuilder, ConfigError> {
    let builder = EuidClientBuilder::new(url.check(|text| Environment::parse(scope, text))?).scope(scope);
    let builder = builder.credentials(&**api_key.value, &**client_secret.value).read_from(Variables {
        operator_url: Some(url.name),
        api_key: Some(api_key.name),
        client_secret: Some(client_secret.name),
    });
    Ok(match optional(lookup, (scope, OPTOUT_CHECK))? {
        Some(send) => builder.optout_check(send.check(switch)?),
        None => builder,
    })
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

/// Returns the scope that has any of `settings`; EUID if there are none. If both have, the error gives the advice
/// `instead`.
fn chosen(lookup: Lookup<'_>, settings: &[Setting], instead: &str) -> Result<Scope, ConfigError> {
    let first = |scope| settings.iter().find_map(|setting| optional(lookup, (scope, setting)).transpose()).transpose();
    match (first(Scope::Euid)?, first(Scope::Uid2)?) {
        (Some(euid), Some(uid2)) => {
            let what = format!("{} and {} are variables of two scopes; {instead}", euid.name, uid2.name);
            Err(ConfigError::new(what).with_variable(euid.name))
        }
        (None, Some(_)) => Ok(Scope::Uid2),
        (_, None) => Ok(Scope::Euid),
    }
}

const OPERATOR_URL: Setting = "OPERATOR_URL";
const API_KEY: Setting = "API_KEY";
const CLIENT_SECRET: Setting = "CLIENT_SECRET";
const COOKIE_KEYS: Setting = "COOKIE_KEYS";
const OPTOUT_CHECK: Setting = "OPTOUT_CHECK";
const MAX_WAIT_MS: Setting = "MAX_WAIT_MS";
const EXPLAIN: Setting = "EXPLAIN";

/// What a client needs.
const OPERATOR: [Setting; 3] = [OPERATOR_URL, API_KEY, CLIENT_SECRET];
/// What a client for each scope needs.
const OPERATORS: [(Scope, Setting); 6] = [
    (Scope::Euid, OPERATOR_URL),
    (Scope::Euid, API_KEY),
    (Scope::Euid, CLIENT_SECRET),
    (Scope::Uid2, OPERATOR_URL),
    (Scope::Uid2, API_KEY),
    (Scope::Uid2, CLIENT_SECRET),
];
/// All settings of a client.
const OF_CLIENT: [Setting; 4] = [OPERATOR_URL, API_KEY, CLIENT_SECRET, OPTOUT_CHECK];
/// All settings of a client and its layer.
const OF_LAYER: [Setting; 7] = [OPERATOR_URL, API_KEY, CLIENT_SECRET, OPTOUT_CHECK, COOKIE_KEYS, MAX_WAIT_MS, EXPLAIN];

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
    const KEY: &str = "gHQfqxmZxOfkd2oHczx9ZwNYfSQtoMFhSrbxXmG0eA4=";

    /// The settings that a layer needs.
    fn good(scope: Scope) -> [(String, String); 4] {
        let api_key = format!("{scope}-C-T-124-key");
        let url = "http://127.0.0.1:9";
        let settings = [(OPERATOR_URL, url), (API_KEY, &*api_key), (CLIENT_SECRET, SECRET), (COOKIE_KEYS, KEY)];
        settings.map(|(setting, value)| (name_of((scope, setting)), value.to_owned()))
    }

    /// Looks variables up in `changes`, then in `variables`.
    fn lookup<'a>(
        changes: &'a [(&'a str, &'a str)],
        variables: &'a [(String, String)],
    ) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| {
            let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let mut all = changes.iter().copied().chain(variables);
            all.find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        }
    }

    /// Returns the client and the layer that are configured by [`good`] with changes to these settings.
    fn configured(scope: Scope, changes: &[(Setting, &str)]) -> Result<(EuidClient, EuidLayer), ConfigError> {
        let changes = changes.iter().map(|(setting, value)| (name_of((scope, setting)), (*value).to_owned()));
        let variables: Vec<_> = changes.chain(good(scope)).collect();
        client_and_layer(&lookup(&[], &variables))
    }

    fn refused(scope: Scope, changes: &[(Setting, &str)]) -> String {
        configured(scope, changes).unwrap_err().to_string()
    }

    #[test]
    fn layer_needs_only_four_variables() {
        for scope in Scope::ALL {
            assert_eq!(configured(scope, &[]).unwrap().0.scope(), Some(scope));
        }
    }

    #[test]
    fn variables_of_the_application_configure_one_scope_or_both() {
        let [euid, uid2] = Scope::ALL.map(good);
        assert_eq!(from_variables(lookup(&[], &uid2)).unwrap().0.scope(), Some(Scope::Uid2));
        let all: Vec<_> = euid.into_iter().chain(uid2).collect();
        let (clients, _) = both_from_variables(lookup(&[], &all), |_| Some(Scope::Euid)).unwrap();
        assert_eq!(clients.of(Scope::Uid2).scope(), Some(Scope::Uid2));
        assert!(from_variables(lookup(&[], &all)).is_err(), "variables of two scopes");
    }

    #[test]
    fn white_space_around_values_is_ignored() {
        for scope in Scope::ALL {
            for (name, value) in good(scope) {
                let padded = format!(" {value}\n");
                let (changes, good) = ([(&*name, &*padded)], good(scope));
                assert!(client_and_layer(&lookup(&changes, &good)).is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn error_names_all_missing_and_empty_variables() {
        let all = client_and_layer(&|_| None).unwrap_err().to_string();
        assert_eq!(all, "not set: EUID_OPERATOR_URL, EUID_API_KEY, EUID_CLIENT_SECRET, EUID_COOKIE_KEYS");
        for scope in Scope::ALL {
            let some = refused(scope, &[(API_KEY, ""), (COOKIE_KEYS, " \n")]);
            assert_eq!(some, format!("not set: {scope}_API_KEY, {scope}_COOKIE_KEYS"));
        }
    }

    #[test]
    fn error_of_an_invalid_value_names_the_variable_and_not_the_value() {
        for scope in Scope::ALL {
            let other = scope.other();
            let other_host = format!("https://hunter2.{}", other.eid_source());
            let other_key = format!("{other}-C-T-124-hunter2");
            let not_of_scope = format!("belongs to {other}");
            for (setting, value, complaint) in [
                (OPERATOR_URL, "hunter2", "neither `production`, `integration`"),
                (OPERATOR_URL, "ftp://hunter2", "the operator's URL starts with https"),
                (OPERATOR_URL, "http://hunter2", "the operator's URL is plain http"),
                (API_KEY, "hunter2 hunter2", "the API key"),
                (CLIENT_SECRET, "hunter2", "the client secret is not standard base64"),
                (COOKIE_KEYS, "hunter2", "cookie key 1"),
                (COOKIE_KEYS, "hunter2hunter2;hunter2", "cookie key 1 has a `;`"),
                (OPERATOR_URL, "https://hunter2/v2/token/generate", "the operator's URL has an endpoint in it"),
                (OPERATOR_URL, &*other_host, &*format!("the operator {not_of_scope}")),
                (API_KEY, &*other_key, &*format!("the API key {not_of_scope}")),
                (CLIENT_SECRET, "EUID-C-T-124-hunter2", "the client secret looks like an API key"),
                (CLIENT_SECRET, "UID2-C-T-124-hunter2", "the client secret looks like an API key"),
                (CLIENT_SECRET, "'hunter2'", "the client secret has quotes in it"),
                (OPTOUT_CHECK, "hunter2", "neither `1` nor `0`"),
                (OPTOUT_CHECK, "TRUE", "neither `1` nor `0`"),
                (MAX_WAIT_MS, "hunter2", "not a whole number of milliseconds"),
                (EXPLAIN, "hunter2", "neither `1` nor `0`"),
            ] {
                let error = refused(scope, &[(setting, value)]);
                assert!(error.starts_with(&format!("{scope}_{setting}: {complaint}")), "{error}");
                assert!(!error.contains("hunter2"), "{error}");
            }
        }
    }

    #[test]
    fn error_returns_its_variable() {
        for scope in Scope::ALL {
            for setting in OF_LAYER {
                let error = configured(scope, &[(setting, "hunter2 hunter2")]).unwrap_err();
                assert_eq!(error.variable(), Some(&*format!("{scope}_{setting}")));
            }
            // A setting from the application's code has no variable.
            let good = good(scope);
            let lookup = lookup(&[], &good);
            let builder = builder(&lookup, scope, required(&lookup, OPERATOR.map(|setting| (scope, setting))).unwrap());
            let error = builder.unwrap().credentials("hunter2 hunter2", SECRET).build().unwrap_err();
            assert_eq!((error.variable(), error.to_string().starts_with("the API key")), (None, true));
        }
        assert_eq!(client_and_layer(&|_| None).unwrap_err().variable(), Some("EUID_OPERATOR_URL"));
    }

    #[cfg(unix)]
    #[test]
    fn error_of_a_value_that_is_not_utf_8_names_the_variable() {
        use std::os::unix::ffi::OsStringExt;
        for scope in Scope::ALL {
            let not_utf_8 = |name: &str| name.starts_with(scope.env_prefix()).then(|| OsString::from_vec(vec![0xff]));
            let error = client_and_layer(&not_utf_8).unwrap_err().to_string();
            assert!(error.starts_with(scope.env_prefix()) && error.ends_with(" is not UTF-8"), "{error}");
        }
    }

    #[test]
    fn error_of_swapped_credentials_names_both_variables() {
        for scope in Scope::ALL {
            let key = format!("{scope}-C-T-124-key");
            let error = refused(scope, &[(API_KEY, SECRET), (CLIENT_SECRET, &key)]);
            let expected =
                "the API key looks like a client secret, and the secret like an API key: are the two swapped?";
            assert_eq!(error, format!("{scope}_API_KEY: {expected}"));
        }
    }

    #[test]
    fn client_secret_is_refused_as_a_cookie_key() {
        for scope in Scope::ALL {
            for (keys, position) in [(SECRET.to_owned(), 1), (format!("{KEY}, {SECRET}"), 2)] {
                let error = refused(scope, &[(COOKIE_KEYS, &keys)]);
                let expected = format!("{scope}_COOKIE_KEYS: cookie key {position} is the client secret");
                assert!(error.starts_with(&expected) && !error.contains(SECRET), "{error}");
            }
        }
    }

    #[test]
    fn optout_check_is_off_unless_switched_on() {
        for scope in Scope::ALL {
            let good = good(scope);
            let shown = |value: &str| {
                let name = name_of((scope, OPTOUT_CHECK));
                let changes = [(&*name, value)];
                let lookup = lookup(&changes, &good);
                let required = required(&lookup, OPERATOR.map(|setting| (scope, setting))).unwrap();
                format!("{:?}", builder(&lookup, scope, required).unwrap())
            };
            for (value, expected) in [("", false), ("0", false), ("false", false), ("1", true), (" true ", true)] {
                assert!(shown(value).contains(&format!("optout_check: {expected}")), "{value:?}");
            }
        }
    }

    #[test]
    fn explanation_is_off_unless_switched_on() {
        for scope in Scope::ALL {
            for (value, explains) in [("", false), ("0", false), ("false", false), ("1", true), ("true", true)] {
                let layer = configured(scope, &[(EXPLAIN, value)]).unwrap().1;
                assert!(format!("{layer:?}").contains(&format!("explains: {explains}")), "{value:?}");
            }
        }
    }

    #[test]
    fn max_wait_is_optional() {
        let max_wait = |layer: EuidLayer| format!("{layer:?}").split_once("max_wait: ").unwrap().1[..5].to_owned();
        for scope in Scope::ALL {
            assert_eq!(max_wait(configured(scope, &[(MAX_WAIT_MS, "")]).unwrap().1), "500ms");
            assert_eq!(max_wait(configured(scope, &[(MAX_WAIT_MS, "123")]).unwrap().1), "123ms");
        }
    }

    #[test]
    fn variables_of_both_scopes_are_refused_where_one_is_read() {
        for scope in Scope::ALL {
            let good = good(scope);
            for setting in OF_LAYER {
                let name = name_of((scope.other(), setting));
                let changes = [(&*name, "hunter2")];
                let error = client_and_layer(&lookup(&changes, &good)).unwrap_err();
                let text = error.to_string();
                assert!(
                    text.contains(&name) && text.contains(" are variables of two scopes; `both_from_env` reads"),
                    "{text}"
                );
                assert!(text.contains(&format!("{scope}_OPERATOR_URL")) && !text.contains("hunter2"), "{text}");
                let empty = [(&*name, " ")];
                assert!(client_and_layer(&lookup(&empty, &good)).is_ok(), "{name}");
            }
            // A cookie key or a wait is no setting of a client.
            for (setting, is_refused) in OF_LAYER.map(|setting| (setting, OF_CLIENT.contains(&setting))) {
                let name = name_of((scope.other(), setting));
                let changes = [(&*name, "hunter2")];
                let chosen = chosen(&lookup(&changes, &good), &OF_CLIENT, "instead");
                assert_eq!(chosen.ok(), (!is_refused).then_some(scope), "{name}");
            }
        }
    }

    #[test]
    fn clients_of_both_scopes_need_the_variables_of_both() {
        let all = |lookup: Lookup<'_>| clients(lookup, required(lookup, OPERATORS)?);
        let variables: Vec<_> = Scope::ALL.into_iter().flat_map(good).collect();
        let both = all(&lookup(&[], &variables)).unwrap();
        for scope in Scope::ALL {
            assert_eq!(both.of(scope).scope(), Some(scope));
        }
        let error = all(&lookup(&[("EUID_API_KEY", ""), ("UID2_OPERATOR_URL", "")], &variables)).unwrap_err();
        assert_eq!(error.to_string(), "not set: EUID_API_KEY, UID2_OPERATOR_URL");
        let error = all(&lookup(&[("UID2_API_KEY", "EUID-key")], &variables)).unwrap_err();
        assert!(error.to_string().starts_with("UID2_API_KEY: the API key belongs to EUID"), "{error}");
    }

    /// Returns the clients and the layer that are configured by [`good`] of both scopes with changes.
    fn both_configured(changes: &[(&str, &str)]) -> Result<(EuidClients, EuidLayer), String> {
        let [euid, uid2] = Scope::ALL.map(good);
        // The layer needs only one list of keys.
        let variables: Vec<_> = euid.into_iter().chain(uid2.into_iter().take(OPERATOR.len())).collect();
        both(&lookup(changes, &variables)).map_err(|error| error.to_string())
    }

    #[test]
    fn both_scopes_need_seven_variables() {
        let (clients, layer) = both_configured(&[("EUID_MAX_WAIT_MS", "123")]).unwrap();
        assert!(format!("{layer:?}").contains("max_wait: 123ms"), "{layer:?}");
        for scope in Scope::ALL {
            assert_eq!(clients.of(scope).scope(), Some(scope));
        }
        let missing = both(&|_| None).unwrap_err().to_string();
        let names =
            "EUID_OPERATOR_URL, EUID_API_KEY, EUID_CLIENT_SECRET, UID2_OPERATOR_URL, UID2_API_KEY, UID2_CLIENT_SECRET";
        assert_eq!(missing, format!("not set: {names}, EUID_COOKIE_KEYS"));
    }

    #[test]
    fn client_secrets_of_both_scopes_are_refused_as_cookie_keys() {
        let other = "1R2lOoBqUbGbOQsDFDMKZc5VvbTSEp0LZgVVZ1M7Rmo=";
        for secret in [SECRET, other] {
            let keys = format!("{KEY},{secret}");
            let error = both_configured(&[("UID2_CLIENT_SECRET", other), ("EUID_COOKIE_KEYS", &keys)]).unwrap_err();
            assert!(error.starts_with("EUID_COOKIE_KEYS: cookie key 2 is the client secret"), "{error}");
        }
    }

    #[test]
    fn settings_of_the_layer_must_be_the_same_in_both_scopes() {
        assert!(both_configured(&[("UID2_COOKIE_KEYS", KEY)]).is_ok());
        assert!(both_configured(&[("UID2_MAX_WAIT_MS", "123"), ("EUID_MAX_WAIT_MS", " 123")]).is_ok());
        for (changes, setting) in [
            (&[("UID2_COOKIE_KEYS", "hunter2")][..], COOKIE_KEYS),
            (&[("UID2_MAX_WAIT_MS", "123")], MAX_WAIT_MS),
            (&[("UID2_MAX_WAIT_MS", "123"), ("EUID_MAX_WAIT_MS", "124")], MAX_WAIT_MS),
            (&[("UID2_EXPLAIN", "true")], EXPLAIN),
        ] {
            let error = both_configured(changes).unwrap_err();
            let expected = format!("not the value of EUID_{setting}, which is for both scopes");
            assert_eq!(error, format!("UID2_{setting}: {expected}"));
        }
    }
}
