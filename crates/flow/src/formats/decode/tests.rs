//! What each encoder prints reads back as it was, and what foreign systems print reads as they mean it.

use super::cells::{Cells, Raw};
use super::connect::{columns, mysql_columns};
use super::types::{parse, sql_type};
use super::value::{self, Wire};
use super::{Decoded, Incoming, MessageFormat, Schemas, Told, decode};
use crate::formats::{Encoder, Format, Record};
use base::value::timestamp_to_datetime;
use base::{Column, ColumnType, Date, Generated, Op, Table, TableName, Txn, Value};

const DEBEZIUM: &str = include_str!("../../../tests/corpus/debezium-3.6.jsonl");
const DEBEZIUM_SCHEMAS: &str = include_str!("../../../tests/corpus/debezium-schemas-3.6.jsonl");

fn column(name: &str, text: &str) -> Column {
    Column {
        name: name.into(),
        ty: parse(text).unwrap(),
        sql_type: text.into(),
        nullable: true,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    }
}

/// A value of every type, and one that is as far out as it goes.
fn samples() -> Vec<(&'static str, Value)> {
    let date = Date { year: 2026, month: 2, day: 28 };
    let at = timestamp_to_datetime(1_767_323_045_123_456);
    let millis = base::DateTime { micro: 123_000, ..at };
    vec![
        ("bigint unsigned", Value::UInt(u64::MAX)),
        ("bigint", Value::Int(i64::MIN)),
        ("tinyint", Value::Int(-128)),
        ("int unsigned", Value::UInt(u64::from(u32::MAX))),
        ("float", Value::Float(0.1)),
        ("double", Value::Double(-1e300)),
        ("decimal(65,30)", Value::Decimal(format!("-{}.{}", "9".repeat(35), "9".repeat(30)))),
        ("decimal(5,2)", Value::Decimal("-0.10".into())),
        ("decimal(20,0)", Value::Decimal("18446744073709551616".into())),
        ("bit(1)", Value::Bit(1)),
        ("bit(17)", Value::Bit(65_537)),
        ("bit(64)", Value::Bit(u64::MAX)),
        ("year", Value::Year(1999)),
        ("date", Value::Date(date)),
        ("time(6)", Value::Time(-3_020_399_000_001)),
        ("datetime(3)", Value::DateTime(millis)),
        ("datetime(6)", Value::DateTime(at)),
        ("timestamp(6)", Value::Timestamp(1_767_323_045_123_456)),
        ("varchar(40)", Value::Text("绿 😀 \"quoted\" \\ \n\u{0}".into())),
        ("longtext", Value::Text(String::new())),
        ("binary(4)", Value::Bytes(vec![0, 255, 128, 10])),
        ("varbinary(9)", Value::Bytes(vec![])),
        ("enum('new','it''s','绿')", Value::Enum(3)),
        ("set('a','b','c')", Value::Set(0b101)),
        ("json", Value::Json("{\"a\": [1, 1.5, null, \"b: c, d\"], \"绿\": {\"x\": \"\\\"\"}}".into())),
        ("geometry", Value::Geometry([&4326u32.to_le_bytes()[..], &[1, 1, 0, 0, 0], &[0; 16]].concat())),
        ("vector(2)", Value::Vector([0.5f32, -1e10].iter().flat_map(|v| v.to_le_bytes()).collect())),
        ("int", Value::Null),
    ]
}

fn sample_table() -> Table {
    let samples = samples();
    let columns = samples.iter().enumerate().map(|(i, (text, _))| column(&format!("c{i}"), text)).collect();
    Table {
        id: 1,
        version: 1,
        name: TableName::new("shop", "all"),
        columns,
        key: vec![0],
        unique_keys: vec![],
    }
}

fn values() -> Vec<Value> {
    samples().into_iter().map(|(_, value)| value).collect()
}

/// A row as a decoder gives it, value by value.
fn row(table: &Table, format: MessageFormat, cells: &Cells<'_>) -> Vec<Option<Value>> {
    let cell = |column: &Column| {
        let raw = cells.get(&column.name).unwrap_or_else(|| panic!("{} is there", column.name));
        value::decode(raw, column, format.wire(&column.ty))
    };
    table.columns.iter().map(cell).collect()
}

