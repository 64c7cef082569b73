//! Where a server's answer to a command ends, found while it passes by.
//!
//! Only headers, first bytes and the short packets that end things are looked at; rows and column definitions are counted
//! and passed. The caller forwards what [`Answer::advance`] has consumed and brings the rest again with more behind it.
//!
//! ```text
//! Single     OK | EOF | ERR
//! First      OK | ERR | LOCAL INFILE | column count ─ Columns ─ (EOF) ─ Rows ─ EOF | OK | ERR
//! Prepared   OK ─ definitions ─ end | ERR
//! ```
//! After an OK or EOF with `MORE_RESULTS`, First begins again.

use super::{Capabilities, Command, FieldReader, HEADER_BYTES, PAYLOAD_MAX, Reply, Status, payload_bytes};
use std::ops::Range;

/// A packet that ends something is looked at whole up to here; of a longer one, the front. The caller's buffer is larger.
pub const WHOLE_BYTES_MAX: usize = 8 * 1024;

/// What the consumed bytes led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The answer goes on.
    More,
    /// A row more than [`Answer::stop_at`] allows comes next; nothing of it is consumed.
    Over,
    /// The server waits for a file of the client (`LOAD DATA LOCAL`): packets up to an empty one.
    File,
    Done(End),
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub error: bool,
    /// Of the last OK or EOF; `None` after an error and where the answer has none.
    pub status: Option<Status>,
    /// Where the last packet's payload is in the bytes that were given; empty where it came in several turns.
    pub payload: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Single,
    Statistics,
    First,
    PreparedFirst,
    /// Packets of definitions to pass, and what comes then.
    Columns(u64),
    ColumnsEnd,
    Rows,
    /// Definitions of a prepared statement.
    Definitions(u64),
}

/// The answer to one command, as far as it has come.
#[derive(Clone, Debug)]
pub struct Answer {
    phase: Phase,
    capabilities: Capabilities,
    /// The rows of a result may be left with the server.
    cursor: bool,
    /// Bytes of the present packet that have not come yet.
    pending: usize,
    /// The next packet goes on with the present payload.
    continued: bool,
    /// The end that is told once `pending` has passed.
    ending: Option<End>,
    rows: u64,
    /// Whether to stop behind each result of several, and whether that is where it is.
    stops: bool,
    result_ended: bool,
    /// Where the packet stands that ended it, in the bytes that were given.
    result_end: Range<usize>,
    rows_max: u64,
    /// Of the last header.
    sequence: u8,
    /// Statement id, parameters, of a prepared statement.
    prepared: Option<(u32, u16)>,
    /// Of the rows, where somebody wants it.
    hash: Option<RowHash>,
}

/// A hash of rows that does not hang on their order, nor on how their bytes came.
#[derive(Clone, Debug, Default)]
struct RowHash {
    sum: u64,
    /// Of the row that passes now.
    row: Option<crc32fast::Hasher>,
}

impl RowHash {
    fn end_row(&mut self) {
        if let Some(row) = self.row.take() {
            // A checksum is linear; what is added up must not be.
            let mut mixed = u64::from(row.finalize()).wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            self.sum = self.sum.wrapping_add(mixed ^ (mixed >> 31));
        }
    }
}

impl Answer {
    /// The answer to `command` on a connection with `capabilities`.
    pub fn to(command: Command, capabilities: Capabilities) -> Self {
        let phase = match command {
            Command::Query | Command::ProcessInfo | Command::Execute | Command::BulkExecute => Phase::First,
            Command::Prepare => Phase::PreparedFirst,
            Command::Fetch | Command::FieldList => Phase::Rows,
            Command::Statistics => Phase::Statistics,
            _ => Phase::Single,
        };
        Self {
            phase,
            capabilities,
            cursor: command == Command::Execute,
            pending: 0,
            continued: false,
            ending: None,
            rows: 0,
            stops: false,
            result_ended: false,
            result_end: 0..0,
            rows_max: u64::MAX,
            sequence: 0,
            prepared: None,
            hash: None,
        }
    }

