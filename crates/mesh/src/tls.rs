//! TLS on either side: what clients see, and what servers are asked for.

use crate::config::{BackendTls, GroupConfig, ListenerTls};
use crate::error::MeshError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The side that clients see.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// # Errors
    /// When a file is missing, is no PEM, or the key is not the certificate's.
    pub fn new(listener: &str, tls: &ListenerTls) -> Result<Self, MeshError> {
        let bad = |what: &'static str, path: &Path, reason: &dyn fmt::Display| MeshError::Certificate {
            owner: listener.to_owned(),
            what,
            path: path.display().to_string(),
            reason: reason.to_string(),
        };
        let chain = certificates(&tls.cert).map_err(|reason| bad("the certificate", &tls.cert, &reason))?;
        let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| bad("the key", &tls.key, &error))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| bad("the certificate", &tls.cert, &error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| bad("the key", &tls.key, &error))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await.map(TlsStream::from)
    }
}

/// The side towards a group's servers.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// `None` where the group's connections are plain.
    ///
    /// # Errors
    /// When `tls_ca` cannot be read or holds no certificate.
    pub fn new(group: &str, config: &GroupConfig) -> Result<Option<Self>, MeshError> {
        Self::make(group, config.tls, config.tls_ca.as_deref(), None)
    }

    /// The same towards the group's PD.
    ///
    /// # Errors
    /// When a file cannot be read or holds no certificate, or the key is not the certificate's.
    pub fn to_pd(group: &str, config: &GroupConfig) -> Result<Option<Self>, MeshError> {
        Self::make(group, config.pd_tls, config.pd_tls_ca.as_deref(), config.pd_tls_client.as_ref())
    }

    fn make(
        group: &str,
        tls: BackendTls,
        ca: Option<&Path>,
        shown: Option<&ListenerTls>,
    ) -> Result<Option<Self>, MeshError> {
        let bad = |what: &'static str, path: &Path, reason: String| MeshError::Certificate {
            owner: group.to_owned(),
            what,
            path: path.display().to_string(),
            reason,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| bad("the authorities", Path::new(""), error.to_string()))?;
        let builder = match tls {
            BackendTls::Off => return Ok(None),
            BackendTls::Require => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider())))
            }
            BackendTls::Verify => {
                let mut roots = RootCertStore::empty();
                match ca {
                    Some(path) => {
                        let read =
                            certificates(path).map_err(|reason| bad("the authorities", path, reason))?;
                        roots.add_parsable_certificates(read);
                    }
                    None => {
                        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                    }
                }
                builder.with_root_certificates(roots)
            }
        };
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => {
                let chain = certificates(&shown.cert)
                    .map_err(|reason| bad("the certificate", &shown.cert, reason))?;
                let key = PrivateKeyDer::from_pem_file(&shown.key)
                    .map_err(|error| bad("the key", &shown.key, error.to_string()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| bad("the key", &shown.key, error.to_string()))?
            }
        };
        Ok(Some(Self(TlsConnector::from(Arc::new(config)))))
    }

    /// # Errors
    /// Those of the handshake, and a host that no certificate can name.
    pub async fn connect(&self, address: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.0.connect(name, stream).await.map(TlsStream::from)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if all.is_empty() { Err("it holds no certificate".into()) } else { Ok(all) }
}

/// `tls: require`: the stream is encrypted, and whoever is there is believed.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
