//! `information_schema` as rows, made of the definitions of the engine's tables.

use crate::columns::text_column;
use base::{Column, ColumnType, Value};
use engine::{ColumnDef, DefaultValue, Given, MAIN, TableDef, parts};
use std::collections::BTreeSet;

pub const NAME: &str = "information_schema";
const CHARSET: &str = "utf8mb4";
const COLLATION: &str = "utf8mb4_0900_ai_ci";

/// What there is to tell of.
pub struct Known {
    pub tables: Vec<TableDef>,
    /// Names of datasets that have no tables in the engine.
    pub others: Vec<String>,
    /// Clients that are here: number and user.
    pub clients: Vec<(u32, String)>,
}

impl Known {
    /// The databases that clients see, in order.
    pub fn databases(&self) -> Vec<String> {
        let of_tables = self.tables.iter().map(|table| parts(&table.name).0.to_owned());
        let fixed = [NAME.to_owned(), MAIN.to_owned()].into_iter();
        let all: BTreeSet<String> = of_tables.chain(fixed).chain(self.others.iter().cloned()).collect();
        all.into_iter().collect()
    }
}

/// Columns of text; `#` stands in front of those of numbers, `@` of times, `$` of short words.
type Layout = &'static [&'static str];

/// The tables: each as its name and columns.
const TABLES: &[(&str, Layout)] = &[
    (
        "schemata",
        &[
            "CATALOG_NAME",
            "SCHEMA_NAME",
            "DEFAULT_CHARACTER_SET_NAME",
            "DEFAULT_COLLATION_NAME",
            "SQL_PATH",
            "DEFAULT_ENCRYPTION",
        ],
    ),
    (
        "tables",
        &[
            "TABLE_CATALOG",
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "$TABLE_TYPE",
            "ENGINE",
            "#VERSION",
            "ROW_FORMAT",
            "#TABLE_ROWS",
            "#AVG_ROW_LENGTH",
            "#DATA_LENGTH",
            "#MAX_DATA_LENGTH",
            "#INDEX_LENGTH",
            "#DATA_FREE",
            "#AUTO_INCREMENT",
            "@CREATE_TIME",
            "@UPDATE_TIME",
            "@CHECK_TIME",
            "TABLE_COLLATION",
            "#CHECKSUM",
            "CREATE_OPTIONS",
            "TABLE_COMMENT",
        ],
    ),
    (
        "columns",
        &[
            "TABLE_CATALOG",
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "COLUMN_NAME",
            "#ORDINAL_POSITION",
            "COLUMN_DEFAULT",
            "IS_NULLABLE",
            "DATA_TYPE",
            "#CHARACTER_MAXIMUM_LENGTH",
            "#CHARACTER_OCTET_LENGTH",
            "#NUMERIC_PRECISION",
            "#NUMERIC_SCALE",
            "#DATETIME_PRECISION",
            "CHARACTER_SET_NAME",
            "COLLATION_NAME",
            "COLUMN_TYPE",
            "COLUMN_KEY",
            "EXTRA",
            "PRIVILEGES",
            "COLUMN_COMMENT",
            "GENERATION_EXPRESSION",
            "#SRS_ID",
        ],
    ),
    (
        "statistics",
        &[
            "TABLE_CATALOG",
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "#NON_UNIQUE",
            "INDEX_SCHEMA",
            "INDEX_NAME",
            "#SEQ_IN_INDEX",
            "COLUMN_NAME",
            "COLLATION",
            "#CARDINALITY",
            "#SUB_PART",
            "PACKED",
            "NULLABLE",
            "INDEX_TYPE",
            "COMMENT",
            "INDEX_COMMENT",
            "IS_VISIBLE",
            "EXPRESSION",
        ],
    ),
    (
        "key_column_usage",
        &[
            "CONSTRAINT_CATALOG",
            "CONSTRAINT_SCHEMA",
            "CONSTRAINT_NAME",
            "TABLE_CATALOG",
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "COLUMN_NAME",
            "#ORDINAL_POSITION",
            "#POSITION_IN_UNIQUE_CONSTRAINT",
            "REFERENCED_TABLE_SCHEMA",
            "REFERENCED_TABLE_NAME",
            "REFERENCED_COLUMN_NAME",
        ],
    ),
    (
        "table_constraints",
        &[
            "CONSTRAINT_CATALOG",
            "CONSTRAINT_SCHEMA",
            "CONSTRAINT_NAME",
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "CONSTRAINT_TYPE",
            "ENFORCED",
        ],
    ),
    (
        "referential_constraints",
        &[
            "CONSTRAINT_CATALOG",
            "CONSTRAINT_SCHEMA",
            "CONSTRAINT_NAME",
            "UNIQUE_CONSTRAINT_CATALOG",
            "UNIQUE_CONSTRAINT_SCHEMA",
            "UNIQUE_CONSTRAINT_NAME",
            "MATCH_OPTION",
            "UPDATE_RULE",
            "DELETE_RULE",
            "TABLE_NAME",
            "REFERENCED_TABLE_NAME",
        ],
    ),
    ("check_constraints", &["CONSTRAINT_CATALOG", "CONSTRAINT_SCHEMA", "CONSTRAINT_NAME", "CHECK_CLAUSE"]),
    (
        "views",
        &[
            "TABLE_CATALOG",
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "VIEW_DEFINITION",
            "CHECK_OPTION",
            "IS_UPDATABLE",
            "DEFINER",
            "SECURITY_TYPE",
            "CHARACTER_SET_CLIENT",
            "COLLATION_CONNECTION",
        ],
    ),
    (
        "routines",
        &[
            "SPECIFIC_NAME",
            "ROUTINE_CATALOG",
            "ROUTINE_SCHEMA",
            "ROUTINE_NAME",
            "ROUTINE_TYPE",
            "DATA_TYPE",
            "#CHARACTER_MAXIMUM_LENGTH",
            "#CHARACTER_OCTET_LENGTH",
            "#NUMERIC_PRECISION",
            "#NUMERIC_SCALE",
            "#DATETIME_PRECISION",
            "CHARACTER_SET_NAME",
            "COLLATION_NAME",
            "DTD_IDENTIFIER",
            "ROUTINE_BODY",
            "ROUTINE_DEFINITION",
            "EXTERNAL_NAME",
            "EXTERNAL_LANGUAGE",
            "PARAMETER_STYLE",
            "IS_DETERMINISTIC",
            "SQL_DATA_ACCESS",
            "SQL_PATH",
            "SECURITY_TYPE",
            "@CREATED",
            "@LAST_ALTERED",
            "SQL_MODE",
            "ROUTINE_COMMENT",
            "DEFINER",
            "CHARACTER_SET_CLIENT",
            "COLLATION_CONNECTION",
            "DATABASE_COLLATION",
        ],
    ),
    (
        "parameters",
        &[
            "SPECIFIC_CATALOG",
            "SPECIFIC_SCHEMA",
            "SPECIFIC_NAME",
            "#ORDINAL_POSITION",
            "PARAMETER_MODE",
            "PARAMETER_NAME",
            "DATA_TYPE",
            "#CHARACTER_MAXIMUM_LENGTH",
            "#CHARACTER_OCTET_LENGTH",
            "#NUMERIC_PRECISION",
            "#NUMERIC_SCALE",
            "#DATETIME_PRECISION",
            "CHARACTER_SET_NAME",
            "COLLATION_NAME",
            "DTD_IDENTIFIER",
            "ROUTINE_TYPE",
        ],
    ),
    (
        "triggers",
        &[
            "TRIGGER_CATALOG",
            "TRIGGER_SCHEMA",
            "TRIGGER_NAME",
            "EVENT_MANIPULATION",
            "EVENT_OBJECT_CATALOG",
            "EVENT_OBJECT_SCHEMA",
            "EVENT_OBJECT_TABLE",
            "#ACTION_ORDER",
            "ACTION_CONDITION",
            "ACTION_STATEMENT",
            "ACTION_ORIENTATION",
            "ACTION_TIMING",
            "ACTION_REFERENCE_OLD_TABLE",
            "ACTION_REFERENCE_NEW_TABLE",
            "ACTION_REFERENCE_OLD_ROW",
            "ACTION_REFERENCE_NEW_ROW",
            "@CREATED",
            "SQL_MODE",
            "DEFINER",
            "CHARACTER_SET_CLIENT",
            "COLLATION_CONNECTION",
            "DATABASE_COLLATION",
        ],
    ),
    (
        "events",
        &[
            "EVENT_CATALOG",
            "EVENT_SCHEMA",
            "EVENT_NAME",
            "DEFINER",
            "TIME_ZONE",
            "EVENT_BODY",
            "EVENT_DEFINITION",
            "EVENT_TYPE",
            "@EXECUTE_AT",
            "INTERVAL_VALUE",
            "INTERVAL_FIELD",
            "SQL_MODE",
            "@STARTS",
            "@ENDS",
            "STATUS",
            "ON_COMPLETION",
            "@CREATED",
            "@LAST_ALTERED",
            "@LAST_EXECUTED",
            "EVENT_COMMENT",
            "#ORIGINATOR",
            "CHARACTER_SET_CLIENT",
            "COLLATION_CONNECTION",
            "DATABASE_COLLATION",
        ],
    ),
    (
        "partitions",
        &[
            "TABLE_CATALOG",
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "PARTITION_NAME",
            "SUBPARTITION_NAME",
            "#PARTITION_ORDINAL_POSITION",
            "#SUBPARTITION_ORDINAL_POSITION",
            "SECONDARY_LOAD",
            "PARTITION_METHOD",
            "SUBPARTITION_METHOD",
            "PARTITION_EXPRESSION",
            "SUBPARTITION_EXPRESSION",
            "PARTITION_DESCRIPTION",
            "#TABLE_ROWS",
            "#AVG_ROW_LENGTH",
            "#DATA_LENGTH",
            "#MAX_DATA_LENGTH",
            "#INDEX_LENGTH",
            "#DATA_FREE",
            "@CREATE_TIME",
            "@UPDATE_TIME",
            "@CHECK_TIME",
            "#CHECKSUM",
            "PARTITION_COMMENT",
            "NODEGROUP",
            "TABLESPACE_NAME",
        ],
    ),
    (
        "collations",
        &[
            "COLLATION_NAME",
            "CHARACTER_SET_NAME",
            "#ID",
            "IS_DEFAULT",
            "IS_COMPILED",
            "#SORTLEN",
            "PAD_ATTRIBUTE",
        ],
    ),
    ("character_sets", &["CHARACTER_SET_NAME", "DEFAULT_COLLATE_NAME", "DESCRIPTION", "#MAXLEN"]),
    ("collation_character_set_applicability", &["COLLATION_NAME", "CHARACTER_SET_NAME"]),
    ("engines", &["ENGINE", "SUPPORT", "COMMENT", "TRANSACTIONS", "XA", "SAVEPOINTS"]),
    ("processlist", &["#ID", "USER", "HOST", "DB", "COMMAND", "#TIME", "STATE", "INFO"]),
    ("keywords", &["WORD", "#RESERVED"]),
    (
        "plugins",
        &[
            "PLUGIN_NAME",
            "PLUGIN_VERSION",
            "PLUGIN_STATUS",
            "PLUGIN_TYPE",
            "PLUGIN_TYPE_VERSION",
            "PLUGIN_LIBRARY",
            "PLUGIN_LIBRARY_VERSION",
            "PLUGIN_AUTHOR",
            "PLUGIN_DESCRIPTION",
            "PLUGIN_LICENSE",
            "LOAD_OPTION",
        ],
    ),
    ("user_privileges", &["GRANTEE", "TABLE_CATALOG", "PRIVILEGE_TYPE", "IS_GRANTABLE"]),
    ("schema_privileges", &["GRANTEE", "TABLE_CATALOG", "TABLE_SCHEMA", "PRIVILEGE_TYPE", "IS_GRANTABLE"]),
    (
        "table_privileges",
        &["GRANTEE", "TABLE_CATALOG", "TABLE_SCHEMA", "TABLE_NAME", "PRIVILEGE_TYPE", "IS_GRANTABLE"],
    ),
    (
        "column_privileges",
        &[
            "GRANTEE",
            "TABLE_CATALOG",
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "COLUMN_NAME",
            "PRIVILEGE_TYPE",
            "IS_GRANTABLE",
        ],
    ),
];

