//! Reads the lines of the plan tables into records; `README.md` beside this file has the format.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;
use std::time::Duration;

use edgemesh_core::snapshot::Host;
use edgemesh_proto::record::{
    Agent, AllowedCaller, Backend, BalancePolicy, Body, BreakerPolicy, ConnectionCaps, HashKey,
    Kind, LimitBy, Locality, NamedPort, Node, NodeName, Policy, PolicyOrigin, RateLimit, Record,
    Route, RouteBackend, RouteEdits, RouteMatch, RouteParent, RoutePath, RouteRule, RouteTarget,
    Service, ServiceName, ServicePort, Slice, SlicePort, SuccessRate, TargetPort, Transport,
    Workload,
};

/// The words after a line's verb, taken one by one.
pub(crate) struct Words<'a>(pub(crate) Vec<&'a str>);

type Read<T> = Result<T, String>;

impl<'a> Words<'a> {
    /// The next word that is no option.
    pub(crate) fn next(&mut self, what: &str) -> Read<&'a str> {
        if self.0.is_empty() { Err(format!("{what} is missing")) } else { Ok(self.0.remove(0)) }
    }

    /// The value of `name=value`, wherever it stands.
    pub(crate) fn option(&mut self, name: &str) -> Option<&'a str> {
        let value = |word: &&'a str| word.strip_prefix(name)?.strip_prefix('=');
        let at = self.0.iter().position(|word| value(word).is_some())?;
        value(&self.0.remove(at))
    }

    /// Whether a word is there, wherever it stands.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|word| *word == name);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// Nothing may be left over, or a slip of the pen would test nothing.
    pub(crate) fn end(self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(format!("not understood: {}", self.0.join(" ")))
        }
    }
}

/// The record that a line describes.
pub(crate) fn record(verb: &str, mut words: Words<'_>) -> Read<Record> {
    let (namespace, name) = match verb {
        "node" => ("".into(), words.next("a name")?.into()),
        _ => {
            let ServiceName { namespace, name } = name(words.next("a name")?)?;
            (namespace, name)
        }
    };
    let body = match verb {
        "node" => {
            let zone = words.option("zone").map(Into::into);
            let addresses = words.option("at").map_or(Ok(Vec::new()), addresses)?;
            let agent = words.flag("agent").then(Agent::default);
            let via_cloud = words.flag("viaCloud");
            Body::Node(Node { zone, addresses, agent, via_cloud, ..Node::default() })
        }
        "service" => Body::Service(service(&mut words)?),
        "slice" => Body::Slice(slice(&mut words)?),
        "workload" => Body::Workload(workload(&mut words)?),
        "policy" => Body::Policy(policy(&mut words)?),
        "route" => Body::Route(route(&mut words)?),
        _ => return Err(format!("no such line: {verb}")),
    };
    words.end()?;
    Ok(Record { namespace, name, body })
}

/// `namespace/name`.
pub(crate) fn name(word: &str) -> Read<ServiceName> {
    let (namespace, name) = word.split_once('/').ok_or_else(|| format!("{word}: NS/NAME"))?;
    Ok(ServiceName::new(namespace, name))
}

/// The kind that a word names.
pub(crate) fn kind(word: &str) -> Read<Kind> {
    Kind::from_name(word).ok_or_else(|| format!("{word}: no kind of record"))
}

/// Addresses with commas, or `-`.
pub(crate) fn addresses(word: &str) -> Read<Vec<IpAddr>> {
    if word == "-" { Ok(Vec::new()) } else { word.split(',').map(address).collect() }
}

/// `HOSTNAME=ADDRESSES`.
pub(crate) fn host(word: &str) -> Read<Host> {
    let (name, at) = word.split_once('=').ok_or_else(|| format!("{word}: HOSTNAME=ADDRESSES"))?;
    Ok(Host { name: name.into(), addresses: addresses(at)? })
}

/// One address.
pub(crate) fn address(word: &str) -> Read<IpAddr> {
    parse(word)
}

/// `100ms` or `2s`.
pub(crate) fn time(word: &str) -> Read<Duration> {
    match word.strip_suffix("ms") {
        Some(ms) => parse(ms).map(Duration::from_millis),
        None => parse(word.strip_suffix('s').ok_or_else(|| format!("{word}: no time"))?)
            .map(Duration::from_secs),
    }
}

fn service(words: &mut Words<'_>) -> Read<Service> {
    let cluster_ips = addresses(words.next("addresses")?)?;
    let ports = words.next("ports")?.split(',').map(service_port).collect::<Read<_>>()?;
    Ok(Service {
        ports,
        headless: cluster_ips.is_empty(),
        cluster_ips,
        selector: words.option("selector").map_or_else(|| Ok(BTreeMap::new()), labels)?,
        publish_not_ready: words.flag("publishNotReady"),
        external_name: words.option("externalName").map(Into::into),
        proxy_protocol: words.flag("proxyProtocol"),
        affinity: words.option("affinity").map(time).transpose()?,
        ..Service::default()
    })
}

