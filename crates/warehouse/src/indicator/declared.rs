//! What all files of `indicators/` declare together: every mistake at once, or metrics down to the parts that rollups keep.

use super::config::{
    Agg, Dimension, DimensionType, IndicatorFile, Light, Measure, Metric, MetricStatus, MetricType,
    SemanticModel,
};
use super::figure::{Formula, When};
use super::period::{Grain, Period, Span};
use base::near::nearest;
use expr::Expression;
use expr::decimal::Decimal;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Metrics inside one another.
const DEPTH_MAX: usize = 16;
/// Parts of one metric, and parts of its parts.
const NODES_MAX: usize = 256;
/// Dimensions of a metric that counts distinct values: each set of them is kept.
const DISTINCT_DIMENSIONS_MAX: usize = 4;
/// Dimensions of a model's rollups.
const DIMENSIONS_MAX: usize = 16;
/// Names that rollups use themselves.
const RESERVED: [&str; 3] = ["period", "grain", "by_dimensions"];
/// What conditions of thresholds name.
pub const THRESHOLD_NAMES: [&str; 6] = ["value", "target", "previous", "last_year", "mom", "yoy"];

/// Something wrong in a file; the first name in backquotes says where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub path: String,
    pub message: String,
    pub hint: String,
}

/// A table with its rollups.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    pub path: String,
    pub description: String,
    pub table: String,
    pub time_name: String,
    pub time_label: String,
    /// The expression of its time.
    pub time: String,
    pub granularity: Grain,
    pub dimensions: Vec<Dim>,
    pub parts: Vec<Part>,
    /// Each has a rollup; the first is what the others are made of.
    pub grains: Vec<Grain>,
    /// Dimensions of the rollups.
    pub offered: BTreeSet<usize>,
    /// What distinct values are counted by.
    pub groupings: BTreeMap<(Grain, Vec<usize>), BTreeSet<usize>>,
    /// A digest of the SQL that builds its rollups.
    pub definition: String,
}

/// What rows are told apart by, besides their time.
#[derive(Clone, Debug)]
pub struct Dim {
    pub name: String,
    pub label: String,
    pub description: String,
    pub expr: String,
}

/// What is kept of a measure, over all rows or those of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its columns begin with it.
    pub stem: String,
    pub measure: String,
    pub agg: Agg,
    pub expr: String,
    pub filter: Option<String>,
}

/// How a metric is computed from parts.
#[derive(Clone, Debug)]
pub enum Node {
    Part { model: usize, part: usize, fill: Option<Decimal>, reach: Option<Reach> },
    Ratio(Box<Node>, Box<Node>),
    Derived { formula: Arc<Formula>, inputs: Vec<(Node, Option<Span>)> },
}

/// Where the span of a cumulative metric begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    All,
    Window(Span),
    ToDate(Grain),
}

/// A metric that was understood.
#[derive(Clone, Debug)]
pub struct Declared {
    pub config: Metric,
    pub path: String,
    pub code: String,
    pub label: String,
    /// None of a retired one.
    pub node: Option<Node>,
    pub models: Vec<usize>,
    pub dimensions: Vec<String>,
    pub grains: Vec<Grain>,
    pub thresholds: Vec<(Light, When)>,
    /// Whether members add up to the whole.
    pub additive: bool,
}

/// All of a project.
#[derive(Clone, Debug, Default)]
pub struct Indicators {
    pub models: Vec<Model>,
    /// By their codes.
    pub metrics: BTreeMap<String, Declared>,
    /// What day it is: the project's time zone, UTC by default.
    pub zone: Option<TimeZone>,
}

/// A name of ours: a column or a part of a table's name.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (1..=40).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(plain)
        && !name.contains("__")
}

fn is_table(name: &str) -> bool {
    let plain = |part: &str| {
        (1..=64).contains(&part.len()) && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
    };
    name.split('.').count() <= 2 && name.split('.').all(plain)
}

fn is_code(code: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (1..=64).contains(&code.len()) && code.chars().all(plain)
}

fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let there_are =
        if known.is_empty() { "there are none".into() } else { format!("there are: {}", known.join(", ")) };
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {there_are}"),
        None => there_are,
    }
}

const NAME_HINT: &str = "small letters, digits and single `_`, beginning with a letter, at most 40";

/// What is read, while it is read.
#[derive(Default)]
struct Reader {
    models: Vec<Model>,
    /// Model, measure.
    measures: BTreeMap<String, (usize, Measure)>,
    metrics: BTreeMap<String, (String, Metric)>,
    mistakes: Vec<Mistake>,
}

