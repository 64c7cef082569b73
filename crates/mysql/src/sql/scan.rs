//! One pass over a statement: what it is, what it touches, and its digest.

use super::classify::Classifier;
use super::fingerprint::Fingerprint;
use super::flags::{Flags, Kind};
use super::lexer::{Lexer, Token, TokenKind};
use super::modes::{ClientCharset, Modes};
use super::words::{Entry, Word, words};

/// A piece of the statement: offsets of bytes, the end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// What one pass over a statement tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// A hash of the normalised statement: the same for other literals, other lengths of lists of them, other blanks and
    /// comments, and keywords in another case. Not cryptographic. It holds for one set of [`Modes`].
    pub digest: u64,
    /// Of the first statement.
    pub kind: Kind,
    /// Of all statements together.
    pub flags: Flags,
    /// How many statements there are; the pieces of a stored program's body count as such.
    pub statements: usize,
    /// `?` of the text, for a statement that is to be prepared.
    pub placeholders: usize,
    /// The inside of the first `/*+ … */`.
    pub optimizer_hint: Option<Span>,
    /// What follows `tidemill:` in a comment before the first word.
    pub note: Option<Span>,
    /// Of the first statement: what runs, or, of EXPLAIN, what is explained.
    pub main: Kind,
    /// The first statement, an UPDATE or DELETE, has a WHERE of its own, not of a subquery, that names something: `WHERE 1`
    /// names nothing.
    pub has_where: bool,
    /// It carries a statement that is not looked into: PREPARE, EXECUTE, BINLOG, the definition of a stored
    /// program.
    pub holds_statement: bool,
    /// Every server of the dialect reads these tokens, whatever its version: nothing is [`Flags::DOUBTFUL`], and no comment
    /// is executed by some of them only.
    pub is_certain: bool,
}

impl Scan {
    /// Whether the statement only reads and its answer does not hang on this session or this server: outside a
    /// transaction that writes, it may go to any replica that is fresh enough. What is in doubt is not.
    ///
    /// What the tokens do not show is not seen: a view whose definition calls a function that writes, and a default
    /// database that is a system schema.
    pub fn is_safe_read(&self) -> bool {
        matches!(self.kind, Kind::Select | Kind::Show | Kind::Describe | Kind::Explain)
            && !self.flags.intersects(Flags::NO_SAFE_READ)
    }
}

/// Marks a comment as one for Tidemill.
const NOTE: &[u8] = b"tidemill:";

