//! `mode: cursor`: the rows from the bookmark on, in the order of their cursor. Each transaction moves the bookmark to its last
//! row, so that a crash repeats nothing. Rows whose cursor equals the bookmark are read again, and those that the dataset has
//! already are told by comparing them with it: as many as are there are passed over.

use crate::digest::{RowSum, compare, row_hash, text};
use crate::error::CollectError;
use crate::plan::Plan;
use crate::reader::{Described, Reader, Scope};
use crate::rejected::{Rejected, RetryReport, literal, retry_table};
use crate::state::State;
use crate::table::{Rule, Work, exists, foreign, name_sql_of, select_list};
use base::{Column, ColumnType, Value};
use engine::{Fit, Write, create_sql, name_sql};
use std::cmp::Ordering;
use std::collections::HashMap;

/// Rows of one cursor's value that can be told apart.
const BOUNDARY_ROWS_MAX: u64 = 2_000_000;
/// Keys of a run without order whose newest row is known; about 100 bytes each.
const NEWEST_KEYS_MAX: usize = 2_000_000;

pub async fn run(
    work: &mut Work<'_>,
    reader: &mut dyn Reader,
    described: &Described,
    before: Option<&State>,
) -> Result<(), CollectError> {
    let column = work.config.cursor.clone().unwrap_or_default();
    let cursor =
        work.plan.cursor.ok_or_else(|| CollectError::Internal("a cursor without its column".into()))?;
    let keyed = !work.plan.key.is_empty();
    if !reader.in_order() && !keyed {
        return Err(CollectError::refused(
            "this source does not give rows in the order of a cursor, so that a crash would repeat some",
            "name the columns that tell rows apart: key: [id]",
        ));
    }
    let bookmark = prepare(work, before).await?;
    retry(work, before).await?;
    let mut rule = From {
        cursor,
        bookmark: bookmark.clone(),
        last: None,
        boundary: HashMap::new(),
        compared: Vec::new(),
        notes: reader.in_order(),
        key: work.plan.key.clone(),
        newest: HashMap::new(),
        forgets: false,
        beyond: RowSum::default(),
        state: State { target: work.plan.target.clone(), shape: work.plan.shape.clone(), bookmark: None },
        flow: work.flow.to_owned(),
        table: work.report.table.clone(),
        run: work.run,
    };
    if let Some(value) = &bookmark {
        rule.read_boundary(work, value, before).await?;
    }
    let scope = Scope::From { column, value: bookmark.clone() };
    let mut batches = reader.read(described, scope).await?;
    let target = work.plan.target.clone();
    let sum = work.load(&mut batches, &target, keyed, &mut rule).await?;
    if rule.forgets {
        work.report.warnings.push(format!(
            "rows come in no order, and have more than {NEWEST_KEYS_MAX} keys: an older row of one may have replaced a newer"
        ));
    }
    let last = rule.last.take().or_else(|| bookmark.clone());
    work.report.bookmark = last.as_ref().and_then(text);
    if !reader.in_order() && last.is_some() {
        let state = work.state(work.report.bookmark.clone())?;
        work.engine.write(vec![state]).await?;
    }
    work.check_zero(work.report.read)?;
    reconcile(work, cursor, bookmark.as_ref(), rule.beyond, sum).await
}

/// The dataset's table as the plan wants it, and where the last run stood.
async fn prepare(work: &mut Work<'_>, before: Option<&State>) -> Result<Option<Value>, CollectError> {
    let target = work.plan.target.clone();
    let there = exists(work.engine, &target).await?;
    let Some(before) = before else {
        if there {
            return Err(foreign(&target));
        }
        // First the state: a table without it would be someone else's.
        work.engine.write(vec![work.state(None)?]).await?;
        create(work).await?;
        return Ok(None);
    };
    if !there {
        // Someone dropped it: everything is read anew.
        work.engine.write(vec![work.state(None)?]).await?;
        create(work).await?;
        return Ok(None);
    }
    work.drop_leftovers().await?;
    if work.plan.rebuilds {
        work.rebuild(&before.shape).await?;
        work.engine.write(vec![work.state(before.bookmark.clone())?]).await?;
    }
    match &before.bookmark {
        Some(bookmark) => read_bookmark(&work.plan, bookmark).map(Some),
        None if work.plan.key.is_empty() && !is_empty(work, &target).await? => Err(CollectError::refused(
            format!("{target} has rows of another mode, and without a `key` they would come twice"),
            "drop the table, so that it is read anew, or name a key",
        )),
        None => Ok(None),
    }
}

