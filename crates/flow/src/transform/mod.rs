//! What happens to a row between the journal and the sink: routing, choice, renaming, masks.
//!
//! Compiled once a flow, planned once a table, applied once a row.

use crate::config::{FlowConfig, Mask, TransformStep};
use crate::patterns::wildcard;
use base::{Column, ColumnType, Op, RowView, Table, TableName, Value};
use std::sync::Arc;

/// A rule that cannot be, or cannot be for this table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct TransformError {
    /// Where in the flow's file: `transform[1].rename`.
    pub path: String,
    pub message: String,
    pub hint: String,
}

/// A row for which a rule has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvalError(pub String);

/// A flow's rules.
#[derive(Clone, Debug, Default)]
pub struct Transform {
    routes: Vec<(TableName, TableName)>,
    steps: Vec<TransformStep>,
}

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
    /// For each column of the output, the source's column and what hides it.
    columns: Vec<(usize, Option<Mask>)>,
    plain: bool,
}

impl Transform {
    pub fn compile(flow: &FlowConfig) -> Result<Self, Vec<TransformError>> {
        let mut errors = Vec::new();
        let mut routes = Vec::new();
        for (from, to) in &flow.route {
            match (from.split_once('.'), to.split_once('.')) {
                (Some((from_db, from_table)), Some((to_db, to_table))) => {
                    routes.push((TableName::new(from_db, from_table), TableName::new(to_db, to_table)));
                }
                _ => errors.push(TransformError {
                    path: "route".into(),
                    message: format!("`{from}: {to}` does not name tables"),
                    hint: "write route: {\"shop.*\": \"dw.shop_*\"}".into(),
                }),
            }
        }
        // Exact names go before wildcards.
        routes.sort_by_key(|(from, _)| from.db.contains('*') as u8 + from.table.contains('*') as u8);
        for (index, step) in flow.transform.iter().enumerate() {
            let name = match step {
                TransformStep::Filter(_) => "filter",
                TransformStep::Set(_) => "set",
                _ => continue,
            };
            errors.push(TransformError {
                path: format!("transform[{index}].{name}"),
                message: "expressions are not supported yet".into(),
                hint: "columns, rename and mask are".into(),
            });
        }
        if errors.is_empty() { Ok(Self { routes, steps: flow.transform.clone() }) } else { Err(errors) }
    }

    pub fn plan(&self, source: &Arc<Table>) -> Result<TablePlan, TransformError> {
        let mut columns: Vec<(usize, Column, Option<Mask>)> =
            source.columns.iter().cloned().enumerate().map(|(i, c)| (i, c, None)).collect();
        for (index, step) in self.steps.iter().enumerate() {
            apply_step(&mut columns, step, index, source)?;
        }
        let name = self.routed(&source.name);
        let place = |old: usize| columns.iter().position(|(i, _, _)| *i == old);
        let key: Option<Vec<usize>> = source.key.iter().map(|old| place(*old)).collect();
        let key = key.ok_or_else(|| TransformError {
            path: "transform".into(),
            message: format!("the key of table `{}` is not among the columns", source.name),
            hint: "keep every key column: without them rows have no name in the sink".into(),
        })?;
        let unique_keys =
            source.unique_keys.iter().filter_map(|k| k.iter().map(|old| place(*old)).collect()).collect();
        let plain = self.steps.is_empty();
        let table = if plain && name == source.name {
            Arc::clone(source)
        } else {
            Arc::new(Table {
                id: source.id,
                version: source.version,
                name,
                columns: columns.iter().map(|(_, c, _)| c.clone()).collect(),
                key,
                unique_keys,
            })
        };
        Ok(TablePlan { table, columns: columns.into_iter().map(|(i, _, mask)| (i, mask)).collect(), plain })
    }

    fn routed(&self, name: &TableName) -> TableName {
        let matching = |(from, _): &&(TableName, TableName)| {
            wildcard(&from.db, &name.db) && wildcard(&from.table, &name.table)
        };
        match self.routes.iter().find(matching) {
            Some((from, to)) => TableName::new(
                substitute(&from.db, &to.db, &name.db),
                substitute(&from.table, &to.table, &name.table),
            ),
            None => name.clone(),
        }
    }
}

/// What `*` stood for in `from` takes the place of `*` in `to`.
fn substitute(from: &str, to: &str, name: &str) -> String {
    let captured = match from.split_once('*') {
        Some((head, tail)) => name.strip_prefix(head).and_then(|n| n.strip_suffix(tail)).unwrap_or(name),
        None => name,
    };
    to.replacen('*', captured, 1)
}

fn apply_step(
    columns: &mut Vec<(usize, Column, Option<Mask>)>,
    step: &TransformStep,
    index: usize,
    source: &Table,
) -> Result<(), TransformError> {
    let missing = |verb: &str, name: &str| TransformError {
        path: format!("transform[{index}].{verb}"),
        message: format!("table `{}` has no column `{name}`", source.name),
        hint: "name a column the table has, or split the flow by table".into(),
    };
    let find = |columns: &[(usize, Column, Option<Mask>)], name: &str| {
        columns.iter().position(|(_, c, _)| c.name.eq_ignore_ascii_case(name))
    };
    match step {
        TransformStep::Columns(names) => {
            let mut kept = Vec::new();
            for name in names {
                let at = find(columns, name).ok_or_else(|| missing("columns", name))?;
                kept.push(columns[at].clone());
            }
            *columns = kept;
        }
        TransformStep::Rename(names) => {
            let places: Result<Vec<_>, _> = names
                .iter()
                .map(|(old, new)| {
                    find(columns, old).map(|at| (at, new)).ok_or_else(|| missing("rename", old))
                })
                .collect();
            for (at, new) in places? {
                columns[at].1.name.clone_from(new);
            }
        }
        TransformStep::Mask(masks) => {
            for (name, mask) in masks {
                let at = find(columns, name).ok_or_else(|| missing("mask", name))?;
                if source.key.contains(&columns[at].0) {
                    return Err(TransformError {
                        path: format!("transform[{index}].mask"),
                        message: format!("`{name}` is part of the key of `{}`", source.name),
                        hint: "a masked key would merge rows: mask other columns".into(),
                    });
                }
                let column = &mut columns[at].1;
                column.nullable |= *mask == Mask::Null;
                if *mask != Mask::Null {
                    column.ty = ColumnType::Text { chars_max: 4_294_967_295 };
                    column.sql_type = "longtext".into();
                    column.charset = Some("utf8mb4".into());
                    column.collation = None;
                }
                columns[at].2 = Some(*mask);
            }
        }
        TransformStep::Filter(_) | TransformStep::Set(_) => unreachable!("refused when compiled"),
    }
    Ok(())
}

