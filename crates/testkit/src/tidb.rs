//! TiDB on its embedded store: a sink and an SQL engine.
//!
//! It has no binlog, no TiKV and no PD.

use std::ffi::OsString;
use std::ops::Deref;

use anyhow::Result;

use crate::installed::installed;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, data_dir, folder};
use crate::sql::SqlServer;

/// How to start a TiDB.
#[derive(Clone, Debug, Default)]
pub struct TiDbOptions {
    /// More arguments of the server, like `-config`.
    pub args: Vec<String>,
}

/// A TiDB server. Root has no password. It takes 360 MB idle and gigabytes under a load of a million rows.
#[derive(Debug)]
pub struct TiDb {
    sql: SqlServer,
    status_port: u16,
}

impl TiDb {
    /// Starts a server and waits until it answers.
    pub async fn start(options: TiDbOptions) -> Result<TiDb> {
        let install = installed("tidb")?;
        let (folder, port, status) = (folder("tidb")?, Port::reserve()?, Port::reserve()?);
        let status_port = status.number();
        let mut arguments: Vec<OsString> = vec!["-store".into(), "unistore".into()];
        // A relative or empty path would silently mean a store that forgets everything.
        arguments.extend(["-path".into(), data_dir(folder.path()).into()]);
        arguments.extend(["-temp-dir".into(), folder.path().join("temp").into()]);
        for (flag, value) in [
            ("-host", "127.0.0.1".to_owned()),
            ("-P", port.number().to_string()),
            // Without these two it listens on every address, and leaves a socket behind.
            ("-status-host", "127.0.0.1".to_owned()),
            ("-socket", String::new()),
            ("-status", status_port.to_string()),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments.extend(options.args.iter().map(OsString::from));
        let program = install.join("bin/tidb-server");
        let launch = Launch { name: "tidb", program, arguments, probe: Probe::Http(status_port, "/status") };
        let server = Server::start(launch, folder, port, Some(status)).await?;
        Ok(TiDb { sql: SqlServer::new(server), status_port })
    }

    /// The HTTP port that answers `/status` and `/metrics`.
    pub fn status_port(&self) -> u16 {
        self.status_port
    }
}

impl Deref for TiDb {
    type Target = SqlServer;

    fn deref(&self) -> &SqlServer {
        &self.sql
    }
}
