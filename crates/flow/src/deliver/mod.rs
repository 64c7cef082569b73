//! From the journal to a sink: cursor, transform, batch, apply, acknowledge.
//!
//! A flow never loses a change: it waits for a sink that is away, parks what a sink refuses with the reason, holds later
//! changes of the same row behind it, and carries everything else on.

pub mod producer;
pub mod sink;
pub mod status;

use crate::capture::status::ErrorStatus;
use crate::config::{FlowConfig, SinkConfig, SinkKind};
use crate::sinks;
use base::Op;

use catalog::{Catalog, CatalogError, DeadLetter};
use journal::{Journal, JournalError};
use producer::{BATCHES_AHEAD_MAX, ProduceError, Produced, Producer};
use sink::{OutChange, Progress, Sink, SinkBatch, SinkError, Standing};
use status::FlowStatusCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After an error that someone must act on, the flow looks again at this pace.
const BACKOFF_BLOCKED: Duration = Duration::from_secs(15);
/// More refused changes than this say that the target is wrong, not the data: the flow stops.
const DEAD_LETTERS_MAX: u64 = 100_000;
/// Moving progress over changes that were all filtered out costs a write: not more often than this.
const EMPTY_PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A flow and what it stands between.
pub struct Flow {
    pub name: Arc<str>,
    pub config: FlowConfig,
    pub sink_config: SinkConfig,
    pub journal: Journal,
    pub catalog: Catalog,
    pub status: FlowStatusCell,
}

/// What an operator asks of a running flow.
pub enum FlowControl {
    /// Stops after the batch in flight, also over restarts.
    Pause(oneshot::Sender<Result<(), String>>),
    Resume(oneshot::Sender<Result<(), String>>),
    /// Ends the pause after a failure: what was in the way may be gone.
    LookAgain,
    /// Tries the parked changes again, oldest first; answers how many went through and how many are parked still.
    Retry(oneshot::Sender<Result<(u64, u64), String>>),
}

/// Why a flow stands still.
#[derive(Debug, thiserror::Error)]
enum FlowError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Produce(#[from] ProduceError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("{message}")]
    Stuck { message: String, hint: String },
}

impl FlowError {
    fn hint(&self) -> Option<String> {
        use base::Fault;
        match self {
            Self::Sink(SinkError::Blocked { hint, .. }) | Self::Stuck { hint, .. } => Some(hint.clone()),
            Self::Produce(ProduceError::Plan { hint, .. }) => Some(hint.clone()),
            Self::Produce(ProduceError::Journal(error)) => error.hint(),
            Self::Catalog(error) => error.hint(),
            _ => None,
        }
    }

    fn passes(&self) -> bool {
        matches!(self, Self::Sink(SinkError::Unavailable { .. }))
    }
}

enum End {
    Shutdown,
    Paused,
}

/// Delivers until shutdown.
pub async fn run(flow: Flow, mut control: mpsc::Receiver<FlowControl>, mut shutdown: watch::Receiver<bool>) {
    let mut backoff = BACKOFF_MIN;
    loop {
        if *shutdown.borrow() {
            return;
        }
        if flow.catalog.is_paused(&flow.name).unwrap_or(false) {
            flow.status.update(|s| {
                s.state = "paused";
                s.error = None;
            });
            if wait_for_resume(&flow, &mut control, &mut shutdown).await {
                return;
            }
            continue;
        }
        let started = Instant::now();
        let error = match drive(&flow, &mut control, &mut shutdown).await {
            Ok(End::Shutdown) => return,
            Ok(End::Paused) => continue,
            Err(error) => error,
        };
        let message = base::error::chain(&error);
        tracing::warn!(flow = %flow.name, error = message, hint = error.hint(), "delivery interrupted");
        metrics::counter!(base::metrics::DELIVERY_ERRORS, "flow" => flow.name.to_string()).increment(1);
        let passes = error.passes();
        flow.status.update(|s| {
            s.state = if passes { "running" } else { "failed" };
            s.error = Some(ErrorStatus { message, hint: error.hint() });
        });
        if started.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        let pause = if passes { backoff } else { BACKOFF_BLOCKED };
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = shutdown.changed() => return,
            Some(command) = control.recv() => refuse_or_note(&flow, command),
        }
    }
}

