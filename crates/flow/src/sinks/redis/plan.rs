//! What a flow's options and a table make of its changes: keys, members, messages. Pure: nothing is sent here.

use super::chunk::Chunk;
use super::value;
use crate::config::{FlowOptions, RedisType};
use crate::deliver::sink::{OutChange, SinkError};
use crate::formats::{Encoder, Record};
use crate::sinks::json::{key_text, put_row};
use crate::sinks::template::{Bound, Template};
use base::{Op, Secret, Table, TableName, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The field of a hash, and the first member of a JSON value, that holds a row's version.
pub const VERSION_FIELD: &str = "tidemill_version";
/// Hashes and JSON strings: one key a row.
pub const ROW_KEY_DEFAULT: &str = "{db}:{table}:{key}";
/// Sets, sorted sets, streams and channels: one a table.
pub const TABLE_KEY_DEFAULT: &str = "{db}:{table}";
/// The member of a set or sorted set.
pub const MEMBER_DEFAULT: &str = "{key}";
/// An id of a stream is epoch and lsn, which has this many digits: ten million million changes.
const ID_LSN_DIGITS: usize = 13;

/// A flow's options, understood.
pub struct Options {
    pub kind: RedisType,
    pub key: Template,
    member: Template,
    score: Option<String>,
    /// 0: rows live for ever.
    pub ttl_seconds: u64,
    maxlen: Option<u64>,
}

impl Options {
    /// The message and the hint of the first mistake.
    pub fn compile(options: &FlowOptions) -> Result<Self, (String, String)> {
        let kind = options.r#type.unwrap_or_default();
        let row = matches!(kind, RedisType::Hash | RedisType::Json);
        let set = matches!(kind, RedisType::Set | RedisType::Zset);
        let default = if row { ROW_KEY_DEFAULT } else { TABLE_KEY_DEFAULT };
        let template = |name: &str, text: &str| {
            Template::compile(text).map_err(|reason| {
                let hint = format!("for example: options: {{{name}: \"{ROW_KEY_DEFAULT}\"}}");
                (format!("`{name}` {reason}"), hint)
            })
        };
        let key = template("key", options.key.as_deref().unwrap_or(default))?;
        let member = template("member", options.member.as_deref().unwrap_or(MEMBER_DEFAULT))?;
        let (given, stray) = match kind {
            _ if row && !key.has_values() => (false, "`key` is the same for all rows of a table"),
            RedisType::Stream | RedisType::Pubsub if key.has_values() => {
                (false, "`key` names a column, and a stream or channel is one for a table")
            }
            _ if set && !member.has_values() => (false, "`member` is the same for all rows of a table"),
            RedisType::Zset if options.score.is_none() => (false, "`type` zset needs a `score`"),
            _ if options.score.is_some() && kind != RedisType::Zset => (false, "`score` is for `type` zset"),
            _ if options.member.is_some() && !set => (false, "`member` is for `type` set and zset"),
            _ if options.ttl.is_some() && !row => (false, "`ttl` is for `type` hash and json"),
            _ if options.ttl.is_some_and(|ttl| ttl.0.as_secs() == 0) => {
                (false, "`ttl` is less than a second")
            }
            _ if options.maxlen.is_some() && kind != RedisType::Stream => {
                (false, "`maxlen` is for `type` stream")
            }
            _ => (true, ""),
        };
        if !given {
            return Err((stray.to_owned(), "see docs/guides/redis.md for what each type takes".into()));
        }
        Ok(Self {
            kind,
            key,
            member,
            score: options.score.clone(),
            ttl_seconds: options.ttl.map_or(0, |ttl| ttl.0.as_secs()),
            maxlen: options.maxlen,
        })
    }

    /// In a cluster all keys of a flow must be in one slot. The message and the hint when they are not.
    pub fn check_cluster(&self, url: &Secret) -> Result<(), (String, String)> {
        if !super::server::is_cluster(url) || self.kind == RedisType::Pubsub || self.key.hash_tag().is_some()
        {
            return Ok(());
        }
        let message = format!(
            "the template `{}` has no hash tag, and the keys of a flow must be in one slot of the cluster",
            self.key.text()
        );
        Err((message, "begin it with one: options: {key: \"{{shop}}:{db}:{table}:{key}\"}".into()))
    }

    /// Where the progress of a flow is.
    pub fn progress_key(&self, flow: &str) -> String {
        format!("{}progress:{flow}", self.own_prefix())
    }

    /// The list of a table's keys.
    pub fn list_key(&self, flow: &str, name: &TableName) -> Vec<u8> {
        format!("{}keys:{flow}:{name}", self.own_prefix()).into_bytes()
    }

    fn own_prefix(&self) -> String {
        self.key.hash_tag().map_or("tidemill:".to_owned(), |tag| format!("tidemill:{{{tag}}}:"))
    }

    /// Whether rows are kept, which end with their table and move with its name.
    pub fn holds_rows(&self) -> bool {
        !matches!(self.kind, RedisType::Stream | RedisType::Pubsub)
    }
}

/// A row as it is written, without its version.
pub enum Image {
    /// The fields of a hash.
    Hash(BTreeMap<String, Vec<u8>>),
    /// A JSON object.
    Json(Vec<u8>),
}

/// The fields of a row's hash. NULL has none.
fn fields_of<'a>(table: &'a Table, row: &'a [Value]) -> impl Iterator<Item = (&'a str, Vec<u8>)> {
    let cells = table.columns.iter().zip(row);
    cells.filter_map(|(column, value)| Some((column.name.as_str(), value::text(value, column)?.into_owned())))
}

