//! MariaDB Connector/J with its own suite, and MySQL Connector/J with one of ours: its source is not in a registry.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::outcome::{Outcome, Outcomes, of_lines};
use super::yard::{Kind, PASSWORD, USER};
use super::{Run, Suite};
use crate::servers::{Recipe, debian, maven};
use crate::step::{need, quiet, step};

pub const MARIADB: Suite = Suite {
    name: "mariadb-j",
    recipe: Recipe {
        name: "driver-mariadb-j",
        version: "connector 2.7.6, recipe 1",
        install: mariadb,
        peer: true,
    },
    label: "MariaDB Connector/J 2.7.6, its own suite (of Debian's source package)",
    databases: &["testj"],
    servers: &Kind::ALL,
    server_tls: false,
    options: &[],
    run: run_mariadb,
};

pub const JDBC: Suite = Suite {
    name: "jdbc",
    recipe: Recipe {
        name: "driver-jdbc",
        version: "connectors 9.6.0 and 3.5.10, recipe 1",
        install: jdbc,
        peer: true,
    },
    label: "MySQL Connector/J 9.6.0 and MariaDB Connector/J 3.5.10, a suite of ours",
    databases: &["suite", "suite2"],
    servers: &Kind::ALL,
    server_tls: false,
    options: &[],
    run: run_jdbc,
};

const OURS: &str = include_str!("../../drivers/Suite.java");

fn mariadb(install: &Path, work: &Path) -> Result<()> {
    need("javac", "apt-get install openjdk-17-jdk-headless")?;
    debian::source("trixie", "mariadb-connector-java", &work.join("source"), work)?;
    let artifacts = [
        "org.mariadb.jdbc:mariadb-java-client:2.7.6",
        "junit:junit:4.13.2",
        "ch.qos.logback:logback-classic:1.2.3",
        "net.java.dev.jna:jna-platform:5.13.0",
    ];
    maven::copy_jars(&artifacts, install, work)?;
    let tests = work.join("source/src/test");
    step("compile its tests", || {
        let list = quiet(Command::new("find").arg(tests.join("java")).args(["-name", "*.java"]))?;
        fs::write(work.join("list"), list)?;
        let mut javac = Command::new("javac");
        javac.args(["-nowarn", "-proc:none", "-encoding", "UTF-8", "-cp"]);
        javac.arg(format!("{}/*", install.join("lib").display())).arg("-d").arg(install.join("classes"));
        quiet(javac.arg(format!("@{}", work.join("list").display())))
    })?;
    let resources = format!("{}/.", tests.join("resources").display());
    quiet(Command::new("cp").args(["-r", &resources]).arg(install.join("classes")))?;
    fs::remove_file(install.join("classes/logback-test.xml"))?;
    Ok(())
}

/// Each class in a process of its own, since one that hangs must not take the others along.
fn run_mariadb(run: &Run<'_>) -> Result<Outcomes> {
    let folder = run.install.join("classes/org/mariadb/jdbc");
    let mut classes: Vec<_> = fs::read_dir(folder)?
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_suffix("Test.class")
                .map(|name| format!("org.mariadb.jdbc.{name}Test"))
        })
        .filter(|name| !name.ends_with(".BaseTest") && !name.ends_with("GiganticLoadDataInfileTest"))
        .filter(|name| {
            run.only.is_none_or(|only| only.iter().any(|test| test.starts_with(&format!("{name}."))))
        })
        .collect();
    classes.sort();
    let mut java = Command::new("java");
    java.current_dir(run.work).args(["-Xmx512m", "-cp"]);
    java.arg(format!("{}/*:{}", run.install.join("lib").display(), run.install.join("classes").display()));
    java.args(["org.junit.runner.JUnitCore"]).args(classes);
    java.envs([("TEST_DB_HOST", "127.0.0.1"), ("TEST_DB_USER", USER), ("TEST_DB_PASSWORD", PASSWORD)]);
    java.envs([("TEST_DB_DATABASE", "testj"), ("TEST_DB_OTHER", "allowPublicKeyRetrieval=true")]);
    let text = run.output(java.env("TEST_DB_PORT", run.port.to_string()))?;
    let mut outcomes = Outcomes::new();
    for line in text.lines() {
        for (start, outcome) in [("success", Outcome::Passed), ("failed", Outcome::Failed)] {
            let rest = line.split_once(&format!("finished test {start} : ")).map(|(_, rest)| rest);
            if let Some((name, _)) = rest.and_then(|rest| rest.split_once(" after ")) {
                outcomes.insert(name.to_owned(), outcome);
            }
        }
    }
    Ok(outcomes)
}

fn jdbc(install: &Path, work: &Path) -> Result<()> {
    need("javac", "apt-get install openjdk-17-jdk-headless")?;
    maven::copy_jars(
        &["com.mysql:mysql-connector-j:9.6.0", "org.mariadb.jdbc:mariadb-java-client:3.5.10"],
        install,
        work,
    )
}

fn run_jdbc(run: &Run<'_>) -> Result<Outcomes> {
    let source = run.work.join("Suite.java");
    fs::write(&source, OURS)?;
    let mut java = Command::new("java");
    java.arg("-cp")
        .arg(format!("{}/*", run.install.join("lib").display()))
        .arg(&source)
        .current_dir(run.work);
    java.args([run.port.to_string().as_str(), USER, PASSWORD, run.kind.name()]);
    java.args(run.only.into_iter().flatten());
    Ok(of_lines(&run.output(&java)?))
}
