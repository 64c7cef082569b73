//! What we write is judged by Apache's own implementation, and by our JSON of the same change; what it writes we read.

use super::{Ids, Reader, decode, head, messages, schemas};
use crate::formats::{Encoder, Format, Record};
use apache_avro::types::Value as Avro;
use apache_avro::{Schema, from_avro_datum, to_avro_datum};
use base::{Column, Date, DateTime, Generated, Op, Table, TableName, Txn, Value, ValueRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

const IDS: Ids = Ids { key: Some(7), value: 258 };

fn column(name: &str, sql_type: &str, nullable: bool) -> Column {
    let ty = crate::formats::decode::types::parse(sql_type).unwrap();
    Column {
        name: name.into(),
        ty,
        sql_type: sql_type.into(),
        nullable,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    }
}

fn table(columns: Vec<Column>) -> Table {
    Table {
        id: 1,
        version: 1,
        name: TableName::new("shop", "orders"),
        columns,
        key: vec![0],
        unique_keys: vec![],
    }
}

/// A column of each type, and a value of it.
fn everything() -> Vec<(&'static str, Value)> {
    let at = DateTime {
        date: Date { year: 2026, month: 1, day: 2 },
        hour: 3,
        minute: 4,
        second: 5,
        micro: 120_000,
    };
    let point = [&4326u32.to_le_bytes()[..], &[1, 1, 0, 0, 0], &1.5f64.to_le_bytes(), &(-2f64).to_le_bytes()]
        .concat();
    vec![
        ("bigint unsigned", Value::UInt(u64::MAX)),
        ("tinyint", Value::Int(-7)),
        ("smallint unsigned", Value::UInt(65_535)),
        ("mediumint", Value::Int(-8_388_608)),
        ("int", Value::Int(i32::MIN.into())),
        ("int unsigned", Value::UInt(u32::MAX.into())),
        ("bigint", Value::Int(i64::MIN)),
        ("float", Value::Float(0.1)),
        ("float(7,2)", Value::Float(1.25)),
        ("double", Value::Double(-1.5e300)),
        ("decimal(10,2)", Value::Decimal("-12.50".into())),
        ("decimal(65,30)", Value::Decimal(format!("-{}.{}", "9".repeat(35), "1".repeat(30)))),
        ("bit(1)", Value::Bit(1)),
        ("bit(12)", Value::Bit(0xabc)),
        ("year", Value::Year(2026)),
        ("date", Value::Date(at.date)),
        ("time(3)", Value::Time(-3_723_456_000)),
        ("datetime(3)", Value::DateTime(at)),
        ("datetime(6)", Value::DateTime(at)),
        ("timestamp(3)", Value::Timestamp(1_767_323_045_120_000)),
        ("varchar(40)", Value::Text("\u{2603} \"q\"".into())),
        ("longtext", Value::Text("x".repeat(300))),
        ("varbinary(9)", Value::Bytes(vec![0xff, 0, 1])),
        ("binary(3)", Value::Bytes(vec![1, 2, 3])),
        ("enum('new','pa\"id')", Value::Enum(2)),
        ("set('new','paid')", Value::Set(3)),
        ("json", Value::Json("{\"a\": [1, \"b: c\"]}".into())),
        ("point", Value::Geometry(point.clone())),
        ("point", Value::Geometry(point.clone())),
        ("geometry", Value::Geometry(point.clone())),
        ("geometry", Value::Geometry([&[0, 0, 0, 0], &point[4..]].concat())),
    ]
}

/// A table of all types, each NOT NULL and each nullable, with a row of values and one with NULL where it may be.
fn all_types() -> (Table, Vec<Value>, Vec<Value>) {
    let mut columns = Vec::new();
    let (mut row, mut sparse) = (Vec::new(), Vec::new());
    for nullable in [false, true] {
        for (index, (sql_type, value)) in everything().into_iter().enumerate() {
            columns.push(column(&format!("c{index}_{nullable}"), sql_type, nullable));
            row.push(value.clone());
            sparse.push(if nullable { Value::Null } else { value });
        }
    }
    (table(columns), row, sparse)
}

fn record<'a>(
    table: &'a Table,
    txn: &'a Txn,
    op: Op,
    before: Option<&'a [Value]>,
    after: Option<&'a [Value]>,
) -> Record<'a> {
    let image =
        |row: Option<&'a [Value]>| row.map(|row| row.iter().map(|value| Some(value.as_ref())).collect());
    Record {
        epoch: 1,
        lsn: 7,
        op,
        table,
        ts_ms: 1_767_323_045_120,
        txn: Some(txn),
        before: image(before),
        after: image(after),
        ddl: None,
        place: None,
    }
}

