//! `edgemesh redirect`: the capture rules without an agent, as reviewed text or applied.
//!
//! The rules are those that the agent would install for the manifests as they are now, and the
//! ServiceCIDRs that it was told last.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgemesh_core::manifests;
use edgemesh_core::mesh::kept_service_cidrs;
use edgemesh_core::snapshot::{Builder, Change, Snapshot};
use edgemesh_proto::record::NodeName;

use crate::agent::{capture_input, captures_here};
use crate::capture::{self, Capture, Input, render};
use crate::cli::RedirectAction;
use crate::config::{AgentConfig, Source};
use crate::say;

/// Prints, installs or removes the rules.
///
/// # Errors
/// What this node lacks for capture, with the remedy.
pub fn run(config: &AgentConfig, action: RedirectAction) -> anyhow::Result<()> {
    match action {
        RedirectAction::Print => {
            let rules = render(&input(config));
            say::answer(&format!(
                "{}{}",
                headed("iptables", &rules.v4),
                headed("ip6tables", &rules.v6)
            ))?;
        }
        RedirectAction::Install => {
            let capture = Capture::install(input(config))?;
            for note in &capture.report().notes {
                say::complain(note);
            }
            say::answer("installed; `edgemesh redirect remove` takes everything away again\n")?;
        }
        RedirectAction::Remove => {
            // It would put everything back within seconds.
            if let Some(pid) = captures_here() {
                anyhow::bail!(
                    "an agent (pid {pid}) captures here: stop it, and it takes its rules along"
                );
            }
            let found = capture::remove_leftovers(&config.proxy.address)?;
            say::answer(if found { "removed\n" } else { "nothing of EdgeMesh was there\n" })?;
        }
    }
    Ok(())
}

/// What an agent would capture for the manifests as they are now.
pub(crate) fn input(config: &AgentConfig) -> Input {
    let outward = capture::outward().unwrap_or_default();
    // Manifests know of none: what an agent kept of another source does not count.
    let ranges = match &config.source {
        Source::None | Source::Manifests(_) => Arc::default(),
        Source::Cloud | Source::Kubernetes(_) => kept_service_cidrs(&config.data_dir),
    };
    Input { outward, ..capture_input(config, &snapshot(config), &ranges) }
}

fn headed(program: &str, rules: &str) -> String {
    format!("# {program}-restore --noflush\n{rules}")
}

/// The records of the manifests; virtual addresses need none, their whole range is captured.
fn snapshot(config: &AgentConfig) -> Arc<Snapshot> {
    let source = match &config.source {
        Source::Manifests(folder) => Some(folder.clone()),
        Source::None | Source::Cloud | Source::Kubernetes(_) => None,
    };
    let folders: Vec<_> = source.into_iter().chain([config.services.clone()]).collect();
    let records: BTreeMap<_, _> =
        manifests::read(&folders).without(config.proxy.service_filter_mode).records;
    let put = records.into_values().collect();
    let mut builder = Builder::new(NodeName(config.node.as_str().into()), None);
    builder.apply(Change { put, ..Change::default() }, edgemesh_core::io::now())
}
