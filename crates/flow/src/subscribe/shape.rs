//! A shape: a table, some of its columns and a condition on its rows; and what a change of the table is to it.

use super::order::{Order, WindowSpec};
use super::wire::{self, Op, ShapeColumn};
use crate::transform::expr::{Condition, Equality, Expression, Refusal, Row, Scope, Slot};
use base::row::MalformedRow;
use base::{Change, RowView, Table, TableName, ValueRef};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What a client asks for, and what its right to it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShapeSpec {
    pub table: TableName,
    /// All columns where it is empty.
    pub columns: Vec<String>,
    /// A condition; all rows where it is `None`.
    pub filter: Option<String>,
    /// A condition that the caller's right adds.
    pub enforced: Option<String>,
    /// Columns that the caller may see; all where it is `None`.
    pub visible: Option<Vec<String>>,
    /// Only the first rows in an order; all where it is `None`.
    pub window: Option<WindowSpec>,
}

/// Why a shape cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ShapeError {
    pub message: String,
    pub hint: String,
}

impl ShapeError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl From<Refusal> for ShapeError {
    fn from(refusal: Refusal) -> Self {
        Self { message: refusal.message, hint: refusal.hint }
    }
}

/// A shape that was read; the same for all who ask for the same.
#[derive(Debug)]
pub struct Shape {
    pub spec: ShapeSpec,
    /// What tokens know it by.
    pub hash: u64,
    /// What the node knows it by: no caller can make two that are equal.
    pub digest: [u8; 32],
    conditions: Vec<Expression>,
}

impl Shape {
    pub fn compile(source: &str, spec: ShapeSpec) -> Result<Self, ShapeError> {
        let parts = [&spec.filter, &spec.enforced];
        let conditions =
            parts.into_iter().flatten().map(|text| Expression::parse(text)).collect::<Result<_, _>>()?;
        let mut digest = Sha256::new();
        let mut part = |text: &str| {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        part(source);
        part(&spec.table.db);
        part(&spec.table.table);
        for name in &spec.columns {
            part(&name.to_lowercase());
        }
        for text in parts {
            part("where");
            part(text.as_deref().unwrap_or_default());
        }
        for name in spec.visible.iter().flatten() {
            part(&name.to_lowercase());
        }
        if spec.visible.as_ref().is_some_and(Vec::is_empty) {
            part("nothing but the key");
        }
        if let Some(window) = &spec.window {
            part("window");
            part(&window.limit.to_string());
            for (name, descends) in &window.order {
                part(&name.to_lowercase());
                part(if *descends { "desc" } else { "asc" });
            }
        }
        let digest: [u8; 32] = digest.finalize().into();
        let hash = u64::from_le_bytes(digest[..8].try_into().unwrap_or_default());
        Ok(Self { spec, hash, digest, conditions })
    }

    /// Whether what is not of the shape may not be told, not even by its key.
    pub fn is_enforced(&self) -> bool {
        self.spec.enforced.is_some()
    }

    /// The shape over a table as it is defined at one time.
    pub fn plan(&self, table: &Arc<Table>) -> Result<ShapePlan, ShapeError> {
        if table.key.is_empty() {
            return Err(ShapeError::new(
                format!("table `{}` has no key, so its rows have no names", table.name),
                "give it a primary key",
            ));
        }
        let visible = |index: usize| {
            let name = &table.columns[index].name;
            table.key.contains(&index)
                || self
                    .spec
                    .visible
                    .as_ref()
                    .is_none_or(|all| all.iter().any(|own| own.eq_ignore_ascii_case(name)))
        };
        let mut wanted = vec![self.spec.columns.is_empty(); table.columns.len()];
        for name in &self.spec.columns {
            let index = table.column_index(name).filter(|index| visible(*index)).ok_or_else(|| {
                ShapeError::new(
                    format!("table `{}` has no column `{name}` for this caller", table.name),
                    "name columns that the table has, and that the token may see",
                )
            })?;
            wanted[index] = true;
        }
        table.key.iter().for_each(|index| wanted[*index] = true);
        let columns: Vec<usize> =
            (0..table.columns.len()).filter(|index| wanted[*index] && visible(*index)).collect();
        let scope = |enforced: bool| Scope {
            table: table.name.to_string(),
            columns: table
                .columns
                .iter()
                .enumerate()
                .filter(|(index, _)| enforced || visible(*index))
                .map(|(index, column)| (Slot::Source(index), column))
                .collect(),
        };
        // The caller's own condition sees what the caller may see, or it would tell of the rest.
        let own = usize::from(self.spec.filter.is_some());
        let conditions = self
            .conditions
            .iter()
            .enumerate()
            .map(|(place, condition)| condition.bind_condition(&scope(place >= own)))
            .collect::<Result<Vec<_>, _>>()?;
        let schema = columns
            .iter()
            .map(|index| {
                let column = &table.columns[*index];
                let place = table.key.iter().position(|own| own == index);
                ShapeColumn {
                    name: column.name.clone(),
                    ty: column.sql_type.clone(),
                    nullable: column.nullable,
                    key: place.map_or(0, |place| place as u32 + 1),
                    was: None,
                }
            })
            .collect();
        let enforced = self.is_enforced();
        let order = self.spec.window.as_ref().map(|window| Order::new(window, table, visible)).transpose()?;
        Ok(ShapePlan { table: Arc::clone(table), columns, conditions, enforced, schema, order })
    }
}

/// A shape over one version of its table.
#[derive(Debug)]
pub struct ShapePlan {
    pub table: Arc<Table>,
    /// Those that are sent, in the table's order.
    columns: Vec<usize>,
    conditions: Vec<Condition>,
    enforced: bool,
    pub schema: Vec<ShapeColumn>,
    /// Of a window.
    pub order: Option<Order>,
}

/// What a change did to the number of a shape's rows and the sum of their hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    By {
        rows: i64,
        sum: u64,
    },
    /// There are none any more.
    Emptied,
    /// The change does not say what was there before.
    Unknown,
    /// It does not say whether the row was of the shape, and the caller may not be told of rows that never were: nothing is appended.
    Unproven,
}

