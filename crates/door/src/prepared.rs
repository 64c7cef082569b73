//! Prepared statements: the values that a client binds, as literals in the statement's text.

use crate::error::SqlError;
use crate::text::{Text, literal};
use mysql::protocol::{FieldReader, Truncated};
use mysql::sql::TokenKind;

/// Of one client.
pub const STATEMENTS_MAX: usize = 1000;
/// Bytes of statements that one client keeps, the values that it sent ahead among them.
pub const STATEMENTS_BYTES_MAX: usize = 8 << 20;

/// A statement with places for values.
#[derive(Debug)]
pub struct Prepared {
    pub sql: String,
    /// Where the places are.
    places: Vec<(usize, usize)>,
    /// Of the last execution: types are sent once.
    types: Vec<(u8, bool)>,
    /// Values that came ahead of the execution, by their place.
    pub long: Vec<Option<Vec<u8>>>,
}

impl Prepared {
    pub fn new(sql: String) -> Option<Self> {
        let text = Text::read(&sql)?;
        let is_place = |it: &&mysql::sql::Token| it.kind == TokenKind::Parameter;
        let places: Vec<_> = text.tokens.iter().filter(is_place).map(|it| (it.start, it.end)).collect();
        let long = vec![None; places.len()];
        Some(Self { sql, places, types: Vec::new(), long })
    }

    pub fn parameters(&self) -> usize {
        self.places.len()
    }

    pub fn bytes(&self) -> usize {
        self.sql.len() + self.long.iter().flatten().map(Vec::len).sum::<usize>()
    }

    /// The text with something in each place that gives the same columns.
    pub fn sample(&self) -> String {
        let value = |limit: bool| if limit { "1" } else { "NULL" }.to_owned();
        self.filled(self.limits().into_iter().map(value).collect())
    }

    /// Of each place, whether a LIMIT or OFFSET has it, where only a whole number may stand.
    fn limits(&self) -> Vec<bool> {
        let mut all = Vec::with_capacity(self.places.len());
        let mut end = 0;
        for (start, stop) in &self.places {
            let before = self.sql[end..*start].trim_end();
            let word = before.rsplit(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
            let is_second = before.trim() == "," && all.last() == Some(&true);
            all.push(is_second || ["limit", "offset"].iter().any(|it| word.eq_ignore_ascii_case(it)));
            end = *stop;
        }
        all
    }

    fn filled(&self, values: Vec<String>) -> String {
        let mut out = String::with_capacity(self.sql.len() + 16 * values.len());
        let mut at = 0;
        for ((start, end), value) in self.places.iter().zip(values) {
            out.push_str(&self.sql[at..*start]);
            out.push_str(&value);
            at = *end;
        }
        out.push_str(&self.sql[at..]);
        out
    }

    /// The text with the values of an execution's payload, behind its statement, flags and count.
    ///
    /// # Errors
    /// 1210 where the payload does not hold what it should.
    pub fn bound(&mut self, payload: &[u8]) -> Result<String, SqlError> {
        let wrong = |_: Truncated| SqlError::new(1210, "Incorrect arguments to EXECUTE");
        let count = self.places.len();
        let long = std::mem::replace(&mut self.long, vec![None; count]);
        if count == 0 {
            return Ok(self.sql.clone());
        }
        let mut fields = FieldReader::new(payload);
        let nulls = fields.take(count.div_ceil(8)).map_err(wrong)?.to_vec();
        if fields.u8().map_err(wrong)? == 1 {
            let mut types = Vec::with_capacity(count);
            for _ in 0..count {
                types.push((fields.u8().map_err(wrong)?, fields.u8().map_err(wrong)? & 0x80 != 0));
            }
            self.types = types;
        }
        if self.types.len() != count {
            return Err(wrong(Truncated));
        }
        let mut values = Vec::with_capacity(count);
        for (at, (kind, unsigned)) in self.types.iter().enumerate() {
            if let Some(bytes) = long.get(at).and_then(Option::as_ref) {
                values.push(text_or_bytes(bytes));
            } else if nulls[at / 8] >> (at % 8) & 1 == 1 {
                values.push("NULL".to_owned());
            } else {
                values.push(value(&mut fields, *kind, *unsigned).map_err(wrong)?);
            }
        }
        for (value, _) in values.iter_mut().zip(self.limits()).filter(|(_, limit)| *limit) {
            // Drivers send a number as a text or a DOUBLE.
            let digits = value.trim_matches('\'').trim_end_matches("e0");
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                *value = digits.to_owned();
            }
        }
        Ok(self.filled(values))
    }
}

fn value(fields: &mut FieldReader<'_>, kind: u8, unsigned: bool) -> Result<String, Truncated> {
    Ok(match kind {
        1 => integer(fields.take(1)?, unsigned),
        2 | 13 => integer(fields.take(2)?, unsigned),
        3 | 9 => integer(fields.take(4)?, unsigned),
        8 => integer(fields.take(8)?, unsigned),
        4 => {
            let bytes = fields.take(4)?.first_chunk().copied().ok_or(Truncated)?;
            float(f64::from(f32::from_le_bytes(bytes)), f32::from_le_bytes(bytes).to_string())
        }
        5 => {
            let bytes = fields.take(8)?.first_chunk().copied().ok_or(Truncated)?;
            float(f64::from_le_bytes(bytes), format!("{:e}", f64::from_le_bytes(bytes)))
        }
        6 => "NULL".into(),
        7 | 10 | 12 => moment(fields)?,
        11 => time(fields)?,
        0 | 246 => {
            let bytes = fields.bytes()?;
            let number = std::str::from_utf8(bytes).ok().filter(|text| is_decimal(text));
            number.map_or_else(|| text_or_bytes(bytes), signed)
        }
        _ => text_or_bytes(fields.bytes()?),
    })
}

