//! `flow verify` of flows that come from topics: the last message of each key against the sink, and what topics cannot prove.

use crate::node::Node;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{Kafka, KafkaOptions};
use tokio::runtime::Handle;

fn project(kafka: &Kafka, rest: &str) -> Node {
    let source = format!(
        "kind: kafka\nurl: {}\ntopics: [\"shop.*\"]\noptions: {{format: plain}}\n{rest}",
        kafka.url()
    );
    let mut node = Node::new(&[
        ("sources/apps.yaml", source),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/end.yaml", "from: apps\nto: file\ntransform:\n  - set: {twice: \"n * 2\"}\n".into()),
    ]);
    node.start();
    node
}

const KEYED: &str = "declare: {\"shop.*\": {key: [id], columns: {id: int, n: int, note: varchar(20)}}}\n";

fn verify(node: &Node) -> (i32, Value) {
    let (code, out, err) = node.run(&["flow", "verify", "end", "--json"]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| json!({ "error": err })))
}

fn counts(report: &Value) -> [u64; 3] {
    let table = &report["tables"][0];
    ["missing", "extra", "different"].map(|kind| table[kind].as_u64().unwrap_or_else(|| panic!("{report:#}")))
}

async fn delivered(node: &Node) {
    node.wait("all is delivered", |s| {
        s["sources"][0]["lag_messages"] == 0 && s["flows"][0]["lag_changes"] == 0 && s["flows"][0]["lsn"] != 0
    })
    .await;
}

fn spoil(node: &Node, sql: &str) {
    let file = rusqlite::Connection::open(node.path("copy.db")).unwrap();
    file.busy_timeout(crate::node::PATIENCE).unwrap();
    file.execute_batch(sql).unwrap();
}

fn row(id: u64, n: u64) -> (String, String) {
    (format!("{{\"id\":{id}}}"), format!("{{\"id\":{id},\"n\":{n},\"note\":\"note {n}\"}}"))
}

async fn put(kafka: &Kafka, id: u64, n: u64) {
    let (key, value) = row(id, n);
    let partition = i32::try_from(id % 2).unwrap();
    kafka.produce("shop.users", partition, &[(Some(&key), Some(&value))]).await.unwrap();
}

/// Rows change, come and go, until told to stop.
async fn write(kafka: &Kafka, stop: &AtomicBool) {
    let mut n = 1000;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let id = n * 7919 % 250;
        if n % 5 == 0 {
            let (key, _) = row(id, n);
            let partition = i32::try_from(id % 2).unwrap();
            kafka.produce("shop.users", partition, &[(Some(&key), None)]).await.unwrap();
        } else {
            put(kafka, id, n).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_the_truth_of_a_sink_while_both_move() {
    let kafka = Arc::new(Kafka::start(KafkaOptions::default()).await.unwrap());
    kafka.create_topic("shop.users", 2).await.unwrap();
    for id in 0..200 {
        put(&kafka, id, id).await;
    }
    let node = project(&kafka, KEYED);
    delivered(&node).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::task::spawn_blocking({
        let (kafka, stop, here) = (Arc::clone(&kafka), Arc::clone(&stop), Handle::current());
        move || here.block_on(write(&kafka, &stop))
    });
    for _ in 0..3 {
        let (code, report) = verify(&node);
        assert!(code == 0 || report["tables"][0]["undecided"] != 0, "{code} {report:#}\n{}", node.log());
        assert_eq!(counts(&report), [0, 0, 0], "{report:#}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    for id in [10, 11, 12] {
        put(&kafka, id, id).await;
    }
    delivered(&node).await;
    let (code, report) = verify(&node);
    assert_eq!((code, &report["equal"]), (0, &json!(true)), "{report:#}");
    assert!(report["tables"][0]["rows"].as_u64() > Some(50), "{report:#}");
    spoil(
        &node,
        "DELETE FROM users WHERE id = 10; UPDATE users SET twice = 5 WHERE id = 11; INSERT INTO users (id, n) VALUES (5000, 1)",
    );
    let (code, report) = verify(&node);
    assert_eq!((code, counts(&report)), (4, [1, 1, 1]), "{report:#}");
    let left: Vec<_> =
        std::fs::read_dir(node.path("data")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("verify")), "{left:?}");
    let (code, _, err) = node.run(&["flow", "verify", "end", "--repair"]);
    assert!(code == 2 && err.contains("read again by its key"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_topics_do_not_prove_is_told_and_no_difference() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("shop.users", 2).await.unwrap();
    for id in 0..10 {
        put(&kafka, id, id).await;
    }
    let node = project(&kafka, KEYED);
    delivered(&node).await;
    let unchecked = |report: &Value| report["tables"][0]["unchecked"].as_str().unwrap_or_default().to_owned();
    // Rows 0, 2 and 4 were in the first three messages of partition 0.
    kafka.delete_records("shop.users", 0, 3).await.unwrap();
    let (code, report) = verify(&node);
    assert_eq!((code, counts(&report)), (0, [0, 0, 0]), "{report:#}");
    assert!(unchecked(&report).starts_with("3 rows of the sink have no message any more"), "{report:#}");
    // A row whose messages are in two partitions, and that the sink has otherwise.
    put(&kafka, 7, 70).await;
    let (key, value) = row(7, 71);
    kafka.produce("shop.users", 0, &[(Some(&key), Some(&value))]).await.unwrap();
    delivered(&node).await;
    spoil(&node, "UPDATE users SET n = 70 WHERE id = 7");
    let (code, report) = verify(&node);
    assert_eq!((code, counts(&report)), (0, [0, 0, 0]), "{report:#}");
    assert!(unchecked(&report).contains("1 rows are otherwise in the sink"), "{report:#}");
    // What is missing or different is a difference all the same.
    spoil(&node, "DELETE FROM users WHERE id = 8; UPDATE users SET n = 1 WHERE id = 9");
    let (code, report) = verify(&node);
    assert_eq!((code, counts(&report)), (4, [1, 0, 1]), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_without_a_key_are_not_compared_and_a_late_source_misses_nothing() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("shop.users", 1).await.unwrap();
    let value = |n: u32| format!("{{\"n\":{n},\"note\":\"x\"}}");
    kafka.produce("shop.users", 0, &[(None, Some(&value(1)))]).await.unwrap();
    let node = project(&kafka, "");
    delivered(&node).await;
    let (code, report) = verify(&node);
    let note = report["tables"][0]["note"].as_str().unwrap_or_default();
    assert!(code == 4 && note.contains("`declare` its key in the source"), "{code} {report:#}");
    drop(node);

    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("shop.users", 2).await.unwrap();
    for id in 0..4 {
        put(&kafka, id, id).await;
    }
    let node = project(&kafka, &format!("start: latest\n{KEYED}"));
    node.wait("it has begun", |s| s["sources"][0]["position"]["offsets"]["shop.users"] == json!([2, 2]))
        .await;
    put(&kafka, 9, 9).await;
    put(&kafka, 2, 20).await;
    delivered(&node).await;
    let (code, report) = verify(&node);
    assert_eq!((code, counts(&report)), (0, [0, 0, 0]), "{report:#}");
    let unchecked = report["tables"][0]["unchecked"].as_str().unwrap();
    assert!(unchecked.starts_with("3 rows are not in the sink: with `start: latest`"), "{unchecked}");
    spoil(&node, "UPDATE users SET n = 1 WHERE id = 9");
    let (code, report) = verify(&node);
    assert_eq!((code, counts(&report)), (4, [0, 0, 1]), "{report:#}");
}
