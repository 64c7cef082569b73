//! The cells of the capture matrix: a setting of a server, what is run under it, and how it must end. The test
//! `matrix` of `tests/pipelines` runs every one of them, and `capture-matrix.md` is made of them.

/// A server that runs with settings that cannot be changed while it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    MySql,
    MySqlNoGtid,
    MariaDb,
}

/// How a cell ends.
#[derive(Clone, Copy, Debug)]
pub enum Ends {
    /// Every change is in the journal, once, in order, with both images as the server has them.
    Captured,
    /// The end is exact, but the journal need not have every step to it: the table may be read anew.
    ReadAnew,
    /// `check --connect` and `up` say these words.
    Refused(&'static str),
    /// The table alone is set aside, with these words, and what else is captured flows on.
    Quarantined(&'static str),
}

/// A statement, and the changes that it makes: `i1` inserts the row with id 1, `u1` updates it, `u1>2` with a new id, `d1`
/// deletes it. `{t}` is the cell's table. Behind `other: ` it is run in a second session; [`SETTLE`] waits until all before
/// is captured.
pub type Step = (&'static str, &'static str);

pub const SETTLE: &str = "settle";

#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub setup: Setup,
    pub name: &'static str,
    /// Run before, for all sessions. What other cells changed is as it was.
    pub global: &'static [&'static str],
    /// Run in the writer's own session.
    pub session: &'static [&'static str],
    pub steps: &'static [&'static [Step]],
    pub ends: Ends,
}

impl Setup {
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL 9.7, GTIDs on",
            Self::MySqlNoGtid => "MySQL 9.7, GTIDs off",
            Self::MariaDb => "MariaDB 10.11",
        }
    }
}

impl Ends {
    pub fn text(self) -> String {
        match self {
            Self::Captured => "captured exactly".to_owned(),
            Self::ReadAnew => "exact in the end, the table read anew".to_owned(),
            Self::Refused(words) => format!("refused: {words}"),
            Self::Quarantined(words) => format!("table quarantined: {words}"),
        }
    }
}

/// A table with a column of each kind that a setting may bear on.
const TABLE: &[Step] = &[(
    "CREATE TABLE {t} (id INT PRIMARY KEY, n INT UNSIGNED, m BIGINT UNSIGNED, s VARCHAR(300) CHARACTER SET latin1, \
     u VARCHAR(20) CHARACTER SET utf8mb4, e ENUM('red','grün') CHARACTER SET utf8mb4, k SET('x','y','z'), \
     d DECIMAL(10,3), at DATETIME(3), note MEDIUMTEXT CHARACTER SET utf8mb4, b VARBINARY(9), t TINYINT UNSIGNED, j JSON)",
    "",
)];

const ROWS: &[Step] = &[
    (
        "INSERT INTO {t} VALUES (1, 4294967295, 18446744073709551615, 'é', '字', 'grün', 'x,z', -1.5, \
         '2026-01-02 03:04:05.678', 'long', x'00ff', 255, '{\"a\": [1, \"x\"]}'), \
         (2, 0, 0, '', '', 'red', '', 0, '0001-01-01 00:00:00', NULL, '', 0, 'null'), \
         (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        "i1 i2 i3",
    ),
    ("UPDATE {t} SET n = n - 1 WHERE id = 1", "u1"),
    ("UPDATE {t} SET note = REPEAT('ab', 400), e = 'red' WHERE id < 3", "u1 u2"),
    ("UPDATE {t} SET id = 12, t = 200 WHERE id = 2", "u2>12"),
    ("DELETE FROM {t} WHERE id = 1", "d1"),
    ("INSERT INTO {t} (id, m) VALUES (1, 9223372036854775808)", "i1"),
    ("BEGIN", ""),
    ("UPDATE {t} SET d = 7.125 WHERE id = 3", "u3"),
    ("DELETE FROM {t} WHERE id = 12", "d12"),
    ("COMMIT", ""),
];

