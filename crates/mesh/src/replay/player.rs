//! One session of a capture, on a connection of its own.

use super::{Stage, ask};
use crate::capture::{Flags, Kind, Record};
use crate::compare;
use crate::link::Link;
use crate::target::Setting;
use mysql::protocol::{Capabilities, Command};
use mysql::sql::{self, Modes, Scan, scan};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// What the capture writes where the server was lost: there is nothing to compare with.
const LOST: u16 = 2013;

/// What an answer may take beside ten times as long as before: one that somebody ended then is ended by nobody now.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A record on its way.
pub struct Item {
    pub record: Vec<u8>,
    /// When it is to be asked; at once without.
    pub due: Option<Instant>,
    pub _room: OwnedSemaphorePermit,
}

/// A statement as both servers know it.
struct Prepared {
    number: u32,
    sql: Box<[u8]>,
    digest: u64,
}

/// The session.
pub struct Player {
    stage: Arc<Stage>,
    setting: Setting,
    link: Option<Link>,
    /// By the number in the capture.
    statements: HashMap<u32, Prepared>,
}

impl Player {
    pub fn new(stage: Arc<Stage>, first: &Record<'_>) -> Self {
        let setting = Setting { database: first.database.to_vec(), ..Setting::default() };
        Self { stage, setting, link: None, statements: HashMap::new() }
    }

    /// Asks what comes until there is no more.
    pub async fn play(mut self, mut queue: mpsc::UnboundedReceiver<Item>) {
        while let Some(Item { record, due, _room }) = queue.recv().await {
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
            if let Some((record, _)) = Record::read(&record) {
                self.one(&record).await;
            }
            self.stage.progress.done.fetch_add(record.len() as u64, Ordering::Relaxed);
        }
        if let Some(mut link) = self.link {
            let _ = link.wire.write_all(&mysql::protocol::packet(0, &[1])).await;
            link.wire.shutdown().await;
        }
    }

    fn skip(&self, why: &AtomicU64) {
        why.fetch_add(1, Ordering::Relaxed);
    }

