//! Runs the tables in `routes/`: manifests and a request in, target, edits or status out.
//!
//! The cases are those of the Gateway API's conformance tests for a mesh, in our own words.
//! `routes/README.md` has the format.

#[path = "routes/table.rs"]
mod table;

use std::fs;
use std::path::Path;

use table::Table;

#[test]
fn tables() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/routes");
    let world = fs::read_to_string(folder.join("world.yaml")).expect("the Services");
    let files = fs::read_dir(&folder).expect("a readable folder");
    let mut tables: Vec<_> = files.map(|entry| entry.expect("a readable entry").path()).collect();
    tables.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    tables.sort();
    assert!(tables.len() >= 6, "only {} tables", tables.len());
    let mut wrong = Vec::new();
    for path in tables {
        let file = path.file_name().expect("a table has a name").to_string_lossy();
        let text = fs::read_to_string(&path).expect("a readable table");
        let mut table = Table::new(&world);
        // A last title asks whether the last case has said everything.
        for (number, line) in text.lines().chain(["== end"]).enumerate() {
            if let Err(what) = table.line(line) {
                wrong.push(format!("{file}:{}: {line}\n    {what}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
