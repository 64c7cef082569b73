//! A SELECT as the engine takes it: variables and functions of the session become literals, and what an expression is called
//! stays the text that the client wrote.

use crate::error::SqlError;
use crate::metadata;
use crate::packets::CLIENT_PAYLOAD_BYTES_MAX;
use crate::text::{Text, literal};
use crate::variables::Variables;
use mysql::sql::TokenKind;

/// What functions of the session answer.
pub struct Facts<'s> {
    pub variables: &'s Variables,
    pub database: Option<&'s str>,
    /// `user@host`.
    pub user: &'s str,
    pub id: u32,
    /// Rows of the last result.
    pub found: u64,
    /// The statement reads `information_schema`, whose columns have names in capitals, however they are written.
    pub schema: bool,
}

impl Facts<'_> {
    fn function(&self, name: &str) -> Option<String> {
        Some(match name.to_ascii_lowercase().as_str() {
            "database" | "schema" => self.database.map_or_else(|| "NULL".into(), literal),
            "user" | "current_user" | "session_user" | "system_user" => literal(self.user),
            "current_role" => "'NONE'".into(),
            "version" => literal(crate::VERSION),
            "connection_id" => self.id.to_string(),
            "found_rows" => self.found.to_string(),
            "row_count" => "-1".into(),
            "last_insert_id" => "0".into(),
            _ => return None,
        })
    }

    fn system(&self, text: &str) -> Result<String, SqlError> {
        let name = text.trim_start_matches('@');
        let name = name.rsplit('.').next().unwrap_or(name).trim().trim_matches('`');
        self.variables
            .as_literal(name)
            .ok_or_else(|| SqlError::new(1193, format!("Unknown system variable '{name}'")))
    }
}

/// A change of the text.
struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// Longest name of a column that is made of its expression.
const NAME_BYTES_MAX: usize = 256;

/// What variables and functions may add to a statement: each use of a variable is its whole value once more.
const ADDED_BYTES_MAX: usize = CLIENT_PAYLOAD_BYTES_MAX;

/// The statement, rewritten.
///
/// # Errors
/// Unknown variables, and values that make it too long.
pub fn select(text: &Text<'_>, facts: &Facts<'_>) -> Result<String, SqlError> {
    let mut edits = replaced(text, facts)?;
    edits.extend(names(text, facts.schema));
    edits.sort_by_key(|edit| (edit.start, edit.end));
    let mut out = String::with_capacity(text.sql.len() + 64);
    let mut at = 0;
    for edit in edits {
        if edit.start < at {
            continue;
        }
        out.push_str(text.sql.get(at..edit.start).unwrap_or_default());
        out.push_str(&edit.text);
        at = edit.end;
    }
    let end = text.tokens.last().map_or(0, |last| last.end);
    out.push_str(text.sql.get(at..end).unwrap_or_default());
    Ok(out)
}

fn replaced(text: &Text<'_>, facts: &Facts<'_>) -> Result<Vec<Edit>, SqlError> {
    let mut edits = Vec::new();
    let (mut at, mut added) = (0, 0);
    while at < text.tokens.len() {
        let token = text.tokens[at];
        let mut edit = |end: usize, text: String| {
            added += text.len();
            edits.push(Edit { start: token.start, end, text });
        };
        match token.kind {
            TokenKind::SystemVariable => edit(token.end, facts.system(text.at(at))?),
            TokenKind::UserVariable => {
                if text.at(at + 1) == ":=" {
                    return Err(SqlError::not_supported("assignments in a query"));
                }
                let name = text.at(at).trim_start_matches('@').trim_matches(['`', '\'', '"']);
                edit(token.end, facts.variables.user(name).to_owned());
            }
            TokenKind::Word if at == 0 || text.kind(at - 1) != Some(TokenKind::Dot) => {
                let called = text.kind(at + 1) == Some(TokenKind::LeftParenthesis)
                    && text.kind(at + 2) == Some(TokenKind::RightParenthesis);
                let bare =
                    text.is(at, "current_user") && text.kind(at + 1) != Some(TokenKind::LeftParenthesis);
                if let Some(value) = (called || bare).then(|| facts.function(text.at(at))).flatten() {
                    let last = if called { at + 2 } else { at };
                    edit(text.tokens[last].end, value);
                    at = last;
                } else if text.is(at, "sql_calc_found_rows") || text.is(at, "sql_no_cache") {
                    edit(token.end, String::new());
                }
            }
            _ => {}
        }
        if added > ADDED_BYTES_MAX {
            return Err(SqlError::new(
                1153,
                "the values of its variables make the statement larger than 4 MiB",
            ));
        }
        at += 1;
    }
    Ok(edits)
}

