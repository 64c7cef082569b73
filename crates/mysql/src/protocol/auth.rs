//! What proves a password: the two exchanges of MySQL, from either side.

use super::{FieldReader, Truncated};
use mysql_common::crypto;
use mysql_common::scramble;

pub const NATIVE: &[u8] = b"mysql_native_password";
pub const CACHING_SHA2: &[u8] = b"caching_sha2_password";
/// The password itself: over TLS only.
pub const CLEAR: &[u8] = b"mysql_clear_password";

/// The answer of `mysql_native_password` to `salt` (20 bytes); empty for an empty password.
pub fn native(salt: &[u8], password: &[u8]) -> Vec<u8> {
    scramble::scramble_native(salt, password).map(Vec::from).unwrap_or_default()
}

/// The answer of `caching_sha2_password` to `salt` (20 bytes); empty for an empty password.
pub fn fast_sha2(salt: &[u8], password: &[u8]) -> Vec<u8> {
    scramble::scramble_sha256(salt, password).map(Vec::from).unwrap_or_default()
}

/// Equal, in a time that does not tell where they differ.
pub fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

/// The password as `caching_sha2_password` sends it on a plain connection: with its zero byte, xored with `salt`, encrypted
/// for the server's key (PEM).
///
/// # Errors
/// When `key` holds no PEM public key.
pub fn encrypt_for(key: &[u8], salt: &[u8], password: &[u8]) -> Result<Vec<u8>, Truncated> {
    let begin = key.windows(11).position(|window| window == b"-----BEGIN ").ok_or(Truncated)?;
    let mut reader = FieldReader::new(&key[begin..]);
    let end = reader.rest().windows(9).rposition(|window| window == b"-----END ").ok_or(Truncated)?;
    if end == 0 || salt.is_empty() {
        return Err(Truncated);
    }
    let pem = reader.take(reader.rest().len())?;
    let mut text = password.to_vec();
    text.push(0);
    for (byte, salt) in text.iter_mut().zip(salt.iter().cycle()) {
        *byte ^= salt;
    }
    // The parser of the key panics on what is no key; its sender is the server that we are about to trust with the
    // password, and a session that ends is all that comes of it.
    std::panic::catch_unwind(|| crypto::encrypt(&text, pem)).map_err(|_| Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_password_has_an_empty_answer() {
        assert!(native(&[7; 20], b"").is_empty() && fast_sha2(&[7; 20], b"").is_empty());
        assert_eq!(native(&[7; 20], b"p").len(), 20);
        assert_eq!(fast_sha2(&[7; 20], b"p").len(), 32);
    }

    #[test]
    fn a_key_that_is_none_is_an_error() {
        for key in [&b""[..], b"-----BEGIN PUBLIC KEY-----", b"-----BEGIN X-----\nAAAA\n-----END X-----"] {
            assert!(encrypt_for(key, &[1; 20], b"secret").is_err());
        }
    }

    #[test]
    fn equality_is_of_length_and_bytes() {
        assert!(equal(b"ab", b"ab"));
        assert!(!equal(b"ab", b"ac") && !equal(b"ab", b"a"));
    }
}