    async fn one(&mut self, record: &Record<'_>) {
        let tally = &self.stage.clone().tally;
        if record.flags.has(Flags::LEFT_OUT) {
            return self.skip(&tally.left_out);
        }
        if record.flags.has(Flags::CUT) {
            return self.skip(&tally.cut);
        }
        let code: u8 = match record.kind {
            Kind::Begin => return self.begin(record),
            Kind::End => return,
            Kind::ChangeUser => {
                // Everything is another's: a connection of its own is what that was.
                self.link = None;
                self.statements.clear();
                self.setting.database = record.database.to_vec();
                return;
            }
            Kind::Query => 0x03,
            Kind::Prepare => 0x16,
            Kind::Execute => 0x17,
            Kind::BulkExecute => 0xfa,
            Kind::LongData => 0x18,
            Kind::Close => 0x19,
            Kind::ResetStatement => 0x1a,
            Kind::Fetch => 0x1c,
            Kind::SetOption => 0x1b,
            Kind::InitDatabase => 0x02,
            Kind::ResetConnection => 0x1f,
        };
        let is_text = matches!(record.kind, Kind::Query | Kind::Prepare);
        let scanned = is_text.then(|| scan(record.text, Modes::default()));
        if let Some(scan) = &scanned {
            if administers(scan, record.text) {
                return self.skip(&tally.administers);
            }
            if self.stage.options.read_only && !reads(scan, record.text) {
                return self.skip(&tally.writes);
            }
        }
        if self.link.is_none() && !self.connect().await {
            return self.skip(&tally.unreachable);
        }
        let Some(link) = &mut self.link else { return };
        let mut payload = vec![code];
        let mut digest = record.digest;
        let (mut sql, mut attributes) = (record.text.to_vec(), false);
        match record.kind {
            Kind::Query if link.capabilities.has(Capabilities::QUERY_ATTRIBUTES) => {
                payload.extend_from_slice(&[0, 1]);
                payload.extend_from_slice(record.text);
            }
            Kind::Execute
            | Kind::BulkExecute
            | Kind::LongData
            | Kind::Close
            | Kind::ResetStatement
            | Kind::Fetch => {
                let Some(prepared) = self.statements.get(&record.statement) else {
                    return self.skip(&tally.unprepared);
                };
                digest = prepared.digest;
                sql = prepared.sql.to_vec();
                payload.extend_from_slice(&prepared.number.to_le_bytes());
                payload.extend_from_slice(record.text);
                // With attributes its form is another one, which this server does not know.
                attributes = record.kind == Kind::Execute
                    && record.text.first().is_some_and(|flags| flags & 8 != 0)
                    && self.setting.capabilities.has(Capabilities::QUERY_ATTRIBUTES)
                    && !link.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
            }
            _ => payload.extend_from_slice(record.text),
        }
        if attributes {
            return self.skip(&tally.unprepared);
        }
        let hash = record.flags.has(Flags::HASHED);
        let patience = ANSWER_MAX + Duration::from_micros(u64::from(record.elapsed_us) * 10);
        let asked = tokio::time::timeout(patience, ask(link, Command::of(code), &payload, hash)).await;
        let told = match asked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(told) => told,
            Err(error) => {
                self.trouble(&error.to_string());
                self.link = None;
                self.statements.clear();
                return self.skip(&tally.lost);
            }
        };
        match record.kind {
            Kind::Prepare => {
                if let (Some(number), 1..) = (told.prepared, record.statement) {
                    let prepared = Prepared { number, sql: record.text.into(), digest: record.digest };
                    self.statements.insert(record.statement, prepared);
                }
            }
            Kind::Close => {
                self.statements.remove(&record.statement);
            }
            Kind::ResetConnection => self.statements.clear(),
            Kind::InitDatabase if told.answer.error == 0 => self.setting.database = record.text.to_vec(),
            _ => {}
        }
        if matches!(record.kind, Kind::Close | Kind::LongData) || record.error == LOST {
            return;
        }
        let before = compare::Answer {
            error: record.error,
            rows: record.rows,
            hash: hash.then_some(record.hash),
            elapsed_us: record.elapsed_us.into(),
        };
        // Commands without a text get one, to stand in the report.
        let own: Option<(u64, &str)> = match record.kind {
            Kind::InitDatabase => Some((2, "use a_database")),
            Kind::ResetConnection => Some((3, "reset connection")),
            Kind::SetOption => Some((4, "set option")),
            _ => None,
        };
        if let Some((own, text)) = own {
            (digest, sql) = (own, text.as_bytes().to_vec());
        }
        tally.compared.fetch_add(1, Ordering::Relaxed);
        let shown = self.stage.options.literals;
        let mut table = tally.table.lock().unwrap_or_else(PoisonError::into_inner);
        // What was prepared took another time than what was executed.
        let kind = if record.kind == Kind::Prepare { 1 } else { 0 };
        if table.add(digest ^ kind, &sql, before, told.answer, shown).is_some() {
            tally.differences.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How the session came.
    fn begin(&mut self, record: &Record<'_>) {
        if let Some((capabilities, [collation, ..])) = record.text.split_first_chunk::<8>() {
            self.setting.capabilities = Capabilities(u64::from_le_bytes(*capabilities));
            self.setting.collation = *collation;
        }
        if self.link.is_none() {
            self.setting.database = record.database.to_vec();
        }
    }

    /// Whether there is a connection now.
    async fn connect(&mut self) -> bool {
        match self.stage.target.log_in(&self.setting).await {
            Ok(mut link) => {
                if self.stage.options.read_only {
                    let sql = b"\x03set session transaction read only";
                    let attributes = link.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
                    let payload = match attributes {
                        true => [&[3, 0, 1][..], &sql[1..]].concat(),
                        false => sql.to_vec(),
                    };
                    match ask(&mut link, Command::Query, &payload, false).await {
                        Ok(told) if told.answer.error == 0 => {}
                        _ => {
                            self.trouble("the server did not take `set session transaction read only`");
                            return false;
                        }
                    }
                }
                self.link = Some(link);
                true
            }
            Err(error) => {
                self.trouble(&crate::monitor::causes(&error));
                false
            }
        }
    }

    fn trouble(&self, what: &str) {
        let mut trouble = self.stage.tally.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert_with(|| {
            format!("a connection to {} failed first with: {what}", self.stage.target.address())
        });
    }
}

/// What would hit others at the server, or its files.
fn administers(scan: &Scan, text: &[u8]) -> bool {
    use sql::Kind;
    let files =
        scan.flags.intersects(sql::Flags::INTO_FILE | sql::Flags::LOCAL_FILE | sql::Flags::GLOBAL_SCOPE);
    let several =
        scan.flags.intersects(sql::Flags::MULTI) && has_word(text, &[b"kill", b"shutdown", b"global"]);
    files || several || matches!(scan.kind, Kind::Admin | Kind::Kill | Kind::Flush)
}

/// What may be asked where nothing is to be written.
fn reads(scan: &Scan, text: &[u8]) -> bool {
    use sql::Kind;
    match scan.kind {
        // It could allow to write again.
        Kind::Set => {
            !scan.flags.intersects(sql::Flags::MULTI | sql::Flags::UNKNOWN_FUNCTION)
                && !has_word(text, &[b"transaction", b"read_only", b"transaction_read_only", b"tx_read_only"])
        }
        Kind::Use => !scan.flags.intersects(sql::Flags::MULTI),
        _ => scan.is_safe_read(),
    }
}

fn has_word(text: &[u8], words: &[&[u8]]) -> bool {
    let mut all = text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    all.any(|word| words.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hits_others_is_never_asked_and_what_writes_only_where_it_may() {
        let of = |sql: &str| {
            let scan = scan(sql.as_bytes(), Modes::default());
            (administers(&scan, sql.as_bytes()), reads(&scan, sql.as_bytes()))
        };
        for sql in [
            "kill 7",
            "shutdown",
            "flush tables with read lock",
            "set global read_only = 1",
            "select 1; kill 7",
            "select 1 into outfile '/tmp/x'",
            "load data local infile 'x' into table t",
            "purge binary logs to 'x'",
        ] {
            assert!(of(sql).0, "{sql}");
        }
        for sql in ["select 1", "set names utf8mb4", "use shop", "show tables", "set autocommit = 0"] {
            assert_eq!(of(sql), (false, true), "{sql}");
        }
        for sql in [
            "insert into t values (1)",
            "set session transaction read write",
            "begin",
            "select f(1)",
            "set @@session.transaction_read_only = 0",
            "select * from t for update",
            "call p()",
            "drop table t",
        ] {
            assert_eq!(of(sql), (false, false), "{sql}");
        }
    }
}
