//! Single-row updates in a MySQL's binlog, applied to another MySQL by tidemill, and to a third by MySQL's own replica with
//! parallel workers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testkit::MySql;
use testkit::mysql_async::prelude::Queryable;

use crate::backlog::{self, Backlog};
use crate::report::{self, Run};
use crate::tidemill::Tidemill;
use crate::usage::{self, Usage};

const TABLES: u64 = 8;
/// Workers of the replica, as many as MySQL starts by default.
const WORKERS: u32 = 4;
/// Longest that the replica may take.
const REPLICA_WAIT_MAX: Duration = Duration::from_secs(1800);

pub struct Options {
    pub updates: u64,
    pub table_rows: u64,
    /// Whether the targets sync every commit, as MySQL does by default.
    pub durable: bool,
    pub save: bool,
}

pub async fn run(options: &Options) -> Result<()> {
    let source = backlog::server_with(1, false).await?;
    let target = backlog::server_with(2, options.durable).await?;
    let replica = backlog::server_with(3, options.durable).await?;
    eprintln!("writing {TABLES} tables of {} rows", options.table_rows);
    make_tables(&source, options.table_rows).await?;
    for server in [&target, &replica] {
        let workers = "set global replica_preserve_commit_order = on; set global replica_parallel_workers =";
        server.exec(&format!("{workers} {WORKERS}")).await?;
        server.replica_of(&source).await?;
        server.caught_up_with(&source).await?;
        server.exec("stop replica").await?;
    }
    target.exec("reset replica all").await?;
    let mut tidemill = start_tidemill(&source, &target).await?;
    eprintln!("writing {} updates", options.updates);
    let backlog = backlog::run(
        source.conn().await?,
        options.updates,
        &[format!("call seed.updates({})", options.updates)],
    )
    .await?;
    let scenario = if options.durable { "synced commits" } else { "commits not synced" };
    let runs = [
        measure(scenario, &mut tidemill, &target, &backlog).await?,
        measure_replica(scenario, &replica, &source, &backlog).await?,
    ];
    let sums = [sums(&source).await?, sums(&target).await?, sums(&replica).await?];
    if sums[0] != sums[1] || sums[0] != sums[2] {
        bail!("the ends differ: {sums:?}");
    }
    println!("\n{}", report::table(&runs));
    if options.save {
        let durable = if options.durable { "" } else { " --not-durable" };
        let command = format!(
            "cargo xtask bench apply --updates {} --table-rows {}{durable}",
            options.updates, options.table_rows
        );
        let more = json!({"binlog_bytes": backlog.bytes, "tables": TABLES, "table_rows": options.table_rows});
        println!("saved {}", report::save("apply", &command, &runs, more)?.display());
    }
    Ok(())
}

/// Tables as sysbench makes them, and a procedure that commits one update of a random row after the other.
async fn make_tables(mysql: &MySql, rows: u64) -> Result<()> {
    mysql.exec("create database bench; create database seed").await?;
    let mut conn = mysql.conn().await?;
    backlog::seed(&mut conn).await?;
    let seeds = backlog::SEED_ROWS;
    let mut branches = String::new();
    for number in 1..=TABLES {
        let table = format!("bench.sbtest{number}");
        conn.query_drop(format!(
            "create table {table} (id int not null auto_increment primary key, k int not null, c char(120) not null, \
             pad char(60) not null, key k_{number} (k))"
        ))
        .await?;
        // Every number is a row's, so that every update finds one.
        for part in 0..rows.div_ceil(seeds) {
            let first = part * seeds;
            conn.query_drop(format!("insert into {table} select {first} + id, k, c, pad from seed.rows"))
                .await?;
        }
        branches.push_str(&format!("when {number} then update {table} set k = k + 1 where id = r; "));
    }
    conn.query_drop(format!(
        "create procedure seed.updates(in wanted int) begin \
         declare n, r int default 0; \
         while n < wanted do \
         set r = 1 + floor(rand() * {rows}); \
         case 1 + n % {TABLES} {branches} end case; \
         set n = n + 1; \
         end while; end"
    ))
    .await?;
    Ok(conn.disconnect().await?)
}

async fn start_tidemill(source: &MySql, target: &MySql) -> Result<Tidemill> {
    let files = [
        (
            "sources/bench.yaml",
            format!("kind: mysql\nurl: {}\ntables: [\"bench.*\"]\nsnapshot: never\n", source.url()),
        ),
        ("sinks/copy.yaml", format!("kind: mysql\nurl: {}\n", target.url())),
        ("flows/copy.yaml", "from: bench\nto: copy\n".to_owned()),
    ];
    let mut project = Tidemill::new(&files)?;
    project.start()?;
    let ready = |status: &Value| {
        status["sources"][0]["position"]["gtid"].is_string() && status["flows"][0]["state"] == "running"
    };
    project.wait("it streams", ready).await?;
    project.stop().await?;
    Ok(project)
}

fn used(server: &MySql) -> Result<Usage> {
    usage::of_process(server.pid().context("a server has ended")?)
}

async fn measure(scenario: &str, tidemill: &mut Tidemill, target: &MySql, backlog: &Backlog) -> Result<Run> {
    let before = used(target)?;
    let started = Instant::now();
    tidemill.start()?;
    let delivered = |status: &Value| status["flows"][0]["lsn"].as_u64() >= Some(backlog.rows);
    tidemill.wait("it has delivered the backlog", delivered).await?;
    let (wall, usage) = (started.elapsed(), tidemill.usage()?);
    let server = (used(target)?.cpu - before.cpu).as_secs_f64();
    tidemill.stop().await?;
    Ok(Run {
        scenario: scenario.to_owned(),
        program: "tidemill".to_owned(),
        rows: backlog.rows,
        wall,
        cpu: usage.cpu,
        peak_rss_bytes: Some(usage.peak_rss_bytes),
        note: format!("binlog, synced journal, target; the target used {server:.1} CPU s more"),
    })
}

async fn measure_replica(scenario: &str, replica: &MySql, source: &MySql, backlog: &Backlog) -> Result<Run> {
    let before = used(replica)?;
    let started = Instant::now();
    replica.exec("start replica").await?;
    let set: String = source.query_one("select @@global.gtid_executed").await?;
    let seconds = REPLICA_WAIT_MAX.as_secs();
    let late: i64 =
        replica.query_one(&format!("select wait_for_executed_gtid_set('{set}', {seconds})")).await?;
    if late != 0 {
        bail!("the replica did not end within {seconds} s");
    }
    let (wall, after) = (started.elapsed(), used(replica)?);
    Ok(Run {
        scenario: scenario.to_owned(),
        program: format!("MySQL's replica, {WORKERS} workers"),
        rows: backlog.rows,
        wall,
        cpu: after.cpu - before.cpu,
        peak_rss_bytes: None,
        note: "relay log and target in one process".to_owned(),
    })
}

/// The checksum of every table.
async fn sums(server: &MySql) -> Result<Vec<(String, u64)>> {
    let tables: Vec<_> = (1..=TABLES).map(|number| format!("bench.sbtest{number}")).collect();
    server.query(&format!("checksum table {}", tables.join(", "))).await
}
