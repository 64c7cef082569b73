//! What decides how bytes split into tokens besides the bytes: whose server reads them, the client's character set, the
//! SQL modes that touch quotes.

/// Whose server will read the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    #[default]
    MySql,
    MariaDb,
    TiDb,
}

/// `character_set_client`, as far as it changes where a string ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ClientCharset {
    /// UTF-8, and every other one whose trail bytes are all above 0x7f: ujis, euckr, gb2312, eucjpms.
    #[default]
    Utf8,
    /// One byte a character: latin1, cp1251, greek, ….
    SingleByte,
    /// Two bytes, of which the second may be `\` or a backtick.
    Gbk,
    Big5,
    /// sjis and cp932.
    Sjis,
    Gb18030,
}

impl ClientCharset {
    /// By the name that `SET NAMES` takes. A name that is not known is read as one byte a character.
    pub fn by_name(name: &str) -> ClientCharset {
        let any = |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
        if any(&["utf8mb4", "utf8mb3", "utf8", "ascii", "ujis", "euckr", "gb2312", "eucjpms"]) {
            ClientCharset::Utf8
        } else if any(&["gbk"]) {
            ClientCharset::Gbk
        } else if any(&["big5"]) {
            ClientCharset::Big5
        } else if any(&["sjis", "cp932"]) {
            ClientCharset::Sjis
        } else if any(&["gb18030"]) {
            ClientCharset::Gb18030
        } else {
            ClientCharset::SingleByte
        }
    }

    /// Whether a trail byte may be one that ends or escapes something.
    #[inline]
    pub(super) fn has_ascii_trail(self) -> bool {
        !matches!(self, ClientCharset::Utf8 | ClientCharset::SingleByte)
    }

    /// The length of the character that starts with a byte above 0x7f: 1 when the bytes make none.
    #[inline]
    pub(super) fn character_length(self, bytes: &[u8]) -> usize {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let (lead, trail) = (byte(0), byte(1));
        let is_pair = match self {
            ClientCharset::Utf8 | ClientCharset::SingleByte => false,
            ClientCharset::Gbk => in_range(lead, 0x81, 0xfe) && is_gbk_trail(trail),
            ClientCharset::Gb18030 => {
                let is_four = in_range(lead, 0x81, 0xfe)
                    && in_range(trail, 0x30, 0x39)
                    && in_range(byte(2), 0x81, 0xfe)
                    && in_range(byte(3), 0x30, 0x39);
                if is_four {
                    return 4;
                }
                in_range(lead, 0x81, 0xfe) && is_gbk_trail(trail)
            }
            ClientCharset::Big5 => {
                in_range(lead, 0xa1, 0xf9) && (in_range(trail, 0x40, 0x7e) || in_range(trail, 0xa1, 0xfe))
            }
            ClientCharset::Sjis => {
                (in_range(lead, 0x81, 0x9f) || in_range(lead, 0xe0, 0xfc))
                    && (in_range(trail, 0x40, 0x7e) || in_range(trail, 0x80, 0xfc))
            }
        };
        if is_pair { 2 } else { 1 }
    }
}

fn in_range(byte: u8, first: u8, last: u8) -> bool {
    (first..=last).contains(&byte)
}

fn is_gbk_trail(byte: u8) -> bool {
    in_range(byte, 0x40, 0x7e) || in_range(byte, 0x80, 0xfe)
}

/// How a session's statements are read. The default is MySQL's: UTF-8, backslashes escape, `"` quotes a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Modes {
    pub dialect: Dialect,
    /// The server's version as executable comments have it, 90704 for 9.7.4, and 0 where it is not known: all are then
    /// read, whatever version they ask for.
    pub server_version: u32,
    /// `character_set_client`.
    pub charset: ClientCharset,
    /// `"` quotes a name.
    pub ansi_quotes: bool,
    /// A backslash is a character like any other.
    pub no_backslash_escapes: bool,
    /// Blanks may stand between a function's name and its parenthesis.
    pub ignore_space: bool,
}
