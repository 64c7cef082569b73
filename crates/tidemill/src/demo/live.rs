//! `tidemill demo live`: a shop whose orders three devices have, each in a file of its own: one that is there from the beginning,
//! one that comes late with nothing, and one that is switched off in the middle and comes back.

use super::device::Device;
use super::mysql_server::MySqlServer;
use super::shop::Shop;
use super::{DemoArgs, SETTLE_MAX, program, write, write_node};
use crate::failure::Failure;
use crate::project::Project;
use crate::start;
use client::Totals;
use std::fs;
use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Between two statements of the shop.
const PACE: Duration = Duration::from_millis(400);
/// Statements while the story is told, where no time is given; fewer than the least are no story.
const STEPS: u64 = 30;
const STEPS_MIN: u64 = 10;
/// Orders that the shop has when it opens.
const ORDERS: i64 = 1000;
/// Longest that a device may take for one change.
const ARRIVE_MAX: Duration = Duration::from_secs(20);
const PRODUCTS: [&str; 3] = ["tea", "rice", "noodles"];

pub async fn run(args: &DemoArgs) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(|e| Failure::io("make a temporary folder", &e))?;
    let dir = folder.path();
    let server = if args.mysql { Some(MySqlServer::start(&dir.join("mysql"), 1).await?) } else { None };
    let mut shop = match &server {
        Some(server) => Shop::in_mysql(server.url()).await?,
        None => Shop::in_sqlite(&dir.join("shop.db"))?,
    };
    shop.run(&opening()).await?;
    write_project(dir, server.as_ref())?;
    let project = Project::load(dir).map_err(|problems| Failure::new(1, format!("{problems:?}")))?;
    let (stop, shutdown) = watch::channel(false);
    let (ready, is_ready) = oneshot::channel();
    let place = dir.to_owned();
    let mut node = tokio::spawn(async move {
        start::run(&project, shutdown, start::Origin::default(), |address, _| {
            if let Err(failure) = write_node(&place, address) {
                eprintln!("warning: {}", failure.message);
            }
            let _ = ready.send(address);
        })
        .await
    });
    let told = async {
        let address = is_ready.await.map_err(|_| Failure::new(1, "the node did not start"))?;
        let mut story = Story::new(shop, dir, address, args)?;
        story.introduce();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            told = story.tell(args.seconds) => told?,
        }
        story.end().await
    };
    let result = tokio::select! {
        told = told => told,
        ended = &mut node => return ended.map_err(|e| Failure::new(1, e.to_string()))?,
    };
    let _ = stop.send(true);
    node.await.map_err(|e| Failure::new(1, e.to_string()))??;
    result
}

fn opening() -> String {
    let order = |id: i64| format!("({id}, {}, {}, NULL, 'new')", id % 3 + 1, id % 5 + 1);
    let orders: Vec<String> = (1..=ORDERS).map(order).collect();
    format!("INSERT INTO orders VALUES {}", orders.join(", "))
}

fn write_project(dir: &Path, server: Option<&MySqlServer>) -> Result<(), Failure> {
    write_node(dir, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    fs::create_dir(dir.join("sources")).map_err(|e| Failure::io("make the project", &e))?;
    let place = match server {
        Some(server) => format!("kind: mysql\nurl: {}\n", server.url()),
        None => "kind: sqlite\npath: ./shop.db\n".to_owned(),
    };
    write(dir, "sources/shop.yaml", &format!("{place}tables: [\"shop.*\"]\nmirror: [\"shop.*\"]\n"))
}

struct Story<'a> {
    shop: Shop,
    dir: &'a Path,
    from: &'static str,
    devices: [Device; 3],
    begun: Instant,
    /// The next order that comes, is paid, goes.
    next: (i64, i64, i64),
}

impl<'a> Story<'a> {
    fn new(shop: Shop, dir: &'a Path, address: SocketAddr, args: &DemoArgs) -> Result<Self, Failure> {
        let url = format!("http://{address}");
        let device = |number: usize| Device::new(&url, dir.join(format!("device{number}.db")));
        Ok(Self {
            shop,
            dir,
            from: if args.mysql { "MySQL" } else { "SQLite" },
            devices: [device(1)?, device(2)?, device(3)?],
            begun: Instant::now(),
            next: (ORDERS + 1, ORDERS / 2, 1),
        })
    }

    fn introduce(&self) {
        let (program, dir) = (program(), self.dir.display());
        println!(
            "A shop keeps its orders in {}. Three devices have them too, each in a file of its own.\n",
            self.from
        );
        println!("  device 1   is on from the beginning");
        println!("  device 2   is switched on late, and has nothing then");
        println!("  device 3   is switched off in the middle, and misses what changes until it comes back\n");
        println!("  Be a fourth:  {program} -C {dir} subscribe shop --table shop.orders --into mine.db");
        println!("  Stop:         Ctrl-C\n");
        println!(
            "  time     the shop                        device 1            device 2            device 3"
        );
    }

    /// A line: what happened, and what each device has by it.
    fn line(&self, shop: &str, cells: [&str; 3]) {
        let time = format!("{:.1} s", self.begun.elapsed().as_secs_f64());
        let line = format!("  {time:<8} {shop:<31} {:<19} {:<19} {}", cells[0], cells[1], cells[2]);
        println!("{}", line.trim_end());
    }

