//! What one pass over a statement tells of it.

use mysql::sql::{Dialect, Flags, Kind, Modes, Scan, scan};

fn look(sql: &str) -> Scan {
    scan(sql.as_bytes(), Modes::default())
}

fn maria(sql: &str) -> Scan {
    scan(sql.as_bytes(), Modes { dialect: Dialect::MariaDb, ..Modes::default() })
}

fn tidb(sql: &str) -> Scan {
    scan(sql.as_bytes(), Modes { dialect: Dialect::TiDb, ..Modes::default() })
}

#[test]
fn the_verb_is_found_behind_comments_parentheses_and_with() {
    for (sql, kind) in [
        ("", Kind::Empty),
        (" -- nothing\n /* at all */ ;; ", Kind::Empty),
        ("select 1", Kind::Select),
        ("/* a */ # b\n -- c\n SeLeCt 1", Kind::Select),
        ("((select 1) union (select 2))", Kind::Select),
        ("with a as (select 1) select * from a", Kind::Select),
        (
            "with a (x, y) as (select 1, 2), b as (select 3) delete from t where x in (select x from a)",
            Kind::Delete,
        ),
        ("with recursive a as (select 1 union all select 1 + x from a) update t set x = 1", Kind::Update),
        ("with a as (select 1) (select * from a)", Kind::Select),
        ("with `update` as (select 1) select 2", Kind::Select),
        ("table t order by a", Kind::Select),
        ("values row(1, 2), row(3, 4)", Kind::Select),
        ("insert into t values (1)", Kind::Insert),
        ("replace t set a = 1", Kind::Replace),
        ("load data local infile 'x' into table t", Kind::Load),
        ("load index into cache t", Kind::Admin),
        ("import into t from 's3://x'", Kind::Load),
        ("call p(1)", Kind::Call),
        ("do sleep(1)", Kind::Do),
        ("create table t (a int)", Kind::Ddl),
        ("truncate t", Kind::Ddl),
        ("begin", Kind::Begin),
        ("begin work", Kind::Begin),
        ("begin pessimistic", Kind::Begin),
        ("begin not atomic select 1; end", Kind::Unknown),
        ("start transaction read only", Kind::Begin),
        ("start replica", Kind::Admin),
        ("commit and chain", Kind::Commit),
        ("rollback", Kind::Rollback),
        ("rollback work to savepoint a", Kind::Savepoint),
        ("savepoint a", Kind::Savepoint),
        ("release savepoint a", Kind::Savepoint),
        ("set names utf8mb4", Kind::Set),
        ("use shop", Kind::Use),
        ("show tables", Kind::Show),
        ("explain select 1", Kind::Explain),
        ("explain format = tree select 1", Kind::Explain),
        ("desc t", Kind::Describe),
        ("explain `select`", Kind::Describe),
        ("explain t a", Kind::Describe),
        ("explain for connection 7", Kind::Explain),
        ("prepare s from 'select 1'", Kind::Prepare),
        ("execute s using @a", Kind::Execute),
        ("deallocate prepare s", Kind::Deallocate),
        ("drop prepare s", Kind::Deallocate),
        ("lock tables t read", Kind::Lock),
        ("unlock tables", Kind::Unlock),
        ("flush tables with read lock", Kind::Flush),
        ("kill query 1", Kind::Kill),
        ("handler t open", Kind::Handler),
        ("xa start 'a'", Kind::Xa),
        ("grant select on t to u", Kind::Admin),
        ("analyze table t", Kind::Admin),
        ("frobnicate", Kind::Unknown),
        ("'text'", Kind::Unknown),
        ("get diagnostics @a = number", Kind::Unknown),
    ] {
        assert_eq!(look(sql).kind, kind, "{sql}");
    }
    assert_eq!(maria("analyze format = json update t set a = 1").kind, Kind::Explain);
    assert_eq!(maria("set statement max_statement_time = 1 for delete from t").kind, Kind::Delete);
    assert_eq!(tidb("batch on id limit 10 delete from t").kind, Kind::Delete);
    assert_eq!(tidb("trace select 1").kind, Kind::Explain);
}

