//! SHOW and DESCRIBE as SELECTs over `information_schema`, so that LIKE and WHERE are the engine's.

use crate::error::SqlError;
use crate::text::{Text, literal};

/// What a SHOW asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// Of a database that must be there, or a table of it.
    Schema {
        sql: String,
        database: Option<String>,
        table: Option<String>,
    },
    Databases {
        filter: Filter,
    },
    Variables {
        global: bool,
        filter: Filter,
    },
    Status {
        filter: Filter,
    },
    /// There are none.
    Warnings,
    WarningCount,
    CreateTable {
        database: String,
        table: String,
    },
    CreateDatabase {
        database: String,
    },
    Grants,
}

/// What stands behind a SHOW.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    like: Option<String>,
    condition: Option<String>,
}

/// The rows of a SHOW.
struct Listing<'a> {
    /// Name, and the expression that it is.
    columns: Vec<(String, &'a str)>,
    from: &'a str,
    condition: String,
    /// What LIKE is of.
    like: &'a str,
    order: &'a [&'a str],
}

impl Filter {
    /// LIKE or WHERE at a token, and nothing behind it.
    fn read(text: &Text<'_>, at: usize) -> Result<Self, SqlError> {
        if text.kind(at).is_none() {
            return Ok(Self::default());
        }
        if text.is(at, "where") && text.kind(at + 1).is_some() {
            return Ok(Self { condition: Some(text.from(at + 1).to_owned()), like: None });
        }
        match text.string(at + 1).filter(|_| text.is(at, "like") && text.kind(at + 2).is_none()) {
            Some(pattern) => Ok(Self { like: Some(pattern), condition: None }),
            None => Err(SqlError::syntax(text.from(at))),
        }
    }

    /// Over the rows of a table with these columns.
    pub fn select(&self, columns: &[&str], from: &str) -> String {
        let first = columns.first().copied().unwrap_or_default();
        let columns = columns.iter().map(|name| ((*name).to_owned(), *name)).collect();
        Listing { columns, from, condition: "1 = 1".into(), like: first, order: &[first] }.select(self)
    }
}

impl Listing<'_> {
    fn select(&self, filter: &Filter) -> String {
        let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
        let listed: Vec<String> = self
            .columns
            .iter()
            .map(|(name, expression)| format!("{expression} AS {}", quoted(name)))
            .collect();
        let (listed, from, condition) = (listed.join(", "), self.from, &self.condition);
        let order = self.order.join(", ");
        match (&filter.like, &filter.condition) {
            (_, Some(asked)) => {
                let names: Vec<String> = self.columns.iter().map(|(name, _)| quoted(name)).collect();
                let orders: Vec<String> = self
                    .order
                    .iter()
                    .enumerate()
                    .map(|(at, it)| format!("{it} AS shown_order{at}"))
                    .collect();
                let by: Vec<String> = (0..self.order.len()).map(|at| format!("shown_order{at}")).collect();
                format!(
                    "SELECT {} FROM (SELECT {listed}, {} FROM {from} WHERE {condition}) AS shown WHERE ({asked}) ORDER BY {}",
                    names.join(", "),
                    orders.join(", "),
                    by.join(", ")
                )
            }
            (Some(pattern), None) => format!(
                "SELECT {listed} FROM {from} WHERE {condition} AND {} LIKE {} ORDER BY {order}",
                self.like,
                literal(pattern)
            ),
            (None, None) => format!("SELECT {listed} FROM {from} WHERE {condition} ORDER BY {order}"),
        }
    }
}

fn columns<'a>(all: &[(&str, &'a str)]) -> Vec<(String, &'a str)> {
    all.iter().map(|(name, expression)| ((*name).to_owned(), *expression)).collect()
}

fn no_database() -> SqlError {
    SqlError::new(1046, "No database selected")
}

/// `FROM name` or `IN name` at a token: the name, and the place behind it.
fn from(text: &Text<'_>, at: usize) -> Result<(Option<String>, usize), SqlError> {
    if !text.is(at, "from") && !text.is(at, "in") {
        return Ok((None, at));
    }
    let name = text.name(at + 1).ok_or_else(|| SqlError::syntax(text.from(at)))?;
    Ok((Some(name), at + 2))
}

