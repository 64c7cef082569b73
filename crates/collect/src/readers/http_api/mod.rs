//! `kind: http` with `url`: tables that an HTTP API answers as JSON, page by page.
//!
//! An answer of status 200 is not believed: it must say of itself what `ok` wants, hold rows where `rows` points, and be another
//! one than the page before. A read ends after `pages_max` pages with an error, never in silence.

mod call;
mod path;
mod sign;

use super::cell::{STOPPED, Visitor};
use super::config::{HttpApiConfig, HttpMethod, HttpTable, PagingStyle};
use super::outlet::{Outlet, Selection, Survey};
use super::{infer, json};
use crate::reader::{Batches, Described, ReadError, Reader, Scope, batches};
use async_trait::async_trait;
use base::Value;
use call::{Call, Caller};
use hyper::{HeaderMap, Method};
use path::Path;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Pages of one read, where the table says nothing else.
const PAGES_MAX: u32 = 10_000;

/// An API that is named; it is asked when a table is.
pub struct HttpApi {
    config: Arc<HttpApiConfig>,
    project: std::path::PathBuf,
}

impl HttpApi {
    pub fn new(config: HttpApiConfig, project: &std::path::Path) -> Self {
        Self { config: Arc::new(config), project: project.to_owned() }
    }

    /// What is wrong in the configuration, without asking anyone.
    pub fn check(config: &HttpApiConfig, project: &std::path::Path) -> Result<(), String> {
        let config = Arc::new(config.clone());
        Caller::new(Arc::clone(&config), project)?;
        config.tables.values().try_for_each(|table| Plan::of(table).map(|_| ()))
    }

    fn table(&self, name: &str) -> Result<HttpTable, ReadError> {
        self.config.tables.get(name).cloned().ok_or_else(|| ReadError::NoTable(name.to_owned()))
    }

    fn pages(&self, name: &str, cursor: Option<String>) -> Result<Pages, ReadError> {
        let table = self.table(name)?;
        let wrong = |wrong: String| {
            ReadError::bad(format!("{name}: {wrong}"), format!("see `tables: {{{name}: …}}` of the source"))
        };
        let plan = Plan::of(&table).map_err(wrong)?;
        let caller = Caller::new(Arc::clone(&self.config), &self.project).map_err(wrong)?;
        Ok(Pages {
            name: name.to_owned(),
            table,
            plan,
            caller,
            cursor,
            number: 0,
            offset: 0,
            next: None,
            seen: HashSet::new(),
            last: 0,
        })
    }
}

#[async_trait]
impl Reader for HttpApi {
    async fn tables(&mut self) -> Result<Vec<String>, ReadError> {
        Ok(self.config.tables.keys().cloned().collect())
    }

    async fn describe(&mut self, name: &str) -> Result<Described, ReadError> {
        let table = self.table(name)?;
        let hint = || format!("see `tables: {{{name}: …}}` of the source");
        let mut survey = Survey::new(&table.date_formats);
        if table.only_declared {
            for column in table.columns.keys() {
                survey.column(column)?;
            }
        } else {
            let mut pages = self.pages(name, None)?;
            for _ in 0..table.pages_described.max(1) {
                let Some(page) = pages.next_page().await? else { break };
                page.tell(&table.nulls, &mut survey)?;
            }
        }
        let columns = survey
            .columns(&table.columns)
            .map_err(|wrong| ReadError::bad(format!("{name}: {wrong}"), hint()))?;
        if columns.is_empty() {
            return Err(ReadError::bad(
                format!("{name} has no rows now, and its columns cannot be told"),
                "declare them: `columns` with `only_declared: true`",
            ));
        }
        if let Some(missing) =
            table.key.iter().find(|key| !columns.iter().any(|it| it.name.eq_ignore_ascii_case(key)))
        {
            return Err(ReadError::bad(
                format!("{name}: `key` names `{missing}`, which the table has not"),
                hint(),
            ));
        }
        Ok(Described { table: name.to_owned(), columns, key: table.key })
    }

    /// Rows come as the API gives them.
    fn in_order(&self) -> bool {
        false
    }

