//! Prints a new cookie key, in the format of `EUID_COOKIE_KEYS` (or, with the argument `uid2`, of `UID2_COOKIE_KEYS`), and
//! its id on standard error.
//!
//! ```console
//! $ cargo run -q --example keygen
//! EUID_COOKIE_KEYS=<44 characters of standard base64>
//! # key id 1f99da83
//! ```

use tower_euid::{ConfigError, CookieKey, Scope};

fn main() -> Result<(), ConfigError> {
    let scope: Scope = std::env::args().nth(1).map_or(Ok(Scope::default()), |word| word.parse())?;
    let key = CookieKey::generate()?;
    println!("{}COOKIE_KEYS={}", scope.env_prefix(), key.expose_base64().as_str());
    eprintln!("# key id {}", key.id());
    Ok(())
}
