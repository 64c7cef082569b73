//! The compiler and types that `clients/typescript` and `examples/live` are built with, as the client's lock file has them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::step::{need, quiet, step};

pub const VERSION: &str = "typescript 7.0.2, recipe 1";

const PACKAGE: &str = include_str!("../../../../clients/typescript/package.json");
const LOCK: &str = include_str!("../../../../clients/typescript/package-lock.json");

pub fn install(install: &Path, _: &Path) -> Result<()> {
    need("node", "apt-get install nodejs (20 or newer)")?;
    need("npm", "apt-get install npm")?;
    fs::write(install.join("package.json"), PACKAGE)?;
    fs::write(install.join("package-lock.json"), LOCK)?;
    step("download what the lock file names", || {
        let options = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix"];
        quiet(Command::new("npm").args(options).arg(install))
    })?;
    Ok(())
}
