//! Takes keys out of a tree one by one, notes where each value came from, and collects problems.

use std::collections::BTreeMap;

use crate::config::Origin;
use crate::config::Problem;
use crate::config::Resolved;
use crate::config::tree;
use crate::config::tree::Entry;
use crate::config::tree::Node;
use crate::config::tree::Value;

/// What was read so far.
pub(crate) struct Reader {
    pub(crate) file: String,
    /// Each with its line, 0 for those that have none.
    pub(crate) problems: Vec<(usize, Problem)>,
    pub(crate) origins: BTreeMap<String, Origin>,
}

/// The keys of one mapping that nobody has asked for yet.
pub(crate) struct Section {
    path: String,
    entries: Vec<Entry>,
    known: Vec<&'static str>,
}

impl Reader {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.into(), problems: Vec::new(), origins: BTreeMap::new() }
    }

    /// The checked value, or all problems in the order of the file's lines.
    pub(crate) fn finish<C>(self, config: Option<C>) -> Result<Resolved<C>, Vec<Problem>> {
        let Self { file, mut problems, origins } = self;
        match config {
            Some(config) if problems.is_empty() => Ok(Resolved { config, file, origins }),
            Some(_) | None => {
                problems.sort_by_key(|(line, _)| *line);
                Err(problems.into_iter().map(|(_, problem)| problem).collect())
            }
        }
    }

    /// Notes a problem with `key` where its value came from.
    pub(crate) fn problem(&mut self, key: &str, text: impl Into<String>) {
        let origin = self.origins.get(key).copied().unwrap_or(Origin::Default);
        let line = if let Origin::File(line) = origin { line } else { 0 };
        let place = origin_place(&self.file, origin);
        self.problems.push((line, Problem { place, key: key.into(), text: text.into() }));
    }

    /// Notes a problem with `key` on `line`.
    pub(crate) fn problem_at(&mut self, line: usize, key: &str, text: impl Into<String>) {
        let place = origin_place(&self.file, Origin::File(line));
        self.problems.push((line, Problem { place, key: key.into(), text: text.into() }));
    }

    /// Where the value of `key` came from, for a message about another key.
    pub(crate) fn place(&self, key: &str) -> String {
        match self.origins.get(key) {
            None | Some(Origin::Default) => "by default".into(),
            Some(origin) => origin_place(&self.file, *origin),
        }
    }

    /// Whether anybody said what `key` is.
    pub(crate) fn is_given(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Notes where the value of `key` came from.
    pub(crate) fn came_from(&mut self, key: &str, origin: Origin) {
        self.origins.insert(key.into(), origin);
    }

    /// The whole text as a section; `None` where it is no YAML or no mapping, which is noted.
    pub(crate) fn root(&mut self, text: &str) -> Option<Section> {
        let root = match tree::parse(text) {
            Ok(root) => root,
            Err((line, text)) => {
                self.problem_at(line, "", text);
                return None;
            }
        };
        // Already a problem; that nothing in it has a key is not another one.
        let is_section = matches!(root.value, Value::Null | Value::Map(_));
        let top = self.open("", Some(root));
        is_section.then_some(top)
    }

    /// The mapping in `node` as a section; anything but a mapping or nothing is a problem.
    pub(crate) fn open(&mut self, path: &str, node: Option<Node>) -> Section {
        let entries = match node {
            None | Some(Node { value: Value::Null, .. }) => Vec::new(),
            Some(Node { value: Value::Map(entries), .. }) => entries,
            Some(Node { line, value: other @ (Value::Scalar(_) | Value::List(_)) }) => {
                self.problem_at(line, path, format!("wants a section, found {}", other.kind()));
                Vec::new()
            }
        };
        let mut section = Section { path: path.into(), entries: Vec::new(), known: vec![] };
        for (key, line, node) in entries {
            if let Some((_, first, _)) = section.entries.iter().find(|(have, ..)| *have == key) {
                let text = format!("is given twice; first on line {first}");
                self.problem_at(line, &section.join(&key), text);
            } else {
                section.entries.push((key, line, node));
            }
        }
        section
    }

    /// The section under `key` of `parent`.
    pub(crate) fn section(&mut self, parent: &mut Section, key: &'static str) -> Section {
        let node = parent.take(key).map(|(_, node)| node);
        let path = parent.join(key);
        self.open(&path, node)
    }

    /// The value of `key`, or `None` where it is absent or wrong.
    pub(crate) fn value<T>(
        &mut self,
        section: &mut Section,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (line, node) = section.take(key)?;
        let path = section.join(key);
        match node.value {
            Value::Null => None,
            Value::Scalar(text) => {
                self.came_from(&path, Origin::File(line));
                parse(&text).map_err(|text| self.problem_at(node.line, &path, text)).ok()
            }
            other @ (Value::List(_) | Value::Map(_)) => {
                let text = format!("wants one value, found {}", other.kind());
                self.problem_at(line, &path, text);
                None
            }
        }
    }

    /// The list at `key`, or `None` where it is absent or no list; wrong items are left out.
    pub(crate) fn list<T>(
        &mut self,
        section: &mut Section,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let (line, node) = section.take(key)?;
        let path = section.join(key);
        self.items(&path, line, node, parse)
    }

    /// The items of `node`, which stands at `path`.
    pub(crate) fn items<T>(
        &mut self,
        path: &str,
        line: usize,
        node: Node,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let items = match node.value {
            Value::Null => return None,
            Value::List(items) => items,
            Value::Scalar(text) => {
                self.problem_at(line, path, format!("wants a list: [{text}]"));
                return None;
            }
            other @ Value::Map(_) => {
                self.problem_at(line, path, format!("wants a list, found {}", other.kind()));
                return None;
            }
        };
        self.came_from(path, Origin::File(line));
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item.value {
                Value::Scalar(text) => match parse(&text) {
                    Ok(value) => values.push(value),
                    Err(text) => self.problem_at(item.line, &path, text),
                },
                other @ (Value::Null | Value::List(_) | Value::Map(_)) => {
                    let text = format!("wants one value, found {}", other.kind());
                    self.problem_at(item.line, &path, text);
                }
            }
        }
        Some(values)
    }

    /// The mapping at `key` whose keys are the user's own; wrong entries are left out.
    pub(crate) fn pairs<T>(
        &mut self,
        section: &mut Section,
        key: &'static str,
        parse_key: impl Fn(&str) -> Result<String, String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<BTreeMap<String, T>> {
        let (line, node) = section.take(key)?;
        let path = section.join(key);
        self.came_from(&path, Origin::File(line));
        let inner = self.open(&path, Some(node));
        let mut pairs = BTreeMap::new();
        for (key, line, node) in inner.entries {
            let path = format!("{path}.{key}");
            let parsed = match &node.value {
                Value::Scalar(text) => parse(text),
                other @ (Value::Null | Value::List(_) | Value::Map(_)) => {
                    Err(format!("wants one value, found {}", other.kind()))
                }
            };
            match parse_key(&key).and_then(|key| Ok((key, parsed?))) {
                Ok((key, value)) => {
                    pairs.insert(key, value);
                }
                Err(text) => self.problem_at(line, &path, text),
            }
        }
        Some(pairs)
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn close(&mut self, section: Section) {
        for (key, line, _) in &section.entries {
            let text = match nearest(key, &section.known) {
                Some(known) => format!("unknown key; did you mean `{known}`?"),
                None => format!("unknown key; known here: {}", section.known.join(", ")),
            };
            self.problem_at(*line, &section.join(key), text);
        }
    }
}

impl Section {
    /// Takes the value of `key` with the key's line.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<(usize, Node)> {
        self.known.push(key);
        let at = self.entries.iter().position(|(have, ..)| have == key)?;
        let (_, line, node) = self.entries.remove(at);
        Some((line, node))
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }
}

fn origin_place(file: &str, origin: Origin) -> String {
    match origin {
        Origin::File(line) => format!("{file}:{line}"),
        Origin::Env(name) => format!("${name}"),
        Origin::Flag(name) => name.into(),
        Origin::Default => file.into(),
        Origin::Hostname => "this machine's host name".into(),
    }
}

/// The known key that was most likely meant: at most two edits away, and not most of the word.
pub(crate) fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    const MAX_EDITS: usize = 2;
    known
        .iter()
        .map(|word| {
            let edits = strsim::damerau_levenshtein(&typed.to_lowercase(), &word.to_lowercase());
            (edits, *word)
        })
        .filter(|(edits, word)| *edits <= MAX_EDITS && edits * 2 < word.len())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, word)| word)
}
