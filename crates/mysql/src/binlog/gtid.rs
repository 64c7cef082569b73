//! GTID events: the plain form of MySQL 5.6 on, and the tagged form of 8.3 on.

use super::error::{BinlogError, malformed};
use super::event::Event;
use super::input::Input;
use base::Gtid;
use base::gtid::ServerUuid;

/// `flags:u8 uuid:16 number:u64 [2:u8 last_committed:u64 sequence:u64 [immediate:u56 [original:u56] length:packed …]]`;
/// bit 55 of the immediate timestamp says that the original one differs and follows.
pub(super) fn plain(body: &[u8], anonymous: bool) -> Result<Event<'_>, BinlogError> {
    let mut input = Input::new(body, "GTID event");
    input.u8()?;
    let uuid = ServerUuid(input.array()?);
    let number = input.u64()?;
    let gtid = (!anonymous).then(|| Gtid { uuid, tag: String::new(), number });
    let (commit_ts_us, transaction_bytes) = timing(&mut input).unwrap_or_default();
    Ok(Event::Gtid { gtid, commit_ts_us, transaction_bytes })
}

fn timing(input: &mut Input<'_>) -> Option<(i64, u64)> {
    const DIFFERS: u64 = 1 << 55;
    if input.u8().ok()? != 2 {
        return None;
    }
    input.bytes(16).ok()?;
    let immediate = input.uint_le(7).ok()?;
    let original = if immediate & DIFFERS != 0 { input.uint_le(7).ok()? } else { immediate };
    Some(((original & !DIFFERS) as i64, input.packed().unwrap_or(0)))
}

/// MySQL's serialization format, version 2: `version size last_non_ignorable_field (field value)*`. Integers are
/// variable-length: as many low one bits as bytes follow; signed ones carry the sign in the bit after.
pub(super) fn tagged(body: &[u8]) -> Result<Event<'_>, BinlogError> {
    let what = "tagged GTID event";
    let mut input = Input::new(body, what);
    let version = unsigned(&mut input)?;
    let size = unsigned(&mut input)?;
    let last_needed = unsigned(&mut input)?;
    let consumed = body.len() - input.rest.len();
    let length = usize::try_from(size).ok().and_then(|s| s.checked_sub(consumed));
    let mut fields = Input::new(input.bytes(length.ok_or_else(|| malformed(what))?)?, what);
    if version > 2 {
        return Err(malformed(what));
    }
    let mut gtid = Gtid { uuid: ServerUuid([0; 16]), tag: String::new(), number: 0 };
    let (mut immediate, mut original, mut transaction_bytes) = (0, None, 0);
    while !fields.is_empty() {
        match unsigned(&mut fields)? {
            1 => {
                for byte in &mut gtid.uuid.0 {
                    *byte = u8::try_from(unsigned(&mut fields)?).map_err(|_| malformed(what))?;
                }
            }
            2 => gtid.number = u64::try_from(signed(&mut fields)?).map_err(|_| malformed(what))?,
            3 => {
                let length = unsigned(&mut fields)? as usize;
                let tag = fields.bytes(length)?;
                gtid.tag = String::from_utf8(tag.to_vec()).map_err(|_| malformed(what))?;
            }
            4 | 5 => drop(signed(&mut fields)?),
            6 => immediate = unsigned(&mut fields)?,
            7 => original = Some(unsigned(&mut fields)?),
            8 => transaction_bytes = unsigned(&mut fields)?,
            0 | 9..=11 => drop(unsigned(&mut fields)?),
            unknown if unknown <= last_needed => return Err(malformed(what)),
            _ => break,
        }
    }
    if gtid.number == 0 {
        return Err(malformed(what));
    }
    Ok(Event::Gtid {
        gtid: Some(gtid),
        commit_ts_us: original.unwrap_or(immediate) as i64,
        transaction_bytes,
    })
}

fn unsigned(input: &mut Input<'_>) -> Result<u64, BinlogError> {
    let first = input.u8()?;
    let more = first.trailing_ones() as usize;
    let low = if more >= 7 { 0 } else { u64::from(first >> (more + 1)) };
    let rest = input.uint_le(more)?;
    Ok(if more >= 7 { rest } else { low | rest << (7 - more) })
}

fn signed(input: &mut Input<'_>) -> Result<i64, BinlogError> {
    let raw = unsigned(input)?;
    let magnitude = (raw >> 1) as i64;
    Ok(if raw & 1 == 1 { !magnitude } else { magnitude })
}
