//! `POST /api/v1/flows/NAME:repair`: rows of the flow's source are read again by their keys and journaled.

use crate::http::{App, open_source, problem};
use crate::start::RunningFlow;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use base::{Code, TableName};
use flow::capture::mysql::repair::{KEYS_MAX, KeyText, Repair, Repaired};
use flow::patterns::Patterns;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    table: String,
    keys: Vec<KeyText>,
    #[serde(default)]
    deletes: bool,
}

pub async fn repair(app: &App, flow: &RunningFlow, body: &Bytes) -> Response {
    let sample = "send {\"table\": \"shop.orders\", \"keys\": [{\"id\": 1}]}";
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return problem(Code::Invalid, error.to_string(), sample),
    };
    let Some((db, table)) = request.table.split_once('.') else {
        return problem(Code::Invalid, format!("`{}` is no table", request.table), sample);
    };
    if request.keys.is_empty() || request.keys.len() > KEYS_MAX {
        return problem(Code::Invalid, format!("a repair is of 1 to {KEYS_MAX} keys"), sample);
    }
    let table = TableName::new(db, table);
    let carries = flow.tables.is_empty()
        || Patterns::new(&flow.tables, &[]).is_ok_and(|patterns| patterns.matches(&table));
    if !carries {
        return problem(Code::Invalid, format!("the flow does not carry `{table}`"), "see its `tables:`");
    }
    let source = match open_source(app, &flow.from) {
        Ok(source) => source,
        Err(refusal) => return *refusal,
    };
    let Some(repairs) = &source.repairs else {
        let message = format!("the source `{}` cannot be asked for a row", flow.from);
        return problem(Code::Invalid, message, "rows are repaired from MySQL and MariaDB");
    };
    let (reply, answer) = oneshot::channel();
    let repair = Repair { table: table.clone(), keys: request.keys, deletes: request.deletes, reply };
    if repairs.send(repair).await.is_err() {
        return problem(Code::Unavailable, "the source does not answer", "try again");
    }
    match answer.await {
        Ok(Ok(Repaired { rows, deleted, lsn })) => {
            axum::Json(json!({"rows": rows, "deleted": deleted, "lsn": lsn})).into_response()
        }
        Ok(Err(reason)) => problem(Code::FailedPrecondition, reason, "see `tidemill status`"),
        Err(_) => problem(Code::Unavailable, "the source is not connected", "try again"),
    }
}