#[test]
fn plain_reads_are_safe() {
    for sql in [
        "select * from t where id = ? and name like 'a%' order by 1 limit 10",
        "select count(*), sum(a), if(b, 1, 2), left(c, 3) from t group by d having max(e) > 1",
        "with a (x) as (select 1) select date_add(now(), interval 1 day), x from a",
        "select * from (select 1) as d (x) join t using (a) where t.a in (select b from u)",
        "select cast(a as decimal(10, 2)), convert(b, char(3)), uuid(), rand() from t",
        "select row_number() over (partition by a order by b) from t window w as (order by c)",
        "select a -> '$.x', json_extract(b, '$') from t where match (c) against ('x')",
        "select `for update` from `lock` where a = 'for update'",
        "select t.share, u.into from t, u",
        "show full columns from t",
        "show create table t",
        "show table status like 'a'",
        "describe t",
        "explain analyze select * from t",
        "table t",
        "select /*+ max_execution_time(10) */ 1",
        "(select 1) union all (select 2) limit 3;",
    ] {
        assert!(look(sql).is_safe_read(), "{sql}: {:?}", look(sql).flags.names().collect::<Vec<_>>());
    }
}

#[test]
fn what_is_no_plain_read_says_why() {
    for (sql, flags) in [
        ("select * from t for update", Flags::LOCKING),
        ("select * from t for share skip locked", Flags::LOCKING),
        ("select * from t lock in share mode", Flags::LOCKING),
        ("select @a", Flags::USER_VARIABLE_READ),
        ("select @a := 1", Flags::USER_VARIABLE_WRITTEN),
        ("set @a = 1", Flags::USER_VARIABLE_WRITTEN),
        ("set @a = @b", Flags::USER_VARIABLE_WRITTEN | Flags::USER_VARIABLE_READ),
        ("set autocommit = 1, @`x y` := 2", Flags::USER_VARIABLE_WRITTEN),
        ("select a, b into @a, @b from t", Flags::USER_VARIABLE_WRITTEN),
        ("select a from t into outfile '/tmp/x'", Flags::INTO_FILE),
        ("select a into dumpfile '/tmp/x' from t", Flags::INTO_FILE),
        ("select 1 into a", Flags::DOUBTFUL),
        ("call p(@a)", Flags::USER_VARIABLE_READ | Flags::USER_VARIABLE_WRITTEN),
        ("select @@version", Flags::SYSTEM_VARIABLE),
        ("select @@session.identity", Flags::SYSTEM_VARIABLE | Flags::LAST_INSERT_ID),
        ("select @@warning_count", Flags::SYSTEM_VARIABLE | Flags::DIAGNOSTICS),
        ("set @@global.max_connections = 1", Flags::SYSTEM_VARIABLE | Flags::GLOBAL_SCOPE),
        ("set persist max_connections = 1", Flags::GLOBAL_SCOPE),
        ("set global max_connections = 1", Flags::GLOBAL_SCOPE),
        ("select last_insert_id()", Flags::LAST_INSERT_ID),
        ("show warnings", Flags::DIAGNOSTICS | Flags::SERVER_STATE),
        ("show count(*) errors", Flags::DIAGNOSTICS | Flags::SERVER_STATE),
        ("select found_rows()", Flags::FOUND_ROWS),
        ("select row_count ()", Flags::ROW_COUNT),
        ("select sql_calc_found_rows 1", Flags::CALC_FOUND_ROWS),
        ("select get_lock('a', 1)", Flags::USER_LOCK),
        ("select sleep(1)", Flags::WAITS),
        ("select connection_id()", Flags::CONNECTION_ID),
        ("select nextval(s)", Flags::SEQUENCE),
        ("select next value for s", Flags::SEQUENCE),
        ("select s.nextval", Flags::SEQUENCE),
        ("select f(1)", Flags::UNKNOWN_FUNCTION),
        ("select shop.f(1)", Flags::UNKNOWN_FUNCTION),
        ("select `abs`(1)", Flags::UNKNOWN_FUNCTION),
        ("select count (1)", Flags::UNKNOWN_FUNCTION),
        ("insert into t (a) select f(1)", Flags::UNKNOWN_FUNCTION),
        ("insert into t (a) values (abs(1))", Flags::NONE),
        ("create temporary table t (a int)", Flags::TEMPORARY_TABLE),
        ("select * from information_schema.processlist", Flags::SERVER_STATE),
        ("select * from `performance_schema`.threads", Flags::SERVER_STATE),
        ("show processlist", Flags::SERVER_STATE),
        ("show full processlist", Flags::SERVER_STATE),
        ("load data local infile 'x' into table t (a, b)", Flags::LOCAL_FILE),
        ("select 1; delete from t", Flags::MULTI),
        ("select /*!40001 sql_no_cache */ 1", Flags::EXECUTABLE_COMMENT),
        ("select /*M!100100 1 */", Flags::EXECUTABLE_COMMENT),
        ("select 'a", Flags::DOUBTFUL),
        ("explain delete from t", Flags::EXPLAINED_WRITE),
        ("explain analyze delete from t", Flags::EXPLAINED_WRITE | Flags::EXECUTES),
        (
            "start transaction with consistent snapshot, read only",
            Flags::CONSISTENT_SNAPSHOT | Flags::READ_ONLY,
        ),
        ("commit and chain no release", Flags::CHAIN),
        ("rollback and no chain release", Flags::RELEASE),
        ("flush tables with read lock", Flags::READ_LOCK),
        ("flush tables t for export", Flags::READ_LOCK),
        ("flush tables", Flags::NONE),
    ] {
        let scan = look(sql);
        assert_eq!(scan.flags, flags, "{sql}: {:?}", scan.flags.names().collect::<Vec<_>>());
        assert!(!scan.is_safe_read(), "{sql}");
    }
}

