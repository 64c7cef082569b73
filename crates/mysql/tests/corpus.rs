//! Binlogs of real servers, decoded and compared with what the same servers print for the same rows.
//!
//! `corpus/make.sh` writes the fixtures; `corpus/README.md` says how.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::{Column, ColumnType, RowView, Table, TableName, Value, value};
use mysql::{Event, EventReader, Flavor, RowPlan, RowsKind, column_type};
use std::collections::{BTreeMap, HashMap};

type Rows = BTreeMap<(String, String), Vec<Value>>;

fn tables(name: &str, flavor: Flavor) -> HashMap<String, Table> {
    let mut out: HashMap<String, Table> = HashMap::new();
    for line in read(name, "columns.tsv").lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [table, column, text, data_type, max, charset, json] = fields[..] else { panic!("{line}") };
        let ty = column_type(text, data_type, max.parse().ok(), json != "0", flavor).unwrap();
        let id = out.len() as u32;
        let entry = out.entry(table.to_owned()).or_insert_with(|| Table {
            id,
            version: 1,
            name: TableName::new("corpus", table),
            columns: Vec::new(),
            key: vec![0],
            unique_keys: Vec::new(),
        });
        entry.columns.push(Column {
            name: column.to_owned(),
            ty,
            sql_type: text.to_owned(),
            nullable: true,
            charset: (!charset.is_empty()).then(|| charset.to_owned()),
            collation: None,
            generated: base::Generated::No,
            invisible: false,
        });
    }
    out
}

