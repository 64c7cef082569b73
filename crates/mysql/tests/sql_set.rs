//! SET statements of literals, and what they do to a real session.

use mysql::sql::{Modes, Scope, parse_assigned, parse_set};
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions};

/// `scope name value` of each assignment.
fn parsed(sql: &str) -> Option<Vec<String>> {
    let assignments = parse_set(sql.as_bytes(), Modes::default())?;
    let shown = assignments.iter().map(|it| {
        let scope = match it.scope {
            Scope::Session => "session",
            Scope::NextTransaction => "next",
            Scope::User => "user",
        };
        format!("{scope} {} {}", it.name, &sql[it.value.start..it.value.end])
    });
    Some(shown.collect())
}

#[test]
fn what_is_set_is_told_whatever_it_is_set_to() {
    let told = |sql: &str| {
        let all = parse_assigned(sql.as_bytes(), Modes::default())?;
        let shown = all.iter().map(|one| {
            let value = if one.is_literal { &sql[one.whole.start..one.whole.end] } else { "?" };
            format!("{:?} {} {value}", one.scope, one.name)
        });
        Some(shown.collect::<Vec<_>>().join(" | "))
    };
    for (sql, expected) in [
        ("set a = 1", "Session a a = 1"),
        (
            "SET sql_mode=(SELECT CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')),time_zone='+00:00',NAMES utf8mb4 COLLATE utf8mb4_bin;",
            "Session sql_mode ? | Session time_zone time_zone='+00:00' | Session names NAMES utf8mb4 COLLATE utf8mb4_bin",
        ),
        ("set @@session.a = @@b + 1, @c = 'x'", "Session a ? | User c @c = 'x'"),
        ("set a = ?, session b = if(1, 2, 3)", "Session a ? | Session b ?"),
        ("set a = -1 + 2", "Session a ?"),
        ("set @a = now()", "User a ?"),
        (
            "set @@transaction_isolation = concat('SERI', 'ALIZABLE')",
            "NextTransaction transaction_isolation ?",
        ),
    ] {
        assert_eq!(told(sql).as_deref(), Some(expected), "{sql}");
    }
    for sql in [
        "set a = (@b := 1)",
        "set global a = 1 + 1",
        "set a = 1 + 1, @@global.b = 2",
        "set a = 1, global b = 1",
        "set role r",
        "set password = concat('a')",
        "set transaction read only",
        "set session transaction read only",
        "set a = 1, transaction read only",
        "set resource group g",
        "set a = (1",
        "set a = ",
        "set a = 1 + 1; select 1",
        "select 1",
    ] {
        assert_eq!(told(sql), None, "{sql}");
    }
}

#[test]
fn literals_for_this_session_are_told() {
    for (sql, expected) in [
        ("set autocommit = 0", "session autocommit 0"),
        ("SET AUTOCOMMIT:=ON;", "session autocommit ON"),
        ("set session sql_mode = 'ANSI'", "session sql_mode 'ANSI'"),
        ("set local time_zone = '+00:00'", "session time_zone '+00:00'"),
        ("set @@session.wait_timeout = 10", "session wait_timeout 10"),
        ("set @@local.`wait_timeout` = 10", "session wait_timeout 10"),
        ("set @@wait_timeout = default", "session wait_timeout default"),
        ("set character_set_results = null", "session character_set_results null"),
        ("set /* x */ a = -1.5 -- y", "session a -1.5"),
        ("set names utf8mb4", "session names utf8mb4"),
        ("set names 'gbk' collate gbk_bin", "session names 'gbk', session collate gbk_bin"),
        ("set names default", "session names default"),
        ("set character set latin1", "session character set latin1"),
        ("set charset 'latin1'", "session character set 'latin1'"),
        ("set @a = 1, @`B c` = 'x', @'d' := null", "user a 1, user b c 'x', user d null"),
        (
            "set a = 1, @b = 0x1f, names utf8mb4, session c = d",
            "session a 1, user b 0x1f, session names utf8mb4, session c d",
        ),
        ("set transaction read only", "next transaction_read_only read only"),
        (
            "set session transaction isolation level read committed, read write",
            "session transaction_isolation read committed, session transaction_read_only read write",
        ),
        ("set transaction isolation level serializable", "next transaction_isolation serializable"),
        ("set @@transaction_isolation = 'READ-COMMITTED'", "next transaction_isolation 'READ-COMMITTED'"),
        ("set transaction_isolation = 'READ-COMMITTED'", "session transaction_isolation 'READ-COMMITTED'"),
    ] {
        assert_eq!(parsed(sql).map(|it| it.join(", ")).as_deref(), Some(expected), "{sql}");
    }
}

#[test]
fn what_only_the_server_can_tell_is_not_told() {
    for sql in [
        "",
        "select 1",
        "set",
        "set a",
        "set a =",
        "set a = 1,",
        "set a = 1 + 1",
        "set a = 1; select 1",
        "set a = (1)",
        "set a = now()",
        "set a = b.c",
        "set a = ?",
        "set a = @b",
        "set a = @@b",
        "set a = 'x' 'y'",
        "set a = concat('x')",
        "set a = 'x' collate utf8mb4_bin",
        "set @a = b",
        "set @a = default",
        "set @a = @a + 1",
        "set @a = (select 1)",
        "set @ = 1",
        "set global a = 1",
        "set a = 1, global b = 2",
        "set @@global.a = 1",
        "set persist a = 1",
        "set @@persist.a = 1",
        "set a.b = 1",
        "set password = 'x'",
        "set role r",
        "set default role all to u",
        "set resource group g",
        "set statement a = 1 for select 1",
        "set global transaction read only",
        "set transaction isolation level read",
        "set transaction read only, a = 1",
        "set a = 1 /*! , b = 2 */",
        "set /*!99999 session */ a = 1",
        "set a = 'x",
        "set @'a\\'b' = 1",
        "set names",
        "set names utf8mb4 collate",
    ] {
        assert_eq!(parsed(sql), None, "{sql}");
    }
}

#[tokio::test]
async fn a_bare_system_variable_of_transactions_lasts_for_one() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    for (sql, scope) in [
        ("set @@transaction_isolation = 'READ-COMMITTED'", Scope::NextTransaction),
        ("set transaction_isolation = 'READ-COMMITTED'", Scope::Session),
        ("set @@session.transaction_isolation = 'READ-COMMITTED'", Scope::Session),
        ("set transaction isolation level read committed", Scope::NextTransaction),
        ("set session transaction isolation level read committed", Scope::Session),
    ] {
        assert_eq!(parse_set(sql.as_bytes(), Modes::default()).unwrap()[0].scope, scope, "{sql}");
        let mut conn = server.conn().await.unwrap();
        conn.query_drop(sql).await.unwrap();
        let level: Option<String> = conn.query_first("select @@session.transaction_isolation").await.unwrap();
        let is_session = level.as_deref() == Some("READ-COMMITTED");
        assert_eq!(is_session, scope == Scope::Session, "{sql}");
    }
}
