//! What a statement is and what it touches, as far as its tokens tell.

use std::ops::{BitOr, BitOrAssign};

/// What a statement does, by its verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Nothing but blanks and comments.
    Empty,
    /// SELECT, TABLE, VALUES, WITH … SELECT, in parentheses or not.
    Select,
    Insert,
    Update,
    Delete,
    Replace,
    /// LOAD DATA, LOAD XML, IMPORT INTO.
    Load,
    Call,
    Do,
    /// What defines or empties objects, and commits the transaction in doing so.
    Ddl,
    /// BEGIN, START TRANSACTION.
    Begin,
    Commit,
    /// Not ROLLBACK TO, which is a savepoint's.
    Rollback,
    /// SAVEPOINT, RELEASE SAVEPOINT, ROLLBACK TO.
    Savepoint,
    Set,
    Use,
    Show,
    /// EXPLAIN, and DESCRIBE of a statement; what it explains is told by [`Flags::EXPLAINED_WRITE`].
    Explain,
    /// DESCRIBE of a table.
    Describe,
    Prepare,
    Execute,
    Deallocate,
    Lock,
    Unlock,
    Flush,
    Kill,
    Handler,
    Xa,
    /// What administers the server, accounts or tables: GRANT, ANALYZE TABLE, START REPLICA, ….
    Admin,
    /// A verb that is not known. It may do anything.
    Unknown,
}

/// What a statement touches: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "they number the constants")]
        #[derive(Clone, Copy)]
        enum Bit { $($name,)* }
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << Bit::$name as u64);)*

            /// Every flag with its name.
            pub const NAMES: &'static [(Flags, &'static str)] = &[$((Flags::$name, stringify!($name)),)*];
        }
    };
}

flags! {
    /// FOR UPDATE, FOR SHARE, LOCK IN SHARE MODE.
    LOCKING,
    /// `@name` is read.
    USER_VARIABLE_READ,
    /// `@name` is written: SET, `:=`, INTO, or by a call that may write it.
    USER_VARIABLE_WRITTEN,
    /// `@@name`.
    SYSTEM_VARIABLE,
    /// SET GLOBAL, SET PERSIST, `SET @@global.name`.
    GLOBAL_SCOPE,
    /// LAST_INSERT_ID(), `@@identity`, `@@last_insert_id`.
    LAST_INSERT_ID,
    /// Warnings and errors of the statement before: SHOW WARNINGS, `@@warning_count`, GET DIAGNOSTICS.
    DIAGNOSTICS,
    /// FOUND_ROWS().
    FOUND_ROWS,
    /// ROW_COUNT().
    ROW_COUNT,
    /// SQL_CALC_FOUND_ROWS.
    CALC_FOUND_ROWS,
    /// GET_LOCK() and its family.
    USER_LOCK,
    /// SLEEP(), BENCHMARK(), or a wait for a replica's position.
    WAITS,
    /// CONNECTION_ID() and what else names the session.
    CONNECTION_ID,
    /// NEXT VALUE FOR, NEXTVAL(), SETVAL(), LASTVAL().
    SEQUENCE,
    /// A call of what is no built-in function that only reads: a stored function may write.
    UNKNOWN_FUNCTION,
    /// CREATE or DROP TEMPORARY TABLE.
    TEMPORARY_TABLE,
    /// The answer is this server's or session's own: SHOW STATUS, a system schema, LOAD_FILE().
    SERVER_STATE,
    /// SELECT … INTO OUTFILE or DUMPFILE.
    INTO_FILE,
    /// LOAD DATA LOCAL: the server will ask the client for a file.
    LOCAL_FILE,
    /// More than one statement. The body of a stored program counts too.
    MULTI,
    /// `/*! … */`, `/*M! … */`, `/*T! … */`: what is in it depends on the server.
    EXECUTABLE_COMMENT,
    /// Tokens that a server may read otherwise than we do, or that are broken.
    DOUBTFUL,
    /// EXPLAIN ANALYZE, TRACE: what is explained is also run.
    EXECUTES,
    /// What is explained would write.
    EXPLAINED_WRITE,
    /// START TRANSACTION READ ONLY.
    READ_ONLY,
    /// START TRANSACTION WITH CONSISTENT SNAPSHOT.
    CONSISTENT_SNAPSHOT,
    /// AND CHAIN: another transaction begins at once.
    CHAIN,
    /// RELEASE: the server ends the session.
    RELEASE,
    /// FLUSH TABLES … WITH READ LOCK or FOR EXPORT.
    READ_LOCK,
}

impl Flags {
    pub const NONE: Flags = Flags(0);

    /// Reasons not to send a read to a replica, or to whatever connection is free. READ_ONLY and the like are facts
    /// about statements that are no reads.
    pub const NO_SAFE_READ: Flags = Flags(
        Flags::LOCKING.0
            | Flags::USER_VARIABLE_READ.0
            | Flags::USER_VARIABLE_WRITTEN.0
            | Flags::SYSTEM_VARIABLE.0
            | Flags::GLOBAL_SCOPE.0
            | Flags::LAST_INSERT_ID.0
            | Flags::DIAGNOSTICS.0
            | Flags::FOUND_ROWS.0
            | Flags::ROW_COUNT.0
            | Flags::CALC_FOUND_ROWS.0
            | Flags::USER_LOCK.0
            | Flags::WAITS.0
            | Flags::CONNECTION_ID.0
            | Flags::SEQUENCE.0
            | Flags::UNKNOWN_FUNCTION.0
            | Flags::TEMPORARY_TABLE.0
            | Flags::SERVER_STATE.0
            | Flags::INTO_FILE.0
            | Flags::LOCAL_FILE.0
            | Flags::MULTI.0
            | Flags::EXECUTABLE_COMMENT.0
            | Flags::DOUBTFUL.0
            | Flags::EXPLAINED_WRITE.0
            | Flags::READ_LOCK.0,
    );

    /// The bits, for a table or a log.
    pub const fn bits(self) -> u64 {
        self.0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The names of those that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flags::NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| *name)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        self.union(other)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        *self = self.union(other);
    }
}
