//! Changes as JSON lines of the flow's format on standard output. A terminal keeps no progress: the catalog does.
//!
//! Whoever reads the pipe may stop for as long as they like. So a thread of the flow's own writes, one batch at a time: no
//! other flow waits for the reader, and the process can end while it waits.

use crate::config::FlowConfig;
use crate::deliver::sink::{Memory, Sink, SinkBatch, SinkError, Standing};
use crate::formats::{Encoder, Record};
use async_trait::async_trait;
use base::Table;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;

/// Batches that wait for the thread: `apply` gives it the next when the last is written.
const WAITING_MAX: usize = 1;

/// Lines, and who waits for the end of their writing.
type Job = (Vec<u8>, oneshot::Sender<io::Result<()>>);

pub struct StdoutSink {
    encoder: Encoder,
    /// The thread that writes; it ends with the sender. Made by the first batch.
    writer: Option<SyncSender<Job>>,
}

impl StdoutSink {
    pub fn new(source: &str, config: &FlowConfig) -> Self {
        Self { encoder: Encoder::new(config.options.format, source, config.options.schemas), writer: None }
    }

    fn writer(&mut self) -> io::Result<&SyncSender<Job>> {
        if self.writer.is_none() {
            let (sender, jobs) = sync_channel(WAITING_MAX);
            std::thread::Builder::new().name("stdout".into()).spawn(move || write_all(&jobs))?;
            self.writer = Some(sender);
        }
        self.writer.as_ref().ok_or_else(|| io::Error::other("no thread"))
    }

    async fn write(&mut self, lines: Vec<u8>) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        let ended = || io::Error::other("the writing thread ended");
        let sent = self.writer()?.try_send((lines, done));
        if sent.is_err() {
            self.writer = None;
            return Err(ended());
        }
        written.await.map_err(|_| ended())?
    }
}

fn write_all(jobs: &Receiver<Job>) {
    for (lines, done) in jobs {
        let mut out = io::stdout().lock();
        let written = out.write_all(&lines).and_then(|()| out.flush());
        drop(out);
        // Whoever asked may be gone.
        let _ = done.send(written);
    }
}

#[async_trait]
impl Sink for StdoutSink {
    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        Ok(None)
    }

    fn memory(&self) -> Memory {
        Memory::None
    }

    fn follow(&mut self, _standing: Standing) {}

    async fn rewind(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn probe(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&mut self, _tables: &[Arc<Table>]) -> Result<(), SinkError> {
        Ok(())
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let mut lines = Vec::new();
        for change in &batch.changes {
            self.encoder.lines(&Record::of_out(change), &mut lines);
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.write(lines).await.map_err(|error| SinkError::Blocked {
            message: format!("failed to write to standard output: {error}"),
            hint: "the reader of the pipe is gone; start again with one".into(),
        })
    }
}
