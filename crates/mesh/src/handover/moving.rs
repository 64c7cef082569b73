//! What sessions see of a handover: that there is one, and the way to it.

use super::Packed;
use arc_swap::ArcSwapOption;
use atomic_waker::AtomicWaker;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Wakes a session that waits for its client.
pub type Bell = Arc<AtomicWaker>;

/// Sessions look here between two commands.
#[derive(Debug, Default)]
pub struct Moving {
    /// Of the handover that is going on; 0 where there is none.
    round: AtomicU64,
    rounds: AtomicU64,
    /// Living sessions that do not move in it.
    staying: AtomicUsize,
    sender: ArcSwapOption<mpsc::Sender<Packed>>,
    bells: Mutex<HashMap<u32, Bell>>,
}

impl Moving {
    /// The handover that is going on; 0 where there is none.
    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    pub fn begin(&self, sender: mpsc::Sender<Packed>) {
        self.sender.store(Some(Arc::new(sender)));
        self.staying.store(0, Ordering::SeqCst);
        let round = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
        self.round.store(round, Ordering::SeqCst);
        self.ring();
    }

    /// Wakes every session that waits for its client, to look whether it should go somewhere else.
    pub fn ring(&self) {
        for bell in self.bells.lock().unwrap_or_else(PoisonError::into_inner).values() {
            bell.wake();
        }
    }

    pub fn end(&self) {
        self.round.store(0, Ordering::SeqCst);
        self.sender.store(None);
    }

    /// A session stays, or one that did has ended.
    pub fn count_staying(&self, more: bool) {
        match more {
            true => self.staying.fetch_add(1, Ordering::SeqCst),
            false => self.staying.fetch_sub(1, Ordering::SeqCst),
        };
    }

    pub fn staying(&self) -> usize {
        self.staying.load(Ordering::SeqCst)
    }

    pub fn sender(&self) -> Option<Arc<mpsc::Sender<Packed>>> {
        self.sender.load_full()
    }

    /// A bell for a session; it is taken down by [`forget`](Self::forget).
    pub fn bell(&self, session: u32) -> Bell {
        let bell = Bell::default();
        self.bells.lock().unwrap_or_else(PoisonError::into_inner).insert(session, bell.clone());
        bell
    }

    pub fn forget(&self, session: u32) {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }
}
