//! Scenes of the four ways: each with the path that its calls took, by the access logs of both ends.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use anyhow::ensure;

use crate::demo::children::ask;
use crate::demo::clients;
use crate::demo::clients::Tally;
use crate::demo::clients::Way;
use crate::demo::clock::now;
use crate::demo::clock::until;
use crate::demo::curl;
use crate::demo::grpc;
use crate::demo::load::percentile;
use crate::demo::report::Row;
use crate::demo::servers::BANNER;
use crate::demo::sites::Sites;
use crate::demo::sites::cloud::INGRESS;
use crate::demo::sites::journal::Journal;
use crate::demo::sites::journal::ensure_all;
use crate::demo::sites::millis;
use crate::demo::sites::network::A1;
use crate::demo::sites::network::B1;
use crate::demo::sites::network::B2;
use crate::demo::sites::network::C1;
use crate::demo::sites::network::C2;
use crate::demo::sites::network::CLOUD;
use crate::demo::sites::network::Machine;
use crate::demo::sites::traffic::one;

/// Calls of a way.
const CALLS: u32 = 30;
/// Connections to servers of bytes.
const CONNECTIONS: u32 = 10;
/// How long a node behind NAT may take to dial back, in a debug build on a busy machine.
const DIALS_BACK_WITHIN: Duration = Duration::from_secs(3);
const LOCAL: &str = "local";
const DIRECT: &str = "direct";
const HUB: &str = "hub";

/// Who calls what, and what the access logs must say of it.
#[derive(Clone, Copy)]
struct Trip {
    from: Machine,
    service: &'static str,
    via: &'static str,
    backend: Machine,
}

impl Trip {
    /// Whose log has the other end: who has no agent is called by the cloud.
    const fn other(&self) -> &'static str {
        if self.backend.agent { self.backend.name } else { CLOUD.name }
    }

    fn authority(&self, port: u16) -> String {
        format!("{}.default:{port}", self.service)
    }

    /// Makes the calls; which path all of them took, and how long one takes.
    fn go(
        &self,
        sites: &Sites<'_>,
        calls: impl FnOnce() -> anyhow::Result<Tally>,
    ) -> anyhow::Result<(String, String)> {
        let journal = |machine| Journal::new(sites.world, machine, self.service);
        let (here, there) = (journal(self.from.name), journal(self.other()));
        let tally = calls()?;
        ensure!(tally.failed() == 0, "{}", tally.text());
        let flows = here.wait(usize::try_from(tally.answered())?)?;
        ensure_all(&flows, self.via, &there)?;
        Ok((self.path(sites)?, latency(&tally)))
    }

    /// The same for HTTP, by curl where it is installed.
    fn web(&self, sites: &Sites<'_>) -> anyhow::Result<(String, String)> {
        self.go(sites, || {
            let way = sites.way(self.from);
            let tally = match &sites.curl {
                Some(curl) => {
                    let url = format!("http://{}.default/", self.service);
                    curl::calls(sites.world, curl, way, &url, CALLS, &[])?
                }
                None => clients::calls(sites.world, way, &self.authority(80), CALLS),
            };
            answered(&tally, self.backend)?;
            Ok(tally)
        })
    }

    /// The way with its reason, as `status` has it.
    fn path(&self, sites: &Sites<'_>) -> anyhow::Result<String> {
        if self.via == LOCAL || !self.backend.agent {
            return Ok(self.via.to_owned());
        }
        let links = sites.agent(self.from)?.status(sites.world)?.links;
        let reason = links.to(self.backend.name).map(|peer| peer.reason.clone());
        Ok(format!("{}: {}", self.via, reason.unwrap_or_default()))
    }
}

/// All calls were answered, by this machine.
fn answered(tally: &Tally, backend: Machine) -> anyhow::Result<()> {
    let only = tally.answers.keys().all(|who| who == backend.name);
    ensure!(tally.failed() == 0 && tally.answered() > 0 && only, "{}", tally.text());
    Ok(())
}

fn latency(tally: &Tally) -> String {
    let mut micros = tally.micros.clone();
    micros.sort_unstable();
    let half = percentile(&micros, 50).unwrap_or_default();
    format!("{}, p50 of {}", millis(half), micros.len())
}

