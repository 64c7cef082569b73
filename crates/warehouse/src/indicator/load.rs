//! Questions and answers in Cube's shape: `/api/v1/load` and `/api/v1/meta`.
//!
//! A model is a cube. Its measures are the metrics whose first model it is, by their names; its dimensions are the model's. Numbers are
//! texts, as Cube's are. A period that a date range cuts counts only the days inside.

use super::answer::{Found, evaluate};
use super::config::{MetricStatus, MetricType};
use super::declared::{Declared, Indicators, Node};
use super::error::IndicatorError;
use super::fetch::{At, Fetch, Filter, Members, Test, View};
use super::meta::Meta;
use super::period::{Grain, Period, Span};
use super::service::Service;
use base::near::nearest;
use base::value::date_of_days;
use expr::decimal::Decimal;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// Rows of an answer where no limit is given, and the largest limit.
const ROWS_DEFAULT: usize = 10_000;
const ROWS_MAX: usize = 50_000;
/// Periods of one query.
const PERIODS_MAX: usize = 2000;
/// Measures, dimensions, filters or values of one query.
const ITEMS_MAX: usize = 100;

/// A query of Cube.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Query {
    pub measures: Vec<String>,
    pub dimensions: Vec<String>,
    pub time_dimensions: Vec<TimeDimension>,
    pub filters: Vec<QueryFilter>,
    pub order: Order,
    pub limit: Option<usize>,
    pub offset: Option<usize>,
    pub row_limit: Option<usize>,
    /// What clients send along. Segments and rows without groups are refused; the others change nothing.
    pub segments: Vec<String>,
    pub ungrouped: bool,
    pub timezone: Option<String>,
    pub renew_query: Option<bool>,
    pub total: Option<bool>,
    pub response_format: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TimeDimension {
    pub dimension: String,
    #[serde(default)]
    pub granularity: Option<String>,
    /// Two days, one, or `last 7 days`.
    #[serde(default)]
    pub date_range: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryFilter {
    #[serde(alias = "dimension")]
    pub member: String,
    pub operator: String,
    #[serde(default)]
    pub values: Vec<Value>,
}

/// Members and whether they descend, in order: an object or a list of pairs.
#[derive(Clone, Debug, Default)]
pub struct Order(Vec<(String, bool)>);

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Order;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a list of pairs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Order, A::Error> {
                let mut all = Vec::new();
                while let Some((member, way)) = map.next_entry::<String, String>()? {
                    all.push((member, way.eq_ignore_ascii_case("desc")));
                }
                Ok(Order(all))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Order, A::Error> {
                let mut all = Vec::new();
                while let Some((member, way)) = seq.next_element::<(String, String)>()? {
                    all.push((member, way.eq_ignore_ascii_case("desc")));
                }
                Ok(Order(all))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// An answer of Cube.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    pub query: Value,
    pub data: Vec<Map<String, Value>>,
    pub annotation: Value,
    pub last_refresh_time: String,
    pub slow_query: bool,
    /// Ours.
    pub checks: super::answer::CheckState,
    pub stale: bool,
}

/// The time's name, its granularity, and first day and the day behind the last.
type Time = (String, Option<Grain>, Option<(i64, i64)>);

/// What a query's names mean.
struct Read<'i> {
    indicators: &'i Indicators,
    measures: Vec<(String, &'i Declared, &'i Node)>,
    dimensions: Vec<String>,
    /// The cube of the first member, and its time.
    cube: usize,
    time: Option<Time>,
    view: View,
    /// Of measures.
    tests: Vec<(usize, String, Decimal)>,
    set: Vec<(usize, bool)>,
}

struct Row {
    at: Option<Period>,
    members: Members,
    values: Vec<Option<Decimal>>,
}

fn wrong(message: impl Into<String>, hint: impl Into<String>) -> IndicatorError {
    IndicatorError::invalid(message, hint)
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

impl Service {
    /// Answers a query of Cube.
    pub async fn load(&self, query: &Query) -> Result<Loaded, IndicatorError> {
        let indicators = self.indicators();
        let mut read = read(indicators, query)?;
        let models: BTreeSet<usize> = read.measures.iter().flat_map(|(_, it, _)| it.models.clone()).collect();
        let metas = self.metas(&models).await?;
        for (_, declared, _) in &read.measures {
            indicators.built(declared, &metas)?;
        }
        let times = read.times(&metas)?;
        let mut fetch = Fetch::new(indicators);
        let mut refusal = None;
        for (at, _) in &times {
            for (_, _, node) in &read.measures {
                evaluate(node, *at, &mut |model, part, at| {
                    if let Err(error) = fetch.need(&read.view, model, part, at) {
                        refusal.get_or_insert(error);
                    }
                    (None, false)
                });
            }
        }
        if let Some(error) = refusal {
            return Err(error);
        }
        fetch.run(self.engine()).await?;
        let mut rows = read.rows(&fetch, &times);
        rows.retain(|row| read.passes(row));
        read.sort(&mut rows, query);
        let limit = query.limit.or(query.row_limit).unwrap_or(ROWS_DEFAULT);
        let data =
            rows.into_iter().skip(query.offset.unwrap_or(0)).take(limit).map(|row| read.shown(row)).collect();
        let (mut as_of, mut checks, mut stale) = (String::new(), super::answer::CheckState::Passed, false);
        for (_, declared, _) in &read.measures {
            let (when, state, old) = indicators.standing(declared, &metas, self.health());
            as_of = if as_of.is_empty() || when < as_of { when } else { as_of };
            checks = checks.max(state);
            stale |= old;
        }
        Ok(Loaded {
            query: read.query(query, limit),
            annotation: read.annotation(),
            data,
            last_refresh_time: as_of,
            slow_query: false,
            checks,
            stale,
        })
    }
}

impl Indicators {
    /// What can be asked for, as Cube tells it.
    pub fn cubes(&self) -> Value {
        let indicators = self;
        let cube = |(at, model): (usize, &super::declared::Model)| {
            let measures =
                indicators.metrics.values().filter(|it| it.models.first() == Some(&at) && it.node.is_some());
            let measures: Vec<Value> = measures
                .map(|it| {
                    let mut measure = measure(&model.name, it);
                    measure["aggType"] = json!("number");
                    measure["cumulative"] = json!(it.config.r#type == MetricType::Cumulative);
                    measure["isVisible"] = json!(true);
                    measure["public"] = json!(true);
                    measure
                })
                .collect();
            let mut dimensions: Vec<Value> =
                model.offered.iter().map(|at| dimension(&model.name, &model.dimensions[*at])).collect();
            let title = &model.time_label;
            let name = format!("{}.{}", model.name, model.time_name);
            dimensions.push(json!({"name": name, "title": title, "shortTitle": title, "type": "time", "isVisible": true, "public": true}));
            json!({
                "name": model.name, "title": model.name, "description": model.description, "type": "cube", "isVisible": true,
                "public": true, "measures": measures, "dimensions": dimensions, "segments": [],
            })
        };
        let used = indicators.models.iter().enumerate().filter(|(_, model)| !model.parts.is_empty());
        json!({"cubes": used.map(cube).collect::<Vec<_>>()})
    }
}

fn measure(cube: &str, declared: &Declared) -> Value {
    json!({
        "name": format!("{cube}.{}", declared.config.name), "title": declared.label, "shortTitle": declared.label, "type": "number",
        "description": declared.config.description, "drillMembers": [],
        "meta": {"code": declared.code, "unit": declared.config.unit, "state": declared.config.status, "version": declared.config.version},
    })
}

fn dimension(cube: &str, dim: &super::declared::Dim) -> Value {
    json!({
        "name": format!("{cube}.{}", dim.name), "title": dim.label, "shortTitle": dim.label, "type": "string",
        "description": dim.description, "isVisible": true, "public": true,
    })
}

fn read<'i>(indicators: &'i Indicators, query: &Query) -> Result<Read<'i>, IndicatorError> {
    let many = [query.measures.len(), query.dimensions.len(), query.filters.len(), query.order.0.len()];
    let values = query.filters.iter().any(|it| it.values.len() > ITEMS_MAX);
    if many.iter().any(|it| *it > ITEMS_MAX)
        || values
        || query.limit.or(query.row_limit).is_some_and(|it| it > ROWS_MAX)
    {
        return Err(wrong(
            format!("a query has at most {ITEMS_MAX} members and values of a kind, and {ROWS_MAX} rows"),
            "ask for less",
        ));
    }
    if !query.segments.is_empty() || query.ungrouped {
        return Err(wrong("there are no segments, and rows are always grouped", "filter by a dimension"));
    }
    if query.measures.is_empty() {
        return Err(wrong(
            "`measures` is empty",
            "measures: [\"sales.revenue\"]; GET /api/v1/meta lists them",
        ));
    }
    let mut measures = Vec::new();
    for name in &query.measures {
        let (declared, node) = measure_of(indicators, name)?;
        measures.push((name.clone(), declared, node));
    }
    let cube = measures.first().and_then(|(_, it, _)| it.models.first().copied()).unwrap_or(0);
    let mut read = Read {
        indicators,
        cube,
        measures,
        dimensions: Vec::new(),
        time: None,
        view: View::default(),
        tests: Vec::new(),
        set: Vec::new(),
    };
    read.view.raw = read.measures.iter().all(|(_, it, _)| it.config.allow_raw);
    for member in &query.dimensions {
        let dimension = read.dimension(member)?;
        if !read.view.by.contains(&dimension) {
            read.view.by.push(dimension);
            read.dimensions.push(member.clone());
        }
    }
    for filter in &query.filters {
        read.filter(filter)?;
    }
    if query.time_dimensions.len() > 1 {
        return Err(wrong("a query has one time", "leave the other `timeDimensions` out"));
    }
    if let Some(time) = query.time_dimensions.first() {
        read.when(time)?;
    }
    for (member, _) in &query.order.0 {
        let known = read.measures.iter().any(|(name, ..)| name == member)
            || read.dimensions.contains(member)
            || read.time.as_ref().is_some_and(|(name, ..)| name == member);
        if !known {
            return Err(wrong(
                format!("`order` names `{}`, which is not asked for", short(member)),
                "order by what is asked for",
            ));
        }
    }
    Ok(read)
}

fn measure_of<'i>(
    indicators: &'i Indicators,
    member: &str,
) -> Result<(&'i Declared, &'i Node), IndicatorError> {
    let own = |declared: &Declared| {
        let cube = declared.models.first().map_or("", |at| indicators.models[*at].name.as_str());
        format!("{cube}.{}", declared.config.name)
    };
    if let Some(declared) = indicators.metrics.values().find(|it| it.node.is_some() && own(it) == member) {
        return indicators.answerable(&declared.code);
    }
    // Of a retired one no model is known any more.
    let retired = indicators.metrics.values().find(|it| {
        it.config.status == MetricStatus::Retired
            && member.split_once('.').is_some_and(|(_, name)| name == it.config.name)
    });
    if let Some(declared) = retired {
        return Err(IndicatorError::Retired { code: declared.code.clone() });
    }
    let known: Vec<String> = indicators.metrics.values().map(own).collect();
    let hint = match nearest(member, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "GET /api/v1/meta lists them".into(),
    };
    Err(wrong(format!("there is no measure `{}`", short(member)), hint))
}