fn messages(format: Format, schemas: bool, op: Op) -> Vec<crate::formats::Message> {
    let (table, txn) = (sample_table(), Txn { id: "u:9".into(), index: 1, last: true });
    let values = values();
    let mut old = values.clone();
    old[2] = Value::Int(5);
    old[27] = Value::Int(7);
    let image = |values: &'static [Value]| Some(values.iter().map(|v| Some(v.as_ref())).collect());
    let (old, new): (&'static [Value], &'static [Value]) = (old.leak(), values.leak());
    let record = Record {
        epoch: 1,
        lsn: 7,
        op,
        table: &table,
        ts_ms: 1_767_323_045_120,
        txn: Some(&txn).filter(|_| op != Op::Read),
        before: if matches!(op, Op::Update | Op::Delete) { image(old) } else { None },
        after: if matches!(op, Op::Update | Op::Insert | Op::Read) { image(new) } else { None },
        ddl: None,
        place: None,
    };
    Encoder::new(format, "src", schemas).messages(&record)
}

#[test]
fn every_format_reads_back_what_its_encoder_prints() {
    let table = sample_table();
    let new: Vec<_> = values().into_iter().map(Some).collect();
    let mut old = new.clone();
    old[2] = Some(Value::Int(5));
    old[27] = Some(Value::Int(7));
    for (printed, read) in [
        (Format::Json, MessageFormat::Json),
        (Format::Debezium, MessageFormat::Debezium),
        (Format::Maxwell, MessageFormat::Maxwell),
        (Format::Canal, MessageFormat::Canal),
    ] {
        let mut wanted = (old.clone(), new.clone());
        if printed == Format::Maxwell {
            // Its geometry has no SRID.
            for row in [&mut wanted.0, &mut wanted.1] {
                if let Some(Value::Geometry(stored)) = &mut row[25] {
                    stored[..4].fill(0);
                }
            }
        }
        for op in [Op::Insert, Op::Update, Op::Delete] {
            let all = messages(printed, false, op);
            let (key, value) = (all[0].key.as_deref(), all[0].value.as_deref());
            let incoming = Incoming { source: "s", topic: "t", key, value };
            let decoded = decode(read, incoming).unwrap();
            let [change] = &decoded[..] else { panic!("{read:?} {op:?}: {decoded:?}") };
            assert_eq!((&change.name, change.op), (&table.name, op), "{read:?}");
            assert_eq!(change.key.as_deref(), Some(&["c0".into()][..]), "{read:?}");
            assert_eq!(change.ts_ms.map(|ts| ts / 1000), Some(1_767_323_045), "{read:?}");
            assert!(change.txn.is_some(), "{read:?}");
            let side = |cells: &Option<Cells<'_>>| cells.as_ref().map(|cells| row(&table, read, cells));
            let (before, after) = (side(&change.before), side(&change.after));
            assert_eq!(before, (op != Op::Insert).then(|| wanted.0.clone()), "{read:?} {op:?}");
            assert_eq!(after, (op != Op::Delete).then(|| wanted.1.clone()), "{read:?} {op:?}");
        }
        assert!(
            decode(read, Incoming { source: "s", topic: "t", key: Some(b"{}"), value: None })
                .unwrap()
                .is_empty()
        );
    }
}

#[test]
fn snapshot_rows_and_the_emptying_of_a_table_are_told() {
    for (printed, read) in [
        (Format::Json, MessageFormat::Json),
        (Format::Debezium, MessageFormat::Debezium),
        (Format::Maxwell, MessageFormat::Maxwell),
    ] {
        let all = messages(printed, false, Op::Read);
        let incoming = Incoming { source: "s", topic: "t", key: None, value: all[0].value.as_deref() };
        assert_eq!(decode(read, incoming).unwrap()[0].op, Op::Read, "{read:?}");
    }
    for (printed, read) in [
        (Format::Json, MessageFormat::Json),
        (Format::Debezium, MessageFormat::Debezium),
        (Format::Canal, MessageFormat::Canal),
    ] {
        let all = messages(printed, false, Op::Truncate);
        let incoming = Incoming { source: "s", topic: "t", key: None, value: all[0].value.as_deref() };
        assert_eq!(decode(read, incoming).unwrap()[0].op, Op::Truncate, "{read:?}");
    }
}

