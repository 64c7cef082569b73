//! Buffers that sessions lease while bytes are in their hands, and give back when they are idle.
//!
//! Each thread keeps a few that are free; how many bytes are out in the whole process is counted, for the limit and for the
//! metric. Nothing here waits or fails: who may have a buffer is decided when a session is let in.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// One buffer: what HAProxy takes too, and more than any packet that has to be seen whole.
pub const BUFFER_BYTES: usize = 16 * 1024;

/// Free buffers that a thread keeps; more go back to the allocator.
const FREE_MAX: usize = 64;

/// Bytes of all buffers that are leased now.
static LEASED: AtomicUsize = AtomicUsize::new(0);

/// Bytes that captures and mirrors hold.
static SPOOLED: AtomicUsize = AtomicUsize::new(0);

/// Whether buffers go back to the allocator at once.
static SPARING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer, until it is dropped.
#[derive(Debug)]
pub struct Lease(Option<Box<[u8]>>);

impl Lease {
    pub fn take() -> Self {
        LEASED.fetch_add(BUFFER_BYTES, Ordering::Relaxed);
        let free = FREE.with_borrow_mut(Vec::pop);
        Self(Some(free.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())))
    }

    /// A larger one, for what has to be seen whole; it goes back to the allocator.
    pub fn large(bytes: usize) -> Self {
        LEASED.fetch_add(bytes, Ordering::Relaxed);
        Self(Some(vec![0; bytes].into_boxed_slice()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(buffer) = self.0.take() else { return };
        LEASED.fetch_sub(buffer.len(), Ordering::Relaxed);
        if buffer.len() != BUFFER_BYTES {
            return;
        }
        let sparing = SPARING.load(Ordering::Relaxed);
        // A thread that ends has no list any more: then the buffer just goes.
        let _ = FREE.try_with(|free| {
            let Ok(mut free) = free.try_borrow_mut() else { return };
            if sparing {
                *free = Vec::new();
            } else if free.len() < FREE_MAX {
                free.push(buffer);
            }
        });
    }
}

impl Deref for Lease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_deref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().expect("it is there until it is dropped")
    }
}

/// Other memory that goes by what passes, counted until it is dropped.
#[derive(Debug)]
pub struct Counted {
    bytes: usize,
    among: &'static AtomicUsize,
}

impl Default for Counted {
    /// With the buffers: a decoder's, or texts of prepared statements.
    fn default() -> Self {
        Self { bytes: 0, among: &LEASED }
    }
}

impl Counted {
    /// What waits to be written down or asked again, which no session holds.
    pub fn spool() -> Self {
        Self { bytes: 0, among: &SPOOLED }
    }

    pub fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.among.fetch_add(bytes, Ordering::Relaxed);
            self.among.fetch_sub(self.bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Whether memory is short: then threads keep no free buffers.
pub fn spare(sparing: bool) {
    SPARING.store(sparing, Ordering::Relaxed);
}

/// Bytes of all buffers that are leased now.
pub fn leased_bytes() -> usize {
    LEASED.load(Ordering::Relaxed)
}

/// Bytes that captures and mirrors hold now.
pub fn spooled_bytes() -> usize {
    SPOOLED.load(Ordering::Relaxed)
}
