//! Consumers that read a flow from NATS, and go on through a subscription from the token of the last message that they read: no
//! change is missed and none comes twice, there and back.

use crate::node::{Node, PATIENCE, run_all};
use crate::subscribe::{at, make_shop, orders_of, project};
use async_nats::HeaderMap;
use async_nats::jetstream::stream::Stream;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use client::v1::subscribe_response::Event;
use client::v1::value::Kind;
use client::v1::{Mode, Op, Shape};
use client::{Heard, Subscription};
use futures_util::StreamExt as _;
use serde_json::Value;
use std::collections::BTreeMap;
use testkit::{MySql, MySqlOptions, Nats, NatsOptions, SqlServer};

/// A copy that is fed from both.
#[derive(Default)]
struct Consumer {
    rows: BTreeMap<i64, Vec<String>>,
    /// Each change that was applied, in order.
    lsns: Vec<u64>,
    /// Of the last message, or what a subscription gave.
    token: Vec<u8>,
    shape: Shape,
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|value| value.as_str()).unwrap_or_default()
}

/// What is to be asked for, as the header says it.
fn shape_of(headers: &HeaderMap) -> Shape {
    let told: Value = serde_json::from_str(header(headers, "Tidemill-Shape")).unwrap();
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    let columns = told["columns"].as_array().unwrap().iter();
    let columns = columns.map(|name| name.as_str().unwrap().to_owned()).collect();
    Shape {
        source: text("source"),
        table: text("table"),
        columns,
        r#where: text("where"),
        ..Shape::default()
    }
}

impl Consumer {
    fn at(&self) -> u64 {
        self.lsns.last().copied().unwrap_or(0)
    }

    fn note(&mut self, lsn: u64) {
        // A row that gets another key is two changes of a copy.
        if self.at() != lsn {
            assert!(lsn > self.at(), "{lsn} came behind {}", self.at());
            self.lsns.push(lsn);
        }
    }

    /// A message of the flow, unless it was seen elsewhere.
    fn message(&mut self, headers: &HeaderMap, payload: &[u8]) {
        let lsn = header(headers, "Tidemill-Lsn").parse().unwrap();
        if lsn <= self.at() {
            return;
        }
        self.note(lsn);
        let body: Value = serde_json::from_slice(payload).unwrap();
        assert_eq!(header(headers, "Tidemill-Txn"), body["txn"]["id"].as_str().unwrap_or_default());
        let id = |row: &Value| row["id"].as_i64();
        if let Some(old) = id(&body["before"]) {
            self.rows.remove(&old);
        }
        if let Some(new) = id(&body["after"]) {
            let text = |name: &str| body["after"][name].as_str().unwrap().to_owned();
            self.rows.insert(new, vec![new.to_string(), text("name"), text("amount")]);
        }
        self.token = BASE64_STANDARD.decode(header(headers, "Tidemill-Token")).unwrap();
        self.shape = shape_of(headers);
    }

    fn row(&mut self, change: client::v1::Change) {
        self.note(change.lsn);
        let op = change.op();
        let mut values = change.values.into_iter().map(|value| value.kind);
        let Some(Some(Kind::Int(id))) = values.next() else { panic!("the key comes first") };
        let texts = values.map(|value| match value {
            Some(Kind::Text(text)) => text,
            other => panic!("{other:?}"),
        });
        match op {
            Op::Put => self.rows.insert(id, std::iter::once(id.to_string()).chain(texts).collect()),
            _ => self.rows.remove(&id),
        };
    }

    /// Through a subscription, up to what the source has now; answers how it was caught up.
    async fn catch_up(&mut self, node: &Node) -> Mode {
        let mut subscription = Subscription::new(at(node), self.shape.clone(), self.token.clone());
        let mut mode = None;
        let work = async {
            while let Heard::Response(response) = subscription.next().await.unwrap() {
                match response.event {
                    Some(Event::Ready(ready)) => mode = Some(ready.mode()),
                    Some(Event::Batch(batch)) => batch.changes.into_iter().for_each(|own| self.row(own)),
                    Some(Event::Reset(reset)) => panic!("{reset:?}"),
                    Some(Event::UpToDate(_)) => return,
                    _ => {}
                }
                if !response.token.is_empty() {
                    self.token = response.token;
                }
            }
            panic!("the stream broke");
        };
        tokio::time::timeout(PATIENCE, work).await.unwrap();
        mode.unwrap()
    }

    /// Messages of a stream from its first on, up to a change.
    async fn read_to(&mut self, stream: &Stream, lsn: u64) {
        let state = stream.get_info().await.unwrap().state;
        for sequence in state.first_sequence..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            if header(&message.headers, "Tidemill-Lsn").parse::<u64>().unwrap() > lsn {
                return;
            }
            self.message(&message.headers, &message.payload);
        }
    }
}

