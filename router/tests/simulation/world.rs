//! The little world: a registry with its disk, agents, and the links between them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgemesh_core::sync::offer;
use edgemesh_proto::message::Selector;
use edgemesh_proto::record::{Key, NodeName, Put};
use edgemesh_router::registry::session::{DIGEST_EVERY, Session};
use edgemesh_router::registry::{Bounds, Owner, Registry, Write};

use crate::agent::{Agent, Disk};
use crate::chance::Chance;
use crate::link::Link;
use crate::records::{NODES, manifests, offers};

/// Events of one schedule.
const EVENTS: usize = 160;
/// Messages that a link holds; over it the sender waits.
const HELD: usize = 3;
/// Bounds so small that every limit is met.
const BOUNDS: Bounds = Bounds { deletes: 4, part_bytes: 120, step_bytes: 400 };
/// Messages after which a world that is left alone must be quiet.
const PATIENCE: usize = 20_000;

pub(crate) struct World {
    chance: Chance,
    told: bool,
    now: Instant,
    registry: Registry,
    /// What the registry's store holds, and an older copy of it.
    kept: Kept,
    old: Kept,
    /// The epoch in which the older copy was made.
    old_epoch: [u8; 16],
    /// What the folder of manifests says.
    folder: BTreeMap<Key, Bytes>,
    agents: Vec<Agent>,
    olds: Vec<Disk>,
    links: Vec<Option<Link>>,
    /// Sessions whose agent is gone, although the registry does not know yet.
    ghosts: Vec<Link>,
    /// In half of the worlds somebody always looks through every view, so that each change of what
    /// it selects is a change of its records.
    watched: bool,
    /// Messages of the registry that arrived.
    heard: usize,
}

type Kept = BTreeMap<(Owner, Key), Bytes>;

