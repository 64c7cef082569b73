//! Who may call the HTTP port: tokens, what they are good for, and how they end.

use crate::node::Node;
use client::v1::subscribe_response::Event;
use client::v1::value::Kind;
use client::v1::{OrderBy, Shape};
use client::{Heard, Subscription};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const SHOP: &str = "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n";
/// A token that is no good must not be good for longer than this, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

fn shop() -> Node {
    let node = Node::new(&[
        ("sources/shop.yaml", SHOP.into()),
        ("sinks/out.yaml", "kind: files\npath: ./out\n".into()),
        ("flows/to_out.yaml", "from: shop\nto: out\n".into()),
    ]);
    let db = rusqlite::Connection::open(node.path("shop.db")).unwrap();
    db.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (1), (2)")
        .unwrap();
    node
}

/// Makes a token by the command line, as its script would.
fn create(node: &Node, args: &[&str]) -> String {
    let (code, out, err) = node.run(&[&["token", "create"], args].concat());
    assert_eq!(code, 0, "{err}");
    let token = out.trim().to_owned();
    assert!(token.starts_with("tidemill_") && token.len() == 52, "{out}");
    token
}

struct Caller {
    client: Client,
    base: String,
}

impl Caller {
    fn of(node: &Node) -> Self {
        Self { client: Client::new(), base: format!("http://{}", node.address()) }
    }

    fn get(&self, path: &str, token: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base)).bearer_auth(token)
    }

    async fn status(&self, request: RequestBuilder) -> u16 {
        request.send().await.unwrap().status().as_u16()
    }
}

