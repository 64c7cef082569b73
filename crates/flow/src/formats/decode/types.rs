//! Column types of rows that come without a database: as declared, as a message tells them, or as values look.
//!
//! Types only ever widen. Messages of several partitions mix old and new definitions, and [`join`] gives the same type in
//! whatever order they come: it is associative and commutative, and what cannot be compared becomes text.

use super::cells::{Raw, is_null, string};
use base::ColumnType;
use mysql::Flavor;
use mysql::schema::{BadColumnType, column_type};

/// MySQL's limits on a DECIMAL.
const DECIMAL_DIGITS_MAX: u8 = 65;
const DECIMAL_SCALE_MAX: u8 = 30;
/// Digits that a DOUBLE holds whatever they are.
const DOUBLE_DIGITS: usize = 15;
const TEXT_MAX: u64 = u32::MAX as u64;

const BIGINT: ColumnType = ColumnType::BigInt { unsigned: false };
const TEXT: ColumnType = ColumnType::Text { chars_max: TEXT_MAX };

/// The type that a text names: `bigint unsigned`, `decimal(10,2)`, `enum('a','b')`.
pub fn parse(text: &str) -> Result<ColumnType, BadColumnType> {
    let text = text.trim();
    let name: String = text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    column_type(text, &name, None, false, Flavor::MySql)
}

/// The type that Canal tells of a column. Without its parameters a type is the widest of its kind; `None` when it cannot be
/// known: labels are needed to read an ENUM by name, and messages of this kind have its number.
pub fn told_by_mysql(text: &str) -> Option<ColumnType> {
    let bare = !text.contains('(');
    let lower = text.trim().to_ascii_lowercase();
    Some(match lower.as_str() {
        "char" | "varchar" if bare => TEXT,
        "binary" | "varbinary" if bare => ColumnType::VarBinary { bytes_max: TEXT_MAX },
        "decimal" | "numeric" if bare => {
            ColumnType::Decimal { precision: DECIMAL_DIGITS_MAX, scale: DECIMAL_SCALE_MAX }
        }
        "bit" if bare => ColumnType::Bit { bits: 64 },
        "enum" if bare => ColumnType::SmallInt { unsigned: true },
        "set" if bare => ColumnType::BigInt { unsigned: true },
        _ => parse(text).ok()?,
    })
}

/// The type that a value looks like; `None` for null, which says nothing.
pub fn inferred(raw: Raw<'_>) -> Option<ColumnType> {
    let text = raw.get();
    Some(match text.as_bytes().first()? {
        b'n' if is_null(raw) => return None,
        b't' | b'f' => ColumnType::TinyInt { unsigned: false },
        b'{' | b'[' => ColumnType::Json,
        b'"' => TEXT,
        _ => number(text),
    })
}

fn number(text: &str) -> ColumnType {
    if text.parse::<i64>().is_ok() {
        return BIGINT;
    }
    if text.parse::<u64>().is_ok() {
        return ColumnType::BigInt { unsigned: true };
    }
    let significant = text.split(['e', 'E']).next().unwrap_or(text);
    let digits = significant.bytes().filter(u8::is_ascii_digit).count();
    let whole = !text.contains(['.', 'e', 'E']);
    let (precision, scale) = (DECIMAL_DIGITS_MAX, DECIMAL_SCALE_MAX);
    if digits <= DOUBLE_DIGITS && !whole {
        ColumnType::Double
    } else if super::text::decimal(text, precision, scale).is_some() {
        ColumnType::Decimal { precision, scale }
    } else if whole && digits <= usize::from(precision) {
        ColumnType::Decimal { precision, scale: 0 }
    } else if whole {
        TEXT
    } else {
        ColumnType::Double
    }
}