impl Indicators {
    /// Today by the project's clock, as days since 1970.
    pub fn today(&self) -> i64 {
        let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
        let day = Timestamp::now().to_zoned(zone).date();
        day.duration_since(jiff::civil::date(1970, 1, 1)).as_hours() / 24
    }

    /// Reads what files declare, each with its path.
    pub fn new(files: &[(String, IndicatorFile)]) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader::default();
        for (path, file) in files {
            for model in &file.semantic_models {
                reader.model(path, model);
            }
        }
        for (path, file) in files {
            for metric in &file.metrics {
                if !is_name(&metric.name) {
                    reader.mistake(path, format!("`{}` is not a name", metric.name), NAME_HINT);
                } else if reader.metrics.contains_key(&metric.name) {
                    let message = format!("there are two metrics `{}`", metric.name);
                    reader.mistake(path, message, "give one of them another name");
                } else {
                    reader.metrics.insert(metric.name.clone(), (path.clone(), metric.clone()));
                }
            }
        }
        let mut metrics = BTreeMap::new();
        for (path, metric) in reader.metrics.values().cloned().collect::<Vec<_>>() {
            let Some(declared) = reader.metric(&path, metric) else { continue };
            let code = declared.code.clone();
            if metrics.insert(code.clone(), declared).is_some() {
                let message = format!("two metrics have the code `{code}`");
                reader.mistake(&path, message, "give one of them another code");
            }
        }
        if !reader.mistakes.is_empty() {
            // What several metrics stand on is told once.
            let mut told = BTreeSet::new();
            reader.mistakes.retain(|it| told.insert((it.path.clone(), it.message.clone())));
            return Err(reader.mistakes);
        }
        let mut models = reader.models;
        for model in &mut models {
            model.definition = model.digest();
        }
        Ok(Self { models, metrics, zone: None })
    }
}

impl Reader {
    fn mistake(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.mistakes.push(Mistake { path: path.to_owned(), message: message.into(), hint: hint.into() });
    }

    /// An expression must be one, so that it stays inside its place.
    fn expression(&mut self, path: &str, of: &str, text: &str) {
        if let Err(refusal) = Expression::parse(text) {
            let message = format!("`{of}`: the expression `{text}` is not understood: {}", refusal.message);
            self.mistake(path, message, refusal.hint);
        }
    }

    fn model(&mut self, path: &str, model: &SemanticModel) {
        let name = &model.name;
        if !is_name(name) {
            return self.mistake(path, format!("`{name}` is not a name"), NAME_HINT);
        }
        if self.models.iter().any(|it| it.name == *name) {
            return self.mistake(
                path,
                format!("there are two models `{name}`"),
                "give one of them another name",
            );
        }
        let relation = model.node_relation.as_ref().map(|it| format!("{}.{}", it.schema_name, it.alias));
        let table = match (&model.table, relation) {
            (Some(table), None) => table.clone(),
            (None, Some(table)) => table,
            _ => {
                let message = format!("`{name}` needs one of `table` and `node_relation`");
                return self.mistake(path, message, "table: dws.dept_daily");
            }
        };
        if !is_table(&table) {
            self.mistake(path, format!("`{table}` is not the name of a table"), "table: dws.dept_daily");
        }
        let times: Vec<&Dimension> =
            model.dimensions.iter().filter(|it| it.r#type == DimensionType::Time).collect();
        let time = match &model.defaults.agg_time_dimension {
            Some(wanted) => times.iter().find(|it| it.name == *wanted),
            None => times.first(),
        };
        let Some(time) = time.copied() else {
            let message = match &model.defaults.agg_time_dimension {
                Some(wanted) => format!("`{name}` has no dimension `{wanted}` of type time"),
                None => format!("`{name}` has no dimension of type time"),
            };
            let hint = "add {name: day, type: time, type_params: {time_granularity: day}}";
            return self.mistake(path, message, hint);
        };
        let mut dimensions: Vec<Dim> = Vec::new();
        for dimension in &model.dimensions {
            let own = &dimension.name;
            if !is_name(own) || RESERVED.contains(&own.as_str()) {
                self.mistake(path, format!("`{own}` cannot be a dimension's name"), NAME_HINT);
            }
            if dimension.r#type == DimensionType::Time && dimension.type_params.is_none() {
                let message = format!("`{own}` does not say its `time_granularity`");
                self.mistake(path, message, "type_params: {time_granularity: day}");
            }
            let expr = dimension.expr.clone().unwrap_or_else(|| format!("`{own}`"));
            self.expression(path, own, &expr);
            if dimensions.iter().any(|it| it.name == *own) {
                self.mistake(path, format!("`{own}` is a dimension twice"), "remove one of them");
            }
            if !std::ptr::eq(dimension, time) {
                dimensions.push(Dim {
                    name: own.clone(),
                    label: dimension.label.clone().unwrap_or_else(|| own.clone()),
                    description: dimension.description.clone(),
                    expr,
                });
            }
        }
        let at = self.models.len();
        for measure in &model.measures {
            let own = &measure.name;
            if !is_name(own) {
                self.mistake(path, format!("`{own}` cannot be a measure's name"), NAME_HINT);
            }
            if let Some(expr) = &measure.expr {
                self.expression(path, own, expr);
            }
            if let Some((other, _)) = self.measures.insert(own.clone(), (at, measure.clone())) {
                let other = self.models.get(other).map_or(name.as_str(), |it| it.name.as_str());
                let message = format!("the measure `{own}` is one of `{other}` already");
                self.mistake(path, message, "metrics name measures alone: give it another name");
            }
        }
        self.models.push(Model {
            name: name.clone(),
            path: path.to_owned(),
            description: model.description.clone(),
            table,
            time_name: time.name.clone(),
            time_label: time.label.clone().unwrap_or_else(|| time.name.clone()),
            time: time.expr.clone().unwrap_or_else(|| format!("`{}`", time.name)),
            granularity: time.type_params.as_ref().map_or(Grain::Day, |it| it.time_granularity),
            dimensions,
            parts: Vec::new(),
            grains: Vec::new(),
            offered: BTreeSet::new(),
            groupings: BTreeMap::new(),
            definition: String::new(),
        });
    }

