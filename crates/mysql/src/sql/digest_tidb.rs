//! TiDB's digest text.
//!
//! TiDB digests with a lexer of its own ways, in its default modes whatever the session's are: bytes that start no token end
//! the text, `/*! … */` is always read, hints never, and NULL is a value everywhere. All of it counts, since its digest is
//! a hash of the text.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::digest_words as lists;
use super::lexer::tidb_features;

/// What a token is, as far as reductions ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ends the text.
    Invalid,
    Identifier,
    QuotedIdentifier,
    /// `@name`
    UserVariable,
    /// `_utf8mb4`, and `N` in front of a string.
    Charset,
    Integer,
    /// Every other number that may have a sign.
    Number,
    /// A string, a bit literal, `?`.
    Literal,
    Null,
    /// `?`, of whatever stood there.
    Value,
    /// `...`
    List,
    /// A keyword or symbol, which is written as it is.
    Other,
}

#[derive(Clone, Debug)]
struct Piece {
    kind: Kind,
    /// In lower case, without quotes.
    text: String,
}

struct Keywords {
    keywords: HashSet<&'static str>,
    called: HashSet<&'static str>,
}

static KEYWORDS: LazyLock<Keywords> = LazyLock::new(|| Keywords {
    keywords: lists::TIDB_KEYWORDS.split(' ').collect(),
    called: lists::TIDB_CALLED.split(' ').collect(),
});

const CHARSETS: &[&str] = &["utf8", "utf8mb3", "utf8mb4", "ascii", "latin1", "binary", "gbk"];

pub(super) fn append(sql: &[u8], out: &mut String) {
    let mut digester = Digester { scanner: Scanner { sql, at: 0, in_executable: false }, pieces: Vec::new() };
    digester.run();
    for (index, piece) in digester.pieces.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        match piece.kind {
            Kind::UserVariable => out.push('@'),
            Kind::Charset => {
                out.push_str("(_charset)");
                continue;
            }
            Kind::Identifier | Kind::QuotedIdentifier => {
                out.push('`');
                out.push_str(&piece.text);
                out.push('`');
                continue;
            }
            _ => {}
        }
        out.push_str(&piece.text);
    }
}

struct Digester<'a> {
    scanner: Scanner<'a>,
    pieces: Vec<Piece>,
}

