//! The TLS settings: the certificate authorities to trust, and the client's own certificate.

use reqwest::{Certificate, ClientBuilder, Identity};
use zeroize::Zeroizing;

use euid_core::error::ConfigError;

/// In PEM, as it was given.
#[derive(Clone, Default)]
pub(super) struct Tls {
    pub(super) roots: Option<Vec<u8>>,
    pub(super) client_certificate: Option<Zeroizing<Vec<u8>>>,
}

impl Tls {
    /// Sets what is configured. An error does not repeat what was given: it may be a private key.
    pub(super) fn apply(&self, mut http: ClientBuilder) -> Result<ClientBuilder, ConfigError> {
        if let Some(pem) = &self.roots {
            let roots = Certificate::from_pem_bundle(pem).ok().filter(|roots| !roots.is_empty());
            let roots = roots.ok_or_else(|| ConfigError::new("the root certificates are not certificates in PEM"))?;
            http = http.tls_certs_only(roots);
        }
        if let Some(pem) = &self.client_certificate {
            let identity = Identity::from_pem(pem);
            http = http.identity(identity.map_err(|_| {
                ConfigError::new("the client certificate is not a certificate and its private key, both in PEM")
            })?);
        }
        Ok(http)
    }
}
