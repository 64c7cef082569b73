//! Changes as JSON lines in files: `<flow>-<first lsn>.jsonl`, rotated by size, synced before they are acknowledged.
//!
//! The files are their own progress: the last change that the last file holds. A change that was parked comes late,
//! behind newer ones. A torn line after a crash is cut off. `<flow>.journal` holds the identity of the journal that the lines are of, in hexadecimal; when a
//! flow goes on from another journal, the old files move to a folder of that name.

use crate::config::FlowConfig;
use crate::deliver::sink::{Memory, Progress, Sink, SinkBatch, SinkError, Standing};
use crate::formats::{Encoder, Record};
use async_trait::async_trait;
use base::Table;
use serde::Deserialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const ROTATE_BYTES_DEFAULT: u64 = 64 << 20;
/// The tail that is searched for the last line grows from here.
const TAIL_BYTES: u64 = 1 << 20;

pub struct FilesSink {
    flow: String,
    encoder: Encoder,
    dir: PathBuf,
    rotate_bytes: u64,
    file: Option<(File, u64)>,
    /// Where `file` is.
    path: Option<PathBuf>,
    /// The journal that `progress` is of.
    journal: u64,
    /// Whether `<flow>.journal` says so too.
    journal_noted: bool,
    progress: Progress,
}

impl FilesSink {
    pub fn new(flow: &str, source: &str, dir: &Path, config: &FlowConfig) -> Self {
        Self {
            flow: flow.to_owned(),
            encoder: Encoder::new(config.options.format, source, false),
            dir: dir.to_owned(),
            rotate_bytes: config.options.rotate_bytes.map_or(ROTATE_BYTES_DEFAULT, |size| size.0.max(1)),
            file: None,
            path: None,
            journal: 0,
            journal_noted: false,
            progress: Progress::default(),
        }
    }

