//! A world that a plan table describes line by line: records in, decisions out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edgemesh_core::backends::Way;
use edgemesh_core::limit::{Caller, Limiter};
use edgemesh_core::plan::{
    Destination, Explanation, Hop, Outcome, Purpose, Via, confirm, explain, plan,
};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::{Builder, Change, ListedPolicy, Snapshot, Source};
use edgemesh_proto::record::{Key, Kind, NodeName};

use crate::asked::{Asked, socket_address};
use crate::grammar::{self, Words};

/// Where the agent of the tables runs.
pub(crate) const HERE: &str = "edge-1";

/// Explained so often before each call, and with no trace.
const EXPLAINS: usize = 100;

/// One `case`.
pub(crate) struct World {
    builder: Builder,
    snapshot: Arc<Snapshot>,
    /// Records since the last decision: they become visible together.
    pending: Change,
    start: Instant,
    now: Instant,
    open: HashMap<String, Hop>,
    /// What came of each call, in order.
    pub(crate) log: Vec<String>,
}

impl Default for World {
    #[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
    fn default() -> Self {
        let start = Instant::now();
        Self {
            builder: Builder::new(here(), None),
            snapshot: Arc::default(),
            pending: Change::default(),
            start,
            now: start,
            open: HashMap::new(),
            log: Vec::new(),
        }
    }
}

fn here() -> NodeName {
    NodeName(HERE.into())
}

