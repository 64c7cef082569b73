//! Steps that take texts apart and add columns: `grok`, `dissect`, `date`, `json`, `lookup`, `split`, `geo_point`,
//! `user_agent`. Each is a pure function of a row's values; `examples` holds what they answer.
//!
//! Compiled once a flow, bound to a table's columns once a table, run once a row. A text is bounded before it is read.

mod agent;
pub mod config;
mod date;
mod dissect;
pub mod examples;
mod geo;
mod grok;
mod lookup;
mod patterns;
mod split;
mod typed;

pub use lookup::Lookup;
pub use patterns::PATTERNS as GROK_PATTERNS;
pub use split::{Split, SplitPlan};
pub use typed::TYPES;

use super::expr::{JsonPath, Row, Slot, extract_json, is_json, parse_json_path};
use super::{EvalError, TransformError, mask};
use base::{Column, ColumnType, Value, ValueRef};
use config::OnError;
use std::borrow::Cow;
use std::sync::Arc;
use typed::{Typed, shown};

/// A line that is taken apart is no longer than this.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// A JSON document, or a list that is split, is no longer than this.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// A step, compiled for any table.
#[derive(Clone, Debug)]
pub struct Process {
    /// Under which key it stands in the flow's file.
    pub verb: &'static str,
    inputs: Vec<String>,
    function: Arc<Function>,
    on_error: OnError,
    columns: Vec<Column>,
}

#[derive(Debug)]
enum Function {
    Grok(grok::Grok),
    Dissect(dissect::Dissect),
    Date(date::DateReader),
    Json(Vec<(JsonPath, Typed)>),
    Lookup(lookup::Lookup),
    GeoPoint,
    UserAgent,
}

/// A step, bound to the columns of a table.
#[derive(Clone, Debug)]
pub struct Bound {
    verb: &'static str,
    inputs: Vec<Input>,
    function: Arc<Function>,
    on_error: OnError,
    width: usize,
}

/// A column that a step reads.
#[derive(Clone, Debug)]
pub struct Input {
    slot: Slot,
    name: String,
    labels: Vec<String>,
    /// Whether the server has checked it to be JSON.
    checked_json: bool,
}

/// Whether a row goes on behind a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    GoesOn,
    LeftOut,
}

impl Process {
    fn new(
        verb: &'static str,
        inputs: &[&str],
        function: Function,
        on_error: OnError,
        columns: Vec<Column>,
    ) -> Self {
        let inputs = inputs.iter().map(|name| (*name).to_owned()).collect();
        Self { verb, inputs, function: Arc::new(function), on_error, columns }
    }

