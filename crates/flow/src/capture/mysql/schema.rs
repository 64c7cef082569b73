//! Tables as `information_schema` shows them now.

use super::check::Server;
use super::connect::statement_error;
use crate::capture::CaptureError;
use base::{Column, ColumnType, Generated, Table, TableName};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A table as it is now, or the reason why it cannot be described.
pub type Described = Result<Live, String>;

/// A table as the server has it now.
#[derive(Clone, Debug)]
pub struct Live {
    pub table: Table,
    /// By column: whether the server gives it a value of its own in rows that are there when it is added.
    pub fills: Vec<bool>,
}

/// The names of every base table that we may see.
pub async fn list_tables(conn: &mut Conn) -> Result<Vec<TableName>, CaptureError> {
    let rows: Vec<(String, String)> = conn
        .query(
            "SELECT CAST(table_schema AS CHAR CHARACTER SET utf8mb4), CAST(table_name AS CHAR CHARACTER SET utf8mb4) \
             FROM information_schema.tables WHERE table_type = 'BASE TABLE' \
             AND table_schema NOT IN ('mysql','sys','information_schema','performance_schema')",
        )
        .await
        .map_err(|e| statement_error("read the tables' names", e))?;
    Ok(rows.into_iter().map(|(db, table)| TableName { db, table }).collect())
}

/// Reads every base table for which `wanted` is true. `id` and `version` are 0: the caller numbers them.
pub async fn read_tables(
    conn: &mut Conn,
    server: &Server,
    wanted: impl Fn(&TableName) -> bool,
) -> Result<BTreeMap<TableName, Described>, CaptureError> {
    let fail = |e| statement_error("read the tables' definitions", e);
    let names: HashSet<TableName> = list_tables(conn).await?.into_iter().filter(&wanted).collect();
    let mut out = BTreeMap::new();
    if names.is_empty() {
        return Ok(out);
    }
    let filter = name_filter(&names);
    let json_columns = json_columns(conn, server, &filter).await?;
    let keys = read_keys(conn, &filter).await?;
    let visible = if server.mariadb { "''" } else { "extra" };
    let sql = format!(
        "SELECT CAST(table_schema AS CHAR CHARACTER SET utf8mb4), CAST(table_name AS CHAR CHARACTER SET utf8mb4), \
         CAST(column_name AS CHAR CHARACTER SET utf8mb4), CAST(column_type AS CHAR CHARACTER SET utf8mb4), \
         CAST(data_type AS CHAR CHARACTER SET utf8mb4), is_nullable, character_set_name, collation_name, \
         CAST(extra AS CHAR CHARACTER SET utf8mb4), character_maximum_length, {visible}, \
         CAST(column_default AS CHAR CHARACTER SET utf8mb4) \
         FROM information_schema.columns WHERE {filter} ORDER BY table_schema, table_name, ordinal_position"
    );
    let rows: Vec<Row> = conn.query(sql).await.map_err(fail)?;
    for row in rows {
        let text = |index: usize| row.get::<Option<String>, _>(index).flatten().unwrap_or_default();
        let name = TableName { db: text(0), table: text(1) };
        if !names.contains(&name) {
            continue;
        }
        let entry = out.entry(name.clone()).or_insert_with(|| {
            let (columns, key, unique_keys) = (Vec::new(), Vec::new(), Vec::new());
            let table = Table { id: 0, version: 0, name, columns, key, unique_keys };
            Ok(Live { table, fills: Vec::new() })
        });
        let Ok(Live { table, fills }) = entry else { continue };
        let column_name = text(2);
        let is_json = json_columns.contains(&(table.name.clone(), column_name.clone()));
        let chars_max = row.get::<Option<u64>, _>(9).flatten();
        match mysql::column_type(&text(3), &text(4), chars_max, is_json, server.flavor()) {
            Ok(ty) => {
                let extra = text(8).to_ascii_uppercase();
                let charset = row.get::<Option<String>, _>(6).flatten();
                let default = row.get::<Option<String>, _>(11).flatten();
                // MariaDB writes the absence of a default as NULL.
                let has_default = default.is_some_and(|text| text != "NULL");
                fills.push(has_default || text(5) != "YES" || generated(&extra) != Generated::No);
                table.columns.push(Column {
                    charset: charset.filter(|_| !matches!(ty, ColumnType::Json)),
                    collation: row.get::<Option<String>, _>(7).flatten(),
                    sql_type: text(3),
                    nullable: text(5) == "YES",
                    generated: generated(&extra),
                    invisible: extra.contains("INVISIBLE"),
                    name: column_name,
                    ty,
                });
            }
            Err(error) => *entry = Err(format!("column `{column_name}`: {error}")),
        }
    }
    for (name, described) in &mut out {
        if let Ok(Live { table, .. }) = described {
            apply_keys(table, keys.get(name).map_or(&[][..], Vec::as_slice));
        }
    }
    Ok(out)
}

