//! What is published of a change: subject, headers, payload. Pure, but for what it remembers of tables.

use crate::config::FlowConfig;
use crate::deliver::sink::OutChange;
use crate::formats::{Encoder, Record};
use crate::sinks::json::reference;
use crate::subscribe::broker::{SHAPE_BYTES_MAX, Tokens};
use async_nats::HeaderMap;

/// Room for headers within the server's largest message, besides a shape.
const HEADER_ROOM: usize = 1024;
/// The longest transaction id that is told; those of MySQL have 57 bytes at most.
const TXN_BYTES_MAX: usize = 256;

/// The subject unless the flow's options say otherwise.
pub const SUBJECT_DEFAULT: &str = "tidemill.{source}.{db}.{table}";

pub struct Messages {
    source: String,
    encoder: Encoder,
    subject: String,
    pub tokens: Tokens,
}

impl Messages {
    pub fn new(source: &str, config: &FlowConfig) -> Self {
        Self {
            source: source.to_owned(),
            encoder: Encoder::new(config.options.format, source, false),
            subject: config.options.subject.clone().unwrap_or_else(|| SUBJECT_DEFAULT.into()),
            tokens: Tokens::new(source, config),
        }
    }

    /// The subjects of all messages: the template with every name a wildcard.
    pub fn filter(&self) -> String {
        self.subject
            .replace("{source}", &token(&self.source))
            .split('.')
            .map(|part| if part.contains('{') { "*" } else { part })
            .collect::<Vec<_>>()
            .join(".")
    }

    fn subject_of(&self, change: &OutChange) -> String {
        self.subject
            .replace("{source}", &token(&self.source))
            .replace("{db}", &token(&change.table.name.db))
            .replace("{table}", &token(&change.table.name.table))
    }

    /// `None` when the flow's format has no word for the change. One that was parked comes late: a copy that has it lacks
    /// nothing more than before, and is no further.
    pub fn of(
        &mut self,
        change: &OutChange,
        journal: u64,
        payload_max: usize,
        parked: bool,
    ) -> Option<(String, HeaderMap, Vec<u8>)> {
        let mut payload = Vec::with_capacity(256);
        if !self.encoder.encode(&Record::of_out(change), &mut payload) {
            return None;
        }
        let place = if parked { Err("the change was parked") } else { self.tokens.behind(change, journal) };
        let room = HEADER_ROOM + place.as_ref().map_or(0, |place| place.shape.len().min(SHAPE_BYTES_MAX));
        if payload.len() + room > payload_max {
            payload = reference(&self.source, change, payload.len());
        }
        let mut headers = HeaderMap::new();
        // Never the same for two changes, also of two journals of one source.
        let id = format!("{}:{journal:016x}:{}:{}", self.source, change.epoch, change.lsn);
        headers.insert("Nats-Msg-Id", id.as_str());
        headers.insert("Tidemill-Journal", format!("{journal:016x}").as_str());
        headers.insert("Tidemill-Epoch", change.epoch.to_string().as_str());
        headers.insert("Tidemill-Lsn", change.lsn.to_string().as_str());
        headers.insert("Tidemill-Op", change.op.name());
        if let Some(txn) = change.txn.as_ref().filter(|txn| txn.id.len() <= TXN_BYTES_MAX) {
            headers.insert("Tidemill-Txn", &*txn.id);
            headers.insert("Tidemill-Txn-Index", txn.index.to_string().as_str());
            headers.insert("Tidemill-Txn-Last", if txn.last { "true" } else { "false" });
        }
        match place {
            Ok(place) => {
                headers.insert("Tidemill-Token", place.token.as_str());
                headers.insert("Tidemill-Shape", &*place.shape);
            }
            Err(why) => headers.insert("Tidemill-No-Token", why),
        }
        Some((self.subject_of(change), headers, payload))
    }
}

/// A name as one subject token: what NATS reads as structure becomes `_`.
fn token(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_whitespace() || ".*>".contains(c) || c.is_control() { '_' } else { c })
        .collect()
}
