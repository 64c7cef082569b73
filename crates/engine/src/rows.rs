//! Rows of a query, as they come.

use crate::error::EngineError;
use crate::lookup::Origin;
use base::{Column, ColumnType, Value};
use expr::coerce::double_text;
use tokio::sync::mpsc;

/// Rows that are handed over at once.
pub const ROWS_OF_BATCH_MAX: usize = 256;
/// Bytes that are handed over at once, where one row alone has not more.
pub const BYTES_OF_BATCH_MAX: usize = 1 << 20;
/// Bytes of one row's values.
pub const BYTES_OF_ROW_MAX: usize = 64 << 20;
/// Batches that may wait for the reader.
pub const BATCHES_AHEAD: usize = 4;

pub type Batch = Vec<Vec<Value>>;

/// The batch behind the last row: without it the sender died, and rows are missing.
pub(crate) const END: Batch = Vec::new();

/// Rows until they are handed over: bounded in number, and in bytes, since one value may be as long as a row.
#[derive(Default)]
pub(crate) struct Filling {
    rows: Batch,
    bytes: usize,
}

impl Filling {
    /// Adds a row whose values have so many bytes; gives what is to be handed over.
    pub fn push(&mut self, row: Vec<Value>, bytes: usize) -> Option<Batch> {
        self.bytes += bytes + row.len() * size_of::<Value>();
        self.rows.push(row);
        if self.rows.len() < ROWS_OF_BATCH_MAX && self.bytes < BYTES_OF_BATCH_MAX {
            return None;
        }
        self.bytes = 0;
        Some(std::mem::take(&mut self.rows))
    }

    /// What is left behind the last row.
    pub fn rest(self) -> Option<Batch> {
        Some(self.rows).filter(|rows| !rows.is_empty())
    }
}

/// Refuses a row that is too large, before its values are copied.
pub(crate) fn check_row(bytes: usize) -> Result<(), EngineError> {
    if bytes <= BYTES_OF_ROW_MAX {
        return Ok(());
    }
    Err(EngineError::refused(
        format!("a row of the result has more than {} MiB", BYTES_OF_ROW_MAX >> 20),
        "read fewer columns at once, or a part of the text",
    ))
}

/// A result that is being read. Dropping it stops the query.
pub struct Rows {
    pub columns: Vec<Column>,
    /// As many as columns: of which table they are.
    pub origins: Vec<Option<Origin>>,
    batches: mpsc::Receiver<Result<Batch, EngineError>>,
    /// Called once, when nobody reads any more.
    stop: Option<Stop>,
    /// The last row was seen, or an error in its place.
    ended: bool,
}

pub(crate) type Stop = Box<dyn FnOnce() + Send + Sync>;

impl Rows {
    pub(crate) fn new(
        columns: Vec<Column>,
        batches: mpsc::Receiver<Result<Batch, EngineError>>,
        stop: Option<Stop>,
    ) -> Self {
        let origins = vec![None; columns.len()];
        Self { columns, origins, batches, stop, ended: false }
    }

    pub(crate) fn with_origins(mut self, origins: Vec<Option<Origin>>) -> Self {
        self.origins = origins;
        self
    }

    /// The next rows; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<Batch>, EngineError> {
        if self.ended {
            return Ok(None);
        }
        match self.batches.recv().await {
            Some(Ok(batch)) if !batch.is_empty() => Ok(Some(batch)),
            end => {
                self.ended = true;
                self.stop = None;
                match end {
                    Some(Ok(_)) => Ok(None),
                    Some(Err(error)) => Err(error),
                    None => Err(EngineError::Internal("the query ended before its last row".into())),
                }
            }
        }
    }

    /// All rows, of a result that is known to be small; more than `most` are an error.
    pub async fn all(mut self, most: usize) -> Result<Batch, EngineError> {
        let mut rows = Vec::new();
        while let Some(batch) = self.next().await? {
            rows.extend(batch);
            if rows.len() > most {
                return Err(EngineError::Stopped(format!("the result has more than {most} rows")));
            }
        }
        Ok(rows)
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.batches.close();
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

/// A value as MySQL prints it; `None` for NULL.
pub fn cell_text(value: &Value, column: &Column) -> Option<String> {
    let fsp = match column.ty {
        ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => fsp,
        _ => 0,
    };
    Some(match value {
        Value::Null => return None,
        Value::Int(v) => v.to_string(),
        Value::UInt(v) | Value::Bit(v) | Value::Set(v) => v.to_string(),
        Value::Year(v) => format!("{v:04}"),
        Value::Enum(v) => v.to_string(),
        Value::Float(v) => base::value::format_float(*v),
        Value::Double(v) => double_text(*v),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.clone(),
        Value::Date(v) => v.to_string(),
        Value::Time(v) => base::value::format_time(*v, fsp),
        Value::DateTime(v) => base::value::format_datetime(*v, fsp),
        Value::Timestamp(v) => base::value::format_timestamp(*v, fsp),
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("0x{hex}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_with_its_rows_or_with_its_bytes() {
        let mut filling = Filling::default();
        for _ in 1..ROWS_OF_BATCH_MAX {
            assert!(filling.push(vec![Value::Int(1)], 8).is_none());
        }
        assert_eq!(filling.push(vec![Value::Int(1)], 8).unwrap().len(), ROWS_OF_BATCH_MAX);
        assert!(filling.push(vec![Value::Null], BYTES_OF_BATCH_MAX / 2).is_none());
        assert_eq!(filling.push(vec![Value::Null], BYTES_OF_BATCH_MAX / 2).unwrap().len(), 2);
        assert_eq!(filling.push(vec![Value::Null], 64 << 20).unwrap().len(), 1);
        assert!(filling.push(vec![Value::Null], 1).is_none());
        assert_eq!(filling.rest().unwrap().len(), 1);
        check_row(BYTES_OF_ROW_MAX).unwrap();
        check_row(BYTES_OF_ROW_MAX + 1).unwrap_err();
    }

    #[tokio::test]
    async fn rows_end_only_with_their_mark() {
        let (sender, batches) = mpsc::channel(4);
        sender.send(Ok(vec![vec![Value::Int(1)]])).await.unwrap();
        sender.send(Ok(END)).await.unwrap();
        let mut rows = Rows::new(Vec::new(), batches, None);
        assert_eq!(rows.next().await.unwrap().unwrap().len(), 1);
        assert_eq!(rows.next().await.unwrap(), None);
        assert_eq!(rows.next().await.unwrap(), None);
        let (sender, batches) = mpsc::channel(4);
        sender.send(Ok(vec![vec![Value::Int(1)]])).await.unwrap();
        drop(sender);
        let error = Rows::new(Vec::new(), batches, None).all(10).await.unwrap_err();
        assert!(error.to_string().contains("before its last row"), "{error}");
    }
}
