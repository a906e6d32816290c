//! `edgemesh check`: a file of either kind, taken for what it is.

use std::path::Path;

use crate::config::CloudConfig;
use crate::config::Environment;
use crate::config::Flags;
use crate::config::Guess;
use crate::config::Kind;
use crate::config::Problem;
use crate::config::Resolved;
use crate::config::file;
use crate::config::guess;
use crate::config::load;
use crate::config::load_cloud;
use crate::ports;
use crate::ports::Wanted;

/// What was checked, and what came out.
#[derive(Debug)]
pub struct Checked {
    /// The file's name; `None`: there is none, and the defaults were looked at.
    pub name: Option<String>,
    /// What it was taken for.
    pub guess: Guess,
    /// The resolved configuration as YAML, or all that is wrong.
    pub outcome: Result<String, Vec<Problem>>,
    /// Where it wants to listen: protocol, address, key.
    pub(crate) asks: Vec<Wanted>,
}

impl Checked {
    /// What of that others hold on this machine, with the remedy, a line each. That is no mistake in the file:
    /// it may be for another machine, or they may make room.
    pub fn held_by_others(&self) -> Vec<String> {
        let others = ports::holders(&self.asks).into_iter().filter(|holder| !holder.is_ours());
        others
            .map(|holder| format!("{holder}: stop it, or choose another `{}`", holder.key))
            .collect()
    }
}

/// Checks the file at `path`; without one the agent's default file, else the cloud's, else the
/// defaults of an agent.
pub fn check_any(path: Option<&Path>, environment: &Environment, flags: &Flags) -> Checked {
    let default = |kind| file::file_or_default(path, kind);
    let Some(path) = default(Kind::Agent).or_else(|| default(Kind::Cloud)) else {
        let guess = guess("", "", flags);
        let (outcome, asks) = parts(load("", "no file", environment, flags).map(of_agent));
        return Checked { name: None, guess, outcome, asks };
    };
    let name = path.display().to_string();
    let (guess, read) = match file::read(path) {
        Err(problems) => (guess("", &name, flags), Err(problems)),
        Ok((text, name)) => {
            let guess = guess(&text, &name, flags);
            let read = match guess.kind {
                Kind::Agent => load(&text, &name, environment, flags).map(of_agent),
                Kind::Cloud => load_cloud(&text, &name, flags).map(of_cloud),
            };
            (guess, read)
        }
    };
    let (outcome, asks) = parts(read);
    Checked { name: Some(name), guess, outcome, asks }
}

/// The text, and where it wants to listen.
type Accepted = (String, Vec<Wanted>);

fn of_agent(resolved: Resolved) -> Accepted {
    let mut asks = ports::of_agent(&resolved.config);
    // Only while a Rule begins there, so that the doctor does not ask for it.
    asks.push(("tcp", resolved.config.service_bus.listen, "serviceBus.listen"));
    (resolved.to_yaml(), asks)
}

fn of_cloud(resolved: Resolved<CloudConfig>) -> Accepted {
    (resolved.to_yaml(), ports::of_cloud(&resolved.config))
}

fn parts(read: Result<Accepted, Vec<Problem>>) -> (Result<String, Vec<Problem>>, Vec<Wanted>) {
    match read {
        Ok((yaml, asks)) => (Ok(yaml), asks),
        Err(problems) => (Err(problems), Vec::new()),
    }
}
