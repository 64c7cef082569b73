//! Indicators as screens and people ask for them: HTTP, events, Cube's own client, and the command line.

use crate::node::Node;
use base::{Column, ColumnType, Generated, Value as Cell};
use engine::{Engine, Options, Sqlite, Write, create_sql};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::installed;
use warehouse::indicator::{IndicatorFile, Indicators, rollup};

const DECLARED: &str = "
semantic_models:
  - name: sales
    table: dws.sales
    dimensions:
      - {name: day, type: time, type_params: {time_granularity: day}}
      - {name: dept, type: categorical}
    measures:
      - {name: amount, agg: sum}
      - {name: sales_count, agg: count}
metrics:
  - {name: revenue, code: R-01, type: simple, label: 销售额, unit: CNY, status: certified, type_params: {measure: amount}, target: 100,
     thresholds: [{status: red, when: value < target}, {status: green, when: value >= target}]}
  - {name: sales, type: simple, type_params: {measure: sales_count}, grains: [day, month]}
  - {name: basket, type: ratio, type_params: {numerator: revenue, denominator: sales}, decimals: 2}
  - {name: given_up, type: simple, type_params: {measure: amount}, status: retired}
";

fn columns() -> Vec<Column> {
    let column = |name: &str, ty: ColumnType, sql_type: &str| Column {
        name: name.into(),
        collation: matches!(ty, ColumnType::Text { .. }).then(|| "utf8mb4_0900_ai_ci".into()),
        ty,
        sql_type: sql_type.into(),
        nullable: true,
        charset: None,
        generated: Generated::No,
        invisible: false,
    };
    vec![
        column("day", ColumnType::Date, "date"),
        column("dept", ColumnType::Text { chars_max: 40 }, "varchar(40)"),
        column("amount", ColumnType::Decimal { precision: 30, scale: 2 }, "decimal(30,2)"),
    ]
}

/// The warehouse as a run would leave it.
struct Warehouse(Sqlite);

impl Warehouse {
    async fn open(node: &Node) -> Self {
        let text =
            format!("name: test\nlisten: {{http: \"{}\"}}\nengine: sqlite:./warehouse.db\n", node.address());
        node.write("tidemill.yaml", &text);
        node.write("indicators/sales.yaml", DECLARED);
        let engine = Sqlite::open(&node.path("warehouse.db"), Options::default()).await.unwrap();
        engine.execute(&create_sql("dws.sales", &columns(), &[])).await.unwrap();
        Self(engine)
    }

    async fn put(&self, rows: &[(&str, Option<&str>, &str)]) {
        let cell = |(day, dept, amount): &(&str, Option<&str>, &str)| {
            let dept = dept.map_or(Cell::Null, |it| Cell::Text(it.into()));
            vec![Cell::Text((*day).into()), dept, Cell::Decimal((*amount).into())]
        };
        let mut columns = columns();
        columns[0] = Column {
            ty: ColumnType::Text { chars_max: 10 },
            sql_type: "varchar(10)".into(),
            ..columns[0].clone()
        };
        let rows = rows.iter().map(cell).collect();
        let write = Write::Put { table: "dws.sales".into(), columns, rows, replace: false };
        self.0.write(vec![write]).await.unwrap();
    }

    async fn build(&self) {
        let text = DECLARED.to_owned();
        let file: IndicatorFile = yaml(&text);
        let indicators = Indicators::new(&[("indicators/sales.yaml".into(), file)]).unwrap();
        rollup::build(&self.0, &indicators, None, None).await.unwrap();
    }
}

fn yaml(text: &str) -> IndicatorFile {
    serde_saphyr::from_str(text).unwrap()
}

const SALES: [(&str, Option<&str>, &str); 7] = [
    ("2025-03-01", Some("north"), "50.00"),
    ("2026-01-31", Some("north"), "10.10"),
    ("2026-02-28", Some("south"), "20.00"),
    ("2026-03-01", Some("north"), "70.25"),
    ("2026-03-01", Some("south"), "12345678901234567890.01"),
    ("2026-03-02", None, "0.01"),
    ("2026-03-02", Some("O'Neil"), "-5.00"),
];