async fn create(work: &Work<'_>) -> Result<(), CollectError> {
    work.drop_leftovers().await?;
    let sql = create_sql(&work.plan.target, &work.plan.shape.columns, &work.plan.shape.key);
    work.engine.execute(&sql).await?;
    Ok(())
}

async fn is_empty(work: &Work<'_>, target: &str) -> Result<bool, CollectError> {
    let sql = format!("SELECT 1 AS n FROM {} LIMIT 1", name_sql(target));
    Ok(work.engine.query(&sql).await?.all(1).await?.is_empty())
}

fn read_bookmark(plan: &Plan, bookmark: &str) -> Result<Value, CollectError> {
    let at = plan.cursor.unwrap_or_default();
    let column = &plan.shape.columns[at];
    let from =
        Column { ty: ColumnType::Text { chars_max: 255 }, sql_type: "varchar(255)".into(), ..column.clone() };
    Fit::new(&from, column).value(Value::Text(bookmark.to_owned())).map_err(|error| {
        CollectError::refused(
            format!(
                "the bookmark `{bookmark}` is no value of the cursor `{}` any more: {error}",
                column.name
            ),
            "drop the dataset's table, so that it is read anew",
        )
    })
}

/// Rows that were put aside are tried first: what comes now is newer.
async fn retry(work: &mut Work<'_>, before: Option<&State>) -> Result<(), CollectError> {
    if before.is_none() {
        return Ok(());
    }
    let state = State { target: work.plan.target.clone(), shape: work.plan.shape.clone(), bookmark: None };
    let mut report = RetryReport::default();
    retry_table(work.flow, work.config, work.engine, &work.report.table, &state, &mut report).await?;
    if report.written + report.superseded > 0 {
        // There is room again.
        work.rejected = Rejected::open(work.engine, work.flow, &work.report.table, work.run, false).await?;
    }
    if report.written > 0 {
        let written = report.written;
        let message = match written {
            1 => "1 row that had been put aside is in the dataset now".into(),
            _ => format!("{written} rows that had been put aside are in the dataset now"),
        };
        work.report.warnings.push(message);
    }
    Ok(())
}

/// Both sides, of the rows behind the old bookmark.
async fn reconcile(
    work: &mut Work<'_>,
    cursor: usize,
    bookmark: Option<&Value>,
    beyond: RowSum,
    all: RowSum,
) -> Result<(), CollectError> {
    let target = work.plan.target.clone();
    let column = &work.plan.shape.columns[cursor];
    let (filter, read) = match bookmark.and_then(literal) {
        Some(value) => (format!(" WHERE {} > {value}", name_sql_of(&column.name)), beyond),
        None => (String::new(), all),
    };
    // What the engine put aside was counted with what was admitted.
    if bookmark.is_some() && work.rejected.count > 0 {
        return Ok(());
    }
    work.reconcile(&target, &filter, read).await?;
    if let Some(it) = work.report.reconciled.as_ref().filter(|it| !it.matched) {
        let message = format!(
            "{} rows were read behind the old bookmark, and {target} has {}: a key came twice, or rows were changed there",
            it.source_rows, it.dataset_rows
        );
        work.report.warnings.push(message);
    }
    Ok(())
}

/// Which rows are new, and how far they reach.
struct From {
    cursor: usize,
    bookmark: Option<Value>,
    last: Option<Value>,
    /// Rows of the bookmark's own value that the dataset has, by their hash; how often.
    boundary: HashMap<u128, u32>,
    /// Places of the columns that the hash is of: those that the dataset had when they were written.
    compared: Vec<usize>,
    /// Whether each transaction moves the bookmark.
    notes: bool,
    /// Places of the key's columns.
    key: Vec<usize>,
    /// Where rows come in no order: the largest cursor of each key, by the key's hash.
    newest: HashMap<u128, Value>,
    /// There were more keys.
    forgets: bool,
    /// The rows behind the old bookmark.
    beyond: RowSum,
    state: State,
    flow: String,
    table: String,
    run: i64,
}

