//! What users write in `sources/*.yaml` of the kinds that collection alone reads: `files`, `access`, `http` with a URL, and
//! `singer`. The doc comments are the manual.

use base::{ByteSize, Secret, Span};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `kind: files`: tables in a folder, CSV, JSON and Excel.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// `files`.
    pub kind: FilesKind,
    /// A folder, or files by a pattern in its last part (`inbox/*.csv`), relative to the project. `*` stands for any characters
    /// and `?` for one. Files whose name begins with `.` or `~$` are left out: they belong to programs that write. So are links to
    /// other files, unless the path names one itself.
    pub path: PathBuf,
    /// What the files are; told by each file's ending by default.
    #[serde(default)]
    pub format: FileFormat,
    /// Options of a table, by its name. A file that no table here names is a table itself, called as the file without its ending; a
    /// workbook with several sheets has tables `book.sheet`.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub tables: BTreeMap<String, FileTable>,
    /// A workbook that is larger is refused: cells are read as they come, but texts and formats are held in memory.
    #[serde(default = "excel_max")]
    #[schemars(with = "String", extend("default" = "64MiB"))]
    pub excel_max: ByteSize,
}

/// What a file is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// By the ending: csv, txt, tsv, json, jsonl or ndjson, xlsx, xlsm, xls.
    #[default]
    Auto,
    /// Fields between commas, or another delimiter that the first lines tell.
    Csv,
    /// Fields between tabulators.
    Tsv,
    /// An array of objects.
    Json,
    /// An object a line.
    Jsonl,
    /// A workbook, of any age.
    Xlsx,
}

/// How a table's files are read.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileTable {
    /// The table's files by a pattern of their names: `orders_*.csv`. Their columns are united by name: what a file lacks is NULL.
    /// By default the file of the table's name.
    #[serde(default)]
    pub files: Option<String>,
    /// What the files are, where they are something else than the source says.
    #[serde(default)]
    pub format: FileFormat,
    /// The columns that tell rows apart. Files know none.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub key: Vec<String>,
    /// The character between fields: `;`, `|`, `\t`. Told by the header by default.
    #[serde(default)]
    pub delimiter: Option<char>,
    /// `utf-8`, `gbk` (or `gb18030`), `big5`, `utf-16le`, `utf-16be`, or any name that browsers know. Told by the bytes by default;
    /// where they do not tell, reading fails and asks for this.
    #[serde(default)]
    pub encoding: Option<String>,
    /// Lines, or rows of a sheet, before the header.
    #[serde(default)]
    pub skip_rows: u32,
    /// Rows of a header: 0 where there is none, and columns are `c1`, `c2`, …; several are joined by `_`, and merged cells of a
    /// sheet count for all columns they span.
    #[serde(default = "one")]
    #[schemars(extend("default" = 1))]
    pub header_rows: u32,
    /// The sheet of a workbook; by default the table is `book.sheet`, or `book` where there is one sheet.
    #[serde(default)]
    pub sheet: Option<String>,
    /// Texts that mean NULL. By default the empty one.
    #[serde(default = "empty_text")]
    #[schemars(extend("default" = [""]))]
    pub nulls: Vec<String>,
    /// How dates are written, as `strftime` says it: `%d/%m/%Y`, `%d/%m/%Y %H:%M`. By default years come first:
    /// `2026-01-31`, `2026/1/31`, `2026.1.31`, `2026年1月31日`, with a time of day or without.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub date_formats: Vec<String>,
    /// Types of columns that the values would not tell: `{code: text, amount: "decimal(12,2)"}`. Of `bigint`, `decimal(p,s)`, `double`,
    /// `boolean`, `date`, `time`, `datetime`, `datetime(6)`, `timestamp`, `json`, `text`, `varchar(n)`. A value that does not fit makes
    /// its row a bad one.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub columns: BTreeMap<String, String>,
}

