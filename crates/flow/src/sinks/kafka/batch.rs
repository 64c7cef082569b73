//! Record batches (format 2) as brokers store them, written once into the bytes that are sent.
//!
//! ```text
//! batch  = base_offset:i64 length:i32 leader_epoch:i32 magic:i8=2 crc:u32 attributes:i16 last_delta:i32
//!          first_ts:i64 max_ts:i64 producer_id:i64 producer_epoch:i16 base_sequence:i32 count:i32 records
//! record = length:varint attributes:i8=0 ts_delta:varint offset_delta:varint key:bytes value:bytes
//!          headers:varint (name:bytes value:bytes)*          bytes = length:varint (-1: null) …
//! ```
//!
//! The crc (CRC-32C) covers everything from the attributes on. Varints are zigzag.

use base::varint::{put_i64, take_bytes, take_i64};

const HEAD_BYTES: usize = 61;
/// Where the crc's span begins.
const ATTRIBUTES_AT: usize = 21;
const TRANSACTIONAL: i16 = 1 << 4;
const NO_LEADER_EPOCH: i32 = -1;

/// How records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Zstd,
}

impl Codec {
    const fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Zstd => 4,
        }
    }
}

/// Who writes a batch, and its place among those of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub transactional: bool,
}

/// Records for one partition, not yet numbered.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The records without their length, attributes and deltas.
    bodies: Vec<u8>,
    records: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    end: usize,
    /// The change that the record is of, by its place among those that are applied.
    change: usize,
}

impl Batch {
    pub fn push(
        &mut self,
        change: usize,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) {
        put_bytes(&mut self.bodies, key);
        put_bytes(&mut self.bodies, value);
        put_i64(&mut self.bodies, headers.len() as i64);
        for (name, value) in headers {
            put_bytes(&mut self.bodies, Some(name.as_bytes()));
            put_bytes(&mut self.bodies, Some(value));
        }
        self.records.push(Mark { end: self.bodies.len(), change });
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn bytes(&self) -> usize {
        self.bodies.len()
    }

    /// The change that the first record is of.
    pub fn first_change(&self) -> Option<usize> {
        self.records.first().map(|mark| mark.change)
    }

    /// The key of the first record.
    pub fn first_key(&self) -> Option<&[u8]> {
        let mut rest = &self.bodies[..];
        let length = usize::try_from(take_i64(&mut rest)?).ok()?;
        take_bytes(&mut rest, length)
    }

    /// The two halves of a batch of several records.
    pub fn split(self) -> (Self, Self) {
        let middle = self.records.len() / 2;
        let cut = middle.checked_sub(1).map_or(0, |index| self.records[index].end);
        let mut first = self;
        let behind = first.records.split_off(middle);
        let bodies = first.bodies.split_off(cut);
        let records = behind.into_iter().map(|mark| Mark { end: mark.end - cut, ..mark }).collect();
        (first, Self { bodies, records })
    }

    /// The batch as it is sent. `ts_ms` is the time of all its records.
    pub fn encode(
        &self,
        producer: Producer,
        sequence: i32,
        ts_ms: i64,
        codec: Codec,
    ) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.bodies.len() + self.records.len() * 8);
        out.resize(HEAD_BYTES, 0);
        match codec {
            Codec::None => self.put_records(&mut out),
            Codec::Gzip => {
                let mut plain = Vec::with_capacity(self.bodies.len() + self.records.len() * 8);
                self.put_records(&mut plain);
                let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
                std::io::Write::write_all(&mut encoder, &plain)?;
                encoder.finish()?;
            }
            Codec::Zstd => {
                let mut plain = Vec::with_capacity(self.bodies.len() + self.records.len() * 8);
                self.put_records(&mut plain);
                out.extend_from_slice(&zstd::bulk::compress(&plain, zstd::DEFAULT_COMPRESSION_LEVEL)?);
            }
        }
        let too_long = |_| std::io::Error::other("a batch of more than 2 GiB");
        let length = i32::try_from(out.len() - 12).map_err(too_long)?;
        let count = i32::try_from(self.records.len()).map_err(too_long)?;
        let attributes = codec.id() | if producer.transactional { TRANSACTIONAL } else { 0 };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend(0i64.to_be_bytes());
        head.extend(length.to_be_bytes());
        head.extend(NO_LEADER_EPOCH.to_be_bytes());
        head.push(2);
        head.extend([0; 4]);
        head.extend(attributes.to_be_bytes());
        head.extend((count - 1).to_be_bytes());
        head.extend(ts_ms.to_be_bytes());
        head.extend(ts_ms.to_be_bytes());
        head.extend(producer.id.to_be_bytes());
        head.extend(producer.epoch.to_be_bytes());
        head.extend(sequence.to_be_bytes());
        head.extend(count.to_be_bytes());
        out[..HEAD_BYTES].copy_from_slice(&head);
        let crc = crc32c::crc32c(&out[ATTRIBUTES_AT..]);
        out[ATTRIBUTES_AT - 4..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
        Ok(out)
    }

