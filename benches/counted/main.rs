//! Does one job over and over, for `make bench` to count its instructions: `counted JOB TIMES`.
//!
//! Twice as many turns are twice the work and one start, so that the difference of two runs is
//! the job alone. Everything is on one thread, and nothing here asks the clock or chance.

mod decision;
mod exchange;
mod link;

use std::io;

use clap::Parser;

/// Does a job that many times.
type Job = fn(u64) -> io::Result<()>;

/// What can be counted; `benches/counts/run.py` says how often.
const JOBS: &[(&str, Job)] = &[
    ("sniff", decision::sniff),
    ("plan", decision::plan),
    ("message", link::message),
    ("link", link::request),
    ("http1", exchange::http1),
];

/// One job of the data path, over and over
#[derive(Debug, Parser)]
struct Cli {
    /// Which
    job: String,
    /// How often
    times: u64,
}

fn main() -> io::Result<()> {
    let Cli { job, times } = Cli::parse();
    let found = JOBS.iter().find(|(name, _)| *name == job);
    let (_, run) = found.ok_or_else(|| io::Error::other(format!("there is no job `{job}`")))?;
    run(times)
}

/// The runtime of what waits.
fn block_on<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
