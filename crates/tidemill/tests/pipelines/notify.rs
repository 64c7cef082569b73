//! Receivers that want to know that something changed, and not what: notifications with tokens, and rows told as objects of a bucket.

use crate::node::Node;
use crate::subscribe::at;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use client::v1::Shape;
use client::v1::subscribe_response::Event;
use client::{Heard, Subscription};
use flow::webhook;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use testkit::{Kafka, KafkaOptions, Nats, NatsOptions, Received, Reply, Webhook};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn shop(node: &Node) -> Connection {
    let shop = Connection::open(node.path("shop.db")).unwrap();
    shop.busy_timeout(Duration::from_secs(20)).unwrap();
    shop.execute_batch(
        "PRAGMA journal_mode=WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT);
         CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO users VALUES (1, 'hidden')",
    )
    .unwrap();
    shop
}

fn project(files: &[(&str, String)]) -> Node {
    let source = "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\nmirror: [\"shop.orders\"]\n";
    let mut all = vec![("sources/shop.yaml", source.to_owned())];
    all.extend(files.iter().cloned());
    let mut node = Node::new(&all);
    node.env(&[("HOOK_SECRET", SECRET)]);
    node
}

/// What a receiver was told that takes each id once; a repeat is the same.
fn told(requests: &[Received]) -> Vec<Value> {
    let mut seen: HashMap<String, Vec<u8>> = HashMap::new();
    let mut out = Vec::new();
    for request in requests {
        let id = request.header("webhook-id").to_owned();
        match seen.insert(id, request.body.to_vec()) {
            None => out.push(serde_json::from_slice(&request.body).unwrap()),
            Some(body) => assert_eq!(body, request.body, "one id, one body"),
        }
    }
    out
}

