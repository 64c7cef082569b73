//! Devices that follow a table of a TiDB, by TiCDC's topics and a snapshot that is read at the TiDB: one that stays, one that comes late
//! from nothing, one that left in the middle and comes back; with the node and devices killed. In the end each has what TiDB has.

use crate::node::{Node, assert_dense};
use crate::random::Rng;
use crate::subscribe::Device;
use crate::ticdc::{self, Changefeed, PARTITIONS, texts};
use client::v1::subscribe_response::Event;
use client::v1::{Mode, ResetReason, Shape};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use testkit::{Kafka, KafkaOptions, TiDb, TiDbOptions};

type Message = (String, Vec<u8>, Vec<u8>);

fn shape(table: &str, filter: &str) -> Shape {
    Shape {
        source: "feed".into(),
        table: table.into(),
        columns: Vec::new(),
        r#where: filter.into(),
        ..Shape::default()
    }
}

async fn start() -> (TiDb, Kafka) {
    let tidb = TiDb::start(TiDbOptions::default()).await.unwrap();
    // Garbage collection writes it on a TiDB that has one: then definitions are shown as they were, too.
    tidb.exec("INSERT INTO mysql.tidb VALUES ('tikv_gc_safe_point', '20200101-00:00:00.000 +0000', '')")
        .await
        .unwrap();
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("feed", PARTITIONS as i32).await.unwrap();
    (tidb, kafka)
}

fn project(tidb: &TiDb, kafka: &Kafka, format: &str) -> Node {
    let rest = format!("tidb: {}\nmirror: [\"shop.*\"]\n", tidb.url());
    let text = ticdc::source(kafka, "feed", format, &rest);
    let text = text.replace(
        &format!("format: ticdc-{format}"),
        &format!("format: ticdc-{format}, snapshot_chunk_rows: 30"),
    );
    Node::new(&[
        ("sources/feed.yaml", text),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/copy.yaml", "from: feed\nto: copy\n".into()),
    ])
}

async fn whole(node: &Node) {
    node.wait("the mirror is whole", |s| {
        let source = &s["sources"][0];
        source["watermark"].is_object()
            && source["mirror"]["state"] == "following"
            && source["mirror"]["lag_changes"] == 0
    })
    .await;
}

/// The rows of a device, as TiDB's are asked for.
fn own(device: &Device, columns: &str, table: &str) -> Vec<String> {
    let columns: Vec<_> = columns.split(", ").map(|column| format!("IFNULL({column}, 'NULL')")).collect();
    let sql = format!("SELECT {} FROM {table}", columns.join(" || '|' || "));
    let mut rows: Vec<String> = device.ask(&sql).into_iter().flatten().collect();
    rows.sort();
    rows
}

/// Everything that TiDB has committed by now has come to these devices. Their streams are opened anew where the node was killed.
async fn settled(devices: &mut [&mut Device]) {
    let all = devices.iter_mut().map(|device| async move {
        while device.subscription.mark().await.is_err() {
            device.step().await;
        }
        device.marked().await;
    });
    futures_util::future::join_all(all).await;
}

