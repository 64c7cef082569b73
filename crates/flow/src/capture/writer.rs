//! The thread that owns a journal's writer: it appends what capture encoded, and seals as one group whatever has come
//! while the last fsync ran.

use super::CaptureError;
use journal::{Batch, JournalError, State, Writer};
use std::sync::atomic::{AtomicBool, Ordering};
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
    Flush(oneshot::Sender<Result<u64, CaptureError>>),
}

/// Capture's end. Dropping it ends the thread after what was sent is sealed.
#[derive(Clone)]
pub struct JournalHandle {
    commands: mpsc::Sender<Command>,
    /// Set while the writer refuses batches.
    failed: Arc<AtomicBool>,
    spares: Spares,
}

impl JournalHandle {
    pub fn spawn(name: &str, writer: Writer) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
        let failed = Arc::new(AtomicBool::new(false));
        let spares = Spares::default();
        thread::Builder::new()
            .name(format!("journal-{name}"))
            .spawn({
                let (failed, spares) = (Arc::clone(&failed), spares.clone());
                move || run(writer, receiver, &failed, &spares)
            })
            .expect("the system can start a thread");
        Self { commands: sender, failed, spares }
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
        if self.failed.load(Ordering::Acquire) {
            return Err(CaptureError::unavailable("the journal refused an earlier batch"));
        }
        self.commands.send(Command::Append(batch)).await.map_err(|_| gone())
    }

    pub async fn reset(&self) -> Result<State, CaptureError> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Reset(sender)).await.map_err(|_| gone())?;
        Ok(receiver.await.map_err(|_| gone())??)
    }

    /// The last durable lsn, after everything sent before.
    pub async fn flush(&self) -> Result<u64, CaptureError> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Flush(sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

fn gone() -> CaptureError {
    CaptureError::fatal("the journal's writer has ended", "see the log for the error that ended it")
}

/// After a failure every command but `Reset` is refused: a later batch must never follow a lost one.
fn run(mut writer: Writer, mut commands: mpsc::Receiver<Command>, flag: &AtomicBool, spares: &Spares) {
    let mut failed = false;
    while let Some(first) = commands.blocking_recv() {
        let mut next = Some(first);
        let mut group_bytes = 0;
        let mut waiting = Vec::new();
        while let Some(command) = next.take() {
            match command {
                Command::Append(batch) if !failed => {
                    group_bytes += batch.len_bytes();
                    if let Err(error) = writer.append(batch) {
                        tracing::error!(
                            error = base::error::chain(&error),
                            "failed to append to the journal"
                        );
                        failed = true;
                    }
                    if let Some(buffer) = writer.spare() {
                        spares.put(buffer);
                    }
                }
                Command::Append(_) => {}
                Command::Flush(reply) => waiting.push(reply),
                Command::Reset(reply) => {
                    let result = writer.abort().map(|()| writer.state().clone());
                    failed = result.is_err();
                    flag.store(failed, Ordering::Release);
                    let _ = reply.send(result);
                }
            }
            if group_bytes < GROUP_BYTES_MAX {
                next = commands.try_recv().ok();
            }
        }
        let sealed = if failed { None } else { seal(&mut writer) };
        failed = sealed.is_none();
        flag.store(failed, Ordering::Release);
        for reply in waiting {
            let refused = || CaptureError::unavailable("the journal refused what came before");
            let _ = reply.send(sealed.ok_or_else(refused));
        }
    }
}

fn seal(writer: &mut Writer) -> Option<u64> {
    match writer.seal() {
        Ok(lsn) => Some(lsn),
        Err(error) => {
            tracing::error!(error = base::error::chain(&error), "failed to seal the journal");
            None
        }
    }
}
