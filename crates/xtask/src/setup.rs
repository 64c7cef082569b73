//! The programs that builds and tests need from the system.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::step::{find, loud, quiet, step};

/// A program or file, the Debian package that brings it, and what needs it.
const NEEDED: [(&str, &str, &str); 14] = [
    ("cc", "build-essential", "the C parts of SQLite, zstd and ring"),
    ("git", "git", "everything"),
    ("apt-get", "apt", "servers: mysql, mariadb, redis, chromium"),
    ("dpkg-deb", "dpkg", "servers: mysql, mariadb, redis, chromium"),
    (
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
        "servers: mysql, mariadb, redis, chromium",
    ),
    ("pip", "python3-pip", "servers: nats, bi-clients"),
    ("python3", "python3", "tests: examples/chat"),
    ("python3-config", "python3-dev", "servers: bi-clients (mysqlclient is built)"),
    ("node", "nodejs", "servers: typescript, durable-streams, cube (Node 20 or newer)"),
    ("npm", "npm", "servers: typescript, durable-streams, cube"),
    ("java", "openjdk-17-jre-headless", "servers: kafka, opensearch, registry (Java 17 or newer)"),
    ("javac", "openjdk-17-jdk-headless", "servers: opensearch, bi-clients"),
    ("mvn", "maven", "servers: kafka, opensearch, registry, bi-clients"),
    (
        "go",
        "golang-go",
        "servers: tidb, pd (Go 1.25.8 or newer; where the package is older, take it from go.dev/dl)",
    ),
];

/// Prints what is there and what is missing; installs the missing when run as root.
pub fn run() -> Result<()> {
    let mut missing = Vec::new();
    for (program, package, user) in NEEDED {
        let there =
            if program.starts_with('/') { Path::new(program).exists() } else { find(program).is_some() };
        println!("{} {package:24} {user}", if there { "found  " } else { "missing" });
        if !there {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(());
    }
    let packages = missing.join(" ");
    if quiet(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("missing: {packages}\nhint: run `sudo apt-get install --no-install-recommends {packages}`");
    }
    step(&format!("install {packages}"), || {
        quiet(Command::new("apt-get").args(["update", "--quiet"]))?;
        let options = ["install", "--yes", "--no-install-recommends"];
        loud(Command::new("apt-get").args(options).args(&missing).env("DEBIAN_FRONTEND", "noninteractive"))
    })?;
    println!("nothing is missing");
    Ok(())
}
