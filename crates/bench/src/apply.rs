//! Single-row updates in a MySQL's binlog, applied to another MySQL by tidemill, to a third by MySQL's own replica with
//! parallel workers, and to a fourth by Debezium's JDBC sink out of Kafka.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testkit::mysql_async::prelude::Queryable;
use testkit::{Debezium, DebeziumOptions, DebeziumSinkOptions, Kafka, KafkaOptions, MySql, TOPIC_PREFIX};
use tokio::time::sleep;

use crate::backlog::{self, Backlog};
use crate::report::{self, Run};
use crate::tidemill::Tidemill;
use crate::usage::{self, Usage};

const TABLES: u64 = 8;
/// Workers of the replica, as many as MySQL starts by default.
const WORKERS: u32 = 4;
/// Longest that the replica may take.
const REPLICA_WAIT_MAX: Duration = Duration::from_secs(1800);
/// Tasks of Debezium's sink: as many as MySQL's replica has workers.
const SINK_TASKS: u32 = WORKERS;
const PEER_HEAP_MB: u32 = 1024;
/// Longest time in which Debezium may stand still before it counts as stuck.
const PEER_STALL_MAX: Duration = Duration::from_secs(120);
/// How often the target is asked how far the sink is. It costs the target a scan of an index.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub struct Options {
    pub updates: u64,
    pub table_rows: u64,
    /// Whether the targets sync every commit, as MySQL does by default.
    pub durable: bool,
    pub peers: bool,
    pub save: bool,
}

/// What Debezium's sink needs: updates in topics, and a target that has the rows from before.
struct Peer {
    kafka: Kafka,
    target: MySql,
}