    /// Hashes the rows as they pass.
    #[must_use]
    pub fn hashed(mut self) -> Self {
        self.hash = Some(RowHash::default());
        self
    }

    /// Of all rows so far, whatever their order: equal for equal rows of one form, text or binary. Not cryptographic; 0
    /// where nobody asked for it, or there are no rows.
    pub fn hash(&self) -> u64 {
        self.hash.as_ref().map_or(0, |hash| hash.sum)
    }

    /// The execution asked for no cursor. A procedure's own cursors leave their mark in the status of a result whose rows follow.
    #[must_use]
    pub fn without_cursor(mut self) -> Self {
        self.cursor = false;
        self
    }

    /// From here on [`Self::advance`] stops behind each result that another follows.
    pub fn stop_at_results(&mut self) {
        self.stops = true;
    }

    /// Whether that is where it stopped; what was given may have more behind it.
    pub fn take_result_ended(&mut self) -> bool {
        self.stops && self.pending == 0 && std::mem::take(&mut self.result_ended)
    }

    /// The payload of the packet that ended the result behind which it stopped, in the bytes that were given last.
    pub fn result_end(&self) -> Option<Range<usize>> {
        (self.stops && self.result_ended).then(|| self.result_end.clone())
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Lets no more than so many rows be consumed.
    pub fn stop_at(&mut self, rows_max: u64) {
        self.rows_max = rows_max;
    }

    /// The number of the last packet that was consumed, or is being.
    pub fn sequence(&self) -> u8 {
        self.sequence
    }

    /// The number of a packet that could follow what has been consumed; `None` within a packet.
    pub fn next_sequence(&self) -> Option<u8> {
        (self.pending == 0 && !self.continued).then_some(self.sequence.wrapping_add(1))
    }

    /// Statement id and number of parameters, once they were told.
    pub fn prepared(&self) -> Option<(u32, u16)> {
        self.prepared
    }

    /// How much of `bytes` can be forwarded, and what that led to. What is not consumed must come again, with more behind
    /// it; it is less than [`WHOLE_BYTES_MAX`] and a header. After `Done` and `File` the rest belongs to what comes next.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Step) {
        let mut at = 0;
        loop {
            let passed = self.pending.min(bytes.len() - at);
            if let Some(RowHash { row: Some(row), .. }) = &mut self.hash {
                row.update(&bytes[at..at + passed]);
            }
            at += passed;
            self.pending -= passed;
            if self.pending > 0 {
                self.result_end = 0..0;
                if let Some(end) = &mut self.ending {
                    // The rest of it is told with other bytes, in which the front is no more.
                    end.payload = 0..0;
                }
                return (at, Step::More);
            }
            if !self.continued {
                if let Some(hash) = &mut self.hash {
                    hash.end_row();
                }
                if let Some(end) = self.ending.take() {
                    return (at, Step::Done(end));
                }
            }
            if self.stops && self.result_ended {
                return (at, Step::More);
            }
            let Some(length) = header(bytes, at) else { return (at, Step::More) };
            let sequence = bytes[at + HEADER_BYTES - 1];
            if self.continued {
                self.sequence = sequence;
                at += HEADER_BYTES;
                self.pass(length);
                continue;
            }
            let payload = at + HEADER_BYTES..(at + HEADER_BYTES + length).min(bytes.len());
            let Some(mark) = bytes.get(payload.start).copied().filter(|_| length > 0) else {
                if length > 0 {
                    return (at, Step::More);
                }
                self.sequence = sequence;
                at += HEADER_BYTES;
                continue;
            };
            if self.is_plain(mark, length) {
                if self.phase == Phase::Rows && self.rows >= self.rows_max {
                    return (at, Step::Over);
                }
                self.sequence = sequence;
                at += HEADER_BYTES;
                self.pass(length);
                if let Some(end) = self.after_plain(&payload) {
                    self.ending = Some(end);
                }
                continue;
            }
            if payload.len() < length.min(WHOLE_BYTES_MAX) {
                return (at, Step::More);
            }
            let step = self.decide(mark, &bytes[payload.clone()], payload);
            self.sequence = sequence;
            at += HEADER_BYTES;
            self.pass(length);
            match step {
                Step::More | Step::Over => {}
                Step::File => {
                    let passed = self.pending.min(bytes.len() - at);
                    self.pending -= passed;
                    return (at + passed, Step::File);
                }
                Step::Done(end) => self.ending = Some(end),
            }
        }
    }

