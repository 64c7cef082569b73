//! CREATE, DROP, RENAME, TRUNCATE: what a statement makes of a definition, and the SQL that follows.

use crate::catalogue::{ColumnDef, DefaultValue, IndexDef, TableDef};
use crate::error::EngineError;
use crate::load::OWN_PREFIX;
use crate::parse::behind_as;
use crate::query::{quoted, table_name};
use crate::types::{COLLATION_DEFAULT, COLLATIONS};
use base::{Column, ColumnType, Generated};
use sqlparser::ast::{
    BinaryLength, CharacterLength, ColumnDef as AstColumn, ColumnOption, CreateIndex, CreateTable,
    CreateTableOptions, CreateView, DataType, ExactNumberInfo, Expr, IndexColumn, SelectItem, SetExpr,
    Spanned, SqlOption, TableConstraint, Value as Literal,
};

/// Columns of a table: MySQL's bound of 4096 is that of wider pages than ours.
const COLUMNS_MAX: usize = 1000;

/// Reads CREATE TABLE.
pub fn table(create: &CreateTable) -> Result<TableDef, EngineError> {
    let name = table_name(&create.name);
    if name.starts_with(OWN_PREFIX) || name.starts_with("sqlite_") {
        return Err(EngineError::refused(
            format!("the name `{name}` is kept for the engine"),
            "choose another",
        ));
    }
    any_table(create)
}

/// [`table`] of any name: Tidemill makes its own.
pub fn any_table(create: &CreateTable) -> Result<TableDef, EngineError> {
    let name = table_name(&create.name);
    let place = create.name.span().start;
    if create.query.is_some() || create.like.is_some() {
        return Err(EngineError::refused(
            "CREATE TABLE … AS SELECT and LIKE",
            "TiDB has no AS SELECT: create the table with its columns, then INSERT … SELECT",
        )
        .at(place));
    }
    if create.temporary || create.partition_by.is_some() {
        return Err(EngineError::refused("temporary and partitioned tables", "make a plain table").at(place));
    }
    let collation = table_collation(&create.table_options)?;
    let mut table =
        TableDef { name, columns: Vec::new(), primary_key: Vec::new(), indexes: Vec::new(), view: None };
    for column in &create.columns {
        add_column(&mut table, column, &collation).map_err(|error| error.at(column.name.span.start))?;
    }
    if table.columns.is_empty() || table.columns.len() > COLUMNS_MAX {
        return Err(EngineError::sql(1113, "A table must have at least 1 column, and at most 1000"));
    }
    for constraint in &create.constraints {
        add_constraint(&mut table, constraint)?;
    }
    for at in table.primary_key.clone() {
        table.columns[at].column.nullable = false;
    }
    let counted = |it: &&ColumnDef| it.auto_increment;
    if let Some(column) = table.columns.iter().find(counted)
        && !is_integer(&column.column.ty)
    {
        let text = format!("Incorrect column specifier for column '{}'", column.column.name);
        return Err(EngineError::sql(1063, text));
    }
    let keyed = |at: usize| table.primary_key == [at];
    if table.columns.iter().enumerate().any(|(at, it)| it.auto_increment && !keyed(at)) {
        return Err(EngineError::refused("AUTO_INCREMENT beside the primary key", "make it the PRIMARY KEY"));
    }
    Ok(table)
}

/// Reads CREATE VIEW, of which `sql` is the text; its columns are those of its query.
pub fn view(create: &CreateView, sql: &str) -> Result<TableDef, EngineError> {
    let name = table_name(&create.name);
    let place = create.name.span().start;
    if create.materialized || create.temporary || create.if_not_exists || create.to.is_some() {
        return Err(
            EngineError::refused("this form of CREATE VIEW", "write CREATE OR REPLACE VIEW … AS …").at(place)
        );
    }
    if !create.columns.is_empty() {
        return Err(EngineError::refused("names behind a view's name", "name columns by AS").at(place));
    }
    if has_star(&create.query.body) {
        return Err(EngineError::refused(
            "`*` in a view: what it is would change with its tables",
            "name the columns",
        )
        .at(place));
    }
    let text = behind_as(sql).unwrap_or_default().trim().trim_end_matches(';').to_owned();
    Ok(TableDef { name, columns: Vec::new(), primary_key: Vec::new(), indexes: Vec::new(), view: Some(text) })
}