/// Words that end the list of a SELECT.
const ENDS: [&str; 12] = [
    "from",
    "into",
    "where",
    "group",
    "having",
    "order",
    "limit",
    "union",
    "except",
    "intersect",
    "for",
    "procedure",
];
/// Words in front of the first expression.
const FRONT: [&str; 9] = [
    "distinct",
    "all",
    "distinctrow",
    "high_priority",
    "straight_join",
    "sql_no_cache",
    "sql_calc_found_rows",
    "sql_small_result",
    "sql_big_result",
];
/// Words that are values, not names, at the end of an expression.
const VALUES: [&str; 5] = ["null", "true", "false", "end", "unknown"];
/// Words behind which an expression goes on.
const OPERATORS: [&str; 18] = [
    "is", "not", "and", "or", "xor", "like", "between", "div", "mod", "in", "regexp", "rlike", "collate",
    "case", "when", "then", "else", "binary",
];

/// For each expression of the outermost list that has no name: its text, as MySQL calls it.
fn names(text: &Text<'_>, schema: bool) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut depth = 0_usize;
    let mut first = None;
    for at in 0..=text.tokens.len() {
        let kind = text.kind(at);
        match kind {
            Some(TokenKind::LeftParenthesis) => depth += 1,
            Some(TokenKind::RightParenthesis) => depth = depth.saturating_sub(1),
            _ => {}
        }
        let Some(begin) = first else {
            if depth == 0 && text.is(at, "select") {
                let skipped = (at + 1..).take_while(|at| FRONT.iter().any(|word| text.is(*at, word))).count();
                first = Some(at + 1 + skipped);
            }
            continue;
        };
        let ends = kind.is_none() || depth == 0 && ENDS.iter().any(|word| text.is(at, word));
        if at >= begin && (ends || depth == 0 && kind == Some(TokenKind::Comma)) {
            edits.extend(name(text, begin, at, schema));
            first = Some(at + 1);
        }
        if ends && at >= begin {
            break;
        }
    }
    edits
}

/// The name of the expression in tokens `begin..end`.
fn name(text: &Text<'_>, begin: usize, end: usize, schema: bool) -> Option<Edit> {
    let last = end.checked_sub(1).filter(|last| *last >= begin)?;
    let tokens = &text.tokens[begin..end];
    let is_path = tokens.len() % 2 == 1
        && tokens.iter().enumerate().all(|(place, it)| match it.kind {
            TokenKind::Word | TokenKind::QuotedName => place % 2 == 0,
            TokenKind::Dot => place % 2 == 1,
            _ => false,
        });
    if schema && is_path && text.kind(last) == Some(TokenKind::Word) && metadata::is_column(text.at(last)) {
        let (stop, name) = (tokens.last()?.end, text.at(last).to_ascii_uppercase());
        return Some(Edit { start: stop, end: stop, text: format!(" AS `{name}`") });
    }
    if text.at(last) == "*" || is_path && !is_value(text, last) && !is_replaced(text, begin, end) {
        return None;
    }
    // A name behind an expression, with AS or without.
    let behind_value = last > begin
        && (text.is(last - 1, "as")
            || matches!(
                text.kind(last - 1)?,
                TokenKind::Word
                    | TokenKind::QuotedName
                    | TokenKind::Text
                    | TokenKind::Integer
                    | TokenKind::Decimal
                    | TokenKind::Float
                    | TokenKind::SystemVariable
                    | TokenKind::UserVariable
                    | TokenKind::RightParenthesis
                    | TokenKind::Parameter
            ) && !OPERATORS.iter().any(|word| text.is(last - 1, word)));
    let can_name = matches!(text.kind(last)?, TokenKind::Word | TokenKind::QuotedName | TokenKind::Text);
    if behind_value && can_name && !is_value(text, last) {
        return None;
    }
    let (start, stop) = (tokens.first()?.start, tokens.last()?.end);
    let mut written = text.sql.get(start..stop)?.to_owned();
    if tokens.len() == 1 && tokens[0].kind == TokenKind::Text {
        written = text.string(begin)?;
    }
    let name: String = written.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let name = name.trim();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('~') {
        return None;
    }
    Some(Edit { start: stop, end: stop, text: format!(" AS `{}`", name.replace('`', "``")) })
}

