//! From the journal to a sink: cursor, transform, batch, apply, acknowledge.
//!
//! A flow never loses a change: it waits for a sink that is away, parks what a sink refuses with the reason, holds later
//! changes of the same row behind it, and carries everything else on.

mod gone;
mod nested;
mod parked;
pub mod producer;
pub mod rewind;
pub mod sink;
pub mod status;

use crate::capture::status::ErrorStatus;
use crate::config::{FlowConfig, SinkConfig, TransformStep};
use crate::mirror::Mirror;
use crate::nest::NestError;
use crate::sinks;
use crate::transform::LeftOut;
use base::TableName;
use catalog::{Catalog, CatalogError, FlowProgress};
use journal::Journal;
use parked::{Parked, Reread};
use producer::{BATCHES_AHEAD_MAX, ProduceError, Produced, Producer};
use rewind::{Refused, RewindTo, Rewound};
use sink::{Memory, OutChange, Progress, Sink, SinkBatch, SinkError, Standing};
use status::FlowStatusCell;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After an error that someone must act on, the flow looks again at this pace.
const BACKOFF_BLOCKED: Duration = Duration::from_secs(15);
/// More refused changes than this say that the target is wrong, not the data: the flow stops.
const DEAD_LETTERS_MAX: u64 = 100_000;
/// The catalog learns at least this often how far a sink is that may forget it: what came since may be delivered twice.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// At this pace a sink is asked whether it still has what it was given.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
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
    /// The mirror of its source, where there is one.
    pub mirror: Option<Mirror>,
}

/// What an operator asks of a running flow.
pub enum FlowControl {
    /// Stops after the batch in flight, also over restarts.
    Pause(oneshot::Sender<Result<(), String>>),
    Resume(oneshot::Sender<Result<(), String>>),
    /// Ends the pause after a failure: what was in the way may be gone.
    LookAgain,
    /// Tries the parked changes again, oldest first; answers how many went through and how many are parked still.
    Retry(RetryReply),
    /// Delivers again from this change on, also if the node dies before it has begun.
    Rewind(RewindTo, RewindReply),
}

type RewindReply = oneshot::Sender<Result<Rewound, Refused>>;
type RetryReply = oneshot::Sender<Result<(u64, u64), String>>;

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
            Self::Produce(
                ProduceError::Plan { hint, .. } | ProduceError::Nest(NestError::Plan { hint, .. }),
            ) => Some(hint.clone()),
            Self::Produce(ProduceError::Nest(_)) => {
                Some("see the source's `mirror` in `tidemill status --json`".to_owned())
            }
            Self::Produce(ProduceError::Journal(error)) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Sink(SinkError::Unavailable { .. } | SinkError::Later { .. }) => Some(
                "delivery goes on by itself once the sink answers: is it up, and the url right?".to_owned(),
            ),
            Self::Sink(SinkError::Gone { .. }) => {
                Some("`tidemill flow resnapshot` makes the tables again and fills them".to_owned())
            }
            Self::Sink(SinkError::Row { .. }) | Self::Produce(ProduceError::Malformed(_)) => None,
        }
    }

    fn passes(&self) -> bool {
        matches!(self, Self::Sink(SinkError::Unavailable { .. } | SinkError::Later { .. }))
    }

    /// How long to wait at least.
    fn asked_wait(&self) -> Duration {
        match self {
            Self::Sink(SinkError::Later { after, .. }) => *after,
            _ => Duration::ZERO,
        }
    }
}

enum End {
    Shutdown,
    /// The flow was paused, or shall begin elsewhere.
    Anew,
}

