//! The certificates of one sandbox: an authority that only it trusts, for the names whose traffic
//! the host reads.
//!
//! Keys never leave this process, and never a file. The authority may sign for the named hosts
//! alone, so that a program that trusts it by mistake loses nothing else.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pem::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::Connector;

/// Before now, for guests whose clock is behind.
const BEFORE: Duration = Duration::from_secs(24 * 3600);
/// Longer than a sandbox lives, shorter than what clients refuse.
const AFTER: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("use a certificate: {0}")]
    Use(#[from] rustls::Error),
}

/// See the module's documentation.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    leaves: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn valid(params: &mut CertificateParams) {
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + AFTER).into();
}

impl Authority {
    /// An authority for these names.
    pub(crate) fn new(names: &[String]) -> Result<Self, CertificateError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = named("sandbox egress");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: names.iter().cloned().map(GeneralSubtree::DnsName).collect(),
            excluded_subtrees: Vec::new(),
        });
        valid(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
            leaves: Mutex::default(),
        })
    }

    /// Returns the authority's own certificate and all that the host trusts, as text.
    pub(crate) fn bundle(&self) -> String {
        let found = rustls_native_certs::load_native_certs().certs;
        let found = found
            .iter()
            .map(|one| Pem::new("CERTIFICATE", one.as_ref()));
        found.fold(self.certificate.clone(), |text, one| {
            text + &pem::encode(&one)
        })
    }

    /// Returns the authority's own certificate, as text.
    pub(crate) fn pem(&self) -> &str {
        &self.certificate
    }

    /// Returns the TLS configuration of the server of one of its names.
    pub(crate) fn server(&self, name: &str) -> Result<Arc<ServerConfig>, CertificateError> {
        // Made under the lock, so that a name has one; it takes a tenth of a millisecond.
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leaves.get(name) {
            return Ok(known.clone());
        }
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name = named(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        let config = Arc::new(config);
        leaves.insert(name.to_owned(), config.clone());
        Ok(config)
    }
}

const HTTP_1_1: &[u8] = b"http/1.1";

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Configures a client of upstreams: it trusts what the host trusts, and what the connector
/// adds. Reads files.
pub(crate) fn client(connector: &dyn Connector) -> Result<Arc<ClientConfig>, CertificateError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "an authority of the host can't be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots.add_parsable_certificates(connector.authorities().into_iter().map(Into::into));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_made_once_and_no_key_is_shown() {
        let authority = Authority::new(&["a.test".into()]).unwrap();
        let one = authority.server("a.test").unwrap();
        assert!(Arc::ptr_eq(&one, &authority.server("a.test").unwrap()));
        assert!(authority.pem().starts_with("-----BEGIN CERTIFICATE-----"));
        for text in [authority.pem().to_owned(), format!("{authority:?}")] {
            assert!(!text.contains("PRIVATE"), "{text}");
        }
    }
}
