//! Regular expressions that name tables, as patterns of `*` and `?`. What people write in such lists is mostly `db\.table`,
//! `db\..*` and `db\.(a|b)`; the rest is widened, and told.

/// Patterns that one expression with alternatives may become.
const ALTERNATIVES_MAX: usize = 64;

/// The expressions of a list; commas inside brackets are not its own.
pub fn split_list(list: &str) -> Vec<String> {
    let (mut out, mut depth, mut item) = (Vec::new(), 0_i32, String::new());
    let mut escaped = false;
    for c in list.chars() {
        match c {
            ',' if depth == 0 && !escaped => out.push(std::mem::take(&mut item)),
            _ => {
                if !escaped {
                    depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
                }
                item.push(c);
            }
        }
        escaped = c == '\\' && !escaped;
    }
    out.push(item);
    out.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// The `db.table` patterns that mean the same. `Err` is one that means the same and perhaps more.
pub fn to_patterns(expression: &str) -> Result<Vec<String>, String> {
    let expression = expression.trim_start_matches('^').trim_end_matches('$');
    let mut exact = true;
    let mut patterns = Vec::new();
    for alternative in alternatives(expression, &mut exact) {
        let (pattern, is_exact) = one(&alternative);
        exact &= is_exact;
        patterns.push(pattern);
    }
    patterns.dedup();
    match patterns.as_slice() {
        _ if exact => Ok(patterns),
        [pattern] => Err(pattern.clone()),
        _ => Err("*.*".to_owned()),
    }
}

/// Opens groups of alternatives, from the left. One that is not closed, or repeated, stays.
fn alternatives(expression: &str, exact: &mut bool) -> Vec<String> {
    let mut done = Vec::new();
    let mut open = vec![expression.to_owned()];
    while let Some(text) = open.pop() {
        let whole = split_alternatives(&text);
        if whole.len() > 1 {
            open.extend(whole.into_iter().rev());
        } else if let Some((before, group, after)) = group(&text) {
            let group = group.strip_prefix("?:").unwrap_or(group);
            let parts = split_alternatives(group);
            open.extend(parts.iter().rev().map(|part| format!("{before}{part}{after}")));
        } else {
            done.push(text);
        }
        if done.len() + open.len() > ALTERNATIVES_MAX {
            *exact = false;
            return vec![".*\\..*".to_owned()];
        }
    }
    done
}

fn split_alternatives(text: &str) -> Vec<String> {
    let (mut out, mut item, mut depth, mut escaped) = (Vec::new(), String::new(), 0_i32, false);
    for c in text.chars() {
        if c == '|' && depth == 0 && !escaped {
            out.push(std::mem::take(&mut item));
        } else {
            if !escaped {
                depth += i32::from("([".contains(c)) - i32::from(")]".contains(c));
            }
            item.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    out.push(item);
    out
}

/// What stands before, in and behind the first group, unless it is repeated.
fn group(text: &str) -> Option<(&str, &str, &str)> {
    let (mut start, mut depth, mut escaped) = (None, 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {}
            '(' => {
                depth += 1;
                start.get_or_insert(at);
            }
            ')' => {
                depth -= 1;
                let (start, after) = (start?, &text[at + 1..]);
                if depth == 0 {
                    let repeated = after.starts_with(['*', '+', '?', '{']);
                    return (!repeated).then_some((&text[..start], &text[start + 1..at], after));
                }
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// One expression without alternatives: the pattern, and whether it means the same.
fn one(expression: &str) -> (String, bool) {
    let chars: Vec<char> = expression.chars().collect();
    let has_escaped_dot = expression.contains("\\.") || expression.contains("[.]");
    let (mut out, mut exact, mut at) = (String::new(), true, 0);
    let mut dots = 0;
    while at < chars.len() {
        let (atom, width) = match chars[at..] {
            ['\\', c, ..] if c.is_ascii_alphanumeric() => (None, 2),
            ['\\', c, ..] => (Some(c), 2),
            ['[', '.', ']', ..] => (Some('.'), 3),
            ['[', ..] => {
                let end = chars[at..].iter().position(|c| *c == ']').map_or(chars.len() - at, |end| end + 1);
                (None, end)
            }
            // Between database and table people mean a dot by it.
            ['.', next, ..] if !has_escaped_dot && dots == 0 && !"*+?{".contains(next) => (Some('.'), 1),
            ['.', ..] => (Some('?'), 1),
            ['(', ..] | [')', ..] | ['|', ..] | ['^', ..] | ['$', ..] => (None, 1),
            [c, ..] => (Some(c), 1),
            [] => break,
        };
        at += width;
        let any = atom == Some('?') && width == 1 && chars[at - 1] == '.';
        let repeat = chars.get(at).copied().filter(|c| "*+?{".contains(*c));
        if repeat.is_some() {
            at += match repeat {
                Some('{') => {
                    chars[at..].iter().position(|c| *c == '}').map_or(chars.len() - at, |end| end + 1)
                }
                _ => 1,
            };
        }
        match (atom, repeat) {
            (Some(_), Some('*')) if any => out.push('*'),
            (Some(_), Some('+')) if any => out.push_str("?*"),
            (Some(c), None) => {
                // A wildcard of ours that is meant as it stands.
                exact &= any || !"*?".contains(c);
                dots += usize::from(c == '.' && !any);
                out.push(c);
            }
            _ => {
                exact = false;
                out.push('*');
            }
        }
    }
    while out.contains("**") {
        out = out.replace("**", "*");
    }
    // `.*` alone stands for both names.
    if !out.contains('.') {
        let all = out == "*";
        return if all { ("*.*".to_owned(), exact) } else { (format!("{out}.*"), false) };
    }
    (out, exact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_becomes_patterns() {
        for (expression, wanted) in [
            (r"shop\.orders", Ok(vec!["shop.orders"])),
            (r"^shop\..*$", Ok(vec!["shop.*"])),
            ("shop.orders", Ok(vec!["shop.orders"])),
            (r"shop[.]orders_.", Ok(vec!["shop.orders_?"])),
            (r".*\.orders", Ok(vec!["*.orders"])),
            (".*", Ok(vec!["*.*"])),
            (r".*\..*", Ok(vec!["*.*"])),
            (r"shop\.(orders|users)", Ok(vec!["shop.orders", "shop.users"])),
            (r"(?:a|b)\.(c|d)", Ok(vec!["a.c", "a.d", "b.c", "b.d"])),
            (r"shop\.t_.+", Ok(vec!["shop.t_?*"])),
            (r"shop\.orders_\d+", Err("shop.orders_*")),
            (r"shop\.orders_[0-9]{4}", Err("shop.orders_*")),
            (r"shop\.(ab)+", Err("shop.*ab*")),
            (r"shop\.(orders|log_\d)", Err("*.*")),
        ] {
            let wanted =
                wanted.map(|list| list.into_iter().map(str::to_owned).collect()).map_err(str::to_owned);
            assert_eq!(to_patterns(expression), wanted, "{expression}");
        }
        let many = (0..9).map(|_| "(a|b)").collect::<String>();
        assert_eq!(to_patterns(&format!("shop\\.{many}")), Err("*.*".to_owned()));
    }

    #[test]
    fn a_comma_in_brackets_is_of_the_expression() {
        assert_eq!(split_list(r"a\.b, c\.d{1,2} ,,e\.(f|g)"), [r"a\.b", r"c\.d{1,2}", r"e\.(f|g)"]);
    }
}
