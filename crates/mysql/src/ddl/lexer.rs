//! MySQL's words, names, strings and comments; nothing of its grammar.
//!
//! Executable comments (`/*!50100 … */`, `/*M! … */`) are read as the statement they are part of; other comments, and
//! hints, vanish.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An unquoted word or number.
    Word(String),
    /// A quoted name.
    Name(String),
    /// A string literal.
    Text(String),
    Symbol(char),
}

/// The tokens of `sql`; `None` when a quote or comment is not closed.
pub(super) fn tokens(sql: &str, ansi_quotes: bool) -> Option<Vec<Token>> {
    let mut lexer = Lexer { rest: sql, executable: 0, out: Vec::new() };
    while let Some(first) = lexer.rest.chars().next() {
        lexer.step(first, ansi_quotes)?;
    }
    (lexer.executable == 0).then_some(lexer.out)
}

struct Lexer<'s> {
    rest: &'s str,
    /// Executable comments that are open.
    executable: usize,
    out: Vec<Token>,
}

impl Lexer<'_> {
    fn step(&mut self, first: char, ansi_quotes: bool) -> Option<()> {
        let rest = self.rest;
        if first.is_whitespace() || first == '\0' {
            self.rest = &rest[first.len_utf8()..];
        } else if first == '#' || is_dash_comment(rest) {
            self.rest = rest.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(after) = rest.strip_prefix("/*!").or_else(|| rest.strip_prefix("/*M!")) {
            self.executable += 1;
            self.rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        } else if let Some(after) = rest.strip_prefix("/*") {
            self.rest = after.split_once("*/")?.1;
        } else if self.executable > 0 && rest.starts_with("*/") {
            self.executable -= 1;
            self.rest = &rest[2..];
        } else if matches!(first, '`' | '\'' | '"') {
            let (text, length) = quoted(rest, first, first != '`' && !(first == '"' && ansi_quotes))?;
            self.rest = &rest[length..];
            let is_name = first == '`' || (first == '"' && ansi_quotes);
            self.out.push(if is_name { Token::Name(text) } else { Token::Text(text) });
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            self.out.push(Token::Word(rest[..end].to_owned()));
            self.rest = &rest[end..];
        } else {
            self.out.push(Token::Symbol(first));
            self.rest = &rest[first.len_utf8()..];
        }
        Some(())
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || (!c.is_ascii() && !c.is_whitespace())
}

fn is_dash_comment(rest: &str) -> bool {
    rest.strip_prefix("--")
        .is_some_and(|after| after.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control()))
}

/// The content of the quoted text that `rest` starts with, and its length with quotes.
fn quoted(rest: &str, quote: char, backslashes: bool) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && backslashes {
            out.push(chars.next()?.1);
        } else if c != quote {
            out.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            chars.next();
            out.push(quote);
        } else {
            return Some((out, at + 1));
        }
    }
    None
}
