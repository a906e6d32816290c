//! Checks of names: where questions go, and what comes back.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use edgemesh_core::config::DnsIntercept;
use edgemesh_core::dns::resolv::nameservers;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};

use crate::api::ServiceView;
use crate::config::AgentConfig;
use crate::doctor::facts::Facts;
use crate::doctor::report::{Finding, bad, ok, or_ok, warn};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where name servers listen.
const PORT: u16 = 53;

/// Carries a question to a name server, and its answer back.
type Way = fn(SocketAddr, &[u8]) -> io::Result<Vec<u8>>;

/// What a name server said of a Service.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) server: SocketAddr,
    /// `UDP` or `TCP`.
    pub(super) protocol: &'static str,
    pub(super) name: String,
    /// The Service's own addresses.
    pub(super) want: Vec<IpAddr>,
    pub(super) got: Result<Vec<IpAddr>, String>,
}

/// Where this machine asks for names, and whether that comes to us.
pub(super) fn resolver(facts: &Facts) -> Vec<Finding> {
    let servers = nameservers(&facts.resolv, &[]);
    if servers.is_empty() {
        return vec![warn(
            "/etc/resolv.conf names no name server",
            "add `nameserver ADDRESS` with one that exists",
        )];
    }
    let stub = servers.iter().find(|server| server.is_loopback());
    let mut findings: Vec<_> = stub.map(|stub| stub_finding(*stub)).into_iter().collect();
    if let Some(input) = facts.kernel.input.as_ref().filter(|_| intercepts(facts)) {
        let ours = |v4| input.nameservers(v4).map(|(_, servers)| servers).unwrap_or_default();
        let (v4, v6) = (ours(true), ours(false));
        let own = facts.own();
        let missed =
            servers.iter().filter(|s| !v4.contains(s) && !v6.contains(s) && !own.contains(s));
        findings.extend(missed.map(|server| {
            warn(
                format!(
                    "port 53 of the name server {server} is not captured: it knows no mesh names"
                ),
                "take it out of `proxy.exclude`, and 53 out of `proxy.excludePorts`",
            )
        }));
    }
    let all: Vec<_> = servers.iter().map(ToString::to_string).collect();
    let how = if intercepts(facts) { "captured" } else { "not captured, as configured" };
    or_ok(findings, format!("{}: {how}", all.join(", ")))
}

fn stub_finding(stub: IpAddr) -> Finding {
    warn(
        format!(
            "/etc/resolv.conf points to the stub {stub}: this host is served, but a pod that gets \
             a copy of that file asks its own loopback"
        ),
        "kubelet: resolvConf: /run/systemd/resolve/resolv.conf",
    )
}

fn intercepts(facts: &Facts) -> bool {
    facts.captures() && facts.told().is_none_or(|c| c.dns.intercept != DnsIntercept::Off)
}

/// Whether mesh names are answered, by UDP and by TCP.
pub(super) fn answers(facts: &Facts) -> Vec<Finding> {
    let Some(first) = facts.answers.first() else {
        return ok("not asked: no agent answers, or it knows no Service");
    };
    let findings = facts.answers.iter().filter_map(|answer| {
        let asked = format!("{} of {} by {}", answer.name, answer.server, answer.protocol);
        match &answer.got {
            Err(error) => Some(bad(
                format!("asked for {asked}: {error}"),
                "see the lines on chains, resolver and ports; `dig` shows the same",
            )),
            Ok(got) if !got.iter().any(|ip| answer.want.contains(ip)) => Some(bad(
                format!("asked for {asked}: {got:?}, which is not the Service's {:?}", answer.want),
                "another name server answers: see the line on the resolver",
            )),
            Ok(_) => None,
        }
    });
    or_ok(findings.collect(), format!("{} by UDP and TCP, asked of {}", first.name, first.server))
}

/// Asks for the first Service where this machine's programs would ask.
pub(super) fn ask(config: &AgentConfig, services: &[ServiceView], resolv: &str) -> Vec<Answer> {
    let captured = crate::agent::needs_guard(config) && config.dns.intercept != DnsIntercept::Off;
    let first = nameservers(resolv, &[]).first().map(|server| SocketAddr::new(*server, PORT));
    let server = first.filter(|_| captured).or_else(|| config.dns.listen.first().copied());
    let addresses = |service: &ServiceView| -> Vec<IpAddr> {
        let all = service.addresses.iter().chain(&service.virtual_addresses);
        all.filter_map(|address| address.parse().ok()).collect()
    };
    let service = services.iter().find(|service| !addresses(service).is_empty());
    let Some((server, service)) = server.zip(service) else { return Vec::new() };
    let name = format!("{}.{}.svc.{}", service.name, service.namespace, config.dns.domain);
    let want = addresses(service);
    let v4 = want.iter().any(IpAddr::is_ipv4);
    let ways: [(&str, Way); 2] = [("UDP", by_udp), ("TCP", by_tcp)];
    let asked = ways.into_iter().map(|(protocol, way)| {
        let got = question(&name, v4).and_then(|question| {
            let reply = way(server, &question).map_err(|error| error.to_string())?;
            read(&reply)
        });
        Answer { server, protocol, name: name.clone(), want: want.clone(), got }
    });
    asked.collect()
}

fn question(name: &str, v4: bool) -> Result<Vec<u8>, String> {
    let name = Name::new(name).map_err(|error| error.to_string())?;
    let kind = if v4 { TYPE::A } else { TYPE::AAAA };
    let mut packet = Packet::new_query(0x6d65);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(|error| error.to_string())
}

fn by_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut reply = vec![0; 4096];
    let length = socket.recv(&mut reply)?;
    reply.truncate(length);
    Ok(reply)
}

fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn read(reply: &[u8]) -> Result<Vec<IpAddr>, String> {
    let packet = Packet::parse(reply).map_err(|error| error.to_string())?;
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
        RData::AAAA(a) => Some(IpAddr::V6(Ipv6Addr::from(a.address))),
        _ => None,
    });
    match addresses.collect::<Vec<_>>() {
        none if none.is_empty() => Err(format!("{:?}, no address", packet.rcode())),
        some => Ok(some),
    }
}
