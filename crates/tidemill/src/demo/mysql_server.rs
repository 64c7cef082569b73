//! MySQLs of the demo's own: child processes on free ports of this machine, gone with the demo.

use crate::failure::Failure;
use mysql_async::prelude::Queryable;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const READY_MAX: Duration = Duration::from_secs(30);

pub struct MySqlServer {
    child: Child,
    port: u16,
    url: String,
}

impl MySqlServer {
    /// Starts what `cargo xtask servers mysql` installed, on an empty data folder below `dir`. `server_id` differs among
    /// servers that replicate.
    pub async fn start(dir: &Path, server_id: u32) -> Result<Self, Failure> {
        let install = installed()?;
        let data = dir.join("data");
        copy(&install.join("template"), &data).map_err(|e| Failure::io("make MySQL's data folder", &e))?;
        let port = free_port().map_err(|e| Failure::io("find a free port", &e))?;
        let log = fs::File::create(dir.join("mysql.log")).map_err(|e| Failure::io("make MySQL's log", &e))?;
        let with_path = |flag: &str, path: PathBuf| {
            let mut argument = OsString::from(flag);
            argument.push(path);
            argument
        };
        let mut command = Command::new(install.join("bin/mysqld"));
        command.arg(with_path("--datadir=", data)).arg(with_path("--socket=", dir.join("mysql.sock")));
        command.arg(with_path("--pid-file=", dir.join("mysql.pid"))).arg(format!("--port={port}"));
        command.arg(format!("--server-id={server_id}"));
        command.args([
            "--bind-address=127.0.0.1",
            "--mysqlx=OFF",
            "--log-bin=mysql-bin",
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--binlog-row-metadata=FULL",
            "--secure-file-priv=",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=32M",
        ]);
        // SAFETY: geteuid takes nothing and cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            command.arg("--user=root");
        }
        // A process group of its own: Ctrl-C is for the demo, which then ends the server.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = command.spawn().map_err(|e| Failure::io("start mysqld", &e))?;
        let server = Self { child, port, url: format!("mysql://root@127.0.0.1:{port}") };
        server.ready(&dir.join("mysql.log")).await?;
        Ok(server)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs statements as root.
    pub async fn exec(&self, sql: &str) -> Result<(), Failure> {
        let failed = |error: mysql_async::Error| {
            Failure::new(1, format!("failed to prepare MySQL: {}", base::error::chain(&error)))
        };
        let opts = mysql_async::Opts::from_url(&self.url).expect("written by us");
        let mut conn = mysql_async::Conn::new(opts).await.map_err(failed)?;
        conn.query_drop(sql).await.map_err(failed)
    }

    async fn ready(&self, log: &Path) -> Result<(), Failure> {
        let opts = mysql_async::Opts::from_url(&self.url).expect("written by us");
        let end = Instant::now() + READY_MAX;
        while mysql_async::Conn::new(opts.clone()).await.is_err() {
            if Instant::now() > end {
                let text = fs::read_to_string(log).unwrap_or_default();
                return Err(Failure::new(3, format!("MySQL did not start:\n{text}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for MySqlServer {
    fn drop(&mut self) {
        // Its data is thrown away next: there is nothing to shut down in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its command-line client.
pub fn client() -> Result<PathBuf, Failure> {
    Ok(installed()?.join("bin/mysql"))
}

fn installed() -> Result<PathBuf, Failure> {
    let folder = std::env::var_os("TIDEMILL_SERVERS").map(PathBuf::from).unwrap_or_default().join("mysql");
    if folder.join("stamp").is_file() {
        return Ok(folder);
    }
    Err(Failure::new(2, "there is no MySQL to start")
        .hint("run it as `cargo xtask demo --mysql` or `--mesh`, which install one"))
}

pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
