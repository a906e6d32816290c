//! Scenes of the agent's own life: its start, its violent end, a restart with nothing but its
//! store, and a stop that leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use anyhow::ensure;

use crate::api::CaptureState;
use crate::cli::Feature;
use crate::demo::children::ask;
use crate::demo::children::find;
use crate::demo::clients;
use crate::demo::clients::TIMEOUT;
use crate::demo::clock::now;
use crate::demo::clock::pause;
use crate::demo::clock::until;
use crate::demo::report::Row;
use crate::demo::scenes::traffic::captured_only;
use crate::demo::scenes::traffic::one;
use crate::demo::stage::Stage;
use crate::demo::world::Place;

/// How long the mesh may be away after `kill -9`, in a debug build on a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(6);
/// How long the capture may be looked for after a restart.
const CAPTURES_WITHIN: Duration = Duration::from_secs(3);
/// Calls that reach every Backend of four at least once.
const ROUNDS: u32 = 12;
const HELLO: &str = "hello.default:80";

pub(super) fn start(stage: &mut Stage<'_>) -> Vec<Row> {
    let outcome = begin(stage);
    vec![Row::new("the agent starts", "edgemesh agent, a child process", outcome)]
}

fn begin(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (agent, took) = stage.setup.start(stage.world)?;
    let agent = stage.agent.insert(agent);
    let status = agent.status(stage.world)?;
    let ready = format!("ready after {} ms, {} Services", took.as_millis(), status.services);
    match (status.capture.state, stage.world.walls) {
        (CaptureState::Installed, _) => Ok(format!("{ready}, {}", status.capture.backend)),
        (CaptureState::Off, false) => Ok(format!("{ready}, capture off")),
        (CaptureState::Off, true) => bail!("{ready}, but capture is off"),
        (CaptureState::Failed, _) => {
            bail!("{ready}, but capture failed: {}", status.capture.notes.join(", "))
        }
    }
}

pub(super) fn killed(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "kill -9 of the agent: its guard restarts it";
    let how = "built-in client, a call each 20 ms → hello.default";
    // An agent that captures nothing leaves no black hole, and so has no guard.
    if let Err(rows) = captured_only(stage, what, how) {
        return rows;
    }
    vec![Row::new(what, how, survive(stage))]
}

fn survive(stage: &Stage<'_>) -> anyhow::Result<String> {
    let agent = stage.agent()?;
    one(stage, Place::Node, HELLO).context("before the kill")?;
    let before = agent.guarded()?;
    if stage.world.lacks(Feature::Guard) {
        agent.kill_guard()?;
        // The agent follows its guard by itself; here it must not get to clean up.
        let _ = nix::sys::signal::kill(before, nix::sys::signal::Signal::SIGKILL);
    } else {
        agent.kill()?;
    }
    let begin = now();
    let (mut failed, mut longest) = (0, Duration::ZERO);
    let back = until(BACK_WITHIN, || {
        let call = now();
        let answer = one(stage, Place::Node, HELLO);
        longest = longest.max(now() - call);
        if answer.is_ok() && agent.guarded().is_ok_and(|now| now != before) {
            return Some(now() - begin);
        }
        failed += u32::from(answer.is_err());
        pause(Duration::from_millis(20));
        None
    });
    let away = back.with_context(|| {
        format!("still no answer {} s later, {failed} calls failed", BACK_WITHIN.as_secs())
    })?;
    let (away, longest_ms) = (away.as_millis(), longest.as_millis());
    let text =
        format!("back after {away} ms; {failed} calls failed, the longest in {longest_ms} ms");
    // Refused at once, or held until the agent is back: both are fine, silence is not.
    ensure!(longest < TIMEOUT, "a black hole: {text}");
    let adopted = until(CAPTURES_WITHIN, || {
        let status = agent.status(stage.world).ok()?;
        (status.ready && status.capture.state == CaptureState::Installed).then_some(())
    });
    adopted.with_context(|| format!("{text}, but it does not capture again"))?;
    Ok(text)
}

