//! What happens to a row between the journal and the sink: routing, filters, choice, renaming, masks, computed columns.
//!
//! Compiled once a flow, planned once a table, applied once a row.

pub mod dedup;
mod mask;
mod plan;
pub mod process;

pub use dedup::{Dedup, DedupStep, LeftOut};
pub use expr::{EvalError, function_names};
pub use plan::{OutRow, TablePlan};

use crate::config::{FlowConfig, Mask, TransformStep};
use crate::mirror::Mirror;
use crate::mirror::read::ReadError;
use crate::patterns::wildcard;
pub(crate) use ::expr;
use base::{Table, TableName};
use expr::{Expression, Refusal};
use process::{Lookup, Process, Split};
use std::collections::BTreeMap;
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

impl TransformError {
    fn refused(path: String, refusal: Refusal) -> Self {
        Self { path, message: refusal.message, hint: refusal.hint }
    }

    /// At its place, where it has none yet.
    fn at(self, path: String) -> Self {
        if self.path.is_empty() { Self { path, ..self } } else { self }
    }
}

/// A flow's rules.
#[derive(Clone, Debug, Default)]
pub struct Transform {
    source: String,
    routes: Vec<(TableName, TableName)>,
    steps: Vec<Step>,
}

/// A step of a flow, its expressions read.
#[derive(Clone, Debug)]
enum Step {
    Filter(Expression),
    Columns(Vec<String>),
    Rename(BTreeMap<String, String>),
    Mask(BTreeMap<String, Mask>),
    Set(Vec<(String, Expression)>),
    Process(Process),
    Split(Split),
    Origin(String),
    /// At most one in a flow: what a second one would be given depends on the first one's memory.
    Dedup(Arc<Dedup>),
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
        let mut steps = Vec::new();
        for (index, step) in flow.transform.iter().enumerate() {
            if let Some(compiled) = compile_process(step) {
                let mistaken = |(verb, message): (&str, String)| TransformError {
                    path: format!("transform[{index}].{verb}"),
                    message,
                    hint: "docs/reference/processing.md shows what each step takes and answers".into(),
                };
                match compiled {
                    Ok(step) => steps.push(step),
                    Err(mistake) => errors.push(mistaken(mistake)),
                }
                continue;
            }
            let mut read = |path: String, text: &str| {
                let refused = |refusal| errors.push(TransformError::refused(path, refusal));
                Expression::parse(text).map_err(refused).ok()
            };
            steps.extend(match step {
                TransformStep::Filter(text) => {
                    read(format!("transform[{index}].filter"), text).map(Step::Filter)
                }
                TransformStep::Set(columns) => {
                    let columns = columns.iter().filter_map(|(name, text)| {
                        Some((name.clone(), read(format!("transform[{index}].set.{name}"), text)?))
                    });
                    Some(Step::Set(columns.collect()))
                }
                TransformStep::Columns(names) => Some(Step::Columns(names.clone())),
                TransformStep::Rename(names) => Some(Step::Rename(names.clone())),
                TransformStep::Mask(masks) => Some(Step::Mask(masks.clone())),
                TransformStep::Origin(name) => Some(Step::Origin(name.clone())),
                _ => None,
            });
        }
        let dedups = flow.transform.iter().enumerate();
        let mut dedups = dedups.filter(|(_, step)| matches!(step, TransformStep::Dedup(_)));
        if let Some((index, _)) = dedups.nth(1) {
            errors.push(TransformError {
                path: format!("transform[{index}].dedup"),
                message: "a flow has one `dedup`".into(),
                hint: "name all columns in one `key`, or begin another flow".into(),
            });
        }
        let source = flow.from.clone();
        if errors.is_empty() { Ok(Self { source, routes, steps }) } else { Err(errors) }
    }

    /// The lookups in other tables of the source.
    fn table_lookups(&self) -> impl Iterator<Item = &Lookup> {
        self.steps.iter().filter_map(|step| match step {
            Step::Process(process) => process.table_lookup(),
            _ => None,
        })
    }

    /// Whether rows get columns of other tables of the source.
    pub fn reads_mirror(&self) -> bool {
        self.table_lookups().next().is_some()
    }

    /// Lookups read this mirror from now on. Without one they have no answer.
    pub fn attach(&self, mirror: &Mirror) {
        self.table_lookups().for_each(|lookup| lookup.attach(mirror));
    }

    /// Begins a look at the mirror at or behind a change; waits for it until `gone` says that nobody wants it.
    pub fn look<F: Future<Output = ()>>(&self, lsn: u64, gone: impl Fn() -> F) -> Result<(), ReadError> {
        self.table_lookups().try_for_each(|lookup| lookup.look(lsn, gone()))
    }

    /// Ends it.
    pub fn end_look(&self) -> Result<(), ReadError> {
        self.table_lookups().try_for_each(Lookup::end)
    }

    /// The step that leaves out repeats.
    pub fn dedup(&self) -> Option<&Arc<Dedup>> {
        self.steps.iter().find_map(|step| match step {
            Step::Dedup(dedup) => Some(dedup),
            _ => None,
        })
    }

    /// Whether rows become several.
    pub fn splits(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Split(_)))
    }

    pub fn plan(&self, source: &Arc<Table>) -> Result<TablePlan, TransformError> {
        plan::plan(&self.steps, &self.source, self.routed(&source.name), source)
    }

    /// What the sink calls a table.
    pub fn routed(&self, name: &TableName) -> TableName {
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

/// A step of `process`; `None` for the others. A mistake comes with the step's name.
fn compile_process(step: &TransformStep) -> Option<Result<Step, (&'static str, String)>> {
    let named = |verb: &'static str| move |message: String| (verb, message);
    let process = |verb, process: Result<Process, String>| process.map(Step::Process).map_err(named(verb));
    Some(match step {
        TransformStep::Grok(step) => process("grok", Process::grok(step)),
        TransformStep::Dissect(step) => process("dissect", Process::dissect(step)),
        TransformStep::Date(step) => process("date", Process::date(step)),
        TransformStep::Json(step) => process("json", Process::json(step)),
        TransformStep::Lookup(step) => process("lookup", Process::lookup(step)),
        TransformStep::GeoPoint(step) => Ok(Step::Process(Process::geo_point(step))),
        TransformStep::UserAgent(step) => Ok(Step::Process(Process::user_agent(step))),
        TransformStep::Split(step) => Split::compile(step).map(Step::Split).map_err(named("split")),
        TransformStep::Dedup(step) => {
            Dedup::compile(step).map(|dedup| Step::Dedup(Arc::new(dedup))).map_err(named("dedup"))
        }
        TransformStep::Filter(_)
        | TransformStep::Columns(_)
        | TransformStep::Rename(_)
        | TransformStep::Mask(_)
        | TransformStep::Set(_)
        | TransformStep::Origin(_) => return None,
    })
}

/// What `*` stood for in `from` takes the place of `*` in `to`.
fn substitute(from: &str, to: &str, name: &str) -> String {
    let captured = match from.split_once('*') {
        Some((head, tail)) => name.strip_prefix(head).and_then(|n| n.strip_suffix(tail)).unwrap_or(name),
        None => name,
    };
    to.replacen('*', captured, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Column, ColumnType, Generated, Op, RowBuf, Value, ValueRef};

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
        assert_eq!(
            plan.apply(row.view()).unwrap().unwrap(),
            [Value::Int(7), Value::Text("138****5678".into())]
        );
    }

    #[test]
    fn a_flow_that_loses_or_masks_its_key_is_refused() {
        for step in [
            r#"{"columns":["phone"]}"#,
            r#"{"mask":{"id":"hash"}}"#,
            r#"{"rename":{"nope":"x"}}"#,
            r#"{"rename":{"phone":"ID"}}"#,
        ] {
            let flow = flow(&format!(r#"{{"from":"a","to":"b","transform":[{step}]}}"#));
            assert!(Transform::compile(&flow).unwrap().plan(&table()).is_err(), "{step}");
        }
    }

    fn planned(steps: &str) -> Result<TablePlan, TransformError> {
        let flow = flow(&format!(r#"{{"from":"a","to":"b","transform":{steps}}}"#));
        Transform::compile(&flow).map_err(|mut errors| errors.remove(0))?.plan(&table())
    }

    fn row(note: Option<&str>, id: i64, phone: &str) -> RowBuf {
        let note = note.map_or(ValueRef::Null, ValueRef::Text);
        RowBuf::from_values([note, ValueRef::Int(id), ValueRef::Text(phone)])
    }

    #[test]
    fn a_filter_turns_updates_into_what_they_are_behind_it() {
        let plan = planned(r#"[{"filter":"note <> 'draft'"}]"#).unwrap();
        let (draft, live, null) = (row(Some("Draft"), 1, ""), row(Some("live"), 1, ""), row(None, 1, ""));
        let op = |before: Option<&RowBuf>, after: Option<&RowBuf>, op| {
            let out = plan.apply_change(before.map(RowBuf::view), after.map(RowBuf::view), op).unwrap();
            out.map(|out| (out.op, out.before.is_some(), out.after.is_some()))
        };
        assert_eq!(op(Some(&live), Some(&live), Op::Update), Some((Op::Update, true, true)));
        assert_eq!(op(Some(&draft), Some(&live), Op::Update), Some((Op::Insert, false, true)));
        assert_eq!(op(Some(&live), Some(&draft), Op::Update), Some((Op::Delete, true, false)));
        assert_eq!(op(Some(&draft), Some(&null), Op::Update), None);
        assert_eq!(op(None, Some(&live), Op::Read), Some((Op::Read, false, true)));
        assert_eq!(op(None, Some(&draft), Op::Insert), None);
        assert_eq!(op(Some(&live), None, Op::Delete), Some((Op::Delete, true, false)));
        assert_eq!(op(Some(&null), None, Op::Delete), None);
    }

    #[test]
    fn steps_apply_in_the_order_written() {
        let plan = planned(
            r#"[{"set":{"note":"concat(note, '!')","old":"note"}},
                {"mask":{"phone":"redact"}},
                {"rename":{"phone":"tel"}},
                {"set":{"both":"concat(note, tel)"}},
                {"filter":"both = 'hi!***'"},
                {"columns":["id","both","old","note"]}]"#,
        )
        .unwrap();
        let types: Vec<_> =
            plan.table().columns.iter().map(|c| (c.name.as_str(), c.sql_type.as_str())).collect();
        assert_eq!(types, [("id", "text"), ("both", "longtext"), ("old", "text"), ("note", "longtext")]);
        assert_eq!(plan.table().key, [0]);
        let out = plan.apply(row(Some("hi"), 7, "138").view()).unwrap().unwrap();
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(out, [Value::Int(7), text("hi!***"), text("hi"), text("hi!")]);
        assert_eq!(plan.apply(row(Some("ho"), 7, "138").view()).unwrap(), None);
    }

    #[test]
    fn computed_columns_have_the_types_of_their_expressions() {
        for (text, sql_type) in [
            ("id + 1", "bigint"),
            ("id & 1", "bigint unsigned"),
            ("id * 1.50", "decimal(23,2)"),
            ("id / 3", "decimal(24,4)"),
            ("phone + 1", "double"),
            ("id > 1", "bigint"),
            ("upper(note)", "longtext"),
            ("cast(note as date)", "date"),
            ("cast(note as datetime(3))", "datetime(3)"),
            ("cast(note as binary)", "longblob"),
            ("null", "longtext"),
            ("if(id = 1, 1, 2.5)", "decimal(2,1)"),
        ] {
            let plan = planned(&format!(r#"[{{"set":{{"x":"{text}"}}}}]"#)).unwrap();
            let column = plan.table().columns.last().unwrap();
            assert_eq!((column.name.as_str(), column.sql_type.as_str()), ("x", sql_type), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (steps, path, part) in [
            (r#"[{"dedup":{"key":["nope"],"window":"10m"}}]"#, "transform[0].dedup", "no column `nope`"),
            (r#"[{"dedup":{"key":[],"window":"10m"}}]"#, "transform[0].dedup", "names no column"),
            (r#"[{"dedup":{"key":["id"],"window":"10ms"}}]"#, "transform[0].dedup", "less than a second"),
            (
                r#"[{"dedup":{"key":["id"],"window":"1h"}},{"dedup":{"key":["note"],"window":"1h"}}]"#,
                "transform[1].dedup",
                "one `dedup`",
            ),
            (
                r#"[{"split":{"column":"note","separator":","}},{"dedup":{"key":["note"],"window":"1h"}}]"#,
                "transform[1].dedup",
                "behind a `split`",
            ),
            (r#"[{"filter":"now() > 1"}]"#, "transform[0].filter", "replay"),
            (r#"[{"columns":["id"]},{"filter":"phone = 1"}]"#, "transform[1].filter", "no column `phone`"),
            (r#"[{"set":{"x":"1 +"}}]"#, "transform[0].set.x", "too early"),
            (r#"[{"set":{"ID":"1"}}]"#, "transform[0].set.ID", "part of the key"),
            (r#"[{"set":{"x":"9223372036854775807 + 1"}}]"#, "transform[0].set.x", "never has a value"),
        ] {
            let error = planned(steps).expect_err(steps);
            assert_eq!(error.path, path);
            assert!(error.message.contains(part), "{error}");
            assert!(!error.hint.is_empty());
        }
        let flow = flow(r#"{"from":"a","to":"b","transform":[{"filter":"("},{"set":{"x":"f()","y":"@a"}}]}"#);
        assert_eq!(Transform::compile(&flow).unwrap_err().len(), 3, "every mistake at once");
    }

    #[test]
    fn a_row_without_an_answer_is_an_error_of_that_row() {
        let plan = planned(r#"[{"set":{"x":"id * 9223372036854775807"}}]"#).unwrap();
        assert!(plan.apply(row(None, 1, "").view()).is_ok());
        let error = plan.apply(row(None, 2, "").view()).unwrap_err();
        assert!(error.0.contains("out of range"), "{error}");
        let shown = plan.key_only(row(Some("secret"), 2, "138").view()).unwrap();
        assert_eq!(shown, [Value::Null, Value::Int(2), Value::Null, Value::Null]);
    }
}
