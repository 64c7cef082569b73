//! Partial JSON: the changes of a document, which a row image holds in place of the document under
//! `binlog_row_value_options = PARTIAL_JSON`, applied to the document of the image before it.
//!
//! ```text
//! diffs = (operation:u8 path_length:packed path [value_length:packed type:u8 value])*
//! ```
//! Operations are 0 replace, 1 insert, 2 remove, which has no value. A path is text as SQL writes it, `$.a."b c"[3]`,
//! without wildcards.

use super::error::{BinlogError, malformed};
use super::input::Input;
use super::jsonb::{DEPTH_MAX, Entry, Printer, entries, put_json_with};
use base::RowWriter;

/// Legs of one path; MySQL nests no deeper.
const LEGS_MAX: usize = DEPTH_MAX;

fn bad() -> BinlogError {
    malformed("partial JSON value")
}

/// The least that a container holds of each entry: its type, and its offset or what stands in place of it.
const ENTRY_BYTES_MIN: usize = 3;

/// Entries that may still be taken apart. Offsets may be shared, so a crafted document could open exponentially many, and each
/// operation its root again; a real one holds every entry once.
struct Budget(usize);

impl Budget {
    fn of(bytes: usize) -> Self {
        Self(bytes / ENTRY_BYTES_MIN)
    }

    fn spend(&mut self, entries: usize) -> Result<(), BinlogError> {
        self.0 = self.0.checked_sub(entries).ok_or_else(bad)?;
        Ok(())
    }
}

