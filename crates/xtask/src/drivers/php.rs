//! PHP's mysqli and PDO: the suites of PHP's own source, run by its `run-tests.php`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::outcome::{Outcomes, of_lines};
use super::yard::{Kind, PASSWORD, USER};
use super::{Run, Suite};
use crate::servers::{Recipe, debian};
use crate::step::quiet;

pub const SUITE: Suite = Suite {
    name: "php",
    recipe: Recipe { name: "driver-php", version: "php 8.2 of bookworm, recipe 2", install, peer: true },
    label: "PHP 8.2: ext/mysqli and ext/pdo_mysql on mysqlnd, their own suites",
    databases: &["test"],
    servers: &Kind::ALL,
    server_tls: false,
    options: &[],
    run,
};

const FOLDERS: [&str; 2] = ["ext/mysqli/tests", "ext/pdo_mysql/tests"];

fn install(install: &Path, work: &Path) -> Result<()> {
    debian::unpack("bookworm", &["php8.2-cli", "php8.2-mysql"], &install.join("root"), work)?;
    let mut flags =
        String::from("-n -d mysqli.allow_local_infile=1 -d extension_dir=\"$root/usr/lib/php/20220829\"");
    for extension in ["mysqlnd", "pdo", "mysqli", "pdo_mysql"] {
        flags += &format!(" -d extension={extension}");
    }
    debian::write_launcher(install, "php", "usr/bin/php8.2", &flags)?;
    let source = work.join("source");
    debian::source("bookworm", "php8.2", &source, work)?;
    // The tests of PDO's driver use what all of PDO's drivers share.
    fs::create_dir_all(install.join("source/ext/pdo"))?;
    for folder in FOLDERS.into_iter().chain(["ext/pdo/tests"]) {
        fs::create_dir_all(install.join("source").join(folder))?;
        let whole = format!("{}/.", source.join(folder).display());
        quiet(Command::new("cp").args(["-r", &whole]).arg(install.join("source").join(folder)))?;
    }
    fs::copy(source.join("run-tests.php"), install.join("source/run-tests.php"))?;
    Ok(())
}

fn run(run: &Run<'_>) -> Result<Outcomes> {
    // Tests write beside themselves.
    let source = format!("{}/.", run.install.join("source").display());
    quiet(Command::new("cp").args(["-r", &source]).arg(run.work))?;
    let php = run.install.join("bin/php");
    let mut command = Command::new(&php);
    command.current_dir(run.work).args(["run-tests.php", "-q", "-n", "--set-timeout", "30", "-p"]).arg(&php);
    match run.only {
        Some(only) => command.args(only),
        None => command.args(FOLDERS),
    };
    let port = run.port.to_string();
    command.envs([("MYSQL_TEST_HOST", "127.0.0.1"), ("MYSQL_TEST_PORT", &port), ("MYSQL_TEST_USER", USER)]);
    command.envs([("MYSQL_TEST_PASSWD", PASSWORD), ("MYSQL_TEST_DB", "test"), ("PDO_MYSQL_TEST_USER", USER)]);
    command.envs([("PDO_MYSQL_TEST_HOST", "127.0.0.1"), ("PDO_MYSQL_TEST_PORT", &port)]);
    command.envs([("PDO_MYSQL_TEST_DB", "test"), ("PDO_MYSQL_TEST_PASS", PASSWORD)]);
    command.env("PDO_MYSQL_TEST_DSN", format!("mysql:host=127.0.0.1;port={port};dbname=test"));
    command.env("TEST_PHP_EXECUTABLE", &php).env("NO_COLOR", "1").env("SKIP_SLOW_TESTS", "1");
    Ok(of_lines(&run.output(&command)?))
}
