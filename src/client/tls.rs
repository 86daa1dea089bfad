//! The TLS settings: the certificate authorities to trust, and the client's own certificate.

use euid_core::error::{ConfigError, Setting};
use reqwest::{Certificate, ClientBuilder, Identity};
use zeroize::Zeroizing;

use super::EuidClientBuilder;

/// The certificates and the key as given, in PEM.
#[derive(Clone, Default)]
pub(super) struct Tls {
    pub(super) roots: Option<Vec<u8>>,
    pub(super) client_certificate: Option<Zeroizing<Vec<u8>>>,
}

impl Tls {
    /// Applies the settings. An error never repeats the PEM, which may hold a private key.
    pub(super) fn apply(&self, mut http: ClientBuilder) -> Result<ClientBuilder, ConfigError> {
        if let Some(pem) = &self.roots {
            let roots = Certificate::from_pem_bundle(pem).ok().filter(|roots| !roots.is_empty());
            let roots = roots.ok_or_else(|| refused("the root certificates are not certificates in PEM"))?;
            http = http.tls_certs_only(roots);
        }
        if let Some(pem) = &self.client_certificate {
            let identity = Identity::from_pem(pem);
            http = http.identity(identity.map_err(|_| {
                refused("the client certificate is not a certificate and its private key, both in PEM")
            })?);
        }
        Ok(http)
    }
}

impl EuidClientBuilder {
    /// Sets the only certificate authorities to trust for https: one or more certificates in PEM. It is for a private
    /// operator whose certificate a private CA has signed.
    ///
    /// Without this setting, the client trusts the operating system's authorities; on Linux, if the environment
    /// variable `SSL_CERT_FILE` or `SSL_CERT_DIR` is set, those in that file or those directories.
    ///
    /// ```no_run
    /// # fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_euid::{Environment, EuidClient};
    /// let operator = Environment::Url("https://euid-operator.internal".to_owned());
    /// let client = EuidClient::builder(operator)
    ///     .root_certificates_pem(std::fs::read("/etc/ssl/internal-ca.pem")?)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn root_certificates_pem(mut self, certificates: impl Into<Vec<u8>>) -> Self {
        self.tls.roots = Some(certificates.into());
        self
    }

    /// Sets the certificate that the client shows a private operator (mutual TLS): certificate, intermediate
    /// certificates if any, and the private key, all in PEM.
    ///
    /// ```no_run
    /// # fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_euid::{Environment, EuidClient};
    /// let operator = Environment::Url("https://euid-operator.internal".to_owned());
    /// let mut identity = std::fs::read("/run/secrets/client.pem")?;
    /// identity.extend(std::fs::read("/run/secrets/client-key.pem")?);
    /// let client = EuidClient::builder(operator).client_certificate_pem(identity).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn client_certificate_pem(mut self, certificate_and_key: impl Into<Vec<u8>>) -> Self {
        self.tls.client_certificate = Some(Zeroizing::new(certificate_and_key.into()));
        self
    }
}

fn refused(what: &'static str) -> ConfigError {
    ConfigError::new(what).about(Setting::Certificates)
}
