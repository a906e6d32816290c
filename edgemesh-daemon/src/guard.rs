//! The small parent of the agent: when the agent is gone, so are the jumps that lead to it.
//!
//! The guard starts the agent, hands signals on, reaps (it is PID 1 in a container), and ends with
//! the agent's exit code. An agent that is killed or panics would leave a black hole: everything
//! captured would be sent to a listener that is not there. So the guard cleans up at once, then
//! starts it again, at most [`RESTARTS_A_MINUTE`] times.
//!
//! The two talk over a socket that is the child's standard input: the child writes one byte
//! before it places jumps ([`Guarded::captures`]) and one when it has come up
//! ([`Guarded::ready`]). A child that ends before that failed to start: its code is passed on, and
//! the jumps, which may be another agent's, are left alone. A guard that is killed takes the child
//! along by the parent-death signal, SIGTERM, so that the child cleans up itself.
//!
//! SIGUSR2 starts the program a second time, as it is on disk now, with [`TAKE_OVER`]: the new
//! child takes the sockets of the old one, which drains and ends. Jumps and guard stay.
//!
//! No runtime, no threads: one signalfd is all it waits on.

mod family;
mod restarts;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::guard::family::Family;
pub use crate::guard::restarts::RESTARTS_A_MINUTE;
use crate::guard::restarts::{Ended, Life, Next, Restarts, must_clean};
use crate::memory;

/// Signals that are handed on to the child.
const FORWARDED: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
/// The child's word for: the jumps are mine from here on.
const CAPTURES: u8 = b'c';
/// The child's word for: I came up.
const READY: u8 = b'r';
/// The argument by which a child takes over from the one before it.
pub const TAKE_OVER: &str = "--take-over";

/// What is guarded.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable, usually our own.
    pub path: PathBuf,
    /// Its arguments, among them the hidden one that makes it call [`enter`].
    pub args: Vec<OsString>,
}

/// The child's end of the line to its guard.
#[derive(Debug)]
pub struct Guarded {
    line: UnixStream,
}

/// Runs `program` until it ends for good, and gives the exit code to end with. `clean` is called
/// when the child is gone and its jumps may not be; it must be quick and repeatable.
///
/// Call it from the main thread before any other is started: it blocks signals.
///
/// # Errors
/// When the child cannot be started or signals cannot be received.
pub fn run(program: &Program, clean: &mut dyn FnMut()) -> io::Result<u8> {
    let watched = watched();
    watched.thread_block()?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut restarts = Restarts::default();
    let mut family = Family::default();
    loop {
        family.start(program, &[])?;
        memory::give_back(); // from here on it waits
        let (ended, life) = watch(&signals, program, &mut family)?;
        if must_clean(ended, life) {
            clean();
        }
        match restarts.next(ended, life, now()) {
            Next::Exit(code) => {
                if code != 0 {
                    tracing::warn!(code, ready = life.ready, "the agent ended");
                }
                return Ok(code);
            }
            Next::Restart(after) => {
                tracing::warn!(?ended, ?after, "the agent ended; it is started again");
                if stopped_during(&signals, after)? {
                    return Ok(ended.code());
                }
            }
        }
    }
}

/// To be called first in the child, before threads are started: takes signals again, ends with
/// the guard, and gives the line to it.
///
/// # Errors
/// When standard input is no line to a guard, or the guard is gone already.
pub fn enter() -> io::Result<Guarded> {
    watched().thread_unblock()?;
    set_pdeathsig(Signal::SIGTERM)?;
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // The guard never writes: an end of the stream means that it died before the line above, and
    // that no signal will come.
    line.set_nonblocking(true)?;
    match line.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Guarded { line }),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(ErrorKind::BrokenPipe, "the guard is gone")),
    }
}

impl Guarded {
    /// To be called right before the jumps are placed: from here on the guard removes them when
    /// this process does not.
    ///
    /// # Errors
    /// When the guard is gone.
    pub fn captures(&self) -> io::Result<()> {
        (&self.line).write_all(&[CAPTURES])
    }

    /// To be called when the agent has come up: from here on it is restarted when it breaks.
    ///
    /// # Errors
    /// When the guard is gone.
    pub fn ready(&self) -> io::Result<()> {
        (&self.line).write_all(&[READY])
    }
}

fn watched() -> SigSet {
    FORWARDED.into_iter().chain([Signal::SIGUSR2, Signal::SIGCHLD]).collect()
}

/// Hands signals on and reaps until the child that serves has ended.
fn watch(signals: &SignalFd, program: &Program, family: &mut Family) -> io::Result<(Ended, Life)> {
    loop {
        wait_for(signals, PollTimeout::NONE)?;
        while let Some(signal) = next_signal(signals)? {
            match signal {
                Signal::SIGCHLD => {
                    if let Some(ended) = family.reap()? {
                        return Ok(ended);
                    }
                }
                Signal::SIGUSR2 => family.renew(program),
                signal => family.tell(signal)?,
            }
        }
    }
}

/// Waits between two lives. `true`: we were asked to stop. Orphans are reaped with the next child.
fn stopped_during(signals: &SignalFd, after: Duration) -> io::Result<bool> {
    let end = now() + after;
    loop {
        let left = end.saturating_duration_since(now());
        if left.is_zero() {
            return Ok(false);
        }
        // Rounded up: a wait of 0 ms would spin.
        let left = left + Duration::from_millis(1);
        wait_for(signals, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
        while let Some(signal) = next_signal(signals)? {
            if signal == Signal::SIGTERM || signal == Signal::SIGINT {
                return Ok(true);
            }
        }
    }
}

fn wait_for(signals: &SignalFd, limit: PollTimeout) -> io::Result<()> {
    match poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], limit) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn next_signal(signals: &SignalFd) -> io::Result<Option<Signal>> {
    let Some(info) = signals.read_signal()? else { return Ok(None) };
    let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
    Ok(Some(Signal::try_from(number)?))
}

#[expect(clippy::disallowed_methods, reason = "the guard is an outer layer; `Restarts` is pure")]
fn now() -> Instant {
    Instant::now()
}