/// Looks at `sql` once, without allocating. Any bytes may come in.
pub fn scan(sql: &[u8], modes: Modes) -> Scan {
    let words = words();
    let mut lexer = Lexer::new(sql, modes);
    let mut fingerprint = Fingerprint::new();
    let mut classifier = Classifier::new(sql, modes);
    let (mut optimizer_hint, mut note) = (None, None);
    let mut placeholders = 0;
    let mut is_certain = true;
    let mut condition = Condition::None;
    let mut is_empty = true;
    // A semicolon counts only when something follows it.
    let mut is_behind_semicolon = false;
    // Where a table's name stands, words keep their case: elsewhere names have none.
    let mut is_name_next = false;
    let mut is_dot = false;
    loop {
        let token = lexer.next_token();
        match token.kind {
            TokenKind::End => break,
            TokenKind::Comment => {
                if is_empty && note.is_none() {
                    note = note_of(sql, token);
                }
                let text = lexer.text(token);
                // What stands in it may be a statement for another version.
                is_certain &= !(lexer.in_executable() || is_executable(text));
                classifier.comment(text);
                continue;
            }
            TokenKind::Hint => {
                classifier.hint(lexer.text(token));
                optimizer_hint = optimizer_hint.or(Some(Span { start: token.start + 3, end: token.end - 2 }));
                continue;
            }
            TokenKind::ExecutableOpen | TokenKind::ExecutableClose => {
                is_certain &= token.kind == TokenKind::ExecutableClose
                    || is_read_by_all(lexer.text(token), sql, token.end);
                classifier.add(Flags::EXECUTABLE_COMMENT);
                continue;
            }
            TokenKind::Semicolon => {
                is_behind_semicolon = !is_empty;
                classifier.semicolon();
                continue;
            }
            _ => {}
        }
        is_empty = false;
        if std::mem::take(&mut is_behind_semicolon) {
            fingerprint.other(b";");
        }
        let text = lexer.text(token);
        let mut entry = None;
        let keeps_case = std::mem::take(&mut is_name_next);
        let is_behind_dot = std::mem::take(&mut is_dot);
        match token.kind {
            TokenKind::Word => {
                // A name behind a dot is no keyword; a sequence's next value is asked for there.
                if !is_behind_dot || matches!(text.len(), 6 | 7) {
                    entry = words.find(text);
                }
                match entry {
                    _ if is_behind_dot => fingerprint.name(text),
                    Some(entry) if entry.is_reserved() || !keeps_case => fingerprint.keyword(entry),
                    _ => fingerprint.name(text),
                }
                is_name_next = entry.is_some_and(|entry| {
                    matches!(entry.word, Word::From | Word::Join | Word::Into | Word::Update | Word::Table)
                });
                if text[0] >= 0x80 || modes.charset == ClientCharset::SingleByte {
                    classifier.doubt_blanks(text);
                }
            }
            TokenKind::QuotedName => fingerprint.name(&text[1..text.len() - 1]),
            TokenKind::Text | TokenKind::NationalText | TokenKind::Bit | TokenKind::Hex => {
                fingerprint.value()
            }
            TokenKind::Parameter => {
                placeholders += 1;
                fingerprint.value();
            }
            TokenKind::Integer | TokenKind::Decimal | TokenKind::Float => fingerprint.number(),
            TokenKind::UserVariable | TokenKind::SystemVariable => fingerprint.variable(text),
            TokenKind::LeftParenthesis => fingerprint.left(),
            TokenKind::RightParenthesis => fingerprint.right(),
            TokenKind::Comma => fingerprint.comma(),
            TokenKind::Dot => {
                is_dot = true;
                fingerprint.other(text);
            }
            _ => fingerprint.other(text),
        }
        if condition != Condition::None {
            condition = condition.next(token.kind, entry);
        } else if let Some(entry) = entry
            && entry.word == Word::Where
            && !is_behind_dot
            && classifier.is_at_main()
        {
            condition = Condition::Nothing;
        }
        classifier.token(token, text, entry);
    }
    is_certain &= !lexer.in_executable();
    let end = classifier.finish();
    Scan {
        digest: fingerprint.finish(),
        kind: end.kind,
        flags: end.flags,
        statements: end.statements,
        placeholders,
        optimizer_hint,
        note,
        main: end.main,
        has_where: condition.next(TokenKind::End, None) == Condition::Something,
        holds_statement: end.holds_statement,
        is_certain: is_certain && !end.flags.intersects(Flags::DOUBTFUL),
    }
}

/// What the WHERE of the statement itself names, as far as it has been read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// There is none.
    None,
    /// Nothing yet.
    Nothing,
    /// A word that is a name, unless it is called.
    Word,
    Something,
}

impl Condition {
    fn next(self, token: TokenKind, entry: Option<&Entry>) -> Condition {
        match (self, token) {
            (Condition::Nothing, TokenKind::Word) if entry.is_some_and(Entry::is_reserved) => self,
            (Condition::Nothing, TokenKind::Word) => Condition::Word,
            (Condition::Nothing, TokenKind::QuotedName) => Condition::Something,
            (Condition::Word, TokenKind::LeftParenthesis) => Condition::Nothing,
            (Condition::Word, _) => Condition::Something,
            _ => self,
        }
    }
}

/// Whether a comment is one that some servers execute, `/*! … */` and its like.
fn is_executable(comment: &[u8]) -> bool {
    [&b"/*!"[..], b"/*M!", b"/*T!"].iter().any(|open| comment.starts_with(open))
}

/// Whether all servers that are in use read the inside of an executable comment: one that asks for no version, or for one
/// that MySQL 5.7, MariaDB and TiDB all are behind.
fn is_read_by_all(open: &[u8], sql: &[u8], end: usize) -> bool {
    /// From here on MariaDB passes over what is MySQL's.
    const VERSIONS: u32 = 50_700;
    let Some(digits) = open.strip_prefix(b"/*!") else { return open == b"/*M!" };
    // Four digits, or seven, are read in more than one way.
    if sql.get(end).is_some_and(u8::is_ascii_digit) {
        return false;
    }
    match digits.len() {
        0 => true,
        5 => digits.iter().fold(0, |version, digit| version * 10 + u32::from(digit - b'0')) < VERSIONS,
        _ => false,
    }
}

/// The inside of a comment that is for Tidemill.
fn note_of(sql: &[u8], comment: Token) -> Option<Span> {
    let inside = sql.get(comment.start..comment.end)?.strip_prefix(b"/*")?.strip_suffix(b"*/")?;
    let blanks = inside.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    inside[blanks..]
        .starts_with(NOTE)
        .then(|| Span { start: comment.start + 2 + blanks + NOTE.len(), end: comment.end - 2 })
}