/// Delivers until shutdown.
pub async fn run(flow: Flow, mut control: mpsc::Receiver<FlowControl>, mut shutdown: watch::Receiver<bool>) {
    let mut backoff = BACKOFF_MIN;
    let mut asked = None;
    let mut gone = Vec::new();
    if flow.config.transform.iter().any(|step| matches!(step, TransformStep::Dedup(_))) {
        flow.status.update(|s| s.left_out = Some(LeftOut::default()));
    }
    loop {
        if *shutdown.borrow() {
            return;
        }
        let paused = flow.catalog.is_paused(&flow.name);
        if matches!(paused, Ok(true)) {
            flow.status.update(|s| {
                s.state = "paused";
                s.error = None;
            });
            if wait_for_resume(&flow, &mut control, &mut shutdown).await {
                return;
            }
            continue;
        }
        let (started, delivered) = (Instant::now(), flow.status.get().delivered);
        if flow.status.get().error.is_some() {
            metrics::counter!(base::metrics::DELIVERY_RETRIES, &flow.status.labels()).increment(1);
        }
        // Whether it may run is for the catalog to say: one that cannot be read stops the flow.
        let end = match paused {
            Ok(_) => drive(&flow, &mut control, &mut shutdown, &mut asked, std::mem::take(&mut gone)).await,
            Err(error) => Err(error.into()),
        };
        let error = match end {
            Ok(End::Shutdown) => return,
            Ok(End::Anew) => continue,
            Err(error) => error,
        };
        let (passes, asked_wait) = (error.passes(), error.asked_wait());
        let mut told = ErrorStatus { message: base::error::chain(&error), hint: error.hint() };
        let mut comes_again = false;
        if let FlowError::Sink(SinkError::Gone { tables, .. }) = error {
            let from = flow.status.get().lsn + 1;
            match tokio::task::block_in_place(|| gone::look(&flow, &tables, from)) {
                Ok(found) => {
                    comes_again = !found.again.is_empty();
                    told.hint = Some(found.hint);
                }
                Err(error) => {
                    tracing::debug!(flow = %flow.name, %error, "not known whether the rows come again")
                }
            }
            gone = tables;
        }
        if let Some(reply) = asked.take() {
            let _ = reply.send(Err(told.message.clone()));
        }
        flow.status.interrupted(told, passes);
        if started.elapsed() > BACKOFF_MAX || flow.status.get().delivered > delivered {
            backoff = BACKOFF_MIN;
        }
        let pause = if passes || comes_again { backoff.max(asked_wait) } else { BACKOFF_BLOCKED };
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = shutdown.changed() => return,
            Some(command) = control.recv() => match command {
                // The sink is opened at once, and before anything else the parked changes are tried.
                FlowControl::Retry(reply) => asked = Some(reply),
                other => refuse_or_note(&flow, other),
            },
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
        FlowControl::Rewind(to, reply) => {
            note_rewind(flow, to, reply);
        }
    }
}

/// Whether the flow shall begin elsewhere.
fn note_rewind(flow: &Flow, to: RewindTo, reply: RewindReply) -> bool {
    let noted = tokio::task::block_in_place(|| rewind::note(flow, to));
    let is_noted = noted.is_ok();
    let _ = reply.send(noted);
    is_noted
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
    asked: &mut Option<RetryReply>,
    gone: Vec<TableName>,
) -> Result<End, FlowError> {
    let config = &flow.config;
    let exactly_once = config.options.exactly_once;
    let rows = config
        .options
        .batch_rows
        .unwrap_or_else(|| sinks::batch_rows_default(flow.sink_config.kind, exactly_once));
    let mut sink = sinks::build(&flow.name, &config.from, &config.to, &flow.sink_config, config)?;
    sink.attach(flow.mirror.as_ref());
    let (from, given) = starting_point(flow, sink.as_mut()).await?;
    if !gone.is_empty() {
        let found = tokio::task::block_in_place(|| gone::look(flow, &gone, from))?;
        sink.forget(&found.again).await?;
    }
    let mut delivery = Delivery {
        flow,
        sink,
        parked: Parked::open(flow)?,
        empty_at: None,
        noted_at: None,
        unnoted: None,
        unsettled: false,
        in_part: false,
        passed: None,
        reached: from - 1,
        at: Progress { epoch: flow.journal.sealed().epoch, lsn: from - 1 },
        given,
        unfinished: None,
    };
    let producer = Producer::new(flow.journal.clone(), config, flow.mirror.as_ref())?.batches_of(rows);
    let producer = producer
        .filled(exactly_once)
        .first_to(delivery.in_flight()?)
        .one_table_each(parked::holds_rows(flow));
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD_MAX);
    tokio::task::spawn_blocking(move || producer.run(from, &sender));
    delivery.show(from - 1, 0);
    flow.status.update(|s| {
        s.state = "running";
        s.error = None;
    });
    let end = match asked.take() {
        Some(reply) => delivery.answer_retry(reply).await,
        None => Ok(()),
    };
    let end = match end {
        Ok(()) => delivery.run(batches, control, shutdown).await,
        Err(error) => Err(error),
    };
    if end.is_ok() {
        delivery.settle().await?;
    }
    delivery.note_rest()?;
    end
}