#[test]
fn a_debezium_schema_tells_types_and_canal_tells_mysqls() {
    let all = messages(Format::Debezium, true, Op::Insert);
    let (key, value) = (all[0].key.as_deref(), all[0].value.as_deref());
    let decoded = decode(MessageFormat::Debezium, Incoming { source: "s", topic: "t", key, value }).unwrap();
    let Told::Connect(raw) = decoded[0].told else { panic!("{:?}", decoded[0].told) };
    assert_eq!(decoded[0].key.as_deref(), Some(&["c0".into()][..]));
    let told = columns(raw).unwrap();
    let cells = decoded[0].after.as_ref().unwrap();
    for ((told, (text, wanted)), index) in told.iter().zip(samples()).zip(0..) {
        assert_eq!(told.name, format!("c{index}"));
        let own = Column { ty: told.ty.clone(), ..column(&told.name, "int") };
        let read = value::decode(cells.get(&told.name).unwrap(), &own, told.wire);
        match text {
            // What Connect has no type for.
            "bigint unsigned" => assert_eq!(read, Some(Value::Int(-1))),
            "bit(1)" => assert_eq!(read, Some(Value::Int(1))),
            "int unsigned" => assert_eq!(read, Some(Value::Int(i64::from(u32::MAX)))),
            _ => assert_eq!(read, Some(wanted), "{text} as {:?}", told.ty),
        }
    }
    let all = messages(Format::Canal, false, Op::Insert);
    let incoming = Incoming { source: "s", topic: "t", key: None, value: all[0].value.as_deref() };
    let decoded = decode(MessageFormat::Canal, incoming).unwrap();
    let Told::Mysql(raw) = decoded[0].told else { panic!("{:?}", decoded[0].told) };
    for (told, (text, _)) in mysql_columns(raw).unwrap().iter().zip(samples()) {
        let wanted = parse(text).unwrap();
        assert!(told.ty == wanted, "{text}: {:?}", told.ty);
        assert_eq!((told.wire, told.sql_type.as_deref()), (Wire::Canal, Some(text)));
    }
}

/// A record of the corpus: topic, key, value.
fn corpus(lines: &str) -> Vec<(String, Raw<'_>, Raw<'_>)> {
    fn record(line: &str) -> (String, Raw<'_>, Raw<'_>) {
        let cells: Cells<'_> = serde_json::from_str(line).unwrap();
        let part = |name: &str| cells.get(name).unwrap();
        (super::cells::string(part("topic")).unwrap().into_owned(), part("key"), part("value"))
    }
    lines.lines().map(record).collect()
}

fn read_corpus<'a>(topic: &'a str, key: Raw<'a>, value: Raw<'a>) -> Vec<Decoded<'a>> {
    let bytes = |raw: Raw<'a>| (raw.get() != "null").then(|| raw.get().as_bytes());
    let incoming = Incoming { source: "s", topic, key: bytes(key), value: bytes(value) };
    decode(MessageFormat::Debezium, incoming).unwrap_or_else(|why| panic!("{topic}: {why}\n{value:?}"))
}

#[test]
fn what_the_real_debezium_wrote_is_read() {
    let (mut rows, mut ops) = (0, std::collections::BTreeSet::new());
    for (topic, key, value) in corpus(DEBEZIUM) {
        for change in read_corpus(&topic, key, value) {
            assert_eq!(topic, format!("peer.{}", change.name));
            ops.insert(change.op.name());
            rows += 1;
        }
    }
    assert!(rows > 70, "{rows} rows");
    assert_eq!(ops.into_iter().collect::<Vec<_>>(), ["delete", "insert", "read", "truncate", "update"]);
}

#[test]
fn whoever_reads_many_messages_reads_each_as_who_reads_it_alone() {
    let mut schemas = Schemas::default();
    let mut changes = 0;
    for (topic, key, value) in [DEBEZIUM, DEBEZIUM_SCHEMAS, DEBEZIUM_SCHEMAS].into_iter().flat_map(corpus) {
        let general: Result<Cells<'_>, _> = serde_json::from_str(value.get());
        let fast = super::scan::object(value.get(), &schemas.0);
        assert_eq!(fast.map(|cells| cells.0), general.ok().map(|cells| cells.0), "{topic}");
        let bytes = |raw: Raw<'_>| (raw.get() != "null").then(|| raw.get().as_bytes().to_vec());
        let (key, value) = (bytes(key), bytes(value));
        for format in [MessageFormat::Debezium, MessageFormat::Plain] {
            let incoming =
                || Incoming { source: "s", topic: &topic, key: key.as_deref(), value: value.as_deref() };
            let many = format!("{:?}", schemas.decode(format, incoming()));
            assert_eq!(many, format!("{:?}", decode(format, incoming())), "{topic}");
            changes += 1;
        }
    }
    assert!(changes > 250 && !schemas.0.is_empty(), "{changes}");
    assert!(schemas.0.len() <= super::SCHEMAS_MAX);
}

