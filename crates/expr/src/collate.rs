//! How text compares: MySQL's collations, by the rules they follow rather than by their tables.
//!
//! Equality is exact for what people write: case folded by Unicode's simple folding, accents by canonical decomposition.
//! Order is MySQL's for ASCII and for letters that reduce to it; other characters order by code point.

use std::cmp::Ordering;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A collation, as far as it decides an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collation {
    rule: Rule,
    /// Blanks at the end do not count (all collations before 0900).
    pads: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Code points.
    Binary,
    /// `*_general_ci`: one upper-case letter without accents for each character, ordered by code point.
    General,
    /// Unicode's algorithm: letters, then accents, then case.
    Unicode { accents: bool, case: bool, modern: bool },
    /// Other case-insensitive collations: simple case folding, order unknown.
    Folded,
}

/// What text literals, numbers and dates have.
pub const DEFAULT: Collation =
    Collation { rule: Rule::Unicode { accents: false, case: false, modern: true }, pads: false };
/// What JSON text has.
pub const JSON: Collation = Collation { rule: Rule::Binary, pads: true };

impl Collation {
    /// `None` where we would not compare as the server does.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let unicode = |accents, case, modern| Rule::Unicode { accents, case, modern };
        let rule = match name.as_str() {
            "utf8mb4_0900_bin" | "binary" => return Some(Self { rule: Rule::Binary, pads: false }),
            "utf8mb4_0900_ai_ci" => return Some(DEFAULT),
            "utf8mb4_0900_as_ci" => return Some(Self { rule: unicode(true, false, true), pads: false }),
            "utf8mb4_0900_as_cs" => return Some(Self { rule: unicode(true, true, true), pads: false }),
            "utf8mb4_uca1400_ai_ci" | "utf8mb3_uca1400_ai_ci" => unicode(false, false, true),
            "utf8mb4_uca1400_as_ci" | "utf8mb3_uca1400_as_ci" => unicode(true, false, true),
            "utf8mb4_uca1400_as_cs" | "utf8mb3_uca1400_as_cs" => unicode(true, true, true),
            "ascii_general_ci" => Rule::General,
            _ if name.ends_with("_bin") => Rule::Binary,
            _ if !name.starts_with("utf8") => {
                // Letters of other character sets follow tables of their own.
                return name.ends_with("_ci").then_some(Self { rule: Rule::Folded, pads: true });
            }
            _ if name.ends_with("_general_ci") => Rule::General,
            _ if name.ends_with("_unicode_ci") || name.ends_with("_unicode_520_ci") => {
                unicode(false, false, false)
            }
            _ if name.ends_with("_ci") => Rule::Folded,
            _ => return None,
        };
        Some(Self { rule, pads: true })
    }

    pub fn is_binary(self) -> bool {
        self.rule == Rule::Binary
    }

    /// Whether `<` and its like answer as the server's do.
    pub fn is_ordered(self) -> bool {
        self.rule != Rule::Folded
    }

    pub fn equal(self, left: &str, right: &str) -> bool {
        self.compare(left, right) == Ordering::Equal
    }

    pub fn compare(self, left: &str, right: &str) -> Ordering {
        let (left, right) =
            if self.pads { (left.trim_end_matches(' '), right.trim_end_matches(' ')) } else { (left, right) };
        if left == right {
            return Ordering::Equal;
        }
        match self.rule {
            Rule::Binary if !self.pads => left.cmp(right),
            Rule::Binary | Rule::General | Rule::Folded => self.compare_keys(left, right),
            Rule::Unicode { accents, case, .. } => {
                let mut order = self.compare_keys(left, right);
                if accents {
                    let marks = |text: &str| text.nfd().flat_map(char::to_lowercase).collect::<String>();
                    order = order.then_with(|| marks(left).cmp(&marks(right)));
                }
                if case {
                    // Lower case goes before upper case.
                    let cased = |text: &str| text.nfd().map(|c| (c.is_uppercase(), c)).collect::<Vec<_>>();
                    order = order.then_with(|| cased(left).cmp(&cased(right)));
                }
                order
            }
        }
    }

    /// Letter by letter; where blanks at the end do not count, the shorter text has as many as it needs.
    fn compare_keys(self, left: &str, right: &str) -> Ordering {
        let blank = self.key(' ').next().unwrap_or(0);
        let (mut left, mut right) = (self.keys(left), self.keys(right));
        loop {
            let (a, b) = (left.next(), right.next());
            let order = match (a, b) {
                (None, None) => return Ordering::Equal,
                _ if self.pads => a.unwrap_or(blank).cmp(&b.unwrap_or(blank)),
                _ => a.cmp(&b),
            };
            if order.is_ne() {
                return order;
            }
        }
    }

    /// Bytes that are the same for all texts that are equal, and for some that are not.
    pub fn weights(self, text: &str) -> Vec<u8> {
        let blank = self.key(' ').next().unwrap_or(0);
        let mut keys: Vec<u32> = self.keys(text).collect();
        while self.pads && keys.last() == Some(&blank) {
            keys.pop();
        }
        keys.iter().flat_map(|key| key.to_le_bytes()).collect()
    }

    /// Appends bytes that sort as [`Collation::compare`] does, also in front of others: none of them begins another.
    ///
    /// Where blanks at the end do not count, a text goes on in blanks for ever: behind each blank, and behind the end, stands
    /// whether what comes next that is none is smaller (1), nothing (2) or greater (3).
    pub fn put_sort_key(self, out: &mut Vec<u8>, text: &str) {
        let text = if self.pads { text.trim_end_matches(' ') } else { text };
        let blank = self.key(' ').next().unwrap_or(0);
        let mut keys: Vec<u32> = self.keys(text).collect();
        while self.pads && keys.last() == Some(&blank) {
            keys.pop();
        }
        // Weights are characters or small numbers: one more fits, and 0 is left for the end.
        let put = |out: &mut Vec<u8>, key: u32| out.extend_from_slice(&(key + 1).to_be_bytes());
        for (place, key) in keys.iter().enumerate() {
            put(out, *key);
            if self.pads && *key == blank {
                let next = keys[place + 1..].iter().find(|next| **next != blank);
                out.push(if next.is_some_and(|next| *next < blank) { 1 } else { 3 });
            }
        }
        if self.pads {
            put(out, blank);
            out.push(2);
        } else {
            out.extend_from_slice(&[0; 4]);
        }
        let Rule::Unicode { accents, case, .. } = self.rule else { return };
        let mut end = |characters: &mut dyn Iterator<Item = u32>| {
            characters.for_each(|c| put(out, c));
            out.extend_from_slice(&[0; 4]);
        };
        if accents {
            end(&mut text.nfd().flat_map(char::to_lowercase).map(u32::from));
        }
        if case {
            end(&mut text.nfd().map(|c| u32::from(c) + if c.is_uppercase() { 1 << 24 } else { 0 }));
        }
    }

    fn keys(self, text: &str) -> impl Iterator<Item = u32> {
        text.chars().flat_map(move |c| self.key(c))
    }

    /// What one character weighs: nothing, one number or several.
    fn key(self, c: char) -> Key {
        match self.rule {
            Rule::Binary => Key::one(u32::from(c)),
            Rule::General if c.is_ascii() => Key::one(u32::from(c.to_ascii_uppercase())),
            Rule::Folded if c.is_ascii() => Key::one(u32::from(c.to_ascii_lowercase())),
            Rule::Unicode { .. } if c.is_ascii() => ascii_key(c),
            Rule::General => Key::one(general_key(c)),
            Rule::Folded => Key::one(u32::from(simple_lower(c))),
            Rule::Unicode { modern, .. } => unicode_key(c, modern),
        }
    }

    /// Whether two characters are the same to LIKE and LOCATE.
    pub fn same_char(self, left: char, right: char) -> bool {
        if left == right {
            return true;
        }
        match self.rule {
            Rule::Binary => false,
            Rule::Unicode { accents: false, case: false, .. } | Rule::General | Rule::Folded => {
                self.key(left).eq(self.key(right))
            }
            Rule::Unicode { .. } => {
                let mut buffers = ([0; 4], [0; 4]);
                self.equal(left.encode_utf8(&mut buffers.0), right.encode_utf8(&mut buffers.1))
            }
        }
    }

    /// The place of the first `needle` at or after character `from`, counted in characters from 0.
    pub fn find(self, text: &str, needle: &str, from: usize) -> Option<usize> {
        let start = text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(from)?;
        if self.is_binary() {
            return text[start..].find(needle).map(|at| from + text[start..start + at].chars().count());
        }
        let mut rest = text[start..].chars();
        let mut index = from;
        loop {
            if self.begins_with(rest.as_str(), needle) {
                return Some(index);
            }
            rest.next()?;
            index += 1;
        }
    }

    fn begins_with(self, text: &str, needle: &str) -> bool {
        if !matches!(self.rule, Rule::Unicode { accents: false, case: false, .. }) {
            let mut here = text.chars();
            return needle.chars().all(|wanted| here.next().is_some_and(|c| self.same_char(c, wanted)));
        }
        // One letter may be several: ß is ss, and begins with s.
        let mut here = self.keys(text);
        self.keys(needle).all(|wanted| here.next() == Some(wanted))
    }
}

