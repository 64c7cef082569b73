//! `cargo xtask demo`: a small shop whose orders flow, with nothing else installed, or from a real MySQL; with `live`, to three
//! devices; or, with `--mesh`, one that sells through the SQL proxy.

mod device;
mod live;
mod mesh;
mod mysql_server;
mod shop;

use crate::failure::Failure;
use crate::project::Project;
use crate::{init, start};
use mysql_server::MySqlServer;
use rusqlite::Connection;
use shop::Shop;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

#[derive(clap::Args)]
pub struct DemoArgs {
    /// `live`: three devices that have the shop's orders; without it, flows.
    what: Option<What>,
    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Take the shop from a real MySQL, which `cargo xtask servers mysql` installs.
    #[arg(long)]
    mysql: bool,
    /// Show the SQL proxy instead: `examples/mesh` before three MySQLs, and a shop that sells through it.
    #[arg(long, conflicts_with_all = ["mysql", "what"])]
    mesh: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Three devices that have the orders: one is there from the beginning, one comes late, one leaves and comes back.
    Live,
}

impl DemoArgs {
    /// What of the node's log is of use beside what the demo prints.
    pub fn log(&self) -> &'static str {
        match self.what {
            Some(What::Live) => "warn",
            None => crate::LOG_DEFAULT,
        }
    }
}

/// How long the copy may take to catch up once the shop has closed.
const SETTLE_MAX: Duration = Duration::from_secs(20);

pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    if args.what == Some(What::Live) {
        return live::run(&args).await;
    }
    let until = || args.seconds.map(|seconds| tokio::time::Instant::now() + Duration::from_secs(seconds));
    if args.mesh {
        return mesh::run(until).await;
    }
    let folder = tempfile::tempdir().map_err(|e| Failure::io("make a temporary folder", &e))?;
    let dir = folder.path();
    init::run(dir, true)?;
    let server = if args.mysql { Some(MySqlServer::start(&dir.join("mysql"), 1).await?) } else { None };
    write_project(dir, server.as_ref())?;
    let mut shop = match &server {
        Some(server) => Shop::in_mysql(server.url()).await,
        None => Shop::in_sqlite(&dir.join("shop.db")),
    }?;
    let project = Project::load(dir).map_err(|problems| Failure::new(1, format!("{problems:?}")))?;

    let (stop, shutdown) = watch::channel(false);
    let from = if args.mysql { "MySQL" } else { "SQLite" };
    let (place, program) = (dir.to_owned(), program());
    let mut node = tokio::spawn(async move {
        start::run(&project, shutdown, start::Origin::default(), |address, _| {
            // The commands find the node by this file. That the demo runs without them is no reason to end it.
            if let Err(failure) = write_node(&place, address) {
                eprintln!("warning: {}", failure.message);
            }
            let place = place.display();
            eprintln!("\n  A small shop writes orders, and their changes flow:");
            eprintln!("  {from} → journal → {{this screen, a copy in SQLite, files}}\n");
            eprintln!("  look      http://{address}/");
            eprintln!("  metrics   http://{address}/metrics");
            eprintln!("  status    {program} -C {place} status");
            eprintln!("  project   {place}  (removed when the demo ends)");
            eprintln!("  stop      Ctrl-C\n");
        })
        .await
    });
    let until = until();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        sold = shop.sell(until) => sold?,
        // A node that ends by itself has failed.
        ended = &mut node => return ended.map_err(|e| Failure::new(1, e.to_string()))?,
    }
    let result = settle(&mut shop, dir).await;
    let _ = stop.send(true);
    let ran = node.await.map_err(|e| Failure::new(1, e.to_string()))?;
    let _ = std::io::stdout().flush();
    ran?;
    let orders = result?;
    eprintln!("\nthe shop closed with {orders} orders, and the copy has the same ones");
    Ok(())
}

fn write_project(dir: &Path, server: Option<&MySqlServer>) -> Result<(), Failure> {
    let mask = "transform:\n  - mask: {phone: partial}\n";
    let flow = |to: &str| format!("from: shop\ntables: [shop.orders]\nto: {to}\n{mask}");
    write_node(dir, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    write(dir, "sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n")?;
    write(dir, "flows/shop_to_copy.yaml", &flow("copy"))?;
    write(dir, "sinks/screen.yaml", "kind: stdout\n")?;
    write(dir, "flows/shop_to_screen.yaml", &flow("screen"))?;
    match server {
        Some(server) => write(
            dir,
            "sources/shop.yaml",
            &format!("kind: mysql\nurl: {}\ntables: [\"shop.*\"]\n", server.url()),
        ),
        // The one that `init` wrote names a file of its own; the demo's shop has other tables.
        None => fs::remove_file(dir.join("shop.db")).map_err(|e| Failure::io("empty the shop", &e)),
    }
}

fn write_node(dir: &Path, address: SocketAddr) -> Result<(), Failure> {
    write(dir, "tidemill.yaml", &format!("name: shop\nlisten:\n  http: {address}\n"))
}

/// This program as a shell finds it: `cargo xtask demo` runs one that is not on the `PATH`.
fn program() -> String {
    std::env::current_exe().map_or_else(|_| "tidemill".to_owned(), |path| path.display().to_string())
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), Failure> {
    fs::write(dir.join(name), text).map_err(|e| Failure::io(&format!("write {name}"), &e))
}

/// Waits until both ends are equal, as a promise kept; answers how many orders there are.
async fn settle(shop: &mut Shop, dir: &Path) -> Result<usize, Failure> {
    let wanted = shop.orders().await?;
    let end = tokio::time::Instant::now() + SETTLE_MAX;
    loop {
        let copied = copied_orders(&dir.join("copy.db")).unwrap_or_default();
        if copied == wanted {
            return Ok(wanted.len());
        }
        if tokio::time::Instant::now() > end {
            let message = format!("the shop has {} orders, the copy {}", wanted.len(), copied.len());
            return Err(Failure::new(4, message));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What an order is compared by: id, quantity, status.
type Order = (i64, i64, String);

fn copied_orders(path: &Path) -> rusqlite::Result<Vec<Order>> {
    let copy = Connection::open(path)?;
    let mut query = copy.prepare("SELECT id, quantity, status FROM orders ORDER BY id")?;
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    rows.collect()
}
