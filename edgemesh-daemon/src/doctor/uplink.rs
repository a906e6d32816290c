//! What is looked at for the Links: whether the cloud answers, the token, this node's identity.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use edgemesh_core::identity::{CaHash, Clock, Identity, IdentityError, JoinToken, MAX_TOKEN, Now};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{AgentConfig, Cloud};

/// Longest wait for a server of the cloud.
const PATIENCE: Duration = Duration::from_secs(3);
/// Servers that are asked; who has more sees enough by these.
const ASKED: usize = 8;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    /// The cloud's servers, in order.
    pub(super) servers: Vec<Reached>,
    pub(super) token: Token,
    /// Who this node is; `None`: there is no cloud.
    pub(super) identity: Option<Known>,
}

/// How a server was reached.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) server: String,
    pub(super) outcome: Result<(), Unreached>,
}

/// Why a server was not reached.
#[derive(Debug)]
pub(super) enum Unreached {
    /// Its name leads nowhere.
    NoName(String),
    /// Nothing listens there.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// The kernel knows no way, or something else is wrong.
    NoWay(String),
}

/// The token in `cloud.tokenFile`.
#[derive(Debug, Default)]
pub(super) enum Token {
    /// The configuration names no file.
    #[default]
    Unnamed,
    /// There is no such file, or it cannot be read.
    Absent(String),
    /// What is in the file is none, and why.
    Wrong(String, String),
    /// It pins another cloud than the one that this node joined.
    OtherCloud(String),
    /// Everybody may read it.
    Open(String),
    /// As it should be.
    Fine,
}

/// What the data folder says of who this node is.
#[derive(Debug)]
pub(super) enum Known {
    /// It has not joined.
    Nobody,
    /// Only root may look.
    Hidden,
    /// The file is no identity.
    Damaged(String),
    /// It is this.
    Somebody(Shown),
}

/// An identity, as far as it is judged.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) node: String,
    ca: Option<CaHash>,
    /// Seconds since 1970.
    pub(super) not_after: i64,
    /// What the mesh takes for the time.
    pub(super) now: Now,
}

impl Uplink {
    /// Looks at what `config` names.
    pub(super) fn look(config: &AgentConfig, runtime: &tokio::runtime::Runtime) -> Self {
        let Some(cloud) = &config.cloud else { return Self::default() };
        let identity = Known::look(&config.data_dir);
        let token = Token::look(cloud, identity.ca());
        Self { servers: runtime.block_on(dial(&cloud.servers)), token, identity: Some(identity) }
    }

    /// Whether this node has an identity; where it cannot be told, yes.
    pub(super) fn joined(&self) -> bool {
        matches!(self.identity, Some(Known::Somebody(_) | Known::Hidden))
    }
}

/// All at once, so that a silent one costs no time of the others.
async fn dial(servers: &[String]) -> Vec<Reached> {
    let mut dials = JoinSet::new();
    for (index, server) in servers.iter().take(ASKED).cloned().enumerate() {
        dials.spawn(async move {
            let outcome = timeout(PATIENCE, reach(&server)).await;
            (index, Reached { server, outcome: outcome.unwrap_or(Err(Unreached::Silent)) })
        });
    }
    let mut reached = dials.join_all().await;
    reached.sort_by_key(|(index, _)| *index);
    reached.into_iter().map(|(_, reached)| reached).collect()
}

async fn reach(server: &str) -> Result<(), Unreached> {
    let found = lookup_host(server).await;
    let addresses = found.map_err(|error| Unreached::NoName(error.to_string()))?;
    let mut failed = Unreached::NoName("it has none".into());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(error) => failed = why(&error),
        }
    }
    Err(failed)
}

fn why(error: &io::Error) -> Unreached {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreached::Refused,
        io::ErrorKind::TimedOut => Unreached::Silent,
        _ => Unreached::NoWay(error.to_string()),
    }
}

impl Token {
    fn look(cloud: &Cloud, joined: Option<CaHash>) -> Self {
        let Some(path) = &cloud.token_file else { return Self::Unnamed };
        let name = path.display().to_string();
        let (text, mode) = match read(path) {
            Ok(found) => found,
            Err(error) => return Self::Absent(format!("cannot read {name}: {error}")),
        };
        match text.parse::<JoinToken>() {
            Err(error) => Self::Wrong(name, error.to_string()),
            Ok(token) if joined.is_some_and(|ca| ca != token.ca()) => Self::OtherCloud(name),
            Ok(_) if mode & 0o077 != 0 => Self::Open(name),
            Ok(_) => Self::Fine,
        }
    }
}

/// The text of the file, as much of it as a token has, and its mode.
fn read(path: &Path) -> io::Result<(String, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(MAX_TOKEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), mode))
}

