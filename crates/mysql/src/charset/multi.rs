//! Character sets of several bytes: `encoding_rs` reads them, but for the codes listed here, where MySQL and MariaDB have
//! another character, or none that comes back as the same code (compared with MySQL 9.7 and MariaDB 10.11, code by code).

use encoding_rs::{self as e, Encoding};

/// One character set.
pub struct Multi {
    encoding: &'static Encoding,
    /// Bytes of the character that begins with these (at least one, and not ASCII).
    size: fn(&[u8]) -> usize,
    /// First and last code of a range that is not decoded; in order.
    holes: &'static [(u32, u32)],
    /// A code, and the characters of it and its successors; in order.
    runs: &'static [(u32, &'static str)],
    /// The rows of EUC-JP that are for private use.
    euc_private: bool,
}

impl std::fmt::Debug for Multi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.encoding.name())
    }
}

impl Multi {
    /// The text, or `None` when a code has no character of its own.
    pub fn decode(&self, bytes: &[u8]) -> Option<String> {
        let mut out = String::with_capacity(bytes.len() * 3 / 2);
        let (mut at, mut plain) = (0, 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            if rest[0] < 0x80 {
                at += 1;
                continue;
            }
            let size = (self.size)(rest);
            let code = rest.get(..size)?.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
            if self.is_hole(code) {
                return None;
            }
            if let Some(own) = self.own(code) {
                self.push_plain(&mut out, &bytes[plain..at])?;
                out.push(own);
                plain = at + size;
            }
            at += size;
        }
        self.push_plain(&mut out, &bytes[plain..])?;
        Some(out)
    }

    fn push_plain(&self, out: &mut String, bytes: &[u8]) -> Option<()> {
        out.push_str(&self.encoding.decode_without_bom_handling_and_without_replacement(bytes)?);
        Some(())
    }

    fn is_hole(&self, code: u32) -> bool {
        let before = self.holes.partition_point(|(first, _)| *first <= code);
        before.checked_sub(1).is_some_and(|index| code <= self.holes[index].1)
    }

    fn own(&self, code: u32) -> Option<char> {
        let private = |code: u32| (code >> 8 & 0xff, code & 0xff);
        if self.euc_private
            && let (row @ 0xf5..=0xfe, cell @ 0xa1..=0xfe) = private(code)
        {
            let start = if code > 0xffff { 0xe3ac } else { 0xe000 };
            return char::from_u32(start + (row - 0xf5) * 94 + cell - 0xa1);
        }
        let before = self.runs.partition_point(|(first, _)| *first <= code);
        let (first, text) = self.runs[before.checked_sub(1)?];
        text.chars().nth((code - first) as usize)
    }
}

fn two(_: &[u8]) -> usize {
    2
}

/// Half-width katakana are one byte.
fn shift_jis(bytes: &[u8]) -> usize {
    if matches!(bytes[0], 0x81..=0x9f | 0xe0..=0xfc) { 2 } else { 1 }
}

fn euc_jp(bytes: &[u8]) -> usize {
    if bytes[0] == 0x8f { 3 } else { 2 }
}

fn gb18030(bytes: &[u8]) -> usize {
    if matches!(bytes.get(1), Some(0x30..=0x39)) { 4 } else { 2 }
}

