//! PyMySQL and mysqlclient: their sources carry their tests, which pytest runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::outcome::{Outcomes, of_pytest};
use super::yard::{Kind, PASSWORD, USER};
use super::{Run, Suite};
use crate::servers::{Recipe, debian};
use crate::step::{quiet, step};

pub const PYMYSQL: Suite = Suite {
    name: "pymysql",
    recipe: Recipe {
        name: "driver-pymysql",
        version: "pymysql 1.1.1, recipe 1",
        install: pymysql,
        peer: true,
    },
    label: "PyMySQL 1.1.1, its own suite (of Debian's source package: the index's archive has none)",
    databases: &["test1", "test2"],
    servers: &Kind::ALL,
    server_tls: false,
    options: &[],
    run: run_pymysql,
};

pub const MYSQLCLIENT: Suite = Suite {
    name: "mysqlclient",
    recipe: Recipe {
        name: "driver-mysqlclient",
        version: "mysqlclient 2.3.2 on MariaDB's C client of bookworm, recipe 3",
        install: mysqlclient,
        peer: true,
    },
    label: "mysqlclient 2.3.2 on MariaDB Connector/C 3.3, its own suite",
    databases: &["test"],
    servers: &Kind::ALL,
    server_tls: false,
    options: &[],
    run: run_mysqlclient,
};

const PYTEST: &str = "pytest==8.4.2";

/// Longest wait for one answer in a test: a session that hangs must not take the rest of the suite along.
const TIMEOUT: &str = "--timeout=60";

fn pip(install: &Path, packages: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--target"]).arg(install.join("lib")).args(packages);
    command
}

fn pymysql(install: &Path, work: &Path) -> Result<()> {
    debian::source("trixie", "python-pymysql", &install.join("source"), work)?;
    step("download pytest", || {
        quiet(&mut pip(install, &[PYTEST, "pytest-timeout==2.4.0", "cryptography==45.0.7"]))
    })?;
    Ok(())
}

pub fn mysqlclient(install: &Path, work: &Path) -> Result<()> {
    let root = install.join("root");
    debian::unpack("bookworm", &["libmariadb-dev"], &root, work)?;
    let include = format!("-I{}", root.join("usr/include/mariadb").display());
    let library = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    // Nothing else of the unpacked packages may be found by a Python of the machine.
    let client = install.join("client");
    fs::create_dir_all(&client)?;
    fs::copy(library.join("libmariadb.so.3"), client.join("libmariadb.so.3"))?;
    // A finished install is renamed, so the library is found from the module's own place in `lib/MySQLdb`.
    let link = format!("-L{} -lmariadb -Wl,-rpath,$ORIGIN/../../client", library.display());
    let flags = [("MYSQLCLIENT_CFLAGS", include.as_str()), ("MYSQLCLIENT_LDFLAGS", link.as_str())];
    step("download mysqlclient and pytest, and build", || {
        quiet(
            pip(install, &[PYTEST, "pytest-timeout==2.4.0"])
                .args(["--no-cache-dir", "--no-binary", "mysqlclient", "mysqlclient==2.3.2"])
                .envs(flags),
        )?;
        let download =
            ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "mysqlclient==2.3.2"];
        quiet(Command::new("python3").args(download).envs(flags).current_dir(work))
    })?;
    let mut files = fs::read_dir(work)?.filter_map(|entry| Some(entry.ok()?.path()));
    let archive =
        files.find(|path| path.extension().is_some_and(|end| end == "gz")).context("no archive came")?;
    fs::create_dir_all(install.join("source"))?;
    quiet(
        Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .args(["--strip-components=1", "-C"])
            .arg(install.join("source")),
    )?;
    Ok(())
}

/// pytest on a copy of the tests, into which a suite's configuration may be written.
fn pytest(run: &Run<'_>, folder: &str) -> Result<Command> {
    quiet(Command::new("cp").arg("-r").arg(run.install.join("source").join(folder)).arg(run.work))?;
    let mut command = Command::new("python3");
    command
        .args(["-m", "pytest", "-rA", "--tb=short", "-p", "no:cacheprovider", TIMEOUT])
        .current_dir(run.work);
    match run.only {
        Some(only) => command.args(only),
        None => command.arg(folder),
    };
    Ok(command)
}

fn run_pymysql(run: &Run<'_>) -> Result<Outcomes> {
    let mut command = pytest(run, "pymysql")?;
    let login = format!(
        "\"host\": \"127.0.0.1\", \"port\": {}, \"user\": \"{USER}\", \"passwd\": \"{PASSWORD}\"",
        run.port
    );
    let databases = format!(
        "[{{{login}, \"database\": \"test1\", \"use_unicode\": true, \"local_infile\": true}}, \
         {{{login}, \"database\": \"test2\"}}]"
    );
    fs::write(run.work.join("pymysql/tests/databases.json"), databases)?;
    let path = format!("{}:{}", run.work.display(), run.install.join("lib").display());
    Ok(of_pytest(&run.output(command.env("PYTHONPATH", path))?))
}

fn run_mysqlclient(run: &Run<'_>) -> Result<Outcomes> {
    let mut command = pytest(run, "tests")?;
    let options = format!(
        "[MySQLdb-tests]\nhost = 127.0.0.1\nport = {}\nuser = {USER}\npassword = {PASSWORD}\ndatabase = test\n\
         default-character-set = utf8mb4\n",
        run.port
    );
    fs::write(run.work.join("tests/default.cnf"), options)?;
    // Its plug-ins for passwords lie beside the C client, which looks for them where its package would have put them.
    let plugins = format!("usr/lib/{}-linux-gnu/libmariadb3/plugin", std::env::consts::ARCH);
    command.env("MARIADB_PLUGIN_DIR", run.install.join("root").join(plugins));
    command.env("TESTDB", run.work.join("tests/default.cnf"));
    Ok(of_pytest(&run.output(command.env("PYTHONPATH", run.install.join("lib")))?))
}
