//! From the messages of other systems, and our own, back to rows: the inverse of the encoders beside this folder.
//!
//! A message is decoded in two steps, because its values cannot be read before their columns are known: [`decode`] tells
//! tables, keys and the text of each value, and what the message says about types; [`value::decode`] reads one value as its
//! column has it.

mod canal;
pub mod cells;
pub mod connect;
mod debezium;
mod maxwell;
mod own;
mod plain;
mod scan;
mod text;
pub mod ticdc;
pub mod types;
pub mod value;

use base::{Op, TableName};
use cells::{Cells, Raw};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;
use value::Wire;

/// The shape of the messages that are read.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageFormat {
    /// Our own.
    #[default]
    Json,
    /// Debezium's envelope in JSON, with or without its schema.
    Debezium,
    /// Maxwell's row messages.
    Maxwell,
    /// Debezium's envelope in Avro, with its schemas in a registry. For topics of Kafka only.
    Avro,
    /// Canal's flat messages.
    Canal,
    /// Each message is a row as it is now, a JSON object; one without a value deletes the row of its key. Tables go by the
    /// topic's name: its last two parts between dots, or the source's name and the topic.
    Plain,
    /// TiCDC's simple protocol in JSON. This and the next two are for topics of Kafka that one changefeed of TiDB fills: their
    /// messages are put in the order of their commits, whichever partitions they come by.
    #[serde(rename = "ticdc-simple")]
    TicdcSimple,
    /// TiCDC's Canal-JSON, with `enable-tidb-extension=true`.
    #[serde(rename = "ticdc-canal-json")]
    TicdcCanalJson,
    /// TiCDC's open protocol.
    #[serde(rename = "ticdc-open")]
    TicdcOpen,
}

impl MessageFormat {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Debezium => "debezium",
            Self::Avro => "avro",
            Self::Maxwell => "maxwell",
            Self::Canal => "canal",
            Self::Plain => "plain",
            Self::TicdcSimple => "ticdc-simple",
            Self::TicdcCanalJson => "ticdc-canal-json",
            Self::TicdcOpen => "ticdc-open",
        }
    }

    /// Which of TiCDC's protocols it is.
    pub const fn ticdc(self) -> Option<ticdc::Protocol> {
        match self {
            Self::TicdcSimple => Some(ticdc::Protocol::Simple),
            Self::TicdcCanalJson => Some(ticdc::Protocol::CanalJson),
            Self::TicdcOpen => Some(ticdc::Protocol::Open),
            _ => None,
        }
    }

    /// How it writes the values of a column that no schema describes.
    pub fn wire(self, ty: &base::ColumnType) -> Wire {
        match self {
            Self::Debezium | Self::Avro => Wire::debezium(ty),
            Self::Canal | Self::TicdcSimple | Self::TicdcCanalJson | Self::TicdcOpen => Wire::Canal,
            Self::Json | Self::Maxwell | Self::Plain => Wire::Json,
        }
    }
}

/// A message as the broker has it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The source's name, the first part of a table's where the topic has one part only.
    pub source: &'a str,
    pub topic: &'a str,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// One change of a message.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    pub name: TableName,
    pub op: Op,
    pub before: Option<Cells<'a>>,
    pub after: Option<Cells<'a>>,
    /// The names of the key's columns; `None` when the message does not tell.
    pub key: Option<Vec<Cow<'a, str>>>,
    pub told: Told<'a>,
    /// Commit time in milliseconds since 1970, where the message knows it.
    pub ts_ms: Option<i64>,
    /// The transaction, where the message names it.
    pub txn: Option<String>,
    /// Whether the message says that its transaction ends here.
    pub last: bool,
}

/// What a message tells about the types of its columns.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    Nothing,
    /// An object of MySQL's type texts.
    Mysql(Raw<'a>),
    /// A struct's schema of Kafka Connect.
    Connect(Raw<'a>),
}

/// The changes of one message: none for what holds no row, such as a tombstone. `Err` says what is wrong with it. One in
/// `avro` comes as [`super::avro::decode`] tells it.
pub fn decode<'a>(format: MessageFormat, message: Incoming<'a>) -> Result<Vec<Decoded<'a>>, String> {
    Schemas::default().decode(format, message)
}