/// Status, body as it came, and the header that says when to come again.
async fn ask(node: &Node, method: &str, path: &str, body: Option<&Value>) -> (u16, String, Option<String>) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = reqwest::Client::new().request(method, format!("http://{}{path}", node.address()));
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let again = response.headers().get("retry-after").map(|it| it.to_str().unwrap().to_owned());
    (response.status().as_u16(), response.text().await.unwrap(), again)
}

async fn get(node: &Node, path: &str) -> Value {
    let (status, text, _) = ask(node, "GET", path, None).await;
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn up(node: &mut Node) {
    node.start();
    node.wait("the node answers", |status| status["name"] == "test").await;
}

#[tokio::test]
async fn a_screen_gets_its_indicators_by_http_and_hears_of_a_build() {
    let mut node = Node::new(&[]);
    let warehouse = Warehouse::open(&node).await;
    up(&mut node).await;
    let (status, text, again) = ask(&node, "GET", "/api/v1/indicators/R-01", None).await;
    assert_eq!((status, again.as_deref()), (503, Some("10")), "{text}");
    assert_eq!(get(&node, "/api/v1/indicators").await.as_array().unwrap().len(), 4);
    warehouse.put(&SALES).await;
    warehouse.build().await;
    node.until("the rollups are seen", async || {
        ask(&node, "GET", "/api/v1/indicators/R-01", None).await.0 == 200
    })
    .await;
    // All digits of a number are there, as a number.
    let (_, text, _) = ask(&node, "GET", "/api/v1/indicators/R-01?date=2026-03-01", None).await;
    assert!(text.contains("\"value\":12345678901234567960.26,"), "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&answer["name"], &answer["unit"], &answer["state"]),
        (&json!("销售额"), &json!("CNY"), &json!("certified"))
    );
    assert_eq!(
        (&answer["status"], &answer["missing"], &answer["stale"]),
        (&json!("green"), &json!(false), &json!(false))
    );
    assert_eq!((&answer["mom"]["value"], &answer["yoy"]["value"]), (&json!(20.0), &json!(50.0)));
    assert_eq!(answer["checks"], "unknown");
    assert!(answer["as_of"].as_str().unwrap().ends_with('Z'));
    let newest = get(&node, "/api/v1/indicators/R-01?dim.dept=O%27Neil&rank=dept&series=3").await;
    assert_eq!(
        (&newest["period"], &newest["value"], &newest["status"]),
        (&json!("2026-03-02"), &json!(-5.0), &json!("red"))
    );
    assert_eq!((&newest["rank"]["rank"], &newest["rank"]["of"]), (&json!(2), &json!(2)));
    assert_eq!(newest["series"].as_array().unwrap().len(), 3);
    let nobody = get(&node, "/api/v1/indicators/R-01?null=dept&date=2026-03&grain=month").await;
    assert_eq!(nobody["value"], 0.01);
    let missing = get(&node, "/api/v1/indicators/basket?date=2026-02-01").await;
    assert_eq!((&missing["value"], &missing["missing"]), (&Value::Null, &json!(true)));
    let listed = get(&node, "/api/v1/indicators/sales?date=2026-03&grain=month&by=dept").await;
    assert_eq!(listed["members"].as_array().unwrap().len(), 4);
    for (path, status) in [
        ("/api/v1/indicators/R-02", 404),
        ("/api/v1/indicators/given_up", 410),
        ("/api/v1/indicators/sales?grain=year", 422),
        ("/api/v1/indicators/sales?grain=hour", 400),
        ("/api/v1/indicators/sales?dept=north", 400),
        ("/api/v1/indicators/sales?dim.shop=x", 422),
        ("/api/v1/indicators/sales?date=2026-02-30", 400),
        ("/api/v1/indicators/%27%20or%201=1?dim.%60=%27", 404),
        ("/api/v1/load?query=%7B%22measures%22:%5B%22sales.given_up%22%5D%7D", 410),
        ("/api/v1/load?query=nothing", 400),
        ("/api/v1/load", 400),
    ] {
        let (told, text, _) = ask(&node, "GET", path, None).await;
        assert_eq!(told, status, "{path}: {text}");
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(problem["status"], status);
        assert!(problem["hint"].as_str().is_some_and(|it| !it.is_empty()), "{text}");
    }
    let question =
        |dept: &str| json!({"code": "R-01", "date": "2026-03", "grain": "month", "dims": {"dept": dept}});
    let questions: Vec<Value> =
        (0..200).map(|n| question(if n % 2 == 0 { "north" } else { "south" })).collect();
    let (status, text, _) =
        ask(&node, "POST", "/api/v1/indicators:batch", Some(&json!({"questions": questions}))).await;
    let batch: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, batch["answers"].as_array().unwrap().len()), (200, 200));
    assert_eq!(batch["answers"][0]["value"], 70.25);
    let mixed = json!({"questions": [question("north"), {"code": "nobody"}]});
    let (status, text, _) = ask(&node, "POST", "/api/v1/indicators:batch", Some(&mixed)).await;
    let batch: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &batch["answers"][1]["error"]["status"]), (200, &json!(404)), "{text}");
    let many: Vec<Value> = (0..201).map(|_| question("north")).collect();
    let (status, ..) =
        ask(&node, "POST", "/api/v1/indicators:batch", Some(&json!({"questions": many}))).await;
    assert_eq!(status, 400);
    // A screen hears of what is there, and then of a build.
    let mut events =
        reqwest::get(format!("http://{}/api/v1/indicators:events?codes=R-01", node.address())).await.unwrap();
    let first = next_event(&mut events).await;
    assert_eq!(
        (&first["model"], &first["codes"], &first["newest"]),
        (&json!("sales"), &json!(["R-01"]), &json!("2026-03-02"))
    );
    warehouse.put(&[("2026-03-03", Some("north"), "7.00")]).await;
    warehouse.build().await;
    let second = next_event(&mut events).await;
    assert_eq!(second["newest"], "2026-03-03");
    assert!(second["version"].as_i64() > first["version"].as_i64());
    assert_eq!(get(&node, "/api/v1/indicators/R-01").await["value"], 7.0);
    // Tokens: a screen's needs `read`.
    let (code, token, _) = node.run(&["token", "create", "device", "--scope", "subscribe", "--json"]);
    assert_eq!(code, 0, "{token}");
    let token: Value = serde_json::from_str(&token).unwrap();
    let bearer = token["token"].as_str().unwrap().to_owned();
    node.until("the token is asked for", async || {
        ask(&node, "GET", "/api/v1/indicators", None).await.0 == 401
    })
    .await;
    for path in [
        "/api/v1/indicators",
        "/api/v1/indicators/R-01",
        "/api/v1/load",
        "/api/v1/meta",
        "/api/v1/indicators:events",
    ] {
        let request =
            reqwest::Client::new().get(format!("http://{}{path}", node.address())).bearer_auth(&bearer);
        assert_eq!(request.send().await.unwrap().status(), 403, "{path}");
    }
    drop(events);
    node.stop();
}

