//! Webhooks: a receiver that is away, slow, full or picky loses nothing, sees no change before an earlier one, and can
//! tell a repeat by its id.

use crate::node::Node;
use crate::random::Rng;
use flow::webhook;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use testkit::{Fault, FaultProxy, Received, Reply, Webhook};

const SECRETS: [&str; 2] =
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="];

fn shop(node: &Node) -> Connection {
    let shop = Connection::open(node.path("shop.db")).unwrap();
    shop.busy_timeout(Duration::from_secs(20)).unwrap();
    shop.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT);")
        .unwrap();
    shop
}

fn project(address: std::net::SocketAddr, sink: &str, options: &str) -> Node {
    let mut node = Node::new(&[
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        ("sinks/hook.yaml", format!("kind: http\nurl: http://{address}/in/${{env:HOOK_TOKEN}}?v=1\n{sink}")),
        ("flows/hook.yaml", format!("from: shop\nto: hook\noptions: {{{options}}}\n")),
    ]);
    node.env(&[("HOOK_TOKEN", "to/ken"), ("HOOK_SECRET", SECRETS[0]), ("HOOK_BEARER", "be+arer")]);
    node
}

fn changes(request: &Received) -> Vec<Value> {
    serde_json::from_slice(&request.body).unwrap()
}

fn lsns(request: &Received) -> Vec<u64> {
    changes(request).iter().map(|change| change["lsn"].as_u64().unwrap()).collect()
}

/// What a receiver has that drops requests whose id it has accepted.
fn accepted(requests: &[Received]) -> Vec<u64> {
    let mut seen = HashMap::new();
    let mut out = Vec::new();
    for request in requests.iter().filter(|request| request.status / 100 == 2) {
        let id = request.header("webhook-id").to_owned();
        assert_eq!(request.header("idempotency-key"), id);
        match seen.insert(id, request.body.clone()) {
            None => out.extend(lsns(request)),
            Some(body) => assert_eq!(body, request.body, "one id, one body"),
        }
    }
    out
}

