//! TiDB as a source, through topics as TiCDC fills them: its own bytes, spread over partitions, repeated, with the node killed in
//! between; and a real TiDB beside the topics, as the snapshot and as what every sink must equal.

use crate::node::{Node, assert_dense, sqlite_rows};
use crate::random::Rng;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use std::path::Path;
use testkit::{Kafka, KafkaOptions, SqlServer, TiDb, TiDbOptions};

pub const PARTITIONS: usize = 2;

pub fn source(kafka: &Kafka, topic: &str, format: &str, rest: &str) -> String {
    format!(
        "kind: kafka\nurl: {}\ntopics: [{topic}]\ntables: [\"shop.*\"]\noptions: {{format: ticdc-{format}}}\n{rest}",
        kafka.url()
    )
}

pub fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../flow/tests/ticdc")
}

/// Kind, key and value of each message of a changefeed.
pub fn messages(name: &str) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let text = std::fs::read_to_string(fixtures().join(format!("{name}.jsonl"))).unwrap();
    let line = |line: &str| {
        let message: Value = serde_json::from_str(line).unwrap();
        let bytes = |name: &str| BASE64.decode(message[name].as_str().unwrap_or_default()).unwrap();
        (message["kind"].as_str().unwrap().to_owned(), bytes("key_b64"), bytes("value_b64"))
    };
    text.lines().map(line).collect()
}

/// What the protocols send when nothing was committed since: the harness that made the bytes had none behind the last statements.
fn last_watermark(format: &str) -> (String, Vec<u8>, Vec<u8>) {
    const TS: u64 = 470_629_800_000_000_000;
    let (key, value) = match format {
        "simple" => (
            Vec::new(),
            json!({"version": 1, "type": "WATERMARK", "commitTs": TS, "buildTs": 0}).to_string().into(),
        ),
        "canal-json" => {
            let message = json!({"id": 0, "database": "", "table": "", "pkNames": null, "isDdl": false,
                "type": "TIDB_WATERMARK", "es": 0, "ts": 0, "sql": "", "sqlType": null, "mysqlType": null, "data": null,
                "old": null, "_tidb": {"watermarkTs": TS}});
            (Vec::new(), message.to_string().into())
        }
        _ => {
            let head = json!({"ts": TS, "t": 3}).to_string();
            let key = [&1u64.to_be_bytes()[..], &(head.len() as u64).to_be_bytes(), head.as_bytes()].concat();
            (key, vec![0; 8])
        }
    };
    ("resolved".into(), key, value)
}

/// Messages by partition, as TiCDC sends them: rows to one, statements of Canal-JSON to the first, everything else to all.
pub fn spread(
    all: &[(String, Vec<u8>, Vec<u8>)],
    format: &str,
    rng: &mut Rng,
) -> [Vec<(Vec<u8>, Vec<u8>)>; PARTITIONS] {
    let mut lists: [Vec<_>; PARTITIONS] = Default::default();
    for (kind, key, value) in all {
        let message = (key.clone(), value.clone());
        match kind.as_str() {
            "row" => lists[rng.below(PARTITIONS as u64) as usize].push(message),
            "ddl" if format == "canal-json" => lists[0].push(message),
            _ => lists.iter_mut().for_each(|list| list.push(message.clone())),
        }
    }
    lists
}

/// Sends both lists in pieces, one partition before the other and the other way round.
pub async fn send(kafka: &Kafka, topic: &str, lists: &[Vec<(Vec<u8>, Vec<u8>)>; PARTITIONS], rng: &mut Rng) {
    let mut at = [0; PARTITIONS];
    while at.iter().zip(lists).any(|(at, list)| *at < list.len()) {
        let partition = rng.below(PARTITIONS as u64) as usize;
        let end = (at[partition] + 1 + rng.below(20) as usize).min(lists[partition].len());
        if end > at[partition] {
            let piece = &lists[partition][at[partition]..end];
            kafka.produce_bytes(topic, partition as i32, piece).await.unwrap();
        }
        at[partition] = end;
    }
}

