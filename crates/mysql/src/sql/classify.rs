//! What a statement is and touches, token by token. It knows verbs and a few words behind them, no grammar: a word counts
//! where it could mean something, so a name that looks like a keyword can make a statement look worse than it is, never
//! better.

use super::flags::{Flags, Kind};
use super::lexer::{Token, TokenKind};
use super::modes::{ClientCharset, Modes};
use super::words::{Entry, Word, words};

pub(super) struct Classifier<'a> {
    sql: &'a [u8],
    modes: Modes,
    /// Of the first statement.
    kind: Kind,
    flags: Flags,
    statements: usize,
    pub(super) stage: Stage,
    /// The verb of the statement.
    pub(super) verb: Word,
    /// What runs, or is explained: [`Kind::Empty`] until it is known.
    pub(super) main: Kind,
    /// The same of the first statement.
    first_main: Kind,
    /// How deep in parentheses the verb that counts stands.
    pub(super) main_depth: u32,
    /// Whether a statement is carried that is not looked into.
    holds_statement: bool,
    /// Whether what CREATE or ALTER is about can be no stored program any more.
    is_plain_object: bool,
    /// Words of the statement before this token.
    words: u32,
    pub(super) is_explain: bool,
    pub(super) depth: u32,
    /// The last token, and the last two words with nothing but a word between.
    pub(super) previous: TokenKind,
    previous_start: usize,
    previous_end: usize,
    previous_entry: Option<&'static Entry>,
    pub(super) word: Word,
    word_before: Word,
    /// Whether the last token is the name behind a dot.
    is_qualified: bool,
    /// Whether names in front of `(` are tables and routines that the verb names, and no functions.
    pub(super) is_target: bool,
    /// Whether variables of an INTO list are being named.
    is_into: bool,
    /// Whether an assignment of SET begins here.
    is_assignment: bool,
    /// Whether a SHOW asks for what any server can answer.
    pub(super) is_plain_show: bool,
    /// Whether every next token matters, whatever it is.
    is_watching: bool,
    /// Whether a user variable stands before this token, and at the place of an assignment.
    variable: Option<bool>,
}

/// What is known at the end.
pub(super) struct Classified {
    pub kind: Kind,
    pub main: Kind,
    pub flags: Flags,
    pub statements: usize,
    pub holds_statement: bool,
}

/// How far the statement is understood.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The verb is next.
    Verb,
    /// Behind WITH: the verb comes at this depth, after the tables.
    With(u32),
    /// Behind EXPLAIN.
    Explain,
    /// Behind EXPLAIN FORMAT.
    ExplainFormat,
    /// What comes is the value of an option of EXPLAIN.
    ExplainValue,
    /// Behind EXPLAIN FOR.
    ExplainFor,
    /// MariaDB's SET STATEMENT … FOR statement.
    SetStatement,
    /// TiDB's BATCH … DELETE.
    Batch,
    /// The verb is known.
    Body,
}