impl<'i> Read<'i> {
    fn model(&self) -> &'i super::declared::Model {
        &self.indicators.models[self.cube]
    }

    fn cubes(&self) -> impl Iterator<Item = &'i super::declared::Model> {
        let indicators = self.indicators;
        let models: BTreeSet<usize> = self.measures.iter().flat_map(|(_, it, _)| it.models.clone()).collect();
        models.into_iter().map(move |at| &indicators.models[at])
    }

    /// The dimension that a member names: of any of the cubes, if all measures are offered by it.
    fn dimension(&self, member: &str) -> Result<String, IndicatorError> {
        let found = member.split_once('.').filter(|(cube, name)| {
            self.cubes().any(|model| model.name == *cube && model.dimension(name).is_some())
        });
        let Some((_, name)) = found else {
            let model = self.model();
            let known: Vec<String> =
                model.dimensions.iter().map(|it| format!("{}.{}", model.name, it.name)).collect();
            return Err(wrong(
                format!("there is no dimension `{}`", short(member)),
                format!("there are: {}", known.join(", ")),
            ));
        };
        let name = name.to_owned();
        self.measures.iter().try_for_each(|(_, declared, _)| declared.offers(&name))?;
        Ok(name)
    }

    fn is_time(&self, member: &str) -> bool {
        member.split_once('.').is_some_and(|(cube, name)| {
            self.cubes().any(|model| model.name == cube && model.time_name == name)
        })
    }

    fn when(&mut self, time: &TimeDimension) -> Result<(), IndicatorError> {
        if !self.is_time(&time.dimension) {
            let model = self.model();
            return Err(wrong(
                format!("there is no time `{}`", short(&time.dimension)),
                format!("the time is {}.{}", model.name, model.time_name),
            ));
        }
        let grain = match time.granularity.as_deref() {
            None => None,
            Some(name) => Some(Grain::named(name).ok_or_else(|| {
                wrong(
                    format!("there is no granularity `{}`", short(name)),
                    "day, week, month, quarter or year",
                )
            })?),
        };
        for (_, declared, _) in &self.measures {
            if let Some(grain) =
                grain.filter(|it| !declared.grains.contains(it) && !declared.config.allow_raw)
            {
                let known: Vec<&str> = declared.grains.iter().map(|it| it.name()).collect();
                return Err(IndicatorError::unanswerable(
                    format!("`{}` is not offered each {}", declared.code, grain.name()),
                    format!("its grains are: {}", known.join(", ")),
                ));
            }
        }
        let own = range(&time.date_range, self.indicators.today())?;
        let before = self.time.take().and_then(|(_, _, range)| range);
        let range = match (own, before) {
            (Some((a, b)), Some((c, d))) => Some((a.max(c), b.min(d))),
            (own, before) => own.or(before),
        };
        self.time = Some((time.dimension.clone(), grain, range));
        Ok(())
    }

    fn filter(&mut self, filter: &QueryFilter) -> Result<(), IndicatorError> {
        let QueryFilter { member, operator, values } = filter;
        let no_operator = || {
            wrong(format!("`{}` is no operator here", short(operator)), "see docs/guides/connect-a-screen.md")
        };
        if self.is_time(member) {
            if operator != "inDateRange" {
                return Err(no_operator());
            }
            let range = range(&Value::Array(values.clone()), self.indicators.today())?;
            let (grain, before) = match self.time.take() {
                Some((_, grain, before)) => (grain, before),
                None => (None, None),
            };
            // Several ranges are all meant.
            let both = match (before, range) {
                (Some((from, to)), Some((also_from, also_to))) => {
                    Some((from.max(also_from), to.min(also_to)))
                }
                (before, range) => before.or(range),
            };
            if both.is_some_and(|(from, to)| from >= to) {
                return Err(wrong("the ranges of time have no day in common", "leave one of them out"));
            }
            self.time = Some((member.clone(), grain, both));
            return Ok(());
        }
        if let Some(place) = self.measures.iter().position(|(name, ..)| name == member) {
            if let "set" | "notSet" = operator.as_str() {
                self.set.push((place, operator == "set"));
                return Ok(());
            }
            if !["equals", "notEquals", "gt", "gte", "lt", "lte"].contains(&operator.as_str()) {
                return Err(no_operator());
            }
            let text = match values.as_slice() {
                [Value::String(text)] => text.clone(),
                [Value::Number(number)] => number.to_string(),
                _ => String::new(),
            };
            let number = Decimal::parse(&text).filter(|_| text.len() <= 60);
            let number = number
                .ok_or_else(|| wrong(format!("`{}` wants one number", short(member)), "values: [\"100\"]"))?;
            self.tests.push((place, operator.clone(), number));
            return Ok(());
        }
        let dimension = self.dimension(member)?;
        let mut members = Vec::new();
        for value in values {
            members.push(match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(flag) => Some(u8::from(*flag).to_string()),
                _ => return Err(wrong("a value is a text, a number or null", "values: [\"north\"]")),
            });
        }
        if members.is_empty() && !["set", "notSet"].contains(&operator.as_str()) {
            return Err(wrong(
                format!("the filter on `{}` has no values", short(member)),
                "values: [\"north\"]",
            ));
        }
        let like = |negated, before, after| Test::Like {
            negated,
            before,
            after,
            texts: members.iter().flatten().cloned().collect(),
        };
        let test = match operator.as_str() {
            "equals" => Test::In(members),
            "notEquals" => Test::NotIn(members),
            "set" => Test::NotIn(vec![None]),
            "notSet" => Test::In(vec![None]),
            "contains" => like(false, true, true),
            "notContains" => like(true, true, true),
            "startsWith" => like(false, false, true),
            "notStartsWith" => like(true, false, true),
            "endsWith" => like(false, true, false),
            "notEndsWith" => like(true, true, false),
            _ => return Err(no_operator()),
        };
        self.view.filters.push(Filter { dimension, test });
        Ok(())
    }

    /// What is asked for, each with the period that it is shown as.
    fn times(&mut self, metas: &HashMap<usize, Meta>) -> Result<Vec<(At, Option<Period>)>, IndicatorError> {
        let known = metas
            .values()
            .filter_map(|it| it.oldest.zip(it.newest))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let base = self.model().base();
        let end = |day| Period::containing(base, day).end();
        let Some((_, grain, range)) = &mut self.time else {
            let all = known.map_or((0, 1), |(oldest, newest)| (oldest, end(newest)));
            return Ok(vec![(At::Days(all.0, all.1), None)]);
        };
        let (from, to) = match (*range, known) {
            (Some(range), _) => range,
            (None, Some((oldest, newest))) => (oldest, end(newest)),
            (None, None) => return Ok(Vec::new()),
        };
        *range = Some((from, to));
        let Some(grain) = *grain else { return Ok(vec![(self.whole(from, to), None)]) };
        let mut times = Vec::new();
        let mut period = Period::containing(grain, from);
        // Nothing is outside of what is known, but for sums over all time.
        while period.start() < to {
            if times.len() == PERIODS_MAX {
                return Err(wrong(
                    format!("the range has more than {PERIODS_MAX} periods"),
                    "ask for a shorter range, or a coarser granularity",
                ));
            }
            let cut = (period.start().max(from), period.end().min(to));
            let at = if cut == (period.start(), period.end()) {
                At::Period(period)
            } else {
                At::Days(cut.0, cut.1)
            };
            times.push((at, Some(period)));
            period = Period::containing(grain, period.end());
        }
        Ok(times)
    }

    /// A span as the period that it is, where all measures are offered by that: what cannot be added up is kept there.
    fn whole(&self, from: i64, to: i64) -> At {
        let offered = |grain: &Grain| self.measures.iter().all(|(_, it, _)| it.grains.contains(grain));
        let periods = Grain::ALL.into_iter().filter(offered).map(|grain| Period::containing(grain, from));
        let period = periods.into_iter().find(|it| (it.start(), it.end()) == (from, to));
        period.map_or(At::Days(from, to), At::Period)
    }

    fn found(&self, fetch: &Fetch<'_>, node: &Node, members: &Members, at: At) -> Found {
        evaluate(node, at, &mut |model, part, at| fetch.get(&self.view, members, model, part, at))
    }

    fn rows(&self, fetch: &Fetch<'_>, times: &[(At, Option<Period>)]) -> Vec<Row> {
        let mut rows = Vec::new();
        for (at, shown) in times {
            let mut there: BTreeSet<Members> = BTreeSet::new();
            for (_, _, node) in &self.measures {
                evaluate(node, *at, &mut |_, _, at| {
                    there.extend(fetch.members(&self.view, at));
                    (None, false)
                });
            }
            if there.is_empty() && shown.is_none() && self.view.by.is_empty() {
                there.insert(Members::new());
            }
            for members in there {
                let values = self
                    .measures
                    .iter()
                    .map(|(_, declared, node)| declared.shown(self.found(fetch, node, &members, *at).value));
                let values = values.collect();
                rows.push(Row { at: *shown, members, values });
            }
        }
        rows
    }

    fn passes(&self, row: &Row) -> bool {
        let tests = self.tests.iter().all(|(place, operator, number)| {
            let Some(value) = &row.values[*place] else { return false };
            let order = value.cmp(number);
            match operator.as_str() {
                "equals" => order == Ordering::Equal,
                "notEquals" => order != Ordering::Equal,
                "gt" => order == Ordering::Greater,
                "gte" => order != Ordering::Less,
                "lt" => order == Ordering::Less,
                _ => order != Ordering::Greater,
            }
        });
        tests && self.set.iter().all(|(place, set)| row.values[*place].is_some() == *set)
    }

    /// By `order`; without it by time, and without a time by the first measure, the largest first, as Cube does.
    fn sort(&self, rows: &mut [Row], query: &Query) {
        let mut order = query.order.0.clone();
        if order.is_empty() {
            order.push(match &self.time {
                Some((name, Some(_), _)) => (name.clone(), false),
                _ => (self.measures[0].0.clone(), true),
            });
        }
        let compared = |left: &Row, right: &Row, member: &str| {
            if let Some(place) = self.measures.iter().position(|(name, ..)| name == member) {
                return left.values[place].cmp(&right.values[place]);
            }
            match self.dimensions.iter().position(|it| it == member) {
                Some(place) => left.members[place].cmp(&right.members[place]),
                None => left.at.cmp(&right.at),
            }
        };
        rows.sort_by(|left, right| {
            let by = order.iter().map(|(member, down)| {
                let order = compared(left, right, member);
                if *down { order.reverse() } else { order }
            });
            let rest = left.at.cmp(&right.at).then_with(|| left.members.cmp(&right.members));
            by.fold(Ordering::Equal, Ordering::then).then(rest)
        });
    }

    fn shown(&self, row: Row) -> Map<String, Value> {
        let mut out = Map::new();
        for (name, member) in self.dimensions.iter().zip(row.members) {
            out.insert(name.clone(), member.map_or(Value::Null, Value::String));
        }
        if let (Some((name, Some(grain), _)), Some(period)) = (&self.time, row.at) {
            let text = format!("{}T00:00:00.000", date_of_days(period.start()));
            out.insert(format!("{name}.{}", grain.name()), text.clone().into());
            out.insert(name.clone(), text.into());
        }
        for ((name, ..), value) in self.measures.iter().zip(row.values) {
            out.insert(name.clone(), value.map_or(Value::Null, |it| it.to_string().into()));
        }
        out
    }

    fn query(&self, query: &Query, limit: usize) -> Value {
        let times: Vec<Value> = self
            .time
            .iter()
            .map(|(name, grain, range)| {
                let mut time = json!({"dimension": name});
                if let Some(grain) = grain {
                    time["granularity"] = grain.name().into();
                }
                if let Some((from, to)) = range {
                    time["dateRange"] = json!([
                        format!("{}T00:00:00.000", date_of_days(*from)),
                        format!("{}T23:59:59.999", date_of_days(*to - 1)),
                    ]);
                }
                time
            })
            .collect();
        let filters: Vec<Value> = query
            .filters
            .iter()
            .map(|it| json!({"member": it.member, "operator": it.operator, "values": it.values}))
            .collect();
        let order: Vec<Value> =
            query.order.0.iter().map(|(member, down)| json!({"id": member, "desc": down})).collect();
        json!({
            "measures": query.measures, "dimensions": query.dimensions, "timeDimensions": times, "filters": filters, "order": order,
            "segments": [], "limit": limit, "rowLimit": limit, "offset": query.offset.unwrap_or(0),
            "timezone": query.timezone.as_deref().unwrap_or("UTC"), "queryType": "regularQuery",
        })
    }

    fn annotation(&self) -> Value {
        let cube = |member: &str| member.split_once('.').map_or(String::new(), |(cube, _)| cube.to_owned());
        let measures: BTreeMap<&String, Value> =
            self.measures.iter().map(|(name, declared, _)| (name, measure(&cube(name), declared))).collect();
        let mut dimensions = BTreeMap::new();
        for (member, name) in self.dimensions.iter().zip(&self.view.by) {
            let found = self
                .cubes()
                .filter(|it| it.name == cube(member))
                .find_map(|model| Some(dimension(&model.name, &model.dimensions[model.dimension(name)?])));
            dimensions.insert(member, found);
        }
        let mut times = Map::new();
        if let Some((name, grain, _)) = &self.time {
            let title = &self.model().time_label;
            let time = json!({"title": title, "shortTitle": title, "type": "time"});
            times.extend(grain.map(|grain| (format!("{name}.{}", grain.name()), time.clone())));
            times.insert(name.clone(), time);
        }
        json!({"measures": measures, "dimensions": dimensions, "segments": {}, "timeDimensions": times})
    }
}

