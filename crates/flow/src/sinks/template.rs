//! Names of keys, members, channels, indexes and documents, made of a change by a template: `{db}:{table}:{key}`.
//!
//! `{source}`, `{db}` and `{table}` are the change's names, `{key}` the columns of the table's key joined by `:`, any
//! other name a column; `{{` and `}}` are braces. Two rows never make the same text by accident: between two
//! placeholders stands punctuation, and where a text has several values, the template's punctuation is escaped in each,
//! as `%3A` for `:`. A single value stands as it is.

use base::{Column, Table, Value};
use std::borrow::Cow;

/// How a system writes a value into a name; `None` for NULL.
pub type AsText = for<'a> fn(&'a Value, &'a Column) -> Option<Cow<'a, [u8]>>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Source,
    Db,
    Table,
    Key,
    Column(String),
}

impl Part {
    fn is_name(&self) -> bool {
        matches!(self, Self::Source | Self::Db | Self::Table)
    }

    fn is_value(&self) -> bool {
        matches!(self, Self::Key | Self::Column(_))
    }
}

/// A template that was understood.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
    /// What is escaped in values and names: the punctuation between them.
    escaped: Vec<u8>,
}

/// A template for the rows of one table.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Everything before the first value: the same for all rows of the table.
    pub prefix: Vec<u8>,
    rest: Vec<BoundPart>,
    escaped: Vec<u8>,
    /// Whether values are escaped: one alone cannot be misread.
    several: bool,
}

#[derive(Clone, Debug)]
enum BoundPart {
    Literal(Vec<u8>),
    Columns(Vec<usize>),
}

