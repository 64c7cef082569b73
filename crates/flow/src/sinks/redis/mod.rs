//! Redis: a hash, a JSON string, or a member of a set for each row; an entry of a stream or a message for each change.
//!
//! Changes are written by a script (`apply.lua`) that takes a chunk of them and moves the flow's progress in the same
//! run, so that the two never part, also not in a server that comes back from an older file of its own. Progress
//! that is not what we left there says that someone else wrote, or that the server was emptied: nothing is written then.
//!
//! ```text
//! tidemill:progress:FLOW           <journal, hexadecimal> <past epochs> <epoch> <lsn>
//! tidemill:keys:FLOW:DB.TABLE      sorted set: every key of the table's rows, or <length>:<set><member>; scored by when
//!                                  it ends, 0 for never. What TRUNCATE, DROP and RENAME act on.
//! tidemill:deleted:KEY             the version at which the row of KEY ended, for TOMBSTONE_SECONDS
//! tidemill:asked:KEY               `lease <token>` while someone reads the row of KEY from the source, then `absent <version>`
//!                                  for a while if there is none; see `aside`. Every write to KEY removes it.
//! ```
//!
//! Where all keys of a flow have one hash tag, because its template begins with it, the first two have it too: `tidemill:{TAG}:progress:FLOW`.
//! So they are in one slot of a cluster, as a script needs them.
//!
//! A row carries its version, `<epoch, 10 digits>.<lsn, 20 digits>`, as the field `tidemill_version`, or as the first
//! member of its JSON; what is older never overwrites what is newer. A journal that began anew counts its epochs behind those of
//! the one before it (`past epochs`), so that versions keep growing.

pub mod aside;
mod chunk;
mod failure;
pub mod plan;
pub mod read;
pub mod server;
pub(crate) mod value;

use crate::config::{FlowConfig, RedisType};
use crate::deliver::sink::{Memory, OutChange, Progress, Sink, SinkBatch, SinkError, Standing};
use crate::formats::Encoder;
use async_trait::async_trait;
use base::{Secret, Table};
use chunk::Chunk;
use plan::{Context, Options, Plan, Sweep, sweep};
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use std::collections::HashMap;
use std::sync::Arc;

const SCRIPT: &str = include_str!("apply.lua");
/// Runs of the script that are on their way at once.
const PIPELINE_RUNS_MAX: usize = 8;
/// Keys of a table that one step of TRUNCATE, DROP or RENAME takes.
const SWEEP_KEYS: usize = 256;
/// How long a deleted row is remembered. Order is kept by the flow's progress; this is for who writes beside it, a
/// cache that is filled by hand or a second process, and must have given up by then.
const TOMBSTONE_SECONDS: u64 = 3600;
/// What a server takes as one text where it does not tell.
const BULK_BYTES_DEFAULT: usize = 512 << 20;
/// Tables whose plans are kept; more than that and they are made again.
const PLANS_MAX: usize = 4096;

pub struct RedisSink {
    flow: String,
    source: String,
    url: Secret,
    options: Options,
    encoder: Encoder,
    plans: HashMap<(u32, u32), Arc<Plan>>,
    open: Option<Open>,
}

struct Open {
    connection: MultiplexedConnection,
    /// The script's name on this server.
    script: String,
    /// Progress as Redis has it, to the letter; empty for none.
    held: String,
    /// What `held` said when it was read.
    told: Option<Told>,
    journal: u64,
    past_epochs: u64,
    progress: Progress,
    /// The longest text that the server takes.
    bulk_bytes_max: usize,
}

#[derive(Clone, Copy)]
struct Told {
    standing: Standing,
    past_epochs: u64,
}

enum Step {
    Run(Chunk),
    Sweep(Sweep, Box<OutChange>),
}

impl RedisSink {
    pub fn new(flow: &str, source: &str, url: &Secret, config: &FlowConfig) -> Result<Self, SinkError> {
        let options = Options::compile(&config.options)
            .map_err(|(message, hint)| SinkError::Blocked { message, hint })?;
        options.check_cluster(url).map_err(|(message, hint)| SinkError::Blocked { message, hint })?;
        Ok(Self {
            flow: flow.to_owned(),
            source: source.to_owned(),
            url: url.clone(),
            options,
            encoder: Encoder::new(config.options.format, source, false),
            plans: HashMap::new(),
            open: None,
        })
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        server::connection(&self.url, self.progress_key().as_bytes()).await
    }

