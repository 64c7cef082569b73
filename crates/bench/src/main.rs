//! Measures the program that users run, as a process and from outside, with its peers in the same run.
//!
//! `cargo xtask bench` installs what is started here and runs it. bench/README.md explains the method.

mod apply;
mod backlog;
mod capture;
mod corpus;
mod elasticsearch;
mod idle;
mod kafka;
mod mesh;
mod mesh_changes;
mod mesh_memory;
mod report;
mod sinks;
mod subscribe;
mod subscribe_nats;
mod tidemill;
mod topics;
mod transaction;
mod usage;

use std::env;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask bench NAME [ARGS]

  capture            a backlog in the binlog of a real MySQL, read into a durable journal
    --rows N           rows of the backlog of large transactions (2000000; 0 leaves it out)
    --single-rows N    rows of the backlog of one-row transactions (300000; 0 leaves it out)
    --runs N           how often tidemill and mysqlbinlog read each backlog (3)
    --no-peers         without Debezium
    --no-save          without a file in bench/results
    --hold             wait, with tidemill running, at the end of each backlog's first run (for a profiler)
  kafka              a backlog in the binlog of a real MySQL, delivered into a topic of a real Kafka
    --rows N           rows of the backlog (1000000)
    --runs N           how often each program does it (2)
    --no-peers         without Debezium
    --no-save          without a file in bench/results
  topics             full topics of a real Kafka, in several formats, read into a durable journal
    --rows N           messages of each topic (500000)
    --runs N           how often each is read (2)
    --no-save          without a file in bench/results
  elasticsearch      the same backlog, and a topic, into an index of OpenSearch, beside a bare _bulk loader
    --rows N           rows of the backlog (300000)
    --runs N           how often each program does it (2)
    --no-save          without a file in bench/results
  apply              single-row updates of one MySQL applied to another, beside MySQL's own replica and Debezium's JDBC sink
    --no-peers         without Debezium
    --updates N        (1000000)
    --table-rows N     rows of each of the eight tables (100000)
    --not-durable      targets that do not sync their commits
    --no-save          without a file in bench/results
  sinks              one backlog into MySQL, Kafka, Redis and OpenSearch at once, and with the last of them frozen
    --rows N           rows of the backlog (300000)
    --runs N           how often (2)
    --no-save          without a file in bench/results
  transaction        one transaction of very many rows, into MySQL and into Kafka
    --rows N           (10000000)
    --no-save          without a file in bench/results
  subscribe          copies of a table filled and followed: by one client, by many on few shapes, by many shapes, and idle ones
    --rows N           rows of the table that is copied (1000000)
    --clients N        clients that share ten shapes (1000)
    --shapes N         shapes with a client each (10000; 0 leaves it out)
    --idle N           idle clients, each with a connection (10000; 0 leaves it out)
    --seconds N        of each measurement with a writer (10)
    --no-peers         without NATS JetStream, which has as many consumers on ten subjects
    --no-save          without a file in bench/results
  mesh               point selects of sysbench: direct, through HAProxy, and through the SQL proxy with and without digests
    --seconds N        of each measurement (8)
    --runs N           how often each (2)
    --idle N           idle connections whose memory is measured (2000; 0 leaves it out)
    --no-save          without a file in bench/results
  mesh-changes       sysbench through the SQL proxy, which is upgraded, reconfigured and drained all the while
    --upgrades N       (50)
    --no-save          without a file in bench/results
  mesh-memory        the SQL proxy in a cgroup of 64 MiB, under clients that want more (as root)
    --no-save          without a file in bench/results
  idle               memory at rest, and the time from process start to the first new change with many tables
    --tables N         (1000)
  debezium-corpus    what Debezium emits for the scripts of crates/flow/tests/corpus, written beside them
  soak               everything is killed and cut under a writer; then both ends are compared
    --minutes N        (60)
    --seed N           (the clock)
