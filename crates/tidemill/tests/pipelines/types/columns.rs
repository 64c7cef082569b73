//! The columns of both servers, each with its edge values, and how a server prints a column so that equal texts mean
//! equal values.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// How a value is printed, on a server and by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Exact numbers, BIT among them: leading zeros of ZEROFILL are not part of the value.
    Number,
    Float,
    Decimal,
    /// DATE, TIME, DATETIME, YEAR.
    Printed,
    Timestamp,
    Text,
    Bytes,
    Enum,
    Set,
    Json,
    Geometry,
    Vector,
    /// VECTOR on TiDB, which prints it only as text.
    VectorText,
}

/// One column: its type, its kind and its values as SQL. NULL is added to every nullable one.
#[derive(Clone, Debug)]
pub struct Spec {
    pub ty: String,
    pub kind: Kind,
    pub values: Vec<String>,
}

impl Spec {
    /// The column as the server prints it.
    pub fn print(&self, name: &str) -> String {
        let c = format!("`{name}`");
        match self.kind {
            Kind::Number => format!("CAST({c}+0 AS CHAR)"),
            // Not as text, in which MySQL is not exact.
            Kind::Float => c,
            Kind::Decimal => format!("CAST({c}+0 AS CHAR)"),
            Kind::Printed | Kind::Timestamp => format!("CAST({c} AS CHAR)"),
            Kind::Text | Kind::Enum | Kind::Set => format!("HEX(CONVERT({c} USING utf8mb4))"),
            Kind::Json => format!("HEX(CONVERT(CAST({c} AS CHAR) USING utf8mb4))"),
            Kind::Bytes | Kind::Geometry => format!("HEX({c})"),
            Kind::Vector => format!("HEX({c})"),
            Kind::VectorText => format!("VEC_AS_TEXT({c})"),
        }
    }

    /// What the server printed, in the form that `ours` gives.
    pub fn printed(&self, text: Option<String>) -> Option<String> {
        let text = text?;
        Some(match self.kind {
            Kind::Float => bits(text.parse().unwrap()),
            Kind::Json => String::from_utf8(unhex(&text)).unwrap(),
            Kind::VectorText => vector(&serde_json::from_str(&text).unwrap()),
            _ => text,
        })
    }

    /// A value of our JSON in the form of `printed`.
    pub fn ours(&self, value: &Value) -> Option<String> {
        Some(match (self.kind, value) {
            (_, Value::Null) => return None,
            (Kind::Json, value) => value.to_string(),
            (Kind::Float, value) => {
                let number = value.as_f64().unwrap();
                bits(if self.ty.starts_with("FLOAT") { f64::from(number as f32) } else { number })
            }
            (Kind::Timestamp, Value::String(text)) => text.replace('T', " ").trim_end_matches('Z').to_owned(),
            (Kind::Printed, Value::Number(year)) => format!("{:04}", year.as_u64().unwrap()),
            (Kind::Text | Kind::Enum, Value::String(text)) => hex(text.as_bytes()),
            (Kind::Bytes, Value::String(text)) => hex(&STANDARD.decode(text).unwrap()),
            (Kind::Set, Value::Array(labels)) => {
                let labels: Vec<_> = labels.iter().map(|label| label.as_str().unwrap()).collect();
                hex(labels.join(",").as_bytes())
            }
            (Kind::Geometry, Value::Object(shape)) => {
                let srid = shape["srid"].as_u64().unwrap() as u32;
                let wkb = STANDARD.decode(shape["wkb"].as_str().unwrap()).unwrap();
                hex(&[&srid.to_le_bytes()[..], &wkb].concat())
            }
            (Kind::Vector, value) => vector(value),
            (_, Value::String(text)) => text.clone(),
            (_, other) => other.to_string(),
        })
    }

