//! Questions and answers: one metric at a period and members, with what it was before, what it should be, and how it stands.

use super::config::{Direction, Light, MetricStatus};
use super::declared::{Declared, Indicators, Node, Reach};
use super::error::IndicatorError;
use super::fetch::{At, Fetch, Filter, Members, Test, View};
use super::figure::{Exact, QUOTIENT_DECIMALS, plain, quotient, rate};
use super::meta::Meta;
use super::period::{Grain, Period};
use base::near::nearest;
use base::value::{Date, date_of_days, days_of_date};
use engine::Engine;
use expr::decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Periods of a series.
pub const SERIES_MAX: u32 = 400;
/// Members of a list where no limit is given, and the largest limit.
pub const MEMBERS_DEFAULT: usize = 100;
pub const MEMBERS_MAX: usize = 1000;
/// Where sums over all time begin: a year that begins with a week.
const BEGINNING: Date = Date { year: 1010, month: 1, day: 1 };

/// Which indicator, when, and of whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    pub code: String,
    /// A period of the grain, or a day in it; the newest that has rows by default.
    pub date: Option<String>,
    /// The metric's finest by default.
    pub grain: Option<Grain>,
    /// Members by their dimension; null is those rows that have none.
    pub dims: BTreeMap<String, Option<String>>,
    /// A list of this dimension's members.
    pub by: Option<String>,
    /// The member of this dimension in `dims` is ranked among the others.
    pub rank: Option<String>,
    /// So many periods, the asked one last.
    pub series: u32,
    /// Members of the list.
    pub limit: Option<usize>,
}

/// State of the checks of what an answer was computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    Passed,
    /// No check is declared, or none has run.
    Unknown,
    Warned,
    Failed,
}

/// How a table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableHealth {
    pub checks: CheckState,
    /// Milliseconds since the Unix epoch: of when its rows are. `None`: when the rollup was built.
    pub as_of_ms: Option<i64>,
    /// It should have been computed anew by now.
    pub stale: bool,
}

/// Who knows how tables stand: whoever computes and checks them.
pub trait Health: Send + Sync {
    fn of(&self, table: &str) -> TableHealth;
}

/// Nobody knows.
pub struct NoHealth;

impl Health for NoHealth {
    fn of(&self, _: &str) -> TableHealth {
        TableHealth { checks: CheckState::Unknown, as_of_ms: None, stale: false }
    }
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    #[serde(flatten)]
    pub indicator: Indicator,
    pub grain: Grain,
    pub period: Period,
    /// First and last day of the period.
    pub from: String,
    pub to: String,
    pub dims: BTreeMap<String, Option<String>>,
    pub value: Option<Exact>,
    /// There is no row of this period and these members: not zero.
    pub missing: bool,
    /// The period before.
    pub mom: Comparison,
    /// The same period a year before.
    pub yoy: Comparison,
    pub target: Option<Exact>,
    /// The value as a part of the target.
    pub completion: Option<Exact>,
    /// By thresholds.
    pub status: Option<Light>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<Rank>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Point>,
    pub as_of: String,
    pub checks: CheckState,
    pub stale: bool,
}

/// What is always told of an indicator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Indicator {
    pub code: String,
    pub name: String,
    pub unit: String,
    pub owner: String,
    pub state: MetricStatus,
    /// Of its definition.
    pub version: u32,
    pub direction: Direction,
}

/// What it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub period: Period,
    pub value: Option<Exact>,
    pub missing: bool,
    /// How much more it is now.
    pub change: Option<Exact>,
    /// The change as a part of what it was.
    pub rate: Option<Exact>,
}

/// A member among the others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rank {
    pub dimension: String,
    /// 1 is the best; equals share a rank. Null where there is no value.
    pub rank: Option<usize>,
    pub of: usize,
    /// Of what all members add up to, where they do.
    pub share: Option<Exact>,
}

/// A member of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    pub member: Option<String>,
    pub value: Option<Exact>,
    pub rank: Option<usize>,
    pub share: Option<Exact>,
    /// Rates against the period before and the same a year before.
    pub mom: Option<Exact>,
    pub yoy: Option<Exact>,
    pub target: Option<Exact>,
    pub status: Option<Light>,
}

/// A period of a series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    pub period: Period,
    pub value: Option<Exact>,
    pub missing: bool,
}

/// Members with their value.
type Valued = (Members, Option<Decimal>);
/// A rank and a share.
type Placed = (Option<usize>, Option<Exact>);

/// A number and whether anything is behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub value: Option<Decimal>,
    pub missing: bool,
}

