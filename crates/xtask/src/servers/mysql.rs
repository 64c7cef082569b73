//! MySQL, the newest of Debian unstable, with an initialised data folder to copy.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::debian;
use crate::step::{quiet, step};

pub const VERSION: &str = "mysql from sid, recipe 1";

const CLIENTS: [&str; 4] = ["mysql", "mysqladmin", "mysqldump", "mysqlbinlog"];

pub fn install(install: &Path, work: &Path) -> Result<()> {
    debian::unpack("sid", &["mysql-server-core", "mysql-client-core"], &install.join("root"), work)?;
    // The server looks for its files where its package would have put them.
    let server = "--no-defaults --basedir=\"$root/usr\" --lc-messages-dir=\"$root/usr/share/mysql\" \
                  --character-sets-dir=\"$root/usr/share/mysql/charsets\" --plugin-dir=\"$root/usr/lib/mysql/plugin\"";
    debian::write_launcher(install, "mysqld", "usr/sbin/mysqld", server)?;
    let client = "--no-defaults --character-sets-dir=\"$root/usr/share/mysql/charsets\"";
    for name in CLIENTS {
        debian::write_launcher(install, name, &format!("usr/bin/{name}"), client)?;
    }
    step("initialise an empty data folder", || initialise(install))
}

/// A server that was started once costs 3 s to make; a copy of its folder costs a tenth of that.
fn initialise(install: &Path) -> Result<()> {
    let template = install.join("template");
    quiet(
        Command::new(install.join("bin/mysqld"))
            .args(["--initialize-insecure", "--user=root", "--skip-log-bin", "--log-error-verbosity=1"])
            .arg(format!("--datadir={}", template.display()))
            .args([
                "--performance-schema=OFF",
                "--innodb-buffer-pool-size=64M",
                "--innodb-redo-log-capacity=8388608",
            ])
            // A template that a crash spoils is never stamped, so it need not be written safely.
            .args([
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-doublewrite=OFF",
                "--innodb-flush-method=nosync",
            ]),
    )?;
    // Each copy makes a server id of its own.
    fs::remove_file(template.join("auto.cnf"))?;
    Ok(())
}
