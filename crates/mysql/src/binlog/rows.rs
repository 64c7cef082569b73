//! Row events, and the cursor that turns their images into rows of `base`.
//!
//! ```text
//! v1 = table_id:u48 flags:u16                    columns:packed bitmap [bitmap] images
//! v2 = table_id:u48 flags:u16 extra_length:u16 … columns:packed bitmap [bitmap] images
//! image = null bitmap of the columns present, then their values
//! ```
//! An update has two bitmaps, and images in pairs: before, after. Under `binlog_row_value_options = PARTIAL_JSON` an update may
//! be a partial one, whose after images say which of their JSON columns are only the changes to the image before:
//!
//! ```text
//! after = options:packed [bitmap of all JSON columns, if bit 0 of options] null bitmap … values
//! ```

use super::error::BinlogError;
use super::input::Input;
use super::plan::RowPlan;
use super::table_map::TableMap;
use std::borrow::Cow;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsKind {
    Insert,
    Update,
    Delete,
}

#[derive(Clone, Debug)]
pub struct RowsEvent<'a> {
    pub kind: RowsKind,
    pub table_id: u64,
    pub flags: u16,
    /// The table map that the images follow. The same `Arc` for as long as the server repeats the same map.
    pub map: Arc<TableMap>,
    /// Columns present in the images: of an insert the after image, else the before image.
    pub columns: &'a [u8],
    /// Columns present in an update's after images.
    pub columns_after: Option<&'a [u8]>,
    /// Whether after images may hold changes of JSON documents in place of these.
    pub is_partial_json: bool,
    pub images: Cow<'a, [u8]>,
}

impl<'a> RowsEvent<'a> {
    /// No further rows event of the statement follows, and its table maps end here.
    pub fn is_statement_end(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Every column is in every image.
    pub fn is_full_image(&self) -> bool {
        let full = |bitmap: &[u8]| is_full(bitmap, self.map.column_count());
        full(self.columns) && self.columns_after.is_none_or(full)
    }

    /// The rows, in order. `plan` must be of this event's table map.
    pub fn rows<'r>(&'r self, plan: &'r RowPlan) -> RowCursor<'r> {
        RowCursor {
            plan,
            input: Input::new(&self.images, "row image"),
            columns: self.columns,
            columns_after: self.columns_after,
            after_is_next: false,
            documents: self.is_partial_json.then(Vec::new),
        }
    }
}

/// Walks the images of one event.
pub struct RowCursor<'r> {
    plan: &'r RowPlan,
    input: Input<'r>,
    columns: &'r [u8],
    columns_after: Option<&'r [u8]>,
    after_is_next: bool,
    /// Of a partial update: the JSON columns of the last image before.
    documents: Option<Vec<Option<&'r [u8]>>>,
}

impl RowCursor<'_> {
    /// Appends the next image to `out` in `base::row`'s encoding; false at the end, with nothing appended. An update
    /// yields before, after, before, after …; columns that the image lacks are written as absent.
    #[inline]
    pub fn next_row(&mut self, out: &mut Vec<u8>) -> Result<bool, BinlogError> {
        if self.input.is_empty() && !self.after_is_next {
            return Ok(false);
        }
        let present = match self.columns_after {
            Some(after) if self.after_is_next => after,
            _ => self.columns,
        };
        let is_after = self.after_is_next;
        self.after_is_next = self.columns_after.is_some() && !self.after_is_next;
        match &mut self.documents {
            None => self.plan.decode(&mut self.input, present, out)?,
            Some(documents) if is_after => {
                self.plan.decode_changed(&mut self.input, present, documents, out)?;
            }
            Some(documents) => self.plan.decode_noting(&mut self.input, present, documents, out)?,
        }
        Ok(true)
    }
}

/// Whether the first `count` bits are all set.
#[inline]
pub(super) fn is_full(bitmap: &[u8], count: usize) -> bool {
    let (whole, rest) = (count / 8, count % 8);
    let mask = (1u8 << rest) - 1;
    bitmap.len() >= count.div_ceil(8)
        && bitmap[..whole].iter().all(|byte| *byte == 0xff)
        && (rest == 0 || bitmap[whole] & mask == mask)
}
