//! What a flow's options and a table make of its changes: index, id, routing, document. Pure: nothing is sent here.

use super::bulk::Item;
use super::failure::blocked;
use super::mapping::{self, is_point};
use crate::config::FlowOptions;
use crate::deliver::sink::{OutChange, SinkError};
use crate::sinks::template::{Bound, Template};
use base::json::{put_string, put_value};
use base::{Column, Table};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The alias of a table's documents.
pub const INDEX_DEFAULT: &str = "{db}.{table}";
/// The `_id` of a row's document.
pub const ID_DEFAULT: &str = "{key}";
/// What the server takes as an `_id`.
const ID_BYTES_MAX: usize = 512;
/// What the server takes as a name of an index, less what stands behind an alias in ours.
const ALIAS_BYTES_MAX: usize = 230;
/// Bits of a version that number changes: a hundred million million of them, twice.
const LSN_BITS: u32 = 47;
/// Journals that one flow may have seen: what is left of the 63 bits of a version.
pub const GENERATIONS_MAX: u32 = 1 << 15;
/// Fields that the server keeps for itself.
const RESERVED: [&str; 10] = [
    "_id",
    "_index",
    "_source",
    "_routing",
    "_field_names",
    "_ignored",
    "_nested_path",
    "_seq_no",
    "_version",
    "_tier",
];

/// A flow's options, understood.
pub struct Options {
    index: Template,
    id: Template,
    routing: Option<Template>,
    mappings: BTreeMap<String, Value>,
    pub index_settings: BTreeMap<String, Value>,
}

impl Options {
    /// The message and the hint of the first mistake.
    pub fn compile(options: &FlowOptions) -> Result<Self, (String, String)> {
        let template = |name: &str, text: &str, example: &str| {
            Template::compile(text).map_err(|reason| {
                (format!("`{name}` {reason}"), format!("for example: options: {{{name}: \"{example}\"}}"))
            })
        };
        let index = template("index", options.index.as_deref().unwrap_or(INDEX_DEFAULT), INDEX_DEFAULT)?;
        let id = template("id", options.id.as_deref().unwrap_or(ID_DEFAULT), ID_DEFAULT)?;
        let routing = options.routing.as_deref().map(|text| template("routing", text, "{customer_id}"));
        if index.has_values() {
            let hint = "name the index by {db} and {table}, and choose the shard by `routing`";
            return Err(("`index` names a column, and an index is one for a table".into(), hint.into()));
        }
        if !id.has_values() {
            return Err(("`id` is the same for all rows of a table".into(), "id: \"{key}\"".into()));
        }
        for (column, given) in &options.mappings {
            if !given.is_object() {
                let example = "mappings: {note: {type: text, analyzer: english}}";
                return Err((format!("the mapping of `{column}` is no object"), example.into()));
            }
        }
        Ok(Self {
            index,
            id,
            routing: routing.transpose()?,
            mappings: options.mappings.clone(),
            index_settings: options.index_settings.clone(),
        })
    }
}

/// Where the rows of one table go.
pub struct Plan {
    pub alias: String,
    pub properties: Map<String, Value>,
    id: Bound,
    routing: Option<Bound>,
}

/// Where one row goes.
#[derive(PartialEq, Eq)]
struct Place {
    id: String,
    routing: Option<String>,
}

/// A row as it is written.
pub struct Document {
    pub id: String,
    pub routing: Option<String>,
    /// A JSON object.
    pub text: Vec<u8>,
}

/// A text of a name: as our JSON prints the value, without quotes.
fn as_text<'a>(value: &'a base::Value, column: &'a Column) -> Option<Cow<'a, [u8]>> {
    match value {
        base::Value::Bytes(_) | base::Value::RawText(_) => {
            let mut out = Vec::new();
            put_value(&mut out, value.as_ref(), column);
            Some(Cow::Owned(out[1..out.len() - 1].to_vec()))
        }
        _ => crate::sinks::redis::value::text(value, column),
    }
}

