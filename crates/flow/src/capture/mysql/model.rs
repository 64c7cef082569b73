//! The captured tables as they are at the stream's position, and what a statement does to them.
//!
//! A statement is only classified; what the tables then are is read from the live server. The live server may be ahead
//! of the stream: then row events contradict the model, and `reread` looks again.

use super::check::Server;
use super::connect::Address;
use super::schema::{Described, Live, read_tables};
use crate::capture::CaptureError;
use crate::patterns::Patterns;
use base::{ColumnType, Ddl, Table, TableName};
use mysql::binlog::{RowPlan, TableMap, describe_column};
use mysql::ddl::{ColumnPlace, PlacedColumn};
use mysql_async::Conn;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The captured tables by name.
#[derive(Clone, Debug, Default)]
pub struct Model {
    tables: BTreeMap<TableName, Arc<Table>>,
    next_id: u32,
    /// The tables of each flow: what comes under a name that one carries, from a name that it does not, is read whole.
    flows: Arc<[Patterns]>,
}

/// What kind of statement brings a name in line with the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Create,
    Alter,
    Drop,
    Unknown,
}

/// What an ALTER says of columns.
#[derive(Clone, Copy, Default)]
struct Columns<'a> {
    renamed: &'a [(String, String)],
    added: &'a [String],
    dropped: &'a [String],
    placed: &'a [PlacedColumn],
}

/// What a statement did to one captured table.
#[derive(Debug)]
pub enum Effect {
    Truncated(Arc<Table>),
    /// Rows came or went without row events: all are read anew.
    Refilled(Arc<Table>),
    Ddl {
        ddl: Ddl,
        /// Rows that are there are not in the journal, or not as they are now.
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
            Self::Truncated(table) | Self::Refilled(table) => Some(&table.name),
            Self::Ddl { ddl, .. } => ddl.before.as_ref().or(ddl.after.as_ref()).map(|t| &t.name),
            Self::Quarantined { name, .. } => Some(name),
        }
    }
}