impl World {
    /// Runs lines that must all be right.
    pub(crate) fn run(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.line(line).unwrap_or_else(|wrong| panic!("{line}: {wrong}"));
        }
    }

    /// The Snapshot with everything said so far.
    pub(crate) fn snapshot(&mut self) -> &Arc<Snapshot> {
        let pending = std::mem::take(&mut self.pending);
        if !(pending.put.is_empty()
            && pending.delete.is_empty()
            && pending.addresses.is_empty()
            && pending.hosts.is_empty())
        {
            self.pending.revision = pending.revision + 1;
            let change = Change { revision: pending.revision + 1, ..pending };
            self.snapshot = self.builder.apply(change, self.now);
        } else {
            self.pending.revision = pending.revision;
        }
        &self.snapshot
    }

    /// The time in this world.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Runs one line; says what is wrong with it or with what came out.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), String> {
        // Of `explain` an empty want is a want.
        let wanted = line.split_once(" -> ").or_else(|| Some((line.strip_suffix(" ->")?, "")));
        let (said, wants) = wanted.unwrap_or((line, ""));
        let mut words = Words(said.split_whitespace().collect());
        let verb = words.next("a word")?;
        let wants: Vec<_> = wants.split_whitespace().collect();
        match verb {
            "virtual" => {
                let service = grammar::name(words.next("a name")?)?;
                let addresses = grammar::addresses(words.next("addresses")?)?;
                self.pending.addresses.push((service, addresses));
            }
            "hosts" => {
                let service = grammar::name(words.next("a name")?)?;
                let hosts = words.0.drain(..).map(grammar::host).collect::<Result<_, _>>()?;
                self.pending.hosts.push((service, hosts));
            }
            "delete" => {
                let kind = grammar::kind(words.next("a kind")?)?;
                let name = words.next("a name")?;
                let (namespace, name) = if kind == Kind::Node {
                    ("", name)
                } else {
                    name.split_once('/').ok_or("NS/NAME")?
                };
                let key = Key { kind, namespace: namespace.into(), name: name.into() };
                // Records of one change are deleted before others are put.
                self.snapshot();
                self.pending.delete.push(key);
            }
            "wait" => {
                self.snapshot();
                self.now += grammar::time(words.next("a time")?)?;
            }
            "seat" => match words.next("a seat")? {
                "cloud" => self.builder = Builder::new(here(), None).covering_cloud(),
                "application" => self.builder = Builder::new(here(), None).without_links(),
                other => return Err(format!("{other}: cloud or application")),
            },
            "way" => self.way(&mut words)?,
            "source" => return self.source(words),
            "conflict" => return self.conflict(words),
            "call" | "fail" | "retry" | "open" | "race" => return self.calls(verb, words, &wants),
            "confirm" => {
                let snapshot = self.snapshot().clone();
                let from = words.option("from").map(grammar::address).transpose()?;
                let hop = self.open.get_mut(words.next("a name")?).ok_or("nothing of that name")?;
                let confirmed = confirm(&snapshot, hop, (from, None), self.now);
                let got = confirmed.map_or_else(say_refusal, |()| "ok".into());
                return expect(&got, &wants.join(" "));
            }
            "answer" => {
                let hop = self.open.get_mut(words.next("a name")?).ok_or("nothing of that name")?;
                hop.answered(self.now);
            }
            "explain" => return self.explains(words, &wants),
            "close" => {
                let hop = self.open.remove(words.next("a name")?).ok_or("nothing of that name")?;
                hop.finish(outcome(words.next("an outcome")?)?, self.now);
            }
            "rest" => {
                let hop = self.open.get_mut(words.next("a name")?).ok_or("nothing of that name")?;
                hop.rest(grammar::time(words.next("a time")?)?, self.now);
            }
            "ill" | "well" => {
                let address = socket_address(words.next("a Backend")?)?;
                let services = self.snapshot().services().to_vec();
                let pools = services.iter().flat_map(|s| &s.ports).flat_map(|port| &port.pools);
                let meant = pools.flat_map(|pool| &pool.backends).filter(|b| b.address == address);
                meant.for_each(|backend| backend.live.ill.store(verb == "ill", Relaxed));
            }
            _ => {
                self.pending.put.push(grammar::record(verb, words)?);
                return Ok(());
            }
        }
        words.end()
    }

    fn source(&mut self, mut words: Words<'_>) -> Result<(), String> {
        let name = grammar::name(words.next("a name")?)?;
        let service =
            self.snapshot().by_name(&name.namespace, &name.name).ok_or("no such Service")?;
        let got = match service.source {
            Source::Slices => "slices",
            Source::Workloads => "workloads",
            Source::Nothing => "nothing",
        };
        expect(got, words.next("a source")?)
    }

    /// What whoever keeps the ways has found out of one node.
    fn way(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let (node, now) = (words.next("a node")?, self.now);
        let live = self.snapshot().lives.get(node).cloned();
        let live = live.ok_or_else(|| format!("{node}: no Link leads there"))?;
        let (way, time) = (words.next("a way")?, words.option("took").map(grammar::time));
        if let Some(took) = time.transpose()? {
            live.took(took);
        }
        let until = words.option("for").map(grammar::time).transpose()?;
        let why = words.0.drain(..).collect::<Vec<_>>().join(" ");
        match (way, until) {
            ("direct", None) => live.works(Way::Direct, &why),
            ("hub", None) => live.works(Way::Hub, &why),
            ("unknown", None) => live.forget(),
            ("lost", Some(time)) => live.lost(now + time, &why),
            _ => return Err(format!("{way}: direct, hub, unknown, or lost for=TIME")),
        }
        Ok(())
    }

    fn conflict(&mut self, mut words: Words<'_>) -> Result<(), String> {
        let service = grammar::name(words.next("a name")?)?;
        let policies = &self.snapshot().policies;
        let lost = |p: &ListedPolicy| Some(format!("{} beats {}", p.overruled_by.clone()?, p.name));
        let of_service = policies.iter().filter(|p| p.service == service);
        let got: Vec<_> = of_service.filter_map(lost).collect();
        expect(&got.join(", "), &words.0.drain(..).collect::<Vec<_>>().join(" "))
    }

    fn calls(&mut self, verb: &str, mut words: Words<'_>, wants: &[&str]) -> Result<(), String> {
        let kept = match verb {
            "open" | "race" => Some(words.next("a name")?.to_owned()),
            _ => None,
        };
        let asked = Asked::read(&mut words, &self.snapshot().clone())?;
        words.end()?;
        let destination = asked.destination(match verb {
            "retry" => Purpose::Retry(&asked.tried),
            "race" => Purpose::Race(&asked.tried),
            _ => Purpose::Call,
        })?;
        if wants.is_empty() {
            return Err("-> WANT is missing".into());
        }
        for want in wants {
            let got = self.decide(&destination)?;
            self.log.push(say(&got));
            if *want != "?" {
                expect(&say(&got), want)?;
            }
            match (got, &kept) {
                (Ok(hop), Some(name)) => drop(self.open.insert(name.clone(), hop)),
                (Ok(hop), None) if verb == "fail" => hop.finish(Outcome::Bad, self.now),
                (Ok(hop), None) => hop.finish(Outcome::Good, self.now),
                (Err(_), _) => {}
            }
        }
        Ok(())
    }

    /// Whether the steps of one kind say what they should.
    fn explains(&mut self, mut words: Words<'_>, wants: &[&str]) -> Result<(), String> {
        let asked = Asked::read(&mut words, &self.snapshot().clone())?;
        let step = words.next("a step")?;
        words.end()?;
        let destination = asked.destination(Purpose::Call)?;
        let now = self.now;
        let explained = explain(self.snapshot(), &destination, now);
        let said = explained.steps.iter().filter(|s| s.what == step).map(|s| s.why.as_str());
        expect(&said.collect::<Vec<_>>().join("; "), &wants.join(" "))
    }

    /// Plans, after many explains that must agree and change nothing.
    fn decide(&mut self, to: &Destination<'_>) -> Result<Result<Hop, Refusal>, String> {
        let (now, snapshot) = (self.now, self.snapshot().clone());
        let before = live_state(&snapshot, now);
        let mut explained = explain(&snapshot, to, now);
        for _ in 1..EXPLAINS {
            explained = explain(&snapshot, to, now);
        }
        expect(&live_state(&snapshot, now), &before).map_err(|e| format!("explain: {e}"))?;
        let planned = plan(&snapshot, to, now);
        agree(&explained, &planned)?;
        Ok(planned)
    }

    /// Time since the world began.
    pub(crate) fn age(&self) -> Duration {
        self.now - self.start
    }
}

