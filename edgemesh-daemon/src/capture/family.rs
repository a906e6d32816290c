//! One family's rules and routes: loaded, followed and taken away together.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::capture::backend::{Backend, Tables};
use crate::capture::chains::CHAINS;
use crate::capture::error::CaptureError;
use crate::capture::first_error;
use crate::capture::routes::Routes;
use crate::capture::rules::{Input, Ruleset, count};

/// One family's rules and routes.
pub(super) struct Family {
    pub(super) tables: Tables,
    pub(super) routes: Routes,
    /// What our chains hold. Empty: nothing yet.
    pub(super) loaded: String,
    /// How iptables listed that right after it was loaded.
    listed: Option<u64>,
    /// The nat table is there because of us: who flushes it takes the mark that says so along.
    made: bool,
}

impl Family {
    pub(super) fn new(tables: Tables) -> Self {
        let routes = Routes::new(tables.v4);
        Self { tables, routes, loaded: String::new(), listed: None, made: false }
    }

    /// What changed; rules before routes: what can be reached is captured, not lost.
    pub(super) fn write(
        &mut self,
        input: &Input,
        rules: &Ruleset,
        notes: &mut Vec<String>,
    ) -> Result<(), CaptureError> {
        self.load(rules)?;
        self.lead(input, notes);
        Ok(())
    }

    /// The chains, where they changed.
    pub(super) fn load(&mut self, rules: &Ruleset) -> Result<(), CaptureError> {
        let text = if self.tables.v4 { &rules.v4 } else { &rules.v6 };
        if *text != self.loaded {
            self.tables.load_chains(text, &mut self.made)?;
            self.loaded.clone_from(text);
            self.listed = self.listing()?;
        }
        Ok(())
    }

    /// Loads the chains again where they are not as they were loaded. `true`: they were not.
    pub(super) fn reload_if_changed(&mut self) -> Result<bool, CaptureError> {
        let listed = self.listing()?;
        if listed.is_some() && listed == self.listed {
            return Ok(false);
        }
        self.tables.load_chains(&self.loaded, &mut self.made)?;
        self.listed = self.listing()?;
        Ok(true)
    }

    /// What iptables says of our chains, as a hash. `None`: they do not even hold as many rules as
    /// were loaded.
    fn listing(&self) -> Result<Option<u64>, CaptureError> {
        let mut hasher = DefaultHasher::new();
        for chain in CHAINS {
            let rules = self.tables.chain(chain.name)?;
            let Some(rules) = rules.filter(|r| r.len() == count(&self.loaded, chain.name)) else {
                return Ok(None);
            };
            rules.hash(&mut hasher);
        }
        Ok(Some(hasher.finish()))
    }

    /// The routes of last resort; without them, what has a default route is captured still.
    pub(super) fn lead(&mut self, input: &Input, notes: &mut Vec<String>) {
        let v4 = self.tables.v4;
        if let Err(error) = self.routes.apply(input, input.address(v4)) {
            let name = if v4 { "IPv4" } else { "IPv6" };
            note(notes, format!("{name} needs a default route to be captured: {error}"));
        }
    }

    pub(super) fn remove(&mut self) -> Result<(), CaptureError> {
        let jumps = self.tables.delete_jumps().map(drop);
        first_error([jumps, self.clear()])
    }

    /// Deletes the chains and routes. The jumps must be gone.
    pub(super) fn clear(&mut self) -> Result<(), CaptureError> {
        self.loaded.clear();
        self.listed = None;
        self.made = false;
        let chains = self.tables.delete_chains().map(drop);
        first_error([chains, self.routes.remove().map(drop)])
    }
}

/// The tables of both families, where the kernel has the family.
pub(super) fn both(backend: Backend) -> impl Iterator<Item = Tables> {
    let families = [true, false].into_iter();
    let present = families.map(move |v4| Tables::new(backend, v4));
    present.filter(|tables| tables.v4 || (has_ipv6() && tables.chain("OUTPUT").is_ok()))
}

/// IPv6 where program, kernel and table are there; else a note that says what is not.
pub(super) fn ipv6(backend: Backend, notes: &mut Vec<String>) -> Option<Family> {
    if !has_ipv6() {
        note(notes, "IPv6 is not captured: this kernel runs without it".into());
        return None;
    }
    let tables = Tables::new(backend, false);
    match tables.chain("OUTPUT") {
        Ok(_) => Some(Family::new(tables)),
        Err(error) => {
            note(notes, format!("IPv6 is not captured: {error}"));
            None
        }
    }
}

pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Adds `text` once.
pub(super) fn note(notes: &mut Vec<String>, text: String) {
    if !notes.contains(&text) {
        notes.push(text);
    }
}
