//! MySQL, MariaDB and TiDB as a source of collection: tables as `information_schema` shows them, and each table's rows in one
//! consistent read over a connection of its own.

use crate::config::TlsMode;
use crate::reader::{
    BAD_TEXT_MAX, BadRow, Batch, Batches, Described, ROWS_OF_BATCH_MAX, ReadError, Reader, Scope, Sender,
    batches,
};
use crate::rejected::literal;
use crate::state::text_sql;
use crate::table::name_sql_of;
use async_trait::async_trait;
use base::patterns::Patterns;
use base::{Column, ColumnType, Generated, RowView, RowWriter, Secret, TableName, Value};
use mysql::Flavor;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row, SslOpts};
use std::path::PathBuf;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most the protocol allows: a row is as large as it is.
const PACKET_BYTES_MAX: usize = 1 << 30;
/// Bytes of a batch; a row that is larger is one by itself.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Texts of every column in its own character set, times in UTC, and one state of the data for all rows. A server waits long for
/// a reader that is kept slow.
const SESSION: [&str; 5] = [
    "SET time_zone = '+00:00'",
    "SET sql_mode = ''",
    "SET NAMES utf8mb4",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET SESSION net_write_timeout = 28800",
];
const READING: [&str; 2] = ["SET character_set_results = NULL", "START TRANSACTION WITH CONSISTENT SNAPSHOT"];

/// A server, and what of it may be read.
#[derive(Clone, Debug)]
pub struct MySqlSource {
    /// `mysql://user:password@host[:port][,host[:port]…]`; the first that answers is read.
    pub url: Secret,
    pub tls: Option<TlsMode>,
    pub tls_ca: Option<PathBuf>,
    /// `db.table` with wildcards.
    pub tables: Patterns,
}

pub struct MySqlReader {
    source: MySqlSource,
    hosts: Vec<Opts>,
    conn: Conn,
    flavor: Flavor,
}

impl MySqlReader {
    pub async fn open(source: &MySqlSource) -> Result<Self, ReadError> {
        let hosts = hosts(source)?;
        let mut conn = connect(source, &hosts).await?;
        let version: Option<String> = conn.query_first("SELECT VERSION()").await.map_err(failed)?;
        let mariadb = version.is_some_and(|it| it.to_ascii_lowercase().contains("mariadb"));
        let flavor = if mariadb { Flavor::MariaDb } else { Flavor::MySql };
        Ok(Self { source: source.clone(), hosts, conn, flavor })
    }

    /// A connection that a restart of the server has ended is made anew.
    async fn conn(&mut self) -> Result<&mut Conn, ReadError> {
        if self.conn.ping().await.is_err() {
            self.conn = connect(&self.source, &self.hosts).await?;
        }
        Ok(&mut self.conn)
    }

    async fn json_columns(&mut self, db: &str, table: &str) -> Result<Vec<String>, ReadError> {
        if self.flavor != Flavor::MariaDb {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT check_clause FROM information_schema.check_constraints WHERE constraint_schema = {} \
             AND table_name = {} AND check_clause LIKE 'json_valid(%'",
            text_sql(db),
            text_sql(table)
        );
        let clauses: Vec<String> = self.conn().await?.query(sql).await.map_err(failed)?;
        let name = |clause: String| {
            let name = clause.strip_prefix("json_valid(`")?.strip_suffix("`)")?.replace("``", "`");
            Some(name)
        };
        Ok(clauses.into_iter().filter_map(name).collect())
    }

