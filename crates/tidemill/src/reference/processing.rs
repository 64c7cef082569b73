//! `processing.md`: the steps that take texts apart. The examples are those that the steps' own test runs.

use super::config::put_step_keys;
use super::{NOTE, row};
use flow::transform::dedup::EXAMPLE;
use flow::transform::process::examples::{Answer, Cell, Example, LOOKUP_FILE, SECTIONS};
use flow::transform::process::{DOCUMENT_BYTES_MAX, GROK_PATTERNS, TEXT_BYTES_MAX, TYPES};
use std::fmt::Write;

pub fn page() -> String {
    let mut out = format!(
        "# Processing\n\n{NOTE}\n\n\
         These steps of a flow's `transform` take texts apart and add columns. They stand in one list with the steps of \
         [config.md](config.md) and run in the order written. The columns that they make are columns of the flow's tables, \
         with a type: SQL sinks make them. A step that makes a column of a name that is there replaces it. NULL in gives \
         NULL out.\n\n\
         Types are {TYPES}. `text` is made as `LONGTEXT`, which a MySQL sink does not index: give `varchar(n)` to what you \
         search for.\n\n\
         What a step has no answer for is up to its `on_error`. A text is at most {} KiB long, a document at most {} MiB; \
         longer ones have no answer.\n\n\
         Each example below is run by a test.\n",
        TEXT_BYTES_MAX >> 10,
        DOCUMENT_BYTES_MAX >> 20,
    );
    for section in &SECTIONS {
        let _ = writeln!(out, "\n## `{}`\n", section.step);
        put_step_keys(&mut out, section.step);
        match section.step {
            "date" => out.push_str(DATE_PATTERNS),
            "lookup" => {
                let _ = write!(out, "\nThe file of the examples:\n\n```csv\n{LOOKUP_FILE}```\n");
            }
            "split" => out.push_str(SPLIT),
            _ => {}
        }
        for example in section.examples {
            put_example(&mut out, example);
        }
        if section.step == "grok" {
            put_patterns(&mut out);
        }
    }
    put_dedup(&mut out);
    out
}

/// It looks at rows one after the other, and has its example in that form.
fn put_dedup(out: &mut String) {
    out.push_str("\n## `dedup`\n\n");
    put_step_keys(out, "dedup");
    out.push_str(
        "\nRows one after the other under `dedup: {key: [event_id], window: 10m}`. [The guide](../guides/processing.md#leave-out-repeats) \
         says more.\n\n| committed | `event_id` | |\n|---|---|---|\n",
    );
    for (minute, key, goes_on) in EXAMPLE {
        let outcome = if goes_on { "goes on" } else { "left out" };
        let _ = writeln!(out, "| 10:{minute:02} | `{key}` | {outcome} |");
    }
}

const DATE_PATTERNS: &str = "
| in a pattern | reads |
|---|---|
| `yyyy`, `yy` | year; two digits are 1970 to 2069 |
| `MMMM`, `MMM`, `MM`, `M` | month: English name, its first three letters, two digits, one or two |
| `dd`, `d` | day of the month, two digits, or one or two |
| `HH`, `H`, `hh`, `h` with `a` | hour of 24; hour of 12 with AM or PM |
| `mm`, `m`, `ss`, `s` | minute, second |
| `S`, `SSS`, … | fraction of a second, however many digits |
| `EEE`, `EEEE` | name of the weekday, which is not compared with the date |
| `Z` | `+0800`, `+08:00`, `+08` or `Z` |
| `z` | the same, or `UTC` or `GMT` |
| `'text'` | itself; `''` is a quote |
| a blank | one or more |

A pattern without a year is refused: a guess would be another on replay.
";

const SPLIT: &str = "
Updates stay right: elements that went are deleted, those that came are inserted, and of the others the ones that differ
are updated. All of one change go into the sink together. The table needs a key; its other unique keys are not kept. The
sinks `nats` and `files`, `redis` streams and `history` take no split rows.
";

fn put_example(out: &mut String, example: &Example) {
    let _ = write!(out, "\n```yaml\n- {}\n```\n\n", example.step);
    for (name, ty, text) in example.row {
        let text = text.map_or("NULL".to_owned(), code);
        let _ = writeln!(out, "`{name}` ({ty}) = {text}\n");
    }
    match &example.answer {
        Answer::Row(cells) => put_cells(out, &[cells]),
        Answer::Rows([]) => out.push_str("No row.\n"),
        Answer::Rows(rows) => put_cells(out, rows),
        Answer::Parked(reason) => {
            let _ = writeln!(out, "Parked: {}", code(reason));
        }
        Answer::LeftOut => out.push_str("Left out.\n"),
    }
}

/// Columns, with one value a row.
fn put_cells(out: &mut String, rows: &[&[Cell]]) {
    let values =
        (1..=rows.len()).map(|n| if rows.len() == 1 { "value".to_owned() } else { format!("row {n}") });
    let head: Vec<String> = ["column".to_owned(), "type".to_owned()].into_iter().chain(values).collect();
    out.push_str(&row(&head.iter().map(String::as_str).collect::<Vec<_>>()));
    out.push_str(&format!("|{}\n", "---|".repeat(head.len())));
    for (place, (name, ty, _)) in rows[0].iter().enumerate() {
        let values = rows.iter().map(|cells| code(cells[place].2));
        let line: Vec<String> = [format!("`{name}`"), (*ty).to_owned()].into_iter().chain(values).collect();
        out.push_str(&row(&line.iter().map(String::as_str).collect::<Vec<_>>()));
    }
}

/// As code, also where it holds a backtick; an empty one as a word.
fn code(text: &str) -> String {
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

fn put_patterns(out: &mut String) {
    out.push_str("\n### Patterns that `grok` knows\n\n| name | stands for |\n|---|---|\n");
    for (name, pattern) in GROK_PATTERNS {
        out.push_str(&row(&[&format!("`{name}`"), &code(pattern)]));
    }
}