    async fn connect(&mut self) -> RedisResult<Option<Standing>> {
        let mut connection = self.connection().await?;
        let script = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await?;
        let held: Option<String> =
            redis::cmd("GET").arg(self.progress_key()).query_async(&mut connection).await?;
        let held = held.unwrap_or_default();
        let told = parse_progress(&held);
        // Managed servers forbid the question; then the default stands.
        let limits: RedisResult<Vec<String>> =
            redis::cmd("CONFIG").arg("GET").arg("proto-max-bulk-len").query_async(&mut connection).await;
        let limit = limits.ok().and_then(|pair| pair.get(1)?.parse().ok());
        self.open = Some(Open {
            connection,
            script,
            held,
            told,
            journal: 0,
            past_epochs: 0,
            progress: Progress::default(),
            bulk_bytes_max: limit.unwrap_or(BULK_BYTES_DEFAULT),
        });
        Ok(told.map(|told| told.standing))
    }

    fn progress_key(&self) -> String {
        self.options.progress_key(&self.flow)
    }

    /// The plan of a table. One that waits to be tried again may be known by later names: it is planned each time.
    fn plan(&mut self, table: &Table, anew: bool) -> Result<Arc<Plan>, SinkError> {
        let id = (table.id, table.version);
        if let Some(plan) = self.plans.get(&id).filter(|_| !anew) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(Plan::new(&self.options, &self.flow, &self.source, table)?);
        if !anew {
            if self.plans.len() >= PLANS_MAX {
                self.plans.clear();
            }
            self.plans.insert(id, Arc::clone(&plan));
        }
        Ok(plan)
    }

    /// What a batch does, in order. Nothing is sent here: a change that is refused for its size is told first.
    fn steps(&mut self, batch: &SinkBatch) -> Result<Vec<Step>, SinkError> {
        let Some(open) = &self.open else { return Err(closed()) };
        let (done, past_epochs, bulk_bytes_max) = (open.progress.lsn, open.past_epochs, open.bulk_bytes_max);
        let mut steps = Vec::new();
        let mut chunk = Chunk::default();
        let holds_rows = self.options.holds_rows();
        let mut behind = None;
        for change in batch.changes.iter().filter(|change| batch.redrive || change.lsn > done) {
            // Between two changes of one lsn, which a row became, nothing is done up to it.
            let fresh = behind.is_none_or(|(_, lsn)| lsn != change.lsn);
            if let Some((epoch, lsn)) = behind.replace((change.epoch, change.lsn)).filter(|_| fresh) {
                chunk.up_to = (!batch.redrive).then_some(Progress { epoch, lsn });
                if chunk.is_full() {
                    steps.push(Step::Run(std::mem::take(&mut chunk)));
                }
            }
            if holds_rows && let Some(sweep) = sweep(change) {
                steps.push(Step::Run(std::mem::take(&mut chunk)));
                steps.push(Step::Sweep(sweep, Box::new(change.clone())));
                continue;
            }
            let plan = self.plan(&change.table, batch.redrive)?;
            let context = self.context(past_epochs, batch.redrive);
            let since = (chunk.keys.len(), chunk.args.len());
            if holds_rows {
                plan.put(&mut chunk, &context, change)?;
            } else {
                plan.put_message(&mut chunk, &context, change);
            }
            chunk.check(change.lsn, since, bulk_bytes_max)?;
        }
        chunk.up_to = (!batch.redrive).then_some(batch.up_to);
        steps.push(Step::Run(chunk));
        steps.retain(|step| !matches!(step, Step::Run(chunk) if chunk.is_empty() && chunk.up_to.is_none()));
        Ok(steps)
    }