impl Digester<'_> {
    fn run(&mut self) {
        loop {
            let (kind, start, text) = self.scanner.next();
            let sql = self.scanner.sql;
            if kind == Kind::Invalid || start == sql.len() || start + 1 == sql.len() && sql[start] == b';' {
                return;
            }
            let mut piece = Piece { kind, text: lower(&text) };
            if self.drop_hint(&mut piece) {
                continue;
            }
            self.reduce(&mut piece);
            if piece.kind == Kind::Identifier {
                if piece.text.strip_prefix('_').is_some_and(|name| CHARSETS.contains(&name)) {
                    piece.kind = Kind::Charset;
                } else if self.is_keyword(&piece.text, start) {
                    piece.kind = Kind::Other;
                }
            }
            self.pieces.push(piece);
        }
    }

    fn text(&self, from_end: usize) -> &str {
        let index = self.pieces.len().checked_sub(from_end);
        index.map_or("", |index| self.pieces[index].text.as_str())
    }

    fn kind(&self, from_end: usize) -> Kind {
        let index = self.pieces.len().checked_sub(from_end);
        index.map_or(Kind::Invalid, |index| self.pieces[index].kind)
    }

    fn pop(&mut self, count: usize) {
        self.pieces.truncate(self.pieces.len().saturating_sub(count));
    }

    /// USE INDEX (…) and its kin vanish, STRAIGHT_JOIN is a JOIN.
    fn drop_hint(&mut self, piece: &mut Piece) -> bool {
        if piece.text == "index" && matches!(self.text(1), "force" | "use" | "ignore") {
            loop {
                let (kind, start, text) = self.scanner.next();
                if kind == Kind::Invalid || start == self.scanner.sql.len() {
                    return false;
                }
                if text == b")" {
                    self.pop(1);
                    return true;
                }
            }
        }
        if piece.text == "straight_join" {
            piece.text = "join".to_owned();
        }
        false
    }

    fn reduce(&mut self, piece: &mut Piece) {
        let is_number = matches!(piece.kind, Kind::Integer | Kind::Number);
        let is_null = piece.kind == Kind::Null || piece.kind == Kind::Identifier && piece.text == "null";
        if !(is_number || piece.kind == Kind::Literal || is_null) {
            if piece.text == "*" && self.text(1) == "(" {
                *piece = Piece { kind: Kind::Value, text: "?".to_owned() };
            }
            return;
        }
        if is_number && matches!(self.text(1), "-" | "+") {
            let is_sign = self.pieces.len() < 2
                || matches!(
                    self.text(2),
                    "(" | "," | "+" | "-" | ">=" | "is" | "<=" | "=" | "<" | ">" | "select"
                );
            if is_sign {
                self.pop(1);
            }
        }
        let is_value = |kind| matches!(kind, Kind::Value | Kind::List);
        let in_list = if self.text(1) == "," && is_value(self.kind(2)) {
            2
        } else if self.pieces.len() >= 4
            && self.kind(1) == Kind::Charset
            && self.text(2) == ","
            && is_value(self.kind(3))
        {
            if self.kind(4) == Kind::Charset { 4 } else { 3 }
        } else if self.pieces.len() >= 4
            && self.text(1) == "("
            && self.text(2) == ","
            && self.text(3) == ")"
            && is_value(self.kind(4))
        {
            4
        } else {
            0
        };
        if in_list > 0 {
            self.pop(in_list);
            *piece = Piece { kind: Kind::List, text: "...".to_owned() };
        } else if piece.kind != Kind::Integer || !self.is_column() {
            *piece = Piece { kind: Kind::Value, text: "?".to_owned() };
        }
    }

    /// Whether what stands here is an item of a list of numbers behind ORDER BY or GROUP BY.
    fn is_column(&self) -> bool {
        let mut behind = 2;
        while self.pieces.len() >= behind && self.text(behind - 1) == "," {
            behind += 2;
        }
        if self.pieces.len() < behind {
            return false;
        }
        let (mut by, mut order) = (behind - 1, behind);
        if self.text(by) == "(" {
            // The list may be in parentheses.
            if self.pieces.len() < behind + 1 {
                return false;
            }
            (by, order) = (behind, behind + 1);
        }
        matches!(self.text(order), "order" | "group") && self.text(by) == "by"
    }

    fn is_keyword(&self, text: &str, start: usize) -> bool {
        let next = self.scanner.byte(0);
        let before = self.scanner.sql[..start].iter().rev().find(|byte| **byte != b' ');
        if next == b'.' || before == Some(&b'.') {
            return false;
        }
        let upper = text.to_ascii_uppercase();
        next == b'(' && KEYWORDS.called.contains(upper.as_str()) || KEYWORDS.keywords.contains(upper.as_str())
    }
}

/// Which bytes are digits of a literal.
type Digit = fn(u8) -> bool;

struct Scanner<'a> {
    sql: &'a [u8],
    at: usize,
    in_executable: bool,
}

/// Go's `unicode.IsSpace` of a byte.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0x85 | 0xa0)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

