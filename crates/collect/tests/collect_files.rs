//! Tables in files, read as a flow reads them: described, then read.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::{Date, DateTime, Value};
use collect::reader::{BadRow, ReadError, Reader, Scope};
use collect::readers::config::FilesConfig;
use collect::readers::files::Files;
use std::fs;
use std::io::{Cursor, Read as _, Write as _};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

fn source(folder: &Path, rest: &str) -> Files {
    let config: FilesConfig = serde_saphyr::from_str(&format!("kind: files\npath: .\n{rest}")).unwrap();
    Files::new(config, folder)
}

struct Whole {
    types: Vec<(String, String)>,
    rows: Vec<Vec<Value>>,
    bad: Vec<BadRow>,
}

async fn whole(files: &mut Files, table: &str) -> Result<Whole, ReadError> {
    let described = files.describe(table).await?;
    let mut batches = files.read(&described, Scope::All).await?;
    let types = described.columns.iter().map(|it| (it.name.clone(), it.sql_type.clone())).collect();
    let mut whole = Whole { types, rows: Vec::new(), bad: Vec::new() };
    while let Some(batch) = batches.next().await? {
        whole.rows.extend(batch.rows);
        whole.bad.extend(batch.bad);
    }
    Ok(whole)
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn types(types: &[(&str, &str)]) -> Vec<(String, String)> {
    types.iter().map(|(name, ty)| ((*name).to_owned(), (*ty).to_owned())).collect()
}

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[tokio::test]
async fn several_files_are_one_table_whose_columns_are_united_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let gbk =
        encoding_rs::GB18030.encode("编号,金额,备注\n3,12.5,财务部已经审核\n4,x,信息中心\n").0.into_owned();
    fs::write(folder.path().join("orders_01.csv"), "编号,代码\n1,007\n2,\n").unwrap();
    fs::write(folder.path().join("orders_02.csv"), gbk).unwrap();
    fs::write(folder.path().join("people.json"), r#"[{"id": 1}]"#).unwrap();
    fs::write(folder.path().join("~$orders.xlsx"), "a lock").unwrap();
    let rest = "tables: {orders: {files: 'orders_*.csv', key: [编号], encoding: auto, columns: {金额: 'decimal(9,2)'}}}";
    let mut files = source(folder.path(), &rest.replace("encoding: auto, ", ""));
    assert_eq!(files.tables().await.unwrap(), ["orders", "people"]);
    let orders = whole(&mut files, "orders").await.unwrap();
    assert_eq!(
        orders.types,
        types(&[
            ("编号", "bigint"),
            ("代码", "varchar(255)"),
            ("金额", "decimal(9,2)"),
            ("备注", "varchar(255)")
        ])
    );
    let wanted = vec![
        vec![Value::Int(1), text("007"), Value::Null, Value::Null],
        vec![Value::Int(2), Value::Null, Value::Null, Value::Null],
        vec![Value::Int(3), Value::Null, Value::Decimal("12.50".into()), text("财务部已经审核")],
    ];
    assert_eq!(orders.rows, wanted);
    assert_eq!(orders.bad.len(), 1);
    assert_eq!(
        (orders.bad[0].place.as_str(), orders.bad[0].text.as_str()),
        ("orders_02.csv:3", "4,x,信息中心")
    );
    assert!(orders.bad[0].reason.contains("column 金额: `x` is no decimal(9,2)"), "{}", orders.bad[0].reason);
}

#[tokio::test]
async fn json_is_read_item_by_item_with_its_numbers_as_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let items = r#"[
  {"id": 123456789012345678, "price": 0.1, "tags": ["a", "b"], "name": "x\ny"},
  {"id": 2, "price": 19.99, "name": null, "more": true},
  {"id": },
  [1, 2],
  {"id": 3, "price": 1}
]"#;
    fs::write(folder.path().join("items.json"), items).unwrap();
    fs::write(folder.path().join("lines.jsonl"), "{\"a\": 1}\n{\"a\": \"x\"\n\n{\"a\": 2}\n").unwrap();
    fs::write(folder.path().join("cut.json"), &items[..100]).unwrap();
    let mut files = source(folder.path(), "");
    let items = whole(&mut files, "items").await.unwrap();
    let wanted = [
        ("id", "bigint"),
        ("price", "decimal(18,2)"),
        ("tags", "json"),
        ("name", "varchar(255)"),
        ("more", "tinyint(1)"),
    ];
    assert_eq!(items.types, types(&wanted));
    assert_eq!(items.rows[0][0], Value::Int(123_456_789_012_345_678));
    assert_eq!(items.rows[0][2..4], [Value::Json(r#"["a", "b"]"#.into()), text("x\ny")]);
    assert_eq!(items.rows[1][1..], [Value::Decimal("19.99".into()), Value::Null, Value::Null, Value::Int(1)]);
    assert_eq!(items.rows.len(), 3);
    let places: Vec<&str> = items.bad.iter().map(|bad| bad.place.as_str()).collect();
    assert_eq!(places, ["items.json:4", "items.json:5"]);
    let lines = whole(&mut files, "lines").await.unwrap();
    assert_eq!((lines.rows.len(), lines.bad[0].place.as_str()), (2, "lines.jsonl:2"));
    let cut = whole(&mut files, "cut").await.err().unwrap();
    assert!(cut.to_string().contains("the file ends inside of its array"), "{cut}");
}

#[tokio::test]
async fn workbooks_of_both_ages_hold_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in [("new.xlsx", "people.xlsx"), ("old.xls", "people.xls")] {
        fs::copy(fixtures().join(file), folder.path().join(name)).unwrap();
    }
    let rest = "tables: {new.merged: {skip_rows: 1, header_rows: 2}}";
    let mut files = source(folder.path(), rest);
    assert_eq!(files.tables().await.unwrap(), ["new.merged", "new.人员", "old"]);
    let new = whole(&mut files, "new.人员").await.unwrap();
    let wanted = [
        ("编号", "bigint"),
        ("代码", "varchar(255)"),
        ("姓名", "varchar(255)"),
        ("金额", "decimal(18,2)"),
        ("日期", "date"),
        ("时间", "datetime"),
        ("有效", "tinyint(1)"),
        ("比率", "decimal(18,3)"),
    ];
    assert_eq!(new.types, types(&wanted));
    let date = Date { year: 2026, month: 1, day: 31 };
    let first = vec![
        Value::Int(1),
        text("001"),
        text("张三"),
        Value::Decimal("12.50".into()),
        Value::Date(date),
        Value::DateTime(DateTime { date, hour: 8, minute: 30, second: 15, micro: 0 }),
        Value::Int(1),
        Value::Decimal("0.300".into()),
    ];
    assert_eq!(new.rows[0], first);
    assert_eq!(new.rows[2][2], Value::Null);
    let old = whole(&mut files, "old").await.unwrap();
    assert_eq!((&old.types, &old.rows), (&new.types, &new.rows));
    let merged = whole(&mut files, "new.merged").await.unwrap();
    let names: Vec<&str> = merged.types.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["部门", "一月_计划", "一月_实际", "二月_计划", "二月_实际"]);
    assert_eq!(
        merged.rows[1],
        [text("信息"), Value::Int(20), Value::Int(19), Value::Int(18), Value::Int(17)]
    );
}

