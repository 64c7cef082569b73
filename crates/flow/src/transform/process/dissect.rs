//! `dissect`: a text cut at the characters between its parts, in one pass from left to right.

use super::typed::{TYPES, Typed, shown};
use base::{Column, Value};

/// A `dissect` step, compiled.
#[derive(Clone, Debug)]
pub struct Dissect {
    /// What the text begins with.
    head: String,
    fields: Vec<Field>,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Field {
    /// The column it fills, if any.
    into: Option<Typed>,
    /// Whether repeated delimiters behind it count as one.
    padded: bool,
    /// What stands behind it; empty for the last, which takes the rest.
    delimiter: String,
}

impl Dissect {
    pub fn compile(pattern: &str) -> Result<Self, String> {
        let (head, mut rest) = pattern.split_once("%{").ok_or("the pattern has no %{column}")?;
        let (mut fields, mut columns) = (Vec::new(), Vec::<Column>::new());
        loop {
            let (inside, after) = rest.split_once('}').ok_or("`%{` has no end")?;
            let (delimiter, next) = match after.split_once("%{") {
                Some((delimiter, next)) => (delimiter, Some(next)),
                None => (after, None),
            };
            if delimiter.is_empty() && next.is_some() {
                return Err("two columns stand side by side: nothing tells where one ends".to_owned());
            }
            let (inside, padded) = inside.strip_suffix("->").map_or((inside, false), |name| (name, true));
            let (name, ty) = inside.split_once(':').unwrap_or((inside, "text"));
            let ty = Typed::parse(ty).ok_or_else(|| format!("`{ty}` is not a type: there are {TYPES}"))?;
            let into = (!name.is_empty() && !name.starts_with('?')).then_some(ty);
            if let Some(ty) = &into {
                if columns.iter().any(|column| column.name.eq_ignore_ascii_case(name)) {
                    return Err(format!("the column `{name}` is taken twice"));
                }
                columns.push(ty.column(name));
            }
            fields.push(Field { into, padded, delimiter: delimiter.to_owned() });
            match next {
                Some(next) => rest = next,
                None => return Ok(Self { head: head.to_owned(), fields, columns }),
            }
        }
    }

    pub fn apply(&self, text: &str, out: &mut Vec<Value>) -> Result<(), String> {
        let missing = |what: &str| format!("{} lacks {what:?}", shown(text));
        let mut rest = text.strip_prefix(&*self.head).ok_or_else(|| missing(&self.head))?;
        let mut column = 0;
        for field in &self.fields {
            let (part, after) = match field.delimiter.as_str() {
                "" => (rest, ""),
                delimiter => rest.split_once(delimiter).ok_or_else(|| missing(delimiter))?,
            };
            rest = after;
            while field.padded && !field.delimiter.is_empty() {
                match rest.strip_prefix(&*field.delimiter) {
                    Some(after) => rest = after,
                    None => break,
                }
            }
            if let Some(ty) = &field.into {
                let name = &self.columns[column].name;
                out.push(ty.read(part).map_err(|reason| format!("`{name}`: {reason}"))?);
                column += 1;
            }
        }
        match rest {
            "" => Ok(()),
            rest => Err(format!("{} stands behind the pattern's end", shown(rest))),
        }
    }
}