/// A metric at a time, from what `part` tells of its parts.
pub fn evaluate(
    node: &Node,
    at: At,
    part: &mut dyn FnMut(usize, usize, At) -> (Option<Decimal>, bool),
) -> Found {
    match node {
        Node::Part { model, part: place, fill, reach } => {
            let at = match reach {
                None => at,
                Some(reach) => {
                    let (_, end) = at.days();
                    let from = match reach {
                        Reach::All => days_of_date(BEGINNING),
                        Reach::Window(span) => span.before(end),
                        Reach::ToDate(grain) => Period::containing(*grain, end - 1).start(),
                    };
                    At::Days(from, end)
                }
            };
            let (value, there) = part(*model, *place, at);
            Found { value: value.or_else(|| fill.clone()), missing: !there }
        }
        Node::Ratio(numerator, denominator) => {
            let numerator = evaluate(numerator, at, part);
            let denominator = evaluate(denominator, at, part);
            let value =
                numerator.value.zip(denominator.value).and_then(|(left, right)| quotient(&left, &right));
            Found { value, missing: numerator.missing && denominator.missing }
        }
        Node::Derived { formula, inputs } => {
            let mut values = Vec::with_capacity(inputs.len());
            let mut missing = true;
            for (input, offset) in inputs {
                let at = match (offset, at) {
                    (None, at) => at,
                    (Some(span), At::Period(period)) => At::Period(period.offset(*span)),
                    (Some(span), At::Days(from, to)) => At::Days(span.before(from), span.before(to)),
                };
                let found = evaluate(input, at, part);
                missing &= found.missing;
                values.push(found.value);
            }
            Found { value: formula.value(&values).ok().flatten(), missing }
        }
    }
}

impl Declared {
    /// With the digits that are shown.
    pub fn shown(&self, value: Option<Decimal>) -> Option<Decimal> {
        let value = value?;
        Some(match (self.config.decimals, &self.node) {
            (Some(decimals), _) => value.rescaled(decimals.into()),
            (None, Some(Node::Part { .. })) => value,
            _ => plain(&value.rescaled(QUOTIENT_DECIMALS.min(value.scale()))),
        })
    }

    pub fn indicator(&self) -> Indicator {
        Indicator {
            code: self.code.clone(),
            name: self.label.clone(),
            unit: self.config.unit.clone(),
            owner: self.config.owner.clone(),
            state: self.config.status,
            version: self.config.version,
            direction: self.config.direction,
        }
    }

    /// What it should be: the target that says most.
    fn target(&self, period: Period, dims: &BTreeMap<String, Option<String>>) -> Option<Decimal> {
        let text = period.to_string();
        let mut best: Option<(usize, &Decimal)> = None;
        for target in &self.config.targets {
            let fits = target.grain.is_none_or(|it| it == period.grain)
                && target.period.as_ref().is_none_or(|it| *it == text)
                && target.dimensions.iter().all(|(dim, member)| dims.get(dim) == Some(&Some(member.clone())));
            let says = target.dimensions.len() * 4
                + usize::from(target.period.is_some()) * 2
                + usize::from(target.grain.is_some());
            if fits && best.is_none_or(|(most, _)| says >= most) {
                best = Some((says, &target.value.0));
            }
        }
        best.map(|(_, value)| value).or(self.config.target.as_ref().map(|it| &it.0)).cloned()
    }

    fn status(&self, numbers: &[Option<Decimal>; 6]) -> Option<Light> {
        numbers[0].as_ref()?;
        self.thresholds.iter().find(|(_, when)| when.holds(numbers)).map(|(light, _)| *light)
    }
}

/// A question that was understood.
struct Asked<'i> {
    declared: &'i Declared,
    node: &'i Node,
    question: Question,
    period: Period,
    /// Of what was asked.
    own: View,
    /// Of the members that are ranked, and of those that are listed.
    ranked: Option<View>,
    listed: Option<View>,
}

impl Asked<'_> {
    fn compared(&self) -> [Period; 3] {
        [self.period, self.period.previous(), self.period.last_year()]
    }

    fn series(&self) -> impl Iterator<Item = Period> {
        let period = self.period;
        (0..self.question.series).rev().map(move |count| period.back(count))
    }

    fn times(&self) -> Vec<(&View, Period)> {
        let mut times: Vec<(&View, Period)> = self.compared().map(|it| (&self.own, it)).to_vec();
        times.extend(self.series().map(|it| (&self.own, it)));
        times.extend(self.ranked.iter().map(|view| (view, self.period)));
        times.extend(self.listed.iter().flat_map(|view| self.compared().map(|it| (view, it))));
        times
    }
}

