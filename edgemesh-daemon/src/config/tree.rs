//! YAML text as a tree of nodes that remember their lines and leave every scalar as it was written.
//!
//! What a scalar means is for the key that wants it to say: `off` is a word for `accessLog`, and
//! a node may be called `0123`.

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

/// How deep mappings and lists may nest; the configuration needs four.
const MAX_DEPTH: usize = 16;

/// One node of the file.
#[derive(Debug)]
pub(crate) struct Node {
    /// Line, from 1.
    pub(crate) line: usize,
    /// What is there.
    pub(crate) value: Value,
}

/// A key, its line, its value.
pub(crate) type Entry = (String, usize, Node);

/// A line and what is wrong there.
pub(crate) type Wrong = (usize, String);

/// What a node is.
#[derive(Debug)]
pub(crate) enum Value {
    /// Nothing after the key, or `~`, or `null`.
    Null,
    /// A scalar, without its quotes.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the file's order.
    Map(Vec<Entry>),
}

impl Value {
    /// The word for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "one value",
            Self::List(_) => "a list",
            Self::Map(_) => "a section",
        }
    }
}

/// Reads one document; an empty one is `Null`.
pub(crate) fn parse(text: &str) -> Result<Node, Wrong> {
    let mut events = Events { parser: Parser::new_from_str(text), line: 1 };
    let mut root = None;
    loop {
        match events.next()? {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            _ if root.is_some() => {
                return Err((events.line, "a second document; one file is one".into()));
            }
            event => root = Some(events.node(event, 0)?),
        }
    }
    Ok(root.unwrap_or(Node { line: 1, value: Value::Null }))
}

struct Events<'a> {
    parser: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
    line: usize,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Event<'a>, Wrong> {
        loop {
            match self.parser.next_event() {
                None => return Ok(Event::StreamEnd),
                Some(Ok((Event::Comment(..) | Event::Anchor(..), _))) => {}
                Some(Ok((event, span))) => {
                    self.line = span.start.line();
                    return Ok(event);
                }
                Some(Err(error)) => {
                    let info = error.info();
                    let info = if info.is_empty() { "syntax error".into() } else { info };
                    return Err((error.marker().line(), format!("not YAML: {info}")));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, Wrong> {
        let line = self.line;
        if depth > MAX_DEPTH {
            return Err((line, format!("nested deeper than {MAX_DEPTH}")));
        }
        let value = match event {
            Event::Scalar(text, style, _, _) => scalar(&text, style),
            Event::SequenceStart(..) => Value::List(self.list(depth)?),
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                return Err((line, "anchors and aliases are not read here: write it out".into()));
            }
            other => return Err((line, format!("not YAML: unexpected {other:?}"))),
        };
        Ok(Node { line, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Wrong> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(items),
                event => items.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Wrong> {
        let mut entries = Vec::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(key, ..) => key.into_owned(),
                _ => return Err((self.line, "a key must be one word".into())),
            };
            let line = self.line;
            let event = self.next()?;
            entries.push((key, line, self.node(event, depth + 1)?));
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        Value::Null
    } else {
        Value::Scalar(text.into())
    }
}
