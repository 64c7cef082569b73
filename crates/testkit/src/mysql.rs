//! MySQL: a source, a replica, a sink.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::installed::installed;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, copy_folder, data_dir, folder};
use crate::sql::SqlServer;

/// How to start a MySQL.
#[derive(Clone, Debug)]
pub struct MySqlOptions {
    /// GTIDs on and enforced; otherwise positions are file and offset only.
    pub gtid: bool,
    /// Must differ between a source and its replica.
    pub server_id: u32,
    /// More arguments of the server, like `--read-only=ON`; they win over ours.
    pub args: Vec<String>,
}

impl Default for MySqlOptions {
    fn default() -> MySqlOptions {
        MySqlOptions { gtid: true, server_id: 1, args: Vec::new() }
    }
}

/// A MySQL server with row events, full row metadata, and little memory. Root has no password.
#[derive(Debug)]
pub struct MySql {
    sql: SqlServer,
    gtid: bool,
    server_id: u32,
}

impl MySql {
    /// Starts a server on a data folder of its own and waits until it answers.
    pub async fn start(options: MySqlOptions) -> Result<MySql> {
        let install = installed("mysql")?;
        let (folder, port) = (folder("mysql")?, Port::reserve()?);
        copy_folder(&install.join("template"), &data_dir(folder.path()))?;
        let mut arguments =
            vec![in_folder("--datadir", &folder, "data"), in_folder("--socket", &folder, "mysql.sock")];
        arguments.push(in_folder("--pid-file", &folder, "mysql.pid"));
        arguments.extend(fixed_arguments(&options).into_iter().map(OsString::from));
        arguments.push(format!("--port={}", port.number()).into());
        arguments.extend(options.args.iter().map(OsString::from));
        let program = install.join("bin/mysqld");
        let launch = Launch { name: "mysql", program, arguments, probe: Probe::Sql };
        let server = Server::start(launch, folder, port, None).await?;
        Ok(MySql { sql: SqlServer::new(server), gtid: options.gtid, server_id: options.server_id })
    }

    /// The `mysql` that people type statements into.
    pub fn client_program() -> Result<PathBuf> {
        Ok(installed("mysql")?.join("bin/mysql"))
    }

    /// Makes this server a replica of `source`, from the beginning of the source's history.
    pub async fn replica_of(&self, source: &MySql) -> Result<()> {
        if self.server_id == source.server_id {
            bail!("a replica's server_id must differ from its source's; both are {}", self.server_id);
        }
        source.exec(REPLICATION_USER).await?;
        let start = if self.gtid {
            "source_auto_position=1".to_owned()
        } else {
            let (file, _, _): (String, u64, String) = source.query_one("show binary logs").await?;
            format!("source_log_file='{file}', source_log_pos=4")
        };
        self.exec(&format!(
            "change replication source to source_host='127.0.0.1', source_port={}, source_user='replica', \
             source_password='replica', get_source_public_key=1, source_connect_retry=1, {start}; start replica",
            source.port()
        ))
        .await
    }

    /// Waits until this replica has applied what `source` has committed by now.
    pub async fn caught_up_with(&self, source: &MySql) -> Result<()> {
        let waited: Option<i64> = if self.gtid {
            let set: String = source.query_one("select @@global.gtid_executed").await?;
            self.query_one(&format!("select wait_for_executed_gtid_set('{set}', {CATCH_UP_SECONDS_MAX})"))
                .await?
        } else {
            let row: mysql_async::Row = source.query_one("show binary log status").await?;
            let (file, offset): (String, u64) =
                (row.get(0).context("no binlog file")?, row.get(1).context("no binlog position")?);
            self.query_one(&format!("select source_pos_wait('{file}', {offset}, {CATCH_UP_SECONDS_MAX})"))
                .await?
        };
        // The first function answers 0 and the second a count of events; both fail with 1, -1 or null.
        match (self.gtid, waited) {
            (true, Some(0)) | (false, Some(0..)) => Ok(()),
            _ => bail!("the replica did not catch up (the wait answered {waited:?})"),
        }
    }

    /// The authority that signed the server's certificate, which the server made for itself.
    pub fn ca_path(&self) -> PathBuf {
        self.data_dir().join("ca.pem")
    }

    /// The server's certificate.
    pub fn server_cert_path(&self) -> PathBuf {
        self.data_dir().join("server-cert.pem")
    }

    /// A client's certificate and key, signed by the same authority.
    pub fn client_cert_paths(&self) -> (PathBuf, PathBuf) {
        (self.data_dir().join("client-cert.pem"), self.data_dir().join("client-key.pem"))
    }
}

impl Deref for MySql {
    type Target = SqlServer;

    fn deref(&self) -> &SqlServer {
        &self.sql
    }
}

/// Longest wait for a replica.
pub(crate) const CATCH_UP_SECONDS_MAX: u32 = 60;

/// Made on the source, and so replayed on the replica: harmless on both, twice too.
pub(crate) const REPLICATION_USER: &str = "create user if not exists replica@'%' identified by 'replica'; \
                                           grant replication slave on *.* to replica@'%'";

fn fixed_arguments(options: &MySqlOptions) -> Vec<String> {
    let gtid = if options.gtid { "ON" } else { "OFF" };
    let mut arguments = vec![
        "--bind-address=127.0.0.1".to_owned(),
        "--mysqlx=OFF".to_owned(),
        format!("--server-id={}", options.server_id),
        "--log-bin=mysql-bin".to_owned(),
        format!("--gtid-mode={gtid}"),
        format!("--enforce-gtid-consistency={gtid}"),
        "--binlog-row-metadata=FULL".to_owned(),
        "--binlog-row-image=FULL".to_owned(),
        "--secure-file-priv=".to_owned(),
        "--log-error-verbosity=2".to_owned(),
        // Small: 170 MB a server instead of 550, so that several run at once.
        "--performance-schema=OFF".to_owned(),
        "--innodb-buffer-pool-size=32M".to_owned(),
        "--innodb-redo-log-capacity=8388608".to_owned(),
        "--innodb-log-buffer-size=1M".to_owned(),
        "--table-definition-cache=400".to_owned(),
        "--temptable-max-ram=4M".to_owned(),
    ];
    arguments.extend(as_root());
    arguments
}

/// The servers refuse to run as root unless told to.
pub(crate) fn as_root() -> Option<String> {
    // SAFETY: geteuid takes nothing and cannot fail.
    (unsafe { libc::geteuid() } == 0).then(|| "--user=root".to_owned())
}

/// `FLAG=FOLDER/NAME`, whatever bytes the folder's name has.
pub(crate) fn in_folder(flag: &str, folder: &tempfile::TempDir, name: &str) -> OsString {
    let mut argument = OsString::from(format!("{flag}="));
    argument.push(folder.path().join(name));
    argument
}
