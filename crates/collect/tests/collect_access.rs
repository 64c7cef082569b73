//! Access files that Jackcess wrote, and what mdbtools reads in them.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::{Date, DateTime, Value};
use collect::reader::{BadRow, ReadError, Reader, Scope};
use collect::readers::access::Access;
use collect::readers::config::AccessConfig;
use std::fs;
use std::path::{Path, PathBuf};

const FILES: [&str; 6] = [
    "access_2000.mdb",
    "access_2003.mdb",
    "access_2007.accdb",
    "access_2010.accdb",
    "access_2016.accdb",
    "access_2019.accdb",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn source(folder: &Path, file: &str) -> Access {
    let config: AccessConfig = serde_saphyr::from_str(&format!("kind: access\npath: {file}")).unwrap();
    Access::new(config, folder)
}

struct Whole {
    types: Vec<(String, String)>,
    key: Vec<String>,
    rows: Vec<Vec<Value>>,
    bad: Vec<BadRow>,
}

async fn whole(source: &mut Access, table: &str) -> Result<Whole, ReadError> {
    let described = source.describe(table).await?;
    let mut batches = source.read(&described, Scope::All).await?;
    let types = described.columns.iter().map(|it| (it.name.clone(), it.sql_type.clone())).collect();
    let mut whole = Whole { types, key: described.key, rows: Vec::new(), bad: Vec::new() };
    while let Some(batch) = batches.next().await? {
        whole.rows.extend(batch.rows);
        whole.bad.extend(batch.bad);
    }
    Ok(whole)
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn decimal(text: &str) -> Value {
    Value::Decimal(text.into())
}

#[tokio::test]
async fn files_of_all_ages_are_read_as_they_were_written() {
    for file in FILES {
        let mut source = source(&fixtures(), file);
        assert_eq!(source.tables().await.unwrap(), ["many", "people"]);
        let people = whole(&mut source, "people").await.unwrap();
        assert_eq!(people.bad, [], "{file}");
        let mut types = vec![
            ("编号", "int"),
            ("name", "varchar(40)"),
            ("note", "longtext"),
            ("active", "tinyint(1)"),
            ("age", "tinyint unsigned"),
            ("small", "smallint"),
            ("weight", "float"),
            ("height", "double"),
            ("salary", "decimal(19,4)"),
            ("share", "decimal(18,6)"),
            ("born", "datetime"),
            ("guid", "uuid"),
            ("photo", "longblob"),
        ];
        let date = Date { year: 2026, month: 1, day: 31 };
        let born = DateTime { date, hour: 8, minute: 30, second: 15, micro: 0 };
        let guid = text("11111111-2222-3333-4444-555555abcdef");
        let mut first = vec![
            Value::Int(1),
            text("张三"),
            text(&"长".repeat(2100)),
            Value::Int(1),
            Value::UInt(255),
            Value::Int(-32768),
            Value::Float(1.5),
            Value::Double(0.1),
            decimal("922337203685477.5807"),
            decimal("123456789012.345678"),
            Value::DateTime(born),
            guid.clone(),
            Value::Bytes(vec![0, 1, 255]),
        ];
        let mut third = vec![Value::Null; 13];
        (third[0], third[3]) = (Value::Int(3), Value::Int(0));
        if file > "access_2016" {
            types.push(("large", "bigint"));
            first.push(Value::Int(i64::MAX));
            third.push(Value::Null);
        }
        if file > "access_2019" {
            types.push(("exact", "datetime(6)"));
            first.push(Value::DateTime(DateTime { micro: 123_456, ..born }));
            third.push(Value::Null);
        }
        let types: Vec<_> = types.into_iter().map(|(name, ty)| (name.to_owned(), ty.to_owned())).collect();
        assert_eq!((&people.types, &people.key[..]), (&types, &["编号".to_owned()][..]), "{file}");
        assert_eq!((&people.rows[0], &people.rows[2]), (&first, &third), "{file}");
        let second = &people.rows[1];
        assert_eq!(second[1], text("O'Neil, \"x\"\nnext"));
        assert_eq!(
            (&second[7], &second[8], &second[9]),
            (&Value::Double(-1e300), &decimal("-0.0001"), &decimal("-0.000001"))
        );
        let long_ago =
            DateTime { date: Date { year: 1899, month: 12, day: 29 }, hour: 6, ..DateTime::default() };
        assert_eq!((&second[10], &second[12]), (&Value::DateTime(long_ago), &Value::Bytes(vec![0; 9000])));
        let many = whole(&mut source, "many").await.unwrap();
        let numbers: Vec<Value> = (0..600).filter(|n| n % 3 != 0).map(Value::Int).collect();
        assert_eq!(many.rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), numbers, "{file}");
    }
}

/// mdbtools 1.0 prints no Large Number and no Date/Time Extended, dates before 1899-12-30 wrong, and a GUID without its last dash.
#[tokio::test]
async fn mdbtools_reads_the_same() {
    for file in FILES {
        let people = whole(&mut source(&fixtures(), file), "people").await.unwrap();
        let mut theirs = csv::Reader::from_path(fixtures().join(format!("{file}.csv"))).unwrap();
        let names: Vec<&str> = people.types.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(theirs.headers().unwrap().iter().collect::<Vec<_>>(), names, "{file}");
        for (ours, theirs) in people.rows.iter().zip(theirs.records().map(Result::unwrap)) {
            for (at, (value, theirs)) in ours.iter().zip(&theirs).enumerate().filter(|(at, _)| *at < 13) {
                let shown = match value {
                    Value::Null => String::new(),
                    Value::Int(it) => it.to_string(),
                    Value::UInt(it) => it.to_string(),
                    Value::Float(it) => it.to_string(),
                    Value::Double(it) if *it == -1e300 => "-1e+300".to_owned(),
                    Value::Double(it) => it.to_string(),
                    Value::Decimal(it) => it.clone(),
                    Value::DateTime(it) if it.date.year < 1900 => theirs.to_owned(),
                    Value::DateTime(it) => base::value::format_datetime(*it, 0),
                    Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
                    Value::Text(_) if names[at] == "guid" => theirs.to_owned(),
                    Value::Text(text) => text.clone(),
                    other => panic!("{other:?}"),
                };
                assert_eq!(shown, theirs, "{file}: {}", names[at]);
            }
        }
    }
}

#[tokio::test]
async fn damaged_files_are_errors_or_bad_rows_and_never_fewer_rows_without_a_word() {
    for file in ["access_2000.mdb", "access_2019.accdb"] {
        let bytes = fs::read(fixtures().join(file)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let mut cut = source(folder.path(), file);
        let error = match cut.tables().await {
            Err(error) => error,
            Ok(_) => whole(&mut cut, "many").await.err().unwrap(),
        };
        assert!(error.to_string().contains(&format!("{file} cannot be read as an Access file")), "{error}");
        for at in (0..bytes.len()).step_by(4096 / 2 + 7).skip(1) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            fs::write(&path, damaged).unwrap();
            let mut source = source(folder.path(), file);
            if let Ok(many) = whole(&mut source, "many").await {
                assert!(
                    many.rows.len() == 400 || !many.bad.is_empty(),
                    "{file} at {at}: {} rows",
                    many.rows.len()
                );
            }
        }
        fs::write(&path, "no database").unwrap();
        let error = source(folder.path(), file).tables().await.err().unwrap();
        assert!(error.to_string().contains("cannot be read as an Access file"), "{error}");
    }
    let error = source(Path::new("."), "gone.mdb").tables().await.err().unwrap();
    assert_eq!(base::Fault::retry(&error), base::Retry::Backoff);
}

#[tokio::test]
async fn columns_are_read_alone_and_from_a_cursor_on() {
    let mut source = source(&fixtures(), "access_2007.accdb");
    let many = source.describe("many").await.unwrap();
    let mut batches = source.read(&many, Scope::Columns(vec!["t".into()])).await.unwrap();
    assert_eq!(batches.next().await.unwrap().unwrap().rows[0], [text("row 1")]);
    let scope = Scope::From { column: "n".into(), value: Some(Value::Int(590)) };
    let mut batches = source.read(&many, scope).await.unwrap();
    assert_eq!(batches.next().await.unwrap().unwrap().rows.len(), 7);
    assert_eq!(source.describe("MSysObjects").await, Err(ReadError::NoTable("MSysObjects".into())));
}

#[tokio::test]
async fn a_password_opens_a_file_and_another_does_not() {
    let file = "access_password.accdb";
    let with = |password: &str| {
        let config = format!("kind: access\npath: {file}\n{password}");
        Access::new(serde_saphyr::from_str(&config).unwrap(), &fixtures())
    };
    let people = whole(&mut with("password: geheim"), "people").await.unwrap();
    let plain = whole(&mut source(&fixtures(), "access_2010.accdb"), "people").await.unwrap();
    assert_eq!((people.rows, people.types), (plain.rows, plain.types));
    for (password, wanted) in
        [("", "is protected by a password"), ("password: s3cret", "does not open with this password")]
    {
        let error = with(password).tables().await.err().unwrap();
        assert!(matches!(error, ReadError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(wanted) && !error.to_string().contains("s3cret"), "{error}");
    }
}
