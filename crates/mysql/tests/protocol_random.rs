//! Hundreds of thousands of broken inputs for everything that reads what a client or a server sends: none makes it panic, take
//! much memory, or tell in pieces something else than at once. `SEED=… cargo test` repeats a run that failed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mysql::protocol::{
    Answer, AuthSwitch, Capabilities, ChangeUser, Command, Compression, FrameReader, Greeting, LoginRequest,
    Packer, PacketNumbers, ProxyHeader, Reply, ServerError, Step, error_packet, ok_packet, packet,
};
use mysql::sql::{ClientCharset, Dialect, Modes, digest_text, parse_set, scan};

struct Largest;

thread_local! {
    /// The largest piece of memory that this thread has asked for.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static LARGEST_OF_ALL: Largest = Largest;

/// Numbers that a seed decides (xorshift64*).
struct Lot(u64);

impl Lot {
    fn start() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let drawn = now.map_or(1, |now| now.as_nanos() as u64 | 1);
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(drawn);
        println!("SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// A byte that means something somewhere, or any.
    fn byte(&mut self) -> u8 {
        const MARKS: [u8; 14] = [0, 1, 2, 3, 0x0a, 0x20, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
        if self.below(2) == 0 { *self.one_of(&MARKS) } else { self.below(256) as u8 }
    }

    /// The same with some of it changed, doubled, moved or cut.
    fn broken(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.insert(at, self.byte()),
                1 if at < bytes.len() => bytes[at] = self.byte(),
                2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                3 => bytes.truncate(at),
                4 if at < bytes.len() => {
                    let part = bytes[at..(at + self.below(20)).min(bytes.len())].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, part);
                }
                _ => {}
            }
        }
        bytes
    }
}

fn goods() -> Vec<Vec<u8>> {
    let all = Capabilities(0xffff_ffff);
    let login = LoginRequest {
        capabilities: all,
        user: b"shop".to_vec(),
        proof: vec![9; 32],
        database: b"orders".to_vec(),
        plugin: b"caching_sha2_password".to_vec(),
        attributes: b"\x04_pid\x0242".to_vec(),
        ..LoginRequest::default()
    };
    let greeting = Greeting {
        version: b"9.7.4".to_vec(),
        connection_id: 7,
        salt: vec![b'a'; 20],
        capabilities: all,
        collation: 255,
        status: 2,
        plugin: b"caching_sha2_password".to_vec(),
    };
    let change = ChangeUser { user: b"shop".to_vec(), proof: vec![4; 32], ..ChangeUser::default() };
    let switch = AuthSwitch { plugin: b"mysql_native_password".to_vec(), salt: vec![5; 20] };
    let header = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13"[..],
        &[192, 0, 2, 7, 192, 0, 2, 1, 1, 2, 3, 4, 0xe0, 0, 4],
        b"blue",
    ];
    vec![
        login.write(),
        login.write_tls_request(),
        greeting.write(),
        change.write(all),
        switch.write(),
        header.concat(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 51000 3306\r\n".to_vec(),
        ok_packet(1, mysql::protocol::Status(0x4002))[4..].to_vec(),
        error_packet(1, 1064, b"42000", "You have an error")[4..].to_vec(),
    ]
}

#[test]
fn single_packets_and_headers() {
    let (mut lot, goods) = (Lot::start(), goods());
    LARGEST.set(0);
    for _ in 0..200_000 {
        let good = lot.one_of(&goods).clone();
        let bytes = lot.broken(&good);
        let _ = (LoginRequest::read(&bytes), Greeting::read(&bytes), AuthSwitch::read(&bytes));
        let _ = (ChangeUser::read(&bytes, Capabilities(u64::MAX)), ServerError::read(&bytes));
        if let Ok(reply) = Reply::read(&bytes, Capabilities::SESSION_TRACK) {
            let _ = (reply.gtids(), reply.database());
        }
        if let Ok(Some((header, read))) = ProxyHeader::read(&bytes) {
            assert_eq!(ProxyHeader::read(&bytes[..read]), Ok(Some((header, read))));
        }
    }
    assert!(LARGEST.get() < 64 * 1024, "{} bytes at once", LARGEST.get());
}

