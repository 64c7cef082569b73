//! Which tables a source or a flow means: `db.table` with `*` and `?`.

use crate::TableName;

/// A pattern that is not `db.table`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a table pattern: write db.table, where * and ? are wildcards")]
pub struct BadPattern(pub String);

#[derive(Clone, Debug, Default)]
pub struct Patterns {
    include: Vec<(String, String)>,
    exclude: Vec<(String, String)>,
}

impl Patterns {
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, BadPattern> {
        Ok(Self { include: split(include)?, exclude: split(exclude)? })
    }

    pub fn matches(&self, name: &TableName) -> bool {
        let any = |list: &[(String, String)]| {
            list.iter().any(|(db, table)| wildcard(db, &name.db) && wildcard(table, &name.table))
        };
        any(&self.include) && !any(&self.exclude)
    }
}

fn split(patterns: &[String]) -> Result<Vec<(String, String)>, BadPattern> {
    patterns
        .iter()
        .map(|pattern| match pattern.split_once('.') {
            Some((db, table)) if !db.is_empty() && !table.is_empty() => Ok((db.to_owned(), table.to_owned())),
            _ => Err(BadPattern(pattern.clone())),
        })
        .collect()
}

/// Glob match over characters, in time linear in both for each `*`.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    if pattern == "*" || pattern == text {
        return true;
    }
    if !pattern.contains(['*', '?']) {
        return false;
    }
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, t) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_say() {
        let list = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        let patterns = Patterns::new(&list(&["shop.*", "crm.user_?"]), &list(&["shop.tmp_*"])).unwrap();
        for (name, wanted) in [
            (("shop", "orders"), true),
            (("shop", "tmp_x"), false),
            (("crm", "user_1"), true),
            (("crm", "user"), false),
        ] {
            assert_eq!(patterns.matches(&TableName::new(name.0, name.1)), wanted, "{name:?}");
        }
        assert!(Patterns::new(&list(&["orders"]), &[]).is_err());
        assert!(wildcard("a*b*c", "aXXbYYc") && !wildcard("a*b", "aXbY") && wildcard("*", ""));
    }
}
