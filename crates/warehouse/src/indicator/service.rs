//! Indicators as they are served: the engine, what is declared, what is known of rollups, and answers that were given.

use super::answer::{Answer, Health, Question, answer_all, attend};
use super::cache::Cache;
use super::declared::{Declared, Indicators};
use super::error::IndicatorError;
use super::meta::{self, Meta};
use super::period::Period;
use base::value::date_of_days;
use engine::Engine;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Questions of one call.
pub const QUESTIONS_MAX: usize = 200;
/// How old what is known of a rollup may be: another process may build it.
const META_AGE_MAX: Duration = Duration::from_millis(250);

/// What answers.
pub struct Service {
    engine: Arc<dyn Engine>,
    indicators: Arc<Indicators>,
    health: Arc<dyn Health>,
    metas: Mutex<HashMap<usize, (Instant, Option<Meta>)>>,
    answers: Cache,
}

/// An indicator in the list.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    pub indicator: super::answer::Indicator,
    pub description: String,
    pub r#type: super::config::MetricType,
    pub dimensions: Vec<String>,
    pub grains: Vec<super::period::Grain>,
    /// The newest period of its finest grain that has rows.
    pub newest: Option<Period>,
    pub as_of: Option<String>,
    pub checks: super::answer::CheckState,
    pub stale: bool,
}

/// A rollup that was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    pub model: String,
    pub version: i64,
    pub newest: Option<String>,
    /// Codes of the indicators that it is behind.
    pub codes: Vec<String>,
}

impl Service {
    pub fn new(engine: Arc<dyn Engine>, indicators: Arc<Indicators>, health: Arc<dyn Health>) -> Self {
        Self { engine, indicators, health, metas: Mutex::default(), answers: Cache::default() }
    }

    pub fn indicators(&self) -> &Indicators {
        &self.indicators
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    pub(super) fn health(&self) -> &dyn Health {
        &*self.health
    }

    /// What is known of the rollups of some models.
    pub async fn metas(&self, models: &BTreeSet<usize>) -> Result<HashMap<usize, Meta>, IndicatorError> {
        let mut metas = HashMap::new();
        for at in models {
            let known = {
                let known = self.metas.lock().unwrap_or_else(PoisonError::into_inner);
                known.get(at).filter(|(when, _)| when.elapsed() < META_AGE_MAX).map(|(_, meta)| meta.clone())
            };
            let meta = match known {
                Some(meta) => meta,
                None => {
                    let meta = meta::read(&*self.engine, &self.indicators.models[*at]).await?;
                    let mut known = self.metas.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(*at, (Instant::now(), meta.clone()));
                    meta
                }
            };
            metas.extend(meta.map(|meta| (*at, meta)));
        }
        Ok(metas)
    }

    async fn all_metas(&self) -> Result<HashMap<usize, Meta>, IndicatorError> {
        self.metas(&(0..self.indicators.models.len()).collect()).await
    }

    /// What is built by now, by model.
    pub async fn rebuilt(&self) -> Result<Vec<Rebuilt>, IndicatorError> {
        let metas = self.all_metas().await?;
        let of_model = |at: usize| {
            let of = self.indicators.metrics.values().filter(move |it| it.models.contains(&at));
            of.map(|it| it.code.clone()).collect()
        };
        let mut all: Vec<(usize, Meta)> = metas.into_iter().collect();
        all.sort_by_key(|(at, _)| *at);
        Ok(all
            .into_iter()
            .map(|(at, meta)| Rebuilt {
                model: self.indicators.models[at].name.clone(),
                version: meta.version,
                newest: meta.newest.map(|day| date_of_days(day).to_string()),
                codes: of_model(at),
            })
            .collect())
    }

    /// All indicators, the retired ones too.
    pub async fn list(&self) -> Result<Vec<Listed>, IndicatorError> {
        let metas = self.all_metas().await?;
        let listed = |declared: &Declared| {
            let built = self.indicators.built(declared, &metas).is_ok() && !declared.models.is_empty();
            let newest = declared.models.iter().filter_map(|at| metas.get(at)?.newest).max();
            let (as_of, checks, stale) = self.indicators.standing(declared, &metas, &*self.health);
            Listed {
                indicator: declared.indicator(),
                description: declared.config.description.clone(),
                r#type: declared.config.r#type,
                dimensions: declared.dimensions.clone(),
                grains: declared.grains.clone(),
                newest: newest
                    .zip(declared.grains.first())
                    .map(|(day, grain)| Period::containing(*grain, day)),
                as_of: built.then_some(as_of),
                checks,
                stale,
            }
        };
        Ok(self.indicators.metrics.values().map(listed).collect())
    }

    /// Answers in the order of the questions.
    pub async fn answer(&self, questions: &[Question]) -> Vec<Result<Answer, IndicatorError>> {
        let known = |question: &Question| self.indicators.metrics.get(&question.code);
        let models: BTreeSet<usize> =
            questions.iter().filter_map(known).flat_map(|declared| declared.models.clone()).collect();
        let metas = match self.metas(&models).await {
            Ok(metas) => metas,
            Err(error) => return questions.iter().map(|_| Err(error.clone())).collect(),
        };
        let key = |question: &Question| {
            let declared = known(question)?;
            let versions: Vec<i64> =
                declared.models.iter().map(|at| metas.get(at).map_or(0, |it| it.version)).collect();
            serde_json::to_string(&(question, versions)).ok()
        };
        let mut answers: Vec<Option<Result<Answer, IndicatorError>>> = Vec::with_capacity(questions.len());
        let mut open = Vec::new();
        for question in questions {
            let cached = key(question).and_then(|key| self.answers.get(&key)).zip(known(question));
            answers.push(cached.map(|(answer, declared)| {
                let mut answer = Answer::clone(&answer);
                attend(&mut answer, declared, &self.indicators, &metas, &*self.health);
                Ok(answer)
            }));
            if answers.last().is_some_and(Option::is_none) {
                open.push(question.clone());
            }
        }
        let given = match open.is_empty() {
            true => Vec::new(),
            false => answer_all(&*self.engine, &self.indicators, &metas, &*self.health, &open).await,
        };
        for (question, answer) in open.iter().zip(&given) {
            if let (Some(key), Ok(answer)) = (key(question), answer) {
                self.answers.put(key, Arc::new(answer.clone()));
            }
        }
        let mut given = given.into_iter();
        let lost = || Err(IndicatorError::NotBuilt { message: "the question was not answered".into() });
        answers.into_iter().map(|it| it.or_else(|| given.next()).unwrap_or_else(lost)).collect()
    }
}
