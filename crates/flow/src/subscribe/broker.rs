//! Tokens for who reads a flow from a broker: each message says from where a subscription goes on behind it.
//!
//! A token is of a shape. A flow is one where its rows are the table's rows: `filter` and `columns` are a shape's condition and
//! columns; what other steps make of rows, no subscription sends. A message that has no token says why.

use super::shape::{Shape, ShapeSpec};
use super::token::{Phase, Token};
use crate::config::{FlowConfig, TransformStep};
use crate::deliver::sink::OutChange;
use crate::mirror::Mirror;
use base::Table;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// What of a shape may stand beside each message.
pub const SHAPE_BYTES_MAX: usize = 2048;
/// Definitions whose shapes are remembered.
const KNOWN_MAX: usize = 10_000;

/// Where a subscription goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// In base64.
    pub token: String,
    /// What is to be asked for with it: a JSON object, as `Shape` of the proto has it.
    pub shape: Arc<str>,
}

/// Makes the tokens of one flow.
pub struct Tokens {
    source: String,
    /// Columns and condition of the flow's shapes, or the step that is none of these.
    wanted: Result<(Vec<String>, Option<String>), &'static str>,
    mirror: Option<Mirror>,
    /// By the table's id and version.
    known: HashMap<(u32, u32), Result<Known, &'static str>>,
}

#[derive(Clone)]
struct Known {
    hash: u64,
    shape: Arc<str>,
}

impl Tokens {
    pub fn new(source: &str, flow: &FlowConfig) -> Self {
        Self { source: source.to_owned(), wanted: wanted(flow), mirror: None, known: HashMap::new() }
    }

    pub fn attach(&mut self, mirror: Option<&Mirror>) {
        self.mirror = mirror.cloned();
        self.known.clear();
    }

    /// The place behind a change that is delivered in its turn. `Err` names why there is none.
    pub fn behind(&mut self, change: &OutChange, journal: u64) -> Result<Place, &'static str> {
        self.at(change, journal, change.lsn)
    }

    /// The place from which a subscription sends this change first.
    pub fn before(&mut self, change: &OutChange, journal: u64) -> Result<Place, &'static str> {
        self.at(change, journal, change.lsn.saturating_sub(1))
    }

    fn at(&mut self, change: &OutChange, journal: u64, lsn: u64) -> Result<Place, &'static str> {
        let table = change.of.as_ref().ok_or("the table is gone")?;
        let definition = (table.id, table.version);
        if !self.known.contains_key(&definition) {
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            let known = self.know(table);
            self.known.insert(definition, known);
        }
        let Known { hash, shape } =
            self.known.get(&definition).cloned().unwrap_or(Err("the table is gone"))?;
        let token = Token {
            journal,
            epoch: change.epoch,
            shape: hash,
            table: table.id,
            schema: table.version,
            lsn,
            until: lsn,
            phase: Phase::Tail { owes_end: false },
        };
        Ok(Place { token: BASE64_STANDARD.encode(token.encode()), shape })
    }

    fn know(&self, table: &Arc<Table>) -> Result<Known, &'static str> {
        let (columns, filter) = self.wanted.clone()?;
        if !self.mirror.as_ref().is_some_and(|mirror| mirror.takes(&table.name)) {
            return Err("the source keeps no mirror of the table");
        }
        let text = json!({
            "source": self.source, "table": table.name.to_string(), "columns": columns,
            "where": filter.as_deref().unwrap_or_default(),
        });
        let text = text.to_string();
        if text.len() > SHAPE_BYTES_MAX {
            return Err("the shape is too large to be told");
        }
        let spec = ShapeSpec {
            table: table.name.clone(),
            columns,
            filter,
            enforced: None,
            visible: None,
            window: None,
        };
        let shape = Shape::compile(&self.source, spec).map_err(|_| "no shape has such a filter")?;
        shape.plan(table).map_err(|_| "the table has no key, or not the flow's columns")?;
        Ok(Known { hash: shape.hash, shape: text.into() })
    }
}

/// The shape that a flow's steps make of each table.
fn wanted(flow: &FlowConfig) -> Result<(Vec<String>, Option<String>), &'static str> {
    let (mut columns, mut filters) = (Vec::new(), Vec::new());
    for step in &flow.transform {
        match step {
            TransformStep::Filter(text) => filters.push(text.as_str()),
            TransformStep::Columns(names) => columns.clone_from(names),
            other => return Err(no_shape(other)),
        }
    }
    let filter = match &filters[..] {
        [] => None,
        [one] => Some((*one).to_owned()),
        several => Some(several.iter().map(|text| format!("({text})")).collect::<Vec<_>>().join(" AND ")),
    };
    Ok((columns, filter))
}

const fn no_shape(step: &TransformStep) -> &'static str {
    match step {
        TransformStep::Rename(_) => "`rename` is no part of a shape",
        TransformStep::Mask(_) => "`mask` is no part of a shape",
        TransformStep::Set(_) => "`set` is no part of a shape",
        TransformStep::Split(_) => "`split` is no part of a shape",
        TransformStep::Origin(_) => "`origin` is no part of a shape",
        TransformStep::Dedup(_) => "`dedup` is no part of a shape",
        TransformStep::Lookup(_) => "`lookup` is no part of a shape",
        _ => "a step that takes values apart is no part of a shape",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(steps: &str) -> Result<(Vec<String>, Option<String>), &'static str> {
        wanted(&serde_json::from_str(&format!(r#"{{"from":"a","to":"b","transform":{steps}}}"#)).unwrap())
    }

    #[test]
    fn filters_and_columns_are_a_shape_and_nothing_else_is() {
        assert_eq!(of("[]"), Ok((vec![], None)));
        assert_eq!(of(r#"[{"filter":"a = 1"}]"#), Ok((vec![], Some("a = 1".into()))));
        let both = of(r#"[{"filter":"a = 1 OR b"},{"columns":["id","a"]},{"filter":"a < 9"}]"#);
        assert_eq!(both, Ok((vec!["id".into(), "a".into()], Some("(a = 1 OR b) AND (a < 9)".into()))));
        assert_eq!(of(r#"[{"mask":{"phone":"hash"}}]"#), Err("`mask` is no part of a shape"));
    }
}
