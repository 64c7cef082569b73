//! Kafka as a sink: every change in the order of its key, whatever is killed; once where transactions are asked for.

use crate::node::{Node, mysql_source, run_all};
use crate::random::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use testkit::{Fault, Kafka, KafkaOptions, KafkaRecord, MySql, MySqlOptions, SqlServer};

pub async fn shop() -> MySql {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let make = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.users (id INT PRIMARY KEY, name VARCHAR(40), note LONGTEXT)",
        "INSERT INTO shop.users VALUES (1, 'Ada', NULL), (2, 'Bob', 'hi')",
    ];
    run_all(&server, &make).await;
    server
}

fn node(server: &SqlServer, url: &str, flows: &[(&str, &str)]) -> Node {
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: {url}\n")),
    ]);
    for (name, options) in flows {
        let text = format!("from: shop\nto: broker\noptions: {{{options}}}\n");
        node.write(&format!("flows/{name}.yaml"), &text);
    }
    node.env(&[("TIDEMILL_LOG", "info,flow=debug")]);
    node.start();
    node
}

pub fn lsn(record: &KafkaRecord) -> u64 {
    let header = record.headers.iter().find(|(name, _)| name == "lsn");
    header.map_or(0, |(_, value)| value.parse().unwrap())
}

/// The rows that a reader of the topic ends with, and whether any key ever went back in time.
pub fn last_rows(records: &[KafkaRecord]) -> BTreeMap<i64, String> {
    let mut rows = BTreeMap::new();
    let mut seen: BTreeMap<i64, u64> = BTreeMap::new();
    for record in records {
        let body: Value = serde_json::from_str(record.value.as_deref().unwrap()).unwrap();
        let (lsn, id) = (body["lsn"].as_u64().unwrap(), body["key"]["id"].as_i64().unwrap());
        // A repeat begins at an older change and then tells all of them again.
        let newest = seen.entry(id).or_insert(0);
        if lsn < *newest {
            continue;
        }
        *newest = lsn;
        match &body["after"] {
            Value::Null => rows.remove(&id),
            after => rows.insert(id, after["name"].as_str().unwrap().to_owned()),
        };
    }
    rows
}

pub async fn source_rows(server: &SqlServer) -> BTreeMap<i64, String> {
    let rows: Vec<(i64, String)> = server.query("SELECT id, name FROM shop.users").await.unwrap();
    rows.into_iter().collect()
}

