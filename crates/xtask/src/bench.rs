//! Runs the benchmarks, which live in a crate of their own, after installing the servers and peers that they start.
//!
//! The soak is the exception: it is the test that kills everything, for longer.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::servers;
use crate::step::{cargo, loud, step};

/// What each benchmark needs, and the peers that it measures when they can be had.
const NEEDS: [(&str, &[&str], &[&str]); 13] = [
    ("capture", &["mysql"], &["kafka", "debezium"]),
    ("kafka", &["mysql", "kafka"], &["debezium"]),
    ("topics", &["kafka"], &[]),
    ("elasticsearch", &["mysql", "kafka", "opensearch"], &[]),
    ("apply", &["mysql"], &["kafka", "debezium"]),
    ("sinks", &["mysql", "kafka", "redis", "opensearch"], &[]),
    ("transaction", &["mysql", "kafka"], &[]),
    ("mesh", &["mysql", "haproxy", "sysbench"], &["router"]),
    ("mesh-changes", &["mysql", "sysbench"], &[]),
    ("mesh-memory", &["mysql"], &[]),
    ("idle", &["mysql", "nats"], &[]),
    ("debezium-corpus", &["mysql", "kafka", "debezium"], &[]),
    ("soak", &["mysql", "mariadb", "nats"], &[]),
];

/// Runs one of them with its arguments, or all that end by themselves soon.
pub fn run(words: &[String]) -> Result<()> {
    let Some((name, rest)) = words.split_first() else {
        for name in ["capture", "idle"] {
            run(&[name.to_owned()])?;
        }
        return Ok(());
    };
    if name != "help" {
        let Some((_, needed, peers)) = NEEDS.iter().find(|(known, ..)| known == name) else {
            let known: Vec<_> = NEEDS.iter().map(|(known, ..)| *known).collect();
            bail!("there is no benchmark `{name}`\nhint: choose from {}", known.join(", "));
        };
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        servers::install(&owned(needed))?;
        if !peers.is_empty()
            && !rest.iter().any(|word| word == "--no-peers")
            && let Err(error) = servers::install(&owned(peers))
        {
            eprintln!("warning: the run goes on without these peers: {error:#}");
        }
        if name == "soak" {
            return soak(rest);
        }
        step("build what is measured", || {
            loud(&mut cargo(["build", "--release", "-p", "tidemill", "-p", "bench"]))
        })?;
    }
    let run = ["run", "--quiet", "--release", "-p", "bench", "--"];
    step(&format!("benchmark {name}"), || loud(cargo(run).args(words)))
}

/// Runs the stories of `crates/tidemill/tests/pipelines/kill.rs` one after the other, each for its share of the minutes.
fn soak(words: &[String]) -> Result<()> {
    let (mut minutes, mut seed) = ("60".to_owned(), None);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let value = rest.next().filter(|value| value.parse::<u64>().is_ok_and(|number| number > 0));
        match (word.as_str(), value) {
            ("--minutes", Some(value)) => minutes = value.clone(),
            ("--seed", Some(value)) => seed = Some(value.clone()),
            _ => bail!("`{word}` is not an argument of soak\nhint: --minutes N --seed N"),
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed = seed.unwrap_or_else(|| now.to_string());
    let test = ["test", "--release", "-p", "tidemill", "--test", "pipelines", "kill::"];
    step(&format!("soak for {minutes} minutes with seed {seed}"), || {
        loud(
            cargo(test)
                .args(["--", "--nocapture", "--test-threads=1"])
                .env("TIDEMILL_TORMENT_MINUTES", &minutes)
                .env("TIDEMILL_TORMENT_SEED", &seed),
        )
    })
}