impl Scanner<'_> {
    fn byte(&self, offset: usize) -> u8 {
        self.sql.get(self.at + offset).copied().unwrap_or(0)
    }

    fn is_end(&self) -> bool {
        self.at >= self.sql.len()
    }

    fn skip(&mut self, keep: impl Fn(u8) -> bool) {
        while self.sql.get(self.at).is_some_and(|byte| keep(*byte)) {
            self.at += 1;
        }
    }

    /// The next token: its kind, where it starts, its text without quotes.
    fn next(&mut self) -> (Kind, usize, Vec<u8>) {
        loop {
            self.skip(is_blank);
            let start = self.at;
            if self.is_end() {
                return (Kind::Other, start, Vec::new());
            }
            match self.byte(0) {
                b'#' => self.skip(|byte| byte != b'\n'),
                b'-' if self.byte(1) == b'-' && (self.at + 2 == self.sql.len() || is_blank(self.byte(2))) => {
                    self.skip(|byte| byte != b'\n');
                }
                b'/' if self.byte(1) == b'*' => {
                    if !self.comment() {
                        // A comment that is not closed is a token without text.
                        return (Kind::Other, start, Vec::new());
                    }
                }
                b'*' if self.in_executable && self.byte(1) == b'/' => {
                    self.in_executable = false;
                    self.at += 2;
                }
                _ => {
                    let (kind, text) = self.token(start);
                    return (kind, start, text);
                }
            }
        }
    }

    /// Goes behind a comment, or into an executable one.
    fn comment(&mut self) -> bool {
        self.at += 2;
        let first = self.byte(0);
        self.at += usize::from(!self.is_end());
        match first {
            b'!' => {
                let digits = (0..5).take_while(|offset| self.byte(*offset).is_ascii_digit()).count();
                self.at += if digits == 5 { 5 } else { 0 };
                self.in_executable = true;
                return true;
            }
            b'T' if self.byte(0) == b'!' => {
                let (length, is_known) = tidb_features(&self.sql[self.at + 1..]);
                self.at += 1 + length;
                if is_known {
                    self.in_executable = true;
                    return true;
                }
            }
            _ => {}
        }
        let mut is_star = first == b'*';
        loop {
            if !is_star {
                self.skip(|byte| byte != b'*');
                if self.is_end() {
                    return false;
                }
                self.at += 1;
            }
            match self.byte(0) {
                b'/' if !self.is_end() => {
                    self.at += 1;
                    return true;
                }
                byte => {
                    self.at += usize::from(!self.is_end());
                    is_star = byte == b'*';
                    if self.is_end() && !is_star {
                        return false;
                    }
                }
            }
        }
    }

    fn token(&mut self, start: usize) -> (Kind, Vec<u8>) {
        match self.byte(0) {
            b'x' | b'X' if self.byte(1) == b'\'' => {
                self.quoted_digits(start, Kind::Number, |byte| byte.is_ascii_hexdigit())
            }
            b'b' | b'B' if self.byte(1) == b'\'' => {
                self.quoted_digits(start, Kind::Literal, |byte| matches!(byte, b'0' | b'1'))
            }
            b'n' | b'N' if self.byte(1) == b'\'' => {
                self.at += 1;
                (Kind::Charset, b"utf8".to_vec())
            }
            byte if is_name(byte) && !byte.is_ascii_digit() => self.identifier(start),
            b'0'..=b'9' => self.number(start),
            b'.' => {
                self.at += 1;
                if !self.byte(0).is_ascii_digit() {
                    return (Kind::Other, b".".to_vec());
                }
                match self.float(start) {
                    (Kind::Identifier, text) => (Kind::Invalid, text),
                    token => token,
                }
            }
            b'`' => self.quoted_name(),
            b'\'' | b'"' => self.string(),
            b'@' => self.variable(start),
            b'?' => {
                self.at += 1;
                (Kind::Literal, b"?".to_vec())
            }
            b'-' if self.byte(1) == b'>' => {
                // TiDB forgets the text of these.
                self.at += if self.byte(2) == b'>' { 3 } else { 2 };
                (Kind::Other, Vec::new())
            }
            _ => self.symbol(start),
        }
    }

    fn text(&self, start: usize) -> Vec<u8> {
        self.sql[start..self.at].to_vec()
    }

    fn symbol(&mut self, start: usize) -> (Kind, Vec<u8>) {
        let length = match (self.byte(0), self.byte(1), self.byte(2)) {
            (b'<', b'=', b'>') => 3,
            (b'<', b'=' | b'>' | b'<', _)
            | (b'>', b'=' | b'>', _)
            | (b'!' | b':', b'=', _)
            | (b'&', b'&' | b'^', _)
            | (b'|', b'|', _) => 2,
            (b'\\', b'N', _) => {
                self.at += 2;
                return (Kind::Null, self.text(start));
            }
            (
                b'/' | b'+' | b'-' | b'*' | b'>' | b'<' | b'(' | b')' | b'[' | b']' | b';' | b',' | b'&'
                | b'%' | b':' | b'|' | b'!' | b'^' | b'~' | b'\\' | b'=' | b'{' | b'}',
                ..,
            ) => 1,
            _ => return (Kind::Invalid, Vec::new()),
        };
        self.at += length;
        (Kind::Other, self.text(start))
    }

    fn identifier(&mut self, start: usize) -> (Kind, Vec<u8>) {
        self.skip(is_name);
        (Kind::Identifier, self.text(start))
    }

    fn quoted_digits(&mut self, start: usize, kind: Kind, is_digit: Digit) -> (Kind, Vec<u8>) {
        self.at += 2;
        self.skip(is_digit);
        if self.byte(0) != b'\'' {
            return (Kind::Invalid, Vec::new());
        }
        self.at += 1;
        (kind, self.text(start))
    }

    fn number(&mut self, start: usize) -> (Kind, Vec<u8>) {
        if self.byte(0) == b'0' {
            let digits: Option<(Kind, Digit)> = match self.byte(1) {
                b'x' | b'X' => Some((Kind::Number, |byte| byte.is_ascii_hexdigit())),
                b'b' => Some((Kind::Literal, |byte| matches!(byte, b'0' | b'1'))),
                b'B' => {
                    self.at += 1;
                    return self.identifier(start);
                }
                _ => None,
            };
            if let Some((kind, is_digit)) = digits {
                self.at += 2;
                self.skip(is_digit);
                if self.at == start + 2 || self.byte(0).is_ascii_digit() {
                    return self.identifier(start);
                }
                self.skip(|byte| byte.is_ascii_digit());
                return self.after_digits(start, kind);
            }
        }
        self.skip(|byte| byte.is_ascii_digit());
        self.after_digits(start, Kind::Integer)
    }

    fn after_digits(&mut self, start: usize, kind: Kind) -> (Kind, Vec<u8>) {
        match self.byte(0) {
            b'.' | b'e' | b'E' => self.float(start),
            byte if !self.is_end() && is_name(byte) => self.identifier(start),
            _ => (kind, self.text(start)),
        }
    }

    fn float(&mut self, start: usize) -> (Kind, Vec<u8>) {
        self.at = start;
        self.skip(|byte| byte.is_ascii_digit());
        if self.byte(0) == b'.' {
            self.at += 1;
            self.skip(|byte| byte.is_ascii_digit());
        }
        if matches!(self.byte(0), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(0), b'+' | b'-'));
            if !self.byte(0).is_ascii_digit() {
                // No exponent: a name that begins with digits.
                self.at = start;
                self.skip(is_name);
                return (Kind::Identifier, self.text(start));
            }
            self.skip(|byte| byte.is_ascii_digit());
        }
        (Kind::Number, self.text(start))
    }

    fn quoted_name(&mut self) -> (Kind, Vec<u8>) {
        self.at += 1;
        let mut text = Vec::new();
        while !self.is_end() {
            let byte = self.byte(0);
            self.at += 1;
            if byte == b'`' {
                if self.byte(0) != b'`' {
                    return (Kind::QuotedIdentifier, text);
                }
                self.at += 1;
            }
            text.push(byte);
        }
        (Kind::Invalid, Vec::new())
    }

    fn string(&mut self) -> (Kind, Vec<u8>) {
        let quote = self.byte(0);
        self.at += 1;
        let mut text = Vec::new();
        while !self.is_end() {
            let byte = self.byte(0);
            self.at += 1;
            if byte == quote {
                if self.byte(0) != quote {
                    return (Kind::Literal, text);
                }
                self.at += 1;
            } else if byte == b'\\' {
                if self.is_end() {
                    break;
                }
                text.push(escaped(self.byte(0)));
                self.at += 1;
                continue;
            }
            text.push(byte);
        }
        (Kind::Invalid, Vec::new())
    }

    fn variable(&mut self, start: usize) -> (Kind, Vec<u8>) {
        self.at += 1;
        if self.byte(0) != b'@' {
            return match self.variable_name() {
                (Kind::Invalid, _) => (Kind::Invalid, Vec::new()),
                (_, text) => (Kind::UserVariable, text),
            };
        }
        self.at += 1;
        let rest = &self.sql[self.at..];
        let scope = ["global.", "session.", "local."].into_iter().find(|scope| {
            rest.get(..scope.len()).is_some_and(|it| it.eq_ignore_ascii_case(scope.as_bytes()))
        });
        self.at += scope.map_or(0, str::len);
        match self.variable_name() {
            (Kind::Literal | Kind::QuotedIdentifier, name) => {
                let mut text = b"@@".to_vec();
                text.extend_from_slice(scope.unwrap_or("").as_bytes());
                text.extend_from_slice(&name);
                (Kind::Other, text)
            }
            (Kind::Identifier, _) => (Kind::Other, self.text(start)),
            (kind, text) => (kind, text),
        }
    }

    /// The name behind `@`: quoted, or of letters, digits and dots.
    fn variable_name(&mut self) -> (Kind, Vec<u8>) {
        match self.byte(0) {
            b'\'' | b'"' => self.string(),
            b'`' => self.quoted_name(),
            byte if is_name(byte) || byte == b'.' => {
                let start = self.at;
                self.skip(|byte| is_name(byte) || byte == b'.');
                (Kind::Identifier, self.text(start))
            }
            _ => (Kind::Other, Vec::new()),
        }
    }
}

fn escaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'0' => 0,
        b'b' => 8,
        b'Z' => 26,
        b'r' => b'\r',
        b't' => b'\t',
        other => other,
    }
}

/// Lower case as Go makes it: character by character, and each byte that is no UTF-8 replaced.
fn lower(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    if text.is_ascii() {
        out.extend(text.iter().map(|byte| byte.to_ascii_lowercase() as char));
        return out;
    }
    for chunk in text.utf8_chunks() {
        out.extend(chunk.valid().chars().map(|c| c.to_lowercase().next().unwrap_or(c)));
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    out
}
