//! From a backlog in the binlog, and out of a topic of Kafka, into an index of a real OpenSearch, beside a bare `_bulk` loader:
//! the same documents from memory, over one connection, into an index with the same mapping and settings.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testkit::{Kafka, KafkaOptions, MySql, OpenSearch, OpenSearchOptions};

use crate::backlog::{self, Backlog, Shape};
use crate::report::{self, Run};
use crate::tidemill::Tidemill;
use crate::usage;

/// Rows of one transaction of the backlog.
const LARGE_ROWS: u64 = 1000;
const SCENARIO: &str = "large transactions";
const FROM_KAFKA: &str = "from a topic";
/// Where the rows of the backlog are in Kafka.
const TOPIC: &str = "bench.bench.rows";
/// Documents of one request of the loader: as many as one of ours has.
const BULK_ROWS: u64 = 4096;
/// Different rows of the loader: as many as the backlog has.
const SEED_ROWS: u64 = 2000;

pub struct Options {
    pub rows: u64,
    pub runs: u32,
    pub save: bool,
}

pub async fn run(options: &Options) -> Result<()> {
    let mysql = backlog::server().await?;
    let search =
        OpenSearch::start(OpenSearchOptions { heap_mb: 1024, ..OpenSearchOptions::default() }).await?;
    let project = start_tidemill(&mysql, &search).await?;
    eprintln!("writing {} rows", options.rows);
    let backlog = backlog::write(&mysql, options.rows, Shape::Large(LARGE_ROWS)).await?;
    let seed: Vec<(u64, String, String)> =
        mysql.query(&format!("select k, c, pad from bench.rows order by id limit {SEED_ROWS}")).await?;
    let kafka = Kafka::start(KafkaOptions { heap_mb: 512, ..KafkaOptions::default() }).await?;
    fill_topic(&kafka, &project, &backlog).await?;
    let reader = Tidemill::new(&[
        (
            "sources/bench.yaml",
            format!("kind: kafka\nurl: {}\ntopics: [{TOPIC}]\noptions: {{format: json}}\n", kafka.url()),
        ),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
    ])?;
    let mut runs = Vec::new();
    for number in 0..options.runs {
        for (scenario, project) in [(SCENARIO, &project), (FROM_KAFKA, &reader)] {
            let alias = format!("{}-{number}", scenario.replace(' ', "-"));
            runs.push(measure(scenario, project, &alias, &search, &backlog).await?);
            runs.push(load(scenario, &search, &alias, &seed, &backlog)?);
        }
    }
    println!("\n{}", report::table(&runs));
    if options.save {
        let command =
            format!("cargo xtask bench elasticsearch --rows {} --runs {}", options.rows, options.runs);
        let more = json!({"binlog_bytes": backlog.bytes});
        println!("saved {}", report::save("elasticsearch", &command, &runs, more)?.display());
    }
    Ok(())
}

/// A project that stands where the backlog will begin.
async fn start_tidemill(mysql: &MySql, search: &OpenSearch) -> Result<Tidemill> {
    let source = format!("kind: mysql\nurl: {}\ntables: [\"bench.*\"]\nsnapshot: never\n", mysql.url());
    let mut project = Tidemill::new(&[
        ("sources/bench.yaml", source),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
    ])?;
    project.start()?;
    project.wait("it streams", |status| status["sources"][0]["position"]["gtid"].is_string()).await?;
    project.stop().await?;
    Ok(project)
}

/// Delivers the backlog into a topic, one message a row.
async fn fill_topic(kafka: &Kafka, project: &Tidemill, backlog: &Backlog) -> Result<()> {
    eprintln!("filling a topic");
    let mut tidemill = project.copy()?;
    tidemill.write("sinks/broker.yaml", &format!("kind: kafka\nurl: {}\n", kafka.url()))?;
    tidemill.write("flows/fill.yaml", "from: bench\nto: broker\n")?;
    tidemill.start()?;
    let delivered = |status: &Value| status["flows"][0]["lsn"].as_u64() >= Some(backlog.rows);
    tidemill.wait("the topic is full", delivered).await?;
    tidemill.stop().await
}

