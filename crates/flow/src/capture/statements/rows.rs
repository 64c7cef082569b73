//! A captured record as a row.

use base::{Column, ColumnType, Generated, Table, TableName, Value};
use mysql::captured::{Flags, Kind, Record};

/// The one table; its database is the source's name.
pub const TABLE: &str = "statements";
/// The last second of a TIMESTAMP of MySQL.
const SECONDS_MAX: u64 = 2_147_483_647;

/// Whether a record is a row: what only accompanies statements is not.
pub fn is_kept(kind: Kind) -> bool {
    match kind {
        Kind::Begin
        | Kind::End
        | Kind::Query
        | Kind::Prepare
        | Kind::Execute
        | Kind::BulkExecute
        | Kind::InitDatabase
        | Kind::ResetConnection
        | Kind::ChangeUser => true,
        Kind::LongData | Kind::Close | Kind::ResetStatement | Kind::Fetch | Kind::SetOption => false,
    }
}

pub fn table(source: &str, version: u32) -> Table {
    let text = |name: &str, chars: u64| (name.to_owned(), ColumnType::Text { chars_max: chars });
    let whole = |name: &str| (name.to_owned(), ColumnType::BigInt { unsigned: true });
    let truth = |name: &str| (name.to_owned(), ColumnType::TinyInt { unsigned: false });
    let long = u64::from(u32::MAX);
    let columns = [
        text("id", 80),
        ("at".to_owned(), ColumnType::Timestamp { fsp: 6 }),
        text("kind", 20),
        whole("session"),
        text("user", 255),
        text("database", 255),
        text("group", 255),
        text("server", 255),
        truth("replica"),
        whole("elapsed_us"),
        whole("rows"),
        whole("bytes"),
        whole("error"),
        text("digest", 16),
        text("answer", 16),
        whole("statement"),
        truth("left_out"),
        truth("cut"),
        text("text", long),
        text("parameters", long),
    ];
    let columns = columns.into_iter().map(|(name, ty)| column(name, ty)).collect();
    let name = TableName::new(source, TABLE);
    Table { id: 1, version, name, columns, key: vec![0], unique_keys: vec![] }
}

fn column(name: String, ty: ColumnType) -> Column {
    let (sql_type, is_text) = match ty {
        ColumnType::Text { chars_max } if chars_max > 255 => ("longtext".to_owned(), true),
        ColumnType::Text { chars_max } => (format!("varchar({chars_max})"), true),
        ColumnType::Timestamp { fsp } => (format!("timestamp({fsp})"), false),
        ColumnType::TinyInt { .. } => ("tinyint(1)".to_owned(), false),
        _ => ("bigint unsigned".to_owned(), false),
    };
    Column {
        nullable: matches!(&*name, "answer" | "parameters"),
        name,
        ty,
        sql_type,
        charset: is_text.then(|| "utf8mb4".to_owned()),
        collation: is_text.then(|| "utf8mb4_bin".to_owned()),
        generated: Generated::No,
        invisible: false,
    }
}

/// `offset` is the record's own in its file: with the file's name it is its identity.
pub fn row(file: &str, offset: u64, record: &Record<'_>) -> Vec<Value> {
    let shown = record.shown();
    let file = file.strip_prefix("sql-").unwrap_or(file);
    let file = file.strip_suffix(".capture").unwrap_or(file);
    let truth = |is: bool| Value::Int(i64::from(is));
    let whole = Value::UInt;
    vec![
        Value::Text(format!("{file}-{offset:010}")),
        at(shown.at_us),
        Value::Text(shown.kind.name().to_owned()),
        whole(u64::from(shown.session)),
        Value::Text(shown.user),
        Value::Text(shown.database),
        Value::Text(shown.group),
        Value::Text(shown.server),
        truth(record.flags.has(Flags::REPLICA)),
        whole(u64::from(shown.elapsed_us)),
        whole(shown.rows),
        whole(shown.bytes),
        whole(u64::from(shown.error)),
        Value::Text(shown.digest),
        shown.hash.map_or(Value::Null, Value::Text),
        whole(u64::from(shown.statement)),
        truth(shown.left_out),
        truth(shown.cut),
        Value::Text(shown.text),
        if shown.parameters.is_empty() { Value::Null } else { Value::Text(shown.parameters) },
    ]
}

/// The row of statements that are lost.
pub fn gap(now_us: u64, reason: &str) -> Vec<Value> {
    let none = || Value::Text(String::new());
    let zero = || Value::UInt(0);
    let no = || Value::Int(0);
    vec![
        Value::Text(format!("gap-{now_us:016}")),
        at(now_us),
        Value::Text("gap".to_owned()),
        zero(),
        none(),
        none(),
        none(),
        none(),
        no(),
        zero(),
        zero(),
        zero(),
        zero(),
        none(),
        Value::Null,
        zero(),
        no(),
        no(),
        Value::Text(format!("statements are missing: {reason}")),
        Value::Null,
    ]
}

fn at(us: u64) -> Value {
    let clamped = us.clamp(1_000_000, SECONDS_MAX * 1_000_000);
    Value::Timestamp(i64::try_from(clamped).unwrap_or_default())
}

pub fn millis(us: u64) -> i64 {
    i64::try_from(us / 1000).unwrap_or_default()
}
