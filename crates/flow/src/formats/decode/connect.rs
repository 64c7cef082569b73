//! Schemas of Kafka Connect's JSON converter, as Debezium's connectors write them.

use super::cells::{Cells, Raw, is_null, string, text};
use super::types::{parse, told_by_mysql, unsigned};
use super::value::Wire;
use base::ColumnType;

/// A column as a message describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToldColumn {
    pub name: String,
    pub ty: ColumnType,
    pub wire: Wire,
    /// As MySQL prints the type, where the message has it.
    pub sql_type: Option<String>,
}

const TEXT: ColumnType = ColumnType::Text { chars_max: u32::MAX as u64 };
const BYTES: ColumnType = ColumnType::VarBinary { bytes_max: u32::MAX as u64 };

/// The schema of a row within that of an envelope.
pub fn row_schema(envelope: Raw<'_>) -> Option<Raw<'_>> {
    let side = |wanted: &str| {
        fields(envelope)?.into_iter().find(|field| {
            let parsed: Result<Cells<'_>, _> = serde_json::from_str(field.get());
            parsed.is_ok_and(|field| text(&field, "field").as_deref() == Some(wanted))
        })
    };
    side("after").or_else(|| side("before"))
}

/// The columns of a struct's schema; `None` when it is not one.
pub fn columns(schema: Raw<'_>) -> Option<Vec<ToldColumn>> {
    fields(schema)?.into_iter().map(column).collect()
}

fn fields(schema: Raw<'_>) -> Option<Vec<Raw<'_>>> {
    let schema: Cells<'_> = serde_json::from_str(schema.get()).ok()?;
    serde_json::from_str(schema.get("fields").filter(|raw| !is_null(*raw))?.get()).ok()
}

fn column(field: Raw<'_>) -> Option<ToldColumn> {
    let field: Cells<'_> = serde_json::from_str(field.get()).ok()?;
    let parameters = field.get("parameters").filter(|raw| !is_null(*raw));
    let parameters: Cells<'_> =
        parameters.map(|raw| serde_json::from_str(raw.get())).transpose().ok()?.unwrap_or_default();
    let named = text(&field, "name").unwrap_or_default();
    let (ty, wire) = named_type(&named, &parameters).unwrap_or_else(|| {
        let base = text(&field, "type").unwrap_or_default();
        base_type(&base)
    });
    let told = source_type(&parameters, &ty);
    Some(ToldColumn {
        name: text(&field, "field")?.into_owned(),
        ty: told.unwrap_or(ty),
        wire,
        sql_type: None,
    })
}

fn base_type(name: &str) -> (ColumnType, Wire) {
    let ty = match name {
        "boolean" => ColumnType::TinyInt { unsigned: false },
        // Debezium writes TINYINT UNSIGNED as it writes SMALLINT.
        "int8" => ColumnType::TinyInt { unsigned: false },
        "int16" => ColumnType::SmallInt { unsigned: false },
        "int32" => ColumnType::Int { unsigned: false },
        "int64" => ColumnType::BigInt { unsigned: false },
        "float" => ColumnType::Float,
        "double" => ColumnType::Double,
        "string" => TEXT,
        "bytes" => BYTES,
        _ => ColumnType::Json,
    };
    (ty, Wire::Json)
}

fn named_type(name: &str, parameters: &Cells<'_>) -> Option<(ColumnType, Wire)> {
    let number = |name: &str| text(parameters, name).and_then(|text| text.parse::<i64>().ok());
    let labels = || {
        let text = text(parameters, "allowed").unwrap_or_default();
        text.split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    let clock = |fsp, wire| Some((ColumnType::Time { fsp }, wire));
    let moment = |fsp, wire| Some((ColumnType::DateTime { fsp }, wire));
    match name {
        "org.apache.kafka.connect.data.Decimal" => {
            let scale = number("scale").unwrap_or(0);
            let scale_max = u8::try_from(scale.max(0)).ok().filter(|scale| *scale <= 30)?;
            let precision =
                number("connect.decimal.precision").and_then(|p| u8::try_from(p).ok()).unwrap_or(65);
            let precision = precision.clamp(scale_max.max(1), 65);
            Some((
                ColumnType::Decimal { precision, scale: scale_max },
                Wire::Unscaled(i32::try_from(scale).ok()?),
            ))
        }
        "io.debezium.data.VariableScaleDecimal" => {
            Some((ColumnType::Decimal { precision: 65, scale: 30 }, Wire::VariableScale))
        }
        "org.apache.kafka.connect.data.Date" | "io.debezium.time.Date" => {
            Some((ColumnType::Date, Wire::Days))
        }
        "org.apache.kafka.connect.data.Time" | "io.debezium.time.Time" => clock(3, Wire::Millis),
        "io.debezium.time.MicroTime" => clock(6, Wire::Micros),
        "io.debezium.time.NanoTime" => clock(6, Wire::Nanos),
        "org.apache.kafka.connect.data.Timestamp" | "io.debezium.time.Timestamp" => moment(3, Wire::Millis),
        "io.debezium.time.MicroTimestamp" => moment(6, Wire::Micros),
        "io.debezium.time.NanoTimestamp" => moment(6, Wire::Nanos),
        "io.debezium.time.ZonedTimestamp" => Some((ColumnType::Timestamp { fsp: 6 }, Wire::Json)),
        "io.debezium.time.Year" => Some((ColumnType::Year, Wire::Json)),
        "io.debezium.data.Bits" => {
            let bits =
                number("length").and_then(|n| u8::try_from(n).ok()).filter(|n| (1..=64).contains(n))?;
            Some((ColumnType::Bit { bits }, Wire::Bits))
        }
        "io.debezium.data.Json" => Some((ColumnType::Json, Wire::Document)),
        "io.debezium.data.Enum" => Some((ColumnType::Enum { labels: labels() }, Wire::Json)),
        "io.debezium.data.EnumSet" => Some((ColumnType::Set { labels: labels() }, Wire::Json)),
        "io.debezium.data.geometry.Point" | "io.debezium.data.geometry.Geometry" => {
            Some((ColumnType::Geometry, Wire::Json))
        }
        "io.debezium.data.FloatVector" => Some((ColumnType::Vector { dimensions: 0 }, Wire::Json)),
        _ => None,
    }
}

/// With `column.propagate.source.type` Debezium names the column's own type: what its schema's type cannot say.
fn source_type(parameters: &Cells<'_>, ty: &ColumnType) -> Option<ColumnType> {
    let name = text(parameters, "__debezium.source.column.type")?.to_ascii_lowercase();
    let length = text(parameters, "__debezium.source.column.length");
    let scale = text(parameters, "__debezium.source.column.scale");
    let size = match (length, scale) {
        (Some(length), Some(scale)) => format!("({length},{scale})"),
        (Some(length), None) => format!("({length})"),
        _ => String::new(),
    };
    let (head, sign) = name.split_once(' ').unwrap_or((&name, ""));
    let told = parse(&format!("{head}{size} {sign}")).ok()?;
    let same_kind = std::mem::discriminant(&told) == std::mem::discriminant(ty);
    let wider = unsigned(&told).is_some() && unsigned(ty).is_some();
    (same_kind || wider).then_some(told)
}

/// The columns of an object of MySQL's type texts; what is no type we know is left to the values.
pub fn mysql_columns(types: Raw<'_>) -> Option<Vec<ToldColumn>> {
    let types: Cells<'_> = serde_json::from_str(types.get()).ok()?;
    let told = types.0.iter().filter_map(|(name, raw)| {
        let told = string(*raw)?;
        let ty = told_by_mysql(&told)?;
        let exact = parse(&told).is_ok_and(|parsed| parsed == ty);
        let sql_type = exact.then(|| told.into_owned());
        Some(ToldColumn { name: name.to_string(), ty, wire: Wire::Canal, sql_type })
    });
    Some(told.collect())
}
