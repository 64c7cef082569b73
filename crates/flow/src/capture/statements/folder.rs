//! The folder of a capture: which files there are, and what the next of them is. Reads only.
//!
//! The mesh deletes its oldest files, and never the newest: a file that is gone while a newer one is there was rotated away; all
//! files gone at once are a folder that somebody took away for now. A file that was begun stays open, so that its end can be
//! read although its name is gone.

use super::super::CaptureError;
use base::CapturePosition;
use mysql::captured::{FILE_HEAD_BYTES, Next, block_at, list};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that are open at once; a mesh writes one a process.
const OPEN_FILES_MAX: usize = 32;

/// What a file has next.
pub enum Found {
    /// Nothing new.
    Nothing,
    /// A block, and the offset behind it.
    Block(u64),
    /// It was read to its end, and nobody writes it any more.
    Done,
    /// The rest of it cannot be read, and nobody will mend it.
    Lost(String),
}

/// What was missed.
pub struct Look {
    /// Files of the position that will not come back.
    pub gone: Vec<String>,
    pub reason: String,
}

struct Known {
    /// `None` when the name is gone.
    size: Option<u64>,
    file: Option<File>,
    /// The size at which it had no whole block.
    torn_at: Option<u64>,
}

pub struct Folder {
    path: PathBuf,
    files: BTreeMap<Arc<str>, Known>,
}

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), files: BTreeMap::new() }
    }

    /// Files and their bytes.
    pub fn sizes(&self) -> (usize, u64) {
        (self.files.len(), self.files.values().filter_map(|known| known.size).sum())
    }

    /// In the order of their beginning.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.files.keys().cloned().collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    pub fn forget(&mut self, gone: &[String]) {
        for name in gone {
            self.files.remove(&**name);
        }
    }

    /// The position with all files that are there: after a gap, what is there is known.
    pub fn begun(&self, files: &BTreeMap<String, CapturePosition>) -> BTreeMap<String, CapturePosition> {
        let mut files = files.clone();
        for name in self.files.keys() {
            files.entry(name.to_string()).or_default();
        }
        files
    }

    /// Looks which files there are; what was missed of those that were read, by `position`.
    pub fn list(&mut self, position: &BTreeMap<String, CapturePosition>) -> Result<Vec<Look>, CaptureError> {
        let paths = match list(&self.path) {
            Ok(paths) => paths,
            // A mesh that has not captured yet has no folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound && position.is_empty() => Vec::new(),
            Err(error) => return Err(self.unreadable(error)),
        };
        for known in self.files.values_mut() {
            known.size = None;
        }
        for path in paths {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let size = match path.metadata() {
                Ok(metadata) => metadata.len(),
                // Rotated away just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.unreadable(error)),
            };
            let known = self.files.entry(name.into());
            known.or_insert(Known { size: None, file: None, torn_at: None }).size = Some(size);
        }
        // What is open can be read to its end.
        self.files.retain(|name, known| {
            let done = position.get(&**name).is_some_and(|at| at.done);
            known.size.is_some() || (known.file.is_some() && !done)
        });
        self.open_newest(position);
        Ok(self.missed(position))
    }

    fn open_newest(&mut self, position: &BTreeMap<String, CapturePosition>) {
        let mut open = self.files.values().filter(|known| known.file.is_some()).count();
        for (name, known) in self.files.iter_mut() {
            if known.file.is_some() || position.get(&**name).is_some_and(|at| at.done) {
                continue;
            }
            if open >= OPEN_FILES_MAX {
                break;
            }
            known.file = File::open(self.path.join(&**name)).ok();
            open += usize::from(known.file.is_some());
        }
    }

    fn missed(&self, position: &BTreeMap<String, CapturePosition>) -> Vec<Look> {
        let Some(newest_here) = self.files.iter().rev().find(|(_, known)| known.size.is_some()) else {
            return Vec::new();
        };
        let gone = |name: &str| !self.files.contains_key(name);
        let mut out = Vec::new();
        for (name, at) in position {
            if gone(name) && !at.done && **name < **newest_here.0 {
                let reason = format!(
                    "{name} is gone, and was read up to byte {} only",
                    at.block + u64::from(at.taken)
                );
                out.push(Look { gone: vec![name.clone()], reason });
            }
        }
        if let Some((newest, at)) = position.last_key_value()
            && gone(newest)
            && **newest < **newest_here.0
        {
            let oldest = self.files.keys().find(|name| ***name > **newest).map_or("", |name| &**name);
            let told = format!("files between {newest} and {oldest} may have come and gone");
            match out.last_mut().filter(|_| !at.done) {
                Some(look) => look.reason = format!("{}; {told}", look.reason),
                None => out.push(Look { gone: vec![newest.clone()], reason: told }),
            }
        }
        out
    }

    /// Reads what follows `at`, which is moved where nothing of the rest can be read.
    pub fn read(
        &mut self,
        name: &str,
        at: &mut CapturePosition,
        block: &mut Vec<u8>,
    ) -> Result<Found, CaptureError> {
        at.block = at.block.max(FILE_HEAD_BYTES);
        let Some(known) = self.files.get_mut(name) else { return Ok(Found::Nothing) };
        let opened;
        let file = match &known.file {
            Some(file) => file,
            None if at.done && known.size.is_some_and(|size| size <= at.block) => return Ok(Found::Nothing),
            None => match File::open(self.path.join(name)) {
                Ok(file) => {
                    opened = file;
                    &opened
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
                Err(error) => return Err(self.unreadable(error)),
            },
        };
        let size = file.metadata().map_err(|error| unreadable(&self.path, error))?.len();
        // It gets its head once it is locked.
        if size < FILE_HEAD_BYTES || (known.torn_at == Some(size) && is_written(file)) {
            return Ok(Found::Nothing);
        }
        let mut next = block_at(file, at.block, block).map_err(|error| unreadable(&self.path, error))?;
        if !matches!(next, Next::Block(_)) {
            if is_written(file) {
                known.torn_at = matches!(next, Next::Broken(_)).then_some(size);
                return Ok(Found::Nothing);
            }
            // Its writer may have written on until it was gone.
            next = block_at(file, at.block, block).map_err(|error| unreadable(&self.path, error))?;
        }
        known.torn_at = None;
        Ok(match next {
            Next::Block(next) => Found::Block(next),
            Next::End if at.done => Found::Nothing,
            Next::End => {
                at.done = true;
                known.file = None;
                Found::Done
            }
            Next::Broken(reason) => {
                let size = file.metadata().map_err(|error| unreadable(&self.path, error))?.len();
                let lost = size.saturating_sub(at.block + u64::from(at.taken));
                *at = CapturePosition { block: size.max(at.block), taken: 0, done: true };
                known.file = None;
                Found::Lost(format!("the last {lost} bytes of {name} cannot be read: {reason}"))
            }
        })
    }

    fn unreadable(&self, error: io::Error) -> CaptureError {
        unreadable(&self.path, error)
    }
}

fn unreadable(path: &Path, error: io::Error) -> CaptureError {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "only the owner of the files may read them: run the node as the user that the mesh runs as"
        }
        _ => "`path` is the folder that `capture.dir` of the mesh names",
    };
    CaptureError::unavailable(format!("failed to read the captures in {}", path.display()))
        .with_hint(hint)
        .because(error)
}

/// Whether a process still writes the file: it holds its lock.
fn is_written(file: &File) -> bool {
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = file.unlock();
            false
        }
        Err(std::fs::TryLockError::WouldBlock) => true,
        // No locks here: then nobody holds one.
        Err(std::fs::TryLockError::Error(_)) => false,
    }
}
