//! Tables of HTTP APIs, good ones and bad ones: a server of the test's own answers each request as the test says.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::{Date, DateTime, Fault, Retry, Value};
use collect::reader::{BadRow, ReadError, Reader, Scope};
use collect::readers::config::HttpApiConfig;
use collect::readers::http_api::HttpApi;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as the server saw it.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: String,
}

impl Asked {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Status, headers and body.
type Said = (u16, Vec<(&'static str, String)>, String);

fn said(body: impl Into<String>) -> Said {
    (200, Vec::new(), body.into())
}

struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Answers on a free port until the test ends. The closure gets the number of the request, from 0.
async fn serve(answer: impl Fn(usize, &Asked) -> Said + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (kept, answer) = (Arc::clone(&asked), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, Arc::clone(&kept), Arc::clone(&answer)));
        }
    });
    Server { url, asked }
}

async fn connection(
    mut stream: TcpStream,
    kept: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<impl Fn(usize, &Asked) -> Said + Send + Sync + 'static>,
) {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
        let mut lines = text.lines();
        let mut first = lines.next().unwrap().split(' ');
        let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .map_or(0, |(_, it)| it.parse().unwrap());
        while bytes.len() < head + length {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = String::from_utf8(bytes[head..head + length].to_vec()).unwrap();
        bytes.drain(..head + length);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let plain =
            |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let pairs = |text: &str| -> Vec<(String, String)> {
            let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (plain(name), plain(value))).collect()
        };
        let asked = Asked { method, path: path.to_owned(), query: pairs(query), headers, body };
        let number = {
            let mut kept = kept.lock().unwrap();
            kept.push(asked.clone());
            kept.len() - 1
        };
        let (status, headers, body) = answer(number, &asked);
        let mut out = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| out += &format!("{name}: {value}\r\n"));
        if stream.write_all(format!("{out}\r\n{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn api(server: &Server, rest: &str) -> HttpApi {
    let text = format!("kind: http\nurl: {}\n{rest}", server.url);
    let config: HttpApiConfig =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    HttpApi::check(&config, Path::new(".")).unwrap();
    HttpApi::new(config, Path::new("."))
}

struct Whole {
    types: Vec<(String, String)>,
    rows: Vec<Vec<Value>>,
    bad: Vec<BadRow>,
}

async fn whole(api: &mut HttpApi, table: &str, scope: Scope) -> Result<Whole, ReadError> {
    let described = api.describe(table).await?;
    let mut batches = api.read(&described, scope).await?;
    let types = described.columns.iter().map(|it| (it.name.clone(), it.sql_type.clone())).collect();
    let mut whole = Whole { types, rows: Vec::new(), bad: Vec::new() };
    while let Some(batch) = batches.next().await? {
        whole.rows.extend(batch.rows);
        whole.bad.extend(batch.bad);
    }
    Ok(whole)
}

async fn error_of(api: &mut HttpApi, table: &str) -> ReadError {
    whole(api, table, Scope::All).await.err().expect("an error")
}

/// Rows `from + 1` to `to` of orders.
fn orders(from: usize, to: usize) -> String {
    let rows: Vec<String> = (from + 1..=to)
        .map(|n| format!(r#"{{"id": {n}, "amount": {n}.50, "at": "2026-01-31 08:30:00"}}"#))
        .collect();
    format!("[{}]", rows.join(", "))
}

fn page_of(number: Option<&str>, size: usize, all: usize) -> String {
    let number: usize = number.unwrap_or("1").parse().unwrap();
    orders(((number - 1) * size).min(all), (number * size).min(all))
}

fn ids(whole: &Whole) -> Vec<Value> {
    whole.rows.iter().map(|row| row[0].clone()).collect()
}

fn numbers(to: i64) -> Vec<Value> {
    (1..=to).map(Value::Int).collect()
}

#[tokio::test]
async fn every_style_of_paging_gives_all_rows_once() {
    let server = serve(|_, asked| {
        let at = |name| asked.parameter(name);
        match asked.path.as_str() {
            "/v1/none" => said(orders(0, 25)),
            "/v1/page" => {
                said(format!(r#"{{"code": 0, "data": {{"items": {}}}}}"#, page_of(at("pageNo"), 10, 25)))
            }
            "/v1/exact" => said(page_of(at("page"), 5, 25)),
            "/v1/offset" => {
                let from: usize = at("offset").unwrap().parse().unwrap();
                said(orders(from.min(25), (from + 10).min(25)))
            }
            "/v1/cursor" => {
                let from: usize = at("after").unwrap_or("0").parse().unwrap();
                let next = if from + 10 < 25 { (from + 10).to_string() } else { "null".into() };
                said(format!(r#"{{"rows": {}, "next": {next}}}"#, orders(from, (from + 10).min(25))))
            }
            "/v1/next" => {
                let number = at("p").unwrap_or("1");
                let next = if number == "3" {
                    "null".into()
                } else {
                    format!("\"/v1/next?p={}&x=%E5%BC%A0\"", number.parse::<i32>().unwrap() + 1)
                };
                said(format!(r#"{{"rows": {}, "links": {{"next": {next}}}}}"#, page_of(Some(number), 10, 25)))
            }
            "/v1/link" => {
                let number: usize = at("p").unwrap_or("1").parse().unwrap();
                let link = format!(
                    "<http://{}/v1/link?p={}>; rel=\"next\", </v1/link>; rel=\"first\"",
                    asked.header("host").unwrap(),
                    number + 1
                );
                let headers = if number < 3 { vec![("link", link)] } else { Vec::new() };
                (200, headers, page_of(Some(&number.to_string()), 10, 25))
            }
            "/v1/post" => {
                let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
                assert_eq!((asked.method.as_str(), &body["size"]), ("POST", &serde_json::json!(10)));
                said(page_of(Some(&body["page"].as_u64().unwrap().to_string()), 10, 25))
            }
            other => panic!("{other}"),
        }
    })
    .await;
    let mut api = api(
        &Server { url: format!("{}/v1", server.url), asked: server.asked },
        r#"
tables:
  none: {path: /none}
  page: {path: /page, rows: $.data.items, ok: {path: $.code, equals: "0"}, paging: {style: page, parameter: pageNo, size: 10, size_parameter: pageSize}}
  exact: {path: /exact, paging: {style: page}}
  offset: {path: /offset, paging: {style: offset, size: 10}}
  cursor: {path: /cursor, rows: $.rows, paging: {style: cursor, parameter: after, next: $.next}}
  next: {path: /next, rows: $.rows, paging: {style: next_url, next: $.links.next}}
  link: {path: /link, paging: {style: link_header}}
  post: {path: /post, method: POST, body: {page: "{page}", size: "{size}"}, paging: {style: page, size: 10}}
"#,
    );
    for table in api.tables().await.unwrap() {
        let whole =
            whole(&mut api, &table, Scope::All).await.unwrap_or_else(|error| panic!("{table}: {error}"));
        assert_eq!((ids(&whole), whole.bad.len()), (numbers(25), 0), "{table}");
        let types: Vec<&str> = whole.types.iter().map(|(_, ty)| ty.as_str()).collect();
        assert_eq!(types, ["bigint", "decimal(18,2)", "datetime"], "{table}");
    }
}

#[tokio::test]
async fn an_api_that_pages_for_ever_is_found_out() {
    let server = serve(|number, asked| match asked.path.as_str() {
        "/same" => said(orders(0, 10)),
        "/cursor" => said(format!(r#"{{"rows": {}, "next": "abc"}}"#, orders(number, number + 1))),
        "/endless" => said(orders(number, number + 1)),
        "/elsewhere" => said(format!(r#"{{"rows": {}, "next": "http://127.0.0.2:9/x"}}"#, orders(0, 1))),
        other => panic!("{other}"),
    })
    .await;
    let mut api = api(
        &server,
        r#"
tables:
  same: {path: /same, paging: {style: page}}
  cursor: {path: /cursor, rows: $.rows, paging: {style: cursor, next: $.next}}
  endless: {path: /endless, paging: {style: page, pages_max: 20}}
  elsewhere: {path: /elsewhere, rows: $.rows, paging: {style: next_url, next: $.next}}
"#,
    );
    for (table, wanted) in [
        ("same", "same, page 2 is the page before it once more"),
        ("cursor", "the API goes on where it was before"),
        ("endless", "endless: the API has more than 20 pages"),
        ("elsewhere", "it is of another server, which is not shown our login"),
    ] {
        let error = error_of(&mut api, table).await;
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn answers_that_are_errors_whatever_their_status_say_so_without_our_secrets() {
    let server = serve(|_, asked| match asked.path.as_str() {
        "/code" => said(r#"{"code": 4001, "message": "appKey t0ken-secret is not known", "data": null}"#),
        "/html" => said("<html>maintenance</html>"),
        "/lost" => said(r#"{"data": {"list": []}}"#),
        "/denied" => (403, Vec::new(), "no t0ken-secret".into()),
        "/moved" => (302, vec![("location", "/x".into())], String::new()),
        "/large" => said(format!("[{}]", "1,".repeat(2000))),
        "/cut" => said(r#"[{"id": 1}, {"id": "#),
        other => panic!("{other}"),
    })
    .await;
    let mut api = api(
        &server,
        r#"
answer_max: 2KiB
auth: {bearer: {token: t0ken-secret}}
tables:
  code: {path: /code, rows: $.data, ok: {path: $.code, equals: "0", message: $.message}}
  html: {path: /html}
  lost: {path: /lost, rows: $.data.items}
  denied: {path: /denied}
  moved: {path: /moved}
  large: {path: /large}
  cut: {path: /cut}
"#,
    );
    for (table, wanted) in [
        (
            "code",
            "code, page 1: the API answers an error: 4001 where `0` means well: appKey [redacted] is not known",
        ),
        ("html", "the answer is no JSON: <html>maintenance</html>"),
        ("lost", "there are no rows at $.data.items"),
        ("denied", "the API answers 403 Forbidden: no [redacted]"),
        ("moved", "the API answers 302"),
        ("large", "the answer has more than 2048 bytes"),
        ("cut", "the answer is no JSON"),
    ] {
        let error = error_of(&mut api, table).await;
        assert!(error.to_string().contains(wanted) && !format!("{error:?}").contains("t0ken"), "{error}");
        assert_eq!(error.retry(), Retry::Never);
    }
    assert_eq!(server.asked.lock().unwrap()[0].header("authorization"), Some("Bearer t0ken-secret"));
}

#[tokio::test]
async fn a_server_that_is_busy_or_away_is_asked_again() {
    let server = serve(|number, _| match number {
        0 => (429, vec![("retry-after", "1".into())], String::new()),
        1 => (503, Vec::new(), "try later".into()),
        _ => said(orders(0, 2)),
    })
    .await;
    let mut busy = api(&server, "tables: {orders: {path: /orders}}");
    let started = std::time::Instant::now();
    assert_eq!(ids(&whole(&mut busy, "orders", Scope::All).await.unwrap()), numbers(2));
    assert!(started.elapsed() >= std::time::Duration::from_secs(1));
    let long = serve(|_, _| (429, vec![("retry-after", "86400".into())], String::new())).await;
    let error = error_of(&mut api(&long, "tables: {orders: {path: /orders}}"), "orders").await;
    assert!(error.to_string().contains("it asks to wait for 86400 s"), "{error}");
    assert_eq!((error.retry(), long.asked.lock().unwrap().len()), (Retry::Backoff, 1));
}

#[tokio::test]
async fn what_an_api_repeats_of_the_url_is_not_shown() {
    let mut server = serve(|_, asked| {
        let login = asked.header("authorization").unwrap_or_default().to_owned();
        match asked.path.rsplit('/').next() {
            Some("cut") => (403, Vec::new(), format!("{}xoxb-123456 and more", " ".repeat(2395))),
            _ => (403, Vec::new(), format!("no {login}, p@ssw0rd at {}", asked.path)),
        }
    })
    .await;
    server.url = server.url.replace("http://", "http://me:p%40ssw0rd@") + "/hooks/xoxb-123456";
    let tables = "tables: {orders: {path: /orders}, cut: {path: /cut}}";
    let error = error_of(&mut api(&server, tables), "orders").await.to_string();
    assert!(error.contains("no Basic [redacted], [redacted] at /hooks/[redacted]/orders"), "{error}");
    let error = error_of(&mut api(&server, tables), "cut").await.to_string();
    assert!(error.contains("403 Forbidden: [redacted]") && !error.contains("xoxb"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = Server { url, asked: Arc::default() };
    let error =
        error_of(&mut api(&silent, "timeout: 10ms\ntables: {orders: {path: /orders}}"), "orders").await;
    assert!(error.to_string().contains("cannot be reached: no answer"), "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
}

#[tokio::test]
async fn a_token_is_fetched_once_and_anew_when_it_is_refused() {
    let server = serve(|number, asked| match asked.path.as_str() {
        "/token" => {
            assert_eq!(asked.header("authorization"), Some("Basic YXBwOnMzY3JldC0x"));
            assert_eq!(asked.body, "grant_type=client_credentials&scope=orders%2Eread");
            said(format!(r#"{{"access_token": "t{number}", "token_type": "bearer", "expires_in": 3600}}"#))
        }
        // The first token is revoked behind the first page.
        _ if asked.parameter("page") == Some("2") && asked.header("authorization") == Some("Bearer t0") => {
            (401, Vec::new(), "expired".into())
        }
        _ => said(page_of(asked.parameter("page"), 2, 3)),
    })
    .await;
    let rest = format!(
        "auth: {{oauth2: {{token_url: '{}/token', client_id: app, client_secret: s3cret-1, scope: orders.read}}}}\n",
        server.url
    );
    let table = "tables: {orders: {path: /orders, only_declared: true, columns: {id: bigint}, paging: {style: page, size: 2}}}";
    let mut api = api(&server, &(rest + table));
    let described = api.describe("orders").await.unwrap();
    let mut batches = api.read(&described, Scope::All).await.unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = batches.next().await.unwrap() {
        rows.extend(batch.rows);
    }
    assert_eq!(rows.into_iter().flatten().collect::<Vec<_>>(), numbers(3));
    let paths: Vec<String> = server.asked.lock().unwrap().iter().map(|asked| asked.path.clone()).collect();
    assert_eq!(paths, ["/token", "/orders", "/orders", "/token", "/orders"]);

    let refused = serve(|_, asked| match asked.path.as_str() {
        "/token" => (400, Vec::new(), r#"{"error": "invalid_client", "got": "s3cret-1"}"#.into()),
        _ => (401, Vec::new(), String::new()),
    })
    .await;
    let rest = format!(
        "auth: {{oauth2: {{token_url: '{}/token', client_id: app, client_secret: s3cret-1, in_body: true}}}}\n",
        refused.url
    );
    let error =
        error_of(&mut self::api(&refused, &(rest + "tables: {orders: {path: /orders}}")), "orders").await;
    assert!(matches!(error, ReadError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("no token") && !error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_flow_goes_on_where_it_was_and_requests_are_signed() {
    let server = serve(|_, _| said(orders(0, 3))).await;
    let mut api = api(
        &server,
        r#"
sign: {app_key: demo, secret: s3cret}
tables:
  orders: {path: /orders, query: {since: "{cursor}", kind: 城市}, cursor_format: "%Y-%m-%dT%H:%M:%SZ"}
  forms: {path: /forms, method: POST, form: true, query: {since: "{cursor}"}}
"#,
    );
    let described = api.describe("orders").await.unwrap();
    let at = DateTime { date: Date { year: 2026, month: 1, day: 31 }, hour: 8, ..DateTime::default() };
    let scope = Scope::From { column: "at".into(), value: Some(Value::DateTime(at)) };
    let mut batches = api.read(&described, scope).await.unwrap();
    assert_eq!(batches.next().await.unwrap().unwrap().rows.len(), 3);
    let scope = Scope::From { column: "id".into(), value: Some(Value::Int(3)) };
    let forms = api.describe("forms").await.unwrap();
    let mut batches = api.read(&forms, scope).await.unwrap();
    // The API gave more than was asked for: only what is not before the cursor is taken.
    assert_eq!(batches.next().await.unwrap().unwrap().rows.len(), 1);
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(
        (asked[0].parameter("since"), asked[1].parameter("since")),
        (None, Some("2026-01-31T08:00:00Z"))
    );
    assert_eq!((asked[1].parameter("kind"), asked[1].parameter("appKey")), (Some("城市"), Some("demo")));
    assert_eq!(asked[1].parameter("sign").map(str::len), Some(64));
    assert_ne!(asked[0].parameter("nonce"), asked[1].parameter("nonce"));
    assert_eq!((asked[3].query.len(), asked[3].body.contains("since=3")), (0, true));
    assert_eq!(asked[3].header("content-type"), Some("application/x-www-form-urlencoded"));
}

#[tokio::test]
async fn items_that_are_no_rows_are_told_by_page_and_item() {
    let server = serve(|_, asked| match asked.parameter("page") {
        Some("1") => said(r#"[{"id": 1, "n": 5}, {"id": 2, "n": null}]"#),
        Some("2") => said(r#"[{"id": 3, "n": "five"}, 7, {"id": 4, "more": {}}]"#),
        _ => said("[]"),
    })
    .await;
    let mut api = api(&server, "tables: {t: {path: /t, pages_described: 1, paging: {style: page}}}");
    let whole = whole(&mut api, "t", Scope::All).await.unwrap();
    assert_eq!(whole.rows.len(), 3);
    let told: Vec<(&str, &str)> =
        whole.bad.iter().map(|bad| (bad.place.as_str(), bad.text.as_str())).collect();
    assert_eq!(told, [("page 2, item 1", "3,five"), ("page 2, item 2", "7")]);
}

#[test]
fn secrets_are_not_sent_in_clear_to_another_machine() {
    let oauth = "auth: {oauth2: {token_url: 'http://login.example.com/t', client_id: a, client_secret: b}}";
    let bearer = "auth: {bearer: {token: abc}}";
    for (url, rest, wanted) in [
        ("http://api.example.com/v1", bearer, "`auth` would go to api.example.com over http://"),
        ("http://me:pw@10.0.0.7:8080", "", "the login of `url` would go to 10.0.0.7"),
        ("http://[fd00::1]:80/x", "headers: {X-Api-Key: abc}", "the header `X-Api-Key` would go to fd00::1"),
        ("https://api.example.com", oauth, "`client_secret` would go to login.example.com"),
        ("http://api.example.com", "", ""),
        ("http://api.example.com", "headers: {accept-language: zh}", ""),
        ("http://api.example.com", "auth: {bearer: {token: abc}}\ninsecure: true", ""),
        ("http://localhost:8080", bearer, ""),
        ("http://127.0.0.1:8080", bearer, ""),
        ("http://[::1]:8080", bearer, ""),
    ] {
        let text = format!("kind: http\nurl: '{url}'\ntables: {{}}\n{rest}");
        let config: HttpApiConfig = serde_saphyr::from_str(&text).unwrap();
        let wrong = HttpApi::check(&config, Path::new(".")).err().unwrap_or_default();
        assert!(if wanted.is_empty() { wrong.is_empty() } else { wrong.contains(wanted) }, "{text}: {wrong}");
    }
}

#[tokio::test]
async fn what_is_wrong_in_the_configuration_is_named_before_anyone_is_asked() {
    for (rest, wanted) in [
        ("url: ftp://x\ntables: {}", "does not begin with http"),
        ("url: http://x/?a=b\ntables: {}", "the url has a query"),
        ("url: http://x\ntables: {t: {path: /t, paging: {style: cursor}}}", "`paging` needs `next`"),
        ("url: http://x\ntables: {t: {path: /t, rows: '$.a[b]'}}", "is no path"),
        ("url: http://x\ntables: {t: {path: /t, body: {a: 1}}}", "`body` is of `method: POST`"),
        (
            "url: http://x\nsign: {app_key: a, secret: b, method: md5}\ntables: {}",
            "an md5 without the secret",
        ),
    ] {
        let config: HttpApiConfig = serde_saphyr::from_str(&format!("kind: http\n{rest}")).unwrap();
        let wrong = HttpApi::check(&config, Path::new(".")).unwrap_err();
        assert!(wrong.contains(wanted), "{wrong}");
    }
}
