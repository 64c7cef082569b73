//! A JSON document as an SQL expression that MySQL stores as the document it was.
//!
//! JSON text says `1.50` or `12345678901234567890123`, which MySQL reads as a DOUBLE; but such a number was a DECIMAL in
//! the source, and is put back as one. Dates, times and binary scalars print as strings and arrive as strings.

use super::literal::text;

/// The longest DECIMAL there is.
const DIGITS_MAX: usize = 65;

/// A string literal, or `JSON_SET(…)` of one where numbers must stay decimal.
pub fn exact(document: &str) -> String {
    let mut scan = Scan { text: document, at: 0, path: "$".to_owned(), decimals: Vec::new() };
    if scan.value().is_none() || scan.decimals.is_empty() {
        return text(document);
    }
    let places = scan.decimals.iter().map(|(path, number)| format!(",{},{number}", text(path)));
    format!("JSON_SET({}{})", text(document), places.collect::<String>())
}

/// Walks a document; `None` where it is not JSON.
struct Scan<'d> {
    text: &'d str,
    at: usize,
    path: String,
    decimals: Vec<(String, &'d str)>,
}

impl<'d> Scan<'d> {
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'{' => self.members(b'}', true),
            b'[' => self.members(b']', false),
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => {
                let rest = &self.text[self.at..];
                let number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
                let number = &rest[..rest.find(|c| !number(c)).unwrap_or(rest.len())];
                self.at += number.len();
                if is_decimal(number) {
                    self.decimals.push((self.path.clone(), number));
                }
                Some(())
            }
            _ => {
                let rest = &self.text[self.at..];
                self.at += ["null", "true", "false"].iter().find(|word| rest.starts_with(**word))?.len();
                Some(())
            }
        }
    }

    fn members(&mut self, end: u8, is_object: bool) -> Option<()> {
        self.at += 1;
        if self.peek()? == end {
            self.at += 1;
            return Some(());
        }
        let outer = self.path.len();
        for index in 0.. {
            if is_object {
                self.peek()?;
                let key = self.string()?;
                self.path.push('.');
                self.path.push_str(key);
                self.take(b':')?;
            } else {
                self.path.push_str(&format!("[{index}]"));
            }
            self.value()?;
            self.path.truncate(outer);
            if self.peek()? == end {
                self.at += 1;
                return Some(());
            }
            self.take(b',')?;
        }
        None
    }

    /// A string with its quotes and escapes, which is also how a path names a member.
    fn string(&mut self) -> Option<&'d str> {
        let rest = self.text[self.at..].strip_prefix('"')?;
        let mut escaped = false;
        let end = rest.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let start = self.at;
        self.at += end + 2;
        Some(&self.text[start..self.at])
    }
}

/// Whether the server would not print this number so if it were an integer or a DOUBLE.
fn is_decimal(number: &str) -> bool {
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    if number.contains(['e', 'E']) || digits > DIGITS_MAX {
        return false;
    }
    if !number.contains('.') {
        return number.parse::<i64>().is_err() && number.parse::<u64>().is_err();
    }
    number.parse().is_ok_and(|value: f64| mysql::binlog::json_double(value) != number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_decimals_are_put_back() {
        assert_eq!(exact("{\"a\": 1.5, \"b\": -0.0}"), "'{\"a\": 1.5, \"b\": -0.0}'");
        assert_eq!(
            exact("[18446744073709551615, 1e20, 100000000000000.0]"),
            "'[18446744073709551615, 1e20, 100000000000000.0]'"
        );
        assert_eq!(exact("1.50"), "JSON_SET('1.50','$',1.50)");
        assert_eq!(
            exact("{\"it's\": [0, {\"a\\\"b\": -2.0000}], \"n\": 99999999999999999999}"),
            "JSON_SET('{\"it''s\": [0, {\"a\\\"b\": -2.0000}], \"n\": 99999999999999999999}',\
             '$.\"it''s\"[1].\"a\\\"b\"',-2.0000,'$.\"n\"',99999999999999999999)"
        );
        assert_eq!(exact("[1.50"), "'[1.50'");
    }
}