/// Columns of longer texts than names are.
const LONG: [&str; 10] = [
    "COLUMN_DEFAULT",
    "COLUMN_TYPE",
    "COLUMN_COMMENT",
    "TABLE_COMMENT",
    "GENERATION_EXPRESSION",
    "VIEW_DEFINITION",
    "ROUTINE_DEFINITION",
    "ACTION_STATEMENT",
    "COMMENT",
    "INFO",
];

/// Name, number, padding; the first is the default of its character set.
const COLLATIONS: [(&str, u64, &str); 6] = [
    ("utf8mb4_0900_ai_ci", 255, "NO PAD"),
    ("utf8mb4_0900_as_cs", 278, "NO PAD"),
    ("utf8mb4_0900_bin", 309, "NO PAD"),
    ("utf8mb4_bin", 46, "PAD SPACE"),
    ("utf8mb4_general_ci", 45, "PAD SPACE"),
    ("utf8mb4_unicode_ci", 224, "PAD SPACE"),
];

/// Whether a table here has a column of this name.
pub fn is_column(name: &str) -> bool {
    let is_it = |column: &&str| column.trim_start_matches(['#', '@', '$']).eq_ignore_ascii_case(name);
    TABLES.iter().any(|(_, layout)| layout.iter().any(&is_it))
}

