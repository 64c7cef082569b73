//! The rows of a table in MySQL, MariaDB or TiDB.

use super::{Copy, Cursor, Described, described};
use crate::capture::CaptureError;
use crate::capture::mysql::check::{Server, inspect};
use crate::capture::mysql::connect::reading_session;
use crate::capture::mysql::schema::{quote_name, read_tables};
use crate::capture::mysql::snapshot::{encode, push_after_key, quoted, select_list};
use crate::config::SinkConfig;
use crate::sinks::mysql::{CONNECT_TIMEOUT, KEEPALIVE};
use crate::verify::origin::database::uncomparable;
use crate::verify::{Cells, Key, Pair, Sum, VerifyError, cell, keys_condition, sink_error, text_of};
use async_trait::async_trait;
use base::{Column, ColumnType, RowBuf, Table, TableName, Value};
use futures_util::TryStreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

pub struct Sql {
    conn: Conn,
    server: Server,
}

fn capture_error(error: CaptureError) -> VerifyError {
    sink_error(&error)
}

fn sql_error(error: mysql_async::Error) -> VerifyError {
    sink_error(&error)
}

impl Sql {
    pub async fn connect(sink: &SinkConfig) -> Result<Self, VerifyError> {
        let url = sink.url.as_ref().ok_or_else(super::placeless)?;
        let opts = Opts::from_url(url.expose())
            .map_err(|_| VerifyError::Sink { message: "its url is not a MySQL URL".to_owned() })?;
        let opts: Opts = OptsBuilder::from_opts(opts)
            .db_name(None::<String>)
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .into();
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(opts)).await;
        let silent = |_| VerifyError::Sink { message: "no answer to the connection".to_owned() };
        let mut conn = connecting.map_err(silent)?.map_err(sql_error)?;
        let (server, _) = inspect(&mut conn).await.map_err(capture_error)?;
        reading_session(&mut conn).await.map_err(capture_error)?;
        Ok(Self { conn, server })
    }
}

#[async_trait]
impl Copy for Sql {
    async fn describe(&mut self, table: &Arc<Table>) -> Result<Described, VerifyError> {
        let server = &self.server;
        let lower = server.lower_case_table_names != 0;
        let same = |name: &TableName| {
            *name == table.name
                || lower
                    && name.db.eq_ignore_ascii_case(&table.name.db)
                    && name.table.eq_ignore_ascii_case(&table.name.table)
        };
        let found = read_tables(&mut self.conn, server, same).await.map_err(capture_error)?;
        match found.into_values().next() {
            None => Ok(described(table, None)),
            Some(Ok(live)) => Ok(described(table, Some(&live.table))),
            Some(Err(reason)) => {
                Err(VerifyError::Sink { message: format!("table `{}`: {reason}", table.name) })
            }
        }
    }

    fn key(&self, pair: &Pair, row: &[Value]) -> Key {
        let table = pair.target();
        let values = pair.key_values(row);
        let indexes = table.key.iter().zip(&values);
        let cells =
            indexes.map(|(index, value)| cell(value, &table.columns[*index], pair.declared[*index].as_ref()));
        Key::of_values(text_of(&cells.collect()), values)
    }

    fn expected(&self, pair: &Pair, row: &[Value]) -> Cells {
        let columns = pair.target().columns.iter().zip(&pair.declared);
        row.iter()
            .zip(columns)
            .map(|(value, (column, declared))| cell(value, column, declared.as_ref()))
            .collect()
    }

