//! The first byte of each command.

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Quit,
    InitDatabase,
    Query,
    FieldList,
    Statistics,
    ProcessInfo,
    ProcessKill,
    Debug,
    Ping,
    ChangeUser,
    BinlogDump,
    TableDump,
    RegisterReplica,
    Prepare,
    Execute,
    LongData,
    CloseStatement,
    ResetStatement,
    SetOption,
    Fetch,
    BinlogDumpGtid,
    ResetConnection,
    Clone,
    SubscribeGroupReplication,
    /// MariaDB: one prepared statement over many rows of parameters.
    BulkExecute,
    /// One that clients may not send, which the server refuses, or that is newer than this list (above 0x21).
    Other(u8),
}

impl Command {
    pub fn of(byte: u8) -> Self {
        match byte {
            0x01 => Self::Quit,
            0x02 => Self::InitDatabase,
            0x03 => Self::Query,
            0x04 => Self::FieldList,
            0x09 => Self::Statistics,
            0x0a => Self::ProcessInfo,
            0x0c => Self::ProcessKill,
            0x0d => Self::Debug,
            0x0e => Self::Ping,
            0x11 => Self::ChangeUser,
            0x12 => Self::BinlogDump,
            0x13 => Self::TableDump,
            0x15 => Self::RegisterReplica,
            0x16 => Self::Prepare,
            0x17 => Self::Execute,
            0x18 => Self::LongData,
            0x19 => Self::CloseStatement,
            0x1a => Self::ResetStatement,
            0x1b => Self::SetOption,
            0x1c => Self::Fetch,
            0x1e => Self::BinlogDumpGtid,
            0x1f => Self::ResetConnection,
            0x20 => Self::Clone,
            0x21 => Self::SubscribeGroupReplication,
            0xfa => Self::BulkExecute,
            other => Self::Other(other),
        }
    }

    /// Commands that no server answers.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Quit | Self::LongData | Self::CloseStatement)
    }

    /// Commands after which the connection is a stream in both directions until it ends; whose answer is not known, too.
    pub fn is_stream(self) -> bool {
        matches!(
            self,
            Self::BinlogDump
                | Self::BinlogDumpGtid
                | Self::TableDump
                | Self::Clone
                | Self::SubscribeGroupReplication
        ) || matches!(self, Self::Other(byte) if byte > 0x21)
    }
}