/// Where the rows of one table go.
pub struct Plan {
    pub key: Bound,
    member: Option<Bound>,
    score: Option<usize>,
    /// The sorted set with every key, or member, of the table.
    pub list: Vec<u8>,
}

/// Where one row goes.
#[derive(PartialEq, Eq)]
struct Place {
    key: Vec<u8>,
    member: Vec<u8>,
}

/// What all changes of a batch share.
pub struct Context<'a> {
    pub options: &'a Options,
    pub source: &'a str,
    pub encoder: &'a Encoder,
    /// Added to each epoch: see [`version`].
    pub past_epochs: u64,
    /// Whether changes come late, behind newer ones.
    pub late: bool,
}

/// Fixed width, so that the order of text is the order of changes. Epochs count on over journals.
pub fn version(past_epochs: u64, epoch: u32, lsn: u64) -> String {
    format!("{:010}.{lsn:020}", past_epochs + u64::from(epoch))
}

/// A member in the list of a table's keys: it must be told from the key of its set again.
fn member_entry(key: &[u8], member: &[u8]) -> Vec<u8> {
    [key.len().to_string().as_bytes(), b":", key, member].concat()
}

/// The set and the member of an entry.
fn parse_entry(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = entry.iter().position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(&entry[..colon]).ok()?.parse().ok()?;
    entry[colon + 1..].split_at_checked(length)
}

pub fn tombstone(key: &[u8]) -> Vec<u8> {
    [b"tidemill:deleted:", key].concat()
}

impl Plan {
    pub fn new(options: &Options, flow: &str, source: &str, table: &Table) -> Result<Self, SinkError> {
        let bind = |template: &Template| {
            template.bind(source, table).map_err(|reason| SinkError::Blocked {
                message: format!("the template `{}` {reason}", template.text()),
                hint: "change `options` of the flow, or leave the table out with `tables`".into(),
            })
        };
        if options.holds_rows() && table.column_index(VERSION_FIELD).is_some() {
            return Err(SinkError::Blocked {
                message: format!("`{}` has a column `{VERSION_FIELD}`, which is ours", table.name),
                hint: "give it another name: transform: [{rename: {tidemill_version: version}}]".into(),
            });
        }
        let set = matches!(options.kind, RedisType::Set | RedisType::Zset);
        let score = match &options.score {
            None => None,
            Some(name) => Some(table.column_index(name).ok_or_else(|| SinkError::Blocked {
                message: format!("`score` names `{name}`, which `{}` lacks", table.name),
                hint: "name a column of every table of the flow, or leave the table out with `tables`".into(),
            })?),
        };
        Ok(Self {
            key: bind(&options.key)?,
            member: if set { Some(bind(&options.member)?) } else { None },
            score,
            list: options.list_key(flow, &table.name),
        })
    }

