//! What a firewall asks of a statement: its shape, whether it is all that would run, and whether every server reads it so.

use mysql::sql::{Dialect, Kind, Modes, Scan, digest_text, scan, whole_digest_text};

fn look(sql: &str, dialect: Dialect) -> Scan {
    scan(sql.as_bytes(), Modes { dialect, ..Modes::default() })
}

#[test]
fn a_condition_counts_where_it_is_the_statements_own_and_names_something() {
    for sql in [
        "delete from t where id = 1",
        "DELETE t FROM t JOIN u ON t.a = u.a WHERE `b` > 1",
        "update t set a = 1 where id in (1, 2)",
        "update t set a = 1 where status",
        "with x as (select 1) delete from t where t.a in (select * from x)",
        "explain delete from t where lower(name) = 'x'",
        "/*! delete from t */ where id = 1",
        "delete from t where exists (select 1 from u)",
    ] {
        assert!(look(sql, Dialect::MySql).has_where, "{sql}");
    }
    for sql in [
        "delete from t",
        "delete from t where 1",
        "delete from t where 1 = 1",
        "delete from t where true",
        "delete from t where not null",
        "delete from t where sleep(0) = 0",
        "delete from t where @@port > 0",
        "delete from t where 'where id = 1'",
        "delete from t -- where id = 1",
        "delete from t /* where id = 1 */",
        "delete from `t where id = 1`",
        "update t, (select a from u where a = 1) x set t.a = x.a",
        "update t set a = (select max(b) from u where u.c = t.c)",
        "with x as (select a from u where a = 1) delete t from t join x",
        "delete from t order by id limit 10",
        "delete from t; select 1 from u where a = 1",
        "delete from t.where",
        "insert into t select * from u where a = 1",
    ] {
        assert!(!look(sql, Dialect::MySql).has_where, "{sql}");
    }
    assert!(look("batch on id limit 10 delete from t where a = 1", Dialect::TiDb).has_where);
    assert!(
        look("set statement max_statement_time = 1 for delete from t where a = 1", Dialect::MariaDb)
            .has_where
    );
}

#[test]
fn what_is_explained_or_wrapped_is_told() {
    for (sql, dialect, kind, main) in [
        ("explain analyze delete from t", Dialect::TiDb, Kind::Explain, Kind::Delete),
        ("trace format = 'row' delete from t", Dialect::TiDb, Kind::Explain, Kind::Delete),
        ("analyze delete from t", Dialect::MariaDb, Kind::Explain, Kind::Delete),
        ("explain select 1", Dialect::MySql, Kind::Explain, Kind::Select),
        ("explain t", Dialect::MySql, Kind::Describe, Kind::Describe),
        ("with x as (select 1) update t set a = 1", Dialect::MySql, Kind::Update, Kind::Update),
        (
            "set statement max_statement_time = 1 for delete from t",
            Dialect::MariaDb,
            Kind::Delete,
            Kind::Delete,
        ),
        ("batch on id limit 10 delete from t", Dialect::TiDb, Kind::Delete, Kind::Delete),
        ("", Dialect::MySql, Kind::Empty, Kind::Empty),
    ] {
        let seen = look(sql, dialect);
        assert_eq!((seen.kind, seen.main), (kind, main), "{sql}");
    }
}

#[test]
fn a_statement_within_a_statement_is_told() {
    for sql in [
        "prepare s from 'delete from t'",
        "prepare s from @x",
        "execute s",
        "execute immediate 'drop table t'",
        "create procedure p() delete from t",
        "create definer = table_owner@localhost procedure p() delete from t",
        "CREATE OR REPLACE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1",
        "create trigger r before insert on t for each row delete from u",
        "create /*!50106 event */ if not exists e on schedule at now() do delete from t",
        "alter event e do delete from t",
        "create package body p as procedure q as begin null; end; end",
        "select 1; execute s",
        "binlog 'AAAA'",
    ] {
        assert!(look(sql, Dialect::MariaDb).holds_statement, "{sql}");
    }
    for sql in [
        "create table event (trigger_name int, `procedure` int)",
        "create view v as select event, package from log",
        "alter table t add column event int",
        "drop procedure p",
        "show create procedure p",
        "call p()",
        "select 1",
        "create index event on t (a)",
    ] {
        assert!(!look(sql, Dialect::MySql).holds_statement, "{sql}");
    }
}

#[test]
fn what_some_servers_read_otherwise_is_not_certain() {
    for sql in [
        "select 1",
        "/*! select 1 */",
        "/*!40101 set names utf8 */",
        "select /*!40001 sql_no_cache */ 1",
        "/* a comment */ select 1 -- another",
        "select /*+ max_execution_time(1000) */ 1",
    ] {
        assert!(look(sql, Dialect::MySql).is_certain, "{sql}");
    }
    for sql in [
        "delete from t /*!99999 where id = 1 */",
        "delete from t /*!80000 where id = 1 */",
        "delete from t /*!080000 where id = 1 */",
        "delete from t /*!4000 where id = 1 */",
        "delete from t /*!4000000 where id = 1 */",
        "delete from t /*M! where id = 1 */",
        "delete from t /*T! where id = 1 */",
        "delete from t /*T![ttl] where id = 1 */",
        "select /*! 1 /* 2 */ 3 */",
        "select /*! 1",
        "select 'abc",
        "select `abc",
        "select /* abc",
        "select \0 1",
    ] {
        for dialect in [Dialect::MySql, Dialect::MariaDb, Dialect::TiDb] {
            if !(dialect == Dialect::MariaDb && sql.contains("/*M! ")) {
                assert!(!look(sql, dialect).is_certain, "{sql} {dialect:?}");
            }
        }
    }
}

#[test]
fn a_whole_text_has_an_end_that_the_cut_one_lacks() {
    let columns: Vec<_> = (0..2000).map(|number| format!("column_{number}")).collect();
    let sql = format!("select {} from secret", columns.join(", "));
    let (mut cut, mut whole) = (String::new(), String::new());
    digest_text(sql.as_bytes(), &mut cut, Modes::default());
    whole_digest_text(sql.as_bytes(), &mut whole, Modes::default());
    assert!(!cut.contains("secret") && whole.ends_with("FROM `secret`"), "{}", cut.len());
}
