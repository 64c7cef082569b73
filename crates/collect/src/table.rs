//! One table's run: rows from the reader through the plan into a table of the engine, in transactions of bounded size.

use crate::config::{CollectConfig, Mode, ZeroRows};
use crate::digest::RowSum;
use crate::error::CollectError;
use crate::names;
use crate::pace::Pace;
use crate::plan::{Plan, Shape};
use crate::reader::Batches;
use crate::rejected::{REJECTED_TABLE, Rejected};
use crate::report::{Progress, Reconciled, TableReport, rows_were};
use crate::state::{self, State};
use base::{Column, ColumnType, Value};
use engine::{Engine, EngineError, Write, create_sql, name_sql};

/// Bytes of one transaction; a row that is larger is one by itself.
pub const BYTES_OF_WRITE_MAX: usize = 4 << 20;
/// What MySQL says of a row, and not of the statement: a key that is there already, values that no column holds, a row that is too large.
const OF_ROW: [u16; 13] = [1048, 1062, 1118, 1153, 1264, 1265, 1292, 1366, 1406, 1411, 1441, 3140, 8025];

/// What a run has at one table.
pub struct Work<'a> {
    pub flow: &'a str,
    pub config: &'a CollectConfig,
    pub engine: &'a dyn Engine,
    pub run: i64,
    pub progress: &'a Progress,
    pub pace: &'a mut Pace,
    pub plan: Plan,
    pub rejected: Rejected,
    pub report: TableReport,
}

/// A row on its way, and the number it was read under.
pub struct Row {
    pub number: u64,
    pub values: Vec<Value>,
}

/// What a mode does with rows that fit: whether one is wanted, and what else its transaction notes.
pub trait Rule: Send {
    fn admit(&mut self, row: &[Value]) -> Result<bool, CollectError>;

    /// A part of the transaction whose last row this is.
    fn note(&self, row: &[Value]) -> Result<Option<Write>, CollectError>;
}

/// All rows, and nothing else.
pub struct Every;

impl Rule for Every {
    fn admit(&mut self, _: &[Value]) -> Result<bool, CollectError> {
        Ok(true)
    }

    fn note(&self, _: &[Value]) -> Result<Option<Write>, CollectError> {
        Ok(None)
    }
}

/// Whether an error is the row's own, so that the others can be written without it.
pub fn is_of_row(error: &EngineError) -> bool {
    error.number().is_some_and(|number| OF_ROW.contains(&number))
}

