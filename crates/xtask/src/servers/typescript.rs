//! The compiler and types that `clients/typescript` and `examples/live` are built with, as the client's lock file has them.

use std::path::Path;

use anyhow::Result;

use super::npm;

pub const VERSION: &str = "typescript 7.0.2, recipe 1";

const PACKAGE: &str = include_str!("../../../../clients/typescript/package.json");
const LOCK: &str = include_str!("../../../../clients/typescript/package-lock.json");

pub fn install(install: &Path, _: &Path) -> Result<()> {
    npm::install(install, PACKAGE, LOCK)
}
