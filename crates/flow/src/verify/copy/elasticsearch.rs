//! Documents of Elasticsearch and OpenSearch.

use super::document::{cells, cells_of_text, described, key_values};
use super::{Copy, Cursor, Described, of_sink};
use crate::config::{FlowConfig, SinkConfig};
use crate::sinks::elasticsearch::plan::{Document, Plan};
use crate::sinks::elasticsearch::read::{Reader, Standing};
use crate::sinks::json::put_row;
use crate::verify::{Cells, Key, Pair, Sum, VerifyError};
use async_trait::async_trait;
use base::{Table, TableName, Value};
use std::collections::HashMap;
use std::sync::Arc;

pub struct Documents {
    reader: Reader,
    plans: HashMap<TableName, Plan>,
}

impl Documents {
    pub fn connect(
        source: &str,
        flow_name: &str,
        sink: &SinkConfig,
        flow: &FlowConfig,
    ) -> Result<Self, VerifyError> {
        let url = sink.url.as_ref().ok_or_else(super::placeless)?;
        let reader = Reader::new(flow_name, source, url, &flow.options).map_err(of_sink)?;
        Ok(Self { reader, plans: HashMap::new() })
    }

    /// Another table whose documents are in the same index.
    fn other(&self, pair: &Pair) -> Option<&TableName> {
        let own = &pair.target().name;
        let alias = &self.plans[own].alias;
        self.plans.iter().find(|(name, plan)| *name != own && plan.alias == *alias).map(|(name, _)| name)
    }

    fn document(&self, pair: &Pair, row: &[Value]) -> Result<Document, String> {
        self.plans[&pair.target().name].document(pair.target(), row)
    }
}

#[async_trait]
impl Copy for Documents {
    async fn describe(&mut self, table: &Arc<Table>) -> Result<Described, VerifyError> {
        let plan = self.reader.plan(table).map_err(of_sink)?;
        let standing = self.reader.standing(&plan.alias).await.map_err(of_sink)?;
        let alias = plan.alias.clone();
        self.plans.insert(table.name.clone(), plan);
        Ok(match standing {
            Standing::Nothing => Described::Unfit(format!("the sink has no alias `{alias}`")),
            Standing::Filling => Described::Unfit("it is being read anew".to_owned()),
            Standing::Whole => described(table),
        })
    }

    fn note(&mut self, table: &Arc<Table>) {
        if let Ok(plan) = self.reader.plan(table) {
            self.plans.insert(table.name.clone(), plan);
        }
    }

    fn key(&self, pair: &Pair, row: &[Value]) -> Key {
        let values = pair.key_values(row);
        match self.document(pair, row) {
            Ok(Document { id, routing, .. }) => {
                Key { text: name(&id, routing.as_deref()), values, place: id.into_bytes(), routing }
            }
            Err(_) => Key::nowhere(pair, values),
        }
    }

    fn expected(&self, pair: &Pair, row: &[Value]) -> Cells {
        let text = self.document(pair, row).map_or_else(
            |_| {
                let mut text = Vec::new();
                put_row(&mut text, pair.target(), row);
                text
            },
            |document| document.text,
        );
        cells_of_text(pair.target(), &text)
    }

    async fn rows(&mut self, pair: &Pair, keys: &[&Key]) -> Result<HashMap<String, Cells>, VerifyError> {
        let alias = &self.plans[&pair.target().name].alias;
        let placed: Vec<&&Key> = keys.iter().filter(|key| !key.place.is_empty()).collect();
        let places: Vec<(&str, Option<&str>)> = placed
            .iter()
            .map(|key| (std::str::from_utf8(&key.place).unwrap_or_default(), key.routing.as_deref()))
            .collect();
        let found = self.reader.get(alias, &places).await.map_err(of_sink)?;
        let rows = placed.into_iter().zip(found);
        Ok(rows
            .filter_map(|(key, fields)| Some((key.text.clone(), cells(pair.target(), &fields?))))
            .collect())
    }

    async fn keys(
        &mut self,
        pair: &Pair,
        after: Option<Cursor>,
        limit: u64,
    ) -> Result<(Vec<Key>, Option<Cursor>), VerifyError> {
        if self.other(pair).is_some() {
            return Ok((Vec::new(), None));
        }
        let table = pair.target();
        let page = match after {
            Some(Cursor::Page(page)) => Some(page),
            _ => None,
        };
        let fields: Vec<&str> = table.key.iter().map(|index| table.columns[*index].name.as_str()).collect();
        let alias = &self.plans[&table.name].alias;
        let (found, next) = self.reader.scan(alias, &fields, page, limit).await.map_err(of_sink)?;
        let keys = found.into_iter().map(|found| Key {
            text: name(&found.id, found.routing.as_deref()),
            values: key_values(table, &found.fields),
            place: found.id.into_bytes(),
            routing: found.routing,
        });
        Ok((keys.collect(), next.map(Cursor::Page)))
    }

    async fn sum(&mut self, _pair: &Pair) -> Result<Sum, VerifyError> {
        unreachable!("a table without a key is unfit")
    }

    fn unchecked(&mut self, pair: &Pair) -> Option<String> {
        let other = self.other(pair)?;
        Some(format!("rows that are too much were not looked for: those of `{other}` are in the same index"))
    }
}

/// A document's id; with another routing it is another document.
fn name(id: &str, routing: Option<&str>) -> String {
    routing.map_or_else(|| id.to_owned(), |routing| format!("{id}, routing {routing}"))
}