/// Whether any file below the folder has this text.
fn is_kept(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_kept(&path, text);
        }
        let bytes = fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_every_request_needs_one_that_is_good_for_it() {
    let mut node = shop();
    node.start();
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 2).await;
    let call = Caller::of(&node);
    let bare = |path: &str| call.client.get(format!("{}{path}", call.base));
    assert_eq!(call.status(bare("/api/v1/status")).await, 200, "no token is needed yet");
    let boss = create(&node, &["boss", "--scope", "admin"]);
    let (code, _, err) = node.run(&["status"]);
    assert!(code == 3 && err.contains("a token is needed") && err.contains("TIDEMILL_TOKEN"), "{code} {err}");
    assert_eq!(call.status(bare("/healthz")).await, 200);
    assert_eq!(call.status(bare("/readyz")).await, 200);
    let page = bare("/").send().await.unwrap();
    assert_eq!(page.status(), 200, "it says nothing by itself, and asks for a token");
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("form-action 'none'"));
    for path in ["/metrics", "/api/v1/status", "/nothing", "/api/v1/tokens"] {
        let refused = bare(path).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(refused.headers()["www-authenticate"], "Bearer realm=\"tidemill\"");
        assert_eq!(refused.headers()["content-type"], "application/problem+json");
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "unauthenticated");
    }
    let file = node.path("boss.token");
    fs::write(&file, format!("{boss}\n")).unwrap();
    let (code, out, err) = node.run(&["token", "list", "--json", "--bearer-file", file.to_str().unwrap()]);
    assert!(code == 0 && !out.contains(&boss), "{code} {err}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()[0]["name"], "boss");
    node.env(&[("TIDEMILL_TOKEN", &boss)]);
    node.wait("commands bring the token", |s| s["flows"][0]["state"] == "running").await;

    let reader = create(&node, &["reader", "--scope", "read", "--expires", "30d"]);
    let phone =
        ["phone", "--scope", "subscribe:shop,push:crm", "--rows", "shop.orders=id = \"1\"", "--columns"];
    let phone = create(&node, &[&phone[..], &["shop.orders=id"]].concat());
    assert_eq!(call.status(call.get("/api/v1/status", &reader)).await, 200);
    assert_eq!(call.status(call.get("/nothing", &reader)).await, 404);
    assert_eq!(
        call.status(call.client.head(format!("{}/metrics", call.base)).bearer_auth(&reader)).await,
        200
    );
    let post = |path: &str, token: &str| call.client.post(format!("{}{path}", call.base)).bearer_auth(token);
    for (path, token) in [
        ("/api/v1/flows/to_out:pause", &reader),
        ("/api/v1/flows/to_out:pause", &phone),
        ("/api/v1/tokens", &reader),
        ("/api/v1/sources/shop/changes", &phone),
        ("/api/v1/sources/shop/changes", &reader),
    ] {
        let refused = post(path, token).body("{}").send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{path}");
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "permission_denied");
    }
    // Past the guard: there is no such source.
    assert_eq!(call.status(post("/api/v1/sources/crm/changes", &phone)).await, 404);
    for path in [
        "/api/v1/status",
        "/api/v1/sources/shop/changes?from=start",
        "/api/v1/cache/to_out/1",
        "/api/v1/search/to_out",
    ] {
        assert_eq!(call.status(call.get(path, &phone)).await, 403, "{path}");
    }
    let known: Value = call.get("/api/v1/caller", &phone).send().await.unwrap().json().await.unwrap();
    assert_eq!(known["rows"], json!({"shop.orders": "id = \"1\""}));
    assert_eq!((&known["columns"], &known["name"]), (&json!({"shop.orders": ["id"]}), &json!("phone")));
    assert_eq!(call.status(post("/api/v1/flows/to_out:pause", &boss)).await, 200);

    // What is not a token, and what is in the wrong place.
    let with = |value: &str| bare("/api/v1/status").header("authorization", value);
    assert_eq!(call.status(with(&format!("bearer {reader}"))).await, 200);
    for wrong in [
        "Bearer",
        "Bearer ",
        &format!("Basic {reader}"),
        &reader,
        &format!("Bearer {reader}x"),
        "Bearer \u{ff}",
    ] {
        assert_eq!(call.status(with(wrong)).await, 401, "{wrong}");
    }
    let twice = with(&format!("Bearer {phone}")).header("authorization", format!("Bearer {reader}"));
    assert_eq!(call.status(twice).await, 400);
    for query in [format!("access_token={reader}"), format!("x={reader}"), "Token=x".to_owned()] {
        assert_eq!(call.status(call.get(&format!("/api/v1/status?{query}"), &reader)).await, 400, "{query}");
    }
    for (token, wanted) in [("", "16"), (reader.as_str(), "7"), ("tidemill_x", "16")] {
        let asked =
            post("/tidemill.v1.Subscriptions/Subscribe", token).header("content-type", "application/grpc");
        // Nothing is served there yet, so that only who is not known is refused before it is looked for.
        let answer = asked.send().await.unwrap();
        if wanted == "16" {
            assert_eq!(
                (answer.status(), &answer.headers()["grpc-status"]),
                (StatusCode::OK, &"16".parse().unwrap())
            );
            assert!(answer.headers().contains_key("grpc-message"));
        }
    }
    // A known route in gRPC's words tells who may not.
    let asked =
        post("/api/v1/flows/to_out:pause", &reader).header("content-type", "application/grpc-web+proto");
    let answer = asked.send().await.unwrap();
    assert_eq!((answer.status(), &answer.headers()["grpc-status"]), (StatusCode::OK, &"7".parse().unwrap()));
    assert_eq!(answer.headers()["content-type"], "application/grpc-web+proto");

    let (_, list, _) = node.run(&["token", "list"]);
    assert!(
        list.contains("phone") && list.contains("subscribe:shop, push:crm") && list.contains("shop.orders"),
        "{list}"
    );
    let (code, _, err) = node.run(&["token", "create", "phone", "--scope", "read"]);
    assert!(code == 1 && err.contains("already"), "{code} {err}");
    let (code, _, err) = node.run(&["token", "create", "x", "--scope", "read", "--rows", "shop.orders=1"]);
    assert!(code == 2 && err.contains("goes past them"), "{code} {err}");
    let told = node.status().to_string() + &fs::read_to_string(node.path("tidemill.log")).unwrap();
    for token in [&boss, &reader, &phone] {
        let secret = &token["tidemill_".len()..];
        assert!(!told.contains(secret) && !is_kept(&node.path("data"), secret));
    }
    node.stop();
    let (code, list, err) = node.run(&["token", "list"]);
    assert!(code == 0 && list.contains("reader"), "the catalog on disk tells as well: {err}");
    node.start();
    node.until("a token outlives a restart", async || {
        call.get("/api/v1/status", &reader).send().await.is_ok_and(|a| a.status() == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_or_expired_token_loses_what_it_has_open_at_once() {
    let mut node = shop();
    node.start();
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 2).await;
    let call = Caller::of(&node);
    let stream = "/api/v1/sources/shop/changes?from=start&follow=true";
    let mut unnamed = call.client.get(format!("{}{stream}", call.base)).send().await.unwrap();
    assert!(unnamed.chunk().await.unwrap().is_some());
    let boss = create(&node, &["boss", "--scope", "admin"]);
    let ended = |mut answer: reqwest::Response| async move {
        let begin = Instant::now();
        while let Ok(part) = tokio::time::timeout(AT_ONCE, answer.chunk()).await.unwrap() {
            assert!(part.is_some(), "it breaks off, and does not look whole");
        }
        begin.elapsed()
    };
    // Whoever came without a token goes when there is one.
    ended(unnamed).await;
    node.env(&[("TIDEMILL_TOKEN", &boss)]);
    let open = async |token: &str| {
        let mut answer = call.get(stream, token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.chunk().await.unwrap().is_some());
        answer
    };
    for (name, how) in [("one", &["revoke", "one"][..]), ("two", &["revoke", "two", "--forget"])] {
        let token = create(&node, &[name, "--scope", "read"]);
        let answer = open(&token).await;
        let other = open(&boss).await;
        let (code, _, err) = node.run(&[&["token"], how].concat());
        assert_eq!(code, 0, "{err}");
        let took = ended(answer).await;
        assert!(took < Duration::from_secs(1), "it took {took:?}");
        let refused = call.get("/api/v1/status", &token).send().await.unwrap();
        assert_eq!(refused.status(), 401);
        let mut other = other;
        assert!(
            tokio::time::timeout(Duration::from_millis(300), other.chunk()).await.is_err(),
            "others go on"
        );
    }
    let short = create(&node, &["short", "--scope", "read", "--expires", "3s"]);
    ended(open(&short).await).await;
    let refused: Value = call.get("/api/v1/status", &short).send().await.unwrap().json().await.unwrap();
    assert_eq!(refused["detail"], "the token has expired");
    // Another process writes into the catalog.
    let offline = create(&node, &["offline", "--scope", "read", "--offline"]);
    node.until("it is taken over", async || call.status(call.get("/api/v1/status", &offline)).await == 200)
        .await;
    let answer = open(&offline).await;
    assert_eq!(node.run(&["token", "revoke", "offline", "--offline"]).0, 0);
    ended(answer).await;
    let (code, _, err) = node.run(&["token", "revoke", "nobody"]);
    assert!(code == 2 && err.contains("there is no token `nobody`"), "{code} {err}");
    // No token is good any more, and nobody comes in; when none is known, this machine may call again.
    assert_eq!(node.run(&["token", "revoke", "boss"]).0, 0);
    let (code, _, err) = node.run(&["status"]);
    assert!(code == 3 && err.contains("revoked"), "{code} {err}");
    for name in ["one", "short", "offline", "boss"] {
        assert_eq!(node.run(&["token", "revoke", name, "--forget", "--offline"]).0, 0, "{name}");
    }
    let bare = call.client.get(format!("{}/api/v1/status", call.base));
    node.until("the port is open to this machine", async || {
        call.status(bare.try_clone().unwrap()).await == 200
    })
    .await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_the_sites_that_are_named_may_call_with_a_token() {
    let mut node = shop();
    let listen = format!("name: test\nlisten: {{http: \"{}\"}}\n", node.address());
    node.write("tidemill.yaml", &format!("{listen}http: {{cors: [\"https://shop.example/\"]}}\n"));
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("is no site"), "{code} {err}");
    node.write("tidemill.yaml", &format!("{listen}http: {{cors: [\"https://shop.example\"]}}\n"));
    node.start();
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 2).await;
    let token = create(&node, &["page", "--scope", "subscribe,read"]);
    let call = Caller::of(&node);
    let ask = |origin: &str, path: &str| {
        let asked = call.client.request(reqwest::Method::OPTIONS, format!("{}{path}", call.base));
        asked.header("origin", origin).header("access-control-request-method", "POST")
    };
    for path in ["/api/v1/status", "/tidemill.v1.Subscriptions/Subscribe"] {
        let yes = ask("https://shop.example", path)
            .header("access-control-request-headers", "authorization,x-grpc-web")
            .send()
            .await
            .unwrap();
        assert_eq!(yes.status(), 204);
        assert_eq!(yes.headers()["access-control-allow-origin"], "https://shop.example");
        let headers = yes.headers()["access-control-allow-headers"].to_str().unwrap();
        assert!(headers.contains("authorization") && headers.contains("x-grpc-web"), "{headers}");
        assert!(!yes.headers().contains_key("access-control-allow-credentials"));
        let no = ask("https://evil.example", path).send().await.unwrap();
        assert!(no.status() == 403 && !no.headers().contains_key("access-control-allow-origin"));
    }
    let page =
        |origin: &str| call.client.get(format!("{}/api/v1/status", call.base)).header("origin", origin);
    let answer = page("https://shop.example").bearer_auth(&token).send().await.unwrap();
    assert_eq!((answer.status(), &answer.headers()["vary"]), (StatusCode::OK, &"origin".parse().unwrap()));
    let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("grpc-status") && exposed.contains("grpc-message"), "{exposed}");
    // The page learns why it is refused.
    let refused = page("https://shop.example").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["access-control-allow-origin"], "https://shop.example");
    for foreign in ["https://evil.example", "null", "http://shop.example"] {
        assert_eq!(call.status(page(foreign).bearer_auth(&token)).await, 403, "{foreign}");
    }
}