#[tokio::test]
async fn a_formula_has_its_value_and_one_that_failed_makes_its_row_bad() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join("formulas.xlsx"), folder.path().join("sums.xlsx")).unwrap();
    let sums = whole(&mut source(folder.path(), ""), "sums").await.unwrap();
    assert_eq!(sums.rows, [[Value::Int(1), Value::Int(2), Value::Int(3)]]);
    assert_eq!(sums.bad[0].place, "sums.xlsx:sums:3");
    assert_eq!(sums.bad[0].reason, "C3 is #DIV/0!");
    let rest = "tables: {sums: {nulls: ['', '#DIV/0!']}}";
    let sums = whole(&mut source(folder.path(), rest), "sums").await.unwrap();
    assert_eq!(sums.rows[1], [Value::Int(3), Value::Int(0), Value::Null]);
}

#[tokio::test]
async fn workbooks_that_are_locked_damaged_or_too_large_say_so() {
    for (file, cut, wanted) in [
        ("protected.xlsx", None, "is protected by a password"),
        ("people.xlsx", Some(3000), "cannot be read as a workbook"),
        ("people.xls", Some(2000), "cannot be read as a workbook"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = fs::read(fixtures().join(file)).unwrap();
        fs::write(folder.path().join(file), &bytes[..cut.unwrap_or(bytes.len())]).unwrap();
        let error = source(folder.path(), "").tables().await.err().unwrap();
        assert!(error.to_string().contains(wanted) && error.to_string().contains(file), "{error}");
        assert!(base::Fault::hint(&error).is_some());
    }
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join("people.xlsx"), folder.path().join("people.xlsx")).unwrap();
    let error = source(folder.path(), "excel_max: 1KiB").tables().await.err().unwrap();
    assert!(error.to_string().contains("people.xlsx has"), "{error}");
}