pub fn table_names() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|(name, _)| *name)
}

/// One table with its rows; `None` where there is none of this name.
pub fn given(name: &str, known: &Known) -> Option<Given> {
    let (name, layout) = TABLES.iter().find(|(it, _)| it.eq_ignore_ascii_case(name))?;
    let columns = layout.iter().map(|name| column(name)).collect();
    Some(Given { name: format!("{NAME}.{name}"), columns, rows: rows(name, layout.len(), known) })
}

fn column(name: &str) -> Column {
    let plain = |name: &str, ty, sql_type: &str| Column {
        ty,
        sql_type: sql_type.to_owned(),
        charset: None,
        collation: None,
        ..text_column(name)
    };
    match name.split_at(1) {
        ("#", name) => plain(name, ColumnType::BigInt { unsigned: true }, "bigint unsigned"),
        ("@", name) => plain(name, ColumnType::DateTime { fsp: 0 }, "datetime"),
        ("$", name) => Column {
            ty: ColumnType::Text { chars_max: 11 },
            sql_type: "char(11)".into(),
            ..text_column(name)
        },
        // As MySQL's own: case does not matter, accents do.
        _ => {
            let chars = if LONG.contains(&name) { 2048 } else { 64 };
            Column {
                collation: Some("utf8mb4_general_ci".into()),
                ty: ColumnType::Text { chars_max: chars },
                sql_type: format!("varchar({chars})"),
                ..text_column(name)
            }
        }
    }
}

