//! The engine on a MySQL or TiDB server: the same statements, sent as they are, in sessions of known modes.

use crate::deep;
use crate::error::EngineError;
use crate::parse::check_query;
use crate::rows::{BATCHES_AHEAD, Batch, END, ROWS_OF_BATCH_MAX, Rows};
use crate::{Engine, Options};
use async_trait::async_trait;
use base::{Column, ColumnType, Generated, Value};
use mysql_async::consts::{ColumnFlags, ColumnType as Wire};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, TxOpts, Value as Cell};
use tokio::sync::mpsc;

/// Connections at once.
const CONNECTIONS_MAX: usize = 8;
/// What a session of a project has, whatever the server's own settings.
const SESSION: [&str; 4] = [
    "SET NAMES utf8mb4 COLLATE utf8mb4_0900_ai_ci",
    "SET time_zone = '+00:00'",
    "SET sql_mode = 'ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    "SET group_concat_max_len = 1048576",
];
/// The character set of binary columns.
const BINARY: u16 = 63;
/// What a server is told that shall only be read.
const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY";
/// "This version does not yet support": TiDB has no [`READ_ONLY`].
const UNSUPPORTED: u16 = 1235;

/// The engine on a server.
pub struct MySql {
    pool: Pool,
    options: Options,
}

impl MySql {
    /// Connects once, so that a wrong address or password is told now.
    pub async fn open(url: &str, options: Options) -> Result<Self, EngineError> {
        // The address may hold a password, so that it is never shown.
        let opts = Opts::from_url(url).map_err(|_| {
            EngineError::refused("the engine's address cannot be read", "write mysql://user@host:4000/dw")
        })?;
        let constraints = PoolConstraints::new(0, CONNECTIONS_MAX)
            .ok_or_else(|| EngineError::Internal("the pool's bounds are wrong".into()))?;
        let pooled = |setup: Vec<&str>| {
            let opts = OptsBuilder::from_opts(opts.clone())
                .pool_opts(PoolOpts::default().with_constraints(constraints))
                .prefer_socket(false)
                .setup(setup);
            Self { pool: Pool::new(opts), options: options.clone() }
        };
        let engine = pooled(SESSION.to_vec());
        let mut conn = engine.conn().await?;
        conn.ping().await.map_err(failed)?;
        if !engine.options.read_only {
            drop(conn);
            return Ok(engine);
        }
        let answer = conn.query_drop(READ_ONLY).await;
        let disconnected = conn.disconnect().await;
        match answer.map_err(failed) {
            Ok(()) => {
                disconnected.map_err(failed)?;
                Ok(pooled(SESSION.into_iter().chain([READ_ONLY]).collect()))
            }
            // Then only what is read before it is sent keeps the server as it is.
            Err(EngineError::Sql { number: UNSUPPORTED, .. }) => Ok(engine),
            Err(error) => Err(error),
        }
    }

    /// Whether a text is one query that only reads, by our grammar; asked before it is sent.
    async fn admit(&self, sql: &str) -> Result<(), EngineError> {
        if self.options.read_only { checked(sql).await } else { Ok(()) }
    }

    fn admit_write(&self) -> Result<(), EngineError> {
        if self.options.read_only {
            return Err(EngineError::sql(1290, "the engine was opened to read"));
        }
        Ok(())
    }

    async fn conn(&self) -> Result<Conn, EngineError> {
        self.pool.get_conn().await.map_err(failed)
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
        tokio::time::timeout(self.options.timeout, work).await.unwrap_or_else(|_| {
            Err(EngineError::Stopped(format!("it took longer than {:?}", self.options.timeout)))
        })
    }
}

async fn checked(sql: &str) -> Result<(), EngineError> {
    let sql = sql.to_owned();
    deep::run(move || check_query(&sql)).await
}

fn failed(error: mysql_async::Error) -> EngineError {
    match error {
        mysql_async::Error::Server(server) => EngineError::sql(server.code, server.message),
        other => EngineError::Unavailable(other.to_string()),
    }
}

#[async_trait]
impl Engine for MySql {
    async fn execute(&self, sql: &str) -> Result<u64, EngineError> {
        self.admit_write()?;
        let mut conn = self.conn().await?;
        self.in_time(async {
            conn.query_drop(sql).await.map_err(failed)?;
            Ok(conn.affected_rows())
        })
        .await
    }

    async fn execute_all(&self, statements: &[String]) -> Result<u64, EngineError> {
        self.admit_write()?;
        let mut conn = self.conn().await?;
        self.in_time(async {
            let mut transaction = conn.start_transaction(TxOpts::default()).await.map_err(failed)?;
            let mut affected = 0;
            for sql in statements {
                transaction.query_drop(sql).await.map_err(failed)?;
                affected += transaction.affected_rows();
            }
            transaction.commit().await.map_err(failed)?;
            Ok(affected)
        })
        .await
    }

