//! A real MySQL server judges our expressions: the same rows, the same text, the same answer, row by row.
#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

mod generator;

use base::value::{
    Date, DateTime, datetime_to_timestamp, format_datetime, format_time, timestamp_to_datetime,
};
use base::{Column, ColumnType, Generated, RowBuf, Table, TableName, Value};
use flow::config::FlowConfig;
use flow::transform::{EvalError, TablePlan, Transform, TransformError};
use proptest::strategy::{Strategy, ValueTree};
use std::sync::Arc;
use testkit::mysql_async::{self, prelude::Queryable};
use testkit::{MySql, MySqlOptions};

/// A column of the judged table: how the server makes it, how we know it, and its values (as SQL and as ours).
struct Judged {
    column: Column,
    values: Vec<(String, Value)>,
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Five values; NULL becomes the second row's.
fn judged_column<V>(
    name: &str,
    ty: ColumnType,
    sql_type: &str,
    values: [V; 5],
    made: impl Fn(&V) -> (String, Value),
) -> Judged {
    let collation = sql_type.split_once(" collate ").map(|(_, collation)| collation.to_owned());
    let column = Column {
        name: name.into(),
        ty,
        sql_type: sql_type.into(),
        nullable: true,
        charset: collation.as_ref().map(|_| "utf8mb4".to_owned()),
        collation,
        generated: Generated::No,
        invisible: false,
    };
    let mut values: Vec<_> = values.iter().map(made).collect();
    values.insert(1, ("NULL".into(), Value::Null));
    Judged { column, values }
}

/// Six rows: ordinary, NULL everywhere, edges, and unicode.
fn judged() -> Vec<Judged> {
    let int = |v: &i64| (v.to_string(), Value::Int(*v));
    let unsigned = |v: &u64| (v.to_string(), Value::UInt(*v));
    let decimal = |v: &&str| ((*v).to_owned(), Value::Decimal((*v).into()));
    let text = |v: &&str| (quoted(v), Value::Text((*v).into()));
    let at = |date, hour, minute, second, micro| DateTime { date, hour, minute, second, micro };
    let day = |year, month, day| Date { year, month, day };
    let moments = [
        at(day(2026, 1, 2), 3, 4, 5, 120_000),
        at(day(1970, 1, 1), 0, 0, 1, 0),
        at(day(2037, 12, 31), 23, 59, 59, 999_000),
        at(day(2024, 2, 29), 12, 0, 0, 0),
        at(day(2026, 1, 31), 0, 0, 0, 0),
    ];
    let moment_text = |v: &DateTime| quoted(&format_datetime(*v, 3));
    let varchar = |name: &str, collation: &str, values: [&'static str; 5]| {
        let sql_type = format!("varchar(40) collate {collation}");
        judged_column(name, ColumnType::Text { chars_max: 40 }, &sql_type, values, text)
    };
    let labels = |all: [&str; 3]| all.map(str::to_owned).to_vec();
    let mut id = judged_column("id", ColumnType::BigInt { unsigned: false }, "bigint", [1, 3, 4, 5, 6], int);
    id.values[1] = ("2".into(), Value::Int(2));
    let second = 1_000_000;
    vec![
        id,
        judged_column("i", ColumnType::Int { unsigned: false }, "int", [5, -7, 2_147_483_647, 0, 12], int),
        judged_column(
            "l",
            ColumnType::BigInt { unsigned: false },
            "bigint",
            [7, -1, i64::MAX, i64::MIN, 3],
            int,
        ),
        judged_column(
            "u",
            ColumnType::BigInt { unsigned: true },
            "bigint unsigned",
            [5, 0, u64::MAX, 1 << 63, 65],
            unsigned,
        ),
        judged_column(
            "price",
            ColumnType::Decimal { precision: 10, scale: 2 },
            "decimal(10,2)",
            ["12.50", "-0.01", "99999999.99", "0.00", "3.14"],
            decimal,
        ),
        judged_column(
            "wide",
            ColumnType::Decimal { precision: 38, scale: 10 },
            "decimal(38,10)",
            [
                "1.0000000000",
                "-1234567890123456789012345678.0123456789",
                "9999999999999999999999999999.9999999999",
                "0.0000000001",
                "2.5000000000",
            ],
            decimal,
        ),
        judged_column("d", ColumnType::Double, "double", [0.1, -1e-7, 1e300, 2.5, 123_456.789], |v| {
            (format!("{v:e}"), Value::Double(*v))
        }),
        judged_column("f", ColumnType::Float, "float", [0.1, -2.5, 3.4e38, 0.0, 1234.5], |v| {
            (format!("{v:e}"), Value::Float(*v))
        }),
        judged_column("b", ColumnType::Bit { bits: 10 }, "bit(10)", [65, 0, 1023, 1, 2], |v| {
            (v.to_string(), Value::Bit(*v))
        }),
        judged_column("y", ColumnType::Year, "year", [2026, 0, 2155, 1901, 2000], |v| {
            (v.to_string(), Value::Year(*v))
        }),
        judged_column(
            "da",
            ColumnType::Date,
            "date",
            [day(2026, 1, 31), day(1969, 12, 31), day(9999, 12, 31), day(2024, 2, 29), day(2026, 12, 5)],
            |v| (quoted(&v.to_string()), Value::Date(*v)),
        ),
        judged_column("dt", ColumnType::DateTime { fsp: 3 }, "datetime(3)", moments, |v| {
            (moment_text(v), Value::DateTime(*v))
        }),
        judged_column("ts", ColumnType::Timestamp { fsp: 3 }, "timestamp(3) null", moments, |v| {
            (moment_text(v), Value::Timestamp(datetime_to_timestamp(*v)))
        }),
        judged_column(
            "dt0",
            ColumnType::DateTime { fsp: 0 },
            "datetime",
            moments.map(|v| DateTime { micro: 0, ..v }),
            |v| (moment_text(v), Value::DateTime(*v)),
        ),
        judged_column(
            "ti",
            ColumnType::Time { fsp: 2 },
            "time(2)",
            [36_672 * second + 500_000, -second, 3_020_399 * second, -3_020_399 * second, 0],
            |v| (quoted(&format_time(*v, 2)), Value::Time(*v)),
        ),
        varchar("c", "utf8mb4_0900_ai_ci", ["Hello", "", "Straße ÉCOLE", " 12abc ", "a%b_c\\d"]),
        varchar("g", "utf8mb4_general_ci", ["Hello ", "x", "straSe ecole", "12abc", "日本語 テキスト"]),
        varchar("uni", "utf8mb4_unicode_ci", ["HELLO", "œuf", "STRASSE", "é", "Ünïcode"]),
        varchar("cs", "utf8mb4_0900_as_cs", ["Hello", "hello", "École", "ecole", "z"]),
        varchar("bi", "utf8mb4_bin", ["Hello", "hello ", "a,b,c", "-3.75xyz", "2026-02-03 04:05:06.789"]),
        judged_column(
            "vb",
            ColumnType::VarBinary { bytes_max: 20 },
            "varbinary(20)",
            [&b"Hello"[..], b"", b"\x00\xff\x80", b"12", b"a%b"],
            |v| {
                let hex: String = v.iter().map(|b| format!("{b:02x}")).collect();
                (format!("x'{hex}'"), Value::Bytes(v.to_vec()))
            },
        ),
        judged_column(
            "e",
            ColumnType::Enum { labels: labels(["small", "Medium", "10"]) },
            "enum('small','Medium','10') collate utf8mb4_0900_ai_ci",
            [1, 2, 3, 1, 2],
            |v| (v.to_string(), Value::Enum(*v)),
        ),
        judged_column(
            "s",
            ColumnType::Set { labels: labels(["a", "b", "c"]) },
            "set('a','b','c') collate utf8mb4_0900_ai_ci",
            [5, 0, 7, 2, 1],
            |v| (v.to_string(), Value::Set(*v)),
        ),
        judged_column(
            "j",
            ColumnType::Json,
            "json",
            [
                r#"{"a": {"b": [1, 2.5, "x"]}, "n": 5, "s": "Héllo \"w\"", "t": true, "z": null}"#,
                "[1, 2, 3]",
                r#"{"a": [], "n": -1.5, "s": "", "t": false}"#,
                r#""just text""#,
                r#"{"n": "12abc", "s": "x\ny", "t": 1, "key with space": 7}"#,
            ],
            |v| (quoted(v), Value::Json((*v).into())),
        ),
    ]
}

fn judged_table(columns: &[Judged]) -> Arc<Table> {
    Arc::new(Table {
        id: 1,
        version: 1,
        name: TableName::new("shop", "judged"),
        columns: columns.iter().map(|c| c.column.clone()).collect(),
        key: vec![0],
        unique_keys: vec![],
    })
}

fn plan_of(text: &str, table: &Arc<Table>) -> Result<TablePlan, TransformError> {
    let step = serde_json::json!({"from": "a", "to": "b", "transform": [{"set": {"answer": text}}]});
    let flow: FlowConfig = serde_json::from_value(step).unwrap();
    Transform::compile(&flow).map_err(|mut errors| errors.remove(0))?.plan(table)
}

/// Our answers, a row each.
fn ours(plan: &TablePlan, rows: &[RowBuf]) -> Result<Vec<Value>, EvalError> {
    rows.iter().map(|row| Ok(plan.apply(row.view())?.unwrap().pop().unwrap())).collect()
}

/// A value as the server's text protocol prints it; doubles are compared as numbers.
fn printed(value: &Value, column: &Column) -> Option<Vec<u8>> {
    let fsp = match column.ty {
        ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => fsp,
        _ => 0,
    };
    Some(match value {
        Value::Null => return None,
        Value::Int(v) => v.to_string().into_bytes(),
        Value::UInt(v) => v.to_string().into_bytes(),
        Value::Bit(v) => v.to_be_bytes()[6..].to_vec(),
        Value::Double(v) => base::value::format_double(*v).into_bytes(),
        Value::Float(v) => base::value::format_float(*v).into_bytes(),
        Value::Decimal(v) | Value::Text(v) | Value::Json(v) => v.clone().into_bytes(),
        Value::Date(v) => v.to_string().into_bytes(),
        Value::DateTime(v) => format_datetime(*v, fsp).into_bytes(),
        Value::Timestamp(v) => format_datetime(timestamp_to_datetime(*v), fsp).into_bytes(),
        Value::Time(v) => format_time(*v, fsp).into_bytes(),
        Value::Year(v) => format!("{v:04}").into_bytes(),
        Value::Enum(ordinal) => base::json::enum_label(column, *ordinal).as_bytes().to_vec(),
        Value::Set(bits) => base::json::set_labels(column, *bits).collect::<Vec<_>>().join(",").into_bytes(),
        Value::Bytes(v) => v.clone(),
        other => format!("{other:?}").into_bytes(),
    })
}

/// The same answer: the same text; the same number where a column's type fixes how a number prints.
fn same(ours: Option<&[u8]>, theirs: Option<&[u8]>, column: &Column) -> bool {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return ours.is_none() && theirs.is_none() };
    let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse::<f64>().unwrap();
    let trimmed = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match column.ty {
        ColumnType::Double => number(ours).to_bits() == number(theirs).to_bits(),
        ColumnType::Float => number(ours) as f32 == number(theirs) as f32,
        // IF and CASE print a branch with its own digits; a column has one number of digits.
        ColumnType::Decimal { .. } => trimmed(ours) == trimmed(theirs),
        _ => ours == theirs,
    }
}

