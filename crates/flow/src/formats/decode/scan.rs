//! JSON in one pass, for the messages that come by the million: the members of an object, without their values being read.
//!
//! It accepts what `serde_json` accepts, or less: what it does not take is left to that, which also says what is wrong. Both are
//! held against each other by the tests.

use super::cells::{Cells, Raw};
use std::borrow::Cow;

/// Members of most objects.
const MEMBERS_LIKELY: usize = 16;
/// Levels of lists and objects that are scanned here.
const DEPTH_MAX: u32 = 64;

/// The members of an object, and nothing behind it. Where a member's text begins with one of `known`, which are whole objects, it
/// is that.
pub fn object<'a>(text: &'a str, known: &[impl AsRef<str>]) -> Option<Cells<'a>> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.space();
    scan.expect(b'{')?;
    let mut out = Cells(Vec::with_capacity(MEMBERS_LIKELY));
    // A bit for each name so far: whose bit is not there, is new.
    let mut seen = 0u64;
    scan.space();
    if scan.peek()? == b'}' {
        scan.at += 1;
    } else {
        loop {
            let name = scan.name(text)?;
            scan.space();
            scan.expect(b':')?;
            scan.space();
            let from = scan.at;
            let rest = text.get(from..)?;
            match known.iter().find(|known| !known.as_ref().is_empty() && rest.starts_with(known.as_ref())) {
                Some(known) => scan.at += known.as_ref().len(),
                None => scan.value()?,
            }
            let value = Raw::trusted(text.get(from..scan.at)?);
            let bit = 1u64 << mark(&name);
            if seen & bit == 0 {
                seen |= bit;
                out.0.push((name, value));
            } else {
                out.put(name, value);
            }
            scan.space();
            match scan.next()? {
                b',' => scan.space(),
                b'}' => break,
                _ => return None,
            }
        }
    }
    scan.space();
    (scan.at == scan.bytes.len()).then_some(out)
}

/// Whether a text is one JSON value, with no space around it.
pub fn is_value(text: &str) -> bool {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.value().is_some() && scan.at == scan.bytes.len()
}

