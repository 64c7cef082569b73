//! From a backlog in the binlog to a durable journal, beside two peers that read the same stretch.
//!
//! Every reader is started once on the empty table, so that it stores where it stands, and stopped. Then the backlog is
//! written. Then each reads it alone, from process start until all of it has arrived.

use std::io::BufRead;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use testkit::{Debezium, DebeziumOptions, Kafka, KafkaOptions, MySql, TOPIC_PREFIX};
use tokio::time::sleep;

use crate::backlog::{self, Backlog, Shape};
use crate::report::{self, Run};
use crate::tidemill::{Tidemill, lsn};
use crate::usage;

/// Rows of one transaction of the first scenario: about 190 kB.
const LARGE_ROWS: u64 = 1000;
/// The peer takes seconds to start and minutes to read; it is given up when nothing moves for this long.
const PEER_STALL_MAX: Duration = Duration::from_secs(120);
const PEER_HEAP_MB: u32 = 1024;
const MARKER_INTERVAL: Duration = Duration::from_millis(500);

pub struct Options {
    pub rows: u64,
    pub single_rows: u64,
    pub runs: u32,
    pub peers: bool,
    pub save: bool,
    pub hold: bool,
}

pub async fn run(options: &Options) -> Result<()> {
    let mut runs = Vec::new();
    let scenarios = [
        ("large transactions", options.rows, Shape::Large(LARGE_ROWS)),
        ("one-row transactions", options.single_rows, Shape::Single),
    ];
    let mut stretches = Vec::new();
    for (name, rows, shape) in scenarios.into_iter().filter(|(_, rows, _)| *rows > 0) {
        let backlog = scenario(name, rows, shape, options, &mut runs).await?;
        stretches.push(json!({"scenario": name, "rows": backlog.rows, "binlog_bytes": backlog.bytes}));
    }
    println!("\n{}", report::table(&runs));
    if options.save {
        let command = format!(
            "cargo xtask bench capture --rows {} --single-rows {} --runs {}",
            options.rows, options.single_rows, options.runs
        );
        let path = report::save("capture", &command, &runs, json!({"stretches": stretches}))?;
        println!("saved {}", path.display());
    }
    Ok(())
}

async fn scenario(
    name: &str,
    rows: u64,
    shape: Shape,
    options: &Options,
    runs: &mut Vec<Run>,
) -> Result<Backlog> {
    let mysql = backlog::server().await?;
    let mut project = Tidemill::new(&[(
        "sources/bench.yaml",
        format!("kind: mysql\nurl: {}\ntables: [\"bench.*\"]\nsnapshot: never\n", mysql.url()),
    )])?;
    project.start()?;
    project.wait("it streams", |status| status["sources"][0]["position"]["gtid"].is_string()).await?;
    project.stop().await?;
    let bystander = start_bystander(&mysql).await?;
    let peer = if options.peers { start_peer(&mysql).await? } else { None };
    eprintln!("{name}: writing {rows} rows");
    let started = Instant::now();
    let backlog = backlog::write(&mysql, rows, shape).await?;
    eprintln!(
        "{name}: {} rows, {} MB of binlog in {:.1} s",
        backlog.rows,
        backlog.bytes / 1_000_000,
        started.elapsed().as_secs_f64()
    );
    let end = backlog.rows + peer.as_ref().map_or(0, |peer| peer.markers);
    for number in 0..options.runs {
        let hold = options.hold && number == 0;
        runs.push(measure_tidemill(name, &project, end, &backlog, hold).await?);
        runs.push(measure_bystander(name, &bystander, &mysql, &backlog).await?);
        runs.push(measure_mysqlbinlog(name, &mysql, &backlog)?);
    }
    if let Some(peer) = peer {
        runs.push(measure_peer(name, peer, &backlog).await?);
    }
    Ok(backlog)
}

async fn measure_tidemill(
    scenario: &str,
    project: &Tidemill,
    end: u64,
    backlog: &Backlog,
    hold: bool,
) -> Result<Run> {
    let mut tidemill = project.copy()?;
    let started = Instant::now();
    tidemill.start()?;
    if hold {
        eprintln!("tidemill is process {}", tidemill.pid().unwrap_or(0));
    }
    tidemill.wait("it has read the backlog", |status| lsn(status) >= end).await?;
    let wall = started.elapsed();
    let usage = tidemill.usage()?;
    if hold {
        eprintln!("press Enter to go on");
        std::io::stdin().lock().read_line(&mut String::new())?;
    }
    tidemill.stop().await?;
    Ok(Run {
        scenario: scenario.to_owned(),
        program: "tidemill".to_owned(),
        rows: backlog.rows,
        wall,
        cpu: usage.cpu,
        peak_rss_bytes: Some(usage.peak_rss_bytes),
        note: "rows decoded into a synced journal".to_owned(),
    })
}

/// A project whose tables the backlog does not touch.
async fn start_bystander(mysql: &MySql) -> Result<Tidemill> {
    let source = format!("kind: mysql\nurl: {}\ntables: [\"elsewhere.*\"]\nsnapshot: never\n", mysql.url());
    let mut project = Tidemill::new(&[("sources/bench.yaml", source)])?;
    project.start()?;
    project.wait("it streams", |status| status["sources"][0]["position"]["gtid"].is_string()).await?;
    project.stop().await?;
    Ok(project)
}

