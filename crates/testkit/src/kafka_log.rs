//! The log of a broker that is down: what a cut of the power would take from its end.
//!
//! ```text
//! file  = batch …
//! batch = base:i64 length:i32 leader_epoch:i32 magic:i8 crc:u32 attributes:i16 …      (length: what follows it)
//! ```

use std::fs::{self, File};

use anyhow::{Context, Result, bail};

use crate::kafka::Kafka;

/// Of `attributes`: the batch ends a transaction.
const CONTROL: i16 = 0x20;
const HEAD: usize = 12;
const ATTRIBUTES: usize = 21;

impl Kafka {
    /// Takes the last batch from the end of a partition's log, as if it had never been written there; whether it was the end
    /// of a transaction. The broker must be down.
    pub fn forget_last_batch(&self, topic: &str, partition: i32) -> Result<bool> {
        if self.is_running() {
            bail!("the broker runs");
        }
        let folder = self.data_dir().join(format!("{topic}-{partition}"));
        let entries =
            fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let last = files.filter(|path| path.extension().is_some_and(|it| it == "log")).max();
        let last = last.context("the partition has no log")?;
        let bytes = fs::read(&last)?;
        let (mut at, mut attributes, mut begins) = (0, 0, 0);
        while let Some(length) = bytes.get(at + 8..at + HEAD) {
            let length = usize::try_from(i32::from_be_bytes(length.try_into().expect("four bytes")))?;
            let two = bytes.get(at + ATTRIBUTES..at + ATTRIBUTES + 2).context("a torn batch")?;
            (attributes, begins) = (i16::from_be_bytes(two.try_into().expect("two bytes")), at);
            at += HEAD + length;
        }
        File::options().write(true).open(&last)?.set_len(begins as u64)?;
        Ok(attributes & CONTROL != 0)
    }
}