    /// The value in a SQLite file in the form of `printed`.
    pub fn in_file(&self, value: rusqlite::types::Value) -> Option<String> {
        use rusqlite::types::Value as File;
        Some(match (self.kind, value) {
            (_, File::Null) => return None,
            (Kind::Float, File::Real(number)) => bits(number),
            (Kind::Printed, File::Integer(year)) => format!("{year:04}"),
            (_, File::Integer(number)) => number.to_string(),
            (Kind::Text | Kind::Enum | Kind::Set, File::Text(text)) => hex(text.as_bytes()),
            (_, File::Text(text)) => text,
            (Kind::Text | Kind::Bytes | Kind::Geometry | Kind::Vector, File::Blob(bytes)) => hex(&bytes),
            (kind, other) => panic!("{kind:?} is {other:?} in the file"),
        })
    }
}

/// A document as a reader of JSON sees it, who cannot tell a NULL from a null.
pub fn document(text: &str) -> Option<String> {
    let json: Value = serde_json::from_str(text).unwrap();
    (!json.is_null()).then(|| json.to_string())
}

/// A document on TiDB, whose numbers are integers or doubles, and which prints a whole double as an integer.
pub fn loose_document(text: &str) -> String {
    fn loosen(value: &mut Value) {
        match value {
            Value::Number(number) => *value = format!("{:e}", number.as_f64().unwrap()).into(),
            Value::Array(items) => items.iter_mut().for_each(loosen),
            Value::Object(members) => members.values_mut().for_each(loosen),
            _ => {}
        }
    }
    let mut json: Value = serde_json::from_str(text).unwrap();
    loosen(&mut json);
    json.to_string()
}

/// Minus zero is a zero: SQLite has only one, and no server tells them apart.
fn bits(number: f64) -> String {
    format!("{:016x}", (number + 0.0).to_bits())
}

fn vector(numbers: &Value) -> String {
    let numbers = numbers.as_array().unwrap().iter();
    hex(&numbers.flat_map(|n| (n.as_f64().unwrap() as f32).to_le_bytes()).collect::<Vec<_>>())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn spec(kind: Kind, ty: &str, values: &[&str]) -> Spec {
    Spec { ty: ty.to_owned(), kind, values: values.iter().map(|v| (*v).to_owned()).collect() }
}

fn quoted(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| format!("'{v}'")).collect()
}

/// Numbers of both servers.
pub fn numbers() -> Vec<Spec> {
    let mut out = vec![
        spec(Kind::Number, "TINYINT", &["-128", "127", "0"]),
        spec(Kind::Number, "TINYINT(1)", &["-1", "1", "0"]),
        spec(Kind::Number, "TINYINT UNSIGNED", &["255", "0"]),
        spec(Kind::Number, "SMALLINT", &["-32768", "32767"]),
        spec(Kind::Number, "SMALLINT UNSIGNED", &["65535", "0"]),
        spec(Kind::Number, "MEDIUMINT", &["-8388608", "8388607", "-1"]),
        spec(Kind::Number, "MEDIUMINT UNSIGNED", &["16777215", "0"]),
        spec(Kind::Number, "INT", &["-2147483648", "2147483647"]),
        spec(Kind::Number, "INT UNSIGNED", &["4294967295", "0"]),
        spec(Kind::Number, "INT(6) ZEROFILL", &["42", "4294967295", "0"]),
        spec(Kind::Number, "BIGINT", &["-9223372036854775808", "9223372036854775807"]),
        spec(Kind::Number, "BIGINT UNSIGNED", &["18446744073709551615", "9223372036854775808", "0"]),
        spec(Kind::Number, "BIGINT(20) ZEROFILL", &["7", "18446744073709551615"]),
        spec(
            Kind::Float,
            "FLOAT",
            &["0.1", "-3.4028235e38", "1.1754944e-38", "1e-45", "-0e0", "16777217", "123456.79"],
        ),
        spec(Kind::Float, "FLOAT(7,3)", &["1.235", "-9999.999", "0.001", "1234.567"]),
        spec(
            Kind::Float,
            "DOUBLE",
            &[
                "1.7976931348623157e308",
                "-2.2250738585072014e-308",
                "5e-324",
                "-0e0",
                "0.1",
                "9007199254740993e0",
                "1.2345678901234567e17",
                "1e15",
                "1e16",
                "123456789.123456789",
            ],
        ),
        spec(Kind::Float, "DOUBLE(20,5)", &["0.1", "-123456789.12345"]),
        spec(
            Kind::Decimal,
            "DECIMAL(65,30)",
            &[
                "99999999999999999999999999999999999.999999999999999999999999999999",
                "-99999999999999999999999999999999999.999999999999999999999999999999",
                "0.000000000000000000000000000001",
                "0",
                "-0.1",
            ],
        ),
        spec(
            Kind::Decimal,
            "DECIMAL(65,0)",
            &["-99999999999999999999999999999999999999999999999999999999999999999"],
        ),
        spec(Kind::Decimal, "DECIMAL(10)", &["5", "-5"]),
        spec(Kind::Decimal, "DECIMAL(30,30)", &["0.123456789012345678901234567890", "-0.5"]),
        spec(Kind::Decimal, "DECIMAL(5,2) UNSIGNED", &["999.99", "0.01"]),
        spec(Kind::Decimal, "DECIMAL(10,2) ZEROFILL", &["12.5", "0", "12345678.90"]),
        spec(Kind::Printed, "YEAR", &["1901", "2155", "0", "2000"]),
    ];
    for size in [1, 7, 8, 9, 17, 31, 33, 53, 63, 64] {
        let high = format!("b'1{}'", "0".repeat(size - 1));
        let all = format!("b'{}'", "1".repeat(size));
        out.push(spec(Kind::Number, &format!("BIT({size})"), &["b'0'", "b'1'", &high, &all]));
    }
    out
}

