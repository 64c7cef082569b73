//! Text → one statement, by `sqlparser`'s MySQL dialect and what it lacks.

use crate::error::EngineError;
use sqlparser::ast::Statement;
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

/// Bytes of one statement.
const STATEMENT_BYTES_MAX: usize = 16 << 20;

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
