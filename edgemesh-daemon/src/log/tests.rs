//! The two logs keep apart, the filter can be changed, and no flow waits for a slow reader.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;

use tracing::info;
use tracing::warn;
use tracing::warn_span;

use crate::log::Format;
use crate::log::build;
use crate::log::lines::LineWriter;
use crate::log::lines::QUEUE;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[test]
fn the_access_log_is_json_lines_apart_from_the_log_whatever_the_filter_says() {
    let (operators, access) = (Shared::default(), Shared::default());
    let writer = operators.clone();
    let (log, subscriber) =
        build(Format::Json, "warn", move || writer.clone(), Box::new(access.clone())).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        let _span = warn_span!("flow").entered();
        info!(target: "access", peer = %"10.0.0.1:1", up = 5u64, "unused");
        info!("not shown");
        warn!("shown");
        log.set_filter("warn,edgemesh_daemon=info").unwrap();
        info!("shown after the change");
        for wrong in ["=!=", "", "warm", "info,,", "edgemesh_core=loud"] {
            assert!(log.set_filter(wrong).is_err(), "{wrong}");
        }
        info!("still shown");
    });
    drop(log); // writes out what is queued
    let flows = access.text();
    let line: serde_json::Value = serde_json::from_str(flows.trim_end()).expect("one JSON line");
    assert_eq!((&line["peer"], &line["up"]), (&"10.0.0.1:1".into(), &5.into()));
    let text = operators.text();
    let seen = text.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line["message"].as_str().unwrap_or_default().to_owned()
    });
    assert_eq!(seen.collect::<Vec<_>>(), ["shown", "shown after the change", "still shown"]);
}

#[test]
fn the_human_log_has_no_flows() {
    let (operators, access) = (Shared::default(), Shared::default());
    let writer = operators.clone();
    let (log, subscriber) =
        build(Format::Human, "trace", move || writer.clone(), Box::new(access.clone())).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        info!(target: "access", outcome = "ok");
        warn!("a word");
    });
    drop(log);
    assert!(operators.text().contains("a word") && !operators.text().contains("outcome"));
    assert!(access.text().contains(r#""outcome":"ok""#) && !access.text().contains("a word"));
}

/// A reader that takes nothing until it is let go.
struct Stuck(Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv(); // ends, for good, when the other side is dropped
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let (let_go, stuck) = channel();
    let writer = LineWriter::new(Box::new(Stuck(stuck))).unwrap();
    let handle = writer.handle();
    // Longer than the thread's own buffer, so that its first line already meets the stuck reader.
    (&handle).write_all(&[b'x'; 16 << 10]).unwrap();
    for _ in 1..QUEUE + 100 {
        (&handle).write_all(b"x").unwrap();
    }
    let lost = writer.lost();
    assert!((99..=100).contains(&lost), "{lost}: all but the queue and the line in hand");
    drop(let_go);
    drop(writer);
}

#[test]
fn what_a_library_repeats_is_shown_when_it_is_asked_for() {
    let operators = Shared::default();
    let writer = operators.clone();
    let (log, subscriber) =
        build(Format::Human, "info", move || writer.clone(), Box::new(io::sink())).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        warn!(target: "kube_client::client", "a whole answer");
        log.set_filter("info,kube_client=warn").unwrap();
        warn!(target: "kube_client::client", "another");
    });
    let said = operators.text();
    assert!(!said.contains("a whole answer") && said.contains("another"), "{said}");
}
