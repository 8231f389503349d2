//! Listens: plain HTTP, or TLS with a certificate made for the occasion.
//!
//! The authority's key must never leave the memory of this process.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::Request;
use axum::serve::IncomingStream;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sandbox_core::{Error, ErrorKind, Operation, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

use super::ingress::DOMAIN;
use super::state::State;
use super::{AcaEmulator, Options, log, registry, route};

/// Time that a client may take to say hello.
const HANDSHAKE: Duration = Duration::from_secs(10);

fn failed(why: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, Operation::Connect)
        .with_message(why)
        .with_source(error)
}

pub(super) async fn start(options: Options) -> Result<AcaEmulator> {
    let listener = TcpListener::bind(options.listen).await;
    let listener = listener.map_err(|e| failed("the emulator can't listen there", e))?;
    let address = listener.local_addr();
    let address = address.map_err(|e| failed("the emulator can't listen there", e))?;
    let mut certificates = None;
    let tls = match options.tls {
        true => {
            let file = match &options.certificate {
                Some(file) => file.clone(),
                None => {
                    let made = tempfile::tempdir();
                    let made = made.map_err(|e| failed("no place for the certificate", e))?;
                    let file = made.path().join("ca.pem");
                    certificates = Some(made);
                    file
                }
            };
            Some((acceptor(address, &file)?, file))
        }
        false => None,
    };
    let log = log::open(&options.log).await?;
    let has_registry = options.registry;
    let state = Arc::new(State::new(options, log)?);
    let front = match has_registry {
        true => Some(registry::start(&state).await?),
        false => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    state.listens_at(format!("{scheme}://{address}"));
    let shared = Arc::clone(&state);
    let app = Router::new().fallback(move |request: Request<Body>| {
        let peer = request.extensions().get::<ConnectInfo<Peer>>();
        let peer = peer.map(|ConnectInfo(Peer(address))| *address);
        route::answer(Arc::clone(&shared), request, peer)
    });
    let app = app.into_make_service_with_connect_info::<Peer>();
    let (acceptor, ca): (Option<TlsAcceptor>, Option<PathBuf>) = tls.unzip();
    let task = match acceptor {
        None => tokio::spawn(async move {
            // Serving ends when the task is aborted, and in no other way.
            let _ = axum::serve(listener, app).await;
        }),
        Some(acceptor) => {
            let (sender, streams) = mpsc::channel(64);
            let tls = Tls { streams, address };
            tokio::spawn(async move {
                tokio::select! {
                    () = accept(listener, acceptor, sender) => {}
                    _ = async { axum::serve(tls, app).await } => {}
                }
            })
        }
    };
    Ok(AcaEmulator {
        state,
        address,
        task,
        front,
        _certificates: certificates,
        ca,
    })
}

/// Takes connections; a client that is slow to say hello holds no other up.
async fn accept(listener: TcpListener, acceptor: TlsAcceptor, sender: mpsc::Sender<Shaken>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            if let Ok(Ok(stream)) = shaken {
                // It is not taken if the server has ended.
                let _ = sender.send((stream, peer)).await;
            }
        });
    }
}

type Shaken = (TlsStream<TcpStream>, SocketAddr);

/// Connections that have shaken hands.
struct Tls {
    streams: mpsc::Receiver<Shaken>,
    address: SocketAddr,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Shaken {
        match self.streams.recv().await {
            Some(shaken) => shaken,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Address at the other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

impl Connected<IncomingStream<'_, Tls>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Tls>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

/// Makes an authority and a certificate for this address, and writes the authority's to `file`.
fn acceptor(address: SocketAddr, file: &Path) -> Result<TlsAcceptor> {
    let bad = |e: rcgen::Error| failed("the certificate can't be made", e);
    let mut authority = CertificateParams::new(Vec::new()).map_err(bad)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::CrlSign,
        rcgen::KeyUsagePurpose::DigitalSignature,
    ];
    let name = "aca-emulator authority";
    authority.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().map_err(bad)?;
    let authority = CertifiedIssuer::self_signed(authority, key).map_err(bad)?;
    let names = vec![
        "localhost".to_owned(),
        address.ip().to_string(),
        format!("*.{DOMAIN}"),
        format!("*.internal.{DOMAIN}"),
    ];
    let mut server = CertificateParams::new(names).map_err(bad)?;
    server
        .distinguished_name
        .push(DnType::CommonName, "aca-emulator");
    server.use_authority_key_identifier_extension = true;
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(bad)?;
    let certificate = server.signed_by(&key, &authority).map_err(bad)?;
    std::fs::write(file, authority.pem())
        .map_err(|e| failed("the certificate can't be written", e).with_host_path(file))?;
    let chain = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed("TLS can't be set up", e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| failed("the certificate can't be used", e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