fn has_star(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select
            .projection
            .iter()
            .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))),
        SetExpr::Query(query) => has_star(&query.body),
        SetExpr::SetOperation { left, right, .. } => has_star(left) || has_star(right),
        _ => false,
    }
}

fn table_collation(options: &CreateTableOptions) -> Result<String, EngineError> {
    let CreateTableOptions::Plain(options) = options else { return Ok(COLLATION_DEFAULT.into()) };
    let mut collation = COLLATION_DEFAULT.to_owned();
    for option in options {
        let SqlOption::KeyValue { key, value } = option else {
            match option {
                SqlOption::Comment(_) => continue,
                SqlOption::NamedParenthesizedList(list)
                    if list.key.value.eq_ignore_ascii_case("engine")
                        && list.name.as_ref().is_some_and(|it| it.value.eq_ignore_ascii_case("innodb")) =>
                {
                    continue;
                }
                other => return Err(unknown_option(other)),
            }
        };
        let value = match value {
            Expr::Identifier(name) => name.value.clone(),
            Expr::Value(value) => value.value.clone().into_string().unwrap_or_default(),
            _ => String::new(),
        };
        match key.value.to_lowercase().trim_start_matches("default ") {
            "collate" => collation = known_collation(&value)?,
            "charset" | "character set" if value.eq_ignore_ascii_case("utf8mb4") => {}
            _ => return Err(unknown_option(option)),
        }
    }
    Ok(collation)
}

fn unknown_option(option: &SqlOption) -> EngineError {
    EngineError::refused(
        format!("the table option `{option}` is not supported"),
        "COLLATE, CHARSET utf8mb4, ENGINE InnoDB and COMMENT are",
    )
}

fn known_collation(name: &str) -> Result<String, EngineError> {
    let name = name.trim_matches(['\'', '"', '`']).to_lowercase();
    if COLLATIONS.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(EngineError::refused(
        format!("the collation {name} is not supported"),
        "utf8mb4_0900_ai_ci, utf8mb4_general_ci, utf8mb4_unicode_ci, utf8mb4_bin, utf8mb4_0900_bin and utf8mb4_0900_as_cs are",
    ))
}

fn add_column(table: &mut TableDef, column: &AstColumn, collation: &str) -> Result<(), EngineError> {
    let name = column.name.value.clone();
    if table.column(&name).is_some() {
        return Err(EngineError::sql(1060, format!("Duplicate column name '{name}'")));
    }
    let (ty, sql_type) = column_type(&column.data_type)?;
    let mut collation = collation.to_owned();
    let at = table.columns.len();
    let (mut nullable, mut default, mut auto_increment) = (true, None, false);
    for option in &column.options {
        match &option.option {
            ColumnOption::Null => nullable = true,
            ColumnOption::NotNull => nullable = false,
            ColumnOption::Default(expr) => default = default_value(expr)?,
            ColumnOption::PrimaryKey(_) => table.primary_key = vec![at],
            ColumnOption::Unique(_) => {
                table.indexes.push(IndexDef { name: name.clone(), unique: true, columns: vec![at] });
            }
            ColumnOption::Comment(_) => {}
            ColumnOption::Collation(name) => collation = known_collation(&name.to_string())?,
            ColumnOption::CharacterSet(name) if name.to_string().eq_ignore_ascii_case("utf8mb4") => {}
            ColumnOption::DialectSpecific(tokens)
                if tokens.iter().any(|token| token.to_string().eq_ignore_ascii_case("auto_increment")) =>
            {
                auto_increment = true;
            }
            other => {
                return Err(EngineError::refused(
                    format!("`{other}` of column `{name}` is not supported"),
                    "NULL, NOT NULL, DEFAULT, PRIMARY KEY, UNIQUE, AUTO_INCREMENT, COLLATE and COMMENT are",
                ));
            }
        }
    }
    let is_text = matches!(ty, ColumnType::Text { .. });
    table.columns.push(ColumnDef {
        column: Column {
            name,
            ty,
            sql_type,
            nullable,
            charset: is_text.then(|| "utf8mb4".to_owned()),
            collation: is_text.then_some(collation),
            generated: Generated::No,
            invisible: false,
        },
        default,
        auto_increment,
    });
    Ok(())
}