async fn delivered(node: &Node, lsn: u64) {
    node.wait("all is delivered", |s| {
        s["flows"][0]["lsn"].as_u64() >= Some(lsn) && s["flows"][0]["lag_changes"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_arrives_once_for_a_receiver_that_knows_ids_whatever_is_killed_or_cut() {
    let seed = 20_261_127;
    println!("seed {seed}");
    let hook = Webhook::start().await.unwrap();
    let network = FaultProxy::start(hook.addr()).await.unwrap();
    let mut node = project(network.addr(), "timeout: 1s\n", "batch_rows: 7");
    let db = shop(&node);
    let mut rng = Rng::new(seed);
    let mut fate = Rng::new(seed ^ 0x5eed);
    hook.answer(move |_| match fate.below(12) {
        0 => Reply::Status(500, &[], "out of order"),
        1 => Reply::Status(429, &[("retry-after", "0")], ""),
        2 => Reply::Never,
        3 => Reply::Unsaid(200),
        _ => Reply::Status(200, &[], "{\"ok\": true}"),
    });
    node.start();
    node.wait("up", |s| s["sources"][0]["state"] == "stream").await;
    let mut written = 0;
    for round in 0..8 {
        let before = hook.requests().len();
        for _ in 0..30 {
            db.execute("INSERT INTO orders VALUES (?1, 'n')", [written]).unwrap();
            written += 1;
            if rng.below(4) == 0 {
                db.execute("UPDATE orders SET note = note || ?1 WHERE id = ?2", [round, written - 1])
                    .unwrap();
            }
        }
        // In the middle of the flow.
        node.until("requests come", || async { hook.requests().len() > before }).await;
        match round % 4 {
            0 => node.kill9(),
            1 => network.set(Fault::Unanswered).await,
            2 => network.set(Fault::HalfOpen).await,
            _ => network.set(Fault::Cut).await,
        }
        if round % 4 == 0 {
            node.start();
        } else {
            let told = |s: &Value| !s["flows"][0]["error"].is_null() || s["flows"][0]["lag_changes"] == 0;
            node.wait("the fault is felt", told).await;
            network.set(Fault::Pass).await;
        }
    }
    hook.answer(|_| Reply::Status(200, &[], ""));
    let last = node.changes("shop").len() as u64;
    delivered(&node, last).await;
    let last = node.changes("shop").len() as u64;
    delivered(&node, last).await;
    let requests = hook.requests();
    assert_eq!(accepted(&requests), (1..=last).collect::<Vec<_>>());
    let repeats = requests.len() - requests.iter().filter(|r| r.status == 200).count();
    assert!(repeats > 0, "something went wrong on the way");
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_arrived_is_sent_again_as_it_was_and_not_with_what_came_since() {
    for killed in [false, true] {
        let hook = Webhook::start().await.unwrap();
        let mut node = project(hook.addr(), "timeout: 1s\n", "");
        let db = shop(&node);
        node.start();
        node.wait("up", |s| s["sources"][0]["state"] == "stream").await;
        hook.answer(|_| Reply::Unsaid(200));
        db.execute("INSERT INTO orders VALUES (1, 'n')", []).unwrap();
        node.until("it is taken", || async { !hook.requests().is_empty() }).await;
        db.execute_batch("INSERT INTO orders VALUES (2, 'n'); INSERT INTO orders VALUES (3, 'n')").unwrap();
        node.until("more is there", || async { node.changes("shop").len() == 3 }).await;
        if killed {
            node.kill9();
            node.start();
        }
        hook.answer(|_| Reply::Status(200, &[], ""));
        delivered(&node, 3).await;
        let requests = hook.requests();
        assert_eq!(accepted(&requests), [1, 2, 3]);
        assert!(requests.iter().filter(|request| lsns(request) == [1]).count() > 1, "it was repeated");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_signed_and_carry_the_headers_and_no_secret_is_told() {
    let hook = Webhook::start().await.unwrap();
    let sink = format!(
        "method: put\nheaders: {{authorization: \"Bearer ${{env:HOOK_BEARER}}\", x-team: shop}}\n\
         secrets: [\"${{env:HOOK_SECRET}}\", \"{}\"]\n",
        SECRETS[1]
    );
    let mut node = project(hook.addr(), &sink, "");
    let db = shop(&node);
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{err}");
    assert!(hook.requests().is_empty(), "a check sends nothing");
    node.start();
    db.execute("INSERT INTO orders VALUES (1, 'n')", []).unwrap();
    node.until("it comes", || async { hook.requests().iter().any(|r| r.body.starts_with(b"[{")) }).await;
    let request = hook.requests().pop().unwrap();
    assert_eq!((request.method.as_str(), request.uri.to_string()), ("PUT", "/in/to%2Fken?v=1".to_owned()));
    assert_eq!((request.header("authorization"), request.header("x-team")), ("Bearer be+arer", "shop"));
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(changes(&request)[0]["after"], json!({"id": 1, "note": "n"}));
    let (id, sent) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    let signatures: Vec<&str> = request.header("webhook-signature").split(' ').collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    for (secret, signature) in SECRETS.iter().zip(&signatures) {
        let key = webhook::Key::parse(&base::Secret::new(*secret)).unwrap();
        assert_eq!(webhook::verify(&[key], id, sent, signature, &request.body, now), Ok(()));
    }
    assert_eq!(signatures.len(), 2);
    // Whatever goes wrong, the log and the status do not tell.
    hook.answer(|_| Reply::Status(401, &[], "who are you?"));
    db.execute("INSERT INTO orders VALUES (2, 'n')", []).unwrap();
    let status = node.wait("it is told", |s| s["flows"][0]["state"] == "failed").await;
    let error = &status["flows"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains("401: who are you?"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("secrets"), "{error}");
    let told = format!("{status}{}", std::fs::read_to_string(node.path("tidemill.log")).unwrap());
    for secret in ["whsec", "be+arer", "to%2Fken", "to/ken"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    hook.answer(|_| Reply::Status(202, &[], ""));
    delivered(&node, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_refused_is_parked_with_the_receivers_reason_and_the_others_go_on() {
    let hook = Webhook::start().await.unwrap();
    let picky = |request: &Received| {
        let text = String::from_utf8_lossy(&request.body);
        if text.contains("poison") {
            Reply::Status(422, &[], "{\"error\": \"note: \\\"no poison here\\\"\"}")
        } else if request.body.len() > 20_000 {
            Reply::Status(413, &[], "too large")
        } else {
            Reply::Status(200, &[], "")
        }
    };
    hook.answer(picky);
    let mut node = project(hook.addr(), "", "");
    let db = shop(&node);
    let large = "x".repeat(30_000);
    db.execute_batch("BEGIN").unwrap();
    for id in 1..=60 {
        let note = match id {
            13 | 14 | 59 => "poison",
            30 => &large,
            _ => "fine",
        };
        db.execute("INSERT INTO orders VALUES (?1, ?2)", rusqlite::params![id, note]).unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
    node.start();
    let status = node.wait("four are parked", |s| s["flows"][0]["dead_letters"] == 4).await;
    assert_ne!(status["flows"][0]["state"], "failed", "{status}");
    let (code, out, err) = node.run(&["flow", "dead-letters", "hook", "--json"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("422") && out.contains("no poison here") && out.contains("413: too large"), "{out}");
    // A later change of a parked row waits behind it.
    db.execute("UPDATE orders SET note = 'mended' WHERE id = 13", []).unwrap();
    db.execute("INSERT INTO orders VALUES (61, 'last')", []).unwrap();
    node.wait("five are parked", |s| s["flows"][0]["dead_letters"] == 5 && s["flows"][0]["lag_changes"] == 0)
        .await;
    let ids = |requests: &[Received]| {
        let taken = requests.iter().filter(|r| r.status == 200).flat_map(changes);
        taken.map(|change| change["after"]["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let wanted: Vec<u64> = (1..=61).filter(|id| ![13, 14, 30, 59].contains(id)).collect();
    assert_eq!(ids(&hook.requests()), wanted, "in order, and each once");
    hook.answer(|_| Reply::Status(200, &[], ""));
    let (code, out, err) = node.run(&["flow", "retry", "hook"]);
    assert_eq!(code, 0, "{out}{err}");
    let late = ids(&hook.requests()).split_off(wanted.len());
    assert_eq!(late, [13, 14, 30, 59, 13]);
    assert_eq!(node.status()["flows"][0]["dead_letters"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone_stops_the_flow_with_a_hint_and_formats_are_what_receivers_expect() {
    for (status, hint) in [(302, "redirects"), (404, "nobody receives"), (415, "format")] {
        let hook = Webhook::start().await.unwrap();
        hook.answer(move |_| Reply::Status(status, &[("location", "http://127.0.0.1:9/")], ""));
        let mut node = project(hook.addr(), "", "format: cloudevents");
        let db = shop(&node);
        db.execute("INSERT INTO orders VALUES (1, 'n')", []).unwrap();
        node.start();
        let seen = node.wait("it is told", |s| s["flows"][0]["state"] == "failed").await;
        assert!(seen["flows"][0]["error"]["hint"].as_str().unwrap().contains(hint), "{seen}");
        hook.answer(|_| Reply::Status(200, &[], ""));
        // The resume of a flow that is not paused makes it look again.
        node.run(&["flow", "resume", "hook"]);
        delivered(&node, 1).await;
        let request = hook.requests().pop().unwrap();
        assert_eq!(request.header("content-type"), "application/cloudevents-batch+json");
        assert_eq!(changes(&request)[0]["specversion"], "1.0");
    }
    for (format, member) in [("debezium", "op"), ("maxwell", "database"), ("canal", "isDdl")] {
        let hook = Webhook::start().await.unwrap();
        let mut node = project(hook.addr(), "", &format!("format: {format}"));
        let db = shop(&node);
        node.start();
        node.wait("up", |s| s["sources"][0]["state"] == "stream").await;
        db.execute("INSERT INTO orders VALUES (1, 'n')", []).unwrap();
        db.execute("DELETE FROM orders WHERE id = 1", []).unwrap();
        delivered(&node, 2).await;
        let all: Vec<Value> = hook.requests().iter().flat_map(changes).collect();
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all.iter().all(|change| !change[member].is_null()), "{all:?}");
    }
}

#[test]
fn mistakes_in_the_file_are_told_with_their_place_and_without_secrets() {
    let address = "127.0.0.1:9".parse().unwrap();
    for (sink, message) in [
        ("headers: {\"no way\": x}\n", "`no way` is not a header's name"),
        ("headers: {Webhook-Id: x}\n", "set by Tidemill itself"),
        ("headers: {x-a: \"${env:HOOK_NOT_THERE}\"}\n", "the environment has no `HOOK_NOT_THERE`"),
        ("secrets: [\"${env:HOOK_BEARER}\"]\n", "begins with `whsec_`"),
        ("timeout: 10ms\n", "`timeout` is not between"),
    ] {
        let (code, out, err) = project(address, sink, "").run(&["check"]);
        assert_eq!(code, 2, "{out}{err}");
        let told = format!("{out}{err}");
        assert!(told.contains(message) && told.contains("sinks/hook.yaml:"), "{told}");
        assert!(!told.contains("be+arer"), "{told}");
    }
    let node = Node::new(&[
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        ("sinks/hook.yaml", "kind: stdout\nmethod: put\n".into()),
        ("flows/hook.yaml", "from: shop\nto: hook\n".into()),
    ]);
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("`method` means nothing"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_behind_tls_is_verified() {
    let hook = Webhook::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (ca, cert, key) = crate::access::make_certificate(folder.path(), "localhost");
    let port = crate::elasticsearch_faults::tls_before(hook.addr().to_string(), &cert, &key).await;
    let mut node = project(hook.addr(), "", "");
    let url = |host: &str| format!("kind: http\nurl: https://{host}:{port}/in/${{env:HOOK_TOKEN}}\n");
    node.write("sinks/hook.yaml", &url("localhost"));
    shop(&node).execute_batch("INSERT INTO orders VALUES (1, 'a')").unwrap();
    let told = |node: &Node| {
        let (code, out, err) = node.run(&["check", "--connect"]);
        (code, out + &err)
    };
    let (code, text) = told(&node);
    assert!(code != 0 && text.contains("TLS with localhost") && text.contains("SSL_CERT_FILE"), "{text}");
    node.start();
    let status = node.wait("it is told", |s| s["flows"][0]["state"] == "failed").await;
    let error = &status["flows"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains("certificate"), "{error}");
    assert!(hook.requests().is_empty());
    node.stop();
    node.env(&[("SSL_CERT_FILE", &ca.display().to_string())]);
    node.write("sinks/hook.yaml", &url("127.0.0.1"));
    let (code, text) = told(&node);
    assert!(code != 0 && text.contains("as the certificate names it"), "{text}");
    node.write("sinks/hook.yaml", &url("localhost"));
    let (code, text) = told(&node);
    assert_eq!(code, 0, "{text}");
    node.start();
    delivered(&node, 1).await;
    assert_eq!(accepted(&hook.requests()), [1]);
    let log = node.log() + &node.status().to_string() + &status.to_string() + &text;
    assert!(!log.contains("to/ken"), "{log}");
}
