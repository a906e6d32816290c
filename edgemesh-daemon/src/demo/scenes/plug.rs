//! Scenes of autonomy: nodes join, the cloud is cut off, killed and comes back, a node is removed.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use anyhow::ensure;

use crate::api::CloudState;
use crate::cli::Feature;
use crate::demo::clock::now;
use crate::demo::clock::pause;
use crate::demo::clock::until;
use crate::demo::report::Row;
use crate::demo::sites::LATE;
use crate::demo::sites::Sites;
use crate::demo::sites::cloud;
use crate::demo::sites::cloud::Cloud;
use crate::demo::sites::network;
use crate::demo::sites::network::A1;
use crate::demo::sites::network::A2;
use crate::demo::sites::network::B1;
use crate::demo::sites::network::B2;
use crate::demo::sites::traffic::Pair;
use crate::demo::sites::traffic::during;
use crate::demo::sites::traffic::one;
use crate::demo::world::Place;

/// How long nodes may take to join, in a debug build on a busy machine.
const JOINS_WITHIN: Duration = Duration::from_secs(20);
/// How long they may take to notice, to be back and in step, to hear of a removal.
const NOTICES_WITHIN: Duration = Duration::from_secs(5);
const CONVERGES_WITHIN: Duration = Duration::from_secs(10);
const REMOVED_WITHIN: Duration = Duration::from_secs(10);
/// How long the cloud is missed.
const CUT_FOR: Duration = Duration::from_secs(2);

/// How long the cable is out: longer than a client waits, so that what went that way is told to have
/// failed and not merely to have been slow.
const PULLED_FOR: Duration = Duration::from_secs(4);
/// A call that cannot succeed says so within this time.
const SAYS_SO_WITHIN: Duration = Duration::from_secs(2);
/// Calls that go on whatever happens to the cloud: both ways between sites, and in a node.
const GOING_ON: [Pair; 3] = [(A1, "web-b1"), (B1, "web-a1"), (A1, "web-a1")];
const CALLERS: &str = "a1 → b1, b1 → a1, a1 → a1: a new connection each";

pub(super) fn join(sites: &mut Sites<'_>) -> Vec<Row> {
    let what = "nodes join by a token";
    let how = "edgemesh token create; an agent on each machine";
    vec![Row::new(what, how, joined(sites))]
}

fn joined(sites: &mut Sites<'_>) -> anyhow::Result<String> {
    let world = sites.world;
    let (cloud, took) = Cloud::start(world)?;
    sites.cloud = Some(cloud);
    let token = cloud::token(world)?;
    let begin = now();
    for (name, setup) in &sites.setups {
        // Broken on purpose: a token of another cloud.
        let token = match world.lacks(Feature::Token) && *name == B2.name {
            true => cloud::other_token(world)?,
            false => token.clone(),
        };
        fs::write(world.folder.join(format!("{name}.token")), token)?;
        sites.agents.insert(name, setup.spawn(world)?);
    }
    let count = sites.agents.len();
    let mut waiting: BTreeSet<&str> = sites.agents.keys().copied().collect();
    let all = until(JOINS_WITHIN, || {
        waiting.retain(|name| !sites.is_in_step(name).unwrap_or(false));
        let refused = waiting.iter().filter(|name| is_refused(sites, name)).count();
        (refused == waiting.len()).then_some(())
    });
    let took_all = (now() - begin).as_millis();
    if let Some(name) = waiting.first() {
        let why = sites.uplink(name).ok().and_then(|link| link.last_error);
        bail!("{name} is not linked: {}", why.unwrap_or_else(|| "nobody knows why".into()));
    }
    all.context("they do not get in step")?;
    Ok(format!(
        "cloud ready after {} ms, {count} nodes in step after {took_all} ms",
        took.as_millis()
    ))
}

fn is_refused(sites: &Sites<'_>, name: &str) -> bool {
    sites.uplink(name).is_ok_and(|link| link.state == CloudState::Refused)
}

pub(super) fn cable(sites: &mut Sites<'_>) -> Vec<Row> {
    let mut rebooted = None;
    let (cut, counted) = during(sites.world, &GOING_ON, || {
        network::pull()?;
        let begin = now();
        rebooted = Some(reboot(sites));
        pause(PULLED_FOR.saturating_sub(now() - begin));
        network::plug()
    });
    let relayed = relays(sites);
    vec![
        Row::new("the cloud's cable is pulled, calls go on", CALLERS, cut.and(counted)),
        Row::new(
            "an agent reboots while cut off",
            "kill -9 of guard and agent on a2, started again",
            rebooted.unwrap_or_else(|| bail!("the cable could not be pulled")),
        ),
        Row::new("the cable is in again", "a1 → hub → b2", relayed),
    ]
}

/// Nothing but its data folder tells an agent what there is and who it is.
fn reboot(sites: &mut Sites<'_>) -> anyhow::Result<String> {
    let world = sites.world;
    let agent = sites.agents.remove(A2.name).context("no agent runs on a2")?;
    agent.power_cut()?;
    if world.lacks(Feature::Autonomy) {
        fs::remove_dir_all(world.folder.join(A2.name))?;
    }
    let setup = sites.setups.get(A2.name).context("a2 has no configuration")?;
    let (agent, took) = setup.start(world)?;
    sites.agents.insert(A2.name, agent);
    let begin = now();
    for (from, service, backend) in [(A2, "web-a2", A2), (A2, "web-b1", B1), (A1, "web-a2", A2)] {
        let who = one(world, from.place(), service)
            .with_context(|| format!("{} → {service}", from.name))?;
        ensure!(who == backend.name, "{} → {service}: {who} answers", from.name);
    }
    let took_calls = (now() - begin).as_millis();
    let took = took.as_millis();
    Ok(format!("ready after {took} ms; a2 → a2, a2 → b1, a1 → a2 in {took_calls} ms"))
}