/// In parentheses where it has a sign, so that no two signs make a comment.
fn signed(number: &str) -> String {
    if number.starts_with(['-', '+']) { format!("({number})") } else { number.to_owned() }
}

fn integer(bytes: &[u8], unsigned: bool) -> String {
    let negative = !unsigned && bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    if unsigned {
        u64::from_le_bytes(whole).to_string()
    } else {
        signed(&i64::from_le_bytes(whole).to_string())
    }
}

/// A number with an exponent, which is a DOUBLE; what is no number is NULL, as MySQL has none.
fn float(value: f64, written: String) -> String {
    if !value.is_finite() {
        return "NULL".into();
    }
    signed(&if written.contains('e') { written } else { format!("{written}e0") })
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    !whole.is_empty() && !fraction.is_empty() && all(whole) && all(fraction)
}

fn text_or_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => literal(text),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("x'{hex}'")
        }
    }
}

fn moment(fields: &mut FieldReader<'_>) -> Result<String, Truncated> {
    let length = usize::from(fields.u8()?);
    let mut inner = FieldReader::new(fields.take(length)?);
    if length == 0 {
        return Ok("'0000-00-00'".into());
    }
    let (year, month, day) = (inner.u16()?, inner.u8()?, inner.u8()?);
    let date = format!("{year:04}-{month:02}-{day:02}");
    if length < 7 {
        return Ok(format!("'{date}'"));
    }
    let (hour, minute, second) = (inner.u8()?, inner.u8()?, inner.u8()?);
    let micros = if length >= 11 { inner.u32()? } else { 0 };
    let fraction = if micros > 0 { format!(".{micros:06}") } else { String::new() };
    Ok(format!("'{date} {hour:02}:{minute:02}:{second:02}{fraction}'"))
}

fn time(fields: &mut FieldReader<'_>) -> Result<String, Truncated> {
    let length = usize::from(fields.u8()?);
    let mut inner = FieldReader::new(fields.take(length)?);
    if length == 0 {
        return Ok("'00:00:00'".into());
    }
    let (negative, days) = (inner.u8()? != 0, inner.u32()?);
    let (hour, minute, second) = (inner.u8()?, inner.u8()?, inner.u8()?);
    let micros = if length >= 12 { inner.u32()? } else { 0 };
    let hours = u64::from(days) * 24 + u64::from(hour);
    let fraction = if micros > 0 { format!(".{micros:06}") } else { String::new() };
    let sign = if negative { "-" } else { "" };
    Ok(format!("'{sign}{hours:02}:{minute:02}:{second:02}{fraction}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_literals_in_their_places() {
        let mut prepared = Prepared::new("SELECT '?' , ?, ? -- ?\n, ? LIMIT ?".into()).unwrap();
        assert_eq!(prepared.parameters(), 4);
        assert_eq!(prepared.sample(), "SELECT '?' , NULL, NULL -- ?\n, NULL LIMIT 1");
        let mut payload = vec![0b0100, 1, 8, 0, 253, 0, 6, 0, 3, 0x80];
        payload.extend_from_slice(&(-5_i64).to_le_bytes());
        payload.extend_from_slice(b"\x04it's");
        payload.extend_from_slice(&7_u32.to_le_bytes());
        assert_eq!(prepared.bound(&payload).unwrap(), "SELECT '?' , (-5), 'it''s' -- ?\n, NULL LIMIT 7");
        // The second time the types are not sent again.
        let mut payload = vec![0b0110, 0];
        payload.extend_from_slice(&1_i64.to_le_bytes());
        payload.extend_from_slice(&9_u32.to_le_bytes());
        assert_eq!(prepared.bound(&payload).unwrap(), "SELECT '?' , 1, NULL -- ?\n, NULL LIMIT 9");
    }

    #[test]
    fn limits_are_whole_numbers_however_they_come() {
        let mut prepared = Prepared::new("SELECT a FROM t WHERE b = ? LIMIT ?, ?".into()).unwrap();
        assert_eq!(prepared.sample(), "SELECT a FROM t WHERE b = NULL LIMIT 1, 1");
        let mut payload = vec![0, 1, 253, 0, 253, 0, 5, 0, 1, b'7', 2, b'1', b'0'];
        payload.extend_from_slice(&3_f64.to_le_bytes());
        assert_eq!(prepared.bound(&payload).unwrap(), "SELECT a FROM t WHERE b = '7' LIMIT 10, 3");
    }

    #[test]
    fn broken_payloads_are_errors() {
        for payload in [
            &b""[..],
            b"\x00",
            b"\x00\x00",
            b"\x00\x01\x08",
            b"\x00\x01\x08\x00\x01\x02",
            b"\x00\x01\xfd\x00\xfe\xff\xff",
        ] {
            let mut prepared = Prepared::new("SELECT ?".into()).unwrap();
            assert_eq!(prepared.bound(payload).unwrap_err().number, 1210, "{payload:?}");
        }
    }

    #[test]
    fn a_text_cannot_break_out() {
        for text in ["' OR 1=1 -- ", "\\' OR 1=1 -- ", "\\"] {
            assert_eq!(crate::text::unescaped(&text_or_bytes(text.as_bytes())), text);
        }
        assert_eq!(text_or_bytes(b"\xff\x00"), "x'FF00'");
        assert!(!is_decimal("1 OR 1=1") && is_decimal("-1.50") && !is_decimal("1."));
    }
}
