//! Redis 7.0, the version of Debian 12.

use std::path::Path;

use anyhow::Result;

use super::debian;

pub const VERSION: &str = "redis 7.0 from bookworm, recipe 1";

pub fn install(install: &Path, work: &Path) -> Result<()> {
    debian::unpack("bookworm", &["redis-server"], &install.join("root"), work)?;
    debian::write_launcher(install, "redis-server", "usr/bin/redis-server", "")?;
    debian::write_launcher(install, "redis-cli", "usr/bin/redis-cli", "")
}