const JSON: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, j JSON, v INT, k JSON)", ""),
    (
        "INSERT INTO {t} VALUES (1, '{\"a\": [1, 2, {\"b\": \"x\"}], \"long key\": \"yyyy\", \"ü\": 1.5, \"q\": null}', 1, \
         '[1, [2, 3]]'), (2, NULL, 2, '{}'), (3, '[]', 3, NULL)",
        "i1 i2 i3",
    ),
    ("UPDATE {t} SET j = JSON_SET(j, '$.a[1]', 'changed'), v = v + 1 WHERE id = 1", "u1"),
    (
        "UPDATE {t} SET j = JSON_REPLACE(j, '$.\"long key\"', 'z', '$.a[2].b', JSON_OBJECT('c', 1.25)), \
         k = JSON_SET(k, '$[1][0]', CAST(9.50 AS DECIMAL(5,2))) WHERE id = 1",
        "u1",
    ),
    ("UPDATE {t} SET j = JSON_REMOVE(j, '$.\"ü\"', '$.a[0]'), v = 7", "u1 u2 u3"),
    ("UPDATE {t} SET j = JSON_SET(j, '$.n', CAST('2026-01-02 03:04:05' AS DATETIME), '$.a[9]', TRUE)", "u1"),
    (
        "UPDATE {t} SET k = JSON_SET(k, '$.\"a \\\\\"b\"', REPEAT('y', 300)), j = JSON_SET(j, '$.q.r', 1)",
        "u2",
    ),
    ("UPDATE {t} SET j = JSON_SET(j, '$.n[1]', 2, '$.n[last]', NULL) WHERE id = 1", "u1"),
    ("UPDATE {t} SET j = '{\"a\": 1}', k = NULL WHERE id = 2", "u2"),
    ("UPDATE {t} SET j = JSON_SET(j, '$.a', 2), id = 22 WHERE id = 2", "u2>22"),
    ("UPDATE {t} SET j = NULL WHERE id = 22", "u22"),
    ("DELETE FROM {t} WHERE id = 1", "d1"),
];

/// Rows wait for their XA COMMIT, and go with their XA ROLLBACK.
const XA: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, v INT)", ""),
    ("XA START 'a', 'b', 3", ""),
    ("INSERT INTO {t} VALUES (1, 1), (2, 1)", ""),
    ("UPDATE {t} SET v = 2 WHERE id = 2", ""),
    ("XA END 'a', 'b', 3", ""),
    ("XA PREPARE 'a', 'b', 3", ""),
    ("other: INSERT INTO {t} VALUES (3, 3)", "i3"),
    ("settle", ""),
    ("other: UPDATE {t} SET v = 4 WHERE id = 3", "u3"),
    ("XA COMMIT 'a', 'b', 3", "i1 i2 u2"),
    ("XA START 'c'", ""),
    ("DELETE FROM {t} WHERE id = 1", ""),
    ("XA END 'c'", ""),
    ("XA PREPARE 'c'", ""),
    ("other: INSERT INTO {t} VALUES (4, 4)", "i4"),
    ("XA ROLLBACK 'c'", ""),
    ("XA START 'd'", ""),
    ("DELETE FROM {t} WHERE id = 2", "d2"),
    ("XA END 'd'", ""),
    ("XA COMMIT 'd' ONE PHASE", ""),
    ("UPDATE {t} SET v = 5 WHERE id = 1", "u1"),
];

/// Events of 20 and 40 MiB.
const LARGE: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, v INT, note LONGTEXT)", ""),
    ("INSERT INTO {t} VALUES (1, 1, REPEAT('x', 20 << 20)), (2, 2, 'y')", "i1 i2"),
    ("UPDATE {t} SET v = 3", "u1 u2"),
];

/// Definitions that change between rows.
const DDL: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, a INT, b INT, s VARCHAR(9))", ""),
    ("INSERT INTO {t} VALUES (1, 10, 20, 'x')", "i1"),
    ("settle", ""),
    ("ALTER TABLE {t} RENAME COLUMN a TO c", ""),
    ("settle", ""),
    ("UPDATE {t} SET c = 11", "u1"),
    ("settle", ""),
    ("ALTER TABLE {t} ADD COLUMN f INT, DROP COLUMN s", ""),
    ("settle", ""),
    ("INSERT INTO {t} VALUES (2, 12, 22, 32)", "i2"),
    ("settle", ""),
    ("ALTER TABLE {t} MODIFY COLUMN b INT AFTER f", ""),
    ("settle", ""),
    ("INSERT INTO {t} VALUES (3, 13, 33, 23)", "i3"),
];

