//! The TiDB that a changefeed reads, as it was at a commit timestamp: its tables' definitions, whole tables, and single rows.
//!
//! `tidb_snapshot` takes a timestamp exactly, and shows definitions as they were then. A TiDB that has no garbage collection,
//! as one on its embedded store, refuses it; there `AS OF TIMESTAMP` reads rows, to the millisecond, and definitions are those
//! of now.

use crate::capture::mysql::check::Server;
use crate::capture::mysql::connect::{Address, execute, reading_session, statement_error};
use crate::capture::mysql::schema::{Described, read_tables};
use crate::capture::mysql::snapshot::{encode, push_after_key, quoted, select_list};
use crate::capture::{CaptureError, CaptureErrorKind};
use crate::config::SourceConfig;
use crate::verify::keys_condition;
use base::{Column, Generated, RowBuf, Table, TableName, Value};
use futures_util::TryStreamExt;
use mysql::Flavor;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value as Param};
use std::collections::BTreeMap;

/// A timestamp's milliseconds since 1970 stand above this many bits of a counter.
pub const LOGICAL_BITS: u32 = 18;
/// TiDB's errors for what is older than its garbage collection keeps: read at a snapshot, and `AS OF`.
const COLLECTED: [u16; 2] = [9006, 8055];

/// Milliseconds since 1970 of a commit timestamp.
pub fn millis_of(commit_ts: u64) -> i64 {
    i64::try_from(commit_ts >> LOGICAL_BITS).unwrap_or(i64::MAX)
}

/// A timestamp so many milliseconds later.
pub fn after_millis(commit_ts: u64, millis: u64) -> u64 {
    commit_ts + (millis << LOGICAL_BITS)
}

pub struct Database {
    address: Address,
    session: Option<Session>,
    /// Whether the server takes `tidb_snapshot`.
    exact: bool,
}

struct Session {
    conn: Conn,
    /// What it shows; `None` for now.
    at: Option<u64>,
}

impl Database {
    /// The TiDB of a source, if it names one.
    pub fn of(config: &SourceConfig) -> Result<Option<Self>, CaptureError> {
        let Some(url) = &config.tidb else { return Ok(None) };
        let config = SourceConfig { url: Some(url.clone()), ..config.clone() };
        Ok(Some(Self { address: Address::new(&config)?, session: None, exact: true }))
    }

    /// A timestamp that every commit of the past is before, at the beginning of its millisecond: both ways of reading take it.
    pub async fn now(&mut self) -> Result<u64, CaptureError> {
        let fail = |error| statement_error("ask TiDB for its timestamp", error);
        let conn = self.at(None).await?;
        execute(conn, &["BEGIN"]).await?;
        let now: Result<Option<u64>, _> = conn.query_first("SELECT @@tidb_current_ts").await;
        execute(conn, &["ROLLBACK"]).await?;
        let now = now.map_err(fail)?.filter(|now| *now > 0).ok_or_else(|| {
            CaptureError::fatal("the server has no timestamps", "`tidb` is the url of a TiDB server")
        })?;
        Ok(now >> LOGICAL_BITS << LOGICAL_BITS)
    }

    /// A session that shows what was there at a timestamp, or now.
    async fn at(&mut self, ts: Option<u64>) -> Result<&mut Conn, CaptureError> {
        // Taken out: one that fails on its way is not used again.
        let mut session = match self.session.take() {
            Some(session) => session,
            None => {
                let mut conn = self.address.connect().await?;
                reading_session(&mut conn).await?;
                Session { conn, at: None }
            }
        };
        if session.at != ts {
            if !self.exact {
                execute(&mut session.conn, &["ROLLBACK"]).await?;
            }
            match ts {
                None if self.exact => execute(&mut session.conn, &["SET @@tidb_snapshot = ''"]).await?,
                None => {}
                Some(ts) => self.exact = show(&mut session.conn, ts, self.exact).await?,
            }
            session.at = ts;
        }
        Ok(&mut self.session.insert(session).conn)
    }

    /// The definitions of tables, without columns that are computed when they are read: no message has them.
    pub async fn tables(
        &mut self,
        ts: u64,
        wanted: impl Fn(&TableName) -> bool,
    ) -> Result<BTreeMap<TableName, Described>, CaptureError> {
        let server = Server {
            mariadb: false,
            version: String::new(),
            identity: String::new(),
            gtids: false,
            user: String::new(),
            lower_case_table_names: 2,
            read_only: false,
        };
        let conn = self.at(Some(ts)).await?;
        let tables = read_tables(conn, &server, wanted).await;
        let mut tables = self.kept(tables)?;
        for live in tables.values_mut().flatten() {
            let keep: Vec<bool> =
                live.table.columns.iter().map(|column| column.generated != Generated::Virtual).collect();
            without(&mut live.table, &keep);
            let mut keep = keep.into_iter();
            live.fills.retain(|_| keep.next().unwrap_or(true));
        }
        Ok(tables)
    }

