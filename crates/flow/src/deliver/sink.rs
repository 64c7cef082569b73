//! What a sink is. A sink is told whole batches in order and answers only when they are durable on its side.

use crate::mirror::Mirror;
use async_trait::async_trait;
use base::{Change, Ddl, Op, Table, TableName, Txn, Value};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How far a flow has come. Ordered by epoch, then lsn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    pub epoch: u32,
    /// The last change that is durable in the sink.
    pub lsn: u64,
}

/// What a sink knows of a flow: how far it is, and in which journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// [`journal::Journal::identity`]; lsns of another journal mean nothing.
    pub journal: u64,
    pub progress: Progress,
}

/// One change after routing and transforms, as the sink shall hold it.
#[derive(Clone, Debug)]
pub struct OutChange {
    pub epoch: u32,
    pub lsn: u64,
    pub op: Op,
    /// Routed name, chosen and computed columns; `key` still names the row.
    pub table: Arc<Table>,
    /// The table as the source has it, from this change on; `None` where it has it no longer.
    pub of: Option<Arc<Table>>,
    pub ts_ms: i64,
    pub txn: Option<Txn>,
    /// One value a column of `table`. Where tables are merged into one (`origin`), a truncation and a statement have here a
    /// row that is NULL but for the column that tells whose rows they mean.
    pub before: Option<Vec<Value>>,
    pub after: Option<Vec<Value>>,
    /// For `Op::Ddl`: routed and transformed like the rows.
    pub ddl: Option<Arc<Ddl>>,
    /// Where rows of the source become several: the row of the source that this one is of. All of one change have one lsn,
    /// stand side by side in one batch, and are parked and tried again together.
    pub whole: Option<Arc<WholeRow>>,
    /// A row that is written once more because of what happened elsewhere, beside others of one lsn: when it is refused, it is
    /// left as it is.
    pub again: bool,
}

/// A row of the source by its key, before and after: values of the first columns of the table's key.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeRow {
    pub before: Option<Vec<Value>>,
    pub after: Option<Vec<Value>>,
}

impl OutChange {
    /// A change without its rows, as of `table`.
    pub fn of(change: &Change<'_>, table: Arc<Table>) -> Self {
        Self {
            epoch: change.epoch,
            lsn: change.lsn,
            op: change.op,
            table,
            of: Some(Arc::clone(&change.table)),
            ts_ms: change.ts_ms,
            txn: change.txn.clone(),
            before: None,
            after: None,
            ddl: None,
            whole: None,
            again: false,
        }
    }
}

/// Changes in journal order.
#[derive(Clone, Debug)]
pub struct SinkBatch {
    pub source: Arc<str>,
    pub flow: Arc<str>,
    /// May be empty: then only progress moves.
    pub changes: Vec<OutChange>,
    /// Where the flow stands once this batch is durable. A filtered change moves it too.
    pub up_to: Progress,
    /// Whether the batch ends where a source transaction ends. When false, more of the same transaction follows.
    pub ends_txn: bool,
    /// Parked changes that are tried again: the sink applies them whatever its progress says, and leaves progress alone.
    pub redrive: bool,
}

/// Why a sink did not take a batch.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The sink is away, slow or restarting: the batch is tried again, for ever, with backoff, after a new `open`.
    #[error("the sink is unavailable: {message}")]
    Unavailable { message: String },
    /// The same, and the sink said for how long; it is not asked again before.
    #[error("the sink asks to wait for {} s: {message}", after.as_secs())]
    Later { message: String, after: Duration },
    /// The data of one change is refused; trying again cannot help. Nothing of the batch was kept.
    #[error("change {lsn} is refused: {reason}")]
    Row { lsn: u64, reason: String },
    /// The sink's state or our rights forbid it: the flow stops until someone acts.
    #[error("{message}")]
    Blocked { message: String, hint: String },
    /// What the sink had of these tables is gone, and it was not the flow that took it away: it stops until all their rows
    /// come again, or someone puts back what is gone.
    #[error("{message}")]
    Gone { message: String, tables: Vec<TableName> },
}

