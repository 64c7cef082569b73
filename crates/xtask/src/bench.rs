//! Runs the benchmarks, which live in a crate of their own, after installing the servers and peers that they start.

use anyhow::{Result, bail};

use crate::servers;
use crate::step::{cargo, loud, step};

/// What each benchmark needs, and the peers that it measures when they can be had.
const NEEDS: [(&str, &[&str], &[&str]); 3] = [
    ("capture", &["mysql"], &["kafka", "debezium"]),
    ("idle", &["mysql", "nats"], &[]),
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
        step("build what is measured", || {
            loud(&mut cargo(["build", "--release", "-p", "tidemill", "-p", "bench"]))
        })?;
    }
    let run = ["run", "--quiet", "--release", "-p", "bench", "--"];
    step(&format!("benchmark {name}"), || loud(cargo(run).args(words)))
}
