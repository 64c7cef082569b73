//! A writer's schema, read for its values, and told again as Kafka Connect's: what `connect.*` and logical types say of a
//! column is what Debezium's JSON says of it with its schema.

use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Fields of all records of a schema; MySQL has 4096 columns, and a row stands there once.
const FIELDS_MAX: usize = 20_000;

/// What reads the messages of one schema.
#[derive(Debug)]
pub struct Reader {
    pub(super) root: Node,
    pub(super) records: Vec<Vec<Field>>,
    /// The whole as a schema of Kafka Connect.
    pub(super) connect: String,
}

#[derive(Debug)]
pub(super) struct Field {
    pub name: String,
    pub node: Node,
}

/// How a value is written, and what it is.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub shape: Shape,
    told: Told,
}

#[derive(Clone, Debug)]
pub(super) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(Box<Node>),
    Map(Box<Node>),
    Union(Vec<Node>),
    /// Its place among the reader's records.
    Record(usize),
}

/// What Connect calls a type.
#[derive(Clone, Debug, Default)]
struct Told {
    ty: &'static str,
    name: Option<String>,
    parameters: Option<Value>,
}

impl Reader {
    /// `Err` says what is wrong with the schema.
    pub fn parse(schema: &str) -> Result<Self, String> {
        let schema: Value =
            serde_json::from_str(schema).map_err(|error| format!("its schema is not JSON: {error}"))?;
        let mut parser = Parser::default();
        let root = parser.node(&schema, "")?;
        let mut reader = Self { root, records: Vec::new(), connect: String::new() };
        for fields in parser.records {
            reader.records.push(fields.ok_or("its schema names a record that it does not have")?);
        }
        reader.connect = reader.struct_of(&reader.root).unwrap_or(Value::Null).to_string();
        Ok(reader)
    }

    /// Whether its messages are records, and not bare values.
    pub fn is_record(&self) -> bool {
        matches!(present(&self.root).0.shape, Shape::Record(_))
    }

    /// An envelope with its rows: deeper is nothing that a column's type depends on.
    fn struct_of(&self, node: &Node) -> Option<Value> {
        let Shape::Record(index) = present(node).0.shape else { return None };
        let fields = self.records[index].iter().map(|field| {
            let mut told = described(&field.node, &field.name);
            if let Shape::Record(index) = present(&field.node).0.shape {
                let columns = self.records[index].iter().map(|field| described(&field.node, &field.name));
                told["fields"] = columns.collect();
            }
            told
        });
        Some(json!({ "type": "struct", "fields": fields.collect::<Vec<_>>() }))
    }
}

/// What a node is where it is not null, and whether it may be.
fn present(node: &Node) -> (&Node, bool) {
    let Shape::Union(branches) = &node.shape else { return (node, false) };
    let mut others = branches.iter().filter(|branch| !matches!(branch.shape, Shape::Null));
    match (others.next(), others.next()) {
        (Some(one), None) => (one, true),
        _ => (node, true),
    }
}

fn described(node: &Node, field: &str) -> Value {
    let (present, optional) = present(node);
    let told = &present.told;
    let mut out = json!({ "type": told.ty, "optional": optional, "field": field });
    if let Some(name) = &told.name {
        out["name"] = json!(name);
    }
    if let Some(parameters) = &told.parameters {
        out["parameters"] = parameters.clone();
    }
    out
}

#[derive(Default)]
struct Parser {
    names: HashMap<String, Node>,
    /// `None` while its fields are read.
    records: Vec<Option<Vec<Field>>>,
    fields: usize,
}

