//! Configuration files: where they are by default, and their text.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::config::Kind;
use crate::config::Problem;

/// Longest configuration file that is read. A file beyond it is not a configuration.
pub const MAX_FILE: u64 = 1 << 20;

/// The agent's file that counts where nobody names one.
pub const DEFAULT_FILE: &str = "/etc/edgemesh/agent.yaml";

/// The cloud's file that counts where nobody names one.
pub const DEFAULT_CLOUD_FILE: &str = "/etc/edgemesh/cloud.yaml";

impl Kind {
    /// The file that counts where nobody names one.
    pub const fn default_file(self) -> &'static str {
        match self {
            Self::Agent => DEFAULT_FILE,
            Self::Cloud => DEFAULT_CLOUD_FILE,
        }
    }
}

/// `path`, else the default file of `kind` where there is one.
pub fn file_or_default(path: Option<&Path>, kind: Kind) -> Option<&Path> {
    let default = Path::new(kind.default_file());
    path.or_else(|| default.exists().then_some(default))
}

/// Text and name of [`file_or_default`]; nothing where there is none.
pub(crate) fn text_or_default(
    path: Option<&Path>,
    kind: Kind,
) -> Result<(String, String), Vec<Problem>> {
    match file_or_default(path, kind) {
        Some(path) => read(path),
        None => Ok((String::new(), "no file".into())),
    }
}

/// Text and name of the file at `path`. One that cannot be read is one problem.
pub(crate) fn read(path: &Path) -> Result<(String, String), Vec<Problem>> {
    let name = path.display().to_string();
    let problem = |text| vec![Problem { place: name.clone(), key: String::new(), text }];
    let text = text(path).map_err(problem)?;
    Ok((text, name))
}

fn text(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is longer than {MAX_FILE} bytes, which no configuration is"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into())
}