#[test]
fn the_real_debeziums_schemas_tell_every_type_and_every_value_fits() {
    let mut seen = 0;
    for (topic, key, value) in corpus(DEBEZIUM_SCHEMAS) {
        for change in read_corpus(&topic, key, value) {
            let Told::Connect(raw) = change.told else { panic!("{topic}: {:?}", change.told) };
            let told = columns(raw).unwrap();
            for cells in [&change.before, &change.after].into_iter().flatten() {
                for (name, raw) in &cells.0 {
                    let one = told.iter().find(|told| told.name == *name).unwrap();
                    let own = Column { ty: one.ty.clone(), ..column(name, "int") };
                    let read = value::decode(*raw, &own, one.wire);
                    assert!(read.is_some(), "{topic} {name} {} {raw:?}", sql_type(&one.ty, false));
                    seen += 1;
                }
            }
            if topic.ends_with("all_types") {
                let of =
                    |name: &str| sql_type(&told.iter().find(|told| told.name == name).unwrap().ty, false);
                assert_eq!(of("n"), "decimal(20,5)");
                assert_eq!(of("e"), "enum('red','it''s','绿')");
                assert_eq!(
                    (of("dt"), of("d6"), of("ti")),
                    ("date".into(), "datetime(6)".into(), "time(6)".into())
                );
                assert_eq!(
                    (of("j"), of("bit17"), of("g")),
                    ("json".into(), "bit(17)".into(), "geometry".into())
                );
            }
        }
    }
    assert!(seen > 100, "{seen} values");
}

fn one(format: MessageFormat, topic: &str, key: Option<&str>, value: Option<&str>) -> Result<String, String> {
    let incoming =
        Incoming { source: "src", topic, key: key.map(str::as_bytes), value: value.map(str::as_bytes) };
    let text = |cells: &Option<Cells<'_>>| {
        let cells = cells.as_ref().map(|cells| {
            cells.0.iter().map(|(name, raw)| format!("{name}={}", raw.get())).collect::<Vec<_>>().join(" ")
        });
        cells.unwrap_or_else(|| "-".to_owned())
    };
    let changes = decode(format, incoming)?;
    let line = |change: &Decoded<'_>| {
        let key = change.key.clone().unwrap_or_default().join(",");
        format!(
            "{} {} [{key}] {} | {}",
            change.op.name(),
            change.name,
            text(&change.before),
            text(&change.after)
        )
    };
    Ok(changes.iter().map(line).collect::<Vec<_>>().join("\n"))
}

