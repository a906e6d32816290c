//! Picks iptables-nft or iptables-legacy, and reads and writes the nat table through it.

use std::fs;
use std::io::ErrorKind;

use iptables::IPTables;

use crate::capture::chains::{CHAINS, MADE, is_ours, is_own, jumps, leads_to_ours};
use crate::capture::command::{LOCK_WAIT, line, must, run};
use crate::capture::error::CaptureError;
use crate::capture::nft_table;
use crate::capture::rules::jump;

/// Most jumps of ours that are removed from one chain: more than a few means something is wrong.
const MAX_JUMPS: usize = 16;

/// One of the two implementations of iptables, or whatever the system calls `iptables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    System,
    Nft,
    Legacy,
}

/// The programs of a backend for one family.
struct Programs {
    tables: &'static str,
    restore: &'static str,
    save: &'static str,
}

/// The nat table of one family through one backend.
pub(super) struct Tables {
    pub(super) v4: bool,
    backend: Backend,
    programs: Programs,
    crate_tables: IPTables,
}

/// How much a backend is in use by others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    /// Rules of kube-proxy and kubelet.
    kube: usize,
    /// All rules that are not ours.
    all: usize,
}

impl Backend {
    /// The backend that already holds the node's rules (kube-proxy's above all), else the
    /// system's. Rules in two backends are both walked, and it is luck who comes first.
    pub(super) fn detect() -> Self {
        choose(Self::Nft.weigh(), Self::Legacy.weigh())
    }

    /// Backends that may hold leftovers of ours.
    pub(super) fn in_use() -> Vec<Self> {
        Self::installed().filter(|backend| backend.is_loaded()).collect()
    }

    /// Backends whose programs are on the PATH.
    pub(super) fn installed() -> impl Iterator<Item = Self> {
        [Self::System, Self::Nft, Self::Legacy].into_iter().filter(|backend| backend.is_there())
    }

    fn is_there(self) -> bool {
        run(self.programs(true).tables, &["--version"], "").is_ok_and(|output| output.ok)
    }

    /// Asking the legacy backend about a table creates it, and with it a second set of hooks: so
    /// ask the kernel first.
    fn is_loaded(self) -> bool {
        let legacy = match self {
            Self::Nft => false,
            Self::Legacy => true,
            Self::System => !self.version().contains("nf_tables"),
        };
        !legacy || legacy_tables().is_none_or(|names| names.lines().any(|name| name == "nat"))
    }

    /// What the program calls itself, such as `iptables v1.8.9 (nf_tables)`.
    pub(super) fn version(self) -> String {
        must(self.programs(true).tables, &["--version"], "")
            .map_or_else(|_| self.programs(true).tables.to_owned(), |text| text.trim().to_owned())
    }

    fn weigh(self) -> Weight {
        // In a user namespace legacy cannot list its tables, but can save those we name.
        let blind = self == Self::Legacy && legacy_tables().is_none();
        let calls: &[&[&str]] = if blind { &[&["-t", "nat"], &["-t", "filter"]] } else { &[&[]] };
        let mut weight = Weight::default();
        for v4 in [true, false] {
            for args in calls {
                if let Ok(output) = run(self.programs(v4).save, args, "") {
                    weight.add(&output.stdout);
                }
            }
        }
        weight
    }

    fn programs(self, v4: bool) -> Programs {
        let (tables, restore, save) = match (self, v4) {
            (Self::System, true) => ("iptables", "iptables-restore", "iptables-save"),
            (Self::System, false) => ("ip6tables", "ip6tables-restore", "ip6tables-save"),
            (Self::Nft, true) => ("iptables-nft", "iptables-nft-restore", "iptables-nft-save"),
            (Self::Nft, false) => ("ip6tables-nft", "ip6tables-nft-restore", "ip6tables-nft-save"),
            (Self::Legacy, true) => {
                ("iptables-legacy", "iptables-legacy-restore", "iptables-legacy-save")
            }
            (Self::Legacy, false) => {
                ("ip6tables-legacy", "ip6tables-legacy-restore", "ip6tables-legacy-save")
            }
        };
        Programs { tables, restore, save }
    }
}

/// The tables that legacy iptables has in this network namespace, one a line. `None`: the kernel
/// does not let us know.
fn legacy_tables() -> Option<String> {
    match fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Ok(names) => Some(names),
        Err(error) if error.kind() == ErrorKind::NotFound => Some(String::new()),
        Err(_) => None,
    }
}

