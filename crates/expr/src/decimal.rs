//! Exact decimals with MySQL's rules for scales. A number is `digits / 10^scale`.

use num_bigint::{BigInt, Sign};
use std::cmp::Ordering;
use std::fmt;

/// MySQL keeps no more digits after the point.
pub const SCALE_MAX: u32 = 30;
/// MySQL's widest DECIMAL.
pub const PRECISION_MAX: u32 = 65;
/// Digits the server calculates with before a number is out of range.
pub const DIGITS_MAX: u32 = 81;
/// What a division adds to the scale of its left side (`div_precision_increment`).
pub const DIVISION_SCALE: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    digits: BigInt,
    scale: u32,
}

fn ten_to(power: u32) -> BigInt {
    match power {
        0..=18 => BigInt::from(10u64.pow(power)),
        _ => BigInt::from(10u8).pow(power),
    }
}

/// Divides and rounds half away from zero.
fn divide_rounded(value: &BigInt, by: &BigInt) -> BigInt {
    let (quotient, rest) = (value / by, value % by);
    let doubled = BigInt::from(rest.magnitude().clone()) * 2u8;
    if doubled.magnitude() < by.magnitude() {
        quotient
    } else if (value.sign() == Sign::Minus) == (by.sign() == Sign::Minus) {
        quotient + 1
    } else {
        quotient - 1
    }
}

impl Decimal {
    pub fn from_int(value: i128) -> Self {
        Self { digits: BigInt::from(value), scale: 0 }
    }

    /// Reads the longest prefix that is a number (with an exponent); zero when there is none. Digits beyond
    /// [`SCALE_MAX`] are rounded off, digits beyond [`PRECISION_MAX`] make the widest number.
    pub fn parse_prefix(text: &str) -> Self {
        let number = super::coerce::number_prefix(text);
        let (mantissa, exponent) = match number.find(['e', 'E']) {
            Some(at) => (&number[..at], number[at + 1..].parse::<i64>().unwrap_or(0)),
            None => (number, 0),
        };
        let negative = mantissa.starts_with('-');
        let mantissa = mantissa.trim_start_matches(['+', '-']);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: String = whole.chars().chain(fraction.chars()).collect();
        let digits = if digits.is_empty() { "0" } else { &digits };
        let mut value = BigInt::parse_bytes(digits.as_bytes(), 10).unwrap_or_default();
        if negative {
            value = -value;
        }
        let scale = fraction.len() as i64 - exponent;
        if scale < -i64::from(PRECISION_MAX) && value.sign() != Sign::NoSign {
            return Self::widest(negative, PRECISION_MAX, 0);
        }
        if scale > 400 {
            return Self::from_int(0);
        }
        if scale <= 0 {
            let value = value * ten_to((-scale).clamp(0, i64::from(PRECISION_MAX)) as u32);
            return Self { digits: value, scale: 0 }.clamped(PRECISION_MAX, 0);
        }
        Self { digits: value, scale: scale as u32 }.rounded_down_to_limit()
    }

    fn rounded_down_to_limit(self) -> Self {
        if self.scale > SCALE_MAX { self.rescaled(SCALE_MAX) } else { self }
    }

