//! `mode: full`: every row into a table beside the dataset's, which then takes its place.

use crate::error::CollectError;
use crate::reader::{Described, Reader, Scope};
use crate::table::{Every, Work};

pub async fn run(
    work: &mut Work<'_>,
    reader: &mut dyn Reader,
    described: &Described,
) -> Result<(), CollectError> {
    let shadow = work.make_shadow().await?;
    let mut batches = reader.read(described, Scope::All).await?;
    let sum = work.load(&mut batches, &shadow, false, &mut Every).await?;
    work.check_zero(sum.rows)?;
    work.must_match(&shadow, "", sum).await?;
    work.pace.check()?;
    // First the state: a table without it would be someone else's.
    work.engine.write(vec![work.state(None)?]).await?;
    work.swap().await
}
