//! MySQL's character sets: from a name or a collation id to a decoder that gives UTF-8, or gives up.
//!
//! Decoding is never lossy. A set is decoded here only where its table agrees with MySQL's; bytes of all others, and
//! bytes that are not valid, are carried as they are (`RawText`).

use base::{RowWriter, ValueRef};
use encoding_rs::Encoding;

/// How the bytes of a text column become UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// utf8mb4, utf8mb3 and ascii: UTF-8 already, only checked.
    Utf8,
    /// No character set: bytes.
    Binary,
    /// Decoded by `encoding_rs`.
    Encoding(&'static Encoding),
    /// ISO 8859-1 with C1 controls where Windows has letters; MySQL's latin1 is cp1252 with the five holes filled.
    Latin1,
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
        use encoding_rs as e;
        match name {
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => Self::Utf8,
            "binary" => Self::Binary,
            "latin1" => Self::Latin1,
            "ucs2" | "utf16" => Self::Utf16,
            "utf16le" => Self::Utf16Le,
            "utf32" => Self::Utf32,
            "gbk" | "gb2312" => Self::Encoding(e::GBK),
            "gb18030" => Self::Encoding(e::GB18030),
            "big5" => Self::Encoding(e::BIG5),
            "sjis" | "cp932" => Self::Encoding(e::SHIFT_JIS),
            "ujis" | "eucjpms" => Self::Encoding(e::EUC_JP),
            "euckr" => Self::Encoding(e::EUC_KR),
            "cp1250" => Self::Encoding(e::WINDOWS_1250),
            "cp1251" => Self::Encoding(e::WINDOWS_1251),
            "cp1256" => Self::Encoding(e::WINDOWS_1256),
            "cp1257" => Self::Encoding(e::WINDOWS_1257),
            "latin2" => Self::Encoding(e::ISO_8859_2),
            "latin5" => Self::Encoding(e::WINDOWS_1254),
            "latin7" => Self::Encoding(e::ISO_8859_13),
            "greek" => Self::Encoding(e::ISO_8859_7),
            "hebrew" => Self::Encoding(e::ISO_8859_8),
            "koi8r" => Self::Encoding(e::KOI8_R),
            "koi8u" => Self::Encoding(e::KOI8_U),
            "cp866" => Self::Encoding(e::IBM866),
            "macroman" | "macce" | "cp850" | "cp852" | "dec8" | "hp8" | "swe7" | "keybcs2" | "armscii8"
            | "geostd8" | "tis620" => Self::Unknown,
            _ => Self::Unknown,
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
        _ if ascii_superset(charset) && bytes.is_ascii() => {
            return out.put(crate::binlog::text_of(bytes));
        }
        Charset::Encoding(encoding) => encoding
            .decode_without_bom_handling_and_without_replacement(bytes)
            .filter(|text| reads_back(encoding, text, bytes))
            .map(std::borrow::Cow::into_owned),
        Charset::Latin1 => Some(encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned()),
        Charset::Utf16 => utf16(bytes, u16::from_be_bytes),
        Charset::Utf16Le => utf16(bytes, u16::from_le_bytes),
        Charset::Utf32 => utf32(bytes),
        Charset::Unknown => None,
    };
    match decoded {
        Some(text) => out.put(ValueRef::Text(&text)),
        None => out.put(ValueRef::RawText(bytes)),
    }
}

/// Whether bytes below 128 mean themselves. Not in Shift-JIS and its kin, whose second bytes overlap ASCII; but pure
/// ASCII input has no lead bytes, and `encoding_rs` reads it as ASCII in all its encodings.
fn ascii_superset(charset: Charset) -> bool {
    matches!(charset, Charset::Latin1 | Charset::Encoding(_))
}

/// A decoder that accepts more than one byte sequence for a character is only trusted where encoding gives the same
/// bytes back, so that no two different stored values become equal.
fn reads_back(encoding: &'static Encoding, text: &str, bytes: &[u8]) -> bool {
    let (back, _, failed) = encoding.encode(text);
    !failed && *back == *bytes
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
        assert_eq!(decode("tis620", &[0xa1]), Value::RawText(vec![0xa1]));
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
