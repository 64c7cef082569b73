//! The hash of a row, of which checksums are sums: `Checkpoint` of `proto/tidemill/v1` describes it.

use proto::v1::Value;
use proto::v1::value::Kind;

pub fn row_hash(values: &[Value]) -> u64 {
    let mut bytes = Vec::with_capacity(16 * values.len());
    let long = |bytes: &mut Vec<u8>, tag: u8, value: &[u8]| {
        bytes.push(tag);
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
    };
    for value in values {
        match &value.kind {
            None | Some(Kind::Null(_)) => bytes.push(0),
            Some(Kind::Int(v)) => {
                bytes.push(1);
                bytes.extend_from_slice(&v.to_le_bytes());
            }
            Some(Kind::Uint(v)) => {
                bytes.push(2);
                bytes.extend_from_slice(&v.to_le_bytes());
            }
            Some(Kind::Double(v)) => {
                bytes.push(3);
                bytes.extend_from_slice(&v.to_le_bytes());
            }
            Some(Kind::Text(v)) => long(&mut bytes, 4, v.as_bytes()),
            Some(Kind::Bytes(v)) => long(&mut bytes, 5, v),
        }
    }
    u64::from(murmur3(&bytes, 0)) << 32 | u64::from(murmur3(&bytes, 0x9747_b28c))
}

/// MurmurHash3_x86_32.
fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let mixed = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = seed;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        hash ^= mixed(u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash ^= mixed(rest.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte)));
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