    fn context(&self, past_epochs: u64, late: bool) -> Context<'_> {
        Context { options: &self.options, source: &self.source, encoder: &self.encoder, past_epochs, late }
    }

    async fn write(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        if !batch.redrive && self.open.as_ref().is_some_and(|open| batch.up_to.lsn <= open.progress.lsn) {
            return Ok(());
        }
        let mut runs = Vec::new();
        for step in self.steps(batch)? {
            match step {
                Step::Run(chunk) => runs.push(chunk),
                Step::Sweep(sweep, change) => {
                    self.run(&std::mem::take(&mut runs)).await?;
                    self.sweep(&sweep, &change).await.map_err(|error| unswept(error, &change))?;
                }
            }
            if runs.len() >= PIPELINE_RUNS_MAX {
                self.run(&std::mem::take(&mut runs)).await?;
            }
        }
        self.run(&runs).await?;
        Ok(())
    }

    /// Runs the script for each chunk; each goes on only from where the one before it has come. Answers how many
    /// rows were kept because they are newer.
    async fn run(&mut self, chunks: &[Chunk]) -> Result<usize, SinkError> {
        if chunks.is_empty() {
            return Ok(0);
        }
        let progress_key = self.progress_key();
        let Some(open) = &mut self.open else { return Err(closed()) };
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        let mut reached = Vec::with_capacity(chunks.len());
        let mut at = open.held.clone();
        for chunk in chunks {
            let next = chunk.up_to.map_or_else(|| at.clone(), |up_to| open.progress_text(up_to));
            pipeline.cmd("EVALSHA").arg(&open.script).arg(1 + chunk.keys.len()).arg(&progress_key);
            for key in &chunk.keys {
                pipeline.arg(key.as_slice());
            }
            pipeline.arg(&at).arg(&next).arg(TOMBSTONE_SECONDS).arg(self.options.ttl_seconds);
            for arg in &chunk.args {
                pipeline.arg(arg.as_slice());
            }
            reached.push(next.clone());
            at = next;
        }
        let replies: Vec<RedisResult<Value>> =
            pipeline.query_async(&mut open.connection).await.map_err(|error| failure::sort(&error))?;
        let mut newer = 0;
        for ((chunk, reached), reply) in chunks.iter().zip(reached).zip(replies) {
            newer += judge(chunk, reply, &self.flow)?;
            open.held = reached;
            if let Some(up_to) = chunk.up_to {
                open.progress = up_to;
            }
        }
        Ok(newer)
    }

    /// TRUNCATE, DROP and RENAME: all keys of a table, page by page. Done again after a crash, it goes on where it was.
    async fn sweep(&mut self, sweep: &Sweep, change: &OutChange) -> Result<(), SinkError> {
        let (table, target) = match sweep {
            Sweep::Clear(table) => (table, None),
            Sweep::Move(from, to) => (from, Some(self.plan(to, true)?)),
        };
        let plan = self.plan(table, true)?;
        let mut kept = 0;
        loop {
            let Some(open) = &mut self.open else { return Err(closed()) };
            let past_epochs = open.past_epochs;
            let page: Vec<Vec<u8>> = redis::cmd("ZRANGE")
                .arg(&plan.list)
                .arg(kept)
                .arg(kept + SWEEP_KEYS - 1)
                .query_async(&mut open.connection)
                .await
                .map_err(|error| failure::sort(&error))?;
            if page.is_empty() {
                return Ok(());
            }
            let mut chunk = Chunk::default();
            let context = self.context(past_epochs, false);
            for entry in page {
                match &target {
                    None => plan.put_entry_end(&mut chunk, &context, change, entry),
                    Some(target) => plan.put_move(&mut chunk, &context, change.lsn, target, &entry),
                }
            }
            kept += self.run(&[chunk]).await?;
        }
    }
}

impl Open {
    fn progress_text(&self, progress: Progress) -> String {
        format!("{:016x} {} {} {}", self.journal, self.past_epochs, progress.epoch, progress.lsn)
    }
}

fn parse_progress(text: &str) -> Option<Told> {
    let mut words = text.split(' ');
    let journal = u64::from_str_radix(words.next()?, 16).ok()?;
    let past_epochs = words.next()?.parse().ok()?;
    let progress = Progress { epoch: words.next()?.parse().ok()?, lsn: words.next()?.parse().ok()? };
    Some(Told { standing: Standing { journal, progress }, past_epochs })
}

fn closed() -> SinkError {
    SinkError::Unavailable { message: "Redis: not connected".into() }
}

/// A table that cannot be emptied is no row that could be put aside.
fn unswept(error: SinkError, change: &OutChange) -> SinkError {
    match error {
        SinkError::Row { reason, .. } => SinkError::Blocked {
            message: format!("the rows of `{}` cannot all be removed: {reason}", change.table.name),
            hint: "another program made a key of its own under the name of a row: remove it by hand".into(),
        },
        other => other,
    }
}

