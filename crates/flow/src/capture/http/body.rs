//! The body of a pushed request, taken apart. Pure.

use serde_json::value::RawValue;

/// Changes of one request: they are one transaction, and are at hand in memory together.
pub const ITEMS_MAX: usize = 100_000;

/// One JSON value of a body, and the line that it begins on, from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub line: usize,
    pub text: &'a [u8],
}

/// The values of a JSON list, or values one behind the other, as JSON lines are. `Err` says what is wrong and on which line.
pub fn items(body: &[u8]) -> Result<Vec<Item<'_>>, String> {
    let wrong = |error: serde_json::Error| {
        let line = error.line();
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
        format!("line {line}: it is not JSON: {reason}")
    };
    let raws: Vec<&RawValue> = if body.trim_ascii_start().first() == Some(&b'[') {
        serde_json::from_slice(body).map_err(wrong)?
    } else {
        let values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
        values.take(ITEMS_MAX + 1).collect::<Result<_, _>>().map_err(wrong)?
    };
    if raws.len() > ITEMS_MAX {
        return Err(format!("it has more than {ITEMS_MAX} changes"));
    }
    let mut at = Lines { body, offset: 0, line: 1 };
    let item = |raw: &'_ RawValue| {
        let text = raw.get().as_bytes();
        // Each value is a part of the body.
        (text.as_ptr() as usize - body.as_ptr() as usize, text.len())
    };
    let places: Vec<_> = raws.into_iter().map(item).collect();
    Ok(places
        .into_iter()
        .map(|(start, len)| Item { line: at.line_of(start), text: &body[start..start + len] })
        .collect())
}

/// Counts lines up to places that only go forward.
struct Lines<'a> {
    body: &'a [u8],
    offset: usize,
    line: usize,
}

impl Lines<'_> {
    fn line_of(&mut self, offset: usize) -> usize {
        self.line += self.body[self.offset..offset].iter().filter(|byte| **byte == b'\n').count();
        self.offset = offset;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> Result<Vec<(usize, String)>, String> {
        let text = |item: Item<'_>| (item.line, String::from_utf8(item.text.to_vec()).unwrap());
        items(body.as_bytes()).map(|items| items.into_iter().map(text).collect())
    }

    #[test]
    fn lists_lines_and_objects_over_several_lines_are_read_with_their_lines() {
        let two = vec![(1, "{\"a\":1}".to_owned()), (3, "{\"a\":2}".to_owned())];
        assert_eq!(read("{\"a\":1}\n\n{\"a\":2}\n"), Ok(two.clone()));
        assert_eq!(read("[{\"a\":1},\n\n{\"a\":2}]"), Ok(two));
        assert_eq!(
            read("{\n\"a\":\r\n1}{}"),
            Ok(vec![(1, "{\n\"a\":\r\n1}".to_owned()), (3, "{}".to_owned())])
        );
        assert_eq!(read("[]"), Ok(Vec::new()));
        assert_eq!(read(" \n"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_json_is_told_with_its_line() {
        for (body, told) in [
            ("{}\n{\"a\":}\n", "line 2: "),
            ("[{}\n,x]", "line 2: "),
            ("[{}", "line 1: "),
            ("\u{0}", "line 1: "),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.starts_with(told), "{body:?}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(&deep).is_err());
        assert!(items(b"{}\n\xff").is_err());
        let many = "1 ".repeat(ITEMS_MAX + 1);
        assert!(read(&many).unwrap_err().contains("more than"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = items(&body);
        }

        #[test]
        fn what_was_written_as_lines_or_as_a_list_comes_back(
            values in proptest::collection::vec("[a-z\"\\\\\n é]{0,8}", 0..20), list in any::<bool>()
        ) {
            let texts: Vec<String> = values.iter().map(|v| serde_json::json!({"v": v}).to_string()).collect();
            let body = if list { format!("[{}]", texts.join(",\n")) } else { texts.join("\n") };
            let found: Vec<_> = read(&body).unwrap();
            let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
            prop_assert_eq!(lines, (1..=values.len()).collect::<Vec<_>>());
            prop_assert_eq!(found.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), texts);
        }
    }
}
