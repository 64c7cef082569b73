//! `flow verify`: equal ends are found equal while both move, and every kind of difference is found.

use crate::elasticsearch::must;
use crate::node::{Node, mysql_source, run_all, values};
use crate::redis::{ask, client_of};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{
    Kafka, KafkaOptions, MariaDb, MariaDbOptions, MySql, MySqlOptions, OpenSearch, OpenSearchOptions, Redis,
    RedisOptions, SqlServer, TiDb, TiDbOptions,
};

const KINDS: [&str; 7] = [
    "CREATE DATABASE shop",
    "CREATE TABLE shop.kinds (id BIGINT UNSIGNED, day DATE, at DATETIME(3), stamp TIMESTAMP(6) NULL, \
     price DECIMAL(12,4), ratio DOUBLE, small FLOAT, bits BIT(7), level ENUM('low','high'), tags SET('a','b','c'), \
     doc JSON, raw VARBINARY(20), name VARCHAR(20), took TIME(2), y YEAR, PRIMARY KEY (id, day))",
    "INSERT INTO shop.kinds VALUES \
     (18446744073709551615, '2026-01-01', '2026-01-02 03:04:05.678', '2026-01-02 03:04:05.678901', 1.5, 0.1, 1.25, b'101', \
      'high', 'a,c', '{\"b\": [1, 2.50, null], \"a\": \"é\"}', X'00FF', 'Ärger', '-12:34:56.78', 2026), \
     (1, '1999-12-31', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, '', '', NULL, NULL)",
    "CREATE TABLE shop.users (id INT PRIMARY KEY, phone VARCHAR(20), level INT, note VARCHAR(40))",
    "CREATE TABLE shop.names (name VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, n INT)",
    "INSERT INTO shop.names VALUES ('Ada', 1), ('bob', 2), ('Çelik', 3)",
    "CREATE TABLE shop.log (line VARCHAR(40), n INT)",
];

/// Makes the tables of [`KINDS`], with 900 users.
async fn make_kinds(server: &SqlServer) {
    let users = values(1..901, |i| format!("{i}, '1380000{}', {}, 'note {i}'", 1000 + i, i % 5));
    run_all(server, &KINDS).await;
    run_all(server, &[&format!("INSERT INTO shop.users {users}")]).await;
}

fn files(source: &SqlServer, sinks: &[(&str, String)]) -> Vec<(String, String)> {
    let mut files = vec![("sources/shop.yaml".to_owned(), mysql_source(&source.url(), "shop.*"))];
    for (name, text) in sinks {
        files.push((format!("sinks/{name}.yaml"), text.clone()));
        let flow = format!(
            "from: shop\nto: {name}\nroute: {{\"shop.*\": \"copy.*\"}}\n\
             transform:\n  - mask: {{phone: partial}}\n"
        );
        // Only one table has a phone: the steps are of flows of their own.
        let plain = flow.split("transform").next().unwrap_or_default();
        files.push((
            format!("flows/{name}.yaml"),
            format!("{plain}tables: [shop.kinds, shop.names, shop.log]\n"),
        ));
        files.push((
            format!("flows/{name}_users.yaml"),
            format!("{flow}  - filter: \"level < 4\"\n  - rename: {{note: remark}}\n  - set: {{twice: \"level * 2\"}}\ntables: [shop.users]\n"),
        ));
    }
    files
}

async fn start(files: Vec<(String, String)>) -> Node {
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let mut node = Node::new(&files);
    node.start();
    let still = |s: &Value| {
        s["flows"].as_array().into_iter().flatten().all(|f| f["lag_changes"] == 0 && f["lsn"] != 0)
    };
    node.wait("all is delivered", |s| s["sources"][0]["state"] == "stream" && still(s)).await;
    node
}

fn verify(node: &Node, flow: &str) -> (i32, Value) {
    let (code, out, err) = node.run(&["flow", "verify", flow, "--json"]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| json!({ "error": err })))
}

