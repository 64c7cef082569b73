//! One run of a flow that collects: its tables, one behind the other.

use crate::config::{CollectConfig, Mode, Policy};
use crate::error::CollectError;
use crate::names;
use crate::pace::Pace;
use crate::plan::{Plan, TableMapping};
use crate::reader::{Described, Reader};
use crate::rejected::{self, Rejected};
use crate::report::{CollectReport, Progress, TableReport, rows_were};
use crate::state::{self, State};
use crate::table::{Work, exists};
use crate::{cursor, full, key_diff};
use base::Fault;
use engine::Engine;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Collects: reads the flow's tables from `reader` and makes the datasets of `engine` what the mode says. `run_id` is noted with
/// what is written. A run that fails leaves every dataset as it was or as it shall be, and what it has committed counts.
pub async fn run(
    flow: &str,
    config: &CollectConfig,
    reader: &mut dyn Reader,
    engine: &dyn Engine,
    run_id: i64,
    progress: &Progress,
    stop: watch::Receiver<bool>,
) -> Result<CollectReport, CollectError> {
    let mut pace = Pace::new(config, stop)?;
    state::prepare(engine).await?;
    rejected::prepare(engine).await?;
    let tables = tables(config, reader).await?;
    let states = state::load(engine, flow).await?;
    let mut report = CollectReport::default();
    let mut first: Option<(String, CollectError)> = None;
    let single = tables.len() == 1;
    for (table, target) in tables {
        progress.begin(&table);
        let before = states.get(&state::key_text(&table)).filter(|state| state.target == target);
        let mut done = TableReport { table: table.clone(), target: target.clone(), ..TableReport::default() };
        if before.is_none() && !states.is_empty() && !admits(config, &table, &mut done)? {
            report.warnings.append(&mut done.warnings.clone());
            report.tables.push(done);
            continue;
        }
        let job = Job { flow, config, engine, run_id, progress };
        let ended = job.table(reader, &mut pace, &mut done, before).await;
        report.warnings.extend(done.warnings.iter().map(|it| format!("{table}: {it}")));
        if done.rejected > 0 {
            report.warnings.push(format!("{table}: {} put aside", rows_were(done.rejected)));
        }
        if done.values_discarded > 0 {
            report.warnings.push(format!("{table}: {} values were left out", done.values_discarded));
        }
        if let Err(error) = ended {
            if single || !error.is_of_table() {
                return Err(error);
            }
            done.error = Some(base::error::chain(&error));
            first.get_or_insert((table, error));
        }
        report.tables.push(done);
    }
    match first {
        None => Ok(report),
        Some((table, error)) => Err(CollectError::Partly {
            message: base::error::chain(&error),
            hint: error.hint(),
            retry: error.retry(),
            report: Box::new(report),
            table,
        }),
    }
}

/// What would become of the flow's tables, without a run.
pub async fn mapping(
    config: &CollectConfig,
    reader: &mut dyn Reader,
) -> Result<Vec<TableMapping>, CollectError> {
    let mut out = Vec::new();
    for (table, target) in tables(config, reader).await? {
        let described = reader.describe(&table).await?;
        out.push(Plan::new(config, &described, &target, None)?.mapping);
    }
    Ok(out)
}

/// The source's tables that the flow means, each with the dataset's.
async fn tables(
    config: &CollectConfig,
    reader: &mut dyn Reader,
) -> Result<Vec<(String, String)>, CollectError> {
    let all = reader.tables().await?;
    let wanted: Vec<&String> = all.iter().filter(|table| config.reads(table)).collect();
    if wanted.is_empty() {
        let shown: Vec<&str> = all.iter().take(20).map(String::as_str).collect();
        return Err(CollectError::refused(
            format!("the source has no table that `tables` means: {}", config.tables.join(", ")),
            if shown.is_empty() {
                "it shows none at all".into()
            } else {
                format!("it has: {}", shown.join(", "))
            },
        ));
    }
    if wanted.len() > 1 && !config.to.contains('*') {
        return Err(CollectError::refused(
            format!("the source has {} tables that the flow means, and `to` is one", wanted.len()),
            "name one table in `tables`, or set to: \"ods.*\"",
        ));
    }
    let mut out = Vec::new();
    let mut taken: BTreeMap<String, &String> = BTreeMap::new();
    for table in wanted {
        let target = names::target(&config.to, table).map_err(|message| {
            CollectError::refused(message, "rename the source's table, or leave it out")
        })?;
        if let Some(other) = taken.insert(target.to_lowercase(), table) {
            return Err(CollectError::refused(
                format!("`{other}` and `{table}` would both be {target}"),
                "collect them by two flows, each with its own `to`",
            ));
        }
        out.push((table.clone(), target));
    }
    Ok(out)
}

/// What the contract says of a table that the flow has not met before.
fn admits(config: &CollectConfig, table: &str, done: &mut TableReport) -> Result<bool, CollectError> {
    match config.schema.tables {
        Policy::Evolve => Ok(true),
        Policy::Freeze => Err(CollectError::refused(
            format!("the table `{table}` is new, and `schema.tables` is freeze"),
            "name the flow's tables in `tables`, or set schema: {tables: evolve}",
        )),
        Policy::DiscardRow | Policy::DiscardValue => {
            done.warnings.push(format!("{table}: the table is new and left out"));
            Ok(false)
        }
    }
}

struct Job<'a> {
    flow: &'a str,
    config: &'a CollectConfig,
    engine: &'a dyn Engine,
    run_id: i64,
    progress: &'a Progress,
}

impl Job<'_> {
    async fn table(
        &self,
        reader: &mut dyn Reader,
        pace: &mut Pace,
        done: &mut TableReport,
        before: Option<&State>,
    ) -> Result<(), CollectError> {
        let described: Described = reader.describe(&done.table).await?;
        let shape = before.map(|state| &state.shape);
        let plan = Plan::new(self.config, &described, &done.target, shape)?;
        done.warnings.extend(plan.warnings.iter().cloned());
        done.mapping = Some(plan.mapping.clone());
        let dataset = done.target.split('.').next().unwrap_or_default();
        self.engine.prepare_dataset(dataset).await?;
        let full = self.config.mode == Mode::Full;
        if full && before.is_none() && exists(self.engine, &done.target).await? {
            return Err(crate::table::foreign(&done.target));
        }
        let anew = self.config.mode != Mode::Cursor;
        let rejected = Rejected::open(self.engine, self.flow, &done.table, self.run_id, anew).await?;
        let Self { flow, config, engine, run_id: run, progress } = *self;
        let mut work =
            Work { flow, config, engine, run, progress, pace, plan, rejected, report: std::mem::take(done) };
        let ended = match self.config.mode {
            Mode::Full => full::run(&mut work, reader, &described).await,
            Mode::Cursor => cursor::run(&mut work, reader, &described, before).await,
            Mode::KeyDiff => key_diff::run(&mut work, reader, &described, before).await,
        };
        work.report.rejected = work.rejected.count;
        *done = work.report;
        ended
    }
}
