//! Talking to a server of the MySQL protocol as root, without a password.

use std::ops::Deref;

use anyhow::{Context, Result};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts, OptsBuilder};

use crate::server::Server;

/// A server of the MySQL protocol: MySQL, MariaDB or TiDB.
///
/// Each call opens a connection of its own, so that nothing stale survives a kill; use [`SqlServer::conn`] for several
/// statements in one session.
#[derive(Debug)]
pub struct SqlServer {
    server: Server,
}

impl SqlServer {
    pub(crate) fn new(server: Server) -> SqlServer {
        SqlServer { server }
    }

    /// `mysql://root@127.0.0.1:PORT`, to which a database may be added.
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}", self.port())
    }

    /// How to connect as root, over TCP also where the server offers its socket.
    pub fn opts(&self) -> Opts {
        opts(self.port())
    }

    /// A new session as root.
    pub async fn conn(&self) -> Result<Conn> {
        Conn::new(self.opts()).await.with_context(|| format!("failed to connect to port {}", self.port()))
    }

    /// Runs one or more statements, separated by `;`, and drops what they answer.
    pub async fn exec(&self, sql: &str) -> Result<()> {
        let mut conn = self.conn().await?;
        conn.query_drop(sql).await.with_context(|| format!("failed to run `{sql}`"))?;
        Ok(conn.disconnect().await?)
    }

    /// Runs one statement and returns its rows.
    pub async fn query<T: FromRow + Send + 'static>(&self, sql: &str) -> Result<Vec<T>> {
        let mut conn = self.conn().await?;
        let rows = conn.query(sql).await.with_context(|| format!("failed to run `{sql}`"))?;
        conn.disconnect().await?;
        Ok(rows)
    }

    /// Runs one statement and returns its first row.
    pub async fn query_one<T: FromRow + Send + 'static>(&self, sql: &str) -> Result<T> {
        self.query(sql).await?.into_iter().next().with_context(|| format!("`{sql}` answered no row"))
    }
}

impl Deref for SqlServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

pub(crate) async fn probe(port: u16) -> Result<()> {
    let mut conn = Conn::new(opts(port)).await?;
    conn.query_drop("select 1").await?;
    Ok(conn.disconnect().await?)
}

fn opts(port: u16) -> Opts {
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some("root"))
        .prefer_socket(false)
        .into()
}
