//! Rows whose table map has no column names, because `binlog_row_metadata` is not FULL. Their definition is the one that the
//! journal has at this place. It was looked up on a server that may have been ahead of the stream: with names a row tells when
//! it is another's, without them it may not. So a table is read anew when a statement about it turns out to lie between such
//! rows and the end of what the server had written when it was looked at.

use super::*;
use crate::capture::CaptureErrorKind;
use crate::capture::mysql::connect::{execute, statement_error};
use crate::capture::mysql::schema::quote_name;
use crate::capture::mysql::snapshot::{VISIBILITY_WAIT_MAX, binlog_end};
use crate::capture::mysql::window::file_order;
use mysql_async::prelude::Queryable;
use std::collections::HashSet;

/// The end of the binlog at some time.
type End = (String, u64);

/// What is known of tables whose rows come without names.
#[derive(Default)]
pub(super) struct Unnamed {
    /// Tables of which such rows were read under the definition that stands.
    read: HashSet<TableName>,
    /// The end of the binlog when a table was looked up last; of others, when the session began.
    looked: HashMap<TableName, End>,
    /// Tables whose rows the definition does not explain, and the end of the binlog when that was found: until the stream is
    /// there, a statement may come that tells of it.
    unexplained: HashMap<TableName, End>,
}

/// A lock was not had in time.
fn is_lock_timeout(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Server(server) if server.code == 1205)
}

fn reaches(end: &End, file: &str, pos: u64) -> bool {
    (file_order(file), pos) <= (file_order(&end.0), end.1)
}

