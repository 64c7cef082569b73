//! Topics of Kafka, full of messages in several shapes, read into a durable journal: what it costs to read rows from text.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;
use testkit::{Kafka, KafkaMessage, KafkaOptions};

use crate::report::{self, Run};
use crate::tidemill::{Tidemill, lsn};

/// Messages of one batch of the producer: less than a broker takes at once, also with schemas.
const BATCH: u64 = 250;
/// Each message is a change of its own, as most connectors write them, but for `json`, whose transactions have so many.
const TXN_ROWS: u64 = 1000;
/// How many values a row's texts take, one after the other.
const SEEDS: u64 = 997;

pub struct Options {
    pub rows: u64,
    pub runs: u32,
    pub save: bool,
}

#[derive(Clone, Copy)]
enum Shape {
    Json,
    Debezium,
    DebeziumSchemas,
    Plain,
}

impl Shape {
    const ALL: [Self; 4] = [Self::Json, Self::Debezium, Self::DebeziumSchemas, Self::Plain];

    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Debezium => "debezium",
            Self::DebeziumSchemas => "debezium, schemas",
            Self::Plain => "plain",
        }
    }

    fn topic(self) -> String {
        format!("bench.{}", self.name().replace(", ", "-"))
    }

    fn source(self, url: &str) -> String {
        let format = match self {
            Self::Json => "json",
            Self::Debezium | Self::DebeziumSchemas => "debezium",
            Self::Plain => "plain",
        };
        let declare = if matches!(self, Self::Plain) { "declare: {\"*.*\": {key: [id]}}\n" } else { "" };
        let topic = self.topic();
        format!("kind: kafka\nurl: {url}\ntopics: [{topic}]\n{declare}options: {{format: {format}}}\n")
    }

    /// Key and value of a row's insert.
    fn message(self, id: u64) -> (String, String) {
        let row = row(id);
        let key = format!("{{\"id\":{id}}}");
        let source = format!(
            "{{\"version\":\"3.6.1.Final\",\"connector\":\"mysql\",\"name\":\"shop\",\"ts_ms\":1764316800000,\"snapshot\":\"false\",\
             \"db\":\"bench\",\"sequence\":null,\"ts_us\":1764316800000000,\"ts_ns\":1764316800000000000,\"table\":\"rows\",\
             \"server_id\":1,\"gtid\":\"3e11fa47-71ca-11e1-9e33-c80aa9429562:{id}\",\"file\":\"binlog.000003\",\"pos\":{id},\"row\":0,\
             \"thread\":9,\"query\":null}}"
        );
        let envelope = format!(
            "{{\"before\":null,\"after\":{row},\"source\":{source},\"transaction\":null,\"op\":\"c\",\"ts_ms\":1764316800123,\
             \"ts_us\":1764316800123456,\"ts_ns\":1764316800123456789}}"
        );
        match self {
            Self::Plain => (key, row),
            Self::Debezium => (key, envelope),
            Self::DebeziumSchemas => (
                format!("{{\"schema\":{KEY_SCHEMA},\"payload\":{key}}}"),
                format!("{{\"schema\":{},\"payload\":{envelope}}}", value_schema()),
            ),
            Self::Json => {
                let (txn, index) = ((id - 1) / TXN_ROWS, (id - 1) % TXN_ROWS);
                let last = index + 1 == TXN_ROWS;
                let value = format!(
                    "{{\"source\":\"shop\",\"epoch\":1,\"lsn\":{id},\"op\":\"insert\",\"db\":\"bench\",\"table\":\"rows\",\
                     \"schema_version\":1,\"ts_ms\":1764316800000,\"txn\":{{\"id\":\"3e11fa47-71ca-11e1-9e33-c80aa9429562:{txn}\",\
                     \"index\":{index},\"last\":{last}}},\"key\":{key},\"before\":null,\"after\":{row}}}"
                );
                (key, value)
            }
        }
    }
}

/// As sysbench makes them: about 190 bytes in the binlog, in four columns.
fn row(id: u64) -> String {
    let seed = id % SEEDS;
    let digits = |count: usize| {
        let mut text = String::new();
        for group in 0..count {
            let dash = if group == 0 { "" } else { "-" };
            text += &format!("{dash}{:011}", (seed + 1) * 7_919 * (group as u64 + 1) % 99_999_999_977);
        }
        text
    };
    format!("{{\"id\":{id},\"k\":{},\"c\":\"{}\",\"pad\":\"{}\"}}", seed * 37, digits(10), digits(5))
}