#[test]
fn statements_placeholders_and_hints_are_counted_and_shown() {
    let sql = "/* tidemill: writer */ select /*+ set_var(x=1) */ ? ; ; select '?', ?;";
    let scan = look(sql);
    assert_eq!((scan.statements, scan.placeholders), (2, 2));
    let text = |span: Option<mysql::sql::Span>| span.map(|span| &sql[span.start..span.end]);
    assert_eq!(text(scan.optimizer_hint), Some(" set_var(x=1) "));
    assert_eq!(text(scan.note), Some(" writer "));
    assert_eq!(look("select 1 /* tidemill: late */").note, None);
}

#[test]
fn statements_that_differ_in_literals_and_looks_have_one_digest() {
    for (one, other) in [
        ("select * from t where a = 1", "SELECT  *\nFROM t /* x */ WHERE a='b' -- y"),
        ("select * from t where a = -1", "select * from t where a = ?"),
        ("select * from t where a in (1)", "select * from t where a in (?, 'x', -3, null)"),
        ("insert into t values (1, 2)", "insert into t values (1, 2), (3, 'x'),(4,5)"),
        ("insert into t values (1, now())", "insert into t values (1, now()), (3, NOW())"),
        ("insert into `t` values (1)", "insert into t values (x'00');"),
        ("select 'a' 'b'", "select 'c'"),
        ("select 1, 2", "select 1, 2, 3"),
        ("select * from t where (a, b) in ((1, 2))", "select * from t where (a, b) in ((1, 2), (3, 4))"),
        ("select /*+ x */ 1", "select 1"),
        ("select a from t limit 10, 20", "select a from t limit 1, 2"),
    ] {
        assert_eq!(look(one).digest, look(other).digest, "{one}\n{other}");
    }
}

#[test]
fn statements_that_differ_in_more_than_looks_have_two_digests() {
    for (one, other) in [
        ("select a from t", "select b from t"),
        ("select a from t", "select a from T"),
        ("select a from user", "select a from User"),
        ("select a from t", "select a from t; delete from t"),
        ("select a - 1 from t", "select a + 1 from t"),
        ("select a from t where b is null", "select a from t where b is not null"),
        ("insert into t values (1, now())", "insert into t values (1, now()), (2, 3)"),
        ("insert into t values (1, 2)", "insert into t values (1)"),
        ("select 1", "select 1, 2"),
        ("select (1)", "select 1"),
        ("select `select`", "select select"),
        ("select @a", "select @b"),
        ("select a, -b from t", "select a - b from t"),
        ("select a from t where b = 1 or c = 2", "select a from t where b = 1 and c = 2"),
        (
            "select a_long_name_that_ends_in_the_same_way from t",
            "select a_long_name_that_begun_in_the_same_way from t",
        ),
    ] {
        assert_ne!(look(one).digest, look(other).digest, "{one}\n{other}");
    }
}
