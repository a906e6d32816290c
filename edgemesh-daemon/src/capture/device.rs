//! Our own device: it carries `proxy.address`, which forwarded traffic is sent to.

use std::net::IpAddr;

use crate::capture::command::{must, run};
use crate::capture::error::CaptureError;

/// What it is called.
pub(super) const NAME: &str = "edgemesh0";
/// Its alias, by which we know that it is ours to delete.
const ALIAS: &str = "edgemesh-agent";

/// What carries our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// `edgemesh0`, a dummy device.
    Dummy,
    /// `edgemesh0`, a bridge with no ports, where the kernel has no dummy devices.
    Bridge,
    /// `lo`, where neither can be made.
    Loopback,
    /// `edgemesh0`, which somebody else made: used, but never deleted.
    Foreign,
}

/// The device and what we put on it.
pub(super) struct Device {
    pub(super) kind: DeviceKind,
    /// Addresses that we put there.
    added: Vec<IpAddr>,
}

impl Device {
    /// Makes the device, or takes the one that is there.
    pub(super) fn open() -> Result<Self, CaptureError> {
        let kind = match existing()? {
            Some(kind) => kind,
            None => create()?,
        };
        if kind != DeviceKind::Loopback {
            must("ip", &["link", "set", NAME, "up"], "")?;
        }
        Ok(Self { kind, added: Vec::new() })
    }

    /// Makes it again after somebody deleted it.
    pub(super) fn reopen(&mut self) -> Result<(), CaptureError> {
        self.kind = Self::open()?.kind;
        Ok(())
    }

    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            DeviceKind::Dummy | DeviceKind::Bridge | DeviceKind::Foreign => NAME,
            DeviceKind::Loopback => "lo",
        }
    }

    /// Puts `address` on the device. `false`: it was there.
    ///
    /// It must never become the source of somebody else's connection: so link scope for IPv4 and
    /// no preferred lifetime for IPv6. Duplicate detection cannot work on a device without ports.
    pub(super) fn carry(&mut self, address: IpAddr) -> Result<bool, CaptureError> {
        let name = self.name();
        if self.carries(address)? {
            return Ok(false);
        }
        match address {
            IpAddr::V4(v4) => {
                must("ip", &["addr", "add", &format!("{v4}/32"), "dev", name, "scope", "link"], "")?
            }
            IpAddr::V6(v6) => {
                let address = format!("{v6}/128");
                let how = ["nodad", "preferred_lft", "0"];
                must("ip", &[&["-6", "addr", "add", &address, "dev", name], &how[..]].concat(), "")?
            }
        };
        if !self.added.contains(&address) {
            self.added.push(address);
        }
        Ok(true)
    }

    pub(super) fn carries(&self, address: IpAddr) -> Result<bool, CaptureError> {
        let shown = run("ip", &["-o", "addr", "show", "dev", self.name()], "")?;
        let words = [format!(" inet {address}/"), format!(" inet6 {address}/")];
        Ok(words.iter().any(|word| shown.stdout.contains(word)))
    }

    /// Deletes the device if it is ours, else what we put on it.
    pub(super) fn remove(&mut self) -> Result<(), CaptureError> {
        remove(&self.added)?;
        self.added.clear();
        Ok(())
    }
}

/// Deletes our device, wherever it comes from, or `addresses` from the one that is not ours.
pub(super) fn remove(addresses: &[IpAddr]) -> Result<bool, CaptureError> {
    let name = match existing()? {
        Some(DeviceKind::Dummy | DeviceKind::Bridge | DeviceKind::Loopback) => {
            return must("ip", &["link", "del", NAME], "").map(|_| true);
        }
        Some(DeviceKind::Foreign) => NAME,
        None => "lo",
    };
    let mut any = false;
    for address in addresses {
        // That it is gone already is what was wanted.
        any |= run("ip", &["addr", "del", &address.to_string(), "dev", name], "")?.ok;
    }
    Ok(any)
}

/// What is missing of device and `addresses`, a line each; where the kernel has no devices to
/// make, they sit on `lo`.
pub(super) fn lacks(addresses: &[IpAddr]) -> Result<Vec<String>, CaptureError> {
    let shown = run("ip", &["-o", "addr", "show", "up"], "")?.stdout;
    let carried = |address: &IpAddr| {
        let on = |line: &str| {
            [format!(" {NAME} "), " lo ".into()].iter().any(|name| line.contains(name))
        };
        let words = [format!(" inet {address}/"), format!(" inet6 {address}/")];
        shown.lines().any(|line| on(line) && words.iter().any(|word| line.contains(word)))
    };
    let lacking = addresses.iter().filter(|address| !carried(address));
    let mut lacks: Vec<_> =
        lacking.map(|address| format!("{NAME} does not carry {address}")).collect();
    if !lacks.is_empty() && existing()?.is_none() {
        lacks.insert(0, format!("there is no device {NAME}"));
    }
    Ok(lacks)
}

/// What `edgemesh0` is, if there is one.
fn existing() -> Result<Option<DeviceKind>, CaptureError> {
    let shown = run("ip", &["-d", "link", "show", "dev", NAME], "")?;
    if !shown.ok {
        return Ok(None);
    }
    let ours = shown.stdout.contains(&format!("alias {ALIAS}"));
    Ok(Some(match (ours, shown.stdout.contains("bridge ")) {
        (true, true) => DeviceKind::Bridge,
        (true, false) => DeviceKind::Dummy,
        (false, _) => DeviceKind::Foreign,
    }))
}

fn create() -> Result<DeviceKind, CaptureError> {
    for (kind, word) in [(DeviceKind::Dummy, "dummy"), (DeviceKind::Bridge, "bridge")] {
        if run("ip", &["link", "add", NAME, "type", word], "")?.ok {
            must("ip", &["link", "set", NAME, "alias", ALIAS], "")?;
            // A link-local address of its own would be one more thing to explain; old programs
            // cannot say so, which does no harm.
            run("ip", &["link", "set", NAME, "addrgenmode", "none"], "")?;
            return Ok(kind);
        }
    }
    Ok(DeviceKind::Loopback)
}
