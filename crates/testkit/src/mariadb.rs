//! MariaDB: a source whose GTIDs and binlog events are its own.

use std::ffi::OsString;
use std::ops::Deref;

use anyhow::{Result, bail};

use crate::installed::installed;
use crate::mysql::{CATCH_UP_SECONDS_MAX, REPLICATION_USER, as_root, in_folder};
use crate::port::Port;
use crate::server::{Launch, Probe, Server, copy_folder, data_dir, folder};
use crate::sql::SqlServer;

/// How to start a MariaDB.
#[derive(Clone, Debug)]
pub struct MariaDbOptions {
    /// The middle number of its GTIDs; must differ between a source and its replica.
    pub server_id: u32,
    /// More arguments of the server; they win over ours.
    pub args: Vec<String>,
}

impl Default for MariaDbOptions {
    fn default() -> MariaDbOptions {
        MariaDbOptions { server_id: 1, args: Vec::new() }
    }
}

/// A MariaDB server with row events, full row metadata, and little memory. Root has no password.
#[derive(Debug)]
pub struct MariaDb {
    sql: SqlServer,
    server_id: u32,
}

impl MariaDb {
    /// Starts a server on a data folder of its own and waits until it answers.
    pub async fn start(options: MariaDbOptions) -> Result<MariaDb> {
        let install = installed("mariadb")?;
        let (folder, port) = (folder("mariadb")?, Port::reserve()?);
        copy_folder(&install.join("template"), &data_dir(folder.path()))?;
        let mut arguments =
            vec![in_folder("--datadir", &folder, "data"), in_folder("--socket", &folder, "mysql.sock")];
        arguments.push(in_folder("--pid-file", &folder, "mysql.pid"));
        // One that starts removes the temporary tables that it finds there, of others as well.
        std::fs::create_dir(folder.path().join("temporary"))?;
        arguments.push(in_folder("--tmpdir", &folder, "temporary"));
        arguments.extend(fixed_arguments(&options).into_iter().map(OsString::from));
        arguments.push(format!("--port={}", port.number()).into());
        arguments.extend(options.args.iter().map(OsString::from));
        let program = install.join("bin/mariadbd");
        let launch = Launch { name: "mariadb", program, arguments, probe: Probe::Sql };
        let server = Server::start(launch, folder, port, None).await?;
        Ok(MariaDb { sql: SqlServer::new(server), server_id: options.server_id })
    }

    /// Makes this server a replica of `source`, by GTID, from the beginning of the source's history.
    pub async fn replica_of(&self, source: &MariaDb) -> Result<()> {
        if self.server_id == source.server_id {
            bail!("a replica's server_id must differ from its source's; both are {}", self.server_id);
        }
        source.exec(REPLICATION_USER).await?;
        self.exec(&format!(
            "change master to master_host='127.0.0.1', master_port={}, master_user='replica', \
             master_password='replica', master_connect_retry=1, master_use_gtid=slave_pos; start slave",
            source.port()
        ))
        .await
    }

    /// Waits until this replica has applied what `source` has committed by now.
    pub async fn caught_up_with(&self, source: &MariaDb) -> Result<()> {
        let position: String = source.query_one("select @@global.gtid_binlog_pos").await?;
        let wait = format!("select master_gtid_wait('{position}', {CATCH_UP_SECONDS_MAX})");
        match self.query_one::<Option<i64>>(&wait).await? {
            Some(0) => Ok(()),
            waited => bail!("the replica did not catch up (the wait answered {waited:?})"),
        }
    }
}

impl Deref for MariaDb {
    type Target = SqlServer;

    fn deref(&self) -> &SqlServer {
        &self.sql
    }
}

fn fixed_arguments(options: &MariaDbOptions) -> Vec<String> {
    let mut arguments = vec![
        "--bind-address=127.0.0.1".to_owned(),
        format!("--server-id={}", options.server_id),
        "--log-bin=mariadb-bin".to_owned(),
        "--binlog-format=ROW".to_owned(),
        "--binlog-row-metadata=FULL".to_owned(),
        "--binlog-row-image=FULL".to_owned(),
        "--secure-file-priv=".to_owned(),
        // Small, so that several run at once; the redo log must be of the template's size.
        "--performance-schema=OFF".to_owned(),
        "--innodb-buffer-pool-size=32M".to_owned(),
        "--innodb-log-file-size=8M".to_owned(),
        "--innodb-log-buffer-size=1M".to_owned(),
        "--key-buffer-size=1M".to_owned(),
        "--aria-pagecache-buffer-size=4M".to_owned(),
    ];
    arguments.extend(as_root());
    arguments
}