fn t(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn n(number: impl TryInto<u64>) -> Value {
    number.try_into().map_or(Value::Null, Value::UInt)
}

const NULL: Value = Value::Null;

fn rows(name: &str, width: usize, known: &Known) -> Vec<Vec<Value>> {
    let tables = || known.tables.iter().map(|table| (parts(&table.name), table));
    match name {
        "schemata" => known
            .databases()
            .iter()
            .map(|name| vec![t("def"), t(name), t(CHARSET), t(COLLATION), NULL, t("NO")])
            .collect(),
        "tables" => {
            tables().map(|((db, name), table)| table_row(db, name, table)).chain(own_tables()).collect()
        }
        "columns" => tables()
            .flat_map(|((db, name), table)| {
                (0..table.columns.len()).map(move |at| column_row(db, name, table, at))
            })
            .collect(),
        "statistics" => tables().flat_map(|((db, name), table)| index_rows(db, name, table)).collect(),
        "key_column_usage" => tables()
            .flat_map(|((db, name), table)| {
                unique_keys(table).into_iter().flat_map(move |(key, columns)| {
                    let row = |(at, column): (usize, &usize)| {
                        let column = &table.columns[*column].column.name;
                        vec![
                            t("def"),
                            t(db),
                            t(&key),
                            t("def"),
                            t(db),
                            t(name),
                            t(column),
                            n(at + 1),
                            NULL,
                            NULL,
                            NULL,
                            NULL,
                        ]
                    };
                    columns.iter().enumerate().map(row).collect::<Vec<_>>()
                })
            })
            .collect(),
        "table_constraints" => tables()
            .flat_map(|((db, name), table)| {
                unique_keys(table).into_iter().map(move |(key, _)| {
                    let kind = if key == "PRIMARY" { "PRIMARY KEY" } else { "UNIQUE" };
                    vec![t("def"), t(db), t(&key), t(db), t(name), t(kind), t("YES")]
                })
            })
            .collect(),
        "collations" => COLLATIONS
            .iter()
            .map(|(name, id, pad)| {
                let default = if *name == COLLATION { "Yes" } else { "" };
                vec![t(name), t(CHARSET), n(*id), t(default), t("Yes"), n(1_u64), t(pad)]
            })
            .collect(),
        "collation_character_set_applicability" => {
            COLLATIONS.iter().map(|(name, ..)| vec![t(name), t(CHARSET)]).collect()
        }
        "character_sets" => vec![vec![t(CHARSET), t(COLLATION), t("UTF-8 Unicode"), n(4_u64)]],
        "engines" => {
            vec![vec![
                t("InnoDB"),
                t("DEFAULT"),
                t("The project's engine, as clients expect to see it"),
                t("YES"),
                t("NO"),
                t("NO"),
            ]]
        }
        "processlist" => known
            .clients
            .iter()
            .map(|(id, user)| vec![n(*id), t(user), t("localhost"), NULL, t("Query"), n(0_u64), t(""), NULL])
            .collect(),
        _ => Vec::new(),
    }
    .into_iter()
    .inspect(|row: &Vec<Value>| debug_assert_eq!(row.len(), width))
    .collect()
}

fn table_row(db: &str, name: &str, table: &TableDef) -> Vec<Value> {
    let collation = table.columns.iter().find_map(|it| it.column.collation.as_deref()).unwrap_or(COLLATION);
    let counted = table.columns.iter().any(|it| it.auto_increment);
    vec![
        t("def"),
        t(db),
        t(name),
        t(if table.view.is_some() { "VIEW" } else { "BASE TABLE" }),
        if table.view.is_some() { NULL } else { t("InnoDB") },
        n(10_u64),
        t("Dynamic"),
        NULL,
        NULL,
        NULL,
        NULL,
        NULL,
        NULL,
        if counted { n(1_u64) } else { NULL },
        NULL,
        NULL,
        NULL,
        t(collation),
        NULL,
        t(""),
        t(""),
    ]
}

/// The tables of `information_schema` itself.
fn own_tables() -> impl Iterator<Item = Vec<Value>> {
    table_names().map(|name| {
        let name = name.to_ascii_uppercase();
        let mut row = vec![t("def"), t(NAME), t(&name), t("SYSTEM VIEW")];
        row.resize(19, NULL);
        row.extend([t(""), t("")]);
        row
    })
}

fn column_row(db: &str, name: &str, table: &TableDef, at: usize) -> Vec<Value> {
    let definition = &table.columns[at];
    let column = &definition.column;
    let word = column.sql_type.split(['(', ' ']).next().unwrap_or_default();
    let size = Size::of(column);
    let collation = column.collation.as_deref();
    let default = match &definition.default {
        Some(DefaultValue::Text(text)) => t(text),
        Some(DefaultValue::Literal(text)) => t(text.trim_matches('\'')),
        Some(DefaultValue::Now) => t("CURRENT_TIMESTAMP"),
        None => NULL,
    };
    vec![
        t("def"),
        t(db),
        t(name),
        t(&column.name),
        n(at + 1),
        default,
        t(if column.nullable { "YES" } else { "NO" }),
        t(word),
        size.chars.map_or(NULL, Value::UInt),
        size.bytes.map_or(NULL, Value::UInt),
        size.precision.map_or(NULL, n),
        size.scale.map_or(NULL, n),
        size.fraction.map_or(NULL, n),
        collation.map_or(NULL, |_| t(CHARSET)),
        collation.map_or(NULL, t),
        t(&column.sql_type),
        t(key_of(table, at)),
        t(extra(definition)),
        t("select"),
        t(""),
        t(""),
        NULL,
    ]
}

fn extra(column: &ColumnDef) -> &'static str {
    match column.default {
        _ if column.auto_increment => "auto_increment",
        Some(DefaultValue::Now) => "DEFAULT_GENERATED",
        _ => "",
    }
}

