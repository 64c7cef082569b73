//! TLS of the HTTP port: a certificate that may change while the node runs, and, where the project says so, clients that must
//! show one too.

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use schemars::JsonSchema;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Files are looked at again no more often than this, when a client comes.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// TLS of the HTTP port. Paths are relative to the project. The files are read again when they have changed, so that a
/// renewed certificate needs no restart; clients that are connected keep the old one.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of the certificate, followed by those of the authorities between it and the root.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of authorities: a client must then show a certificate that one of these has signed. It needs a token
    /// nevertheless.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

impl TlsConfig {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }

    /// When each file was written, and its size; `None` of one that cannot be looked at.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |path: &Path| {
            let data = std::fs::metadata(path).ok()?;
            Some((data.modified().ok()?, data.len()))
        };
        self.paths().map(stamp).collect()
    }

    /// Reads the files. `Err` says what is wrong with which.
    fn read(&self) -> Result<Arc<ServerConfig>, String> {
        let bad = |path: &Path, why: &dyn std::fmt::Display| format!("`{}`: {why}", path.display());
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(|error| bad(path, &error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| bad(path, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| bad(&self.key, &error))?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| bad(&self.key, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The certificates of a PEM file. `Err` names it.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |why: &dyn std::fmt::Display| format!("`{}`: {why}", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(|error| bad(&error))?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| bad(&error))?;
    if all.is_empty() { Err(bad(&"it holds no certificate")) } else { Ok(all) }
}

/// What the port shows its clients.
pub struct Tls {
    config: TlsConfig,
    now: Mutex<Now>,
}

struct Now {
    server: Arc<ServerConfig>,
    stamps: Vec<Option<(SystemTime, u64)>>,
    looked: Instant,
}

impl Tls {
    /// `Err` says what is wrong with which file.
    pub fn read(config: &TlsConfig) -> Result<Self, String> {
        // Before the files: what changes between the two is read again.
        let stamps = config.stamps();
        let now = Now { server: config.read()?, stamps, looked: Instant::now() };
        Ok(Self { config: config.clone(), now: Mutex::new(now) })
    }

    pub async fn accept(self: &Arc<Self>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let due = {
            let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
            let due = now.looked.elapsed() >= LOOK_INTERVAL;
            if due {
                now.looked = Instant::now();
            }
            due
        };
        if due {
            let this = self.clone();
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
        let server = self.now.lock().unwrap_or_else(PoisonError::into_inner).server.clone();
        TlsAcceptor::from(server).accept(stream).await
    }

    /// Takes changed files into use; what cannot be used changes nothing, and is told once.
    fn look(&self) {
        let stamps = self.config.stamps();
        if self.now.lock().unwrap_or_else(PoisonError::into_inner).stamps == stamps {
            return;
        }
        let read = self.config.read();
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.stamps = stamps;
        match read {
            Ok(server) => {
                now.server = server;
                tracing::info!("the HTTP port's certificate was read anew");
            }
            Err(error) => {
                let hint = "the one before stays in use; mend the files of `tls` in tidemill.yaml";
                tracing::error!(error, hint, "the HTTP port's certificate cannot be read anew");
            }
        }
    }
}
