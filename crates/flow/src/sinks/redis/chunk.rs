//! A part of a batch that one run of the script writes: keys and arguments as the script reads them.

use crate::deliver::sink::{Progress, SinkError};

/// Operations of one run, which holds up the server's other clients: a few milliseconds, also on a slow machine.
const CHUNK_OPERATIONS_MAX: usize = 64;
/// Bytes of one run, and one row more.
const CHUNK_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
pub struct Chunk {
    pub keys: Vec<Vec<u8>>,
    pub args: Vec<Vec<u8>>,
    /// The change of each operation.
    pub lsns: Vec<u64>,
    pub bytes: usize,
    /// Where the flow stands after it; `None` when progress stays.
    pub up_to: Option<Progress>,
}

impl Chunk {
    pub fn put(&mut self, lsn: u64, operation: &[u8; 1], keys: Vec<Vec<u8>>, args: Vec<Vec<u8>>) {
        self.bytes += keys.iter().chain(&args).map(Vec::len).sum::<usize>();
        self.lsns.push(lsn);
        self.keys.extend(keys);
        self.args.push(operation.to_vec());
        self.args.extend(args);
    }

    pub fn is_full(&self) -> bool {
        self.lsns.len() >= CHUNK_OPERATIONS_MAX || self.bytes >= CHUNK_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.lsns.is_empty()
    }

    /// Refuses what the server would answer with a closed connection: a text longer than it takes.
    pub fn check(&self, lsn: u64, since: (usize, usize), bytes_max: usize) -> Result<(), SinkError> {
        let longest =
            self.keys[since.0..].iter().chain(&self.args[since.1..]).map(Vec::len).max().unwrap_or(0);
        if longest <= bytes_max {
            return Ok(());
        }
        let reason =
            format!("{longest} bytes are more than the server takes ({bytes_max}: proto-max-bulk-len)");
        Err(SinkError::Row { lsn, reason })
    }
}
