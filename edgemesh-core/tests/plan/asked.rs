//! What a line of a plan table says of a call: where to, by whom, from where.

use std::net::{IpAddr, SocketAddr};

use edgemesh_core::plan::{Arrival, Destination, Head, Purpose, Target, Vouched};
use edgemesh_core::snapshot::{Snapshot, Spot, Who};
use edgemesh_proto::record::{NodeName, ServiceName};
use http::Request;

use crate::grammar::{self, Words};

/// A call as a line describes it.
pub(crate) struct Asked<'l> {
    to: &'l str,
    /// Backends that a further attempt leaves out.
    pub(crate) tried: Vec<Spot>,
    caller: Option<IpAddr>,
    head: Option<Request<()>>,
    over_link: Option<OverLink<'l>>,
    wish: Option<SocketAddr>,
}

/// A call that another node passes on.
struct OverLink<'l> {
    from: Vouched,
    service: ServiceName,
    hostname: Option<&'l str>,
    port: u16,
}

impl<'l> Asked<'l> {
    /// Takes the words of a call; what is left over is none.
    pub(crate) fn read(words: &mut Words<'l>, snapshot: &Snapshot) -> Result<Self, String> {
        let to = words.next("where to")?;
        let tried = words.option("tried").map_or(Ok(Vec::new()), |word| spots(word, snapshot))?;
        let caller = words.option("from").map(grammar::address).transpose()?;
        let wish = words.option("wish").map(socket_address).transpose()?;
        let (node, who) = (words.option("link"), words.option("who"));
        let over_link = node.map(|node| OverLink::read(to, node, who)).transpose()?;
        if who.is_some() && over_link.is_none() {
            return Err("who= is said by link=NODE".into());
        }
        Ok(Self { to, tried, caller, head: request(words)?, over_link, wish })
    }

    /// The same for the decision.
    pub(crate) fn destination<'a>(
        &'a self,
        purpose: Purpose<'a>,
    ) -> Result<Destination<'a>, String> {
        let (to, arrival) = match &self.over_link {
            None => (target(self.to)?, Arrival::Captured),
            Some(OverLink { service, hostname, port, .. }) => {
                (Target::Service { service, port: *port, hostname: *hostname }, Arrival::Link)
            }
        };
        Ok(Destination {
            caller: self.caller,
            from: self.over_link.as_ref().map(|over| &over.from),
            wish: self.wish,
            request: self.head.as_ref().map(Head::of),
            ..Destination::new(to, arrival, purpose)
        })
    }
}

impl<'l> OverLink<'l> {
    /// `SVC.NS:PORT` or `HOST.SVC.NS:PORT` from `node`, by `NS[/KIND/NAME]`.
    fn read(to: &'l str, node: &str, who: Option<&str>) -> Result<Self, String> {
        let wrong = || format!("{to}: over a Link, a Service by name and with its port");
        let (name, port) = to.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let (rest, namespace) = name.rsplit_once('.').ok_or_else(wrong)?;
        let (hostname, service) = match rest.split_once('.') {
            None => (None, rest),
            Some((hostname, service)) => (Some(hostname), service),
        };
        let node = NodeName(node.into());
        let mut known = Who { node: Some(node.clone()), ..Who::default() };
        if let Some(who) = who {
            known.namespace = who.split('/').next().map(Into::into);
            known.workload = who.contains('/').then(|| who.into());
        }
        let from = Vouched { node, who: known };
        Ok(Self { from, service: ServiceName::new(namespace, service), hostname, port })
    }
}

/// An address with its port, or a name.
fn target(to: &str) -> Result<Target<'_>, String> {
    if let Ok(address) = to.parse::<SocketAddr>() {
        return Ok(Target::Address(address));
    }
    let (host, port) = match to.split_once(':') {
        None => (to, None),
        Some((host, port)) => (host, Some(port.parse().map_err(|_| format!("{to}: no port"))?)),
    };
    if host.parse::<IpAddr>().is_ok() {
        return Err(format!("{to}: an address needs its port"));
    }
    Ok(Target::Name { host, port, domain: "cluster.local" })
}

/// A GET with the header fields of `header=K:V`, and the query of `query=`; `None` without either.
fn request(words: &mut Words<'_>) -> Result<Option<Request<()>>, String> {
    let (header, query) = (words.option("header"), words.option("query"));
    if header.or(query).is_none() && !words.flag("http") {
        return Ok(None);
    }
    let mut request = Request::get(format!("/?{}", query.unwrap_or_default()));
    if let Some((name, value)) = header.and_then(|header| header.split_once(':')) {
        request = request.header(name, value);
    }
    request.body(()).map(Some).map_err(|error| error.to_string())
}

/// `ADDRESS:PORT`, or `ADDRESS:PORT@NODE` of one that a Link leads to; with commas.
fn spots(word: &str, snapshot: &Snapshot) -> Result<Vec<Spot>, String> {
    let spot = |word: &str| {
        let (address, node) = word.split_once('@').map_or((word, None), |(a, n)| (a, Some(n)));
        let address = socket_address(address)?;
        let number = |node: &str| {
            let live = snapshot.lives.get(node);
            live.map(|live| live.number()).ok_or_else(|| format!("{node}: no Link leads there"))
        };
        Ok(Spot { address, node: node.map_or(Ok(0), number)? })
    };
    word.split(',').map(spot).collect()
}

/// `ADDRESS:PORT`.
pub(crate) fn socket_address(word: &str) -> Result<SocketAddr, String> {
    word.parse().map_err(|_| format!("{word}: no address"))
}
