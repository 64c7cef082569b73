//! Keys of TiDB's tables as PD sees them.
//!
//! A table with id `n` has all its rows and index entries behind `t`, the id as eight bytes in an order-preserving form; PD
//! has such keys in the memory-comparable encoding of byte strings: groups of eight bytes, each followed by 255 less the
//! number of bytes that pad it.

/// Bytes of one group of the encoding.
const GROUP: usize = 8;

/// The memory-comparable encoding of bytes.
pub fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity((bytes.len() / GROUP + 1) * (GROUP + 1));
    // A text that fills its last group is followed by an empty one.
    for group in 0..=bytes.len() / GROUP {
        let part = &bytes[group * GROUP..bytes.len().min((group + 1) * GROUP)];
        out.extend_from_slice(part);
        let padding = GROUP - part.len();
        out.resize(out.len() + padding, 0);
        out.push(255 - padding as u8);
    }
    out
}

/// The keys of a table or partition: from the first to behind the last.
pub fn table_range(id: i64) -> (Vec<u8>, Vec<u8>) {
    (table_prefix(id), table_prefix(id + 1))
}

fn table_prefix(id: i64) -> Vec<u8> {
    // The sign bit is flipped, so that numbers sort as bytes do.
    let sorted = (id as u64) ^ (1 << 63);
    let mut key = vec![b't'];
    key.extend_from_slice(&sorted.to_be_bytes());
    encode_bytes(&key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::hex;
    use proptest::prelude::*;

    #[test]
    fn keys_are_those_that_tidb_writes() {
        // `t` and 70, as TiDB 8.5 names the start of a table's rule.
        assert_eq!(hex::encode(&table_range(70).0), "7480000000000000ff4600000000000000f8");
        assert_eq!(hex::encode(&encode_bytes(b"")), "0000000000000000f7");
        assert_eq!(hex::encode(&encode_bytes(b"12345678")), "3132333435363738ff0000000000000000f7");
    }

    proptest! {
        #[test]
        fn encoded_bytes_sort_as_the_bytes_do(one: Vec<u8>, other: Vec<u8>) {
            prop_assert_eq!(encode_bytes(&one).cmp(&encode_bytes(&other)), one.cmp(&other));
        }
    }
}
