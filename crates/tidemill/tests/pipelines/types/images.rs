//! Tables of every type, read, streamed, and copied into every SQL sink.

use super::columns::{document, loose_document, numbers, others, texts, times};
use super::{Kind, Node, Wide, delivered, project, run, session};
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
        for row in 0..table.rows() {
            run(&mut conn, &table.insert(row, row + 1)).await;
        }
        let mut rows = table.printed(&mut conn, "shop").await;
        table.with_documents(&mut rows, document);
        out.insert(table.name, rows);
    }
    out
}

/// Inserts every row again, and makes each its successor. The count of changes.
async fn change(server: &SqlServer, tables: &[Wide]) -> u64 {
    let mut conn = session(server).await;
    let mut changes = 0;
    for table in tables {
        for row in 0..table.rows() {
            run(&mut conn, &table.insert(row, STREAMED + row)).await;
            run(&mut conn, &table.update((row + 1) % table.rows(), STREAMED + row)).await;
            changes += 2;
        }
    }
    changes
}

async fn delete(server: &SqlServer, tables: &[Wide]) -> u64 {
    let mut conn = session(server).await;
    let mut changes = 0;
    for table in tables {
        for row in (0..table.rows()).step_by(2) {
            run(
                &mut conn,
                &format!("DELETE FROM shop.{} WHERE id IN ({}, {})", table.name, row + 1, STREAMED + row),
            )
            .await;
            changes += 2;
        }
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

/// Compares every sink with the source.
async fn sinks_agree(
    node: &Node,
    source: (&str, &SqlServer),
    tables: &[Wide],
    sinks: &[(&str, &str, &SqlServer)],
) -> Vec<String> {
    let mut out = Vec::new();
    let mut there = session(source.1).await;
    for table in tables {
        let wanted = table.printed(&mut there, "shop").await;
        let found = table.in_file(&node.path(&format!("{}.db", source.0)));
        out.extend(table.differences(&format!("{} in the file", source.0), &wanted, &found));
        for (name, kind, sink) in sinks {
            let mut conn = session(sink).await;
            let (mut wanted, mut copy) = (wanted.clone(), table.clone());
            if *kind == "tidb" {
                let vectors = copy.specs.iter_mut().filter(|spec| spec.kind == Kind::Vector);
                vectors.for_each(|spec| spec.kind = Kind::VectorText);
            }
            let mut found = copy.printed(&mut conn, &format!("from_{}", source.0)).await;
            if *kind == "tidb" {
                for rows in [&mut wanted, &mut found] {
                    table.with_documents(rows, |text| Some(loose_document(text)));
                }
            }
            out.extend(table.differences(&format!("{} in {name}", source.0), &wanted, &found));
        }
    }
    out
}

fn settle(mut differences: Vec<String>) {
    let count = differences.len();
    differences.truncate(60);
    assert!(differences.is_empty(), "{count} differences:\n{}", differences.join("\n"));
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
    let only = std::env::var("SINKS").unwrap_or("my,ma,ti".into());
    let sinks: Vec<(&str, &str, &SqlServer)> =
        [("my", "mysql", &*my), ("ma", "mysql", &*ma), ("ti", "tidb", &*ti)]
            .into_iter()
            .filter(|s| only.contains(s.0))
            .collect();
    let mut node = project(&[("my", &my), ("ma", &ma)], &sinks, "");
    node.start();
    let lsn = |tables: &[Wide]| tables.iter().map(|t| t.rows() as u64).sum::<u64>();
    let (mut lsn_my, mut lsn_ma) = (lsn(&of_my), lsn(&of_ma));
    delivered(&node, &[("my", lsn_my), ("ma", lsn_ma)]).await;
    let mut differences = Vec::new();
    for round in 0..3 {
        eprintln!("round {round} {:?}", std::time::Instant::now());
        if round == 1 {
            lsn_my += change(&my, &of_my).await;
            lsn_ma += change(&ma, &of_ma).await;
        } else if round == 2 {
            lsn_my += delete(&my, &of_my).await;
            lsn_ma += delete(&ma, &of_ma).await;
        }
        delivered(&node, &[("my", lsn_my), ("ma", lsn_ma)]).await;
        eprintln!("del {round} {:?}", std::time::Instant::now());
        differences.extend(sinks_agree(&node, ("my", &my), &of_my, &sinks).await);
        differences.extend(sinks_agree(&node, ("ma", &ma), &of_ma, &sinks).await);
        differences.extend(images(&node, "my", &of_my, &printed_my));
        differences.extend(images(&node, "ma", &of_ma, &printed_ma));
        if !differences.is_empty() {
            break;
        }
    }
    settle(differences);
}