/// The data of the next event.
async fn next_event(events: &mut reqwest::Response) -> Value {
    let wait = std::time::Duration::from_secs(60);
    loop {
        let part = tokio::time::timeout(wait, events.chunk()).await.unwrap().unwrap().unwrap();
        let text = String::from_utf8(part.to_vec()).unwrap();
        if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")) {
            assert!(text.starts_with("event: rebuilt\n"), "{text}");
            return serde_json::from_str(data).unwrap();
        }
    }
}

/// Cube's own client.
struct CubeClient;

impl CubeClient {
    fn ask(node: &Node) -> Value {
        let dir = tempfile::tempdir().unwrap();
        let modules = installed("cube").unwrap().join("node_modules");
        std::os::unix::fs::symlink(modules, dir.path().join("node_modules")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines/indicators/ask.mjs");
        std::fs::copy(script, dir.path().join("ask.mjs")).unwrap();
        let out = Command::new("timeout")
            .args(["120", "node"])
            .arg(dir.path().join("ask.mjs"))
            .args([format!("http://{}/api/v1", node.address()), "none".into()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(out.status.success(), "{}{}\n{}", text(&out.stdout), text(&out.stderr), node.log());
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

#[tokio::test]
async fn cubes_own_client_reads_the_answers() {
    let mut node = Node::new(&[]);
    let warehouse = Warehouse::open(&node).await;
    warehouse.put(&SALES).await;
    warehouse.build().await;
    up(&mut node).await;
    let told = CubeClient::ask(&node);
    assert_eq!(told["cubes"][0]["name"], "sales");
    assert_eq!(told["cubes"][0]["measures"], json!(["sales.revenue", "sales.basket", "sales.sales"]));
    assert_eq!(told["cubes"][0]["dimensions"], json!(["sales.dept", "sales.day"]));
    assert_eq!(told["title"], "销售额");
    let march = "2026-03-01T00:00:00.000";
    assert_eq!(
        told["raw"][2],
        json!({"sales.dept": "south", "sales.day.month": march, "sales.day": march, "sales.revenue": "12345678901234567890.01", "sales.sales": "1"})
    );
    assert_eq!(told["raw"].as_array().unwrap().len(), 6);
    assert_eq!(told["columns"], json!(["sales.day.month", "sales.dept", "sales.revenue", "sales.sales"]));
    assert_eq!(told["table"].as_array().unwrap().len(), 6);
    let north =
        told["series"].as_array().unwrap().iter().find(|it| it["key"] == "north,sales.revenue").unwrap();
    assert_eq!(north["values"], json!([10.1, 0, 70.25]), "{}", told["series"]);
    // The client makes numbers of totals.
    assert_eq!(told["total"].as_f64(), Some(12_345_678_901_234_568_035.37));
    assert_eq!(told["long"], json!([{"sales.revenue": "130.35"}]));
    assert!(told["refused"].as_str().unwrap().contains("there is no measure"), "{}", told["refused"]);
    node.stop();
}

#[tokio::test]
async fn a_person_asks_on_the_command_line() {
    let node = Node::new(&[]);
    let warehouse = Warehouse::open(&node).await;
    warehouse.put(&SALES).await;
    let (code, _, told) = node.run(&["indicator", "get", "R-01"]);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("were not built yet") && told.contains("hint: run the project once"), "{told}");
    warehouse.build().await;
    let (code, told, error) = node.run(&["indicator", "list"]);
    assert_eq!(code, 0, "{error}");
    assert!(told.contains("R-01") && told.contains("2026-03-02") && told.contains("retired"), "{told}");
    let args = [
        "indicator",
        "get",
        "R-01",
        "--date",
        "2026-03",
        "--grain",
        "month",
        "--dim",
        "dept=north",
        "--by",
        "dept",
        "--series",
        "2",
    ];
    let (code, told, error) = node.run(&args);
    assert_eq!(code, 0, "{error}");
    for wanted in [
        "销售额 (R-01) 2026-03: 70.25 CNY",
        "a year before (2025-03): 50.00, +40.50 %",
        "target: 100, red",
        "2026-02",
    ] {
        assert!(told.contains(wanted), "{wanted}\n{told}");
    }
    let (code, told, _) = node.run(&["indicator", "get", "R-01", "--date", "2026-03-01", "--json"]);
    assert_eq!(code, 0);
    assert!(told.contains("\"value\":12345678901234567960.26"), "{told}");
    for (args, status, wanted) in [
        (["indicator", "get", "R-1"].as_slice(), 1, "did you mean `R-01`?"),
        (&["indicator", "get", "given_up"], 1, "is retired"),
        (&["indicator", "get", "sales", "--grain", "year"], 2, "its grains are: day, month"),
        (&["indicator", "get", "sales", "--grain", "hour"], 2, "day, week"),
    ] {
        let (code, _, told) = node.run(args);
        assert_eq!(code, status, "{told}");
        assert!(told.contains(wanted), "{told}");
    }
    // Mistakes have their places, and unknown keys are some.
    node.write("indicators/sales.yaml", &DECLARED.replace("measure: sales_count", "measure: sales_cont"));
    node.write("indicators/more.yaml", "metrics:\n  - {name: a, typ: simple}\n");
    let (code, _, told) = node.run(&["check"]);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("indicators/more.yaml:2:") && told.contains("there is no key `typ`"), "{told}");
    std::fs::remove_file(node.path("indicators/more.yaml")).unwrap();
    let (code, _, told) = node.run(&["check"]);
    assert_eq!(code, 2, "{told}");
    assert!(
        told.contains("indicators/sales.yaml:14:") && told.contains("did you mean `sales_count`?"),
        "{told}"
    );
    assert!(told.contains("the project has 1 mistake"), "{told}");
}

/// The first code block of a language behind a text of the guide.
fn block<'g>(guide: &'g str, behind: &str) -> &'g str {
    let rest = &guide[guide.find(behind).unwrap()..];
    rest.split_once('\n').unwrap().1.split_once("\n```").unwrap().0
}

#[tokio::test]
async fn the_project_of_the_guide_runs_and_its_answers_say_how_it_stands() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/connect-a-screen.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let mut node = Node::new(&[]);
    let project =
        format!("name: test\nlisten: {{http: \"{}\"}}\nengine: sqlite:./data/warehouse.db\n", node.address());
    node.write("tidemill.yaml", &project);
    let model = block(&guide, "```sql\n");
    node.write("models/dws/dept_daily.sql", model);
    node.write("indicators/sales.yaml", block(&guide, "```yaml\n# indicators/sales.yaml"));
    let (code, told, error) = node.run(&["check"]);
    assert_eq!(code, 0, "{told}{error}");
    let (code, told, error) = node.run(&["run", "all"]);
    assert_eq!(code, 0, "{told}{error}");
    let (code, told, error) = node.run(&["indicator", "get", "R-01", "--by", "dept"]);
    assert_eq!(code, 0, "{error}");
    let shown = &guide[guide.find("Revenue (R-01) 2026-11-27").unwrap()..];
    for line in shown.lines().take_while(|line| *line != "…") {
        assert!(told.contains(line.trim()), "{line}\n{told}");
    }
    up(&mut node).await;
    let path = "/api/v1/indicators/R-01?dim.dept=north&rank=dept";
    let mut answer = get(&node, path).await;
    let mut wanted: Value = serde_json::from_str(block(&guide, "```json\n")).unwrap();
    assert!(answer["as_of"].as_str().is_some_and(|it| it.len() == 24), "{answer}");
    (answer["as_of"], wanted["as_of"]) = (Value::Null, Value::Null);
    assert_eq!((&answer["checks"], &answer["stale"]), (&json!("passed"), &json!(false)));
    assert_eq!(answer, wanted);
    // A run whose check stops it leaves the figures, and they say so.
    node.stop();
    let checked = model.replace("/* @model */", "/* @model\nchecks:\n  - row_count: {min: 100}\n*/");
    node.write("models/dws/dept_daily.sql", &checked);
    let (code, ..) = node.run(&["run", "all"]);
    assert_ne!(code, 0);
    up(&mut node).await;
    let answer = get(&node, path).await;
    assert_eq!(
        (&answer["value"], &answer["checks"], &answer["stale"]),
        (&json!(60.25), &json!("failed"), &json!(true))
    );
    node.stop();
}
