//! How a table's columns are indexed, by their types in the source.
//!
//! No value that the source can hold is refused for its type: integers of any width are `long`, so that a column may be
//! widened; what a type of the index cannot hold (a zero date, a point beyond the poles) is kept in the document and left
//! out of the index. A document always holds exact values, as our JSON prints them.

use base::{Column, ColumnType, Table};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Longer texts are found by their words and not as a whole: a term has at most 32766 bytes, a character four.
const KEYWORD_CHARS_MAX: u32 = 8191;
/// DATETIME with any fraction, and what people write in a query.
const DATETIME_FORMAT: &str =
    "uuuu-MM-dd HH:mm:ss[.SSSSSS][.SSSSS][.SSSS][.SSS][.SS][.S]||strict_date_optional_time||epoch_millis";
const DATE_FORMAT: &str = "strict_date_optional_time||epoch_millis";
/// Fields that a mapping may have beside ours: a table of MySQL has up to 4096 columns, each up to two fields.
pub const FIELDS_MAX: u32 = 10_000;

/// The `properties` of an index: a column's type decides, unless `overrides` names it.
pub fn properties(table: &Table, overrides: &BTreeMap<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for column in &table.columns {
        let given = overrides.iter().find(|(name, _)| name.eq_ignore_ascii_case(&column.name));
        let field = given.map_or_else(|| field(column), |(_, given)| given.clone());
        out.insert(column.name.clone(), field);
    }
    out
}

/// Whether the column is written as `{"lat", "lon"}`.
pub fn is_point(column: &Column) -> bool {
    column.ty == ColumnType::Geometry && column.sql_type.to_ascii_lowercase().starts_with("point")
}

fn field(column: &Column) -> Value {
    if let Some(rows) = crate::nest::rows_of(column) {
        let fields = rows.columns.iter().map(|column| (column.name.clone(), field(column)));
        let kind = if rows.is_list { "nested" } else { "object" };
        return json!({"type": kind, "properties": fields.collect::<Map<_, _>>()});
    }
    match &column.ty {
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { unsigned: false }
        | ColumnType::Year => json!({"type": "long"}),
        ColumnType::Bit { bits } if *bits < 64 => json!({"type": "long"}),
        ColumnType::BigInt { unsigned: true } | ColumnType::Bit { .. } => json!({"type": "unsigned_long"}),
        ColumnType::Float => json!({"type": "float"}),
        // A DECIMAL is compared as a double, and kept exactly in the document.
        ColumnType::Double | ColumnType::Decimal { .. } => json!({"type": "double"}),
        ColumnType::Date | ColumnType::Timestamp { .. } => {
            json!({"type": "date", "format": DATE_FORMAT, "ignore_malformed": true})
        }
        ColumnType::DateTime { .. } => {
            json!({"type": "date", "format": DATETIME_FORMAT, "ignore_malformed": true})
        }
        ColumnType::Text { .. } => {
            let whole = json!({"type": "keyword", "ignore_above": KEYWORD_CHARS_MAX});
            json!({"type": "text", "fields": {"keyword": whole}})
        }
        ColumnType::Time { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. } | ColumnType::Uuid => {
            json!({"type": "keyword"})
        }
        ColumnType::Inet4 | ColumnType::Inet6 => json!({"type": "ip", "ignore_malformed": true}),
        ColumnType::Binary { .. } | ColumnType::VarBinary { .. } => json!({"type": "binary"}),
        ColumnType::Geometry if is_point(column) => json!({"type": "geo_point", "ignore_malformed": true}),
        // Of any shape, and another in each row: kept, not indexed.
        ColumnType::Json | ColumnType::Geometry => json!({"type": "object", "enabled": false}),
        ColumnType::Vector { .. } => json!({"type": "float", "index": false, "doc_values": false}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Generated, TableName};

    fn column(name: &str, ty: ColumnType, sql_type: &str) -> Column {
        Column {
            name: name.into(),
            ty,
            sql_type: sql_type.into(),
            nullable: true,
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        }
    }

    #[test]
    fn a_columns_type_decides_unless_the_flow_does() {
        let columns = vec![
            column("id", ColumnType::TinyInt { unsigned: true }, "tinyint unsigned"),
            column("big", ColumnType::BigInt { unsigned: true }, "bigint unsigned"),
            column("at", ColumnType::Geometry, "point"),
            column("area", ColumnType::Geometry, "polygon"),
            column("Note", ColumnType::Text { chars_max: 40 }, "varchar(40)"),
        ];
        let name = TableName::new("shop", "t");
        let table = Table { id: 1, version: 1, name, columns, key: vec![0], unique_keys: vec![] };
        let overrides = BTreeMap::from([("note".to_owned(), json!({"type": "keyword"}))]);
        let wanted = json!({
            "id": {"type": "long"},
            "big": {"type": "unsigned_long"},
            "at": {"type": "geo_point", "ignore_malformed": true},
            "area": {"type": "object", "enabled": false},
            "Note": {"type": "keyword"},
        });
        assert_eq!(Value::Object(properties(&table, &overrides)), wanted);
    }
}