/// Up to three weights without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    weights: [u32; 4],
    len: u8,
    at: u8,
}

impl Key {
    const NONE: Self = Self { weights: [0; 4], len: 0, at: 0 };

    fn one(weight: u32) -> Self {
        Self { weights: [weight, 0, 0, 0], len: 1, at: 0 }
    }

    fn push(&mut self, weight: u32) {
        if usize::from(self.len) < self.weights.len() {
            self.weights[usize::from(self.len)] = weight;
            self.len += 1;
        }
    }
}

impl Iterator for Key {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        (self.at < self.len).then(|| {
            self.at += 1;
            self.weights[usize::from(self.at) - 1]
        })
    }
}

/// ASCII in Unicode's order: blanks, punctuation, signs, digits, letters. Control characters weigh nothing.
const ASCII_ORDER: &[u8] =
    b"\t\n\x0b\x0c\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz";

/// For each ASCII character its place in [`ASCII_ORDER`], from 1; 0 when it weighs nothing.
const ASCII_WEIGHTS: [u8; 128] = {
    let mut weights = [0; 128];
    let mut at = 0;
    while at < ASCII_ORDER.len() {
        weights[ASCII_ORDER[at] as usize] = at as u8 + 1;
        weights[ASCII_ORDER[at].to_ascii_uppercase() as usize] = at as u8 + 1;
        at += 1;
    }
    weights
};