    async fn rows(&mut self, pair: &Pair, keys: &[&Key]) -> Result<HashMap<String, Cells>, VerifyError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let (table, server) = (pair.target(), &self.server);
        let keys: Vec<&[Value]> = keys.iter().map(|key| &key.values[..]).collect();
        let shape = as_declared(table, &pair.declared);
        let columns: Vec<&Column> = shape.key.iter().map(|index| &shape.columns[*index]).collect();
        let (condition, params) = keys_condition(&columns, &keys).ok_or_else(|| uncomparable(table))?;
        let flavor = server.flavor();
        let sql =
            format!("SELECT {} FROM {} WHERE {condition}", select_list(&shape, flavor), quoted(&shape.name));
        let rows: Vec<Row> = self.conn.exec(sql, params).await.map_err(sql_error)?;
        let mut out = HashMap::with_capacity(rows.len());
        for row in rows {
            let row = encode(&row, &shape, flavor).map_err(capture_error)?;
            let values = row.view().values().map_err(|e| sink_error(&e))?;
            let key = shape.key.iter().map(|index| values[*index].clone()).collect();
            out.insert(key_in_sink(pair, key).text, cells_of(&values, table, &shape));
        }
        Ok(out)
    }

    async fn keys(
        &mut self,
        pair: &Pair,
        after: Option<Cursor>,
        limit: u64,
    ) -> Result<(Vec<Key>, Option<Cursor>), VerifyError> {
        let (table, server) = (pair.target(), &self.server);
        let shape = only_key(&as_declared(table, &pair.declared));
        let flavor = server.flavor();
        let mut sql = format!("SELECT {} FROM {}", select_list(&shape, flavor), quoted(&shape.name));
        let mut params = Vec::new();
        if let Some(Cursor::Key(key)) = &after {
            sql.push_str(" WHERE ");
            push_after_key(&mut sql, &mut params, &shape, key).map_err(capture_error)?;
        }
        let order: Vec<_> = shape.columns.iter().map(|column| quote_name(&column.name)).collect();
        let _ = write!(sql, " ORDER BY {} LIMIT {limit}", order.join(", "));
        let params = if params.is_empty() { mysql_async::Params::Empty } else { params.into() };
        let rows: Vec<Row> = self.conn.exec(sql, params).await.map_err(sql_error)?;
        let rows: Vec<RowBuf> = rows
            .iter()
            .map(|row| encode(row, &shape, flavor).map_err(capture_error))
            .collect::<Result<_, _>>()?;
        let keys: Result<Vec<_>, _> = rows.iter().map(|row| row.view().values()).collect();
        let keys = keys.map_err(|e| sink_error(&e))?;
        let full = rows.len() as u64 == limit;
        let last = rows.into_iter().next_back().filter(|_| full);
        Ok((keys.into_iter().map(|key| key_in_sink(pair, key)).collect(), last.map(Cursor::Key)))
    }

    async fn sum(&mut self, pair: &Pair) -> Result<Sum, VerifyError> {
        let mut sum = Sum::default();
        let (table, server) = (pair.target(), &self.server);
        let shape = as_declared(table, &pair.declared);
        let flavor = server.flavor();
        let sql = format!("SELECT {} FROM {}", select_list(&shape, flavor), quoted(&shape.name));
        let mut result = self.conn.exec_iter(sql, ()).await.map_err(sql_error)?;
        if let Some(mut rows) = result.stream::<Row>().await.map_err(sql_error)? {
            while let Some(row) = rows.try_next().await.map_err(sql_error)? {
                let row = encode(&row, &shape, flavor).map_err(capture_error)?;
                let values = row.view().values().map_err(|e| sink_error(&e))?;
                sum.add(&cells_of(&values, table, &shape));
            }
        }
        Ok(sum)
    }
}

/// The key of a row of the sink, from its values there.
fn key_in_sink(pair: &Pair, values: Vec<Value>) -> Key {
    let table = pair.target();
    let indexes = table.key.iter().zip(&values);
    let cells = indexes.map(|(index, value)| match (&table.columns[*index], &pair.declared[*index]) {
        (own, Some(declared)) => sql_cell(value, own, declared),
        (own, None) => cell(value, own, None),
    });
    Key::of_values(text_of(&cells.collect()), values)
}

/// The flow's table with the columns as the sink declares them.
fn as_declared(table: &Table, declared: &[Option<Column>]) -> Table {
    let columns = table.columns.iter().zip(declared);
    let columns = columns.map(|(own, declared)| declared.clone().unwrap_or_else(|| own.clone())).collect();
    Table { columns, ..table.clone() }
}

fn only_key(table: &Table) -> Table {
    let columns: Vec<Column> = table.key.iter().map(|index| table.columns[*index].clone()).collect();
    Table { key: (0..columns.len()).collect(), columns, unique_keys: Vec::new(), ..table.clone() }
}

/// A row of the sink, in the form that is compared.
fn cells_of(values: &[Value], table: &Table, shape: &Table) -> Cells {
    let columns = table.columns.iter().zip(&shape.columns);
    values.iter().zip(columns).map(|(value, (own, declared))| sql_cell(value, own, declared)).collect()
}

/// A value of the sink's column `declared`, which stands for the flow's column `own`.
fn sql_cell(value: &Value, own: &Column, declared: &Column) -> Option<String> {
    match value {
        Value::Text(text) if own.ty == ColumnType::Json => {
            cell(&Value::Json(text.clone()), own, Some(declared))
        }
        value => cell(value, declared, Some(declared)),
    }
}