";

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match run(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[String]) -> Result<()> {
    let (name, rest) = words.split_first().map_or(("help", words), |(name, rest)| (name.as_str(), rest));
    let mut flags = Flags(rest.to_vec());
    match name {
        "capture" => {
            let options = capture::Options {
                rows: flags.value("--rows", 2_000_000)?,
                single_rows: flags.value("--single-rows", 300_000)?,
                runs: flags.value("--runs", 3)?,
                peers: !flags.has("--no-peers"),
                save: !flags.has("--no-save"),
                hold: flags.has("--hold"),
            };
            flags.end()?;
            capture::run(&options).await
        }
        "kafka" => {
            let options = kafka::Options {
                rows: flags.value("--rows", 1_000_000)?,
                runs: flags.value("--runs", 2)?,
                peers: !flags.has("--no-peers"),
                save: !flags.has("--no-save"),
            };
            flags.end()?;
            kafka::run(&options).await
        }
        "topics" => {
            let options = topics::Options {
                rows: flags.value("--rows", 500_000)?,
                runs: flags.value("--runs", 2)?,
                save: !flags.has("--no-save"),
            };
            flags.end()?;
            topics::run(&options).await
        }
        "elasticsearch" => {
            let options = elasticsearch::Options {
                rows: flags.value("--rows", 300_000)?,
                runs: flags.value("--runs", 2)?,
                save: !flags.has("--no-save"),
            };
            flags.end()?;
            elasticsearch::run(&options).await
        }
        "apply" => {
            let options = apply::Options {
                updates: flags.value("--updates", 1_000_000)?,
                table_rows: flags.value("--table-rows", 100_000)?,
                durable: !flags.has("--not-durable"),
                peers: !flags.has("--no-peers"),
                save: !flags.has("--no-save"),
            };
            flags.end()?;
            apply::run(&options).await
        }
        "sinks" => {
            let options = sinks::Options {
                rows: flags.value("--rows", 300_000)?,
                runs: flags.value("--runs", 2)?,
                save: !flags.has("--no-save"),
            };
            flags.end()?;
            sinks::run(&options).await
        }
        "transaction" => {
            let options = transaction::Options {
                rows: flags.value("--rows", 10_000_000)?,
                save: !flags.has("--no-save"),
            };
            flags.end()?;
            transaction::run(&options).await
        }
        "subscribe" => {
            let options = subscribe::Options {
                rows: flags.value("--rows", 1_000_000)?,
                clients: flags.value("--clients", 1000)?,
                shapes: flags.value("--shapes", 10_000)?,
                idle: flags.value("--idle", 10_000)?,
                seconds: flags.value("--seconds", 10)?,
                peers: !flags.has("--no-peers"),
                save: !flags.has("--no-save"),
            };
            flags.end()?;
            subscribe::run(&options).await
        }
        "mesh" => {
            let options = mesh::Options {
                seconds: flags.value("--seconds", 8)?,
                runs: flags.value("--runs", 2)?,
                idle: flags.value("--idle", 2000)?,
                save: !flags.has("--no-save"),
            };
            flags.end()?;
            mesh::run(options).await
        }
        "mesh-changes" => {
            let options = mesh_changes::Options {
                upgrades: flags.value("--upgrades", 50)?,
                save: !flags.has("--no-save"),
            };
            flags.end()?;
            mesh_changes::run(options).await
        }
        "mesh-memory" => {
            let save = !flags.has("--no-save");
            flags.end()?;
            mesh_memory::run(save).await
        }
        "idle" => {
            let tables = flags.value("--tables", 1000)?;
            flags.end()?;
            idle::run(tables).await
        }
        "debezium-corpus" => {
            flags.end()?;
            corpus::run().await
        }
        "help" => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("there is no benchmark `{other}`\n{USAGE}"),
    }
}

/// The arguments that have not been taken yet.
struct Flags(Vec<String>);

impl Flags {
    fn has(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|word| word == name);
        found.map(|index| self.0.remove(index)).is_some()
    }

    fn value<T: FromStr>(&mut self, name: &str, default: T) -> Result<T> {
        let Some(index) = self.0.iter().position(|word| word == name) else { return Ok(default) };
        self.0.remove(index);
        let value = (index < self.0.len()).then(|| self.0.remove(index));
        let value = value.with_context(|| format!("{name} needs a number"))?;
        value.parse().ok().with_context(|| format!("{name} needs a number, not `{value}`"))
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { bail!("unknown arguments: {}\n{USAGE}", self.0.join(" ")) }
    }
}