/// The version of what a change writes. Within a journal the lsn grows over epochs too, so that it alone orders changes;
/// `generation` counts the journals. A row that moves is deleted by the first of a change's two versions and written by the
/// second.
pub fn version(generation: u32, lsn: u64, writes: bool) -> u64 {
    assert!(lsn < 1 << LSN_BITS, "a hundred million million changes");
    (u64::from(generation) << (LSN_BITS + 1)) | (lsn << 1) | u64::from(writes)
}

impl Plan {
    pub fn new(options: &Options, source: &str, table: &Table) -> Result<Self, SinkError> {
        let hint = "change `options` of the flow, or leave the table out with `tables`";
        let bind = |template: &Template| {
            template
                .bind(source, table)
                .map_err(|reason| blocked(format!("the template `{}` {reason}", template.text()), hint))
        };
        let alias = String::from_utf8_lossy(&bind(&options.index)?.prefix).to_lowercase();
        if let Some(wrong) = refusal(&alias) {
            let message = format!("`{alias}` cannot be an index: {wrong}");
            return Err(blocked(
                message,
                "give the flow an `index` of its own: options: {index: \"orders\"}",
            ));
        }
        if let Some(column) = table.columns.iter().find(|column| is_reserved(&column.name)) {
            let message =
                format!("`{}` has a column `{}`, which no document can have", table.name, column.name);
            return Err(blocked(message, "give it another name: transform: [{rename: {_id: id}}]"));
        }
        Ok(Self {
            alias,
            properties: mapping::properties(table, &options.mappings),
            id: bind(&options.id)?,
            routing: options.routing.as_ref().map(bind).transpose()?,
        })
    }

    /// What a change of a row writes to `index`.
    pub fn items(&self, index: &str, generation: u32, change: &OutChange) -> Result<Vec<Item>, SinkError> {
        let refused = |reason: String| SinkError::Row { lsn: change.lsn, reason };
        let place =
            |row: Option<&Vec<base::Value>>| row.map(|row| self.place(&change.table, row)).transpose();
        // Nothing can be at a place that cannot be.
        let old = place(change.before.as_ref()).unwrap_or(None);
        let new = place(change.after.as_ref()).map_err(refused)?;
        let version = |writes| version(generation, change.lsn, writes);
        let mut items = Vec::new();
        if let Some(old) = old.filter(|old| new.as_ref() != Some(old)) {
            items.push(Item::new(
                change.lsn,
                "delete",
                index,
                &old.id,
                old.routing.as_deref(),
                version(false),
            ));
        }
        if let (Some(new), Some(row)) = (new, &change.after) {
            let mut item =
                Item::new(change.lsn, "index", index, &new.id, new.routing.as_deref(), version(true));
            put_document(&mut item.text, &change.table, row);
            item.text.push(b'\n');
            items.push(item);
        }
        Ok(items)
    }

    /// A row's document, for who compares. The reason completes "the row is refused: ".
    pub fn document(&self, table: &Table, row: &[base::Value]) -> Result<Document, String> {
        let Place { id, routing } = self.place(table, row)?;
        let mut text = Vec::new();
        put_document(&mut text, table, row);
        Ok(Document { id, routing, text })
    }

    /// The reason completes "the row is refused: ".
    fn place(&self, table: &Table, row: &[base::Value]) -> Result<Place, String> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| "its `_id` is no text".to_owned());
        let id = self.id.render(table, row, as_text).ok_or("a column of its `_id` is NULL")?;
        let id = text(id)?;
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(format!(
                "its `_id` has {} bytes, and the server takes 1 to {ID_BYTES_MAX}",
                id.len()
            ));
        }
        let routing = self.routing.as_ref().and_then(|routing| routing.render(table, row, as_text));
        let routing = routing.map(text).transpose()?.filter(|routing| !routing.is_empty());
        Ok(Place { id, routing })
    }
}

fn is_reserved(name: &str) -> bool {
    // An object path is made of dots, and each part of it has a name.
    RESERVED.contains(&name) || name.split('.').any(|part| part.trim().is_empty())
}

