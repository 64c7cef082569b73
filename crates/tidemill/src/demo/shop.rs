//! The demo's shop: it takes orders, has some paid, and forgets old ones.

use super::Order;
use crate::failure::Failure;
use client::Totals;
use client::v1::Value;
use client::v1::value::Kind;
use mysql_async::prelude::Queryable;
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Between two orders.
const PACE: Duration = Duration::from_millis(200);

const TABLES: [&str; 2] = [
    "CREATE TABLE products (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL, price DOUBLE NOT NULL)",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL, quantity INTEGER NOT NULL, \
     phone VARCHAR(20), status VARCHAR(10) NOT NULL)",
];
const PRODUCTS: &str = "INSERT INTO products VALUES (1, 'tea', 4.5), (2, 'rice', 12.0), (3, 'noodles', 3.25)";

/// Where the shop keeps its books.
pub enum Shop {
    Sqlite(Connection),
    MySql(mysql_async::Conn),
}

fn failed(error: impl std::error::Error + 'static) -> Failure {
    Failure::new(1, format!("the shop failed to write its books: {}", base::error::chain(&error)))
}

impl Shop {
    pub fn in_sqlite(path: &Path) -> Result<Self, Failure> {
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
        let script = format!("PRAGMA journal_mode=WAL; {}; {PRODUCTS};", TABLES.join("; "));
        connection.execute_batch(&script).map_err(failed)?;
        Ok(Self::Sqlite(connection))
    }

    pub async fn in_mysql(url: &str) -> Result<Self, Failure> {
        let opts = mysql_async::Opts::from_url(url).map_err(failed)?;
        let mut conn = mysql_async::Conn::new(opts).await.map_err(failed)?;
        for sql in ["CREATE DATABASE shop", "USE shop"].into_iter().chain(TABLES).chain([PRODUCTS]) {
            conn.query_drop(sql).await.map_err(failed)?;
        }
        Ok(Self::MySql(conn))
    }

    /// Takes an order now and then, for ever or until the moment given.
    pub async fn sell(&mut self, until: Option<Instant>) -> Result<(), Failure> {
        let mut pace = tokio::time::interval(PACE);
        for id in 1_i64.. {
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            pace.tick().await;
            let (product, quantity) = (id % 3 + 1, id % 5 + 1);
            let phone = format!("138{:08}", id * 7919 % 100_000_000);
            let (paid, old) = (id - 3, id - 20);
            for sql in [
                format!("INSERT INTO orders VALUES ({id}, {product}, {quantity}, '{phone}', 'new')"),
                format!("UPDATE orders SET status = 'paid' WHERE id = {paid}"),
                format!("DELETE FROM orders WHERE id = {old}"),
            ] {
                self.run(&sql).await?;
            }
        }
        Ok(())
    }

    pub async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        match self {
            Self::Sqlite(connection) => connection.execute_batch(sql).map_err(failed),
            Self::MySql(conn) => conn.query_drop(sql).await.map_err(failed),
        }
    }

    pub async fn orders(&mut self) -> Result<Vec<Order>, Failure> {
        let sql = "SELECT id, quantity, status FROM orders ORDER BY id";
        match self {
            Self::MySql(conn) => conn.query(sql).await.map_err(failed),
            Self::Sqlite(connection) => {
                let mut query = connection.prepare(sql).map_err(failed)?;
                let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).map_err(failed)?;
                rows.collect::<Result<_, _>>().map_err(failed)
            }
        }
    }

    /// How many orders there are, and the sum of their hashes, as a subscription's checkpoint has them.
    pub async fn totals(&mut self) -> Result<Totals, Failure> {
        let rows: Vec<Row> = match self {
            Self::MySql(conn) => conn.query(ROWS).await.map_err(failed)?,
            Self::Sqlite(connection) => rows_in_sqlite(connection).map_err(failed)?,
        };
        Ok(totals_of(rows))
    }
}

/// A whole order: id, product, quantity, phone, status.
pub type Row = (i64, i64, i64, Option<String>, String);

const ROWS: &str = "SELECT id, product_id, quantity, phone, status FROM orders";

pub fn rows_in_sqlite(connection: &Connection) -> rusqlite::Result<Vec<Row>> {
    let mut query = connection.prepare(ROWS)?;
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?;
    rows.collect()
}

pub fn totals_of(rows: Vec<Row>) -> Totals {
    let mut totals = Totals::default();
    for (id, product, quantity, phone, status) in rows {
        let text = |text: String| Value { kind: Some(Kind::Text(text)) };
        let int = |number: i64| Value { kind: Some(Kind::Int(number)) };
        let phone = phone.map_or(Value { kind: None }, text);
        let hash = client::row_hash(&[int(id), int(product), int(quantity), phone, text(status)]);
        totals.rows += 1;
        totals.checksum = totals.checksum.wrapping_add(hash);
    }
    totals
}
