//! The table at the end: what was shown, how, what was measured, and whether it held.

use crate::show::table::draw;

/// Widest table: what fits a page. The terminal may be narrower.
const WIDEST: u16 = 100;

/// Whether it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Holds,
    Failed,
    /// It could not be tried here.
    NotShown,
}

impl Verdict {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Failed => "FAILED",
            Self::NotShown => "not shown",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What was shown.
    pub(crate) what: &'static str,
    /// Client → way → Backend; of a way, its path.
    pub(crate) how: String,
    /// Of a row of the four ways: who answered.
    pub(crate) backend: Option<String>,
    /// What came out, or why nothing did.
    pub(crate) measured: String,
    pub(crate) verdict: Verdict,
}

impl Row {
    /// Held as `Ok` says what was measured; failed as `Err` says why.
    pub(crate) fn new(
        what: &'static str,
        how: impl Into<String>,
        outcome: anyhow::Result<String>,
    ) -> Self {
        let (measured, verdict) = match outcome {
            Ok(measured) => (measured, Verdict::Holds),
            Err(error) => (format!("{error:#}"), Verdict::Failed),
        };
        Self { what, how: how.into(), backend: None, measured, verdict }
    }

    /// One of the four ways to `backend`: held as `Ok` says which path it took and how long that takes;
    /// failed as `Err` says why.
    pub(crate) fn way(
        what: &'static str,
        backend: impl Into<String>,
        outcome: anyhow::Result<(String, String)>,
    ) -> Self {
        let (how, outcome) = match outcome {
            Ok((path, latency)) => (path, Ok(latency)),
            Err(error) => (String::new(), Err(error)),
        };
        Self { backend: Some(backend.into()), ..Self::new(what, how, outcome) }
    }

    /// One of the four ways that could not be tried.
    pub(crate) fn way_not_shown(what: &'static str, backend: impl Into<String>, why: &str) -> Self {
        Self { backend: Some(backend.into()), ..Self::not_shown(what, "", why) }
    }

    pub(crate) fn not_shown(what: &'static str, how: impl Into<String>, why: &str) -> Self {
        let (how, measured) = (how.into(), why.into());
        Self { what, how, backend: None, measured, verdict: Verdict::NotShown }
    }
}

/// What was shown, the four ways, and one line that counts.
pub(crate) fn table(rows: &[Row], width: u16) -> String {
    let (ways, others): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.backend.is_some());
    let mut text = String::new();
    if !others.is_empty() {
        let head = ["WHAT WAS SHOWN", "HOW", "MEASURED", "VERDICT"];
        text.push_str(&drawn(&head, &others, width));
    }
    if !ways.is_empty() {
        let head = ["WAY", "PATH", "BACKEND", "LATENCY", "VERDICT"];
        text.push_str(&drawn(&head, &ways, width));
    }
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    format!(
        "{text}\n{} held, {} FAILED, {} not shown\n",
        count(Verdict::Holds),
        count(Verdict::Failed),
        count(Verdict::NotShown)
    )
}

fn drawn(head: &[&str], rows: &[&Row], width: u16) -> String {
    let cells = rows.iter().map(|row| {
        let first = [row.what.to_owned(), row.how.clone()];
        let last = [row.measured.clone(), row.verdict.text().to_owned()];
        first.into_iter().chain(row.backend.clone()).chain(last).collect()
    });
    format!("\n{}", draw(head, &[], cells, width.min(WIDEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        vec![
            Row::new(
                "HTTP/1.1 by name, balanced per request",
                "curl in a pod → hello.default → 3 Backends",
                Ok("30 calls on 1 connection: hello-1 10, hello-2 10, hello-3 10".into()),
            ),
            Row::new("client-side limit", "built-in client", Err(anyhow::anyhow!("no 429"))),
            Row::not_shown("gRPC", "built-in client", "no namespaces"),
            Row::way(
                "edge → edge, HTTP/1.1",
                "b1, by curl",
                Ok(("direct, dialled 10.92.1.11:15008".into(), "0.41 ms, p50 of 30".into())),
            ),
            Row::way("edge → cloud", "c2, no agent", Err(anyhow::anyhow!("3 of 30 calls failed"))),
        ]
    }

    #[test]
    fn tables_fit_and_say_it_all() {
        for (width, widest) in [(60, 60), (80, 80), (100, 100), (240, 100)] {
            let text = table(&rows(), width);
            for line in text.lines() {
                assert!(line.chars().count() <= widest, "{width} columns:\n{text}");
            }
            for word in ["holds", "FAILED", "no 429", "hello-3 10", "not shown", "PATH", "0.41 ms"]
            {
                let words: Vec<_> = text.split_whitespace().collect();
                let wanted: Vec<_> = word.split(' ').collect();
                let all = wanted.iter().all(|word| words.iter().any(|w| w.contains(word)));
                assert!(all, "{word} at {width}:\n{text}");
            }
            assert!(text.ends_with("2 held, 2 FAILED, 1 not shown\n"), "{text}");
        }
    }
}