/// The workbook of the fixtures, with a text of its parts replaced, and with these texts for its cells.
fn changed(old: &str, new: &str, texts: &str) -> Vec<u8> {
    let mut from = ZipArchive::new(Cursor::new(fs::read(fixtures().join("people.xlsx")).unwrap())).unwrap();
    let mut to = ZipWriter::new(Cursor::new(Vec::new()));
    for at in 0..from.len() {
        let mut part = from.by_index(at).unwrap();
        let mut text = String::new();
        part.read_to_string(&mut text).unwrap();
        let name = part.name().unwrap().into_owned();
        to.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        to.write_all(text.replace(old, new).as_bytes()).unwrap();
    }
    to.start_file("xl/sharedStrings.xml", SimpleFileOptions::default()).unwrap();
    to.write_all(texts.as_bytes()).unwrap();
    to.finish().unwrap().into_inner()
}

#[tokio::test]
async fn a_workbook_cannot_claim_more_than_it_holds() {
    let texts = "<sst uniqueCount=\"1\"><si><t>x</t></si></sst>";
    let many = texts.replace("\"1\"", "\"99999999999\"");
    let cell = "r=\"A2\"";
    for (old, new, texts, wanted) in [
        (cell, cell, texts, None),
        (cell, cell, many.as_str(), Some("it claims 99999999999 texts")),
        (cell, "r=\"ZZZZZZ2\"", texts, Some("is behind the last that a sheet can have")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("people.xlsx"), changed(old, new, texts)).unwrap();
        let error = whole(&mut source(folder.path(), ""), "people.人员").await.err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(wanted.map_or(error.is_empty(), |wanted| error.contains(wanted)), "{error}");
    }
}

#[tokio::test]
async fn workbooks_of_kinds_that_are_not_read_say_so() {
    for (part, ending) in [("content.xml", "ods"), ("xl/workbook.bin", "xlsb")] {
        let folder = tempfile::tempdir().unwrap();
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file(part, SimpleFileOptions::default()).unwrap();
        fs::write(folder.path().join(format!("t.{ending}")), zip.finish().unwrap().into_inner()).unwrap();
        let error = source(folder.path(), "").tables().await.err().unwrap();
        assert!(error.to_string().contains(&format!("of the kind .{ending}, which is not read")), "{error}");
        assert_eq!(base::Fault::hint(&error).as_deref(), Some("save it as .xlsx"));
    }
}

/// Every byte of a workbook turned round, one after the other in steps: an error or rows, and never more.
#[tokio::test]
async fn a_damaged_workbook_never_ends_the_program() {
    for file in ["people.xlsx", "people.xls"] {
        let bytes = fs::read(fixtures().join(file)).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 60) {
            let folder = tempfile::tempdir().unwrap();
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            fs::write(folder.path().join(file), damaged).unwrap();
            let mut files = source(folder.path(), "");
            for table in files.tables().await.unwrap_or_default() {
                let _ = whole(&mut files, &table).await;
            }
        }
    }
}

