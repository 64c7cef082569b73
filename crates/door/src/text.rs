//! A statement as words: what stands where, without a grammar.

use mysql::sql::{Lexer, Modes, Token, TokenKind};

/// Words and signs of one statement that are looked at.
const TOKENS_MAX: usize = 500_000;

/// A statement and its tokens, without comments.
pub struct Text<'a> {
    pub sql: &'a str,
    pub tokens: Vec<Token>,
}

impl<'a> Text<'a> {
    /// `None` where it is too long.
    pub fn read(sql: &'a str) -> Option<Self> {
        let mut lexer = Lexer::new(sql.as_bytes(), Modes::default());
        let mut tokens = Vec::new();
        loop {
            let token = lexer.next_code();
            if token.kind == TokenKind::End {
                break;
            }
            if tokens.len() == TOKENS_MAX {
                return None;
            }
            tokens.push(token);
        }
        while tokens.last().is_some_and(|it: &Token| it.kind == TokenKind::Semicolon) {
            tokens.pop();
        }
        Some(Self { sql, tokens })
    }

    pub fn kind(&self, at: usize) -> Option<TokenKind> {
        self.tokens.get(at).map(|it| it.kind)
    }

    /// The text of a token; empty behind the last.
    pub fn at(&self, at: usize) -> &'a str {
        self.tokens.get(at).and_then(|it| self.sql.get(it.start..it.end)).unwrap_or_default()
    }

    /// Whether a token is this word, without quotes.
    pub fn is(&self, at: usize, word: &str) -> bool {
        self.kind(at) == Some(TokenKind::Word) && self.at(at).eq_ignore_ascii_case(word)
    }

    /// Whether the words stand here one behind the other.
    pub fn are(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(place, word)| self.is(at + place, word))
    }

    /// From a token to the end of the statement.
    pub fn from(&self, at: usize) -> &'a str {
        let (Some(first), Some(last)) = (self.tokens.get(at), self.tokens.last()) else { return "" };
        self.sql.get(first.start..last.end).unwrap_or_default()
    }

    /// The name at a token, without its quotes.
    pub fn name(&self, at: usize) -> Option<String> {
        match self.kind(at)? {
            TokenKind::Word => Some(self.at(at).to_owned()),
            TokenKind::QuotedName => Some(unquoted(self.at(at), '`')),
            _ => None,
        }
    }

    /// `table` or `database.table` at a token, and the place behind it.
    pub fn table(&self, at: usize) -> Option<(Option<String>, String, usize)> {
        let first = self.name(at)?;
        if self.kind(at + 1) == Some(TokenKind::Dot) {
            return Some((Some(first), self.name(at + 2)?, at + 3));
        }
        Some((None, first, at + 1))
    }

    /// The value of a text at a token.
    pub fn string(&self, at: usize) -> Option<String> {
        (self.kind(at)? == TokenKind::Text).then(|| unescaped(self.at(at)))
    }

    /// A text or a word that stands for itself: `utf8mb4`, `'utf8mb4'`.
    pub fn word_or_string(&self, at: usize) -> Option<String> {
        self.string(at).or_else(|| self.name(at))
    }
}

/// The inside of a statement that is one executable comment, `/*!40101 SET NAMES utf8 */`: what dumps send.
pub fn unwrapped(sql: &str) -> &str {
    let inner = sql
        .trim()
        .trim_end_matches(';')
        .trim_end()
        .strip_prefix("/*!")
        .and_then(|rest| rest.strip_suffix("*/"));
    match inner {
        Some(inner) if !inner.contains("*/") => inner.trim_start_matches(|c: char| c.is_ascii_digit()).trim(),
        _ => sql,
    }
}

fn unquoted(text: &str, quote: char) -> String {
    let inner = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).unwrap_or(text);
    inner.replace(&format!("{quote}{quote}"), &quote.to_string())
}

/// The value of a literal with its quotes.
pub fn unescaped(literal: &str) -> String {
    let Some(quote) = literal.chars().next().filter(|it| *it == '\'' || *it == '"') else {
        return literal.to_owned();
    };
    let inner = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('0') => out.push('\0'),
                Some('b') => out.push('\u{8}'),
                Some('Z') => out.push('\u{1a}'),
                // These stay, for LIKE.
                Some(pattern @ ('%' | '_')) => out.extend(['\\', pattern]),
                Some(other) => out.push(other),
                None => {}
            },
            c if c == quote => {
                out.push(c);
                chars.next();
            }
            c => out.push(c),
        }
    }
    out
}

/// A text as a literal.
pub fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_come_back() {
        for text in ["", "it's", "a\\b", "q\"q", "line\nline", "数据"] {
            assert_eq!(unescaped(&literal(text)), text);
        }
        assert_eq!(unescaped(r"'a\_b\'c''d'"), r"a\_b'c'd");
        assert_eq!(unescaped("\"a''b\"\"c\""), "a''b\"c");
    }

    #[test]
    fn names_are_read_with_their_quotes() {
        let text = Text::read("SHOW TABLES FROM `a``b`.`c` ; ").unwrap();
        assert_eq!(text.table(3), Some((Some("a`b".into()), "c".into(), 6)));
        assert!(text.are(0, &["show", "tables"]) && text.kind(6).is_none());
    }
}
