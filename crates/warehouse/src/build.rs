//! One run of one model: its rows are written beside the table, checked there, and put in.
//!
//! Every step leaves what readers see as it was, but the last, which is one transaction on SQLite, and one statement or one
//! transaction on a server. What a crash leaves beside the table is dropped by the next run.

use crate::check::{self, Finding, Moment};
use crate::error::WarehouseError;
use crate::interval::{self, Interval};
use crate::macros;
use crate::model::{Model, ModelKind};
use crate::state::{self, Built};
use base::{Column, ColumnType, Generated};
use engine::{Engine, EngineError, Write, create_sql, kept, name_sql};
use jiff::civil::DateTime;

/// The columns of a version of a row.
pub const VALID: [&str; 2] = ["valid_from", "valid_to"];

/// Intervals before the newest that each run computes again where the model does not say: what it reads may be filled by several
/// flows, of which one comes later.
pub const LOOKBACK: u32 = 1;

/// What a run shall compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// What is missing and what may have come late; the whole table where it has no intervals.
    Due,
    /// Intervals that lie in this one, also those that are done.
    Intervals(Interval),
    /// The whole table anew.
    Everything,
}

/// What a run is given.
#[derive(Clone, Copy)]
pub struct Job<'j> {
    pub model: &'j Model,
    /// The number of the run.
    pub run: i64,
    /// The clock on the wall of the project's time zone.
    pub now: DateTime,
    pub want: &'j Want,
    /// Told how many intervals of how many are done.
    pub progress: &'j (dyn Fn(usize, usize) + Sync),
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Rows that were written, and rows that went.
    pub written: u64,
    pub deleted: u64,
    /// Intervals that were computed.
    pub intervals: usize,
    /// The table was made anew.
    pub rebuilt: bool,
    pub findings: Vec<Finding>,
    /// Why nothing, or nothing more, was published.
    pub blocked: Vec<String>,
}

/// Where the rows of a run are until they are checked.
pub fn shadow_of(table: &str) -> String {
    format!("{table}__tidemill_new")
}

/// Where what a run replaced is until the next.
pub fn before_of(table: &str) -> String {
    format!("{table}__tidemill_old")
}

/// Runs a model.
pub async fn build(engine: &dyn Engine, job: Job<'_>) -> Result<Outcome, WarehouseError> {
    let name = &job.model.name;
    let dataset = name.split_once('.').map_or("", |(dataset, _)| dataset);
    engine
        .prepare_dataset(dataset)
        .await
        .map_err(WarehouseError::of(format!("make the dataset `{dataset}`")))?;
    state::prepare(engine).await?;
    let known = state::built(engine, name).await?;
    let exists = exists(engine, name).await?;
    if known.is_none() {
        if exists {
            return Err(WarehouseError::unfit(
                format!("there is a table `{name}` already, which no model made"),
                "rename it, or give the model another name",
            ));
        }
        // From here on the table is the model's, whatever happens.
        let claim = Built { kind: job.model.config.kind.name().into(), run: job.run, ..Built::default() };
        engine.write(vec![state::note(name, &claim)]).await.map_err(WarehouseError::of("note the model"))?;
    }
    let known = known.unwrap_or_default();
    let step = Step { engine, job, exists, known };
    match job.model.config.kind {
        ModelKind::Full => step.full().await,
        ModelKind::View => step.view().await,
        ModelKind::IncrementalByTime => step.by_time().await,
        ModelKind::IncrementalByKey => step.by_key().await,
        ModelKind::Snapshot => step.snapshot().await,
    }
}

/// Whether a table or view is there.
pub async fn exists(engine: &dyn Engine, table: &str) -> Result<bool, WarehouseError> {
    match engine.columns(table).await {
        Ok(_) => Ok(true),
        // No table, or no database.
        Err(EngineError::Sql { number: 1146 | 1049, .. }) => Ok(false),
        // A view whose tables are not what they were.
        Err(EngineError::Sql { number: 1356, .. }) => Ok(true),
        Err(error) => Err(WarehouseError::of(format!("look for `{table}`"))(error)),
    }
}

