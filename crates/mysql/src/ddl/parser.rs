//! From tokens to a [`Statement`]. Every method gives `None` where the text is not what it expects.

use super::lexer::Token;
use super::{
    ColumnPlace, DatabaseDdlKind, PlacedColumn, Statement, StatementTable, TableDdl, TableDdlKind, XaVerb,
    xid_text,
};

pub(super) struct Parser {
    tokens: std::vec::IntoIter<Token>,
}

impl Parser {
    pub fn new(mut tokens: Vec<Token>) -> Self {
        while tokens.last() == Some(&Token::Symbol(';')) {
            tokens.pop();
        }
        Self { tokens: tokens.into_iter() }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.as_slice().first()
    }

    fn is_at(&self, offset: usize, word: &str) -> bool {
        matches!(self.tokens.as_slice().get(offset), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word))
    }

    fn is(&self, word: &str) -> bool {
        self.is_at(0, word)
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.is(word);
        if found {
            self.tokens.next();
        }
        found
    }

    /// The first of `words` that stands here, eaten.
    fn eat_any(&mut self, words: &[&'static str]) -> Option<&'static str> {
        words.iter().find(|word| self.eat(word)).copied()
    }

    fn eat_symbol(&mut self, symbol: char) -> bool {
        let found = self.peek() == Some(&Token::Symbol(symbol));
        if found {
            self.tokens.next();
        }
        found
    }

    fn name(&mut self) -> Option<String> {
        match self.tokens.next()? {
            Token::Word(name) | Token::Name(name) => Some(name),
            _ => None,
        }
    }

    fn table(&mut self) -> Option<StatementTable> {
        let first = self.name()?;
        if self.eat_symbol('.') {
            return Some(StatementTable { db: Some(first), table: self.name()? });
        }
        Some(StatementTable { db: None, table: first })
    }

    /// IF [NOT] EXISTS.
    fn if_exists(&mut self) {
        if self.is("IF") && (self.is_at(1, "EXISTS") || self.is_at(1, "NOT")) {
            self.tokens.next();
            self.eat("NOT");
            self.eat("EXISTS");
        }
    }

    /// MariaDB's WAIT n and NOWAIT.
    fn wait(&mut self) {
        if self.eat("WAIT") {
            self.tokens.next();
        } else {
            self.eat("NOWAIT");
        }
    }

    pub fn statement(mut self) -> Option<Statement> {
        const HARMLESS: [&str; 26] = [
            "GRANT",
            "REVOKE",
            "SET",
            "ANALYZE",
            "OPTIMIZE",
            "REPAIR",
            "CHECK",
            "CHECKSUM",
            "FLUSH",
            "RESET",
            "USE",
            "KILL",
            "LOCK",
            "UNLOCK",
            "INSTALL",
            "UNINSTALL",
            "CACHE",
            "SHOW",
            "EXPLAIN",
            "DESCRIBE",
            "PURGE",
            "CHANGE",
            "STOP",
            "SHUTDOWN",
            "RESTART",
            "PREPARE",
        ];
        const DML: [&str; 12] = [
            "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH", "SELECT", "DO", "CALL", "VALUES",
            "TABLE", "EXECUTE",
        ];
        let Token::Word(verb) = self.tokens.next()? else { return None };
        let verb = verb.to_ascii_uppercase();
        match verb.as_str() {
            "BEGIN" if self.is("NOT") => None,
            "BEGIN" => Some(Statement::Begin),
            "START" if self.is("TRANSACTION") => Some(Statement::Begin),
            "START" => Some(Statement::Harmless),
            "COMMIT" => Some(Statement::Commit),
            "ROLLBACK" => self.rollback(),
            "SAVEPOINT" => Some(Statement::Savepoint(self.name()?)),
            "RELEASE" if self.eat("SAVEPOINT") => Some(Statement::Release(self.name()?)),
            "XA" => self.xa(),
            "CREATE" => self.create(),
            "ALTER" => self.alter(),
            "DROP" => self.drop(),
            "RENAME" => self.rename(),
            "TRUNCATE" => self.truncate(),
            "SET" if self.eat("STATEMENT") => self.set_statement(),
            "LOAD" if self.is("INDEX") => Some(Statement::Harmless),
            other if HARMLESS.contains(&other) => Some(Statement::Harmless),
            other if DML.contains(&other) => Some(Statement::Dml),
            _ => None,
        }
    }

    fn rollback(mut self) -> Option<Statement> {
        self.eat("WORK");
        if self.eat("TO") {
            if self.is("SAVEPOINT") && self.tokens.len() > 1 {
                self.tokens.next();
            }
            return Some(Statement::RollbackTo(self.name()?));
        }
        Some(Statement::Rollback)
    }

    /// MariaDB: `SET STATEMENT variable = value, … FOR statement`.
    fn set_statement(mut self) -> Option<Statement> {
        while !self.eat("FOR") {
            self.tokens.next()?;
        }
        self.statement()
    }

    fn xa(mut self) -> Option<Statement> {
        let verb = match self.name()?.to_ascii_uppercase().as_str() {
            "START" | "BEGIN" => XaVerb::Start,
            "END" => XaVerb::End,
            "PREPARE" => XaVerb::Prepare,
            "COMMIT" => XaVerb::Commit,
            "ROLLBACK" => XaVerb::Rollback,
            "RECOVER" => return Some(Statement::Harmless),
            _ => return None,
        };
        let gtrid = self.bytes()?;
        let bqual = if self.eat_symbol(',') { self.bytes()? } else { Vec::new() };
        let format_id = if self.eat_symbol(',') { self.integer()? } else { 1 };
        let one_phase = self.eat("ONE") && self.eat("PHASE");
        Some(Statement::Xa { verb, xid: xid_text(&gtrid, &bqual, format_id), one_phase })
    }

    /// `'text'`, `X'6162'`, `0x6162`.
    fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.tokens.next()? {
            Token::Text(text) => Some(text.into_bytes()),
            Token::Word(word) if word.eq_ignore_ascii_case("x") => match self.tokens.next()? {
                Token::Text(digits) => unhex(&digits),
                _ => None,
            },
            Token::Word(word) => unhex(word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))?),
            _ => None,
        }
    }

    fn integer(&mut self) -> Option<i32> {
        let negative = self.eat_symbol('-');
        let number: i64 = self.name()?.parse().ok()?;
        i32::try_from(if negative { -number } else { number }).ok()
    }

    /// Words and clauses between CREATE, ALTER or DROP and the object's kind; whether one was TEMPORARY.
    fn modifiers(&mut self) -> Option<bool> {
        let mut is_temporary = false;
        loop {
            if self.is("SPATIAL") && self.is_at(1, "REFERENCE") {
                return Some(is_temporary);
            }
            match self.eat_any(&[
                "TEMPORARY",
                "OR",
                "REPLACE",
                "ONLINE",
                "OFFLINE",
                "IGNORE",
                "UNIQUE",
                "FULLTEXT",
                "SPATIAL",
                "VECTOR",
                "AGGREGATE",
                "UNDO",
                "MATERIALIZED",
                "SQL",
                "ALGORITHM",
                "DEFINER",
            ]) {
                Some("TEMPORARY") => is_temporary = true,
                // SQL SECURITY DEFINER
                Some("SQL") => drop((self.tokens.next()?, self.tokens.next()?)),
                Some("ALGORITHM") => drop((self.tokens.next()?, self.tokens.next()?)),
                Some("DEFINER") => self.definer()?,
                Some(_) => {}
                None => return Some(is_temporary),
            }
        }
    }

    /// `= user[@host]` or `= CURRENT_USER[()]`.
    fn definer(&mut self) -> Option<()> {
        self.eat_symbol('=');
        self.tokens.next()?;
        if self.eat_symbol('@') {
            self.tokens.next()?;
        }
        if self.eat_symbol('(') {
            self.eat_symbol(')');
        }
        Some(())
    }

    /// An object that holds no rows of ours.
    fn is_other_object(&self) -> bool {
        const OTHERS: [&str; 20] = [
            "VIEW",
            "PROCEDURE",
            "FUNCTION",
            "TRIGGER",
            "EVENT",
            "USER",
            "ROLE",
            "SERVER",
            "TABLESPACE",
            "LOGFILE",
            "RESOURCE",
            "SPATIAL",
            "PACKAGE",
            "SEQUENCE",
            "INSTANCE",
            "LIBRARY",
            "PREPARE",
            "CATALOG",
            "MASKING",
            "JSON",
        ];
        OTHERS.iter().any(|other| self.is(other))
    }

    fn create(mut self) -> Option<Statement> {
        let is_temporary = self.modifiers()?;
        if self.eat("TABLE") {
            self.if_exists();
            return self.create_table(is_temporary);
        }
        if self.eat("INDEX") {
            return self.index(TableDdlKind::CreateIndex);
        }
        if self.eat_any(&["DATABASE", "SCHEMA"]).is_some() {
            self.if_exists();
            let db = Some(self.name()?);
            return Some(Statement::DatabaseDdl { kind: DatabaseDdlKind::Create, db });
        }
        self.is_other_object().then_some(Statement::Harmless)
    }

    fn create_table(mut self, is_temporary: bool) -> Option<Statement> {
        let mut ddl = table_ddl(TableDdlKind::Create, vec![self.table()?]);
        ddl.is_temporary = is_temporary;
        let in_parentheses = self.peek() == Some(&Token::Symbol('(')) && self.is_at(1, "LIKE");
        if in_parentheses {
            self.tokens.next();
        }
        if self.eat("LIKE") {
            ddl.like = Some(self.table()?);
            return Some(Statement::TableDdl(ddl));
        }
        // Neither generated columns nor checks can hold a subquery.
        let rest = self.tokens.as_slice();
        ddl.is_select = (0..rest.len()).any(|at| self.is_at(at, "SELECT"));
        let end = rest.len();
        ddl.starts_transaction =
            end >= 2 && self.is_at(end - 2, "START") && self.is_at(end - 1, "TRANSACTION");
        Some(Statement::TableDdl(ddl))
    }

    /// `[IF EXISTS] name [USING …] ON table`.
    fn index(mut self, kind: TableDdlKind) -> Option<Statement> {
        self.if_exists();
        self.name()?;
        while !self.eat("ON") {
            self.tokens.next()?;
        }
        let ddl = table_ddl(kind, vec![self.table()?]);
        Some(Statement::TableDdl(TableDdl { keeps_columns: true, ..ddl }))
    }

    fn drop(mut self) -> Option<Statement> {
        let is_temporary = self.modifiers()?;
        if self.eat_any(&["TABLES", "TABLE"]).is_some() {
            self.if_exists();
            let mut tables = vec![self.table()?];
            while self.eat_symbol(',') {
                tables.push(self.table()?);
            }
            let ddl = TableDdl { is_temporary, ..table_ddl(TableDdlKind::Drop, tables) };
            return Some(Statement::TableDdl(ddl));
        }
        if self.eat("INDEX") {
            return self.index(TableDdlKind::DropIndex);
        }
        if self.eat_any(&["DATABASE", "SCHEMA"]).is_some() {
            self.if_exists();
            let db = Some(self.name()?);
            return Some(Statement::DatabaseDdl { kind: DatabaseDdlKind::Drop, db });
        }
        self.is_other_object().then_some(Statement::Harmless)
    }

    fn rename(mut self) -> Option<Statement> {
        if self.eat("USER") {
            return Some(Statement::Harmless);
        }
        self.eat_any(&["TABLES", "TABLE"])?;
        self.if_exists();
        let mut ddl = table_ddl(TableDdlKind::Rename, Vec::new());
        loop {
            let from = self.table()?;
            self.wait();
            if !self.eat("TO") {
                return None;
            }
            let to = self.table()?;
            ddl.tables.push(from.clone());
            ddl.renames.push((from, to));
            if !self.eat_symbol(',') {
                return Some(Statement::TableDdl(ddl));
            }
        }
    }

    fn truncate(mut self) -> Option<Statement> {
        if self.is("TABLE") && self.tokens.len() > 1 {
            self.tokens.next();
        }
        Some(Statement::TableDdl(table_ddl(TableDdlKind::Truncate, vec![self.table()?])))
    }

    fn alter(mut self) -> Option<Statement> {
        self.modifiers()?;
        if self.eat("TABLE") {
            return self.alter_table();
        }
        if self.eat_any(&["DATABASE", "SCHEMA"]).is_some() {
            const OPTIONS: [&str; 8] =
                ["DEFAULT", "CHARACTER", "CHARSET", "COLLATE", "ENCRYPTION", "READ", "UPGRADE", "COMMENT"];
            let unnamed = OPTIONS.iter().any(|option| self.is(option));
            let db = if unnamed { None } else { Some(self.name()?) };
            return Some(Statement::DatabaseDdl { kind: DatabaseDdlKind::Alter, db });
        }
        self.is_other_object().then_some(Statement::Harmless)
    }

    fn alter_table(mut self) -> Option<Statement> {
        self.if_exists();
        let table = self.table()?;
        self.wait();
        let mut ddl = table_ddl(TableDdlKind::Alter, vec![table.clone()]);
        ddl.keeps_columns = self.peek().is_some();
        while self.peek().is_some() {
            ddl.keeps_columns &= self.is_aside();
            self.alter_clause(&table, &mut ddl)?;
            self.skip_to_comma();
        }
        Some(Statement::TableDdl(ddl))
    }

    /// Whether a clause of ALTER is of an index or a comment. A primary key, also as a constraint, changes its columns.
    fn is_aside(&self) -> bool {
        const INDEXES: [&str; 5] = ["INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL"];
        const VERBS: [&str; 4] = ["ADD", "DROP", "RENAME", "ALTER"];
        const OPTIONS: [&str; 3] = ["COMMENT", "ALGORITHM", "LOCK"];
        match VERBS.iter().any(|verb| self.is(verb)) {
            true => INDEXES.iter().any(|index| self.is_at(1, index)),
            false => OPTIONS.iter().any(|option| self.is(option)),
        }
    }

    fn alter_clause(&mut self, table: &StatementTable, ddl: &mut TableDdl) -> Option<()> {
        if self.eat("RENAME") {
            return self.alter_rename(table, ddl);
        }
        if self.eat("CHANGE") {
            self.eat("COLUMN");
            self.if_exists();
            let (from, to) = (self.name()?, self.name()?);
            self.moves(&to, ddl);
            if from != to {
                ddl.column_renames.push((from, to));
            }
            return Some(());
        }
        if self.eat("MODIFY") {
            self.eat("COLUMN");
            self.if_exists();
            let name = self.name()?;
            self.moves(&name, ddl);
            return Some(());
        }
        if self.eat("ADD") {
            return self.alter_add(ddl);
        }
        let is_partition = self.is_at(1, "PARTITION");
        let is_tablespace = self.is_at(1, "TABLESPACE");
        match self.eat_any(&["DROP", "TRUNCATE", "EXCHANGE", "CONVERT", "IMPORT", "DISCARD"]) {
            Some("DROP" | "TRUNCATE") if is_partition => ddl.moves_rows = true,
            Some("DROP") => self.alter_drop(ddl)?,
            Some("IMPORT" | "DISCARD") => ddl.moves_rows |= is_tablespace || is_partition,
            Some("EXCHANGE" | "CONVERT") if is_partition || self.is("TABLE") => {
                ddl.moves_rows = true;
                while !self.eat("TABLE") {
                    self.tokens.next()?;
                }
                ddl.tables.push(self.table()?);
            }
            _ => {}
        }
        Some(())
    }

    /// After the name of a column that is changed: whether it is moved.
    fn moves(&self, name: &str, ddl: &mut TableDdl) {
        if let Some(place) = self.place() {
            ddl.placed_columns.push(PlacedColumn { name: name.to_owned(), place, is_moved: true });
        }
    }

    /// FIRST or AFTER, which end a column's clause.
    fn place(&self) -> Option<ColumnPlace> {
        let tokens = self.tokens.as_slice();
        let mut place = None;
        let mut depth = 0usize;
        for (at, token) in tokens.iter().enumerate() {
            let next = tokens.get(at + 1);
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                Token::Symbol(',') if depth == 0 => break,
                Token::Word(word) if depth == 0 && word.eq_ignore_ascii_case("AFTER") => {
                    if let Some(Token::Word(name) | Token::Name(name)) = next {
                        place = Some(ColumnPlace::After(name.clone()));
                    }
                }
                Token::Word(word)
                    if depth == 0
                        && word.eq_ignore_ascii_case("FIRST")
                        && (matches!(next, None | Some(Token::Symbol(',')))
                            || self.is_at(at + 1, "PARTITION")) =>
                {
                    place = Some(ColumnPlace::First);
                }
                _ => {}
            }
        }
        place
    }

    /// After DROP: a column, or something that is no column.
    fn alter_drop(&mut self, ddl: &mut TableDdl) -> Option<()> {
        const OTHERS: [&str; 8] =
            ["INDEX", "KEY", "PRIMARY", "FOREIGN", "CHECK", "CONSTRAINT", "PERIOD", "SYSTEM"];
        if !self.eat("COLUMN") && OTHERS.iter().any(|other| self.is(other)) {
            return Some(());
        }
        self.if_exists();
        ddl.dropped_columns.push(self.name()?);
        Some(())
    }

    /// After ADD: a column, several in parentheses, or something that is no column.
    fn alter_add(&mut self, ddl: &mut TableDdl) -> Option<()> {
        const OTHERS: [&str; 13] = [
            "INDEX",
            "KEY",
            "PRIMARY",
            "UNIQUE",
            "FULLTEXT",
            "SPATIAL",
            "VECTOR",
            "CONSTRAINT",
            "FOREIGN",
            "CHECK",
            "PARTITION",
            "PERIOD",
            "SYSTEM",
        ];
        let is_column = self.eat("COLUMN");
        if !is_column && OTHERS.iter().any(|other| self.is(other)) {
            return Some(());
        }
        let is_new = !(self.is("IF") && self.is_at(1, "NOT"));
        self.if_exists();
        let mut add = |name: String, place: ColumnPlace| {
            if is_new {
                ddl.added_columns.push(name.clone());
            }
            ddl.placed_columns.push(PlacedColumn { name, place, is_moved: false });
        };
        if !self.eat_symbol('(') {
            let name = self.name()?;
            add(name, self.place().unwrap_or(ColumnPlace::Last));
            return Some(());
        }
        loop {
            if OTHERS.iter().any(|other| self.is(other)) {
                self.tokens.next();
            } else {
                add(self.name()?, ColumnPlace::Last);
            }
            let mut depth = 0usize;
            loop {
                match self.tokens.next()? {
                    Token::Symbol('(') => depth += 1,
                    Token::Symbol(')') if depth == 0 => return Some(()),
                    Token::Symbol(')') => depth -= 1,
                    Token::Symbol(',') if depth == 0 => break,
                    _ => {}
                }
            }
        }
    }

    /// After RENAME: a column, an index or key, or the table itself.
    fn alter_rename(&mut self, table: &StatementTable, ddl: &mut TableDdl) -> Option<()> {
        if self.eat("COLUMN") {
            self.if_exists();
            let from = self.name()?;
            if !self.eat("TO") {
                return None;
            }
            let to = self.name()?;
            if from != to {
                ddl.column_renames.push((from, to));
            }
        } else if !self.is("INDEX") && !self.is("KEY") {
            if self.eat_any(&["TO", "AS"]).is_none() {
                self.eat_symbol('=');
            }
            ddl.renames.push((table.clone(), self.table()?));
        }
        Some(())
    }

    /// Past the next comma outside parentheses, or to the end.
    fn skip_to_comma(&mut self) {
        let mut depth = 0usize;
        for token in self.tokens.by_ref() {
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                Token::Symbol(',') if depth == 0 => return,
                _ => {}
            }
        }
    }
}

fn table_ddl(kind: TableDdlKind, tables: Vec<StatementTable>) -> TableDdl {
    TableDdl {
        kind,
        tables,
        renames: Vec::new(),
        column_renames: Vec::new(),
        added_columns: Vec::new(),
        dropped_columns: Vec::new(),
        placed_columns: Vec::new(),
        like: None,
        is_select: false,
        starts_transaction: false,
        is_temporary: false,
        moves_rows: false,
        keeps_columns: false,
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}