/// Reads a SHOW in a session whose database is `current`.
pub fn show(text: &Text<'_>, current: Option<&str>) -> Result<Show, SqlError> {
    let mut at = 1;
    let mut full = false;
    while ["full", "extended", "global", "session", "local", "storage"].iter().any(|word| text.is(at, word)) {
        full |= text.is(at, "full");
        at += 1;
    }
    let global = text.is(1, "global");
    let word = text.at(at).to_ascii_lowercase();
    match word.as_str() {
        "databases" | "schemas" => Ok(Show::Databases { filter: Filter::read(text, at + 1)? }),
        "tables" => {
            let (database, at) = from(text, at + 1)?;
            let database = database.or_else(|| current.map(str::to_owned)).ok_or_else(no_database)?;
            let filter = Filter::read(text, at)?;
            let title = match &filter.like {
                Some(pattern) => format!("Tables_in_{database} ({pattern})"),
                None => format!("Tables_in_{database}"),
            };
            let mut shown = vec![(title, "table_name")];
            if full {
                shown.push(("Table_type".to_owned(), "table_type"));
            }
            let listing = Listing {
                columns: shown,
                from: "information_schema.tables",
                condition: format!("table_schema = {}", literal(&database)),
                like: "table_name",
                order: &["table_name"],
            };
            Ok(Show::Schema { sql: listing.select(&filter), database: Some(database), table: None })
        }
        "table" if text.is(at + 1, "status") => {
            let (database, at) = from(text, at + 2)?;
            let database = database.or_else(|| current.map(str::to_owned)).ok_or_else(no_database)?;
            let filter = Filter::read(text, at)?;
            let listing = Listing {
                columns: columns(&[
                    ("Name", "table_name"),
                    ("Engine", "engine"),
                    ("Version", "version"),
                    ("Row_format", "row_format"),
                    ("Rows", "table_rows"),
                    ("Avg_row_length", "avg_row_length"),
                    ("Data_length", "data_length"),
                    ("Max_data_length", "max_data_length"),
                    ("Index_length", "index_length"),
                    ("Data_free", "data_free"),
                    ("Auto_increment", "auto_increment"),
                    ("Create_time", "create_time"),
                    ("Update_time", "update_time"),
                    ("Check_time", "check_time"),
                    ("Collation", "table_collation"),
                    ("Checksum", "checksum"),
                    ("Create_options", "create_options"),
                    ("Comment", "table_comment"),
                ]),
                from: "information_schema.tables",
                condition: format!("table_schema = {}", literal(&database)),
                like: "table_name",
                order: &["table_name"],
            };
            Ok(Show::Schema { sql: listing.select(&filter), database: Some(database), table: None })
        }
        "columns" | "fields" => {
            let (database, table, at) = table_from(text, at + 1, current)?;
            let filter = Filter::read(text, at)?;
            Ok(fields(database, table, full, &filter))
        }
        "index" | "indexes" | "keys" => {
            let (database, table, at) = table_from(text, at + 1, current)?;
            let filter = Filter::read(text, at)?;
            let listing = Listing {
                columns: columns(&[
                    ("Table", "table_name"),
                    ("Non_unique", "non_unique"),
                    ("Key_name", "index_name"),
                    ("Seq_in_index", "seq_in_index"),
                    ("Column_name", "column_name"),
                    ("Collation", "collation"),
                    ("Cardinality", "cardinality"),
                    ("Sub_part", "sub_part"),
                    ("Packed", "packed"),
                    ("Null", "nullable"),
                    ("Index_type", "index_type"),
                    ("Comment", "comment"),
                    ("Index_comment", "index_comment"),
                    ("Visible", "is_visible"),
                    ("Expression", "expression"),
                ]),
                from: "information_schema.statistics",
                condition: of_table(&database, &table),
                like: "index_name",
                order: &["non_unique", "index_name", "seq_in_index"],
            };
            Ok(Show::Schema { sql: listing.select(&filter), database: Some(database), table: Some(table) })
        }
        "create" => create(text, at + 1, current),
        "variables" => Ok(Show::Variables { global, filter: Filter::read(text, at + 1)? }),
        "status" => Ok(Show::Status { filter: Filter::read(text, at + 1)? }),
        "warnings" | "errors" => Ok(Show::Warnings),
        "count" => Ok(Show::WarningCount),
        "grants" => Ok(Show::Grants),
        _ => listed(text, at, &word),
    }
}