/// Dates and times of both servers.
pub fn times() -> Vec<Spec> {
    let mut out = vec![spec(
        Kind::Printed,
        "DATE",
        &[
            "'1000-01-01'",
            "'9999-12-31'",
            "'0000-00-00'",
            "'2026-00-00'",
            "'2026-02-00'",
            "'2026-02-31'",
            "'0001-01-01'",
        ],
    )];
    for digits in 0..=6usize {
        let part =
            |fraction: &str| if digits == 0 { String::new() } else { format!(".{}", &fraction[..digits]) };
        let (zeros, nines, mixed) = (part("000000"), part("999999"), part("120450"));
        let values = quoted(&[
            "-838:59:59",
            &format!("838:59:58{nines}"),
            &format!("-00:00:00{mixed}"),
            &format!("-100:59:59{mixed}"),
            "00:00:00",
            &format!("12:34:56{mixed}"),
        ]);
        out.push(Spec { ty: format!("TIME({digits})"), kind: Kind::Printed, values });
        let values = quoted(&[
            &format!("0000-00-00 00:00:00{zeros}"),
            &format!("9999-12-31 23:59:59{nines}"),
            &format!("2026-00-00 00:00:00{mixed}"),
            &format!("1000-01-01 00:00:00{mixed}"),
            &format!("2026-02-31 10:20:30{nines}"),
            &format!("0000-00-00 10:00:00{mixed}"),
        ]);
        out.push(Spec { ty: format!("DATETIME({digits})"), kind: Kind::Printed, values });
        let values = quoted(&[
            "1970-01-01 00:00:01",
            &format!("2038-01-19 03:14:07{nines}"),
            &format!("0000-00-00 00:00:00{zeros}"),
            &format!("2026-03-29 02:30:00{mixed}"),
        ]);
        out.push(Spec { ty: format!("TIMESTAMP({digits})"), kind: Kind::Timestamp, values });
    }
    out
}

