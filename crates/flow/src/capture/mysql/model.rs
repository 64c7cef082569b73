//! The captured tables as they are at the stream's position, and what a statement does to them.
//!
//! A statement is only classified; what the tables then are is read from the live server. The live server may be ahead
//! of the stream: then row events contradict the model, and `reread` looks again.

use super::check::Server;
use super::connect::Address;
use super::schema::{Described, read_tables};
use crate::capture::CaptureError;
use crate::patterns::Patterns;
use base::{Ddl, Table, TableName};
use mysql::binlog::{RowPlan, TableMap};
use mysql_async::Conn;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The captured tables by name.
#[derive(Clone, Debug, Default)]
pub struct Model {
    tables: BTreeMap<TableName, Arc<Table>>,
    next_id: u32,
}

/// What a statement did to one captured table.
#[derive(Debug)]
pub enum Effect {
    Truncated(Arc<Table>),
    Ddl {
        ddl: Ddl,
        /// The table came from a name that was not captured: its rows are not in the journal.
        needs_snapshot: bool,
    },
    Quarantined {
        name: TableName,
        reason: String,
    },
}

impl Effect {
    pub fn name(&self) -> Option<&TableName> {
        match self {
            Self::Truncated(table) => Some(&table.name),
            Self::Ddl { ddl, .. } => ddl.before.as_ref().or(ddl.after.as_ref()).map(|t| &t.name),
            Self::Quarantined { name, .. } => Some(name),
        }
    }
}

impl Model {
    pub fn from_state(tables: &BTreeMap<u32, Arc<Table>>) -> Self {
        let next_id = tables.keys().last().map_or(1, |id| id + 1);
        Self { tables: tables.values().map(|t| (t.name.clone(), Arc::clone(t))).collect(), next_id }
    }

    pub fn get(&self, name: &TableName) -> Option<Arc<Table>> {
        self.tables.get(name).cloned()
    }

    pub fn names(&self) -> impl Iterator<Item = &TableName> {
        self.tables.keys()
    }

    /// Takes a definition in: its id stays when the name is known, its version counts on.
    pub fn put(&mut self, mut table: Table) -> Arc<Table> {
        let old = self.tables.get(&table.name);
        self.next_id = self.next_id.max(1);
        (table.id, table.version) = match old {
            Some(old) => (old.id, old.version + 1),
            None => (self.next_id, 1),
        };
        if old.is_none() {
            self.next_id += 1;
        }
        let table = Arc::new(table);
        self.tables.insert(table.name.clone(), Arc::clone(&table));
        table
    }