impl Known {
    fn look(data_dir: &Path) -> Self {
        match Identity::load(data_dir) {
            Ok(None) => Self::Nobody,
            Ok(Some(identity)) => Self::Somebody(Shown::of(&identity, &Clock::open(data_dir))),
            Err(IdentityError::File { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Self::Hidden
            }
            Err(error) => Self::Damaged(format!("{:#}", anyhow::Error::from(error))),
        }
    }

    fn ca(&self) -> Option<CaHash> {
        match self {
            Self::Somebody(shown) => shown.ca,
            Self::Nobody | Self::Hidden | Self::Damaged(_) => None,
        }
    }
}

impl Shown {
    fn of(identity: &Identity, clock: &Clock) -> Self {
        let (now, begin) = (clock.now(), identity.not_before());
        // It cannot be earlier than the start of our own certificate: see `Clock`.
        let now =
            Now { seconds: now.seconds.max(begin), is_sure: now.is_sure && now.seconds >= begin };
        Self {
            node: identity.node().to_string(),
            ca: Some(identity.ca()),
            not_after: identity.not_after(),
            now,
        }
    }

    /// A node's certificate at `now`, for tests.
    #[cfg(test)]
    pub(super) fn at(node: &str, not_after: i64, now: i64) -> Self {
        let now = Now { seconds: now, is_sure: true };
        Self { node: node.into(), ca: None, not_after, now }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use edgemesh_core::identity::{Authority, authority::LIFETIME};
    use edgemesh_proto::record::NodeName;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn cloud(token: Option<&Path>) -> Cloud {
        Cloud {
            servers: Vec::new(),
            token_file: token.map(Path::to_owned),
            offline_grace: Duration::ZERO,
            select: Default::default(),
        }
    }

    /// Of a cloud of its own.
    fn identity() -> Identity {
        let node = NodeName("edge-1".into());
        Authority::new(NOW).unwrap().node(&node, NOW, LIFETIME).unwrap()
    }

    fn put(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn tokens_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let (ours, theirs) = (identity().ca(), identity().ca());
        let token = JoinToken::new(ours).reveal();
        assert!(matches!(Token::look(&cloud(None), None), Token::Unnamed));
        assert!(matches!(Token::look(&cloud(Some(&file)), None), Token::Absent(_)));
        for (text, mode, joined, want) in [
            (token.clone(), 0o600, None, "Fine"),
            (format!("{token}\n"), 0o400, Some(ours), "Fine"),
            (token.clone(), 0o600, Some(theirs), "OtherCloud"),
            (token.clone(), 0o644, Some(ours), "Open"),
            (token[..100].into(), 0o600, None, "Wrong"),
            (String::new(), 0o600, None, "Wrong"),
            ("x".repeat(100_000), 0o600, None, "Wrong"),
        ] {
            put(&file, &text, mode);
            let have = format!("{:?}", Token::look(&cloud(Some(&file)), joined));
            assert!(have.starts_with(want), "{text:.20} {mode:o}: {have}");
            assert!(!have.contains(&token[80..]), "the secret is told: {have}");
        }
    }

    #[test]
    fn who_this_node_is_comes_from_its_folder_and_no_clock_is_before_its_certificate() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Known::look(folder.path()), Known::Nobody));
        let identity = identity();
        identity.save(folder.path()).unwrap();
        let Known::Somebody(shown) = Known::look(folder.path()) else { panic!("nobody") };
        assert_eq!((&*shown.node, shown.ca), ("edge-1", Some(identity.ca())));
        for (system, seconds, is_sure) in
            [(0, identity.not_before(), false), (NOW + 5, NOW + 5, true)]
        {
            let shown = Shown::of(&identity, &Clock::with(None, move || system));
            assert_eq!(shown.now, Now { seconds, is_sure }, "{system}");
        }
        put(&folder.path().join("identity.pem"), "rubbish", 0o600);
        let damaged = format!("{:?}", Known::look(folder.path()));
        assert!(damaged.starts_with("Damaged(") && damaged.contains("is damaged"), "{damaged}");
    }

    #[tokio::test]
    async fn servers_are_asked_in_order_and_each_says_why_not() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        // Bound and not listening: the port is ours, and refuses.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let closed = socket.local_addr().unwrap().as_socket().unwrap();
        let servers =
            [closed.to_string(), open.local_addr().unwrap().to_string(), "no port".into()];
        let reached = dial(&servers).await;
        let names: Vec<_> = reached.iter().map(|reached| reached.server.clone()).collect();
        assert_eq!(names, servers);
        let outcomes: Vec<_> = reached.iter().map(|reached| &reached.outcome).collect();
        assert!(
            matches!(outcomes[..], [Err(Unreached::Refused), Ok(()), Err(Unreached::NoName(_))]),
            "{reached:?}"
        );
    }
}
