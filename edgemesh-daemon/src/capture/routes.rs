//! Routes of last resort: without them `connect` fails before our rules see it when no route
//! leads to a captured address, as on a node whose uplink is down.
//!
//! A route in the main table, however bad its metric, would win over the default route, since the
//! longest prefix comes first; then what passes through would go nowhere. So they live in tables of
//! our own, which are asked after all others, and only for what we capture: TCP, UDP where there
//! are UDP Services (and port 53 to the name servers) of this host's own processes. For anything else the network is as
//! unreachable as it was. All of it carries our protocol number.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::capture::command::{must, run};
use crate::capture::error::CaptureError;
use crate::capture::include::of_family;
use crate::capture::rules::Input;

/// Marks our routes and rules as ours (`proto 109`).
const PROTOCOL: &str = "109";
/// Table of the captured ranges.
const CAPTURED: &str = "28005";
/// Table of the name servers.
const NAMESERVERS: &str = "28006";
/// Our first rule's place: after `main` (32766) and `default` (32767).
const FIRST_RULE: u32 = 32768;

/// What the kernel should hold for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    rules: BTreeSet<String>,
    captured: BTreeSet<String>,
    nameservers: BTreeSet<String>,
    /// How a route ends: the source of connections that take it (` src ADDRESS`), or nothing.
    source: String,
}

/// The routes of last resort of one family.
pub(super) struct Routes {
    v4: bool,
    wanted: Option<Wanted>,
}

impl Routes {
    pub(super) fn new(v4: bool) -> Self {
        Self { v4, wanted: None }
    }

    /// Makes the kernel hold what `input` asks for; `own` is the source address that connections
    /// get. Takes over what an earlier process left. Cheap when nothing changed.
    pub(super) fn apply(&mut self, input: &Input, own: Option<IpAddr>) -> Result<(), CaptureError> {
        let wanted = wanted(input, own, self.v4);
        if self.wanted.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.write(&wanted)?;
        self.wanted = Some(wanted);
        Ok(())
    }

    /// Puts back what somebody removed. `true`: something was missing.
    pub(super) fn heal(&mut self) -> Result<bool, CaptureError> {
        let Some(wanted) = &self.wanted else { return Ok(false) };
        let whole = self.rules()? == wanted.rules
            && self.lines(CAPTURED, exact)? == wanted.exact(&wanted.captured)
            && self.lines(NAMESERVERS, exact)? == wanted.exact(&wanted.nameservers);
        if !whole {
            self.write(wanted)?;
        }
        Ok(!whole)
    }

    /// What the kernel does not hold of what `input` asks for, a line each.
    pub(super) fn lacks(
        &self,
        input: &Input,
        own: Option<IpAddr>,
    ) -> Result<Vec<String>, CaptureError> {
        let wanted = wanted(input, own, self.v4);
        let mut lacks = Vec::new();
        let (have, want) = (wanted.rules.intersection(&self.rules()?).count(), wanted.rules.len());
        if have < want {
            let family = self.family();
            lacks.push(format!("ip {family} rule: {have} of {want} rules of protocol {PROTOCOL}"));
        }
        for (table, routes) in [(CAPTURED, &wanted.captured), (NAMESERVERS, &wanted.nameservers)] {
            let (routes, held) = (wanted.exact(routes), self.lines(table, exact)?);
            let missing: Vec<_> = routes.difference(&held).map(String::as_str).collect();
            if !missing.is_empty() {
                let family = self.family();
                lacks.push(format!("ip {family} route, table {table}: no {}", missing.join(", ")));
            }
        }
        Ok(lacks)
    }

    /// Removes all of ours, also of an earlier process.
    pub(super) fn remove(&mut self) -> Result<bool, CaptureError> {
        self.wanted = None;
        let mut batch = String::new();
        for table in [CAPTURED, NAMESERVERS] {
            for route in self.shown(table)? {
                batch.push_str(&format!("route del {route} table {table} proto {PROTOCOL}\n"));
            }
        }
        let any_rule = !self.rules()?.is_empty();
        if any_rule {
            must("ip", &[self.family(), "rule", "flush", "protocol", PROTOCOL], "")?;
        }
        if !batch.is_empty() {
            self.batch(&batch)?;
        }
        Ok(any_rule || !batch.is_empty())
    }

