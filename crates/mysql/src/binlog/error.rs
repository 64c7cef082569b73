//! Why an event could not be read.

use base::{Blame, Code, Fault, Retry};

/// A binlog that cannot be read past this point. None of these may be skipped: a skipped event is a lost row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BinlogError {
    #[error("the {what} is cut short or malformed")]
    Malformed { what: &'static str },
    #[error("the event's checksum is {found:08x} but its bytes give {computed:08x}")]
    Checksum { found: u32, computed: u32 },
    #[error("rows arrived for table id {0} before its table map")]
    NoTableMap(u64),
    #[error("failed to decompress the {what}: {reason}")]
    Decompress { what: &'static str, reason: String },
    #[error("the {what} unpacks to {bytes} bytes, more than the {bytes_max} allowed")]
    TooLarge { what: &'static str, bytes: u64, bytes_max: u64 },
}

pub(crate) fn malformed(what: &'static str) -> BinlogError {
    BinlogError::Malformed { what }
}

impl Fault for BinlogError {
    fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::Exhausted,
            _ => Code::Internal,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Upstream
    }

    /// A checksum or a cut event may be the network's doing: the same bytes, fetched again, may be whole.
    fn retry(&self) -> Retry {
        match self {
            Self::Checksum { .. } | Self::Malformed { .. } | Self::Decompress { .. } => Retry::Backoff,
            Self::NoTableMap(_) | Self::TooLarge { .. } => Retry::Never,
        }
    }
}