/// A watermark of now comes by all partitions, as TiCDC's do each second: marks wait for it.
async fn with_watermarks(feed: &mut Changefeed<'_>, settle: impl Future<Output = ()>) {
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(300));
    tokio::pin!(settle);
    loop {
        tokio::select! {
            () = &mut settle => return,
            _ = tick.tick() => feed.send_all().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_devices_have_what_tidb_has_through_kills_and_statements() {
    let (tidb, kafka) = start().await;
    tidb.exec("CREATE DATABASE shop").await.unwrap();
    tidb.exec(
        "CREATE TABLE shop.t (id BIGINT PRIMARY KEY, v BIGINT NOT NULL, note VARCHAR(4000))
         PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN (1000000))",
    )
    .await
    .unwrap();
    let values: Vec<String> = (0..ticdc::ROWS).map(|id| format!("({id}, 100, 'row {id}')")).collect();
    tidb.exec(&format!("INSERT INTO shop.t VALUES {}", values.join(", "))).await.unwrap();
    let mut feed = Changefeed::new(&tidb, &kafka, "feed", 31).await;
    let mut node = project(&tidb, &kafka, "canal-json");
    feed.transfer(ticdc::ROWS).await;
    feed.send_all().await;
    node.start();
    whole(&node).await;
    let filter = "v >= 100 OR id > 350";
    let mut first = Device::new(&node, "first.db", shape("shop.t", ""));
    let mut some = Device::new(&node, "some.db", shape("shop.t", filter));
    let mut away = Device::new(&node, "away.db", shape("shop.t", filter));
    for device in [&mut first, &mut some, &mut away] {
        device.up_to_date().await;
        assert_eq!(device.mode(), Mode::Snapshot);
        assert_eq!(device.checkpoints(), 1);
    }
    assert_eq!(own(&first, "id, v, note", "t"), texts(&tidb, "id, v, note", "shop.t").await);
    drop(away.subscription);
    for round in 0..4 {
        for _ in 0..15 {
            feed.transfer(ticdc::ROWS).await;
        }
        if round == 2 {
            // Rows go without a message of their own; the others get a column with a value.
            feed.statement("t", "ALTER", "ALTER TABLE shop.t TRUNCATE PARTITION p0").await;
            feed.statement("t", "ALTER", "ALTER TABLE shop.t ADD COLUMN w INT NOT NULL DEFAULT 5").await;
            feed.widened = true;
        }
        feed.send_all().await;
        for _ in 0..2 {
            first.step().await;
        }
        match round {
            1 => some.kill(&node),
            3 => first.kill(&node),
            _ => {
                node.kill9();
                node.start();
            }
        }
    }
    whole(&node).await;
    let mut away = Device::new(&node, "away.db", shape("shop.t", filter));
    let mut late = Device::new(&node, "late.db", shape("shop.t", filter));
    with_watermarks(&mut feed, async {
        away.up_to_date().await;
        assert!(matches!(away.mode(), Mode::Tail | Mode::NetChanges), "{:?}", away.mode());
        late.up_to_date().await;
        assert_eq!(late.mode(), Mode::Snapshot);
        settled(&mut [&mut first, &mut some, &mut away, &mut late]).await;
    })
    .await;
    let columns = "id, v, note, w";
    assert_eq!(own(&first, columns, "t"), texts(&tidb, columns, "shop.t").await);
    let wanted = texts(&tidb, columns, &format!("(SELECT * FROM shop.t WHERE {filter}) AS t")).await;
    assert!(!wanted.is_empty());
    for device in [&some, &away, &late] {
        assert_eq!(own(device, columns, "t"), wanted);
        assert_eq!(device.copy.totals(), late.copy.totals());
        // A statement that had the table read anew does not say what each row was: a shape with a condition begins anew there.
        assert!(device.resets().iter().all(|reason| *reason == ResetReason::Schema), "{:?}", device.resets());
    }
    assert_eq!(late.resets(), []);
    assert_dense(&node.changes("feed"));
    // The tables are read anew at another timestamp: devices keep what they have meanwhile, and come to the same.
    let (code, out, err) = node.run(&["flow", "resnapshot", "copy"]);
    assert!(code == 0 && out.contains("shop.t"), "{out}{err}");
    for _ in 0..5 {
        feed.transfer(ticdc::ROWS).await;
    }
    with_watermarks(&mut feed, async {
        for device in [&mut first, &mut late] {
            device.until(|event| matches!(event, Event::SnapshotEnd(_))).await;
            device.up_to_date().await;
        }
        settled(&mut [&mut first, &mut late]).await;
    })
    .await;
    assert_eq!(own(&first, columns, "t"), texts(&tidb, columns, "shop.t").await);
    // The mirror's file is lost, and filled from the journal.
    node.stop();
    std::fs::remove_dir_all(node.path("data/mirror")).unwrap();
    node.start();
    for _ in 0..5 {
        feed.transfer(ticdc::ROWS).await;
    }
    with_watermarks(&mut feed, async {
        settled(&mut [&mut first, &mut late]).await;
    })
    .await;
    assert_eq!(own(&first, columns, "t"), texts(&tidb, columns, "shop.t").await);
}

/// The statements that the recorded messages are of, by transaction; without those of which TiCDC sends nothing.
fn transactions() -> Vec<Vec<String>> {
    let sql = std::fs::read_to_string(ticdc::fixtures().join("source.sql")).unwrap();
    let lines: Vec<&str> = sql.lines().filter(|line| !line.starts_with("--")).collect();
    let (mut all, mut open): (Vec<Vec<String>>, Option<Vec<String>>) = (Vec::new(), None);
    let lines = lines.join("\n");
    for statement in lines.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
        match (statement, &mut open) {
            ("begin", _) => open = Some(vec!["begin".into()]),
            ("commit", _) => {
                let mut whole = open.take().unwrap();
                whole.push("commit".into());
                all.push(whole);
            }
            (statement, Some(open)) => open.push(statement.into()),
            (statement, None) => all.push(vec![statement.into()]),
        }
    }
    all
}

