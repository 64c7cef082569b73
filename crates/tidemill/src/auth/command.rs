//! `tidemill token`: asked of the running node, or done in the catalog on disk where no node runs.

use super::routes::shown;
use super::tokens::{Access, Refusal, TokenRequest, now_ms};
use crate::client::NodeClient;
use crate::commands::{load_node, print_table};
use crate::failure::Failure;
use crate::project::NodeConfig;
use base::{Code, Span};
use catalog::Catalog;
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

#[derive(Subcommand)]
pub enum TokenVerb {
    /// Make a token and print it, this once.
    Create {
        /// The token's name: whose it is, or what for.
        name: String,
        /// What it is good for: `read`, `subscribe`, `push`, `cache`, `search`, `operate`, `admin`; `subscribe:SOURCE` and
        /// `push:SOURCE` for one source only. May be repeated, or separated by commas.
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
        scopes: Vec<String>,
        /// When it ends: `30d`, `12h`. Never, unless told.
        #[arg(long, value_name = "SPAN")]
        expires: Option<Span>,
        /// For subscriptions: only rows that meet a MySQL expression, `shop.orders=owner = 'u1'`. May be repeated.
        #[arg(long, value_name = "TABLE=EXPR", value_parser = table_and_rest)]
        rows: Vec<(String, String)>,
        /// For subscriptions: only these columns, `shop.orders=id,total`, or `*` for all. May be repeated. With any `--rows` or
        /// `--columns`, tables that none names are closed.
        #[arg(long, value_name = "TABLE=LIST", value_parser = table_and_rest)]
        columns: Vec<(String, String)>,
        /// Write into the catalog on disk, whether a node runs or not; one that runs takes it over within seconds.
        #[arg(long)]
        offline: bool,
    },
    /// Tokens with their scopes, and when they were used last.
    List {
        /// Read the catalog on disk, whether a node runs or not.
        #[arg(long)]
        offline: bool,
    },
    /// End a token, and whatever it has open, at once.
    Revoke {
        /// The token's name.
        name: String,
        /// Also remove it from the list, so that its name is free again.
        #[arg(long)]
        forget: bool,
        /// Write into the catalog on disk, whether a node runs or not; one that runs takes it over within seconds.
        #[arg(long)]
        offline: bool,
    },
}

fn table_and_rest(text: &str) -> Result<(String, String), String> {
    let (table, rest) = text.split_once('=').ok_or("write TABLE=…, for example shop.orders=id,total")?;
    Ok((table.trim().to_owned(), rest.trim().to_owned()))
}

pub async fn run(dir: &Path, verb: TokenVerb, json: bool, quiet: bool) -> Result<(), Failure> {
    let node = load_node(dir)?;
    let place = Place { dir, node: &node };
    match verb {
        TokenVerb::Create { name, scopes, expires, rows, columns, offline } => {
            let expires_ms = expires
                .map(|span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX).saturating_add(now_ms()));
            let request = request(name, scopes, expires_ms, rows, columns)?;
            let asked =
                if offline { None } else { place.ask("/api/v1/tokens", Some(&json!(request))).await? };
            let made = match asked {
                Some(made) => made,
                None => place.on_disk(true, |access| {
                    let (secret, token) = access.create(request)?;
                    Ok(shown(&secret, &token))
                })?,
            };
            if json {
                println!("{made}");
            } else {
                if !quiet {
                    let (name, scopes) = (text(&made["name"]), list(&made["scopes"]));
                    eprintln!("token {name} for {scopes}; it is shown this once:");
                }
                println!("{}", text(&made["token"]));
            }
        }
        TokenVerb::List { offline } => {
            let asked = if offline { None } else { place.ask("/api/v1/tokens", None).await? };
            let tokens = match asked {
                Some(tokens) => tokens,
                None => place.on_disk(false, |access| access.list().map(Value::from))?,
            };
            if json { println!("{tokens}") } else { print_tokens(&tokens) }
        }
        TokenVerb::Revoke { name, forget, offline } => {
            let verb = if forget { "forget" } else { "revoke" };
            let path = format!("/api/v1/tokens/{name}:{verb}");
            let asked = if offline { None } else { place.ask(&path, Some(&json!({}))).await? };
            if asked.is_none() {
                place.on_disk(false, |access| access.revoke(&name, forget))?;
            }
            if json {
                println!("{}", json!({"token": name, "done": verb}));
            } else if !quiet {
                println!("{}: {name}", if forget { "revoked and forgotten" } else { "revoked" });
            }
        }
    }
    Ok(())
}

