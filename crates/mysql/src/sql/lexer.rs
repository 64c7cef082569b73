//! Tokens of a statement, as MySQL, MariaDB and TiDB split it, without copying a byte.
//!
//! Any bytes may come in: what is not SQL is a [`TokenKind::Bad`] token, and every token ends within the input. A server
//! reads a string in the character set of its client, so [`Modes`] has it: a trail byte that looks like `\` or a quote is
//! no such thing.

use super::modes::{Dialect, Modes};

/// What a token is; its text is the bytes of its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The input has ended.
    End,
    /// A word without quotes: a keyword, a name, `_utf8mb4` in front of a string.
    Word,
    /// `` `name` ``, or `"name"` under ANSI_QUOTES, with its quotes.
    QuotedName,
    /// `'text'` or `"text"`, with its quotes. Neighbours that the server joins are tokens of their own.
    Text,
    /// `N'text'`.
    NationalText,
    Integer,
    /// Digits with a point.
    Decimal,
    /// Digits with an exponent.
    Float,
    /// `x'1f'`, `0x1f`.
    Hex,
    /// `b'01'`, `0b01`.
    Bit,
    /// `?`
    Parameter,
    /// `@name`, `@'name'`, `` @`name` ``; also the host of an account.
    UserVariable,
    /// `@@name`, `@@scope.name`.
    SystemVariable,
    LeftParenthesis,
    RightParenthesis,
    Comma,
    Dot,
    Semicolon,
    /// Everything else that is not a letter: `<=>`, `:=`, `->>`, `*`, ….
    Operator,
    /// A comment, or an executable one that this dialect passes over.
    Comment,
    /// `/*+ … */`
    Hint,
    /// `/*!`, `/*!80000`, `/*M!`, `/*T![feature]`, where this dialect goes on to read the inside.
    ExecutableOpen,
    /// The `*/` of an executable comment.
    ExecutableClose,
    /// A quote or comment that is not closed, or a byte that begins nothing.
    Bad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    /// Offset of its first byte.
    pub start: usize,
    /// Offset behind its last byte.
    pub end: usize,
}

/// Splits a statement into tokens, the comments among them.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    modes: Modes,
    /// Whether the inside of an executable comment is being read.
    in_executable: bool,
    /// Whether a name and a dot stand directly before `at`: digits are then a name.
    is_behind_name_dot: bool,
    /// Whether the last token was a name.
    was_name: bool,
}

/// How a byte begins a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Blank,
    Letter,
    /// `x`, `b` and `n`, which may introduce a string.
    Introducer,
    Digit,
    Quote,
    Backtick,
    Dot,
    At,
    Dash,
    Slash,
    Hash,
    Star,
    Operator,
    Left,
    Right,
    Comma,
    Semicolon,
    Question,
    Backslash,
    Bad,
}

/// Which bytes are digits of a literal.
type Digit = fn(u8) -> bool;

const FIRST: [First; 256] = first_table();
const WORD: [bool; 256] = word_table();

const fn first_table() -> [First; 256] {
    let mut table = [First::Bad; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'x' | b'X' | b'b' | b'B' | b'n' | b'N' => First::Introducer,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | 0x80..=0xff => First::Letter,
            b'0'..=b'9' => First::Digit,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => First::Blank,
            b'\'' | b'"' => First::Quote,
            b'`' => First::Backtick,
            b'.' => First::Dot,
            b'@' => First::At,
            b'-' => First::Dash,
            b'/' => First::Slash,
            b'#' => First::Hash,
            b'*' => First::Star,
            b'(' => First::Left,
            b')' => First::Right,
            b',' => First::Comma,
            b';' => First::Semicolon,
            b'?' => First::Question,
            b'\\' => First::Backslash,
            b'+' | b'%' | b'=' | b'<' | b'>' | b'!' | b'&' | b'|' | b'^' | b'~' | b':' | b'{' | b'}'
            | b'[' | b']' => First::Operator,
            _ => First::Bad,
        };
        byte += 1;
    }
    table
}

const fn word_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] =
            matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' | 0x80..=0xff);
        byte += 1;
    }
    table
}