/// `kind: access`: a database file of Microsoft Access, 97 to 2019.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// `access`.
    pub kind: AccessKind,
    /// The `.mdb` or `.accdb` file, relative to the project. It is copied before it is read, so that a user who has it open is
    /// not disturbed, and never written.
    pub path: PathBuf,
    /// A reference: `${env:NAME}` or `${file:PATH}`. Only files of 2007 and later need it; the password of an older one does not
    /// hide its rows.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub password: Option<Secret>,
}

/// `kind: http` with `url`: tables that an HTTP API answers as JSON.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpApiConfig {
    /// `http`.
    pub kind: HttpKind,
    /// What all tables' paths begin with: `https://api.example.com/v1`. May hold a reference.
    #[schemars(with = "String")]
    pub url: Secret,
    /// Headers of every request. Values are references where they are secrets.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>", extend("default" = {}))]
    pub headers: BTreeMap<String, Secret>,
    /// Who we are.
    #[serde(default)]
    pub auth: Option<HttpAuth>,
    /// How requests are signed.
    #[serde(default)]
    pub sign: Option<HttpSign>,
    /// Sends `auth` and other logins over `http://` to another machine, where everybody on the way can read them.
    #[serde(default)]
    pub insecure: bool,
    /// The tables, by name.
    pub tables: BTreeMap<String, HttpTable>,
    /// Longest wait for an answer.
    #[serde(default = "answer_wait")]
    #[schemars(with = "String", extend("default" = "30s"))]
    pub timeout: Span,
    /// Largest answer; a larger one is an error.
    #[serde(default = "answer_max")]
    #[schemars(with = "String", extend("default" = "32MiB"))]
    pub answer_max: ByteSize,
    /// Requests a second, at most; unbounded by default.
    #[serde(default)]
    pub requests_per_second: Option<f64>,
    /// The authorities that alone are trusted for `https`: a PEM file, relative to the project. By default those of the system.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
}

/// Who we are for an API: one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HttpAuth {
    /// `Authorization: Bearer …`.
    Bearer {
        /// The token, a reference.
        #[schemars(with = "String")]
        token: Secret,
    },
    /// `Authorization: Basic …`.
    Basic {
        /// The name.
        user: String,
        /// The password, a reference.
        #[schemars(with = "String")]
        password: Secret,
    },
    /// A token that is fetched with client credentials (RFC 6749, 4.4), and anew when it expires or is refused.
    #[serde(rename = "oauth2")]
    OAuth2 {
        /// Where tokens are given: `https://login.example.com/oauth2/token`.
        #[schemars(with = "String")]
        token_url: Secret,
        /// The name that we are known by there.
        client_id: String,
        /// Its secret, a reference.
        #[schemars(with = "String")]
        client_secret: Secret,
        /// What the token is to allow; nothing is asked for by default.
        #[serde(default)]
        scope: Option<String>,
        /// Sends id and secret in the form in place of the `Authorization` header.
        #[serde(default)]
        in_body: bool,
    },
}

/// A signature as exchange platforms want it: over parameters that are sorted by name.
///
/// With the defaults, `appKey`, `timestamp` and `nonce` are added to the query, all its parameters are sorted and joined as
/// `name=value&name=value`, and `sign` is added: the signature of that text in small hexadecimal digits.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSign {
    /// The name that we are known by.
    pub app_key: String,
    /// What the signature is made with.
    #[schemars(with = "String")]
    pub secret: Secret,
    /// What makes it.
    #[serde(default)]
    pub method: SignMethod,
    /// The text that is signed. `{params}` are the sorted parameters, `{app_key}`, `{timestamp}`, `{nonce}`, `{secret}`, `{method}`, `{path}`
    /// and `{body}` stand for themselves. For `md5` the secret must be in it.
    #[serde(default = "sign_text")]
    #[schemars(extend("default" = "{params}"))]
    pub text: String,
    /// What stands between a name and its value in `{params}`.
    #[serde(default = "equals")]
    #[schemars(extend("default" = "="))]
    pub between: String,
    /// What stands between two parameters in `{params}`.
    #[serde(default = "ampersand")]
    #[schemars(extend("default" = "&"))]
    pub join: String,
    /// How the signature is written.
    #[serde(default)]
    pub form: SignForm,
    /// Where what is added is sent.
    #[serde(default)]
    pub carried_in: SignPlace,
    /// Name of the parameter or header that carries the app key.
    #[serde(default = "app_key")]
    #[schemars(extend("default" = "appKey"))]
    pub app_key_name: String,
    /// Of that which carries the time, in milliseconds since 1970.
    #[serde(default = "timestamp")]
    #[schemars(extend("default" = "timestamp"))]
    pub timestamp_name: String,
    /// Seconds since 1970 in place of milliseconds.
    #[serde(default)]
    pub timestamp_in_seconds: bool,
    /// Of that which carries a random text, new for each request.
    #[serde(default = "nonce")]
    #[schemars(extend("default" = "nonce"))]
    pub nonce_name: String,
    /// Of that which carries the signature.
    #[serde(default = "sign")]
    #[schemars(extend("default" = "sign"))]
    pub sign_name: String,
}