impl Template {
    /// The reason completes "the template `…` ".
    pub fn compile(text: &str) -> Result<Self, String> {
        let parts = parse(text)?;
        let mut escaped = Vec::from(*b"%:");
        for part in &parts {
            if let Part::Literal(literal) = part {
                escaped.extend(literal.bytes().filter(u8::is_ascii_punctuation));
            }
        }
        let mut open = false;
        let mut values = false;
        for part in &parts {
            match part {
                Part::Literal(literal) => open &= !literal.bytes().any(|byte| byte.is_ascii_punctuation()),
                _ if open => return Err("has two names side by side: put a `:` between them".into()),
                part if values && part.is_name() => {
                    return Err("names a table behind a column: put `{db}` and `{table}` first".into());
                }
                part => {
                    open = true;
                    values |= part.is_value();
                }
            }
        }
        if text.starts_with("tidemill:") {
            return Err("begins with `tidemill:`, where our own keys are".into());
        }
        Ok(Self { text: text.to_owned(), parts, escaped })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// What a cluster of Redis hashes of every text that this makes, where that is the same for all: the first braces, which
    /// stand before any value or name.
    pub fn hash_tag(&self) -> Option<&str> {
        let Some(Part::Literal(literal)) = self.parts.first() else { return None };
        let (_, behind) = literal.split_once('{')?;
        behind.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
    }

    /// Whether it names a column: then it needs a row.
    pub fn has_values(&self) -> bool {
        self.parts.iter().any(Part::is_value)
    }

    /// For the rows of a table. The reason completes "the template `…` ".
    pub fn bind(&self, source: &str, table: &Table) -> Result<Bound, String> {
        let (mut prefix, mut rest) = (Vec::new(), Vec::new());
        for part in &self.parts {
            let mut fixed = |bytes: &[u8]| match rest.is_empty() {
                true => prefix.extend_from_slice(bytes),
                false => rest.push(BoundPart::Literal(bytes.to_vec())),
            };
            match part {
                Part::Literal(text) => fixed(text.as_bytes()),
                Part::Source => fixed(&self.escape(source.as_bytes())),
                Part::Db => fixed(&self.escape(table.name.db.as_bytes())),
                Part::Table => fixed(&self.escape(table.name.table.as_bytes())),
                Part::Key if table.key.is_empty() => {
                    return Err(format!("needs the key of `{}`, which has none", table.name));
                }
                Part::Key => rest.push(BoundPart::Columns(table.key.clone())),
                Part::Column(name) => {
                    let index = table.column_index(name);
                    let index =
                        index.ok_or_else(|| format!("names `{name}`, which `{}` lacks", table.name))?;
                    rest.push(BoundPart::Columns(vec![index]));
                }
            }
        }
        let values: usize = rest.iter().map(|part| part.columns().len()).sum();
        Ok(Bound { prefix, rest, escaped: self.escaped.clone(), several: values > 1 })
    }

    fn escape(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_escaped(&mut out, bytes, &self.escaped);
        out
    }
}

impl BoundPart {
    fn columns(&self) -> &[usize] {
        match self {
            Self::Literal(_) => &[],
            Self::Columns(columns) => columns,
        }
    }
}

impl Bound {
    /// `None` when one of its values is NULL.
    pub fn render(&self, table: &Table, row: &[Value], as_text: AsText) -> Option<Vec<u8>> {
        let mut out = self.prefix.clone();
        for part in &self.rest {
            if let BoundPart::Literal(text) = part {
                out.extend_from_slice(text);
            }
            for (position, index) in part.columns().iter().enumerate() {
                if position > 0 {
                    out.push(b':');
                }
                let text = as_text(&row[*index], &table.columns[*index])?;
                if self.several {
                    put_escaped(&mut out, &text, &self.escaped);
                } else {
                    out.extend_from_slice(&text);
                }
            }
        }
        Some(out)
    }
}

fn put_escaped(out: &mut Vec<u8>, bytes: &[u8], escaped: &[u8]) {
    for byte in bytes {
        if escaped.contains(byte) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
}

fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if rest.starts_with("{{") || rest.starts_with("}}") {
            literal.push(next);
            rest = &rest[2..];
        } else if let Some(inner) = rest.strip_prefix('{') {
            let (name, after) = inner.split_once('}').ok_or("has a `{` without its `}`")?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(match name {
                "" => return Err("has an empty `{}`".into()),
                "source" => Part::Source,
                "db" => Part::Db,
                "table" => Part::Table,
                "key" => Part::Key,
                column => Part::Column(column.to_owned()),
            });
            rest = after;
        } else if next == '}' {
            return Err("has a `}` without its `{`: write `}}` for a brace".into());
        } else {
            literal.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    if parts.is_empty() {
        return Err("is empty".into());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ColumnType, Generated, TableName};

    fn table(db: &str, name: &str, key: &[usize]) -> Table {
        let column = |name: &str| Column {
            name: name.into(),
            ty: ColumnType::Text { chars_max: 40 },
            sql_type: "varchar(40)".into(),
            nullable: true,
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        };
        let columns = vec![column("a"), column("b")];
        Table {
            id: 1,
            version: 1,
            name: TableName::new(db, name),
            columns,
            key: key.into(),
            unique_keys: vec![],
        }
    }

    fn row(a: &str, b: Option<&str>) -> Vec<Value> {
        vec![Value::Text(a.into()), b.map_or(Value::Null, |b| Value::Text(b.into()))]
    }

    fn text(template: &str, table: &Table, row: &[Value]) -> Option<String> {
        let bound = Template::compile(template).unwrap().bind("src", table).unwrap();
        bound
            .render(table, row, crate::sinks::redis::value::text)
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn names_and_columns_stand_where_the_template_says() {
        let (one, two) = (table("shop", "users", &[0]), table("shop", "users", &[0, 1]));
        let values = row("x", Some("y"));
        assert_eq!(text("{db}:{table}:{key}", &one, &values).unwrap(), "shop:users:x");
        assert_eq!(text("{db}:{table}:{key}", &two, &values).unwrap(), "shop:users:x:y");
        assert_eq!(text("u/{b}", &one, &values).unwrap(), "u/y");
        assert_eq!(text("{{{source}}}.{A}", &one, &values).unwrap(), "{src}.x");
        assert_eq!(text("u:{b}", &one, &row("x", None)), None);
    }

    #[test]
    fn different_rows_never_have_the_same_text() {
        let two = table("shop", "users", &[0, 1]);
        assert_ne!(text("{key}", &two, &row("a:b", Some("c"))), text("{key}", &two, &row("a", Some("b:c"))));
        assert_ne!(
            text("{a}-{b}", &two, &row("a-b", Some("c"))),
            text("{a}-{b}", &two, &row("a", Some("b-c")))
        );
        assert_ne!(text("{key}", &two, &row("a:", Some("c"))), text("{key}", &two, &row("a%3A", Some("c"))));
        let values = row("x:y", None);
        assert_eq!(text("{db}:{table}:{key}", &table("d:e", "t", &[0]), &values).unwrap(), "d%3Ae:t:x:y");
    }

    #[test]
    fn a_template_that_could_be_misread_is_refused() {
        for wrong in ["", "{a}{b}", "{a}x{b}", "{key}:{table}", "{a", "a}", "{}", "tidemill:{key}"] {
            assert!(Template::compile(wrong).is_err(), "{wrong}");
        }
        let compiled = Template::compile("{db}:{nope}").unwrap();
        assert!(compiled.bind("s", &table("d", "t", &[0])).unwrap_err().contains("`nope`"));
        assert!(Template::compile("{key}").unwrap().bind("s", &table("d", "t", &[])).is_err());
    }
}