pub async fn texts(server: &SqlServer, columns: &str, table: &str) -> Vec<String> {
    let columns: Vec<_> =
        columns.split(", ").map(|column| format!("COALESCE(CAST({column} AS CHAR), 'NULL')")).collect();
    let sql = format!("SELECT CONCAT_WS('|', {}) FROM {table} ORDER BY 1", columns.join(", "));
    server.query(&sql).await.unwrap_or_default()
}

/// What every protocol tells alike: labels and sizes are ordinals and numbers where it does not tell them.
pub const TYPES: &str = "id, c_tinyint, c_tinyint_u, c_smallint_u, c_mediumint, c_int, c_int_u, c_bigint, c_bigint_u, c_float, c_double, \
    c_decimal, c_decimal_u, c_char, c_varchar, HEX(c_binary), HEX(c_varbinary), c_text, c_longtext, HEX(c_blob), HEX(c_longblob), \
    c_date, c_datetime, c_datetime6, c_timestamp, c_timestamp6, c_time, c_time6, c_year, c_enum+0, c_set+0, c_bit1+0, c_bit64+0, \
    c_json, c_gen_s";
const TABLES: [(&str, &str); 6] = [
    ("orders2", "id, customer, updated_at, status+0, amount, extras"),
    ("`lines`", "order_id, line_no, sku, qty"),
    ("uk_only", "a, b, c"),
    ("types", TYPES),
    ("vec", "id, e"),
    ("`Weird-Tbl 表`", "`Key`, `sel ect`"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticdcs_own_messages_make_the_rows_that_tidb_has_in_every_protocol() {
    let tidb = TiDb::start(TiDbOptions::default()).await.unwrap();
    let sql = std::fs::read_to_string(fixtures().join("source.sql")).unwrap();
    let mut conn = tidb.conn().await.unwrap();
    conn.query_drop("SET time_zone = '+00:00'").await.unwrap();
    let lines: Vec<&str> = sql.lines().filter(|line| !line.starts_with("--")).collect();
    for statement in lines.join("\n").split(";\n").filter(|statement| !statement.trim().is_empty()) {
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let formats = [("simple", "simple-json"), ("canal-json", "canal-json-ext"), ("open", "open-protocol")];
    let mut files = vec![("sinks/db.yaml".to_owned(), format!("kind: tidb\nurl: {}\n", tidb.url()))];
    for (format, _) in formats {
        let name = format.replace('-', "_");
        kafka.create_topic(&name, PARTITIONS as i32).await.unwrap();
        // Without a TiDB of that time, statements that change rows silently cannot be followed: their rows are not compared.
        let key = if format == "canal-json" { "declare: {\"shop.uk_only\": {key: [a, b]}}\n" } else { "" };
        let rest = format!("on_bad: skip\n{key}");
        files.push((format!("sources/{name}.yaml"), source(&kafka, &name, format, &rest)));
        let flow = format!("from: {name}\nto: db\nroute: {{\"shop.*\": \"copy_{name}.*\"}}\n");
        files.push((format!("flows/{name}.yaml"), flow));
    }
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let mut node = Node::new(&files);
    node.start();
    let mut rng = Rng::new(7);
    for (format, file) in formats {
        let topic = format.replace('-', "_");
        let mut all = messages(file);
        all.push(last_watermark(format));
        // The changefeed begins again from a moment before the last it had sent.
        let (first, again) = (all.len() * 6 / 10, all.len() * 4 / 10);
        send(&kafka, &topic, &spread(&all[..first], format, &mut rng), &mut rng).await;
        if format == "canal-json" {
            node.kill9();
            node.start();
        }
        send(&kafka, &topic, &spread(&all[again..], format, &mut rng), &mut rng).await;
    }
    node.kill9();
    node.start();
    for (format, _) in formats {
        let copy = format!("copy_{}", format.replace('-', "_"));
        for (table, columns) in TABLES {
            let wanted = texts(&tidb, columns, &format!("shop.{table}")).await;
            assert!(!wanted.is_empty(), "{table}");
            node.until(&format!("{format}: {table} equals the source"), || async {
                let own = texts(&tidb, columns, &format!("{copy}.{table}")).await;
                own == wanted || {
                    println!("{format} {table}\n own {own:#?}\n wanted {wanted:#?}");
                    false
                }
            })
            .await;
        }
        node.until("DROP TABLE is followed", || async {
            texts(&tidb, "id", &format!("{copy}.cs")).await.is_empty()
        })
        .await;
    }
    for (name, _) in formats {
        let changes = node.changes(&name.replace('-', "_"));
        assert_dense(&changes);
        // Each row event once, though it came on one of two partitions, up to twice, and the node was killed.
        let rows =
            changes.iter().filter(|c| matches!(c["op"].as_str(), Some("insert" | "update" | "delete")));
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.len(), 48, "{name}");
        let txn: Vec<u64> = rows.iter().map(|c| c["txn"]["id"].as_str().unwrap().parse().unwrap()).collect();
        assert!(txn.is_sorted(), "{name}: {txn:?}");
        let truncates = changes.iter().filter(|c| c["op"] == "truncate").count();
        assert_eq!(truncates, 1, "{name}: a statement comes by both partitions and counts once");
    }
}

/// The timestamp that TiCDC gives the last statement that changed definitions: shortly before TiDB shows it.
pub async fn finished_ts(conn: &mut Conn) -> u64 {
    let sql = "SELECT job_meta FROM mysql.tidb_ddl_history ORDER BY job_id DESC LIMIT 1";
    let job: Option<Vec<u8>> = conn.query_first(sql).await.unwrap();
    let job: Value = serde_json::from_slice(&job.unwrap()).unwrap();
    job["binlog"]["FinishedTS"].as_u64().unwrap_or_else(|| panic!("{job:#}"))
}

/// A changefeed of the test's own: it writes into TiDB, and sends what TiCDC would send of it.
pub struct Changefeed<'a> {
    tidb: &'a TiDb,
    kafka: &'a Kafka,
    topic: &'static str,
    conn: Conn,
    rng: Rng,
    /// Messages that were not sent yet, by partition.
    waiting: [Vec<String>; PARTITIONS],
    /// Everything that was sent since the last watermark that was told.
    last: Vec<(usize, String)>,
    /// Whether the table has its last column.
    pub widened: bool,
}

impl<'a> Changefeed<'a> {
    pub async fn new(tidb: &'a TiDb, kafka: &'a Kafka, topic: &'static str, seed: u64) -> Self {
        let conn = tidb.conn().await.unwrap();
        let (waiting, last) = (Default::default(), Vec::new());
        Self { tidb, kafka, topic, conn, rng: Rng::new(seed), waiting, last, widened: false }
    }

    fn push(&mut self, partition: usize, message: String) {
        self.last.push((partition, message.clone()));
        self.waiting[partition].push(message);
    }

    /// The commit timestamp of the last transaction.
    pub async fn commit_ts(&mut self) -> u64 {
        let info: Option<String> = self.conn.query_first("SELECT @@tidb_last_txn_info").await.unwrap();
        let info: Value = serde_json::from_str(&info.unwrap()).unwrap();
        info["commit_ts"].as_u64().unwrap()
    }

    pub async fn now(&mut self) -> u64 {
        self.conn.query_drop("BEGIN").await.unwrap();
        let now: Option<u64> = self.conn.query_first("SELECT @@tidb_current_ts").await.unwrap();
        self.conn.query_drop("ROLLBACK").await.unwrap();
        now.unwrap()
    }

    pub async fn run(&mut self, statements: &[String]) -> u64 {
        for sql in statements {
            self.conn.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        self.commit_ts().await
    }

    fn row(&mut self, ts: u64, kind: &str, data: &Value, old: Value, more: Value) {
        let mut extension = json!({"commitTs": ts});
        for (name, value) in more.as_object().into_iter().flatten() {
            extension[name] = value.clone();
        }
        let key_only = extension["onlyHandleKey"] == true;
        let mut types = json!({"id": "bigint"});
        if !key_only {
            (types["v"], types["note"]) = ("bigint".into(), "varchar".into());
        }
        if !key_only && self.widened {
            types["w"] = "int".into();
        }
        let message = json!({
            "id": 0, "database": "shop", "table": "t", "pkNames": ["id"], "isDdl": false, "type": kind, "es": ts >> 18,
            "ts": ts >> 18, "sql": "", "sqlType": {}, "mysqlType": types, "data": [data], "old": old, "_tidb": extension,
        });
        let partition = self.rng.below(PARTITIONS as u64) as usize;
        self.push(partition, message.to_string());
    }

    pub async fn statement(&mut self, table: &str, kind: &str, sql: &str) {
        self.conn.query_drop(sql).await.unwrap();
        let ts = finished_ts(&mut self.conn).await;
        let message = json!({
            "id": 0, "database": "shop", "table": table, "pkNames": null, "isDdl": true, "type": kind, "es": ts >> 18,
            "ts": ts >> 18, "sql": sql, "sqlType": null, "mysqlType": null, "data": null, "old": null,
            "_tidb": {"commitTs": ts},
        });
        self.push(0, message.to_string());
    }

    /// A watermark of now to every partition.
    pub async fn watermark(&mut self) {
        let ts = self.now().await;
        for partition in 0..PARTITIONS {
            let message = json!({
                "id": 0, "database": "", "table": "", "pkNames": null, "isDdl": false, "type": "TIDB_WATERMARK",
                "es": ts >> 18, "ts": ts >> 18, "sql": "", "sqlType": null, "mysqlType": null, "data": null, "old": null,
                "_tidb": {"watermarkTs": ts},
            });
            self.waiting[partition].push(message.to_string());
        }
    }

    /// Sends what waits of one partition.
    async fn send(&mut self, partition: usize) {
        let messages = std::mem::take(&mut self.waiting[partition]);
        let messages: Vec<_> = messages.iter().map(|message| (None, Some(message.as_str()))).collect();
        if !messages.is_empty() {
            self.kafka.produce(self.topic, partition as i32, &messages).await.unwrap();
        }
    }

    pub async fn send_all(&mut self) {
        self.watermark().await;
        for partition in 0..PARTITIONS {
            self.send(partition).await;
        }
    }

    /// One transaction over two rows: what one has more, the other has less.
    pub async fn transfer(&mut self, rows: u64) {
        let (from, to) = (self.rng.below(rows), self.rng.below(rows));
        if from == to {
            return;
        }
        let read = format!("SELECT id, v, note FROM shop.t WHERE id IN ({from}, {to}) ORDER BY id = {to}");
        let found: Vec<(u64, i64, Option<String>)> = self.conn.query(&read).await.unwrap();
        if found.len() < 2 {
            return;
        }
        let amount = self.rng.below(50) as i64;
        let ts = self
            .run(&[
                "BEGIN".into(),
                format!("UPDATE shop.t SET v = v - {amount} WHERE id = {from}"),
                format!("UPDATE shop.t SET v = v + {amount} WHERE id = {to}"),
                "COMMIT".into(),
            ])
            .await;
        if amount == 0 {
            return;
        }
        for ((id, v, note), delta) in found.into_iter().zip([-amount, amount]) {
            let widened = self.widened;
            let image = |v: i64| {
                let mut image = json!({"id": id.to_string(), "v": v.to_string(), "note": note});
                if widened {
                    image["w"] = "5".into();
                }
                image
            };
            self.row(ts, "UPDATE", &image(v + delta), json!([image(v)]), json!({}));
        }
    }

    async fn copy_equals(&self, node: &Node) {
        let wanted = texts(self.tidb, "id, v, note", "shop.t").await;
        node.until("the copy equals TiDB", || async {
            let own: Vec<String> =
                sqlite_rows(&node.path("copy.db"), "SELECT id, v, note FROM t ORDER BY id")
                    .into_iter()
                    .map(|row| row.join("|"))
                    .collect();
            let mut own = own;
            own.sort();
            own == wanted || {
                let differ = own.iter().zip(&wanted).find(|(own, wanted)| own != wanted);
                println!("{} rows, wanted {}: {differ:?}", own.len(), wanted.len());
                false
            }
        })
        .await;
    }
}

pub const ROWS: u64 = 400;

async fn live(exact: bool, seed: u64) {
    let tidb = TiDb::start(TiDbOptions::default()).await.unwrap();
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("feed", PARTITIONS as i32).await.unwrap();
    tidb.exec("CREATE DATABASE shop").await.unwrap();
    tidb.exec("CREATE TABLE shop.t (id BIGINT PRIMARY KEY, v BIGINT NOT NULL, note VARCHAR(4000)) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN (1000000))").await.unwrap();
    if exact {
        // Garbage collection writes it on a TiDB that has one.
        tidb.exec("INSERT INTO mysql.tidb VALUES ('tikv_gc_safe_point', '20200101-00:00:00.000 +0000', '')")
            .await
            .unwrap();
    }
    let values: Vec<String> = (0..ROWS).map(|id| format!("({id}, 100, 'row {id}')")).collect();
    tidb.exec(&format!("INSERT INTO shop.t VALUES {}", values.join(", "))).await.unwrap();
    let mut feed = Changefeed::new(&tidb, &kafka, "feed", seed).await;
    let claims = tempfile::tempdir().unwrap();
    let rest = format!("tidb: {}\nclaim_check: {}\n", tidb.url(), claims.path().display());
    let options = "{format: ticdc-canal-json, snapshot_chunk_rows: 30}";
    let mut node = Node::new(&[
        (
            "sources/feed.yaml",
            source(&kafka, "feed", "canal-json", &rest).replace("{format: ticdc-canal-json}", options),
        ),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/copy.yaml", "from: feed\nto: copy\n".into()),
    ]);
    node.start();
    node.wait("it waits for a changefeed", |s| {
        let error = s["sources"][0]["error"]["hint"].as_str().unwrap_or_default();
        error.contains("make the changefeed")
    })
    .await;
    for _ in 0..20 {
        feed.transfer(ROWS).await;
    }
    feed.send_all().await;
    // Killed while it reads the tables, which change all the while.
    node.wait("it has begun to read", |s| s["sources"][0]["snapshot"]["rows"].as_u64() > Some(0)).await;
    node.kill9();
    for _ in 0..20 {
        feed.transfer(ROWS).await;
    }
    node.start();
    for round in 0..6 {
        for _ in 0..15 {
            feed.transfer(ROWS).await;
        }
        match round {
            // One partition is far behind the other.
            1 => {
                feed.watermark().await;
                feed.send(0).await;
            }
            // TiCDC began again: what it sent last comes once more, by any partition.
            2 => {
                let again = std::mem::take(&mut feed.last);
                feed.send_all().await;
                for (_, message) in again {
                    let partition = feed.rng.below(PARTITIONS as u64) as usize;
                    feed.waiting[partition].push(message);
                }
                feed.send_all().await;
                let repeated = |s: &Value| s["sources"][0]["watermark"]["repeated"].as_u64() > Some(0);
                node.wait("repeats are counted", repeated).await;
            }
            3 => {
                let ts =
                    feed.run(&["INSERT INTO shop.t VALUES (1000, 0, REPEAT('large', 700))".into()]).await;
                feed.row(ts, "INSERT", &json!({"id": "1000"}), Value::Null, json!({"onlyHandleKey": true}));
                let ts =
                    feed.run(&["INSERT INTO shop.t VALUES (1001, 0, REPEAT('claim', 700))".into()]).await;
                let whole = json!({
                    "id": 0, "database": "shop", "table": "t", "pkNames": ["id"], "isDdl": false, "type": "INSERT",
                    "es": 0, "ts": 0, "sql": "", "sqlType": {}, "old": null,
                    "mysqlType": {"id": "bigint", "v": "bigint", "note": "varchar"},
                    "data": [{"id": "1001", "v": "0", "note": "claim".repeat(700)}], "_tidb": {"commitTs": ts},
                });
                let file = json!({"key": "", "value": BASE64.encode(whole.to_string())});
                std::fs::write(claims.path().join("4f1c.json"), file.to_string()).unwrap();
                let place = "file:///var/claims/4f1c.json";
                let more = json!({"onlyHandleKey": true, "claimCheckLocation": place});
                feed.row(ts, "INSERT", &json!({"id": "1001"}), Value::Null, more);
                feed.send_all().await;
            }
            4 => {
                let ts = feed.run(&["DELETE FROM shop.t WHERE id = 7".into()]).await;
                feed.row(ts, "DELETE", &json!({"id": "7"}), Value::Null, json!({"onlyHandleKey": true}));
                // Rows go without a message of their own; the columns of others get a value.
                feed.statement("t", "ALTER", "ALTER TABLE shop.t TRUNCATE PARTITION p0").await;
                feed.statement("t", "ALTER", "ALTER TABLE shop.t ADD COLUMN w INT NOT NULL DEFAULT 5").await;
                feed.widened = true;
                feed.send_all().await;
            }
            _ => feed.send_all().await,
        }
        // While it writes what has just come.
        if round != 1 {
            node.kill9();
            node.start();
        }
    }
    feed.send_all().await;
    feed.copy_equals(&node).await;
    let rows = texts(&tidb, "id", "shop.t").await.len().to_string();
    let filled = "SELECT count(*), min(w), max(w) FROM t WHERE w IS NOT NULL";
    assert_eq!(sqlite_rows(&node.path("copy.db"), filled), [[rows.as_str(), "5", "5"]]);
    let changes = node.changes("feed");
    assert_dense(&changes);
    let (code, out, err) = node.run(&["flow", "resnapshot", "copy"]);
    assert!(code == 0 && out.contains("shop.t"), "{out}{err}");
    node.wait("the tables are read anew", |s| {
        s["sources"][0]["lsn"].as_u64() > Some(changes.len() as u64 + 100)
            && s["sources"][0]["state"] == "stream"
    })
    .await;
    for _ in 0..10 {
        feed.transfer(ROWS).await;
    }
    feed.send_all().await;
    feed.copy_equals(&node).await;
    // Each transaction is whole and there once.
    let mut transactions = std::collections::BTreeMap::<u64, usize>::new();
    for change in changes.iter().filter(|c| c["op"] == "update") {
        *transactions.entry(change["txn"]["id"].as_str().unwrap().parse().unwrap()).or_default() += 1;
    }
    assert!(transactions.len() > 60 && transactions.values().all(|rows| *rows == 2), "{transactions:?}");
    let status = node.status();
    let source = &status["sources"][0];
    assert!(
        source["position"]["commit_ts"].as_str().unwrap().parse::<u64>().unwrap() > 400_000_000_000_000_000
    );
    assert!(source["error"].is_null() && source["skipped_messages"] == 0, "{status:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_the_topic_join_at_a_timestamp_whatever_is_killed() {
    live(true, 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tidb_without_garbage_collection_is_read_as_of_a_time() {
    live(false, 23).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_that_stands_still_is_told_and_bad_messages_are_named() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("feed", PARTITIONS as i32).await.unwrap();
    let mut node = Node::new(&[
        (
            "sources/feed.yaml",
            source(&kafka, "feed", "simple", "")
                .replace("{format: ticdc-simple}", "{format: ticdc-simple, watermark_timeout: 1s}"),
        ),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/copy.yaml", "from: feed\nto: copy\n".into()),
    ]);
    let all = messages("simple-json");
    let one = |index: usize| vec![(all[index].1.clone(), all[index].2.clone())];
    // A row of a table that was made before the topic begins, and a watermark by one partition alone.
    for index in [3, 4] {
        kafka.produce_bytes("feed", 0, &one(index)).await.unwrap();
    }
    node.start();
    let stalled = |s: &Value| s["sources"][0]["watermark"]["stalled"] == true;
    let status = node.wait("the alarm", stalled).await;
    let watermark = &status["sources"][0]["watermark"];
    assert_eq!(watermark["slowest"], "feed-1", "{status:#}");
    assert!(watermark["held_bytes"].as_u64() > Some(0), "{status:#}");
    let metrics = async || {
        reqwest::get(format!("http://{}/metrics", node.address())).await.unwrap().text().await.unwrap()
    };
    let told = metrics().await;
    assert!(told.contains("tidemill_flow_capture_watermark_stalled{source=\"feed\"} 1"), "{told}");
    assert!(node.log().contains("no watermark has come"), "{}", node.log());
    kafka.produce_bytes("feed", 1, &one(4)).await.unwrap();
    node.wait("it waits for the definition", |s| s["sources"][0]["watermark"]["waits_for"] == "shop.orders")
        .await;
    // A bootstrap message, as TiCDC sends them every two minutes.
    kafka.produce_bytes("feed", 1, &one(2)).await.unwrap();
    let file = node.path("copy.db");
    let rows = || sqlite_rows(&file, "SELECT id, customer FROM orders");
    node.until("the row is there", || async { rows() == [["1", "alice"]] }).await;
    node.wait("the alarm has ended", |s| s["sources"][0]["watermark"]["stalled"] == false).await;
    kafka.produce("feed", 1, &[(None, Some("{\"type\":\"INSERT\"}"))]).await.unwrap();
    let status = node.wait("the bad message is told", |s| s["sources"][0]["state"] == "failed").await;
    let message = status["sources"][0]["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("topic `feed`, partition 1, offset 2") && message.contains("`commitTs`"),
        "{message}"
    );
}

fn canal_row(id: u64, ts: u64) -> String {
    let message = json!({
        "id": 0, "database": "shop", "table": "t", "pkNames": ["id"], "isDdl": false, "type": "INSERT", "es": 0, "ts": 0,
        "sql": "", "sqlType": {}, "mysqlType": {"id": "bigint", "v": "varchar"}, "old": null,
        "data": [{"id": id.to_string(), "v": "x".repeat(1000)}], "_tidb": {"commitTs": ts},
    });
    message.to_string()
}

fn canal_watermark(ts: u64) -> String {
    json!({"type": "TIDB_WATERMARK", "isDdl": false, "_tidb": {"watermarkTs": ts}}).to_string()
}

async fn produce(kafka: &Kafka, partition: i32, messages: &[String]) {
    for piece in messages.chunks(500) {
        let piece: Vec<_> = piece.iter().map(|message| (None, Some(message.as_str()))).collect();
        kafka.produce("feed", partition, &piece).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_ahead_is_not_read_further_and_a_transaction_past_the_buffer_is_told() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    kafka.create_topic("feed", PARTITIONS as i32).await.unwrap();
    let mut node = Node::new(&[
        (
            "sources/feed.yaml",
            source(&kafka, "feed", "canal-json", "")
                .replace("{format: ticdc-canal-json}", "{format: ticdc-canal-json, buffer: 512KiB}"),
        ),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/copy.yaml", "from: feed\nto: copy\n".into()),
    ]);
    let mut ahead = Vec::new();
    for id in 1..=5000 {
        ahead.push(canal_row(id, id));
        if id % 100 == 0 {
            ahead.push(canal_watermark(id));
        }
    }
    ahead.push(canal_watermark(6000));
    produce(&kafka, 0, &ahead).await;
    produce(&kafka, 1, &[canal_watermark(1)]).await;
    node.start();
    // Six megabytes are there; what a round brings beyond the buffer is a megabyte or two.
    let full = |s: &Value| s["sources"][0]["watermark"]["held_bytes"].as_u64() > Some(512 << 10);
    node.wait("the buffer is full", full).await;
    let status =
        node.wait("the other is read on", |s| s["sources"][0]["watermark"]["slowest"] == "feed-1").await;
    let held = status["sources"][0]["watermark"]["held_bytes"].as_u64().unwrap();
    assert!(held < 3 << 20 && status["sources"][0]["lag_messages"].as_u64() > Some(1000), "{status:#}");
    produce(&kafka, 1, &[canal_watermark(6000)]).await;
    let file = node.path("copy.db");
    let count = || sqlite_rows(&file, "SELECT count(*) FROM t");
    node.until("all rows are there", || async { count() == [["5000"]] }).await;
    // One commit that is larger than the buffer allows, by the partition that all wait for.
    let large: Vec<String> = (0..4000).map(|id| canal_row(10_000 + id, 7000)).collect();
    produce(&kafka, 1, &large).await;
    let status = node.wait("it is told", |s| s["sources"][0]["state"] == "failed").await;
    let error = &status["sources"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains("wait for a watermark of"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("buffer: …"), "{error}");
    assert_eq!(count(), [["5000"]]);
    node.stop();
    let larger = "{format: ticdc-canal-json, buffer: 64MiB}";
    node.write(
        "sources/feed.yaml",
        &source(&kafka, "feed", "canal-json", "").replace("{format: ticdc-canal-json}", larger),
    );
    for partition in 0..2 {
        produce(&kafka, partition, &[canal_watermark(8000)]).await;
    }
    node.start();
    node.until("the large one is there whole", || async { count() == [["9000"]] }).await;
}
