//! Looking into JSON text without building it. The text is as MySQL prints it, so a part of it is a slice of it.

use super::coerce::{Val, text_to_double};
use super::decimal::Decimal;
use std::borrow::Cow;
use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Member(String),
    Index(usize),
}

/// A path of members and places: `$.a."b c"[0]`; `None` for what is none, wildcards among it.
pub fn parse_path(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.trim().strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            if after.starts_with('"') {
                let end = string_end(after.as_bytes(), 0)?;
                steps.push(Step::Member(serde_json::from_str(&after[..end]).ok()?));
                rest = &after[end..];
            } else {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let name = &after[..end];
                let wordy = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                if name.is_empty()
                    || !name.chars().all(wordy)
                    || name.starts_with(|c: char| c.is_ascii_digit())
                {
                    return None;
                }
                steps.push(Step::Member(name.to_owned()));
                rest = &after[end..];
            }
        } else {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            steps.push(Step::Index(index.trim().parse().ok()?));
            rest = after;
        }
    }
    Some(steps)
}

/// Behind the closing quote of the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut index = at + 1;
    loop {
        match bytes.get(index)? {
            b'"' => return Some(index + 1),
            b'\\' => index += 2,
            _ => index += 1,
        }
    }
}

fn skip_blanks(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the value that begins at `at`.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut index = at;
            loop {
                match bytes.get(index)? {
                    b'"' => {
                        index = string_end(bytes, index)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(index + 1);
                        }
                    }
                    _ => {}
                }
                index += 1;
            }
        }
        _ => {
            let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            Some(bytes[at..].iter().position(ends).map_or(bytes.len(), |length| at + length))
        }
    }
}

/// The part of `text` that the path leads to.
pub fn extract<'t>(text: &'t str, path: &[Step]) -> Option<&'t str> {
    let mut part = text.trim();
    for step in path {
        part = match step {
            Step::Member(name) => member(part, name)?,
            Step::Index(index) if part.starts_with('[') => element(part, *index)?,
            // A value that is no array is an array of one.
            Step::Index(0) => part,
            Step::Index(_) => return None,
        };
    }
    Some(part)
}

fn member<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let mut at = skip_blanks(bytes, 1);
    while bytes.get(at) == Some(&b'"') {
        let key_end = string_end(bytes, at)?;
        let key = text.get(at..key_end)?;
        let value_at = skip_blanks(bytes, skip_blanks(bytes, key_end) + 1);
        let end = value_end(bytes, value_at)?;
        let raw = &key[1..key.len() - 1];
        let same = if raw.contains('\\') { *unquoted(key) == *name } else { raw == name };
        if same {
            return text.get(value_at..end);
        }
        at = skip_blanks(bytes, skip_blanks(bytes, end) + 1);
    }
    None
}

fn element(text: &str, index: usize) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = skip_blanks(bytes, 1);
    let mut seen = 0;
    while bytes.get(at).is_some_and(|b| *b != b']') {
        let end = value_end(bytes, at)?;
        if seen == index {
            return text.get(at..end);
        }
        seen += 1;
        at = skip_blanks(bytes, skip_blanks(bytes, end) + 1);
    }
    None
}

/// The elements of an array; `None` for what is no JSON array.
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let text = text.trim();
    if !text.starts_with('[') || !is_json(text) {
        return None;
    }
    let bytes = text.as_bytes();
    let (mut at, mut out) = (skip_blanks(bytes, 1), Vec::new());
    while bytes.get(at).is_some_and(|b| *b != b']') {
        let end = value_end(bytes, at)?;
        out.push(text.get(at..end)?);
        at = skip_blanks(bytes, skip_blanks(bytes, end) + 1);
    }
    Some(out)
}

/// Whether all of a text is one JSON value.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// The same JSON without blanks and line breaks between its parts, digit for digit; `None` for what is none.
pub fn compact(text: &str) -> Option<String> {
    if !is_json(text) {
        return None;
    }
    let (bytes, mut out, mut at) = (text.as_bytes(), String::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let end = match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'"' => string_end(bytes, at)?,
            _ => at + 1,
        };
        out.push_str(text.get(at..end)?);
        at = end;
    }
    Some(out)
}