fn ascii_key(c: char) -> Key {
    match ASCII_WEIGHTS[c as usize] {
        0 => Key::NONE,
        weight => Key::one(u32::from(weight)),
    }
}

/// Letters that Unicode's algorithm takes for others though nothing decomposes them.
fn unicode_base(c: char, modern: bool) -> Option<&'static str> {
    Some(match c {
        'ß' | 'ẞ' => "ss",
        'œ' | 'Œ' => "oe",
        'æ' | 'Æ' if modern => "ae",
        'ø' | 'Ø' if modern => "o",
        'đ' | 'Đ' | 'ð' | 'Ð' if modern => "d",
        'ħ' | 'Ħ' if modern => "h",
        'ł' | 'Ł' if modern => "l",
        _ => return None,
    })
}

fn unicode_key(c: char, modern: bool) -> Key {
    let mut key = Key::NONE;
    match c {
        // Letters of their own, whatever they decompose to.
        'й' | 'Й' => return Key::one(u32::from('й')),
        '\u{622}'..='\u{626}' => return Key::one(u32::from(c)),
        _ => {}
    }
    for part in std::iter::once(c).nfkd() {
        if is_combining_mark(part) {
            continue;
        }
        if let Some(base) = unicode_base(part, modern) {
            base.bytes().for_each(|b| key.push(u32::from(ASCII_WEIGHTS[usize::from(b)])));
        } else if part.is_ascii() {
            ascii_key(part).for_each(|weight| key.push(weight));
        } else {
            key.push(u32::from(unicode_letter(part)));
        }
    }
    key
}

