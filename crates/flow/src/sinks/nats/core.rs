//! Subjects of core NATS, without JetStream: whoever listens at the moment gets a change, and nobody keeps it.
//!
//! The server tells nobody what it passed on. A batch has been given to it when a message of our own that was sent behind it has
//! come back over the same connection. Progress is the catalog's; a batch of which that is not known is sent again.

use super::connect::{Server, away};
use super::message::Messages;
use crate::config::{FlowConfig, SinkConfig};
use crate::deliver::sink::{Memory, Sink, SinkBatch, SinkError, Standing};
use crate::mirror::Mirror;
use async_nats::{Client, Subscriber};
use async_trait::async_trait;
use base::Table;
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest wait for our own message.
const ECHO_WAIT_MAX: Duration = Duration::from_secs(10);

pub struct CoreSink {
    server: Server,
    messages: Messages,
    open: Option<Open>,
}

struct Open {
    client: Client,
    journal: u64,
    inbox: String,
    echoes: Subscriber,
    /// Batches sent.
    sent: u64,
}

impl CoreSink {
    pub fn new(source: &str, sink: &SinkConfig, config: &FlowConfig) -> Result<Self, SinkError> {
        Ok(Self { server: Server::new(sink)?, messages: Messages::new(source, config), open: None })
    }

    async fn publish(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let open = self.open.as_mut().ok_or_else(|| away(&"not connected"))?;
        let connects = || open.client.statistics().connects.load(Ordering::Relaxed);
        let connection = connects();
        let payload_max = open.client.server_info().max_payload;
        for change in &batch.changes {
            let made = self.messages.of(change, open.journal, payload_max, batch.redrive);
            let Some((subject, headers, payload)) = made else { continue };
            let sent = open.client.publish_with_headers(subject, headers, payload.into());
            sent.await.map_err(|error| away(&error))?;
        }
        open.sent += 1;
        let number = open.sent.to_string();
        open.client.publish(open.inbox.clone(), number.clone().into()).await.map_err(|error| away(&error))?;
        let came = async {
            while let Some(message) = open.echoes.next().await {
                if message.payload == number.as_bytes() {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(ECHO_WAIT_MAX, came).await {
            Ok(true) if connects() == connection => Ok(()),
            Ok(_) => Err(away(&"the connection broke while changes were sent")),
            Err(_) => Err(away(&"no answer within 10 s")),
        }
    }
}

#[async_trait]
impl Sink for CoreSink {
    fn attach(&mut self, mirror: Option<&Mirror>) {
        self.messages.tokens.attach(mirror);
    }

    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        self.open = None;
        let client = self.server.connect().await?;
        let inbox = client.new_inbox();
        let echoes = client.subscribe(inbox.clone()).await.map_err(|error| away(&error))?;
        self.open = Some(Open { client, journal: 0, inbox, echoes, sent: 0 });
        Ok(None)
    }

    fn memory(&self) -> Memory {
        Memory::None
    }

    fn follow(&mut self, standing: Standing) {
        if let Some(open) = &mut self.open {
            open.journal = standing.journal;
        }
    }

    async fn rewind(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn probe(&mut self) -> Result<(), SinkError> {
        self.server.connect().await.map(|_| ())
    }

    async fn prepare(&mut self, _tables: &[Arc<Table>]) -> Result<(), SinkError> {
        Ok(())
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        if batch.changes.is_empty() {
            return Ok(());
        }
        let result = self.publish(batch).await;
        if result.is_err() {
            self.open = None;
        }
        result
    }
}
