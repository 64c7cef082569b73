//! What the tests of the SQL door ask it by: PyMySQL, SQLAlchemy and mysqlclient for Python, mysql2 for Node, Connector/J.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::maven;
use crate::drivers;
use crate::step::{need, quiet, step};

pub const VERSION: &str =
    "pymysql 1.2.4, sqlalchemy 2.1.9, mysqlclient 2.3.2, mysql2 3.24.6, connector-j 9.6.0, recipe 1";

/// Fills `python/` with modules, `lib/` with jars, `mysqlclient/` with a module and the C client that it stands on, and
/// `node_modules/`.
pub fn install(install: &Path, work: &Path) -> Result<()> {
    need("javac", "apt-get install openjdk-17-jdk-headless")?;
    step("download PyMySQL and SQLAlchemy", || {
        let packages = ["PyMySQL==1.2.4", "SQLAlchemy==2.1.9"];
        let options = ["-m", "pip", "install", "--quiet", "--target"];
        quiet(Command::new("python3").args(options).arg(install.join("python")).args(packages))
    })?;
    let (own, downloads) = (install.join("mysqlclient"), work.join("mysqlclient"));
    fs::create_dir_all(&own)?;
    fs::create_dir_all(&downloads)?;
    drivers::mysqlclient(&own, &downloads)?;
    drivers::mysql2(install, work)?;
    maven::copy_jars(&["com.mysql:mysql-connector-j:9.6.0"], install, work)
}
