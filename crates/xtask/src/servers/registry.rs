//! Apicurio Registry: a schema registry that speaks Confluent's REST interface.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::maven;
use crate::step::quiet;

pub const VERSION: &str = "apicurio registry 3.0.9, recipe 1";

/// The last line that Java 17 runs: 3.3 needs 21. It is a whole application in one archive.
const ARCHIVE: &str = "io.apicurio:apicurio-registry-app:3.0.9:tar.gz:all";

pub fn install(install: &Path, work: &Path) -> Result<()> {
    let archive = maven::fetch(ARCHIVE, work)?;
    quiet(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(install))?;
    Ok(())
}
