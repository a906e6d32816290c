//! One place in a document: its value, its line, its path, and how to read it as a type.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use crate::manifests::tree::{Item, Tree};

/// Why a document is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// In the text that was read, from 1.
    pub(super) line: u32,
    /// `spec.ports[0].port`; empty for the document itself.
    pub(super) field: String,
    /// What is wrong, and how to put it right.
    pub(super) reason: String,
}

/// A value and the way to it from the top of its document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    tree: &'a Tree,
    line: u32,
    step: Step<'a>,
    up: Option<&'a Self>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Top,
    Key(&'a str),
    Index(usize),
}

impl<'a> Field<'a> {
    /// The top of a document, or of one item of a `List`.
    pub(super) fn top(item: &'a Item) -> Self {
        Self { tree: &item.tree, line: item.line, step: Step::Top, up: None }
    }

    /// Line of the key, or of the value where it has no key.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// A Fault of this value.
    pub(super) fn fault(&self, reason: impl Into<String>) -> Fault {
        Fault { line: self.line, field: self.path(), reason: reason.into() }
    }

    /// The value under `key`; `None` when it is missing or null, as in Kubernetes.
    pub(super) fn get<'c>(&'c self, key: &'c str) -> Result<Option<Field<'c>>, Fault> {
        let Tree::Map(entries) = self.tree else {
            return Err(self.wrong("a map of keys and values"));
        };
        let found = entries.iter().find(|entry| &*entry.key == key);
        Ok(found.filter(|entry| entry.tree != Tree::Null).map(|entry| Field {
            tree: &entry.tree,
            line: entry.line,
            step: Step::Key(&entry.key),
            up: Some(self),
        }))
    }

    /// The value under `key`, which must be there.
    pub(super) fn need<'c>(&'c self, key: &'c str) -> Result<Field<'c>, Fault> {
        self.get(key)?.ok_or_else(|| self.missing(key, &format!("is missing; add `{key}`")))
    }

    /// A Fault of a key that is not there (or is null).
    pub(super) fn missing(&self, key: &str, reason: &str) -> Fault {
        let path = self.path();
        Fault {
            line: self.line_of(key),
            field: if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") },
            reason: reason.to_owned(),
        }
    }

    /// Every key of this map with its value, null ones too.
    pub(super) fn entries(&self) -> Result<impl Iterator<Item = (&str, Field<'_>)>, Fault> {
        let Tree::Map(entries) = self.tree else {
            return Err(self.wrong("a map of keys and values"));
        };
        Ok(entries.iter().map(move |entry| {
            let step = Step::Key(&entry.key);
            let field = Field { tree: &entry.tree, line: entry.line, step, up: Some(self) };
            (&*entry.key, field)
        }))
    }

    /// Line of `key`, be its value null; this value's line where there is no such key.
    pub(super) fn line_of(&self, key: &str) -> u32 {
        let Tree::Map(entries) = self.tree else { return self.line };
        entries.iter().find(|entry| &*entry.key == key).map_or(self.line, |entry| entry.line)
    }

