//! What encoders see: a change of the journal, or one that left a flow's transforms, with its values at hand.

use crate::deliver::sink::OutChange;
use base::row::{MalformedRow, RowView};
use base::{Change, Column, Ddl, Op, Table, Txn, ValueRef};

/// The values of a row in column order; `None` for one that is absent from the image.
pub type Image<'a> = Vec<Option<ValueRef<'a>>>;

/// Where an event stands among those of its transaction, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventPlace {
    pub total_order: u64,
    /// Among those of its table.
    pub data_collection_order: u64,
}

impl EventPlace {
    /// The place of the event that follows `behind` others of the same change.
    pub fn behind(self, behind: u64) -> Self {
        Self {
            total_order: self.total_order + behind,
            data_collection_order: self.data_collection_order + behind,
        }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub epoch: u32,
    pub lsn: u64,
    pub op: Op,
    pub table: &'a Table,
    pub ts_ms: i64,
    pub txn: Option<&'a Txn>,
    pub before: Option<Image<'a>>,
    pub after: Option<Image<'a>>,
    pub ddl: Option<&'a Ddl>,
    /// `debezium`: the place of the first event that this change makes, where the flow tells places.
    pub place: Option<EventPlace>,
}

impl<'a> Record<'a> {
    /// A change as the journal has it.
    pub fn of_change(change: &'a Change<'a>) -> Result<Self, MalformedRow> {
        let image = |row: Option<RowView<'a>>| row.map(|row| row.iter().collect()).transpose();
        Ok(Self {
            epoch: change.epoch,
            lsn: change.lsn,
            op: change.op,
            table: &change.table,
            ts_ms: change.ts_ms,
            txn: change.txn.as_ref(),
            before: image(change.before)?,
            after: image(change.after)?,
            ddl: change.ddl.as_deref(),
            place: None,
        })
    }

    /// A change as a flow sends it.
    pub fn of_out(change: &'a OutChange) -> Self {
        let image = |row: &'a Option<Vec<base::Value>>| {
            row.as_ref().map(|row| row.iter().map(|value| Some(value.as_ref())).collect())
        };
        Self {
            epoch: change.epoch,
            lsn: change.lsn,
            op: change.op,
            table: &change.table,
            ts_ms: change.ts_ms,
            txn: change.txn.as_ref(),
            before: image(&change.before),
            after: image(&change.after),
            ddl: change.ddl.as_deref(),
            place: None,
        }
    }

    /// The row as it is, or as it was when it is gone.
    pub fn row(&self) -> Option<&Image<'a>> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// The columns and values of an image that are there.
    pub fn cells<'r>(&'r self, image: &'r Image<'a>) -> impl Iterator<Item = (&'r Column, ValueRef<'a>)> {
        self.table.columns.iter().zip(image).filter_map(|(column, value)| Some((column, (*value)?)))
    }

    /// The key's columns and values.
    pub fn key_cells<'r>(&'r self, image: &'r Image<'a>) -> impl Iterator<Item = (&'r Column, ValueRef<'a>)> {
        let cell = |index: &usize| Some((&self.table.columns[*index], (*image.get(*index)?)?));
        self.table.key.iter().filter_map(cell)
    }

    /// The old values of the columns that an update changed.
    pub fn changed<'r>(&'r self) -> impl Iterator<Item = (&'r Column, ValueRef<'a>)> {
        let rows = self.before.as_ref().zip(self.after.as_ref());
        let cells = rows.map(|(before, after)| self.table.columns.iter().zip(before).zip(after));
        cells.into_iter().flatten().filter_map(|((column, old), new)| {
            let old = (*old)?;
            (Some(old) != *new).then_some((column, old))
        })
    }
}
