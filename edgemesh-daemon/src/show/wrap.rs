//! A page of text lines that wraps at blanks and never grows wider than it is told to be.

/// Columns of the label on the left of a fact.
const LABEL: usize = 10;

/// Indent of an item in a list.
const ITEM: usize = 2;

/// Text under construction.
pub(crate) struct Page {
    width: usize,
    text: String,
}

impl Page {
    pub(crate) fn new(width: u16) -> Self {
        Self { width: usize::from(width), text: String::new() }
    }

    /// A label on the left, text on the right.
    pub(crate) fn fact(&mut self, label: &str, text: &str) {
        self.hang(&format!("{label:LABEL$}"), LABEL, text);
    }

    /// A marked item; its further lines stand under its text.
    pub(crate) fn item(&mut self, mark: &str, text: &str) {
        let first = format!("{:ITEM$}{mark} ", "");
        let indent = first.chars().count();
        self.hang(&first, indent, text);
    }

    /// A table that `draw` makes for the width it is given, indented like an item.
    pub(crate) fn table(&mut self, draw: impl FnOnce(u16) -> String) {
        let width = u16::try_from(self.width.saturating_sub(ITEM)).unwrap_or(u16::MAX);
        for line in draw(width).lines() {
            self.text.push_str(format!("{:ITEM$}{line}", "").trim_end());
            self.text.push('\n');
        }
    }

    /// Text from the left edge.
    pub(crate) fn paragraph(&mut self, text: &str) {
        self.hang("", 0, text);
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// `first`, then `text`; further lines are indented.
    fn hang(&mut self, first: &str, indent: usize, text: &str) {
        let room = self.width.saturating_sub(indent).max(1);
        let mut prefix = first.to_owned();
        for line in wrap(text, room) {
            self.text.push_str(format!("{prefix}{line}").trim_end());
            self.text.push('\n');
            prefix = " ".repeat(indent);
        }
    }
}

/// Breaks at blanks; a word longer than `room` is cut.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > room {
            lines.push(String::new());
            used = 0;
        }
        while word.len() > room {
            let rest = word.split_off(room);
            push(&mut lines, &word);
            lines.push(String::new());
            word = rest;
        }
        if used > 0 {
            push(&mut lines, &[' ']);
            used += 1;
        }
        push(&mut lines, &word);
        used += word.len();
    }
    lines
}

fn push(lines: &mut [String], chars: &[char]) {
    if let Some(line) = lines.last_mut() {
        line.extend(chars);
    }
}
