//! Hashes and JSON strings of Redis.

use super::document::{cells_of_text, described, key_values, key_values_of_texts, unreadable};
use super::{Copy, Cursor, Described, of_sink};
use crate::config::{FlowConfig, RedisType, SinkConfig};
use crate::sinks::json::put_row;
use crate::sinks::redis::plan::{Image, Plan};
use crate::sinks::redis::read::{Reader, Stored};
use crate::verify::{Cells, KEYS_PER_QUERY, Key, Pair, Sum, VerifyError, unsupported};
use async_trait::async_trait;
use base::{Table, TableName, Value};
use std::collections::HashMap;
use std::sync::Arc;

pub struct Keys {
    reader: Reader,
    plans: HashMap<TableName, Plan>,
}

impl Keys {
    pub async fn connect(
        source: &str,
        flow_name: &str,
        sink: &SinkConfig,
        flow: &FlowConfig,
    ) -> Result<Self, VerifyError> {
        let why = match flow.options.r#type.unwrap_or_default() {
            RedisType::Set | RedisType::Zset => {
                Some("a set has members, and which row a member is of cannot be told")
            }
            RedisType::Stream | RedisType::Pubsub => Some("a stream or channel has changes, not rows"),
            _ if flow.options.ttl.is_some() => Some("rows with a `ttl` end by themselves"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(unsupported(format!("the sink `{}` cannot be compared: {why}", flow.to)));
        }
        let url = sink.url.as_ref().ok_or_else(super::placeless)?;
        let reader = Reader::connect(flow_name, source, url, &flow.options).await.map_err(of_sink)?;
        Ok(Self { reader, plans: HashMap::new() })
    }

    fn image(&self, pair: &Pair, row: &[Value]) -> Option<(Vec<u8>, Image)> {
        self.plans[&pair.target().name].image(self.reader.options.kind, pair.target(), row)
    }

    /// Why keys that are too much cannot be told.
    fn blind(&self, pair: &Pair) -> Option<String> {
        let prefix = self.prefix(pair);
        let alike = |plan: &Plan| prefix.starts_with(&plan.key.prefix) || plan.key.prefix.starts_with(prefix);
        let other = self.plans.iter().find(|(name, plan)| **name != pair.target().name && alike(plan));
        let from = match other {
            _ if prefix.is_empty() => "others: the flow's `key` begins with a column".to_owned(),
            Some((other, _)) => format!("those of `{other}`"),
            None => return None,
        };
        Some(format!("rows that are too much were not looked for: keys cannot be told from {from}"))
    }

    fn prefix(&self, pair: &Pair) -> &[u8] {
        &self.plans[&pair.target().name].key.prefix
    }
}

#[async_trait]
impl Copy for Keys {
    async fn describe(&mut self, table: &Arc<Table>) -> Result<Described, VerifyError> {
        let plan = self.reader.plan(table).map_err(of_sink)?;
        self.plans.insert(table.name.clone(), plan);
        Ok(described(table))
    }

    fn note(&mut self, table: &Arc<Table>) {
        if let Ok(plan) = self.reader.plan(table) {
            self.plans.insert(table.name.clone(), plan);
        }
    }

    fn key(&self, pair: &Pair, row: &[Value]) -> Key {
        let values = pair.key_values(row);
        match self.image(pair, row) {
            Some((place, _)) => Key { text: name(&place), values, place, routing: None },
            None => Key::nowhere(pair, values),
        }
    }

    fn expected(&self, pair: &Pair, row: &[Value]) -> Cells {
        match self.image(pair, row) {
            Some((_, image)) => cells(pair.target(), &image),
            None => {
                let mut text = Vec::new();
                put_row(&mut text, pair.target(), row);
                cells_of_text(pair.target(), &text)
            }
        }
    }

    async fn rows(&mut self, pair: &Pair, keys: &[&Key]) -> Result<HashMap<String, Cells>, VerifyError> {
        let placed: Vec<&&Key> = keys.iter().filter(|key| !key.place.is_empty()).collect();
        let places: Vec<&[u8]> = placed.iter().map(|key| &key.place[..]).collect();
        let found = self.reader.get(&places).await.map_err(of_sink)?;
        let mut out = HashMap::with_capacity(found.len());
        for (key, stored) in placed.into_iter().zip(found) {
            let cells = match stored {
                Stored::Nothing => continue,
                Stored::Row(image) => cells(pair.target(), &image),
                Stored::Other => unreadable(pair.target(), "a value of another type"),
            };
            out.insert(key.text.clone(), cells);
        }
        Ok(out)
    }

    async fn keys(
        &mut self,
        pair: &Pair,
        after: Option<Cursor>,
        limit: u64,
    ) -> Result<(Vec<Key>, Option<Cursor>), VerifyError> {
        let prefix = self.prefix(pair).to_owned();
        if self.blind(pair).is_some() {
            return Ok((Vec::new(), None));
        }
        let from = match after {
            Some(Cursor::Scan(from)) => from,
            _ => 0,
        };
        let table = pair.target();
        let (places, next) = self.reader.scan(&prefix, from, limit).await.map_err(of_sink)?;
        let mut keys = Vec::with_capacity(places.len());
        for part in places.chunks(KEYS_PER_QUERY) {
            let names: Vec<&[u8]> = part.iter().map(Vec::as_slice).collect();
            let found = self.reader.get(&names).await.map_err(of_sink)?;
            for (place, stored) in part.iter().zip(found) {
                let values = match stored {
                    // Gone since: no row of anyone.
                    Stored::Nothing => continue,
                    Stored::Row(Image::Hash(fields)) => {
                        key_values_of_texts(table, |name| fields.get(name).cloned())
                    }
                    Stored::Row(Image::Json(text)) => serde_json::from_slice(&text)
                        .map(|object| key_values(table, &object))
                        .unwrap_or_default(),
                    Stored::Other => Vec::new(),
                };
                keys.push(Key { text: name(place), values, place: place.clone(), routing: None });
            }
        }
        Ok((keys, next.map(Cursor::Scan)))
    }

    async fn sum(&mut self, _pair: &Pair) -> Result<Sum, VerifyError> {
        unreachable!("a table without a key is unfit")
    }

    fn unchecked(&mut self, pair: &Pair) -> Option<String> {
        self.blind(pair)
    }
}

fn name(place: &[u8]) -> String {
    std::str::from_utf8(place).map_or_else(|_| place.escape_ascii().to_string(), str::to_owned)
}

/// A row in the form that is compared.
fn cells(table: &Table, image: &Image) -> Cells {
    match image {
        Image::Json(text) => cells_of_text(table, text),
        Image::Hash(fields) => {
            let text = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
                Ok(text) => serde_json::Value::from(text).to_string(),
                Err(_) => format!("b\"{}\"", bytes.escape_ascii()),
            };
            table.columns.iter().map(|column| fields.get(&column.name).map(text)).collect()
        }
    }
}