/// Two results with rows, one of them over several packets' worth of marks, and an end.
fn answer(deprecated: bool, sequence: &mut u8) -> Vec<u8> {
    let mut next = |payload: &[u8]| {
        *sequence = sequence.wrapping_add(1);
        packet(*sequence, payload)
    };
    let eof = |more: bool| {
        if deprecated {
            vec![0xfe, 0, 0, 2 | u8::from(more) << 3, 0, 0, 0]
        } else {
            vec![0xfe, 0, 0, 2 | u8::from(more) << 3, 0]
        }
    };
    let mut all = Vec::new();
    for more in [true, false] {
        all.extend(next(&[2]));
        for name in
            [&b"\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00"[..], b"\x03def\x00\x00\x00\x01b\x00\x0c\x3f\x00"]
        {
            all.extend(next(name));
        }
        if !deprecated {
            all.extend(next(&eof(false)));
        }
        for row in [&b"\x011\x03two"[..], b"\xfb\xfb", b"\xfa", &[7; 300]] {
            all.extend(next(row));
        }
        all.extend(next(&eof(more)));
    }
    all
}

/// What is consumed of all that comes in pieces, and how it ends.
fn fed(
    bytes: &[u8],
    piece: usize,
    command: Command,
    capabilities: Capabilities,
    stops: bool,
) -> (usize, Option<Step>) {
    let mut answer = Answer::to(command, capabilities);
    if stops {
        answer.stop_at_results();
    }
    let (mut start, mut end) = (0, 0);
    loop {
        let (consumed, step) = answer.advance(&bytes[start..end]);
        assert!(consumed <= end - start);
        start += consumed;
        if let Step::Done(mut how) = step {
            how.payload = 0..0;
            return (start, Some(Step::Done(how)));
        }
        if step != Step::More {
            return (start, Some(step));
        }
        if answer.take_result_ended() {
            continue;
        }
        assert!(end - start < mysql::protocol::WHOLE_BYTES_MAX + 4, "it waits for more than it may hold");
        if end == bytes.len() {
            return (start, None);
        }
        end = (end + piece).min(bytes.len());
    }
}

#[test]
fn answers_end_at_the_same_byte_however_they_come() {
    let mut lot = Lot::start();
    let commands = [
        Command::Query,
        Command::Prepare,
        Command::Execute,
        Command::Fetch,
        Command::Ping,
        Command::Statistics,
    ];
    for _ in 0..40_000 {
        let deprecated = lot.below(2) == 0;
        let capabilities = if deprecated { Capabilities::DEPRECATE_EOF } else { Capabilities(0) };
        let mut sequence = 0;
        let good = answer(deprecated, &mut sequence);
        let bytes = if lot.below(10) == 0 { good } else { lot.broken(&good) };
        let command = *lot.one_of(&commands);
        let whole = fed(&bytes, bytes.len().max(1), command, capabilities, false);
        for stops in [false, true] {
            let piece = 1 + lot.below(40);
            assert_eq!(fed(&bytes, piece, command, capabilities, stops), whole, "by {piece}, {command:?}");
        }
    }
}

