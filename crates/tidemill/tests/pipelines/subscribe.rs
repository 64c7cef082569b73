//! Devices that follow a table: one that stays, one that comes from nothing, one that comes back; through kills, statements and the loss of
//! history. In the end each has what the source has.

use crate::node::{Node, PATIENCE, mysql_source, run_all, sqlite_rows, streams, write_orders};
use client::v1::subscribe_response::Event;
use client::v1::{Mode, ResetReason, Shape, SubscribeResponse};
use client::{Copy, Heard, Subscription};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{MySql, MySqlOptions, SqlServer};

pub async fn make_shop(server: &SqlServer) {
    run_all(
        server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.orders (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, amount DECIMAL(10,2) NOT NULL)",
            "INSERT INTO shop.orders WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
             SELECT i, CONCAT('row ', i), i FROM n",
        ],
    )
    .await;
}

pub fn project(server: &SqlServer, more: &str) -> Node {
    Node::new(&[(
        "sources/shop.yaml",
        mysql_source(&server.url(), "shop.*") + "mirror: [\"shop.*\"]\n" + more,
    )])
}

pub fn shape(filter: &str) -> Shape {
    Shape { source: "shop".into(), table: "shop.orders".into(), r#where: filter.into(), ..Shape::default() }
}

/// Where the node is, for a client.
pub fn at(node: &Node) -> client::Node {
    client::Node::new(&format!("http://{}", node.address()), None, None).unwrap()
}

/// A device that remembers what it heard.
pub struct Device {
    path: PathBuf,
    shape: Shape,
    pub copy: Copy,
    pub subscription: Subscription,
    pub heard: Vec<SubscribeResponse>,
}

impl Device {
    pub fn new(node: &Node, name: &str, shape: Shape) -> Self {
        let path = node.path(name);
        let copy = Copy::open(&path, &shape).unwrap();
        let subscription = Subscription::new(at(node), shape.clone(), copy.token().to_vec());
        Self { path, shape, copy, subscription, heard: Vec::new() }
    }

    /// As a device that was switched off at once: what was not stored is gone.
    pub fn kill(&mut self, node: &Node) {
        self.copy = Copy::open(&self.path, &self.shape).unwrap();
        self.subscription = Subscription::new(at(node), self.shape.clone(), self.copy.token().to_vec());
        self.heard.clear();
    }

    /// Takes the next response in, and stores it.
    pub async fn step(&mut self) -> Option<Event> {
        match self.subscription.next().await.unwrap() {
            Heard::Response(response) => {
                self.copy.apply(&response).unwrap();
                self.copy.commit().unwrap();
                let event = response.event.clone();
                self.heard.push(*response);
                event
            }
            Heard::Broken { .. } => None,
        }
    }

    /// Until the stream says so.
    pub async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let reached = async {
            loop {
                if let Some(event) = self.step().await
                    && wanted(&event)
                {
                    return event;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(event) => event,
            Err(_) => {
                panic!("it never came; heard {:#?}", self.heard.iter().rev().take(5).collect::<Vec<_>>())
            }
        }
    }

    pub async fn up_to_date(&mut self) {
        self.until(|event| matches!(event, Event::UpToDate(_))).await;
    }

    /// Until it has all that the source has committed by now.
    pub async fn marked(&mut self) {
        let mark = self.subscription.mark().await.unwrap();
        self.until(|event| matches!(event, Event::Reached(reached) if reached.mark == mark)).await;
    }

    pub fn mode(&self) -> Mode {
        let found = self.heard.iter().rev().find_map(|response| match &response.event {
            Some(Event::Ready(ready)) => Some(ready.mode()),
            _ => None,
        });
        found.unwrap()
    }

    pub fn resets(&self) -> Vec<ResetReason> {
        let reasons = self.heard.iter().filter_map(|response| match &response.event {
            Some(Event::Reset(reset)) => Some(reset.reason()),
            _ => None,
        });
        reasons.collect()
    }

    pub fn checkpoints(&self) -> usize {
        self.heard.iter().filter(|response| matches!(response.event, Some(Event::Checkpoint(_)))).count()
    }

    pub fn rows(&self) -> Vec<Vec<String>> {
        self.ask("SELECT id, name, amount FROM orders ORDER BY id")
    }

    /// What the copy answers.
    pub fn ask(&self, sql: &str) -> Vec<Vec<String>> {
        sqlite_rows(&self.path, sql)
    }
}

pub async fn orders_of(server: &SqlServer, filter: &str) -> Vec<Vec<String>> {
    let sql = format!("SELECT id, name, CAST(amount AS CHAR) FROM shop.orders WHERE {filter} ORDER BY id");
    let rows: Vec<(i64, String, String)> = server.query(&sql).await.unwrap();
    rows.into_iter().map(|(id, name, amount)| vec![id.to_string(), name, amount]).collect()
}

async fn whole(node: &Node) {
    node.wait("the mirror is whole", |s| {
        s["sources"][0]["mirror"]["state"] == "following" && s["sources"][0]["mirror"]["lag_changes"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_devices_have_what_the_source_has_through_kills() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let mut node = project(&server, "");
    node.start();
    node.wait("it streams", streams).await;
    let filter = "amount >= 300 AND name LIKE 'row%'";
    let mut first = Device::new(&node, "first.db", shape(""));
    let mut some = Device::new(&node, "some.db", shape(filter));
    let mut away = Device::new(&node, "away.db", shape(filter));
    first.up_to_date().await;
    assert_eq!(first.mode(), Mode::Snapshot);
    assert_eq!(first.checkpoints(), 1);
    some.up_to_date().await;
    assert_eq!(some.rows(), orders_of(&server, filter).await);
    away.up_to_date().await;
    drop(away.subscription);
    let stop = AtomicBool::new(false);
    let writes = write_orders(&server, 11, &stop);
    let life = async {
        for kill in 0..3 {
            for _ in 0..20 {
                first.step().await;
                some.step().await;
            }
            // The device is killed, or the node is.
            if kill == 1 {
                some.kill(&node);
            } else {
                node.kill9();
                node.start();
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(writes, life);
    assert!(written > 5, "{written} statements");
    node.wait("it streams again", streams).await;
    // One that was away, and one that has nothing.
    let mut away = Device::new(&node, "away.db", shape(filter));
    let mut late = Device::new(&node, "late.db", shape(filter));
    away.up_to_date().await;
    assert!(matches!(away.mode(), Mode::Tail | Mode::NetChanges), "{:?}", away.mode());
    late.up_to_date().await;
    assert_eq!(late.mode(), Mode::Snapshot);
    for device in [&mut first, &mut some] {
        while device.subscription.mark().await.is_err() {
            device.step().await;
        }
    }
    for device in [&mut first, &mut some, &mut away, &mut late] {
        device.marked().await;
        assert_eq!(device.resets(), []);
    }
    let wanted = orders_of(&server, filter).await;
    assert_eq!(first.rows(), orders_of(&server, "TRUE").await);
    for device in [&some, &away, &late] {
        assert_eq!(device.rows(), wanted);
        assert_eq!(device.copy.totals(), late.copy.totals());
    }
    assert_eq!(late.copy.totals().rows as usize, wanted.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_leave_and_come_and_a_table_changes_while_a_device_looks_and_while_it_does_not() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let mut node = project(&server, "");
    node.start();
    node.wait("it streams", streams).await;
    let mut device = Device::new(&node, "device.db", shape("amount < 3"));
    let mut sleeper = Device::new(&node, "sleeper.db", shape("amount < 3"));
    device.up_to_date().await;
    sleeper.up_to_date().await;
    drop(sleeper.subscription);
    assert_eq!(device.rows().len(), 3);
    run_all(
        &server,
        &[
            "UPDATE shop.orders SET amount = 50 WHERE id = 1",
            "UPDATE shop.orders SET amount = 1 WHERE id = 500",
            "UPDATE shop.orders SET id = 5000 WHERE id = 2",
            "DELETE FROM shop.orders WHERE id = 0",
            "UPDATE shop.orders SET name = 'not of it' WHERE id = 700",
        ],
    )
    .await;
    device.marked().await;
    assert_eq!(device.rows(), orders_of(&server, "amount < 3").await);
    let ops: Vec<_> = device
        .heard
        .iter()
        .skip_while(|response| !matches!(response.event, Some(Event::UpToDate(_))))
        .filter_map(|response| match &response.event {
            Some(Event::Batch(batch)) => Some(batch.changes.iter().map(|change| change.op().as_str_name())),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(ops, ["OP_LEAVE", "OP_PUT", "OP_DELETE", "OP_PUT", "OP_DELETE"]);
    run_all(
        &server,
        &[
            "ALTER TABLE shop.orders CHANGE name title VARCHAR(40) NOT NULL, ADD COLUMN note VARCHAR(9)",
            "INSERT INTO shop.orders VALUES (7000, 'new', 2, 'hello')",
        ],
    )
    .await;
    device.marked().await;
    let titles =
        |device: &Device| sqlite_rows(&device.path, "SELECT id, title, amount, note FROM orders ORDER BY id");
    let wanted = vec![
        vec!["500", "row 500", "1.00", "NULL"],
        vec!["5000", "row 2", "2.00", "NULL"],
        vec!["7000", "new", "2.00", "hello"],
    ];
    assert_eq!(titles(&device), wanted);
    let mut sleeper = Device::new(&node, "sleeper.db", shape("amount < 3"));
    sleeper.up_to_date().await;
    assert_eq!(sleeper.mode(), Mode::Tail);
    assert_eq!(titles(&sleeper), wanted);
    run_all(&server, &["TRUNCATE TABLE shop.orders", "INSERT INTO shop.orders VALUES (1, 'a', 1, NULL)"])
        .await;
    device.marked().await;
    assert_eq!(titles(&device), [["1", "a", "1.00", "NULL"]]);
    // A filter that no longer fits says so.
    let mut titled = Device::new(&node, "titled.db", shape("title = 'A'"));
    titled.up_to_date().await;
    assert_eq!(titles(&titled).len(), 1, "the collation does not look at case");
    run_all(&server, &["ALTER TABLE shop.orders DROP COLUMN title"]).await;
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            match titled.subscription.next().await {
                Ok(_) => {}
                Err(status) => return status,
            }
        }
    });
    let status = ended.await.unwrap();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("title"), "{status}");
    run_all(&server, &["DROP TABLE shop.orders"]).await;
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            match device.subscription.next().await {
                Ok(Heard::Response(response)) => device.copy.apply(&response).unwrap(),
                Ok(Heard::Broken { .. }) => {}
                Err(status) => return status,
            }
        }
    });
    assert_eq!(ended.await.unwrap().code(), tonic::Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_do_not_fit_are_told_why_and_filled_again() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let mut node = project(&server, "");
    node.start();
    node.wait("it streams", streams).await;
    let mut device = Device::new(&node, "device.db", shape(""));
    device.up_to_date().await;
    let good = device.copy.token().to_vec();
    let here = at(&node);
    let reset = async |token: Vec<u8>, shape: Shape| {
        let mut subscription = Subscription::new(here.clone(), shape, token);
        loop {
            match subscription.next().await.unwrap() {
                Heard::Response(response) => match response.event {
                    Some(Event::Reset(reset)) => return Some(reset.reason()),
                    Some(Event::UpToDate(_)) => return None,
                    _ => {}
                },
                Heard::Broken { reason, .. } => panic!("{reason}"),
            }
        }
    };
    assert_eq!(reset(good.clone(), shape("")).await, None);
    assert_eq!(reset(good.clone(), shape("id < 5")).await, Some(ResetReason::Shape));
    let mut bent = good.clone();
    bent[20] ^= 1;
    assert_eq!(reset(bent, shape("")).await, Some(ResetReason::Token));
    assert_eq!(reset(b"not a token".to_vec(), shape("")).await, Some(ResetReason::Token));
    // What was after the copy of the data folder that is put back.
    whole(&node).await;
    node.stop();
    let kept = node.path("kept");
    let status =
        std::process::Command::new("cp").arg("-a").arg(node.path("data")).arg(&kept).status().unwrap();
    assert!(status.success());
    node.start();
    node.wait("it streams", streams).await;
    run_all(&server, &["INSERT INTO shop.orders VALUES (7000, 'new', 2)"]).await;
    let mut device = Device::new(&node, "device.db", shape(""));
    device.up_to_date().await;
    device.marked().await;
    let future = device.copy.token().to_vec();
    assert_ne!(future, good);
    run_all(&server, &["DELETE FROM shop.orders WHERE id = 7000"]).await;
    node.stop();
    std::fs::remove_dir_all(node.path("data")).unwrap();
    std::fs::rename(&kept, node.path("data")).unwrap();
    // Nothing is captured, so that the journal stays behind the token.
    drop(server);
    node.start();
    let here = at(&node);
    let mut subscription = Subscription::new(here, shape(""), future);
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(Heard::Response(response)) = subscription.next().await
                && let Some(Event::Reset(reset)) = response.event
            {
                return reset.reason();
            }
        }
    });
    assert_eq!(told.await.unwrap(), ResetReason::Future);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_read_anew_and_history_that_is_gone_end_in_equal_copies() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let mut node = project(&server, "");
    node.write("sinks/out.yaml", "kind: stdout\n");
    node.write("flows/out.yaml", "from: shop\nto: out\ntables: [shop.orders]\n");
    node.start();
    node.wait("it streams", streams).await;
    let mut device = Device::new(&node, "device.db", shape("id < 500"));
    device.up_to_date().await;
    // Rows that go unseen by the binlog are found when the table is read anew.
    run_all(&server, &["SET sql_log_bin = 0; DELETE FROM shop.orders WHERE id IN (3, 600); UPDATE shop.orders SET name = 'x' WHERE id = 4; SET sql_log_bin = 1"]).await;
    let (code, _, err) = node.run(&["flow", "resnapshot", "out"]);
    assert_eq!(code, 0, "{err}");
    device.until(|event| matches!(event, Event::SnapshotEnd(_))).await;
    device.up_to_date().await;
    assert_eq!(device.rows(), orders_of(&server, "id < 500").await);
    assert_eq!(device.resets(), []);
    // The journal no longer has what came since, and the mirror no longer what went.
    drop(device.subscription);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_keeps_a_copy_and_says_what_is_wrong() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let mut node = project(&server, "");
    node.start();
    node.wait("it streams", streams).await;
    let copy = node.path("orders.db");
    let copy = copy.to_str().unwrap();
    let follow = ["subscribe", "shop", "--table", "shop.orders", "--into", copy, "--until-up-to-date"];
    let (code, out, err) = node.run(&follow);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("orders: 1000 rows") && out.contains("as the source's"), "{out}");
    run_all(&server, &["UPDATE shop.orders SET amount = amount + 1 WHERE id < 10"]).await;
    whole(&node).await;
    node.until("all has come", async || {
        let (code, _, err) = node.run(&follow);
        assert_eq!(code, 0, "{err}");
        sqlite_rows(&node.path("orders.db"), "SELECT id, name, amount FROM orders ORDER BY id")
            == orders_of(&server, "TRUE").await
    })
    .await;
    let (code, _, err) =
        node.run(&["subscribe", "shop", "--table", "shop.orders", "--where", "id <", "--until-up-to-date"]);
    assert!(code == 2 && err.contains("hint:"), "{err}");
    let (code, _, err) = node.run(&["subscribe", "shop", "--table", "shop.nothing", "--until-up-to-date"]);
    assert!(code == 2 && err.contains("shop.nothing"), "{err}");
    let (code, _, err) = node.run(&["subscribe", "other", "--table", "shop.orders", "--until-up-to-date"]);
    assert!(code == 2 && err.contains("no source `other`"), "{err}");
    let (code, _, err) = node.run(&[
        "subscribe",
        "shop",
        "--table",
        "shop.orders",
        "--where",
        "nocolumn = 1",
        "--until-up-to-date",
    ]);
    assert!(code == 1 && err.contains("nocolumn"), "{err}");
    let (code, out, err) =
        node.run(&["subscribe", "shop", "--table", "shop.orders", "--where", "id = 7", "--until-up-to-date"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(r#""op":"put""#) && out.contains(r#""name":"row 7""#), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_keep_nobody_waiting() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.orders (id INT PRIMARY KEY, name VARCHAR(4000) NOT NULL, amount DECIMAL(10,2) NOT NULL)",
            "SET cte_max_recursion_depth = 10000;
             INSERT INTO shop.orders WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 3999)
             SELECT i, REPEAT('x', 4000), i FROM n",
        ],
    )
    .await;
    let mut node = project(&server, "");
    node.start();
    node.wait("it streams", streams).await;
    whole(&node).await;
    // Many more than may catch up at once, each behind a connection that is full soon.
    let mut stuck = Vec::new();
    for _ in 0..40 {
        let mut subscription = Subscription::new(at(&node), shape(""), Vec::new());
        while !matches!(
            subscription.next().await.unwrap(),
            Heard::Response(response) if matches!(response.event, Some(Event::Batch(_)))
        ) {}
        stuck.push(subscription);
    }
    let mut device = Device::new(&node, "device.db", shape(""));
    device.up_to_date().await;
    assert_eq!(device.copy.totals().rows, 4000);
    // And they go on where they were when they read again.
    let mut first = stuck.swap_remove(0);
    let (mut rows, mut ended) = (0, false);
    while !ended {
        if let Heard::Response(response) = first.next().await.unwrap() {
            match response.event {
                Some(Event::Batch(batch)) => rows += batch.changes.len(),
                Some(Event::UpToDate(_)) => ended = true,
                _ => {}
            }
        }
    }
    assert!((3900..4000).contains(&rows), "{rows} behind the first batch");
}