    fn metric(&mut self, path: &str, metric: Metric) -> Option<Declared> {
        let name = metric.name.clone();
        let code = metric.code.clone().unwrap_or_else(|| name.clone());
        if !is_code(&code) {
            self.mistake(
                path,
                format!("`{code}` cannot be a code"),
                "letters, digits, `_`, `-` and `.`, at most 64",
            );
        }
        if metric.decimals.is_some_and(|it| it > 18) {
            self.mistake(path, format!("`{name}` has too many `decimals`"), "at most 18");
        }
        let names: Vec<String> = THRESHOLD_NAMES.map(str::to_owned).to_vec();
        let mut thresholds = Vec::new();
        for threshold in &metric.thresholds {
            match When::parse(&threshold.when, &names) {
                Ok(when) => thresholds.push((threshold.status, when)),
                Err(refusal) => {
                    let message =
                        format!("`{name}`: the condition `{}`: {}", threshold.when, refusal.message);
                    self.mistake(path, message, format!("it may name {}", THRESHOLD_NAMES.join(", ")));
                }
            }
        }
        let before = self.mistakes.len();
        let mut nodes = 0;
        let node = if metric.status == MetricStatus::Retired {
            None
        } else {
            self.resolve(path, &name, &[], &mut Vec::new(), &mut nodes)
        };
        let mut declared = Declared {
            path: path.to_owned(),
            code,
            label: metric.label.clone().unwrap_or_else(|| name.clone()),
            models: Vec::new(),
            dimensions: Vec::new(),
            grains: Vec::new(),
            thresholds,
            additive: node.as_ref().is_some_and(|node| self.additive(node)),
            config: metric,
            node,
        };
        if let Some(node) = declared.node.clone() {
            collect_models(&node, &mut declared.models);
            self.offer(&mut declared, &node);
        }
        (self.mistakes.len() == before).then_some(declared)
    }

    fn additive(&self, node: &Node) -> bool {
        match node {
            Node::Part { model, part, .. } => {
                matches!(self.models[*model].parts[*part].agg, Agg::Sum | Agg::Count)
            }
            _ => false,
        }
    }