/// What is listed whole, whatever the session's database.
fn listed(text: &Text<'_>, at: usize, word: &str) -> Result<Show, SqlError> {
    let (columns_of, from, like, behind): (&[(&str, &str)], _, _, usize) = match word {
        "collation" => (
            &[
                ("Collation", "collation_name"),
                ("Charset", "character_set_name"),
                ("Id", "id"),
                ("Default", "is_default"),
                ("Compiled", "is_compiled"),
                ("Sortlen", "sortlen"),
                ("Pad_attribute", "pad_attribute"),
            ],
            "collations",
            "collation_name",
            1,
        ),
        "charset" | "character" => (
            &[
                ("Charset", "character_set_name"),
                ("Description", "description"),
                ("Default collation", "default_collate_name"),
                ("Maxlen", "maxlen"),
            ],
            "character_sets",
            "character_set_name",
            if word == "charset" { 1 } else { 2 },
        ),
        "engines" => (
            &[
                ("Engine", "engine"),
                ("Support", "support"),
                ("Comment", "comment"),
                ("Transactions", "transactions"),
                ("XA", "xa"),
                ("Savepoints", "savepoints"),
            ],
            "engines",
            "engine",
            1,
        ),
        "plugins" => (
            &[
                ("Name", "plugin_name"),
                ("Status", "plugin_status"),
                ("Type", "plugin_type"),
                ("Library", "plugin_library"),
                ("License", "plugin_license"),
            ],
            "plugins",
            "plugin_name",
            1,
        ),
        "processlist" => (
            &[
                ("Id", "id"),
                ("User", "user"),
                ("Host", "host"),
                ("db", "db"),
                ("Command", "command"),
                ("Time", "time"),
                ("State", "state"),
                ("Info", "info"),
            ],
            "processlist",
            "user",
            1,
        ),
        "triggers" => (
            &[
                ("Trigger", "trigger_name"),
                ("Event", "event_manipulation"),
                ("Table", "event_object_table"),
                ("Statement", "action_statement"),
                ("Timing", "action_timing"),
                ("Created", "created"),
                ("sql_mode", "sql_mode"),
                ("Definer", "definer"),
            ],
            "triggers",
            "event_object_table",
            1,
        ),
        "events" => (
            &[
                ("Db", "event_schema"),
                ("Name", "event_name"),
                ("Definer", "definer"),
                ("Type", "event_type"),
                ("Status", "status"),
            ],
            "events",
            "event_name",
            1,
        ),
        "procedure" | "function" if text.is(at + 1, "status") => (
            &[
                ("Db", "routine_schema"),
                ("Name", "routine_name"),
                ("Type", "routine_type"),
                ("Definer", "definer"),
                ("Modified", "last_altered"),
                ("Created", "created"),
                ("Security_type", "security_type"),
                ("Comment", "routine_comment"),
            ],
            "routines",
            "routine_name",
            2,
        ),
        _ => return Err(SqlError::not_supported(&format!("SHOW {}", text.at(at).to_ascii_uppercase()))),
    };
    let (_, behind) = if matches!(word, "triggers" | "events") {
        self::from(text, at + behind)?
    } else {
        (None, at + behind)
    };
    let filter = Filter::read(text, behind)?;
    let from = format!("information_schema.{from}");
    let listing = Listing {
        columns: columns(columns_of),
        from: &from,
        condition: "1 = 1".into(),
        like,
        order: &[like],
    };
    Ok(Show::Schema { sql: listing.select(&filter), database: None, table: None })
}

fn of_table(database: &str, table: &str) -> String {
    format!("table_schema = {} AND table_name = {}", literal(database), literal(table))
}