    fn names(&self) -> io::Result<Vec<PathBuf>> {
        let prefix = format!("{}-", self.flow);
        let mut out: Vec<PathBuf> = fs::read_dir(&self.dir)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let number = name.strip_prefix(&prefix).and_then(|n| n.strip_suffix(".jsonl"));
                number.is_some_and(|n| n.len() == 20 && n.bytes().all(|b| b.is_ascii_digit()))
            })
            .collect();
        out.sort();
        Ok(out)
    }

    /// Finds the end of what was written, and cuts off what is torn.
    fn recover(&mut self) -> io::Result<Option<Standing>> {
        fs::create_dir_all(&self.dir)?;
        self.file = None;
        let noted = match fs::read_to_string(self.journal_file()) {
            Ok(text) => u64::from_str_radix(text.trim(), 16).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        (self.journal, self.journal_noted) = (noted, noted != 0);
        while let Some(path) = self.names()?.pop() {
            let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
            let (end, line) = last_line(&mut file)?;
            file.set_len(end)?;
            if line.as_deref().and_then(progress_of).is_some() {
                let progress = newest(&mut file)?;
                file.seek(SeekFrom::End(0))?;
                file.sync_data()?;
                (self.file, self.path) = (Some((file, end)), Some(path));
                self.progress = progress;
                return Ok(Some(Standing { journal: noted, progress }));
            }
            if end > 0 {
                let message = format!("the last line of {} is not a change", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            fs::remove_file(&path)?;
        }
        self.progress = Progress::default();
        Ok(None)
    }

    fn journal_file(&self) -> PathBuf {
        self.dir.join(format!("{}.journal", self.flow))
    }

    /// Moves the files of another journal into a folder of their own, oldest first: until the last one has gone, it
    /// still tells whose they are.
    fn set_aside(&mut self) -> io::Result<()> {
        self.file = None;
        let files = self.names()?;
        if files.is_empty() {
            return Ok(());
        }
        let noted = fs::read_to_string(self.journal_file()).unwrap_or_default();
        let name = if noted.trim().is_empty() { "unknown" } else { noted.trim() };
        let folder = self.dir.join(format!("{}.{name}", self.flow));
        fs::create_dir_all(&folder)?;
        for path in files {
            fs::rename(&path, folder.join(path.file_name().unwrap_or_default()))?;
        }
        File::open(&folder)?.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    /// Before the first line of a journal: which one it is, whole or not at all.
    fn note_journal(&mut self) -> io::Result<()> {
        if self.journal_noted {
            return Ok(());
        }
        self.set_aside()?;
        let (path, fresh) = (self.journal_file(), self.dir.join(format!("{}.journal.new", self.flow)));
        let mut file = File::create(&fresh)?;
        writeln!(file, "{:016x}", self.journal)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.dir)?.sync_all()?;
        self.journal_noted = true;
        Ok(())
    }

    fn write(&mut self, batch: &SinkBatch) -> io::Result<()> {
        let mut lines = Vec::new();
        let fresh = |lsn| batch.redrive || lsn > self.progress.lsn;
        let mut first = None;
        for change in batch.changes.iter().filter(|c| fresh(c.lsn)) {
            first.get_or_insert(change.lsn);
            self.encoder.lines(&Record::of_out(change), &mut lines);
        }
        let Some(first) = first else { return Ok(()) };
        self.note_journal()?;
        // A change that comes late would name a file out of order.
        if self.file.as_ref().is_none_or(|(_, bytes)| !batch.redrive && *bytes >= self.rotate_bytes) {
            let path = self.dir.join(format!("{}-{first:020}.jsonl", self.flow));
            let file = OpenOptions::new().create_new(true).write(true).open(&path)?;
            File::open(&self.dir)?.sync_all()?;
            (self.file, self.path) = (Some((file, 0)), Some(path));
        }
        let (file, bytes) = self.file.as_mut().expect("opened above");
        let written = file.write_all(&lines).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Whatever got through is cut off again by the next `open`.
            self.file = None;
            return Err(error);
        }
        *bytes += lines.len() as u64;
        if !batch.redrive {
            self.progress = batch.up_to;
        }
        Ok(())
    }

    fn failure(&self, error: &io::Error) -> SinkError {
        let message = format!("failed to write files in {}: {error}", self.dir.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidData | io::ErrorKind::AlreadyExists => {
                SinkError::Blocked { message, hint: "check the folder, its owner and its files".into() }
            }
            _ => SinkError::Unavailable { message },
        }
    }
}

/// The end of the last whole line, and that line.
fn last_line(file: &mut File) -> io::Result<(u64, Option<String>)> {
    let len = file.seek(SeekFrom::End(0))?;
    let mut window = TAIL_BYTES;
    loop {
        let start = len.saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let Some(end) = tail.iter().rposition(|b| *b == b'\n') else {
            if start == 0 {
                return Ok((0, None));
            }
            window *= 8;
            continue;
        };
        let begin = tail[..end].iter().rposition(|b| *b == b'\n');
        if begin.is_none() && start > 0 {
            window *= 8;
            continue;
        }
        let line = String::from_utf8_lossy(&tail[begin.map_or(0, |b| b + 1)..end]).into_owned();
        return Ok((start + end as u64 + 1, Some(line)));
    }
}

/// Where a line is in its journal.
#[derive(Deserialize)]
struct Place {
    epoch: Option<u32>,
    lsn: Option<u64>,
}

/// What a line of any format that has a place says of it.
#[derive(Deserialize)]
struct Line {
    epoch: Option<u32>,
    lsn: Option<u64>,
    data: Option<Place>,
}

fn progress_of(line: &str) -> Option<Progress> {
    let line: Line = serde_json::from_str(line).ok()?;
    // A CloudEvent holds the change in its data.
    let place = line.data.unwrap_or(Place { epoch: line.epoch, lsn: line.lsn });
    Some(Progress { epoch: place.epoch?, lsn: place.lsn? })
}

/// The newest change in a file.
fn newest(file: &mut File) -> io::Result<Progress> {
    file.seek(SeekFrom::Start(0))?;
    let mut newest = Progress::default();
    for line in BufReader::new(file).lines() {
        newest = newest.max(progress_of(&line?).unwrap_or_default());
    }
    Ok(newest)
}

#[async_trait]
impl Sink for FilesSink {
    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        tokio::task::block_in_place(|| self.recover()).map_err(|error| self.failure(&error))
    }

    fn memory(&self) -> Memory {
        Memory::LastChange
    }

    fn follow(&mut self, standing: Standing) {
        self.journal_noted &= self.journal == standing.journal;
        (self.journal, self.progress) = (standing.journal, standing.progress);
    }

    fn refuses_rewind(&self) -> Option<(&'static str, &'static str)> {
        Some((
            "the files say by their lines how far the flow is",
            "read them again; or stop the node and move them away: the flow then writes them anew from the journal's start",
        ))
    }

    async fn rewind(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn probe(&mut self) -> Result<(), SinkError> {
        fs::create_dir_all(&self.dir).map_err(|error| self.failure(&error))
    }

    async fn prepare(&mut self, _tables: &[Arc<Table>]) -> Result<(), SinkError> {
        Ok(())
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        // The sync waits for the disk, and nothing else waits with it.
        tokio::task::block_in_place(|| self.write(batch)).map_err(|error| self.failure(&error))
    }

    async fn still_there(&mut self) -> Result<(), SinkError> {
        let Some(path) = self.path.as_ref().filter(|_| self.file.is_some()) else { return Ok(()) };
        if tokio::task::block_in_place(|| path.exists()) {
            return Ok(());
        }
        // What is written to a file that was removed is lost with it: what is there tells where to go on.
        let message = format!("{} was taken away", path.display());
        self.file = None;
        Err(SinkError::Unavailable { message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_tells_progress_in_both_formats() {
        let told = Some(Progress { epoch: 2, lsn: 7 });
        assert_eq!(progress_of("{\"epoch\":2,\"lsn\":7}"), told);
        assert_eq!(progress_of("{\"specversion\":\"1.0\",\"data\":{\"epoch\":2,\"lsn\":7}}"), told);
        assert_eq!(progress_of("{\"database\":\"d\"}"), None);
    }
}
