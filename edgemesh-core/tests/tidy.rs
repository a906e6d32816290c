//! House rules that a compiler cannot check: layers of the core, and the shape of every source file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `edgemesh-core`, lowest first. A module uses lower layers only: no neighbour in
/// its own layer, nothing above. Modules that other parts of the project add belong here.
const LAYERS: &[&[&str]] = &[
    &["breaker", "config", "digest", "hash", "identity", "io", "limit", "refusal", "sniff"],
    &["backends", "metrics"],
    &["snapshot"],
    &["balance"],
    &["plan"],
    &["dial", "lanes", "listen", "manifests", "store"],
    &["health", "link"],
    &["peers", "registrations", "sync", "tunnel"],
    &["dns", "forward"],
    &["proxy"],
    &["mesh"],
];

/// Where the rules on files apply, from the root of the workspace. Generated code is excepted.
const CRATES: &[&str] =
    &["proto", "edgemesh-core", "router", "edgemesh-daemon", "benches", "fuzz", "examples"];
const EXCEPTED_FOLDERS: &[&str] = &["target", "gen"];

const MAX_LINES: usize = 400;

/// Written apart, so that this file does not break its own rule.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimpl", "emented!("),
];

struct Source {
    /// From the root of the workspace.
    path: PathBuf,
    text: String,
}

#[test]
fn every_module_uses_lower_layers_only() {
    let height = heights();
    let all = sources();
    let test_files = test_files(&all);
    let core = all.iter().filter(|s| s.path.starts_with("edgemesh-core/src"));
    let mut wrong = Vec::new();
    for source in core.filter(|s| !test_files.contains(&s.path)) {
        let from = module(&source.path);
        if from == "lib" {
            continue;
        }
        let Some(own) = height.get(from.as_str()) else {
            wrong.push(format!("`{from}` is not in the table of layers"));
            continue;
        };
        for (number, line) in code(&source.text) {
            for used in used_modules(line).filter(|used| *used != from) {
                if height.get(used).is_none_or(|of_used| of_used >= own) {
                    wrong.push(at(source, number, &format!("`{from}` may not use `{used}`")));
                }
            }
            if climbs_out(line, depth(&source.path)) {
                wrong.push(at(source, number, "say `crate::…`: this `super` leaves the module"));
            }
        }
    }
    none(&wrong);
}

/// What waits, asks the time or the world, or holds others up, does not occur where decisions are
/// made. The only locks are a breaker's (of one Backend while it is ejected, of one pool at the
/// moment of it) and those of the table of a limit by caller, for those who use one.
#[test]
fn invariant_1_the_decision_never_waits_and_knows_no_clock() {
    const HEART: &[&str] = &[
        "backends", "balance", "breaker", "hash", "limit", "plan", "refusal", "sniff", "snapshot",
    ];
    const BANNED: &[&str] = &[
        "async ",
        ".await",
        "tokio",
        "Instant::now",
        "SystemTime",
        "thread::",
        "std::fs",
        "TcpStream",
        "rusqlite",
        "Mutex",
        "RwLock",
        "Condvar",
        "block_on",
    ];
    let all = sources();
    let test_files = test_files(&all);
    let mut wrong = Vec::new();
    for source in all.iter().filter(|s| s.path.starts_with("edgemesh-core/src")) {
        let module = module(&source.path);
        if !HEART.contains(&module.as_str()) || test_files.contains(&source.path) {
            continue;
        }
        for (number, line) in code(&source.text) {
            let the_lock = |word: &str| ["breaker", "limit"].contains(&&*module) && word == "Mutex";
            for word in BANNED.iter().filter(|word| line.contains(**word) && !the_lock(word)) {
                wrong.push(at(source, number, word));
            }
        }
    }
    none(&wrong);
}