pub static BIG5: Multi = Multi {
    encoding: e::BIG5,
    size: two,
    holes: &[
        (0xa15a, 0xa15a),
        (0xa1c3, 0xa1c3),
        (0xa1c5, 0xa1c5),
        (0xa1fe, 0xa240),
        (0xa2cc, 0xa2cc),
        (0xa2ce, 0xa2ce),
        (0xa3c0, 0xa3e1),
        (0xc7fd, 0xc8a4),
        (0xc8cd, 0xc8f1),
        (0xc8f5, 0xc8fe),
        (0xf9dd, 0xf9fe),
    ],
    runs: &[
        (0xa145, "•"),
        (0xa14e, "､"),
        (0xa1c2, "‾"),
        (0xa1e3, "∼"),
        (0xa1f2, "♁☉"),
        (0xa241, "／＼"),
        (0xa244, "¥"),
        (0xa246, "¢£"),
        (
            0xc6a1,
            "ヾゝゞ々ぁあぃいぅうぇえぉおかがきぎくぐけげこごさざしじすずせぜそぞただちぢっつづてでとどなにぬねのはばぱひびぴふぶぷへべぺほぼぽまみむめもゃやゅゆょよらりるれろゎわゐゑをんァアィイゥウェ",
        ),
        (
            0xc740,
            "エォオカガキギクグケゲコゴサザシジスズセゼソゾタダチヂッツヅテデトドナニヌネノハバパヒビピフブプヘベペホボポマミムメモャヤュユ",
        ),
        (
            0xc7a1,
            "ョヨラリルレロヮワヰヱヲンヴヵヶДЕЁЖЗИЙКЛМУФХЦЧШЩЪЫЬЭЮЯабвгдеёжзийклмнопрстуфхцчшщъыьэюя①②③④⑤⑥⑦⑧⑨⑩⑴⑵⑶⑷⑸⑹⑺⑻⑼⑽",
        ),
    ],
    euc_private: false,
};

pub static GBK: Multi = Multi {
    encoding: e::GBK,
    size: two,
    holes: &[
        (0xa140, 0xa1a0),
        (0xa240, 0xa2a0),
        (0xa2ab, 0xa2b0),
        (0xa2e3, 0xa2e4),
        (0xa2ef, 0xa2f0),
        (0xa2fd, 0xa3a0),
        (0xa440, 0xa4a0),
        (0xa4f4, 0xa5a0),
        (0xa5f7, 0xa6a0),
        (0xa6b9, 0xa6c0),
        (0xa6d9, 0xa6df),
        (0xa6ec, 0xa6ed),
        (0xa6f3, 0xa6f3),
        (0xa6f6, 0xa7a0),
        (0xa7c2, 0xa7d0),
        (0xa7f2, 0xa7fe),
        (0xa896, 0xa8a0),
        (0xa8bc, 0xa8bc),
        (0xa8bf, 0xa8bf),
        (0xa8c1, 0xa8c4),
        (0xa8ea, 0xa8fe),
        (0xa958, 0xa958),
        (0xa95b, 0xa95b),
        (0xa95d, 0xa95f),
        (0xa989, 0xa995),
        (0xa997, 0xa9a3),
        (0xa9f0, 0xa9fe),
        (0xaaa1, 0xaafe),
        (0xaba1, 0xabfe),
        (0xaca1, 0xacfe),
        (0xada1, 0xadfe),
        (0xaea1, 0xaefe),
        (0xafa1, 0xaffe),
        (0xd7fa, 0xd7fe),
        (0xf8a1, 0xf8fe),
        (0xf9a1, 0xf9fe),
        (0xfaa1, 0xfafe),
        (0xfba1, 0xfbfe),
        (0xfca1, 0xfcfe),
        (0xfda1, 0xfdfe),
        (0xfe50, 0xfefe),
    ],
    runs: &[],
    euc_private: false,
};

pub static GB2312: Multi = Multi {
    encoding: e::GBK,
    size: two,
    holes: &[
        (0xa2a1, 0xa2b0),
        (0xa2e3, 0xa2e4),
        (0xa2ef, 0xa2f0),
        (0xa2fd, 0xa2fe),
        (0xa4f4, 0xa4fe),
        (0xa5f7, 0xa5fe),
        (0xa6b9, 0xa6c0),
        (0xa6d9, 0xa6fe),
        (0xa7c2, 0xa7d0),
        (0xa7f2, 0xa7fe),
        (0xa8bb, 0xa8c4),
        (0xa8ea, 0xa9a3),
        (0xa9f0, 0xaffe),
        (0xd7fa, 0xd7fe),
    ],
    runs: &[(0xa1a4, "・"), (0xa1aa, "―")],
    euc_private: false,
};