fn default_value(expr: &Expr) -> Result<Option<DefaultValue>, EngineError> {
    let literal = |expr: &Expr| match expr {
        Expr::Value(value) => matches!(
            value.value,
            Literal::Number(..) | Literal::Boolean(_) | Literal::Null | Literal::HexStringLiteral(_)
        ),
        _ => false,
    };
    if let Expr::Value(value) = expr
        && let Literal::SingleQuotedString(text) | Literal::DoubleQuotedString(text) = &value.value
    {
        return Ok(Some(DefaultValue::Text(text.clone())));
    }
    let plain = match expr {
        Expr::UnaryOp { expr, .. } => literal(expr),
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            matches!(name.as_str(), "current_timestamp" | "now")
        }
        other => literal(other),
    };
    if !plain {
        return Err(EngineError::refused(format!("the default {expr}"), "a literal or CURRENT_TIMESTAMP is"));
    }
    let text = expr.to_string();
    Ok((!text.eq_ignore_ascii_case("null")).then_some(DefaultValue::Literal(text)))
}

fn add_constraint(table: &mut TableDef, constraint: &TableConstraint) -> Result<(), EngineError> {
    let named = |name: &Option<sqlparser::ast::Ident>, columns: &[usize], table: &TableDef| {
        name.as_ref().map_or_else(|| table.columns[columns[0]].column.name.clone(), |it| it.value.clone())
    };
    match constraint {
        TableConstraint::PrimaryKey(key) => table.primary_key = places(table, &key.columns)?,
        TableConstraint::Unique(key) => {
            let columns = places(table, &key.columns)?;
            let name = key.index_name.clone().or_else(|| key.name.clone());
            let name = named(&name, &columns, table);
            table.indexes.push(IndexDef { name, unique: true, columns });
        }
        TableConstraint::Index(key) => {
            let columns = places(table, &key.columns)?;
            let name = named(&key.name, &columns, table);
            table.indexes.push(IndexDef { name, unique: false, columns });
        }
        other => {
            return Err(EngineError::refused(
                format!("`{other}` is not supported"),
                "keys and indexes are; state conditions as checks of the model",
            ));
        }
    }
    Ok(())
}

fn places(table: &TableDef, columns: &[IndexColumn]) -> Result<Vec<usize>, EngineError> {
    let place = |column: &IndexColumn| {
        let name = column.column.expr.to_string();
        let name = name.trim_matches('`');
        table.column(name).ok_or_else(|| {
            EngineError::sql(1072, format!("Key column '{name}' doesn't exist in table")).at(column
                .column
                .expr
                .span()
                .start)
        })
    };
    columns.iter().map(place).collect()
}

/// Reads CREATE INDEX for a table.
pub fn index(create: &CreateIndex, table: &TableDef) -> Result<IndexDef, EngineError> {
    let name = create.name.as_ref().map(table_name).unwrap_or_default();
    if table.indexes.iter().any(|it| it.name.eq_ignore_ascii_case(&name)) {
        return Err(EngineError::sql(1061, format!("Duplicate key name '{name}'")));
    }
    Ok(IndexDef { name, unique: create.unique, columns: places(table, &create.columns)? })
}

