//! The mirror of a source: the latest row of each key of its captured tables, with the lsn of its last change.
//!
//! A task of its own follows the journal into a SQLite file beside it. Rows and progress go in one transaction, which ends where
//! a transaction of the source ends. Everything in the file can be had again: when it is lost or damaged, it is filled
//! from the journal, or, where that no longer has the beginning, by reading the tables anew. Who reads it waits until it is as
//! far as he needs it and the tables in question are whole; nobody waits for it who writes.

pub mod key;
pub mod read;
mod store;

use crate::capture::mysql::{Anew, Control};
use crate::capture::status::ErrorStatus;
use crate::config::{FlowConfig, SourceConfig, TransformStep};
use crate::patterns::{BadPattern, Patterns};
use base::{Table, TableName};
use journal::{Journal, JournalError};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};

/// Bytes asked of the journal at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes of the journal that one transaction of the file takes in, about: more of them only where a transaction of the source is
/// larger.
const COMMIT_BYTES: usize = 8 << 20;
const BACKOFF: Duration = Duration::from_secs(2);
/// At this pace it is looked whether the journal forgot changes, and rows that ended by them may be forgotten too.
const PURGE_INTERVAL: Duration = Duration::from_secs(10);

/// Which tables a source's mirror has, and what they are joined by.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    patterns: Patterns,
    /// The patterns as text: another text than the file's is another mirror.
    text: String,
    links: BTreeMap<TableName, Vec<Vec<String>>>,
}

impl MirrorConfig {
    /// What the source itself asks for, and what its flows join; `None` when that is nothing.
    pub fn of(
        name: &str,
        source: &SourceConfig,
        flows: &BTreeMap<String, FlowConfig>,
    ) -> Result<Option<Self>, BadPattern> {
        let mut names: BTreeSet<String> = source.mirror.iter().cloned().collect();
        let mut links: BTreeMap<TableName, BTreeSet<Vec<String>>> = BTreeMap::new();
        for flow in flows.values().filter(|flow| flow.from == name) {
            for (table, columns) in joins_of(flow) {
                names.insert(table.to_string());
                links.entry(table).or_default().insert(columns);
            }
        }
        if names.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> = names.into_iter().collect();
        let patterns = Patterns::new(&names, &source.exclude)?;
        let text = format!("{} - {}", names.join(" "), source.exclude.join(" "));
        let links = links.into_iter().map(|(table, links)| (table, links.into_iter().collect())).collect();
        Ok(Some(Self { patterns, text, links }))
    }

    /// Columns that a table is joined by, besides its key.
    fn links_of(&self, table: &Table) -> Vec<Vec<String>> {
        let all = self.links.get(&table.name).cloned().unwrap_or_default();
        all.into_iter().filter(|names| !read::is_key(table, names)).collect()
    }
}

/// The tables that a flow reads of the mirror, by which columns.
fn joins_of(flow: &FlowConfig) -> Vec<(TableName, Vec<String>)> {
    let mut out = Vec::new();
    let name = |text: &str| text.split_once('.').map(|(db, table)| TableName::new(db, table));
    for nest in flow.options.nest.values() {
        out.extend(name(&nest.from).map(|table| (table, nest.on.keys().cloned().collect())));
        let parent = flow.tables.first().and_then(|table| name(table));
        out.extend(parent.map(|table| (table, nest.on.values().cloned().collect())));
    }
    for step in &flow.transform {
        if let TransformStep::Lookup(step) = step {
            let table = step.table.as_deref().and_then(name);
            out.extend(table.map(|table| (table, vec![step.key.clone()])));
        }
    }
    out
}

/// Whether a flow reads the mirror of its source.
pub fn is_read_by(flow: &FlowConfig) -> bool {
    !joins_of(flow).is_empty()
}

/// Whether a flow looks rows up in other tables.
pub fn is_looked_up_by(flow: &FlowConfig) -> bool {
    let looks = |step: &TransformStep| matches!(step, TransformStep::Lookup(step) if step.table.is_some());
    flow.transform.iter().any(looks)
}

/// How far a mirror is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Counts the files.
    pub generation: u64,
    /// The last change that it has.
    pub lsn: u64,
    /// Whether it knows all tables that the journal has.
    pub looked: bool,
    /// Counts the tables that became whole, so that who waits for one wakes.
    wholes: u64,
}

/// What `status` shows of a mirror.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct MirrorStatus {
    /// `filling` until all its tables have been read whole, then `following`; `failed` with the error.
    pub state: &'static str,
    pub error: Option<ErrorStatus>,
    /// The last change that it has.
    pub lsn: u64,
    /// Changes in the journal that it lacks.
    pub lag_changes: u64,
    pub rows: u64,
    pub bytes: u64,
    pub tables: Vec<MirroredStatus>,
    /// Whether the journal is past its retention and kept for the mirror alone.
    pub holds_journal: bool,
}

