//! Tests that cannot pass through the mesh, each with its reason. What no proxy can do stands here; what is merely missing in
//! this version is named as missing in `docs/guides/mesh.md` too.

use super::yard::{Auth, Chaos, Way};

/// Why a test does not count, and where.
struct Reason {
    text: &'static str,
    holds: fn(Way) -> bool,
}

/// A suite, how a test's name begins, and why it does not count.
const EXCEPTED: [(&str, &str, Reason); 25] = [
    ("pymysql", "pymysql/tests/test_issues.py::TestNewIssues::test_issue_36", NUMBER),
    ("pymysql", "pymysql/tests/test_connection.py::TestConnection::test_connection_gone_away", STAYS),
    ("php", "ext/mysqli/tests/mysqli_no_reconnect.phpt", NUMBER),
    ("php", "ext/mysqli/tests/mysqli_pconn_kill.phpt", NUMBER),
    ("clienttest", "test_change_user", REFUSED),
    ("mysql2", "plain: the number of the session", NUMBER),
    ("mysql2", "tls: the number of the session", NUMBER),
    ("mysql2", "compressed: the number of the session", NUMBER),
    ("mysql2", "plain: a database that is missing", LATE),
    ("mysql2", "tls: a database that is missing", LATE),
    ("mysql2", "compressed: a database that is missing", LATE),
    ("mysql2", "plain: a statement that another session kills", BETWEEN),
    ("mysql2", "compressed: a statement that another session kills", BETWEEN),
    ("go", "TestConnectionAttributes", OTHERS),
    ("mysql_async", "plain: mysql_async: conn::test::should_hold_stmt_cache_size_bound", COUNTS),
    ("mysql_async", "plain: mysql_async: conn::test::should_not_cache_statements_if_stmt_cache_size", COUNTS),
    ("mysql_async", "compressed: mysql_async: conn::test::should_hold_stmt_cache_size_bound", COUNTS),
    (
        "mysql_async",
        "compressed: mysql_async: conn::test::should_not_cache_statements_if_stmt_cache_size",
        COUNTS,
    ),
    ("jdbc", "mariadb text: a database that is missing", LATE),
    ("jdbc", "mariadb prepared: a database that is missing", LATE),
    ("jdbc", "mariadb bulk: a database that is missing", LATE),
    ("jdbc", "mariadb pipeless: a database that is missing", LATE),
    ("jdbc", "mariadb compress: a database that is missing", LATE),
    ("jdbc", "mysql prepared: a session that another one kills", ONCE),
    ("jdbc", "mysql cursor: a session that another one kills", ONCE),
];

/// A session of the mesh outlives its connections to servers, so it has a number of its own.
const NUMBER: Reason = Reason {
    text: "compares the number that it was greeted with, which is the mesh's, with the server's; KILL takes both",
    holds: |_| true,
};
const REFUSED: Reason = Reason {
    text: "goes on after a refused change of the user, as MariaDB lets it; the mesh ends the session, as MySQL does",
    holds: |_| true,
};
const STAYS: Reason = Reason {
    text: "wants to notice that its idle connection ended; with vault a session gets another one",
    holds: |way| way.auth == Auth::Vault,
};
const ONCE: Reason = Reason {
    text: "takes the error that tells of the lost connection for a statement that cannot be prepared; the session goes on with another",
    holds: |way| way.auth == Auth::Vault,
};
const LATE: Reason = Reason {
    text: "wants its login refused; with vault no server is asked before the first statement, which is told instead",
    holds: |way| way.auth == Auth::Vault,
};
const OTHERS: Reason =
    Reason { text: "reads its connection's attributes; one that is shared has none", holds: |way| way.pool };
const COUNTS: Reason = Reason {
    text: "counts the statements that its connection has closed; a shared one counts others' too, and closes when it needs room",
    holds: |way| way.pool,
};
const BETWEEN: Reason = Reason {
    text: "kills a statement that began before the handover, and runs on in the old process, from the new one",
    holds: |way| way.chaos == Chaos::Handover,
};

/// Why a test does not count; `None` if it does.
pub fn reason(suite: &str, way: Way, test: &str) -> Option<&'static str> {
    let mut found = EXCEPTED.iter().filter(|(whose, start, _)| *whose == suite && test.starts_with(start));
    found.find(|(.., reason)| (reason.holds)(way)).map(|(.., reason)| reason.text)
}