/// The letter that stands for others of the same weight.
fn unicode_letter(c: char) -> char {
    match c {
        'ς' => 'σ',
        // Capitals that are younger than the server's tables.
        '\u{1C90}'..='\u{1CBF}' => c,
        // Katakana weigh what hiragana weigh, small ones what full ones weigh.
        'ァ'..='ヶ' => full_kana(char::from_u32(u32::from(c) - 0x60).unwrap_or(c)),
        'ぁ'..='ゖ' => full_kana(c),
        _ => simple_lower(c),
    }
}

fn full_kana(c: char) -> char {
    match c {
        'ぁ' | 'ぃ' | 'ぅ' | 'ぇ' | 'ぉ' | 'っ' | 'ゃ' | 'ゅ' | 'ょ' | 'ゎ' => {
            char::from_u32(u32::from(c) + 1).unwrap_or(c)
        }
        'ゕ' => 'か',
        'ゖ' => 'け',
        _ => c,
    }
}

/// One upper-case letter without accents; supplementary characters are all the same to the server.
fn general_key(c: char) -> u32 {
    if u32::from(c) > 0xFFFF {
        return 0xFFFD;
    }
    if c == 'ß' {
        return u32::from('S');
    }
    if c == 'ı' {
        return u32::from('I');
    }
    let code = u32::from(c);
    // Latin, Greek and Cyrillic letters lose their accents there; й, Hangul, kana and all others stay themselves.
    let decomposed = (code < 0x530 || (0x1E00..0x2000).contains(&code)) && !matches!(c, 'й' | 'Й');
    let reduced = if decomposed { std::iter::once(c).nfd().next().unwrap_or(c) } else { c };
    if general_has_case(u32::from(reduced)) { u32::from(simple_upper(reduced)) } else { u32::from(reduced) }
}

/// Letters whose case is younger than the server's table have none there.
fn general_has_case(code: u32) -> bool {
    !matches!(
        code,
        0x237..=0x24F | 0x370..=0x37F | 0x3CF | 0x3D7..=0x3D9 | 0x3F3..=0x3FF | 0x48A | 0x48B | 0x4C0 | 0x4C5 | 0x4C6
            | 0x4C9 | 0x4CA | 0x4CD..=0x4CF | 0x4F6 | 0x4F7 | 0x4FA..=0x52F | 0x10A0..=0x1DFF
    )
}

/// The lower-case letter of one letter, by Unicode's simple mapping.
pub fn simple_lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// The upper-case letter of one letter; a letter without one of its own stays.
pub fn simple_upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(first), None) => first,
        _ => c,
    }
}

/// A LIKE pattern, read once.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(Vec<PatternPart>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum PatternPart {
    Any,
    One,
    Char(char),
}