/// A table of a mirror.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct MirroredStatus {
    pub table: String,
    pub rows: u64,
    /// Whether it was read whole; while it is read anew, who joins it waits.
    pub whole: bool,
    /// Why it cannot be mirrored.
    pub refused: Option<String>,
}

/// A mirror, for who reads it or asks how it is. Cheap to clone.
#[derive(Clone)]
pub struct Mirror(Arc<Shared>);

struct Shared {
    source: String,
    path: PathBuf,
    /// The tables that it has.
    patterns: Patterns,
    journal: Journal,
    reached: watch::Sender<Reached>,
    status: Mutex<MirrorStatus>,
}

impl Mirror {
    pub fn watch(&self) -> watch::Receiver<Reached> {
        self.0.reached.subscribe()
    }

    pub fn reached(&self) -> Reached {
        *self.0.reached.borrow()
    }

    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Whether it keeps the rows of a table of this name.
    pub fn takes(&self, name: &TableName) -> bool {
        self.0.patterns.matches(name)
    }

    fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether the journal has a table of this name at its end, also one that has no row yet.
    fn is_in_journal(&self, name: &TableName) -> bool {
        self.0.journal.state().tables.values().any(|table| table.name == *name)
    }

    fn lock(&self) -> MutexGuard<'_, MirrorStatus> {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status against the journal's end.
    pub fn status(&self, end: u64) -> MirrorStatus {
        let mut status = self.lock().clone();
        status.lag_changes = end.saturating_sub(status.lsn);
        status
    }

    pub fn holds_journal(&self, holds: bool) -> bool {
        std::mem::replace(&mut self.lock().holds_journal, holds)
    }

    fn failed(&self, error: &MirrorError) {
        let told = ErrorStatus { message: base::error::chain(error), hint: error.hint() };
        let mut status = self.lock();
        if status.error.as_ref() != Some(&told) {
            tracing::warn!(
                source = self.0.source,
                error = told.message,
                hint = told.hint,
                "the mirror stands still"
            );
        }
        (status.state, status.error) = ("failed", Some(told));
    }
}

#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("failed to read the journal")]
    Journal(#[from] JournalError),
    #[error("the mirror needs its tables read anew, and the source refuses: {0}")]
    Refused(String),
    #[error("the mirror's file was taken away")]
    Lost,
    #[error("the mirror ends with the node")]
    Ended,
}

impl MirrorError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Store(error) if error.is_damage() => "it is made anew by itself".to_owned(),
            Self::Lost => "it is made anew by itself".to_owned(),
            Self::Store(_) => {
                "is there room on the disk, and is the folder ours? it is tried again by itself".to_owned()
            }
            Self::Refused(_) => "is the source up? it is asked again by itself".to_owned(),
            Self::Journal(_) | Self::Ended => return None,
        })
    }
}

/// A source's journal, and where its mirror is.
pub struct MirrorParts {
    pub source: String,
    pub path: PathBuf,
    pub journal: Journal,
    pub control: mpsc::Sender<Control>,
    pub config: MirrorConfig,
}

/// The task of one mirror.
pub struct Follower {
    mirror: Mirror,
    journal: Journal,
    control: mpsc::Sender<Control>,
    config: Arc<MirrorConfig>,
    shutdown: watch::Receiver<bool>,
    /// The tables that were not read whole when the journal ended at this change.
    unfinished: Option<(u64, BTreeSet<u32>)>,
    purged_at: Instant,
}

/// Makes a mirror; [`Follower::run`] fills it.
pub fn prepare(parts: MirrorParts, shutdown: watch::Receiver<bool>) -> (Mirror, Follower) {
    let MirrorParts { source, path, journal, control, config } = parts;
    let status = MirrorStatus { state: "filling", ..MirrorStatus::default() };
    let (reached, _) = watch::channel(Reached::default());
    let mirror = Mirror(Arc::new(Shared {
        source,
        path,
        patterns: config.patterns.clone(),
        journal: journal.clone(),
        reached,
        status: Mutex::new(status),
    }));
    let follower = Follower {
        mirror: mirror.clone(),
        journal,
        control,
        config: Arc::new(config),
        shutdown,
        unfinished: None,
        purged_at: Instant::now(),
    };
    (mirror, follower)
}