/// A Backend, and the client that asks it over HTTP.
fn web_backend(sites: &Sites<'_>, backend: &str) -> String {
    let client = if sites.curl.is_some() { "curl" } else { "built-in client" };
    format!("{backend}, by {client}")
}

pub(super) fn local(sites: &mut Sites<'_>) -> Vec<Row> {
    let trip = Trip { from: A1, service: "web-a1", via: LOCAL, backend: A1 };
    vec![Row::way("in a node", web_backend(sites, "a1"), trip.web(sites))]
}

pub(super) fn direct(sites: &mut Sites<'_>) -> Vec<Row> {
    let trip = |service| Trip { from: A1, service, via: DIRECT, backend: B1 };
    let web = trip("web-b1").web(sites);
    vec![
        Row::way("edge → edge", web_backend(sites, "b1"), web),
        Row::way("edge → edge, gRPC", "b1, by gRPC client", who(sites, &trip("echo-b1"))),
        Row::way(
            "edge → edge, server first",
            "b1, a greeter",
            greetings(sites, &trip("greeter-b1")),
        ),
        redis(sites, &trip("redis-b1")),
    ]
}

fn who(sites: &Sites<'_>, trip: &Trip) -> anyhow::Result<(String, String)> {
    trip.go(sites, || {
        let authority = trip.authority(50051);
        let stream = clients::connect_async(sites.world, trip.from.place(), &authority)?;
        let tally = grpc::calls(sites.world, stream, &authority, CALLS)?;
        answered(&tally, trip.backend)?;
        Ok(tally)
    })
}

fn greetings(sites: &Sites<'_>, trip: &Trip) -> anyhow::Result<(String, String)> {
    trip.go(sites, || {
        let mut tally = Tally::default();
        for _ in 0..CONNECTIONS {
            let (from, authority) = (trip.from.place(), trip.authority(3306));
            let (said, took) = clients::greeting(sites.world, from, &authority)?;
            ensure!(said == BANNER.as_bytes(), "not its greeting: {said:?}");
            tally.took(took);
            tally.note(Ok(trip.backend.name.into()));
        }
        Ok(tally)
    })
}

fn redis(sites: &mut Sites<'_>, trip: &Trip) -> Row {
    let (what, backend, world) = ("edge → edge, redis", "b1, by redis-cli", sites.world);
    let Some(redis) = &mut sites.redis else {
        return Row::way_not_shown(what, backend, "redis is not installed");
    };
    let (ready, client) = (redis.wait(world), redis.client.clone());
    let say = |words: &[&str]| {
        let mut command = Command::new(&client);
        command.args(["-h", &format!("{}.default", trip.service)]).args(words);
        Ok(world.within(trip.from.place(), || ask(&mut command))?.trim().to_owned())
    };
    let talk = || {
        let mut tally = Tally::default();
        tally.note(say(&["SET", "from", trip.from.name]));
        tally.note(say(&["GET", "from"]));
        ensure!(tally.answers.contains_key(trip.from.name), "{}", tally.text());
        for _ in 0..CONNECTIONS {
            let (from, authority) = (trip.from.place(), trip.authority(6379));
            let (said, took) = clients::ping(world, from, &authority)?;
            tally.took(took);
            tally.note(Ok(said));
        }
        Ok(tally)
    };
    Row::way(what, backend, ready.and_then(|()| trip.go(sites, talk)))
}

pub(super) fn nat(sites: &mut Sites<'_>) -> Vec<Row> {
    let trip = Trip { from: B1, service: "web-a1", via: DIRECT, backend: A1 };
    let backend = web_backend(sites, "a1");
    vec![
        Row::way(
            "edge → edge behind NAT, at first",
            "a1, by built-in client",
            at_first(sites, &trip),
        ),
        Row::way("edge → edge behind NAT, then", backend, trip.web(sites)),
    ]
}