/// A hundred transactions, and one of several changes.
async fn write(server: &SqlServer, round: u32) {
    for n in 0..100 {
        let id = (round * 131 + n * 7) % 1000;
        let sql = match n % 4 {
            0 => format!("REPLACE INTO shop.orders VALUES ({id}, 'new {round}', {n}.5)"),
            1 => format!("DELETE FROM shop.orders WHERE id = {id}"),
            2 => format!("UPDATE IGNORE shop.orders SET id = id + {} WHERE id = {id}", 5000 * (round + 1)),
            _ => format!("UPDATE shop.orders SET name = 'round {round}.{n}' WHERE id = {id}"),
        };
        server.exec(&sql).await.unwrap();
    }
    server.exec("UPDATE shop.orders SET amount = amount + 1 WHERE id < 20").await.unwrap();
}

/// The flow has delivered all that the journal has; where that ends.
async fn delivered(node: &Node, server: &SqlServer, flow: usize) -> u64 {
    let rows: Vec<(String,)> = server.query("SELECT @@gtid_executed").await.unwrap();
    let end = format!(":1-{}", rows[0].0.rsplit('-').next().unwrap());
    let status = node
        .wait("all is delivered", |s| {
            let source = &s["sources"][0];
            source["position"].to_string().contains(&end) && s["flows"][flow]["lsn"] == source["lsn"]
        })
        .await;
    status["flows"][flow]["lsn"].as_u64().unwrap()
}

fn with_flows(server: &SqlServer, nats: &Nats, flows: &[(&str, &str)]) -> Node {
    let node = project(server, "");
    node.write("sinks/bus.yaml", &format!("kind: nats\nurl: {}\n", nats.url()));
    for (name, flow) in flows {
        node.write(&format!("flows/{name}.yaml"), &format!("from: shop\nto: bus\n{flow}"));
    }
    node
}

