//! Tables, rows and a plain reading of a journal, for all tests.

use base::{Column, ColumnType, Generated, RowBuf, Table, TableName, ValueRef};
use journal::{Chunk, Journal, JournalError};
use std::sync::Arc;

pub fn table(id: u32, version: u32) -> Arc<Table> {
    let column = |name: &str, ty, sql_type: &str| Column {
        name: name.to_owned(),
        ty,
        sql_type: sql_type.to_owned(),
        nullable: false,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    };
    let mut columns = vec![column("id", ColumnType::BigInt { unsigned: false }, "bigint")];
    for index in 1..=version {
        let name = format!("c{index}");
        columns.push(column(&name, ColumnType::Text { chars_max: 40 }, "varchar(40)"));
    }
    let name = TableName::new("shop", format!("t{id}"));
    Arc::new(Table { id, version, name, columns, key: vec![0], unique_keys: Vec::new() })
}

pub fn row(id: i64, text: &str) -> RowBuf {
    RowBuf::from_values([ValueRef::Int(id), ValueRef::Text(text)])
}

/// All of a change that a reader sees, as text to compare.
pub fn show(chunk: &Chunk) -> Result<Vec<String>, JournalError> {
    chunk
        .changes()
        .map(|change| {
            let c = change?;
            let txn = c.txn.map(|t| format!("{}#{}{}", t.id, t.index, if t.last { "!" } else { "" }));
            Ok(format!(
                "{}/{} {} {}:{}v{} {} {:?} {:?} {:?} {:?}",
                c.epoch,
                c.lsn,
                c.op.name(),
                c.table.name,
                c.table.id,
                c.table.version,
                c.ts_ms,
                txn,
                c.before.map(|r| image(r.0)),
                c.after.map(|r| image(r.0)),
                c.ddl.map(|d| d.sql.clone()),
            ))
        })
        .collect()
}

/// Everything a fresh reader sees from `from_lsn` on.
pub fn read_all(journal: &Journal, from_lsn: u64, bytes_max: usize) -> Result<Vec<String>, JournalError> {
    let mut out = Vec::new();
    let mut reader = journal.reader(from_lsn)?;
    while let Some(chunk) = reader.next(bytes_max)? {
        let lines = show(&chunk)?;
        assert_eq!(lines.len(), chunk.len(), "a chunk says how many changes it has");
        out.extend(lines);
        assert_eq!(reader.next_lsn(), chunk.last_lsn() + 1, "a reader goes on behind its chunk");
    }
    Ok(out)
}

/// A row image, short enough to print thousands of.
pub fn image(bytes: &[u8]) -> String {
    format!("{}:{:08x}", bytes.len(), crc32c::crc32c(bytes))
}
