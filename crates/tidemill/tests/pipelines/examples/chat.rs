//! `examples/chat`: what publish and subscribe loses, and a subscription does not.

use super::load;
use crate::live::TypeScript;
use crate::node::PATIENCE;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use testkit::{Port, Redis, RedisOptions};

/// A program of the example, whose lines are read. Killed when it is dropped.
struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    fn start(folder: &Path, program: &str, args: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            from.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)))
        });
        Self { child, lines }
    }

    /// What it prints, up to this line.
    fn until(&self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != last) {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{last}` behind {lines:?}"));
            lines.push(line);
        }
        // How a connection is being made is of no interest.
        lines.retain(|line| line.contains(": ") && !line.starts_with("offline"));
        lines
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn say(server: &str, text: &str) {
    let message = json!({"author": "Ada", "text": text}).to_string();
    let answer = reqwest::Client::new().post(format!("{server}/rooms/1")).body(message).send().await.unwrap();
    assert_eq!(answer.status(), 204, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_loses_what_was_said_while_somebody_was_away_before_and_nothing_after() {
    let typescript = TypeScript::build();
    let folder = typescript.path("examples/chat");
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let (port, redis_port) = (Port::reserve().unwrap(), redis.port().to_string());
    let url = format!("http://{}", port.addr());
    let number = port.number().to_string();
    let server = Program::start(&folder, "python3", &["before/server.py", &number, &redis_port]);
    server.until(&url);
    let listen = || Program::start(&folder, "node", &["before/listen.mjs", "1", &url]);
    let (stays, leaves) = (listen(), listen());
    for listener in [&stays, &leaves] {
        listener.until("listening");
    }
    say(&url, "one").await;
    assert_eq!(leaves.until("Ada: one"), ["Ada: one"]);
    drop(leaves);
    say(&url, "two").await;
    let back = listen();
    back.until("listening");
    say(&url, "three").await;
    assert_eq!(stays.until("Ada: three"), ["Ada: one", "Ada: two", "Ada: three"]);
    assert_eq!(back.until("Ada: three"), ["Ada: three"], "what was said meanwhile is lost");
    drop((stays, back, server, redis));

    std::fs::remove_file(folder.join("chat.db")).unwrap();
    let server = Program::start(&folder, "python3", &["after/server.py", &number]);
    server.until(&url);
    let database = folder.join("chat.db").to_str().unwrap().to_owned();
    let mut node = load("chat", &[("./chat.db", database)], &[]);
    node.start();
    node.wait("it follows", |s| s["sources"][0]["mirror"]["state"] == "following").await;
    let address = format!("http://{}", node.address());
    let listen = |place: &str| Program::start(&folder, "node", &["after/listen.mjs", "1", &address, place]);
    let (stays, leaves) = (listen("stays"), listen("leaves"));
    for listener in [&stays, &leaves] {
        listener.until("listening");
    }
    say(&url, "one").await;
    assert_eq!(leaves.until("Ada: one"), ["Ada: one"]);
    // Its place is written behind what it printed: it has come when the next start begins behind it.
    drop(leaves);
    say(&url, "two").await;
    // Not even the node is there all the time.
    node.kill9();
    say(&url, "three").await;
    node.start();
    let back = listen("leaves");
    let came = back.until("Ada: three");
    // A listener that is killed between a line and its place prints that line again.
    assert!(came == ["Ada: two", "Ada: three"] || came == ["Ada: one", "Ada: two", "Ada: three"], "{came:?}");
    assert_eq!(stays.until("Ada: three"), ["Ada: one", "Ada: two", "Ada: three"]);
    let newcomer = listen("new");
    assert_eq!(newcomer.until("Ada: three"), ["Ada: one", "Ada: two", "Ada: three"]);
}