    async fn query(&self, sql: &str) -> Result<Rows, EngineError> {
        self.admit(sql).await?;
        self.rows(sql, self.options.read_only, "").await
    }

    async fn check(&self, sql: &str) -> Result<Vec<Column>, EngineError> {
        self.admit(sql).await?;
        let mut conn = self.conn().await?;
        self.in_time(async {
            let statement = conn.prep(sql).await.map_err(failed)?;
            let columns = statement.columns().iter().map(described).collect();
            conn.close(statement).await.map_err(failed)?;
            Ok(columns)
        })
        .await
    }

    async fn explain(&self, sql: &str) -> Result<String, EngineError> {
        checked(sql).await?;
        let rows = self.rows(sql, true, "EXPLAIN ").await?;
        let columns = rows.columns.clone();
        let lines = rows.all(10_000).await?;
        let line = |row: &Vec<Value>| {
            let cells: Vec<String> = row
                .iter()
                .zip(&columns)
                .map(|(value, column)| crate::cell_text(value, column).unwrap_or_default())
                .collect();
            cells.join("\t")
        };
        Ok(lines.iter().map(line).collect::<Vec<_>>().join("\n"))
    }

    async fn tables(&self) -> Result<Vec<String>, EngineError> {
        let mut conn = self.conn().await?;
        self.in_time(async { conn.query("SHOW TABLES").await.map_err(failed) }).await
    }

    async fn columns(&self, table: &str) -> Result<Vec<Column>, EngineError> {
        let name = table.split('.').map(|part| format!("`{}`", part.replace('`', "``"))).collect::<Vec<_>>();
        self.check(&format!("SELECT * FROM {} LIMIT 0", name.join("."))).await
    }
}

impl MySql {
    /// Sends a query behind a word. `single`: the server is asked first whether it is one statement that gives rows, by its
    /// own grammar: it prepares no more than one, whatever else it would take.
    async fn rows(&self, sql: &str, single: bool, word: &str) -> Result<Rows, EngineError> {
        let mut conn = self.conn().await?;
        let (sender, batches) = mpsc::channel::<Result<Batch, EngineError>>(BATCHES_AHEAD);
        let (columns_sender, columns) = tokio::sync::oneshot::channel();
        let (text, query) = (format!("{word}{sql}"), single.then(|| sql.to_owned()));
        let timeout = self.options.timeout;
        tokio::spawn(async move {
            let read = async {
                if let Some(query) = query {
                    let statement = conn.prep(query).await.map_err(failed)?;
                    let gives_rows = !statement.columns().is_empty();
                    conn.close(statement).await.map_err(failed)?;
                    if !gives_rows {
                        return Err(EngineError::refused(
                            "this is no query",
                            "only SELECT and WITH … SELECT are",
                        ));
                    }
                }
                let mut result = conn.query_iter(text).await.map_err(failed)?;
                let columns: Vec<Column> = result.columns_ref().iter().map(described).collect();
                if columns_sender.send(columns.clone()).is_err() {
                    return Ok(());
                }
                let mut batch = Vec::new();
                while let Some(row) = result.next().await.map_err(failed)? {
                    let values: Result<Vec<Value>, EngineError> = row
                        .unwrap()
                        .into_iter()
                        .zip(&columns)
                        .map(|(cell, column)| value(cell, column))
                        .collect();
                    batch.push(values?);
                    if batch.len() == ROWS_OF_BATCH_MAX
                        && sender.send(Ok(std::mem::take(&mut batch))).await.is_err()
                    {
                        return Ok(());
                    }
                }
                if !batch.is_empty() {
                    let _ = sender.send(Ok(batch)).await;
                }
                let _ = sender.send(Ok(END)).await;
                Ok(())
            };
            let ended = tokio::time::timeout(timeout, read).await;
            let ended = ended
                .unwrap_or_else(|_| Err(EngineError::Stopped(format!("it took longer than {timeout:?}"))));
            if let Err(error) = ended {
                let _ = sender.send(Err(error)).await;
            }
        });
        let mut batches = batches;
        match columns.await {
            Ok(columns) => Ok(Rows::new(columns, batches, None)),
            // The error came instead.
            Err(_) => match batches.recv().await {
                Some(Err(error)) => Err(error),
                _ => Err(EngineError::Internal("the query ended without an answer".into())),
            },
        }
    }
}

