//! Snapshot image = stream image = what the server itself prints, for every type and its edges; and every SQL sink
//! holds exactly that.

mod charsets;
mod columns;
mod images;
mod keys;
mod seeded;
mod settings;

use crate::node::{Node, mysql_source};
use columns::{Kind, Spec, hex, loose_document};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::Value;
use std::path::Path;
use testkit::SqlServer;

/// A session that stores what strict ones refuse, in UTC.
pub async fn session(server: &SqlServer) -> Conn {
    let mut conn = server.conn().await.unwrap();
    for sql in ["SET NAMES utf8mb4", "SET time_zone = '+00:00'", "SET sql_mode = 'ALLOW_INVALID_DATES'"] {
        conn.query_drop(sql).await.unwrap();
    }
    conn
}

pub async fn run(conn: &mut Conn, sql: &str) {
    if let Err(error) = conn.query_drop(sql).await {
        panic!("{error}: {}", sql.chars().take(2000).collect::<String>());
    }
}

/// One table under test: `id INT`, then columns `c0`, `c1` …
#[derive(Clone, Debug)]
pub struct Wide {
    pub name: &'static str,
    pub specs: Vec<Spec>,
    pub keyed: bool,
}

impl Wide {
    pub fn create(&self) -> String {
        let columns: Vec<String> =
            self.specs.iter().enumerate().map(|(n, spec)| format!("c{n} {} NULL", spec.ty)).collect();
        let key = if self.keyed { "PRIMARY KEY" } else { "" };
        format!(
            "CREATE TABLE shop.{} (id INT {key}, {}) CHARACTER SET utf8mb4",
            self.name,
            columns.join(", ")
        )
    }

    /// As many rows as the column with the most values has, and one of NULLs.
    pub fn rows(&self) -> usize {
        self.specs.iter().map(|spec| spec.values.len()).max().unwrap() + 1
    }

    fn value(&self, row: usize, column: usize) -> &str {
        let values = &self.specs[column].values;
        if row + 1 == self.rows() { "NULL" } else { &values[row % values.len()] }
    }

    pub fn insert(&self, row: usize, id: usize) -> String {
        let values: Vec<&str> = (0..self.specs.len()).map(|c| self.value(row, c)).collect();
        format!("INSERT INTO shop.{} VALUES ({id}, {})", self.name, values.join(", "))
    }

    pub fn update(&self, row: usize, id: usize) -> String {
        let sets: Vec<String> =
            (0..self.specs.len()).map(|c| format!("c{c} = {}", self.value(row, c))).collect();
        format!("UPDATE shop.{} SET {} WHERE id = {id}", self.name, sets.join(", "))
    }

    /// Every row as the server prints it, by id.
    pub async fn printed(&self, conn: &mut Conn, db: &str) -> Vec<Vec<Option<String>>> {
        let list: Vec<String> =
            self.specs.iter().enumerate().map(|(n, spec)| spec.print(&format!("c{n}"))).collect();
        let sql = format!("SELECT id, {} FROM {db}.{} ORDER BY id", list.join(", "), self.name);
        let rows: Vec<mysql_async::Row> = conn.exec(sql, ()).await.unwrap();
        rows.into_iter().map(|row| self.texts(&row)).collect()
    }

    fn texts(&self, row: &mysql_async::Row) -> Vec<Option<String>> {
        let text = |index: usize| match &row[index] {
            mysql_async::Value::NULL => None,
            mysql_async::Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            mysql_async::Value::Float(number) => Some(f64::from(*number).to_string()),
            mysql_async::Value::Double(number) => Some(number.to_string()),
            other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
        };
        let columns = self.specs.iter().enumerate().map(|(n, spec)| spec.printed(text(n + 1)));
        std::iter::once(text(0)).chain(columns).collect()
    }