/// Texts of both servers, in every character set that has letters of its own.
pub fn texts(mariadb: bool) -> Vec<Spec> {
    let plain = ["", "a", "trailing  ", "it''s \"q\" \\\\ ` \\n\\t\\0 %", "A"];
    let sets = [
        ("utf8mb4", "绿 😀 e\u{301} é \u{10ffff}"),
        ("utf8mb3", "绿é\u{ffff}"),
        ("latin1", "café €"),
        ("gbk", "中文。镕"),
        ("big5", "中文許"),
        ("sjis", "日本ｱ表"),
        ("cp932", "日本①ｱ"),
        ("ujis", "日本ｱ表"),
        ("euckr", "한국어"),
        ("utf16", "绿😀"),
        ("utf16le", "绿😀"),
        ("utf32", "绿😀"),
        ("ucs2", "绿é"),
        ("koi8r", "Привет"),
        ("cp1251", "Привет"),
        ("latin2", "Łódź"),
        ("ascii", "~"),
        ("gb18030", "中😀㐀"),
        ("eucjpms", "日本①"),
        ("cp850", "é╔"),
        ("tis620", "ไทย"),
        ("greek", "αβγ"),
        ("hebrew", "שלום"),
    ];
    let mut out = Vec::new();
    for (set, own) in sets.iter().filter(|(set, _)| !(mariadb && *set == "gb18030")) {
        let mut values = quoted(&plain);
        values.push(format!("'{own}'"));
        for ty in ["CHAR(12)", "VARCHAR(40)", "TEXT"] {
            out.push(Spec {
                ty: format!("{ty} CHARACTER SET {set}"),
                kind: Kind::Text,
                values: values.clone(),
            });
        }
    }
    out.push(spec(Kind::Text, "TINYTEXT", &["REPEAT('x', 255)", "''"]));
    out.push(spec(Kind::Text, "MEDIUMTEXT", &["REPEAT('绿', 30000)"]));
    out.push(spec(Kind::Text, "LONGTEXT", &["REPEAT('y', 66000)", "''"]));
    out.push(spec(Kind::Text, "VARCHAR(300) COLLATE utf8mb4_bin", &["REPEAT('😀', 300)", "'é '"]));
    out.push(spec(Kind::Text, "CHAR(255)", &["REPEAT('😀', 255)", "''"]));
    out
}

