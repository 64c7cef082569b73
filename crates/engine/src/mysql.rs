//! The engine on a MySQL or TiDB server: the same statements, sent as they are, in sessions of known modes.

use crate::catalogue::TableDef;
use crate::deep;
use crate::error::EngineError;
use crate::held::Held;
use crate::load::{self, Write};
use crate::lookup::{Lookup, Origin, Shape};
use crate::parse::check_query;
use crate::rows::{BATCHES_AHEAD, Batch, END, Filling, Rows, check_row};
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
/// Parameters of one statement; the protocol has 65,535.
const PARAMETERS_MAX: usize = 16_384;
/// Rows of one statement, so that few forms of it are prepared.
const ROWS_OF_STATEMENT_MAX: usize = 512;
/// Rows of one DELETE: its condition grows with them.
const ROWS_OF_DELETE_MAX: usize = 128;
/// Databases of a server that hold no datasets; the first is the one that everybody may read.
const SYSTEM: &[&str] = &["information_schema", "mysql", "performance_schema", "sys", "metrics_schema"];
/// The character set of binary columns.
const BINARY: u16 = 63;
/// What a server is told that shall only be read.
const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY";
/// "This version does not yet support": TiDB has no [`READ_ONLY`].
const UNSUPPORTED: u16 = 1235;

/// The engine on a server.
pub struct MySql {
    pool: Pool,
    /// Of connections beside the pool.
    opts: Opts,
    options: Options,
}

