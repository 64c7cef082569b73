//! The thread that owns a journal's writer: it appends what capture encoded, and seals as one group whatever has come
//! while the last fsync ran.

use super::{CaptureError, CaptureErrorKind};
use journal::{Batch, JournalError, State, Writer};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use tokio::sync::{mpsc, oneshot};

/// Batches that may wait for the disk: with capture's batch size this bounds the memory between the two.
const QUEUE_BATCHES_MAX: usize = 8;
/// Bytes appended before a seal even if more is waiting.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// A larger buffer held one huge row and is not kept.
const SPARE_BYTES_MAX: usize = 2 << 20;

/// Buffers that were written, for the next batches: fresh memory costs more than filling it.
#[derive(Clone, Default)]
struct Spares(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, buffer: Vec<u8>) {
        let mut spares = self.lock();
        if spares.len() < QUEUE_BATCHES_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            spares.push(buffer);
        }
    }
}

enum Command {
    Append(Batch),
    /// Drops what follows the last commit, and answers the state capture resumes from.
    Reset(oneshot::Sender<Result<State, JournalError>>),
    /// Answers once everything before it is durable.
    Flush(oneshot::Sender<Result<(), CaptureError>>),
}

/// Capture's end. Dropping it ends the thread after what was sent is sealed.
#[derive(Clone)]
pub struct JournalHandle {
    commands: mpsc::Sender<Command>,
    failure: Failure,
    spares: Spares,
}

/// Why the writer refuses batches, while it does.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<Refusal>>>);

#[derive(Clone)]
struct Refusal {
    message: String,
    hint: Option<String>,
    kind: CaptureErrorKind,
}

impl Failure {
    fn lock(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, error: JournalError) {
        let error = CaptureError::from(error);
        let message = base::error::chain(&error);
        tracing::error!(error = message, hint = error.hint, "the journal takes nothing more");
        *self.lock() = Some(Refusal { message, hint: error.hint, kind: error.kind });
    }

    fn is_set(&self) -> bool {
        self.lock().is_some()
    }

    fn check(&self) -> Result<(), CaptureError> {
        match self.lock().clone() {
            None => Ok(()),
            Some(Refusal { message, hint, kind }) => Err(CaptureError { message, hint, kind, cause: None }),
        }
    }
}

