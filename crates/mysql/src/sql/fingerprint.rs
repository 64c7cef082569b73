//! The digest of a statement: a 64-bit hash of its normalised form, taken token by token.
//!
//! Literals are alike; a list of literals is one; rows that look alike are one; blanks, comments and the case of keywords
//! do not count. The hash is fast, not cryptographic: who writes statements can make two of them meet.

use super::words::{Entry, Word, ends};

pub(super) struct Fingerprint {
    hash: u64,
    tail: Tail,
    /// A `+` or `-` that may be the sign of a number: then it is part of the literal.
    sign: Option<u64>,
    depth: u32,
    rows: Option<Rows>,
    /// The last word, while nothing follows it.
    last: Word,
}

/// What the hash ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    Other,
    /// A name or a closed parenthesis: a sign behind it is an operator.
    Operand,
    Value,
    /// A value and a comma, which is not in the hash yet.
    ValueComma,
    /// Several values.
    List,
    ListComma,
}

/// Rows of VALUES, or of an IN list: each is hashed apart, and one that looks like the row before it is left out.
struct Rows {
    /// The depth at which their parentheses stand.
    depth: u32,
    /// The hash before the row that is open.
    outside: Option<u64>,
    /// The last row's hash.
    last: Option<u64>,
    /// Whether a comma stands behind the last row, which is not in the hash yet.
    has_comma: bool,
}

/// What tokens are hashed as; words and names are hashed as their bytes.
mod code {
    pub const VALUE: u64 = 1;
    pub const LIST: u64 = 2;
    pub const COMMA: u64 = 3;
    pub const LEFT: u64 = 4;
    pub const RIGHT: u64 = 5;
    pub const ROW: u64 = 6;
    pub const NAME: u64 = 7;
    pub const KEYWORD: u64 = 8;
    pub const VARIABLE: u64 = 9;
    pub const BYTES: u64 = 10;
    pub const END: u64 = 11;
    /// With the byte in its low bits.
    pub const BYTE: u64 = 0x100;
}

const FOLD: u64 = 0x2020_2020_2020_2020;

/// The product of two 64-bit numbers, folded to 64 bits: spreads every bit over all.
#[inline]
fn mix(hash: u64, value: u64) -> u64 {
    let product = u128::from(hash ^ 0x9e37_79b9_7f4a_7c15) * u128::from(value ^ 0xd6e8_feb8_6659_fd93);
    (product as u64 ^ (product >> 64) as u64).rotate_left(23).wrapping_add(value)
}

#[inline]
fn bytes(tag: u64, text: &[u8], fold: u64) -> u64 {
    let (first, last) = ends(text);
    let mut hash = mix(first | fold, (last | fold) ^ (tag << 56) ^ ((text.len() as u64) << 48));
    if text.len() > 16 {
        for chunk in text[8..text.len() - 8].chunks(8) {
            hash = mix(hash, ends(chunk).0 ^ ends(chunk).1.rotate_left(32) | fold);
        }
    }
    hash
}

/// What stands for a keyword in a digest.
pub(super) fn keyword_hash(name: &str) -> u64 {
    bytes(code::KEYWORD, name.as_bytes(), 0)
}

impl Fingerprint {
    pub fn new() -> Fingerprint {
        Fingerprint { hash: 0, tail: Tail::Other, sign: None, depth: 0, rows: None, last: Word::Other }
    }

    pub fn finish(mut self) -> u64 {
        self.settle();
        mix(self.hash, code::END)
    }

    /// A keyword, or a function's name.
    #[inline]
    pub fn keyword(&mut self, entry: &Entry) {
        let is_value = match entry.word {
            Word::Null => !matches!(self.last, Word::Is | Word::Not | Word::Default),
            Word::True | Word::False => !matches!(self.last, Word::Is | Word::Not),
            _ => false,
        };
        if is_value {
            return self.value();
        }
        let in_rows =
            self.rows.as_ref().is_some_and(|rows| rows.depth == self.depth && rows.outside.is_none());
        if entry.word == Word::Row && in_rows {
            // `ROW (1)` is a row like `(1)`.
            return;
        }
        self.settle();
        self.put(entry.hash);
        self.last = entry.word;
        if !entry.is_reserved() {
            self.tail = Tail::Operand;
        }
        if matches!(entry.word, Word::Values | Word::Value) && self.rows.is_none() {
            self.rows = Some(Rows { depth: self.depth, outside: None, last: None, has_comma: false });
        }
    }

    /// A name, without its quotes.
    #[inline]
    pub fn name(&mut self, name: &[u8]) {
        self.settle();
        self.put(bytes(code::NAME, name, 0));
        self.tail = Tail::Operand;
    }

