//! The published suite of the Durable Streams protocol, and the runner that it is written for, as the lock file beside the test has them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::step::{need, quiet, step};

pub const VERSION: &str = "suite 0.3.6, vitest 4.0.18, recipe 1";

const PACKAGE: &str = include_str!("../../../tidemill/tests/pipelines/durable/package.json");
const LOCK: &str = include_str!("../../../tidemill/tests/pipelines/durable/package-lock.json");

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
