//! Words that look alike: what "did you mean" is made of.

/// Edits (insert, remove, replace, swap neighbours) that a slip of the fingers makes.
const EDITS_MAX: usize = 2;

/// The known word that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let ranked = known.into_iter().map(|candidate| (distance(word, candidate), candidate));
    // Of a short word, two edits make any other.
    let near = ranked.filter(|(edits, _)| *edits <= EDITS_MAX && *edits * 3 <= word.chars().count() + 1);
    near.min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}

/// How many edits make one word the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut edits = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                edits = edits.min(rows[i - 1][j - 1] + 1);
            }
            row.push(edits);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_finds_its_word() {
        let known = ["from", "to", "tables", "options"];
        for (word, wanted) in [
            ("form", Some("from")),
            ("table", Some("tables")),
            ("optoins", Some("options")),
            ("FROM", None),
            ("x", None),
            ("ot", Some("to")),
            ("free", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), wanted, "{word}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
