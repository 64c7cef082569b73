//! Kafka as a source: what our sink wrote in each format comes back as it was, whatever is killed; and what other producers
//! write, and do to their topics.

use crate::node::{Node, assert_dense, mysql_source, run_all, sqlite_rows};
use crate::random::Rng;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use testkit::{
    Kafka, KafkaCompression, KafkaOptions, MySql, MySqlOptions, Registry, RegistryOptions, SqlServer,
};

const TABLE: &str = "CREATE TABLE shop.types (id INT PRIMARY KEY, bu BIGINT UNSIGNED, i INT UNSIGNED, t TINYINT, n DECIMAL(20,5), \
    big DECIMAL(65,30), f FLOAT, d DOUBLE, dt DATE, ti TIME(3), d0 DATETIME, d6 DATETIME(6), ts TIMESTAMP(3) NULL, y YEAR, \
    v VARCHAR(40), x LONGTEXT, bin VARBINARY(20), e ENUM('red','it''s','绿'), st SET('a','b','c'), j JSON, b1 BIT(1), b9 BIT(9))";
/// As text, so that sinks of any kind compare.
const COLUMNS: &str =
    "id, bu, i, t, n, big, f, d, dt, ti, d0, d6, ts, y, v, x, HEX(bin), e, st, j, b1+0, b9+0";
/// What messages without a schema do not say.
const DECLARED: &str = "declare: {\"shop.types\": {columns: {bu: bigint unsigned, i: int unsigned, t: tinyint, \
    n: \"decimal(20,5)\", big: \"decimal(65,30)\", f: float, d: double, dt: date, ti: time(3), d0: datetime, d6: datetime(6), \
    ts: timestamp(3), y: year, v: varchar(40), x: longtext, bin: varbinary(20), e: \"enum('red','it''s','绿')\", \
    st: \"set('a','b','c')\", j: json, b1: bit(1), b9: bit(9)}}}\n";
/// What Debezium's schema does not say: Java has no unsigned long, and fraction digits are three or six.
const DECLARED_BESIDE: &str = "declare: {\"shop.*\": {columns: {bu: bigint unsigned, ti: time(3), d0: datetime, \
                               ts: timestamp(3)}}}\n";

async fn text_rows(server: &SqlServer, table: &str) -> Vec<Vec<Option<String>>> {
    let columns: Vec<_> = split_columns().iter().map(|c| format!("CAST({c} AS CHAR)")).collect();
    let sql = format!("SELECT JSON_ARRAY({}) FROM {table} ORDER BY id", columns.join(", "));
    let rows: Vec<String> = server.query(&sql).await.unwrap_or_default();
    rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

fn split_columns() -> Vec<&'static str> {
    COLUMNS.split(", ").collect()
}