fn column_type(ty: &DataType) -> Result<(ColumnType, String), EngineError> {
    use DataType as D;
    let int = |unsigned: bool, name: &str, make: fn(bool) -> ColumnType| {
        (make(unsigned), if unsigned { format!("{name} unsigned") } else { name.to_owned() })
    };
    let tiny = |unsigned| ColumnType::TinyInt { unsigned };
    let small = |unsigned| ColumnType::SmallInt { unsigned };
    let medium = |unsigned| ColumnType::MediumInt { unsigned };
    let plain = |unsigned| ColumnType::Int { unsigned };
    let big = |unsigned| ColumnType::BigInt { unsigned };
    let with_fsp = |name: &str, fsp: u64| if fsp == 0 { name.to_owned() } else { format!("{name}({fsp})") };
    let fsp = |fsp: &Option<u64>| match fsp.unwrap_or(0) {
        most @ 0..=6 => Ok(most as u8),
        more => Err(EngineError::sql(1426, format!("Too-big precision {more}. Maximum is 6"))),
    };
    let text = |name: &str, bytes: u64| (ColumnType::Text { chars_max: bytes }, name.to_owned());
    let blob = |name: &str, bytes: u64| (ColumnType::VarBinary { bytes_max: bytes }, name.to_owned());
    Ok(match ty {
        D::Bool | D::Boolean => (tiny(false), "tinyint(1)".into()),
        D::TinyInt(_) => int(false, "tinyint", tiny),
        D::TinyIntUnsigned(_) => int(true, "tinyint", tiny),
        D::SmallInt(_) => int(false, "smallint", small),
        D::SmallIntUnsigned(_) => int(true, "smallint", small),
        D::MediumInt(_) => int(false, "mediumint", medium),
        D::MediumIntUnsigned(_) => int(true, "mediumint", medium),
        D::Int(_) | D::Integer(_) => int(false, "int", plain),
        D::IntUnsigned(_) | D::IntegerUnsigned(_) => int(true, "int", plain),
        D::BigInt(_) => int(false, "bigint", big),
        D::BigIntUnsigned(_) => int(true, "bigint", big),
        D::Decimal(info) | D::Numeric(info) | D::Dec(info) => {
            let (precision, scale) = match info {
                ExactNumberInfo::None => (10, 0),
                ExactNumberInfo::Precision(precision) => (*precision, 0),
                ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
            };
            if precision > 65 || !(0..=30).contains(&scale) || scale as u64 > precision {
                return Err(EngineError::sql(1426, format!("DECIMAL({precision},{scale}) is too wide")));
            }
            (
                ColumnType::Decimal { precision: precision as u8, scale: scale as u8 },
                format!("decimal({precision},{scale})"),
            )
        }
        D::Float(ExactNumberInfo::None) => (ColumnType::Float, "float".into()),
        D::Double(ExactNumberInfo::None) | D::DoublePrecision | D::Real => {
            (ColumnType::Double, "double".into())
        }
        D::Date => (ColumnType::Date, "date".into()),
        D::Datetime(digits) => {
            (ColumnType::DateTime { fsp: fsp(digits)? }, with_fsp("datetime", digits.unwrap_or(0)))
        }
        D::Timestamp(digits, _) => {
            (ColumnType::DateTime { fsp: fsp(digits)? }, with_fsp("timestamp", digits.unwrap_or(0)))
        }
        D::Time(digits, _) => (ColumnType::Time { fsp: fsp(digits)? }, with_fsp("time", digits.unwrap_or(0))),
        D::Varchar(Some(CharacterLength::IntegerLength { length, .. })) if *length <= 16_383 => {
            (ColumnType::Text { chars_max: *length }, format!("varchar({length})"))
        }
        D::Char(length) | D::Character(length) => {
            let length = match length {
                Some(CharacterLength::IntegerLength { length, .. }) => *length,
                _ => 1,
            };
            if length > 255 {
                return Err(EngineError::sql(1074, "Column length too big (max = 255)"));
            }
            (ColumnType::Text { chars_max: length }, format!("char({length})"))
        }
        D::TinyText => text("tinytext", 255),
        D::Text => text("text", 65_535),
        D::MediumText => text("mediumtext", 16_777_215),
        D::LongText => text("longtext", 4_294_967_295),
        D::Binary(length) => {
            let bytes = length.unwrap_or(1);
            if bytes > 255 {
                return Err(EngineError::sql(1074, "Column length too big (max = 255)"));
            }
            let bytes = bytes as u32;
            (ColumnType::Binary { bytes }, format!("binary({bytes})"))
        }
        D::Varbinary(Some(BinaryLength::IntegerLength { length })) => {
            (ColumnType::VarBinary { bytes_max: *length }, format!("varbinary({length})"))
        }
        D::TinyBlob => blob("tinyblob", 255),
        D::Blob(_) => blob("blob", 65_535),
        D::MediumBlob => blob("mediumblob", 16_777_215),
        D::LongBlob => blob("longblob", 4_294_967_295),
        D::Custom(name, _) if name.to_string().eq_ignore_ascii_case("year") => {
            (ColumnType::Year, "year".into())
        }
        other => {
            return Err(EngineError::refused(
                format!("the type {other} is not supported"),
                "integers, DECIMAL, FLOAT, DOUBLE, CHAR, VARCHAR, TEXT, BINARY, VARBINARY, BLOB, DATE, TIME, DATETIME, TIMESTAMP and YEAR are",
            ));
        }
    })
}