async fn write(server: &SqlServer, rng: &mut Rng, statements: u32) {
    for number in 0..statements {
        let id = rng.below(60);
        let sql = match rng.below(3) {
            0 => format!("REPLACE INTO shop.users VALUES ({id}, 'new {number}', 'x')"),
            1 => format!("UPDATE shop.users SET name = 'seen {number}' WHERE id BETWEEN {id} AND {}", id + 9),
            _ => format!("DELETE FROM shop.users WHERE id = {id}"),
        };
        server.exec(&sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_have_every_change_also_when_all_is_killed() {
    let server = shop().await;
    let options =
        KafkaOptions { by_proxy: true, settings: vec!["num.partitions=3".into()], ..Default::default() };
    let kafka = Kafka::start(options).await.unwrap();
    let flows = [("a", "topic: \"once.{table}\", exactly_once: true"), ("b", "topic: \"more.{table}\"")];
    let mut node = node(&server, &kafka.url(), &flows);
    let mut rng = Rng::new(7);
    let proxy = kafka.proxy().unwrap();
    for round in 0..6 {
        write(&server, &mut rng, 60).await;
        match round {
            0 => node.kill9(),
            1 => proxy.set(Fault::Cut).await,
            2 => kafka.kill9(),
            3 => proxy.set(Fault::HalfOpen).await,
            4 => node.stop(),
            _ => {}
        }
        write(&server, &mut rng, 60).await;
        proxy.set(Fault::Pass).await;
        if !kafka.is_running() {
            kafka.restart().await.unwrap();
        }
        if matches!(round, 0 | 4) {
            node.start();
        }
    }
    server.exec("REPLACE INTO shop.users VALUES (1, 'the end', NULL)").await.unwrap();
    let wanted = source_rows(&server).await;
    for topic in ["once.users", "more.users"] {
        node.until("the topic's rows are the source's", || async {
            last_rows(&kafka.messages(topic).await.unwrap()) == wanted
        })
        .await;
    }
    let end = node.changes("shop").len() as u64;
    node.wait("both are at the end", |s| (0..2).all(|i| s["flows"][i]["lsn"] == end)).await;
    let once = kafka.messages("once.users").await.unwrap();
    let mut lsns: Vec<u64> = once.iter().map(lsn).collect();
    for partition in 0..3 {
        let order: Vec<u64> = once.iter().filter(|r| r.partition == partition).map(lsn).collect();
        let log = std::fs::read_to_string(node.path("tidemill.log")).unwrap();
        assert!(!order.is_empty() && order.is_sorted(), "partition {partition}: {order:?}\n{log}");
    }
    lsns.sort_unstable();
    assert_eq!(lsns, (1..=end).collect::<Vec<_>>(), "each change once");
    let more = kafka.messages("more.users").await.unwrap();
    let mut lsns: Vec<u64> = more.iter().map(lsn).collect();
    lsns.sort_unstable();
    lsns.dedup();
    assert_eq!(lsns, (1..=end).collect::<Vec<_>>(), "each change at least once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_have_the_shape_that_the_flow_asks_for() {
    let server = shop().await;
    let settings = vec!["message.max.bytes=20000".into()];
    let kafka = Kafka::start(KafkaOptions { settings, ..Default::default() }).await.unwrap();
    let compact = "partitions: 4, topic_config: {cleanup.policy: compact}, tombstones: true";
    let flows = [
        ("a", format!("topic: \"a.{{table}}\", key: \"{{name}}:{{id}}\", {compact}")),
        ("b", "format: debezium, topic: \"b.{source}.{db}.{table}\", compression: zstd".to_owned()),
        ("c", "format: maxwell, topic: all, exactly_once: true, compression: gzip".to_owned()),
    ];
    let flows: Vec<_> = flows.iter().map(|(name, options)| (*name, options.as_str())).collect();
    let node = node(&server, &kafka.url(), &flows);
    node.wait("the snapshot is delivered", |s| (0..3).all(|i| s["flows"][i]["lsn"] == 2)).await;
    let statements = [
        "UPDATE shop.users SET id = 3 WHERE id = 2",
        "INSERT INTO shop.users VALUES (4, 'Eve', REPEAT('x', 50000)), (5, 'Fay', REPEAT('y', 15000)), (6, 'Gus', REPEAT('z', 15000))",
        "DELETE FROM shop.users WHERE id = 1",
    ];
    run_all(&server, &statements).await;
    node.wait("all is delivered", |s| (0..3).all(|i| s["flows"][i]["lsn"] == 7)).await;

    let ours = kafka.messages("a.users").await.unwrap();
    let of = |key: &str| -> Vec<Option<Value>> {
        let of_key = ours.iter().filter(|r| r.key.as_deref() == Some(key));
        of_key.map(|r| r.value.as_ref().map(|v| serde_json::from_str(v).unwrap())).collect()
    };
    let deleted = of("Ada:1");
    assert!(deleted.len() == 3 && deleted[2].is_none(), "{deleted:?}");
    assert_eq!(deleted[1].as_ref().unwrap()["op"], "delete");
    let moved = of("Bob:2");
    assert!(moved.len() == 2 && moved[1].is_none(), "{moved:?}");
    assert_eq!(of("Bob:3")[0].as_ref().unwrap()["before"]["id"], 2);
    let large = of("Eve:4")[0].clone().unwrap();
    assert_eq!((&large["ref"], &large["key"]), (&json!("/api/v1/changes/shop/4"), &json!({"id": 4})));
    let whole: Value = reqwest::get(format!("http://{}{}", node.address(), large["ref"].as_str().unwrap()))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(whole["after"]["note"].as_str().unwrap().len(), 50_000);
    assert_eq!(of("Gus:6")[0].as_ref().unwrap()["after"]["note"].as_str().unwrap().len(), 15_000);
    assert!(ours.iter().any(|r| r.partition > 0), "the keys are spread");
    let txn = &ours.iter().find(|r| r.key.as_deref() == Some("Bob:3")).unwrap().headers;
    assert_eq!(txn[0], ("epoch".into(), "1".into()));
    assert!(txn[2].0 == "txn" && txn[2].1.ends_with(|c: char| c.is_ascii_digit()), "{txn:?}");

    let debezium = kafka.messages("b.shop.shop.users").await.unwrap();
    let gone: Vec<_> = debezium.iter().filter(|r| r.key.as_deref() == Some("{\"id\":1}")).collect();
    let last: Value = serde_json::from_str(gone[1].value.as_deref().unwrap()).unwrap();
    assert!(gone.len() == 3 && last["op"] == "d" && gone[2].value.is_none(), "{gone:?}");
    let all = kafka.messages("all").await.unwrap();
    let first: Value = serde_json::from_str(all[0].value.as_deref().unwrap()).unwrap();
    assert_eq!((&first["type"], &first["data"]["name"]), (&json!("bootstrap-insert"), &json!("Ada")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_are_by_plain_and_scram_and_a_wrong_one_is_told() {
    let server = shop().await;
    let user = Some(("alice".to_owned(), "p@s:secret".to_owned()));
    let kafka = Kafka::start(KafkaOptions { user, ..Default::default() }).await.unwrap();
    let url = |password: &str, sasl: &str| {
        kafka.url().replace("kafka://", &format!("kafka://alice:{password}@")) + &format!("?sasl={sasl}")
    };
    let mut node = node(&server, &url("p%40s%3Asecret", "plain"), &[("a", "topic: a")]);
    for (name, password, sasl) in [
        ("b", "p%40s%3Asecret", "scram-sha-256"),
        ("c", "p%40s%3Asecret", "scram-sha-512"),
        ("d", "guessed", "plain"),
        ("e", "guessed", "scram-sha-256"),
    ] {
        node.write(
            &format!("sinks/{name}.yaml"),
            &format!("kind: kafka\nurl: \"{}\"\n", url(password, sasl)),
        );
        let flow = format!("from: shop\nto: {name}\noptions: {{topic: {name}}}\n");
        node.write(&format!("flows/{name}.yaml"), &flow);
    }
    node.kill9();
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert!(
        code != 0 && err.matches("refuses the login").count() == 2 && !err.contains("secret"),
        "{code} {err}"
    );
    node.start();
    let status = node
        .wait("three deliver, two are told", |s| {
            let state = |i: usize| s["flows"][i]["state"] == "failed";
            (0..3).all(|i| s["flows"][i]["lsn"] == 2) && state(3) && state(4)
        })
        .await;
    for flow in [3, 4] {
        let error = &status["flows"][flow]["error"];
        assert!(error["message"].as_str().unwrap().contains("refuses the login"), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("sasl="), "{error}");
    }
    for topic in ["a", "b", "c"] {
        assert_eq!(kafka.messages(topic).await.unwrap().len(), 2);
    }
    assert!(!node.log().contains("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_began_anew_and_a_topic_that_cannot_be_made_are_told() {
    let server = shop().await;
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let flows = [("a", "topic: a"), ("b", "topic: b, replication: 3")];
    let mut node = node(&server, &kafka.url(), &flows);
    let status =
        node.wait("one delivers", |s| s["flows"][0]["lsn"] == 2 && s["flows"][1]["state"] == "failed").await;
    let error = &status["flows"][1]["error"];
    assert!(error["message"].as_str().unwrap().contains("InvalidReplicationFactor"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("replication"), "{error}");
    node.stop();
    std::fs::remove_dir_all(node.path("data")).unwrap();
    node.start();
    let status = node.wait("the other journal is noticed", |s| s["flows"][0]["state"] == "failed").await;
    let message = status["flows"][0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("another journal"), "{message}");
    assert_eq!(kafka.messages("a").await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tables_whose_names_kafka_takes_for_one_do_not_share_a_topic() {
    let server = shop().await;
    for table in ["订单", "用户"] {
        run_all(&server, &[&format!("CREATE TABLE shop.`{table}` (id INT PRIMARY KEY)")]).await;
    }
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let all = "topic: all";
    let node = node(&server, &kafka.url(), &[("a", "topic: \"to.{table}\""), ("b", all)]);
    let status = node
        .wait("one flow is told", |s| s["flows"][0]["state"] == "failed" && s["flows"][1]["lsn"] == 2)
        .await;
    let error = &status["flows"][0]["error"];
    let message = error["message"].as_str().unwrap();
    assert!(["shop.订单", "shop.用户", "`to.__`"].iter().all(|name| message.contains(name)), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("route"), "{error}");
    // As the hint says.
    node.write(
        "flows/a.yaml",
        "from: shop\nto: broker\nroute: {\"shop.用户\": \"shop.members\"}\noptions: {topic: \"to.{table}\"}\n",
    );
    let mut node = node;
    node.stop();
    node.start();
    for table in ["订单", "用户"] {
        run_all(&server, &[&format!("INSERT INTO shop.`{table}` VALUES (1)")]).await;
    }
    for topic in ["to.__", "to.members"] {
        node.until("each has its topic", || async {
            kafka.messages(topic).await.is_ok_and(|rows| rows.len() == 1)
        })
        .await;
    }
    node.wait("the other flow has all in one", |s| {
        s["flows"][1]["state"] == "running" && s["flows"][1]["lsn"] == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_in_place_of_a_row_that_left_its_key_has_the_new_key() {
    let server = shop().await;
    let settings = vec!["message.max.bytes=20000".into()];
    let kafka = Kafka::start(KafkaOptions { settings, ..Default::default() }).await.unwrap();
    let node = node(&server, &kafka.url(), &[("a", "format: debezium, topic: all, partitions: 1")]);
    node.wait("the snapshot is delivered", |s| s["flows"][0]["lsn"] == 2).await;
    run_all(&server, &["UPDATE shop.users SET id = 3, note = REPEAT('x', 50000) WHERE id = 2"]).await;
    node.wait("all is delivered", |s| s["flows"][0]["lsn"] == 3).await;
    let all = kafka.messages("all").await.unwrap();
    let of = |key: &str| all.iter().filter(|r| r.key.as_deref() == Some(key)).collect::<Vec<_>>();
    let (old, new) = (of("{\"id\":2}"), of("{\"id\":3}"));
    assert!(old.last().unwrap().value.is_none(), "the old key ends with its tombstone: {old:?}");
    assert_eq!(new.len(), 1, "{all:?}");
    assert!(new[0].value.as_ref().unwrap().contains("/api/v1/changes/shop/3"), "{new:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_leaves_a_key_of_the_flows_choice_ends_there() {
    let server = shop().await;
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let options = "format: debezium, topic: all, partitions: 1, key: \"{table}:{name}:{id}\"";
    let node = node(&server, &kafka.url(), &[("a", options)]);
    node.wait("the snapshot is delivered", |s| s["flows"][0]["lsn"] == 2).await;
    run_all(
        &server,
        &[
            "UPDATE shop.users SET name = 'other' WHERE id = 1",
            "UPDATE shop.users SET id = 9, name = 'moved' WHERE id = 2",
        ],
    )
    .await;
    node.wait("all is delivered", |s| s["flows"][0]["lsn"] == 4).await;
    let all = kafka.messages("all").await.unwrap();
    // The newest of each key, as compaction leaves them: what a row left has none.
    let mut newest = BTreeMap::new();
    for record in &all {
        newest.insert(record.key.clone().unwrap(), record.value.clone());
    }
    let kept: Vec<_> =
        newest.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key.as_str()).collect();
    assert_eq!(kept, ["users:moved:9", "users:other:1"], "{all:?}");
    assert_eq!(newest.len(), 4, "{newest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_allow_only_short_transactions_are_told() {
    let server = shop().await;
    let settings = vec!["transaction.max.timeout.ms=300000".into()];
    let kafka = Kafka::start(KafkaOptions { settings, ..Default::default() }).await.unwrap();
    let node = node(&server, &kafka.url(), &[("a", "topic: a, exactly_once: true")]);
    let status = node.wait("it is told", |s| s["flows"][0]["state"] == "failed").await;
    let error = &status["flows"][0]["error"];
    assert!(error["hint"].as_str().unwrap().contains("transaction.max.timeout.ms to 600000"), "{error}");
}

/// Deletes a topic and makes it again with other partitions.
async fn make_anew(node: &Node, kafka: &Kafka, topic: &str, partitions: i32) {
    kafka.delete_topic(topic).await.unwrap();
    node.until("the topic is gone", || async { kafka.messages(topic).await.is_ok_and(|all| all.is_empty()) })
        .await;
    kafka.create_topic(topic, partitions).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_anew_is_named_and_filled_when_its_tables_are_read_again() {
    let server = shop().await;
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let flows =
        [("a", "topic: once, partitions: 3, exactly_once: true"), ("b", "topic: more, partitions: 3")];
    let mut node = node(&server, &kafka.url(), &flows);
    node.wait("all is delivered", |s| (0..2).all(|i| s["flows"][i]["lsn"] == 2)).await;
    // At least once, progress is noted now and then, and when the node stops; a flow without any begins at its first row.
    node.stop();
    node.start();
    run_all(&server, &["UPDATE shop.users SET name = 'Eve' WHERE id = 2"]).await;
    node.wait("the update is delivered", |s| (0..2).all(|i| s["flows"][i]["lsn"] == 3)).await;
    for (partitions, runs) in [(1, true), (5, false)] {
        if !runs {
            node.stop();
        }
        for topic in ["once", "more"] {
            make_anew(&node, &kafka, topic, partitions).await;
        }
        if !runs {
            node.start();
        }
        let rows = crate::node::values(100..160, |id| format!("{id}, 'of {partitions}', NULL"));
        run_all(&server, &[&format!("REPLACE INTO shop.users {rows}")]).await;
        for (index, flow) in ["a", "b"].into_iter().enumerate() {
            node.wait(&format!("{flow} names it"), |s| {
                let error = &s["flows"][index]["error"];
                let has =
                    |member: &str, part: &str| error[member].as_str().is_some_and(|text| text.contains(part));
                has("message", "deleted and made again")
                    && has("hint", &format!("flow resnapshot {flow} shop.users"))
            })
            .await;
        }
        node.kill9();
        node.start();
        node.wait("named over a restart", |s| {
            (0..2)
                .all(|i| s["flows"][i]["error"]["message"].as_str().is_some_and(|m| m.contains("made again")))
        })
        .await;
        let (code, out, err) = node.run(&["flow", "resnapshot", "a", "shop.users"]);
        assert_eq!(code, 0, "{out}{err}");
        node.kill9();
        node.start();
        node.wait("filled again", |s| {
            (0..2).all(|i| s["flows"][i]["state"] == "running" && s["flows"][i]["lag_changes"] == 0)
                && s["sources"][0]["snapshot"]["state"] == "done"
        })
        .await;
        for flow in ["a", "b"] {
            let (code, out, err) = node.run(&["flow", "verify", flow]);
            assert_eq!(code, 0, "{flow}: {out}{err}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_as_declared_and_take_cloud_events() {
    let server = shop().await;
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let declared = "format: cloudevents, topic: events, partitions: 3, \
                    topic_config: {cleanup.policy: compact, max.message.bytes: \"2000000\"}";
    let node = node(&server, &kafka.url(), &[("a", declared)]);
    node.wait("the snapshot is delivered", |s| s["flows"][0]["lsn"] == 2).await;
    let (partitions, configs) = kafka.topic_settings("events").await.unwrap();
    assert_eq!(partitions, 3);
    assert_eq!((&*configs["cleanup.policy"], &*configs["max.message.bytes"]), ("compact", "2000000"));
    let (partitions, configs) = kafka.topic_settings("tidemill_progress").await.unwrap();
    assert_eq!((partitions, &*configs["cleanup.policy"]), (1, "compact"));
    run_all(&server, &["UPDATE shop.users SET name = 'Eve' WHERE id = 2"]).await;
    node.wait("all is delivered", |s| s["flows"][0]["lsn"] == 3).await;
    let all = kafka.messages("events").await.unwrap();
    let mut events: Vec<Value> =
        all.iter().map(|record| serde_json::from_str(record.value.as_deref().unwrap()).unwrap()).collect();
    events.sort_by_key(|event| event["data"]["lsn"].as_u64());
    assert_eq!(events.len(), 3);
    assert!(
        events.iter().all(|event| event["specversion"] == "1.0" && event["id"].is_string()),
        "{events:#?}"
    );
    assert_eq!(events[2]["data"]["after"]["name"], "Eve");
    assert!(all.iter().all(|record| record.key.as_deref().is_some_and(|key| key.contains("\"id\""))));
}
