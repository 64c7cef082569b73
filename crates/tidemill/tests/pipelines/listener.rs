//! The HTTP port itself: both versions of HTTP, TLS, clients that must show a certificate, and clients that are slow.

use crate::node::{Node, PATIENCE};
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for 127.0.0.1 and its key, as PEM.
fn certificate(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let wanted = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (wanted.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A client that trusts this authority, and shows a certificate where it has one.
fn client(trusts: &Authority, shown: Option<&(String, String)>, alpn: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusts.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn ask<S>(
    stream: S,
    second_version: bool,
    request: Request<Body>,
) -> Result<Response<Body>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let response = if second_version {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    Ok(response.map(Body::new))
}

fn request(uri: &str, host: &str, token: &str) -> Request<Body> {
    let request = Request::get(uri).header("authorization", format!("Bearer {token}"));
    let request = if host.is_empty() { request } else { request.header("host", host) };
    request.body(Body::empty()).unwrap()
}

/// The name in the status, over TLS.
async fn name_over(
    connector: &TlsConnector,
    node: &Node,
    token: &str,
    second_version: bool,
) -> io::Result<String> {
    let stream = TcpStream::connect(node.address()).await?;
    let stream = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await?;
    let uri = if second_version {
        format!("https://{}/api/v1/status", node.address())
    } else {
        "/api/v1/status".into()
    };
    let host = if second_version { String::new() } else { node.address() };
    let response =
        ask(stream, second_version, request(&uri, &host, token)).await.map_err(io::Error::other)?;
    assert_eq!(response.status(), 200);
    let body = to_bytes(response.into_body(), 1 << 20).await.map_err(io::Error::other)?;
    Ok(serde_json::from_slice::<Value>(&body).unwrap()["name"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_http_are_spoken_on_the_clear_port() {
    let mut node = Node::new(&[]);
    node.start();
    node.until("the node answers", || async { node.status() != Value::Null }).await;
    let stream = || TcpStream::connect(node.address());
    let uri = format!("http://{}/api/v1/status", node.address());
    let response = ask(stream().await.unwrap(), true, request(&uri, "", "none")).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, axum::http::Version::HTTP_2));
    // A name that was made to resolve to us, in the place where HTTP/2 has the host.
    for (uri, host) in [("http://evil.example/api/v1/status", ""), (&uri, "evil.example")] {
        let response = ask(stream().await.unwrap(), true, request(uri, host, "none")).await.unwrap();
        assert!([400, 403].contains(&response.status().as_u16()), "{uri} {host}: {}", response.status());
    }
    let response = ask(stream().await.unwrap(), false, request(&uri, "evil.example", "none")).await.unwrap();
    assert!([400, 403].contains(&response.status().as_u16()), "{}", response.status());
    // A length that is told twice, and a message that has two ends.
    for head in [
        "Content-Length: 2\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Host: localhost\r\n",
    ] {
        let mut stream = stream().await.unwrap();
        let text = format!("POST /api/v1/flows/x:pause HTTP/1.1\r\nHost: localhost\r\n{head}\r\n0\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400", "{head}");
    }
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_speaks_tls_and_takes_a_renewed_certificate_into_use() {
    let (ours, other) = (authority(), authority());
    let mut node = Node::new(&[]);
    let write = |node: &Node, from: &Authority| {
        let (certificate, key) = certificate(from);
        node.write("tls/key.pem", &key);
        node.write("tls/cert.pem", &certificate);
    };
    let project = |node: &Node, address: &str, rest: &str| {
        node.write("tidemill.yaml", &format!("name: test\nlisten: {{http: \"{address}\"}}\n{rest}"));
    };
    let everywhere = node.address().replace("127.0.0.1", "0.0.0.0");
    let tls = "tls: {cert: ./tls/cert.pem, key: ./tls/key.pem}\n";
    project(&node, &everywhere, "");
    let (code, _, err) = node.run(&["up"]);
    assert!(
        code == 2 && err.contains("there is no `tls`") && err.contains("there is no token"),
        "{code} {err}"
    );
    project(&node, &everywhere, tls);
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("`tls`:") && err.contains("cert.pem"), "{code} {err}");
    write(&node, &ours);
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("token create") && !err.contains("`tls`"), "{code} {err}");
    let (code, token, err) = node.run(&["token", "create", "boss", "--scope", "admin"]);
    assert_eq!(code, 0, "{err}");
    let token = token.trim().to_owned();
    let (code, _, err) = node.run(&["check"]);
    assert_eq!(code, 0, "{err}");
    node.env(&[("TIDEMILL_TOKEN", &token)]);
    node.start();
    node.until("the command reaches it over TLS", || async { node.status() != Value::Null }).await;
    let (one, two) = (client(&ours, None, "http/1.1"), client(&ours, None, "h2"));
    assert_eq!(name_over(&one, &node, &token, false).await.unwrap(), "test");
    assert_eq!(name_over(&two, &node, &token, true).await.unwrap(), "test");
    let mut clear = TcpStream::connect(node.address()).await.unwrap();
    clear.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = clear.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "nothing is told in the clear");
    assert!(name_over(&client(&other, None, "h2"), &node, &token, true).await.is_err());
    // Files that cannot be used change nothing; those that can are used without a restart.
    node.write("tls/cert.pem", "no certificate");
    node.until("the mistake is told", async || {
        let served = name_over(&one, &node, &token, false).await;
        assert_eq!(served.unwrap(), "test");
        node.log().contains("cannot be read anew")
    })
    .await;
    write(&node, &other);
    let renewed = client(&other, None, "h2");
    node.until("the renewed one is shown", async || name_over(&renewed, &node, &token, true).await.is_ok())
        .await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_a_certificate_where_the_project_asks_for_one() {
    let (ours, devices, other) = (authority(), authority(), authority());
    let mut node = Node::new(&[(
        "sources/shop.yaml",
        "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\nmirror: [\"shop.*\"]\n".into(),
    )]);
    rusqlite::Connection::open(node.path("shop.db"))
        .unwrap()
        .execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
        .unwrap();
    let (server, key) = certificate(&ours);
    let listen = format!("name: test\nlisten: {{http: \"{}\"}}\n", node.address());
    let tls = "tls: {cert: ./cert.pem, key: ./key.pem, client_ca: ./devices.pem}\n";
    let (device, stranger) = (certificate(&devices), certificate(&other));
    for (name, text) in [
        ("tidemill.yaml", &(listen + tls)),
        ("cert.pem", &server),
        ("key.pem", &key),
        ("devices.pem", &devices.pem()),
        ("device.pem", &device.0),
        ("device.key", &device.1),
        ("ours.pem", &ours.pem()),
        ("stranger.pem", &stranger.0),
        ("stranger.key", &stranger.1),
    ] {
        node.write(name, text);
    }
    node.start();
    node.until("the node listens", async || TcpStream::connect(node.address()).await.is_ok()).await;
    assert_eq!(node.status(), Value::Null, "a command without a certificate is not let in");
    let file = |name: &str| node.path(name).to_str().unwrap().to_owned();
    let (trusts, into) = (file("ours.pem"), file("copy.db"));
    let follow = |certificate: &[&str]| {
        let orders = ["subscribe", "shop", "--table", "shop.orders", "--into", &into, "--until-up-to-date"];
        node.run(&[&orders[..], &["--ca", &trusts], certificate].concat())
    };
    let (code, _, err) = follow(&[]);
    assert!(code == 3 && err.contains("does not answer"), "{code} {err}");
    let (code, _, err) = follow(&["--cert", &file("stranger.pem"), "--key", &file("stranger.key")]);
    assert!(code == 3 && err.contains("does not answer"), "{code} {err}");
    let (code, _, err) = follow(&["--cert", &file("device.pem")]);
    assert!(code == 2 && err.contains("--key"), "{code} {err}");
    let (code, out, err) = follow(&["--cert", &file("device.pem"), "--key", &file("device.key")]);
    assert!(code == 0 && out.starts_with("orders: 2 rows"), "{code} {out} {err}");
    let (cert, key) = (node.path("device.pem"), node.path("device.key"));
    node.env(&[
        ("TIDEMILL_CLIENT_CERT", cert.to_str().unwrap()),
        ("TIDEMILL_CLIENT_KEY", key.to_str().unwrap()),
    ]);
    node.until("a command with one is", || async { node.status() != Value::Null }).await;
    for second_version in [false, true] {
        let alpn = if second_version { "h2" } else { "http/1.1" };
        let asked = async |shown| name_over(&client(&ours, shown, alpn), &node, "none", second_version).await;
        assert_eq!(asked(Some(&device)).await.unwrap(), "test");
        assert!(asked(None).await.is_err() && asked(Some(&stranger)).await.is_err());
    }
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_say_nothing_lose_their_place() {
    let mut node = Node::new(&[]);
    node.start();
    node.until("the node answers", || async { node.status() != Value::Null }).await;
    let begin = Instant::now();
    let begun = [
        &b""[..],
        b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let mut slow = Vec::new();
    for text in begun.iter().cycle().take(100) {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        stream.write_all(text).await.unwrap();
        slow.push(stream);
    }
    assert_ne!(node.status(), Value::Null, "others are served meanwhile");
    for mut stream in slow {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is still open");
    }
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(40), "{took:?}");
    node.stop();
}