/// The columns of the table that holds what a query gives.
pub fn table_columns(model: &Model, given: &[Column]) -> Vec<Column> {
    let keyed = |name: &str| {
        let mut key = model.config.key.iter().chain(model.config.indexes.iter().flatten());
        key.any(|it| it.eq_ignore_ascii_case(name))
    };
    let of_key = |name: &str| model.config.key.iter().any(|it| it.eq_ignore_ascii_case(name));
    let column = |column: &Column| {
        let mut own = kept(column, keyed(&column.name));
        own.nullable = !of_key(&column.name);
        own
    };
    given.iter().map(column).collect()
}

struct Step<'s> {
    engine: &'s dyn Engine,
    job: Job<'s>,
    exists: bool,
    known: Built,
}

impl Step<'_> {
    fn model(&self) -> &Model {
        self.job.model
    }

    fn shadow(&self) -> String {
        shadow_of(&self.model().name)
    }

    async fn run(&self, what: &str, sql: &str) -> Result<u64, WarehouseError> {
        let name = &self.model().name;
        self.engine.execute(sql).await.map_err(WarehouseError::of(format!("{what} of `{name}`")))
    }

    async fn write(&self, what: &str, writes: Vec<Write>) -> Result<u64, WarehouseError> {
        let name = &self.model().name;
        self.engine.write(writes).await.map_err(WarehouseError::of(format!("{what} of `{name}`")))
    }

    /// The columns that a query gives.
    async fn given(&self, sql: &str) -> Result<Vec<Column>, WarehouseError> {
        let model = self.model();
        let given = self.engine.check(sql).await.map_err(|error| at_line(model, error))?;
        if let Some((message, hint)) = check::column_problems(&model.config, &given).into_iter().next() {
            return Err(WarehouseError::unfit(format!("{}: {message}", model.path), hint));
        }
        Ok(given)
    }

    /// An empty table for the rows of this run.
    async fn make_shadow(&self, columns: &[Column], key: &[String]) -> Result<(), WarehouseError> {
        let shadow = self.shadow();
        self.clear(&shadow).await?;
        self.run("make the new table", &create_sql(&shadow, columns, key)).await?;
        for (number, index) in self.model().config.indexes.iter().enumerate() {
            let columns: Vec<String> = index.iter().map(|it| name_sql(it)).collect();
            let sql = format!("CREATE INDEX `i{number}` ON {} ({})", name_sql(&shadow), columns.join(", "));
            self.run("make an index", &sql).await?;
        }
        Ok(())
    }

    async fn drop_shadow(&self) -> Result<(), WarehouseError> {
        self.clear(&self.shadow()).await
    }

    /// Drops what a run left under this name, a table or a view.
    async fn clear(&self, name: &str) -> Result<(), WarehouseError> {
        for what in ["TABLE", "VIEW"] {
            let sql = format!("DROP {what} IF EXISTS {}", name_sql(name));
            self.run("clear what a run left", &sql).await?;
        }
        Ok(())
    }

    /// Notes that nothing of what an earlier run replaced is kept any more, before it goes. A run that is tried again keeps its own.
    async fn forget_kept(&self) -> Result<(), WarehouseError> {
        if self.known.run == self.job.run {
            return Ok(());
        }
        let none = Built { run: 0, before: String::new(), run_before: 0, ..self.known.clone() };
        self.write("note what is kept", vec![state::note(&self.model().name, &none)]).await?;
        self.clear(&before_of(&self.model().name)).await
    }

    /// An incremental table has the columns that its query gives, or is made anew on purpose.
    async fn fits(&self, columns: &[Column]) -> Result<(), WarehouseError> {
        let name = &self.model().name;
        let of = self.engine.columns(name).await.map_err(WarehouseError::of(format!("look at `{name}`")))?;
        let own: Vec<&Column> = of.iter().filter(|it| !self.is_version(&it.name)).collect();
        let scale = |column: &Column| match column.ty {
            ColumnType::Decimal { scale, .. } => Some(scale),
            _ => None,
        };
        let same = |one: &Column, other: &Column| {
            one.name.eq_ignore_ascii_case(&other.name) && scale(one) == scale(other)
        };
        let fits = own.len() == columns.len() && columns.iter().all(|it| own.iter().any(|o| same(it, o)));
        if fits {
            return Ok(());
        }
        let names = |columns: &mut dyn Iterator<Item = &Column>| {
            columns.map(|it| format!("{} {}", it.name, it.sql_type)).collect::<Vec<_>>().join(", ")
        };
        let message = format!(
            "the query of `{name}` gives other columns than its table has: {}, and the table has {}",
            names(&mut columns.iter()),
            names(&mut own.iter().copied())
        );
        let hint = format!("what it reads has changed: `tidemill run {name} --full` makes the table anew");
        Err(WarehouseError::unfit(message, hint))
    }

    fn is_version(&self, column: &str) -> bool {
        self.model().config.kind == ModelKind::Snapshot
            && VALID.iter().any(|name| column.eq_ignore_ascii_case(name))
    }

    async fn checked(&self, table: &str, rows_before: Option<u64>) -> Result<Vec<Finding>, WarehouseError> {
        let moment = Moment { now: self.job.now, rows_before };
        check::run(self.engine, &self.model().config.checks, table, moment).await
    }

    /// Only the checks that are of a whole table (`freshness`, `row_count`), or only the others.
    async fn checked_of(
        &self,
        table: &str,
        rows_before: Option<u64>,
        whole: bool,
    ) -> Result<Vec<Finding>, WarehouseError> {
        let checks = self.model().config.checks.iter().filter(|it| it.is_of_whole() == whole);
        let checks: Vec<_> = checks.cloned().collect();
        let moment = Moment { now: self.job.now, rows_before };
        check::run(self.engine, &checks, table, moment).await
    }

    /// How the table is made from now on. `swapped`: what was there before is kept beside it.
    fn built(&self, swapped: bool) -> Built {
        let (before, run_before) = match swapped && self.exists {
            true => (self.known.fingerprint.clone(), self.known.run),
            false => (String::new(), 0),
        };
        Built {
            fingerprint: self.model().fingerprint.clone(),
            kind: self.model().config.kind.name().to_owned(),
            run: self.job.run,
            at: self.job.now.strftime("%F %T%.6f").to_string(),
            before,
            run_before,
        }
    }

    /// Puts the shadow in the table's place, with what belongs to it.
    async fn swap(&self, mut notes: Vec<Write>) -> Result<(), WarehouseError> {
        let name = &self.model().name;
        let (table, shadow, before) = (name_sql(name), name_sql(&self.shadow()), name_sql(&before_of(name)));
        let mut writes = vec![Write::Sql(format!("DROP TABLE IF EXISTS {before}"))];
        if self.exists && self.known.kind == ModelKind::View.name() {
            writes.push(Write::Sql(format!("DROP VIEW IF EXISTS {table}")));
            writes.push(Write::Sql(format!("RENAME TABLE {shadow} TO {table}")));
        } else if self.exists {
            writes.push(Write::Sql(format!("RENAME TABLE {table} TO {before}, {shadow} TO {table}")));
        } else {
            writes.push(Write::Sql(format!("RENAME TABLE {shadow} TO {table}")));
        }
        writes.push(state::note(name, &self.built(true)));
        writes.append(&mut notes);
        self.write("publish the new table", writes).await.map(|_| ())
    }

    async fn count(&self, table: &str) -> Result<u64, WarehouseError> {
        count(self.engine, table).await
    }

    async fn full(&self) -> Result<Outcome, WarehouseError> {
        let sql = &self.model().sql;
        let columns = table_columns(self.model(), &self.given(sql).await?);
        self.make_shadow(&columns, &self.model().config.key).await?;
        let insert = format!("INSERT INTO {} ({}) {sql}", name_sql(&self.shadow()), listed(&columns));
        let written = self.run("compute the rows", &insert).await?;
        let before = match self.exists && self.known.kind != ModelKind::View.name() {
            true => Some(self.count(&self.model().name).await?),
            false => None,
        };
        let findings = self.checked(&self.shadow(), before).await?;
        let blocked = check::blocking(&findings);
        let rebuilt = blocked.is_empty();
        if rebuilt {
            self.swap(vec![state::forget_intervals(&self.model().name, None)]).await?;
        } else {
            self.drop_shadow().await?;
        }
        let deleted = before.filter(|_| rebuilt).unwrap_or(0);
        Ok(Outcome {
            written: if rebuilt { written } else { 0 },
            deleted,
            rebuilt,
            findings,
            blocked,
            ..Outcome::default()
        })
    }

    async fn view(&self) -> Result<Outcome, WarehouseError> {
        let model = self.model();
        self.given(&model.sql).await?;
        let (table, shadow) = (name_sql(&model.name), name_sql(&self.shadow()));
        self.clear(&self.shadow()).await?;
        let made = format!("CREATE OR REPLACE VIEW {shadow} AS {}", model.sql);
        self.engine.execute(&made).await.map_err(|error| at_line(model, error))?;
        let findings = self.checked(&self.shadow(), None).await?;
        let blocked = check::blocking(&findings);
        let mut writes = vec![Write::Sql(format!("DROP VIEW IF EXISTS {shadow}"))];
        if blocked.is_empty() {
            if self.exists && self.known.kind != ModelKind::View.name() {
                writes.push(Write::Sql(format!("DROP TABLE IF EXISTS {table}")));
            }
            writes.push(Write::Sql(format!("CREATE OR REPLACE VIEW {table} AS {}", model.sql)));
            writes.push(state::note(&model.name, &self.built(false)));
            writes.push(state::forget_intervals(&model.name, None));
        }
        self.write("publish the view", writes).await?;
        Ok(Outcome { rebuilt: blocked.is_empty(), findings, blocked, ..Outcome::default() })
    }

    async fn by_time(&self) -> Result<Outcome, WarehouseError> {
        let config = &self.model().config;
        let (Some(time), Some(first)) = (&config.time_column, config.start) else {
            return Err(WarehouseError::Internal("a model without its time was run".into()));
        };
        let all = interval::whole(config.grain, first, self.job.now);
        let most = config.batch.unwrap_or_else(|| config.grain.batch());
        let sample = all.last().copied().unwrap_or_else(|| config.grain.around(first.at(0, 0, 0, 0)));
        let given = self.given(&macros::applied(&self.model().sql, &sample)).await?;
        let columns = table_columns(self.model(), &given);
        let current = self.exists && self.known.fingerprint == self.model().fingerprint;
        if !current || *self.job.want == Want::Everything {
            return self.rebuild(&columns, time, &interval::joined(&all, most), all.len()).await;
        }
        let done = state::intervals(self.engine, &self.model().name, &self.model().fingerprint).await?;
        let todo = match self.job.want {
            Want::Intervals(within) => {
                // An interval that is asked for in part is asked for.
                let asked = |it: &&Interval| it.start < within.end && it.end > within.start;
                let asked: Vec<Interval> = all.iter().filter(asked).copied().collect();
                if asked.is_empty() {
                    let message =
                        format!("`{}` has no interval in these days that is over", self.model().name);
                    return Err(WarehouseError::unfit(message, format!("its first day is {first}")));
                }
                asked
            }
            _ => interval::due(&all, &done, config.lookback.unwrap_or(LOOKBACK)),
        };
        self.fits(&columns).await?;
        self.replace(&columns, time, &interval::joined(&todo, most), todo.len()).await
    }

    /// The rows of an interval into the shadow.
    async fn fill(&self, columns: &[Column], time: &str, within: &Interval) -> Result<u64, WarehouseError> {
        let sql = macros::applied(&self.model().sql, within);
        let names = listed(columns);
        let insert = format!(
            "INSERT INTO {} ({names}) SELECT {names} FROM ({sql}\n) AS q WHERE {}",
            name_sql(&self.shadow()),
            range(time, within)
        );
        self.run("compute an interval", &insert).await
    }

    /// The whole table anew, interval by interval, and swapped in.
    async fn rebuild(
        &self,
        columns: &[Column],
        time: &str,
        groups: &[(Interval, Vec<Interval>)],
        total: usize,
    ) -> Result<Outcome, WarehouseError> {
        self.make_shadow(columns, &self.model().config.key).await?;
        let mut outcome = Outcome { intervals: total, ..Outcome::default() };
        let mut done = 0;
        for (within, parts) in groups {
            outcome.written += self.fill(columns, time, within).await?;
            done += parts.len();
            (self.job.progress)(done, total);
        }
        let before = match self.exists && self.known.kind != ModelKind::View.name() {
            true => Some(self.count(&self.model().name).await?),
            false => None,
        };
        outcome.findings = self.checked(&self.shadow(), before).await?;
        outcome.blocked = check::blocking(&outcome.findings);
        if !outcome.blocked.is_empty() {
            self.drop_shadow().await?;
            return Ok(Outcome { written: 0, intervals: 0, ..outcome });
        }
        let model = self.model();
        let all: Vec<Interval> = groups.iter().flat_map(|(_, parts)| parts.iter().copied()).collect();
        let noted = state::note_intervals(&model.name, &model.fingerprint, self.job.run, &all);
        self.swap(vec![state::forget_intervals(&model.name, None), noted]).await?;
        Ok(Outcome { rebuilt: true, deleted: before.unwrap_or(0), ..outcome })
    }

    /// Some intervals of the table, a transaction a group of them.
    async fn replace(
        &self,
        columns: &[Column],
        time: &str,
        groups: &[(Interval, Vec<Interval>)],
        total: usize,
    ) -> Result<Outcome, WarehouseError> {
        let model = self.model();
        let (table, before) = (name_sql(&model.name), name_sql(&before_of(&model.name)));
        let names = listed(columns);
        let mut outcome = Outcome::default();
        if groups.is_empty() {
            return Ok(outcome);
        }
        self.forget_kept().await?;
        if !exists(self.engine, &before_of(&model.name)).await? {
            let sql = create_sql(&before_of(&model.name), columns, &[]);
            self.run("make room for what is replaced", &sql).await?;
        }
        for (within, parts) in groups {
            self.make_shadow(columns, &model.config.key).await?;
            let written = self.fill(columns, time, within).await?;
            let findings = self.checked_of(&self.shadow(), None, false).await?;
            let blocked = check::blocking(&findings);
            outcome.findings = merged(std::mem::take(&mut outcome.findings), findings);
            if !blocked.is_empty() {
                self.drop_shadow().await?;
                // What follows may be whole: each part is for itself.
                let reason = format!("from {} to {}", within.start, within.end);
                outcome.blocked.extend(blocked.into_iter().map(|it| format!("{it} ({reason})")));
                continue;
            }
            let condition = range(time, within);
            let deleted = self.count_where(&model.name, &condition).await?;
            let built = Built { run: self.job.run, ..self.built(false) };
            let shadow = name_sql(&self.shadow());
            let writes = vec![
                Write::Sql(format!(
                    "INSERT INTO {before} ({names}) SELECT {names} FROM {table} WHERE {condition}"
                )),
                Write::Sql(format!("DELETE FROM {table} WHERE {condition}")),
                Write::Sql(format!("INSERT INTO {table} ({names}) SELECT {names} FROM {shadow}")),
                state::note_intervals(&model.name, &model.fingerprint, self.job.run, parts),
                state::note(&model.name, &built),
            ];
            self.write("publish an interval", writes).await?;
            outcome.written += written;
            outcome.deleted += deleted;
            outcome.intervals += parts.len();
            (self.job.progress)(outcome.intervals, total);
            self.drop_shadow().await?;
        }
        // What is said of the whole table is looked at when it is whole.
        let findings = self.checked_of(&model.name, None, true).await?;
        outcome.blocked.extend(check::blocking(&findings));
        outcome.findings.extend(findings);
        Ok(outcome)
    }

    async fn count_where(&self, table: &str, condition: &str) -> Result<u64, WarehouseError> {
        one_count(self.engine, &format!("SELECT COUNT(*) FROM {} WHERE {condition}", name_sql(table))).await
    }

    async fn by_key(&self) -> Result<Outcome, WarehouseError> {
        let current = self.exists && self.known.fingerprint == self.model().fingerprint;
        if !current || *self.job.want == Want::Everything {
            return self.full().await;
        }
        let model = self.model();
        let columns = table_columns(model, &self.given(&model.sql).await?);
        self.fits(&columns).await?;
        self.forget_kept().await?;
        self.make_shadow(&columns, &model.config.key).await?;
        let names = listed(&columns);
        let (table, shadow) = (name_sql(&model.name), name_sql(&self.shadow()));
        let insert = format!("INSERT INTO {shadow} ({names}) {}", model.sql);
        let written = self.run("compute the rows", &insert).await?;
        let findings = self.checked(&self.shadow(), None).await?;
        let blocked = check::blocking(&findings);
        if !blocked.is_empty() {
            self.drop_shadow().await?;
            return Ok(Outcome { findings, blocked, ..Outcome::default() });
        }
        let before = name_sql(&before_of(&model.name));
        self.clear(&before_of(&model.name)).await?;
        self.run("make room for what is replaced", &create_sql(&before_of(&model.name), &columns, &[]))
            .await?;
        let same = equal(&model.config.key, "n", "o");
        let replaced = format!("EXISTS (SELECT 1 FROM {shadow} AS n WHERE {same})");
        let olds: Vec<String> = columns.iter().map(|it| format!("o.{}", name_sql(&it.name))).collect();
        let deleted =
            one_count(self.engine, &format!("SELECT COUNT(*) FROM {table} AS o WHERE {replaced}")).await?;
        let writes = vec![
            Write::Sql(format!(
                "INSERT INTO {before} ({names}) SELECT {} FROM {table} AS o WHERE {replaced}",
                olds.join(", ")
            )),
            Write::Sql(format!("REPLACE INTO {table} ({names}) SELECT {names} FROM {shadow}")),
            state::note(&model.name, &Built { run: self.job.run, ..self.built(false) }),
        ];
        self.write("publish the rows", writes).await?;
        Ok(Outcome { written, deleted, findings, ..Outcome::default() })
    }

    async fn snapshot(&self) -> Result<Outcome, WarehouseError> {
        let model = self.model();
        let given = self.given(&model.sql).await?;
        if let Some(taken) =
            given.iter().find(|it| VALID.iter().any(|name| it.name.eq_ignore_ascii_case(name)))
        {
            let message =
                format!("the query gives a column `{}`, which versions have of themselves", taken.name);
            return Err(WarehouseError::unfit(message, "name it otherwise with AS"));
        }
        let columns = table_columns(model, &given);
        let current = self.exists && self.known.fingerprint == model.fingerprint;
        let published = self.exists && !self.known.fingerprint.is_empty();
        if published && !current && self.known.kind == ModelKind::Snapshot.name() {
            let message = "the query of a snapshot changed, and its versions cannot be made again";
            return Err(WarehouseError::unfit(
                message,
                "give the model another name, or drop its table first",
            ));
        }
        if published && current {
            self.fits(&columns).await?;
        }
        self.make_shadow(&columns, &model.config.key).await?;
        let names = listed(&columns);
        let (table, shadow) = (name_sql(&model.name), name_sql(&self.shadow()));
        let insert = format!("INSERT INTO {shadow} ({names}) {}", model.sql);
        self.run("compute the rows", &insert).await?;
        let findings = self.checked(&self.shadow(), None).await?;
        let blocked = check::blocking(&findings);
        if !blocked.is_empty() {
            self.drop_shadow().await?;
            return Ok(Outcome { findings, blocked, ..Outcome::default() });
        }
        if !published || !current {
            // Of a run that died before its first row, or of another kind of model.
            let what =
                if self.known.kind == ModelKind::View.name() && self.exists { "VIEW" } else { "TABLE" };
            self.run("clear the table", &format!("DROP {what} IF EXISTS {table}")).await?;
            let mut versions = columns.clone();
            for (name, nullable) in VALID.into_iter().zip([false, true]) {
                versions.push(Column {
                    name: name.to_owned(),
                    ty: ColumnType::DateTime { fsp: 6 },
                    sql_type: "datetime(6)".to_owned(),
                    nullable,
                    charset: None,
                    collation: None,
                    generated: Generated::No,
                    invisible: false,
                });
            }
            let key: Vec<String> = model.config.key.iter().cloned().chain([VALID[0].to_owned()]).collect();
            self.run("make the table", &create_sql(&model.name, &versions, &key)).await?;
        }
        let now = format!("TIMESTAMP'{}'", self.job.now.strftime("%F %T%.6f"));
        let compared: Vec<String> = match model.config.compare.is_empty() {
            false => model.config.compare.clone(),
            true => columns.iter().map(|it| it.name.clone()).collect(),
        };
        let key = equal(&model.config.key, "n", "t");
        let all: Vec<String> = model.config.key.iter().cloned().chain(compared).collect();
        let unchanged = format!("EXISTS (SELECT 1 FROM {shadow} AS n WHERE {})", equal(&all, "n", "t"));
        let ended = format!("t.valid_to IS NULL AND NOT {unchanged}");
        let deleted =
            one_count(self.engine, &format!("SELECT COUNT(*) FROM {table} AS t WHERE {ended}")).await?;
        let begun = format!("NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t.valid_to IS NULL AND {key})");
        let news: Vec<String> = columns.iter().map(|it| format!("n.{}", name_sql(&it.name))).collect();
        let writes = vec![
            Write::Sql(format!("UPDATE {table} AS t SET valid_to = {now} WHERE {ended}")),
            Write::Sql(format!(
                "INSERT INTO {table} ({names}, valid_from, valid_to) SELECT {}, {now}, NULL FROM {shadow} AS n WHERE {begun}",
                news.join(", ")
            )),
            state::note(&model.name, &self.built(false)),
        ];
        let done = self.write("publish the versions", writes).await?;
        self.drop_shadow().await?;
        // The note is a row too.
        let written = done.saturating_sub(deleted + 1);
        Ok(Outcome { written, deleted, findings, ..Outcome::default() })
    }
}

