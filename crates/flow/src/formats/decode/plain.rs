//! Rows as plain objects, such as an application writes, or Debezium's `ExtractNewRecordState`; with Kafka Connect's schema
//! beside them or without.

use super::cells::{self, Cells, unwrapped};
use super::{Decoded, Incoming, Schemas, Told};
use base::{Op, TableName};

pub fn decode<'a>(message: Incoming<'a>, schemas: &mut Schemas) -> Result<Option<Decoded<'a>>, String> {
    let key = message.key.and_then(|key| cells::parse_knowing(key, "key", &schemas.0).ok());
    let (key_schema, key) = key.map(unwrapped).transpose()?.unwrap_or_default();
    let value = message.value.map(|value| cells::parse_knowing(value, "value", &schemas.0)).transpose()?;
    let (schema, row) = value.map(unwrapped).transpose()?.unwrap_or((None, None));
    for schema in [key_schema, schema].into_iter().flatten() {
        schemas.note(schema);
    }
    let (op, before, after) = match row {
        Some(row) => (Op::Insert, None, Some(row)),
        // Without a key that names columns, nobody can say which row is gone.
        None => match key.clone() {
            Some(key) => (Op::Delete, Some(key), None),
            None => return Ok(None),
        },
    };
    let names = key.map(|key: Cells<'_>| key.names());
    let names = names
        .filter(|names| after.as_ref().is_none_or(|row| names.iter().all(|name| row.get(name).is_some())));
    Ok(Some(Decoded {
        name: table_of(message.source, message.topic),
        op,
        before,
        after,
        key: names,
        told: schema.map_or(Told::Nothing, Told::Connect),
        ts_ms: None,
        txn: None,
        last: true,
    }))
}

/// The last two parts of a topic's name.
fn table_of(source: &str, topic: &str) -> TableName {
    let (rest, table) = topic.rsplit_once('.').unwrap_or(("", topic));
    let db = rest.rsplit('.').next().filter(|db| !db.is_empty()).unwrap_or(source);
    TableName::new(db, table)
}
