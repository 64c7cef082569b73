//! The schemas that Debezium's JSON converter puts beside a key and a value.

use super::comma;
use base::json::put_string;
use base::{Column, ColumnType, Table};
use std::io::Write;

/// What Kafka Connect holds of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float,
    Double,
    String,
    Bytes,
    /// A named type: its base, its name.
    Named(&'static str, &'static str),
    Point,
    Geometry,
    Vector,
}

/// How Debezium's defaults carry a column.
pub fn kind(column: &Column) -> Kind {
    let named = Kind::Named;
    match &column.ty {
        ColumnType::TinyInt { .. } | ColumnType::SmallInt { unsigned: false } => Kind::Int16,
        ColumnType::SmallInt { unsigned: true } | ColumnType::MediumInt { .. } => Kind::Int32,
        ColumnType::Int { unsigned: false } => Kind::Int32,
        ColumnType::Int { unsigned: true } | ColumnType::BigInt { .. } => Kind::Int64,
        // FLOAT(7,2) is a double there.
        ColumnType::Float if column.sql_type.starts_with("float(") => Kind::Double,
        ColumnType::Float => Kind::Float,
        ColumnType::Double => Kind::Double,
        ColumnType::Decimal { .. } => named("bytes", "org.apache.kafka.connect.data.Decimal"),
        ColumnType::Bit { bits: 1 } => Kind::Boolean,
        ColumnType::Bit { .. } => named("bytes", "io.debezium.data.Bits"),
        ColumnType::Year => named("int32", "io.debezium.time.Year"),
        ColumnType::Date => named("int32", "io.debezium.time.Date"),
        ColumnType::Time { .. } => named("int64", "io.debezium.time.MicroTime"),
        ColumnType::DateTime { fsp: 0..=3 } => named("int64", "io.debezium.time.Timestamp"),
        ColumnType::DateTime { .. } => named("int64", "io.debezium.time.MicroTimestamp"),
        ColumnType::Timestamp { .. } => named("string", "io.debezium.time.ZonedTimestamp"),
        ColumnType::Text { .. } | ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => Kind::String,
        ColumnType::Binary { .. } | ColumnType::VarBinary { .. } => Kind::Bytes,
        ColumnType::Enum { .. } => named("string", "io.debezium.data.Enum"),
        ColumnType::Set { .. } => named("string", "io.debezium.data.EnumSet"),
        ColumnType::Json => named("string", "io.debezium.data.Json"),
        ColumnType::Geometry if column.sql_type.starts_with("point") => Kind::Point,
        ColumnType::Geometry => Kind::Geometry,
        ColumnType::Vector { .. } => Kind::Vector,
    }
}

pub fn put_key(out: &mut Vec<u8>, topic: &str, table: &Table) {
    let columns = table.key.iter().map(|index| &table.columns[*index]);
    put_struct(out, columns);
    out.extend_from_slice(b",\"optional\":false,\"name\":");
    put_string(out, &format!("{topic}.Key"));
    out.push(b'}');
}

pub fn put_envelope(out: &mut Vec<u8>, topic: &str, table: &Table) {
    out.extend_from_slice(b"{\"type\":\"struct\",\"fields\":[");
    for field in ["before", "after"] {
        put_struct(out, table.columns.iter());
        out.extend_from_slice(b",\"optional\":true,\"name\":");
        put_string(out, &format!("{topic}.Value"));
        write!(out, ",\"field\":\"{field}\"}},").expect("memory");
    }
    out.extend_from_slice(SOURCE_AND_REST.as_bytes());
    put_string(out, &format!("{topic}.Envelope"));
    out.extend_from_slice(b",\"version\":2}");
}

/// `{"type":"struct","fields":[…]`, left open.
fn put_struct<'a>(out: &mut Vec<u8>, columns: impl Iterator<Item = &'a Column>) {
    out.extend_from_slice(b"{\"type\":\"struct\",\"fields\":[");
    let mut first = true;
    for column in columns {
        comma(out, &mut first);
        put_field(out, column);
    }
    out.push(b']');
}

