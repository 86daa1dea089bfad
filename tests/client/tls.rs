//! Private operators: a CA of their own, and clients that have to show a certificate.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use euid_sandbox::Sandbox;
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::{Dii, Environment, EuidClient, EuidClientBuilder, Generated};

use crate::support::tls::{CA, CLIENT, Clients, TlsOperator};

/// An operator, and the configuration of a client that trusts its CA.
async fn private_operator(clients: Clients) -> (TlsOperator, EuidClientBuilder) {
    let sandbox = Sandbox::builder().build().unwrap();
    let operator = TlsOperator::start(sandbox.clone(), clients).await;
    let builder = EuidClient::builder(Environment::Url(operator.base_url()))
        .credentials(sandbox.api_key(), sandbox.client_secret())
        .clock(sandbox.clock());
    (operator, builder)
}

async fn login(builder: EuidClientBuilder) -> Result<Generated, EuidError> {
    builder.build().unwrap().generate(Dii::email("user@example.com").unwrap()).await
}

#[tokio::test]
async fn an_operator_of_a_private_ca_is_trusted_if_its_root_is_given() {
    let (_operator, builder) = private_operator(Clients::Any).await;
    assert!(matches!(login(builder.clone().root_certificates_pem(CA)).await, Ok(Generated::Identity(_))));
    // One of the roots is enough, whatever else stands between them.
    let bundle = [CLIENT, b"a comment\n", CA].concat();
    assert!(matches!(login(builder.clone().root_certificates_pem(bundle)).await, Ok(Generated::Identity(_))));
    for untrusting in [builder.clone(), builder.root_certificates_pem(CLIENT)] {
        let error = login(untrusting).await.unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Transient, "the operator can't be reached"));
    }
}

#[tokio::test]
async fn an_operator_that_wants_a_client_certificate_gets_it() {
    let (_operator, builder) = private_operator(Clients::WithCertificate).await;
    let builder = builder.root_certificates_pem(CA);
    let with_certificate = builder.clone().client_certificate_pem(CLIENT);
    assert!(matches!(login(with_certificate).await, Ok(Generated::Identity(_))));
    assert_eq!(login(builder).await.unwrap_err().kind(), ErrorKind::Transient);
}

#[test]
fn certificates_that_can_not_be_read_are_refused_and_not_repeated() {
    let builder = || EuidClient::builder(Environment::Url("https://operator.example".to_owned()));
    let key_only = std::str::from_utf8(CLIENT).unwrap().split_inclusive("-----END CERTIFICATE-----").nth(1).unwrap();
    let not_der = "-----BEGIN CERTIFICATE-----\nhunter2A\n-----END CERTIFICATE-----\n";
    for (builder, complaint) in [
        (builder().root_certificates_pem("hunter2"), "the root certificates are not certificates in PEM"),
        (builder().root_certificates_pem(""), "the root certificates are not certificates in PEM"),
        (builder().root_certificates_pem(key_only), "the root certificates are not certificates in PEM"),
        (builder().root_certificates_pem(not_der), "no HTTPS client can be made (are the given certificates valid?)"),
        (builder().client_certificate_pem("hunter2"), "the client certificate is not a certificate and its private"),
        (builder().client_certificate_pem(CA), "the client certificate is not a certificate and its private key"),
        (builder().client_certificate_pem(key_only), "the client certificate is not a certificate and its private"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.starts_with(complaint) && !error.contains("hunter2"), "{error}");
    }
}