impl MySql {
    /// Connects once, so that a wrong address or password is told now.
    pub async fn open(url: &str, options: Options) -> Result<Self, EngineError> {
        // The address may hold a password, so that it is never shown.
        let opts = Opts::from_url(url).map_err(|_| {
            EngineError::refused("the engine's address cannot be read", "write mysql://user@host:4000/dw")
        })?;
        let opts = Opts::from(OptsBuilder::from_opts(opts).prefer_socket(false));
        let constraints = PoolConstraints::new(0, CONNECTIONS_MAX)
            .ok_or_else(|| EngineError::Internal("the pool's bounds are wrong".into()))?;
        let pooled = |setup: Vec<&str>| {
            let pooled = OptsBuilder::from_opts(opts.clone())
                .pool_opts(PoolOpts::default().with_constraints(constraints))
                .setup(setup);
            Self { pool: Pool::new(pooled), opts: opts.clone(), options: options.clone() }
        };
        let engine = pooled(SESSION.to_vec());
        let mut held = engine.held().await?;
        let answer = engine
            .in_time(async {
                let conn = held.conn()?;
                conn.ping().await.map_err(failed)?;
                if engine.options.read_only {
                    conn.query_drop(READ_ONLY).await.map_err(failed)?;
                }
                Ok(())
            })
            .await;
        match held.ended(answer) {
            Ok(()) if engine.options.read_only => {
                Ok(pooled(SESSION.into_iter().chain([READ_ONLY]).collect()))
            }
            Ok(()) => Ok(engine),
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

    async fn held(&self) -> Result<Held, EngineError> {
        let conn = self.in_time(async { self.pool.get_conn().await.map_err(failed) }).await?;
        Ok(Held::new(conn, self.opts.clone()))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
        tokio::time::timeout(self.options.timeout, work).await.unwrap_or_else(|_| {
            Err(EngineError::Stopped(format!("it took longer than {:?}", self.options.timeout)))
        })
    }
}

/// Makes a database the current one: that of the session, or the address's own. A connection comes with whatever the one before
/// had chosen.
async fn enter(conn: &mut Conn, dataset: Option<&str>) -> Result<(), EngineError> {
    let own = conn.opts().db_name().map(str::to_owned);
    match dataset.map(str::to_owned).or(own) {
        Some(name) => conn.query_drop(format!("USE `{}`", name.replace('`', "``"))).await.map_err(failed),
        None => Ok(()),
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
        let mut held = self.held().await?;
        let done = self
            .in_time(async {
                let conn = held.conn()?;
                conn.query_drop(sql).await.map_err(failed)?;
                Ok(conn.affected_rows())
            })
            .await;
        held.ended(done)
    }

    async fn execute_all(&self, statements: &[String]) -> Result<u64, EngineError> {
        self.admit_write()?;
        let mut held = self.held().await?;
        let done = self
            .in_time(async {
                let mut transaction =
                    held.conn()?.start_transaction(TxOpts::default()).await.map_err(failed)?;
                let mut affected = 0;
                for sql in statements {
                    transaction.query_drop(sql).await.map_err(failed)?;
                    affected += transaction.affected_rows();
                }
                transaction.commit().await.map_err(failed)?;
                Ok(affected)
            })
            .await;
        held.ended(done)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<u64, EngineError> {
        self.admit_write()?;
        let mut held = self.held().await?;
        let done = self
            .in_time(async {
                let mut transaction =
                    held.conn()?.start_transaction(TxOpts::default()).await.map_err(failed)?;
                let mut done = 0;
                for write in writes {
                    let (table, columns, rows, put) = match write {
                        Write::Sql(sql) => {
                            transaction.query_drop(sql).await.map_err(failed)?;
                            done += transaction.affected_rows();
                            continue;
                        }
                        Write::Put { table, columns, rows, replace } => (table, columns, rows, Some(replace)),
                        Write::Delete { table, columns, rows } => (table, columns, rows, None),
                    };
                    let most = if put.is_some() { ROWS_OF_STATEMENT_MAX } else { ROWS_OF_DELETE_MAX };
                    let most = (PARAMETERS_MAX / columns.len().max(1)).clamp(1, most);
                    let mut rows = rows.into_iter();
                    loop {
                        let part: Vec<Vec<Value>> = rows.by_ref().take(most).collect();
                        if part.is_empty() {
                            break;
                        }
                        let sql = match put {
                            Some(replace) => load::put_many_sql(&table, &columns, replace, part.len()),
                            None => load::delete_many_sql(&table, &columns, part.len()),
                        };
                        let count = part.len() as u64;
                        let mut parameters = Vec::with_capacity(part.len() * columns.len());
                        for row in part {
                            load::check_width(&row, &columns)?;
                            let row = row.into_iter().zip(&columns);
                            parameters.extend(row.map(|(value, column)| load::parameter(value, column)));
                        }
                        transaction.exec_drop(sql, parameters).await.map_err(failed)?;
                        // REPLACE counts the row that went too.
                        done += if put.is_some() { count } else { transaction.affected_rows() };
                    }
                }
                transaction.commit().await.map_err(failed)?;
                Ok(done)
            })
            .await;
        held.ended(done)
    }

    async fn prepare_dataset(&self, dataset: &str) -> Result<(), EngineError> {
        let sql = format!("CREATE DATABASE IF NOT EXISTS {} CHARACTER SET utf8mb4", load::name_sql(dataset));
        self.execute(&sql).await.map(|_| ())
    }

    async fn prepare_own(&self, table: &str, columns: &[Column], key: &[String]) -> Result<(), EngineError> {
        let sql =
            load::create_sql(table, columns, key).replacen("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1);
        self.execute(&sql).await.map(|_| ())
    }

    async fn query(&self, sql: &str) -> Result<Rows, EngineError> {
        self.query_in(sql, &Lookup::default()).await
    }

    async fn query_in(&self, sql: &str, lookup: &Lookup) -> Result<Rows, EngineError> {
        self.admit(sql).await?;
        self.rows(sql, self.options.read_only, "", lookup.dataset.as_deref()).await
    }

    async fn check(&self, sql: &str) -> Result<Vec<Column>, EngineError> {
        Ok(self.check_in(sql, &Lookup::default()).await?.columns)
    }

    async fn check_in(&self, sql: &str, lookup: &Lookup) -> Result<Shape, EngineError> {
        self.admit(sql).await?;
        let mut held = self.held().await?;
        let shape = self
            .in_time(async {
                let conn = held.conn()?;
                enter(conn, lookup.dataset.as_deref()).await?;
                let statement = conn.prep(sql).await.map_err(failed)?;
                let shape = shape(&statement.columns());
                conn.close(statement).await.map_err(failed)?;
                Ok(shape)
            })
            .await;
        held.ended(shape)
    }

    async fn definitions(&self) -> Result<Option<Vec<TableDef>>, EngineError> {
        Ok(None)
    }

    async fn explain(&self, sql: &str) -> Result<String, EngineError> {
        self.explain_in(sql, &Lookup::default()).await
    }

    fn system_datasets(&self) -> &'static [&'static str] {
        &SYSTEM[1..]
    }

    async fn explain_in(&self, sql: &str, lookup: &Lookup) -> Result<String, EngineError> {
        checked(sql).await?;
        let rows = self.rows(sql, true, "EXPLAIN ", lookup.dataset.as_deref()).await?;
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
        let mut held = self.held().await?;
        let named = self
            .in_time(async {
                let sql = "SELECT TABLE_SCHEMA, TABLE_NAME, DATABASE() FROM information_schema.TABLES";
                held.conn()?.query::<(String, String, Option<String>), _>(sql).await.map_err(failed)
            })
            .await;
        let named = held
            .ended(named)?
            .into_iter()
            .filter(|(schema, ..)| !SYSTEM.iter().any(|system| system.eq_ignore_ascii_case(schema)));
        let mut names: Vec<String> = named
            .map(|(schema, table, own)| match own {
                Some(own) if own == schema => table,
                _ => format!("{schema}.{table}"),
            })
            .collect();
        names.retain(|name| !load::is_own(name));
        names.sort();
        Ok(names)
    }

    async fn columns(&self, table: &str) -> Result<Vec<Column>, EngineError> {
        let name = table.split('.').map(|part| format!("`{}`", part.replace('`', "``"))).collect::<Vec<_>>();
        self.check(&format!("SELECT * FROM {} LIMIT 0", name.join("."))).await
    }
}

impl MySql {
    /// Sends a query behind a word. `single`: the server is asked first whether it is one statement that gives rows, by its
    /// own grammar: it prepares no more than one, whatever else it would take.
    async fn rows(
        &self,
        sql: &str,
        single: bool,
        word: &str,
        dataset: Option<&str>,
    ) -> Result<Rows, EngineError> {
        let mut held = self.held().await?;
        let dataset = dataset.map(str::to_owned);
        let (sender, batches) = mpsc::channel::<Result<Batch, EngineError>>(BATCHES_AHEAD);
        let (columns_sender, columns) = tokio::sync::oneshot::channel();
        let (text, query) = (format!("{word}{sql}"), single.then(|| sql.to_owned()));
        let timeout = self.options.timeout;
        // Dropped by who waits for columns or rows: then the server is told to stop.
        let (waiting, gone) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(async move {
            // The last statement was answered to its end.
            let mut at_rest = false;
            let read = async {
                let conn = held.conn()?;
                enter(conn, dataset.as_deref()).await?;
                if let Some(query) = query {
                    let statement = conn.prep(query).await.map_err(failed)?;
                    let gives_rows = !statement.columns().is_empty();
                    conn.close(statement).await.map_err(failed)?;
                    if !gives_rows {
                        at_rest = true;
                        return Err(EngineError::refused(
                            "this is no query",
                            "only SELECT and WITH … SELECT are",
                        ));
                    }
                }
                let mut result = conn.query_iter(text).await.map_err(failed)?;
                let shape = shape(result.columns_ref());
                let columns = shape.columns.clone();
                if columns_sender.send(shape).is_err() {
                    return Ok(());
                }
                let mut filling = Filling::default();
                while let Some(row) = result.next().await.map_err(failed)? {
                    let cells = row.unwrap();
                    let bytes =
                        cells.iter().map(|it| if let Cell::Bytes(it) = it { it.len() } else { 0 }).sum();
                    check_row(bytes)?;
                    let values: Result<Vec<Value>, EngineError> =
                        cells.into_iter().zip(&columns).map(|(cell, column)| value(cell, column)).collect();
                    if let Some(batch) = filling.push(values?, bytes)
                        && sender.send(Ok(batch)).await.is_err()
                    {
                        return Ok(());
                    }
                }
                at_rest = true;
                if let Some(batch) = filling.rest() {
                    let _ = sender.send(Ok(batch)).await;
                }
                let _ = sender.send(Ok(END)).await;
                Ok(())
            };
            let ended = tokio::select! {
                biased;
                ended = tokio::time::timeout(timeout, read) => Some(ended),
                _ = gone => None,
            };
            if at_rest || matches!(ended, Some(Ok(Err(EngineError::Sql { .. })))) {
                held.release();
            } else {
                drop(held);
            }
            let Some(ended) = ended else { return };
            let ended = ended
                .unwrap_or_else(|_| Err(EngineError::Stopped(format!("it took longer than {timeout:?}"))));
            if let Err(error) = ended {
                let _ = sender.send(Err(error)).await;
            }
        });
        let mut batches = batches;
        match columns.await {
            Ok(Shape { columns, origins }) => {
                let stop = Box::new(move || drop(waiting));
                Ok(Rows::new(columns, batches, Some(stop)).with_origins(origins))
            }
            // The error came instead.
            Err(_) => match batches.recv().await {
                Some(Err(error)) => Err(error),
                _ => Err(EngineError::Internal("the query ended without an answer".into())),
            },
        }
    }
}

fn shape(columns: &[mysql_async::Column]) -> Shape {
    Shape {
        columns: columns.iter().map(described).collect(),
        origins: columns.iter().map(|it| Some(origin(it))).collect(),
    }
}

/// What the server says of a column's own type, which [`described`] leaves out where it reads values alike.
fn origin(column: &mysql_async::Column) -> Origin {
    let flags = column.flags();
    let unsigned = flags.contains(ColumnFlags::UNSIGNED_FLAG);
    let (binary, width) = (column.character_set() == BINARY, u64::from(column.column_length()));
    let mut own = described(column);
    let sign = if unsigned { " unsigned" } else { "" };
    let text = |name: &str, blob: &str| {
        if binary {
            (ColumnType::VarBinary { bytes_max: width }, format!("{blob}({width})"))
        } else {
            (ColumnType::Text { chars_max: width / 4 }, format!("{name}({})", width / 4))
        }
    };
    let (ty, sql_type) = match column.column_type() {
        Wire::MYSQL_TYPE_TINY if width == 1 => (ColumnType::TinyInt { unsigned }, "tinyint(1)".to_owned()),
        Wire::MYSQL_TYPE_TINY => (ColumnType::TinyInt { unsigned }, format!("tinyint{sign}")),
        Wire::MYSQL_TYPE_SHORT => (ColumnType::SmallInt { unsigned }, format!("smallint{sign}")),
        Wire::MYSQL_TYPE_INT24 => (ColumnType::MediumInt { unsigned }, format!("mediumint{sign}")),
        Wire::MYSQL_TYPE_LONG => (ColumnType::Int { unsigned }, format!("int{sign}")),
        Wire::MYSQL_TYPE_TIMESTAMP | Wire::MYSQL_TYPE_TIMESTAMP2 => (own.ty, "timestamp".into()),
        Wire::MYSQL_TYPE_VAR_STRING | Wire::MYSQL_TYPE_VARCHAR => text("varchar", "varbinary"),
        Wire::MYSQL_TYPE_STRING if flags.contains(ColumnFlags::ENUM_FLAG) => (own.ty, "enum".into()),
        Wire::MYSQL_TYPE_STRING if flags.contains(ColumnFlags::SET_FLAG) => (own.ty, "set".into()),
        Wire::MYSQL_TYPE_STRING => text("char", "binary"),
        Wire::MYSQL_TYPE_BLOB => {
            let name = if binary { "blob" } else { "text" };
            (own.ty, format!("{}{name}", if width > 0xff_ffff { "long" } else { "" }))
        }
        _ => (own.ty, own.sql_type),
    };
    (own.ty, own.sql_type) = (ty, sql_type);
    own.name = column.org_name_str().into_owned();
    Origin {
        dataset: column.schema_str().into_owned(),
        table: column.org_table_str().into_owned(),
        alias: column.table_str().into_owned(),
        primary_key: flags.contains(ColumnFlags::PRI_KEY_FLAG),
        auto_increment: flags.contains(ColumnFlags::AUTO_INCREMENT_FLAG),
        column: own,
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