fn asked<'i>(
    indicators: &'i Indicators,
    metas: &HashMap<usize, Meta>,
    question: &Question,
) -> Result<Asked<'i>, IndicatorError> {
    let (declared, node) = indicators.answerable(&question.code)?;
    let grain = match question.grain {
        None => declared.grains.first().copied().unwrap_or(Grain::Day),
        Some(grain) if declared.grains.contains(&grain) || declared.config.allow_raw => grain,
        Some(grain) => {
            let known: Vec<&str> = declared.grains.iter().map(|it| it.name()).collect();
            return Err(IndicatorError::unanswerable(
                format!("`{}` is not offered each {}", declared.code, grain.name()),
                format!("its grains are: {}", known.join(", ")),
            ));
        }
    };
    let period = match &question.date {
        Some(text) => Period::parse(text, grain).ok_or_else(|| {
            IndicatorError::invalid(
                format!("`date` is neither a {} nor a day", grain.name()),
                "2026-11-28, 2026-W48, 2026-11, 2026-Q4 or 2026",
            )
        })?,
        None => {
            let newest = declared.models.iter().filter_map(|at| metas.get(at)?.newest).max();
            Period::containing(grain, newest.unwrap_or_else(|| indicators.today()))
        }
    };
    if question.series > SERIES_MAX {
        let message = format!("a series has at most {SERIES_MAX} periods");
        return Err(IndicatorError::invalid(message, "ask for fewer"));
    }
    if question.limit.is_some_and(|it| it > MEMBERS_MAX) {
        return Err(IndicatorError::invalid(format!("`limit` is at most {MEMBERS_MAX}"), "ask for fewer"));
    }
    let offered = |dimension: &String| declared.offers(dimension);
    question.dims.keys().chain(&question.by).chain(&question.rank).try_for_each(offered)?;
    let filters = |without: Option<&String>| {
        let kept = question.dims.iter().filter(|(dim, _)| Some(*dim) != without);
        kept.map(|(dim, member)| Filter { dimension: dim.clone(), test: Test::In(vec![member.clone()]) })
            .collect()
    };
    let raw = declared.config.allow_raw;
    let ranked = match &question.rank {
        Some(dim) if !question.dims.contains_key(dim) => {
            return Err(IndicatorError::invalid(
                format!("`rank` names `{dim}`, of which no member is asked for"),
                format!("add dim.{dim}=…, or ask for all by={dim}"),
            ));
        }
        rank => rank.as_ref().map(|dim| View { filters: filters(Some(dim)), by: vec![dim.clone()], raw }),
    };
    Ok(Asked {
        declared,
        node,
        period,
        own: View { filters: filters(None), by: Vec::new(), raw },
        ranked,
        listed: question.by.as_ref().map(|dim| View { filters: filters(None), by: vec![dim.clone()], raw }),
        question: question.clone(),
    })
}

impl Declared {
    /// Whether it can be asked by a dimension.
    pub fn offers(&self, dimension: &String) -> Result<(), IndicatorError> {
        if self.dimensions.contains(dimension) || self.config.allow_raw {
            return Ok(());
        }
        Err(IndicatorError::unanswerable(
            format!("`{}` is not offered by `{dimension}`", self.code),
            match self.dimensions.is_empty() {
                true => "it is offered as a whole only".to_owned(),
                false => format!("its dimensions are: {}", self.dimensions.join(", ")),
            },
        ))
    }
}

impl Indicators {
    /// The metric of a code that is answered.
    pub fn answerable(&self, code: &str) -> Result<(&Declared, &Node), IndicatorError> {
        let declared = self.metrics.get(code).ok_or_else(|| IndicatorError::Unknown {
            code: code.chars().take(64).collect(),
            hint: match nearest(code, self.metrics.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "GET /api/v1/indicators lists them".to_owned(),
            },
        })?;
        let node = declared.node.as_ref().ok_or_else(|| IndicatorError::Retired { code: code.to_owned() })?;
        Ok((declared, node))
    }
}