impl Work<'_> {
    /// Writes all rows that are read into `table`; the sum of those that are there then.
    pub async fn load(
        &mut self,
        batches: &mut Batches,
        table: &str,
        replace: bool,
        rule: &mut dyn Rule,
    ) -> Result<RowSum, CollectError> {
        let mut sum = RowSum::default();
        let mut waiting: Vec<Row> = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = self.pace.next(batches).await? {
            let rows = (batch.rows.len() + batch.bad.len()) as u64;
            self.progress.read(rows);
            self.progress.rejected(batch.bad.len() as u64);
            for bad in &batch.bad {
                self.report.read += 1;
                self.rejected.bad(bad);
            }
            for row in batch.rows {
                self.report.read += 1;
                let number = self.report.read;
                let values = match self.plan.row(row) {
                    Ok((values, discarded)) => {
                        self.report.values_discarded += discarded;
                        values
                    }
                    Err((row, misfit)) if !misfit.fatal => {
                        self.rejected.row(&self.plan, number, &row, &misfit.reason);
                        self.progress.rejected(1);
                        continue;
                    }
                    Err((_, misfit)) => {
                        return Err(CollectError::refused(
                            format!("row {number}: {}, and `schema.types` is freeze", misfit.reason),
                            "mend it in the source, or set schema: {types: evolve} to put such rows aside",
                        ));
                    }
                };
                if !rule.admit(&values)? {
                    continue;
                }
                bytes += size(&values);
                waiting.push(Row { number, values });
                if waiting.len() >= self.config.batch_rows() || bytes >= BYTES_OF_WRITE_MAX {
                    bytes = 0;
                    self.write(table, replace, std::mem::take(&mut waiting), rule, &mut sum).await?;
                }
            }
            if self.rejected.is_full() && waiting.is_empty() {
                self.flush_rejected().await?;
            }
            self.check_rejected().await?;
        }
        self.write(table, replace, waiting, rule, &mut sum).await?;
        self.flush_rejected().await?;
        self.check_rejected().await?;
        Ok(sum)
    }

    /// One transaction, or as many as it takes to leave out the rows that the engine refuses.
    async fn write(
        &mut self,
        table: &str,
        replace: bool,
        rows: Vec<Row>,
        rule: &mut dyn Rule,
        sum: &mut RowSum,
    ) -> Result<(), CollectError> {
        let mut parts = vec![rows];
        while let Some(mut part) = parts.pop() {
            let Some(last) = part.last() else { continue };
            // With these rows the bookmark passes those that were put aside.
            self.check_rejected().await?;
            let note = rule.note(&last.values)?;
            let writes = |put: Option<Write>, rejected: &Rejected| {
                let all: Vec<Write> = put.into_iter().chain(note.clone()).chain(rejected.waiting()).collect();
                all
            };
            let put = Write::Put {
                table: table.to_owned(),
                columns: self.plan.shape.columns.clone(),
                rows: part.iter().map(|row| row.values.clone()).collect(),
                replace,
            };
            match self.engine.write(writes(Some(put), &self.rejected)).await {
                Ok(_) => {
                    self.rejected.written();
                    part.iter().for_each(|row| sum.add(&row.values));
                    self.report.written += part.len() as u64;
                    self.progress.written(part.len() as u64);
                }
                Err(error) if is_of_row(&error) && part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.push(rest);
                    parts.push(part);
                }
                Err(error) if is_of_row(&error) => {
                    self.rejected.fitted(&self.plan, last.number, &last.values, &error.to_string());
                    self.progress.rejected(1);
                    self.check_rejected().await?;
                    let writes = writes(None, &self.rejected);
                    if !writes.is_empty() {
                        self.engine.write(writes).await?;
                        self.rejected.written();
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub async fn flush_rejected(&mut self) -> Result<(), CollectError> {
        if let Some(write) = self.rejected.waiting() {
            self.engine.write(vec![write]).await?;
            self.rejected.written();
        }
        self.report.rejected = self.rejected.count;
        Ok(())
    }

    /// Whether so many rows were put aside that the run must not go on.
    async fn check_rejected(&mut self) -> Result<(), CollectError> {
        // The other modes read every row anew.
        if self.config.mode == Mode::Cursor && self.rejected.lost > 0 {
            self.flush_rejected().await?;
            return Err(CollectError::refused(
                format!(
                    "`{}`: more rows are bad than {REJECTED_TABLE} keeps of a table, and what is not kept would be lost",
                    self.report.table
                ),
                "mend them in the source, or leave out the column that is their `reason`, and run it again",
            ));
        }
        let Some(most) = self.config.max_rejected else { return Ok(()) };
        let count = self.progress.counts().rejected;
        if count <= most {
            return Ok(());
        }
        self.flush_rejected().await?;
        let first = self.rejected.first.clone().unwrap_or_default();
        Err(CollectError::refused(
            format!("{} put aside, and `max_rejected` is {most}; the first: {first}", rows_were(count)),
            format!("they are in the engine's table {REJECTED_TABLE}"),
        ))
    }

    /// What the flow says of a run that found nothing: `rows` is how many it took.
    pub fn check_zero(&mut self, rows: u64) -> Result<(), CollectError> {
        if rows > 0 {
            return Ok(());
        }
        let table = &self.report.table;
        let message = match self.rejected.count {
            0 => format!("no row was read from `{table}`"),
            count => format!("no row was taken over from `{table}`: {} put aside", rows_were(count)),
        };
        match self.config.zero_rows {
            ZeroRows::Ok => Ok(()),
            ZeroRows::Warn => {
                self.report.warnings.push(message);
                Ok(())
            }
            ZeroRows::Fail => Err(CollectError::refused(
                format!("{message}, and `zero_rows` is fail"),
                "look whether the source is whole, or set zero_rows: warn",
            )),
        }
    }

    /// Makes the table that is written beside the dataset's, and takes away what a crash has left.
    pub async fn make_shadow(&self) -> Result<String, CollectError> {
        let shadow = names::shadow(&self.plan.target);
        self.drop_leftovers().await?;
        self.engine.execute(&create_sql(&shadow, &self.plan.shape.columns, &self.plan.shape.key)).await?;
        Ok(shadow)
    }

    pub async fn drop_leftovers(&self) -> Result<(), CollectError> {
        let target = &self.plan.target;
        for name in [names::shadow(target), names::old(target)] {
            self.engine.execute(&format!("DROP TABLE IF EXISTS {}", name_sql(&name))).await?;
        }
        Ok(())
    }

    /// The shadow becomes the dataset's table; a reader sees the old one or the new one.
    pub async fn swap(&self) -> Result<(), CollectError> {
        let target = &self.plan.target;
        let (shadow, old) = (name_sql(&names::shadow(target)), name_sql(&names::old(target)));
        let name = name_sql(target);
        let statements = if exists(self.engine, target).await? {
            vec![format!("RENAME TABLE {name} TO {old}, {shadow} TO {name}"), format!("DROP TABLE {old}")]
        } else {
            vec![format!("RENAME TABLE {shadow} TO {name}")]
        };
        self.engine.execute_all(&statements).await?;
        Ok(())
    }

    /// Gives the dataset's table the plan's columns: the engines have no ALTER alike.
    pub async fn rebuild(&self, before: &Shape) -> Result<(), CollectError> {
        let shadow = self.make_shadow().await?;
        let kept =
            |column: &&Column| before.columns.iter().any(|it| it.name.eq_ignore_ascii_case(&column.name));
        let names: Vec<String> =
            self.plan.shape.columns.iter().filter(kept).map(|column| name_sql_of(&column.name)).collect();
        let names = names.join(", ");
        let (from, to) = (name_sql(&self.plan.target), name_sql(&shadow));
        self.engine.execute(&format!("INSERT INTO {to} ({names}) SELECT {names} FROM {from}")).await?;
        self.swap().await
    }

    /// The part of a transaction that notes where the table stands.
    pub fn state(&self, bookmark: Option<String>) -> Result<Write, CollectError> {
        let state = State { target: self.plan.target.clone(), shape: self.plan.shape.clone(), bookmark };
        state::put(self.flow, &self.report.table, &state, self.run)
    }

    /// Compares what was read with what the engine says it has, but for columns that the source has no longer.
    pub async fn reconcile(&mut self, table: &str, filter: &str, read: RowSum) -> Result<(), CollectError> {
        let sql =
            format!("SELECT {} FROM {}{filter}", select_list("", &self.plan.shape.columns), name_sql(table));
        let mut rows = self.engine.query(&sql).await?;
        let (mut found, gone) = (RowSum::default(), self.plan.gone());
        while let Some(batch) = rows.next().await? {
            self.pace.check()?;
            for mut row in batch {
                gone.iter().for_each(|at| row[*at] = Value::Null);
                found.add(&row);
            }
        }
        self.report.reconciled = Some(Reconciled {
            source_rows: read.rows,
            source_checksum: read.text(),
            dataset_rows: found.rows,
            dataset_checksum: found.text(),
            matched: read == found,
        });
        Ok(())
    }

    /// [`Work::reconcile`], where a difference is an error.
    pub async fn must_match(&mut self, table: &str, filter: &str, read: RowSum) -> Result<(), CollectError> {
        self.reconcile(table, filter, read).await?;
        match &self.report.reconciled {
            Some(it) if !it.matched => Err(CollectError::Differs(format!(
                "`{}`: {} rows with checksum {} were taken over, and {table} has {} with {}",
                self.report.table, it.source_rows, it.source_checksum, it.dataset_rows, it.dataset_checksum
            ))),
            _ => Ok(()),
        }
    }
}

/// Bytes of a row, about.
pub fn size(row: &[Value]) -> usize {
    let of = |value: &Value| match value {
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => text.len(),
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
            bytes.len()
        }
        _ => 8,
    };
    row.iter().map(of).sum()
}

/// A column's name: a point in it is a part of it.
pub fn name_sql_of(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Columns so that every value comes back whole: a server prints six digits of a FLOAT, and all of a DOUBLE.
pub fn select_list(alias: &str, columns: &[Column]) -> String {
    let one = |(at, column): (usize, &Column)| {
        let name = format!("{alias}{}", name_sql_of(&column.name));
        let exact = if column.ty == ColumnType::Float { format!("({name} + 0e0)") } else { name };
        format!("{exact} AS {}c{at}", alias.trim_end_matches('.'))
    };
    columns.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
}

pub async fn exists(engine: &dyn Engine, table: &str) -> Result<bool, CollectError> {
    match engine.columns(table).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.number(), Some(1049 | 1051 | 1146)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A table that is there and that no run of this flow has left.
pub fn foreign(target: &str) -> CollectError {
    CollectError::refused(
        format!("the table {target} is there, and this flow did not make it"),
        "name another dataset or table in `to`, or drop that one",
    )
}
