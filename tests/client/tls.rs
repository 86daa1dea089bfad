//! Tests of TLS with private operators: with their own CA, and with client certificates.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::identity::Identity;
use tower_euid::{Environment, EuidClient, EuidClientBuilder};

use crate::support::server::{client_builder_at, generate, sandbox, user};
use crate::support::tls::{CA, CLIENT, Clients, TlsOperator};

/// Returns an operator with a private CA, and the configuration of a client without that CA.
async fn private_operator(clients: Clients) -> (TlsOperator, EuidClientBuilder) {
    let sandbox = sandbox();
    let operator = TlsOperator::start(sandbox.clone(), clients).await;
    let builder = client_builder_at(operator.base_url(), &sandbox);
    (operator, builder)
}

async fn login(builder: EuidClientBuilder) -> Result<Identity, EuidError> {
    generate(&builder.build().unwrap(), user()).await
}

#[tokio::test]
async fn tls_operator_with_a_private_ca_is_trusted_only_with_its_root() {
    let (_operator, builder) = private_operator(Clients::Any).await;
    login(builder.clone().root_certificates_pem(CA)).await.unwrap();
    // The root counts among other certificates and text.
    let bundle = [CLIENT, b"a comment\n", CA].concat();
    login(builder.clone().root_certificates_pem(bundle)).await.unwrap();
    for without_root in [builder.clone(), builder.root_certificates_pem(CLIENT)] {
        let error = login(without_root).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient);
        assert_eq!(error.to_string(), "the operator can't be reached: TLS: invalid peer certificate: UnknownIssuer");
    }
}

#[tokio::test]
async fn tls_operator_that_requires_a_client_certificate_gets_it() {
    let (_operator, builder) = private_operator(Clients::WithCertificate).await;
    let builder = builder.root_certificates_pem(CA);
    let with_certificate = builder.clone().client_certificate_pem(CLIENT);
    login(with_certificate).await.unwrap();
    assert_eq!(login(builder).await.unwrap_err().kind(), ErrorKind::Transient);
}

#[test]
fn tls_errors_of_invalid_certificates_do_not_quote_them() {
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
