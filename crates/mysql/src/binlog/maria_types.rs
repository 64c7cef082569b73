//! MariaDB's UUID, INET4 and INET6: fixed binary strings, whose trailing zero bytes the binlog cuts off; and the values of
//! COMPRESSED columns.

use super::error::{BinlogError, malformed};
use super::input::Input;
use super::reader::{PAYLOAD_BYTES_MAX, read_bounded};
use base::{RowWriter, ValueRef};
use std::borrow::Cow;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

fn padded<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], BinlogError> {
    let mut out = [0; N];
    out.get_mut(..bytes.len()).ok_or_else(|| malformed(what))?.copy_from_slice(bytes);
    Ok(out)
}

pub(super) fn put_inet4(out: &mut RowWriter<'_>, bytes: &[u8]) -> Result<(), BinlogError> {
    let address = Ipv4Addr::from(padded::<4>(bytes, "INET4 value")?);
    out.put(ValueRef::Text(&address.to_string()));
    Ok(())
}

pub(super) fn put_inet6(out: &mut RowWriter<'_>, bytes: &[u8]) -> Result<(), BinlogError> {
    let words = Ipv6Addr::from(padded::<16>(bytes, "INET6 value")?).segments();
    out.put(ValueRef::Text(&inet6_text(words)));
    Ok(())
}

/// The address as MariaDB prints it: the first longest run of zeros becomes `::` even when it is one word, and the
/// last two words print as an IPv4 address after six zero words, or after five and `ffff`.
fn inet6_text(words: [u16; 8]) -> String {
    let (mut gap, mut gap_length) = (8, 0);
    let mut start = 0;
    for (index, word) in words.iter().enumerate() {
        if *word != 0 {
            start = index + 1;
        } else if index + 1 - start > gap_length {
            (gap, gap_length) = (start, index + 1 - start);
        }
    }
    let is_ipv4 = gap == 0 && (gap_length == 6 || (gap_length == 5 && words[5] == 0xffff));
    let mut out = String::with_capacity(39);
    let mut index = 0;
    while index < 8 {
        if index == gap {
            out.push_str(if index == 0 { "::" } else { ":" });
            index += gap_length;
            continue;
        }
        if index == 6 && is_ipv4 {
            let [a, b] = words[6].to_be_bytes();
            let [c, d] = words[7].to_be_bytes();
            let _ = write!(out, "{a}.{b}.{c}.{d}");
            break;
        }
        let _ = write!(out, "{:x}", words[index]);
        if index < 7 {
            out.push(':');
        }
        index += 1;
    }
    out
}

/// The binlog carries a UUID's sixteen bytes in their textual order, whatever order the table keeps for its indexes
/// (seen on MariaDB 10.11.19, for versions 0, 1, 4, 6 and 7).
pub(super) fn put_uuid(out: &mut RowWriter<'_>, bytes: &[u8]) -> Result<(), BinlogError> {
    let uuid = base::gtid::ServerUuid(padded::<16>(bytes, "UUID value")?);
    out.put(ValueRef::Text(&uuid.to_string()));
    Ok(())
}

/// A value of a COMPRESSED column: nothing, `0 bytes`, or `header:u8 length:BE data`, where the header is the method in its
/// high half (8 is zlib), 8 for data without zlib's own header, and the bytes of `length`.
pub(super) fn uncompressed(bytes: &[u8]) -> Result<Cow<'_, [u8]>, BinlogError> {
    const ZLIB: u8 = 8;
    let what = "compressed column";
    let Some((&header, rest)) = bytes.split_first() else { return Ok(Cow::Borrowed(bytes)) };
    if header == 0 {
        return Ok(Cow::Borrowed(rest));
    }
    if header >> 4 != ZLIB {
        let reason = format!("method {} is unknown", header >> 4);
        return Err(BinlogError::Decompress { what, reason });
    }
    let mut input = Input::new(rest, what);
    let length = input.uint_be(usize::from(header & 7))?;
    if length > PAYLOAD_BYTES_MAX {
        return Err(BinlogError::TooLarge { what, bytes: length, bytes_max: PAYLOAD_BYTES_MAX });
    }
    let out = if header & 8 != 0 {
        read_bounded(flate2::read::DeflateDecoder::new(input.rest), what)?
    } else {
        read_bounded(flate2::read::ZlibDecoder::new(input.rest), what)?
    };
    if out.len() as u64 == length {
        Ok(Cow::Owned(out))
    } else {
        Err(BinlogError::Decompress { what, reason: "its length is not the declared one".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn compressed_values_of_mariadb_read_as_they_were() {
        assert_eq!(*uncompressed(&[]).unwrap(), *b"");
        assert_eq!(*uncompressed(b"\0short").unwrap(), *b"short");
        // What MariaDB 10.11 wrote for 50 times `abc`.
        let deflated = [0x89, 0x96, 0x4b, 0x4c, 0x4a, 0x4e, 0x1c, 0x7c, 0x08, 0x00];
        assert_eq!(*uncompressed(&deflated).unwrap(), *"abc".repeat(50).as_bytes());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = uncompressed(&bytes);
        }
    }
}
