//! What the records of a journal add up to, and the events that change it.

use crate::record::{self, JsonBody, Kind};
use base::{Op, Position, SnapshotProgress, Step, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything capture needs to go on from a commit.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Drawn when the journal was made: whoever noted an lsn can tell that it is of another journal.
    pub identity: u64,
    /// Counts from 1; a new one says that continuity with the one before is not proven.
    pub epoch: u32,
    /// The lsn of the next change.
    pub next_lsn: u64,
    /// `None` until the first commit that carries a full position.
    pub position: Option<Position>,
    /// The current schema of each table, by table id.
    pub tables: BTreeMap<u32, Arc<Table>>,
    pub snapshot: SnapshotProgress,
}

impl Default for State {
    fn default() -> Self {
        Self {
            identity: 0,
            epoch: 1,
            next_lsn: 1,
            position: None,
            tables: BTreeMap::new(),
            snapshot: SnapshotProgress::default(),
        }
    }
}

/// A record that changes the state; takes effect with the commit that follows.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Schema(Arc<Table>),
    Drop(u32),
    /// A row of this table and version follows.
    Use(u32, u32),
    Begin {
        ts_ms: i64,
    },
    Snapshot(SnapshotProgress),
    Epoch(u32),
    Commit {
        step: Step,
        /// The last change at or before the commit.
        lsn: u64,
        /// Where the commit record ends, from the beginning of its batch.
        end: u64,
    },
}

impl Event {
    /// The event of a record; `None` for records without one, `Err` when the body is malformed.
    pub fn of_record(kind: Kind, lsn: u64, body: &[u8]) -> Result<Option<Self>, &'static str> {
        Ok(Some(match kind {
            Kind::Schema => Self::Schema(Arc::new(Table::from_json(body).ok_or("a schema is malformed")?)),
            Kind::Drop => Self::Drop(record::take_drop(body).ok_or("a table's drop is malformed")?),
            Kind::Begin => Self::Begin { ts_ms: record::take_begin(body).ok_or("a begin is malformed")?.1 },
            Kind::Snapshot => {
                Self::Snapshot(SnapshotProgress::from_json(body).ok_or("a snapshot's progress is malformed")?)
            }
            Kind::Epoch => Self::Epoch(record::take_epoch(body).ok_or("an epoch is malformed")?.0),
            Kind::Commit => {
                let step = record::take_step(body).ok_or("a commit's position is malformed")?;
                Self::Commit { step, lsn, end: 0 }
            }
            Kind::Head | Kind::Change | Kind::Seal => return Ok(None),
        }))
    }
}

/// A state and the time of the last commit in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folded {
    pub state: State,
    /// Time of the last transaction that had one; 0 before.
    pub ts_ms: i64,
}

impl Folded {
    /// Applies the events of one commit, which is the last of them.
    pub fn commit(&mut self, events: impl IntoIterator<Item = Event>) {
        let state = &mut self.state;
        for event in events {
            match event {
                Event::Schema(table) => drop(state.tables.insert(table.id, table)),
                Event::Drop(id) => drop(state.tables.remove(&id)),
                Event::Use(..) => {}
                Event::Begin { ts_ms } => self.ts_ms = ts_ms,
                // Each record says only what changed: ten thousand tables do not repeat themselves a chunk.
                Event::Snapshot(progress) => state.snapshot.tables.extend(progress.tables),
                Event::Epoch(epoch) => state.epoch = epoch,
                Event::Commit { step, lsn, .. } => {
                    state.next_lsn = lsn + 1;
                    match (&mut state.position, step) {
                        (_, Step::Stay) => {}
                        (Some(position), step) => position.advance(&step),
                        (position @ None, Step::Full(full)) => *position = Some(*full),
                        (None, step) => unreachable!("{step:?} was checked to have a position before it"),
                    }
                }
            }
        }
    }
}

/// Checks events in order against what the journal knows, before any of them is written or believed.
pub(crate) struct Checker<'a> {
    base: &'a State,
    /// Schema versions that differ from `base`; `None` when dropped.
    versions: BTreeMap<u32, Option<u32>>,
    position: Option<SourceKind>,
    epoch: u32,
}

impl<'a> Checker<'a> {
    pub fn new(base: &'a State) -> Self {
        let position = base.position.as_ref().map(SourceKind::of);
        Self { base, versions: BTreeMap::new(), position, epoch: base.epoch }
    }

    pub fn check(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Schema(table) => drop(self.versions.insert(table.id, Some(table.version))),
            Event::Drop(id) => drop(self.versions.insert(*id, None)),
            Event::Use(id, version) => {
                let known = match self.versions.get(id) {
                    Some(version) => *version,
                    None => self.base.tables.get(id).map(|t| t.version),
                };
                if known != Some(*version) {
                    return Err(format!(
                        "a row of table {id} has schema {version}, but {known:?} is current"
                    ));
                }
            }
            Event::Epoch(epoch) if *epoch <= self.epoch => {
                return Err(format!("epoch {epoch} does not follow epoch {}", self.epoch));
            }
            Event::Epoch(epoch) => self.epoch = *epoch,
            Event::Commit { step, .. } => return self.check_step(step),
            Event::Begin { .. } | Event::Snapshot(_) => {}
        }
        Ok(())
    }

    fn check_step(&mut self, step: &Step) -> Result<(), String> {
        let fits = match step {
            Step::Stay => true,
            Step::Full(position) => {
                self.position = Some(SourceKind::of(position));
                true
            }
            Step::MySql { .. } => self.position == Some(SourceKind::MySql),
            Step::MariaDb { .. } => self.position == Some(SourceKind::MariaDb),
            Step::Sqlite { .. } => self.position == Some(SourceKind::Sqlite),
            Step::Kafka { .. } => self.position == Some(SourceKind::Kafka),
            Step::Push { .. } => self.position == Some(SourceKind::Push),
            Step::Capture { .. } => self.position == Some(SourceKind::Capture),
        };
        if fits { Ok(()) } else { Err(format!("the step {step:?} has no position of its kind before it")) }
    }
}

/// Which of the kinds of source a position is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceKind {
    MySql,
    MariaDb,
    Sqlite,
    Kafka,
    Push,
    Capture,
}

impl SourceKind {
    fn of(position: &Position) -> Self {
        match position {
            Position::MySql { .. } => Self::MySql,
            Position::MariaDb { .. } => Self::MariaDb,
            Position::Sqlite { .. } => Self::Sqlite,
            Position::Kafka { .. } => Self::Kafka,
            Position::Push { .. } => Self::Push,
            Position::Capture { .. } => Self::Capture,
        }
    }
}

/// Whether rows of this kind refer to a schema.
pub(crate) fn needs_schema(op: Op) -> bool {
    op != Op::Ddl
}
