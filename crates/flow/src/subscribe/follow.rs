//! A shape along the journal: what each change is to it, while the table's definition changes.

use super::shape::{Effect, Shape, ShapeError, ShapePlan};
use super::wire::{self, Op, ShapeColumn};
use base::row::MalformedRow;
use base::{Change, Ddl, Table};
use std::sync::Arc;

/// What a change was.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing to this shape.
    Nothing,
    /// Something, which was appended.
    Rows(Effect),
    /// The rows behind it have these columns.
    Schema(Vec<ShapeColumn>),
    /// The shape cannot be followed past it in this way.
    End(End),
}

/// Why a shape is not followed further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The table begins to be read anew: what its rows are is known when all have come.
    Anew,
    /// The key is another, or what is known of rows does not prove what they were: a copy begins anew.
    Again,
    /// Continuity with the history before is not proven.
    Epoch,
    /// The table is no more, or has another name.
    Gone(String),
    /// The shape does not fit the table any more.
    Broken(ShapeError),
}

/// Follows one shape. Cheap but for the scratch buffer.
#[derive(Clone, Debug)]
pub struct Follower {
    pub shape: Arc<Shape>,
    pub table: u32,
    epoch: u32,
    /// By the definition that the last rows had; `None` until one is known.
    plan: Option<Arc<ShapePlan>>,
    /// What the client was told of columns.
    told: Option<Vec<ShapeColumn>>,
    /// The table's version that the client's copy has, where its columns were not told yet.
    version: u32,
    scratch: Vec<u8>,
}

impl Follower {
    /// Behind a place where the table had the version `version`. `plan` is given where it is known, and has been told.
    pub fn new(
        shape: Arc<Shape>,
        (table, version): (u32, u32),
        epoch: u32,
        plan: Option<Arc<ShapePlan>>,
    ) -> Self {
        let told = plan.as_ref().map(|plan| plan.schema.clone());
        Self { shape, table, epoch, plan, told, version, scratch: Vec::new() }
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The version of the table that rows have now.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn plan(&self) -> Option<&Arc<ShapePlan>> {
        self.plan.as_ref()
    }

    /// Whether a change may be more than nothing to the shape; what is cheap to say.
    pub fn concerns(&self, change: &Change<'_>) -> bool {
        change.table.id == self.table
            || change.epoch != self.epoch
            || change
                .ddl
                .as_ref()
                .is_some_and(|ddl| ddl.before.as_ref().is_some_and(|table| table.id == self.table))
    }

    /// Takes the next change; appends to the body of a batch.
    ///
    /// A definition that rows have without a statement before them is told first: then the change is to be taken once more.
    pub fn take(&mut self, change: &Change<'_>, out: &mut Vec<u8>) -> Result<Taken, MalformedRow> {
        if change.epoch != self.epoch {
            return Ok(Taken::End(End::Epoch));
        }
        match change.op {
            base::Op::Ddl => Ok(change.ddl.as_ref().map_or(Taken::Nothing, |ddl| self.statement(ddl))),
            base::Op::Truncate if change.table.id != self.table => Ok(Taken::Nothing),
            base::Op::Truncate if change.txn.is_none() => Ok(Taken::End(End::Anew)),
            base::Op::Truncate => {
                wire::put_change(out, Op::Truncate, change.lsn, change.ts_ms, std::iter::empty());
                Ok(Taken::Rows(Effect::Emptied))
            }
            _ if change.table.id != self.table => Ok(Taken::Nothing),
            _ => {
                if self.plan.as_ref().is_none_or(|plan| plan.table.version != change.table.version) {
                    match self.know(&change.table, &[]) {
                        Taken::Nothing => {}
                        other => return Ok(other),
                    }
                }
                let Some(plan) = &self.plan else { return Ok(Taken::Nothing) };
                Ok(match plan.take(change, out, &mut self.scratch)? {
                    None => Taken::Nothing,
                    Some(Effect::Unproven) => Taken::End(End::Again),
                    Some(effect) => Taken::Rows(effect),
                })
            }
        }
    }

    fn statement(&mut self, ddl: &Ddl) -> Taken {
        if ddl.before.as_ref().is_none_or(|table| table.id != self.table) {
            return Taken::Nothing;
        }
        let name = &self.shape.spec.table;
        match &ddl.after {
            None => Taken::End(End::Gone(format!("table `{name}` was dropped"))),
            Some(after) if after.id != self.table => {
                Taken::End(End::Gone(format!("table `{name}` was made anew")))
            }
            Some(after) if after.name != *name => {
                Taken::End(End::Gone(format!("table `{name}` is called `{}` now", after.name)))
            }
            Some(after) => {
                let was = |name: &str| {
                    let renamed = ddl.column_renames.iter().find(|(old, _)| old.eq_ignore_ascii_case(name));
                    renamed.map_or(name, |(_, new)| new).to_lowercase()
                };
                let before = ddl.before.as_ref().map(|table| key_names(table, was));
                if before.is_some_and(|before| before != key_names(after, |name| name.to_lowercase())) {
                    return Taken::End(End::Again);
                }
                // Who attached before it was told of the columns before, whatever was known of the table by then.
                let before = ddl.before.as_ref().and_then(|before| self.shape.plan(before).ok());
                let changes = self
                    .shape
                    .plan(after)
                    .is_ok_and(|after| before.is_none_or(|before| before.schema != after.schema));
                if changes {
                    (self.told, self.version) = (None, 0);
                }
                self.know(after, &ddl.column_renames)
            }
        }
    }

    /// The rows that follow have this definition.
    fn know(&mut self, table: &Arc<Table>, renames: &[(String, String)]) -> Taken {
        let plan = match self.shape.plan(table) {
            Ok(plan) => plan,
            Err(error) => return Taken::End(End::Broken(error)),
        };
        let is_known = match &self.told {
            Some(told) => *told == plan.schema,
            None => table.version == self.version,
        };
        let mut schema = plan.schema.clone();
        self.told = Some(plan.schema.clone());
        self.version = table.version;
        self.plan = Some(Arc::new(plan));
        if is_known {
            return Taken::Nothing;
        }
        for column in &mut schema {
            let renamed = renames.iter().find(|(_, new)| new.eq_ignore_ascii_case(&column.name));
            column.was = renamed.map(|(old, _)| old.clone());
        }
        Taken::Schema(schema)
    }
}

fn key_names(table: &Table, name: impl Fn(&str) -> String) -> Vec<String> {
    table.key.iter().map(|index| name(&table.columns[*index].name)).collect()
}
