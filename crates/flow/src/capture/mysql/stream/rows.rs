//! Rows on their way into the batch: how a table's rows are read is decided once a table map, and each row is decoded into the
//! journal's encoding where it lies.

use super::*;

/// What a table id of the binlog stands for.
pub(super) struct Decoder {
    map: Arc<TableMap>,
    /// `None` when the table is not captured, or quarantined.
    rows: Option<(Arc<Table>, RowPlan)>,
}

impl Stream {
    pub(super) async fn take_rows(&mut self, rows: &RowsEvent<'_>) -> Result<(), CaptureError> {
        let known = self.state.decoders.get(&rows.table_id).filter(|it| Arc::ptr_eq(&it.map, &rows.map));
        let decoder = match known.map(Arc::clone) {
            Some(decoder) => decoder,
            None => {
                let Some(decoder) = self.decoder(&rows.map).await? else { return Ok(()) };
                let decoder = Arc::new(decoder);
                self.state.decoders.insert(rows.table_id, Arc::clone(&decoder));
                decoder
            }
        };
        if self.skip_marked && rows.map.table == MARKS_TABLE {
            // It is the first of its transaction's rows.
            self.txn().marked = true;
        }
        let Some((table, plan)) = &decoder.rows else { return Ok(()) };
        // Rows that are left out still make those old that a snapshot has just read; those of an XA transaction, one that may
        // begin until their commit.
        let marked = self.state.txn.as_ref().is_some_and(|txn| txn.marked);
        if marked && !self.xa.is_reading() && !self.state.tracking.contains_key(&table.name) {
            return Ok(());
        }
        if !rows.is_full_image() {
            let reason = "a row image lacks columns: binlog_row_image was not FULL".to_owned();
            self.quarantine(&table.name, reason);
            return Ok(());
        }
        let decoded = if self.xa.is_reading() {
            self.hold_rows(rows, table, plan, marked)
        } else {
            if !marked {
                self.begin();
            }
            self.decode(rows, table, plan, marked).await
        };
        match decoded {
            Ok(()) => Ok(()),
            Err(DecodeFailure::Row(error)) => {
                self.quarantine(&table.name, format!("a row image could not be read: {error}"));
                Ok(())
            }
            Err(DecodeFailure::Journal(error)) => Err(error),
        }
    }

    async fn decode(
        &mut self,
        rows: &RowsEvent<'_>,
        table: &Table,
        plan: &RowPlan,
        marked: bool,
    ) -> Result<(), DecodeFailure> {
        let (op, before, after) = match rows.kind {
            RowsKind::Insert => (Op::Insert, false, true),
            RowsKind::Update => (Op::Update, true, true),
            RowsKind::Delete => (Op::Delete, true, false),
        };
        let mark = self.state.tracking.contains_key(&table.name).then(|| self.mark());
        let mut images = rows.rows(plan);
        loop {
            let out = self.batch.start_change(op, table.id, table.version, before, after);
            let start = out.len();
            match images.next_row(out) {
                Ok(true) => {}
                Ok(false) => {
                    self.batch.cancel_change();
                    return Ok(());
                }
                Err(error) => {
                    self.batch.cancel_change();
                    return Err(DecodeFailure::Row(error));
                }
            }
            let tracking = mark.as_ref().and_then(|m| Some((m, self.state.tracking.get_mut(&table.name)?)));
            if let Some((mark, tracking)) = tracking {
                tracking.note(row_key(table, RowView(&out[start..])), mark);
            }
            if before && after {
                let out = self.batch.end_before();
                let start = out.len();
                let more = images.next_row(out);
                if !matches!(more, Ok(true)) {
                    self.batch.cancel_change();
                    let cut = mysql::BinlogError::Malformed { what: "update row pair" };
                    return Err(DecodeFailure::Row(more.err().unwrap_or(cut)));
                }
                let tracking =
                    mark.as_ref().and_then(|m| Some((m, self.state.tracking.get_mut(&table.name)?)));
                if let Some((mark, tracking)) = tracking {
                    tracking.note(row_key(table, RowView(&out[start..])), mark);
                }
            }
            if marked {
                self.batch.cancel_change();
                continue;
            }
            self.batch.finish_change();
            self.state.rows_captured += 1;
            if self.batch.len_bytes() >= BATCH_BYTES {
                self.flush().await.map_err(DecodeFailure::Journal)?;
            }
        }
    }

    /// Decides how to read the rows that follow a table map. Done once a map, not once a row. `None` when these rows are passed
    /// over, and it must be asked again.
    async fn decoder(&mut self, map: &Arc<TableMap>) -> Result<Option<Decoder>, CaptureError> {
        let name = TableName::new(map.db.clone(), map.table.clone());
        let ignored = || Ok(Some(Decoder { map: Arc::clone(map), rows: None }));
        if !self.patterns.matches(&name) || self.is_quarantined(&name) {
            return ignored();
        }
        let known = self.model.get(&name);
        if let Some(table) = &known
            && let Ok(plan) = RowPlan::new(map, table)
        {
            self.note_unnamed(map, &name);
            return Ok(Some(Decoder { map: Arc::clone(map), rows: Some((Arc::clone(table), plan)) }));
        }
        match self.may_be_explained(&name) {
            Some(true) => return Ok(None),
            Some(false) => {
                let reason = known.and_then(|table| RowPlan::new(map, &table).err());
                let reason =
                    reason.map_or_else(|| "no definition explains its rows".to_owned(), |e| e.to_string());
                self.quarantine(&name, reason);
                return ignored();
            }
            None => {}
        }
        // The definition we hold is not the one these rows were written under.
        let patterns = Arc::clone(&self.patterns);
        let found =
            self.model.reread(&mut self.lookup, &self.address, &self.server, &patterns, &name, map).await?;
        match found {
            Ok(effect) => {
                self.note_looked(&name).await?;
                self.note_unnamed(map, &name);
                self.begin();
                self.apply(effect);
                let table = self.model.get(&name).expect("the model holds what it reread");
                let plan = RowPlan::new(map, &table).expect("the model checked the plan");
                Ok(Some(Decoder { map: Arc::clone(map), rows: Some((table, plan)) }))
            }
            // Dropped or renamed since: the stream will come to that. What takes the rows along is read whole.
            Err(None) => {
                tracing::info!(source = %self.name, table = %name, "rows of a table that is gone by now are skipped");
                if self.model.get(&name).is_some() {
                    self.begin();
                    if let Some(tracking) = self.state.tracking.get_mut(&name) {
                        tracking.note_anew();
                    }
                    self.note_progress(&name, |table| {
                        (table.done, table.cursor, table.rows) = (false, None, 0);
                    });
                }
                ignored()
            }
            Err(Some(_)) if map.names.is_none() && self.refills => {
                self.pass_over(&name).await?;
                Ok(None)
            }
            Err(Some(reason)) => {
                self.quarantine(&name, reason);
                ignored()
            }
        }
    }
}
