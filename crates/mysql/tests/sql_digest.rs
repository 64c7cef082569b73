//! Digest texts, judged by the servers whose they are: every statement of `sql/corpus.sql` is put to a real MySQL and a
//! real TiDB.
//!
//! A paragraph of the corpus is a statement. Lines in front of it say where a server cannot be asked, or disagrees, and why:
//! `--: no mysql: reason`, `--: no tidb: reason`. The tests hold these lines to be true as well.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use mysql::sql::{Dialect, Modes, digest_text};
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions, TiDb, TiDbOptions};

/// A statement, and why a server has no say.
struct Case {
    sql: String,
    no_mysql: Option<String>,
    no_tidb: Option<String>,
}

fn corpus() -> Vec<Case> {
    let text = include_str!("sql/corpus.sql");
    text.split("\n\n")
        .filter(|paragraph| !paragraph.trim().is_empty())
        .map(|paragraph| {
            let mut case = Case { sql: String::new(), no_mysql: None, no_tidb: None };
            for line in paragraph.trim_matches('\n').split('\n') {
                if let Some(reason) = line.strip_prefix("--: no mysql: ") {
                    case.no_mysql = Some(reason.to_owned());
                } else if let Some(reason) = line.strip_prefix("--: no tidb: ") {
                    case.no_tidb = Some(reason.to_owned());
                } else {
                    let separator = if case.sql.is_empty() { "" } else { "\n" };
                    case.sql = format!("{}{separator}{line}", case.sql);
                }
            }
            case
        })
        .collect()
}

fn digest(sql: &str, dialect: Dialect) -> String {
    let mut out = String::new();
    digest_text(sql.as_bytes(), &mut out, Modes { dialect, ..Modes::default() });
    out
}

/// Compares our answers with a server's, and prints every difference before it fails.
fn judge(answers: Vec<(Case, String, Option<String>)>, excuse: fn(&Case) -> &Option<String>) {
    let (mut equal, mut excused, mut wrong) = (0, 0, Vec::new());
    for (case, ours, theirs) in answers {
        match (excuse(&case), theirs.as_deref() == Some(ours.as_str())) {
            (None, true) => equal += 1,
            (Some(_), false) => excused += 1,
            (None, false) => wrong.push(format!("{}\n  ours:   {ours}\n  theirs: {theirs:?}", case.sql)),
            (Some(reason), true) => wrong.push(format!("{}\n  is equal, but excused: {reason}", case.sql)),
        }
    }
    println!("{equal} equal, {excused} excused");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(equal > 400, "the corpus has shrunk: {equal}");
}

#[tokio::test]
async fn mysql_writes_the_same_text() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    server.exec("create database shop").await.unwrap();
    let mut conn = server.conn().await.unwrap();
    conn.query_drop("use shop").await.unwrap();
    let mut answers = Vec::new();
    for case in corpus() {
        let theirs: Result<Option<String>, _> =
            conn.exec_first("select statement_digest_text(?)", (&case.sql,)).await;
        answers.push((digest(&case.sql, Dialect::MySql), theirs.ok().flatten(), case));
    }
    let answers = answers.into_iter().map(|(ours, theirs, case)| (case, ours, theirs)).collect();
    judge(answers, |case| &case.no_mysql);
}

#[tokio::test]
async fn tidb_has_the_same_digest() {
    let server = TiDb::start(TiDbOptions::default()).await.unwrap();
    let mut conn = server.conn().await.unwrap();
    let mut answers = Vec::new();
    for case in corpus() {
        let ours = digest(&case.sql, Dialect::TiDb);
        let (theirs, hash): (Option<String>, Option<String>) = conn
            .exec_first("select tidb_encode_sql_digest(?), sha2(?, 256)", (&case.sql, &ours))
            .await
            .unwrap()
            .unwrap();
        answers.push((case, hash.unwrap(), theirs.map(|it| format!("{it} of {ours}"))));
    }
    let answers = answers
        .into_iter()
        .map(|(case, hash, theirs)| {
            let (theirs, text) = theirs.map_or((None, String::new()), |it| {
                let (hash, text) = it.split_once(" of ").unwrap();
                (Some(hash.to_owned()), text.to_owned())
            });
            let is_equal = theirs.as_deref() == Some(hash.as_str());
            let theirs = if is_equal { Some(text.clone()) } else { theirs };
            (case, text, theirs)
        })
        .collect();
    judge(answers, |case| &case.no_tidb);
}