/// The narrowest type that holds what both hold.
pub fn join(a: &ColumnType, b: &ColumnType) -> ColumnType {
    use ColumnType::{
        Binary, Bit, Date, DateTime, Decimal, Double, Enum, Float, Json, Set, Text, Time, Timestamp,
        VarBinary,
    };
    if a == b {
        return a.clone();
    }
    if let (Some(a), Some(b)) = (integer(a), integer(b)) {
        return joined_integers(a, b);
    }
    match (a, b) {
        // Any value is a document.
        (Json, _) | (_, Json) => Json,
        (Decimal { precision: p, scale: s }, Decimal { precision: q, scale: t }) => {
            let (whole, scale) = ((p - s).max(q - t), *s.max(t));
            if whole + scale > DECIMAL_DIGITS_MAX {
                TEXT
            } else {
                Decimal { precision: whole + scale, scale }
            }
        }
        (Decimal { .. }, other) | (other, Decimal { .. }) if integer(other).is_some() => {
            let decimal = if matches!(a, Decimal { .. }) { a } else { b };
            join(decimal, &Decimal { precision: 20, scale: 0 })
        }
        (Float, Double) | (Double, Float) => Double,
        // A DOUBLE loses integers from 2⁵³ on. With one answer for small ones and another for large, the order would matter.
        (Double | Float, other) | (other, Double | Float) if integer(other).is_some() => {
            Decimal { precision: DECIMAL_DIGITS_MAX, scale: DECIMAL_SCALE_MAX }
        }
        (Double | Float, decimal @ Decimal { .. }) | (decimal @ Decimal { .. }, Double | Float) => {
            let any = Decimal { precision: DECIMAL_DIGITS_MAX, scale: DECIMAL_SCALE_MAX };
            join(&any, decimal)
        }
        (Text { chars_max: m }, Text { chars_max: n }) => Text { chars_max: *m.max(n) },
        (Binary { bytes: m }, Binary { bytes: n }) => VarBinary { bytes_max: u64::from(*m.max(n)) },
        (Binary { bytes }, VarBinary { bytes_max }) | (VarBinary { bytes_max }, Binary { bytes }) => {
            VarBinary { bytes_max: (*bytes_max).max(u64::from(*bytes)) }
        }
        (VarBinary { bytes_max: m }, VarBinary { bytes_max: n }) => VarBinary { bytes_max: *m.max(n) },
        (Bit { bits: m }, Bit { bits: n }) => Bit { bits: *m.max(n) },
        (Time { fsp: m }, Time { fsp: n }) => Time { fsp: *m.max(n) },
        (Timestamp { fsp: m }, Timestamp { fsp: n }) => Timestamp { fsp: *m.max(n) },
        (DateTime { fsp: m }, DateTime { fsp: n }) => DateTime { fsp: *m.max(n) },
        (DateTime { fsp }, Date) | (Date, DateTime { fsp }) => DateTime { fsp: *fsp },
        (Enum { labels: m }, Enum { labels: n }) if m.starts_with(n) || n.starts_with(m) => {
            Enum { labels: if m.len() > n.len() { m.clone() } else { n.clone() } }
        }
        (Set { labels: m }, Set { labels: n }) if m.starts_with(n) || n.starts_with(m) => {
            Set { labels: if m.len() > n.len() { m.clone() } else { n.clone() } }
        }
        _ => TEXT,
    }
}

/// Bytes and sign of an integer type.
fn integer(ty: &ColumnType) -> Option<(u8, bool)> {
    Some(match ty {
        ColumnType::TinyInt { unsigned } => (1, *unsigned),
        ColumnType::SmallInt { unsigned } => (2, *unsigned),
        ColumnType::MediumInt { unsigned } => (3, *unsigned),
        ColumnType::Int { unsigned } => (4, *unsigned),
        ColumnType::BigInt { unsigned } => (8, *unsigned),
        _ => return None,
    })
}

