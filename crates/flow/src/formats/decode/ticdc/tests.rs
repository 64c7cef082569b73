//! TiCDC's own bytes in each protocol, and bytes that nobody sends.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// Key, value and commit timestamp of each message.
fn fixture(name: &str) -> Vec<(String, Vec<u8>, Vec<u8>, u64)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/ticdc/{name}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let bytes = |name: &str| BASE64.decode(message[name].as_str().unwrap_or_default()).unwrap();
        let kind = message["kind"].as_str().unwrap().to_owned();
        (kind, bytes("key_b64"), bytes("value_b64"), message["ts"].as_u64().unwrap())
    };
    text.lines().map(line).collect()
}

fn parts(protocol: Protocol, name: &str) -> Vec<Part> {
    let mut out = Vec::new();
    for (kind, key, value, ts) in fixture(name) {
        let parts = split(protocol, Some(&key), Some(&value)).unwrap();
        for part in &parts {
            let wanted = match part.kind {
                Kind::Watermark => "resolved",
                Kind::Bootstrap => "bootstrap",
                Kind::Ddl => "ddl",
                Kind::Row => "row",
            };
            assert_eq!(kind, wanted);
            assert!(part.commit_ts == ts || part.kind == Kind::Bootstrap);
        }
        out.extend(parts);
    }
    out
}

/// Each row event as text, with its values read under the definitions that the simple protocol told.
fn rows(protocol: Protocol, name: &str) -> Vec<String> {
    let mut tables: BTreeMap<String, base::Table> = BTreeMap::new();
    let mut schemas: BTreeMap<(String, u64), base::Table> = BTreeMap::new();
    for part in parts(Protocol::Simple, "simple-json") {
        if let Event::Ddl(one) = read(Protocol::Simple, &part).unwrap()
            && let Some(schema) = one.after
        {
            schemas.insert((schema.table.name.to_string(), part.commit_ts), schema.table);
        }
    }
    let mut out = Vec::new();
    for part in parts(protocol, name) {
        let Event::Row(row) = read(protocol, &part).unwrap() else { continue };
        let name = row.name.to_string();
        let latest = schemas.range((name.clone(), 0)..(name.clone(), part.commit_ts)).next_back();
        tables.insert(name.clone(), latest.unwrap().1.clone());
        let table = &tables[&name];
        let image = |image: &Option<Image<'_>>| {
            let mut cells: Vec<String> = image
                .iter()
                .flatten()
                .map(|(name, cell)| {
                    let column = &table.columns[table.column_index(name).unwrap()];
                    let value = value(protocol, cell, column);
                    let value = value.unwrap_or_else(|| panic!("{name} {cell:?} is no {}", column.sql_type));
                    let text = base::json::value_text(&value, column);
                    format!("{name}={text}")
                })
                .collect();
            cells.sort();
            cells.join(" ")
        };
        let (before, after) = (image(&row.before), image(&row.after));
        out.push(format!("{} {:?} {name} [{before}] [{after}]", part.commit_ts, row.op));
    }
    out
}

