//! go-sql-driver/mysql: its module carries its tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::outcome::{Outcomes, of_go};
use super::yard::{Kind, PASSWORD, USER};
use super::{Run, Suite};
use crate::servers::Recipe;
use crate::step::{need, quiet, step};

const MODULE: &str = "github.com/go-sql-driver/mysql@v1.10.1";

pub const SUITE: Suite = Suite {
    name: "go",
    recipe: Recipe { name: "driver-go", version: "go-sql-driver 1.10.1, recipe 1", install, peer: true },
    label: "go-sql-driver/mysql 1.10.1, its own suite",
    databases: &["gotest"],
    servers: &Kind::ALL,
    server_tls: true,
    options: &[],
    run,
};

fn install(install: &Path, work: &Path) -> Result<()> {
    need("go", "apt-get install golang-go")?;
    // A module of our own, so that nothing of the cache is written to.
    std::fs::write(work.join("go.mod"), "module drivers\n\ngo 1.24\n")?;
    let folder = step(&format!("download {MODULE}"), || {
        let said = quiet(Command::new("go").args(["mod", "download", "-json", MODULE]).current_dir(work))?;
        let line =
            said.lines().find_map(|line| line.trim().strip_prefix("\"Dir\": \"")).context("no folder")?;
        Ok(line.trim_end_matches([',', '"']).to_owned())
    })?;
    let source = install.join("source");
    quiet(Command::new("cp").args(["-r", &folder]).arg(&source))?;
    quiet(Command::new("chmod").args(["-R", "u+w"]).arg(&source))?;
    step("compile its tests", || {
        quiet(
            Command::new("go")
                .args(["test", "-c", "-o"])
                .arg(install.join("suite"))
                .arg(".")
                .current_dir(&source),
        )
    })?;
    Ok(())
}

fn run(run: &Run<'_>) -> Result<Outcomes> {
    let mut command = Command::new(run.install.join("suite"));
    command.current_dir(run.install.join("source")).args(["-test.v", "-test.timeout=10m"]);
    // Dials an address of the internet that must not answer, and ends the whole suite where one does.
    command.arg("-test.skip=^TestConnectorReturnsTimeout$");
    if let Some(only) = run.only {
        let tops: BTreeSet<_> = only.iter().filter_map(|name| name.split('/').next()).collect();
        let tops = tops.into_iter().collect::<Vec<_>>().join("|");
        command.arg(format!("-test.run=^({tops})$"));
    }
    command.envs([("MYSQL_TEST_USER", USER), ("MYSQL_TEST_PASS", PASSWORD), ("MYSQL_TEST_DBNAME", "gotest")]);
    command.env("MYSQL_TEST_ADDR", format!("127.0.0.1:{}", run.port)).env("MYSQL_TEST_CONCURRENT", "1");
    Ok(of_go(&run.output(&command)?))
}
