//! What becomes of a table: the dataset's columns, whence each comes, and what the contract says where the source is not as it
//! was. Pure: it looks at definitions and rows, and asks nobody.

use crate::config::{CollectConfig, Mode, Policy};
use crate::digest;
use crate::error::CollectError;
use crate::reader::Described;
use base::{Column, ColumnType, Value};
use engine::{Fit, kept};
use serde::{Deserialize, Serialize};

/// A dataset's table as a run left it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    pub columns: Vec<Column>,
    /// Names of the key's columns.
    pub key: Vec<String>,
}

/// What each column of a source becomes, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableMapping {
    pub table: String,
    pub target: String,
    pub key: Vec<String>,
    pub columns: Vec<ColumnMapping>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnMapping {
    pub from: String,
    pub from_type: String,
    pub to: String,
    pub to_type: String,
    pub nullable: bool,
}

/// How rows of a source's table become rows of the dataset's.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: String,
    pub shape: Shape,
    /// One a column of `shape`: the place in the source's row and its fit; `None` for a column that the source has no longer.
    origins: Vec<Option<(usize, Fit)>>,
    /// Columns of the source that the dataset has no place for: a row with a value there is put aside.
    unplaced: Vec<(usize, String)>,
    /// Places of the key's columns in a row of the dataset.
    pub key: Vec<usize>,
    pub cursor: Option<usize>,
    /// Whether a table that is there must be made anew for these columns.
    pub rebuilds: bool,
    /// Values that do not fit are NULL.
    discards_values: bool,
    fails_on_values: bool,
    pub warnings: Vec<String>,
    pub mapping: TableMapping,
}

/// A row that is put aside, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfit {
    pub reason: String,
    /// The contract says that the run fails.
    pub fatal: bool,
}

