//! From a backlog in the binlog into a topic of a real broker, at least once and exactly once, beside the broker's own
//! producer benchmark with records of the same size, and Debezium.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testkit::{Kafka, KafkaOptions, MySql};

use crate::backlog::{self, Backlog, Shape};
use crate::capture::{measure_peer, start_peer};
use crate::report::{self, Run};
use crate::tidemill::Tidemill;
use crate::usage;

/// Rows of one transaction of the backlog.
const LARGE_ROWS: u64 = 1000;
const SCENARIO: &str = "large transactions";

pub struct Options {
    pub rows: u64,
    pub runs: u32,
    pub peers: bool,
    pub save: bool,
}

pub async fn run(options: &Options) -> Result<()> {
    let mysql = backlog::server().await?;
    let kafka = Kafka::start(KafkaOptions { heap_mb: 1024, ..KafkaOptions::default() }).await?;
    let mut projects = Vec::new();
    for (name, more) in [("at least once", ""), ("exactly once", ", exactly_once: true")] {
        projects.push((name, start_tidemill(&mysql, &kafka, more).await?));
    }
    let peer = if options.peers { start_peer(&mysql).await? } else { None };
    eprintln!("writing {} rows", options.rows);
    let backlog = backlog::write(&mysql, options.rows, Shape::Large(LARGE_ROWS)).await?;
    let end = backlog.rows + peer.as_ref().map_or(0, |peer| peer.markers);
    let mut runs = Vec::new();
    let mut record_bytes = 0;
    for number in 0..options.runs {
        for (name, project) in &projects {
            let topic = format!("{}-{number}", name.replace(' ', "-"));
            runs.push(measure(name, project, &topic, &kafka, end, &backlog).await?);
            record_bytes = message_bytes(&kafka, &topic).await?;
        }
        runs.push(measure_producer(&kafka, record_bytes, &backlog)?);
    }
    if let Some(peer) = peer {
        runs.push(measure_peer(SCENARIO, peer, &backlog).await?);
    }
    println!("\n{}", report::table(&runs));
    if options.save {
        let command = format!("cargo xtask bench kafka --rows {} --runs {}", options.rows, options.runs);
        let more = json!({"binlog_bytes": backlog.bytes, "record_bytes": record_bytes});
        println!("saved {}", report::save("kafka", &command, &runs, more)?.display());
    }
    Ok(())
}

/// A project that stands where the backlog will begin.
async fn start_tidemill(mysql: &MySql, kafka: &Kafka, more: &str) -> Result<Tidemill> {
    let source = format!("kind: mysql\nurl: {}\ntables: [\"bench.*\"]\nsnapshot: never\n", mysql.url());
    let mut project = Tidemill::new(&[
        ("sources/bench.yaml", source),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: {}\n", kafka.url())),
        ("options", more.to_owned()),
    ])?;
    project.start()?;
    project.wait("it streams", |status| status["sources"][0]["position"]["gtid"].is_string()).await?;
    project.stop().await?;
    Ok(project)
}

async fn measure(
    name: &str,
    project: &Tidemill,
    topic: &str,
    kafka: &Kafka,
    end: u64,
    backlog: &Backlog,
) -> Result<Run> {
    let mut tidemill = project.copy()?;
    let more = tidemill.read("options")?;
    // Each run is a flow of its own: nothing of it is in Kafka yet.
    let flow = format!("from: bench\nto: broker\noptions: {{topic: \"{topic}\"{more}}}\n");
    tidemill.write(&format!("flows/f_{}.yaml", topic.replace('-', "_")), &flow)?;
    let before = usage::of_process(kafka.pid().context("Kafka has ended")?)?;
    let started = Instant::now();
    tidemill.start()?;
    let delivered = |status: &Value| status["flows"][0]["lsn"].as_u64() >= Some(end);
    tidemill.wait("it has delivered the backlog", delivered).await?;
    let (wall, usage) = (started.elapsed(), tidemill.usage()?);
    let after = usage::of_process(kafka.pid().context("Kafka has ended")?)?;
    tidemill.stop().await?;
    Ok(Run {
        scenario: SCENARIO.to_owned(),
        program: format!("tidemill, {name}"),
        rows: backlog.rows,
        wall,
        cpu: usage.cpu,
        peak_rss_bytes: Some(usage.peak_rss_bytes),
        note: format!(
            "binlog, synced journal and topic; Kafka used {:.1} CPU s more",
            (after.cpu - before.cpu).as_secs_f64()
        ),
    })
}

/// What a record's key and value take, on average of the first thousands.
async fn message_bytes(kafka: &Kafka, topic: &str) -> Result<usize> {
    let records = kafka.messages_from(topic, 0, 0).await?;
    let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let total: usize = records.iter().map(|record| bytes(&record.key) + bytes(&record.value)).sum();
    Ok(total / records.len().max(1))
}

/// Kafka's own producer benchmark: records of random bytes from memory.
fn measure_producer(kafka: &Kafka, record_bytes: usize, backlog: &Backlog) -> Result<Run> {
    let class_path = format!("{}/*", testkit::installed("kafka")?.join("lib").display());
    let mut command = Command::new("java");
    command
        .args(["-Xmx512m", "-cp", &class_path, "org.apache.kafka.tools.ProducerPerformance"])
        .args(["--topic", "producer-perf", "--throughput", "-1"])
        .args(["--num-records", &backlog.rows.to_string(), "--record-size", &record_bytes.to_string()])
        .args(["--producer-props", "acks=all", &format!("bootstrap.servers={}", kafka.addr())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let before = usage::cpu_of_ended_children();
    let started = Instant::now();
    let status = testkit::spawn(command).context("failed to start java")?.wait()?;
    let wall = started.elapsed();
    if !status.success() {
        bail!("ProducerPerformance ended with {status}");
    }
    Ok(Run {
        scenario: SCENARIO.to_owned(),
        program: "ProducerPerformance".to_owned(),
        rows: backlog.rows,
        wall,
        cpu: usage::cpu_of_ended_children() - before,
        peak_rss_bytes: None,
        note: format!("Kafka's own benchmark: random records of {record_bytes} bytes, idempotent, acks=all"),
    })
}
