//! Runs the tests, after installing the servers that they start.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::crates::crates;
use crate::servers;
use crate::step::{cargo, loud, step, workspace};

/// What a test that starts a server has in its source, and the server's name.
const STARTS: [(&str, &str); 14] = [
    ("MySql::start", "mysql"),
    ("MySqlGroup::start", "mysql"),
    ("MariaDb::start", "mariadb"),
    ("Nats::start", "nats"),
    ("TiDb::start", "tidb"),
    ("Pd::start", "pd"),
    ("Redis::start", "redis"),
    ("OpenSearch::start", "opensearch"),
    ("Registry::start", "registry"),
    ("Browser::start", "chromium"),
    ("TypeScript::build", "typescript"),
    ("Suite::run", "durable-streams"),
    ("CubeClient::ask", "cube"),
    ("Clients::find", "bi-clients"),
];

/// The crate with the test that loads and runs each folder of `examples/`, and that test's file.
const EXAMPLES: (&str, &str) = ("tidemill", "pipelines");

/// Runs everything, or only the crates and examples whose path holds one of the names.
pub fn run(names: &[String]) -> Result<()> {
    let root = workspace();
    let chosen = choose(names, &root)?;
    let wanted = servers_in(&chosen.folders)?;
    if !wanted.is_empty() {
        servers::install(&wanted)?;
    }
    if names.is_empty() {
        return step("run every test", every);
    }
    for package in &chosen.packages {
        step(&format!("run the tests of {package}"), || {
            loud(&mut cargo(["test", "--no-fail-fast", "-p", package]))
        })?;
    }
    for example in &chosen.examples {
        let (package, file) = EXAMPLES;
        step(&format!("run the example {example}"), || {
            loud(&mut cargo(["test", "-p", package, "--test", file, "--", example]))
        })?;
    }
    Ok(())
}

/// Most tests that may fail at first: more than these have no accident in common.
const AGAIN_MAX: usize = 2;

/// Runs all tests. One or two that fail while everything else runs beside them get a second run by themselves, and both
/// runs are told. What failed is told at the end: of a long output, that is what is read.
fn every() -> Result<()> {
    let mut command = cargo(["test", "--workspace", "--no-fail-fast"]);
    let (passed, first) = listen(&mut command)?;
    if passed {
        return Ok(());
    }
    println!("\nwhat failed, without backtraces:\n{}", first.told);
    let names: Vec<&str> = first.names.iter().map(String::as_str).collect();
    if names.is_empty() || first.open > 0 {
        bail!("cargo test ended before its tests did");
    }
    if names.len() > AGAIN_MAX {
        bail!("{} tests failed", names.len());
    }
    println!("once more, by themselves: {}", names.join(", "));
    let mut again = cargo(["test", "--workspace", "--no-fail-fast", "--", "--test-threads=1", "--exact"]);
    let (passed, second) = listen(again.args(&names))?;
    if !passed || second.passed < names.len() {
        println!("\nwhat failed again:\n{}", second.told);
        bail!("failed twice: {}", names.join(", "));
    }
    println!("\nwarning: failed at first (told above) and passed by themselves: {}", names.join(", "));
    Ok(())
}

/// Prints what a run of tests prints, and says whether all passed.
fn listen(command: &mut Command) -> Result<(bool, Failures)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("the output of the tests is not to be had")?;
    let mut failures = Failures::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        failures.see(&line);
    }
    Ok((child.wait()?.success(), failures))
}

/// What tests said that failed, out of the output of all.
#[derive(Default)]
struct Failures {
    told: String,
    names: Vec<String>,
    passed: usize,
    /// Programs of tests that began and did not come to their result.
    open: usize,
    within: bool,
    /// Lines of the failure that is told now.
    lines: usize,
    backtrace: bool,
}

impl Failures {
    /// Of one test; the rest is left out.
    const LINES_MAX: usize = 60;

    fn see(&mut self, line: &str) {
        let name = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"));
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.open += 1;
        }
        if line.starts_with("test result:") {
            self.open = self.open.saturating_sub(1);
        }
        if line.starts_with("test ") && line.ends_with(" ... ok") {
            self.passed += 1;
        }
        if let Some(name) = name {
            self.names.push(name.to_owned());
            (self.within, self.backtrace, self.lines) = (true, false, 0);
        } else if line.starts_with("failures:") || line.starts_with("test result:") {
            self.within = false;
        } else if line.starts_with("stack backtrace:") {
            self.backtrace = true;
        }
        if self.within && !self.backtrace && self.lines < Self::LINES_MAX {
            self.told.push_str(line);
            self.told.push('\n');
            self.lines += 1;
        }
    }
}

/// What a run covers.
struct Chosen {
    packages: Vec<String>,
    examples: Vec<String>,
    /// Where to look for the servers that the tests start.
    folders: Vec<PathBuf>,
}

fn choose(names: &[String], root: &Path) -> Result<Chosen> {
    let wanted = |path: &Path| {
        let path = path.strip_prefix(root).unwrap_or(path).display().to_string();
        names.is_empty() || names.iter().any(|name| path.contains(name.as_str()))
    };
    let mut chosen = Chosen { packages: Vec::new(), examples: Vec::new(), folders: Vec::new() };
    for it in crates(root)?.into_iter().filter(|it| wanted(&it.folder)) {
        // This very file names all servers and starts none.
        if it.name != "xtask" {
            chosen.folders.push(it.folder);
        }
        chosen.packages.push(it.name);
    }
    if let Ok(entries) = fs::read_dir(root.join("examples")) {
        let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        folders.sort();
        for folder in folders.into_iter().filter(|folder| folder.is_dir() && wanted(folder)) {
            chosen.examples.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        if !chosen.examples.is_empty() {
            chosen.folders.push(root.join("crates").join(EXAMPLES.0));
        }
    }
    if chosen.packages.is_empty() && chosen.examples.is_empty() {
        bail!("no crate and no example has a path that holds {}", names.join(" or "));
    }
    Ok(chosen)
}

/// The servers that sources below these folders start.
fn servers_in(folders: &[PathBuf]) -> Result<Vec<String>> {
    let mut sources = String::new();
    for folder in folders {
        read_sources(folder, &mut sources)?;
    }
    let started = STARTS.iter().filter(|(word, _)| sources.contains(word));
    Ok(started.map(|(_, server)| (*server).to_owned()).collect())
}

fn read_sources(folder: &Path, sources: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_sources(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_without_the_rest() {
        let output = "running 1 test\nrunning 3 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nsaid\n\nthread 'b' panicked at x.rs:1:2:\n\
                      left != right\nstack backtrace:\n   0: std\n\n---- c stdout ----\nc is wrong\n\nfailures:\n    b\n    c\n\n\
                      test result: FAILED. 1 passed";
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.see(line));
        let expected = "---- b stdout ----\nsaid\n\nthread 'b' panicked at x.rs:1:2:\nleft != right\n---- c stdout ----\nc is wrong\n\n";
        assert_eq!(failures.told, expected);
        assert_eq!(failures.names, ["b", "c"]);
        // The first of the two programs came to no result.
        assert_eq!((failures.passed, failures.open), (1, 1));
    }
}
