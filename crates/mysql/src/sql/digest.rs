//! The normalised text of a statement, as the servers write it in their statement summaries: what joins our numbers with
//! `performance_schema.events_statements_summary_by_digest` and `information_schema.statements_summary`.

use super::modes::{Dialect, Modes};
use super::{digest_mysql, digest_tidb};

/// Appends the normalised text of one statement to `out`.
///
/// For MySQL it is what `STATEMENT_DIGEST_TEXT()` of MySQL 9.7 answers, cut where [`MYSQL_DIGEST_LENGTH`] cuts it; for TiDB
/// it is the `DIGEST_TEXT` of TiDB 8.5, whose SHA-256 in hexadecimal digits is its `DIGEST`. MySQL's `DIGEST` is a hash of
/// the token numbers of its grammar, which differ from release to release: it is not computed, the text is what joins.
/// What is prepared and executed, MySQL notes behind these words: `PREPARE SELECT ?`, `EXECUTE SELECT ?`. MariaDB's texts are
/// not reproduced; it gets MySQL's.
///
/// Statements that their server would refuse have a text too, that nobody promises.
pub fn digest_text(sql: &[u8], out: &mut String, modes: Modes) {
    match modes.dialect {
        Dialect::MySql | Dialect::MariaDb => digest_mysql::append(sql, out, modes, MYSQL_DIGEST_LENGTH),
        Dialect::TiDb => digest_tidb::append(sql, out),
    }
}

/// The same without an end: for whoever decides by the text, of which then nothing may be missing.
pub fn whole_digest_text(sql: &[u8], out: &mut String, modes: Modes) {
    match modes.dialect {
        Dialect::MySql | Dialect::MariaDb => digest_mysql::append(sql, out, modes, usize::MAX),
        Dialect::TiDb => digest_tidb::append(sql, out),
    }
}

/// `max_digest_length`, as MySQL comes with it: bytes of tokens, of which a text shows the first so many.
pub const MYSQL_DIGEST_LENGTH: usize = 1024;
