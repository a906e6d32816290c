//! Scenes of policies: a limit, a breaker, and records that change while they are used.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use anyhow::ensure;

use crate::api::BreakerState;
use crate::cli::Feature;
use crate::demo::clients::Http;
use crate::demo::clock::now;
use crate::demo::clock::until;
use crate::demo::manifests::NODE;
use crate::demo::manifests::slice;
use crate::demo::manifests::write;
use crate::demo::report::Row;
use crate::demo::scenes::traffic::one;
use crate::demo::stage::EJECT_AFTER;
use crate::demo::stage::HELLOS;
use crate::demo::stage::LIMIT;
use crate::demo::stage::Stage;
use crate::demo::world::Place;

/// Calls against the limit: several times what it admits.
const CALLS: u32 = 30;
/// How long an ejected Backend may stay away once it is well again.
const BACK_WITHIN: Duration = Duration::from_secs(6);
/// What the mesh promises for a changed manifest.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn limit(stage: &mut Stage<'_>) -> Vec<Row> {
    let how = format!("built-in client → limited.default, {LIMIT} a second");
    vec![Row::new("limit on the client's side", how, limited(stage))]
}

fn limited(stage: &Stage<'_>) -> anyhow::Result<String> {
    let mut http = Http::open(stage.world, stage.way(Place::Node), "limited.default:80")?;
    let begin = now();
    let (mut good, mut refused) = (0, 0);
    for _ in 0..CALLS {
        let answer = stage.world.runtime.block_on(http.get())?;
        match answer.status.as_u16() {
            200 => good += 1,
            429 => {
                refused += 1;
                let wait = answer.retry_after.context("a 429 without Retry-After")?;
                ensure!(wait >= 1, "Retry-After: {wait}");
                let label = answer.refusal.as_deref().unwrap_or("none");
                ensure!(label == "rateLimited", "x-edgemesh-refusal: {label}");
            }
            other => anyhow::bail!("status {other}"),
        }
    }
    let more = (now() - begin).as_secs_f64() * f64::from(LIMIT);
    let most = LIMIT + more.ceil() as u32;
    let text = format!("{good} of {CALLS} admitted, {refused} got 429 with Retry-After");
    ensure!((LIMIT..=most).contains(&good), "{text}; the limit allows {LIMIT} to {most}");
    Ok(text)
}

pub(super) fn breaker(stage: &mut Stage<'_>) -> Vec<Row> {
    let how = "built-in client → flaky.default, 3 Backends";
    let ejected = eject(stage);
    stage.flaky[1].fails.store(false, Ordering::Relaxed);
    // Without the first there is nothing to come back from.
    let back = match ejected {
        Ok(_) => back(stage),
        Err(_) => Err(anyhow::anyhow!("it was never ejected")),
    };
    vec![
        Row::new("a failing Backend is ejected", how, ejected),
        Row::new("a Backend that is well is probed back", how, back),
    ]
}

/// One Backend answers 503 from now on: the clients of how many calls see that?
fn eject(stage: &Stage<'_>) -> anyhow::Result<String> {
    let sick = &stage.flaky[1];
    sick.fails.store(true, Ordering::Relaxed);
    let mut http = Http::open(stage.world, stage.way(Place::Node), "flaky.default:80")?;
    let (mut failed, mut after) = (0, 0);
    let mut others = BTreeMap::<String, u32>::new();
    for _ in 0..CALLS {
        let answer = stage.world.runtime.block_on(http.get())?;
        if answer.status == 200 {
            *others.entry(answer.body).or_default() += 1;
            after += 1;
        } else {
            failed += 1;
            after = 0;
        }
    }
    let text = format!("{failed} of {CALLS} calls failed, then none of {after}");
    // One more may be the probe, where the calls take longer than the ejection.
    ensure!(failed <= EJECT_AFTER + 1 && after > EJECT_AFTER, "{failed} of {CALLS} calls failed");
    ensure!(failed >= EJECT_AFTER && others.len() == 2, "{text}; ejected too early");
    let state = state(stage)?;
    ensure!(state != BreakerState::Admits, "{text}, but its breaker admits");
    Ok(format!("{text}; breaker {}", name(state)))
}

/// Calls until the Backend that is well again has answered one.
fn back(stage: &Stage<'_>) -> anyhow::Result<String> {
    let well = &stage.flaky[1].name;
    let mut http = Http::open(stage.world, stage.way(Place::Node), "flaky.default:80")?;
    let begin = now();
    let seen = until(BACK_WITHIN, || {
        let answer = stage.world.runtime.block_on(http.get()).ok()?;
        (answer.status == 200 && answer.body == *well).then_some(())
    });
    seen.with_context(|| format!("no call to it within {} s", BACK_WITHIN.as_secs()))?;
    let after = (now() - begin).as_millis();
    let admits = until(Duration::from_secs(1), || {
        (state(stage).ok()? == BreakerState::Admits).then_some(())
    });
    admits.context("it answers, but its breaker does not admit")?;
    Ok(format!("answers again after {after} ms; breaker admits"))
}

fn state(stage: &Stage<'_>) -> anyhow::Result<BreakerState> {
    let sick = stage.flaky[1].addresses[0].to_string();
    let backends = stage.agent()?.backends(stage.world, "flaky")?;
    let found = backends.iter().find(|backend| backend.address == sick);
    Ok(found.with_context(|| format!("the admin API does not list {sick}"))?.state)
}

const fn name(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Admits => "admits",
        BreakerState::Rejects => "rejects",
        BreakerState::Probes => "probes",
    }
}

pub(super) fn live(stage: &mut Stage<'_>) -> Vec<Row> {
    let how = "a Slice written to the folder → hello.default";
    vec![Row::new("a changed manifest counts within a second", how, added(stage))]
}

/// From the rename of the file to the first answer of the Backend that it adds.
fn added(stage: &Stage<'_>) -> anyhow::Result<String> {
    let fourth = &stage.hello[HELLOS];
    let mut folder = stage.world.folder.join("manifests");
    if stage.world.lacks(Feature::Live) {
        folder = stage.world.folder.join("unwatched");
        fs::create_dir_all(&folder)?;
    }
    let begin = now();
    let ids = ["more-4", "more-6"].into_iter();
    let slices: Vec<_> = ids
        .zip(&fourth.addresses)
        .map(|(id, address)| slice("hello", id, *address, NODE))
        .collect();
    write(&folder, "hello-more", &slices.concat())?;
    let seen = until(SEEN_WITHIN * 3, || {
        let who = one(stage, Place::Node, "hello.default:80").ok()?;
        (who == fourth.name).then(|| now() - begin)
    });
    let took = seen.with_context(|| format!("{} never answered", fourth.name))?;
    let text = format!("{} answers {} ms after the write", fourth.name, took.as_millis());
    ensure!(took <= SEEN_WITHIN, "{text}");
    Ok(text)
}
