//! The scope of an operator.
//!
//! 1. Four signs tell it before the first token, in this order: the setting, the environment, the host, the API key.
//!    Two signs that contradict each other are an error.
//! 2. If there is no sign, the first token tells it.
//! 3. A token of the other scope is refused. A token that tells nothing is accepted.

use std::sync::{Arc, OnceLock};

use crate::error::{ConfigError, ErrorKind, EuidError, Setting};
use crate::identity::Identity;
use crate::scope::Scope;

/// A sign of an operator's scope, the strongest first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sign {
    /// The setting `scope`.
    Setting,
    /// The name of a public operator.
    Environment,
    /// The host of the base URL.
    Host,
    ApiKey,
}

impl Sign {
    /// Returns the scope that all `signs` tell, the strongest first; `None` if no sign tells one. An error names two
    /// that contradict each other.
    pub(super) fn agree(signs: [(Self, Option<Scope>); 4]) -> Result<Option<Scope>, ConfigError> {
        let mut told = signs.into_iter().filter_map(|(sign, scope)| Some((sign, scope?)));
        let Some((first, scope)) = told.next() else { return Ok(None) };
        match told.find(|(_, other)| *other != scope) {
            Some((sign, other)) => {
                let what = format!("{}, but {}", sign.tells(other), first.tells(scope));
                Err(ConfigError::new(what).about(sign.setting()))
            }
            None => Ok(Some(scope)),
        }
    }

    fn tells(self, scope: Scope) -> String {
        let literals = scope.literals();
        match self {
            Self::Setting => format!("the client is configured for {scope}"),
            Self::Environment => format!("the operator belongs to {scope}"),
            Self::Host => format!("the operator belongs to {scope} (its host is in {})", literals.operator_domain),
            Self::ApiKey => format!("the API key belongs to {scope} (it begins with {})", literals.api_key),
        }
    }

    fn setting(self) -> Setting {
        match self {
            Self::Setting | Self::Environment | Self::Host => Setting::OperatorUrl,
            Self::ApiKey => Setting::ApiKey,
        }
    }
}

/// The scope of an operator, once it is known. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct OperatorScope(Arc<OnceLock<Scope>>);

impl OperatorScope {
    pub(super) fn known(&self) -> Option<Scope> {
        self.0.get().copied()
    }

    /// Returns an error for an identity of the other scope. The first identity that tells a scope decides an unknown
    /// one.
    pub(super) fn check(&self, identity: &Identity) -> Result<(), EuidError> {
        let Some(issued) = identity.scope() else { return Ok(()) };
        let scope = *self.0.get_or_init(|| issued);
        if issued == scope {
            return Ok(());
        }
        let what = format!(
            "the operator issued a token of {issued}, and this client is for {scope}: check the operator's URL and the API \
             key"
        );
        Err(EuidError::new(ErrorKind::WrongScope, what))
    }
}

impl From<Option<Scope>> for OperatorScope {
    fn from(scope: Option<Scope>) -> Self {
        Self(Arc::new(scope.map_or_else(OnceLock::new, OnceLock::from)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Operator, OperatorBuilder};
    use super::*;
    use crate::clock::UnixMillis;
    use crate::identity::IdentityTimes;

    const SECRET: &str = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";

    fn private() -> OperatorBuilder {
        Operator::builder(Environment::Url("https://hunter2.example".to_owned()))
    }

    fn public(scope: Scope) -> OperatorBuilder {
        let host = format!("https://hunter2.{}.", scope.literals().operator_domain.to_uppercase());
        Operator::builder(Environment::Url(host))
    }

    fn key(scope: Scope) -> String {
        format!("{}hunter2", scope.literals().api_key.to_lowercase())
    }

    fn identity(token: &str) -> Identity {
        let [refresh_from, identity_expires, refresh_expires] = [1, 2, 3].map(UnixMillis::from_millis);
        let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
        Identity::new(token, "r".to_owned().into(), [7; 32].into(), times).unwrap()
    }

    #[test]
    fn each_sign_alone_tells_the_scope_of_an_operator() {
        assert_eq!(private().credentials("hunter2", SECRET).build().unwrap().scope(), None);
        for scope in Scope::ALL {
            for builder in [
                private().scope(scope),
                Operator::builder(Environment::Production(scope)),
                Operator::builder(Environment::Integration(scope)),
                public(scope),
                private().credentials(key(scope), SECRET),
                // All together, and an old API key beside another sign.
                public(scope).scope(scope).credentials(key(scope), SECRET),
                public(scope).credentials("hunter2", SECRET),
            ] {
                assert_eq!(builder.build().unwrap().scope(), Some(scope));
            }
        }
    }

    #[test]
    fn signs_that_contradict_each_other_are_named_and_no_value_is_repeated() {
        for scope in Scope::ALL {
            let other = scope.other();
            let configured = format!("the client is configured for {scope}");
            let operator = format!("the operator belongs to {scope}");
            let host = |scope: Scope| {
                format!("the operator belongs to {scope} (its host is in {})", scope.literals().operator_domain)
            };
            let api_key = format!("the API key belongs to {other} (it begins with {})", other.literals().api_key);
            let environment = || Operator::builder(Environment::Integration(scope));
            for (builder, strong, weak, setting) in [
                (
                    environment().scope(other),
                    format!("the client is configured for {other}"),
                    &operator,
                    Setting::OperatorUrl,
                ),
                (public(other).scope(scope), configured.clone(), &host(other), Setting::OperatorUrl),
                (private().scope(scope).credentials(key(other), SECRET), configured.clone(), &api_key, Setting::ApiKey),
                (environment().credentials(key(other), SECRET), operator.clone(), &api_key, Setting::ApiKey),
                (public(scope).credentials(key(other), SECRET), host(scope), &api_key, Setting::ApiKey),
            ] {
                let error = builder.build().unwrap_err();
                assert_eq!(error.to_string(), format!("{weak}, but {strong}"));
                assert_eq!(error.setting(), Some(setting));
            }
        }
    }

    #[test]
    fn first_token_that_tells_a_scope_decides_an_unknown_one_for_all_clones() {
        for (scope, tokens) in [(Scope::Euid, ["E4A", "F3A"]), (Scope::Uid2, ["A4A", "B3A"])] {
            let known = OperatorScope::default();
            let clone = known.clone();
            assert!(clone.check(&identity("opaque")).is_ok());
            assert_eq!(known.known(), None);
            assert!(tokens.iter().all(|token| clone.check(&identity(token)).is_ok()));
            assert_eq!(known.known(), Some(scope));
        }
    }

    #[test]
    fn token_of_the_other_scope_is_refused_and_not_repeated() {
        for (scope, token) in [(Scope::Euid, "A4-hunter2"), (Scope::Uid2, "E4-hunter2")] {
            let known = OperatorScope::from(Some(scope));
            let error = known.check(&identity(token)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongScope);
            let other = scope.other();
            let expected = format!("the operator issued a token of {other}, and this client is for {scope}: check");
            assert!(error.to_string().starts_with(&expected) && !error.to_string().contains("hunter2"), "{error}");
            assert_eq!(known.known(), Some(scope));
            assert!(known.check(&identity("opaque")).is_ok());
        }
    }
}
