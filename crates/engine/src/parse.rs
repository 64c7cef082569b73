//! Text → one statement, by `sqlparser`'s MySQL dialect and what it lacks.

use crate::deep;
use crate::error::EngineError;
use crate::query::table_name;
use sqlparser::ast::{Expr, ObjectName, Query, SetExpr, Statement, Visit, Visitor, visit_relations};
use sqlparser::dialect::MySqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Whitespace, Word};
use std::ops::ControlFlow;

/// Bytes of one statement.
const STATEMENT_BYTES_MAX: usize = 16 << 20;
/// Words and signs of one statement; each costs memory many times its own.
const STATEMENT_TOKENS_MAX: usize = 2_000_000;
/// Operators one behind the other, or inside each other: each makes the tree deeper, and the tree is walked on the stack.
const OPERATORS_MAX: usize = 500;

/// The last term of GROUP BY … WITH ROLLUP, which the parser's MySQL dialect does not know.
pub const ROLLUP: &str = "\u{5}rollup";

/// One statement and no more.
pub fn parsed(sql: &str) -> Result<Statement, EngineError> {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Err(EngineError::sql(1153, "the statement is larger than 16 MiB"));
    }
    let dialect = MySqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| EngineError::sql(1064, error.message).at(error.location))?;
    if tokens.len() > STATEMENT_TOKENS_MAX {
        return Err(EngineError::refused(
            format!("the statement has more than {STATEMENT_TOKENS_MAX} words and signs"),
            "write several smaller ones",
        ));
    }
    if let Some(place) = too_deep(&tokens) {
        return Err(EngineError::refused(
            format!("more than {OPERATORS_MAX} operators one behind the other"),
            "use IN, or several columns of a query inside",
        )
        .at(place));
    }
    if let Some(token) = tokens.iter().find(|it| is_strange_name(&it.token)) {
        return Err(EngineError::refused(
            "a name with control characters, or one that begins with ~",
            "choose another",
        )
        .at(token.span.start));
    }
    let mut all = Parser::new(&dialect)
        .with_tokens_with_locations(known(tokens))
        .parse_statements()
        .map_err(|error| syntax(&error.to_string()))?;
    match (all.pop(), all.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (None, _) => Err(EngineError::sql(1065, "Query was empty")),
        _ => Err(EngineError::refused("several statements at once", "run them one by one")),
    }
}