fn joined_integers(a: (u8, bool), b: (u8, bool)) -> ColumnType {
    let size = a.0.max(b.0);
    if a.1 == b.1 {
        return sized(size, a.1);
    }
    let (signed, unsigned) = if a.1 { (b.0, a.0) } else { (a.0, b.0) };
    match if unsigned < signed {
        Some(signed)
    } else {
        [2, 3, 4, 8].into_iter().find(|size| *size > unsigned)
    } {
        Some(size) => sized(size, false),
        None => ColumnType::Decimal { precision: 20, scale: 0 },
    }
}

fn sized(size: u8, unsigned: bool) -> ColumnType {
    match size {
        1 => ColumnType::TinyInt { unsigned },
        2 => ColumnType::SmallInt { unsigned },
        3 => ColumnType::MediumInt { unsigned },
        4 => ColumnType::Int { unsigned },
        _ => ColumnType::BigInt { unsigned },
    }
}

/// Whether an integer is one of the type's.
pub fn holds(ty: &ColumnType, value: i128) -> bool {
    let Some((size, unsigned)) = integer(ty) else { return false };
    let bits = u32::from(size) * 8;
    let (least, most) =
        if unsigned { (0, (1i128 << bits) - 1) } else { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) };
    (least..=most).contains(&value)
}

/// Whether an integer type has no sign; `None` for other types.
pub fn unsigned(ty: &ColumnType) -> Option<bool> {
    integer(ty).map(|(_, unsigned)| unsigned)
}

