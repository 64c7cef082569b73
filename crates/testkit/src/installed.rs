//! Where `cargo xtask servers` puts the servers.
//!
//! The layout is described where it is written: `crates/xtask/src/servers/mod.rs`.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The folder of an installed server.
pub fn installed(name: &str) -> Result<PathBuf> {
    let folder = folder()?.join(name);
    // The stamp is written last, so it vouches for everything beside it.
    if !folder.join("stamp").is_file() {
        bail!("{name} is not installed in {}\nhint: run `cargo xtask servers {name}`", folder.display());
    }
    Ok(folder)
}

fn folder() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("TIDEMILL_SERVERS") {
        return Ok(folder);
    }
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    Ok(cache.context("neither TIDEMILL_SERVERS nor HOME is set")?.join("tidemill/servers"))
}
