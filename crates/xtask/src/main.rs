//! `cargo xtask`: the chores of this repository. CI runs these and nothing else.
//!
//! Each chore prints its steps and how long they took, and ends with status 0 only when all of it was done.

mod bench;
mod check;
mod crates;
mod demo;
mod docs;
mod drivers;
mod servers;
mod setup;
mod step;
mod test;
mod tidy;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask CHORE

  setup              the system packages that builds and tests need; installs them when run as root
  demo [ARGS]        build and run the demo; --mysql: on a real MySQL, --mesh: the SQL proxy, --seconds N stops it
  test [NAME…]       install the servers that the tests use, then run every test, or those whose path holds NAME
  check              what CI asks of the sources: format, tidiness, lints, fresh reference pages
  servers [NAME…]    install real servers into the user's cache: mysql, mariadb, nats, redis, kafka, tidb,
                     opensearch, registry, pd, chromium, typescript, durable-streams, cube; when named, also the peer of benchmarks: debezium
  docs [--check]     write docs/reference, or fail when it is stale
  tidy               the rules of the house that no compiler checks
  drivers [NAME…]    run drivers' own test-suites direct and through the mesh, and compare: go, pymysql, …; takes
                     --server mysql|mariadb|tidb, --auth relay|vault, --list; needs the network
  bench NAME [ARGS]  run a benchmark: capture, idle, soak; `bench help` lists their arguments
";

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    if ["", "help", "-h", "--help"].contains(&verb.as_str()) {
        print!("{USAGE}");
        return if verb.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    // Whoever asks a chore for help does not want it done, nor anything built or installed.
    let asks = words.iter().any(|word| word == "-h" || word == "--help");
    if asks {
        return match usage_of(&verb) {
            Some(lines) => {
                print!("usage: cargo xtask CHORE\n\n{lines}");
                ExitCode::SUCCESS
            }
            None => no_chore(&verb),
        };
    }
    match run(&verb, &words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The lines of the usage that are about one chore.
fn usage_of(verb: &str) -> Option<String> {
    let about = |line: &&str| line.strip_prefix("  ").and_then(|line| line.split(' ').next()) == Some(verb);
    let mut lines = USAGE.lines().skip_while(|line| !about(line));
    let first = lines.next()?;
    // A line further in than a chore's name goes on with what was said of it.
    let rest = lines.take_while(|line| line.starts_with("    "));
    Some(std::iter::once(first).chain(rest).map(|line| format!("{line}\n")).collect())
}

fn no_chore(verb: &str) -> ExitCode {
    eprintln!("error: there is no chore `{verb}`\nhint: `cargo xtask help` lists them");
    ExitCode::FAILURE
}

fn run(verb: &str, words: &[String]) -> Result<()> {
    match verb {
        "setup" => setup::run(),
        "demo" => demo::run(words),
        "test" => test::run(words),
        "check" => check::run(),
        "servers" => servers::install(words),
        "docs" => docs::run(words),
        "tidy" => tidy::run(),
        "bench" => bench::run(words),
        "drivers" => drivers::run(words),
        other => bail!("there is no chore `{other}`\nhint: `cargo xtask help` lists them"),
    }
}

#[cfg(test)]
mod tests {
    use super::usage_of;

    #[test]
    fn each_chore_has_its_lines_in_the_usage() {
        let servers = usage_of("servers").expect("a chore");
        assert!(
            servers.starts_with("  servers [NAME…]") && servers.contains("benchmarks: debezium"),
            "{servers}"
        );
        assert!(!servers.contains("docs ["), "{servers}");
        for chore in ["setup", "demo", "test", "check", "docs", "tidy", "bench"] {
            assert_eq!(usage_of(chore).map(|lines| lines.lines().count()), Some(1), "{chore}");
        }
        assert_eq!(usage_of("usage:"), None);
        assert_eq!(usage_of("cargo"), None);
    }
}
