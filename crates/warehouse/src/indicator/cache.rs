//! Answers that were given, by the question and the versions of the rollups behind it: a rollup that was built anew has other keys.

use super::answer::Answer;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the answers of one generation weigh; there are two. A member of a list, or a period of a series, weighs one, which is some 250
/// bytes.
const WEIGHT_MAX: usize = 32_768;
/// What an answer weighs without those.
const ANSWER_WEIGHT: usize = 4;

/// Bounded: when the young generation is full it becomes the old one, and the old one goes.
#[derive(Default)]
pub struct Cache {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<String, Arc<Answer>>,
    old: HashMap<String, Arc<Answer>>,
    young_weight: usize,
}

impl Cache {
    pub fn get(&self, key: &str) -> Option<Arc<Answer>> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = generations.young.get(key) {
            return Some(answer.clone());
        }
        let answer = generations.old.remove(key)?;
        generations.put(key.to_owned(), answer.clone());
        Some(answer)
    }

    pub fn put(&self, key: String, answer: Arc<Answer>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.put(key, answer);
    }
}

impl Generations {
    fn put(&mut self, key: String, answer: Arc<Answer>) {
        let weight = ANSWER_WEIGHT + answer.series.len() + answer.members.as_ref().map_or(0, Vec::len);
        if self.young_weight + weight > WEIGHT_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight += weight;
        self.young.insert(key, answer);
    }
}
