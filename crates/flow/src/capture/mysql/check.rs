//! What the source must be and allow, found before it hurts: every problem at once, each with the statement that
//! mends it.

use super::connect::{execute, statement_error};
use super::schema::{quote_name, read_tables};
use crate::capture::CaptureError;
use crate::patterns::Patterns;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use std::collections::{BTreeSet, HashMap};

/// What this server is.
#[derive(Clone, Debug)]
pub struct Server {
    pub mariadb: bool,
    pub version: String,
    /// `@@server_uuid`; on MariaDB `@@server_id`, which is all it has.
    pub identity: String,
    /// Whether transactions have GTIDs (always on MariaDB).
    pub gtids: bool,
    /// The user we are, as `'user'@'host'`.
    pub user: String,
    pub lower_case_table_names: u8,
    /// As a replica is, and a server that was not promoted yet.
    pub read_only: bool,
}

impl Server {
    pub fn flavor(&self) -> mysql::Flavor {
        if self.mariadb { mysql::Flavor::MariaDb } else { mysql::Flavor::MySql }
    }
}

/// Something that must be changed on the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub message: String,
    pub hint: String,
}

/// Reads the server's identity and settings, and lists what stands in the way of capturing anything.
pub async fn inspect(conn: &mut Conn) -> Result<(Server, Vec<Finding>), CaptureError> {
    inspect_for(conn, &[]).await
}

/// The same for the tables of these patterns: grants are asked for on their databases alone.
pub async fn inspect_for(conn: &mut Conn, tables: &[String]) -> Result<(Server, Vec<Finding>), CaptureError> {
    execute(conn, &["SET NAMES utf8mb4"]).await?;
    let rows: Vec<(String, Option<String>)> = conn
        .query(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version','version_comment','server_uuid','server_id',\
             'log_bin','binlog_format','binlog_row_image','gtid_mode',\
             'lower_case_table_names','read_only','log_bin_compress','binlog_gtid_simple_recovery','binlog_transaction_compression')",
        )
        .await
        .map_err(|e| statement_error("read the server's settings", e))?;
    let settings: HashMap<String, String> = rows
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.unwrap_or_default()))
        .collect();
    let get = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    let version = get("version").to_owned();
    let mariadb = version.contains("MariaDB") || get("version_comment").contains("MariaDB");
    let user: String = conn
        .query_first("SELECT CURRENT_USER()")
        .await
        .map_err(|e| statement_error("read the current user", e))?
        .unwrap_or_default();
    let (name, host) = user.rsplit_once('@').unwrap_or((&user, "%"));
    let server = Server {
        mariadb,
        version: version.clone(),
        identity: get(if mariadb { "server_id" } else { "server_uuid" }).to_owned(),
        gtids: mariadb || get("gtid_mode") == "ON",
        user: format!("'{name}'@'{host}'"),
        lower_case_table_names: get("lower_case_table_names").parse().unwrap_or(0),
        // MariaDB 11 and later have words beside ON.
        read_only: !matches!(get("read_only"), "OFF" | "0" | ""),
    };
    let mut findings = Vec::new();
    let mut need = |ok: bool, message: String, hint: &str| {
        if !ok {
            findings.push(Finding { message, hint: hint.to_owned() });
        }
    };
    need(
        get("log_bin") == "ON" || get("log_bin") == "1",
        "the binary log is off".into(),
        "start the server with --log-bin and a --server-id that is not 0",
    );
    need(
        get("binlog_format") == "ROW",
        format!("binlog_format is {}, not ROW", get("binlog_format")),
        if mariadb { "SET GLOBAL binlog_format = 'ROW';" } else { "SET PERSIST binlog_format = 'ROW';" },
    );
    need(
        get("binlog_row_image") == "FULL",
        format!("binlog_row_image is {}, not FULL", get("binlog_row_image")),
        if mariadb {
            "SET GLOBAL binlog_row_image = 'FULL';"
        } else {
            "SET PERSIST binlog_row_image = 'FULL';"
        },
    );
    need(
        matches!(get("gtid_mode"), "" | "ON" | "OFF"),
        format!(
            "gtid_mode is {}, a state that is only meant for the change between ON and OFF",
            get("gtid_mode")
        ),
        "finish the change: SET PERSIST gtid_mode = ON;",
    );
    findings.extend(missing_grants(conn, &server, tables).await?);
    Ok((server, findings))
}