/// What the hub carries works again.
fn relays(sites: &Sites<'_>) -> anyhow::Result<String> {
    let begin = now();
    let mut last = None;
    let answered = until(CONVERGES_WITHIN, || match one(sites.world, A1.place(), "web-b2") {
        Ok(_) => Some(()),
        Err(error) => {
            last = Some(error);
            None
        }
    });
    match (answered, last) {
        (Some(()), _) => Ok(format!("b2 answers after {} ms", (now() - begin).as_millis())),
        (None, Some(error)) => Err(error),
        (None, None) => bail!("no answer"),
    }
}

pub(super) fn killed(sites: &mut Sites<'_>) -> Vec<Row> {
    let mut missed = None;
    let (cut, counted) = during(sites.world, &GOING_ON, || {
        sites.cloud.take().context("there is no cloud")?.kill();
        let begin = now();
        sites.tell_late()?;
        noticed(sites)?;
        missed = Some(misses(sites));
        pause(CUT_FOR.saturating_sub(now() - begin));
        Ok(())
    });
    vec![
        Row::new("kill -9 of the cloud, calls go on", CALLERS, cut.and(counted)),
        Row::new(
            "only the cloud's Services are away",
            "a1 → web-c2.default",
            missed.unwrap_or_else(|| bail!("nobody noticed that the cloud is away")),
        ),
    ]
}

fn noticed(sites: &Sites<'_>) -> anyhow::Result<()> {
    let away = |name: &&str| sites.uplink(name).is_ok_and(|link| link.state != CloudState::Linked);
    let all = || sites.agents.keys().all(&away).then_some(());
    until(NOTICES_WITHIN, all).context("some node says that it is linked to the cloud")
}

/// A refusal with its reason, at once.
fn misses(sites: &Sites<'_>) -> anyhow::Result<String> {
    let begin = now();
    let said = one(sites.world, A1.place(), "web-c2");
    let took = now() - begin;
    match said {
        Ok(who) => bail!("{who} answers"),
        Err(error) => {
            let text = format!("{error} after {} ms", took.as_millis());
            ensure!(took < SAYS_SO_WITHIN, "{text}");
            Ok(text)
        }
    }
}

pub(super) fn back(sites: &mut Sites<'_>) -> Vec<Row> {
    let (done, counted) = during(sites.world, &GOING_ON, || converge(sites));
    vec![
        Row::new(
            "the cloud is back: all are in step",
            "a new process; a Service was added meanwhile",
            done,
        ),
        Row::new("as it comes back, calls go on", CALLERS, counted),
    ]
}

fn converge(sites: &mut Sites<'_>) -> anyhow::Result<String> {
    let world = sites.world;
    let before = sites.uplink(A1.name)?.epoch;
    let begin = now();
    let (cloud, took) = Cloud::start(world)?;
    let cloud = sites.cloud.insert(cloud);
    let epoch = cloud.status(world)?.epoch;
    ensure!(epoch != before, "the new process has the epoch of the old one");
    let mut waiting: BTreeSet<&'static str> = sites.agents.keys().copied().collect();
    let reaches = |name: &'static str| {
        let in_step = sites.is_in_step(name).unwrap_or(false);
        in_step && one(world, Place::Machine(name), LATE).is_ok_and(|who| who == B1.name)
    };
    let all = until(CONVERGES_WITHIN, || {
        waiting.retain(|name| !reaches(name));
        waiting.is_empty().then_some(())
    });
    let nodes = waiting.into_iter().collect::<Vec<_>>().join(", ");
    all.with_context(|| format!("{LATE} does not answer at {nodes}"))?;
    let took_all = (now() - begin).as_millis();
    let (took, count) = (took.as_millis(), sites.agents.len());
    Ok(format!(
        "ready after {took} ms; the Service answers at all {count} nodes after {took_all} ms"
    ))
}

pub(super) fn removed(sites: &mut Sites<'_>) -> Vec<Row> {
    let (done, counted) = during(sites.world, &GOING_ON, || remove(sites));
    let how = "edgemesh node remove b2";
    vec![
        Row::new("a removed node is refused", how, done),
        Row::new("the others are unharmed", CALLERS, counted),
    ]
}

fn remove(sites: &Sites<'_>) -> anyhow::Result<String> {
    let world = sites.world;
    one(world, B2.place(), "web-b1").context("before it is removed")?;
    if !world.lacks(Feature::Removal) {
        cloud::remove(world, B2.name)?;
    }
    let begin = now();
    let refused = until(REMOVED_WITHIN, || is_refused(sites, B2.name).then_some(()));
    refused.context("the hub does not refuse it")?;
    let took = (now() - begin).as_millis();
    let gone = until(REMOVED_WITHIN, || one(world, B2.place(), "web-b1").is_err().then_some(()));
    gone.context("b1 answers its calls")?;
    let gone = (now() - begin).as_millis();
    Ok(format!("by the hub after {took} ms; its calls to b1 fail after {gone} ms"))
}
