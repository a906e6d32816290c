//! One table of routing: reads its lines, asks the decision, compares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgemesh_core::manifests::{Remark, parse};
use edgemesh_core::plan::{
    Arrival, Destination, Head, Hop, Outcome, Purpose, Target, explain, plan, redirection,
};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::{Builder, Change, Snapshot};
use edgemesh_proto::record::NodeName;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

/// A table under way.
pub(crate) struct Table {
    world: String,
    /// Manifests of the case, while they are read.
    yaml: Option<String>,
    snapshot: Arc<Snapshot>,
    remarks: Vec<Remark>,
    now: Instant,
}

/// A request as a line says it.
struct Asked {
    request: Request<()>,
    from: Option<IpAddr>,
    host: String,
    port: u16,
}

impl Table {
    #[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
    pub(crate) fn new(world: &str) -> Self {
        Self {
            world: world.into(),
            yaml: None,
            snapshot: Arc::default(),
            remarks: Vec::new(),
            now: Instant::now(),
        }
    }

    /// Runs one line; says what is wrong with it or with what came out.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), String> {
        if line.starts_with("== ") {
            let unclaimed = self.unclaimed();
            self.yaml = Some(String::new());
            return unclaimed;
        }
        if line == ">>>" {
            let yaml = self.yaml.take().ok_or("no case begins before")?;
            return self.begin(&yaml);
        }
        if let Some(yaml) = &mut self.yaml {
            yaml.push_str(line);
            yaml.push('\n');
            return Ok(());
        }
        let line = line.split(" # ").next().unwrap_or_default().trim();
        match (line, line.strip_prefix("remark ")) {
            ("", _) => Ok(()),
            (_, Some(remark)) => self.remark(remark),
            (line, None) => self.request(line),
        }
    }

    fn begin(&mut self, yaml: &str) -> Result<(), String> {
        let world = parse(Path::new("world.yaml"), &self.world);
        assert_eq!(world.remarks, []);
        let parsed = parse(Path::new("case.yaml"), yaml);
        let documents = world.documents.into_iter().chain(parsed.documents);
        let put = documents.flat_map(|document| document.records).collect();
        self.remarks = parsed.remarks;
        let mut builder = Builder::new(NodeName("edge-1".into()), None);
        self.snapshot = builder.apply(Change { put, ..Change::default() }, self.now);
        Ok(())
    }

    /// A remark that no line asked for is one too many.
    fn unclaimed(&mut self) -> Result<(), String> {
        match std::mem::take(&mut self.remarks)[..] {
            [] => Ok(()),
            ref left => Err(format!("the case before has remarks: {left:?}")),
        }
    }

    fn remark(&mut self, want: &str) -> Result<(), String> {
        let said = |r: &Remark| format!("{:?} {} {}", r.severity, r.field, r.reason);
        let found = self.remarks.iter().position(|r| said(r).starts_with(want));
        let all: Vec<_> = self.remarks.iter().map(said).collect();
        let at = found.ok_or_else(|| format!("remarks: {all:#?}"))?;
        self.remarks.remove(at);
        Ok(())
    }

    fn request(&self, line: &str) -> Result<(), String> {
        let (said, want) = line.split_once(" -> ").ok_or("-> is missing")?;
        let want: Vec<_> = want.split_whitespace().collect();
        if let Some((times, said)) = said.split_once(" times ") {
            let times: u32 = times.parse().map_err(|_| "no number of times")?;
            let mut counts = BTreeMap::<String, u32>::new();
            for _ in 0..times {
                let (got, ..) = self.decide(&mut asked(said)?)?;
                *counts.entry(got).or_default() += 1;
            }
            let got: Vec<_> = counts.iter().map(|(name, n)| format!("{name}*{n}")).collect();
            return expect(&got.join(" "), &want.join(" "));
        }
        let mut asked = asked(said)?;
        let (got, hop) = self.decide(&mut asked)?;
        expect(&got, want.first().ok_or("nothing is wanted")?)?;
        let Some(hop) = hop else {
            return if want.len() == 1 { Ok(()) } else { Err("nothing is sent".into()) };
        };
        let mut answer = HeaderMap::new();
        for name in ["x-set", "x-add", "x-remove"] {
            answer.insert(name, HeaderValue::from_static("old"));
        }
        if let Some(routed) = hop.route() {
            routed.edit_response(&mut answer);
        }
        want[1..].iter().try_for_each(|want| check(want, &asked.request, &answer, &hop))
    }

    /// The answer in words; the request as the Backend gets it.
    fn decide(&self, asked: &mut Asked) -> Result<(String, Option<Hop>), String> {
        let to =
            Target::Name { host: &asked.host, port: Some(asked.port), domain: "cluster.local" };
        let destination = Destination {
            caller: asked.from,
            request: Some(Head::of(&asked.request)),
            ..Destination::new(to, Arrival::Captured, Purpose::Call)
        };
        let explained = explain(&self.snapshot, &destination, self.now);
        let planned = plan(&self.snapshot, &destination, self.now);
        let foretold = explained.verdict.map(|(address, _)| address);
        let address = planned.as_ref().map(Hop::address).map_err(|refusal| *refusal);
        if foretold != address {
            return Err(format!("explain foretold {foretold:?}, plan said {address:?}"));
        }
        match planned {
            Err(Refusal::Redirected) => {
                let to = redirection(&self.snapshot, &destination).ok_or("to nowhere")?;
                Ok((format!("{}@{}", to.status, to.location), None))
            }
            Err(refusal) => Ok((refusal.row().label.into(), None)),
            Ok(hop) => {
                if let Some(routed) = hop.route() {
                    routed
                        .edit_request(&mut asked.request)
                        .map_err(|refusal| refusal.to_string())?;
                    self.again(asked, &hop)?;
                }
                let name = &hop.service().name;
                let name = match &*name.namespace {
                    "mesh" => name.name.to_string(),
                    _ => name.to_string(),
                };
                Ok((name, Some(hop)))
            }
        }
    }

    /// A further attempt, with the edited request, goes to the same Service.
    fn again(&self, asked: &Asked, hop: &Hop) -> Result<(), String> {
        let to =
            Target::Name { host: &asked.host, port: Some(asked.port), domain: "cluster.local" };
        let destination = Destination {
            request: Some(Head::of(&asked.request)),
            routed: hop.route(),
            ..Destination::new(to, Arrival::Captured, Purpose::Retry(&[]))
        };
        let again = plan(&self.snapshot, &destination, self.now).map_err(|r| r.to_string())?;
        let same = again.service().name == hop.service().name;
        again.finish(Outcome::Good, self.now);
        if same { Ok(()) } else { Err("a further attempt went elsewhere".into()) }
    }
}

