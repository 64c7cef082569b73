//! Cube's own client, which asks for indicators, as the lock file beside the test has it.

use std::path::Path;

use anyhow::Result;

use super::npm;

pub const VERSION: &str = "@cubejs-client/core 1.7.43, recipe 1";

const PACKAGE: &str = include_str!("../../../tidemill/tests/pipelines/indicators/package.json");
const LOCK: &str = include_str!("../../../tidemill/tests/pipelines/indicators/package-lock.json");

pub fn install(install: &Path, _: &Path) -> Result<()> {
    npm::install(install, PACKAGE, LOCK)
}