    /// A metric, or a measure, down to its parts.
    fn resolve(
        &mut self,
        path: &str,
        name: &str,
        filters: &[String],
        way: &mut Vec<String>,
        nodes: &mut usize,
    ) -> Option<Node> {
        *nodes += 1;
        if way.iter().any(|it| it == name) || way.len() > DEPTH_MAX || *nodes > NODES_MAX {
            let round = way.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(" → ");
            if *nodes <= NODES_MAX + 1 {
                let message =
                    format!("{round} → `{name}`: the metric is derived from itself, or from too many others");
                self.mistake(path, message, "derive it from measures in the end");
            }
            // Told once.
            *nodes += NODES_MAX;
            return None;
        }
        let Some((own_path, metric)) = self.metrics.get(name).cloned() else {
            return self.part(path, name, filters, None, None);
        };
        let mut filters = filters.to_vec();
        filters.extend(metric.filter.clone());
        way.push(name.to_owned());
        let node = self.of_type(&own_path, &metric, &filters, way, nodes);
        way.pop();
        node
    }

    fn of_type(
        &mut self,
        path: &str,
        metric: &Metric,
        filters: &[String],
        way: &mut Vec<String>,
        nodes: &mut usize,
    ) -> Option<Node> {
        let name = &metric.name;
        let params = &metric.type_params;
        let wants =
            |key: &str| format!("`{name}` is of type {:?} and needs `{key}`", metric.r#type).to_lowercase();
        match metric.r#type {
            MetricType::Simple | MetricType::Cumulative => {
                let Some(measure) = &params.measure else {
                    self.mistake(path, wants("measure"), "type_params: {measure: revenue}");
                    return None;
                };
                let reach = (metric.r#type == MetricType::Cumulative).then_some(
                    match (&params.window, params.grain_to_date) {
                        (None, None) => Reach::All,
                        (None, Some(grain)) => Reach::ToDate(grain),
                        (Some(window), None) => match Span::parse(window) {
                            Some(span) => Reach::Window(span),
                            None => {
                                let message = format!("`{name}`: `{window}` is not a span");
                                self.mistake(path, message, "window: 7 days");
                                return None;
                            }
                        },
                        (Some(_), Some(_)) => {
                            let message = format!("`{name}` has both `window` and `grain_to_date`");
                            self.mistake(path, message, "keep one of them");
                            return None;
                        }
                    },
                );
                let fill = params.fill_nulls_with.as_ref().map(|it| it.0.clone());
                self.part(path, measure, filters, fill, reach)
            }
            MetricType::Ratio => {
                let (Some(numerator), Some(denominator)) = (&params.numerator, &params.denominator) else {
                    self.mistake(
                        path,
                        wants("numerator` and `denominator"),
                        "type_params: {numerator: a, denominator: b}",
                    );
                    return None;
                };
                let numerator = self.resolve(path, numerator, filters, way, nodes);
                let denominator = self.resolve(path, denominator, filters, way, nodes);
                Some(Node::Ratio(Box::new(numerator?), Box::new(denominator?)))
            }
            MetricType::Derived => self.derived(path, metric, filters, way, nodes),
        }
    }

    fn derived(
        &mut self,
        path: &str,
        metric: &Metric,
        filters: &[String],
        way: &mut Vec<String>,
        nodes: &mut usize,
    ) -> Option<Node> {
        let name = &metric.name;
        let params = &metric.type_params;
        let Some(text) = params.expr.as_ref().filter(|_| !params.metrics.is_empty()) else {
            let message = format!("`{name}` is of type derived and needs `expr` and `metrics`");
            self.mistake(path, message, "type_params: {expr: a - b, metrics: [{name: a}, {name: b}]}");
            return None;
        };
        let names: Vec<String> =
            params.metrics.iter().map(|it| it.alias.clone().unwrap_or_else(|| it.name.clone())).collect();
        let formula = match Formula::parse(text, &names) {
            Ok(formula) => Some(Arc::new(formula)),
            Err(refusal) => {
                let message = format!("`{name}`: the expression `{text}`: {}", refusal.message);
                self.mistake(path, message, format!("it may name {}", names.join(", ")));
                None
            }
        };
        let mut inputs = Vec::new();
        for input in &params.metrics {
            let offset = input.offset_window.as_deref().map(Span::parse);
            if let Some(None) = offset {
                let message =
                    format!("`{name}`: `{}` is not a span", input.offset_window.as_deref().unwrap_or(""));
                self.mistake(path, message, "offset_window: 1 month");
            }
            let node = self.resolve(path, &input.name, filters, way, nodes);
            inputs.push(node.map(|node| (node, offset.flatten())));
        }
        Some(Node::Derived { formula: formula?, inputs: inputs.into_iter().collect::<Option<_>>()? })
    }

