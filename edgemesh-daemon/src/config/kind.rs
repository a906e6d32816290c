//! Whether a file configures an agent or a cloud, told from its keys, its name and the flags.

use crate::config::Flags;
use crate::config::read::nearest;
use crate::config::tree;
use crate::config::tree::Value;

/// Keys that only an agent has.
const AGENTS: &[&str] =
    &["node", "cloud", "services", "proxy", "peer", "metrics", "eventBus", "serviceBus"];
/// Keys that only a cloud has.
const CLOUDS: &[&str] = &["hub", "router"];
/// Keys that both have.
const BOTH: &[&str] = &["zone", "dataDir", "source", "dns", "admin", "accessLog"];

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An agent's: `agent.yaml`.
    Agent,
    /// A cloud's: `cloud.yaml`.
    Cloud,
}

impl Kind {
    /// Whose, for messages.
    pub const fn whose(self) -> &'static str {
        match self {
            Self::Agent => "an agent",
            Self::Cloud => "a cloud",
        }
    }

    /// The command that serves it.
    pub const fn command(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Cloud => "cloud",
        }
    }
}

/// What a file was taken for, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// What for.
    pub kind: Kind,
    /// Why, to follow on "it" or "since it".
    pub because: String,
}

/// Looks at the keys of `text`, misspelt ones too. A key of a cloud's counts twice, since agents
/// have more keys of their own to mistake; where keys say nothing, the name of the file counts.
pub fn guess(text: &str, file_name: &str, flags: &Flags) -> Guess {
    let name = file_name.rsplit('/').next().unwrap_or(file_name);
    let mut score = 0;
    score -= i32::from(flags.node.is_some() || name.contains("agent"));
    score += i32::from(name.contains("cloud"));
    let (mut agents, mut clouds) = (Vec::new(), Vec::new());
    for (key, line) in keys(text) {
        match whose(&key) {
            Some(Kind::Agent) => agents.push(format!("has `{key}` on line {line}")),
            Some(Kind::Cloud) => clouds.push(format!("has `{key}` on line {line}")),
            None => {}
        }
    }
    let count = |keys: &[String]| i32::try_from(keys.len()).unwrap_or(i32::MAX / 4);
    score += 2 * count(&clouds) - count(&agents);
    let (kind, keys) = if score > 0 { (Kind::Cloud, clouds) } else { (Kind::Agent, agents) };
    let because = keys.into_iter().next().unwrap_or_else(|| match kind {
        Kind::Agent => "has nothing that only a cloud has".into(),
        Kind::Cloud => format!("is called {name}, and has nothing that only an agent has"),
    });
    Guess { kind, because }
}

fn whose(key: &str) -> Option<Kind> {
    let all: Vec<&str> = [BOTH, AGENTS, CLOUDS].concat();
    let meant = all.iter().find(|known| **known == key).copied().or_else(|| nearest(key, &all))?;
    match (AGENTS.contains(&meant), CLOUDS.contains(&meant)) {
        (true, _) => Some(Kind::Agent),
        (_, true) => Some(Kind::Cloud),
        _ => None,
    }
}

fn keys(text: &str) -> Vec<(String, usize)> {
    match tree::parse(text).map(|root| root.value) {
        Ok(Value::Map(entries)) => entries.into_iter().map(|(key, line, _)| (key, line)).collect(),
        Ok(Value::Null | Value::Scalar(_) | Value::List(_)) | Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_for_what_it_is() {
        let cases = [
            ("", "agent.yaml", Kind::Agent, "has nothing that only a cloud has"),
            ("", "x.yaml", Kind::Agent, "has nothing that only a cloud has"),
            ("", "/etc/edgemesh/cloud.yaml", Kind::Cloud, "is called cloud.yaml, and has nothing"),
            ("dataDir: /d\nsource: none", "cloud.yaml", Kind::Cloud, "is called cloud.yaml"),
            ("dataDir: /d\nhub: {}", "x.yaml", Kind::Cloud, "has `hub` on line 2"),
            ("hub: {}", "agent.yaml", Kind::Cloud, "has `hub` on line 1"),
            ("routr: {}", "x.yaml", Kind::Cloud, "has `routr` on line 1"),
            ("nod: a", "x.yaml", Kind::Agent, "has `nod` on line 1"),
            ("cloud: { servers: [] }", "x.yaml", Kind::Agent, "has `cloud` on line 1"),
            // an agent's file with a section that it may not have
            ("node: a\nproxy: {}\nrouter: {}", "agent.yaml", Kind::Agent, "has `node` on line 1"),
            // a cloud's file with keys that its writer knows from agents
            ("node: a\nmetrics: {}\nhub: {}", "cloud.yaml", Kind::Cloud, "has `hub` on line 3"),
            ("[", "cloud.yaml", Kind::Cloud, "is called"),
            ("- hub", "x.yaml", Kind::Agent, "has nothing"),
        ];
        for (text, name, kind, because) in cases {
            let guess = guess(text, name, &Flags::default());
            assert_eq!(guess.kind, kind, "{name}: {text}");
            assert!(guess.because.starts_with(because), "{name}: {text}: {}", guess.because);
        }
        let flags = Flags { node: Some("n".into()), manifests: None };
        assert_eq!(guess("", "cloud.yaml", &flags).kind, Kind::Agent);
        assert_eq!(guess("hub: {}", "cloud.yaml", &flags).kind, Kind::Cloud);
    }
}
