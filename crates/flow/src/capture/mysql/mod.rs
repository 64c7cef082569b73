//! Capture from MySQL (8.4 to 9.x) and MariaDB (10.11).

pub mod check;
pub mod connect;
pub(crate) mod model;
pub mod repair;
pub mod schema;
mod session;
pub(crate) mod snapshot;
mod stream;
pub(crate) mod window;
mod xa;

pub use session::{Anew, Control, MySqlSource, PARALLEL_DEFAULT, run};
pub use snapshot::CHUNK_ROWS_DEFAULT;
