//! A column as its table map alone tells of it: for rows of a column that the server has no more, and that nobody saw.
//! Enums, sets, geometries and vectors are left to those who know their table.

use super::table_map::{TableMap, code};
use crate::charset;
use base::{Column, ColumnType, Generated};

/// Whether the map has a collation for such a column.
pub(super) fn is_text(ty: u8) -> bool {
    use code::{BLOB, LONG_BLOB, MEDIUM_BLOB, STRING, TINY_BLOB, VAR_STRING, VARCHAR};
    matches!(ty, VARCHAR | VAR_STRING | STRING | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | BLOB)
}

/// Column `index` of a map with full metadata; `None` when the map tells too little.
pub fn describe_column(map: &TableMap, index: usize) -> Option<Column> {
    let name = map.names.as_ref()?.get(index)?.clone();
    let (found, metadata) = map.real_type(index);
    let (low, high) = (metadata as u8, (metadata >> 8) as u8);
    let unsigned = map.unsigned.as_ref().and_then(|all| all.get(index)).copied().unwrap_or(false);
    let sign = if unsigned { " unsigned" } else { "" };
    let int = |name: &str, ty| Some((ty, format!("{name}{sign}")));
    let timed = |name: &str, ty| Some((ty, format!("{name}({low})")));
    let mut charset = None;
    let (ty, sql_type) = match found {
        code::TINY => int("tinyint", ColumnType::TinyInt { unsigned }),
        code::SHORT => int("smallint", ColumnType::SmallInt { unsigned }),
        code::INT24 => int("mediumint", ColumnType::MediumInt { unsigned }),
        code::LONG => int("int", ColumnType::Int { unsigned }),
        code::LONGLONG => int("bigint", ColumnType::BigInt { unsigned }),
        code::FLOAT => int("float", ColumnType::Float),
        code::DOUBLE => int("double", ColumnType::Double),
        code::NEWDECIMAL => Some((
            ColumnType::Decimal { precision: low, scale: high },
            format!("decimal({low},{high}){sign}"),
        )),
        code::YEAR => Some((ColumnType::Year, "year".to_owned())),
        code::DATE | code::NEWDATE => Some((ColumnType::Date, "date".to_owned())),
        code::TIME2 => timed("time", ColumnType::Time { fsp: low }),
        code::DATETIME2 => timed("datetime", ColumnType::DateTime { fsp: low }),
        code::TIMESTAMP2 => timed("timestamp", ColumnType::Timestamp { fsp: low }),
        code::JSON => Some((ColumnType::Json, "json".to_owned())),
        code::VARCHAR | code::VAR_STRING | code::STRING | code::BLOB => {
            let real = |i: usize| map.real_type(i).0;
            let before = (0..index).filter(|i| is_text(real(*i))).count();
            let known = charset::of_collation(map.text_charsets.as_ref()?.get(before)?)?;
            if known == "binary" {
                let bytes_max = u64::from(u32::MAX);
                Some((ColumnType::VarBinary { bytes_max }, "longblob".to_owned()))
            } else {
                charset = Some(known.to_owned());
                Some((ColumnType::Text { chars_max: u64::from(u32::MAX) }, "longtext".to_owned()))
            }
        }
        _ => None,
    }?;
    let invisible = map.visible.as_ref().and_then(|all| all.get(index)).is_some_and(|visible| !visible);
    let nullable = map.is_nullable(index);
    Some(Column {
        name,
        ty,
        sql_type,
        nullable,
        charset,
        collation: None,
        generated: Generated::No,
        invisible,
    })
}