    /// Text that is a plain decimal number and nothing else, as MySQL stores it.
    pub fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        if whole.len() + fraction.len() == 0
            || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let scale = fraction.len() as u32;
        // Most amounts fit a machine word.
        if whole.len() + fraction.len() <= 18 {
            let fold = |sum: i64, b: u8| sum * 10 + i64::from(b - b'0');
            let value = whole.bytes().chain(fraction.bytes()).fold(0, fold);
            return Some(Self { digits: (if text.starts_with('-') { -value } else { value }).into(), scale });
        }
        let value = BigInt::parse_bytes(format!("{whole}{fraction}").as_bytes(), 10)?;
        Some(Self { digits: if text.starts_with('-') { -value } else { value }, scale })
    }

    pub fn scale(&self) -> u32 {
        self.scale
    }

    pub fn is_zero(&self) -> bool {
        self.digits.sign() == Sign::NoSign
    }

    pub fn is_negative(&self) -> bool {
        self.digits.sign() == Sign::Minus
    }

    /// All digits, without a sign or leading zeros; at least the scale.
    pub fn precision(&self) -> u32 {
        (self.digits.magnitude().to_string().len() as u32).max(self.scale)
    }

    pub fn negated(&self) -> Self {
        Self { digits: -&self.digits, scale: self.scale }
    }

    fn aligned(&self, other: &Self) -> (BigInt, BigInt, u32) {
        let scale = self.scale.max(other.scale);
        (&self.digits * ten_to(scale - self.scale), &other.digits * ten_to(scale - other.scale), scale)
    }

    pub fn plus(&self, other: &Self) -> Self {
        let (left, right, scale) = self.aligned(other);
        Self { digits: left + right, scale }
    }

    pub fn minus(&self, other: &Self) -> Self {
        let (left, right, scale) = self.aligned(other);
        Self { digits: left - right, scale }
    }

    pub fn times(&self, other: &Self) -> Self {
        Self { digits: &self.digits * &other.digits, scale: self.scale + other.scale }.rounded_down_to_limit()
    }

    /// `None` for a division by zero.
    pub fn divided_by(&self, other: &Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let scale = (self.scale + DIVISION_SCALE).min(SCALE_MAX);
        let digits = divide_rounded(
            &(&self.digits * ten_to(scale + other.scale)),
            &(&other.digits * ten_to(self.scale)),
        );
        Some(Self { digits, scale })
    }

    /// The whole part of the quotient.
    pub fn whole_quotient(&self, other: &Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let (left, right, _) = self.aligned(other);
        Some(Self { digits: left / right, scale: 0 })
    }

    /// The rest of a division, with the sign of the left side.
    pub fn rest(&self, other: &Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let (left, right, scale) = self.aligned(other);
        Some(Self { digits: left % right, scale })
    }

    /// With exactly `scale` digits after the point, rounded half away from zero.
    pub fn rescaled(&self, scale: u32) -> Self {
        if scale >= self.scale {
            return Self { digits: &self.digits * ten_to(scale - self.scale), scale };
        }
        Self { digits: divide_rounded(&self.digits, &ten_to(self.scale - scale)), scale }
    }

    /// Rounded at the digit `place` after the point (before it, when negative); the scale does not grow.
    pub fn rounded_at(&self, place: i64, truncate: bool) -> Self {
        if place >= i64::from(self.scale) {
            return self.clone();
        }
        let dropped = i64::from(self.scale) - place;
        if dropped > 200 {
            return Self::from_int(0);
        }
        let unit = ten_to(dropped as u32);
        let kept = if truncate { &self.digits / &unit } else { divide_rounded(&self.digits, &unit) };
        match u32::try_from(place) {
            Ok(scale) => Self { digits: kept, scale },
            Err(_) => Self { digits: kept * ten_to(place.unsigned_abs() as u32), scale: 0 },
        }
    }

    /// The next whole number up or down.
    pub fn whole(&self, up: bool) -> Self {
        let unit = ten_to(self.scale);
        let (quotient, rest) = (&self.digits / &unit, &self.digits % &unit);
        let digits = match (up, rest.sign()) {
            (true, Sign::Plus) => quotient + 1,
            (false, Sign::Minus) => quotient - 1,
            _ => quotient,
        };
        Self { digits, scale: 0 }
    }

    fn widest(negative: bool, precision: u32, scale: u32) -> Self {
        let digits: BigInt = ten_to(precision) - 1;
        Self { digits: if negative { -digits } else { digits }, scale }
    }

    /// Rounded to `scale`; the widest number of the type where it does not fit.
    pub fn clamped(&self, precision: u32, scale: u32) -> Self {
        let rounded = if self.scale == scale { self.clone() } else { self.rescaled(scale) };
        if rounded.fits(precision) { rounded } else { Self::widest(rounded.is_negative(), precision, scale) }
    }

    /// Whether no more than `precision` digits are needed.
    pub fn fits(&self, precision: u32) -> bool {
        // Ten digits take more than 33 bits: most numbers are decided without a power.
        self.digits.bits() <= u64::from(precision) * 3
            || self.digits.magnitude() < ten_to(precision).magnitude()
    }

    /// The nearest integer; `None` beyond an i128.
    pub fn to_i128(&self) -> Option<i128> {
        let whole = if self.scale == 0 { self.digits.clone() } else { self.rescaled(0).digits };
        i128::try_from(whole).ok()
    }

    /// Rounded to the nearest double.
    pub fn to_f64(&self) -> f64 {
        match i64::try_from(&self.digits) {
            // Both exact, so that one division rounds once.
            Ok(small) if small.unsigned_abs() < 1 << 53 && self.scale <= 22 => {
                small as f64 / 10f64.powi(self.scale as i32)
            }
            _ => self.to_string().parse().unwrap_or(0.0),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale {
            return self.digits.cmp(&other.digits);
        }
        let (left, right, _) = self.aligned(other);
        left.cmp(&right)
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.digits.magnitude().to_string();
        let sign = if self.is_negative() { "-" } else { "" };
        let scale = self.scale as usize;
        if scale == 0 {
            return write!(f, "{sign}{text}");
        }
        let padded = format!("{text:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn scales_follow_mysql() {
        assert_eq!(decimal("12.50").times(&decimal("3")).to_string(), "37.50");
        assert_eq!(decimal("0.10").times(&decimal("0.20")).to_string(), "0.0200");
        assert_eq!(decimal("1").divided_by(&decimal("3")).unwrap().to_string(), "0.3333");
        assert_eq!(decimal("-12.5000").divided_by(&decimal("3")).unwrap().to_string(), "-4.16666667");
        assert_eq!(decimal("1").divided_by(&decimal("0.00")), None);
        assert_eq!(decimal("-7.5").rest(&decimal("2")).unwrap().to_string(), "-1.5");
        assert_eq!(decimal("-0.05").to_string(), "-0.05");
    }

    #[test]
    fn wide_numbers_stay_exact() {
        let wide = "99999999999999999999999999999999999.999999999999999999999999999999";
        assert_eq!(decimal(wide).to_string(), wide);
        assert_eq!(decimal(wide).minus(&decimal(wide)).to_string(), format!("0.{}", "0".repeat(30)));
        assert!(!decimal(wide).fits(64) && decimal(wide).fits(65));
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        assert_eq!(decimal("2.5").rescaled(0).to_string(), "3");
        assert_eq!(decimal("-1.255").rounded_at(2, false).to_string(), "-1.26");
        assert_eq!(decimal("-1.259").rounded_at(2, true).to_string(), "-1.25");
        assert_eq!(decimal("155").rounded_at(-1, false).to_string(), "160");
        assert_eq!(decimal("-0.5").whole(true).to_string(), "0");
        assert_eq!(decimal("-0.5").whole(false).to_string(), "-1");
    }

    #[test]
    fn a_prefix_is_read_with_its_exponent() {
        assert_eq!(Decimal::parse_prefix(" 12.5abc").to_string(), "12.5");
        assert_eq!(Decimal::parse_prefix("1.5e2").to_string(), "150");
        assert_eq!(Decimal::parse_prefix("-25e-3x").to_string(), "-0.025");
        assert_eq!(Decimal::parse_prefix("abc").to_string(), "0");
        assert!(Decimal::parse_prefix("1e999").fits(65));
    }
}
