//! Runs iptables and ip as child processes, each with a time-out.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::capture::error::CaptureError;

/// How long any child process may take. iptables itself waits [`LOCK_WAIT`] for its lock.
pub(super) const CHILD_TIMEOUT: Duration = Duration::from_secs(15);
/// Seconds that iptables waits for the xtables lock before it gives up.
pub(super) const LOCK_WAIT: &str = "5";
/// Most bytes read from a child: a node with 10,000 Services saves about 20 MiB of rules.
const MAX_OUTPUT: usize = 64 << 20;

/// What a child process said.
pub(super) struct Output {
    /// It exited with 0.
    pub(super) ok: bool,
    /// Standard output.
    pub(super) stdout: String,
    /// Standard error.
    pub(super) stderr: String,
}

/// Runs `program` with `args`, `input` on its standard input, and waits for its end.
pub(super) fn run(program: &str, args: &[&str], input: &str) -> Result<Output, CaptureError> {
    run_within(program, args, input, CHILD_TIMEOUT)
}

/// As [`run`], and a failure of the program is an error. Gives its standard output.
pub(super) fn must(program: &str, args: &[&str], input: &str) -> Result<String, CaptureError> {
    let output = run(program, args, input)?;
    if output.ok {
        Ok(output.stdout)
    } else {
        Err(CaptureError::explain(line(program, args), &output.stderr))
    }
}

/// The command as one would type it.
pub(super) fn line(program: &str, args: &[&str]) -> String {
    [&[program], args].concat().join(" ")
}

fn run_within(
    program: &str,
    args: &[&str],
    input: &str,
    limit: Duration,
) -> Result<Output, CaptureError> {
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::NotFound => CaptureError::Missing { program: program.to_owned() },
        ErrorKind::TimedOut => {
            CaptureError::TimedOut { command: line(program, args), after: limit }
        }
        _ => CaptureError::Spawn { command: line(program, args), source },
    };
    // Files in memory for what goes in and for the errors, a socket for what comes out: its end
    // tells that the child is gone, and its read time-out needs no thread.
    let mut errors = memory("").map_err(failed)?;
    let (mut out, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env("LC_ALL", "C") // their words are matched
        .stdin(if input.is_empty() { Stdio::null() } else { memory(input).map_err(failed)?.into() })
        .stdout(OwnedFd::from(theirs))
        .stderr(errors.try_clone().map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    drop(command); // with it goes our copy of the child's end
    let stdout = match read_until_end(&mut out, limit) {
        Ok(stdout) => stdout,
        Err(error) => {
            end(&mut child);
            return Err(failed(error));
        }
    };
    let status = child.wait().map_err(failed)?;
    let mut stderr = Vec::new();
    errors.rewind().and_then(|()| errors.read_to_end(&mut stderr)).map_err(failed)?;
    Ok(Output {
        ok: status.success(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// A file that lives in memory, holding `text`, ready to be read.
fn memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("edgemesh", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

#[expect(clippy::disallowed_methods, reason = "an outer layer: children are timed by the clock")]
fn read_until_end(out: &mut UnixStream, limit: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + limit;
    let mut all = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        out.set_read_timeout(Some(left))?;
        match out.read(&mut part) {
            Ok(0) => return Ok(all),
            Ok(read) if all.len() + read > MAX_OUTPUT => {
                return Err(io::Error::other("it prints without end"));
            }
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Kills and reaps; that it is gone already is fine.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_output_and_errors_are_carried() {
        let big = "x".repeat(300_000); // more than a pipe holds
        let output = run("sh", &["-c", "cat; echo no >&2; exit 3"], &big).unwrap();
        assert!(!output.ok);
        assert_eq!(output.stdout.len(), big.len());
        assert_eq!(output.stderr, "no\n");
    }

    #[test]
    fn a_child_that_hangs_is_ended() {
        let limit = Duration::from_millis(50);
        let error = run_within("sleep", &["1000"], "", limit).err().unwrap();
        assert!(matches!(error, CaptureError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run("no-such-tables", &[], "").err().unwrap().to_string();
        assert!(error.contains("`no-such-tables` is not on the PATH"), "{error}");
    }
}