fn generated(extra: &str) -> Generated {
    if extra.contains("VIRTUAL") {
        Generated::Virtual
    } else if extra.contains("STORED GENERATED") || extra.contains("PERSISTENT") {
        Generated::Stored
    } else {
        Generated::No
    }
}

/// Narrows the reads to the databases at hand; names are compared exactly afterwards.
fn name_filter(names: &HashSet<TableName>) -> String {
    let databases: HashSet<&str> = names.iter().map(|n| n.db.as_str()).collect();
    let list: Vec<String> = databases.iter().map(|db| quote_text(db)).collect();
    let mut filter = format!("table_schema IN ({})", list.join(","));
    if names.len() <= 32 {
        let tables: HashSet<&str> = names.iter().map(|n| n.table.as_str()).collect();
        let list: Vec<String> = tables.iter().map(|t| quote_text(t)).collect();
        filter.push_str(&format!(" AND table_name IN ({})", list.join(",")));
    }
    filter
}

/// A string literal that no content can leave, whatever the sql_mode says of backslashes: hexadecimal.
pub fn quote_text(text: &str) -> String {
    let digits: String = text.bytes().map(|b| format!("{b:02X}")).collect();
    format!("_utf8mb4 X'{digits}'")
}

/// `` `name` `` with backticks doubled.
pub fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// MariaDB keeps JSON as LONGTEXT with a check that names the column.
async fn json_columns(
    conn: &mut Conn,
    server: &Server,
    filter: &str,
) -> Result<HashSet<(TableName, String)>, CaptureError> {
    if !server.mariadb {
        return Ok(HashSet::new());
    }
    let filter = filter.replace("table_schema", "constraint_schema");
    let sql = format!(
        "SELECT constraint_schema, table_name, check_clause FROM information_schema.check_constraints \
         WHERE {filter} AND check_clause LIKE 'json_valid(%'"
    );
    let rows: Vec<(String, String, String)> =
        conn.query(sql).await.map_err(|e| statement_error("read check constraints", e))?;
    Ok(rows
        .into_iter()
        .filter_map(|(db, table, clause)| {
            let column = clause.strip_prefix("json_valid(`")?.strip_suffix("`)")?.replace("``", "`");
            Some((TableName { db, table }, column))
        })
        .collect())
}

struct Key {
    name: String,
    columns: Vec<String>,
    /// Whether it can name a row: no nullable, prefixed or computed part.
    whole: bool,
}

async fn read_keys(conn: &mut Conn, filter: &str) -> Result<HashMap<TableName, Vec<Key>>, CaptureError> {
    let sql = format!(
        "SELECT CAST(table_schema AS CHAR CHARACTER SET utf8mb4), CAST(table_name AS CHAR CHARACTER SET utf8mb4), \
         CAST(index_name AS CHAR CHARACTER SET utf8mb4), CAST(column_name AS CHAR CHARACTER SET utf8mb4), \
         nullable, sub_part FROM information_schema.statistics \
         WHERE {filter} AND non_unique = 0 ORDER BY table_schema, table_name, index_name, seq_in_index"
    );
    let rows: Vec<Row> = conn.query(sql).await.map_err(|e| statement_error("read the tables' keys", e))?;
    let mut out: HashMap<TableName, Vec<Key>> = HashMap::new();
    for row in rows {
        let text = |index: usize| row.get::<Option<String>, _>(index).flatten();
        let name = TableName { db: text(0).unwrap_or_default(), table: text(1).unwrap_or_default() };
        let index = text(2).unwrap_or_default();
        let keys = out.entry(name).or_default();
        if keys.last().is_none_or(|key| key.name != index) {
            keys.push(Key { name: index, columns: Vec::new(), whole: true });
        }
        let key = keys.last_mut().expect("pushed above");
        let column = text(3);
        let prefixed = row.get::<Option<u64>, _>(5).flatten().is_some();
        key.whole &= column.is_some() && !prefixed && text(4).as_deref() != Some("YES");
        key.columns.extend(column);
    }
    Ok(out)
}

/// The primary key, else the first unique key that can name a row; the rest are kept as unique keys.
fn apply_keys(table: &mut Table, keys: &[Key]) {
    let indexes = |table: &Table, key: &Key| -> Vec<usize> {
        key.columns.iter().filter_map(|name| table.column_index(name)).collect()
    };
    let chosen = keys
        .iter()
        .position(|key| key.name == "PRIMARY" && key.whole)
        .or_else(|| keys.iter().position(|key| key.whole));
    if let Some(chosen) = chosen {
        table.key = indexes(table, &keys[chosen]);
    }
    table.unique_keys = keys
        .iter()
        .enumerate()
        .filter(|(index, key)| Some(*index) != chosen && key.whole)
        .map(|(_, key)| indexes(table, key))
        .collect();
}
