//! Calls that go on while something happens to the mesh: a new connection each, and every failure counts.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use anyhow::ensure;

use crate::demo::clients::Answer;
use crate::demo::clients::Http;
use crate::demo::clients::Tally;
use crate::demo::clients::Way;
use crate::demo::clock::now;
use crate::demo::clock::pause;
use crate::demo::sites::network::Machine;
use crate::demo::world::Place;
use crate::demo::world::World;

/// Between two calls of one caller.
const EVERY: Duration = Duration::from_millis(10);
/// Fewer calls than this show nothing: what is over sooner is called some more times.
const FEWEST: u32 = 10;

/// Who calls which Service.
pub(crate) type Pair = (Machine, &'static str);

/// Plays `body` while every one of `pairs` calls, again and again.
///
/// # Errors
/// Those of `body`; and `Ok` has what the calls came to, in words, or which failed.
pub(crate) fn during<T>(
    world: &World,
    pairs: &[Pair],
    body: impl FnOnce() -> anyhow::Result<T>,
) -> (anyhow::Result<T>, anyhow::Result<String>) {
    let begin = now();
    let stop = AtomicBool::new(false);
    let (done, tallies) = thread::scope(|scope| {
        let callers: Vec<_> =
            pairs.iter().map(|pair| scope.spawn(|| calls(world, *pair, &stop))).collect();
        let done = body();
        stop.store(true, Ordering::Relaxed);
        let tallies: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        (done, tallies)
    });
    let took = (now() - begin).as_secs_f32();
    let tallies: Result<Vec<Tally>, _> = tallies.into_iter().collect();
    let counted = match tallies {
        Ok(tallies) => count(pairs, &tallies, took),
        Err(_) => Err(anyhow!("a caller panicked")),
    };
    (done, counted)
}

fn calls(world: &World, (from, service): Pair, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let few = |tally: &Tally| tally.answered() + tally.failed() < FEWEST;
    while !stop.load(Ordering::Relaxed) || few(&tally) {
        let begin = now();
        let answer = one(world, from.place(), service);
        tally.timed(begin, answer);
        pause(EVERY);
    }
    tally
}

/// One call on a connection of its own. By the whole name: of a name in the mesh's domain that is not
/// known (yet), the agent says so at once.
pub(crate) fn one(world: &World, from: Place, service: &str) -> anyhow::Result<String> {
    let authority = format!("{service}.default.svc.cluster.local:80");
    let mut http = Http::open(world, Way { from, proxy: None }, &authority)?;
    world.runtime.block_on(http.get()).and_then(Answer::good)
}

fn count(pairs: &[Pair], tallies: &[Tally], took: f32) -> anyhow::Result<String> {
    let all: u32 = tallies.iter().map(|tally| tally.answered() + tally.failed()).sum();
    let failed: u32 = tallies.iter().map(Tally::failed).sum();
    let text = format!("{failed} of {all} calls failed in {took:.1} s");
    for ((from, service), tally) in pairs.iter().zip(tallies) {
        let said = tally.text();
        ensure!(tally.failed() == 0, "{text}; {} → {service}: {said}", from.name);
    }
    Ok(text)
}
