//! Whose certificates are believed: the system's authorities, or those in the file that
//! `AWS_CA_BUNDLE` or `ca_bundle` of the profile names, as in the AWS CLI.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::connect::ConnectError;
use super::environment;

/// The authorities for every connection of one endpoint.
pub async fn trusted(profile: Option<&str>) -> Result<TlsContext, ConnectError> {
    let store = match bundle(profile).await {
        Some(file) => TrustStore::empty().with_pem_certificate(read(&file)?),
        None => TrustStore::empty().with_native_roots(*SYSTEM_HAS_ANY),
    };
    let context = TlsContext::builder().with_trust_store(store).build();
    context.map_err(|e| ConnectError::Http(e.to_string()))
}

async fn bundle(profile: Option<&str>) -> Option<PathBuf> {
    let set = |file: &str| (!file.is_empty()).then(|| PathBuf::from(file));
    if let Ok(file) = environment::variables().get("AWS_CA_BUNDLE") {
        return Some(PathBuf::from(file));
    }
    environment::sections(profile).await?.get("ca_bundle").and_then(set)
}

/// The text of a bundle in which every certificate can be used: the client takes that for granted.
fn read(file: &Path) -> Result<Vec<u8>, ConnectError> {
    let failed = |cause: String| ConnectError::Bundle { file: file.to_owned(), cause };
    let text = std::fs::read(file).map_err(|e| failed(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("there is no certificate in PEM format in it".to_owned()));
    }
    Ok(text)
}

/// Without any, plain HTTP goes on and every TLS connection is refused; in builds with debug
/// assertions the client would not even start. Read once, as the client reads them.
static SYSTEM_HAS_ANY: LazyLock<bool> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        tracing::debug!(errors = ?found.errors, "this system has no certificates of authorities");
    }
    usable > 0
});