/// As Kafka Connect's JSON has it.
fn json(value: &Avro) -> Json {
    match value {
        Avro::Null => Json::Null,
        Avro::Boolean(v) => json!(v),
        Avro::Int(v) => json!(v),
        Avro::Long(v) => json!(v),
        Avro::Float(v) => serde_json::from_str(&serde_json::to_string(v).unwrap()).unwrap(),
        Avro::Double(v) => json!(v),
        Avro::Bytes(v) | Avro::Fixed(_, v) => json!(BASE64.encode(v)),
        Avro::Decimal(v) => json!(BASE64.encode(<Vec<u8>>::try_from(v).unwrap())),
        Avro::String(v) | Avro::Enum(_, v) => json!(v),
        Avro::Union(_, v) => json(v),
        Avro::Array(v) => v.iter().map(json).collect(),
        Avro::Record(v) => v.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
        other => panic!("{other:?}"),
    }
}

/// What Apache's implementation reads.
fn theirs(schema: &str, message: &[u8], id: u32) -> Json {
    let schema = Schema::parse_str(schema).unwrap();
    let (own, mut record) = head(message).unwrap();
    assert_eq!(own, id);
    let value = from_avro_datum(&schema, &mut record, None).unwrap();
    assert!(record.is_empty(), "all of it was read");
    json(&value)
}

/// What we read.
fn ours(schema: &str, message: &[u8]) -> Json {
    let reader = Reader::parse(schema).unwrap();
    serde_json::from_slice(&decode(&reader, head(message).unwrap().1).unwrap()).unwrap()
}

#[test]
fn all_types_are_read_by_another_implementation_as_our_json_has_them() {
    let (table, row, sparse) = all_types();
    let txn = Txn { id: "3e11fa47-71ca-11e1-9e33-c80aa9429562:22".into(), index: 1, last: true };
    let told = schemas("src", &table).unwrap();
    let (key, value) = (told.key.unwrap(), told.value);
    for (op, before, after) in [
        (Op::Read, None, Some(&row)),
        (Op::Insert, None, Some(&sparse)),
        (Op::Update, Some(&row), Some(&sparse)),
        (Op::Delete, Some(&sparse), None),
        (Op::Truncate, None, None),
    ] {
        let record = record(&table, &txn, op, before.map(|row| &row[..]), after.map(|row| &row[..]));
        let texts = Encoder::new(Format::Debezium, "src", false).messages(&record);
        let avro = messages("src", &record, IDS).unwrap();
        assert_eq!(texts.len(), avro.len());
        for (text, avro) in texts.iter().zip(&avro) {
            assert_eq!(text.topic, avro.topic);
            assert_eq!(
                (text.key.is_some(), text.value.is_some()),
                (avro.key.is_some(), avro.value.is_some())
            );
            for (text, avro, schema, id) in
                [(&text.key, &avro.key, &key, 7), (&text.value, &avro.value, &value, 258)]
            {
                let (Some(text), Some(avro)) = (text, avro) else { continue };
                let mut text: Json = serde_json::from_slice(text).unwrap();
                for path in ["/before", "/after"] {
                    let Some(row) = text.pointer_mut(path).and_then(Json::as_object_mut) else { continue };
                    // JSON leaves the SRID out where there is none of a union's branches to be told.
                    assert!(row.values().all(|cell| cell.get("srid").is_none_or(|srid| !srid.is_string())));
                }
                assert_eq!(theirs(schema, avro, id), text);
                assert_eq!(ours(schema, avro)["payload"], text);
            }
        }
    }
}

#[test]
fn schemas_are_read_as_debezium_tells_them_in_json() {
    let (table, row, _) = all_types();
    let txn = Txn { id: "binlog.000003:120".into(), index: 0, last: true };
    let record = record(&table, &txn, Op::Insert, None, Some(&row));
    let text = Encoder::new(Format::Debezium, "src", true).messages(&record).remove(0).value.unwrap();
    let text: Json = serde_json::from_slice(&text).unwrap();
    let avro = messages("src", &record, IDS).unwrap().remove(0).value.unwrap();
    let read = ours(&schemas("src", &table).unwrap().value, &avro);
    assert_eq!(read["payload"], text["payload"]);
    assert_eq!(read["payload"]["source"]["file"], "binlog.000003");
    for side in [0, 1] {
        let columns = |whole: &Json| whole["schema"]["fields"][side]["fields"].as_array().unwrap().clone();
        for (read, told) in columns(&read).iter().zip(columns(&text)) {
            // Avro does not repeat the fields of a point, the items of a list and words for people.
            for name in ["type", "optional", "field", "name", "parameters"] {
                assert_eq!(read.get(name), told.get(name), "{name} of {told}");
            }
        }
        assert_eq!(columns(&read).len(), table.columns.len());
    }
}

