//! Asks Debezium itself what it emits: runs the SQL scripts of `crates/flow/tests/corpus` under a real connector, and writes
//! the records beside them, for the tests that hold our `debezium` format against them.
//!
//! One record a line, `{"topic","key","value"}`, topic after topic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::mysql_async::prelude::Queryable;
use testkit::{Debezium, DebeziumOptions, Kafka, KafkaOptions, MySql, MySqlOptions, TOPIC_PREFIX, installed};
use tokio::time::{Instant, sleep};

/// The line of a script above which the snapshot reads, and below which the stream does.
const STREAM_MARK: &str = "-- stream --";
/// The table of a script's last row.
const END_TABLE: &str = "zz_end";
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Writes all files.
pub async fn run() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../flow/tests/corpus");
    for (script, target, run) in [
        ("debezium.sql", "debezium-3.6.jsonl", Run::default()),
        ("debezium-schemas.sql", "debezium-schemas-3.6.jsonl", Run { schemas: true, transactions: false }),
        (
            "debezium-transactions.sql",
            "debezium-transactions-3.6.jsonl",
            Run { schemas: false, transactions: true },
        ),
        (
            "debezium-transactions.sql",
            "debezium-transactions-schemas-3.6.jsonl",
            Run { schemas: true, transactions: true },
        ),
    ] {
        record(&folder.join(script), &folder.join(target), run).await?;
    }
    Ok(())
}

/// What a run asks of the connector beyond its defaults.
#[derive(Clone, Copy, Default)]
struct Run {
    schemas: bool,
    transactions: bool,
}

async fn record(script: &Path, target: &PathBuf, run: Run) -> Result<()> {
    let script = fs::read_to_string(script)?;
    let (before, after) = script.split_once(STREAM_MARK).context("the script has no mark")?;
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let kafka = Kafka::start(KafkaOptions::default()).await?;
    mysql.exec("CREATE DATABASE corpus").await?;
    statements(&mysql, before).await?;
    let mut connector = vec!["include.schema.changes=true".to_owned(), "skipped.operations=none".to_owned()];
    if run.transactions {
        connector.push("provide.transaction.metadata=true".to_owned());
    }
    if run.schemas {
        for side in ["key", "value"] {
            connector.push(format!("{side}.converter=org.apache.kafka.connect.json.JsonConverter"));
            connector.push(format!("{side}.converter.schemas.enable=true"));
        }
    }
    let options = DebeziumOptions { database: "corpus".into(), heap_mb: 512, schemas: false, connector };
    let _debezium = Debezium::start(&mysql, &kafka, options).await?;
    wait_for_end(&kafka, 1).await?;
    statements(&mysql, after).await?;
    wait_for_end(&kafka, 2).await?;
    let mut lines = String::new();
    let mut topics = vec![TOPIC_PREFIX.to_owned()];
    topics.extend(run.transactions.then(|| format!("{TOPIC_PREFIX}.transaction")));
    let created = script.lines().filter_map(|line| line.strip_prefix("CREATE TABLE corpus."));
    topics.extend(
        created.filter_map(|rest| rest.split(' ').next()).map(|t| format!("{TOPIC_PREFIX}.corpus.{t}")),
    );
    for topic in topics {
        let count = kafka.records(&topic).await?;
        for record in consume(&kafka, &topic, count)?.lines() {
            let (key, value) = record.split_once('\t').context("a record without a separator")?;
            lines.push_str(&format!("{{\"topic\":\"{topic}\",\"key\":{key},\"value\":{value}}}\n"));
        }
    }
    fs::write(target, lines)?;
    println!("wrote {}", target.display());
    Ok(())
}

/// Runs a script in one session, a statement a line.
async fn statements(mysql: &MySql, script: &str) -> Result<()> {
    let mut conn = mysql.conn().await?;
    conn.query_drop("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', NAMES utf8mb4").await?;
    for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with("--")) {
        conn.query_drop(line).await.with_context(|| format!("failed to run `{line}`"))?;
    }
    Ok(conn.disconnect().await?)
}

async fn wait_for_end(kafka: &Kafka, records: u64) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while kafka.records(&format!("{TOPIC_PREFIX}.corpus.{END_TABLE}")).await? < records {
        if Instant::now() > end {
            bail!("the connector did not get to the script's end");
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// The records of a topic, key and value separated by a tab, by Kafka's own consumer.
fn consume(kafka: &Kafka, topic: &str, count: u64) -> Result<String> {
    if count == 0 {
        return Ok(String::new());
    }
    let class_path = format!("{}/*", installed("kafka")?.join("lib").display());
    let out = Command::new("java")
        .args(["-Xmx128m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", &class_path])
        .args(["org.apache.kafka.tools.consumer.ConsoleConsumer", "--from-beginning", "--topic", topic])
        .args(["--bootstrap-server", &kafka.addr().to_string(), "--max-messages", &count.to_string()])
        .args(["--formatter-property", "print.key=true", "--formatter-property", "null.literal=null"])
        .stdin(Stdio::null())
        .output()
        .context("failed to start java")?;
    if !out.status.success() {
        bail!("failed to read {topic}: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8(out.stdout)?)
}
