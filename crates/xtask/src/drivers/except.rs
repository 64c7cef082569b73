//! Tests that cannot pass through the mesh, each with its reason. What no proxy can do stands here; what is merely missing in
//! this version is named as missing in `docs/guides/mesh.md` too.

use super::yard::Auth;

/// A suite, how a test's name begins, and why it does not count.
const EXCEPTED: [(&str, &str, &str); 8] = [
    ("pymysql", "pymysql/tests/test_issues.py::TestNewIssues::test_issue_36", NUMBER),
    ("pymysql", "pymysql/tests/test_connection.py::TestConnection::test_connection_gone_away", STAYS),
    ("php", "ext/mysqli/tests/mysqli_no_reconnect.phpt", NUMBER),
    ("php", "ext/mysqli/tests/mysqli_pconn_kill.phpt", NUMBER),
    ("clienttest", "test_change_user", REFUSED),
    ("mysql2", "plain: the number of the session", NUMBER),
    ("mysql2", "tls: the number of the session", NUMBER),
    ("mysql2", "compressed: the number of the session", NUMBER),
];

/// A session of the mesh outlives its connections to servers, so it has a number of its own.
const NUMBER: &str =
    "compares the number that it was greeted with, which is the mesh's, with the server's; KILL takes both";

const STAYS: &str = "wants to notice that its idle connection ended; with vault a session gets another one";
const REFUSED: &str = "goes on after a refused change of the user, as MariaDB lets it; the mesh ends the session, as MySQL does";

/// Why a test does not count; `None` if it does.
pub fn reason(suite: &str, auth: Auth, test: &str) -> Option<&'static str> {
    let mut found = EXCEPTED.iter().filter(|(whose, start, _)| *whose == suite && test.starts_with(start));
    found.next().map(|(.., reason)| *reason).filter(|reason| *reason != STAYS || auth == Auth::Vault)
}
