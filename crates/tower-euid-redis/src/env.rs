//! Configuration from environment variables.

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use tower_euid::store::{MemoryStore, Store, StoreMode};
use tower_euid::{ConfigError, EuidLayer, Scope, StoreSecret};

use crate::RedisStore;

/// The layer with the store of the environment, or as it is if that names none.
///
/// | variable | meaning |
/// | --- | --- |
/// | `EUID_STORE_URL` | `redis://…`, `rediss://…` or `unix://…`: a server of Redis or Valkey, as [`RedisStore::new`] takes it; `memory:` the memory of this process, for tests; no store if not set |
/// | `EUID_STORE_SECRET` | the store is keyed by the user: [`EuidLayer::store_by_subject`]; 32 bytes in base64, as `openssl rand -base64 32` prints them; by the login if not set |
/// | `EUID_STORE_MODE` | `read_write`, the default; or `read_only`, the first step of [the roll-out](EuidLayer::store_mode) of a store that is keyed by the login |
/// | `EUID_STORE_TIMEOUT_MS` | how many milliseconds a call to the store may take: it sets [`EuidLayer::store_timeout`] and [`RedisStoreBuilder::timeout`](crate::RedisStoreBuilder::timeout); default: [40](EuidLayer::DEFAULT_STORE_TIMEOUT) |
///
/// White space around a value is ignored, and an empty one counts as not set. Without a URL, the last two have no effect.
///
/// ```
/// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
/// # let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
/// let layer = EuidLayer::new(CookieKey::generate()?.into(), refresh);
/// let layer = tower_euid_redis::from_env(layer)?;
/// # let _ = layer;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// # Errors
///
/// If a value is wrong, or if there is a secret without a URL. The error names the variable and repeats no value.
pub fn from_env(layer: EuidLayer) -> Result<EuidLayer, ConfigError> {
    from_variables(layer, |name| env::var_os(name))
}

/// As [`from_env`], with the values that `variable` returns for the names of variables: from a configuration file, for
/// example, or from the files of mounted secrets.
///
/// ```
/// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
/// # let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
/// let layer = EuidLayer::new(CookieKey::generate()?.into(), refresh);
/// // The value of `EUID_STORE_URL` is in the file `/run/secrets/EUID_STORE_URL`, and so on.
/// let layer = tower_euid_redis::from_variables(layer, |name| {
///     std::fs::read_to_string(format!("/run/secrets/{name}")).ok().map(Into::into)
/// })?;
/// # let _ = layer;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// # Errors
///
/// As for [`from_env`].
pub fn from_variables(layer: EuidLayer, variable: impl Fn(&str) -> Option<OsString>) -> Result<EuidLayer, ConfigError> {
    let value = |setting| match variable(&name_of(setting)).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Some(Err(_)) => Err(ConfigError::new("not Unicode").in_variable(name_of(setting))),
    };
    let secret = value(SECRET)?.map(|text| in_variable(SECRET, StoreSecret::from_base64(&text))).transpose()?;
    if secret.as_ref().is_some_and(|secret| secret.is_one_of(&layer.keys())) {
        let shared =
            ConfigError::new("it is a cookie key, and these change; make another, as with `openssl rand -base64 32`");
        return in_variable(SECRET, Err(shared));
    }
    let mode = value(MODE)?.map(|text| in_variable(MODE, mode(&text))).transpose()?;
    let timeout = value(TIMEOUT_MS)?.map(|text| in_variable(TIMEOUT_MS, timeout(&text))).transpose()?;
    let Some(url) = value(URL)? else {
        let unused = ConfigError::new("there is a secret for a store, and no store").in_variable(name_of(URL));
        return if secret.is_some() { Err(unused) } else { Ok(layer) };
    };
    if secret.is_some() && mode == Some(StoreMode::ReadOnly) {
        return in_variable(MODE, Err(ConfigError::new("a store that is keyed by the user is always written")));
    }
    let timeout = timeout.unwrap_or(EuidLayer::DEFAULT_STORE_TIMEOUT);
    let layer = if url == "memory:" {
        with_store(layer, MemoryStore::new(), secret)
    } else {
        with_store(layer, in_variable(URL, RedisStore::builder(url).timeout(timeout).build())?, secret)
    };
    Ok(layer.store_mode(mode.unwrap_or(StoreMode::ReadWrite)).store_timeout(timeout))
}

fn with_store(layer: EuidLayer, store: impl Store, secret: Option<StoreSecret>) -> EuidLayer {
    match secret {
        Some(secret) => layer.store_by_subject(store, secret),
        None => layer.store(store),
    }
}

