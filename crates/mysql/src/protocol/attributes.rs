//! Where the text of a `COM_QUERY` begins behind the attributes that a client sent with it.

use super::{FieldReader, Truncated};

/// Offset of the text in the payload of a `COM_QUERY` of a connection with `QUERY_ATTRIBUTES`; `None` where the attributes
/// cannot be read for sure.
pub fn query_text_start(payload: &[u8]) -> Option<usize> {
    let mut fields = FieldReader::new(payload.get(1..)?);
    skip(&mut fields).ok().flatten().map(|()| payload.len() - fields.rest().len())
}

/// Goes behind the attributes.
fn skip(fields: &mut FieldReader<'_>) -> Result<Option<()>, Truncated> {
    let (count, sets) = (fields.integer()?, fields.integer()?);
    if sets != 1 {
        return Ok(None);
    }
    let Ok(count) = usize::try_from(count) else { return Ok(None) };
    if count == 0 {
        return Ok(Some(()));
    }
    let nulls = fields.take(count.div_ceil(8))?.to_vec();
    // Their types come with them, always.
    if fields.u8()? != 1 {
        return Ok(None);
    }
    let mut types = Vec::new();
    for _ in 0..count {
        types.push(fields.u16()?);
        fields.bytes()?;
    }
    for (index, kind) in types.iter().enumerate() {
        if nulls[index / 8] & 1 << (index % 8) != 0 {
            continue;
        }
        let length = match kind & 0xff {
            0x06 => 0,
            0x01 => 1,
            0x02 | 0x0d => 2,
            0x03 | 0x04 | 0x09 => 4,
            0x05 | 0x08 => 8,
            // Times say how long they are.
            0x07 | 0x0a | 0x0b | 0x0c => usize::from(fields.u8()?),
            0x00 | 0x0f | 0x10 | 0xf5..=0xff => {
                fields.bytes()?;
                0
            }
            _ => return Ok(None),
        };
        fields.take(length)?;
    }
    Ok(Some(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_stands_behind_attributes_of_every_type() {
        let plain = [&[3, 0, 1][..], b"select 1"].concat();
        assert_eq!(query_text_start(&plain), Some(3));
        // A NULL, a text, a number and a time, each with a name.
        let head = [3, 4, 1, 0b0001, 1, 0xfd, 0, 1, b'a', 0xfe, 0, 1, b'b', 8, 0, 1, b'c', 12, 0, 0];
        let values = [3, b'x', b'y', b'z', 7, 0, 0, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4];
        let some = [&head[..], &values, b"select 2"].concat();
        assert_eq!(query_text_start(&some), Some(head.len() + values.len()));
        for end in 1..head.len() + values.len() {
            assert_eq!(query_text_start(&some[..end]), None, "{end}");
        }
        // Two sets of values, no types, and a type that nobody knows.
        assert_eq!(query_text_start(&[3, 0, 2, b'x']), None);
        assert_eq!(query_text_start(&[3, 1, 1, 0, 0, b'x']), None);
        assert_eq!(query_text_start(&[3, 1, 1, 0, 1, 0x50, 0, 0, b'x']), None);
    }
}
