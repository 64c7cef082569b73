//! MySQL's character sets: from a name or a collation id to a decoder that gives UTF-8, or gives up.
//!
//! Decoding is never lossy, and never other than the server's: a code is decoded here only where the servers convert it
//! to the same character and back. Text with any other code, or with bytes that are not valid, is carried as its bytes
//! (`RawText`).

mod multi;
mod single;

use base::{RowWriter, ValueRef};
use multi::Multi;

/// How the bytes of a text column become UTF-8.
#[derive(Clone, Copy, Debug)]
pub enum Charset {
    /// utf8mb4 and utf8mb3: UTF-8 already, only checked.
    Utf8,
    Ascii,
    /// No character set: bytes.
    Binary,
    /// One byte a character.
    Single(&'static [u16; 256]),
    /// Up to four bytes a character.
    Multi(&'static Multi),
    /// Two-byte and four-byte units, big-endian but for `utf16le`.
    Utf16,
    Utf16Le,
    Utf32,
    /// Not decoded.
    Unknown,
}

impl Charset {
    /// The character set of MySQL's name for it: `utf8mb4`.
    pub fn named(name: &str) -> Self {
        match name {
            "utf8mb4" | "utf8mb3" | "utf8" => Self::Utf8,
            "ascii" => Self::Ascii,
            "binary" => Self::Binary,
            "ucs2" | "utf16" => Self::Utf16,
            "utf16le" => Self::Utf16Le,
            "utf32" => Self::Utf32,
            "big5" => Self::Multi(&multi::BIG5),
            "gbk" => Self::Multi(&multi::GBK),
            "gb2312" => Self::Multi(&multi::GB2312),
            "gb18030" => Self::Multi(&multi::GB18030),
            "sjis" => Self::Multi(&multi::SJIS),
            "cp932" => Self::Multi(&multi::CP932),
            "ujis" => Self::Multi(&multi::UJIS),
            "eucjpms" => Self::Multi(&multi::EUCJPMS),
            "euckr" => Self::Multi(&multi::EUCKR),
            "armscii8" => Self::Single(&single::ARMSCII8),
            "cp1250" => Self::Single(&single::CP1250),
            "cp1251" => Self::Single(&single::CP1251),
            "cp1256" => Self::Single(&single::CP1256),
            "cp1257" => Self::Single(&single::CP1257),
            "cp850" => Self::Single(&single::CP850),
            "cp852" => Self::Single(&single::CP852),
            "cp866" => Self::Single(&single::CP866),
            "dec8" => Self::Single(&single::DEC8),
            "geostd8" => Self::Single(&single::GEOSTD8),
            "greek" => Self::Single(&single::GREEK),
            "hebrew" => Self::Single(&single::HEBREW),
            "hp8" => Self::Single(&single::HP8),
            "keybcs2" => Self::Single(&single::KEYBCS2),
            "koi8r" => Self::Single(&single::KOI8R),
            "koi8u" => Self::Single(&single::KOI8U),
            "latin1" => Self::Single(&single::LATIN1),
            "latin2" => Self::Single(&single::LATIN2),
            "latin5" => Self::Single(&single::LATIN5),
            "latin7" => Self::Single(&single::LATIN7),
            "macce" => Self::Single(&single::MACCE),
            "macroman" => Self::Single(&single::MACROMAN),
            "swe7" => Self::Single(&single::SWE7),
            "tis620" => Self::Single(&single::TIS620),
            _ => Self::Unknown,
        }
    }
}

impl Charset {
    /// Whether both read every byte alike.
    pub(crate) fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Single(a), Self::Single(b)) => std::ptr::eq(a, b),
            (Self::Multi(a), Self::Multi(b)) => std::ptr::eq(a, b),
            _ => std::mem::discriminant(&self) == std::mem::discriminant(&other),
        }
    }
}

/// The character set of a collation id, where the id is one that MySQL or MariaDB ships.
pub fn of_collation(id: u64) -> Option<&'static str> {
    // MariaDB numbers the NOPAD variants of its collations 1024 above, its UCA 14.00 ones from 2048 on.
    let id = if (1025..2048).contains(&id) { id - 1024 } else { id };
    Some(match id {
        1 | 84 => "big5",
        2 | 9 | 21 | 27 | 77 => "latin2",
        3 | 69 => "dec8",
        4 | 80 => "cp850",
        5 | 8 | 15 | 31 | 47..=49 | 94 => "latin1",
        6 | 72 => "hp8",
        7 | 74 => "koi8r",
        10 | 82 => "swe7",
        11 | 65 => "ascii",
        12 | 91 => "ujis",
        13 | 88 => "sjis",
        14 | 23 | 50..=52 => "cp1251",
        16 | 71 => "hebrew",
        18 | 89 => "tis620",
        19 | 85 => "euckr",
        20 | 41 | 42 | 79 => "latin7",
        22 | 75 => "koi8u",
        24 | 86 => "gb2312",
        25 | 70 => "greek",
        26 | 34 | 44 | 66 | 99 => "cp1250",
        28 | 87 => "gbk",
        29 | 58 | 59 => "cp1257",
        30 | 78 => "latin5",
        32 | 64 => "armscii8",
        33 | 76 | 83 | 192..=215 | 223 => "utf8mb3",
        35 | 90 | 128..=151 | 159 => "ucs2",
        36 | 68 => "cp866",
        37 | 73 => "keybcs2",
        38 | 43 => "macce",
        39 | 53 => "macroman",
        40 | 81 => "cp852",
        45 | 46 | 224..=247 | 255..=323 | 576..=607 => "utf8mb4",
        54 | 55 | 101..=124 => "utf16",
        56 | 62 => "utf16le",
        57 | 67 => "cp1256",
        60 | 61 | 160..=183 => "utf32",
        63 => "binary",
        92 | 93 => "geostd8",
        95 | 96 => "cp932",
        97 | 98 => "eucjpms",
        248..=250 => "gb18030",
        _ => return None,
    })
}

