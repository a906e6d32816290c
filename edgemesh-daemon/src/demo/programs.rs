//! Real servers where they are installed: redis, MariaDB, and OpenSSL's TLS server.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;

use crate::cli::Feature;
use crate::demo::children::Running;
use crate::demo::children::ask;
use crate::demo::children::find;
use crate::demo::clock::until;
use crate::demo::world::Place;
use crate::demo::world::World;

/// How long a server may take to listen; MariaDB makes its tablespace first.
const STARTS_WITHIN: Duration = Duration::from_secs(15);
/// Where TLS is served: `tls.default` is what the certificate is for.
pub(crate) const TLS_NAME: &str = "tls.default";

/// A real server and the client that goes with it.
#[derive(Debug)]
pub(crate) struct Real {
    running: Running,
    place: Place,
    at: SocketAddr,
    /// The client program.
    pub(crate) client: PathBuf,
}

impl Real {
    /// Waits until its port is open.
    pub(crate) fn wait(&mut self, world: &World) -> anyhow::Result<()> {
        let (place, at) = (self.place, self.at);
        let open = || TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok();
        let waited = until(STARTS_WITHIN, || match world.within(place, || Ok(open())) {
            Ok(true) => Some(Ok(())),
            _ if !self.running.runs() => Some(Err(())),
            _ => None,
        });
        match waited {
            Some(Ok(())) => Ok(()),
            Some(Err(())) => bail!("the server ended; see its log"),
            None => bail!("the server did not listen within {} s", STARTS_WITHIN.as_secs()),
        }
    }
}

/// redis-server somewhere, if it and redis-cli are installed.
pub(crate) fn redis(world: &World, place: Place, at: SocketAddr) -> anyhow::Result<Option<Real>> {
    let (Some(server), Some(client)) = (find("redis-server"), find("redis-cli")) else {
        return Ok(None);
    };
    let mut command = Command::new(server);
    command.args([
        "--bind",
        &at.ip().to_string(),
        "--port",
        &at.port().to_string(),
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    command.args(["--daemonize", "no", "--protected-mode", "no"]).current_dir(&world.folder);
    start(world, &mut command, "redis", (place, at), client).map(Some)
}

/// mosquitto somewhere, for everybody, if it is installed. Clients of it are found by who needs them.
pub(crate) fn mosquitto(
    world: &World,
    place: Place,
    at: SocketAddr,
) -> anyhow::Result<Option<Real>> {
    let Some(server) = find("mosquitto") else { return Ok(None) };
    let config = world.folder.join("mosquitto.conf");
    let text = format!("listener {} {}\nallow_anonymous true\nuser root\n", at.port(), at.ip());
    std::fs::write(&config, text)?;
    let mut command = Command::new(&server);
    command.arg("-c").arg(&config);
    start(world, &mut command, "mosquitto", (place, at), server).map(Some)
}

/// mariadbd on an empty folder, if it and its client are installed.
pub(crate) fn mariadb(world: &World, at: SocketAddr) -> anyhow::Result<Option<Real>> {
    let (Some(server), Some(client)) = (find("mariadbd"), find("mariadb")) else {
        return Ok(None);
    };
    let data = world.folder.join("mariadb");
    std::fs::create_dir_all(&data)?;
    let mut command = Command::new(server);
    // No grant tables: they would take seconds to make, and the greeting is what is shown.
    command.args(["--no-defaults", "--skip-grant-tables", "--skip-log-bin", "--user=root"]);
    command.args(["--skip-name-resolve", "--innodb-buffer-pool-size=8M"]);
    command.args(["--innodb-log-file-size=4M", &format!("--bind-address={}", at.ip())]);
    command.arg(format!("--port={}", at.port()));
    for (option, name) in [("datadir", "."), ("socket", "sock"), ("pid-file", "pid")] {
        command.arg(format!("--{option}={}", data.join(name).display()));
    }
    start(world, &mut command, "mariadb", (Place::Apps, at), client).map(Some)
}

/// `openssl s_server` with a fresh certificate for [`TLS_NAME`], if installed. Its "client" is
/// the file with the certificate that clients are told to trust.
pub(crate) fn tls(world: &World, at: SocketAddr) -> anyhow::Result<Option<Real>> {
    let Some(openssl) = find("openssl") else { return Ok(None) };
    let trusted = certificate(&openssl, &world.folder, "trusted")?;
    // Broken on purpose: the server shows another certificate than clients trust.
    let shown = match world.lacks(Feature::Tls) {
        true => certificate(&openssl, &world.folder, "other")?,
        false => trusted.clone(),
    };
    let mut command = Command::new(openssl);
    command.args(["s_server", "-quiet", "-www", "-accept", &at.to_string(), "-cert"]);
    command.arg(&shown).arg("-key").arg(shown.with_extension("key"));
    start(world, &mut command, "tls", (Place::Apps, at), trusted).map(Some)
}

fn certificate(openssl: &Path, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{name}.pem"));
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-nodes", "-days", "2", "-subj", &format!("/CN={TLS_NAME}"), "-addext"]);
    command.arg(format!("subjectAltName=DNS:{TLS_NAME}"));
    command.arg("-out").arg(&path).arg("-keyout").arg(path.with_extension("key"));
    ask(&mut command).context("openssl req")?;
    Ok(path)
}

fn start(
    world: &World,
    command: &mut Command,
    name: &str,
    (place, at): (Place, SocketAddr),
    client: PathBuf,
) -> anyhow::Result<Real> {
    let running = world.within(place, || Running::start(command, &world.folder, name))?;
    Ok(Real { running, place, at, client })
}
