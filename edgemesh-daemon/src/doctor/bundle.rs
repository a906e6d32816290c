//! A tar.gz with all that somebody else needs to help: written once, never over another file.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use crate::capture::survey::transcript;
use crate::doctor::facts::Facts;
use crate::doctor::redact::redact;
use crate::doctor::report::Report;

/// Width of the doctor's page in the bundle.
const WIDTH: u16 = 80;
/// Lines of the agent's log.
const LOG_LINES: &str = "500";
/// What is asked of `ip`, for both families.
const ROUTES: [&[&str]; 4] =
    [&["rule"], &["route", "show", "table", "all"], &["addr"], &["-d", "link"]];

/// Writes the bundle; the line that says what was written.
///
/// # Errors
/// When `out` exists already, or cannot be written.
pub(super) fn write(out: &Path, facts: &Facts, report: &Report) -> anyhow::Result<String> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} exists already: name another file, or delete it", out.display())
        }
        _ => anyhow::Error::new(error).context(format!("cannot write {}", out.display())),
    })?;
    let texts = texts(facts, report)?;
    let count = texts.len();
    pack(file, facts, texts).with_context(|| format!("cannot write {}", out.display()))?;
    let size = std::fs::metadata(out).map_or(0, |found| found.len());
    Ok(format!(
        "wrote {}: {count} files, {} KiB; tokens and query strings are taken out, names and \
         addresses are not",
        out.display(),
        size.div_ceil(1024)
    ))
}

fn pack(file: impl Write, facts: &Facts, texts: Vec<(&'static str, String)>) -> io::Result<()> {
    let mtime = facts.now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, text) in texts {
        let text = redact(&text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(mtime);
        tar.append_data(&mut header, format!("edgemesh-doctor/{name}"), text.as_bytes())?;
    }
    tar.into_inner()?.finish()?.flush()
}

fn texts(facts: &Facts, report: &Report) -> anyhow::Result<Vec<(&'static str, String)>> {
    let config = match &facts.config {
        Ok(resolved) => resolved.to_yaml(),
        Err(problems) => problems.join("\n"),
    };
    let mut texts = vec![
        ("doctor.txt", report.draw(WIDTH)),
        ("versions.txt", versions(facts)),
        ("config.yaml", config),
        ("rules.txt", rules(facts)),
        ("network.txt", network()),
        ("resolv.conf", facts.resolv.clone()),
        ("log.txt", log()),
    ];
    match &facts.agent {
        Err(reason) => texts.push(("agent.txt", reason.clone())),
        Ok(answers) => texts.extend([
            ("status.json", json(&answers.status)?),
            ("services.json", json(&answers.services)?),
            ("backends.json", json(&answers.backends)?),
            ("metrics.txt", answers.metrics.clone()),
        ]),
    }
    Ok(texts)
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)?)
}

fn versions(facts: &Facts) -> String {
    let kernel = std::fs::read_to_string("/proc/version").unwrap_or_default();
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let agent = facts.agent.as_ref().map_or("none answers", |answers| &answers.status.version);
    format!(
        "edgemesh {} (agent: {agent})\n{}\n{kernel}{system}",
        env!("CARGO_PKG_VERSION"),
        facts.kernel.versions.join("\n")
    )
}

/// Our chains, and the built-in ones they are reached from, with the jumps of others.
fn rules(facts: &Facts) -> String {
    match &facts.kernel.tables {
        Err(error) => error.clone(),
        Ok(tables) => tables
            .iter()
            .map(|table| format!("# nat, {}\n{}", table.name(), table.ours()))
            .collect(),
    }
}

fn network() -> String {
    let calls =
        ROUTES.iter().flat_map(|args| ["-4", "-6"].map(|family| [&[family], *args].concat()));
    calls.map(|args| transcript("ip", &args)).collect()
}

fn log() -> String {
    transcript("journalctl", &["-u", "edgemesh-agent", "-n", LOG_LINES, "--no-pager"])
}