    /// The primary key, or else a unique one that names every row.
    async fn key(&mut self, db: &str, table: &str) -> Result<Vec<String>, ReadError> {
        let sql = format!(
            "SELECT CAST(index_name AS CHAR CHARACTER SET utf8mb4), CAST(column_name AS CHAR CHARACTER SET utf8mb4), \
             nullable, sub_part FROM information_schema.statistics WHERE table_schema = {} AND table_name = {} \
             AND non_unique = 0 ORDER BY index_name <> 'PRIMARY', index_name, seq_in_index",
            text_sql(db),
            text_sql(table)
        );
        let rows: Vec<Row> = self.conn().await?.query(sql).await.map_err(failed)?;
        let mut keys: Vec<(String, Vec<String>, bool)> = Vec::new();
        for row in rows {
            let text = |at: usize| row.get::<Option<String>, _>(at).flatten();
            let index = text(0).unwrap_or_default();
            if keys.last().is_none_or(|(name, ..)| *name != index) {
                keys.push((index, Vec::new(), true));
            }
            let Some((_, columns, whole)) = keys.last_mut() else { continue };
            let column = text(1);
            let prefixed = row.get::<Option<u64>, _>(3).flatten().is_some();
            *whole &= column.is_some() && !prefixed && text(2).as_deref() != Some("YES");
            columns.extend(column);
        }
        Ok(keys.into_iter().find(|(.., whole)| *whole).map(|(_, columns, _)| columns).unwrap_or_default())
    }
}

#[async_trait]
impl Reader for MySqlReader {
    async fn tables(&mut self) -> Result<Vec<String>, ReadError> {
        let sql = "SELECT CAST(table_schema AS CHAR CHARACTER SET utf8mb4), CAST(table_name AS CHAR CHARACTER SET utf8mb4) \
                   FROM information_schema.tables WHERE table_type IN ('BASE TABLE', 'VIEW') AND LOWER(table_schema) \
                   NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema', 'metrics_schema')";
        let rows: Vec<(String, String)> = self.conn().await?.query(sql).await.map_err(failed)?;
        let names = rows.into_iter().map(|(db, table)| TableName { db, table });
        let wanted = names.filter(|name| self.source.tables.matches(name));
        let mut names: Vec<String> = wanted.map(|name| name.to_string()).collect();
        names.sort();
        Ok(names)
    }

    async fn describe(&mut self, table: &str) -> Result<Described, ReadError> {
        let missing = || ReadError::NoTable(table.to_owned());
        let (db, name) = table.split_once('.').ok_or_else(missing)?;
        let json = self.json_columns(db, name).await?;
        let key = self.key(db, name).await?;
        let sql = format!(
            "SELECT CAST(column_name AS CHAR CHARACTER SET utf8mb4), CAST(column_type AS CHAR CHARACTER SET utf8mb4), \
             CAST(data_type AS CHAR CHARACTER SET utf8mb4), is_nullable, character_set_name, collation_name, \
             character_maximum_length FROM information_schema.columns WHERE table_schema = {} AND table_name = {} \
             ORDER BY ordinal_position",
            text_sql(db),
            text_sql(name)
        );
        let flavor = self.flavor;
        let rows: Vec<Row> = self.conn().await?.query(sql).await.map_err(failed)?;
        let mut columns = Vec::new();
        for row in rows {
            let text = |at: usize| row.get::<Option<String>, _>(at).flatten().unwrap_or_default();
            let (name, sql_type) = (text(0), text(1));
            let chars_max = row.get::<Option<u64>, _>(6).flatten();
            let ty = mysql::column_type(&sql_type, &text(2), chars_max, json.contains(&name), flavor)
                .map_err(|error| {
                    ReadError::bad(
                        format!("the column `{name}` of `{table}`: {error}"),
                        "leave it out by `exclude_columns`",
                    )
                })?;
            let charset = row.get::<Option<String>, _>(4).flatten();
            columns.push(Column {
                charset: charset.filter(|_| !matches!(ty, ColumnType::Json)),
                collation: row.get::<Option<String>, _>(5).flatten(),
                nullable: text(3) == "YES",
                generated: Generated::No,
                invisible: false,
                sql_type,
                name,
                ty,
            });
        }
        if columns.is_empty() {
            return Err(missing());
        }
        Ok(Described { table: table.to_owned(), columns, key })
    }