/// The type as MySQL would print it. A key needs a length that an index takes.
pub fn sql_type(ty: &ColumnType, in_key: bool) -> String {
    let fraction = |name: &str, fsp: u8| if fsp == 0 { name.to_owned() } else { format!("{name}({fsp})") };
    let sign =
        |name: &str, unsigned: bool| if unsigned { format!("{name} unsigned") } else { name.to_owned() };
    match ty {
        // What JSON calls true and false.
        ColumnType::TinyInt { unsigned: false } => "tinyint".into(),
        ColumnType::TinyInt { unsigned } => sign("tinyint", *unsigned),
        ColumnType::SmallInt { unsigned } => sign("smallint", *unsigned),
        ColumnType::MediumInt { unsigned } => sign("mediumint", *unsigned),
        ColumnType::Int { unsigned } => sign("int", *unsigned),
        ColumnType::BigInt { unsigned } => sign("bigint", *unsigned),
        ColumnType::Float => "float".into(),
        ColumnType::Double => "double".into(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::Bit { bits } => format!("bit({bits})"),
        ColumnType::Year => "year".into(),
        ColumnType::Date => "date".into(),
        ColumnType::Time { fsp } => fraction("time", *fsp),
        ColumnType::DateTime { fsp } => fraction("datetime", *fsp),
        ColumnType::Timestamp { fsp } => fraction("timestamp", *fsp),
        ColumnType::Text { chars_max } if *chars_max <= 255 => format!("varchar({chars_max})"),
        ColumnType::Text { .. } if in_key => "varchar(255)".into(),
        ColumnType::Text { .. } => "longtext".into(),
        ColumnType::Binary { bytes } => format!("binary({bytes})"),
        ColumnType::VarBinary { bytes_max } if *bytes_max <= 255 => format!("varbinary({bytes_max})"),
        ColumnType::VarBinary { .. } if in_key => "varbinary(255)".into(),
        ColumnType::VarBinary { .. } => "longblob".into(),
        ColumnType::Enum { labels } => format!("enum({})", quoted(labels)),
        ColumnType::Set { labels } => format!("set({})", quoted(labels)),
        ColumnType::Json => "json".into(),
        ColumnType::Geometry => "geometry".into(),
        ColumnType::Vector { dimensions: 0 } => "vector".into(),
        ColumnType::Vector { dimensions } => format!("vector({dimensions})"),
        ColumnType::Uuid => "uuid".into(),
        ColumnType::Inet4 => "inet4".into(),
        ColumnType::Inet6 => "inet6".into(),
    }
}

fn quoted(labels: &[String]) -> String {
    let label = |label: &String| {
        let mut out = String::from("'");
        for c in label.chars() {
            match c {
                '\'' => out.push_str("''"),
                '\\' => out.push_str("\\\\"),
                '\0' => out.push_str("\\0"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                other => out.push(other),
            }
        }
        out.push('\'');
        out
    };
    labels.iter().map(label).collect::<Vec<_>>().join(",")
}

/// Whether a string stands for a document: `None` for another kind of value.
pub fn document_text(raw: Raw<'_>) -> Option<String> {
    let text = string(raw)?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok().then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Option<ColumnType> {
        inferred(Raw::of(json).unwrap())
    }

    #[test]
    fn values_look_like_types() {
        let decimal = ColumnType::Decimal { precision: 65, scale: 30 };
        assert_eq!(of("null"), None);
        assert_eq!(of("true"), Some(ColumnType::TinyInt { unsigned: false }));
        assert_eq!(of("-5"), Some(BIGINT));
        assert_eq!(of("18446744073709551615"), Some(ColumnType::BigInt { unsigned: true }));
        assert_eq!(of("18446744073709551616"), Some(decimal.clone()));
        assert_eq!(of("1.5e300"), Some(ColumnType::Double));
        assert_eq!(of("0.1"), Some(ColumnType::Double));
        assert_eq!(of("1234567890123456.25"), Some(decimal));
        assert_eq!(of("\"x\""), Some(TEXT));
        assert_eq!(of("{\"a\": 1}"), Some(ColumnType::Json));
    }

    #[test]
    fn types_join_the_same_in_any_order() {
        let all = [
            "tinyint",
            "tinyint unsigned",
            "smallint",
            "int unsigned",
            "int",
            "bigint",
            "bigint unsigned",
            "float",
            "double",
            "decimal(10,2)",
            "decimal(65,30)",
            "decimal(65,0)",
            "bit(1)",
            "bit(9)",
            "year",
            "date",
            "time(3)",
            "datetime",
            "datetime(6)",
            "timestamp(3)",
            "varchar(40)",
            "longtext",
            "binary(4)",
            "varbinary(300)",
            "longblob",
            "enum('a')",
            "enum('a','b')",
            "enum('b')",
            "set('a','b')",
            "json",
            "geometry",
            "vector(3)",
        ];
        let all: Vec<_> = all.iter().map(|text| parse(text).unwrap()).collect();
        for a in &all {
            assert_eq!(join(a, a), *a);
            for b in &all {
                let ab = join(a, b);
                assert_eq!(ab, join(b, a), "{a:?} {b:?}");
                assert_eq!(join(&ab, a), ab, "{a:?} {b:?}: a type that joined stays");
                assert_eq!(join(&ab, b), ab, "{a:?} {b:?}");
                for c in &all {
                    assert_eq!(join(&ab, c), join(a, &join(b, c)), "{a:?} {b:?} {c:?}");
                }
            }
        }
        assert_eq!(join(&parse("int unsigned").unwrap(), &parse("int").unwrap()), BIGINT);
        assert_eq!(join(&parse("int").unwrap(), &TEXT), TEXT);
    }

    #[test]
    fn a_type_prints_as_it_is_parsed() {
        for text in [
            "bigint unsigned",
            "decimal(10,2)",
            "datetime(3)",
            "varchar(40)",
            "enum('it''s','a\\\\b')",
            "set('a','b')",
            "bit(9)",
        ] {
            assert_eq!(sql_type(&parse(text).unwrap(), false), text);
        }
        assert_eq!(sql_type(&TEXT, true), "varchar(255)");
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn mysql_types_without_parameters_are_the_widest() {
        assert_eq!(told_by_mysql("varchar"), Some(TEXT));
        assert_eq!(told_by_mysql("decimal(5,2)"), Some(ColumnType::Decimal { precision: 5, scale: 2 }));
        assert_eq!(told_by_mysql("enum"), Some(ColumnType::SmallInt { unsigned: true }));
        assert_eq!(told_by_mysql("sdo_geometry"), None);
    }
}
