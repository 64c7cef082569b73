//! The SQL of rows that go into one transaction of the sink.
//!
//! Nobody sees the states within that transaction, so rows are written by table, and a row of a table with a key once:
//! as it is at the end. Deletes come before writes, which frees the keys that moved rows take.

use super::literal;
use super::target::Dialect;
use crate::deliver::sink::OutChange;
use base::{Op, Table, TableName, Value};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Bytes of one statement: below every server's default `max_allowed_packet`.
pub(super) const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// One statement.
#[derive(Debug, PartialEq)]
pub(super) struct Statement {
    pub sql: String,
    /// The ENUM columns that it sets to 0: see [`super::LENIENT`].
    pub zero_labels: Vec<String>,
}

impl Statement {
    pub fn plain(sql: String) -> Self {
        Self { sql, zero_labels: Vec::new() }
    }

    /// A statement that writes `row`.
    fn writing(sql: String, table: &Table, row: &[Value]) -> Self {
        Self { zero_labels: zero_labels(table, row), sql }
    }
}

/// The columns of a row that hold the ENUM 0.
fn zero_labels(table: &Table, row: &[Value]) -> Vec<String> {
    let zeros = table.columns.iter().zip(row).filter(|(_, value)| **value == Value::Enum(0));
    zeros.map(|(column, _)| column.name.clone()).collect()
}

/// Rows of one table that follow each other, whatever rows of other tables stand between them.
struct Group<'a> {
    table: &'a Arc<Table>,
    rows: Vec<&'a OutChange>,
}

/// Statements that bring the target from before `rows` to behind them. `strict` says of which tables an upsert could hit
/// another row than its own: their rows are written one by one, in order.
pub(super) fn statements(
    rows: &[&OutChange],
    dialect: Dialect,
    strict: impl Fn(&TableName) -> bool,
) -> Vec<Statement> {
    let mut out = Vec::new();
    for Group { table, rows } in by_table(rows) {
        match (table.key.is_empty(), strict(&table.name)) {
            (true, _) => keyless(table, &rows, dialect, &mut out),
            (false, true) => in_order(table, &rows, dialect, &mut out),
            (false, false) => at_the_end(table, &rows, dialect, &mut out),
        }
    }
    out
}

fn by_table<'a>(rows: &[&'a OutChange]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    // Where a table's rows go now. A new form of a table, or another one with its name, has a group of its own, behind.
    let mut current: HashMap<&TableName, usize> = HashMap::new();
    let mut last: Option<usize> = None;
    for row in rows {
        let fits = |index: &usize| Arc::ptr_eq(groups[*index].table, &row.table);
        let found = last.filter(fits).or_else(|| current.get(&row.table.name).copied().filter(fits));
        let index = found.unwrap_or_else(|| {
            groups.push(Group { table: &row.table, rows: Vec::new() });
            current.insert(&row.table.name, groups.len() - 1);
            groups.len() - 1
        });
        groups[index].rows.push(row);
        last = Some(index);
    }
    groups
}

/// Writes tuples into as few statements as their size allows.
struct Tuples<'a> {
    table: &'a Table,
    /// Whole rows to write, or keys to delete.
    whole: bool,
    head: String,
    tail: String,
    dialect: Dialect,
    sql: String,
}

impl<'a> Tuples<'a> {
    fn inserts(table: &'a Table, tail: String, dialect: Dialect) -> Self {
        Self { table, whole: true, head: literal::insert_head(table), tail, dialect, sql: String::new() }
    }

    fn deletes(table: &'a Table, dialect: Dialect) -> Self {
        let head = literal::delete_head(table);
        Self { table, whole: false, head, tail: ")".into(), dialect, sql: String::new() }
    }

    fn put(&mut self, values: &[Value], out: &mut Vec<Statement>) {
        if self.whole && values.contains(&Value::Enum(0)) {
            // Alone, so that its warnings are its own.
            let mut sql = self.head.clone();
            literal::put_tuple(&mut sql, self.table, values, true, self.dialect);
            sql.push_str(&self.tail);
            out.push(Statement::writing(sql, self.table, values));
            return;
        }
        if self.sql.len() >= STATEMENT_BYTES_MAX {
            self.close(out);
        }
        if self.sql.is_empty() {
            self.sql.push_str(&self.head);
        } else {
            self.sql.push(',');
        }
        literal::put_tuple(&mut self.sql, self.table, values, self.whole, self.dialect);
    }

    fn close(&mut self, out: &mut Vec<Statement>) {
        if !self.sql.is_empty() {
            self.sql.push_str(&self.tail);
            out.push(Statement::plain(std::mem::take(&mut self.sql)));
        }
    }
}

/// What becomes of a row.
struct Fate<'a> {
    /// It was taken away, if only for a while: what the target alone keeps of it goes too.
    gone: bool,
    after: Option<&'a [Value]>,
}