/// What the script answered: how many rows it kept because they are newer.
fn judge(chunk: &Chunk, reply: RedisResult<Value>, flow: &str) -> Result<usize, SinkError> {
    let reply = reply.map_err(|error| failure::sort(&error))?;
    let unknown = || SinkError::Unavailable { message: "Redis: the script's answer makes no sense".into() };
    let Value::Array(parts) = reply else { return Err(unknown()) };
    let text = |index: usize| match parts.get(index) {
        Some(Value::BulkString(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    let number = |index: usize| match parts.get(index) {
        Some(Value::Int(number)) => usize::try_from(*number).unwrap_or(0),
        _ => 0,
    };
    match text(0).as_str() {
        "done" => Ok(number(1)),
        // A new `open` sees what is there.
        "moved" if text(1).is_empty() => Err(SinkError::Unavailable {
            message: format!("Redis: the progress of flow `{flow}` is gone: the server was emptied"),
        }),
        "moved" => Err(SinkError::Unavailable {
            message: format!(
                "Redis: the progress of flow `{flow}` is not where we left it: another process wrote it"
            ),
        }),
        "failed" => match number(1).checked_sub(1).and_then(|index| chunk.lsns.get(index)) {
            Some(lsn) => Err(failure::sort_reply(*lsn, &text(2))),
            None => Err(failure::sort_text(&text(2))),
        },
        _ => Err(unknown()),
    }
}

#[async_trait]
impl Sink for RedisSink {
    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        self.open = None;
        self.connect().await.map_err(|error| failure::sort(&error))
    }

    fn memory(&self) -> Memory {
        // A message that was published is gone either way.
        if self.options.kind == RedisType::Pubsub { Memory::MayFade } else { Memory::MayVanish }
    }

    fn follow(&mut self, standing: Standing) {
        let Some(open) = &mut self.open else { return };
        open.past_epochs = match open.told {
            Some(told) if told.standing.journal == standing.journal => told.past_epochs,
            Some(told) => told.past_epochs + u64::from(told.standing.progress.epoch),
            None => 0,
        };
        (open.journal, open.progress) = (standing.journal, standing.progress);
    }

    fn refuses_rewind(&self) -> Option<(&'static str, &'static str)> {
        (self.options.kind == RedisType::Stream).then_some((
            "the id of an entry is the number of its change, and a Redis stream takes none that is not above its last",
            "its readers can read it again from any id; a flow with a new name and `key` fills another",
        ))
    }

    async fn rewind(&mut self) -> Result<(), SinkError> {
        let up_to = self.open.as_ref().map(|open| open.progress);
        let result = self.run(&[Chunk { up_to, ..Chunk::default() }]).await;
        if result.is_err() {
            self.open = None;
        }
        result.map(|_| ())
    }

    async fn probe(&mut self) -> Result<(), SinkError> {
        let mut connection = self.connection().await.map_err(|error| failure::sort(&error))?;
        let asked: RedisResult<()> = redis::cmd("PING").query_async(&mut connection).await;
        asked.map_err(|error| failure::sort(&error))
    }

    async fn prepare(&mut self, tables: &[Arc<Table>]) -> Result<(), SinkError> {
        tables.iter().try_for_each(|table| self.plan(table, false).map(|_| ()))
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let result = self.write(batch).await;
        if matches!(result, Err(SinkError::Unavailable { .. } | SinkError::Blocked { .. })) {
            // Some may be written: only a new `open` knows.
            self.open = None;
        }
        result
    }

    async fn still_there(&mut self) -> Result<(), SinkError> {
        let key = self.progress_key();
        let Some(open) = &mut self.open else { return Err(closed()) };
        let held: RedisResult<Option<String>> =
            redis::cmd("GET").arg(key).query_async(&mut open.connection).await;
        let held = held.map_err(|error| failure::sort(&error))?.unwrap_or_default();
        if held == open.held {
            return Ok(());
        }
        let message = format!("Redis: the progress of flow `{}` was taken away or moved", self.flow);
        Err(SinkError::Unavailable { message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_back_and_anything_else_is_none() {
        let told = parse_progress("00000000000000ff 2 3 42").unwrap();
        let progress = Progress { epoch: 3, lsn: 42 };
        assert_eq!((told.standing, told.past_epochs), (Standing { journal: 255, progress }, 2));
        for text in ["", "ff", "ff 1 2", "x 1 2 3"] {
            assert!(parse_progress(text).is_none(), "{text}");
        }
    }

    #[test]
    fn versions_order_as_text() {
        let versions = [(0, 1, 9), (0, 1, 10), (0, 2, 1), (2, 1, 1), (9, 1, 1)];
        let texts: Vec<String> = versions.map(|(past, epoch, lsn)| plan::version(past, epoch, lsn)).into();
        assert!(texts.is_sorted() && texts.iter().all(|text| text.len() == 31), "{texts:?}");
    }
}
