//! Prints a new cookie key, in the format of `EUID_COOKIE_KEYS`, and its id on standard error.
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