fn kafka_source(url: &str, topics: &str, format: &str, rest: &str) -> String {
    format!("kind: kafka\nurl: {url}\ntopics: [\"{topics}\"]\noptions: {{format: {format}}}\n{rest}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_back_through_kafka_as_they_were_in_every_format() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &["CREATE DATABASE shop", TABLE]).await;
    let full = "18446744073709551615, 4294967295, -128, -99999.12345, 12345678901234567890123456789012345.123456789012345678901234567890, \
                0.1, -1e300, '2026-02-28', '-838:59:59.000', '2026-01-02 03:04:05', '2026-01-02 03:04:05.123456', \
                '2026-01-02 03:04:05.120', 1999, '绿 😀 \"q\" \\\\ ', REPEAT('long ', 9000), X'00FF80', 'it''s', 'a,c', \
                '{\"k\": [1, 2.5, null, \"a: b, c\"], \"z\": {}}', 1, 257";
    run_all(
        &server,
        &[
            &format!("INSERT INTO shop.types VALUES (1, {full}), (2, {full})"),
            "INSERT INTO shop.types (id) VALUES (3)",
        ],
    )
    .await;
    let kafka =
        Kafka::start(KafkaOptions { settings: vec!["num.partitions=3".into()], ..Default::default() })
            .await
            .unwrap();
    let registry = Registry::start(RegistryOptions::default()).await.unwrap();
    let in_avro = format!("schema_registry: {}\n{DECLARED_BESIDE}", registry.url());
    let copies = [
        ("avro", "avro", "", &in_avro[..]),
        ("json", "json", "", DECLARED),
        ("debezium", "debezium", "", DECLARED),
        ("schemas", "debezium", "schemas: true, ", DECLARED_BESIDE),
        ("maxwell", "maxwell", "", DECLARED),
        ("canal", "canal", "", ""),
    ];
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        (
            "sinks/broker.yaml",
            format!("kind: kafka\nurl: {}\nschema_registry: {}\n", kafka.url(), registry.url()),
        ),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
    ]);
    for (name, format, schemas, declare) in copies {
        let options = format!("format: {format}, {schemas}topic: \"{name}.{{table}}\"");
        node.write(
            &format!("flows/to_{name}.yaml"),
            &format!("from: shop\nto: broker\noptions: {{{options}}}\n"),
        );
        node.write(
            &format!("sources/{name}.yaml"),
            &kafka_source(&kafka.url(), &format!("{name}.*"), format, declare),
        );
        let route = format!("from: {name}\nto: db\nroute: {{\"shop.*\": \"copy_{name}.*\"}}\n");
        node.write(&format!("flows/from_{name}.yaml"), &route);
    }
    node.start();
    let equal = async || {
        let wanted = text_rows(&server, "shop.types").await;
        for (name, ..) in copies {
            node.until(&format!("{name} equals the source"), || async {
                let own = text_rows(&server, &format!("copy_{name}.types")).await;
                own == wanted || {
                    let other =
                        own.iter().flatten().zip(wanted.iter().flatten()).find(|(own, wanted)| own != wanted);
                    println!("{name}: {} rows, {other:?}", own.len());
                    false
                }
            })
            .await;
        }
    };
    equal().await;
    let statements = [
        "UPDATE shop.types SET bu = 5, v = NULL, j = '[]', st = '' WHERE id = 1",
        "UPDATE shop.types SET id = 40 WHERE id = 2",
        "INSERT INTO shop.types (id, v, e, bu) VALUES (5, '', '绿', 9223372036854775808)",
        "DELETE FROM shop.types WHERE id = 3",
    ];
    run_all(&server, &statements).await;
    equal().await;
    let status = node
        .wait("nothing is left", |s| {
            s["sources"]
                .as_array()
                .is_some_and(|all| all.iter().all(|s| s["lag_messages"].as_u64().unwrap_or(0) == 0))
        })
        .await;
    assert!(
        status["sources"].as_array().unwrap().iter().all(|s| s["state"] == "stream" && s["error"].is_null()),
        "{status:#}"
    );
    let lines = node.changes("canal");
    assert_dense(&lines);
    let update = lines.iter().find(|c| c["op"] == "update" && c["key"]["id"] == 1).unwrap();
    assert_eq!((&update["before"]["bu"], &update["after"]["bu"]), (&json!(u64::MAX), &json!(5)));
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert!(
        code == 0 && out.contains("sources/json.yaml: reads 1 topic with 3 partitions as json"),
        "{out}{err}"
    );
    let (_, out, _) = node.run(&["status"]);
    assert!(out.contains("json.types ") && out.contains("0 messages"), "{out}");
    node.stop();
}

fn plain_project(kafka: &Kafka, rest: &str) -> Node {
    Node::new(&[
        ("sources/apps.yaml", kafka_source(&kafka.url(), "shop.*", "plain", rest)),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/copy.yaml", "from: apps\nto: copy\n".into()),
    ])
}

