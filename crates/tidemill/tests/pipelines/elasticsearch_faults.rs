//! What stands between a flow and its index: kills, cuts, a server that is full, read-only, emptied, or does not let us in.

use crate::elasticsearch::{ask, becomes, documents, error_of, indexes, must, order, run, settled, shop};
use crate::node::{Node, mysql_source, run_all, write_orders};
use crate::random::Rng;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use testkit::{Fault, FaultProxy, MySql, MySqlOptions, OpenSearch, OpenSearchOptions};

/// Breaks in one story.
const BREAKS: u64 = 8;

/// A gateway before a server, which refuses as it is told and passes everything else on.
struct Gate {
    upstream: String,
    /// So many `_bulk` requests are answered 429 as a whole.
    full: AtomicUsize,
    /// Of so many `_bulk` requests all documents but the first are answered 429.
    tight: AtomicUsize,
    /// The only `Authorization` that is let in, unless it is empty.
    login: Mutex<String>,
    /// Any request is answered with this status, unless it is 0.
    status: AtomicU16,
    /// Documents in each `_bulk` request that came.
    seen: Mutex<Vec<usize>>,
}

impl Gate {
    async fn before(server: &OpenSearch) -> (Arc<Gate>, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let gate = Arc::new(Gate {
            upstream: server.url(),
            full: AtomicUsize::new(0),
            tight: AtomicUsize::new(0),
            login: Mutex::new(String::new()),
            status: AtomicU16::new(0),
            seen: Mutex::new(Vec::new()),
        });
        let app = axum::Router::new().fallback(pass).with_state(Arc::clone(&gate));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (gate, url)
    }

    async fn forward(
        &self,
        method: reqwest::Method,
        path: &str,
        kind: Option<String>,
        body: Vec<u8>,
    ) -> Response {
        let mut request =
            reqwest::Client::new().request(method, format!("{}{path}", self.upstream)).body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        (status, [("content-type", "application/json")], answer.bytes().await.unwrap()).into_response()
    }
}

fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.to_string();
    let kind = parts.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let method = reqwest::Method::from_bytes(parts.method.as_str().as_bytes()).unwrap();
    let full =
        r#"{"error":{"type":"es_rejected_execution_exception","reason":"the queue is full"},"status":429}"#;
    let login = gate.login.lock().unwrap().clone();
    let given = parts.headers.get("authorization").map_or("", |given| given.to_str().unwrap());
    let status = match gate.status.load(Ordering::SeqCst) {
        0 if !login.is_empty() && login != given => 401,
        status => status,
    };
    if status > 0 {
        return (axum::http::StatusCode::from_u16(status).unwrap(), "no").into_response();
    }
    if !path.starts_with("/_bulk") {
        return gate.forward(method, &path, kind, body.to_vec()).await;
    }
    let text = String::from_utf8(body.to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let actions = lines.iter().filter(|line| line.contains("\"version_type\":\"external\"")).count();
    gate.seen.lock().unwrap().push(actions);
    if take_one(&gate.full) {
        return (axum::http::StatusCode::TOO_MANY_REQUESTS, full).into_response();
    }
    if actions < 2 || !take_one(&gate.tight) {
        return gate.forward(method, &path, kind, body.to_vec()).await;
    }
    // These requests only index: two lines a document.
    let first = format!("{}\n{}\n", lines[0], lines[1]);
    let answer = gate.forward(method, &path, kind, first.into_bytes()).await;
    let answer = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    let refused = json!({"index": {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "full"}}});
    answer["errors"] = json!(true);
    answer["items"].as_array_mut().unwrap().extend(vec![refused; actions - 1]);
    answer.to_string().into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_server_refuses_is_sent_again_and_nothing_else() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let (gate, url) = Gate::before(&search).await;
    let mut node = shop(&url, "index: orders");
    let rows: Vec<String> = (1..=50).map(|id| format!("({id}, 'n', NULL)")).collect();
    run(&node, &format!("INSERT INTO orders VALUES {}", rows.join(",")));
    gate.full.store(2, Ordering::SeqCst);
    gate.tight.store(2, Ordering::SeqCst);
    node.start();
    let wanted: Vec<_> = (1..=50).map(|id| order(id, "n")).collect();
    becomes(&node, &search, "orders", &wanted).await;
    assert_eq!(*gate.seen.lock().unwrap(), [50, 50, 50, 49, 48]);
    // For longer than one write is tried: the flow says so, backs off, and needs no restart.
    settled(&node).await;
    gate.full.store(usize::MAX, Ordering::SeqCst);
    run(&node, "INSERT INTO orders VALUES (51, 'n', NULL)");
    let status = node.wait("the full server is told", |s| error_of(s).contains("the queue is full")).await;
    assert_eq!(status["flows"][0]["dead_letters"], 0, "{status:#}");
    gate.full.store(0, Ordering::SeqCst);
    becomes(&node, &search, "orders", &[wanted, vec![order(51, "n")]].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_let_us_in_stops_the_flow_with_a_hint() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let (gate, url) = Gate::before(&search).await;
    let url = url.replace("http://", "http://user:pass-word@");
    let mut node = shop(&url, "index: orders");
    gate.status.store(401, Ordering::SeqCst);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert!(code != 0 && format!("{out}{err}").contains("the password is wrong"), "{out}{err}");
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    node.start();
    let status = node.wait("the flow stops", |s| s["flows"][0]["state"] == "failed").await;
    assert!(error_of(&status).contains("SEARCH_PASSWORD"), "{status:#}");
    gate.status.store(403, Ordering::SeqCst);
    let (_, _, _) = node.run(&["flow", "resume", "a"]);
    let status = node.wait("the missing right is told", |s| error_of(s).contains("create_index")).await;
    assert!(!status.to_string().contains("pass-word") && !node.log().contains("pass-word"));
    gate.status.store(0, Ordering::SeqCst);
    becomes(&node, &search, "orders", &[order(1, "a")]).await;
}

