//! A JSON object as it came: names in order, and each value as its own text, so that no number loses a digit and no
//! document its order.

use super::scan;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A value as its JSON text, without space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// `None` when the text is no JSON.
    pub fn of(text: &'a str) -> Option<Self> {
        if scan::is_value(text) {
            return Some(Self(text));
        }
        serde_json::from_str::<&RawValue>(text).ok().map(|raw| Self(raw.get()))
    }

    /// Of a text that was scanned.
    pub(super) fn trusted(text: &'a str) -> Self {
        Self(text)
    }

    pub fn get(self) -> &'a str {
        self.0
    }
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(raw.get()))
    }
}

/// One member: its name, and its value.
pub type Cell<'a> = (Cow<'a, str>, Raw<'a>);

/// The members of an object, in order. A name that is there twice keeps its first place and its last value.
#[derive(Clone, Debug, Default)]
pub struct Cells<'a>(pub Vec<Cell<'a>>);

impl<'a> Cells<'a> {
    pub fn get(&self, name: &str) -> Option<Raw<'a>> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    pub fn put(&mut self, name: Cow<'a, str>, value: Raw<'a>) {
        match self.0.iter_mut().find(|(own, _)| *own == name) {
            Some(cell) => cell.1 = value,
            None => self.0.push((name, value)),
        }
    }

    pub fn names(&self) -> Vec<Cow<'a, str>> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// These cells, with those of `other` in their places.
    pub fn overlaid(&self, other: &Self) -> Self {
        let mut out = self.clone();
        for (name, value) in &other.0 {
            out.put(name.clone(), *value);
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
        while let Some((name, value)) = map.next_entry::<Name<'de>, Raw<'de>>()? {
            out.put(name.0, value);
        }
        Ok(out)
    }
}

/// Borrowed unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text of a JSON string; `None` for any other value.
pub fn string(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(text).ok().map(Cow::Owned)
}

pub fn is_null(raw: Raw<'_>) -> bool {
    raw.get() == "null"
}

/// A member that is an object; `None` when it is null or missing.
pub fn object<'a>(cells: &Cells<'a>, name: &str) -> Result<Option<Cells<'a>>, String> {
    match cells.get(name).filter(|raw| !is_null(*raw)) {
        None => Ok(None),
        Some(raw) => of_text(raw.get()).map(Some).map_err(|_| format!("`{name}` is not an object")),
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
pub fn names<'a>(cells: &Cells<'a>, name: &str) -> Result<Option<Vec<Cow<'a, str>>>, String> {
    match cells.get(name).filter(|raw| !is_null(*raw)) {
        None => Ok(None),
        Some(raw) => {
            let names: Result<Vec<Name<'a>>, _> = serde_json::from_str(raw.get());
            let names = names.map_err(|_| format!("`{name}` is not a list of names"))?;
            Ok(Some(names.into_iter().map(|name| name.0).collect()))
        }
    }
}

/// An object that is a whole message or a part of one.
pub fn parse<'a>(bytes: &'a [u8], what: &str) -> Result<Cells<'a>, String> {
    parse_knowing(bytes, what, &[""; 0])
}

/// The same, where texts of `known` objects need not be looked at again.
pub fn parse_knowing<'a>(
    bytes: &'a [u8],
    what: &str,
    known: &[impl AsRef<str>],
) -> Result<Cells<'a>, String> {
    if let Some(cells) = std::str::from_utf8(bytes).ok().and_then(|text| scan::object(text, known)) {
        return Ok(cells);
    }
    serde_json::from_slice(bytes).map_err(|error| format!("the {what} is not a JSON object: {error}"))
}

fn of_text(text: &str) -> Result<Cells<'_>, serde_json::Error> {
    match scan::object(text, &[""; 0]) {
        Some(cells) => Ok(cells),
        None => serde_json::from_str(text),
    }
}

/// What stands in a `{"schema","payload"}` envelope, and the schema; without an envelope, the object itself.
pub fn unwrapped(cells: Cells<'_>) -> Result<(Option<Raw<'_>>, Option<Cells<'_>>), String> {
    match (cells.get("schema"), cells.get("payload")) {
        (Some(schema), Some(_)) if cells.0.len() == 2 => {
            let payload = object(&cells, "payload")?;
            Ok((Some(schema).filter(|raw| !is_null(*raw)), payload))
        }
        _ => Ok((None, Some(cells))),
    }
}