/// An error of a model's query, at its line of the file.
fn at_line(model: &Model, error: EngineError) -> WarehouseError {
    let (line, column, message) = crate::model::placed(&error);
    if matches!(error, EngineError::Refused { .. } | EngineError::Sql { .. }) {
        let line = line + model.sql_line - 1;
        let hint = base::Fault::hint(&error).unwrap_or_default();
        return WarehouseError::unfit(format!("{}:{line}:{column}: {message}", model.path), hint);
    }
    WarehouseError::of(format!("read the query of `{}`", model.name))(error)
}

fn listed(columns: &[Column]) -> String {
    columns.iter().map(|it| name_sql(&it.name)).collect::<Vec<_>>().join(", ")
}

/// Rows of an interval.
fn range(time: &str, within: &Interval) -> String {
    let (start, end) = (within.start.strftime("%F %T"), within.end.strftime("%F %T"));
    let time = name_sql(time);
    format!("{time} >= TIMESTAMP'{start}' AND {time} < TIMESTAMP'{end}'")
}

fn equal(columns: &[String], one: &str, other: &str) -> String {
    let all: Vec<String> = columns
        .iter()
        .map(|it| {
            let name = name_sql(it);
            format!("{one}.{name} <=> {other}.{name}")
        })
        .collect();
    all.join(" AND ")
}

