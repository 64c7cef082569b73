//! From one backlog into four kinds of sinks at once: the memory that takes, and what a sink that has stopped costs the others.
//!
//! MySQL, Kafka, Redis and OpenSearch take the same rows. Without the fourth, with it, and with it frozen (its connections stay open,
//! and nothing answers): the other three are timed each time, until the last of them has the backlog.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use testkit::{Kafka, KafkaOptions, MySql, OpenSearch, OpenSearchOptions, Redis, RedisOptions};

use crate::backlog::{self, Backlog, Shape};
use crate::report::{self, Run};
use crate::tidemill::Tidemill;

/// Rows of one transaction of the backlog.
const LARGE_ROWS: u64 = 1000;

pub struct Options {
    pub rows: u64,
    pub runs: u32,
    pub save: bool,
}

/// The servers, and a project that stands where the backlog begins.
struct Bench {
    _source: MySql,
    copy: MySql,
    search: OpenSearch,
    _kafka: Kafka,
    _redis: Redis,
    project: Tidemill,
    backlog: Backlog,
}

/// What becomes of the fourth sink.
#[derive(Clone, Copy, PartialEq)]
enum Fourth {
    Absent,
    Running,
    Frozen,
}

pub async fn run(options: &Options) -> Result<()> {
    let bench = prepare(options.rows).await?;
    let mut runs = Vec::new();
    for number in 0..options.runs {
        for fourth in [Fourth::Absent, Fourth::Frozen, Fourth::Running] {
            runs.push(measure(&bench, number, fourth).await?);
        }
    }
    println!("\n{}", report::table(&runs));
    if options.save {
        let command = format!("cargo xtask bench sinks --rows {} --runs {}", options.rows, options.runs);
        let more = json!({"binlog_bytes": bench.backlog.bytes});
        println!("saved {}", report::save("sinks", &command, &runs, more)?.display());
    }
    Ok(())
}

async fn prepare(rows: u64) -> Result<Bench> {
    let mysql = backlog::server().await?;
    let copy = backlog::server_with(2, false).await?;
    let kafka = Kafka::start(KafkaOptions::default()).await?;
    let redis = Redis::start(RedisOptions::default()).await?;
    let search =
        OpenSearch::start(OpenSearchOptions { heap_mb: 1024, ..OpenSearchOptions::default() }).await?;
    let source = format!("kind: mysql\nurl: {}\ntables: [\"bench.*\"]\nsnapshot: never\n", mysql.url());
    let mut project = Tidemill::new(&[
        ("sources/bench.yaml", source),
        ("sinks/copy.yaml", format!("kind: mysql\nurl: {}\n", copy.url())),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: kafka://{}\n", kafka.addr())),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {}\n", redis.url())),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
    ])?;
    project.start()?;
    project.wait("it streams", |status| status["sources"][0]["position"]["gtid"].is_string()).await?;
    project.stop().await?;
    eprintln!("writing {rows} rows");
    let backlog = backlog::write(&mysql, rows, Shape::Large(LARGE_ROWS)).await?;
    Ok(Bench { _source: mysql, copy, search, _kafka: kafka, _redis: redis, project, backlog })
}

async fn measure(bench: &Bench, number: u32, fourth: Fourth) -> Result<Run> {
    let (name, program) = match fourth {
        Fourth::Absent => ("absent", "three sinks"),
        Fourth::Running => ("running", "four sinks"),
        Fourth::Frozen => ("frozen", "three, fourth frozen"),
    };
    let mut tidemill = bench.project.copy()?;
    // Nothing of a run is on the servers yet.
    let own = format!("{name}_{number}");
    let flow = |to: &str, more: &str| format!("from: bench\nto: {to}\n{more}");
    tidemill.write(
        &format!("flows/a_{own}.yaml"),
        &flow("copy", &format!("route: {{\"bench.*\": \"{own}.*\"}}\n")),
    )?;
    tidemill
        .write(&format!("flows/b_{own}.yaml"), &flow("broker", &format!("options: {{topic: {own}}}\n")))?;
    let key = format!("options: {{key: \"{own}:{{table}}:{{key}}\"}}\n");
    tidemill.write(&format!("flows/c_{own}.yaml"), &flow("cache", &key))?;
    if fourth != Fourth::Absent {
        let index = format!("options: {{index: {}}}\n", own.replace('_', "-"));
        tidemill.write(&format!("flows/d_{own}.yaml"), &flow("search", &index))?;
    }
    if fourth == Fourth::Frozen {
        bench.search.pause();
    }
    let rows = bench.backlog.rows;
    let has = move |status: &Value, flow: usize| status["flows"][flow]["lsn"].as_u64() >= Some(rows);
    let started = Instant::now();
    tidemill.start()?;
    let three = tidemill.wait("three have the backlog", |s| (0..3).all(|flow| has(s, flow))).await;
    let (wall, usage) = (started.elapsed(), tidemill.usage()?);
    if fourth == Fourth::Frozen {
        bench.search.resume();
    }
    three?;
    let mut note = "until the last of the three has all rows".to_owned();
    let mut peak = usage.peak_rss_bytes;
    if fourth != Fourth::Absent {
        tidemill.wait("the fourth has the backlog", |s| has(s, 3)).await?;
        note = format!("{note}; the fourth had them after {:.1} s", started.elapsed().as_secs_f64());
        peak = tidemill.usage()?.peak_rss_bytes;
    }
    tidemill.stop().await?;
    bench.copy.exec(&format!("drop database {own}")).await?;
    Ok(Run {
        scenario: "three sinks' time".to_owned(),
        program: program.to_owned(),
        rows,
        wall,
        cpu: usage.cpu,
        peak_rss_bytes: Some(peak),
        note,
    })
}