/// The lsns that a subscription sends up to now, from a notification's token on.
async fn caught_up(node: &Node, table: &Value, token: &str) -> Vec<u64> {
    let text = |name: &str| table["shape"][name].as_str().unwrap().to_owned();
    let shape = Shape {
        source: text("source"),
        table: text("table"),
        columns: Vec::new(),
        r#where: text("where"),
        ..Shape::default()
    };
    let token = BASE64_STANDARD.decode(table[token].as_str().unwrap()).unwrap();
    let mut subscription = Subscription::new(at(node), shape, token);
    let mut lsns = Vec::new();
    while let Heard::Response(response) = subscription.next().await.unwrap() {
        match response.event {
            Some(Event::Reset(reset)) => panic!("{reset:?}"),
            Some(Event::Batch(batch)) => lsns.extend(batch.changes.iter().map(|change| change.lsn)),
            Some(Event::UpToDate(_)) => return lsns,
            _ => {}
        }
    }
    panic!("the stream broke")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_says_what_changed_and_where_to_get_it() {
    let hook = Webhook::start().await.unwrap();
    let mut asked = 0;
    hook.answer(move |_| {
        asked += 1;
        if asked % 3 == 2 { Reply::Status(503, &[], "") } else { Reply::Status(204, &[], "") }
    });
    let sink = format!("kind: http\nurl: http://{}/in\nsecrets: [\"${{env:HOOK_SECRET}}\"]\n", hook.addr());
    let mut node = project(&[
        ("sinks/hook.yaml", sink),
        ("flows/hook.yaml", "from: shop\nto: hook\noptions: {notify: true, batch_rows: 1000}\n".into()),
    ]);
    let db = shop(&node);
    node.start();
    node.wait("the first is told", |s| s["flows"][0]["lsn"] == 1).await;
    for round in 0..5 {
        let rows: Vec<String> = (0..20).map(|n| format!("({}, 'secret {n}')", round * 20 + n)).collect();
        db.execute_batch(&format!("INSERT INTO orders VALUES {}", rows.join(","))).unwrap();
    }
    node.wait("all is told", |s| s["flows"][0]["lsn"] == 101).await;
    let requests = hook.requests();
    let taken: Vec<Received> = requests.iter().filter(|request| request.status == 204).cloned().collect();
    let request = taken.last().unwrap();
    let sent = request.header("webhook-timestamp");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let (id, signature) = (request.header("webhook-id"), request.header("webhook-signature"));
    let key = webhook::Key::parse(&base::Secret::new(SECRET)).unwrap();
    assert_eq!(webhook::verify(&[key], id, sent, signature, &request.body, now), Ok(()));
    assert!(requests.iter().all(|request| !String::from_utf8_lossy(&request.body).contains("secret")));

    let notifications = told(&taken);
    let (mut next, mut first_of_orders) = (1, None);
    for told in &notifications {
        assert_eq!((&told["type"], &told["flow"]), (&json!("tidemill.notification.v1"), &json!("hook")));
        assert_eq!(told["first_lsn"], next, "{told}");
        next = told["last_lsn"].as_u64().unwrap() + 1;
        let tables = told["tables"].as_array().unwrap();
        let counted: u64 = tables.iter().map(|table| table["changes"].as_u64().unwrap()).sum();
        assert_eq!(counted, told["changes"].as_u64().unwrap());
        for table in tables {
            if table["table"] == "shop.users" {
                assert_eq!(table["no_token"], "the source keeps no mirror of the table");
            } else {
                first_of_orders.get_or_insert_with(|| table.clone());
            }
        }
    }
    assert_eq!(next, 102);
    // From before the first, everything; from behind the last, what came since.
    let first = first_of_orders.unwrap();
    let from = first["first_lsn"].as_u64().unwrap();
    assert_eq!(caught_up(&node, &first, "since").await, (from..=101).collect::<Vec<_>>());
    let last = notifications.last().unwrap()["tables"][0].clone();
    assert_eq!(caught_up(&node, &last, "token").await, [] as [u64; 0]);
    db.execute_batch("DELETE FROM orders WHERE id = 3").unwrap();
    node.wait("it is told", |s| s["flows"][0]["lsn"] == 102).await;
    assert_eq!(caught_up(&node, &last, "token").await, [102]);
}

/// `event key` of each record, and the sequencers.
fn events(messages: &[Value]) -> (Vec<String>, Vec<String>) {
    let records = messages.iter().flat_map(|message| message["Records"].as_array().unwrap());
    let both = records.map(|record| {
        let (name, object) = (record["eventName"].as_str().unwrap(), &record["s3"]["object"]);
        assert_eq!(record["s3"]["bucket"]["name"], "shop");
        assert_eq!(object["size"].is_u64(), name.starts_with("ObjectCreated:"));
        let key = object["key"].as_str().unwrap();
        (format!("{name} {key}"), object["sequencer"].as_str().unwrap().to_owned())
    });
    both.unzip()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_told_as_objects_of_a_bucket_to_receivers_and_topics() {
    let hook = Webhook::start().await.unwrap();
    let (nats, kafka) =
        tokio::try_join!(Nats::start(NatsOptions::default()), Kafka::start(KafkaOptions::default())).unwrap();
    let flow = |to: &str, more: &str| {
        format!("from: shop\ntables: [\"shop.orders\"]\nto: {to}\noptions: {{format: s3event{more}}}\n")
    };
    let mut node = project(&[
        ("sinks/hook.yaml", format!("kind: http\nurl: http://{}/in\n", hook.addr())),
        ("sinks/bus.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("sinks/log.yaml", format!("kind: kafka\nurl: {}\n", kafka.url())),
        ("flows/a_hook.yaml", flow("hook", "")),
        ("flows/b_bus.yaml", flow("bus", ", stream: EVENTS")),
        ("flows/c_log.yaml", flow("log", ", topic: events, partitions: 1")),
    ]);
    let db = shop(&node);
    db.execute_batch("INSERT INTO orders VALUES (1, 'a b'), (2, NULL)").unwrap();
    node.start();
    let all = async |lsn: u64| {
        let there = |s: &Value| (0..3).all(|flow| s["flows"][flow]["lsn"] == lsn);
        node.wait("all have it", there).await
    };
    // Three rows are read: two orders, one user.
    all(3).await;
    db.execute_batch(
        "UPDATE orders SET note = 'c' WHERE id = 1; UPDATE orders SET id = 9 WHERE id = 2; DELETE FROM orders WHERE id = 1",
    )
    .unwrap();
    all(6).await;
    let requests: Vec<Value> =
        hook.requests().iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
    let (names, sequencers) = events(&requests);
    let wanted = [
        "ObjectCreated:Put shop/orders/1",
        "ObjectCreated:Put shop/orders/2",
        "ObjectCreated:Put shop/orders/1",
        "ObjectRemoved:Delete shop/orders/2",
        "ObjectCreated:Put shop/orders/9",
        "ObjectRemoved:Delete shop/orders/1",
    ];
    assert_eq!(names, wanted);
    assert!(sequencers.is_sorted() && sequencers.iter().all(|own| own.len() == 24), "{sequencers:?}");
    let records = kafka.messages("events").await.unwrap();
    let records: Vec<Value> = records
        .iter()
        .map(|record| serde_json::from_str(record.value.as_deref().unwrap()).unwrap())
        .collect();
    assert_eq!(events(&records).0, wanted);
    let client = async_nats::connect(nats.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("EVENTS").await.unwrap();
    let mut messages = Vec::new();
    for sequence in 1..=stream.get_info().await.unwrap().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        messages.push(serde_json::from_slice::<Value>(&message.payload).unwrap());
    }
    assert_eq!(events(&messages).0, wanted);
}
