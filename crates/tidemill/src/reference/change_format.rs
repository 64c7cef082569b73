//! `change-format.md`: the words stand in `change_format.md` beside this file; the examples are printed by the encoder.

use super::NOTE;
use base::change::Ddl;
use base::{Change, Column, ColumnType, Generated, Op, RowBuf, RowView, Table, TableName, Txn, ValueRef};
use flow::formats::{Encoder, Format, Record};
use std::sync::Arc;

/// What the page's words hold in place of an example.
const EXAMPLE_MARK: &str = "{{examples}}";
/// The same in another format: `{{debezium}}`.
const OTHERS: [Format; 5] =
    [Format::Debezium, Format::Maxwell, Format::Canal, Format::CloudEvents, Format::S3Event];

pub fn page() -> String {
    let words = include_str!("change_format.md");
    let (head, tail) = words.split_once('\n').expect("the page has a title");
    let mut tail = tail.replace(EXAMPLE_MARK, &examples(Format::Json));
    for format in OTHERS {
        tail = tail.replace(&format!("{{{{{}}}}}", format.name()), &examples(format));
    }
    format!("{head}\n\n{NOTE}\n{tail}")
}

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

/// One row as a snapshot reads it, the same row changed, gone, and a statement.
fn examples(format: Format) -> String {
    let encoder = Encoder::new(format, "shop", false);
    let labels = ["new", "paid"].map(str::to_owned).to_vec();
    let table = Arc::new(Table {
        id: 1,
        version: 1,
        name: TableName::new("shop", "orders"),
        columns: vec![
            column("id", ColumnType::BigInt { unsigned: true }, "bigint unsigned"),
            column("status", ColumnType::Enum { labels }, "enum('new','paid')"),
            column("total", ColumnType::Decimal { precision: 10, scale: 2 }, "decimal(10,2)"),
            column("placed_at", ColumnType::DateTime { fsp: 3 }, "datetime(3)"),
            column("paid_at", ColumnType::Timestamp { fsp: 0 }, "timestamp"),
            column("note", ColumnType::Json, "json"),
        ],
        key: vec![0],
        unique_keys: vec![],
    });
    let placed = base::DateTime {
        date: base::Date { year: 2026, month: 1, day: 2 },
        hour: 3,
        minute: 4,
        second: 5,
        micro: 120_000,
    };
    let new = RowBuf::from_values([
        ValueRef::UInt(7),
        ValueRef::Enum(1),
        ValueRef::Decimal("12.50"),
        ValueRef::DateTime(placed),
        ValueRef::Null,
        ValueRef::Json("{\"gift\": true}"),
    ]);
    let paid = RowBuf::from_values([
        ValueRef::UInt(7),
        ValueRef::Enum(2),
        ValueRef::Decimal("12.50"),
        ValueRef::DateTime(placed),
        ValueRef::Timestamp(1_767_323_105_000_000),
        ValueRef::Json("{\"gift\": true}"),
    ]);
    let print =
        |lsn: u64, op: Op, before: Option<RowView<'_>>, after: Option<RowView<'_>>, ddl: Option<Ddl>| {
            let id = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{}", lsn + 20);
            let change = Change {
                epoch: 1,
                lsn,
                op,
                table: Arc::clone(&table),
                ts_ms: 1_767_323_045_000 + lsn as i64 * 20_000,
                txn: (op != Op::Read).then(|| Txn { id: id.into(), index: 0, last: true }),
                before,
                after,
                ddl: ddl.map(Arc::new),
            };
            let mut line = Vec::new();
            encoder.lines(&Record::of_change(&change).expect("the example's rows are whole"), &mut line);
            String::from_utf8(line).expect("JSON is UTF-8")
        };
    let statement = Ddl {
        sql: "DROP TABLE orders".into(),
        before: Some(Arc::clone(&table)),
        after: None,
        column_renames: vec![],
    };
    let lines = [
        print(1, Op::Read, None, Some(new.view()), None),
        print(2, Op::Update, Some(new.view()), Some(paid.view()), None),
        print(3, Op::Delete, Some(paid.view()), None, None),
        print(4, Op::Ddl, None, None, Some(statement)),
    ];
    format!("```json\n{}\n```", lines.concat().trim_end())
}