pub async fn run(options: &Options) -> Result<()> {
    let source = backlog::server_with(1, false).await?;
    let target = backlog::server_with(2, options.durable).await?;
    let replica = backlog::server_with(3, options.durable).await?;
    eprintln!("writing {TABLES} tables of {} rows", options.table_rows);
    make_tables(&source, options.table_rows).await?;
    let peer = if options.peers { peer(options.durable).await? } else { None };
    for server in [&target, &replica].into_iter().chain(peer.as_ref().map(|peer| &peer.target)) {
        let workers = "set global replica_preserve_commit_order = on; set global replica_parallel_workers =";
        server.exec(&format!("{workers} {WORKERS}")).await?;
        server.replica_of(&source).await?;
        server.caught_up_with(&source).await?;
        server.exec("stop replica").await?;
    }
    target.exec("reset replica all").await?;
    let before = match &peer {
        Some(peer) => {
            peer.target.exec("reset replica all").await?;
            Some(start_debezium(&source, peer).await?)
        }
        None => None,
    };
    let mut tidemill = start_tidemill(&source, &target).await?;
    eprintln!("writing {} updates", options.updates);
    let backlog = backlog::run(
        source.conn().await?,
        options.updates,
        &[format!("call seed.updates({})", options.updates)],
    )
    .await?;
    let scenario = if options.durable { "synced commits" } else { "commits not synced" };
    if let (Some(peer), Some(debezium)) = (&peer, before) {
        fill_topics(peer, &debezium, options.updates).await?;
    }
    let mut runs = vec![
        measure(scenario, &mut tidemill, &target, &backlog).await?,
        measure_replica(scenario, &replica, &source, &backlog).await?,
    ];
    let mut ends = vec![("tidemill", &target), ("the replica", &replica)];
    if let Some(peer) = &peer {
        runs.push(measure_sink(scenario, peer, &source, &backlog).await?);
        ends.push(("Debezium's sink", &peer.target));
    }
    let expected = sums(&source).await?;
    for (name, end) in ends {
        let found = sums(end).await?;
        if found != expected {
            bail!("what {name} has differs from the source: {found:?}, not {expected:?}");
        }
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

/// `None`, with a warning, when the peer is not installed.
async fn peer(durable: bool) -> Result<Option<Peer>> {
    for name in ["kafka", "debezium"] {
        if let Err(error) = testkit::installed(name) {
            eprintln!("warning: without Debezium's sink: {error:#}");
            return Ok(None);
        }
    }
    let kafka = Kafka::start(KafkaOptions { heap_mb: 1024, ..KafkaOptions::default() }).await?;
    Ok(Some(Peer { kafka, target: backlog::server_with(4, durable).await? }))
}

fn topics() -> Vec<String> {
    (1..=TABLES).map(|number| format!("{TOPIC_PREFIX}.bench.sbtest{number}")).collect()
}

async fn records(kafka: &Kafka) -> Result<u64> {
    let mut sum = 0;
    for topic in topics() {
        sum += kafka.records(&topic).await?;
    }
    Ok(sum)
}

/// Debezium's source, which has begun to stream: a row of its own in each table came through and is gone again.
async fn start_debezium(source: &MySql, peer: &Peer) -> Result<Debezium> {
    let options = DebeziumOptions {
        database: "bench".to_owned(),
        heap_mb: PEER_HEAP_MB,
        schemas: true,
        connector: vec!["snapshot.mode=no_data".to_owned(), "tombstones.on.delete=false".to_owned()],
    };
    let debezium = Debezium::start(source, &peer.kafka, options).await?;
    let started = Instant::now();
    while records(&peer.kafka).await? < 2 * TABLES {
        if started.elapsed() > PEER_STALL_MAX {
            let log = std::fs::read_to_string(debezium.log_path()).unwrap_or_default();
            bail!("Debezium did not begin to stream; its log:\n{log}");
        }
        for number in 1..=TABLES {
            let table = format!("bench.sbtest{number}");
            source
                .exec(&format!(
                    "insert into {table} values (2000000000, 0, '', ''); delete from {table} where id = 2000000000"
                ))
                .await?;
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(debezium)
}

/// Waits until the topics have the backlog: the sink alone is measured.
async fn fill_topics(peer: &Peer, debezium: &Debezium, updates: u64) -> Result<()> {
    eprintln!("Debezium fills its topics");
    let (mut seen, mut moved) = (0, Instant::now());
    while seen < updates {
        sleep(LOOK_INTERVAL).await;
        let now = records(&peer.kafka).await?;
        if now > seen {
            (seen, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PEER_STALL_MAX {
            bail!("Debezium stalled at {seen} of {updates} records");
        }
    }
    // A few records of before the backlog are counted too; so many may be under way.
    sleep(Duration::from_secs(5)).await;
    debezium.stop().await
}

/// Every update adds one to a row's k: their sum says how far a server is.
async fn total(server: &MySql) -> Result<u64> {
    let parts: Vec<_> =
        (1..=TABLES).map(|number| format!("(select sum(k) from bench.sbtest{number})")).collect();
    server.query_one(&format!("select cast({} as unsigned)", parts.join(" + "))).await
}

async fn measure_sink(scenario: &str, peer: &Peer, source: &MySql, backlog: &Backlog) -> Result<Run> {
    let before = used(&peer.target)?;
    let kafka_before = usage::of_process(peer.kafka.pid().context("Kafka has ended")?)?;
    let end = total(source).await?;
    let begin = total(&peer.target).await?;
    let started = Instant::now();
    let options = DebeziumSinkOptions {
        topics: topics(),
        database: "bench".to_owned(),
        heap_mb: PEER_HEAP_MB,
        tasks: SINK_TASKS,
        connector: ["batch.size=2000", "use.reduction.buffer=true", "delete.enabled=true"]
            .map(str::to_owned)
            .to_vec(),
    };
    let sink = Debezium::start_sink(&peer.kafka, &peer.target, options).await?;
    let (mut seen, mut moved, mut first) = (begin, Instant::now(), None);
    while seen != end {
        sleep(LOOK_INTERVAL).await;
        let now = total(&peer.target).await?;
        if now != seen {
            (seen, moved) = (now, Instant::now());
            first.get_or_insert_with(|| (Instant::now(), now));
        }
        if moved.elapsed() > PEER_STALL_MAX {
            let log = std::fs::read_to_string(sink.log_path()).unwrap_or_default();
            bail!("Debezium's sink stalled at {seen} of {end}; its log:\n{log}");
        }
    }
    let wall = started.elapsed();
    let usage = usage::of_process(sink.pid().context("the sink has ended")?)?;
    let kafka = usage::of_process(peer.kafka.pid().context("Kafka has ended")?)?.cpu - kafka_before.cpu;
    let (since, at) = first.context("nothing was to do")?;
    let streaming = end.saturating_sub(at) as f64 / since.elapsed().as_secs_f64().max(0.001);
    Ok(Run {
        scenario: scenario.to_owned(),
        program: format!("Debezium's JDBC sink, {SINK_TASKS} tasks"),
        rows: backlog.rows,
        wall,
        cpu: usage.cpu,
        peak_rss_bytes: Some(usage.peak_rss_bytes),
        note: format!(
            "out of full topics; {streaming:.0} rows/s once it had begun; the target used {:.1}, Kafka {:.1} CPU s more",
            (used(&peer.target)?.cpu - before.cpu).as_secs_f64(),
            kafka.as_secs_f64()
        ),
    })
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
