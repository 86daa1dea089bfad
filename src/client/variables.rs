//! The environment variables that a client's settings were read from, for errors to name.

use euid_core::error::{ConfigError, Setting};

/// The environment variables that settings were read from, if they were.
#[derive(Clone, Default)]
pub(crate) struct Variables {
    pub(crate) operator_url: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) client_secret: Option<String>,
}

impl Variables {
    /// Returns the same error, with the variable that its setting was read from.
    pub(super) fn name(&self, error: ConfigError) -> ConfigError {
        let variable = match error.setting() {
            Some(Setting::OperatorUrl) => &self.operator_url,
            Some(Setting::ApiKey) => &self.api_key,
            Some(Setting::ClientSecret) => &self.client_secret,
            _ => &None,
        };
        match variable {
            Some(name) => error.in_variable(name.clone()),
            None => error,
        }
    }
}