/// A name that goes from one column to another.
const DDL_REMADE: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, a VARCHAR(9), b INT)", ""),
    ("INSERT INTO {t} VALUES (1, 'x', 20), (2, 'y', 21)", ""),
    ("settle", ""),
    ("ALTER TABLE {t} DROP COLUMN a, RENAME COLUMN b TO a", ""),
    ("INSERT INTO {t} VALUES (3, 22)", ""),
    ("settle", ""),
    ("ALTER TABLE {t} RENAME COLUMN a TO b, ADD COLUMN a INT DEFAULT 7", ""),
    ("INSERT INTO {t} VALUES (4, 23, 8)", ""),
    ("settle", ""),
    ("ALTER TABLE {t} RENAME COLUMN a TO b, RENAME COLUMN b TO a", ""),
    ("UPDATE {t} SET a = a + 1", ""),
];

/// Definitions that change faster than capture follows, so that the server's are ahead of the rows.
const DDL_AHEAD: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, a INT, b INT)", ""),
    ("settle", ""),
    ("INSERT INTO {t} VALUES (1, 10, 20)", ""),
    ("ALTER TABLE {t} MODIFY COLUMN b INT AFTER id", ""),
    ("INSERT INTO {t} VALUES (2, 21, 11)", ""),
    ("ALTER TABLE {t} RENAME COLUMN b TO x, RENAME COLUMN a TO y", ""),
    ("INSERT INTO {t} VALUES (3, 22, 12)", ""),
    ("ALTER TABLE {t} MODIFY COLUMN x INT AFTER y", ""),
    ("INSERT INTO {t} VALUES (4, 13, 23)", ""),
    ("ALTER TABLE {t} ADD COLUMN z INT", ""),
    ("INSERT INTO {t} VALUES (5, 14, 24, 34)", ""),
    ("ALTER TABLE {t} DROP COLUMN x, RENAME COLUMN z TO x", ""),
    ("UPDATE {t} SET y = y + 1", ""),
];

/// A definition that changes behind the binlog's back, and back again.
const DDL_UNLOGGED: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, a INT)", ""),
    ("INSERT INTO {t} VALUES (1, 10)", ""),
    ("settle", ""),
    ("SET sql_log_bin = 0", ""),
    ("ALTER TABLE {t} ADD COLUMN b VARCHAR(9)", ""),
    ("SET sql_log_bin = 1", ""),
    ("INSERT INTO {t} VALUES (2, 11, 'x')", ""),
    ("SET sql_log_bin = 0", ""),
    ("ALTER TABLE {t} DROP COLUMN b", ""),
    ("SET sql_log_bin = 1", ""),
    ("settle", ""),
    ("INSERT INTO {t} VALUES (3, 12)", ""),
];

const NO_BLOBS: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, v INT)", ""),
    ("INSERT INTO {t} VALUES (1, 1), (2, 2)", "i1 i2"),
    ("UPDATE {t} SET v = 3 WHERE id = 1", "u1"),
    ("DELETE FROM {t} WHERE id = 1", "d1"),
];

const GTIDS: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, v INT)", ""),
    ("SET gtid_next = 'AUTOMATIC:blue'", ""),
    ("INSERT INTO {t} VALUES (1, 1)", "i1"),
    ("UPDATE {t} SET v = 2", "u1"),
    ("SET gtid_next = 'AUTOMATIC:green'", ""),
    ("INSERT INTO {t} VALUES (2, 1)", "i2"),
    ("SET gtid_next = '3e11fa47-71ca-11e1-9e33-c80aa9429562:7'", ""),
    ("UPDATE {t} SET v = 3", "u1 u2"),
    ("SET gtid_next = '3e11fa47-71ca-11e1-9e33-c80aa9429562:3'", ""),
    ("DELETE FROM {t} WHERE id = 1", "d1"),
    ("SET gtid_next = '4e11fa47-71ca-11e1-9e33-c80aa9429562:blue:5'", ""),
    ("INSERT INTO {t} VALUES (3, 1)", "i3"),
    ("SET gtid_next = 'AUTOMATIC'", ""),
    ("UPDATE {t} SET v = 4", "u2 u3"),
];

const DOMAINS: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, v INT)", ""),
    ("SET gtid_domain_id = 7", ""),
    ("INSERT INTO {t} VALUES (1, 1)", "i1"),
    ("SET server_id = 99", ""),
    ("UPDATE {t} SET v = 2", "u1"),
    ("SET gtid_domain_id = 0, gtid_seq_no = 100000", ""),
    ("INSERT INTO {t} VALUES (2, 1)", "i2"),
    ("SET gtid_domain_id = 7", ""),
    ("DELETE FROM {t} WHERE id = 1", "d1"),
];

