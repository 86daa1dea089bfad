//! Configuration from environment variables.

use std::env::{self, VarError};

use tower_euid::store::{MemoryStore, Store};
use tower_euid::{ConfigError, EuidLayer, Scope, StoreSecret};

use crate::RedisStore;

/// The layer with the store of the environment, or as it is if that names none.
///
/// | variable | meaning |
/// | --- | --- |
/// | `EUID_STORE_URL` | `redis://…`, `rediss://…` or `unix://…`: a server of Redis or Valkey, as [`RedisStore::new`] takes it; `memory:` the memory of this process, for tests; no store if not set |
/// | `EUID_STORE_SECRET` | the store is keyed by the user: [`EuidLayer::store_by_subject`]; 32 bytes in base64, as `openssl rand -base64 32` prints them; by the login if not set |
///
/// White space around a value is ignored, and an empty one counts as not set.
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
    from_variables(layer, |setting| match env::var(name_of(setting)) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(ConfigError::new("not Unicode").in_variable(name_of(setting))),
    })
}

fn from_variables(
    layer: EuidLayer,
    lookup: impl Fn(&str) -> Result<Option<String>, ConfigError>,
) -> Result<EuidLayer, ConfigError> {
    let variable = |name| Ok(lookup(name)?.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()));
    let (url, secret) = (variable(URL)?, variable(SECRET)?);
    let secret = secret.map(|text| StoreSecret::from_base64(&text)).transpose();
    let secret = secret.map_err(|error| error.in_variable(name_of(SECRET)))?;
    match (url.as_deref(), secret) {
        (None, None) => Ok(layer),
        (None, Some(_)) => {
            Err(ConfigError::new("there is a secret for a store, and no store").in_variable(name_of(URL)))
        }
        (Some("memory:"), secret) => Ok(with_store(layer, MemoryStore::new(), secret)),
        (Some(url), secret) => {
            let store = RedisStore::new(url).map_err(|error| error.in_variable(name_of(URL)))?;
            Ok(with_store(layer, store, secret))
        }
    }
}

fn with_store(layer: EuidLayer, store: impl Store, secret: Option<StoreSecret>) -> EuidLayer {
    match secret {
        Some(secret) => layer.store_by_subject(store, secret),
        None => layer.store(store),
    }
}

/// The store of both scopes has the variables of EUID, as the cookie keys do.
fn name_of(setting: &str) -> String {
    format!("{}{setting}", Scope::Euid.env_prefix())
}

const URL: &str = "STORE_URL";
const SECRET: &str = "STORE_SECRET";

#[cfg(test)]
mod tests {
    use tower_euid::{CookieKey, Refreshed, refresh_fn};

    use super::*;

    fn configured(url: &str, secret: &str) -> Result<EuidLayer, ConfigError> {
        let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
        let layer = EuidLayer::new(CookieKey::generate().unwrap().into(), refresh);
        from_variables(layer, |name| {
            let value = if name == URL { url } else { secret };
            Ok(Some(value.to_owned()))
        })
    }

    #[test]
    fn url_names_the_store_and_a_secret_keys_it_by_the_user() {
        let secret = StoreSecret::generate().unwrap().expose_base64().to_string();
        for url in ["memory:", " redis://localhost:1 ", "unix:///run/redis.sock"] {
            assert!(configured(url, "").unwrap().sessions().is_none(), "{url}");
            assert!(configured(url, &format!("{secret}\n")).unwrap().sessions().is_some(), "{url}");
        }
        assert!(configured(" ", "").unwrap().sessions().is_none());
    }

    #[test]
    fn error_names_the_variable_and_not_its_value() {
        let secret = StoreSecret::generate().unwrap().expose_base64().to_string();
        for (url, secret, variable) in [
            ("hunter2", "", URL),
            ("redis://:hunter2@localhost:port", "", URL),
            ("memory:", "hunter2", SECRET),
            ("", &*secret, URL),
        ] {
            let error = configured(url, secret).unwrap_err();
            let variable = name_of(variable);
            assert_eq!(error.variable(), Some(&*variable), "{error}");
            assert!(error.to_string().starts_with(&variable) && !error.to_string().contains("hunter2"), "{error}");
            assert!(!error.to_string().contains(secret) || secret.is_empty(), "{error}");
        }
    }
}
