//! MariaDB 10.11, the long-term version of Debian 12, with an initialised data folder to copy.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::debian;
use crate::step::step;

pub const VERSION: &str = "mariadb 10.11 from bookworm, recipe 1";

const CLIENTS: [&str; 4] = ["mariadb", "mariadb-admin", "mariadb-dump", "mariadb-binlog"];

/// What makes a data folder, in this order; paths below the packages' `usr/share/mysql`.
const SYSTEM_TABLES: [&str; 5] = [
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
];

pub fn install(install: &Path, work: &Path) -> Result<()> {
    let packages = ["mariadb-server-core", "mariadb-client-core", "mariadb-client"];
    debian::unpack("bookworm", &packages, &install.join("root"), work)?;
    let server = "--no-defaults --basedir=\"$root/usr\" --lc-messages-dir=\"$root/usr/share/mysql\" \
                  --character-sets-dir=\"$root/usr/share/mysql/charsets\" --plugin-dir=\"$root/usr/lib/mysql/plugin\"";
    debian::write_launcher(install, "mariadbd", "usr/sbin/mariadbd", server)?;
    let client = "--no-defaults --character-sets-dir=\"$root/usr/share/mysql/charsets\"";
    for name in CLIENTS {
        debian::write_launcher(install, name, &format!("usr/bin/{name}"), client)?;
    }
    step("initialise an empty data folder", || initialise(install))
}

/// Feeds the system tables to a bootstrapping server. `mariadb-install-db` does the same, but needs a system install.
fn initialise(install: &Path) -> Result<()> {
    let template = install.join("template");
    fs::create_dir_all(&template)?;
    let script = install.join("bootstrap.sql");
    fs::write(&script, bootstrap_sql(&install.join("root/usr/share/mysql"))?)?;
    let output = Command::new(install.join("bin/mariadbd"))
        .args(["--bootstrap", "--user=root", "--skip-log-bin", "--innodb-log-file-size=8M"])
        .arg(format!("--datadir={}", template.display()))
        .args(["--max-allowed-packet=8M", "--net-buffer-length=16K", "--innodb-flush-log-at-trx-commit=0"])
        .stdin(Stdio::from(fs::File::open(&script)?))
        .output()
        .context("failed to start mariadbd")?;
    if !output.status.success() {
        bail!(
            "mariadbd --bootstrap ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    fs::remove_file(script)?;
    Ok(())
}

fn bootstrap_sql(share: &Path) -> Result<String> {
    // No anonymous users, and a root without a password instead of one tied to the system's own.
    let mut sql = String::from(
        "create database mysql;\nuse mysql;\nset @skip_auth_anonymous=1;\nset @auth_root_socket=NULL;\n",
    );
    for name in SYSTEM_TABLES {
        let text = fs::read_to_string(share.join(name)).with_context(|| format!("failed to read {name}"))?;
        // The machine's name may change after the install, so no account is made for it.
        for line in text.lines().filter(|line| !line.contains("@current_hostname")) {
            sql.push_str(line);
            sql.push('\n');
        }
    }
    Ok(sql)
}