fn is_value(text: &Text<'_>, at: usize) -> bool {
    VALUES.iter().any(|word| text.is(at, word))
}

/// `CURRENT_USER`, which looks like a column.
fn is_replaced(text: &Text<'_>, begin: usize, end: usize) -> bool {
    end == begin + 1 && text.is(begin, "current_user")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        let variables = Variables::default();
        let facts = Facts {
            variables: &variables,
            database: Some("o's"),
            user: "bi@here",
            id: 7,
            found: 3,
            schema: false,
        };
        select(&Text::read(sql).unwrap(), &facts).unwrap()
    }

    #[test]
    fn variables_and_functions_become_literals_under_their_own_names() {
        for (sql, wanted) in [
            ("select @@version_comment limit 1", "select 'Tidemill SQL door' AS `@@version_comment` limit 1"),
            (
                "/* driver */SELECT  @@session.auto_increment_increment AS a, @@net_write_timeout b",
                "/* driver */SELECT  1 AS a, 60 b",
            ),
            ("SELECT DATABASE(), USER() u", "SELECT 'o''s' AS `DATABASE()`, 'bi@here' u"),
            ("SELECT CURRENT_USER", "SELECT 'bi@here' AS `CURRENT_USER`"),
            ("SELECT connection_id ( ) ;", "SELECT 7 AS `connection_id ( )`"),
            ("SELECT FOUND_ROWS()", "SELECT 3 AS `FOUND_ROWS()`"),
            ("SELECT @x", "SELECT NULL AS `@x`"),
        ] {
            assert_eq!(rewritten(sql), wanted);
        }
    }

    #[test]
    fn expressions_keep_their_text_as_a_name_and_names_stay() {
        for (sql, wanted) in [
            ("SELECT a, t.b, `c` FROM t", "SELECT a, t.b, `c` FROM t"),
            ("SELECT 1+1, 'x' FROM t", "SELECT 1+1 AS `1+1`, 'x' AS `x` FROM t"),
            ("SELECT DISTINCT count(*) FROM t", "SELECT DISTINCT count(*) AS `count(*)` FROM t"),
            ("SELECT count(*) AS n, a b, max(c) m FROM t", "SELECT count(*) AS n, a b, max(c) m FROM t"),
            (
                "SELECT a IS NULL, (SELECT b FROM u) FROM t",
                "SELECT a IS NULL AS `a IS NULL`, (SELECT b FROM u) AS `(SELECT b FROM u)` FROM t",
            ),
            ("SELECT t.*, * FROM t", "SELECT t.*, * FROM t"),
            (
                "WITH w AS (SELECT 1+1 x) SELECT x+1 FROM w",
                "WITH w AS (SELECT 1+1 x) SELECT x+1 AS `x+1` FROM w",
            ),
            ("SELECT NULL", "SELECT NULL AS `NULL`"),
        ] {
            assert_eq!(rewritten(sql), wanted);
        }
    }

    #[test]
    fn variables_do_not_make_a_statement_without_bounds() {
        let mut variables = Variables::default();
        let set = format!("SET @a = '{}'", "x".repeat(60_000));
        variables.set(&Text::read(&set).unwrap()).unwrap();
        let facts = Facts { variables: &variables, database: None, user: "", id: 1, found: 0, schema: false };
        let rewritten = |uses: usize| {
            let sql = format!("SELECT concat({})", vec!["@a"; uses].join(","));
            select(&Text::read(&sql).unwrap(), &facts)
        };
        assert!(rewritten(60).unwrap().len() > 60 * 60_000);
        assert_eq!(rewritten(100_000).unwrap_err().number, 1153);
    }

    #[test]
    fn a_database_cannot_break_out_of_its_literal() {
        let variables = Variables::default();
        let evil = "x' UNION SELECT 1 -- \\";
        let facts =
            Facts { variables: &variables, database: Some(evil), user: "", id: 1, found: 0, schema: false };
        let sql = select(&Text::read("SELECT database() d").unwrap(), &facts).unwrap();
        assert_eq!(sql, "SELECT 'x'' UNION SELECT 1 -- \\\\' d");
    }
}