impl Pattern {
    pub fn new(text: &str, escape: Option<char>) -> Self {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                _ if Some(c) == escape => PatternPart::Char(chars.next().unwrap_or(c)),
                '%' if parts.last() == Some(&PatternPart::Any) => continue,
                '%' => PatternPart::Any,
                '_' => PatternPart::One,
                _ => PatternPart::Char(c),
            });
        }
        Self(parts)
    }

    /// Looks back to the last `%` only: the work is at most the product of both lengths.
    pub fn matches(&self, text: &str, same: impl Fn(char, char) -> bool) -> bool {
        let parts = &self.0;
        let mut part = 0;
        let mut rest = text.chars();
        let mut back: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            let mut after = rest.clone();
            let step = match (parts.get(part), after.next()) {
                (Some(PatternPart::Any), _) => {
                    back = Some((part + 1, rest.clone()));
                    part += 1;
                    continue;
                }
                (None, None) => return true,
                (Some(PatternPart::One), Some(_)) => true,
                (Some(PatternPart::Char(wanted)), Some(c)) => same(c, *wanted),
                (Some(_), None) => return false,
                (None, Some(_)) => false,
            };
            if step {
                part += 1;
                rest = after;
                continue;
            }
            let Some((from, mut place)) = back.take() else { return false };
            if place.next().is_none() {
                return false;
            }
            part = from;
            rest = place.clone();
            back = Some((from, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collations_decide_what_is_equal() {
        let named = |name: &str| Collation::named(name).unwrap();
        let modern = named("utf8mb4_0900_ai_ci");
        assert!(modern.equal("Straße", "STRASSE") && modern.equal("Ægir", "aegir") && modern.equal("é", "E"));
        assert!(!modern.equal("a ", "a") && modern.equal("ａ", "A"));
        assert!(modern.equal("がァ", "カあ") && modern.equal("ς", "Σ") && !modern.equal("й", "и"));
        let general = named("utf8mb4_general_ci");
        assert!(general.equal("ß", "S") && general.equal("a  ", "A") && !general.equal("æ", "ae"));
        assert!(!named("utf8mb4_0900_as_cs").equal("a", "A") && !named("utf8mb4_0900_as_ci").equal("e", "é"));
        assert!(named("utf8mb4_0900_as_ci").equal("É", "é"));
        assert!(named("utf8mb4_bin").equal("a ", "a") && !named("utf8mb4_bin").equal("a", "A"));
        assert!(!named("utf8mb4_0900_bin").equal("a ", "a"));
        assert_eq!(Collation::named("utf8mb4_tr_0900_ai_xx"), None);
    }

    #[test]
    fn unicode_order_puts_punctuation_before_digits_before_letters() {
        let mut words = ["b", "A", "1", "_", "-", "~", "a b"];
        words.sort_by(|a, b| DEFAULT.compare(a, b));
        assert_eq!(words, ["_", "-", "~", "1", "A", "a b", "b"]);
    }

    #[test]
    fn patterns_match_with_wildcards_and_escapes() {
        let like = |text: &str, pattern: &str| {
            Pattern::new(pattern, Some('\\')).matches(text, |a, b| DEFAULT.same_char(a, b))
        };
        assert!(like("Hello", "h%O") && like("Hello", "_ello") && like("", "%") && like("aXbXc", "%x%x%"));
        assert!(!like("", "_") && !like("Hello", "hell") && !like("Hello", "ello") && !like("ß", "ss"));
        assert!(like("50%", "50\\%") && !like("501", "50\\%") && like("a\\b", "a\\\\b"));
        assert!(!like(&"a".repeat(5000), &"%a".repeat(50).replace("%a", "%a%b")));
    }

    #[test]
    fn the_first_place_is_found_in_characters() {
        assert_eq!(DEFAULT.find("Crème brûlée", "BRULEE", 0), Some(6));
        assert_eq!(DEFAULT.find("Straße", "SS", 0), Some(4));
        assert_eq!(DEFAULT.find("Straße", "s", 1), Some(4));
        assert_eq!(DEFAULT.find("abcabc", "B", 2), Some(4));
        assert_eq!(DEFAULT.find("abc", "", 3), Some(3));
        assert_eq!(DEFAULT.find("abc", "", 4), None);
        assert_eq!(JSON.find("éxb", "b", 1), Some(2));
    }

    proptest::proptest! {
        #[test]
        fn sort_keys_sort_as_texts_compare(a in "[ aAbB\t.éÉßz]{0,6}", b in "[ aAbB\t.éÉßz]{0,6}") {
            for name in [
                "utf8mb4_bin", "utf8mb4_0900_bin", "utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_0900_ai_ci",
                "utf8mb4_0900_as_ci", "utf8mb4_0900_as_cs", "utf8mb4_uca1400_as_cs",
            ] {
                let collation = Collation::named(name).unwrap();
                let key = |text: &str| {
                    let mut out = Vec::new();
                    collation.put_sort_key(&mut out, text);
                    out
                };
                proptest::prop_assert_eq!(key(&a).cmp(&key(&b)), collation.compare(&a, &b), "{}", name);
            }
        }
    }
}