/// Follows a table of the shop with a token.
fn follow(node: &Node, token: Option<&str>, table: &str, columns: &[&str]) -> Subscription {
    let there = client::Node::new(&format!("http://{}", node.address()), token, None).unwrap();
    let shape = Shape {
        source: "shop".into(),
        table: table.into(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        ..Shape::default()
    };
    Subscription::new(there, shape, Vec::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_bounded_by_its_token_and_ends_with_it() {
    let mut node = Node::new(&[("sources/shop.yaml", format!("{SHOP}mirror: [\"shop.*\"]\n"))]);
    let db = rusqlite::Connection::open(node.path("shop.db")).unwrap();
    db.execute_batch(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, owner TEXT, total INTEGER);
         INSERT INTO orders VALUES (1, 'u1', 10), (2, 'u2', 20), (3, 'u1', 30);
         CREATE TABLE cards (id INTEGER PRIMARY KEY); INSERT INTO cards VALUES (7)",
    )
    .unwrap();
    node.start();
    node.wait("mirrored", |s| s["sources"][0]["mirror"]["lsn"] == 4).await;
    let boss = create(&node, &["boss", "--scope", "admin"]);
    node.env(&[("TIDEMILL_TOKEN", &boss)]);
    let rules = ["--rows", "shop.orders=owner = 'u1'", "--columns", "shop.orders=id,owner"];
    let phone = create(&node, &[&["phone", "--scope", "subscribe:shop"], &rules[..]].concat());
    let other = create(&node, &["other", "--scope", "subscribe:crm"]);
    let reader = create(&node, &["reader", "--scope", "read"]);
    let refused = async |mut wanted: Subscription| loop {
        match wanted.next().await {
            Err(status) => break status.code() as i32,
            Ok(Heard::Broken { reason, .. }) => panic!("it is tried again: {reason}"),
            Ok(Heard::Response(_)) => {}
        }
    };
    for (token, table, columns, code) in [
        (None, "shop.orders", &[][..], 16),
        (Some("tidemill_x"), "shop.orders", &[], 16),
        (Some(reader.as_str()), "shop.orders", &[], 7),
        (Some(&other), "shop.orders", &[], 7),
        (Some(&phone), "shop.cards", &[], 7),
        (Some(&phone), "SHOP.orders", &[], 7),
        (Some(&phone), "shop.orders", &["total"], 9),
    ] {
        assert_eq!(
            refused(follow(&node, token, table, columns)).await,
            code,
            "{token:?} {table} {columns:?}"
        );
    }
    let mut wanted = follow(&node, Some(&phone), "shop.orders", &[]);
    let (mut names, mut rows) = (Vec::new(), 0);
    loop {
        let Heard::Response(response) = wanted.next().await.unwrap() else { panic!("it broke") };
        match response.event {
            Some(Event::Schema(schema)) => {
                names = schema.columns.into_iter().map(|column| column.name).collect()
            }
            Some(Event::Batch(batch)) => rows += batch.changes.len(),
            Some(Event::UpToDate(_)) => break,
            _ => {}
        }
    }
    assert_eq!((names, rows), (vec!["id".to_owned(), "owner".to_owned()], 2));
    // A window has the first of the rows that the token may see, and is not told of any other.
    let window = |order: &str, filter: &str| {
        let there = client::Node::new(&format!("http://{}", node.address()), Some(&phone), None).unwrap();
        let shape = Shape {
            source: "shop".into(),
            table: "shop.orders".into(),
            r#where: filter.into(),
            order_by: vec![OrderBy { column: order.into(), descending: true }],
            limit: 1,
            ..Shape::default()
        };
        Subscription::new(there, shape, Vec::new())
    };
    assert_eq!(refused(window("total", "")).await, 9, "the order of a column that it may not see");
    assert_eq!(refused(window("id", "total > 15")).await, 9, "a condition on it");
    let call = Caller::of(&node);
    let shape = "/api/v1/shapes/shop/shop.orders";
    for query in ["?where=total%3E15", "?columns=total", "?limit=1", "?order_by=id"] {
        let status = call.status(call.get(&format!("{shape}{query}"), &phone)).await;
        assert!((400..500).contains(&status), "{query}: {status}");
    }
    let text = call.get(shape, &phone).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("u1") && !text.contains("u2") && !text.contains("total"), "{text}");
    let mut first = window("id", "");
    db.execute_batch("INSERT INTO orders VALUES (4, 'u2', 40); INSERT INTO orders VALUES (5, 'u1', 50)")
        .unwrap();
    let mut ids = Vec::new();
    while ids.last() != Some(&5) {
        let Heard::Response(response) = first.next().await.unwrap() else { panic!("it broke") };
        match response.event {
            Some(Event::Ready(ready)) => assert_eq!(ready.rows, 0, "how many rows others have"),
            Some(Event::Batch(batch)) => {
                ids.extend(batch.changes.iter().map(|change| match change.values[0].kind {
                    Some(Kind::Int(id)) => id,
                    ref other => panic!("{other:?}"),
                }))
            }
            _ => {}
        }
    }
    assert!(ids.iter().all(|id| [3, 5].contains(id)), "{ids:?}");
    let begin = Instant::now();
    assert_eq!(node.run(&["token", "revoke", "phone"]).0, 0);
    assert_eq!(tokio::time::timeout(AT_ONCE, refused(wanted)).await.unwrap(), 16);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    node.stop();
}