/// What makes a signature.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SignMethod {
    /// HMAC-SHA256 with the secret as its key.
    #[default]
    HmacSha256,
    /// Plain MD5 of a text that holds the secret. Old platforms know nothing else.
    Md5,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SignForm {
    /// Small hexadecimal digits.
    #[default]
    Hex,
    /// Hexadecimal digits in capitals.
    HexUpper,
    /// Base64 with padding.
    Base64,
}

/// Where what a signature adds is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SignPlace {
    /// As parameters beside the others.
    #[default]
    Query,
    /// As headers; `{params}` are the others alone.
    Headers,
}

/// A table that an API answers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpTable {
    /// Behind the source's URL: `/orders`. `{cursor}` stands for the value that a flow with `mode: cursor` goes on at.
    pub path: String,
    /// How it is asked for.
    #[serde(default)]
    pub method: HttpMethod,
    /// Parameters of the query. `{cursor}` as in `path`; a parameter with it is left out at the first run.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub query: BTreeMap<String, String>,
    /// The JSON body of a POST. `{cursor}`, `{page}`, `{offset}`, `{size}` and `{next}` in its texts are replaced; a text that is
    /// only `{page}`, `{offset}` or `{size}` becomes a number.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    pub body: Option<serde_json::Value>,
    /// Sends the parameters of the query as a form in the body of a POST.
    #[serde(default)]
    pub form: bool,
    /// How `{cursor}` writes a date or a time, as `strftime` says it: `%Y-%m-%dT%H:%M:%SZ`, `%s`. As MySQL prints it by default.
    #[serde(default)]
    pub cursor_format: Option<String>,
    /// Texts that mean NULL, besides JSON's own null.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub nulls: Vec<String>,
    /// How dates are written, as for files.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub date_formats: Vec<String>,
    /// Where the rows are in an answer: `$.data.items`. By default the answer itself is the array.
    #[serde(default = "root")]
    #[schemars(extend("default" = "$"))]
    pub rows: String,
    /// What an answer must say of itself: `{path: "$.code", equals: "0"}`. One that says something else is an error, whatever its
    /// status.
    #[serde(default)]
    pub ok: Option<HttpOk>,
    /// How more rows come than one answer holds.
    #[serde(default)]
    pub paging: HttpPaging,
    /// The columns that tell rows apart.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub key: Vec<String>,
    /// Types of columns, as for files. With `only_declared` these are all there are; otherwise the others are told by the first
    /// pages' values.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub columns: BTreeMap<String, String>,
    /// Takes the columns of `columns` and asks nothing to find out others.
    #[serde(default)]
    pub only_declared: bool,
    /// Pages that are read to find out columns.
    #[serde(default = "pages_described")]
    #[schemars(extend("default" = 3))]
    pub pages_described: u32,
}

/// How a table is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// With parameters in the query.
    #[default]
    Get,
    /// With a body, or parameters as a form.
    Post,
}

/// What an answer says when all is well.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpOk {
    /// Where it says so: `$.code`.
    pub path: String,
    /// What it says; a number or a boolean as text.
    pub equals: String,
    /// Where it says what is wrong: `$.message`.
    #[serde(default)]
    pub message: Option<String>,
}

