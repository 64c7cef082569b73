//! What can go wrong with a journal, and what to do then.

use base::{Blame, Code, Fault, Retry};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("failed to {action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    /// Sealed data is not what was written. Nothing behind it is read, and nothing is cut off.
    #[error("journal segment `{}` is corrupt at byte {offset}: {reason}", segment.display())]
    Corrupt { segment: PathBuf, offset: u64, reason: String },

    #[error("journal segment `{}` has format version {version}; this program reads versions up to {}", segment.display(), crate::FORMAT_VERSION)]
    Format { segment: PathBuf, version: u16 },

    #[error("journal `{}` is in use by another process", dir.display())]
    Locked { dir: PathBuf },

    #[error("there is no journal in `{}`", dir.display())]
    NotFound { dir: PathBuf },

    /// Retention has removed the wanted changes.
    #[error("change {wanted} is no longer in the journal, which begins at {first_lsn}")]
    Pruned { wanted: u64, first_lsn: u64 },

    /// A sync failed earlier: nobody knows what the disk holds of the unsealed data, so nothing more is written.
    #[error("journal `{}` takes no more changes, because an earlier sync failed", dir.display())]
    Poisoned { dir: PathBuf },

    #[error(
        "a record of {bytes} bytes is larger than the limit of {} bytes",
        crate::limits::RECORD_BYTES_MAX
    )]
    TooLarge { bytes: u64 },

    /// The caller broke an ordering rule of the journal: our bug.
    #[error("a batch does not fit the journal: {reason}")]
    Misuse { reason: String },
}

impl JournalError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether a file that was there before is gone.
    pub(crate) fn is_missing_file(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn corrupt(segment: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { segment: segment.to_owned(), offset, reason: reason.into() }
    }

    pub(crate) fn misuse(reason: impl Into<String>) -> Self {
        Self::Misuse { reason: reason.into() }
    }
}

impl Fault for JournalError {
    fn code(&self) -> Code {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    Code::Exhausted
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::PermissionDenied,
                io::ErrorKind::NotFound => Code::NotFound,
                _ => Code::Internal,
            },
            Self::Corrupt { .. } | Self::Poisoned { .. } | Self::Misuse { .. } => Code::Internal,
            Self::Format { .. } | Self::Pruned { .. } | Self::Locked { .. } => Code::FailedPrecondition,
            Self::NotFound { .. } => Code::NotFound,
            Self::TooLarge { .. } => Code::Exhausted,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Locked { .. } | Self::NotFound { .. } | Self::Format { .. } => Blame::Client,
            _ => Blame::Us,
        }
    }

    fn retry(&self) -> Retry {
        match self.code() {
            Code::Exhausted if !matches!(self, Self::TooLarge { .. }) => Retry::Backoff,
            _ if matches!(self, Self::Locked { .. } | Self::Poisoned { .. }) => Retry::Backoff,
            _ => Retry::Never,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { .. } if self.code() == Code::Exhausted => {
                "free space on that disk or shorten the retention; nothing that was sealed is lost".to_owned()
            }
            Self::Io { path, .. } if self.code() == Code::PermissionDenied => {
                format!("let the user that runs this program write `{}`", path.display())
            }
            Self::Io { .. } | Self::Misuse { .. } => return None,
            Self::Corrupt { segment, .. } => format!(
                "check the disk, then restore `{}` from a backup; without one, move the journal's directory away and \
                 let the source be snapshotted again",
                segment.display()
            ),
            Self::Format { .. } => "run the version of the program that wrote it, or a newer one".to_owned(),
            Self::Locked { .. } => "another process runs on the same data: stop it first".to_owned(),
            Self::NotFound { .. } => {
                "check the path; a journal appears when its source first runs".to_owned()
            }
            Self::Pruned { .. } => {
                "snapshot again, and lengthen the retention if this happens often".to_owned()
            }
            Self::Poisoned { .. } => {
                "check the disk; opening the journal again drops what was not sealed".to_owned()
            }
            Self::TooLarge { .. } => "leave the table with such rows out of the source".to_owned(),
        })
    }
}