const KEY_SCHEMA: &str = r#"{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],"optional":false,"name":"shop.bench.rows.Key"}"#;

fn value_schema() -> String {
    let fields = r#"[{"type":"int32","optional":false,"field":"id"},{"type":"int32","optional":false,"default":0,"field":"k"},{"type":"string","optional":false,"default":"","field":"c"},{"type":"string","optional":false,"default":"","field":"pad"}]"#;
    let side = |name: &str| {
        format!(
            r#"{{"type":"struct","fields":{fields},"optional":true,"name":"shop.bench.rows.Value","field":"{name}"}}"#
        )
    };
    let told: Vec<String> =
        ["version", "connector", "name", "snapshot", "db", "sequence", "table", "gtid", "file", "query"]
            .map(|name| format!(r#"{{"type":"string","optional":true,"field":"{name}"}}"#))
            .into_iter()
            .chain(
                ["ts_ms", "ts_us", "ts_ns", "server_id", "pos", "row", "thread"]
                    .map(|name| format!(r#"{{"type":"int64","optional":true,"field":"{name}"}}"#)),
            )
            .collect();
    format!(
        r#"{{"type":"struct","fields":[{},{},{{"type":"struct","fields":[{}],"optional":false,"name":"io.debezium.connector.mysql.Source","field":"source"}},{{"type":"string","optional":false,"field":"op"}},{{"type":"int64","optional":true,"field":"ts_ms"}}],"optional":false,"name":"shop.bench.rows.Envelope","version":2}}"#,
        side("before"),
        side("after"),
        told.join(",")
    )
}

pub async fn run(options: &Options) -> Result<()> {
    let kafka = Kafka::start(KafkaOptions { heap_mb: 512, ..KafkaOptions::default() }).await?;
    let mut runs = Vec::new();
    let mut bytes = serde_json::Map::new();
    for shape in Shape::ALL {
        eprintln!("filling a topic with {}", shape.name());
        bytes.insert(shape.name().to_owned(), fill(&kafka, shape, options.rows).await?.into());
        for _ in 0..options.runs {
            runs.push(measure(&kafka, shape, options.rows).await?);
        }
        kafka.delete_topic(&shape.topic()).await?;
    }
    println!("\n{}", report::table(&runs));
    if options.save {
        let command = format!("cargo xtask bench topics --rows {} --runs {}", options.rows, options.runs);
        println!("saved {}", report::save("topics", &command, &runs, json!({ "bytes": bytes }))?.display());
    }
    Ok(())
}

/// Writes the messages into one partition; answers their bytes.
async fn fill(kafka: &Kafka, shape: Shape, rows: u64) -> Result<u64> {
    let topic = shape.topic();
    kafka.create_topic(&topic, 1).await?;
    let (mut bytes, mut first) = (0, 1);
    while first <= rows {
        let end = (first + BATCH).min(rows + 1);
        let batch: Vec<(String, String)> = (first..end).map(|id| shape.message(id)).collect();
        let messages: Vec<KafkaMessage<'_>> =
            batch.iter().map(|(key, value)| (Some(key.as_str()), Some(value.as_str()))).collect();
        kafka.produce(&topic, 0, &messages).await?;
        bytes += batch.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64;
        first = end;
    }
    Ok(bytes)
}

/// From the start of the process until all is sealed in the journal.
async fn measure(kafka: &Kafka, shape: Shape, rows: u64) -> Result<Run> {
    let mut tidemill = Tidemill::new(&[("sources/bench.yaml", shape.source(&kafka.url()))])?;
    let started = Instant::now();
    tidemill.start()?;
    tidemill.wait("it has read the topic", |status| lsn(status) >= rows).await.context(shape.name())?;
    let (wall, usage) = (started.elapsed(), tidemill.usage()?);
    tidemill.stop().await?;
    Ok(Run {
        scenario: shape.name().to_owned(),
        program: "tidemill".to_owned(),
        rows,
        wall,
        cpu: usage.cpu,
        peak_rss_bytes: Some(usage.peak_rss_bytes),
        note: String::new(),
    })
}
