//! Rows that are read again by their keys, and enter the journal as a snapshot's chunk does: framed by marks, between two
//! transactions, and only where the stream has not changed them meanwhile. `window` says why that is exact.
//!
//! A key whose row is not there is journaled as a delete where that was asked for: the server has said that it has none.

use super::connect::reading_session;
use super::snapshot::{Message, Reader, is_redefined, row_key};
use super::window::Mark;
use crate::capture::CaptureError;
use crate::formats::decode::cells::Raw;
use crate::formats::decode::value::{Wire, decode};
use base::{Position, RowBuf, Table, TableName, Value};
use mysql_async::Conn;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Keys of one request.
pub const KEYS_MAX: usize = 1000;
/// Requests that wait.
pub const REQUESTS_MAX: usize = 4;
/// Keys of one query.
const KEYS_PER_QUERY: usize = 250;

/// The values of a key, as our JSON writes them, by the source's columns.
pub type KeyText = BTreeMap<String, Box<RawValue>>;

/// The reason why nothing was journaled completes "failed to repair …".
pub type Answer = oneshot::Sender<Result<Repaired, String>>;

/// Rows that are to be journaled again.
pub struct Repair {
    pub table: TableName,
    pub keys: Vec<KeyText>,
    /// Whether rows that the source has not are journaled as deleted.
    pub deletes: bool,
    pub reply: Answer,
}

/// What is durable in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repaired {
    pub rows: u64,
    pub deleted: u64,
    /// At or before which lsn all of it is.
    pub lsn: u64,
}

/// The stream's answer to a reader that is about to look.
pub struct Look {
    pub table: Arc<Table>,
    /// Tells it from others at the same table.
    pub number: u64,
    /// What the stream has processed: the low mark must cover it.
    pub processed: Position,
}

/// What a reader found.
pub struct Looked {
    pub look: Look,
    pub rows: Vec<RowBuf>,
    /// Keys without a row, in `row_key`'s form.
    pub absent: Vec<Vec<u8>>,
    pub low: Mark,
    pub high: Mark,
    pub reply: Answer,
}

/// Answers one request; the stream gives the answer when there is something to journal.
pub async fn run(reader: Reader, repair: Repair) {
    let Repair { table: name, keys, deletes, reply } = repair;
    let refuse = |reply: Answer, reason| drop(reply.send(Err(reason)));
    // Connected first: what the stream notes for us is bounded.
    let mut conn = match connect(&reader).await {
        Ok(conn) => conn,
        Err(error) => return refuse(reply, base::error::chain(&error)),
    };
    let (sender, begin) = oneshot::channel();
    let asked = reader.stream.send(Message::Look { table: name.clone(), reply: sender }).await;
    let look = match begin.await {
        Ok(Ok(look)) if asked.is_ok() => look,
        Ok(Err(reason)) => return refuse(reply, reason),
        _ => return refuse(reply, "the source is not connected: try again".to_owned()),
    };
    match read(&reader, &mut conn, &look, &keys, deletes).await {
        Ok((low, rows, absent, high)) => {
            let looked = Looked { look, rows, absent, low, high, reply };
            let _ = reader.stream.send(Message::Looked(Box::new(looked))).await;
        }
        Err(reason) => {
            let _ = reader.stream.send(Message::LookEnded { table: name, number: look.number }).await;
            refuse(reply, reason);
        }
    }
}

async fn connect(reader: &Reader) -> Result<Conn, CaptureError> {
    let mut conn = reader.address.connect().await?;
    reading_session(&mut conn).await?;
    Ok(conn)
}

type Found = (Mark, Vec<RowBuf>, Vec<Vec<u8>>, Mark);

async fn read(
    reader: &Reader,
    conn: &mut Conn,
    look: &Look,
    keys: &[KeyText],
    deletes: bool,
) -> Result<Found, String> {
    let failed = |error: CaptureError| {
        if is_redefined(&error) {
            return "its definition changes: try again".to_owned();
        }
        base::error::chain(&error)
    };
    let table = &look.table;
    let values: Vec<Vec<Value>> = keys.iter().map(|key| values_of(table, key)).collect::<Result<_, _>>()?;
    let low = reader.visible_mark(conn, &look.processed).await.map_err(failed)?;
    let mut rows = Vec::with_capacity(values.len());
    for part in values.chunks(KEYS_PER_QUERY) {
        let part: Vec<&[Value]> = part.iter().map(Vec::as_slice).collect();
        rows.extend(reader.select_keys(conn, table, &part).await.map_err(failed)?);
    }
    let mut absent = Vec::new();
    if deletes {
        let there: HashSet<Vec<u8>> = rows.iter().map(|row| row_key(table, row.view())).collect();
        for key in &values {
            let own = RowBuf::from_values(key.iter().map(Value::as_ref)).0;
            // What is another key in bytes may be the same to the server's collation.
            if !there.contains(&own)
                && reader.select_keys(conn, table, &[key]).await.map_err(failed)?.is_empty()
            {
                absent.push(own);
            }
        }
    }
    let high = reader.high_mark(conn, &low).await.map_err(failed)?;
    Ok((low, rows, absent, high))
}

/// A key's values, in the order of the table's key.
fn values_of(table: &Table, key: &KeyText) -> Result<Vec<Value>, String> {
    let column = |index: &usize| {
        let column = &table.columns[*index];
        let text =
            key.get(&column.name).ok_or_else(|| format!("a key lacks its column `{}`", column.name))?;
        let value = Raw::of(text.get())
            .and_then(|text| decode(text, column, Wire::Json))
            .filter(|value| !value.is_null());
        value.ok_or_else(|| format!("a key's `{}` is no {}", column.name, column.sql_type))
    };
    table.key.iter().map(column).collect()
}
