//! Hiding values: what a mask leaves of them.

use super::expr::set_text;
use crate::config::Mask;
use base::{Value, ValueRef};

/// The value as the mask shows it. `labels` are those of an ENUM or SET column.
pub fn masked(mask: Mask, value: ValueRef<'_>, labels: &[String]) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    match mask {
        Mask::Null => Value::Null,
        Mask::Redact => Value::Text("***".into()),
        Mask::Hash => {
            use sha2::Digest;
            let digest = sha2::Sha256::digest(text(value, labels).as_bytes());
            Value::Text(digest.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        Mask::Partial => Value::Text(partial(&text(value, labels))),
    }
}

/// The value as MySQL would print it; `labels` are those of an ENUM or SET column.
pub fn text(value: ValueRef<'_>, labels: &[String]) -> String {
    match value {
        ValueRef::Text(text) | ValueRef::Decimal(text) | ValueRef::Json(text) => text.to_owned(),
        ValueRef::Int(v) => v.to_string(),
        ValueRef::UInt(v) | ValueRef::Bit(v) => v.to_string(),
        ValueRef::Float(v) => base::value::format_float(v),
        ValueRef::Double(v) => base::value::format_double(v),
        ValueRef::Date(v) => v.to_string(),
        ValueRef::Time(v) => base::value::format_time(v, 6),
        ValueRef::DateTime(v) => base::value::format_datetime(v, 6),
        ValueRef::Timestamp(v) => base::value::format_timestamp(v, 6),
        ValueRef::Year(v) => v.to_string(),
        ValueRef::Enum(ordinal) => {
            let label = usize::from(ordinal).checked_sub(1).and_then(|at| labels.get(at));
            label.cloned().unwrap_or_default()
        }
        ValueRef::Set(bits) => set_text(labels, bits).into_owned(),
        other => format!("{:?}", other.to_value()),
    }
}

/// Keeps the first three and last four characters of long text, less of short text.
fn partial(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (head, tail) = match chars.len() {
        0..=2 => (0, 0),
        3..=7 => (1, 1),
        _ => (3, 4),
    };
    let shown = |index: usize| index < head || index >= chars.len() - tail;
    chars.iter().enumerate().map(|(index, c)| if shown(index) { *c } else { '*' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_gives_little_away() {
        assert_eq!(partial("ab"), "**");
        assert_eq!(partial("abcde"), "a***e");
    }

    #[test]
    fn labels_are_masked_as_their_text() {
        let labels = ["draft".to_owned(), "published".to_owned()];
        let shown = |value| masked(Mask::Partial, value, &labels);
        assert_eq!(shown(ValueRef::Enum(2)), Value::Text("pub**shed".into()));
        assert_eq!(shown(ValueRef::Set(3)), Value::Text("dra********shed".into()));
        assert_eq!(
            masked(Mask::Hash, ValueRef::Enum(1), &labels),
            masked(Mask::Hash, ValueRef::Text("draft"), &[])
        );
    }
}
