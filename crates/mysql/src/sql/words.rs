//! One lookup for every word of a statement: is it a keyword, a verb, a function, and what of it.
//!
//! The table is made of `word_lists` once for a process.

use std::sync::LazyLock;

use super::fingerprint::keyword_hash;
use super::flags::Flags;
use super::modes::Dialect;
use super::word_lists as lists;

/// Declares the words that the scanner acts upon.
macro_rules! acted_upon {
    ($($variant:ident $name:literal,)*) => {
        /// A word that the scanner acts upon; all others are [`Word::Other`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Word { Other, $($variant,)* }

        const ACTED_UPON: &[(&str, Word)] = &[$(($name, Word::$variant),)*];
    };
}

acted_upon! {
    Admin "ADMIN", Alter "ALTER", Analyze "ANALYZE", And "AND", As "AS", Backup "BACKUP", Batch "BATCH",
    Begin "BEGIN", Binlog "BINLOG", Cache "CACHE", Call "CALL", Cancel "CANCEL", Change "CHANGE",
    Calibrate "CALIBRATE", Chain "CHAIN", Channel "CHANNEL", Character "CHARACTER", Charset "CHARSET",
    Check "CHECK", Checksum "CHECKSUM", Clone "CLONE", Collation "COLLATION", Columns "COLUMNS",
    Commit "COMMIT", Connection "CONNECTION", Consistent "CONSISTENT", Create "CREATE", Data "DATA",
    Database "DATABASE", Databases "DATABASES", Deallocate "DEALLOCATE", Default "DEFAULT",
    Delete "DELETE", Desc "DESC", Describe "DESCRIBE", Distribute "DISTRIBUTE", Do "DO", Drop "DROP",
    Dumpfile "DUMPFILE", Engines "ENGINES", Errors "ERRORS", Event "EVENT", Events "EVENTS", Execute "EXECUTE",
    Explain "EXPLAIN", Export "EXPORT", Extended "EXTENDED", False "FALSE", Fetch "FETCH", Fields "FIELDS",
    Flashback "FLASHBACK", Flush "FLUSH", For "FOR", Format "FORMAT", From "FROM", Full "FULL",
    Function "FUNCTION", Get "GET", Global "GLOBAL", Grant "GRANT", Group "GROUP", Handler "HANDLER",
    Having "HAVING", Help "HELP", Import "IMPORT", In "IN", Index "INDEX", Indexes "INDEXES",
    Insert "INSERT", Install "INSTALL", Into "INTO", Is "IS", Join "JOIN", Keys "KEYS", Kill "KILL",
    Load "LOAD", Local "LOCAL", Lock "LOCK", Next "NEXT", No "NO", Not "NOT", Null "NULL", Of "OF",
    Only "ONLY", Optimistic "OPTIMISTIC", Optimize "OPTIMIZE", Outfile "OUTFILE", Package "PACKAGE", Partitions "PARTITIONS", Persist "PERSIST",
    PersistOnly "PERSIST_ONLY", Pessimistic "PESSIMISTIC", Plan "PLAN", Prepare "PREPARE", Previous "PREVIOUS",
    Procedure "PROCEDURE", Purge "PURGE", Query "QUERY", Read "READ", Recover "RECOVER",
    Recursive "RECURSIVE", Release "RELEASE", Rename "RENAME", Repair "REPAIR", Replace "REPLACE",
    Reset "RESET", Resignal "RESIGNAL", Restart "RESTART", Restore "RESTORE", Returning "RETURNING",
    Revoke "REVOKE", Rollback "ROLLBACK", Row "ROW", Savepoint "SAVEPOINT", Schema "SCHEMA",
    Schemas "SCHEMAS", Select "SELECT", Session "SESSION", Set "SET", Share "SHARE", Show "SHOW",
    Shutdown "SHUTDOWN", Signal "SIGNAL", Split "SPLIT", SqlCalcFoundRows "SQL_CALC_FOUND_ROWS",
    Start "START", Statement "STATEMENT", Status "STATUS", Stop "STOP", Table "TABLE", Tables "TABLES",
    Temporary "TEMPORARY", To "TO", Trace "TRACE", Traffic "TRAFFIC", Transaction "TRANSACTION",
    Trigger "TRIGGER", Triggers "TRIGGERS", True "TRUE", Truncate "TRUNCATE", Uninstall "UNINSTALL", Union "UNION",
    Unlock "UNLOCK", Update "UPDATE", Use "USE", Value "VALUE", Values "VALUES", Warnings "WARNINGS", Where "WHERE",
    With "WITH", Work "WORK", Xa "XA", Xml "XML",
}

