//! TLS to what we connect to, for the clients that are our own.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, RootCertStore};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// The PEM files of a connection; without any, everybody's.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The authorities that alone are trusted. Without them those of the system, where `SSL_CERT_FILE` names another file.
    pub authorities: Option<PathBuf>,
    /// What we show to a server that asks who we are: a certificate, and those between it and its authority.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate.
    pub key: Option<PathBuf>,
}

impl Files {
    pub const fn is_empty(&self) -> bool {
        self.authorities.is_none() && self.certificate.is_none() && self.key.is_none()
    }
}

/// `Err` says which file is wrong, and nothing of what a key's file holds.
pub fn connector(files: &Files) -> Result<TlsConnector, String> {
    Ok(TlsConnector::from(Arc::new(client_config(files)?)))
}

/// The same for clients that make the connection themselves.
pub fn client_config(files: &Files) -> Result<rustls::ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &files.authorities {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(path) => {
            for certificate in certificates("tls_ca", path)? {
                roots.add(certificate).map_err(|error| unreadable("tls_ca", path, &error))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    Ok(match (&files.certificate, &files.key) {
        (None, None) => config.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates("tls_cert", certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                format!(
                    "`tls_key`: no private key without a password can be read from `{}`: {error}",
                    key.display()
                )
            })?;
            config.with_client_auth_cert(chain, secret).map_err(|error| {
                let (certificate, key) = (certificate.display(), key.display());
                format!("the certificate of `{certificate}` (`tls_cert`) and the key of `{key}` (`tls_key`): {error}")
            })?
        }
        (Some(_), None) => return Err("`tls_cert` needs its key: `tls_key`".to_owned()),
        (None, Some(_)) => return Err("`tls_key` needs its certificate: `tls_cert`".to_owned()),
    })
}

/// At least one.
fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(option, path, &error))?;
    let read = read.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(option, path, &error))?;
    if read.is_empty() { Err(unreadable(option, path, &"it has none")) } else { Ok(read) }
}

fn unreadable(option: &str, path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("`{option}`: no certificates can be read from `{}`: {why}", path.display())
}

/// What to do about a server that TLS does not let us speak to; `None` when a new connection may do.
pub fn hint(error: &std::io::Error) -> Option<&'static str> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(error) = error else {
        return refusal(error).or(Some(
            "check that the port speaks TLS 1.2 or 1.3, and whether it wants a certificate: `tls_cert`",
        ));
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

/// What to do about a server that lets nobody in whose certificate it does not trust. With TLS 1.3 it says so only after the
/// handshake, when it is asked something: somewhere within the error of that.
pub fn late_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(hint) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).and_then(refusal) {
            return Some(hint);
        }
        next = error.source();
    }
    None
}

fn refusal(error: &rustls::Error) -> Option<&'static str> {
    let rustls::Error::AlertReceived(alert) = error else { return None };
    match alert {
        AlertDescription::CertificateRequired => Some(
            "the server lets in only who has a certificate: name the PEM files of one by `tls_cert` and of its key by \
             `tls_key`, where `tls_ca` stands",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => Some(
            "the server lets in only who has a certificate that it trusts: `tls_cert` and `tls_key` must name one that is valid \
             and signed by an authority of the server's truststore; its log says what it misses",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_found_within_other_errors() {
        let alert = |alert| std::io::Error::other(rustls::Error::AlertReceived(alert));
        assert!(late_hint(&alert(AlertDescription::CertificateRequired)).unwrap().contains("`tls_cert`"));
        assert!(late_hint(&alert(AlertDescription::UnknownCA)).unwrap().contains("truststore"));
        assert!(late_hint(&alert(AlertDescription::InternalError)).is_none());
        assert!(late_hint(&std::io::Error::other("reset")).is_none());
    }
}