#[test]
fn vectors_and_a_table_without_a_key() {
    let mut table = table(vec![column("v", "vector(3)", true), column("w", "vector(3)", false)]);
    table.key.clear();
    let told = schemas("src", &table).unwrap();
    assert_eq!(told.key, None);
    let numbers: Vec<u8> = [1f32, -0.5, 3e7].into_iter().flat_map(f32::to_le_bytes).collect();
    let row = [Value::Vector(numbers), Value::Vector(Vec::new())];
    let txn = Txn { id: "u:1".into(), index: 0, last: true };
    let record = record(&table, &txn, Op::Delete, Some(&row), None);
    let mut avro = messages("src", &record, Ids { key: None, value: 1 }).unwrap();
    assert!(avro.iter().all(|message| message.key.is_none()));
    let read = theirs(&told.value, &avro.remove(0).value.unwrap(), 1);
    assert_eq!(read["before"], json!({ "v": [1.0, -0.5, 3e7], "w": [] }));
    assert_eq!(avro.remove(0).value, None);
}

#[test]
fn zero_dates_are_null_or_the_first_day() {
    let columns = ["date", "datetime", "timestamp(3)"];
    let columns = [false, true].into_iter().flat_map(|nullable| {
        columns.map(|sql_type| {
            column(&format!("{}_{nullable}", &sql_type[..8.min(sql_type.len())]), sql_type, nullable)
        })
    });
    let table = table(columns.collect());
    let zero = [
        Value::Date(Date::default()),
        Value::DateTime(DateTime::default()),
        Value::Timestamp(base::value::TIMESTAMP_ZERO),
    ];
    let row = [&zero[..], &zero].concat();
    let txn = Txn { id: "u:1".into(), index: 0, last: true };
    let record = record(&table, &txn, Op::Insert, None, Some(&row));
    let avro = messages("src", &record, IDS).unwrap().remove(0).value.unwrap();
    let read = theirs(&schemas("src", &table).unwrap().value, &avro, 258);
    let wanted = json!({
        "date_false": 0, "datetime_false": 0, "timestam_false": "1970-01-01T00:00:00Z",
        "date_true": null, "datetime_true": null, "timestam_true": null,
    });
    assert_eq!(read["after"], wanted);
}

#[test]
fn what_is_no_value_of_its_column_is_refused() {
    let txn = Txn { id: "u:1".into(), index: 0, last: true };
    for (sql_type, value, wanted) in [
        ("int", Value::Int(1 << 31), "its `c` is no `int`"),
        ("int", Value::Text("secret".into()), "its `c` is no `int`"),
        ("int", Value::Null, "its `c` is NULL, and the column is NOT NULL"),
        ("decimal(5,1)", Value::Decimal("1.25".into()), "its `c` is no `decimal(5,1)`"),
        ("varchar(9)", Value::Bytes(vec![1]), "its `c` is no `varchar(9)`"),
    ] {
        let table = table(vec![column("c", sql_type, false)]);
        let row = [value];
        let record = record(&table, &txn, Op::Insert, None, Some(&row));
        assert_eq!(messages("src", &record, IDS).unwrap_err(), wanted);
    }
    // A part of an old row is no old row.
    let table = table(vec![column("id", "int", false), column("c", "int", true)]);
    let row = [Value::Int(1), Value::Int(2)];
    let mut record = record(&table, &txn, Op::Delete, Some(&row), None);
    record.before = Some(vec![Some(ValueRef::Int(1)), None]);
    let avro = messages("src", &record, IDS).unwrap().remove(0);
    let told = schemas("src", &table).unwrap();
    assert_eq!(theirs(&told.value, &avro.value.unwrap(), 258)["before"], Json::Null);
    assert_eq!(theirs(&told.key.unwrap(), &avro.key.unwrap(), 7), json!({ "id": 1 }));
}

