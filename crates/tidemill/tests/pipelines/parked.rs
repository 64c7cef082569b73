//! Refused rows: what happens to their table, their key and their node before they are tried again.

use crate::node::{Node, mysql_source, run_all};
use mysql_async::prelude::Queryable;
use serde_json::Value;
use std::time::Duration;
use testkit::{MySql, MySqlOptions, Nats, NatsOptions, SqlServer};

/// `shop.*` is copied to `copy.*`, whose tables were made with shorter columns.
async fn narrow(setup: &[&str]) -> (MySql, Node) {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &["CREATE DATABASE shop", "CREATE DATABASE copy"]).await;
    run_all(&server, setup).await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ]);
    node.start();
    node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    (server, node)
}

async fn rows(server: &SqlServer, table: &str) -> Vec<(i32, String)> {
    server.query(&format!("SELECT id, v FROM {table} ORDER BY id, v")).await.unwrap_or_default()
}

/// Waits until the flow has come to the journal's end.
async fn delivered(node: &Node, lsn: u64) -> Value {
    node.wait("all is delivered or parked", |s| s["flows"][0]["lsn"].as_u64() >= Some(lsn)).await
}

async fn retry(node: &Node) {
    node.until("nothing is parked any more", || async {
        node.run(&["flow", "retry", "to_db"]).1.contains("0 still parked")
    })
    .await;
}

