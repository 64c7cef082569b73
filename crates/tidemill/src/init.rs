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
    (".gitignore", "data/\nout/\n"),
];

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
    if !quiet {
        println!("wrote a project to {}", dir.display());
        println!(
            "next: edit sources/shop.yaml, then `tidemill -C {0} check --connect` and `tidemill -C {0} up`",
            dir.display()
        );
    }
    Ok(())
}