/// Answers a command while nothing is being delivered. `Resume` also ends a wait.
fn refuse_or_note(flow: &Flow, command: FlowControl) {
    match command {
        FlowControl::Pause(reply) => {
            let _ = reply.send(flow.catalog.set_paused(&flow.name, true).map_err(|e| base::error::chain(&e)));
        }
        FlowControl::Resume(reply) => {
            let _ =
                reply.send(flow.catalog.set_paused(&flow.name, false).map_err(|e| base::error::chain(&e)));
        }
        FlowControl::LookAgain => {}
        FlowControl::Retry(reply) => {
            let _ = reply.send(Err(format!("flow `{}` is not running", flow.name)));
        }
    }
}

/// True on shutdown.
async fn wait_for_resume(
    flow: &Flow,
    control: &mut mpsc::Receiver<FlowControl>,
    shutdown: &mut watch::Receiver<bool>,
) -> bool {
    tokio::select! {
        _ = shutdown.changed() => true,
        command = control.recv() => match command {
            Some(command) => {
                refuse_or_note(flow, command);
                false
            }
            None => true,
        },
    }
}

/// One life of the sink's connection.
async fn drive(
    flow: &Flow,
    control: &mut mpsc::Receiver<FlowControl>,
    shutdown: &mut watch::Receiver<bool>,
) -> Result<End, FlowError> {
    let config = &flow.config;
    let mut sink = sinks::build(&flow.name, &config.from, &config.to, &flow.sink_config, config)?;
    let from = starting_point(flow, sink.as_mut()).await?;
    let mut delivery = Delivery {
        flow,
        sink,
        held: held_keys(flow)?,
        redrive: Producer::new(flow.journal.clone(), config)?,
        empty_at: None,
    };
    let producer = Producer::new(flow.journal.clone(), config)?;
    let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD_MAX);
    tokio::task::spawn_blocking(move || producer.run(from, &sender));
    delivery.show(from - 1, 0);
    flow.status.update(|s| {
        s.state = "running";
        s.error = None;
    });
    loop {
        tokio::select! {
            batch = batches.recv() => match batch {
                Some(batch) => delivery.deliver(batch?).await?,
                None => return Err(FlowError::Stuck {
                    message: "the flow's reader ended".into(), hint: "see the log".into() }),
            },
            command = control.recv() => match command {
                Some(FlowControl::Retry(reply)) => {
                    let result = delivery.retry().await;
                    let answer = result.as_ref().map(|counts| *counts).map_err(|e| base::error::chain(e));
                    let _ = reply.send(answer);
                    result?;
                }
                Some(other) => {
                    refuse_or_note(flow, other);
                    if flow.catalog.is_paused(&flow.name)? {
                        return Ok(End::Paused);
                    }
                }
                None => return Ok(End::Shutdown),
            },
            _ = shutdown.changed() => return Ok(End::Shutdown),
        }
    }
}

/// The first lsn to deliver: what the sink itself says, or the catalog for a sink that cannot know.
async fn starting_point(flow: &Flow, sink: &mut dyn Sink) -> Result<u64, FlowError> {
    let told = sink.open().await?;
    let told = if flow.sink_config.kind == SinkKind::Stdout { noted(flow)? } else { told };
    let from = first_to_deliver(flow, told)?;
    let progress = Progress { epoch: told.map_or(0, |told| told.progress.epoch), lsn: from - 1 };
    sink.follow(Standing { journal: flow.journal.identity(), progress });
    Ok(from)
}

/// What the catalog keeps for a sink that cannot.
fn noted(flow: &Flow) -> Result<Option<Standing>, FlowError> {
    let noted = flow.catalog.progress(&flow.name)?;
    Ok(noted.map(|(journal, epoch, lsn)| Standing { journal, progress: Progress { epoch, lsn } }))
}

fn first_to_deliver(flow: &Flow, told: Option<Standing>) -> Result<u64, FlowError> {
    let (first, sealed) = (flow.journal.first_lsn(), flow.journal.sealed());
    let restart = match flow.catalog.restart(&flow.name)? {
        Some((journal, lsn)) if journal == flow.journal.identity() && lsn >= first => Some(lsn),
        _ => None,
    };
    if told.is_some_and(|told| told.journal != flow.journal.identity()) {
        return restart.ok_or_else(|| FlowError::Stuck {
            message: "the sink was filled from another journal: this one began anew, and nobody knows what is missing"
                .into(),
            hint: format!(
                "restore data_dir, or run `tidemill flow resnapshot {}`: it empties the tables and reads them anew",
                flow.name
            ),
        });
    }
    let done = told.map_or(0, |told| told.progress.lsn);
    if done > sealed.lsn {
        return Err(FlowError::Stuck {
            message: format!("the sink is at change {done}, but the journal ends at {}", sealed.lsn),
            hint: "the journal is an older copy of itself: restore the newest backup of data_dir, or move the source's \
                   journal away and use `flow resnapshot`"
                .into(),
        });
    }
    if done + 1 < first {
        if let Some(restart) = restart {
            tracing::warn!(flow = %flow.name, from = restart, "the journal lost changes; all tables are read anew");
            return Ok(restart);
        }
        return Err(FlowError::Stuck {
            message: format!(
                "the sink needs change {}, but retention has removed all before {first}",
                done + 1
            ),
            hint: format!("run `tidemill flow resnapshot {}`", flow.name),
        });
    }
    Ok(done + 1)
}

