//! Tables in the sink: made when missing, altered as the source's were. Every step looks first, so that running it
//! again after a crash does no harm.

use super::literal::{put_value, quoted_name, quoted_table};
use super::target::Dialect;
use super::{MySqlSink, Shape};
use crate::config::DdlPolicy;
use crate::deliver::sink::{OutChange, SinkError};
use base::{Column, ColumnType, Ddl, Op, Table, TableName, Value};
use std::collections::HashSet;
use std::time::Instant;

impl MySqlSink {
    /// Makes a table that the flow has not had yet, and looks at one that is there. One that it had and that is gone is
    /// not made again: its rows would be missing.
    pub(super) async fn make_table(&mut self, table: &Table) -> Result<(), SinkError> {
        self.make(table).await?;
        self.note_made(&table.name).await
    }

    /// The same where the table has no rows at this point, whatever it had.
    async fn make_empty(&mut self, table: &Table) -> Result<(), SinkError> {
        if self.columns_of(&self.held_name(&table.name)).await?.is_empty() {
            self.note_gone(&table.name).await?;
        }
        self.make_table(table).await
    }

    async fn make(&mut self, table: &Table) -> Result<(), SinkError> {
        let target = self.held_name(&table.name);
        // Looked for first: a statement, even one that would do nothing, waits for every transaction in the database,
        // and everyone else's queries wait behind it.
        let have = self.columns_of(&target).await?;
        if !have.is_empty() {
            return if self.history {
                knows_journals(&target, &have)
            } else {
                self.note_unique_keys(table).await
            };
        }
        if self.open()?.made.contains(&table.name) {
            return Err(SinkError::gone(vec![table.name.clone()]));
        }
        self.make_database(&table.name.db).await?;
        if self.history {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} (journal BIGINT UNSIGNED NOT NULL, epoch INT UNSIGNED NOT NULL, \
                 lsn BIGINT UNSIGNED NOT NULL, op VARCHAR(8) NOT NULL, ts_ms BIGINT NOT NULL, txn VARCHAR(128), \
                 row_key JSON, before_row JSON, after_row JSON, statement LONGTEXT, \
                 PRIMARY KEY (journal, epoch, lsn))",
                quoted_table(&target)
            );
            return self.define(&sql).await;
        }
        let mut parts: Vec<String> =
            table.columns.iter().enumerate().map(|(i, c)| self.definition(table, i, c)).collect();
        if !table.key.is_empty() {
            let key: Vec<_> = table.key.iter().map(|i| quoted_name(&table.columns[*i].name)).collect();
            parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        let name = quoted_table(&table.name);
        self.define(&format!("CREATE TABLE IF NOT EXISTS {name} ({})", parts.join(", "))).await?;
        self.note_unique_keys(table).await
    }

    fn definition(&self, table: &Table, index: usize, column: &Column) -> String {
        self.target.definition(column, table.key.contains(&index))
    }

    /// Whether rows must not be written by upserts: someone gave the target unique keys of its own, or none by our key, so
    /// that an upsert could hit another row, or none; or the server gets them wrong.
    pub(super) async fn note_unique_keys(&mut self, table: &Table) -> Result<(), SinkError> {
        let name = &table.name;
        let sql = format!(
            "SELECT index_name, LOWER(column_name) FROM information_schema.statistics \
             WHERE table_schema = {} AND table_name = {} AND non_unique = 0",
            super::literal::text(&name.db),
            super::literal::text(&name.table)
        );
        let have: Vec<(String, Option<String>)> = self.query(&sql).await?;
        let (primary, other): (Vec<_>, Vec<_>) = have.into_iter().partition(|(index, _)| index == "PRIMARY");
        let primary: HashSet<_> = primary.into_iter().filter_map(|(_, column)| column).collect();
        let key: HashSet<_> = table.key.iter().map(|i| table.columns[*i].name.to_lowercase()).collect();
        // TiDB's `VALUES()` refuses a BIT(63) that it has just accepted.
        let bits = table.columns.iter().any(|column| matches!(column.ty, ColumnType::Bit { .. }));
        let upserts_fail = bits && self.target.dialect == Dialect::TiDb;
        let strict = !other.is_empty() || primary != key || upserts_fail;
        self.open()?.targets.insert(name.clone(), Shape { strict, looked_at: Instant::now() });
        Ok(())
    }

    async fn make_database(&mut self, name: &str) -> Result<(), SinkError> {
        let name_text = super::literal::text(name);
        let sql = format!("SELECT 1 FROM information_schema.schemata WHERE schema_name = {name_text}");
        let found: Vec<u8> = self.query(&sql).await?;
        if found.is_empty() {
            self.define(&format!("CREATE DATABASE IF NOT EXISTS {}", quoted_name(name))).await?;
        }
        Ok(())
    }

    async fn columns_of(&mut self, name: &TableName) -> Result<HashSet<String>, SinkError> {
        let sql = format!(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = {} AND table_name = {}",
            super::literal::text(&name.db),
            super::literal::text(&name.table)
        );
        let names: Vec<String> = self.query(&sql).await?;
        Ok(names.into_iter().map(|name| name.to_lowercase()).collect())
    }

    pub(super) async fn apply_statement(&mut self, change: &OutChange) -> Result<(), SinkError> {
        if change.before.is_some() || change.after.is_some() {
            return self.apply_merged(change).await;
        }
        if change.op == Op::Truncate {
            self.make_empty(&change.table).await?;
            if self.mark {
                self.begin().await?;
                return self.define(&format!("DELETE FROM {}", quoted_table(&change.table.name))).await;
            }
            return self.define(&format!("TRUNCATE TABLE {}", quoted_table(&change.table.name))).await;
        }
        let Some(ddl) = change.ddl.clone() else { return Ok(()) };
        if self.ddl == DdlPolicy::Hold {
            return self.hold(&ddl).await;
        }
        match (&ddl.before, &ddl.after) {
            (_, None) => {
                let Some(before) = &ddl.before else { return Ok(()) };
                // Before the table: killed in between, the statement comes again and finds it.
                self.note_gone(&before.name).await?;
                self.define(&format!("DROP TABLE IF EXISTS {}", quoted_table(&before.name))).await
            }
            (None, Some(after)) => self.make_empty(after).await,
            (Some(before), Some(after)) => self.alter(before, after, &ddl, change.lsn).await,
        }
    }

    /// A statement on one of several tables that are merged into this one: it means the rows of that table alone.
    async fn apply_merged(&mut self, change: &OutChange) -> Result<(), SinkError> {
        let lone = |table: &Table, row: &[Value]| {
            let at = row.iter().position(|value| *value != Value::Null).unwrap_or_default();
            let mut value = String::new();
            put_value(&mut value, &row[at], &table.columns[at], self.target.dialect);
            (at, format!("{} = {value}", quoted_name(&table.columns[at].name)))
        };
        let ends = |table: &Table, row: &[Value]| {
            format!("DELETE FROM {} WHERE {}", quoted_table(&table.name), lone(table, row).1)
        };
        let sides = change.ddl.as_ref().map(|ddl| (ddl.before.clone(), ddl.after.clone()));
        let sql = match (sides, &change.before, &change.after) {
            (None, Some(row), _) => ends(&change.table, row),
            (Some((Some(before), None)), Some(row), _) => ends(&before, row),
            (Some((Some(before), Some(after))), Some(old), Some(new)) if old != new => {
                if before.name != after.name {
                    let (from, to) = (&before.name, &after.name);
                    return Err(SinkError::Blocked {
                        message: format!(
                            "a statement takes rows of one table from `{from}` to `{to}`, where others are"
                        ),
                        hint: "route both names to one table; the flow then goes on by itself".into(),
                    });
                }
                let (old, new) = (lone(&before, old).1, lone(&after, new).1);
                format!("UPDATE {} SET {new} WHERE {old}", quoted_table(&after.name))
            }
            _ => String::new(),
        };
        let there = sql.is_empty() || !self.columns_of(&change.table.name).await?.is_empty();
        if !there && self.open()?.made.contains(&change.table.name) {
            return Err(SinkError::gone(vec![change.table.name.clone()]));
        }
        if !sql.is_empty() && there {
            self.begin().await?;
            self.define(&sql).await?;
        }
        match change.ddl.clone() {
            Some(ddl) if ddl.before.is_none() && ddl.after.is_some() => {
                self.make_table(&change.table).await?;
                self.hold(&ddl).await
            }
            Some(ddl) if ddl.after.is_some() => self.hold(&ddl).await,
            _ => Ok(()),
        }
    }

    /// `ddl: hold`: the flow waits until someone has made the target fit.
    async fn hold(&mut self, ddl: &Ddl) -> Result<(), SinkError> {
        let fits = match (&ddl.before, &ddl.after) {
            (_, Some(after)) => {
                let have = self.columns_of(&after.name).await?;
                after.columns.iter().all(|c| have.contains(&c.name.to_lowercase()))
            }
            (Some(before), None) => self.columns_of(&before.name).await?.is_empty(),
            (None, None) => true,
        };
        if fits {
            // Someone did by hand what the statement says.
            if let Some(before) =
                ddl.before.as_ref().filter(|before| !ddl.after.iter().any(|t| t.name == before.name))
            {
                self.note_gone(&before.name).await?;
            }
            return Ok(());
        }
        Err(SinkError::Blocked {
            message: match (ddl.sql.as_str(), &ddl.after) {
                ("", Some(after)) => {
                    format!("the sink lacks columns of `{}`, or the table (`ddl: hold`)", after.name)
                }
                (sql, _) => format!("a statement is held (`ddl: hold`): {sql}"),
            },
            hint: "make the same change in the sink by hand; the flow then goes on by itself".into(),
        })
    }

    /// One statement for all, as the source had: names may trade places. Names alone do not tell whether they have
    /// traded already, so that the table's comment says it, in the same statement.
    async fn rename_columns(
        &mut self,
        name: &TableName,
        renames: &[(String, String)],
        have: &mut HashSet<String>,
        lsn: u64,
    ) -> Result<(), SinkError> {
        let lower: Vec<_> =
            renames.iter().map(|(old, new)| (old.to_lowercase(), new.to_lowercase())).collect();
        let (trades_only, waits) = waiting_renames(&lower, have);
        if lower.is_empty() || !waits {
            return Ok(());
        }
        let table = quoted_table(name);
        let mut steps: Vec<_> = renames
            .iter()
            .filter(|(old, _)| have.contains(&old.to_lowercase()))
            .map(|(old, new)| format!("RENAME COLUMN {} TO {}", quoted_name(old), quoted_name(new)))
            .collect();
        if trades_only {
            let mark = format!("tidemill {:016x}:{lsn}", self.open()?.journal);
            let sql = format!(
                "SELECT table_comment FROM information_schema.tables WHERE table_schema = {} AND table_name = {}",
                super::literal::text(&name.db),
                super::literal::text(&name.table)
            );
            let comment: Vec<String> = self.query(&sql).await?;
            if comment.first() == Some(&mark) {
                return Ok(());
            }
            steps.push(format!("COMMENT = {}", super::literal::text(&mark)));
        }
        self.define(&format!("ALTER TABLE {table} {}", steps.join(", "))).await?;
        let moved: Vec<_> = lower.iter().filter(|(old, _)| have.contains(old)).cloned().collect();
        for (old, _) in &moved {
            have.remove(old);
        }
        have.extend(moved.into_iter().map(|(_, new)| new));
        Ok(())
    }

    async fn alter(&mut self, before: &Table, after: &Table, ddl: &Ddl, lsn: u64) -> Result<(), SinkError> {
        if before.name != after.name {
            let moved = !self.columns_of(&after.name).await?.is_empty();
            let there = !self.columns_of(&before.name).await?.is_empty();
            if !there && !moved && self.open()?.made.contains(&before.name) {
                return Err(SinkError::gone(vec![before.name.clone()]));
            }
            // Killed behind the rename, the statement comes again and finds the new name.
            self.note_gone(&before.name).await?;
            if there && !moved {
                self.make_database(&after.name.db).await?;
                let (from, to) = (quoted_table(&before.name), quoted_table(&after.name));
                self.define(&format!("RENAME TABLE {from} TO {to}")).await?;
            }
        }
        let mut have = self.columns_of(&after.name).await?;
        if have.is_empty() {
            return self.make_table(after).await;
        }
        let name = quoted_table(&after.name);
        self.rename_columns(&after.name, &ddl.column_renames, &mut have, lsn).await?;
        let mut previous: Option<&Column> = None;
        for (index, column) in after.columns.iter().enumerate() {
            let place = previous.map_or(" FIRST".to_owned(), |p| format!(" AFTER {}", quoted_name(&p.name)));
            let definition = self.definition(after, index, column);
            let old_name = ddl.column_renames.iter().find(|(_, new)| *new == column.name).map(|(old, _)| old);
            let old = before.columns.iter().find(|c| c.name == *old_name.unwrap_or(&column.name));
            if !have.contains(&column.name.to_lowercase()) {
                self.define(&format!("ALTER TABLE {name} ADD COLUMN {definition}{place}")).await?;
            } else if old.is_none_or(|old| differs(old, column)) {
                self.define(&format!("ALTER TABLE {name} MODIFY COLUMN {definition}")).await?;
            }
            previous = Some(column);
        }
        let renamed: HashSet<&str> = ddl.column_renames.iter().map(|(old, _)| old.as_str()).collect();
        for column in &before.columns {
            let gone = after.column_index(&column.name).is_none() && !renamed.contains(column.name.as_str());
            if gone && have.contains(&column.name.to_lowercase()) {
                self.define(&format!("ALTER TABLE {name} DROP COLUMN {}", quoted_name(&column.name))).await?;
            }
        }
        self.change_key(before, after).await?;
        self.note_unique_keys(after).await?;
        self.note_made(&after.name).await
    }

    async fn change_key(&mut self, before: &Table, after: &Table) -> Result<(), SinkError> {
        let names = |t: &Table| t.key.iter().map(|i| t.columns[*i].name.to_lowercase()).collect::<Vec<_>>();
        if names(before) == names(after) {
            return Ok(());
        }
        let sql = format!(
            "SELECT column_name FROM information_schema.statistics WHERE table_schema = {} AND table_name = {} \
             AND index_name = 'PRIMARY' ORDER BY seq_in_index",
            super::literal::text(&after.name.db),
            super::literal::text(&after.name.table)
        );
        let have: Vec<String> = self.query(&sql).await?;
        let have: Vec<String> = have.into_iter().map(|name| name.to_lowercase()).collect();
        if have == names(after) {
            return Ok(());
        }
        let mut steps = Vec::new();
        if !have.is_empty() {
            steps.push("DROP PRIMARY KEY".to_owned());
        }
        if !after.key.is_empty() {
            let key: Vec<_> = after.key.iter().map(|i| quoted_name(&after.columns[*i].name)).collect();
            steps.push(format!("ADD PRIMARY KEY ({})", key.join(", ")));
        }
        self.define(&format!("ALTER TABLE {} {}", quoted_table(&after.name), steps.join(", "))).await
    }
}