fn path(name: &str, suffix: &str) -> String {
    format!("{}/tests/corpus/{name}.{suffix}", env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str, suffix: &str) -> String {
    std::fs::read_to_string(path(name, suffix)).unwrap()
}

/// The events of a binlog file.
fn events(file: &[u8]) -> Vec<&[u8]> {
    let mut rest = &file[4..];
    let mut out = Vec::new();
    while !rest.is_empty() {
        let size = u32::from_le_bytes(rest[9..13].try_into().unwrap()) as usize;
        out.push(&rest[..size]);
        rest = &rest[size..];
    }
    out
}

struct Replay {
    tables: HashMap<String, Table>,
    /// Table maps lose all that is optional, as `binlog_row_metadata = NO_LOG` leaves it out.
    without_metadata: bool,
    rows: Rows,
    seen: Vec<String>,
}

impl Replay {
    fn apply(&mut self, event: Event<'_>, reader: &mut EventReader) {
        match event {
            Event::Rows(rows) => self.rows(&rows),
            Event::TransactionPayload(bytes) => {
                self.seen.push("payload".into());
                for inner in EventReader::inner_events(&bytes) {
                    let (header, body) = inner.unwrap();
                    let event = reader.read_body(header, body).unwrap();
                    self.apply(event, reader);
                }
            }
            Event::Unsupported { event_type } => panic!("event type {event_type} is not supported"),
            Event::Gtid { gtid: Some(gtid), commit_ts_us, .. } => {
                assert!(commit_ts_us > 1_700_000_000_000_000);
                self.seen.push(format!("gtid {}", gtid.tag));
            }
            Event::MariaGtid { standalone, .. } => self.seen.push(format!("maria gtid {standalone}")),
            Event::XaPrepare(xa) => {
                self.seen.push(format!("xa {} {:?} {:?} {}", xa.format_id, xa.gtrid, xa.bqual, xa.one_phase));
            }
            Event::Query { sql, sql_mode, charset_client, .. } => {
                assert!(sql_mode.is_some() && charset_client.is_some());
                self.seen.push(format!("query {}", sql.split([' ', '\'']).next().unwrap()));
            }
            _ => {}
        }
    }

    fn rows(&mut self, event: &mysql::RowsEvent<'_>) {
        let name = &event.map.table;
        let mut table = self.tables[name].clone();
        let mut map = (*event.map).clone();
        if self.without_metadata {
            (map.names, map.unsigned, map.text_charsets, map.visible) = (None, None, None, None);
            for (index, column) in table.columns.iter_mut().enumerate() {
                column.nullable = map.is_nullable(index);
            }
            let mut wrong = table.clone();
            wrong.columns[0].nullable = !wrong.columns[0].nullable;
            assert!(RowPlan::new(&map, &wrong).is_err());
        }
        let plan = RowPlan::new(&map, &table).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut cursor = event.rows(&plan);
        let mut image = Vec::new();
        let mut next = || {
            image.clear();
            cursor.next_row(&mut image).unwrap().then(|| {
                let row = RowView(&image).values().unwrap();
                assert_eq!(row.len(), table.columns.len());
                row
            })
        };
        while let Some(first) = next() {
            let key = (name.clone(), text(&first[0], &table.columns[0].ty));
            match event.kind {
                RowsKind::Insert => drop(self.rows.insert(key, first)),
                RowsKind::Delete => assert_eq!(self.rows.remove(&key), Some(first)),
                RowsKind::Update => {
                    assert_eq!(self.rows.get(&key), Some(&first));
                    let after = next().unwrap();
                    self.rows.insert(key, after);
                }
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

/// A value as `make.sh` selects it.
fn text(value: &Value, ty: &ColumnType) -> String {
    let fsp = match ty {
        ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => *fsp,
        _ => 0,
    };
    match value {
        Value::Null => "NULL".into(),
        Value::Int(v) => v.to_string(),
        Value::UInt(v) | Value::Bit(v) | Value::Set(v) => v.to_string(),
        Value::Enum(v) => v.to_string(),
        Value::Float(v) => f64::from(*v).to_string(),
        Value::Double(v) => v.to_string(),
        Value::Decimal(v) => v.clone(),
        Value::Date(v) => v.to_string(),
        Value::Time(v) => value::format_time(*v, fsp),
        Value::DateTime(v) => value::format_datetime(*v, fsp),
        Value::Timestamp(v) => value::format_datetime(value::timestamp_to_datetime(*v), fsp),
        Value::Year(v) => format!("{v:04}"),
        Value::Json(v) if v.len() > 2000 => format!("crc {}", crc32fast::hash(v.as_bytes())),
        Value::Text(v) | Value::Json(v) => hex(v.as_bytes()),
        Value::RawText(v) => format!("raw {}", hex(v)),
        Value::Bytes(v) | Value::Geometry(v) | Value::Vector(v) => hex(v),
    }
}

fn same(found: &str, expected: &str, column: &Column) -> bool {
    match &column.ty {
        ColumnType::Text { .. } => {
            let Some((utf8, raw)) = expected.split_once('/') else { return found == expected };
            // Only what has no decoder may be raw.
            match found.strip_prefix("raw ") {
                Some(found) => column.charset.as_deref() == Some("tis620") && found == raw,
                None => found == utf8,
            }
        }
        ColumnType::Json if expected.contains('/') => expected.split_once('/').unwrap().0 == found,
        ColumnType::Int { unsigned: true } if column.sql_type.contains("zerofill") => {
            found.parse::<u64>() == expected.parse::<u64>()
        }
        ColumnType::Float | ColumnType::Double => match (found.parse::<f64>(), expected.parse::<f64>()) {
            (Ok(found), Ok(expected)) => found == expected,
            _ => found == expected,
        },
        _ => found == expected,
    }
}

fn replay(name: &str, flavor: Flavor, without_metadata: bool) -> Vec<String> {
    let file = std::fs::read(path(name, "binlog")).unwrap();
    let tables = tables(name, flavor);
    let mut replay = Replay { tables, without_metadata, rows: Rows::new(), seen: Vec::new() };
    let mut reader = EventReader::new(flavor);
    for bytes in events(&file) {
        let (_, event) = reader.read(bytes).unwrap();
        replay.apply(event, &mut reader);
    }
    let mut wrong = Vec::new();
    let mut rows = 0;
    for line in read(name, "expected.tsv").lines() {
        let (table, fields) = line.split_once('\t').unwrap();
        let fields: Vec<_> = fields.split('\t').collect();
        let Some(row) = replay.rows.remove(&(table.to_owned(), fields[0].to_owned())) else {
            wrong.push(format!("{table} {} is missing", fields[0]));
            continue;
        };
        rows += 1;
        for ((value, expected), column) in row.iter().zip(&fields).zip(&replay.tables[table].columns) {
            let found = text(value, &column.ty);
            if !same(&found, expected, column) {
                let found: String = found.chars().take(200).collect();
                let expected: String = expected.chars().take(200).collect();
                wrong.push(format!("{table} {} {}: {found} not {expected}", fields[0], column.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(replay.rows.is_empty(), "not on the server: {:?}", replay.rows.keys());
    assert!(rows > 30, "only {rows} rows compared");
    replay.seen
}

#[test]
fn mysql_rows_are_what_the_server_prints() {
    let seen = replay("mysql", Flavor::MySql, false);
    for what in ["payload", "gtid blue", "gtid ", "xa 7 [103] [98] false", "query XA"] {
        assert!(seen.iter().any(|s| s == what), "{what} not in {seen:?}");
    }
}

#[test]
fn mariadb_rows_are_what_the_server_prints() {
    let seen = replay("mariadb", Flavor::MariaDb, false);
    for what in ["maria gtid true", "maria gtid false", "xa 7 [103] [98] false"] {
        assert!(seen.iter().any(|s| s == what), "{what} not in {seen:?}");
    }
}

#[test]
fn without_metadata_the_definition_alone_gives_the_same_rows() {
    replay("mysql", Flavor::MySql, true);
    replay("mariadb", Flavor::MariaDb, true);
}