fn service_port(word: &str) -> Read<ServicePort> {
    let (word, transport) = transport(word);
    let (front, target) = match word.split_once('>') {
        None => (word, TargetPort::Same),
        Some((front, target)) => {
            let number = target.parse().map(TargetPort::Number);
            (front, number.unwrap_or_else(|_| TargetPort::Name(target.into())))
        }
    };
    let (name, port) = named(front)?;
    Ok(ServicePort { name, port, target, transport, app_protocol: None, node_port: None })
}

fn slice(words: &mut Words<'_>) -> Read<Slice> {
    let service = words.option("for").ok_or("for=SERVICE is missing")?.into();
    let port = |word| {
        let (word, transport) = transport(word);
        let (name, port) = named(word)?;
        Ok(SlicePort { name, port, transport, app_protocol: None })
    };
    let ports = words.option("ports").ok_or("ports= is missing")?;
    let ports = ports.split(',').map(port).collect::<Read<_>>()?;
    let backends = words.0.drain(..).map(backend).collect::<Read<_>>()?;
    Ok(Slice { service, ports, backends })
}

fn backend(word: &str) -> Read<Backend> {
    let (word, state) = word.split_once('!').unwrap_or((word, "ready"));
    let (word, weight) = split_off(word, '*');
    let (word, workload) = split_off(word, '=');
    let (ready, serving, terminating) = match state {
        "ready" => (true, true, false),
        "notReady" => (false, false, false),
        "leaving" => (false, true, true),
        "gone" => (false, false, true),
        _ => return Err(format!("{state}: no state of a Backend")),
    };
    let (word, hostname) = split_off(word, '~');
    let (word, zone) = split_off(word, '/');
    let (word, node) = split_off(word, '@');
    Ok(Backend {
        addresses: word.split('+').map(parse).collect::<Read<_>>()?,
        ready,
        serving,
        terminating,
        hostname: hostname.map(Into::into),
        node: node.map(|node| NodeName(node.into())),
        zone: zone.map(Into::into),
        workload: workload.map(Into::into),
        weight: weight.map(parse).transpose()?,
    })
}

fn workload(words: &mut Words<'_>) -> Read<Workload> {
    let backend = backend(words.next("an address")?)?;
    let port = |word: &str| named(word).map(|(name, port)| NamedPort { name, port });
    let ports = words.option("ports").map(|ports| ports.split(',').map(port).collect());
    Ok(Workload {
        addresses: backend.addresses,
        node: backend.node,
        labels: words.option("labels").map_or_else(|| Ok(BTreeMap::new()), labels)?,
        // A Pod is told to end long before it is not ready.
        ready: backend.serving,
        owner: words.option("owner").unwrap_or_default().into(),
        terminating: backend.terminating,
        ports: ports.unwrap_or(Ok(Vec::new()))?,
    })
}

fn policy(words: &mut Words<'_>) -> Read<Policy> {
    let service = words.option("for").ok_or("for=SERVICE is missing")?.into();
    let mut policy = Policy { service, ..Policy::default() };
    policy.balance = match words.option("balance") {
        None | Some("roundRobin") => BalancePolicy::RoundRobin,
        Some("random") => BalancePolicy::Random,
        Some("leastRequest") => BalancePolicy::LeastRequest,
        Some("peakEwma") => BalancePolicy::PeakEwma,
        Some("consistentHash") => BalancePolicy::ConsistentHash,
        Some(other) => return Err(format!("balance={other}")),
    };
    policy.hash_key = match words.option("by").map(|by| by.split_once(':').unwrap_or((by, ""))) {
        None | Some(("sourceIp", "")) => HashKey::SourceIp,
        Some(("header", name)) => HashKey::Header(name.into()),
        Some(("cookie", name)) => HashKey::Cookie(name.into()),
        Some(("query", name)) => HashKey::Query(name.into()),
        Some((other, _)) => return Err(format!("by={other}")),
    };
    policy.locality = match words.option("locality") {
        None | Some("preferNode") => Locality::PreferNode,
        Some("none") => Locality::None,
        Some("onlyNode") => Locality::OnlyNode,
        Some(other) => return Err(format!("locality={other}")),
    };
    policy.origin = match words.option("origin") {
        None => PolicyOrigin::TrafficPolicy,
        Some("DestinationRule") => PolicyOrigin::DestinationRule,
        Some(other) => return Err(format!("origin={other}")),
    };
    policy.created = words.option("created").map_or(Ok(0), parse)?;
    policy.client_limit = words.option("client").map(limit).transpose()?;
    policy.server_limit = words.option("server").map(limit).transpose()?;
    policy.breaker = words.option("breaker").map(breaker).transpose()?;
    policy.allow = words.option("allow").map(allow).transpose()?;
    let cap = |cap: Option<&str>| cap.map(parse).transpose();
    let (max, max_requests) = (cap(words.option("max"))?, cap(words.option("maxRequests"))?);
    if let Some(attempts) = words.option("retries") {
        policy.retries.attempts = parse(attempts)?;
    }
    policy.retries.on_reset = words.flag("onReset");
    policy.retries.on_503 = words.flag("on503");
    policy.connect_timeout = words.option("connect").map(time).transpose()?;
    policy.request_timeout = words.option("request").map(time).transpose()?;
    policy.connections =
        max.or(max_requests).map(|_: NonZeroU32| ConnectionCaps { max, max_requests });
    Ok(policy)
}