fn choose(nft: Weight, legacy: Weight) -> Backend {
    let key = |weight: Weight| (weight.kube, weight.all);
    match key(nft).cmp(&key(legacy)) {
        std::cmp::Ordering::Greater => Backend::Nft,
        std::cmp::Ordering::Less => Backend::Legacy,
        std::cmp::Ordering::Equal => Backend::System,
    }
}

impl Weight {
    fn add(&mut self, saved: &str) {
        let foreign = |rule: &&str| !is_ours(rule) && !leads_to_ours(rule);
        for rule in saved.lines().filter(|line| line.starts_with("-A ")).filter(foreign) {
            self.all += 1;
            self.kube += usize::from(rule.contains("KUBE-"));
        }
    }
}

impl Tables {
    /// Which implementation a version names: two names may lead to the same one.
    pub(super) fn name_of(version: &str) -> &'static str {
        if version.contains("nf_tables") { "nft" } else { "legacy" }
    }

    pub(super) fn new(backend: Backend, v4: bool) -> Self {
        let programs = backend.programs(v4);
        // Without `has_wait` the crate appends no `--wait`, which would wait for ever; each rule
        // that we give it ends with a wait of our own.
        let crate_tables =
            IPTables { cmd: programs.tables, has_check: true, has_wait: false, is_numeric: true };
        Self { v4, backend, programs, crate_tables }
    }

    /// The rules of a chain of the nat table, each as `-A CHAIN …`. `None`: there is no such chain.
    pub(super) fn chain(&self, chain: &str) -> Result<Option<Vec<String>>, CaptureError> {
        let args = ["-w", LOCK_WAIT, "-t", "nat", "-S", chain];
        let output = run(self.programs.tables, &args, "")?;
        if output.ok {
            let rules = output.stdout.lines().filter(|line| line.starts_with("-A "));
            return Ok(Some(rules.map(str::to_owned).collect()));
        }
        // Failure and absence have the same exit code.
        let absent = ["No chain/target/match", "does not exist.", "is incompatible, use 'nft'"];
        if absent.iter().any(|words| output.stderr.contains(words)) {
            Ok(None)
        } else {
            Err(CaptureError::explain(line(self.programs.tables, &args), &output.stderr))
        }
    }

    /// The whole table.
    pub(super) fn saved(&self) -> Result<String, CaptureError> {
        must(self.programs.save, &["-t", "nat"], "")
    }

    /// Whether nft has the table: told to save it, iptables invents one that is not there.
    fn has_table(&self) -> Result<bool, CaptureError> {
        Ok(must(self.programs.save, &[], "")?.lines().any(|line| line == "*nat"))
    }

    /// Loads our chains, as [`crate::capture::render`] writes them, with a mark where there was no
    /// table before (`made`).
    pub(super) fn load_chains(&self, text: &str, made: &mut bool) -> Result<(), CaptureError> {
        if self.chain(CHAINS[0].name)?.is_some() {
            return self.load(text);
        }
        let is_nft = || Self::name_of(&self.backend.version()) == "nft";
        *made = *made || (is_nft() && !self.has_table()?);
        let mark = if *made { format!("*nat\n:{MADE} - [0:0]\n") } else { "*nat\n".into() };
        self.load(&text.replacen("*nat\n", &mark, 1))
    }

    /// Loads `text` in one step: all of it, or nothing.
    fn load(&self, text: &str) -> Result<(), CaptureError> {
        must(self.programs.restore, &["-w", LOCK_WAIT, "--noflush"], text).map(drop)
    }

    /// Makes the jumps to our chains the first rules of theirs.
    pub(super) fn place_jumps(&self) -> Result<(), CaptureError> {
        // The last first: each goes in front.
        for (from, to) in jumps().rev() {
            let rules = self.chain(from)?.unwrap_or_default();
            match leading_to(&rules, to).as_slice() {
                [] => self.insert_jump(from, to)?,
                [at] if rules[..*at].iter().all(|rule| leads_to_ours(rule)) => {}
                _ => self.move_jump(from, to, &rules)?,
            }
        }
        Ok(())
    }

    fn insert_jump(&self, from: &str, to: &str) -> Result<(), CaptureError> {
        let rule = format!("{} -w {LOCK_WAIT}", jump(to));
        let command = || format!("{} -t nat -I {from} 1 {rule}", self.programs.tables);
        let ran = self.crate_tables.insert("nat", from, &rule, 1);
        ran.map_err(|error| CaptureError::explain(command(), &error.to_string()))?;
        // Its `false` may be a failure too: either way the jump is not known to be there.
        match self.crate_tables.exists("nat", from, &rule) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(CaptureError::Failed {
                command: command(),
                detail: "the jump is not there afterwards".into(),
            }),
        }
    }

    /// Takes all jumps out and puts one in front, in one step.
    pub(super) fn move_jump(
        &self,
        from: &str,
        to: &str,
        rules: &[String],
    ) -> Result<(), CaptureError> {
        let deletes = deletes(rules, to);
        self.load(&format!("*nat\n{deletes}-I {from} 1 {}\nCOMMIT\n", jump(to)))
    }

    /// Deletes the jumps: from then on nothing new is captured.
    pub(super) fn delete_jumps(&self) -> Result<bool, CaptureError> {
        let mut any = false;
        for (from, to) in jumps() {
            for _ in 0..MAX_JUMPS {
                let rules = self.chain(from)?.unwrap_or_default();
                let deletes = deletes(&rules, to);
                if deletes.is_empty() {
                    break;
                }
                any = true;
                self.load(&format!("*nat\n{deletes}COMMIT\n"))?;
            }
        }
        Ok(any)
    }

    /// Deletes our chains, whatever is left of them, and what others made lead there. The jumps
    /// must be gone.
    pub(super) fn delete_chains(&self) -> Result<bool, CaptureError> {
        let saved = self.saved()?;
        let text = deletion(&saved);
        if text.is_empty() {
            return Ok(false);
        }
        self.load(&format!("*nat\n{text}COMMIT\n"))?;
        if saved.lines().any(|line| line.starts_with(&format!(":{MADE} "))) {
            self.delete_table();
        }
        Ok(true)
    }

    /// Deletes what nft made for us, as far as nobody else uses it: what cannot be deleted is in
    /// use, or too old an iptables made it; both are fine.
    fn delete_table(&self) {
        for (from, _) in jumps() {
            let _ = run(self.programs.tables, &["-t", "nat", "-X", from], "");
        }
        let _ = nft_table::delete_if_empty(self.v4);
    }
}

