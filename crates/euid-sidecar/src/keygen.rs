//! `keygen`: prints a new cookie key, as the variable that holds it, and its id on standard error.

use tower_euid::{ConfigError, CookieKey, Scope};

use crate::settings::of_scope;

pub(crate) fn keygen(scope: Scope) -> Result<(), ConfigError> {
    let key = CookieKey::generate()?;
    println!("{}={}", of_scope(scope, "cookie_keys"), key.expose_base64().as_str());
    eprintln!("# key id {}", key.id());
    Ok(())
}