impl World {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        let mut chance = Chance::new(seed);
        let zone = |name: &str| Selector { zones: vec![name.into()], ..Selector::default() };
        let ssd = [("disk".into(), "ssd".into())].into();
        let selectors =
            [Selector::default(), zone("z0"), Selector { zones: Vec::new(), labels: ssd }];
        let agents: Vec<Agent> = NODES
            .iter()
            .zip(selectors)
            .map(|(name, selector)| Agent::new(name, selector))
            .collect();
        let mut new = Self {
            registry: Registry::within(BOUNDS, chance.epoch(), []),
            watched: seed.is_multiple_of(2),
            chance,
            told,
            now: start(),
            kept: Kept::new(),
            old: Kept::new(),
            old_epoch: [0; 16],
            folder: BTreeMap::new(),
            heard: 0,
            olds: agents.iter().map(|_| Disk::default()).collect(),
            links: agents.iter().map(|_| None).collect(),
            agents,
            ghosts: Vec::new(),
        };
        new.watch();
        (0..new.agents.len()).for_each(|who| new.connect(who));
        new
    }

    fn watch(&mut self) {
        for agent in &mut self.agents {
            agent.exact &= self.watched || agent.selector.is_everything();
            if self.watched {
                self.registry.keep(&agent.selector);
            }
        }
    }

    /// One schedule, then quiet: everybody must hold what the registry has for it. Gives how many
    /// Messages of the registry arrived before the quiet.
    pub(crate) fn run(mut self) -> usize {
        for _ in 0..EVENTS {
            self.event();
            self.check_bounds();
        }
        let heard = self.heard;
        self.heal();
        self.settle();
        // What was altered without anybody's knowledge is found by the next digest.
        self.now += DIGEST_EVERY;
        self.settle();
        self.check();
        heard
    }

    fn event(&mut self) {
        let who = self.chance.below(self.agents.len());
        // Mostly talk: what goes wrong is to go wrong in the middle of a conversation.
        match self.chance.below(100) {
            0..=9 => self.churn(),
            10 | 11 => self.offer(),
            12..=37 => drop(self.deliver_down(who)),
            38..=63 => drop(self.deliver_up(who)),
            64..=88 => drop(self.pump(who)),
            89 | 90 => self.haunt(),
            91..=94 => self.connect(who),
            95 => self.links[who] = None, // the registry hears of it, messages under way are lost
            96 => self.restart_agent(who),
            97 => self.alter(who),
            98 => self.change_weather(who),
            _ => self.trouble_registry(),
        }
    }

    /// The manifests change a little, or a lot.
    fn churn(&mut self) {
        let changes = if self.chance.once_in(6) { 12 } else { 1 };
        for _ in 0..changes {
            let (key, bodies) = &manifests()[self.chance.below(manifests().len())];
            match self.chance.once_in(3) {
                true => drop(self.folder.remove(key)),
                false => {
                    let body = bodies[self.chance.below(bodies.len())].clone();
                    self.folder.insert(key.clone(), body);
                }
            }
        }
        let writes = self.registry.observe(&self.folder);
        self.keep(writes);
    }

    fn offer(&mut self) {
        let of = self.chance.below(NODES.len());
        let node = NodeName(NODES[of].into());
        let some = offers(of).iter().filter(|_| self.chance.once_in(3)).cloned().collect();
        let (records, _) = offer::accepted(&node, some);
        let mut writes = match self.chance.once_in(8) {
            true => self.registry.forget(&node),
            false => self.registry.offer(&node, &records),
        };
        if self.chance.once_in(8) {
            let before = self.chance.below(1000) as i64;
            writes.extend(self.registry.revoke(&node, before));
        }
        self.keep(writes);
    }

    fn keep(&mut self, writes: Vec<Write>) {
        if self.chance.once_in(10) {
            (self.old, self.old_epoch) = (self.kept.clone(), self.registry.epoch());
        }
        for Write { owner, key, body } in writes {
            match body {
                Some(body) => drop(self.kept.insert((owner, key), body)),
                None => drop(self.kept.remove(&(owner, key))),
            }
        }
    }

    /// A new conversation; the one before may live on at the registry.
    fn connect(&mut self, who: usize) {
        if let Some(former) = self.links[who].take() {
            match self.chance.once_in(2) {
                true => self.ghosts.push(former),
                false => former.session.end(&mut self.registry),
            }
        }
        let agent = &mut self.agents[who];
        let hello = agent.hello();
        let links = if agent.name.0.len() > 1 { Vec::new() } else { vec!["10.0.0.1:15008".into()] };
        let writes = self.registry.joined(&agent.name.clone(), links);
        self.keep(writes);
        let session = Session::begin(&mut self.registry, &hello, self.now).unwrap();
        self.links[who] = Some(Link::new(session));
    }

    /// The registry says something, if the link has room.
    fn pump(&mut self, who: usize) -> bool {
        let Some(link) = &mut self.links[who] else { return false };
        let said = link.down.len() < HELD && link.pump(&mut self.registry, self.now);
        if said && self.told {
            eprintln!("→ {}: {:?}", self.agents[who].name, link.down.back().unwrap());
        }
        said
    }

    fn deliver_down(&mut self, who: usize) -> bool {
        let Some(link) = &mut self.links[who] else { return false };
        let Some(body) = link.down.pop_front() else { return false };
        self.heard += 1;
        let answer = self.agents[who].hear(body).unwrap_or_else(|broken| panic!("{broken}"));
        if let Some(answer) = answer {
            if self.told {
                eprintln!("← {}: {answer:?}", self.agents[who].name);
            }
            link.up.push_back(answer);
        }
        true
    }

    fn deliver_up(&mut self, who: usize) -> bool {
        let Some(link) = &mut self.links[who] else { return false };
        link.deliver_up(&mut self.registry, self.now)
    }

    /// A conversation that nobody hears any more goes on, or ends.
    fn haunt(&mut self) {
        let Some(mut ghost) = self.ghosts.pop() else { return };
        if ghost.down.len() < HELD {
            ghost.pump(&mut self.registry, self.now);
        }
        ghost.deliver_up(&mut self.registry, self.now);
        match self.chance.once_in(3) {
            true => ghost.session.end(&mut self.registry),
            false => self.ghosts.push(ghost),
        }
    }

    /// Sometimes with an older copy of its disk.
    fn restart_agent(&mut self, who: usize) {
        self.lose(who);
        let disk = match self.chance.once_in(4) {
            true => self.olds[who].clone(),
            false => self.agents[who].disk.clone(),
        };
        self.olds[who] = self.agents[who].disk.clone();
        self.agents[who].start_from(disk);
    }

    /// Its disk is not what it was, and nobody has noticed.
    fn alter(&mut self, who: usize) {
        if !self.chance.once_in(12) {
            return;
        }
        self.lose(who);
        self.agents[who].exact = false;
        let mut disk = self.agents[who].disk.clone();
        if disk.records.pop_first().is_none() {
            let (key, bodies) = &manifests()[0];
            disk.records.insert(key.clone(), bodies[0].clone());
        }
        self.agents[who].start_from(disk);
    }

    fn lose(&mut self, who: usize) {
        if let Some(link) = self.links[who].take() {
            self.ghosts.push(link);
        }
    }

    /// A disk fills, or has room again; time goes by.
    fn change_weather(&mut self, who: usize) {
        self.now += Duration::from_secs(self.chance.below(400) as u64);
        match self.chance.once_in(2) {
            true => self.agents[who].disk_full = true,
            false => self.make_room(who),
        }
    }

    fn make_room(&mut self, who: usize) {
        if let (Some(said), Some(link)) = (self.agents[who].make_room(), &mut self.links[who]) {
            link.up.push_back(said);
        }
    }

    /// It starts anew, sometimes from an older copy; the manifests are there, all links are gone.
    fn trouble_registry(&mut self) {
        if !self.chance.once_in(2) {
            return;
        }
        let mut epoch = self.chance.epoch();
        if self.chance.once_in(3) {
            self.kept = self.old.clone();
            if self.chance.once_in(2) {
                // Its whole machine was put back: nobody notices, but agents are ahead, or have
                // heard something else under the same numbers.
                epoch = self.old_epoch;
                self.agents.iter_mut().for_each(|agent| agent.exact = false);
            }
        }
        self.links.iter_mut().for_each(|link| *link = None);
        self.ghosts.clear();
        let put = |((owner, key), body): (&(Owner, Key), &Bytes)| {
            (owner.clone(), Put { key: key.clone(), body: body.clone() })
        };
        let kept: Vec<_> = self.kept.iter().map(put).collect();
        self.registry = Registry::within(BOUNDS, epoch, kept);
        self.watch();
        // Until they are read again, what was kept of them counts.
        if !self.chance.once_in(4) {
            let writes = self.registry.observe(&self.folder);
            self.keep(writes);
        }
    }

    /// Whatever was wrong is over.
    fn heal(&mut self) {
        let writes = self.registry.observe(&self.folder);
        self.keep(writes);
        for who in 0..self.agents.len() {
            self.make_room(who);
            if self.links[who].is_none() {
                self.connect(who);
            }
        }
        for ghost in self.ghosts.drain(..) {
            ghost.session.end(&mut self.registry);
        }
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        for _ in 0..PATIENCE {
            let mut busy = false;
            for who in 0..self.agents.len() {
                busy |= self.pump(who) | self.deliver_down(who) | self.deliver_up(who);
            }
            if !busy {
                return;
            }
        }
        panic!("they still talk");
    }

    fn check_bounds(&self) {
        assert!(self.registry.remembered() <= BOUNDS.deletes);
        assert!(self.registry.views() <= self.agents.len());
    }

    fn check(&mut self) {
        for (agent, link) in self.agents.iter().zip(&self.links) {
            let name = &agent.name;
            let wanted = self.registry.seen_by(&agent.selector);
            assert_eq!(agent.shown, wanted, "{name} shows something else");
            assert_eq!(agent.disk.records, wanted, "{name} stored something else");
            let session = &link.as_ref().unwrap().session;
            assert!(session.is_settled(&self.registry), "{name}: {session}");
            assert_eq!(session.acknowledged(), agent.holding().revision, "{name}");
            assert_eq!(agent.holding().epoch, self.registry.epoch(), "{name}");
            let digest = self.registry.digest_of(&agent.selector);
            assert_eq!(agent.holding().digest, digest, "{name}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
fn start() -> Instant {
    Instant::now()
}
