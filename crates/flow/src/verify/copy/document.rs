//! Rows that a sink keeps as texts: how they are compared, and which row of the source they say they are.

use super::Described;
use crate::formats::decode::cells::Raw;
use crate::formats::decode::value::{Wire, decode};
use crate::verify::Cells;
use base::{Column, ColumnType, Table, Value};
use serde_json::{Map, Value as Json};
use std::sync::Arc;

/// A table whose rows have a key, of which the sink keeps every column.
pub fn described(table: &Arc<Table>) -> Described {
    if table.key.is_empty() {
        let why = "it has no key: which row of the sink is which cannot be told";
        return Described::Unfit(why.to_owned());
    }
    Described::Table { declared: table.columns.iter().cloned().map(Some).collect(), keyed: true }
}

/// The flow's columns of an object. A member that is not there is NULL: it came to the table later.
pub fn cells(table: &Table, object: &Map<String, Json>) -> Cells {
    let cell = |column: &Column| object.get(&column.name).filter(|value| !value.is_null());
    table.columns.iter().map(|column| cell(column).map(Json::to_string)).collect()
}

/// Puts the documents of JSON columns in place of their texts: how these are spaced says nothing.
pub fn parse_documents(table: &Table, object: &mut Map<String, Json>) {
    for column in table.columns.iter().filter(|column| column.ty == ColumnType::Json) {
        let Some(member) = object.get_mut(&column.name) else { continue };
        if let Some(document) = member.as_str().and_then(|text| serde_json::from_str(text).ok()) {
            *member = document;
        }
    }
}

/// The flow's columns of a JSON text; as one text where it is no object.
pub fn cells_of_text(table: &Table, text: &[u8]) -> Cells {
    match serde_json::from_slice(text) {
        Ok(object) => cells(table, &object),
        Err(_) => unreadable(table, &String::from_utf8_lossy(text)),
    }
}

/// What is no row of ours, shown in each column.
pub fn unreadable(table: &Table, what: &str) -> Cells {
    table.columns.iter().map(|_| Some(what.to_owned())).collect()
}

/// The key of the row that an object says it is; empty when it names none.
pub fn key_values(table: &Table, object: &Map<String, Json>) -> Vec<Value> {
    of_key(table, |column| value(column, object, Wire::Json))
}

/// A member as the value of its column.
pub fn value(column: &Column, object: &Map<String, Json>, wire: Wire) -> Option<Value> {
    decode(Raw::of(&object.get(&column.name)?.to_string())?, column, wire)
}

/// The same of texts as Redis has them.
pub fn key_values_of_texts(table: &Table, text: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<Value> {
    of_key(table, |column| {
        let bytes = text(&column.name)?;
        if matches!(column.ty, ColumnType::Binary { .. } | ColumnType::VarBinary { .. }) {
            return Some(Value::Bytes(bytes));
        }
        let text = serde_json::to_string(std::str::from_utf8(&bytes).ok()?).ok()?;
        decode(Raw::of(&text)?, column, Wire::Json)
    })
}

pub fn of_key(table: &Table, value: impl Fn(&Column) -> Option<Value>) -> Vec<Value> {
    let columns = table.key.iter().map(|index| &table.columns[*index]);
    let values: Option<Vec<Value>> =
        columns.map(|column| value(column).filter(|value| *value != Value::Null)).collect();
    values.unwrap_or_default()
}
