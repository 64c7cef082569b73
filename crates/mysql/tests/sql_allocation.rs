//! The scanner runs on every statement of every session: it must not allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mysql::sql::{Modes, scan};

struct Counting;

thread_local! {
    /// Allocations of this thread: the harness has others.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_scan_allocates_nothing_once_the_words_are_known() {
    let corpus = include_str!("sql/corpus.sql");
    let statements: Vec<&str> = corpus.split("\n\n").collect();
    // The table of words is made at the first use.
    scan(b"select 1", Modes::default());
    let before = ALLOCATIONS.get();
    for sql in &statements {
        scan(sql.as_bytes(), Modes::default());
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(before > 0 && statements.len() > 800, "{before}, {}", statements.len());
}
