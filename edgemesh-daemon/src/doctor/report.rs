//! What the doctor found: a level, a finding and a fix a line, never wider than 80 columns.

use serde::Serialize;

use crate::show::wrap::Page;

/// Widest page, on however wide a terminal: it is read, mailed and pasted.
const MAX_WIDTH: u16 = 80;
/// Columns of a check's name.
pub(super) const NAME: usize = 9;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, or may; somebody should know.
    Warn,
    /// Something does not work.
    Bad,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    /// Name of the check.
    pub(super) check: &'static str,
    /// How bad it is.
    pub(super) level: Level,
    /// What was found.
    pub(super) found: String,
    /// What to do about it; empty where nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) fix: String,
}

/// All findings, in the order of the checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
}

impl Finding {
    fn new(level: Level, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check: "", level, found: found.into(), fix: fix.into() }
    }
}

/// One finding: all is well.
pub(super) fn ok(found: impl Into<String>) -> Vec<Finding> {
    vec![Finding::new(Level::Ok, found, "")]
}

/// One finding that somebody should know, and the fix.
pub(super) fn warn(found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding::new(Level::Warn, found, fix)
}

/// One finding that something does not work, and the fix.
pub(super) fn bad(found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding::new(Level::Bad, found, fix)
}

/// `findings`, or where there are none, that all is well.
pub(super) fn or_ok(findings: Vec<Finding>, well: impl Into<String>) -> Vec<Finding> {
    if findings.is_empty() { ok(well) } else { findings }
}

impl Report {
    /// The worst level of all.
    pub(super) fn worst(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// As people read it.
    pub(super) fn draw(&self, width: u16) -> String {
        let mut page = Page::new(width.min(MAX_WIDTH));
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok  ",
                Level::Warn => "warn",
                Level::Bad => "bad ",
            };
            page.item(&format!("{level} {:NAME$}", finding.check), &finding.found);
            if !finding.fix.is_empty() {
                page.item(&format!("{:5}{:NAME$}", "", ""), &format!("fix: {}", finding.fix));
            }
        }
        let of = |level| self.findings.iter().filter(|f| f.level == level).count();
        let (warn, bad) = (of(Level::Warn), of(Level::Bad));
        page.paragraph(&format!("{} looked at: {bad} bad, {warn} to know of", self.findings.len()));
        page.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_80_columns_and_names_each_fix() {
        let long = "a finding that goes on and on ".repeat(8);
        let of = |finding: Finding| Finding { check: "chains", ..finding };
        let findings =
            vec![of(bad(long.clone(), "do this")), of(warn("odd", long)), of(ok("fine").remove(0))];
        let report = Report { findings };
        let page = report.draw(200);
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        assert!(page.contains("bad  chains    a finding"), "{page}");
        assert!(page.contains("fix: do this"), "{page}");
        assert!(page.ends_with("3 looked at: 1 bad, 1 to know of\n"), "{page}");
        assert_eq!(report.worst(), Level::Bad);
    }
}
