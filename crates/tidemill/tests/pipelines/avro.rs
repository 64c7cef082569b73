//! `format: avro`: messages that another implementation of Avro reads by the schemas that a real registry keeps, while the
//! registry is killed and tables change; and the way back, from such topics into a journal.

use crate::node::{Node, mysql_source, run_all, sqlite_rows};
use apache_avro::types::Value as Avro;
use apache_avro::{Schema, from_avro_datum};
use serde_json::{Value, json};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use testkit::{Kafka, KafkaOptions, MySql, MySqlOptions, Registry, RegistryOptions};

const TOPIC: &str = "shop.shop.orders";

async fn shop() -> MySql {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let make = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, name VARCHAR(40), total DECIMAL(10,2) NOT NULL, note LONGTEXT)",
        "INSERT INTO shop.orders VALUES (1, 'Ada', 12.50, NULL), (2, 'Bob', -0.01, 'hi')",
    ];
    run_all(&server, &make).await;
    server
}

fn broker(kafka: &Kafka, registry: &str) -> String {
    format!("kind: kafka\nurl: {}\nschema_registry: {registry}\n", kafka.url())
}

async fn get(url: &str) -> Value {
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

/// What consumers of the topic read, each message by the schema that it names: its partition, key and value.
async fn read(kafka: &Kafka, registry: &Registry, topic: &str) -> Vec<(i32, Option<Avro>, Option<Avro>)> {
    let mut schemas = BTreeMap::new();
    let mut out = Vec::new();
    for record in kafka.messages(topic).await.unwrap() {
        let mut parts = Vec::new();
        for bytes in [&record.key_bytes, &record.value_bytes] {
            let Some(bytes) = bytes else {
                parts.push(None);
                continue;
            };
            assert_eq!(bytes[0], 0, "the magic byte");
            let id = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
            if let Entry::Vacant(place) = schemas.entry(id) {
                let told = get(&format!("{}/schemas/ids/{id}", registry.url())).await;
                place.insert(Schema::parse_str(told["schema"].as_str().unwrap()).unwrap());
            }
            let mut rest = &bytes[5..];
            parts.push(Some(from_avro_datum(&schemas[&id], &mut rest, None).unwrap()));
            assert!(rest.is_empty());
        }
        let value = parts.pop().unwrap();
        out.push((record.partition, parts.pop().unwrap(), value));
    }
    out
}

fn member<'a>(value: &'a Avro, name: &str) -> &'a Avro {
    let value = if let Avro::Union(_, inner) = value { inner } else { value };
    let Avro::Record(fields) = value else { panic!("no record: {value:?}") };
    let found = &fields.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("no `{name}`")).1;
    if let Avro::Union(_, inner) = found { inner } else { found }
}

