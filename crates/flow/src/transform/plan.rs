//! A flow's steps for one table at one version, and what they make of a row.

use super::dedup::Dedup;
use super::expr::{Condition, Output, Row, Scope, Slot};
use super::mask::masked;
use super::process::{Bound, Fate, Input, Split, SplitPlan};
use super::{EvalError, Step, TransformError};
use crate::config::Mask;
use base::{Column, ColumnType, Generated, Op, RowView, Table, TableName, Value, ValueRef};
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
    /// Whether a row becomes several; the last column of the key is then the place among them.
    splits: bool,
    /// Whose the rows are, where tables are merged into one; the first column of the key, where there is one.
    origin: Option<Origin>,
}

/// A column with one value for all rows of a table.
#[derive(Clone, Debug)]
struct Origin {
    /// Of [`TablePlan::table`].
    column: usize,
    value: Value,
}

/// Bytes of the longest name of a source, and of a database and a table with the dots between.
const ORIGIN_CHARS_MAX: u32 = 194;

#[derive(Clone, Debug)]
enum PlannedStep {
    Filter(Condition),
    /// Each output takes the next computed slot.
    Set(Vec<Output>),
    Mask(Vec<MaskedSlot>),
    /// Its columns take the next computed slots.
    Process(Box<Bound>),
    /// The element and its place take the next two computed slots.
    Split(Box<SplitPlan>),
    /// It takes the next computed slot.
    Origin(Value),
    /// The columns of its key.
    Dedup(Arc<Dedup>, Vec<Slot>),
}

/// How far the steps came with a row.
enum Reached {
    End,
    LeftOut,
    /// A row becomes several at this step.
    Split(usize),
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
    source_name: &'a str,
    columns: Vec<(Slot, Column)>,
    computed: usize,
    steps: Vec<PlannedStep>,
    /// The place of an element, behind a `split`.
    place: Option<Slot>,
    /// Where the name of the table is, behind an `origin`, and that name.
    origin: Option<(Slot, Value)>,
    /// Whether there are columns of another table's rows.
    looked_up: bool,
}

