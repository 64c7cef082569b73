//! Digest texts, judged by the servers whose they are: every statement of `sql/corpus.sql` is put to a real MySQL and a
//! real TiDB.
//!
//! A paragraph of the corpus is a statement. Lines in front of it say where a server cannot be asked, or disagrees, and why:
//! `--: no mysql: reason`, `--: no tidb: reason`. The tests hold these lines to be true as well.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use std::collections::HashSet;

use mysql::sql::{Dialect, Modes, digest_text};
use testkit::mysql_async::Conn;
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

fn digest(sql: &str, dialect: Dialect, server_version: u32) -> String {
    let mut out = String::new();
    digest_text(sql.as_bytes(), &mut out, Modes { dialect, server_version, ..Modes::default() });
    out
}

/// Compares our answers with a server's, and prints every difference before it fails.
fn judge(answers: Vec<(String, Option<String>, Case)>, excuse: fn(&Case) -> &Option<String>) {
    let (mut equal, mut excused, mut wrong) = (0, 0, Vec::new());
    for (ours, theirs, case) in answers {
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

/// The text of a statement with `?`, which `STATEMENT_DIGEST_TEXT()` does not take: the server notes it when the statement
/// is prepared, also when it refuses it for want of tables.
async fn prepared(conn: &mut Conn, sql: &str) -> Option<String> {
    let _refused_or_not = conn.prep(sql).await;
    let noted = "select digest_text from performance_schema.events_statements_history where \
                 thread_id = ps_current_thread_id() and event_name = 'statement/com/Prepare' order by event_id desc limit 1";
    let text = conn.query_first::<Option<String>, _>(noted).await.unwrap().flatten()?;
    // So the summary tells the preparing of a statement from its execution.
    Some(text.strip_prefix("PREPARE ").unwrap().to_owned())
}

#[tokio::test]
async fn mysql_writes_the_same_text() {
    let options =
        MySqlOptions { args: vec!["--performance-schema=ON".to_owned()], ..MySqlOptions::default() };
    let server = MySql::start(options).await.unwrap();
    server.exec("create database shop").await.unwrap();
    let mut conn = server.conn().await.unwrap();
    conn.query_drop("use shop").await.unwrap();
    let (major, minor, patch) = conn.server_version();
    let version = u32::from(major) * 10_000 + u32::from(minor) * 100 + u32::from(patch);
    let mut answers = Vec::new();
    for case in corpus() {
        let asked = "select statement_digest_text(?)";
        let theirs = match conn.exec_first(asked, (&case.sql,)).await {
            Ok(theirs) => theirs.flatten(),
            Err(_) => prepared(&mut conn, &case.sql).await,
        };
        answers.push((digest(&case.sql, Dialect::MySql, version), theirs, case));
    }
    judge(answers, |case| &case.no_mysql);
}

#[tokio::test]
async fn tidb_has_the_same_digest() {
    let server = TiDb::start(TiDbOptions::default()).await.unwrap();
    let mut conn = server.conn().await.unwrap();
    let mut answers = Vec::new();
    for case in corpus() {
        let ours = digest(&case.sql, Dialect::TiDb, 0);
        let asked = "select tidb_encode_sql_digest(?), sha2(?, 256)";
        let (theirs, hash): (String, String) =
            conn.exec_first(asked, (&case.sql, &ours)).await.unwrap().unwrap();
        // TiDB tells the hash only: where it is that of our text, the texts are equal.
        let theirs = if theirs == hash { ours.clone() } else { theirs };
        answers.push((ours, Some(theirs), case));
    }
    judge(answers, |case| &case.no_tidb);
}

/// Pieces of statements that make the two lexers choose, joined at random.
const PIECES: &[&str] = &[
    "select",
    "SELECT",
    "insert",
    "values",
    "in",
    "IN(",
    "null",
    "is",
    "not",
    "index",
    "use",
    "force",
    "ignore",
    "order by",
    "group by",
    "by",
    "straight_join",
    "count(",
    "count (",
    "now(",
    "substr(",
    "cast",
    "a",
    "B",
    "`c`",
    "`D``e`",
    "t.",
    ".u",
    ".",
    ",",
    ", ",
    "(",
    ")",
    "1",
    "2.5",
    "3.",
    ".4",
    "5e6",
    "7e",
    "8x",
    "0x1F",
    "0xg",
    "0b1",
    "0B1",
    "x'1f'",
    "x'1",
    "b'01'",
    "N'n'",
    "n",
    "'s'",
    "'it''s'",
    "'it\\'s'",
    "\"d\"",
    "'",
    "\"",
    "`",
    "@v",
    "@'w'",
    "@`x`",
    "@@y",
    "@@global.z",
    "@@SESSION.`q`",
    "@",
    "@@",
    "?",
    "-",
    "--",
    "-- c\n",
    "#d\n",
    "/*",
    "*/",
    "/* e */",
    "/*! f */",
    "/*!50000",
    "/*!8",
    "/*+ g */",
    "/*T! h */",
    "/*T![ttl] i */",
    "/*T![no] j */",
    "/*M! k */",
    "/**/",
    "/***/",
    "+",
    "*",
    "/",
    "=",
    "<",
    ">",
    "<=>",
    "<>",
    "!=",
    ":=",
    "->",
    "->>",
    "&&",
    "||",
    "&^",
    "_utf8mb4",
    "_latin1'l'",
    "_no",
    "\\N",
    "\\",
    ";",
    "$",
    "é",
    "É",
    "[",
    "{",
    "~",
    "\u{1}",
    "\t",
    "\n",
    "true",
    "row(",
    "limit",
    "date",
    "user",
    "status",
    "Value",
];

#[tokio::test]
async fn tidb_has_the_same_digest_of_nonsense() {
    let server = TiDb::start(TiDbOptions::default()).await.unwrap();
    let mut conn = server.conn().await.unwrap();
    let mut state: u64 = 20_261_127;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut wrong, mut texts) = (Vec::new(), HashSet::new());
    for _ in 0..4000 {
        let mut sql = String::new();
        for _ in 0..1 + next(12) {
            sql.push_str(PIECES[next(PIECES.len())]);
            sql.push_str(["", " ", " ", " "][next(4)]);
        }
        let ours = digest(&sql, Dialect::TiDb, 0);
        let asked = "select tidb_encode_sql_digest(?), sha2(?, 256)";
        let (theirs, hash): (String, String) = conn.exec_first(asked, (&sql, &ours)).await.unwrap().unwrap();
        if theirs != hash {
            wrong.push(format!("{sql:?}\n  ours: {ours:?}"));
        }
        texts.insert(ours);
    }
    assert!(texts.len() > 2000, "most of it ends before it begins: {}", texts.len());
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn mysql_notes_what_is_prepared_and_executed_behind_that_word() {
    let options =
        MySqlOptions { args: vec!["--performance-schema=ON".to_owned()], ..MySqlOptions::default() };
    let server = MySql::start(options).await.unwrap();
    let mut conn = server.conn().await.unwrap();
    let sql = "select ? + 1, 'x'";
    let _row: Option<(i64, String)> = conn.exec_first(sql, (1,)).await.unwrap();
    let ours = digest(sql, Dialect::MySql, 0);
    for (event, word) in [("Prepare", "PREPARE"), ("Execute", "EXECUTE")] {
        let noted = format!(
            "select digest_text from performance_schema.events_statements_history where \
             thread_id = ps_current_thread_id() and event_name = 'statement/com/{event}'"
        );
        let theirs: Option<String> = conn.query_first(noted).await.unwrap();
        assert_eq!(theirs, Some(format!("{word} {ours}")));
    }
}