/// What makes a table in SQLite; one statement a part.
pub fn create_sql(table: &TableDef) -> Vec<String> {
    let rowid = rowid_column(table);
    let columns: Vec<String> = table
        .columns
        .iter()
        .enumerate()
        .map(|(at, it)| {
            let name = quoted(&it.column.name);
            if rowid == Some(at) {
                let counted =
                    if it.auto_increment { counted_sql(&name, &it.column.ty) } else { String::new() };
                return format!("{name} INTEGER PRIMARY KEY{counted}");
            }
            let collate = match &it.column.collation {
                Some(collation) => format!(" COLLATE {collation}"),
                None => String::new(),
            };
            let null = if it.column.nullable { "" } else { " NOT NULL" };
            format!("{name} {}{collate}{null}", affinity(&it.column.ty))
        })
        .collect();
    let mut sql = columns.join(", ");
    if rowid.is_none() && !table.primary_key.is_empty() {
        sql.push_str(&format!(", PRIMARY KEY ({})", names(table, &table.primary_key)));
    }
    let mut all = vec![format!("CREATE TABLE {} ({sql})", quoted(&table.name))];
    all.extend(table.indexes.iter().map(|index| index_sql(table, index)));
    all
}

/// Names of indexes are of the whole file, so that the table's is a part of them; RENAME makes them anew.
pub fn index_sql(table: &TableDef, index: &IndexDef) -> String {
    let unique = if index.unique { "UNIQUE " } else { "" };
    let name = sqlite_index(table, index);
    format!("CREATE {unique}INDEX {name} ON {} ({})", quoted(&table.name), names(table, &index.columns))
}

fn sqlite_index(table: &TableDef, index: &IndexDef) -> String {
    quoted(&format!("{}/{}", table.name, index.name))
}

/// What takes the indexes of a table away, and what makes them under its new name.
pub fn reindex_sql(old: &TableDef, new: &TableDef) -> (Vec<String>, Vec<String>) {
    let drop = old.indexes.iter().map(|it| format!("DROP INDEX {}", sqlite_index(old, it))).collect();
    (drop, new.indexes.iter().map(|it| index_sql(new, it)).collect())
}

/// The column that is SQLite's own row number: a primary key that is one integer.
pub fn rowid_column(table: &TableDef) -> Option<usize> {
    let [at] = table.primary_key.as_slice() else { return None };
    let column = &table.columns[*at];
    // Half of BIGINT UNSIGNED is no number of SQLite's.
    let wide = column.column.ty == ColumnType::BigInt { unsigned: true } && !column.auto_increment;
    (is_integer(&column.column.ty) && !wide).then_some(*at)
}

fn is_integer(ty: &ColumnType) -> bool {
    integer_bits(ty).is_some()
}

/// Width of an integer, and whether it is unsigned.
fn integer_bits(ty: &ColumnType) -> Option<(u32, bool)> {
    match ty {
        ColumnType::TinyInt { unsigned } => Some((8, *unsigned)),
        ColumnType::SmallInt { unsigned } => Some((16, *unsigned)),
        ColumnType::MediumInt { unsigned } => Some((24, *unsigned)),
        ColumnType::Int { unsigned } => Some((32, *unsigned)),
        ColumnType::BigInt { unsigned } => Some((64, *unsigned)),
        _ => None,
    }
}

/// What holds a number that SQLite counts itself inside the column's range.
fn counted_sql(name: &str, ty: &ColumnType) -> String {
    match integer_bits(ty) {
        Some((bits @ ..=32, unsigned)) => {
            let most = (1_i64 << (if unsigned { bits } else { bits - 1 })) - 1;
            format!(" AUTOINCREMENT CHECK ({name} <= {most})")
        }
        _ => " AUTOINCREMENT".into(),
    }
}

fn names(table: &TableDef, columns: &[usize]) -> String {
    columns.iter().map(|at| quoted(&table.columns[*at].column.name)).collect::<Vec<_>>().join(", ")
}

fn affinity(ty: &ColumnType) -> &'static str {
    match ty {
        ColumnType::Float | ColumnType::Double => "REAL",
        ColumnType::Text { .. }
        | ColumnType::Date
        | ColumnType::DateTime { .. }
        | ColumnType::Timestamp { .. } => "TEXT",
        ColumnType::Binary { .. } | ColumnType::VarBinary { .. } => "BLOB",
        // A key that is INTEGER alone would be SQLite's row number, which no wide number is.
        _ => "INT",
    }
}
