//! Tables in the sink: made when missing, altered as the source's were. Every step looks first, so that running it
//! again after a crash does no harm.

use super::literal::{quoted_name, quoted_table};
use super::target::Dialect;
use super::{MySqlSink, history_name};
use crate::config::DdlPolicy;
use crate::deliver::sink::{OutChange, SinkError};
use base::{Column, ColumnType, Ddl, Op, Table, TableName};
use std::collections::HashSet;

impl MySqlSink {
    pub(super) async fn make_table(&mut self, table: &Table) -> Result<(), SinkError> {
        self.run(&format!("CREATE DATABASE IF NOT EXISTS {}", quoted_name(&table.name.db))).await?;
        if self.history {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} (epoch INT UNSIGNED NOT NULL, lsn BIGINT UNSIGNED NOT NULL, \
                 op VARCHAR(8) NOT NULL, ts_ms BIGINT NOT NULL, txn VARCHAR(128), row_key JSON, before_row JSON, \
                 after_row JSON, statement LONGTEXT, PRIMARY KEY (epoch, lsn))",
                quoted_table(&history_name(&table.name))
            );
            return self.run(&sql).await;
        }
        let mut parts: Vec<String> =
            table.columns.iter().enumerate().map(|(i, c)| self.definition(table, i, c)).collect();
        if !table.key.is_empty() {
            let key: Vec<_> = table.key.iter().map(|i| quoted_name(&table.columns[*i].name)).collect();
            parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        let name = quoted_table(&table.name);
        self.run(&format!("CREATE TABLE IF NOT EXISTS {name} ({})", parts.join(", "))).await?;
        self.note_unique_keys(table).await
    }

    fn definition(&self, table: &Table, index: usize, column: &Column) -> String {
        self.target.definition(column, table.key.contains(&index))
    }

    /// Whether rows must not be written by upserts: someone gave the target unique keys of its own, so that an upsert
    /// could hit another row, or the server gets them wrong.
    async fn note_unique_keys(&mut self, table: &Table) -> Result<(), SinkError> {
        let name = &table.name;
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = {} AND table_name = {} \
             AND non_unique = 0 AND index_name <> 'PRIMARY'",
            super::literal::text(&name.db),
            super::literal::text(&name.table)
        );
        let count: Vec<u64> = self.query(&sql).await?;
        // TiDB's `VALUES()` refuses a BIT(63) that it has just accepted.
        let bits = table.columns.iter().any(|column| matches!(column.ty, ColumnType::Bit { .. }));
        let strict = count.first().is_some_and(|n| *n > 0) || bits && self.target.dialect == Dialect::TiDb;
        self.open()?.strict.insert(name.clone(), strict);
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
        if change.op == Op::Truncate {
            self.make_table(&change.table).await?;
            return self.run(&format!("TRUNCATE TABLE {}", quoted_table(&change.table.name))).await;
        }
        let Some(ddl) = change.ddl.clone() else { return Ok(()) };
        if self.ddl == DdlPolicy::Hold {
            return self.hold(&ddl).await;
        }
        match (&ddl.before, &ddl.after) {
            (_, None) => {
                let Some(before) = &ddl.before else { return Ok(()) };
                self.run(&format!("DROP TABLE IF EXISTS {}", quoted_table(&before.name))).await
            }
            (None, Some(after)) => self.make_table(after).await,
            (Some(before), Some(after)) => self.alter(before, after, &ddl).await,
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
            return Ok(());
        }
        Err(SinkError::Blocked {
            message: format!("a statement is held (`ddl: hold`): {}", ddl.sql),
            hint: "make the same change in the sink by hand; the flow then goes on by itself".into(),
        })
    }

    async fn alter(&mut self, before: &Table, after: &Table, ddl: &Ddl) -> Result<(), SinkError> {
        if before.name != after.name {
            let moved = !self.columns_of(&after.name).await?.is_empty();
            let there = !self.columns_of(&before.name).await?.is_empty();
            if there && !moved {
                self.run(&format!("CREATE DATABASE IF NOT EXISTS {}", quoted_name(&after.name.db))).await?;
                let (from, to) = (quoted_table(&before.name), quoted_table(&after.name));
                self.run(&format!("RENAME TABLE {from} TO {to}")).await?;
            }
        }
        let mut have = self.columns_of(&after.name).await?;
        if have.is_empty() {
            return self.make_table(after).await;
        }
        let name = quoted_table(&after.name);
        for (old, new) in &ddl.column_renames {
            if have.contains(&old.to_lowercase()) && !have.contains(&new.to_lowercase()) {
                let sql =
                    format!("ALTER TABLE {name} RENAME COLUMN {} TO {}", quoted_name(old), quoted_name(new));
                self.run(&sql).await?;
                have.remove(&old.to_lowercase());
                have.insert(new.to_lowercase());
            }
        }
        let mut previous: Option<&Column> = None;
        for (index, column) in after.columns.iter().enumerate() {
            let place = previous.map_or(" FIRST".to_owned(), |p| format!(" AFTER {}", quoted_name(&p.name)));
            let definition = self.definition(after, index, column);
            let old_name = ddl.column_renames.iter().find(|(_, new)| *new == column.name).map(|(old, _)| old);
            let old = before.columns.iter().find(|c| c.name == *old_name.unwrap_or(&column.name));
            if !have.contains(&column.name.to_lowercase()) {
                self.run(&format!("ALTER TABLE {name} ADD COLUMN {definition}{place}")).await?;
            } else if old.is_none_or(|old| differs(old, column)) {
                self.run(&format!("ALTER TABLE {name} MODIFY COLUMN {definition}")).await?;
            }
            previous = Some(column);
        }
        let renamed: HashSet<&str> = ddl.column_renames.iter().map(|(old, _)| old.as_str()).collect();
        for column in &before.columns {
            let gone = after.column_index(&column.name).is_none() && !renamed.contains(column.name.as_str());
            if gone && have.contains(&column.name.to_lowercase()) {
                self.run(&format!("ALTER TABLE {name} DROP COLUMN {}", quoted_name(&column.name))).await?;
            }
        }
        self.change_key(before, after).await?;
        self.note_unique_keys(after).await
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
        self.run(&format!("ALTER TABLE {} {}", quoted_table(&after.name), steps.join(", "))).await
    }
}

fn differs(old: &Column, new: &Column) -> bool {
    old.sql_type != new.sql_type || old.nullable != new.nullable || old.collation != new.collation
}
