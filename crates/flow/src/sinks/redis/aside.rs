//! One key of a flow, for who reads through the cache: what is there, and a fill that never wins over a change.
//!
//! A look that finds nothing takes a lease, `tidemill:asked:KEY`, and in the same run reads the flow's progress P. Only then
//! is the source read. The fill is written if the lease is still there, with P as its version. Why that is right:
//!
//! - Every change up to P was committed before the source is read, and is seen (`Origin::settled_row`). So the fill is
//!   not older than what was delivered before the look.
//! - A change behind P that is delivered before the fill ends the lease in the run that writes it: an insert, an update, a
//!   delete, and TRUNCATE, DROP and RENAME, since the key is in the table's list while it is leased. The fill is not written;
//!   whether the row or its tombstone is still there then does not matter.
//! - A change behind P that is delivered after the fill has a greater version, and overwrites it.
//! - FLUSHALL takes lease and progress; without progress there is no fill. A server that comes back from an older file has
//!   an older progress too, and the changes behind it come again.
//! - That there is no row is kept in the lease's place, so every change of the key ends it as well.
//!
//! Of two nodes that ask, one has the lease; the other answers what it reads and fills nothing.

use super::plan::{Image, VERSION_FIELD, tombstone, version};
use super::{failure, parse_progress, server};
use crate::deliver::sink::SinkError;
use base::Secret;
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value, from_redis_value};
use std::collections::BTreeMap;

const SCRIPT: &str = include_str!("aside.lua");
/// Longer than a read of the source may take.
pub const LEASE_MS: u64 = 15_000;
/// How long it is remembered that a row is not there.
pub const ABSENT_MS: u64 = 30_000;

/// A row's key, and all that belongs to it.
#[derive(Clone)]
pub struct Place {
    pub row: Vec<u8>,
    pub list: Vec<u8>,
    pub progress: Vec<u8>,
    pub is_hash: bool,
    pub ttl_seconds: u64,
}

/// What stands at a key.
pub enum Found {
    /// A row, and the version it carries.
    Row(Image, Option<String>),
    /// The source had none at this version.
    Absent(String),
    /// Nothing, and someone else is about to fill it.
    Leased,
    /// Nothing; it is ours to fill.
    Lease(Lease),
}

pub struct Lease {
    token: String,
    /// The progress of the flow: the journal, and the version of all that it has delivered. `None` where Redis knows of none.
    pub progress: Option<(u64, String)>,
}

/// How a lease ends.
pub enum Outcome<'a> {
    Row(&'a Image),
    Absent,
    /// It is not filled.
    Nothing,
}

/// A connection to the server that has the flow's progress.
pub async fn connect(url: &Secret, progress_key: &[u8]) -> Result<MultiplexedConnection, SinkError> {
    server::connection(url, progress_key).await.map_err(|error| failure::sort(&error))
}

fn asked(row: &[u8]) -> Vec<u8> {
    [b"tidemill:asked:", row].concat()
}

fn kind(place: &Place) -> &'static str {
    if place.is_hash { "h" } else { "j" }
}

pub async fn look(
    connection: &mut MultiplexedConnection,
    place: &Place,
    token: String,
) -> Result<Found, SinkError> {
    let answer: RedisResult<Vec<Value>> = redis::cmd("EVAL")
        .arg(SCRIPT)
        .arg(4)
        .arg(&place.row)
        .arg(asked(&place.row))
        .arg(&place.list)
        .arg(&place.progress)
        .arg("look")
        .arg(kind(place))
        .arg(&token)
        .arg(LEASE_MS)
        .query_async(connection)
        .await;
    let found = answer.and_then(|answer| {
        let mut parts = answer.into_iter();
        let word: String = from_redis_value(parts.next().unwrap_or(Value::Nil))?;
        let rest = parts.next().unwrap_or(Value::Nil);
        Ok(match word.as_str() {
            "row" if place.is_hash => {
                let fields: BTreeMap<Vec<u8>, Vec<u8>> = from_redis_value(rest)?;
                let fields = fields
                    .into_iter()
                    .map(|(name, text)| (String::from_utf8_lossy(&name).into_owned(), text));
                let mut fields: BTreeMap<String, Vec<u8>> = fields.collect();
                let version = fields.remove(VERSION_FIELD);
                let version = version.map(|version| String::from_utf8_lossy(&version).into_owned());
                Found::Row(Image::Hash(fields), version)
            }
            "row" => Found::Row(Image::Json(from_redis_value(rest)?), None),
            "absent" => Found::Absent(from_redis_value(rest)?),
            "leased" => Found::Leased,
            _ => {
                let text: String = from_redis_value(rest)?;
                let progress = parse_progress(&text).map(|told| {
                    let progress = told.standing.progress;
                    (told.standing.journal, version(told.past_epochs, progress.epoch, progress.lsn))
                });
                Found::Lease(Lease { token, progress })
            }
        })
    });
    found.map_err(|error| failure::sort(&error))
}

/// Ends a lease. Answers whether it was still there: nothing was delivered for the key since the look.
pub async fn end(
    connection: &mut MultiplexedConnection,
    place: &Place,
    lease: &Lease,
    outcome: Outcome<'_>,
) -> Result<bool, SinkError> {
    let version = lease.progress.as_ref().map_or("", |(_, version)| version.as_str());
    let word = match &outcome {
        Outcome::Row(_) => "row",
        Outcome::Absent => "absent",
        Outcome::Nothing => "nothing",
    };
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(4).arg(&place.row).arg(asked(&place.row)).arg(&place.list);
    command.arg(tombstone(&place.row)).arg("end").arg(kind(place)).arg(&lease.token);
    command.arg(place.ttl_seconds).arg(ABSENT_MS).arg(version).arg(word);
    match outcome {
        Outcome::Row(Image::Hash(fields)) => {
            command.arg(VERSION_FIELD).arg(version);
            for (name, text) in fields {
                command.arg(name).arg(text.as_slice());
            }
        }
        Outcome::Row(Image::Json(text)) => {
            let mut value = format!("{{\"{VERSION_FIELD}\":\"{version}\",").into_bytes();
            value.extend_from_slice(&text[1..]);
            command.arg(value);
        }
        Outcome::Absent | Outcome::Nothing => {}
    }
    let answer: RedisResult<String> = command.query_async(connection).await;
    answer.map(|word| word == "held").map_err(|error| failure::sort(&error))
}