/// A column of a result.
fn described(column: &mysql_async::Column) -> Column {
    let unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
    let binary = column.character_set() == BINARY;
    let fsp = match column.decimals() {
        digits @ 0..=6 => digits,
        _ => 0,
    };
    let width = column.column_length();
    let (ty, sql_type) = match column.column_type() {
        Wire::MYSQL_TYPE_TINY
        | Wire::MYSQL_TYPE_SHORT
        | Wire::MYSQL_TYPE_INT24
        | Wire::MYSQL_TYPE_LONG
        | Wire::MYSQL_TYPE_LONGLONG => {
            (ColumnType::BigInt { unsigned }, if unsigned { "bigint unsigned" } else { "bigint" }.to_owned())
        }
        Wire::MYSQL_TYPE_DECIMAL | Wire::MYSQL_TYPE_NEWDECIMAL => {
            let scale = column.decimals().min(30);
            // The width counts a sign and a point.
            let digits = width.saturating_sub(u32::from(!unsigned) + u32::from(scale > 0)).clamp(1, 65) as u8;
            let precision = digits.max(scale);
            (ColumnType::Decimal { precision, scale }, format!("decimal({precision},{scale})"))
        }
        Wire::MYSQL_TYPE_FLOAT => (ColumnType::Float, "float".into()),
        Wire::MYSQL_TYPE_DOUBLE => (ColumnType::Double, "double".into()),
        Wire::MYSQL_TYPE_DATE | Wire::MYSQL_TYPE_NEWDATE => (ColumnType::Date, "date".into()),
        Wire::MYSQL_TYPE_TIME | Wire::MYSQL_TYPE_TIME2 => (ColumnType::Time { fsp }, "time".into()),
        Wire::MYSQL_TYPE_DATETIME
        | Wire::MYSQL_TYPE_DATETIME2
        | Wire::MYSQL_TYPE_TIMESTAMP
        | Wire::MYSQL_TYPE_TIMESTAMP2 => (ColumnType::DateTime { fsp }, "datetime".into()),
        Wire::MYSQL_TYPE_YEAR => (ColumnType::Year, "year".into()),
        Wire::MYSQL_TYPE_BIT => (ColumnType::Bit { bits: 64 }, "bit".into()),
        Wire::MYSQL_TYPE_JSON => (ColumnType::Json, "json".into()),
        Wire::MYSQL_TYPE_GEOMETRY => (ColumnType::Geometry, "geometry".into()),
        _ if binary && column.column_type() != Wire::MYSQL_TYPE_NULL => {
            (ColumnType::VarBinary { bytes_max: u64::from(width) }, "varbinary".into())
        }
        _ => (ColumnType::Text { chars_max: u64::from(width) / 4 }, "varchar".into()),
    };
    Column {
        name: column.name_str().into_owned(),
        ty,
        sql_type,
        nullable: !column.flags().contains(ColumnFlags::NOT_NULL_FLAG),
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    }
}

/// A value of the text protocol.
fn value(cell: Cell, column: &Column) -> Result<Value, EngineError> {
    let bytes = match cell {
        Cell::NULL => return Ok(Value::Null),
        Cell::Bytes(bytes) => bytes,
        Cell::Int(v) => return Ok(Value::Int(v)),
        Cell::UInt(v) => return Ok(Value::UInt(v)),
        Cell::Float(v) => return Ok(Value::Float(v)),
        Cell::Double(v) => return Ok(Value::Double(v)),
        other => return Err(EngineError::Internal(format!("{other:?} in a text result"))),
    };
    if matches!(column.ty, ColumnType::VarBinary { .. } | ColumnType::Bit { .. } | ColumnType::Geometry) {
        return Ok(Value::Bytes(bytes));
    }
    let text = String::from_utf8(bytes).map_err(|_| EngineError::Internal("a text is not UTF-8".into()))?;
    let wrong = || EngineError::Internal(format!("`{text}` is no {}", column.sql_type));
    Ok(match column.ty {
        ColumnType::BigInt { unsigned: false } => Value::Int(text.parse().map_err(|_| wrong())?),
        ColumnType::BigInt { unsigned: true } => Value::UInt(text.parse().map_err(|_| wrong())?),
        ColumnType::Decimal { .. } => Value::Decimal(text),
        ColumnType::Float => Value::Float(text.parse().map_err(|_| wrong())?),
        ColumnType::Double => Value::Double(text.parse().map_err(|_| wrong())?),
        ColumnType::Year => Value::Year(text.parse().map_err(|_| wrong())?),
        ColumnType::Date => Value::Date(expr::parse_date_text(&text).ok_or_else(wrong)?),
        ColumnType::DateTime { .. } => {
            Value::DateTime(expr::temporal::parse_datetime_text(&text).ok_or_else(wrong)?.0)
        }
        ColumnType::Time { .. } => Value::Time(time_micros(&text).ok_or_else(wrong)?),
        ColumnType::Json => Value::Json(text),
        _ => Value::Text(text),
    })
}

/// `[-]HHH:MM:SS[.ffffff]`
fn time_micros(text: &str) -> Option<i64> {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let mut parts = whole.split(':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(sign * ((hours * 3600 + minutes * 60 + seconds) * 1_000_000 + micros))
}
