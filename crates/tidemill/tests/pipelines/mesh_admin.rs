//! The mesh changed while it runs: by REST and at its admin port, in what runs and in `mesh.yaml`.

use crate::mesh_upgrade::upgrade;
use crate::node::Node;
use serde_json::{Value, json};
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, OptsBuilder};
use testkit::{MySql, MySqlOptions, Port};

const PASSWORD: &str = "from the environment";

async fn login(port: &Port, user: &str, password: &str) -> Result<Conn, testkit::mysql_async::Error> {
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port.number())
        .user(Some(user))
        .pass((!password.is_empty()).then_some(password))
        .prefer_socket(false);
    Conn::new(opts).await
}

struct Rest {
    http: reqwest::Client,
    base: String,
}

impl Rest {
    async fn call(&self, method: reqwest::Method, path: &str, body: &Value) -> (u16, Value) {
        let request = self.http.request(method, format!("{}{path}", self.base)).json(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_a_group_are_changed_in_the_file_and_in_what_runs_or_in_neither() {
    use reqwest::Method;
    let one = MySql::start(MySqlOptions::default()).await.unwrap();
    let other = MySql::start(MySqlOptions::default()).await.unwrap();
    let [first, second] = [&one, &other].map(|server| format!("127.0.0.1:{}", server.port()));
    let (door, admin) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let text = format!(
        "# who changes this file by hand keeps the comments
listeners:
  - {{name: door, bind: \"{}\", tenants: [shop]}}
groups:
  shop:
    topology: static
    backends:
      # the first of all
      - addr: \"{first}\"
        role: writer   # for ever
    auth: vault
    users: [{{name: root, password: \"\"}}]   # none
admin:
  listen: \"{}\"
  users: [{{name: admin, password: \"${{env:MESH_ADMIN_PASSWORD}}\"}}]
",
        door.addr(),
        admin.addr()
    );
    let mut node = Node::new(&[("mesh.yaml", text.clone())]);
    node.env(&[("MESH_ADMIN_PASSWORD", PASSWORD)]);
    node.start();
    node.wait("the server is known", |status| status["mesh"]["groups"][0]["backends"][0]["state"] == "up")
        .await;
    let file = || std::fs::read_to_string(node.path("mesh.yaml")).unwrap();
    let rest = Rest { http: reqwest::Client::new(), base: format!("http://{}", node.address()) };
    let list = "/api/v1/mesh/groups/shop/backends";

    let (code, told) = rest.call(Method::GET, list, &Value::Null).await;
    assert_eq!((code, told), (200, json!([{"addr": first, "role": "writer"}])));
    let replica = json!({"role": "replica", "weight": 3});
    let (code, told) = rest.call(Method::PUT, &format!("{list}/{second}"), &replica).await;
    assert_eq!((code, told), (201, json!({"addr": second, "role": "replica", "weight": 3})));
    let line = format!("      - {{addr: \"{second}\", role: \"replica\", weight: 3}}\n");
    let with_second = text.replace("# for ever\n", &format!("# for ever\n{line}"));
    assert_eq!(file(), with_second);
    let (code, _) = rest.call(Method::PUT, &format!("{list}/{second}"), &replica).await;
    assert_eq!(code, 200);
    node.wait("both answer", |status| {
        let servers = status["mesh"]["groups"][0]["backends"].as_array().cloned().unwrap_or_default();
        servers.len() == 2 && servers.iter().all(|server| server["state"] == "up")
    })
    .await;

    // What is refused changes nothing, and says why.
    for (method, path, body, code, wanted) in [
        (Method::PUT, format!("{list}/nowhere"), json!({}), 400, "not `host:port`"),
        (Method::PUT, format!("{list}/a:1"), json!({"weight": 0}), 400, "between 1 and 1000"),
        (Method::PUT, format!("{list}/a:1"), json!({"wieght": 1}), 400, "wieght"),
        (Method::PUT, format!("{list}/a:1"), json!({"addr": "b:1"}), 400, "another `addr`"),
        (Method::PUT, list.to_owned(), json!([]), 400, "`backends` is empty"),
        (Method::PUT, list.to_owned(), json!([{"addr": second, "role": "replica"}]), 400, "role: writer"),
        (Method::DELETE, format!("{list}/a:1"), json!({}), 404, "no server `a:1`"),
        (Method::DELETE, format!("{list}/{first}"), json!({}), 400, "role: writer"),
        (Method::PUT, "/api/v1/mesh/groups/none/backends/a:1".to_owned(), json!({}), 404, "no group `none`"),
        (Method::POST, "/api/v1/mesh/sessions/7:kill".to_owned(), json!({}), 404, "no session 7"),
        (Method::POST, "/api/v1/mesh/sessions/7:wake".to_owned(), json!({}), 404, "kill_query"),
    ] {
        let (got, told) = rest.call(method, &path, &body).await;
        assert!(got == code && told.to_string().contains(wanted), "{path} {body}: {got} {told}");
        assert_eq!(file(), with_second, "{path} {body}");
    }
    let left: Vec<_> =
        std::fs::read_dir(node.path("")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".new")), "{left:?}");

    // The same at the admin port; a login is asked for.
    assert!(login(&admin, "admin", "${env:MESH_ADMIN_PASSWORD}").await.is_err());
    let mut conn = login(&admin, "admin", PASSWORD).await.unwrap();
    let mut client = login(&door, "root", "").await.unwrap();
    client.query_drop("select 1").await.unwrap();
    conn.query_drop(format!("REMOVE BACKEND '{second}' FROM GROUP shop")).await.unwrap();
    assert_eq!(file(), text);
    let sessions: Vec<testkit::mysql_async::Row> = conn.query("SHOW SESSIONS").await.unwrap();
    let id: u32 = sessions[0].get("id").unwrap();
    let (code, _, err) = node.run(&["mesh", "kill", &id.to_string()]);
    assert_eq!(code, 0, "{err}");
    node.wait("the session is gone", |status| status["mesh"]["sessions"] == 0).await;
    let (code, out, _) = node.run(&["mesh", "sessions", "--json"]);
    assert_eq!((code, out.trim()), (0, "[]"));
    assert!(!node.log().contains(PASSWORD), "{}", node.log());

    // A file that somebody spoilt by hand: nothing of it comes into use, and it stays as it is.
    node.write("mesh.yaml", &text.replace("auth: vault", "auth: vualt"));
    let error =
        conn.query_drop(format!("ADD BACKEND '{second}' ROLE replica")).await.unwrap_err().to_string();
    assert!(error.contains("vualt") && file().contains("vualt"), "{error}");
    assert!(conn.query_drop("RELOAD").await.unwrap_err().to_string().contains("mesh.yaml:11"));
    node.write("mesh.yaml", &text);
    conn.query_drop("RELOAD").await.unwrap();

    // Another process takes over, with this port too: who was there is told, and finds the new one at once.
    let (_, _heir) = upgrade(&node);
    let mut conn = login(&admin, "admin", PASSWORD).await.unwrap();
    conn.query_drop(format!("ADD BACKEND '{second}' ROLE replica WEIGHT 3")).await.unwrap();
    assert_eq!(file(), with_second);
}