/// The lines of the list, without comments.
fn expressions() -> Vec<&'static str> {
    let lines = include_str!("expressions.txt").lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The examples of the manual page: lines of its `sql` blocks.
fn examples() -> Vec<&'static str> {
    let page = include_str!("../../../docs/concepts/expressions.md");
    let blocks = page.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" -- ").next().unwrap().trim());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_manual_names_every_function() {
    let page = include_str!("../../../docs/concepts/expressions.md").to_lowercase();
    for name in flow::transform::function_names() {
        let named = page.contains(&format!("`{name}`")) || ["cast", "convert", "case"].contains(&name);
        assert!(named, "docs/concepts/expressions.md says nothing of {name}");
    }
}

async fn server_with(columns: &[Judged]) -> (MySql, mysql_async::Conn) {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let definitions: Vec<_> =
        columns.iter().map(|c| format!("`{}` {}", c.column.name, c.column.sql_type)).collect();
    let mut conn = server.conn().await.unwrap();
    let modes: String = conn.query_first("select @@sql_mode").await.unwrap().unwrap();
    for sql in [
        "create database shop".to_owned(),
        "use shop".to_owned(),
        "set names utf8mb4 collate utf8mb4_0900_ai_ci".to_owned(),
        "set time_zone = '+00:00'".to_owned(),
        format!("create table judged ({})", definitions.join(", ")),
        // The edges hold what the default modes would not let in.
        "set sql_mode = ''".to_owned(),
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    for row in 0..columns[0].values.len() {
        let values: Vec<_> = columns.iter().map(|c| c.values[row].0.as_str()).collect();
        conn.query_drop(format!("insert into judged values ({})", values.join(", "))).await.unwrap();
    }
    conn.query_drop(format!("set sql_mode = '{modes}'")).await.unwrap();
    (server, conn)
}

/// What the server answers, a row each; its error otherwise.
async fn theirs(conn: &mut mysql_async::Conn, text: &str) -> Result<Vec<Option<Vec<u8>>>, String> {
    let rows: Result<Vec<mysql_async::Row>, _> =
        conn.query(format!("select {text} from judged order by id")).await;
    let bytes = |row: mysql_async::Row| match row.unwrap().pop().unwrap() {
        mysql_async::Value::NULL => None,
        mysql_async::Value::Bytes(bytes) => Some(bytes),
        other => panic!("the text protocol has text only, not {other:?}"),
    };
    Ok(rows.map_err(|e| e.to_string())?.into_iter().map(bytes).collect())
}

async fn judge(conn: &mut mysql_async::Conn, text: &str, table: &Arc<Table>, rows: &[RowBuf]) -> Vec<String> {
    let theirs = theirs(conn, text).await;
    let plan = match plan_of(text, table) {
        Ok(plan) => plan,
        // A constant without a value fails in both.
        Err(error) if error.message.contains("never has a value") && theirs.is_err() => return vec![],
        Err(error) => return vec![format!("{text}: refused: {error}; theirs {theirs:?}")],
    };
    let column = plan.table().columns.last().unwrap();
    let (ours, theirs) = match (ours(&plan, rows), theirs) {
        (Err(_), Err(_)) => return vec![],
        (Err(error), Ok(_)) => return vec![format!("{text}: only we fail: {error}")],
        (Ok(_), Err(error)) => return vec![format!("{text}: only the server fails: {error}")],
        (Ok(ours), Ok(theirs)) => (ours, theirs),
    };
    let mut wrong = Vec::new();
    for (row, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let ours = printed(ours, column);
        if !same(ours.as_deref(), theirs.as_deref(), column) {
            let show = |v: &Option<Vec<u8>>| v.as_ref().map(|v| String::from_utf8_lossy(v).into_owned());
            let (row, sql_type) = (row + 1, &column.sql_type);
            wrong.push(format!(
                "{text} [{sql_type}], row {row}: ours {:?}, theirs {:?}",
                show(&ours),
                show(theirs)
            ));
        }
    }
    wrong
}

#[tokio::test]
async fn every_expression_answers_as_the_server_does() {
    let columns = judged();
    let table = judged_table(&columns);
    let row = |row: usize| RowBuf::from_values(columns.iter().map(|c| c.values[row].1.as_ref()));
    let rows: Vec<RowBuf> = (0..columns[0].values.len()).map(row).collect();
    let (_server, mut conn) = server_with(&columns).await;
    let examples = examples();
    assert!(examples.len() >= 10, "the manual has {} examples", examples.len());
    let all: Vec<_> = expressions().into_iter().chain(examples).collect();
    assert!(all.len() > 200, "{} expressions are few", all.len());
    let mut wrong = Vec::new();
    for text in &all {
        wrong.extend(judge(&mut conn, text, &table, &rows).await);
        // Once more as text: how a number or date prints inside other expressions.
        let joined = format!("concat({text})");
        if plan_of(&joined, &table).is_ok() {
            wrong.extend(judge(&mut conn, &joined, &table, &rows).await);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answers of {} expressions differ:\n{}",
        wrong.len(),
        all.len(),
        wrong.join("\n")
    );
}

/// Refusals are right by themselves; whatever is answered must be the server's answer.
#[tokio::test]
async fn random_expressions_are_refused_or_answer_as_the_server_does() {
    let columns = judged();
    let table = judged_table(&columns);
    let row = |row: usize| RowBuf::from_values(columns.iter().map(|c| c.values[row].1.as_ref()));
    let rows: Vec<RowBuf> = (0..columns[0].values.len()).map(row).collect();
    let (_server, mut conn) = server_with(&columns).await;
    let names: Vec<String> = columns.iter().map(|c| c.column.name.clone()).collect();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = generator::expression(names);
    let count: usize =
        std::env::var("TIDEMILL_EXPRESSIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let (mut judged, mut wrong) = (0, Vec::new());
    for _ in 0..count {
        let text = strategy.new_tree(&mut runner).unwrap().current();
        if plan_of(&text, &table).is_ok() {
            judged += 1;
            let differs = judge(&mut conn, &text, &table, &rows).await;
            // A column has fewer digits than a SELECT shows; and text that is never compared may mix collations.
            let allowed =
                ["out of range for DECIMAL", "DECIMAL value is out of range", "Illegal mix of collations"];
            wrong.extend(differs.into_iter().filter(|line| !allowed.iter().any(|part| line.contains(part))));
        }
    }
    assert!(judged > count / 10, "{judged} of {count} are few");
    assert!(
        wrong.is_empty(),
        "{} answers of {judged} expressions differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