    fn pass(&mut self, length: usize) {
        self.pending = length;
        self.continued = length == PAYLOAD_MAX;
    }

    /// Whether the packet need not be understood.
    fn is_plain(&self, mark: u8, length: usize) -> bool {
        match self.phase {
            Phase::Columns(_) | Phase::Definitions(_) | Phase::Statistics => true,
            Phase::Rows => !(mark == 0xff || mark == 0xfe && length < self.end_bytes_max()),
            Phase::First | Phase::PreparedFirst | Phase::Single | Phase::ColumnsEnd => false,
        }
    }

    /// A packet with the mark of an EOF is one below this length; a row that begins with it is longer.
    fn end_bytes_max(&self) -> usize {
        if self.capabilities.has(Capabilities::DEPRECATE_EOF) { PAYLOAD_MAX } else { 9 }
    }

    fn after_plain(&mut self, payload: &Range<usize>) -> Option<End> {
        match &mut self.phase {
            Phase::Rows => {
                self.rows += 1;
                if let Some(hash) = &mut self.hash {
                    hash.row = Some(crc32fast::Hasher::new());
                }
            }
            Phase::Columns(left) => {
                *left -= 1;
                if *left == 0 {
                    let deprecated = self.capabilities.has(Capabilities::DEPRECATE_EOF);
                    self.phase = if deprecated { Phase::Rows } else { Phase::ColumnsEnd };
                }
            }
            Phase::Definitions(left) => {
                *left -= 1;
                if *left == 0 {
                    return Some(End { error: false, status: None, payload: payload.clone() });
                }
            }
            Phase::Statistics => return Some(End { error: false, status: None, payload: payload.clone() }),
            Phase::First | Phase::PreparedFirst | Phase::Single | Phase::ColumnsEnd => {}
        }
        None
    }

    fn decide(&mut self, mark: u8, payload: &[u8], place: Range<usize>) -> Step {
        if mark == 0xff {
            // MariaDB's progress report is an error in form only.
            let progress = payload.get(1..3) == Some(&[0xff, 0xff]);
            return if progress {
                Step::More
            } else {
                Step::Done(End { error: true, status: None, payload: place })
            };
        }
        match self.phase {
            Phase::PreparedFirst => self.prepare(payload, place),
            Phase::First => match mark {
                0 => self.end(mark, payload, place),
                0xfb => Step::File,
                _ => {
                    let columns = FieldReader::new(payload).integer().unwrap_or(0);
                    self.phase = if columns == 0 { Phase::Rows } else { Phase::Columns(columns) };
                    Step::More
                }
            },
            Phase::ColumnsEnd => {
                let status = eof_status(payload);
                if self.cursor && status.has(Status::CURSOR) {
                    return Step::Done(End { error: false, status: Some(status), payload: place });
                }
                self.phase = Phase::Rows;
                Step::More
            }
            _ => self.end(mark, payload, place),
        }
    }

    /// An OK or EOF: the end, or of one result of several.
    fn end(&mut self, mark: u8, payload: &[u8], place: Range<usize>) -> Step {
        let status =
            if mark == 0xfe && payload.len() < 9 && !self.capabilities.has(Capabilities::DEPRECATE_EOF) {
                eof_status(payload)
            } else {
                Reply::read(payload, Capabilities(0)).map(|reply| reply.status).unwrap_or_default()
            };
        if status.has(Status::MORE_RESULTS) {
            self.phase = Phase::First;
            self.result_ended = true;
            self.result_end = place;
            return Step::More;
        }
        Step::Done(End { error: false, status: Some(status), payload: place })
    }

