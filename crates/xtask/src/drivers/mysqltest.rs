//! MariaDB's main suite: SQL with recorded answers, which its client `mysqltest` sends and compares byte by byte; and its tests
//! of the C client.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::outcome::{Outcome, Outcomes};
use super::yard::{Kind, PASSWORD, USER};
use super::{Run, Suite};
use crate::servers::{Recipe, debian};

pub const SUITE: Suite = Suite {
    name: "mysqltest",
    recipe: Recipe {
        name: "driver-mysqltest",
        version: "mariadb-test of bookworm, recipe 1",
        install,
        peer: true,
    },
    label: "MariaDB 10.11: mysqltest on its main suite, with the text and with the binary protocol",
    databases: &["test"],
    servers: &[Kind::MariaDb],
    server_tls: false,
    options: &[
        // What the suite's own driver starts its server with.
        "--log-bin-trust-function-creators=1",
        "--character-set-server=latin1",
        "--default-storage-engine=MyISAM",
        "--use-stat-tables=preferably",
        "--histogram-type=json_hb",
        "--max-allowed-packet=16777216",
        "--key-buffer-size=1M",
        "--sort-buffer-size=256K",
        "--max-heap-table-size=1M",
        "--innodb-buffer-pool-size=8M",
        "--default-time-zone=+03:00",
    ],
    run,
};

/// The C client's own tests of the binary protocol: cursors, long data, several results, changes of the user.
pub const CLIENT: Suite = Suite {
    name: "clienttest",
    recipe: Recipe {
        name: "driver-mysqltest",
        version: "mariadb-test of bookworm, recipe 1",
        install,
        peer: true,
    },
    label: "MariaDB 10.11: mariadb-client-test, the tests of the C client",
    databases: &["test", "client_test_db"],
    servers: &[Kind::MariaDb],
    server_tls: false,
    options: &[],
    run: run_client,
};

/// Run directly, without the suite's own driver, which would start servers of its own: so only those tests that need no options
/// of the server and no other program. What fails direct for such a reason is not compared.
const TESTS: &str = "
    alias ansi auto_increment bigint bool case cast comments commit compare constraints create_select
    cte_nonrecursive ctype_latin1 ctype_ucs ctype_utf8mb4 date_formats delete delete_returning derived distinct drop
    except explain flush foreign_key func_concat func_date_add func_default func_format func_gconcat func_group
    func_if func_in func_isnull func_json func_like func_math func_misc func_op func_regexp func_set func_str
    func_system func_test func_time func_timestamp get_diagnostics group_by handler having insert insert_returning
    insert_select insert_update intersect join join_nested kill limit loaddata lock metadata multi_statement
    multi_update null null_key odbc parser ps ps_1general ps_2myisam ps_3innodb ps_6bugs ps_ddl range replace row
    select set_statement signal sp sp-error sp-vars sp_trans sql_mode strict temp_table trigger truncate type_bit
    type_blob type_date type_datetime type_decimal type_enum type_float type_int type_newdecimal type_time
    type_timestamp type_varchar type_year union update user_var variables view warnings win xa
";

/// Also run with every statement prepared.
const BINARY: [&str; 2] = ["ps", "type_"];

/// Longest run of one test.
const TEST_SECONDS_MAX: u32 = 60;

fn install(install: &Path, work: &Path) -> Result<()> {
    let root = install.join("root");
    debian::unpack("bookworm", &["mariadb-test", "mariadb-test-data"], &root, work)?;
    debian::write_launcher(install, "mysqltest", "usr/bin/mariadb-test", "--no-defaults")?;
    debian::write_launcher(install, "client-test", "usr/bin/mariadb-client-test", "--no-defaults")
}

fn run(run: &Run<'_>) -> Result<Outcomes> {
    let folder = run.install.join("root/usr/share/mysql/mysql-test");
    // Files that tests include are named from the folder above theirs.
    let file = |test: &str, end: &str| folder.join(format!("main/{test}.{end}"));
    // Files of the other run would be in the way.
    let _ = fs::remove_dir_all(vardir(run).join("tmp"));
    fs::create_dir_all(vardir(run).join("tmp"))?;
    let clean = run.work.join("clean.test");
    fs::write(&clean, CLEAN)?;
    let mut outcomes = Outcomes::new();
    for test in TESTS.split_whitespace().filter(|test| file(test, "test").is_file()) {
        let twice = BINARY.iter().any(|start| test.starts_with(start));
        for flag in [None, Some("--ps-protocol")].into_iter().take(if twice { 2 } else { 1 }) {
            let name = format!("{test}{}", if flag.is_some() { " (prepared)" } else { "" });
            if run.only.is_some_and(|only| !only.contains(&name)) {
                continue;
            }
            let mut reset = mysqltest(run, &folder);
            reset.arg("--database=mysql").arg("--test-file").arg(&clean);
            if run.bounded(&reset, TEST_SECONDS_MAX)?.1 != Some(0) {
                // A file that a test has written among the tables keeps a database from going.
                let _ = fs::remove_dir_all(run.data.join("test"));
                run.bounded(&reset, TEST_SECONDS_MAX)?;
            }
            let mut command = mysqltest(run, &folder);
            command.arg("--database=test").args(flag).arg("--test-file").arg(file(test, "test"));
            command.arg("--result-file").arg(file(test, "result"));
            let outcome = match run.bounded(&command, TEST_SECONDS_MAX)?.1 {
                Some(0) => Outcome::Passed,
                Some(62) => Outcome::Skipped,
                _ => Outcome::Failed,
            };
            outcomes.insert(name, outcome);
        }
    }
    Ok(outcomes)
}

