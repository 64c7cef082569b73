//! Our own format. DDL is passed over: rows tell their columns.

use super::cells::{Cells, number, object, text};
use super::{Decoded, Told, table_name};
use base::Op;

pub fn decode<'a>(message: &Cells<'a>) -> Result<Option<Decoded<'a>>, String> {
    if message.get("ref").is_some() {
        return Err("it is a row by reference: too large for the topic that it was sent to".into());
    }
    let op = match text(message, "op").as_deref() {
        Some("read") => Op::Read,
        Some("insert") => Op::Insert,
        Some("update") => Op::Update,
        Some("delete") => Op::Delete,
        Some("truncate") => Op::Truncate,
        Some("ddl") => return Ok(None),
        _ => return Err("it has no `op` of the json format".into()),
    };
    let txn = object(message, "txn")?;
    let last = txn.as_ref().and_then(|txn| txn.get("last")).is_none_or(|last| last.get() == "true");
    Ok(Some(Decoded {
        name: table_name(message, "db", "table")?,
        op,
        before: object(message, "before")?,
        after: object(message, "after")?,
        key: object(message, "key")?.map(|key| key.names()),
        told: Told::Nothing,
        ts_ms: number(message, "ts_ms"),
        txn: txn.as_ref().and_then(|txn| text(txn, "id")).map(std::borrow::Cow::into_owned),
        last,
    }))
}
