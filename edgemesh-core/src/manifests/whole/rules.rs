//! Rules and Endpoints over all documents: whose id it is, which Endpoint a Rule means, and which Rules
//! take no messages.

use std::collections::{BTreeMap, HashMap};

use edgemesh_proto::record::{Body, Endpoint, EndpointName, Key, Kind, Record, Rule, RuleName};
use edgemesh_proto::rule::Id;

use crate::manifests::whole::{Verdict, Whole, about, whole_of};
use crate::manifests::{Document, Focus, Severity, Sides};
use crate::snapshot::rules::{Claim, Compiled, Standing, Step, compile, overruled, rounds};

/// Every Endpoint that documents say, by name and by id.
#[derive(Default)]
struct Known {
    by_name: HashMap<EndpointName, Endpoint>,
    by_id: HashMap<Id, EndpointName>,
}

impl Known {
    fn add(&mut self, name: EndpointName, endpoint: &Endpoint) {
        self.by_id.entry(endpoint.id.clone()).or_insert_with(|| name.clone());
        self.by_name.entry(name).or_insert_with(|| endpoint.clone());
    }

    /// What an Endpoint that is written out in a Rule is called where it is there already.
    fn same_as(&self, name: &EndpointName, endpoint: &Endpoint) -> Option<EndpointName> {
        match self.by_name.contains_key(name) {
            true => Some(name.clone()),
            false => self.by_id.get(&endpoint.id).cloned(),
        }
    }

    /// The Endpoint that a Rule of `namespace` means by an id.
    fn meant(&self, said: &EndpointName, namespace: &str) -> Option<EndpointName> {
        if self.by_name.contains_key(said) || *said.namespace != *namespace {
            return None;
        }
        self.by_id.get(&Id::new("id", &said.name).ok()?).cloned()
    }
}

impl Whole {
    /// Of two Endpoints, or two Rules, with one id the first counts: tables hold it once.
    pub(super) fn drop_taken_ids(&mut self) {
        let mut taken: HashMap<(Kind, Id), String> = HashMap::new();
        self.keep(|_, document| {
            for record in &document.records {
                let id = match &record.body {
                    Body::Endpoint(endpoint) => endpoint.id.clone(),
                    Body::Rule(rule) => rule.id.clone(),
                    Body::Service(_)
                    | Body::Slice(_)
                    | Body::Node(_)
                    | Body::Workload(_)
                    | Body::Policy(_)
                    | Body::Route(_)
                    | Body::Revocation(_) => continue,
                };
                if let Some(holder) = taken.get(&(record.kind(), id.clone())) {
                    let reason = format!("its id {id} is that of {holder}; give it one of its own");
                    return Err((Severity::Rejected, whole_of(document), reason));
                }
                taken.insert((record.kind(), id), document.object.clone());
            }
            Ok(())
        });
    }

    /// Endpoints that Rules write out become records where no document says them, and Rules that go
    /// by an id get the name that belongs to it.
    pub(super) fn take_in_endpoints(&mut self) {
        let mut known = Known::default();
        for (_, document) in &self.documents {
            for record in &document.records {
                if let Body::Endpoint(endpoint) = &record.body {
                    known.add(EndpointName::new(&record.namespace, &record.name), endpoint);
                }
            }
        }
        for (file, document) in &mut self.documents {
            let embedded = document.sides.as_mut().map(|sides| std::mem::take(&mut sides.embedded));
            for record in embedded.into_iter().flatten() {
                let Body::Endpoint(endpoint) = &record.body else { continue };
                let name = EndpointName::new(&record.namespace, &record.name);
                let Some(same) = known.same_as(&name, endpoint) else {
                    known.add(name, endpoint);
                    document.records.push(record);
                    continue;
                };
                if known.by_name.get(&same) != Some(endpoint) {
                    let verdict = differs(document, &name, &same);
                    self.remarks.push(about(file, document, verdict));
                }
                aim(document, |side| (*side == name).then(|| same.clone()));
            }
        }
        for (_, document) in &mut self.documents {
            let Some(namespace) = document.records.first().map(|rule| rule.namespace.clone())
            else {
                continue;
            };
            aim(document, |side| known.meant(side, &namespace));
        }
    }

