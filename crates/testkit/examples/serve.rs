//! Serves one server to another program, which talks to it by lines: `serve mysql|mariadb|tidb [ARGUMENT…]`.
//!
//! The first line it prints is `PORT FREE FREE DATA`: where the server listens, two ports that are held for the asker, and the
//! server's data folder. Each line that comes in is a statement for root, answered by `ok` or `failed: why`. It ends when its
//! input ends, and the server with it.

use std::io::{BufRead, Write, stdin, stdout};

use anyhow::{Result, bail};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, Port, SqlServer, TiDb, TiDbOptions};

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let kind = words.next().unwrap_or_default();
    let args = words.collect();
    match kind.as_str() {
        "mysql" => serve(&*MySql::start(MySqlOptions { args, ..MySqlOptions::default() }).await?).await,
        "mariadb" => {
            serve(&*MariaDb::start(MariaDbOptions { args, ..MariaDbOptions::default() }).await?).await
        }
        "tidb" => serve(&*TiDb::start(TiDbOptions { args }).await?).await,
        _ => bail!("`{kind}` is no server\nhint: choose from mysql, mariadb, tidb"),
    }
}

async fn serve(server: &SqlServer) -> Result<()> {
    let free = [Port::reserve()?, Port::reserve()?];
    let [first, second] = free.each_ref().map(Port::number);
    println!("{} {first} {second} {}", server.port(), server.data_dir().display());
    for line in stdin().lock().lines() {
        match server.exec(&line?).await {
            Ok(()) => println!("ok"),
            Err(error) => println!("failed: {}", format!("{error:#}").replace('\n', " ")),
        }
        stdout().flush()?;
    }
    Ok(())
}
