//! The children of a guard: the one that serves, and those that handed over and drain.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::guard::restarts::{Ended, Life};
use crate::guard::{CAPTURES, Program, READY, TAKE_OVER};

/// Most children at once: more hand-overs wait for the drains of earlier ones.
const MOST: usize = 4;

/// Oldest first: the last one serves, or is about to take over from the one before it.
#[derive(Debug, Default)]
pub(super) struct Family(Vec<Child>);

#[derive(Debug)]
struct Child {
    id: Pid,
    line: UnixStream,
    life: Life,
    /// It handed over, and only waits for what it has open.
    drains: bool,
}

impl Family {
    /// Starts `program`, in a process group of its own, so that Ctrl-C in a terminal reaches it
    /// once, through us.
    pub(super) fn start(&mut self, program: &Program, more: &[&str]) -> io::Result<()> {
        let (line, theirs) = UnixStream::pair()?;
        line.set_nonblocking(true)?;
        let child = Command::new(&program.path)
            .args(&program.args)
            .args(more.iter().map(OsString::from))
            .stdin(OwnedFd::from(theirs))
            .process_group(0)
            .spawn()?;
        let id = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        self.0.push(Child { id, line, life: Life::default(), drains: false });
        Ok(())
    }

    /// Starts the child that takes over.
    pub(super) fn renew(&mut self, program: &Program) {
        let under_way = self.0.last_mut().is_some_and(|last| !last.hear().ready);
        if under_way || self.0.len() >= MOST {
            tracing::warn!(
                "SIGUSR2: an agent is starting, or {MOST} are draining; try again later"
            );
            return;
        }
        match self.start(program, &[TAKE_OVER]) {
            Ok(()) => tracing::info!("SIGUSR2: a new agent takes over"),
            Err(error) => tracing::error!(%error, "SIGUSR2: cannot start a new agent"),
        }
    }

    /// Hands a signal on to all.
    pub(super) fn tell(&mut self, signal: Signal) -> io::Result<()> {
        for child in &mut self.0 {
            child.life.stopping |= signal != Signal::SIGHUP;
            match kill(child.id, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reaps whatever has ended, also orphans that came to us as PID 1. Says how the child that
    /// served ended, when it did and nobody took over.
    pub(super) fn reap(&mut self) -> io::Result<Option<(Ended, Life)>> {
        let mut served = None;
        loop {
            let (id, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(id, code)) => {
                    (id, Ended::Exited(u8::try_from(code).unwrap_or(1)))
                }
                Ok(WaitStatus::Signaled(id, signal, _)) => {
                    (id, Ended::Killed(u8::try_from(signal as i32).unwrap_or(127)))
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(served),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(at) = self.0.iter().position(|child| child.id == id) {
                served = self.ended(at, ended).or(served);
            }
        }
    }

    fn ended(&mut self, at: usize, ended: Ended) -> Option<(Ended, Life)> {
        let mut child = self.0.remove(at);
        let life = child.hear();
        // What it started (iptables, ip) is in its group and would go on without it: a jump that
        // is placed after the cleaning leads nowhere. Fails where there is nothing left.
        let _ = killpg(child.id, Signal::SIGKILL);
        let was_last = at == self.0.len();
        match self.0.last_mut() {
            None => Some((ended, life)),
            // Those that are left only drain: it had taken over, or was to come after one that had.
            Some(left) if was_last && (life.ready || left.drains) => {
                left.drains = true;
                Some((ended, life))
            }
            Some(_) if was_last => {
                tracing::error!(?ended, "the new agent did not come up; the old one goes on");
                None
            }
            Some(last) => {
                // The jumps that it leaves behind are now the business of the one that starts.
                if !last.hear().ready {
                    last.life.captures |= life.captures;
                    last.life.ready |= life.ready;
                }
                tracing::info!(?ended, "an agent ended after a hand-over");
                None
            }
        }
    }
}

impl Child {
    /// What it has said so far.
    fn hear(&mut self) -> Life {
        let mut words = [0; 16];
        // An error says that there is nothing new.
        if let Ok(count) = self.line.read(&mut words) {
            self.life.captures |= words[..count].contains(&CAPTURES);
            self.life.ready |= words[..count].contains(&READY);
        }
        self.life
    }
}
