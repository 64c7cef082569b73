//! TiCDC's Canal-JSON with TiDB's extension, which has the commit timestamp and the watermarks.

use super::{Cell, Event, Image, Kind, Row, Statement, refine};
use crate::formats::decode::cells::{Cells, Raw, is_null, names, object, parse, string, text};
use crate::formats::decode::connect::ToldColumn;
use crate::formats::decode::table_name;
use crate::formats::decode::types::{parse as parse_type, told_by_mysql};
use crate::formats::decode::value::Wire;
use base::Op;
use std::borrow::Cow;

fn kind_of<'a>(message: &Cells<'a>) -> Result<Cow<'a, str>, String> {
    text(message, "type").ok_or_else(|| "it has no `type` of Canal".to_owned())
}

pub fn head(value: &[u8]) -> Result<(Kind, u64), String> {
    let message = parse(value, "value")?;
    let kind = kind_of(&message)?;
    let extension = object(&message, "_tidb")?
        .ok_or("it has no `_tidb`: set `enable-tidb-extension=true` in the changefeed's sink-uri")?;
    let ts = |member: &str| {
        let ts = extension.get(member).and_then(|raw| raw.get().parse::<u64>().ok());
        ts.ok_or_else(|| format!("its `_tidb` has no `{member}`"))
    };
    if &*kind == "TIDB_WATERMARK" {
        return Ok((Kind::Watermark, ts("watermarkTs")?));
    }
    let is_ddl = message.get("isDdl").is_some_and(|raw| raw.get() == "true");
    let kind = match &*kind {
        _ if is_ddl => Kind::Ddl,
        "INSERT" | "UPDATE" | "DELETE" => Kind::Row,
        _ => return Err("its `type` is none of TiCDC's Canal-JSON".into()),
    };
    Ok((kind, ts("commitTs")?))
}

pub fn read(value: &[u8]) -> Result<Event<'_>, String> {
    let message = parse(value, "value")?;
    if message.get("isDdl").is_some_and(|raw| raw.get() == "true") {
        let name = |member| text(&message, member).unwrap_or_default().into_owned();
        let (db, table) = (name("database"), name("table"));
        let sql = text(&message, "sql").ok_or("it has no `sql`")?.into_owned();
        return Ok(Event::Ddl(Box::new(Statement { sql, db, table, after: None, before: None })));
    }
    let op = match &*kind_of(&message)? {
        "INSERT" => Op::Insert,
        "UPDATE" => Op::Update,
        "DELETE" => Op::Delete,
        _ => return Err("its `type` is none of TiCDC's Canal-JSON".into()),
    };
    let extension = object(&message, "_tidb")?.unwrap_or_default();
    let (data, old) = (row(&message, "data")?, row(&message, "old")?);
    let (before, after) = match op {
        Op::Delete => (data, None),
        // With `only-output-updated-columns`, `old` has what changed.
        Op::Update => (old.map(|old| overlaid(data.as_ref(), old)), data),
        _ => (None, data),
    };
    let mut told = match message.get("mysqlType").filter(|raw| !is_null(*raw)) {
        None => Vec::new(),
        Some(raw) => told(raw).ok_or("its `mysqlType` is no object of texts")?,
    };
    refine(&mut told, [before.as_ref(), after.as_ref()]);
    Ok(Event::Row(Box::new(Row {
        name: table_name(&message, "database", "table")?,
        op,
        before,
        after,
        key: names(&message, "pkNames")?.unwrap_or_default().into_iter().map(Cow::into_owned).collect(),
        told,
        schema_version: None,
        key_only: extension.get("onlyHandleKey").is_some_and(|raw| raw.get() == "true"),
        claim_check: text(&extension, "claimCheckLocation")
            .filter(|place| !place.is_empty())
            .map(Cow::into_owned),
    })))
}

/// The one row of a list.
fn row<'a>(message: &Cells<'a>, name: &str) -> Result<Option<Image<'a>>, String> {
    let Some(raw) = message.get(name).filter(|raw| !is_null(*raw)) else { return Ok(None) };
    let rows: Vec<Cells<'a>> =
        serde_json::from_str(raw.get()).map_err(|_| format!("its `{name}` is no list of rows"))?;
    let [row] = &rows[..] else { return Err(format!("its `{name}` has {} rows, not one", rows.len())) };
    let cell = |raw: Raw<'a>| match raw.get().as_bytes().first() {
        Some(b'n') => Some(Cell::Null),
        Some(b'"') => string(raw).map(Cell::Text),
        _ => None,
    };
    let mut out = Vec::with_capacity(row.0.len());
    for (name, raw) in &row.0 {
        out.push((name.clone(), cell(*raw).ok_or_else(|| format!("its `{name}` is neither text nor null"))?));
    }
    Ok(Some(out))
}

fn overlaid<'a>(row: Option<&Image<'a>>, old: Image<'a>) -> Image<'a> {
    let mut out = row.cloned().unwrap_or_default();
    for (name, cell) in old {
        match out.iter_mut().find(|(own, _)| *own == name) {
            Some(own) => own.1 = cell,
            None => out.push((name, cell)),
        }
    }
    out
}

/// The types as TiCDC names them. With `content-compatible=true` they have their parameters, and the key's integer has a
/// width; without, `decimal unsigned` says nothing of its digits, as `decimal` does.
fn told(raw: Raw<'_>) -> Option<Vec<ToldColumn>> {
    let types: Cells<'_> = serde_json::from_str(raw.get()).ok()?;
    let texts: Vec<(&Cow<'_, str>, Cow<'_, str>)> =
        types.0.iter().filter_map(|(name, raw)| Some((name, string(*raw)?))).collect();
    let sized = texts.iter().any(|(_, text)| text.contains('('));
    let told = texts.into_iter().filter_map(|(name, text)| {
        let word = text.split(' ').next().unwrap_or_default();
        let exact = sized || !is_sized(word);
        let ty = if exact { parse_type(&text).ok()? } else { told_by_mysql(word)? };
        let sql_type = exact.then(|| text.trim().to_owned());
        Some(ToldColumn { name: name.to_string(), ty, wire: Wire::Canal, sql_type })
    });
    Some(told.collect())
}

/// Whether a type's parameters matter.
fn is_sized(name: &str) -> bool {
    matches!(
        name.to_ascii_lowercase().as_str(),
        "decimal"
            | "numeric"
            | "bit"
            | "char"
            | "varchar"
            | "binary"
            | "varbinary"
            | "enum"
            | "set"
            | "time"
            | "datetime"
            | "timestamp"
    )
}