#[test]
fn the_three_protocols_hold_the_same_rows_with_the_same_values() {
    let wanted = rows(Protocol::Simple, "simple-json");
    assert_eq!(wanted.len(), 48);
    for (protocol, name) in [
        (Protocol::CanalJson, "canal-json-ext"),
        (Protocol::CanalJson, "canal-json-ext-content-compatible"),
        (Protocol::Open, "open-protocol"),
        (Protocol::Simple, "simple-json-lz4"),
    ] {
        for (own, wanted) in rows(protocol, name).iter().zip(&wanted) {
            assert_eq!(own, wanted, "{name}");
        }
        assert_eq!(rows(protocol, name).len(), wanted.len(), "{name}");
    }
    let full = wanted.iter().find(|row| row.contains("c_bigint_u=18446744073709551615")).unwrap();
    for value in [
        "c_decimal=\"12345678901234567890123456789012345.123456789012345678901234567890\"",
        "c_binary=\"YWIAAA==\"",
        "c_varbinary=\"AP8Q\"",
        "c_bit64=18446744073709551615",
        "c_bit1=1",
        "c_enum=\"c,d\"",
        "c_time=\"-838:59:59\"",
        "c_double=1e300",
        "c_timestamp6=\"2026-02-28T23:59:59.654321Z\"",
        "c_set=[\"x\",\"z\"]",
        r#"c_json={"a": [1, 2.5, "x", null, true], "b": {"c": "d"}}"#,
    ] {
        assert!(full.contains(value), "{value} is not in {full}");
    }
    let zero = wanted.iter().find(|row| row.contains("c_date=\"0000-00-00\"")).unwrap();
    assert!(zero.contains("c_timestamp=\"0000-00-00 00:00:00\"") && zero.contains("c_year=0"), "{zero}");
    assert!(wanted.iter().any(|row| row.contains("g=\"中文\" ") && row.contains("b=\"5Lit\"")));
    assert!(wanted.iter().any(|row| row.contains("e=[1,-2.5,3]")), "{wanted:#?}");
}

#[test]
fn definitions_come_as_information_schema_prints_them() {
    let types = parts(Protocol::Simple, "simple-json").into_iter().find_map(|part| {
        let Event::Ddl(one) = read(Protocol::Simple, &part).unwrap() else { return None };
        one.after.filter(|schema| schema.table.name.table == "types")
    });
    let types = types.unwrap().table;
    let of = |name: &str| types.columns[types.column_index(name).unwrap()].sql_type.clone();
    for (name, wanted) in [
        ("c_bool", "tinyint(1)"),
        ("c_tinyint_u", "tinyint unsigned"),
        ("c_decimal", "decimal(65,30)"),
        ("c_decimal_u", "decimal(10,0) unsigned"),
        ("c_datetime6", "datetime(6)"),
        ("c_varchar", "varchar(255)"),
        ("c_enum", "enum('a','b','c,d')"),
        ("c_bit64", "bit(64)"),
        ("c_year", "year"),
        ("c_longblob", "longblob"),
    ] {
        assert_eq!(of(name), wanted, "{name}");
    }
    assert_eq!((types.key.as_slice(), types.columns[0].nullable), (&[0][..], false));
    let char = &types.columns[types.column_index("c_char").unwrap()];
    assert_eq!((char.charset.as_deref(), char.collation.as_deref()), (Some("utf8mb4"), Some("utf8mb4_bin")));
}

#[test]
fn the_key_alone_is_told_as_such_and_bad_messages_as_bad() {
    for (protocol, name) in [
        (Protocol::Simple, "simple-json-handle-key-only"),
        (Protocol::CanalJson, "canal-json-ext-handle-key-only"),
        (Protocol::Open, "open-protocol-handle-key-only"),
    ] {
        let all = parts(protocol, name);
        let only: Vec<_> = all
            .iter()
            .filter_map(|part| match read(protocol, part).unwrap() {
                Event::Row(row) if row.key_only => Some(row),
                _ => None,
            })
            .collect();
        assert!(!only.is_empty() && only.iter().all(|row| row.name.table == "types"), "{name}");
        assert!(only.iter().flat_map(|row| &row.after).all(|image| image.len() == 1), "{name}");
    }
    let why = |protocol, value: &[u8]| split(protocol, None, Some(value)).unwrap_err();
    let without = &fixture("canal-json")[0].2;
    assert!(why(Protocol::CanalJson, without).contains("enable-tidb-extension=true"));
    assert!(why(Protocol::Simple, without).contains("`commitTs`"));
    assert!(why(Protocol::Open, without).contains("does not begin as TiCDC's open protocol"));
    assert!(why(Protocol::Simple, b"\x16\x04").contains("not a JSON object"));
    let mut short = fixture("open-protocol")[4].clone();
    short.2.truncate(20);
    let why = split(Protocol::Open, Some(&short.1), Some(&short.2)).unwrap_err();
    assert!(why.contains("fewer events"), "{why}");
}

