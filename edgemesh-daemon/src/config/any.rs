//! `edgemesh check`: a file of either kind, taken for what it is.

use std::path::Path;

use crate::config::Environment;
use crate::config::Flags;
use crate::config::Guess;
use crate::config::Kind;
use crate::config::Problem;
use crate::config::file;
use crate::config::guess;
use crate::config::load;
use crate::config::load_cloud;

/// What was checked, and what came out.
#[derive(Debug)]
pub struct Checked {
    /// The file's name; `None`: there is none, and the defaults were looked at.
    pub name: Option<String>,
    /// What it was taken for.
    pub guess: Guess,
    /// The resolved configuration as YAML, or all that is wrong.
    pub outcome: Result<String, Vec<Problem>>,
}

/// Checks the file at `path`; without one the agent's default file, else the cloud's, else the
/// defaults of an agent.
pub fn check_any(path: Option<&Path>, environment: &Environment, flags: &Flags) -> Checked {
    let default = |kind| file::file_or_default(path, kind);
    let Some(path) = default(Kind::Agent).or_else(|| default(Kind::Cloud)) else {
        let guess = guess("", "", flags);
        let outcome = load("", "no file", environment, flags).map(|resolved| resolved.to_yaml());
        return Checked { name: None, guess, outcome };
    };
    let name = path.display().to_string();
    let (guess, outcome) = match file::read(path) {
        Err(problems) => (guess("", &name, flags), Err(problems)),
        Ok((text, name)) => {
            let guess = guess(&text, &name, flags);
            let outcome = match guess.kind {
                Kind::Agent => {
                    load(&text, &name, environment, flags).map(|resolved| resolved.to_yaml())
                }
                Kind::Cloud => load_cloud(&text, &name, flags).map(|resolved| resolved.to_yaml()),
            };
            (guess, outcome)
        }
    };
    Checked { name: Some(name), guess, outcome }
}
