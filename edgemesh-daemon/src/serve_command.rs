//! `edgemesh serve`: runs a command, and keeps it signed up for as long as it lives.
//!
//! The command comes first: it runs whether or not there is an agent, gets every signal, and its
//! end is this program's end. Whoever kills this program leaves a registration that nobody renews.

use std::ffi::OsString;
use std::future::poll_fn;
use std::io;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context;
use edgemesh_core::io::now;
use edgemesh_core::io::unique_id;
use edgemesh_core::registrations::Name;
use edgemesh_core::registrations::Registration;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::process::Command;
use tokio::signal::unix::SignalKind;
use tokio::time::timeout;

use crate::api::RegistrationView;
use crate::cli::ServeArgs;
use crate::client::Admin;
use crate::client::ClientError;
use crate::expose;
use crate::say;

/// Pause between two tries while there is no agent, or the command is not ready yet.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Renewals in a time to live: one may be lost, and one late.
const RENEWALS: u32 = 3;
/// Longest goodbye to the agent; after it the time to live does the rest.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the command may take to end when this program gives up, before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What is passed on. Those with `true` mean the end, and come from a terminal to the command too.
const SIGNALS: &[(Signal, bool)] = &[
    (Signal::SIGTERM, true),
    (Signal::SIGINT, true),
    (Signal::SIGQUIT, true),
    (Signal::SIGHUP, true),
    (Signal::SIGUSR1, false),
    (Signal::SIGUSR2, false),
];

/// Runs the command to its end and gives its exit code.
///
/// # Errors
/// When signals cannot be listened to, or the agent says no. A command that cannot be started is no
/// error: 127 when it is not there, 126 otherwise.
pub async fn serve(admin: &Admin, args: &ServeArgs) -> anyhow::Result<u8> {
    let signing = Signing::new(admin, args)?;
    // Whoever is refused is refused before anything runs.
    if let Err(ClientError::Refused(reason)) = signing.put().await {
        anyhow::bail!(reason);
    }
    let started = Signals::new().map(|signals| (signals, start(&args.command, args.port.get())));
    let (mut signals, mut child) = match started {
        Ok((signals, Ok(child))) => (signals, child),
        Ok((_, Err(error))) => {
            signing.goodbye().await;
            let program = args.command.first().map(|program| program.display().to_string());
            let program = program.unwrap_or_default();
            say::complain(format_args!("cannot start `{program}`: {error}"));
            return Ok(unstarted(&error));
        }
        Err(error) => {
            signing.goodbye().await;
            return Err(error.into());
        }
    };
    let mut kept = pin!(signing.keep(args.wait));
    let mut leaving = false;
    let mut given_up = None;
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended,
            error = &mut kept, if !leaving => {
                say::complain(format_args!("{error:#}; stopping the command"));
                leaving = true;
                break stop(&mut child, &mut given_up).await;
            }
            (signal, ends) = signals.next() => {
                if ends && !leaving {
                    leaving = true;
                    signing.goodbye().await; // first, so that no new call comes
                }
                pass_on(&child, signal, ends);
            }
        }
    };
    if !leaving {
        signing.goodbye().await;
    }
    let ended = ended.context("lost the command")?;
    Ok(given_up.unwrap_or_else(|| code(ended)))
}

fn start(command: &[OsString], port: u16) -> io::Result<Child> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
    Command::new(program).args(args).env("PORT", port.to_string()).spawn()
}

/// As shells count what did not start.
fn unstarted(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Ends the command, since nobody will call it; the exit code is then ours.
async fn stop(child: &mut Child, given_up: &mut Option<u8>) -> io::Result<ExitStatus> {
    *given_up = Some(1);
    send(child, Signal::SIGTERM);
    if let Ok(ended) = timeout(STOP_WITHIN, child.wait()).await {
        return ended;
    }
    child.start_kill()?;
    child.wait().await
}

/// A terminal has sent its signal to the command already.
fn pass_on(child: &Child, signal: Signal, ends: bool) {
    let from_terminal = ends && signal != Signal::SIGTERM && io::stdin().is_terminal();
    if !from_terminal {
        send(child, signal);
    }
}

fn send(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(id) = id {
        // It may have ended just now, and is not waited for yet: its id is still its own.
        let _ = kill(Pid::from_raw(id), signal);
    }
}

/// As shells count.
fn code(ended: ExitStatus) -> u8 {
    let number = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(1)
}

/// One registration and whom it is told.
struct Signing<'a> {
    admin: &'a Admin,
    shown: String,
    path: String,
    registration: Registration,
    renew_every: Duration,
}

impl<'a> Signing<'a> {
    fn new(admin: &'a Admin, args: &ServeArgs) -> anyhow::Result<Self> {
        let id = format!("serve-{:016x}", unique_id() as u64);
        let name = Name::new(&args.namespace, &args.name, &id)?;
        let registration = Registration {
            address: args.address,
            service_port: args.service_port,
            check: Some(args.check.clone()),
            ttl: expose::seconds(args.ttl),
            ..Registration::at(args.port)
        };
        Ok(Self {
            admin,
            shown: format!("{}.{}", args.name, args.namespace),
            path: expose::path(&name),
            registration,
            renew_every: args.ttl / RENEWALS,
        })
    }

    async fn put(&self) -> Result<RegistrationView, ClientError> {
        self.admin.put(&self.path, &self.registration).await
    }

    /// Signs up again and again. Ends when no agent was there within `wait`, or one says no.
    async fn keep(&self, wait: Duration) -> ClientError {
        let begun = now();
        let (mut known, mut said) = (false, String::new());
        loop {
            let (line, pause) = match self.put().await {
                Ok(view) => {
                    known = true;
                    let pause = if view.ready { self.renew_every } else { TRY_EVERY };
                    (self.state(&view), pause.min(self.renew_every))
                }
                Err(error @ ClientError::Refused(_)) => return error,
                Err(error) if !known && now().duration_since(begun) >= wait => return error,
                Err(error) if known => {
                    (format!("{error}; signing up again when it is back"), TRY_EVERY)
                }
                Err(error) => {
                    (format!("{error}; waiting for one, {} s at most", wait.as_secs()), TRY_EVERY)
                }
            };
            if line != said {
                say::progress(format_args!("edgemesh: {line}"));
                said = line;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn state(&self, view: &RegistrationView) -> String {
        let (name, at) = (&self.shown, &view.address);
        match (&view.note, view.ready) {
            (Some(note), _) => format!("{name}: {note}"),
            (None, true) => format!("{name} leads to {at}"),
            (None, false) => format!("{name} gets no calls until {at} is healthy"),
        }
    }

    async fn goodbye(&self) {
        // An agent that is gone has forgotten it, or will.
        let _ = timeout(GOODBYE, self.admin.delete(&self.path)).await;
    }
}

struct Signals(Vec<(Signal, bool, tokio::signal::unix::Signal)>);

impl Signals {
    fn new() -> io::Result<Self> {
        let listen = |(signal, ends): &(Signal, bool)| {
            let kind = SignalKind::from_raw(*signal as i32);
            Ok((*signal, *ends, tokio::signal::unix::signal(kind)?))
        };
        Ok(Self(SIGNALS.iter().map(listen).collect::<Result<_, io::Error>>()?))
    }

    async fn next(&mut self) -> (Signal, bool) {
        poll_fn(|cx| {
            let came = self.0.iter_mut().find_map(|(signal, ends, stream)| {
                stream.poll_recv(cx).is_ready().then_some((*signal, *ends))
            });
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