/// Whatever a test left must not decide over the next one: databases, users and global variables become what they were
/// when this first ran.
const CLEAN: &str = "
--disable_query_log
SET sql_mode = '';
CREATE DATABASE IF NOT EXISTS keep;
CREATE TABLE IF NOT EXISTS keep.users ENGINE = InnoDB AS SELECT user, host FROM mysql.user;
CREATE TABLE IF NOT EXISTS keep.variables ENGINE = InnoDB AS
  SELECT variable_name AS name, variable_value AS value FROM information_schema.global_variables;
DELIMITER //;
CREATE OR REPLACE PROCEDURE keep.clean()
BEGIN
  DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;
  FOR it IN (SELECT name, value FROM keep.variables JOIN information_schema.global_variables ON variable_name = name
             WHERE value <> variable_value AND name NOT LIKE 'gtid%') DO
    EXECUTE IMMEDIATE
      CONCAT('SET GLOBAL ', it.name, ' = ', IF(it.value REGEXP '^-?[0-9.]+$', it.value, QUOTE(it.value)));
  END FOR;
  FOR it IN (SELECT schema_name AS name FROM information_schema.schemata
             WHERE schema_name NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema', 'keep')) DO
    EXECUTE IMMEDIATE CONCAT('DROP DATABASE `', it.name, '`');
  END FOR;
  FOR it IN (SELECT user, host FROM mysql.user WHERE (user, host) NOT IN (SELECT user, host FROM keep.users)) DO
    EXECUTE IMMEDIATE CONCAT('DROP USER ', QUOTE(it.user), '@', QUOTE(it.host));
  END FOR;
END//
DELIMITER ;//
CALL keep.clean();
CREATE DATABASE test;
CREATE DATABASE mtr;
CREATE PROCEDURE mtr.add_suppression(pattern TEXT) BEGIN END;
";

fn mysqltest(run: &Run<'_>, folder: &Path) -> Command {
    let mut command = at(run, "mysqltest");
    command.current_dir(folder).args(["--silent", "--protocol=tcp", "--user=root"]);
    command.arg("--tmpdir").arg(vardir(run).join("tmp")).arg("--logdir").arg(run.work);
    let port = run.port.to_string();
    command.envs([("MASTER_MYPORT", port.as_str()), ("DEFAULT_MASTER_PORT", &port)]);
    command
        .env("MYSQLTEST_VARDIR", vardir(run))
        .env("MYSQL_TEST_DIR", folder)
        .env("MYSQL_TMP_DIR", vardir(run).join("tmp"))
        .env("TZ", "GMT-3");
    command
}

/// Tests may write to this folder and below it alone, and write beside the server's data.
fn vardir<'a>(run: &'a Run<'_>) -> &'a Path {
    run.data.parent().unwrap_or(run.data)
}

fn at(run: &Run<'_>, program: &str) -> Command {
    let mut command = Command::new(run.install.join("bin").join(program));
    command.args(["--host=127.0.0.1".to_owned(), format!("--port={}", run.port)]);
    command
}

fn run_client(run: &Run<'_>) -> Result<Outcomes> {
    let mut list = Command::new(run.install.join("bin/client-test"));
    list.arg("--show-tests");
    let (names, _) = run.bounded(&list, TEST_SECONDS_MAX)?;
    let mut outcomes = Outcomes::new();
    for name in names.lines().map(str::trim).filter(|line| line.starts_with("test_")) {
        if run.only.is_some_and(|only| !only.contains(name)) {
            continue;
        }
        // A test that fails ends the program.
        let mut command = at(run, "client-test");
        command.args([format!("--user={USER}"), format!("--password={PASSWORD}")]);
        command
            .args(["--silent", "--do-not-drop-database", "--database=client_test_db", "--vardir"])
            .arg(run.work)
            .arg(name)
            .current_dir(run.work);
        let (said, status) = run.bounded(&command, TEST_SECONDS_MAX)?;
        let outcome = match status {
            // A name that this build has no test for.
            Some(0) if said.contains("All '0' tests") => Outcome::Skipped,
            Some(0) => Outcome::Passed,
            _ => Outcome::Failed,
        };
        outcomes.insert(name.to_owned(), outcome);
    }
    Ok(outcomes)
}