#[test]
fn columns_that_avro_would_call_the_same_are_refused() {
    let first = table(vec![column("a b", "int", false), column("1", "int", false)]);
    let told = schemas("eu.shop-1", &first).unwrap();
    assert_eq!(told.namespace, "eu.shop_1.shop.orders");
    let schema = Schema::parse_str(&told.value).unwrap();
    assert!(schema.canonical_form().contains("\"name\":\"_1\""), "{}", schema.canonical_form());
    let second = table(vec![column("价", "int", false), column("名", "int", false)]);
    let why = schemas("shop", &second).unwrap_err();
    assert!(why.contains("`价` and `名` of `shop.orders` would both be called `_`"), "{why}");
}

#[test]
fn schemas_of_others_are_read() {
    let schema = r#"{"type":"record","name":"a.b.Row","fields":[
        {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}},
        {"name":"day","type":["null",{"type":"int","logicalType":"date"}]},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["x","y"]}},
        {"name":"again","type":["null","a.b.E"]},
        {"name":"f","type":{"type":"fixed","name":"F","size":2}},
        {"name":"m","type":{"type":"map","values":["null","long","string"]}},
        {"name":"self","type":["null","Row"]},
        {"name":"list","type":{"type":"array","items":{"type":"array","items":"int"}}}]}"#;
    let parsed = Schema::parse_str(schema).unwrap();
    let of = |inner: Avro| Avro::Union(1, Box::new(inner));
    let value = |inner: Avro| {
        let map = [("k".to_owned(), Avro::Union(2, Box::new(Avro::String("v".into()))))];
        Avro::Record(vec![
            ("d".into(), Avro::Decimal(vec![0x04, 0xe2].into())),
            ("day".into(), of(Avro::Date(20_000))),
            ("at".into(), Avro::TimestampMicros(5)),
            ("e".into(), Avro::Enum(1, "y".into())),
            ("again".into(), of(Avro::Enum(0, "x".into()))),
            ("f".into(), Avro::Fixed(2, vec![1, 2])),
            ("m".into(), Avro::Map(map.into())),
            ("self".into(), inner),
            (
                "list".into(),
                Avro::Array(vec![Avro::Array(vec![Avro::Int(1), Avro::Int(-2)]), Avro::Array(vec![])]),
            ),
        ])
    };
    let nested = value(of(value(Avro::Union(0, Box::new(Avro::Null)))));
    let bytes = to_avro_datum(&parsed, nested).unwrap();
    let reader = Reader::parse(schema).unwrap();
    let read: Json = serde_json::from_slice(&decode(&reader, &bytes).unwrap()).unwrap();
    let mut row = json!({
        "d": "BOI=", "day": 20_000, "at": 5, "e": "y", "again": "x", "f": "AQI=", "m": { "k": "v" },
        "self": null, "list": [[1, -2], []],
    });
    row["self"] = row.clone();
    assert_eq!(read["payload"], row);
    let told = &read["schema"]["fields"];
    assert_eq!(told[0]["parameters"], json!({ "scale": "2", "connect.decimal.precision": "6" }));
    assert_eq!(
        (&told[1]["name"], &told[1]["optional"]),
        (&json!("org.apache.kafka.connect.data.Date"), &json!(true))
    );
    assert_eq!(told[2]["name"], "io.debezium.time.MicroTimestamp");
    for cut in 0..bytes.len() {
        decode(&reader, &bytes[..cut]).unwrap_err();
    }
    decode(&reader, &[&bytes[..], &[0]].concat()).unwrap_err();
}

#[test]
fn nonsense_ends_in_words() {
    for schema in ["", "7", "\"none\"", "{}", r#"{"type":"record","name":"R"}"#, r#"{"type":"array"}"#] {
        Reader::parse(schema).unwrap_err();
    }
    let endless =
        Reader::parse(r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#).unwrap();
    assert!(decode(&endless, &[]).unwrap_err().contains("deeper"));
    let nulls = Reader::parse(r#"{"type":"array","items":"null"}"#).unwrap();
    let mut many = Vec::new();
    base::varint::put_i64(&mut many, i64::MAX);
    assert!(decode(&nulls, &many).unwrap_err().contains("items"));
    assert_eq!(head(&[0, 0, 0, 1, 2, 9]), Some((258, &[9][..])));
    for short in [&[][..], &[0, 0, 0, 1], b"{\"a\":1}"] {
        assert_eq!(head(short), None);
    }
}
