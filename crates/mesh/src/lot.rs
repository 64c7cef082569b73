//! Random numbers: fast ones that choose, and real ones that prove.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

static SEEDS: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);

thread_local! {
    static STATE: Cell<u64> = Cell::new(SEEDS.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) | 1);
}

/// A number below `bound`, of a small generator (xorshift64) of this thread. To choose by, never to prove with.
pub fn below(bound: usize) -> usize {
    let drawn = STATE.with(|state| {
        let mut x = state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x
    });
    usize::try_from(drawn % bound as u64).unwrap_or(0)
}

/// A salt: 20 bytes of the system's randomness, none of them zero, over 127 or `$`, which servers leave out too.
///
/// # Panics
/// When the system has no randomness.
pub fn salt() -> Vec<u8> {
    let mut bytes = [0; 20];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the system gives random bytes");
    bytes
        .iter()
        .map(|byte| byte & 0x7f)
        .map(|byte| if byte == 0 || byte == b'$' { byte + 1 } else { byte })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_differ_and_hold_no_byte_that_ends_a_text() {
        let (one, other) = (salt(), salt());
        assert_ne!(one, other);
        for byte in one.iter().chain(&other) {
            assert!(*byte != 0 && *byte < 128 && *byte != b'$');
        }
        assert_eq!(one.len(), 20);
    }

    #[test]
    fn lots_fall_everywhere_below_their_bound() {
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[below(5)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
    }
}
