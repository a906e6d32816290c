//! Clients that call without a pause, and remember each call that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common::wait::{throughout, timed};
use crate::raw::Raw;

/// Between two calls of one client.
const PAUSE: Duration = Duration::from_millis(20);

/// Clients that are at it.
#[derive(Debug)]
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// For each pair of where and whom, one client that keeps its connection and one that makes a
    /// new one each time.
    pub(crate) fn start(pairs: &[(&'static str, &str)]) -> Self {
        let (over, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut clients = Vec::new();
        for (from, to) in pairs {
            for keeps in [true, false] {
                let (over, calls, to) = (over.clone(), calls.clone(), (*to).to_owned());
                let client = Client { from, to, keeps, over, calls };
                clients.push(std::thread::spawn(move || client.run()));
            }
        }
        Self { over, calls, clients }
    }

    /// Stops, and gives how many calls there were and what failed.
    pub(crate) fn stop(self) -> (usize, Vec<String>) {
        self.over.store(true, Relaxed);
        let failed = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (self.calls.load(Relaxed), failed)
    }
}

struct Client {
    from: &'static str,
    to: String,
    keeps: bool,
    over: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Client {
    fn run(self) -> Vec<String> {
        let (mut failed, mut kept) = (Vec::new(), None);
        while !self.over.load(Relaxed) {
            let (status, took) = timed(|| self.call(&mut kept));
            self.calls.fetch_add(1, Relaxed);
            if status != Some(200) {
                kept = None;
                let Self { from, to, keeps, .. } = &self;
                failed.push(format!("{from} to {to} (keeps {keeps}): {status:?} in {took:?}"));
            }
            throughout(PAUSE, || true);
        }
        failed
    }

    /// The status of one call.
    fn call(&self, kept: &mut Option<Raw>) -> Option<u16> {
        let mut raw = match kept.take() {
            Some(raw) => raw,
            None => Raw::try_connect(self.from, &self.to).ok()?,
        };
        raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = crate::backend::read_head(&mut raw.reader)?;
        crate::backend::read_body(&head, &mut raw.reader)?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        *kept = self.keeps.then_some(raw);
        Some(status)
    }
}
