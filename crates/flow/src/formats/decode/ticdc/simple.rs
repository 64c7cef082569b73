//! The simple protocol in JSON: definitions in messages of their own, rows of text.

use super::schema;
use super::{Cell, Event, Image, Kind, Row, Statement};
use crate::formats::decode::cells::{Cells, Raw, is_null, object, parse, string, text};
use crate::formats::decode::table_name;
use base::Op;
use std::borrow::Cow;

/// What it is, and when it was committed; a definition without an order has 0.
pub fn head(value: &[u8]) -> Result<(Kind, u64), String> {
    let message = parse(value, "value")?;
    let kind = text(&message, "type").ok_or("it has no `type` of TiCDC's simple protocol")?;
    let commit_ts = message.get("commitTs").and_then(|raw| raw.get().parse().ok());
    let commit_ts = commit_ts.ok_or("it has no `commitTs`")?;
    let kind = match &*kind {
        "WATERMARK" => Kind::Watermark,
        "BOOTSTRAP" => Kind::Bootstrap,
        "INSERT" | "UPDATE" | "DELETE" => Kind::Row,
        _ if message.get("sql").is_some() => Kind::Ddl,
        _ => return Err("its `type` is none of TiCDC's simple protocol".into()),
    };
    Ok((kind, commit_ts))
}

pub fn read(value: &[u8]) -> Result<Event<'_>, String> {
    let message = parse(value, "value")?;
    let kind = text(&message, "type").ok_or("it has no `type` of TiCDC's simple protocol")?;
    let op = match &*kind {
        "INSERT" => Op::Insert,
        "UPDATE" => Op::Update,
        "DELETE" => Op::Delete,
        "BOOTSTRAP" => {
            let raw = message.get("tableSchema").ok_or("it has no `tableSchema`")?;
            return schema::read(raw).map(Event::Bootstrap);
        }
        _ => return statement(&message).map(|one| Event::Ddl(Box::new(one))),
    };
    if text(&message, "data").is_some() {
        return Err("its `data` is no object".into());
    }
    let version = message.get("schemaVersion").and_then(|raw| raw.get().parse().ok());
    Ok(Event::Row(Box::new(Row {
        name: table_name(&message, "database", "table")?,
        op,
        before: image(&message, "old")?,
        after: image(&message, "data")?,
        key: Vec::new(),
        told: Vec::new(),
        schema_version: Some(version.ok_or("it has no `schemaVersion`")?),
        key_only: message.get("handleKeyOnly").is_some_and(|raw| raw.get() == "true"),
        claim_check: text(&message, "claimCheckLocation")
            .filter(|place| !place.is_empty())
            .map(Cow::into_owned),
    })))
}

fn statement(message: &Cells<'_>) -> Result<Statement, String> {
    let schema_of = |member: &str| {
        // The columns of a view have no types: it is no table.
        let is_view = |raw: &Raw<'_>| raw.get().contains(r#""mysqlType":"unspecified""#);
        let raw = message.get(member).filter(|raw| !is_null(*raw) && !is_view(raw));
        raw.map(schema::read).transpose()
    };
    let (after, before) = (schema_of("tableSchema")?, schema_of("preTableSchema")?);
    let named = after.as_ref().or(before.as_ref()).map(|schema| schema.table.name.clone());
    let (db, table) = named.map_or_else(Default::default, |name| (name.db, name.table));
    let sql = text(message, "sql").ok_or("it has no `sql`")?.into_owned();
    Ok(Statement { sql, db, table, after, before })
}

fn image<'a>(message: &Cells<'a>, name: &str) -> Result<Option<Image<'a>>, String> {
    let Some(cells) = object(message, name)? else { return Ok(None) };
    let mut out = Vec::with_capacity(cells.0.len());
    for (name, raw) in cells.0 {
        let cell = cell(raw).map_err(|why| format!("its `{name}` {why}"))?;
        out.push((name, cell));
    }
    Ok(Some(out))
}

fn cell(raw: Raw<'_>) -> Result<Cell<'_>, String> {
    match raw.get().as_bytes().first() {
        Some(b'n') => Ok(Cell::Null),
        Some(b'"') => string(raw).map(Cell::Text).ok_or_else(|| "is no text".to_owned()),
        Some(b'{') => moment(raw).map(|text| Cell::Text(Cow::Owned(text))),
        Some(b'[' | b't' | b'f') | None => Err("is neither text nor a time".to_owned()),
        Some(_) => Ok(Cell::Text(Cow::Borrowed(raw.get()))),
    }
}

/// A TIMESTAMP in the time zone of TiCDC's server.
fn moment(raw: Raw<'_>) -> Result<String, String> {
    let cells: Cells<'_> = serde_json::from_str(raw.get()).map_err(|_| "is no time")?;
    let (zone, value) = (text(&cells, "location"), text(&cells, "value"));
    let (zone, value) = zone.zip(value).ok_or("is no time")?;
    if matches!(&*zone, "UTC" | "Etc/UTC" | "+00:00" | "") || value.starts_with("0000-00-00") {
        return Ok(value.into_owned());
    }
    let calendar = value.replace(' ', "T");
    let local: jiff::civil::DateTime = calendar.parse().map_err(|_| "is no time")?;
    let zone = match fixed_offset(&zone) {
        Some(zone) => zone,
        None => jiff::tz::TimeZone::get(&zone).map_err(|_| {
            format!("is a time in the zone `{zone}`, which is not known: start TiCDC with --tz=UTC")
        })?,
    };
    // An hour that the zone has twice is ambiguous: nobody should guess which it was.
    let moment = zone.to_ambiguous_timestamp(local).unambiguous();
    let moment =
        moment.map_err(|_| "is a time that its zone has twice, or not at all: start TiCDC with --tz=UTC")?;
    let utc = jiff::tz::TimeZone::UTC.to_datetime(moment);
    Ok(utc.strftime("%Y-%m-%d %H:%M:%S%.f").to_string())
}

/// `+08:00`.
fn fixed_offset(zone: &str) -> Option<jiff::tz::TimeZone> {
    let (sign, rest) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = sign * (hours * 3600 + minutes * 60);
    jiff::tz::Offset::from_seconds(seconds).ok().map(jiff::tz::Offset::to_time_zone)
}
