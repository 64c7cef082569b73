//! Which verb a statement begins with, also behind WITH, EXPLAIN, parentheses and the prefixes of MariaDB and TiDB.

use super::classify::{Classifier, Stage};
use super::flags::{Flags, Kind};
use super::lexer::TokenKind;
use super::words::{Entry, Word};

impl Classifier<'_> {
    /// The first token of a statement, or of what it explains.
    pub(super) fn find_verb(&mut self, token: TokenKind, word: Word) {
        match token {
            TokenKind::LeftParenthesis => {}
            TokenKind::Word => self.begin(word),
            _ => self.settle(Word::Other, Kind::Unknown),
        }
    }

    /// A token between the first verb and the one that counts.
    pub(super) fn find_main(&mut self, token: TokenKind, word: Word, entry: Option<&Entry>) {
        match self.stage {
            Stage::Verb | Stage::Body => {}
            Stage::With(depth) => {
                if depth != self.depth {
                    return;
                }
                if token == TokenKind::LeftParenthesis && self.previous == TokenKind::RightParenthesis {
                    self.stage = Stage::Verb;
                } else if is_data_verb(word) && word != Word::With {
                    self.begin(word);
                }
            }
            Stage::Explain => self.explain(token, word, entry),
            Stage::ExplainFormat => {
                self.stage = Stage::ExplainValue;
                if token != TokenKind::Operator {
                    // A table that is called `format`.
                    self.settle(self.verb, Kind::Describe);
                }
            }
            Stage::ExplainValue => self.stage = Stage::Explain,
            Stage::ExplainFor => match word {
                Word::Schema | Word::Database => self.stage = Stage::ExplainValue,
                _ => {
                    self.add(Flags::SERVER_STATE);
                    self.settle(self.verb, Kind::Explain);
                }
            },
            Stage::SetStatement => {
                if word == Word::For && self.depth == 0 {
                    self.stage = Stage::Verb;
                }
            }
            Stage::Batch => {
                if is_data_verb(word) && self.depth == 0 {
                    self.begin(word);
                }
            }
        }
    }

    fn settle(&mut self, verb: Word, main: Kind) {
        self.verb = verb;
        self.main = main;
        self.main_depth = self.depth;
        self.stage = Stage::Body;
    }

    fn begin(&mut self, word: Word) {
        let kind = match word {
            Word::Select | Word::Table | Word::Values => Kind::Select,
            Word::With => {
                self.verb = word;
                self.stage = Stage::With(self.depth);
                return;
            }
            Word::Explain | Word::Describe | Word::Desc => {
                self.verb = word;
                self.is_explain = true;
                self.stage = Stage::Explain;
                return;
            }
            // TiDB runs what it traces.
            Word::Trace => {
                self.verb = word;
                self.is_explain = true;
                self.add(Flags::EXECUTES);
                self.stage = Stage::Explain;
                return;
            }
            Word::Batch => {
                self.verb = word;
                self.main = Kind::Unknown;
                self.stage = Stage::Batch;
                return;
            }
            Word::Insert => Kind::Insert,
            Word::Replace => Kind::Replace,
            Word::Update => Kind::Update,
            Word::Delete => Kind::Delete,
            Word::Load | Word::Import => Kind::Load,
            Word::Call => Kind::Call,
            Word::Do => Kind::Do,
            Word::Create
            | Word::Alter
            | Word::Drop
            | Word::Rename
            | Word::Truncate
            | Word::Flashback
            | Word::Recover => Kind::Ddl,
            Word::Begin => Kind::Begin,
            // START TRANSACTION is told by the word behind it.
            Word::Start => Kind::Admin,
            Word::Commit => Kind::Commit,
            Word::Rollback => Kind::Rollback,
            Word::Savepoint | Word::Release => Kind::Savepoint,
            Word::Set => Kind::Set,
            Word::Use => Kind::Use,
            Word::Show => Kind::Show,
            Word::Help => {
                self.add(Flags::SERVER_STATE);
                Kind::Show
            }
            Word::Prepare => Kind::Prepare,
            Word::Execute => Kind::Execute,
            Word::Deallocate => Kind::Deallocate,
            Word::Lock => Kind::Lock,
            Word::Unlock => Kind::Unlock,
            Word::Flush => Kind::Flush,
            Word::Kill => Kind::Kill,
            Word::Handler => Kind::Handler,
            Word::Xa => Kind::Xa,
            Word::Get => {
                self.add(Flags::DIAGNOSTICS);
                Kind::Unknown
            }
            Word::Admin
            | Word::Analyze
            | Word::Backup
            | Word::Binlog
            | Word::Cache
            | Word::Calibrate
            | Word::Cancel
            | Word::Change
            | Word::Check
            | Word::Checksum
            | Word::Clone
            | Word::Distribute
            | Word::Grant
            | Word::Install
            | Word::Optimize
            | Word::Plan
            | Word::Purge
            | Word::Query
            | Word::Repair
            | Word::Reset
            | Word::Restart
            | Word::Restore
            | Word::Revoke
            | Word::Shutdown
            | Word::Split
            | Word::Stop
            | Word::Traffic
            | Word::Uninstall => Kind::Admin,
            _ => Kind::Unknown,
        };
        self.is_target = matches!(kind, Kind::Insert | Kind::Replace | Kind::Load | Kind::Call);
        self.settle(word, kind);
    }

    /// A token behind EXPLAIN, DESCRIBE or TRACE and its options.
    fn explain(&mut self, token: TokenKind, word: Word, entry: Option<&Entry>) {
        match (token, word) {
            (TokenKind::LeftParenthesis, _) => self.stage = Stage::Verb,
            (TokenKind::UserVariable, _) if self.word == Word::Into => {}
            // TiDB explains what it remembers by a digest.
            (TokenKind::Text, _) => {
                self.add(Flags::SERVER_STATE);
                self.settle(self.verb, Kind::Explain);
            }
            (TokenKind::Word, Word::Analyze) => self.add(Flags::EXECUTES),
            (TokenKind::Word, Word::Extended | Word::Partitions | Word::Into) => {}
            (TokenKind::Word, Word::Format) => self.stage = Stage::ExplainFormat,
            (TokenKind::Word, Word::For) => self.stage = Stage::ExplainFor,
            (TokenKind::Word, _) if is_data_verb(word) => self.begin(word),
            _ => {
                // A table's name, unless it cannot be one, or something is run: TRACE PLAN, EXPLAIN ANALYZE EXECUTE.
                let is_table = self.verb != Word::Trace
                    && self.word != Word::Analyze
                    && !entry.is_some_and(Entry::is_reserved);
                self.settle(self.verb, if is_table { Kind::Describe } else { Kind::Unknown });
            }
        }
    }

    /// The first words behind SHOW: what may be asked of any server is passed, the rest is this server's or session's.
    pub(super) fn show(&mut self, word: Word) {
        match (self.word, word) {
            (_, Word::Warnings | Word::Errors) => self.add(Flags::DIAGNOSTICS),
            (
                Word::Show | Word::Full | Word::Extended,
                Word::Tables
                | Word::Columns
                | Word::Fields
                | Word::Index
                | Word::Indexes
                | Word::Keys
                | Word::Triggers,
            )
            | (
                Word::Show,
                Word::Databases
                | Word::Schemas
                | Word::Create
                | Word::Character
                | Word::Charset
                | Word::Collation
                | Word::Events,
            )
            | (Word::Table | Word::Procedure | Word::Function, Word::Status) => self.is_plain_show = true,
            _ => {}
        }
    }

    /// The word behind the verb, of verbs that mean different things.
    pub(super) fn second(&mut self, word: Word) {
        match (self.verb, word) {
            (Word::Start, Word::Transaction) => self.main = Kind::Begin,
            (Word::Begin, Word::Work | Word::Pessimistic | Word::Optimistic) => {}
            // MariaDB's blocks outside a stored program.
            (Word::Begin, _) => self.main = Kind::Unknown,
            (Word::Drop, Word::Prepare) => self.main = Kind::Deallocate,
            (Word::Load, Word::Data | Word::Xml) => {}
            (Word::Load, _) => self.main = Kind::Admin,
            (Word::Import, Word::Into) => {}
            (Word::Import, _) => self.main = Kind::Admin,
            (Word::Set, Word::Statement) => {
                self.add(Flags::SYSTEM_VARIABLE);
                self.main = Kind::Unknown;
                self.stage = Stage::SetStatement;
            }
            // MariaDB's ANALYZE statement.
            (Word::Analyze, Word::Format) => {
                self.is_explain = true;
                self.add(Flags::EXECUTES);
                self.stage = Stage::ExplainFormat;
            }
            (Word::Analyze, _) if is_data_verb(word) && word != Word::Table => {
                self.is_explain = true;
                self.add(Flags::EXECUTES);
                self.begin(word);
            }
            _ => {}
        }
    }
}

/// Whether a word begins what can be explained, or stands behind WITH.
fn is_data_verb(word: Word) -> bool {
    matches!(
        word,
        Word::Select
            | Word::Table
            | Word::Values
            | Word::With
            | Word::Insert
            | Word::Replace
            | Word::Update
            | Word::Delete
    )
}