/// Answers questions, as few queries as they take together. `metas`: what is known of the rollups of their models; one that is not there is
/// an error of the questions that need it.
pub async fn answer_all(
    engine: &dyn Engine,
    indicators: &Indicators,
    metas: &HashMap<usize, Meta>,
    health: &dyn Health,
    questions: &[Question],
) -> Vec<Result<Answer, IndicatorError>> {
    let mut fetch = Fetch::new(indicators);
    let mut understood = Vec::with_capacity(questions.len());
    for question in questions {
        understood.push(asked(indicators, metas, question).and_then(|asked| {
            let (declared, _) = indicators.answerable(&question.code)?;
            indicators.built(declared, metas)?;
            let mut refusal = None;
            for (view, period) in asked.times() {
                evaluate(asked.node, At::Period(period), &mut |model, part, at| {
                    if let Err(error) = fetch.need(view, model, part, at) {
                        refusal.get_or_insert(error);
                    }
                    (None, false)
                });
            }
            refusal.map_or(Ok(asked), Err)
        }));
    }
    if let Err(error) = fetch.run(engine).await {
        return understood.into_iter().map(|it| it.and(Err(error.clone()))).collect();
    }
    let answer = |asked: Result<Asked<'_>, IndicatorError>| {
        asked.map(|asked| {
            let mut answer = asked.answer(&fetch);
            attend(&mut answer, asked.declared, indicators, metas, health);
            answer
        })
    };
    understood.into_iter().map(answer).collect()
}

/// How what an answer was computed from stands by now.
pub fn attend(
    answer: &mut Answer,
    declared: &Declared,
    indicators: &Indicators,
    metas: &HashMap<usize, Meta>,
    health: &dyn Health,
) {
    let standing = indicators.standing(declared, metas, health);
    (answer.as_of, answer.checks, answer.stale) = standing;
}

impl Indicators {
    /// Whether the rollups of a metric are there and of its definition.
    pub fn built(&self, declared: &Declared, metas: &HashMap<usize, Meta>) -> Result<(), IndicatorError> {
        for at in &declared.models {
            let model = &self.models[*at];
            let message = match metas.get(at) {
                None => format!("the rollups of `{}` were not built yet", model.name),
                Some(meta) if meta.definition != model.definition => {
                    format!("the rollups of `{}` were built by another definition", model.name)
                }
                Some(_) => continue,
            };
            return Err(IndicatorError::NotBuilt { message });
        }
        Ok(())
    }

    /// As of when a metric's numbers are, the worst of its checks, and whether any of it is stale.
    pub fn standing(
        &self,
        declared: &Declared,
        metas: &HashMap<usize, Meta>,
        health: &dyn Health,
    ) -> (String, CheckState, bool) {
        let mut as_of = i64::MAX;
        let (mut checks, mut stale) = (CheckState::Passed, false);
        for at in &declared.models {
            let health = health.of(&self.models[*at].table);
            let built = metas.get(at).map_or(0, |it| it.built_ms);
            // Rows that a run has changed since are not in the rollup yet.
            as_of = as_of.min(health.as_of_ms.map_or(built, |ended| ended.min(built)));
            checks = checks.max(health.checks);
            stale |= health.stale || health.as_of_ms.is_some_and(|ended| ended > built);
        }
        let micros = if as_of == i64::MAX { 0 } else { as_of.saturating_mul(1000) };
        (base::value::format_timestamp(micros, 3), checks, stale)
    }
}

