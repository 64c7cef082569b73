//! Debezium's envelope, with its schema or without. Heartbeats, schema changes and transaction metadata hold no row.

use super::cells::{self, Cells, number, object, text, unwrapped};
use super::{Decoded, Schemas, Told};
use base::{Op, TableName};

pub fn decode<'a>(
    key: Option<&'a [u8]>,
    value: Cells<'a>,
    schemas: &mut Schemas,
) -> Result<Option<Decoded<'a>>, String> {
    let (schema, payload) = unwrapped(value)?;
    let Some(payload) = payload else { return Ok(None) };
    let Some(op) = text(&payload, "op") else {
        // What the connector writes besides rows.
        let beside = ["ddl", "tableChanges", "status"].iter().any(|name| payload.get(name).is_some());
        let heartbeat = payload.0.len() == 1 && payload.get("ts_ms").is_some();
        return if beside || heartbeat { Ok(None) } else { Err("it has no `op` of Debezium".into()) };
    };
    let op = match &*op {
        "r" => Op::Read,
        "c" => Op::Insert,
        "u" => Op::Update,
        "d" => Op::Delete,
        "t" => Op::Truncate,
        "m" => return Ok(None),
        other => return Err(format!("its `op` is `{other}`, which Debezium does not have")),
    };
    let source = object(&payload, "source")?.ok_or("it has no `source`")?;
    let key = key.map(|key| cells::parse_knowing(key, "key", &schemas.0)).transpose()?;
    let (key_schema, key) = key.map(unwrapped).transpose()?.unwrap_or_default();
    if let Some(schema) = key_schema {
        schemas.note(schema);
    }
    let (mut before, after) = (object(&payload, "before")?, object(&payload, "after")?);
    if op == Op::Delete && before.is_none() {
        // The key is all that is known of the row.
        before.clone_from(&key);
    }
    Ok(Some(Decoded {
        name: name(&source)?,
        op,
        before,
        after,
        key: key.map(|key| key.names()),
        told: schema.and_then(|schema| schemas.row_of(schema)).map_or(Told::Nothing, Told::Connect),
        ts_ms: number(&source, "ts_ms").filter(|ts| *ts > 0).or_else(|| number(&payload, "ts_ms")),
        txn: transaction(&source),
        last: false,
    }))
}

/// Where databases have schemas, tables go by these: their topics are of one database.
fn name(source: &Cells<'_>) -> Result<TableName, String> {
    let part = |name: &str| text(source, name).filter(|text| !text.is_empty()).map(|text| text.into_owned());
    let db = part("schema").or_else(|| part("db")).ok_or("its `source` has no `db`")?;
    Ok(TableName { db, table: part("table").ok_or("its `source` has no `table`")? })
}

fn transaction(source: &Cells<'_>) -> Option<String> {
    let gtid = text(source, "gtid").filter(|text| !text.is_empty()).map(|text| text.into_owned());
    gtid.or_else(|| source.get("txId").filter(|raw| !cells::is_null(*raw)).map(|raw| raw.get().to_owned()))
}