/// A query that only reads, whoever runs it.
pub fn parsed_query(sql: &str) -> Result<Box<Query>, EngineError> {
    let Statement::Query(query) = parsed(sql)? else {
        return Err(EngineError::refused("this is no query", "only SELECT and WITH … SELECT are"));
    };
    match query.visit(&mut OnlyReads) {
        ControlFlow::Continue(()) => Ok(query),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Like [`parsed_query`], of a text that goes to a server as it is.
pub fn check_query(sql: &str) -> Result<(), EngineError> {
    // A server runs what stands in these, and which ones depends on its version.
    if ["/*!", "/*T!", "/*M!"].iter().any(|mark| sql.contains(mark)) {
        return Err(EngineError::refused("a comment that a server runs (/*! … */)", "write its text out"));
    }
    if let Some(place) = strange_comment(sql) {
        return Err(EngineError::refused(
            "`--` with a blank behind it that is none to a server",
            "write a space",
        )
        .at(place));
    }
    parsed_query(sql).map(|_| ())
}

/// A comment to the parser, to which every blank of Unicode is one, and none to a server.
fn strange_comment(sql: &str) -> Option<Location> {
    // Most texts have none of it, and need no second look.
    if !sql.as_bytes().windows(3).any(|it| it.starts_with(b"--") && !it[2].is_ascii()) {
        return None;
    }
    let tokens = Tokenizer::new(&MySqlDialect {}, sql).tokenize_with_location().ok()?;
    let is_strange = |it: &&TokenWithSpan| {
        matches!(&it.token, Token::Whitespace(Whitespace::SingleLineComment { prefix, comment })
            if prefix == "--" && comment.starts_with(|behind: char| !behind.is_ascii()))
    };
    tokens.iter().find(is_strange).map(|it| it.span.start)
}

/// What stands behind the first AS of a statement.
pub fn behind_as(sql: &str) -> Option<&str> {
    let tokens = Tokenizer::new(&MySqlDialect {}, sql).tokenize_with_location().ok()?;
    let end = tokens.iter().find(|it| is_word(&it.token, "as"))?.span.end;
    let lines = sql.split_inclusive('\n').take(end.line.saturating_sub(1) as usize);
    let before: usize = lines.map(str::len).sum();
    let line = sql.get(before..)?.chars().take(end.column.saturating_sub(1) as usize);
    sql.get(before + line.map(char::len_utf8).sum::<usize>()..)
}

/// The tables and views that a query reads, by the names it has for them, each once; names of its WITH are not.
pub fn relations(sql: &str) -> Result<Vec<String>, EngineError> {
    let query = parsed_query(sql)?;
    let mut ctes = Ctes(Vec::new());
    let _ = query.visit(&mut ctes);
    let mut names: Vec<String> = Vec::new();
    let _ = visit_relations(&*query, |name| {
        let name = table_name(name);
        let is_cte = ctes.0.iter().any(|cte| cte.eq_ignore_ascii_case(&name));
        if !is_cte && !names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            names.push(name);
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(names)
}

/// Every name that stands in a query where a table does, those of its WITH among them.
pub async fn named(sql: &str) -> Result<Vec<String>, EngineError> {
    let sql = sql.to_owned();
    deep::run(move || {
        let mut named = Named(Vec::new());
        let _ = parsed_query(&sql)?.visit(&mut named);
        Ok(named.0)
    })
    .await
}

struct Named(Vec<String>);

impl Visitor for Named {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        self.0.push(table_name(name));
        ControlFlow::Continue(())
    }
}

struct Ctes(Vec<String>);

impl Visitor for Ctes {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.0.extend(ctes.map(|cte| cte.alias.name.value.clone()));
        ControlFlow::Continue(())
    }
}

/// Functions that do more than answer, or hold the server up, though a SELECT calls them.
const ACTING: [&str; 21] = [
    "benchmark",
    "get_lock",
    "lastval",
    "load_file",
    "master_pos_wait",
    "nextval",
    "release_all_locks",
    "release_lock",
    "service_get_read_locks",
    "service_get_write_locks",
    "service_release_locks",
    "setval",
    "sleep",
    "source_pos_wait",
    "sys_eval",
    "sys_exec",
    "sys_get",
    "sys_set",
    "wait_for_executed_gtid_set",
    "wait_until_sql_thread_after_gtids",
    "set_firewall_mode",
];
/// Families of them, of the servers' plugins.
const ACTING_FAMILIES: [&str; 6] = [
    "asynchronous_connection_failover_",
    "audit_",
    "group_replication_",
    "keyring_",
    "mysql_firewall_",
    "version_tokens_",
];

fn is_acting(name: &str) -> bool {
    let name = name.to_lowercase();
    ACTING.contains(&name.as_str()) || ACTING_FAMILIES.iter().any(|family| name.starts_with(family))
}

struct OnlyReads;

impl Visitor for OnlyReads {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<EngineError> {
        if !query.locks.is_empty() {
            return ControlFlow::Break(EngineError::refused(
                "a query here locks no rows",
                "leave FOR UPDATE and FOR SHARE out",
            ));
        }
        reads(&query.body)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<EngineError> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.0.last().and_then(|part| part.as_ident()).map(|it| it.value.as_str());
        match name.filter(|name| is_acting(name)) {
            Some(name) => ControlFlow::Break(EngineError::refused(
                format!("{}() does more than read", name.to_uppercase()),
                "leave it out: only functions that answer are called here",
            )),
            None => ControlFlow::Continue(()),
        }
    }
}

fn reads(body: &SetExpr) -> ControlFlow<EngineError> {
    match body {
        SetExpr::Select(select) if select.into.is_none() => ControlFlow::Continue(()),
        SetExpr::Select(_) => {
            ControlFlow::Break(EngineError::refused("SELECT … INTO writes", "leave INTO out"))
        }
        SetExpr::SetOperation { left, right, .. } => {
            reads(left)?;
            reads(right)
        }
        // Its own visit comes.
        SetExpr::Query(_) | SetExpr::Values(_) => ControlFlow::Continue(()),
        // The parser passes over two words behind it, whatever they are.
        SetExpr::Table(_) => {
            ControlFlow::Break(EngineError::refused("TABLE for a query", "write SELECT * FROM in its place"))
        }
        _ => {
            ControlFlow::Break(EngineError::refused("this is no query", "only SELECT and WITH … SELECT are"))
        }
    }
}

/// The first place where operators make a tree that is too deep. The parser itself bounds parentheses.
fn too_deep(tokens: &[TokenWithSpan]) -> Option<Location> {
    /// Of one pair of parentheses: of the part at hand, of pairs inside it, of parts before it.
    #[derive(Default)]
    struct Level {
        operators: usize,
        inside: usize,
        before: usize,
        sets: usize,
    }
    let mut levels = vec![Level::default()];
    for TokenWithSpan { token, span } in tokens {
        let outer = levels.len() == 1;
        let level = levels.last_mut()?;
        match token {
            Token::LParen => levels.push(Level::default()),
            Token::RParen if !outer => {
                let depth = level.before.max(level.operators + level.inside) + level.sets;
                levels.pop();
                let level = levels.last_mut()?;
                level.inside = level.inside.max(depth);
            }
            Token::Comma => {
                level.before = level.before.max(level.operators + level.inside);
                (level.operators, level.inside) = (0, 0);
            }
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => level.sets += 1,
                Keyword::SELECT
                | Keyword::FROM
                | Keyword::WHERE
                | Keyword::ON
                | Keyword::HAVING
                | Keyword::WHEN
                | Keyword::THEN
                | Keyword::ELSE => {
                    level.before = level.before.max(level.operators + level.inside);
                    (level.operators, level.inside) = (0, 0);
                }
                Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::NOT
                | Keyword::LIKE
                | Keyword::IN
                | Keyword::BETWEEN
                | Keyword::IS
                | Keyword::DIV
                | Keyword::COLLATE
                | Keyword::REGEXP
                | Keyword::RLIKE
                // Of other dialects: the parser makes trees of them, and we refuse them behind it.
                | Keyword::ILIKE
                | Keyword::SIMILAR
                | Keyword::AT
                | Keyword::OVERLAPS
                | Keyword::MATCH
                | Keyword::MEMBER
                | Keyword::OPERATOR
                | Keyword::NOTNULL => level.operators += 1,
                _ if is_word(token, "mod") => level.operators += 1,
                _ => {}
            },
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Whitespace(_) => {}
            Token::DoubleQuotedString(_) | Token::Period | Token::RParen => {}
            // Every other sign is an operator.
            _ => level.operators += 1,
        }
        let level = levels.last()?;
        if level.before.max(level.operators + level.inside) + level.sets > OPERATORS_MAX {
            return Some(span.start);
        }
    }
    None
}

/// A name that could be taken for one of the engine's own.
fn is_strange_name(token: &Token) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: Some(_), .. })
        if value.starts_with('~') || value.chars().any(char::is_control))
}