#[tokio::test]
async fn a_link_is_read_where_the_path_names_it_alone() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(other.path().join("secret.csv"), "id\n1\n").unwrap();
    fs::write(folder.path().join("own.csv"), "id\n1\n").unwrap();
    std::os::unix::fs::symlink(other.path().join("secret.csv"), folder.path().join("link.csv")).unwrap();
    assert_eq!(source(folder.path(), "").tables().await.unwrap(), ["own"]);
    let config = serde_saphyr::from_str("kind: files\npath: link.csv").unwrap();
    assert_eq!(Files::new(config, folder.path()).tables().await.unwrap(), ["link"]);
}

#[tokio::test]
async fn a_file_that_grows_is_not_taken_for_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grows.csv");
    fs::write(&path, "id\n1\n").unwrap();
    let mut files = source(folder.path(), "");
    let described = files.describe("grows").await.unwrap();
    fs::write(&path, "id\n1\n2\n").unwrap();
    let mut batches = files.read(&described, Scope::All).await.unwrap();
    let error = batches.next().await.err().unwrap();
    assert!(error.to_string().contains("is being written"), "{error}");
    assert_eq!(base::Fault::retry(&error), base::Retry::Backoff);
}

#[tokio::test]
async fn a_part_of_a_table_is_read_by_its_cursor_and_by_its_columns() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("t.csv"), "id,name,price\n1,a,9.5\n2,b,10\n10,c,100\n").unwrap();
    let mut files = source(folder.path(), "");
    let described = files.describe("t").await.unwrap();
    let from = |column: &str, value| Scope::From { column: column.into(), value: Some(value) };
    for (scope, wanted) in [
        (from("id", Value::Int(2)), 2),
        (from("price", Value::Decimal("9.6".into())), 2),
        (from("name", text("c")), 1),
        (Scope::From { column: "id".into(), value: None }, 3),
    ] {
        let mut batches = files.read(&described, scope.clone()).await.unwrap();
        assert_eq!(batches.next().await.unwrap().unwrap().rows.len(), wanted, "{scope:?}");
    }
    let mut batches = files.read(&described, Scope::Columns(vec!["name".into(), "id".into()])).await.unwrap();
    assert_eq!(batches.next().await.unwrap().unwrap().rows[2], [text("c"), Value::Int(10)]);
}

#[tokio::test]
async fn what_is_wrong_in_the_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("t.csv"), "id\n1\n").unwrap();
    for (rest, wanted) in [
        ("tables: {t: {columns: {ids: bigint}}}", "`columns` names `ids`"),
        ("tables: {t: {columns: {id: number}}}", "`number` is no type"),
        ("tables: {t: {key: [x]}}", "`key` names `x`"),
        ("tables: {t: {encoding: klingon}}", "`klingon` is no encoding"),
    ] {
        let error = source(folder.path(), rest).describe("t").await.err().unwrap();
        assert!(error.to_string().contains(wanted), "{error}");
    }
    assert_eq!(source(folder.path(), "").describe("x").await, Err(ReadError::NoTable("x".into())));
    let wrong = serde_saphyr::from_str::<FilesConfig>("kind: files\npath: .\ntables: {t: {delimeter: ';'}}");
    assert!(wrong.is_err());
}

#[tokio::test]
async fn who_stops_reading_stops_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("t.csv"), format!("id\n{}", "1\n".repeat(100_000))).unwrap();
    let mut files = source(folder.path(), "");
    let described = files.describe("t").await.unwrap();
    let mut batches = files.read(&described, Scope::All).await.unwrap();
    assert_eq!(batches.next().await.unwrap().unwrap().rows.len(), collect::reader::ROWS_OF_BATCH_MAX);
    drop(batches);
}
