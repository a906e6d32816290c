//! SIGHUP: the configuration is read again; what can change under way does, the rest is named.

use edgemesh_core::mesh::Mesh;

use crate::config::{AgentConfig, Problem};

/// Reads the configuration once more, as at the start.
pub type Reread<'a> = dyn Fn() -> Result<AgentConfig, Vec<Problem>> + 'a;

/// One key of the configuration.
struct Key {
    name: &'static str,
    /// Its value, to be compared.
    value: fn(&AgentConfig) -> String,
    /// Takes the value over, where that needs no restart.
    take: Option<fn(&mut AgentConfig, &AgentConfig)>,
}

/// All keys, in the file's order.
const KEYS: &[Key] = &[
    fixed("node", |c| c.node.clone()),
    fixed("zone", |c| format!("{:?}", c.zone)),
    fixed("dataDir", |c| format!("{:?}", c.data_dir)),
    fixed("cloud", |c| format!("{:?}", c.cloud)),
    fixed("source", |c| format!("{:?}", c.source)),
    fixed("services", |c| format!("{:?}", c.services)),
    fixed("proxy.port", |c| c.proxy.port.to_string()),
    fixed("proxy.address", |c| format!("{:?}", c.proxy.address)),
    live(
        "proxy.nodePorts",
        |c| c.proxy.node_ports.to_string(),
        |to, from| to.proxy.node_ports = from.proxy.node_ports,
    ),
    fixed("proxy.intercept", |c| format!("{:?}", c.proxy.intercept)),
    fixed("proxy.serviceFilterMode", |c| c.proxy.service_filter_mode.to_string()),
    fixed("proxy.mark", |c| c.proxy.mark.to_string()),
    live(
        "proxy.include",
        |c| format!("{:?}", c.proxy.include),
        |to, from| to.proxy.include.clone_from(&from.proxy.include),
    ),
    live(
        "proxy.exclude",
        |c| format!("{:?}", c.proxy.exclude),
        |to, from| to.proxy.exclude.clone_from(&from.proxy.exclude),
    ),
    live(
        "proxy.excludePorts",
        |c| format!("{:?}", c.proxy.exclude_ports),
        |to, from| to.proxy.exclude_ports.clone_from(&from.proxy.exclude_ports),
    ),
    fixed("dns", |c| format!("{:?}", c.dns)),
    fixed("peer", |c| format!("{:?}", c.peer)),
    fixed("eventBus", |c| format!("{:?}", c.event_bus)),
    fixed("serviceBus", |c| format!("{:?}", c.service_bus)),
    fixed("metrics", |c| format!("{:?}", c.metrics)),
    fixed("admin", |c| format!("{:?}", c.admin)),
    live("accessLog", |c| c.access_log.to_string(), |to, from| to.access_log = from.access_log),
];

const fn fixed(name: &'static str, value: fn(&AgentConfig) -> String) -> Key {
    Key { name, value, take: None }
}

const fn live(
    name: &'static str,
    value: fn(&AgentConfig) -> String,
    take: fn(&mut AgentConfig, &AgentConfig),
) -> Key {
    Key { name, value, take: Some(take) }
}

/// What a reload did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reloaded {
    /// Keys in force with their new values.
    taken: Vec<&'static str>,
    /// Keys that wait for a restart.
    waiting: Vec<&'static str>,
}

/// Reads the configuration again and takes over what it can. A faulty one changes nothing.
pub(super) fn reload(config: &mut AgentConfig, reread: &Reread<'_>, mesh: &Mesh) {
    let fresh = match reread() {
        Ok(fresh) => fresh,
        Err(problems) => {
            for problem in &problems {
                tracing::error!("{problem}");
            }
            tracing::error!("the configuration has problems: all of it stays as it was");
            return;
        }
    };
    let Reloaded { taken, waiting } = take_over(config, &fresh);
    mesh.log_access(config.access_log);
    if taken.is_empty() && waiting.is_empty() {
        tracing::info!("configuration read again: nothing changed");
    }
    if !taken.is_empty() {
        tracing::info!(keys = taken.join(", "), "configuration read again: in force");
    }
    if !waiting.is_empty() {
        tracing::warn!(
            keys = waiting.join(", "),
            "configuration read again: these need a restart, or SIGUSR2, which keeps connections"
        );
    }
}

fn take_over(config: &mut AgentConfig, fresh: &AgentConfig) -> Reloaded {
    let mut reloaded = Reloaded::default();
    for Key { name, value, take } in KEYS {
        if value(config) == value(fresh) {
            continue;
        }
        match take {
            Some(take) => {
                take(config, fresh);
                reloaded.taken.push(name);
            }
            None => reloaded.waiting.push(name),
        }
    }
    reloaded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags, load};

    fn config(text: &str) -> AgentConfig {
        let text = format!("node: n\nsource: {{ manifests: /m }}\n{text}");
        load(&text, "agent.yaml", &Environment::default(), &Flags::default()).unwrap().config
    }

    #[test]
    fn what_can_change_does_and_the_rest_is_named() {
        let cases: &[(&str, &str, &[&str], &[&str])] = &[
            ("", "", &[], &[]),
            ("accessLog: off", "accessLog: 1/10", &["accessLog"], &[]),
            ("", "proxy: { exclude: [10.0.0.0/8] }", &["proxy.exclude"], &[]),
            (
                "",
                "proxy: { include: [10.9.0.0/16], excludePorts: [22] }",
                &["proxy.include", "proxy.excludePorts"],
                &[],
            ),
            ("", "zone: z\nproxy: { port: 15002 }", &[], &["zone", "proxy.port"]),
            ("", "dns: { domain: mesh.local }\naccessLog: off", &["accessLog"], &["dns"]),
            ("", "cloud: { servers: [c:1] }\npeer: { path: hub }", &[], &["cloud", "peer"]),
            (
                "cloud: { servers: [c:1] }",
                "cloud: { servers: [c:1], select: { zones: [z] } }",
                &[],
                &["cloud"],
            ),
        ];
        for (before, after, taken, waiting) in cases {
            let (mut running, fresh) = (config(before), config(after));
            let reloaded = take_over(&mut running, &fresh);
            assert_eq!((&*reloaded.taken, &*reloaded.waiting), (*taken, *waiting), "{after}");
            let again = take_over(&mut running, &fresh);
            assert!(again.taken.is_empty(), "{after}: taken twice");
        }
    }

    /// A key that nobody compares would be ignored in silence.
    #[test]
    fn every_part_of_the_configuration_has_its_keys() {
        let AgentConfig {
            node: _,
            zone: _,
            data_dir: _,
            cloud: _,
            source: _,
            services: _,
            proxy,
            dns: _,
            peer: _,
            event_bus: _,
            service_bus: _,
            metrics: _,
            admin: _,
            access_log: _,
        } = config("");
        let edgemesh_core::config::Proxy {
            port: _,
            address: _,
            node_ports: _,
            intercept: _,
            include: _,
            exclude: _,
            exclude_ports: _,
            service_filter_mode: _,
            mark: _,
        } = proxy;
        assert_eq!(KEYS.len(), 22, "a new field above needs its line in KEYS");
    }
}