/// The first lsn to deliver, by what the sink itself says, or the catalog for a sink that cannot know; and the last change
/// before it that the sink was given, or one behind that.
async fn starting_point(flow: &Flow, sink: &mut dyn Sink) -> Result<(u64, u64), FlowError> {
    let told = sink.open().await?;
    let has = told.map_or(0, |told| told.progress.lsn);
    let told = match (told, sink.memory()) {
        (told, Memory::LastChange) => past_what_was_left_out(flow, told)?,
        (told, Memory::MayFade) => further(flow, told, noted(flow)?),
        (Some(told), _) => Some(told),
        (None, Memory::Own | Memory::MayVanish) => None,
        (None, Memory::None) => noted(flow)?,
    };
    let rewind = rewind_asked(flow, sink, told)?;
    let go_on = match (told, sink.memory()) {
        (None, Memory::MayVanish) => match rewind.filter(|to| fills(flow, *to)) {
            Some(to) => to,
            None => first_after_loss(flow)?,
        },
        _ => first_to_deliver(flow, told)?,
    };
    // Retention may have removed some since it was asked for.
    let from = rewind.map_or(go_on, |to| to.max(flow.journal.first_lsn()).min(go_on));
    tracing::debug!(flow = %flow.name, from, told = ?told, "delivery begins");
    let progress = Progress { epoch: told.map_or(0, |told| told.progress.epoch), lsn: from - 1 };
    sink.follow(Standing { journal: flow.journal.identity(), progress });
    if rewind.is_some() {
        sink.rewind().await?;
        let (journal, Progress { epoch, lsn }) = (flow.journal.identity(), progress);
        let back = FlowProgress { journal, epoch, lsn, given: Some(lsn) };
        // First: from now on it is this that keeps the journal's retention away, and no longer the note.
        flow.status.update(|s| s.lsn = lsn);
        flow.catalog.finish_rewind(&flow.name, back)?;
    }
    let given = if sink.memory() == Memory::LastChange { has.min(from - 1) } else { from - 1 };
    Ok((from, given))
}

/// From where on changes were asked for again, if the sink still is what was delivered to, from this journal.
fn rewind_asked(flow: &Flow, sink: &dyn Sink, told: Option<Standing>) -> Result<Option<u64>, FlowError> {
    let Some((journal, lsn)) = flow.catalog.rewind(&flow.name)? else { return Ok(None) };
    let ours = |journal| journal == flow.journal.identity();
    if ours(journal) && told.is_none_or(|told| ours(told.journal)) && sink.refuses_rewind().is_none() {
        return Ok(Some(lsn));
    }
    tracing::warn!(flow = %flow.name, lsn, "not rewound: the flow has another sink or journal since");
    flow.catalog.forget_rewind(&flow.name)?;
    Ok(None)
}

/// Whether the journal holds all rows of the flow from this change on.
fn fills(flow: &Flow, from: u64) -> bool {
    from == 1 || restart(flow).ok().flatten().is_some_and(|anew| from <= anew)
}