/// `FROM [db.]table [FROM db]` at a token.
fn table_from(
    text: &Text<'_>,
    at: usize,
    current: Option<&str>,
) -> Result<(String, String, usize), SqlError> {
    let wrong = || SqlError::syntax(text.from(at));
    if !text.is(at, "from") && !text.is(at, "in") {
        return Err(wrong());
    }
    let (database, table, at) = text.table(at + 1).ok_or_else(wrong)?;
    let (behind, at) = from(text, at)?;
    let database = behind.or(database).or_else(|| current.map(str::to_owned)).ok_or_else(no_database)?;
    Ok((database, table, at))
}

fn fields(database: String, table: String, full: bool, filter: &Filter) -> Show {
    let short = [
        ("Field", "column_name"),
        ("Type", "column_type"),
        ("Null", "is_nullable"),
        ("Key", "column_key"),
        ("Default", "column_default"),
        ("Extra", "extra"),
    ];
    let long = [
        ("Field", "column_name"),
        ("Type", "column_type"),
        ("Collation", "collation_name"),
        ("Null", "is_nullable"),
        ("Key", "column_key"),
        ("Default", "column_default"),
        ("Extra", "extra"),
        ("Privileges", "privileges"),
        ("Comment", "column_comment"),
    ];
    let listing = Listing {
        columns: if full { columns(&long) } else { columns(&short) },
        from: "information_schema.columns",
        condition: of_table(&database, &table),
        like: "column_name",
        order: &["ordinal_position"],
    };
    Show::Schema { sql: listing.select(filter), database: Some(database), table: Some(table) }
}

/// DESCRIBE of a table, or of some of its columns.
pub fn describe(text: &Text<'_>, current: Option<&str>) -> Result<Show, SqlError> {
    let (database, table, at) = text.table(1).ok_or_else(|| SqlError::syntax(text.from(1)))?;
    let database = database.or_else(|| current.map(str::to_owned)).ok_or_else(no_database)?;
    let like = text.word_or_string(at);
    if text.kind(at).is_some() && (like.is_none() || text.kind(at + 1).is_some()) {
        return Err(SqlError::syntax(text.from(at)));
    }
    Ok(fields(database, table, false, &Filter { like, condition: None }))
}

fn create(text: &Text<'_>, at: usize, current: Option<&str>) -> Result<Show, SqlError> {
    let wrong = || SqlError::syntax(text.from(at));
    if text.is(at, "database") || text.is(at, "schema") {
        let skipped = if text.are(at + 1, &["if", "not", "exists"]) { 3 } else { 0 };
        return Ok(Show::CreateDatabase { database: text.name(at + 1 + skipped).ok_or_else(wrong)? });
    }
    if !text.is(at, "table") {
        return Err(SqlError::not_supported("SHOW CREATE of what is no table"));
    }
    let (database, table, _) = text.table(at + 1).ok_or_else(wrong)?;
    let database = database.or_else(|| current.map(str::to_owned)).ok_or_else(no_database)?;
    Ok(Show::CreateTable { database, table })
}

/// What a SHOW CREATE TABLE needs to know, each with its order of columns: those of [`create_table`].
pub fn create_queries(database: &str, table: &str) -> [String; 2] {
    let condition = of_table(database, table);
    [
        format!(
            "SELECT column_name, column_type, is_nullable, column_default, extra, collation_name \
             FROM information_schema.columns WHERE {condition} ORDER BY ordinal_position"
        ),
        format!(
            "SELECT index_name, non_unique, column_name FROM information_schema.statistics \
             WHERE {condition} ORDER BY non_unique, index_name, seq_in_index"
        ),
    ]
}

