//! `cargo xtask demo`: a small shop whose orders flow, with nothing else installed.

use crate::failure::Failure;
use crate::project::Project;
use crate::{init, start};
use rusqlite::{Connection, params};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::watch;

#[derive(clap::Args)]
pub struct DemoArgs {
    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
}

/// Orders a second.
const PACE: u64 = 5;

pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(|e| Failure::io("make a temporary folder", &e))?;
    let dir = folder.path();
    init::run(dir, true)?;
    write(dir, "tidemill.yaml", "name: shop\nlisten:\n  http: 127.0.0.1:0\n")?;
    write(dir, "sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n")?;
    write(
        dir,
        "flows/shop_to_copy.yaml",
        "from: shop\ntables: [shop.orders]\nto: copy\ntransform:\n  - mask: {phone: partial}\n",
    )?;
    write(dir, "sinks/screen.yaml", "kind: stdout\n")?;
    write(
        dir,
        "flows/shop_to_screen.yaml",
        "from: shop\ntables: [shop.orders]\nto: screen\ntransform:\n  - mask: {phone: partial}\n",
    )?;
    let shop = make_shop(&dir.join("shop.db"))
        .map_err(|e| Failure::new(1, format!("failed to make the shop: {e}")))?;
    let project = Project::load(dir).map_err(|problems| Failure::new(1, format!("{problems:?}")))?;

    let (stop, shutdown) = watch::channel(false);
    let mut ended = shutdown.clone();
    let node = tokio::spawn(async move {
        start::run(&project, shutdown, |address| {
            eprintln!("the shop's orders flow: SQLite → journal → {{files, a second SQLite, this screen}}");
            eprintln!("status:  http://{address}/api/v1/status");
            eprintln!("metrics: http://{address}/metrics");
            eprintln!("stop with Ctrl-C\n");
        })
        .await
    });
    let until = args.seconds.map(|s| Instant::now() + Duration::from_secs(s));
    let writer = tokio::task::spawn_blocking(move || write_orders(shop, until, &mut ended));
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = writer => {}
    }
    // What was written last is on its way: a moment for it to arrive.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let _ = stop.send(true);
    let ran = node.await.map_err(|e| Failure::new(1, e.to_string()))?;
    let _ = std::io::stdout().flush();
    ran?;
    summary(dir)
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), Failure> {
    fs::write(dir.join(name), text).map_err(|e| Failure::io(&format!("write {name}"), &e))
}

fn make_shop(path: &Path) -> rusqlite::Result<Connection> {
    let shop = Connection::open(path)?;
    shop.execute_batch(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL NOT NULL);
         CREATE TABLE orders (id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL, quantity INTEGER NOT NULL,
                              phone TEXT, status TEXT NOT NULL);
         INSERT INTO products VALUES (1, 'tea', 4.5), (2, 'rice', 12.0), (3, 'noodles', 3.25);",
    )?;
    Ok(shop)
}

fn write_orders(shop: Connection, until: Option<Instant>, ended: &mut watch::Receiver<bool>) {
    let mut id = 0_u64;
    while !*ended.borrow() && until.is_none_or(|until| Instant::now() < until) {
        id += 1;
        let phone = format!("138{:08}", id * 7919 % 100_000_000);
        let placed = shop.execute(
            "INSERT INTO orders VALUES (?1, ?2, ?3, ?4, 'new')",
            params![id as i64, (id % 3 + 1) as i64, (id % 5 + 1) as i64, phone],
        );
        let paid = shop.execute("UPDATE orders SET status = 'paid' WHERE id = ?1", [id as i64 - 3]);
        let gone = shop.execute("DELETE FROM orders WHERE id = ?1", [id as i64 - 20]);
        if let Err(error) = placed.and(paid).and(gone) {
            eprintln!("the shop could not write: {error}");
        }
        std::thread::sleep(Duration::from_millis(1000 / PACE));
    }
}

/// Compares both ends, as a promise kept.
fn summary(dir: &Path) -> Result<(), Failure> {
    let count = |file: &str| -> rusqlite::Result<(i64, i64)> {
        let db = Connection::open(dir.join(file))?;
        db.query_row("SELECT count(*), coalesce(sum(quantity), 0) FROM orders", [], |r| {
            Ok((r.get(0)?, r.get(1)?))
        })
    };
    let failed = |e: rusqlite::Error| Failure::new(1, format!("failed to compare both ends: {e}"));
    let (source, copy) = (count("shop.db").map_err(failed)?, count("copy.db").map_err(failed)?);
    eprintln!("\norders in the shop: {}, in the copy: {}", source.0, copy.0);
    if source == copy { Ok(()) } else { Err(Failure::new(4, "the copy differs from the shop")) }
}
