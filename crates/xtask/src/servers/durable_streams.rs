//! The published suite of the Durable Streams protocol, and the runner that it is written for, as the lock file beside the test has them.

use std::path::Path;

use anyhow::Result;

use super::npm;

pub const VERSION: &str = "suite 0.3.6, vitest 4.0.18, recipe 1";

const PACKAGE: &str = include_str!("../../../tidemill/tests/pipelines/durable/package.json");
const LOCK: &str = include_str!("../../../tidemill/tests/pipelines/durable/package-lock.json");

pub fn install(install: &Path, _: &Path) -> Result<()> {
    npm::install(install, PACKAGE, LOCK)
}