    pub fn grok(step: &config::GrokStep) -> Result<Self, String> {
        let grok = grok::Grok::compile(&step.r#match, &step.define)?;
        let columns = grok.columns.clone();
        Ok(Self::new("grok", &[&step.column], Function::Grok(grok), step.on_error, columns))
    }

    pub fn dissect(step: &config::DissectStep) -> Result<Self, String> {
        let dissect = dissect::Dissect::compile(&step.pattern)?;
        let columns = dissect.columns.clone();
        Ok(Self::new("dissect", &[&step.column], Function::Dissect(dissect), step.on_error, columns))
    }

    pub fn date(step: &config::DateStep) -> Result<Self, String> {
        let into = step.into.as_deref().unwrap_or(&step.column);
        let reader =
            date::DateReader::compile(&step.formats, into, step.timezone.as_deref(), step.r#type.as_deref())?;
        let columns = vec![reader.column.clone()];
        Ok(Self::new("date", &[&step.column], Function::Date(reader), step.on_error, columns))
    }

    pub fn json(step: &config::JsonStep) -> Result<Self, String> {
        let (mut parts, mut columns) = (Vec::new(), Vec::new());
        for (name, part) in &step.columns {
            let path = parse_json_path(&part.path)
                .ok_or_else(|| format!("`{}` is not a path such as $.user.id", part.path))?;
            let ty = declared(part.r#type.as_deref())?;
            columns.push(ty.column(name));
            parts.push((path, ty));
        }
        if parts.is_empty() {
            return Err("`columns` is empty".to_owned());
        }
        Ok(Self::new("json", &[&step.column], Function::Json(parts), step.on_error, columns))
    }

    pub fn lookup(step: &config::LookupStep) -> Result<Self, String> {
        let lookup = lookup::Lookup::compile(step)?;
        let columns = lookup.columns.clone();
        Ok(Self::new("lookup", &[&step.column], Function::Lookup(lookup), OnError::Park, columns))
    }

    pub fn geo_point(step: &config::GeoPointStep) -> Self {
        let columns = vec![Typed::Json.column(&step.into)];
        Self::new("geo_point", &[&step.lat, &step.lon], Function::GeoPoint, step.on_error, columns)
    }

    pub fn user_agent(step: &config::UserAgentStep) -> Self {
        let prefix = step.prefix.as_deref().unwrap_or("ua_");
        let names = ["browser", "version", "os", "device"];
        let columns = names.map(|name| Typed::Varchar(100).column(&format!("{prefix}{name}"))).to_vec();
        Self::new("user_agent", &[&step.column], Function::UserAgent, OnError::Park, columns)
    }

    /// The lookup in another table that it is, if it is one.
    pub fn table_lookup(&self) -> Option<&Lookup> {
        match &*self.function {
            Function::Lookup(lookup) => Some(lookup).filter(|lookup| lookup.is_of_table()),
            _ => None,
        }
    }

    /// The columns it makes, in the order of its values.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// `find` answers where a column is, at this step.
    pub fn bind<'c>(
        &self,
        find: impl Fn(&str) -> Result<(Slot, &'c Column), TransformError>,
    ) -> Result<Bound, TransformError> {
        let inputs = self.inputs.iter().map(|name| {
            let (slot, column) = find(name)?;
            Input::new(slot, column, self.verb)
        });
        Ok(Bound {
            verb: self.verb,
            inputs: inputs.collect::<Result<_, _>>()?,
            function: Arc::clone(&self.function),
            on_error: self.on_error,
            width: self.columns.len(),
        })
    }
}

/// The type a step declares; `text` where it says nothing.
fn declared(ty: Option<&str>) -> Result<Typed, String> {
    let ty = ty.unwrap_or("text");
    Typed::parse(ty).ok_or_else(|| format!("`{ty}` is not a type: there are {TYPES}"))
}

impl Bound {
    /// Appends one value a column to `out`.
    pub fn run(&self, row: Row<'_>, out: &mut Vec<Value>) -> Result<Fate, EvalError> {
        let before = out.len();
        match self.answer(row, out) {
            Ok(()) => Ok(Fate::GoesOn),
            Err(reason) => {
                out.truncate(before);
                match self.on_error {
                    OnError::Park => Err(EvalError(format!("{}: {reason}", self.verb))),
                    OnError::Skip => Ok(Fate::LeftOut),
                    OnError::Null => {
                        out.resize(before + self.width, Value::Null);
                        Ok(Fate::GoesOn)
                    }
                }
            }
        }
    }

    fn answer(&self, row: Row<'_>, out: &mut Vec<Value>) -> Result<(), String> {
        let first = self.inputs[0].text(row)?;
        if let Function::Lookup(lookup) = &*self.function {
            return lookup.apply(first.as_deref(), row.get(self.inputs[0].slot), out);
        }
        // NULL in, NULL out.
        let Some(text) = first else {
            out.resize(out.len() + self.width, Value::Null);
            return Ok(());
        };
        let most =
            if matches!(&*self.function, Function::Json(_)) { DOCUMENT_BYTES_MAX } else { TEXT_BYTES_MAX };
        bounded(&text, most)?;
        match &*self.function {
            Function::Grok(grok) => grok.apply(&text, out)?,
            Function::Dissect(dissect) => dissect.apply(&text, out)?,
            Function::Date(reader) => out.push(reader.read(&text)?),
            Function::Json(parts) => self.take_json(&text, parts, out)?,
            Function::GeoPoint => out.push(match self.inputs[1].text(row)? {
                Some(lon) => geo::point(&text, &lon)?,
                None => Value::Null,
            }),
            Function::UserAgent => {
                let agent = agent::parse(&text);
                let text = |text: &str| Value::Text(text.chars().take(100).collect());
                let version = agent.version.map_or(Value::Null, text);
                out.extend([text(agent.browser), version, text(agent.os), text(agent.device)]);
            }
            Function::Lookup(_) => {}
        }
        Ok(())
    }

    fn take_json(&self, text: &str, parts: &[(JsonPath, Typed)], out: &mut Vec<Value>) -> Result<(), String> {
        if !self.inputs[0].checked_json && !is_json(text) {
            return Err(format!("{} is not JSON", shown(text)));
        }
        for (path, ty) in parts {
            out.push(match extract_json(text, path) {
                Some(part) => ty.read_json(part)?,
                None => Value::Null,
            });
        }
        Ok(())
    }
}

fn bounded(text: &str, most: usize) -> Result<(), String> {
    if text.len() <= most { Ok(()) } else { Err(format!("a text of {} bytes; at most {most}", text.len())) }
}

impl Input {
    pub fn new(slot: Slot, column: &Column, verb: &str) -> Result<Self, TransformError> {
        let labels = match &column.ty {
            ColumnType::Enum { labels } | ColumnType::Set { labels } => labels.clone(),
            ColumnType::Binary { .. }
            | ColumnType::VarBinary { .. }
            | ColumnType::Geometry
            | ColumnType::Vector { .. } => {
                return Err(TransformError {
                    path: String::new(),
                    message: format!("`{}` is a {}, which {verb} cannot read", column.name, column.sql_type),
                    hint: "name a column with text".into(),
                });
            }
            _ => Vec::new(),
        };
        Ok(Self { slot, name: column.name.clone(), labels, checked_json: column.sql_type == "json" })
    }

    /// The value as text; `None` for NULL.
    pub fn text<'r>(&self, row: Row<'r>) -> Result<Option<Cow<'r, str>>, String> {
        Ok(match row.get(self.slot) {
            ValueRef::Null => None,
            ValueRef::Text(text) | ValueRef::Decimal(text) | ValueRef::Json(text) => {
                Some(Cow::Borrowed(text))
            }
            ValueRef::RawText(_) | ValueRef::Bytes(_) => {
                return Err(format!("`{}` holds bytes that are no text of its character set", self.name));
            }
            other => Some(Cow::Owned(mask::text(other, &self.labels))),
        })
    }
}
