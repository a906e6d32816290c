//! YAML or JSON text as a tree of values that know their lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Options, Spanned, UserMessageFormatter};

/// Deepest nesting of maps and lists in one document; Kubernetes objects stay below 20.
const MAX_NESTING: usize = 64;
/// Most values in one document: a `List` of some ten thousand objects.
const MAX_VALUES: usize = 4_000_000;
/// Most parser events that aliases (`*name`) may repeat in one document.
const MAX_REPEATED: usize = 100_000;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Box<str>),
    List(Vec<Item>),
    Map(Vec<Entry>),
}

/// A value in a list, with the line where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) line: u32,
    pub(super) tree: Tree,
}

/// A value in a map, with its key and the key's line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) line: u32,
    pub(super) key: Box<str>,
    pub(super) tree: Tree,
}

/// Why a text is no YAML, and in which of its lines.
#[derive(Debug, PartialEq)]
pub(super) struct Broken {
    pub(super) line: u32,
    pub(super) reason: String,
}

/// Reads one document.
pub(super) fn read(text: &str) -> Result<Item, Broken> {
    let spanned: Result<Spanned<Tree>, _> = serde_saphyr::from_str_with_options(text, options());
    match spanned {
        Ok(spanned) => Ok(Item { line: line_of(&spanned), tree: spanned.value }),
        Err(error) => {
            let line = error.location().map_or(1, |location| clamp(location.line()));
            Err(Broken { line, reason: plain(&error) })
        }
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_NESTING,
            flow_nesting_limit: MAX_NESTING,
            max_nodes: MAX_VALUES,
            max_events: 2 * MAX_VALUES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPEATED },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // `on` and `no` are names more often than they are answers; `field::boolean` knows them.
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
    }
}

/// The message without the place, which a Remark tells on its own.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.render_with_formatter(&UserMessageFormatter);
    let text = text.lines().next().unwrap_or_default();
    let text = text.find(" at line ").map_or(text, |at| &text[..at]);
    format!("no valid YAML: {}; correct the syntax", text.trim())
}

fn line_of<T>(spanned: &Spanned<T>) -> u32 {
    clamp(spanned.referenced.line())
}

/// Lines count from 1; 0 is the parser's "unknown".
fn clamp(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).max(1)
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Int(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Int(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Tree>>()? {
            items.push(Item { line: line_of(&item), tree: item.value });
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, tree)) = map.next_entry::<Spanned<Box<str>>, Tree>()? {
            entries.push(Entry { line: line_of(&key), key: key.value, tree });
        }
        Ok(Tree::Map(entries))
    }
}
