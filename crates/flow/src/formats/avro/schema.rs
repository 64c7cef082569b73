//! The Avro schemas of a table, as Confluent's converter makes them of Debezium's: what Avro has no word for stands beside in
//! `connect.*`. Equal definitions are equal texts, so that a registry gives them one id.

use super::name::{adjusted, namespace, same_columns};
use crate::formats::debezium_schema::{Kind, kind, parameters};
use base::{Column, ColumnType, Table};
use std::fmt::Write;

/// The schemas of a table's messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schemas {
    /// The name of the records, without their last part.
    pub namespace: String,
    /// `None` for a table without a key.
    pub key: Option<String>,
    pub value: String,
}

/// `Err` says why the table has none: Avro would call two of its columns the same.
pub fn schemas(source: &str, table: &Table) -> Result<Schemas, String> {
    if let Some((first, second)) = same_columns(table) {
        return Err(format!(
            "the columns `{first}` and `{second}` of `{}` would both be called `{}`: Avro takes ASCII letters, digits and `_`",
            table.name,
            adjusted(second)
        ));
    }
    let namespace = namespace(source, &table.name);
    let key = (!table.key.is_empty()).then(|| {
        let columns = table.key.iter().map(|index| &table.columns[*index]);
        record("Key", &namespace, true, columns)
    });
    let value = envelope(&namespace, table);
    Ok(Schemas { namespace, key, value })
}

fn envelope(namespace: &str, table: &Table) -> String {
    let row = record("Value", namespace, false, table.columns.iter());
    format!(
        r#"{{"type":"record","name":"Envelope","namespace":{0},"fields":[{{"name":"before","type":["null",{row}],"default":null}},{{"name":"after","type":["null","Value"],"default":null}},{SOURCE_AND_REST}],"connect.version":2,"connect.name":{1}}}"#,
        quoted(namespace),
        quoted(&format!("{namespace}.Envelope")),
    )
}