pub static GB18030: Multi = Multi {
    encoding: e::GB18030,
    size: gb18030,
    holes: &[(0x8431a437, 0x8431a437)],
    runs: &[
        (0xa3a0, "\u{e5e5}"),
        (0xa6d9, "\u{e78d}\u{e78e}\u{e78f}\u{e790}\u{e791}\u{e792}\u{e793}"),
        (0xa6ec, "\u{e794}\u{e795}"),
        (0xa6f3, "\u{e796}"),
        (0xfe59, "\u{e81e}"),
        (0xfe61, "\u{e826}"),
        (0xfe66, "\u{e82b}\u{e82c}"),
        (0xfe6d, "\u{e832}"),
        (0xfe7e, "\u{e843}"),
        (0xfe90, "\u{e854}"),
        (0xfea0, "\u{e864}"),
    ],
    euc_private: false,
};

/// Its backslash is 815Fh, and 5Ch is one too, though the servers write none: the only two codes of one character.
pub static SJIS: Multi = Multi {
    encoding: e::SHIFT_JIS,
    size: shift_jis,
    holes: &[
        (0x8740, 0x875d),
        (0x875f, 0x8775),
        (0x877e, 0x879c),
        (0xed40, 0xeeec),
        (0xeeef, 0xeefc),
        (0xf040, 0xfc4b),
    ],
    runs: &[(0x815f, "\\〜‖"), (0x817c, "−"), (0x8191, "¢£"), (0x81ca, "¬")],
    euc_private: false,
};

/// Windows-31J: codes that have a twin do not come back.
pub static CP932: Multi = Multi {
    encoding: e::SHIFT_JIS,
    size: shift_jis,
    holes: &[
        (0x8790, 0x8792),
        (0x8795, 0x8797),
        (0x879a, 0x879c),
        (0xed40, 0xeeec),
        (0xeeef, 0xeefc),
        (0xfa4a, 0xfa54),
        (0xfa58, 0xfa5b),
    ],
    runs: &[],
    euc_private: false,
};

pub static UJIS: Multi = Multi {
    encoding: e::EUC_JP,
    size: euc_jp,
    holes: &[(0xa1c0, 0xa1c0), (0xada1, 0xadbe), (0xadc0, 0xadd6), (0xaddf, 0xadfc), (0x8fa2b7, 0x8fa2b7)],
    runs: &[(0xa1c1, "〜‖"), (0xa1dd, "−"), (0xa1f1, "¢£"), (0xa2cc, "¬")],
    euc_private: true,
};

pub static EUCJPMS: Multi = Multi {
    encoding: e::EUC_JP,
    size: euc_jp,
    holes: &[
        (0xadf0, 0xadf2),
        (0xadf5, 0xadf7),
        (0xadfa, 0xadfc),
        (0x8fa2b7, 0x8fa2b7),
        (0x8fa2f1, 0x8fa2f1),
    ],
    runs: &[
        (0x8fa2c3, "￤"),
        (0x8ff3f3, "ⅰⅱⅲⅳⅴⅵⅶⅷⅸⅹ"),
        (0x8ff4a9, "＇＂"),
        (
            0x8ff4ae,
            "炻仼僴凬匇匤﨎咊坙﨏塚增寬峵嵓﨑德悅愠敎昻晥晴朗栁﨓﨔橫櫢淸淲瀨凞猪甁皂皞益礰礼神祥福竧靖精綠緖羽荢﨟薰蘒﨡蠇諸譿賴赶﨣﨤逸郞都鄕﨧﨨閒隆﨩霻靍靑飯飼館馞髙魲鶴黑",
        ),
    ],
    euc_private: true,
};

/// Windows-949, whole.
pub static EUCKR: Multi = Multi { encoding: e::EUC_KR, size: two, holes: &[], runs: &[], euc_private: false };
