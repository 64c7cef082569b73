//! Delivering again what was delivered: from which change on, and where that cannot end in the right rows.
//!
//! A rewind is noted in the catalog, and done when the sink is opened next: the sink's own progress goes back first, then
//! the catalog's, with what was parked behind it, and the note in one step. Killed anywhere between, it is done again,
//! and nothing was delivered meanwhile.
//!
//! In a sink that holds rows, old rows meet what newer ones left there. Each row ends as the source has it if its
//! table still has the columns and the name that the old rows have, and if it has a key to find the row by. A table that is read
//! anew behind the rewind is empty first. What a target refuses of the old rows, by keys of its own, is parked as ever.

use super::parked::holds_rows;
use super::producer::Producer;
use super::{Flow, FlowError};
use crate::sinks;
use base::{Change, Op};
use std::collections::HashSet;

/// Bytes asked of the journal at once.
const READ_BYTES: usize = 1 << 20;

/// From where on an operator wants changes again.
#[derive(Clone, Copy, Debug)]
pub enum RewindTo {
    /// The oldest that the journal has.
    Start,
    Lsn(u64),
}

/// A rewind that will be done.
#[derive(Clone, Copy, Debug)]
pub struct Rewound {
    /// The first change that comes again.
    pub from: u64,
    /// The last one that was delivered; 0 when the sink has not been reached yet.
    pub was: u64,
}

/// Why there is none.
#[derive(Clone, Debug)]
pub struct Refused {
    pub message: String,
    pub hint: String,
}

/// Notes a rewind durably, or says why it cannot be. Blocks on the disk: it reads all that would come again.
pub fn note(flow: &Flow, to: RewindTo) -> Result<Rewound, Refused> {
    let internal = |error: FlowError| Refused {
        hint: error.hint().unwrap_or_else(|| "see `tidemill status`".into()),
        message: base::error::chain(&error),
    };
    let rewound = bounds(flow, to)?;
    supported(flow)?;
    if holds_rows(flow) {
        let look = look(flow, rewound.from).map_err(internal)?;
        look.verdict(flow)?;
    }
    let noted = flow.catalog.set_rewind(&flow.name, flow.journal.identity(), rewound.from);
    noted.map_err(|error| internal(error.into()))?;
    tracing::info!(flow = %flow.name, from = rewound.from, was = rewound.was, "rewound");
    Ok(rewound)
}

fn bounds(flow: &Flow, to: RewindTo) -> Result<Rewound, Refused> {
    let (first, last) = (flow.journal.first_lsn(), flow.journal.sealed().lsn);
    let was = flow.status.get().lsn;
    let refused = |message: String, hint: String| Err(Refused { message, hint });
    let from = match to {
        RewindTo::Start => first,
        RewindTo::Lsn(lsn) if lsn < first => {
            return refused(
                format!("change {lsn} is gone: the oldest that the journal has is {first}"),
                format!("`--to start` begins there; `flow resnapshot {}` reads the tables anew", flow.name),
            );
        }
        RewindTo::Lsn(lsn) => lsn,
    };
    // Before the sink was reached, how far it is shows when it is.
    let end = if was > 0 { was } else { last };
    if from > end {
        return refused(
            format!("the flow is at change {end}: {from} has not been delivered yet"),
            "a rewind goes back only".into(),
        );
    }
    Ok(Rewound { from, was })
}

fn supported(flow: &Flow) -> Result<(), Refused> {
    let config = &flow.config;
    let sink = sinks::build(&flow.name, &config.from, &config.to, &flow.sink_config, config)
        .map_err(|error| Refused { message: error.to_string(), hint: "run `tidemill check`".into() })?;
    match sink.refuses_rewind() {
        None => Ok(()),
        Some((reason, hint)) => {
            let message = format!("the sink `{}` cannot be rewound: {reason}", config.to);
            Err(Refused { message, hint: hint.into() })
        }
    }
}

/// What stands in the way, of the changes that would come again.
#[derive(Default)]
struct Look {
    /// The last change that tables had another shape at, and which table.
    reshaped: Option<(u64, String)>,
    /// A table without a key, whose old rows could not be told from newer ones.
    keyless: Option<String>,
}

fn look(flow: &Flow, from: u64) -> Result<Look, FlowError> {
    let mut producer = Producer::new(flow.journal.clone(), &flow.config, flow.mirror.as_ref())?;
    let mut reader = flow.journal.reader(from).map_err(super::ProduceError::from)?;
    let tables = flow.journal.state().tables;
    let mut emptied = HashSet::new();
    let mut look = Look::default();
    while let Some(chunk) = reader.next(READ_BYTES).map_err(super::ProduceError::from)? {
        for change in chunk.changes() {
            let change = change.map_err(super::ProduceError::from)?;
            if change.op == Op::Ddl {
                look.statement(&change, &mut producer)?;
                continue;
            }
            let Some(target) = producer.target(&change.table)? else { continue };
            let name = || change.table.name.to_string();
            if tables.get(&change.table.id).is_none_or(|now| now.version != change.table.version) {
                look.reshaped = Some((change.lsn, name()));
            }
            if change.op == Op::Truncate {
                emptied.insert(change.table.id);
            }
            if target.key.is_empty() && !emptied.contains(&change.table.id) {
                look.keyless = Some(name());
            }
        }
    }
    Ok(look)
}

impl Look {
    fn statement(&mut self, change: &Change<'_>, producer: &mut Producer) -> Result<(), FlowError> {
        // A table that is made is there already.
        let Some(before) = change.ddl.as_ref().and_then(|ddl| ddl.before.as_ref()) else { return Ok(()) };
        if producer.target(before)?.is_some() {
            self.reshaped = Some((change.lsn, before.name.to_string()));
        }
        Ok(())
    }

    fn verdict(self, flow: &Flow) -> Result<(), Refused> {
        let instead =
            format!("`tidemill flow resnapshot {}` empties the tables and reads them anew", flow.name);
        if let Some((lsn, table)) = self.reshaped {
            return Err(Refused {
                message: format!(
                    "up to change {lsn}, `{table}` had other columns or another name, and the sink has those of today"
                ),
                hint: format!("rewind to {} or later; {instead}", lsn + 1),
            });
        }
        match self.keyless {
            None => Ok(()),
            Some(table) => Err(Refused {
                message: format!("`{table}` has no key, and its rows would be there twice"),
                hint: format!("rewind to before the table was read anew, as `--to start` may be; {instead}"),
            }),
        }
    }
}
