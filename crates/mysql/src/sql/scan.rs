//! One pass over a statement: what it is, what it touches, and its digest.

use super::classify::Classifier;
use super::fingerprint::Fingerprint;
use super::flags::{Flags, Kind};
use super::lexer::{Lexer, Token, TokenKind};
use super::modes::{ClientCharset, Modes};
use super::words::{Word, words};

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
                classifier.comment(lexer.text(token));
                continue;
            }
            TokenKind::Hint => {
                classifier.hint(lexer.text(token));
                optimizer_hint = optimizer_hint.or(Some(Span { start: token.start + 3, end: token.end - 2 }));
                continue;
            }
            TokenKind::ExecutableOpen | TokenKind::ExecutableClose => {
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
        classifier.token(token, text, entry);
    }
    let (kind, flags, statements) = classifier.finish();
    Scan { digest: fingerprint.finish(), kind, flags, statements, placeholders, optimizer_hint, note }
}

/// The inside of a comment that is for Tidemill.
fn note_of(sql: &[u8], comment: Token) -> Option<Span> {
    let inside = sql.get(comment.start..comment.end)?.strip_prefix(b"/*")?.strip_suffix(b"*/")?;
    let blanks = inside.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    inside[blanks..]
        .starts_with(NOTE)
        .then(|| Span { start: comment.start + 2 + blanks + NOTE.len(), end: comment.end - 2 })
}