impl From {
    async fn read_boundary(
        &mut self,
        work: &Work<'_>,
        value: &Value,
        before: Option<&State>,
    ) -> Result<(), CollectError> {
        let columns = &work.plan.shape.columns;
        let known = |column: &Column| {
            before.is_some_and(|state| {
                state.shape.columns.iter().any(|it| it.name.eq_ignore_ascii_case(&column.name))
            })
        };
        let gone = work.plan.gone();
        self.compared = (0..columns.len()).filter(|at| known(&columns[*at]) && !gone.contains(at)).collect();
        let compared: Vec<Column> = self.compared.iter().map(|at| columns[*at].clone()).collect();
        let Some(value) = literal(value) else { return Ok(()) };
        let sql = format!(
            "SELECT {} FROM {} WHERE {} = {value}",
            select_list("", &compared),
            name_sql(&work.plan.target),
            name_sql_of(&columns[self.cursor].name)
        );
        let mut rows = work.engine.query(&sql).await?;
        let mut count = 0;
        while let Some(batch) = rows.next().await? {
            for row in batch {
                count += 1;
                if count > BOUNDARY_ROWS_MAX {
                    return self.too_many(!work.plan.key.is_empty());
                }
                *self.boundary.entry(row_hash(&row)).or_default() += 1;
            }
        }
        Ok(())
    }

    /// With a key they are simply written again.
    fn too_many(&mut self, keyed: bool) -> Result<(), CollectError> {
        self.boundary = HashMap::new();
        if keyed {
            return Ok(());
        }
        Err(CollectError::refused(
            format!("more than {BOUNDARY_ROWS_MAX} rows have the bookmark's value"),
            "name a key, or a cursor that tells more rows apart",
        ))
    }

    /// Whether a newer row of its key was there before, in this run: those of the runs before are no newer than the bookmark.
    fn is_outdated(&mut self, row: &[Value]) -> bool {
        let key: Vec<Value> = self.key.iter().map(|at| row[*at].clone()).collect();
        let (hash, cursor) = (row_hash(&key), &row[self.cursor]);
        if let Some(newest) = self.newest.get_mut(&hash) {
            let outdated = compare(cursor, newest) == Some(Ordering::Less);
            if !outdated {
                *newest = cursor.clone();
            }
            return outdated;
        }
        if self.newest.len() < NEWEST_KEYS_MAX {
            self.newest.insert(hash, cursor.clone());
        } else {
            self.forgets = true;
        }
        false
    }

    fn is_known(&mut self, row: &[Value]) -> bool {
        if self.boundary.is_empty() {
            return false;
        }
        let compared: Vec<Value> = self.compared.iter().map(|at| row[*at].clone()).collect();
        let Some(count) = self.boundary.get_mut(&row_hash(&compared)) else { return false };
        if *count == 0 {
            return false;
        }
        *count -= 1;
        true
    }
}

impl Rule for From {
    fn admit(&mut self, row: &[Value]) -> Result<bool, CollectError> {
        let value = &row[self.cursor];
        let to_bookmark = self.bookmark.as_ref().and_then(|it| compare(value, it));
        if to_bookmark == Some(Ordering::Less) {
            return Ok(false);
        }
        let order = self.last.as_ref().and_then(|last| compare(value, last));
        if order == Some(Ordering::Less) && self.notes {
            return Err(CollectError::refused(
                format!("`{}` does not come in the order of its cursor", self.table),
                "rows would be lost: set mode: key_diff, or another cursor",
            ));
        }
        if order != Some(Ordering::Less) {
            self.last = Some(value.clone());
        }
        if !self.notes && self.is_outdated(row) {
            return Ok(false);
        }
        if to_bookmark == Some(Ordering::Equal) && self.is_known(row) {
            return Ok(false);
        }
        if to_bookmark != Some(Ordering::Equal) {
            self.beyond.add(row);
        }
        Ok(true)
    }

    fn note(&self, row: &[Value]) -> Result<Option<Write>, CollectError> {
        if !self.notes {
            return Ok(None);
        }
        let state = State { bookmark: text(&row[self.cursor]), ..self.state.clone() };
        crate::state::put(&self.flow, &self.table, &state, self.run).map(Some)
    }
}