async fn measure(
    scenario: &str,
    project: &Tidemill,
    alias: &str,
    search: &OpenSearch,
    backlog: &Backlog,
) -> Result<Run> {
    let mut tidemill = project.copy()?;
    // Each run is a flow of its own: nothing of it is on the server yet.
    let flow = format!("from: bench\nto: search\noptions: {{index: {alias}}}\n");
    tidemill.write(&format!("flows/{}.yaml", alias.replace('-', "_")), &flow)?;
    let before = usage::of_process(search.pid().context("OpenSearch has ended")?)?;
    let started = Instant::now();
    tidemill.start()?;
    let delivered = |status: &Value| status["flows"][0]["lsn"].as_u64() >= Some(backlog.rows);
    tidemill.wait("it has delivered the backlog", delivered).await?;
    let (wall, usage) = (started.elapsed(), tidemill.usage()?);
    let after = usage::of_process(search.pid().context("OpenSearch has ended")?)?;
    tidemill.stop().await?;
    check(search, alias, backlog.rows)?;
    Ok(Run {
        scenario: scenario.to_owned(),
        program: "tidemill".to_owned(),
        rows: backlog.rows,
        wall,
        cpu: usage.cpu,
        peak_rss_bytes: Some(usage.peak_rss_bytes),
        note: format!(
            "source, synced journal and index; OpenSearch used {:.1} CPU s more",
            (after.cpu - before.cpu).as_secs_f64()
        ),
    })
}

/// What the server takes when nobody has to capture, decode or remember anything.
fn load(
    scenario: &str,
    search: &OpenSearch,
    alias: &str,
    seed: &[(u64, String, String)],
    backlog: &Backlog,
) -> Result<Run> {
    let mut http = Http::connect(search)?;
    let like: Value = serde_json::from_str(&http.call("GET", &format!("/{alias}"), "")?)?;
    let like = &like[format!("{alias}-000001")];
    let index = format!("loader-of-{alias}");
    let body = json!({
        "mappings": like["mappings"],
        "settings": {"index.gc_deletes": like["settings"]["index"]["gc_deletes"]},
    });
    http.call("PUT", &format!("/{index}"), &body.to_string())?;
    let before = usage::of_process(search.pid().context("OpenSearch has ended")?)?;
    let own = usage::of_process(std::process::id())?;
    let started = Instant::now();
    let mut id = 0;
    while id < backlog.rows {
        let mut body = String::new();
        for id in id + 1..=(id + BULK_ROWS).min(backlog.rows) {
            let (k, c, pad) = &seed[(id % LARGE_ROWS) as usize];
            body += &format!(
                "{{\"index\":{{\"_index\":\"{index}\",\"_id\":\"{id}\"}}}}\n\
                 {{\"id\":{id},\"k\":{k},\"c\":\"{c}\",\"pad\":\"{pad}\"}}\n"
            );
        }
        let answer = http.call("POST", "/_bulk?filter_path=errors", &body)?;
        if !answer.contains("\"errors\":false") {
            bail!("the loader's documents are refused: {answer}");
        }
        id = (id + BULK_ROWS).min(backlog.rows);
    }
    let wall = started.elapsed();
    let after = usage::of_process(search.pid().context("OpenSearch has ended")?)?;
    check(search, &index, backlog.rows)?;
    Ok(Run {
        scenario: scenario.to_owned(),
        program: "bare _bulk loader".to_owned(),
        rows: backlog.rows,
        wall,
        cpu: usage::of_process(std::process::id())?.cpu - own.cpu,
        peak_rss_bytes: None,
        note: format!(
            "from memory, one connection, {BULK_ROWS} documents a request; OpenSearch used {:.1} CPU s more",
            (after.cpu - before.cpu).as_secs_f64()
        ),
    })
}

/// Every row is a document.
fn check(search: &OpenSearch, index: &str, rows: u64) -> Result<()> {
    let mut http = Http::connect(search)?;
    http.call("POST", &format!("/{index}/_refresh"), "")?;
    let answer: Value = serde_json::from_str(&http.call("GET", &format!("/{index}/_count"), "")?)?;
    if answer["count"] != rows {
        bail!("{index} has {} documents instead of {rows}", answer["count"]);
    }
    Ok(())
}

/// One connection to the server.
struct Http(BufReader<TcpStream>);

impl Http {
    fn connect(search: &OpenSearch) -> Result<Http> {
        let stream = TcpStream::connect(search.addr())?;
        stream.set_nodelay(true)?;
        Ok(Http(BufReader::new(stream)))
    }

    /// The body of an answer; one that is no success is an error.
    fn call(&mut self, method: &str, path: &str, body: &str) -> Result<String> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: search\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(head.as_bytes())?;
        self.0.get_mut().write_all(body.as_bytes())?;
        let (mut status, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if status.is_empty() {
                status.clone_from(&line);
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        let answer = String::from_utf8(answer)?;
        if !status.contains(" 200 ") {
            bail!("{method} {path}: {status}: {answer}");
        }
        Ok(answer)
    }
}
