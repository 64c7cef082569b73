//! The source's side: its tables and rows as they are now. One file for each kind of source.

pub mod database;
mod store;
mod topics;

use super::{Mark, VerifyError, Watch};
use crate::config::{SourceConfig, SourceKind};
use async_trait::async_trait;
use base::{RowBuf, Table, TableName, Value};
use std::path::PathBuf;
use std::sync::Arc;

/// Chooses tables.
pub type Choice<'a> = &'a (dyn Fn(&TableName) -> bool + Send + Sync);

/// What is known of a source besides what it says itself.
pub struct Known {
    /// Its tables as the journal has them.
    pub tables: Vec<Arc<Table>>,
    /// A folder for what is larger than memory should be; what is put there ends with this process.
    pub scratch: PathBuf,
}

/// Why a difference may be none: the source does not prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// Its messages are in several partitions.
    Order,
    /// The topics have lost their first messages.
    Gone,
    /// The source began at the ends of its topics.
    Late,
    /// `dedup` may have left them out.
    Repeat,
    /// `dedup` passes no updates and deletes on.
    Changed,
}

impl Doubt {
    /// Completes "3 rows …".
    pub fn tell(self) -> &'static str {
        match self {
            Self::Order => {
                "are otherwise in the sink, and their messages are in several partitions, which have no order between them"
            }
            Self::Gone => {
                "of the sink have no message any more: topics that lost their first messages do not tell whether they should"
            }
            Self::Late => {
                "are not in the sink: with `start: latest` the source passed over what the topics had"
            }
            Self::Repeat => {
                "are not in the sink: whether `dedup` left them out depends on what came before them, which the source cannot be asked"
            }
            Self::Changed => {
                "of the sink are otherwise in the source, or are not there: `dedup` leaves updates and deletes out"
            }
        }
    }
}

/// The rows of a source.
#[async_trait]
pub trait Origin: Send {
    /// The tables that are `wanted`, as they are now; those that are `needed` must be readable.
    async fn tables(&mut self, wanted: Choice<'_>, needed: Choice<'_>) -> Result<Vec<Table>, VerifyError>;

    /// About how many rows a table has.
    async fn estimate(&mut self, table: &Table) -> Result<u64, VerifyError>;

    /// Before rows that must be those of now.
    async fn renew(&mut self) -> Result<(), VerifyError> {
        Ok(())
    }

    /// What a read that ended before now may have seen.
    async fn mark(&mut self) -> Result<Mark, VerifyError>;

    /// The next rows by key: fewer than `limit` at the end only.
    async fn chunk(
        &mut self,
        table: &Table,
        after: Option<&RowBuf>,
        limit: u64,
    ) -> Result<Vec<RowBuf>, VerifyError>;

    /// The rows of these keys, whose values are in the order of the table's key.
    async fn rows(&mut self, table: &Table, keys: &[&[Value]]) -> Result<Vec<RowBuf>, VerifyError>;

    /// The first `limit` rows whose `columns` have these values, and perhaps others that the server takes for equal.
    async fn linked(
        &mut self,
        table: &Table,
        _columns: &[usize],
        _values: &[&[Value]],
        _limit: usize,
    ) -> Result<Vec<RowBuf>, VerifyError> {
        Err(super::unsupported(format!("rows of `{}` cannot be found by their columns", table.name)))
    }

    /// Every row once, in any order, of one moment.
    async fn each(&mut self, table: &Table, take: &mut (dyn FnMut(RowBuf) + Send))
    -> Result<(), VerifyError>;

    /// Why a table cannot be compared.
    fn unfit(&self, _table: &Table) -> Option<String> {
        None
    }

    /// Whether the row of this key must differ where it does. It is `missing` in the sink, or `extra` there, or another.
    fn doubt(
        &mut self,
        _table: &Table,
        _key: &[Value],
        _missing: bool,
        _extra: bool,
    ) -> Result<Option<Doubt>, VerifyError> {
        Ok(None)
    }

    /// What of the source was not looked at.
    fn unchecked(&self) -> Option<String> {
        None
    }
}

/// Connects to a source; `carried` chooses the tables that are of interest.
pub async fn connect(
    name: &str,
    config: &SourceConfig,
    known: Known,
    carried: Box<dyn Fn(&TableName) -> bool + Send + Sync>,
    watch: &dyn Watch,
) -> Result<Box<dyn Origin>, VerifyError> {
    match config.kind {
        SourceKind::Mysql => Ok(Box::new(database::Database::connect(config).await?)),
        SourceKind::Kafka if config.options.format.ticdc().is_some() => {
            Err(super::unsupported(format!("the source `{name}` of TiCDC's messages cannot be compared yet")))
        }
        SourceKind::Kafka => Ok(Box::new(topics::Topics::read(name, config, known, carried, watch).await?)),
        SourceKind::Sqlite | SourceKind::Http | SourceKind::Capture => {
            Err(super::unsupported(format!("the source `{name}` cannot be compared yet")))
        }
    }
}
