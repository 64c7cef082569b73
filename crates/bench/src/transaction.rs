//! One transaction of very many rows, from the binlog into a MySQL and into Kafka: what memory it takes, and whether all rows are
//! there at the end, in the MySQL at one moment.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testkit::mysql_async::prelude::Queryable;
use testkit::{Kafka, KafkaOptions, MySql};
use tokio::time::sleep;

use crate::backlog::{self, SEED_ROWS};
use crate::report::{self, Run};
use crate::tidemill::Tidemill;

/// Longest that each end may take.
const WAIT_MAX: Duration = Duration::from_secs(1800);
/// How often the target is asked what its readers see.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const TOPIC: &str = "bench.bench.rows";

pub struct Options {
    pub rows: u64,
    pub save: bool,
}

pub async fn run(options: &Options) -> Result<()> {
    let rows = options.rows / SEED_ROWS * SEED_ROWS;
    let mysql = backlog::server().await?;
    let target = backlog::server_with(2, false).await?;
    let kafka = Kafka::start(KafkaOptions::default()).await?;
    let mut project = Tidemill::new(&[
        (
            "sources/bench.yaml",
            format!("kind: mysql\nurl: {}\ntables: [\"bench.*\"]\nsnapshot: never\n", mysql.url()),
        ),
        ("sinks/copy.yaml", format!("kind: mysql\nurl: {}\n", target.url())),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: {}\n", kafka.url())),
    ])?;
    project.start()?;
    project.wait("it streams", |status| status["sources"][0]["position"]["gtid"].is_string()).await?;
    project.stop().await?;
    eprintln!("writing one transaction of {rows} rows");
    let mut conn = mysql.conn().await?;
    backlog::seed(&mut conn).await?;
    let sql = format!(
        "insert into bench.rows (k, c, pad) with recursive n (i) as (select 1 union all select i + 1 from n where i < {}) \
         select k, c, pad from n join seed.rows",
        rows / SEED_ROWS
    );
    let backlog = backlog::run(conn, rows, &[sql]).await?;
    let mut runs = Vec::new();
    for sink in ["copy", "broker"] {
        let mut tidemill = project.copy()?;
        tidemill.write("flows/one.yaml", &format!("from: bench\nto: {sink}\n"))?;
        let started = Instant::now();
        tidemill.start()?;
        let partial = wait(&tidemill, &target, sink, rows).await?;
        let (wall, usage) = (started.elapsed(), tidemill.usage()?);
        tidemill.stop().await?;
        let (program, note) = match sink {
            "copy" => ("into MySQL", format!("readers saw {partial} rows of it before all")),
            _ => ("into Kafka", String::new()),
        };
        runs.push(Run {
            scenario: "one transaction".to_owned(),
            program: program.to_owned(),
            rows,
            wall,
            cpu: usage.cpu,
            peak_rss_bytes: Some(usage.peak_rss_bytes),
            note,
        });
    }
    let sum = "checksum table bench.rows";
    let sums: [Vec<(String, u64)>; 2] = [mysql.query(sum).await?, target.query(sum).await?];
    if sums[0] != sums[1] {
        bail!("the ends differ: {sums:?}");
    }
    let records = kafka.records(TOPIC).await?;
    if records != rows {
        bail!("the topic has {records} records instead of {rows}");
    }
    println!("\n{}", report::table(&runs));
    if options.save {
        let command = format!("cargo xtask bench transaction --rows {rows}");
        let more = json!({"binlog_bytes": backlog.bytes});
        println!("saved {}", report::save("transaction", &command, &runs, more)?.display());
    }
    Ok(())
}

/// Until the flow has all; answers the most rows that a reader of the MySQL saw before.
async fn wait(tidemill: &Tidemill, target: &MySql, sink: &str, rows: u64) -> Result<u64> {
    let (started, mut partial) = (Instant::now(), 0);
    let mut reader = target.conn().await?;
    loop {
        let status: Value = tidemill.status();
        if status["flows"][0]["lsn"].as_u64() >= Some(rows) {
            return Ok(partial);
        }
        if sink == "copy" {
            // By the largest key: to count the rows would take as long as to write them.
            let seen: Result<Option<Option<u64>>, _> =
                reader.query_first("select max(id) from bench.rows").await;
            let seen = seen.ok().flatten().flatten().unwrap_or(0);
            if seen < rows {
                partial = partial.max(seen);
            }
        }
        if started.elapsed() > WAIT_MAX {
            bail!("the flow did not end: {status}");
        }
        tidemill.pid().context("tidemill does not run")?;
        sleep(LOOK_INTERVAL).await;
    }
}
