//! MySQL and MariaDB: tables and rows, as a snapshot reads them.

use super::{Choice, Origin};
use crate::capture::CaptureError;
use crate::capture::mysql::check::{Server, inspect};
use crate::capture::mysql::connect::{Address, reading_session, statement_error};
use crate::capture::mysql::schema::read_tables;
use crate::capture::mysql::snapshot::{current_mark, encode, push_after_key, quoted, row_key, select_list};
use crate::config::SourceConfig;
use crate::verify::{Mark, VerifyError, keys_condition};
use async_trait::async_trait;
use base::{Column, RowBuf, Table, Value};
use futures_util::TryStreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

/// How long a row may be locked by a transaction of others before its read is given up: less than who asks waits.
const LOCK_WAIT_SECONDS: u64 = 3;

pub struct Database {
    conn: Conn,
    server: Server,
}

impl Database {
    pub async fn connect(config: &SourceConfig) -> Result<Self, VerifyError> {
        let open = async {
            let mut conn = Address::new(config)?.connect().await?;
            let (server, _) = inspect(&mut conn).await?;
            reading_session(&mut conn).await?;
            let wait = format!("SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}");
            conn.query_drop(wait).await.map_err(|error| statement_error("set up the session", error))?;
            Ok::<_, CaptureError>(Self { conn, server })
        };
        open.await.map_err(VerifyError::Source)
    }

    /// The row of this key, behind every commit that the binlog had when this began: a commit is in the binlog before others
    /// see it, and its row is locked until they do. So the row is read with a lock, which is waited for.
    pub async fn settled_row(&mut self, table: &Table, key: &[Value]) -> Result<Option<RowBuf>, VerifyError> {
        let columns: Vec<&Column> = table.key.iter().map(|index| &table.columns[*index]).collect();
        let (condition, params) = keys_condition(&columns, &[key]).ok_or_else(|| uncomparable(table))?;
        let sql = format!(
            "SELECT {} FROM {} WHERE {condition} LOCK IN SHARE MODE",
            select_list(table, self.server.flavor()),
            quoted(&table.name)
        );
        Ok(self.select(table, &sql, params).await?.pop())
    }

    async fn select(
        &mut self,
        table: &Table,
        sql: &str,
        params: Vec<mysql_async::Value>,
    ) -> Result<Vec<RowBuf>, VerifyError> {
        let params = if params.is_empty() { mysql_async::Params::Empty } else { params.into() };
        let rows: Vec<Row> = self.conn.exec(sql, params).await.map_err(|e| failed(table, e))?;
        let flavor = self.server.flavor();
        rows.iter().map(|row| encode(row, table, flavor).map_err(VerifyError::Source)).collect()
    }
}

#[async_trait]
impl Origin for Database {
    async fn tables(&mut self, wanted: Choice<'_>, needed: Choice<'_>) -> Result<Vec<Table>, VerifyError> {
        let found = read_tables(&mut self.conn, &self.server, wanted).await.map_err(VerifyError::Source)?;
        found
            .into_iter()
            .filter(|(name, described)| described.is_ok() || needed(name))
            .map(|(name, described)| match described {
                Ok(live) => Ok(live.table),
                Err(reason) => Err(VerifyError::Unsupported {
                    message: format!("table `{name}` cannot be read: {reason}"),
                    hint: "leave it out with --table".into(),
                }),
            })
            .collect()
    }

    async fn estimate(&mut self, table: &Table) -> Result<u64, VerifyError> {
        let sql = "SELECT COALESCE(table_rows, 0) FROM information_schema.tables WHERE table_schema = ? AND table_name = ?";
        let params = (&table.name.db, &table.name.table);
        let found: Result<Option<u64>, _> = self.conn.exec_first(sql, params).await;
        Ok(found.map_err(|e| failed(table, e))?.unwrap_or(0))
    }