    fn prepare(&mut self, payload: &[u8], place: Range<usize>) -> Step {
        let mut fields = FieldReader::new(payload);
        let read = (|| {
            fields.u8()?;
            Ok::<_, super::Truncated>((fields.u32()?, fields.u16()?, fields.u16()?))
        })();
        let Ok((statement, columns, parameters)) = read else {
            return Step::Done(End { error: true, status: None, payload: place });
        };
        self.prepared = Some((statement, parameters));
        let ends = !self.capabilities.has(Capabilities::DEPRECATE_EOF);
        let group = |count: u16| u64::from(count) + u64::from(ends && count > 0);
        match group(columns) + group(parameters) {
            0 => Step::Done(End { error: false, status: None, payload: place }),
            packets => {
                self.phase = Phase::Definitions(packets);
                Step::More
            }
        }
    }
}

fn header(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + HEADER_BYTES).map(payload_bytes)
}

fn eof_status(payload: &[u8]) -> Status {
    payload.get(3..5).map(|b| Status(u16::from_le_bytes([b[0], b[1]]))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{error_packet, ok_packet, packet};
    use super::*;
    use proptest::prelude::*;

    const OLD: Capabilities = Capabilities(0);
    const NEW: Capabilities = Capabilities::DEPRECATE_EOF;

    fn eof(status: u16) -> Vec<u8> {
        let status = status.to_le_bytes();
        packet(0, &[0xfe, 0, 0, status[0], status[1]])
    }

    fn late_ok(status: u16) -> Vec<u8> {
        let status = status.to_le_bytes();
        packet(0, &[0xfe, 0, 0, status[0], status[1], 0, 0])
    }

    #[test]
    fn a_cursor_that_nobody_asked_for_leaves_the_rows_in_the_answer() {
        let head = [packet(0, &[1]), packet(0, b"def"), eof(Status::CURSOR.0)].concat();
        let all = [&head[..], &packet(0, b"\x011"), &eof(Status::AUTOCOMMIT.0)].concat();
        let asked = Answer::to(Command::Execute, OLD);
        for (mut answer, length) in [
            (Answer::to(Command::Query, OLD), all.len()),
            (asked.clone().without_cursor(), all.len()),
            (asked, head.len()),
        ] {
            let (passed, step) = answer.advance(&all);
            assert_eq!(passed, length);
            assert!(matches!(step, Step::Done(End { error: false, .. })), "{step:?}");
        }
    }

    /// Feeds `bytes` in pieces of `piece`, as a relay would, and tells what was forwarded and how it ended.
    fn feed(answer: &mut Answer, bytes: &[u8], piece: usize) -> (usize, Step) {
        let (mut start, mut end) = (0, 0);
        while end < bytes.len() {
            end = (end + piece).min(bytes.len());
            let (consumed, step) = answer.advance(&bytes[start..end]);
            start += consumed;
            assert!(end - start < WHOLE_BYTES_MAX + HEADER_BYTES);
            if step != Step::More {
                return (start, step);
            }
        }
        (start, Step::More)
    }

    fn ends(
        command: Command,
        capabilities: Capabilities,
        packets: &[Vec<u8>],
        error: bool,
        status: Option<u16>,
    ) {
        let bytes = packets.concat();
        let mut followed = bytes.clone();
        followed.extend_from_slice(b"\x01\x00\x00\x00\x00");
        for piece in [1, 2, 3, 5, 7, 64, followed.len()] {
            let (forwarded, step) = feed(&mut Answer::to(command, capabilities), &followed, piece);
            let Step::Done(end) = step else { panic!("it ends in pieces of {piece}: {step:?}") };
            assert_eq!(forwarded, bytes.len(), "in pieces of {piece}");
            assert_eq!((end.error, end.status.map(|s| s.0)), (error, status));
        }
    }

    #[test]
    fn answers_of_every_form_end_where_they_end() {
        let column = || packet(0, b"\x03def\x04shop");
        let row = || packet(0, b"\x011\x02ab");
        let empty_row = || packet(0, b"\x00");
        let null_row = || packet(0, b"\xfb");
        let error = error_packet(1, 1064, b"42000", "syntax");
        ends(Command::Ping, OLD, &[ok_packet(1, Status(2))], false, Some(2));
        ends(Command::SetOption, OLD, &[eof(2)], false, Some(2));
        ends(Command::SetOption, NEW, &[late_ok(2)], false, Some(2));
        ends(Command::Query, OLD, std::slice::from_ref(&error), true, None);
        ends(Command::Query, OLD, &[ok_packet(1, Status(3))], false, Some(3));
        let old = [packet(1, b"\x02"), column(), column(), eof(2), row(), empty_row(), null_row(), eof(0x22)];
        ends(Command::Query, OLD, &old, false, Some(0x22));
        let new = [packet(1, b"\x02"), column(), column(), row(), empty_row(), null_row(), late_ok(0x22)];
        ends(Command::Query, NEW, &new, false, Some(0x22));
        // An error in the midst of rows.
        ends(Command::Query, NEW, &[packet(1, b"\x01"), column(), row(), error.clone()], true, None);
        // Several results, the last of them an OK.
        let several = [
            packet(1, b"\x01"),
            column(),
            row(),
            late_ok(8),
            ok_packet(1, Status(10)),
            ok_packet(2, Status(2)),
        ];
        ends(Command::Query, NEW, &several, false, Some(2));
        // A cursor: no rows come until they are fetched.
        ends(Command::Execute, OLD, &[packet(1, b"\x01"), column(), eof(0x42)], false, Some(0x42));
        ends(Command::Execute, NEW, &[packet(1, b"\x01"), column(), late_ok(0x42)], false, Some(0x42));
        ends(Command::Fetch, OLD, &[row(), row(), eof(0x82)], false, Some(0x82));
        ends(Command::FieldList, OLD, &[column(), column(), eof(2)], false, Some(2));
        ends(Command::Statistics, OLD, &[packet(1, b"Uptime: 3")], false, None);
        // Two parameters, one column.
        let prepared = packet(1, &[0, 9, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0]);
        ends(
            Command::Prepare,
            OLD,
            &[prepared.clone(), column(), column(), eof(2), column(), eof(2)],
            false,
            None,
        );
        ends(Command::Prepare, NEW, &[prepared, column(), column(), column()], false, None);
        ends(Command::Prepare, OLD, &[packet(1, &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])], false, None);
        // MariaDB tells how far it has come.
        let progress = packet(1, b"\xff\xff\xff\x01\x01\x01\x00\x00\x00\x00");
        ends(Command::Query, OLD, &[progress, ok_packet(2, Status(2))], false, Some(2));
    }

    #[test]
    fn rows_beyond_a_number_are_not_consumed() {
        let head = [packet(1, b"\x01"), packet(2, b"\x03def")].concat();
        let row = |sequence| packet(sequence, b"\x011");
        let bytes = [head.clone(), row(3), row(4), row(5), late_ok(2)].concat();
        let mut answer = Answer::to(Command::Query, NEW);
        answer.stop_at(2);
        let passed = head.len() + 2 * row(3).len();
        assert_eq!(answer.advance(&bytes), (passed, Step::Over));
        assert_eq!((answer.rows(), answer.next_sequence()), (2, Some(5)));
        answer.stop_at(u64::MAX);
        assert!(matches!(answer.advance(&bytes[passed..]), (_, Step::Done(_))));
        // As many as are allowed, and no more: the end is no row.
        let mut answer = Answer::to(Command::Query, NEW);
        answer.stop_at(3);
        assert!(matches!(answer.advance(&bytes), (_, Step::Done(_))));
    }

    #[test]
    fn a_prepared_statement_tells_its_number() {
        let mut answer = Answer::to(Command::Prepare, NEW);
        answer.advance(&packet(1, &[0, 9, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]));
        assert_eq!(answer.prepared(), Some((9, 2)));
    }

    #[test]
    fn a_file_that_the_server_wants_comes_before_the_end() {
        let wanted = packet(1, b"\xfb/tmp/rows.csv");
        let mut answer = Answer::to(Command::Query, OLD);
        assert_eq!(answer.advance(&wanted), (wanted.len(), Step::File));
        let ok = ok_packet(4, Status(2));
        let (consumed, step) = answer.advance(&ok);
        assert!(consumed == ok.len() && matches!(step, Step::Done(_)));
    }

    #[test]
    fn a_row_of_several_packets_is_one_row_whatever_it_begins_with() {
        for capabilities in [OLD, NEW] {
            let mut answer = Answer::to(Command::Query, capabilities);
            let mut start = [packet(1, b"\x01"), packet(2, b"\x03def")].concat();
            if capabilities == OLD {
                start.extend(eof(2));
            }
            assert_eq!(answer.advance(&start), (start.len(), Step::More));
            // A cell of more than 16 MiB begins with the mark of an EOF.
            let mut first = vec![0xff, 0xff, 0xff, 3, 0xfe];
            first.resize(HEADER_BYTES + PAYLOAD_MAX, 0xff);
            assert_eq!(answer.advance(&first), (first.len(), Step::More));
            let rest = [vec![3, 0, 0, 4, 0xff, 1, 2], vec![1, 0, 0, 5, 0xfb]].concat();
            assert_eq!(answer.advance(&rest), (rest.len(), Step::More));
            let end = if capabilities == OLD { eof(2) } else { late_ok(2) };
            assert!(matches!(answer.advance(&end), (_, Step::Done(_))));
            assert_eq!(answer.rows(), 2);
        }
    }

    #[test]
    fn equal_rows_have_one_hash_in_any_order_and_any_pieces() {
        let hash = |rows: &[&[u8]], capabilities, piece| {
            let mut packets = vec![packet(1, b"\x01"), packet(2, b"\x03def")];
            packets.extend((capabilities == OLD).then(|| eof(2)));
            packets.extend(rows.iter().map(|row| packet(0, row)));
            packets.push(if capabilities == OLD { eof(2) } else { late_ok(2) });
            let mut answer = Answer::to(Command::Query, capabilities).hashed();
            let (_, step) = feed(&mut answer, &packets.concat(), piece);
            assert!(matches!(step, Step::Done(_)));
            answer.hash()
        };
        let one = hash(&[b"\x01a", b"\x02bb", b"\xfb"], OLD, 1000);
        for piece in [1, 2, 3, 7] {
            assert_eq!(hash(&[b"\xfb", b"\x01a", b"\x02bb"], NEW, piece), one, "in pieces of {piece}");
        }
        for other in
            [&[&b"\x01a"[..], b"\x02bb"][..], &[b"\x01a", b"\x02bc", b"\xfb"], &[b"\x01a", b"\x01a"], &[]]
        {
            assert_ne!(hash(other, OLD, 1000), one);
        }
        assert_ne!(hash(&[b"\x01a", b"\x01a"], OLD, 5), hash(&[b"\x01b", b"\x01b"], OLD, 5));
    }

    #[test]
    fn a_long_error_passes_whole_before_the_end_is_told() {
        let long = error_packet(1, 1064, b"42000", &"x".repeat(40_000));
        for piece in [1000, 16_384, long.len()] {
            let (forwarded, step) = feed(&mut Answer::to(Command::Query, OLD), &long, piece);
            assert!(forwarded == long.len() && matches!(step, Step::Done(_)), "{forwarded} {step:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_take_more_than_there_is(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            command in any::<u8>(),
            new in any::<bool>(),
            piece in 1_usize..40,
        ) {
            let capabilities = if new { NEW } else { OLD };
            let (forwarded, _) = feed(&mut Answer::to(Command::of(command), capabilities), &bytes, piece);
            prop_assert!(forwarded <= bytes.len());
        }
    }
}