impl Asked<'_> {
    fn found(&self, fetch: &Fetch<'_>, view: &View, members: &Members, period: Period) -> Found {
        let found = evaluate(self.node, At::Period(period), &mut |model, part, at| {
            fetch.get(view, members, model, part, at)
        });
        Found { value: self.declared.shown(found.value), ..found }
    }

    fn answer(&self, fetch: &Fetch<'_>) -> Answer {
        let nobody = Members::new();
        let [now, before, year] = self.compared().map(|period| self.found(fetch, &self.own, &nobody, period));
        let mom = compared(self.period.previous(), &now, &before);
        let yoy = compared(self.period.last_year(), &now, &year);
        let target = self.declared.target(self.period, &self.question.dims);
        let numbers = numbers(&now, &before, &year, target.clone());
        let completion =
            now.value.as_ref().zip(target.as_ref()).and_then(|(value, target)| quotient(value, target));
        let series = self.series().map(|period| {
            let found = self.found(fetch, &self.own, &nobody, period);
            Point { period, value: found.value.map(Exact), missing: found.missing }
        });
        Answer {
            indicator: self.declared.indicator(),
            grain: self.period.grain,
            period: self.period,
            from: date_of_days(self.period.start()).to_string(),
            to: date_of_days(self.period.end() - 1).to_string(),
            dims: self.question.dims.clone(),
            status: self.declared.status(&numbers),
            value: now.value.map(Exact),
            missing: now.missing,
            mom,
            yoy,
            target: target.map(Exact),
            completion: completion.map(|it| Exact(plain(&it.rescaled(QUOTIENT_DECIMALS)))),
            rank: self.rank(fetch),
            members: self.members(fetch),
            series: series.collect(),
            as_of: String::new(),
            checks: CheckState::Unknown,
            stale: false,
        }
    }

    /// Members with their values at the period, the best first.
    fn ranked(&self, fetch: &Fetch<'_>, view: &View) -> Vec<Valued> {
        // A metric that looks elsewhere than at its period has its members there.
        let mut all = fetch.members(view, At::Period(self.period));
        evaluate(self.node, At::Period(self.period), &mut |_, _, at| {
            all.extend(fetch.members(view, at));
            (None, false)
        });
        let mut all: Vec<(Members, Option<Decimal>)> = all
            .into_iter()
            .map(|members| {
                let value = self.found(fetch, view, &members, self.period).value;
                (members, value)
            })
            .collect();
        all.sort_by(|(left, a), (right, b)| {
            let order = match (a, b) {
                (Some(a), Some(b)) if self.declared.config.direction == Direction::Up => b.cmp(a),
                (Some(a), Some(b)) => a.cmp(b),
                (a, b) => b.is_some().cmp(&a.is_some()),
            };
            order.then_with(|| left.cmp(right))
        });
        all
    }

    fn shares(&self, ranked: &[(Members, Option<Decimal>)]) -> Vec<(Option<usize>, Option<Exact>)> {
        let zero = Decimal::from_int(0);
        let total = ranked.iter().filter_map(|(_, value)| value.as_ref()).fold(zero, |sum, it| sum.plus(it));
        let mut rank = 0;
        let mut last: Option<&Decimal> = None;
        ranked
            .iter()
            .enumerate()
            .map(|(place, (_, value))| {
                let Some(value) = value else { return (None, None) };
                if last.is_none_or(|it| it != value) {
                    rank = place + 1;
                }
                last = Some(value);
                let share = quotient(value, &total).filter(|_| self.declared.additive);
                (Some(rank), share.map(|it| Exact(plain(&it.rescaled(QUOTIENT_DECIMALS)))))
            })
            .collect()
    }

    fn rank(&self, fetch: &Fetch<'_>) -> Option<Rank> {
        let view = self.ranked.as_ref()?;
        let dimension = view.by.first()?.clone();
        let own = vec![self.question.dims.get(&dimension)?.clone()];
        let ranked = self.ranked(fetch, view);
        let shares = self.shares(&ranked);
        let place = ranked.iter().position(|(members, _)| *members == own);
        let (rank, share) = place.and_then(|it| shares.into_iter().nth(it)).unwrap_or((None, None));
        let of = ranked.iter().filter(|(_, value)| value.is_some()).count();
        Some(Rank { dimension, rank, of, share })
    }

    fn members(&self, fetch: &Fetch<'_>) -> Option<Vec<Member>> {
        let view = self.listed.as_ref()?;
        let dimension = view.by.first()?;
        let ranked = self.ranked(fetch, view);
        let shares = self.shares(&ranked);
        let limit = self.question.limit.unwrap_or(MEMBERS_DEFAULT);
        let [_, previous, last_year] = self.compared();
        let member = |((members, value), (rank, share)): (Valued, Placed)| {
            let now = Found { value, missing: false };
            let before = self.found(fetch, view, &members, previous);
            let year = self.found(fetch, view, &members, last_year);
            let mut dims = self.question.dims.clone();
            let name = members.into_iter().next().flatten();
            dims.insert(dimension.clone(), name.clone());
            let target = self.declared.target(self.period, &dims);
            let numbers = numbers(&now, &before, &year, target.clone());
            Member {
                member: name,
                rank,
                share,
                status: self.declared.status(&numbers),
                mom: numbers[4].clone().map(Exact),
                yoy: numbers[5].clone().map(Exact),
                target: target.map(Exact),
                value: now.value.map(Exact),
            }
        };
        Some(ranked.into_iter().zip(shares).take(limit).map(member).collect())
    }
}

/// In the order of [`super::declared::THRESHOLD_NAMES`].
fn numbers(now: &Found, before: &Found, year: &Found, target: Option<Decimal>) -> [Option<Decimal>; 6] {
    let more =
        |than: &Found| now.value.as_ref().zip(than.value.as_ref()).and_then(|(now, than)| rate(now, than));
    [now.value.clone(), target, before.value.clone(), year.value.clone(), more(before), more(year)]
}

fn compared(period: Period, now: &Found, then: &Found) -> Comparison {
    let both = now.value.as_ref().zip(then.value.as_ref());
    Comparison {
        period,
        value: then.value.clone().map(Exact),
        missing: then.missing,
        change: both.map(|(now, then)| Exact(now.minus(then))),
        rate: both.and_then(|(now, then)| rate(now, then)).map(Exact),
    }
}
