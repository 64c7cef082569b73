//! HTTP/1.1 to one server, one request at a time, over a connection that is kept.
//!
//! A request whose answer was not read to its end leaves no connection behind: the next one begins with a new one.

use crate::tls;
use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PORT_DEFAULT: u16 = 9200;
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// A server that has not answered by then is taken for dead. It waits a minute itself for a shard that is moving.
const ANSWER_WAIT: Duration = Duration::from_secs(90);
/// The largest answer that is read; those to our own requests are far smaller.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}")]
    Away(String),
    /// Someone must mend it: a URL, a certificate.
    #[error("{0}")]
    Misfit(String),
}

/// What the server said, whatever it was.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Where a server is and how to get in. Never prints the login.
#[derive(Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    /// The whole header: `Basic …`.
    login: Option<Secret>,
}

impl Endpoint {
    /// From `http://[user:password@]host[:port]`; `https` is TLS. `Err` says what is wrong, and never holds the password.
    pub fn parse(url: &Secret) -> Result<Self, String> {
        let (tls, rest) = match url.expose().split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err("the url does not begin with http:// or https://".to_owned()),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let address = rest.trim_end_matches('/');
        if address.contains(['/', '?', '#']) {
            return Err("the url has a path behind the host".to_owned());
        }
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| format!("`{port}` in the url is not a port"))?)
            }
            _ => (address, PORT_DEFAULT),
        };
        if host.is_empty() {
            return Err("the url has no host".to_owned());
        }
        let login = match login {
            None => None,
            Some(login) => {
                let plain = percent_encoding::percent_decode_str(login).collect::<Vec<u8>>();
                Some(Secret::new(format!("Basic {}", BASE64.encode(plain))))
            }
        };
        let tls = if tls { Some(tls::connector()?) } else { None };
        Ok(Self { host: host.to_owned(), port, tls, login })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let away = |error: String| ClientError::Away(format!("{}:{}: {error}", self.host, self.port));
        let name = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((name, self.port)).await.map_err(|error| away(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| away(error.to_string()))?;
        let Some(connector) = &self.tls else { return begin(stream).await.map_err(away) };
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| ClientError::Misfit(format!("`{name}` is no name that a certificate could have")))?;
        match connector.connect(server, stream).await {
            Ok(stream) => begin(stream).await.map_err(away),
            // A certificate that is not trusted stays so.
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                Err(ClientError::Misfit(format!("TLS with {}: {error}", self.host)))
            }
            Err(error) => Err(away(error.to_string())),
        }
    }
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends by itself with the sender, or with the server's end of the connection.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// A body and what it is.
pub enum Body {
    None,
    Json(Bytes),
    Lines(Bytes),
}

pub struct Client {
    endpoint: Endpoint,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, sender: None }
    }

    /// Sends a request and reads the whole answer. `path` is escaped by the caller.
    pub async fn call(&mut self, method: Method, path: &str, body: Body) -> Result<Answer, ClientError> {
        // Taken out, so that a call that is dropped half way leaves nothing behind.
        let kept = self.sender.take().filter(|sender| !sender.is_closed());
        let mut sender = match kept {
            Some(sender) => sender,
            None => timed(CONNECT_WAIT, "no connection", self.endpoint.connect()).await?,
        };
        let request = self.request(method, path, body)?;
        let answer = timed(ANSWER_WAIT, "no answer", exchange(&mut sender, request)).await?;
        self.sender = Some(sender);
        Ok(answer)
    }

    fn request(&self, method: Method, path: &str, body: Body) -> Result<Request<Full<Bytes>>, ClientError> {
        let (kind, body) = match body {
            Body::None => (None, Bytes::new()),
            Body::Json(body) => (Some("application/json"), body),
            Body::Lines(body) => (Some("application/x-ndjson"), body),
        };
        let host = format!("{}:{}", self.endpoint.host, self.endpoint.port);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(login) = &self.endpoint.login {
            request = request.header(header::AUTHORIZATION, login.expose());
        }
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        request.body(Full::new(body)).map_err(|error| ClientError::Misfit(error.to_string()))
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, ClientError> {
    let away = |error: hyper::Error| ClientError::Away(base::error::chain(&error));
    sender.ready().await.map_err(away)?;
    let response = sender.send_request(request).await.map_err(away)?;
    let status = response.status();
    let mut body = response.into_body();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(away)?.into_data() {
            whole.extend_from_slice(&data);
        }
        if whole.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::Away(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
    }
    Ok(Answer { status, body: whole.freeze() })
}

async fn timed<T>(
    wait: Duration,
    what: &str,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let late = || ClientError::Away(format!("{what} within {} s", wait.as_secs()));
    tokio::time::timeout(wait, work).await.unwrap_or_else(|_| Err(late()))
}

/// Text as a part of a path or a query.
pub fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, String> {
        Endpoint::parse(&Secret::new(url))
    }

    #[test]
    fn urls_are_read_and_what_is_wrong_is_told_without_the_password() {
        let endpoint = parse("http://u%40x:p%2Fw@[::1]:9201/").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("[::1]", 9201));
        assert_eq!(endpoint.login.unwrap().expose(), format!("Basic {}", BASE64.encode("u@x:p/w")));
        assert_eq!(parse("http://search").unwrap().port, 9200);
        for wrong in ["ftp://u:secret@x", "http://", "http://u:secret@h:port", "http://u:secret@h/path"] {
            let told = parse(wrong).err().unwrap();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
