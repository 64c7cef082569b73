//! One connection to the source: options from the URL, TLS, the session that both sides of capture need.

use super::check::Server;
use crate::capture::CaptureError;
use crate::config::{SourceConfig, TlsMode};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use std::time::Duration;

/// A server that accepts but does not answer is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most the protocol allows. The server's own setting is for what it is sent: an event of the binlog is as large as its
/// rows, and an update holds each of them twice.
const PACKET_BYTES_MAX: usize = 1 << 30;

/// How a source is reached: one set of options for each host of its URL.
#[derive(Clone)]
pub struct Address {
    hosts: Vec<Opts>,
    tls: Option<TlsMode>,
    /// The only server that will do.
    expected: Option<Server>,
}

impl Address {
    /// Reads `mysql://user:password@host[:port][,host[:port]…]`. The password never leaves the options.
    pub fn new(config: &SourceConfig) -> Result<Self, CaptureError> {
        let wrong = || {
            CaptureError::fatal(
                "the source's url is not a MySQL URL",
                "write mysql://user:password@host:3306",
            )
        };
        let url = config.url.as_ref().ok_or_else(wrong)?.expose();
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(u, r)| (u, r));
        let (hosts, path) = rest.split_once('/').map_or((rest, ""), |(h, p)| (h, p));
        let mut out = Vec::new();
        for host in hosts.split(',') {
            let at = if user.is_empty() { "" } else { "@" };
            let opts = Opts::from_url(&format!("{scheme}://{user}{at}{host}/{path}")).map_err(|_| wrong())?;
            let mut builder = OptsBuilder::from_opts(opts)
                .prefer_socket(false)
                .tcp_nodelay(true)
                .tcp_keepalive(Some(Duration::from_secs(30)))
                .conn_ttl(None)
                .max_allowed_packet(Some(PACKET_BYTES_MAX))
                .stmt_cache_size(16);
            if let Some(ssl) = ssl_opts(config) {
                builder = builder.ssl_opts(ssl);
            }
            out.push(builder.into());
        }
        Ok(Self { hosts: out, tls: config.options.tls, expected: None })
    }

    /// `host:port`, for messages.
    pub fn text(&self) -> String {
        let names: Vec<_> =
            self.hosts.iter().map(|o| format!("{}:{}", o.ip_or_hostname(), o.tcp_port())).collect();
        names.join(",")
    }

    /// Each host by itself, in the order of the URL.
    pub fn hosts(&self) -> impl Iterator<Item = Self> {
        self.hosts.iter().map(|host| Self { hosts: vec![host.clone()], ..self.clone() })
    }

    /// Takes connections to this server alone from now on. Behind a name that moves to another server, or a list of several, a row
    /// that is read must come from the server whose binlog says how old it is.
    pub fn only(self, server: &Server) -> Self {
        Self { expected: Some(server.clone()), ..self }
    }

    /// Connects to the first host that answers.
    pub async fn connect(&self) -> Result<Conn, CaptureError> {
        let mut last = None;
        for opts in &self.hosts {
            match self.connect_expected(opts).await {
                Ok(conn) => return Ok(conn),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a URL names at least one host"))
    }

    async fn connect_expected(&self, opts: &Opts) -> Result<Conn, CaptureError> {
        let mut conn = self.connect_one(opts).await?;
        let Some(expected) = &self.expected else { return Ok(conn) };
        let found = identity(&mut conn, expected.mariadb).await?;
        if found == expected.identity {
            return Ok(conn);
        }
        Err(CaptureError::unavailable(format!(
            "{}:{} is now server {found}, and not {} as before",
            opts.ip_or_hostname(),
            opts.tcp_port(),
            expected.identity
        )))
    }

    async fn connect_one(&self, opts: &Opts) -> Result<Conn, CaptureError> {
        let mut attempt = opts.clone();
        let prefer = matches!(self.tls, None | Some(TlsMode::Prefer));
        if prefer && self.tls.is_none() && opts.addr_is_loopback() {
            attempt = OptsBuilder::from_opts(attempt).ssl_opts(None).into();
        }
        match timed(Conn::new(attempt)).await {
            Err(Refusal::Driver(mysql_async::Error::Driver(
                mysql_async::DriverError::NoClientSslFlagFromServer,
            ))) if prefer => {
                let plain: Opts = OptsBuilder::from_opts(opts.clone()).ssl_opts(None).into();
                timed(Conn::new(plain)).await
            }
            result => result,
        }
        .map_err(|refusal| refusal.into_error(opts))
    }
}

/// What tells one server from another: see [`Server::identity`].
async fn identity(conn: &mut Conn, mariadb: bool) -> Result<String, CaptureError> {
    let sql = if mariadb { "SELECT CAST(@@server_id AS CHAR)" } else { "SELECT @@server_uuid" };
    let found: Option<String> =
        conn.query_first(sql).await.map_err(|e| statement_error("read which server this is", e))?;
    Ok(found.unwrap_or_default())
}

fn ssl_opts(config: &SourceConfig) -> Option<SslOpts> {
    let mode = config.options.tls.unwrap_or(TlsMode::Prefer);
    let unchecked =
        SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true);
    match mode {
        TlsMode::Off => None,
        TlsMode::Prefer | TlsMode::Require => Some(unchecked),
        TlsMode::Verify => {
            let roots = config.options.tls_ca.iter().map(|path| path.clone().into()).collect::<Vec<_>>();
            let own_only = !roots.is_empty();
            Some(SslOpts::default().with_root_certs(roots).with_disable_built_in_roots(own_only))
        }
    }
}

