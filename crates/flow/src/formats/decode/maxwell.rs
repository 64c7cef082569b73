//! Maxwell's messages. What is no row (DDL, the ends of a bootstrap, heartbeats) is passed over.

use super::cells::{self, Cells, names, number, object, text};
use super::{Decoded, Told, table_name};
use base::Op;
use std::borrow::Cow;

pub fn decode<'a>(key: Option<&'a [u8]>, message: &Cells<'a>) -> Result<Option<Decoded<'a>>, String> {
    let op = match text(message, "type").as_deref() {
        Some("insert") => Op::Insert,
        Some("update") => Op::Update,
        Some("delete") => Op::Delete,
        Some("bootstrap-insert") => Op::Read,
        Some(_) => return Ok(None),
        None => return Err("it has no `type` of Maxwell".into()),
    };
    let data = object(message, "data")?.ok_or("it has no `data`")?;
    let old = object(message, "old")?;
    let (before, after) = match op {
        Op::Delete => (Some(data), None),
        // `old` has only what changed.
        Op::Update => (old.map(|old| data.overlaid(&old)), Some(data)),
        _ => (None, Some(data)),
    };
    Ok(Some(Decoded {
        name: table_name(message, "database", "table")?,
        op,
        before,
        after,
        key: key_names(key, message)?,
        told: Told::Nothing,
        ts_ms: number(message, "ts").map(|seconds| seconds.saturating_mul(1000)),
        txn: number(message, "xid").map(|xid| xid.to_string()),
        last: message.get("commit").is_some_and(|raw| raw.get() == "true"),
    }))
}

/// By the message, or by the `pk.…` of its key.
fn key_names<'a>(key: Option<&'a [u8]>, message: &Cells<'a>) -> Result<Option<Vec<Cow<'a, str>>>, String> {
    if let Some(names) = names(message, "primary_key_columns")? {
        return Ok(Some(names));
    }
    let Some(key) = key else { return Ok(None) };
    // Its other form of a key is a list, or the key is by a template: then it tells nothing.
    let Ok(key) = cells::parse(key, "key") else { return Ok(None) };
    let of_key = key.0.iter().filter_map(|(name, _)| name.strip_prefix("pk."));
    let names: Vec<Cow<'a, str>> = of_key.map(|name| Cow::Owned(name.to_owned())).collect();
    Ok((!names.is_empty()).then_some(names))
}
