//! Captured statements as a source: the files of a mesh's capture become rows of one table, each once.
//!
//! Which file was read how far is sealed with the rows. A block that is not whole is waited for as long as its writer lives.
//! What was gone or broken before it was read is a gap: it is counted, and is a row of the table itself. Nothing here writes to
//! the folder; the mesh may be another process, and the files are as good for a replay as before.

mod folder;
mod rows;

use super::CaptureError;
use super::mysql::{Anew, Control};
use super::status::{PositionStatus, SnapshotStatus, StatusCell};
use super::writer::JournalHandle;
use crate::patterns::Patterns;
use base::{CapturePosition, Op, Position, RowBuf, Step, Table, Value};
use folder::{Folder, Found, Look};
use journal::Batch;
use mysql::captured::{Record, now_us};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often the folder is looked at; the mesh writes as often.
const POLL: Duration = Duration::from_millis(100);
const BACKOFF: Duration = Duration::from_secs(2);
/// Bytes of rows that are one transaction of the journal.
const BATCH_BYTES: usize = 512 << 10;

/// A folder and what its statements are written to.
pub struct StatementsSource {
    pub name: Arc<str>,
    /// The folder of the captures.
    pub path: PathBuf,
    pub patterns: Arc<Patterns>,
    pub handle: JournalHandle,
    pub status: StatusCell,
}

/// Captures until shutdown.
pub async fn run(
    source: StatementsSource,
    mut control: mpsc::Receiver<Control>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut gaps = 0;
    while !*shutdown.borrow() {
        let Err(error) = session(&source, &mut control, &mut shutdown, &mut gaps).await else { continue };
        source.status.interrupted(&error);
        let pause = tokio::time::sleep(BACKOFF);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = shutdown.changed() => return,
                Some(command) = control.recv() => refuse(command),
            }
        }
    }
}

/// What `check --connect` tells of a folder: its files and their bytes.
///
/// # Errors
/// When it cannot be read.
pub fn inspect(path: &Path) -> Result<(usize, u64), CaptureError> {
    let mut folder = Folder::new(path);
    folder.list(&BTreeMap::new())?;
    Ok(folder.sizes())
}

/// Rows come from files that rotate.
fn refuse(command: Control) {
    let Control::Resnapshot { reply, .. } = command;
    let _: Result<(), Result<Anew, String>> = reply.send(Err(
        "statements are read once: to read the files that are still there anew, give the source a new name"
            .into(),
    ));
}