/// The rows that a reader of the topic ends with, by their ids; each with its columns.
fn last_rows(messages: &[(i32, Option<Avro>, Option<Avro>)]) -> BTreeMap<i32, Vec<String>> {
    let mut rows = BTreeMap::new();
    for (_, key, value) in messages {
        let Avro::Int(id) = member(key.as_ref().unwrap(), "id") else { panic!("{key:?}") };
        let Some(value) = value else {
            rows.remove(id);
            continue;
        };
        match member(value, "after") {
            Avro::Null => rows.remove(id),
            Avro::Record(columns) => {
                let text = |value: &Avro| match value {
                    Avro::Union(_, inner) => format!("{inner:?}"),
                    other => format!("{other:?}"),
                };
                rows.insert(
                    *id,
                    columns.iter().map(|(name, value)| format!("{name} {}", text(value))).collect(),
                )
            }
            other => panic!("{other:?}"),
        };
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_read_by_the_registrys_schemas_while_it_is_killed_and_tables_change() {
    let server = shop().await;
    let registry = Registry::start(RegistryOptions::default()).await.unwrap();
    let settings = vec!["num.partitions=3".into()];
    let kafka = Kafka::start(KafkaOptions { settings, ..Default::default() }).await.unwrap();
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/broker.yaml", broker(&kafka, &registry.url())),
        ("flows/avro.yaml", "from: shop\nto: broker\noptions: {format: avro, exactly_once: true}\n".into()),
    ]);
    node.start();
    node.wait("the snapshot is delivered", |s| s["flows"][0]["lsn"] == 2).await;
    // Kafka answers before it shows the end of a transaction.
    node.until("it can be read", || async { kafka.messages(TOPIC).await.unwrap().len() == 2 }).await;
    let first = read(&kafka, &registry, TOPIC).await;
    let value = first[0].2.as_ref().unwrap();
    assert_eq!((member(value, "op"), member(value, "before")), (&Avro::String("r".into()), &Avro::Null));
    assert_eq!(member(member(value, "source"), "table"), &Avro::String("orders".into()));
    let subjects = get(&format!("{}/subjects", registry.url())).await;
    let names: BTreeSet<_> = subjects.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["shop.shop.orders-key", "shop.shop.orders-value"]));

    // What is known needs no registry.
    registry.kill9();
    run_all(&server, &["UPDATE shop.orders SET id = 3 WHERE id = 2", "DELETE FROM shop.orders WHERE id = 1"])
        .await;
    node.wait("known schemas go on", |s| s["flows"][0]["lsn"] == 4).await;
    // What is new waits for it, also over a kill.
    run_all(
        &server,
        &[
            "ALTER TABLE shop.orders ADD COLUMN more BIGINT UNSIGNED",
            "INSERT INTO shop.orders VALUES (4, 'Eve', 1.00, NULL, 18446744073709551615)",
        ],
    )
    .await;
    let status = node.wait("it is told", |s| !s["flows"][0]["error"].is_null()).await;
    let error = &status["flows"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains("schema registry"), "{error}");
    assert_eq!(status["flows"][0]["dead_letters"], 0);
    node.kill9();
    node.start();
    run_all(&server, &["INSERT INTO shop.orders VALUES (5, 'Fay', 2.00, 'x', NULL)"]).await;
    node.wait("it is told again", |s| !s["flows"][0]["error"].is_null()).await;
    registry.restart().await.unwrap();
    let end = node
        .wait("all is delivered", |s| {
            s["flows"][0]["error"].is_null()
                && s["flows"][0]["lsn"] == s["sources"][0]["lsn"]
                && s["flows"][0]["lsn"].as_u64() >= Some(7)
        })
        .await;
    assert_eq!(end["flows"][0]["dead_letters"], 0, "{end:#}");

    // A schema that the subject's rule forbids stops the flow until someone decides.
    let client = reqwest::Client::new();
    let rule = async |level: &str| {
        let url = format!("{}/config/{TOPIC}-value", registry.url());
        let body = json!({ "compatibility": level }).to_string();
        let answer =
            client.put(url).header("content-type", "application/json").body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    };
    rule("BACKWARD").await;
    run_all(
        &server,
        &[
            "ALTER TABLE shop.orders ADD COLUMN must INT NOT NULL",
            "INSERT INTO shop.orders VALUES (6, 'Gus', 3.00, NULL, 1, 7)",
        ],
    )
    .await;
    let status = node.wait("it is refused", |s| s["flows"][0]["state"] == "failed").await;
    let error = &status["flows"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains(&format!("`{TOPIC}-value`")), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("PUT /config"), "{error}");
    rule("NONE").await;
    node.wait("it goes on by itself", |s| {
        s["flows"][0]["state"] == "running" && s["flows"][0]["lsn"] == s["sources"][0]["lsn"]
    })
    .await;
    let wanted: Vec<(i32, u64)> =
        server.query("SELECT id, COALESCE(more, 0) FROM shop.orders ORDER BY id").await.unwrap();
    node.until("the topic's rows are the source's", || async {
        let rows = last_rows(&read(&kafka, &registry, TOPIC).await);
        rows.len() == wanted.len() && wanted.iter().all(|(id, _)| rows.contains_key(id))
    })
    .await;
    let all = read(&kafka, &registry, TOPIC).await;
    let rows = last_rows(&all);
    let eve = &rows[&4];
    assert!(eve.contains(&"more Long(-1)".to_owned()), "Java has no unsigned long: {eve:?}");
    assert!(rows[&6].contains(&"must Int(7)".to_owned()), "{rows:?}");
    let gone: Vec<_> =
        all.iter().filter(|(_, key, _)| member(key.as_ref().unwrap(), "id") == &Avro::Int(1)).collect();
    assert!(gone.last().unwrap().2.is_none(), "a tombstone: {gone:?}");
    for id in rows.keys() {
        let of = all.iter().filter(|(_, key, _)| member(key.as_ref().unwrap(), "id") == &Avro::Int(*id));
        let partitions: BTreeSet<_> = of.map(|(partition, ..)| partition).collect();
        assert_eq!(partitions.len(), 1, "a row stays in its partition");
    }
    let (code, out, err) = node.run(&["flow", "verify", "avro"]);
    assert_eq!(code, 0, "{out}{err}");
    let text = kafka.messages(TOPIC).await.unwrap();
    let key =
        text.iter().find(|record| record.key_bytes.as_ref().is_some_and(|key| key.ends_with(&[12]))).unwrap();
    let (partition, key) =
        (key.partition, String::from_utf8(key.key_bytes.as_ref().unwrap().to_vec()).unwrap());
    kafka.produce(TOPIC, partition, &[(Some(&key), None)]).await.unwrap();
    let (code, out, err) = node.run(&["flow", "verify", "avro"]);
    assert_eq!(code, 4, "the row 6 was deleted in the topic by someone else: {out}{err}");
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_no_message_holds_is_parked_and_the_others_go_on() {
    let server = shop().await;
    let registry = Registry::start(RegistryOptions::default()).await.unwrap();
    let settings = vec!["message.max.bytes=20000".into()];
    let kafka = Kafka::start(KafkaOptions { settings, ..Default::default() }).await.unwrap();
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/broker.yaml", broker(&kafka, &registry.url())),
        ("flows/avro.yaml", "from: shop\nto: broker\noptions: {format: avro}\n".into()),
        (
            "flows/once.yaml",
            "from: shop\nto: broker\noptions: {format: avro, exactly_once: true, topic: once}\n".into(),
        ),
    ]);
    node.start();
    node.wait("the snapshot is delivered", |s| (0..2).all(|i| s["flows"][i]["lsn"] == 2)).await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.orders VALUES (3, 'large', 1, REPEAT('x', 50000)), (4, 'small', 1, 'y')",
            "UPDATE shop.orders SET name = 'last' WHERE id = 1",
        ],
    )
    .await;
    node.wait("one is parked", |s| {
        (0..2).all(|i| s["flows"][i]["lsn"] == 5 && s["flows"][i]["dead_letters"] == 1)
    })
    .await;
    for (flow, topic) in [("avro", TOPIC), ("once", "once")] {
        node.until("the others can be read", || async {
            let rows = last_rows(&read(&kafka, &registry, topic).await);
            rows.keys().eq([1, 2, 4].iter()) && rows[&1].iter().any(|cell| cell.contains("last"))
        })
        .await;
        let (_, out, err) = node.run(&["flow", "dead-letters", flow]);
        assert!(out.contains("max.message.bytes"), "{out}{err}");
    }
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_in_avro_are_a_source_also_when_the_registry_is_killed() {
    let server = shop().await;
    let registry = Registry::start(RegistryOptions::default()).await.unwrap();
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let source = |on_bad: &str| {
        format!(
            "kind: kafka\nurl: {}\nschema_registry: {}\ntopics: [\"shop.*\"]\n{on_bad}options: {{format: avro}}\n",
            kafka.url(),
            registry.url()
        )
    };
    let mut writer = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/broker.yaml", broker(&kafka, &registry.url())),
        ("flows/out.yaml", "from: shop\nto: broker\noptions: {format: avro}\n".into()),
    ]);
    let mut node = Node::new(&[
        ("sources/topics.yaml", source("")),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/back.yaml", "from: topics\nto: copy\n".into()),
    ]);
    writer.start();
    node.start();
    let columns = "id, name, total, note";
    let copy = node.path("copy.db");
    let equal = async |columns: &str| {
        let listed = columns.replace(", ", ", '|', ");
        let sql = format!("SELECT CONCAT({}) FROM shop.orders ORDER BY id", null_safe(&listed));
        let wanted: Vec<String> = server.query(&sql).await.unwrap();
        let own = sqlite_rows(&copy, &format!("SELECT {columns} FROM orders ORDER BY id"));
        own.iter().map(|row| row.join("|")).eq(wanted)
    };
    node.until("the rows came back", || equal(columns)).await;
    let changes =
        ["UPDATE shop.orders SET id = 9, total = 99.99 WHERE id = 2", "DELETE FROM shop.orders WHERE id = 1"];
    run_all(&server, &changes).await;
    node.until("changes came back", || equal(columns)).await;
    node.stop();

    // A reader that begins needs the registry for what is there, and waits for it.
    run_all(&server, &["INSERT INTO shop.orders VALUES (12, 'late', 3.00, NULL)"]).await;
    writer.wait("it is in the topic", |s| s["flows"][0]["lsn"] == 5).await;
    registry.kill9();
    node.start();
    let error = |s: &Value| s["sources"][0]["error"]["message"].as_str().unwrap_or_default().to_owned();
    node.wait("it is told", |s| error(s).contains("schema registry")).await;
    registry.restart().await.unwrap();
    node.until("all came", || equal(columns)).await;
    run_all(
        &server,
        &[
            "ALTER TABLE shop.orders ADD COLUMN more INT",
            "INSERT INTO shop.orders VALUES (10, 'Eve', 1.00, 'n', 5)",
        ],
    )
    .await;
    node.until("a new column came", || equal("id, name, total, note, more")).await;

    // What no schema is of stops the source, or is passed over.
    let bad = [(Some("k"), Some("{\"id\": 1}")), (Some("k"), Some("\0\0\0\u{27}\u{f}\u{2}"))];
    kafka.produce(TOPIC, 0, &bad).await.unwrap();
    run_all(&server, &["INSERT INTO shop.orders VALUES (11, 'Fay', 2.00, NULL, 6)"]).await;
    let status = node.wait("it is told", |s| error(s).contains("cannot be read")).await;
    assert!(error(&status).contains("does not begin as a message with a schema"), "{}", error(&status));
    node.stop();
    node.write("sources/topics.yaml", &source("on_bad: skip\n"));
    node.start();
    node.until("the rest came", || equal("id, name, total, note, more")).await;
    let status = node.wait("two were passed over", |s| s["sources"][0]["skipped_messages"] == 2).await;
    assert_eq!(error(&status), "");
    let log = std::fs::read_to_string(node.path("tidemill.log")).unwrap();
    assert!(log.contains("the registry has no Avro schema 9999"), "{log}");
    node.stop();
    writer.stop();
}