impl TablePlan {
    /// The table as the sink shall see it.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// One row of the source; one value a column of [`Self::table`].
    pub fn apply(&self, row: RowView<'_>) -> Result<Vec<Value>, EvalError> {
        let values = row.values().map_err(|e| EvalError(e.to_string()))?;
        if self.plain {
            return Ok(values);
        }
        self.columns
            .iter()
            .map(|(index, mask)| {
                let value = values.get(*index).cloned().unwrap_or_default();
                Ok(mask.map_or(value.clone(), |mask| masked(mask, value)))
            })
            .collect()
    }

    /// Both images of a change; `None` when no image passes.
    pub fn apply_change(
        &self,
        before: Option<RowView<'_>>,
        after: Option<RowView<'_>>,
        op: Op,
    ) -> Result<Option<OutRow>, EvalError> {
        let before = before.map(|row| self.apply(row)).transpose()?;
        let after = after.map(|row| self.apply(row)).transpose()?;
        Ok(Some(OutRow { op, before, after }))
    }
}

fn masked(mask: Mask, value: Value) -> Value {
    if value.is_null() {
        return value;
    }
    let text = || match &value {
        Value::Text(text) | Value::Decimal(text) | Value::Json(text) => text.clone(),
        Value::Int(v) => v.to_string(),
        Value::UInt(v) | Value::Bit(v) | Value::Set(v) => v.to_string(),
        Value::Float(v) => base::value::format_float(*v),
        Value::Double(v) => base::value::format_double(*v),
        Value::Date(v) => v.to_string(),
        Value::Time(v) => base::value::format_time(*v, 6),
        Value::DateTime(v) => base::value::format_datetime(*v, 6),
        Value::Timestamp(v) => base::value::format_timestamp(*v, 6),
        Value::Year(v) | Value::Enum(v) => v.to_string(),
        other => format!("{other:?}"),
    };
    match mask {
        Mask::Null => Value::Null,
        Mask::Redact => Value::Text("***".into()),
        Mask::Hash => {
            use sha2::Digest;
            let digest = sha2::Sha256::digest(text().as_bytes());
            Value::Text(digest.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        Mask::Partial => Value::Text(partial(&text())),
    }
}

/// Keeps the first three and last four characters of long text, less of short text.
fn partial(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (head, tail) = match chars.len() {
        0..=2 => (0, 0),
        3..=7 => (1, 1),
        _ => (3, 4),
    };
    let shown = |index: usize| index < head || index >= chars.len() - tail;
    chars.iter().enumerate().map(|(index, c)| if shown(index) { *c } else { '*' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Generated, RowBuf, ValueRef};

    fn table() -> Arc<Table> {
        let column = |name: &str, ty| Column {
            name: name.into(),
            ty,
            sql_type: "text".into(),
            nullable: false,
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        };
        Arc::new(Table {
            id: 1,
            version: 1,
            name: TableName::new("shop", "users"),
            columns: vec![
                column("note", ColumnType::Text { chars_max: 10 }),
                column("id", ColumnType::BigInt { unsigned: false }),
                column("phone", ColumnType::Text { chars_max: 20 }),
            ],
            key: vec![1],
            unique_keys: vec![],
        })
    }

    fn flow(text: &str) -> FlowConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn columns_are_chosen_renamed_and_masked_and_the_key_follows() {
        let flow = flow(
            r#"{"from":"a","to":"b","route":{"shop.*":"dw.shop_*"},"transform":[
                {"columns":["id","phone"]},{"rename":{"id":"user_id"}},{"mask":{"phone":"partial"}}]}"#,
        );
        let plan = Transform::compile(&flow).unwrap().plan(&table()).unwrap();
        assert_eq!(plan.table().name.to_string(), "dw.shop_users");
        assert_eq!(plan.table().key, [0]);
        assert_eq!(plan.table().columns[0].name, "user_id");
        let row = RowBuf::from_values([ValueRef::Text("n"), ValueRef::Int(7), ValueRef::Text("13812345678")]);
        assert_eq!(plan.apply(row.view()).unwrap(), [Value::Int(7), Value::Text("138****5678".into())]);
    }

    #[test]
    fn a_flow_that_loses_or_masks_its_key_is_refused() {
        for step in [r#"{"columns":["phone"]}"#, r#"{"mask":{"id":"hash"}}"#, r#"{"rename":{"nope":"x"}}"#] {
            let flow = flow(&format!(r#"{{"from":"a","to":"b","transform":[{step}]}}"#));
            assert!(Transform::compile(&flow).unwrap().plan(&table()).is_err(), "{step}");
        }
    }

    #[test]
    fn short_text_gives_little_away() {
        assert_eq!(partial("ab"), "**");
        assert_eq!(partial("abcde"), "a***e");
    }
}