impl SinkError {
    /// Tables of a database or file.
    pub fn gone(tables: Vec<TableName>) -> Self {
        let was = if tables.len() == 1 { "it" } else { "them" };
        let message =
            format!("{} gone from the sink, where the flow had made or found {was}", listed(&tables));
        Self::Gone { message, tables }
    }
}

/// Names in a message that stays readable where a whole database is gone.
const NAMES_SHOWN: usize = 8;

fn listed(tables: &[TableName]) -> String {
    let names: Vec<_> = tables.iter().take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect();
    let more = tables.len().saturating_sub(NAMES_SHOWN);
    let verb = if tables.len() == 1 { "is" } else { "are" };
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more} {verb}", names.join(", "))
}

/// Whether a sink knows how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// It keeps progress with the data: when it says that it has nothing, it has nothing.
    Own,
    /// It keeps progress in the data, and tells the last change that it has: what came behind and was left out, only the
    /// flow's catalog knows.
    LastChange,
    /// It keeps progress in the data, which others may take away: when it says nothing, the flow's catalog knows.
    MayFade,
    /// It keeps progress with the data, and may lose both at once: when it says nothing where the flow's catalog knows
    /// better, the data are gone.
    MayVanish,
    /// It keeps nothing.
    None,
}

/// A place that changes are written to. `apply` is at most once in flight.
#[async_trait]
pub trait Sink: Send {
    /// Told before the first `open`: the mirror of the flow's source, where there is one. For sinks that tell their readers how
    /// to go on through us.
    fn attach(&mut self, _mirror: Option<&Mirror>) {}

    /// Connects and makes Tidemill's own tables or streams. Answers how far this flow is as the sink itself knows it,
    /// `None` when it has nothing of this flow or cannot know. Called again after `Unavailable`; it must then drop
    /// whatever was half done.
    async fn open(&mut self) -> Result<Option<Standing>, SinkError>;

    /// What `None` of the last `open` means, and whether the flow must keep progress itself.
    fn memory(&self) -> Memory {
        Memory::Own
    }

    /// Whether a batch that may have arrived is given again as it was, and not with what came since: its receiver knows
    /// repeats by that. Only for a sink whose progress the catalog keeps.
    fn repeats_whole(&self) -> bool {
        false
    }

    /// Where the flow goes on, whatever the sink had noted; called after each `open`, before anything else. From now
    /// on the sink notes `standing.journal` with its progress.
    fn follow(&mut self, standing: Standing);

    /// Why this flow cannot deliver again what it has delivered, and what to do instead. `None`: it can.
    fn refuses_rewind(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// Called after `follow` told where the flow goes on, which is before what the sink has: durable when it answers, so
    /// that the next `open` says so too.
    async fn rewind(&mut self) -> Result<(), SinkError>;

    /// Asks whether the sink answers and lets us in, and changes nothing there.
    async fn probe(&mut self) -> Result<(), SinkError>;

    /// Makes tables that are missing, before their first row.
    async fn prepare(&mut self, tables: &[Arc<Table>]) -> Result<(), SinkError>;

    /// Writes a batch and its progress. On success all of it is durable in the sink; where the sink has transactions,
    /// data and progress went in one. Changes at or below the sink's own progress are skipped by the sink.
    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError>;

    /// Told of tables that were [`SinkError::Gone`] when all their rows come again from here on: they may be made anew.
    async fn forget(&mut self, _tables: &[TableName]) -> Result<(), SinkError> {
        Ok(())
    }

    /// Asked now and then, also while there is nothing to write: whether the sink still has what it was given.
    async fn still_there(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Makes durable what `apply` put off of its progress: called when nothing has come for a second, and before the flow
    /// lets go of the sink.
    async fn settle(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Whether rows of a table that is read anew are gathered where readers do not see them yet.
    fn is_filling(&self) -> bool {
        false
    }

    /// Told while it is filling: of the tables that began to be read anew by change `end`, all rows were applied, unless their
    /// ids are among the unfinished.
    async fn filled(&mut self, _end: u64, _unfinished: &BTreeSet<u32>) -> Result<(), SinkError> {
        Ok(())
    }
}
