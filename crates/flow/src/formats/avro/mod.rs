//! Debezium's envelope in Avro, as Confluent's converter writes it: each key and value begins with the number that a schema
//! registry gave to its schema.
//!
//! ```text
//! message = 0:u8 schema_id:u32 record        big end first; the record is Avro's binary encoding
//! ```
//!
//! Everything here is pure: who sends has asked the registry before, once for each definition of a table.

mod decode;
mod encode;
mod name;
mod reader;
mod schema;

pub use decode::{decode, payload};
pub use encode::messages;
pub use name::keeps_names;
pub use reader::Reader;
pub use schema::{Schemas, schemas};

const MAGIC: u8 = 0;
const HEAD_BYTES: usize = 5;

/// What the registry calls the schemas of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// `None` for a table without a key.
    pub key: Option<u32>,
    pub value: u32,
}

fn put_head(out: &mut Vec<u8>, id: u32) {
    out.push(MAGIC);
    out.extend_from_slice(&id.to_be_bytes());
}

/// The schema's id, and the record behind it; `None` when it does not begin as a message with a schema does.
pub fn head(message: &[u8]) -> Option<(u32, &[u8])> {
    let (head, record) = message.split_at_checked(HEAD_BYTES)?;
    let id = head.strip_prefix(&[MAGIC])?;
    Some((u32::from_be_bytes(id.try_into().ok()?), record))
}

#[cfg(test)]
mod tests;
