//! The shape of a Snapshot as text: equal for equal records, whatever happened to get there.

use std::fmt;

use crate::snapshot::{Active, Candidate, Port, Service, Snapshot};

impl fmt::Display for Snapshot {
    /// Everything that decisions read, in a fixed order, except revision and live state: one line
    /// a Service, port, Backend and address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for service in &self.services {
            write!(f, "{service}")?;
        }
        for policy in self.policies.iter() {
            writeln!(f, "{policy:?}")?;
        }
        for route in self.routes.iter() {
            writeln!(f, "route {} {:?}", route.name, route.record)?;
        }
        for (address, who) in self.callers.listed() {
            writeln!(f, "caller {address} {who:?}")?;
        }
        let mut addresses: Vec<_> = self.index.by_address.iter().collect();
        addresses.sort_by_key(|(address, _)| **address);
        for ((ip, port), place) in addresses {
            let service = &self.services[place.service as usize];
            let host = host_name(service, place.host);
            writeln!(f, "address {ip} {port} -> {} {}{host}", service.name, place.port)?;
        }
        let mut node_ports: Vec<_> = self.index.by_node_port.iter().collect();
        node_ports.sort_by_key(|(port, _)| **port);
        for (port, place) in node_ports {
            let service = &self.services[place.service as usize];
            writeln!(f, "node port {port} -> {} {}", service.name, place.port)?;
        }
        let mut owners: Vec<_> = self.index.owners.iter().collect();
        owners.sort();
        for (ip, owner) in owners {
            let service = &self.services[owner.service as usize];
            writeln!(f, "owner {ip} -> {}{}", service.name, host_name(service, owner.host))?;
        }
        let mut names = Vec::new();
        for (namespace, of_namespace) in &self.index.by_name {
            names.extend(of_namespace.iter().map(|(name, slot)| (namespace, name, *slot)));
        }
        names.sort();
        for (namespace, name, slot) in names {
            writeln!(f, "name {namespace}/{name} -> {}", self.services[slot as usize].name)?;
        }
        Ok(())
    }
}

fn host_name(service: &Service, host: Option<u32>) -> String {
    host.map(|host| format!(" host {}", service.hosts[host as usize].name)).unwrap_or_default()
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_virtual { " virtual" } else { "" };
        writeln!(f, "service {}{kind} {:?} from {:?}", self.name, self.addresses, self.source)?;
        writeln!(
            f,
            "  external {:?} {:?} proxy protocol {}",
            self.external_name, self.external_ips, self.proxy_protocol
        )?;
        writeln!(f, "  policy {} affinity {:?}", self.policy, self.affinity)?;
        self.ports.iter().try_for_each(|port| write!(f, "{port}"))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  port {} {:?} {:?} {:?}",
            self.port, self.name, self.transport, self.declared
        )?;
        for (host, pools) in self.hosts.iter().enumerate() {
            for (pool, family) in pools.iter().zip(["IPv4", "IPv6"]) {
                let addresses: Vec<_> = pool.backends.iter().map(|b| b.address).collect();
                writeln!(f, "    host {host} {family} {addresses:?}")?;
            }
        }
        if let Some(routes) = &self.routes {
            let consumers = routes.consumers.iter().map(|(name, table)| (&**name, table));
            for (caller, table) in [("*", &routes.producer)].into_iter().chain(consumers) {
                for Candidate { matched, rule } in table {
                    let (text, route, index) = (&matched.text, &rule.route, rule.index);
                    writeln!(f, "    caller {caller}: {text} -> {route} rule {index}")?;
                }
            }
        }
        for (pool, family) in self.pools.iter().zip(["IPv4", "IPv6"]) {
            for backend in &pool.backends {
                let node = backend.node.as_ref().map_or("-", |node| &node.0);
                let zone = backend.zone.as_deref().unwrap_or("-");
                let workload = backend.workload.as_deref().unwrap_or("-");
                let (address, weight) = (backend.address, backend.weight);
                let (tier, reach) = (backend.tier.name(), backend.reach.name());
                writeln!(
                    f,
                    "    {family} {address} {tier} {reach} {node} {zone} {workload} {weight}"
                )?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("(defaults)");
        write!(f, "{:?} {name} {:?} {:?}", self.origin, self.balance, self.locality)?;
        write!(f, " by {:?}", self.hash_key)?;
        write!(f, " client {:?} server {:?}", self.client, self.server)?;
        write!(f, " breaker {:?} connect {:?}", self.breaker, self.connect_timeout)?;
        write!(f, " request {:?} retries {:?}", self.request_timeout, self.retries)?;
        write!(f, " allow {:?} connections {:?}", self.allow, self.connections)?;
        write!(f, " idle {:?} health {:?}", self.idle_timeout, self.health_check)
    }
}
