//! `exactly_once` where a broker that dies forgets what it had promised: the end of a transaction.

use crate::kafka::{lsn, shop};
use crate::node::{Node, mysql_source, values};
use std::time::Duration;
use testkit::{Kafka, KafkaOptions};

/// Half a minute of them.
const LOOKS_MAX: u32 = 300;

/// A broker that comes back after a kill is let in when its last life is over for the controller.
const SETTINGS: [&str; 3] =
    ["num.partitions=3", "broker.heartbeat.interval.ms=200", "broker.session.timeout.ms=1000"];
const PROGRESS: (&str, i32) = ("tidemill_progress", 0);
const ROWS: [(&str, i32); 3] = [("once.users", 0), ("once.users", 1), ("once.users", 2)];

/// Waits while the broker, which may have come back a moment ago, does not lead its partitions yet.
async fn readable(kafka: &Kafka) -> Vec<u64> {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..LOOKS_MAX {
        tick.tick().await;
        if let Ok(messages) = kafka.messages("once.users").await {
            let mut lsns: Vec<u64> = messages.iter().map(lsn).collect();
            lsns.sort_unstable();
            return lsns;
        }
    }
    panic!("the broker does not lead its partitions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_end_a_broker_forgot_is_ended_as_it_was_decided() {
    let server = shop().await;
    let settings = SETTINGS.map(str::to_owned).into();
    let kafka = Kafka::start(KafkaOptions { settings, ..Default::default() }).await.unwrap();
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: {}\n", kafka.url())),
        (
            "flows/a.yaml",
            "from: shop\nto: broker\noptions: {topic: \"once.{table}\", exactly_once: true}\n".into(),
        ),
    ]);
    node.env(&[("TIDEMILL_LOG", "info,flow=debug")]);
    node.start();
    server
        .exec(&format!("INSERT INTO shop.users {}", values(10..70, |id| format!("{id}, 'new', NULL"))))
        .await
        .unwrap();
    let mut end = 62;
    let once = |end: u64| (1..=end).collect::<Vec<_>>();
    node.until("the first rows are there", async || readable(&kafka).await == once(end)).await;
    let everywhere: Vec<(&str, i32)> = ROWS.into_iter().chain([PROGRESS]).collect();
    for (dies, forgotten) in [(true, &everywhere[..]), (false, &everywhere[..]), (true, &ROWS[..1])] {
        // One transaction, with rows in every partition.
        server.exec("UPDATE shop.users SET name = CONCAT(name, '+')").await.unwrap();
        let before = end;
        end += 62;
        node.until("the transaction is there", async || readable(&kafka).await == once(end)).await;
        if dies {
            node.kill9();
        }
        kafka.kill9();
        for (topic, partition) in forgotten {
            assert!(kafka.forget_last_batch(topic, *partition).unwrap(), "the end of a transaction");
        }
        kafka.restart().await.unwrap();
        if dies {
            // A broker that has just come back shows less at first.
            node.until("its end is forgotten", async || {
                (before..end).contains(&(readable(&kafka).await.len() as u64))
            })
            .await;
            node.start();
        } else {
            server.exec("INSERT INTO shop.users VALUES (5, 'a sign of life', NULL)").await.unwrap();
            server.exec("DELETE FROM shop.users WHERE id = 5").await.unwrap();
            end += 2;
        }
        node.until("nothing is lost, and nothing there twice", async || readable(&kafka).await == once(end))
            .await;
    }
    server.exec("UPDATE shop.users SET name = 'the end'").await.unwrap();
    end += 62;
    node.wait("all is delivered", |s| s["flows"][0]["lsn"] == end).await;
    node.until("and can be read", async || readable(&kafka).await == once(end)).await;
    let (code, out, err) = node.run(&["flow", "verify", "a"]);
    assert_eq!(code, 0, "{out}{err}");
}
