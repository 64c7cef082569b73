//! What clients send besides a person's queries, recorded: each file of `tests/chatter` is one session, and each answer must
//! have the shape that a MySQL gave.

use crate::house::House;
use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::fs;
use std::path::Path;

/// What stands above a statement.
#[derive(Debug, PartialEq)]
enum Shape {
    Ok,
    Error(u16),
    /// Names, and how many rows where that does not hang on the server.
    Rows(Option<usize>, Vec<String>),
}

impl Shape {
    fn read(line: &str) -> Result<Self> {
        let text = line.strip_prefix("-- ").context("a shape stands in a comment")?;
        if text == "ok" {
            return Ok(Self::Ok);
        }
        if let Some(number) = text.strip_prefix("error ") {
            return Ok(Self::Error(number.parse()?));
        }
        let (count, names) = text
            .strip_prefix("rows ")
            .and_then(|it| it.split_once(": "))
            .context("a shape is ok, error or rows")?;
        let count = if count == "some" { None } else { Some(count.parse()?) };
        Ok(Self::Rows(
            count,
            names.replace("\\,", "\u{1}").split(", ").map(|it| it.replace('\u{1}', ",")).collect(),
        ))
    }
}

async fn heard(conn: &mut Conn, sql: &str) -> Result<(Shape, usize)> {
    let mut result = match conn.query_iter(sql).await {
        Ok(result) => result,
        Err(mysql_async::Error::Server(error)) => return Ok((Shape::Error(error.code), 0)),
        Err(other) => return Err(other.into()),
    };
    let names: Vec<String> = result.columns_ref().iter().map(|it| it.name_str().into_owned()).collect();
    if names.is_empty() {
        result.drop_result().await?;
        return Ok((Shape::Ok, 0));
    }
    let mut rows = 0;
    loop {
        match result.next().await {
            Ok(Some(_)) => rows += 1,
            Ok(None) => break,
            Err(mysql_async::Error::Server(error)) => return Ok((Shape::Error(error.code), rows)),
            Err(other) => return Err(other.into()),
        }
    }
    Ok((Shape::Rows(Some(rows), names), rows))
}

#[tokio::test]
async fn what_clients_send_is_answered_in_the_shape_they_know() -> Result<()> {
    let house = House::open().await?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chatter");
    let (mut different, mut count) = (Vec::new(), 0);
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let text = fs::read_to_string(&path)?;
        let opts = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(house.port).user(Some("bi"));
        let mut conn = Conn::new(opts.db_name(Some("ods")).prefer_socket(false)).await?;
        let mut above = "";
        for line in text.lines() {
            let Some(sql) = line.strip_suffix(';').filter(|line| !line.starts_with("-- ")) else {
                above = line;
                continue;
            };
            count += 1;
            let wanted = Shape::read(above).with_context(|| format!("{}: {above}", path.display()))?;
            let (found, rows) = heard(&mut conn, sql).await?;
            let wanted = match wanted {
                Shape::Rows(None, names) => Shape::Rows(Some(rows), names),
                wanted => wanted,
            };
            if found != wanted {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                different.push(format!("{name}: {sql}\n  {found:?}\n  {wanted:?}"));
            }
        }
        conn.disconnect().await?;
    }
    assert!(count > 100, "{count} statements");
    assert!(different.is_empty(), "{} of {count}:\n{}", different.len(), different.join("\n"));
    house.close().await
}