impl Plan {
    /// `before`: the table as the last run left it; `None` where there is none.
    pub fn new(
        config: &CollectConfig,
        described: &Described,
        target: &str,
        before: Option<&Shape>,
    ) -> Result<Self, CollectError> {
        let key_names = key_of(config, described);
        // Without a word it would append the rows that it is to replace.
        if config.mode == Mode::Cursor
            && key_names.is_empty()
            && let Some(left_out) = described.key.iter().find(|name| !config.carries(name))
        {
            return Err(CollectError::refused(
                format!("the column `{left_out}` is in the key of `{}`, and is left out", described.table),
                "keep it, or name other columns that tell rows apart: key: [id]; rows are appended only of a table or view without a key",
            ));
        }
        let renamed = |name: &str| config.rename.get(name).cloned().unwrap_or_else(|| name.to_owned());
        let carried: Vec<(usize, &Column, Column)> = described
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| config.carries(&column.name))
            .map(|(at, column)| {
                let name = renamed(&column.name);
                let in_key = key_names.iter().any(|it| it.eq_ignore_ascii_case(&name));
                (at, column, Column { name, ..kept(column, in_key) })
            })
            .collect();
        check_names(config, described, &carried)?;
        for name in &key_names {
            if !carried.iter().any(|(_, _, column)| column.name.eq_ignore_ascii_case(name)) {
                return Err(CollectError::refused(
                    format!("the key's column `{name}` is not in the table `{}`", described.table),
                    "name columns of the dataset in `key`: those that are carried, by their new names",
                ));
            }
        }
        if config.mode == Mode::KeyDiff && key_names.is_empty() {
            return Err(CollectError::refused(
                format!("`mode: key_diff` needs a key, and the table `{}` has none", described.table),
                "name the columns that tell rows apart: key: [id]",
            ));
        }
        let fresh: Vec<Column> = carried.iter().map(|(_, _, column)| column.clone()).collect();
        let mut merged = merge(config, &described.table, before, fresh)?;
        let same_key = |shape: &Shape| {
            shape.key.len() == key_names.len()
                && shape.key.iter().zip(&key_names).all(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        if config.mode != Mode::Full && before.is_some_and(|shape| !same_key(shape)) {
            return Err(CollectError::refused(
                format!("the key of `{target}` is no longer what it was made with"),
                "drop the dataset's table, so that it is read anew, or set `key` as it was",
            ));
        }
        let place = |name: &str| merged.columns.iter().position(|it| it.name.eq_ignore_ascii_case(name));
        let key: Vec<usize> = key_names.iter().filter_map(|name| place(name)).collect();
        let cursor = match &config.cursor {
            None => None,
            Some(name) => {
                let at = cursor_of(described, name, place(&renamed(name)))?;
                let own = &merged.columns[at];
                let from = carried.iter().find(|(.., it)| it.name.eq_ignore_ascii_case(&own.name));
                if from.is_some_and(|(_, from, _)| rounds(&kept(from, false).ty, &own.ty)) {
                    return Err(CollectError::refused(
                        format!(
                            "the cursor `{name}` would be rounded: the dataset keeps it as {}",
                            own.sql_type
                        ),
                        "set schema: {types: evolve}, or drop the dataset's table, so that it is read anew",
                    ));
                }
                Some(at)
            }
        };
        let origins = merged
            .columns
            .iter()
            .map(|column| {
                let from = carried.iter().find(|(.., own)| own.name.eq_ignore_ascii_case(&column.name))?;
                Some((from.0, Fit::new(from.1, column)))
            })
            .collect();
        let unplaced = merged
            .unplaced
            .drain(..)
            .filter_map(|name| {
                let from = carried.iter().find(|(.., own)| own.name == name)?;
                Some((from.0, name))
            })
            .collect();
        let mapping = mapping_of(described, target, &key_names, &merged.columns, &carried);
        Ok(Self {
            target: target.to_owned(),
            shape: Shape { columns: merged.columns, key: key_names },
            origins,
            unplaced,
            key,
            cursor,
            rebuilds: merged.changed,
            discards_values: config.schema.types == Policy::DiscardValue,
            fails_on_values: config.schema.types == Policy::Freeze,
            warnings: merged.warnings,
            mapping,
        })
    }

    /// A row of the dataset, and how many values were left out of it.
    pub fn row(&self, mut row: Vec<Value>) -> Result<(Vec<Value>, u64), (Vec<Value>, Misfit)> {
        if let Some((_, name)) =
            self.unplaced.iter().find(|(at, _)| row.get(*at).is_some_and(|it| !it.is_null()))
        {
            let reason = format!("the column `{name}` has no place in the dataset");
            return Err((row, Misfit { reason, fatal: false }));
        }
        let mut out = Vec::with_capacity(self.origins.len());
        let mut discarded = 0;
        for (at, origin) in self.origins.iter().enumerate() {
            let Some((from, fit)) = origin else {
                out.push(Value::Null);
                continue;
            };
            let Some(value) = row.get_mut(*from) else {
                let reason = format!("the row has {} values", row.len());
                return Err((row, Misfit { reason, fatal: false }));
            };
            let may_go = self.discards_values
                && fit.to().nullable
                && !self.key.contains(&at)
                && self.cursor != Some(at);
            match fit.value(value.clone()) {
                Ok(value) if Some(at) == self.cursor && value.is_null() => {
                    let reason = format!(
                        "the cursor `{}` is NULL, so that the row would not be read again",
                        fit.to().name
                    );
                    return Err((row, Misfit { reason, fatal: false }));
                }
                Ok(value) => out.push(value),
                Err(_) if may_go => {
                    discarded += 1;
                    out.push(Value::Null);
                }
                Err(error) => {
                    return Err((row, Misfit { reason: error.to_string(), fatal: self.fails_on_values }));
                }
            }
        }
        Ok((out, discarded))
    }

    /// Places of the columns that the source has no longer: what the dataset has there stays.
    pub fn gone(&self) -> Vec<usize> {
        (0..self.origins.len()).filter(|at| self.origins[*at].is_none()).collect()
    }

    /// A row that did not fit, with the names of the dataset, for whoever mends it.
    pub fn told(&self, row: &[Value]) -> serde_json::Map<String, serde_json::Value> {
        let mut out = serde_json::Map::new();
        for (column, origin) in self.shape.columns.iter().zip(&self.origins) {
            let value = origin.as_ref().and_then(|(from, fit)| {
                let value = row.get(*from)?;
                // Labels are told by name where they can be.
                Some(digest::json(&fit.value(value.clone()).unwrap_or_else(|_| value.clone())))
            });
            out.insert(column.name.clone(), value.unwrap_or_default());
        }
        // With them it is seen why the row is here, and that it has no place without them.
        for (at, name) in &self.unplaced {
            if let Some(value) = row.get(*at).filter(|it| !it.is_null()) {
                out.insert(name.clone(), digest::json(value));
            }
        }
        out
    }

    /// The values of the key, as one text.
    pub fn key_text(&self, row: &[Value]) -> String {
        let values: Vec<String> =
            self.key.iter().filter_map(|at| row.get(*at)).filter_map(digest::text).collect();
        values.join(", ")
    }
}

/// The key's columns as the dataset calls them.
fn key_of(config: &CollectConfig, described: &Described) -> Vec<String> {
    if !config.key.is_empty() {
        return config.key.clone();
    }
    // A key that is not carried whole names no row.
    if !described.key.iter().all(|name| config.carries(name)) {
        return Vec::new();
    }
    let renamed = |name: &String| config.rename.get(name).cloned().unwrap_or_else(|| name.clone());
    described.key.iter().map(renamed).collect()
}

fn check_names(
    config: &CollectConfig,
    described: &Described,
    carried: &[(usize, &Column, Column)],
) -> Result<(), CollectError> {
    let table = &described.table;
    if carried.is_empty() {
        return Err(CollectError::refused(
            format!("no column of `{table}` is carried"),
            "see `columns` and `exclude_columns`",
        ));
    }
    for (at, (_, _, column)) in carried.iter().enumerate() {
        if carried[..at].iter().any(|(_, _, other)| other.name.eq_ignore_ascii_case(&column.name)) {
            return Err(CollectError::refused(
                format!("two columns of `{table}` would be called `{}`", column.name),
                "give one of them another name by `rename`, or leave it out by `exclude_columns`",
            ));
        }
    }
    let known = |name: &str| described.columns.iter().any(|it| it.name == name);
    if let Some(name) = config.rename.keys().find(|name| !known(name) && config.tables.len() == 1) {
        return Err(CollectError::refused(
            format!("`rename` names a column `{name}` that `{table}` does not have"),
            format!("there are: {}", names(&described.columns)),
        ));
    }
    Ok(())
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn cursor_of(described: &Described, name: &str, place: Option<usize>) -> Result<usize, CollectError> {
    let column = described.columns.iter().find(|it| it.name.eq_ignore_ascii_case(name));
    let (Some(column), Some(place)) = (column, place) else {
        return Err(CollectError::refused(
            format!("the cursor `{name}` is no column of `{}`", described.table),
            format!("there are: {}", names(&described.columns)),
        ));
    };
    use ColumnType as T;
    let grows = matches!(
        kept(column, false).ty,
        T::TinyInt { .. }
            | T::SmallInt { .. }
            | T::MediumInt { .. }
            | T::Int { .. }
            | T::BigInt { .. }
            | T::Decimal { .. }
            | T::Date
            | T::DateTime { .. }
            | T::Timestamp { .. }
            | T::Year
    );
    if grows {
        return Ok(place);
    }
    Err(CollectError::refused(
        format!(
            "the cursor `{name}` is {}: it must be a whole or exact number, a date or a time",
            column.sql_type
        ),
        "name another column, or set mode: key_diff",
    ))
}

struct Merged {
    columns: Vec<Column>,
    unplaced: Vec<String>,
    changed: bool,
    warnings: Vec<String>,
}

/// The dataset's columns, of those that were and those that the source has now.
fn merge(
    config: &CollectConfig,
    table: &str,
    before: Option<&Shape>,
    fresh: Vec<Column>,
) -> Result<Merged, CollectError> {
    let mut out = Merged { columns: Vec::new(), unplaced: Vec::new(), changed: false, warnings: Vec::new() };
    let Some(before) = before else {
        out.columns = fresh;
        return Ok(out);
    };
    let contract = config.schema;
    let full = config.mode == Mode::Full;
    let same = |a: &Column, b: &Column| a.name.eq_ignore_ascii_case(&b.name);
    let refused = |what: String, key: &str| {
        let hint =
            format!("set schema: {{{key}: evolve}} to take it over, or leave it out by `exclude_columns`");
        CollectError::refused(format!("`{table}`: {what}, and `schema.{key}` is freeze"), hint)
    };
    for column in &fresh {
        let Some(old) = before.columns.iter().find(|it| same(it, column)) else {
            match contract.columns {
                Policy::Evolve => {
                    out.warnings.push(format!("the column `{}` is new", column.name));
                    out.changed = true;
                    // Rows that are there have none.
                    let nullable = column.nullable || !full;
                    out.columns.push(Column { nullable, ..column.clone() });
                }
                Policy::Freeze => {
                    return Err(refused(format!("the column `{}` is new", column.name), "columns"));
                }
                Policy::DiscardRow => out.unplaced.push(column.name.clone()),
                Policy::DiscardValue => {
                    out.warnings.push(format!("the new column `{}` is left out", column.name));
                }
            }
            continue;
        };
        if old.sql_type == column.sql_type && old.ty == column.ty {
            // What may be NULL now could not before: the other way round nothing changes.
            let nullable = old.nullable || column.nullable;
            out.changed |= nullable != old.nullable;
            out.columns.push(Column { nullable, ..old.clone() });
            continue;
        }
        let what = format!("the column `{}` was {} and is {}", column.name, old.sql_type, column.sql_type);
        match contract.types {
            // The other modes have every value from the source again.
            Policy::Evolve if config.mode == Mode::Cursor && rounds(&old.ty, &column.ty) => {
                return Err(CollectError::refused(
                    format!("`{table}`: {what}, which would round the values that the dataset has"),
                    "drop the dataset's table, so that it is read anew, or set schema: {types: discard_row} to keep its type",
                ));
            }
            Policy::Evolve => {
                out.warnings.push(what);
                out.changed = true;
                out.columns.push(Column { nullable: old.nullable || column.nullable, ..column.clone() });
            }
            Policy::Freeze => return Err(refused(what, "types")),
            Policy::DiscardRow | Policy::DiscardValue => {
                out.warnings.push(format!("{what}: the dataset keeps its type"));
                let nullable = old.nullable || column.nullable;
                out.changed |= nullable != old.nullable;
                out.columns.push(Column { nullable, ..old.clone() });
            }
        }
    }
    for old in &before.columns {
        if fresh.iter().any(|it| same(it, old)) {
            continue;
        }
        let what = format!("the column `{}` is gone", old.name);
        match contract.columns {
            Policy::Freeze => return Err(refused(what, "columns")),
            Policy::Evolve if full => {
                out.warnings.push(what);
                out.changed = true;
            }
            _ => {
                out.warnings.push(format!("{what}: it stays in the dataset, and is NULL in rows that come"));
                out.changed |= !old.nullable;
                out.columns.push(Column { nullable: true, ..old.clone() });
            }
        }
    }
    Ok(out)
}

/// Whether a value of one of the dataset's types can become another in the second without an error: it is rounded or cut.
fn rounds(from: &ColumnType, to: &ColumnType) -> bool {
    use ColumnType as T;
    let whole = |ty: &T| {
        matches!(
            ty,
            T::TinyInt { .. }
                | T::SmallInt { .. }
                | T::MediumInt { .. }
                | T::Int { .. }
                | T::BigInt { .. }
                | T::Year
        )
    };
    match (from, to) {
        (from, to) if from == to => false,
        // A FLOAT prints six digits.
        (T::Float, T::Double) => false,
        (T::Float | T::Double, _) => true,
        (_, T::Text { .. } | T::Binary { .. } | T::VarBinary { .. }) => false,
        (T::Text { .. } | T::Binary { .. } | T::VarBinary { .. }, _) => true,
        (T::Decimal { scale: from, .. }, T::Decimal { scale: to, .. }) => to < from,
        (T::Decimal { scale, .. }, to) if whole(to) => *scale > 0,
        (from, to) if whole(from) && (whole(to) || matches!(to, T::Decimal { .. })) => false,
        (T::BigInt { .. }, T::Double) => true,
        (from, T::Double) if whole(from) => false,
        (T::Date, T::DateTime { .. } | T::Timestamp { .. }) => false,
        (
            T::DateTime { fsp: from } | T::Timestamp { fsp: from },
            T::DateTime { fsp: to } | T::Timestamp { fsp: to },
        )
        | (T::Time { fsp: from }, T::Time { fsp: to }) => to < from,
        _ => true,
    }
}

fn mapping_of(
    described: &Described,
    target: &str,
    key: &[String],
    columns: &[Column],
    carried: &[(usize, &Column, Column)],
) -> TableMapping {
    let columns = columns.iter().filter_map(|column| {
        let (_, from, _) = carried.iter().find(|(.., own)| own.name.eq_ignore_ascii_case(&column.name))?;
        Some(ColumnMapping {
            from: from.name.clone(),
            from_type: from.sql_type.clone(),
            to: column.name.clone(),
            to_type: column.sql_type.clone(),
            nullable: column.nullable,
        })
    });
    TableMapping {
        table: described.table.clone(),
        target: target.to_owned(),
        key: key.to_vec(),
        columns: columns.collect(),
    }
}
