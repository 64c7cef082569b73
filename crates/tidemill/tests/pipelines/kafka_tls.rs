//! Kafka and a schema registry over TLS, with certificates of a private authority: what is trusted, what is told, and what
//! mends itself.

use crate::elasticsearch_faults::{tls_before, tls_for};
use crate::node::{Node, PATIENCE, sqlite_rows};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use std::path::Path;
use testkit::{Kafka, KafkaOptions, Registry, RegistryOptions};

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority() -> Authority {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for 127.0.0.1 and its key, as PEM; valid until that year begins.
pub fn certificate(authority: &Authority, until: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (wanted.not_before, wanted.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(until, 1, 1));
    (wanted.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn write_store(path: &Path, (certificate, key): (String, String), authority: &Authority) {
    std::fs::write(path, key + &certificate + &authority.pem()).unwrap();
}

fn run(node: &Node, sql: &str) {
    let db = rusqlite::Connection::open(node.path("shop.db")).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db.execute_batch(sql).unwrap();
}

/// Orders go from one file over topics into another.
fn project(sink: &str, source: &str) -> Node {
    let node = Node::new(&[
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        ("sources/through.yaml", source.to_owned()),
        ("sinks/broker.yaml", sink.to_owned()),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to.yaml", "from: shop\nto: broker\noptions: {topic: \"rows.{table}\"}\n".into()),
        ("flows/from.yaml", "from: through\nto: file\n".into()),
    ]);
    run(&node, "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO orders VALUES (1, 'a')");
    node
}

async fn arrives(node: &Node, rows: &[[&str; 2]]) {
    node.until(&format!("{rows:?} arrives"), async || {
        sqlite_rows(&node.path("copy.db"), "SELECT id, note FROM orders ORDER BY id") == rows
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_are_verified_logged_in_to_over_tls_and_told_of_when_they_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (authority(), authority());
    let store = folder.path().join("store.pem");
    write_store(&store, certificate(&ours, 2020), &ours);
    let user = Some(("alice".to_owned(), "p@s:secret".to_owned()));
    let kafka =
        Kafka::start(KafkaOptions { user, tls: Some(store.clone()), ..Default::default() }).await.unwrap();
    let port = kafka.port();
    let url =
        |rest: &str| format!("kind: kafka\nurl: kafkas://alice:${{env:PASSWORD}}@127.0.0.1:{port}{rest}\n");
    let source = url("?sasl=scram-sha-512") + "topics: [\"rows.*\"]\noptions: {tls_ca: ./ca.pem}\n";
    let mut node = project(&(url("?sasl=scram-sha-256") + "tls_ca: ./ca.pem\n"), &source);
    node.env(&[("PASSWORD", "p@s:secret"), ("GUESSED", "a-guess")]);
    let told = |node: &Node, args: &[&str]| {
        let (code, out, err) = node.run(args);
        let text = out + &err;
        assert!(
            code != 0 && !text.contains("p@s") && !text.contains("p%40s") && !text.contains("a-guess"),
            "{text}"
        );
        text
    };
    let text = told(&node, &["check"]);
    assert_eq!(text.matches("no certificates can be read").count(), 2, "{text}");
    node.write("ca.pem", &ours.pem());
    let text = told(&node, &["check", "--connect"]);
    assert_eq!(text.matches("renew the server's certificate").count(), 2, "{text}");

    node.start();
    let status = node
        .wait("both tell that it has expired", |s| {
            [&s["flows"][1], &s["sources"][1]].iter().all(|it| it["state"] == "failed")
        })
        .await;
    for error in [&status["flows"][1]["error"], &status["sources"][1]["error"]] {
        assert!(error["message"].as_str().unwrap().contains("expired"), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("renew"), "{error}");
    }
    write_store(&store, certificate(&ours, 4000), &ours);
    kafka.restart().await.unwrap();
    arrives(&node, &[["1", "a"]]).await;

    node.write("other.pem", &other.pem());
    let plain = url("?sasl=plain");
    for (sink, wanted) in [
        (plain.clone(), "by `tls_ca`"),
        (format!("{plain}tls_ca: ./other.pem\n"), "by `tls_ca`"),
        (plain.replace("127.0.0.1", "localhost") + "tls_ca: ./ca.pem\n", "as the certificate names it"),
        (plain.replace("PASSWORD", "GUESSED") + "tls_ca: ./ca.pem\n", "refuses the login"),
        (
            plain.replace("PASSWORD", "GUESSED").replace("=plain", "=scram-sha-256") + "tls_ca: ./ca.pem\n",
            "refuses the login",
        ),
        (plain.replace("kafkas:", "kafka:"), "this port speaks TLS: write kafkas://"),
    ] {
        node.write("sinks/broker.yaml", &sink);
        let text = told(&node, &["check", "--connect"]);
        assert!(text.contains(wanted), "{sink}\n{text}");
    }
    node.stop();
    node.write("sinks/broker.yaml", &(plain.replace("PASSWORD", "GUESSED") + "tls_ca: ./ca.pem\n"));
    node.start();
    run(&node, "INSERT INTO orders VALUES (2, 'b')");
    let status = node.wait("the wrong password is told", |s| s["flows"][1]["state"] == "failed").await;
    assert!(status["flows"][1]["error"]["hint"].as_str().unwrap().contains("sasl="), "{status:#}");
    node.stop();
    node.write("sinks/broker.yaml", &(plain + "tls_ca: ./ca.pem\n"));
    node.start();
    arrives(&node, &[["1", "a"], ["2", "b"]]).await;
    let log = std::fs::read_to_string(node.path("tidemill.log")).unwrap() + &status.to_string();
    assert!(!log.contains("p@s") && !log.contains("p%40s") && !log.contains("a-guess"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_registry_is_verified_as_its_brokers_are() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (authority(), authority());
    let (cert, key) = certificate(&ours, 4000);
    let [store, cert_file, key_file] =
        ["store.pem", "cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&cert_file, &cert).unwrap();
    std::fs::write(&key_file, &key).unwrap();
    write_store(&store, (cert, key), &ours);
    let options = KafkaOptions { tls: Some(store), ..Default::default() };
    let (kafka, registry) = tokio::join!(Kafka::start(options), Registry::start(RegistryOptions::default()));
    let (kafka, registry) = (kafka.unwrap(), registry.unwrap());
    let port = tls_before(registry.addr().to_string(), &cert_file, &key_file).await;
    let registry_url = registry
        .url()
        .replace(&format!("http://127.0.0.1:{}", registry.port()), &format!("https://127.0.0.1:{port}"));
    let broker =
        format!("kind: kafka\nurl: kafkas://127.0.0.1:{}\nschema_registry: {registry_url}\n", kafka.port());
    let source = format!("{broker}topics: [\"rows.*\"]\noptions: {{format: avro, tls_ca: ./ca.pem}}\n");
    let mut node = project(&format!("{broker}tls_ca: ./ca.pem\n"), &source);
    node.write("flows/to.yaml", "from: shop\nto: broker\noptions: {topic: \"rows.{table}\", format: avro}\n");
    node.write("ca.pem", &ours.pem());
    node.start();
    arrives(&node, &[["1", "a"]]).await;
    // The broker's authority by its file, the registry's by the machine's: which does not know it.
    let unknown = tls_before(
        registry.addr().to_string(),
        &{
            let (cert, key) = certificate(&other, 4000);
            std::fs::write(&cert_file, cert).unwrap();
            std::fs::write(&key_file, key).unwrap();
            cert_file
        },
        &key_file,
    )
    .await;
    let moved = broker.replace(&format!("https://127.0.0.1:{port}"), &format!("https://127.0.0.1:{unknown}"));
    node.write("sinks/broker.yaml", &format!("{moved}tls_ca: ./ca.pem\n"));
    let (code, out, err) = node.run(&["check", "--connect"]);
    let text = out + &err;
    assert!(
        code != 0 && text.contains("the schema registry: TLS with") && text.contains("by `tls_ca`"),
        "{text}"
    );
    // An authority more in the file.
    node.write("ca.pem", &(ours.pem() + &other.pem()));
    node.stop();
    run(&node, "INSERT INTO orders VALUES (2, 'b'); ALTER TABLE orders ADD COLUMN more TEXT");
    node.start();
    arrives(&node, &[["1", "a"], ["2", "b"]]).await;
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_and_a_registry_that_want_certificates_get_them() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, clients, other) = (authority(), authority(), authority());
    let (cert, key) = certificate(&ours, 4000);
    let [store, trusted, cert_file, key_file] =
        ["store.pem", "clients.pem", "cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&cert_file, &cert).unwrap();
    std::fs::write(&key_file, &key).unwrap();
    std::fs::write(&trusted, clients.pem()).unwrap();
    write_store(&store, (cert, key), &ours);
    let listener = "listener.name.client.ssl";
    let settings = vec![
        format!("{listener}.client.auth=required"),
        format!("{listener}.truststore.type=PEM"),
        format!("{listener}.truststore.location={}", trusted.display()),
    ];
    let options = KafkaOptions { tls: Some(store), settings, ..Default::default() };
    let (kafka, registry) = tokio::join!(Kafka::start(options), Registry::start(RegistryOptions::default()));
    let (kafka, registry) = (kafka.unwrap(), registry.unwrap());
    let port = tls_for(registry.addr().to_string(), (&cert_file, &key_file), Some(&trusted)).await;
    let registry = registry
        .url()
        .replace(&format!("http://127.0.0.1:{}", registry.port()), &format!("https://127.0.0.1:{port}"));
    let broker = format!("kind: kafka\nurl: kafkas://127.0.0.1:{}\n", kafka.port());
    let named = "tls_ca: ./ca.pem, tls_cert: ./client.pem, tls_key: ./client-key.pem";
    let read = format!("{broker}schema_registry: {registry}\ntopics: [\"rows.*\"]\n");
    let source = |files: &str| format!("{read}options: {{format: avro, {files}}}\n");
    let sink = |files: &str| format!("{broker}schema_registry: {registry}\n{}\n", files.replace(", ", "\n"));
    let mut node = project(&sink("tls_ca: ./ca.pem"), &source("tls_ca: ./ca.pem"));
    node.write("flows/to.yaml", "from: shop\nto: broker\noptions: {topic: \"rows.{table}\", format: avro}\n");
    node.write("ca.pem", &ours.pem());
    let own = |node: &Node, authority: &Authority, until| {
        let (cert, key) = certificate(authority, until);
        node.write("client.pem", &cert);
        node.write("client-key.pem", &key);
        key
    };
    let told = |node: &Node, args: &[&str]| {
        let (code, out, err) = node.run(args);
        assert_ne!(code, 0, "{out}{err}");
        out + &err
    };

    // What is wrong with the files is told before anything is connected.
    node.write("sinks/broker.yaml", &sink("tls_cert: ./client.pem"));
    let text = told(&node, &["check"]);
    assert!(text.contains("`tls_cert` needs its key: `tls_key`"), "{text}");
    node.write("sinks/broker.yaml", &sink(named));
    let text = told(&node, &["check"]);
    assert!(text.contains("`tls_cert`: no certificates can be read from"), "{text}");
    own(&node, &clients, 4000);
    node.write("client-key.pem", &certificate(&clients, 4000).1);
    let text = told(&node, &["check"]);
    assert!(text.contains("(`tls_cert`) and the key of"), "{text}");
    node.write("client-key.pem", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    let text = told(&node, &["check"]);
    assert!(text.contains("`tls_key`") && !text.contains("c2VjcmV0") && !text.contains("secret"), "{text}");

    // What the servers say to none, another authority's, and one that has expired.
    for (files, authority, until) in
        [("tls_ca: ./ca.pem", &clients, 4000), (named, &other, 4000), (named, &clients, 2020)]
    {
        own(&node, authority, until);
        node.write("sinks/broker.yaml", &sink(files));
        node.write("sources/through.yaml", &source(files));
        let text = told(&node, &["check", "--connect"]);
        assert_eq!(text.matches("Kafka: TLS: received fatal alert").count(), 2, "{text}");
        assert_eq!(text.matches("`tls_cert` and").count(), 2, "{text}");
    }
    node.start();
    let status = node
        .wait("both tell that their certificate is not taken", |s| {
            [&s["flows"][1], &s["sources"][1]].iter().all(|it| it["state"] == "failed")
        })
        .await;
    for error in [&status["flows"][1]["error"], &status["sources"][1]["error"]] {
        assert!(error["message"].as_str().unwrap().contains("received fatal alert"), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("`tls_key` must name one that is valid"), "{error}");
    }
    // A new certificate is read when the connection is tried again.
    let key = own(&node, &clients, 4000);
    arrives(&node, &[["1", "a"]]).await;
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = node.run(&["flow", "verify", "from"]);
    assert_eq!(code, 0, "{out}{err}");

    // The registry by itself.
    let plain = Kafka::start(KafkaOptions::default()).await.unwrap();
    let text = sink("tls_ca: ./ca.pem").replace(&broker, &format!("kind: kafka\nurl: {}\n", plain.url()));
    node.write("sinks/broker.yaml", &text);
    let text = told(&node, &["check", "--connect"]);
    assert!(text.contains("the schema registry: TLS: ") && text.contains("by `tls_cert` and"), "{text}");
    let log = node.log() + &node.status().to_string();
    assert!(key.lines().all(|line| line.starts_with("---") || !log.contains(line)), "{log}");
}
