//! MySQL's digest text.
//!
//! The server reduces tokens as its lexer delivers them, so a stack of tokens does it: a literal behind a list and a comma
//! joins the list, a closed parenthesis around literals is a row, rows make lists, `IN` and a row are one. Three reductions
//! are its grammar's: a NULL that is a literal, and the numbers of columns in ORDER BY and GROUP BY, which stay; here they
//! are told by the tokens around them.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::digest_words as lists;
use super::lexer::{Lexer, Token, TokenKind, is_word_byte};
use super::modes::Modes;
use super::word_lists::{MYSQL_RESERVED, MYSQL_UNRESERVED};

/// A token of the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// `?`
    Value,
    /// `?, ...`
    List,
    /// `(?)`
    Row,
    /// `(?) /* , ... */`
    Rows,
    /// `(...)`
    LongRow,
    /// `(...) /* , ... */`
    LongRows,
    /// `IN (...)`
    In,
    Keyword(&'static str),
    /// Without quotes.
    Name(String),
    /// The number of a column.
    Column(u64),
    /// `(_charset)`
    Charset,
    /// `@`, to which the next token clings.
    At,
    /// `@@`, likewise.
    AtAt,
    /// `@` behind a name in a hint, clinging to both.
    HintAt,
    Symbol(&'static str),
}

/// What a spelling of a keyword is written as.
struct Spellings {
    keywords: HashMap<&'static str, &'static str>,
    /// Keywords only in front of `(`.
    called: HashMap<&'static str, &'static str>,
    hints: HashMap<&'static str, &'static str>,
    charsets: HashMap<&'static str, &'static str>,
}

static SPELLINGS: LazyLock<Spellings> = LazyLock::new(|| {
    let as_written: HashMap<_, _> = lists::MYSQL_SPELLINGS.iter().copied().collect();
    let table = |list: &'static str| -> HashMap<&'static str, &'static str> {
        list.split(' ').map(|word| (word, as_written.get(word).copied().unwrap_or(word))).collect()
    };
    let mut keywords = table(MYSQL_RESERVED);
    keywords.extend(table(MYSQL_UNRESERVED));
    Spellings {
        keywords,
        called: table(lists::MYSQL_CALLED),
        hints: table(lists::MYSQL_HINTS),
        charsets: table(lists::MYSQL_CHARSETS),
    }
});

/// Looks a word up whatever its case.
fn look_up(table: &HashMap<&'static str, &'static str>, word: &[u8]) -> Option<&'static str> {
    // The longest word known has 38 letters.
    let mut upper = [0; 64];
    let upper = upper.get_mut(..word.len())?;
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    table.get(std::str::from_utf8(upper).ok()?).copied()
}

/// Behind these an expression begins, so a sign there belongs to the number that follows.
const BEFORE_EXPRESSION: &[&str] = &[
    "SELECT", "=", "(", ",", "+", "-", "*", "/", "%", "^", "|", "&", "||", "&&", "<<", ">>", "<", ">", "<=",
    ">=", "!=", "<=>", "AND", "OR", "XOR", "DIV", "MOD", "NOT", "BETWEEN", "LIKE", "RLIKE", "INTERVAL",
    "CASE", "WHEN", "THEN", "ELSE", "IF", "ELSEIF", "WHILE", "UNTIL", "RETURN", "DEFAULT", "EVERY", "AT",
    "STARTS", "ENDS",
];

/// Behind a number these go on with an expression, which then is no number of a column.
const GOES_ON: &[&str] = &[
    "DIV", "MOD", "AND", "OR", "XOR", "IS", "IN", "LIKE", "BETWEEN", "NOT", "RLIKE", "COLLATE", "MEMBER",
    "SOUNDS",
];

/// These end the list of an ORDER BY or GROUP BY.
const ENDS_LIST: &[&str] = &[
    "LIMIT",
    "HAVING",
    "FOR",
    "INTO",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "WINDOW",
    "ROWS",
    "RANGE",
    "GROUPS",
    "SEPARATOR",
    "LOCK",
    "SELECT",
    "VALUES",
    "QUALIFY",
];

pub(super) fn append(sql: &[u8], out: &mut String, modes: Modes, length_max: usize) {
    let mut digester = Digester {
        lexer: Lexer::new(sql, modes),
        sql,
        modes,
        pieces: Vec::new(),
        bytes: 0,
        length_max,
        is_full: false,
        depth: 0,
        lists: Vec::new(),
        is_hint: false,
    };
    digester.run();
    write(&digester.pieces, out);
}