/// Appends text of `charset` as UTF-8, or as raw bytes when it does not decode.
pub(crate) fn put_text(out: &mut RowWriter<'_>, bytes: &[u8], charset: Charset) {
    let decoded = match charset {
        Charset::Utf8 => return out.put(crate::binlog::text_of(bytes)),
        Charset::Binary => return out.put(ValueRef::Bytes(bytes)),
        Charset::Ascii | Charset::Multi(_) if bytes.is_ascii() => {
            return out.put(crate::binlog::text_of(bytes));
        }
        Charset::Single(table) => decode_single(bytes, table),
        Charset::Multi(set) => set.decode(bytes),
        Charset::Utf16 => utf16(bytes, u16::from_be_bytes),
        Charset::Utf16Le => utf16(bytes, u16::from_le_bytes),
        Charset::Utf32 => utf32(bytes),
        Charset::Ascii | Charset::Unknown => None,
    };
    match decoded {
        Some(text) => out.put(ValueRef::Text(&text)),
        None => out.put(ValueRef::RawText(bytes)),
    }
}

fn decode_single(bytes: &[u8], table: &[u16; 256]) -> Option<String> {
    let characters = bytes.iter().map(|byte| match table[usize::from(*byte)] {
        single::HOLE => None,
        code => char::from_u32(code.into()),
    });
    characters.collect()
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    char::decode_utf16(units.iter().map(|pair| unit(*pair))).collect::<Result<_, _>>().ok()
}

fn utf32(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{RowView, Value};

    fn decode(charset: &str, bytes: &[u8]) -> Value {
        let mut out = Vec::new();
        put_text(&mut RowWriter::new(&mut out), bytes, Charset::named(charset));
        RowView(&out).values().unwrap().remove(0)
    }

    #[test]
    fn texts_become_utf8_and_others_stay_raw() {
        let text = |s: &str| Value::Text(s.to_owned());
        assert_eq!(decode("utf8mb4", "绿".as_bytes()), text("绿"));
        assert_eq!(decode("utf8mb4", &[0xff]), Value::RawText(vec![0xff]));
        assert_eq!(decode("latin1", &[0xe9, 0x80, 0x81]), text("é€\u{81}"));
        assert_eq!(decode("gbk", &[0xc2, 0xcc]), text("绿"));
        assert_eq!(decode("ucs2", &[0x7e, 0xff]), text("绿"));
        assert_eq!(decode("utf16le", &[0xff, 0x7e]), text("绿"));
        assert_eq!(decode("utf32", &[0, 1, 0xf6, 0]), text("😀"));
        assert_eq!(decode("cp1251", &[0xcf]), text("П"));
        assert_eq!(decode("tis620", &[0xa1, 0x20]), text("ก "));
        assert_eq!(decode("cp1251", &[0xcf, 0x98]), Value::RawText(vec![0xcf, 0x98]));
        assert_eq!(decode("swe7", b"A]@"), text("AÅÉ"));
        assert_eq!(decode("ascii", "é".as_bytes()), Value::RawText("é".as_bytes().to_vec()));
        assert_eq!(decode("big5", b"\xc6\xde\xa4\x40a\xa1\xf2"), text("ぺ一a♁"));
        assert_eq!(decode("sjis", b"\x81\x60\xb1\\"), text("〜ｱ\\"));
        assert_eq!(decode("sjis", b"\x87\x40"), Value::RawText(vec![0x87, 0x40]));
        assert_eq!(decode("eucjpms", b"\x8f\xf5\xa2\xf5\xa1"), text("\u{e3ad}\u{e000}"));
        assert_eq!(decode("gbk", b"\xc2"), Value::RawText(vec![0xc2]));
        assert_eq!(decode("utf16", &[0xd8, 0x00]), Value::RawText(vec![0xd8, 0]));
    }

    #[test]
    fn collation_ids_name_their_character_set() {
        for (id, name) in [(8, "latin1"), (45, "utf8mb4"), (63, "binary"), (255, "utf8mb4"), (28, "gbk")] {
            assert_eq!(of_collation(id), Some(name));
        }
        assert_eq!(of_collation(5000), None);
    }
}
