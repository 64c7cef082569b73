//! One record of a capture: a command, and what its answer was.
//!
//! ```text
//! u32 bytes of the rest   u8 kind        u8 flags      u16 error number    u32 session
//! u64 began, µs of 1970   u32 took, µs   u64 rows      u64 bytes           u64 digest
//! u64 hash of the rows    u32 statement  u8 × 4 lengths of user, group, server, database
//! user  group  server  database  text
//! ```
//! Numbers are little-endian. `text` is what is left: the statement of a query and of a preparation; of an execution all
//! that its packet has behind the statement's number; of a session's beginning its capabilities (u64) and collation (u8).

use serde::Serialize;

/// Bytes in front of the names.
const FIXED_BYTES: usize = 64;
/// The longest name that is kept; servers allow 64 characters, and a host's name may have 255.
const NAME_BYTES_MAX: usize = 255;

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A session begins, or is met for the first time ([`Flags::MET`]).
    Begin,
    End,
    Query,
    Prepare,
    Execute,
    BulkExecute,
    LongData,
    Close,
    ResetStatement,
    Fetch,
    SetOption,
    InitDatabase,
    ResetConnection,
    /// The user and the database are the new ones; nothing of the proof is kept.
    ChangeUser,
}

const KINDS: [Kind; 14] = [
    Kind::Begin,
    Kind::End,
    Kind::Query,
    Kind::Prepare,
    Kind::Execute,
    Kind::BulkExecute,
    Kind::LongData,
    Kind::Close,
    Kind::ResetStatement,
    Kind::Fetch,
    Kind::SetOption,
    Kind::InitDatabase,
    Kind::ResetConnection,
    Kind::ChangeUser,
];

/// What else is true of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Kind {
    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::End => "end",
            Self::Query => "query",
            Self::Prepare => "prepare",
            Self::Execute => "execute",
            Self::BulkExecute => "bulk_execute",
            Self::LongData => "long_data",
            Self::Close => "close",
            Self::ResetStatement => "reset_statement",
            Self::Fetch => "fetch",
            Self::SetOption => "set_option",
            Self::InitDatabase => "init_database",
            Self::ResetConnection => "reset_connection",
            Self::ChangeUser => "change_user",
        }
    }
}

impl Flags {
    /// A replica answered.
    pub const REPLICA: Self = Self(1);
    /// The text speaks of a secret: its literals, or all of it, are left out.
    pub const LEFT_OUT: Self = Self(2);
    /// The text was longer than what is kept.
    pub const CUT: Self = Self(4);
    /// The hash of the rows is there.
    pub const HASHED: Self = Self(8);
    /// A session that was there before the capture.
    pub const MET: Self = Self(16);

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub fn with(self, other: Self, when: bool) -> Self {
        if when { Self(self.0 | other.0) } else { self }
    }
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: Kind,
    pub flags: Flags,
    /// 0 where there was none.
    pub error: u16,
    pub session: u32,
    /// When the command came, in microseconds since 1970.
    pub at_us: u64,
    /// Until its answer had been passed on.
    pub elapsed_us: u32,
    /// Of the answer; rows that were changed, where it had none.
    pub rows: u64,
    pub bytes: u64,
    pub digest: u64,
    pub hash: u64,
    /// The number of the prepared statement, as the client knows it.
    pub statement: u32,
    pub user: &'a [u8],
    pub group: &'a [u8],
    pub server: &'a [u8],
    pub database: &'a [u8],
    pub text: &'a [u8],
}

impl<'a> Record<'a> {
    /// How long it is written down.
    pub fn bytes_written(&self) -> usize {
        let names = [self.user, self.group, self.server, self.database];
        FIXED_BYTES + names.iter().map(|name| name.len().min(NAME_BYTES_MAX)).sum::<usize>() + self.text.len()
    }

    /// Writes it behind what `out` has.
    pub fn append(&self, out: &mut Vec<u8>) {
        let names = [self.user, self.group, self.server, self.database]
            .map(|name| &name[..name.len().min(NAME_BYTES_MAX)]);
        let written = self.bytes_written();
        let kind = KINDS.iter().position(|kind| *kind == self.kind).unwrap_or(0);
        let mut fixed = [0; FIXED_BYTES];
        fixed[..4].copy_from_slice(&u32::try_from(written - 4).unwrap_or(u32::MAX).to_le_bytes());
        fixed[4] = u8::try_from(kind).unwrap_or(0);
        fixed[5] = self.flags.0;
        fixed[6..8].copy_from_slice(&self.error.to_le_bytes());
        fixed[8..12].copy_from_slice(&self.session.to_le_bytes());
        fixed[12..20].copy_from_slice(&self.at_us.to_le_bytes());
        fixed[20..24].copy_from_slice(&self.elapsed_us.to_le_bytes());
        for (place, number) in [self.rows, self.bytes, self.digest, self.hash].into_iter().enumerate() {
            let start = 24 + 8 * place;
            fixed[start..start + 8].copy_from_slice(&number.to_le_bytes());
        }
        fixed[56..60].copy_from_slice(&self.statement.to_le_bytes());
        for (length, name) in fixed[60..].iter_mut().zip(names) {
            *length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        }
        out.reserve(written);
        out.extend_from_slice(&fixed);
        names.iter().for_each(|name| out.extend_from_slice(name));
        out.extend_from_slice(self.text);
    }