impl ShapePlan {
    /// A value that rows of the shape must have in a column, where the conditions ask for one.
    pub fn equality(&self) -> Option<Equality> {
        self.conditions.iter().find_map(Condition::equality)
    }

    /// Whether a row is of the shape. One for which a condition fails is not.
    pub fn matches(&self, values: &[ValueRef<'_>]) -> bool {
        let row = Row { source: values, computed: &[] };
        self.conditions.iter().all(|condition| condition.passes(row).unwrap_or(false))
    }

    pub fn cells<'a>(
        &'a self,
        values: &'a [ValueRef<'a>],
    ) -> impl Iterator<Item = (ValueRef<'a>, &'a base::Column)> {
        self.columns
            .iter()
            .map(|index| (values.get(*index).copied().unwrap_or(ValueRef::Null), &self.table.columns[*index]))
    }

    pub fn key<'a>(
        &'a self,
        values: &'a [ValueRef<'a>],
    ) -> impl Iterator<Item = (ValueRef<'a>, &'a base::Column)> {
        self.table
            .key
            .iter()
            .map(|index| (values.get(*index).copied().unwrap_or(ValueRef::Null), &self.table.columns[*index]))
    }

    /// Appends a row as it is.
    pub fn put(&self, out: &mut Vec<u8>, lsn: u64, committed_ms: i64, values: &[ValueRef<'_>]) {
        wire::put_change(out, Op::Put, lsn, committed_ms, self.cells(values));
    }

    /// Appends that a row is gone, or no longer of the shape.
    pub fn put_end(&self, out: &mut Vec<u8>, op: Op, lsn: u64, committed_ms: i64, values: &[ValueRef<'_>]) {
        wire::put_change(out, op, lsn, committed_ms, self.key(values));
    }

    pub fn hash(&self, scratch: &mut Vec<u8>, values: &[ValueRef<'_>]) -> u64 {
        wire::row_hash(scratch, self.cells(values))
    }

    /// Appends what a change of a row is to the shape; `None` when it is nothing.
    pub fn take(
        &self,
        change: &Change<'_>,
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Effect>, MalformedRow> {
        let before = change.before.map(values_of).transpose()?;
        let after = change.after.map(values_of).transpose()?.map(|(values, _)| values);
        let (lsn, ms) = (change.lsn, change.ts_ms);
        let is = after.as_ref().is_some_and(|values| self.matches(values));
        // What a snapshot reads again may have been there, and an image that lacks columns does not say what it was.
        let was = match &before {
            Some((values, true)) => Some(self.matches(values)),
            None if change.op == base::Op::Insert => Some(false),
            _ => None,
        };
        if was == Some(false) && !is {
            return Ok(None);
        }
        if was.is_none() && !is && self.enforced {
            // To say that the row left would tell its key to somebody who may never have seen it.
            return Ok(Some(Effect::Unproven));
        }
        let moved = match (&before, &after) {
            (Some((before, _)), Some(after)) => self.key(before).ne(self.key(after)),
            _ => false,
        };
        if let (true, Some((before, _))) = (moved && was != Some(false), &before) {
            self.put_end(out, Op::Delete, lsn, ms, before);
        }
        match (&before, &after) {
            (_, Some(after)) if is => self.put(out, lsn, ms, after),
            (_, Some(after)) if !moved => self.put_end(out, Op::Leave, lsn, ms, after),
            (Some((before, _)), None) => self.put_end(out, Op::Delete, lsn, ms, before),
            _ => {}
        }
        let (mut rows, mut sum) = (0, 0u64);
        match (was, &before) {
            (None, _) => return Ok(Some(Effect::Unknown)),
            (Some(true), Some((before, _))) => {
                (rows, sum) = (rows - 1, sum.wrapping_sub(self.hash(scratch, before)));
            }
            _ => {}
        }
        if let (true, Some(after)) = (is, &after) {
            (rows, sum) = (rows + 1, sum.wrapping_add(self.hash(scratch, after)));
        }
        Ok(Some(Effect::By { rows, sum }))
    }
}

/// The values of an image, absent ones as NULL, and whether none was absent.
pub fn values_of(row: RowView<'_>) -> Result<(Vec<ValueRef<'_>>, bool), MalformedRow> {
    let mut whole = true;
    let values = row.iter().map(|value| {
        let value = value?;
        whole &= value.is_some();
        Ok(value.unwrap_or(ValueRef::Null))
    });
    let values = values.collect::<Result<_, _>>()?;
    Ok((values, whole))
}
