//! Scenes of one node in depth: a Route that splits, keys that stay with their Backend, an agent renewed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use anyhow::ensure;

use crate::cli::Feature;
use crate::demo::clients;
use crate::demo::clients::Answer;
use crate::demo::clients::Http;
use crate::demo::clock::now;
use crate::demo::clock::until;
use crate::demo::report::Row;
use crate::demo::scenes::NO_WALLS;
use crate::demo::stage::KEY;
use crate::demo::stage::Stage;
use crate::demo::world::Place;

/// Calls of the split: ten rounds of its weights, 3 and 1.
const CALLS: u32 = 40;
/// Callers whose calls have a key, and how often each calls. Not a multiple of the Backends: in turn, each
/// caller would meet the same one by chance.
const USERS: usize = 5;
const CALLS_A_USER: usize = 5;
/// A call that takes longer was held up: a resolver, say, asked again after a second.
const HELD_UP: Duration = Duration::from_millis(500);
/// How long a hand-over may take, the end of the old agent included.
const RENEWED_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn split(stage: &mut Stage<'_>) -> Vec<Row> {
    let how = "built-in client → split.default, an HTTPRoute 3 : 1";
    vec![Row::new("a Route splits calls", how, shares(stage))]
}

fn shares(stage: &Stage<'_>) -> anyhow::Result<String> {
    let tally = clients::calls(stage.world, stage.way(Place::Node), "split.default:80", CALLS);
    ensure!(tally.failed() == 0, "{}", tally.text());
    let of = |name: &str| -> u32 {
        let counts = tally.answers.iter().filter(|(who, _)| who.starts_with(name));
        counts.map(|(_, count)| count).sum()
    };
    let text = format!("hello {} : notes {} of {CALLS} calls", of("hello-"), of("notes-"));
    ensure!(of("hello-") == CALLS / 4 * 3 && of("notes-") == CALLS / 4, "{text}");
    Ok(text)
}

pub(super) fn keys(stage: &mut Stage<'_>) -> Vec<Row> {
    let how = format!("{USERS} users, {CALLS_A_USER} calls each → keyed.default");
    vec![Row::new("a key stays with its Backend", how, stay(stage))]
}

fn stay(stage: &Stage<'_>) -> anyhow::Result<String> {
    let mut served = BTreeMap::<String, BTreeSet<String>>::new();
    let mut http = Http::open(stage.world, stage.way(Place::Node), "keyed.default:80")?;
    for call in 0..USERS * CALLS_A_USER {
        let user = format!("user-{}", call % USERS);
        let answer = stage.world.runtime.block_on(http.get_with(Some((KEY, &user))))?;
        served.entry(user).or_default().insert(answer.good()?);
    }
    let all: BTreeSet<&String> = served.values().flatten().collect();
    let moved = served.values().filter(|backends| backends.len() > 1).count();
    let text = format!("{} Backends; {moved} of {USERS} users met more than one", all.len());
    ensure!(moved == 0 && all.len() > 1, "{text}");
    Ok(text)
}

pub(super) fn renewed(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "a new agent takes over, no call fails";
    let how = "SIGUSR2 to the guard, new connections all the while";
    if !stage.world.walls {
        return vec![Row::not_shown(what, how, NO_WALLS)]; // no guard without capture
    }
    vec![Row::new(what, how, hand_over(stage))]
}

fn hand_over(stage: &Stage<'_>) -> anyhow::Result<String> {
    let agent = stage.agent()?;
    let old = agent.guarded()?;
    let begin = now();
    match stage.world.lacks(Feature::Handover) {
        false => agent.renew()?,
        true => agent.kill()?,
    }
    let (mut calls, mut failed, mut longest) = (0, 0, Duration::ZERO);
    let gone = until(RENEWED_WITHIN, || {
        let asked = now();
        calls += 1;
        failed += u32::from(call(stage).is_err());
        longest = longest.max(now() - asked);
        agent.guarded().is_ok_and(|serving| serving != old).then_some(())
    });
    let text = format!(
        "{failed} of {calls} calls failed in {} ms, the longest took {} ms",
        (now() - begin).as_millis(),
        longest.as_millis()
    );
    gone.with_context(|| format!("{text}, and the old agent still serves"))?;
    ensure!(failed == 0 && longest < HELD_UP, "{text}");
    Ok(text)
}

fn call(stage: &Stage<'_>) -> anyhow::Result<String> {
    let mut http = Http::open(stage.world, stage.way(Place::Client), "hello.default:80")?;
    stage.world.runtime.block_on(http.get()).and_then(Answer::good)
}