enum Refusal {
    Timeout,
    Driver(mysql_async::Error),
}

async fn timed(connect: impl Future<Output = mysql_async::Result<Conn>>) -> Result<Conn, Refusal> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(result) => result.map_err(Refusal::Driver),
        Err(_) => Err(Refusal::Timeout),
    }
}

impl Refusal {
    fn into_error(self, opts: &Opts) -> CaptureError {
        let place = format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port());
        match self {
            Self::Timeout => CaptureError::unavailable(format!(
                "failed to connect to {place}: no answer within {} s",
                CONNECT_TIMEOUT.as_secs()
            )),
            Self::Driver(error) => {
                let message = format!("failed to connect to {place}");
                // 1045 access denied, 1044 to the database, 1130 host not allowed, 1251 and 2059 authentication method.
                // A server that does not know the user may answer with a plugin that nobody has.
                let denied = match &error {
                    mysql_async::Error::Server(e) => {
                        matches!(e.code, 1044 | 1045 | 1130 | 1251 | 2059 | 1862)
                    }
                    mysql_async::Error::Driver(mysql_async::DriverError::UnknownAuthPlugin { .. }) => true,
                    _ => false,
                };
                if denied {
                    CaptureError::fatal(
                        message,
                        "check the user name and password in the source's url, and that the user exists",
                    )
                    .because(error)
                } else {
                    CaptureError::unavailable(message).because(error)
                }
            }
        }
    }
}

/// Turns an error of a statement into one of ours: lost connections are tried again, answers of the server are not.
pub fn statement_error(what: &str, error: mysql_async::Error) -> CaptureError {
    let message = format!("failed to {what}");
    match &error {
        mysql_async::Error::Server(server) => match server.code {
            // Access to a table, a statement or a routine is denied.
            1044 | 1142 | 1143 | 1227 | 1370 => {
                CaptureError::fatal(message, "run `tidemill check --connect`: it names the missing grant")
                    .because(error)
            }
            // The server goes down, is full of connections, or a lock was not had in time.
            1040 | 1053 | 1152 | 1158..=1161 | 1203 | 1205 | 1213 | 1317 | 3024 => {
                CaptureError::unavailable(message).because(error)
            }
            1236 => CaptureError::gap(message).because(error),
            _ => CaptureError::fatal(message, "see the server's message").because(error),
        },
        _ => CaptureError::unavailable(message).because(error),
    }
}

/// Runs statements that answer nothing.
pub async fn execute(conn: &mut Conn, statements: &[&str]) -> Result<(), CaptureError> {
    for sql in statements {
        conn.query_drop(*sql).await.map_err(|e| statement_error(&format!("run `{sql}`"), e))?;
    }
    Ok(())
}

/// Prepares a session that reads rows: UTC, text in each column's own character set, no locks kept.
pub async fn reading_session(conn: &mut Conn) -> Result<(), CaptureError> {
    execute(
        conn,
        &[
            "SET time_zone = '+00:00'",
            "SET sql_mode = ''",
            "SET NAMES utf8mb4",
            "SET character_set_results = NULL",
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ],
    )
    .await
}