    fn put_records(&self, out: &mut Vec<u8>) {
        let mut start = 0;
        for (index, mark) in self.records.iter().enumerate() {
            let body = &self.bodies[start..mark.end];
            start = mark.end;
            // Attributes and a time delta of 0, then the offset delta.
            put_i64(out, (2 + varint_len(index) + body.len()) as i64);
            out.extend_from_slice(&[0, 0]);
            put_i64(out, index as i64);
            out.extend_from_slice(body);
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_i64(out, -1),
        Some(bytes) => {
            put_i64(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

/// Bytes of a number that is not negative.
fn varint_len(value: usize) -> usize {
    let bits = usize::BITS - (value << 1).leading_zeros();
    (bits as usize).div_ceil(7).max(1)
}

/// The partition of a key as Java's default partitioner has it: murmur2 with its seed, the sign dropped.
pub fn partition_of(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions.max(1)
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mix = |k: u32| {
        let k = k.wrapping_mul(M);
        (k ^ k >> 24).wrapping_mul(M)
    };
    let (words, tail) = data.as_chunks::<4>();
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    for word in words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word));
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::records::RecordBatchDecoder;

    #[test]
    fn another_implementation_reads_what_we_write() {
        let producer = Producer { id: 77, epoch: 3, transactional: true };
        for codec in [Codec::None, Codec::Gzip, Codec::Zstd] {
            let mut batch = Batch::default();
            for index in 0..300usize {
                let value = "x".repeat(index);
                let value = (index % 5 != 0).then_some(value.as_bytes());
                batch.push(index, Some(index.to_string().as_bytes()), value, &[("lsn", b"9"), ("e", b"")]);
            }
            batch.push(300, None, Some(b"no key"), &[]);
            assert_eq!(batch.first_key(), Some(&b"0"[..]));
            let whole = batch.clone();
            let (first, second) = batch.split();
            assert_eq!((first.len(), second.len(), second.first_change()), (150, 151, Some(150)));
            for (batch, start) in [(whole, 0), (first, 0), (second, 150)] {
                let bytes = batch.encode(producer, 41, 1_795_561_825_171, codec).unwrap();
                let set = RecordBatchDecoder::decode(&mut bytes::Bytes::from(bytes)).unwrap();
                assert_eq!(set.records.len(), batch.len());
                for (index, record) in set.records.iter().enumerate() {
                    let change = start + index;
                    assert_eq!((record.offset, record.sequence), (index as i64, 41 + index as i32));
                    assert_eq!(
                        (record.producer_id, record.producer_epoch, record.transactional),
                        (77, 3, true)
                    );
                    assert_eq!(record.timestamp, 1_795_561_825_171);
                    if change == 300 {
                        assert!(record.key.is_none() && record.headers.is_empty());
                        continue;
                    }
                    assert_eq!(record.key.as_deref(), Some(change.to_string().as_bytes()));
                    assert_eq!(record.value.as_ref().map(|v| v.len()), (change % 5 != 0).then_some(change));
                    assert_eq!(record.headers[&b"lsn"[..]].as_deref(), Some(&b"9"[..]));
                }
            }
        }
    }

    #[test]
    fn keys_go_where_java_puts_them() {
        // From the tests of Kafka's own Java client.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
        assert_eq!(partition_of(b"21", 1), 0);
        assert!(partition_of(b"21", 7) < 7);
    }
}
