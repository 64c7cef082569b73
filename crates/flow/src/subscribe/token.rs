//! What a device gives back when it comes again.
//!
//! ```text
//! token = version:u8 journal:u64 epoch:u32 shape:u64 table:u32 schema:u32 lsn:u64 until:u64 phase:u8 [cursor] crc32c:u32
//! ```
//! Numbers are little-endian. A token grants nothing: what is sent is what the caller may see of the shape that it asks for, whatever the token
//! says; a forged one harms the copy of its forger. The checksum is against damage.
//!
//! The same as text is an offset of the Durable Streams protocol, where offsets are compared as texts and grow: lsn and phase come
//! first, big-endian, and all of it is hexadecimal.
//!
//! ```text
//! offset = lsn:u64 rank:u8 [cursor] schema:u32 until:u64 version:u8 journal:u64 epoch:u32 shape:u64 table:u32 crc32c:u32
//! ```

/// Of the layout above.
const VERSION: u8 = 1;
const FIXED_BYTES: usize = 46;
/// Of an offset: what stands before the cursor, and behind it.
const OFFSET_HEAD_BYTES: usize = 9;
const OFFSET_REST_BYTES: usize = 41;
/// Bytes of the longest cursor: MySQL's keys are at most 3072 bytes.
const CURSOR_BYTES_MAX: usize = 16 << 10;

/// Where a copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Identity of the journal that lsn and epoch are of.
    pub journal: u64,
    pub epoch: u32,
    /// Hash of the shape.
    pub shape: u64,
    /// The table's id and version in the journal: what the copy's columns are.
    pub table: u32,
    pub schema: u32,
    /// All changes up to this one are in the copy, or those are that followed them.
    pub lsn: u64,
    /// Rows of the copy may be as new as this: until it has been reached, the copy is no state that the source had.
    pub until: u64,
    pub phase: Phase,
}

/// What is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Changes one by one. `owes_end`: a snapshot or net changes came before, and the client was not told yet that they have ended.
    Tail { owes_end: bool },
    /// The latest images of what changed up to `until`.
    NetChanges,
    /// A snapshot: its rows up to this key are in the copy.
    Snapshot { cursor: Vec<u8> },
}