/// Names that differ in it are two.
fn mark(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let [first, last] = [bytes.first(), bytes.last()].map(|byte| u32::from(byte.copied().unwrap_or(0)));
    (first.wrapping_mul(7) ^ last.wrapping_mul(13) ^ bytes.len() as u32) % 64
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn name<'a>(&mut self, text: &'a str) -> Option<Cow<'a, str>> {
        let from = self.at;
        self.expect(b'"')?;
        let plain = self.string()?;
        let quoted = text.get(from..self.at)?;
        if plain {
            return Some(Cow::Borrowed(&quoted[1..quoted.len() - 1]));
        }
        serde_json::from_str(quoted).ok().map(Cow::Owned)
    }

    /// To behind the closing quote; whether there was no escape.
    fn string(&mut self) -> Option<bool> {
        let mut plain = true;
        loop {
            self.at += special(self.bytes.get(self.at..)?);
            match self.next()? {
                b'"' => return Some(plain),
                b'\\' => {
                    plain = false;
                    match self.next()? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let hex = self.bytes.get(self.at..self.at + 4)?;
                            if !hex.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            self.at += 4;
                        }
                        _ => return None,
                    }
                }
                // A control character.
                _ => return None,
            }
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let end = self.at + rest.len();
        if self.bytes.get(self.at..end)? != rest {
            return None;
        }
        self.at = end;
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }

    /// Behind its first character.
    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {
                if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                    return None;
                }
            }
            b'1'..=b'9' => {
                while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                    self.at += 1;
                }
            }
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// One value whole, however deep; what surrounds it is not looked at.
    fn value(&mut self) -> Option<()> {
        // A bit for each level that is open, the innermost the lowest: whether it is an object.
        let (mut levels, mut depth) = (0u64, 0u32);
        loop {
            match self.next()? {
                b'"' => {
                    self.string()?;
                }
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                open @ (b'{' | b'[') => {
                    if depth == DEPTH_MAX {
                        return None;
                    }
                    let is_object = open == b'{';
                    self.space();
                    if self.peek()? == if is_object { b'}' } else { b']' } {
                        self.at += 1;
                    } else {
                        levels = levels << 1 | u64::from(is_object);
                        depth += 1;
                        if is_object {
                            self.member()?;
                        }
                        continue;
                    }
                }
                first => self.number(first)?,
            }
            // Behind a value.
            loop {
                if depth == 0 {
                    return Some(());
                }
                let is_object = levels & 1 == 1;
                self.space();
                match self.next()? {
                    b',' => {
                        self.space();
                        if is_object {
                            self.member()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                levels >>= 1;
                depth -= 1;
            }
        }
    }

    /// A member's name, up to its value. Inside a value nobody asks what it is.
    fn member(&mut self) -> Option<()> {
        self.expect(b'"')?;
        self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }
}

/// Where the first byte is that ends a run of plain text within a string: a quote, a backslash, or a control character.
fn special(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(eight) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        // The highest bit of a byte that is zero, or less than 0x20. A higher byte may be marked wrongly behind a lower one that is
        // marked rightly: only the first counts.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = quote | backslash | control;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    at + bytes[at..].iter().position(is_special).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: [&str; 0] = [];

    fn general(text: &str) -> Option<Vec<(String, String)>> {
        let cells: Cells<'_> = serde_json::from_str(text).ok()?;
        Some(told(cells))
    }

    fn told(cells: Cells<'_>) -> Vec<(String, String)> {
        cells.0.into_iter().map(|(name, value)| (name.into_owned(), value.get().to_owned())).collect()
    }

    fn fast(text: &str) -> Option<Vec<(String, String)>> {
        object(text, &NONE).map(told)
    }

    #[test]
    fn it_takes_what_the_general_reader_takes() {
        for text in [
            "{}",
            " { } ",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":01}",
            "{\"a\":-}",
            "{\"a\":-0.0e+10}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":1e}",
            "{\"a\":[1,2,[]], \"b\":{\"c\":[{}]}}",
            "{\"a\":[1,]}",
            "{\"a\":[1}",
            "{\"a\":{\"b\":1]}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"\\ud800\":1}",
            "{\"\\u0061\":1,\"a\":2}",
            "{\"a\":1,\"b\":2,\"a\":3}",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":tru}",
            "{\"a\":true}x",
            "{\"a\":nullx}",
            "{\"绿\":\"😀\"}",
            "[]",
            "null",
            "",
            "{\"a\":\"unended",
            "{\"a\":\"0123456\\\"789\",\"b\":\"\\\\\"}",
        ] {
            assert_eq!(fast(text), general(text), "{text}");
        }
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(fast(&deep(64)), general(&deep(64)));
        assert!(fast(&deep(65)).is_none() && general(&deep(65)).is_some(), "deeper ones are the other's");
    }

    #[test]
    fn what_is_known_is_not_looked_at_again() {
        let schema = "{\"type\":\"struct\"}";
        let text = format!("{{\"schema\":{schema},\"payload\":{{\"schema\":1}}}}");
        assert_eq!(object(&text, &["{\"other\":1}", schema]).map(told), general(&text));
        let other = text.replace("struct", "strict");
        assert_eq!(object(&other, &[schema]).map(told), general(&other));
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<i64>().prop_map(|n| n.to_string()),
            (-1e300f64..1e300).prop_map(|n| format!("{n:e}")),
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let name = prop_oneof![
                any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
                Just("\"a\"".to_owned()),
                Just("\"\\u0061\"".to_owned()),
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|all| format!("[{}]", all.join(" , "))),
                prop::collection::vec((name, inner), 0..5).prop_map(|all| {
                    let members: Vec<_> =
                        all.into_iter().map(|(name, value)| format!("{name}\n: {value}")).collect();
                    format!("{{{} }}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn objects_are_read_as_the_general_reader_reads_them(text in json()) {
            let text = format!("{{\"x\":{text},\"y\":{text}}}");
            prop_assert!(fast(&text).is_some(), "{}", text);
            prop_assert_eq!(fast(&text), general(&text));
        }

        #[test]
        fn spoilt_texts_are_refused_as_the_general_reader_refuses_them(
            text in json(), at in any::<prop::sample::Index>(), by in any::<char>(), cut in any::<bool>()
        ) {
            let text = format!("{{\"x\":{text}}}");
            let mut chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            if cut {
                chars.remove(at);
            } else {
                chars[at] = if (by as u32).is_multiple_of(3) { ['"', '\\', '{', '}', '[', ']', ',', ':', '0', '-', ' ', '\u{1f}'][by as usize % 12] } else { by };
            }
            let text: String = chars.into_iter().collect();
            prop_assert_eq!(fast(&text), general(&text), "{}", text);
        }

        #[test]
        fn runs_of_plain_text_end_where_they_end_byte_by_byte(bytes: Vec<u8>, plain in 0usize..40) {
            let bytes = [vec![b'x'; plain], bytes].concat();
            let slow = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(bytes.len());
            prop_assert_eq!(special(&bytes), slow);
        }
    }
}
