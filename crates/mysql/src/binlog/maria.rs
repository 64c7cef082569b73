//! The events only MariaDB writes.

use super::error::BinlogError;
use super::event::Event;
use super::input::Input;
use super::reader::{PAYLOAD_BYTES_MAX, query, read_bounded};
use base::MariaGtid;

/// `sequence:u64 domain:u32 flags:u8 …`; the server id is the header's.
pub(super) fn gtid(server: u32, body: &[u8]) -> Result<Event<'static>, BinlogError> {
    let mut input = Input::new(body, "MariaDB GTID event");
    let sequence = input.u64()?;
    let domain = input.u32()?;
    let flags = input.u8()?;
    Ok(Event::MariaGtid {
        gtid: MariaGtid { domain, server, sequence },
        standalone: flags & 1 != 0,
        prepared_xa: flags & 0x40 != 0,
        completed_xa: flags & 0x80 != 0,
    })
}

/// `header:u8 (0x80 | algorithm << 4 | bytes of length) length:BE data`; algorithm 0 is zlib.
pub(super) fn decompress(bytes: &[u8]) -> Result<Vec<u8>, BinlogError> {
    let what = "compressed event";
    let mut input = Input::new(bytes, what);
    let header = input.u8()?;
    let (algorithm, length_bytes) = (header >> 4 & 7, usize::from(header & 0x0f));
    if header & 0x80 == 0 || !(1..=4).contains(&length_bytes) {
        return Err(input.bad());
    }
    let length = input.uint_be(length_bytes)?;
    if algorithm != 0 {
        return Err(BinlogError::Decompress { what, reason: format!("algorithm {algorithm} is unknown") });
    }
    if length > PAYLOAD_BYTES_MAX {
        return Err(BinlogError::TooLarge { what, bytes: length, bytes_max: PAYLOAD_BYTES_MAX });
    }
    let out = read_bounded(flate2::read::ZlibDecoder::new(input.rest), what)?;
    if out.len() as u64 == length {
        Ok(out)
    } else {
        Err(BinlogError::Decompress { what, reason: "its length is not the declared one".to_owned() })
    }
}

/// A QUERY whose text alone is compressed.
pub(super) fn query_compressed(body: &[u8]) -> Result<Event<'static>, BinlogError> {
    let mut input = Input::new(body, "compressed query event");
    input.bytes(8)?;
    let db_length = usize::from(input.u8()?);
    input.u16()?;
    let status_length = usize::from(input.u16()?);
    input.bytes(status_length + db_length + 1)?;
    let head = body.len() - input.rest.len();
    let mut plain = body[..head].to_vec();
    plain.extend_from_slice(&decompress(input.rest)?);
    match query(&plain)? {
        Event::Query { db, sql, sql_mode, charset_client } => Ok(Event::Query {
            db: db.into_owned().into(),
            sql: sql.into_owned().into(),
            sql_mode,
            charset_client,
        }),
        _ => Err(input.bad()),
    }
}
