//! Whether the journal has what a cell did: every change once and in order, images that join, and at the end what the
//! server's own SELECT answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::collections::BTreeMap;
use testkit::SqlServer;
use testkit::mysql_async::Value as Sql;
use testkit::mysql_async::prelude::Queryable;

fn id(image: &Value) -> String {
    image["id"].to_string()
}

/// The change in the words of a cell's steps.
fn word(change: &Value) -> Option<String> {
    let (before, after) = (id(&change["before"]), id(&change["after"]));
    match change["op"].as_str()? {
        "insert" => Some(format!("i{after}")),
        "update" if before == after => Some(format!("u{after}")),
        "update" => Some(format!("u{before}>{after}")),
        "delete" => Some(format!("d{before}")),
        "ddl" => None,
        other => Some(other.to_owned()),
    }
}

/// Rows as the changes leave them; `Err` where an image before a change is not the one after the last.
fn play(changes: &[&Value], exactly: bool) -> Result<BTreeMap<String, Value>, String> {
    let mut rows: BTreeMap<String, Value> = BTreeMap::new();
    for change in changes {
        let (before, after) = (&change["before"], &change["after"]);
        if change["op"] == "truncate" {
            rows.clear();
        }
        if before.is_object() {
            let known = rows.remove(&id(before)).unwrap_or_default();
            let lost = before.as_object().into_iter().flatten();
            // A column that was added since has its default.
            let differs = lost.clone().find(|(name, value)| known.get(name).is_some_and(|old| old != *value));
            if let Some((name, value)) = differs.filter(|_| exactly) {
                return Err(format!("`{name}` was {}, and is {value} before {change}", known[name]));
            }
        }
        if after.is_object() {
            let old = rows.insert(id(after), after.clone());
            if exactly && old.is_some() && change["op"] == "insert" {
                return Err(format!("inserted twice: {change}"));
            }
        }
    }
    Ok(rows)
}

/// Whether the value is what the server prints.
fn same(ours: &Value, printed: &Sql) -> bool {
    let Sql::Bytes(bytes) = printed else { return ours.is_null() };
    let text = String::from_utf8_lossy(bytes);
    match ours {
        Value::String(own) if *own == text => true,
        Value::String(own) if BASE64.decode(own).is_ok_and(|own| own == *bytes) => true,
        Value::Number(own) if own.to_string() == text => true,
        Value::Array(own) if own.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",") == text => {
            true
        }
        own => serde_json::from_str::<Value>(&text).is_ok_and(|printed| printed == *own),
    }
}

/// Whether a table's changes add up to what the server has; `wanted` is every one of them, where it must be these.
pub async fn captured(
    server: &SqlServer,
    table: &str,
    wanted: Option<&[&str]>,
    changes: &[&Value],
    status: &Value,
) -> Result<(), String> {
    let quarantined = status["sources"][0]["quarantined"].as_array().into_iter().flatten();
    if let Some(own) = quarantined.into_iter().find(|own| own["table"] == format!("shop.{table}")) {
        return Err(format!("quarantined: {}", own["reason"]));
    }
    let found: Vec<String> = changes.iter().filter_map(|change| word(change)).collect();
    if let Some(wanted) = wanted.filter(|wanted| **wanted != found) {
        return Err(format!("changes {} but {}", wanted.join(" "), found.join(" ")));
    }
    let exactly = wanted.is_some();
    let ours = play(changes, exactly)?;
    let mut conn = server.conn().await.map_err(|e| e.to_string())?;
    conn.query_drop("SET NAMES utf8mb4").await.map_err(|e| e.to_string())?;
    let sql = format!("SELECT * FROM shop.{table}");
    let rows: Vec<testkit::mysql_async::Row> = conn.query(sql).await.map_err(|e| e.to_string())?;
    if rows.len() != ours.len() {
        return Err(format!("{} rows but {}", rows.len(), ours.len()));
    }
    for row in rows {
        let columns = row.columns();
        let place = columns.iter().position(|column| column.name_str() == "id").ok_or("no id")?;
        let Sql::Bytes(id) = &row[place] else { return Err("an id that is no text".into()) };
        let id = String::from_utf8_lossy(id).into_owned();
        let own = ours.get(&id).ok_or_else(|| format!("row {id} is missing"))?;
        for (index, column) in columns.iter().enumerate() {
            let (name, printed) = (column.name_str(), &row[index]);
            // A column that was added since and has no default is not in the images before.
            let own = own.get(&*name).unwrap_or(&Value::Null);
            if !same(own, printed) {
                let short = |text: String| text.chars().take(200).collect::<String>();
                return Err(format!(
                    "row {id} `{name}`: {} but {}",
                    short(printed.as_sql(true)),
                    short(own.to_string())
                ));
            }
        }
    }
    Ok(())
}

pub fn quarantined(table: &str, words: &str, status: &Value) -> Result<(), String> {
    let all = &status["sources"][0]["quarantined"];
    let own = all.as_array().into_iter().flatten().find(|own| own["table"] == format!("shop.{table}"));
    let reason = own.and_then(|own| own["reason"].as_str()).ok_or_else(|| format!("quarantined is {all}"))?;
    if reason.contains(words) { Ok(()) } else { Err(format!("it says: {reason}")) }
}