/// Only `sync` makes a Snapshot visible; everyone else reads.
#[test]
fn invariant_3_only_sync_publishes() {
    let all = sources();
    let test_files = test_files(&all);
    let mut publishers = BTreeSet::new();
    for source in all.iter().filter(|s| s.path.starts_with("edgemesh-core/src")) {
        let publishes = |(_, line): (usize, &str)| line.contains("live.store(");
        if !test_files.contains(&source.path) && code(&source.text).any(publishes) {
            publishers.insert(module(&source.path));
        }
    }
    assert_eq!(publishers, BTreeSet::from(["sync".to_owned()]));
}

#[test]
fn every_layer_that_is_named_exists() {
    let there: BTreeSet<_> = sources()
        .iter()
        .filter(|s| s.path.starts_with("edgemesh-core/src"))
        .map(|s| module(&s.path))
        .collect();
    for name in LAYERS.concat() {
        assert!(there.contains(name), "no module `{name}`");
    }
}

/// The page for readers has the same layers, highest first.
#[test]
fn the_layers_are_those_of_the_docs() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let section = page.split("## Layers of").nth(1).expect("the section").split("\n## ");
    let rows = section.take(1).flat_map(str::lines).filter_map(|line| line.split('|').nth(2));
    let named = |row: &str| -> Vec<String> {
        row.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let told: Vec<_> = rows.map(named).filter(|row| !row.is_empty()).collect();
    let known = |name: &&&str| root().join(format!("edgemesh-core/src/{name}.rs")).exists();
    let sorted = |mut row: Vec<String>| {
        row.sort();
        row
    };
    let there: Vec<Vec<String>> = LAYERS
        .iter()
        .rev()
        .map(|layer| sorted(layer.iter().filter(|n| known(n)).map(|n| (*n).to_owned()).collect()))
        .collect();
    assert_eq!(told.into_iter().map(sorted).collect::<Vec<_>>(), there);
}

#[test]
fn every_file_is_short() {
    let long = |s: &Source| (s.text.lines().count() > MAX_LINES).then(|| s.text.lines().count());
    let all = sources();
    let wrong = all.iter().filter_map(|s| Some(at(s, long(s)?, "too long: split it by idea")));
    none(&wrong.collect::<Vec<_>>());
}

#[test]
fn every_file_opens_with_a_sentence() {
    let all = sources();
    let wrong = all.iter().filter(|s| !opens_with_a_sentence(&s.text));
    none(&wrong.map(|s| at(s, 1, "begin with `//! ` and what this is for.")).collect::<Vec<_>>());
}

#[test]
fn nothing_is_unfinished() {
    let all = sources();
    let mut wrong = Vec::new();
    for source in &all {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
                wrong.push(at(source, number + 1, word));
            }
        }
    }
    none(&wrong);
}

#[test]
fn production_code_keeps_to_the_rules() {
    const BANNED: &[(&str, &str)] = &[
        (".unwrap()", "`expect` says why it cannot fail"),
        ("use crate::{", "one `use` an item's module, no groups of the crate"),
        ("#[allow(", "`#[expect(…, reason = \"…\")]` goes away when it is no longer needed"),
    ];
    let all = sources();
    let test_files = test_files(&all);
    let production = |s: &&Source| {
        s.path.components().any(|part| part.as_os_str() == "src") && !test_files.contains(&s.path)
    };
    let mut wrong = Vec::new();
    for source in all.iter().filter(production) {
        for (number, line) in code(&source.text) {
            for (_, why) in BANNED.iter().filter(|(banned, _)| line.contains(banned)) {
                wrong.push(at(source, number, why));
            }
        }
    }
    none(&wrong);
}

/// The checks above read text; these rows show that they read it right.
#[test]
fn the_reading_of_sources() {
    let text = "use crate::a::B;\n// crate::c::D\n    x(crate::e::f); // crate::g\n\
                #[cfg(test)]\nmod tests {\n    use crate::h::I;\n}\nuse crate::j::{K, L};\n";
    let used: Vec<_> = code(text).flat_map(|(_, line)| used_modules(line)).collect();
    assert_eq!(used, ["a", "e", "j"]);
    for (line, depth, want) in [
        ("use super::x;", 0, true),
        ("use super::x;", 1, false),
        ("use super::super::x;", 1, true),
        ("pub(super) fn x()", 0, false),
    ] {
        assert_eq!(climbs_out(line, depth), want, "{line} at {depth}");
    }
    for (text, want) in [
        ("//! Does a thing.\n", true),
        ("//! Does a thing\n//! over two lines.\n\nuse x;", true),
        ("//! No sentence\nuse x;", false),
        ("//!\n//! Late.\n", false),
        ("use x;", false),
    ] {
        assert_eq!(opens_with_a_sentence(text), want, "{text}");
    }
}