/// TiCDC's own messages of what is committed now: each keeps its bytes, but for the timestamp of the commit.
struct Recorded<'a> {
    tidb: &'a TiDb,
    kafka: &'a Kafka,
    conn: Conn,
    rng: Rng,
    transactions: std::vec::IntoIter<Vec<String>>,
    messages: std::iter::Peekable<std::vec::IntoIter<Message>>,
    /// What was recorded as committed at one timestamp was committed now at this one.
    times: BTreeMap<u64, u64>,
    last: u64,
    waiting: Vec<Message>,
}

fn commit_ts(message: &Message) -> u64 {
    let value: Value = serde_json::from_slice(&message.2).unwrap();
    value["commitTs"].as_u64().unwrap()
}

impl<'a> Recorded<'a> {
    async fn new(tidb: &'a TiDb, kafka: &'a Kafka) -> Self {
        let mut conn = tidb.conn().await.unwrap();
        conn.query_drop("SET time_zone = '+00:00'").await.unwrap();
        Self {
            tidb,
            kafka,
            conn,
            rng: Rng::new(5),
            transactions: transactions().into_iter(),
            messages: ticdc::messages("simple-json").into_iter().peekable(),
            times: BTreeMap::new(),
            last: 0,
            waiting: Vec::new(),
        }
    }

    async fn now(&mut self) -> u64 {
        self.conn.query_drop("BEGIN").await.unwrap();
        let now: Option<u64> = self.conn.query_first("SELECT @@tidb_current_ts").await.unwrap();
        self.conn.query_drop("ROLLBACK").await.unwrap();
        now.unwrap()
    }

