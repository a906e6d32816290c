//! The access log of all meshes of this process, as its lines are written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The fields of one line, as text.
pub(crate) type Line = BTreeMap<&'static str, String>;

/// Everything that was written.
fn lines() -> &'static watch::Sender<Vec<Line>> {
    static LINES: OnceLock<watch::Sender<Vec<Line>>> = OnceLock::new();
    LINES.get_or_init(|| watch::channel(Vec::new()).0)
}

/// Begins to listen; once a process is enough.
pub(crate) fn listen() {
    let _ = tracing::subscriber::set_global_default(Listener); // another test was first
}

/// The first `count` lines of a Service, once they are there.
pub(crate) async fn of(service: &str, count: usize) -> Vec<Line> {
    let name = format!("default/{service}");
    let of_service = |all: &Vec<Line>| -> Vec<Line> {
        all.iter().filter(|line| line.get("service") == Some(&name)).cloned().collect()
    };
    let mut all = lines().subscribe();
    let enough = all.wait_for(|all| of_service(all).len() >= count);
    let found = tokio::time::timeout(Duration::from_secs(20), enough)
        .await
        .map(|all| of_service(&all.unwrap()));
    found.unwrap_or_else(|_| {
        panic!("{count} lines of {service}: {:?}", of_service(&lines().borrow()))
    })
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "access"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Line::new());
        event.record(&mut fields);
        lines().send_modify(|all| all.push(fields.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Fields(Line);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
