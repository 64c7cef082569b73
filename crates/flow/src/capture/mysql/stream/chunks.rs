//! The snapshot's side of the stream: what its readers ask, and when a chunk of theirs enters the journal. Always between
//! two transactions, and only what the stream has not overtaken; `window` says why that is exact.

use super::*;

/// How long the stream waits for the reader of a table without a key to open its view.
const KEYLESS_WAIT_MAX: Duration = Duration::from_secs(60);

impl Stream {
    pub(super) fn snapshot_runs(&self) -> bool {
        let reading = !self.state.tracking.is_empty() || !self.state.pending.is_empty();
        reading || !self.state.looked.is_empty() || !self.progress.is_done()
    }

    pub(super) async fn answer(&mut self, message: Message) -> Result<(), CaptureError> {
        match message {
            Message::Start { table, reply } => self.start_chunk(table, reply).await?,
            Message::Chunk(chunk) => self.state.pending.push(*chunk),
            Message::Refused { table, reason } => {
                self.quarantine_between(&table, reason);
            }
            Message::Look { table, reply } => self.start_look(table, reply),
            Message::Looked(looked) => self.state.looked.push(*looked),
            Message::LookEnded { table, number } => drop(self.end_look(&table, number)),
        }
        Ok(())
    }

    /// Quarantines outside of any source transaction.
    fn quarantine_between(&mut self, name: &TableName, reason: String) {
        tracing::error!(source = %self.name, table = %name, reason, "table quarantined; every other table flows on");
        self.note_progress(name, |table| table.quarantined = Some(reason));
        self.seal(Step::Stay);
        self.state.decoders.clear();
        self.state.tracking.remove(name);
        self.state.looks.remove(name);
    }

    async fn start_chunk(
        &mut self,
        name: TableName,
        reply: oneshot::Sender<Option<Begin>>,
    ) -> Result<(), CaptureError> {
        let progress = self.progress.tables.get(&name.to_string()).cloned().unwrap_or_default();
        let table = self.model.get(&name).filter(|_| !progress.done && progress.quarantined.is_none());
        let Some(table) = table else {
            if !self.state.looks.contains_key(&name) {
                self.state.tracking.remove(&name);
            }
            let _ = reply.send(None);
            return Ok(());
        };
        let processed = self.position.clone();
        if !table.key.is_empty() {
            // A look at the same table ends: what it noted is gone.
            self.state.looks.remove(&name);
            self.state.tracking.insert(name, Tracking::default());
            let begin = Begin { table, processed, cursor: progress.cursor, keyless: None };
            let _ = reply.send(Some(begin));
            return Ok(());
        }
        // The view must be opened before the stream moves on.
        let (ready, answer) = oneshot::channel();
        let begin = Begin { table: Arc::clone(&table), processed, cursor: None, keyless: Some(ready) };
        if reply.send(Some(begin)).is_ok()
            && let Ok(Ok(keyless)) = tokio::time::timeout(KEYLESS_WAIT_MAX, answer).await
        {
            self.state.keyless.push((table, keyless));
        }
        Ok(())
    }

    /// Writes the chunks whose high mark the stream has reached.
    pub(super) async fn emit_ready(&mut self) -> Result<(), CaptureError> {
        let mut index = 0;
        while index < self.state.pending.len() {
            if self.state.pending[index].high.reached_by(&self.position) {
                let chunk = self.state.pending.swap_remove(index);
                self.emit_chunk(chunk);
                if self.batch.len_bytes() >= BATCH_BYTES {
                    self.flush().await?;
                }
            } else {
                index += 1;
            }
        }
        self.emit_looked().await?;
        let mut index = 0;
        while index < self.state.keyless.len() {
            if self.state.keyless[index].1.mark.reached_by(&self.position) {
                let (table, keyless) = self.state.keyless.swap_remove(index);
                self.emit_keyless(&table, keyless).await?;
            } else {
                index += 1;
            }
        }
        Ok(())
    }

    fn emit_chunk(&mut self, chunk: Chunk) {
        let name = &chunk.table.name;
        let tracking = self.state.tracking.remove(name).unwrap_or_default();
        let verdict = match self.model.get(name) {
            Some(_) if chunk.again => Verdict::Again,
            Some(table) if table.version == chunk.table.version && table.id == chunk.table.id => {
                tracking.verdict(&chunk.low)
            }
            _ => Verdict::Restart,
        };
        let mut rows = 0;
        match verdict {
            Verdict::Again => {}
            Verdict::Restart => {
                self.note_progress(name, |table| {
                    table.cursor = None;
                    table.rows = 0;
                });
                self.seal(Step::Stay);
            }
            Verdict::Keep => {
                self.batch.begin("", now_ms());
                for row in &chunk.rows {
                    if is_current(&tracking, &chunk.table, row.view(), &chunk.low) {
                        self.batch.change(Op::Read, &chunk.table, None, Some(&row.0));
                        rows += 1;
                    }
                }
                let (estimated, cursor) = (chunk.rows_estimated, chunk.cursor.clone());
                self.note_progress(name, |table| {
                    table.rows += rows;
                    table.rows_estimated = estimated.max(table.rows);
                    table.done = cursor.is_none();
                    table.cursor = cursor;
                });
                self.seal(Step::Stay);
            }
        }
        metrics::counter!(base::metrics::SNAPSHOT_ROWS, "source" => self.name.to_string()).increment(rows);
        let _ = chunk.reply.send(());
    }

    /// All rows of a table without a key, as one transaction after its emptying. If the reader fails, none of it stays.
    async fn emit_keyless(&mut self, table: &Arc<Table>, mut keyless: Keyless) -> Result<(), CaptureError> {
        self.flush().await?;
        self.state.holds_stream = Some(table.name.to_string());
        self.state.status_at = None;
        self.show(false);
        self.batch.begin("", now_ms());
        self.batch.truncate(table);
        let mut rows = 0;
        loop {
            match keyless.blocks.recv().await {
                Some(Ok(block)) if block.is_empty() => break,
                Some(Ok(block)) => {
                    for row in &block {
                        self.batch.change(Op::Read, table, None, Some(&row.0));
                    }
                    rows += block.len() as u64;
                    if self.batch.len_bytes() >= BATCH_BYTES {
                        self.flush().await?;
                        self.show(false);
                    }
                }
                Some(Err(error)) => return Err(error),
                None => {
                    return Err(CaptureError::unavailable(format!(
                        "reading table `{}` broke off",
                        table.name
                    )));
                }
            }
        }
        self.state.holds_stream = None;
        let estimated = keyless.rows_estimated;
        self.note_progress(&table.name, |progress| {
            progress.rows = rows;
            progress.rows_estimated = estimated.max(rows);
            progress.done = true;
        });
        self.seal(Step::Stay);
        Ok(())
    }
}

fn is_current(tracking: &Tracking, table: &Table, row: RowView<'_>, low: &Mark) -> bool {
    tracking.is_current(&row_key(table, row), low)
}