pub(super) fn plan(
    steps: &[Step],
    source_name: &str,
    name: TableName,
    source: &Arc<Table>,
) -> Result<TablePlan, TransformError> {
    let columns = source.columns.iter().cloned().enumerate().map(|(i, column)| (Slot::Source(i), column));
    let mut planner = Planner {
        source,
        source_name,
        columns: columns.collect(),
        computed: 0,
        steps: Vec::new(),
        place: None,
        origin: None,
        looked_up: false,
    };
    for (index, step) in steps.iter().enumerate() {
        planner.step(index, step)?;
    }
    let Planner { columns, steps: planned, place: element, origin, .. } = planner;
    let at = |wanted: Slot| columns.iter().position(|(slot, _)| *slot == wanted);
    let place = |old: usize| at(Slot::Source(old));
    let lost = || TransformError {
        path: "transform".into(),
        message: "the column of `origin` is not among the columns".into(),
        hint: "keep it: it tells whose a row is".into(),
    };
    let origin = origin.map(|(slot, value)| at(slot).map(|column| Origin { column, value }).ok_or_else(lost));
    let origin = origin.transpose()?;
    let whose = origin.as_ref().filter(|_| !source.key.is_empty()).map(|origin| Some(origin.column));
    let own = source.key.iter().map(|old| place(*old));
    let key: Option<Vec<usize>> = whose.into_iter().chain(own).chain(element.map(at)).collect();
    let key = key.ok_or_else(|| TransformError {
        path: "transform".into(),
        message: format!("the key of table `{}` is not among the columns", source.name),
        hint: "keep every key column: without them rows have no name in the sink".into(),
    })?;
    let unique_keys = match element {
        None => source.unique_keys.iter().filter_map(|k| k.iter().map(|old| place(*old)).collect()).collect(),
        // The elements of a row share them.
        Some(_) => Vec::new(),
    };
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
        splits: element.is_some(),
        origin,
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
                self.refuse_behind_lookup(|| path("filter"))?;
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
                    self.put(output.column.clone());
                }
                self.steps.push(PlannedStep::Set(outputs));
            }
            Step::Process(process) => {
                let path = || path(process.verb);
                if process.table_lookup().is_some() {
                    self.looked_up = true;
                    if self.source.key.is_empty() {
                        return Err(TransformError {
                            path: path(),
                            message: format!("table `{}` has no key, so its rows are known by their columns", self.source.name),
                            hint: "what is looked up may change between a row's insert and its delete: give the table a primary key".into(),
                        });
                    }
                }
                let bound = process.bind(|name| {
                    let (slot, column) = &self.columns[self.find(name, path)?];
                    Ok((*slot, column))
                });
                let bound = bound.map_err(|error| error.at(path()))?;
                for column in process.columns() {
                    if let Some(at) = self.position(&column.name) {
                        self.refuse_key(at, path)?;
                    }
                    self.put(column.clone());
                }
                self.steps.push(PlannedStep::Process(Box::new(bound)));
            }
            Step::Split(split) => {
                self.refuse_behind_lookup(|| path("split"))?;
                self.split(split, &path("split"))?;
            }
            Step::Origin(name) => self.origin(name, &path("origin"))?,
            Step::Dedup(dedup) => {
                let path = || path("dedup");
                self.refuse_behind_lookup(path)?;
                if self.place.is_some() {
                    return Err(TransformError {
                        path: path(),
                        message: "it stands behind a `split`, whose rows are parts of one".into(),
                        hint: "put it before the split".into(),
                    });
                }
                let slot = |name: &String| Ok(self.columns[self.find(name, path)?].0);
                let slots = dedup.key.iter().map(slot).collect::<Result<_, TransformError>>()?;
                self.steps.push(PlannedStep::Dedup(Arc::clone(dedup), slots));
            }
        }
        if self.place.is_some() && self.origin.is_some() {
            return Err(TransformError {
                path: path("origin"),
                message: "rows that become several cannot be told apart by their origin".into(),
                hint: "split in a flow of its own".into(),
            });
        }
        Ok(())
    }

    /// A column that a step made: in the place of one of its name, or behind all.
    fn put(&mut self, column: Column) -> Slot {
        let slot = self.next_slot();
        match self.position(&column.name) {
            Some(at) => self.columns[at] = (slot, column),
            None => self.columns.push((slot, column)),
        }
        slot
    }

    fn origin(&mut self, name: &str, path: &str) -> Result<(), TransformError> {
        if self.origin.is_some() || self.position(name).is_some() {
            return Err(TransformError {
                path: path.to_owned(),
                message: format!("table `{}` has a column `{name}` already", self.source.name),
                hint: "name one column of its own, once".into(),
            });
        }
        let value = Value::Text(format!("{}.{}", self.source_name, self.source.name));
        let slot = self.put(Column {
            name: name.to_owned(),
            ty: ColumnType::Text { chars_max: ORIGIN_CHARS_MAX.into() },
            sql_type: format!("varchar({ORIGIN_CHARS_MAX})"),
            nullable: false,
            charset: Some("utf8mb4".into()),
            collation: Some("utf8mb4_bin".into()),
            generated: Generated::No,
            invisible: false,
        });
        self.steps.push(PlannedStep::Origin(value.clone()));
        self.origin = Some((slot, value));
        Ok(())
    }

    fn split(&mut self, split: &Split, path: &str) -> Result<(), TransformError> {
        let refused = |message: String, hint: &str| {
            Err(TransformError { path: path.to_owned(), message, hint: hint.to_owned() })
        };
        if self.place.is_some() {
            return refused("a row is split already".into(), "split once, or in two flows");
        }
        if self.source.key.is_empty() {
            let message =
                format!("table `{}` has no key, so its elements would have no name", self.source.name);
            return refused(message, "give the table a primary key");
        }
        let at = self.find(&split.input, || path.to_owned())?;
        self.refuse_key(at, || path.to_owned())?;
        let (slot, column) = &self.columns[at];
        let input = Input::new(*slot, column, "split").map_err(|error| error.at(path.to_owned()))?;
        let [element, index] = split.columns(column);
        if self.position(&index.name).is_some() {
            let message = format!("table `{}` has a column `{}` already", self.source.name, index.name);
            return refused(message, "name the column of the place: index: position");
        }
        self.put(element);
        self.place = Some(self.put(index));
        self.steps.push(PlannedStep::Split(Box::new(split.bind(input))));
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

    /// Whether a row passes must not depend on when it is asked.
    fn refuse_behind_lookup(&self, path: impl Fn() -> String) -> Result<(), TransformError> {
        if !self.looked_up {
            return Ok(());
        }
        Err(TransformError {
            path: path(),
            message: "it stands behind a `lookup` in a table, whose answer changes: a row that was delivered could not be taken back".into(),
            hint: "put it before the lookup".into(),
        })
    }

    /// A key that is hidden or computed would merge rows.
    fn refuse_key(&self, at: usize, path: impl Fn() -> String) -> Result<(), TransformError> {
        let (slot, column) = &self.columns[at];
        let own = self.source.key.iter().any(|key| *slot == Slot::Source(*key));
        if !own && self.place != Some(*slot) && self.origin.as_ref().is_none_or(|(origin, _)| origin != slot)
        {
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

    /// Whether a row becomes several.
    pub fn splits(&self) -> bool {
        self.splits
    }

    /// A row that is NULL but for whose it is, where tables are merged into one: it names all rows of this table.
    pub fn origin(&self) -> Option<Vec<Value>> {
        let origin = self.origin.as_ref()?;
        let mut row = vec![Value::Null; self.columns.len()];
        row[origin.column] = origin.value.clone();
        Some(row)
    }

    /// One row of the source: one value a column of [`Self::table`], or `None` when a step keeps it back. For plans that do
    /// not split; see [`Self::rows`].
    pub fn apply(&self, row: RowView<'_>) -> Result<Option<Vec<Value>>, EvalError> {
        if self.plain {
            return row.values().map(Some).map_err(malformed);
        }
        let source = values(row)?;
        let mut computed: Vec<Value> = Vec::new();
        match self.run(0, &source, &mut computed)? {
            Reached::End => Ok(Some(self.output(&source, &computed))),
            Reached::LeftOut => Ok(None),
            Reached::Split(_) => Err(EvalError("a row that becomes several stands for none of them".into())),
        }
    }

    /// All that becomes of one row of the source, each with its place among the elements of the row.
    fn rows(&self, row: RowView<'_>) -> Result<Vec<(usize, Vec<Value>)>, EvalError> {
        let source = values(row)?;
        let mut computed: Vec<Value> = Vec::new();
        let step = match self.run(0, &source, &mut computed)? {
            Reached::End => return Ok(vec![(0, self.output(&source, &computed))]),
            Reached::LeftOut => return Ok(Vec::new()),
            Reached::Split(step) => step,
        };
        let PlannedStep::Split(split) = &self.steps[step] else { return Ok(Vec::new()) };
        let elements = split.elements(Row { source: &source, computed: &computed })?;
        let (shared, mut out) = (computed.len(), Vec::new());
        for (place, element) in elements.into_iter().enumerate() {
            computed.truncate(shared);
            computed.extend([element, Value::Int(place as i64)]);
            if let Reached::End = self.run(step + 1, &source, &mut computed)? {
                out.push((place, self.output(&source, &computed)));
            }
        }
        Ok(out)
    }

    /// The steps from `first` on; each appends what it computes.
    fn run(
        &self,
        first: usize,
        source: &[ValueRef<'_>],
        computed: &mut Vec<Value>,
    ) -> Result<Reached, EvalError> {
        for (index, step) in self.steps.iter().enumerate().skip(first) {
            let row = Row { source, computed: &*computed };
            match step {
                PlannedStep::Filter(condition) => {
                    if !condition.passes(row)? {
                        return Ok(Reached::LeftOut);
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
                PlannedStep::Process(bound) => {
                    let mut values = Vec::new();
                    if bound.run(row, &mut values)? == Fate::LeftOut {
                        return Ok(Reached::LeftOut);
                    }
                    computed.extend(values);
                }
                PlannedStep::Split(_) => return Ok(Reached::Split(index)),
                PlannedStep::Origin(value) => computed.push(value.clone()),
                PlannedStep::Dedup(dedup, slots) => {
                    if !dedup.passes(&self.table.name, slots.iter().map(|slot| row.get(*slot))) {
                        return Ok(Reached::LeftOut);
                    }
                }
            }
        }
        Ok(Reached::End)
    }

    fn output(&self, source: &[ValueRef<'_>], computed: &[Value]) -> Vec<Value> {
        let row = Row { source, computed };
        self.columns.iter().map(|slot| row.get(*slot).to_value()).collect()
    }

    /// What names a row of the source in all that it became: the key without the place among the elements.
    pub fn row_key(&self, row: RowView<'_>) -> Option<Vec<Value>> {
        let own = &self.table.key[..self.table.key.len() - usize::from(self.splits)];
        own.iter()
            .map(|index| match self.columns[*index] {
                Slot::Source(source) => Some(row.get(source).ok()?.map_or(Value::Null, ValueRef::to_value)),
                Slot::Computed(_) => self.origin.as_ref().map(|origin| origin.value.clone()),
            })
            .collect()
    }

    /// A row of which only the key is known, the rest NULL: what can be shown of a row that has no answer.
    pub fn key_only(&self, row: RowView<'_>) -> Option<Vec<Value>> {
        let value = |index: usize| match self.columns[index] {
            Slot::Source(source) => Some(row.get(source).ok()?.map_or(Value::Null, ValueRef::to_value)),
            Slot::Computed(_) => {
                Some(self.origin.as_ref().map_or(Value::Null, |origin| origin.value.clone()))
            }
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
        let (had_before, had_after) = (before.is_some(), after.is_some());
        let before = before.map(|row| self.apply_before(row)).transpose()?.flatten();
        let after = after.map(|row| self.apply(row)).transpose()?.flatten();
        let op = match (had_before && had_after, before.is_some(), after.is_some()) {
            (_, false, false) if had_before || had_after => return Ok(None),
            (true, true, false) => Op::Delete,
            (true, false, true) => Op::Insert,
            _ => op,
        };
        Ok(Some(OutRow { op, before, after }))
    }

    /// The image before a change. One that has no answer was parked and never delivered: its key is enough to say which
    /// row it was.
    fn apply_before(&self, row: RowView<'_>) -> Result<Option<Vec<Value>>, EvalError> {
        match self.apply(row) {
            Err(error) if self.table.key.is_empty() => Err(error),
            Err(error) => self.key_only(row).map(Some).ok_or(error),
            answer => answer,
        }
    }

    /// The same where rows become several: elements that are only before are deletes, those only after inserts, and of
    /// the others the ones that differ are updates; in the order of their places.
    pub fn apply_split(
        &self,
        before: Option<RowView<'_>>,
        after: Option<RowView<'_>>,
        op: Op,
    ) -> Result<Vec<OutRow>, EvalError> {
        let after = after.map_or(Ok(Vec::new()), |row| self.rows(row))?;
        // What has no answer was parked and made no rows.
        let before = before.map_or_else(Vec::new, |row| self.rows(row).unwrap_or_default());
        let come = if op == Op::Read { Op::Read } else { Op::Insert };
        let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
        let mut out = Vec::new();
        loop {
            let (old, new) = match (before.peek(), after.peek()) {
                (None, None) => return Ok(out),
                (Some((old, _)), Some((new, _))) => (old <= new, new <= old),
                (old, new) => (old.is_some(), new.is_some()),
            };
            let old = before.next_if(|_| old).map(|(_, row)| row);
            let new = after.next_if(|_| new).map(|(_, row)| row);
            let op = match (&old, &new) {
                (Some(old), Some(new)) if old == new => continue,
                (Some(_), Some(_)) => Op::Update,
                (Some(_), None) => Op::Delete,
                (None, _) => come,
            };
            out.push(OutRow { op, before: old, after: new });
        }
    }
}

fn malformed(error: base::row::MalformedRow) -> EvalError {
    EvalError(error.to_string())
}

fn values(row: RowView<'_>) -> Result<Vec<ValueRef<'_>>, EvalError> {
    row.iter().map(|value| value.map(|value| value.unwrap_or(ValueRef::Null)).map_err(malformed)).collect()
}