/// Whether an explanation foretold what was planned.
pub(crate) fn agree(explained: &Explanation, planned: &Result<Hop, Refusal>) -> Result<(), String> {
    let planned_verdict = planned.as_ref().map(|hop| (hop.address(), hop.via())).map_err(|r| *r);
    if explained.verdict == planned_verdict {
        return Ok(());
    }
    Err(format!("explain foretold {:?}, plan said {planned_verdict:?}", explained.verdict))
}

/// Breakers, counters, fills and turns of everything in a Snapshot.
pub(crate) fn live_state(snapshot: &Snapshot, now: Instant) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let mut say =
        |line: std::fmt::Arguments<'_>| writeln!(out, "{line}").expect("a String takes all");
    for (name, live) in snapshot.lives.iter() {
        say(format_args!("{name} {live:?}"));
    }
    for service in snapshot.services() {
        let policy = &service.policy;
        let fill = |limiter: &Option<Arc<Limiter>>| {
            limiter.as_ref().map(|l| l.look(&Caller::Everyone, now))
        };
        let fills = (fill(&policy.client), fill(&policy.server));
        say(format_args!("{}: {:?} {fills:?}", service.name, service.live));
        for port in &service.ports {
            say(format_args!("  {} {:?}", port.port, port.live));
            for pool in &port.pools {
                say(format_args!("    {:?}", pool.live));
                for backend in &pool.backends {
                    let stance = backend.live.breaker.look(policy.breaker.as_ref(), now);
                    say(format_args!("    {} {stance:?} {:?}", backend.address, backend.live));
                }
            }
        }
    }
    out
}

fn say(decided: &Result<Hop, Refusal>) -> String {
    match decided {
        Err(refusal) => say_refusal(*refusal),
        Ok(hop) => {
            let node = hop.backend().node.as_ref().map_or("", |node| &node.0);
            let how = match hop.via() {
                Via::PlainDial => String::new(),
                Via::Local => "(local)".into(),
                via @ (Via::Direct | Via::Hub) => format!("@{node}({})", via.name()),
            };
            let probe = if hop.is_probe() { "(probe)" } else { "" };
            format!("{}{how}{probe}", hop.address())
        }
    }
}

fn say_refusal(refusal: Refusal) -> String {
    let wait = refusal.retry_after().map(|wait| match wait.as_millis() {
        ms if ms % 1000 == 0 => format!(":{}s", ms / 1000),
        ms => format!(":{ms}ms"),
    });
    format!("{}{}", refusal.row().label, wait.unwrap_or_default())
}

fn outcome(word: &str) -> Result<Outcome, String> {
    match word {
        "good" => Ok(Outcome::Good),
        "bad" => Ok(Outcome::Bad),
        "neutral" => Ok(Outcome::Neutral),
        _ => Err(format!("{word}: no outcome")),
    }
}

fn expect(got: &str, want: &str) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("wanted {want}, got {got}")) }
}