/// NULL as text, for CONCAT.
fn null_safe(columns: &str) -> String {
    let parts = columns
        .split(", ")
        .map(|part| if part == "'|'" { part.to_owned() } else { format!("COALESCE({part}, 'NULL')") });
    parts.collect::<Vec<_>>().join(", ")
}

#[test]
fn check_tells_what_avro_needs() {
    let check = |sink: &str, options: &str, source: &str| {
        let node = Node::new(&[
            ("sources/a.yaml", mysql_source("mysql://root@127.0.0.1:1", "a.*")),
            ("sources/b.yaml", source.to_owned()),
            ("sinks/out.yaml", sink.to_owned()),
            ("flows/f.yaml", format!("from: a\nto: out\noptions: {options}\n")),
        ]);
        let (code, out, err) = node.run(&["check"]);
        (code, format!("{out}{err}"))
    };
    let kafka = "kind: kafka\nurl: kafka://127.0.0.1:1\n";
    let with = |registry: &str| format!("{kafka}schema_registry: {registry}\n");
    let topics = "kind: kafka\nurl: kafka://127.0.0.1:1\ntopics: [\"t\"]\n";
    let http = "kind: http\ntables: [\"a.*\"]\n";
    let good = with("http://user:secret@127.0.0.1:8081/x");
    for (sink, options, source, reason) in [
        (kafka, "{format: avro}", topics, "needs a schema registry, and the sink `out` has none"),
        (&good, "{format: avro, key: \"{id}\"}", topics, "`key` is not supported with `format: avro`"),
        (&with("ftp://user:secret@h"), "{}", topics, "`schema_registry` does not begin with http://"),
        (&with("http://user:secret@h:x"), "{}", topics, "`x` in the url is not a port"),
        ("kind: stdout\n", "{format: avro}", topics, "it is for topics of Kafka"),
        ("kind: stdout\nschema_registry: http://h\n", "{}", topics, "`schema_registry` means nothing"),
        (&good, "{}", &format!("{topics}options: {{format: avro}}\n"), "needs a schema registry"),
        (&good, "{}", &format!("{http}options: {{format: avro}}\n"), "for sources of kafka only"),
        (&good, "{}", &format!("{http}schema_registry: http://h\n"), "`schema_registry` means nothing"),
    ] {
        let (code, text) = check(sink, options, source);
        assert!(code == 2 && text.contains(reason), "{sink} {options} {source}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    let whole = format!("{topics}schema_registry: http://h:8081\noptions: {{format: avro}}\n");
    let (code, text) = check(&good, "{format: avro}", &whole);
    assert_eq!(code, 0, "{text}");
}
