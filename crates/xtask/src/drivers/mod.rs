//! Runs drivers' own test-suites direct and through the mesh, and compares: no test may pass direct and fail through.
//!
//! Each driver comes from its public registry into the cache that `cargo xtask servers` fills; testkit starts the server, and
//! a mesh stands in front of it. Tests that fail either way are the server's or the driver's own business, and are only counted.
//! Not part of `check` or CI: it takes long, and needs the network. Whole outputs are kept in `target/drivers`.

mod except;
mod go;
mod java;
mod mysqltest;
mod node;
mod outcome;
mod php;
mod python;
mod rust;
mod yard;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::servers::{self, Recipe};
use crate::step::{cargo, loud, step, workspace};
use except::reason;
pub(crate) use node::mysql2;
use outcome::{Outcomes, only_direct, passed};
pub(crate) use python::mysqlclient;
use yard::{Auth, Chaos, Kind, Way, Yard};

/// Longest run of one suite; what has not passed by then has not passed.
const SUITE_SECONDS_MAX: u32 = 900;
/// How often tests that passed direct alone are run again, both ways, before they count.
const RERUNS: usize = 2;

/// One driver with its suite.
struct Suite {
    name: &'static str,
    recipe: Recipe,
    /// The driver's name and version, and whose suite it is.
    label: &'static str,
    /// Emptied before each run.
    databases: &'static [&'static str],
    servers: &'static [Kind],
    /// The suite asks the server whether its connection is encrypted, so the mesh's own leg has TLS too.
    server_tls: bool,
    /// More options of the server.
    options: &'static [&'static str],
    run: fn(&Run<'_>) -> Result<Outcomes>,
}

/// One run of a suite.
struct Run<'a> {
    /// Where the driver was installed.
    install: &'a Path,
    kind: Kind,
    /// On 127.0.0.1: the server's port or the mesh's.
    port: u16,
    /// The server's data folder.
    data: &'a Path,
    /// Empty, for the suite's own use.
    work: &'a Path,
    /// Takes everything that the suite prints.
    log: &'a Path,
    /// Run at least these tests, not all.
    only: Option<&'a BTreeSet<String>>,
}

impl Run<'_> {
    /// Runs a suite to its end, whatever that is, and returns all that it printed.
    fn output(&self, command: &Command) -> Result<String> {
        Ok(self.bounded(command, SUITE_SECONDS_MAX)?.0)
    }

    /// Runs a command for some seconds at most, and returns all that it printed and its status.
    fn bounded(&self, command: &Command, seconds_max: u32) -> Result<(String, Option<i32>)> {
        let mut bounded = Command::new("timeout");
        bounded.args(["--kill-after=5", &seconds_max.to_string()]);
        bounded.arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            bounded.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => bounded.env(name, value),
                None => bounded.env_remove(name),
            };
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log)?;
        bounded.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let before = fs::metadata(self.log)?.len() as usize;
        let status = bounded.status().context("failed to start `timeout`")?;
        let text = fs::read(self.log)?;
        Ok((String::from_utf8_lossy(&text[before..]).into_owned(), status.code()))
    }
}

const SUITES: [Suite; 12] = [
    go::SUITE,
    python::PYMYSQL,
    python::MYSQLCLIENT,
    node::MYSQL2,
    node::MYSQLJS,
    java::MARIADB,
    java::JDBC,
    mysqltest::SUITE,
    mysqltest::CLIENT,
    php::SUITE,
    rust::MYSQL_ASYNC,
    rust::SQLX,
];

struct Line {
    name: &'static str,
    kind: Kind,
    direct: Outcomes,
    through: Outcomes,
    regressions: BTreeSet<String>,
    excepted: BTreeSet<String>,
    flaky: BTreeSet<String>,
}

/// Runs the named suites, or all, on the named servers, or all; fails when a test passed direct alone.
pub fn run(words: &[String]) -> Result<()> {
    let (mut names, mut kinds) = (Vec::new(), Vec::new());
    let mut way = Way { auth: Auth::Relay, pool: false, chaos: Chaos::None };
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--list" => {
                SUITES.iter().for_each(|suite| println!("{:12} {}", short(suite), suite.label));
                return Ok(());
            }
            "--server" => kinds.push(kind_of(rest.next())?),
            "--auth" => way.auth = auth_of(rest.next())?,
            "--pool" => (way.auth, way.pool) = (Auth::Vault, true),
            "--chaos" => way.chaos = chaos_of(rest.next())?,
            name if SUITES.iter().any(|suite| short(suite) == name) => names.push(name),
            other => {
                let known: Vec<_> = SUITES.iter().map(short).collect();
                bail!("there is no suite `{other}`\nhint: choose from {}", known.join(", "));
            }
        }
    }
    if way.chaos == Chaos::Mux {
        // Only connections that are shared can be another one each time.
        (way.auth, way.pool) = (Auth::Vault, true);
    }
    if kinds.is_empty() {
        kinds.extend(Kind::ALL);
    }
    let wanted: Vec<_> =
        SUITES.iter().filter(|suite| names.is_empty() || names.contains(&short(suite))).collect();
    servers::install(&kinds.iter().map(|kind| kind.name().to_owned()).collect::<Vec<_>>())?;
    step("build tidemill, and the examples `serve` and `chaos`", || {
        match way.chaos {
            Chaos::None => loud(&mut cargo(["build", "--package", "tidemill"]))?,
            _ => loud(&mut cargo(["build", "--package", "mesh", "--example", "chaos"]))?,
        }
        loud(&mut cargo(["build", "--package", "testkit", "--example", "serve"]))
    })?;
    let (mut lines, mut broken) = (Vec::new(), Vec::new());
    for suite in wanted {
        if let Err(error) = servers::install_one(&suite.recipe, &servers::folder()?) {
            eprintln!("error: failed to install {}: {error:#}", short(suite));
            broken.push(short(suite).to_owned());
            continue;
        }
        for kind in kinds.iter().copied().filter(|kind| suite.servers.contains(kind)) {
            let what = format!("{} on {} with {}", short(suite), kind.name(), way.name());
            match step(&what, || compare(suite, kind, way)) {
                Ok(line) => {
                    eprintln!("    {}", row(&line));
                    lines.push(line);
                }
                Err(error) => {
                    eprintln!("error: {what}: {error:#}");
                    broken.push(what);
                }
            }
        }
    }
    print(&lines, way);
    let regressions: usize = lines.iter().map(|line| line.regressions.len()).sum();
    if regressions > 0 || !broken.is_empty() {
        bail!("{regressions} tests pass direct and fail through the mesh; not run: {}", broken.join(", "));
    }
    Ok(())
}

