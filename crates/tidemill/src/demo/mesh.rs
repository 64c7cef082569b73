//! `cargo xtask demo --mesh`: `examples/mesh` before three MySQLs that are started for it, and a shop that sells through
//! the mesh while its writer is killed by hand.

use super::mysql_server::{MySqlServer, client, free_port};
use super::{program, write, write_node};
use crate::failure::Failure;
use crate::project::Project;
use crate::start;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

const MESH: &str = include_str!("../../../../examples/mesh/mesh.yaml");
const WRITER_SQL: &str = include_str!("../../../../examples/mesh/writer.sql");
const REPLICA_SQL: &str = include_str!("../../../../examples/mesh/replica.sql");
const PROMOTE_SQL: &str = include_str!("../../../../examples/mesh/promote.sql");
const FOLLOW_SQL: &str = include_str!("../../../../examples/mesh/follow.sql");

/// Between two orders.
const PACE: Duration = Duration::from_millis(200);

/// Runs until Ctrl-C, or until the moment that `until` gives once everything has started.
pub async fn run(until: impl FnOnce() -> Option<Instant>) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(|e| Failure::io("make a temporary folder", &e))?;
    let dir = folder.path();
    let servers = Servers::start(dir).await?;
    let port = free_port().map_err(|e| Failure::io("find a free port", &e))?;
    write_node(dir, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    write(dir, "mesh.yaml", &servers.ported(MESH).replace(":7400", &format!(":{port}")))?;
    write(dir, "promote.sql", PROMOTE_SQL)?;
    write(dir, "follow.sql", &servers.ported(FOLLOW_SQL))?;
    let project = Project::load(dir).map_err(|problems| Failure::new(1, format!("{problems:?}")))?;
    let told = servers.what_to_try(dir, port)?;

    let (stop, shutdown) = watch::channel(false);
    let place = dir.to_owned();
    let (ready, is_ready) = oneshot::channel();
    let mut node = tokio::spawn(async move {
        start::run(&project, shutdown, start::Origin::default(), |address, _| {
            if let Err(failure) = write_node(&place, address) {
                eprintln!("warning: {}", failure.message);
            }
            eprintln!("{told}");
            let _ = ready.send(());
        })
        .await
    });
    let mut shop = Shop::new(port);
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = async {
            let _ = is_ready.await;
            shop.sell(until()).await;
        } => {}
        ended = &mut node => return ended.map_err(|e| Failure::new(1, e.to_string()))?,
    }
    let kept = shop.orders().await;
    let _ = stop.send(true);
    node.await.map_err(|e| Failure::new(1, e.to_string()))??;
    let kept = kept.map_err(|error| Failure::new(1, format!("the shop's orders cannot be read: {error}")))?;
    eprintln!(
        "\nthe shop closed: {} orders were confirmed, {} failed, {kept} are in the table",
        shop.sold, shop.refused
    );
    if shop.sold == 0 {
        return Err(Failure::new(4, "no order was sold through the mesh"));
    }
    Ok(())
}

/// A writer and two replicas.
struct Servers {
    writer: MySqlServer,
    replicas: [MySqlServer; 2],
}

impl Servers {
    async fn start(dir: &Path) -> Result<Self, Failure> {
        let start = async |name: &str, id: u32| {
            let dir = dir.join(name);
            std::fs::create_dir(&dir).map_err(|e| Failure::io("make MySQL's folder", &e))?;
            MySqlServer::start(&dir, id).await
        };
        let writer = start("writer", 1).await?;
        let replicas = [start("replica1", 2).await?, start("replica2", 3).await?];
        let servers = Self { writer, replicas };
        servers.writer.exec(WRITER_SQL).await?;
        for replica in &servers.replicas {
            replica.exec(&servers.ported(REPLICA_SQL)).await?;
        }
        Ok(servers)
    }