    fn part(
        &mut self,
        path: &str,
        name: &str,
        filters: &[String],
        fill: Option<Decimal>,
        reach: Option<Reach>,
    ) -> Option<Node> {
        let Some((model, measure)) = self.measures.get(name).cloned() else {
            let hint = meant(name, self.measures.keys().chain(self.metrics.keys()).map(String::as_str));
            self.mistake(path, format!("there is no measure `{name}`"), hint);
            return None;
        };
        if measure.agg == Agg::CountDistinct && reach.is_some() {
            let message = format!("`{name}` counts distinct values, which no rollup adds up over a span");
            self.mistake(path, message, "count them in a model, one row a period");
            return None;
        }
        let mut conditions = Vec::new();
        for filter in filters {
            conditions.push(format!("({})", self.filter(path, model, filter)?));
        }
        let filter = (!conditions.is_empty()).then(|| conditions.join(" AND "));
        let expr = match (&measure.expr, measure.agg) {
            (Some(expr), _) => expr.clone(),
            (None, Agg::Count) => "1".into(),
            (None, _) => format!("`{name}`"),
        };
        let parts = &mut self.models[model].parts;
        let known = parts.iter().position(|it| it.measure == name && it.filter == filter);
        let part = known.unwrap_or_else(|| {
            let filtered = parts.iter().filter(|it| it.measure == name && it.filter.is_some()).count();
            let stem = if filter.is_some() { format!("{name}__f{}", filtered + 1) } else { name.to_owned() };
            parts.push(Part { stem, measure: name.to_owned(), agg: measure.agg, expr, filter });
            parts.len() - 1
        });
        Some(Node::Part { model, part, fill, reach })
    }

