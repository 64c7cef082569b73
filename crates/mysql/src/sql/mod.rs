//! What an SQL statement is, from its tokens alone: for a program that stands between clients and servers and looks at
//! every statement.
//!
//! [`scan`] makes one pass without allocating: a digest to look verdicts up by, the kind, and what the statement touches.
//! It knows no grammar: what it cannot be sure of is marked, and is then no safe read. A statement that no server would
//! accept gets an answer like any other.

mod classify;
mod digest;
mod digest_mysql;
mod digest_tidb;
mod digest_words;
mod fingerprint;
mod flags;
mod lexer;
mod modes;
mod scan;
mod set;

mod verbs;
mod word_lists;
mod words;

pub use digest::{MYSQL_DIGEST_LENGTH, digest_text, whole_digest_text};
pub use flags::{Flags, Kind};
pub use lexer::{Lexer, Token, TokenKind};
pub use modes::{ClientCharset, Dialect, Modes};
pub use scan::{Scan, Span, scan};
pub use set::{Assigned, Assignment, Scope, parse_assigned, parse_set};
