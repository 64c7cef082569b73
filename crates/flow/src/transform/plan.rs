//! A flow's steps for one table at one version, and what they make of a row.

use super::expr::{Condition, Output, Row, Scope, Slot};
use super::mask::masked;
use super::{EvalError, Step, TransformError};
use crate::config::Mask;
use base::{Column, ColumnType, Op, RowView, Table, TableName, Value, ValueRef};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A row after the rules; a filter may have turned an update into something else.
#[derive(Clone, Debug, PartialEq)]
pub struct OutRow {
    pub op: Op,
    pub before: Option<Vec<Value>>,
    pub after: Option<Vec<Value>>,
}

/// The rules for one table at one version.
#[derive(Clone, Debug)]
pub struct TablePlan {
    table: Arc<Table>,
    steps: Vec<PlannedStep>,
    /// Where each column of the output comes from.
    columns: Vec<Slot>,
    plain: bool,
}

#[derive(Clone, Debug)]
enum PlannedStep {
    Filter(Condition),
    /// Each output takes the next computed slot.
    Set(Vec<Output>),
    Mask(Vec<MaskedSlot>),
}

#[derive(Clone, Debug)]
struct MaskedSlot {
    slot: Slot,
    mask: Mask,
    labels: Vec<String>,
}

/// The columns between two steps.
struct Planner<'a> {
    source: &'a Table,
    columns: Vec<(Slot, Column)>,
    computed: usize,
    steps: Vec<PlannedStep>,
}

pub(super) fn plan(
    steps: &[Step],
    name: TableName,
    source: &Arc<Table>,
) -> Result<TablePlan, TransformError> {
    let columns = source.columns.iter().cloned().enumerate().map(|(i, column)| (Slot::Source(i), column));
    let mut planner = Planner { source, columns: columns.collect(), computed: 0, steps: Vec::new() };
    for (index, step) in steps.iter().enumerate() {
        planner.step(index, step)?;
    }
    let Planner { columns, steps: planned, .. } = planner;
    let place = |old: usize| columns.iter().position(|(slot, _)| *slot == Slot::Source(old));
    let key: Option<Vec<usize>> = source.key.iter().map(|old| place(*old)).collect();
    let key = key.ok_or_else(|| TransformError {
        path: "transform".into(),
        message: format!("the key of table `{}` is not among the columns", source.name),
        hint: "keep every key column: without them rows have no name in the sink".into(),
    })?;
    let unique_keys =
        source.unique_keys.iter().filter_map(|k| k.iter().map(|old| place(*old)).collect()).collect();
    let plain = steps.is_empty();
    let table = if plain && name == source.name {
        Arc::clone(source)
    } else {
        Arc::new(Table {
            id: source.id,
            version: source.version,
            name,
            columns: columns.iter().map(|(_, c)| c.clone()).collect(),
            key,
            unique_keys,
        })
    };
    Ok(TablePlan {
        table,
        steps: planned,
        columns: columns.into_iter().map(|(slot, _)| slot).collect(),
        plain,
    })
}

impl Planner<'_> {
    /// Two columns of one name would be one in the sink.
    fn refuse_twins(&self, path: impl Fn() -> String) -> Result<(), TransformError> {
        let twin = self.columns.iter().enumerate().find(|(index, (_, column))| {
            self.columns[..*index].iter().any(|(_, other)| other.name.eq_ignore_ascii_case(&column.name))
        });
        twin.map_or(Ok(()), |(_, (_, column))| {
            Err(TransformError {
                path: path(),
                message: format!("table `{}` would have two columns `{}`", self.source.name, column.name),
                hint: "give each column a name of its own".into(),
            })
        })
    }

    fn step(&mut self, index: usize, step: &Step) -> Result<(), TransformError> {
        let path = |verb: &str| format!("transform[{index}].{verb}");
        match step {
            Step::Filter(expression) => {
                let bound = expression.bind_condition(&self.scope());
                let condition = bound.map_err(|refusal| TransformError::refused(path("filter"), refusal))?;
                self.steps.push(PlannedStep::Filter(condition));
            }
            Step::Columns(names) => {
                let mut kept = Vec::new();
                for name in names {
                    kept.push(self.columns[self.find(name, || path("columns"))?].clone());
                }
                self.columns = kept;
                self.refuse_twins(|| path("columns"))?;
            }
            Step::Rename(names) => {
                let mut places = Vec::new();
                for (old, new) in names {
                    places.push((self.find(old, || path("rename"))?, new));
                }
                for (at, new) in places {
                    self.columns[at].1.name.clone_from(new);
                }
                self.refuse_twins(|| path("rename"))?;
            }
            Step::Mask(masks) => self.mask(masks, &path("mask"))?,
            Step::Set(columns) => {
                // All of a step see the values before it.
                let mut outputs = Vec::new();
                for (name, expression) in columns {
                    let path = || path(&format!("set.{name}"));
                    if let Some(at) = self.position(name) {
                        self.refuse_key(at, path)?;
                    }
                    let output = expression.bind_column(name, &self.scope());
                    outputs.push(output.map_err(|refusal| TransformError::refused(path(), refusal))?);
                }
                for output in &outputs {
                    let made = (self.next_slot(), output.column.clone());
                    match self.position(&output.column.name) {
                        Some(at) => self.columns[at] = made,
                        None => self.columns.push(made),
                    }
                }
                self.steps.push(PlannedStep::Set(outputs));
            }
        }
        Ok(())
    }

    fn mask(&mut self, masks: &BTreeMap<String, Mask>, path: &str) -> Result<(), TransformError> {
        let mut slots = Vec::new();
        for (name, mask) in masks {
            let at = self.find(name, || path.to_owned())?;
            self.refuse_key(at, || path.to_owned())?;
            let made = self.next_slot();
            let (slot, column) = &mut self.columns[at];
            let labels = match &column.ty {
                ColumnType::Enum { labels } | ColumnType::Set { labels } => labels.clone(),
                _ => Vec::new(),
            };
            slots.push(MaskedSlot { slot: std::mem::replace(slot, made), mask: *mask, labels });
            if *mask == Mask::Null {
                column.nullable = true;
            } else {
                column.ty = ColumnType::Text { chars_max: 4_294_967_295 };
                column.sql_type = "longtext".into();
                column.charset = Some("utf8mb4".into());
                column.collation = None;
            }
        }
        self.steps.push(PlannedStep::Mask(slots));
        Ok(())
    }

    fn next_slot(&mut self) -> Slot {
        self.computed += 1;
        Slot::Computed(self.computed - 1)
    }

    fn scope(&self) -> Scope<'_> {
        let columns = self.columns.iter().map(|(slot, column)| (*slot, column)).collect();
        Scope { table: self.source.name.to_string(), columns }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(_, c)| c.name.eq_ignore_ascii_case(name))
    }

    fn find(&self, name: &str, path: impl Fn() -> String) -> Result<usize, TransformError> {
        self.position(name).ok_or_else(|| TransformError {
            path: path(),
            message: format!("table `{}` has no column `{name}`", self.source.name),
            hint: "name a column the table has, or split the flow by table".into(),
        })
    }

    /// A key that is hidden or computed would merge rows.
    fn refuse_key(&self, at: usize, path: impl Fn() -> String) -> Result<(), TransformError> {
        let (slot, column) = &self.columns[at];
        if !self.source.key.iter().any(|key| *slot == Slot::Source(*key)) {
            return Ok(());
        }
        Err(TransformError {
            path: path(),
            message: format!("`{}` is part of the key of `{}`", column.name, self.source.name),
            hint: "a masked or computed key would merge rows: take other columns".into(),
        })
    }
}

