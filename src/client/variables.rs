//! The environment variables that a client's settings were read from, for errors to name.

use euid_core::error::{ConfigError, Setting};

/// The environment variables that settings were read from, if they were.
#[derive(Clone, Copy, Default)]
pub(crate) struct Variables {
    pub(crate) operator_url: Option<&'static str>,
    pub(crate) api_key: Option<&'static str>,
    pub(crate) client_secret: Option<&'static str>,
}

impl Variables {
    /// Returns the same error, with the variable that its setting was read from.
    pub(super) fn name(self, error: ConfigError) -> ConfigError {
        let variable = match error.setting() {
            Some(Setting::OperatorUrl) => self.operator_url,
            Some(Setting::ApiKey) => self.api_key,
            Some(Setting::ClientSecret) => self.client_secret,
            _ => None,
        };
        match variable {
            Some(name) => error.in_variable(name),
            None => error,
        }
    }
}