#[test]
fn every_variant_is_read() {
    for (protocol, name, rows) in [
        (Protocol::Simple, "simple-json-checksum", 48),
        (Protocol::CanalJson, "canal-json-ext-delete-handle-key", 48),
        (Protocol::Open, "open-protocol-no-old", 48),
    ] {
        let all = parts(protocol, name);
        let read: Vec<_> = all.iter().map(|part| read(protocol, part).unwrap()).collect();
        let all: Vec<_> = read
            .iter()
            .filter_map(|event| if let Event::Row(row) = event { Some(row) } else { None })
            .collect();
        assert_eq!(all.len(), rows, "{name}");
        assert!(all.iter().all(|row| row.before.is_some() || row.after.is_some()), "{name}");
        let old = all.iter().filter(|row| row.op == Op::Update).count();
        assert_eq!(old == 0, name == "open-protocol-no-old", "without old values an update is a write");
    }
}

#[test]
fn times_are_of_the_zone_that_the_message_names() {
    let row = |zone: &str| {
        let value = format!(
            r#"{{"version":1,"database":"d","table":"t","type":"INSERT","commitTs":5,"schemaVersion":1,"data":{{"at":{{"location":"{zone}","value":"2026-07-01 12:00:00.5"}}}}}}"#
        );
        let part = split(Protocol::Simple, None, Some(value.as_bytes())).unwrap().remove(0);
        match read(Protocol::Simple, &part) {
            Ok(Event::Row(row)) => Ok(format!("{:?}", row.after.unwrap()[0].1)),
            Ok(_) => unreachable!("an INSERT is a row"),
            Err(why) => Err(why),
        }
    };
    assert!(row("UTC").unwrap().contains("2026-07-01 12:00:00.5"));
    assert!(row("+08:00").unwrap().contains("2026-07-01 04:00:00.5"));
    assert!(row("Nowhere/Land").unwrap_err().contains("--tz=UTC"));
}

fn whatever(protocol: Protocol, key: &[u8], value: &[u8]) {
    let Ok(parts) = split(protocol, Some(key), Some(value)) else { return };
    for part in parts {
        let _ = read(protocol, &part);
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(key in prop::collection::vec(any::<u8>(), 0..200), value in prop::collection::vec(any::<u8>(), 0..400)) {
        for protocol in [Protocol::Simple, Protocol::CanalJson, Protocol::Open] {
            whatever(protocol, &key, &value);
        }
    }

    #[test]
    fn no_mutation_of_a_message_is_too_odd(
        which in 0usize..4, at in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(), cuts in any::<bool>(), in_key in any::<bool>(),
    ) {
        let (protocol, name) = [
            (Protocol::Simple, "simple-json"), (Protocol::CanalJson, "canal-json-ext"),
            (Protocol::Open, "open-protocol"), (Protocol::Simple, "simple-json-lz4"),
        ][which];
        let all = messages(name);
        let (key, value) = &all[at.index(all.len())];
        let (mut key, mut value) = (key.clone(), value.clone());
        let target = if in_key && !key.is_empty() { &mut key } else { &mut value };
        for (at, byte) in edits {
            let at = at.index(target.len());
            target[at] = byte;
        }
        if cuts {
            let keep = cut.index(target.len());
            target.truncate(keep);
        }
        whatever(protocol, &key, &value);
    }
}

type Messages = std::sync::Arc<Vec<(Vec<u8>, Vec<u8>)>>;

fn messages(name: &'static str) -> Messages {
    use std::sync::{Arc, LazyLock, Mutex};
    static READ: LazyLock<Mutex<BTreeMap<&'static str, Messages>>> = LazyLock::new(Mutex::default);
    let mut read = READ.lock().unwrap();
    let fresh = || Arc::new(fixture(name).into_iter().map(|(_, key, value, _)| (key, value)).collect());
    Arc::clone(read.entry(name).or_insert_with(fresh))
}
