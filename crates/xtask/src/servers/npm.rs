//! What a lock file of npm names, in a folder of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::step::{need, quiet, step};

/// Downloads the packages exactly as `lock` has them; none of their scripts is run.
pub fn install(install: &Path, package: &str, lock: &str) -> Result<()> {
    need("node", "apt-get install nodejs (20 or newer)")?;
    need("npm", "apt-get install npm")?;
    fs::write(install.join("package.json"), package)?;
    fs::write(install.join("package-lock.json"), lock)?;
    step("download what the lock file names", || {
        let options = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix"];
        quiet(Command::new("npm").args(options).arg(install))
    })?;
    Ok(())
}