    async fn read(&mut self, table: &Described, scope: Scope) -> Result<Batches, ReadError> {
        let mut conn = connect(&self.source, &self.hosts).await?;
        for sql in READING {
            conn.query_drop(sql).await.map_err(failed)?;
        }
        let (sql, columns) = select(table, &scope, self.flavor)?;
        let (sender, batches) = batches();
        let flavor = self.flavor;
        tokio::spawn(async move {
            let ended = stream(&mut conn, &sql, &columns, flavor, &sender).await;
            sender.end(ended).await;
        });
        Ok(batches)
    }
}

/// The rows of a scope, and their columns.
fn select(table: &Described, scope: &Scope, flavor: Flavor) -> Result<(String, Vec<Column>), ReadError> {
    let columns = match scope {
        Scope::Columns(names) => {
            let named = names.iter().map(|name| {
                let found = table.columns.iter().find(|it| it.name == *name).cloned();
                found.ok_or_else(|| ReadError::Internal(format!("no column `{name}`")))
            });
            named.collect::<Result<_, _>>()?
        }
        _ => table.columns.clone(),
    };
    let list: Vec<String> = columns.iter().map(|column| mysql::select_expression(column, flavor)).collect();
    let mut sql = format!("SELECT {} FROM {}", list.join(", "), engine::name_sql(&table.table));
    if let Scope::From { column, value } = scope {
        let name = name_sql_of(column);
        if let Some(value) = value {
            let value =
                literal(value).ok_or_else(|| ReadError::Internal("a bookmark without a value".into()))?;
            // A row without a cursor is put aside each time rather than lost once.
            let nullable = table.columns.iter().any(|it| it.name.eq_ignore_ascii_case(column) && it.nullable);
            let or = if nullable { format!(" OR {name} IS NULL") } else { String::new() };
            sql.push_str(&format!(" WHERE {name} >= {value}{or}"));
        }
        let mut order = vec![name];
        order.extend(table.key.iter().filter(|it| *it != column).map(|it| name_sql_of(it)));
        sql.push_str(&format!(" ORDER BY {}", order.join(", ")));
    }
    Ok((sql, columns))
}

async fn stream(
    conn: &mut Conn,
    sql: &str,
    columns: &[Column],
    flavor: Flavor,
    sender: &Sender,
) -> Result<(), ReadError> {
    let mut result = conn.exec_iter(sql, ()).await.map_err(failed)?;
    let mut batch = Batch::default();
    let (mut bytes, mut number, mut buffer) = (0, 0u64, Vec::new());
    while let Some(row) = result.next().await.map_err(failed)? {
        number += 1;
        buffer.clear();
        let values = row.unwrap();
        let mut writer = RowWriter::new(&mut buffer);
        let put = values
            .iter()
            .zip(columns)
            .try_for_each(|(value, column)| mysql::put_selected(&mut writer, value, column, flavor));
        match put {
            Ok(()) => {
                bytes += buffer.len();
                let row: Vec<Value> =
                    RowView(&buffer).values().map_err(|error| ReadError::Internal(error.to_string()))?;
                batch.rows.push(row);
            }
            Err(error) => {
                let mut text = format!("{values:?}");
                text.truncate(text.floor_char_boundary(BAD_TEXT_MAX));
                batch.bad.push(BadRow { place: format!("row {number}"), text, reason: error.to_string() });
            }
        }
        if batch.rows.len() + batch.bad.len() >= ROWS_OF_BATCH_MAX || bytes >= BATCH_BYTES_MAX {
            bytes = 0;
            if !sender.send(std::mem::take(&mut batch)).await {
                return Ok(());
            }
        }
    }
    sender.send(batch).await;
    Ok(())
}