/// Ends TLS before a plain address, with this certificate and key.
pub async fn tls_before(upstream: String, cert: &Path, key: &Path) -> u16 {
    tls_for(upstream, (cert, key), None).await
}

/// The same; where `clients` is the file of an authority, only for those who have a certificate of it.
pub async fn tls_for(upstream: String, (cert, key): (&Path, &Path), clients: Option<&Path>) -> u16 {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::server::WebPkiClientVerifier;
    use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};
    let provider = Arc::new(ring::default_provider());
    let verifier = clients.map(|file| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap()
    });
    let certificate = CertificateDer::from_pem_file(cert).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
            tokio::spawn(async move {
                let mut plain = tokio::net::TcpStream::connect(upstream).await?;
                let mut tls = acceptor.accept(stream).await?;
                tokio::io::copy_bidirectional(&mut tls, &mut plain).await
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_used_the_certificate_verified_and_the_login_sent() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let (gate, url) = Gate::before(&search).await;
    // tide: p@ss/w:rd
    "Basic dGlkZTpwQHNzL3c6cmQ=".clone_into(&mut gate.login.lock().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (ca, cert, key) = crate::access::make_certificate(folder.path(), "localhost");
    let port = tls_before(url.replace("http://", ""), &cert, &key).await;
    let mut node = shop(&format!("https://tide:${{env:SEARCH_PASSWORD}}@localhost:{port}"), "index: orders");
    node.env(&[("SEARCH_PASSWORD", "p@ss/w:rd")]);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert!(code != 0 && format!("{out}{err}").contains("certificate"), "an unknown authority: {out}{err}");
    node.env(&[("SSL_CERT_FILE", &ca.display().to_string())]);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    node.start();
    becomes(&node, &search, "orders", &[order(1, "a")]).await;
    let log = node.log() + &node.status().to_string();
    assert!(!log.contains("p@ss") && !log.contains("p%40ss") && !log.contains("dGlkZTpwQHNz"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_holds_up_its_own_flow_only() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let mut node = shop(&search.url(), "index: orders");
    node.write("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n");
    node.write("flows/b.yaml", "from: shop\nto: file\n");
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    node.start();
    becomes(&node, &search, "orders", &[order(1, "a")]).await;
    settled(&node).await;
    search.pause();
    run(&node, "UPDATE orders SET note = 'b' WHERE id = 1");
    let status = node
        .wait("the other flow goes on", |s| {
            s["flows"][1]["lsn"] == s["sources"][0]["lsn"] && s["sources"][0]["lsn"] != 1
        })
        .await;
    assert_ne!(status["flows"][0]["lsn"], status["sources"][0]["lsn"]);
    search.resume();
    becomes(&node, &search, "orders", &[order(1, "b")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_document_is_parked_with_the_servers_reason_and_redriven() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let mut node =
        shop(&search.url(), "index: orders, mappings: {note: {type: date, format: \"yyyy-MM-dd\"}}");
    run(
        &node,
        "INSERT INTO orders VALUES (1, '2026-01-01', NULL), (2, 'rubbish', NULL), (3, '2026-01-03', NULL), (4, 'more', NULL)",
    );
    node.start();
    let good = [order(1, "2026-01-01"), order(3, "2026-01-03")];
    becomes(&node, &search, "orders", &good).await;
    // A later change of a parked row waits behind it, and other rows go on.
    run(
        &node,
        "UPDATE orders SET note = '2026-02-02' WHERE id = 2; INSERT INTO orders VALUES (5, '2026-01-05', NULL)",
    );
    becomes(&node, &search, "orders", &[good.to_vec(), vec![order(5, "2026-01-05")]].concat()).await;
    node.wait("three changes are parked", |s| s["flows"][0]["dead_letters"] == 3).await;
    let (_, letters, _) = node.run(&["flow", "dead-letters", "a"]);
    assert!(letters.contains("mapper_parsing_exception") && letters.contains("note"), "{letters}");
    let (_, again, _) = node.run(&["flow", "retry", "a"]);
    assert!(again.contains("3 still parked"), "{again}");

    // The mapping is mended: what is there keeps the old one until it is read anew into a new index.
    node.stop();
    node.write("flows/a.yaml", "from: shop\nto: search\noptions: {index: orders}\n");
    node.start();
    settled(&node).await;
    let (code, out, err) = node.run(&["flow", "resnapshot", "a"]);
    assert_eq!(code, 0, "{out}{err}");
    let all = [order(1, "2026-01-01"), order(2, "2026-02-02"), order(3, "2026-01-03"), order(4, "more")];
    becomes(&node, &search, "orders", &[all.to_vec(), vec![order(5, "2026-01-05")]].concat()).await;
    node.wait("nothing is parked", |s| s["flows"][0]["dead_letters"] == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_document_goes_through_once_the_server_takes_it() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let mut node =
        shop(&search.url(), "index: orders, mappings: {note: {type: integer, ignore_malformed: false}}");
    node.start();
    run(&node, "INSERT INTO orders VALUES (1, '1', NULL), (2, 'two', NULL)");
    node.wait("one is parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    becomes(&node, &search, "orders", &[order(1, "1")]).await;
    run(&node, "UPDATE orders SET city = 'Rome' WHERE id = 2");
    node.wait("its next change waits", |s| s["flows"][0]["dead_letters"] == 2).await;
    let mended = json!({"properties": {"note": {"type": "integer", "ignore_malformed": true}}});
    must(&search, "PUT", "/orders/_mapping", mended).await;
    let (_, out, err) = node.run(&["flow", "retry", "a"]);
    assert!(out.contains("2 delivered, 0 still parked"), "{out}{err}");
    let two = ("2".to_owned(), json!({"id": 2, "note": "two", "city": "Rome"}));
    becomes(&node, &search, "orders", &[order(1, "1"), two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_index_stops_the_flow_until_it_takes_writes_again() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let mut node = shop(&search.url(), "index: orders");
    node.start();
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    becomes(&node, &search, "orders", &[order(1, "a")]).await;
    let block = |on: Value| json!({"index.blocks.read_only_allow_delete": on});
    must(&search, "PUT", "/orders/_settings", block(json!(true))).await;
    run(&node, "UPDATE orders SET note = 'b' WHERE id = 1");
    let status = node.wait("the block is told", |s| s["flows"][0]["state"] == "failed").await;
    assert!(error_of(&status).contains("read_only_allow_delete"), "{status:#}");
    assert_eq!(status["flows"][0]["dead_letters"], 0);
    must(&search, "PUT", "/orders/_settings", block(Value::Null)).await;
    let (code, out, err) = node.run(&["flow", "resume", "a"]);
    assert_eq!(code, 0, "{out}{err}");
    becomes(&node, &search, "orders", &[order(1, "b")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_deleted_is_missed_and_filled_again() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let mut node = shop(&search.url(), "index: orders");
    node.start();
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', NULL)");
    becomes(&node, &search, "orders", &[order(1, "a"), order(2, "b")]).await;
    settled(&node).await;
    must(&search, "DELETE", "/orders-000001", Value::Null).await;
    // Also while nothing is written.
    let status = node.wait("the loss is told", |s| s["flows"][0]["state"] == "failed").await;
    assert!(error_of(&status).contains("flow resnapshot a"), "{status:#}");
    run(&node, "INSERT INTO orders VALUES (3, 'c', NULL)");
    let (code, out, err) = node.run(&["flow", "resnapshot", "a"]);
    assert_eq!(code, 0, "{out}{err}");
    let all = [order(1, "a"), order(2, "b"), order(3, "c")];
    becomes(&node, &search, "orders", &all).await;
    // Everything, with the progress: as a server with an empty disk.
    settled(&node).await;
    must(&search, "DELETE", "/orders-*,tidemill_progress", Value::Null).await;
    node.wait("the loss is told", |s| error_of(s).contains("the sink was emptied")).await;
    let (code, out, err) = node.run(&["flow", "resnapshot", "a"]);
    assert_eq!(code, 0, "{out}{err}");
    becomes(&node, &search, "orders", &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_never_overwrite_new_ones_whatever_the_progress_says() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let mut node = shop(&search.url(), "index: orders");
    node.start();
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', NULL), (3, 'c', NULL)");
    becomes(&node, &search, "orders", &[order(1, "a"), order(2, "b"), order(3, "c")]).await;
    let early = must(&search, "GET", "/tidemill_progress/_doc/a", Value::Null).await["_source"].clone();
    run(
        &node,
        "UPDATE orders SET note = 'new' WHERE id = 1; DELETE FROM orders WHERE id = 2; UPDATE orders SET id = 30 WHERE id = 3",
    );
    let end = [order(1, "new"), order(30, "c")];
    becomes(&node, &search, "orders", &end).await;
    settled(&node).await;
    node.stop();
    let versions = |answer: &Value| {
        let hits = answer["hits"]["hits"].as_array().unwrap();
        let mut out: Vec<(String, u64)> =
            hits.iter().map(|hit| (hit["_id"].to_string(), hit["_version"].as_u64().unwrap())).collect();
        out.sort();
        out
    };
    let look = "/orders/_search?version=true";
    let before = versions(&must(&search, "POST", look, Value::Null).await);
    // The progress of before: all is written again, and changes nothing, not even for a moment.
    must(&search, "PUT", "/tidemill_progress/_doc/a", early.clone()).await;
    node.start();
    settled(&node).await;
    assert_eq!(versions(&must(&search, "POST", look, Value::Null).await), before);
    becomes(&node, &search, "orders", &end).await;
    // A late write of a dead process, with the version of the first insert of the row that was deleted.
    let late = "/orders-000001/_doc/2?version=3&version_type=external";
    assert_eq!(ask(&search, "PUT", late, json!({"id": 2})).await.0, 409);
    // Two processes of one flow: the one whose progress was moved notices.
    must(&search, "PUT", "/tidemill_progress/_doc/a", early).await;
    node.until("the other process is noticed", || async {
        ["another process wrote it", "taken away or moved"].iter().any(|told| node.log().contains(told))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_journal_fills_new_indexes_above_all_old_versions() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let mut node = shop(&search.url(), "index: orders");
    node.start();
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', NULL)");
    for round in 0..5 {
        run(&node, &format!("UPDATE orders SET note = '{round}' WHERE id = 1"));
    }
    becomes(&node, &search, "orders", &[order(1, "4"), order(2, "b")]).await;
    settled(&node).await;
    node.stop();
    std::fs::remove_dir_all(node.path("data")).unwrap();
    run(&node, "DELETE FROM orders WHERE id = 2");
    node.start();
    node.wait("the other journal is told", |s| error_of(s).contains("another journal")).await;
    assert_eq!(documents(&search, "orders").await.len(), 2, "searchers have what they had");
    let (code, out, err) = node.run(&["flow", "resnapshot", "a"]);
    assert_eq!(code, 0, "{out}{err}");
    becomes(&node, &search, "orders", &[order(1, "4")]).await;
    run(&node, "UPDATE orders SET note = 'newest' WHERE id = 1");
    becomes(&node, &search, "orders", &[order(1, "newest")]).await;
    node.until("the old index is gone", || async { indexes(&search).await.len() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_too_large_are_halved_and_a_document_alone_is_parked() {
    let settings = vec!["http.max_content_length=1mb".to_owned()];
    let search =
        OpenSearch::start(OpenSearchOptions { settings, ..OpenSearchOptions::default() }).await.unwrap();
    let mut node = shop(&search.url(), "index: orders");
    node.start();
    run(
        &node,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12)
         INSERT INTO orders SELECT i, printf('%.*c', CASE i WHEN 7 THEN 2000000 ELSE 300000 END, 'x'), NULL FROM n",
    );
    node.until("all but one are there", || async { documents(&search, "orders").await.len() == 11 }).await;
    node.wait("one is parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    let (_, letters, _) = node.run(&["flow", "dead-letters", "a"]);
    assert!(letters.contains("http.max_content_length"), "{letters}");
    run(&node, "UPDATE orders SET note = 'small' WHERE id = 8");
    node.until("others go on", || async {
        documents(&search, "orders").await.get("8").is_some_and(|row| row["note"] == "small")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_equals_the_source_after_kills_and_cuts() {
    let seed =
        std::env::var("TIDEMILL_TORMENT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_126);
    println!("seed {seed}");
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, amount DECIMAL(10,2) NOT NULL)",
    ],
    )
    .await;
    let values: Vec<String> = (0..2000).map(|id| format!("({id}, 'row {id}', {id}.25)")).collect();
    server.exec(&format!("INSERT INTO shop.orders VALUES {}", values.join(","))).await.unwrap();
    let network = FaultProxy::start(search.addr()).await.unwrap();
    let flow = |options: &str| format!("from: shop\nto: search\noptions: {{batch_rows: 100, {options}}}\n");
    let mut node = Node::new(&[
        (
            "sources/shop.yaml",
            mysql_source(&server.url(), "shop.*") + "options: {snapshot_chunk_rows: 300}\n",
        ),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: http://{}\n", network.addr())),
        ("flows/a.yaml", flow("index: orders")),
        ("flows/b.yaml", flow("index: shards, routing: \"{name}\", index_settings: {number_of_shards: 3}")),
    ]);
    node.start();
    let stop = AtomicBool::new(false);
    let mut rng = Rng::new(seed);
    let story = async {
        for round in 0..BREAKS {
            // A moment that depends on the seed, measured in answers of the server that is written to.
            for _ in 0..rng.below(60) + 5 {
                let _: u64 = server.query_one("SELECT COUNT(*) FROM shop.orders").await.unwrap();
            }
            match if round < 5 { round } else { rng.below(5) } {
                0 => {
                    node.kill9();
                    node.start();
                }
                1 => {
                    search.kill9();
                    search.restart().await.unwrap();
                }
                2 => {
                    // Of both flows: what follows breaks the filling of new indexes too.
                    let anew = ["flow", "resnapshot", "a"];
                    node.until("the tables are read anew", || async { node.run(&anew).0 == 0 }).await;
                }
                kind => {
                    network.set(if kind == 3 { Fault::Cut } else { Fault::Unanswered }).await;
                    for _ in 0..rng.below(20) + 1 {
                        let _: u64 = server.query_one("SELECT COUNT(*) FROM shop.orders").await.unwrap();
                    }
                    network.set(Fault::Pass).await;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(write_orders(&server, seed ^ 0x5eed, &stop), story);
    assert!(written > 20, "the writer wrote {written} statements");
    server.exec("REPLACE INTO shop.orders VALUES (99999, 'the end', 0)").await.unwrap();
    let rows: Vec<(u32, String, String)> =
        server.query("SELECT id, name, CAST(amount AS CHAR) FROM shop.orders").await.unwrap();
    let wanted: BTreeMap<String, Value> = rows
        .into_iter()
        .map(|(id, name, amount)| (id.to_string(), json!({"id": id, "name": name, "amount": amount})))
        .collect();
    for alias in ["orders", "shards"] {
        node.until("the end is there", || async { documents(&search, alias).await.contains_key("99999") })
            .await;
        let held = documents(&search, alias).await;
        let differing: Vec<_> =
            wanted.iter().filter(|(id, row)| held.get(*id) != Some(row)).take(5).collect();
        let extra: Vec<_> = held.keys().filter(|id| !wanted.contains_key(*id)).take(5).collect();
        assert!(differing.is_empty() && extra.is_empty(), "{alias}: {differing:?} {extra:?}");
    }
    node.until("nothing half-made is left", || async { indexes(&search).await.len() == 2 }).await;
    assert!(!indexes(&search).await.contains(&"orders-000001".to_owned()), "it was read anew");
    let status = node.status();
    assert!(status["flows"].as_array().unwrap().iter().all(|f| f["dead_letters"] == 0), "{status:#}");
}