    fn place(&self, table: &Table, row: Option<&Vec<Value>>) -> Option<Place> {
        let row = row?;
        let key = self.key.render(table, row, value::text)?;
        let member = match &self.member {
            Some(member) => member.render(table, row, value::text)?,
            None => Vec::new(),
        };
        // A row without a score is in no sorted set.
        if self.score.is_some_and(|index| row[index].is_null()) {
            return None;
        }
        Some(Place { key, member })
    }

    /// A row's key and what stands there, for who compares; `None` when a column of the key is NULL. For hashes and JSON.
    pub fn image(&self, kind: RedisType, table: &Table, row: &[Value]) -> Option<(Vec<u8>, Image)> {
        let key = self.key.render(table, row, value::text)?;
        if kind == RedisType::Hash {
            let fields = fields_of(table, row).map(|(name, text)| (name.to_owned(), text));
            return Some((key, Image::Hash(fields.collect())));
        }
        let mut json = Vec::new();
        put_row(&mut json, table, row);
        Some((key, Image::Json(json)))
    }

    /// Adds what a change of a row does.
    pub fn put(&self, chunk: &mut Chunk, context: &Context<'_>, change: &OutChange) -> Result<(), SinkError> {
        let refused = |reason: String| SinkError::Row { lsn: change.lsn, reason };
        let table = &change.table;
        let version = version(context.past_epochs, change.epoch, change.lsn);
        let old = self.place(table, change.before.as_ref());
        let new = self.place(table, change.after.as_ref());
        if let Some(old) = old.filter(|old| new.as_ref() != Some(old)) {
            self.put_end(chunk, context, change.lsn, &version, old);
        }
        let Some(row) = &change.after else { return Ok(()) };
        let kind = context.options.kind;
        let Some(Place { key, member }) = new else {
            return match kind {
                RedisType::Hash | RedisType::Json => {
                    Err(refused(format!("a column of the key `{}` is NULL", context.options.key.text())))
                }
                _ => Ok(()),
            };
        };
        match kind {
            RedisType::Hash => {
                let keys = vec![key.clone(), tombstone(&key), self.list.clone()];
                let mut fields = vec![VERSION_FIELD.into(), version.clone().into_bytes()];
                fields.extend(fields_of(table, row).flat_map(|(name, text)| [name.into(), text]));
                let mut args = vec![version.into_bytes(), fields.len().to_string().into_bytes()];
                args.extend(fields);
                chunk.put(change.lsn, b"h", keys, args);
            }
            RedisType::Json => {
                let mut value = format!("{{\"{VERSION_FIELD}\":\"{version}\",").into_bytes();
                let mut members = Vec::new();
                put_row(&mut members, table, row);
                value.extend_from_slice(&members[1..]);
                let keys = vec![key.clone(), tombstone(&key), self.list.clone()];
                chunk.put(change.lsn, b"j", keys, vec![version.into_bytes(), value]);
            }
            RedisType::Set | RedisType::Zset => {
                let entry = member_entry(&key, &member);
                let keys = vec![key, self.list.clone()];
                let mut args = vec![member, entry];
                if let Some(index) = self.score {
                    let score = value::score(&row[index]).ok_or_else(|| {
                        refused(format!("the score `{}` is no number", table.columns[index].name))
                    })?;
                    args.push(score.into_bytes());
                }
                chunk.put(change.lsn, if kind == RedisType::Set { b"s" } else { b"z" }, keys, args);
            }
            RedisType::Stream | RedisType::Pubsub => unreachable!("messages have a function of their own"),
        }
        Ok(())
    }

    /// The end of a row's key or member.
    fn put_end(&self, chunk: &mut Chunk, context: &Context<'_>, lsn: u64, version: &str, place: Place) {
        let Place { key, member } = place;
        match context.options.kind {
            RedisType::Hash | RedisType::Json => {
                let keys = vec![key.clone(), tombstone(&key), self.list.clone()];
                let kind = if context.options.kind == RedisType::Hash { b"h" } else { b"j" };
                chunk.put(lsn, b"d", keys, vec![kind.to_vec(), version.as_bytes().to_vec()]);
            }
            kind => {
                let command = if kind == RedisType::Set { "SREM" } else { "ZREM" };
                let entry = member_entry(&key, &member);
                let keys = vec![key, self.list.clone()];
                chunk.put(lsn, b"r", keys, vec![command.into(), member, entry]);
            }
        }
    }

