//! Which encoding a text file has. The bytes are the evidence, in this order:
//!
//! 1. A byte order mark.
//! 2. Zero bytes: UTF-16, on the side where they stand.
//! 3. Lines with bytes above 127: when nine of ten are UTF-8, it is UTF-8, since text of other encodings is so by accident only in
//!    pieces of a few bytes. The rest is broken.
//! 4. GBK and Big5: the encoding in which nine of ten of those lines can be read and whose pairs lie where common characters
//!    do. GB2312 has both bytes above 160, and level 1 begins with B0 to D7; Big5's frequent characters begin with A4 to C6, and two of five
//!    have a second byte below 127.
//! 5. Otherwise nobody can tell, and nothing is guessed.

use encoding_rs::{BIG5, GB18030, UTF_8, UTF_16BE, UTF_16LE};
use std::io::{self, Read};

/// Lines with bytes above 127 that are looked at.
const LINES_SEEN_MAX: u64 = 10_000;
/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// Of a line, for its evidence.
const EVIDENCE_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding(&'static encoding_rs::Encoding);

/// What the bytes say.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Is(Encoding),
    /// Text that could be several things.
    Unclear,
}

impl Encoding {
    pub const UTF_8: Self = Self(UTF_8);

    /// By a name that browsers know; GBK is read as GB18030, which holds it.
    pub fn named(name: &str) -> Option<Self> {
        let found = encoding_rs::Encoding::for_label(name.trim().as_bytes())?;
        Some(Self(if found == encoding_rs::GBK { GB18030 } else { found }))
    }

    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The text of whole characters; `None` when there are others.
    pub fn decode(self, bytes: &[u8]) -> Option<String> {
        if self.0 == UTF_8 {
            return std::str::from_utf8(bytes).ok().map(str::to_owned);
        }
        self.0.decode_without_bom_handling_and_without_replacement(bytes).map(std::borrow::Cow::into_owned)
    }

    /// Bytes of a line feed.
    pub(super) fn feed_width(self) -> usize {
        if self.0 == UTF_16LE || self.0 == UTF_16BE { 2 } else { 1 }
    }

    pub(super) fn is_little_endian(self) -> bool {
        self.0 == UTF_16LE
    }

    /// A line without the byte order mark before it.
    pub(super) fn without_mark(self, bytes: &[u8]) -> &[u8] {
        let mark: &[u8] = match self.0 {
            it if it == UTF_16LE => &[0xFF, 0xFE],
            it if it == UTF_16BE => &[0xFE, 0xFF],
            _ => &[0xEF, 0xBB, 0xBF],
        };
        bytes.strip_prefix(mark).unwrap_or(bytes)
    }

    /// A line without the line feed. A carriage return before it stays: inside of quotes it is a part of the value.
    pub(super) fn without_end(self, bytes: &[u8]) -> &[u8] {
        let feed: &[u8] = match self.0 {
            it if it == UTF_16LE => b"\n\0",
            it if it == UTF_16BE => b"\0\n",
            _ => b"\n",
        };
        bytes.strip_suffix(feed).unwrap_or(bytes)
    }
}

/// Reads as far as it takes to tell.
pub fn detect(mut input: impl Read) -> io::Result<Verdict> {
    let mut chunk = vec![0; CHUNK];
    let mut evidence = Evidence::default();
    let mut line = Vec::new();
    let mut first = true;
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            match input.read(&mut chunk[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        let bytes = &chunk[..filled];
        if std::mem::take(&mut first)
            && let Some(sure) = by_mark(bytes).or_else(|| by_zeros(bytes))
        {
            return Ok(Verdict::Is(Encoding(sure)));
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = EVIDENCE_BYTES_MAX.saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                evidence.see(&line);
                line.clear();
            }
        }
        if filled < CHUNK || evidence.lines >= LINES_SEEN_MAX {
            evidence.see(&line);
            return Ok(evidence.verdict());
        }
    }
}

fn by_mark(bytes: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    encoding_rs::Encoding::for_bom(bytes).map(|(found, _)| found)
}

/// UTF-16 without a mark: delimiters, digits and line feeds have a zero byte, all on one side.
fn by_zeros(bytes: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    let mut zeros = [0_usize; 2];
    for (at, byte) in bytes.iter().enumerate() {
        zeros[at % 2] += usize::from(*byte == 0);
    }
    match zeros {
        [0, 0] => None,
        [even, odd] if odd > even * 10 => Some(UTF_16LE),
        [even, odd] if even > odd * 10 => Some(UTF_16BE),
        _ => None,
    }
}

#[derive(Default)]
struct Evidence {
    /// With bytes above 127.
    lines: u64,
    utf8: u64,
    gbk: u64,
    big5: u64,
    /// Pairs in lines that are GB18030: all, those of GB2312, and those of its first level or its signs.
    pairs: u64,
    gb2312: u64,
    level1: u64,
    /// Pairs in lines that are Big5: all, and those of its frequent characters or its signs.
    big5_pairs: u64,
    big5_common: u64,
}

