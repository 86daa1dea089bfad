//! A server with TLS and a certificate authority of its own.

use std::path::Path;

use tower_euid_redis::{RedisStore, RedisStoreBuilder};

use crate::server::Server;
use crate::{PATIENT, put, read};

const CA: &[u8] = include_bytes!("../certificates/ca.pem");

fn start(arguments: &[&str]) -> Option<(Server, RedisStoreBuilder)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    let [ca, server] = ["ca.pem", "server.pem"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let tls = ["--port", "0", "--tls-port", "PORT", "--tls-auth-clients", "no", "--tls-ca-cert-file", &ca];
    let server =
        Server::start(&[&tls[..], &["--tls-cert-file", &server, "--tls-key-file", &server], arguments].concat())?;
    let builder = RedisStore::builder(format!("rediss://127.0.0.1:{}", server.port())).timeout(PATIENT);
    Some((server, builder))
}

#[tokio::test]
async fn server_with_a_private_authority_is_trusted_only_with_its_certificate() {
    let Some((_server, builder)) = start(&[]) else { return };
    let store = builder.clone().root_certificates(CA).build().unwrap();
    put(&store, 1).await.unwrap();
    assert_eq!(read(&store).await.unwrap(), Some(1));
    let error = put(&builder.build().unwrap(), 2).await.unwrap_err();
    assert_eq!(error.to_string(), "no connection to Redis");
}

#[tokio::test]
async fn certificate_that_is_none_is_refused_when_the_store_is_built() {
    let text = "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n";
    for builder in [RedisStore::builder("rediss://a"), RedisStore::builder("rediss://a").cluster()] {
        let error = builder.root_certificates(text).build().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
