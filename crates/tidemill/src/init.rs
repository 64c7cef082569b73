//! `tidemill init`: a commented project that runs as it is.

use crate::failure::Failure;
use std::fs;
use std::path::Path;

const FILES: [(&str, &str); 5] = [
    (
        "tidemill.yaml",
        "name: shop
data_dir: ./data              # journals and the catalog
listen:
  http: 127.0.0.1:7070        # REST, /metrics, /healthz, /readyz
",
    ),
    (
        "sources/shop.yaml",
        "# A SQLite file. `tidemill up` installs a change table and triggers in it: `tidemill check --connect` shows them.
kind: sqlite
path: ./shop.db
tables: [\"shop.*\"]            # the database of a SQLite file is the file's name without its ending

# A MySQL or MariaDB server instead:
# kind: mysql
# url: mysql://cdc:${env:SHOP_PASSWORD}@127.0.0.1:3306
# tables: [\"shop.*\"]
# exclude: [\"shop.tmp_*\"]
# snapshot: initial           # initial | never
# on_gap: fail                # fail | resnapshot | skip
",
    ),
    (
        "sinks/out.yaml",
        "# JSON lines, synced and rotated.
kind: files
path: ./out

# kind: nats
# url: nats://127.0.0.1:4222

# kind: redis                 # a hash for each row: shop:orders:1
# url: redis://127.0.0.1:6379

# kind: elasticsearch         # or OpenSearch: a document for each row
# url: http://127.0.0.1:9200

# kind: mysql                 # or tidb
# url: mysql://dw:${env:DW_PASSWORD}@127.0.0.1:3306
",
    ),
    (
        "flows/shop_to_out.yaml",
        "from: shop
to: out
# tables: [\"shop.orders\"]     # all captured tables by default
# transform:
#   - mask: {phone: partial}
#   - rename: {memo: note}
# route: {\"shop.*\": \"dw.shop_*\"}
",
    ),
    (".gitignore", "data/\nout/\nshop.db*\n"),
];

/// Something to read, unless a file of that name is there already.
fn make_shop(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let made = rusqlite::Connection::open(path).and_then(|shop| {
        shop.execute_batch(
            "PRAGMA journal_mode=WAL;
             CREATE TABLE orders (id INTEGER PRIMARY KEY, product TEXT NOT NULL, quantity INTEGER NOT NULL, phone TEXT);
             INSERT INTO orders VALUES (1, 'tea', 2, '13812345678'), (2, 'rice', 1, '15900001111');",
        )
    });
    made.map_err(|error| Failure::new(1, format!("failed to make {}: {error}", path.display())))
}

/// Writes the project; never over a file that is there.
pub fn run(dir: &Path, quiet: bool) -> Result<(), Failure> {
    let taken: Vec<&str> =
        FILES.iter().map(|(name, _)| *name).filter(|name| dir.join(name).exists()).collect();
    if !taken.is_empty() {
        return Err(Failure::new(2, format!("{} has {} already", dir.display(), taken.join(", ")))
            .hint("name an empty folder: tidemill init DIR"));
    }
    for (name, text) in FILES {
        let path = dir.join(name);
        let folder = path.parent().expect("a file has a folder");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text))
            .map_err(|e| Failure::io(&format!("write {}", path.display()), &e))?;
    }
    make_shop(&dir.join("shop.db"))?;
    if !quiet {
        let dir = dir.display();
        println!("wrote a project to {dir}: a small shop in SQLite, whose changes go to files");
        println!("  tidemill -C {dir} check --connect     what it will do to the shop's file");
        println!("  tidemill -C {dir} up                  run it; the changes appear in {dir}/out");
        println!("  tidemill -C {dir} tail shop           in another terminal: watch changes as they come");
        println!("then put a source and sinks of your own in sources/ and sinks/");
    }
    Ok(())
}