impl JournalHandle {
    pub fn spawn(name: &str, writer: Writer) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
        let failure = Failure::default();
        let spares = Spares::default();
        thread::Builder::new()
            .name(format!("journal-{name}"))
            .spawn({
                let (failure, spares) = (failure.clone(), spares.clone());
                move || run(writer, receiver, &failure, &spares)
            })
            .expect("the system can start a thread");
        Self { commands: sender, failure, spares }
    }

    /// An empty batch that begins with `next_lsn`, in the buffer of one that was written if there is any.
    pub fn batch(&self, next_lsn: u64) -> Batch {
        let spare = self.spares.lock().pop();
        Batch::reuse(spare.unwrap_or_default(), next_lsn)
    }

    /// Gives the memory of spare buffers back.
    pub fn rest(&self) {
        let spares = std::mem::take(&mut *self.spares.lock());
        drop(spares);
    }

    /// Hands over a batch; waits while the disk is behind.
    pub async fn append(&self, batch: Batch) -> Result<(), CaptureError> {
        self.check()?;
        self.commands.send(Command::Append(batch)).await.map_err(|_| gone())
    }

    /// Whether the writer still takes batches. What was handed over may be refused later: a capture that has nothing more
    /// to hand over must ask, or it would wait for its source with changes lost behind it.
    pub fn check(&self) -> Result<(), CaptureError> {
        self.failure.check()
    }

    pub async fn reset(&self) -> Result<State, CaptureError> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Reset(sender)).await.map_err(|_| gone())?;
        Ok(receiver.await.map_err(|_| gone())??)
    }

    /// Waits until everything sent before is durable.
    pub async fn flush(&self) -> Result<(), CaptureError> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Flush(sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

fn gone() -> CaptureError {
    CaptureError::fatal("the journal's writer has ended", "see the log for the error that ended it")
}

/// After a failure every command but `Reset` is refused: a later batch must never follow a lost one.
fn run(mut writer: Writer, mut commands: mpsc::Receiver<Command>, failure: &Failure, spares: &Spares) {
    while let Some(first) = commands.blocking_recv() {
        let mut next = Some(first);
        let mut group_bytes = 0;
        let mut waiting = Vec::new();
        while let Some(command) = next.take() {
            match command {
                Command::Append(batch) if !failure.is_set() => {
                    group_bytes += batch.len_bytes();
                    if let Err(error) = writer.append(batch) {
                        failure.note(error);
                    }
                    if let Some(buffer) = writer.spare() {
                        spares.put(buffer);
                    }
                }
                Command::Append(_) => {}
                Command::Flush(reply) => waiting.push(reply),
                Command::Reset(reply) => {
                    let result = writer.abort().map(|()| writer.state().clone());
                    if result.is_ok() {
                        *failure.lock() = None;
                    }
                    let _ = reply.send(result);
                }
            }
            if group_bytes < GROUP_BYTES_MAX {
                next = commands.try_recv().ok();
            }
        }
        if !failure.is_set()
            && let Err(error) = writer.seal()
        {
            failure.note(error);
        }
        for reply in waiting {
            let _ = reply.send(failure.check());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Column, ColumnType, Generated, Op, Position, RowBuf, Step, Table, TableName, ValueRef};
    use journal::sim::SimDisk;
    use journal::{Options, open};
    use std::path::Path;

    fn table() -> Table {
        let column = Column {
            name: "v".into(),
            ty: ColumnType::Text { chars_max: 9000 },
            sql_type: "text".into(),
            nullable: false,
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        };
        let name = TableName::new("shop", "a");
        Table { id: 1, version: 1, name, columns: vec![column], key: vec![], unique_keys: vec![] }
    }

    fn batch(state: &State, change_id: i64, first: bool) -> Batch {
        let (table, mut batch) = (Arc::new(table()), Batch::new(state.next_lsn));
        if first {
            batch.schema(&table);
            batch.commit(&Step::Full(Box::new(Position::Sqlite { change_id: 0 })));
        }
        batch.begin("t", 1);
        let row = RowBuf::from_values([ValueRef::Text(&"x".repeat(3000))]);
        batch.change(Op::Insert, &table, None, Some(&row.0));
        batch.commit(&Step::Sqlite { change_id });
        batch
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_disk_is_named_loses_nothing_and_capture_goes_on_when_there_is_room() {
        let disk = SimDisk::new(1);
        let (writer, journal) = open(Arc::new(disk.clone()), Path::new("/j"), Options::default()).unwrap();
        let handle = JournalHandle::spawn("test", writer);
        let state = handle.reset().await.unwrap();
        handle.append(batch(&state, 1, true)).await.unwrap();
        handle.flush().await.unwrap();
        disk.set_capacity(Some(5000));
        let state = handle.reset().await.unwrap();
        handle.append(batch(&state, 2, false)).await.unwrap();
        let error = handle.flush().await.unwrap_err();
        assert_eq!(error.kind, CaptureErrorKind::Unavailable, "it is tried again");
        assert!(error.hint.unwrap().contains("free space"));
        let again = handle.append(batch(&state, 3, false)).await.unwrap_err();
        assert!(again.message.contains("journal"), "a later batch never follows a lost one: {again}");
        assert_eq!(journal.sealed().lsn, 1);
        disk.set_capacity(None);
        let state = handle.reset().await.unwrap();
        assert_eq!(state.position, Some(Position::Sqlite { change_id: 1 }));
        handle.append(batch(&state, 2, false)).await.unwrap();
        handle.flush().await.unwrap();
        assert_eq!(journal.sealed().lsn, 2);
    }
}
