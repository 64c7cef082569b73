//! Canal's flat messages, of one row or several. Of DDL only the emptying of a table is followed: rows tell their columns.

use super::cells::{Cells, is_null, names, number, text};
use super::{Decoded, Told, table_name};
use base::Op;

pub fn decode<'a>(message: &Cells<'a>) -> Result<Vec<Decoded<'a>>, String> {
    let kind = text(message, "type").ok_or("it has no `type` of Canal")?;
    let op = match &*kind {
        "INSERT" => Op::Insert,
        "UPDATE" => Op::Update,
        "DELETE" => Op::Delete,
        "TRUNCATE" => Op::Truncate,
        _ => return Ok(Vec::new()),
    };
    let gtid = text(message, "gtid").filter(|gtid| !gtid.is_empty()).map(|gtid| gtid.into_owned());
    let common = Decoded {
        name: table_name(message, "database", "table")?,
        op,
        before: None,
        after: None,
        key: names(message, "pkNames")?,
        told: message.get("mysqlType").filter(|raw| !is_null(*raw)).map_or(Told::Nothing, Told::Mysql),
        ts_ms: number(message, "es"),
        txn: gtid,
        last: false,
    };
    if op == Op::Truncate {
        return Ok(vec![common]);
    }
    let data = rows(message, "data")?.ok_or("it has no `data`")?;
    let old = rows(message, "old")?.unwrap_or_default();
    let change = |(index, row): (usize, Cells<'a>)| {
        let mut change = common.clone();
        match op {
            Op::Delete => change.before = Some(row),
            Op::Update => {
                // `old` has what changed, or all columns.
                change.before = old.get(index).map(|old| row.overlaid(old));
                change.after = Some(row);
            }
            _ => change.after = Some(row),
        }
        change
    };
    Ok(data.into_iter().enumerate().map(change).collect())
}

fn rows<'a>(message: &Cells<'a>, name: &str) -> Result<Option<Vec<Cells<'a>>>, String> {
    match message.get(name).filter(|raw| !is_null(*raw)) {
        None => Ok(None),
        Some(raw) => {
            serde_json::from_str(raw.get()).map(Some).map_err(|_| format!("`{name}` is not a list of rows"))
        }
    }
}
