//! A source as collection opens it, made of `sources/*.yaml`.

use crate::config::TidbConfig;
use crate::reader::{ReadError, Reader};
use crate::readers::access::Access;
use crate::readers::config::{AccessConfig, FilesConfig, HttpApiConfig, HttpAuth, SingerConfig};
use crate::readers::files::Files;
use crate::readers::http_api::HttpApi;
use crate::readers::mysql::{MySqlReader, MySqlSource};
use crate::readers::singer::Singer;
use crate::readers::sqlite::{SqliteReader, SqliteSource};
use base::Secret;
use base::patterns::Patterns;
use std::path::{Path, PathBuf};

/// What can be collected from.
#[derive(Clone, Debug)]
pub enum Source {
    MySql(MySqlSource),
    Sqlite(SqliteSource),
    /// With the project's folder, as the next are.
    Files(Box<FilesConfig>, PathBuf),
    Access(Box<AccessConfig>, PathBuf),
    HttpApi(Box<HttpApiConfig>, PathBuf),
    Singer(Box<SingerConfig>, PathBuf),
}

/// Connects to a source, or opens its file.
pub async fn open_reader(source: &Source) -> Result<Box<dyn Reader>, ReadError> {
    Ok(match source {
        Source::MySql(source) => Box::new(MySqlReader::open(source).await?),
        Source::Sqlite(source) => Box::new(SqliteReader::open(source).await?),
        Source::Files(config, dir) => Box::new(Files::new((**config).clone(), dir)),
        Source::Access(config, dir) => Box::new(Access::new((**config).clone(), dir)),
        Source::HttpApi(config, dir) => Box::new(HttpApi::new((**config).clone(), dir)),
        Source::Singer(config, dir) => Box::new(Singer::new((**config).clone(), dir)),
    })
}

/// A file of `sources/` of a kind that only collection reads.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    Tidb(TidbConfig),
    Files(Box<FilesConfig>),
    Access(Box<AccessConfig>),
    HttpApi(Box<HttpApiConfig>),
    Singer(Box<SingerConfig>),
}

/// Schemes of the URLs of APIs.
const HTTP: &[&str] = &["http://", "https://"];

impl SourceConfig {
    /// The kinds, as `kind` says them. `http` is of these where it has a `url`.
    pub const KINDS: [&'static str; 4] = ["tidb", "files", "access", "singer"];

    /// URLs that may hold references, each with the schemes that it may have.
    pub fn urls(&mut self) -> Vec<(&mut Secret, &'static [&'static str])> {
        match self {
            Self::Tidb(config) => vec![(&mut config.url, &["mysql://"])],
            Self::HttpApi(config) => match &mut config.auth {
                Some(HttpAuth::OAuth2 { token_url, .. }) => vec![(&mut config.url, HTTP), (token_url, HTTP)],
                _ => vec![(&mut config.url, HTTP)],
            },
            Self::Files(_) | Self::Access(_) | Self::Singer(_) => Vec::new(),
        }
    }

    /// Texts that are references by themselves.
    pub fn secrets(&mut self) -> Vec<&mut Secret> {
        match self {
            Self::Tidb(_) | Self::Files(_) => Vec::new(),
            Self::Access(config) => config.password.iter_mut().collect(),
            Self::Singer(config) => config.secrets.values_mut().chain(config.env.values_mut()).collect(),
            Self::HttpApi(config) => {
                let login = config.auth.as_mut().map(|auth| match auth {
                    HttpAuth::Bearer { token } => token,
                    HttpAuth::Basic { password, .. } => password,
                    HttpAuth::OAuth2 { client_secret, .. } => client_secret,
                });
                let sign = config.sign.as_mut().map(|sign| &mut sign.secret);
                config.headers.values_mut().chain(login).chain(sign).collect()
            }
        }
    }

    /// What is opened; paths are told from the project's folder. `Err` is what is wrong, and a hint.
    pub fn source(&self, dir: &Path) -> Result<Source, (String, String)> {
        Ok(match self {
            Self::Tidb(config) => Source::MySql(MySqlSource {
                url: config.url.clone(),
                tls: config.tls,
                tls_ca: config.tls_ca.as_ref().map(|path| dir.join(path)),
                tables: Patterns::new(&config.tables, &config.exclude)
                    .map_err(|error| (error.to_string(), "for example: tables: [\"shop.*\"]".to_owned()))?,
            }),
            Self::Files(config) => Source::Files(config.clone(), dir.to_owned()),
            Self::Access(config) => Source::Access(config.clone(), dir.to_owned()),
            Self::Singer(config) if config.command.is_empty() => {
                return Err((
                    "`command` is empty".to_owned(),
                    "for example: command: [tap-github]".to_owned(),
                ));
            }
            Self::Singer(config) => Source::Singer(config.clone(), dir.to_owned()),
            Self::HttpApi(config) => Source::HttpApi(config.clone(), dir.to_owned()),
        })
    }

    /// What is wrong in a source whose references are resolved, and a hint; nothing is asked for.
    pub fn check(&self, dir: &Path) -> Result<(), (String, String)> {
        match self {
            Self::HttpApi(config) => HttpApi::check(config, dir).map_err(|wrong| {
                (wrong, "see docs/guides/collect-files.md for APIs of each style".to_owned())
            }),
            _ => Ok(()),
        }
    }
}