/// One rule for every request, or for those of `path=`.
fn route(words: &mut Words<'_>) -> Read<Route> {
    let parent = name(words.option("for").ok_or("for=NS/SERVICE is missing")?)?;
    let target = name(words.option("to").ok_or("to=NS/SERVICE is missing")?)?;
    let path = words.option("path").map(|path| RoutePath::Prefix(path.into()));
    let ServiceName { namespace, name: service } = parent;
    let parent = RouteParent { namespace, service, port: None, section: "".into() };
    let ServiceName { namespace, name: service } = target;
    let target = Ok(RouteTarget { namespace, service, port: parse("80")? });
    let backend = RouteBackend { target, weight: 1, edits: RouteEdits::default() };
    let matched = RouteMatch { path: path.unwrap_or_default(), ..RouteMatch::default() };
    Ok(Route {
        created: words.option("created").map_or(Ok(0), parse)?,
        parents: vec![parent],
        rules: vec![RouteRule {
            matches: vec![matched],
            backends: vec![backend],
            ..RouteRule::default()
        }],
    })
}

fn limit(word: &str) -> Read<RateLimit> {
    let (qps, burst) = word.split_once('/').ok_or_else(|| format!("{word}: QPS/BURST[/BY]"))?;
    let (burst, by) = split_off(burst, '/');
    let by = match by {
        None => LimitBy::Service,
        Some("workload") => LimitBy::Workload,
        Some("namespace") => LimitBy::Namespace,
        Some("ip") => LimitBy::Ip,
        Some(other) => return Err(format!("{other}: workload, namespace or ip")),
    };
    Ok(RateLimit { qps: parse::<NonZeroU32>(qps)?, burst: parse(burst)?, by })
}

fn allow(word: &str) -> Read<Vec<AllowedCaller>> {
    let entry = |word: &str| {
        let mut caller = AllowedCaller::default();
        for part in word.split('+') {
            let (key, value) = part.split_once(':').ok_or_else(|| format!("{part}: K:V"))?;
            match key {
                "namespace" => caller.namespace = Some(value.into()),
                "service" => caller.service = Some(value.into()),
                "node" => caller.node = Some(NodeName(value.into())),
                _ => return Err(format!("{key}: namespace, service or node")),
            }
        }
        Ok(caller)
    };
    if word == "-" { Ok(Vec::new()) } else { word.split(',').map(entry).collect() }
}

fn breaker(word: &str) -> Read<BreakerPolicy> {
    let parts: Vec<_> = word.split(',').collect();
    let ([failures, first, longest, percent] | [failures, first, longest, percent, _]) = parts[..]
    else {
        return Err(format!("{word}: FAILURES,FIRST,LONGEST,PERCENT[,SHARE/WINDOW/CALLS]"));
    };
    Ok(BreakerPolicy {
        consecutive_failures: parse(failures)?,
        eject_for: time(first)?,
        max_eject_for: time(longest)?,
        max_ejected_percent: parse(percent)?,
        success_rate: parts.get(4).map(|word| success_rate(word)).transpose()?,
    })
}

fn success_rate(word: &str) -> Read<SuccessRate> {
    let parts: Vec<_> = word.split('/').collect();
    let [percent, window, calls] = parts[..] else {
        return Err(format!("{word}: SHARE/WINDOW/CALLS"));
    };
    Ok(SuccessRate { percent: parse(percent)?, window: time(window)?, min_requests: parse(calls)? })
}

fn labels(word: &str) -> Read<BTreeMap<Box<str>, Box<str>>> {
    let pair = |word: &str| {
        let (key, value) = word.split_once(':').ok_or_else(|| format!("{word}: K:V"))?;
        Ok((key.into(), value.into()))
    };
    word.split(',').map(pair).collect()
}

fn named(word: &str) -> Read<(Box<str>, NonZeroU16)> {
    let (name, port) = word.split_once(':').unwrap_or(("", word));
    Ok((name.into(), parse(port)?))
}

fn transport(word: &str) -> (&str, Transport) {
    word.strip_suffix("/udp").map_or((word, Transport::Tcp), |word| (word, Transport::Udp))
}

fn split_off(word: &str, mark: char) -> (&str, Option<&str>) {
    word.split_once(mark).map_or((word, None), |(word, rest)| (word, Some(rest)))
}

fn parse<T: FromStr>(word: &str) -> Read<T> {
    word.parse().map_err(|_| format!("`{word}` does not fit here"))
}