    /// Every item of this list.
    pub(super) fn items(&self) -> Result<impl ExactSizeIterator<Item = Field<'_>>, Fault> {
        let Tree::List(items) = self.tree else {
            return Err(self.wrong("a list"));
        };
        Ok(items.iter().enumerate().map(move |(index, item)| Field {
            tree: &item.tree,
            line: item.line,
            step: Step::Index(index),
            up: Some(self),
        }))
    }

    /// Reads the list under `key` item by item; a missing list is empty.
    pub(super) fn each<T>(
        &self,
        key: &str,
        read: impl Fn(&Field<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let Some(list) = self.get(key)? else {
            return Ok(Vec::new());
        };
        list.items()?.map(|item| read(&item)).collect()
    }

    /// Reads the value under `key`, if there is one.
    pub(super) fn maybe<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Field<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        self.get(key)?.map(|field| read(&field)).transpose()
    }

    /// A text, borrowed.
    pub(super) fn text(&self) -> Result<&str, Fault> {
        match self.tree {
            Tree::Text(text) => Ok(text),
            Tree::Int(_) | Tree::Float(_) | Tree::Bool(_) => {
                Err(self.fault(format!("must be text, not {}; put it in quotes", self.shown())))
            }
            Tree::Null | Tree::List(_) | Tree::Map(_) => Err(self.wrong("text")),
        }
    }

    /// A whole number in a range.
    pub(super) fn int(&self, range: RangeInclusive<u32>) -> Result<u32, Fault> {
        let (low, high) = (*range.start(), *range.end());
        let expected = format!("a whole number from {low} to {high}");
        let Tree::Int(value) = self.tree else {
            return Err(self.wrong(&expected));
        };
        let value = u32::try_from(*value).ok().filter(|value| range.contains(value));
        value.ok_or_else(|| self.wrong(&expected))
    }

    /// The value if it is a whole number, whatever its range.
    pub(super) fn is_int(&self) -> bool {
        matches!(self.tree, Tree::Int(_))
    }

    /// The value if it is a whole number.
    pub(super) fn whole_number(&self) -> Option<i128> {
        match self.tree {
            Tree::Int(value) => Some(*value),
            Tree::Null
            | Tree::Bool(_)
            | Tree::Float(_)
            | Tree::Text(_)
            | Tree::List(_)
            | Tree::Map(_) => None,
        }
    }

    /// Whether it has keys.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.tree, Tree::Map(_))
    }

    /// A text, or what is as good as one: a number, an answer.
    pub(super) fn scalar(&self) -> Result<String, Fault> {
        match self.tree {
            Tree::Text(text) => Ok(text.to_string()),
            Tree::Int(value) => Ok(value.to_string()),
            Tree::Bool(value) => Ok(value.to_string()),
            Tree::Float(value) => Ok(format!("{value:?}")),
            Tree::Null | Tree::List(_) | Tree::Map(_) => Err(self.wrong("text")),
        }
    }

    /// Text out of a table of words.
    pub(super) fn word<T: Copy>(&self, table: &[(&str, T)]) -> Result<T, Fault> {
        let text = self.text()?;
        if let Some((_, value)) = table.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let words: Vec<_> = table.iter().map(|(word, _)| *word).collect();
        Err(self.fault(format!("`{}` is not one of {}", brief(text), words.join(", "))))
    }

    /// A Fault that says what was expected and what is there.
    pub(super) fn wrong(&self, expected: &str) -> Fault {
        self.fault(format!("must be {expected}, not {}", self.shown()))
    }

    fn shown(&self) -> Cow<'static, str> {
        match self.tree {
            Tree::Null => "null".into(),
            Tree::Bool(value) => format!("{value}").into(),
            Tree::Int(value) => format!("{value}").into(),
            Tree::Float(value) => format!("{value}").into(),
            Tree::Text(text) => format!("`{}`", brief(text)).into(),
            Tree::List(_) => "a list".into(),
            Tree::Map(_) => "a map".into(),
        }
    }

    fn path(&self) -> String {
        let mut path = self.up.map(Field::path).unwrap_or_default();
        match self.step {
            Step::Top => {}
            Step::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(path, "[{index}]");
            }
            Step::Key(key) if key.contains(['.', '/', '[', ' ']) => {
                let _ = write!(path, "[\"{}\"]", brief(key));
            }
            Step::Key(key) if path.is_empty() => path.push_str(&brief(key)),
            Step::Key(key) => {
                let _ = write!(path, ".{}", brief(key));
            }
        }
        path
    }
}

/// A text of its own.
pub(super) fn boxed(field: &Field<'_>) -> Result<Box<str>, Fault> {
    field.text().map(Box::from)
}

/// `true` or `false`, also in the spellings of YAML 1.1 that Kubernetes reads.
pub(super) fn boolean(field: &Field<'_>) -> Result<bool, Fault> {
    const SPELLINGS: &[(&str, bool)] =
        &[("yes", true), ("on", true), ("no", false), ("off", false)];
    let spelled = match field.tree {
        Tree::Bool(value) => Some(*value),
        Tree::Text(text) => {
            let known = SPELLINGS.iter().find(|(known, _)| text.eq_ignore_ascii_case(known));
            known.map(|(_, value)| *value)
        }
        Tree::Null | Tree::Int(_) | Tree::Float(_) | Tree::List(_) | Tree::Map(_) => None,
    };
    spelled.ok_or_else(|| field.wrong("true or false"))
}

/// Longest piece of a manifest that a Remark repeats, in characters.
const SHOWN: usize = 80;

/// A text on one line and not too long, to be repeated in a Remark.
pub(super) fn brief(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