    async fn mark(&mut self) -> Result<Mark, VerifyError> {
        if self.server.mariadb {
            // The view's own position: opened for it alone.
            let begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
            self.conn.query_drop("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.map_err(session)?;
            self.conn.query_drop(begin).await.map_err(session)?;
        }
        let mark = current_mark(&mut self.conn, &self.server).await.map_err(VerifyError::Source);
        if self.server.mariadb {
            self.conn.query_drop("COMMIT").await.map_err(session)?;
        }
        mark.map(Mark::Server)
    }

    async fn chunk(
        &mut self,
        table: &Table,
        after: Option<&RowBuf>,
        limit: u64,
    ) -> Result<Vec<RowBuf>, VerifyError> {
        let mut sql =
            format!("SELECT {} FROM {}", select_list(table, self.server.flavor()), quoted(&table.name));
        let mut params = Vec::new();
        if let Some(row) = after {
            sql.push_str(" WHERE ");
            let key = RowBuf(row_key(table, row.view()));
            push_after_key(&mut sql, &mut params, table, &key).map_err(VerifyError::Source)?;
        }
        let order: Vec<_> = table.key.iter().map(|i| name_of(&table.columns[*i])).collect();
        sql.push_str(&format!(" ORDER BY {} LIMIT {limit}", order.join(", ")));
        self.select(table, &sql, params).await
    }

    async fn rows(&mut self, table: &Table, keys: &[&[Value]]) -> Result<Vec<RowBuf>, VerifyError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // A flow keeps the key's columns in their order; it may rename them.
        let columns: Vec<&Column> = table.key.iter().map(|index| &table.columns[*index]).collect();
        let (condition, params) = keys_condition(&columns, keys).ok_or_else(|| uncomparable(table))?;
        let sql = format!(
            "SELECT {} FROM {} WHERE {condition}",
            select_list(table, self.server.flavor()),
            quoted(&table.name)
        );
        self.select(table, &sql, params).await
    }

    async fn linked(
        &mut self,
        table: &Table,
        columns: &[usize],
        values: &[&[Value]],
        limit: usize,
    ) -> Result<Vec<RowBuf>, VerifyError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let columns: Vec<&Column> = columns.iter().map(|index| &table.columns[*index]).collect();
        let (condition, params) = keys_condition(&columns, values).ok_or_else(|| uncomparable(table))?;
        let list = select_list(table, self.server.flavor());
        let sql = format!("SELECT {list} FROM {} WHERE {condition} LIMIT {limit}", quoted(&table.name));
        self.select(table, &sql, params).await
    }

    async fn each(
        &mut self,
        table: &Table,
        take: &mut (dyn FnMut(RowBuf) + Send),
    ) -> Result<(), VerifyError> {
        let flavor = self.server.flavor();
        let sql = format!("SELECT {} FROM {}", select_list(table, flavor), quoted(&table.name));
        let mut result = self.conn.exec_iter(sql, ()).await.map_err(|e| failed(table, e))?;
        if let Some(mut rows) = result.stream::<Row>().await.map_err(|e| failed(table, e))? {
            while let Some(row) = rows.try_next().await.map_err(|e| failed(table, e))? {
                take(encode(&row, table, flavor).map_err(VerifyError::Source)?);
            }
        }
        Ok(())
    }
}

pub fn uncomparable(table: &Table) -> VerifyError {
    VerifyError::Unsupported {
        message: format!("table `{}` has a key that cannot be looked up", table.name),
        hint: "leave it out with --table".into(),
    }
}

fn name_of(column: &Column) -> String {
    crate::capture::mysql::schema::quote_name(&column.name)
}

fn failed(table: &Table, error: mysql_async::Error) -> VerifyError {
    VerifyError::Source(statement_error(&format!("read table `{}`", table.name), error))
}

fn session(error: mysql_async::Error) -> VerifyError {
    VerifyError::Source(statement_error("read the server's position", error))
}
