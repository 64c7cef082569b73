//! MariaDB's UUID, INET4 and INET6: fixed binary strings, whose trailing zero bytes the binlog cuts off.

use super::error::{BinlogError, malformed};
use base::{RowWriter, ValueRef};
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
    let address = Ipv6Addr::from(padded::<16>(bytes, "INET6 value")?);
    out.put(ValueRef::Text(&address.to_string()));
    Ok(())
}

pub(super) fn put_uuid(out: &mut RowWriter<'_>, bytes: &[u8]) -> Result<(), BinlogError> {
    let uuid = base::gtid::ServerUuid(padded::<16>(bytes, "UUID value")?);
    out.put(ValueRef::Text(&uuid.to_string()));
    Ok(())
}
