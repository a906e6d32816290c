//! Hand-over between two agents of one data folder: the serving one passes its listening sockets.
//!
//! They talk over `handover.sock` in the data folder. The new agent says [`TAKE`]; the serving one
//! closes the store, then answers with a list of its sockets in one line of JSON and the sockets
//! themselves (SCM_RIGHTS). Both may accept now, so that no connection waits. When the new one is
//! ready it says [`SERVING`], and the other drains and ends. A line that ends before means that
//! nobody took over.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, Interest};

/// Name of the socket in the data folder.
const SOCKET: &str = "handover.sock";
/// The new agent's first word, with the version of this protocol.
const TAKE: &[u8] = b"take 1\n";
/// Its last.
const SERVING: &[u8] = b"serving\n";
/// The serving agent's last word to one that took too long: it goes on itself.
const KEPT: &[u8] = b"kept\n";
/// Most sockets that are handed over at once.
const MAX_SOCKETS: usize = 64;
/// Longest list of them, in bytes.
const MAX_LIST: usize = 16 * 1024;
/// Pause after a connection that could not be accepted, as when files run out.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for the new agent's first word.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// Longest wait for the serving agent to close its store.
const RELEASE: Duration = Duration::from_secs(30);
/// Longest wait for the new agent to be ready.
const READY: Duration = Duration::from_secs(60);

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Role {
    /// Captured connections and the explicit proxy.
    Proxy,
    /// Links of other agents.
    Peer,
    /// A page: admin API, or metrics and probes.
    Page,
    /// Names by UDP.
    DnsUdp,
    /// Names by TCP.
    DnsTcp,
}

/// What identifies a socket that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    /// What it is for.
    pub(crate) role: Role,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// Sockets of the agent that served before.
pub(crate) type Inherited = Vec<(Label, OwnedFd)>;

/// What is told of the sockets: the JSON before them.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    pid: u32,
    sockets: Vec<Label>,
}

/// The agent that serves until we do.
#[derive(Debug)]
pub(crate) struct Predecessor {
    line: UnixStream,
}

/// Waits for an agent that wants to take over.
#[derive(Debug)]
pub(crate) struct Offer {
    listener: tokio::net::UnixListener,
    inode: u64,
}

