//! The node's own page in a real browser: open while there are no tokens, and with tokens behind a field for one.

use crate::live::Browser;
use crate::node::{Node, PATIENCE};
use std::time::Instant;

/// Waits in the page until an expression is true.
fn until(browser: &mut Browser, expression: &str) {
    let end = Instant::now() + PATIENCE;
    let look = format!(
        "new Promise((done) => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 20);
           look(); setTimeout(() => done(false), 2000); }})"
    );
    while browser.ask(&look) != true {
        let text = browser.ask("document.body.innerText");
        assert!(Instant::now() < end, "waited for {expression}\n{text}");
    }
}

const IS_INSIDE: &str = "document.querySelector('#sources').innerText.includes('shop') && \
     !document.querySelector('#inside').hidden && document.querySelector('#door').hidden";
const IS_OUTSIDE: &str =
    "document.querySelector('#inside').hidden && !document.querySelector('#door').hidden";

fn give(browser: &mut Browser, token: &str) {
    browser.ask(&format!(
        "document.querySelector('#token').value = '{token}', document.querySelector('#door button').click(), true"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_asks_for_a_token_and_keeps_it_out_of_the_address() {
    let mut node =
        Node::new(&[("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into())]);
    let shop = rusqlite::Connection::open(node.path("shop.db")).unwrap();
    shop.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, v TEXT)")
        .unwrap();
    node.start();
    node.wait("it streams", |s| s["sources"][0]["state"] == "stream").await;
    let mut browser = Browser::start();
    let url = format!("http://{}/", node.address());
    browser.open(&url);
    until(&mut browser, IS_INSIDE);
    let create = |args: &[&str]| {
        let (code, out, err) = node.run(&[&["token", "create"], args].concat());
        assert_eq!(code, 0, "{err}");
        out.trim().to_owned()
    };
    let boss = create(&["boss", "--scope", "admin"]);
    node.env(&[("TIDEMILL_TOKEN", &boss)]);
    // What was open asks as soon as it may not any more.
    until(&mut browser, IS_OUTSIDE);
    browser.open(&url);
    until(&mut browser, IS_OUTSIDE);
    give(&mut browser, "tidemill_wrong");
    until(
        &mut browser,
        &format!("{IS_OUTSIDE} && document.querySelector('#refused').innerText.includes('token')"),
    );
    let create = |args: &[&str]| {
        let (code, out, err) = node.run(&[&["token", "create"], args].concat());
        assert_eq!(code, 0, "{err}");
        out.trim().to_owned()
    };
    let phone = create(&["phone", "--scope", "subscribe:shop"]);
    give(&mut browser, &phone);
    until(&mut browser, "document.querySelector('#refused').innerText.includes('lacks the scope `read`')");
    let reader = create(&["reader", "--scope", "read"]);
    give(&mut browser, &reader);
    until(&mut browser, IS_INSIDE);
    assert_eq!(browser.ask("location.href"), url.as_str());
    // Changes come with the token, too.
    let mut id = 0;
    let end = Instant::now() + PATIENCE;
    while browser.ask("document.querySelector('#changes').innerText.includes('shop.orders')") != true {
        assert!(Instant::now() < end, "no change was shown");
        id += 1;
        shop.execute("INSERT INTO orders VALUES (?1, 'new')", [id]).unwrap();
    }
    // It is kept over a reload of the tab, until it is forgotten.
    browser.open(&url);
    until(&mut browser, IS_INSIDE);
    browser.ask("document.querySelector('#forget').click(), true");
    until(&mut browser, IS_OUTSIDE);
    assert_eq!(browser.ask("[sessionStorage.length, localStorage.length].join()"), "0,0");
    browser.open(&url);
    until(&mut browser, IS_OUTSIDE);
    // And a token that is taken away ends it.
    give(&mut browser, &reader);
    until(&mut browser, IS_INSIDE);
    let (code, _, err) = node.run(&["token", "revoke", "reader"]);
    assert_eq!(code, 0, "{err}");
    until(&mut browser, IS_OUTSIDE);
}
