//! What a set of questions needs of rollups, as few queries as that takes, and what they gave.

use super::config::Agg;
use super::declared::{Indicators, Model};
use super::error::IndicatorError;
use super::figure::number_of;
use super::literal::{like_part, literal};
use super::period::{Grain, Period};
use super::rollup::{Facts, day_sql, name, part_columns, table_of};
use base::Value;
use base::value::days_of_date;
use engine::Engine;
use expr::decimal::Decimal;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeSet, HashMap};

/// Rows of one query: members by periods.
const ROWS_MAX: usize = 100_000;
/// Periods that are named one by one; more are a range.
const PERIODS_NAMED_MAX: usize = 64;
/// Queries at once.
const QUERIES_MAX: usize = 4;

/// The members of some dimensions, in their order; `None` is NULL.
pub type Members = Vec<Option<String>>;

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum At {
    Period(Period),
    /// From the first day to the one before the second.
    Days(i64, i64),
}

impl At {
    pub fn days(self) -> (i64, i64) {
        match self {
            Self::Period(period) => (period.start(), period.end()),
            Self::Days(from, to) => (from, to),
        }
    }
}

/// A condition on a dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    pub dimension: String,
    pub test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// Any of these; `None` is NULL.
    In(Vec<Option<String>>),
    NotIn(Vec<Option<String>>),
    /// Any of these inside the text: what stands before it, the text, what stands behind.
    Like {
        negated: bool,
        before: bool,
        texts: Vec<String>,
        after: bool,
    },
}

impl Filter {
    /// Whether one member passes at the most.
    fn is_one(&self) -> bool {
        matches!(&self.test, Test::In(members) if members.len() == 1)
    }

    fn sql(&self) -> Result<String, IndicatorError> {
        let column = format!("t.{}", name(&self.dimension));
        let any = |members: &[Option<String>]| -> Result<String, IndicatorError> {
            let texts: Vec<String> =
                members.iter().flatten().map(|it| literal(it)).collect::<Result<_, _>>()?;
            let mut tests = Vec::new();
            if !texts.is_empty() {
                tests.push(format!("{column} IN ({})", texts.join(", ")));
            }
            if members.iter().any(Option::is_none) {
                tests.push(format!("{column} IS NULL"));
            }
            Ok(if tests.is_empty() { "1 = 0".into() } else { tests.join(" OR ") })
        };
        Ok(match &self.test {
            Test::In(members) => format!("({})", any(members)?),
            // What is no member of the list is kept, NULL too, unless the list has it.
            Test::NotIn(members) if members.iter().any(Option::is_none) => {
                let texts: Vec<Option<String>> = members.iter().filter(|it| it.is_some()).cloned().collect();
                if texts.is_empty() {
                    return Ok(format!("{column} IS NOT NULL"));
                }
                format!("({column} IS NOT NULL AND NOT ({}))", any(&texts)?)
            }
            Test::NotIn(members) if members.is_empty() => "1 = 1".into(),
            Test::NotIn(members) => format!("({column} IS NULL OR NOT ({}))", any(members)?),
            Test::Like { negated, before, texts, after } => {
                let (before, after) = (if *before { "%" } else { "" }, if *after { "%" } else { "" });
                let tests: Vec<String> = texts
                    .iter()
                    .map(|text| Ok(format!("{column} LIKE '{before}{}{after}' ESCAPE '|'", like_part(text)?)))
                    .collect::<Result<_, IndicatorError>>()?;
                if tests.is_empty() {
                    return Ok(if *negated { "1 = 1".into() } else { "1 = 0".into() });
                }
                match negated {
                    true => format!("({column} IS NULL OR NOT ({}))", tests.join(" OR ")),
                    false => format!("({})", tests.join(" OR ")),
                }
            }
        })
    }
}