/// A JSON string without its quotes and escapes; other values as they are.
pub fn unquoted(text: &str) -> Cow<'_, str> {
    match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner),
        Some(_) => serde_json::from_str::<String>(text).map_or(Cow::Borrowed(text), Cow::Owned),
        None => Cow::Borrowed(text),
    }
}

/// JSON as a number: numbers, numbers in strings, true as 1; anything else is 0.
pub fn to_double(text: &str) -> f64 {
    match text.as_bytes().first() {
        Some(b'"') => text_to_double(&unquoted(text)),
        Some(b't') => 1.0,
        Some(b'-' | b'0'..=b'9') => text_to_double(text),
        _ => 0.0,
    }
}

/// The order of JSON's types among each other.
fn rank(text: &str) -> u8 {
    match text.as_bytes().first() {
        Some(b'n') | None => 0,
        Some(b'"') => 2,
        Some(b'{') => 3,
        Some(b'[') => 4,
        Some(b't' | b'f') => 5,
        Some(_) => 1,
    }
}

/// A JSON value against a number or text, which count as JSON's own.
pub fn compare(json: &str, other: &Val<'_>) -> Ordering {
    let (number, text) = (1, 2);
    match other {
        Val::Text(other) | Val::Label(other, _) => {
            rank(json).cmp(&text).then_with(|| unquoted(json).as_ref().cmp(other.as_ref()))
        }
        _ if rank(json) != number => rank(json).cmp(&number),
        Val::Double(_) | Val::Float(_) => to_double(json).total_cmp(&super::coerce::to_double(other)),
        other => Decimal::parse_prefix(json).cmp(&super::coerce::to_decimal(other)),
    }
}

/// A JSON value against TRUE or FALSE.
pub fn compare_bool(json: &str, other: bool) -> Ordering {
    rank(json).cmp(&5).then_with(|| (json == "true").cmp(&other))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"a": 1.5, "b": "x\"y", "c d": {"e": [1, {"k": 2}, "]"]}, "n": null, "q\"": true}"#;

    fn at(path: &str) -> Option<&'static str> {
        extract(TEXT, &parse_path(path).unwrap())
    }

    #[test]
    fn paths_lead_to_slices() {
        assert_eq!(at("$.a"), Some("1.5"));
        assert_eq!(at("$.b"), Some(r#""x\"y""#));
        assert_eq!(at(r#"$."c d".e[1].k"#), Some("2"));
        assert_eq!(at(r#"$."c d".e[2]"#), Some("\"]\""));
        assert_eq!(at(r#"$."q\"""#), Some("true"));
        assert_eq!(at("$.a[0]"), Some("1.5"));
        assert_eq!(at("$.n"), Some("null"));
        assert_eq!(at("$.zz"), None);
        assert_eq!(at("$.a.b"), None);
        assert_eq!(at(r#"$."c d".e[9]"#), None);
        for path in ["", "a", "$.*", "$[*]", "$**.a", "$.", "$[", "$.a-b"] {
            assert_eq!(parse_path(path), None, "{path}");
        }
    }

    #[test]
    fn broken_text_is_no_panic() {
        for end in 0..TEXT.len() {
            for path in ["$.b", "$.n", r#"$."c d".e[1].k"#] {
                let _ = extract(&TEXT[..end], &parse_path(path).unwrap());
            }
        }
    }

    #[test]
    fn values_compare_by_type_and_then_by_value() {
        assert_eq!(compare("1.5", &Val::Decimal(Decimal::parse("1.50").unwrap())), Ordering::Equal);
        assert_eq!(compare("\"1\"", &Val::Int(1)), Ordering::Greater);
        assert_eq!(compare("\"x\"", &Val::text("x")), Ordering::Equal);
        assert_eq!(compare("null", &Val::Int(0)), Ordering::Less);
        assert_eq!(compare_bool("true", true), Ordering::Equal);
        assert_eq!(unquoted(r#""a\nb""#), "a\nb");
    }
}
