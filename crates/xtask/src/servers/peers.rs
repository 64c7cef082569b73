//! What the benchmark of the mesh is measured with and against: HAProxy and sysbench of Debian 12, MySQL Router of Debian unstable.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::debian;

pub const HAPROXY: &str = "haproxy 2.6 from bookworm, recipe 1";
pub const ROUTER: &str = "mysql-router from sid, recipe 2";
pub const SYSBENCH: &str = "sysbench 1.0.20 from bookworm, recipe 1";

pub fn haproxy(install: &Path, work: &Path) -> Result<()> {
    debian::unpack("bookworm", &["haproxy"], &install.join("root"), work)?;
    debian::write_launcher(install, "haproxy", "usr/sbin/haproxy", "")
}

pub fn sysbench(install: &Path, work: &Path) -> Result<()> {
    debian::unpack("bookworm", &["sysbench"], &install.join("root"), work)?;
    debian::write_launcher(install, "sysbench", "usr/bin/sysbench", "")
}

pub fn router(install: &Path, work: &Path) -> Result<()> {
    debian::unpack("sid", &["mysql-router"], &install.join("root"), work)?;
    debian::write_launcher(install, "mysqlrouter", "usr/bin/mysqlrouter", "")?;
    // It looks for its files from its own path on, and has libraries of its own.
    let launcher = install.join("bin/mysqlrouter");
    let script = fs::read_to_string(&launcher)?
        .replace("--argv0 mysqlrouter ", "")
        .replace("--library-path \"", "--library-path \"$root/usr/lib/mysql-router:");
    Ok(fs::write(&launcher, script)?)
}