    /// A variable, whose name has no case.
    pub fn variable(&mut self, name: &[u8]) {
        self.settle();
        self.put(bytes(code::VARIABLE, name, FOLD));
        self.tail = Tail::Operand;
    }

    #[inline]
    pub fn value(&mut self) {
        self.leave_rows();
        if let Some(sign) = self.sign.take() {
            // Not a number: the sign stands.
            self.flush_comma();
            self.put(sign);
        }
        self.tail = match self.tail {
            Tail::Other | Tail::Operand => {
                self.put(code::VALUE);
                Tail::Value
            }
            Tail::ValueComma => {
                self.put(code::LIST);
                Tail::List
            }
            Tail::ListComma => Tail::List,
            // Neighbouring strings are one.
            Tail::Value => Tail::Value,
            Tail::List => Tail::List,
        };
        if self.last == Word::In && self.tail == Tail::Value {
            // One value in an IN list is as good as several.
            self.put(code::LIST);
            self.tail = Tail::List;
        }
        self.last = Word::Other;
    }

    #[inline]
    pub fn number(&mut self) {
        self.sign = None;
        self.value();
    }

    #[inline]
    pub fn comma(&mut self) {
        if let Some(rows) = &mut self.rows
            && rows.depth == self.depth
            && rows.outside.is_none()
            && rows.last.is_some()
            && !rows.has_comma
        {
            rows.has_comma = true;
            self.tail = Tail::Other;
            return;
        }
        self.flush_sign();
        match self.tail {
            Tail::Value => self.tail = Tail::ValueComma,
            Tail::List => self.tail = Tail::ListComma,
            _ => {
                self.flush_comma();
                self.put(code::COMMA);
            }
        }
        self.last = Word::Other;
    }

    #[inline]
    pub fn left(&mut self) {
        let is_in = self.last == Word::In;
        if let Some(rows) = &mut self.rows
            && rows.depth == self.depth
            && rows.outside.is_none()
        {
            rows.outside = Some(self.hash);
            self.hash = code::ROW;
            self.tail = Tail::Other;
            self.last = Word::Other;
            self.depth += 1;
            return;
        }
        self.settle();
        self.put(code::LEFT);
        self.depth += 1;
        if is_in {
            self.last = Word::In;
            if self.rows.is_none() {
                self.rows = Some(Rows { depth: self.depth, outside: None, last: None, has_comma: false });
            }
        }
    }

    #[inline]
    pub fn right(&mut self) {
        self.flush_sign();
        self.flush_comma();
        self.depth = self.depth.saturating_sub(1);
        if let Some(rows) = &mut self.rows
            && rows.depth == self.depth
            && let Some(outside) = rows.outside.take()
        {
            let row = self.hash;
            let is_same = std::mem::take(&mut rows.has_comma) && rows.last == Some(row);
            let had_row = rows.last.replace(row).is_some();
            self.hash = if is_same {
                outside
            } else {
                mix(if had_row { mix(outside, code::COMMA) } else { outside }, row)
            };
        } else {
            self.leave_rows();
            self.put(code::RIGHT);
        }
        self.tail = Tail::Operand;
        self.last = Word::Other;
    }

    /// An operator, a dot, or anything else.
    #[inline]
    pub fn other(&mut self, text: &[u8]) {
        let [byte] = text else {
            self.settle();
            return self.put(bytes(code::BYTES, text, 0));
        };
        let value = code::BYTE | u64::from(*byte);
        if matches!(byte, b'+' | b'-') && !matches!(self.tail, Tail::Operand | Tail::Value | Tail::List) {
            self.flush_sign();
            self.sign = Some(value);
            return;
        }
        self.settle();
        self.put(value);
    }

    #[inline]
    fn put(&mut self, value: u64) {
        self.hash = mix(self.hash, value);
    }

    /// Takes into the hash what was held back, before something that is no literal.
    #[inline]
    fn settle(&mut self) {
        self.leave_rows();
        self.flush_comma();
        self.flush_sign();
        self.tail = Tail::Other;
        self.last = Word::Other;
    }

    #[inline]
    fn flush_sign(&mut self) {
        if let Some(sign) = self.sign.take() {
            self.flush_comma();
            self.put(sign);
            self.tail = Tail::Other;
        }
    }

    #[inline]
    fn flush_comma(&mut self) {
        if matches!(self.tail, Tail::ValueComma | Tail::ListComma) {
            self.put(code::COMMA);
            self.tail = Tail::Other;
        }
    }

    /// Ends the rows when something else than a row stands where one could.
    #[inline]
    fn leave_rows(&mut self) {
        if let Some(rows) = &self.rows
            && self.depth <= rows.depth
            && rows.outside.is_none()
        {
            let has_comma = rows.has_comma;
            self.rows = None;
            if has_comma {
                self.put(code::COMMA);
            }
        }
    }
}