/// Binary strings, labels and documents.
pub fn others(mariadb: bool) -> Vec<Spec> {
    let many: Vec<String> = (0..300).map(|n| format!("'label {n}'")).collect();
    let members: Vec<String> = (0..64).map(|n| format!("'m{n}'")).collect();
    let all = members.join(",").replace('\'', "");
    let mut out = vec![
        spec(Kind::Bytes, "BINARY(6)", &["X'0102'", "X'000000000000'", "X''", "X'FFFFFFFFFFFF'"]),
        spec(Kind::Bytes, "BINARY(255)", &["X'0102'", "REPEAT(X'FF', 255)"]),
        spec(Kind::Bytes, "VARBINARY(300)", &["X'00FF00'", "X''", "X'20'", "REPEAT(X'27', 300)"]),
        spec(Kind::Bytes, "TINYBLOB", &["X'00'", "X''"]),
        spec(Kind::Bytes, "BLOB", &["X'FFFE'", "REPEAT(X'5C27', 5000)"]),
        spec(Kind::Bytes, "MEDIUMBLOB", &["REPEAT(X'00', 70000)"]),
        spec(Kind::Bytes, "LONGBLOB", &["X'C328'"]),
        spec(
            Kind::Enum,
            "ENUM('red','it''s','绿','x,y','a\\\\b','two\\nlines',' lead','\"q\"','`')",
            &["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"],
        ),
        spec(Kind::Enum, "ENUM('café','naïve') CHARACTER SET latin1", &["1", "2"]),
        spec(Kind::Enum, "ENUM('中','文') CHARACTER SET gbk", &["1", "2", "0"]),
        spec(Kind::Enum, &format!("ENUM({})", many.join(",")), &["1", "255", "256", "300"]),
        spec(Kind::Set, "SET('a','it''s','绿','d\\\\e')", &["'a'", "''", "15", "'绿,a'", "8"]),
        spec(
            Kind::Set,
            &format!("SET({})", members.join(",")),
            &["1", "'m63'", &format!("'{all}'"), "0", "'m62,m0'"],
        ),
        spec(Kind::Set, "SET('é','ü') CHARACTER SET latin1", &["3", "0"]),
    ];
    let json = [
        "'{}'",
        "'[]'",
        "'null'",
        "'true'",
        "'\"text\"'",
        "'-0.0'",
        "'1e20'",
        "'18446744073709551615'",
        "'-9223372036854775808'",
        "'{\"b\": [1, 2.5, -0.0, null, true, \"绿😀\"], \"a\": {\"deep\": 1e20}, \"\": \"\\\\u0001\\\\n\\\\\"\\\\\\\\/\"}'",
        "'\"\\\\ud83d\\\\ude00\"'",
        "'0.1'",
        "'1.7976931348623157e308'",
        "'5e-324'",
        "'[[[[[[[[[[1]]]]]]]]]]'",
        "CONCAT('[', REPEAT('\"0123456789\",', 5200), '1]')",
    ];
    out.push(spec(Kind::Json, "JSON", &json));
    let shapes = [
        "POINT(1 2)",
        "LINESTRING(0 0,1 1)",
        "POLYGON((0 0,1 0,1 1,0 0))",
        "MULTIPOINT(0 0,1 1)",
        "MULTILINESTRING((0 0,1 1),(2 2,3 3))",
        "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))",
        "GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))",
    ];
    let values: Vec<String> = shapes
        .iter()
        .map(|s| format!("ST_GeomFromText('{s}')"))
        .chain(shapes[..2].iter().map(|s| format!("ST_GeomFromText('{s}', 4326)")))
        .collect();
    out.push(Spec { ty: "GEOMETRY".into(), kind: Kind::Geometry, values });
    for shape in shapes {
        let ty = shape.split('(').next().unwrap();
        out.push(spec(Kind::Geometry, ty, &[&format!("ST_GeomFromText('{shape}')")]));
    }
    if mariadb {
        out.push(spec(
            Kind::Text,
            "UUID",
            &[
                "'00112233-4455-6677-8899-aabbccddeeff'",
                "'6ccd780c-baba-1026-9564-5b8c656024db'",
                "'00000000-0000-0000-0000-000000000000'",
            ],
        ));
        for (ty, kind) in [
            ("VARCHAR(3000) COMPRESSED", Kind::Text),
            ("TEXT COMPRESSED CHARACTER SET gbk", Kind::Text),
            ("BLOB COMPRESSED", Kind::Bytes),
            ("VARBINARY(20) COMPRESSED", Kind::Bytes),
        ] {
            out.push(spec(kind, ty, &["''", "'short'", "REPEAT('k', 20)"]));
        }
        out.push(spec(Kind::Text, "LONGTEXT COMPRESSED", &["REPEAT('绿', 30000)", "''"]));
        out.push(spec(Kind::Text, "INET4", &["'0.0.0.0'", "'255.255.255.255'", "'10.0.0.0'"]));
        out.push(spec(
            Kind::Text,
            "INET6",
            &["'::'", "'::1'", "'::ffff:1.2.3.4'", "'2001:db8::ff00:42:8329'", "'fe80::'"],
        ));
        out.push(spec(Kind::Json, "JSON", &["'{\"a\":\\n [1,\\t2]}'", "' [1 ]'", "'1.50'"]));
    } else {
        out.push(spec(Kind::Json, "JSON", &[
            "JSON_OBJECT('dec', CAST(-12.50 AS DECIMAL(10,2)), 'big', 12345678901234567890123456789.000)",
            "JSON_OBJECT('d', CAST('2026-01-02' AS DATE), 'dt', CAST('2026-01-02 03:04:05.120' AS DATETIME(3)), 't', CAST('-12:34:56.5' AS TIME(1)))",
            "JSON_ARRAY(CAST('2026-01-02 03:04:05' AS DATETIME), TIME'838:59:59', DATE'1000-01-01', YEAR('2026-01-01'))",
            "JSON_OBJECT('bit', b'101', 'blob', X'00FF', 'long', CAST(REPEAT('x', 200) AS BINARY), 'empty', X'')",
            "JSON_ARRAY(0.10, [1], '1.50', -0.5)".replace("[1]", "JSON_ARRAY(1.0)").as_str(),
            "JSON_ARRAY(1.0, -1e-7, 1.2345678901234567e17, 0.30000000000000004)",
        ]));
        out.push(spec(
            Kind::Vector,
            "VECTOR(3)",
            &["STRING_TO_VECTOR('[1,-2.5,1e-30]')", "STRING_TO_VECTOR('[0,0.1,3.4e38]')"],
        ));
    }
    out
}