    /// Says why a Rule takes no messages, as far as these documents tell, and what in it means nothing.
    pub(super) fn note_idle_rules(&mut self, records: &BTreeMap<Key, Record>) {
        let mut endpoints: BTreeMap<EndpointName, &Endpoint> = BTreeMap::new();
        let mut compiled: BTreeMap<RuleName, (&Rule, Compiled)> = BTreeMap::new();
        for record in records.values() {
            if let Body::Endpoint(endpoint) = &record.body {
                endpoints.insert(EndpointName::new(&record.namespace, &record.name), endpoint);
            }
        }
        for record in records.values() {
            if let Body::Rule(rule) = &record.body {
                let name = RuleName::new(&record.namespace, &record.name);
                let read = compile(&name, rule, |wanted| endpoints.get(wanted).copied());
                compiled.insert(name, (rule, read));
            }
        }
        let claims = compiled.iter().filter_map(|(name, (rule, read))| {
            Claim::of(name, rule, &read.standing, read.source.as_ref())
        });
        let losers: BTreeMap<RuleName, RuleName> = overruled(claims).into_iter().collect();
        let active = compiled.iter().filter(|(_, (_, read))| read.standing == Standing::Active);
        let steps = active.filter_map(|(name, (_, read))| {
            Step::of(name, read.source.as_ref()?, read.target.as_ref()?)
        });
        let in_rounds: BTreeMap<RuleName, Box<str>> = rounds(steps).into_iter().collect();
        for (file, document) in &self.documents {
            let (Some(sides), Some(record)) = (&document.sides, document.records.first()) else {
                continue;
            };
            let name = RuleName::new(&record.namespace, &record.name);
            let Some((_, read)) = compiled.get(&name) else { continue };
            let idle = match (losers.get(&name), in_rounds.get(&name)) {
                (Some(winner), _) => Some(overruled_by(sides, winner)),
                (None, Some(why)) => idle(document, sides, &Standing::Faulty(why.clone())),
                (None, None) => idle(document, sides, &read.standing),
            };
            let notes = read
                .notes
                .iter()
                .map(|note| (Severity::Note, whole_of(document), note.to_string()));
            let said = idle.into_iter().chain(notes);
            self.remarks.extend(said.map(|verdict| about(file, document, verdict)));
        }
    }
}

fn differs(document: &Document, name: &EndpointName, same: &EndpointName) -> Verdict {
    let reason = format!(
        "Endpoint {name}, which is written out here, is also there as Endpoint {same}, which counts \
         and differs"
    );
    (Severity::Note, whole_of(document), reason)
}

fn overruled_by(sides: &Sides, winner: &RuleName) -> Verdict {
    let reason = format!(
        "takes no messages: Rule {winner}, which is older or first by name, takes the same; change one"
    );
    (Severity::Note, sides.source.clone(), reason)
}

fn idle(document: &Document, sides: &Sides, standing: &Standing) -> Option<Verdict> {
    let (why, until) = match standing {
        Standing::Waiting(why) => (why, "waits"),
        Standing::Faulty(why) => (why, "takes no messages"),
        Standing::Active | Standing::Paused | Standing::Overruled(_) | Standing::Deleted => {
            return None;
        }
    };
    let (focus, why): (Focus, &str) = match why.split_once(": ") {
        Some(("source", why)) => (sides.source.clone(), why),
        Some(("target", why)) => (sides.target.clone(), why),
        Some(_) | None => (whole_of(document), why),
    };
    Some((Severity::Note, focus, format!("{until}: {why}")))
}

/// Gives the sides of a Rule the names that `meant` has for them.
fn aim(document: &mut Document, meant: impl Fn(&EndpointName) -> Option<EndpointName>) {
    if let Some(Record { body: Body::Rule(rule), .. }) = document.records.first_mut() {
        for side in [&mut rule.source, &mut rule.target] {
            if let Some(name) = meant(side) {
                *side = name;
            }
        }
    }
}
