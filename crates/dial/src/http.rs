//! Our HTTP client: HTTP/1.1 to one server, one request at a time, over a connection that is kept.
//!
//! A request whose answer was not read to its end leaves no connection behind: the next one begins with a new one.

use crate::tls;
use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

const CONNECT_WAIT: Duration = Duration::from_secs(5);

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
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// How long an answer may take and how large it may be.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub answer_wait: Duration,
    /// The answer is read so far: what is longer is cut off, and the connection with it.
    pub answer_bytes_max: usize,
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
    /// From `http://[user:password@]host[:port][/path]`; `https` is TLS. `port` is for a URL without one. The path is what
    /// a request names, with its query; it may be a secret, as that of many webhooks is. `Err` says what is wrong, and never
    /// holds the password or the path.
    pub fn parse(url: &Secret, port: Option<u16>) -> Result<(Self, Secret), String> {
        Self::parse_with(url, port, &tls::Files::default())
    }

    /// The same, with files for `https`.
    pub fn parse_with(url: &Secret, port: Option<u16>, files: &tls::Files) -> Result<(Self, Secret), String> {
        let (tls, rest) = match url.expose().split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err("the url does not begin with http:// or https://".to_owned()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the path of the url has characters that must be escaped as %XX".to_owned());
        }
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        let port_default = port.unwrap_or(if tls { 443 } else { 80 });
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| format!("`{port}` in the url is not a port"))?)
            }
            _ => (address, port_default),
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
        let tls = if tls { Some(tls::connector(files)?) } else { None };
        Ok((Self { host: host.to_owned(), port, tls, login }, Secret::new(path)))
    }

    /// Whether a connection can be made; nothing is sent over it but what TLS needs.
    pub async fn try_connect(&self) -> Result<(), ClientError> {
        timed(CONNECT_WAIT, "no connection", self.connect()).await.map(|_| ())
    }

    /// Whether both are one server, reached in one way.
    pub fn is_same_server(&self, other: &Self) -> bool {
        (self.host.eq_ignore_ascii_case(&other.host), self.port, self.tls.is_some())
            == (true, other.port, other.tls.is_some())
    }

    /// `host:port`.
    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
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
            Err(error) => Err(match tls::hint(&error) {
                Some(hint) => ClientError::Misfit(format!("TLS with {}: {error}: {hint}", self.host)),
                None => away(error.to_string()),
            }),
        }
    }
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Why it ended, where that was an error.
    broke: oneshot::Receiver<hyper::Error>,
}

async fn begin(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Connection, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let (tell, broke) = oneshot::channel();
    // Ends by itself with the sender, or with the server's end of the connection.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            let _ = tell.send(error);
        }
    });
    Ok(Connection { sender, broke })
}

/// A body and what it is: its `Content-Type`.
pub type Body = Option<(&'static str, Bytes)>;

pub struct Client {
    endpoint: Endpoint,
    patience: Patience,
    connection: Option<Connection>,
}

impl Client {
    pub fn new(endpoint: Endpoint, patience: Patience) -> Self {
        Self { endpoint, patience, connection: None }
    }

    /// Sends a request and reads the whole answer. `path` is escaped by the caller.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Answer, ClientError> {
        // Taken out, so that a call that is dropped half way leaves nothing behind.
        let kept = self.connection.take().filter(|kept| !kept.sender.is_closed());
        let mut connection = match kept {
            Some(connection) => connection,
            None => timed(CONNECT_WAIT, "no connection", self.endpoint.connect()).await?,
        };
        let request = self.request(method, path, headers, body)?;
        let Patience { answer_wait, answer_bytes_max } = self.patience;
        let exchange = exchange(&mut connection, request, answer_bytes_max);
        let (answer, whole) = timed(answer_wait, "no answer", exchange).await?;
        self.connection = Some(connection).filter(|_| whole);
        Ok(answer)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, self.endpoint.authority());
        if let Some(login) = &self.endpoint.login {
            request = request.header(header::AUTHORIZATION, login.expose());
        }
        let body = body.map_or_else(Bytes::new, |(kind, body)| {
            let headers = request.headers_mut();
            headers.map(|headers| headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind)));
            body
        });
        if let Some(own) = request.headers_mut() {
            own.extend(headers);
        }
        request.body(Full::new(body)).map_err(|_| {
            ClientError::Misfit("the url's path or a header has characters that HTTP does not allow".into())
        })
    }
}

/// The answer, and whether it was read to its end.
async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<(Answer, bool), ClientError> {
    let away = |error: hyper::Error| match tls::late_hint(&error) {
        Some(hint) => ClientError::Misfit(format!("TLS: {}: {hint}", base::error::chain(&error))),
        None => ClientError::Away(base::error::chain(&error)),
    };
    let Connection { sender, broke } = connection;
    let sent = async {
        sender.ready().await?;
        sender.send_request(request).await
    };
    let response = match sent.await {
        Ok(response) => response,
        // A server that does not take our certificate says so when the connection is there already: its end knows why.
        Err(error) if error.is_closed() || error.is_canceled() => {
            return Err(away(broke.await.unwrap_or(error)));
        }
        Err(error) => return Err(away(error)),
    };
    let (head, mut body) = response.into_parts();
    let mut read = BytesMut::new();
    let mut whole = true;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(away)?.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > bytes_max {
            read.truncate(bytes_max);
            whole = false;
            break;
        }
    }
    Ok((Answer { status: head.status, headers: head.headers, body: read.freeze() }, whole))
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

    fn parse(url: &str) -> Result<(Endpoint, Secret), String> {
        Endpoint::parse(&Secret::new(url), None)
    }

    #[test]
    fn urls_are_read_and_what_is_wrong_is_told_without_the_password() {
        let (endpoint, path) = parse("http://u%40x:p%2Fw@[::1]:9201/").unwrap();
        assert_eq!(path.expose(), "/");
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("[::1]", 9201));
        assert_eq!(endpoint.login.unwrap().expose(), format!("Basic {}", BASE64.encode("u@x:p/w")));
        let (endpoint, path) = parse("https://hooks/a/b?token=x@y:1#part").unwrap();
        assert_eq!(
            (endpoint.host.as_str(), endpoint.port, path.expose()),
            ("hooks", 443, "/a/b?token=x@y:1")
        );
        let (endpoint, path) = parse("http://hooks?token=x").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port, path.expose()), ("hooks", 80, "/?token=x"));
        assert_eq!(Endpoint::parse(&Secret::new("http://search"), Some(9200)).unwrap().0.port, 9200);
        for wrong in ["ftp://u:secret@x", "http://", "http://u:secret@h:port", "http://h/secret path"] {
            let told = parse(wrong).err().unwrap();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