/// Schemas that messages had lately: each message repeats its own, and most of it is that.
#[derive(Debug, Default)]
pub struct Schemas(Vec<Schema>);

/// Schemas that are kept: of the keys and values of a few tables.
const SCHEMAS_MAX: usize = 16;
/// A schema that is longer is not kept.
const SCHEMA_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
struct Schema {
    /// A whole JSON object.
    text: String,
    /// Where in it the schema of a row is, if it is one of an envelope.
    row: Option<Range<usize>>,
}

impl AsRef<str> for Schema {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl Schemas {
    /// As [`decode`], for who reads many messages.
    pub fn decode<'a>(
        &mut self,
        format: MessageFormat,
        message: Incoming<'a>,
    ) -> Result<Vec<Decoded<'a>>, String> {
        if format == MessageFormat::Plain {
            return plain::decode(message, self).map(|decoded| decoded.into_iter().collect());
        }
        let Some(value) = message.value else { return Ok(Vec::new()) };
        let value = cells::parse_knowing(value, "value", &self.0)?;
        decode_cells(format, message, value, self)
    }

    /// The schema of a row in that of an envelope.
    fn row_of<'a>(&mut self, envelope: Raw<'a>) -> Option<Raw<'a>> {
        let text = envelope.get();
        let row = match self.0.iter().find(|known| known.text == text) {
            Some(known) => known.row.clone(),
            None => {
                let row = connect::row_schema(envelope).map(|row| row.get());
                let row =
                    row.map(|row| row.as_ptr() as usize - text.as_ptr() as usize).zip(row.map(str::len));
                let row = row.map(|(from, length)| from..from + length);
                self.keep(envelope, row.clone());
                row
            }
        };
        row.and_then(|row| text.get(row)).map(Raw::trusted)
    }

    /// One that messages will have again.
    fn note(&mut self, schema: Raw<'_>) {
        if self.0.iter().all(|known| known.text != schema.get()) {
            self.keep(schema, None);
        }
    }

    fn keep(&mut self, schema: Raw<'_>, row: Option<Range<usize>>) {
        let text = schema.get();
        if text.starts_with('{') && text.len() <= SCHEMA_BYTES_MAX {
            if self.0.len() == SCHEMAS_MAX {
                self.0.remove(0);
            }
            self.0.push(Schema { text: text.to_owned(), row });
        }
    }
}

fn decode_cells<'a>(
    format: MessageFormat,
    message: Incoming<'a>,
    value: Cells<'a>,
    schemas: &mut Schemas,
) -> Result<Vec<Decoded<'a>>, String> {
    match format {
        MessageFormat::Json => own::decode(&value).map(|decoded| decoded.into_iter().collect()),
        MessageFormat::Debezium | MessageFormat::Avro => {
            debezium::decode(message.key, value, schemas).map(|one| one.into_iter().collect())
        }
        MessageFormat::Maxwell => maxwell::decode(message.key, &value).map(|one| one.into_iter().collect()),
        MessageFormat::Canal => canal::decode(&value),
        MessageFormat::Plain => Ok(Vec::new()),
        // What they hold is in the order of commits, which one message does not know: [`ticdc`] reads them.
        MessageFormat::TicdcSimple | MessageFormat::TicdcCanalJson | MessageFormat::TicdcOpen => {
            Err("messages of TiCDC are read by a source of `kind: kafka` alone".into())
        }
    }
}

/// The table that a message names by these members.
fn table_name(message: &Cells<'_>, db: &str, table: &str) -> Result<TableName, String> {
    let part = |name: &str| {
        let text = cells::text(message, name).filter(|text| !text.is_empty());
        text.map(std::borrow::Cow::into_owned).ok_or_else(|| format!("it has no `{name}`"))
    };
    Ok(TableName { db: part(db)?, table: part(table)? })
}

#[cfg(test)]
mod tests;
