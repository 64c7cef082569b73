//! Rows that come from elsewhere: the same on a file and on the servers.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::value::{Date, DateTime};
use base::{Column, ColumnType, Generated, Value};
use engine::{Engine, Options, Write, cell_text, create_sql, kept};
use std::path::Path;

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

fn columns() -> Vec<Column> {
    let labels = || vec!["red".to_owned(), "green".to_owned()];
    vec![
        column("id", ColumnType::BigInt { unsigned: true }, "bigint unsigned"),
        column("name", ColumnType::Text { chars_max: 40 }, "varchar(40)"),
        column("price", ColumnType::Decimal { precision: 30, scale: 4 }, "decimal(30,4)"),
        column("colour", ColumnType::Enum { labels: labels() }, "enum('red','green')"),
        column("both", ColumnType::Set { labels: labels() }, "set('red','green')"),
        column("at", ColumnType::Timestamp { fsp: 3 }, "timestamp(3)"),
        column("day", ColumnType::Date, "date"),
        column("made", ColumnType::DateTime { fsp: 6 }, "datetime(6)"),
        column("took", ColumnType::Time { fsp: 2 }, "time(2)"),
        column("doc", ColumnType::Json, "json"),
        column("flag", ColumnType::Bit { bits: 3 }, "bit(3)"),
        column("ratio", ColumnType::Double, "double"),
        column("raw", ColumnType::VarBinary { bytes_max: 65_535 }, "blob"),
        column("year", ColumnType::Year, "year"),
    ]
}

fn row(id: u64, name: &str) -> Vec<Value> {
    let day = Date { year: 2026, month: 2, day: 28 };
    vec![
        Value::UInt(id),
        Value::Text(name.into()),
        Value::Decimal("-12345678901234567890.1234".into()),
        Value::Enum(2),
        Value::Set(0b11),
        Value::Timestamp(1_700_000_000_123_000),
        Value::Date(day),
        Value::DateTime(DateTime { date: day, hour: 23, minute: 59, second: 59, micro: 123_456 }),
        Value::Time(-3_600_250_000),
        Value::Json(r#"{"a": 1}"#.into()),
        Value::Bit(5),
        Value::Double(0.1),
        Value::Bytes(vec![0, 255, 39]),
        Value::Year(2026),
    ]
}

async fn texts(engine: &dyn Engine, sql: &str) -> Vec<Vec<Option<String>>> {
    let rows = engine.query(sql).await.unwrap();
    let columns = rows.columns.clone();
    let all = rows.all(1000).await.unwrap();
    all.iter().map(|row| row.iter().zip(&columns).map(|(v, c)| cell_text(v, c)).collect()).collect()
}

/// What is left of the loads, as text.
async fn loaded(engine: &dyn Engine) -> Vec<Vec<Vec<Option<String>>>> {
    engine.prepare_dataset("ods").await.unwrap();
    engine.prepare_dataset("ods").await.unwrap();
    let from = columns();
    let to: Vec<Column> = from.iter().map(|it| kept(it, it.name == "id")).collect();
    engine.execute(&create_sql("ods.things", &to, &["id".into()])).await.unwrap();
    let put = |rows: Vec<Vec<Value>>, replace: bool| Write::Put {
        table: "ods.things".into(),
        columns: from.clone(),
        rows,
        replace,
    };
    let many: Vec<Vec<Value>> = (1..=1500).map(|id| row(id, "n")).collect();
    assert_eq!(engine.write(vec![put(many, false)]).await.unwrap(), 1500);
    // All or nothing, also of several parts.
    let error =
        engine.write(vec![put(vec![row(2000, "new")], false), put(vec![row(7, "twice")], false)]).await;
    assert_eq!(error.unwrap_err().number(), Some(1062));
    let mut wide = row(2001, "x");
    wide[1] = Value::Text("x".repeat(41));
    let error = engine.write(vec![put(vec![wide], false)]).await.unwrap_err();
    assert_eq!(error.number(), Some(1406), "{error}");
    let mut none = vec![Value::Null; from.len()];
    none[0] = Value::UInt(u64::MAX);
    engine.write(vec![put(vec![row(7, "replaced"), none], true)]).await.unwrap();
    let names = |names: &[&str]| -> Vec<Column> {
        names.iter().map(|name| from.iter().find(|it| it.name == *name).unwrap().clone()).collect()
    };
    let gone = Write::Delete {
        table: "ods.things".into(),
        columns: names(&["id", "colour"]),
        rows: (100..=1499)
            .map(|id| vec![Value::UInt(id), Value::Enum(2)])
            .chain([vec![Value::UInt(u64::MAX), Value::Null], vec![Value::UInt(8), Value::Null]])
            .collect(),
    };
    let done =
        engine.write(vec![gone, Write::Sql("update ods.things set name = 'last' where id = 1500".into())]);
    assert_eq!(done.await.unwrap(), 1402);
    vec![
        texts(engine, "select * from ods.things where id in (7, 1500) order by id").await,
        texts(engine, "select count(*), sum(price), min(id), max(id), sum(flag) from ods.things").await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_loaded_alike_into_a_file_mysql_and_tidb() {
    let folder = tempfile::tempdir().unwrap();
    let file = engine::open("sqlite:w.db", folder.path(), Options::default()).await.unwrap();
    let ours = loaded(&*file).await;
    assert_eq!(ours[0].len(), 2);
    assert_eq!(ours[0][0][1].as_deref(), Some("replaced"));
    assert_eq!(ours[0][0][4].as_deref(), Some("red,green"));
    assert_eq!(file.tables().await.unwrap(), ["ods.things"]);
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await.unwrap();
    server.exec("create database dw").await.unwrap();
    let url = format!("{}/dw", server.url());
    let mysql = engine::open(&url, Path::new("."), Options::default()).await.unwrap();
    assert_eq!(loaded(&*mysql).await, ours);
    assert_eq!(mysql.tables().await.unwrap(), ["ods.things"]);
    let server = testkit::TiDb::start(testkit::TiDbOptions::default()).await.unwrap();
    server.exec("create database dw").await.unwrap();
    let url = format!("{}/dw", server.url());
    let tidb = engine::open(&url, Path::new("."), Options::default()).await.unwrap();
    assert_eq!(loaded(&*tidb).await, ours);
    assert_eq!(tidb.tables().await.unwrap(), ["ods.things"]);
}