impl Model {
    pub fn from_state(tables: &BTreeMap<u32, Arc<Table>>, flows: &Arc<[Patterns]>) -> Self {
        let next_id = tables.keys().last().map_or(1, |id| id + 1);
        let tables = tables.values().map(|t| (t.name.clone(), Arc::clone(t))).collect();
        Self { tables, next_id, flows: Arc::clone(flows) }
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
                let mysql::ddl::TableDdl { kind, tables, renames, moves_rows, .. } = ddl;
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
                    let is_replaced = !patterns.matches(to)
                        && renames.iter().any(|(other, new)| new == from && self.get(other).is_none());
                    if !is_replaced {
                        effects.extend(self.rename(from, to, sql, patterns, &live));
                    }
                    names.remove(from);
                    if *kind != Kind::Alter {
                        names.remove(to);
                    }
                }
                let cause = match kind {
                    Kind::Create => Cause::Create,
                    Kind::Drop => Cause::Drop,
                    _ => Cause::Alter,
                };
                let columns = Columns {
                    renamed: &ddl.column_renames,
                    added: &ddl.added_columns,
                    dropped: &ddl.dropped_columns,
                    placed: &ddl.placed_columns,
                };
                for name in names {
                    effects.extend(self.settle(&name, live.get(&name), sql, columns, cause));
                    if *moves_rows {
                        effects.extend(self.get(&name).map(Effect::Refilled));
                    }
                }
                Ok(effects)
            }
            mysql::Statement::DatabaseDdl { kind: mysql::ddl::DatabaseDdlKind::Drop, db: Some(db) } => {
                let names: Vec<_> = self.names().filter(|n| n.db == *db).cloned().collect();
                Ok(names
                    .iter()
                    .filter_map(|name| self.settle(name, None, sql, Columns::default(), Cause::Drop))
                    .collect())
            }
            mysql::Statement::Unknown => {
                let live = look(lookup, address, server, |n| patterns.matches(n)).await?;
                let names: BTreeSet<_> = self.names().chain(live.keys()).cloned().collect();
                Ok(names
                    .iter()
                    .filter_map(|n| self.settle(n, live.get(n), sql, Columns::default(), Cause::Unknown))
                    .collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Brings one name in line with what the server shows, as far as this statement explains it: the server may be
    /// ahead, and the rest is for later statements.
    fn settle(
        &mut self,
        name: &TableName,
        live: Option<&Described>,
        sql: &str,
        columns: Columns<'_>,
        cause: Cause,
    ) -> Option<Effect> {
        let before = self.get(name);
        // What the server has under this name by now was made later.
        let live = live.filter(|_| cause != Cause::Drop);
        match (before, live) {
            (None, Some(Ok(live))) => {
                let after = self.put(live.table.clone());
                Some(ddl(sql, None, Some(after), &[], cause != Cause::Create))
            }
            (Some(before), Some(Ok(live))) => {
                let told = match cause {
                    Cause::Alter => told_by(sql, &before, &live.table, columns),
                    _ => live.table.clone(),
                };
                // Added or renamed to the name of one that the same statement dropped, or added to that of one it renamed.
                let is_there =
                    |name: &String| before.column_index(name).is_some() && told.column_index(name).is_some();
                let takes_dropped =
                    |to: &String| columns.dropped.iter().any(|name| name.eq_ignore_ascii_case(to));
                let is_remade = columns.added.iter().any(is_there)
                    || columns.renamed.iter().any(|(_, to)| is_there(to) && takes_dropped(to));
                if same_shape(&before, &told) && !is_remade {
                    return None;
                }
                // What is renamed is there before and after; the server may be ahead.
                let renamed: Vec<_> = columns
                    .renamed
                    .iter()
                    .filter(|(from, to)| {
                        before.column_index(from).is_some() && told.column_index(to).is_some()
                    })
                    .filter(|(_, to)| !takes_dropped(to))
                    .cloned()
                    .collect();
                let needs_snapshot = is_remade || changes_rows(&before, &told, live, &renamed);
                let after = self.put(told);
                Some(ddl(sql, Some(before), Some(after), &renamed, needs_snapshot))
            }
            (_, Some(Err(reason))) => {
                Some(Effect::Quarantined { name: name.clone(), reason: reason.clone() })
            }
            (Some(before), None) if matches!(cause, Cause::Drop | Cause::Unknown) => {
                self.tables.remove(name);
                Some(ddl(sql, Some(before), None, &[], false))
            }
            // Gone from the server, though this statement did not drop it: a later one will say so.
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
    ) -> Vec<Effect> {
        let before = self.tables.remove(from);
        if !patterns.matches(to) {
            return before.map(|before| ddl(sql, Some(before), None, &[], false)).into_iter().collect();
        }
        let shown = live.get(to).and_then(|d| d.as_ref().ok()).map(|live| &live.table);
        let after = match (&before, shown) {
            // The statement renames and does nothing else: what else is new there came later.
            (Some(old), _) => Table { name: to.clone(), version: old.version + 1, ..(**old).clone() },
            (None, Some(table)) => {
                // Another table takes a name that was captured, as online schema changes do: one table to all that read it.
                let replaced = self.get(to);
                let after = self.put(table.clone());
                let is_new = replaced.is_none();
                let mut effects = vec![ddl(sql, replaced, Some(Arc::clone(&after)), &[], is_new)];
                effects.extend((!is_new).then_some(Effect::Refilled(after)));
                return effects;
            }
            (None, None) => return Vec::new(),
        };
        let after = Arc::new(after);
        self.tables.insert(to.clone(), Arc::clone(&after));
        let is_news = self.flows.iter().any(|flow| flow.matches(to) && !flow.matches(from));
        vec![ddl(sql, before, Some(after), &[], is_news)]
    }

    /// Finds a definition that explains rows written under `map`, from the live one and the one we hold. `Err` is the
    /// reason why there is none; without one, the table is gone.
    pub async fn reread(
        &mut self,
        lookup: &mut Conn,
        address: &Address,
        server: &Server,
        patterns: &Patterns,
        name: &TableName,
        map: &TableMap,
    ) -> Result<Result<Effect, Option<String>>, CaptureError> {
        let mut live = look(lookup, address, server, |n| n == name && patterns.matches(n)).await?;
        let before = self.get(name);
        let (live, reason) = match live.remove(name) {
            None => (None, None),
            Some(Ok(live)) => {
                let reason = RowPlan::new(map, &live.table).err().map(|error| error.to_string());
                (Some(live), reason)
            }
            Some(Err(reason)) => (None, Some(reason)),
        };
        let as_it_is = live.as_ref().filter(|_| reason.is_none()).map(|live| live.table.clone());
        let known = [live.as_ref().map(|live| &live.table), before.as_deref()];
        let Some(table) = as_it_is.or_else(|| as_it_was(name, map, &known)) else {
            return Ok(Err(reason));
        };
        let needs_snapshot = match (&before, &live) {
            (Some(before), Some(live)) => changes_rows(before, &table, live, &[]),
            // No statement told of it: what was there before this row is not in the journal.
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let after = self.put(table);
        Ok(Ok(ddl("", before, Some(after), &[], needs_snapshot)))
    }
}

fn ddl(
    sql: &str,
    before: Option<Arc<Table>>,
    after: Option<Arc<Table>>,
    column_renames: &[(String, String)],
    needs_snapshot: bool,
) -> Effect {
    let column_renames = column_renames.to_vec();
    Effect::Ddl { ddl: Ddl { sql: sql.to_owned(), before, after, column_renames }, needs_snapshot }
}

/// The table after an ALTER: as the server shows it, less what the statement's text does not speak of.
fn told_by(sql: &str, before: &Table, live: &Table, columns: Columns<'_>) -> Table {
    let text = sql.to_lowercase();
    let speaks_of = |name: &str| {
        let name = name.to_lowercase();
        has_word(&text, &name) || has_word(&text, &name.replace('`', "``"))
    };
    let is_dropped = |name: &str| columns.dropped.iter().any(|dropped| dropped.eq_ignore_ascii_case(name));
    let new_name = |old: &str| {
        columns
            .renamed
            .iter()
            .find(|(from, _)| from.eq_ignore_ascii_case(old))
            .map_or(old, |(_, to)| to)
            .to_owned()
    };
    let old_names: Vec<String> = before.columns.iter().map(|c| new_name(&c.name)).collect();
    let is_old = |name: &str| old_names.iter().any(|old| old.eq_ignore_ascii_case(name));
    let lost = old_names.iter().any(|name| live.column_index(name).is_none() && !is_dropped(name));
    let early = live.columns.iter().any(|c| !is_old(&c.name) && !speaks_of(&c.name));
    if !lost && !early {
        return live.clone();
    }
    let mut told: Vec<base::Column> = Vec::new();
    for (old, name) in before.columns.iter().zip(&old_names).filter(|(old, _)| !is_dropped(&old.name)) {
        told.push(match live.column_index(name) {
            Some(index) => live.columns[index].clone(),
            None => base::Column { name: name.clone(), ..old.clone() },
        });
    }
    put_in_place(&mut told, columns.placed, live);
    let is_told = |name: &str| told.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let others = live.columns.iter().filter(|c| !is_old(&c.name) && speaks_of(&c.name) && !is_told(&c.name));
    let others: Vec<_> = others.cloned().collect();
    told.extend(others);
    let renamed: Vec<_> = before.key.iter().map(|i| old_names[*i].as_str()).collect();
    with_keys(live.name.clone(), told, live, &renamed)
}

/// Adds and moves columns as the server does: what is moved leaves its place first, then all follow in the order of the clauses.
fn put_in_place(told: &mut Vec<base::Column>, placed: &[PlacedColumn], live: &Table) {
    let find = |told: &[base::Column], name: &str| {
        told.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    };
    let mut waiting: Vec<(&PlacedColumn, base::Column)> = Vec::new();
    for it in placed {
        let column = match find(told, &it.name) {
            Some(index) if it.is_moved => Some(told.remove(index)),
            // ADD IF NOT EXISTS of one that is there.
            Some(_) => None,
            None => live.column_index(&it.name).map(|index| live.columns[index].clone()),
        };
        waiting.extend(column.map(|column| (it, column)));
    }
    for (it, column) in waiting {
        let place = match &it.place {
            ColumnPlace::First => 0,
            ColumnPlace::After(name) => find(told, name).map_or(told.len(), |index| index + 1),
            ColumnPlace::Last => told.len(),
        };
        told.insert(place, column);
    }
}

/// Whether a name stands in a text by itself, and not within a longer word.
fn has_word(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let ends = |at: usize| (text[..at].chars().next_back(), text[at + name.len()..].chars().next());
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = ends(at);
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// The table whose rows `map` describes: every column as one of `known` has it.
fn as_it_was(name: &TableName, map: &TableMap, known: &[Option<&Table>]) -> Option<Table> {
    let find = |index: usize| {
        let mut all = known.iter().flatten().flat_map(|table| &table.columns);
        all.find(|column| RowPlan::explains(map, index, column))
            .cloned()
            .or_else(|| describe_column(map, index))
            .filter(|column| RowPlan::explains(map, index, column))
    };
    let columns: Vec<_> = (0..map.column_count()).map(find).collect::<Option<_>>()?;
    let Some(keyed) = known.iter().flatten().next() else {
        // Nobody knows it: it was made and dropped while capture lagged. The map itself tells enough.
        let key = map.primary_key.as_ref().filter(|key| key.iter().all(|(_, prefix)| *prefix == 0));
        let key: Option<Vec<usize>> =
            key.map(|key| key.iter().filter_map(|(index, _)| usize::try_from(*index).ok()).collect());
        let key = key.filter(|key| key.iter().all(|index| *index < columns.len())).unwrap_or_default();
        return Some(Table { id: 0, version: 0, name: name.clone(), columns, key, unique_keys: Vec::new() });
    };
    let old_key = known.last().copied().flatten();
    let old_key: Vec<_> =
        old_key.map(|t| t.key.iter().map(|i| t.columns[*i].name.as_str()).collect()).unwrap_or_default();
    Some(with_keys(name.clone(), columns, keyed, &old_key))
}

/// A table of these columns with the keys of `like`, or else with `key`, as far as the columns are there.
fn with_keys(name: TableName, columns: Vec<base::Column>, like: &Table, key: &[&str]) -> Table {
    let mut table = Table { id: 0, version: 0, name, columns, key: Vec::new(), unique_keys: Vec::new() };
    let find = |names: &mut dyn Iterator<Item = &str>| -> Option<Vec<usize>> {
        names.map(|name| table.column_index(name)).collect()
    };
    let of = |indexes: &[usize]| find(&mut indexes.iter().map(|i| like.columns[*i].name.as_str()));
    let own = of(&like.key).or_else(|| find(&mut key.iter().copied())).unwrap_or_default();
    let unique = like.unique_keys.iter().filter_map(|key| of(key)).collect();
    (table.key, table.unique_keys) = (own, unique);
    table
}

/// Whether rows that are there now have values that no row event tells of: a new column's default, another type.
pub(crate) fn changes_rows(before: &Table, after: &Table, live: &Live, renames: &[(String, String)]) -> bool {
    after.columns.iter().any(|column| {
        let old = renames.iter().find(|(_, to)| *to == column.name).map_or(&column.name, |(from, _)| from);
        match before.column_index(old) {
            Some(index) => !keeps_values(&before.columns[index].ty, &column.ty),
            None => live.table.column_index(&column.name).is_some_and(|i| live.fills[i]),
        }
    })
}

/// Whether every value of a column is the same under its new type.
fn keeps_values(old: &ColumnType, new: &ColumnType) -> bool {
    use ColumnType as T;
    let is_int = |ty: &T| {
        matches!(
            ty,
            T::TinyInt { .. } | T::SmallInt { .. } | T::MediumInt { .. } | T::Int { .. } | T::BigInt { .. }
        )
    };
    match (old, new) {
        (T::Text { .. }, T::Text { .. }) | (T::VarBinary { .. }, T::VarBinary { .. }) => true,
        (T::Enum { labels: old }, T::Enum { labels: new })
        | (T::Set { labels: old }, T::Set { labels: new }) => new.starts_with(old),
        _ => old == new || (is_int(old) && is_int(new)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &str) -> Table {
        let column = |name: &str| base::Column {
            name: name.to_owned(),
            ty: ColumnType::Int { unsigned: false },
            sql_type: "int".to_owned(),
            nullable: true,
            charset: None,
            collation: None,
            generated: base::Generated::No,
            invisible: false,
        };
        let columns = names.split(' ').map(column).collect();
        let name = TableName::new("shop", "t");
        Table { id: 1, version: 1, name, columns, key: vec![0], unique_keys: Vec::new() }
    }

    fn told(before: &str, sql: &str, live: &str) -> String {
        let mysql::Statement::TableDdl(ddl) = mysql::classify(sql, false) else { panic!("{sql}") };
        let columns = Columns {
            renamed: &ddl.column_renames,
            added: &ddl.added_columns,
            dropped: &ddl.dropped_columns,
            placed: &ddl.placed_columns,
        };
        let told = told_by(sql, &table(before), &table(live), columns);
        told.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_server_that_is_ahead_does_not_move_the_columns_of_an_earlier_statement() {
        for (before, sql, live, wanted) in [
            ("a b", "ALTER TABLE t ADD c INT AFTER a", "a c b d", "a c b"),
            ("a b", "ALTER TABLE t ADD c INT FIRST", "c a b d", "c a b"),
            ("a b", "ALTER TABLE t ADD c INT", "d a b c", "a b c"),
            ("a b", "ALTER TABLE t ADD c INT AFTER a, ADD e INT AFTER c", "a c e b d", "a c e b"),
            ("a b c", "ALTER TABLE t MODIFY c INT AFTER a", "a c b d", "a c b"),
            ("a b c", "ALTER TABLE t CHANGE c x INT FIRST, ADD y INT AFTER x", "x y a b d", "x y a b"),
            ("a b", "ALTER TABLE t DROP b, ADD b INT FIRST", "b a d", "b a"),
            ("a b c", "ALTER TABLE t DROP a, RENAME COLUMN b TO a", "a c d", "a c"),
            ("a b", "ALTER TABLE t ADD COLUMN IF NOT EXISTS b INT FIRST", "a b d", "a b"),
            ("a b", "ALTER TABLE t ADD c INT AFTER b", "a c", "a b c"),
            ("a b", "ALTER TABLE t ADD c INT AFTER a", "a c b", "a c b"),
        ] {
            assert_eq!(told(before, sql, live), wanted, "{sql}");
        }
    }
}