fn write(pieces: &[Piece], out: &mut String) {
    let mut clings = true;
    for piece in pieces {
        if !clings && *piece != Piece::HintAt {
            out.push(' ');
        }
        clings = matches!(piece, Piece::At | Piece::AtAt | Piece::HintAt);
        match piece {
            Piece::Value => out.push('?'),
            // The server writes a list as a value, and what stands for the rest directly behind it.
            Piece::List => out.push_str("?, ..."),
            Piece::Row => out.push_str("(?)"),
            Piece::Rows => out.push_str("(?) /* , ... */"),
            Piece::LongRow => out.push_str("(...)"),
            Piece::LongRows => out.push_str("(...) /* , ... */"),
            Piece::In => out.push_str("IN (...)"),
            Piece::Charset => out.push_str("(_charset)"),
            Piece::At | Piece::HintAt => out.push('@'),
            Piece::AtAt => out.push_str("@@"),
            Piece::Keyword(text) | Piece::Symbol(text) => out.push_str(text),
            Piece::Column(number) => out.push_str(&number.to_string()),
            Piece::Name(name) => {
                out.push('`');
                out.push_str(name);
                out.push('`');
            }
        }
    }
}

struct Digester<'a> {
    lexer: Lexer<'a>,
    sql: &'a [u8],
    modes: Modes,
    pieces: Vec<Piece>,
    /// What the pieces take in the server's memory.
    bytes: usize,
    length_max: usize,
    /// Whether a token did not fit: the server then notes no more.
    is_full: bool,
    depth: u32,
    /// The depths of the ORDER BY and GROUP BY lists that are open.
    lists: Vec<u32>,
    /// Whether the inside of a hint is being read: its scanner is another, which knows no signs.
    is_hint: bool,
}