/// Calls until one takes the direct way. Those before took the hub; there may be none, where the
/// other end dials back while the first call still looks for a way.
fn at_first(sites: &Sites<'_>, trip: &Trip) -> anyhow::Result<(String, String)> {
    let here = Journal::new(sites.world, trip.from.name, trip.service);
    let there = Journal::new(sites.world, trip.other(), trip.service);
    let (begin, mut count) = (now(), 0);
    let (mut by_hub, mut direct) = (Tally::default(), Tally::default());
    let dialled = until(DIALS_BACK_WITHIN, || {
        let asked = now();
        let answer = one(sites.world, trip.from.place(), trip.service);
        count += 1;
        let flows = here.wait(count).ok()?;
        if flows.last()?.via != DIRECT {
            by_hub.timed(asked, answer);
            return None;
        }
        direct.timed(asked, answer);
        Some(asked - begin)
    });
    let failed = by_hub.failed() + direct.failed();
    ensure!(failed == 0, "by the hub: {}; direct: {}", by_hub.text(), direct.text());
    let after = dialled.context("it was never dialled back")?.as_millis();
    if by_hub.answered() == 0 {
        return Ok(("direct, dialled back at once".into(), latency(&direct)));
    }
    ensure_all(&here.flows()[..count - 1], HUB, &there)?;
    Ok((format!("hub; dialled back after {after} ms"), latency(&by_hub)))
}

pub(super) fn hub(sites: &mut Sites<'_>) -> Vec<Row> {
    let trip = Trip { from: A1, service: "web-b2", via: HUB, backend: B2 };
    vec![Row::way("edge → edge, neither can dial", web_backend(sites, "b2"), trip.web(sites))]
}

pub(super) fn to_cloud(sites: &mut Sites<'_>) -> Vec<Row> {
    let trip = Trip { from: B1, service: "web-c2", via: HUB, backend: C2 };
    vec![Row::way("edge → cloud", web_backend(sites, "c2, no agent"), trip.web(sites))]
}

pub(super) fn from_cloud(sites: &mut Sites<'_>) -> Vec<Row> {
    let trip = Trip { from: C1, service: "web-a1", via: DIRECT, backend: A1 };
    // As between edges: the hub, until the node behind NAT has dialled back.
    let outcome = at_first(sites, &trip).and_then(|_| trip.web(sites));
    let mut rows = vec![Row::way("cloud → edge, an agent", web_backend(sites, "a1"), outcome)];
    rows.extend(ingress(sites));
    rows
}

/// Clients on a machine of the cloud that know nothing of the mesh but the router's address.
fn ingress(sites: &Sites<'_>) -> Vec<Row> {
    let what =
        ["cloud → edge, ingress", "cloud → edge, ingress, CONNECT", "cloud → edge, ingress, gRPC"];
    let world = sites.world;
    let grpc = || {
        let stream = clients::connect_async(world, CLOUD.place(), INGRESS)?;
        grpc::calls(world, stream, "echo-b1.default:50051", CALLS)
    };
    let grpc = enters(sites, "echo-b1", B1, grpc);
    let grpc = Row::way(what[2], "b1, by gRPC client", grpc);
    let Some(curl) = &sites.curl else {
        let missing = |what| Row::way_not_shown(what, "a1, by curl", "curl is not installed");
        return vec![missing(what[0]), missing(what[1]), grpc];
    };
    let way = sites.way(CLOUD);
    let host = || {
        let url = format!("http://{INGRESS}/");
        curl::calls(world, curl, way, &url, CALLS, &["-H", "Host: web-a1.default"])
    };
    let connect = || {
        let way = Way { proxy: INGRESS.parse().ok(), ..way };
        curl::calls(world, curl, way, "http://web-a1.default/", CALLS, &["-p"])
    };
    vec![
        Row::way(what[0], "a1, by curl", enters(sites, "web-a1", A1, host)),
        Row::way(what[1], "a1, by curl -p", enters(sites, "web-a1", A1, connect)),
        grpc,
    ]
}

/// Calls through the router's ingress: the hub leads to whoever is linked to it.
fn enters(
    sites: &Sites<'_>,
    service: &'static str,
    backend: Machine,
    calls: impl FnOnce() -> anyhow::Result<Tally>,
) -> anyhow::Result<(String, String)> {
    let here = Journal::new(sites.world, CLOUD.name, service);
    let there = Journal::new(sites.world, backend.name, service);
    let tally = calls()?;
    answered(&tally, backend)?;
    // The hub has Links to all agents: its own way there is a direct one.
    ensure_all(&here.wait(1)?, DIRECT, &there)?;
    Ok(("router → hub".into(), latency(&tally)))
}