    /// Adds the message of a change, if the format has a word for it.
    pub fn put_message(&self, chunk: &mut Chunk, context: &Context<'_>, change: &OutChange) {
        let mut message = Vec::with_capacity(256);
        if !context.encoder.encode(&Record::of_out(change), &mut message) {
            return;
        }
        let name = self.key.prefix.clone();
        if context.options.kind == RedisType::Pubsub {
            return chunk.put(change.lsn, b"p", vec![], vec![name, message]);
        }
        let epoch = context.past_epochs + u64::from(change.epoch);
        let id = format!("{epoch}{:0width$}", change.lsn, width = ID_LSN_DIGITS);
        let late = if context.late { "1" } else { "0" };
        let longest = context.options.maxlen.map_or_else(String::new, |maxlen| maxlen.to_string());
        let mut fields: Vec<Vec<u8>> = vec!["op".into(), change.op.name().into()];
        if let Some(key) = key_text(change) {
            fields.extend([b"key".to_vec(), key.into_bytes()]);
        }
        fields.extend([b"change".to_vec(), message]);
        let mut args: Vec<Vec<u8>> = vec![id.into(), late.into(), longest.into()];
        args.push(fields.len().to_string().into_bytes());
        args.extend(fields);
        chunk.put(change.lsn, b"x", vec![name], args);
    }

    /// Ends one entry of the table's list.
    pub fn put_entry_end(
        &self,
        chunk: &mut Chunk,
        context: &Context<'_>,
        change: &OutChange,
        entry: Vec<u8>,
    ) {
        let version = version(context.past_epochs, change.epoch, change.lsn);
        let place = match context.options.kind {
            RedisType::Hash | RedisType::Json => Place { key: entry, member: Vec::new() },
            _ => match parse_entry(&entry) {
                Some((key, member)) => Place { key: key.to_vec(), member: member.to_vec() },
                // Not of our making: it names no member that could be removed.
                None => Place { key: entry, member: Vec::new() },
            },
        };
        self.put_end(chunk, context, change.lsn, &version, place);
    }

    /// Moves one entry of this table's list to where it is under the table's new name.
    pub fn put_move(&self, chunk: &mut Chunk, context: &Context<'_>, lsn: u64, new: &Plan, entry: &[u8]) {
        let moved = |old: &Bound, new: &Bound, text: &[u8]| {
            let tail = text.strip_prefix(old.prefix.as_slice()).unwrap_or(text);
            [new.prefix.as_slice(), tail].concat()
        };
        let lists = [self.list.clone(), new.list.clone()];
        match (&self.member, &new.member, parse_entry(entry)) {
            (Some(old_member), Some(new_member), Some((key, member))) => {
                let target = moved(&self.key, &new.key, key);
                let renamed = moved(old_member, new_member, member);
                let new_entry = member_entry(&target, &renamed);
                let kind = if context.options.kind == RedisType::Set { "s" } else { "z" };
                let keys = [vec![key.to_vec(), target], lists.to_vec()].concat();
                let args = vec![kind.into(), member.to_vec(), renamed, entry.to_vec(), new_entry];
                chunk.put(lsn, b"n", keys, args);
            }
            _ => {
                let keys = [vec![entry.to_vec(), moved(&self.key, &new.key, entry)], lists.to_vec()].concat();
                chunk.put(lsn, b"m", keys, vec![]);
            }
        }
    }
}

/// What a change does besides writing rows.
pub enum Sweep {
    /// All rows of the table end.
    Clear(Arc<Table>),
    /// All rows go by a new name.
    Move(Arc<Table>, Arc<Table>),
}

/// `None` for a change of a row, and for a statement that leaves rows where they are.
pub fn sweep(change: &OutChange) -> Option<Sweep> {
    if change.op == Op::Truncate {
        return Some(Sweep::Clear(Arc::clone(&change.table)));
    }
    let ddl = change.ddl.as_ref()?;
    match (&ddl.before, &ddl.after) {
        (Some(before), None) => Some(Sweep::Clear(Arc::clone(before))),
        (Some(before), Some(after)) if before.name != after.name => {
            Some(Sweep::Move(Arc::clone(before), Arc::clone(after)))
        }
        _ => None,
    }
}