/// The catalog's note, where the sink has all that it was given before it: what lies between was left out. A sink that lost
/// its end, or another sink than the note is of, gets it again.
fn past_what_was_left_out(flow: &Flow, told: Option<Standing>) -> Result<Option<Standing>, FlowError> {
    let given = flow.catalog.progress(&flow.name)?.and_then(|noted| noted.given);
    let has_all = given.is_some_and(|given| given <= told.map_or(0, |told| told.progress.lsn));
    Ok(if has_all { further(flow, told, noted(flow)?) } else { told })
}

/// The further of what the sink tells and the catalog noted; what is of another journal is left to the caller as told.
fn further(flow: &Flow, told: Option<Standing>, noted: Option<Standing>) -> Option<Standing> {
    let (Some(told), Some(noted)) = (told, noted) else { return told.or(noted) };
    let ours = |standing: &Standing| standing.journal == flow.journal.identity();
    let further = ours(&told) && ours(&noted) && noted.progress.lsn > told.progress.lsn;
    Some(if further { noted } else { told })
}

/// What the catalog keeps for a sink that cannot.
fn noted(flow: &Flow) -> Result<Option<Standing>, FlowError> {
    let noted = flow.catalog.progress(&flow.name)?;
    Ok(noted.map(|FlowProgress { journal, epoch, lsn, .. }| Standing {
        journal,
        progress: Progress { epoch, lsn },
    }))
}

/// For a sink that has nothing of the flow: the journal's start if it never had anything, or where all tables were read
/// anew since it lost what it had.
fn first_after_loss(flow: &Flow) -> Result<u64, FlowError> {
    let Some(noted) = noted(flow)?.filter(|noted| noted.journal == flow.journal.identity()) else {
        return first_to_deliver(flow, None);
    };
    let lost = noted.progress.lsn;
    let anew = restart(flow)?.filter(|from| *from > lost);
    anew.ok_or_else(|| FlowError::Stuck {
        message: format!(
            "the sink was emptied: it had changes up to {lost} of this flow, and knows of none now"
        ),
        hint: format!(
            "run `tidemill flow resnapshot {}`: it reads the tables anew and fills the sink",
            flow.name
        ),
    })
}

/// From where the journal holds all tables of the flow read anew, if someone asked for that.
fn restart(flow: &Flow) -> Result<Option<u64>, FlowError> {
    let asked = flow.catalog.restart(&flow.name)?;
    Ok(asked
        .filter(|(journal, lsn)| *journal == flow.journal.identity() && *lsn >= flow.journal.first_lsn())
        .map(|(_, lsn)| lsn))
}

fn first_to_deliver(flow: &Flow, told: Option<Standing>) -> Result<u64, FlowError> {
    let (first, sealed) = (flow.journal.first_lsn(), flow.journal.sealed());
    let restart = restart(flow)?;
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

struct Delivery<'a> {
    flow: &'a Flow,
    sink: Box<dyn Sink>,
    parked: Parked,
    empty_at: Option<Instant>,
    /// When the catalog was last told how far a sink is that may forget it.
    noted_at: Option<Instant>,
    /// How far the sink is, where the catalog has not been told yet.
    unnoted: Option<Progress>,
    /// Whether something was applied since the sink settled.
    unsettled: bool,
    /// Whether the sink was given a part of a source transaction and not yet its end.
    in_part: bool,
    /// How far changes that were all left out reach, where the sink has not been told yet.
    passed: Option<Progress>,
    /// The last change that the sink has.
    reached: u64,
    /// Where the catalog has the flow, of a sink whose progress it keeps.
    at: Progress,
    /// The last change that the sink was given and did not refuse, or one behind it.
    given: u64,
    /// While the sink is filling: the tables that were not read whole when the journal ended at this change.
    unfinished: Option<(u64, BTreeSet<u32>)>,
}

