//! JSON paths as configuration has them, `$.data.items[0]`, over text that stays as it is written.

use super::super::json::Members;
use serde_json::value::RawValue;

/// Names and indexes, from the root on.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Name(String),
    Index(usize),
}

impl Path {
    /// `$`, `$.a.b`, `$.a[0].b`; the `$.` may be left out.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no path: write $.data.items");
        let rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        for part in rest.split('.').filter(|part| !part.is_empty()) {
            let (name, indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
            if !name.is_empty() {
                steps.push(Step::Name(name.to_owned()));
            }
            for index in indexes.split_terminator(']') {
                let index = index.strip_prefix('[').and_then(|it| it.parse().ok()).ok_or_else(wrong)?;
                steps.push(Step::Index(index));
            }
        }
        Ok(Self(steps))
    }

    /// What stands there.
    pub fn find<'a>(&self, root: &'a RawValue) -> Option<&'a RawValue> {
        self.0.iter().try_fold(root, |at, step| match step {
            Step::Name(name) => {
                let members: Members<'a> = serde_json::from_str(at.get()).ok()?;
                members.0.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
            }
            Step::Index(index) => {
                serde_json::from_str::<Vec<&'a RawValue>>(at.get()).ok()?.get(*index).copied()
            }
        })
    }

    /// What stands there as text: of a string without its quotes. `None` for null too.
    pub fn text(&self, root: &RawValue) -> Option<String> {
        let found = self.find(root)?.get();
        match found.as_bytes().first() {
            Some(b'n') => None,
            Some(b'"') => serde_json::from_str(found).ok(),
            _ => Some(found.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_what_stands_there_as_it_is_written() {
        let root = r#"{"data": {"items": [{"n": 1.10}, {"n": "x"}]}, "code": 0, "next": null, "a\"b": true}"#;
        let root: &RawValue = serde_json::from_str(root).unwrap();
        let text = |path: &str| Path::parse(path).unwrap().text(root);
        assert_eq!(text("$.data.items[0].n").as_deref(), Some("1.10"));
        assert_eq!(text("data.items[1].n").as_deref(), Some("x"));
        assert_eq!((text("$.code").as_deref(), text("$.next"), text("$.none.x")), (Some("0"), None, None));
        assert_eq!(Path::parse("$").unwrap().find(root).unwrap().get(), root.get());
        assert!(Path::parse("$.a[x]").is_err());
    }
}
