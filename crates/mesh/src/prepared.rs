//! What is prepared on one connection, by its text: sessions that come by with the same text use it in turns.

use std::collections::HashMap;
use std::sync::Arc;

/// Statements that are kept on a connection; one more closes the one that was not used for longest.
const KNOWN_MAX: usize = 256;

/// A text, and which of a session's statements with this text it is: two of one session are two of the server's.
pub type Name = (Arc<[u8]>, u16);

/// A statement on a connection.
#[derive(Debug)]
pub struct Prepared {
    /// The server's.
    pub number: u32,
    /// The types of the parameters that the server was told last.
    pub types: Box<[u8]>,
    used: u64,
}

/// The statements of a connection.
#[derive(Debug, Default)]
pub struct Known {
    map: HashMap<Name, Prepared>,
    uses: u64,
}

impl Known {
    pub fn get(&mut self, name: &Name) -> Option<&mut Prepared> {
        self.uses += 1;
        let prepared = self.map.get_mut(name)?;
        prepared.used = self.uses;
        Some(prepared)
    }

    /// Takes a statement in; the number of one that is to be closed.
    pub fn put(&mut self, name: Name, number: u32, types: Box<[u8]>) -> Option<u32> {
        self.uses += 1;
        let prepared = Prepared { number, types, used: self.uses };
        if let Some(before) = self.map.insert(name, prepared) {
            return Some(before.number);
        }
        if self.map.len() <= KNOWN_MAX {
            return None;
        }
        let oldest = self.map.iter().min_by_key(|(_, prepared)| prepared.used)?.0.clone();
        self.map.remove(&oldest).map(|prepared| prepared.number)
    }

    /// All of them, for another process: the text, its copy, the number, the types.
    pub fn list(&self) -> impl Iterator<Item = (&Name, &Prepared)> {
        self.map.iter()
    }

    pub fn remove(&mut self, name: &Name) -> Option<u32> {
        self.map.remove(name).map(|prepared| prepared.number)
    }

    /// Forgets all; their numbers.
    pub fn clear(&mut self) -> Vec<u32> {
        self.map.drain().map(|(_, prepared)| prepared.number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_not_used_for_longest_makes_room() {
        let mut known = Known::default();
        let name = |number: usize| (Arc::from(format!("select {number}").into_bytes()), 0);
        for number in 0..KNOWN_MAX {
            assert_eq!(known.put(name(number), number as u32, Box::default()), None);
        }
        assert!(known.get(&name(0)).is_some());
        assert_eq!(known.put(name(1000), 1000, Box::default()), Some(1));
        assert_eq!(known.put(name(1000), 1001, Box::default()), Some(1000));
        assert!(known.get(&name(1)).is_none() && known.get(&name(0)).is_some());
        assert_eq!(known.clear().len(), KNOWN_MAX);
    }
}