/// A row; `outermost` names its namespace, which others have from what is around them.
fn record<'a>(
    name: &str,
    namespace: &str,
    outermost: bool,
    columns: impl Iterator<Item = &'a Column>,
) -> String {
    let mut named = Named::default();
    let fields: Vec<_> = columns.map(|column| field(column, &mut named)).collect();
    let place = if outermost { format!(r#","namespace":{}"#, quoted(namespace)) } else { String::new() };
    format!(
        r#"{{"type":"record","name":"{name}"{place},"fields":[{}],"connect.name":{}}}"#,
        fields.join(","),
        quoted(&format!("{namespace}.{name}"))
    )
}

/// Which records of a type were written out: from then on they go by their names.
#[derive(Default)]
struct Named {
    point: bool,
    geometry: bool,
}

fn field(column: &Column, named: &mut Named) -> String {
    let (name, ty) = (quoted(&adjusted(&column.name)), type_of(column, named));
    if column.nullable {
        format!(r#"{{"name":{name},"type":["null",{ty}],"default":null}}"#)
    } else {
        format!(r#"{{"name":{name},"type":{ty}}}"#)
    }
}

fn type_of(column: &Column, named: &mut Named) -> String {
    let once = |written: &mut bool, name: &str, whole: &str| {
        if std::mem::replace(written, true) { quoted(name) } else { whole.to_owned() }
    };
    match kind(column) {
        Kind::Boolean => quoted("boolean"),
        Kind::Int16 => r#"{"type":"int","connect.type":"int16"}"#.to_owned(),
        Kind::Int32 => quoted("int"),
        Kind::Int64 => quoted("long"),
        Kind::Float => quoted("float"),
        Kind::Double => quoted("double"),
        Kind::String => quoted("string"),
        Kind::Bytes => quoted("bytes"),
        Kind::Named(base, name) => named_type(column, base, name),
        Kind::Point => once(&mut named.point, "io.debezium.data.geometry.Point", POINT),
        Kind::Geometry => once(&mut named.geometry, "io.debezium.data.geometry.Geometry", GEOMETRY),
        Kind::Vector => VECTOR.to_owned(),
    }
}

fn named_type(column: &Column, base: &str, name: &str) -> String {
    let base = match base {
        "int32" => "int",
        "int64" => "long",
        other => other,
    };
    let mut out = format!(r#"{{"type":"{base}""#);
    let decimal = if let ColumnType::Decimal { precision, scale } = column.ty {
        write!(out, r#","scale":{scale},"precision":{precision}"#).expect("memory");
        r#","logicalType":"decimal""#
    } else {
        ""
    };
    out.push_str(r#","connect.version":1"#);
    if let Some(parameters) = parameters(column) {
        write!(out, r#","connect.parameters":{parameters}"#).expect("memory");
    }
    write!(out, r#","connect.name":"{name}"{decimal}}}"#).expect("memory");
    out
}

fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    base::json::put_string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

const POINT: &str = r#"{"type":"record","name":"Point","namespace":"io.debezium.data.geometry","fields":[{"name":"x","type":"double"},{"name":"y","type":"double"},{"name":"wkb","type":["null","bytes"],"default":null},{"name":"srid","type":["null","int"],"default":null}],"connect.doc":"Geometry (POINT)","connect.version":1,"connect.name":"io.debezium.data.geometry.Point"}"#;
const GEOMETRY: &str = r#"{"type":"record","name":"Geometry","namespace":"io.debezium.data.geometry","fields":[{"name":"wkb","type":"bytes"},{"name":"srid","type":["null","int"],"default":null}],"connect.doc":"Geometry","connect.version":1,"connect.name":"io.debezium.data.geometry.Geometry"}"#;
const VECTOR: &str =
    r#"{"type":"array","items":"float","connect.version":1,"connect.name":"io.debezium.data.FloatVector"}"#;
/// The rest of an envelope: the same for every table. A default that is not null stands first in its union.
const SOURCE_AND_REST: &str = concat!(
    r#"{"name":"source","type":{"type":"record","name":"Source","namespace":"io.debezium.connector.mysql","fields":["#,
    r#"{"name":"version","type":"string"},{"name":"connector","type":"string"},{"name":"name","type":"string"},"#,
    r#"{"name":"ts_ms","type":"long"},"#,
    r#"{"name":"snapshot","type":[{"type":"string","connect.version":1,"connect.parameters":{"allowed":"#,
    r#""true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"#,
    r#""connect.default":"false","connect.name":"io.debezium.data.Enum"},"null"],"default":"false"},"#,
    r#"{"name":"db","type":"string"},{"name":"sequence","type":["null","string"],"default":null},"#,
    r#"{"name":"ts_us","type":["null","long"],"default":null},{"name":"ts_ns","type":["null","long"],"default":null},"#,
    r#"{"name":"table","type":["null","string"],"default":null},{"name":"server_id","type":"long"},"#,
    r#"{"name":"gtid","type":["null","string"],"default":null},{"name":"file","type":"string"},"#,
    r#"{"name":"pos","type":"long"},{"name":"row","type":"int"},"#,
    r#"{"name":"thread","type":["null","long"],"default":null},{"name":"query","type":["null","string"],"default":null}],"#,
    r#""connect.version":1,"connect.name":"io.debezium.connector.mysql.Source"}},"#,
    r#"{"name":"transaction","type":["null",{"type":"record","name":"block","namespace":"event","fields":["#,
    r#"{"name":"id","type":"string"},{"name":"total_order","type":"long"},{"name":"data_collection_order","type":"long"}],"#,
    r#""connect.version":1,"connect.name":"event.block"}],"default":null},{"name":"op","type":"string"},"#,
    r#"{"name":"ts_ms","type":["null","long"],"default":null},{"name":"ts_us","type":["null","long"],"default":null},"#,
    r#"{"name":"ts_ns","type":["null","long"],"default":null}"#,
);