    /// New routes before old ones go, and rules only where they differ: at no moment is there no
    /// way to what was captured and still is.
    fn write(&self, wanted: &Wanted) -> Result<(), CaptureError> {
        let mut batch = String::new();
        let mut old = String::new();
        for (table, routes) in [(CAPTURED, &wanted.captured), (NAMESERVERS, &wanted.nameservers)] {
            for gone in self.shown(table)?.difference(routes) {
                old.push_str(&format!("route del {gone} table {table} proto {PROTOCOL}\n"));
            }
            for route in routes {
                let via = match route.starts_with("throw") {
                    true => String::new(),
                    false => format!(" dev lo{}", wanted.source),
                };
                let line = format!("route replace {route}{via} table {table} proto {PROTOCOL}\n");
                batch.push_str(&line);
            }
        }
        self.batch(&(batch + &old))?;
        let shown = self.rules()?;
        let line = |verb: &str, rule: &String| format!("rule {verb} {rule} protocol {PROTOCOL}\n");
        let new: String = wanted.rules.difference(&shown).map(|rule| line("add", rule)).collect();
        let old: String = shown.difference(&wanted.rules).map(|rule| line("del", rule)).collect();
        self.batch(&(new + &old))
    }

    fn batch(&self, lines: &str) -> Result<(), CaptureError> {
        if lines.is_empty() {
            return Ok(());
        }
        must("ip", &[self.family(), "-batch", "-"], lines).map(drop)
    }

    fn family(&self) -> &'static str {
        if self.v4 { "-4" } else { "-6" }
    }

    /// Our rules, in the words in which they are added.
    fn rules(&self) -> Result<BTreeSet<String>, CaptureError> {
        let shown = must("ip", &[self.family(), "rule", "show"], "")?;
        Ok(shown.lines().filter_map(rule).collect())
    }

    /// Destinations of our routes in `table`.
    fn shown(&self, table: &str) -> Result<BTreeSet<String>, CaptureError> {
        self.lines(table, destination)
    }

    /// What `read` makes of our routes in `table`. A table that never held one is an error to
    /// `ip`, and empty to us.
    fn lines(
        &self,
        table: &str,
        read: fn(&str) -> Option<String>,
    ) -> Result<BTreeSet<String>, CaptureError> {
        let args = [self.family(), "route", "show", "table", table, "proto", PROTOCOL];
        Ok(run("ip", &args, "")?.stdout.lines().filter_map(read).collect())
    }
}

impl Wanted {
    /// Destinations as [`exact`] reads them.
    fn exact(&self, routes: &BTreeSet<String>) -> BTreeSet<String> {
        let source = |route: &str| if route.starts_with("throw") { "" } else { &self.source };
        routes.iter().map(|route| format!("{route}{}", source(route))).collect()
    }
}

/// Destination and source of a route as `ip` shows it. Of an IPv6 route, the kernel takes the
/// source away with the address.
fn exact(shown: &str) -> Option<String> {
    let mut words = shown.split_whitespace();
    let source = words.find(|word| *word == "src").and_then(|_| words.next());
    let source = source.map(|source| format!(" src {source}")).unwrap_or_default();
    Some(destination(shown)? + &source)
}

/// One of our rules as `ip` shows it, in the words in which it is added.
fn rule(shown: &str) -> Option<String> {
    let shown = shown.trim_end().strip_suffix(&format!(" proto {PROTOCOL}"))?;
    let (pref, rest) = shown.split_once(':')?;
    let rest = rest.trim_start().strip_prefix("from all ")?;
    Some(format!("pref {pref} {rest}"))
}

/// The first words of a route as `ip` shows it, with the prefix length always there.
fn destination(shown: &str) -> Option<String> {
    let mut words = shown.split_whitespace();
    let first = words.next()?;
    let (kind, to) = if first == "throw" { ("throw ", words.next()?) } else { ("", first) };
    let net = match to {
        "default" => shown.contains("dev").then(|| to.to_owned())?,
        _ => to
            .parse::<IpNet>()
            .ok()
            .or_else(|| to.parse::<IpAddr>().ok().map(IpNet::from))?
            .to_string(),
    };
    Some(format!("{kind}{net}"))
}

fn wanted(input: &Input, own: Option<IpAddr>, v4: bool) -> Wanted {
    let exclude = of_family(&input.exclude, v4);
    let include = of_family(&input.include, v4).into_iter();
    // A default route of ours would make all the world look reachable.
    let reachable = include
        .filter(|net| net.prefix_len() > 0 && !exclude.iter().any(|wider| wider.contains(net)));
    let mut captured: BTreeSet<String> = reachable.map(|net| net.to_string()).collect();
    if !captured.is_empty() {
        // As if there were no route of ours.
        captured.extend(exclude.iter().map(|net| format!("throw {net}")));
    }
    let servers = input.nameservers(v4).map(|(_, servers)| servers).unwrap_or_default();
    let servers = servers.into_iter().filter(|server| !server.is_loopback());
    let nameservers: BTreeSet<String> =
        servers.map(|server| IpNet::from(server).to_string()).collect();
    let source = own.map(|own| format!(" src {own}")).unwrap_or_default();
    Wanted {
        rules: policy(input, !captured.is_empty(), !nameservers.is_empty()).into_iter().collect(),
        captured,
        nameservers,
        source,
    }
}