#[test]
fn frames_that_are_broken_end_or_hold_no_more_than_they_say() {
    let mut lot = Lot::start();
    let mut packer = Packer::default();
    LARGEST.set(0);
    for round in 0..6_000 {
        let compression = if round % 2 == 0 { Compression::Zlib } else { Compression::Zstd };
        let plain: Vec<u8> = (0..1 + lot.below(600)).map(|at| (at / 7) as u8).collect();
        let (mut bytes, mut sequence, mut rest) = (Vec::new(), 0, &plain[..]);
        while !rest.is_empty() {
            let mut frame = vec![0; 8 + lot.below(300)];
            let (held, length) = packer.pack((compression, 3), sequence, rest, &mut frame);
            bytes.extend_from_slice(&frame[..length]);
            (sequence, rest) = (sequence.wrapping_add(1), &rest[held..]);
        }
        let good = lot.below(8) == 0;
        let bytes = if good { bytes } else { lot.broken(&bytes) };
        let mut results = Vec::new();
        for piece in [bytes.len().max(1), 1 + lot.below(30)] {
            let mut reader = FrameReader::new(compression, 0);
            let (mut held, mut out, mut failed) = (Vec::new(), Vec::new(), false);
            'pieces: for part in bytes.chunks(piece) {
                held.extend_from_slice(part);
                loop {
                    let mut room = vec![0; 1 + lot.below(200)];
                    let Ok((read, written)) = reader.advance(&held, &mut room) else {
                        failed = true;
                        break 'pieces;
                    };
                    held.drain(..read);
                    out.extend_from_slice(&room[..written]);
                    if read == 0 && written == 0 {
                        break;
                    }
                }
            }
            assert!(!good || !failed && out == plain);
            results.push((out, failed));
        }
        // A broken stream may be found out earlier or later, but nothing that came before is other.
        let [(one, failed), (other, also)] = &results[..] else { unreachable!("two ways") };
        let common = one.len().min(other.len());
        assert_eq!(one[..common], other[..common]);
        assert!(failed == also && (*failed || one.len() == other.len()), "{failed} and {also}");
    }
    assert!(LARGEST.get() < 1024 * 1024, "{} bytes at once", LARGEST.get());
}

#[test]
fn packets_are_numbered_alike_in_pieces_of_any_length() {
    let mut lot = Lot::start();
    for _ in 0..20_000 {
        let mut bytes = vec![lot.byte()];
        for _ in 0..lot.below(8) {
            bytes.extend(packet(lot.byte(), &vec![7; lot.below(30)]));
        }
        let bytes = if lot.below(2) == 0 { lot.broken(&bytes) } else { bytes.split_off(1) };
        if bytes.is_empty() {
            continue;
        }
        let (client, frame) = (lot.below(2) == 0, lot.byte());
        let (mut whole, mut pieces) = (bytes.clone(), bytes.clone());
        let (mut one, mut other) = (PacketNumbers::new(client), PacketNumbers::new(client));
        let piece = 1 + lot.below(9);
        if lot.below(2) == 0 {
            one.came(&mut whole);
            pieces.chunks_mut(piece).for_each(|part| other.came(part));
        } else {
            if let Some((begin, end)) = one.command_in(&whole) {
                assert!(begin < end && end <= whole.len());
            }
            one.goes(&mut whole, frame);
            pieces.chunks_mut(piece).for_each(|part| other.goes(part, frame));
        }
        assert_eq!(whole, pieces);
        assert_eq!(one, other);
    }
}

#[test]
fn statements_that_are_broken_have_a_digest_like_any_other() {
    let mut lot = Lot::start();
    let corpus: Vec<&str> = include_str!("sql/corpus.sql").split("\n\n").collect();
    let charsets = [ClientCharset::Utf8, ClientCharset::Gbk, ClientCharset::Sjis, ClientCharset::SingleByte];
    let dialects = [Dialect::MySql, Dialect::MariaDb, Dialect::TiDb];
    for _ in 0..40_000 {
        let sql = lot.one_of(&corpus).as_bytes();
        let bytes = lot.broken(&sql[..sql.len().min(500)]);
        let modes = Modes {
            dialect: *lot.one_of(&dialects),
            charset: *lot.one_of(&charsets),
            ansi_quotes: lot.below(2) == 0,
            no_backslash_escapes: lot.below(2) == 0,
            ..Modes::default()
        };
        let first = scan(&bytes, modes);
        assert_eq!(first.digest, scan(&bytes, modes).digest);
        let mut text = String::new();
        digest_text(&bytes, &mut text, modes);
        assert!(text.len() <= 64 + 16 * bytes.len(), "{} of {}", text.len(), bytes.len());
        let _ = parse_set(&bytes, modes);
    }
}
