//! Configuration from environment variables.

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use redis::IntoConnectionInfo;
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
/// White space around a value is ignored, and an empty one counts as not set. But an empty secret beside a URL is an
/// error: the store would be keyed by the login. Without a URL, the last two have no effect.
///
/// A layer that gets a store logs one event, with the kind of the store and its server:
/// [all events](tower_euid::docs::metrics#events).
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
/// If a value is wrong, if the secret is empty, or if there is a secret without a URL. The error names the variable and
/// repeats no value.
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
    let set = |setting| match variable(&name_of(setting)).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.trim().to_owned())),
        Some(Err(_)) => Err(ConfigError::new("not Unicode").in_variable(name_of(setting))),
    };
    let value = |setting| Ok(set(setting)?.filter(|text| !text.is_empty()));
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
    // A variable set by `$(cat missing-file)` is empty. The store would be by login, but the site expects one by user.
    if secret.is_none() && set(SECRET)?.is_some() {
        return in_variable(SECRET, Err(ConfigError::new("empty; a store that is keyed by the login has no secret")));
    }
    if secret.is_some() && mode == Some(StoreMode::ReadOnly) {
        return in_variable(MODE, Err(ConfigError::new("a store that is keyed by the user is always written")));
    }
    let timeout = timeout.unwrap_or(EuidLayer::DEFAULT_STORE_TIMEOUT);
    let (mode, by) = (mode.unwrap_or(StoreMode::ReadWrite), if secret.is_some() { "user" } else { "login" });
    let (layer, server) = match &*url {
        MEMORY => (with_store(layer, MemoryStore::new(), secret), MEMORY.to_owned()),
        server if server.contains("://") => {
            let store = in_variable(URL, RedisStore::builder(server).timeout(timeout).build())?;
            // Its host and port, or its path: neither the user nor the password.
            let server = server.into_connection_info().map(|server| server.addr().to_string());
            (with_store(layer, store, secret), server.unwrap_or_default())
        }
        _ => {
            let neither = ConfigError::new("neither `memory:` nor a URL such as redis://localhost:6379");
            return in_variable(URL, Err(neither));
        }
    };
    tracing::info!(target: TARGET, by, mode = word_of(mode), server, "the layer has a store");
    Ok(layer.store_mode(mode).store_timeout(timeout))
}

fn with_store(layer: EuidLayer, store: impl Store, secret: Option<StoreSecret>) -> EuidLayer {
    match secret {
        Some(secret) => layer.store_by_subject(store, secret),
        None => layer.store(store),
    }
}

fn mode(text: &str) -> Result<StoreMode, ConfigError> {
    match text {
        READ_WRITE => Ok(StoreMode::ReadWrite),
        READ_ONLY => Ok(StoreMode::ReadOnly),
        _ => Err(ConfigError::new("neither `read_write` nor `read_only`")),
    }
}

fn word_of(mode: StoreMode) -> &'static str {
    match mode {
        StoreMode::ReadWrite => READ_WRITE,
        StoreMode::ReadOnly => READ_ONLY,
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
const READ_WRITE: &str = "read_write";
const READ_ONLY: &str = "read_only";
/// The URL of the memory of this process.
const MEMORY: &str = "memory:";
/// The target of all events of tower-euid.
const TARGET: &str = "tower_euid";

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

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
    fn empty_secret_beside_a_url_is_refused() {
        for empty in ["", " \n"] {
            let error = configured(&[(URL, "memory:"), (SECRET, empty)]).unwrap_err();
            assert_eq!(error.variable(), Some("EUID_STORE_SECRET"), "{error}");
        }
    }

    #[test]
    fn url_without_a_scheme_is_refused_with_an_example() {
        for url in ["memory", "localhost:6379"] {
            let error = configured(&[(URL, url)]).unwrap_err().to_string();
            assert!(error.contains("`memory:`") && error.contains("redis://localhost:6379"), "{error}");
        }
    }

    #[test]
    fn layer_with_a_store_logs_its_kind_and_its_server_and_no_secret() {
        let secret = StoreSecret::generate().unwrap().expose_base64().to_string();
        let log = |values: &[_]| {
            let lines = Arc::new(Mutex::new(Vec::new()));
            let (writer, settings) = (Lines(Arc::clone(&lines)), tracing_subscriber::fmt().with_ansi(false));
            // Otherwise the test of another thread can fill the cache of `tracing` with "no subscriber wants this event".
            let _ = tracing::subscriber::set_global_default(tracing_subscriber::fmt().with_writer(io::sink).finish());
            let subscriber = settings.without_time().with_writer(move || writer.clone()).finish();
            drop(tracing::subscriber::with_default(subscriber, || configured(values).unwrap()));
            String::from_utf8(lines.lock().unwrap().clone()).unwrap()
        };
        for (url, server) in [
            ("memory:", "memory:"),
            ("redis://hunter2:hunter3@redis.internal/7", "redis.internal:6379"),
            ("redis://:hunter2@10.0.0.1:1234", "10.0.0.1:1234"),
            ("unix:///run/redis.sock?pass=hunter2", "/run/redis.sock"),
        ] {
            let expected = |by, mode| {
                format!(" INFO tower_euid: the layer has a store by=\"{by}\" mode=\"{mode}\" server=\"{server}\"\n")
            };
            assert_eq!(log(&[(URL, url), (MODE, "read_only")]), expected("login", "read_only"));
            assert_eq!(log(&[(URL, url), (SECRET, &secret)]), expected("user", "read_write"));
        }
        assert_eq!(log(&[]), "");
    }

    #[derive(Clone)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
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