/// Why the server would not take a name for an index.
fn refusal(name: &str) -> Option<&'static str> {
    if name.len() > ALIAS_BYTES_MAX {
        return Some("it is too long");
    }
    if name.starts_with(['-', '_', '+', '.']) {
        return Some("it begins with `-`, `_`, `+` or `.`");
    }
    let forbidden = |c: char| "\\/*?\"<>|,#: ".contains(c) || c.is_control();
    name.contains(forbidden).then_some("it has a character that no index may have")
}

/// A row as a document: as our JSON prints it, but for points.
pub fn put_document(out: &mut Vec<u8>, table: &Table, row: &[base::Value]) {
    out.push(b'{');
    for (index, (column, value)) in table.columns.iter().zip(row).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_string(out, &column.name);
        out.push(b':');
        match (value, is_point(column)) {
            (base::Value::Geometry(bytes), true) => match point(bytes) {
                Some((lat, lon)) => {
                    out.extend_from_slice(format!("{{\"lat\":{lat},\"lon\":{lon}}}").as_bytes())
                }
                None => put_value(out, value.as_ref(), column),
            },
            _ => put_value(out, value.as_ref(), column),
        }
    }
    out.push(b'}');
}

/// Latitude and longitude of a POINT: four bytes of SRID, then WKB with x before y, whatever the SRID's axes. `None` for
/// what is not on the globe.
fn point(bytes: &[u8]) -> Option<(String, String)> {
    let wkb = bytes.get(4..)?;
    if wkb.len() != 21 || wkb[..5] != [1, 1, 0, 0, 0] {
        return None;
    }
    let number = |at: usize| Some(f64::from_le_bytes(wkb.get(at..at + 8)?.try_into().ok()?));
    let (lon, lat) = (number(5)?, number(13)?);
    let on_globe = (-180.0..=180.0).contains(&lon) && (-90.0..=90.0).contains(&lat);
    on_globe.then(|| (base::value::format_double(lat), base::value::format_double(lon)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_with_changes_and_over_journals() {
        let versions = [
            (0, 1, false),
            (0, 1, true),
            (0, 2, false),
            (0, (1 << 47) - 1, true),
            (1, 1, false),
            (32767, 9, true),
        ];
        let versions = versions.map(|(generation, lsn, writes)| version(generation, lsn, writes));
        assert!(versions.is_sorted() && versions[5] <= i64::MAX as u64, "{versions:?}");
        assert_eq!(GENERATIONS_MAX - 1, 32767);
    }

    #[test]
    fn options_that_cannot_work_are_told() {
        let compiled = |text: &str| {
            let options: FlowOptions = serde_json::from_str(text).unwrap();
            Options::compile(&options).err().map(|(message, _)| message).unwrap_or_default()
        };
        assert_eq!(compiled("{}"), "");
        assert_eq!(compiled(r#"{"index": "orders", "id": "{id}", "routing": "{shop}"}"#), "");
        assert!(compiled(r#"{"index": "orders-{city}"}"#).contains("names a column"));
        assert!(compiled(r#"{"id": "{table}"}"#).contains("the same for all rows"));
        assert!(compiled(r#"{"routing": "{a}{b}"}"#).contains("side by side"));
        assert!(compiled(r#"{"mappings": {"a": "text"}}"#).contains("no object"));
    }

    #[test]
    fn names_that_no_index_may_have_are_told() {
        assert!(refusal("shop.orders").is_none() && refusal("bücher-2").is_none());
        for wrong in ["_a", "-a", "a b", "a:b", "a*", &"a".repeat(300)] {
            assert!(refusal(wrong).is_some(), "{wrong}");
        }
        assert!(is_reserved("_id") && is_reserved("a..b") && is_reserved("") && !is_reserved("a.b"));
    }

    #[test]
    fn a_point_on_the_globe_has_latitude_and_longitude() {
        let point_of = |x: f64, y: f64| {
            let head = [&4326u32.to_le_bytes()[..], &[1, 1, 0, 0, 0]].concat();
            point(&[head, x.to_le_bytes().to_vec(), y.to_le_bytes().to_vec()].concat())
        };
        assert_eq!(point_of(11.5, 48.25), Some(("48.25".into(), "11.5".into())));
        assert_eq!(point_of(11.5, 91.0), None);
        assert_eq!(point(&[0; 9]), None);
    }
}