impl TablePlan {
    /// The table as the sink shall see it.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// One row of the source: one value a column of [`Self::table`], or `None` when a filter keeps it back.
    pub fn apply(&self, row: RowView<'_>) -> Result<Option<Vec<Value>>, EvalError> {
        let malformed = |e: base::row::MalformedRow| EvalError(e.to_string());
        if self.plain {
            return row.values().map(Some).map_err(malformed);
        }
        let source: Result<Vec<ValueRef<'_>>, _> =
            row.iter().map(|value| value.map(|value| value.unwrap_or(ValueRef::Null))).collect();
        let source = source.map_err(malformed)?;
        let mut computed: Vec<Value> = Vec::new();
        for step in &self.steps {
            let row = Row { source: &source, computed: &computed };
            match step {
                PlannedStep::Filter(condition) => {
                    if !condition.passes(row)? {
                        return Ok(None);
                    }
                }
                PlannedStep::Set(outputs) => {
                    let values: Result<Vec<_>, _> = outputs
                        .iter()
                        .map(|output| {
                            output.value(row).map_err(|e| EvalError(format!("`{}`: {e}", output.column.name)))
                        })
                        .collect();
                    computed.extend(values?);
                }
                PlannedStep::Mask(slots) => {
                    let values: Vec<_> =
                        slots.iter().map(|s| masked(s.mask, row.get(s.slot), &s.labels)).collect();
                    computed.extend(values);
                }
            }
        }
        let row = Row { source: &source, computed: &computed };
        Ok(Some(self.columns.iter().map(|slot| row.get(*slot).to_value()).collect()))
    }

    /// A row of which only the key is known, the rest NULL: what can be shown of a row that has no answer.
    pub fn key_only(&self, row: RowView<'_>) -> Option<Vec<Value>> {
        let value = |index: usize| match self.columns[index] {
            Slot::Source(source) => Some(row.get(source).ok()?.map_or(Value::Null, ValueRef::to_value)),
            Slot::Computed(_) => Some(Value::Null),
        };
        let known = |index| if self.table.key.contains(&index) { value(index) } else { Some(Value::Null) };
        (0..self.columns.len()).map(known).collect()
    }

    /// Both images of a change; `None` when no image passes. An update of which one image passes comes or goes: it
    /// becomes an insert or a delete.
    pub fn apply_change(
        &self,
        before: Option<RowView<'_>>,
        after: Option<RowView<'_>>,
        op: Op,
    ) -> Result<Option<OutRow>, EvalError> {
        let applied = |row: Option<RowView<'_>>| row.map(|row| self.apply(row)).transpose();
        let (had_before, had_after) = (before.is_some(), after.is_some());
        let (before, after) = (applied(before)?.flatten(), applied(after)?.flatten());
        let op = match (had_before && had_after, before.is_some(), after.is_some()) {
            (_, false, false) if had_before || had_after => return Ok(None),
            (true, true, false) => Op::Delete,
            (true, false, true) => Op::Insert,
            _ => op,
        };
        Ok(Some(OutRow { op, before, after }))
    }
}
