//! The scenes: one function a feature, in the order in which they are played.

mod depth;
mod life;
mod plug;
mod policy;
mod rules;
mod traffic;
mod ways;

use crate::demo::report::Row;
use crate::demo::sites::Sites;
use crate::demo::stage::Stage;
use crate::demo::world::Place;
use crate::say;

/// A scene shows one feature on its stage and says so in one row or more.
type Scene<S> = fn(&mut S) -> Vec<Row>;
/// Those of the first act, and of the second.
type Near = fn(&mut Stage<'_>) -> Vec<Row>;
type Far = fn(&mut Sites<'_>) -> Vec<Row>;

/// What is announced, and what is played.
pub(crate) const SCENES: &[(&str, Near)] = &[
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

/// The second act, between machines.
pub(crate) const FAR_SCENES: &[(&str, Far)] = &[
    ("nodes join", plug::join),
    ("inside a node", ways::local),
    ("edge → edge", ways::direct),
    ("edge → cloud", ways::to_cloud),
    ("edge → edge behind NAT", ways::nat),
    ("edge → edge where neither can dial", ways::hub),
    ("cloud → edge", ways::from_cloud),
    ("Rules", rules::all),
    ("the cloud's cable", plug::cable),
    ("kill -9 of the cloud", plug::killed),
    ("the cloud comes back", plug::back),
    ("a node is removed", plug::removed),
];

/// Why capture is not shown.
const NO_WALLS: &str = "no namespaces here";

/// Plays all of the first act.
pub(crate) fn play(stage: &mut Stage<'_>) -> Vec<Row> {
    play_all(SCENES, stage, |stage| stage.agent.is_some())
}

/// Plays all of the second act.
pub(crate) fn play_far(sites: &mut Sites<'_>) -> Vec<Row> {
    play_all(FAR_SCENES, sites, |sites| sites.cloud.is_some())
}

/// One row for each scene of the second act, where it cannot be played.
pub(crate) fn far_not_shown() -> Vec<Row> {
    FAR_SCENES
        .iter()
        .map(|(name, _)| Row::not_shown(name, "two sites and a cloud", NO_WALLS))
        .collect()
}

/// Plays scenes in their order; `can_go_on` is asked after the first.
fn play_all<S>(
    scenes: &[(&str, Scene<S>)],
    stage: &mut S,
    can_go_on: impl Fn(&S) -> bool,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, (name, scene)) in scenes.iter().enumerate() {
        say::progress(format_args!("{:2}/{} {name}", index + 1, scenes.len()));
        for row in scene(stage) {
            say::progress(format_args!("      {}: {}", row.verdict.text(), row.measured));
            rows.push(row);
        }
        if index == 0 && !can_go_on(stage) {
            break; // what could be shown is that there is nobody to show more
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
        Place::Machine(name) => name,
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