    /// Commits everything up to a statement that begins so, and takes the messages of it.
    async fn play_to(&mut self, last: &str) {
        loop {
            let transaction = self.transactions.next().unwrap_or_else(|| panic!("no statement `{last}`"));
            let first = transaction[0].clone();
            let is_dml = ["insert", "update", "delete", "begin"].iter().any(|word| first.starts_with(word));
            for sql in &transaction {
                self.conn.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
            let ts = if is_dml {
                let info: Option<String> =
                    self.conn.query_first("SELECT @@tidb_last_txn_info").await.unwrap();
                let info: Value = serde_json::from_str(&info.unwrap()).unwrap();
                info["commit_ts"].as_u64().unwrap()
            } else {
                ticdc::finished_ts(&mut self.conn).await
            };
            let silent = ["set ", "insert into shop.no_key", "alter database"];
            if !silent.iter().any(|start| first.starts_with(start)) {
                self.take(ts);
            }
            if first.starts_with(last) {
                return;
            }
        }
    }

    /// Takes the messages of the next commit, and what was sent behind it.
    fn take(&mut self, ts: u64) {
        let mut recorded = None;
        while let Some(message) = self.messages.peek() {
            let (is_commit, is) = (matches!(message.0.as_str(), "row" | "ddl"), commit_ts(message));
            if is_commit && *recorded.get_or_insert(is) != is {
                break;
            }
            let (kind, key, value) = self.messages.next().unwrap();
            let text = String::from_utf8(value).unwrap();
            let stamped = match kind.as_str() {
                "row" | "ddl" => {
                    self.times.insert(is, ts);
                    text.replace(&format!("\"commitTs\":{is},"), &format!("\"commitTs\":{ts},"))
                }
                "resolved" => {
                    text.replace(&format!("\"commitTs\":{is},"), &format!("\"commitTs\":{},", ts + 1))
                }
                _ => text,
            };
            assert!(
                kind == "bootstrap" || stamped.contains(&ts.to_string()) || kind == "resolved",
                "{stamped}"
            );
            self.waiting.push((kind, key, stamped.into_bytes()));
        }
        self.last = ts;
    }

    /// Sends what was taken, with the rows over the partitions; and a watermark of now.
    async fn send(&mut self) {
        let now = self.now().await;
        let watermark = format!("{{\"version\":1,\"type\":\"WATERMARK\",\"commitTs\":{now},\"buildTs\":0}}");
        self.waiting.push(("resolved".into(), Vec::new(), watermark.into_bytes()));
        let all = std::mem::take(&mut self.waiting);
        let lists = ticdc::spread(&all, "simple", &mut self.rng);
        ticdc::send(self.kafka, "feed", &lists, &mut self.rng).await;
    }

    async fn settled(&mut self, devices: &mut [&mut Device]) {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(300));
        let settle = settled(devices);
        tokio::pin!(settle);
        loop {
            tokio::select! {
                () = &mut settle => return,
                _ = tick.tick() => self.send().await,
            }
        }
    }

    async fn equals(&self, devices: &[&Device], columns: &str, table: &str) {
        let wanted = texts(self.tidb, columns, &format!("shop.{table}")).await;
        assert!(!wanted.is_empty(), "{table}");
        for device in devices {
            assert_eq!(own(device, columns, table), wanted, "{table}");
            assert_eq!(device.copy.totals(), devices[0].copy.totals(), "{table}");
        }
    }
}