impl Follower {
    /// Follows the journal until shutdown. Blocks.
    pub fn run(mut self) {
        let runtime = tokio::runtime::Handle::current();
        while !*self.shutdown.borrow() {
            let error = match self.follow() {
                Ok(()) | Err(MirrorError::Ended) => return,
                Err(error) => error,
            };
            self.mirror.failed(&error);
            let is_damage = match &error {
                MirrorError::Store(error) => error.is_damage(),
                error => matches!(error, MirrorError::Lost),
            };
            if is_damage {
                self.throw_away();
            }
            let mut shutdown = self.shutdown.clone();
            runtime.block_on(async {
                tokio::select! {
                    () = tokio::time::sleep(BACKOFF) => {}
                    _ = shutdown.changed() => {}
                }
            });
        }
    }

    fn throw_away(&self) {
        self.mirror.0.reached.send_modify(|reached| reached.looked = false);
        let path = self.mirror.path();
        for ending in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            if let Err(error) = std::fs::remove_file(&name)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(source = self.mirror.source(), %error, "failed to remove the mirror's damaged file");
            }
        }
    }

    /// One life of the file's connection.
    fn follow(&mut self) -> Result<(), MirrorError> {
        self.unfinished = None;
        self.mirror.0.reached.send_modify(|reached| {
            (reached.generation, reached.looked) = (reached.generation + 1, false);
        });
        let mut store = Store::open(self.mirror.path(), self.journal.identity(), Arc::clone(&self.config))?;
        self.settle(&mut store)?;
        let mut reader = self.journal.reader(store.lsn + 1)?;
        let mut seals = self.journal.watch();
        self.publish(&store, false)?;
        tracing::debug!(source = self.mirror.source(), lsn = store.lsn, "the mirror follows");
        loop {
            seals.borrow_and_update();
            self.read_on(&mut reader, &mut store)?;
            self.purge(&mut store)?;
            self.wait(&mut seals)?;
        }
    }

    fn wait(&self, seals: &mut watch::Receiver<u64>) -> Result<(), MirrorError> {
        let mut shutdown = self.shutdown.clone();
        tokio::runtime::Handle::current().block_on(async {
            if *shutdown.borrow() {
                return Err(MirrorError::Ended);
            }
            tokio::select! {
                changed = seals.changed() => changed.map_err(|_| MirrorError::Ended),
                _ = shutdown.changed() => Err(MirrorError::Ended),
                () = tokio::time::sleep(PURGE_INTERVAL) => Ok(()),
            }
        })
    }

    /// Reads to the journal's end.
    fn read_on(&mut self, reader: &mut journal::Reader, store: &mut Store) -> Result<(), MirrorError> {
        let (mut bytes, mut last, mut open) = (0, store.lsn, false);
        while let Some(chunk) = reader.next(READ_BYTES)? {
            if *self.shutdown.borrow() {
                return Err(MirrorError::Ended);
            }
            if !open {
                store.begin()?;
                open = true;
            }
            for change in chunk.changes() {
                store.apply(&change?)?;
            }
            (bytes, last) = (bytes + chunk.len_bytes(), chunk.last_lsn());
            if chunk.ends_txn() && bytes >= COMMIT_BYTES {
                self.commit(store, last)?;
                (bytes, open) = (0, false);
            }
        }
        if !open {
            store.begin()?;
        }
        self.commit(store, last)
    }

    /// Ends a transaction of the file, with what became whole by it.
    fn commit(&mut self, store: &mut Store, lsn: u64) -> Result<(), MirrorError> {
        let mut whole = false;
        // Once more when what was known was passed: it may have been too old to tell of a table that began anew since.
        for _ in 0..2 {
            let (end, unfinished) = self.unfinished.take().unwrap_or_else(|| self.unread());
            if lsn < end {
                self.unfinished = Some((end, unfinished));
                break;
            }
            self.register(store)?;
            whole |= store.finish(end, &unfinished, lsn)?;
            store.looked = true;
            if store.tables().all(|held| held.anew.is_none()) {
                break;
            }
        }
        store.commit(lsn)?;
        self.publish(store, whole)
    }

    /// Where the journal ends, and which of its tables are not read whole by then.
    fn unread(&self) -> (u64, BTreeSet<u32>) {
        let state = self.journal.state();
        let waits = |name: String| state.snapshot.tables.get(&name).is_some_and(|table| !table.done);
        let ids = state.tables.values().filter(|table| waits(table.name.to_string())).map(|table| table.id);
        (state.next_lsn - 1, ids.collect())
    }

    /// At the end of the journal: takes in tables that have no row yet. Those whose rows have passed were asked for when the mirror
    /// was opened.
    fn register(&self, store: &mut Store) -> Result<(), MirrorError> {
        for table in self.wanted() {
            if !store.has(table.id) {
                store.add(&table, Some(0))?;
            }
        }
        Ok(())
    }

    /// The journal's tables that the mirror has.
    fn wanted(&self) -> Vec<Arc<Table>> {
        let tables = self.journal.state().tables;
        tables.into_values().filter(|table| self.config.patterns.matches(&table.name)).collect()
    }

    fn publish(&self, store: &Store, whole: bool) -> Result<(), MirrorError> {
        let tables: Vec<MirroredStatus> = store
            .tables()
            .filter(|held| !held.dropped)
            .map(|held| MirroredStatus {
                table: held.name().to_string(),
                rows: held.rows.max(0) as u64,
                whole: held.filled && held.anew.is_none(),
                refused: held.refused.clone(),
            })
            .collect();
        let filling = !store.looked || tables.iter().any(|table| !table.whole && table.refused.is_none());
        let bytes = store.bytes()?;
        {
            let mut status = self.mirror.lock();
            status.state = if filling { "filling" } else { "following" };
            (status.error, status.lsn, status.bytes) = (None, store.lsn, bytes);
            status.rows = tables.iter().map(|table| table.rows).sum();
            status.tables = tables;
        }
        self.mirror.0.reached.send_modify(|reached| {
            (reached.lsn, reached.looked) = (store.lsn, store.looked);
            reached.wholes += u64::from(whole);
        });
        Ok(())
    }

    /// Forgets rows that ended by changes that the journal no longer has.
    fn purge(&mut self, store: &mut Store) -> Result<(), MirrorError> {
        if self.purged_at.elapsed() < PURGE_INTERVAL {
            return Ok(());
        }
        if !self.mirror.path().exists() {
            return Err(MirrorError::Lost);
        }
        let first = self.journal.first_lsn();
        let more = store.purge(first)?;
        if !more {
            self.purged_at = Instant::now();
        }
        Ok(())
    }

    /// Brings the file to where the journal can be read on: one that lacks changes that the journal no longer has begins
    /// anew where its tables are read anew, as do tables that are new in it.
    fn settle(&self, store: &mut Store) -> Result<(), MirrorError> {
        let (first, sealed) = (self.journal.first_lsn(), self.journal.sealed().lsn);
        if store.lsn > sealed {
            tracing::warn!(
                source = self.mirror.source(),
                "the mirror is ahead of its journal, which is an older copy: made anew"
            );
            store.restart(0, &[])?;
        }
        if store.lsn + 1 < first {
            let wanted: Vec<_> = self.wanted().into_iter().filter(|table| !table.key.is_empty()).collect();
            if wanted.is_empty() {
                return Ok(store.restart(sealed, &[])?);
            }
            let names: Vec<String> = wanted.iter().map(|table| table.name.to_string()).collect();
            let anew = self.ask(names)?;
            tracing::info!(
                source = self.mirror.source(),
                tables = anew.tables.len(),
                from_lsn = anew.from_lsn,
                "the journal no longer has the mirror's beginning: its tables are read anew"
            );
            return Ok(store.restart(anew.from_lsn - 1, &wanted)?);
        }
        if store.patterns == self.config.text {
            return Ok(());
        }
        let wanted = self.wanted();
        let ids: BTreeSet<u32> = wanted.iter().map(|table| table.id).collect();
        let missing: Vec<_> =
            wanted.into_iter().filter(|table| !store.has(table.id) && !table.key.is_empty()).collect();
        if !missing.is_empty() && store.lsn > 0 {
            self.ask(missing.iter().map(|table| table.name.to_string()).collect())?;
        }
        let unwanted: Vec<u32> =
            store.tables().map(|held| held.table.id).filter(|id| !ids.contains(id)).collect();
        store.begin()?;
        for table in &missing {
            store.add(table, Some(0))?;
        }
        for id in unwanted {
            store.forget(id)?;
        }
        store.patterns.clone_from(&self.config.text);
        let lsn = store.lsn;
        Ok(store.commit(lsn)?)
    }

    /// Has tables read anew by the source.
    fn ask(&self, tables: Vec<String>) -> Result<Anew, MirrorError> {
        let mut shutdown = self.shutdown.clone();
        let (reply, answer) = oneshot::channel();
        let control = self.control.clone();
        tokio::runtime::Handle::current().block_on(async {
            let asked = async {
                let gone = || MirrorError::Refused("the source does not answer".to_owned());
                control.send(Control::Resnapshot { tables, reply }).await.map_err(|_| gone())?;
                answer.await.map_err(|_| gone())?.map_err(MirrorError::Refused)
            };
            tokio::select! {
                anew = asked => anew,
                _ = shutdown.wait_for(|stop| *stop) => Err(MirrorError::Ended),
            }
        })
    }
}
