//! The scope of a test run: each test runs in EUID and, in another run, in UID2.
//!
//! 1. The variable `TEST_SCOPE` chooses it: `euid`, the default, or `uid2`.
//! 2. The layers, clients and sandboxes of `tests/support` are of [`scope`]. A test that needs one scope names it.
//! 3. A text that differs between the scopes is a [`Literal`]. It does not come from the code under test.

use std::env::{self, VarError};
use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

use tower_euid::error::EuidError;
use tower_euid::identity::Identity;
use tower_euid::{Refresh, Refreshed, Scope};

/// The variable that chooses the scope.
pub(crate) const TEST_SCOPE: &str = "TEST_SCOPE";

/// Returns the scope that the tests run in.
#[expect(clippy::panic, reason = "without a scope no test can run")]
pub(crate) fn scope() -> Scope {
    static SCOPE: OnceLock<Scope> = OnceLock::new();
    *SCOPE.get_or_init(|| match env::var(TEST_SCOPE).as_deref() {
        Ok("euid") | Err(VarError::NotPresent) => Scope::Euid,
        Ok("uid2") => Scope::Uid2,
        other => panic!("{TEST_SCOPE} must be `euid` or `uid2`, or not set; it is {other:?}"),
    })
}

/// A text that differs between the scopes. It stands for that of [`scope`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Literal {
    pub(crate) euid: &'static str,
    pub(crate) uid2: &'static str,
}

impl Literal {
    pub(crate) fn as_str(self) -> &'static str {
        match scope() {
            Scope::Euid => self.euid,
            Scope::Uid2 => self.uid2,
        }
    }
}

impl Deref for Literal {
    type Target = str;

    fn deref(&self) -> &'static str {
        self.as_str()
    }
}

impl AsRef<str> for Literal {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl PartialEq<Literal> for str {
    fn eq(&self, other: &Literal) -> bool {
        *self == **other
    }
}

impl PartialEq<Literal> for &str {
    fn eq(&self, other: &Literal) -> bool {
        **self == **other
    }
}

impl PartialEq<Literal> for String {
    fn eq(&self, other: &Literal) -> bool {
        **self == **other
    }
}

/// A [`Refresh`] of the tests' scope, unless it has a scope of its own. In EUID it has none: that scope is the default.
#[derive(Clone, Debug)]
pub(crate) struct InScope<R>(pub(crate) R);

impl<R: Refresh> Refresh for InScope<R> {
    async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        self.0.refresh(identity).await
    }

    fn scope(&self) -> Option<Scope> {
        self.0.scope().or(Some(scope()).filter(|scope| *scope != Scope::Euid))
    }
}
