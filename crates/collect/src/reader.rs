//! What every kind of source does for collection: say what tables it has, and give their rows.

use async_trait::async_trait;
use base::{Blame, Code, Column, Fault, Retry, Value};
use tokio::sync::mpsc;

/// Rows that are handed over at once.
pub const ROWS_OF_BATCH_MAX: usize = 1024;
/// Batches that may wait for who writes them.
pub const BATCHES_AHEAD: usize = 4;
/// Bytes that are kept of what could not be read as a row.
pub const BAD_TEXT_MAX: usize = 4096;

/// A table as its source describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// As the source calls it: `shop.orders`, a sheet, a file's name without its ending.
    pub table: String,
    /// With the source's types; `engine::kept` says what holds them.
    pub columns: Vec<Column>,
    /// Names of the primary key's columns; empty where the source knows none.
    pub key: Vec<String>,
}

/// Which rows of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Scope {
    All,
    /// Those whose cursor column is at least this value, in its order; all without a value.
    From {
        column: String,
        value: Option<Value>,
    },
    /// The named columns of all rows, in their order.
    Columns(Vec<String>),
}

/// Rows in the order of [`Described::columns`], and what was no row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub rows: Vec<Vec<Value>>,
    pub bad: Vec<BadRow>,
}

/// What could not be read as a row of its table.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRow {
    /// Where it stands: `orders.csv:17`, `page 3, item 12`.
    pub place: String,
    /// The text itself, cut at [`BAD_TEXT_MAX`] bytes.
    pub text: String,
    pub reason: String,
}

/// A source that is open.
#[async_trait]
pub trait Reader: Send {
    /// The tables it has, sorted by name.
    async fn tables(&mut self) -> Result<Vec<String>, ReadError>;

    async fn describe(&mut self, table: &str) -> Result<Described, ReadError>;

    /// Whether rows of [`Scope::From`] come in the order of the cursor. Where they do not, what was read counts only when all of
    /// it was.
    fn in_order(&self) -> bool {
        true
    }

    /// Starts to read; batches come behind the call.
    async fn read(&mut self, table: &Described, scope: Scope) -> Result<Batches, ReadError>;
}

/// Rows that are being read. Dropping it stops the reader.
pub struct Batches(mpsc::Receiver<Result<Batch, ReadError>>);

/// The reader's end: `None` in place of a batch is the end of the rows, without which they are not whole.
pub struct Sender(mpsc::Sender<Result<Batch, ReadError>>);

/// Both ends.
pub fn batches() -> (Sender, Batches) {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    (Sender(sender), Batches(receiver))
}

impl Sender {
    /// Waits for room. False: nobody reads any more.
    pub async fn send(&self, batch: Batch) -> bool {
        batch.is_empty() || self.0.send(Ok(batch)).await.is_ok()
    }

    /// Ends when nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// [`Sender::send`] of a thread of its own.
    pub fn send_blocking(&self, batch: Batch) -> bool {
        batch.is_empty() || self.0.blocking_send(Ok(batch)).is_ok()
    }

    /// Says how it ended; nothing more can be sent.
    pub async fn end(self, result: Result<(), ReadError>) {
        // Who stopped reading does not want to know.
        let _ = self.0.send(result.map(|()| Batch::default())).await;
    }

    /// [`Sender::end`] of a thread of its own.
    pub fn end_blocking(self, result: Result<(), ReadError>) {
        let _ = self.0.blocking_send(result.map(|()| Batch::default()));
    }
}

impl Batches {
    /// The next rows; `None` behind the last. A reader that died is an error.
    pub async fn next(&mut self) -> Result<Option<Batch>, ReadError> {
        match self.0.recv().await {
            Some(Ok(batch)) if batch.is_empty() => Ok(None),
            Some(result) => result.map(Some),
            None => Err(ReadError::Internal("the reader ended before its last row".into())),
        }
    }
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.bad.is_empty()
    }
}

/// A source that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not there, or gone while it was read. It may come back.
    #[error("{0}")]
    Unavailable(String),
    /// It refused who asks.
    #[error("{message}")]
    Denied { message: String, hint: String },
    #[error("the source has no table `{0}`")]
    NoTable(String),
    /// What it holds cannot be read: a damaged file, an answer that is no answer.
    #[error("{message}")]
    Bad { message: String, hint: String },
    #[error("failed inside the reader: {0}")]
    Internal(String),
}

impl ReadError {
    pub fn bad(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Bad { message: message.into(), hint: hint.into() }
    }
}

impl Fault for ReadError {
    fn code(&self) -> Code {
        match self {
            Self::Unavailable(_) => Code::Unavailable,
            Self::Denied { .. } => Code::PermissionDenied,
            Self::NoTable(_) => Code::NotFound,
            Self::Bad { .. } => Code::Invalid,
            Self::Internal(_) => Code::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Internal(_) => Blame::Us,
            _ => Blame::Upstream,
        }
    }

    fn retry(&self) -> Retry {
        if matches!(self, Self::Unavailable(_)) { Retry::Backoff } else { Retry::Never }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { hint, .. } | Self::Bad { hint, .. } if !hint.is_empty() => Some(hint.clone()),
            _ => None,
        }
    }
}
