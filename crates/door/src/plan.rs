//! What a statement asks for, by its first words.

use crate::text::Text;
use mysql::sql::TokenKind;

/// What is done with a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Query,
    Show,
    /// DESCRIBE of a table.
    Describe,
    /// How a query would run.
    Explain,
    Set,
    Use,
    Kill,
    /// Transactions and locks: a session that only reads has no need of them, and answers OK.
    Nothing,
    /// What changes something.
    Write,
    /// Text of nothing but blanks and comments.
    Empty,
    Unknown,
}

const WRITES: [&str; 24] = [
    "insert",
    "update",
    "delete",
    "replace",
    "create",
    "drop",
    "alter",
    "truncate",
    "rename",
    "load",
    "grant",
    "revoke",
    "import",
    "analyze",
    "optimize",
    "repair",
    "flush",
    "reset",
    "purge",
    "install",
    "uninstall",
    "call",
    "change",
    "handler",
];

pub fn verb(text: &Text<'_>) -> Verb {
    if text.tokens.is_empty() {
        return Verb::Empty;
    }
    let first = text.at(0).to_ascii_lowercase();
    match first.as_str() {
        "(" | "select" | "with" | "table" | "values" => Verb::Query,
        "show" => Verb::Show,
        "set" => Verb::Set,
        "use" => Verb::Use,
        "kill" => Verb::Kill,
        "begin" | "commit" | "rollback" | "savepoint" | "release" | "unlock" | "do" => Verb::Nothing,
        "start" if text.is(1, "transaction") => Verb::Nothing,
        "lock" => Verb::Nothing,
        "describe" | "desc" | "explain" => {
            let names = matches!(text.kind(1), Some(TokenKind::Word | TokenKind::QuotedName));
            let query =
                ["select", "with", "format", "analyze", "extended", "for", "insert", "update", "delete"];
            if names && !query.iter().any(|word| text.is(1, word)) { Verb::Describe } else { Verb::Explain }
        }
        word if WRITES.contains(&word) => Verb::Write,
        _ => Verb::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart_by_their_first_words() {
        for (sql, wanted) in [
            ("/* x */ select 1", Verb::Query),
            ("(select 1) union (select 2)", Verb::Query),
            ("desc t", Verb::Describe),
            ("explain `t`", Verb::Describe),
            ("explain select 1", Verb::Explain),
            ("START TRANSACTION READ ONLY", Verb::Nothing),
            ("start slave", Verb::Unknown),
            ("Insert into t values (1)", Verb::Write),
            ("-- nothing\n", Verb::Empty),
            ("/*!40101 SET NAMES utf8 */", Verb::Set),
        ] {
            assert_eq!(verb(&Text::read(sql).unwrap()), wanted, "{sql}");
        }
    }
}
