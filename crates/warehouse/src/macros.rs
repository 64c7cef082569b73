//! `@start_ds`, `@end_ds`, `@start_ts` and `@end_ts` in a model's query: the interval that is computed.
//!
//! | macro | is |
//! |---|---|
//! | `@start_ds`, `@end_ds` | the first and the last day of the interval, both inside it: `BETWEEN @start_ds AND @end_ds` |
//! | `@start_ts`, `@end_ts` | its first moment, and the first behind it: `at >= @start_ts AND at < @end_ts` |

use crate::interval::Interval;
use crate::model::Mistake;
use jiff::ToSpan;
use jiff::civil::date;

const NAMES: [&str; 4] = ["@start_ds", "@end_ds", "@start_ts", "@end_ts"];

/// The query of an interval.
pub fn applied(sql: &str, interval: &Interval) -> String {
    let last = interval.end.saturating_sub(1.nanosecond());
    replaced(sql, |name| {
        Some(match name {
            "@start_ds" => format!("DATE'{}'", interval.start.date()),
            "@end_ds" => format!("DATE'{}'", last.date()),
            "@start_ts" => format!("TIMESTAMP'{}'", interval.start.strftime("%F %T")),
            "@end_ts" => format!("TIMESTAMP'{}'", interval.end.strftime("%F %T")),
            _ => return None,
        })
    })
}

/// The query of some interval, for looking at it. Without `timed` a macro is a mistake, as is a name that is none.
pub fn sample(sql: &str, timed: bool) -> Result<String, Mistake> {
    let mut wrong = None;
    let mut used = false;
    replaced(sql, |name| {
        used = true;
        if wrong.is_none() && (!timed || !NAMES.contains(&name)) {
            wrong = Some(name.to_owned());
        }
        None
    });
    let place = |name: &str| {
        let before = sql.find(name).map_or("", |at| &sql[..at]);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
        (before.matches('\n').count() as u64 + 1, column)
    };
    if let Some(name) = wrong {
        let (line, column) = place(&name);
        let (message, hint) = if NAMES.contains(&name.as_str()) {
            (format!("`{name}`: a model of this kind has no intervals"), "kind: incremental_by_time".into())
        } else {
            (format!("there is no macro `{name}`"), format!("there are: {}", NAMES.join(", ")))
        };
        return Err(Mistake { line, column, message, hint });
    }
    if timed && !used {
        let hint = "for example: WHERE day BETWEEN @start_ds AND @end_ds";
        let message = "the query names no interval, so that each run would read everything".to_owned();
        return Err(Mistake { line: 1, column: 1, message, hint: hint.into() });
    }
    let start = date(2026, 1, 1).at(0, 0, 0, 0);
    Ok(applied(sql, &Interval { start, end: start.saturating_add(1.day()) }))
}

/// `sql` with every `@name` outside of quotes and comments replaced, where `of` gives something.
fn replaced(sql: &str, mut of: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '\'' | '"' | '`' => quoted(rest, c),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '-' if rest.starts_with("-- ") || rest.starts_with("--\n") => {
                rest.find('\n').unwrap_or(rest.len())
            }
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '@' if rest.starts_with("@@") => 2,
            '@' => {
                let letters = rest[1..].find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
                let length = letters.map_or(rest.len(), |at| at + 1);
                if let Some(value) = of(&rest[..length]) {
                    out.push_str(&value);
                    rest = &rest[length..];
                    continue;
                }
                length
            }
            other => other.len_utf8(),
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// Bytes of a text in quotes at the beginning.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote != '`' {
            escaped = true;
        } else if c == quote {
            // A doubled quote begins another text at once, which comes to the same.
            return at + c.len_utf8();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_outside_of_quotes_and_comments() {
        let start = date(2026, 2, 27).at(0, 0, 0, 0);
        let interval = Interval { start, end: start.saturating_add(2.days()) };
        let sql = "select '@start_ds', \"it''s \\\" @end_ds\", `@x` -- @start_ts\n, /* @end_ts */ @start_ds,@end_ds # @end_ds\n, @start_ts+@end_ts";
        let wanted = "select '@start_ds', \"it''s \\\" @end_ds\", `@x` -- @start_ts\n, /* @end_ts */ DATE'2026-02-27',DATE'2026-02-28' # @end_ds\n, TIMESTAMP'2026-02-27 00:00:00'+TIMESTAMP'2026-03-01 00:00:00'";
        assert_eq!(applied(sql, &interval), wanted);
        assert_eq!(sample("select @nobody from t", true).unwrap_err().column, 8);
        assert!(sample("select 1", true).unwrap_err().message.contains("names no interval"));
        assert_eq!(sample("select '@start_ds'", false).unwrap(), "select '@start_ds'");
    }
}
