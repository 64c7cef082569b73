//! A table as TiCDC's simple protocol tells it, in our own terms.

use crate::formats::decode::cells::{Cells, Raw, is_null, number, object, text};
use crate::formats::decode::types::parse;
use base::{Column, ColumnType, Generated, Table, TableName};

/// A table's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The message's own number of the definition.
    pub version: u64,
    /// `id` and `version` are 0: whoever keeps tables numbers them.
    pub table: Table,
    /// By column: whether rows that are there already get a value of its own when it is added.
    pub fills: Vec<bool>,
}

/// Reads `tableSchema`. `Err` says what is wrong with it.
pub fn read(raw: Raw<'_>) -> Result<Schema, String> {
    let wrong = || "its `tableSchema` is no object".to_owned();
    let cells: Cells<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let name = |member: &str| {
        let found = text(&cells, member).filter(|text| !text.is_empty());
        found.map(std::borrow::Cow::into_owned).ok_or_else(|| format!("its `tableSchema` has no `{member}`"))
    };
    let mut table = Table {
        id: 0,
        version: 0,
        name: TableName { db: name("schema")?, table: name("table")? },
        columns: Vec::new(),
        key: Vec::new(),
        unique_keys: Vec::new(),
    };
    let mut fills = Vec::new();
    for raw in list(&cells, "columns")? {
        let (column, fill) = column(raw)?;
        table.columns.push(column);
        fills.push(fill);
    }
    apply_indexes(&mut table, &list(&cells, "indexes")?)?;
    let version = cells.get("version").and_then(|raw| raw.get().parse().ok());
    Ok(Schema { version: version.ok_or("its `tableSchema` has no `version`")?, table, fills })
}

fn list<'a>(cells: &Cells<'a>, name: &str) -> Result<Vec<Raw<'a>>, String> {
    match cells.get(name).filter(|raw| !is_null(*raw)) {
        None => Ok(Vec::new()),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| format!("its `{name}` is no list")),
    }
}

fn column(raw: Raw<'_>) -> Result<(Column, bool), String> {
    let cells: Cells<'_> =
        serde_json::from_str(raw.get()).map_err(|_| "a column of its `tableSchema` is no object")?;
    let name = text(&cells, "name").ok_or("a column of its `tableSchema` has no `name`")?.into_owned();
    let data = object(&cells, "dataType")?.ok_or_else(|| format!("its column `{name}` has no `dataType`"))?;
    let sql_type = sql_type(&data).ok_or_else(|| format!("its column `{name}` has no `mysqlType`"))?;
    let ty = parse(&sql_type).map_err(|error| format!("its column `{name}`: {error}"))?;
    let is_text = matches!(ty, ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. });
    let of_text = |member: &str| text(&data, member).filter(|_| is_text).map(std::borrow::Cow::into_owned);
    let nullable = cells.get("nullable").is_some_and(|raw| raw.get() == "true");
    let has_default = cells.get("default").is_some_and(|raw| !is_null(raw));
    let column = Column {
        name,
        ty,
        sql_type,
        nullable,
        charset: of_text("charset"),
        collation: of_text("collate"),
        generated: Generated::No,
        invisible: false,
    };
    Ok((column, has_default || !nullable))
}

/// The type as `information_schema` prints it.
fn sql_type(data: &Cells<'_>) -> Option<String> {
    let name = text(data, "mysqlType")?.to_ascii_lowercase();
    let flag = |member: &str| data.get(member).is_some_and(|raw| raw.get() == "true");
    let length = number(data, "length").filter(|length| *length >= 0);
    let digits = number(data, "decimal").unwrap_or(0);
    let mut out = name.clone();
    match name.as_str() {
        "char" | "varchar" | "binary" | "varbinary" | "bit" => {
            out.push_str(&format!("({})", length?));
        }
        "decimal" => out.push_str(&format!("({},{digits})", length?)),
        "time" | "datetime" | "timestamp" if digits > 0 => out.push_str(&format!("({digits})")),
        "vector" => {
            if let Some(length) = length.filter(|length| *length > 0) {
                out.push_str(&format!("({length})"));
            }
        }
        "tinyint" if length == Some(1) => out.push_str("(1)"),
        "enum" | "set" => {
            let labels: Vec<String> = serde_json::from_str(data.get("elements")?.get()).ok()?;
            let quoted = |label: &String| format!("'{}'", label.replace('\\', "\\\\").replace('\'', "''"));
            out.push_str(&format!("({})", labels.iter().map(quoted).collect::<Vec<_>>().join(",")));
        }
        // Always unsigned, and never printed so.
        "year" => return Some(out),
        _ => {}
    }
    if name != "bit" && flag("unsigned") {
        out.push_str(" unsigned");
    }
    if flag("zerofill") {
        out.push_str(" zerofill");
    }
    Some(out)
}

/// The primary key, else the first unique key whose columns are never NULL; other such keys are kept beside it.
fn apply_indexes(table: &mut Table, indexes: &[Raw<'_>]) -> Result<(), String> {
    let mut keys = Vec::new();
    for raw in indexes {
        let cells: Cells<'_> =
            serde_json::from_str(raw.get()).map_err(|_| "an index of its `tableSchema` is no object")?;
        let flag = |member: &str| cells.get(member).is_some_and(|raw| raw.get() == "true");
        if !flag("unique") {
            continue;
        }
        let names: Vec<String> = cells
            .get("columns")
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .ok_or("an index of its `tableSchema` has no `columns`")?;
        let columns: Option<Vec<usize>> = names.iter().map(|name| table.column_index(name)).collect();
        let Some(columns) = columns else {
            return Err("an index of its `tableSchema` has a column that the table has not".into());
        };
        let whole = columns.iter().all(|index| !table.columns[*index].nullable);
        if whole {
            keys.push((flag("primary"), columns));
        }
    }
    // Stable: keys keep their order behind the primary one.
    keys.sort_by_key(|(primary, _)| !primary);
    let mut keys = keys.into_iter().map(|(_, columns)| columns);
    table.key = keys.next().unwrap_or_default();
    table.unique_keys = keys.collect();
    Ok(())
}