/// A keyed table: every row once.
fn at_the_end(table: &Table, rows: &[&OutChange], dialect: Dialect, out: &mut Vec<Statement>) {
    let mut fates: Vec<(&[Value], Fate<'_>)> = Vec::with_capacity(rows.len());
    let mut places: HashMap<Key<'_>, usize> = HashMap::with_capacity(rows.len());
    for row in rows {
        let mut meet = |values, after: Option<_>| {
            let gone = after.is_none();
            match places.entry(Key { columns: &table.key, values }) {
                Entry::Occupied(place) => {
                    let fate = &mut fates[*place.get()].1;
                    *fate = Fate { gone: fate.gone || gone, after };
                }
                Entry::Vacant(place) => {
                    place.insert(fates.len());
                    fates.push((values, Fate { gone, after }));
                }
            }
        };
        match (row.op, row.before.as_deref(), row.after.as_deref()) {
            (Op::Delete, Some(before), _) => meet(before, None),
            (_, before, Some(after)) => {
                let moved = |before: &&[Value]| table.key.iter().any(|i| before[*i] != after[*i]);
                if let Some(before) = before.filter(moved) {
                    meet(before, None);
                }
                meet(after, Some(after));
            }
            _ => {}
        }
    }
    let mut deletes = Tuples::deletes(table, dialect);
    for (values, _) in fates.iter().filter(|(_, fate)| fate.gone) {
        deletes.put(values, out);
    }
    deletes.close(out);
    let mut writes = Tuples::inserts(table, literal::upsert_tail(table), dialect);
    for after in fates.iter().filter_map(|(_, fate)| fate.after) {
        writes.put(after, out);
    }
    writes.close(out);
}

/// A keyed table whose target has other unique keys: another row's must refuse a row, never be overwritten.
fn in_order(table: &Table, rows: &[&OutChange], dialect: Dialect, out: &mut Vec<Statement>) {
    let mut deletes = Tuples::deletes(table, dialect);
    for row in rows {
        match (row.op, &row.before, &row.after) {
            (Op::Delete, Some(before), _) => deletes.put(before, out),
            (_, before, Some(after)) => {
                let moved = |before: &&Vec<Value>| table.key.iter().any(|i| before[*i] != after[*i]);
                if let Some(before) = before.as_ref().filter(moved) {
                    deletes.put(before, out);
                }
                deletes.close(out);
                for sql in [
                    literal::update_by_key(table, after, dialect),
                    literal::insert_if_missing(table, after, dialect),
                ] {
                    out.push(Statement::writing(sql, table, after));
                }
            }
            _ => {}
        }
    }
    deletes.close(out);
}

fn keyless(table: &Table, rows: &[&OutChange], dialect: Dialect, out: &mut Vec<Statement>) {
    let mut writes = Tuples::inserts(table, String::new(), dialect);
    for row in rows {
        match (row.op, &row.before, &row.after) {
            (Op::Insert | Op::Read, _, Some(after)) => {
                writes.put(after, out);
                continue;
            }
            (Op::Update, Some(before), Some(after)) => {
                writes.close(out);
                let sql = literal::update_by_all(table, before, after, dialect);
                out.push(Statement::writing(sql, table, after));
            }
            (Op::Delete, Some(before), _) => {
                writes.close(out);
                out.push(Statement::plain(literal::delete_by_all(table, before, dialect)));
            }
            _ => {}
        }
    }
    writes.close(out);
}

/// A key of a row, compared as the source wrote it.
pub(super) struct Key<'a> {
    pub columns: &'a [usize],
    /// The whole row.
    pub values: &'a [Value],
}

impl Key<'_> {
    fn parts(&self) -> impl Iterator<Item = &Value> {
        self.columns.iter().map(|column| &self.values[*column])
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.parts().eq(other.parts())
    }
}