/// Rows that have a parked change: `(table, key)` → the lsn they wait for.
fn held_keys(flow: &Flow) -> Result<HashMap<(String, String), u64>, FlowError> {
    let mut held = HashMap::new();
    for letter in flow.catalog.dead_letters(&flow.name, u32::MAX)? {
        let first = letter.waits_for.unwrap_or(letter.lsn);
        for row in rows_of(&letter) {
            held.entry(row).or_insert(first);
        }
    }
    Ok(held)
}

/// The rows that a parked change is of: under its old key and its new one.
fn rows_of(letter: &DeadLetter) -> impl Iterator<Item = (String, String)> + use<> {
    let table = format!("{}.{}", letter.db, letter.table);
    let keys = [letter.old_key.clone(), letter.key.clone()];
    keys.into_iter().filter(|key| !key.is_empty()).map(move |key| (table.clone(), key))
}

/// Whether all rows of the change's table end with it.
fn ends_rows(change: &OutChange) -> bool {
    match &change.ddl {
        Some(ddl) => ddl.after.is_none(),
        None => change.op == Op::Truncate,
    }
}

struct Delivery<'a> {
    flow: &'a Flow,
    sink: Box<dyn Sink>,
    held: HashMap<(String, String), u64>,
    redrive: Producer,
    empty_at: Option<Instant>,
}

