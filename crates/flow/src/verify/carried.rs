//! What rows of the source become in the sink: none, one or several, with what is nested in them.

use super::origin::Origin;
use super::{KEYS_PER_QUERY, OneTable, Pair, VerifyError};
use crate::nest::{Join, NestError};
use base::{Op, RowBuf, Value};
use std::collections::{BTreeMap, HashMap};

/// Nested rows of one query; when there are more, it asks for fewer documents' at once.
const NESTED_ROWS_MAX: usize = 50_000;

/// All that becomes of one row of the source.
pub type Carried = Vec<Vec<Value>>;

impl Pair {
    /// What the steps make of a row. One that no expression can be evaluated for is parked: it has no row in the sink.
    pub fn made_of(&self, row: &RowBuf) -> Carried {
        if self.plan.splits() {
            let rows = self.plan.apply_split(None, Some(row.view()), Op::Insert).unwrap_or_default();
            return rows.into_iter().filter_map(|row| row.after).collect();
        }
        self.plan.apply(row.view()).ok().flatten().into_iter().collect()
    }
}

impl OneTable<'_> {
    /// The same of several rows, each whole.
    pub(super) async fn carried(&mut self, rows: &[RowBuf]) -> Result<Vec<Carried>, VerifyError> {
        let mut out: Vec<Carried> = rows.iter().map(|row| self.pair.made_of(row)).collect();
        let Some(nested) = &self.pair.nested else { return Ok(out) };
        for join in nested.joins() {
            put_nested(self.origin, self.pair, join, rows, &mut out).await?;
        }
        Ok(out)
    }
}

/// Appends the value of one nested column to each row. A document that would have too many rows is parked.
async fn put_nested(
    origin: &mut dyn Origin,
    pair: &Pair,
    join: &Join,
    rows: &[RowBuf],
    out: &mut [Carried],
) -> Result<(), VerifyError> {
    let mut wanted: BTreeMap<Vec<u8>, Vec<Value>> = BTreeMap::new();
    let mut whose = Vec::with_capacity(rows.len());
    for row in rows {
        let joins = join.wanted(&pair.source, row).map_err(of_nest)?;
        whose.push(joins.map(|(bytes, values)| {
            wanted.insert(bytes.clone(), values);
            bytes
        }));
    }
    let wanted: Vec<&[Value]> = wanted.values().map(Vec::as_slice).collect();
    let found = linked(origin, join, &wanted).await?;
    for (made, whose) in out.iter_mut().zip(whose) {
        let own = whose.and_then(|bytes| found.get(&bytes)).map_or(&[][..], Vec::as_slice);
        match join.value(own) {
            Some(value) => made.iter_mut().for_each(|row| row.push(value.clone())),
            None => made.clear(),
        }
    }
    Ok(())
}

/// The nested rows that these values join.
async fn linked(
    origin: &mut dyn Origin,
    join: &Join,
    wanted: &[&[Value]],
) -> Result<HashMap<Vec<u8>, Vec<RowBuf>>, VerifyError> {
    let Some(table) = join.table() else { return Ok(HashMap::new()) };
    let columns = join.columns().map_err(of_nest)?;
    let mut out = HashMap::new();
    let mut waiting: Vec<&[&[Value]]> = wanted.chunks(KEYS_PER_QUERY).collect();
    while let Some(part) = waiting.pop() {
        let rows = origin.linked(table, &columns, part, NESTED_ROWS_MAX).await?;
        // One document has fewer, or too many in any case.
        if rows.len() >= NESTED_ROWS_MAX && part.len() > 1 {
            let (first, second) = part.split_at(part.len() / 2);
            waiting.extend([first, second]);
            continue;
        }
        out.extend(join.grouped(rows));
    }
    Ok(out)
}

pub(super) fn of_nest(error: NestError) -> VerifyError {
    VerifyError::Plan { message: error.to_string(), hint: "run `tidemill check`".into() }
}