fn asked(line: &str) -> Result<Asked, String> {
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().ok_or("no method")?, words.next().ok_or("no path")?);
    let mut request = Request::builder().method(method).uri(path);
    let (mut from, mut to, mut named) = (None, "echo.mesh:80", None);
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: no value"))?;
        match name {
            "from" => from = Some(value.parse().map_err(|_| format!("{value}: no address"))?),
            "to" => to = value,
            "host" => named = Some(value),
            _ => request = request.header(name, value.replace('_', " ")),
        }
    }
    let (host, port) = to.split_once(':').ok_or("to= has no port")?;
    let request = request.header("host", named.unwrap_or_else(|| to.trim_end_matches(":80")));
    Ok(Asked {
        request: request.body(()).map_err(|error| error.to_string())?,
        from,
        host: host.into(),
        port: port.parse().map_err(|_| "to= has no port")?,
    })
}

fn check(want: &str, sent: &Request<()>, answer: &HeaderMap, hop: &Hop) -> Result<(), String> {
    let (headers, word) = match want.strip_prefix('<') {
        Some(word) => (answer, word),
        None => (sent.headers(), want),
    };
    if let Some(name) = word.strip_prefix('-') {
        return expect(&values(headers, name)?, "");
    }
    let (name, value) = word.split_once('=').ok_or_else(|| format!("{want}: not understood"))?;
    let millis = |time: Option<Duration>| time.map_or(0, |time| time.as_millis()).to_string();
    match name {
        "path" => expect(&sent.uri().to_string(), value),
        "host" => expect(&values(headers, "host")?, value),
        "request" => expect(&millis(hop.request_timeout()), value),
        "attempt" => expect(&millis(hop.attempt_timeout()), value),
        _ => expect(&values(headers, name.trim_start_matches('+'))?, &value.replace('_', " ")),
    }
}

fn values(headers: &HeaderMap, name: &str) -> Result<String, String> {
    let name: HeaderName = name.parse().map_err(|_| format!("{name}: no header"))?;
    let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    Ok(values.collect::<Vec<_>>().join(","))
}

fn expect(got: &str, want: &str) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("wanted {want}, got {got}")) }
}
