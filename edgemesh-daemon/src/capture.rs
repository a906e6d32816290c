//! Brings connections to the mesh by iptables, and takes every trace of that away again.
//!
//! Connections of this host's own processes are REDIRECTed to the listener on loopback, those of
//! pods are DNATed to our own address on our own device; [`rules`] holds both as reviewed text.
//! Beside the rules there is the device (`device`) and there are routes of last resort (`routes`).
//! Everything runs child processes and waits for them: call it where blocking is allowed.
//!
//! The order of a start is [`Capture::prepare`] (after which `proxy.address` can be listened on),
//! then the listeners, then [`Capture::start`]; of a stop it is [`Capture::stop_new`], then the
//! drain, then [`Capture::finish`]: new connections must find no jump to a listener that is gone,
//! established ones keep what they need until they are drained.
//! After a crash, [`remove_jumps`] and [`remove_leftovers`] find what is left by its names and
//! numbers, and the next start takes it over.

mod backend;
mod chains;
mod command;
mod conntrack;
mod device;
mod error;
mod family;
mod heal;
mod include;
pub mod lock;
mod nft_table;
pub mod node_ports;
pub mod rivals;
mod routes;
pub mod rules;
pub mod survey;
pub mod udp;
pub(crate) mod watch;

use std::net::IpAddr;

use crate::capture::backend::{Backend, Tables};
use crate::capture::device::Device;
pub use crate::capture::device::DeviceKind;
pub use crate::capture::error::CaptureError;
use crate::capture::family::{Family, both, has_ipv6, ipv6, note};
pub use crate::capture::heal::{CHECK_EVERY, Healed, MOVE_EVERY};
pub use crate::capture::include::{AUTO_PREFIXES, auto_include, covers};
pub use crate::capture::rivals::Rival;
use crate::capture::routes::Routes;
pub use crate::capture::routes::outward;
pub use crate::capture::rules::{DnsCapture, Input, MAX_PREFIXES, Ruleset, render};
pub use crate::capture::watch::Watch;

/// The rules, the device and the routes that bring connections to us.
///
/// Dropping it removes nothing: a new agent may have taken over. Removing is [`Capture::remove`].
pub struct Capture {
    /// What was asked for.
    asked: Input,
    /// What holds here: addresses that could be placed, and all outward interfaces seen so far.
    input: Input,
    device: Device,
    families: Vec<Family>,
    report: Report,
    healing: heal::State,
}

/// How connections are captured on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The backend in its own words, such as `iptables v1.8.9 (nf_tables)`.
    pub backend: String,
    /// What carries `proxy.address`.
    pub device: DeviceKind,
    /// Whether IPv6 is captured.
    pub ipv6: bool,
    /// What does not work here, and does not stop us.
    pub notes: Vec<String>,
}

impl Capture {
    /// Looks at what this node can do, makes the device and puts `proxy.address` on it. Captures
    /// nothing yet, so that listeners can be opened first.
    ///
    /// # Errors
    /// What is missing here for IPv4. Lack of IPv6 is a note in the report.
    pub fn prepare(input: Input) -> Result<Self, CaptureError> {
        input.validate()?;
        let backend = Backend::detect();
        let v4 = Tables::new(backend, true);
        v4.chain("OUTPUT")?;
        let mut notes = Vec::new();
        let mut families = vec![Family::new(v4)];
        families.extend(ipv6(backend, &mut notes));
        let device = Device::open()?;
        let report = Report {
            backend: backend.version(),
            device: device.kind,
            ipv6: families.len() > 1,
            notes,
        };
        let healing = heal::State::default();
        let asked = input.clone();
        let mut capture = Self { asked, input, device, families, report, healing };
        capture.address()?;
        capture.input = capture.effective()?;
        Ok(capture)
    }

    /// Begins to capture: routes, then our chains whole, then the jumps to them. Takes over what
    /// an earlier process left, also half of it. May be called again.
    ///
    /// # Errors
    /// What failed first for IPv4; nothing is captured then. Lack of IPv6 is a note.
    pub fn start(&mut self) -> Result<(), CaptureError> {
        let begun = self.begin();
        if begun.is_err() {
            // Half of it would capture for a listener that may never come. What failed first says
            // more than a failure to undo it.
            let _ = self.stop_new();
        }
        begun
    }

    /// [`Capture::prepare`] and [`Capture::start`].
    ///
    /// # Errors
    /// As those two.
    pub fn install(input: Input) -> Result<Self, CaptureError> {
        let mut capture = Self::prepare(input)?;
        capture.start().map(|()| capture)
    }

    /// Captures what `input` says from now on: one atomic step a family, none where nothing
    /// changed. Established connections are not touched.
    ///
    /// # Errors
    /// What failed first; what was captured before still is.
    pub fn update(&mut self, input: Input) -> Result<(), CaptureError> {
        if input == self.asked {
            return Ok(());
        }
        input.validate()?;
        let moved = input.addresses != self.asked.addresses;
        let before = std::mem::replace(&mut self.asked, input);
        let seen = std::mem::take(&mut self.input.outward);
        self.input = Input { outward: seen, ..self.asked.clone() };
        let done = self.follow(moved);
        match done {
            Ok(()) => self.forget_stale(&before.udp),
            Err(_) => self.asked = before, // so that the same input is tried again
        }
        done
    }

    /// Lets UDP clients that go on sending move to the Backends of now.
    fn forget_stale(&mut self, before: &[udp::UdpPort]) {
        if before == self.asked.udp {
            return;
        }
        if let Err(error) = udp::forget_stale(before, &self.asked.udp) {
            let what =
                "UDP clients stay with Backends that are gone until they pause for two minutes";
            note(&mut self.report.notes, format!("{what}: {error}"));
        }
    }