impl Digester<'_> {
    fn run(&mut self) {
        let mut previous = Token { kind: TokenKind::End, start: 0, end: 0 };
        let mut semicolons = 0;
        loop {
            let token = self.lexer.next_token();
            match token.kind {
                TokenKind::End => return,
                TokenKind::Comment | TokenKind::ExecutableOpen | TokenKind::ExecutableClose => {
                    // A hint counts directly behind its verb only.
                    previous = token;
                    continue;
                }
                TokenKind::Hint => {
                    let is_behind_verb = previous.kind == TokenKind::Word
                        && self.ends_with(&["SELECT", "INSERT", "REPLACE", "UPDATE", "DELETE"]);
                    if is_behind_verb {
                        self.hint(&self.sql[token.start + 3..token.end - 2]);
                    }
                    previous = token;
                    continue;
                }
                TokenKind::Semicolon => {
                    semicolons += 1;
                    previous = token;
                    continue;
                }
                _ => {}
            }
            for _ in 0..std::mem::take(&mut semicolons) {
                self.push(Piece::Symbol(";"));
            }
            self.token(token, previous);
            previous = token;
        }
    }

    fn token(&mut self, token: Token, previous: Token) {
        let text = self.lexer.text(token);
        match token.kind {
            TokenKind::Word => self.word(token, text, previous),
            TokenKind::QuotedName => self.push(Piece::Name(unquoted(text))),
            TokenKind::Text | TokenKind::NationalText | TokenKind::Parameter => self.value(),
            TokenKind::Integer if self.is_column() => self.column(text),
            TokenKind::Integer | TokenKind::Decimal | TokenKind::Float | TokenKind::Hex | TokenKind::Bit => {
                self.drop_signs();
                self.value();
            }
            TokenKind::UserVariable => {
                self.push(Piece::At);
                match text.get(1) {
                    Some(b'`') => self.push(Piece::Name(unquoted(&text[1..]))),
                    _ => self.value(),
                }
            }
            TokenKind::SystemVariable => self.system_variable(text),
            TokenKind::LeftParenthesis => {
                self.depth += 1;
                if self.ends_with(&["ROLLUP"]) {
                    self.lists.push(self.depth);
                }
                self.push(Piece::Symbol("("));
            }
            TokenKind::RightParenthesis => {
                self.depth = self.depth.saturating_sub(1);
                self.lists.retain(|depth| *depth <= self.depth);
                self.close();
            }
            _ => self.symbol(text),
        }
    }

    fn symbol(&mut self, text: &[u8]) {
        const SYMBOLS: &[&str] = &[
            ",", ".", "=", "+", "-", "*", "/", "%", "<", ">", "<=", ">=", "!=", "<=>", "<<", ">>", "&", "&&",
            "|", "||", "^", "~", "!", ":=", ":", "->", "->>", "{", "}", "[", "]",
        ];
        let text = if text == b"<>" { b"!=" } else { text };
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| symbol.as_bytes() == text) {
            self.push(Piece::Symbol(symbol));
        }
    }

    fn word(&mut self, token: Token, text: &[u8], previous: Token) {
        let at = |offset: usize| self.sql.get(token.end + offset).copied().unwrap_or(0);
        let is_behind_dot = previous.kind == TokenKind::Dot && previous.end == token.start;
        let is_variable =
            previous.kind == TokenKind::SystemVariable && self.pieces.last() == Some(&Piece::AtAt);
        if is_behind_dot || !is_variable && at(0) == b'.' && is_word_byte(at(1)) {
            return self.push(Piece::Name(text_of(text)));
        }
        if text.first() == Some(&b'_') && look_up(&SPELLINGS.charsets, &text[1..]).is_some() {
            return self.push(Piece::Charset);
        }
        let is_called =
            at(0) == b'(' || self.modes.ignore_space && self.peek().kind == TokenKind::LeftParenthesis;
        let keyword = look_up(&SPELLINGS.keywords, text)
            .or_else(|| if is_called { look_up(&SPELLINGS.called, text) } else { None });
        match keyword {
            None => self.push(Piece::Name(text_of(text))),
            Some("NULL") if self.is_null_literal() => self.value(),
            Some(keyword) => {
                if self.lists.last() == Some(&self.depth) && ENDS_LIST.contains(&keyword) {
                    self.lists.pop();
                }
                if keyword == "BY" && self.lists.last() != Some(&self.depth) {
                    self.lists.push(self.depth);
                }
                self.push(Piece::Keyword(keyword));
            }
        }
    }

    fn system_variable(&mut self, text: &[u8]) {
        self.push(Piece::AtAt);
        for (index, part) in parts(&text[2..]).enumerate() {
            if index > 0 {
                self.push(Piece::Symbol("."));
            }
            match look_up(&SPELLINGS.keywords, part) {
                Some(keyword) if index == 0 => self.push(Piece::Keyword(keyword)),
                _ if part.first() == Some(&b'`') => self.push(Piece::Name(unquoted(part))),
                _ => self.push(Piece::Name(text_of(part))),
            }
        }
    }

    /// The inside of a hint.
    fn hint(&mut self, inside: &[u8]) {
        let (bytes, length) = (self.bytes, self.pieces.len());
        self.push(Piece::Symbol("/*+"));
        let is_outside = std::mem::replace(&mut self.is_hint, true);
        let mut lexer = Lexer::new(inside, Modes::default());
        let mut name_end = usize::MAX;
        loop {
            let token = lexer.next_code();
            let text = lexer.text(token);
            match token.kind {
                TokenKind::End => break,
                TokenKind::Word if text[0].is_ascii_digit() => self.value(),
                TokenKind::Word => match look_up(&SPELLINGS.hints, text) {
                    Some(hint) => self.push(Piece::Keyword(hint)),
                    None => self.push(Piece::Name(text_of(text))),
                },
                TokenKind::UserVariable => {
                    self.push(if name_end == token.start { Piece::HintAt } else { Piece::At });
                    match text.get(1) {
                        Some(b'`') => self.push(Piece::Name(unquoted(&text[1..]))),
                        _ => self.push(Piece::Name(text_of(&text[1..]))),
                    }
                }
                TokenKind::QuotedName => self.push(Piece::Name(unquoted(text))),
                TokenKind::LeftParenthesis => self.push(Piece::Symbol("(")),
                TokenKind::RightParenthesis => self.close(),
                TokenKind::Comma | TokenKind::Operator => self.symbol(text),
                TokenKind::Dot => {}
                _ => self.value(),
            }
            let is_name = matches!(token.kind, TokenKind::Word | TokenKind::QuotedName);
            name_end = if is_name { token.end } else { usize::MAX };
        }
        self.is_hint = is_outside;
        if self.pieces.len() == length + 1 {
            self.pieces.truncate(length);
            self.bytes = bytes;
        } else {
            self.push(Piece::Symbol("*/"));
        }
    }

    /// Adds a literal, and joins it to a list that it ends.
    fn value(&mut self) {
        if let [.., Piece::Value | Piece::List, Piece::Symbol(",")] = self.pieces[..] {
            self.pop(2);
            self.push(Piece::List);
        } else {
            self.push(Piece::Value);
        }
    }

    /// Takes the signs in front of a number away, if they are no operators.
    fn drop_signs(&mut self) {
        while !self.is_hint
            && let [.., before, Piece::Symbol("+" | "-")] = &self.pieces[..]
            && matches!(before, Piece::Keyword(text) | Piece::Symbol(text) if BEFORE_EXPRESSION.contains(text))
        {
            self.pop(1);
        }
    }

    /// Adds `)`, and makes a row of what it closes.
    fn close(&mut self) {
        let (row, rows) = match self.pieces[..] {
            [.., Piece::Symbol("("), Piece::Value] => (Piece::Row, Piece::Rows),
            [.., Piece::Symbol("("), Piece::List] => (Piece::LongRow, Piece::LongRows),
            _ => return self.push(Piece::Symbol(")")),
        };
        self.pop(2);
        match &self.pieces[..] {
            [.., Piece::Keyword("IN")] => {
                self.pop(1);
                self.push(Piece::In);
            }
            [.., before, Piece::Symbol(",")] if *before == row || *before == rows => {
                self.pop(2);
                self.push(rows);
            }
            _ => self.push(row),
        }
    }

    /// Whether an integer that stands here is the number of a column: an item of ORDER BY or GROUP BY for itself.
    fn is_column(&self) -> bool {
        if self.lists.last() != Some(&self.depth) {
            return false;
        }
        let begins = match &self.pieces[..] {
            [.., Piece::Value | Piece::List, Piece::Symbol(",")] => false,
            [.., Piece::Keyword("BY") | Piece::Symbol(",")] => true,
            [.., Piece::Keyword("ROLLUP"), Piece::Symbol("(")] => true,
            _ => false,
        };
        begins && {
            let next = self.peek();
            match next.kind {
                TokenKind::Comma | TokenKind::RightParenthesis | TokenKind::End | TokenKind::Semicolon => {
                    true
                }
                TokenKind::Word => {
                    let keyword = look_up(&SPELLINGS.keywords, self.lexer.text(next));
                    !keyword.is_some_and(|keyword| GOES_ON.contains(&keyword))
                }
                _ => false,
            }
        }
    }

    fn column(&mut self, text: &[u8]) {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u32>().ok());
        match number {
            Some(number) => self.push(Piece::Column(number.into())),
            None => self.value(),
        }
    }

    /// Whether a NULL that stands here is a literal, and no part of IS NULL, NOT NULL, ON EMPTY, or a column's definition.
    fn is_null_literal(&self) -> bool {
        if self.is_before_on_error() {
            return false;
        }
        let is_definition = matches!(self.pieces.first(), Some(Piece::Keyword("CREATE" | "ALTER")));
        let begins_expression = |piece: &Piece| matches!(piece, Piece::Keyword(text) | Piece::Symbol(text) if BEFORE_EXPRESSION.contains(text));
        match &self.pieces[..] {
            [.., Piece::Keyword("IS")] | [.., Piece::Keyword("IS"), Piece::Keyword("NOT")] => false,
            [.., before, Piece::Keyword("NOT")] if is_definition => begins_expression(before),
            [.., last] if is_definition => begins_expression(last),
            _ => true,
        }
    }

    /// NULL ON EMPTY and NULL ON ERROR, of JSON_TABLE and JSON_VALUE.
    fn is_before_on_error(&self) -> bool {
        let mut ahead = self.lexer.clone();
        let on = ahead.next_code();
        let what = ahead.next_code();
        let is = |token: Token, word: &str| ahead.text(token).eq_ignore_ascii_case(word.as_bytes());
        is(on, "ON") && (is(what, "EMPTY") || is(what, "ERROR"))
    }

    fn peek(&self) -> Token {
        self.lexer.clone().next_code()
    }

    fn ends_with(&self, keywords: &[&str]) -> bool {
        matches!(self.pieces.last(), Some(Piece::Keyword(keyword)) if keywords.contains(keyword))
    }

    fn push(&mut self, piece: Piece) {
        let size = size(&piece);
        if self.is_full || self.bytes + size > self.length_max {
            self.is_full = true;
            return;
        }
        self.bytes += size;
        self.pieces.push(piece);
    }

    fn pop(&mut self, count: usize) {
        if self.is_full {
            return;
        }
        for _ in 0..count {
            if let Some(piece) = self.pieces.pop() {
                self.bytes -= size(&piece);
            }
        }
    }
}

/// What a token takes in the server's memory: its number, and a name with its length.
fn size(piece: &Piece) -> usize {
    match piece {
        Piece::Name(name) => 4 + name.len(),
        _ => 2,
    }
}

/// The names of `scope.name`, quoted or not.
fn parts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text).filter(|text| !text.is_empty());
    std::iter::from_fn(move || {
        let text = rest?;
        let mut is_quoted = false;
        let end = text.iter().position(|byte| {
            is_quoted ^= *byte == b'`';
            *byte == b'.' && !is_quoted
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// A quoted name without its quotes.
fn unquoted(text: &[u8]) -> String {
    let quote = text[0] as char;
    let inside = text_of(&text[1..text.len() - 1]);
    inside.replace(&format!("{quote}{quote}"), &quote.to_string())
}

fn text_of(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
