//! Changes as JSON lines of the flow's format on standard output. A terminal keeps no progress: the catalog does.

use crate::config::FlowConfig;
use crate::deliver::sink::{Memory, Sink, SinkBatch, SinkError, Standing};
use crate::formats::{Encoder, Record};
use async_trait::async_trait;
use base::Table;
use std::io::Write;
use std::sync::Arc;

pub struct StdoutSink {
    encoder: Encoder,
}

impl StdoutSink {
    pub fn new(source: &str, config: &FlowConfig) -> Self {
        Self { encoder: Encoder::new(config.options.format, source, config.options.schemas) }
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
        let mut out = std::io::stdout().lock();
        out.write_all(&lines).and_then(|()| out.flush()).map_err(|error| SinkError::Blocked {
            message: format!("failed to write to standard output: {error}"),
            hint: "the reader of the pipe is gone; start again with one".into(),
        })
    }
}