/// Lengths and digits of a type.
#[derive(Default)]
struct Size {
    chars: Option<u64>,
    bytes: Option<u64>,
    precision: Option<u64>,
    scale: Option<u64>,
    fraction: Option<u64>,
}

impl Size {
    fn of(column: &Column) -> Self {
        let int = |precision: u64| Self { precision: Some(precision), scale: Some(0), ..Self::default() };
        match column.ty {
            ColumnType::TinyInt { .. } => int(3),
            ColumnType::SmallInt { .. } => int(5),
            ColumnType::MediumInt { .. } => int(7),
            ColumnType::Int { .. } => int(10),
            ColumnType::BigInt { unsigned } => int(if unsigned { 20 } else { 19 }),
            ColumnType::Decimal { precision, scale } => Self {
                precision: Some(u64::from(precision)),
                scale: Some(u64::from(scale)),
                ..Self::default()
            },
            ColumnType::Float => Self { precision: Some(12), ..Self::default() },
            ColumnType::Double => Self { precision: Some(22), ..Self::default() },
            ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => {
                Self { fraction: Some(u64::from(fsp)), ..Self::default() }
            }
            ColumnType::Text { chars_max } => {
                let text = column.sql_type.ends_with("text");
                let bytes = if text { chars_max } else { chars_max * 4 };
                Self { chars: Some(chars_max), bytes: Some(bytes), ..Self::default() }
            }
            ColumnType::Binary { bytes } => {
                Self { chars: Some(u64::from(bytes)), bytes: Some(u64::from(bytes)), ..Self::default() }
            }
            ColumnType::VarBinary { bytes_max } => {
                Self { chars: Some(bytes_max), bytes: Some(bytes_max), ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

/// `PRI`, `UNI`, `MUL` or nothing, by MySQL's rule.
fn key_of(table: &TableDef, at: usize) -> &'static str {
    if table.primary_key.contains(&at) {
        return "PRI";
    }
    let first = || table.indexes.iter().filter(|index| index.columns.first() == Some(&at));
    if first().any(|index| index.unique && index.columns.len() == 1) {
        return "UNI";
    }
    if first().next().is_some() { "MUL" } else { "" }
}

/// The primary key, then the unique ones: name and places of columns.
fn unique_keys(table: &TableDef) -> Vec<(String, Vec<usize>)> {
    let primary = (!table.primary_key.is_empty()).then(|| ("PRIMARY".to_owned(), table.primary_key.clone()));
    let others = table.indexes.iter().filter(|it| it.unique).map(|it| (it.name.clone(), it.columns.clone()));
    primary.into_iter().chain(others).collect()
}

fn index_rows(db: &str, name: &str, table: &TableDef) -> Vec<Vec<Value>> {
    let mut all =
        unique_keys(table).into_iter().map(|(key, columns)| (key, true, columns)).collect::<Vec<_>>();
    let plain = table.indexes.iter().filter(|it| !it.unique);
    all.extend(plain.map(|it| (it.name.clone(), false, it.columns.clone())));
    let mut rows = Vec::new();
    for (key, unique, columns) in all {
        for (at, place) in columns.iter().enumerate() {
            let column = &table.columns[*place].column;
            rows.push(vec![
                t("def"),
                t(db),
                t(name),
                n(u64::from(!unique)),
                t(db),
                t(&key),
                n(at + 1),
                t(&column.name),
                t("A"),
                NULL,
                NULL,
                NULL,
                t(if column.nullable { "YES" } else { "" }),
                t("BTREE"),
                t(""),
                t(""),
                t("YES"),
                NULL,
            ]);
        }
    }
    rows
}
