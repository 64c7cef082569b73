//! The one way from a caller's text into SQL.

use super::error::IndicatorError;

/// Characters of a member's name: a dimension's column is VARCHAR(255).
pub const CHARS_MAX: usize = 255;

/// A text as a literal of the project's dialect, whatever it holds. Quotes and backslashes are doubled: sessions of the engine have
/// MySQL's escapes. A text that no member can have is refused.
pub fn literal(text: &str) -> Result<String, IndicatorError> {
    if text.contains('\0') || text.chars().count() > CHARS_MAX {
        return Err(IndicatorError::invalid(
            "a value has a zero byte, or more than 255 characters",
            "no member of a dimension has such a name",
        ));
    }
    Ok(format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
}

/// A text as a part of a LIKE pattern, without the quotes around it.
pub fn like_part(text: &str) -> Result<String, IndicatorError> {
    // `|` is the escape, which [`like`] names.
    let escaped = text.replace('|', "||").replace('%', "|%").replace('_', "|_");
    let quoted = literal(&escaped)?;
    Ok(quoted[1..quoted.len() - 1].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_ends_where_the_text_does() {
        assert_eq!(literal("O'Brien").unwrap(), "'O''Brien'");
        assert_eq!(literal("\\").unwrap(), r"'\\'");
        assert_eq!(literal(r"\' or 1=1 -- ").unwrap(), r"'\\'' or 1=1 -- '");
        assert_eq!(literal("").unwrap(), "''");
        assert_eq!(literal("北京").unwrap(), "'北京'");
        assert!(literal("a\0b").is_err());
        assert!(literal(&"x".repeat(256)).is_err());
        assert!(literal(&"京".repeat(255)).is_ok());
    }

    #[test]
    fn wildcards_of_a_value_are_letters() {
        assert_eq!(like_part("50%_|").unwrap(), "50|%|_||");
        assert_eq!(like_part("'%").unwrap(), "''|%");
    }
}
