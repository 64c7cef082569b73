//! One change in every format, as the published examples print it.

use super::{Encoder, Format, Record};
use base::{Column, ColumnType, Generated, Op, Table, TableName, Txn, ValueRef};

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

fn table() -> Table {
    let labels = ["new", "paid"].map(str::to_owned).to_vec();
    Table {
        id: 1,
        version: 1,
        name: TableName::new("shop", "orders"),
        columns: vec![
            column("id", ColumnType::BigInt { unsigned: true }, "bigint unsigned"),
            column("state", ColumnType::Enum { labels: labels.clone() }, "enum('new','paid')"),
            column("tags", ColumnType::Set { labels }, "set('new','paid')"),
            column("total", ColumnType::Decimal { precision: 5, scale: 2 }, "decimal(5,2)"),
            column("raw", ColumnType::VarBinary { bytes_max: 9 }, "varbinary(9)"),
            column("note", ColumnType::Json, "json"),
        ],
        key: vec![0],
        unique_keys: vec![],
    }
}

fn print(format: Format, op: Op) -> String {
    print_at(format, op, 1_767_323_045_120)
}

fn print_at(format: Format, op: Op, ts_ms: i64) -> String {
    let (table, txn) = (table(), Txn { id: "u:9".into(), index: 1, last: false });
    let row = |state, total| {
        let cells = [
            ValueRef::UInt(u64::MAX),
            ValueRef::Enum(state),
            ValueRef::Set(3),
            ValueRef::Decimal(total),
            ValueRef::Bytes(&[0xff, 0]),
            ValueRef::Json("{\"a\": [1, \"b: c\"]}"),
        ];
        Some(cells.map(Some).to_vec())
    };
    let record = Record {
        epoch: 1,
        lsn: 7,
        op,
        table: &table,
        ts_ms,
        txn: Some(&txn),
        before: if matches!(op, Op::Update | Op::Delete) { row(1, "-1.28") } else { None },
        after: if matches!(op, Op::Update | Op::Insert) { row(2, "-1.28") } else { None },
        ddl: None,
        place: None,
    };
    let mut out = Vec::new();
    Encoder::new(format, "src", false).lines(&record, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_change_of_no_known_time_is_json_in_every_format() {
    for format in [Format::Json, Format::Debezium, Format::Maxwell, Format::Canal, Format::CloudEvents] {
        for ts_ms in [0, -1, i64::MAX] {
            let text = print_at(format, Op::Insert, ts_ms);
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(text.lines().next().unwrap());
            assert!(parsed.is_ok(), "{text}");
        }
    }
}

#[test]
fn maxwell_prints_only_what_changed_as_old() {
    assert_eq!(
        print(Format::Maxwell, Op::Update),
        "{\"database\":\"shop\",\"table\":\"orders\",\"type\":\"update\",\"ts\":1767323045,\"xid\":6,\"xoffset\":1,\
         \"data\":{\"id\":18446744073709551615,\"state\":\"paid\",\"tags\":[\"new\",\"paid\"],\"total\":-1.28,\
         \"raw\":\"/wA=\",\"note\":{\"a\": [1, \"b: c\"]}},\"old\":{\"state\":\"new\"}}\n"
    );
    assert_eq!(print(Format::Maxwell, Op::Truncate), "");
}

#[test]
fn canal_prints_text_and_the_types_of_java() {
    assert_eq!(
        print(Format::Canal, Op::Update),
        "{\"id\":7,\"database\":\"shop\",\"table\":\"orders\",\"pkNames\":[\"id\"],\"isDdl\":false,\"type\":\"UPDATE\",\
         \"es\":1767323045120,\"ts\":1767323045120,\"sql\":\"\",\"sqlType\":{\"id\":3,\"state\":4,\"tags\":-7,\
         \"total\":3,\"raw\":2004,\"note\":12},\"mysqlType\":{\"id\":\"bigint unsigned\",\
         \"state\":\"enum('new','paid')\",\"tags\":\"set('new','paid')\",\"total\":\"decimal(5,2)\",\
         \"raw\":\"varbinary(9)\",\"note\":\"json\"},\"data\":[{\"id\":\"18446744073709551615\",\"state\":\"2\",\
         \"tags\":\"3\",\"total\":\"-1.28\",\"raw\":\"\u{ff}\\u0000\",\"note\":\"{\\\"a\\\": [1, \\\"b: c\\\"]}\"}],\
         \"old\":[{\"state\":\"1\"}],\"gtid\":\"u:9\"}\n"
    );
    let truncate: serde_json::Value = serde_json::from_str(&print(Format::Canal, Op::Truncate)).unwrap();
    assert_eq!((&truncate["isDdl"], &truncate["type"]), (&true.into(), &"TRUNCATE".into()));
}

#[test]
fn a_cloud_event_holds_our_own_format() {
    let event: serde_json::Value = serde_json::from_str(&print(Format::CloudEvents, Op::Insert)).unwrap();
    let own: serde_json::Value = serde_json::from_str(&print(Format::Json, Op::Insert)).unwrap();
    assert_eq!(event["data"], own);
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    assert_eq!(text("id"), "src:1:7");
    assert_eq!(text("source"), "/tidemill/src/shop/orders");
    assert_eq!(text("type"), "tidemill.change.v1.insert");
    assert_eq!(text("subject"), "{\"id\":18446744073709551615}");
    assert_eq!(text("time"), "2026-01-02T03:04:05.120Z");
    assert_eq!(text("specversion"), "1.0");
    assert_eq!(text("datacontenttype"), "application/json");
}

#[test]
fn a_row_is_an_object_of_a_bucket() {
    let event: serde_json::Value = serde_json::from_str(&print(Format::S3Event, Op::Insert)).unwrap();
    let record = &event["Records"][0];
    assert_eq!(record["eventName"], "ObjectCreated:Put");
    assert_eq!(record["eventTime"], "2026-01-02T03:04:05.120Z");
    assert_eq!(record["s3"]["bucket"]["name"], "src");
    let object = &record["s3"]["object"];
    assert_eq!(object["key"], "shop/orders/18446744073709551615");
    assert_eq!(object["sequencer"], "000000010000000000000007");
    assert!(object["size"].as_u64() > Some(50) && object["eTag"].as_str().unwrap().len() == 8, "{object}");
    let gone: serde_json::Value = serde_json::from_str(&print(Format::S3Event, Op::Delete)).unwrap();
    assert_eq!(gone["Records"][0]["eventName"], "ObjectRemoved:Delete");
    assert_eq!(gone["Records"][0]["s3"]["object"]["size"], serde_json::Value::Null);
    assert_eq!(print(Format::S3Event, Op::Truncate), "");
}

#[test]
fn a_delete_in_debezium_is_followed_by_a_tombstone() {
    let lines = print(Format::Debezium, Op::Delete);
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["value"]["op"], &lines[1]["value"]), (&"d".into(), &serde_json::Value::Null));
    assert_eq!(lines[0]["key"], lines[1]["key"]);
    assert_eq!(lines[0]["value"]["before"]["note"], "{\"a\":[1,\"b: c\"]}");
    assert_eq!(print(Format::Debezium, Op::Ddl), "");
}
