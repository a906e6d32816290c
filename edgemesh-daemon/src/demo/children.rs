//! Programs that the demo starts: found, bounded in time, and ended by id when they go out of use.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::demo::clock::until;

/// Where servers are that an ordinary user's `PATH` does not name.
const MORE_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// How long a client program may take.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest piece of an error that is shown.
const SHOWN: usize = 160;

/// A running program. Dropped, it is killed and waited for.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts `command`; what it says goes to `NAME.log` in `folder`, standard output to
    /// `NAME.out`.
    pub(crate) fn start(command: &mut Command, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let open = |end: &str| {
            let path = folder.join(format!("{name}.{end}"));
            File::options().append(true).create(true).open(path)
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(open("out")?)
            .stderr(open("log")?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn stop(mut self, limit: Duration) -> anyhow::Result<()> {
        kill(self.id(), Signal::SIGTERM).context("SIGTERM")?;
        match until(limit, || (!self.runs()).then_some(())) {
            Some(()) => Ok(()),
            None => bail!("it did not end within {} s of SIGTERM", limit.as_secs()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program called `name`, if it is installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Runs a client to its end and gives what it printed.
///
/// # Errors
/// When it fails or takes too long; the text is the first line that it said.
pub(crate) fn ask(command: &mut Command) -> anyhow::Result<String> {
    let out = tempfile::tempfile()?;
    let errors = tempfile::tempfile()?;
    let child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(errors.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut running = Running { child };
    let ended = until(CLIENT_TIMEOUT, || running.child.try_wait().ok().flatten());
    let Some(status) = ended else {
        bail!("no answer within {} s", CLIENT_TIMEOUT.as_secs());
    };
    if status.success() {
        return read(out);
    }
    let said = read(errors)?;
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason");
    bail!("{}", first.chars().take(SHOWN).collect::<String>())
}

fn read(mut file: File) -> anyhow::Result<String> {
    use std::io::Read;
    use std::io::Seek;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
