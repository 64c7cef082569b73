//! MySQL's character sets: from a collation id or a name to a decoder that gives UTF-8, or gives up.

/// How the bytes of a text column become UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// utf8mb4, utf8mb3 and ascii: UTF-8 already, only checked.
    Utf8,
    /// No character set: bytes.
    Binary,
    /// Decoded by `encoding_rs`.
    Encoding(&'static encoding_rs::Encoding),
    Ucs2,
    Utf16,
    Utf16Le,
    Utf32,
    /// Not decoded: the bytes are carried as they are.
    Unknown,
}

impl Charset {
    /// The character set of MySQL's name for it: `utf8mb4`.
    pub fn named(name: &str) -> Self {
        match name {
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => Self::Utf8,
            "binary" => Self::Binary,
            "latin1" => Self::Encoding(encoding_rs::WINDOWS_1252),
            _ => Self::Unknown,
        }
    }
}

/// Appends text of `charset` as UTF-8, or as raw bytes when it does not decode.
pub(crate) fn put_text(out: &mut base::RowWriter<'_>, bytes: &[u8], charset: Charset) {
    use base::ValueRef;
    let decoded = match charset {
        Charset::Utf8 => return out.put(crate::binlog::text_of(bytes)),
        Charset::Binary => return out.put(ValueRef::Bytes(bytes)),
        Charset::Encoding(encoding) => encoding.decode_without_bom_handling_and_without_replacement(bytes),
        _ => None,
    };
    match decoded {
        Some(text) => out.put(ValueRef::Text(&text)),
        None => out.put(ValueRef::RawText(bytes)),
    }
}
