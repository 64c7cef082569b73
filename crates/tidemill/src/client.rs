//! The running node, as the other commands reach it, and as its own tasks do.

use crate::auth::Caller;
use crate::failure::Failure;
use crate::listener::certificates;
use crate::project::NodeConfig;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use base::Secret;
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where a command's token is, if not in a file. Never an argument: those are seen by everybody on the machine.
const TOKEN_ENV: &str = "TIDEMILL_TOKEN";
/// PEM files of the certificate and key that a command shows where the node asks for one.
const CERT_ENV: &str = "TIDEMILL_CLIENT_CERT";
const KEY_ENV: &str = "TIDEMILL_CLIENT_KEY";
/// An answer that is read whole. Lists of sessions and of parked changes are the longest.
const ANSWER_BYTES_MAX: usize = 256 << 20;
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// The file of `--bearer-file`, for the one command that this process is.
static TOKEN_FILE: OnceLock<PathBuf> = OnceLock::new();

/// The command's token is in this file.
pub fn take_token_from(file: PathBuf) {
    let _ = TOKEN_FILE.set(file);
}

/// Speaks to the node at the `listen.http` of `tidemill.yaml`, or within its process. Cheap to clone.
#[derive(Clone)]
pub struct NodeClient(Way);

#[derive(Clone)]
enum Way {
    /// With TLS, `cert` is the file of the node's own certificate. It is read when somebody answers.
    Port {
        address: SocketAddr,
        cert: Option<PathBuf>,
        token: Option<HeaderValue>,
    },
    Inside(Router),
}

impl NodeClient {
    /// # Errors
    /// When the token cannot be read.
    pub fn new(node: &NodeConfig) -> Result<Self, Failure> {
        let address = reached(node.listen.http);
        let cert = node.tls.as_ref().map(|tls| tls.cert.clone());
        Ok(Self(Way::Port { address, cert, token: token()? }))
    }

    /// The node that this process is. Its own tasks need no token.
    pub fn inside(routes: Router) -> Self {
        Self(Way::Inside(routes))
    }

    fn base(&self) -> String {
        match &self.0 {
            Way::Port { address, cert: None, .. } => format!("http://{address}"),
            Way::Port { address, cert: Some(_), .. } => format!("https://{address}"),
            Way::Inside(_) => "this process".to_owned(),
        }
    }

    fn away(&self) -> Failure {
        let failure = Failure::new(3, format!("no node answers at {}", self.base()));
        Failure { away: true, ..failure.hint("start it with `tidemill up`") }
    }

    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let message = format!("failed to reach the node at {}: {}", self.base(), base::error::chain(error));
        Failure::new(3, message).hint("see the node's log")
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let response = self.send(Method::GET, path, None).await?;
        self.answer(response).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let response = self.send(Method::POST, path, Some(body)).await?;
        self.answer(response).await
    }

    /// A body that is read as it comes.
    pub async fn stream(&self, path: &str) -> Result<Body, Failure> {
        let response = self.send(Method::GET, path, None).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        Err(self.answer(response).await.err().unwrap_or_else(|| Failure::new(1, "the node refused")))
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, Failure> {
        // It escapes what people write into tables and names.
        let url = reqwest::Url::parse(&format!("http://node{path}")).map_err(|error| self.broken(&error))?;
        let target =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let mut request = Request::builder().method(method).uri(target);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = request.body(body).map_err(|error| self.broken(&error))?;
        match &self.0 {
            Way::Inside(routes) => {
                request.extensions_mut().insert(Caller::node_itself());
                let answered = TowerToHyperService::new(routes.clone()).call(request).await;
                Ok(answered.unwrap_or_else(|never| match never {}))
            }
            Way::Port { address, cert, token } => {
                let headers = request.headers_mut();
                let host =
                    HeaderValue::from_str(&address.to_string()).map_err(|error| self.broken(&error))?;
                headers.insert(header::HOST, host);
                if let Some(token) = token {
                    headers.insert(header::AUTHORIZATION, token.clone());
                }
                let stream = TcpStream::connect(address).await.map_err(|_| self.away())?;
                match cert {
                    None => self.exchange(stream, request).await,
                    Some(cert) => {
                        let name = ServerName::from(address.ip());
                        let stream = connector(cert)?
                            .connect(name, stream)
                            .await
                            .map_err(|error| self.broken(&error))?;
                        self.exchange(stream, request).await
                    }
                }
            }
        }
    }

    async fn exchange<S>(&self, stream: S, request: Request<Body>) -> Result<Response, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| self.broken(&error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the answer's last byte, or when nobody reads it any more.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(response.map(Body::new))
    }

    async fn answer(&self, response: Response) -> Result<Value, Failure> {
        let status = response.status();
        let body = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error| self.broken(&error))?;
        let body: Value = serde_json::from_slice(&body).map_err(|error| self.broken(&error))?;
        if status.is_success() {
            return Ok(body);
        }
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        if status == StatusCode::UNAUTHORIZED {
            let hint =
                format!("put a token with that scope into {TOKEN_ENV}, or name a file by --bearer-file");
            return Err(
                Failure::new(3, format!("the node lets nobody in like that: {}", text("detail"))).hint(hint)
            );
        }
        // What the command named is wrong: usage. Everything else is a failure.
        let exit = if matches!(text("code").as_str(), "invalid" | "not_found") { 2 } else { 1 };
        let failure = Failure::new(exit, text("detail"));
        Err(if text("hint").is_empty() { failure } else { failure.hint(text("hint")) })
    }
}

/// From this machine: where a node listens on all addresses, by its own.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The address of a project's node, as a client on this machine writes it.
pub fn node_url(node: &NodeConfig) -> String {
    let scheme = if node.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", reached(node.listen.http))
}

/// The token that the command was given.
pub fn bearer() -> Result<Option<Secret>, Failure> {
    let text = match TOKEN_FILE.get() {
        Some(file) => Some(read_token(file)?),
        None => std::env::var(TOKEN_ENV).ok().map(Secret::new),
    };
    Ok(text.map(|text| Secret::new(text.expose().trim())).filter(|text| !text.expose().is_empty()))
}

/// The header with it.
fn token() -> Result<Option<HeaderValue>, Failure> {
    let Some(token) = bearer()? else { return Ok(None) };
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| Failure::new(2, "what was given as a token is none").hint("it begins with tidemill_"))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn read_token(file: &Path) -> Result<Secret, Failure> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| {
            Failure::new(2, format!("failed to read the token in {}: {error}", file.display()))
                .hint("write the token alone into that file")
        })?;
    Ok(Secret::new(text))
}

/// Trusts the node's own certificate, which the project names, and no other, whatever names it is for.
fn connector(cert: &Path) -> Result<TlsConnector, Failure> {
    let failed = |message: String| {
        Failure::new(2, format!("failed to read `tls`: {message}"))
            .hint("see `tls` in docs/reference/config.md")
    };
    let own = certificates(cert).map_err(failed)?.swap_remove(0);
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Own { certificate: own, provider }));
    let config = match (std::env::var_os(CERT_ENV), std::env::var_os(KEY_ENV)) {
        (Some(cert), Some(key)) => {
            let chain = certificates(Path::new(&cert)).map_err(failed)?;
            let key = PrivateKeyDer::from_pem_file(Path::new(&key))
                .map_err(|error| failed(format!("{KEY_ENV}: {error}")))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| failed(error.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Lets one certificate pass; whoever shows it must have its key.
#[derive(Debug)]
struct Own {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
