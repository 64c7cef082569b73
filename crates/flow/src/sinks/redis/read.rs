//! Reading rows back, for who compares them with what they should be.

use super::failure;
use super::plan::{Image, Options, Plan, VERSION_FIELD};
use crate::config::{FlowOptions, RedisType};
use crate::deliver::sink::SinkError;
use base::{Secret, Table};
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value, from_redis_value};
use std::collections::BTreeMap;

/// What stands at a row's key.
pub enum Stored {
    Nothing,
    Row(Image),
    /// A value of another type, which we never write there.
    Other,
}

pub struct Reader {
    flow: String,
    source: String,
    pub options: Options,
    connection: MultiplexedConnection,
}

impl Reader {
    pub async fn connect(
        flow: &str,
        source: &str,
        url: &Secret,
        options: &FlowOptions,
    ) -> Result<Self, SinkError> {
        let options =
            Options::compile(options).map_err(|(message, hint)| SinkError::Blocked { message, hint })?;
        let key = options.progress_key(flow);
        let connection =
            super::server::connection(url, key.as_bytes()).await.map_err(|error| failure::sort(&error))?;
        Ok(Self { flow: flow.to_owned(), source: source.to_owned(), options, connection })
    }

    pub fn plan(&self, table: &Table) -> Result<Plan, SinkError> {
        Plan::new(&self.options, &self.flow, &self.source, table)
    }

    /// What stands at each of these keys, without the versions.
    pub async fn get(&mut self, keys: &[&[u8]]) -> Result<Vec<Stored>, SinkError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let command = if self.options.kind == RedisType::Hash { "HGETALL" } else { "GET" };
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for key in keys {
            pipeline.cmd(command).arg(*key);
        }
        let answers: Vec<RedisResult<Value>> =
            pipeline.query_async(&mut self.connection).await.map_err(|error| failure::sort(&error))?;
        answers
            .into_iter()
            .map(|answer| match answer {
                Ok(value) => stored(self.options.kind, value).map_err(|error| failure::sort(&error)),
                Err(error) if error.code() == Some("WRONGTYPE") => Ok(Stored::Other),
                Err(error) => Err(failure::sort(&error)),
            })
            .collect()
    }

    /// About `limit` keys that begin so, some perhaps twice, and where the next begin; `None` at the end.
    pub async fn scan(
        &mut self,
        prefix: &[u8],
        from: u64,
        limit: u64,
    ) -> Result<(Vec<Vec<u8>>, Option<u64>), SinkError> {
        let asked = redis::cmd("SCAN")
            .arg(from)
            .arg("MATCH")
            .arg(pattern(prefix))
            .arg("COUNT")
            .arg(limit)
            .query_async(&mut self.connection)
            .await;
        let (next, mut keys): (u64, Vec<Vec<u8>>) = asked.map_err(|error| failure::sort(&error))?;
        keys.retain(|key| key.starts_with(prefix));
        Ok((keys, (next != 0).then_some(next)))
    }
}

fn stored(kind: RedisType, value: Value) -> RedisResult<Stored> {
    if kind == RedisType::Hash {
        let fields: BTreeMap<Vec<u8>, Vec<u8>> = from_redis_value(value)?;
        if fields.is_empty() {
            return Ok(Stored::Nothing);
        }
        let fields =
            fields.into_iter().map(|(name, text)| (String::from_utf8_lossy(&name).into_owned(), text));
        return Ok(Stored::Row(Image::Hash(fields.filter(|(name, _)| name != VERSION_FIELD).collect())));
    }
    let text: Option<Vec<u8>> = from_redis_value(value)?;
    Ok(text.map_or(Stored::Nothing, |text| Stored::Row(Image::Json(text))))
}

/// What MATCH takes for all keys that begin so.
fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[]\\^-".contains(byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'*');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(pattern(b"a*b[c]:"), b"a\\*b\\[c\\]:*");
    }
}
