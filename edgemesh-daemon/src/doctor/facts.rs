//! All that the doctor looks at, asked for once: configuration, agent, kernel, machine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use tokio::runtime::Runtime;

use crate::api::{BackendView, RouteView, ServiceView, Status};
use crate::capture::survey::{self, Table};
use crate::capture::{Input, Ruleset, render};
use crate::client::Admin;
use crate::config::{self, AgentConfig, Environment, Flags, Kind, Resolved};
use crate::doctor::machine::Machine;
use crate::doctor::names::Answer;
use crate::doctor::processes::Process;
use crate::doctor::uplink::Uplink;
use crate::doctor::{names, processes};
use crate::ports::{Holder, holders, of_agent};
use crate::redirect;

/// What was found out.
pub(super) struct Facts {
    pub(super) now: SystemTime,
    /// The file; `None`: the defaults are looked at.
    pub(super) file: Option<PathBuf>,
    /// The configuration, or what is wrong with it, a line each.
    pub(super) config: Result<Resolved, Vec<String>>,
    /// What the agent says, or why it says nothing.
    pub(super) agent: Result<Answers, String>,
    /// Agents in this network namespace.
    pub(super) agents: Vec<Process>,
    /// Who holds the ports that the agent needs.
    pub(super) ports: Vec<Holder>,
    pub(super) kernel: Kernel,
    pub(super) machine: Machine,
    pub(super) resolv: String,
    /// What name servers say of a name of the mesh. Empty: there was none to ask for.
    pub(super) answers: Vec<Answer>,
    pub(super) uplink: Uplink,
}

/// The agent's own pages.
pub(super) struct Answers {
    pub(super) status: Status,
    pub(super) services: Vec<ServiceView>,
    pub(super) routes: Vec<RouteView>,
    pub(super) backends: Vec<BackendView>,
    pub(super) metrics: String,
}

/// What the kernel holds. `Err`: why it could not be asked.
pub(super) struct Kernel {
    pub(super) versions: Vec<String>,
    pub(super) chosen: String,
    pub(super) tables: Result<Vec<Table>, String>,
    /// What the rules should be, as far as the manifests tell.
    pub(super) rules: Option<Ruleset>,
    pub(super) input: Option<Input>,
    pub(super) device: Result<Vec<String>, String>,
    pub(super) routes: Result<Vec<String>, String>,
}

impl Facts {
    /// Asks for everything. `file` and `admin` are what the command line named.
    ///
    /// # Errors
    /// When not even a runtime can be had, or `admin` is no address.
    pub(super) fn gather(file: Option<&Path>, admin: Option<&str>) -> anyhow::Result<Self> {
        let agents = processes::agents();
        let file = file.map(Path::to_owned).or_else(|| agents.first()?.config.clone());
        let file = config::file_or_default(file.as_deref(), Kind::Agent).map(Path::to_owned);
        let config = load(file.as_deref());
        let told = config.as_ref().ok().map(|resolved| &resolved.config);
        let url = admin.map_or_else(
            || format!("http://{}", told.map_or(config::ADMIN, |config| config.admin.listen)),
            str::to_owned,
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let agent = ask(&Admin::new(&url)?, &runtime);
        let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let kernel = Kernel::survey(told, agent.as_ref().ok());
        let answers = match (&agent, told) {
            (Ok(agent), Some(config)) => names::ask(config, &agent.services, &resolv),
            _ => Vec::new(),
        };
        let machine = Machine::look(told, &agents);
        let ports = told.map(|config| holders(&of_agent(config))).unwrap_or_default();
        let uplink = told.map(|config| Uplink::look(config, &runtime)).unwrap_or_default();
        // A name server that does not answer holds up nobody.
        runtime.shutdown_background();
        Ok(Self {
            now: SystemTime::now(),
            file,
            config,
            agent,
            agents,
            ports,
            kernel,
            machine,
            resolv,
            answers,
            uplink,
        })
    }

    /// The configuration, where it can be read.
    pub(super) fn told(&self) -> Option<&AgentConfig> {
        self.config.as_ref().ok().map(|resolved| &resolved.config)
    }

    /// Whether this node is meant to capture: where that is not known, yes.
    pub(super) fn captures(&self) -> bool {
        self.told().is_none_or(crate::agent::needs_guard)
    }

    /// Whether no agent runs here, and nothing of one is in place.
    pub(super) fn is_idle(&self) -> bool {
        let empty = |tables: &Vec<Table>| !tables.iter().any(Table::has_ours);
        let nothing = self.kernel.tables.as_ref().is_ok_and(empty);
        self.agent.is_err() && self.agents.is_empty() && nothing
    }

    /// Addresses of the agent's own.
    pub(super) fn own(&self) -> &[IpAddr] {
        self.told().map_or(&[], |config| &config.proxy.address)
    }
}

impl Kernel {
    fn survey(config: Option<&AgentConfig>, agent: Option<&Answers>) -> Self {
        let mut input = config.map(redirect::input);
        // A running agent knows of records that the manifests here may not hold.
        if let (Some(input), Some(agent)) = (&mut input, agent) {
            let include = &agent.status.capture.include;
            input.include = include.iter().filter_map(|net| net.parse().ok()).collect();
            // Nor of what is signed up, or ill: it keeps these rules whole itself.
            input.udp.clear();
        }
        let asked = |lacks: fn(&Input) -> Result<Vec<String>, crate::capture::CaptureError>| {
            let asked = input.as_ref().map_or_else(|| Ok(Vec::new()), lacks);
            asked.map_err(|error| error.to_string())
        };
        Self {
            versions: survey::versions(),
            chosen: survey::chosen(),
            tables: survey::tables().map_err(|error| error.to_string()),
            rules: input.as_ref().map(render),
            device: asked(|input| survey::device_lacks(&input.addresses)),
            routes: asked(survey::routes_lack),
            input,
        }
    }
}

fn load(file: Option<&Path>) -> Result<Resolved, Vec<String>> {
    let (environment, flags) = (Environment::of_process(), Flags::default());
    config::load_or_default(file, &environment, &flags).map_err(|problems| {
        let checked = config::check_any(file, &environment, &flags);
        let name = checked.name.unwrap_or_default();
        match checked.guess.kind {
            Kind::Agent => problems.iter().map(ToString::to_string).collect(),
            Kind::Cloud => vec![format!(
                "{name} is the configuration of a cloud (it {}); what is looked at is a node",
                checked.guess.because
            )],
        }
    })
}

fn ask(admin: &Admin, runtime: &Runtime) -> Result<Answers, String> {
    let pages = async {
        Ok(Answers {
            status: admin.get("/v1/status").await?,
            services: admin.get("/v1/services").await?,
            routes: admin.get("/v1/routes").await?,
            backends: admin.get("/v1/backends").await?,
            metrics: admin.text("/metrics").await?,
        })
    };
    let answers: Result<_, crate::client::ClientError> = runtime.block_on(pages);
    answers.map_err(|error| error.to_string())
}