/// What deletes our chains from a table that was saved as `saved`: empty, where there are none.
fn deletion(saved: &str) -> String {
    let mut text = String::new();
    for rule in saved.lines().filter(|line| leads_to_ours(line) && !is_ours(line)) {
        text.push_str(&format!("{}\n", rule.replacen("-A ", "-D ", 1)));
    }
    let names = || saved.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    // All are emptied before the first goes: one may lead to another.
    for (command, name) in ["-F", "-X"].into_iter().flat_map(|c| names().map(move |name| (c, name)))
    {
        if is_own(name) {
            text.push_str(&format!("{command} {name}\n"));
        }
    }
    text
}

/// Positions (from 0) of the rules that lead to `chain`.
pub(super) fn leading_to(rules: &[String], chain: &str) -> Vec<usize> {
    let end = format!(" -j {chain}");
    (0..rules.len()).filter(|at| rules[*at].ends_with(&end)).collect()
}

/// A command that deletes each rule which leads to `chain`, as it was listed.
fn deletes(rules: &[String], chain: &str) -> String {
    leading_to(rules, chain)
        .into_iter()
        .map(|at| format!("{}\n", rules[at].replacen("-A ", "-D ", 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_that_holds_the_nodes_rules_is_used() {
        let weight = |saved: &str| {
            let mut weight = Weight::default();
            weight.add(saved);
            weight
        };
        let cases = [
            ("", "", Backend::System),
            ("-A INPUT -j ACCEPT", "", Backend::Nft),
            ("", "-A INPUT -j ACCEPT", Backend::Legacy),
            ("-A INPUT -j A\n-A INPUT -j B", "-A OUTPUT -j KUBE-SERVICES", Backend::Legacy),
            ("-A OUTPUT -j EDGEMESH_OUT\n-A EDGEMESH_OUT -j RETURN", "", Backend::System),
        ];
        for (nft, legacy, want) in cases {
            assert_eq!(choose(weight(nft), weight(legacy)), want, "{nft} | {legacy}");
        }
    }
}