impl Token {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + 32);
        out.push(VERSION);
        out.extend_from_slice(&self.journal.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.shape.to_le_bytes());
        out.extend_from_slice(&self.table.to_le_bytes());
        out.extend_from_slice(&self.schema.to_le_bytes());
        out.extend_from_slice(&self.lsn.to_le_bytes());
        out.extend_from_slice(&self.until.to_le_bytes());
        match &self.phase {
            Phase::Tail { owes_end } => out.push(if *owes_end { 3 } else { 0 }),
            Phase::NetChanges => out.push(1),
            Phase::Snapshot { cursor } => {
                out.push(2);
                out.extend_from_slice(cursor);
            }
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` for what is no token, or a damaged one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) || body.first() != Some(&VERSION) {
            return None;
        }
        let mut rest = &body[1..];
        let journal = u64::from_le_bytes(take(&mut rest)?);
        let epoch = u32::from_le_bytes(take(&mut rest)?);
        let shape = u64::from_le_bytes(take(&mut rest)?);
        let table = u32::from_le_bytes(take(&mut rest)?);
        let schema = u32::from_le_bytes(take(&mut rest)?);
        let lsn = u64::from_le_bytes(take(&mut rest)?);
        let until = u64::from_le_bytes(take(&mut rest)?);
        let phase = match rest {
            [0] => Phase::Tail { owes_end: false },
            [3] => Phase::Tail { owes_end: true },
            [1] => Phase::NetChanges,
            [2, cursor @ ..] if cursor.len() <= CURSOR_BYTES_MAX => {
                Phase::Snapshot { cursor: cursor.to_vec() }
            }
            _ => return None,
        };
        Some(Self { journal, epoch, shape, table, schema, lsn, until, phase })
    }
}

impl Token {
    /// The token as an offset: a text that is greater than those of all tokens that the same stream gave before.
    pub fn to_offset(&self) -> String {
        let (rank, cursor): (u8, &[u8]) = match &self.phase {
            Phase::Snapshot { cursor } => (0, cursor),
            Phase::Tail { owes_end: true } => (1, &[]),
            Phase::Tail { owes_end: false } => (2, &[]),
            Phase::NetChanges => (3, &[]),
        };
        let mut out = Vec::with_capacity(OFFSET_HEAD_BYTES + cursor.len() + OFFSET_REST_BYTES + 4);
        out.extend_from_slice(&self.lsn.to_be_bytes());
        out.push(rank);
        out.extend_from_slice(cursor);
        out.extend_from_slice(&self.schema.to_be_bytes());
        out.extend_from_slice(&self.until.to_be_bytes());
        out.push(VERSION);
        out.extend_from_slice(&self.journal.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.shape.to_be_bytes());
        out.extend_from_slice(&self.table.to_be_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        hex(&out)
    }

    /// The token of an offset, or of a token's own bytes as hexadecimal text; `None` for what is neither.
    pub fn from_offset(text: &str) -> Option<Self> {
        let bytes = unhex(text)?;
        Self::of_offset(&bytes).or_else(|| Self::decode(&bytes))
    }

    fn of_offset(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc)
            || body.len() < OFFSET_HEAD_BYTES + OFFSET_REST_BYTES - 4
        {
            return None;
        }
        let (mut front, mut rest) = body.split_at(body.len() - (OFFSET_REST_BYTES - 4));
        let lsn = u64::from_be_bytes(take(&mut front)?);
        let [rank] = take(&mut front)?;
        let schema = u32::from_be_bytes(take(&mut rest)?);
        let until = u64::from_be_bytes(take(&mut rest)?);
        if take(&mut rest)? != [VERSION] {
            return None;
        }
        let journal = u64::from_be_bytes(take(&mut rest)?);
        let epoch = u32::from_be_bytes(take(&mut rest)?);
        let shape = u64::from_be_bytes(take(&mut rest)?);
        let table = u32::from_be_bytes(take(&mut rest)?);
        let phase = match (rank, front) {
            (0, cursor) if cursor.len() <= CURSOR_BYTES_MAX => Phase::Snapshot { cursor: cursor.to_vec() },
            (1, []) => Phase::Tail { owes_end: true },
            (2, []) => Phase::Tail { owes_end: false },
            (3, []) => Phase::NetChanges,
            _ => return None,
        };
        Some(Self { journal, epoch, shape, table, schema, lsn, until, phase })
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    // One text for one place: capitals would make a second.
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None })
        .collect()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(phase: Phase) -> Token {
        Token { journal: 1 << 60, epoch: 3, shape: 7, table: 1, schema: 2, lsn: 99, until: 120, phase }
    }

    #[test]
    fn tokens_come_back_as_they_were() {
        for phase in [
            Phase::Tail { owes_end: false },
            Phase::Tail { owes_end: true },
            Phase::NetChanges,
            Phase::Snapshot { cursor: b"\x40abc\0\0".to_vec() },
        ] {
            let token = token(phase);
            assert_eq!(Token::decode(&token.encode()), Some(token));
        }
    }

    #[test]
    fn offsets_are_tokens_and_grow() {
        let snapshot = |cursor: &[u8]| Phase::Snapshot { cursor: cursor.to_vec() };
        let places = [
            token(snapshot(b"")),
            token(snapshot(b"\x80\0\0\x01")),
            token(snapshot(b"\x80\0\0\x02")),
            token(Phase::Tail { owes_end: true }),
            Token { lsn: 100, ..token(Phase::Tail { owes_end: true }) },
            Token { lsn: 100, ..token(Phase::Tail { owes_end: false }) },
            Token { lsn: 100, schema: 3, ..token(Phase::Tail { owes_end: false }) },
            Token { lsn: 100, ..token(Phase::NetChanges) },
            Token { lsn: 300, ..token(Phase::Tail { owes_end: false }) },
        ];
        let offsets: Vec<String> = places.iter().map(Token::to_offset).collect();
        assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:#?}");
        for (token, offset) in places.iter().zip(&offsets) {
            assert_eq!(Token::from_offset(offset).as_ref(), Some(token));
            assert_eq!(Token::from_offset(&hex(&token.encode())).as_ref(), Some(token));
        }
        for bad in ["", "-1", "now", "0", "zz", &offsets[0].to_uppercase(), &offsets[0][2..]] {
            assert_eq!(Token::from_offset(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_token_is_none(at in 0usize..50, bit in 0u8..8) {
            let mut bytes = token(Phase::Tail { owes_end: false }).encode();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Token::decode(&bytes), None);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Token::decode(&bytes), None);
        }
    }
}