#[inline]
pub(super) fn is_word_byte(byte: u8) -> bool {
    WORD[byte as usize]
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a [u8], modes: Modes) -> Lexer<'a> {
        Lexer { sql, at: 0, modes, in_executable: false, is_behind_name_dot: false, was_name: false }
    }

    /// The bytes of a token.
    #[inline]
    pub fn text(&self, token: Token) -> &'a [u8] {
        self.sql.get(token.start..token.end).unwrap_or_default()
    }

    /// Whether what comes next is inside an executable comment.
    pub fn in_executable(&self) -> bool {
        self.in_executable
    }

    /// The next token that is neither a comment nor a hint.
    #[inline]
    pub fn next_code(&mut self) -> Token {
        loop {
            let token = self.next_token();
            if !matches!(
                token.kind,
                TokenKind::Comment | TokenKind::Hint | TokenKind::ExecutableOpen | TokenKind::ExecutableClose
            ) {
                return token;
            }
        }
    }

    /// The next token; [`TokenKind::End`] for ever when there is none.
    #[inline]
    pub fn next_token(&mut self) -> Token {
        let first = loop {
            let Some(&byte) = self.sql.get(self.at) else {
                return Token { kind: TokenKind::End, start: self.at, end: self.at };
            };
            let first = FIRST[byte as usize];
            if first != First::Blank {
                break first;
            }
            self.at += 1;
        };
        let start = self.at;
        let is_behind_name_dot = std::mem::take(&mut self.is_behind_name_dot);
        let was_name = std::mem::take(&mut self.was_name);
        let kind = match first {
            First::Letter => self.word(),
            First::Introducer => self.introducer(),
            First::Digit if is_behind_name_dot => self.word(),
            First::Digit => self.number(),
            First::Quote => self.quoted_text(self.sql[start]),
            First::Backtick => self.quoted_name(b'`'),
            First::Dot if was_name || !self.byte(1).is_ascii_digit() => {
                // MySQL takes what follows `name.` for a name, also digits and keywords.
                self.is_behind_name_dot = was_name;
                self.take(1, TokenKind::Dot)
            }
            First::Dot => self.number(),
            First::At => self.variable(),
            First::Dash => self.dash(),
            First::Slash => self.slash(),
            First::Hash => self.line_comment(),
            First::Star if self.in_executable && self.byte(1) == b'/' => {
                self.in_executable = false;
                self.take(2, TokenKind::ExecutableClose)
            }
            First::Star => self.take(1, TokenKind::Operator),
            First::Operator => self.operator(),
            First::Left => self.take(1, TokenKind::LeftParenthesis),
            First::Right => self.take(1, TokenKind::RightParenthesis),
            First::Comma => self.take(1, TokenKind::Comma),
            First::Semicolon => self.take(1, TokenKind::Semicolon),
            First::Question => self.take(1, TokenKind::Parameter),
            // `\N` is NULL for MariaDB and TiDB.
            First::Backslash if self.byte(1) == b'N' => self.take(2, TokenKind::Word),
            First::Backslash | First::Bad | First::Blank => self.take(1, TokenKind::Bad),
        };
        self.was_name = matches!(kind, TokenKind::Word | TokenKind::QuotedName);
        Token { kind, start, end: self.at }
    }

    /// The byte that is `offset` behind the current one; 0 behind the end.
    #[inline]
    fn byte(&self, offset: usize) -> u8 {
        self.sql.get(self.at + offset).copied().unwrap_or(0)
    }

    #[inline]
    fn take(&mut self, length: usize, kind: TokenKind) -> TokenKind {
        self.at = (self.at + length).min(self.sql.len());
        kind
    }

    #[inline]
    fn skip_while(&mut self, keep: impl Fn(u8) -> bool) {
        while self.sql.get(self.at).is_some_and(|byte| keep(*byte)) {
            self.at += 1;
        }
    }

    #[inline]
    fn word(&mut self) -> TokenKind {
        if self.modes.charset.has_ascii_trail() {
            while let Some(&byte) = self.sql.get(self.at) {
                if byte >= 0x80 {
                    let length = self.modes.charset.character_length(&self.sql[self.at..]);
                    self.take(length, TokenKind::Word);
                } else if is_word_byte(byte) {
                    self.at += 1;
                } else {
                    break;
                }
            }
        } else {
            self.skip_while(is_word_byte);
        }
        TokenKind::Word
    }

    fn introducer(&mut self) -> TokenKind {
        if self.byte(1) != b'\'' {
            return self.word();
        }
        let (kind, is_digit): (_, Digit) = match self.byte(0) | 0x20 {
            b'n' => {
                self.at += 1;
                return match self.quoted_text(b'\'') {
                    TokenKind::Text => TokenKind::NationalText,
                    other => other,
                };
            }
            b'x' => (TokenKind::Hex, |byte| byte.is_ascii_hexdigit()),
            _ => (TokenKind::Bit, |byte| matches!(byte, b'0' | b'1')),
        };
        let start = self.at;
        self.at += 2;
        self.skip_while(is_digit);
        if self.byte(0) == b'\'' {
            return self.take(1, kind);
        }
        // Not one of these: a word and a string behind it.
        self.at = start + 1;
        TokenKind::Word
    }

    fn number(&mut self) -> TokenKind {
        let start = self.at;
        if self.byte(0) == b'0' {
            let digits: Option<(TokenKind, Digit)> = match self.byte(1) {
                b'x' => Some((TokenKind::Hex, |byte| byte.is_ascii_hexdigit())),
                b'X' if self.modes.dialect == Dialect::TiDb => {
                    Some((TokenKind::Hex, |byte| byte.is_ascii_hexdigit()))
                }
                b'b' => Some((TokenKind::Bit, |byte| matches!(byte, b'0' | b'1'))),
                _ => None,
            };
            if let Some((kind, is_digit)) = digits {
                self.at += 2;
                self.skip_while(is_digit);
                if self.at > start + 2 && !is_word_byte(self.byte(0)) {
                    return kind;
                }
                self.at = start;
                return self.word();
            }
        }
        self.skip_while(|byte| byte.is_ascii_digit());
        let mut kind = TokenKind::Integer;
        if self.byte(0) == b'.' {
            self.at += 1;
            self.skip_while(|byte| byte.is_ascii_digit());
            kind = TokenKind::Decimal;
        }
        if self.byte(0) | 0x20 == b'e' {
            let sign = usize::from(matches!(self.byte(1), b'+' | b'-'));
            if self.byte(1 + sign).is_ascii_digit() {
                self.at += 1 + sign;
                self.skip_while(|byte| byte.is_ascii_digit());
                return TokenKind::Float;
            }
        }
        // A name may begin with digits.
        if kind == TokenKind::Integer && is_word_byte(self.byte(0)) { self.word() } else { kind }
    }

    /// From the quote on: a string, or a name where `"` quotes names.
    fn quoted_text(&mut self, quote: u8) -> TokenKind {
        if quote == b'"' && self.modes.ansi_quotes {
            return self.quoted_name(b'"');
        }
        if self.skip_quoted(quote, !self.modes.no_backslash_escapes) {
            TokenKind::Text
        } else {
            TokenKind::Bad
        }
    }

    fn quoted_name(&mut self, quote: u8) -> TokenKind {
        if self.skip_quoted(quote, false) { TokenKind::QuotedName } else { TokenKind::Bad }
    }

    /// Goes behind the closing quote; to the end when there is none.
    fn skip_quoted(&mut self, quote: u8, has_backslash: bool) -> bool {
        self.at += 1;
        let is_plain = !self.modes.charset.has_ascii_trail();
        while let Some(&byte) = self.sql.get(self.at) {
            if byte == quote {
                self.at += 1;
                if self.byte(0) != quote {
                    return true;
                }
                self.at += 1;
            } else if byte == b'\\' && has_backslash {
                // One byte is escaped, also where it is the first of a character: so read the servers.
                self.at = (self.at + 2).min(self.sql.len());
            } else if byte < 0x80 || is_plain {
                self.at += 1;
            } else {
                let length = self.modes.charset.character_length(&self.sql[self.at..]);
                self.take(length, TokenKind::Text);
            }
        }
        false
    }

    fn variable(&mut self) -> TokenKind {
        self.at += 1;
        if self.byte(0) == b'@' {
            self.at += 1;
            return self.system_variable();
        }
        match self.byte(0) {
            quote @ (b'\'' | b'"') => {
                let has_backslash = !self.modes.no_backslash_escapes;
                if self.skip_quoted(quote, has_backslash) { TokenKind::UserVariable } else { TokenKind::Bad }
            }
            b'`' => {
                if self.skip_quoted(b'`', false) {
                    TokenKind::UserVariable
                } else {
                    TokenKind::Bad
                }
            }
            _ => {
                self.skip_while(|byte| is_word_byte(byte) || byte == b'.');
                TokenKind::UserVariable
            }
        }
    }

    fn system_variable(&mut self) -> TokenKind {
        loop {
            if self.byte(0) == b'`' {
                if !self.skip_quoted(b'`', false) {
                    return TokenKind::Bad;
                }
            } else {
                self.skip_while(is_word_byte);
            }
            if self.byte(0) != b'.' || !(is_word_byte(self.byte(1)) || self.byte(1) == b'`') {
                return TokenKind::SystemVariable;
            }
            self.at += 1;
        }
    }

    fn dash(&mut self) -> TokenKind {
        if self.byte(1) == b'-' {
            // MySQL asks for a blank or a control character behind it: `5--1` is 6.
            let next = self.sql.get(self.at + 2).copied();
            if next.is_none_or(|byte| byte <= b' ' || byte == 0x7f) {
                return self.line_comment();
            }
        }
        if self.byte(1) == b'>' {
            let length = if self.byte(2) == b'>' { 3 } else { 2 };
            return self.take(length, TokenKind::Operator);
        }
        self.take(1, TokenKind::Operator)
    }

    fn line_comment(&mut self) -> TokenKind {
        self.skip_while(|byte| byte != b'\n');
        TokenKind::Comment
    }

    fn slash(&mut self) -> TokenKind {
        if self.byte(1) != b'*' {
            return self.take(1, TokenKind::Operator);
        }
        let dialect = self.modes.dialect;
        let marker = match (self.byte(2), self.byte(3)) {
            (b'!', _) => 3,
            (b'M', b'!') if dialect == Dialect::MariaDb => 4,
            (b'T', b'!') if dialect == Dialect::TiDb => 4,
            (b'+', _) => {
                return if self.skip_comment(3) { TokenKind::Hint } else { TokenKind::Bad };
            }
            _ => return if self.skip_comment(2) { TokenKind::Comment } else { TokenKind::Bad },
        };
        let start = self.at;
        self.at += marker;
        if marker == 4 && dialect == Dialect::TiDb {
            let (length, is_known) = tidb_features(&self.sql[self.at..]);
            self.at += length;
            if !is_known {
                return if self.skip_comment(0) { TokenKind::Comment } else { TokenKind::Bad };
            }
        } else if !self.is_version_read(marker == 3) {
            self.at = start;
            return if self.skip_nested_comment() { TokenKind::Comment } else { TokenKind::Bad };
        }
        self.in_executable = true;
        TokenKind::ExecutableOpen
    }

    /// Reads the version that an executable comment asks for, `/*!` or MariaDB's own; whether the server reads it.
    fn is_version_read(&mut self, is_mysql: bool) -> bool {
        let digits = if self.modes.dialect == Dialect::TiDb { 5 } else { 6 };
        let digits = (0..digits).take_while(|offset| self.byte(*offset).is_ascii_digit()).count();
        if digits < 5 {
            return true;
        }
        let version =
            (0..digits).fold(0, |version, offset| version * 10 + u32::from(self.byte(offset) - b'0'));
        self.at += digits;
        let server = self.modes.server_version;
        match self.modes.dialect {
            Dialect::TiDb => true,
            // MariaDB leaves out what MySQL has had since it went another way.
            Dialect::MariaDb if is_mysql && (50_700..=99_999).contains(&version) => false,
            _ => server == 0 || version <= server,
        }
    }

    /// Goes behind an executable comment that is not read, in which other comments may stand.
    fn skip_nested_comment(&mut self) -> bool {
        self.at += 2;
        while self.at < self.sql.len() {
            match (self.byte(0), self.byte(1)) {
                (b'*', b'/') => {
                    self.at += 2;
                    return true;
                }
                (b'/', b'*') => {
                    if !self.skip_comment(2) {
                        return false;
                    }
                }
                _ => self.at += 1,
            }
        }
        false
    }

    /// Goes behind the `*/` that follows `offset` bytes from here; to the end when there is none.
    fn skip_comment(&mut self, offset: usize) -> bool {
        self.at = (self.at + offset).min(self.sql.len());
        loop {
            self.skip_while(|byte| byte != b'*');
            if self.at >= self.sql.len() {
                return false;
            }
            self.at += 1;
            if self.byte(0) == b'/' && self.at < self.sql.len() {
                self.at += 1;
                return true;
            }
        }
    }

    fn operator(&mut self) -> TokenKind {
        let length = match (self.byte(0), self.byte(1), self.byte(2)) {
            (b'<', b'=', b'>') => 3,
            (b'<', b'=' | b'>' | b'<', _)
            | (b'>', b'=' | b'>', _)
            | (b'!' | b':', b'=', _)
            | (b'&', b'&', _)
            | (b'|', b'|', _) => 2,
            _ => 1,
        };
        self.take(length, TokenKind::Operator)
    }
}

/// Features whose executable comments TiDB 8.5 reads.
const TIDB_FEATURES: &[&str] = &[
    "auto_rand",
    "auto_id_cache",
    "auto_rand_base",
    "clustered_index",
    "force_inc",
    "placement",
    "ttl",
    "global_index",
    "affinity",
];

/// The length of the `[feature,…]` that `rest` begins with, and whether TiDB knows all of them. What is no such list has no
/// length, and asks for nothing.
pub(super) fn tidb_features(rest: &[u8]) -> (usize, bool) {
    let Some(list) = rest.strip_prefix(b"[") else { return (0, true) };
    let Some(end) = list.iter().position(|byte| !is_word_byte(*byte) && *byte != b',') else {
        return (0, true);
    };
    let mut names = list[..end].split(|byte| *byte == b',');
    if list[end] != b']' || names.clone().any(<[u8]>::is_empty) {
        return (0, true);
    }
    (end + 2, names.all(|name| TIDB_FEATURES.iter().any(|known| known.as_bytes() == name)))
}
