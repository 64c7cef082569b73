//! A cluster of NATS of which a server dies, and servers that let in only whom they know.

use crate::kafka_tls::{authority, certificate};
use crate::node::{Node, PATIENCE, mysql_source, run_all, values};
use crate::subscribe::make_shop;
use async_nats::jetstream::{self, stream};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::path::Path;
use testkit::{MySql, MySqlOptions, Nats, NatsCluster, NatsOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_cluster_dies_and_every_change_is_stored_once() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let cluster = NatsCluster::start().await.unwrap();
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/bus.yaml", format!("kind: nats\nurl: {}\n", cluster.url())),
        ("flows/orders.yaml", "from: shop\nto: bus\noptions: {stream: ORDERS, replication: 3}\n".into()),
    ]);
    node.start();
    node.wait("the snapshot is delivered", |s| s["flows"][0]["lsn"] == 1000).await;
    let client = async_nats::connect(cluster.nodes()[0].url()).await.unwrap();
    let info = jetstream::new(client).get_stream("ORDERS").await.unwrap().get_info().await.unwrap();
    assert_eq!(info.config.num_replicas, 3);
    let leader = info.cluster.unwrap().leader.unwrap();
    let leader: usize = leader.strip_prefix("node").unwrap().parse().unwrap();
    for round in 0..10 {
        if round == 3 {
            cluster.nodes()[leader].kill9();
        }
        let rows = values(0..50, |n| format!("{}, 'later', {n}", 2000 + round * 50 + n));
        run_all(&server, &[&format!("INSERT INTO shop.orders {rows}")]).await;
    }
    node.wait("all is delivered", |s| s["flows"][0]["lsn"] == 1500 && s["flows"][0]["error"].is_null()).await;
    let left = cluster.nodes()[(leader + 1) % 3].url();
    let stream = jetstream::new(async_nats::connect(left).await.unwrap()).get_stream("ORDERS").await.unwrap();
    assert_eq!(lsns(&stream).await, (1..=1500).collect::<Vec<_>>());
    // Its end is found again, also by a node that starts while one is away.
    node.kill9();
    node.start();
    run_all(&server, &["INSERT INTO shop.orders VALUES (9000, 'last', 1)"]).await;
    node.wait("the last is delivered", |s| s["flows"][0]["lsn"] == 1501).await;
    assert_eq!(lsns(&stream).await.last(), Some(&1501));
}

/// The lsns of what a stream holds, in its order.
async fn lsns(stream: &stream::Stream) -> Vec<u64> {
    let state = tokio::time::timeout(PATIENCE, stream.get_info()).await.unwrap().unwrap().state;
    let mut out = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        out.push(message.headers.get("Tidemill-Lsn").unwrap().as_str().parse().unwrap());
    }
    out
}

/// Orders of a file go to the server that `sink` names.
fn project(sink: &str) -> Node {
    let node = Node::new(&[
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        ("sinks/bus.yaml", sink.to_owned()),
        ("flows/orders.yaml", "from: shop\nto: bus\noptions: {stream: ORDERS}\n".into()),
    ]);
    let db = rusqlite::Connection::open(node.path("shop.db")).unwrap();
    db.execute_batch(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO orders VALUES (1, 'a')",
    )
    .unwrap();
    node
}