/// An agent that wants to take over.
#[derive(Debug)]
pub(crate) struct Successor {
    line: tokio::net::UnixStream,
    /// Its process, as the kernel says.
    pub(crate) pid: Option<i32>,
}

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// Asks the agent that serves from `data_dir` for its sockets. `None`: there is no such agent.
/// Blocks, for as long as that agent needs to close its store.
pub(crate) fn take(data_dir: &Path) -> anyhow::Result<Option<(Predecessor, Inherited)>> {
    let path = socket(data_dir);
    let mut line = match UnixStream::connect(&path) {
        Ok(line) => line,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot reach {}", path.display()));
        }
    };
    line.set_read_timeout(Some(RELEASE))?;
    let taken = line.write_all(TAKE).context("it hung up").and_then(|()| receive(&mut line));
    let (list, fds) =
        taken.with_context(|| format!("the agent behind {} does not hand over", path.display()))?;
    tracing::info!(pid = list.pid, sockets = fds.len(), "taking over from the agent that served");
    Ok(Some((Predecessor { line }, list.sockets.into_iter().zip(fds).collect())))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn receive(line: &mut UnixStream) -> anyhow::Result<(List, Vec<OwnedFd>)> {
    let mut text = vec![0; MAX_LIST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(line.as_fd(), &mut [IoSliceMut::new(&mut text)], &mut control, flags)
        .context("no answer")?;
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    text.truncate(got.bytes);
    while text.last().is_some_and(|last| *last != b'\n') && text.len() < MAX_LIST {
        let mut more = [0; 1024];
        let count = line.read(&mut more)?;
        ensure!(count > 0, "its answer ends early");
        text.extend_from_slice(&more[..count]);
    }
    ensure!(!text.is_empty(), "it hung up");
    let list: List = serde_json::from_slice(&text).context("its answer is not understood")?;
    ensure!(list.sockets.len() == fds.len(), "it names other sockets than it passes");
    Ok((list, fds))
}

impl Predecessor {
    /// We serve: the other one may go.
    ///
    /// # Errors
    /// When it waited too long for this and goes on: two must not serve.
    pub(crate) fn serving(mut self) -> anyhow::Result<()> {
        self.line.set_nonblocking(true)?;
        let mut word = [0; KEPT.len()];
        if self.line.read_exact(&mut word).is_ok() {
            let most = READY.as_secs();
            bail!("took more than {most} s to come up, and the agent that served goes on");
        }
        // One that is gone already needs no word.
        let _ = self.line.write_all(SERVING);
        Ok(())
    }
}

impl Offer {
    /// Offers to hand over. The caller owns the data folder: a socket that is there already is
    /// its predecessor's. `None`, which the log explains: everything else works without.
    pub(crate) fn open(data_dir: &Path) -> Option<Self> {
        let told = |error: &io::Error| {
            let folder = data_dir.display();
            tracing::warn!(%error, "no socket in {folder}: until there is, nobody can take over");
        };
        Self::bind(&socket(data_dir)).inspect_err(told).ok()
    }

    fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = tokio::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, inode: std::fs::symlink_metadata(path)?.ino() })
    }

    /// Whether who asks in `data_dir` still comes here, and not to one that failed to take over.
    pub(crate) fn stands(&self, data_dir: &Path) -> bool {
        let file = std::fs::symlink_metadata(socket(data_dir));
        file.is_ok_and(|file| file.ino() == self.inode)
    }

    /// The next line that is opened; never without an offer. Dropping the future loses nothing.
    pub(crate) async fn next(offer: Option<&Self>) -> tokio::net::UnixStream {
        let Some(Self { listener, .. }) = offer else { return std::future::pending().await };
        loop {
            match listener.accept().await {
                Ok((line, _)) => return line,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept at {SOCKET}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

impl Successor {
    /// Who is on the line; who asks for something else is turned away.
    pub(crate) async fn greet(line: tokio::net::UnixStream) -> Option<Self> {
        let asked = Self::ask(line).await;
        asked.inspect_err(|error| tracing::warn!("turned away at {SOCKET}: {error:#}")).ok()
    }

    async fn ask(mut line: tokio::net::UnixStream) -> anyhow::Result<Self> {
        let who = line.peer_cred()?;
        let own = nix::unistd::geteuid().as_raw();
        ensure!(who.uid() == own || who.uid() == 0, "uid {} may not take over", who.uid());
        let mut word = [0; TAKE.len()];
        let read = tokio::time::timeout(FIRST_WORD, line.read_exact(&mut word)).await;
        read.context("it said nothing")?.context("it hung up")?;
        if word != TAKE {
            bail!("it speaks another version of this protocol");
        }
        Ok(Self { line, pid: who.pid() })
    }

    /// Passes the sockets.
    pub(crate) async fn give(&self, sockets: &[(Label, OwnedFd)]) -> anyhow::Result<()> {
        ensure!(sockets.len() <= MAX_SOCKETS, "more than {MAX_SOCKETS} sockets to hand over");
        let labels = sockets.iter().map(|(label, _)| *label).collect();
        let list = List { pid: std::process::id(), sockets: labels };
        let mut text = serde_json::to_vec(&list)?;
        text.push(b'\n');
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(io::Error::other("no room for the sockets"));
            }
            let flags = SendFlags::NOSIGNAL;
            let sent = sendmsg(self.line.as_fd(), &[IoSlice::new(&text)], &mut control, flags)?;
            if sent < text.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
        };
        self.line.async_io(Interest::WRITABLE, send).await.context("cannot pass the sockets")
    }

    /// Waits until it serves. `false`: it is gone, or took too long; nothing was taken over.
    pub(crate) async fn serves(mut self) -> bool {
        let mut word = [0; SERVING.len()];
        let read = tokio::time::timeout(READY, self.line.read_exact(&mut word)).await;
        let serves = matches!(read, Ok(Ok(_))) && word == SERVING;
        if !serves {
            // It may only be slow; one that is gone needs no word.
            let _ = self.line.try_write(KEPT);
        }
        serves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_is_late_does_not_serve_too() {
        let (line, other) = UnixStream::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        let line = tokio::net::UnixStream::from_std({
            line.set_nonblocking(true).unwrap();
            line
        });
        let successor = Successor { line: line.unwrap(), pid: None };
        assert!(!successor.serves().await, "it says nothing for a minute");
        Predecessor { line: other }.serving().unwrap_err();
    }

    #[test]
    fn one_that_is_gone_needs_no_word() {
        let (line, other) = UnixStream::pair().unwrap();
        drop(other);
        Predecessor { line }.serving().unwrap();
    }
}