/// One set of options for each host of the URL. The password never leaves them.
fn hosts(source: &MySqlSource) -> Result<Vec<Opts>, ReadError> {
    let wrong = || ReadError::Denied {
        message: "the source's url is not a MySQL URL".into(),
        hint: "write mysql://user:password@host:3306".into(),
    };
    let url = source.url.expose();
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(user, rest)| (user, rest));
    let (hosts, path) = rest.split_once('/').map_or((rest, ""), |(hosts, path)| (hosts, path));
    let at = if user.is_empty() { "" } else { "@" };
    let mut out = Vec::new();
    for host in hosts.split(',') {
        let opts = Opts::from_url(&format!("{scheme}://{user}{at}{host}/{path}")).map_err(|_| wrong())?;
        let mut builder = OptsBuilder::from_opts(opts)
            .prefer_socket(false)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .conn_ttl(None)
            .max_allowed_packet(Some(PACKET_BYTES_MAX))
            .stmt_cache_size(16)
            .setup(SESSION.to_vec());
        if let Some(ssl) = ssl_opts(source) {
            builder = builder.ssl_opts(ssl);
        }
        out.push(builder.into());
    }
    Ok(out)
}

fn ssl_opts(source: &MySqlSource) -> Option<SslOpts> {
    let unchecked =
        SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true);
    match source.tls.unwrap_or(TlsMode::Prefer) {
        TlsMode::Off => None,
        TlsMode::Prefer | TlsMode::Require => Some(unchecked),
        TlsMode::Verify => {
            let roots = source.tls_ca.iter().map(|path| path.clone().into()).collect::<Vec<_>>();
            let own_only = !roots.is_empty();
            Some(SslOpts::default().with_root_certs(roots).with_disable_built_in_roots(own_only))
        }
    }
}

/// The first host that answers.
async fn connect(source: &MySqlSource, hosts: &[Opts]) -> Result<Conn, ReadError> {
    let mut last = ReadError::Internal("a URL names no host".into());
    for opts in hosts {
        match connect_one(source, opts).await {
            Ok(conn) => return Ok(conn),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_one(source: &MySqlSource, opts: &Opts) -> Result<Conn, ReadError> {
    let place = format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port());
    let plain = || Opts::from(OptsBuilder::from_opts(opts.clone()).ssl_opts(None));
    let local = source.tls.is_none() && opts.addr_is_loopback();
    let attempt = if local { plain() } else { opts.clone() };
    let timed = |opts: Opts| async {
        tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(opts)).await.map_err(|_| {
            ReadError::Unavailable(format!(
                "failed to connect to {place}: no answer within {CONNECT_TIMEOUT:?}"
            ))
        })
    };
    let connected = match timed(attempt).await? {
        Err(mysql_async::Error::Driver(mysql_async::DriverError::NoClientSslFlagFromServer))
            if matches!(source.tls, None | Some(TlsMode::Prefer)) =>
        {
            timed(plain()).await?
        }
        connected => connected,
    };
    connected.map_err(|error| match failed(error) {
        ReadError::Unavailable(why) => ReadError::Unavailable(format!("failed to connect to {place}: {why}")),
        ReadError::Denied { message, hint } => {
            ReadError::Denied { message: format!("failed to connect to {place}: {message}"), hint }
        }
        other => other,
    })
}

fn failed(error: mysql_async::Error) -> ReadError {
    let mysql_async::Error::Server(server) = &error else { return ReadError::Unavailable(error.to_string()) };
    let message = format!("error {}: {}", server.code, server.message);
    match server.code {
        // The server goes down, is full of connections, or a lock was not had in time.
        1040 | 1053 | 1152 | 1158..=1161 | 1203 | 1205 | 1213 | 1317 | 3024 => {
            ReadError::Unavailable(message)
        }
        1044 | 1045 | 1130 | 1142 | 1143 | 1227 | 1251 | 1370 | 2059 => ReadError::Denied {
            message,
            hint: "check the user and the password in the source's url, and grant it SELECT on the tables"
                .into(),
        },
        1049 | 1146 => ReadError::NoTable(server.message.clone()),
        _ => ReadError::bad(message, "see the server's message"),
    }
}