fn request(
    name: String,
    scopes: Vec<String>,
    expires_ms: Option<i64>,
    rows: Vec<(String, String)>,
    columns: Vec<(String, String)>,
) -> Result<TokenRequest, Failure> {
    let mut request =
        TokenRequest { name, scopes, expires_ms, rows: BTreeMap::new(), columns: BTreeMap::new() };
    let twice = |option: &str, table: &str| {
        let hint = "join two conditions by AND, and columns by commas";
        Failure::new(2, format!("{option} names the table `{table}` twice")).hint(hint)
    };
    for (table, rule) in rows {
        if request.rows.insert(table.clone(), rule).is_some() {
            return Err(twice("--rows", &table));
        }
    }
    for (table, list) in columns {
        let list = list.split(',').map(|column| column.trim().to_owned()).collect();
        if request.columns.insert(table.clone(), list).is_some() {
            return Err(twice("--columns", &table));
        }
    }
    Ok(request)
}

/// Whose tokens a command is about.
struct Place<'a> {
    dir: &'a Path,
    node: &'a NodeConfig,
}

impl Place<'_> {
    /// The node's answer; `None` where no node runs.
    async fn ask(&self, path: &str, body: Option<&Value>) -> Result<Option<Value>, Failure> {
        let client = NodeClient::new(self.node)?;
        let answered = match body {
            Some(body) => client.post(path, body).await,
            None => client.get(path).await,
        };
        match answered {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.away => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Works on the catalog itself. Whoever can write it owns the node.
    fn on_disk<T>(&self, make: bool, work: impl FnOnce(Access) -> Result<T, Refusal>) -> Result<T, Failure> {
        let path = self.node.catalog_path(self.dir);
        if make {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.node.data_dir)
                .map_err(|e| Failure::io(&format!("make {}", self.node.data_dir.display()), &e))?;
        } else if !path.exists() {
            return Err(
                Failure::new(1, "there are no tokens").hint("`tidemill token create` makes the first one")
            );
        }
        let opened = Catalog::open(&path).and_then(Access::open);
        let access = opened.map_err(|error| Failure::of("open the catalog", &error))?;
        work(access).map_err(|Refusal { code, message, hint }| {
            let exit = if matches!(code, Code::Invalid | Code::NotFound) { 2 } else { 1 };
            Failure::new(exit, message).hint(hint)
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".to_owned(), str::to_owned)
}

fn list(value: &Value) -> String {
    let items: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    items.join(", ")
}

fn print_tokens(tokens: &Value) {
    let time = |value: &Value| {
        let stamp = value.as_i64().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        stamp.map_or_else(|| "-".to_owned(), |stamp| stamp.strftime("%Y-%m-%d %H:%M").to_string())
    };
    let mut rows = vec![
        ["TOKEN", "STATE", "SCOPES", "TABLES", "CREATED", "EXPIRES", "USED"].map(str::to_owned).to_vec(),
    ];
    for token in tokens.as_array().into_iter().flatten() {
        let named =
            ["rows", "columns"].map(|key| token[key].as_object().into_iter().flat_map(|map| map.keys()));
        let mut tables: Vec<&str> = named.into_iter().flatten().map(String::as_str).collect();
        tables.sort_unstable();
        tables.dedup();
        let tables = if tables.is_empty() { "-".to_owned() } else { tables.join(", ") };
        let [created, expires, used] = ["created_ms", "expires_ms", "used_ms"].map(|key| time(&token[key]));
        rows.push(vec![
            text(&token["name"]),
            text(&token["state"]),
            list(&token["scopes"]),
            tables,
            created,
            expires,
            used,
        ]);
    }
    print_table(&rows);
}