impl Stream {
    /// The tables that a statement may redefine, as they were called and as they are called after it.
    pub(super) fn touched(&self, db: &str, statement: &mysql::Statement) -> Vec<(TableName, TableName)> {
        use mysql::ddl::TableDdlKind;
        let resolve = |t: &mysql::ddl::StatementTable| {
            TableName::new(t.db.clone().unwrap_or_else(|| db.to_owned()), t.table.clone())
        };
        match statement {
            mysql::Statement::TableDdl(ddl) if !ddl.is_temporary && ddl.kind != TableDdlKind::Truncate => {
                let renames: Vec<_> =
                    ddl.renames.iter().map(|(from, to)| (resolve(from), resolve(to))).collect();
                let targets = renames.iter().map(|(_, to)| to.clone());
                let mut names: Vec<TableName> = ddl.tables.iter().map(resolve).chain(targets).collect();
                names.sort_unstable();
                names.dedup();
                let after = |name: &TableName| {
                    let step = |name: TableName, (from, to): &(TableName, TableName)| {
                        if name == *from { to.clone() } else { name }
                    };
                    renames.iter().fold(name.clone(), step)
                };
                names.into_iter().map(|name| (name.clone(), after(&name))).collect()
            }
            mysql::Statement::Unknown => {
                self.state.unnamed.read.iter().map(|name| (name.clone(), name.clone())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Waits until what a statement did to these tables can be seen: it is in the binlog first, and with a semi-synchronous
    /// replica much sooner. MariaDB logs it last. Tables that another session keeps locked are given back: of them it is not
    /// known.
    pub(super) async fn visible(
        &mut self,
        touched: &[(TableName, TableName)],
    ) -> Result<Vec<TableName>, CaptureError> {
        let mut shutdown = self.shutdown.clone();
        tokio::select! {
            locked = self.wait_until_visible(touched) => locked,
            _ = shutdown.changed() => {
                Err(CaptureError::unavailable("shut down while a statement was waited for"))
            }
        }
    }

    async fn wait_until_visible(
        &mut self,
        touched: &[(TableName, TableName)],
    ) -> Result<Vec<TableName>, CaptureError> {
        let names = self.captured_of(touched);
        let mut locked = Vec::new();
        if self.server.mariadb || names.is_empty() {
            return Ok(locked);
        }
        if let TxnMark::Gtid(gtid) = self.mark() {
            // Two sessions: the server that is asked may have dropped an idle one.
            if self.wait_for(&gtid).await.is_err() {
                self.lookup = self.address.connect().await?;
                self.wait_for(&gtid).await?;
            }
            return Ok(locked);
        }
        for name in names {
            // The statement has the name's lock to itself until it is done.
            let sql = format!("SELECT 1 FROM {}.{} LIMIT 0", quote_name(&name.db), quote_name(&name.table));
            let wait = format!("SET SESSION lock_wait_timeout = {}", VISIBILITY_WAIT_MAX.as_secs());
            if execute(&mut self.lookup, &[&wait]).await.is_err() {
                self.lookup = self.address.connect().await?;
                execute(&mut self.lookup, &[&wait]).await?;
            }
            match self.lookup.query_drop(&sql).await {
                Err(error) if is_lock_timeout(&error) => locked.push(name),
                Err(error) => {
                    let error = statement_error(&format!("run `{sql}`"), error);
                    if error.kind == CaptureErrorKind::Unavailable {
                        return Err(error);
                    }
                    // What is not there, or not ours to read, is told when it is looked at.
                }
                Ok(()) => {}
            }
        }
        Ok(locked)
    }

    /// Behind a statement about tables that another session keeps locked: their definition may still be the old one. Rows that
    /// bring their columns' names tell, and it is looked up again; without names nothing would.
    pub(super) async fn distrust(&mut self, locked: &[TableName]) -> Result<(), CaptureError> {
        if locked.is_empty() {
            return Ok(());
        }
        let metadata: Option<String> =
            match self.lookup.query_first("SELECT @@GLOBAL.binlog_row_metadata").await {
                Ok(metadata) => metadata,
                // Servers before 8.0 have no names in their rows at all.
                Err(mysql_async::Error::Server(_)) => None,
                Err(error) => return Err(statement_error("read binlog_row_metadata", error)),
            };
        for name in locked {
            if metadata.as_deref() == Some("FULL") {
                tracing::warn!(source = %self.name, table = %name, "another session keeps the table locked");
            } else {
                let reason = "another session kept it locked when its definition changed, and its rows have no column \
                              names: end that session, then use `flow resnapshot`";
                self.quarantine(name, reason.to_owned());
            }
        }
        Ok(())
    }

    fn concerns(&self, touched: &[(TableName, TableName)]) -> bool {
        touched.iter().any(|(before, after)| self.patterns.matches(before) || self.patterns.matches(after))
    }

    /// What captured tables are called behind a statement.
    fn captured_of(&self, touched: &[(TableName, TableName)]) -> Vec<TableName> {
        let captured = touched.iter().filter(|(_, after)| self.patterns.matches(after));
        captured.map(|(_, after)| after.clone()).collect()
    }

    async fn wait_for(&mut self, gtid: &Gtid) -> Result<(), CaptureError> {
        let seconds = VISIBILITY_WAIT_MAX.as_secs();
        let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtid}', {seconds})");
        let late: Option<u64> = self
            .lookup
            .query_first(sql)
            .await
            .map_err(|error| statement_error("wait for a statement to be done", error))?;
        if late == Some(0) {
            return Ok(());
        }
        Err(CaptureError::unavailable(format!(
            "a statement that is in the binlog is still not done after {seconds} s: {gtid}"
        ))
        .with_hint("look for a semi-synchronous replica that does not acknowledge"))
    }

    /// Behind a statement about these tables, whose effects are applied: whether rows before it were read as the statement
    /// has left them. One that keeps the columns as they were has left them as they are.
    pub(super) async fn doubt(
        &mut self,
        header: &EventHeader,
        touched: Vec<(TableName, TableName)>,
        keeps_columns: bool,
    ) -> Result<(), CaptureError> {
        if !self.concerns(&touched) {
            return Ok(());
        }
        let end = self.end().await?;
        let file = self.position.file_pos().map(|(file, _)| file.to_owned()).unwrap_or_default();
        let unnamed = &mut self.state.unnamed;
        let mut doubtful = Vec::new();
        let mut read = Vec::new();
        for (before, after) in &touched {
            unnamed.unexplained.remove(before);
            let looked = unnamed.looked.remove(before);
            if unnamed.read.remove(before) {
                let looked = looked.as_ref().unwrap_or(&self.began);
                if !keeps_columns && reaches(looked, &file, u64::from(header.log_pos)) {
                    doubtful.push(after);
                } else {
                    read.push(after);
                }
            }
        }
        unnamed.read.extend(read.into_iter().cloned());
        unnamed.looked.extend(touched.iter().map(|(_, after)| (after.clone(), end.clone())));
        let doubtful: Vec<_> = doubtful.into_iter().filter_map(|name| self.model.get(name)).collect();
        for table in doubtful {
            self.begin();
            if self.refills {
                tracing::warn!(
                    source = %self.name, table = %table.name,
                    "the table is read anew: its definition changed behind rows that have no column names; \
                     binlog_row_metadata = FULL spares this"
                );
                self.apply(crate::capture::mysql::model::Effect::Refilled(table));
            } else {
                let reason = "its definition changed behind rows that have no column names: set \
                              binlog_row_metadata = FULL, then use `flow resnapshot`";
                self.quarantine(&table.name, reason.to_owned());
            }
        }
        Ok(())
    }

    /// Notes that rows without names are read under the definition that stands.
    pub(super) fn note_unnamed(&mut self, map: &TableMap, name: &TableName) {
        if map.names.is_none() && !self.state.unnamed.read.contains(name) {
            self.state.unnamed.read.insert(name.clone());
        }
    }

    /// The server has been looked at for this table now.
    pub(super) async fn note_looked(&mut self, name: &TableName) -> Result<(), CaptureError> {
        let end = self.end().await?;
        self.state.unnamed.looked.insert(name.clone(), end);
        Ok(())
    }

    /// Whether rows that no definition explains may still be explained by a statement that follows. `None` when nobody has
    /// found any of them yet.
    pub(super) fn may_be_explained(&self, name: &TableName) -> Option<bool> {
        let end = self.state.unnamed.unexplained.get(name)?;
        let (file, pos) = self.position.file_pos().unwrap_or_default();
        // The position is before the transaction that the rows are of.
        Some(reaches(end, file, pos + 1))
    }

    /// Rows came that no definition explains: they are passed over, and the table is read anew.
    pub(super) async fn pass_over(&mut self, name: &TableName) -> Result<(), CaptureError> {
        let end = self.end().await?;
        tracing::info!(source = %self.name, table = %name, "rows that a later definition must explain: the table is read anew");
        self.state.unnamed.unexplained.insert(name.clone(), end);
        self.begin();
        self.read_anew(name);
        Ok(())
    }

    async fn end(&mut self) -> Result<End, CaptureError> {
        if let Ok(end) = binlog_end(&mut self.lookup).await {
            return Ok(end);
        }
        // A connection that idled out.
        self.lookup = self.address.connect().await?;
        binlog_end(&mut self.lookup).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lock_that_was_not_had_in_time_leaves_a_table_unseen() {
        let error = |code: u16| {
            mysql_async::Error::Server(mysql_async::ServerError {
                code,
                message: String::new(),
                state: "HY000".to_owned(),
            })
        };
        assert!(is_lock_timeout(&error(1205)));
        assert!(!is_lock_timeout(&error(1146)));
        assert!(!is_lock_timeout(&error(1053)));
    }
}
