//! Runs the tables in `plan/`: topology in, Hop or Refusal out. `plan/README.md` has their format.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "plan/across.rs"]
mod across;
#[path = "plan/asked.rs"]
mod asked;
#[path = "plan/fold.rs"]
mod fold;
#[path = "plan/grammar.rs"]
mod grammar;
#[path = "plan/histories.rs"]
mod histories;
#[path = "plan/invariants.rs"]
mod invariants;
#[path = "plan/made.rs"]
mod made;
#[path = "plan/rule_bounds.rs"]
mod rule_bounds;
#[path = "plan/rule_records.rs"]
mod rule_records;
#[path = "plan/rules.rs"]
mod rules;
#[path = "plan/world.rs"]
mod world;

use std::fs;
use std::path::Path;

use world::World;

#[test]
fn tables() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan");
    let files = fs::read_dir(folder).expect("a readable folder");
    let mut tables: Vec<_> = files.map(|entry| entry.expect("a readable entry").path()).collect();
    tables.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    tables.sort();
    let wrong: Vec<_> = tables.iter().flat_map(|path| check(path)).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert!(tables.len() >= 15, "only {} tables", tables.len());
}

/// What is wrong in a table, by line.
fn check(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a readable table");
    let file = path.file_name().expect("a table has a name").to_string_lossy();
    let (mut world, mut wrong, mut title) = (World::default(), Vec::new(), "");
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if let Some(next) = line.strip_prefix("case ") {
            (world, title) = (World::default(), next);
        } else if let Err(what) = world.line(line) {
            let at = world.age();
            wrong.push(format!("{file}:{}: {title}, at {at:?}: {line}\n    {what}", number + 1));
        }
    }
    wrong
}