async fn stream(nats: &Nats, name: &str) -> Stream {
    let client = async_nats::connect(nats.url()).await.unwrap();
    async_nats::jetstream::new(client).get_stream(name).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_goes_on_through_a_subscription_and_back_to_the_broker() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    let mut node = with_flows(&server, &nats, &[("orders", "options: {stream: ORDERS}\n")]);
    node.start();
    node.wait("the snapshot is delivered", |s| s["flows"][0]["lsn"] == 1000).await;
    write(&server, 0).await;
    let end = delivered(&node, &server, 0).await;
    let orders = stream(&nats, "ORDERS").await;

    // In the middle of the snapshot, and in the middle of a transaction.
    for stop in [500, end - 7] {
        let mut consumer = Consumer::default();
        consumer.read_to(&orders, stop).await;
        assert_eq!(consumer.at(), stop);
        assert_eq!(consumer.catch_up(&node).await, Mode::Tail);
        assert_eq!(consumer.lsns, (1..=end).collect::<Vec<_>>());
        assert_eq!(consumer.rows.values().cloned().collect::<Vec<_>>(), orders_of(&server, "true").await);
    }

    let mut consumer = Consumer::default();
    consumer.read_to(&orders, end - 50).await;
    // The broker forgets what the consumer had not read; the command shows it, from the header's own text.
    let last = orders.get_raw_message(end - 50).await.unwrap();
    orders.purge().await.unwrap();
    let token = header(&last.headers, "Tidemill-Token");
    let args = ["subscribe", "shop", "--table", "shop.orders", "--token", token, "--until-up-to-date"];
    let (code, out, err) = node.run(&args);
    assert_eq!(code, 0, "{err}");
    let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut told: Vec<u64> =
        lines.filter(|line| line["op"].is_string()).map(|line| line["lsn"].as_u64().unwrap()).collect();
    told.dedup();
    assert_eq!(told, (end - 49..=end).collect::<Vec<_>>());
    assert_eq!(consumer.catch_up(&node).await, Mode::Tail);
    assert_eq!(consumer.at(), end);

    // Back to the broker, and once more away from it, over a restart of the node.
    write(&server, 1).await;
    let end = delivered(&node, &server, 0).await;
    consumer.read_to(&orders, end - 20).await;
    assert_eq!(consumer.at(), end - 20);
    node.kill9();
    node.start();
    write(&server, 2).await;
    let end = delivered(&node, &server, 0).await;
    assert_eq!(consumer.catch_up(&node).await, Mode::Tail);
    consumer.read_to(&orders, u64::MAX).await;
    assert_eq!(consumer.lsns, (1..=end).collect::<Vec<_>>());
    assert_eq!(consumer.rows.values().cloned().collect::<Vec<_>>(), orders_of(&server, "true").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_with_a_shape_of_its_own_tells_it_and_one_without_says_why() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    let some = "transform: [{filter: \"amount > 500\"}, {columns: [id, name]}, {filter: \"id < 900\"}]\n";
    let some = format!("{some}options: {{stream: SOME, subject: \"some.{{table}}\"}}\n");
    let masked =
        "transform: [{mask: {name: hash}}]\noptions: {stream: MASKED, subject: \"masked.{table}\"}\n";
    let mut node = with_flows(&server, &nats, &[("masked", masked), ("some", &some)]);
    node.start();
    node.wait("both are there", |s| (0..2).all(|flow| s["flows"][flow]["lsn"] == 1000)).await;
    run_all(&server, &["UPDATE shop.orders SET amount = 1 WHERE id = 700"]).await;
    node.wait("both have it", |s| (0..2).all(|flow| s["flows"][flow]["lsn"] == 1001)).await;
    let of = async |name: &str, sequence| {
        let message = stream(&nats, name).await.get_raw_message(sequence).await.unwrap();
        message.headers
    };
    let (masked, some) = (of("MASKED", 1).await, of("SOME", 399).await);
    assert_eq!(header(&masked, "Tidemill-No-Token"), "`mask` is no part of a shape");
    assert!(masked.get("Tidemill-Token").is_none() && some.get("Tidemill-No-Token").is_none());
    let shape = shape_of(&some);
    assert_eq!(shape.r#where, "(amount > 500) AND (id < 900)");
    let token = BASE64_STANDARD.decode(header(&some, "Tidemill-Token")).unwrap();
    let mut subscription = Subscription::new(at(&node), shape, token);
    let mut left = Vec::new();
    while let Heard::Response(response) = subscription.next().await.unwrap() {
        match response.event {
            Some(Event::Ready(ready)) => assert_eq!(ready.mode(), Mode::Tail),
            Some(Event::Reset(reset)) => panic!("{reset:?}"),
            Some(Event::Batch(batch)) => {
                left.extend(batch.changes.iter().map(|own| (own.lsn, own.op())));
            }
            Some(Event::UpToDate(_)) => break,
            _ => {}
        }
    }
    // Rows that a snapshot read and that are not of the shape leave it too, whoever had them.
    assert_eq!(left.last(), Some(&(1001, Op::Leave)));
    assert!(left.iter().all(|(lsn, op)| *lsn > 900 && *op == Op::Leave), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_subjects_have_tokens_for_what_a_listener_missed() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    let listener = async_nats::connect(nats.url()).await.unwrap();
    let mut first = listener.subscribe("tidemill.shop.shop.orders").await.unwrap();
    listener.flush().await.unwrap();
    let mut node = with_flows(&server, &nats, &[("orders", "options: {core: true}\n")]);
    node.start();
    node.wait("the snapshot is sent", |s| s["flows"][0]["lsn"] == 1000).await;
    let mut consumer = Consumer::default();
    let take = async |from: &mut async_nats::Subscriber| {
        let message = tokio::time::timeout(PATIENCE, from.next()).await.unwrap().unwrap();
        (message.headers.unwrap(), message.payload)
    };
    while consumer.at() < 1000 {
        let (headers, payload) = take(&mut first).await;
        consumer.message(&headers, &payload);
    }
    // Nobody listens, and nothing waits.
    drop(first);
    write(&server, 0).await;
    let missed = delivered(&node, &server, 0).await;
    assert_eq!(consumer.catch_up(&node).await, Mode::Tail);
    assert_eq!(consumer.at(), missed);
    // The server is away for a while: what is not known to have been given to it is sent again.
    nats.kill9();
    run_all(&server, &["UPDATE shop.orders SET name = 'late' WHERE id = 5"]).await;
    node.wait("it is told", |s| s["flows"][0]["error"].is_object()).await;
    nats.restart().await.unwrap();
    node.wait("it is sent", |s| s["flows"][0]["error"].is_null()).await;
    // Who listens first and catches up then misses nothing: what comes meanwhile comes twice, and is told by its lsn.
    let listener = async_nats::connect(nats.url()).await.unwrap();
    let mut second = listener.subscribe("tidemill.shop.shop.orders").await.unwrap();
    listener.flush().await.unwrap();
    consumer.catch_up(&node).await;
    run_all(&server, &["UPDATE shop.orders SET name = 'last' WHERE id = 5"]).await;
    let end = delivered(&node, &server, 0).await;
    while consumer.at() < end {
        let (headers, payload) = take(&mut second).await;
        consumer.message(&headers, &payload);
    }
    assert_eq!(consumer.lsns, (1..=end).collect::<Vec<_>>());
    assert_eq!(consumer.rows.values().cloned().collect::<Vec<_>>(), orders_of(&server, "true").await);
}
