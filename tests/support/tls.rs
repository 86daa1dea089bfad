//! A sandbox with TLS on a loopback port of its own, with the certificates of `tests/tls`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use euid_sandbox::Sandbox;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// The CA that signed the certificates of the server and the client.
pub(crate) const CA: &[u8] = include_bytes!("../tls/ca.pem");
/// The certificate and key of a client.
pub(crate) const CLIENT: &[u8] = include_bytes!("../tls/client.pem");
const SERVER: &[u8] = include_bytes!("../tls/server.pem");

/// Whether a client must show a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    Any,
    WithCertificate,
}

/// An operator that listens on a port until it is dropped.
pub(crate) struct TlsOperator {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl TlsOperator {
    pub(crate) async fn start(sandbox: Sandbox, clients: Clients) -> Self {
        let config = match clients {
            Clients::Any => ServerConfig::builder().with_no_client_auth(),
            Clients::WithCertificate => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(CA).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        let certificate = CertificateDer::from_pem_slice(SERVER).unwrap();
        let config = config.with_single_cert(vec![certificate], PrivateKeyDer::from_pem_slice(SERVER).unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            // Owns the connections: dropping this future ends them.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(sandbox.clone()));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    // The client may have closed the connection.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self { address, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for TlsOperator {
    fn drop(&mut self) {
        self.task.abort();
    }
}