const COMPRESSED: &[Step] = &[
    (
        "CREATE TABLE {t} (id INT PRIMARY KEY, s VARCHAR(300) COMPRESSED CHARACTER SET latin1, note MEDIUMTEXT COMPRESSED CHARACTER SET utf8mb4, \
         b BLOB COMPRESSED, v INT UNSIGNED)",
        "",
    ),
    (
        "INSERT INTO {t} VALUES (1, REPEAT('é', 300), REPEAT('字', 4000), x'00ff', 4294967295), (2, '', NULL, '', 0)",
        "i1 i2",
    ),
    ("UPDATE {t} SET v = 1, b = REPEAT('ab', 500)", "u1 u2"),
    ("DELETE FROM {t} WHERE id = 2", "d2"),
];

const TWO_CHECKSUMS: &[Step] = &[
    ("CREATE TABLE {t} (id INT PRIMARY KEY, v INT)", ""),
    ("INSERT INTO {t} VALUES (1, 1)", "i1"),
    ("SET GLOBAL binlog_checksum = 'NONE'", ""),
    ("UPDATE {t} SET v = 2", "u1"),
    ("SET GLOBAL binlog_checksum = 'CRC32'", ""),
    ("DELETE FROM {t}", "d1"),
];

const fn cell(setup: Setup, name: &'static str) -> Cell {
    Cell { setup, name, global: &[], session: &[], steps: &[TABLE, ROWS], ends: Ends::Captured }
}

/// A cell of other statements.
const fn of(setup: Setup, name: &'static str, steps: &'static [&'static [Step]]) -> Cell {
    Cell { steps, ..cell(setup, name) }
}

const fn refused(
    setup: Setup,
    name: &'static str,
    global: &'static [&'static str],
    words: &'static str,
) -> Cell {
    Cell { global, steps: &[], ends: Ends::Refused(words), ..cell(setup, name) }
}

const MINIMAL_METADATA: &[&str] = &["SET GLOBAL binlog_row_metadata = 'MINIMAL'"];
const NO_METADATA: &[&str] = &["SET GLOBAL binlog_row_metadata = 'NO_LOG'"];
const MINIMAL_IMAGE: &[&str] = &["SET GLOBAL binlog_row_image = 'MINIMAL'"];
const NOBLOB_IMAGE: &[&str] = &["SET GLOBAL binlog_row_image = 'NOBLOB'"];
const LACKS_COLUMNS: Ends = Ends::Quarantined("a row image lacks columns: binlog_row_image was not FULL");

