//! Devices that hold the first rows of a table in an order: at each look they are those that MySQL sorts first.

use crate::node::{Node, run_all, streams};
use crate::subscribe::{Device, at, project};
use client::Subscription;
use client::v1::{Mode, OrderBy, ResetReason, Shape};
use testkit::{MySql, MySqlOptions, SqlServer};

/// An order, a condition and a limit; all over `shop.lots`.
const WINDOWS: [(&str, &str, u32); 6] = [
    ("amount DESC", "", 10),
    ("title, id DESC", "amount > 0", 12),
    ("code, seen DESC", "", 9),
    ("kind DESC, place", "", 20),
    ("seen", "kind = 'new'", 7),
    ("", "", 15),
];

const WORDS: [&str; 10] = ["", "a", "A ", "ab", "Ab", "b", "B-1", "b 1", "zoe", "Zoe"];

fn shape((order, filter, limit): (&str, &str, u32)) -> Shape {
    let by = |text: &str| {
        let mut words = text.split_whitespace();
        OrderBy { column: words.next().unwrap().into(), descending: words.next().is_some() }
    };
    Shape {
        source: "shop".into(),
        table: "shop.lots".into(),
        columns: vec!["amount".into()],
        r#where: filter.into(),
        order_by: order.split(", ").filter(|text| !text.is_empty()).map(by).collect(),
        limit,
    }
}

async fn sorted_by_mysql(server: &SqlServer, (order, filter, limit): (&str, &str, u32)) -> Vec<i64> {
    let order = if order.is_empty() { "id".to_owned() } else { format!("{order}, id") };
    let filter = if filter.is_empty() { "TRUE" } else { filter };
    let sql = format!("SELECT id FROM shop.lots WHERE {filter} ORDER BY {order} LIMIT {limit}");
    let rows: Vec<(i64,)> = server.query(&sql).await.unwrap();
    let mut ids: Vec<i64> = rows.into_iter().map(|(id,)| id).collect();
    ids.sort_unstable();
    ids
}

fn held(node: &Node, name: &str) -> Vec<i64> {
    let rows = crate::node::sqlite_rows(&node.path(name), "SELECT id FROM lots ORDER BY id");
    rows.into_iter().map(|row| row[0].parse().unwrap()).collect()
}

/// A statement of many kinds, by a number.
fn statement(number: u64) -> String {
    // A step that meets all residues, so that neighbours differ.
    let n = number.wrapping_mul(7919) % 400;
    let word = WORDS[(n % 10) as usize];
    let amount = (n as i64 * 37) % 500 - 200;
    match number % 7 {
        0 => format!("DELETE FROM shop.lots WHERE id = {n}"),
        1 => format!("UPDATE shop.lots SET amount = NULL, title = '{word}' WHERE id = {n}"),
        2 => format!("UPDATE shop.lots SET amount = {amount}.{:02} WHERE id = {n}", n % 100),
        3 => format!(
            "UPDATE shop.lots SET place = {}, kind = 'old' WHERE id % 50 = {}",
            n * 11_000_000,
            n % 50
        ),
        4 => format!("DELETE FROM shop.lots WHERE amount > {} LIMIT 6", 300 - amount.abs()),
        5 => {
            format!("UPDATE shop.lots SET seen = seen - INTERVAL {n} MINUTE, code = '{word}' WHERE id = {n}")
        }
        _ => format!(
            "REPLACE INTO shop.lots VALUES ({n}, {amount}.5, '{word}', '{word}', '2026-01-02 03:04:05.{:03}', 'new', {n})",
            n
        ),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_hold_what_mysql_sorts_first() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.lots (id INT PRIMARY KEY, amount DECIMAL(12,2), title VARCHAR(20), code VARCHAR(20)
             CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, seen DATETIME(3), kind ENUM('new', 'old', 'gone'),
             place INT UNSIGNED)",
            "INSERT INTO shop.lots WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 299)
             SELECT i, (i * 37 MOD 500) - 200.25, CONCAT('Row ', i MOD 23), IF(i MOD 9 = 0, NULL, CONCAT('c', i MOD 31)),
             '2026-01-01' + INTERVAL (i * 53 MOD 300) MINUTE, 1 + i MOD 3, i * 9000000 MOD 4000000000 FROM n",
        ],
    )
    .await;
    let mut node = project(&server, "");
    node.start();
    node.wait("it streams", streams).await;
    let names: Vec<String> = (0..WINDOWS.len()).map(|number| format!("window{number}.db")).collect();
    let mut devices: Vec<Device> =
        names.iter().zip(WINDOWS).map(|(name, window)| Device::new(&node, name, shape(window))).collect();
    for (device, window) in devices.iter_mut().zip(WINDOWS) {
        device.up_to_date().await;
        assert_eq!(device.mode(), Mode::Snapshot);
        assert_eq!(device.copy.totals().rows, u64::from(window.2));
    }
    for round in 0..6u64 {
        for number in round * 60..(round + 1) * 60 {
            run_all(&server, &[&statement(number)]).await;
        }
        for ((device, name), window) in devices.iter_mut().zip(&names).zip(WINDOWS) {
            if round == 2 {
                device.kill(&node);
                device.up_to_date().await;
                assert_eq!((device.mode(), device.resets()), (Mode::Tail, vec![]), "{window:?}");
            }
            while device.subscription.mark().await.is_err() {
                device.step().await;
            }
            device.marked().await;
            assert_eq!(
                held(&node, name),
                sorted_by_mysql(&server, window).await,
                "{window:?} in round {round}"
            );
        }
        if round == 3 {
            // What left the windows is not known any more: they are sent anew.
            node.kill9();
            node.start();
            node.wait("it streams again", streams).await;
        }
    }
    for device in &devices {
        assert!(device.resets().iter().all(|reason| *reason == ResetReason::Window), "{:?}", device.resets());
    }
    let (_, text, _) = node.run(&[
        "subscribe",
        "shop",
        "--table",
        "shop.lots",
        "--columns",
        "amount",
        "--order-by",
        "amount DESC",
        "--limit",
        "3",
        "--until-up-to-date",
    ]);
    assert_eq!(text.lines().filter(|line| line.contains("\"put\"")).count(), 3, "{text}");
    for (order, wanted) in [("nothing", "`nothing`"), ("id", "10000")] {
        let window = Shape { limit: if order == "id" { 10_001 } else { 1 }, ..shape((order, "", 1)) };
        let refused = Subscription::new(at(&node), window, Vec::new()).next().await.unwrap_err();
        assert!(refused.message().contains(wanted), "{refused}");
    }
    let metrics =
        reqwest::get(format!("http://{}/metrics", node.address())).await.unwrap().text().await.unwrap();
    for wanted in [
        "tidemill_flow_subscription_clients{source=\"shop\"} 6",
        "tidemill_flow_subscription_resets_total{source=\"shop\",reason=\"window\"}",
        "tidemill_flow_subscription_window_bytes{source=\"shop\"}",
    ] {
        assert!(metrics.contains(wanted), "{wanted} is not in {metrics}");
    }
}