/// One life of the journal's writer.
async fn session(
    source: &StatementsSource,
    control: &mut mpsc::Receiver<Control>,
    shutdown: &mut watch::Receiver<bool>,
    gaps: &mut u64,
) -> Result<(), CaptureError> {
    let mut intake = Intake::open(source, *gaps).await?;
    loop {
        let more = intake.round(source).await;
        *gaps = intake.gaps;
        let more = more?;
        intake.show(&source.status);
        let pause = async {
            if !more {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            biased;
            _ = shutdown.changed() => return source.handle.flush().await,
            command = control.recv() => match command {
                Some(command) => refuse(command),
                None => return Ok(()),
            },
            () = pause => {}
        }
    }
}

/// What is known of the journal's end, and of the folder.
struct Intake {
    table: Arc<Table>,
    /// Whether the source's patterns want its table.
    wanted: bool,
    files: BTreeMap<String, CapturePosition>,
    folder: Folder,
    batch: Batch,
    gaps: u64,
    /// When the newest statement that was taken came; 0 while all are.
    behind_us: u64,
}

impl Intake {
    async fn open(source: &StatementsSource, gaps: u64) -> Result<Self, CaptureError> {
        let state = source.handle.reset().await?;
        let files = match state.position {
            None => None,
            Some(Position::Capture { files }) => Some(files),
            Some(_) => {
                return Err(CaptureError::fatal(
                    "the journal belongs to another kind of source",
                    "give the source a new name, or remove its journal",
                ));
            }
        };
        let known = state.tables.into_values().find(|table| table.name.table == rows::TABLE);
        let fresh = files.is_none();
        let (table, is_new) = match known {
            Some(table) if table.columns == rows::table(&source.name, 0).columns => (table, false),
            // An earlier version had other columns.
            Some(table) => (Arc::new(rows::table(&source.name, table.version + 1)), true),
            None => (Arc::new(rows::table(&source.name, 1)), true),
        };
        let mut intake = Self {
            wanted: source.patterns.matches(&table.name),
            table,
            files: files.unwrap_or_default(),
            folder: Folder::new(&source.path),
            batch: source.handle.batch(state.next_lsn),
            gaps,
            behind_us: 0,
        };
        if is_new {
            intake.batch.schema(&intake.table);
        }
        if fresh || is_new {
            let files = intake.files.clone();
            intake.batch.commit(&Step::Full(Box::new(Position::Capture { files })));
            intake.flush(source).await?;
        }
        Ok(intake)
    }

    /// Takes what there is, a part at a time; whether there is more.
    async fn round(&mut self, source: &StatementsSource) -> Result<bool, CaptureError> {
        source.handle.check()?;
        let missed = self.folder.list(&self.files)?;
        for Look { gone, reason } in missed {
            self.gap(source, &reason);
            self.folder.forget(&gone);
            for name in &gone {
                self.files.remove(name);
            }
            let files = self.folder.begun(&self.files);
            self.batch.commit(&Step::Full(Box::new(Position::Capture { files: files.clone() })));
            self.files = files;
        }
        self.prune();
        let mut block = Vec::new();
        let mut more = false;
        for name in self.folder.names() {
            let mut at = self.files.get(&*name).copied().unwrap_or_default();
            match self.folder.read(&name, &mut at, &mut block)? {
                Found::Nothing => continue,
                Found::Done => {}
                Found::Lost(reason) => self.gap(source, &reason),
                Found::Block(next) => {
                    self.take(source, &name, &block, &mut at, next).await?;
                    more = true;
                }
            }
            self.commit(&name, at);
            self.flush(source).await?;
            if more {
                // The oldest first, whatever else there is.
                break;
            }
        }
        if !more {
            self.behind_us = 0;
        }
        self.flush(source).await?;
        Ok(more)
    }

    fn commit(&mut self, name: &Arc<str>, at: CapturePosition) {
        self.files.insert(name.to_string(), at);
        self.batch.commit(&Step::Capture { file: Arc::clone(name), to: at });
    }

    /// Puts the rest of a block into the journal; `at` is behind it then.
    async fn take(
        &mut self,
        source: &StatementsSource,
        name: &Arc<str>,
        block: &[u8],
        at: &mut CapturePosition,
        next: u64,
    ) -> Result<(), CaptureError> {
        let mut rest = block.get(at.taken as usize..).unwrap_or_default();
        let mut begun = false;
        let mut count = 0;
        while let Some((record, behind)) = Record::read(rest) {
            let taken = block.len() - rest.len();
            rest = behind;
            if !self.wanted || !rows::is_kept(record.kind) {
                continue;
            }
            if !std::mem::replace(&mut begun, true) {
                self.batch.begin(&format!("{name}:{}+{taken}", at.block), rows::millis(record.at_us));
            }
            self.behind_us = record.at_us;
            let row = rows::row(name, at.block + taken as u64, &record);
            self.put(&row);
            count += 1;
            if self.batch.len_bytes() >= BATCH_BYTES {
                // A block is as long as the mesh was busy: its rows are not all in memory.
                at.taken = u32::try_from(block.len() - rest.len()).unwrap_or(u32::MAX);
                self.commit(name, *at);
                self.flush(source).await?;
                begun = false;
            }
        }
        *at = CapturePosition { block: next, taken: 0, done: false };
        metrics::counter!(base::metrics::CAPTURED_ROWS, "source" => source.name.to_string()).increment(count);
        Ok(())
    }

    fn put(&mut self, row: &[Value]) {
        let row = RowBuf::from_values(row.iter().map(Value::as_ref));
        self.batch.change(Op::Insert, &self.table, None, Some(&row.0));
    }

    /// Tells of statements that are lost: who searches shall see that there were more.
    fn gap(&mut self, source: &StatementsSource, reason: &str) {
        self.gaps += 1;
        tracing::warn!(source = %source.name, reason, "captured statements were lost before they were read");
        metrics::counter!(base::metrics::CAPTURE_GAPS, "source" => source.name.to_string()).increment(1);
        if self.wanted {
            let now = now_us();
            self.batch.begin(&format!("gap:{now}"), rows::millis(now));
            let row = rows::gap(now, reason);
            self.put(&row);
        }
    }

    /// Files that were read and are gone need no place in the position, but for the newest: it tells whether others came and
    /// went after it.
    fn prune(&mut self) {
        let newest = self.files.last_key_value().map(|(name, _)| name.clone());
        let gone: Vec<String> = self
            .files
            .iter()
            .filter(|(name, at)| at.done && !self.folder.has(name) && newest.as_ref() != Some(name))
            .map(|(name, _)| name.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        for name in gone {
            self.files.remove(&name);
        }
        self.batch.commit(&Step::Full(Box::new(Position::Capture { files: self.files.clone() })));
    }

    async fn flush(&mut self, source: &StatementsSource) -> Result<(), CaptureError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let next = source.handle.batch(self.batch.next_lsn());
        let full = std::mem::replace(&mut self.batch, next);
        metrics::counter!(base::metrics::CAPTURED_BYTES, "source" => source.name.to_string())
            .increment(full.len_bytes() as u64);
        source.handle.append(full).await
    }

    fn show(&self, status: &StatusCell) {
        let lag_ms = if self.behind_us == 0 { 0 } else { now_us().saturating_sub(self.behind_us) / 1000 };
        status.advance(|status| {
            status.state = "stream";
            status.lag_ms = lag_ms;
            status.gaps = Some(self.gaps);
            status.position = PositionStatus::of_capture(&self.files);
            status.snapshot = SnapshotStatus::done(1, 0);
        });
    }
}
