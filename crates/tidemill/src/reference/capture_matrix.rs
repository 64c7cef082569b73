//! `capture-matrix.md`: which settings of a source are captured and which are refused, cell by cell as the test runs them.

use super::capture_cells::{CELLS, Cell, SETTLE, Setup};
use super::{NOTE, row};
use std::fmt::Write;

/// What is not in the cells, because nothing here could run it.
const NOT_RUN: [(&str, &str); 3] = [
    ("MySQL 5.7 and 8.0", "not run: no packages of them for the systems that the tests are made for"),
    ("MySQL 8.4", "not run; read by the same code as 9.x"),
    ("MariaDB 11 and 12", "not run; read by the same code as 10.11"),
];

pub fn page() -> String {
    let mut out = format!(
        "# Capture matrix\n\n{NOTE}\n\n\
         What the binlog of a server may look like, and what capture makes of it. Every line is a cell that the test \
         `matrix` runs against a real server: a setting, statements under it, and how it must end. Where a line says nothing \
         else, `binlog_row_image`, `binlog_row_metadata` and `binlog_format` are `FULL`, `FULL` and `ROW`, and \
         `binlog_checksum` is `CRC32`.\n\n\
         - *captured exactly*: the journal has each change once, in the order in which the statements ran, every image before \
         a change is the image after the last one, and the last images are what the server's own SELECT answers.\n\
         - *exact in the end, the table read anew*: what the journal adds up to is what SELECT answers, but some changes before \
         the table was read anew are not in it one by one.\n\
         - *refused*: `tidemill check --connect` says so, and `tidemill up` captures nothing until it is mended.\n\
         - *table quarantined*: a session did it by itself. The table alone is set aside and `tidemill status` says why; \
         every other table flows on. `tidemill flow resnapshot FLOW TABLE` heals it, which the test does too.\n",
    );
    for setup in [Setup::MySql, Setup::MySqlNoGtid, Setup::MariaDb] {
        let _ = writeln!(out, "\n## {}\n", setup.name());
        out.push_str(&row(&["setting", "what is run", "how it ends"]));
        out.push_str("|---|---|---|\n");
        for cell in CELLS.iter().filter(|cell| cell.setup == setup) {
            out.push_str(&row(&[cell.name, &what_is_run(cell), &cell.ends.text()]));
        }
    }
    out.push_str("\n## Not run\n\n");
    out.push_str(&row(&["server", ""]));
    out.push_str("|---|---|\n");
    for (server, why) in NOT_RUN {
        out.push_str(&row(&[server, why]));
    }
    out
}

/// The settings as statements, and how much is done under them.
fn what_is_run(cell: &Cell) -> String {
    let settings = cell.global.iter().chain(cell.session).map(|sql| format!("`{sql}`"));
    let steps = || cell.steps.iter().flat_map(|steps| steps.iter()).filter(|(sql, _)| *sql != SETTLE);
    let changes = steps().flat_map(|(_, changes)| changes.split_whitespace()).count();
    let done = match (steps().count(), changes) {
        (0, _) => None,
        (statements, 0) => Some(format!("{statements} statements")),
        (statements, changes) => Some(format!("{statements} statements, {changes} changes of rows")),
    };
    settings.chain(done).collect::<Vec<_>>().join("; ")
}
