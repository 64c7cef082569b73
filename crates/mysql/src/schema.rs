//! Column types from the texts of `information_schema.columns`.

use crate::Flavor;
use base::ColumnType;

/// A column type this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column type `{0}` is not supported")]
pub struct BadColumnType(pub String);

/// The type of a column, from `column_type` (`enum('a','b')`, `int(10) unsigned`), `data_type` (`enum`) and
/// `character_maximum_length`. `json_check` says that a MariaDB LONGTEXT has a `CHECK (json_valid(…))`.
pub fn column_type(
    column_type: &str,
    data_type: &str,
    chars_max: Option<u64>,
    json_check: bool,
    flavor: Flavor,
) -> Result<ColumnType, BadColumnType> {
    let bad = || BadColumnType(column_type.to_owned());
    let lower = column_type.to_ascii_lowercase();
    let data_type = data_type.to_ascii_lowercase();
    let unsigned = lower.contains(" unsigned") || lower.contains(" zerofill");
    let numbers = numbers(column_type);
    let first = numbers.first().copied();
    let fsp = || u8::try_from(first.unwrap_or(0)).ok().filter(|f| *f <= 6).ok_or_else(bad);
    Ok(match data_type.as_str() {
        "tinyint" | "bool" | "boolean" => ColumnType::TinyInt { unsigned },
        "smallint" => ColumnType::SmallInt { unsigned },
        "mediumint" => ColumnType::MediumInt { unsigned },
        "int" | "integer" => ColumnType::Int { unsigned },
        "bigint" => ColumnType::BigInt { unsigned },
        "float" => ColumnType::Float,
        "double" | "real" => ColumnType::Double,
        "decimal" | "numeric" => ColumnType::Decimal {
            precision: u8::try_from(first.unwrap_or(10)).map_err(|_| bad())?,
            scale: u8::try_from(numbers.get(1).copied().unwrap_or(0)).map_err(|_| bad())?,
        },
        "bit" => ColumnType::Bit { bits: u8::try_from(first.unwrap_or(1)).map_err(|_| bad())? },
        "year" => ColumnType::Year,
        "date" => ColumnType::Date,
        "time" => ColumnType::Time { fsp: fsp()? },
        "datetime" => ColumnType::DateTime { fsp: fsp()? },
        "timestamp" => ColumnType::Timestamp { fsp: fsp()? },
        "longtext" if json_check && flavor == Flavor::MariaDb => ColumnType::Json,
        "char" | "varchar" => ColumnType::Text { chars_max: chars_max.or(first).unwrap_or(1) },
        "tinytext" => ColumnType::Text { chars_max: chars_max.unwrap_or(255) },
        "text" => ColumnType::Text { chars_max: chars_max.unwrap_or(65_535) },
        "mediumtext" => ColumnType::Text { chars_max: chars_max.unwrap_or(16_777_215) },
        "longtext" => ColumnType::Text { chars_max: chars_max.unwrap_or(4_294_967_295) },
        "binary" => {
            let bytes = chars_max.or(first).unwrap_or(1);
            ColumnType::Binary { bytes: u32::try_from(bytes).map_err(|_| bad())? }
        }
        "varbinary" => ColumnType::VarBinary { bytes_max: chars_max.or(first).unwrap_or(1) },
        "tinyblob" => ColumnType::VarBinary { bytes_max: 255 },
        "blob" => ColumnType::VarBinary { bytes_max: chars_max.unwrap_or(65_535) },
        "mediumblob" => ColumnType::VarBinary { bytes_max: 16_777_215 },
        "longblob" => ColumnType::VarBinary { bytes_max: 4_294_967_295 },
        "enum" => ColumnType::Enum { labels: labels(column_type).ok_or_else(bad)? },
        "set" => ColumnType::Set { labels: labels(column_type).ok_or_else(bad)? },
        "json" => ColumnType::Json,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" => ColumnType::Geometry,
        "vector" => ColumnType::Vector { dimensions: u32::try_from(first.unwrap_or(0)).map_err(|_| bad())? },
        "uuid" => ColumnType::Uuid,
        "inet4" => ColumnType::Inet4,
        "inet6" => ColumnType::Inet6,
        _ => return Err(bad()),
    })
}

/// The integers in the first pair of parentheses.
fn numbers(column_type: &str) -> Vec<u64> {
    let inner = column_type.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inner.map_or_else(Vec::new, |(inner, _)| {
        inner.split(',').map_while(|number| number.trim().parse().ok()).collect()
    })
}

/// The labels of `enum('a','it''s','b\\c')`: quotes are doubled; backslash, NUL, line feed and carriage return are
/// escaped with a backslash, whatever the server's sql_mode.
fn labels(column_type: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = column_type.split_once('(')?.1;
    loop {
        rest = rest.trim_start().strip_prefix('\'')?;
        let mut label = String::new();
        let mut chars = rest.chars();
        loop {
            match chars.next()? {
                '\\' => label.push(match chars.next()? {
                    '0' => '\0',
                    'n' => '\n',
                    'r' => '\r',
                    other => other,
                }),
                '\'' => match chars.as_str().strip_prefix('\'') {
                    Some(after) => {
                        label.push('\'');
                        chars = after.chars();
                    }
                    None => break,
                },
                other => label.push(other),
            }
        }
        rest = chars.as_str();
        out.push(label);
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return rest.starts_with(')').then_some(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(column: &str, data: &str, max: Option<u64>) -> ColumnType {
        column_type(column, data, max, false, Flavor::MySql).unwrap()
    }

    #[test]
    fn the_servers_texts_give_types() {
        assert_eq!(of("int(10) unsigned", "int", None), ColumnType::Int { unsigned: true });
        assert_eq!(of("bigint unsigned", "bigint", None), ColumnType::BigInt { unsigned: true });
        assert_eq!(of("decimal(12,2)", "decimal", None), ColumnType::Decimal { precision: 12, scale: 2 });
        assert_eq!(of("datetime(3)", "datetime", None), ColumnType::DateTime { fsp: 3 });
        assert_eq!(of("varchar(40)", "varchar", Some(40)), ColumnType::Text { chars_max: 40 });
        assert_eq!(of("binary(4)", "binary", Some(4)), ColumnType::Binary { bytes: 4 });
        assert_eq!(of("vector(3)", "vector", None), ColumnType::Vector { dimensions: 3 });
        let labels = ["a", "it's", "x,y)", ""].map(str::to_owned).to_vec();
        assert_eq!(of("enum('a','it''s','x,y)','')", "enum", None), ColumnType::Enum { labels });
        let labels = ["a\\b", "two\nlines", "\0\r"].map(str::to_owned).to_vec();
        assert_eq!(of("set('a\\\\b','two\\nlines','\\0\\r')", "set", None), ColumnType::Set { labels });
        let json = column_type("longtext", "longtext", Some(4_294_967_295), true, Flavor::MariaDb);
        assert_eq!(json, Ok(ColumnType::Json));
        assert!(column_type("sdo_geometry", "sdo_geometry", None, false, Flavor::MySql).is_err());
        assert!(column_type("enum('a", "enum", None, false, Flavor::MySql).is_err());
    }
}