/// No value of MySQL differs from itself.
impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for value in self.parts() {
            match value {
                Value::Null => 0_u8.hash(state),
                Value::Int(v) | Value::Time(v) | Value::Timestamp(v) => v.hash(state),
                Value::UInt(v) | Value::Bit(v) | Value::Set(v) => v.hash(state),
                Value::Year(v) | Value::Enum(v) => v.hash(state),
                // Zero is equal to minus zero.
                Value::Float(v) => (v + 0.0).to_bits().hash(state),
                Value::Double(v) => (v + 0.0).to_bits().hash(state),
                Value::Date(v) => v.hash(state),
                Value::DateTime(v) => v.hash(state),
                Value::Decimal(v) | Value::Text(v) | Value::Json(v) => v.hash(state),
                Value::RawText(v) | Value::Bytes(v) | Value::Geometry(v) | Value::Vector(v) => v.hash(state),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use base::{Column, ColumnType, Generated};

    pub fn table(name: &str, key: Vec<usize>) -> Arc<Table> {
        let column = |name: &str| Column {
            name: name.into(),
            ty: ColumnType::Text { chars_max: 8 },
            sql_type: "varchar(8)".into(),
            nullable: name != "k",
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        };
        let columns = vec![column("k"), column("v")];
        let name = TableName::new("shop", name);
        Arc::new(Table { id: 1, version: 1, name, columns, key, unique_keys: vec![] })
    }

    fn row(text: &str) -> Option<Vec<Value>> {
        let (k, v) = text.split_once('=')?;
        Some(vec![Value::Text(k.into()), Value::Text(v.into())])
    }

    /// `k=v>k=v`, with an empty side for a row that is not there.
    pub fn change(lsn: u64, table: &Arc<Table>, text: &str) -> OutChange {
        let (before, after) = text.split_once('>').unwrap();
        let (before, after) = (row(before), row(after));
        let op = match (&before, &after) {
            (None, _) => Op::Insert,
            (_, None) => Op::Delete,
            _ => Op::Update,
        };
        OutChange {
            epoch: 1,
            lsn,
            op,
            table: Arc::clone(table),
            of: None,
            ts_ms: 0,
            txn: None,
            before,
            after,
            ddl: None,
            whole: None,
            again: false,
        }
    }

    fn sql(changes: &[(&Arc<Table>, &str)], strict: bool) -> Vec<String> {
        let changes: Vec<_> =
            changes.iter().zip(1..).map(|((table, text), lsn)| change(lsn, table, text)).collect();
        let rows: Vec<_> = changes.iter().collect();
        let out = statements(&rows, Dialect::MySql, |_| strict);
        out.into_iter().map(|statement| statement.sql).collect()
    }

    const TAIL: &str = " ON DUPLICATE KEY UPDATE `k`=VALUES(`k`),`v`=VALUES(`v`)";

    #[test]
    fn tables_that_take_turns_have_a_statement_each() {
        let (a, b) = (table("a", vec![0]), table("b", vec![0]));
        let found = sql(&[(&a, ">1=x"), (&b, ">1=x"), (&a, ">2=y"), (&b, "1=x>1=z")], false);
        let head = |name: &str| format!("INSERT INTO `shop`.`{name}` (`k`,`v`) VALUES ");
        assert_eq!(
            found,
            [format!("{}('1','x'),('2','y'){TAIL}", head("a")), format!("{}('1','z'){TAIL}", head("b"))]
        );
    }

    #[test]
    fn rows_that_swap_keys_leave_before_they_come() {
        let a = table("a", vec![0]);
        let found = sql(&[(&a, "1=x>0=x"), (&a, "2=y>1=y"), (&a, "0=x>2=x")], false);
        assert_eq!(
            found,
            [
                "DELETE FROM `shop`.`a` WHERE (`k`) IN (('1'),('0'),('2'))".to_owned(),
                format!("INSERT INTO `shop`.`a` (`k`,`v`) VALUES ('1','y'),('2','x'){TAIL}"),
            ]
        );
    }

    #[test]
    fn a_row_that_came_and_went_is_only_deleted() {
        let a = table("a", vec![0]);
        let found = sql(&[(&a, ">1=x"), (&a, "1=x>1=y"), (&a, "1=y>")], false);
        assert_eq!(found, ["DELETE FROM `shop`.`a` WHERE (`k`) IN (('1'))"]);
    }

    #[test]
    fn a_new_form_of_a_table_stays_behind_the_old_one() {
        let (old, new) = (table("a", vec![0]), table("a", vec![0]));
        let found = sql(&[(&old, ">1=x"), (&new, "1=x>1=y"), (&old, "1=y>1=z")], false);
        assert_eq!(found.len(), 3);
        assert!(found[2].contains("('1','z')"), "{found:?}");
    }

    #[test]
    fn where_others_have_unique_keys_every_step_is_taken_in_order() {
        let a = table("a", vec![0]);
        let found = sql(&[(&a, "1=x>"), (&a, "2=y>"), (&a, ">3=x"), (&a, "3=x>")], true);
        let verbs: Vec<_> = found.iter().map(|sql| sql.split(' ').next().unwrap()).collect();
        assert_eq!(verbs, ["DELETE", "UPDATE", "INSERT", "DELETE"]);
        assert!(found[0].ends_with("IN (('1'),('2'))"));
    }

    #[test]
    fn without_a_key_inserts_share_a_statement_up_to_the_next_update() {
        let a = table("a", vec![]);
        let found = sql(&[(&a, ">1=x"), (&a, ">1=x"), (&a, "1=x>2=x"), (&a, ">1=x")], false);
        let verbs: Vec<_> = found.iter().map(|sql| sql.split(' ').next().unwrap()).collect();
        assert_eq!(verbs, ["INSERT", "UPDATE", "INSERT"]);
        assert!(found[0].ends_with("VALUES ('1','x'),('1','x')"));
    }
}