/// What `check --connect` says; it must fail, and tell no secret.
fn refusal(node: &Node, secrets: &[&str]) -> String {
    let (code, out, err) = node.run(&["check", "--connect"]);
    let text = out + &err;
    assert!(code != 0 && secrets.iter().all(|secret| !text.contains(secret)), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (authority(), authority());
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (own, key) = certificate(&ours, 2100);
    let args = vec![
        "--tls".to_owned(),
        format!("--tlscert={}", file("server.pem", &own)),
        format!("--tlskey={}", file("server.key", &key)),
        format!("--tlscacert={}", file("ca.pem", &ours.pem())),
        "--tlsverify".to_owned(),
        "--user=alice".to_owned(),
        "--pass=r:ght".to_owned(),
    ];
    let nats = Nats::start(NatsOptions { args }).await.unwrap();
    let url = format!("kind: nats\nurl: tls://alice:${{env:PASSWORD}}@127.0.0.1:{}\n", nats.port());
    let mut node = project(&url);
    node.env(&[("PASSWORD", "r:ght")]);
    let (own, key) = certificate(&ours, 2100);
    node.write("ca.pem", &ours.pem());
    node.write("other.pem", &other.pem());
    node.write("own.pem", &own);
    node.write("own.key", &key);
    let mutual = format!("{url}tls_ca: ./ca.pem\ntls_cert: ./own.pem\ntls_key: ./own.key\n");
    // Nobody's authority, another's, no certificate of ours, and the wrong password.
    for (sink, hint) in [
        (url.clone(), "tls_ca"),
        (mutual.replace("./ca.pem", "./other.pem"), "tls_ca"),
        (format!("{url}tls_ca: ./ca.pem\n"), "tls_cert"),
        (mutual.replace("${env:PASSWORD}", "wr0ng"), "password"),
    ] {
        node.write("sinks/bus.yaml", &sink);
        let told = refusal(&node, &["r:ght", "r%3Aght", "wr0ng"]);
        assert!(told.contains(hint), "{sink}\n{told}");
    }
    node.write("sinks/bus.yaml", &mutual);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
    node.start();
    node.wait("it is delivered", |s| s["flows"][0]["lsn"] == 1).await;
}

/// A token as `nsc` makes them.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"jti": "", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats});
    let text = format!("{}.{}", part(json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(claims));
    let signature = issuer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// A server's file: an operator, an account with JetStream, and the system's.
fn operator(path: &Path, account: &KeyPair) {
    let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
    let mut limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1});
    let of = |own: &KeyPair, limits: &Value| {
        jwt(&operator, own, json!({"limits": limits, "type": "account", "version": 2}))
    };
    let system_jwt = of(&system, &limits);
    for name in ["mem_storage", "disk_storage", "streams", "consumer"] {
        limits[name] = (-1).into();
    }
    let text = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}: {system_jwt}\n{}: {}\n}}\n",
        jwt(&operator, &operator, json!({"type": "operator", "version": 2})),
        system.public_key(),
        system.public_key(),
        account.public_key(),
        of(account, &limits),
    );
    std::fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_or_a_credentials_file_lets_in() {
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str| folder.path().join(name);
    let start = async |path: &Path| {
        Nats::start(NatsOptions { args: vec![format!("--config={}", path.display())] }).await.unwrap()
    };
    let (user, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let (seed, strange) = (user.seed().unwrap(), stranger.seed().unwrap());
    let known = format!("authorization {{ users: [ {{nkey: {}}} ] }}\n", user.public_key());
    std::fs::write(config("keys.conf"), known).unwrap();
    let nats = start(&config("keys.conf")).await;
    let sink = |nats: &Nats, rest: &str| format!("kind: nats\nurl: {}\n{rest}\n", nats.url());
    let mut node = project(&sink(&nats, "nkey: ${env:STRANGE}"));
    node.env(&[("SEED", &seed), ("STRANGE", &strange)]);
    assert!(refusal(&node, &[&seed, &strange]).contains("nkey"));
    node.write("sinks/bus.yaml", &sink(&nats, "nkey: ${env:SEED}"));
    node.start();
    node.wait("it is delivered", |s| s["flows"][0]["lsn"] == 1).await;
    node.stop();

    let account = KeyPair::new_account();
    operator(&config("operator.conf"), &account);
    let nats = start(&config("operator.conf")).await;
    let limits =
        json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2});
    let creds = |issuer: &KeyPair| {
        let token = jwt(issuer, &user, limits.clone());
        format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    };
    let mut node = project(&sink(&nats, "credentials: ./user.creds"));
    assert!(refusal(&node, &[&seed]).contains("user.creds"));
    node.write("user.creds", &creds(&KeyPair::new_account()));
    assert!(refusal(&node, &[&seed]).contains("credentials"));
    node.write("user.creds", &creds(&account));
    node.start();
    node.wait("it is delivered", |s| s["flows"][0]["lsn"] == 1).await;
}
