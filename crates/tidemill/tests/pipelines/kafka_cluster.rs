//! Kafka of three brokers, as a sink and as a source: leaders die and move while changes go through.

use crate::kafka::{last_rows, lsn, shop, source_rows};
use crate::node::{Node, assert_dense, mysql_source, sqlite_rows};
use crate::random::Rng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{KafkaCluster, MySql};

/// Three flows: two of them into topics, and what the first wrote back out of its topic into a file.
const ONCE: usize = 0;
const MORE: usize = 1;
const BACK: usize = 2;

async fn write(server: Arc<MySql>, stop: Arc<AtomicBool>) {
    let (mut rng, mut number) = (Rng::new(11), 0);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let id = rng.below(60);
        let sql = match rng.below(4) {
            0 | 1 => format!("REPLACE INTO shop.users VALUES ({id}, 'new {number}', 'x')"),
            2 => {
                format!("UPDATE shop.users SET name = 'seen {number}' WHERE id BETWEEN {id} AND {}", id + 4)
            }
            _ => format!("DELETE FROM shop.users WHERE id = {id}"),
        };
        server.exec(&sql).await.unwrap();
    }
}

/// All flows get further, by what is written from now on.
async fn go_on(node: &Node, what: &str) {
    let now = node.status()["sources"][0]["lsn"].as_u64().unwrap();
    node.wait(what, |s| {
        [ONCE, MORE].iter().all(|flow| s["flows"][*flow]["lsn"].as_u64().is_some_and(|lsn| lsn > now))
    })
    .await;
    let now = node.status()["sources"][1]["lsn"].as_u64().unwrap();
    node.wait(what, |s| s["flows"][BACK]["lsn"].as_u64().is_some_and(|lsn| lsn > now)).await;
}

/// What happened to each row, in order: its names, null where it was deleted.
type Histories = BTreeMap<i64, Vec<Value>>;

fn histories<'a>(changes: impl Iterator<Item = &'a Value>) -> Histories {
    let mut out = Histories::new();
    for change in changes {
        out.entry(change["key"]["id"].as_i64().unwrap()).or_default().push(change["after"]["name"].clone());
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_die_and_move_lose_nothing_and_what_is_sent_once_is_there_once() {
    let (server, cluster) = tokio::join!(shop(), KafkaCluster::start(3));
    let (server, cluster) = (Arc::new(server), cluster.unwrap());
    let url = cluster.url();
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sources/through.yaml", format!("kind: kafka\nurl: {url}\ntopics: [\"once.*\"]\n")),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: {url}\n")),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        (
            "flows/a.yaml",
            "from: shop\nto: broker\noptions: {topic: \"once.{table}\", exactly_once: true}\n".into(),
        ),
        ("flows/b.yaml", "from: shop\nto: broker\noptions: {topic: \"more.{table}\"}\n".into()),
        ("flows/c.yaml", "from: through\nto: file\n".into()),
    ]);
    node.env(&[("TIDEMILL_LOG", "info,flow=debug")]);
    node.start();
    node.wait("the snapshot is through", |s| s["flows"][BACK]["delivered"].as_u64() >= Some(2)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(Arc::clone(&server), Arc::clone(&stop)));
    go_on(&node, "all goes on with three brokers").await;
    for round in 0..3 {
        let topic = ["once.users", "tidemill_progress", "__transaction_state"][round];
        let partition = 0;
        let dies = if round == 2 {
            cluster.coordinator("tidemill-a").await.unwrap()
        } else {
            cluster.leader(topic, partition).await.unwrap().unwrap()
        };
        cluster.nodes()[dies].kill9();
        for topic in ["once.users", "more.users", "tidemill_progress"] {
            cluster.leader_other_than(topic, partition, dies).await.unwrap();
        }
        go_on(&node, &format!("two brokers are enough when the leader of {topic} is dead")).await;
        cluster.nodes()[dies].restart().await.unwrap();
        for topic in ["once.users", "more.users", "tidemill_progress"] {
            // Back to whoever led at first, in the middle of everything.
            cluster.elect_first_replicas(topic).await.unwrap();
        }
        go_on(&node, "all goes on when the leaders have moved back").await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    server.exec("REPLACE INTO shop.users VALUES (1, 'the end', NULL)").await.unwrap();

    let wanted = source_rows(&server).await;
    let rows: Vec<Vec<String>> = wanted.iter().map(|(id, name)| vec![id.to_string(), name.clone()]).collect();
    node.until("the copy of the copy is the source", || async {
        sqlite_rows(&node.path("copy.db"), "SELECT id, name FROM users ORDER BY id") == rows
    })
    .await;
    let end = node.changes("shop").len() as u64;
    node.wait("all is delivered", |s| [ONCE, MORE].iter().all(|flow| s["flows"][*flow]["lsn"] == end)).await;
    for topic in ["once.users", "more.users"] {
        let records = cluster.messages(topic).await.unwrap();
        assert_eq!(last_rows(&records), wanted, "{topic}");
        let mut lsns: Vec<u64> = records.iter().map(lsn).collect();
        lsns.sort_unstable();
        if topic == "more.users" {
            lsns.dedup();
        }
        assert_eq!(lsns, (1..=end).collect::<Vec<_>>(), "{topic}");
    }
    let records = cluster.messages("once.users").await.unwrap();
    for partition in 0..3 {
        let order: Vec<u64> = records.iter().filter(|r| r.partition == partition).map(lsn).collect();
        assert!(!order.is_empty() && order.is_sorted(), "partition {partition}: {order:?}");
    }
    let sent: Vec<Value> = records
        .iter()
        .map(|record| serde_json::from_str(record.value.as_deref().unwrap()).unwrap())
        .collect();
    let read = node.changes("through");
    assert_dense(&read);
    // Columns that were found out stand between the rows.
    let read = histories(read.iter().filter(|change| !change["key"].is_null()));
    let sent = histories(sent.iter());
    for id in read.keys().chain(sent.keys()) {
        assert_eq!(read.get(id), sent.get(id), "each message is read once, in the order of its key: {id}");
    }
    for flow in ["a", "b"] {
        let (code, out, err) = node.run(&["flow", "verify", flow]);
        assert_eq!(code, 0, "{out}{err}");
    }
}
