//! What a client and a server agree on, as bits.

use std::ops::{BitAnd, BitOr, Not};

/// The low half is MySQL's `CLIENT_*` flags; the high half is MariaDB's extended ones, which a MariaDB server offers where
/// MySQL's first flag is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(pub u64);

impl Capabilities {
    pub const LONG_PASSWORD: Self = Self(1);
    /// An update tells the rows that it found, not those that it changed.
    pub const FOUND_ROWS: Self = Self(1 << 1);
    pub const LONG_FLAG: Self = Self(1 << 2);
    pub const CONNECT_WITH_DATABASE: Self = Self(1 << 3);
    pub const NO_SCHEMA: Self = Self(1 << 4);
    pub const COMPRESS: Self = Self(1 << 5);
    pub const ODBC: Self = Self(1 << 6);
    pub const LOCAL_FILES: Self = Self(1 << 7);
    pub const IGNORE_SPACE: Self = Self(1 << 8);
    pub const PROTOCOL_41: Self = Self(1 << 9);
    pub const INTERACTIVE: Self = Self(1 << 10);
    pub const TLS: Self = Self(1 << 11);
    pub const IGNORE_SIGPIPE: Self = Self(1 << 12);
    pub const TRANSACTIONS: Self = Self(1 << 13);
    pub const RESERVED: Self = Self(1 << 14);
    pub const SECURE_CONNECTION: Self = Self(1 << 15);
    pub const MULTI_STATEMENTS: Self = Self(1 << 16);
    pub const MULTI_RESULTS: Self = Self(1 << 17);
    pub const PREPARED_MULTI_RESULTS: Self = Self(1 << 18);
    pub const PLUGIN_AUTH: Self = Self(1 << 19);
    pub const CONNECT_ATTRIBUTES: Self = Self(1 << 20);
    pub const AUTH_LENGTH_ENCODED: Self = Self(1 << 21);
    pub const EXPIRED_PASSWORDS: Self = Self(1 << 22);
    pub const SESSION_TRACK: Self = Self(1 << 23);
    pub const DEPRECATE_EOF: Self = Self(1 << 24);
    pub const OPTIONAL_METADATA: Self = Self(1 << 25);
    pub const ZSTD: Self = Self(1 << 26);
    pub const QUERY_ATTRIBUTES: Self = Self(1 << 27);
    pub const FACTORS: Self = Self(1 << 28);
    pub const EXTENSION: Self = Self(1 << 29);
    pub const TLS_VERIFY: Self = Self(1 << 30);
    pub const REMEMBER_OPTIONS: Self = Self(1 << 31);
    /// MariaDB's extended flags, from bit 32 on.
    pub const MARIADB_PROGRESS: Self = Self(1 << 32);
    pub const MARIADB_MULTI: Self = Self(1 << 33);
    pub const MARIADB_BULK: Self = Self(1 << 34);
    pub const MARIADB_EXTENDED_METADATA: Self = Self(1 << 35);
    pub const MARIADB_CACHED_METADATA: Self = Self(1 << 36);
    pub const MARIADB_BULK_RESULTS: Self = Self(1 << 37);

    /// Whether all of `other` are there.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These without `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the server at the other end is a MariaDB, which says so by leaving the oldest flag out.
    pub fn mariadb(self) -> bool {
        !self.has(Self::LONG_PASSWORD)
    }
}

impl BitOr for Capabilities {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Capabilities {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Capabilities {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}
