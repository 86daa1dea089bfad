//! Reads environment variables.

use std::ffi::OsString;

use euid_core::Scope;
use euid_core::error::ConfigError;
use zeroize::Zeroizing;

/// An environment variable that is set.
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: Text,
}

impl Variable {
    /// Returns the result of `parse`; an error names the variable.
    pub(super) fn check<T>(&self, parse: impl FnOnce(&str) -> Result<T, ConfigError>) -> Result<T, ConfigError> {
        parse(&self.value).map_err(|error| error.in_variable(self.name.clone()))
    }
}

/// The source of values: the process, or a test.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;
/// Most values are secrets.
type Text = Zeroizing<String>;
/// The name of a variable without its beginning, which names the scope.
pub(super) type Setting = &'static str;

/// Returns the values of all variables, or an error with those that are missing.
pub(super) fn required<const N: usize>(
    lookup: Lookup<'_>,
    names: [(Scope, Setting); N],
) -> Result<[Variable; N], ConfigError> {
    let (mut values, mut missing) = (Vec::with_capacity(N), Vec::new());
    for name in names {
        match optional(lookup, name)? {
            Some(value) => values.push(value),
            None => missing.push(name_of(name)),
        }
    }
    values.try_into().map_err(|_| {
        let error = ConfigError::new(format!("not set: {}", missing.join(", ")));
        match missing.into_iter().next() {
            Some(name) => error.with_variable(name),
            None => error,
        }
    })
}

/// Returns the value without white space around it, if any is left.
pub(super) fn optional(lookup: Lookup<'_>, name: (Scope, Setting)) -> Result<Option<Variable>, ConfigError> {
    let name = name_of(name);
    let Some(value) = lookup(&name) else { return Ok(None) };
    let value = match value.into_string() {
        Ok(value) => Text::new(value),
        Err(_) => return Err(ConfigError::new(format!("{name} is not UTF-8")).with_variable(name)),
    };
    let value = Text::new(value.trim().to_owned());
    Ok((!value.is_empty()).then_some(Variable { name, value }))
}

pub(super) fn name_of((scope, setting): (Scope, Setting)) -> String {
    format!("{}{setting}", scope.env_prefix())
}

pub(super) fn process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