async fn rows(node: &Node, sql: &str, wanted: &[&[&str]]) {
    let file = node.path("copy.db");
    node.until(sql, || async { sqlite_rows(&file, sql) == wanted }).await;
}

const KEYED: &str = "declare: {\"shop.*\": {key: [id]}}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_objects_become_rows_whose_columns_grow_and_widen() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("shop.users", 2).await.unwrap();
    let key = |id: u32| format!("{{\"id\":{id}}}");
    kafka.produce("shop.users", 0, &[(None, Some(r#"{"id":1,"name":"Ada","n":1}"#))]).await.unwrap();
    let mut node = plain_project(&kafka, KEYED);
    node.start();
    rows(&node, "SELECT id, name, n FROM users", &[&["1", "Ada", "1"]]).await;
    for (compression, value) in [
        (KafkaCompression::Gzip, r#"{"id":2,"name":"Bob","n":2.5}"#),
        (KafkaCompression::Snappy, r#"{"id":3,"name":"Cy","n":"three"}"#),
        (KafkaCompression::Lz4, r#"{"id":4,"name":"绿 😀","tags":["a"],"ok":true}"#),
        (KafkaCompression::Zstd, r#"{"id":1,"name":"Ada L.","n":null}"#),
    ] {
        kafka.produce_compressed("shop.users", 0, &[(None, Some(value))], compression).await.unwrap();
    }
    let wanted: [&[&str]; 4] = [
        &["1", "Ada L.", "NULL", "NULL", "NULL"],
        // A BIGINT that meets a fraction becomes an exact number, not a rounded one.
        &["2", "Bob", "2.500000000000000000000000000000", "NULL", "NULL"],
        &["3", "Cy", "three", "NULL", "NULL"],
        &["4", "绿 😀", "NULL", "[\"a\"]", "1"],
    ];
    rows(&node, "SELECT id, name, n, tags, ok FROM users ORDER BY id", &wanted).await;
    kafka.produce("shop.users", 0, &[(Some(&key(3)), None)]).await.unwrap();
    rows(&node, "SELECT id FROM users ORDER BY id", &[&["1"], &["2"], &["4"]]).await;
    // A partition and a topic that are made later are read from their beginning.
    kafka.add_partitions("shop.users", 3).await.unwrap();
    kafka.produce("shop.users", 2, &[(None, Some(r#"{"id":7,"name":"new partition"}"#))]).await.unwrap();
    kafka.create_topic("shop.later", 1).await.unwrap();
    kafka.produce("shop.later", 0, &[(None, Some(r#"{"id":8}"#))]).await.unwrap();
    rows(&node, "SELECT id, name FROM users WHERE id = 7", &[&["7", "new partition"]]).await;
    rows(&node, "SELECT id FROM later", &[&["8"]]).await;
    node.kill9();
    node.start();
    kafka.produce("shop.users", 1, &[(None, Some(r#"{"id":9,"name":"after the kill"}"#))]).await.unwrap();
    rows(&node, "SELECT name FROM users WHERE id = 9", &[&["after the kill"]]).await;
    let changes = node.changes("apps");
    assert_dense(&changes);
    assert_eq!(changes.iter().filter(|c| c["op"] != "ddl").count(), 9, "each message once: {changes:#?}");
    let ddl: Vec<_> = changes.iter().filter_map(|c| c["sql"].as_str()).collect();
    assert!(ddl.iter().any(|sql| sql.contains("ADD COLUMN `tags` json")), "{ddl:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_transactions_are_unseen_and_bad_messages_are_named_or_passed_over() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("shop.t", 1).await.unwrap();
    kafka.produce_txn("shop.t", 0, &[(None, Some(r#"{"id":1,"v":"kept"}"#))], true).await.unwrap();
    kafka
        .produce_txn("shop.t", 0, &[(None, Some(r#"{"id":1,"v":"aborted"}"#)), (None, Some("{{"))], false)
        .await
        .unwrap();
    kafka
        .produce(
            "shop.t",
            0,
            &[
                (None, Some(r#"{"id":2,"v":"plain"}"#)),
                (None, Some("not json")),
                (None, Some(r#"{"v":"no key"}"#)),
            ],
        )
        .await
        .unwrap();
    kafka.produce("shop.t", 0, &[(None, Some(r#"{"id":3,"v":"behind"}"#))]).await.unwrap();
    let mut node = plain_project(&kafka, KEYED);
    node.start();
    let status = node.wait("the bad message is told", |s| s["sources"][0]["state"] == "failed").await;
    let error = &status["sources"][0]["error"];
    let message = error["message"].as_str().unwrap();
    // Two transactions with their markers, and the message before it.
    assert!(
        message.contains("topic `shop.t`, partition 0, offset 6") && message.contains("not a JSON object"),
        "{message}"
    );
    assert!(error["hint"].as_str().unwrap().contains("on_bad: skip"), "{error}");
    rows(&node, "SELECT id, v FROM t ORDER BY id", &[&["1", "kept"], &["2", "plain"]]).await;
    assert_eq!(status["sources"][0]["lag_messages"], 3, "{status:#}");
    assert!(!node.log().contains("capture resumed"), "{}", node.log());
    node.stop();
    node.write(
        "sources/apps.yaml",
        &kafka_source(&kafka.url(), "shop.*", "plain", &format!("on_bad: skip\n{KEYED}")),
    );
    node.start();
    rows(&node, "SELECT id, v FROM t ORDER BY id", &[&["1", "kept"], &["2", "plain"], &["3", "behind"]])
        .await;
    let status = node.wait("both are counted", |s| s["sources"][0]["skipped_messages"] == 2).await;
    assert_eq!(status["sources"][0]["position"]["offsets"]["shop.t"], json!([9]));
    assert_eq!(node.changes("apps").len(), 3);
    let metrics =
        reqwest::get(format!("http://{}/metrics", node.address())).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tidemill_flow_skipped_messages_total{source=\"apps\"} 2"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_again_is_a_gap_that_the_policy_decides() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("shop.t", 1).await.unwrap();
    kafka.produce("shop.t", 0, &[(None, Some(r#"{"id":1}"#)), (None, Some(r#"{"id":2}"#))]).await.unwrap();
    let mut node = plain_project(&kafka, KEYED);
    node.start();
    rows(&node, "SELECT id FROM t ORDER BY id", &[&["1"], &["2"]]).await;
    kafka.delete_topic("shop.t").await.unwrap();
    let made = async || kafka.create_topic("shop.t", 1).await.is_ok();
    node.until("the topic is made again", made).await;
    // More than there was: by offsets alone nothing would be missing.
    let again: Vec<String> = (10..20).map(|id| format!("{{\"id\":{id}}}")).collect();
    let again: Vec<_> = again.iter().map(|value| (None, Some(value.as_str()))).collect();
    kafka.produce("shop.t", 0, &again).await.unwrap();
    let status = node.wait("the gap is told", |s| s["sources"][0]["state"] == "failed").await;
    let error = &status["sources"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains("deleted and made again"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("on_gap: resnapshot"), "{error}");
    assert_eq!(node.changes("apps").len(), 2, "nothing of the other topic was taken");
    node.stop();
    node.write(
        "sources/apps.yaml",
        &kafka_source(&kafka.url(), "shop.*", "plain", &format!("on_gap: resnapshot\n{KEYED}")),
    );
    node.start();
    rows(&node, "SELECT count(*), min(id), max(id) FROM t", &[&["10", "10", "19"]]).await;
    let changes = node.changes("apps");
    assert_dense(&changes);
    assert_eq!((changes[2]["op"].as_str(), changes[2]["epoch"].as_u64()), (Some("truncate"), Some(2)));
    assert_eq!(changes.len(), 2 + 1 + 10);
    // A resnapshot that is asked for reads the topic again.
    let (code, out, err) = node.run(&["flow", "resnapshot", "copy"]);
    assert!(code == 0 && out.contains("shop.t"), "{out}{err}");
    node.wait("all is read again", |s| s["sources"][0]["lsn"] == 24 && s["flows"][0]["lsn"] == 24).await;
    rows(&node, "SELECT count(*) FROM t", &[&["10"]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_repeated_whatever_is_killed() {
    let seed = 20_261_126;
    let kafka = Kafka::start(KafkaOptions { by_proxy: true, ..Default::default() }).await.unwrap();
    kafka.create_topic("shop.t", 3).await.unwrap();
    let mut node = plain_project(&kafka, KEYED);
    let mut rng = Rng::new(seed);
    println!("seed {seed}");
    let mut sent = 0u64;
    node.start();
    for round in 0..12 {
        for _ in 0..rng.below(15) + 3 {
            let partition = rng.below(3);
            let count = rng.below(40) + 1;
            let values: Vec<String> = (0..count)
                .map(|n| {
                    // A key stays in its partition.
                    let id = rng.below(100) * 3 + partition;
                    format!("{{\"id\":{id},\"sent\":{},\"round\":{round}}}", sent + n)
                })
                .collect();
            let values: Vec<_> = values.iter().map(|value| (None, Some(value.as_str()))).collect();
            kafka.produce("shop.t", partition as i32, &values).await.unwrap();
            sent += count;
        }
        match rng.below(4) {
            0 => {
                kafka.kill9();
                kafka.restart().await.unwrap();
            }
            1 => {
                let proxy = kafka.proxy().unwrap();
                proxy.set(testkit::Fault::Cut).await;
                proxy.set(testkit::Fault::Pass).await;
            }
            _ => {
                node.kill9();
                node.start();
            }
        }
    }
    node.wait("all is captured and delivered", |s| {
        s["sources"][0]["lsn"].as_u64() == Some(sent) && s["flows"][0]["lsn"].as_u64() == Some(sent)
    })
    .await;
    let changes = node.changes("apps");
    assert_dense(&changes);
    let mut seen = BTreeSet::new();
    let mut last: std::collections::BTreeMap<u64, u64> = std::collections::BTreeMap::new();
    for change in &changes {
        let (id, number) =
            (change["after"]["id"].as_u64().unwrap(), change["after"]["sent"].as_u64().unwrap());
        assert!(seen.insert(number), "{number} is there twice, seed {seed}");
        let before = last.insert(id, number);
        assert!(before.is_none_or(|before| before < number), "a key went back, seed {seed}");
    }
    assert_eq!(seen.len() as u64, sent);
    let wanted: Vec<Vec<String>> =
        last.iter().map(|(id, number)| vec![id.to_string(), number.to_string()]).collect();
    assert_eq!(sqlite_rows(&node.path("copy.db"), "SELECT id, sent FROM t ORDER BY id"), wanted);
    let (code, out, err) = node.run(&["tail", "apps", "--from", "start", "--limit", "1"]);
    let first: Value = serde_json::from_str(out.lines().next().unwrap_or_default()).unwrap_or_default();
    assert!(
        code == 0 && first["txn"]["id"].as_str().is_some_and(|id| id.starts_with("shop.t-")),
        "{out}{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_retention_took_are_a_gap_and_skip_goes_on_behind_it() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("shop.t", 1).await.unwrap();
    let send = async |id: u32| {
        let value = format!("{{\"id\":{id}}}");
        kafka.produce("shop.t", 0, &[(None, Some(&value))]).await.unwrap();
    };
    send(1).await;
    let mut node = plain_project(&kafka, KEYED);
    node.start();
    rows(&node, "SELECT id FROM t", &[&["1"]]).await;
    node.stop();
    for id in 2..=5 {
        send(id).await;
    }
    kafka.delete_records("shop.t", 0, 3).await.unwrap();
    node.start();
    let status = node.wait("the gap is told", |s| s["sources"][0]["state"] == "failed").await;
    let message = status["sources"][0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("no longer has the records at offsets 1 to 2"), "{message}");
    node.stop();
    let skip = format!("on_gap: skip\n{KEYED}");
    node.write("sources/apps.yaml", &kafka_source(&kafka.url(), "shop.*", "plain", &skip));
    node.start();
    rows(&node, "SELECT id FROM t ORDER BY id", &[&["1"], &["4"], &["5"]]).await;
    assert_eq!(node.changes("apps")[1]["epoch"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_logs_in_and_a_wrong_password_is_told_and_never_shown() {
    let user = Some(("alice".to_owned(), "p@s:secret".to_owned()));
    let kafka = Kafka::start(KafkaOptions { user, ..Default::default() }).await.unwrap();
    kafka.create_topic("shop.t", 1).await.unwrap();
    kafka.produce("shop.t", 0, &[(None, Some(r#"{"id":1}"#))]).await.unwrap();
    let url = |password: &str| {
        kafka.url().replace("kafka://", &format!("kafka://alice:{password}@")) + "?sasl=scram-sha-512"
    };
    let source = |password: &str| kafka_source(&format!("\"{}\"", url(password)), "shop.*", "plain", KEYED);
    let mut node = plain_project(&kafka, KEYED);
    node.write("sources/apps.yaml", &source("guessed-secret"));
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert!(code != 0 && err.contains("refuses the login") && !err.contains("secret"), "{err}");
    node.start();
    let status = node.wait("the refusal is told", |s| s["sources"][0]["state"] == "failed").await;
    let error = &status["sources"][0]["error"];
    assert!(error["hint"].as_str().unwrap().contains("sasl="), "{error}");
    node.stop();
    node.write("sources/apps.yaml", &source("p%40s%3Asecret"));
    node.start();
    rows(&node, "SELECT id FROM t", &[&["1"]]).await;
    assert!(!node.log().contains("secret"));
}

#[test]
fn check_names_what_a_kafka_source_lacks_and_what_others_do_not_know() {
    let check = |source: &str| {
        let node = Node::new(&[
            ("sources/a.yaml", source.to_owned()),
            ("sinks/out.yaml", "kind: stdout\n".into()),
            ("flows/f.yaml", "from: a\nto: out\n".into()),
        ]);
        let (code, out, err) = node.run(&["check"]);
        (code, format!("{out}{err}"))
    };
    let url = "kind: kafka\nurl: kafka://127.0.0.1:1\n";
    for (source, wanted) in [
        (url.to_owned(), "a kafka source needs `topics`"),
        (format!("{url}topics: [a]\noptions: {{server_id: 5}}\n"), "`server_id` means nothing"),
        (format!("{url}topics: [a]\nsnapshot: never\n"), "`snapshot` means nothing"),
        (
            format!("{url}topics: [a]\ndeclare: {{\"a.b\": {{columns: {{c: strange}}}}}}\n"),
            "`strange` is not supported",
        ),
        (format!("{url}topics: [a]\ndeclare: {{b: {{key: [id]}}}}\n"), "`b` is not a table pattern"),
        ("kind: kafka\nurl: nats://127.0.0.1:1\ntopics: [a]\n".into(), "does not begin with kafka://"),
        (mysql_source("mysql://root@127.0.0.1:1", "a.*") + "on_bad: skip\n", "`on_bad` means nothing"),
        ("kind: mysql\nurl: mysql://root@127.0.0.1:1\n".into(), "`tables` is missing"),
    ] {
        let (code, text) = check(&source);
        assert!(code == 2 && text.contains(wanted), "{source}: {code} {text}");
    }
    let (code, text) = check(&format!("{url}topics: [a]\n"));
    assert_eq!(code, 0, "{text}");
}
