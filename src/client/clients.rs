//! The clients of a site that has a contract with both operators.

use euid_core::Scope;

use super::EuidClient;

/// A client for each scope, of a site that has a contract with an operator of EUID and one with an operator of UID2.
///
/// ```no_run
/// use tower_euid::{Dii, EuidClients, Generated, Scope};
///
/// # async fn run(scope: Scope) -> Result<(), Box<dyn std::error::Error>> {
/// let clients = EuidClients::from_env()?;
/// let generated = clients.of(scope).generate(Dii::email("user@example.com")?).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct EuidClients {
    /// The client of the operator of EUID.
    pub euid: EuidClient,
    /// The client of the operator of UID2.
    pub uid2: EuidClient,
}

impl EuidClients {
    /// Returns the client for this scope.
    ///
    /// ```
    /// use tower_euid::{Environment, EuidClient, EuidClients, Scope};
    ///
    /// let private = |port, scope| EuidClient::builder(Environment::Url(format!("http://localhost:{port}"))).scope(scope);
    /// let clients =
    ///     EuidClients { euid: private(3000, Scope::Euid).build()?, uid2: private(3001, Scope::Uid2).build()? };
    /// assert_eq!(clients.of(Scope::Uid2).scope(), Some(Scope::Uid2));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn of(&self, scope: Scope) -> &EuidClient {
        match scope {
            Scope::Euid => &self.euid,
            Scope::Uid2 => &self.uid2,
        }
    }
}