impl<'a> Classifier<'a> {
    pub fn new(sql: &'a [u8], modes: Modes) -> Classifier<'a> {
        Classifier {
            sql,
            modes,
            kind: Kind::Empty,
            flags: Flags::NONE,
            statements: 0,
            stage: Stage::Verb,
            verb: Word::Other,
            main: Kind::Empty,
            first_main: Kind::Empty,
            main_depth: 0,
            holds_statement: false,
            is_plain_object: false,
            words: 0,
            is_explain: false,
            depth: 0,
            previous: TokenKind::End,
            previous_start: 0,
            previous_end: 0,
            previous_entry: None,
            word: Word::Other,
            word_before: Word::Other,
            is_qualified: false,
            is_target: false,
            is_into: false,
            is_assignment: false,
            is_plain_show: false,
            is_watching: true,
            variable: None,
        }
    }

    pub fn add(&mut self, flags: Flags) {
        self.flags |= flags;
    }

    pub fn comment(&mut self, text: &[u8]) {
        // Another version, or another server, would run it.
        if text.starts_with(b"/*!") || text.starts_with(b"/*M!") || text.starts_with(b"/*T!") {
            self.add(Flags::EXECUTABLE_COMMENT);
        }
    }

    /// A hint has quotes of its own, in which `*/` may stand.
    pub fn hint(&mut self, text: &[u8]) {
        if text.iter().any(|byte| matches!(byte, b'\'' | b'"' | b'`')) {
            self.add(Flags::DOUBTFUL);
        }
    }

    /// Bytes that some character set takes for blanks: a word may be two for the server.
    pub fn doubt_blanks(&mut self, word: &[u8]) {
        let is_doubtful = match self.modes.charset {
            ClientCharset::SingleByte => !word.is_ascii(),
            _ => matches!(word.first(), Some(0x85 | 0xa0)),
        };
        if is_doubtful {
            self.add(Flags::DOUBTFUL);
        }
    }

    pub fn semicolon(&mut self) {
        self.end_statement();
    }

    pub fn finish(mut self) -> Classified {
        self.end_statement();
        if self.statements > 1 {
            self.add(Flags::MULTI);
        }
        Classified {
            kind: self.kind,
            main: self.first_main,
            flags: self.flags,
            statements: self.statements,
            holds_statement: self.holds_statement,
        }
    }

    /// Whether what comes is the statement's own, not a subquery's.
    #[inline]
    pub fn is_at_main(&self) -> bool {
        self.statements == 0
            && self.depth == self.main_depth
            && matches!(self.main, Kind::Update | Kind::Delete)
    }

    fn end_statement(&mut self) {
        if self.previous != TokenKind::End {
            self.end_variable(TokenKind::End, b"");
            let kind = self.statement_kind();
            if kind == Kind::Show && !self.is_plain_show {
                self.add(Flags::SERVER_STATE);
            }
            self.statements += 1;
            self.holds_statement |=
                matches!(self.main, Kind::Prepare | Kind::Execute) || self.verb == Word::Binlog;
            if self.statements == 1 {
                self.kind = kind;
                self.first_main = if self.main == Kind::Empty { kind } else { self.main };
            }
        }
        let fresh = Classifier::new(self.sql, self.modes);
        *self = Classifier {
            kind: self.kind,
            flags: self.flags,
            statements: self.statements,
            first_main: self.first_main,
            holds_statement: self.holds_statement,
            ..fresh
        };
    }

    fn statement_kind(&mut self) -> Kind {
        if !self.is_explain {
            return if self.main == Kind::Empty { Kind::Unknown } else { self.main };
        }
        match self.main {
            Kind::Select => {}
            Kind::Describe | Kind::Explain => return self.main,
            // EXPLAIN of nothing is DESCRIBE of a table that is called like an option.
            Kind::Empty => return Kind::Describe,
            _ => self.add(Flags::EXPLAINED_WRITE),
        }
        Kind::Explain
    }

    /// The next token of the statement, with what is known of it when it is a word.
    #[inline]
    pub fn token(&mut self, token: Token, text: &[u8], entry: Option<&'static Entry>) {
        let is_behind_dot = self.previous == TokenKind::Dot;
        let mut word = Word::Other;
        let is_plain = match token.kind {
            _ if self.is_watching => false,
            TokenKind::Word => {
                match entry {
                    Some(entry) if !is_behind_dot => word = entry.word,
                    _ => {}
                }
                self.words >= 2
                    && match word {
                        Word::Other => !is_behind_dot || entry.is_none(),
                        // Of the statements that are many, few words mean something.
                        Word::And
                        | Word::As
                        | Word::From
                        | Word::Join
                        | Word::Group
                        | Word::Where
                        | Word::Not
                        | Word::Is => true,
                        _ => false,
                    }
            }
            TokenKind::Comma
            | TokenKind::Operator
            | TokenKind::Integer
            | TokenKind::Decimal
            | TokenKind::Float
            | TokenKind::Text
            | TokenKind::Parameter => true,
            TokenKind::Dot => self.previous == TokenKind::Word && self.previous_entry.is_none(),
            TokenKind::RightParenthesis => {
                self.depth = self.depth.saturating_sub(1);
                true
            }
            _ => false,
        };
        if is_plain {
            let is_word = token.kind == TokenKind::Word;
            self.words += u32::from(is_word);
            let is_qualified = is_behind_dot && is_word;
            self.remember(token, word, entry, is_qualified);
        } else {
            self.attend(token, text, entry);
        }
    }

    #[inline]
    fn remember(&mut self, token: Token, word: Word, entry: Option<&'static Entry>, is_qualified: bool) {
        self.word_before = self.word;
        self.word = word;
        self.previous = token.kind;
        self.previous_start = token.start;
        self.previous_end = token.end;
        self.previous_entry = entry;
        self.is_qualified = is_qualified;
    }

    /// A token that may mean something.
    fn attend(&mut self, token: Token, text: &[u8], entry: Option<&'static Entry>) {
        if self.variable.is_some() {
            self.end_variable(token.kind, text);
        }
        let is_qualified =
            self.previous == TokenKind::Dot && matches!(token.kind, TokenKind::Word | TokenKind::QuotedName);
        let word = match entry {
            Some(entry) if !is_qualified => entry.word,
            _ => Word::Other,
        };
        if self.word == Word::Into && self.main == Kind::Select {
            self.into(token.kind, word);
        }
        match self.stage {
            Stage::Body => {}
            Stage::Verb => self.find_verb(token.kind, word),
            _ => self.find_main(token.kind, word, entry),
        }
        match token.kind {
            TokenKind::Word => {
                if self.words == 1 && self.stage == Stage::Body {
                    self.second(word);
                }
                if word != Word::Other {
                    self.notice(word);
                }
                if is_qualified && entry.is_some_and(|entry| entry.called == Flags::SEQUENCE) {
                    self.add(Flags::SEQUENCE);
                }
                self.words += 1;
            }
            TokenKind::LeftParenthesis => {
                if matches!(self.previous, TokenKind::Word | TokenKind::QuotedName) {
                    self.call(token);
                }
                self.depth += 1;
            }
            TokenKind::RightParenthesis => self.depth = self.depth.saturating_sub(1),
            TokenKind::Dot => self.qualify(),
            TokenKind::UserVariable => {
                let is_written = self.is_assignment || self.is_into;
                self.variable = Some(is_written);
            }
            TokenKind::SystemVariable => self.system_variable(text),
            TokenKind::Bad => self.add(Flags::DOUBTFUL),
            _ => {}
        }
        self.is_into &= matches!(token.kind, TokenKind::UserVariable | TokenKind::Comma);
        self.is_assignment = self.verb == Word::Set
            && self.depth == 0
            && (token.kind == TokenKind::Comma || self.words == 1 && word == Word::Set);
        self.is_watching = self.stage != Stage::Body
            || self.verb == Word::Set
            || self.variable.is_some()
            || self.is_into
            || word == Word::Into;
        self.remember(token, word, entry, is_qualified);
    }

    /// A user variable stands before this token: is it read or written?
    fn end_variable(&mut self, next: TokenKind, text: &[u8]) {
        let Some(is_written) = self.variable.take() else { return };
        let is_assigned = next == TokenKind::Operator && matches!(text, b":=" | b"=");
        if text == b":=" || is_written && (self.is_into || is_assigned) {
            self.add(Flags::USER_VARIABLE_WRITTEN);
        } else if matches!(self.verb, Word::Call | Word::Load | Word::Get | Word::Fetch) {
            self.add(Flags::USER_VARIABLE_WRITTEN.union(Flags::USER_VARIABLE_READ));
        } else {
            self.add(Flags::USER_VARIABLE_READ);
        }
    }

    /// What stands behind INTO of a SELECT.
    fn into(&mut self, kind: TokenKind, word: Word) {
        match (kind, word) {
            (TokenKind::UserVariable, _) => self.is_into = true,
            (_, Word::Outfile | Word::Dumpfile) => self.add(Flags::INTO_FILE),
            // A variable of a stored program, or nothing that we know.
            _ => self.add(Flags::DOUBTFUL),
        }
    }

    fn system_variable(&mut self, text: &[u8]) {
        self.add(Flags::SYSTEM_VARIABLE);
        let name = text.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
        let name = name.strip_prefix(b"@@").unwrap_or(name);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("identity") || is("last_insert_id") {
            self.add(Flags::LAST_INSERT_ID);
        } else if is("warning_count") || is("error_count") {
            self.add(Flags::DIAGNOSTICS);
        }
        let has_scope = |scope: &str| {
            text.get(2..2 + scope.len()).is_some_and(|it| it.eq_ignore_ascii_case(scope.as_bytes()))
        };
        if self.is_assignment && (has_scope("global.") || has_scope("persist")) {
            self.add(Flags::GLOBAL_SCOPE);
        }
    }

    /// A dot behind a name: is it a system schema?
    fn qualify(&mut self) {
        let entry = match self.previous {
            TokenKind::Word if !self.is_qualified => self.previous_entry,
            TokenKind::QuotedName if !self.is_qualified => {
                let quoted = self.sql.get(self.previous_start + 1..self.previous_end - 1);
                quoted.and_then(|name| words().find(name))
            }
            _ => None,
        };
        if entry.is_some_and(Entry::is_system_schema) {
            self.add(Flags::SERVER_STATE);
        }
    }

    /// `(` behind a name: what is called?
    fn call(&mut self, parenthesis: Token) {
        let is_named_by_grammar = self.is_target
            || matches!(self.word_before, Word::As | Word::With | Word::Recursive)
            || matches!(self.main, Kind::Ddl | Kind::Admin | Kind::Prepare | Kind::Lock);
        if is_named_by_grammar {
            // The arguments of CALL are expressions.
            self.is_target &= self.verb != Word::Call;
            return;
        }
        let entry = match self.previous {
            TokenKind::Word if !self.is_qualified => self.previous_entry,
            _ => None,
        };
        let is_adjacent = self.modes.ignore_space || self.previous_end == parenthesis.start;
        match entry {
            Some(entry) if entry.is_read_only_call(self.modes.dialect, is_adjacent) => {
                self.add(entry.called);
            }
            _ => self.add(Flags::UNKNOWN_FUNCTION),
        }
    }

    /// A word that means something wherever it stands in a statement.
    fn notice(&mut self, word: Word) {
        match (self.word, word) {
            (Word::For, Word::Update | Word::Share) | (Word::Lock, Word::In) => self.add(Flags::LOCKING),
            (Word::Next | Word::Previous, Word::Value) => self.add(Flags::SEQUENCE),
            (_, Word::SqlCalcFoundRows) => self.add(Flags::CALC_FOUND_ROWS),
            (_, Word::Select | Word::Values | Word::Value | Word::With)
                if matches!(self.verb, Word::Insert | Word::Replace) =>
            {
                self.is_target = false;
            }
            (_, Word::Set) => self.is_target = false,
            _ => {}
        }
        if self.words > 0 {
            self.follow(word);
        }
    }

    /// A word behind the verb that means something for that verb.
    fn follow(&mut self, word: Word) {
        match (self.verb, word) {
            (Word::Start | Word::Set, Word::Only) if self.word == Word::Read => self.add(Flags::READ_ONLY),
            (Word::Start, Word::Consistent) => self.add(Flags::CONSISTENT_SNAPSHOT),
            (Word::Commit | Word::Rollback, Word::Chain) if self.word == Word::And => self.add(Flags::CHAIN),
            (Word::Commit | Word::Rollback, Word::Release) if self.word != Word::No => {
                self.add(Flags::RELEASE);
            }
            (Word::Rollback, Word::To) => self.main = Kind::Savepoint,
            (Word::Create | Word::Drop, Word::Temporary) if self.words <= 3 => {
                self.add(Flags::TEMPORARY_TABLE);
            }
            (
                Word::Create | Word::Alter,
                Word::Table | Word::Index | Word::Database | Word::Schema | Word::Select,
            ) => {
                self.is_plain_object = true;
            }
            (
                Word::Create | Word::Alter,
                Word::Procedure | Word::Function | Word::Trigger | Word::Event | Word::Package,
            ) if self.depth == 0 && !self.is_plain_object => self.holds_statement = true,
            (Word::Load, Word::Local) if self.words <= 3 => self.add(Flags::LOCAL_FILE),
            (Word::Flush, Word::Read) if self.word == Word::With => self.add(Flags::READ_LOCK),
            (Word::Flush, Word::Export) if self.word == Word::For => self.add(Flags::READ_LOCK),
            (Word::Set, Word::Global | Word::Persist | Word::PersistOnly) if self.is_assignment => {
                self.add(Flags::GLOBAL_SCOPE);
            }
            (Word::Show, _) if self.words <= 3 => self.show(word),
            _ => {}
        }
    }
}