impl Parser {
    fn node(&mut self, schema: &Value, namespace: &str) -> Result<Node, String> {
        match schema {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.node(branch, namespace));
                Ok(plain(Shape::Union(branches.collect::<Result<_, _>>()?), "union"))
            }
            Value::Object(object) => self.object(object, namespace),
            _ => Err("its schema has a part that is no type".to_owned()),
        }
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Node, String> {
        let primitive = match name {
            "null" => Some((Shape::Null, "null")),
            "boolean" => Some((Shape::Boolean, "boolean")),
            "int" => Some((Shape::Int, "int32")),
            "long" => Some((Shape::Long, "int64")),
            "float" => Some((Shape::Float, "float")),
            "double" => Some((Shape::Double, "double")),
            "bytes" => Some((Shape::Bytes, "bytes")),
            "string" => Some((Shape::String, "string")),
            _ => None,
        };
        if let Some((shape, ty)) = primitive {
            return Ok(plain(shape, ty));
        }
        let known = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
        known.cloned().ok_or_else(|| format!("its schema has no type `{name}`"))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<Node, String> {
        let word = |name: &str| object.get(name).and_then(Value::as_str);
        let mut node = match word("type") {
            None => {
                let inner = object.get("type").ok_or("its schema has a part without a type")?;
                return self.node(inner, namespace);
            }
            Some("record" | "error") => self.record(object, namespace)?,
            Some("enum") => {
                let symbols =
                    object.get("symbols").and_then(Value::as_array).ok_or("an enum has no symbols")?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned));
                let symbols = symbols.collect::<Option<_>>().ok_or("an enum's symbol is no text")?;
                self.name(object, namespace, plain(Shape::Enum(symbols), "string"))
            }
            Some("fixed") => {
                let size =
                    object.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                self.name(object, namespace, plain(Shape::Fixed(size.ok_or("a fixed has no size")?), "bytes"))
            }
            Some("array") => {
                let items = self.node(object.get("items").ok_or("an array has no items")?, namespace)?;
                plain(Shape::Array(Box::new(items)), "array")
            }
            Some("map") => {
                let values = self.node(object.get("values").ok_or("a map has no values")?, namespace)?;
                plain(Shape::Map(Box::new(values)), "map")
            }
            Some(name) => self.by_name(name, namespace)?,
        };
        tell(&mut node.told, object);
        Ok(node)
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<Node, String> {
        let place = self.records.len();
        self.records.push(None);
        let node = self.name(object, namespace, plain(Shape::Record(place), "struct"));
        let inside = namespace_of(object, namespace);
        let listed = object.get("fields").and_then(Value::as_array).ok_or("a record has no fields")?;
        self.fields += listed.len();
        if self.fields > FIELDS_MAX {
            return Err(format!("its schema has more than {FIELDS_MAX} fields"));
        }
        let mut fields = Vec::with_capacity(listed.len());
        for field in listed {
            let name = field["name"].as_str().ok_or("a field has no name")?.to_owned();
            fields.push(Field { name, node: self.node(&field["type"], &inside)? });
        }
        self.records[place] = Some(fields);
        Ok(node)
    }

    /// Makes a type known by its name, to what stands within it as well.
    fn name(&mut self, object: &Map<String, Value>, namespace: &str, mut node: Node) -> Node {
        if let Some(name) = object.get("name").and_then(Value::as_str) {
            let inside = namespace_of(object, namespace);
            let short = name.rsplit('.').next().unwrap_or(name);
            tell(&mut node.told, object);
            self.names.insert(full_name(short, &inside), node.clone());
        }
        node
    }
}

fn plain(shape: Shape, ty: &'static str) -> Node {
    Node { shape, told: Told { ty, ..Told::default() } }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// What names within a type are in: a dotted name says it itself.
fn namespace_of(object: &Map<String, Value>, around: &str) -> String {
    let word = |name: &str| object.get(name).and_then(Value::as_str);
    match word("name").and_then(|name| name.rsplit_once('.')) {
        Some((namespace, _)) => namespace.to_owned(),
        None => word("namespace").unwrap_or(around).to_owned(),
    }
}

/// What stands beside a type: Connect's own words, or else Avro's.
fn tell(told: &mut Told, object: &Map<String, Value>) {
    let word = |name: &str| object.get(name).and_then(Value::as_str);
    match word("connect.type") {
        Some("int8") => told.ty = "int8",
        Some("int16") => told.ty = "int16",
        _ => {}
    }
    let logical = match word("logicalType") {
        Some("decimal") => Some("org.apache.kafka.connect.data.Decimal"),
        Some("date") => Some("org.apache.kafka.connect.data.Date"),
        Some("time-millis") => Some("org.apache.kafka.connect.data.Time"),
        Some("time-micros") => Some("io.debezium.time.MicroTime"),
        Some("timestamp-millis" | "local-timestamp-millis") => {
            Some("org.apache.kafka.connect.data.Timestamp")
        }
        Some("timestamp-micros" | "local-timestamp-micros") => Some("io.debezium.time.MicroTimestamp"),
        _ => None,
    };
    if let Some(name) = word("connect.name").or(logical) {
        told.name = Some(name.to_owned());
    }
    if let Some(parameters) = object.get("connect.parameters") {
        told.parameters = Some(parameters.clone());
    } else if word("logicalType") == Some("decimal") {
        let text = |name: &str| object.get(name).and_then(Value::as_u64).unwrap_or(0).to_string();
        told.parameters =
            Some(json!({ "scale": text("scale"), "connect.decimal.precision": text("precision") }));
    }
}
