//! `grok`: named patterns, put together into one regular expression. The engine walks a text once, whatever the pattern:
//! time grows with the length of the text and no faster.

use super::patterns;
use super::typed::{TYPES, Typed, shown};
use base::{Column, Value};
use regex::Regex;
use std::collections::BTreeMap;

/// Patterns within patterns, at most.
const DEPTH_MAX: usize = 16;
/// Bytes of a pattern after all names are replaced.
const PATTERN_BYTES_MAX: usize = 64 << 10;
/// Memory of one compiled pattern. The Apache patterns take less than a tenth.
const PROGRAM_BYTES_MAX: usize = 8 << 20;

/// A `grok` step, compiled.
#[derive(Clone, Debug)]
pub struct Grok {
    alternatives: Vec<Alternative>,
    types: Vec<Typed>,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Alternative {
    regex: Regex,
    /// `(group of the expression, column)`; a column has several groups where it stands in several branches.
    groups: Vec<(usize, usize)>,
}

/// One pattern while its names are replaced.
struct Expansion<'a> {
    define: &'a BTreeMap<String, String>,
    regex: String,
    /// Of each group `c0`, `c1`, …: the column and its type.
    fields: Vec<(String, Typed)>,
}

impl Grok {
    pub fn compile(patterns: &[String], define: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut grok = Self { alternatives: Vec::new(), types: Vec::new(), columns: Vec::new() };
        for pattern in patterns {
            let mut expansion = Expansion { define, regex: String::new(), fields: Vec::new() };
            expansion.put(pattern, 0)?;
            let alternative = grok.alternative(expansion)?;
            grok.alternatives.push(alternative);
        }
        if grok.columns.is_empty() {
            return Err("no pattern names a column: write %{INT:bytes:int}".to_owned());
        }
        Ok(grok)
    }

    fn alternative(&mut self, expansion: Expansion<'_>) -> Result<Alternative, String> {
        let built = regex::RegexBuilder::new(&expansion.regex).size_limit(PROGRAM_BYTES_MAX).build();
        let regex = built.map_err(|error| {
            let told = error.to_string();
            let reason = told.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("not a pattern: {reason}")
        })?;
        let mut groups = Vec::new();
        for (group, name) in regex.capture_names().enumerate() {
            let Some(name) = name else { continue };
            let own = name.strip_prefix("tidemill_").and_then(|n| n.parse::<usize>().ok());
            let (name, ty) = match own.and_then(|index| expansion.fields.get(index)) {
                Some((name, ty)) => (name.as_str(), ty.clone()),
                None => (name, Typed::Text),
            };
            groups.push((group, self.column(name, ty)?));
        }
        Ok(Alternative { regex, groups })
    }

    fn column(&mut self, name: &str, ty: Typed) -> Result<usize, String> {
        match self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name)) {
            Some(at) if self.types[at] == ty => Ok(at),
            Some(_) => Err(format!("the column `{name}` would have two types")),
            None => {
                self.columns.push(ty.column(name));
                self.types.push(ty);
                Ok(self.columns.len() - 1)
            }
        }
    }

    pub fn apply(&self, text: &str, out: &mut Vec<Value>) -> Result<(), String> {
        let found = self.alternatives.iter().find_map(|one| Some((one, one.regex.captures(text)?)));
        let (one, captures) = found.ok_or_else(|| format!("{} matches no pattern", shown(text)))?;
        let base = out.len();
        out.resize(base + self.columns.len(), Value::Null);
        for (group, column) in &one.groups {
            let Some(part) = captures.get(*group) else { continue };
            if !out[base + column].is_null() {
                continue;
            }
            let value = self.types[*column].read(part.as_str());
            out[base + column] =
                value.map_err(|reason| format!("`{}`: {reason}", self.columns[*column].name))?;
        }
        Ok(())
    }
}

impl Expansion<'_> {
    fn put(&mut self, pattern: &str, depth: usize) -> Result<(), String> {
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once("%{") {
            self.regex.push_str(before);
            let (inside, behind) =
                after.split_once('}').ok_or_else(|| format!("`{pattern}`: `%{{` has no end"))?;
            self.put_named(inside, depth)?;
            rest = behind;
        }
        self.regex.push_str(rest);
        if self.regex.len() > PATTERN_BYTES_MAX {
            return Err(format!(
                "the pattern is larger than {PATTERN_BYTES_MAX} bytes with its names replaced"
            ));
        }
        Ok(())
    }

    /// `NAME`, `NAME:column` or `NAME:column:type`.
    fn put_named(&mut self, inside: &str, depth: usize) -> Result<(), String> {
        let mut words = inside.splitn(3, ':');
        let (name, column, ty) = (words.next().unwrap_or_default(), words.next(), words.next());
        let own = self.define;
        let pattern =
            own.get(name).map(String::as_str).or_else(|| patterns::named(name)).ok_or_else(|| {
                let near = base::near::nearest(name, patterns::PATTERNS.iter().map(|(name, _)| *name));
                let near = near.map_or(String::new(), |near| format!("; `{near}` is one"));
                format!("there is no pattern `{name}`{near}")
            })?;
        if depth == DEPTH_MAX {
            return Err(format!("the pattern `{name}` names itself, or more than {DEPTH_MAX} others deep"));
        }
        match column.filter(|column| !column.is_empty()) {
            None => self.regex.push_str("(?:"),
            Some(column) => {
                let ty = ty.unwrap_or("text");
                let ty =
                    Typed::parse(ty).ok_or_else(|| format!("`{ty}` is not a type: there are {TYPES}"))?;
                self.regex.push_str(&format!("(?P<tidemill_{}>", self.fields.len()));
                self.fields.push((column.to_owned(), ty));
            }
        }
        self.put(pattern, depth + 1)?;
        self.regex.push(')');
        Ok(())
    }
}
