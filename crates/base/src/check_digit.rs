//! Numbers that prove themselves: codes of organisations, people and cards, and the form of telephone numbers, as China writes them.
//!
//! A code that passes is written right; whether it was ever given to anyone, nobody knows here. `Err` says what is wrong in
//! words that do not repeat the number: these are personal data.

use crate::Date;
use crate::value::{date_of_days, days_of_date};

/// What GB 32100-2015 writes codes with: digits and letters without I, O, S, V and Z. A character's place is its value.
const CREDIT_CHARACTERS: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";
/// Powers of 3 modulo 31 (GB 32100-2015, table 3).
const CREDIT_WEIGHTS: [usize; 17] = [1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28];
/// Powers of 2 modulo 11, from the left (GB 11643-1999, 4.2.2).
const CITIZEN_WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
/// The check character of each remainder (GB 11643-1999, table 1).
const CITIZEN_CHECKS: &[u8; 11] = b"10X98765432";

/// 统一社会信用代码, GB 32100-2015: 18 characters, the last of which is computed of the others.
pub fn credit_code(text: &str) -> Result<(), &'static str> {
    let values: Vec<usize> =
        text.bytes().filter_map(|byte| CREDIT_CHARACTERS.iter().position(|it| *it == byte)).collect();
    if text.len() != 18 {
        return Err("it has not 18 characters");
    }
    if values.len() != 18 {
        return Err("it has characters other than digits and capital letters without I, O, S, V and Z");
    }
    if values[2..8].iter().any(|value| *value > 9) {
        return Err("its characters 3 to 8 are no digits of a region");
    }
    let sum: usize = values.iter().zip(CREDIT_WEIGHTS).map(|(value, weight)| value * weight).sum();
    if (31 - sum % 31) % 31 == values[17] { Ok(()) } else { Err("its check character is wrong") }
}

/// 公民身份号码, GB 11643-1999: region, birthday, number, and a check character. The 15 digits from before are no number any more.
pub fn citizen_id(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    if bytes.len() != 18 {
        return Err("it has not 18 characters");
    }
    if !bytes[..17].iter().all(u8::is_ascii_digit) || !matches!(bytes[17], b'0'..=b'9' | b'X') {
        return Err("it is not 17 digits and a digit or X");
    }
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().fold(0_u32, |sum, byte| sum * 10 + u32::from(byte - b'0'))
    };
    // First digits of regions: 1 to 8, with 7 for Taiwan and 8 for Hong Kong and Macao, 9 for foreign residents since 2021.
    if bytes[0] == b'0' {
        return Err("its first six digits are no region");
    }
    let date = Date { year: number(6..10) as u16, month: number(10..12) as u8, day: number(12..14) as u8 };
    let real = date.year >= 1800
        && (1..=12).contains(&date.month)
        && date.day >= 1
        && date_of_days(days_of_date(date)) == date;
    if !real {
        return Err("its birthday is no date");
    }
    let sum: u32 =
        bytes[..17].iter().zip(CITIZEN_WEIGHTS).map(|(byte, weight)| u32::from(byte - b'0') * weight).sum();
    if CITIZEN_CHECKS[(sum % 11) as usize] == bytes[17] {
        Ok(())
    } else {
        Err("its check character is wrong")
    }
}

/// A bank card's number: 12 to 19 digits (ISO/IEC 7812-1), the last of which is Luhn's. Blanks between groups are nothing.
pub fn bank_card(text: &str) -> Result<(), &'static str> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err("it has characters other than digits");
    }
    if !(12..=19).contains(&digits.len()) {
        return Err("it has not 12 to 19 digits");
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let digit = u32::from(byte - b'0') * if at % 2 == 1 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    if sum.is_multiple_of(10) { Ok(()) } else { Err("its check digit is wrong") }
}

/// A telephone number of mainland China: a mobile one (`13800000000`), or one with its area code (`010-88888888`), with `+86` before it or
/// without.
pub fn phone(text: &str) -> Result<(), &'static str> {
    let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
    let abroad = plain.strip_prefix("+86").or_else(|| plain.strip_prefix("0086"));
    let rest = abroad.unwrap_or(&plain);
    if rest.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it has characters other than digits");
    }
    let mobile = rest.len() == 11 && rest.starts_with('1') && matches!(rest.as_bytes()[1], b'3'..=b'9');
    // Area codes are 010, 02x, or 03xx to 09xx; numbers behind them have seven or eight digits and begin with 2 to 8.
    let area = match (abroad.is_some(), rest.strip_prefix('0')) {
        (_, Some(area)) => Some(area),
        (true, None) => Some(rest),
        (false, None) => None,
    };
    let fixed = area.is_some_and(|area| {
        let length = if area.starts_with("10") || area.starts_with('2') { 2 } else { 3 };
        let local = area.get(length..).unwrap_or_default();
        (7..=8).contains(&local.len()) && matches!(local.as_bytes()[0], b'2'..=b'8') && !area.starts_with('0')
    });
    if mobile || fixed { Ok(()) } else { Err("it is neither a mobile number nor one with an area code") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of one wrong character must fail.
    fn every_typo(right: &str, characters: &str, check: fn(&str) -> Result<(), &'static str>) {
        assert_eq!(check(right), Ok(()));
        for at in 0..right.len() {
            for other in characters.chars().filter(|other| !right[at..].starts_with(*other)) {
                let wrong = format!("{}{other}{}", &right[..at], &right[at + 1..]);
                assert!(check(&wrong).is_err(), "{wrong}");
            }
        }
    }

    #[test]
    fn a_credit_code_is_checked_by_gb_32100() {
        // A number that belongs to nobody, with the check character that another program computed.
        every_typo("91350100M000100Y43", "0123456789ABCDEFGHJKLMNPQRTUWXY", credit_code);
        for wrong in
            ["", "91350100M000100Y4", "91350100m000100Y43", "9135O100M000100Y43", "91350100M000100Y4张"]
        {
            assert!(credit_code(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_citizens_number_is_checked_by_gb_11643() {
        // The standard's own examples.
        every_typo("11010519491231002X", "0123456789X", citizen_id);
        assert_eq!(citizen_id("440524188001010014"), Ok(()));
        assert_eq!(citizen_id("11010519490231002X"), Err("its birthday is no date"));
        assert_eq!(citizen_id("11010519491231002x"), Err("it is not 17 digits and a digit or X"));
        assert_eq!(citizen_id("110105491231002"), Err("it has not 18 characters"));
    }

    #[test]
    fn a_cards_number_is_checked_by_luhn() {
        every_typo("6222020000000000000", "0123456789", bank_card);
        assert_eq!(bank_card("4111 1111 1111 1111"), Ok(()));
        assert!(bank_card("6222-0200").is_err() && bank_card("0").is_err());
    }

    #[test]
    fn phones_have_one_of_two_forms() {
        for right in [
            "13800000000",
            "+86 199 0000 0000",
            "010-88888888",
            "(0755) 2888 8888",
            "+86 21 6888 8888",
            "0086-13800000000",
        ] {
            assert_eq!(phone(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "12800000000",
            "1380000000",
            "88888888",
            "010-18888888",
            "0010-88888888",
            "1380000000a",
            "+1 202 555 0100",
        ] {
            assert!(phone(wrong).is_err(), "{wrong}");
        }
    }
}