    async fn read(&mut self, table: &Described, scope: Scope) -> Result<Batches, ReadError> {
        let options = self.table(&table.table)?;
        let selection = Selection::new(table, &scope)?;
        let cursor = match scope {
            Scope::From { value: Some(value), .. } => {
                let text = cursor_text(&value, options.cursor_format.as_deref());
                Some(text.map_err(|wrong| {
                    ReadError::bad(format!("{}: {wrong}", table.table), "look at `cursor_format`")
                })?)
            }
            _ => None,
        };
        let mut pages = self.pages(&table.table, cursor)?;
        let table = table.clone();
        let (sender, receiver) = batches();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let mut outlet = Outlet::new(&sender, &table, selection, &options.date_formats);
            let mut read = || {
                while let Some(page) = runtime.block_on(pages.next_page())? {
                    page.tell(&options.nulls, &mut outlet)?;
                    outlet.flush()?;
                }
                Ok(())
            };
            let result = read();
            // Who went away does not want to know how it ended.
            if result != Err(ReadError::Internal(STOPPED.to_owned())) {
                sender.end_blocking(result);
            }
        });
        Ok(receiver)
    }
}

/// A table's configuration, read.
struct Plan {
    rows: Path,
    ok: Option<(Path, String, Option<Path>)>,
    next: Option<Path>,
}

impl Plan {
    fn of(table: &HttpTable) -> Result<Self, String> {
        let ok = match &table.ok {
            None => None,
            Some(ok) => Some((
                Path::parse(&ok.path)?,
                ok.equals.clone(),
                ok.message.as_deref().map(Path::parse).transpose()?,
            )),
        };
        let next = table.paging.next.as_deref().map(Path::parse).transpose()?;
        if next.is_none() && matches!(table.paging.style, PagingStyle::Cursor | PagingStyle::NextUrl) {
            return Err("`paging` needs `next`: where an answer says how to go on, `$.next`".to_owned());
        }
        if table.body.is_some() && (table.method != HttpMethod::Post || table.form) {
            return Err("`body` is of `method: POST`, without `form`".to_owned());
        }
        if table.form && table.method != HttpMethod::Post {
            return Err("`form` is of `method: POST`".to_owned());
        }
        for text in table.columns.values() {
            infer::declared(text)?;
        }
        Ok(Self { rows: Path::parse(&table.rows)?, ok, next })
    }
}

/// How the next page is asked for, where an answer said it.
enum Next {
    Cursor(String),
    Url(String),
    End,
}

/// The pages of one read.
struct Pages {
    name: String,
    table: HttpTable,
    plan: Plan,
    caller: Caller,
    cursor: Option<String>,
    /// Pages that were read, and rows in them.
    number: u32,
    offset: u64,
    next: Option<Next>,
    /// Hashes of cursors and URLs that were followed.
    seen: HashSet<u64>,
    /// Hash of the last page's rows.
    last: u64,
}

/// The rows of an answer.
struct Page {
    number: u32,
    rows: Vec<Box<RawValue>>,
}

impl Page {
    fn tell(&self, nulls: &[String], visitor: &mut dyn Visitor) -> Result<(), ReadError> {
        visitor.enter(&format!("page {}, item ", self.number));
        for (at, row) in self.rows.iter().enumerate() {
            json::item(row.get(), at as u64 + 1, nulls, visitor)?;
        }
        Ok(())
    }
}

impl Pages {
    async fn next_page(&mut self) -> Result<Option<Page>, ReadError> {
        if matches!(self.next, Some(Next::End)) {
            return Ok(None);
        }
        let most = self.table.paging.pages_max.unwrap_or(PAGES_MAX);
        if self.number >= most {
            return Err(ReadError::bad(
                format!("{}: the API has more than {most} pages", self.name),
                "does it page for ever? If not, set `pages_max`, or a larger `size`",
            ));
        }
        let what = format!("{}, page {}", self.name, self.number + 1);
        let call = self.ask(&what)?;
        let answer = self.caller.call(&what, &call).await?;
        let body = std::str::from_utf8(&answer.body).ok().map(|text| text.trim_start_matches('\u{feff}'));
        let root = body.and_then(|body| serde_json::from_str::<&RawValue>(body).ok()).ok_or_else(|| {
            ReadError::bad(
                format!("{what}: the answer is no JSON: {}", self.caller.shown(&answer.body)),
                "look at `path`",
            )
        })?;
        self.check(&what, root, &answer.body)?;
        let rows = self.rows(&what, root, &answer.body)?;
        self.number += 1;
        self.offset += rows.len() as u64;
        self.go_on(&what, root, &answer.headers, &rows)?;
        // A page without rows is the last of those that are counted; nobody needs it.
        let counted = matches!(self.table.paging.style, PagingStyle::Page | PagingStyle::Offset);
        Ok((!(counted && rows.is_empty())).then_some(Page { number: self.number, rows }))
    }