/// Without the journal in its key, a history would take the changes of a new journal for those that it has.
fn knows_journals(table: &TableName, have: &HashSet<String>) -> Result<(), SinkError> {
    if have.contains("journal") {
        return Ok(());
    }
    let name = quoted_table(table);
    let aside = TableName::new(table.db.clone(), format!("{}_before", table.table));
    Err(SinkError::Blocked {
        message: format!("the history {name} does not say which journal its rows are of"),
        hint: format!(
            "ALTER TABLE {name} ADD COLUMN journal BIGINT UNSIGNED NOT NULL DEFAULT 0 FIRST, DROP PRIMARY KEY, \
             ADD PRIMARY KEY (journal, epoch, lsn); or, where a key cannot be dropped (TiDB): RENAME TABLE {name} TO {}; \
             the flow then goes on by itself",
            quoted_table(&aside)
        ),
    })
}

/// Whether every old name is a new one too, and whether these renames have still to be done.
fn waiting_renames(renames: &[(String, String)], have: &HashSet<String>) -> (bool, bool) {
    let is_new = |name: &String| renames.iter().any(|(_, new)| new == name);
    // An old name that no other column takes is gone once the statement has run.
    let leaving: Vec<_> = renames.iter().map(|(old, _)| old).filter(|old| !is_new(old)).collect();
    if leaving.is_empty() {
        return (true, renames.iter().all(|(old, _)| have.contains(old)));
    }
    (false, leaving.into_iter().any(|old| have.contains(old)))
}

fn differs(old: &Column, new: &Column) -> bool {
    old.sql_type != new.sql_type || old.nullable != new.nullable || old.collation != new.collation
}
