//! Takes out of a text what nobody else may read: tokens, passwords, query strings.

/// Words after which, behind `:` or `=`, a secret stands.
const SECRETS: &[&str] =
    &["authorization", "bearer", "cookie", "passwd", "password", "secret", "token"];
/// What stands in its place.
const GONE: &str = "[redacted]";

/// `text` without secrets, line by line.
pub(super) fn redact(text: &str) -> String {
    text.lines().map(|line| line_of(line) + "\n").collect()
}

fn line_of(line: &str) -> String {
    let line = without_queries(line);
    let lower = line.to_ascii_lowercase();
    let secret = |word: &&&str| {
        let rest =
            lower.find(**word).map(|at| lower[at + word.len()..].trim_start_matches(['"', ' ']));
        rest.is_some_and(|rest| rest.starts_with([':', '=']) || **word == "bearer")
    };
    // The rest of the line goes: where a secret ends cannot be told.
    let first = SECRETS.iter().filter(secret).filter_map(|word| Some((lower.find(word)?, word)));
    match first.min() {
        Some((at, word)) => format!("{}: {GONE}", &line[..at + word.len()]),
        None => line,
    }
}

/// `http://a/b?c=d` becomes `http://a/b?[redacted]`.
fn without_queries(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('?') {
        let (before, query) = rest.split_at(at + 1);
        let end = query.find(|c: char| c.is_whitespace() || "\"'`<>)".contains(c));
        let (query, after) = query.split_at(end.unwrap_or(query.len()));
        out.push_str(before);
        out.push_str(if query.is_empty() { "" } else { GONE });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let cases = [
            ("GET http://a/b?key=1&c=2 done", "GET http://a/b?[redacted] done"),
            ("\"path\":\"/x?y\",\"status\":200", "\"path\":\"/x?[redacted]\",\"status\":200"),
            ("why? because", "why? because"),
            ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
            ("token=abc", "token: [redacted]"),
            ("\"password\": \"x\"", "\"password: [redacted]"),
            ("tokenFile: /etc/edgemesh/token", "tokenFile: /etc/edgemesh/token"),
            ("12 tokens left", "12 tokens left"),
            ("Set-Cookie: a=b", "Set-Cookie: [redacted]"),
        ];
        for (text, want) in cases {
            assert_eq!(redact(text), format!("{want}\n"), "{text}");
        }
    }
}