    /// A text of the example with the ports and passwords that are true here.
    fn ported(&self, text: &str) -> String {
        let ports = [(3306, &self.writer), (3307, &self.replicas[0]), (3308, &self.replicas[1])];
        let mut out = text.replace("${env:SHOP_PASSWORD}", "shop-secret");
        out = out.replace("${env:MESH_MONITOR_PASSWORD}", "monitor-secret");
        for (port, server) in ports {
            for before in [":", "_PORT = "] {
                out = out.replace(&format!("{before}{port}"), &format!("{before}{}", server.port()));
            }
        }
        out
    }

    fn what_to_try(&self, dir: &Path, port: u16) -> Result<String, Failure> {
        let client = client()?;
        let (mysql, tidemill, place) = (client.display(), program(), dir.display());
        let [first, second] = [self.replicas[0].port(), self.replicas[1].port()];
        let tool = format!("{tidemill} -C {place} mesh");
        Ok(format!(
            "\n  A shop sells through the mesh: it writes to one MySQL and reads from two.\n\n\
             \x20 connect   {mysql} -h 127.0.0.1 -P {port} -u shop -pshop-secret shop\n\
             \x20 servers   {tool} backends\n\
             \x20 counted   {tool} digests\n\
             \x20 where to  {tool} explain \"SELECT * FROM orders FOR UPDATE\"\n\n\
             \x20 Take the writer away, look at the servers, and make the first replica the writer; the shop tells what it notices:\n\n\
             \x20           kill -9 {pid}\n\
             \x20           {mysql} -h 127.0.0.1 -P {first} -u root < {place}/promote.sql\n\
             \x20           {mysql} -h 127.0.0.1 -P {second} -u root < {place}/follow.sql\n\n\
             \x20 stop      Ctrl-C; all of it is removed then\n",
            pid = self.writer.pid(),
        ))
    }
}

/// An application with one connection, to the mesh alone.
struct Shop {
    opts: Opts,
    conn: Option<Conn>,
    sold: u64,
    refused: u64,
}

impl Shop {
    fn new(port: u16) -> Self {
        let opts =
            Opts::from_url(&format!("mysql://shop:shop-secret@127.0.0.1:{port}/shop?prefer_socket=false"));
        Self { opts: opts.expect("written by us"), conn: None, sold: 0, refused: 0 }
    }

    /// Takes an order now and then; what fails is told, and the next order is tried.
    async fn sell(&mut self, until: Option<Instant>) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut trouble_since = None;
        while until.is_none_or(|until| Instant::now() < until) {
            pace.tick().await;
            let began = Instant::now();
            match self.order().await {
                Ok(()) => {
                    self.sold += 1;
                    let since: Instant = trouble_since.take().unwrap_or(began);
                    if since.elapsed() > Duration::from_secs(1) {
                        eprintln!("  shop: an order was sold after {:.1} s", since.elapsed().as_secs_f64());
                    }
                }
                Err(error) => {
                    self.refused += 1;
                    trouble_since.get_or_insert(began);
                    eprintln!(
                        "  shop: an order failed after {:.1} s: {error}",
                        began.elapsed().as_secs_f64()
                    );
                    self.conn = None;
                }
            }
        }
    }

    /// Writes an order, and reads it back, most likely from a replica.
    async fn order(&mut self) -> Result<(), mysql_async::Error> {
        let quantity = self.sold % 5 + 1;
        let conn = self.conn().await?;
        conn.query_drop(format!("INSERT INTO orders (product, quantity) VALUES ('tea', {quantity})")).await?;
        let seen: Option<u64> =
            conn.query_first("SELECT quantity FROM orders ORDER BY id DESC LIMIT 1").await?;
        if seen != Some(quantity) {
            return Err(
                std::io::Error::other(format!("the order of {quantity} was read back as {seen:?}")).into()
            );
        }
        Ok(())
    }

    async fn orders(&mut self) -> Result<u64, mysql_async::Error> {
        let count = self.conn().await?.query_first("SELECT COUNT(*) FROM orders").await?;
        Ok(count.unwrap_or_default())
    }

    async fn conn(&mut self) -> Result<&mut Conn, mysql_async::Error> {
        if self.conn.is_none() {
            self.conn = Some(Conn::new(self.opts.clone()).await?);
        }
        Ok(self.conn.as_mut().expect("made above"))
    }
}