    /// Deletes the jumps: nothing new is captured from here on. Idempotent.
    ///
    /// # Errors
    /// What failed first, after all was tried.
    pub fn stop_new(&mut self) -> Result<(), CaptureError> {
        self.healing.stopped();
        first_error(self.families.iter().map(|family| family.tables.delete_jumps().map(drop)))
    }

    /// Deletes our chains, routes and device. Idempotent. Call [`Capture::stop_new`] first.
    ///
    /// # Errors
    /// What failed first, after all was tried.
    pub fn finish(&mut self) -> Result<(), CaptureError> {
        let mut results: Vec<_> = self.families.iter_mut().map(Family::clear).collect();
        results.push(self.device.remove());
        first_error(results)
    }

    /// [`Capture::stop_new`] and [`Capture::finish`].
    ///
    /// # Errors
    /// What failed first, after all was tried.
    pub fn remove(&mut self) -> Result<(), CaptureError> {
        first_error([self.stop_new(), self.finish()])
    }

    /// How connections are captured here.
    pub fn report(&self) -> &Report {
        &self.report
    }

    fn follow(&mut self, moved: bool) -> Result<(), CaptureError> {
        if moved {
            self.address()?;
        }
        self.input = self.effective()?;
        self.write()
    }

    fn begin(&mut self) -> Result<(), CaptureError> {
        self.forget_other_backends()?;
        let rules = render(&self.input);
        let mut working = Vec::new();
        for mut family in std::mem::take(&mut self.families) {
            family.loaded.clear();
            let begun = family.load(&rules).and_then(|()| family.tables.place_jumps());
            family.lead(&self.input, &mut self.report.notes);
            match begun {
                Err(error) if !family.tables.v4 => {
                    note(&mut self.report.notes, format!("IPv6 is not captured: {error}"));
                    self.report.ipv6 = false;
                    // It may have got half way; what cannot be deleted was not made either.
                    let _ = family.remove();
                }
                failed_or_not => {
                    working.push(family);
                    if failed_or_not.is_err() {
                        self.families = working;
                        return failed_or_not;
                    }
                }
            }
        }
        self.families = working;
        self.forget_stale(&[]);
        self.healing.started();
        Ok(())
    }

    /// Writes what changed.
    fn write(&mut self) -> Result<(), CaptureError> {
        let rules = render(&self.input);
        let notes = &mut self.report.notes;
        let mut families = self.families.iter_mut();
        families.try_for_each(|family| family.write(&self.input, &rules, notes))
    }

    /// Puts `proxy.address` on the device. IPv4 must work, if asked for; IPv6 need not.
    fn address(&mut self) -> Result<(), CaptureError> {
        for address in self.asked.addresses.clone() {
            match self.device.carry(address) {
                Ok(_) => {}
                Err(error) if address.is_ipv6() => {
                    note(&mut self.report.notes, format!("IPv6 of pods is not captured: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What was asked for, as far as it can be had. An interface that once held a default route
    /// stays outward: when the uplink is down its neighbours are still no pods.
    fn effective(&self) -> Result<Input, CaptureError> {
        let mut input = self.asked.clone();
        let mut carried = Vec::new();
        for address in &input.addresses {
            if self.device.carries(*address)? {
                carried.push(*address);
            }
        }
        input.addresses = carried;
        input.outward.extend(outward()?);
        input.outward.extend(self.input.outward.iter().cloned());
        input.outward.sort();
        input.outward.dedup();
        Ok(input)
    }

    /// The node may have changed its backend since we were killed.
    fn forget_other_backends(&self) -> Result<(), CaptureError> {
        let kept = Tables::name_of(&self.report.backend);
        let others = Backend::in_use().into_iter();
        for backend in others.filter(|backend| Tables::name_of(&backend.version()) != kept) {
            for tables in both(backend) {
                tables.delete_jumps()?;
                tables.delete_chains()?;
            }
        }
        Ok(())
    }
}

/// Deletes the jumps of any backend: nothing new is captured from here on. `true`: there were any.
///
/// # Errors
/// What failed first, after all was tried.
pub fn remove_jumps() -> Result<bool, CaptureError> {
    let tables = || Backend::in_use().into_iter().flat_map(both);
    any(tables().map(|tables| tables.delete_jumps()))
}

/// Deletes what an agent left here: jumps, chains, routes, the device, and `addresses`
/// (`proxy.address`) where they sit on `lo`. `true`: there was any of it.
///
/// # Errors
/// What failed first, after all was tried.
pub fn remove_leftovers(addresses: &[IpAddr]) -> Result<bool, CaptureError> {
    // Routes first: while there are jumps, clients are refused at once; with routes alone, what
    // they send is lost, and they wait for minutes.
    let routes = any([true, false]
        .into_iter()
        .filter(|v4| *v4 || has_ipv6())
        .map(|v4| Routes::new(v4).remove()));
    let jumps = remove_jumps();
    let chains = any(Backend::in_use().into_iter().flat_map(both).map(|t| t.delete_chains()));
    any([routes, jumps, chains, device::remove(addresses)])
}

fn first_error<I>(results: I) -> Result<(), CaptureError>
where
    I: IntoIterator<Item = Result<(), CaptureError>>,
{
    any(results.into_iter().map(|result| result.map(|()| true))).map(drop)
}

/// Whether any did something. Runs all of them, then gives the first error.
fn any<I>(results: I) -> Result<bool, CaptureError>
where
    I: IntoIterator<Item = Result<bool, CaptureError>>,
{
    let mut whole = Ok(false);
    for result in results {
        whole = match (whole, result) {
            (Err(first), _) => Err(first),
            (Ok(_), Err(error)) => Err(error),
            (Ok(before), Ok(now)) => Ok(before || now),
        };
    }
    whole
}
