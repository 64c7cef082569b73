//! SET statements that assign literals only: what a session's state can be noted, compared and replayed from.
//!
//! Whatever is more than that, an expression, a function, another scope than the session's, makes the whole statement one
//! that only the server can tell the effect of; the answer is then `None`, never a part.

use super::lexer::{Lexer, Token, TokenKind};
use super::modes::Modes;
use super::scan::Span;

/// How long an assignment lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Session,
    /// Until the next transaction has ended: SET TRANSACTION, `SET @@transaction_isolation`.
    NextTransaction,
    /// A user variable of the session.
    User,
}

/// One thing that a SET statement sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub scope: Scope,
    /// In lower case, without `@`, scope and quotes: the variable; `names`, and `collate` behind it; `character set`;
    /// `transaction_isolation` and `transaction_read_only` also of SET TRANSACTION.
    pub name: String,
    /// The value as it was written: a literal with its quotes and sign, DEFAULT, a word like `ON` or `utf8mb4`; of SET
    /// TRANSACTION the level, or READ ONLY or READ WRITE.
    pub value: Span,
}

/// What a SET statement sets, in its order; `None` unless all of it is literals for this session.
pub fn parse_set(sql: &[u8], modes: Modes) -> Option<Vec<Assignment>> {
    let mut parser = Parser { lexer: Lexer::new(sql, modes), out: Vec::new() };
    parser.statement()?;
    Some(parser.out)
}

/// One thing that a SET statement sets, whatever it is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub scope: Scope,
    /// As in [`Assignment`].
    pub name: String,
    /// From the variable to the end of the value.
    pub whole: Span,
    /// The value is one that [`parse_set`] takes.
    pub is_literal: bool,
}

