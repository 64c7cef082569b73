//! The snapshot side: what to select for a column, and the selected value in the stream's encoding.

use crate::Flavor;
use base::{Column, RowWriter};
use mysql_common::Value;

/// A selected value that does not fit its column's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` returned a value that is not a {expected}")]
pub struct BadValue {
    pub column: String,
    pub expected: String,
}

/// The expression that selects `column` so that [`put_selected`] can encode it.
pub fn select_expression(column: &Column, flavor: Flavor) -> String {
    let _ = flavor;
    format!("`{}`", column.name.replace('`', "``"))
}

/// Appends one value of a binary-protocol result, selected by [`select_expression`] on a session with
/// `character_set_results = NULL` and `time_zone = '+00:00'`. The bytes equal those of the stream's image.
pub fn put_selected(
    out: &mut RowWriter<'_>,
    value: &Value,
    column: &Column,
    flavor: Flavor,
) -> Result<(), BadValue> {
    let _ = (out, value, flavor);
    Err(BadValue { column: column.name.clone(), expected: column.sql_type.clone() })
}

/// Appends BINARY(n), padded to its size with the zero bytes that the binlog cuts off.
pub(crate) fn put_binary(out: &mut RowWriter<'_>, bytes: &[u8], size: u32) {
    let size = (size as usize).max(bytes.len());
    let raw = out.raw();
    raw.push(17);
    base::varint::put_u64(raw, size as u64);
    let end = raw.len() + size;
    raw.extend_from_slice(bytes);
    raw.resize(end, 0);
}

/// Appends MariaDB's JSON, which is text; text that is not UTF-8 stays raw.
pub(crate) fn put_json_text(out: &mut RowWriter<'_>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => out.put(base::ValueRef::Json(text)),
        Err(_) => out.put(base::ValueRef::RawText(bytes)),
    }
}