    /// An error body with status 200 is an error.
    fn check(&self, what: &str, root: &RawValue, body: &[u8]) -> Result<(), ReadError> {
        let Some((path, wanted, message)) = &self.plan.ok else { return Ok(()) };
        let told = path.text(root);
        if told.as_deref() == Some(wanted) {
            return Ok(());
        }
        let why = message
            .as_ref()
            .and_then(|path| path.text(root))
            .map_or_else(|| self.caller.shown(body), |why| self.caller.shown(why.as_bytes()));
        let told = told.unwrap_or_else(|| "nothing".to_owned());
        Err(ReadError::bad(
            format!(
                "{what}: the API answers an error: {} where `{wanted}` means well: {why}",
                self.caller.shown(told.as_bytes())
            ),
            "ask the API's owner what it means; `ok` of the table says where it stands",
        ))
    }

    fn rows(&self, what: &str, root: &RawValue, body: &[u8]) -> Result<Vec<Box<RawValue>>, ReadError> {
        match self.plan.rows.find(root) {
            // Many say null of no rows.
            Some(found) if found.get() == "null" => Ok(Vec::new()),
            Some(found) if found.get().starts_with('[') => serde_json::from_str(found.get())
                .map_err(|error| ReadError::bad(format!("{what}: the rows cannot be read: {error}"), "")),
            Some(found) if found.get().starts_with('{') => Ok(vec![found.to_owned()]),
            _ => Err(ReadError::bad(
                format!("{what}: there are no rows at {}: {}", self.table.rows, self.caller.shown(body)),
                "`rows` says where they are, `ok` how an error is told from an answer",
            )),
        }
    }

    /// Finds out how the next page is asked for.
    fn go_on(
        &mut self,
        what: &str,
        root: &RawValue,
        headers: &HeaderMap,
        rows: &[Box<RawValue>],
    ) -> Result<(), ReadError> {
        let paging = &self.table.paging;
        let told = || {
            self.plan
                .next
                .as_ref()
                .and_then(|path| path.text(root))
                .filter(|it| !it.is_empty() && it != "false")
        };
        let next = match paging.style {
            PagingStyle::None => Next::End,
            PagingStyle::Page | PagingStyle::Offset => {
                let hash = hash_of(&rows.iter().map(|row| row.get()).collect::<Vec<_>>());
                if !rows.is_empty() && std::mem::replace(&mut self.last, hash) == hash && self.number > 1 {
                    return Err(ReadError::bad(
                        format!("{what} is the page before it once more"),
                        "the API does not look at the page's parameter: is `parameter` of `paging` right?",
                    ));
                }
                let short = paging.size.is_some_and(|size| rows.len() < size as usize);
                if rows.is_empty() || short {
                    self.next = Some(Next::End);
                }
                return Ok(());
            }
            PagingStyle::Cursor => told().map_or(Next::End, Next::Cursor),
            PagingStyle::NextUrl => told().map_or(Next::End, Next::Url),
            PagingStyle::LinkHeader => next_link(headers).map_or(Next::End, Next::Url),
        };
        if let Next::Cursor(text) | Next::Url(text) = &next
            && !self.seen.insert(hash_of(text))
        {
            return Err(ReadError::bad(
                format!("{what}: the API goes on where it was before: it pages for ever"),
                "is `next` of `paging` right? Its owner must mend it otherwise",
            ));
        }
        self.next = Some(next);
        Ok(())
    }