/// What a SET statement sets, also by expressions; `None` where it sets more than what it names, for other scopes, or cannot
/// be read for sure. An expression may still call what sets something.
pub fn parse_assigned(sql: &[u8], modes: Modes) -> Option<Vec<Assigned>> {
    let mut parser = Parser { lexer: Lexer::new(sql, modes), out: Vec::new() };
    let set = parser.next()?;
    parser.is_word(set, "set").then_some(())?;
    let mut all = Vec::new();
    loop {
        let token = parser.next()?;
        let (one, end) = parser.assigned(token)?;
        all.push(one);
        match end.kind {
            TokenKind::Comma => {}
            TokenKind::Semicolon => return (parser.next()?.kind == TokenKind::End).then_some(all),
            _ => return Some(all),
        }
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    out: Vec<Assignment>,
}

/// Variables that a bare `@@name` sets for one transaction.
const OF_TRANSACTIONS: &[&str] =
    &["transaction_isolation", "transaction_read_only", "tx_isolation", "tx_read_only"];

impl Parser<'_> {
    fn statement(&mut self) -> Option<()> {
        let set = self.next()?;
        self.is_word(set, "set").then_some(())?;
        let mut token = self.next()?;
        if self.is_word(token, "transaction") {
            return self.transaction(Scope::NextTransaction);
        }
        if self.is_scope(token) && self.is_word(self.peek()?, "transaction") {
            self.next()?;
            return self.transaction(Scope::Session);
        }
        loop {
            self.assignment(token)?;
            match self.next()?.kind {
                TokenKind::Comma => token = self.next()?,
                TokenKind::Semicolon => return (self.next()?.kind == TokenKind::End).then_some(()),
                TokenKind::End => return Some(()),
                _ => return None,
            }
        }
    }

    fn assignment(&mut self, token: Token) -> Option<()> {
        if token.kind == TokenKind::Word {
            if self.is_word(token, "names") {
                return self.names();
            }
            if self.is_word(token, "charset") {
                return self.character_set();
            }
            if self.is_any(token, &["character", "char"]) {
                let set = self.next()?;
                self.is_word(set, "set").then_some(())?;
                return self.character_set();
            }
        }
        let (scope, name) = self.target(token)?;
        self.assign()?;
        let value = self.literal(scope != Scope::User)?;
        self.put(scope, name, value)
    }

    /// The variable that is set.
    fn target(&mut self, token: Token) -> Option<(Scope, String)> {
        match token.kind {
            TokenKind::UserVariable => {
                let name = unquoted(&self.lexer.text(token)[1..]).filter(|name| !name.is_empty())?;
                Some((Scope::User, name))
            }
            TokenKind::SystemVariable => {
                let text = &self.lexer.text(token)[2..];
                let (scope, name) = match text.iter().position(|byte| *byte == b'.') {
                    Some(dot) => (Some(&text[..dot]), unquoted(&text[dot + 1..])?),
                    None => (None, unquoted(text)?),
                };
                let is_session = |scope: &[u8]| {
                    scope.eq_ignore_ascii_case(b"session") || scope.eq_ignore_ascii_case(b"local")
                };
                scope.is_none_or(is_session).then_some(())?;
                let is_once = scope.is_none() && OF_TRANSACTIONS.contains(&name.as_str());
                Some((if is_once { Scope::NextTransaction } else { Scope::Session }, name))
            }
            TokenKind::Word if self.is_scope(token) => {
                let name = self.next()?;
                self.named(name)
            }
            _ => self.named(token),
        }
    }

    /// A variable without `@`.
    fn named(&self, name: Token) -> Option<(Scope, String)> {
        matches!(name.kind, TokenKind::Word | TokenKind::QuotedName).then_some(())?;
        // Statements of their own, or other scopes.
        let is_other = [
            "global",
            "persist",
            "persist_only",
            "password",
            "role",
            "default",
            "resource",
            "statement",
            "transaction",
        ];
        let name = unquoted(self.lexer.text(name)).filter(|_| !self.is_any(name, &is_other))?;
        Some((Scope::Session, name))
    }

    /// A variable and its value, up to the token behind it.
    fn assigned(&mut self, first: Token) -> Option<(Assigned, Token)> {
        let mut plain = Parser { lexer: self.lexer.clone(), out: Vec::new() };
        if plain.assignment(first).is_some() {
            // `names` with `collate` is two of one text.
            let [one, ..] = &plain.out[..] else { return None };
            let end = plain.out.iter().map(|one| one.value.end).max()?;
            let (scope, name) = (one.scope, one.name.clone());
            let next = plain.next()?;
            if matches!(next.kind, TokenKind::Comma | TokenKind::Semicolon | TokenKind::End) {
                self.lexer = plain.lexer;
                let whole = Span { start: first.start, end };
                return Some((Assigned { scope, name, whole, is_literal: true }, next));
            }
        }
        let (scope, name) = self.target(first)?;
        self.assign()?;
        let (mut depth, mut end) = (0_u32, None);
        loop {
            let token = self.next()?;
            match token.kind {
                TokenKind::LeftParenthesis => depth += 1,
                TokenKind::RightParenthesis => depth = depth.checked_sub(1)?,
                TokenKind::Comma | TokenKind::Semicolon | TokenKind::End if depth == 0 => {
                    let whole = Span { start: first.start, end: end? };
                    return Some((Assigned { scope, name, whole, is_literal: false }, token));
                }
                TokenKind::Semicolon | TokenKind::End => return None,
                // A variable within the expression is set too.
                TokenKind::Operator if self.lexer.text(token) == b":=" => return None,
                _ => {}
            }
            end = Some(token.end);
        }
    }

    fn names(&mut self) -> Option<()> {
        let value = self.charset()?;
        self.put(Scope::Session, "names".to_owned(), value)?;
        if self.is_word(self.peek()?, "collate") {
            self.next()?;
            let value = self.charset()?;
            self.put(Scope::Session, "collate".to_owned(), value)?;
        }
        Some(())
    }

    fn character_set(&mut self) -> Option<()> {
        let value = self.charset()?;
        self.put(Scope::Session, "character set".to_owned(), value)
    }

    /// The name of a character set or collation, or DEFAULT.
    fn charset(&mut self) -> Option<Span> {
        let token = self.next()?;
        matches!(token.kind, TokenKind::Word | TokenKind::QuotedName | TokenKind::Text)
            .then_some(Span { start: token.start, end: token.end })
    }

    fn transaction(&mut self, scope: Scope) -> Option<()> {
        loop {
            let first = self.next()?;
            if self.is_word(first, "isolation") {
                let level = self.next()?;
                self.is_word(level, "level").then_some(())?;
                let mut last = self.next()?;
                let start = last.start;
                if !self.is_word(last, "serializable") {
                    let second = self.next()?;
                    let is_level = self.is_word(last, "read")
                        && (self.is_word(second, "committed") || self.is_word(second, "uncommitted"))
                        || self.is_word(last, "repeatable") && self.is_word(second, "read");
                    is_level.then_some(())?;
                    last = second;
                }
                self.put(scope, "transaction_isolation".to_owned(), Span { start, end: last.end })?;
            } else {
                let second = self.next()?;
                let is_access = self.is_word(first, "read")
                    && (self.is_word(second, "only") || self.is_word(second, "write"));
                is_access.then_some(())?;
                let value = Span { start: first.start, end: second.end };
                self.put(scope, "transaction_read_only".to_owned(), value)?;
            }
            match self.next()?.kind {
                TokenKind::Comma => {}
                TokenKind::Semicolon => return (self.next()?.kind == TokenKind::End).then_some(()),
                TokenKind::End => return Some(()),
                _ => return None,
            }
        }
    }

    /// `=` or `:=`
    fn assign(&mut self) -> Option<()> {
        let token = self.next()?;
        matches!(self.lexer.text(token), b"=" | b":=").then_some(())
    }

    /// A literal. A system variable also takes a word for its text, and DEFAULT.
    fn literal(&mut self, takes_words: bool) -> Option<Span> {
        let first = self.next()?;
        let mut last = first;
        match first.kind {
            TokenKind::Operator if matches!(self.lexer.text(first), b"-" | b"+") => {
                last = self.next()?;
                matches!(last.kind, TokenKind::Integer | TokenKind::Decimal | TokenKind::Float)
                    .then_some(())?;
            }
            TokenKind::Text
            | TokenKind::NationalText
            | TokenKind::Integer
            | TokenKind::Decimal
            | TokenKind::Float
            | TokenKind::Hex
            | TokenKind::Bit => {}
            TokenKind::Word if self.is_any(first, &["true", "false", "null"]) => {}
            // A word in front of a string may be an introducer, or a function's: what follows decides.
            TokenKind::Word if takes_words => {}
            _ => return None,
        }
        Some(Span { start: first.start, end: last.end })
    }

    fn put(&mut self, scope: Scope, name: String, value: Span) -> Option<()> {
        self.out.push(Assignment { scope, name, value });
        Some(())
    }

    fn is_scope(&self, token: Token) -> bool {
        self.is_any(token, &["session", "local"])
    }

    fn is_any(&self, token: Token, words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(token, word))
    }

    fn is_word(&self, token: Token, word: &str) -> bool {
        token.kind == TokenKind::Word && self.lexer.text(token).eq_ignore_ascii_case(word.as_bytes())
    }

    /// The next token; `None` where servers do not read the same.
    fn next(&mut self) -> Option<Token> {
        loop {
            let token = self.lexer.next_token();
            match token.kind {
                TokenKind::Comment => {
                    // One for another version, or another server.
                    if self.lexer.text(token).get(2..4).is_some_and(|it| it[0] == b'!' || it[1] == b'!') {
                        return None;
                    }
                }
                TokenKind::Hint | TokenKind::ExecutableOpen | TokenKind::ExecutableClose | TokenKind::Bad => {
                    return None;
                }
                _ => return Some(token),
            }
        }
    }

    fn peek(&self) -> Option<Token> {
        Parser { lexer: self.lexer.clone(), out: Vec::new() }.next()
    }
}

/// A name in lower case, without its quotes; `None` when it has dots outside, or is no text.
fn unquoted(text: &[u8]) -> Option<String> {
    let name = match text {
        [quote @ (b'`' | b'\'' | b'"'), inside @ .., last] if last == quote => {
            let quote = *quote as char;
            let inside = std::str::from_utf8(inside).ok()?;
            // Escapes are the server's to read.
            (!inside.contains('\\'))
                .then(|| inside.replace(&format!("{quote}{quote}"), &quote.to_string()))?
        }
        _ => std::str::from_utf8(text).ok()?.to_owned(),
    };
    Some(name.to_lowercase())
}
