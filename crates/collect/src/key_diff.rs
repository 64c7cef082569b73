//! `mode: key_diff`: every row into a table beside the dataset's, then the engine joins both by key, and what differs is
//! inserted, updated and deleted in transactions of bounded size.

use crate::digest::row_hash;
use crate::error::CollectError;
use crate::reader::{Described, Reader, Scope};
use crate::report::rows_were;
use crate::state::State;
use crate::table::{BYTES_OF_WRITE_MAX, Every, Work, exists, foreign, name_sql_of, select_list};
use base::{Column, Value};
use engine::{Write, name_sql};

pub async fn run(
    work: &mut Work<'_>,
    reader: &mut dyn Reader,
    described: &Described,
    before: Option<&State>,
) -> Result<(), CollectError> {
    let target = work.plan.target.clone();
    let there = exists(work.engine, &target).await?;
    if there && before.is_none() {
        return Err(foreign(&target));
    }
    if let Some(before) = before.filter(|_| there && work.plan.rebuilds) {
        work.rebuild(&before.shape).await?;
        work.engine.write(vec![work.state(None)?]).await?;
    }
    let shadow = work.make_shadow().await?;
    let mut batches = reader.read(described, Scope::All).await?;
    let sum = work.load(&mut batches, &shadow, false, &mut Every).await?;
    work.check_zero(sum.rows)?;
    work.must_match(&shadow, "", sum).await?;
    work.report.written = 0;
    if !there {
        // First the state: a table without it would be someone else's.
        work.engine.write(vec![work.state(None)?]).await?;
        work.swap().await?;
        (work.report.inserted, work.report.written) = (sum.rows, sum.rows);
        return Ok(());
    }
    let filter = match work.rejected.count {
        0 => {
            delete(work, &shadow).await?;
            String::new()
        }
        // A row that seems to be gone may be one of those that could not be read, whose key nobody knows.
        count => {
            let message = format!("nothing was deleted, because {} put aside", rows_were(count));
            work.report.warnings.push(message);
            let shadow = name_sql(&shadow);
            format!(" AS d WHERE EXISTS (SELECT 1 AS n FROM {shadow} AS s WHERE {})", joined(work))
        }
    };
    put(work, &shadow).await?;
    work.must_match(&target, &filter, sum).await?;
    work.drop_leftovers().await?;
    work.engine.write(vec![work.state(None)?]).await?;
    Ok(())
}

/// `s.id = d.id AND …`
fn joined(work: &Work<'_>) -> String {
    let one = |at: &usize| {
        let name = name_sql_of(&work.plan.shape.columns[*at].name);
        format!("s.{name} = d.{name}")
    };
    work.plan.key.iter().map(one).collect::<Vec<_>>().join(" AND ")
}

/// Rows that the source has no longer.
async fn delete(work: &mut Work<'_>, shadow: &str) -> Result<(), CollectError> {
    let keys: Vec<Column> = work.plan.key.iter().map(|at| work.plan.shape.columns[*at].clone()).collect();
    let first = name_sql_of(&keys[0].name);
    let sql = format!(
        "SELECT {} FROM {} AS d LEFT JOIN {} AS s ON {} WHERE s.{first} IS NULL",
        select_list("d.", &keys),
        name_sql(&work.plan.target),
        name_sql(shadow),
        joined(work)
    );
    let mut rows = work.engine.query(&sql).await?;
    let mut waiting = Vec::new();
    loop {
        let batch = rows.next().await?;
        let ended = batch.is_none();
        waiting.extend(batch.unwrap_or_default());
        if waiting.len() < work.config.batch_rows() && !ended {
            continue;
        }
        work.pace.check()?;
        if !waiting.is_empty() {
            let rows = std::mem::take(&mut waiting);
            let write = Write::Delete { table: work.plan.target.clone(), columns: keys.clone(), rows };
            let count = work.engine.write(vec![write]).await?;
            work.report.deleted += count;
            work.progress.deleted(count);
        }
        if ended {
            return Ok(());
        }
    }
}

/// Rows that are new, and those that are not what they were.
async fn put(work: &mut Work<'_>, shadow: &str) -> Result<(), CollectError> {
    let columns = work.plan.shape.columns.clone();
    let sql = format!(
        "SELECT {}, {} FROM {} AS s LEFT JOIN {} AS d ON {}",
        select_list("s.", &columns),
        select_list("d.", &columns),
        name_sql(shadow),
        name_sql(&work.plan.target),
        joined(work)
    );
    let key = columns.len() + work.plan.key[0];
    let gone = work.plan.gone();
    let mut rows = work.engine.query(&sql).await?;
    let mut waiting: Vec<Vec<Value>> = Vec::new();
    let mut bytes = 0;
    loop {
        let batch = rows.next().await?;
        let ended = batch.is_none();
        for mut row in batch.unwrap_or_default() {
            let new = row[key].is_null();
            let there = row.split_off(columns.len());
            for at in &gone {
                row[*at] = there[*at].clone();
            }
            if !new && row_hash(&row) == row_hash(&there) {
                continue;
            }
            if new {
                work.report.inserted += 1;
            } else {
                work.report.updated += 1;
            }
            bytes += crate::table::size(&row);
            waiting.push(row);
        }
        if waiting.len() < work.config.batch_rows() && bytes < BYTES_OF_WRITE_MAX && !ended {
            continue;
        }
        work.pace.check()?;
        if !waiting.is_empty() {
            let rows = std::mem::take(&mut waiting);
            bytes = 0;
            let count = rows.len() as u64;
            let table = work.plan.target.clone();
            work.engine
                .write(vec![Write::Put { table, columns: columns.clone(), rows, replace: true }])
                .await?;
            work.report.written += count;
            work.progress.written(count);
        }
        if ended {
            return Ok(());
        }
    }
}
