//! Tables that are gone from a sink, or topics: whether all their rows come again, and who has to ask for that.
//!
//! A table may be made anew, empty, only where nothing of it is lost by that: the flow begins at its first row, or the
//! journal empties the table further on, as it does where one is read anew, truncated or dropped. The journal itself is
//! asked, so that it does not matter who had it read anew.

use super::producer::Producer;
use super::{Flow, FlowError, ProduceError, fills};
use base::{Op, TableName};
use std::collections::{BTreeSet, HashSet};

/// Bytes asked of the journal at once.
const READ_BYTES: usize = 1 << 20;

pub(super) struct Found {
    /// Tables whose rows all come again.
    pub again: Vec<TableName>,
    /// What to do for the others.
    pub hint: String,
}

/// Looks at what is delivered from `from` on. Blocks on the disk.
pub(super) fn look(flow: &Flow, gone: &[TableName], from: u64) -> Result<Found, FlowError> {
    if fills(flow, from) {
        return Ok(Found { again: gone.to_vec(), hint: "all rows come again".into() });
    }
    let mut producer = Producer::new(flow.journal.clone(), &flow.config, flow.mirror.as_ref())?;
    // The tables of the source whose rows go there, by id: names change.
    let mut feeds: HashSet<(u32, TableName)> = HashSet::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    let now = flow.journal.state().tables;
    for table in now.values() {
        if let Some(target) = producer.target(table)?.filter(|target| is_among(gone, &target.name)) {
            feeds.insert((table.id, target.name.clone()));
            names.insert(table.name.to_string());
        }
    }
    let mut emptied: HashSet<u32> = HashSet::new();
    let mut reader = flow.journal.reader(from.max(flow.journal.first_lsn())).map_err(ProduceError::from)?;
    while let Some(chunk) = reader.next(READ_BYTES).map_err(ProduceError::from)? {
        for change in chunk.changes() {
            let change = change.map_err(ProduceError::from)?;
            let ended = match (change.op, change.ddl.as_ref()) {
                (Op::Truncate, _) => Some(&change.table),
                (Op::Ddl, Some(ddl)) if ddl.after.is_none() => ddl.before.as_ref(),
                _ => None,
            };
            emptied.extend(ended.map(|table| table.id));
            // Under the name that it has here, which is not the one of today where it was renamed since.
            let before = change.ddl.as_ref().and_then(|ddl| ddl.before.as_ref());
            if let Some(table) = before
                && let Some(target) = producer.target(table)?.filter(|target| is_among(gone, &target.name))
            {
                feeds.insert((table.id, target.name.clone()));
                names.extend(now.get(&table.id).map(|table| table.name.to_string()));
            }
        }
    }
    let comes = |name: &&TableName| {
        let mut sources = feeds.iter().filter(|(_, target)| is_same(target, name)).peekable();
        sources.peek().is_some() && sources.all(|(id, _)| emptied.contains(id))
    };
    let again = gone.iter().filter(comes).cloned().collect();
    let tables: String = names.iter().map(|name| format!(" {name}")).collect();
    let hint = format!(
        "run `tidemill flow resnapshot {}{tables}`: it makes what is gone again and fills it; or put the tables back as \
         they were, from a backup, and the flow goes on by itself",
        flow.name
    );
    Ok(Found { again, hint })
}

fn is_among(names: &[TableName], name: &TableName) -> bool {
    names.iter().any(|one| is_same(one, name))
}

/// Servers may keep names in lower case.
fn is_same(one: &TableName, other: &TableName) -> bool {
    let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
    same(&one.table, &other.table) && same(&one.db, &other.db)
}