    /// The effects of `sql` in order, already taken into the model.
    #[expect(
        clippy::too_many_arguments,
        reason = "a statement, its context, and the two ways to look at the server"
    )]
    pub async fn follow(
        &mut self,
        lookup: &mut Conn,
        address: &Address,
        server: &Server,
        patterns: &Patterns,
        default_db: &str,
        sql: &str,
        statement: &mysql::Statement,
    ) -> Result<Vec<Effect>, CaptureError> {
        use mysql::ddl::TableDdlKind as Kind;
        let resolve = |t: &mysql::ddl::StatementTable| {
            TableName::new(t.db.clone().unwrap_or_else(|| default_db.to_owned()), t.table.clone())
        };
        match statement {
            mysql::Statement::TableDdl(ddl) if ddl.is_temporary => Ok(Vec::new()),
            mysql::Statement::TableDdl(ddl) if ddl.kind == Kind::Truncate => {
                Ok(ddl.tables.iter().filter_map(|t| self.get(&resolve(t))).map(Effect::Truncated).collect())
            }
            mysql::Statement::TableDdl(ddl) => {
                let mysql::ddl::TableDdl { kind, tables, renames, column_renames, .. } = ddl;
                let renames: Vec<_> = renames.iter().map(|(from, to)| (resolve(from), resolve(to))).collect();
                let mut names: BTreeSet<TableName> = tables.iter().map(resolve).collect();
                names.extend(renames.iter().flat_map(|(from, to)| [from.clone(), to.clone()]));
                names.retain(|name| patterns.matches(name));
                if names.is_empty() {
                    return Ok(Vec::new());
                }
                let live = look(lookup, address, server, |n| names.contains(n)).await?;
                let mut effects = Vec::new();
                for (from, to) in &renames {
                    effects.extend(self.rename(from, to, sql, patterns, &live));
                    names.remove(from);
                    names.remove(to);
                }
                let dropping = matches!(kind, Kind::Drop);
                for name in names {
                    effects.extend(self.settle(&name, live.get(&name), sql, column_renames, dropping));
                }
                Ok(effects)
            }
            mysql::Statement::DatabaseDdl { kind: mysql::ddl::DatabaseDdlKind::Drop, db: Some(db) } => {
                let names: Vec<_> = self.names().filter(|n| n.db == *db).cloned().collect();
                Ok(names.iter().filter_map(|name| self.settle(name, None, sql, &[], true)).collect())
            }
            mysql::Statement::Unknown => {
                let live = look(lookup, address, server, |n| patterns.matches(n)).await?;
                let names: BTreeSet<_> = self.names().chain(live.keys()).cloned().collect();
                Ok(names.iter().filter_map(|n| self.settle(n, live.get(n), sql, &[], true)).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Brings one name in line with what the server shows.
    fn settle(
        &mut self,
        name: &TableName,
        live: Option<&Described>,
        sql: &str,
        column_renames: &[(String, String)],
        dropping: bool,
    ) -> Option<Effect> {
        let before = self.get(name);
        match (before, live) {
            (before, Some(Ok(table))) => {
                if before.as_ref().is_some_and(|old| same_shape(old, table)) {
                    return None;
                }
                let after = self.put(table.clone());
                Some(ddl(sql, before, Some(after), column_renames))
            }
            (_, Some(Err(reason))) => {
                Some(Effect::Quarantined { name: name.clone(), reason: reason.clone() })
            }
            // Gone from the server, though this statement did not drop it: a later one will say so.
            (Some(before), None) if dropping => {
                self.tables.remove(name);
                Some(ddl(sql, Some(before), None, &[]))
            }
            (_, None) => None,
        }
    }

    fn rename(
        &mut self,
        from: &TableName,
        to: &TableName,
        sql: &str,
        patterns: &Patterns,
        live: &BTreeMap<TableName, Described>,
    ) -> Option<Effect> {
        let before = self.tables.remove(from);
        if !patterns.matches(to) {
            return before.map(|before| ddl(sql, Some(before), None, &[]));
        }
        let shown = live.get(to).and_then(|d| d.as_ref().ok()).cloned();
        let mut after = match (shown, &before) {
            (Some(table), _) => table,
            (None, Some(old)) => Table { name: to.clone(), ..(**old).clone() },
            (None, None) => return None,
        };
        let known = before.is_some();
        match &before {
            Some(old) => {
                (after.id, after.version) = (old.id, old.version + 1);
                let after = Arc::new(after);
                self.tables.insert(to.clone(), Arc::clone(&after));
                Some(ddl(sql, before, Some(after), &[]))
            }
            None => {
                let after = self.put(after);
                let made =
                    Ddl { sql: sql.to_owned(), before: None, after: Some(after), column_renames: vec![] };
                Some(Effect::Ddl { ddl: made, needs_snapshot: !known })
            }
        }
    }

    /// Finds a definition that explains rows written under `map`: the live one. `Err` is the reason why it does not.
    pub async fn reread(
        &mut self,
        lookup: &mut Conn,
        address: &Address,
        server: &Server,
        patterns: &Patterns,
        name: &TableName,
        map: &TableMap,
    ) -> Result<Result<Effect, String>, CaptureError> {
        let mut live = look(lookup, address, server, |n| n == name && patterns.matches(n)).await?;
        let before = self.get(name);
        let described = live.remove(name);
        let gone = || Err("the server has no such table any more".to_owned());
        Ok(match described.unwrap_or_else(gone) {
            Ok(table) => match RowPlan::new(map, &table) {
                Ok(_) => {
                    let after = self.put(table);
                    Ok(ddl("", before, Some(after), &[]))
                }
                Err(error) => Err(error.to_string()),
            },
            Err(reason) => Err(reason),
        })
    }
}

fn ddl(
    sql: &str,
    before: Option<Arc<Table>>,
    after: Option<Arc<Table>>,
    column_renames: &[(String, String)],
) -> Effect {
    let column_renames = column_renames.to_vec();
    Effect::Ddl { ddl: Ddl { sql: sql.to_owned(), before, after, column_renames }, needs_snapshot: false }
}

fn same_shape(a: &Table, b: &Table) -> bool {
    a.columns == b.columns && a.key == b.key && a.unique_keys == b.unique_keys
}

/// Reads definitions; a connection that idled out is renewed once.
async fn look(
    lookup: &mut Conn,
    address: &Address,
    server: &Server,
    wanted: impl Fn(&TableName) -> bool,
) -> Result<BTreeMap<TableName, Described>, CaptureError> {
    if let Ok(found) = read_tables(lookup, server, &wanted).await {
        return Ok(found);
    }
    *lookup = address.connect().await?;
    read_tables(lookup, server, &wanted).await
}
