//! Where transactions begin and end, told in a topic: as Debezium tells it, and right whatever is killed in their midst.

use crate::formats::{by_topic, comparable, statements};
use crate::node::{Node, mysql_source, run_all, streams, values};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use testkit::{Kafka, KafkaOptions, KafkaRecord, MySql, MySqlOptions};

const SCRIPT: &str = include_str!("../../../flow/tests/corpus/debezium-transactions.sql");
const RECORDS: &str = include_str!("../../../flow/tests/corpus/debezium-transactions-3.6.jsonl");
const SCHEMA_RECORDS: &str =
    include_str!("../../../flow/tests/corpus/debezium-transactions-schemas-3.6.jsonl");
const TABLES: [&str; 4] = ["accounts", "moves", "notes", "zz_end"];

fn json(text: Option<&str>) -> Value {
    text.map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

fn payload(value: &Value) -> &Value {
    if value["schema"].is_object() { &value["payload"] } else { value }
}

/// Transactions by number in place of the ids of one server, no clock, and tables in order: theirs have none.
fn told(records: &[Value]) -> (Vec<Value>, BTreeMap<String, usize>) {
    let mut numbers = BTreeMap::new();
    let mut out = records.to_vec();
    for record in &mut out {
        let next = numbers.len();
        let id = payload(&record["value"])["id"].as_str().unwrap().to_owned();
        let number = *numbers.entry(id.clone()).or_insert(next);
        for side in ["key", "value"] {
            let side = &mut record[side];
            let side = if side["schema"].is_object() { &mut side["payload"] } else { side };
            assert_eq!(side["id"], id);
            side["id"] = number.into();
            if let Some(object) = side.as_object_mut().filter(|object| object.contains_key("status")) {
                assert!(object.remove("ts_ms").is_some_and(|clock| clock.is_i64()));
            }
            if let Some(tables) = side["data_collections"].as_array_mut() {
                tables.sort_by_key(|table| table["data_collection"].as_str().map(str::to_owned));
            }
        }
    }
    (out, numbers)
}

/// Events with the numbers of their transactions.
fn events(records: &[Value], numbers: &BTreeMap<String, usize>) -> Vec<Value> {
    let mut out: Vec<Value> = records.iter().map(comparable).collect();
    for record in &mut out {
        let value = &mut record["value"];
        let value = if value["schema"].is_object() { &mut value["payload"] } else { value };
        if let Some(id) = value["transaction"]["id"].as_str().map(str::to_owned) {
            value["transaction"]["id"] = numbers[&id].into();
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_of_transactions_is_what_debezium_emits() {
    let (server, kafka) =
        tokio::try_join!(MySql::start(MySqlOptions::default()), Kafka::start(KafkaOptions::default()))
            .unwrap();
    server.exec("CREATE DATABASE corpus").await.unwrap();
    let (before, after) = SCRIPT.split_once("-- stream --").unwrap();
    statements(&server, before).await;
    let flow = |prefix: &str, more: &str| {
        let topics = format!("topic: \"{prefix}.{{db}}.{{table}}\", transactions: \"{prefix}.transaction\"");
        format!("from: peer\nto: broker\noptions: {{format: debezium, partitions: 1, {topics}{more}}}\n")
    };
    let mut node = Node::new(&[
        ("sources/peer.yaml", mysql_source(&server.url(), "corpus.*")),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: {}\n", kafka.url())),
        ("flows/plain.yaml", flow("plain", "")),
        ("flows/schemas.yaml", flow("schemas", ", schemas: true, exactly_once: true")),
    ]);
    node.start();
    node.wait("the snapshot is done", |s| {
        streams(s) && (0..2).all(|flow| s["flows"][flow]["lag_changes"] == 0)
    })
    .await;
    statements(&server, after).await;
    for (prefix, theirs) in [("plain", RECORDS), ("schemas", SCHEMA_RECORDS)] {
        let ours_of = async |topic: &str| -> Vec<Value> {
            let records = kafka.messages(&format!("{prefix}.{topic}")).await.unwrap();
            let record = |record: &KafkaRecord| {
                let (key, value) = (json(record.key.as_deref()), json(record.value.as_deref()));
                serde_json::json!({"topic": format!("peer.{topic}"), "key": key, "value": value})
            };
            records.iter().map(record).collect()
        };
        node.until("the last transaction has ended", || async {
            ours_of("transaction").await.last().is_some_and(|last| {
                let last = payload(&last["value"]);
                last["status"] == "END" && last["data_collections"][0]["data_collection"] == "corpus.zz_end"
            })
        })
        .await;
        let theirs = by_topic(theirs);
        let (told_by_them, their_numbers) = told(&theirs["peer.transaction"]);
        let (told_by_us, our_numbers) = told(&ours_of("transaction").await);
        assert_eq!(told_by_us, told_by_them);
        for table in TABLES {
            let topic = format!("corpus.{table}");
            let theirs = events(&theirs[&format!("peer.{topic}")], &their_numbers);
            let mut ours = ours_of(&topic).await;
            // A table without a key is read whole, and ours says first that it begins from nothing.
            ours.drain(..usize::from(payload(&ours[0]["value"])["op"] == "t" && table == "notes"));
            for (ours, theirs) in events(&ours, &our_numbers).iter().zip(&theirs) {
                assert_eq!(ours, theirs, "{topic}");
            }
            assert_eq!(ours.len(), theirs.len(), "records of {topic}");
        }
    }
}

/// What a consumer counts of one transaction.
#[derive(Debug, Default, PartialEq)]
struct Count {
    /// Their places, or their lsns: a repeat counts once.
    events: BTreeSet<u64>,
    tables: BTreeMap<String, BTreeSet<u64>>,
    /// With repeats.
    messages: u64,
}

/// Counts the events of topics by transaction: by their places where they name them, else by the lsns in their headers.
async fn counted(kafka: &Kafka, prefix: &str, tables: &[&str]) -> BTreeMap<String, Count> {
    let mut out: BTreeMap<String, Count> = BTreeMap::new();
    for table in tables {
        for record in kafka.messages(&format!("{prefix}.{table}")).await.unwrap() {
            let Some(value) = &record.value else { continue };
            let value: Value = serde_json::from_str(value).unwrap();
            let header = |name: &str| record.headers.iter().find(|(known, _)| known == name);
            let Some((_, id)) = header("txn") else { continue };
            let place = &value["transaction"];
            let number = |name: &str| {
                place[name].as_u64().unwrap_or_else(|| header("lsn").unwrap().1.parse().unwrap())
            };
            assert!(place.is_null() || place["id"] == id.as_str());
            let count = out.entry(id.clone()).or_default();
            count.messages += 1;
            count.events.insert(number("total_order"));
            let table = format!("shop.{table}");
            count.tables.entry(table).or_default().insert(number("data_collection_order"));
        }
    }
    out
}

/// Checks what a flow's topic of transactions says against its events; how many transactions there are.
async fn check(kafka: &Kafka, prefix: &str, tables: &[&str], once: bool) -> usize {
    let counted = counted(kafka, prefix, tables).await;
    let (mut begun, mut ended) = (Vec::new(), BTreeMap::new());
    for record in kafka.messages(&format!("{prefix}.transaction")).await.unwrap() {
        let value = json(record.value.as_deref());
        let id = value["id"].as_str().unwrap().to_owned();
        match value["status"].as_str().unwrap() {
            "BEGIN" => begun.push(id),
            "END" => {
                assert!(begun.contains(&id), "{prefix}: {id} ends before it begins");
                let was = ended.insert(id, value.clone());
                assert!(was.is_none_or(|was| !once && was == value), "{prefix}: {value}");
            }
            status => panic!("{status}"),
        }
    }
    assert!(ended.keys().eq(counted.keys()), "{prefix}: every transaction with an event has ended");
    for (id, count) in &counted {
        let end = &ended[id];
        assert_eq!(end["event_count"], count.events.len(), "{prefix}: {end}");
        let tables = end["data_collections"].as_array().unwrap().iter().map(|table| {
            let name = table["data_collection"].as_str().unwrap().to_owned();
            (name, table["event_count"].as_u64().unwrap() as usize)
        });
        let events = count.tables.iter().map(|(table, events)| (table.clone(), events.len()));
        assert_eq!(tables.collect::<BTreeMap<_, _>>(), events.collect::<BTreeMap<_, _>>(), "{prefix}: {end}");
        if once {
            assert_eq!(count.messages, count.events.len() as u64, "{prefix}: {id} has repeats");
        }
    }
    if once {
        assert_eq!(begun.len(), ended.len(), "{prefix}: each begins once");
    }
    counted.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_consumer_counts_is_what_the_end_says_also_when_killed_in_the_midst() {
    let (server, kafka) = tokio::try_join!(
        MySql::start(MySqlOptions::default()),
        Kafka::start(KafkaOptions { by_proxy: true, ..Default::default() })
    )
    .unwrap();
    let make = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, v INT NOT NULL)",
        "CREATE TABLE shop.items (id INT PRIMARY KEY, v INT NOT NULL)",
        "CREATE TABLE shop.secrets (id INT PRIMARY KEY, v INT NOT NULL)",
    ];
    run_all(&server, &make).await;
    let tables = ["orders", "items"];
    // Small batches: a transaction is handed on in parts of eight of them.
    let flow = |name: &str, format: &str, more: &str| {
        let topics = format!("topic: \"{name}.{{table}}\", transactions: \"{name}.transaction\"");
        let options = format!("format: {format}, partitions: 3, batch_rows: 2, {topics}{more}");
        format!(
            "from: shop\ntables: [shop.orders, shop.items]\nto: broker\ntransform:\n  - filter: \"v % 3 <> 0\"\n\
             options: {{{options}}}\n"
        )
    };
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: {}\n", kafka.url())),
        ("flows/exact.yaml", flow("exact", "debezium", ", exactly_once: true")),
        ("flows/places.yaml", flow("places", "debezium", "")),
        ("flows/plain.yaml", flow("plain", "json", ", tombstones: true")),
    ]);
    node.start();
    node.wait("it streams", streams).await;
    let mut conn = server.conn().await.unwrap();
    use testkit::mysql_async::prelude::Queryable;
    let rows = 6000_u32;
    for (first, table) in [(0, "orders"), (0, "items")] {
        let large = values(first..first + rows, |i| format!("{i}, {i}"));
        let script = [
            "START TRANSACTION".to_owned(),
            format!("INSERT INTO shop.{table} {large}"),
            "INSERT INTO shop.secrets VALUES (1, 1)".to_owned(),
            // Events of both tables; a row that gets another key is two.
            format!("UPDATE shop.{table} SET id = id + 100000 WHERE id % 50 = 1"),
            "INSERT INTO shop.orders VALUES (900000, 1), (900001, 3)".to_owned(),
            format!("DELETE FROM shop.{table} WHERE id < 100"),
            "DELETE FROM shop.secrets".to_owned(),
            "COMMIT".to_owned(),
            "DELETE FROM shop.orders WHERE id = 900000".to_owned(),
            "INSERT INTO shop.secrets VALUES (2, 2)".to_owned(),
            "DELETE FROM shop.orders WHERE id >= 900000".to_owned(),
            "DELETE FROM shop.secrets".to_owned(),
        ];
        for sql in script {
            conn.query_drop(sql).await.unwrap();
        }
    }
    let sent = async || kafka.messages("places.orders").await.unwrap().len();
    let all = node.changes("shop").last().map_or(0, |change| change["lsn"].as_u64().unwrap());
    let done = |status: &Value| (0..3).all(|i| status["flows"][i]["lsn"].as_u64() >= Some(all));
    let mut in_the_midst = 0;
    for round in 0..6 {
        let before = sent().await;
        let mut over = false;
        node.until("more was sent", || {
            let status = node.status();
            over = status.is_object() && done(&status);
            let over = over;
            async move { over || sent().await > before + 300 }
        })
        .await;
        if over {
            break;
        }
        match round % 3 {
            0 | 1 => {
                node.kill9();
                in_the_midst += 1;
                node.start();
            }
            _ => {
                kafka.kill9();
                kafka.restart().await.unwrap();
            }
        }
    }
    assert!(in_the_midst >= 2, "it was killed in the midst {in_the_midst} times");
    node.wait("all is delivered", |s| streams(s) && done(s)).await;
    node.until("the broker has written the last ends", || async {
        !kafka.messages("exact.transaction").await.unwrap().is_empty()
    })
    .await;
    node.stop();
    let exact = check(&kafka, "exact", &tables, true).await;
    assert_eq!(check(&kafka, "places", &tables, false).await, exact);
    assert_eq!(check(&kafka, "plain", &tables, false).await, exact);
    assert_eq!(exact, 4, "two large ones and two small ones: in the others the flow has no event");
    let notes = kafka.messages("tidemill_progress").await.unwrap();
    let open = notes.iter().filter(|note| note.value.as_ref().is_some_and(|text| text.contains("\"open\"")));
    println!("killed in the midst {in_the_midst} times; notes of open transactions: {}", open.count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_transactions_that_cannot_be_is_refused() {
    let check = |options: &str| {
        let node = Node::new(&[
            ("sources/a.yaml", mysql_source("mysql://root@127.0.0.1:1", "a.*")),
            ("sinks/files.yaml", "kind: files\npath: out\n".to_owned()),
            (
                "sinks/broker.yaml",
                "kind: kafka\nurl: kafka://127.0.0.1:1\nschema_registry: http://127.0.0.1:1\n".into(),
            ),
            ("flows/f.yaml", format!("from: a\n{options}\n")),
        ]);
        let (code, out, err) = node.run(&["check"]);
        (code, format!("{out}{err}"))
    };
    let (code, text) = check("to: files\noptions: {transactions: ends}");
    assert!(code != 0 && text.contains("`transactions` means nothing"), "{text}");
    let (code, text) = check("to: broker\noptions: {format: avro, transactions: ends}");
    assert!(code != 0 && text.contains("`transactions` is not supported with `format: avro`"), "{text}");
    let (code, text) = check("to: broker\noptions: {format: maxwell, transactions: ends}");
    assert_eq!(code, 0, "{text}");

    // Two flows would each tell their own counts of one transaction.
    let node = Node::new(&[
        ("sources/a.yaml", mysql_source("mysql://root@127.0.0.1:1", "a.*")),
        ("sinks/broker.yaml", "kind: kafka\nurl: kafka://127.0.0.1:1\n".into()),
        ("flows/f.yaml", "from: a\nto: broker\noptions: {transactions: \"{source}.ends\"}\n".into()),
        ("flows/g.yaml", "from: a\nto: broker\noptions: {transactions: a.ends}\n".into()),
    ]);
    let (code, out, err) = node.run(&["check"]);
    let text = format!("{out}{err}");
    assert!(code != 0 && text.contains("flows/g.yaml") && text.contains("the flow `f` too"), "{text}");

    let (server, kafka) =
        tokio::try_join!(MySql::start(MySqlOptions::default()), Kafka::start(KafkaOptions::default()))
            .unwrap();
    run_all(&server, &["CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)"]).await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: {}\n", kafka.url())),
        ("flows/f.yaml", "from: shop\nto: broker\noptions: {topic: all, transactions: all}\n".into()),
    ]);
    node.start();
    let status = node.wait("it stops", |s| s["flows"][0]["state"] == "failed").await;
    let error = &status["flows"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains("the topic of `transactions`"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("a topic of its own"), "{error}");
}