/// What a call of a function means, of those that do more than read, or read what is the session's.
const MARKED_FUNCTIONS: &[(&str, Flags)] = &[
    ("BENCHMARK", Flags::WAITS),
    ("SLEEP", Flags::WAITS),
    ("MASTER_POS_WAIT", Flags::WAITS),
    ("SOURCE_POS_WAIT", Flags::WAITS),
    ("MASTER_GTID_WAIT", Flags::WAITS),
    ("WAIT_FOR_EXECUTED_GTID_SET", Flags::WAITS),
    ("WSREP_SYNC_WAIT_UPTO_GTID", Flags::WAITS),
    ("CONNECTION_ID", Flags::CONNECTION_ID),
    ("PS_CURRENT_THREAD_ID", Flags::CONNECTION_ID),
    ("PS_THREAD_ID", Flags::CONNECTION_ID),
    ("FOUND_ROWS", Flags::FOUND_ROWS),
    ("ROW_COUNT", Flags::ROW_COUNT),
    ("LAST_INSERT_ID", Flags::LAST_INSERT_ID),
    ("GET_LOCK", Flags::USER_LOCK),
    ("IS_FREE_LOCK", Flags::USER_LOCK),
    ("IS_USED_LOCK", Flags::USER_LOCK),
    ("RELEASE_LOCK", Flags::USER_LOCK),
    ("RELEASE_ALL_LOCKS", Flags::USER_LOCK),
    ("NEXTVAL", Flags::SEQUENCE),
    ("SETVAL", Flags::SEQUENCE),
    ("LASTVAL", Flags::SEQUENCE),
    ("LOAD_FILE", Flags::SERVER_STATE),
    ("BINLOG_GTID_POS", Flags::SERVER_STATE),
    ("CURRENT_RESOURCE_GROUP", Flags::SERVER_STATE),
    ("TIDB_CURRENT_TSO", Flags::SERVER_STATE),
    ("TIDB_IS_DDL_OWNER", Flags::SERVER_STATE),
    ("TIDB_MVCC_INFO", Flags::SERVER_STATE),
    ("TIDB_VERSION", Flags::SERVER_STATE),
    ("WSREP_LAST_SEEN_GTID", Flags::SERVER_STATE),
    ("WSREP_LAST_WRITTEN_GTID", Flags::SERVER_STATE),
];

/// Databases whose content is the server's own.
const SYSTEM_SCHEMAS: &[&str] =
    &["INFORMATION_SCHEMA", "PERFORMANCE_SCHEMA", "MYSQL", "SYS", "METRICS_SCHEMA", "NDBINFO"];

/// What is known of a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub name: &'static str,
    key: Key,
    pub word: Word,
    bits: u16,
    /// What a call of it sets.
    pub called: Flags,
    /// What stands for it in a digest.
    pub hash: u64,
}

impl Entry {
    const RESERVED: u16 = 1;
    const BEFORE_PARENTHESIS: u16 = 4;
    const ADJACENT: u16 = 8;
    const MARKED: u16 = 16;
    const SYSTEM_SCHEMA: u16 = 32;
    const MYSQL: u16 = 64;
    const MARIADB: u16 = 128;
    const TIDB: u16 = 256;

    /// Whether it is never a name without quotes.
    pub fn is_reserved(&self) -> bool {
        self.bits & Entry::RESERVED != 0
    }

    pub fn is_system_schema(&self) -> bool {
        self.bits & Entry::SYSTEM_SCHEMA != 0
    }

    /// Whether `(` directly behind it, or with blanks between, calls nothing that could write.
    pub fn is_read_only_call(&self, dialect: Dialect, is_adjacent: bool) -> bool {
        let function = match dialect {
            Dialect::MySql => Entry::MYSQL,
            Dialect::MariaDb => Entry::MARIADB,
            Dialect::TiDb => Entry::TIDB,
        };
        let is_known = self.bits & (Entry::BEFORE_PARENTHESIS | Entry::MARKED | function) != 0;
        is_known && (is_adjacent || self.bits & Entry::ADJACENT == 0)
    }
}