pub(super) fn cold(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "cold restart from the store alone";
    let how = "agent stopped, manifests gone, agent started → hello.default";
    let manifests = stage.world.folder.join("manifests");
    let away = stage.world.folder.join("manifests.away");
    let outcome = restart(stage, &manifests, &away);
    if away.exists() {
        // Fails only where the first rename was not made.
        let _ = fs::rename(&away, &manifests);
    }
    vec![Row::new(what, how, outcome)]
}

fn restart(
    stage: &mut Stage<'_>,
    manifests: &std::path::Path,
    away: &std::path::Path,
) -> anyhow::Result<String> {
    let before = who_answers(stage);
    if let Some(agent) = stage.agent.take() {
        // One that was killed with its guard is gone: that row is red already.
        let stopped = agent.stop();
        ensure!(stopped.is_ok() || stage.world.lacks(Feature::Guard), "{stopped:?}");
    }
    fs::rename(manifests, away)?;
    if stage.world.lacks(Feature::Store) {
        let data = stage.world.folder.join("data");
        fs::remove_dir_all(&data)?;
        fs::create_dir_all(&data)?;
    }
    let (agent, took) = stage.setup.start(stage.world)?;
    let agent = stage.agent.insert(agent);
    let status = agent.status(stage.world)?;
    let after = who_answers(stage)?;
    let text = format!("ready after {} ms, revision {}", took.as_millis(), status.revision);
    // The guard's row is red already where there was nobody to answer before.
    let before = before.unwrap_or_else(|_| after.clone());
    ensure!(after == before, "{text}; before {before:?} answered, now {after:?}");
    Ok(format!("{text}, the same {} Backends answer", after.len()))
}

/// Everyone who serves `hello.default`, by a few rounds of calls.
fn who_answers(stage: &Stage<'_>) -> anyhow::Result<BTreeSet<String>> {
    let tally = clients::calls(stage.world, stage.way(Place::Node), HELLO, ROUNDS);
    ensure!(tally.failed() == 0, "{}", tally.text());
    Ok(tally.answers.into_keys().collect())
}

pub(super) fn stop(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "a graceful stop leaves the node as it was";
    let how = "SIGTERM → rules, routes, devices";
    if let Err(rows) = captured_only(stage, what, how) {
        return rows;
    }
    vec![Row::new(what, how, leave(stage))]
}

fn leave(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let agent = stage.agent.take().context("no agent runs")?;
    let during = traces()?;
    ensure!(!during.is_empty(), "there was nothing to remove");
    if stage.world.lacks(Feature::Cleanup) {
        agent.kill_guard()?;
        let _ = agent.kill(); // it may be gone with its guard
    }
    let stopped = agent.stop();
    let left = traces()?;
    let first = left.first().map(String::as_str).unwrap_or_default();
    ensure!(left.is_empty(), "{} traces are left, such as {first}", left.len());
    let took = stopped?.as_millis();
    Ok(format!("{} traces before, none {took} ms later", during.len()))
}

/// What of the mesh is in the kernel: rules and chains of its name, its device, its routes.
fn traces() -> anyhow::Result<Vec<String>> {
    let mut traces = Vec::new();
    let commands: [(&str, &[&str]); 5] = [
        ("iptables-save", &[]),
        ("ip6tables-save", &[]),
        ("ip", &["-o", "link"]),
        ("ip", &["-4", "route", "show", "table", "all"]),
        ("ip", &["-6", "route", "show", "table", "all"]),
    ];
    for (name, arguments) in commands {
        let Some(program) = find(name) else { continue };
        // A kernel without IPv6 has no such tables, and so no traces.
        let output = ask(Command::new(program).args(arguments)).unwrap_or_default();
        let ours = |line: &&str| {
            let lower = line.to_lowercase();
            lower.contains("edgemesh") || lower.starts_with("10.96.") || lower.contains("fd10:96::")
        };
        traces.extend(output.lines().filter(ours).map(str::to_owned));
    }
    Ok(traces)
}
