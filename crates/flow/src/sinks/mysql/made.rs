//! Which tables a flow has made or found, kept beside its progress in `tidemill_tables`: one that is noted and missing was
//! taken away by someone else, with rows that only a resnapshot brings back. A row is never deleted, `here` tells: so the
//! user needs no right that progress does not need.
//!
//! A flow from before the table was there has no rows: what it finds is noted, what it does not find it makes.

use super::literal::{quoted_table, text};
use super::{MySqlSink, history_name};
use crate::deliver::sink::SinkError;
use base::TableName;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::collections::HashSet;

const NO_SUCH_TABLE: u16 = 1146;

impl MySqlSink {
    fn made_table(&self) -> String {
        quoted_table(&TableName::new(self.own.clone(), "tidemill_tables"))
    }

    /// The table that holds the rows of `name`, or their history.
    pub(super) fn held_name(&self, name: &TableName) -> TableName {
        if self.history { history_name(name) } else { name.clone() }
    }

    pub(super) async fn look_up_made(&self, conn: &mut Conn) -> mysql_async::Result<HashSet<TableName>> {
        let table = self.made_table();
        let select = format!("SELECT table_db, table_name FROM {table} WHERE flow = ? AND here = 1");
        let mut found: mysql_async::Result<Vec<(String, String)>> = conn.exec(&select, (&self.flow,)).await;
        if matches!(&found, Err(mysql_async::Error::Server(error)) if error.code == NO_SUCH_TABLE) {
            conn.query_drop(format!(
                "CREATE TABLE IF NOT EXISTS {table} (flow VARCHAR(64) NOT NULL, table_db VARCHAR(64) NOT NULL, \
                 table_name VARCHAR(64) NOT NULL, here TINYINT NOT NULL, PRIMARY KEY (flow, table_db, table_name)) \
                 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            ))
            .await?;
            found = conn.exec(&select, (&self.flow,)).await;
        }
        Ok(found?.into_iter().map(|(db, table)| TableName::new(db, table)).collect())
    }

    /// Notes that a table is there. Only after it was made: killed in between, it is found, and noted then.
    pub(super) async fn note_made(&mut self, name: &TableName) -> Result<(), SinkError> {
        if self.open()?.made.contains(name) {
            return Ok(());
        }
        let sql = format!(
            "INSERT INTO {} (flow, table_db, table_name, here) VALUES ({}, {}, {}, 1) ON DUPLICATE KEY UPDATE here = 1",
            self.made_table(),
            text(&self.flow),
            text(&name.db),
            text(&name.table)
        );
        self.run(&sql).await?;
        self.open()?.made.insert(name.clone());
        Ok(())
    }

    /// Notes that a table is not there any more, or need not be.
    pub(super) async fn note_gone(&mut self, name: &TableName) -> Result<(), SinkError> {
        if !self.open()?.made.contains(name) {
            return Ok(());
        }
        let sql = format!(
            "UPDATE {} SET here = 0 WHERE flow = {} AND table_db = {} AND table_name = {}",
            self.made_table(),
            text(&self.flow),
            text(&name.db),
            text(&name.table)
        );
        self.run(&sql).await?;
        self.open()?.made.remove(name);
        Ok(())
    }

    /// Names all tables that are noted and gone.
    pub(super) async fn look_for_made(&mut self) -> Result<(), SinkError> {
        let made: Vec<TableName> = self.open()?.made.iter().cloned().collect();
        if made.is_empty() {
            return Ok(());
        }
        let databases: HashSet<String> = made.iter().map(|name| text(&name.db)).collect();
        let databases: Vec<String> = databases.into_iter().collect();
        let sql = format!(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema IN ({})",
            databases.join(", ")
        );
        let there: Vec<(String, String)> = self.query(&sql).await?;
        // Servers may keep names in lower case.
        let there: HashSet<_> =
            there.into_iter().map(|(db, table)| (db.to_lowercase(), table.to_lowercase())).collect();
        let is_there = |name: &TableName| {
            let held = self.held_name(name);
            there.contains(&(held.db.to_lowercase(), held.table.to_lowercase()))
        };
        let mut tables: Vec<TableName> = made.into_iter().filter(|name| !is_there(name)).collect();
        if tables.is_empty() {
            return Ok(());
        }
        tables.sort_by_key(ToString::to_string);
        Err(SinkError::gone(tables))
    }
}