/// A word with its letters folded, as integers that compare at once; what is between the first and the last eight bytes
/// is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    first: u64,
    last: u64,
    length: usize,
}

/// Sets the bit in which the two cases of a letter differ. It also joins `_` with a control character, `@` with a
/// backtick and the like, of which only one is a word's.
const FOLD: u64 = 0x2020_2020_2020_2020;

#[inline]
fn key(bytes: &[u8]) -> Key {
    let (first, last) = ends(bytes);
    Key { first: first | FOLD, last: last | FOLD, length: bytes.len() }
}

/// The first and the last up to eight bytes, as numbers.
#[inline]
pub(super) fn ends(bytes: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)))
    } else {
        let at = |at: usize| bytes.get(at).copied().map_or(0, u64::from);
        (at(0) | at(1) << 8, at(2))
    }
}

impl Key {
    #[inline]
    fn slot(self) -> usize {
        let mixed =
            (self.first ^ self.last.rotate_left(29) ^ self.length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - TABLE_BITS)) as usize
    }
}

/// Twelve bits hold the 1200 words with few collisions.
const TABLE_BITS: u32 = 12;

/// Every word that is known.
pub(super) struct Words {
    /// For each hash, the index of its word and one more; 0 where there is none. Collisions take the next free slot.
    slots: Box<[u16; 1 << TABLE_BITS]>,
    entries: Vec<Entry>,
}

static WORDS: LazyLock<Words> = LazyLock::new(Words::make);

/// The table of words.
#[inline]
pub(super) fn words() -> &'static Words {
    &WORDS
}

impl Words {
    /// What is known of a word, in whatever case.
    #[inline]
    pub fn find(&self, word: &[u8]) -> Option<&Entry> {
        if word.len() < 2 {
            return None;
        }
        let key = key(word);
        let mut slot = key.slot();
        loop {
            let index = usize::from(*self.slots.get(slot)?);
            let entry = self.entries.get(index.checked_sub(1)?)?;
            if entry.key == key && (word.len() <= 16 || entry.name.as_bytes().eq_ignore_ascii_case(word)) {
                return Some(entry);
            }
            slot = (slot + 1) & ((1 << TABLE_BITS) - 1);
        }
    }

    fn make() -> Words {
        let mut words = Words { slots: Box::new([0; 1 << TABLE_BITS]), entries: Vec::new() };
        let every = Entry::MYSQL | Entry::MARIADB | Entry::TIDB;
        for (list, bits) in [
            (lists::MYSQL_RESERVED, Entry::RESERVED),
            (lists::MYSQL_UNRESERVED, 0),
            (lists::BEFORE_PARENTHESIS, Entry::BEFORE_PARENTHESIS),
            (lists::EVERYWHERE, every),
            (lists::MYSQL_FUNCTIONS, Entry::MYSQL),
            (lists::MARIADB_FUNCTIONS, Entry::MARIADB),
            (lists::TIDB_FUNCTIONS, Entry::TIDB),
            (lists::ADJACENT, Entry::ADJACENT),
        ] {
            for name in list.split(' ') {
                words.entry(name).bits |= bits;
            }
        }
        for (name, word) in ACTED_UPON {
            words.entry(name).word = *word;
        }
        for (name, flags) in MARKED_FUNCTIONS {
            let entry = words.entry(name);
            entry.called = *flags;
            entry.bits |= Entry::MARKED;
        }
        for name in SYSTEM_SCHEMAS {
            words.entry(name).bits |= Entry::SYSTEM_SCHEMA;
        }
        words
    }

    /// The entry of a name, made when there is none.
    fn entry(&mut self, name: &'static str) -> &mut Entry {
        let key = key(name.as_bytes());
        let mut slot = key.slot();
        let index = loop {
            match usize::from(self.slots[slot]) {
                0 => {
                    let entry = Entry {
                        name,
                        key,
                        word: Word::Other,
                        bits: 0,
                        called: Flags::NONE,
                        hash: keyword_hash(name),
                    };
                    self.entries.push(entry);
                    self.slots[slot] = self.entries.len() as u16;
                    break self.entries.len() - 1;
                }
                index if self.entries[index - 1].name == name => break index - 1,
                _ => slot = (slot + 1) & ((1 << TABLE_BITS) - 1),
            }
        };
        &mut self.entries[index]
    }
}