impl Delivery<'_> {
    async fn deliver(&mut self, produced: Produced) -> Result<(), FlowError> {
        let Produced { changes, failed, up_to, ends_txn, tables, ts_ms } = produced;
        if !tables.is_empty() {
            self.sink.prepare(&tables).await?;
        }
        for (change, reason) in failed {
            self.park(change, reason, None)?;
        }
        let mut batch = self.batch(Vec::with_capacity(changes.len()), up_to, ends_txn, false);
        for change in changes {
            self.forget_ended(&change)?;
            match self.blocker(&change) {
                // Parked before the flow stopped, and progress had not passed it.
                Some(first) if first == change.lsn => {}
                Some(waits_for) => {
                    let reason = format!("waits behind change {waits_for} of the same row");
                    self.park(change, reason, Some(waits_for))?;
                }
                None => batch.changes.push(change),
            }
        }
        if batch.changes.is_empty() {
            let soon = self.empty_at.is_some_and(|at| at.elapsed() < EMPTY_PROGRESS_INTERVAL);
            if soon || up_to.lsn == 0 {
                self.show(up_to.lsn, ts_ms);
                return Ok(());
            }
            self.empty_at = Some(Instant::now());
        }
        let count = batch.changes.len() as u64;
        self.apply(batch).await?;
        if self.flow.sink_config.kind == SinkKind::Stdout {
            self.flow.catalog.set_progress(
                &self.flow.name,
                self.flow.journal.identity(),
                up_to.epoch,
                up_to.lsn,
            )?;
        }
        metrics::counter!(base::metrics::DELIVERED_CHANGES, "flow" => self.flow.name.to_string())
            .increment(count);
        self.flow.status.update(|s| s.delivered += count);
        self.show(up_to.lsn, ts_ms);
        Ok(())
    }

    /// Applies a batch; a refused change is parked and taken out, with later ones of its row, and the rest goes on.
    async fn apply(&mut self, mut batch: SinkBatch) -> Result<(), FlowError> {
        loop {
            for change in &batch.changes {
                self.forget_ended(change)?;
            }
            let (lsn, reason) = match self.sink.apply(&batch).await {
                Ok(()) => return Ok(()),
                Err(SinkError::Row { lsn, reason }) => (lsn, reason),
                Err(error) => return Err(error.into()),
            };
            let Some(index) = batch.changes.iter().position(|c| c.lsn == lsn) else {
                return Err(FlowError::Stuck {
                    message: format!("the sink refused change {lsn}, which was not in the batch: {reason}"),
                    hint: "report this".into(),
                });
            };
            let refused = batch.changes.remove(index);
            let table = refused.table.name.clone();
            self.park(refused, reason, None)?;
            let ended = batch.changes.iter().find(|c| c.lsn > lsn && c.table.name == table && ends_rows(c));
            let waiting = lsn + 1..ended.map_or(u64::MAX, |change| change.lsn);
            let (held, rest): (Vec<_>, Vec<_>) = batch
                .changes
                .into_iter()
                .partition(|c| waiting.contains(&c.lsn) && self.blocker(c).is_some());
            batch.changes = rest;
            for change in held {
                let waits_for = self.blocker(&change);
                self.park(change, format!("waits behind change {lsn} of the same row"), waits_for)?;
            }
        }
    }

    fn batch(&self, changes: Vec<OutChange>, up_to: Progress, ends_txn: bool, redrive: bool) -> SinkBatch {
        SinkBatch {
            source: self.flow.config.from.as_str().into(),
            flow: Arc::clone(&self.flow.name),
            changes,
            up_to,
            ends_txn,
            redrive,
        }
    }

    /// In a sink that holds rows, those of a table end when it is emptied or dropped: what is parked of them ends too.
    /// Forgotten before the sink does it, which it then surely does.
    fn forget_ended(&mut self, change: &OutChange) -> Result<(), FlowError> {
        let kind = self.flow.sink_config.kind;
        let holds_rows = matches!(kind, SinkKind::Mysql | SinkKind::Tidb | SinkKind::Sqlite);
        if !holds_rows || self.flow.config.options.history || !ends_rows(change) {
            return Ok(());
        }
        let (flow, name) = (&self.flow.name, &change.table.name);
        let forgotten = self.flow.catalog.unpark_table(flow, &name.db, &name.table, change.lsn)?;
        if forgotten > 0 {
            tracing::info!(flow = %flow, table = %name, forgotten, "parked changes ended with the rows of their table");
            self.held = held_keys(self.flow)?;
        }
        Ok(())
    }

    /// The parked change that `change` must wait behind.
    fn blocker(&self, change: &OutChange) -> Option<u64> {
        if self.held.is_empty() {
            return None;
        }
        let table = change.table.name.to_string();
        keys(change).into_iter().find_map(|key| self.held.get(&(table.clone(), key)).copied())
    }

    fn park(&mut self, change: OutChange, reason: String, waits_for: Option<u64>) -> Result<(), FlowError> {
        tracing::warn!(flow = %self.flow.name, lsn = change.lsn, reason, "change parked");
        let table = change.table.name.to_string();
        let keys = keys(&change);
        let letter = DeadLetter {
            epoch: change.epoch,
            lsn: change.lsn,
            db: change.table.name.db.clone(),
            table: change.table.name.table.clone(),
            key: keys.last().cloned().unwrap_or_default(),
            old_key: keys.first().filter(|_| keys.len() > 1).cloned().unwrap_or_default(),
            op: change.op.name().to_owned(),
            reason,
            waits_for,
            parked_ms: now_ms(),
            change: change_text(&change),
        };
        self.flow.catalog.park(&self.flow.name, &[letter])?;
        for key in keys {
            self.held.entry((table.clone(), key)).or_insert(waits_for.unwrap_or(change.lsn));
        }
        let count = self.flow.catalog.dead_letter_count(&self.flow.name)?;
        self.flow.status.update(|s| s.dead_letters = count);
        metrics::gauge!(base::metrics::DEAD_LETTERS, "flow" => self.flow.name.to_string()).set(count as f64);
        if count > DEAD_LETTERS_MAX {
            return Err(FlowError::Stuck {
                message: format!("{count} changes are parked: the target refuses nearly everything"),
                hint: format!(
                    "see `tidemill flow dead-letters {}`, mend the target, then `flow retry`",
                    self.flow.name
                ),
            });
        }
        Ok(())
    }

    /// Tries every parked change again in order; a row whose first change is refused again keeps all its changes.
    async fn retry(&mut self) -> Result<(u64, u64), FlowError> {
        let letters = self.flow.catalog.dead_letters(&self.flow.name, u32::MAX)?;
        let mut refused: HashSet<(String, String)> = HashSet::new();
        let (mut through, mut parked) = (0, 0);
        for mut letter in letters {
            if rows_of(&letter).any(|row| refused.contains(&row)) {
                refused.extend(rows_of(&letter));
                parked += 1;
                continue;
            }
            let failure = match self.reread(letter.lsn)? {
                None => Some("the journal no longer has this change: use `flow resnapshot`".to_owned()),
                Some(Err((_, reason))) => Some(reason),
                Some(Ok(change)) => {
                    let up_to = Progress { epoch: change.epoch, lsn: change.lsn };
                    let batch = self.batch(vec![change], up_to, true, true);
                    match self.sink.apply(&batch).await {
                        Ok(()) => None,
                        Err(SinkError::Row { reason, .. }) => Some(reason),
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            match failure {
                None => {
                    self.flow.catalog.unpark(&self.flow.name, letter.lsn)?;
                    through += 1;
                }
                Some(reason) => {
                    letter.reason = reason;
                    letter.waits_for = None;
                    refused.extend(rows_of(&letter));
                    self.flow.catalog.park(&self.flow.name, &[letter])?;
                    parked += 1;
                }
            }
        }
        self.held = held_keys(self.flow)?;
        self.flow.status.update(|s| s.dead_letters = parked);
        metrics::gauge!(base::metrics::DEAD_LETTERS, "flow" => self.flow.name.to_string()).set(parked as f64);
        Ok((through, parked))
    }

    /// The parked change as the journal has it, transformed by today's rules.
    #[expect(clippy::type_complexity, reason = "the same shape as the producer's")]
    fn reread(&mut self, lsn: u64) -> Result<Option<Result<OutChange, (OutChange, String)>>, FlowError> {
        let mut reader = match self.flow.journal.reader(lsn) {
            Err(JournalError::Pruned { .. }) => return Ok(None),
            reader => reader.map_err(ProduceError::from)?,
        };
        let Some(chunk) = reader.next(1).map_err(ProduceError::from)? else { return Ok(None) };
        let Some(change) = chunk.changes().next() else { return Ok(None) };
        let change = change.map_err(ProduceError::from)?;
        Ok(self.redrive.convert(&change, &mut Vec::new())?)
    }

    fn show(&self, lsn: u64, ts_ms: i64) {
        let end = self.flow.journal.sealed().lsn;
        let count = self.flow.catalog.dead_letter_count(&self.flow.name).unwrap_or(0);
        self.flow.status.update(|s| {
            s.lsn = s.lsn.max(lsn);
            s.lag_changes = end.saturating_sub(s.lsn);
            s.lag_ms = if s.lag_changes == 0 || ts_ms == 0 { 0 } else { (now_ms() - ts_ms).max(0) as u64 };
            s.dead_letters = count;
        });
        let lag = end.saturating_sub(lsn);
        metrics::gauge!(base::metrics::DELIVERY_LAG, "flow" => self.flow.name.to_string()).set(lag as f64);
    }
}

/// The row's keys as JSON text, of both images. The whole row stands for the key of a table without one.
fn keys(change: &OutChange) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let all: Vec<usize> = (0..change.table.columns.len()).collect();
    let key = if change.table.key.is_empty() { &all } else { &change.table.key };
    for row in [&change.before, &change.after].into_iter().flatten() {
        let mut text = Vec::from(*b"{");
        for (position, index) in key.iter().enumerate() {
            let (Some(column), Some(value)) = (change.table.columns.get(*index), row.get(*index)) else {
                continue;
            };
            if position > 0 {
                text.push(b',');
            }
            base::json::put_string(&mut text, &column.name);
            text.push(b':');
            base::json::put_value(&mut text, value.as_ref(), column);
        }
        text.push(b'}');
        let text = String::from_utf8_lossy(&text).into_owned();
        if !out.contains(&text) {
            out.push(text);
        }
    }
    out
}

fn change_text(change: &OutChange) -> String {
    let mut out = Vec::from(*b"{");
    for (name, row) in [("before", &change.before), ("after", &change.after)] {
        if out.len() > 1 {
            out.push(b',');
        }
        base::json::put_string(&mut out, name);
        out.push(b':');
        match row {
            None => out.extend_from_slice(b"null"),
            Some(row) => {
                out.push(b'{');
                for (index, (column, value)) in change.table.columns.iter().zip(row).enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    base::json::put_string(&mut out, &column.name);
                    out.push(b':');
                    base::json::put_value(&mut out, value.as_ref(), column);
                }
                out.push(b'}');
            }
        }
    }
    out.push(b'}');
    String::from_utf8_lossy(&out).into_owned()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
