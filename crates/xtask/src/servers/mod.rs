//! Installs the real servers that tests and the demo run, into one folder of the user's cache.
//!
//! Layout, which `testkit` reads:
//!
//! ```text
//! $TIDEMILL_SERVERS (default $XDG_CACHE_HOME/tidemill/servers, ~/.cache/tidemill/servers)
//!   NAME/stamp       the recipe that made it; present only when the install is complete
//!   NAME/bin/        what to run: programs, or scripts that run an unpacked program with its own libraries
//!   NAME/template/   mysql, mariadb: an initialised data folder to copy
//!   NAME/lib/        kafka, opensearch, debezium: jars, which the machine's own Java runs
//!   NAME/classes/    opensearch: our program that starts the node
//!   NAME/            bi-clients: python, mysqlclient, node_modules and lib, as its recipe says; registry: the application as its archive has it; typescript, durable-streams, cube: node_modules
//!   driver-NAME/     a driver of MySQL and its test-suite; only `cargo xtask drivers` reads it
//!   NAME.work/       downloads and build caches, removed after a success
//!   NAME.lock        held while NAME is installed
//! ```
//!
//! Never touches the system: no package is installed, no service started, nothing written outside the folder (apart from
//! the download caches of Go, pip, npm and Maven). A finished install appears by one rename, so that a reader sees all of it or none.

mod bi_clients;
mod chromium;
mod cube;
mod debezium;
pub(crate) mod debian;
mod durable_streams;
mod kafka;
mod mariadb;
pub(crate) mod maven;
mod mysql;
mod nats;
mod npm;
mod opensearch;
mod pd;
mod peers;
mod redis;
mod registry;
mod tidb;
mod typescript;

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::step::step;

/// How one server, or driver, is installed.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    /// Changes whenever the result would differ, so that old installs are replaced.
    pub(crate) version: &'static str,
    /// Fills the first folder; the second is for downloads and survives a failure.
    pub(crate) install: fn(&Path, &Path) -> Result<()>,
    /// Only benchmarks need it, so it is installed when it is named and not otherwise.
    pub(crate) peer: bool,
}

const RECIPES: [Recipe; 18] = [
    Recipe { name: "mysql", version: mysql::VERSION, install: mysql::install, peer: false },
    Recipe { name: "mariadb", version: mariadb::VERSION, install: mariadb::install, peer: false },
    Recipe { name: "nats", version: nats::VERSION, install: nats::install, peer: false },
    Recipe { name: "tidb", version: tidb::VERSION, install: tidb::install, peer: false },
    Recipe { name: "pd", version: pd::VERSION, install: pd::install, peer: false },
    Recipe { name: "redis", version: redis::VERSION, install: redis::install, peer: false },
    Recipe { name: "kafka", version: kafka::VERSION, install: kafka::install, peer: false },
    Recipe { name: "opensearch", version: opensearch::VERSION, install: opensearch::install, peer: false },
    Recipe { name: "registry", version: registry::VERSION, install: registry::install, peer: false },
    Recipe { name: "chromium", version: chromium::VERSION, install: chromium::install, peer: false },
    Recipe { name: "typescript", version: typescript::VERSION, install: typescript::install, peer: false },
    Recipe {
        name: "durable-streams",
        version: durable_streams::VERSION,
        install: durable_streams::install,
        peer: false,
    },
    Recipe { name: "cube", version: cube::VERSION, install: cube::install, peer: false },
    Recipe { name: "bi-clients", version: bi_clients::VERSION, install: bi_clients::install, peer: false },
    Recipe { name: "debezium", version: debezium::VERSION, install: debezium::install, peer: true },
    Recipe { name: "haproxy", version: peers::HAPROXY, install: peers::haproxy, peer: true },
    Recipe { name: "router", version: peers::ROUTER, install: peers::router, peer: true },
    Recipe { name: "sysbench", version: peers::SYSBENCH, install: peers::sysbench, peer: true },
];

/// Every server's name, in the order they are installed.
pub fn names() -> impl Iterator<Item = &'static str> {
    RECIPES.iter().map(|recipe| recipe.name)
}

/// The folder that holds them all.
pub fn folder() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("TIDEMILL_SERVERS") {
        return std::path::absolute(folder).context("failed to resolve TIDEMILL_SERVERS");
    }
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    Ok(cache.context("neither TIDEMILL_SERVERS nor HOME is set")?.join("tidemill/servers"))
}

/// Installs the named servers, or all that tests use; those that are installed are left alone.
///
/// One that fails does not stop the rest; the failures are reported together.
pub fn install(wanted: &[String]) -> Result<()> {
    for name in wanted {
        if !names().any(|known| known == name) {
            bail!(
                "there is no server `{name}`\nhint: choose from {}",
                names().collect::<Vec<_>>().join(", ")
            );
        }
    }
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let mut failures = Vec::new();
    let named = |recipe: &Recipe| wanted.iter().any(|name| name == recipe.name);
    for recipe in RECIPES.iter().filter(|it| if wanted.is_empty() { !it.peer } else { named(it) }) {
        if let Err(error) = install_one(recipe, &folder) {
            eprintln!("error: failed to install {}: {error:#}", recipe.name);
            failures.push(recipe.name);
        }
    }
    if !failures.is_empty() {
        bail!("not installed: {}", failures.join(", "));
    }
    Ok(())
}

/// Installs one unless it is installed.
pub(crate) fn install_one(recipe: &Recipe, folder: &Path) -> Result<()> {
    let done = folder.join(recipe.name);
    if is_installed(recipe, &done) {
        eprintln!("==> {} is installed in {}", recipe.name, done.display());
        return Ok(());
    }
    let lock = lock(recipe.name, &folder.join(format!("{}.lock", recipe.name)))?;
    if is_installed(recipe, &done) {
        return Ok(());
    }
    let fresh = folder.join(format!("{}.new", recipe.name));
    let work = folder.join(format!("{}.work", recipe.name));
    remove(&fresh)?;
    fs::create_dir_all(&fresh)?;
    fs::create_dir_all(&work)?;
    step(&format!("{}: install into {}", recipe.name, done.display()), || {
        (recipe.install)(&fresh, &work)?;
        fs::write(fresh.join("stamp"), recipe.version)?;
        remove(&done)?;
        fs::rename(&fresh, &done)?;
        remove(&work)
    })?;
    drop(lock);
    Ok(())
}

fn is_installed(recipe: &Recipe, done: &Path) -> bool {
    fs::read_to_string(done.join("stamp")).is_ok_and(|stamp| stamp == recipe.version)
}

/// Waits for any other process that installs the same server; the lock ends with the file's handle.
fn lock(name: &str, path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!("==> {name}: waiting for another process that installs it")
        }
        Err(TryLockError::Error(error)) => return Err(error).context("failed to lock"),
    }
    file.lock().with_context(|| format!("failed to lock {}", path.display()))?;
    Ok(file)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
