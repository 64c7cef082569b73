//! TLS to what we connect to, for the clients that are our own.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Trusts the authorities in a PEM file and no others; without one, what the system trusts, where `SSL_CERT_FILE` names
/// another file. `Err` says what is wrong with the file.
pub fn connector(authorities: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(path) => {
            let cannot = |why: &dyn std::fmt::Display| {
                format!("no certificates can be read from `{}`: {why}", path.display())
            };
            let read = CertificateDer::pem_file_iter(path).map_err(|error| cannot(&error))?;
            for certificate in read {
                let certificate = certificate.map_err(|error| cannot(&error))?;
                roots.add(certificate).map_err(|error| cannot(&error))?;
            }
            if roots.is_empty() {
                return Err(cannot(&"it has none"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What to do about a server that TLS does not let us speak to; `None` when a new connection may do.
pub fn hint(error: &std::io::Error) -> Option<&'static str> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(error) = error else {
        return Some("check that the port speaks TLS 1.2 or 1.3, and wants no certificate of its clients");
    };
    Some(match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "an authority that is not trusted signed the server's certificate: name the PEM file of the one that did by `tls_ca`, \
             in a sink's file or in the `options` of a source, or by SSL_CERT_FILE for all"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the server's certificate, or set this machine's clock"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "set this machine's clock, or the server's certificate to an earlier beginning"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "write the host as the certificate names it, in the URL; a Kafka broker tells its clients the host of its \
             advertised.listeners"
        }
        _ => "mend the server's certificate",
    })
}
