//! JSON text as Go's encoder writes it: its escapes, and its compact form.

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || is_escaped(c) => push_escape(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Valid JSON without the spaces between its tokens, and with Go's escapes inside its strings.
pub(crate) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut after_backslash) = (false, false);
    for c in json.chars() {
        match c {
            ' ' | '\t' | '\n' | '\r' if !in_string => continue,
            '"' if !after_backslash => in_string = !in_string,
            c if is_escaped(c) => {
                push_escape(&mut out, c);
                continue;
            }
            _ => {}
        }
        after_backslash = c == '\\' && !after_backslash;
        out.push(c);
    }
    out
}

/// What Go escapes although JSON does not ask for it: what would matter inside HTML or JavaScript.
fn is_escaped(c: char) -> bool {
    matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
}

fn push_escape(out: &mut String, c: char) {
    out.push_str(&format!("\\u{:04x}", u32::from(c)));
}

#[cfg(test)]
mod tests {
    use super::{compact, push_string};

    #[test]
    fn strings_are_escaped_as_go_does() {
        let rows = [
            ("plain", r#""plain""#),
            ("\"\\/", r#""\"\\/""#),
            (
                "\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}",
                "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\u{7f}\"",
            ),
            ("a<b>&c", r#""a\u003cb\u003e\u0026c""#),
            ("\u{2028}\u{2029}", r#""\u2028\u2029""#),
            ("é🦀\u{fffd}", "\"é🦀\u{fffd}\""),
        ];
        for (text, want) in rows {
            let mut out = String::new();
            push_string(&mut out, text);
            assert_eq!(out, want, "{text:?}");
        }
    }

    #[test]
    fn json_is_compacted_as_go_does() {
        let rows = [
            (" { \"a b\" : [ 1 ,\t2.50 ]\r\n} ", r#"{"a b":[1,2.50]}"#),
            (r#"{"a":"x\" y \\"  , "b" : 1}"#, r#"{"a":"x\" y \\","b":1}"#),
            (r#"["<&>\u003c"]"#, r#"["\u003c\u0026\u003e\u003c"]"#),
            ("[\"\u{2028}\"]", r#"["\u2028"]"#),
        ];
        for (json, want) in rows {
            assert_eq!(compact(json), want);
            assert_eq!(compact(want), want, "compacting twice changes nothing");
        }
    }
}
