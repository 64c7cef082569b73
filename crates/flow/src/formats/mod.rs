//! The shapes a change can leave in. Each encoder is a pure function of a change and its table: no clock, no state, so
//! that a repeat is the same bytes.
//!
//! A change makes no message, one, or several: a delete in `debezium` is two. [`Encoder::messages`] gives them to sinks with
//! keys and topics; [`Encoder::lines`] writes them one a line.

pub mod avro;
mod canal;
mod cloudevents;
mod debezium;
mod debezium_schema;
pub mod decode;
pub mod json;
mod maxwell;
mod record;
pub mod s3event;

pub use record::{EventPlace, Record};

use base::json::put_string;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shape of a change.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Our own.
    #[default]
    Json,
    /// Debezium's envelope with its default encodings.
    Debezium,
    /// Maxwell's row messages.
    Maxwell,
    /// Canal's flat message.
    Canal,
    /// CloudEvents 1.0, structured, around our own.
    CloudEvents,
    /// Bucket notifications, as object stores send them: a row is an object. Without the row's values.
    S3Event,
    /// Debezium's envelope in Avro, with its schemas in a registry. For topics of Kafka only.
    Avro,
}

impl Format {
    /// Those that are text, and hold rows.
    pub const TEXTS: [Self; 5] = [Self::Json, Self::Debezium, Self::Maxwell, Self::Canal, Self::CloudEvents];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Debezium => "debezium",
            Self::Maxwell => "maxwell",
            Self::Canal => "canal",
            Self::CloudEvents => "cloudevents",
            Self::S3Event => "s3event",
            Self::Avro => "avro",
        }
    }

    /// One that is text.
    pub fn parse_text(name: &str) -> Option<Self> {
        Self::TEXTS.into_iter().find(|format| format.name() == name)
    }

    /// Whether a message is a line of text.
    pub const fn is_text(self) -> bool {
        !matches!(self, Self::Avro)
    }

    /// Whether a delete is two messages, of which the second is a tombstone.
    pub const fn has_tombstones(self) -> bool {
        matches!(self, Self::Debezium | Self::Avro)
    }

    /// Whether each message names its epoch and lsn, so that a reader can tell a repeat.
    pub const fn tells_lsn(self) -> bool {
        matches!(self, Self::Json | Self::CloudEvents)
    }
}

/// One message of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `<source>.<db>.<table>`.
    pub topic: String,
    /// What orders and compacts; `None` for a table without a key.
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone: nothing is left of the key.
    pub value: Option<Vec<u8>>,
}

/// Writes the changes of one source in one format; `avro`, which needs the ids of its schemas, is in [`avro`].
#[derive(Clone, Debug)]
pub struct Encoder {
    pub format: Format,
    source: String,
    /// `debezium`: each key and value carries its schema.
    schemas: bool,
}

impl Encoder {
    pub fn new(format: Format, source: &str, schemas: bool) -> Self {
        Self { format, source: source.to_owned(), schemas }
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The messages of a change, in order. None when the format has no word for it.
    pub fn messages(&self, record: &Record<'_>) -> Vec<Message> {
        if self.format == Format::Debezium {
            return debezium::messages(&self.source, record, self.schemas);
        }
        let mut value = Vec::new();
        if !self.encode(record, &mut value) {
            return Vec::new();
        }
        vec![Message { topic: self.topic(record), key: self.key(record), value: Some(value) }]
    }

    /// Appends the one message of a change; false, and nothing, when the format has no word for it. Not for `debezium`.
    pub fn encode(&self, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
        match self.format {
            Format::Json => json::put(out, &self.source, record),
            Format::Maxwell => return maxwell::put(out, record),
            Format::Canal => canal::put(out, record),
            Format::CloudEvents => cloudevents::put(out, &self.source, record),
            Format::S3Event => return s3event::put(out, &self.source, record),
            Format::Debezium => unreachable!("a change in `debezium` is several messages"),
            Format::Avro => unreachable!("a message in `avro` has the ids of its schemas"),
        }
        true
    }

    /// The key of a change that is one message.
    pub fn key(&self, record: &Record<'_>) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        match self.format {
            Format::Maxwell => maxwell::put_key(&mut key, record),
            _ => json::put_key(&mut key, record),
        }
        (key != b"null").then_some(key)
    }

    fn topic(&self, record: &Record<'_>) -> String {
        topic(&self.source, record)
    }

    /// Appends the messages of a change, one a line; `debezium` as `{"topic","key","value"}`.
    pub fn lines(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        if self.format != Format::Debezium {
            if self.encode(record, out) {
                out.push(b'\n');
            }
            return;
        }
        for message in self.messages(record) {
            out.extend_from_slice(b"{\"topic\":");
            put_string(out, &message.topic);
            for (name, part) in [("key", &message.key), ("value", &message.value)] {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                out.extend_from_slice(part.as_deref().unwrap_or(b"null"));
            }
            out.extend_from_slice(b"}\n");
        }
    }
}

fn topic(source: &str, record: &Record<'_>) -> String {
    format!("{source}.{}.{}", record.table.name.db, record.table.name.table)
}

/// Appends `,` unless this is the first member.
fn comma(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::take(first) {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests;