const TYPES: &str = "id, c_tinyint, c_tinyint_u, c_smallint_u, c_mediumint, c_int, c_int_u, c_bigint, c_decimal, c_decimal_u, c_char, \
    c_varchar, c_text, c_longtext, c_date, c_datetime, c_datetime6, c_time, c_time6, c_gen_s";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_devices_follow_ticdcs_own_messages_behind_a_snapshot_of_the_tidb_they_are_of() {
    let (tidb, kafka) = start().await;
    let mut feed = Recorded::new(&tidb, &kafka).await;
    // What is committed before the snapshot comes once more by the topic, in part behind it.
    feed.play_to("update shop.orders set note").await;
    feed.send().await;
    feed.play_to("create table shop.lines").await;
    let mut node = project(&tidb, &kafka, "simple");
    node.start();
    whole(&node).await;
    feed.send().await;
    let mut first = Device::new(&node, "first.db", shape("shop.orders", ""));
    let mut away = Device::new(&node, "away.db", shape("shop.orders", ""));
    for device in [&mut first, &mut away] {
        device.up_to_date().await;
        assert_eq!(device.mode(), Mode::Snapshot);
    }
    feed.equals(&[&first, &away], "id, customer, amount, note", "orders").await;
    // One leaves in the middle, and misses transactions and new columns.
    feed.play_to("begin").await;
    feed.settled(&mut [&mut first, &mut away]).await;
    feed.equals(&[&first, &away], "id, customer, amount, note", "orders").await;
    drop(away.subscription);
    feed.play_to("insert into shop.types (id,c_date").await;
    // Who comes before the table is known is told that there is none.
    feed.settled(&mut [&mut first]).await;
    let mut types = Device::new(&node, "types.db", shape("shop.types", ""));
    let mut types_away = Device::new(&node, "types_away.db", shape("shop.types", ""));
    feed.settled(&mut [&mut types, &mut types_away]).await;
    drop(types_away.subscription);
    node.kill9();
    node.start();
    feed.play_to("alter table shop.orders modify column amount").await;
    feed.send().await;
    for _ in 0..2 {
        first.step().await;
    }
    first.kill(&node);
    node.kill9();
    node.start();
    feed.play_to("alter table shop.orders alter column status").await;
    feed.send().await;
    whole(&node).await;
    let mut away = Device::new(&node, "away.db", shape("shop.orders", ""));
    let mut late = Device::new(&node, "late.db", shape("shop.orders", ""));
    feed.settled(&mut [&mut first, &mut away, &mut late]).await;
    assert!(matches!(away.mode(), Mode::Tail | Mode::NetChanges), "{:?}", away.mode());
    assert_eq!(late.mode(), Mode::Snapshot);
    feed.equals(&[&first, &away, &late], "id, customer, status, amount, extras", "orders").await;
    let mut types_away = Device::new(&node, "types_away.db", shape("shop.types", ""));
    let mut types_late = Device::new(&node, "types_late.db", shape("shop.types", ""));
    feed.settled(&mut [&mut types, &mut types_away, &mut types_late]).await;
    assert!(matches!(types_away.mode(), Mode::Tail | Mode::NetChanges), "{:?}", types_away.mode());
    feed.equals(&[&types, &types_away, &types_late], TYPES, "types").await;
    // Moments come in UTC, and say so.
    let moments = "SELECT c_timestamp, c_timestamp6 FROM types WHERE id = 1";
    assert_eq!(types_away.ask(moments), [["2026-02-28T23:59:59Z", "2026-02-28T23:59:59.654321Z"]]);
    for device in [&late, &types, &types_away, &types_late] {
        assert_eq!(device.resets(), []);
    }
    for device in [&first, &away] {
        // Columns with a value for the rows that are there.
        assert!(device.resets().iter().all(|reason| *reason == ResetReason::Schema), "{:?}", device.resets());
    }
    // The table goes by another name: who asks for the old one is told, and the new one is there for whoever asks.
    feed.play_to("drop database other").await;
    feed.send().await;
    let ended = tokio::time::timeout(crate::node::PATIENCE, async {
        loop {
            match first.subscription.next().await {
                Ok(_) => {}
                Err(status) => return status,
            }
        }
    });
    assert_eq!(ended.await.unwrap().code(), tonic::Code::NotFound);
    let mut renamed = Device::new(&node, "renamed.db", shape("shop.orders2", ""));
    feed.settled(&mut [&mut renamed]).await;
    feed.equals(&[&renamed], "id, customer, status, amount, extras", "orders2").await;
    assert_dense(&node.changes("feed"));
    assert!(Path::new(&node.path("data/mirror/feed.db")).exists());
}

#[test]
fn a_mirror_of_topics_without_the_tidb_they_are_of_is_refused() {
    let text = "kind: kafka\nurl: kafka://127.0.0.1:9092\ntopics: [feed]\ntables: [\"shop.*\"]\n\
                options: {format: ticdc-simple}\nmirror: [\"shop.*\"]\n";
    let node = Node::new(&[("sources/feed.yaml", text.into())]);
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("needs the TiDB") && err.contains("tidb: mysql://"), "{code} {err}");
    node.write("sources/feed.yaml", &format!("{text}tidb: mysql://root@127.0.0.1:4000\n"));
    let (code, _, err) = node.run(&["check"]);
    assert_eq!(code, 0, "{err}");
}