/// `… at Line: 1, Column: 8`
fn syntax(text: &str) -> EngineError {
    let number = |mark: &str| {
        let (_, rest) = text.rsplit_once(mark)?;
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let place = Location { line: number("Line:").unwrap_or(0), column: number("Column:").unwrap_or(0) };
    let message = text.trim_start_matches("sql parser error: ");
    EngineError::sql(1064, message.split(" at Line:").next().unwrap_or(message)).at(place)
}

/// WITH ROLLUP and the operator MOD as tokens that the parser knows.
fn known(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut tokens: Vec<TokenWithSpan> =
        tokens.into_iter().filter(|it| !matches!(it.token, Token::Whitespace(_))).collect();
    for at in 1..tokens.len() {
        if is_word(&tokens[at - 1].token, "with") && is_word(&tokens[at].token, "rollup") {
            tokens[at - 1].token = Token::Comma;
            tokens[at].token = Token::make_word(ROLLUP, Some('`'));
        }
        let behind_value = match &tokens[at - 1].token {
            Token::Number(..) | Token::RParen | Token::SingleQuotedString(_) => true,
            Token::Word(_) => !matches!(tokens.get(at + 1).map(|it| &it.token), Some(Token::LParen)),
            _ => false,
        };
        if behind_value && is_word(&tokens[at].token, "mod") {
            tokens[at].token = Token::Mod;
        }
    }
    tokens
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_act_are_refused_wherever_they_stand() {
        for sql in [
            "select sleep(1)",
            "select `SLEEP` (1)",
            "select 1 from t where id = (select GET_LOCK('a', 1))",
            "select 1 from t join u on load_file('/etc/passwd') = t.a",
            "select a from t group by benchmark(1000000, md5('a'))",
            "select a from t order by Nextval(s)",
            "with q as (select setval(s, 5) as a) select a from q",
            "select case when keyring_key_remove('a') then 1 end",
            "select group_replication_set_as_primary('a')",
            "select wait_for_executed_gtid_set('a') union select 1",
            "select count(*) over (partition by release_lock('a')) from t",
        ] {
            let error = check_query(sql).unwrap_err().to_string();
            assert!(error.contains("more than read"), "{sql}: {error}");
        }
        check_query("select next value for s").unwrap_err();
        check_query("select sleep, `benchmark` from t where a = 'sleep(1)' and length(sleep) > 1").unwrap();
    }

    #[test]
    fn nothing_hides_behind_table() {
        for sql in [
            "select 1 union table t for update",
            "select 1 union table a.t",
            "with q as (table a.t) select 1",
            "select 1 from t where a in (table a.t)",
            "table t",
        ] {
            check_query(sql).expect_err(sql);
        }
    }

    #[tokio::test]
    async fn a_name_is_found_wherever_a_table_stands() {
        let sql = "with q as (select 1 from a.b union (select 1 from c)) select (select max(x) from `d`) from q, (e join f.g) \
                   where exists (select 1 from d where x in (select y from h))";
        let mut all = named(sql).await.unwrap();
        all.sort();
        assert_eq!(all, ["a.b", "c", "d", "d", "e", "f.g", "h", "q"]);
    }

    #[test]
    fn a_comment_is_one_to_the_server_too() {
        for blank in ['\u{a0}', '\u{85}', '\u{2003}', '\u{3000}'] {
            let error = check_query(&format!("select 1 --{blank} from t")).unwrap_err().to_string();
            assert!(error.contains("none to a server"), "{blank:?}: {error}");
            check_query(&format!("select 1 ---{blank} from t")).unwrap_err();
            check_query(&format!("select '--{blank}' as a from t -- {blank}")).unwrap();
        }
        check_query("select 1 -- 数据\n, 2 --\t数据").unwrap();
    }

    #[test]
    fn no_operator_makes_a_tree_that_is_too_deep() {
        for sign in [
            " minus select ",
            " union select ",
            " ilike ",
            " not ilike ",
            " similar to ",
            " at time zone ",
            " overlaps ",
            " regexp ",
            " member of ",
            " div ",
            " mod ",
        ] {
            let sql = format!("select {}", vec!["'a'"; 100_000].join(sign));
            let error = parsed(&sql).unwrap_err().to_string();
            assert!(error.contains("operators one behind the other"), "{sign}: {error}");
        }
    }
}
