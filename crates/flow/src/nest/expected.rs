//! What is nested in documents, told from rows that someone else read: for who compares them with the source itself, past the
//! mirror that they were made of.

use super::{Nest, NestError, Projection, ROWS_DEFAULT, chosen, nested_column, no_column, project};
use crate::config::{FlowConfig, NestAs};
use crate::mirror::read::{joined, key_of};
use crate::sinks::elasticsearch::plan::put_document;
use base::{ColumnType, RowBuf, Table, TableName, Value};
use std::collections::HashMap;
use std::mem::discriminant;
use std::sync::Arc;

/// The nested tables of a flow as they are now, in the order of their fields.
pub struct Expected {
    joins: Vec<Join>,
}

/// What a row joins: its bytes, and its values.
pub type Wanted = (Vec<u8>, Vec<Value>);

/// One nested table, by the columns that join it.
pub struct Join {
    nest: Nest,
    /// `None` while the source has no such table: nothing is nested then.
    rows: Option<(Arc<Table>, Projection)>,
}

impl Expected {
    /// `None` for a flow that nests nothing. `of` finds a table of the source.
    pub fn new(
        config: &FlowConfig,
        of: impl Fn(&TableName) -> Option<Arc<Table>>,
    ) -> Result<Option<Self>, NestError> {
        let join = |nest: Nest| {
            let rows = of(&nest.from);
            let rows =
                rows.map(|table| project(&nest, &table, &table).map(|made| (table, made))).transpose()?;
            Ok(Join { nest, rows })
        };
        let joins = nests_of(config).into_iter().map(join).collect::<Result<Vec<_>, NestError>>()?;
        Ok((!joins.is_empty()).then_some(Self { joins }))
    }

    pub fn joins(&self) -> &[Join] {
        &self.joins
    }

    /// The flow's table with the nested columns behind its own.
    pub fn shaped(&self, table: &Table) -> Result<Arc<Table>, NestError> {
        let mut columns = table.columns.clone();
        for Join { nest, rows } in &self.joins {
            let of_rows = match rows {
                Some((rows, _)) => chosen(nest, rows)?.into_iter().cloned().collect(),
                None => Vec::new(),
            };
            columns.push(nested_column(&nest.name, nest.is_list, of_rows));
        }
        Ok(Arc::new(Table { columns, ..table.clone() }))
    }

    /// Why documents cannot be told by asking a server for rows that equal others.
    pub fn unfit(&self, parent: &Table) -> Option<String> {
        self.joins.iter().find_map(|join| join.unfit(parent))
    }
}

impl Join {
    pub fn table(&self) -> Option<&Arc<Table>> {
        self.rows.as_ref().map(|(table, _)| table)
    }

    /// Where the nested table has the columns that it is joined by.
    pub fn columns(&self) -> Result<Vec<usize>, NestError> {
        let Some(table) = self.table() else { return Ok(Vec::new()) };
        places(table, &self.nest.columns).ok_or_else(|| no_column(&self.nest.from, &self.nest.columns))
    }

    /// What a row of the flow's table joins; `None` joins nothing.
    pub fn wanted(&self, parent: &Table, row: &RowBuf) -> Result<Option<Wanted>, NestError> {
        let at = places(parent, &self.nest.equal).ok_or_else(|| no_column(&parent.name, &self.nest.equal))?;
        let Some(bytes) = joined(parent, row.view(), &self.nest.equal) else { return Ok(None) };
        let value = |index: &usize| row.view().get(*index).ok().flatten().map(|value| value.to_value());
        Ok(at.iter().map(value).collect::<Option<Vec<_>>>().map(|values| (bytes, values)))
    }

    /// Rows of the nested table by what joins them, each group in the order of its keys.
    pub fn grouped(&self, found: Vec<RowBuf>) -> HashMap<Vec<u8>, Vec<RowBuf>> {
        let mut out: HashMap<Vec<u8>, Vec<RowBuf>> = HashMap::new();
        let Some(table) = self.table() else { return out };
        for row in found {
            if let Some(bytes) = joined(table, row.view(), &self.nest.columns) {
                out.entry(bytes).or_default().push(row);
            }
        }
        for rows in out.values_mut() {
            rows.sort_by_cached_key(|row| key_of(table, row.view()));
        }
        out
    }

    /// These rows as the document has them; `None` when they are more than it may have.
    pub fn value(&self, rows: &[RowBuf]) -> Option<Value> {
        if rows.len() > self.nest.rows_max {
            return None;
        }
        let Some((_, projection)) = &self.rows else { return Some(self.nothing()) };
        let mut text = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            let values = row.view().values().unwrap_or_default();
            let place =
                |place: &Option<usize>| place.and_then(|at| values.get(at).cloned()).unwrap_or_default();
            let values: Vec<Value> = projection.places.iter().map(place).collect();
            put_document(&mut text, &projection.table, &values);
        }
        let text = String::from_utf8_lossy(&text);
        Some(match (self.nest.is_list, text.is_empty()) {
            (true, _) => Value::Json(format!("[{text}]")),
            (false, true) => Value::Null,
            (false, false) => Value::Json(text.into_owned()),
        })
    }

    fn nothing(&self) -> Value {
        if self.nest.is_list { Value::Json("[]".to_owned()) } else { Value::Null }
    }

    /// A server finds equal what the mirror does, and perhaps more, only among values of one kind.
    fn unfit(&self, parent: &Table) -> Option<String> {
        let table = self.table()?;
        let own = places(parent, &self.nest.equal)?;
        let theirs = places(table, &self.nest.columns)?;
        let is_integer = |ty: &ColumnType| {
            matches!(
                ty,
                ColumnType::TinyInt { .. }
                    | ColumnType::SmallInt { .. }
                    | ColumnType::MediumInt { .. }
                    | ColumnType::Int { .. }
                    | ColumnType::BigInt { .. }
            )
        };
        let differ = own.iter().zip(&theirs).find(|(own, theirs)| {
            let (own, theirs) = (&parent.columns[**own].ty, &table.columns[**theirs].ty);
            discriminant(own) != discriminant(theirs) && !(is_integer(own) && is_integer(theirs))
        });
        differ.map(|(own, theirs)| {
            let (own, theirs) = (&parent.columns[*own].name, &table.columns[*theirs].name);
            format!("`{own}` and `{theirs}` of `{}`, which are joined, are of different types", table.name)
        })
    }
}

fn places(table: &Table, columns: &[String]) -> Option<Vec<usize>> {
    columns.iter().map(|name| table.column_index(name)).collect()
}

/// What a flow nests, by its file. Names that are no `db.table` are `check`'s to refuse.
pub(super) fn nests_of(config: &FlowConfig) -> Vec<Nest> {
    let nest = |(field, nest): (&String, &crate::config::NestConfig)| {
        let is_list = nest.r#as == NestAs::Nested;
        let (db, table) = nest.from.split_once('.')?;
        Some(Nest {
            name: field.clone(),
            from: TableName::new(db, table),
            columns: nest.on.keys().cloned().collect(),
            equal: nest.on.values().cloned().collect(),
            chosen: nest.columns.clone(),
            is_list,
            rows_max: if is_list { nest.max.unwrap_or(ROWS_DEFAULT) as usize } else { 1 },
        })
    };
    config.options.nest.iter().filter_map(nest).collect()
}