impl Evidence {
    fn see(&mut self, line: &[u8]) {
        if line.is_ascii() {
            return;
        }
        self.lines += 1;
        self.utf8 += u64::from(std::str::from_utf8(line).is_ok());
        if GB18030.decode_without_bom_handling_and_without_replacement(line).is_some() {
            self.gbk += 1;
            for (lead, trail) in pairs(line) {
                self.pairs += 1;
                self.gb2312 += u64::from(matches!(lead, 0xA1..=0xF7) && trail >= 0xA1);
                self.level1 += u64::from(matches!(lead, 0xB0..=0xD7 | 0xA1 | 0xA3) && trail >= 0xA1);
            }
        }
        if BIG5.decode_without_bom_handling_and_without_replacement(line).is_some() {
            self.big5 += 1;
            for (lead, _) in pairs(line) {
                self.big5_pairs += 1;
                self.big5_common += u64::from(matches!(lead, 0xA1..=0xC6));
            }
        }
    }

    fn verdict(&self) -> Verdict {
        let most = |lines: u64| lines * 10 >= self.lines * 9;
        let of = |part: u64, whole: u64, tenths: u64| whole > 0 && part * 10 >= whole * tenths;
        if most(self.utf8) {
            return Verdict::Is(Encoding::UTF_8);
        }
        let gbk = most(self.gbk) && of(self.gb2312, self.pairs, 8) && of(self.level1, self.pairs, 7);
        let big5 = most(self.big5) && of(self.big5_common, self.big5_pairs, 8);
        match (gbk, big5) {
            (true, false) => Verdict::Is(Encoding(GB18030)),
            (false, true) => Verdict::Is(Encoding(BIG5)),
            // Both: GBK's own second bytes are all high, which Big5 text of any length is not.
            (true, true) if of(self.gb2312, self.pairs, 9) && self.pairs >= 8 => {
                Verdict::Is(Encoding(GB18030))
            }
            _ => Verdict::Unclear,
        }
    }
}

/// Two-byte characters, as both encodings cut a line.
fn pairs(line: &[u8]) -> impl Iterator<Item = (u8, u8)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at + 1 < line.len() {
            let (lead, trail) = (line[at], line[at + 1]);
            if lead < 0x80 {
                at += 1;
                continue;
            }
            at += 2;
            return Some((lead, trail));
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> Verdict {
        detect(bytes).unwrap()
    }

    fn is(name: &str) -> Verdict {
        Verdict::Is(Encoding::named(name).unwrap())
    }

    const SIMPLIFIED: &str = "编号,姓名,部门\n1,张三,财务部\n2,李四,信息中心\n3,王五,城市运行管理处\n";
    const TRADITIONAL: &str = "編號,姓名,部門\n1,張三,財務部\n2,李四,資訊中心\n3,王五,城市運行管理處\n";

    #[test]
    fn the_encodings_of_chinese_offices_are_told_by_their_bytes() {
        assert_eq!(told(SIMPLIFIED.as_bytes()), is("utf-8"));
        assert_eq!(told(format!("\u{feff}{SIMPLIFIED}").as_bytes()), is("utf-8"));
        assert_eq!(told(&GB18030.encode(SIMPLIFIED).0), is("gbk"));
        assert_eq!(told(&BIG5.encode(TRADITIONAL).0), is("big5"));
        let wide: Vec<u16> = SIMPLIFIED.encode_utf16().collect();
        let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        assert_eq!(told(&little), is("utf-16le"));
        assert_eq!(told(&big), is("utf-16be"));
        assert_eq!(told(b"id,name\n1,x\n"), is("utf-8"));
        assert_eq!(told(b""), is("utf-8"));
    }

    #[test]
    fn one_broken_line_does_not_change_the_encoding_of_a_file() {
        let mut bytes = SIMPLIFIED.repeat(10).into_bytes();
        bytes.extend([b'9', b',', 0xFF, 0xFE, b'\n']);
        assert_eq!(told(&bytes), is("utf-8"));
        let mut bytes = GB18030.encode(&SIMPLIFIED.repeat(10)).0.into_owned();
        bytes.extend([b'9', b',', 0xFF, 0xFF, b'\n']);
        assert_eq!(told(&bytes), is("gbk"));
    }

    #[test]
    fn what_the_bytes_do_not_tell_is_not_guessed() {
        let latin = encoding_rs::WINDOWS_1252.encode("naïve,café\nGröße,Señor\n").0;
        assert_eq!(told(&latin), Verdict::Unclear);
    }

    #[test]
    fn signs_behind_a_long_head_in_ascii_are_seen() {
        let mut bytes = b"id,name\n".repeat(40_000);
        bytes.extend_from_slice(&GB18030.encode(SIMPLIFIED).0);
        assert_eq!(told(&bytes), is("gbk"));
    }
}
