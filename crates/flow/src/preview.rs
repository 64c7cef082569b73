//! What a flow's rules make of changes, without a sink: for people who write rules. It reads the journal with a reader of
//! its own, and neither moves the flow nor parks anything.
//!
//! One JSON object a change: `{"lsn","ts_ms","op","db","table","before","after","outcome","reason","rows"}`, where `before`
//! and `after` are the row as the source has it, `outcome` is `passes`, `left_out` or `parked`, and `rows` is what the sink
//! would be given: `[{"op","db","table","before","after"}]`.

use crate::config::FlowConfig;
use crate::deliver::producer::{Converted, ProduceError, Producer};
use crate::deliver::sink::OutChange;
use crate::mirror::Mirror;
use crate::patterns::Patterns;
use base::json::{put_row, put_string, put_value};
use base::{Change, Op, RowView, Table, Value};
use journal::Journal;
use std::io::Write as _;

/// So far back are changes of the flow's tables looked for.
const LOOK_BACK_MAX: u64 = 100_000;
/// Bytes asked of the journal at once while looking back.
const READ_BYTES: usize = 256 << 10;

pub struct Previewer {
    producer: Producer,
    patterns: Patterns,
}

impl Previewer {
    /// `mirror` is that of the flow's source, if it is at hand.
    pub fn new(journal: &Journal, flow: &FlowConfig, mirror: Option<&Mirror>) -> Result<Self, ProduceError> {
        let all = ["*.*".to_owned()];
        let tables = if flow.tables.is_empty() { &all[..] } else { &flow.tables };
        let patterns = Patterns::new(tables, &[]).map_err(|error| ProduceError::Plan {
            table: "the flow".into(),
            message: error.to_string(),
            hint: "write db.table".into(),
        })?;
        Ok(Self { producer: Producer::new(journal.clone(), flow, mirror)?, patterns })
    }

    /// The lsn from which on the journal has the newest `rows` changes of the flow's tables; less where it has fewer, or
    /// where they are too far back.
    pub fn first_of_newest(&self, journal: &Journal, rows: u64) -> Result<u64, ProduceError> {
        let end = journal.sealed().lsn;
        let mut width = rows.max(1);
        loop {
            let from = journal.first_lsn().max((end + 1).saturating_sub(width)).max(1);
            let mut found = Vec::new();
            let mut reader = journal.reader(from)?;
            'reading: while let Some(chunk) = reader.next(READ_BYTES)? {
                for change in chunk.changes() {
                    let change = change?;
                    if change.lsn > end {
                        break 'reading;
                    }
                    if self.shows(&change) {
                        found.push(change.lsn);
                    }
                }
            }
            let enough = found.len() as u64 >= rows;
            if enough || width >= LOOK_BACK_MAX || from <= journal.first_lsn().max(1) {
                let surplus = found.len().saturating_sub(rows as usize);
                return Ok(found.get(surplus).copied().unwrap_or(end + 1));
            }
            width = width.saturating_mul(16).min(LOOK_BACK_MAX);
        }
    }

    /// The next change will be this one.
    pub fn begin(&mut self, from: u64) -> Result<(), ProduceError> {
        self.producer.remember(from)
    }

    fn shows(&self, change: &Change<'_>) -> bool {
        change.op != Op::Ddl && self.patterns.matches(&change.table.name)
    }

    /// Appends the change as a line; false when it is not of the flow, or no change of rows.
    pub fn line(&mut self, change: &Change<'_>, out: &mut Vec<u8>) -> Result<bool, ProduceError> {
        if !self.shows(change) {
            return Ok(false);
        }
        let mut made = Vec::new();
        let converted = self.producer.convert(change, &mut Vec::new(), &mut made)?;
        let (outcome, reason) = match converted {
            Converted::Foreign => return Ok(false),
            Converted::LeftOut => ("left_out", None),
            Converted::Passed => ("passes", None),
            Converted::Failed(_, reason) => ("parked", Some(reason)),
        };
        let _ = write!(
            out,
            "{{\"lsn\":{},\"ts_ms\":{},\"op\":\"{}\"",
            change.lsn,
            change.ts_ms,
            change.op.name()
        );
        put_name(out, &change.table);
        for (name, row) in [("before", change.before), ("after", change.after)] {
            put_image(out, name, row, &change.table)?;
        }
        let _ = write!(out, ",\"outcome\":\"{outcome}\",\"reason\":");
        match &reason {
            Some(reason) => put_string(out, reason),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"rows\":[");
        for (place, row) in made.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            put_made(out, row);
        }
        out.extend_from_slice(b"]}\n");
        Ok(true)
    }
}

fn put_name(out: &mut Vec<u8>, table: &Table) {
    for (key, name) in [("db", &table.name.db), ("table", &table.name.table)] {
        let _ = write!(out, ",\"{key}\":");
        put_string(out, name);
    }
}

fn put_image(
    out: &mut Vec<u8>,
    name: &str,
    row: Option<RowView<'_>>,
    table: &Table,
) -> Result<(), ProduceError> {
    let _ = write!(out, ",\"{name}\":");
    match row {
        Some(row) => put_row(out, row, table).map_err(|_| ProduceError::Malformed(table.name.to_string())),
        None => {
            out.extend_from_slice(b"null");
            Ok(())
        }
    }
}

fn put_made(out: &mut Vec<u8>, change: &OutChange) {
    let _ = write!(out, "{{\"op\":\"{}\"", change.op.name());
    put_name(out, &change.table);
    for (name, row) in [("before", &change.before), ("after", &change.after)] {
        let _ = write!(out, ",\"{name}\":");
        match row {
            Some(row) => put_values(out, row, &change.table),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

fn put_values(out: &mut Vec<u8>, row: &[Value], table: &Table) {
    out.push(b'{');
    for (place, (column, value)) in table.columns.iter().zip(row).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put_string(out, &column.name);
        out.push(b':');
        put_value(out, value.as_ref(), column);
    }
    out.push(b'}');
}