/// From which rows, told apart by what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    pub filters: Vec<Filter>,
    pub by: Vec<String>,
    /// Whether the table itself may be asked.
    pub raw: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Source {
    Rollup(Grain),
    Distinct(Grain, Vec<usize>),
    Raw(Grain, Vec<usize>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Query {
    model: usize,
    view: View,
    source: Source,
    /// A span of days; without it, periods.
    days: Option<(i64, i64)>,
}

/// The number of a part: NULL where nothing was added up, absent where no row is.
#[derive(Clone, Debug, Default)]
struct Given {
    parts: HashMap<usize, Option<Decimal>>,
}

/// Collects what is needed, asks for it once, and tells it.
pub struct Fetch<'i> {
    indicators: &'i Indicators,
    needs: HashMap<Query, (BTreeSet<Period>, BTreeSet<usize>)>,
    given: HashMap<(Query, Option<Period>), HashMap<Members, Given>>,
}

/// Rows of one query, by period.
type Answered = (Query, HashMap<Option<Period>, HashMap<Members, Given>>);

impl<'i> Fetch<'i> {
    pub fn new(indicators: &'i Indicators) -> Self {
        Self { indicators, needs: HashMap::new(), given: HashMap::new() }
    }

    fn query(&self, view: &View, model: usize, part: usize, at: At) -> Result<Query, IndicatorError> {
        let known = &self.indicators.models[model];
        let mut used = BTreeSet::new();
        for dimension in view.by.iter().chain(view.filters.iter().map(|it| &it.dimension)) {
            let place = known.dimension(dimension);
            used.insert(place.ok_or_else(|| no_dimension(known, dimension))?);
        }
        let used: Vec<usize> = used.into_iter().collect();
        let source = source(known, view, part, at, &used)?;
        let days = match at {
            At::Period(_) => None,
            At::Days(from, to) => Some((from, to)),
        };
        Ok(Query { model, view: view.clone(), source, days })
    }

    pub fn need(&mut self, view: &View, model: usize, part: usize, at: At) -> Result<(), IndicatorError> {
        let query = self.query(view, model, part, at)?;
        let (periods, parts) = self.needs.entry(query).or_default();
        if let At::Period(period) = at {
            periods.insert(period);
        }
        parts.insert(part);
        Ok(())
    }

    /// The number of a part for some members, and whether there is any row of them.
    pub fn get(
        &self,
        view: &View,
        members: &Members,
        model: usize,
        part: usize,
        at: At,
    ) -> (Option<Decimal>, bool) {
        let Ok(query) = self.query(view, model, part, at) else { return (None, false) };
        let period = match at {
            At::Period(period) => Some(period),
            At::Days(..) => None,
        };
        let given = self.given.get(&(query, period)).and_then(|rows| rows.get(members));
        match given {
            Some(given) => (given.parts.get(&part).cloned().flatten(), true),
            None => (None, false),
        }
    }

    /// Members of a view that have any row of a metric's parts at a time.
    pub fn members(&self, view: &View, at: At) -> BTreeSet<Members> {
        let period = match at {
            At::Period(period) => Some(period),
            At::Days(..) => None,
        };
        let of_view = self.given.iter().filter(|((query, when), _)| {
            query.view == *view && *when == period && (period.is_some() || query.days == Some(at.days()))
        });
        of_view.flat_map(|(_, rows)| rows.keys().cloned()).collect()
    }

    /// Asks for all that is needed.
    pub async fn run(&mut self, engine: &dyn Engine) -> Result<(), IndicatorError> {
        let mut asked = Vec::new();
        for (query, (periods, parts)) in std::mem::take(&mut self.needs) {
            let model = &self.indicators.models[query.model];
            let parts: Vec<usize> = parts.into_iter().collect();
            let sql = sql_of(model, &query, &periods, &parts)?;
            asked.push(async move { rows_of(engine, model, query, periods, &parts, &sql).await });
        }
        let answered: Vec<Answered> = stream::iter(asked).buffer_unordered(QUERIES_MAX).try_collect().await?;
        for (query, rows) in answered {
            for (period, members) in rows {
                self.given.insert((query.clone(), period), members);
            }
        }
        Ok(())
    }
}

fn no_dimension(model: &Model, wanted: &str) -> IndicatorError {
    let known: Vec<&str> = model.dimensions.iter().map(|it| it.name.as_str()).collect();
    IndicatorError::invalid(
        format!("`{}` has no dimension `{wanted}`", model.name),
        format!("there are: {}", known.join(", ")),
    )
}

fn source(model: &Model, view: &View, part: usize, at: At, used: &[usize]) -> Result<Source, IndicatorError> {
    let grain = match at {
        At::Period(period) => period.grain,
        At::Days(..) => model.base(),
    };
    let names = || model.set_name(used);
    if model.parts[part].agg == Agg::CountDistinct {
        let measure = &model.parts[part].measure;
        if matches!(at, At::Days(..)) {
            return Err(IndicatorError::unanswerable(
                format!("`{measure}` counts distinct values, which no rollup adds up over a span"),
                "ask for whole periods",
            ));
        }
        let several = view.filters.iter().find(|it| !it.is_one() && !view.by.contains(&it.dimension));
        if let Some(filter) = several {
            return Err(IndicatorError::unanswerable(
                format!(
                    "`{measure}` counts distinct values, which cannot be added up over several members of `{}`",
                    filter.dimension
                ),
                "ask by that dimension, or for one member",
            ));
        }
        let key = (grain, used.to_vec());
        if model.groupings.get(&key).is_some_and(|parts| parts.contains(&part)) {
            return Ok(Source::Distinct(grain, used.to_vec()));
        }
        return raw(model, view, grain, used, || {
            format!("no rollup has `{measure}` each {} by `{}`", grain.name(), names())
        });
    }
    let missing: Vec<&str> = used
        .iter()
        .filter(|place| !model.offered.contains(place))
        .map(|place| model.dimensions[*place].name.as_str())
        .collect();
    if !missing.is_empty() {
        return raw(model, view, grain, used, || {
            format!("no rollup of `{}` has the dimension `{}`", model.name, missing.join("`, `"))
        });
    }
    let (from, to) = at.days();
    let whole = |day: i64| Period::containing(grain, day).start() == day;
    match at {
        At::Period(_) if !model.grains.contains(&grain) => raw(model, view, grain, used, || {
            format!("no rollup of `{}` has the grain `{}`", model.name, grain.name())
        }),
        At::Days(..) if !whole(from) || !whole(to) => Err(IndicatorError::unanswerable(
            format!(
                "the rollups of `{}` know each {} only, and the days begin or end inside of one",
                model.name,
                grain.name()
            ),
            "ask for whole periods",
        )),
        _ => Ok(Source::Rollup(grain)),
    }
}

fn raw(
    model: &Model,
    view: &View,
    grain: Grain,
    used: &[usize],
    message: impl Fn() -> String,
) -> Result<Source, IndicatorError> {
    if view.raw && model.granularity.makes(grain) {
        return Ok(Source::Raw(grain, used.to_vec()));
    }
    let hint = "declare it in `grains` or `dimensions` of the metric, or set `allow_raw: true` there";
    Err(IndicatorError::unanswerable(message(), hint))
}

fn sql_of(
    model: &Model,
    query: &Query,
    periods: &BTreeSet<Period>,
    parts: &[usize],
) -> Result<String, IndicatorError> {
    let mut tests = Vec::new();
    let within = match (query.days, periods.first(), periods.last()) {
        (Some(days), ..) => Some(days),
        (None, Some(first), Some(last)) => Some((first.start(), last.end())),
        _ => None,
    };
    let from = match &query.source {
        Source::Rollup(grain) => name(&table_of(model, grain.name())),
        Source::Distinct(grain, set) => {
            tests.push(format!(
                "t.`grain` = '{}' AND t.`by_dimensions` = '{}'",
                grain.name(),
                model.set_name(set)
            ));
            name(&table_of(model, "distinct"))
        }
        Source::Raw(grain, set) => {
            let facts = Facts { model, grain: *grain, dimensions: set, parts, days: within };
            format!("({})", facts.sql())
        }
    };
    if query.days.is_none() && periods.len() <= PERIODS_NAMED_MAX {
        let days: Vec<String> = periods.iter().map(|it| day_sql(it.start())).collect();
        tests.push(format!("t.`period` IN ({})", days.join(", ")));
    } else if let Some((from, to)) = within {
        tests.push(format!("t.`period` >= {} AND t.`period` < {}", day_sql(from), day_sql(to)));
    }
    for filter in &query.view.filters {
        tests.push(filter.sql()?);
    }
    let mut groups = Vec::new();
    if query.days.is_none() {
        groups.push("t.`period`".to_owned());
    }
    groups.extend(query.view.by.iter().map(|dim| format!("t.{}", name(dim))));
    let mut columns = groups.clone();
    columns.push("COUNT(*) AS `n`".into());
    for at in parts {
        let part = &model.parts[*at];
        if part.agg == Agg::CountDistinct {
            columns.push(format!("MAX(t.{}) AS `c{at}`", name(&format!("{}__distinct", part.stem))));
        }
        for (place, (column, _, merge)) in part_columns(part).into_iter().enumerate() {
            columns.push(format!("{merge}(t.{}) AS `c{at}_{place}`", name(&column)));
        }
    }
    let group = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
    Ok(format!("SELECT {} FROM {from} AS t WHERE {}{group}", columns.join(", "), tests.join(" AND ")))
}

async fn rows_of(
    engine: &dyn Engine,
    model: &Model,
    query: Query,
    periods: BTreeSet<Period>,
    parts: &[usize],
    sql: &str,
) -> Result<Answered, IndicatorError> {
    let mut result = engine.query(sql).await?;
    let mut answered: HashMap<Option<Period>, HashMap<Members, Given>> = HashMap::new();
    let grain = periods.first().map(|it| it.grain);
    let mut count = 0;
    while let Some(batch) = result.next().await? {
        count += batch.len();
        if count > ROWS_MAX {
            return Err(IndicatorError::unanswerable(
                format!("the answer has more than {ROWS_MAX} rows"),
                "ask for fewer periods or members",
            ));
        }
        for row in batch {
            let mut cells = row.iter();
            let period = match (grain, query.days) {
                (Some(grain), None) => match cells.next() {
                    Some(Value::Date(date)) => Some(Period::containing(grain, days_of_date(*date))),
                    _ => continue,
                },
                _ => None,
            };
            let members: Members = cells.by_ref().take(query.view.by.len()).map(member_of).collect();
            if matches!(cells.next(), None | Some(Value::Int(0) | Value::UInt(0))) {
                continue;
            }
            let mut given = Given::default();
            for at in parts {
                let number = match model.parts[*at].agg {
                    Agg::Average => {
                        let sum = cells.next().and_then(number_of);
                        let count = cells.next().and_then(number_of);
                        sum.zip(count).and_then(|(sum, count)| sum.divided_by(&count))
                    }
                    _ => cells.next().and_then(number_of),
                };
                given.parts.insert(*at, number);
            }
            answered.entry(period).or_default().insert(members, given);
        }
    }
    Ok((query, answered))
}

fn member_of(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Bytes(bytes) | Value::RawText(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}
