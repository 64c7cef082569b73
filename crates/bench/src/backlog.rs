//! Writes a stretch of binlog on a real MySQL: rows of about 190 bytes, as sysbench makes them.

use anyhow::Result;
use testkit::mysql_async::Conn;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions};

/// Rows that differ, so that nothing downstream can be lucky; the backlog repeats them under new keys.
pub const SEED_ROWS: u64 = 2000;

/// What a transaction of the backlog holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// This many rows in one statement.
    Large(u64),
    Single,
}

impl Shape {
    pub fn rows_per_transaction(self) -> u64 {
        match self {
            Shape::Large(rows) => rows,
            Shape::Single => 1,
        }
    }
}

/// A stretch of binlog.
pub struct Backlog {
    pub rows: u64,
    /// The first file; the stretch is the whole of it and of those that follow.
    pub first_file: String,
    /// Bytes of all files of the stretch.
    pub bytes: u64,
}

/// A server with room in memory, which syncs every commit when it shall be durable, and else forgets at a power cut.
pub async fn server_with(server_id: u32, durable: bool) -> Result<MySql> {
    let room = ["--innodb-buffer-pool-size=512M", "--innodb-redo-log-capacity=512M", "--max-binlog-size=1G"];
    let fast = ["--sync-binlog=0", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF"];
    let synced = ["--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1", "--innodb-doublewrite=ON"];
    let args = room.into_iter().chain(if durable { synced } else { fast }).map(str::to_owned).collect();
    MySql::start(MySqlOptions { args, server_id, ..MySqlOptions::default() }).await
}

/// A server that writes fast, with the empty table `bench.rows`.
pub async fn server() -> Result<MySql> {
    let mysql = server_with(1, false).await?;
    mysql
        .exec(
            "create database bench; create database seed; \
             create table bench.rows (id int not null auto_increment primary key, k int not null, \
             c char(120) not null, pad char(60) not null)",
        )
        .await?;
    Ok(mysql)
}

/// Writes `rows` rows into `bench.rows`, in files of their own.
pub async fn write(mysql: &MySql, rows: u64, shape: Shape) -> Result<Backlog> {
    let mut conn = mysql.conn().await?;
    seed(&mut conn).await?;
    let rows = rows / shape.rows_per_transaction() * shape.rows_per_transaction();
    let statements = match shape {
        Shape::Large(each) => {
            let sql =
                format!("insert into bench.rows (k, c, pad) select k, c, pad from seed.rows limit {each}");
            vec![sql; (rows / each) as usize]
        }
        Shape::Single => vec![format!("call seed.singles({rows})")],
    };
    run(conn, rows, &statements).await
}

/// Runs statements that write `rows` rows, in files of their own.
pub async fn run(mut conn: Conn, rows: u64, statements: &[String]) -> Result<Backlog> {
    conn.query_drop("flush binary logs").await?;
    let (first_file, ..): (String, u64, String) =
        conn.query("show binary logs").await?.pop().expect("a server with a binlog");
    for sql in statements {
        conn.query_drop(sql).await?;
    }
    let files: Vec<(String, u64, String)> = conn.query("show binary logs").await?;
    let bytes = files.iter().filter(|(name, ..)| *name >= first_file).map(|(_, bytes, _)| bytes).sum();
    conn.disconnect().await?;
    Ok(Backlog { rows, first_file, bytes })
}

/// Rows to copy and a procedure that commits each row, both outside of the database that is captured.
pub async fn seed(conn: &mut Conn) -> Result<()> {
    // Groups of eleven digits with dashes between them, as sysbench writes.
    let groups = |count: u32| {
        let one = "lpad(floor(rand() * 99999999999), 11, '0')";
        format!("concat_ws('-', {})", vec![one; count as usize].join(", "))
    };
    let (c, pad) = (groups(10), groups(5));
    conn.query_drop("set session cte_max_recursion_depth = 100000").await?;
    conn.query_drop("create table seed.rows (id int primary key, k int, c char(120), pad char(60))").await?;
    conn.query_drop(format!(
        "insert into seed.rows with recursive n (id) as (select 1 union all select id + 1 from n where id < {SEED_ROWS}) \
         select id, floor(rand() * 1000000), {c}, {pad} from n"
    ))
    .await?;
    conn.query_drop(format!(
        "create procedure seed.singles(in wanted int) begin \
         declare n int default 0; \
         while n < wanted do \
         insert into bench.rows (k, c, pad) select k, c, pad from seed.rows where id = 1 + n % {SEED_ROWS}; \
         set n = n + 1; \
         end while; end"
    ))
    .await?;
    Ok(())
}
