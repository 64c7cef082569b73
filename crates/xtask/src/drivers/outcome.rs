//! What a suite's tests came to, read from what it printed, and how two runs compare.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Each test's outcome by its name.
pub type Outcomes = BTreeMap<String, Outcome>;

pub fn passed(outcomes: &Outcomes) -> usize {
    outcomes.values().filter(|outcome| **outcome == Outcome::Passed).count()
}

/// The tests that passed direct and did not pass through: failed, skipped, or not come to.
pub fn only_direct(direct: &Outcomes, through: &Outcomes) -> BTreeSet<String> {
    let passed = direct.iter().filter(|(_, outcome)| **outcome == Outcome::Passed);
    passed
        .map(|(name, _)| name)
        .filter(|name| through.get(*name) != Some(&Outcome::Passed))
        .cloned()
        .collect()
}

/// `--- PASS: TestName/sub (0.01s)`, indented by the depth: Go. A test whose subtests are counted is not counted itself.
pub fn of_go(text: &str) -> Outcomes {
    let mut found = Outcomes::new();
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix("--- ") else { continue };
        let Some((word, rest)) = rest.split_once(": ") else { continue };
        let outcome = match word {
            "PASS" => Outcome::Passed,
            "FAIL" => Outcome::Failed,
            "SKIP" => Outcome::Skipped,
            _ => continue,
        };
        let name = rest.split(" (").next().unwrap_or(rest);
        found.insert(name.to_owned(), outcome);
    }
    let parents: BTreeSet<String> =
        found.keys().filter_map(|name| name.rsplit_once('/')).map(|(parent, _)| parent.to_owned()).collect();
    found.retain(|name, _| !parents.contains(name));
    found
}

/// `PASSED file::Class::test`, the summary of pytest's `-rA`.
pub fn of_pytest(text: &str) -> Outcomes {
    let mut found = Outcomes::new();
    for line in text.lines() {
        let Some((word, rest)) = line.split_once(' ') else { continue };
        let outcome = match word {
            "PASSED" | "XFAIL" => Outcome::Passed,
            "FAILED" | "ERROR" | "XPASS" => Outcome::Failed,
            _ => continue,
        };
        // A failure's message follows its name, and a test that failed may be named again by an error of its end.
        let name = rest.split(" - ").next().unwrap_or(rest).trim();
        if name.contains("::") && found.get(name) != Some(&Outcome::Failed) {
            found.insert(name.to_owned(), outcome);
        }
    }
    found
}

/// `PASS: name`, `FAIL: name` and `SKIP: name` at the start of a line: our own suites, and those run by a script of ours; in
/// PHP's the name is a description and ends with `[path]`, which is the name that counts.
pub fn of_lines(text: &str) -> Outcomes {
    let mut found = Outcomes::new();
    // PHP's progress is overwritten on a terminal.
    for line in text.split(['\n', '\r']) {
        for (word, outcome) in
            [("PASS", Outcome::Passed), ("FAIL", Outcome::Failed), ("SKIP", Outcome::Skipped)]
        {
            let Some(rest) = line.strip_prefix(word) else { continue };
            let Some(rest) = rest.strip_prefix(": ").or_else(|| rest.strip_prefix(' ')) else { continue };
            let bracketed = rest.rsplit_once('[').and_then(|(_, path)| path.split_once(']'));
            let name = bracketed.map_or(rest, |(path, _)| path).trim();
            found.insert(name.to_owned(), outcome);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Outcome, of_go, of_lines, of_pytest, only_direct, passed};

    #[test]
    fn gos_subtests_count_and_their_parents_do_not() {
        let text = "=== RUN TestA\n--- FAIL: TestA (0.00s)\n    --- PASS: TestA/compress (0.00s)\n    \
                    --- FAIL: TestA/default (0.01s)\n--- SKIP: TestB (0.00s)\n";
        let found = of_go(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found["TestA/default"], Outcome::Failed);
        assert_eq!(found["TestB"], Outcome::Skipped);
        assert_eq!(passed(&found), 1);
    }

    #[test]
    fn pytests_failure_at_the_end_of_a_test_counts() {
        let text = "PASSED tests/a.py::T::one\nERROR tests/a.py::T::one - boom\nFAILED tests/a.py::T::two - no :: x\n\
                    PASSED bytes are no name\n";
        let found = of_pytest(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found["tests/a.py::T::one"], passed(&found)), (Outcome::Failed, 0));
    }

    #[test]
    fn a_line_names_a_test_or_its_path() {
        let found = of_lines(
            "TEST 1/2 [a.phpt]\rPASS Fetch a row [ext/mysqli/tests/a.phpt] \nFAIL: b: it is 2\nPASSING\nSKIP: c\n",
        );
        assert_eq!(found.keys().collect::<Vec<_>>(), ["b: it is 2", "c", "ext/mysqli/tests/a.phpt"]);
    }

    #[test]
    fn a_test_that_is_missing_through_the_mesh_did_not_pass() {
        let direct = of_lines("PASS: a\nPASS: b\nPASS: c\nFAIL: d\n");
        let through = of_lines("PASS: a\nSKIP: b\nFAIL: d\n");
        assert_eq!(only_direct(&direct, &through).into_iter().collect::<Vec<_>>(), ["b", "c"]);
    }
}
