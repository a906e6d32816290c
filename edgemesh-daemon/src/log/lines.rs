//! A writer that never makes a flow wait: lines go through a bounded queue to one thread.
//!
//! When the queue is full the line is dropped and counted; the data path is worth more.

use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::TrySendError;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: a dozen ms at 80 k flows a second, which covers a writer that is not scheduled for
/// a moment; half a MiB of text at most, and 40 KiB resident when idle.
pub const QUEUE: usize = 1024;

/// How long dropping the writer waits for a reader of stdout that does not read.
const LAST_WORDS: Duration = Duration::from_secs(1);

enum Job {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Owns the thread's queue; dropping it writes out what waits, for at most a second.
#[derive(Debug)]
pub struct LineWriter {
    handle: LineHandle,
}

/// What the log writes into; cheap to clone.
#[derive(Clone, Debug)]
pub struct LineHandle {
    jobs: SyncSender<Job>,
    lost: Arc<AtomicU64>,
}

impl LineWriter {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn new(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&queue, out, &counter))?;
        Ok(Self { handle: LineHandle { jobs, lost } })
    }

    /// What the log writes into.
    pub fn handle(&self) -> LineHandle {
        self.handle.clone()
    }

    /// Lines that were dropped or could not be written since the start.
    pub fn lost(&self) -> u64 {
        self.handle.lost.load(Ordering::Relaxed)
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        // A full queue means a reader that does not read; then there is no use in waiting.
        let (done, wait) = sync_channel(1);
        if self.handle.jobs.try_send(Job::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(LAST_WORDS);
        }
    }
}

/// Writes what comes, and flushes whenever nothing more is waiting.
fn write_lines(queue: &Receiver<Job>, out: Box<dyn Write + Send>, lost: &AtomicU64) {
    let mut out = BufWriter::new(out);
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        let mut flushed = Vec::new();
        while let Some(job) = next {
            match job {
                Job::Line(line) => {
                    if out.write_all(&line).is_err() {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Job::Flush(done) => flushed.push(done),
            }
            next = queue.try_recv().ok();
        }
        let _ = out.flush(); // what is lost here was counted as written: the reader is gone
        for done in flushed {
            let _ = done.try_send(());
        }
    }
}

impl<'a> MakeWriter<'a> for LineHandle {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Takes one whole line a call, as tracing's formatter writes it.
impl Write for &LineHandle {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.jobs.try_send(Job::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