    /// A condition over the table: MetricFlow's `{{ Dimension('entity__name') }}` is the dimension's expression.
    fn filter(&mut self, path: &str, model: usize, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let known = &self.models[model];
            let call = after.split_once("}}").and_then(|(call, behind)| {
                let name = call.trim().strip_prefix("Dimension(")?.strip_suffix(')')?.trim();
                let name = name.trim_matches(['\'', '"']);
                let name = name.rsplit_once("__").map_or(name, |(_, name)| name);
                let dim = known.dimensions.iter().find(|it| it.name == name)?;
                Some((format!("({})", dim.expr), behind))
            });
            let Some((expr, behind)) = call else {
                let hint = meant("", known.dimensions.iter().map(|it| it.name.as_str()));
                let message = format!("the filter `{text}` names no dimension of `{}`", known.name);
                self.mistake(path, message, format!("write {{{{ Dimension('channel') }}}}; {hint}"));
                return None;
            };
            out.push_str(before);
            out.push_str(&expr);
            rest = behind;
        }
        out.push_str(rest);
        let before = self.mistakes.len();
        self.expression(path, "filter", &out);
        (self.mistakes.len() == before).then_some(out)
    }

    /// By what a metric can be asked, and what rollups must keep for it.
    fn offer(&mut self, declared: &mut Declared, node: &Node) {
        let (path, name) = (declared.path.clone(), declared.config.name.clone());
        let models: Vec<Model> = declared.models.iter().map(|at| self.models[*at].clone()).collect();
        let everywhere =
            |name: &str| models.iter().all(|model| model.dimensions.iter().any(|it| it.name == name));
        declared.dimensions = match &declared.config.dimensions {
            Some(wanted) => {
                for word in wanted.iter().filter(|it| !everywhere(it)) {
                    let known = models[0].dimensions.iter().map(|it| it.name.as_str());
                    let hint = meant(word, known.filter(|it| everywhere(it)));
                    self.mistake(&path, format!("`{name}`: there is no dimension `{word}`"), hint);
                }
                wanted.clone()
            }
            None => {
                let known = models[0].dimensions.iter().map(|it| it.name.clone());
                known.filter(|it| everywhere(it)).collect()
            }
        };
        let possible = |grain: Grain| models.iter().all(|model| model.granularity.makes(grain));
        declared.grains = match &declared.config.grains {
            Some(wanted) => {
                for grain in wanted.iter().filter(|it| !possible(**it)) {
                    let own = models.iter().map(|it| it.granularity.name()).collect::<Vec<_>>().join(", ");
                    let message = format!(
                        "`{name}` has the grain `{}`, and its table knows each {own} only",
                        grain.name()
                    );
                    let known = Grain::ALL.into_iter().filter(|it| possible(*it)).map(Grain::name);
                    let hint = format!("it can have: {}", known.collect::<Vec<_>>().join(", "));
                    self.mistake(&path, message, hint);
                }
                let mut wanted = wanted.clone();
                wanted.sort();
                wanted.dedup();
                wanted
            }
            None => Grain::ALL.into_iter().filter(|it| possible(*it)).collect(),
        };
        if declared.grains.is_empty() {
            self.mistake(&path, format!("`{name}` has no grain"), "grains: [day, month]");
            return;
        }
        for target in &declared.config.targets {
            let period = target.period.as_deref();
            if let Some(text) = period.filter(|text| Period::named(text).is_none()) {
                self.mistake(
                    &path,
                    format!("`{name}`: `{text}` is not a period"),
                    "2026, 2026-Q4, 2026-11, 2026-W48 or 2026-11-28",
                );
            }
            for word in target.dimensions.keys().filter(|it| !declared.dimensions.contains(it)) {
                let hint = meant(word, declared.dimensions.iter().map(String::as_str));
                self.mistake(
                    &path,
                    format!("`{name}`: a target is of the dimension `{word}`, which it is not offered by"),
                    hint,
                );
            }
        }
        self.keep(&path, declared, node);
    }

    fn keep(&mut self, path: &str, declared: &Declared, node: &Node) {
        match node {
            Node::Part { model: at, part, reach, .. } => {
                let model = &mut self.models[*at];
                let places: BTreeSet<usize> = declared
                    .dimensions
                    .iter()
                    .filter_map(|name| model.dimensions.iter().position(|it| it.name == *name))
                    .collect();
                let mut needed: BTreeSet<Grain> = model.grains.iter().copied().collect();
                needed.extend(&declared.grains);
                match reach {
                    Some(Reach::Window(span)) => drop(needed.insert(span.unit)),
                    Some(Reach::ToDate(grain)) => drop(needed.insert(*grain)),
                    _ => {}
                }
                let first = needed.first().copied().unwrap_or(Grain::Day);
                let base = if needed.iter().all(|it| first.makes(*it)) { first } else { Grain::Day };
                if !model.granularity.makes(base) {
                    let name = &declared.config.name;
                    let message = format!(
                        "`{name}` needs each {}, and `{}` knows each {} only",
                        base.name(),
                        model.name,
                        model.granularity.name()
                    );
                    return self.mistake(
                        path,
                        message,
                        "give the table a finer time, or the metric other grains",
                    );
                }
                needed.insert(base);
                model.grains = needed.into_iter().collect();
                if model.parts[*part].agg != Agg::CountDistinct {
                    model.offered.extend(&places);
                    if model.offered.len() > DIMENSIONS_MAX {
                        let message =
                            format!("`{}` is offered by more than {DIMENSIONS_MAX} dimensions", model.name);
                        self.mistake(path, message, "name fewer `dimensions` in its metrics");
                    }
                    return;
                }
                if places.len() > DISTINCT_DIMENSIONS_MAX {
                    let message = format!(
                        "`{}` counts distinct values by more than {DISTINCT_DIMENSIONS_MAX} dimensions",
                        declared.config.name
                    );
                    return self.mistake(path, message, "name fewer of them: dimensions: [dept]");
                }
                let places: Vec<usize> = places.into_iter().collect();
                for grain in &declared.grains {
                    for set in 0..1_u32 << places.len() {
                        let chosen = places.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
                        let key = (*grain, chosen.map(|(_, place)| *place).collect());
                        model.groupings.entry(key).or_default().insert(*part);
                    }
                }
            }
            Node::Ratio(numerator, denominator) => {
                self.keep(path, declared, numerator);
                self.keep(path, declared, denominator);
            }
            Node::Derived { inputs, .. } => {
                for (input, _) in inputs {
                    self.keep(path, declared, input);
                }
            }
        }
    }
}

/// The models of a metric, each once.
fn collect_models(node: &Node, out: &mut Vec<usize>) {
    match node {
        Node::Part { model, .. } if out.contains(model) => {}
        Node::Part { model, .. } => out.push(*model),
        Node::Ratio(numerator, denominator) => {
            collect_models(numerator, out);
            collect_models(denominator, out);
        }
        Node::Derived { inputs, .. } => inputs.iter().for_each(|(input, _)| collect_models(input, out)),
    }
}

impl Model {
    /// What the other grains are made of.
    pub fn base(&self) -> Grain {
        self.grains.first().copied().unwrap_or(Grain::Day)
    }

    pub fn dimension(&self, name: &str) -> Option<usize> {
        self.dimensions.iter().position(|it| it.name == name)
    }
}
