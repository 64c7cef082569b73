//! Rust: mysql_async and sqlx, whose packages carry their tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::outcome::{Outcome, Outcomes};
use super::yard::{Kind, PASSWORD, USER};
use super::{Run, Suite};
use crate::servers::Recipe;
use crate::step::{cargo, quiet, step};

pub const MYSQL_ASYNC: Suite = Suite {
    name: "mysql_async",
    recipe: Recipe {
        name: "driver-mysql_async",
        version: "mysql_async 0.37.1, recipe 1",
        install: mysql_async,
        peer: true,
    },
    label: "mysql_async 0.37.1, the tests of its own suite that need a server; plain, with compression and with TLS",
    databases: &["suite"],
    servers: &Kind::ALL,
    server_tls: false,
    options: &[],
    run: run_mysql_async,
};

pub const SQLX: Suite = Suite {
    name: "sqlx",
    recipe: Recipe { name: "driver-sqlx", version: "sqlx 0.9.0, recipe 1", install: sqlx, peer: true },
    label: "sqlx 0.9.0, MySQL's part of its own suite, plain and with TLS",
    databases: &["sqlx"],
    servers: &Kind::ALL,
    server_tls: false,
    options: &[],
    run: run_sqlx,
};

const MANIFEST: &str = include_str!("../../drivers/sqlx.toml");
const LIBRARY: &str = include_str!("../../drivers/sqlx.rs");

/// Longest run of one test: those that read a binlog wait for its end six times.
const TEST_SECONDS_MAX: u32 = 120;

/// Where cargo has unpacked a package.
fn package(name: &str, version: &str, work: &Path) -> Result<PathBuf> {
    let probe = work.join("probe");
    fs::create_dir_all(probe.join("src"))?;
    fs::write(probe.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"probe\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         {name} = {{version = \"={version}\", default-features = false}}\n"
    );
    fs::write(probe.join("Cargo.toml"), manifest)?;
    let found = step(&format!("download {name} {version}"), || {
        quiet(cargo(["metadata", "--format-version=1"]).current_dir(&probe))
    })?;
    let end = format!("/{name}-{version}/Cargo.toml");
    let manifest = found.split('"').find(|word| word.ends_with(&end)).context("cargo does not name it")?;
    Ok(Path::new(manifest).parent().context("it has no folder")?.to_path_buf())
}

/// Compiles a package's tests, each into a program in `bin`.
fn compile(source: &Path, features: &[&str], install: &Path, work: &Path) -> Result<()> {
    let said = step("compile its tests", || {
        quiet(
            cargo(["test", "--no-run", "--message-format=json", "--target-dir"])
                .arg(work.join("target"))
                .args(features)
                .current_dir(source),
        )
    })?;
    let bin = install.join("bin");
    fs::create_dir_all(&bin)?;
    for line in said.lines().filter(|line| line.contains("\"test\":true")) {
        let Some((_, rest)) = line.split_once("\"executable\":\"") else { continue };
        let program = Path::new(rest.split('"').next().unwrap_or(rest));
        // What follows the name is a hash of cargo's.
        let name = program.file_stem().and_then(|name| name.to_str()?.rsplit_once('-')).context("no name")?.0;
        fs::copy(program, bin.join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    quiet(Command::new("cp").arg("-r").args([from, to]))?;
    quiet(Command::new("chmod").args(["-R", "u+w"]).arg(to))?;
    Ok(())
}

fn mysql_async(install: &Path, work: &Path) -> Result<()> {
    let source = work.join("source");
    copy(&package("mysql_async", "0.37.1", work)?, &source)?;
    let features = "--features=binlog,client_ed25519,client_parsec,default-rustls-ring,derive,minimal-rust";
    compile(&source, &["--locked", "--no-default-features", features], install, work)
}

fn sqlx(install: &Path, work: &Path) -> Result<()> {
    let source = install.join("source");
    fs::create_dir_all(source.join("src"))?;
    copy(&package("sqlx", "0.9.0", work)?.join("tests"), &source.join("tests"))?;
    fs::write(source.join("Cargo.toml"), MANIFEST)?;
    fs::write(source.join("src/lib.rs"), LIBRARY)?;
    compile(&source, &[], install, work)
}

/// Each test in a process of its own, since one that hangs must not take the others along.
fn libtest(run: &Run<'_>, setting: &str, command: &Command, outcomes: &mut Outcomes) -> Result<()> {
    let program = PathBuf::from(command.get_program());
    let file = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let listed = quiet(Command::new(&program).args(["--list", "--format=terse"]))?;
    for test in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
        // The others of mysql_async's need no server.
        if file == "mysql_async" && !["conn::", "query"].iter().any(|start| test.starts_with(start)) {
            continue;
        }
        let name = format!("{setting}: {file}: {test}");
        if run.only.is_some_and(|only| !only.contains(&name)) {
            continue;
        }
        let mut one = Command::new(&program);
        one.args(["--exact", "--test-threads=1", test]).current_dir(run.work);
        if let Some(folder) = command.get_current_dir() {
            one.current_dir(folder);
        }
        one.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let (said, status) = run.bounded(&one, TEST_SECONDS_MAX)?;
        let outcome = match status {
            Some(0) if said.contains(" 0 passed") => Outcome::Skipped,
            Some(0) => Outcome::Passed,
            _ => Outcome::Failed,
        };
        outcomes.insert(name, outcome);
    }
    Ok(())
}

/// Settings by their names; those with TLS where server and mesh offer it.
fn settings<T: Copy>(run: &Run<'_>, all: &[(&'static str, T)]) -> Vec<(&'static str, T)> {
    all.iter().copied().filter(|(name, _)| run.kind == Kind::MySql || !name.contains("tls")).collect()
}

fn run_mysql_async(run: &Run<'_>) -> Result<Outcomes> {
    let mut outcomes = Outcomes::new();
    let all = [
        ("plain", ["false", "false"]),
        ("compressed", ["false", "true"]),
        ("tls", ["true", "false"]),
        ("tls, compressed", ["true", "true"]),
    ];
    for (setting, [tls, compress]) in settings(run, &all) {
        for program in ["mysql_async", "generic"] {
            let mut command = Command::new(run.install.join("bin").join(program));
            // It would go to the server's own socket otherwise, and past the mesh.
            let url = format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{}/suite?prefer_socket=false", run.port);
            command.envs([("DATABASE_URL", url.as_str()), ("SSL", tls), ("COMPRESS", compress)]);
            libtest(run, setting, &command, &mut outcomes)?;
        }
    }
    Ok(outcomes)
}

fn run_sqlx(run: &Run<'_>) -> Result<Outcomes> {
    let mut outcomes = Outcomes::new();
    let start = format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{}/sqlx?ssl-mode=", run.port);
    let command = |program: &str, mode: &str| {
        let mut command = Command::new(run.install.join("bin").join(program));
        // Migrations are read from the folder where the tests lie.
        command.current_dir(run.install.join("source")).env("DATABASE_URL", format!("{start}{mode}"));
        command
    };
    let (said, status) = run.bounded(command("sqlx_test", "DISABLED").arg("setup"), TEST_SECONDS_MAX)?;
    if status != Some(0) {
        bail!("its tables were not made: {said}");
    }
    for (setting, mode) in settings(run, &[("plain", "DISABLED"), ("tls", "REQUIRED")]) {
        for program in ["mysql", "types", "describe", "derives", "error", "migrate", "test_attr"] {
            libtest(run, setting, &command(program, mode), &mut outcomes)?;
        }
    }
    Ok(outcomes)
}