    async fn tell(&mut self, seconds: Option<u64>) -> Result<(), Failure> {
        let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let steps = match seconds {
            Some(seconds) => (seconds * 1000 / PACE.as_millis() as u64).clamp(STEPS_MIN, STEPS),
            None => STEPS,
        };
        let (leaves, comes, returns) = (steps / 5, steps * 2 / 5, steps * 7 / 10);
        self.devices[0].switch_on().await?;
        self.devices[2].switch_on().await?;
        let has = |device: &Device| format!("{} rows", device.seen().totals.rows);
        let (one, three) = (has(&self.devices[0]), has(&self.devices[2]));
        self.line(&format!("has {ORDERS} orders"), [&one, "off", &three]);
        let mut pace = tokio::time::interval(PACE);
        for step in 0.. {
            if step >= steps && until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            pace.tick().await;
            if step == leaves {
                let lsn = self.devices[2].switch_off().lsn;
                self.line("", ["", "", &format!("is switched off. Its token: up to change {lsn}")]);
            }
            if step == comes {
                self.come_back(1).await?;
            }
            if step == returns {
                self.come_back(2).await?;
            }
            self.sell(step).await?;
        }
        pending().await
    }

    /// Switches a device on, and says how it came to now.
    async fn come_back(&mut self, index: usize) -> Result<(), Failure> {
        let before = self.devices[index].seen().lsn;
        let seen = self.devices[index].switch_on().await?;
        let how = match before {
            0 => format!("is switched on with nothing: {} rows come", seen.came),
            before => format!("is switched on at change {before}: {} changes come", seen.came),
        };
        let mut cells = [""; 3];
        cells[index] = &how;
        self.line("", cells);
        Ok(())
    }

    /// One statement of the shop, until all devices that are on have stored what it changed.
    async fn sell(&mut self, step: u64) -> Result<(), Failure> {
        let (order, paid, gone) = &mut self.next;
        let (told, sql) = match step % 4 {
            0 | 2 => {
                let (id, product, quantity) = (*order, *order % 3, *order % 5 + 1);
                *order += 1;
                let name = PRODUCTS[product as usize];
                (
                    format!("+ order {id}: {quantity} x {name}"),
                    format!("INSERT INTO orders VALUES ({id}, {}, {quantity}, NULL, 'new')", product + 1),
                )
            }
            1 => {
                let id = *paid;
                *paid += 1;
                (
                    format!("~ order {id} is paid"),
                    format!("UPDATE orders SET status = 'paid' WHERE id = {id}"),
                )
            }
            _ => {
                let id = *gone;
                *gone += 1;
                (format!("- order {id}"), format!("DELETE FROM orders WHERE id = {id}"))
            }
        };
        let before: Vec<u64> = self.devices.iter().map(|device| device.seen().changes).collect();
        self.shop.run(&sql).await?;
        let sent = Instant::now();
        let mut cells = Vec::new();
        for (device, before) in self.devices.iter_mut().zip(before) {
            if !device.is_on() {
                cells.push("off".to_owned());
                continue;
            }
            let arrived = tokio::time::timeout(ARRIVE_MAX, device.until(|seen| seen.changes > before)).await;
            let seen = arrived.map_err(|_| Failure::new(1, format!("a device did not get `{told}`")))??;
            let ms = seen.stored.saturating_duration_since(sent).as_millis();
            cells.push(format!("{} rows, {ms} ms", seen.totals.rows));
        }
        self.line(&told, [&cells[0], &cells[1], &cells[2]]);
        Ok(())
    }

    /// All devices that are off come once more; then each file is held against the shop's own rows.
    async fn end(&mut self) -> Result<(), Failure> {
        self.line("closes", ["", "", ""]);
        for index in 0..3 {
            if !self.devices[index].is_on() {
                self.come_back(index).await?;
            }
        }
        let wanted = self.shop.totals().await?;
        let until = Instant::now() + SETTLE_MAX;
        let all = loop {
            let all = self.devices.each_ref().map(Device::counted);
            let is_equal = all.iter().all(|own| own.as_ref().is_ok_and(|own| *own == wanted));
            if is_equal || Instant::now() > until {
                break all;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let mut equal = 0;
        println!("\n  {:<11}{:>6}  checksum", "", "rows");
        let print = |name: &str, Totals { rows, checksum }: Totals, verdict: &str| {
            println!("{}", format!("  {name:<11}{rows:>6}  {checksum:016x}   {verdict}").trim_end());
        };
        print("the shop", wanted, "");
        for (index, own) in all.into_iter().enumerate() {
            let own = own.map_err(|e| Failure::new(1, format!("failed to read a device's copy: {e}")))?;
            equal += usize::from(own == wanted);
            print(&format!("device {}", index + 1), own, if own == wanted { "equal" } else { "DIFFERS" });
        }
        if equal < self.devices.len() {
            return Err(Failure::new(1, format!("{equal} of 3 devices have what the shop has")));
        }
        println!("\nAll three devices have exactly what the shop has.");
        Ok(())
    }
}