    /// Every row of a SQLite file, in the same form.
    pub fn in_file(&self, path: &Path) -> Vec<Vec<Option<String>>> {
        let db = rusqlite::Connection::open(path).unwrap();
        let list: Vec<String> = (0..self.specs.len()).map(|n| format!("c{n}")).collect();
        let sql = format!("SELECT id, {} FROM {} ORDER BY id", list.join(", "), self.name);
        let mut query = db.prepare(&sql).unwrap();
        let rows = query.query_map([], |row| {
            let id = row.get::<_, i64>(0)?.to_string();
            let columns = self.specs.iter().enumerate().map(|(n, spec)| {
                let value = row.get::<_, rusqlite::types::Value>(n + 1).unwrap();
                spec.in_file(value)
            });
            Ok(std::iter::once(Some(id)).chain(columns).collect())
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Printed rows with every document as `read` sees it.
    pub fn with_documents(&self, rows: &mut [Vec<Option<String>>], read: impl Fn(&str) -> Option<String>) {
        for row in rows {
            for (value, spec) in row[1..].iter_mut().zip(&self.specs) {
                if spec.kind == Kind::Json {
                    *value = value.take().and_then(|text| read(&text));
                }
            }
        }
    }

    /// Every difference between rows, a line each.
    pub fn differences(
        &self,
        what: &str,
        wanted: &[Vec<Option<String>>],
        found: &[Vec<Option<String>>],
    ) -> Vec<String> {
        let mut out = Vec::new();
        if wanted.len() != found.len() {
            let ids = |rows: &[Vec<Option<String>>]| {
                rows.iter().flat_map(|r| r[0].clone()).collect::<Vec<_>>().join(",")
            };
            out.push(format!("{what} {}: rows {} but {}", self.name, ids(wanted), ids(found)));
            return out;
        }
        for (a, b) in wanted.iter().zip(found) {
            for (index, (a_value, b_value)) in a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b) {
                let ty = if index == 0 { "id" } else { &self.specs[index - 1].ty };
                let short = |t: &Option<String>| format!("{t:?}").chars().take(120).collect::<String>();
                let id = a[0].as_deref().unwrap_or_default();
                let ty: String = ty.chars().take(60).collect();
                out.push(format!(
                    "{what} {} row {id} {ty}: {} but {}",
                    self.name,
                    short(a_value),
                    short(b_value)
                ));
            }
        }
        out
    }
}

/// Waits until the sources have captured so many changes, and every flow has delivered all of them; fails when a table
/// or a row is left out.
pub async fn delivered(node: &Node, sources: &[(&str, u64)]) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let lsn = |from: &Value| sources.iter().find(|(name, _)| from == name).map_or(0, |(_, lsn)| *lsn);
    let trouble = |s: &Value| {
        let tables = list(&s["sources"]).into_iter().filter(|at| !list(&at["quarantined"]).is_empty());
        let flows =
            list(&s["flows"]).into_iter().filter(|at| !at["error"].is_null() || at["dead_letters"] != 0);
        tables.chain(flows).collect::<Vec<_>>()
    };
    let status = node
        .wait("all is delivered", |s| {
            let sources_done = list(&s["sources"])
                .iter()
                .all(|at| at["snapshot"]["state"] == "done" && at["lsn"].as_u64() >= Some(lsn(&at["name"])));
            let captured = |from: &Value| {
                list(&s["sources"]).iter().find(|at| at["name"] == *from).and_then(|at| at["lsn"].as_u64())
            };
            let flows_done = list(&s["flows"]).iter().all(|at| at["lsn"].as_u64() >= captured(&at["from"]));
            !list(&s["flows"]).is_empty() && (sources_done && flows_done || !trouble(s).is_empty())
        })
        .await;
    let trouble = trouble(&status);
    let letters: Vec<String> = trouble
        .iter()
        .filter_map(|flow| flow["to"].as_str().and(flow["name"].as_str()))
        .map(|flow| node.run(&["flow", "dead-letters", flow]).1)
        .collect();
    assert!(trouble.is_empty(), "{trouble:#?}\n{letters:#?}\n{}", node.log());
}

/// A project that copies `shop` of each source into each sink under `from_SOURCE`, and into a file for each source.
pub fn project(sources: &[(&str, &SqlServer)], sinks: &[(&str, &str, &SqlServer)], options: &str) -> Node {
    let mut files = Vec::new();
    for (source, server) in sources {
        files.push((format!("sources/{source}.yaml"), mysql_source(&server.url(), "shop.*") + options));
        files.push((format!("sinks/{source}_file.yaml"), format!("kind: sqlite\npath: ./{source}.db\n")));
        files.push((format!("flows/{source}_file.yaml"), format!("from: {source}\nto: {source}_file\n")));
        for (sink, _, _) in sinks {
            let flow = format!("from: {source}\nto: {sink}\nroute: {{\"shop.*\": \"from_{source}.*\"}}\n");
            files.push((format!("flows/{source}_{sink}.yaml"), flow));
        }
    }
    for (sink, kind, server) in sinks {
        files.push((format!("sinks/{sink}.yaml"), format!("kind: {kind}\nurl: {}\n", server.url())));
    }
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    Node::new(&files)
}

/// Compares every sink with the source.
pub async fn sinks_agree(
    node: &Node,
    source: (&str, &SqlServer),
    tables: &[Wide],
    sinks: &[(&str, &str, &SqlServer)],
) -> Vec<String> {
    let mut out = Vec::new();
    let mut there = session(source.1).await;
    let mut sessions = Vec::new();
    for (_, _, sink) in sinks {
        sessions.push(session(sink).await);
    }
    for table in tables {
        let wanted = table.printed(&mut there, "shop").await;
        let found = table.in_file(&node.path(&format!("{}.db", source.0)));
        out.extend(table.differences(&format!("{} in the file", source.0), &wanted, &found));
        for ((name, kind, _), conn) in sinks.iter().zip(&mut sessions) {
            let (mut wanted, mut copy) = (wanted.clone(), table.clone());
            if *kind == "tidb" {
                let vectors = copy.specs.iter_mut().filter(|spec| spec.kind == Kind::Vector);
                vectors.for_each(|spec| spec.kind = Kind::VectorText);
            }
            let mut found = copy.printed(conn, &format!("from_{}", source.0)).await;
            if *kind == "tidb" {
                for rows in [&mut wanted, &mut found] {
                    table.with_documents(rows, |text| Some(loose_document(text)));
                }
            }
            out.extend(table.differences(&format!("{} in {name}", source.0), &wanted, &found));
        }
    }
    out
}

pub fn settle(mut differences: Vec<String>) {
    let count = differences.len();
    differences.truncate(60);
    assert!(differences.is_empty(), "{count} differences:\n{}", differences.join("\n"));
}
