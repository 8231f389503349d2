//! The client over TLS: the authority that it was told of is trusted, and no other.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sandbox_core::{ErrorKind, Provider as _, SandboxExt as _, SandboxSpec};
use sandbox_remote::{Listener, RemoteConfig, RemoteProvider, Server, TokenAccess};
use sandbox_testkit::model::ModelProvider;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// TLS before a server; gives its address and the authority's certificate.
async fn front(server: std::net::SocketAddr) -> (u16, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let names = vec!["localhost".to_owned()];
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    let config =
        tokio_rustls::rustls::ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut inside) = acceptor.accept(stream).await else {
                    return;
                };
                let mut to = tokio::net::TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut to).await;
            });
        }
    });
    (port, authority.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_authority_is_trusted_and_no_other() {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let access = Arc::new(TokenAccess::new(TOKEN).unwrap());
    let serving = Server::new(Arc::new(ModelProvider::new()), access)
        .start(listener)
        .unwrap();
    let server = serving.uri().rsplit('/').next().unwrap().parse().unwrap();
    let (port, authority) = front(server).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let config = |address: &str| RemoteConfig::new(address).unwrap().secret(TOKEN);
    let address = format!("https://localhost:{port}");
    let provider = RemoteProvider::connect(config(&address).ca_file(&file)).await;
    let sandbox = provider.unwrap().create(SandboxSpec::new()).await.unwrap();
    let output = sandbox.sh("echo through").await.unwrap();
    assert_eq!(output.stdout.bytes, "through\n");
    // An authority that is not known, and a name that the certificate does not have.
    let unknown = RemoteProvider::connect(config(&address)).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unavailable, "{unknown:?}");
    let other = format!("https://127.0.0.1:{port}");
    let other = RemoteProvider::connect(config(&other).ca_file(&file)).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Unavailable);
}
