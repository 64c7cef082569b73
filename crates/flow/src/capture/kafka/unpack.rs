//! Messages in Avro, as Debezium's JSON: each names its schema by the registry's number.
//!
//! A message that cannot be read is told as such and left to `on_bad`; a registry that is away is waited for.

use crate::capture::CaptureError;
use crate::formats::avro::{self, Reader};
use crate::schema_registry::{Registry, RegistryError};
use crate::tls;
use base::Secret;
use kafka_protocol::records::Record;
use std::collections::HashMap;
use std::sync::Arc;

/// Schemas that are kept read; a topic has a few at a time. When there are more, they are read again.
const READERS_MAX: usize = 512;

pub struct Unpacker {
    registry: Registry,
    readers: HashMap<u32, Arc<Reader>>,
}

/// Key and value of a message as Debezium's JSON.
#[derive(Debug, Default)]
pub struct Unpacked {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// Why a message was not unpacked.
#[derive(Debug)]
pub enum NotUnpacked {
    /// What is wrong with it.
    Bad(String),
    /// The registry did not tell what it is.
    Unasked(CaptureError),
}

impl Unpacker {
    /// Asks the registry at this URL; `place` names the file that has it, and `files` are for TLS.
    pub fn new(url: Option<&Secret>, files: &tls::Files, place: &str) -> Result<Self, CaptureError> {
        let hint = format!("write `schema_registry: http://host:8081` into the {place}'s file");
        let url = url.ok_or_else(|| CaptureError::fatal("`format: avro` needs a schema registry", &hint))?;
        let registry = Registry::new(url, files).map_err(|message| CaptureError::fatal(message, hint))?;
        Ok(Self { registry, readers: HashMap::new() })
    }

    pub async fn probe(&mut self) -> Result<(), CaptureError> {
        self.registry.probe().await.map_err(of_registry)
    }

    /// Each with its schema.
    pub async fn unpack(&mut self, record: &Record) -> Result<Unpacked, NotUnpacked> {
        let Some(value) = record.value.as_deref() else { return Ok(Unpacked::default()) };
        let (reader, value) = self.read(value).await?;
        let value = avro::decode(&reader, value).map_err(NotUnpacked::Bad)?;
        // Keys that others write may be text, or a bare number: they name no column.
        let mut named = None;
        if let Some(key) = record.key.as_deref().filter(|key| avro::head(key).is_some()) {
            let (reader, key) = self.read(key).await?;
            if reader.is_record() {
                named = Some(avro::decode(&reader, key).map_err(NotUnpacked::Bad)?);
            }
        }
        Ok(Unpacked { key: named, value: Some(value) })
    }

    /// A key or a value without its schema.
    pub async fn payload(&mut self, message: &[u8]) -> Result<Vec<u8>, NotUnpacked> {
        let (reader, record) = self.read(message).await?;
        avro::payload(&reader, record).map_err(NotUnpacked::Bad)
    }

    async fn read<'m>(&mut self, message: &'m [u8]) -> Result<(Arc<Reader>, &'m [u8]), NotUnpacked> {
        let no_head = || NotUnpacked::Bad("it does not begin as a message with a schema does".to_owned());
        let (id, record) = avro::head(message).ok_or_else(no_head)?;
        Ok((self.reader(id).await?, record))
    }

    async fn reader(&mut self, id: u32) -> Result<Arc<Reader>, NotUnpacked> {
        if let Some(reader) = self.readers.get(&id) {
            return Ok(Arc::clone(reader));
        }
        let schema = self.registry.schema_of(id).await;
        let schema = schema.map_err(|error| NotUnpacked::Unasked(of_registry(error)))?;
        let schema =
            schema.ok_or_else(|| NotUnpacked::Bad(format!("the registry has no Avro schema {id}")))?;
        let reader = Arc::new(Reader::parse(&schema).map_err(NotUnpacked::Bad)?);
        if self.readers.len() >= READERS_MAX {
            self.readers.clear();
        }
        self.readers.insert(id, Arc::clone(&reader));
        Ok(reader)
    }
}

fn of_registry(error: RegistryError) -> CaptureError {
    match error {
        RegistryError::Away(_) => CaptureError::unavailable(error.to_string()),
        RegistryError::Refused { ref hint, .. } => {
            let hint = hint.clone();
            CaptureError::fatal(error.to_string(), hint)
        }
    }
}