/// First day, and the day behind the last.
fn range(value: &Value, today: i64) -> Result<Option<(i64, i64)>, IndicatorError> {
    let hint = "dateRange: [\"2026-01-01\", \"2026-01-31\"], or \"last 7 days\"";
    let refuse = || wrong("a `dateRange` is not understood", hint);
    let day = |text: &str| {
        // Clients may send a time of day, which no rollup has.
        let date = text.split_once('T').map_or(text, |(date, _)| date);
        Period::named(date).filter(|it| it.grain == Grain::Day).map(Period::start).ok_or_else(refuse)
    };
    let found = match value {
        Value::Null => return Ok(None),
        Value::String(text) => match day(text) {
            Ok(day) => (day, day + 1),
            Err(error) => relative(text, today).ok_or(error)?,
        },
        Value::Array(both) => match both.as_slice() {
            [Value::String(only)] => (day(only)?, day(only)? + 1),
            [Value::String(from), Value::String(to)] => (day(from)?, day(to)? + 1),
            _ => return Err(refuse()),
        },
        _ => return Err(refuse()),
    };
    if found.0 >= found.1 {
        return Err(wrong("a `dateRange` ends before it begins", hint));
    }
    Ok(Some(found))
}

/// `today`, `yesterday`, `this month`, `last month`, `last 7 days`: whole periods before the present one.
fn relative(text: &str, today: i64) -> Option<(i64, i64)> {
    let text = text.trim().to_ascii_lowercase();
    let of = |period: Period| (period.start(), period.end());
    match text.as_str() {
        "today" => return Some((today, today + 1)),
        "yesterday" => return Some((today - 1, today)),
        _ => {}
    }
    let (word, rest) = text.split_once(' ')?;
    match (word, Grain::named(rest.trim_end_matches('s')), Span::parse(rest)) {
        ("this", Some(grain), _) => Some(of(Period::containing(grain, today))),
        ("last", Some(grain), _) => Some(of(Period::containing(grain, today).previous())),
        ("last", None, Some(span)) => {
            let now = Period::containing(span.unit, today);
            Some((now.back(span.count).start(), now.start()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_days_and_words() {
        let at = |text: &str| Period::named(text).unwrap().start();
        let today = at("2026-11-28");
        for (text, from, to) in [
            ("today", "2026-11-28", "2026-11-29"),
            ("Yesterday", "2026-11-27", "2026-11-28"),
            ("this month", "2026-11-01", "2026-12-01"),
            ("last quarter", "2026-07-01", "2026-10-01"),
            ("last 7 days", "2026-11-21", "2026-11-28"),
            ("last 2 weeks", "2026-11-09", "2026-11-23"),
        ] {
            assert_eq!(relative(text, today), Some((at(from), at(to))), "{text}");
        }
        for text in ["", "last", "next month", "last x days", "last 7 days;"] {
            assert_eq!(relative(text, today), None, "{text}");
        }
        assert!(range(&json!(["2026-02-01", "2026-01-01"]), 0).is_err());
        assert!(range(&json!(["2026-02-01", "2026-13-01"]), 0).is_err());
        assert_eq!(
            range(&json!(["2026-02-01T00:00:00.000", "2026-02-02"]), 0).unwrap(),
            Some((at("2026-02-01"), at("2026-02-03")))
        );
    }

    #[test]
    fn an_order_keeps_its_order() {
        let read = |text: &str| serde_json::from_str::<Order>(text).unwrap().0;
        assert_eq!(read(r#"{"b.x": "desc", "a.y": "asc"}"#), [("b.x".into(), true), ("a.y".into(), false)]);
        assert_eq!(
            read(r#"[["b.x", "DESC"], ["a.y", "asc"]]"#),
            [("b.x".into(), true), ("a.y".into(), false)]
        );
    }
}
