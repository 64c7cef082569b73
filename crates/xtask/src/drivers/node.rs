//! Node: mysql with its own suite, and mysql2, whose package has no tests, with one of ours.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::outcome::{Outcome, Outcomes, of_lines};
use super::yard::{Kind, PASSWORD, USER};
use super::{Run, Suite};
use crate::servers::{Recipe, debian};
use crate::step::{need, quiet, step};

pub const MYSQL2: Suite = Suite {
    name: "mysql2",
    recipe: Recipe { name: "driver-mysql2", version: "mysql2 3.24.6, recipe 1", install: mysql2, peer: true },
    label: "mysql2 3.24.6 for Node, a suite of ours",
    databases: &["suite", "suite2"],
    servers: &Kind::ALL,
    server_tls: false,
    options: &[],
    run: run_mysql2,
};

pub const MYSQLJS: Suite = Suite {
    name: "mysqljs",
    recipe: Recipe {
        name: "driver-mysqljs",
        version: "mysql 2.18.1, recipe 1",
        install: mysqljs,
        peer: true,
    },
    label: "mysql 2.18.1 for Node, the tests of its own suite that need a server (of Debian's source package)",
    databases: &["test"],
    // It knows only the old way of passwords, which MySQL 9 has no more.
    servers: &[Kind::MariaDb, Kind::TiDb],
    server_tls: false,
    options: &[],
    run: run_mysqljs,
};

/// Longest run of one file.
const FILE_SECONDS_MAX: u32 = 60;
const OURS: &str = include_str!("../../drivers/suite.mjs");

fn npm(install: &Path, packages: &[&str]) -> Result<()> {
    need("npm", "apt-get install npm")?;
    step(&format!("download {}", packages[0]), || {
        let options = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix"];
        quiet(Command::new("npm").args(options).arg(install).args(packages))
    })?;
    Ok(())
}

pub fn mysql2(install: &Path, _: &Path) -> Result<()> {
    npm(install, &["mysql2@3.24.6"])
}

fn mysqljs(install: &Path, work: &Path) -> Result<()> {
    debian::source("trixie", "node-mysql", &install.join("source"), work)?;
    let tests = ["after@0.8.2", "seedrandom@3.0.5", "timezone-mock@0.0.7", "utest@0.0.8"];
    let packages = ["bignumber.js@9.0.0", "readable-stream@2.3.7", "safe-buffer@5.1.2", "sqlstring@2.3.1"];
    npm(install, &[packages, tests].concat())
}

fn run_mysql2(run: &Run<'_>) -> Result<Outcomes> {
    // A module finds others from its own place.
    let source = run.install.join("suite.mjs");
    fs::write(&source, OURS)?;
    let mut node = Command::new("node");
    node.arg(&source)
        .args([run.port.to_string().as_str(), USER, PASSWORD, run.kind.name()])
        .current_dir(run.work);
    Ok(of_lines(&run.output(&node)?))
}

fn run_mysqljs(run: &Run<'_>) -> Result<Outcomes> {
    let folder = run.install.join("source/test/integration/connection");
    let mut files: Vec<_> = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut outcomes = Outcomes::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if run.only.is_some_and(|only| !only.contains(&name)) {
            continue;
        }
        let mut node = Command::new("node");
        node.arg(&file).current_dir(run.work).env("MYSQL_PORT", run.port.to_string());
        node.envs([
            ("MYSQL_HOST", "127.0.0.1"),
            ("MYSQL_USER", USER),
            ("MYSQL_PASSWORD", PASSWORD),
            ("MYSQL_DATABASE", "test"),
        ]);
        let (said, status) = run.bounded(&node, FILE_SECONDS_MAX)?;
        let outcome = match status {
            Some(0) if said.contains("skipping - ") => Outcome::Skipped,
            Some(0) => Outcome::Passed,
            _ => Outcome::Failed,
        };
        outcomes.insert(name, outcome);
    }
    Ok(outcomes)
}
