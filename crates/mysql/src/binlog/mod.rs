//! Binlog version 4: events, table maps and row images, from MySQL 5.6 to 9.x and MariaDB 10.x to 12.x.
//!
//! ```text
//! event  = header body [crc32 LE, IEEE, over header and body]
//! header = timestamp:u32 type:u8 server_id:u32 event_size:u32 log_pos:u32 flags:u16      (19 bytes, LE)
//! ```

mod decimal;
mod describe;
mod error;
mod event;
mod gtid;
mod input;
mod json_diff;
mod jsonb;
mod maria;
mod maria_types;
mod plan;
mod reader;
mod rows;
mod table_map;
mod temporal;

pub use describe::describe_column;
pub use error::BinlogError;
pub use event::{Event, EventHeader, XaPrepare};
pub use jsonb::json_double;
pub use plan::{PlanError, RowPlan};
pub use reader::{EventReader, PAYLOAD_BYTES_MAX, verify_crc};
pub use rows::{RowCursor, RowsEvent, RowsKind};
pub use table_map::{MapCharsets, TableMap};

pub(crate) use plan::text_of;
pub(crate) use temporal::time_of_parts;