    /// What asks for the next page.
    fn ask(&self, what: &str) -> Result<Call, ReadError> {
        let (table, paging) = (&self.table, &self.table.paging);
        let first = paging.first.unwrap_or(1);
        let page = (u64::from(first) + u64::from(self.number)).to_string();
        let cursor = match &self.next {
            Some(Next::Cursor(text)) => Some(text.as_str()),
            _ => None,
        };
        let known = |name: &str| match name {
            "cursor" => self.cursor.clone(),
            "page" => Some(page.clone()),
            "offset" => Some(self.offset.to_string()),
            "size" => paging.size.map(|size| size.to_string()),
            "next" => cursor.map(str::to_owned),
            _ => None,
        };
        let method = if table.method == HttpMethod::Post { Method::POST } else { Method::GET };
        let body = table
            .body
            .as_ref()
            .map(|body| filled_json(body, &known).unwrap_or(serde_json::Value::Null).to_string());
        let (path, mut query) = match &self.next {
            Some(Next::Url(url)) => {
                let (path, query) = self.caller.follow(url).map_err(|wrong| {
                    ReadError::bad(
                        format!("{what}: the URL that the API names cannot be followed: {wrong}"),
                        "",
                    )
                })?;
                let path = if path.is_empty() { self.caller.path(&table.path) } else { path };
                return Ok(Call { method, path, query, body, form: table.form });
            }
            _ => {
                let path = fill(&table.path, &|name| known(name).map(|text| dial::http::escaped(&text)));
                let query = table
                    .query
                    .iter()
                    .filter_map(|(name, text)| Some((name.clone(), fill_all(text, &known)?)));
                (self.caller.path(&path), query.collect::<Vec<_>>())
            }
        };
        let in_body = |name: &str| table.body.as_ref().is_some_and(|body| body.to_string().contains(name));
        let parameter = |default: &str| paging.parameter.clone().unwrap_or_else(|| default.to_owned());
        match paging.style {
            PagingStyle::Page if !in_body("{page}") => query.push((parameter("page"), page)),
            PagingStyle::Offset if !in_body("{offset}") => {
                query.push((parameter("offset"), self.offset.to_string()))
            }
            PagingStyle::Cursor if !in_body("{next}") => {
                query.extend(cursor.map(|cursor| (parameter("cursor"), cursor.to_owned())));
            }
            _ => {}
        }
        if let (Some(name), Some(size)) = (&paging.size_parameter, paging.size) {
            query.push((name.clone(), size.to_string()));
        }
        Ok(Call { method, path, query, body, form: table.form })
    }
}

fn hash_of(it: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    it.hash(&mut hasher);
    hasher.finish()
}

/// A text with `{name}` replaced by what is known; braces around anything else stay.
fn fill(text: &str, known: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        let end = rest[at..].find('}').map(|length| at + length);
        match end.and_then(|end| Some((end, known(&rest[at + 1..end])?))) {
            Some((end, value)) => {
                out.push_str(&value);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('{');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

/// The same; `None` where a value is wanted that is not there now: the cursor of a first run, the next of a first page.
fn fill_all(text: &str, known: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let missing = ["cursor", "next", "size"]
        .iter()
        .any(|name| text.contains(&format!("{{{name}}}")) && known(name).is_none());
    (!missing).then(|| fill(text, known))
}

/// A body with its texts filled; members whose value is not there are left out.
fn filled_json(
    value: &serde_json::Value,
    known: &dyn Fn(&str) -> Option<String>,
) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    Some(match value {
        Json::String(text) => {
            let filled = fill_all(text, known)?;
            match (text.as_str(), filled.parse::<u64>()) {
                ("{page}" | "{offset}" | "{size}", Ok(number)) => Json::from(number),
                _ => Json::String(filled),
            }
        }
        Json::Array(items) => Json::Array(items.iter().filter_map(|item| filled_json(item, known)).collect()),
        Json::Object(members) => Json::Object(
            members
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), filled_json(value, known)?)))
                .collect(),
        ),
        other => other.clone(),
    })
}

/// The URL of `Link: <…>; rel="next"`.
fn next_link(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(hyper::header::LINK).into_iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|value| value.split(",")).find_map(|link| {
        let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = rest.split(';').any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next"));
        next.then(|| url.to_owned())
    })
}

/// A cursor's value as a request writes it.
fn cursor_text(value: &Value, format: Option<&str>) -> Result<String, String> {
    let moment = match value {
        Value::Date(date) => Some(base::DateTime { date: *date, ..base::DateTime::default() }),
        Value::DateTime(it) => Some(*it),
        Value::Timestamp(micros) => Some(base::value::timestamp_to_datetime(*micros)),
        _ => None,
    };
    if let (Some(moment), Some(format)) = (moment, format) {
        let micros = base::value::datetime_to_timestamp(moment);
        let at = jiff::Timestamp::from_microsecond(micros).map_err(|error| error.to_string())?;
        let text = jiff::fmt::strtime::format(format, &at.to_zoned(jiff::tz::TimeZone::UTC));
        return text.map_err(|error| format!("`cursor_format`: {error}"));
    }
    Ok(match value {
        Value::Int(it) => it.to_string(),
        Value::UInt(it) => it.to_string(),
        Value::Double(it) => base::value::format_double(*it),
        Value::Decimal(text) | Value::Text(text) => text.clone(),
        Value::Date(it) => it.to_string(),
        Value::Time(micros) => base::value::format_time(*micros, 0),
        Value::DateTime(it) => base::value::format_datetime(*it, if it.micro == 0 { 0 } else { 6 }),
        Value::Timestamp(micros) => {
            base::value::format_timestamp(*micros, if micros % 1_000_000 == 0 { 0 } else { 6 })
        }
        other => return Err(format!("{other:?} cannot be a cursor")),
    })
}