/// The text of SHOW CREATE TABLE, from rows as texts.
pub fn create_table(table: &str, columns: &[Vec<Option<String>>], keys: &[Vec<Option<String>>]) -> String {
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let cell = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let mut lines: Vec<String> = columns
        .iter()
        .map(|row| {
            let ty = cell(row, 1);
            let mut line = format!("  {} {ty}", quoted(&cell(row, 0)));
            if let Some(collation) = row.get(5).cloned().flatten().filter(|it| it != "utf8mb4_0900_ai_ci") {
                let charset = collation.split('_').next().unwrap_or("utf8mb4");
                line.push_str(&format!(" CHARACTER SET {charset} COLLATE {collation}"));
            }
            let nullable = cell(row, 2) == "YES";
            if !nullable {
                line.push_str(" NOT NULL");
            }
            match row.get(3).cloned().flatten() {
                Some(text) if text.starts_with("CURRENT_TIMESTAMP") => {
                    line.push_str(&format!(" DEFAULT {text}"))
                }
                Some(text) => line.push_str(&format!(" DEFAULT {}", literal(&text))),
                None if nullable && !ty.ends_with("text") && !ty.ends_with("blob") => {
                    line.push_str(" DEFAULT NULL")
                }
                None => {}
            }
            if cell(row, 4).contains("auto_increment") {
                line.push_str(" AUTO_INCREMENT");
            }
            line
        })
        .collect();
    let mut at = 0;
    while at < keys.len() {
        let (name, unique) = (cell(&keys[at], 0), cell(&keys[at], 1) == "0");
        let end =
            keys[at..].iter().position(|row| cell(row, 0) != name).map_or(keys.len(), |count| at + count);
        let columns: Vec<String> = keys[at..end].iter().map(|row| quoted(&cell(row, 2))).collect();
        let columns = columns.join(",");
        lines.push(match (name.as_str(), unique) {
            ("PRIMARY", _) => format!("  PRIMARY KEY ({columns})"),
            (name, true) => format!("  UNIQUE KEY {} ({columns})", quoted(name)),
            (name, false) => format!("  KEY {} ({columns})", quoted(name)),
        });
        at = end;
    }
    let options = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci";
    format!("CREATE TABLE {} (\n{}\n) {options}", quoted(table), lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sql: &str) -> Result<Show, u16> {
        show(&Text::read(sql).unwrap(), Some("ods")).map_err(|error| error.number)
    }

    #[test]
    fn filters_stay_inside_what_is_shown() {
        let Ok(Show::Schema { sql, database, .. }) = shown("SHOW FULL TABLES FROM `d'x` LIKE 'a\\_%'") else {
            panic!()
        };
        assert_eq!(database.as_deref(), Some("d'x"));
        assert_eq!(
            sql,
            "SELECT table_name AS `Tables_in_d'x (a\\_%)`, table_type AS `Table_type` FROM information_schema.tables \
             WHERE table_schema = 'd''x' AND table_name LIKE 'a\\\\_%' ORDER BY table_name"
        );
        let Ok(Show::Schema { sql, .. }) = shown("show tables where Tables_in_ods = 'x' or 1") else {
            panic!()
        };
        assert!(sql.ends_with("AS shown WHERE (Tables_in_ods = 'x' or 1) ORDER BY shown_order0"), "{sql}");
    }

    #[test]
    fn other_words_are_errors() {
        assert_eq!(shown("SHOW TABLES LIKE"), Err(1064));
        assert_eq!(shown("SHOW TABLES nonsense"), Err(1064));
        assert_eq!(shown("SHOW COLUMNS"), Err(1064));
        assert_eq!(shown("SHOW MASTER STATUS"), Err(1235));
        let alone = show(&Text::read("SHOW TABLES").unwrap(), None);
        assert_eq!(alone.unwrap_err().number, 1046);
    }

    #[test]
    fn a_table_is_written_as_mysql_writes_it() {
        let row = |cells: &[&str]| {
            cells.iter().map(|it| (*it != "-").then(|| (*it).to_owned())).collect::<Vec<_>>()
        };
        let columns = [
            row(&["id", "int", "NO", "-", "auto_increment", "-"]),
            row(&["a", "varchar(9)", "YES", "x", "", "utf8mb4_bin"]),
        ];
        let keys = [row(&["PRIMARY", "0", "id"]), row(&["k", "1", "a"]), row(&["k", "1", "id"])];
        assert_eq!(
            create_table("t", &columns, &keys),
            "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `a` varchar(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin \
             DEFAULT 'x',\n  PRIMARY KEY (`id`),\n  KEY `k` (`a`,`id`)\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci"
        );
    }
}
