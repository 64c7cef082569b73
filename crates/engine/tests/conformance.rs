//! The dialect, judged by real servers: every statement of `statements/*.sql` runs on MySQL, on TiDB and on SQLite, and the
//! answers must be equal: rows as MySQL prints them, names and types of columns, errors by number.
//!
//! A statement ends with `;` at the end of a line. The comment before it says what it is, where it is no part of the dialect:
//! `-- refused` (we refuse it, though both servers answer alike), `-- differs` (MySQL and TiDB do not answer alike: we
//! refuse it, or answer as MySQL does) and `-- as tidb` (they do not answer alike, and we answer as TiDB does). All lists are
//! checked: a statement that leaves its list fails the test too. Rows of a query without ORDER BY are compared in any order.
//! DOUBLEs are compared to the bit, but for one unit in the last place where a statement says `-- last bit`, and only there.

use anyhow::{Context, Result, bail};
use base::{Column, ColumnType, Value};
use engine::{Engine, EngineError, MySql, Options, Sqlite, cell_text};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Rows of one answer.
const ROWS_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Rows {
        columns: Vec<(String, &'static str)>,
        rows: Vec<Vec<Option<String>>>,
    },
    Done,
    /// By MySQL's number.
    Error(u16, String),
    Refused(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Equal,
    LastBit,
    Refused,
    Differs,
    AsTiDb,
    Wrong,
}

#[derive(Clone, Debug)]
struct Statement {
    line: usize,
    sql: String,
    note: String,
}

fn statements(text: &str) -> Result<Vec<Statement>> {
    let mut all = Vec::new();
    let (mut sql, mut note, mut line) = (String::new(), String::new(), 0);
    for (number, text) in text.lines().enumerate() {
        if sql.is_empty() {
            if let Some(comment) = text.strip_prefix("--") {
                note = comment.trim().to_owned();
                continue;
            }
            if text.trim().is_empty() {
                note.clear();
                continue;
            }
            line = number + 1;
        } else {
            sql.push('\n');
        }
        sql.push_str(text);
        if let Some(whole) = sql.strip_suffix(';') {
            all.push(Statement { line, sql: whole.to_owned(), note: std::mem::take(&mut note) });
            sql.clear();
        }
    }
    if !sql.is_empty() {
        bail!("the statement of line {line} has no `;` at its end");
    }
    Ok(all)
}

fn class(column: &Column) -> &'static str {
    match column.ty {
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. }
        | ColumnType::Bit { .. }
        // YEAR(d) is a YEAR on one server and an integer on the other; both print four digits.
        | ColumnType::Year => "integer",
        ColumnType::Decimal { .. } => "decimal",
        ColumnType::Float => "float",
        ColumnType::Double => "double",
        ColumnType::Date => "date",
        ColumnType::Time { .. } => "time",
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => "datetime",
        ColumnType::Binary { .. } | ColumnType::VarBinary { .. } => "bytes",
        ColumnType::Json => "json",
        _ => "text",
    }
}

fn is_query(sql: &str) -> bool {
    let head = sql.trim_start_matches(['(', ' ', '\n']).to_lowercase();
    head.starts_with("select") || head.starts_with("with")
}

async fn ask(engine: &dyn Engine, sql: &str) -> Answer {
    match answer(engine, sql).await {
        Ok(answer) => answer,
        Err(EngineError::Sql { number, message, .. }) => Answer::Error(number, message),
        Err(EngineError::Refused { message, .. }) => Answer::Refused(message),
        Err(other) => Answer::Error(0, other.to_string()),
    }
}

async fn answer(engine: &dyn Engine, sql: &str) -> Result<Answer, EngineError> {
    if !is_query(sql) {
        engine.execute(sql).await?;
        return Ok(Answer::Done);
    }
    let result = engine.query(sql).await?;
    let columns = result.columns.clone();
    let rows: Vec<Vec<Value>> = result.all(ROWS_MAX).await?;
    let texts = |row: &Vec<Value>| row.iter().zip(&columns).map(|(v, c)| cell_text(v, c)).collect();
    let mut rows: Vec<Vec<Option<String>>> = rows.iter().map(texts).collect();
    if !sql.to_lowercase().contains("order by") {
        rows.sort();
    }
    Ok(Answer::Rows { columns: columns.iter().map(|it| (it.name.clone(), class(it))).collect(), rows })
}

/// Names as people tell them apart.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !c.is_whitespace() && *c != '`').flat_map(char::to_lowercase).collect()
}

/// Errors that mean the same where one server is more exact than the other.
fn kind(number: u16) -> u16 {
    match number {
        // Values that do not convert.
        1265 | 1292 | 1366 => 1292,
        // Names of functions and their arguments.
        1582 | 1305 | 1128 => 1064,
        // Not in GROUP BY, with and without one; with DISTINCT.
        1055 | 8123 | 1140 | 3065 => 1055,
        // Integers and columns out of range.
        1264 | 1690 => 1690,
        other => other,
    }
}

