//! Prints a fresh cookie key in the form that `EUID_COOKIE_KEYS` takes; its id goes to standard error.
//!
//! ```console
//! $ cargo run -q --example keygen
//! EUID_COOKIE_KEYS=<44 characters of standard base64>
//! # key id 1f99da83
//! ```

use tower_euid::{ConfigError, CookieKey};

fn main() -> Result<(), ConfigError> {
    let key = CookieKey::generate()?;
    println!("EUID_COOKIE_KEYS={}", key.expose_base64().as_str());
    eprintln!("# key id {}", key.id());
    Ok(())
}