const TABLES: [&str; 2] = [
    "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(40))",
    "CREATE TABLE copy.a (id INT PRIMARY KEY, v VARCHAR(5))",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_change_ends_with_the_rows_of_its_table() {
    let (server, node) = narrow(&TABLES).await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.a VALUES (1, 'much too long')",
            "TRUNCATE TABLE shop.a",
            "INSERT INTO shop.a VALUES (1, 'ok'), (2, 'fine')",
        ],
    )
    .await;
    let status = delivered(&node, 4).await;
    assert_eq!(status["flows"][0]["dead_letters"], 0, "{status:#}");
    assert_eq!(rows(&server, "copy.a").await, rows(&server, "shop.a").await);
    run_all(&server, &["INSERT INTO shop.a VALUES (3, 'much too long')"]).await;
    node.wait("parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    // Reading anew is the way out that the messages name: it must not wait behind what it replaces.
    run_all(&server, &["ALTER TABLE copy.a MODIFY v VARCHAR(40)"]).await;
    let (code, _, err) = node.run(&["flow", "resnapshot", "to_db"]);
    assert_eq!(code, 0, "{err}");
    node.until("the row is there", || async {
        rows(&server, "copy.a").await == rows(&server, "shop.a").await
    })
    .await;
    assert_eq!(node.status()["flows"][0]["dead_letters"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_change_of_a_key_holds_both_keys_also_over_a_restart() {
    let (server, mut node) = narrow(&TABLES).await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.a VALUES (2, 'two')",
            "UPDATE shop.a SET id = 5, v = 'much too long' WHERE id = 2",
        ],
    )
    .await;
    node.wait("parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    node.kill9();
    node.start();
    run_all(&server, &["INSERT INTO shop.a VALUES (2, 'new')", "INSERT INTO shop.a VALUES (9, 'last')"])
        .await;
    delivered(&node, 4).await;
    run_all(&server, &["ALTER TABLE copy.a MODIFY v VARCHAR(40)"]).await;
    retry(&node).await;
    assert_eq!(rows(&server, "copy.a").await, rows(&server, "shop.a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_row_without_a_key_is_deleted_after_it_came() {
    let (server, node) = narrow(&[
        "CREATE TABLE shop.a (id INT, v VARCHAR(40))",
        "CREATE TABLE copy.a (id INT, v VARCHAR(5))",
    ])
    .await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.a VALUES (1, 'much too long'), (2, 'fine')",
            "DELETE FROM shop.a WHERE id = 1",
            "INSERT INTO shop.a VALUES (3, 'last')",
        ],
    )
    .await;
    // The emptying of the table by its snapshot is change 1.
    node.until("the last row is there", || async { rows(&server, "copy.a").await.len() == 2 }).await;
    run_all(&server, &["ALTER TABLE copy.a MODIFY v VARCHAR(40)"]).await;
    retry(&node).await;
    assert_eq!(rows(&server, "copy.a").await, rows(&server, "shop.a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_change_does_not_set_a_log_back() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    run_all(&server, &["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(40))"])
        .await;
    let flow = |to: &str, times: &str| {
        format!("from: shop\nto: {to}\ntransform:\n  - set: {{n: \"id * {times}\"}}\n")
    };
    // Out of a BIGINT's range for 5.
    let large = "4611686018427387904";
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/lines.yaml", "kind: files\npath: ./lines\n".into()),
        ("sinks/events.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("flows/a_lines.yaml", flow("lines", large)),
        ("flows/b_events.yaml", flow("events", large)),
    ]);
    node.start();
    node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.a VALUES (1, '1')",
            "INSERT INTO shop.a VALUES (5, '5')",
            "INSERT INTO shop.a VALUES (0, '0')",
        ],
    )
    .await;
    let both = |s: &Value, what: &str, n: u64| (0..2).all(|i| s["flows"][i][what] == n);
    node.wait("one is parked", |s| both(s, "dead_letters", 1) && both(s, "lsn", 3)).await;
    node.kill9();
    node.write("flows/a_lines.yaml", &flow("lines", "2"));
    node.write("flows/b_events.yaml", &flow("events", "2"));
    node.start();
    node.wait("running", |s| both(s, "lsn", 3)).await;
    for flow in ["a_lines", "b_events"] {
        node.until("retry goes through", || async {
            node.run(&["flow", "retry", flow]).1.contains("0 still parked")
        })
        .await;
    }
    node.kill9();
    node.start();
    run_all(&server, &["INSERT INTO shop.a VALUES (-1, '4')"]).await;
    node.wait("the last is there", |s| both(s, "lsn", 4)).await;
    let lines = std::fs::read_dir(node.path("lines")).unwrap().map(|entry| entry.unwrap().path());
    let lines: String = lines.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let lsns = |texts: Vec<String>| -> Vec<Value> {
        texts
            .iter()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok())
            .filter_map(|v| v.get("lsn").cloned())
            .collect()
    };
    assert_eq!(lsns(lines.lines().map(str::to_owned).collect()), [1, 3, 2, 4]);
    let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = context.get_stream("TIDEMILL_B_EVENTS").await.unwrap();
    let last = stream.get_info().await.unwrap().state.last_sequence;
    let mut texts = Vec::new();
    for sequence in 1..=last {
        texts.push(
            String::from_utf8_lossy(&stream.get_raw_message(sequence).await.unwrap().payload).into_owned(),
        );
    }
    assert_eq!(lsns(texts), [1, 3, 2, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_changes_go_where_the_names_of_their_table_go() {
    let (server, mut node) = narrow(&[
        "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(40), old VARCHAR(9))",
        "CREATE TABLE copy.a (id INT PRIMARY KEY, v VARCHAR(5), old VARCHAR(9))",
    ])
    .await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.a VALUES (1, 'much too long', 'x'), (2, 'two', 'x')",
            "UPDATE shop.a SET id = 5, v = 'much too long' WHERE id = 2",
            "ALTER TABLE shop.a RENAME COLUMN id TO no, DROP COLUMN old",
        ],
    )
    .await;
    // Statement by statement: a capture that lags behind two of them reads the table anew.
    let there = async |sql: &str| server.query::<i32>(sql).await.is_ok();
    node.until("the column is renamed", || async { there("SELECT no FROM copy.a").await }).await;
    run_all(&server, &["RENAME TABLE shop.a TO shop.b"]).await;
    node.until("the table is renamed", || async { there("SELECT no FROM copy.b").await }).await;
    run_all(
        &server,
        &[
            "UPDATE shop.b SET v = 'later' WHERE no = 1",
            "INSERT INTO shop.b VALUES (2, 'again'), (9, 'last')",
        ],
    )
    .await;
    let end =
        async || -> Vec<i32> { server.query("SELECT no FROM copy.b ORDER BY no").await.unwrap_or_default() };
    node.until("the last row is there", || async { end().await.contains(&9) }).await;
    // What waits is told by the names of now.
    node.kill9();
    node.start();
    node.until("parked", || async {
        let (_, out, _) = node.run(&["flow", "dead-letters", "to_db", "--json"]);
        let letters: Vec<Value> = serde_json::from_str(&out).unwrap_or_default();
        let rows = letters.iter().map(|l| (l["table"].as_str(), l["key"]["no"].as_i64()));
        rows.eq([1, 5, 1, 2].map(|no| (Some("b"), Some(no))))
    })
    .await;
    node.wait("and counted", |s| s["flows"][0]["dead_letters"] == 4).await;
    run_all(&server, &["ALTER TABLE copy.b MODIFY v VARCHAR(40)"]).await;
    retry(&node).await;
    let all = async |table: &str| -> Vec<(i32, String)> {
        server.query(&format!("SELECT no, v FROM {table} ORDER BY no")).await.unwrap()
    };
    assert_eq!(all("copy.b").await, all("shop.b").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_change_that_the_filter_leaves_out_by_now_is_let_go() {
    let (server, mut node) = narrow(&TABLES).await;
    run_all(&server, &["INSERT INTO shop.a VALUES (1, 'much too long'), (2, 'two')"]).await;
    node.wait("parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    node.stop();
    let flow = "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\ntransform:\n  - filter: \"char_length(v) < 6\"\n";
    node.write("flows/to_db.yaml", flow);
    node.start();
    retry(&node).await;
    assert_eq!(rows(&server, "copy.a").await, [(2, "two".to_owned())]);
    assert_eq!(node.status()["flows"][0]["dead_letters"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_is_refused_again_keeps_no_lock_in_the_target() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE DATABASE copy",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE copy.a (id INT PRIMARY KEY, v INT UNIQUE)",
        ],
    )
    .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ]);
    let file = rusqlite::Connection::open(node.path("copy.db")).unwrap();
    file.execute_batch("CREATE TABLE a (id INTEGER PRIMARY KEY, v INTEGER UNIQUE)").unwrap();
    file.busy_timeout(Duration::ZERO).unwrap();
    node.start();
    node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    run_all(&server, &["INSERT INTO shop.a VALUES (1, 7), (2, 7)"]).await;
    node.wait("parked", |s| (0..2).all(|i| s["flows"][i]["dead_letters"] == 1 && s["flows"][i]["lsn"] == 2))
        .await;
    for flow in ["to_db", "to_file"] {
        let (_, out, err) = node.run(&["flow", "retry", flow]);
        assert!(out.contains("1 still parked"), "{flow}: {out} {err}");
    }
    // Whoever mends the target finds it free.
    let mut conn = server.conn().await.unwrap();
    conn.query_drop("SET innodb_lock_wait_timeout = 1").await.unwrap();
    conn.query_drop("DELETE FROM copy.a WHERE v = 7").await.unwrap();
    conn.disconnect().await.unwrap();
    file.execute("DELETE FROM a WHERE v = 7", []).unwrap();
    for flow in ["to_db", "to_file"] {
        let (_, out, err) = node.run(&["flow", "retry", flow]);
        assert!(out.contains("0 still parked"), "{flow}: {out} {err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_does_not_wait_behind_a_later_one_of_its_row() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &["CREATE DATABASE shop", "CREATE DATABASE copy", "CREATE TABLE shop.a (id INT PRIMARY KEY, v INT)"],
    )
    .await;
    let steps = "transform:\n  - set: {n: \"v * 4611686018427387904\"}\n";
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("flows/to_db.yaml", format!("from: shop\nto: db\nroute: {{\"shop.*\": \"copy.*\"}}\n{steps}")),
    ]);
    node.start();
    node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    run_all(&server, &["INSERT INTO shop.a VALUES (9, 1)"]).await;
    delivered(&node, 1).await;
    node.run(&["flow", "pause", "to_db"]);
    // In one batch: the second is out of a BIGINT's range.
    run_all(
        &server,
        &["BEGIN; INSERT INTO shop.a VALUES (1, 1); UPDATE shop.a SET v = 5 WHERE id = 1; COMMIT"],
    )
    .await;
    node.wait("captured", |s| s["sources"][0]["lsn"] == 3).await;
    node.run(&["flow", "resume", "to_db"]);
    let status = delivered(&node, 3).await;
    assert_eq!(status["flows"][0]["dead_letters"], 1, "{status:#}");
    assert_eq!(rows(&server, "copy.a").await, [(1, "1".to_owned()), (9, "1".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_with_too_much_parked_goes_on_behind_it_and_can_be_retried() {
    let (server, mut node) = narrow(&TABLES).await;
    run_all(&server, &["INSERT INTO shop.a VALUES (1, 'much too long')"]).await;
    node.wait("parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    node.stop();
    // As many again as a flow may park, of a table that is gone.
    let catalog = rusqlite::Connection::open(node.path("data/catalog.db")).unwrap();
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
                INSERT INTO dead_letters SELECT 'to_db', 1000000 + i, 1, 'copy', 'gone', i, 'insert', 'x', NULL, 5, '{}', '' FROM n";
    assert_eq!(catalog.execute(many, []).unwrap(), 100_000);
    node.start();
    node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    run_all(&server, &["UPDATE shop.a SET v = 'two' WHERE id = 1", "INSERT INTO shop.a VALUES (3, 'three')"])
        .await;
    node.until("what follows is there", || async {
        rows(&server, "copy.a").await == [(3, "three".to_owned())]
    })
    .await;
    let status = delivered(&node, 3).await;
    assert_eq!(status["flows"][0]["dead_letters"], 100_002, "{status:#}");
    // One more that the target refuses stops the flow; a retry is tried all the same.
    run_all(&server, &["INSERT INTO shop.a VALUES (4, 'much too long')"]).await;
    node.wait("stopped", |s| s["flows"][0]["state"] == "failed").await;
    catalog.execute("DELETE FROM dead_letters WHERE tbl = 'gone'", []).unwrap();
    run_all(&server, &["ALTER TABLE copy.a MODIFY v VARCHAR(40)"]).await;
    let (_, out, err) = node.run(&["flow", "retry", "to_db"]);
    assert!(out.contains("0 still parked"), "{out} {err}");
    assert_eq!(rows(&server, "copy.a").await, rows(&server, "shop.a").await);
}
