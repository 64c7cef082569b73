//! Who may read what: TLS to the source, ways to log in, and what the node's own port lets in.

use crate::node::{Node, mysql_source};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

const GRANTS: &str = "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO cdc@'%'";

/// A CA, a certificate of it for `host`, and that one's key, as PEM files.
pub fn make_certificate(folder: &Path, host: &str) -> (PathBuf, PathBuf, PathBuf) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    fs::create_dir_all(folder).unwrap();
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let key = write("key.pem", key.serialize_pem());
    (write("ca.pem", authority.pem()), write("cert.pem", certificate.pem()), key)
}

async fn make_table(server: &SqlServer) {
    for sql in
        ["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY)", "INSERT INTO shop.a VALUES (1)"]
    {
        server.exec(sql).await.unwrap();
    }
}

/// A source that logs in as `cdc` with a password that a URL must escape.
fn as_cdc(server: &SqlServer, options: &str) -> Node {
    let url = format!("mysql://cdc:${{env:SHOP_PASSWORD}}@127.0.0.1:{}", server.port());
    let mut node = Node::new(&[("sources/shop.yaml", mysql_source(&url, "shop.*") + options)]);
    node.env(&[("SHOP_PASSWORD", "p@ss/w:rd #1")]);
    node
}

async fn captures(node: &mut Node, server: &SqlServer, id: u64) {
    node.start();
    node.wait("the snapshot is done", |s| s["sources"][0]["snapshot"]["state"] == "done").await;
    server.exec(&format!("INSERT INTO shop.a VALUES ({id})")).await.unwrap();
    node.until("the change is there", || async {
        node.changes("shop").last().is_some_and(|change| change["after"]["id"] == id)
    })
    .await;
    assert!(!node.log().contains("p@ss"), "{}", node.log());
    let (code, report, err) = node.run(&["doctor"]);
    assert!(code == 0 && report.contains("[redacted]"), "{code} {report} {err}");
    assert!(!report.contains("p@ss") && !report.contains("p%40ss"), "{report}");
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_is_reached_with_caching_sha2_plain_and_over_verified_tls() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_table(&server).await;
    server.exec("CREATE USER cdc@'%' IDENTIFIED BY 'p@ss/w:rd #1'").await.unwrap();
    server.exec(GRANTS).await.unwrap();
    // A new server knows no fast answer yet: the password goes encrypted with the server's own key.
    captures(&mut as_cdc(&server, ""), &server, 10).await;

    server.exec("ALTER USER cdc@'%' REQUIRE SSL").await.unwrap();
    let (code, _, err) = as_cdc(&server, "options: {tls: off}\n").run(&["check", "--connect"]);
    assert!(code == 3 && err.contains("hint:"), "{code} {err}");
    captures(&mut as_cdc(&server, "options: {tls: require}\n"), &server, 11).await;

    // The certificate that the server makes for itself names no host.
    let verify = |ca: &Path| format!("options: {{tls: verify, tls_ca: {}}}\n", ca.display());
    let node = as_cdc(&server, &verify(&server.data_dir().join("ca.pem")));
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert!(code == 3 && err.to_lowercase().contains("certificate"), "{code} {err}");

    let folder = tempfile::tempdir().unwrap();
    let (ca, cert, key) = make_certificate(folder.path(), "127.0.0.1");
    server.stop().await.unwrap();
    for (own, made) in [("ca.pem", &ca), ("server-cert.pem", &cert), ("server-key.pem", &key)] {
        fs::copy(made, server.data_dir().join(own)).unwrap();
    }
    server.restart().await.unwrap();
    captures(&mut as_cdc(&server, &verify(&ca)), &server, 12).await;
    let (other, _, _) = make_certificate(&folder.path().join("other"), "127.0.0.1");
    let (code, _, err) = as_cdc(&server, &verify(&other)).run(&["check", "--connect"]);
    assert!(code == 3 && err.to_lowercase().contains("certificate") && !err.contains("p@ss"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_reached_with_its_native_password() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    make_table(&server).await;
    server
        .exec("CREATE USER cdc@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('p@ss/w:rd #1')")
        .await
        .unwrap();
    let mut node = as_cdc(&server, "");
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert!(code == 2 && err.contains("GRANT BINLOG MONITOR"), "{code} {err}");
    server.exec("GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO cdc@'%'").await.unwrap();
    captures(&mut node, &server, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_an_absent_server_end_with_their_own_status() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    server.exec("CREATE USER cdc@'%' IDENTIFIED BY 'another'").await.unwrap();
    let (code, _, err) = as_cdc(&server, "").run(&["check", "--connect"]);
    assert!(code == 3 && err.contains("user name and password") && !err.contains("p@ss"), "{code} {err}");
    let port = server.port();
    drop(server);
    let node =
        Node::new(&[("sources/shop.yaml", mysql_source(&format!("mysql://x@127.0.0.1:{port}"), "shop.*"))]);
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert!(code == 3 && err.contains("failed to connect"), "{code} {err}");
    let (code, _, err) = node.run(&["status"]);
    assert!(code == 3 && err.contains("tidemill up"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_table_that_may_not_be_read_is_quarantined_alone() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_table(&server).await;
    server.exec("CREATE TABLE shop.secret (id INT PRIMARY KEY, v INT)").await.unwrap();
    server.exec("INSERT INTO shop.secret VALUES (1, 1)").await.unwrap();
    for sql in [
        "CREATE USER cdc@'%' IDENTIFIED BY 'p@ss/w:rd #1'",
        "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO cdc@'%'",
        "GRANT SELECT ON shop.a TO cdc@'%'",
        "GRANT SHOW VIEW, INSERT ON shop.secret TO cdc@'%'",
    ] {
        server.exec(sql).await.unwrap();
    }
    let mut node = as_cdc(&server, "");
    node.start();
    let status = node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    let quarantined = status["sources"][0]["quarantined"].as_array().unwrap();
    assert_eq!(quarantined.len(), 1, "{status:#}");
    assert_eq!(quarantined[0]["table"], "shop.secret");
    server.exec("INSERT INTO shop.secret VALUES (2, 2)").await.unwrap();
    server.exec("INSERT INTO shop.a VALUES (2)").await.unwrap();
    node.until("the other table flows", || async {
        node.changes("shop").last().is_some_and(|change| change["after"]["id"] == 2)
    })
    .await;
    assert!(node.changes("shop").iter().all(|change| change["table"] == "a"));
    let (_, out, _) = node.run(&["status"]);
    assert!(out.contains("shop.secret is quarantined") && out.contains("hint:"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_get_nothing_from_the_port() {
    let mut node = Node::new(&[]);
    node.start();
    node.until("the node answers", || async { node.status() != Value::Null }).await;
    let mode = fs::metadata(node.path("data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else reads the journals");
    let url = format!("http://{}/api/v1/status", node.address());
    let client = reqwest::Client::new();
    let get = async |name: &str, value: &str| {
        client.get(&url).header(name, value).send().await.unwrap().status().as_u16()
    };
    assert_eq!(get("Accept", "*/*").await, 200);
    assert_eq!(get("Origin", "http://127.0.0.1:9999").await, 200);
    assert_eq!(get("Origin", "https://evil.example").await, 403);
    assert_eq!(get("Origin", "null").await, 403);
    assert_eq!(get("Host", "evil.example").await, 403);
    assert_eq!(get("Host", "localhost").await, 200);
    assert_eq!(get("Host", "[::1]:80").await, 200);
    node.write("tidemill.yaml", "name: test\nlisten: {http: \"0.0.0.0:7070\"}\n");
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("others can reach"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_changes_are_bounded_and_leave_their_place() {
    let mut node =
        Node::new(&[("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into())]);
    rusqlite::Connection::open(node.path("shop.db"))
        .unwrap()
        .execute_batch("CREATE TABLE a (id INTEGER PRIMARY KEY)")
        .unwrap();
    node.start();
    node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    let url = format!("http://{}/api/v1/sources/shop/changes?from=start&follow=true", node.address());
    let follow = async || reqwest::get(&url).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..64 {
        readers.push(follow().await);
    }
    assert!(readers.iter().all(|reader| reader.status() == 200));
    let refused = follow().await;
    assert_eq!(refused.status(), 429);
    assert!(refused.text().await.unwrap().contains("follow changes already"));
    drop(readers);
    node.until("a place is free again", || async { follow().await.status() == 200 }).await;
}
