//! Tables of every type, read, streamed, and copied into every SQL sink.

use super::columns::{document, numbers, others, texts, times};
use super::{Node, Wide, delivered, project, run, session, settle, sinks_agree};
use std::collections::HashMap;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

/// Rows that the stream inserts have ids from here on.
const STREAMED: usize = 100;

fn tables(mariadb: bool) -> Vec<Wide> {
    let table = |name, specs, keyed| Wide { name, specs, keyed };
    vec![
        table("numbers", numbers(), true),
        table("times", times(), true),
        table("texts", texts(mariadb), true),
        table("others", others(mariadb), true),
        table("loose_numbers", numbers(), false),
        table("loose_times", times(), false),
        table("loose_texts", texts(mariadb), false),
        table("loose_others", others(mariadb), false),
    ]
}

/// Makes the tables, the rows of the snapshot, and what the server prints for each.
async fn fill(server: &SqlServer, tables: &[Wide]) -> HashMap<&'static str, Vec<Vec<Option<String>>>> {
    let mut conn = session(server).await;
    run(&mut conn, "CREATE DATABASE shop").await;
    let mut out = HashMap::new();
    for table in tables {
        run(&mut conn, &table.create()).await;
        run(&mut conn, "START TRANSACTION").await;
        for row in 0..table.rows() {
            run(&mut conn, &table.insert(row, row + 1)).await;
        }
        run(&mut conn, "COMMIT").await;
        let mut rows = table.printed(&mut conn, "shop").await;
        table.with_documents(&mut rows, document);
        out.insert(table.name, rows);
    }
    out
}

/// Inserts every row again, and makes each its successor; a transaction a table. The count of changes.
async fn change(server: &SqlServer, tables: &[Wide]) -> u64 {
    let mut conn = session(server).await;
    let mut changes = 0;
    for table in tables {
        run(&mut conn, "START TRANSACTION").await;
        for row in 0..table.rows() {
            run(&mut conn, &table.insert(row, STREAMED + row)).await;
            run(&mut conn, &table.update((row + 1) % table.rows(), STREAMED + row)).await;
            changes += 2;
        }
        run(&mut conn, "COMMIT").await;
    }
    changes
}

/// Deletes every other row, of both kinds. The count of changes.
async fn delete(server: &SqlServer, tables: &[Wide]) -> u64 {
    let mut conn = session(server).await;
    let mut changes = 0;
    for table in tables {
        let rows = (0..table.rows()).step_by(2);
        let ids: Vec<String> =
            rows.flat_map(|row| [row + 1, STREAMED + row]).map(|id| id.to_string()).collect();
        run(&mut conn, &format!("DELETE FROM shop.{} WHERE id IN ({})", table.name, ids.join(","))).await;
        changes += ids.len() as u64;
    }
    changes
}

/// Compares every image in the journal with what the server printed for the row.
fn images(
    node: &Node,
    source: &str,
    tables: &[Wide],
    printed: &HashMap<&str, Vec<Vec<Option<String>>>>,
) -> Vec<String> {
    let mut out = Vec::new();
    for change in node.changes(source) {
        let table = tables.iter().find(|t| t.name == change["table"]).unwrap();
        for side in ["before", "after"] {
            let image = &change[side];
            let Some(id) = image["id"].as_u64() else { continue };
            let id = id as usize;
            let shift = usize::from(
                change["op"] == "delete" && id >= STREAMED || change["op"] == "update" && side == "after",
            );
            let row = if id >= STREAMED { (id - STREAMED + shift) % table.rows() } else { id - 1 };
            let ours = table.specs.iter().enumerate().map(|(n, spec)| spec.ours(&image[format!("c{n}")]));
            let ours: Vec<Option<String>> =
                std::iter::once(Some((row + 1).to_string())).chain(ours).collect();
            let what = format!("{source} {} {side}", change["op"]);
            out.extend(table.differences(&what, &[printed[table.name][row].clone()], &[ours]));
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_has_one_image_and_one_value_in_every_sink() {
    let (my, ma, ti) = tokio::join!(
        MySql::start(MySqlOptions::default()),
        MariaDb::start(MariaDbOptions::default()),
        TiDb::start(TiDbOptions::default()),
    );
    let (my, ma, ti) = (my.unwrap(), ma.unwrap(), ti.unwrap());
    let (of_my, of_ma) = (tables(false), tables(true));
    let (printed_my, printed_ma) = (fill(&my, &of_my).await, fill(&ma, &of_ma).await);
    let sinks: [(&str, &str, &SqlServer); 3] =
        [("my", "mysql", &my), ("ma", "mysql", &ma), ("ti", "tidb", &ti)];
    let mut node = project(&[("my", &my), ("ma", &ma)], &sinks, "");
    node.start();
    let lsn = |tables: &[Wide]| tables.iter().map(|t| t.rows() as u64).sum::<u64>();
    let (mut lsn_my, mut lsn_ma) = (lsn(&of_my), lsn(&of_ma));
    delivered(&node, &[("my", lsn_my), ("ma", lsn_ma)]).await;
    let mut differences = Vec::new();
    for deleting in [false, true] {
        let work = if deleting {
            (delete(&my, &of_my).await, delete(&ma, &of_ma).await)
        } else {
            (change(&my, &of_my).await, change(&ma, &of_ma).await)
        };
        (lsn_my, lsn_ma) = (lsn_my + work.0, lsn_ma + work.1);
        delivered(&node, &[("my", lsn_my), ("ma", lsn_ma)]).await;
        differences.extend(sinks_agree(&node, ("my", &my), &of_my, &sinks).await);
        differences.extend(sinks_agree(&node, ("ma", &ma), &of_ma, &sinks).await);
    }
    differences.extend(images(&node, "my", &of_my, &printed_my));
    differences.extend(images(&node, "ma", &of_ma, &printed_ma));
    settle(differences);
}