/// A value, taken apart only as far as a path leads into it.
#[derive(Clone, Debug)]
enum Node<'a> {
    /// Type and bytes as the binary form has them.
    Whole(u8, &'a [u8]),
    /// Members by name, in the server's order: shorter names first, then by bytes.
    Object(Vec<(Vec<u8>, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Leg {
    Member(Vec<u8>),
    Cell(usize),
    /// So many before the last.
    FromLast(usize),
}

/// Appends the document that `diffs` make of `before`.
pub(super) fn put_changed_json(
    out: &mut RowWriter<'_>,
    before: &[u8],
    diffs: &[u8],
) -> Result<(), BinlogError> {
    let mut root = Node::of(before);
    let mut budget = Budget::of(before.len() + diffs.len());
    let mut input = Input::new(diffs, "partial JSON value");
    while !input.is_empty() {
        let operation = input.u8()?;
        let path = legs(input.packed_bytes()?)?;
        match operation {
            0 => replace(&mut root, &path, Node::of(input.packed_bytes()?), &mut budget)?,
            1 => insert(&mut root, &path, Node::of(input.packed_bytes()?), &mut budget)?,
            2 => remove(&mut root, &path, &mut budget)?,
            _ => return Err(bad()),
        }
    }
    put_json_with(out, before.len() + diffs.len(), |printer| root.print(printer, DEPTH_MAX))
}

impl<'a> Node<'a> {
    /// A document as its column holds it; an empty one is the literal null.
    fn of(document: &'a [u8]) -> Self {
        match document.split_first() {
            Some((ty, value)) => Self::Whole(*ty, value),
            None => Self::Whole(super::jsonb::LITERAL, &[0]),
        }
    }

    /// Takes the value apart by one level, if it is a container.
    fn open(&mut self, budget: &mut Budget) -> Result<&mut Self, BinlogError> {
        if let Self::Whole(ty, bytes) = *self
            && ty <= super::jsonb::LARGE_ARRAY
        {
            let found = entries(ty, bytes)?;
            budget.spend(found.len())?;
            *self = if ty <= super::jsonb::LARGE_OBJECT {
                let member = |entry: Entry<'a>| (entry.key.to_vec(), Self::Whole(entry.ty, entry.value));
                Self::Object(found.into_iter().map(member).collect())
            } else {
                Self::Array(found.into_iter().map(|entry| Self::Whole(entry.ty, entry.value)).collect())
            };
        }
        Ok(self)
    }

    /// The value that the legs lead to, all of which must be there.
    fn at(&mut self, legs: &[Leg], budget: &mut Budget) -> Result<&mut Self, BinlogError> {
        let mut node = self;
        for leg in legs {
            node = match (node.open(budget)?, leg) {
                (Self::Object(members), Leg::Member(name)) => {
                    let found = find(members, name).map_err(|_| bad())?;
                    &mut members[found].1
                }
                (Self::Array(cells), leg) => {
                    let place = leg.place(cells.len()).ok_or_else(bad)?;
                    cells.get_mut(place).ok_or_else(bad)?
                }
                // A scalar is the only cell of itself.
                (node, Leg::Cell(0) | Leg::FromLast(0)) => node,
                _ => return Err(bad()),
            };
        }
        Ok(node)
    }

    fn print(&self, printer: &mut Printer<'_>, depth: usize) -> Result<(), BinlogError> {
        let inner = || depth.checked_sub(1).ok_or_else(bad);
        match self {
            Self::Whole(ty, bytes) => printer.value(*ty, bytes, depth),
            Self::Object(members) => {
                let depth = inner()?;
                printer.out.push(b'{');
                for (place, (name, value)) in members.iter().enumerate() {
                    if place > 0 {
                        printer.out.extend_from_slice(b", ");
                    }
                    printer.string(name)?;
                    printer.out.extend_from_slice(b": ");
                    value.print(printer, depth)?;
                }
                printer.out.push(b'}');
                Ok(())
            }
            Self::Array(cells) => {
                let depth = inner()?;
                printer.out.push(b'[');
                for (place, value) in cells.iter().enumerate() {
                    if place > 0 {
                        printer.out.extend_from_slice(b", ");
                    }
                    value.print(printer, depth)?;
                }
                printer.out.push(b']');
                Ok(())
            }
        }
    }
}

impl Leg {
    /// Its place in an array of so many cells; `None` before the first.
    fn place(&self, count: usize) -> Option<usize> {
        match self {
            Self::Cell(place) => Some(*place),
            Self::FromLast(back) => count.checked_sub(back + 1),
            Self::Member(_) => None,
        }
    }
}

/// Where a member is, or where it would be.
fn find(members: &[(Vec<u8>, Node<'_>)], name: &[u8]) -> Result<usize, usize> {
    members.binary_search_by(|(own, _)| own.len().cmp(&name.len()).then_with(|| own.as_slice().cmp(name)))
}

fn replace<'a>(
    root: &mut Node<'a>,
    path: &[Leg],
    value: Node<'a>,
    budget: &mut Budget,
) -> Result<(), BinlogError> {
    *root.at(path, budget)? = value;
    Ok(())
}

fn insert<'a>(
    root: &mut Node<'a>,
    path: &[Leg],
    value: Node<'a>,
    budget: &mut Budget,
) -> Result<(), BinlogError> {
    let (last, parent) = path.split_last().ok_or_else(bad)?;
    match (root.at(parent, budget)?.open(budget)?, last) {
        (Node::Object(members), Leg::Member(name)) => {
            let place = find(members, name).err().ok_or_else(bad)?;
            members.insert(place, (name.clone(), value));
            Ok(())
        }
        (Node::Array(cells), leg) => {
            // Past the end is at the end, and before the first is at the first.
            let place = match leg {
                Leg::Member(_) => return Err(bad()),
                leg => leg.place(cells.len()).unwrap_or(0).min(cells.len()),
            };
            cells.insert(place, value);
            Ok(())
        }
        _ => Err(bad()),
    }
}

fn remove(root: &mut Node<'_>, path: &[Leg], budget: &mut Budget) -> Result<(), BinlogError> {
    let (last, parent) = path.split_last().ok_or_else(bad)?;
    match (root.at(parent, budget)?.open(budget)?, last) {
        (Node::Object(members), Leg::Member(name)) => {
            let place = find(members, name).map_err(|_| bad())?;
            members.remove(place);
            Ok(())
        }
        (Node::Array(cells), leg) => {
            let place = leg.place(cells.len()).filter(|place| *place < cells.len()).ok_or_else(bad)?;
            cells.remove(place);
            Ok(())
        }
        _ => Err(bad()),
    }
}

/// The legs of a path.
fn legs(path: &[u8]) -> Result<Vec<Leg>, BinlogError> {
    let text = std::str::from_utf8(path).map_err(|_| bad())?;
    let mut rest = text.strip_prefix('$').ok_or_else(bad)?;
    let mut out = Vec::new();
    while !rest.is_empty() {
        if out.len() == LEGS_MAX {
            return Err(bad());
        }
        let leg;
        (leg, rest) = if let Some(member) = rest.strip_prefix('.') {
            match member.strip_prefix('"') {
                Some(quoted) => quoted_member(quoted)?,
                None => {
                    let end = member.find(['.', '[']).unwrap_or(member.len());
                    let (name, rest) = member.split_at(end);
                    if name.is_empty() || name.contains('*') {
                        return Err(bad());
                    }
                    (Leg::Member(name.as_bytes().to_vec()), rest)
                }
            }
        } else {
            let (cell, rest) =
                rest.strip_prefix('[').and_then(|cell| cell.split_once(']')).ok_or_else(bad)?;
            (cell_leg(cell).ok_or_else(bad)?, rest)
        };
        out.push(leg);
    }
    Ok(out)
}

/// `3`, `last` or `last-3`.
fn cell_leg(text: &str) -> Option<Leg> {
    match text.strip_prefix("last") {
        Some("") => Some(Leg::FromLast(0)),
        Some(back) => back.strip_prefix('-')?.parse().ok().map(Leg::FromLast),
        None => text.parse().ok().map(Leg::Cell),
    }
}

/// A member's name behind its opening quote, in the escapes of JSON, and what follows the closing one.
fn quoted_member(text: &str) -> Result<(Leg, &str), BinlogError> {
    let mut name = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next().ok_or_else(bad)? {
            '"' => return Ok((Leg::Member(name.into_bytes()), chars.as_str())),
            '\\' => match chars.next().ok_or_else(bad)? {
                'b' => name.push('\u{8}'),
                't' => name.push('\t'),
                'n' => name.push('\n'),
                'f' => name.push('\u{c}'),
                'r' => name.push('\r'),
                'u' => {
                    let digits = chars.as_str().get(..4).ok_or_else(bad)?;
                    let code = u32::from_str_radix(digits, 16).map_err(|_| bad())?;
                    // The server escapes control characters alone in this way.
                    name.push(char::from_u32(code).ok_or_else(bad)?);
                    chars = chars.as_str()[4..].chars();
                }
                other @ ('"' | '\\' | '/') => name.push(other),
                _ => return Err(bad()),
            },
            other => name.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{RowView, ValueRef};
    use proptest::prelude::*;

    fn changed(before: &[u8], diffs: &[u8]) -> Result<String, BinlogError> {
        let mut out = Vec::new();
        put_changed_json(&mut RowWriter::new(&mut out), before, diffs)?;
        match RowView(&out).get(0) {
            Ok(Some(ValueRef::Json(text))) => Ok(text.to_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn diff(operation: u8, path: &str, value: Option<&[u8]>) -> Vec<u8> {
        let mut out = vec![operation, path.len() as u8];
        out.extend_from_slice(path.as_bytes());
        if let Some(value) = value {
            out.push(value.len() as u8);
            out.extend_from_slice(value);
        }
        out
    }

    /// `{"a": [1, 2], "bb": "x"}` as MySQL stores it.
    const DOCUMENT: &[u8] = &[
        0, 2, 0, 33, 0, 18, 0, 1, 0, 19, 0, 2, 0, 2, 21, 0, 12, 31, 0, b'a', b'b', b'b', 2, 0, 10, 0, 5, 1,
        0, 5, 2, 0, 1, b'x',
    ];

    #[test]
    fn a_document_is_changed_as_the_diffs_say() {
        const SEVEN: &[u8] = &[5, 7, 0];
        assert_eq!(changed(DOCUMENT, &[]).unwrap(), r#"{"a": [1, 2], "bb": "x"}"#);
        for (diffs, wanted) in [
            (diff(0, "$.a[0]", Some(SEVEN)), r#"{"a": [7, 2], "bb": "x"}"#),
            (diff(0, "$.a[last]", Some(SEVEN)), r#"{"a": [1, 7], "bb": "x"}"#),
            (diff(0, "$.bb", Some(SEVEN)), r#"{"a": [1, 2], "bb": 7}"#),
            (diff(0, "$.\"bb\"[0]", Some(SEVEN)), r#"{"a": [1, 2], "bb": 7}"#),
            (diff(0, "$", Some(SEVEN)), "7"),
            (diff(1, "$.a[9]", Some(SEVEN)), r#"{"a": [1, 2, 7], "bb": "x"}"#),
            (diff(1, "$.a[last-2]", Some(SEVEN)), r#"{"a": [7, 1, 2], "bb": "x"}"#),
            (diff(1, "$.a[0]", Some(SEVEN)), r#"{"a": [7, 1, 2], "bb": "x"}"#),
            (diff(1, "$.b", Some(SEVEN)), r#"{"a": [1, 2], "b": 7, "bb": "x"}"#),
            (diff(1, "$.\"q\\\"\\u0001\"", Some(SEVEN)), r#"{"a": [1, 2], "bb": "x", "q\"\u0001": 7}"#),
            (diff(2, "$.a", None), r#"{"bb": "x"}"#),
            (diff(2, "$.a[last-1]", None), r#"{"a": [2], "bb": "x"}"#),
            ([diff(2, "$.a[0]", None), diff(2, "$.a[0]", None)].concat(), r#"{"a": [], "bb": "x"}"#),
        ] {
            assert_eq!(changed(DOCUMENT, &diffs).unwrap(), wanted);
        }
        for refused in [
            diff(0, "$.c", Some(SEVEN)),
            diff(1, "$.a", Some(SEVEN)),
            diff(1, "$.bb.c", Some(SEVEN)),
            diff(2, "$.a[2]", None),
            diff(2, "$.a[*]", None),
            diff(2, "$", None),
            diff(3, "$.a", None),
            diff(0, "a", Some(SEVEN)),
            diff(0, "$.a[0", Some(SEVEN)),
            vec![0],
        ] {
            assert!(changed(DOCUMENT, &refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_document_whose_offsets_meet_is_not_opened_again_and_again() {
        // An array of so many cells, each of which is the array itself.
        let cells: u16 = 1000;
        let size = 4 + 3 * cells;
        let mut document = vec![2];
        document.extend(cells.to_le_bytes());
        document.extend(size.to_le_bytes());
        for _ in 0..cells {
            document.extend([2, 0, 0]);
        }
        let mut root = Node::of(&document);
        let mut budget = Budget::of(document.len());
        assert!(root.at(&[Leg::Cell(0)], &mut budget).is_ok());
        for place in 0..3 {
            assert!(root.at(&[Leg::Cell(place), Leg::Cell(0)], &mut budget).is_err());
        }
        let Node::Array(opened) = &root else { panic!("{root:?}") };
        assert!(opened.iter().all(|cell| matches!(cell, Node::Whole(..))));
    }

    proptest! {
        #[test]
        fn arbitrary_diffs_never_panic(before: Vec<u8>, diffs: Vec<u8>) {
            let _ = changed(&before, &diffs);
        }

        #[test]
        fn arbitrary_paths_never_panic(operation in 0u8..4, path in "\\$[.\\[\\]a\"\\\\ulast0-9-]{0,12}", value: Vec<u8>) {
            let value: Vec<u8> = value.into_iter().take(200).collect();
            let _ = changed(DOCUMENT, &diff(operation, &path, Some(&value)));
        }
    }
}
