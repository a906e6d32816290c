//! Follows resolv.conf: which upstreams to ask, now and after it changes.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::{debug, info};

/// Most upstreams used; the C library, too, stops at three.
pub const UPSTREAMS_MAX: usize = 3;
/// How often the files are looked at. A poll, since resolv.conf is often replaced by renaming
/// links, which watches on files do not survive.
pub const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// Most that is read of a file, in octets.
const FILE_MAX: u64 = 64 * 1024;
const PORT: u16 = 53;

/// Addresses where systemd-resolved listens for the programs of its own host. It asks upstreams
/// itself, and with `dns.intercept` those questions come back to us: a loop if we asked it.
const SYSTEMD_STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// The upstreams of the moment, best first; shared by the task that follows resolv.conf and the
/// one that asks them.
#[derive(Debug, Default)]
pub struct Upstreams {
    list: ArcSwap<Vec<SocketAddr>>,
}

impl Upstreams {
    /// These upstreams; at most [`UPSTREAMS_MAX`] of them are used.
    pub fn new(list: Vec<SocketAddr>) -> Self {
        let upstreams = Self::default();
        upstreams.set(list);
        upstreams
    }

    /// Replaces the list.
    pub fn set(&self, mut list: Vec<SocketAddr>) {
        list.truncate(UPSTREAMS_MAX);
        self.list.store(Arc::new(list));
    }

    /// The list as it is now.
    pub fn get(&self) -> Arc<Vec<SocketAddr>> {
        self.list.load_full()
    }
}

/// The nameservers of a resolv.conf, in order and once each. Left out: our `own` addresses (asking
/// ourselves would be a loop), what is no address, and link-local IPv6 with a zone.
pub fn nameservers(text: &str, own: &[IpAddr]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        // Comments begin a line here; the C library ignores whatever follows the address.
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        if !address.is_unspecified() && !own.contains(&address) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// The files that name the upstreams.
#[derive(Clone, Debug)]
pub struct ResolvConf {
    /// In order; the next one is read only when those before name nothing but the stub of
    /// systemd-resolved, or nothing at all.
    pub files: Vec<PathBuf>,
    /// Addresses on which we serve port 53 ourselves.
    pub own: Vec<IpAddr>,
}

impl ResolvConf {
    /// The files of this host, given the addresses on which we serve port 53.
    pub fn host(own: Vec<IpAddr>) -> Self {
        let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
        Self { files: files.map(PathBuf::from).to_vec(), own }
    }

    /// Reads the files: the upstreams, on port 53. Empty when no file names one.
    pub fn load(&self) -> Vec<SocketAddr> {
        let mut stubs = Vec::new();
        for file in &self.files {
            let text = match read(file) {
                Ok(text) => text,
                Err(error) => {
                    debug!(file = %file.display(), %error, "cannot read nameservers");
                    continue;
                }
            };
            let (stub, real): (Vec<IpAddr>, Vec<IpAddr>) = nameservers(&text, &self.own)
                .into_iter()
                .partition(|address| SYSTEMD_STUBS.contains(address));
            if !real.is_empty() {
                return with_port(real);
            }
            stubs.extend(stub);
        }
        with_port(stubs)
    }

    /// Keeps `upstreams` in step with the files until it is dropped. A file that names nobody
    /// (tools empty it when the uplink goes) changes nothing: the old upstreams may well be back.
    pub async fn follow(self, upstreams: Arc<Upstreams>) {
        let mut ticks = tokio::time::interval(RELOAD_EVERY);
        loop {
            ticks.tick().await;
            // A few hundred octets from memory: not worth another thread.
            let mut list = self.load();
            list.truncate(UPSTREAMS_MAX);
            if !list.is_empty() && list != *upstreams.get() {
                info!(upstreams = ?list, "nameservers changed");
                upstreams.set(list);
            }
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(file)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn with_port(addresses: Vec<IpAddr>) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_in_order_without_ourselves() {
        let rows: &[(&str, &[&str], &[&str])] = &[
            ("", &[], &[]),
            ("nameserver 10.0.0.1\nnameserver 10.0.0.2\n", &[], &["10.0.0.1", "10.0.0.2"]),
            ("  nameserver\t10.0.0.1  # uplink\r\n", &[], &["10.0.0.1"]),
            ("#nameserver 10.0.0.1\n;nameserver 10.0.0.2\nsearch a b\noptions ndots:5", &[], &[]),
            ("nameserver 10.0.0.1\nnameserver 10.0.0.1", &[], &["10.0.0.1"]),
            ("nameserver 169.254.96.16\nnameserver ::2", &["169.254.96.16"], &["::2"]),
            ("nameserver\nnameserver x\nnameserver fe80::1%eth0\nnameserver 0.0.0.0", &[], &[]),
            ("nameserver 127.0.0.53", &[], &["127.0.0.53"]),
            ("nameservers 10.0.0.1", &[], &[]),
        ];
        let parse = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        for (text, own, want) in rows {
            assert_eq!(nameservers(text, &parse(own)), parse(want), "{text:?}");
        }
    }

    #[test]
    fn the_stub_is_the_last_resort() {
        let rows: &[(&[&str], &[&str])] = &[
            (&["nameserver 127.0.0.53", "nameserver 10.0.0.1"], &["10.0.0.1:53"]),
            (&["nameserver 127.0.0.53", ""], &["127.0.0.53:53"]),
            (&["nameserver 10.0.0.9", "nameserver 10.0.0.1"], &["10.0.0.9:53"]),
            (&["", "nameserver 10.0.0.1"], &["10.0.0.1:53"]),
        ];
        for (texts, want) in rows {
            let folder = tempfile::tempdir().unwrap();
            let write = |(i, text): (usize, &&str)| {
                let file = folder.path().join(i.to_string());
                std::fs::write(&file, text).unwrap();
                file
            };
            let mut files = vec![folder.path().join("missing")];
            files.extend(texts.iter().enumerate().map(write));
            let list = ResolvConf { files, own: Vec::new() }.load();
            let want: Vec<SocketAddr> = want.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(list, want, "{texts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn follows_changes_and_survives_an_emptied_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        let conf = ResolvConf { files: vec![file.clone()], own: Vec::new() };
        let upstreams = Arc::new(Upstreams::default());
        let follow = conf.follow(Arc::clone(&upstreams));
        tokio::pin!(follow);
        for (text, want) in [
            ("nameserver 10.0.0.1", "10.0.0.1:53"),
            ("", "10.0.0.1:53"),
            ("nameserver 10.0.0.2", "10.0.0.2:53"),
        ] {
            std::fs::write(&file, text).unwrap();
            let _ = tokio::time::timeout(RELOAD_EVERY * 2, &mut follow).await;
            assert_eq!(*upstreams.get(), [want.parse().unwrap()], "{text:?}");
        }
    }
}