fn put_field(out: &mut Vec<u8>, column: &Column) {
    let (head, tail) = match kind(column) {
        Kind::Boolean => (plain("boolean"), String::new()),
        Kind::Int16 => (plain("int16"), String::new()),
        Kind::Int32 => (plain("int32"), String::new()),
        Kind::Int64 => (plain("int64"), String::new()),
        Kind::Float => (plain("float"), String::new()),
        Kind::Double => (plain("double"), String::new()),
        Kind::String => (plain("string"), String::new()),
        Kind::Bytes => (plain("bytes"), String::new()),
        Kind::Named(base, name) => (plain(base), format!("{}{}", named(name), put_parameters(column))),
        Kind::Point => {
            (POINT.to_owned(), named("io.debezium.data.geometry.Point") + ",\"doc\":\"Geometry (POINT)\"")
        }
        Kind::Geometry => {
            (GEOMETRY.to_owned(), named("io.debezium.data.geometry.Geometry") + ",\"doc\":\"Geometry\"")
        }
        Kind::Vector => (VECTOR.to_owned(), named("io.debezium.data.FloatVector")),
    };
    write!(out, "{{{head},\"optional\":{}{tail},\"field\":", column.nullable).expect("memory");
    put_string(out, &column.name);
    out.push(b'}');
}

fn plain(ty: &str) -> String {
    format!("\"type\":\"{ty}\"")
}

fn named(name: &str) -> String {
    format!(",\"name\":\"{name}\",\"version\":1")
}

fn put_parameters(column: &Column) -> String {
    parameters(column).map_or_else(String::new, |object| format!(",\"parameters\":{object}"))
}

/// What the name of a type does not say of it, as an object.
pub fn parameters(column: &Column) -> Option<String> {
    let text = match &column.ty {
        ColumnType::Decimal { precision, scale } => {
            format!("\"scale\":\"{scale}\",\"connect.decimal.precision\":\"{precision}\"")
        }
        ColumnType::Bit { bits } => format!("\"length\":\"{bits}\""),
        ColumnType::Enum { labels } | ColumnType::Set { labels } => {
            let mut list = Vec::new();
            put_string(&mut list, &labels.join(","));
            format!("\"allowed\":{}", String::from_utf8_lossy(&list))
        }
        _ => return None,
    };
    Some(format!("{{{text}}}"))
}

const POINT: &str = r#""type":"struct","fields":[{"type":"double","optional":false,"field":"x"},{"type":"double","optional":false,"field":"y"},{"type":"bytes","optional":true,"field":"wkb"},{"type":"int32","optional":true,"field":"srid"}]"#;
const GEOMETRY: &str = r#""type":"struct","fields":[{"type":"bytes","optional":false,"field":"wkb"},{"type":"int32","optional":true,"field":"srid"}]"#;
const VECTOR: &str = r#""type":"array","items":{"type":"float","optional":false}"#;
/// The rest of an envelope up to its name: the same for every table.
const SOURCE_AND_REST: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"version"},"#,
    r#"{"type":"string","optional":false,"field":"connector"},{"type":"string","optional":false,"field":"name"},"#,
    r#"{"type":"int64","optional":false,"field":"ts_ms"},"#,
    r#"{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"#,
    r#""true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"#,
    r#""default":"false","field":"snapshot"},{"type":"string","optional":false,"field":"db"},"#,
    r#"{"type":"string","optional":true,"field":"sequence"},{"type":"int64","optional":true,"field":"ts_us"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_ns"},{"type":"string","optional":true,"field":"table"},"#,
    r#"{"type":"int64","optional":false,"field":"server_id"},{"type":"string","optional":true,"field":"gtid"},"#,
    r#"{"type":"string","optional":false,"field":"file"},{"type":"int64","optional":false,"field":"pos"},"#,
    r#"{"type":"int32","optional":false,"field":"row"},{"type":"int64","optional":true,"field":"thread"},"#,
    r#"{"type":"string","optional":true,"field":"query"}],"optional":false,"#,
    r#""name":"io.debezium.connector.mysql.Source","version":1,"field":"source"},"#,
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},"#,
    r#"{"type":"int64","optional":false,"field":"total_order"},"#,
    r#"{"type":"int64","optional":false,"field":"data_collection_order"}],"optional":true,"#,
    r#""name":"event.block","version":1,"field":"transaction"},{"type":"string","optional":false,"field":"op"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_ms"},{"type":"int64","optional":true,"field":"ts_us"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_ns"}],"optional":false,"name":"#,
);
