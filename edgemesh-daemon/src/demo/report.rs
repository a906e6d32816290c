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
    /// Client → way → Backend.
    pub(crate) how: String,
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
        Self { what, how: how.into(), measured, verdict }
    }

    pub(crate) fn not_shown(what: &'static str, how: impl Into<String>, why: &str) -> Self {
        Self { what, how: how.into(), measured: why.into(), verdict: Verdict::NotShown }
    }
}

/// The whole table, and one line that counts.
pub(crate) fn table(rows: &[Row], width: u16) -> String {
    let cells = rows.iter().map(|row| {
        vec![row.what.into(), row.how.clone(), row.measured.clone(), row.verdict.text().into()]
    });
    let head = ["WHAT WAS SHOWN", "HOW", "MEASURED", "VERDICT"];
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let drawn = draw(&head, &[], cells, width.min(WIDEST));
    format!(
        "\n{drawn}\n{} held, {} FAILED, {} not shown\n",
        count(Verdict::Holds),
        count(Verdict::Failed),
        count(Verdict::NotShown)
    )
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
        ]
    }

    #[test]
    fn tables_fit_and_say_it_all() {
        for (width, widest) in [(60, 60), (80, 80), (100, 100), (240, 100)] {
            let text = table(&rows(), width);
            for line in text.lines() {
                assert!(line.chars().count() <= widest, "{width} columns:\n{text}");
            }
            for word in ["holds", "FAILED", "no 429", "hello-3 10", "not shown"] {
                let words: Vec<_> = text.split_whitespace().collect();
                let wanted: Vec<_> = word.split(' ').collect();
                let all = wanted.iter().all(|word| words.iter().any(|w| w.contains(word)));
                assert!(all, "{word} at {width}:\n{text}");
            }
            assert!(text.ends_with("1 held, 1 FAILED, 1 not shown\n"), "{text}");
        }
    }
}