/// What rows cost that nobody captures: until the position has passed them all.
async fn measure_bystander(
    scenario: &str,
    project: &Tidemill,
    mysql: &MySql,
    backlog: &Backlog,
) -> Result<Run> {
    let executed: String = mysql.query_one("select @@global.gtid_executed").await?;
    let executed = executed.replace('\n', "");
    let mut tidemill = project.copy()?;
    let started = Instant::now();
    tidemill.start()?;
    let passed = |status: &serde_json::Value| status["sources"][0]["position"]["gtid"] == executed.as_str();
    tidemill.wait("it has passed the backlog", passed).await?;
    let (wall, usage) = (started.elapsed(), tidemill.usage()?);
    tidemill.stop().await?;
    Ok(Run {
        scenario: scenario.to_owned(),
        program: "tidemill, other tables".to_owned(),
        rows: backlog.rows,
        wall,
        cpu: usage.cpu,
        peak_rss_bytes: Some(usage.peak_rss_bytes),
        note: "the table is not captured: rows are passed over".to_owned(),
    })
}

/// Copies the files as they are, without looking into them and without syncing: the floor of any reader.
fn measure_mysqlbinlog(scenario: &str, mysql: &MySql, backlog: &Backlog) -> Result<Run> {
    let folder = tempfile::Builder::new().prefix("tidemill-bench-").tempdir()?;
    let program = testkit::installed("mysql")?.join("bin/mysqlbinlog");
    let mut command = Command::new(program);
    command
        .args(["--host=127.0.0.1", "--user=root", "--read-from-remote-server", "--raw", "--to-last-log"])
        .arg(format!("--port={}", mysql.port()))
        .arg(format!("--result-file={}/", folder.path().display()))
        .arg(&backlog.first_file)
        .stdin(Stdio::null());
    let before = usage::cpu_of_ended_children();
    let started = Instant::now();
    let status = testkit::spawn(command).context("failed to start mysqlbinlog")?.wait()?;
    let wall = started.elapsed();
    if !status.success() {
        bail!("mysqlbinlog ended with {status}");
    }
    Ok(Run {
        scenario: scenario.to_owned(),
        program: "mysqlbinlog --raw".to_owned(),
        rows: backlog.rows,
        wall,
        cpu: usage::cpu_of_ended_children() - before,
        peak_rss_bytes: None,
        note: "bytes copied, not decoded, not synced".to_owned(),
    })
}

/// Debezium with its broker, stopped where the backlog begins.
pub struct Peer {
    kafka: Kafka,
    debezium: Debezium,
    topic: String,
    /// Rows that were written to see its stream begin.
    pub markers: u64,
    /// Records that are in the topic already.
    records: u64,
}

/// `None`, with a warning, when the peer is not installed.
pub async fn start_peer(mysql: &MySql) -> Result<Option<Peer>> {
    for name in ["kafka", "debezium"] {
        if let Err(error) = testkit::installed(name) {
            eprintln!("warning: without Debezium: {error:#}");
            return Ok(None);
        }
    }
    let kafka = Kafka::start(KafkaOptions::default()).await?;
    let options = DebeziumOptions {
        database: "bench".to_owned(),
        heap_mb: PEER_HEAP_MB,
        schemas: false,
        connector: vec!["snapshot.mode=no_data".to_owned()],
    };
    let debezium = Debezium::start(mysql, &kafka, options).await?;
    let topic = format!("{TOPIC_PREFIX}.bench.rows");
    // Its stream has begun when a row arrives; those that came too early for it are only in the binlog.
    let (started, mut markers) = (Instant::now(), 0);
    while kafka.records(&topic).await? == 0 {
        if started.elapsed() > PEER_STALL_MAX {
            let log = std::fs::read_to_string(debezium.log_path()).unwrap_or_default();
            bail!("Debezium did not begin to stream; its log:\n{log}");
        }
        mysql.exec("insert into bench.rows (k, c, pad) values (0, 'marker', '')").await?;
        markers += 1;
        sleep(MARKER_INTERVAL).await;
    }
    // Its offsets are written every two seconds.
    sleep(Duration::from_secs(4)).await;
    debezium.stop().await?;
    let records = kafka.records(&topic).await?;
    Ok(Some(Peer { kafka, debezium, topic, markers, records }))
}

pub async fn measure_peer(scenario: &str, peer: Peer, backlog: &Backlog) -> Result<Run> {
    let Peer { kafka, debezium, topic, records, .. } = peer;
    let kafka_before = usage::of_process(kafka.pid().context("Kafka has ended")?)?;
    let end = records + backlog.rows;
    let started = Instant::now();
    debezium.restart().await?;
    let (mut seen, mut moved, mut first) = (records, Instant::now(), None);
    while seen < end {
        sleep(Duration::from_millis(50)).await;
        let now = kafka.records(&topic).await?;
        if now > seen {
            (seen, moved) = (now, Instant::now());
            first.get_or_insert_with(Instant::now);
        }
        if moved.elapsed() > PEER_STALL_MAX {
            bail!("Debezium stalled at {seen} of {end} records");
        }
    }
    let wall = started.elapsed();
    let usage = usage::of_process(debezium.pid().context("Debezium has ended")?)?;
    let kafka_after = usage::of_process(kafka.pid().context("Kafka has ended")?)?;
    let streaming = first.map_or(wall, |first| first.elapsed());
    Ok(Run {
        scenario: scenario.to_owned(),
        program: "Debezium 3.6.1".to_owned(),
        rows: backlog.rows,
        wall,
        cpu: usage.cpu,
        peak_rss_bytes: Some(usage.peak_rss_bytes),
        note: format!(
            "into Kafka, which used {:.1} CPU s more; {:.0} rows/s between the first and the last record",
            (kafka_after.cpu - kafka_before.cpu).as_secs_f64(),
            backlog.rows as f64 / streaming.as_secs_f64()
        ),
    })
}