fn kind_of(word: Option<&String>) -> Result<Kind> {
    let found = Kind::ALL.into_iter().find(|kind| Some(kind.name()) == word.map(String::as_str));
    found.context("`--server` is followed by mysql, mariadb or tidb")
}

fn auth_of(word: Option<&String>) -> Result<Auth> {
    let found =
        [Auth::Relay, Auth::Vault].into_iter().find(|auth| Some(auth.name()) == word.map(String::as_str));
    found.context("`--auth` is followed by relay or vault")
}

fn chaos_of(word: Option<&String>) -> Result<Chaos> {
    let found = Chaos::ALL.into_iter().find(|chaos| Some(chaos.name()) == word.map(String::as_str));
    found.context("`--chaos` is followed by mux, cut, handover or none")
}

fn short(suite: &Suite) -> &'static str {
    suite.name
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

fn compare(suite: &Suite, kind: Kind, way: Way) -> Result<Line> {
    let folder = target().join("drivers").join(format!("{}-{}-{}", short(suite), kind.name(), way.name()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let mut yard = Yard::start(kind, way, suite, &folder)?;
    let mut both = |attempt: usize, only: Option<&BTreeSet<String>>| -> Result<[Outcomes; 2]> {
        let mut outcomes = [Outcomes::new(), Outcomes::new()];
        for (side, name) in ["direct", "through"].into_iter().enumerate() {
            yard.fresh(suite.databases)?;
            let work = folder.join(format!("{name}-{attempt}"));
            fs::create_dir_all(&work)?;
            let run = Run {
                install: &servers::folder()?.join(suite.recipe.name),
                kind,
                port: if side == 0 { yard.direct } else { yard.through },
                data: &yard.data,
                work: &work,
                log: &folder.join(format!("{name}-{attempt}.log")),
                only,
            };
            fs::write(run.log, "")?;
            outcomes[side] = (suite.run)(&run)?;
            if !yard.mesh_lives() {
                bail!("the mesh has ended; see {}", folder.join("mesh.log").display());
            }
        }
        Ok(outcomes)
    };
    let [direct, through] = both(0, None)?;
    if passed(&direct) == 0 {
        bail!("no test passed direct, so that nothing was compared; see {}", folder.display());
    }
    let suspects = only_direct(&direct, &through);
    let excepted: BTreeSet<String> =
        suspects.iter().filter(|name| reason(short(suite), way, name).is_some()).cloned().collect();
    let mut regressions: BTreeSet<String> = suspects.difference(&excepted).cloned().collect();
    let counted = regressions.clone();
    for attempt in 1..=RERUNS {
        if regressions.is_empty() {
            break;
        }
        // Only what passes direct each time and never through is the mesh's doing.
        let [direct, through] = both(attempt, Some(&regressions))?;
        let again = only_direct(&direct, &through);
        regressions.retain(|name| again.contains(name));
    }
    let flaky = counted.difference(&regressions).cloned().collect();
    Ok(Line { name: short(suite), kind, direct, through, regressions, excepted, flaky })
}

const HEAD: &str = "DRIVER        SERVER   TESTS  DIRECT  THROUGH  ONLY DIRECT  EXCEPTED  FLAKY";

fn row(line: &Line) -> String {
    format!(
        "{:13} {:8} {:5}  {:6}  {:7}  {:11}  {:8}  {:5}",
        line.name,
        line.kind.name(),
        line.direct.len(),
        passed(&line.direct),
        passed(&line.through),
        line.regressions.len(),
        line.excepted.len(),
        line.flaky.len()
    )
}

fn print(lines: &[Line], way: Way) {
    println!("way: {}\n{HEAD}", way.name());
    lines.iter().for_each(|line| println!("{}", row(line)));
    for line in lines {
        let place = format!("{} on {}", line.name, line.kind.name());
        line.regressions.iter().for_each(|name| println!("passes direct alone: {place}: {name}"));
        line.flaky.iter().for_each(|name| println!("flaky: {place}: {name}"));
        for name in &line.excepted {
            println!("excepted: {place}: {name}: {}", reason(line.name, way, name).unwrap_or_default());
        }
    }
}