/// Compares `SHOW GRANTS` with what capture does. Roles are followed by the server itself when they are active.
async fn missing_grants(
    conn: &mut Conn,
    server: &Server,
    tables: &[String],
) -> Result<Vec<Finding>, CaptureError> {
    let rows: Vec<Row> =
        conn.query("SHOW GRANTS").await.map_err(|e| statement_error("read our own grants", e))?;
    let grants: Vec<String> =
        rows.iter().filter_map(|row| row.get::<String, _>(0)).map(|g| g.to_ascii_uppercase()).collect();
    let globally = |wanted: &[&str]| {
        grants.iter().filter(|g| g.contains(" ON *.* ")).any(|grant| {
            let list = grant.trim_start_matches("GRANT ").split(" ON ").next().unwrap_or_default();
            list.split(", ").any(|p| wanted.contains(&p.trim()) || p.starts_with("ALL PRIVILEGES"))
        })
    };
    let mut out = Vec::new();
    let mut need = |have: bool, what: &str, grant: &str| {
        if !have {
            out.push(Finding {
                message: format!("{} lacks {what}", server.user),
                hint: format!("GRANT {grant} ON *.* TO {};", server.user),
            });
        }
    };
    need(
        globally(&["REPLICATION SLAVE", "REPLICATION REPLICA"]),
        "REPLICATION SLAVE, to read the binary log",
        "REPLICATION SLAVE",
    );
    let client: &[&str] = if server.mariadb {
        &["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"]
    } else {
        &["REPLICATION CLIENT", "SUPER"]
    };
    need(globally(client), "REPLICATION CLIENT, to see positions", client[0]);
    if !grants.iter().any(|g| g.contains("SELECT") || g.contains("ALL PRIVILEGES")) {
        // Where tables have no key, MySQL reads them under a lock of an instant.
        let grant = if server.mariadb { "SELECT" } else { "SELECT, LOCK TABLES" };
        out.push(Finding {
            message: format!("{} lacks SELECT, to read tables for the snapshot", server.user),
            hint: narrowest(grant, tables, &server.user),
        });
    }
    Ok(out)
}

/// `GRANT … ON` each database that the patterns name, or on all when a database is a wildcard.
fn narrowest(grant: &str, tables: &[String], user: &str) -> String {
    let named = |pattern: &String| {
        let (db, _) = pattern.split_once('.')?;
        (!db.contains(['*', '?'])).then(|| db.to_owned())
    };
    let databases: Option<BTreeSet<String>> = tables.iter().map(named).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let places: Vec<String> = match databases {
        Some(databases) if !databases.is_empty() => {
            let named = databases.into_iter();
            named
                .map(|db| format!("{}.*", if db.chars().all(plain) { db } else { quote_name(&db) }))
                .collect()
        }
        _ => vec!["*.*".to_owned()],
    };
    let statements = places.iter().map(|place| format!("GRANT {grant} ON {place} TO {user};"));
    statements.collect::<Vec<_>>().join(" ")
}

/// What capture of these tables needs besides: a table without a key is read under a lock of an instant on MySQL.
pub async fn inspect_tables(
    conn: &mut Conn,
    server: &Server,
    tables: &[String],
    patterns: &Patterns,
) -> Result<Vec<Finding>, CaptureError> {
    if server.mariadb {
        return Ok(Vec::new());
    }
    let live = read_tables(conn, server, |name| patterns.matches(name)).await?;
    let keyless = live.values().flatten().filter(|live| live.table.key.is_empty());
    let names: Vec<String> = keyless.map(|live| live.table.name.to_string()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> =
        conn.query("SHOW GRANTS").await.map_err(|e| statement_error("read our own grants", e))?;
    let grants: Vec<String> = rows.iter().filter_map(|row| row.get::<String, _>(0)).collect();
    let allowed =
        grants.iter().any(|grant| grant.contains("LOCK TABLES") || grant.contains("ALL PRIVILEGES"));
    let finding = Finding {
        message: format!(
            "{} lacks LOCK TABLES, to read tables without a key: {}",
            server.user,
            names.join(", ")
        ),
        hint: narrowest("LOCK TABLES", tables, &server.user),
    };
    Ok(if allowed { Vec::new() } else { vec![finding] })
}

/// All findings as one error.
pub fn refuse(findings: &[Finding]) -> CaptureError {
    let messages: Vec<_> = findings.iter().map(|f| f.message.as_str()).collect();
    let hints: Vec<_> = findings.iter().map(|f| f.hint.as_str()).collect();
    CaptureError::fatal(format!("the source is not ready: {}", messages.join("; ")), hints.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_on_the_databases_that_are_named() {
        let on = |tables: &[&str]| {
            let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
            narrowest("SELECT", &tables, "'cdc'@'%'")
        };
        assert_eq!(on(&["shop.*", "shop.a?"]), "GRANT SELECT ON shop.* TO 'cdc'@'%';");
        assert_eq!(
            on(&["shop.*", "c-rm.users"]),
            "GRANT SELECT ON `c-rm`.* TO 'cdc'@'%'; GRANT SELECT ON shop.* TO 'cdc'@'%';"
        );
        assert_eq!(on(&["shop.*", "sho?.*"]), "GRANT SELECT ON *.* TO 'cdc'@'%';");
        assert_eq!(on(&[]), "GRANT SELECT ON *.* TO 'cdc'@'%';");
    }
}