/// Writes until told to stop.
async fn write(server: &SqlServer, stop: &AtomicBool) {
    let mut n = 0u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let id = n * 7919 % 1100;
        let statements = [
            format!("REPLACE INTO shop.users VALUES ({id}, '13911112222', {}, 'new {n}')", n % 6),
            format!("UPDATE shop.kinds SET price = price + 1, doc = JSON_OBJECT('n', {n}) WHERE id = 1"),
            format!("UPDATE shop.users SET id = id + 2000 WHERE id = {}", id / 2),
            format!("DELETE FROM shop.users WHERE id = {}", 2000 + id / 3),
        ];
        for sql in statements {
            let _ = server.exec(&sql).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_ends_are_found_equal_while_both_move() {
    let server = Arc::new(MySql::start(MySqlOptions::default()).await.unwrap());
    let maria = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    let tidb = TiDb::start(TiDbOptions::default()).await.unwrap();
    make_kinds(&server).await;
    run_all(&server, &["INSERT INTO shop.log VALUES ('a', 1), ('a', 1), (NULL, NULL)"]).await;
    let sinks = [
        ("mysql", format!("kind: mysql\nurl: {}\n", server.url())),
        ("maria", format!("kind: mysql\nurl: {}\n", maria.url())),
        ("tidb", format!("kind: tidb\nurl: {}\n", tidb.url())),
        ("file", "kind: sqlite\npath: ./copy.db\n".to_owned()),
    ];
    let node = start(files(&server, &sinks)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
        async move { write(&server, &stop).await }
    });
    for (name, _) in &sinks {
        for flow in [(*name).to_owned(), format!("{name}_users")] {
            let (code, report) = verify(&node, &flow);
            // A row that changes at every look may stay undecided; nothing may differ.
            let tables = report["tables"]
                .as_array()
                .unwrap_or_else(|| panic!("{flow}: {code} {report:#}\n{}", node.log()));
            for table in tables {
                for count in ["missing", "extra", "different", "parked"] {
                    assert_eq!(table[count], 0, "{flow}: {report:#}");
                }
                assert!(table["rows"].as_u64() > Some(0), "{flow}: {report:#}");
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    for (name, _) in &sinks {
        for flow in [(*name).to_owned(), format!("{name}_users")] {
            let (code, report) = verify(&node, &flow);
            assert_eq!((code, &report["equal"]), (0, &json!(true)), "{flow}: {report:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_difference_is_found() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_kinds(&server).await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.log VALUES ('a', 1), ('a', 1), ('b', 2)",
            "CREATE DATABASE copy",
            "CREATE TABLE copy.names (name VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, n TINYINT)",
        ],
    )
    .await;
    let sinks = [
        ("db", format!("kind: mysql\nurl: {}\n", server.url())),
        ("file", "kind: sqlite\npath: ./copy.db\n".to_owned()),
        ("lines", "kind: files\npath: ./lines\n".to_owned()),
    ];
    let node = start(files(&server, &sinks)).await;
    // Refused by the narrow column, and put aside.
    run_all(&server, &["INSERT INTO shop.names VALUES ('too large', 1000)"]).await;
    node.wait("parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    let spoil = [
        "DELETE FROM copy.users WHERE id IN (10, 11)",
        "UPDATE copy.users SET remark = 'spoilt' WHERE id = 700",
        "INSERT INTO copy.users VALUES (5000, 'x', 1, 'x', 2)",
        "UPDATE copy.kinds SET ratio = 0.2 WHERE id = 1",
        "DELETE FROM copy.log WHERE line = 'a' LIMIT 1",
        "UPDATE copy.names SET name = 'ADA' WHERE name = 'Ada'",
    ];
    run_all(&server, &spoil).await;
    let counts = |report: &Value, table: &str| -> Vec<u64> {
        let tables = report["tables"].as_array().unwrap();
        let table = tables.iter().find(|t| t["table"] == format!("shop.{table}")).unwrap();
        ["missing", "extra", "different", "parked"].map(|kind| table[kind].as_u64().unwrap()).to_vec()
    };
    let (code, report) = verify(&node, "db_users");
    assert_eq!((code, counts(&report, "users")), (4, vec![2, 1, 1, 0]), "{report:#}");
    let differences = report["tables"][0]["differences"].as_array().unwrap();
    let of = |kind: &str| differences.iter().find(|d| d["kind"] == kind).unwrap();
    assert_eq!(of("extra")["key"], json!({"id": 5000}));
    assert_eq!(of("different")["sink"]["remark"], "\"spoilt\"");
    assert_eq!(of("missing")["sink"], Value::Null);
    assert!(!of("missing")["source"]["phone"].as_str().unwrap().contains("0000"), "masked: {report:#}");
    let (code, report) = verify(&node, "db");
    assert_eq!(code, 4);
    assert_eq!(counts(&report, "kinds"), [0, 0, 1, 0], "{report:#}");
    assert_eq!(counts(&report, "log"), [1, 0, 0, 0], "{report:#}");
    assert_eq!(counts(&report, "names"), [1, 1, 0, 1], "{report:#}");

    let file = rusqlite::Connection::open(node.path("copy.db")).unwrap();
    file.execute_batch("DELETE FROM users WHERE id = 10; UPDATE kinds SET price = '9.0000' WHERE name = 'Ärger'; INSERT INTO log VALUES ('c', 3)").unwrap();
    drop(file);
    let (_, report) = verify(&node, "file_users");
    assert_eq!(counts(&report, "users"), [1, 0, 0, 0], "{report:#}");
    let (code, out, err) = node.run(&["flow", "verify", "file", "--table", "shop.k*"]);
    assert_eq!(code, 4, "{out} {err}");
    assert!(out.contains("shop.kinds") && out.contains("price: source \"1.5000\", sink \"9.0000\""), "{out}");
    assert!(!out.contains("shop.log") && err.contains("1 of 1 tables differ"), "{out} {err}");
    let (_, report) = verify(&node, "file");
    assert_eq!(counts(&report, "log"), [0, 1, 0, 0], "{report:#}");
    let (code, _, err) = node.run(&["flow", "verify", "lines"]);
    assert!(code == 2 && err.contains("keeps changes, not rows"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_gives_up_on_a_paused_flow_and_knows_every_parked_row() {
    let server = Arc::new(MySql::start(MySqlOptions::default()).await.unwrap());
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE DATABASE copy",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, n INT)",
            "CREATE TABLE copy.a (id INT PRIMARY KEY, n TINYINT)",
            "INSERT INTO shop.a VALUES (1, 1)",
        ],
    )
    .await;
    let db = format!("kind: mysql\nurl: {}\n", server.url());
    let node = start(vec![
        ("sources/shop.yaml".into(), mysql_source(&server.url(), "shop.*")),
        ("sinks/db.yaml".into(), db),
        ("flows/db.yaml".into(), "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ])
    .await;
    // More than a page of them, and one that is of two rows.
    let many =
        |first: u32| format!("INSERT INTO shop.a {}", values(first..first + 505, |i| format!("{i}, 1000")));
    run_all(&server, &[&many(100), &many(1100), "UPDATE shop.a SET id = 2, n = 1000 WHERE id = 1"]).await;
    node.wait("parked", |s| s["flows"][0]["dead_letters"] == 1011 && s["flows"][0]["lag_changes"] == 0).await;
    let (_, report) = verify(&node, "db");
    let table = &report["tables"][0];
    let counts = ["missing", "extra", "different", "parked"].map(|kind| table[kind].as_u64());
    assert_eq!(counts, [0, 0, 0, 1012].map(Some), "{report:#}");

    node.run(&["flow", "pause", "db"]);
    node.wait("paused", |s| s["flows"][0]["state"] == "paused").await;
    run_all(&server, &["INSERT INTO shop.a VALUES (3, 3)"]).await;
    let (code, _, err) = node.run(&["flow", "verify", "db"]);
    assert!(code != 0 && err.contains("it is paused"), "{code} {err}");
}

/// A shop, and one flow of it to a sink of this kind; `options` are the flow's.
async fn keyed(server: &SqlServer, sink: &str, options: &str) -> Node {
    let flow = format!(
        "from: shop\nto: end\ntables: [shop.users, shop.kinds]\noptions: {options}\nroute: {{\"shop.*\": \"copy.*\"}}\n"
    );
    start(vec![
        ("sources/shop.yaml".into(), mysql_source(&server.url(), "shop.*")),
        ("sinks/end.yaml".into(), sink.to_owned()),
        ("flows/end.yaml".into(), flow),
    ])
    .await
}

/// Compares while the source is written to, and once more when it is still.
async fn is_equal_under_a_writer(server: &Arc<MySql>, node: &Node) {
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (server, stop) = (Arc::clone(server), Arc::clone(&stop));
        async move { write(&server, &stop).await }
    });
    let (code, report) = verify(node, "end");
    let tables = report["tables"].as_array().unwrap_or_else(|| panic!("{code} {report:#}\n{}", node.log()));
    for table in tables {
        for count in ["missing", "extra", "different", "parked"] {
            assert_eq!(table[count], 0, "{report:#}");
        }
        assert!(table["rows"].as_u64() > Some(0), "{report:#}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let (code, report) = verify(node, "end");
    assert_eq!((code, &report["equal"]), (0, &json!(true)), "{report:#}");
}

/// One table's counts of missing, extra, different and parked rows.
fn counted(report: &Value, table: &str) -> Vec<u64> {
    let tables = report["tables"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let table = tables.iter().find(|t| t["table"] == format!("shop.{table}")).unwrap();
    ["missing", "extra", "different", "parked"].map(|kind| table[kind].as_u64().unwrap()).to_vec()
}

/// The difference of a kind, which has both images.
fn difference<'a>(report: &'a Value, kind: &str) -> &'a Value {
    let tables = report["tables"].as_array().unwrap();
    let mut all = tables.iter().flat_map(|table| table["differences"].as_array().unwrap());
    all.find(|difference| difference["kind"] == kind).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_compared_while_they_change_and_each_difference_is_found() {
    let server = Arc::new(MySql::start(MySqlOptions::default()).await.unwrap());
    make_kinds(&server).await;
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let sink = format!("kind: elasticsearch\nurl: {}\n", search.url());
    let node = keyed(&server, &sink, "{index: \"{table}_b\", routing: \"{level}\"}").await;
    is_equal_under_a_writer(&server, &node).await;
    run_all(&server, &["REPLACE INTO shop.users VALUES (10, 'x', 1, 'ten'), (11, 'x', 2, 'eleven')"]).await;
    node.wait("delivered", |s| s["flows"][0]["lag_changes"] == 0).await;
    let doc = |id: u32, routing: u32| format!("/users_b/_doc/{id}?routing={routing}");
    must(&search, "DELETE", &doc(10, 1), Value::Null).await;
    let spoilt = json!({"id": 11, "phone": "x", "level": 2, "note": "spoilt"});
    must(&search, "PUT", &doc(11, 2), spoilt).await;
    must(&search, "PUT", &doc(5000, 1), json!({"id": 5000, "note": "planted"})).await;
    must(&search, "PUT", &doc(5001, 1), json!({"planted": true})).await;
    let (code, report) = verify(&node, "end");
    assert_eq!((code, counted(&report, "users")), (4, vec![1, 2, 1, 0]), "{report:#}");
    assert_eq!(counted(&report, "kinds"), [0, 0, 0, 0], "{report:#}");
    assert_eq!(difference(&report, "missing")["source"]["note"], "\"ten\"");
    let different = difference(&report, "different");
    assert_eq!(different["key"], json!({"id": 11}));
    assert_eq!(
        (&different["source"]["note"], &different["sink"]["note"]),
        (&json!("\"eleven\""), &json!("\"spoilt\""))
    );
    assert_eq!(difference(&report, "extra")["source"], Value::Null);
    assert!(difference(&report, "extra")["key"].as_str().unwrap().starts_with("500"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_an_index_refused_are_told_as_parked() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.users (id INT PRIMARY KEY, note VARCHAR(40))",
            "INSERT INTO shop.users VALUES (1, '1'), (2, 'two'), (3, '3')",
        ],
    )
    .await;
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let sink = format!("kind: elasticsearch\nurl: {}\n", search.url());
    let node = keyed(&server, &sink, "{mappings: {note: {type: long}}}").await;
    node.wait("parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    let (code, report) = verify(&node, "end");
    assert_eq!((code, counted(&report, "users")), (4, vec![0, 0, 0, 1]), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_compared_while_they_change_and_each_difference_is_found() {
    let server = Arc::new(MySql::start(MySqlOptions::default()).await.unwrap());
    make_kinds(&server).await;
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client_of(&redis.url()).await.unwrap();
    let run = async |words: &[&str]| ask::<redis::Value>(&client, words).await;
    for shape in ["hash", "json"] {
        let node =
            keyed(&server, &format!("kind: redis\nurl: {}\n", redis.url()), &format!("{{type: {shape}}}"))
                .await;
        is_equal_under_a_writer(&server, &node).await;
        run_all(&server, &["REPLACE INTO shop.users VALUES (10, 'x', 1, 'ten'), (11, 'x', 2, 'eleven'), (12, 'x', 2, NULL)"]).await;
        node.wait("delivered", |s| s["flows"][0]["lag_changes"] == 0).await;
        run(&["DEL", "copy:users:10"]).await;
        if shape == "hash" {
            run(&["HSET", "copy:users:11", "note", "spoilt"]).await;
            run(&["HSET", "copy:users:12", "note", "spoilt"]).await;
            run(&["HSET", "copy:users:5000", "id", "5000"]).await;
        } else {
            run(&["SET", "copy:users:11", "{\"id\":11,\"phone\":\"x\",\"level\":2,\"note\":\"spoilt\"}"])
                .await;
            run(&["SET", "copy:users:12", "no row"]).await;
            run(&["SET", "copy:users:5000", "{\"id\":5000}"]).await;
        }
        run(&["LPUSH", "copy:users:5001", "of another type"]).await;
        let (code, report) = verify(&node, "end");
        assert_eq!((code, counted(&report, "users")), (4, vec![1, 2, 2, 0]), "{shape}: {report:#}");
        assert_eq!(counted(&report, "kinds"), [0, 0, 0, 0], "{shape}: {report:#}");
        assert_eq!(difference(&report, "missing")["source"]["note"], "\"ten\"");
        assert_eq!(difference(&report, "different")["sink"]["note"], "\"spoilt\"", "{shape}: {report:#}");
        assert!(difference(&report, "extra")["key"].as_str().unwrap().starts_with("copy:users:500"));
        run(&["FLUSHALL"]).await;
    }
    let set = keyed(&server, &format!("kind: redis\nurl: {}\n", redis.url()), "{type: set}").await;
    let (code, _, err) = set.run(&["flow", "verify", "end"]);
    assert!(code == 2 && err.contains("which row a member is of"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_compared_while_they_change_and_each_difference_is_found() {
    let server = Arc::new(MySql::start(MySqlOptions::default()).await.unwrap());
    make_kinds(&server).await;
    let formats = ["json", "debezium", "maxwell", "canal"];
    for format in formats {
        // Each of its own: the brokers know how far the flow is, and of which node's journal.
        let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
        let sink = format!("kind: kafka\nurl: {}\n", kafka.url());
        let more = if format == "json" { ", tombstones: true, exactly_once: true" } else { "" };
        let options = format!("{{format: {format}, topic: \"{format}.{{table}}\", partitions: 2{more}}}");
        let node = keyed(&server, &sink, &options).await;
        is_equal_under_a_writer(&server, &node).await;
        let fresh = "REPLACE INTO shop.users VALUES (10, 'x', 1, 'ten'), (11, 'x', 2, 'eleven')";
        run_all(&server, &[fresh, "REPLACE INTO shop.users VALUES (13, 'x', 2, 'thirteen')"]).await;
        node.wait("delivered", |s| s["flows"][0]["lag_changes"] == 0).await;
        let topic = format!("{format}.users");
        // Someone else deletes a row, spoils one, and plants one: with messages that the flow itself has made.
        let of = async |id: &str| {
            let all = kafka.messages(&topic).await.unwrap();
            let key = all.iter().rev().find_map(|message| message.key.clone().filter(|key| key.contains(id)));
            let last = all.iter().rev().find(|message| message.key == key).unwrap().clone();
            (last.partition, key.unwrap(), last.value.unwrap())
        };
        let (partition, key, _) = of(":10}").await;
        kafka.produce(&topic, partition, &[(Some(&key), None)]).await.unwrap();
        let (partition, key, value) = of(":11}").await;
        kafka
            .produce(&topic, partition, &[(Some(&key), Some(&value.replace("eleven", "spoilt")))])
            .await
            .unwrap();
        let (partition, key, value) = of(":13}").await;
        let planted = |text: &str| text.replace("13", "5000");
        kafka.produce(&topic, partition, &[(Some(&planted(&key)), Some(&planted(&value)))]).await.unwrap();
        let (code, report) = verify(&node, "end");
        assert_eq!((code, counted(&report, "users")), (4, vec![1, 1, 1, 0]), "{format}: {report:#}");
        assert_eq!(counted(&report, "kinds"), [0, 0, 0, 0], "{format}: {report:#}");
        assert_eq!(difference(&report, "missing")["source"]["note"], "\"ten\"");
        assert_eq!(difference(&report, "different")["sink"]["note"], "\"spoilt\"", "{format}: {report:#}");
        assert!(
            difference(&report, "extra")["key"].as_str().unwrap().contains("5000"),
            "{format}: {report:#}"
        );
        // Maxwell has no word for it, and Canal's consumers run its statement.
        if matches!(format, "json" | "debezium") {
            run_all(&server, &["TRUNCATE shop.users"]).await;
            node.wait("delivered", |s| s["flows"][0]["lag_changes"] == 0).await;
            let (_, report) = verify(&node, "end");
            // What someone else wrote is emptied by nothing of ours.
            assert_eq!(counted(&report, "users"), [0, 2, 0, 0], "{format}: {report:#}");
        }
        run_all(&server, &["REPLACE INTO shop.users VALUES (1, 'x', 1, 'one')"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_two_journals_wrote_are_compared_by_what_came_last() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_kinds(&server).await;
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let sink = format!("kind: kafka\nurl: {}\n", kafka.url());
    let mut node = keyed(&server, &sink, "{partitions: 3}").await;
    // High lsns: rows that leave their keys, and a table that is emptied.
    for _ in 0..5 {
        run_all(&server, &["UPDATE shop.users SET id = id + 5000", "UPDATE shop.users SET id = id - 5000"])
            .await;
    }
    let users: Vec<(u32, String)> = server.query("SELECT id, phone FROM shop.users").await.unwrap();
    run_all(&server, &["TRUNCATE shop.users"]).await;
    for (id, phone) in &users {
        run_all(&server, &[&format!("INSERT INTO shop.users VALUES ({id}, '{phone}', 1, 'again')")]).await;
    }
    node.wait("delivered", |s| s["flows"][0]["lag_changes"] == 0).await;
    let (code, report) = verify(&node, "end");
    assert_eq!(code, 0, "{report:#}");
    let before = node.status()["sources"][0]["lsn"].as_u64().unwrap();
    node.stop();
    std::fs::remove_dir_all(node.path("data/journal")).unwrap();
    node.start();
    node.wait("the journal is another", |s| s["flows"][0]["state"] == "failed").await;
    let (code, out, err) = node.run(&["flow", "resnapshot", "end"]);
    assert_eq!(code, 0, "{out}{err}");
    let delivered = |s: &Value| s["flows"][0]["lag_changes"] == 0 && s["flows"][0]["state"] == "running";
    node.wait("all is there again", delivered).await;
    let (code, report) = verify(&node, "end");
    assert_eq!(code, 0, "{report:#}");
    run_all(&server, &["TRUNCATE shop.users", "INSERT INTO shop.users VALUES (7, 'x', 1, 'seven')"]).await;
    node.wait("delivered", delivered).await;
    let (code, report) = verify(&node, "end");
    assert_eq!(code, 0, "{report:#}");
    let after = node.status()["sources"][0]["lsn"].as_u64().unwrap();
    assert!(after < before, "the second journal counts from 1: {after}, {before}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_compares_by_schedule_and_shows_how_it_ended() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY, n INT)"]).await;
    run_all(&server, &["INSERT INTO shop.a VALUES (1, 1), (2, 2)"]).await;
    let flow = |sink: &str| format!("from: shop\nto: {sink}\nverify: \"* * * * *\"\n");
    let node = start(vec![
        ("sources/shop.yaml".into(), mysql_source(&server.url(), "shop.*")),
        ("sinks/file.yaml".into(), "kind: sqlite\npath: ./copy.db\n".into()),
        ("sinks/lines.yaml".into(), "kind: files\npath: ./lines\n".into()),
        ("flows/a.yaml".into(), flow("file")),
        ("flows/b.yaml".into(), flow("lines")),
    ])
    .await;
    let status = node
        .wait("both were compared", |s| {
            s["flows"].as_array().unwrap().iter().all(|flow| !flow["verify"].is_null())
        })
        .await;
    let first = &status["flows"][0]["verify"];
    assert_eq!(
        (&first["equal"], &first["rows"], &first["error"]),
        (&json!(true), &json!(2), &Value::Null),
        "{status:#}"
    );
    let second = &status["flows"][1]["verify"];
    assert_eq!(second["equal"], Value::Null, "{status:#}");
    assert!(second["error"]["message"].as_str().unwrap().contains("keeps changes, not rows"), "{status:#}");
    let file = rusqlite::Connection::open(node.path("copy.db")).unwrap();
    file.execute_batch("DELETE FROM a WHERE id = 1; UPDATE a SET n = 3 WHERE id = 2").unwrap();
    drop(file);
    node.wait("the difference is found", |s| {
        let verify = &s["flows"][0]["verify"];
        verify["equal"] == false && verify["missing"] == 1 && verify["different"] == 1
    })
    .await;
    let metrics =
        reqwest::get(format!("http://{}/metrics", node.address())).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tidemill_flow_verify_differences{flow=\"a\"} 2"), "{metrics}");
    assert!(metrics.contains("tidemill_flow_verify_failures_total{flow=\"b\"}"), "{metrics}");
    node.write("flows/b.yaml", "from: shop\nto: lines\nverify: \"0 25 * * *\"\n");
    let (code, out, err) = node.run(&["check"]);
    let told = format!("{out}{err}");
    assert!(code == 2 && told.contains("flows/b.yaml:3:9: "), "{code} {told}");
    assert!(
        told.contains("its hour `25` is no number from 0 to 23") && told.contains("hint: minute, hour"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_split_are_compared_each_for_itself() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.carts (id INT PRIMARY KEY, items JSON, note VARCHAR(20))",
            "INSERT INTO shop.carts VALUES (1, '[\"tea\", \"cup\", \"pot\"]', 'a'), (2, '[]', 'b'), (3, NULL, 'c'), (4, '[\"rice\"]', 'd')",
        ],
    )
    .await;
    let copy = MySql::start(MySqlOptions::default()).await.unwrap();
    let flow = "from: shop\nto: copy\noptions: {ddl: hold}\ntransform:\n  - split: {column: items, type: text, index: place}\n";
    copy.exec("CREATE DATABASE shop").await.unwrap();
    copy.exec("CREATE TABLE shop.carts (id INT, items VARCHAR(40), note VARCHAR(20), place INT, PRIMARY KEY (id, place))")
        .await
        .unwrap();
    let node = start(vec![
        ("sources/shop.yaml".into(), mysql_source(&server.url(), "shop.*")),
        ("sinks/copy.yaml".into(), format!("kind: mysql\nurl: {}\n", copy.url())),
        ("flows/rows.yaml".into(), flow.into()),
    ])
    .await;
    let counts = |report: &Value| {
        let table = &report["tables"][0];
        ["rows", "missing", "extra", "different", "parked"].map(|kind| table[kind].as_u64().unwrap_or(99))
    };
    let (code, report) = verify(&node, "rows");
    assert_eq!(code, 0, "{report:#}");
    let rows: u64 = copy.query("SELECT COUNT(*) FROM shop.carts").await.unwrap().remove(0);
    assert_eq!(counts(&report), [rows, 0, 0, 0, 0], "{report:#}");
    assert!(rows >= 4, "{report:#}");
    run_all(
        &copy,
        &[
            "DELETE FROM shop.carts WHERE items = 'cup'",
            "UPDATE shop.carts SET items = 'pan' WHERE items = 'pot'",
            "INSERT INTO shop.carts VALUES (4, 'more', 'd', 7), (9, 'nobody', 'x', 0)",
        ],
    )
    .await;
    let (code, report) = verify(&node, "rows");
    assert_eq!((code, counts(&report)), (4, [rows, 1, 2, 1, 0]), "{report:#}");
    // What the source has is written once more. What is too much is left.
    let (_, out, err) = node.run(&["flow", "verify", "rows", "--repair", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!(counts(&report), [rows, 0, 2, 0, 0], "{report:#}");
    assert!(report["tables"][0]["unrepaired"].as_str().unwrap().contains("`split`"), "{report:#}");
    // A list that no rows can be made of: parked, with what is left of the row before.
    server.exec("UPDATE shop.carts SET items = '{\"no\": \"list\"}' WHERE id = 1").await.unwrap();
    node.wait("it is parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    let (code, report) = verify(&node, "rows");
    assert_eq!((code, counts(&report)[4]), (4, 3), "{report:#}");
}
