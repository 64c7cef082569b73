//! What a client has chosen and set, and the answers to its statements.

use crate::columns::{number_column, text_column};
use crate::error::SqlError;
use crate::plan::{Verb, verb};
use crate::rewrite::{self, Facts};
use crate::show::{self, Show};
use crate::text::{Text, unwrapped};
use crate::variables::Variables;
use crate::{Door, catalogue};
use base::{Column, Value};
use engine::{Rows, Shape};
use mysql::protocol::Status;

/// What a statement is answered with.
pub enum Answer {
    Ok,
    Rows(Rows),
    /// A result that is made here.
    Table(Vec<Column>, Vec<Vec<Value>>),
}

/// One client's session, without its socket.
pub struct State<'d> {
    pub door: &'d Door,
    pub id: u32,
    /// `user@host`.
    pub user: String,
    pub tls: bool,
    pub database: Option<String>,
    pub variables: Variables,
    pub in_transaction: bool,
    /// Rows of the last result.
    pub found: u64,
}

impl State<'_> {
    pub fn status(&self) -> Status {
        let on = |is: bool, bit: Status| if is { bit.0 } else { 0 };
        let auto = self.variables.get("autocommit") != Some("0");
        Status(on(auto, Status::AUTOCOMMIT) | on(self.in_transaction, Status::IN_TRANSACTION))
    }

    /// Whether text goes out in a character set that the client has named.
    pub fn is_converting(&self) -> bool {
        self.variables.get("character_set_results") != Some("NULL")
    }

    /// USE.
    pub async fn enter(&mut self, name: &str) -> Result<(), SqlError> {
        let all = catalogue::databases(self.door).await?;
        let known = all.into_iter().find(|it| it.eq_ignore_ascii_case(name));
        let known = known.ok_or_else(|| SqlError::new(1049, format!("Unknown database '{name}'")))?;
        self.database = Some(known);
        Ok(())
    }

    pub fn kill(&self, id: u32, query: bool) -> Result<(), SqlError> {
        let all = self.door.present();
        let own = all.get(&self.id).map(|it| it.token.clone());
        let Some(other) = all.get(&id) else {
            return Err(SqlError::new(1094, format!("Unknown thread id: {id}")));
        };
        if own.as_ref() != Some(&other.token) {
            return Err(SqlError::new(1095, format!("You are not owner of thread {id}")));
        }
        tracing::debug!(id, user = other.user, query, "a client of the SQL door was ended by another");
        other.stop_query.send_modify(|count| *count += 1);
        if !query {
            other.stop.send_replace(true);
        }
        Ok(())
    }

    pub fn reset(&mut self) {
        self.variables.reset();
        self.in_transaction = false;
        self.found = 0;
    }

    /// Does what a statement asks for, up to its first row.
    pub async fn statement(&mut self, sql: &str) -> Result<Answer, SqlError> {
        let sql = unwrapped(sql);
        let text = Text::read(sql).ok_or_else(|| SqlError::not_supported("statements of so many words"))?;
        match verb(&text) {
            Verb::Empty => Err(SqlError::new(1065, "Query was empty")),
            Verb::Query => {
                let sql = self.rewritten(&text)?;
                Ok(Answer::Rows(catalogue::query(self, &text, &sql).await?))
            }
            Verb::Explain => self.explain(&text).await,
            Verb::Show => {
                let show = show::show(&text, self.database.as_deref())?;
                self.show(show).await
            }
            Verb::Describe => {
                let show = show::describe(&text, self.database.as_deref())?;
                self.show(show).await
            }
            Verb::Set => self.variables.set(&text).map(|()| Answer::Ok),
            Verb::Use => {
                let name = text.name(1).filter(|_| text.tokens.len() == 2);
                let name = name.ok_or_else(|| SqlError::syntax(text.from(1)))?;
                self.enter(&name).await.map(|()| Answer::Ok)
            }
            Verb::Kill => {
                let query = text.is(1, "query");
                let at = if query || text.is(1, "connection") { 2 } else { 1 };
                let id = text.at(at).parse().ok().filter(|_| text.tokens.len() == at + 1);
                self.kill(id.ok_or_else(|| SqlError::syntax(text.from(1)))?, query).map(|()| Answer::Ok)
            }
            Verb::Nothing => {
                self.in_transaction = match text.at(0).to_ascii_lowercase().as_str() {
                    "begin" | "start" => true,
                    "commit" => false,
                    "rollback" if !text.is(1, "to") => false,
                    _ => self.in_transaction,
                };
                Ok(Answer::Ok)
            }
            Verb::Write => Err(SqlError::read_only()),
            Verb::Unknown => Err(SqlError::syntax(sql)),
        }
    }

    fn rewritten(&self, text: &Text<'_>) -> Result<String, SqlError> {
        let facts = Facts {
            variables: &self.variables,
            database: self.database.as_deref(),
            user: &self.user,
            id: self.id,
            found: self.found,
            schema: catalogue::reads_schema(self, text),
        };
        rewrite::select(text, &facts)
    }

    async fn explain(&self, text: &Text<'_>) -> Result<Answer, SqlError> {
        let skipped = if text.is(1, "format") { 4 } else { 1 };
        let sql = text.from(skipped);
        let inner = Text::read(sql).filter(|it| verb(it) == Verb::Query);
        let inner = inner.ok_or_else(|| SqlError::not_supported("EXPLAIN of what is no query"))?;
        let sql = self.rewritten(&inner)?;
        let plan = catalogue::explain(self, &inner, &sql).await?;
        let rows = plan.lines().map(|line| vec![Value::Text(line.to_owned())]).collect();
        Ok(Answer::Table(vec![text_column("EXPLAIN")], rows))
    }

    async fn show(&self, show: Show) -> Result<Answer, SqlError> {
        let pair =
            |name: &str, value: &str| vec![Value::Text(name.to_owned()), Value::Text(value.to_owned())];
        Ok(match show {
            Show::Schema { sql, database, table } => {
                catalogue::must_be(self, database.as_deref(), table.as_deref()).await?;
                let text = Text::read(&sql).ok_or_else(|| SqlError::syntax(&sql))?;
                Answer::Rows(catalogue::query(self, &text, &sql).await?)
            }
            Show::Databases { filter } => {
                let all = catalogue::databases(self.door).await?;
                let rows = all.into_iter().map(|name| vec![Value::Text(name)]).collect();
                Answer::Rows(catalogue::filtered(self.door, &["Database"], rows, &filter).await?)
            }
            Show::Variables { global, filter } => {
                let rows =
                    self.variables.all(global).into_iter().map(|(name, value)| pair(&name, &value)).collect();
                Answer::Rows(
                    catalogue::filtered(self.door, &["Variable_name", "Value"], rows, &filter).await?,
                )
            }
            Show::Status { filter } => {
                let clients = self.door.present().len().to_string();
                let cipher = if self.tls { "TLS" } else { "" };
                let rows = vec![
                    pair("Com_select", "0"),
                    pair("Questions", "0"),
                    pair("Ssl_cipher", cipher),
                    pair("Ssl_version", cipher),
                    pair("Threads_connected", &clients),
                    pair("Threads_running", "1"),
                    pair("Uptime", "1"),
                ];
                Answer::Rows(
                    catalogue::filtered(self.door, &["Variable_name", "Value"], rows, &filter).await?,
                )
            }
            Show::Warnings => {
                let columns = vec![text_column("Level"), number_column("Code"), text_column("Message")];
                Answer::Table(columns, Vec::new())
            }
            Show::WarningCount => {
                Answer::Table(vec![number_column("@@session.warning_count")], vec![vec![Value::UInt(0)]])
            }
            Show::Grants => {
                let grant = format!("GRANT SELECT ON *.* TO `{}`@`%`", self.user.replace('`', "``"));
                Answer::Table(
                    vec![text_column(&format!("Grants for {}", self.user))],
                    vec![vec![Value::Text(grant)]],
                )
            }
            Show::CreateDatabase { database } => {
                catalogue::must_be(self, Some(&database), None).await?;
                let sql = format!(
                    "CREATE DATABASE `{}` /*!40100 DEFAULT CHARACTER SET utf8mb4 */",
                    database.replace('`', "``")
                );
                Answer::Table(
                    ["Database", "Create Database"].map(text_column).to_vec(),
                    vec![pair(&database, &sql)],
                )
            }
            Show::CreateTable { database, table } => {
                catalogue::must_be(self, Some(&database), Some(&table)).await?;
                let [columns, keys] = show::create_queries(&database, &table);
                let (columns, keys) =
                    (catalogue::texts(self, &columns).await?, catalogue::texts(self, &keys).await?);
                let sql = show::create_table(&table, &columns, &keys);
                Answer::Table(["Table", "Create Table"].map(text_column).to_vec(), vec![pair(&table, &sql)])
            }
        })
    }

    /// The columns of a query.
    pub async fn shape(&self, sql: &str) -> Result<Shape, SqlError> {
        let text = Text::read(sql).ok_or_else(|| SqlError::not_supported("statements of so many words"))?;
        if verb(&text) != Verb::Query {
            return Ok(Shape::default());
        }
        let sql = self.rewritten(&text)?;
        catalogue::check(self, &text, &sql).await
    }
}
