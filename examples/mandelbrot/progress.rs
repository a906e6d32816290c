//! How far it is: a bar on a terminal, a line now and then elsewhere.

#![expect(clippy::print_stderr, reason = "progress is for people")]

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};

use crate::picture::TILES;

/// Characters of the bar.
const BAR: usize = 40;
/// Tiles between two lines where there is no terminal.
const LINE_EVERY: usize = 32;

/// Shows tiles as they come, and counts them by worker.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    workers: BTreeMap<String, usize>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: stderr().is_terminal(), workers: BTreeMap::new() }
    }

    /// `count` tiles are there; the last one is from `worker`.
    pub(crate) fn tile(&mut self, count: usize, worker: &str) {
        *self.workers.entry(worker.to_owned()).or_default() += 1;
        if self.terminal {
            let full = count * BAR / TILES;
            let (done, left) = ("█".repeat(full), "░".repeat(BAR - full));
            let processes = self.workers.len();
            let s = if processes == 1 { "" } else { "es" };
            eprint!("\r{done}{left} {count:3} of {TILES} tiles, {processes} process{s}");
        } else if count.is_multiple_of(LINE_EVERY) {
            eprintln!("{count} of {TILES} tiles");
        }
    }

    /// Who did what.
    pub(crate) fn end(self) {
        if self.terminal {
            eprintln!();
        }
        for (worker, tiles) in &self.workers {
            eprintln!("worker {worker}: {tiles} tiles");
        }
    }
}