/// Rules are asked in order; ours come when no other knew a way.
fn policy(input: &Input, captured: bool, nameservers: bool) -> Vec<String> {
    if !captured && !nameservers {
        return Vec::new();
    }
    let mark = input.mark;
    // Our own sockets are not redirected: for them there is no way, and they should hear so now.
    let mut rules =
        vec![format!("pref {FIRST_RULE} fwmark {mark:#x}/{mark:#x} iif lo unreachable")];
    if nameservers {
        for protocol in ["udp", "tcp"] {
            let pref = FIRST_RULE + 1;
            rules.push(format!(
                "pref {pref} iif lo ipproto {protocol} dport 53 lookup {NAMESERVERS}"
            ));
        }
    }
    if captured {
        for port in &input.exclude_ports {
            let pref = FIRST_RULE + 2;
            rules.push(format!("pref {pref} iif lo ipproto tcp dport {port} unreachable"));
        }
        let udp = (!input.udp.is_empty()).then_some("udp");
        for protocol in ["tcp"].into_iter().chain(udp) {
            let pref = FIRST_RULE + 3;
            rules.push(format!("pref {pref} iif lo ipproto {protocol} lookup {CAPTURED}"));
        }
    }
    rules
}

/// Interfaces that hold a default route, of either family, sorted.
///
/// # Errors
/// When `ip` cannot be run.
pub fn outward() -> Result<Vec<String>, CaptureError> {
    let mut interfaces = BTreeSet::new();
    for family in ["-4", "-6"] {
        // A kernel without IPv6 fails here: then none is of that family.
        let shown = run("ip", &[family, "route", "show", "default"], "")?;
        interfaces.extend(devices(&shown.stdout).map(str::to_owned));
    }
    Ok(interfaces.into_iter().collect())
}

/// The words after `dev`, also of next hops on lines of their own.
fn devices(shown: &str) -> impl Iterator<Item = &str> {
    let words = shown.split_whitespace();
    words.clone().zip(words.skip(1)).filter(|(word, _)| *word == "dev").map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_in_one_form() {
        let cases = [
            ("10.7.7.7 dev lo proto 109 scope link src 169.254.96.16", Some("10.7.7.7/32")),
            ("10.96.0.0/16 dev lo", Some("10.96.0.0/16")),
            ("throw 10.96.9.0/24 proto 109", Some("throw 10.96.9.0/24")),
            ("throw fd96::9:0/124 dev lo metric 1024", Some("throw fd96::9:0/124")),
            ("fd77::7 dev lo metric 1024 pref medium", Some("fd77::7/128")),
            ("", None),
            ("nonsense", None),
        ];
        for (shown, want) in cases {
            assert_eq!(destination(shown).as_deref(), want, "{shown}");
        }
    }

    #[test]
    fn what_is_excluded_gets_no_route() {
        let cases: [(&[&str], &[&str], &[&str]); 6] = [
            (&[], &[], &[]),
            (&[], &["10.0.0.0/8"], &[]),
            (&["10.96.0.0/16", "fd96::/112"], &[], &["10.96.0.0/16"]),
            (&["10.96.0.0/16"], &["10.96.9.0/24"], &["10.96.0.0/16", "throw 10.96.9.0/24"]),
            (&["10.96.0.0/16", "11.0.0.0/8"], &["10.0.0.0/8"], &["11.0.0.0/8", "throw 10.0.0.0/8"]),
            (&["0.0.0.0/0"], &[], &[]),
        ];
        for (include, exclude, want) in cases {
            let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
            let input = Input {
                port: 1,
                addresses: vec![],
                mark: 1,
                include: nets(include),
                exclude: nets(exclude),
                exclude_ports: vec![],
                dns: None,
                outward: vec![],
                node_ports: Default::default(),
                udp: vec![],
            };
            let wanted = wanted(&input, None, true);
            assert_eq!(wanted.captured.iter().collect::<Vec<_>>(), want, "{include:?} {exclude:?}");
            assert_eq!(wanted.rules.is_empty(), want.is_empty());
        }
    }

    #[test]
    fn interfaces_of_default_routes_are_found() {
        let cases = [
            ("", vec![]),
            ("default via 10.0.0.1 dev eth0 proto dhcp metric 100\n", vec!["eth0"]),
            (
                "default \n\tnexthop via 10.0.0.1 dev eth0 weight 1\n\tnexthop via 10.0.1.1 dev wlan0",
                vec!["eth0", "wlan0"],
            ),
            ("default dev ppp0 scope link", vec!["ppp0"]),
        ];
        for (shown, want) in cases {
            assert_eq!(devices(shown).collect::<Vec<_>>(), want, "{shown}");
        }
    }
}
