//! A key as a client writes it: where Redis has its row, and the values of the key's columns. Pure.

use crate::sinks::redis::value;
use crate::sinks::template::Template;
use crate::verify::copy::document::key_values_of_texts;
use base::{Column, ColumnType, Generated, Table, TableName, Value};

/// The key of Redis, by names alone: the text of `{key}` is what the client wrote. The reason completes "the template `…` ".
pub fn place(template: &Template, source: &str, name: &TableName, key: &str) -> Result<Vec<u8>, String> {
    let column = Column {
        name: "{key}".into(),
        ty: ColumnType::Text { chars_max: 0 },
        sql_type: String::new(),
        nullable: false,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    };
    let table = Table {
        id: 0,
        version: 0,
        name: name.clone(),
        columns: vec![column],
        key: vec![0],
        unique_keys: Vec::new(),
    };
    let bound = template
        .bind(source, &table)
        .map_err(|reason| format!("the template `{}` {reason}", template.text()))?;
    let row = [Value::Text(key.to_owned())];
    Ok(bound.render(&table, &row, value::text).unwrap_or_default())
}

/// The values of the key's columns; `None` for what is no key of this table.
pub fn values(table: &Table, key: &str) -> Option<Vec<Value>> {
    let texts: Vec<Vec<u8>> = match table.key.len() {
        1 => vec![key.as_bytes().to_vec()],
        _ => key.split(':').map(unescaped).collect::<Option<_>>()?,
    };
    if texts.len() != table.key.len() {
        return None;
    }
    let position = |name: &str| table.key.iter().position(|index| table.columns[*index].name == name);
    let values = key_values_of_texts(table, |name| texts.get(position(name)?).cloned());
    (values.len() == table.key.len() && !values.is_empty()).then_some(values)
}

/// A row of which only the key is known.
pub fn row(table: &Table, values: &[Value]) -> Vec<Value> {
    let mut row = vec![Value::Null; table.columns.len()];
    for (index, value) in table.key.iter().zip(values) {
        row[*index] = value.clone();
    }
    row
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2)?;
        out.push(u8::from_str_radix(code, 16).ok()?);
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(out)
}