/// Findings of several parts of a table as those of the table.
fn merged(mut all: Vec<Finding>, more: Vec<Finding>) -> Vec<Finding> {
    for finding in more {
        match all.iter_mut().find(|it| it.check == finding.check) {
            None => all.push(finding),
            Some(known) => {
                if finding.broken > 0 {
                    known.message = finding.message;
                }
                known.broken += finding.broken;
            }
        }
    }
    all
}

/// Rows of a table.
pub async fn count(engine: &dyn Engine, table: &str) -> Result<u64, WarehouseError> {
    one_count(engine, &format!("SELECT COUNT(*) FROM {}", name_sql(table))).await
}

async fn one_count(engine: &dyn Engine, sql: &str) -> Result<u64, WarehouseError> {
    let failed = || WarehouseError::of("count rows");
    let rows = engine.query(sql).await.map_err(failed())?.all(1).await.map_err(failed())?;
    match rows.first().and_then(|row| row.first()) {
        Some(base::Value::Int(count)) => Ok((*count).try_into().unwrap_or_default()),
        Some(base::Value::UInt(count)) => Ok(*count),
        _ => Err(WarehouseError::Internal("a count is no number".into())),
    }
}

/// Gives back what the last run of a model replaced; only that run can be taken back. What was put back.
pub async fn rollback(engine: &dyn Engine, model: &Model, run: i64) -> Result<String, WarehouseError> {
    let name = &model.name;
    state::prepare(engine).await?;
    let known = state::built(engine, name).await?.ok_or_else(|| {
        WarehouseError::unfit(format!("no run has made `{name}`"), "`tidemill run` makes it")
    })?;
    if known.run == 0 {
        let hint = "a run behind it was taken back, or did not come to its end";
        let message = format!("nothing is kept any more of what run {run} of `{name}` replaced");
        return Err(WarehouseError::unfit(message, hint));
    }
    if known.run != run {
        let hint = format!("the last run of `{name}` is {}; runs before it are not kept", known.run);
        return Err(WarehouseError::unfit(format!("run {run} is not the last of `{name}`"), hint));
    }
    let (table, before, shadow) = (name_sql(name), name_sql(&before_of(name)), name_sql(&shadow_of(name)));
    let none = || {
        let message = format!("nothing is kept of what run {run} of `{name}` replaced");
        WarehouseError::unfit(message, "its first run has nothing before it; a view is changed in its file")
    };
    let failed = || WarehouseError::of(format!("take back run {run} of `{name}`"));
    let kind = model.config.kind;
    if kind == ModelKind::Snapshot {
        let at = format!("TIMESTAMP'{}'", known.at);
        let writes = vec![
            Write::Sql(format!("DELETE FROM {table} WHERE valid_from = {at}")),
            Write::Sql(format!("UPDATE {table} SET valid_to = NULL WHERE valid_to = {at}")),
            state::note(name, &Built { run: 0, ..known.clone() }),
        ];
        engine.write(writes).await.map_err(failed())?;
        return Ok(format!("the versions of {} went, and those before hold again", known.at));
    }
    if kind == ModelKind::View || !exists(engine, &before_of(name)).await? {
        return Err(none());
    }
    let columns: Vec<Column> = engine.columns(name).await.map_err(failed())?;
    let names = listed(&columns);
    if !known.before.is_empty() {
        // The whole table was swapped.
        let built = Built {
            fingerprint: known.before,
            run: known.run_before,
            before: String::new(),
            run_before: 0,
            ..known
        };
        // Until the last note nothing counts as filled: a server that dies between makes the table anew.
        let unknown = Built { fingerprint: String::new(), run: 0, ..built.clone() };
        let writes = vec![
            state::note(name, &unknown),
            state::forget_intervals(name, None),
            Write::Sql(format!("DROP TABLE IF EXISTS {shadow}")),
            Write::Sql(format!("RENAME TABLE {table} TO {shadow}, {before} TO {table}")),
            state::note(name, &built),
            Write::Sql(format!("DROP TABLE IF EXISTS {shadow}")),
        ];
        engine.write(writes).await.map_err(failed())?;
        return Ok(match built.run {
            0 => "the table before it is back".to_owned(),
            before => format!("the table of run {before} is back"),
        });
    }
    let mut writes = Vec::new();
    match (kind, &model.config.time_column) {
        (ModelKind::IncrementalByTime, Some(time)) => {
            let all = state::intervals_of_run(engine, name, run).await?;
            let parts: Vec<Interval> = all.iter().map(|start| model.config.grain.around(*start)).collect();
            for (within, _) in interval::joined(&parts, u32::MAX) {
                writes.push(Write::Sql(format!("DELETE FROM {table} WHERE {}", range(time, &within))));
            }
            writes.push(state::forget_intervals(name, Some(&parts)));
        }
        (ModelKind::IncrementalByKey, _) if exists(engine, &shadow_of(name)).await? => {
            let same = equal(&model.config.key, "n", "t");
            writes.push(Write::Sql(format!(
                "DELETE FROM {table} AS t WHERE EXISTS (SELECT 1 FROM {shadow} AS n WHERE {same})"
            )));
        }
        _ => return Err(none()),
    }
    writes.push(Write::Sql(format!("INSERT INTO {table} ({names}) SELECT {names} FROM {before}")));
    writes.push(state::note(name, &Built { run: 0, ..known }));
    engine.write(writes).await.map_err(failed())?;
    Ok("the rows that it replaced are back; its intervals are due again".into())
}