fn mode(text: &str) -> Result<StoreMode, ConfigError> {
    match text {
        "read_write" => Ok(StoreMode::ReadWrite),
        "read_only" => Ok(StoreMode::ReadOnly),
        _ => Err(ConfigError::new("neither `read_write` nor `read_only`")),
    }
}

fn timeout(text: &str) -> Result<Duration, ConfigError> {
    match text.parse() {
        Ok(milliseconds) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
        _ => Err(ConfigError::new("not a number of milliseconds above 0")),
    }
}

fn in_variable<T>(setting: &str, result: Result<T, ConfigError>) -> Result<T, ConfigError> {
    result.map_err(|error| error.in_variable(name_of(setting)))
}

/// The store of both scopes has the variables of EUID, as the cookie keys do.
fn name_of(setting: &str) -> String {
    format!("{}{setting}", Scope::Euid.env_prefix())
}

const URL: &str = "STORE_URL";
const SECRET: &str = "STORE_SECRET";
const MODE: &str = "STORE_MODE";
const TIMEOUT_MS: &str = "STORE_TIMEOUT_MS";

#[cfg(test)]
mod tests {
    use tower_euid::{CookieKey, KeyRing, Refreshed, refresh_fn};

    use super::*;

    fn configured(values: &[(&str, &str)]) -> Result<EuidLayer, ConfigError> {
        let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
        let layer = EuidLayer::new(CookieKey::generate().unwrap().into(), refresh);
        from_variables(layer, |name| {
            let value = values.iter().find(|(setting, _)| name == name_of(setting))?;
            Some(value.1.into())
        })
    }

    #[test]
    fn url_names_the_store_and_a_secret_keys_it_by_the_user() {
        let secret = StoreSecret::generate().unwrap().expose_base64().to_string();
        for url in ["memory:", " redis://localhost:1 ", "unix:///run/redis.sock"] {
            assert!(configured(&[(URL, url)]).unwrap().sessions().is_none(), "{url}");
            assert!(configured(&[(URL, url), (SECRET, &format!("{secret}\n"))]).unwrap().sessions().is_some(), "{url}");
        }
        assert!(configured(&[(URL, " "), (SECRET, "")]).unwrap().sessions().is_none());
    }

    #[test]
    fn secret_is_none_of_the_cookie_keys() {
        let (key, secret) = (CookieKey::generate().unwrap(), StoreSecret::generate().unwrap().expose_base64());
        let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
        let same = CookieKey::from_base64(&secret).unwrap();
        let layer = EuidLayer::new(KeyRing::new([key, same]).unwrap(), refresh);
        let error = from_variables(layer, |name| {
            let value =
                [(URL, "memory:"), (SECRET, &secret)].into_iter().find(|(setting, _)| name == name_of(setting))?;
            Some(value.1.into())
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("EUID_STORE_SECRET") && error.contains("is a cookie key"), "{error}");
    }

    #[test]
    fn mode_and_timeout_are_those_of_the_layer() {
        let layer = |values: &[_]| format!("{:?}", configured(values).unwrap());
        assert!(layer(&[(URL, "memory:")]).contains("timeout: 40ms"));
        for url in ["memory:", "redis://localhost:1"] {
            let changed = layer(&[(URL, url), (MODE, "read_only"), (TIMEOUT_MS, "7")]);
            assert!(changed.contains("timeout: 7ms") && changed.contains("ReadOnly"), "{changed}");
        }
        assert!(!layer(&[(MODE, "read_only"), (TIMEOUT_MS, "7")]).contains("7ms"), "there is no store");
    }

    #[test]
    fn error_names_the_variable_and_not_its_value() {
        let secret = StoreSecret::generate().unwrap().expose_base64().to_string();
        for (values, variable) in [
            (&[(URL, "hunter2")][..], URL),
            (&[(URL, "redis://:hunter2@localhost:port")], URL),
            (&[(URL, "memory:"), (SECRET, "hunter2")], SECRET),
            (&[(SECRET, &*secret)], URL),
            (&[(URL, "memory:"), (MODE, "hunter2")], MODE),
            (&[(URL, "memory:"), (MODE, "read_only"), (SECRET, &*secret)], MODE),
            (&[(URL, "memory:"), (TIMEOUT_MS, "hunter2")], TIMEOUT_MS),
            (&[(URL, "memory:"), (TIMEOUT_MS, "0")], TIMEOUT_MS),
        ] {
            let error = configured(values).unwrap_err();
            let variable = name_of(variable);
            assert_eq!(error.variable(), Some(&*variable), "{error}");
            assert!(error.to_string().starts_with(&variable) && !error.to_string().contains("hunter2"), "{error}");
            assert!(!error.to_string().contains(&secret), "{error}");
        }
    }
}
