//! Memory at rest, and how soon a restarted process goes on.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions, Nats, NatsOptions};
use tokio::time::sleep;

use crate::backlog::{self, Shape};
use crate::report;
use crate::tidemill::{Tidemill, lsn};

/// Long enough for a pool or an allocator to give back what it wants to.
const REST: Duration = Duration::from_secs(5);
/// Rows that pass through before the second look at memory.
const ROWS: u64 = 100_000;
/// Starts with many tables, of which the table shows each.
const STARTS: usize = 5;

pub async fn run(tables: u32) -> Result<()> {
    let memory = memory().await?;
    let starts = starts(tables).await?;
    println!("\nmemory at rest, one MySQL source and one NATS sink (goal: 30 MB at most)");
    for (name, value) in memory.as_object().into_iter().flatten() {
        println!("  {name:<40} {value:>8}");
    }
    println!("process start to the first new change in the journal, {tables} tables (goal: below 1 s)");
    println!("  seconds                                  {starts:?}");
    let more = json!({"memory": memory, "tables": tables, "seconds_to_first_change": starts});
    let path = report::save("idle", &format!("cargo xtask bench idle --tables {tables}"), &[], more)?;
    println!("saved {}", path.display());
    Ok(())
}

async fn memory() -> Result<Value> {
    let mysql = backlog::server().await?;
    let nats = Nats::start(NatsOptions::default()).await?;
    let mut tidemill = Tidemill::new(&[
        ("sources/bench.yaml", format!("kind: mysql\nurl: {}\ntables: [\"bench.*\"]\n", mysql.url())),
        ("sinks/stream.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("flows/all.yaml", "from: bench\nto: stream\n".to_owned()),
    ])?;
    let mb = |bytes: u64| (bytes as f64 / 1e5).round() / 10.0;
    tidemill.start()?;
    tidemill.wait("it streams", |status| status["sources"][0]["state"] == "stream").await?;
    sleep(REST).await;
    let fresh = tidemill.usage()?;
    let backlog = backlog::write(&mysql, ROWS, Shape::Large(1000)).await?;
    let delivered = |status: &Value| lsn(status) >= backlog.rows && status["flows"][0]["lag_changes"] == 0;
    tidemill.wait("everything is delivered", delivered).await?;
    sleep(REST).await;
    let worked = tidemill.usage()?;
    tidemill.stop().await?;
    tidemill.start()?;
    tidemill.wait("it streams again", |status| status["sources"][0]["position"]["gtid"].is_string()).await?;
    sleep(REST).await;
    let cpu = tidemill.usage()?.cpu;
    sleep(REST).await;
    let again = tidemill.usage()?;
    Ok(json!({
        "fresh, RSS MB": mb(fresh.rss_bytes),
        "after 100,000 rows, RSS MB": mb(worked.rss_bytes),
        "after 100,000 rows, peak RSS MB": mb(worked.peak_rss_bytes),
        "restarted, RSS MB": mb(again.rss_bytes),
        "restarted, CPU ms per second at rest":
            ((again.cpu - cpu).as_secs_f64() * 1000.0 / REST.as_secs_f64()).round(),
    }))
}

/// Each time a row is written while the process is down; the clock runs from its start until the row is durable.
async fn starts(tables: u32) -> Result<Vec<f64>> {
    let args = vec!["--sync-binlog=0".to_owned(), "--innodb-flush-log-at-trx-commit=0".to_owned()];
    let mysql = MySql::start(MySqlOptions { args, ..MySqlOptions::default() }).await?;
    mysql.exec("create database bench").await?;
    let mut conn = mysql.conn().await?;
    for number in 0..tables {
        conn.query_drop(format!(
            "create table bench.t{number} (id int primary key, name varchar(60) not null, amount decimal(10,2), \
             made timestamp not null default current_timestamp, note text, key (name))"
        ))
        .await?;
    }
    let mut tidemill = Tidemill::new(&[(
        "sources/bench.yaml",
        format!("kind: mysql\nurl: {}\ntables: [\"bench.*\"]\nsnapshot: never\n", mysql.url()),
    )])?;
    tidemill.start()?;
    tidemill.wait("it streams", |status| status["sources"][0]["position"]["gtid"].is_string()).await?;
    tidemill.stop().await?;
    let mut seconds = Vec::new();
    for start in 1..=STARTS {
        let table = start as u32 * 37 % tables;
        conn.query_drop(format!("insert into bench.t{table} (id, name) values ({start}, 'new')")).await?;
        let started = Instant::now();
        tidemill.start()?;
        tidemill.wait("the change is durable", |status| lsn(status) >= start as u64).await?;
        seconds.push((started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0);
        tidemill.stop().await?;
    }
    conn.disconnect().await?;
    Ok(seconds)
}