pub const CELLS: &[Cell] = &[
    cell(Setup::MySql, "as above"),
    Cell {
        global: &["SET GLOBAL binlog_checksum = 'NONE'"],
        ..cell(Setup::MySql, "`binlog_checksum = NONE`")
    },
    of(Setup::MySql, "`binlog_checksum` changed to and fro between statements", &[TWO_CHECKSUMS]),
    Cell {
        session: &["SET binlog_transaction_compression = ON"],
        ..cell(Setup::MySql, "`binlog_transaction_compression = ON`")
    },
    Cell {
        session: &["SET binlog_rows_query_log_events = ON"],
        ..cell(Setup::MySql, "`binlog_rows_query_log_events = ON`")
    },
    Cell { global: MINIMAL_METADATA, ..cell(Setup::MySql, "`binlog_row_metadata = MINIMAL`") },
    Cell {
        global: MINIMAL_METADATA,
        ..of(
            Setup::MySql,
            "`binlog_row_metadata = MINIMAL`, columns renamed, added, dropped and moved",
            &[DDL],
        )
    },
    Cell {
        global: MINIMAL_METADATA,
        ends: Ends::ReadAnew,
        ..of(
            Setup::MySql,
            "`binlog_row_metadata = MINIMAL`, columns of one type renamed and moved while capture is behind",
            &[DDL_AHEAD],
        )
    },
    Cell {
        global: MINIMAL_METADATA,
        ends: Ends::ReadAnew,
        ..of(
            Setup::MySql,
            "`binlog_row_metadata = MINIMAL`, a table altered with `sql_log_bin = 0`",
            &[DDL_UNLOGGED],
        )
    },
    of(Setup::MySql, "columns renamed, added, dropped and moved", &[DDL]),
    Cell {
        ends: Ends::ReadAnew,
        ..of(Setup::MySql, "a column that takes the name of one that is dropped or renamed", &[DDL_REMADE])
    },
    Cell {
        ends: Ends::ReadAnew,
        ..of(Setup::MySql, "columns of one type renamed and moved while capture is behind", &[DDL_AHEAD])
    },
    refused(
        Setup::MySql,
        "`binlog_row_image = MINIMAL`",
        MINIMAL_IMAGE,
        "binlog_row_image is MINIMAL, not FULL",
    ),
    refused(
        Setup::MySql,
        "`binlog_row_image = NOBLOB`",
        NOBLOB_IMAGE,
        "binlog_row_image is NOBLOB, not FULL",
    ),
    Cell {
        session: &["SET binlog_row_image = 'MINIMAL'"],
        ends: LACKS_COLUMNS,
        ..cell(Setup::MySql, "`binlog_row_image = MINIMAL` in a session")
    },
    Cell {
        session: &["SET binlog_row_image = 'NOBLOB'"],
        ends: LACKS_COLUMNS,
        ..cell(Setup::MySql, "`binlog_row_image = NOBLOB` in a session, a table with TEXT and JSON")
    },
    Cell {
        session: &["SET binlog_row_image = 'NOBLOB'"],
        ..of(
            Setup::MySql,
            "`binlog_row_image = NOBLOB` in a session, a table without such columns",
            &[NO_BLOBS],
        )
    },
    Cell {
        session: &["SET binlog_row_value_options = 'PARTIAL_JSON'"],
        ..of(Setup::MySql, "`binlog_row_value_options = PARTIAL_JSON`", &[JSON])
    },
    Cell {
        session: &[
            "SET binlog_row_value_options = 'PARTIAL_JSON'",
            "SET binlog_transaction_compression = ON",
        ],
        global: MINIMAL_METADATA,
        ..of(
            Setup::MySql,
            "`binlog_row_value_options = PARTIAL_JSON`, compressed, `binlog_row_metadata = MINIMAL`",
            &[JSON],
        )
    },
    Cell {
        session: &["SET binlog_row_value_options = 'PARTIAL_JSON'", "SET binlog_row_image = 'MINIMAL'"],
        ends: LACKS_COLUMNS,
        ..of(Setup::MySql, "`PARTIAL_JSON` and `binlog_row_image = MINIMAL` in a session", &[JSON])
    },
    refused(
        Setup::MySql,
        "`binlog_format = STATEMENT`",
        &["SET GLOBAL binlog_format = 'STATEMENT'"],
        "binlog_format is STATEMENT, not ROW",
    ),
    refused(
        Setup::MySql,
        "`binlog_format = MIXED`",
        &["SET GLOBAL binlog_format = 'MIXED'"],
        "binlog_format is MIXED, not ROW",
    ),
    refused(
        Setup::MySql,
        "`gtid_mode = ON_PERMISSIVE`",
        &["SET GLOBAL gtid_mode = 'ON_PERMISSIVE'"],
        "gtid_mode is ON_PERMISSIVE",
    ),
    of(Setup::MySql, "GTIDs with tags, of several servers, and out of order", &[GTIDS]),
    of(Setup::MySql, "XA transactions", &[XA]),
    Cell {
        session: &["SET binlog_transaction_compression = ON"],
        ..of(Setup::MySql, "XA transactions, `binlog_transaction_compression = ON`", &[XA])
    },
    of(Setup::MySql, "events of 20 and 40 MiB", &[LARGE]),
    Cell {
        session: &["SET binlog_transaction_compression = ON"],
        ..of(Setup::MySql, "events of 20 and 40 MiB, compressed", &[LARGE])
    },
    Cell {
        global: &["SET GLOBAL rpl_semi_sync_source_enabled = ON"],
        ..cell(Setup::MySql, "semi-synchronous replication")
    },
    cell(Setup::MySqlNoGtid, "as above"),
    Cell {
        global: &["SET GLOBAL binlog_checksum = 'NONE'"],
        ..cell(Setup::MySqlNoGtid, "`binlog_checksum = NONE`")
    },
    Cell {
        session: &["SET binlog_transaction_compression = ON"],
        ..cell(Setup::MySqlNoGtid, "`binlog_transaction_compression = ON`")
    },
    Cell { global: MINIMAL_METADATA, ..cell(Setup::MySqlNoGtid, "`binlog_row_metadata = MINIMAL`") },
    Cell {
        global: MINIMAL_METADATA,
        ends: Ends::ReadAnew,
        ..of(
            Setup::MySqlNoGtid,
            "`binlog_row_metadata = MINIMAL`, columns of one type renamed and moved while capture is behind",
            &[DDL_AHEAD],
        )
    },
    Cell {
        session: &["SET binlog_row_image = 'MINIMAL'"],
        ends: LACKS_COLUMNS,
        ..cell(Setup::MySqlNoGtid, "`binlog_row_image = MINIMAL` in a session")
    },
    Cell {
        session: &["SET binlog_row_value_options = 'PARTIAL_JSON'"],
        ..of(Setup::MySqlNoGtid, "`binlog_row_value_options = PARTIAL_JSON`", &[JSON])
    },
    of(Setup::MySqlNoGtid, "XA transactions", &[XA]),
    of(Setup::MySqlNoGtid, "events of 20 and 40 MiB", &[LARGE]),
    cell(Setup::MariaDb, "as above"),
    Cell {
        global: &["SET GLOBAL binlog_checksum = 'NONE'"],
        ..cell(Setup::MariaDb, "`binlog_checksum = NONE`")
    },
    of(Setup::MariaDb, "`binlog_checksum` changed to and fro between statements", &[TWO_CHECKSUMS]),
    Cell { global: MINIMAL_METADATA, ..cell(Setup::MariaDb, "`binlog_row_metadata = MINIMAL`") },
    Cell { global: NO_METADATA, ..cell(Setup::MariaDb, "`binlog_row_metadata = NO_LOG`, the default") },
    Cell {
        global: NO_METADATA,
        ..of(
            Setup::MariaDb,
            "`binlog_row_metadata = NO_LOG`, columns renamed, added, dropped and moved",
            &[DDL],
        )
    },
    Cell {
        global: NO_METADATA,
        ends: Ends::ReadAnew,
        ..of(
            Setup::MariaDb,
            "`binlog_row_metadata = NO_LOG`, columns of one type renamed and moved while capture is behind",
            &[DDL_AHEAD],
        )
    },
    of(Setup::MariaDb, "columns renamed, added, dropped and moved", &[DDL]),
    Cell {
        ends: Ends::ReadAnew,
        ..of(Setup::MariaDb, "a column that takes the name of one that is dropped or renamed", &[DDL_REMADE])
    },
    Cell {
        global: &["SET GLOBAL log_bin_compress = ON", "SET GLOBAL log_bin_compress_min_len = 10"],
        ..cell(Setup::MariaDb, "`log_bin_compress = ON`")
    },
    of(Setup::MariaDb, "columns that are COMPRESSED", &[COMPRESSED]),
    Cell {
        global: NO_METADATA,
        ..of(Setup::MariaDb, "columns that are COMPRESSED, `binlog_row_metadata = NO_LOG`", &[COMPRESSED])
    },
    refused(
        Setup::MariaDb,
        "`binlog_row_image = MINIMAL`",
        MINIMAL_IMAGE,
        "binlog_row_image is MINIMAL, not FULL",
    ),
    refused(
        Setup::MariaDb,
        "`binlog_row_image = NOBLOB`",
        NOBLOB_IMAGE,
        "binlog_row_image is NOBLOB, not FULL",
    ),
    Cell {
        session: &["SET binlog_row_image = 'MINIMAL'"],
        ends: LACKS_COLUMNS,
        ..cell(Setup::MariaDb, "`binlog_row_image = MINIMAL` in a session")
    },
    Cell {
        session: &["SET binlog_row_image = 'NOBLOB'"],
        ends: LACKS_COLUMNS,
        ..cell(Setup::MariaDb, "`binlog_row_image = NOBLOB` in a session, a table with TEXT and JSON")
    },
    refused(
        Setup::MariaDb,
        "`binlog_format = MIXED`, the default",
        &["SET GLOBAL binlog_format = 'MIXED'"],
        "binlog_format is MIXED, not ROW",
    ),
    of(Setup::MariaDb, "GTIDs of several domains and servers", &[DOMAINS]),
    of(Setup::MariaDb, "XA transactions", &[XA]),
    Cell {
        global: &["SET GLOBAL max_allowed_packet = 1 << 30"],
        ..of(Setup::MariaDb, "events of 20 and 40 MiB", &[LARGE])
    },
];