impl Delivery<'_> {
    async fn run(
        &mut self,
        mut batches: mpsc::Receiver<Result<Produced, ProduceError>>,
        control: &mut mpsc::Receiver<FlowControl>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<End, FlowError> {
        let mut looking = tokio::time::interval(LOOK_INTERVAL);
        looking.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let idle = tokio::time::sleep(NOTE_INTERVAL);
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => self.deliver(batch?).await?,
                    None => return Err(FlowError::Stuck {
                        message: "the flow's reader ended".into(), hint: "see the log".into() }),
                },
                () = idle, if self.unnoted.is_some() || self.unsettled || self.passed.is_some() => {
                    self.settle().await?;
                    self.note_rest()?;
                }
                _ = looking.tick() => {
                    self.sink.still_there().await?;
                    self.tell_filled().await?;
                }
                command = control.recv() => match command {
                    Some(FlowControl::Retry(reply)) => self.answer_retry(reply).await?,
                    Some(FlowControl::Rewind(to, reply)) => {
                        if note_rewind(self.flow, to, reply) {
                            return Ok(End::Anew);
                        }
                    }
                    Some(other) => {
                        refuse_or_note(self.flow, other);
                        if self.flow.catalog.is_paused(&self.flow.name)? {
                            return Ok(End::Anew);
                        }
                    }
                    None => return Ok(End::Shutdown),
                },
                _ = shutdown.changed() => return Ok(End::Shutdown),
            }
        }
    }

    async fn deliver(&mut self, produced: Produced) -> Result<(), FlowError> {
        let Produced { changes, failed, up_to, ends_txn, tables, first_ts_ms, ts_ms, bytes, left_out } =
            produced;
        if first_ts_ms > 0 {
            self.flow.status.lacks_since(first_ts_ms);
        }
        if !tables.is_empty() {
            self.sink.prepare(&tables).await?;
        }
        for (change, reason) in failed {
            self.park(&change, &reason, None)?;
        }
        let changes = self.pass(changes)?;
        let batch = self.batch(changes, up_to, ends_txn, false);
        if batch.changes.is_empty() {
            let soon = self.empty_at.is_some_and(|at| at.elapsed() < EMPTY_PROGRESS_INTERVAL);
            // A sink may hold a transaction open until it is given its end.
            let ends_part = self.in_part && ends_txn;
            if up_to.lsn == 0 || soon && !ends_part {
                self.count_left_out(left_out);
                self.passed = Some(up_to).filter(|_| up_to.lsn > 0 && ends_txn).or(self.passed);
                self.show(up_to.lsn, ts_ms);
                return Ok(());
            }
            self.empty_at = Some(Instant::now());
        }
        let count = batch.changes.len() as u64;
        if count > 0 && self.sink.repeats_whole() {
            self.note_at(self.at, up_to.lsn)?;
        }
        self.apply(batch).await?;
        (self.in_part, self.passed) = (!ends_txn, None);
        self.unsettled = true;
        self.note(up_to)?;
        let labels = self.flow.status.labels();
        metrics::counter!(base::metrics::DELIVERED_CHANGES, &labels).increment(count);
        metrics::counter!(base::metrics::DELIVERED_BYTES, &labels).increment(bytes);
        metrics::counter!(base::metrics::DELIVERED_BATCHES, &labels).increment(1);
        self.flow.status.update(|s| s.delivered += count);
        self.count_left_out(left_out);
        self.show(up_to.lsn, ts_ms);
        self.reached = up_to.lsn;
        self.tell_filled().await
    }

    /// Of a batch that is through.
    fn count_left_out(&self, left_out: LeftOut) {
        let [flow, kind] = self.flow.status.labels();
        for (reason, rows) in [("repeat", left_out.repeats), ("change", left_out.changes)] {
            if rows > 0 {
                let labels = [flow.clone(), kind.clone(), ("reason", reason.to_owned())];
                metrics::counter!(base::metrics::LEFT_OUT_ROWS, &labels).increment(rows);
            }
        }
        self.flow.status.update(|s| {
            if let Some(all) = &mut s.left_out {
                *all += left_out;
            }
        });
    }

    /// Tells a sink that fills something aside which tables are whole by what it was given.
    async fn tell_filled(&mut self) -> Result<(), FlowError> {
        if !self.sink.is_filling() {
            self.unfinished = None;
            return Ok(());
        }
        let (end, unfinished) = self.unfinished.take().unwrap_or_else(|| unfinished(&self.flow.journal));
        if self.reached < end {
            self.unfinished = Some((end, unfinished));
            return Ok(());
        }
        Ok(self.sink.filled(end, &unfinished).await?)
    }

    /// What may be applied: changes of a row that waits are parked behind it.
    fn pass(&mut self, changes: Vec<OutChange>) -> Result<Vec<OutChange>, FlowError> {
        let mut free = Vec::with_capacity(changes.len());
        for change in changes {
            self.parked.follow(&change)?;
            match self.parked.blocker(&change) {
                // Parked before the flow stopped, and progress had not passed it.
                Some(first) if first == change.lsn => {}
                // Only a later change of the row is parked: this one comes before it.
                Some(first) if first > change.lsn => free.push(change),
                Some(waits_for) => {
                    let reason = format!("waits behind change {waits_for} of the same row");
                    self.park(&change, &reason, Some(waits_for))?;
                }
                None => free.push(change),
            }
        }
        Ok(free)
    }

    /// Applies a batch; a refused change is parked and taken out, with later ones of its row, and the rest goes on.
    async fn apply(&mut self, mut batch: SinkBatch) -> Result<(), FlowError> {
        loop {
            let (lsn, reason) = match self.sink.apply(&batch).await {
                Ok(()) => {
                    self.given = batch.changes.last().map_or(self.given, |change| change.lsn);
                    return Ok(());
                }
                Err(SinkError::Row { lsn, reason }) => (lsn, reason),
                Err(error) => return Err(error.into()),
            };
            let Some(index) = batch.changes.iter().position(|c| c.lsn == lsn) else {
                return Err(FlowError::Stuck {
                    message: format!("the sink refused change {lsn}, which was not in the batch: {reason}"),
                    hint: "report this".into(),
                });
            };
            let later = batch.changes.split_off(index + 1);
            // The first of what a row became stands for all: the others are parked with it.
            if let Some(refused) = batch.changes.pop() {
                self.park(&refused, &reason, None)?;
            }
            batch.changes.extend(self.pass(later)?);
        }
    }

    /// Keeps in the catalog how far a sink is that cannot tell, or may not be able to tell tomorrow.
    fn note(&mut self, reached: Progress) -> Result<(), FlowError> {
        let soon = self.noted_at.is_some_and(|at| at.elapsed() < NOTE_INTERVAL);
        match self.sink.memory() {
            Memory::Own => return Ok(()),
            Memory::LastChange | Memory::MayFade | Memory::MayVanish if soon => {
                self.unnoted = Some(reached);
                return Ok(());
            }
            Memory::LastChange | Memory::MayFade | Memory::MayVanish | Memory::None => {}
        }
        self.note_at(reached, self.given)?;
        (self.at, self.noted_at, self.unnoted) = (reached, Some(Instant::now()), None);
        Ok(())
    }

    fn note_at(&self, at: Progress, given: u64) -> Result<(), FlowError> {
        let (journal, Progress { epoch, lsn }) = (self.flow.journal.identity(), at);
        let progress = FlowProgress { journal, epoch, lsn, given: Some(given) };
        Ok(self.flow.catalog.set_progress(&self.flow.name, progress)?)
    }

    /// The end of a batch that was on its way when the flow stopped, for a sink that must be given it as it was.
    fn in_flight(&self) -> Result<Option<u64>, FlowError> {
        if !self.sink.repeats_whole() {
            return Ok(None);
        }
        let noted = self.flow.catalog.progress(&self.flow.name)?;
        let noted = noted.filter(|noted| noted.journal == self.flow.journal.identity());
        Ok(noted.and_then(|noted| noted.given).filter(|given| *given > self.at.lsn))
    }

    async fn settle(&mut self) -> Result<(), FlowError> {
        if let Some(passed) = self.passed.take() {
            self.apply(self.batch(Vec::new(), passed, true, false)).await?;
            self.note(passed)?;
        }
        self.unsettled = false;
        Ok(self.sink.settle().await?)
    }

    /// Tells the catalog what `note` put off.
    fn note_rest(&mut self) -> Result<(), FlowError> {
        self.noted_at = None;
        match self.unnoted {
            Some(reached) => self.note(reached),
            None => Ok(()),
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

    fn park(&mut self, change: &OutChange, reason: &str, waits_for: Option<u64>) -> Result<(), FlowError> {
        let is_new = self.parked.park(change, reason, waits_for)?;
        let count = self.parked.count();
        self.flow.status.update(|s| s.dead_letters = count);
        // What waits behind a parked change, or was parked already, tells nothing new of the target: the flow goes on.
        if count > DEAD_LETTERS_MAX && is_new && waits_for.is_none() {
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

    async fn answer_retry(&mut self, reply: RetryReply) -> Result<(), FlowError> {
        let result = self.retry().await;
        let answer = result.as_ref().map(|counts| *counts).map_err(|e| base::error::chain(e));
        let _ = reply.send(answer);
        result.map(|_| ())
    }

    /// Tries every parked change again in order; a row whose first change is refused again keeps all its changes.
    async fn retry(&mut self) -> Result<(u64, u64), FlowError> {
        let rows = self.flow.catalog.parked_rows(&self.flow.name)?;
        let mut refused: HashSet<(String, String)> = HashSet::new();
        let (mut through, mut waiting) = (0, 0);
        for (place, row) in rows.iter().enumerate() {
            if parked::names(row).any(|name| refused.contains(&name)) {
                refused.extend(parked::names(row));
                waiting += 1;
                continue;
            }
            let failure = match tokio::task::block_in_place(|| self.parked.reread(row.lsn))? {
                Reread::Gone => {
                    Some("the journal no longer has this change: use `flow resnapshot`".to_owned())
                }
                Reread::Unfit(reason) => {
                    let later = &rows[place + 1..];
                    let made_up = tokio::task::block_in_place(|| self.parked.made_up_for(row, later))?;
                    Some(reason).filter(|_| !made_up)
                }
                Reread::Excluded => None,
                Reread::Changes(changes) => {
                    let epoch = changes.first().map_or(0, |change| change.epoch);
                    let batch = self.batch(changes, Progress { epoch, lsn: row.lsn }, true, true);
                    match self.sink.apply(&batch).await {
                        Ok(()) => None,
                        Err(SinkError::Row { reason, .. }) => Some(reason),
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            match failure {
                None => {
                    self.flow.catalog.unpark(&self.flow.name, row.lsn)?;
                    through += 1;
                }
                Some(reason) => {
                    self.flow.catalog.set_reason(&self.flow.name, row.lsn, &reason)?;
                    refused.extend(parked::names(row));
                    waiting += 1;
                }
            }
        }
        self.parked.rest();
        self.parked.recall()?;
        self.flow.status.update(|s| s.dead_letters = waiting);
        Ok((through, waiting))
    }

    fn show(&self, lsn: u64, ts_ms: i64) {
        let end = self.flow.journal.sealed();
        let count = self.parked.count();
        if ts_ms > 0 {
            self.flow.status.lacks_since(ts_ms);
        }
        self.flow.status.advance(|s| {
            s.lsn = s.lsn.max(lsn);
            s.lag_changes = end.lsn.saturating_sub(s.lsn);
            s.dead_letters = count;
        });
        self.flow.status.against(end);
    }
}

/// Where the journal ends, and which of its tables are not read whole by then.
fn unfinished(journal: &Journal) -> (u64, BTreeSet<u32>) {
    let state = journal.state();
    let waits = |name: String| state.snapshot.tables.get(&name).is_some_and(|table| !table.done);
    let ids = state.tables.values().filter(|table| waits(table.name.to_string())).map(|table| table.id);
    (state.next_lsn - 1, ids.collect())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
