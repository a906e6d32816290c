//! The documents of one text, cut before any of them is parsed, so that a broken one ends nowhere else.

use std::path::Path;

/// The text of one document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part<'t> {
    /// Lines of the file before it.
    pub(super) before: u32,
    pub(super) text: &'t str,
}

/// Cuts at lines that begin with `---` or `...`, which YAML allows nowhere inside a document.
/// Parts without content are left out. JSON is one document.
pub(super) fn documents<'t>(file: &Path, text: &'t str) -> Vec<Part<'t>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if is_json(file) {
        return vec![Part { before: 0, text }];
    }
    let mut parts = Vec::new();
    let (mut start, mut before) = (0, 0);
    let (mut at, mut line) = (0, 0);
    let mut content = false;
    for row in text.split_inclusive('\n') {
        if is_mark(row, "---") {
            if content {
                parts.push(Part { before, text: &text[start..at] });
            }
            (start, before) = (at, line);
            content = has_content(&row[3..]);
        } else if is_mark(row, "...") {
            if content {
                parts.push(Part { before, text: &text[start..at] });
            }
            (start, before) = (at + row.len(), line + 1);
            content = false;
        } else {
            content |= has_content(row);
        }
        at += row.len();
        line += 1;
    }
    if content {
        parts.push(Part { before, text: &text[start..] });
    }
    parts
}

fn is_json(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

fn is_mark(row: &str, mark: &str) -> bool {
    row.strip_prefix(mark)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Neither blank, nor a comment, nor a directive (`%YAML 1.2`).
fn has_content(row: &str) -> bool {
    !row.starts_with('%') && !matches!(row.trim_start().chars().next(), None | Some('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_document_lines() {
        for (file, text, want) in [
            ("a.yaml", "a: 1\n", &[(0, "a: 1\n")][..]),
            ("a.yaml", "\u{feff}a: 1", &[(0, "a: 1")]),
            ("a.yaml", "---\na: 1\n---\nb: 2\n", &[(0, "---\na: 1\n"), (2, "---\nb: 2\n")]),
            ("a.yaml", "---\r\na: 1\r\n---\r\nb", &[(0, "---\r\na: 1\r\n"), (2, "---\r\nb")]),
            ("a.yaml", "--- {a: 1}\n--- # x\n\n---\n", &[(0, "--- {a: 1}\n")]),
            ("a.yaml", "%YAML 1.2\n---\na: 1\n...\nb: 2\n", &[(1, "---\na: 1\n"), (4, "b: 2\n")]),
            ("a.yaml", "a: |\n  ---\n  x\n", &[(0, "a: |\n  ---\n  x\n")]),
            ("a.yaml", "---x: 1\n", &[(0, "---x: 1\n")]),
            ("a.yaml", "# nothing\n\n", &[]),
            ("a.yaml", "", &[]),
            ("a.json", "{\n---\n}", &[(0, "{\n---\n}")]),
        ] {
            let parts: Vec<_> = documents(Path::new(file), text)
                .iter()
                .map(|part| (part.before, part.text))
                .collect();
            assert_eq!(parts, want, "{text:?}");
        }
    }
}