fn same(one: &Answer, other: &Answer, last_bit: bool) -> bool {
    match (one, other) {
        (Answer::Rows { columns: a, rows: x }, Answer::Rows { columns: b, rows: y }) => {
            let names = a.len() == b.len()
                && a.iter().zip(b).all(|((name, ty), (other, wanted))| {
                    plain(name) == plain(other)
                        && (ty == wanted || is_empty(x, name, a) || is_empty(y, other, b))
                });
            names && x.len() == y.len() && x.iter().zip(y).all(|(p, q)| same_row(p, q, last_bit))
        }
        (Answer::Error(a, _), Answer::Error(b, _)) => kind(*a) == kind(*b),
        (Answer::Done, Answer::Done) => true,
        _ => false,
    }
}

/// A column of NULLs alone has a type that nobody sees.
fn is_empty(rows: &[Vec<Option<String>>], name: &str, columns: &[(String, &'static str)]) -> bool {
    let at = columns.iter().position(|(known, _)| known == name).unwrap_or(0);
    !rows.is_empty() && rows.iter().all(|row| row.get(at).is_none_or(Option::is_none))
}

fn same_row(one: &[Option<String>], other: &[Option<String>], last_bit: bool) -> bool {
    one.iter().zip(other).all(|(a, b)| match (a, b) {
        (Some(a), Some(b)) if last_bit && a != b => match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.to_bits().abs_diff(b.to_bits()) <= 2,
            _ => false,
        },
        _ => a == b,
    })
}

fn judge(statement: &Statement, mysql: &Answer, tidb: &Answer, ours: &Answer) -> (Verdict, bool) {
    let last_bit = statement.note == "last bit";
    let servers_agree = same(mysql, tidb, last_bit);
    // What is not read at all is refused too: nobody gets another answer.
    let refused = matches!(ours, Answer::Refused(_)) || is_syntax(ours) && !is_syntax(mysql);
    if !servers_agree {
        return if refused || same(mysql, ours, last_bit) {
            (Verdict::Differs, statement.note == "differs")
        } else if same(tidb, ours, last_bit) {
            (Verdict::AsTiDb, statement.note == "as tidb")
        } else {
            (Verdict::Wrong, false)
        };
    }
    if refused {
        return (Verdict::Refused, statement.note == "refused");
    }
    if !same(mysql, ours, last_bit) {
        return (Verdict::Wrong, false);
    }
    if last_bit {
        let needed = !same(mysql, tidb, false) || !same(mysql, ours, false);
        return (Verdict::LastBit, needed);
    }
    (Verdict::Equal, !["refused", "differs", "as tidb"].contains(&statement.note.as_str()))
}

fn is_syntax(answer: &Answer) -> bool {
    matches!(answer, Answer::Error(1064, _))
}

fn shown(answer: &Answer) -> String {
    let mut text = format!("{answer:?}");
    text.truncate(text.char_indices().nth(600).map_or(text.len(), |(at, _)| at));
    text
}

fn files() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/statements");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_tidb_and_sqlite_answer_alike() -> Result<()> {
    let (mysql, tidb) = tokio::try_join!(
        testkit::MySql::start(testkit::MySqlOptions::default()),
        testkit::TiDb::start(testkit::TiDbOptions::default())
    )?;
    let folder = tempfile::tempdir()?;
    let mut count: BTreeMap<Verdict, usize> = BTreeMap::new();
    let (mut problems, mut unlisted) = (String::new(), 0);
    for path in files()? {
        let name = path.file_stem().context("no name")?.to_string_lossy().into_owned();
        let made = format!("create database `{name}` character set utf8mb4 collate utf8mb4_0900_ai_ci");
        mysql.exec(&made).await?;
        tidb.exec(&made).await?;
        let servers = [
            MySql::open(&format!("{}/{name}", mysql.url()), Options::default()).await?,
            MySql::open(&format!("{}/{name}", tidb.url()), Options::default()).await?,
        ];
        let own = Sqlite::open(&folder.path().join(&name), Options::default()).await?;
        for statement in statements(&std::fs::read_to_string(&path)?).with_context(|| name.clone())? {
            let ours = ask(&own, &statement.sql).await;
            let answers = [ask(&servers[0], &statement.sql).await, ask(&servers[1], &statement.sql).await];
            let (verdict, listed) = judge(&statement, &answers[0], &answers[1], &ours);
            *count.entry(verdict).or_default() += 1;
            if !listed {
                unlisted += 1;
                writeln!(
                    problems,
                    "{name}.sql:{} {verdict:?}: {}\n  mysql  {}\n  tidb   {}\n  sqlite {}",
                    statement.line,
                    statement.sql,
                    shown(&answers[0]),
                    shown(&answers[1]),
                    shown(&ours)
                )?;
            }
        }
    }
    let total: usize = count.values().sum();
    println!("{total} statements: {count:?}");
    if unlisted > 0 {
        bail!("{unlisted} of {total} statements are not what their file says ({count:?}):\n{problems}");
    }
    Ok(())
}
