//! Drivers and what stands on them: each asks the door and a MySQL with the same tables, and hears the same.

use crate::clients::twin;
use crate::house::{House, output};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `cargo xtask servers bi-clients` puts them.
struct Clients(PathBuf);

impl Clients {
    fn find() -> Result<Self> {
        testkit::installed("bi-clients").map(Self)
    }

    fn python(&self, folder: &str, script: &str) -> Command {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", self.0.join(folder)).arg(scripts().join(script));
        command
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/door/scripts")
}

fn statements() -> PathBuf {
    scripts().join("statements.txt")
}

/// Runs a program against both, and compares what it prints, line by line.
async fn alike(program: impl Fn(u16) -> Command) -> Result<()> {
    let (house, server) = (House::open().await?, twin().await?);
    let ours = output(program(house.port)).await.context("at the door")?;
    let its = output(program(server.port())).await.context("at MySQL")?;
    let (ours, its): (Vec<_>, Vec<_>) = (ours.lines().collect(), its.lines().collect());
    let different: Vec<String> = ours
        .iter()
        .zip(&its)
        .filter(|(ours, its)| ours != its)
        .map(|(ours, its)| format!("door:  {ours}\nmysql: {its}"))
        .collect();
    if !different.is_empty() || ours.len() != its.len() {
        bail!("{} and {} lines\n{}", ours.len(), its.len(), different.join("\n"));
    }
    assert!(ours.len() > 10, "it printed something: {ours:?}");
    house.close().await
}

#[tokio::test]
async fn pymysql_hears_what_mysql_says() -> Result<()> {
    let clients = Clients::find()?;
    alike(|port| {
        let mut command = clients.python("python", "dbapi.py");
        command.args(["pymysql", &port.to_string()]).arg(statements());
        command
    })
    .await
}

#[tokio::test]
async fn mysqlclient_hears_what_mysql_says() -> Result<()> {
    let clients = Clients::find()?;
    // Its plug-ins for passwords lie beside the C client.
    let plugins = format!("usr/lib/{}-linux-gnu/libmariadb3/plugin", std::env::consts::ARCH);
    let plugins = clients.0.join("mysqlclient").join("root").join(plugins);
    alike(|port| {
        let mut command = clients.python("mysqlclient/lib", "dbapi.py");
        command.env("MARIADB_PLUGIN_DIR", &plugins);
        command.args(["MySQLdb", &port.to_string()]).arg(statements());
        command
    })
    .await
}

#[tokio::test]
async fn sqlalchemy_reflects_what_it_reflects_of_mysql() -> Result<()> {
    let clients = Clients::find()?;
    alike(|port| {
        let mut command = clients.python("python", "reflect.py");
        command.arg(port.to_string());
        command
    })
    .await
}

#[tokio::test]
async fn mysql2_hears_what_mysql_says() -> Result<()> {
    let clients = Clients::find()?;
    alike(|port| {
        let mut command = Command::new("node");
        command.arg(scripts().join("ask.mjs")).arg(&clients.0).arg(port.to_string()).arg(statements());
        command
    })
    .await
}

#[tokio::test]
async fn connector_j_hears_what_mysql_says() -> Result<()> {
    let clients = Clients::find()?;
    alike(|port| {
        let mut command = Command::new("java");
        command.arg("-Xmx256m").arg("-cp").arg(format!("{}/*", clients.0.join("lib").display()));
        command.arg(scripts().join("Ask.java")).arg(port.to_string()).arg(statements());
        command
    })
    .await
}
