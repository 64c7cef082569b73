//! The stream's side of rows that are read again by their keys: it notes what it changes meanwhile, and journals what it has not
//! overtaken. One look at a table at a time, and none while a snapshot reads it.

use super::*;
use crate::capture::mysql::repair::{Look, Looked, Repair, Repaired};
use base::{ColumnType, RowWriter};

/// Changes overtook what was read.
const OVERTAKEN: &str = "its rows changed faster than they could be read: try again";
const RESHAPED: &str = "it was emptied, or its definition changed, or it is being read anew: try again";

impl Stream {
    /// Begins to read rows again.
    pub(super) fn begin_repair(&mut self, repair: Repair) {
        while self.state.repairs.try_join_next().is_some() {}
        self.state.repairs.spawn(crate::capture::mysql::repair::run(self.reader.clone(), repair));
    }

    pub(super) fn start_look(&mut self, name: TableName, reply: oneshot::Sender<Result<Look, String>>) {
        let answer = self.look_at(&name);
        let taken = answer.is_ok();
        if reply.send(answer).is_ok() && taken {
            self.state.tracking.insert(name.clone(), Tracking::default());
            self.state.looks.insert(name, self.state.looks_begun);
        }
    }

    fn look_at(&mut self, name: &TableName) -> Result<Look, String> {
        let progress = self.progress.tables.get(&name.to_string());
        if progress.is_some_and(|progress| progress.quarantined.is_some()) {
            return Err("it is quarantined: see `tidemill status`".to_owned());
        }
        if progress.is_some_and(|progress| !progress.done) {
            return Err("it is being read anew: wait until that is done".to_owned());
        }
        if self.state.tracking.contains_key(name) {
            return Err("it is being repaired: try again".to_owned());
        }
        let table = self.model.get(name).ok_or_else(|| "it is not captured".to_owned())?;
        if table.key.is_empty() {
            return Err("it has no key".to_owned());
        }
        self.state.looks_begun += 1;
        Ok(Look { table, number: self.state.looks_begun, processed: self.position.clone() })
    }

    /// What a look noted; `None` when it has ended since, by a snapshot.
    pub(super) fn end_look(&mut self, name: &TableName, number: u64) -> Option<Tracking> {
        self.state.looks.get(name).filter(|own| **own == number)?;
        self.state.looks.remove(name);
        self.state.tracking.remove(name)
    }

    /// Journals the rows whose high mark the stream has reached, and answers when they are durable.
    pub(super) async fn emit_looked(&mut self) -> Result<(), CaptureError> {
        let mut index = 0;
        while index < self.state.looked.len() {
            if !self.state.looked[index].high.reached_by(&self.position) {
                index += 1;
                continue;
            }
            let looked = self.state.looked.swap_remove(index);
            let written = self.put_looked(&looked);
            if written.is_ok() {
                self.flush().await?;
                self.handle.flush().await?;
            }
            let _ = looked.reply.send(written);
        }
        Ok(())
    }

    fn put_looked(&mut self, looked: &Looked) -> Result<Repaired, String> {
        let (table, low) = (&looked.look.table, &looked.low);
        let tracking = self.end_look(&table.name, looked.look.number).ok_or(RESHAPED)?;
        let known = self.model.get(&table.name);
        if known.is_none_or(|known| known.version != table.version || known.id != table.id) {
            return Err(RESHAPED.to_owned());
        }
        match tracking.verdict(low) {
            Verdict::Keep => {}
            Verdict::Again => return Err(OVERTAKEN.to_owned()),
            Verdict::Restart => return Err(RESHAPED.to_owned()),
        }
        let rows = looked.rows.iter().filter(|row| tracking.is_current(&row_key(table, row.view()), low));
        let rows: Vec<_> = rows.collect();
        // Texts that differ may be one key for a sink, as for the source: then any change since may have made it.
        let by_bytes = table.key.iter().all(|index| !is_text(&table.columns[*index].ty));
        let absent = looked.absent.iter();
        let absent =
            absent.filter(|key| tracking.is_current(key, low) && (by_bytes || tracking.is_quiet(low)));
        let absent: Vec<_> = absent.collect();
        if !rows.is_empty() || !absent.is_empty() {
            self.batch.begin("", now_ms());
            for row in &rows {
                self.batch.change(Op::Read, table, None, Some(&row.0));
            }
            for key in &absent {
                let image = key_image(table, key).ok_or("a key cannot be written")?;
                self.batch.change(Op::Delete, table, Some(&image), None);
            }
            self.seal(Step::Stay);
        }
        let (rows, deleted) = (rows.len() as u64, absent.len() as u64);
        Ok(Repaired { rows, deleted, lsn: self.batch.next_lsn() - 1 })
    }
}

fn is_text(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. })
}

/// A row of which only the key is known.
fn key_image(table: &Table, key: &[u8]) -> Option<Vec<u8>> {
    let values = RowView(key).values().ok()?;
    let mut out = Vec::with_capacity(key.len() + table.columns.len());
    let mut writer = RowWriter::new(&mut out);
    for index in 0..table.columns.len() {
        match table.key.iter().position(|own| *own == index) {
            Some(place) => writer.put(values.get(place)?.as_ref()),
            None => writer.put_absent(),
        }
    }
    Some(out)
}