/// The workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the core is a member")
}

fn heights() -> BTreeMap<&'static str, usize> {
    let rows = LAYERS.iter().enumerate();
    rows.flat_map(|(height, layer)| layer.iter().map(move |name| (*name, height))).collect()
}

/// `src/forward.rs` and `src/forward/http/body.rs` both belong to `forward`.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix("edgemesh-core/src").expect("a file of the core");
    let first = inside.components().next().expect("a path of a file is not empty");
    Path::new(&first).file_stem().expect("a file has a name").to_string_lossy().into_owned()
}

/// How many modules deep a file of the core lies: `src/plan.rs` is 0.
fn depth(path: &Path) -> usize {
    path.components().count().saturating_sub(3)
}

/// Names after `crate::`, in imports and in paths.
fn used_modules(line: &str) -> impl Iterator<Item = &str> {
    let name = |rest: &'_ str| rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    line.split("crate::").skip(1).map(move |rest| &rest[..name(rest).unwrap_or(rest.len())])
}

/// Whether a path of `super`s ends at the root of the crate, where it could name any module.
fn climbs_out(line: &str, depth: usize) -> bool {
    line.contains(&"super::".repeat(depth + 1))
}

/// Lines with their numbers, without comments and without what is only there in tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut skipping = None;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let line = if line.trim_start().starts_with("//") { "" } else { line };
        let line = line.split(" // ").next().unwrap_or(line);
        if line.trim() == "#[cfg(test)]" {
            skipping = Some(indent(line));
        }
        if skipping == Some(indent(line)) && line.ends_with([';', '}']) {
            skipping = None;
            return None;
        }
        (skipping.is_none() && !line.is_empty()).then_some((number + 1, line))
    })
}

/// Files that some other file includes by `#[cfg(test)] mod …;`, and what lies below them.
fn test_files(all: &[Source]) -> BTreeSet<PathBuf> {
    let mut roots = Vec::new();
    for source in all {
        let lines: Vec<_> = source.text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let name = pair[1].split("mod ").nth(1).and_then(|rest| rest.strip_suffix(';'));
            let folder =
                match source.path.file_name().is_some_and(|f| f == "lib.rs" || f == "main.rs") {
                    true => source.path.with_file_name(""),
                    false => source.path.with_extension(""),
                };
            roots.extend(name.map(|name| folder.join(name)));
        }
    }
    let inside = |path: &Path| roots.iter().any(|root| path.with_extension("").starts_with(root));
    all.iter().filter(|s| inside(&s.path)).map(|s| s.path.clone()).collect()
}

/// The first paragraph of the file's documentation is there and ends like a sentence.
fn opens_with_a_sentence(text: &str) -> bool {
    let docs = text.lines().map_while(|line| line.strip_prefix("//! "));
    docs.last().is_some_and(|line| line.trim_end().ends_with(['.', '!', '?', ':']))
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut out = Vec::new();
    let there = CRATES.iter().map(|name| root.join(name)).filter(|folder| folder.is_dir());
    there.for_each(|folder| walk(root, &folder, &mut out));
    assert!(out.len() > 50, "only {} files: is this the workspace?", out.len());
    out
}

fn walk(root: &Path, folder: &Path, out: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let excepted = EXCEPTED_FOLDERS.iter().any(|name| path.ends_with(name));
        if path.is_dir() && !excepted {
            walk(root, &path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8 source");
            out.push(Source { path: path.strip_prefix(root).expect("below").to_owned(), text });
        }
    }
}

fn at(source: &Source, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", source.path.display())
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
