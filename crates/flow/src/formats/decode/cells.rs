//! A JSON object as it came: names in order, and each value as its own text, so that no number loses a digit and no
//! document its order.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// One member: its name, and its value as JSON text.
pub type Cell<'a> = (Cow<'a, str>, &'a RawValue);

/// The members of an object, in order. A name that is there twice keeps its first place and its last value.
#[derive(Clone, Debug, Default)]
pub struct Cells<'a>(pub Vec<Cell<'a>>);

impl<'a> Cells<'a> {
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    pub fn put(&mut self, name: Cow<'a, str>, value: &'a RawValue) {
        match self.0.iter_mut().find(|(own, _)| *own == name) {
            Some(cell) => cell.1 = value,
            None => self.0.push((name, value)),
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.to_string()).collect()
    }

    /// These cells, with those of `other` in their places.
    pub fn overlaid(&self, other: &Self) -> Self {
        let mut out = self.clone();
        for (name, value) in &other.0 {
            out.put(name.clone(), value);
        }
        out
    }
}

impl<'de> Deserialize<'de> for Cells<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CellsVisitor)
    }
}

struct CellsVisitor;

impl<'de> Visitor<'de> for CellsVisitor {
    type Value = Cells<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut out = Cells::default();
        while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            out.put(name.0, value);
        }
        Ok(out)
    }
}

/// Borrowed unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text of a JSON string; `None` for any other value.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(text).ok().map(Cow::Owned)
}

pub fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

/// A member that is an object; `None` when it is null or missing.
pub fn object<'a>(cells: &Cells<'a>, name: &str) -> Result<Option<Cells<'a>>, String> {
    match cells.get(name).filter(|raw| !is_null(raw)) {
        None => Ok(None),
        Some(raw) => {
            serde_json::from_str(raw.get()).map(Some).map_err(|_| format!("`{name}` is not an object"))
        }
    }
}

/// A member that is a string; `None` when it is another thing, or missing.
pub fn text<'a>(cells: &Cells<'a>, name: &str) -> Option<Cow<'a, str>> {
    cells.get(name).and_then(string)
}

/// A member that is a whole number.
pub fn number(cells: &Cells<'_>, name: &str) -> Option<i64> {
    cells.get(name).and_then(|raw| raw.get().parse().ok())
}

/// A member that is a list of strings; `None` when it is null or missing.
pub fn names(cells: &Cells<'_>, name: &str) -> Result<Option<Vec<String>>, String> {
    match cells.get(name).filter(|raw| !is_null(raw)) {
        None => Ok(None),
        Some(raw) => {
            serde_json::from_str(raw.get()).map(Some).map_err(|_| format!("`{name}` is not a list of names"))
        }
    }
}

/// An object that is a whole message or a part of one.
pub fn parse<'a>(bytes: &'a [u8], what: &str) -> Result<Cells<'a>, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("the {what} is not a JSON object: {error}"))
}

/// What stands in a `{"schema","payload"}` envelope, and the schema; without an envelope, the object itself.
pub fn unwrapped(cells: Cells<'_>) -> Result<(Option<&RawValue>, Option<Cells<'_>>), String> {
    match (cells.get("schema"), cells.get("payload")) {
        (Some(schema), Some(_)) if cells.0.len() == 2 => {
            let payload = object(&cells, "payload")?;
            Ok((Some(schema).filter(|raw| !is_null(raw)), payload))
        }
        _ => Ok((None, Some(cells))),
    }
}
