//! The durable change log.

mod batch;
mod chunk;
pub mod disk;
mod error;
mod journal;
pub mod limits;
mod reader;
mod record;
mod segment;
pub mod sim;
mod state;
mod writer;

pub use batch::Batch;
pub use chunk::{Changes, Chunk};
pub use disk::{Disk, DiskFile, DiskLock, RealDisk};
pub use error::JournalError;
pub use journal::{Journal, Retention, Sealed, open_read_only};
pub use reader::Reader;
pub use record::FORMAT_VERSION;
pub use state::State;
pub use writer::{Options, Writer, open};
