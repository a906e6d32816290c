//! The scenes: one function a feature, in the order in which they are played.

mod depth;
mod life;
mod policy;
mod traffic;

use crate::demo::report::Row;
use crate::demo::stage::Stage;
use crate::demo::world::Place;
use crate::say;

/// A scene shows one feature and says so in one row or more.
type Scene = fn(&mut Stage<'_>) -> Vec<Row>;

/// What is announced, and what is played.
pub(crate) const SCENES: &[(&str, Scene)] = &[
    ("starting the agent", life::start),
    ("names", traffic::names),
    ("HTTP/1.1 by name", traffic::http),
    ("IPv6", traffic::ipv6),
    ("gRPC", traffic::grpc),
    ("a headless Service", traffic::headless),
    ("redis", traffic::redis),
    ("a server that speaks first", traffic::server_first),
    ("TLS", traffic::tls),
    ("the explicit proxy", traffic::explicit),
    ("a load", traffic::load),
    ("a limit", policy::limit),
    ("a failing Backend", policy::breaker),
    ("a split by a Route", depth::split),
    ("keys", depth::keys),
    ("a changed manifest", policy::live),
    ("a new agent", depth::renewed),
    ("kill -9 of the agent", life::killed),
    ("a cold restart without manifests", life::cold),
    ("a graceful stop", life::stop),
];

/// Why capture is not shown.
const NO_WALLS: &str = "no namespaces here";

/// Plays all of them.
pub(crate) fn play(stage: &mut Stage<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, (name, scene)) in SCENES.iter().enumerate() {
        say::progress(format_args!("{:2}/{} {name}", index + 1, SCENES.len()));
        for row in scene(stage) {
            say::progress(format_args!("      {}: {}", row.verdict.text(), row.measured));
            rows.push(row);
        }
        if index == 0 && stage.agent.is_none() {
            break; // what could be shown without an agent is that there is none
        }
    }
    rows
}

/// Where a client is, for people.
const fn at(place: Place) -> &'static str {
    match place {
        Place::Node => "on the node",
        Place::Client => "in a pod",
        Place::Apps => "in the serving pod",
    }
}

/// One row for a process of the node, one for a pod; one that it is not shown without walls.
fn from_both(
    stage: &Stage<'_>,
    what: &'static str,
    client: &str,
    to: &str,
    call: impl Fn(Place) -> anyhow::Result<String>,
) -> Vec<Row> {
    if !stage.world.walls {
        return vec![Row::not_shown(what, format!("{client} → {to}"), NO_WALLS)];
    }
    let row = |place| Row::new(what, format!("{client} {} → {to}", at(place)), call(place));
    [Place::Node, Place::Client].map(row).into()
}