    /// The first record of `bytes`, and what follows it; `None` where there is no whole one.
    pub fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut rest = bytes;
        let length = usize::try_from(u32::from_le_bytes(take::<4>(&mut rest)?)).ok()?;
        let mut rest = rest.get(..length)?;
        let [kind, flags] = take::<2>(&mut rest)?;
        let error = u16::from_le_bytes(take::<2>(&mut rest)?);
        let session = u32::from_le_bytes(take::<4>(&mut rest)?);
        let at_us = u64::from_le_bytes(take::<8>(&mut rest)?);
        let elapsed_us = u32::from_le_bytes(take::<4>(&mut rest)?);
        let mut numbers = [0; 4];
        for number in &mut numbers {
            *number = u64::from_le_bytes(take::<8>(&mut rest)?);
        }
        let statement = u32::from_le_bytes(take::<4>(&mut rest)?);
        let lengths: [u8; 4] = take::<4>(&mut rest)?;
        let mut names: [&[u8]; 4] = [&[]; 4];
        for (name, length) in names.iter_mut().zip(lengths) {
            let (front, behind) = rest.split_at_checked(usize::from(length))?;
            (*name, rest) = (front, behind);
        }
        let record = Self {
            kind: *KINDS.get(usize::from(kind))?,
            flags: Flags(flags),
            error,
            session,
            at_us,
            elapsed_us,
            rows: numbers[0],
            bytes: numbers[1],
            digest: numbers[2],
            hash: numbers[3],
            statement,
            user: names[0],
            group: names[1],
            server: names[2],
            database: names[3],
            text: rest,
        };
        Some((record, &bytes[4 + length..]))
    }

    /// For a person or a program: a line of `tidemill mesh capture show --json`.
    pub fn shown(&self) -> Shown {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let is_text = matches!(self.kind, Kind::Query | Kind::Prepare | Kind::InitDatabase);
        let hex = || self.text.iter().map(|byte| format!("{byte:02x}")).collect();
        Shown {
            at_us: self.at_us,
            kind: self.kind,
            session: self.session,
            user: text(self.user),
            database: text(self.database),
            group: text(self.group),
            server: text(self.server),
            replica: self.flags.has(Flags::REPLICA),
            elapsed_us: self.elapsed_us,
            rows: self.rows,
            bytes: self.bytes,
            error: self.error,
            digest: format!("{:016x}", self.digest),
            hash: self.flags.has(Flags::HASHED).then(|| format!("{:016x}", self.hash)),
            statement: self.statement,
            left_out: self.flags.has(Flags::LEFT_OUT),
            cut: self.flags.has(Flags::CUT),
            text: if is_text { text(self.text) } else { String::new() },
            parameters: if is_text || self.kind == Kind::Begin { String::new() } else { hex() },
        }
    }
}

/// The next bytes of a number.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (front, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*front)
}

/// A record in words.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub at_us: u64,
    pub kind: Kind,
    pub session: u32,
    pub user: String,
    pub database: String,
    pub group: String,
    pub server: String,
    pub replica: bool,
    pub elapsed_us: u32,
    pub rows: u64,
    pub bytes: u64,
    /// 0 where there was none.
    pub error: u16,
    pub digest: String,
    pub hash: Option<String>,
    /// Of a prepared statement.
    pub statement: u32,
    /// Its literals, or all of it, are not kept: it speaks of a secret.
    pub left_out: bool,
    /// It was longer than what is kept.
    pub cut: bool,
    pub text: String,
    /// The bytes of an execution behind the statement's number, in hexadecimal digits.
    pub parameters: String,
}

#[cfg(test)]
pub(crate) fn example(text: &[u8]) -> Record<'_> {
    Record {
        kind: Kind::Query,
        flags: Flags::HASHED,
        error: 1064,
        session: 0x8000_0001,
        at_us: 1_700_000_000_000_000,
        elapsed_us: 1234,
        rows: 5,
        bytes: 678,
        digest: 0x1234_5678_9abc_def0,
        hash: 42,
        statement: 7,
        user: b"app",
        group: b"shop",
        server: b"127.0.0.1:3306",
        database: b"shop",
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_half_of_one_does_not() {
        let mut bytes = Vec::new();
        let long = [b'x'; 300];
        let records = [example(b"select 1"), Record { kind: Kind::ChangeUser, user: b"", ..example(b"") }];
        records.iter().for_each(|record| record.append(&mut bytes));
        assert_eq!(bytes.len(), records.iter().map(Record::bytes_written).sum::<usize>());
        let (first, rest) = Record::read(&bytes).unwrap();
        let (second, rest) = Record::read(rest).unwrap();
        assert_eq!([first, second], records);
        assert!(rest.is_empty());
        for cut in 0..records[0].bytes_written() {
            assert!(Record::read(&bytes[..cut]).is_none(), "{cut}");
        }
        // A name that is too long is cut, and what follows still found.
        let mut bytes = Vec::new();
        Record { server: &long, ..example(b"select 2") }.append(&mut bytes);
        let (read, rest) = Record::read(&bytes).unwrap();
        assert!(read.server.len() == 255 && read.text == b"select 2" && rest.is_empty());
        // Bytes that are none.
        assert!(Record::read(&[3, 0, 0, 0, 1, 2, 3, 4]).is_none());
    }
}