    /// Rows in the order of their key, behind `cursor`.
    pub async fn chunk(
        &mut self,
        ts: u64,
        table: &Table,
        cursor: Option<&RowBuf>,
        limit: u64,
    ) -> Result<Vec<RowBuf>, CaptureError> {
        let mut sql = format!("SELECT {} FROM {}", select_list(table, Flavor::MySql), quoted(&table.name));
        let mut params = Vec::new();
        if let Some(cursor) = cursor {
            sql.push_str(" WHERE ");
            push_after_key(&mut sql, &mut params, table, cursor)?;
        }
        let name = |index: &usize| crate::capture::mysql::schema::quote_name(&table.columns[*index].name);
        let order: Vec<_> = table.key.iter().map(name).collect();
        sql.push_str(&format!(" ORDER BY {} LIMIT {limit}", order.join(", ")));
        self.select(ts, table, sql, params).await
    }

    /// The row of a key, if it was there.
    pub async fn row(
        &mut self,
        ts: u64,
        table: &Table,
        key: &[Value],
    ) -> Result<Option<RowBuf>, CaptureError> {
        let columns: Vec<&Column> = table.key.iter().map(|index| &table.columns[*index]).collect();
        let (condition, params) = keys_condition(&columns, &[key]).ok_or_else(|| {
            CaptureError::fatal(
                format!("table `{}` has a key that cannot be looked up", table.name),
                "let the changefeed use claim checks: large-message-handle-option = \"claim-check\"",
            )
        })?;
        let list = select_list(table, Flavor::MySql);
        let sql = format!("SELECT {list} FROM {} WHERE {condition}", quoted(&table.name));
        Ok(self.select(ts, table, sql, params).await?.pop())
    }

    async fn select(
        &mut self,
        ts: u64,
        table: &Table,
        sql: String,
        params: Vec<Param>,
    ) -> Result<Vec<RowBuf>, CaptureError> {
        let conn = self.at(Some(ts)).await?;
        let rows = select(conn, table, sql, params).await;
        self.kept(rows)
    }

    /// The session is used again, unless something failed in it.
    fn kept<T>(&mut self, result: Result<T, CaptureError>) -> Result<T, CaptureError> {
        result.inspect_err(|_| self.session = None)
    }
}

async fn select(
    conn: &mut Conn,
    table: &Table,
    sql: String,
    params: Vec<Param>,
) -> Result<Vec<RowBuf>, CaptureError> {
    let what = format!("read table `{}` of TiDB", table.name);
    let fail = |error| statement_error(&what, error);
    let params = if params.is_empty() { mysql_async::Params::Empty } else { params.into() };
    let mut rows = Vec::new();
    let mut result = conn.exec_iter(sql, params).await.map_err(fail)?;
    if let Some(mut stream) = result.stream::<Row>().await.map_err(fail)? {
        while let Some(row) = stream.try_next().await.map_err(fail)? {
            rows.push(encode(&row, table, Flavor::MySql)?);
        }
    }
    Ok(rows)
}

/// Makes a session show a timestamp; whether `tidb_snapshot` was taken.
async fn show(conn: &mut Conn, ts: u64, exact: bool) -> Result<bool, CaptureError> {
    if exact {
        match conn.query_drop(format!("SET @@tidb_snapshot = '{ts}'")).await {
            Ok(()) => return Ok(true),
            Err(mysql_async::Error::Server(error)) if error.message.contains("tikv_gc_safe_point") => {}
            Err(error) => return Err(statement_error("read TiDB as it was", error)),
        }
    }
    // To the end of its millisecond, so that the commit itself is in it.
    let logical = ts & ((1 << LOGICAL_BITS) - 1);
    let ts = if logical == 0 { ts } else { ((ts >> LOGICAL_BITS) + 1) << LOGICAL_BITS };
    let begin = format!("START TRANSACTION READ ONLY AS OF TIMESTAMP TIDB_PARSE_TSO({ts})");
    execute(conn, &[&begin]).await?;
    Ok(false)
}

/// Whether TiDB no longer has what was there at that time.
pub fn is_collected(error: &CaptureError) -> bool {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<mysql_async::Error>());
    let Some(mysql_async::Error::Server(server)) = cause else { return false };
    error.kind == CaptureErrorKind::Fatal
        && (COLLECTED.contains(&server.code) || server.message.contains("GC safe point"))
}

/// Leaves columns out of a definition, and of its keys.
pub fn without(table: &mut Table, keep: &[bool]) {
    if keep.iter().all(|keep| *keep) {
        return;
    }
    let place = |index: &usize| keep[..*index].iter().filter(|keep| **keep).count();
    let moved = |key: &Vec<usize>| -> Vec<usize> { key.iter().map(place).collect() };
    let whole = |key: &[usize]| key.iter().all(|index| keep[*index]);
    table.unique_keys = table.unique_keys.iter().filter(|key| whole(key)).map(moved).collect();
    table.key = if whole(&table.key) { moved(&table.key) } else { Vec::new() };
    let mut keep = keep.iter();
    table.columns.retain(|_| *keep.next().unwrap_or(&true));
}