#[test]
fn foreign_messages_mean_what_their_systems_say() {
    let maxwell = r#"{"database":"test","table":"e","type":"update","ts":1477053234,"xid":23396,"commit":true,
        "primary_key_columns":["id"],"data":{"id":1,"m":5.444},"old":{"m":4.2341}}"#;
    assert_eq!(
        one(MessageFormat::Maxwell, "t", None, Some(maxwell)).unwrap(),
        "update test.e [id] id=1 m=4.2341 | id=1 m=5.444"
    );
    let ddl = r#"{"type":"table-alter","database":"d","table":"t","old":{},"def":{},"ts":1,"sql":"ALTER"}"#;
    assert_eq!(one(MessageFormat::Maxwell, "t", None, Some(ddl)).unwrap(), "");
    let canal = r#"{"id":0,"database":"test","table":"tp","pkNames":["id"],"isDdl":false,"type":"UPDATE","es":1,"ts":2,
        "sqlType":{"id":4},"mysqlType":{"id":"int","c":"varchar"},"data":[{"id":"2","c":"x"},{"id":"3","c":null}],
        "old":[{"c":"y"},{"c":"z"}]}"#;
    assert_eq!(
        one(MessageFormat::Canal, "t", None, Some(canal)).unwrap(),
        "update test.tp [id] id=\"2\" c=\"y\" | id=\"2\" c=\"x\"\nupdate test.tp [id] id=\"3\" c=\"z\" | id=\"3\" c=null"
    );
    let watermark = r#"{"id":0,"database":"","table":"","pkNames":null,"isDdl":false,"type":"TIDB_WATERMARK","data":null}"#;
    assert_eq!(one(MessageFormat::Canal, "t", None, Some(watermark)).unwrap(), "");
    let postgres = r#"{"before":null,"after":null,"op":"d","ts_ms":5,
        "source":{"connector":"postgresql","db":"app","schema":"public","table":"users","txId":771}}"#;
    assert_eq!(
        one(MessageFormat::Debezium, "t", Some(r#"{"id":9}"#), Some(postgres)).unwrap(),
        "delete public.users [id] id=9 | -"
    );
    assert_eq!(one(MessageFormat::Debezium, "t", None, Some(r#"{"ts_ms":5}"#)).unwrap(), "", "a heartbeat");
    let plain = |key, value| one(MessageFormat::Plain, "eu.shop.orders", key, value).unwrap();
    assert_eq!(plain(Some("7"), Some(r#"{"id":7,"v":[1]}"#)), "insert shop.orders [] - | id=7 v=[1]");
    assert_eq!(plain(Some(r#"{"id":7}"#), Some(r#"{"id":7}"#)), "insert shop.orders [id] - | id=7");
    assert_eq!(plain(Some(r#"{"id":7}"#), None), "delete shop.orders [id] id=7 | -");
    assert_eq!(plain(None, None), "");
    let connect = r#"{"schema":{"type":"struct","fields":[]},"payload":{"id":7}}"#;
    assert_eq!(plain(None, Some(connect)), "insert shop.orders [] - | id=7");
    assert_eq!(one(MessageFormat::Plain, "orders", None, Some("{}")).unwrap(), "insert src.orders [] - | ");
}

#[test]
fn what_is_no_message_of_the_format_says_why() {
    for (format, value, wanted) in [
        (MessageFormat::Json, "not json", "not a JSON object"),
        (MessageFormat::Json, "[1]", "not a JSON object"),
        (MessageFormat::Json, "{\"id\":1}", "no `op`"),
        (MessageFormat::Json, "{\"ref\":\"/api/v1/changes/shop/4\",\"op\":\"insert\"}", "by reference"),
        (MessageFormat::Debezium, "{\"id\":1}", "no `op`"),
        (MessageFormat::Debezium, "{\"op\":\"c\",\"after\":{}}", "no `source`"),
        (
            MessageFormat::Debezium,
            "{\"op\":\"c\",\"source\":{\"db\":\"d\",\"table\":\"t\"},\"after\":3}",
            "not an object",
        ),
        (MessageFormat::Maxwell, "{\"id\":1}", "no `type`"),
        (MessageFormat::Maxwell, "{\"type\":\"insert\"}", "no `data`"),
        (MessageFormat::Canal, "{\"type\":\"INSERT\",\"database\":\"d\"}", "no `table`"),
        (MessageFormat::Plain, "5", "not a JSON object"),
    ] {
        let why = one(format, "t", None, Some(value)).unwrap_err();
        assert!(why.contains(wanted), "{format:?} {value}: {why}");
    }
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let fits = |json: &str, text: &str, wire: Wire| {
        value::decode(Raw::of(json).unwrap(), &column("c", text), wire).is_some()
    };
    for (json, text, wire) in [
        ("300", "tinyint", Wire::Json),
        ("-1", "int unsigned", Wire::Json),
        ("1.5", "int", Wire::Json),
        ("\"x\"", "int", Wire::Json),
        ("1.234", "decimal(5,2)", Wire::Json),
        ("\"purple\"", "enum('red')", Wire::Json),
        ("[\"z\"]", "set('a')", Wire::Json),
        ("\"%%\"", "varbinary(9)", Wire::Json),
        ("{}", "geometry", Wire::Json),
        ("\"2026-13-01\"", "date", Wire::Json),
        ("4", "bit(2)", Wire::Json),
        ("5", "int", Wire::Canal),
        ("\"\u{100}\"", "varbinary(9)", Wire::Canal),
        ("\"{\"", "json", Wire::Canal),
        ("9999999999", "date", Wire::Days),
        ("9223372036854775807", "datetime(3)", Wire::Millis),
        ("\"!\"", "decimal(5,2)", Wire::Unscaled(2)),
    ] {
        assert!(!fits(json, text, wire), "{json} as {text} by {wire:?}");
    }
    assert!(fits("-1", "bigint unsigned", Wire::Json), "Java's negative half");
    let ty = ColumnType::Text { chars_max: 9 };
    assert_eq!(Wire::debezium(&ty), Wire::Json);
}
