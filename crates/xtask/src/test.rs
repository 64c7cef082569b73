//! Runs the tests, after installing the servers that they start.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::crates::crates;
use crate::servers;
use crate::step::{cargo, loud, step, workspace};

/// What a test that starts a server has in its source, and the server's name.
const STARTS: [(&str, &str); 7] = [
    ("MySql::start", "mysql"),
    ("MariaDb::start", "mariadb"),
    ("Nats::start", "nats"),
    ("TiDb::start", "tidb"),
    ("Redis::start", "redis"),
    ("OpenSearch::start", "opensearch"),
    ("Registry::start", "registry"),
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
        return step("run every test", || loud(&mut cargo(["test", "--workspace", "--no-fail-fast"])));
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