/// How an API gives more rows than one answer holds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpPaging {
    /// How pages follow each other.
    #[serde(default)]
    pub style: PagingStyle,
    /// The parameter of the page, the offset or the cursor: `page`, `offset`, `cursor` by default. Of a POST it is put into the query too,
    /// unless its body names `{page}`, `{offset}` or `{next}`.
    #[serde(default)]
    pub parameter: Option<String>,
    /// The parameter of the page's size; not sent by default.
    #[serde(default)]
    pub size_parameter: Option<String>,
    /// Rows of a page: a shorter one is the last. Without it, an empty page is the last.
    #[serde(default)]
    pub size: Option<u32>,
    /// The number of the first page: 1 by default.
    #[serde(default)]
    pub first: Option<u32>,
    /// For `cursor` and `next_url`: where the answer says how to go on: `$.next`. Absent, null or empty: that was all.
    #[serde(default)]
    pub next: Option<String>,
    /// Most pages of one read: more is an error, so that an API that pages for ever is found out. 10000 by default.
    #[serde(default)]
    pub pages_max: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PagingStyle {
    /// One answer has all.
    #[default]
    None,
    /// Pages are numbered.
    Page,
    /// A page begins behind so many rows.
    Offset,
    /// An answer holds a text that the next request repeats.
    Cursor,
    /// The header `Link: <…>; rel="next"` (RFC 8288).
    LinkHeader,
    /// An answer holds the next URL.
    NextUrl,
}

/// `kind: singer`: a tap, a program that prints rows as the Singer specification says.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SingerConfig {
    /// `singer`.
    pub kind: SingerKind,
    /// The program and its arguments: `[tap-github]`. It runs in the project's folder with the node's rights.
    pub command: Vec<String>,
    /// What the tap reads as `--config`: written to a file that only the node's user can read, and removed afterwards.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>", extend("default" = {}))]
    pub config: BTreeMap<String, serde_json::Value>,
    /// Texts of `config` that are secrets, by their key: `{access_token: "${env:TOKEN}"}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>", extend("default" = {}))]
    pub secrets: BTreeMap<String, Secret>,
    /// Environment of the program, besides `PATH`, `HOME` and `LANG`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>", extend("default" = {}))]
    pub env: BTreeMap<String, Secret>,
    /// A tap that prints nothing for so long has failed.
    #[serde(default = "silence_max")]
    #[schemars(with = "String", extend("default" = "10m"))]
    pub silence_max: Span,
}

/// The word of `kind` itself.
macro_rules! kind {
    ($name:ident, $word:ident) => {
        #[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            #[default]
            $word,
        }
    };
}

kind!(FilesKind, Files);
kind!(AccessKind, Access);
kind!(HttpKind, Http);
kind!(SingerKind, Singer);

fn excel_max() -> ByteSize {
    ByteSize(64 << 20)
}

fn answer_max() -> ByteSize {
    ByteSize(32 << 20)
}

fn answer_wait() -> Span {
    Span(std::time::Duration::from_secs(30))
}

fn silence_max() -> Span {
    Span(std::time::Duration::from_secs(600))
}

fn one() -> u32 {
    1
}

fn pages_described() -> u32 {
    3
}

fn empty_text() -> Vec<String> {
    vec![String::new()]
}

fn root() -> String {
    "$".to_owned()
}

fn sign_text() -> String {
    "{params}".to_owned()
}

fn equals() -> String {
    "=".to_owned()
}

fn ampersand() -> String {
    "&".to_owned()
}

fn app_key() -> String {
    "appKey".to_owned()
}

fn timestamp() -> String {
    "timestamp".to_owned()
}

fn nonce() -> String {
    "nonce".to_owned()
}

fn sign() -> String {
    "sign".to_owned()
}

impl FileTable {
    /// What a table has that is not named.
    pub fn unnamed() -> Self {
        Self { header_rows: one(), nulls: empty_text(), ..Self::default() }
    }
}
